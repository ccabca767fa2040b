"""`orb-export`: parse, call, one line of result. Each command is a file in `commands/`; imports are inside.

Exit status: 0 done, 1 failed (one line on stderr), 2 wrong usage.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from orb_export import __version__

COMMANDS = (
    "export",
    "info",
    "verify",
    "predict",
    "doctor",
    "convert",
    "lammps",
    "openmm",
    "train",
    "label",
    "bench",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands; each sets `run` to a function of the parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="orb-export", description="Orb-v3 potentials for LAMMPS, OpenMM, ASE and C++."
    )
    parser.add_argument("--version", action="version", version=f"orb-export {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"orb_export.commands.{name}").register(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    parsed = build_parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"orb-export: error: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("orb-export: interrupted", file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
