"""Energy drift of NVE dynamics in LAMMPS by precision, as a Markdown table.

    python benchmarks/nve_drift.py [--model demo] [--crystals Si Cu] [--picoseconds 3]
                                   [--precisions float64 float32 bfloat16]

MODEL is what `orb-export export` takes, or an artefact, which has its precision. Crystals of some 30 atoms,
1 fs, velocities of 600 K, so that some 300 K remain after half has gone into the potential energy. The drift
is the slope of a straight line through the total energy per atom; the first picosecond is left out. Its error
is that of the fit to blocks of a tenth of the line. Energy per atom of more atoms fluctuates less about the
same line, and longer runs find it more precisely: both only matter where the error is not below the drift
that is looked for. The whole table takes some eight minutes of one core, half of them to compile.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from orb_export.artefact import SUFFIXES, read_metadata
from orb_export.export import export_model
from orb_export.export.precision import PRECISIONS
from orb_export.export.sources import load_source
from orb_export.lammps import lammps, write_input
from tqdm import tqdm

CRYSTALS = {
    "Si": bulk("Si", "diamond", a=5.43, cubic=True).repeat((2, 2, 1)),
    "Cu": bulk("Cu", "fcc", a=3.61, cubic=True).repeat((2, 2, 2)),
    "Mo": bulk("Mo", "bcc", a=3.15, cubic=True).repeat((3, 3, 2)),
    "Li": bulk("Li", "bcc", a=3.44, cubic=True).repeat((3, 3, 2)),
}
TIMESTEP = 1.0  # fs
EVERY = 10  # steps between energies
LEFT_OUT = 1.0  # ps
BLOCKS = 10
BAR = 1e-5  # eV/atom/ps, of float64 and float32


def trajectory(atoms: Atoms, model: Path, folder: Path, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (ps) and total energies per atom (eV)."""
    path = write_input(atoms, model, folder, temperature=600, timestep=TIMESTEP, steps=0)
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    try:
        lmp.commands_string(f"shell cd {folder}\n{path.read_text()}")
        energies = [lmp.get_thermo("etotal")]
        for _ in tqdm(range(steps // EVERY), desc=atoms.get_chemical_formula(), leave=False, disable=None):
            lmp.command(f"run {EVERY} pre no post no")
            energies.append(lmp.get_thermo("etotal"))
    finally:
        lmp.close()
    times = np.arange(len(energies)) * EVERY * TIMESTEP / 1000
    return times, np.array(energies) / len(atoms)


def line(times: np.ndarray, energies: np.ndarray) -> tuple[float, float, float]:
    """Slope of a straight line, its standard error from block averages, rms about it."""
    slope = np.polyfit(times, energies, 1)
    blocks = [np.array_split(array, BLOCKS) for array in (times, energies)]
    _, covariance = np.polyfit(*([block.mean() for block in part] for part in blocks), 1, cov=True)
    rms = np.std(energies - np.polyval(slope, times))
    return float(slope[0]), float(np.sqrt(covariance[0, 0])), float(rms)


def artefacts(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path]]:
    """Precisions and files."""
    given = Path(options.model).resolve()
    if given.suffix in SUFFIXES.values() and given.is_file():
        yield read_metadata(given)["precision"], given
        return
    for precision in options.precisions:
        file = folder / f"{precision}{SUFFIXES[options.format]}"
        model = load_source(options.model, dtype=PRECISIONS[precision])
        # what the artefact equals is verified whenever one is made for use
        export_model(
            model, file, format=options.format, precision=precision, verified=False, with_steps=False
        )
        yield precision, file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--format", choices=["aoti", "torchscript"], default="aoti")
    parser.add_argument("--crystals", nargs="+", choices=CRYSTALS, default=["Si", "Cu"])
    parser.add_argument("--picoseconds", type=float, default=3.0)
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["float64", "float32", "bfloat16"]
    )
    options = parser.parse_args()
    steps = round(options.picoseconds * 1000 / TIMESTEP)
    used_from = round(LEFT_OUT * 1000 / TIMESTEP / EVERY)
    if steps // EVERY + 1 - used_from < 2 * BLOCKS:
        shortest = LEFT_OUT + 2 * BLOCKS * EVERY * TIMESTEP / 1000
        parser.error(f"argument --picoseconds: {options.picoseconds} must be at least {shortest:g}")
    print(f"{options.model}, {TIMESTEP:g} fs, {options.picoseconds:g} ps; bar {BAR:.0e} (float64, float32)\n")
    print("| crystal | atoms | precision | drift, eV/atom/ps | rms about the line, eV/atom |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for precision, file in artefacts(options, Path(name)):
            for crystal in options.crystals:
                times, energies = trajectory(CRYSTALS[crystal], file, Path(name), steps)
                slope, error, rms = line(times[used_from:], energies[used_from:])
                print(
                    f"| {crystal} | {len(CRYSTALS[crystal])} | {precision} | {slope:+.1e} ± {error:.0e} "
                    f"| {rms:.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
