"""`orb-export openmm` as a user runs it. Oracle of restarts: the same run without a stop, byte for byte."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase import Atoms  # noqa: E402
from ase.build import bulk, molecule  # noqa: E402
from orb_export import cli  # noqa: E402
from orb_export.openmm import simulate  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402

STEPS, HALF = 40, 20


@pytest.fixture(scope="module")
def structures(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("structures")
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    crystal.rattle(0.05, seed=3)
    water = Atoms()
    for place in np.ndindex(2, 2, 2):
        one = molecule("H2O")
        one.positions += 3.1 * np.array(place)
        water += one
    water.set_cell(6.2 * np.eye(3))
    water.pbc = True
    water.wrap()  # cuts molecules
    made = {"crystal": crystal, "water": water, "molecule": CASES["molecule"]}
    for name, atoms in made.items():
        ase.io.write(folder / f"{name}.xyz", atoms, format="extxyz")
    return {name: folder / f"{name}.xyz" for name in made}


def arguments(structure: Path, model: Path, folder: Path, *options: object) -> list[str]:
    fixed = ["--report-interval", 5, "--temperature", 500, "--seed", 5, "--threads", 1]
    return ["openmm", *map(str, (structure, "--model", model, "-o", folder, *fixed, *options))]


def final_state(folder: Path) -> bytes:
    """Positions, velocities, box and random streams: the checkpoint."""
    record = json.loads((folder / "checkpoint.json").read_text())
    return (folder / record["state"]["file"]).read_bytes()


def run(structure: Path, model: Path, folder: Path, *options: object) -> None:
    assert cli.main(arguments(structure, model, folder, *options)) == 0


RUNS = {
    "NVT, Reference": ("molecule", ["--platform", "Reference"], "conservative-120"),
    "NVT, CPU": ("crystal", ["--platform", "CPU", "--trajectory", "xtc"], "conservative-120"),
    "NVE, direct": ("crystal", ["--nve", "--platform", "Reference", "--trajectory", "pdb"], "direct-20"),
    "Monte Carlo barostat, CPU": ("water", ["--npt", "--platform", "CPU"], "conservative-120"),
    "Monte Carlo barostat, Reference": ("water", ["--npt", "--platform", "Reference"], "conservative-120"),
    "flexible barostat": (
        "crystal",
        ["--npt", "--barostat", "flexible", "--platform", "Reference"],
        "conservative-120",
    ),
    "stochastic barostat": (
        "crystal",
        ["--npt", "--barostat", "stochastic", "--compressibility", 1e-6, "--platform", "CPU"],
        "conservative-120",
    ),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_restart_leaves_the_same_bytes_as_no_stop(case, structures, models, tmp_path, monkeypatch):
    # so that Monte Carlo barostats act within the run, and count across its stop
    monkeypatch.setattr(simulate, "_MONTE_CARLO_INTERVAL", 3)
    name, options, model = RUNS[case]
    structure, options = structures[name], [*options, "--checkpoint", HALF]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    run(structure, models[model], unbroken, *options, "--steps", STEPS)
    run(structure, models[model], broken, *options, "--steps", HALF)
    middle = final_state(broken)
    run(structure, models[model], broken, *options, "--steps", STEPS, "--restart")
    assert final_state(broken) == final_state(unbroken) != middle
    assert (broken / "log.csv").read_bytes() == (unbroken / "log.csv").read_bytes()
    assert len((broken / "log.csv").read_text().splitlines()) == 1 + STEPS // 5
    trajectory = next(unbroken.glob("trajectory.*")).name
    head = 276 if trajectory.endswith("dcd") else 100 if trajectory.endswith("pdb") else 0  # has the date
    parts = [(folder / trajectory).read_bytes() for folder in (broken, unbroken)]
    assert len(parts[0]) == len(parts[1])
    assert parts[0][head:] == parts[1][head:]
    assert parts[0][:24] == parts[1][:24]  # counts of frames
    assert (broken / "final.pdb").read_bytes().split(b"\n", 1)[1] == (
        (unbroken / "final.pdb").read_bytes().split(b"\n", 1)[1]
    )
    if "--npt" in options:
        volumes = np.genfromtxt(unbroken / "log.csv", delimiter=",", skip_header=1)[:, 6]
        assert len(set(volumes)) > 2
