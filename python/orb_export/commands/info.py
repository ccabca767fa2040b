"""`orb-export info`: what an artefact says of itself."""

import argparse
import json
from pathlib import Path
from typing import Any


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "info",
        help="show the metadata of an artefact",
        description="Check that an artefact is complete and unaltered, and show its metadata record.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="artefact, .pt2 or .pt")
    parser.add_argument("--json", action="store_true", help="the whole record as JSON")
    parser.add_argument(
        "--atoms", type=int, metavar="N", help="also predict the memory of an evaluation of N atoms"
    )
    parser.add_argument(
        "--edges", type=int, metavar="E", help="of the N atoms (default: as many as the model allows)"
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from orb_export.artefact import read_metadata

    if args.edges is not None and args.atoms is None:
        args.parser.error("argument --edges: needs --atoms")
    for name in ("atoms", "edges"):
        value = getattr(args, name)
        if value is not None and value < 1:
            args.parser.error(f"argument --{name}: {value} must be positive")
    record = read_metadata(args.file)
    memory = None if args.atoms is None else _memory(args.file, record, args.atoms, args.edges)
    if args.json:
        print(json.dumps(record if memory is None else {**record, "memory": memory}, indent=1))
        return 0
    for name, value in _summary(record).items():
        print(f"{name:<14}{value}")
    if memory is not None:
        size = f"{memory['atoms']} atoms and {memory['edges']} edges"
        used, alone, least = (memory[name] / 1e9 for name in ("used", "energy_only", "least"))
        print(
            f"{'memory':<14}{used:.2f} GB for {size}, {alone:.2f} GB without forces; with a memory limit "
            f"down to {least:.2f} GB"
        )
    return 0


def _memory(file: Path, record: dict[str, Any], atoms: int, edges: int | None) -> dict[str, int]:
    """Bytes beyond the weights and the host's own arrays."""
    from orb_export.artefact import load

    edges = edges or atoms * record["max_neighbors"]
    potential = load(file)
    memory = potential.predict_memory(atoms, edges)
    energy_only = potential.predict_memory(atoms, edges, forces=False)
    return {"atoms": atoms, "edges": edges, "energy_only": energy_only.used, **memory._asdict()}


def _elements(numbers: list[int]) -> str:
    from ase.data import chemical_symbols

    if numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 1:
        return f"{chemical_symbols[numbers[0]]} to {chemical_symbols[numbers[-1]]} ({len(numbers)})"
    return " ".join(chemical_symbols[number] for number in numbers)


def _verification(record: dict[str, Any]) -> str:
    verification = record["verification"]
    if verification.get("skipped"):
        return "skipped at export"
    found = verification["largest_differences"]
    return (
        f"{verification['structures']} structures, largest differences to the eager model: "
        f"energy {found['energy']:.1e} eV/atom, forces {found['forces']:.1e} eV/Å"
    )


def _accuracy(record: dict[str, Any]) -> str:
    accuracy = record.get("accuracy", {"skipped": True})
    if accuracy.get("skipped"):
        return "not measured"
    energy, forces = (
        f"{accuracy[f'{name}_mean']:.1e} {unit} (largest {accuracy[f'{name}_max']:.1e})"
        for name, unit in (("energy", "eV/atom"), ("forces", "eV/Å"))
    )
    return f"against float64 on {accuracy['structures']} {accuracy['set']}: energy {energy}, forces {forces}"


def _effect(record: dict[str, Any], name: str) -> str:
    """Of the precision on phonons or dynamics."""
    found = record.get("accuracy", {}).get(name, {"skipped": True})
    if found.get("skipped"):
        return ": ".join(filter(None, ("not measured", found.get("reason"))))
    if name == "phonons":
        return (
            f"{found['frequencies']} frequencies of {found['structures']} crystals, up to "
            f"{found['highest']:.1f} THz: mean change {found['mean']:.1e} THz (largest {found['max']:.1e})"
        )
    run = f"{found['structure']}, {1e-3 * found['steps'] * found['timestep']:.2g} ps at constant energy"
    exact = found["float64"]
    return (
        f"{run}: drift {found['drift']:+.1e} eV/atom/ps (float64 {exact['drift']:+.1e}), rms "
        f"{found['rms']:.1e} eV/atom (float64 {exact['rms']:.1e})"
    )


def _precision(record: dict[str, Any]) -> str:
    precision: str = record.get("precision", record["dtype"])
    if precision != "float32-split":
        return precision
    from orb_export.ops import splits_products

    here = "three bfloat16 products for each float32 one" if splits_products() else "plain float32"
    return f"{precision}, on this processor {here}"


def _summary(record: dict[str, Any]) -> dict[str, str]:
    return {
        "model": f"{record['model']} ({record['kind']})",
        "description": record["description"],
        "format": f"{record['format']}, schema {record['schema_version']}",
        "precision": _precision(record),
        "device": f"{record['device']}, {record['arch']['machine']} {' '.join(record['arch']['features'])}",
        "neighbors": f"{record['max_neighbors']} nearest within {record['cutoff']:g} Å",
        "elements": _elements(record["elements"]),
        "charge, spin": "needed" if record["has_charge_spin"] else "not used",
        "stress": "yes" if record["has_stress"] else "no",
        "programs": "whole potential" + (" and steps" if len(record.get("programs", [])) > 1 else ""),
        "made with": f"orb_export {record['orb_export_version']}, torch {record['torch_version']}, "
        f"{record['created']['time']}",
        "weights": f"SHA-256 {record['weights_sha256']}",
        "verification": _verification(record),
        "accuracy": _accuracy(record),
        "phonons": _effect(record, "phonons"),
        "dynamics": _effect(record, "dynamics"),
        "licence": record["licence"],
        "citation": record["citation"],
    }
