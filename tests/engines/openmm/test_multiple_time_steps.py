"""TwoModelIntegrator against OpenMM's own integrators, its outer model alone, and exact averages."""

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from openmm import app, unit  # noqa: E402
from orb_export.openmm import StochasticCellRescaling, TwoModelIntegrator, evaluations  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402
from tests.engines.openmm.test_barostat import topology_of  # noqa: E402

MOLECULE = systems.boxed_for_openmm(CASES["molecule"])
CRYSTAL = systems.boxed_for_openmm(CASES["crystal"])
STEP = 0.001  # ps


def context_of(atoms, models, integrator, *forces, inner="direct-20", platform="Reference"):
    system = systems.system_of(
        atoms,
        systems.force_of(atoms, models["conservative-120"]),
        systems.force_of(atoms, models[inner], force_group=1),
        *forces,
    )
    context = systems.context_of(system, atoms.positions, platform, integrator)
    context.setVelocitiesToTemperature(300.0, 5)
    return context


def state_of(context) -> tuple[np.ndarray, np.ndarray]:
    state = context.getState(positions=True, velocities=True)
    return state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value


@pytest.mark.parametrize("substeps", [1, 3])
@pytest.mark.parametrize("bath", [False, True], ids=["constant energy", "Langevin"])
def test_same_as_the_integrators_of_openmm_with_three_forces(bath, substeps, models):
    groups = [(0, 1), (1, substeps)]
    if bath:
        # at zero temperature: the noise of CustomIntegrators depends on how many lines they have
        ours = TwoModelIntegrator(STEP, substeps, temperature=0.0, friction=20.0)
        theirs = openmm.MTSLangevinIntegrator(0.0, 20.0, STEP, groups)
    else:
        ours, theirs = TwoModelIntegrator(STEP, substeps), openmm.MTSIntegrator(STEP, groups)
    negative = systems.force_of(MOLECULE, models["direct-20"], force_group=0, scale=-1.0, prefix="correction")
    ends = []
    for integrator, forces in ((ours, []), (theirs, [negative])):
        context = context_of(MOLECULE, models, integrator, *forces)
        integrator.step(20)
        ends.append(state_of(context))
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(ends[0][1], ends[1][1], rtol=0, atol=1e-8)
    assert np.abs(ends[0][0] - MOLECULE.positions * systems.ANGSTROM).max() > 1e-3


def test_an_inner_model_that_equals_the_outer_one_is_velocity_verlet(models):
    two = TwoModelIntegrator(STEP, 2)
    one = openmm.MTSIntegrator(STEP / 2, [(0, 1)])
    ends = []
    for integrator, steps in ((two, 10), (one, 20)):
        context = context_of(MOLECULE, models, integrator, inner="conservative-120")
        integrator.step(steps)
        ends.append(state_of(context)[0])
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-12)


def test_small_steps_converge_to_the_outer_model(models):
    def end(integrator, steps) -> np.ndarray:
        context = context_of(MOLECULE, models, integrator)
        integrator.step(steps)
        return state_of(context)[0]

    exact = end(openmm.MTSIntegrator(STEP / 16, [(0, 1)]), 16 * 20)
    errors = [
        np.abs(end(TwoModelIntegrator(STEP / refinement, 2), refinement * 20) - exact).max()
        for refinement in (2, 4)
    ]
    inner = np.abs(end(openmm.MTSIntegrator(STEP / 4, [(1, 1)]), 4 * 20) - exact).max()
    assert errors[1] < 0.1 * inner
    assert 3.0 < errors[0] / errors[1] < 5.5  # second order, the reference having errors, too


@pytest.mark.parametrize("substeps", [1, 4])
def test_a_step_costs_one_outer_evaluation(substeps, models):
    integrator = TwoModelIntegrator(STEP, substeps)
    context = context_of(MOLECULE, models, integrator)
    integrator.step(2)
    before = evaluations()
    for _ in range(10):
        integrator.step(1)
        context.getState(energy=True, groups=integrator.getIntegrationForceGroups())
    assert evaluations() == before + 10 * (substeps + 1)


def test_energy_is_that_of_the_outer_model(models, tmp_path):
    integrator = TwoModelIntegrator(0.0005, 2)
    system = systems.system_of(
        CRYSTAL,
        systems.force_of(CRYSTAL, models["conservative-120"]),
        systems.force_of(CRYSTAL, models["direct-20"], force_group=1),
    )
    simulation = app.Simulation(
        topology_of(CRYSTAL), system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(CRYSTAL.positions * systems.ANGSTROM)
    simulation.reporters[:] = [StochasticCellRescaling(1.0, 300.0, compressibility=1e-6, interval=1, seed=1)]
    simulation.step(1)
    simulation.reporters[:] = [
        app.StateDataReporter(str(tmp_path / "state.csv"), 1, potentialEnergy=True, volume=True)
    ]
    simulation.step(1)
    now = CRYSTAL.copy()
    state = simulation.context.getState(positions=True)
    now.positions = state.getPositions(asNumpy=True)._value / systems.ANGSTROM
    now.cell = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) / systems.ANGSTROM
    assert now.get_volume() != CRYSTAL.get_volume()
    last = (tmp_path / "state.csv").read_text().splitlines()[-1]
    expected = systems.predicted(now, models["conservative-120"]).energy
    assert float(last.split(",")[0]) / systems.KJ_PER_MOL == pytest.approx(expected, abs=1e-9)


def test_fast_forces_are_part_of_the_substeps(models):
    # the inner model on, the spring in the substeps: as the spring in the inner model of MTSIntegrator
    def spring(group: int) -> openmm.Force:
        force = openmm.CustomExternalForce("20000*x^2")
        for particle in range(len(MOLECULE)):
            force.addParticle(particle, [])
        force.setForceGroup(group)
        return force

    ends = []
    for integrator, group in (
        (TwoModelIntegrator(STEP, 4, fast=[2]), 2),
        (TwoModelIntegrator(STEP, 4), 0),
        (openmm.MTSIntegrator(STEP, [(0, 1), (2, 4), (1, 4)]), 2),
    ):
        negative = systems.force_of(MOLECULE, models["direct-20"], scale=-1.0, prefix="correction")
        forces = [spring(group)]
        if not isinstance(integrator, TwoModelIntegrator):
            forces.append(negative)
        context = context_of(MOLECULE, models, integrator, *forces)
        integrator.step(10)
        ends.append(state_of(context)[0])
    np.testing.assert_allclose(ends[0], ends[2], rtol=0, atol=1e-10)
    assert np.abs(ends[1] - ends[0]).max() > 1e-6


def test_canonical_averages():
    # springs in place of models: the outer one and the fast one are there, the inner one cancels
    n_particles, stiffness = 200, {0: 3000.0, 1: 2500.0, 2: 4000.0}
    system = openmm.System()
    for _ in range(n_particles):
        system.addParticle(12.0)
    for group, constant in stiffness.items():
        spring = openmm.CustomExternalForce(f"{constant / 2}*(x^2+y^2+z^2)")
        for particle in range(n_particles):
            spring.addParticle(particle, [])
        spring.setForceGroup(group)
        system.addForce(spring)
    integrator = TwoModelIntegrator(
        4 * unit.femtoseconds, 4, fast=[2], temperature=300 * unit.kelvin, friction=20 / unit.picosecond
    )
    integrator.setRandomNumberSeed(1)
    context = systems.context_of(system, np.zeros((n_particles, 3)), integrator=integrator)
    context.setVelocitiesToTemperature(300.0, 2)
    integrator.step(200)
    energies = []
    for _ in range(200):
        integrator.step(10)
        state = context.getState(energy=True, groups=integrator.getIntegrationForceGroups())
        energies.append([state.getKineticEnergy()._value, state.getPotentialEnergy()._value])
    expected = 1.5 * n_particles * 8.31446261815324e-3 * 300
    blocks = np.array(energies).reshape(20, -1, 2).mean(axis=1)
    error = blocks.std(axis=0, ddof=1) / np.sqrt(20)
    assert (error < 0.01 * expected).all()
    # a step of 4 fs in a period of 262 fs: 0.1 % from the discrete steps
    np.testing.assert_allclose(blocks.mean(axis=0), expected, rtol=0, atol=4 * error.max() + 1e-3 * expected)


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((0.001, 0), {}, "`substeps` is 0 but must be positive"),
        ((0.0, 2), {}, "`timestep` is 0.0 but must be positive"),
        ((0.001, 2), {"inner": 0}, "`inner` 0, `outer` 0 and .* must be different"),
        ((0.001, 2), {"fast": [1]}, r"`inner` 1, `outer` 0 and `fast` \[1\] must be different"),
        ((0.001, 2), {"outer": 32}, "`outer` has the force group 32 but must be from 0 to 31"),
        ((0.001, 2), {"temperature": 300.0}, "`temperature` and `friction` must be given both"),
        (
            (0.001, 2),
            {"temperature": -1.0, "friction": 1.0},
            "`temperature` is -1.0 but must not be negative",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, options, text):
    with pytest.raises(ValueError, match=f"TwoModelIntegrator: {text}"):
        TwoModelIntegrator(*arguments, **options)
