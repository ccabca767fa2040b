"""A peptide by Orb-v3 in water by Amber: mechanical embedding from one line of a ForceField script.

python peptide_ml_mm.py alanine-dipeptide-explicit.pdb --model orb.pt2 --region "not resname HOH"
"""

import argparse
from pathlib import Path

import openmm
from openmm import app, unit
from orb_export.openmm import OrbV3Force, is_orbv3


def main(arguments: list[str] | None = None) -> app.Simulation:
    """Make the mixed System and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pdb", type=Path, help="with hydrogens, in its box")
    parser.add_argument("--model", type=Path, required=True, help="made by orb-export export")
    parser.add_argument("--region", default="not resname HOH", help="what the model describes")
    parser.add_argument("--steps", type=int, default=1000, help="of 1 fs")
    parser.add_argument("--output", type=Path, default=Path("peptide.dcd"))
    args = parser.parse_args(arguments)

    pdb = app.PDBFile(str(args.pdb))
    force_field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml", "orbv3.xml")
    system = force_field.createSystem(
        pdb.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=app.HBonds,  # of the water; the region has none
        orbModel=str(args.model),
        orbRegion=args.region,
    )
    (force,) = (OrbV3Force.cast(force) for force in system.getForces() if is_orbv3(force))
    print(f"{len(force.particles)} of {system.getNumParticles()} atoms by {args.model.name}")
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(pdb.topology, system, integrator)
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(300, 1)
    every = max(1, args.steps // 10)
    simulation.reporters.append(app.DCDReporter(str(args.output), every))
    simulation.step(args.steps)
    return simulation


if __name__ == "__main__":
    main()
