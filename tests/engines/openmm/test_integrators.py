"""OrbV3Force under OpenMM's integrators and samplers, beyond test_dynamics.py.

Oracles: `Potential.predict` at the positions that a run has reached, the sum of the hills that metadynamics
says it has added, and runs that must be the same whether or not something was done between their steps.
"""

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from openmm import app  # noqa: E402
from orb_export.openmm import evaluations  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402
from tests.engines.openmm.systems import ANGSTROM, KJ_PER_MOL  # noqa: E402

MOLECULE = systems.boxed_for_openmm(CASES["molecule"])
TEMPERATURE = 300.0


def system_of(model, *others, **options) -> openmm.System:
    return systems.system_of(MOLECULE, *others, systems.force_of(MOLECULE, model, **options))


def context_of(model, integrator, **options) -> openmm.Context:
    context = systems.context_of(system_of(model, **options), MOLECULE.positions, integrator=integrator)
    context.setVelocitiesToTemperature(TEMPERATURE, 3)
    return context


def positions_of(context) -> np.ndarray:
    """Angstrom."""
    return context.getState(positions=True).getPositions(asNumpy=True)._value / ANGSTROM


def predicted_now(context, model) -> systems.Result:
    now = MOLECULE.copy()
    now.positions = positions_of(context)
    return systems.predicted(now, model)


def leapfrog() -> openmm.CustomIntegrator:
    """Semi-implicit Euler that writes down dE/d(scale) of each step."""
    integrator = openmm.CustomIntegrator(0.0005)
    integrator.addGlobalVariable("slope", 0.0)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v+dt*f/m")
    integrator.addComputePerDof("x", "x+dt*v")
    integrator.addComputeGlobal("slope", "deriv(energy, orbv3_scale)")
    return integrator


INTEGRATORS = {
    "Verlet": lambda: openmm.VerletIntegrator(0.0005),
    "variable Verlet": lambda: openmm.VariableVerletIntegrator(1e-5),
    "Langevin": lambda: openmm.LangevinIntegrator(TEMPERATURE, 1.0, 0.0005),
    "Langevin middle": lambda: openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, 0.0005),
    "variable Langevin": lambda: openmm.VariableLangevinIntegrator(TEMPERATURE, 1.0, 1e-5),
    "Nose-Hoover": lambda: openmm.NoseHooverIntegrator(TEMPERATURE, 1.0, 0.0005),
    "Brownian": lambda: openmm.BrownianIntegrator(TEMPERATURE, 100.0, 0.00001),
    "MTS": lambda: openmm.MTSIntegrator(0.0005, [(0, 1)]),
    "MTS Langevin": lambda: openmm.MTSLangevinIntegrator(TEMPERATURE, 1.0, 0.0005, [(0, 1)]),
    "aMD": lambda: openmm.amd.AMDIntegrator(0.0005, 100.0, -1e5),
}


@pytest.mark.parametrize("name", INTEGRATORS)
def test_one_evaluation_a_step_and_the_forces_of_the_place(name, model):
    integrator = INTEGRATORS[name]()
    context = context_of(model, integrator)
    integrator.step(1)
    before = evaluations()
    integrator.step(10)
    assert evaluations() - before == 10
    assert np.abs(positions_of(context) - MOLECULE.positions).max() > 1e-3
    systems.assert_same(systems.measure(context), predicted_now(context, model))


def test_custom_integrators_get_the_derivative_of_the_scale(model):
    integrator = leapfrog()
    context = context_of(model, integrator, scale=0.5)
    for scale in (0.5, 0.25):
        context.setParameter("orbv3_scale", scale)
        integrator.step(3)
        energy = predicted_now(context, model).energy * KJ_PER_MOL
        assert integrator.getGlobalVariableByName("slope") == pytest.approx(energy, rel=1e-12)
        assert systems.measure(context).energy == pytest.approx(scale * energy / KJ_PER_MOL, rel=1e-12)


def test_half_a_force_in_each_of_two_time_steps_is_the_whole(model):
    both = [
        systems.force_of(MOLECULE, model, scale=0.5, prefix=f"part{group}", force_group=group)
        for group in (0, 1)
    ]
    split = systems.context_of(
        systems.system_of(MOLECULE, *both),
        MOLECULE.positions,
        integrator=openmm.MTSIntegrator(0.0005, [(0, 1), (1, 1)]),
    )
    whole = context_of(model, openmm.MTSIntegrator(0.0005, [(0, 1)]))
    split.setVelocitiesToTemperature(TEMPERATURE, 3)
    for context in (split, whole):
        context.getIntegrator().step(30)
    assert np.abs(positions_of(whole) - MOLECULE.positions).max() > 0.01
    np.testing.assert_allclose(positions_of(split), positions_of(whole), atol=1e-10)


def test_each_bead_of_a_ring_is_evaluated_once_a_step(model):
    beads = 4
    integrator = openmm.RPMDIntegrator(beads, TEMPERATURE, 1.0, 0.00025)
    integrator.setRandomNumberSeed(5)
    context = context_of(model, integrator)
    for bead in range(beads):
        moved = MOLECULE.positions + np.random.default_rng(bead).normal(scale=0.02, size=(len(MOLECULE), 3))
        integrator.setPositions(bead, moved * ANGSTROM)
    integrator.step(1)
    before = evaluations()
    integrator.step(5)
    assert evaluations() - before == 5 * beads
    for bead in range(beads):
        state = integrator.getState(bead, getPositions=True, getForces=True)
        now = MOLECULE.copy()
        now.positions = state.getPositions(asNumpy=True)._value / ANGSTROM
        expected = systems.predicted(now, model).forces
        forces = state.getForces(asNumpy=True)._value * ANGSTROM / KJ_PER_MOL
        assert np.abs(forces - expected).max() < systems.FORCE_BAR
    assert context.getTime()._value == pytest.approx(6 * 0.00025)


def carbon_oxygen_distance() -> openmm.CustomBondForce:
    carbon, oxygen = (list(MOLECULE.numbers).index(number) for number in (6, 8))
    distance = openmm.CustomBondForce("r")
    distance.addBond(carbon, oxygen)
    return distance


def topology() -> app.Topology:
    made = app.Topology()
    residue = made.addResidue("ALL", made.addChain())
    for number in MOLECULE.numbers:
        made.addAtom("X", app.Element.getByAtomicNumber(int(number)), residue)
    return made


def metadynamics(system, variable) -> tuple[app.Metadynamics, app.Simulation]:
    bias = app.Metadynamics(system, [variable], TEMPERATURE, 5.0, 2.0, 5)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, 0.0005)
    integrator.setRandomNumberSeed(6)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(topology(), system, integrator, platform)
    simulation.context.setPositions(MOLECULE.positions * ANGSTROM)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, 7)
    return bias, simulation


def test_metadynamics_of_a_distance(model):
    system = system_of(model)
    variable = app.BiasVariable(carbon_oxygen_distance(), 0.1, 0.5, 0.01, False)
    bias, simulation = metadynamics(system, variable)
    bias.step(simulation, 1)
    before = evaluations()
    bias.step(simulation, 20)
    assert evaluations() - before == 20
    assert bias.getFreeEnergy()._value.min() < -1.0  # hills have been added
    orb = systems.measure(simulation.context, groups=set(range(31)))
    systems.assert_same(orb, predicted_now(simulation.context, model))
    hills = systems.measure(simulation.context, groups={31})  # where Metadynamics puts its force
    assert hills.energy > 0.005
    total = systems.measure(simulation.context)
    np.testing.assert_allclose(total.forces, orb.forces + hills.forces, atol=1e-12)


def test_metadynamics_of_the_energy_of_the_model(model):
    energy = systems.predicted(MOLECULE, model).energy * KJ_PER_MOL
    variable = app.BiasVariable(systems.force_of(MOLECULE, model), energy - 1000, energy + 500, 300.0, False)
    system = system_of(model)
    bias, simulation = metadynamics(system, variable)
    bias.step(simulation, 10)
    (value,) = bias.getCollectiveVariables(simulation)
    now = predicted_now(simulation.context, model)
    assert value == pytest.approx(now.energy * KJ_PER_MOL, abs=1e-8)
    # a function of the energy alone pushes along the forces of the model
    biased = systems.measure(simulation.context).forces
    factor = (biased * now.forces).sum() / (now.forces**2).sum()
    assert abs(factor - 1.0) > 1e-4
    np.testing.assert_allclose(biased, factor * now.forces, atol=1e-9)


def test_the_minimizer_and_reinitialize_leave_a_run_as_it_was(model):
    """One Context minimizes before anything else; the other starts there, and is made anew between steps."""
    straight = context_of(model, openmm.VerletIntegrator(0.0005))
    openmm.LocalEnergyMinimizer.minimize(straight, tolerance=10.0, maxIterations=5)
    start = straight.getState(positions=True, velocities=True)

    renewed = context_of(model, openmm.VerletIntegrator(0.0005))
    renewed.setState(start)
    straight.getIntegrator().step(10)
    renewed.getIntegrator().step(4)
    renewed.reinitialize(preserveState=True)
    renewed.getIntegrator().step(6)
    np.testing.assert_array_equal(positions_of(straight), positions_of(renewed))


def test_contexts_in_turn_run_as_they_would_alone(model):
    def make(seed: int) -> openmm.Context:
        # no noise: the platform Reference has one source of it for all Contexts
        context = context_of(model, openmm.VerletIntegrator(0.0005))
        context.setVelocitiesToTemperature(TEMPERATURE, seed)
        return context

    alone = []
    for seed in (1, 2, 3):
        context = make(seed)
        context.getIntegrator().step(12)
        alone.append(positions_of(context))
        del context
    contexts = [make(seed) for seed in (1, 2, 3)]
    for _ in range(4):
        for context in contexts:
            context.getIntegrator().step(3)
    np.testing.assert_array_equal([positions_of(context) for context in contexts], alone)
    assert np.abs(alone[0] - alone[1]).max() > 1e-4
