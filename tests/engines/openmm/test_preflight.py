"""What the checks before a run find, one mistake at a time; and that they find nothing in good structures."""

import re
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase import Atoms  # noqa: E402
from ase.build import bulk, graphene, molecule  # noqa: E402
from openmm import app, unit  # noqa: E402
from orb_export import cli  # noqa: E402
from orb_export.artefact import read_metadata  # noqa: E402
from orb_export.openmm.preflight import CHECKS, Finding, Plan, examine  # noqa: E402
from orb_export.openmm.structures import Structure, from_ase, read_biomolecular, with_atoms  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402

RECORD = {"elements": list(range(1, 118)), "model": "m", "kind": "conservative", "cutoff": 6.0}
RECORD |= {"has_charge_spin": False}
CHARGED = {**RECORD, "has_charge_spin": True, "model": "omol"}
DATA = Path(app.__file__).parent / "data"


def check(structure: Structure, record: dict[str, Any] = RECORD, **plan: Any) -> list[str]:
    return [str(finding) for finding in examine(structure, record, Plan(**plan))]


@pytest.fixture(scope="module")
def protein() -> Structure:
    """Villin of OpenMM's own data, without its water and box; 582 atoms."""
    read = read_biomolecular(DATA / "test.pdb")
    modeller = app.Modeller(read.topology, read.positions * unit.nanometer)
    modeller.deleteWater()
    modeller.delete([residue for residue in modeller.topology.residues() if residue.name in ("CL", "Cl-")])
    modeller.topology.setPeriodicBoxVectors(None)
    return with_atoms(read, modeller.topology, modeller.positions)


def without(structure: Structure, wanted) -> Structure:
    modeller = app.Modeller(structure.topology, structure.positions * unit.nanometer)
    modeller.delete([atom for atom in modeller.topology.atoms() if wanted(atom)])
    return with_atoms(structure, modeller.topology, modeller.positions)


def test_a_good_protein_passes(protein):
    assert check(protein) == []


def test_deposited_files_of_proteins_are_caught(shared):
    findings = check(read_biomolecular(shared / "data/proteins/carbonic_anhydrase_II/1CA2.pdb"))
    assert len(findings) == 2
    assert re.fullmatch(
        r"error \[hydrogens\]: 2289 hydrogens are missing in 423 residues: HIS 4 in chain A \(0 of 6\), .* "
        "and 418 more; the file has none at all: --fix adds them",
        findings[0],
    )
    assert "error [space-group]: the file has the space group P 1 21 1 and one asymmetric" in findings[1]


def test_good_solvated_proteins_pass(shared):
    for name in ("alanine-dipeptide-explicit", "chignolin", "dhfr", "toluene", "methanol-ions"):
        assert check(read_biomolecular(shared / f"data/proteins/solvated/{name}.pdb")) == [], name


@pytest.mark.parametrize("name", CASES)
def test_structures_of_ase_have_no_errors(name):
    found = examine(from_ase(CASES[name]), RECORD, Plan())
    assert not [finding for finding in found if finding.level == "error"], name


def test_hydrogens_of_side_chains_are_missed_one_by_one(protein):
    one = without(protein, lambda atom: atom.name == "HB2" and atom.residue.name == "ALA")
    alanines = sum(residue.name == "ALA" for residue in protein.topology.residues())
    (finding,) = check(one)
    assert f"error [hydrogens]: {alanines} hydrogens are missing in {alanines} residues: ALA" in finding
    assert "(6 of 7)" in finding or "(5 of 6)" in finding or "(4 of 5)" in finding
    assert "none at all" not in finding


def test_hydrogens_that_depend_on_ph_may_be_absent(protein):
    protonated = without(protein, lambda atom: atom.name in ("HD1", "HE2", "HZ3", "H2", "H3"))
    assert not [line for line in check(protonated) if "HIS" in line]


def test_molecules_without_hydrogens_are_doubted_only():
    bare = molecule("CH3CONH2")
    del bare[[atom.index for atom in bare if atom.symbol == "H"]]
    (finding,) = check(from_ase(bare))
    assert finding.startswith("warning [hydrogens]: no hydrogens, though there is carbon with N or O: MOL 1")
    for fine in (molecule("CO2"), molecule("N2"), graphene(size=(2, 2, 1)), molecule("C6H6")):
        assert not [line for line in check(from_ase(fine)) if "hydrogens" in line]


SPINS = [
    ("OH", 0, 2, None),
    ("OH", -1, 1, None),
    ("O2", 0, 3, None),
    ("OH", 0, 1, "9 electrons (charge 0) cannot have the multiplicity 1, only 2, 4, 6, ...; a missing"),
    ("H2O", 0, 2, "10 electrons (charge 0) cannot have the multiplicity 2, only 1, 3, 5, ..."),
    ("H2O", 1, 1, "9 electrons (charge 1) cannot have the multiplicity 1"),
    ("H", 0, 4, "1 electrons are too few for the multiplicity 4"),
    ("H2O", 0.5, 1, "the charge 0.5 and the multiplicity 1 must be whole"),
    ("H2O", 0, 0, "the charge 0 and the multiplicity 0 must be whole, the latter 1 or more"),
    ("H2O", None, 1, "omol depends on total charge and spin multiplicity: give --charge"),
    ("H2O", None, None, "give --charge and --spin"),
]


@pytest.mark.parametrize(("name", "charge", "spin", "message"), SPINS)
def test_spin_must_fit_the_electrons(name, charge, spin, message):
    structure = from_ase(Atoms("H") if name == "H" else molecule(name))
    findings = check(structure, CHARGED, charge=charge, spin=spin)
    assert len(findings) == (message is not None)
    if message is not None:
        assert findings[0].startswith("error [spin]: ")
        assert message in findings[0]


def test_charge_of_a_model_without_is_noted():
    (finding,) = check(from_ase(molecule("H2O")), charge=0, spin=1)
    assert finding == "note [spin]: m does not depend on charge or spin: they are not used"


def test_close_contacts_are_named(protein):
    close = protein.positions.copy()
    first, second = 100, 400
    close[second] = close[first] + [0.03, 0, 0]
    findings = check(protein._replace(positions=close))
    line = next(line for line in findings if line.startswith("error [contacts]: atoms too close: "))
    assert f"{protein.label(first)} and {protein.label(second)}, 0.30 Å" in line


def test_close_contacts_through_the_box_are_found():
    atoms = Atoms("C2", [[0.2, 1, 1], [9.5, 1, 1]], cell=[10, 10, 10], pbc=[True, False, False])
    finding = check(from_ase(atoms))[0]
    assert "C1 of MOL 1 in chain A (atom 0) and C2 of MOL 1 in chain A (atom 1), 0.70 Å" in finding
    atoms.pbc = False
    assert not [line for line in check(from_ase(atoms)) if "contacts" in line]
    image = Atoms("Fe", cell=[1.0, 5, 5], pbc=True)
    assert "and its own image, 1.00 Å" in check(from_ase(image))[0]


@pytest.mark.parametrize(
    "name", ["CO", "N2", "C2H2", "H2", "O2", "HCN", "F2", "LiF", "HF", "P2", "SiO", "NaCl"]
)
def test_short_bonds_of_molecules_are_no_contacts(name):
    assert not [line for line in check(from_ase(molecule(name))) if "contacts" in line]


@pytest.mark.parametrize(
    "atoms",
    [bulk("Cu"), bulk("Cs"), bulk("LiF", "rocksalt", a=4.03), bulk("CsF", "rocksalt", a=6.01), bulk("C")],
    ids=str,
)
def test_crystals_are_no_contacts(atoms):
    assert not [line for line in check(from_ase(atoms)) if "contacts" in line]


def test_positions_that_are_not_finite_are_named():
    structure = from_ase(molecule("H2O"))
    structure.positions[2, 1] = np.nan
    assert check(structure) == [
        "error [contacts]: the position of H3 of MOL 1 in chain A (atom 2) is not finite"
    ]


def test_gaps_in_a_chain_are_found(protein):
    gap = protein.positions.copy()
    gap[300:] += [2.0, 0, 0]
    line = next(line for line in check(protein._replace(positions=gap)) if "[bonds]" in line)
    assert re.match(r"warning \[bonds\]: \d+ bonds are torn .*, \d\d\.\d\d Å", line)


def test_charged_models_in_a_box_are_stopped():
    atoms = molecule("H2O", vacuum=5)
    assert check(from_ase(atoms), CHARGED, charge=0, spin=1) == []
    atoms.pbc = True
    finding = check(from_ase(atoms), CHARGED, charge=1, spin=2)[0]
    assert finding.startswith("error [periodic-charge]: omol is conditioned on total charge and spin, as of")
    assert "every image has the charge 1 and multiplicity 2: leave the box out with --no-box" in finding
    neutral = check(from_ase(atoms), CHARGED, charge=0, spin=1)[0]
    assert neutral.startswith("warning [periodic-charge]: omol is")


def test_elements_unknown_to_the_model_are_named():
    (finding,) = check(from_ase(molecule("CH3Cl")), {**RECORD, "elements": [1, 6]})
    assert (
        finding
        == "error [elements]: m does not know Cl; the first such atom is Cl2 of MOL 1 in chain A (atom 1)"
    )


def test_atoms_without_element_are_named(protein):
    nameless = without(protein, lambda atom: False)
    next(nameless.topology.atoms()).element = None
    assert check(nameless)[0].startswith("error [elements]: N of LEU")


def test_partial_occupancy_is_an_error(tmp_path):
    file = tmp_path / "alloy.cif"
    file.write_text(
        "data_a\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n"
        "_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n"
        "_atom_site_fract_z\n_atom_site_occupancy\nFe1 Fe 0 0 0 0.75\nNi1 Ni 0 0 0 0.25\n"
    )
    findings = check(from_ase(ase.io.read(file)))
    assert (
        "error [occupancy]: sites are occupied in part (0.25, 0.75): choose an ordered structure" in findings
    )


def test_missing_atoms_are_listed(protein):
    cut = without(protein, lambda atom: atom.residue.name == "PHE" and atom.name == "CZ")
    line = next(line for line in check(cut) if "[missing-atoms]" in line)
    assert re.match(r"warning \[missing-atoms\]: \d residues lack atoms: PHE \d+ \(CZ\)", line)


def test_alternate_conformations_are_told(protein):
    assert (
        "warning [alternates]: 3 residues have several conformations"
        in check(protein._replace(alternates=3))[0]
    )


def test_boxes_are_looked_at():
    dense = from_ase(bulk("Cu", cubic=True))
    assert check(dense) == [
        "note [box]: the box is 3.6 Å high, less than two cutoffs (12 Å): allowed, atoms see several images "
        "of each other"
    ]
    empty = Atoms("He", cell=[40, 40, 40], pbc=True)
    assert re.match(
        r"warning \[box\]: the density is \S+ g/cm³: is the box right\?", check(from_ase(empty))[0]
    )
    lost = bulk("Cu", cubic=True) * 2
    lost.pbc = False
    assert check(from_ase(lost)) == [
        "warning [box]: no box: if this is a crystal, its file lacks the cell",
    ]
    read = read_biomolecular(DATA / "tip3p.pdb")
    read.topology.setPeriodicBoxVectors(None)
    (finding,) = check(read._replace(periodic=(False,) * 3))
    assert re.match(r"warning \[box\]: \d+ waters without a box", finding)


def test_direct_models_have_no_energy_for_monte_carlo():
    direct = {**RECORD, "kind": "direct"}
    structure = from_ase(molecule("H2O"))
    assert check(structure, direct) == []
    assert check(structure, direct, needs_energy=True)[0].startswith(
        "error [direct]: the forces of m are not"
    )


def test_long_steps_with_hydrogen_are_doubted():
    assert check(from_ase(molecule("H2O")), timestep=1.0) == []
    assert check(from_ase(molecule("H2O")), timestep=2.0) == [
        "warning [timestep]: 2 fs is long for hydrogen without constraints: 1 fs or less"
    ]
    assert check(from_ase(molecule("N2")), timestep=2.0) == []


def test_all_names_of_checks_are_used():
    """So that --ignore knows each of them."""
    source = Path(examine.__code__.co_filename).read_text()
    used = set(re.findall(r'Finding\(\s*(?:"\w+"|level), "([a-z-]+)"', source))
    used |= set(re.findall(r'Finding\(\s*"\w+",\s*"([a-z-]+)"', source))
    assert used == set(CHECKS)


def test_errors_come_first():
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.2]], cell=[4, 4, 4], pbc=True)
    levels = [finding.level for finding in examine(from_ase(atoms), RECORD, Plan(timestep=3))]
    assert levels == ["error", "warning", "note"]
    assert isinstance(Finding("note", "box", ""), tuple)


@pytest.mark.parametrize("way", [["--ignore", "contacts"], ["--force"], []], ids=["ignore", "force", "stop"])
def test_the_command_stops_at_errors_unless_told(way, model, tmp_path, capsys):
    ase.io.write(tmp_path / "close.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.25]]))
    line = ["openmm", str(tmp_path / "close.xyz"), "--model", str(model), "-o", str(tmp_path / "run")]
    status = cli.main([*line, "--steps", "1", *way])
    said = capsys.readouterr().err
    assert "orb-export: error [contacts]: atoms too close: H1" in said
    assert status == (0 if way else 1)
    assert (tmp_path / "run").exists() == bool(way)
    if not way:
        assert "the structure has errors (contacts); --ignore contacts runs it as it is" in said


def test_the_command_can_check_only(model, tmp_path, capsys):
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    line = ["openmm", str(tmp_path / "water.xyz"), "--model", str(model), "-o", str(tmp_path / "run")]
    assert cli.main([*line, "--check-only"]) == 0
    assert "3 atoms, nothing that forbids a run" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_records_have_what_the_checks_read(model):
    assert set(RECORD) <= set(read_metadata(model))
