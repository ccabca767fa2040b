"""Dynamics of liquid water in LAMMPS and OpenMM, with a model alone or with a core between oxygens.

At constant temperature hydrogens weigh 4 u, taken from the oxygens, for a longer step: the structure of a
classical liquid does not depend on masses. At constant energy masses are true.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openmm
from ase import Atoms
from ase.io.lammpsdata import write_lammps_data
from numpy.typing import NDArray
from openmm import unit
from orb_export.lammps import lammps
from orb_export.openmm import OrbV3Force

TEMPERATURE = 330.0  # K, of the data
MASSES = {"O": 9.999, "H": 4.008}  # u
TIMESTEP, EVERY = 1.5, 16  # fs; steps between sampled frames
ENERGY_TIMESTEP, ENERGY_EVERY = 0.5, 10  # at constant energy: fs; steps between energies
SCREENING = ((0.02817, 0.20162), (0.28022, 0.4029), (0.50986, 0.94229), (0.18175, 3.1998))  # of ZBL
CORE = 1.7, 2.3  # angstrom; ZBL between oxygens, switched off between the two

Sampled = Iterator[tuple[float, NDArray[np.float64]]]  # temperature, K, and positions (N, 3), angstrom


class Setup(NamedTuple):
    """What is simulated."""

    model: Path
    start: Atoms
    folder: Path  # for what the engines read
    seed: int  # of velocities
    core: bool


def in_lammps(setup: Setup, ensemble: str, timestep: float, masses: list[str]) -> lammps:
    """LAMMPS with the model, at the temperature of the data, ready to run."""
    data = setup.folder / "water.data"
    with data.open("w") as file:
        write_lammps_data(file, setup.start, specorder=["O", "H"], masses=True)
    alone = ["pair_style orbv3 threads 1", f'pair_coeff * * "{setup.model}" O H']
    beside = [
        f"pair_style hybrid/overlay orbv3 threads 1 zbl {CORE[0]} {CORE[1]}",
        f'pair_coeff * * orbv3 "{setup.model}" O H',
        "pair_coeff 1 1 zbl 8 8",
    ]
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_list(
        [
            "units metal",
            "atom_style atomic",
            f"read_data {data}",
            *(beside if setup.core else alone),
            "neighbor 1.0 bin",
            *masses,
            f"timestep {timestep * 1e-3}",
            f"velocity all create {TEMPERATURE} {setup.seed} mom yes dist gaussian",
            f"fix md all {ensemble}",
            "run 0 post no",
        ]
    )
    return lmp


def lammps_frames(setup: Setup, picoseconds: float) -> Sampled:
    """Every EVERY steps of a run at constant temperature (Nose-Hoover)."""
    masses = [f"mass {kind} {mass}" for kind, mass in enumerate(MASSES.values(), 1)]
    lmp = in_lammps(setup, f"nvt temp {TEMPERATURE} {TEMPERATURE} 0.1", TIMESTEP, masses)
    for _ in range(samples_in(picoseconds)):
        lmp.command(f"run {EVERY} pre no post no")
        yield lmp.get_thermo("temp"), np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3)
    lmp.close()


def lammps_energies(setup: Setup, picoseconds: float) -> Iterator[float]:
    """Total energy, meV/atom, every ENERGY_EVERY steps at constant energy."""
    lmp = in_lammps(setup, "nve", ENERGY_TIMESTEP, masses=[])
    for _ in range(energies_in(picoseconds)):
        lmp.command(f"run {ENERGY_EVERY} pre no post no")
        yield 1000 * lmp.get_thermo("etotal") / len(setup.start)
    lmp.close()


def openmm_frames(setup: Setup, picoseconds: float) -> Sampled:
    """Every EVERY steps of a run at constant temperature (Langevin)."""
    start, system = setup.start, openmm.System()
    for symbol in start.symbols:
        system.addParticle(MASSES[symbol])
    system.setDefaultPeriodicBoxVectors(*(start.cell.array / 10))
    system.addForce(OrbV3Force(str(setup.model), start.numbers, periodic=True, threads=1))
    if setup.core:
        system.addForce(core(start.numbers))
    integrator = openmm.LangevinMiddleIntegrator(
        TEMPERATURE * unit.kelvin, 1 / unit.picosecond, TIMESTEP * unit.femtoseconds
    )
    integrator.setRandomNumberSeed(setup.seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(start.positions / 10)
    context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, setup.seed)
    per_kelvin = 1.5 * len(start) * unit.MOLAR_GAS_CONSTANT_R
    for _ in range(samples_in(picoseconds)):
        integrator.step(EVERY)
        state = context.getState(positions=True, energy=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        yield state.getKineticEnergy() / per_kelvin / unit.kelvin, np.array(positions)


def core(numbers: NDArray[np.int64]) -> openmm.CustomNonbondedForce:
    """What `pair_style zbl` is in LAMMPS, but for the way it is switched off."""
    screened = " + ".join(f"{factor} * exp(-{rate} * x)" for factor, rate in SCREENING)
    length = 0.046850 / (2 * 8**0.23)  # nm, of two oxygens
    force = openmm.CustomNonbondedForce(f"138.935458 * 64 / r * ({screened}); x = r / {length}")
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(CORE[0] / 10)
    force.setCutoffDistance(CORE[1] / 10)
    for _ in numbers:
        force.addParticle([])
    oxygens = np.flatnonzero(numbers == 8).tolist()
    force.addInteractionGroup(oxygens, oxygens)
    return force


def samples_in(picoseconds: float) -> int:
    return round(1000 * picoseconds / TIMESTEP / EVERY)


def energies_in(picoseconds: float) -> int:
    return round(1000 * picoseconds / ENERGY_TIMESTEP / ENERGY_EVERY)
