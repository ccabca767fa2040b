"""The same crystal in OpenMM, at constant energy from LAMMPS's last frame on."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from orb_export.demo import FRAME_EVERY, TEMPERATURE, TIMESTEP

if TYPE_CHECKING:
    from ase import Atoms
    from openmm import Context, app

TRAJECTORY = "openmm.dcd"
_EVERY = 10  # steps between energies
_ANGSTROM = 0.1  # nm
_EV = 96.48533212331002  # kJ/mol


class Run(NamedTuple):
    """What the run tells."""

    forces: NDArray[np.float64]  # (N, 3) eV/angstrom, at the first frame
    potential: float  # eV, likewise
    energies: NDArray[np.float64]  # total energy in eV before the first step, and every tenth step
    platform: str
    steps_per_second: float


def run_openmm(output: Path, artefact: Path, frame: "Atoms", steps: int) -> Run:
    """Run from `frame` on with fresh velocities; writes the trajectory."""
    from openmm import app

    simulation = _simulation(artefact, frame)
    context = simulation.context
    start = context.getState(energy=True, forces=True)
    context.setVelocitiesToTemperature(TEMPERATURE, 4928459)
    energies = [_total_energy(context)]
    simulation.reporters.append(app.DCDReporter(str(output / TRAJECTORY), FRAME_EVERY))
    begin = time.perf_counter()
    with tqdm(total=steps, unit="step", desc="openmm") as bar:
        while bar.n < steps:
            now = min(_EVERY, steps - bar.n)
            simulation.step(now)
            energies.append(_total_energy(context))
            bar.update(now)
            bar.set_postfix_str(f"{energies[-1]:.5f} eV")
    return Run(
        forces=np.asarray(start.getForces(asNumpy=True)._value) * _ANGSTROM / _EV,
        potential=start.getPotentialEnergy()._value / _EV,
        energies=np.array(energies),
        platform=context.getPlatform().getName(),
        steps_per_second=simulation.currentStep / (time.perf_counter() - begin),
    )


def _simulation(artefact: Path, frame: "Atoms") -> "app.Simulation":
    import openmm
    from openmm import app, unit

    from orb_export.openmm import OrbV3Force

    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("CRY", topology.addChain())
    for name in frame.get_chemical_symbols():
        element = app.Element.getBySymbol(name)
        topology.addAtom(name, element, residue)
        system.addParticle(element.mass)
    box = [openmm.Vec3(*vector) for vector in frame.cell.array * _ANGSTROM] * unit.nanometer
    topology.setPeriodicBoxVectors(box)
    system.setDefaultPeriodicBoxVectors(*box)
    # one thread: 64 atoms gain little from more, and lose everything where other work has the cores
    system.addForce(OrbV3Force(artefact, topology, threads=1))
    simulation = app.Simulation(topology, system, openmm.VerletIntegrator(TIMESTEP * unit.femtosecond))
    simulation.context.setPositions(frame.positions * _ANGSTROM)
    return simulation


def _total_energy(context: "Context") -> float:
    state = context.getState(energy=True)
    total: float = (state.getPotentialEnergy() + state.getKineticEnergy())._value
    return total / _EV
