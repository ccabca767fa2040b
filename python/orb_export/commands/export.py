"""`orb-export export`: compile a model into an artefact."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orb_export import artefact

if TYPE_CHECKING:
    from ase import Atoms

FORMATS = tuple(artefact.SUFFIXES)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "export",
        help="compile a model into an artefact",
        description="Compile a model into one self-describing file for LAMMPS, OpenMM, C++ and Python. It is "
        "verified against the model in a fresh process before it gets its name.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="family name (orb-v3-conservative-inf-omat ...), checkpoint file, or demo",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="artefact, .pt2 or .pt"
    )
    parser.add_argument("--weights", type=Path, metavar="PATH", help="local checkpoint of a family name")
    parser.add_argument(
        "--format", choices=FORMATS, help="default: by the suffix of FILE (.pt2 aoti, .pt torchscript)"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="to compile for (default: cpu)"
    )
    parser.add_argument(
        "--precision",
        "--dtype",
        choices=("float32", "float32-split", "bfloat16", "tf32", "float64"),
        help="of the network (default: of the weights); float32-split and bfloat16 (on the CPU) and tf32 (on "
        "CUDA) are those of its largest matrix products, in a .pt2",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        metavar="FILE",
        help="structures to measure the errors against float64 on (default: rattled crystals)",
    )
    parser.add_argument(
        "--accuracy",
        choices=("forces", "full"),
        help="of energies and forces, or also of phonons and dynamics, which takes minutes for models of "
        "published size (default: full for float32-split and bfloat16 of small models, else forces)",
    )
    parser.add_argument(
        "--structure", type=Path, metavar="FILE", help="atoms of openmm-torch's TorchForce (.pt only)"
    )
    parser.add_argument(
        "--max-neighbors", type=int, metavar="N", help="cap of a checkpoint with an unknown name"
    )
    parser.add_argument(
        "--licence", help="of the weights, stored in FILE (default: Apache-2.0 for published ones)"
    )
    parser.add_argument(
        "--no-steps",
        action="store_true",
        help="leave out the steps, which energies without forces and a memory limit need: a .pt2 is then "
        "made in half the time",
    )
    parser.add_argument("--no-verify", action="store_true", help="skip the verification, and say so in FILE")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    by_suffix = {suffix: name for name, suffix in artefact.SUFFIXES.items()}
    format: str = args.format or by_suffix.get(args.output.suffix, "")
    if not format or args.output.suffix != artefact.SUFFIXES[format]:
        known = " or ".join(f"{suffix} ({name})" for name, suffix in artefact.SUFFIXES.items())
        args.parser.error(f"argument -o/--output: {str(args.output)!r} must end in {known}")
    import torch

    from orb_export.commands.structures import read_structures
    from orb_export.export import export_model
    from orb_export.export.precision import PRECISIONS
    from orb_export.export.sources import licence_of, load_source

    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("export: `device` is 'cuda' but torch finds no CUDA device here")
    model = load_source(
        args.model,
        weights=args.weights,
        dtype=PRECISIONS[args.precision] if args.precision else None,
        max_neighbors=args.max_neighbors,
        device=args.device,
    )
    record = export_model(
        model,
        args.output,
        format=format,
        source=args.model,
        licence=args.licence or licence_of(args.model),
        structure=_structure(args.structure),
        precision=args.precision,
        validation=read_structures(args.validation) if args.validation else None,
        with_effects=None if args.accuracy is None else args.accuracy == "full",
        verified=not args.no_verify,
        with_steps=not args.no_steps,
        progress=lambda message: print(f"orb-export: {message} ...", file=sys.stderr, flush=True),
    )
    checked = (
        "not verified" if args.no_verify else f"verified on {record['verification']['structures']} structures"
    )
    size = args.output.stat().st_size / 1e6
    print(
        f"{args.output}: {record['model']}, {record['format']}, {record['precision']}, {size:.1f} MB, "
        f"{checked}"
    )
    return 0


def _structure(path: Path | None) -> "Atoms | None":
    if path is None:
        return None
    from orb_export.commands.structures import read_structures

    return read_structures(path)[-1]
