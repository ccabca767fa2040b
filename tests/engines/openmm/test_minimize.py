"""Minimization by forces. Oracle: the forces at its end, from Python on the same positions."""

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase.build import bulk  # noqa: E402
from orb_export.openmm.minimize import minimize  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402


@pytest.mark.parametrize("name", ["molecule", "crystal"])
def test_forces_become_small_and_energies_low(name, model):
    atoms = systems.boxed_for_openmm(CASES[name])
    context = systems.context_of(systems.system_of(atoms, systems.force_of(atoms, model)), atoms.positions)
    before = systems.measure(context)
    steps = minimize(context, 400, largest_force=0.02)
    after = systems.measure(context)
    assert 1 < steps < 400
    assert after.energy < before.energy
    assert np.linalg.norm(after.forces, axis=1).max() <= 0.02 < np.linalg.norm(before.forces, axis=1).max()
    atoms.positions = context.getState(positions=True).getPositions(asNumpy=True)._value * 10
    systems.assert_same(after, systems.predicted(atoms, model))


def test_iterations_and_lengths_are_limited(model):
    """Also where two atoms repel each other with all that the repulsion of nuclei has."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.positions[1] = atoms.positions[0] + [0.3, 0.05, 0.02]
    context = systems.context_of(systems.system_of(atoms, systems.force_of(atoms, model)), atoms.positions)
    assert minimize(context, 3) == 3
    moved = context.getState(positions=True).getPositions(asNumpy=True)._value * 10 - atoms.positions
    assert 0.05 < np.abs(moved).max() <= 0.3 + 1e-9
    minimize(context, 60)
    assert np.abs(systems.measure(context).forces).max() < 20


def test_forces_of_direct_models_are_followed(models):
    atoms = CASES["molecule"]
    force = systems.force_of(atoms, models["direct-20"])
    context = systems.context_of(systems.system_of(atoms, force), atoms.positions)
    forces = systems.measure(context).forces
    minimize(context, 1)
    moved = context.getState(positions=True).getPositions(asNumpy=True)._value * 10 - atoms.positions
    assert np.abs(moved).max() > 1e-3
    assert np.vdot(moved, forces) > 0.999 * np.linalg.norm(moved) * np.linalg.norm(forces)
