"""Regions of a model in a force field.

Oracle: E(force field, all) - E(force field, region) + E(model, region), each from a System of its own. Which
terms belong to a cut region is openmm-ml's rule, written out here: bonds inside; angles around an inner atom
and torsions around two, as far as one bond beyond; pairs inside.
"""

import copy
import functools

import numpy as np
import openmm
import pytest
from openmm import app, unit
from orb_export.openmm import OrbV3Force, add_link_atoms, is_orbv3

from tests.accuracy import within
from tests.engines.openmm.peptides import BACKBONE, SIDE_CHAIN, Structure, dipeptide, solvated
from tests.engines.openmm.systems import context_of

FORCEFIELD = ("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
RELATIVE = 1e-6  # promised
PARTS = 1e-7  # 2 J/mol here: less than any one term
CHECK = "OpenMM: region of a force field"
PERIODIC = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.9 * unit.nanometer}


@pytest.fixture(scope="module")
def water_box() -> Structure:
    return solvated()


def created(topology, model=None, region=None, **options) -> openmm.System:
    keywords = {} if model is None else {"orbModel": str(model), "orbRegion": region}
    return loaded(model is not None).createSystem(topology, removeCMMotion=False, **keywords, **options)


@functools.cache
def loaded(embedded: bool) -> app.ForceField:
    return app.ForceField(*FORCEFIELD, *(["orbv3.xml"] if embedded else []))


def energy(system: openmm.System, positions, platform: str = "Reference") -> float:
    """kJ/mol; link atoms that `positions` lacks are placed by OpenMM."""
    beyond = np.zeros((system.getNumParticles() - len(positions), 3))
    context = context_of(system, np.vstack([positions, beyond]) * 10, platform)
    context.computeVirtualSites()
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def neighbors(topology) -> list[set[int]]:
    bonded = [set() for _ in topology.atoms()]
    for first, second in topology.bonds():
        bonded[first.index].add(second.index)
        bonded[second.index].add(first.index)
    return bonded


def inner_terms(full: openmm.System, topology, region: list[int]) -> openmm.System:
    """The terms of an Amber System that a region takes over; without cutoff, as images are no part of it."""
    bonded = neighbors(topology)
    near = set(region).union(*(bonded[index] for index in region))
    inside = openmm.System()
    for _ in range(full.getNumParticles()):
        inside.addParticle(1.0)
    for force in full.getForces():
        kept = type(force)()
        if isinstance(force, openmm.HarmonicBondForce):
            for i in range(force.getNumBonds()):
                p, q, *rest = force.getBondParameters(i)
                if p in region and q in region:
                    kept.addBond(p, q, *rest)
        elif isinstance(force, openmm.HarmonicAngleForce):
            for i in range(force.getNumAngles()):
                p, q, r, *rest = force.getAngleParameters(i)
                if q in region and {p, r} <= near:
                    kept.addAngle(p, q, r, *rest)
        elif isinstance(force, openmm.PeriodicTorsionForce):
            for i in range(force.getNumTorsions()):
                *atoms, period, phase, k = force.getTorsionParameters(i)
                if centers(bonded, atoms) <= set(region):
                    kept.addTorsion(*atoms, period, phase, k)
        elif isinstance(force, openmm.NonbondedForce):
            kept = pairs_inside(force, region)
        inside.addForce(kept)
    return inside


def centers(bonded: list[set[int]], atoms: list[int]) -> set[int]:
    """The two middle atoms of a proper torsion, or the one that the others of an improper are bonded to."""
    a, b, c, d = atoms
    if b in bonded[a] and c in bonded[b] and d in bonded[c]:
        return {b, c}
    (center,) = (atom for atom in atoms if set(atoms) - {atom} <= bonded[atom])
    return {center}


def pairs_inside(force: openmm.NonbondedForce, region: list[int]) -> openmm.NonbondedForce:
    kept = openmm.NonbondedForce()
    for i in range(force.getNumParticles()):
        charge, sigma, epsilon = force.getParticleParameters(i)
        kept.addParticle(charge, sigma, epsilon) if i in region else kept.addParticle(0, 1, 0)
    for i in range(force.getNumExceptions()):
        p, q, *rest = force.getExceptionParameters(i)
        if p in region and q in region:
            kept.addException(p, q, *rest)
    return kept


def caps(topology, positions, region: list[int]) -> tuple[list[int], np.ndarray]:
    """Atomic numbers and places of region and hydrogens on its cut bonds, at the sum of covalent radii."""
    radii = {"C": 0.075, "N": 0.071}  # nm, Pyykko and Atsumi, Chem. Eur. J. 15, 186 (2009); H 0.032
    atoms = list(topology.atoms())
    numbers = [atoms[index].element.atomic_number for index in region]
    places = [positions[index] for index in region]
    for bond in topology.bonds():
        for inner, outer in (bond, bond[::-1]):
            if inner.index in region and outer.index not in region:
                axis = positions[outer.index] - positions[inner.index]
                distance = radii[inner.element.symbol] + 0.032
                places.append(positions[inner.index] + distance * axis / np.linalg.norm(axis))
                numbers.append(1)
    return numbers, np.array(places)


def of_model(model, numbers, places, box) -> float:
    system = openmm.System()
    for _ in numbers:
        system.addParticle(1.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(OrbV3Force(model, numbers, periodic=box is not None))
    return energy(system, places)


def assert_is_sum_of_parts(structure, model, region, indices, **options) -> None:
    topology, positions = structure
    full = created(topology, **options)
    mixed = created(topology, model, region, **options)
    box = topology.getPeriodicBoxVectors()
    expected = (
        energy(full, positions)
        - energy(inner_terms(full, topology, indices), positions)
        + of_model(model, *caps(topology, positions, indices), box)
    )
    error = abs(energy(mixed, positions) - expected) / abs(expected)
    assert within(CHECK, "energy against its parts, relative", error, PARTS)


REGIONS = {
    "a residue, two bonds cut": (BACKBONE, list(range(6, 16))),
    "a side chain, one bond cut": (SIDE_CHAIN, list(range(10, 14))),
    "a molecule": ("chain A", list(range(22))),
    "indices": ([3, 0, 1, 2], [0, 1, 2, 3]),
}


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("constraints", [None, app.HBonds], ids=["flexible", "HBonds"])
def test_energy_of_a_region_in_vacuum_is_the_sum_of_its_parts(model, name, constraints):
    structure = dipeptide()
    region, indices = REGIONS[name]
    # a constraint takes the bond out of the force field, so E(all) has no term for it either
    assert_is_sum_of_parts(structure, model, region, indices, constraints=constraints)


@pytest.mark.parametrize("name", REGIONS)
def test_energy_of_a_region_in_water_is_the_sum_of_its_parts(model, water_box, name):
    region, indices = REGIONS[name]
    assert_is_sum_of_parts(water_box, model, region, indices, **PERIODIC)


def test_every_term_with_cmap_leaves_a_whole_molecule(model):
    topology, positions = dipeptide()
    forcefield = app.ForceField("amber19/protein.ff19SB.xml", "orbv3.xml")
    system = forcefield.createSystem(topology, orbModel=model, orbRegion="all")
    assert "CMAPTorsionForce" in {force.getName() for force in system.getForces()}
    expected = of_model(model, *caps(topology, positions, list(range(22))), None)
    error = abs(energy(system, positions) - expected) / abs(expected)
    assert within(CHECK, "energy against its parts, relative", error, PARTS)


def test_energy_of_several_molecules_is_the_sum_of_their_parts_in_any_image(model, water_box):
    topology, positions = water_box
    box = topology.getUnitCellDimensions().value_in_unit(unit.nanometer)[0]
    waters = [residue for residue in topology.residues() if residue.name == "HOH"]
    rows = {water: [atom.index for atom in water.atoms()] for water in waters}

    def shift(water):  # from the first water, in whole boxes
        return box * np.round((positions[rows[waters[0]][0]] - positions[rows[water][0]]) / box)

    def separation(water):
        return np.linalg.norm(positions[rows[water][0]] + shift(water) - positions[rows[waters[0]][0]])

    region = sorted(waters, key=separation)[:3]
    together = positions.copy()  # nearest images in one place, for the parts without a box
    for water in region:
        together[rows[water]] += shift(water)
    indices = sorted(index for water in region for index in rows[water])
    options = {**PERIODIC, "rigidWater": False}
    assert_is_sum_of_parts(Structure(topology, together), model, region, indices, **options)
    apart = together.copy()
    apart[rows[region[2]]] += [box, 0, -box]
    mixed = created(topology, model, region, **options)
    assert energy(mixed, apart) == pytest.approx(energy(mixed, together), rel=1e-9)


def test_extra_particles_of_a_water_model_in_a_region_are_no_atoms_of_the_model(model):
    topology, positions = solvated("tip4pew")
    waters = [residue for residue in topology.residues() if residue.name == "HOH"]
    forcefield = app.ForceField("amber14-all.xml", "amber14/tip4pew.xml", "orbv3.xml")
    options = {"orbModel": model, **PERIODIC}
    system = forcefield.createSystem(topology, orbRegion=waters[:2], **options)
    (force,) = (OrbV3Force.cast(force) for force in system.getForces() if is_orbv3(force))
    first = next(waters[0].atoms()).index
    assert force.particles == [first, first + 1, first + 2, first + 4, first + 5, first + 6]
    assert force.numbers == [8, 1, 1, 8, 1, 1]
    assert np.isfinite(energy(system, positions))
    atoms = [atom for water in waters[:2] for atom in water.atoms() if atom.element is not None]
    same = forcefield.createSystem(topology, orbRegion=atoms, **options)
    assert energy(same, positions) == energy(system, positions), "the extra particles belong to the atoms"


@pytest.mark.parametrize("region", [BACKBONE, SIDE_CHAIN])
def test_forces_are_the_gradient_link_atoms_included(model, region):
    topology, positions = dipeptide()
    system = created(topology, model, region)
    extended, placed = add_link_atoms(topology, positions, system)
    context = context_of(system, placed.value_in_unit(unit.angstrom))
    per_nm = unit.kilojoule_per_mole / unit.nanometer
    forces = context.getState(forces=True).getForces(asNumpy=True).value_in_unit(per_nm)
    step = 1e-5  # nm
    for atom in (0, 4, 6, 8, 10, 11, 14, 16):  # both ends of every cut bond, and others
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = positions.copy()
                moved[atom, axis] += sign * step
                energies.append(energy(system, moved))
            gradient = (energies[0] - energies[1]) / (2 * step)
            error = abs(forces[atom, axis] + gradient) / np.abs(forces).max()
            assert within(CHECK, "forces against finite differences, relative", error, 1e-6)
    assert extended.getNumAtoms() == system.getNumParticles()


def test_add_link_atoms_puts_them_where_openmm_does(model):
    topology, positions = dipeptide()
    system = created(topology, model, BACKBONE)
    extended, placed = add_link_atoms(topology, positions * unit.nanometer, system)
    context = context_of(system, placed.value_in_unit(unit.angstrom))
    context.computeVirtualSites()
    actual = context.getState(positions=True).getPositions(asNumpy=True)
    assert np.abs((actual - placed).value_in_unit(unit.nanometer)).max() < 1e-12
    assert topology.getNumAtoms() == 22, "the Topology that was given stays as it is"
    links = list(extended.atoms())[22:]
    assert [(atom.name, atom.residue.name, atom.element.symbol) for atom in links] == [("HL", "LNK", "H")] * 2


def test_add_link_atoms_refuses_what_does_not_fit(model, water_box):
    topology, positions = dipeptide()
    system = created(topology, model, BACKBONE)
    with pytest.raises(ValueError, match=r"`positions` has shape \(21, 3\) but `topology` has 22 atoms"):
        add_link_atoms(topology, positions[:-1], system)
    with pytest.raises(ValueError, match="24 particles and `topology`"):
        add_link_atoms(*water_box, system)
    two = openmm.System()
    for _ in range(23):
        two.addParticle(1.0)
    with pytest.raises(ValueError, match="not all but the link atoms"):
        add_link_atoms(topology, positions, two)


def test_link_atoms_lie_where_they_are_asked_to(model):
    topology, positions = dipeptide()
    plain = created(topology, model, SIDE_CHAIN)
    moved = created(topology, model, SIDE_CHAIN, orbLinkAtomDistances=[(8, 10, 0.12 * unit.nanometer)])
    places = [
        add_link_atoms(topology, positions, system)[1][22] / unit.nanometer for system in (plain, moved)
    ]
    assert [np.linalg.norm(place - positions[10]) for place in places] == pytest.approx([0.107, 0.12])


def test_constraints_inside_a_region_go_and_the_others_stay(model, water_box):
    topology = water_box.topology
    options = {"constraints": app.HBonds, "hydrogenMass": 3 * unit.amu, **PERIODIC}
    full, mixed = created(topology, **options), created(topology, model, BACKBONE, **options)
    pairs = [
        {tuple(system.getConstraintParameters(i)[:2]) for i in range(system.getNumConstraints())}
        for system in (full, mixed)
    ]
    region = set(range(6, 16))
    assert pairs[0] - pairs[1] == {pair for pair in pairs[0] if set(pair) <= region}
    assert len(pairs[0] - pairs[1]) == 5  # N-H, CA-HA, three of CB
    assert pairs[1] <= pairs[0]
    masses = [[system.getParticleMass(i)._value for i in range(22)] for system in (full, mixed)]
    assert masses[0] == masses[1]
    assert masses[1][7] == 3
    assert all(
        mixed.getParticleMass(i)._value == 0 for i in range(full.getNumParticles(), mixed.getNumParticles())
    )


def test_a_rigid_water_in_a_region_becomes_flexible(model, water_box):
    water = next(residue for residue in water_box.topology.residues() if residue.name == "HOH")
    full = created(water_box.topology, **PERIODIC)
    mixed = created(water_box.topology, model, water, **PERIODIC)
    assert full.getNumConstraints() - mixed.getNumConstraints() == 3


def test_molecules_of_a_region_stay_whole(model, water_box):
    counts = []
    for options in ({}, {"model": model, "region": "all"}):
        system = created(water_box.topology, **options, **PERIODIC)
        context = context_of(system, water_box.positions * 10)
        counts.append(sorted(len(molecule) for molecule in context.getMolecules()))
    assert counts[0] == counts[1]
    assert counts[0][-1] == 22


def test_lambda_goes_from_the_force_field_to_the_mixed_system(model):
    topology, positions = dipeptide()
    system = created(topology, model, BACKBONE, orbInterpolate=True)
    _, placed = add_link_atoms(topology, positions, system)
    context = context_of(system, placed.value_in_unit(unit.angstrom))
    ends = energy(created(topology), positions), energy(created(topology, model, BACKBONE), positions)
    for fraction in (0.0, 0.25, 1.0):
        context.setParameter("lambda_interpolate", fraction)
        actual = context.getState(energy=True).getPotentialEnergy()._value
        expected = (1 - fraction) * ends[0] + fraction * ends[1]
        error = abs(actual - expected) / abs(expected)
        assert within("OpenMM: lambda interpolation", "energy, relative", error, RELATIVE)


def test_dynamics_of_a_mixed_system_conserve_energy(model, water_box):
    topology, positions = water_box
    system = created(topology, model, BACKBONE, constraints=app.HBonds, **PERIODIC)
    extended, placed = add_link_atoms(topology, positions, system)
    integrator = openmm.VerletIntegrator(0.0001)  # ps; random weights make a rough surface
    simulation = app.Simulation(extended, system, integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(placed)
    simulation.minimizeEnergy(maxIterations=10)
    simulation.context.setVelocitiesToTemperature(100 * unit.kelvin, 7)

    def energies():
        state = simulation.context.getState(energy=True)
        kinetic = state.getKineticEnergy()._value
        return kinetic, kinetic + state.getPotentialEnergy()._value

    simulation.step(1)
    before = energies()
    simulation.step(50)
    after = energies()
    assert abs(after[0] - before[0]) > 10  # kJ/mol: something has happened
    assert abs(after[1] - before[1]) < 0.01 * abs(after[0] - before[0])


def test_a_mixed_system_survives_xml(model, water_box):
    topology, positions = water_box
    system = created(topology, model, BACKBONE, **PERIODIC)
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    assert energy(again, positions) == pytest.approx(energy(system, positions), rel=1e-12)
    assert copy.deepcopy(system).getNumParticles() == system.getNumParticles()
