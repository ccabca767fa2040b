"""Data sources, filters, splits, and the order of batches. Oracles: ASE's readers, and counting."""

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from orb_export.train.batches import Plan, TrainingLoader
from orb_export.train.catalog import Catalog, StructureSet, filtered, split
from orb_export.train.config import DataOptions
from orb_export.train.sources import Selection

CAP = 30


def structures():
    """Copper, copper-aluminium and carbon monoxide with labels; sources bulk, alloy and molecule."""
    generator = np.random.default_rng(5)
    frames = []
    for index in range(9):
        atoms = molecule("CO") if index % 3 == 2 else bulk("Cu", cubic=True)
        if index % 3 == 1:
            atoms.numbers[0] = 13
        atoms.positions += generator.normal(size=atoms.positions.shape) * 0.1
        atoms.info["source"] = ("bulk", "alloy", "molecule")[index % 3]
        atoms.calc = EMT()
        atoms.get_stress() if atoms.cell.rank == 3 else atoms.get_forces()
        frames.append(atoms)
    return frames


@pytest.fixture(params=[".xyz", ".db", ".aselmdb", ".traj"])
def file(request, tmp_path):
    path = tmp_path / f"frames{request.param}"
    write(path, structures())
    return path


def write(path, frames):
    if path.suffix in (".db", ".aselmdb"):
        with connect(str(path)) as database:
            for atoms in frames:
                database.write(atoms, data=atoms.info)
    else:
        ase.io.write(path, frames)


def options(**changes):
    return DataOptions(train=("unused.xyz",), **changes)


def test_structures_of_every_format_are_those_written(file):
    selection = Selection([file])
    assert len(selection) == 9
    for found, atoms in zip(selection, structures(), strict=True):
        assert np.array_equal(found.numbers, atoms.numbers)
        assert np.abs(found.positions - atoms.positions).max() < 1e-7
        assert found.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        assert np.abs(found.get_forces() - atoms.get_forces()).max() < 1e-7


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_catalog_counts_what_is_there(file, in_memory, workers):
    structure_set = StructureSet([str(file)], options(in_memory=in_memory, workers=workers), CAP, False)
    catalog, frames = structure_set.catalog, structures()
    assert catalog.elements == (6, 8, 13, 29)
    assert catalog.n_atoms.tolist() == [len(atoms) for atoms in frames]
    assert catalog.energy == pytest.approx([atoms.get_potential_energy() for atoms in frames])
    largest = [np.linalg.norm(atoms.get_forces(), axis=1).max() for atoms in frames]
    assert catalog.forces[:, 2] == pytest.approx(largest, abs=1e-7)
    assert catalog.n_edges.tolist() == [structure_set[i].n_edges for i in range(9)]
    assert np.isnan(catalog.stress[2]).all()
    assert catalog.stress[0] == pytest.approx(frames[0].get_stress(), abs=1e-8)
    assert catalog.sources.tolist() == ["bulk", "alloy", "molecule"] * 3


def test_slices_choose_structures_and_are_checked(tmp_path):
    path = tmp_path / "a.xyz"
    write(path, structures())
    chosen = Selection([f"{path}@1::3", f"{path}@-1"])
    assert [chosen.place(i) for i in range(4)] == [f"{path}:{n}" for n in (1, 4, 7, 8)]
    with pytest.raises(ValueError, match="slice 'x' but must have one like"):
        Selection([f"{path}@x"])
    with pytest.raises(ValueError, match="holds no structure"):
        Selection([f"{path}@20:"])
    with pytest.raises(ValueError, match=r"`none.xyz` does not exist"):
        Selection(["none.xyz"])


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("3\n\nH 0 0 0\n")
    with pytest.raises(ValueError, match=r"a.xyz:0: ends within the structure"):
        Selection([path])
    path.write_text("three\n")
    with pytest.raises(ValueError, match=r"a.xyz:0: number of atoms is 'three'"):
        Selection([path])
    other = tmp_path / "a.cif"
    other.write_text("nonsense")
    with pytest.raises(ValueError, match=r"a.cif` (cannot be read by ASE|holds no structure)"):
        Selection([other])


def catalog():
    """Twelve structures by hand: energies -1 per atom but one, sources a and b, forces 1 to 12."""
    composition = np.zeros((12, 119), dtype=np.int32)
    composition[:, 29] = [1, 2, 3, 4] * 3
    energy = -1.0 * composition.sum(axis=1)
    energy[7] += 40.0
    forces = np.zeros((12, 3))
    forces[:, 2] = np.arange(1, 13)
    stress = np.full((12, 6), np.nan)
    stress[3] = 0.5
    sources = np.array(["a", "b"] * 6)
    return Catalog(np.arange(12), composition, np.arange(10, 130, 10), energy, forces, stress, sources)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, range(12)),
        ({"max_force": 9.5}, range(9)),
        ({"max_stress": 0.4}, [i for i in range(12) if i != 3]),
        ({"max_energy_deviation": 3.0}, [i for i in range(12) if i != 7]),
        ({"keep_sources": ("a",)}, range(0, 12, 2)),
        ({"drop_sources": ("a",)}, range(1, 12, 2)),
    ],
    ids=str,
)
def test_filters_remove_what_they_name(changes, left):
    assert filtered(catalog(), options(**changes)).rows.tolist() == list(left)


def test_filters_that_match_nothing_or_leave_nothing_are_errors():
    with pytest.raises(ValueError, match=r"`data.keep_sources` has \['c'\] but the sources are \['a', 'b'\]"):
        filtered(catalog(), options(keep_sources=("c",)))
    with pytest.raises(ValueError, match=r"`data.drop_stress` has \['c'\] but the sources are \['a', 'b'\]"):
        filtered(catalog(), options(drop_stress=("a", "c")))
    with pytest.raises(ValueError, match=r"`data.max_force` leaves no structure of 12"):
        filtered(catalog(), options(max_force=0.5))


@pytest.mark.parametrize("in_memory", [True, False])
def test_dropped_stresses_are_those_of_the_sources_and_nothing_else(tmp_path, in_memory):
    write(tmp_path / "frames.xyz", structures())
    files = [str(tmp_path / "frames.xyz")]
    whole = StructureSet(files, options(), CAP, False)
    dropped = StructureSet(files, options(drop_stress=("bulk",), in_memory=in_memory), CAP, False)
    assert filtered(dropped.catalog, dropped.options).rows.tolist() == list(range(9))
    for before, after, row in zip(whole, dropped, dropped.catalog.stress, strict=True):
        labelled = before.source == "alloy"  # molecules have none
        assert torch.equal(after.labels.energy, before.labels.energy)
        assert torch.equal(after.labels.forces, before.labels.forces)
        assert bool(after.labels.stress.isfinite().all()) == bool(np.isfinite(row).all()) == labelled
        if labelled:
            assert torch.equal(after.labels.stress, before.labels.stress)


@pytest.mark.parametrize("by", ["structure", "composition", "source"])
def test_split_parts_are_disjoint_complete_repeatable_and_keep_groups_together(by):
    table = catalog()
    training, held_out = split(table, 0.25, by, seed=5)
    assert sorted([*training.rows, *held_out.rows]) == list(range(12))
    assert len(held_out) == {"structure": 3, "composition": 3, "source": 6}[by]
    again = split(table, 0.25, by, seed=5)[1]
    assert again.rows.tolist() == held_out.rows.tolist()
    if by == "composition":
        assert not set(training.n_atoms) & set(held_out.n_atoms)
    if by == "source":
        assert not set(training.sources) & set(held_out.sources)
    assert {tuple(split(table, 0.25, "structure", seed)[1].rows) for seed in range(9)} != {(0, 1, 2)}
    assert len(split(table, 0.0, by, 5)[1]) == 0


def test_a_split_that_leaves_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"`data.validation_fraction` is 0.9 but 2 group"):
        split(catalog(), 0.9, "source", seed=5)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_the_batches_are_the_same_whatever_the_number_of_processes(balance, processes):
    table = catalog()
    table.sources[:] = ["rare"] * 2 + ["common"] * 10
    shares = [
        list(Plan(table, max_edges=150, epochs=2, seed=1, balance=balance, rank=rank, processes=processes))
        for rank in range(processes)
    ]
    alone = list(Plan(table, max_edges=150, epochs=2, seed=1, balance=balance))
    for number, whole in enumerate(alone):
        parts = [ticket for share in shares for ticket in share[number] if ticket.counts]
        assert sorted(parts) == sorted(whole)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_epoch_uses_every_structure_once_whatever_the_number_of_processes(processes):
    table = catalog()
    plans = [
        Plan(table, max_edges=150, epochs=2, seed=1, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    alone = list(Plan(table, max_edges=150, epochs=2, seed=1))
    shares = [list(plan) for plan in plans]
    assert {len(share) for share in shares} == {len(alone)} == {len(plans[0])}
    for number, whole in enumerate(alone):
        parts = [ticket for share in shares for ticket in share[number] if ticket.counts]
        assert sorted(parts) == sorted(whole)
        assert sum(table.n_edges[ticket.row] for ticket in whole) <= 150
    first = plans[0].batches_in_epoch[0]
    assert sorted(ticket.row for batch in alone[:first] for ticket in batch) == list(range(12))
    seeds = [ticket.seed for batch in alone for ticket in batch]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_balance_uses_structures_of_small_sources_more_often_each_time_in_another_way(balance):
    table = catalog()
    table.sources[:] = ["rare"] * 2 + ["common"] * 10
    epochs = 200
    plan = Plan(table, max_edges=150, epochs=epochs, seed=1, balance=balance)
    tickets = [ticket for batch in plan for ticket in batch]
    uses = np.bincount([ticket.row for ticket in tickets], minlength=12)
    assert (uses[2:] == epochs).all()
    expected = (10 / 2) ** balance * epochs
    assert np.abs(uses[:2] - expected).max() <= 4 * np.sqrt(epochs) / 2  # the part of 1 is drawn
    assert len({ticket.seed for ticket in tickets}) == len(tickets)


@pytest.mark.parametrize("balance", [0.0, 0.7])
def test_a_plan_begins_anywhere(balance):
    table = catalog()
    table.sources[:] = ["rare"] * 2 + ["common"] * 10
    whole = list(Plan(table, max_edges=150, epochs=3, seed=1, balance=balance))
    for start in (0, 1, 7, len(whole)):
        plan = Plan(table, max_edges=150, epochs=3, seed=1, balance=balance)
        plan.start = start
        assert list(plan) == whole[start:]
        assert len(plan) == len(whole)


def test_loader_state_is_the_number_of_batches_handed_out(tmp_path):
    path = tmp_path / "a.xyz"
    write(path, structures())
    structure_set = StructureSet([str(path)], options(), CAP, False)

    def loader():
        plan = Plan(structure_set.catalog, max_edges=300, epochs=2, seed=1)
        return TrainingLoader(structure_set, plan, rotate=True, workers=0)

    whole, first, second = list(loader()), loader(), loader()
    batches = iter(first)
    for _ in range(3):
        next(batches)
    second.load_state_dict(first.state_dict())
    rest = list(second)
    assert len(rest) == len(whole) - 3 > 0
    for left, right in zip(rest, whole[3:], strict=True):
        assert torch.equal(left.graph.vectors, right.graph.vectors)


def test_labels_that_are_missing_or_not_finite_are_named(tmp_path):
    path = tmp_path / "a.xyz"
    write(path, [bulk("Cu")])
    with pytest.raises(ValueError, match=r"a.xyz:0: no energy and forces"):
        StructureSet([str(path)], options(), CAP, False)
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=np.inf, forces=np.zeros((1, 3)))
    write(path, [atoms])
    with pytest.raises(ValueError, match=r"a.xyz:0: energy or forces are not finite"):
        StructureSet([str(path)], options(), CAP, False)
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((1, 3)))
    write(path, [atoms])
    with pytest.raises(ValueError, match=r"a.xyz:0: graph: `atoms.info` lacks \['charge', 'spin'\]"):
        StructureSet([str(path)], options(), CAP, True)


def test_labels_may_have_other_names(tmp_path):
    path, frames = tmp_path / "a.xyz", structures()[:2]
    renamed = []
    for atoms in frames:
        copy = atoms.copy()
        copy.info |= {"REF_energy": atoms.get_potential_energy(), "REF_stress": atoms.get_stress(voigt=False)}
        copy.arrays["REF_forces"] = atoms.get_forces()
        renamed.append(copy)
    write(path, renamed)
    keys = {f"{name}_key": f"REF_{name}" for name in ("energy", "forces", "stress")}
    found = StructureSet([str(path)], options(**keys), CAP, False)
    for sample, atoms in zip(found, frames, strict=True):
        assert float(sample.labels.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        assert np.abs(sample.labels.forces.numpy() - atoms.get_forces()).max() < 1e-7
        assert np.abs(sample.labels.stress.numpy()[0] - atoms.get_stress()).max() < 1e-7
    with pytest.raises(ValueError, match=r"a.xyz:0: `data.energy_key` is 'E' but there are \['REF_energy', "):
        StructureSet([str(path)], options(energy_key="E"), CAP, False)
