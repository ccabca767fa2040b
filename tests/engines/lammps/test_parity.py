"""LAMMPS against `Potential.predict` of the same artefact, which tests/parity holds against orb-models."""

import os

import numpy as np
import orb_export
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.neighborlist import neighbor_list
from orb_export import graph

from tests.engines.lammps import runs
from tests.engines.lammps.structures import CASES


def predicted(atoms: Atoms, model) -> runs.Result:
    result = orb_export.load(model).predict(runs.turned(atoms))
    return runs.Result(result["energy"], result["forces"], result["stress"])


def same(actual, expected, atoms):
    # without a cell Python has no stress; the virial of such systems is checked by finite differences
    runs.assert_same(actual, expected, stress=bool(atoms.pbc.any()))


@pytest.mark.parametrize("name", ["conservative-20", "conservative-120", "direct-20", "direct-120"])
@pytest.mark.parametrize("case", CASES)
def test_lammps_gives_what_python_gives(case, name, models, tmp_path):
    atoms = CASES[case]
    same(runs.evaluate(atoms, models[name], tmp_path), predicted(atoms, models[name]), atoms)


@pytest.mark.parametrize("open_side", ["s", "m"])
def test_shrink_wrapped_sides_are_open_sides(open_side, model, tmp_path):
    atoms = CASES["slab open in z"]
    result = runs.evaluate(atoms, model, tmp_path, open_side=open_side)
    # LAMMPS shrinks the box and with it the volume that its pressure is divided by
    runs.assert_same(result, predicted(atoms, model), stress=False)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["newton off"], []),
        (["atom_modify map hash"], []),
        (["atom_modify sort 0 0.0"], []),
        ([], ["neighbor 3.7 bin"]),
        ([], ["neighbor 0.0 bin"]),
        ([], ["neighbor 1.0 nsq"]),
        ([], ["comm_modify cutoff 14.0"]),
    ],
    ids=lambda commands: " ".join(commands) or "-",
)
def test_host_settings_do_not_change_results(before, after, model, tmp_path):
    atoms = CASES["triclinic with large tilt"]
    runs.assert_same(
        runs.evaluate(atoms, model, tmp_path, before=before, after=after), predicted(atoms, model)
    )


@pytest.mark.parametrize(
    "keywords", ["threads 2", "skin 2.0", "skin 3.5", "device cpu", "device auto threads 0", "program steps"]
)
def test_keywords_do_not_change_results(keywords, model, tmp_path):
    atoms = CASES["crystal"]
    runs.assert_same(runs.evaluate(atoms, model, tmp_path, keywords=keywords), predicted(atoms, model))


def test_memory_limit_does_not_change_results(model, tmp_path):
    atoms = CASES["crystal"]
    edges = graph.from_atoms(atoms, 120).centers.numel()
    whole, least = orb_export.load(model).predict_memory(len(atoms), edges)
    assert least < whole
    limit = (least + whole) // 2  # too little for the whole program
    result = runs.evaluate(atoms, model, tmp_path, keywords=f"memory {limit / 1e9:.9f}")
    runs.assert_same(result, predicted(atoms, model))


def test_many_threads_find_the_same_edges(model, tmp_path):
    # enough atoms that the edge search splits them
    atoms = CASES["crystal"].repeat((3, 3, 3))
    result = runs.evaluate(atoms, model, tmp_path, keywords="threads 3")
    runs.assert_same(result, predicted(atoms, model))


@pytest.mark.parametrize("given", [None, "1"])
def test_one_process_has_all_cores_unless_told_otherwise(given, model, tmp_path, monkeypatch):
    """LAMMPS takes one thread where OMP_NUM_THREADS is not set, and tells OpenMP so."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        runs.evaluate(CASES["crystal"], model, tmp_path)
        assert torch.get_num_threads() == (len(os.sched_getaffinity(0)) if given is None else int(given))
    finally:
        torch.set_num_threads(threads)


def test_atom_order_does_not_change_results(models, tmp_path):
    atoms = CASES["perfect crystal with ties"]
    order = np.random.default_rng(3).permutation(len(atoms))
    straight = runs.evaluate(atoms, models["conservative-20"], tmp_path)
    mixed = runs.evaluate(atoms[order], models["conservative-20"], tmp_path)
    runs.assert_same(mixed, straight._replace(forces=straight.forces[order]))


def test_units_real_are_kcal_per_mol(model, tmp_path):
    atoms = CASES["triclinic with large tilt"]
    runs.assert_same(runs.evaluate(atoms, model, tmp_path, units="real"), predicted(atoms, model))


def test_aoti_artefact_gives_the_same(model, compiled_model, tmp_path):
    for case in ("triclinic with large tilt", "molecule", "isolated atom"):
        atoms = CASES[case]
        same(runs.evaluate(atoms, compiled_model, tmp_path), predicted(atoms, model), atoms)


def test_charge_and_spin_reach_the_model(models, tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.info = {"charge": -1, "spin": 2}
    result = runs.evaluate(atoms, models["charged"], tmp_path, keywords="charge -1 spin 2")
    same(result, predicted(atoms, models["charged"]), atoms)
    for keywords in ("charge 0 spin 2", "charge -1 spin 1"):
        other = runs.evaluate(atoms, models["charged"], tmp_path, keywords=keywords)
        assert abs(other.energy - result.energy) > 1e-6


def test_charge_and_spin_of_both_signs_may_be_real_numbers(models, tmp_path):
    atoms = molecule("H2O")
    half = runs.evaluate(atoms, models["charged"], tmp_path, keywords="charge 0.5 spin 1")
    whole = runs.evaluate(atoms, models["charged"], tmp_path, keywords="charge 1 spin 1")
    assert half.energy != whole.energy


def hybrid(atoms, model, tmp_path, styles, coefficients):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, tmp_path))
        lmp.commands_list([f"pair_style hybrid/overlay {styles}", *coefficients, "run 0"])
        return runs.measure(lmp)


def test_overlay_adds_to_a_style_of_longer_range(model, tmp_path):
    atoms = CASES["crystal"]
    longer = "lj/cut 11.0"
    lj = ["pair_coeff * * lj/cut 0.01 2.5"]
    orb = [f"pair_coeff * * orbv3 {model} Na Cl"]
    both = hybrid(atoms, model, tmp_path, f"orbv3 {longer}", orb + lj)
    other = hybrid(atoms, model, tmp_path, longer, lj)
    alone = predicted(atoms, model)
    runs.assert_same(both, runs.Result(*(np.add(a, b) for a, b in zip(other, alone, strict=True))))


def test_overlay_with_zbl_for_some_types(model, tmp_path):
    atoms = CASES["crystal"]
    zbl = ["pair_coeff 1 1 zbl 11 11", "pair_coeff 1 2 zbl 11 17", "pair_coeff 2 2 zbl 17 17"]
    both = hybrid(atoms, model, tmp_path, "zbl 2.0 3.0 orbv3", [f"pair_coeff * * orbv3 {model} Na Cl", *zbl])
    other = hybrid(atoms, model, tmp_path, "zbl 2.0 3.0", zbl)
    alone = predicted(atoms, model)
    runs.assert_same(both, runs.Result(*(np.add(a, b) for a, b in zip(other, alone, strict=True))))


def test_null_types_are_not_seen(model, tmp_path):
    atoms = CASES["crystal"]
    lj = ["pair_coeff 1 2 lj/cut 0.01 2.5", "pair_coeff 2 2 lj/cut 0.02 2.5"]
    both = hybrid(atoms, model, tmp_path, "orbv3 lj/cut 8.0", [f"pair_coeff * * orbv3 {model} Na NULL", *lj])
    sodium = atoms.symbols == "Na"
    # the pair of styles, one by one: LJ with type 1 uncoupled from itself, and Orb on sodium alone
    other = hybrid(atoms, model, tmp_path, "lj/cut 8.0", ["pair_coeff 1 1 lj/cut 0.0 2.5", *lj])
    alone = predicted(atoms[sodium], model)
    forces = other.forces.copy()
    forces[sodium] += alone.forces
    runs.assert_same(both, runs.Result(other.energy + alone.energy, forces, other.stress + alone.stress))


@pytest.mark.parametrize(("keywords", "cutoff"), [("", 7.0), ("skin 1.0", 7.0), ("skin 2.5", 8.5)])
def test_skin_lengthens_the_neighbor_list(keywords, cutoff, model, tmp_path):
    atoms = CASES["crystal"]
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, tmp_path))
        lmp.commands_list([*runs.pair(model, atoms, keywords), "neighbor 1.0 bin", "run 0"])
        listed = sorted(len(row) for _, row in lmp.numpy.get_neighlist(0))
    assert listed == sorted(np.bincount(neighbor_list("i", atoms, cutoff)))
