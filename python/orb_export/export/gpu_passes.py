"""The graph pass that gives a traced potential repeatable sums on a GPU before Inductor compiles it.

Inductor would write `index_add`, a sum of rows or the gradient of a gather, as atomic additions, in another
order in every run. Here the edges of each atom are listed once, by a stable sort of their indices, and every
sum over edges reads the rows of an atom in the order of that list (`_embedding_bag`: one thread for each
number of the result). Nothing in it waits for the device, so that it can be captured.
"""

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

_ATEN = torch.ops.aten
_FILLED = {_ATEN.full.default, _ATEN.full_like.default}  # what zeros decompose to
_List = tuple[Node, Node]  # edges by atom, and where those of each atom begin


def apply(module: GraphModule) -> GraphModule:
    """Runs the pass on a graph of ATen operations whose nodes carry fake values, in place."""
    lists: dict[tuple[Node, str], _List] = {}
    for node in list(module.graph.nodes):
        if node.target is _ATEN.index_add.default:
            _sum_in_order(node, lists)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _sum_in_order(node: Node, lists: dict[tuple[Node, str], _List]) -> None:
    arguments: Any = node.args
    start, dim, index, values = arguments
    assert (dim, node.kwargs, values.meta["val"].dim()) == (0, {}, 2), node.format_node()
    graph = node.graph
    with graph.inserting_before(node):
        key = (index, str(start.meta["val"].shape[0]))
        if key not in lists:
            lists[key] = _listed(start, index)
        order, begins = lists[key]
        # not scaled by frequency, mode 0: sums, not sparse, unweighted, with the end of the last bag
        given = (values, order, begins, False, 0, False, None, True)
        bags = graph.call_function(_ATEN._embedding_bag_forward_only.default, given)
        total = graph.call_function(operator.getitem, (bags, 0))
        if not (start.target in _FILLED and start.args[1] == 0):
            total = graph.call_function(_ATEN.add.Tensor, (start, total))
    node.replace_all_uses_with(total)
    graph.erase_node(node)


def _listed(start: Node, index: Node) -> _List:
    graph, device = start.graph, index.meta["val"].device
    # a radix sort of half as many bits takes half the time
    keys = graph.call_function(_ATEN._to_copy.default, (index,), {"dtype": torch.int32})
    by_key: dict[str, Any] = {"stable": True, "dim": 0, "descending": False}
    pairs = graph.call_function(_ATEN.sort.stable, (keys,), by_key)
    sorted_keys, order = (graph.call_function(operator.getitem, (pairs, which)) for which in (0, 1))
    n = graph.call_function(_ATEN.sym_size.int, (start, 0))
    end = graph.call_function(operator.add, (n, 1))
    options: dict[str, Any] = {"dtype": torch.int32, "device": device, "pin_memory": False}
    atoms = graph.call_function(_ATEN.arange.default, (end,), options)
    return order, graph.call_function(_ATEN.searchsorted.Tensor, (sorted_keys, atoms))
