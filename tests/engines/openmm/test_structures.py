"""Structures on their way into OpenMM. Oracle: the lattice stays the same, judged by ASE's distances."""

from pathlib import Path

import ase.io
import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase import Atoms  # noqa: E402
from ase.build import bulk, graphene, molecule  # noqa: E402
from ase.neighborlist import neighbor_list  # noqa: E402
from openmm import app, unit  # noqa: E402
from orb_export.openmm import solvate, structures  # noqa: E402
from orb_export.openmm.molecules import made_whole  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402


def environments(atoms: Atoms) -> np.ndarray:
    """Sorted rows of atomic numbers and distances of all pairs within 5 angstrom."""
    first, second, distances = neighbor_list("ijd", atoms, 5.0)
    rows = np.stack([atoms.numbers[first], atoms.numbers[second], distances], axis=1)
    return rows[np.lexsort(rows.round(6).T)]


@pytest.mark.parametrize("name", CASES)
def test_boxes_are_those_of_openmm_and_the_lattice_stays(name):
    atoms = CASES[name]
    boxed = structures.boxed_for_openmm(atoms)
    np.testing.assert_allclose(environments(boxed), environments(atoms), atol=1e-6)
    structure = structures.from_ase(atoms)
    assert structure.periodic == tuple(boxed.pbc)
    assert sum(structure.periodic) == atoms.pbc.sum()
    if structure.box is None:
        assert not atoms.pbc.any()
        return
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*structure.box)  # refuses boxes that are not reduced
    assert not np.triu(structure.box, 1).any()
    assert (np.diag(structure.box) > 0).all()
    if atoms.pbc.all():
        assert np.linalg.det(structure.box) == pytest.approx(atoms.get_volume() / 1000, rel=1e-12)


def test_boxes_of_openmm_stay_as_they_are_to_the_last_bit():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=1)
    boxed = structures.boxed_for_openmm(atoms)
    np.testing.assert_array_equal(boxed.positions, atoms.positions)
    np.testing.assert_array_equal(boxed.cell.array, atoms.cell.array)


def test_periodic_axes_must_have_vectors():
    for cell in ([5, 5, 0], [[5, 0, 0], [0, 5, 0], [5, 5, 0]]):
        with pytest.raises(ValueError, match="periodic along lattice vectors that are zero or dependent"):
            structures.from_ase(Atoms("H", cell=cell, pbc=True))


def test_velocities_turn_with_the_structure():
    atoms = CASES["left-handed cell"].copy()
    atoms.set_velocities(np.random.default_rng(3).normal(size=(len(atoms), 3)))
    boxed = structures.boxed_for_openmm(atoms)
    overlap = atoms.positions @ atoms.get_velocities().T
    np.testing.assert_allclose(boxed.positions @ boxed.get_velocities().T, overlap, atol=1e-10)


def water_box() -> Atoms:
    """Eight molecules in a skewed cell, cut by it."""
    box = Atoms(cell=[[6.2, 0, 0], [2.9, 6.2, 0], [-2.5, 1.9, 6.2]], pbc=True)
    for place in np.ndindex(2, 2, 2):
        one = molecule("H2O")
        one.positions += 0.5 * np.array(place) @ box.cell.array + 1e-3
        box += one
    box.wrap()
    return box


def test_molecules_are_found_and_made_whole():
    atoms = water_box()
    longest = max(atoms.get_distance(3 * k, 3 * k + 1) for k in range(8))
    assert longest > 3  # of one molecule, cut
    structure = structures.from_ase(atoms)
    assert sorted(map(tuple, structure.bonds)) == [(3 * k, 3 * k + i) for k in range(8) for i in (1, 2)]
    lengths = np.linalg.norm(np.diff(structure.positions[structure.bonds], axis=1), axis=-1)
    np.testing.assert_allclose(lengths, 0.0969, atol=5e-4)
    moved = (structure.positions * 10 - structures.boxed_for_openmm(atoms).positions) @ np.linalg.inv(
        structure.box * 10
    )
    np.testing.assert_allclose(moved, moved.round(), atol=1e-10)
    assert abs(moved).max() == 1


@pytest.mark.parametrize(
    "atoms",
    [bulk("Si", cubic=True), bulk("C", cubic=True), graphene(size=(3, 3, 1), vacuum=5), bulk("Cu") * 2],
    ids=["silicon", "diamond", "graphene", "copper"],
)
def test_solids_have_no_molecules(atoms):
    assert len(structures.from_ase(atoms).bonds) == 0


def test_a_molecule_on_a_solid_is_one():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 1)
    atoms.cell[2, 2] += 10
    water = molecule("H2O")
    water.positions += [5, 5, 10]
    assert sorted(map(tuple, structures.from_ase(atoms + water).bonds)) == [(32, 33), (32, 34)]


def test_whole_molecules_stay_where_they_are():
    positions, box = np.random.default_rng(4).random((5, 3)), np.eye(3) * 3
    bonds = np.array([(0, 1), (1, 2), (3, 4)])
    np.testing.assert_allclose(made_whole(positions, box, bonds), positions, atol=1e-15)


PDB = """\
CRYST1{cell}  90.00  90.00  90.00 {group}
ATOM      1  N  AGLY A   1       0.000   0.000   0.000  0.50  0.00           N
ATOM      2  N  BGLY A   1       0.300   0.000   0.000  0.50  0.00           N
ATOM      3  CA  GLY A   1       1.450   0.000   0.000  1.00  0.00           C
END
"""


def test_what_a_pdb_file_says_is_read(tmp_path):
    file = tmp_path / "a.pdb"
    file.write_text(PDB.format(cell="   20.000   30.000   40.000", group="P 21 21 21"))
    structure = structures.read_biomolecular(file)
    np.testing.assert_allclose(structure.box, np.diag([2.0, 3.0, 4.0]))
    assert (structure.space_group, structure.needs_symmetry) == ("P 21 21 21", True)
    assert structure.alternates == 1
    np.testing.assert_allclose(structure.positions[0], 0.0)
    assert structure.label(1) == "CA of GLY 1 in chain A (atom 1)"
    file.write_text(PDB.format(cell="    1.000    1.000    1.000", group="P 1"))
    structure = structures.read_biomolecular(file)
    assert structure.box is None  # what programs write for "none"
    assert structure.periodic == (False, False, False)


def test_mmcif_and_cif_are_told_apart(tmp_path):
    crystal, protein = tmp_path / "crystal.cif", tmp_path / "protein.cif"
    ase.io.write(crystal, bulk("NaCl", "rocksalt", a=5.64))
    topology = structures.from_ase(molecule("H2O")).topology
    with protein.open("w") as stream:
        app.PDBxFile.writeFile(topology, molecule("H2O").positions * unit.angstrom, stream)
    assert not structures.is_biomolecular(crystal)
    assert structures.is_biomolecular(protein)
    assert len(structures.read_biomolecular(protein).numbers) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("not a structure\n", "holds no atoms|cannot be read by OpenMM"), ("ATOM  nonsense\n", "cannot be")],
)
def test_files_that_are_no_pdb_files_are_named(text, message, tmp_path):
    file = tmp_path / "bad.pdb"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"structure: `{file}` ({message})"):
        structures.read_biomolecular(file)
    with pytest.raises(FileNotFoundError, match=r"missing\.pdb` does not exist"):
        structures.read_biomolecular(tmp_path / "missing.pdb")


def readable(file: Path) -> Atoms | None:
    try:
        return ase.io.read(file)
    except Exception:
        return None


def test_ugly_crystals_find_a_box_or_say_why(shared):
    files = sorted((shared / "data/ugly_structures").rglob("*.*"))
    read = {file.name: readable(file) for file in files}
    found = {name: atoms for name, atoms in read.items() if atoms is not None and len(atoms) < 2000}
    assert len(found) > 20
    refused = {}
    for name, atoms in found.items():
        try:
            structure = structures.from_ase(atoms)
        except ValueError as error:
            refused[name] = str(error)
            continue
        if structure.box is not None:
            openmm.System().setDefaultPeriodicBoxVectors(*structure.box)
            if len(atoms) < 300:
                boxed = structures.boxed_for_openmm(atoms)
                np.testing.assert_allclose(environments(boxed), environments(atoms), atol=1e-5, err_msg=name)
    assert {name: message for name, message in refused.items() if "structure: " not in message} == {}
    assert "heavy_Z118_Og.xyz" in refused


def ethanol() -> structures.Structure:
    return structures.from_ase(molecule("CH3CH2OH"))


def test_water_is_added_around_what_no_force_field_knows():
    assert solvate.unknown_residues(ethanol()) == ["MOL"]
    solvated = solvate.add_water(ethanol(), padding=1.4, ionic_strength=0.5, charge=-2)
    residues = [residue.name for residue in solvated.topology.residues()]
    assert residues[0] == "MOL"
    assert residues.count("NA") - residues.count("CL") == 2
    assert residues.count("CL") == round(residues.count("HOH") * 0.5 / 55.4)
    assert all(solvated.periodic)
    np.testing.assert_allclose(solvated.positions[:9], ethanol().positions)
    oxygens = np.flatnonzero(solvated.numbers == 8)[1:]
    apart = np.linalg.norm(solvated.positions[oxygens][:, None] - solvated.positions[:9], axis=-1)
    assert apart.min() > 0.2
    again = solvate.add_water(ethanol(), padding=1.4, ionic_strength=0.5, charge=-2)
    np.testing.assert_array_equal(again.positions, solvated.positions)


def test_relaxing_moves_what_was_added_only():
    start = structures.from_ase(molecule("H2O"))
    for residue in start.topology.residues():
        residue.name = "HOH"
    for atom, name in zip(start.topology.atoms(), ("O", "H1", "H2"), strict=True):
        atom.name = name
    assert solvate.formal_charge(start) == 0
    solvated = solvate.add_water(start, padding=0.9)
    kept = solvate.kept_atoms(solvated, start)
    assert kept == [0, 1, 2]
    relaxed = solvate.relaxed(solvated, kept, iterations=5)
    np.testing.assert_array_equal(relaxed.positions[kept], solvated.positions[kept])
    assert (np.abs(relaxed.positions[3:] - solvated.positions[3:]).max(axis=1) > 0).all()


def test_missing_atoms_are_added(shared, tmp_path):
    """A deposited file made of a whole one, which is the oracle."""
    pytest.importorskip("pdbfixer", reason="needs pdbfixer")
    whole = shared / "data/proteins/solvated/chignolin.pdb"
    lost = (" HB2", " CG ", " OD1")
    lines = [
        line
        for line in whole.read_text().splitlines()
        if not line.startswith("ATOM") or (line[76:78].strip() != "H" and line[12:16] not in lost)
    ]
    file = tmp_path / "deposited.pdb"
    file.write_text("\n".join(line for line in lines if not line.startswith("CONECT")))
    deposited, complete = structures.read_biomolecular(file), structures.read_biomolecular(whole)
    assert len(deposited.numbers) < 0.6 * len(complete.numbers)
    fixed = solvate.add_missing(deposited, file, ph=7.0)
    assert abs(len(fixed.numbers) - len(complete.numbers)) <= 2  # protonation of the ends
    names = [{(atom.residue.index, atom.name) for atom in s.topology.atoms()} for s in (fixed, complete)]
    assert len(names[0] ^ names[1]) <= 4
    with pytest.raises(ValueError, match="`variants` has A:999, but the structure has no such residue"):
        solvate.add_missing(deposited, file, variants={"A:999": "HID"})
