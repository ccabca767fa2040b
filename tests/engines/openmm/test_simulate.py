"""`orb-export openmm` as a user runs it. Oracle of restarts: the same run without a stop, byte for byte."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase import Atoms  # noqa: E402
from ase.build import bulk, molecule  # noqa: E402
from orb_export import cli  # noqa: E402
from orb_export.commands import openmm as command  # noqa: E402
from orb_export.openmm import outputs, preflight, simulate  # noqa: E402
from orb_export.openmm.progress import Progress  # noqa: E402
from orb_export.openmm.structures import from_ase  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402

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
    "NVT, CPU": ("crystal", ["--platform", "CPU", "--trajectory", "xtc", "--confidence"], "conservative-120"),
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
    if "--confidence" in options:
        assert (broken / "confidence.csv").read_bytes() == (unbroken / "confidence.csv").read_bytes()
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


@pytest.mark.parametrize("trajectory", ["dcd", "xtc", "pdb"])
def test_a_stop_before_the_first_report_is_no_trouble(trajectory, structures, model, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    options = ["--trajectory", trajectory, "--confidence"]
    run(structures["molecule"], model, unbroken, *options, "--steps", 10)
    for steps in ([0], [3, "--restart"], [10, "--restart"]):
        run(structures["molecule"], model, broken, *options, "--steps", *steps)
    for name in ("log.csv", "confidence.csv"):
        assert (broken / name).read_bytes() == (unbroken / name).read_bytes()
    parts = [(folder / f"trajectory.{trajectory}").read_bytes() for folder in (broken, unbroken)]
    assert len(parts[0]) == len(parts[1]) > 0
    assert final_state(broken) == final_state(unbroken)


def test_a_killed_run_continues_from_its_checkpoint(structures, model, tmp_path):
    """Files are longer than at the checkpoint then: what is beyond it is not written twice."""
    unbroken, killed, kept = tmp_path / "unbroken", tmp_path / "killed", tmp_path / "kept"
    options = ["--checkpoint", HALF]
    run(structures["molecule"], model, killed, *options, "--steps", HALF)
    shutil.copytree(killed, kept)
    run(structures["molecule"], model, killed, *options, "--steps", HALF + 12, "--restart")
    for file in kept.glob("checkpoint*"):
        shutil.copy(file, killed)
    with (killed / "log.csv").open("a") as stream:
        stream.write("35,0.01")  # half a line
    run(structures["molecule"], model, killed, *options, "--steps", STEPS, "--restart")
    run(structures["molecule"], model, unbroken, *options, "--steps", STEPS)
    assert (killed / "log.csv").read_bytes() == (unbroken / "log.csv").read_bytes()
    assert (killed / "trajectory.dcd").read_bytes()[276:] == (unbroken / "trajectory.dcd").read_bytes()[276:]
    assert final_state(killed) == final_state(unbroken)
    frames = ase.io.read(killed / "final.pdb")
    assert len(frames) == len(CASES["molecule"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_run_leaves_a_checkpoint_and_whole_files(number, structures, model, tmp_path):
    folder = tmp_path / "run"
    options = ["--platform", "Reference", "--steps", 10**9]
    command_line = [sys.executable, "-m", "orb_export.cli"]
    process = subprocess.Popen(
        [*command_line, *arguments(structures["molecule"], model, folder, *options)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    log = folder / "log.csv"
    while process.poll() is None and not (log.is_file() and len(log.read_text().splitlines()) > 3):
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 130, said
    step = json.loads((folder / "checkpoint.json").read_text())["step"]
    assert f"interrupted, {folder}: step {step} of 1000000000" in said
    rows = log.read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(5, step + 1, 5))
    more = [*options[:2], "--steps", step + 10, "--restart"]
    run(structures["molecule"], model, folder, *more)
    assert len(log.read_text().splitlines()) == 1 + (step + 10) // 5


MISMATCHES = {
    "settings": (["--timestep", "0.25"], "`timestep` is 0.5 there but 0.25 here"),
    "several": (["--seed", "6", "--npt"], "`pressure` is None there but 1.0 here; `seed` is 5 there but 6"),
    "preparation": (["--no-box"], "`no_box` is False there but True here"),
    "steps": (["--steps", "3"], "`--steps` is 3 but the run in .* is at step 5 already"),
}


@pytest.fixture(scope="module")
def short(structures, models, tmp_path_factory) -> Path:
    """A run of five steps."""
    folder = tmp_path_factory.mktemp("short") / "run"
    run(structures["crystal"], models["conservative-120"], folder, "--steps", 5)
    return folder


def refused(capsys, *command_line: str) -> str:
    assert cli.main(list(command_line)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("orb-export: error: ")
    return error


def refused_with_all(capsys, *command_line: str) -> list[str]:
    assert cli.main(list(command_line)) == 1
    return capsys.readouterr().err.splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("case", MISMATCHES)
def test_another_run_is_not_continued(case, structures, model, short, capsys):
    options, message = MISMATCHES[case]
    before = contents(short)
    line = arguments(structures["crystal"], model, short, "--steps", 10, *options, "--restart")
    assert re.search(message, refused(capsys, *line))
    assert contents(short) == before


def test_another_model_or_structure_is_not_continued(structures, models, model, short, capsys):
    other = arguments(structures["crystal"], models["conservative-20"], short, "--restart")
    assert re.search("`artefact` has SHA-256 .* there but .* here", refused(capsys, *other))
    other = arguments(structures["water"], model, short, "--restart")
    assert re.search("`structure` has SHA-256 .* there but .* here", refused(capsys, *other))


def test_a_moved_model_continues(structures, model, short, tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved.pt"
    shutil.copytree(short, folder)
    shutil.copy(model, moved)
    run(structures["crystal"], moved, folder, "--steps", 10, "--restart")


DAMAGES = {
    "no checkpoint": (lambda folder: (folder / "checkpoint.json").unlink(), "has no checkpoint"),
    "no state": (lambda folder: next(folder.glob("*.chk")).unlink(), "checkpoint.json` cannot be read"),
    "changed state": (
        lambda folder: next(folder.glob("*.chk")).write_bytes(b"x"),
        "checkpoint-5.chk` is damaged",
    ),
    "half a record": (
        lambda folder: (folder / "checkpoint.json").write_text('{"step": 5'),
        "checkpoint.json` cannot be read: JSONDecodeError",
    ),
    "shorter log": (
        lambda folder: (folder / "log.csv").write_text("#"),
        "log.csv` has 1 bytes but had [0-9]+ at the checkpoint",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_run_is_not_continued(case, structures, model, short, tmp_path, capsys):
    damage, message = DAMAGES[case]
    folder = tmp_path / "run"
    shutil.copytree(short, folder)
    damage(folder)
    line = arguments(structures["crystal"], model, folder, "--steps", 10, "--restart")
    assert re.search(message, refused(capsys, *line))


def test_nothing_is_overwritten_unasked(structures, model, short, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(short, folder)
    before = contents(folder)
    line = arguments(structures["crystal"], model, folder, "--steps", 2)
    assert "holds a run already: --restart continues it, --overwrite replaces it" in refused(capsys, *line)
    assert contents(folder) == before
    failing = arguments(structures["crystal"], model, folder, "--overwrite", "--platform", "Abacus")
    assert "Abacus" in refused(capsys, *failing)
    assert contents(folder) == before
    (folder / "notes.txt").write_text("mine")
    run(structures["crystal"], model, folder, "--steps", 2, "--overwrite", "--trajectory", "none")
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "trajectory.dcd").exists()
    assert not (folder / "checkpoint-5.chk").exists()


def test_a_run_that_blows_up_says_where_and_keeps_its_checkpoint(structures, model, tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--nve", "--timestep", 1e200, "--steps", 50, "--checkpoint", 1]
    message = refused(capsys, *arguments(structures["crystal"], model, folder, *options))
    found = re.search(
        "simulate: the run stopped after step ([0-9]+): OrbV3Force: .*; its last checkpoint", message
    )
    assert found, message
    assert json.loads((folder / "checkpoint.json").read_text())["step"] >= int(found[1])


def test_options_reach_the_system(structures, models, tmp_path, capsys):
    """Each option of the physics, against what is then in system.xml and the integrator's results."""
    folder = tmp_path / "run"
    options = ["--npt", "--pressure", 7, "--barostat", "anisotropic", "--steps", 1, "--limit-memory", 0.5]
    run(structures["water"], models["conservative-20"], folder, *options)
    system = openmm.XmlSerializer.deserialize((folder / outputs.SYSTEM).read_text())
    forces = {force.getName(): force for force in system.getForces()}
    barostat = forces["MonteCarloAnisotropicBarostat"]
    assert barostat.getDefaultPressure()[0]._value == pytest.approx(7)
    assert barostat.getDefaultTemperature()._value == 500
    assert barostat.getRandomNumberSeed() == 6
    assert forces["MoleculesWithoutForce"].getNumBonds() == 16  # 8 molecules, also those cut by the box
    assert system.getNumConstraints() == 0
    assert 'memoryLimit="500000000"' in (folder / outputs.SYSTEM).read_text()
    charged = tmp_path / "charged"
    run(structures["molecule"], models["charged"], charged, "--charge", -1, "--spin", 2, "--steps", 1)
    assert 'charge="-1"' in (charged / outputs.SYSTEM).read_text()
    assert 'spin="2"' in (charged / outputs.SYSTEM).read_text()


@pytest.mark.parametrize(
    "options",
    [
        ["--temperature", 50],
        ["--friction", 20],
        ["--timestep", 0.25],
        ["--seed", 6],
        ["--minimize", 3],
        ["--nve"],
        ["--no-box"],
    ],
    ids=lambda options: options[0],
)
def test_options_change_the_dynamics(options, structures, model, short, tmp_path):
    run(structures["crystal"], model, tmp_path / "run", "--steps", 5, *options)
    assert final_state(tmp_path / "run") != final_state(short)


def test_a_deposited_protein_is_fixed_and_solvated(model, shared, tmp_path, capsys):
    pytest.importorskip("pdbfixer", reason="needs pdbfixer")
    whole = (shared / "data/proteins/solvated/chignolin.pdb").read_text().splitlines()
    bare = tmp_path / "bare.pdb"
    bare.write_text("\n".join(line for line in whole if line.startswith("ATOM") and line[77] != "H"))
    line = arguments(bare, model, tmp_path / "run", "--check-only")
    assert "hydrogens are missing in 10 residues" in "".join(refused_with_all(capsys, *line))
    salted = [*line, "--fix", "--solvate", "--padding", "0.6", "--ionic-strength", "0.3"]
    assert cli.main(salted) == 0
    said = capsys.readouterr()
    assert "error" not in said.err
    assert "contacts" not in said.err
    assert int(re.search("([0-9]+) atoms, nothing that forbids", said.out)[1]) > 1000


def test_velocities_and_charge_of_the_structure_are_taken(models, tmp_path):
    atoms = molecule("H2O")
    atoms.info.update(charge=1, spin=2)
    atoms.set_velocities([[0, 0, 0.01], [0, 0, 0], [0, 0, 0]])  # ase: angstrom / (angstrom sqrt(u/eV))
    ase.io.write(tmp_path / "ion.xyz", atoms, format="extxyz")
    structure = from_ase(ase.io.read(tmp_path / "ion.xyz"))
    assert (structure.charge, structure.spin) == (1, 2)
    # kinetic energy does not depend on units of length and time
    joined = 0.5 * atoms.get_masses() @ (structure.velocities**2).sum(axis=1)  # u nm^2/ps^2 = kJ/mol
    assert joined == pytest.approx(atoms.get_kinetic_energy() * systems.KJ_PER_MOL, rel=1e-6)
    run(tmp_path / "ion.xyz", models["charged"], tmp_path / "run", "--nve", "--steps", 1)
    assert 'charge="1"' in (tmp_path / "run" / outputs.SYSTEM).read_text()


def test_choices_of_the_command_are_those_of_the_settings():
    parser = cli.build_parser()
    shown = parser.parse_args(["openmm", "a.xyz", "--model", "m.pt", "-o", "run"])
    command._complete(shown)
    made = command._settings(shown)
    assert made == simulate.Settings()
    for name in simulate.BAROSTATS:
        assert (
            parser.parse_args(["openmm", "a", "--model", "m", "-o", "r", "--barostat", name]).barostat == name
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "0"], "`temperature` is 0.0 but must be positive"),
        (["--timestep", "nan"], "`timestep` is nan but must be positive"),
        (["--friction", "-1"], "`friction` is -1.0 but must not be negative"),
        (["--seed", "0"], "`seed` is 0 but must be at least 1"),
        (["--report-interval", "0"], "`report_interval` is 0 but must be at least 1"),
        (["--steps", "-1"], "`--steps` is -1 but must not be negative"),
        (["--nve", "--npt"], "`pressure` needs a thermostat: `friction` is 0"),
        (["--npt"], "`pressure` needs a structure that is periodic along all three axes"),
        (["--restart", "--overwrite"], "give --restart or --overwrite, not both"),
        (["--restart", "--check-only"], "--check-only is for new runs"),
        (["--ignore", "everything"], "--ignore everything is none of the checks elements, hydrogens"),
        (["--pressure", "1"], "--pressure needs --npt"),
        (["--barostat", "stochastic"], "--barostat needs --npt"),
        (["--ionic-strength", "0.1"], "--ionic-strength needs --solvate"),
        (["--ph", "7"], "--ph needs --fix"),
        (["--fix"], "--fix needs residues: a PDB or mmCIF file"),
        (["--solvate"], "`charge` is missing: MOL is unknown to the force field"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_misuse_is_refused(options, message, structures, model, tmp_path, capsys):
    folder = tmp_path / "run"
    assert message in refused(capsys, *arguments(structures["molecule"], model, folder, *options))
    assert not folder.exists()


def test_progress_on_a_terminal_is_a_bar_and_elsewhere_lines(monkeypatch):
    plain, terminal = io.StringIO(), io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    for stream in (plain, terminal):
        progress = Progress(100, 300, 0.5, stream)
        for step in (150, 200, 300):
            progress.show(step)
        progress.close()
    assert re.fullmatch(r"(step (150|200|300)/300, \S+ ns/day, \d:\d\d:\d\d left\n){3}", plain.getvalue()), (
        plain.getvalue()
    )
    assert "300/300 steps" in terminal.getvalue()
    assert "ns/day" in terminal.getvalue()


def test_the_documentation_has_every_option_and_check():
    text = (Path(__file__).resolve().parents[3] / "docs/openmm_command.md").read_text()
    (commands,) = (
        action for action in cli.build_parser()._actions if hasattr(action, "choices") and action.choices
    )
    options = {name for action in commands.choices["openmm"]._actions for name in action.option_strings}
    missing = [name for name in options - {"-h", "--help", "--output"} if name not in text]
    assert not missing
    assert not [check for check in preflight.CHECKS if f"`{check}`" not in text]
