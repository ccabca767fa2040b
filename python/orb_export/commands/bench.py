"""`orb-export bench`: speed and memory of this machine as tables."""

import argparse
import sys
from pathlib import Path

# atoms of steps, atoms of radius graphs, the most edges of steps
_SIZES = {
    "cpu": ((64, 256, 1000), (1000, 10000, 100000), 0),
    "cuda": ((1000, 100_000, 1_000_000), (1000, 10000, 100_000, 1_000_000), 30_000_000),
}
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
        choices=("float32", "float32-split", "bfloat16", "tf32"),
        help="default: all that the device has, tf32 on a GPU, float32-split and bfloat16 on a CPU",
    )
    parser.add_argument(
        "--atoms",
        nargs="*",
        type=int,
        metavar="N",
        help="multiples of 400, and others that make a crystal (default: 64 256 1000; on a GPU 1000 100000 "
        "1000000)",
    )
    parser.add_argument(
        "--graph-atoms",
        nargs="*",
        type=int,
        metavar="N",
        help="default: 1000 10000 100000; on a GPU also 1000000",
    )
    parser.add_argument(
        "--on-device",
        action="store_true",
        help="steps whose atoms stay on the device, each size in a process of its own (default on a GPU)",
    )
    parser.add_argument(
        "--device-limit",
        type=float,
        default=7.5e9,
        metavar="BYTES",
        help="with --on-device: measure what needs more memory under this limit, too (default: 7.5e9)",
    )
    parser.add_argument(
        "--most-edges",
        type=float,
        metavar="E",
        help="leave out models and sizes with more edges (default: all are in; on a GPU 3e7)",
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
        precisions = MEASURED[device]
    atoms, graph_atoms, most_edges = _SIZES[device]
    if args.atoms is not None:
        atoms = tuple(args.atoms)
    if args.graph_atoms is not None:
        graph_atoms = tuple(args.graph_atoms)
    plan = Plan(
        models=tuple(args.models) if atoms else (),
        precisions=tuple(precisions),
        atoms=atoms,
        graph_atoms=graph_atoms,
        on_device=args.on_device or device == "cuda",
        device_limit=int(args.device_limit),
        most_edges=most_edges if args.most_edges is None else int(args.most_edges),
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
