"""A crystal from any file of ASE at constant pressure, by the stress of Orb-v3: one evaluation a step.

python crystal_npt.py NaCl.cif --model orb.pt2 --supercell 3 3 3 --temperature 300 --pressure 1
"""

import argparse
from pathlib import Path

import ase.io
import openmm
from openmm import app, unit
from orb_export.openmm import OrbV3Force, evaluations
from orb_export.openmm.barostat import StochasticCellRescaling
from orb_export.openmm.reporters import StressReporter
from orb_export.openmm.structures import from_ase


def main(arguments: list[str] | None = None) -> app.Simulation:
    """Turn the cell into one of OpenMM's and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("structure", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="made by orb-export export")
    parser.add_argument("--supercell", type=int, nargs=3, default=(1, 1, 1))
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--pressure", type=float, default=1.0, help="bar")
    parser.add_argument("--compressibility", type=float, default=1e-6, help="1/bar, its order")
    parser.add_argument("--axes", default="x y z", help="that change together: xyz, or each by itself")
    parser.add_argument("--steps", type=int, default=1000, help="of 1 fs")
    parser.add_argument("--output", type=Path, default=Path("stress.csv"))
    args = parser.parse_args(arguments)

    # OpenMM wants lower triangular, reduced boxes: the same lattice, turned
    crystal = from_ase(ase.io.read(args.structure) * args.supercell)
    system = openmm.System()
    for atom in crystal.topology.atoms():
        system.addParticle(atom.element.mass)
    system.setDefaultPeriodicBoxVectors(*crystal.box)
    system.addForce(OrbV3Force(args.model, crystal.topology))
    integrator = openmm.LangevinMiddleIntegrator(
        args.temperature * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond
    )
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(crystal.topology, system, integrator)
    simulation.context.setPositions(crystal.positions)
    simulation.context.setVelocitiesToTemperature(args.temperature, 1)
    every = max(1, args.steps // 10)
    simulation.reporters.append(  # first of the reporters
        StochasticCellRescaling(
            args.pressure, args.temperature, compressibility=args.compressibility, axes=args.axes, seed=1
        )
    )
    simulation.reporters.append(StressReporter(str(args.output), every))
    before = evaluations()
    simulation.step(args.steps)
    print(f"{args.steps} steps, {evaluations() - before} evaluations, stress in {args.output}")
    return simulation


if __name__ == "__main__":
    main()
