"""OrbV3Force inside OpenMM's machinery: integrators, minimizer, barostat, CustomCVForce, checkpoints."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import orb_export
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase.build import bulk  # noqa: E402
from openmm import unit  # noqa: E402
from orb_export.openmm import evaluations  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402

MOLECULE = systems.boxed_for_openmm(CASES["molecule"])
CRYSTAL = systems.boxed_for_openmm(CASES["crystal"])
BAR = 1e5 * 1e-30 / 1.602176634e-19  # eV/angstrom^3


def system_of(atoms, model, **options) -> openmm.System:
    return systems.system_of(atoms, systems.force_of(atoms, model, **options))


def total_energies(context, steps: int) -> np.ndarray:
    """Total energy after each step, kJ/mol."""
    energies = []
    for _ in range(steps):
        context.getIntegrator().step(1)
        state = context.getState(energy=True)
        energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    return np.array(energies)


def test_verlet_conserves_energy_to_second_order(model):
    spread, heat = {}, {}
    for timestep in (0.5, 0.25):  # fs
        integrator = openmm.VerletIntegrator(timestep * 1e-3)
        context = systems.context_of(system_of(MOLECULE, model), MOLECULE.positions, integrator=integrator)
        context.setVelocitiesToTemperature(300.0, 7)
        steps = round(50 / timestep)
        energies = total_energies(context, steps)
        spread[timestep] = np.std(energies)
        heat[timestep] = context.getState(energy=True).getKineticEnergy()._value
    assert heat[0.5] > 1.0  # it moves
    assert spread[0.5] < 0.02 * heat[0.5]
    assert 3.0 < spread[0.5] / spread[0.25] < 5.0


def test_the_same_positions_are_evaluated_once(model):
    context = systems.context_of(system_of(CRYSTAL, model), CRYSTAL.positions)
    before = evaluations()
    first = systems.measure(context)
    context.getState(energy=True)
    context.getState(forces=True)
    context.setParameter("orbv3_scale", 2.0)
    assert systems.measure(context).energy == 2 * first.energy
    assert evaluations() == before + 1
    context.setPeriodicBoxVectors(*(1.001 * systems.ANGSTROM * CRYSTAL.cell.array))
    assert systems.measure(context).energy != 2 * first.energy
    moved = CRYSTAL.positions * systems.ANGSTROM
    moved[0, 0] += 1e-13
    context.setPositions(moved)
    systems.measure(context)
    assert evaluations() == before + 3


def test_a_step_with_reporters_is_one_evaluation(model):
    context = systems.context_of(system_of(MOLECULE, model), MOLECULE.positions)
    context.getState(energy=True)
    before = evaluations()
    total_energies(context, 20)
    assert evaluations() == before + 20


def test_long_runs_keep_the_neighbor_list_right(model):
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (2, 2, 2)
    integrator = openmm.LangevinMiddleIntegrator(3000.0, 10.0, 0.002)
    integrator.setRandomNumberSeed(3)
    context = systems.context_of(system_of(atoms, model), atoms.positions, integrator=integrator)
    for _ in range(4):
        integrator.step(15)
        positions = context.getState(positions=True).getPositions(asNumpy=True)._value / systems.ANGSTROM
        assert np.abs(positions - atoms.positions).max() > 0.1
        fresh = atoms.copy()
        fresh.positions = positions
        systems.assert_same(systems.measure(context), systems.predicted(fresh, model))


def test_any_number_of_edges_may_follow_any_other(model):
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (2, 2, 2)
    context = systems.context_of(system_of(atoms, model), atoms.positions)
    for scale in (2.0, 1.0, 0.75, 3.0, 0.8):  # from no neighbors to more than the cap
        now = atoms.copy()
        now.set_cell(scale * atoms.cell, scale_atoms=True)
        now.rattle(0.02, seed=3)
        context.setPeriodicBoxVectors(*(now.cell.array * systems.ANGSTROM))
        context.setPositions(now.positions * systems.ANGSTROM)
        systems.assert_same(systems.measure(context), systems.predicted(now, model))


def test_contexts_are_independent(model):
    system = system_of(MOLECULE, model)
    contexts = [systems.context_of(system, MOLECULE.positions, name) for name in ("Reference", "CPU")]
    expected = systems.predicted(MOLECULE, model)
    moved = MOLECULE.copy()
    moved.rattle(0.05, seed=5)
    contexts[0].setPositions(moved.positions * systems.ANGSTROM)
    systems.assert_same(systems.measure(contexts[1]), expected)
    systems.assert_same(systems.measure(contexts[0]), systems.predicted(moved, model))
    del contexts[0]
    systems.assert_same(systems.measure(contexts[0]), expected)


def test_contexts_of_several_threads_may_run_together(model):
    def dynamics(seed: int) -> np.ndarray:
        context = systems.context_of(system_of(MOLECULE, model), MOLECULE.positions)
        context.setVelocitiesToTemperature(300.0, seed)
        context.getIntegrator().step(40)
        return context.getState(positions=True).getPositions(asNumpy=True)._value

    alone = [dynamics(seed) for seed in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(dynamics, range(1, 5)))
    np.testing.assert_array_equal(together, alone)
    assert not np.array_equal(alone[0], alone[1])


def test_reinitialize_takes_changes_of_the_system(model):
    system = system_of(MOLECULE, model)
    context = systems.context_of(system, MOLECULE.positions)
    first = systems.measure(context)
    system.addForce(systems.force_of(MOLECULE, model))
    context.reinitialize(preserveState=True)
    systems.assert_same(systems.measure(context), systems.Result(2 * first.energy, 2 * first.forces))


def test_the_minimizer_may_come_first(model):
    context = systems.context_of(system_of(MOLECULE, model), MOLECULE.positions)
    openmm.LocalEnergyMinimizer.minimize(context, tolerance=1.0, maxIterations=30)
    before = systems.predicted(MOLECULE, model)
    after = systems.measure(context)
    assert after.energy < before.energy
    assert np.abs(after.forces).max() < 0.5 * np.abs(before.forces).max()


def test_barostat_changes_the_volume(model):
    system = system_of(CRYSTAL, model)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 2)
    barostat.setRandomNumberSeed(4)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    integrator.setRandomNumberSeed(5)
    context = systems.context_of(system, CRYSTAL.positions, integrator=integrator)
    context.setVelocitiesToTemperature(300.0, 6)
    volumes = set()
    for _ in range(20):
        integrator.step(2)
        state = context.getState(positions=True)
        volumes.add(state.getPeriodicBoxVolume()._value)
    assert len(volumes) > 2
    now = CRYSTAL.copy()
    now.positions = state.getPositions(asNumpy=True)._value / systems.ANGSTROM
    now.cell = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) / systems.ANGSTROM
    systems.assert_same(systems.measure(context), systems.predicted(now, model))


def test_restart_from_a_checkpoint_is_exact(model):
    def start():
        integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
        integrator.setRandomNumberSeed(8)
        return systems.context_of(system_of(CRYSTAL, model), CRYSTAL.positions, integrator=integrator)

    context = start()
    context.setVelocitiesToTemperature(300.0, 9)
    context.getIntegrator().step(7)
    checkpoint = context.createCheckpoint()
    context.getIntegrator().step(13)
    restarted = start()
    restarted.loadCheckpoint(checkpoint)
    restarted.getIntegrator().step(13)
    final = [c.getState(positions=True).getPositions(asNumpy=True)._value for c in (context, restarted)]
    np.testing.assert_array_equal(*final)


def test_collective_variables(model):
    stiffness, shift = 2e-3, 3.0
    alone = systems.predicted(MOLECULE, model)
    energy = alone.energy * systems.KJ_PER_MOL
    variable = openmm.CustomCVForce(f"0.5*{stiffness}*(e-e0)^2")
    variable.addCollectiveVariable("e", systems.force_of(MOLECULE, model, scale=0.25))
    variable.addGlobalParameter("e0", 0.25 * energy - shift)
    variable.addGlobalParameter("orbv3_scale", 0.25)
    variable.addEnergyParameterDerivative("orbv3_scale")
    context = systems.context_of(systems.system_of(MOLECULE, variable), MOLECULE.positions)
    for scale in (0.25, 0.26):
        context.setParameter("orbv3_scale", scale)
        distance = (scale - 0.25) * energy + shift  # e - e0
        systems.assert_same(
            systems.measure(context),
            systems.Result(
                0.5 * stiffness * distance**2 / systems.KJ_PER_MOL,
                stiffness * distance * scale * alone.forces,
            ),
        )
        derivatives = context.getState(parameterDerivatives=True).getEnergyParameterDerivatives()
        assert derivatives["orbv3_scale"] == pytest.approx(stiffness * distance * energy, rel=1e-10)


def test_multiple_time_steps(models, model):
    inner = systems.force_of(MOLECULE, models["direct-20"], force_group=1, prefix="inner")
    outer = systems.force_of(MOLECULE, model, force_group=0)
    integrator = openmm.MTSIntegrator(0.0005 * unit.picoseconds, [(0, 1), (1, 4)])
    context = systems.context_of(
        systems.system_of(MOLECULE, inner, outer), MOLECULE.positions, integrator=integrator
    )
    context.setVelocitiesToTemperature(300.0, 10)
    integrator.step(2)
    before = evaluations()
    integrator.step(10)
    assert evaluations() == before + 10 * (1 + 4)


def test_rpmd_beads_each_have_their_force(model):
    beads = 3
    integrator = openmm.RPMDIntegrator(beads, 300.0, 1.0, 0.00025)
    context = systems.context_of(system_of(MOLECULE, model), MOLECULE.positions, integrator=integrator)
    moved = [MOLECULE.copy() for _ in range(beads)]
    for bead, atoms in enumerate(moved):
        atoms.rattle(0.02, seed=bead)
        integrator.setPositions(bead, atoms.positions * systems.ANGSTROM)
    for bead, atoms in enumerate(moved):
        state = integrator.getState(bead, getEnergy=True)
        energy = state.getPotentialEnergy()._value / systems.KJ_PER_MOL
        assert abs(energy - systems.predicted(atoms, model).energy) < 1e-9
    before = evaluations()
    integrator.step(3)
    assert evaluations() >= before + 3 * beads
    assert context.getTime()._value == pytest.approx(3 * 0.00025)


def test_calls_that_hold_pythons_lock_can_evaluate(model):
    # OpenMM's binding keeps the lock here, and torch, which this process has loaded, does not like that
    system = systems.system_of(CRYSTAL, systems.force_of(CRYSTAL, model))
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 0)
    system.addForce(barostat)
    context = systems.context_of(system, CRYSTAL.positions)
    pressure = barostat.computeCurrentPressure(context).value_in_unit(unit.bar)
    stress = orb_export.load(model).predict(CRYSTAL)["stress"][:3].mean()  # at rest: no kinetic part
    assert pressure == pytest.approx(-stress / BAR, rel=1e-3)
