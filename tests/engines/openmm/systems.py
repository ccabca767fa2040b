"""OpenMM Systems of ASE structures, and what a Context says of them in eV and angstrom."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
import orb_export
from ase import Atoms
from openmm import unit
from orb_export.openmm import OrbV3Force

from tests.accuracy import within

# e N_A / 1000 of CODATA 2018, on its own rather than from the plugin
KJ_PER_MOL = 1.602176634e-19 * 6.02214076e23 / 1000  # of one eV
ANGSTROM = 0.1  # nm
# Both sides run the same code on the same graph; what is left is the rounding of unit conversions.
FORCE_BAR, ENERGY_BAR = 1e-9, 1e-10  # eV/angstrom, eV per atom


class Result(NamedTuple):
    energy: float  # eV
    forces: np.ndarray  # (N, 3) eV/angstrom


def boxed_for_openmm(atoms: Atoms) -> Atoms:
    """The same lattice with box vectors as OpenMM wants them: right-handed, lower triangular, reduced."""
    turned = atoms.copy()
    if not atoms.pbc.any():
        turned.cell = None
        return turned
    cell = atoms.cell.array
    if np.linalg.det(cell) < 0:
        cell, turned.pbc = cell[[0, 2, 1]], atoms.pbc[[0, 2, 1]]
    rotation, upper = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(upper))
    box = (upper.T * signs).copy()
    turned.positions = atoms.positions @ (rotation * signs)
    box[2] -= box[1] * np.round(box[2, 1] / box[1, 1])
    box[2] -= box[0] * np.round(box[2, 0] / box[0, 0])
    box[1] -= box[0] * np.round(box[1, 0] / box[0, 0])
    turned.set_cell(box)
    return turned


def system_of(atoms: Atoms, *forces: openmm.Force) -> openmm.System:
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    if atoms.cell.rank == 3:
        system.setDefaultPeriodicBoxVectors(*(atoms.cell.array * ANGSTROM))
    for force in forces:
        system.addForce(force)
    return system


def force_of(atoms: Atoms, model: Path, **options: Any) -> OrbV3Force:
    return OrbV3Force(model, atoms.numbers, **{"periodic": list(atoms.pbc), **options})


def context_of(
    system: openmm.System,
    positions: np.ndarray,  # angstrom
    platform: str = "Reference",
    integrator: openmm.Integrator | None = None,
) -> openmm.Context:
    integrator = integrator or openmm.VerletIntegrator(0.0005)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions * ANGSTROM)
    return context


def measure(context: openmm.Context, groups: int = -1) -> Result:
    state = context.getState(energy=True, forces=True, groups=groups)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return Result(energy / KJ_PER_MOL, np.asarray(forces) * ANGSTROM / KJ_PER_MOL)


def evaluate(atoms: Atoms, model: Path, platform: str = "Reference", **options: Any) -> Result:
    return measure(context_of(system_of(atoms, force_of(atoms, model, **options)), atoms.positions, platform))


def predicted(atoms: Atoms, model: Path) -> Result:
    result = orb_export.load(model).predict(atoms)
    return Result(result["energy"], result["forces"])


def assert_same(actual: Result, expected: Result, check: str = "OpenMM against Python, float64") -> None:
    per_atom = abs(actual.energy - expected.energy) / len(expected.forces)
    assert within(check, "energy", per_atom, ENERGY_BAR)
    assert within(check, "forces", np.abs(actual.forces - expected.forces).max(), FORCE_BAR)
