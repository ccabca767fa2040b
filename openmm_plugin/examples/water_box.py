"""A box of flexible water at constant temperature, every atom by Orb-v3, through OpenMM's ForceField.

python water_box.py --model orb.pt2 --edge 1.9 --steps 1000
"""

import argparse
from pathlib import Path

import openmm
from openmm import app, unit
from orb_export.openmm.solvate import relaxed
from orb_export.openmm.structures import Structure, in_nanometers


def water(edge: float) -> Structure:
    """A cube of water, nm: placed by OpenMM and relaxed with TIP3P, which is not used afterwards."""
    box = app.Modeller(app.Topology(), [] * unit.nanometer)
    box.addSolvent(app.ForceField("amber14/tip3p.xml"), boxSize=openmm.Vec3(1, 1, 1) * edge * unit.nanometer)
    return relaxed(Structure(box.topology, in_nanometers(box.positions), (True, True, True)))


def main(arguments: list[str] | None = None) -> app.Simulation:
    """Make the box, minimize it, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="conservative, made by orb-export export")
    parser.add_argument("--edge", type=float, default=1.9, help="nm")
    parser.add_argument("--steps", type=int, default=1000, help="of 0.5 fs")
    parser.add_argument("--output", type=Path, default=Path("water.dcd"))
    args = parser.parse_args(arguments)

    box = water(args.edge)
    system = app.ForceField("orbv3.xml").createSystem(box.topology, orbModel=str(args.model))
    integrator = openmm.LangevinMiddleIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond
    )
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(box.topology, system, integrator)
    simulation.context.setPositions(box.positions)
    simulation.minimizeEnergy(maxIterations=20)
    simulation.context.setVelocitiesToTemperature(300, 1)
    every = max(1, args.steps // 10)
    simulation.reporters.append(app.DCDReporter(str(args.output), every))
    simulation.reporters.append(
        app.StateDataReporter(f"{args.output}.csv", every, step=True, potentialEnergy=True, temperature=True)
    )
    simulation.step(args.steps)
    return simulation


if __name__ == "__main__":
    main()
