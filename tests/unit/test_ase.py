"""The ASE calculator. Oracles: the model it wraps, and stored results of orb-models 0.5.5."""

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from orb_export import artefact, checkpoint
from orb_export.ase import OrbCalculator
from orb_export.export import export_model
from orb_export.graph import from_atoms

from tests.artefacts import tiny_model


@pytest.fixture
def crystal():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.fixture
def charged():
    atoms = molecule("CH3CH2OH")
    atoms.info |= {"charge": 1, "spin": 2}
    return atoms


@pytest.mark.parametrize("name", ["cons", "direct"])
def test_results_are_those_of_the_model(stored, crystal, name):
    model = stored.model(name)
    expected = model.predict(from_atoms(crystal, 20))
    crystal.calc = OrbCalculator(model)
    assert crystal.get_potential_energy() == expected["energy"].item()
    assert crystal.get_potential_energy(force_consistent=True) == expected["energy"].item()
    assert (crystal.get_forces() == expected["forces"].numpy()).all()
    assert (crystal.get_stress() == expected["stress"][0].numpy()).all()
    assert crystal.calc.results["confidence"].shape == (len(crystal), 50)
    assert crystal.calc.results["confidence"].sum(1) == pytest.approx(np.ones(len(crystal)))
    assert isinstance(crystal.calc.results["energy"], float)


def test_results_equal_upstream(stored):
    system = stored.under("struct/triclinic_3sp_unwrapped/")
    atoms = Atoms(system["numbers"], system["positions"], cell=system["cell"], pbc=system["pbc"])
    atoms.calc = OrbCalculator(stored.model("cons"))
    expected = stored.results("out", "cons", "triclinic_3sp_unwrapped", 20)
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"].item(), abs=1e-10)
    assert np.abs(atoms.get_forces() - expected["forces"]).max() < 1e-10
    assert np.abs(atoms.get_stress() - expected["stress"][0]).max() < 1e-10


class TestSources:
    """What a calculator can be made of."""

    def test_own_file(self, stored, tmp_path, crystal):
        model = stored.model("cons")
        checkpoint.save(model, tmp_path / "m.safetensors")
        for source in (tmp_path / "m.safetensors", str(tmp_path / "m.safetensors")):
            calculator = OrbCalculator(source)
            expected = model.predict(from_atoms(crystal, 20))["energy"].item()
            assert calculator.get_potential_energy(crystal) == expected

    @pytest.mark.parametrize("name", ["cons", "direct_omol"])
    def test_compiled_artefact(self, stored, tmp_path, charged, name):
        model = stored.model(name)
        export_model(model, tmp_path / "m.pt", format="torchscript", verified=False)
        eager, compiled = OrbCalculator(model), OrbCalculator(tmp_path / "m.pt")
        assert isinstance(compiled.predictor, artefact.Potential)
        assert compiled.implemented_properties == eager.implemented_properties
        for calculator in (compiled, OrbCalculator(artefact.load(tmp_path / "m.pt"))):
            energy = calculator.get_potential_energy(charged)
            assert energy == pytest.approx(eager.get_potential_energy(charged), abs=1e-10)
            assert np.abs(calculator.get_forces(charged) - eager.get_forces(charged)).max() < 1e-9
            confidence = calculator.results["confidence"] - eager.results["confidence"]
            assert np.abs(confidence).max() < 1e-10

    def test_anything_that_predicts(self, crystal):
        class Fake:
            def __init__(self):
                self.metadata = {"has_stress": False, "has_charge_spin": False}

            def predict(self, atoms):
                return {"energy": 1.5, "forces": np.ones((len(atoms), 3))}

        crystal.calc = OrbCalculator(Fake())
        assert crystal.get_potential_energy() == 1.5
        assert crystal.get_forces().shape == (8, 3)
        with pytest.raises(PropertyNotImplementedError):
            crystal.get_stress()
        with pytest.raises(ValueError, match=r"`dtype` is torch\.float64 but must be None"):
            OrbCalculator(Fake(), dtype=torch.float64)

    def test_dtype_leaves_the_callers_model_alone(self, stored, crystal):
        model = stored.model("cons", torch.float32)
        calculator = OrbCalculator(model, dtype=torch.float64)
        assert calculator.predictor.model.dtype == torch.float64
        assert model.dtype == torch.float32
        exact = stored.model("cons", torch.float64).predict(from_atoms(crystal, 20))["energy"].item()
        assert calculator.get_potential_energy(crystal) == exact

    @pytest.mark.parametrize("route", ["eager", "saved", "compiled"])
    def test_elements_without_training_are_refused(self, tmp_path, route):
        model = tiny_model("conservative")
        model.config = dataclasses.replace(model.config, elements=(8, 14))
        if route == "saved":
            checkpoint.save(model, tmp_path / "m.safetensors")
        if route == "compiled":
            export_model(model, tmp_path / "m.pt", format="torchscript", verified=False)
        name = {"saved": "m.safetensors", "compiled": "m.pt"}.get(route)
        calculator = OrbCalculator(tmp_path / name if name else model)
        assert np.isfinite(calculator.get_potential_energy(Atoms("SiO", [[0, 0, 0], [0, 0, 1.6]])))
        with pytest.raises(ValueError, match=r"6.*model `tiny-conservative` does not know"):
            calculator.get_potential_energy(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]))

    def test_nonsense_is_refused(self):
        with pytest.raises(TypeError, match="`model` is int but must be an OrbV3"):
            OrbCalculator(3)

    def test_unknown_names_are_refused(self):
        with pytest.raises(ValueError, match="did you mean orb-v3-direct-20-omat"):
            OrbCalculator("orb-v3-direct-20-oma")

    @pytest.mark.parametrize("suffix", [".pt", ".pt2"])
    def test_damaged_artefacts_are_refused(self, tmp_path, suffix):
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(b"no zip file")
        with pytest.raises(ValueError, match="is not an orb_export artefact"):
            OrbCalculator(path)


class TestChargeAndSpin:
    """Conditioned models."""

    def test_both_must_be_given(self, stored, charged):
        del charged.info["spin"]
        charged.calc = OrbCalculator(stored.model("cons_omol"))
        with pytest.raises(ValueError, match=r"`atoms\.info` lacks \['spin'\]"):
            charged.get_potential_energy()

    def test_a_change_is_noticed(self, stored, charged):
        model = stored.model("cons_omol")
        charged.calc = OrbCalculator(model)
        energies = []
        for charge, spin in [(1, 2), (0, 1), (np.int64(1), np.int64(2))]:
            charged.info |= {"charge": charge, "spin": spin}
            expected = model.predict(from_atoms(charged, 20, needs_charge_spin=True))["energy"].item()
            assert charged.get_potential_energy() == expected
            energies.append(expected)
        assert energies[0] == energies[2] != energies[1]

    def test_stress_depends_on_the_variant(self, stored, charged):
        charged.info |= {"charge": 0, "spin": 1}
        charged.calc = OrbCalculator(stored.model("direct_omol"))
        with pytest.raises(PropertyNotImplementedError):
            charged.get_stress()
        charged.calc = OrbCalculator(stored.model("cons_omol"))
        assert (charged.get_stress() == 0).all()  # no cell


def test_cached_results_are_used_until_atoms_move(stored, crystal, monkeypatch):
    calculator = crystal.calc = OrbCalculator(stored.model("cons"))
    calls = []
    predict = calculator.predictor.predict
    monkeypatch.setattr(calculator.predictor, "predict", lambda atoms: calls.append(1) or predict(atoms))
    crystal.get_potential_energy()
    crystal.get_forces()
    crystal.get_stress()
    assert len(calls) == 1
    crystal.positions[0, 0] += 0.01
    crystal.get_forces()
    assert len(calls) == 2


def test_coincident_atoms_are_an_error(stored):
    atoms = Atoms("H2", positions=np.zeros((2, 3)), calculator=OrbCalculator(stored.model("cons")))
    with pytest.raises(ValueError, match="atoms must not coincide"):
        atoms.get_potential_energy()


def test_relaxation_of_cell_and_positions_lowers_the_energy(stored, crystal):
    crystal.calc = OrbCalculator(stored.model("cons", cap=120))
    before = crystal.get_potential_energy()
    BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=0.0, steps=4)
    assert crystal.get_potential_energy() < before - 1e-4
