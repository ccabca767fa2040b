"""Minimization by forces alone, with steps of limited length.

OpenMM's L-BFGS begins with a step of 1 nm over all atoms together, which throws a small system apart, and
compares energies, which the forces of direct models are no gradient of. ABC-FIRE, as ASE has it, needs
neither and moves each atom by a limited length.
"""

import io
from typing import Any

import numpy as np
import openmm
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize.fire2 import FIRE2

from orb_export.openmm.structures import ANGSTROM

KJ_PER_MOL = 96.48533212331  # of one eV
_LONGEST_STEP = 0.1  # angstrom, of each coordinate


class _ContextCalculator(Calculator):
    """Energy and forces of a Context at the positions of an Atoms object."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (declared by the base class)

    def __init__(self, context: openmm.Context) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._context = context

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Called by ASE."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self._context.setPositions(atoms.positions * ANGSTROM)
        state = self._context.getState(energy=True, forces=True)
        forces = np.asarray(state.getForces(asNumpy=True)._value)
        self.results = {
            "energy": state.getPotentialEnergy()._value / KJ_PER_MOL,
            "forces": forces * ANGSTROM / KJ_PER_MOL,
        }


def minimize(context: openmm.Context, iterations: int, largest_force: float = 0.05) -> int:
    """Move the particles of a Context downhill; returns the number of iterations taken.

    Stops after `iterations`, or when no force is above `largest_force`, eV/angstrom. Particles without mass
    move as well. The System must not have constraints.
    """
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    atoms = Atoms(numbers=np.zeros(len(positions), dtype=int), positions=np.asarray(positions) / ANGSTROM)
    atoms.calc = _ContextCalculator(context)
    search = FIRE2(atoms, logfile=io.StringIO(), maxstep=_LONGEST_STEP, use_abc=True)
    search.run(fmax=largest_force, steps=iterations)
    context.setPositions(atoms.positions * ANGSTROM)
    return int(search.get_number_of_steps())
