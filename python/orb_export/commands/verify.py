"""`orb-export verify`: compare an artefact with the model it was made from."""

import argparse
import sys
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "verify",
        help="compare an artefact with its model",
        description="Check that an artefact is unaltered, load the model that its metadata names (or "
        "--model), check that it has the same weights, and compare both on structures in a fresh process. "
        "Status 1 when they differ.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="artefact, .pt2 or .pt")
    parser.add_argument(
        "structures",
        type=Path,
        nargs="*",
        metavar="STRUCTURE",
        help="any file that ASE reads (default: built-in ones)",
    )
    parser.add_argument(
        "--model", metavar="MODEL", help="family name, checkpoint file or demo (default: from FILE)"
    )
    parser.add_argument("--weights", type=Path, metavar="PATH", help="local checkpoint of a family name")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import torch

    from orb_export.artefact import read_metadata
    from orb_export.commands.structures import read_structures
    from orb_export.export import verify
    from orb_export.export.record import weights_sha256
    from orb_export.export.sources import load_source

    record = read_metadata(args.file)
    model = load_source(
        args.model or _recorded_source(args.file, record["source"]),
        weights=args.weights,
        dtype=getattr(torch, record["dtype"]),
        max_neighbors=record["max_neighbors"],
        device=record["device"],
    )
    if (found := weights_sha256(model)) != record["weights_sha256"]:
        raise ValueError(
            f"verify: the model has weights with SHA-256 {found} but `{args.file}` was made from "
            f"{record['weights_sha256']}"
        )
    images = [atoms for path in args.structures for atoms in read_structures(path)]
    images = images or verify.structures(record["elements"])
    precision = record.get("precision", record["dtype"])  # older files have no other than that of their dtype
    eager = verify.eager_model(model, precision)
    expected = [verify.eager_results(eager, atoms) for atoms in images]
    result = verify.compare(args.file, precision, images, expected)
    if not result["passed"]:
        print(f"orb-export: error: {verify.failure(result)}", file=sys.stderr)
        return 1
    differences = ", ".join(f"{name} {value:.1e}" for name, value in result["largest_differences"].items())
    print(f"{args.file}: equal to {record['model']} on {len(images)} structures; differences: {differences}")
    return 0


def _recorded_source(file: Path, source: str) -> str:
    """The MODEL of the export, unless it was a file that is not where it was."""
    if Path(source).suffix and not Path(source).is_file():
        raise ValueError(
            f"verify: `{file}` was made from `{source}`, which is not here; name it with --model"
        )
    return source
