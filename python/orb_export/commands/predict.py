"""`orb-export predict`: energy, largest force and mean normal stress of structures, or all as JSON."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

COLUMNS = "{:<32} {:<16} {:>6} {:>18} {:>15} {:>13}"
MANY = 10  # frames from which on a progress bar helps


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "predict",
        help="evaluate structures",
        description="Evaluate every frame of structure files with an artefact. Charge and spin multiplicity, "
        "where the model needs them, are read from the frame's info (charge=, spin= in extended XYZ).",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="artefact, .pt2 or .pt")
    parser.add_argument(
        "structures", type=Path, nargs="+", metavar="STRUCTURE", help="any file that ASE reads"
    )
    parser.add_argument("--json", action="store_true", help="everything as JSON (eV, eV/Å, eV/Å³)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: 0, torch's own choice)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from tqdm import tqdm

    from orb_export.artefact import load
    from orb_export.commands.structures import read_structures

    frames = [
        (path, index, atoms) for path in args.structures for index, atoms in enumerate(read_structures(path))
    ]
    potential = load(args.file, device=args.device, threads=args.threads)
    rows = []
    for path, index, atoms in tqdm(frames, unit="frame", disable=len(frames) < MANY, file=sys.stderr):
        try:
            results = potential.predict(atoms)
        except (ValueError, TypeError, RuntimeError) as error:
            raise type(error)(f"`{path}` frame {index}: {error}") from error
        rows.append((path, index, atoms, results))
    if args.json:
        print(json.dumps([_as_json(*row) for row in rows]))
        return 0
    print(COLUMNS.format("structure", "formula", "atoms", "energy eV", "force eV/Å", "stress eV/Å³"))
    for path, index, atoms, results in rows:
        print(_line(f"{path}#{index}", atoms, results))
    return 0


def _as_json(path: Path, index: int, atoms: "Atoms", results: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value if isinstance(value, float) else value.tolist() for name, value in results.items()}
    return {"file": str(path), "index": index, "formula": atoms.get_chemical_formula(), **plain}


def _line(name: str, atoms: "Atoms", results: dict[str, Any]) -> str:
    import numpy as np

    largest = float(np.linalg.norm(results["forces"], axis=1).max())
    pressure = f"{np.mean(results['stress'][:3]):.6f}" if "stress" in results else "none"
    values = f"{results['energy']:.8f}", f"{largest:.6f}", pressure
    return COLUMNS.format(name, atoms.get_chemical_formula(), len(atoms), *values)
