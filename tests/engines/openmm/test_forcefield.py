"""`ForceField('orbv3.xml')` alone, and what its tag and keywords accept.

Oracle: the artefact called from Python.
"""

import copy
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from openmm import app, unit
from orb_export.openmm import OrbV3Force, is_orbv3

from tests.engines.lammps.structures import CASES
from tests.engines.openmm.peptides import dipeptide, solvated
from tests.engines.openmm.systems import assert_same, boxed_for_openmm, context_of, measure, predicted
from tests.processes import printed_by

CHECK = "OpenMM: ForceField against Python, float64"
BOXED = {name: boxed_for_openmm(atoms) for name, atoms in CASES.items()}


def topology_of(atoms: Atoms, residues: str = "one") -> app.Topology:
    """Without bonds: all atoms in one residue, or each in its own."""
    topology = app.Topology()
    chain = topology.addChain()
    residue = topology.addResidue("UNK", chain)
    for index, number in enumerate(atoms.numbers):
        if residues == "each" and index:
            residue = topology.addResidue("UNK", chain)
        topology.addAtom("X", app.Element.getByAtomicNumber(int(number)), residue)
    if atoms.cell.rank == 3:
        topology.setPeriodicBoxVectors(atoms.cell.array * 0.1 * unit.nanometer)
    return topology


def crystal() -> Atoms:
    atoms = boxed_for_openmm(bulk("NaCl", "rocksalt", a=5.64) * (2, 2, 2))
    atoms.rattle(0.1, seed=3)
    return atoms


def force_in(system: openmm.System) -> OrbV3Force:
    (force,) = (OrbV3Force.cast(force) for force in system.getForces() if is_orbv3(force))
    return copy.deepcopy(force)  # lives longer than the System


def alone(topology, model, **options) -> openmm.System:
    return app.ForceField("orbv3.xml").createSystem(topology, orbModel=str(model), **options)


def written(tmp_path, attributes: str, name: str = "mine.xml") -> str:
    path = tmp_path / name
    path.write_text(f'<ForceField><Include file="orbv3.xml"/><OrbV3Force {attributes}/></ForceField>')
    return str(path)


@pytest.mark.parametrize("case", BOXED)
@pytest.mark.parametrize("residues", ["one", "each"])
def test_atoms_without_bonds_have_the_forces_of_the_model(case, residues, model):
    atoms = BOXED[case]
    system = alone(topology_of(atoms, residues), model, orbPeriodic=list(atoms.pbc))
    assert_same(measure(context_of(system, atoms.positions)), predicted(atoms, model), CHECK)


def test_a_compiled_artefact_has_the_forces_of_the_model(compiled_model):
    atoms = crystal()
    system = alone(topology_of(atoms), compiled_model)
    assert_same(measure(context_of(system, atoms.positions)), predicted(atoms, compiled_model), CHECK)


def test_a_molecule_without_a_box_has_the_forces_of_the_model(model):
    topology, positions = dipeptide()
    numbers = [atom.element.atomic_number for atom in topology.atoms()]
    atoms = Atoms(numbers, positions * 10)
    assert_same(measure(context_of(alone(topology, model), atoms.positions)), predicted(atoms, model), CHECK)


def test_a_solution_has_the_forces_of_the_model_and_nothing_else(models):
    topology, positions = solvated()
    system = alone(topology, models["conservative-20"])
    numbers = [atom.element.atomic_number for atom in topology.atoms()]
    box = topology.getUnitCellDimensions().value_in_unit(unit.angstrom)
    atoms = Atoms(numbers, positions * 10, cell=box, pbc=True)
    actual = measure(context_of(system, atoms.positions))
    assert_same(actual, predicted(atoms, models["conservative-20"]), CHECK)
    assert system.getNumConstraints() == 0, "water stays flexible"
    assert {force.getName() for force in system.getForces()} == {
        "CMMotionRemover",
        "OrbV3Force",
        "OrbV3 molecules",
    }


def test_masses_are_those_of_the_elements(model):
    topology, _ = dipeptide()
    system = alone(topology, model)
    masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles())]
    assert masses == [atom.element.mass._value for atom in topology.atoms()]
    heavy = alone(topology, model, hydrogenMass=3 * unit.amu)
    assert heavy.getParticleMass(0)._value == 3
    assert heavy.getParticleMass(1)._value == pytest.approx(masses[1] - 3 * (3 - masses[0]))


def test_molecules_are_those_of_the_topology(models):
    topology, positions = solvated()
    context = context_of(alone(topology, models["conservative-20"]), positions * 10)
    sizes = sorted(len(molecule) for molecule in context.getMolecules())
    assert sizes == [3] * ((len(positions) - 22) // 3) + [22]


def test_one_residue_may_be_bonded_twice_and_across_residues(model):
    topology = topology_of(molecule("C2H6"), "each")
    atoms = list(topology.atoms())
    for first, second in ((0, 1), (0, 1), (1, 0), (0, 2), (2, 3)):
        topology.addBond(atoms[first], atoms[second])
    assert force_in(alone(topology, model)).numbers == [6, 6, *[1] * 6]


def test_a_second_system_of_the_same_force_field_and_of_another_are_the_same(model):
    topology, _ = dipeptide()
    forcefield = app.ForceField("orbv3.xml")
    systems = [
        forcefield.createSystem(topology, orbModel=model),
        forcefield.createSystem(topology, orbModel=model),
        app.ForceField("orbv3.xml").createSystem(topology, orbModel=model),
    ]
    assert len({openmm.XmlSerializer.serialize(system) for system in systems}) == 1


def test_extra_particles_are_refused_by_name(model):
    topology, _ = solvated("tip4pew")
    with pytest.raises(ValueError, match=r"no element for atom \d+ \(M of HOH\): delete extra particles"):
        alone(topology, model)


def test_the_file_is_found_by_its_name_from_anywhere_without_torch(tmp_path):
    code = (
        "import sys\n"
        "from openmm.app import ForceField\n"
        "names = [type(g).__name__ for g in ForceField('orbv3.xml').getGenerators()]\n"
        "assert names == ['OrbV3Generator'], names\n"
        "assert 'torch' not in sys.modules\n"
    )
    printed_by(code, cwd=tmp_path)


def test_a_users_file_needs_only_the_include(tmp_path, model):
    topology, _ = dipeptide()
    written(tmp_path, f'model="{model}"')
    code = (
        "from openmm import app\n"
        "from tests.engines.openmm.peptides import dipeptide\n"
        f"system = app.ForceField({str(tmp_path / 'mine.xml')!r}).createSystem(dipeptide().topology)\n"
        "names = sorted(force.getName() for force in system.getForces())\n"
        "assert names == ['CMMotionRemover', 'OrbV3 molecules', 'OrbV3Force'], names\n"
    )
    printed_by(code)
    assert force_in(app.ForceField(str(tmp_path / "mine.xml")).createSystem(topology)).artefact == model


def test_a_tag_without_the_include_is_refused(tmp_path, model):
    path = tmp_path / "mine.xml"
    path.write_text(f'<ForceField><OrbV3Force model="{model}"/></ForceField>')
    with pytest.raises(ValueError, match=r'`<Include file="orbv3\.xml"/>` is missing'):
        app.ForceField(str(path)).createSystem(dipeptide().topology)


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    with open("solution.pdb", "w") as file:
        topology, positions = solvated()
        app.PDBFile.writeFile(topology, positions * unit.nanometer, file)
    shutil.copy(model, "orb.pt2")
    page = (Path(__file__).parents[3] / "docs" / "openmm_forcefield.md").read_text()
    blocks = re.findall("```python\n(.*?)```", page.partition("## Examples")[2], re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(block, names)
    energy = names["simulation"].context.getState(energy=True).getPotentialEnergy()
    assert np.isfinite(energy.value_in_unit(unit.kilojoule_per_mole))
    assert len(blocks) == 4
    assert "lambda_interpolate" in openmm.XmlSerializer.serialize(names["mixed"]["system"])


@pytest.mark.filterwarnings("ignore:OrbV3.*cannot have spin:UserWarning")
@pytest.mark.parametrize("given", ["keyword", "attribute", "keyword over attribute"])
@pytest.mark.parametrize(
    ("option", "entry", "value", "other"),
    [
        ("device", "device", "cpu", "auto"),
        ("precision", "precision", "float64", "auto"),
        ("memoryLimit", "memoryLimit", 10**9, 0),
        ("program", "program", "steps", "whole"),
        ("threads", "threads", 1, 2),
        ("skin", "skin", 0.25, 0.5),
        ("forceGroup", "forceGroup", 7, 3),
        ("periodic", "periodicA", 0, 1),
        ("charge", "charge", -1, 1),
        ("spin", "spin", 3, 5),
    ],
)
def test_every_option_reaches_the_force(tmp_path, models, option, entry, value, other, given):
    keywords = {"orbModel": models["conservative-20"]}
    if option in ("charge", "spin"):
        keywords = {"orbModel": models["charged"], "orbCharge": 0, "orbSpin": 1}
    keyword = f"orb{option[0].upper()}{option[1:]}"
    keywords.pop(keyword, None)
    if given != "attribute":
        keywords[keyword] = value
    written_value = {"keyword": "", "attribute": f'{option}="{value}"'}.get(given, f'{option}="{other}"')
    forcefield = app.ForceField(written(tmp_path, written_value))
    record = force_in(forcefield.createSystem(topology_of(crystal()), **keywords))._record()
    assert type(value)(record[entry]) == value


def test_an_artefact_may_be_embedded(tmp_path, model):
    systems = [
        alone(dipeptide().topology, model, orbEmbed=True),
        app.ForceField(written(tmp_path, f'model="{model}" embed="true"')).createSystem(dipeptide().topology),
    ]
    assert [force_in(system).embedded for system in systems] == [True, True]


def test_quantities_have_their_units(models):
    system = alone(
        topology_of(crystal()),
        models["charged"],
        orbCharge=2 * unit.elementary_charge,
        orbSpin=1,
        orbSkin=1.5 * unit.angstrom,
    )
    record = force_in(system)._record()
    assert (float(record["charge"]), float(record["skin"])) == (2, pytest.approx(0.15))


def test_a_slab_is_periodic_in_two_directions(model):
    system = alone(topology_of(crystal()), model, orbPeriodic=(True, True, False))
    assert force_in(system).periodic == (True, True, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orbModel": None}, "`orbModel` is missing"),
        ({"orbSkim": 0.1}, "'orbSkim' was specified to createSystem.* but was never used"),
        ({"orbLinkAtomDistance": [1]}, "'orbLinkAtomDistance' was specified"),
        ({"constraints": app.HBonds}, "`constraints` is HBonds but has no meaning"),
        ({"rigidWater": True}, "`rigidWater` is True but has no meaning"),
        ({"orbRegion": "all"}, "`orbRegion` is 'all' but has no meaning here: there is no other force field"),
        ({"orbInterpolate": True}, "`orbInterpolate` is True but has no meaning"),
        ({"orbLinkAtomDistances": [(0, 1, 0.1)]}, "`orbLinkAtomDistances` is"),
        ({"orbCharge": 1}, "`orbCharge` is given but the model does not depend on it"),
        ({"orbSpin": 1}, "`orbSpin` is given but the model does not depend on it"),
        ({"orbSkin": -1}, "`skin` is -1"),
        ({"orbForceGroup": 32}, "`force_group` has 32"),
        ({"orbPeriodic": True}, "`periodic` is True but the Topology has no box vectors"),
    ],
)
def test_a_keyword_without_sense_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        app.ForceField("orbv3.xml").createSystem(dipeptide().topology, **{"orbModel": model, **options})


@pytest.mark.parametrize("missing", ["charge", "spin"])
def test_charge_and_spin_are_never_assumed(models, missing):
    options = {"orbCharge": 0, "orbSpin": 1}
    del options[f"orb{missing.capitalize()}"]
    with pytest.raises(ValueError, match=f"`orb{missing.capitalize()}` is missing: the model depends on it"):
        alone(dipeptide().topology, models["charged"], **options)


def test_an_impossible_spin_is_told(models):
    with pytest.warns(UserWarning, match="78 electrons .* cannot have spin multiplicity 2"):
        alone(dipeptide().topology, models["charged"], orbCharge=0, orbSpin=2)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ('modle="a.pt2"', "unknown attribute `modle`; there are model, region"),
        ('skin="wide"', "`skin` is 'wide'"),
        ('interpolate="maybe"', "`interpolate` is 'maybe': must be true or false"),
        ('threads="1.5"', "`threads` is '1.5'"),
    ],
)
def test_an_attribute_without_sense_is_refused(tmp_path, attributes, message):
    with pytest.raises(ValueError, match=message):
        app.ForceField(written(tmp_path, attributes))


def test_two_tags_may_complete_but_not_contradict_each_other(tmp_path, model):
    first, second = written(tmp_path, f'model="{model}"'), written(tmp_path, 'skin="0.2"', "second.xml")
    force = force_in(app.ForceField(first, second).createSystem(dipeptide().topology))
    assert force.artefact == model
    assert float(force._record()["skin"]) == 0.2
    third = written(tmp_path, 'skin="0.3"', "third.xml")
    with pytest.raises(ValueError, match=r"`skin` is '0.3' in one tag and 0.2 in another"):
        app.ForceField(second, third)


class TestBesideAForceField:
    FILES = ("amber14/protein.ff14SB.xml", "amber14/tip3p.xml", "orbv3.xml")

    def test_a_region_is_needed(self, model):
        with pytest.raises(ValueError, match=r"`orbRegion` is missing: the atoms that the model takes over"):
            app.ForceField(*self.FILES).createSystem(dipeptide().topology, orbModel=model)

    def test_a_residue_without_parameters_is_refused_as_ever(self, model):
        with pytest.raises(ValueError, match="No template found for residue"):
            app.ForceField(*self.FILES).createSystem(
                topology_of(molecule("C2H6")), orbModel=model, orbRegion="all"
            )

    def test_a_region_without_openmm_ml_says_what_to_install(self, monkeypatch, model):
        monkeypatch.setitem(sys.modules, "openmmml", None)
        with pytest.raises(ImportError, match=r"`orbRegion` needs openmm-ml .* pip install 'openmmml>=1\.8'"):
            app.ForceField(*self.FILES).createSystem(dipeptide().topology, orbModel=model, orbRegion="all")

    def test_two_cut_bonds_at_one_atom_are_refused(self, model):
        with pytest.raises(
            ValueError, match=r"cuts more than one bond at atom 10 \(CB of ALA 2\): take it in"
        ):
            app.ForceField(*self.FILES).createSystem(
                dipeptide().topology, orbModel=model, orbRegion="name HB1 HB2"
            )

    def test_the_region_of_the_file_is_used(self, tmp_path, model):
        mine = written(tmp_path, f'model="{model}" region="resname ALA and name CB HB1 HB2 HB3"')
        system = app.ForceField(*self.FILES[:2], mine).createSystem(dipeptide().topology)
        assert force_in(system).particles == [10, 11, 12, 13, 22]

    @pytest.mark.parametrize("solvent", ["implicit/obc2.xml", "implicit/gbn2.xml"])
    def test_link_atoms_are_refused_in_implicit_solvent_and_whole_molecules_are_not(self, model, solvent):
        topology, positions = dipeptide()
        forcefield = app.ForceField(self.FILES[0], solvent, "orbv3.xml")
        whole = forcefield.createSystem(topology, orbModel=model, orbRegion="all")
        assert np.isfinite(measure(context_of(whole, positions * 10)).energy)
        with pytest.raises(ValueError, match=r"cuts a bond, and \w+ cannot take link atoms"):
            forcefield.createSystem(topology, orbModel=model, orbRegion="resname ALA")

    def test_a_polarizable_force_field_is_refused(self, model):
        topology = dipeptide().topology
        forcefield = app.ForceField("amoeba2018.xml", "orbv3.xml")
        with pytest.raises(ValueError, match="`orbRegion` cannot be embedded in CustomCompoundBondForce"):
            forcefield.createSystem(topology, orbModel=model, orbRegion="all")

    def test_another_charge_than_that_of_the_force_field_is_told(self, models):
        with pytest.warns(
            UserWarning, match=r"`orbCharge` is 2 but the charges of the region .* up to 0\.00"
        ):
            app.ForceField(*self.FILES).createSystem(
                dipeptide().topology, orbModel=models["charged"], orbRegion="all", orbCharge=2, orbSpin=1
            )
