"""Artefacts in a fresh process give what the eager model gives, at sizes that were not traced.

Oracle: the eager model, itself held to orb-models by test_orb_models.py. Bars per dtype: export/verify.py.
"""

import zipfile

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from orb_export import artefact
from orb_export.contract import CONFIDENCE_BINS
from orb_export.export import export_model, verify

from tests.accuracy import within
from tests.artefacts import tiny_model
from tests.parity.conftest import Exported

CASES = {
    "conservative-float64": ("conservative", False, torch.float64),
    "direct-float64": ("direct", False, torch.float64),
    "charged-conservative-float32": ("conservative", True, torch.float32),
    "charged-direct-float32": ("direct", True, torch.float32),
}
SUFFIXES = artefact.SUFFIXES


@pytest.fixture(scope="session", params=SUFFIXES)
def format(request):
    return request.param


@pytest.fixture(scope="session", params=CASES)
def exported(request, format, tmp_path_factory) -> Exported:
    if (format, request.param) == ("aoti", "conservative-float64"):
        return request.getfixturevalue("compiled_with_steps")
    kind, has_charge_spin, dtype = CASES[request.param]
    model = tiny_model(kind, has_charge_spin=has_charge_spin, dtype=dtype)
    file = tmp_path_factory.mktemp("artefacts") / (request.param + SUFFIXES[format])
    export_model(model, file, format=format, verified=False, with_steps=False)
    return Exported(model, file)


def images() -> list[Atoms]:
    """The built-in structures of the verification, and a few more that are awkward in some way."""
    skewed = Atoms(
        "LiF", [[0, 0, 0], [1.1, 1.2, 1.3]], cell=[[3, 0, 0], [2.9, 3, 0], [-2.8, 2.9, 3]], pbc=True
    )
    left_handed = bulk("Si", cubic=True)
    left_handed.set_cell(left_handed.cell[[1, 0, 2]], scale_atoms=False)
    left_handed.rattle(0.05, seed=1)
    close = Atoms("UH", [[0, 0, 0], [0, 0, 0.9]], cell=np.diag([9.0, 10.0, 11.0]), pbc=True)
    boxed_molecule = molecule("H2O", cell=[8.0, 8.0, 8.0])  # with a cell, but not periodic
    far_pair = Atoms("NaCl", [[0, 0, 0], [0, 0, 20.0]])
    extra = [skewed, left_handed, close, boxed_molecule, far_pair]
    for atoms in extra:
        atoms.info = {"charge": -1, "spin": 0}
    return verify.structures() + extra


def test_artefact_equals_eager_model(exported):
    dtype = str(exported.model.dtype).removeprefix("torch.")
    structures = images()
    expected = [verify.eager_results(exported.model, atoms) for atoms in structures]
    assert max(np.abs(results["forces"]).max() for results in expected) > 0.1
    record = verify.compare(exported.file, dtype, structures, expected)
    check = f"{exported.file.suffix} artefact and eager model, {dtype}"
    for quantity, error in record["largest_differences"].items():
        assert within(check, quantity, error, record["tolerances"][quantity])
    assert record["passed"], record
    assert record["structures"] == len(structures)


def test_results_have_the_documented_types_and_shapes(exported):
    atoms = next(atoms for atoms in verify.structures() if len(atoms) == 64)
    potential = artefact.load(exported.file)
    results = potential.predict(atoms)
    assert isinstance(results["energy"], float)
    assert results["forces"].shape == (64, 3)
    assert results["confidence"].shape == (64, CONFIDENCE_BINS)
    np.testing.assert_allclose(results["confidence"].sum(1), 1.0, atol=1e-6)
    assert ("stress" in results) == potential.metadata["has_stress"]


def test_results_repeat_bitwise_and_do_not_depend_on_what_was_evaluated_before(exported):
    potential = artefact.load(exported.file)
    first, second, *_ = [atoms for atoms in images() if len(atoms) > 1]
    before = potential.predict(first)
    potential.predict(second)
    after = potential.predict(first)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_file_does_not_fix_the_number_of_threads(compiled_with_steps):
    """It would run with as many as its exporter had, on one core of a cluster or alone on a large machine."""
    with zipfile.ZipFile(compiled_with_steps.file) as archive:
        sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".kernel.cpp")]
    assert len(sources) > 5
    assert not any("#pragma omp parallel" in source for source in sources)


def test_the_number_of_threads_does_not_change_results(compiled_with_steps):
    crystal = bulk("Cu", "fcc", a=3.61, cubic=True).repeat((3, 3, 3))
    crystal.rattle(0.1, seed=5)
    threads = torch.get_num_threads()
    try:
        for program in ("whole", "steps"):
            one, several = (
                artefact.load(compiled_with_steps.file, threads=count, program=program).predict(crystal)
                for count in (1, 3)
            )
            for quantity, error in verify.differences(several, one, len(crystal)).items():
                assert within(f"{program}, 1 and 3 threads, float64", quantity, error, 1e-9), quantity
    finally:
        torch.set_num_threads(threads)


def test_charge_and_spin_change_the_energy_of_conditioned_models_only(exported):
    potential = artefact.load(exported.file)
    atoms = molecule("H2O")
    energies = []
    for charge, spin in [(0, 1), (1, 1), (0, 3)]:
        atoms.info = {"charge": charge, "spin": spin}
        energies.append(potential.predict(atoms)["energy"])
    assert len(set(energies)) == (3 if potential.metadata["has_charge_spin"] else 1)


def _difference(potential, atoms: Atoms, change) -> float:
    energies = []
    for sign in (1.0, -1.0):
        moved = atoms.copy()
        change(moved, sign * 1e-4)
        energies.append(potential.predict(moved)["energy"])
    return (energies[0] - energies[1]) / 2e-4


@pytest.fixture(scope="module")
def conservative(tmp_path_factory):
    file = tmp_path_factory.mktemp("script") / "conservative.pt"
    export_model(tiny_model("conservative"), file, format="torchscript", verified=False)
    return artefact.load(file)


@pytest.fixture
def periodic() -> Atoms:
    return next(atoms for atoms in verify.structures() if atoms.info["name"] == "triclinic cell")


def test_forces_are_the_negative_gradient_of_the_energy(conservative, periodic):
    forces = conservative.predict(periodic)["forces"]

    def displace(index):
        def change(atoms, step):
            atoms.positions[index] += step

        return change

    numerical = np.array(
        [[-_difference(conservative, periodic, displace((i, a))) for a in range(3)] for i in range(3)]
    )
    np.testing.assert_allclose(forces, numerical, atol=1e-6)
    assert np.abs(forces).max() > 1e-2


def test_stress_is_the_strain_derivative_of_the_energy_per_volume(conservative, periodic):
    stress = conservative.predict(periodic)["stress"]
    voigt = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]

    def strain(a, b):
        def change(atoms, step):
            deformation = np.eye(3)
            deformation[a, b] += step / 2
            deformation[b, a] += step / 2
            atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)

        return change

    numerical = [_difference(conservative, periodic, strain(a, b)) for a, b in voigt]
    np.testing.assert_allclose(stress, np.array(numerical) / periodic.get_volume(), atol=1e-6)
    assert np.abs(stress).max() > 1e-4
