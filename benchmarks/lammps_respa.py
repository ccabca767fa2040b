"""Drift and speed of r-RESPA with two models in LAMMPS, as a Markdown table.

    python benchmarks/lammps_respa.py [--picoseconds 4] [--distillation 4000] [--inner FILE]

System and models are those of `openmm_mts.py`: 64 atoms of silicon, float64, constant energy, velocities of
600 K; outside the demonstration model, conservative, inside a direct one with 16 neighbors that is fitted to
its forces here, unless an artefact is given. The run is that of `lammps_plugin/examples/in.respa`. Drift is
the slope of a straight line through the total energy, after half a picosecond. Times are of the processor, so
that other programs beside it matter less; the last column is the speed beside that of the outer model alone
at the first step of the table.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io.lammpsdata import write_lammps_data
from openmm_mts import CRYSTAL, EVERY, RUNS, export_models, line_through, parsed
from orb_export.lammps import lammps


def commands(atoms: Atoms, outer: Path, inner: Path, step: float, substeps: int, folder: Path) -> list[str]:
    data = folder / "silicon.data"
    with data.open("w") as file:
        write_lammps_data(file, atoms, masses=True)
    lines = ["units metal", "atom_style atomic", f"read_data {data}", f"timestep {step * 1e-3}"]
    if substeps:
        lines.append("pair_style hybrid/scaled 1.0 orbv3 threads 1 1.0 orbv3 threads 1 -1.0 orbv3 threads 1")
        models = (inner, outer, inner)
        lines += [f"pair_coeff * * orbv3 {k} {model} Si" for k, model in enumerate(models, start=1)]
        lines.append(f"run_style respa 2 {substeps} hybrid 1 2 2")
    else:
        lines += ["pair_style orbv3 threads 1", f"pair_coeff * * {outer} Si"]
    return [
        *lines,
        "neighbor 1.0 bin",
        "velocity all create 600 4928 mom yes dist gaussian",
        "fix md all nve",
        "thermo_style custom step etotal",
    ]


def measure(lines: list[str], step: float, picoseconds: float, folder: Path) -> tuple[float, float, float]:
    """Drift in meV/atom/ps, rms about the line in meV/atom, and processor milliseconds per femtosecond."""
    every, table = round(EVERY / step), folder / "energies.txt"
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_list([*lines, "run 0 post no"])
    lmp.commands_list(["variable e equal etotal", f"fix e all ave/time {every} 1 {every} v_e file {table}"])
    start = time.process_time()
    lmp.command(f"run {round(1000 * picoseconds / EVERY) * every} post no")
    seconds = time.process_time() - start
    lmp.close()
    return *line_through(1000 * np.loadtxt(table)[1:, 1] / len(CRYSTAL)), seconds / picoseconds


def main() -> None:
    options = parsed(__doc__ or "")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        outer, inner = export_models(options, Path(name))
        print("| | step, fs | outer/fs | inner/fs | drift, meV/atom/ps | rms, meV/atom | ms/fs | speed |")
        print("|---|---|---|---|---|---|---|---|")
        slowest = None
        for step, substeps in RUNS:
            lines = commands(CRYSTAL, outer, inner, step, substeps, Path(name))
            drift, rms, milliseconds = measure(lines, step, options.picoseconds, Path(name))
            slowest = slowest or milliseconds
            label = f"{substeps} inner steps" if substeps else "outer alone"
            print(
                f"| {label} | {step:g} | {1 / step:.3g} | {(substeps + 1) / step if substeps else 0:.3g} "
                f"| {drift:+.2g} | {rms:.2g} | {milliseconds:.1f} | {slowest / milliseconds:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
