"""The energy of a float32 network stays sharp in large systems, with the reference energies of OMol25.

There a water molecule has -2079 eV, so that 20,000 atoms have an energy whose float32 steps are 96 kJ/mol,
and a Monte Carlo move could not be judged. Oracles: the heads written out with NumPy in float64, and forces.
"""

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

import torch  # noqa: E402
from ase import Atoms  # noqa: E402
from orb_export.export import export_model  # noqa: E402
from orb_export.graph import from_atoms  # noqa: E402
from orb_export.model import OrbV3  # noqa: E402

from tests.accuracy import within  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402
from tests.engines.openmm.conftest import random_model  # noqa: E402
from tests.engines.openmm.systems import ANGSTROM, KJ_PER_MOL  # noqa: E402

REFERENCES = {1: -13.6, 8: -2052.0}  # eV, about those of wB97M-V
ATOMS = 20_000


def lattice(n_atoms: int) -> Atoms:
    """Rattled simple cubic, one oxygen to two hydrogens, and so sparse that an atom has about 6 neighbors."""
    edge = int(np.ceil(n_atoms ** (1 / 3)))
    places = np.stack(np.meshgrid(*3 * [np.arange(edge)], indexing="ij"), -1).reshape(-1, 3)[:n_atoms]
    numbers = np.where(np.arange(n_atoms) % 3 == 0, 8, 1)
    atoms = Atoms(numbers, 4.5 * places, cell=3 * [4.5 * edge], pbc=True)
    atoms.rattle(0.2, seed=4)
    return atoms


@pytest.fixture(scope="module")
def network() -> OrbV3:
    """float32, with an energy per atom of ordinary spread."""
    model = random_model("conservative", 20, dtype=torch.float32)
    with torch.no_grad():
        model.energy_head.normalizer.var.fill_(1.0)
        for number, energy in REFERENCES.items():
            model.energy_head.reference[number] = energy
    return model


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("bar") / "model.pt"
    export_model(network, path, format="torchscript", verified=False)
    return path


def energy_of_features(model: OrbV3, atoms: Atoms) -> float:
    """Energy in eV, in float64 from the float32 features of the atoms on."""
    graph = from_atoms(atoms, model.config.max_neighbors)
    with torch.no_grad():
        features = model.node_features(graph, graph.vectors)
        edges = model.repulsion(graph.numbers, graph.centers, graph.neighbors, graph.vectors)
    assert features.dtype == torch.float32
    head = {name: tensor.double().numpy() for name, tensor in model.energy_head.state_dict().items()}
    mean = features.numpy().astype(np.float64).mean(0)
    hidden = head["mlp.first.weight"] @ mean + head["mlp.first.bias"]
    hidden /= 1 + np.exp(-hidden)
    value = (head["mlp.second.weight"] @ hidden + head["mlp.second.bias"]).item()
    per_atom = head["normalizer.mean"].item() + value * np.sqrt(head["normalizer.var"].item())
    references = head["reference"][atoms.numbers].sum()
    return per_atom * len(atoms) + references + edges.sum().item() / len(atoms)


@pytest.mark.parametrize("n_atoms", [50, 2000])
def test_energy_is_that_of_the_features_in_float64(n_atoms, network, file):
    atoms = lattice(n_atoms)
    error = abs(systems.evaluate(atoms, file).energy - energy_of_features(network, atoms)) / n_atoms
    # the program may sum its messages in another order, which the features then show
    assert within("OpenMM, float32 network, energy after the network", "energy", error, 1e-7)


@pytest.fixture(scope="module")
def large(file) -> tuple[Atoms, openmm.Context, systems.Result]:
    """20,000 atoms, a Context that holds them, and its result."""
    atoms = lattice(ATOMS)
    context = systems.context_of(systems.system_of(atoms, systems.force_of(atoms, file)), atoms.positions)
    start = systems.measure(context)
    assert np.spacing(np.float32(-start.energy)) * KJ_PER_MOL > 90.0  # what float32 could resolve
    return atoms, context, start


def change_along(large, direction: np.ndarray, expected: float) -> float:
    """Change of the energy, kJ/mol, for the step along `direction` (N, 3) that the forces say changes it so.

    The steps are so small that the second order does not count.
    """
    atoms, context, start = large
    slope = (start.forces * direction).sum() * KJ_PER_MOL  # kJ/mol per unit of direction
    context.setPositions((atoms.positions - expected / slope * direction) * ANGSTROM)
    energy = context.getState(energy=True).getPotentialEnergy()._value
    return energy - start.energy * KJ_PER_MOL


@pytest.mark.parametrize("atom", [0, 7001, 19_999])
@pytest.mark.parametrize("expected", [1e-3, -1e-3], ids=["up", "down"])
def test_one_atom_that_changes_the_energy_by_a_joule_per_mole_is_seen(expected, atom, large):
    direction = np.zeros((ATOMS, 3))
    direction[atom] = large[2].forces[atom]
    assert change_along(large, direction, expected) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("expected", [1e-2, -1e-2], ids=["up", "down"])
def test_a_move_of_all_atoms_is_judged_to_the_rounding_of_their_features(expected, large):
    # each atom's share is rounded to some 2e-7 eV: times the root of 20,000 this is 3e-3 kJ/mol
    assert change_along(large, large[2].forces, expected) == pytest.approx(expected, abs=3e-3)
