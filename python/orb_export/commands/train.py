"""`orb-export train`: train, fine-tune, distil or pretrain an Orb-v3 by a config file."""

import argparse
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "train",
        help="train or fine-tune an Orb-v3",
        description="Train as CONFIG (YAML, docs/training.md) says, on energies (eV), forces (eV/Å) and, "
        "where present, stresses (eV/Å³). The run folder receives checkpoints, logs, and at the end the "
        "weights (model.safetensors), errors, plots and a model card. Status 3 when stopped by --max-steps.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="config file, YAML")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="run folder (default: CONFIG without its suffix)"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in DIR")
    parser.add_argument(
        "--max-steps",
        type=int,
        metavar="N",
        help="stop at this step; --resume continues",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print model size, batches and memory, train nothing"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    try:
        from orb_export.train import run as training
        from orb_export.train.config import read_config
    except ModuleNotFoundError as error:
        raise ImportError(f"train: {error}; install what training needs: orb-export[train]") from None
    config = read_config(args.config)
    output: Path = args.output or args.config.with_suffix("")
    if args.max_steps is not None and args.max_steps < 1:
        raise ValueError(f"train: `max_steps` is {args.max_steps} but must be positive")
    if args.dry_run:
        print("\n".join(training.describe(config)))
        return 0
    if not training.train(config, output, resume=args.resume, max_steps=args.max_steps):
        return 3
    if config.denoising is not None:
        print(
            f"{output / training.MODEL}: a trunk, for `start: {{model: ..., transfer: trunk}}` of another run"
        )
        return 0
    if training.place_among_processes(config)[0] == 0:
        _export(output / training.MODEL, config.licence)
    return 0


def _export(weights: Path, licence: str) -> None:
    from orb_export.checkpoint import load
    from orb_export.export import export_model

    path = weights.with_suffix(".pt")
    export_model(load(weights), path, format="torchscript", source=str(weights), licence=licence)
    print(f"{path}: for LAMMPS, OpenMM, C++ and Python; `orb-export export {weights}` compiles a faster .pt2")
