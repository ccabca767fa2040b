"""Volume at constant pressure in OpenMM: Monte Carlo against stochastic cell rescaling, as a Markdown table.

    python benchmarks/openmm_barostat.py [--crystal Si] [--picoseconds 100] [--pressure 10000]

The demonstration model, 300 K, LangevinMiddleIntegrator. Both barostats sample the same distribution, so mean
and standard deviation of the volume must agree within their errors, which come from averages of 20 blocks;
the evaluations of the model per step are what they cost.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openmm
import torch
from ase import Atoms
from ase.build import bulk
from openmm import app, unit
from orb_export.export import export_model
from orb_export.export.sources import load_source
from orb_export.openmm import OrbV3Force, evaluations
from orb_export.openmm.barostat import StochasticCellRescaling
from tqdm import tqdm

# crystal, and the order of magnitude of its compressibility (1/bar)
CRYSTALS = {
    "Si": (bulk("Si", "diamond", a=5.47, cubic=True).repeat((2, 2, 2)), 1e-6),
    "Cu": (bulk("Cu", "fcc", a=3.62, cubic=True).repeat((2, 2, 2)), 8e-7),
}
TEMPERATURE = 300.0  # K
FRICTION = 5.0  # 1/ps
BLOCKS = 20
EVERY = 10  # steps between volumes


class Volumes(NamedTuple):
    """What a run says of the volume, and what it cost."""

    mean: float  # angstrom^3 per atom
    mean_error: float
    deviation: float
    deviation_error: float
    evaluations: float  # per step
    seconds: float  # per step


def simulation(
    atoms: Atoms, model: Path, timestep: float, monte_carlo: openmm.Force | None
) -> app.Simulation:
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("X", topology.addChain())
    for symbol, mass in zip(atoms.get_chemical_symbols(), atoms.get_masses(), strict=True):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
        system.addParticle(mass)
    topology.setPeriodicBoxVectors(0.1 * atoms.cell.array * unit.nanometer)
    system.setDefaultPeriodicBoxVectors(*(0.1 * atoms.cell.array))
    system.addForce(OrbV3Force(model, topology, threads=1))
    if monte_carlo is not None:
        system.addForce(monte_carlo)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, timestep * 1e-3)
    integrator.setRandomNumberSeed(1)
    made = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    made.context.setPositions(0.1 * atoms.positions)
    made.context.setVelocitiesToTemperature(TEMPERATURE, 2)
    return made


def sample(simulation: app.Simulation, steps: int, equilibration: int, title: str) -> Volumes:
    simulation.step(equilibration)
    before, start = evaluations(), time.perf_counter()
    volumes = []
    for _ in tqdm(range(steps // EVERY), desc=title, leave=False, disable=None):
        simulation.step(EVERY)
        volumes.append(simulation.context.getState().getPeriodicBoxVolume()._value)
    seconds = time.perf_counter() - start
    per_atom = 1000 * np.array(volumes) / simulation.system.getNumParticles()
    blocks = per_atom[: len(per_atom) // BLOCKS * BLOCKS].reshape(BLOCKS, -1)
    variances = np.mean((blocks - per_atom.mean()) ** 2, axis=1)
    deviation = float(np.sqrt(variances.mean()))
    return Volumes(
        float(per_atom.mean()),
        float(blocks.mean(axis=1).std(ddof=1) / np.sqrt(BLOCKS)),
        deviation,
        float(variances.std(ddof=1) / np.sqrt(BLOCKS) / (2 * deviation)),
        (evaluations() - before) / steps,
        seconds / steps,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crystal", choices=CRYSTALS, default="Si")
    parser.add_argument("--picoseconds", type=float, default=100.0)
    parser.add_argument("--equilibration", type=float, default=4.0, help="ps before it")
    parser.add_argument("--timestep", type=float, default=2.0, help="fs")
    parser.add_argument("--pressure", type=float, default=10000.0, help="bar")
    parser.add_argument("--axes", default="xyz", help="of the stochastic cell rescaling")
    parser.add_argument("--intervals", type=int, nargs="+", default=[10, 25], help="of the same, steps")
    parser.add_argument("--relaxation", type=float, default=0.5, help="time of the same, ps")
    options = parser.parse_args()
    atoms, compressibility = CRYSTALS[options.crystal]
    steps, equilibration = (
        round(1000 * duration / options.timestep) for duration in (options.picoseconds, options.equilibration)
    )
    print(
        f"{len(atoms)} {options.crystal}, {options.pressure:g} bar, {options.picoseconds:g} ps of "
        f"{options.timestep:g} fs\n\n| barostat | volume, Å³/atom | its deviation, Å³/atom "
        "| evaluations/step | ms/step |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "demo.pt2"
        export_model(load_source("demo", dtype=torch.float32), model, format="aoti")
        for interval in [0, *options.intervals]:
            title, monte_carlo = f"cell rescaling, every {interval}", None
            if interval == 0:
                title = "MonteCarloBarostat, every 25"
                monte_carlo = openmm.MonteCarloBarostat(options.pressure, TEMPERATURE, 25)
                monte_carlo.setRandomNumberSeed(3)
            run = simulation(atoms, model, options.timestep, monte_carlo)
            if interval:
                barostat = StochasticCellRescaling(
                    options.pressure,
                    TEMPERATURE,
                    compressibility=compressibility,
                    relaxation_time=options.relaxation,
                    interval=interval,
                    axes=options.axes,
                    seed=4,
                )
                run.reporters.append(barostat)
            found = sample(run, steps, equilibration, title)
            print(
                f"| {title} | {found.mean:.4f} ± {found.mean_error:.4f} | {found.deviation:.4f} ± "
                f"{found.deviation_error:.4f} | {found.evaluations:.3f} | {1000 * found.seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
