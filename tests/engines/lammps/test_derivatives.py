"""Forces and virial against finite differences of the energy that LAMMPS itself makes."""

import numpy as np
import pytest
from orb_export import graph

from tests.accuracy import within
from tests.engines.lammps import runs
from tests.engines.lammps.conftest import random_model
from tests.engines.lammps.structures import CASES

# Central differences: the error is of order delta^2, and rounding of the energy over delta.
DELTA = 1e-4  # angstrom, and strain
CHECK = "finite differences in LAMMPS, float64"
BAR = 1e-6  # eV/angstrom and eV/angstrom^3
PERIODIC = ["triclinic with large tilt", "one-atom cell", "very flat cell"]
PARTIAL = ["slab open in z", "slab open in x", "molecule"]


def differences(atoms, model, folder, fix, extract):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, folder, before=["atom_modify map yes"]))
        # results do not depend on the neighbor skin, but the ghosts must cover every strained box
        lmp.commands_list([*runs.pair(model, atoms), "neighbor 1.0 bin", f"fix nd all {fix} 1 {DELTA}"])
        lmp.command("run 0")
        return runs.measure(lmp), extract(lmp)


@pytest.mark.parametrize("name", ["conservative-20", "conservative-120"])
@pytest.mark.parametrize("case", [*PERIODIC, *PARTIAL])
def test_forces_are_minus_the_gradient(case, name, models, tmp_path):
    def extract(lmp):
        by_id = np.argsort(lmp.numpy.extract_atom("id")[: lmp.get_natoms()])
        return lmp.numpy.extract_fix("nd", 1, 2)[: lmp.get_natoms()][by_id]

    result, expected = differences(CASES[case], models[name], tmp_path, "numdiff", extract)
    assert np.abs(expected).max() > 1e-3 or case == "one-atom cell"
    assert within(
        "finite differences in LAMMPS, float64", "forces", np.abs(result.forces - expected).max(), BAR
    )


def sheared(lmp):
    """Stress from finite differences; the fix shears with x_a += strain * x_b for ab = yz, xz, xy."""
    return -np.array([lmp.extract_fix("nd", 0, 1, k, 0) for k in range(6)]) / runs.PRESSURE_UNIT["metal"]


@pytest.mark.parametrize("name", ["invariant-20", "invariant-120"])
@pytest.mark.parametrize("case", [*PERIODIC, *PARTIAL])
def test_all_six_virial_components_are_strain_derivatives(case, name, models, tmp_path):
    result, expected = differences(CASES[case], models[name], tmp_path, "numdiff/virial", sheared)
    assert np.abs(expected).max() > 1e-4
    assert len(set(np.round(expected, 6))) == 6, "two equal components hide a swap"
    assert within(
        "finite differences in LAMMPS, float64", "virial", np.abs(result.stress - expected).max(), BAR
    )


@pytest.mark.parametrize("case", PERIODIC)
def test_virial_is_the_symmetric_part_where_a_model_feels_rotations(case, model, tmp_path):
    """A simple shear is a strain and a rotation, and Orb-v3 is not exactly invariant to rotations."""
    atoms = CASES[case]
    result, expected = differences(atoms, model, tmp_path, "numdiff/virial", sheared)
    box = runs.turned(atoms)
    rotation = (
        random_model("conservative", 120).predict(graph.from_atoms(box, 120))["rotational_grad"][0].numpy()
    )
    half = np.array([0, 0, 0, rotation[2, 1], rotation[2, 0], rotation[1, 0]]) / 2 / box.get_volume()
    assert np.abs(half).max() > 10 * BAR
    np.testing.assert_allclose(result.stress + half, expected, rtol=0, atol=BAR)
