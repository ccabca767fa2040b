"""Energy drift of NVE dynamics in LAMMPS, as a Markdown table.

    python benchmarks/nve_drift.py [--model demo] [--crystals Si Cu] [--picoseconds 10] [--precision float64]

MODEL is what `orb-export export` takes, or an artefact, which has its precision. Crystals of some 100 atoms,
1 fs, velocities of 600 K, so that some 300 K remain after half has gone into the potential energy. The drift
is the slope of a straight line through the total energy per atom; the first picosecond is left out.
"""

import argparse
import tempfile
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
    "Si": bulk("Si", "diamond", a=5.43, cubic=True).repeat((2, 2, 2)),
    "Cu": bulk("Cu", "fcc", a=3.61, cubic=True).repeat((3, 3, 3)),
    "Mo": bulk("Mo", "bcc", a=3.15, cubic=True).repeat((4, 4, 4)),
    "Li": bulk("Li", "bcc", a=3.44, cubic=True).repeat((4, 4, 4)),
}
TIMESTEP = 1.0  # fs
EVERY = 10  # steps between energies
BAR = 1e-5  # eV/atom/ps, issue 2


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--format", choices=["aoti", "torchscript"], default="aoti")
    parser.add_argument("--crystals", nargs="+", choices=CRYSTALS, default=["Si", "Cu"])
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--precision", choices=PRECISIONS, default="float64")
    options = parser.parse_args()
    steps = round(options.picoseconds * 1000 / TIMESTEP)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, precision = Path(options.model).resolve(), options.precision
        if file.suffix in SUFFIXES.values() and file.is_file():
            precision = read_metadata(file)["precision"]
        else:
            file = folder / f"model{SUFFIXES[options.format]}"
            model = load_source(options.model, dtype=PRECISIONS[precision])
            export_model(model, file, format=options.format, precision=precision)
        print(f"{options.model}, {precision}, {TIMESTEP:g} fs, {options.picoseconds:g} ps; bar {BAR:.0e}\n")
        print("| crystal | atoms | drift, eV/atom/ps | rms about the line, eV/atom |\n|---|---|---|---|")
        for crystal in options.crystals:
            times, energies = trajectory(CRYSTALS[crystal], file, folder, steps)
            used = times >= 1.0
            line = np.polyfit(times[used], energies[used], 1)
            rest = np.std(energies[used] - np.polyval(line, times[used]))
            print(f"| {crystal} | {len(CRYSTALS[crystal])} | {line[0]:+.1e} | {rest:.1e} |")


if __name__ == "__main__":
    main()
