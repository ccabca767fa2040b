"""What the precision of an artefact does to vibrations and to dynamics, beside the model in float64.

Frequencies are those of ASE's finite displacements at the wave vectors that a supercell holds, where they do
not depend on how force constants are cut off. Dynamics run at constant energy from one start. As `python -m
orb_export.export.effects FILE CRYSTALS TASK RESULTS` this module is the process that knows the artefact only.
"""

import contextlib
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.phonons import Phonons

from orb_export.ase import OrbCalculator

from . import fresh

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orb_export.model import OrbV3

LARGEST = 64  # atoms of a crystal
_DOUBLED = 32  # a supercell of twice the cell along each axis has at most so many atoms, or there is none
_EVALUATED = 25_000  # atoms, in all evaluations for frequencies
_DISPLACEMENT = 0.02  # angstrom
_THZ = units._e / units._hplanck * 1e-12  # per eV
_SOFT = 0.1  # THz; a crystal with imaginary frequencies beyond it is not stable

_TEMPERATURE = 600.0  # K of the start; half of it goes into the potential energy
_STEPS = 300
_LONGEST_STEP = 1.0  # fs
_STEPS_PER_PERIOD = 30  # of the fastest vibration
_LEFT_OUT = 0.2  # of a run, before the line through its energies


class Task(NamedTuple):
    """What a process is to run after the frequencies of all crystals."""

    crystal: int
    timestep: float  # fs
    steps: int


def small_weights(model: "OrbV3") -> bool:
    """Whether all of this takes seconds: models of the published size, 25 million weights, take minutes."""
    return sum(parameter.numel() for parameter in model.parameters()) <= 1_000_000


def _repeats(atoms: Atoms) -> int:
    neutral = atoms.info.get("charge", 0.0) == 0.0 and atoms.info.get("spin", 1.0) in (0.0, 1.0)
    return 2 if neutral and 8 * len(atoms) <= _DOUBLED else 1


def suitable(structures: Sequence[Atoms]) -> list[Atoms]:
    """Crystals among the structures: periodic and small, the first ones as far as the effort allows."""
    found, left = [], _EVALUATED
    for atoms in structures:
        evaluated = (6 * len(atoms) + 1) * len(atoms) * _repeats(atoms) ** 3
        if atoms.pbc.all() and len(atoms) <= LARGEST and evaluated <= left:
            found.append(atoms)
            left -= evaluated
    return found


def frequencies(atoms: Atoms, calculator: Calculator) -> "NDArray[np.float64]":
    """THz, without the three translations, ascending at each wave vector; imaginary ones negative."""
    n = _repeats(atoms)
    with tempfile.TemporaryDirectory() as folder:
        phonons = Phonons(atoms, calculator, (n, n, n), delta=_DISPLACEMENT, name=f"{folder}/displacements")
        phonons.run()
        phonons.read(acoustic=True)
        points = list(itertools.product(np.arange(n) / n, repeat=3))  # the first one is zero
        bands: NDArray[np.float64] = _THZ * phonons.band_structure(points, verbose=False)
    still = np.argsort(np.abs(bands[0]))[:3]
    return np.concatenate([np.delete(bands[0], still), bands[1:].ravel()])


def energies(atoms: Atoms, calculator: Calculator, task: Task) -> "NDArray[np.float64]":
    """Total energy per atom (eV) at every step of a run at constant energy; fewer if it breaks down."""
    atoms = atoms * _repeats(atoms)
    spread = np.sqrt(atoms.get_masses() * _TEMPERATURE * units.kB)
    momenta = np.random.default_rng(0).standard_normal((len(atoms), 3)) * spread[:, None]
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    atoms.calc = calculator
    dynamics, found = VelocityVerlet(atoms, task.timestep * units.fs), []
    dynamics.attach(lambda: found.append(atoms.get_total_energy() / len(atoms)))
    with contextlib.suppress(ValueError, RuntimeError):  # two atoms have met
        dynamics.run(task.steps)
    return np.array(found)


def _dynamics(crystals: Sequence[Atoms], exact: Sequence["NDArray[np.float64]"]) -> Task:
    """Of the crystal with the highest frequency, of the stable ones if any is."""
    keys = [(bands.min() > -_SOFT, bands.max()) for bands in exact]
    crystal = keys.index(max(keys))
    period = 1000 / max(exact[crystal].max(), _SOFT)  # fs
    return Task(crystal, min(_LONGEST_STEP, period / _STEPS_PER_PERIOD), _STEPS)


def _line(found: "NDArray[np.float64]", task: Task) -> dict[str, float]:
    times = 1e-3 * task.timestep * np.arange(len(found))
    used = slice(int(_LEFT_OUT * len(found)), None)
    line = np.polyfit(times[used], found[used], 1)
    return {"drift": float(line[0]), "rms": float(np.std(found[used] - np.polyval(line, times[used])))}


def skipped(reason: str) -> dict[str, Any]:
    """The entries of the record when nothing is measured."""
    return {name: {"skipped": True, "reason": reason} for name in ("phonons", "dynamics")}


def measured(file: Path, exact: "OrbV3", structures: Sequence[Atoms]) -> dict[str, Any]:
    """The entries `phonons` and `dynamics` of the record: `file` beside the model in float64.

    Frequencies are those of all structures that are `suitable`, dynamics those of one of them.
    """
    crystals = suitable(structures)
    if not crystals:
        return skipped(f"no structure is periodic along three axes and has at most {LARGEST} atoms")
    calculator = OrbCalculator(exact)
    wanted = [frequencies(atoms, calculator) for atoms in crystals]
    task = _dynamics(crystals, wanted)
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "crystals.traj", Path(folder) / "results.npz"
        write(inputs, crystals)
        fresh.run(__name__, [file, inputs, json.dumps(task), outputs], always_split=True)
        with np.load(outputs) as archive:
            found = [archive[f"frequencies/{index}"] for index in range(len(crystals))]
            moved = archive["energies"]
    change, highest = np.abs(np.concatenate(found) - np.concatenate(wanted)), max(map(np.max, wanted))
    phonons = {
        "structures": len(crystals),
        "frequencies": len(change),
        "mean": float(change.mean()),  # THz
        "max": float(change.max()),
        "highest": float(highest),  # of all, in float64
    }
    still = energies(crystals[task.crystal], calculator, task)
    return {"phonons": phonons, "dynamics": _described(crystals[task.crystal], task, moved, still)}


def _described(
    atoms: Atoms, task: Task, found: "NDArray[np.float64]", exact: "NDArray[np.float64]"
) -> dict[str, Any]:
    for name, run in (("artefact", found), ("model in float64", exact)):
        if len(run) <= task.steps or not np.isfinite(run).all():
            reason = f"the run of the {name} broke down after {len(run) - 1} of {task.steps} steps"
            return {"skipped": True, "reason": reason}
    return {
        "structure": (atoms * _repeats(atoms)).get_chemical_formula(),
        "temperature": _TEMPERATURE,  # K, at the start
        "timestep": task.timestep,  # fs
        "steps": task.steps,
        **_line(found, task),  # eV/atom/ps and eV/atom
        "float64": _line(exact, task),
    }


def _evaluate_in_this_process(file: str, inputs: str, task: str, outputs: str) -> None:
    from orb_export.artefact import load

    calculator = OrbCalculator(load(file))
    crystals: list[Atoms] = list(read(inputs, ":"))
    arrays = {f"frequencies/{k}": frequencies(atoms, calculator) for k, atoms in enumerate(crystals)}
    chosen = Task(*json.loads(task))
    arrays["energies"] = energies(crystals[chosen.crystal], calculator, chosen)
    np.savez(outputs, allow_pickle=False, **arrays)


if __name__ == "__main__":
    _evaluate_in_this_process(*sys.argv[1:])
