"""Multiple time steps: a direct model for the fast forces, a conservative one for what it lacks, less often.

python multiple_time_steps.py molecule.xyz --conservative orb-conservative.pt2 --direct orb-direct.pt2

Inner steps see the direct model. Outer steps see the conservative one minus the direct one, so that the
dynamics is that of the conservative model. Both models have to describe the same potential: the difference
must change slowly.
"""

import argparse
from pathlib import Path

import ase.io
import openmm
from openmm import app, unit
from orb_export.openmm import OrbV3Force, evaluations
from orb_export.openmm.structures import Structure, from_ase

OUTER, INNER = 0, 1  # force groups


def make_system(structure: Structure, conservative: Path, direct: Path) -> openmm.System:
    """Three forces, the sum of which is the conservative model."""
    system = openmm.System()
    for atom in structure.topology.atoms():
        system.addParticle(atom.element.mass)
    if structure.box is not None:
        system.setDefaultPeriodicBoxVectors(*structure.box)
    for model, scale, group in ((conservative, 1.0, OUTER), (direct, -1.0, OUTER), (direct, 1.0, INNER)):
        system.addForce(
            OrbV3Force(
                model,
                structure.topology,
                periodic=structure.periodic,
                scale=scale,
                prefix=f"{model.stem}{scale:+.0f}",  # each force has its own factor
                force_group=group,
            )
        )
    return system


def main(arguments: list[str] | None = None) -> app.Simulation:
    """Run at constant temperature."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("structure", type=Path, help="any file of ASE")
    parser.add_argument("--conservative", type=Path, required=True, help="made by orb-export export")
    parser.add_argument("--direct", type=Path, required=True, help="likewise")
    parser.add_argument("--inner", type=int, default=4, help="inner steps of 0.5 fs in an outer one")
    parser.add_argument("--steps", type=int, default=250, help="outer ones")
    args = parser.parse_args(arguments)

    structure = from_ase(ase.io.read(args.structure))
    integrator = openmm.MTSLangevinIntegrator(
        300 * unit.kelvin,
        1 / unit.picosecond,
        args.inner * 0.5 * unit.femtosecond,
        [(OUTER, 1), (INNER, args.inner)],
    )
    integrator.setRandomNumberSeed(1)
    system = make_system(structure, args.conservative, args.direct)
    simulation = app.Simulation(structure.topology, system, integrator)
    simulation.context.setPositions(structure.positions)
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(1)
    before = evaluations()
    simulation.step(args.steps - 1)
    print(f"{(evaluations() - before) / (args.steps - 1):.2f} evaluations for each outer step")
    return simulation


if __name__ == "__main__":
    main()
