"""Reader of the YAML files by which LAMMPS tests its own pair styles, and the runs that they describe.

The schema is that of LAMMPS's `unittest/force-styles`; the files in `yaml` are ours. To write their reference
values anew, after a change that means to change them:

    python -m tests.engines.lammps.yaml_cases MODEL tests/engines/lammps/yaml/*.yaml
"""

import argparse
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.engines.lammps import runs

MODEL = "demo.pt"  # as the files call it


@dataclass
class State:
    """What a file stores of one step: the pair style's energies, virial and forces in units of the file."""

    vdwl: float
    coul: float
    stress: np.ndarray  # (6,) virial xx yy zz xy xz yz, energy units
    forces: np.ndarray  # (N, 3) by ID


@dataclass
class Case:
    """One file. Blocks of text are lists of lines."""

    lammps_version: str
    date_generated: str
    epsilon: float
    prerequisites: list[str]
    pre_commands: list[str]
    post_commands: list[str]
    input_file: str
    pair_style: str
    pair_coeff: list[str]
    extract: list[str]  # "name dimension"
    natoms: int
    init: State | None = None
    run: State | None = None
    tags: list[str] = field(default_factory=list)
    skip_tests: list[str] = field(default_factory=list)


_STATES = ("init", "run")
_BLOCKS = ("prerequisites", "pre_commands", "post_commands", "pair_coeff", "extract")


def load(file: Path) -> Case:
    """Read a file; a key that is not of the schema is an error, since it would be ignored."""
    entries: dict[str, Any] = yaml.safe_load(file.read_text())
    states = {prefix: _pop_state(entries, prefix) for prefix in _STATES}
    for name in _BLOCKS:
        entries[name] = str(entries[name] or "").strip().splitlines()
    for name in ("tags", "skip_tests"):
        entries[name] = str(entries.get(name, "")).replace(",", " ").split()
    known = {entry.name for entry in fields(Case)}
    if unknown := set(entries) - known:
        raise ValueError(f"{file.name}: {sorted(unknown)} are no keys of a pair style's test")
    entries["pair_style"], entries["epsilon"] = str(entries["pair_style"]), float(entries["epsilon"])
    return Case(**entries, **states)


def _pop_state(entries: dict[str, Any], prefix: str) -> State | None:
    if f"{prefix}_forces" not in entries:
        return None
    rows = np.array([line.split() for line in entries.pop(f"{prefix}_forces").strip().splitlines()], float)
    assert rows[:, 0].tolist() == list(range(1, len(rows) + 1)), "forces are in the order of the IDs"
    stress = np.array(str(entries.pop(f"{prefix}_stress")).split(), float)
    return State(entries.pop(f"{prefix}_vdwl"), entries.pop(f"{prefix}_coul"), stress, rows[:, 1:])


@contextlib.contextmanager
def folder_of(file: Path) -> Iterator[None]:
    """Input and data files are named relative to the YAML file."""
    with contextlib.chdir(file.parent):
        yield


def start(lmp: Any, case: Case, model: Path, *, newton: bool = True, **variables: Path) -> None:
    """Everything up to the first forces; `variables` replace those of the input file."""
    for line in case.prerequisites:
        category, style = line.split()
        if not lmp.has_style(category, style):
            raise ValueError(f"this LAMMPS has no {category} style {style}")
    lmp.command(f"variable newton_pair index {'on' if newton else 'off'}")
    for name, value in variables.items():
        lmp.command(f"variable {name} index {value}")
    lmp.commands_list(case.pre_commands)
    lmp.file(case.input_file)
    lmp.command(f"pair_style {case.pair_style}")
    coefficients(lmp, case, model)
    lmp.command("run 0 post no")


def coefficients(lmp: Any, case: Case, model: Path) -> None:
    for line in case.pair_coeff:
        lmp.command("pair_coeff " + line.replace(MODEL, str(model)))
    lmp.commands_list(case.post_commands)


def measure(lmp: Any) -> State:
    """The state of the last step, without kinetic parts."""
    units = lmp.extract_global("units")
    lmp.command("compute virial all pressure NULL pair")
    lmp.command("thermo_style custom step evdwl ecoul c_virial[*]")
    lmp.command("run 0 post no")
    pressure = lmp.numpy.extract_compute("virial", 0, 1)
    stress = pressure * lmp.get_thermo("vol") / runs.PRESSURE_UNIT[units]
    state = State(lmp.get_thermo("evdwl"), lmp.get_thermo("ecoul"), stress, runs.gathered(lmp, "f", 3))
    lmp.commands_list(["thermo_style one", "uncompute virial"])
    return state


def four_steps(lmp: Any) -> None:
    lmp.commands_list(["fix md all nve", "run 4 post no", "unfix md"])


def assert_equal(actual: State, expected: State, epsilon: float) -> None:
    """Each number to `epsilon` times 1 + |x|: the energies are sums of many parts that cancel."""
    for name in ("vdwl", "coul", "stress", "forces"):
        x, y = np.asarray(getattr(actual, name)), np.asarray(getattr(expected, name))
        assert x.shape == y.shape, name
        error = np.abs(x - y) / (1 + np.abs(y))
        assert error.max() <= epsilon, f"{name}: {error.max():.2g} instead of {epsilon:.2g}"


def _write(file: Path, case: Case, model: Path) -> None:
    with runs.session() as lmp, folder_of(file):
        start(lmp, case, model)
        states = {"init": measure(lmp)}
        four_steps(lmp)
        states["run"] = measure(lmp)
        natoms, version = lmp.get_natoms(), lmp.version()

    def block(name: str, lines: list[str]) -> list[str]:
        return [f"{name}: ! |", *(f"  {line}" for line in lines)] if lines else [f'{name}: ! ""']

    lines = ["---", f"lammps_version: {version}"]
    lines += [f"date_generated: {datetime.now(UTC):%d %b %Y}", f"epsilon: {case.epsilon:g}"]
    if case.skip_tests:
        lines.append(f"skip_tests: {' '.join(case.skip_tests)}")
    for name in ("prerequisites", "pre_commands", "post_commands"):
        lines += block(name, getattr(case, name))
    lines += [f"input_file: {case.input_file}", f"pair_style: {case.pair_style}"]
    lines += [*block("pair_coeff", case.pair_coeff), *block("extract", case.extract), f"natoms: {natoms}"]
    for prefix, state in states.items():
        lines += [f"{prefix}_vdwl: {state.vdwl:.15g}", f"{prefix}_coul: {state.coul:.15g}"]
        lines += block(f"{prefix}_stress", [" ".join(f"{x:.16e}" for x in state.stress)])
        numbered = enumerate(state.forces, start=1)
        lines += block(f"{prefix}_forces", [f"{k} {x:.16e} {y:.16e} {z:.16e}" for k, (x, y, z) in numbered])
    file.write_text("\n".join([*lines, "...", ""]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference values of YAML files anew.")
    parser.add_argument("model", type=Path, help="the demonstration model in float64")
    parser.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for path in arguments.files:
        _write(path.resolve(), load(path), arguments.model.resolve())
