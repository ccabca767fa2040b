"""`orb-export convert`: weights between the format of orb-models and ours."""

import argparse
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "convert",
        help="convert weights",
        description="Write weights in the format of DESTINATION's suffix: .safetensors (ours, with the sizes "
        "and the neighbor cap inside) or .ckpt (orb-models).",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint file")
    parser.add_argument("destination", type=Path, metavar="DESTINATION", help="file to write")
    parser.add_argument(
        "--max-neighbors", type=int, metavar="N", help="cap of a checkpoint with an unknown name"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from orb_export import checkpoint

    model = checkpoint.convert(args.source, args.destination, max_neighbors=args.max_neighbors)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.destination}: {model.config.name}, {model.config.kind}, {parameters} parameters")
    return 0
