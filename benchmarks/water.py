"""Liquid water: structure in LAMMPS and OpenMM beside that of the reference frames, as Markdown and a plot.

    python benchmarks/water.py MODEL --data FILE [--output docs/results/water.md] [--work FOLDER]

MODEL is an artefact, FILE the frames of water_pbe0ts; its first 16 were held out (examples/water.yaml).
Dynamics begin at the first: at constant temperature in LAMMPS (Nose-Hoover) and OpenMM (Langevin), and at
constant energy in LAMMPS. Oxygens repel each other below 2.3 angstrom by ZBL, beside the model: the data have
no such pairs, and the model alone lets molecules that come that near fall into each other. Positions are kept
in the folder `--work`; runs that are there are not run again.

Errors of pair distribution functions are standard errors over blocks of a trajectory. The reference frames
come in the order of the file, which is not that of time, so their errors are lower bounds.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openmm
from ase import Atoms
from ase.io import read
from ase.io.lammpsdata import write_lammps_data
from matplotlib import __version__ as matplotlib_version
from matplotlib.figure import Figure
from numpy.typing import NDArray
from openmm import unit
from orb_export.ase import OrbCalculator
from orb_export.lammps import lammps
from orb_export.openmm import OrbV3Force
from pair_distribution import Peak, blocks_of, peak, radii
from tqdm import tqdm

ENGINES = ["LAMMPS", "OpenMM"]
HELD_OUT = 16
TEMPERATURE = 330.0  # K, of the data
TIMESTEP, EVERY = 0.5, 40  # fs; steps between sampled frames
SCREENING = ((0.02817, 0.20162), (0.28022, 0.4029), (0.50986, 0.94229), (0.18175, 3.1998))  # of ZBL
CORE = 1.7, 2.3  # angstrom; ZBL between oxygens, switched off between the two
# Window of the cubic on either side of the largest bin, and where that is looked for, angstrom
PAIRS = {"O-O": (8, 8, 0.2, (2.0, 3.5)), "O-H": (8, 1, 0.16, (1.4, 2.4)), "H-H": (1, 1, 0.2, (1.9, 3.0))}
HIGHEST = {"O-O": 4.0, "O-H": 2.5, "H-H": 2.5}  # of the plots; the peaks of bonds are cut off
REFERENCE = "reference"
POSITION_BAR, HEIGHT_BAR = 0.03, 0.1  # of the first O-O peak: angstrom, relative
DRIFT_SKIP = 0.5  # ps at constant energy before the line is fitted


def in_lammps(model: Path, start: Atoms, ensemble: str, folder: Path, seed: int) -> lammps:
    """LAMMPS with the model, at the temperature of the data, ready to run."""
    data = folder / "water.data"
    with data.open("w") as file:
        write_lammps_data(file, start, specorder=["O", "H"], masses=True)
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_list(
        [
            "units metal",
            "atom_style atomic",
            f"read_data {data}",
            f"pair_style hybrid/overlay orbv3 threads 1 zbl {CORE[0]} {CORE[1]}",
            f'pair_coeff * * orbv3 "{model}" O H',
            "pair_coeff 1 1 zbl 8 8",
            "neighbor 1.0 bin",
            f"timestep {TIMESTEP * 1e-3}",
            f"velocity all create {TEMPERATURE} {seed} mom yes dist gaussian",
            f"fix md all {ensemble}",
            "run 0 post no",
        ]
    )
    return lmp


def lammps_frames(
    model: Path, start: Atoms, picoseconds: float, folder: Path
) -> Iterator[tuple[float, NDArray[np.float64]]]:
    """Temperature and positions every EVERY steps of a run at constant temperature."""
    lmp = in_lammps(model, start, f"nvt temp {TEMPERATURE} {TEMPERATURE} 0.1", folder, seed=1)
    for _ in range(steps_in(picoseconds) // EVERY):
        lmp.command(f"run {EVERY} pre no post no")
        positions = np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3)
        yield lmp.get_thermo("temp"), positions
    lmp.close()


def openmm_frames(
    model: Path, start: Atoms, picoseconds: float, folder: Path
) -> Iterator[tuple[float, NDArray[np.float64]]]:
    """The same in OpenMM."""
    system = openmm.System()
    for mass in start.get_masses():
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*(start.cell.array / 10))
    system.addForce(OrbV3Force(str(model), start.numbers, periodic=True, threads=1))
    system.addForce(core(start.numbers))
    integrator = openmm.LangevinMiddleIntegrator(
        TEMPERATURE * unit.kelvin, 1 / unit.picosecond, TIMESTEP * unit.femtoseconds
    )
    integrator.setRandomNumberSeed(2)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(start.positions / 10)
    context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, 2)
    per_kelvin = 1.5 * len(start) * unit.MOLAR_GAS_CONSTANT_R
    for _ in range(steps_in(picoseconds) // EVERY):
        integrator.step(EVERY)
        state = context.getState(positions=True, energy=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        yield state.getKineticEnergy() / per_kelvin / unit.kelvin, np.array(positions)


def core(numbers: NDArray[np.int64]) -> openmm.CustomNonbondedForce:
    """What `pair_style zbl` is in LAMMPS, but for the way it is switched off."""
    screened = " + ".join(f"{factor} * exp(-{rate} * x)" for factor, rate in SCREENING)
    length = 0.046850 / (2 * 8**0.23)  # nm, of two oxygens
    force = openmm.CustomNonbondedForce(f"138.935458 * 64 / r * ({screened}); x = r / {length}")
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(CORE[0] / 10)
    force.setCutoffDistance(CORE[1] / 10)
    for _ in numbers:
        force.addParticle([])
    oxygens = np.flatnonzero(numbers == 8).tolist()
    force.addInteractionGroup(oxygens, oxygens)
    return force


def steps_in(picoseconds: float) -> int:
    return round(1000 * picoseconds / TIMESTEP)


def trajectory(
    engine: str, options: argparse.Namespace, start: Atoms
) -> tuple[NDArray[np.float64], list[Atoms]]:
    """Temperatures and frames after equilibration; from the work folder where they are there."""
    path = options.work / f"{engine}.npz"
    if not path.exists():
        run = {"LAMMPS": lammps_frames, "OpenMM": openmm_frames}[engine]
        picoseconds = options.equilibration + (
            options.picoseconds if engine == "LAMMPS" else options.openmm_picoseconds
        )
        total = steps_in(picoseconds) // EVERY
        rows = list(tqdm(run(options.model, start, picoseconds, options.work), engine, total, leave=False))
        temperatures, positions = zip(*rows, strict=True)
        np.savez(path, temperatures=temperatures, positions=np.array(positions, dtype=np.float32))
    stored = np.load(path)
    skip = steps_in(options.equilibration) // EVERY
    frames = [Atoms(start.numbers, x, cell=start.cell, pbc=True) for x in stored["positions"][skip:]]
    return stored["temperatures"][skip:], frames


def drift(options: argparse.Namespace, start: Atoms) -> tuple[float, float]:
    """Slope and rms about it of the energy per atom at constant energy, meV/ps and meV."""
    path = options.work / "energies.npy"
    if not path.exists():
        np.save(path, energies_at_constant_energy(options, start))
    energies = np.load(path)
    times = np.arange(len(energies)) * 10 * TIMESTEP / 1000
    used = times >= DRIFT_SKIP
    line = np.polyfit(times[used], energies[used], 1)
    return float(line[0]), float(np.std(energies[used] - np.polyval(line, times[used])))


def energies_at_constant_energy(options: argparse.Namespace, start: Atoms) -> list[float]:
    """Total energy every 10 steps, meV/atom."""
    lmp = in_lammps(options.model, start, "nve", options.work, seed=3)
    energies = []
    for _ in tqdm(range(steps_in(options.drift_picoseconds) // 10), "constant energy", leave=False):
        lmp.command("run 10 pre no post no")
        energies.append(1000 * lmp.get_thermo("etotal") / len(start))
    lmp.close()
    return energies


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


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("water_work"))
    parser.add_argument(
        "--output", type=Path, default=Path("water.md"), help="the plot goes into a folder beside"
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--picoseconds", type=float, default=25.0, help="LAMMPS, after equilibration")
    parser.add_argument("--openmm-picoseconds", type=float, default=10.0)
    parser.add_argument("--equilibration", type=float, default=2.0, help="ps")
    parser.add_argument("--drift-picoseconds", type=float, default=5.0)
    options = parser.parse_args()
    options.model, options.work = options.model.resolve(), options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    options = parsed()
    frames = read(options.data, ":")
    parts = ["## Forces on the held-out frames\n", force_errors(options.model, frames[:HELD_OUT])]
    sets, temperatures = {REFERENCE: frames}, []
    for engine in options.engines:
        found, sets[engine] = trajectory(engine, options, frames[0])
        length = len(found) * EVERY * TIMESTEP / 1000
        temperatures.append(f"{engine}: {length:g} ps, mean temperature {found.mean():.0f} K")
    plots = options.output.with_suffix("")
    plots.mkdir(parents=True, exist_ok=True)
    parts += ["## Structure\n", structure(sets, plots / "pair_distributions.png")]
    parts.append("; ".join(temperatures) + f", after {options.equilibration:g} ps that are left out.\n")
    slope, rms = drift(options, frames[0])
    parts += [
        "## Constant energy\n",
        f"{options.drift_picoseconds:g} ps in LAMMPS: drift {slope:+.3f} meV/atom/ps, ",
    ]
    parts[-1] += f"rms about the line {rms:.3f} meV/atom.\n"
    text = "\n".join(parts)
    print(text)
    options.output.write_text(f"# Liquid water\n\n{text}")


if __name__ == "__main__":
    main()
