"""`orb-export label`: energies, forces and stresses from a teacher, for training a student."""

import argparse
import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from orb_export.artefact import SUFFIXES


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "label",
        help="label structures with a teacher, for distillation",
        description="Evaluate structures with a teacher and write them with energies (eV), forces (eV/Å) "
        "and, where there is a cell, stresses (eV/Å³), for `orb-export train`.",
    )
    parser.add_argument(
        "teacher", metavar="TEACHER", help="artefact, or ASE calculator as MODULE:CLASS (tblite.ase:TBLite)"
    )
    parser.add_argument("structures", nargs="+", metavar="FILE[@SLICE]", help="structures, as a.xyz@::2")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help=".xyz, .extxyz, .db or .aselmdb"
    )
    parser.add_argument(
        "--options",
        default="{}",
        metavar="JSON",
        help='arguments of the calculator, such as \'{"method": "GFN2-xTB", "charge": "{charge}"}\', where '
        "{charge} and {spin} are those of each structure (default: none)",
    )
    parser.add_argument("--resume", action="store_true", help="continue a FILE that is not complete")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from orb_export.train.label import Teacher, label_structures

    try:
        options = json.loads(args.options)
    except json.JSONDecodeError as error:
        raise ValueError(f"label: `options` is {args.options!r} but must be JSON: {error}") from None
    if not isinstance(options, dict):
        raise ValueError(f"label: `options` is {args.options!r} but must be a JSON object")
    teacher = Teacher(args.teacher, _calculator(args.teacher), options)
    count = label_structures(teacher, args.structures, args.output, resume=args.resume)
    print(f"{args.output}: {count} structures labelled by {args.teacher}")
    return 0


def _calculator(name: str) -> Callable[..., Any]:
    if Path(name).suffix in SUFFIXES.values():
        from orb_export.ase import OrbCalculator

        if not Path(name).is_file():
            raise ValueError(f"label: `teacher` is {name!r} but there is no such file")
        return partial(OrbCalculator, name)
    module, _, attribute = name.partition(":")
    try:
        made: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"label: `teacher` is {name!r} but must be an artefact or MODULE:CLASS: {error}"
        ) from None
    return made
