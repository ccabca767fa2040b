"""The radius graph of devices, run on the CPU here, equals the CPU's own; on a GPU where there is one."""

import numpy as np
import pytest
import torch
from orb_export import (
    _core,
    ops,  # noqa: F401  (registers the operators)
)

from tests.unit.test_radius_graph import CELLS, NO_CAP, Case, assert_same_edges, random_cases
from tests.unit.test_radius_graph_ties import CRYSTALS

GPU = torch.cuda.is_available()
pytestmark = pytest.mark.parametrize("device", ["cpu", "cuda"] if GPU else ["cpu"])


def on_device(case: Case, device: str):
    positions, cell, periodic = (torch.tensor(np.asarray(array)) for array in case[:3])
    found = torch.ops.orb_export.radius_graph_device(
        positions.to(device), cell, periodic, case.cutoff, case.cap
    )
    assert {tensor.device.type for tensor in found} == {device}
    return [tensor.cpu().numpy() for tensor in found]


@pytest.mark.parametrize("shape", CELLS)
def test_any_cell_and_periodicity(shape, device):
    for case in random_cases(shape, 60):
        assert_same_edges(on_device(case, device), _core.radius_graph(*case))


@pytest.mark.parametrize("cap", [NO_CAP, 20, 120])
@pytest.mark.parametrize("crystal", CRYSTALS)
def test_ties_of_perfect_crystals(crystal, cap, device):
    atoms = CRYSTALS[crystal].repeat((2, 3, 4))
    case = Case(atoms.positions, atoms.cell.array, np.ones(3, bool), 6.0, cap)
    assert_same_edges(on_device(case, device), _core.radius_graph(*case))


@pytest.mark.parametrize(
    "periodic", [(True, True, True), (True, False, True), (False, False, False)], ids=str
)
@pytest.mark.parametrize("density", [1e-9, 1e-3, 0.1])  # atoms per cubic angstrom
def test_many_atoms_in_several_chunks(density, periodic, device):
    rng = np.random.default_rng(4)
    cell = (12000 / density) ** (1 / 3) * np.diag([0.7, 1.0, 1.4])
    cell[2, 0] = 0.3 * cell[2, 2]
    positions = rng.uniform(-0.5, 1.5, (12000, 3)) @ cell
    positions[:500] = positions[0] + rng.uniform(0, 20, (500, 3))  # a droplet
    case = Case(positions, cell, np.array(periodic), 6.0, 20)
    expected = _core.radius_graph(*case)
    assert expected[0].shape[1] > 5000
    assert_same_edges(on_device(case, device), expected)


def test_the_operator_of_a_device_has_the_derivative_of_the_cpu(device):
    case = next(random_cases("compact_cell", 1))
    gradients = []
    for where in ("cpu", device):
        positions = torch.tensor(case.positions, device=where, requires_grad=True)
        cell = torch.tensor(case.cell, device=where, requires_grad=True)
        _, _, vectors = torch.ops.orb_export.radius_graph(
            positions, cell, torch.tensor(case.periodic, device=where), case.cutoff, case.cap
        )
        gradients.append([g.cpu() for g in torch.autograd.grad(vectors.pow(3).sum(), (positions, cell))])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(not GPU, reason="needs a GPU; where there is one, every test of this file runs on it")
def test_two_runs_on_a_gpu_agree_bit_for_bit(device):
    case = next(random_cases("compact_cell", 1))
    for first, second in zip(on_device(case, "cuda"), on_device(case, "cuda"), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("n_atoms", [0, 1])
def test_no_edges(n_atoms, device):
    case = Case(np.zeros((n_atoms, 3)), np.zeros((3, 3)), np.zeros(3, bool), 6.0, 20)
    edges, shifts, vectors = on_device(case, device)
    assert (edges.shape, shifts.shape, vectors.shape) == ((2, 0), (0, 3), (0, 3))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cutoff": -1.0}, "`cutoff` is -1"),
        ({"positions": np.full((2, 3), np.nan)}, "`positions` has a component of size nan"),
        ({"positions": np.full((2, 3), 1e10)}, "`positions` has a component of size 10000000000"),
        ({"cell": np.zeros((3, 3))}, "`cell` row 0 is"),
    ],
)
def test_bad_input_is_named(changes, text, device):
    case = Case(np.eye(3), 5 * np.eye(3), np.ones(3, bool), 6.0, 20)._replace(**changes)
    with pytest.raises(ValueError, match=text):
        on_device(case, device)
