"""Many runs of `lmp` on several ranks in one start of mpiexec, each against Python for its last atoms."""

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orb_export
from ase import Atoms
from ase.data import atomic_numbers

from tests.accuracy import within
from tests.engines.lammps import runs

Launcher = Callable[..., subprocess.CompletedProcess[str]]
# what the issue allows between numbers of ranks, in float64
FORCE_BAR, ENERGY_BAR, STRESS_BAR = 1e-11, 1e-11, 1e-11


class Case(NamedTuple):
    atoms: Atoms
    model: str  # name of a fixture's artefact
    keywords: str = ""  # of pair_style
    before: tuple[str, ...] = ()  # commands before read_data
    after: tuple[str, ...] = ()  # between pair_coeff and the run
    run: tuple[str, ...] = ("run 0",)
    style: str = "orbv3"


class Outcome(NamedTuple):
    atoms: Atoms  # of the last step
    result: runs.Result
    owners: np.ndarray  # (N,) rank of each atom, by ID


def lines_of(case: Case, model: Path, folder: Path, name: str) -> list[str]:
    """A run and files `name`.dump and `name`.out of its last step."""
    place = folder / name
    place.mkdir(exist_ok=True)
    header = f"pair_style {case.style} {case.keywords}"
    thermo = " ".join(f"$(c_virial[{k}]:%.17g)" for k in range(1, 7))
    box = " ".join(f"$({k}:%.17g)" for k in ("lx", "ly", "lz", "xy", "xz", "yz"))
    return [
        "clear",
        *runs.setup(case.atoms, place, before=case.before),
        header,
        f"pair_coeff * * {model} {' '.join(runs.elements(case.atoms))}",
        "neighbor 0.3 bin",
        "neigh_modify every 1 delay 0 check yes",
        "compute virial all pressure NULL virial",
        "thermo_style custom step atoms pe c_virial[*]",
        "timestep 0.0005",
        *case.after,
        *case.run,
        f'print "$(pe:%.17g) {box} {thermo}" file {place}/out',
        f"write_dump all custom {place}/dump id type x y z fx fy fz proc modify sort id format float %.17g",
    ]


def read(case: Case, place: Path) -> Outcome:
    numbers = np.array((place / "out").read_text().split(), float)
    energy, (lx, ly, lz, xy, xz, yz), pressure = numbers[0], numbers[1:7], numbers[7:]
    table = np.loadtxt(place / "dump", skiprows=9, ndmin=2)
    symbols = runs.elements(case.atoms)
    kinds = [atomic_numbers[symbols[int(kind) - 1]] for kind in table[:, 1]]
    cell = np.array([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]])
    pbc = case.atoms.pbc
    atoms = Atoms(kinds, table[:, 2:5], cell=cell if pbc.any() else None, pbc=pbc)
    stress = -pressure[[0, 1, 2, 5, 4, 3]] / runs.PRESSURE_UNIT["metal"]
    return Outcome(atoms, runs.Result(energy, table[:, 5:8], stress), table[:, 8].astype(int))


def run(
    launch: Launcher,
    cases: dict[str, Case],
    models: dict[str, Path],
    folder: Path,
    n_ranks: int,
    first: Iterable[str] = (),
    **environment: str,
) -> tuple[dict[str, Outcome], str]:
    """The outcomes by name of the case, and what LAMMPS printed."""
    lines = list(first)
    for k, case in enumerate(cases.values()):
        lines += lines_of(case, models[case.model], folder, str(k))
    done = launch("\n".join(lines) + "\n", folder, ranks=n_ranks, **environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {name: read(case, folder / str(k)) for k, (name, case) in enumerate(cases.items())}, done.stdout


def predicted(outcome: Outcome, model: Path) -> runs.Result:
    """What the whole program gives in one process."""
    result = orb_export.load(model).predict(outcome.atoms)
    return runs.Result(result["energy"], result["forces"], result["stress"])


def errors(outcome: Outcome, model: Path) -> dict[str, float]:
    expected, actual = predicted(outcome, model), outcome.result
    found = {
        "energy": abs(actual.energy - expected.energy) / len(outcome.atoms),
        "forces": np.abs(actual.forces - expected.forces).max(),
    }
    if outcome.atoms.pbc.any():  # without a cell Python has no stress
        found["stress"] = np.abs(actual.stress - expected.stress).max()
    return found


def assert_predicted(outcome: Outcome, model: Path, check: str = "LAMMPS on several ranks, float64") -> None:
    bars = {"energy": ENERGY_BAR, "forces": FORCE_BAR, "stress": STRESS_BAR}
    for quantity, error in errors(outcome, model).items():
        assert within(check, quantity, error, bars[quantity])
