"""What a reduced precision costs a model of the mlearn elements, beside float64, as Markdown tables.

    python benchmarks/precision.py --data FOLDER [--model demo] [--precisions float32 bfloat16]

FOLDER holds mlearn_<El>/test.xyz. The model runs in Python, rounding where an artefact of that precision does
(every artefact is held to it when it is made). Errors: of energies and force components on the published test
split, beside the same model in float64 and beside the labels. Phonons: frequencies by finite displacements of
0.02 A at the points of benchmarks/mlearn.py. The drift of dynamics: `python benchmarks/nve_drift.py`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from ase.phonons import Phonons
from mlearn import CRYSTALS, POINTS, THZ, Make, supercell
from numpy.typing import NDArray
from orb_export.ase import OrbCalculator
from orb_export.export.packed import packed
from orb_export.export.precision import in_float64
from orb_export.export.sources import load_source

BAR = 10.0  # meV/A, mean force error of bfloat16, issue 6


def results(make: Make, frames: list[Atoms]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energies per atom (meV) and all force components (meV/A)."""
    energies, forces = [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = make()
        energies.append(1e3 * atoms.get_potential_energy() / len(atoms))
        forces.append(1e3 * atoms.get_forces().ravel())
    return np.array(energies), np.concatenate(forces)


def frequencies(make: Make, element: str, folder: Path) -> NDArray[np.float64]:
    """THz, at all points, ascending at each; imaginary ones negative."""
    cell, repeats = supercell(element, CRYSTALS[element][1])
    phonons = Phonons(cell, make(), supercell=(repeats,) * 3, delta=0.02, name=str(folder))
    phonons.run()
    phonons.read(acoustic=True)
    points = POINTS[CRYSTALS[element][0]].values()
    bands: NDArray[np.float64] = THZ * phonons.band_structure(list(points), verbose=False)
    phonons.clean()
    return bands.ravel()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    choices = ("float32", "float32-split", "bfloat16")
    parser.add_argument("--precisions", nargs="+", choices=choices, default=["float32", "bfloat16"])
    parser.add_argument("--elements", nargs="+", choices=CRYSTALS, default=["Cu", "Li", "Mo", "Si"])
    args = parser.parse_args()
    model = load_source(args.model, dtype=torch.float32)
    exact = OrbCalculator(in_float64(model))
    reduced = {name: OrbCalculator(packed(model, name)) for name in args.precisions}
    print("| | precision | energy, meV/atom | forces, meV/Å | largest | forces beside labels | float64's |")
    print("|---|---|---|---|---|---|---|")
    for element in args.elements:
        frames = read(args.data / f"mlearn_{element}" / "test.xyz", ":")
        labels = np.concatenate([1e3 * frame.get_forces().ravel() for frame in frames])
        energies, forces = results(lambda: exact, frames)
        for precision, calculator in reduced.items():
            found = results(lambda calculator=calculator: calculator, frames)
            energy, force = np.abs(found[0] - energies).mean(), np.abs(found[1] - forces)
            bar = f" (bar {BAR:g})" if precision == "bfloat16" else ""
            print(
                f"| {element} | {precision} | {energy:.4f} | {force.mean():.4f}{bar} | {force.max():.3f} "
                f"| {np.abs(found[1] - labels).mean():.2f} | {np.abs(forces - labels).mean():.2f} |",
                flush=True,
            )
    print("\n| | precision | frequencies | mean change, THz | largest | highest frequency, THz |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for element in args.elements:
            wanted = frequencies(lambda: exact, element, Path(name) / element)
            for precision, calculator in reduced.items():
                folder = Path(name) / f"{element}-{precision}"
                found = frequencies(lambda calculator=calculator: calculator, element, folder)
                change = np.abs(found - wanted)
                print(
                    f"| {element} | {precision} | {len(change)} | {change.mean():.4f} | {change.max():.4f} "
                    f"| {wanted.max():.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
