"""Liquid water: structure in LAMMPS and OpenMM beside that of the reference frames, as Markdown and plots.

    python benchmarks/water.py MODEL --data FILE [--core] [--starts 0 9] [--output OUT.md]

MODEL is an artefact, FILE the frames of water_pbe0ts; its first 16 were held out (examples/water.yaml).
Dynamics begin at the held-out frames `--starts`: at constant temperature in LAMMPS (Nose-Hoover), and from
the first of them in OpenMM (Langevin) and at constant energy in LAMMPS. With `--core`, oxygens repel each
other below 2.3 angstrom by ZBL beside the model; without, the model is alone. Runs are kept in the folder
`--work`, and those that are there are not run again.

Errors of pair distribution functions are standard errors over blocks of a trajectory. The reference frames
come in the order of the file, which is not that of time, so their errors are lower bounds.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.io import read
from matplotlib import __version__ as matplotlib_version
from matplotlib.figure import Figure
from numpy.typing import NDArray
from orb_export.ase import OrbCalculator
from pair_distribution import BLOCKS, Peak, blocks_of, distances, maximum, peak, radii
from tqdm import tqdm
from water_engines import (
    ENERGY_EVERY,
    ENERGY_TIMESTEP,
    EVERY,
    TIMESTEP,
    Setup,
    energies_in,
    lammps_energies,
    lammps_frames,
    openmm_frames,
    samples_in,
)

ENGINES = {"LAMMPS": lammps_frames, "OpenMM": openmm_frames}
HELD_OUT = 16
SAVE_EVERY = 25  # sampled frames between savings of an unfinished run
# Window of the cubic on either side of the largest bin, and where that is looked for, angstrom
PAIRS = {"O-O": (8, 8, 0.2, (2.0, 3.5)), "O-H": (8, 1, 0.16, (1.4, 2.4)), "H-H": (1, 1, 0.2, (1.9, 3.0))}
HIGHEST = {"O-O": 4.0, "O-H": 2.5, "H-H": 2.5}  # of the plots; the peaks of bonds are cut off
REFERENCE = "reference"
POSITION_BAR, HEIGHT_BAR = 0.03, 0.1  # of the first O-O peak: angstrom, relative
NEAREST, BOND = 2.35, 1.25  # angstrom: of oxygens in the reference; hydrogens nearer to an oxygen are bound
DRIFT_SKIP = 0.5  # ps at constant energy before the line is fitted


class Run(NamedTuple):
    """A trajectory after equilibration."""

    temperatures: NDArray[np.float64]
    frames: list[Atoms]


def trajectory(engine: str, start: int, options: argparse.Namespace, frame: Atoms) -> Run:
    """A run from a frame; from the work folder where it is there."""
    path = options.work / f"{engine}_{start}.npz"
    if not path.exists():
        setup = Setup(options.model, frame, options.work, seed=start + 1, core=options.core)
        picoseconds = options.equilibration + (
            options.picoseconds if engine == "LAMMPS" else options.openmm_picoseconds
        )
        total = samples_in(picoseconds)
        temperatures, positions = [], []
        for kelvin, x in tqdm(ENGINES[engine](setup, picoseconds), f"{engine} {start}", total, leave=False):
            temperatures.append(kelvin)
            positions.append(x.astype(np.float32))
            so_far = path if len(positions) == total else path.with_stem(f"{path.stem}_so_far")
            if so_far == path or len(positions) % SAVE_EVERY == 0:
                np.savez(so_far, temperatures=temperatures, positions=positions)
    stored = np.load(path)
    skip = samples_in(options.equilibration)
    frames = [Atoms(frame.numbers, x, cell=frame.cell, pbc=True) for x in stored["positions"][skip:]]
    return Run(stored["temperatures"][skip:], frames)


def drift(options: argparse.Namespace, frame: Atoms) -> tuple[float, float]:
    """Slope and rms about it of the energy per atom at constant energy, meV/ps and meV."""
    path = options.work / "energies.npy"
    if not path.exists():
        setup = Setup(options.model, frame, options.work, seed=3, core=options.core)
        total = energies_in(options.drift_picoseconds)
        found = lammps_energies(setup, options.drift_picoseconds)
        np.save(path, list(tqdm(found, "constant energy", total, leave=False)))
    energies = np.load(path)
    times = np.arange(len(energies)) * ENERGY_EVERY * ENERGY_TIMESTEP / 1000
    used = times >= DRIFT_SKIP
    line = np.polyfit(times[used], energies[used], 1)
    return float(line[0]), float(np.std(energies[used] - np.polyval(line, times[used])))


def force_errors(model: Path, frames: list[Atoms]) -> str:
    """Table of errors of force components by element, meV/angstrom, and of energies."""
    calculator, errors, energies = OrbCalculator(model), [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        errors.append(1000 * (atoms.get_forces() - frame.get_forces()))
        energies.append(1000 * (atoms.get_potential_energy() - frame.get_potential_energy()) / len(atoms))
    rows = []
    for name, numbers in (("O", (8,)), ("H", (1,)), ("all", (1, 8))):
        chosen = np.isin(frames[0].numbers, numbers)
        found = np.array(errors)[:, chosen]
        labels = 1000 * np.array([frame.get_forces()[chosen] for frame in frames])
        values = (np.abs(found).mean(), np.sqrt((found**2).mean()), np.sqrt((labels**2).mean()))
        rows.append([name, *(f"{value:.0f}" for value in values)])
    text = table(["force components, meV/Å", "mean absolute error", "rms error", "rms of the labels"], rows)
    return f"{text}\nEnergies: mean absolute error {np.abs(energies).mean():.2f} meV/atom.\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def structure(sets: dict[str, list[Atoms]], plot: Path) -> str:
    """Peaks of all sets, the verdict on the first O-O peak, and the plot."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    rows: list[list[str]] = []
    peaks: dict[tuple[str, str], Peak] = {}
    for axis, (pair, (first, second, width, between)) in zip(
        figure.subplots(1, 3), PAIRS.items(), strict=True
    ):
        for name, frames in sets.items():
            blocks = blocks_of(frames, first, second)
            peaks[pair, name] = found = peak(blocks, width, between)
            axis.plot(radii(), blocks.mean(axis=0), label=name, color="0.3" if name == REFERENCE else None)
            position = f"{found.position:.3f} ± {found.position_error:.3f}"
            rows.append([pair, name, position, f"{found.height:.2f} ± {found.height_error:.2f}"])
        axis.set(xlabel=f"{pair} distance, Å", ylabel="g(r)", xlim=(1.2, 6), ylim=(0, HIGHEST[pair]))
    figure.axes[0].legend()
    figure.savefig(plot, dpi=130, metadata={"Software": f"matplotlib {matplotlib_version}"})
    reference = peaks["O-O", REFERENCE]
    verdicts = [verdict(name, peaks["O-O", name], reference) for name in sets if name != REFERENCE]
    return table(["pair", "", "peak at, Å", "height"], rows) + "\n" + "\n".join(verdicts) + "\n"


def verdict(name: str, found: Peak, reference: Peak) -> str:
    position, height = found.position - reference.position, found.height / reference.height - 1
    holds = abs(position) <= POSITION_BAR and abs(height) <= HEIGHT_BAR
    return (
        f"- {name}, first O-O peak: {position:+.3f} Å, height {100 * height:+.1f} %; bar {POSITION_BAR} Å "
        f"and {100 * HEIGHT_BAR:.0f} %: {'met' if holds else 'NOT met'}."
    )


def course(runs: dict[str, Run]) -> str:
    """Table by block: height of the first O-O peak, near oxygens, broken molecules."""
    rows = []
    _, _, width, between = PAIRS["O-O"]
    for name, run in runs.items():
        heights = [maximum(block, width, between)[1] for block in blocks_of(run.frames, 8, 8)]
        parts = np.array_split(np.arange(len(run.frames)), BLOCKS)
        near = [np.mean([near_oxygens(run.frames[k]) for k in part]) for part in parts]
        broken = [max(broken_molecules(run.frames[k]) for k in part) for part in parts]
        rows.append([f"{name}: height of the first O-O peak", *(f"{height:.2f}" for height in heights)])
        rows.append([f"pairs of oxygens below {NEAREST} Å in a frame", *(f"{mean:.2f}" for mean in near)])
        rows.append(["molecules that are not whole, at most", *map(str, broken)])
    return table(["block", *(str(block + 1) for block in range(BLOCKS))], rows)


def near_oxygens(frame: Atoms) -> int:
    """Pairs nearer than any of the reference."""
    return int((distances(frame, 8, 8) < NEAREST).sum() - (frame.numbers == 8).sum()) // 2


def broken_molecules(frame: Atoms) -> int:
    """Oxygens that do not have two hydrogens."""
    return int(((distances(frame, 8, 1) < BOND).sum(axis=1) != 2).sum())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--contacts", type=Path, help="of the held-out frames, by water_data.py")
    parser.add_argument("--core", action="store_true", help="a core between oxygens beside the model")
    parser.add_argument("--work", type=Path, default=Path("water_work"))
    parser.add_argument(
        "--output", type=Path, default=Path("water.md"), help="the plot goes into a folder beside"
    )
    parser.add_argument("--starts", type=int, nargs="+", default=[0], help="frames, below 16")
    parser.add_argument("--picoseconds", type=float, default=10.0, help="LAMMPS, after equilibration")
    parser.add_argument("--openmm-picoseconds", type=float, default=1.0)
    parser.add_argument("--equilibration", type=float, default=1.0, help="ps")
    parser.add_argument("--drift-picoseconds", type=float, default=1.5)
    options = parser.parse_args()
    frames = {name: samples_in(getattr(options, name)) for name in ("picoseconds", "openmm_picoseconds")}
    frames["drift_picoseconds"] = energies_in(options.drift_picoseconds) - energies_in(DRIFT_SKIP)
    for name, count in frames.items():
        if count < BLOCKS:
            parser.error(
                f"`--{name.replace('_', '-')}` is {getattr(options, name)} but must be longer: {count} "
                f"samples of the run would be used, and {BLOCKS} are the fewest"
            )
    if not all(0 <= start < HELD_OUT for start in options.starts):
        parser.error(f"`--starts` is {options.starts} but must be from 0 to {HELD_OUT - 1}")
    options.model, options.work = options.model.resolve(), options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    options = parsed()
    frames = read(options.data, ":")
    chosen = [("LAMMPS", start) for start in options.starts] + [("OpenMM", options.starts[0])]
    runs = {
        f"{engine}, frame {start}": trajectory(engine, start, options, frames[start])
        for engine, start in chosen
    }
    slope, rms = drift(options, frames[options.starts[0]])
    plots = options.output.with_suffix("")
    plots.mkdir(parents=True, exist_ok=True)
    sets = {REFERENCE: frames} | {name: run.frames for name, run in runs.items()}
    if len(options.starts) > 1:
        together = [run.frames for name, run in runs.items() if name.startswith("LAMMPS")]
        sets["LAMMPS, together"] = [frame for part in together for frame in part]
    lengths = [
        f"{name}: {len(run.frames) * EVERY * TIMESTEP / 1000:g} ps with {run.temperatures.mean():.0f} K"
        for name, run in runs.items()
    ]
    contacts = []
    if options.contacts is not None:
        errors = force_errors(options.model, read(options.contacts, ":"))
        contacts = ["## Forces on held-out close contacts\n", errors]
    text = "\n".join(
        [
            "## Forces on the held-out frames\n",
            force_errors(options.model, frames[:HELD_OUT]),
            *contacts,
            f"## Structure with {'a core' if options.core else 'the model alone'}\n",
            "; ".join(lengths) + f" on average, after {options.equilibration:g} ps that are left out.\n",
            structure(sets, plots / "pair_distributions.png"),
            "Blocks of the runs in the order of time:\n",
            course(runs),
            "## Constant energy\n",
            f"{options.drift_picoseconds:g} ps in LAMMPS: drift {slope:+.3f} meV/atom/ps, rms about the line "
            f"{rms:.3f} meV/atom, after {DRIFT_SKIP:g} ps that are left out.\n",
        ]
    )
    print(text)
    options.output.write_text(f"# Liquid water\n\n{text}")


if __name__ == "__main__":
    main()
