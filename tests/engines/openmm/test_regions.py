"""Regions of a Topology. Oracle: the atoms named one by one."""

import pytest
from openmm.app import Topology, element
from orb_export.openmm.regions import select

from tests.engines.openmm.peptides import dipeptide


@pytest.fixture(scope="module")
def topology():
    """ACE-ALA-NME (chain A, atoms 0-21), a zinc ion (22, chain B), and water with an extra point (23-26)."""
    made = dipeptide().topology
    chain = made.addChain("B")
    made.addAtom("ZN", element.zinc, made.addResidue("ZN", chain, id="262"))
    water = made.addResidue("HOH", chain, id="263")
    kinds = element.oxygen, element.hydrogen, element.hydrogen, None
    for name, kind in zip(("O", "H1", "H2", "M"), kinds, strict=True):
        made.addAtom(name, kind, water)
    return made


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("all", range(27)),
        ("resname ALA", range(6, 16)),
        ("resname ALA ZN", [*range(6, 16), 22]),
        ("chain B", range(22, 27)),
        ("resid 262", [22]),
        ("residue 0", range(6)),
        ("residue 0-1 3", [*range(16), 22]),
        ("index 0-2 5 26", [0, 1, 2, 5, 26]),
        ("name CA CB", [8, 10]),
        ("element Zn", [22]),
        ("not chain A", range(22, 27)),
        ("element C and not resname ALA", [1, 4, 18]),
        ("resname ZN or resname ALA and name CB", [10, 22]),
        ("(resname ZN or resname ALA) and name CB", [10]),
        ("not (chain A or not element O)", [23]),
        ("not not resid 262", [22]),
    ],
)
def test_a_selection_is_these_atoms(topology, selection, expected):
    assert select(topology, selection) == list(expected)


def test_atoms_residues_chains_indices_and_functions_are_regions(topology):
    atoms, residues, chains = map(list, (topology.atoms(), topology.residues(), topology.chains()))
    assert select(topology, [9, 3, 3]) == [3, 9]
    assert select(topology, atoms[4]) == select(topology, 4) == [4]
    assert select(topology, residues[3]) == [22]
    assert select(topology, chains[1]) == [22, 23, 24, 25, 26]
    assert select(topology, [residues[3], atoms[1], 0]) == [0, 1, 22]
    assert select(topology, lambda atom: atom.element is None) == [26]


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("", "`region` is '': it ends where one of resname"),
        ("resname", "resname has no value"),
        ("resname and chain A", "resname has no value"),
        ("residues 3", "'residues' stands where one of"),
        ("resname ALA and", "it ends where one of"),
        ("(chain A", r"a `\)` is missing"),
        ("chain A)", r"'\)' is one too many"),
        ("all chain A", "'chain' is one too many"),
        ("index 3-", "'3-' is no number or range"),
        ("index -1", "'-1' is no number or range"),
        ("resname XXX", "none of the 27 atoms"),
        ([], "none of the 27 atoms"),
        ([27], "`region` has 27 but the Topology has 27 atoms"),
        ([-1], "`region` has -1 but"),
    ],
)
def test_a_region_without_sense_says_why(topology, region, message):
    with pytest.raises(ValueError, match=message):
        select(topology, region)


@pytest.mark.parametrize("region", [["CA"], [1.0], [True], 1.5, None])
def test_a_region_of_other_things_is_a_type_error(topology, region):
    with pytest.raises(TypeError, match="`region` has"):
        select(topology, region)


def test_atoms_of_another_topology_are_refused(topology):
    other = Topology()
    other.addAtom("ZN", element.zinc, other.addResidue("ZN", other.addChain()))
    with pytest.raises(ValueError, match="not of this Topology"):
        select(topology, list(other.atoms()))
