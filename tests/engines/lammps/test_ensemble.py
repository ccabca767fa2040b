"""Deviation of several models: the table that DP-GEN reads, against numpy on the results of Python.

Definition and columns: DeePMD-kit's documentation, "Calculate model deviation".
"""

import re

import numpy as np
import orb_export
import pytest
from ase import Atoms

from tests.engines.lammps import runs
from tests.engines.lammps.structures import CASES

ATOMS = CASES["triclinic with large tilt"]
NAMES = ["conservative-120", "conservative-20", "direct-120"]


def deviations(atoms: Atoms, models) -> list[float]:
    """Largest, smallest, average: of the virial per atom (eV), of the forces (eV/A)."""
    results = [orb_export.load(models[name]).predict(atoms) for name in NAMES]
    forces = np.linalg.norm(np.std([r["forces"] for r in results], axis=0), axis=1)
    voigt = atoms.get_volume() / len(atoms) * np.std([r["stress"] for r in results], axis=0)
    virial = voigt[[0, 1, 2, 3, 3, 4, 4, 5, 5]]
    rms = np.sqrt((virial**2).mean())
    return [virial.max(), virial.min(), rms, forces.max(), forces.min(), forces.mean()]


def keywords(models, file, every=1) -> str:
    return f"deviation {every} {file} 2 {models[NAMES[1]]} {models[NAMES[2]]}"


def start(lmp, models, folder, every=1, units="metal"):
    lmp.commands_list(runs.setup(ATOMS, folder, units=units, before=["atom_modify map yes"]))
    lmp.commands_list(runs.pair(models[NAMES[0]], ATOMS, keywords(models, folder / "devi.out", every)))


@pytest.mark.parametrize("units", ["metal", "real"])
def test_columns_are_standard_deviations_over_the_models(units, models, tmp_path):
    with runs.session() as lmp:
        start(lmp, models, tmp_path, units=units)
        lmp.command("run 0")
    table = np.atleast_2d(np.loadtxt(tmp_path / "devi.out"))
    expected = deviations(runs.turned(ATOMS), models)
    assert min(expected) > 1e-4
    np.testing.assert_allclose(table, [[0, *expected]], rtol=1e-6)  # as printed
    header = (tmp_path / "devi.out").read_text().splitlines()[0]
    quantities = [f"{kind}_devi_{what}" for what in "vf" for kind in ("max", "min", "avg")]
    assert re.sub("^#", "", header).split() == ["step", *quantities]


def test_forces_are_those_of_the_first_model_alone(models, tmp_path):
    commands = ["velocity all create 300 5", "fix md all nve", "timestep 0.0005", "run 7"]
    positions = []
    for keyword in ("", keywords(models, tmp_path / "devi.out", every=3)):
        with runs.session() as lmp:
            lmp.commands_list(runs.setup(ATOMS, tmp_path, before=["atom_modify map yes"]))
            lmp.commands_list([*runs.pair(models[NAMES[0]], ATOMS, keyword), *commands])
            positions.append(runs.gathered(lmp, "x", 3))
    np.testing.assert_array_equal(*positions)
    assert np.loadtxt(tmp_path / "devi.out")[:, 0].tolist() == [0, 3, 6]


def test_a_step_has_one_line(models, tmp_path):
    with runs.session() as lmp:
        start(lmp, models, tmp_path, every=2)
        lmp.commands_list(["fix md all nve", "run 2", "run 3", "run 1"])
    assert np.loadtxt(tmp_path / "devi.out")[:, 0].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("0 devi.out 1 model.pt", "deviation interval is 0 but must be positive"),
        ("1 devi.out 0 model.pt", "deviation number of models is 0 but must be positive"),
        ("1 devi.out 2 model.pt", "Illegal pair_style orbv3 deviation command: missing argument"),
        ("1 devi.out", "Illegal pair_style orbv3 deviation command: missing argument"),
    ],
)
def test_wrong_words_are_refused(words, message, tmp_path):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(ATOMS, tmp_path))
        with pytest.raises(Exception, match=re.escape(message)):
            lmp.command(f"pair_style orbv3 deviation {words}")


def test_models_that_are_not_there_or_do_not_fit_are_refused(models, model, tmp_path):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(ATOMS, tmp_path))
        with pytest.raises(Exception, match=r"cannot open model file none\.pt"):
            lmp.commands_list(runs.pair(model, ATOMS, "deviation 1 devi.out 1 none.pt"))
        with pytest.raises(Exception, match="depends on the total charge"):
            lmp.commands_list(runs.pair(model, ATOMS, f"deviation 1 devi.out 1 {models['charged']}"))


def test_a_table_that_cannot_be_written(models, tmp_path):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(ATOMS, tmp_path))
        lmp.commands_list(runs.pair(models[NAMES[0]], ATOMS, keywords(models, tmp_path / "none/devi.out")))
        with pytest.raises(Exception, match=r"cannot write .*devi.out: No such file"):
            lmp.command("run 0")
