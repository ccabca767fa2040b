"""`orb-export lammps`: a runnable LAMMPS input for a structure."""

import argparse
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "lammps",
        help="write a LAMMPS input for a structure",
        description="Write DIR/in.lammps and DIR/structure.data: molecular dynamics of STRUCTURE with "
        "pair_style orbv3. Run it in DIR with `lmp -in in.lammps`. Velocities in STRUCTURE are taken over.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("structure", type=Path, metavar="STRUCTURE", help="any file of ASE; its last frame")
    parser.add_argument(
        "--model", type=Path, required=True, metavar="FILE", help="made by `orb-export export`"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--ensemble", choices=["nve", "nvt", "npt"], default="nve", help="what is kept constant"
    )
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--pressure", type=float, default=0.0, help="of npt, bar")
    parser.add_argument("--timestep", type=float, default=1.0, help="fs")
    parser.add_argument("--steps", type=int, default=1000, help="number of time steps")
    parser.add_argument("--units", choices=["metal", "real"], default="metal", help="of LAMMPS")
    parser.add_argument(
        "--charge", type=float, help="total charge of OrbMol models, e; default: that of STRUCTURE"
    )
    parser.add_argument("--spin", type=float, help="spin multiplicity 2S+1; likewise")
    parser.add_argument("--seed", type=int, default=1, help="of the initial velocities")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from orb_export.commands.structures import read_structures
    from orb_export.lammps import write_input

    atoms = read_structures(args.structure)[-1]
    path = write_input(
        atoms,
        args.model,
        args.output,
        ensemble=args.ensemble,
        temperature=args.temperature,
        pressure=args.pressure,
        timestep=args.timestep,
        steps=args.steps,
        units=args.units,
        charge=args.charge,
        spin=args.spin,
        seed=args.seed,
    )
    print(
        f"{path}: {len(atoms)} atoms, {args.ensemble}, {args.steps} steps; run it with `lmp -in {path.name}`"
    )
    return 0
