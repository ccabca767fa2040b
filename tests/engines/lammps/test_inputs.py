"""`orb-export lammps` and `write_input`: what they write runs in stock LAMMPS and gives Python's energy."""

import re

import numpy as np
import orb_export
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.io import read, write
from ase.units import kB
from orb_export import cli
from orb_export.lammps import write_input
from orb_export.lammps.inputs import boxed_for_lammps

from tests.engines.lammps import runs
from tests.engines.lammps.structures import CASES


def first_energy(path, monkeypatch) -> float:
    """Potential energy of the structure that an input starts from."""
    monkeypatch.chdir(path.parent)
    with runs.session() as lmp:
        lmp.commands_string(re.sub(r"^run .*$", "run 0", path.read_text(), flags=re.MULTILINE))
        return lmp.get_thermo("pe")


def moving_crystal() -> Atoms:
    atoms = CASES["crystal"].copy()
    widths = np.sqrt(atoms.get_masses() * kB * 500)  # 500 K
    atoms.set_momenta(np.random.default_rng(4).normal(size=(len(atoms), 3)) * widths[:, None])
    return atoms


@pytest.mark.parametrize("case", CASES)
def test_input_holds_the_structure(case, model, tmp_path, monkeypatch):
    atoms = CASES[case]
    energy = first_energy(write_input(atoms, model, tmp_path, steps=3), monkeypatch)
    expected = orb_export.load(model).predict(runs.turned(atoms))["energy"]
    assert abs(energy - expected) / len(atoms) < runs.ENERGY_BAR


@pytest.mark.parametrize("units", ["metal", "real"])
@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_every_ensemble_runs_in_stock_lammps(ensemble, units, model, stock_lmp, tmp_path):
    path = write_input(
        CASES["crystal"], model, tmp_path, ensemble=ensemble, units=units, steps=5, timestep=0.5
    )
    done = stock_lmp(path.read_text(), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout
    assert (tmp_path / "final.data").is_file()
    frames = read(tmp_path / "trajectory.lammpstrj", index=":", format="lammps-dump-text")
    assert len(frames) == 6


def test_units_real_run_the_same_trajectory(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = moving_crystal()
    positions = []
    for units in ("metal", "real"):
        with runs.session() as lmp:
            lmp.file(str(write_input(atoms, model, tmp_path, units=units, steps=40)))
            positions.append(runs.gathered(lmp, "x", 3))
    moved = np.abs(positions[0] - atoms.positions).max()
    assert moved > 0.05
    # LAMMPS's constants of the two unit systems agree to six digits
    np.testing.assert_allclose(positions[0], positions[1], rtol=0, atol=2e-5 * moved)


def test_velocities_of_the_structure_are_taken_over(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = moving_crystal()
    path = write_input(atoms, model, tmp_path, steps=0)
    assert "velocity" not in path.read_text()
    with runs.session() as lmp:
        lmp.file(str(path))
        np.testing.assert_allclose(lmp.get_thermo("ke"), atoms.get_kinetic_energy(), rtol=1e-5)


def test_options_reach_the_input(model, tmp_path):
    path = write_input(
        CASES["crystal"],
        model,
        tmp_path,
        ensemble="npt",
        temperature=450,
        pressure=1000,
        timestep=0.25,
        steps=7000,
        seed=99,
        units="real",
    )
    text = path.read_text()
    assert "velocity        all create 450 99 mom yes dist gaussian" in text
    assert "fix             md all npt temp 450 450 25 aniso 986.923 986.923 250" in text
    assert re.search(r"timestep +0.25\n", text)
    assert re.search(r"run +7000\n", text)
    assert re.search(r"thermo +70\n", text)


def test_charge_and_spin_come_from_the_structure_or_the_caller(models, tmp_path):
    atoms = molecule("H2O")
    with pytest.raises(ValueError, match=r"`charge` is missing, but random-conservative-120 depends on it"):
        write_input(atoms, models["charged"], tmp_path)
    atoms.info = {"charge": 1, "spin": 2}
    assert "orbv3 charge 1 spin 2\n" in write_input(atoms, models["charged"], tmp_path).read_text()
    path = write_input(atoms, models["charged"], tmp_path, charge=-1)
    assert "orbv3 charge -1 spin 2\n" in path.read_text()
    # other models do not care what the file says of it
    assert re.search(r"orbv3\n", write_input(atoms, models["direct-20"], tmp_path).read_text())


@pytest.mark.parametrize("pbc", list(np.ndindex(2, 2, 2)))
def test_boxes_enclose_atoms_and_keep_periodic_vectors(pbc):
    rng = np.random.default_rng(5)
    for _ in range(20):
        atoms = Atoms(
            "H9", rng.normal(scale=5, size=(9, 3)), cell=rng.normal(size=(3, 3)) + 3 * np.eye(3), pbc=pbc
        )
        boxed = boxed_for_lammps(atoms)
        cell = boxed.cell.array
        assert np.linalg.det(cell) > 0
        kept = {tuple(v) for v in atoms.cell.array[atoms.pbc]}
        assert {tuple(v) for v in cell[boxed.pbc]} == kept
        np.testing.assert_allclose(boxed.get_all_distances(), atoms.get_all_distances(), atol=1e-12)
        fractions = np.linalg.solve(cell.T, boxed.positions.T).T
        for axis in np.flatnonzero(~boxed.pbc):
            others = np.delete(cell, axis, axis=0)
            np.testing.assert_allclose(others @ cell[axis], 0, atol=1e-9)
            assert (fractions[:, axis] > 0).all()
            assert (fractions[:, axis] < 1).all()


def test_molecules_are_not_turned():
    atoms = molecule("CH3CH2OH")
    turned = runs.turned(atoms)
    shift = turned.positions - atoms.positions
    np.testing.assert_allclose(shift - shift[0], 0, atol=1e-14)


def bad(**options):
    return {"atoms": CASES["crystal"], "options": options}


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (bad(units="si"), "`units` is 'si' but must be metal or real"),
        (bad(ensemble="nph"), "`ensemble` is 'nph' but must be nve, nvt or npt"),
        (bad(temperature=0.0), "`temperature` is 0.0 but must be positive"),
        (bad(timestep=-1.0), "`timestep` is -1.0 but must be positive"),
        (bad(timestep=float("nan")), "`timestep` is nan but must be positive"),
        (bad(steps=-1), "`steps` is -1 but must not be negative"),
        (bad(charge=1.0), "`charge` is given, but random-conservative-120 does not depend on it"),
        ({"atoms": CASES["molecule"], "options": {"ensemble": "npt"}}, "not periodic in all axes"),
        ({"atoms": Atoms(), "options": {}}, "`atoms` has no atoms"),
        ({"atoms": Atoms("Og"), "options": {}}, r"`atoms` has atomic numbers \[118\], unknown to random-"),
        ({"atoms": Atoms("H", pbc=True), "options": {}}, "lattice vectors that are zero or dependent"),
        ({"atoms": Atoms("H", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True), "options": {}}, "dependent"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_bad_arguments_are_refused(case, text, model, tmp_path):
    with pytest.raises(ValueError, match=text):
        write_input(case["atoms"], model, tmp_path, **case["options"])


def test_a_model_that_is_none_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.pt2"):
        write_input(CASES["crystal"], tmp_path / "missing.pt2", tmp_path)


def test_command_line(model, tmp_path, monkeypatch, capsys):
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    atoms.rattle(0.05, seed=2)
    atoms.info.clear()
    write(tmp_path / "slab.xyz", [bulk("Cu"), atoms])
    output = tmp_path / "new" / "run"
    arguments = [
        "lammps",
        str(tmp_path / "slab.xyz"),
        "--model",
        str(model),
        "-o",
        str(output),
        "--steps",
        "20",
    ]
    assert cli.main([*arguments, "--ensemble", "nvt", "--temperature", "77"]) == 0
    assert f"{output / 'in.lammps'}: 12 atoms, nvt, 20 steps" in capsys.readouterr().out
    assert "nvt temp 77 77 0.1" in (output / "in.lammps").read_text()
    expected = orb_export.load(model).predict(runs.turned(atoms))["energy"]
    assert (
        abs(first_energy(output / "in.lammps", monkeypatch) - expected) / 12 < 1e-6
    )  # 8 decimals in the file


def test_command_line_reports_what_is_wrong(model, tmp_path, capsys):
    write(tmp_path / "h.xyz", Atoms("H"))
    arguments = ["lammps", str(tmp_path / "h.xyz"), "--model", str(model), "-o", str(tmp_path)]
    assert cli.main([*arguments, "--timestep", "0"]) == 1
    assert "orb-export: error: write_input: `timestep` is 0.0 but must be positive" in capsys.readouterr().err
