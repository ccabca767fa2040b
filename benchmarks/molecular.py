"""A molecular model in OpenMM: a solvated amino acid and a water cluster, as Markdown and a plot.

    python benchmarks/molecular.py MODEL --data FOLDER [--output docs/results/molecular.md] [--work FOLDER]

MODEL is an artefact conditioned on charge and spin, FOLDER the set mol_spice_gfn2, of which both start
structures were held out. After minimization they are simulated at 300 K (Langevin, 1/ps) with hydrogens of
4 u, whose mass is taken from the atoms that they are bound to, and 2 fs. Molecules that evaporate are turned
back by a harmonic wall, 1 angstrom outside of the start structure; its force is none of the model's. Then,
with true masses, 0.5 fs and without thermostat, energy must be conserved. Runs are kept in the folder
`--work` and not run again; one that did not come to its end leaves its samples in SYSTEM_so_far.npz.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openmm
from ase import Atoms
from ase.io import read
from ase.neighborlist import natural_cutoffs, neighbor_list
from matplotlib import __version__ as matplotlib_version
from matplotlib.figure import Figure
from numpy.typing import NDArray
from openmm import unit
from orb_export.openmm import OrbV3Force
from tqdm import tqdm

SYSTEMS = {
    "solvated amino acid": ("solvated_aa_neutral.xyz", 7),
    "30 water molecules": ("water30_neutral.xyz", 7),
}
TEMPERATURE = 300.0  # K
TIMESTEP, EVERY, KEPT = 2.0, 50, 100  # fs; steps between samples; samples between saved files
HYDROGEN = 4.0  # u
DRIFT_TIMESTEP = 0.5  # fs
WALL = 1000.0  # kJ/mol/nm^2
EQUILIBRATION = 0.05  # first part of a run, which averages leave out
BROKEN = 1.5  # times its length at the start
MEV = 0.010364269656  # eV per kJ/mol


class Run(NamedTuple):
    """Samples of a run."""

    times: NDArray[np.float64]  # (T,) ps
    temperatures: NDArray[np.float64]  # (T,) K
    stretch: NDArray[np.float64]  # (T, bonds) length over that at the start
    walls: NDArray[np.float64]  # (T,) energy of the wall, kJ/mol


def bonds(atoms: Atoms) -> NDArray[np.int64]:
    """(bonds, 2)"""
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    return np.array([pair for pair in zip(first, second, strict=True) if pair[0] < pair[1]])


def masses(atoms: Atoms, hydrogen: float | None) -> NDArray[np.float64]:
    """With heavy hydrogens, if asked for; the total stays."""
    result = atoms.get_masses()
    for pair in bonds(atoms):
        light = [k for k in pair if atoms.numbers[k] == 1]
        if hydrogen is not None and len(light) == 1:
            extra = hydrogen - result[light[0]]
            result[light[0]] += extra
            result[pair.sum() - light[0]] -= extra
    return np.asarray(result)


def context_of(
    model: Path, atoms: Atoms, timestep: float, hydrogen: float | None, friction: float
) -> openmm.Context:
    """Model and wall; constant energy without friction."""
    system = openmm.System()
    for mass in masses(atoms, hydrogen):
        system.addParticle(mass)
    charge, spin = int(atoms.info.get("charge", 0)), int(atoms.info.get("spin", 1))
    system.addForce(
        OrbV3Force(str(model), atoms.numbers, periodic=False, charge=charge, spin=spin, threads=1)
    )
    wall = openmm.CustomExternalForce("0.5 * k * max(0, r - radius)^2; r = sqrt(x^2 + y^2 + z^2)")
    wall.addGlobalParameter("k", WALL)
    wall.addGlobalParameter("radius", np.linalg.norm(atoms.positions, axis=1).max() / 10 + 0.1)
    wall.setForceGroup(1)
    for particle in range(len(atoms)):
        wall.addParticle(particle)
    system.addForce(wall)
    step = timestep * unit.femtoseconds
    if friction:
        integrator = openmm.LangevinMiddleIntegrator(
            TEMPERATURE * unit.kelvin, friction / unit.picosecond, step
        )
        integrator.setRandomNumberSeed(1)
    else:
        integrator = openmm.VerletIntegrator(step)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))


def start_of(name: str, data: Path) -> Atoms:
    file, index = SYSTEMS[name]
    atoms = read(data / file, index)
    atoms.positions -= atoms.get_center_of_mass()
    return atoms


def samples(rows: list[tuple[float, float, NDArray[np.float64], float]]) -> Run:
    return Run(*map(np.array, zip(*rows, strict=True)))


def simulate(model: Path, atoms: Atoms, picoseconds: float, so_far: Path) -> tuple[Run, NDArray[np.float64]]:
    """The run at constant temperature, and its last positions in angstrom."""
    context = context_of(model, atoms, TIMESTEP, HYDROGEN, 1.0)
    context.setPositions(atoms.positions / 10)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
    context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, 1)
    pairs, rows = bonds(atoms), []
    lengths = np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)
    per_kelvin = 1.5 * len(atoms) * unit.MOLAR_GAS_CONSTANT_R
    count = round(1000 * picoseconds / TIMESTEP / EVERY)
    for sample in tqdm(range(1, count + 1), so_far.stem, leave=False):
        context.getIntegrator().step(EVERY)
        state = context.getState(positions=True, energy=True)
        positions = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.angstrom))
        wall = context.getState(energy=True, groups={1}).getPotentialEnergy()
        stretch = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1) / lengths
        temperature = state.getKineticEnergy() / per_kelvin / unit.kelvin
        time = sample * EVERY * TIMESTEP / 1000
        rows.append((time, temperature, stretch, wall / unit.kilojoules_per_mole))
        if sample % KEPT == 0:
            np.savez(so_far, **samples(rows)._asdict())
    return samples(rows), positions


def drift(model: Path, atoms: Atoms, picoseconds: float) -> tuple[float, float]:
    """At constant energy: slope (meV/atom/ps) and rms about it (meV/atom); the first quarter is left out."""
    context = context_of(model, atoms, DRIFT_TIMESTEP, None, 0.0)
    context.setPositions(atoms.positions / 10)
    context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, 2)
    energies, every = [], 10
    for _ in range(round(1000 * picoseconds / DRIFT_TIMESTEP) // every):
        context.getIntegrator().step(every)
        state = context.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        energies.append(1000 * MEV * total.value_in_unit(unit.kilojoules_per_mole) / len(atoms))
    used = np.array(energies[len(energies) // 4 :])
    times = np.arange(len(used)) * every * DRIFT_TIMESTEP / 1000
    line = np.polyfit(times, used, 1)
    return float(line[0]), float(np.std(used - np.polyval(line, times)))


def measured(name: str, options: argparse.Namespace) -> tuple[Run, tuple[float, float]]:
    """Both runs of a system; from the work folder where they are there."""
    path = options.work / f"{name.replace(' ', '_')}.npz"
    if not path.exists():
        atoms = start_of(name, options.data)
        run, positions = simulate(
            options.model, atoms, options.picoseconds, path.with_stem(f"{path.stem}_so_far")
        )
        atoms.positions = positions - np.average(positions, axis=0, weights=atoms.get_masses())
        slope = drift(options.model, atoms, options.drift_picoseconds)
        np.savez(path, drift=slope, **run._asdict())
    stored = np.load(path)
    slope, rms = stored["drift"]
    return Run(*(stored[field] for field in Run._fields)), (float(slope), float(rms))


def row(name: str, run: Run, energy: tuple[float, float]) -> list[str]:
    used = run.times > EQUILIBRATION * run.times[-1]
    broken = int((run.stretch > BROKEN).any(axis=0).sum())
    return [
        f"{name}, {run.times[-1]:g} ps",
        f"{run.temperatures[used].mean():.0f}, up to {run.temperatures[used].max():.0f}",
        f"{run.stretch.min():.2f} to {run.stretch.max():.2f}, mean {run.stretch[used].mean():.3f}",
        f"{broken} of {run.stretch.shape[1]}",
        f"{100 * (run.walls > 0.1).mean():.0f} %",
        f"{energy[0]:+.3f}, {energy[1]:.3f}",
    ]


def plot(runs: dict[str, Run], path: Path) -> None:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    for axes, (name, run) in zip(figure.subplots(2, 2, sharex=True).T, runs.items(), strict=True):
        axes[0].plot(run.times, run.temperatures, linewidth=0.5)
        axes[0].set(title=name, ylabel="temperature, K")
        axes[1].plot(run.times, run.stretch.max(axis=1), linewidth=0.5, label="longest")
        axes[1].plot(run.times, run.stretch.min(axis=1), linewidth=0.5, label="shortest")
        axes[1].set(xlabel="time, ps", ylabel="bond over its start")
        axes[1].legend()
    figure.savefig(path, dpi=130, metadata={"Software": f"matplotlib {matplotlib_version}"})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("molecular_work"))
    parser.add_argument(
        "--output", type=Path, default=Path("molecular.md"), help="the plot goes into a folder beside"
    )
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--picoseconds", type=float, default=100.0)
    parser.add_argument("--drift-picoseconds", type=float, default=4.0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    head = ["", "temperature, K", "bonds over their start", "bonds broken", "wall touched", "drift, rms"]
    lines, runs = [head, ["---"] * len(head)], {}
    for name in options.systems:
        runs[name], energy = measured(name, options)
        lines.append(row(name, runs[name], energy))
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    print(text)
    if len(runs) == len(SYSTEMS):
        plots = options.output.with_suffix("")
        plots.mkdir(parents=True, exist_ok=True)
        plot(runs, plots / "dynamics.png")
        options.output.write_text(f"# Molecules in OpenMM\n\n{text}")


if __name__ == "__main__":
    main()
