"""`orb-export bench`: speed and memory of this machine as tables."""

import argparse
import sys
from pathlib import Path

MODELS = ("direct-20", "conservative-20", "direct-inf", "conservative-inf")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed and memory on this machine",
        description="Measure steps of molecular dynamics of full-size models (random weights), radius graphs "
        "and matrix products on this machine; prints a page of tables and saves it with JSON and a picture.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("bench"), metavar="FOLDER", help="default: bench"
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="default: all")
    parser.add_argument(
        "--precisions",
        nargs="*",
        choices=("float32", "float32-split", "bfloat16"),
        help="default: all; on a GPU float32",
    )
    parser.add_argument(
        "--atoms", nargs="*", type=int, default=(64, 256, 1000), metavar="N", help="default: 64 256 1000"
    )
    parser.add_argument(
        "--graph-atoms",
        nargs="*",
        type=int,
        default=(1000, 10000, 100000),
        metavar="N",
        help="default: 1000 10000 100000",
    )
    parser.add_argument("--peers", action="store_true", help="also orb-models, vesin, matscipy, nvalchemi")
    parser.add_argument("--linearity", action="store_true", help="also t(20000)/t(2000) of direct-20")
    parser.add_argument(
        "--memory-atoms", type=int, default=0, metavar="N", help="also peak memory of direct-inf with N atoms"
    )
    parser.add_argument(
        "--memory-of",
        nargs="+",
        choices=("ours", "limited", "orb-models"),
        help="default: ours, with and without a limit, and with --peers orb-models",
    )
    parser.add_argument(
        "--memory-limit",
        type=float,
        default=1e9,
        metavar="BYTES",
        help="of the limited evaluation (default: 1e9)",
    )
    parser.add_argument("--repeats", type=int, default=3, help="the least time counts (default: 3)")
    parser.add_argument("--warm-up", type=int, default=2, metavar="N", help="runs before (default: 2)")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the compiled models, and take them from there"
    )
    parser.add_argument("--prepare", action="store_true", help="only compile the models, into --keep FOLDER")
    parser.add_argument(
        "--add", action="store_true", help="add to the results in the output folder instead of replacing them"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import torch

    from orb_export.bench import machine, report
    from orb_export.bench.run import MEMORY_OF, Plan, prepare
    from orb_export.bench.run import PRECISIONS as MEASURED
    from orb_export.bench.run import run as measure

    device: str = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("bench: `device` is 'cuda' but torch finds no CUDA device here")
    precisions = args.precisions
    if precisions is None:
        precisions = MEASURED if device == "cpu" else ("float32",)
    plan = Plan(
        models=tuple(args.models) if args.atoms else (),
        precisions=tuple(precisions),
        atoms=tuple(args.atoms),
        graph_atoms=tuple(args.graph_atoms),
        memory_atoms=args.memory_atoms,
        memory_of=tuple(args.memory_of or MEMORY_OF[: 3 if args.peers else 2]),
        memory_limit=int(args.memory_limit),
        linearity=args.linearity,
        peers=args.peers,
        repeats=args.repeats,
        warm_up=args.warm_up,
        device=device,
        keep=args.keep,
    )
    if args.prepare:
        prepare(plan, _progress)
        return 0
    # before anything is measured: it may be refused
    old = report.previous(args.output, machine.describe(), device) if args.add else None
    found = measure(plan, _progress)
    if old is not None:
        found = report.merged(old, found)
    paths = report.write(found, args.output)
    print(report.markdown(found))
    print(f"saved as {', '.join(map(str, paths))}")
    return 0


def _progress(message: str) -> None:
    print(f"orb-export: {message} ...", file=sys.stderr, flush=True)
