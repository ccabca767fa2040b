"""The torch operator orb_export::radius_graph: its derivatives and every way of compiling it."""

import numpy as np
import pytest
import torch
from orb_export import _core, ops
from torch import Tensor, nn


def example(n_atoms=6, seed=0, periodic=(True, False, True)):
    rng = np.random.default_rng(seed)
    cell = 3.5 * np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3))
    return (
        torch.tensor(rng.uniform(-1, 2, (n_atoms, 3)) @ cell),
        torch.tensor(cell),
        torch.tensor(periodic),
    )


class SumOfDistances(nn.Module):
    """Pair energy, with centers that have few or no neighbors."""

    def forward(self, positions: Tensor, cell: Tensor, periodic: Tensor) -> Tensor:
        edges, _, vectors = torch.ops.orb_export.radius_graph(positions, cell, periodic, 4.0, 12)
        distances = vectors.pow(2).sum(dim=1).sqrt()
        return positions.new_zeros(positions.size(0)).index_add(0, edges[0], distances)


def test_operator_equals_the_numpy_face():
    arguments = example(20)
    actual = ops.radius_graph(*arguments, 4.0, 12)
    expected = _core.radius_graph(*(a.numpy() for a in arguments), 4.0, 12)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)
    assert [t.dtype for t in actual] == [torch.int64, torch.int64, torch.float64]


def test_vectors_are_the_differences_that_edges_and_shifts_say():
    positions, cell, periodic = example(20)
    edges, shifts, vectors = ops.radius_graph(positions, cell, periodic, 4.0, -1)
    expected = positions[edges[1]] + shifts.double() @ cell - positions[edges[0]]
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-13)


def test_first_and_second_derivatives_match_finite_differences():
    positions, cell, periodic = example()

    def vectors(x, h):
        return ops.radius_graph(x, h, periodic, 4.0, -1)[2]

    leaves = (positions.requires_grad_(), cell.requires_grad_())
    assert torch.autograd.gradcheck(vectors, leaves)
    assert torch.autograd.gradcheck(lambda x, h: vectors(x, h).pow(3), leaves)
    assert torch.autograd.gradgradcheck(lambda x, h: vectors(x, h).pow(3), leaves)


def test_indices_carry_no_gradient():
    positions, cell, periodic = example()
    edges, shifts, vectors = ops.radius_graph(positions.requires_grad_(), cell, periodic, 4.0, -1)
    assert (edges.requires_grad, shifts.requires_grad, vectors.requires_grad) == (False, False, True)


def test_graph_without_edges_has_zero_gradient():
    positions = torch.tensor([[0.0, 0, 0], [50.0, 0, 0]], dtype=torch.float64, requires_grad=True)
    vectors = ops.radius_graph(positions, torch.eye(3).double(), torch.zeros(3).bool(), 4.0, -1)[2]
    vectors.sum().backward()
    assert torch.equal(positions.grad, torch.zeros(2, 3).double())


def test_operator_follows_the_rules_of_torch():
    torch.library.opcheck(torch.ops.orb_export.radius_graph.default, (*example(), 4.0, 12))


def test_operator_follows_the_rules_of_torch_with_gradients():
    positions, cell, periodic = example()
    arguments = (positions.requires_grad_(), cell.requires_grad_(), periodic, 4.0, 12)
    # opcheck's fourth check adds outputs of all dtypes in place, which fails when the first is an integer;
    # test_compiled_gradients_equal_eager stands for it
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.orb_export.radius_graph.default, arguments, test_utils=checks)


def test_positions_may_have_any_strides():
    positions, cell, periodic = example(9)
    expected = ops.radius_graph(positions, cell, periodic, 4.0, 12)
    actual = ops.radius_graph(positions.t().contiguous().t(), cell.t().contiguous().t(), periodic, 4.0, 12)
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def test_scripted_module_equals_eager_with_gradients(tmp_path):
    module = SumOfDistances()
    torch.jit.script(module).save(tmp_path / "pairs.pt")
    scripted = torch.jit.load(tmp_path / "pairs.pt")
    for seed in range(3):
        positions, cell, periodic = example(5 + seed, seed)
        gradients = []
        for each in (module, scripted):
            leaves = (positions.clone().requires_grad_(), cell.clone().requires_grad_())
            gradients.append(torch.autograd.grad(each(*leaves, periodic).pow(2).sum(), leaves))
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def exported():
    n_atoms = torch.export.Dim("atoms", min=2)
    shapes = {"positions": {0: n_atoms}, "cell": None, "periodic": None}
    return torch.export.export(SumOfDistances(), example(7), dynamic_shapes=shapes)


@pytest.mark.parametrize("n_atoms", [3, 7, 25])
def test_exported_program_equals_eager(exported, n_atoms):
    arguments = example(n_atoms, seed=n_atoms)
    torch.testing.assert_close(
        exported.module()(*arguments), SumOfDistances()(*arguments), rtol=0, atol=1e-12
    )


# torch's own pytree copies its deprecated class while packaging
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
def test_aotinductor_package_equals_eager(exported, tmp_path):
    path = str(tmp_path / "pairs.pt2")
    torch._inductor.aoti_compile_and_package(exported, package_path=path)
    compiled = torch._inductor.aoti_load_package(path)
    for n_atoms in (3, 25):
        arguments = example(n_atoms, seed=n_atoms)
        torch.testing.assert_close(compiled(*arguments), SumOfDistances()(*arguments), rtol=0, atol=1e-12)


def test_compiled_gradients_equal_eager():
    compiled = torch.compile(SumOfDistances(), fullgraph=True, dynamic=True, backend="aot_eager")
    for n_atoms in (8, 5, 13):
        positions, cell, periodic = example(n_atoms, seed=n_atoms)
        gradients = []
        for function in (SumOfDistances(), compiled):
            leaves = (positions.clone().requires_grad_(), cell.clone().requires_grad_())
            gradients.append(torch.autograd.grad(function(*leaves, periodic).pow(2).sum(), leaves))
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (0, torch.zeros(4, 3), TypeError, "radius_graph: `positions` is Float but must be float64"),
        (1, torch.eye(3), TypeError, "radius_graph: `cell` is Float but must be float64"),
        (2, torch.ones(3), TypeError, "radius_graph: `periodic` is Float but must be bool"),
        (
            0,
            torch.zeros(4, 2).double(),
            ValueError,
            r"`positions` has shape \[4, 2\] but must have shape \(N, 3\)",
        ),
        (1, torch.zeros(9).double(), ValueError, r"`cell` has shape \[9\] but must have shape \(3, 3\)"),
        (2, torch.tensor(True), ValueError, r"`periodic` has shape \[\] but must have shape \(3,\)"),
        (1, torch.zeros(3, 3).double(), ValueError, "`cell` row 0 is .* but axis 0 is periodic"),
        (3, -1.0, ValueError, "radius_graph: `cutoff` is -1 but must be positive"),
    ],
)
def test_bad_input_is_named(index, value, error, message):
    arguments = [*example(), 4.0, 12]
    arguments[index] = value
    with pytest.raises(error, match=message):
        ops.radius_graph(*arguments)
