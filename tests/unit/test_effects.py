"""Frequencies and dynamics in an artefact's record. Oracles: phonopy; conservation of energy of ASE's EMT."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from orb_export import artefact, cli
from orb_export.commands.info import _effect
from orb_export.export import effects, export_model

from tests.accuracy import within
from tests.artefacts import tiny_model

COPPER = bulk("Cu", "fcc", a=3.61)


def test_frequencies_are_phonopys():
    phonopy = pytest.importorskip("phonopy")
    cell = phonopy.structure.atoms.PhonopyAtoms(
        symbols=["Cu"], cell=COPPER.cell.array, scaled_positions=[[0, 0, 0]]
    )
    peer = phonopy.Phonopy(cell, np.diag([2, 2, 2]))
    peer.generate_displacements(distance=0.02, is_plusminus=True)
    forces = []
    for displaced in peer.supercells_with_displacements:
        atoms = Atoms(displaced.symbols, cell=displaced.cell, positions=displaced.positions, pbc=True)
        atoms.calc = EMT()
        forces.append(atoms.get_forces())
    peer.forces = forces
    peer.produce_force_constants()
    peer.run_qpoints(np.stack(np.meshgrid(*[[0, 0.5]] * 3, indexing="ij"), axis=-1).reshape(-1, 3))
    expected = peer.qpoints.frequencies
    found = effects.frequencies(COPPER, EMT())
    assert len(found) == 21  # of eight wave vectors, less the translations
    error = np.abs(np.sort(found) - np.sort(expected[1:].ravel())).max()
    assert within("frequencies beside phonopy's, copper in EMT", "THz", error, 0.01)
    assert expected.max() > 5


def test_small_crystals_are_suitable_as_far_as_the_effort_allows():
    water, large, middle = molecule("H2O"), COPPER * (5, 5, 5), COPPER * (4, 4, 3)
    chosen = effects.suitable([water, COPPER, large, middle, COPPER * (4, 4, 4), COPPER])
    assert [len(atoms) for atoms in chosen] == [1, 48, 1]


def test_dynamics_follow_the_stiffest_stable_crystal():
    soft, stiff, unstable = np.array([1.0, 2.0]), np.array([3.0, 60.0]), np.array([-5.0, 90.0])
    chosen = effects._dynamics([], [soft, unstable, stiff])
    assert chosen.crystal == 2
    assert chosen.timestep == pytest.approx(1000 / 60 / 30)
    assert effects._dynamics([], [unstable, soft]).crystal == 1
    assert effects._dynamics([], [unstable]).crystal == 0


def test_dynamics_keep_the_energy():
    task = effects.Task(0, 1.0, 200)
    found = effects.energies(COPPER, EMT(), task)
    assert found.shape == (201,)
    described = effects._described(COPPER, task, found, found)
    assert described["structure"] == "Cu8"
    assert described["float64"]["drift"] == described["drift"]
    assert within("NVE of the record, copper in EMT", "drift, eV/atom/ps", abs(described["drift"]), 1e-3)
    assert 0 < described["rms"] < 1e-3


def test_a_run_that_breaks_down_is_stated():
    class Breaking(EMT):
        left = 20

        def calculate(self, *arguments):
            self.left -= 1
            if self.left < 0:
                raise ValueError("two atoms may coincide")
            super().calculate(*arguments)

    task = effects.Task(0, 1.0, 100)
    short, whole = effects.energies(COPPER, Breaking(), task), np.zeros(101)
    assert len(short) == 20
    described = effects._described(COPPER, task, short, whole)
    assert described == {
        "skipped": True,
        "reason": "the run of the artefact broke down after 19 of 100 steps",
    }
    assert effects._described(COPPER, task, whole, short)["reason"].startswith(
        "the run of the model in float64"
    )


def test_the_record_states_phonons_and_dynamics(tmp_path, capsys):
    model, file = tiny_model("conservative", dtype=torch.float32), tmp_path / "model.pt"
    crystals = [COPPER * (2, 1, 1), molecule("CH4")]
    record = export_model(model, file, format="torchscript", with_effects=True, validation=crystals)
    assert artefact.read_metadata(file) == record
    phonons, dynamics = (record["accuracy"][name] for name in ("phonons", "dynamics"))
    assert (phonons["structures"], phonons["frequencies"]) == (1, 2 * 3 * 8 - 3)
    assert 0 < phonons["mean"] < phonons["max"] < 0.05
    assert phonons["highest"] > 0.1
    assert (dynamics["structure"], dynamics["steps"]) == ("Cu16", 300)
    assert dynamics["drift"] == pytest.approx(dynamics["float64"]["drift"], abs=1e-4)
    assert dynamics["drift"] != dynamics["float64"]["drift"]
    assert cli.main(["info", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "phonons       45 frequencies of 1 crystals, up to " in shown
    assert "dynamics      Cu16, 0.3 ps at constant energy: drift " in shown


def test_without_a_crystal_the_reason_is_stated():
    found = effects.measured(Path("none"), tiny_model("direct"), [molecule("CH4")])
    reason = "no structure is periodic along three axes and has at most 64 atoms"
    assert found["phonons"] == found["dynamics"] == {"skipped": True, "reason": reason}
    assert _effect({"accuracy": found}, "phonons") == f"not measured: {reason}"
    assert _effect({"accuracy": {"skipped": True}}, "dynamics") == "not measured"


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], None), (["--accuracy", "forces"], False), (["--accuracy", "full"], True)],
    ids=["default", "forces", "full"],
)
def test_the_command_passes_the_choice_on(options, expected, monkeypatch, tmp_path):
    chosen = []

    def export_model(model, file, *, with_effects, **others):
        chosen.append(with_effects)
        file.touch()
        return {
            "model": "m",
            "format": "torchscript",
            "precision": "float32",
            "verification": {"structures": 1},
        }

    monkeypatch.setattr("orb_export.export.export_model", export_model)
    monkeypatch.setattr("orb_export.export.sources.load_source", lambda *arguments, **options: None)
    assert cli.main(["export", "demo", "-o", str(tmp_path / "m.pt"), *options]) == 0
    assert chosen == [expected]


@pytest.mark.parametrize("given", [{"validation": [COPPER]}, {"with_effects": True}, {"with_effects": False}])
def test_without_verification_no_accuracy_can_be_asked_for(given, tmp_path):
    message = f"`{next(iter(given))}` is given but `verified` is False"
    with pytest.raises(ValueError, match=message):
        export_model(tiny_model("direct"), tmp_path / "m.pt", format="torchscript", verified=False, **given)


@pytest.mark.parametrize(
    ("precision", "small", "expected"),
    [
        ("bfloat16", True, True),
        ("bfloat16", False, False),
        ("float32", True, False),
    ],
)
def test_by_default_effects_are_those_of_reduced_precisions_of_small_models(
    precision, small, expected, monkeypatch, tmp_path
):
    chosen = []

    def verification_and_accuracy(file, model, precision, validation, with_effects):
        chosen.append(with_effects)
        return {"verification": {"passed": True}, "accuracy": {}}

    monkeypatch.setattr("orb_export.export._compile", lambda model, payload, *rest: zip_file(payload))
    monkeypatch.setattr("orb_export.export.verify.verification_and_accuracy", verification_and_accuracy)
    monkeypatch.setattr(effects, "small_weights", lambda model: small)
    model = tiny_model("direct", dtype=torch.float32)
    export_model(model, tmp_path / "model.pt2", precision=precision)
    assert chosen == [expected]


def zip_file(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("anything", "")
