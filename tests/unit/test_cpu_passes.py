"""The CPU passes and their two ops. Oracle: the ATen operations that they replace."""

import pytest
import torch
from orb_export import ops  # noqa: F401  (registers the ops)
from orb_export.export import aoti, cpu_passes

from tests.artefacts import tiny_model

ATEN = torch.ops.aten
REPLACED = (ATEN.mm.default, ATEN.addmm.default, ATEN.index_add.default)
sum_rows, matmul = torch.ops.orb_export.sum_rows, torch.ops.orb_export.matmul


@pytest.mark.parametrize("edges", [0, 1, 500])
def test_row_sums_are_those_of_index_add(edges):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(edges, 7, generator=generator, dtype=torch.float64)
    index = torch.randint(0, 9, (edges,), generator=generator)
    torch.testing.assert_close(
        sum_rows(values, index, 9), torch.zeros(9, 7).double().index_add(0, index, values)
    )


@pytest.mark.parametrize("rows", [0, 1, 33])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "slice"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_products_are_those_of_addmm(rows, layout, with_bias):
    generator = torch.Generator().manual_seed(2)
    x, bias = torch.randn(rows, 16, generator=generator), torch.randn(24, generator=generator)
    matrix = {
        "contiguous": torch.randn(16, 24, generator=generator),
        "transposed": torch.randn(24, 16, generator=generator).t(),
        "slice": torch.randn(24, 48, generator=generator)[:, 16:32].t(),
    }[layout]
    expected = x @ matrix + (bias if with_bias else 0.0)
    torch.testing.assert_close(matmul(x, matrix, bias if with_bias else None), expected, rtol=1e-5, atol=1e-5)


def test_wrong_shapes_are_named():
    with pytest.raises(RuntimeError, match=r"`rows` and `matrix` must have shapes.*\[2, 3\] and \[4, 5\]"):
        matmul(torch.zeros(2, 3), torch.zeros(4, 5), None)
    with pytest.raises(RuntimeError, match=r"`values` must have shape \(E, C\), got \[3\]"):
        sum_rows(torch.zeros(3), torch.zeros(3, dtype=torch.int64), 2)


# torch.export uses a spelling that torch itself deprecates
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_no_atomic_sum_and_no_float32_product_of_mkl_is_left(kind):
    """An artefact would give the same numbers without the passes, only slower: so the graph is looked at."""
    program = aoti.trace(tiny_model(kind, dtype=torch.float32).requires_grad_(False))
    cpu_passes.register_fakes()

    def wide(target):
        return [
            node
            for node in program.graph_module.graph.nodes
            if node.target is target
            and node.meta["val"].dim() == 2
            and node.meta["val"].dtype == torch.float32
        ]

    products = len(wide(ATEN.mm.default)) + len(wide(ATEN.addmm.default))
    sums = len(wide(ATEN.index_add.default))
    assert products > 10
    assert sums >= 4
    cpu_passes.apply(program.graph_module)
    assert [len(wide(target)) for target in REPLACED] == [0, 0, 0]
    targets = [node.target for node in program.graph_module.graph.nodes]
    assert targets.count(matmul.default) == products
    assert targets.count(sum_rows.default) >= sums
