"""Graph passes that make a traced potential fast on the CPU before Inductor compiles it.

Both replace an ATen operation by one that computes the same numbers:

* `index_add` becomes `orb_export::sum_rows`, because Inductor would write it as atomic additions.
* float32 matrix products become oneDNN calls. MKL, which Inductor would call, runs at about half speed on
  processors that are not Intel's (benchmarks/gemm.py); oneDNN has no such preference.
"""

from typing import Any

import torch
from torch.fx import GraphModule, Node

_FILLED = {torch.ops.aten.full.default, torch.ops.aten.full_like.default}  # what zeros decompose to


def register_fakes() -> None:
    """Tells torch the output shapes of the two ops; the op library must be loaded."""

    def sum_rows(values: torch.Tensor, index: torch.Tensor, n: int) -> torch.Tensor:
        return values.new_empty((n, values.shape[1]))

    def matmul(rows: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return rows.new_empty((rows.shape[0], matrix.shape[1]))

    torch.library.register_fake("orb_export::sum_rows", sum_rows, allow_override=True)
    torch.library.register_fake("orb_export::matmul", matmul, allow_override=True)


def apply(module: GraphModule) -> GraphModule:
    """Runs both passes on a graph of ATen operations whose nodes carry fake values, in place."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.index_add.default:
            _keep_row_sum(node)
        elif node.target is torch.ops.aten.mm.default and _is_float32(node):
            rows, matrix = node.args
            _use_onednn(node, rows, matrix, None)
        elif node.target is torch.ops.aten.addmm.default and _is_float32(node) and not node.kwargs:
            bias, rows, matrix = node.args
            _use_onednn(node, rows, matrix, bias)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _is_float32(node: Node) -> bool:
    return bool(node.meta["val"].dtype == torch.float32)


def _keep_row_sum(node: Node) -> None:
    arguments: Any = node.args
    start, dim, index, values = arguments
    if dim != 0 or node.kwargs or values.meta["val"].dim() != 2:
        return
    graph = node.graph
    with graph.inserting_before(node):
        n = graph.call_function(torch.ops.aten.sym_size.int, (start, 0))
        total = graph.call_function(torch.ops.orb_export.sum_rows.default, (values, index, n))
        if not (start.target in _FILLED and start.args[1] == 0):
            total = graph.call_function(torch.ops.aten.add.Tensor, (start, total))
    node.replace_all_uses_with(total)
    graph.erase_node(node)


def _use_onednn(node: Node, rows: Any, matrix: Any, bias: Any) -> None:
    with node.graph.inserting_before(node):
        product = node.graph.call_function(torch.ops.orb_export.matmul.default, (rows, matrix, bias))
    node.replace_all_uses_with(product)
    node.graph.erase_node(node)
