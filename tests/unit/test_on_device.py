"""Evaluations whose atoms stay on the potential's device give what the host's arrays give.

On the CPU the device's memory is the host's, so everything but CUDA itself is tested here.
"""

import ctypes

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from orb_export import _core
from orb_export import load as load_artefact
from orb_export.export import export_model
from orb_export.graph import from_atoms

from tests.accuracy import within
from tests.artefacts import tiny_model

CRYSTAL = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat((2, 1, 1))
CRYSTAL.rattle(0.15, seed=3)
SKEWED = bulk("NaCl", "rocksalt", a=5.6)  # smaller than the cutoff
SKEWED.set_cell(SKEWED.cell.array + np.array([[0, 0, 0], [1.3, 0, 0], [0.4, -2.0, 0]]), scale_atoms=True)
LEFT_HANDED = Atoms(CRYSTAL.numbers, CRYSTAL.positions, cell=CRYSTAL.cell.array[[1, 0, 2]], pbc=True)
STRUCTURES = {"crystal": CRYSTAL, "skewed": SKEWED, "left-handed": LEFT_HANDED}
KINDS = {
    "conservative": tiny_model("conservative", cap=120),
    "direct": tiny_model("direct", cap=20),
    "charged": tiny_model("conservative", cap=20, has_charge_spin=True),
}


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("on_device")
    for name, model in KINDS.items():
        export_model(model, folder / f"{name}.pt", format="torchscript", verified=False, with_steps=False)
    return {name: folder / f"{name}.pt" for name in KINDS}


def array_at(address: int, n_atoms: int) -> np.ndarray:
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_double))
    return np.ctypeslib.as_array(pointer, (n_atoms, 3))


class Device:
    """An evaluation with the arrays that a host would write and read on its device."""

    def __init__(self, artefact, atoms: Atoms, **options) -> None:
        potential = _core.load_potential(str(artefact), **options)
        self.evaluation = potential.on_device(atoms.numbers.tolist())
        self.positions = array_at(self.evaluation.positions, len(atoms))
        self.forces = array_at(self.evaluation.forces, len(atoms))
        self.positions[:] = atoms.positions
        self.conditions = conditions(atoms)

    def evaluate(self, confidence=True):
        return self.evaluation.evaluate(self.conditions, confidence)


def conditions(atoms: Atoms, **changes):
    box = {"cell": atoms.cell.array.ravel().tolist(), "periodic": [True] * 3}
    return _core.Conditions(**{**box, "charge": 1.0, "spin": 2.0, **changes})


def expected(artefact, atoms: Atoms):
    charged = atoms.copy()
    charged.info |= {"charge": 1.0, "spin": 2.0}
    return load_artefact(artefact).predict(charged)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_host_arrays(kind, structure, artefacts):
    atoms = STRUCTURES[structure]
    device = Device(artefacts[kind], atoms)
    result, wanted = device.evaluate(), expected(artefacts[kind], atoms)
    check = "atoms on the device against host arrays, float64"
    assert within(check, "energy", abs(result["energy"] - wanted["energy"]) / len(atoms), 1e-10)
    assert within(check, "forces", np.abs(device.forces - wanted["forces"]).max(), 1e-9)
    assert within(check, "stress", np.abs(result["stress"] - wanted["stress"]).max(), 1e-9)
    assert within(check, "confidence", np.abs(result["confidence"] - wanted["confidence"]).max(), 1e-9)
    assert result["largest_force"] == np.abs(device.forces).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_limit_is_kept_by_parts(kind, artefacts):
    crystal = CRYSTAL.repeat((3, 3, 3))
    crystal.rattle(0.1, seed=5)
    wanted = expected(artefacts[kind], crystal)
    edges = len(from_atoms(crystal, KINDS[kind].config.max_neighbors).centers)
    least = load_artefact(artefacts[kind]).predict_memory(len(crystal), edges).least
    for limit in (least, 0):
        device = Device(artefacts[kind], crystal, memory_limit=limit, program="auto" if limit else "steps")
        result = device.evaluate()
        check = "atoms on the device in parts against host arrays, float64"
        assert within(check, "energy", abs(result["energy"] - wanted["energy"]) / len(crystal), 1e-10)
        assert within(check, "forces", np.abs(device.forces - wanted["forces"]).max(), 1e-9)
        assert within(check, "stress", np.abs(result["stress"] - wanted["stress"]).max(), 1e-9)
        assert within(check, "confidence", np.abs(result["confidence"] - wanted["confidence"]).max(), 1e-9)
    device = Device(artefacts[kind], crystal, memory_limit=least // 2)
    with pytest.raises(ValueError, match=f"`memory_limit` is {least // 2} bytes but {len(crystal)} atoms"):
        device.evaluate()


def test_positions_may_change_in_place(artefacts):
    device = Device(artefacts["conservative"], CRYSTAL)
    device.evaluate()
    moved = CRYSTAL.copy()
    moved.rattle(0.1, seed=8)
    device.positions[:] = moved.positions
    device.evaluate()
    np.testing.assert_allclose(device.forces, expected(artefacts["conservative"], moved)["forces"], atol=1e-9)


def test_a_result_is_known_until_something_changes(artefacts):
    device = Device(artefacts["charged"], CRYSTAL)
    assert device.evaluation.known(device.conditions) is None
    result = device.evaluate(confidence=False)
    assert result["confidence"].shape == (0, 50)
    known = device.evaluation.known(device.conditions)
    assert known["energy"] == result["energy"]
    wanted = expected(artefacts["charged"], CRYSTAL)["confidence"]
    np.testing.assert_allclose(known["confidence"], wanted, atol=1e-9)
    for other in ({"charge": 0.0}, {"spin": 1.0}, {"periodic": [True, True, False]}):
        assert device.evaluation.known(conditions(CRYSTAL, **other)) is None
    device.positions[5, 2] += 1e-12
    assert device.evaluation.known(device.conditions) is None


def test_a_failed_evaluation_is_not_known(artefacts):
    device = Device(artefacts["conservative"], CRYSTAL)
    device.evaluate()
    device.positions[2] = device.positions[4] + [0.0, 0.004, 0.0]
    with pytest.raises(RuntimeError, match=r"atoms 2 and 4 are 0\.004000 angstrom apart"):
        device.evaluate()
    device.positions[:] = CRYSTAL.positions
    assert device.evaluation.known(device.conditions) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"charge": np.nan}, "`charge` is nan"),
        ({"spin": -1.0}, "`spin` is -1"),
        ({"cell": [0.0] * 9}, "`cell` row 0 is"),
        ({"cell": [np.inf] * 9}, "`cell` has the entry inf"),
    ],
)
def test_bad_conditions_are_named(changes, text, artefacts):
    device = Device(artefacts["charged"], CRYSTAL)
    with pytest.raises(ValueError, match=text):
        device.evaluation.evaluate(conditions(CRYSTAL, **changes))


def test_positions_that_are_not_finite_are_refused(artefacts):
    device = Device(artefacts["direct"], CRYSTAL)
    device.positions[3, 1] = np.nan
    with pytest.raises(ValueError, match="`positions` has a component of size nan"):
        device.evaluate()


def test_direct_models_without_a_cell_are_refused(artefacts):
    device = Device(artefacts["direct"], CRYSTAL)
    with pytest.raises(ValueError, match="`positions` is missing, but a direct model without a cell"):
        device.evaluation.evaluate(conditions(CRYSTAL, cell=[0.0] * 9, periodic=[False] * 3))


def test_elements_that_the_model_does_not_know_are_named(artefacts):
    potential = _core.load_potential(str(artefacts["direct"]))
    with pytest.raises(ValueError, match=r"`numbers\[1\]` is 300, an element that model"):
        potential.on_device([1, 300])
