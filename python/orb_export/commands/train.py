"""`orb-export train`: train a small conservative Orb-v3 from scratch on labelled structures."""

import argparse
from dataclasses import fields
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    from orb_export.train.config import TrainConfig

    parser = subparsers.add_parser(
        "train",
        help="train a small conservative Orb-v3",
        description="Train a conservative Orb-v3 from scratch on energies (eV), forces (eV/Å) and, where "
        "present, stresses (eV/Å³) of files that ASE reads. The run directory receives the moving average of "
        "the weights as model.safetensors, checkpoint.pt, log.csv and, with --test, report.json.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE[@SLICE]", help="labelled structures, as a.xyz or a.xyz@::2"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="run directory")
    parser.add_argument("--validation", nargs="*", default=[], metavar="FILE", help="evaluated every epoch")
    parser.add_argument(
        "--validation-fraction", type=float, default=0.0, help="part of FILE held out for validation"
    )
    parser.add_argument(
        "--test", nargs="*", default=[], metavar="FILE", help="reported file by file at the end"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in DIR")
    parser.add_argument("--max-steps", type=int, help="stop after this many steps; --resume continues")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    for option in fields(TrainConfig):
        name = "--" + option.name.replace("_", "-")
        text = option.metadata["help"]
        if isinstance(option.default, bool):
            parser.add_argument(
                name, action=argparse.BooleanOptionalAction, default=option.default, help=text
            )
        else:
            parser.add_argument(name, type=type(option.default), default=option.default, help=text)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 when training is complete, 3 when it stopped at `--max-steps`."""
    import torch

    from orb_export.train.config import TrainConfig
    from orb_export.train.data import read_samples, split
    from orb_export.train.loop import CHECKPOINT, Trainer

    config = TrainConfig(**{option.name: getattr(args, option.name) for option in fields(TrainConfig)})
    output: Path = args.output
    if args.resume != (output / CHECKPOINT).is_file():
        state = "no checkpoint to resume" if args.resume else "a run already; give --resume to continue it"
        raise ValueError(f"train: `{output}` holds {state}")
    if args.threads:
        torch.set_num_threads(args.threads)
    training, held_out = split(
        read_samples(args.files, config.max_neighbors), args.validation_fraction, config.seed
    )
    if args.validation:
        held_out += read_samples(args.validation, config.max_neighbors)
    output.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, training, held_out, output)
    if args.resume:
        trainer.resume()
    complete = trainer.fit(args.max_steps)
    trainer.export()
    if complete and args.test:
        tests = {path: read_samples([path], config.max_neighbors) for path in args.test}
        for path, result in trainer.report(tests).items():
            print(f"{path}: " + ", ".join(f"{name} {value:.4g}" for name, value in result.items()))
    print(f"{output / 'model.safetensors'}: {trainer.step} steps, {trainer.seconds / 60:.1f} min of training")
    return 0 if complete else 3
