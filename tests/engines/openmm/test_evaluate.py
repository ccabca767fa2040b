"""What OrbV3Force tells beyond energy and forces, and how often it evaluates the potential for that."""

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

import orb_export  # noqa: E402
from orb_export.openmm import OrbV3Force, timings  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402
from tests.engines.openmm.systems import ANGSTROM, ENERGY_BAR, FORCE_BAR, KJ_PER_MOL  # noqa: E402

MOLECULE = systems.boxed_for_openmm(CASES["molecule"])
CRYSTAL = systems.boxed_for_openmm(CASES["crystal"])


def context_of(atoms, model, platform="Reference", **options) -> openmm.Context:
    force = systems.force_of(atoms, model, **options)
    return systems.context_of(systems.system_of(atoms, force), atoms.positions, platform)


def force_in(context: openmm.Context, index: int = 0) -> OrbV3Force:
    return OrbV3Force.cast(context.getSystem().getForce(index))


def spent(action) -> tuple[int, int]:
    """Evaluations with the gradient, and without, during `action`."""
    before = timings()
    action()
    after = timings()
    energy_only = after.energy_evaluations - before.energy_evaluations
    return after.evaluations - before.evaluations - energy_only, energy_only


def assert_is(evaluation, atoms, model) -> None:
    expected = orb_export.load(model).predict(atoms)
    assert abs(evaluation.energy / KJ_PER_MOL - expected["energy"]) / len(atoms) < ENERGY_BAR
    assert np.abs(evaluation.forces * ANGSTROM / KJ_PER_MOL - expected["forces"]).max() < FORCE_BAR
    np.testing.assert_allclose(evaluation.confidence, expected["confidence"], atol=1e-12)
    if atoms.cell.rank == 3:
        voigt = evaluation.strain_gradient.ravel()[[0, 4, 8, 5, 2, 1]] / KJ_PER_MOL / atoms.get_volume()
        assert np.abs(voigt - expected["stress"]).max() < 1e-10
        np.testing.assert_array_equal(evaluation.strain_gradient, evaluation.strain_gradient.T)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("name", ["conservative-120", "direct-20"])
@pytest.mark.parametrize("atoms", [MOLECULE, CRYSTAL], ids=["molecule", "crystal"])
def test_evaluation_is_that_of_python(atoms, name, platform, models):
    context = context_of(atoms, models[name], platform)
    assert_is(force_in(context).evaluate(context), atoms, models[name])


def test_evaluation_is_in_the_order_of_the_force_and_without_its_scale(model):
    order = np.random.default_rng(2).permutation(len(MOLECULE))
    force = OrbV3Force(model, MOLECULE.numbers[order], particles=order, periodic=False, scale=0.25)
    context = systems.context_of(systems.system_of(MOLECULE, force), MOLECULE.positions)
    assert_is(force_in(context).evaluate(context), MOLECULE[order], model)


def test_strain_gradient_is_that_of_the_energy(model):
    context = context_of(CRYSTAL, model)
    gradient = force_in(context).evaluate(context).strain_gradient
    step, box = 1e-5, CRYSTAL.cell.array * ANGSTROM
    energies = []
    for sign in (1, -1):
        stretch = np.diag([1.0, 1.0, 1.0 + sign * step])
        context.setPeriodicBoxVectors(*(box @ stretch))
        context.setPositions(CRYSTAL.positions * ANGSTROM @ stretch)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    numeric = (energies[0] - energies[1]) / (2 * step)
    assert abs(numeric) > 1.0
    assert gradient[2, 2] == pytest.approx(numeric, rel=1e-6)


def test_evaluation_and_steps_share_their_results(model):
    context = context_of(MOLECULE, model)
    force = force_in(context)
    assert spent(lambda: force.evaluate(context)) == (1, 0)
    assert spent(lambda: context.getState(forces=True, energy=True)) == (0, 0)
    assert spent(lambda: context.getIntegrator().step(1)) == (0, 0)
    assert spent(lambda: context.getState(forces=True)) == (1, 0)
    assert spent(lambda: force.evaluate(context)) == (0, 0)


def test_results_handed_out_do_not_change(model):
    context = context_of(MOLECULE, model)
    first = force_in(context).evaluate(context)
    copy = first.forces.copy()
    context.setPositions(1.01 * MOLECULE.positions * ANGSTROM)
    second = force_in(context).evaluate(context)
    np.testing.assert_array_equal(first.forces, copy)
    assert np.abs(second.forces - first.forces).max() > 1.0


def test_evaluation_inside_a_collective_variable(model):
    variable = openmm.CustomCVForce("0.5*e")
    variable.addCollectiveVariable("e", systems.force_of(MOLECULE, model))
    context = systems.context_of(systems.system_of(MOLECULE, variable), MOLECULE.positions)
    systems.measure(context)
    inner = variable.getInnerContext(context)
    assert_is(force_in(inner).evaluate(inner), MOLECULE, model)


def test_a_force_of_another_context_is_refused(model):
    context = context_of(MOLECULE, model)
    other = systems.force_of(MOLECULE, model)
    with pytest.raises(openmm.OpenMMException, match="`context` does not have this force but perhaps a copy"):
        other.evaluate(context)
    variable = openmm.CustomCVForce("e")
    variable.addCollectiveVariable("e", other)
    outer = systems.context_of(systems.system_of(MOLECULE, variable), MOLECULE.positions)
    inside = OrbV3Force.cast(variable.getCollectiveVariable(0))
    with pytest.raises(openmm.OpenMMException, match=r"take the force from context.getSystem\(\)"):
        inside.evaluate(outer)


def test_what_is_no_context_is_refused(model):
    with pytest.raises(TypeError, match=r"`context` is None but must be an openmm\.Context"):
        systems.force_of(MOLECULE, model).evaluate(None)


def test_failures_become_exceptions_and_the_context_goes_on(model):
    context = context_of(MOLECULE, model)
    expected = force_in(context).evaluate(context)
    context.setPositions(np.zeros((len(MOLECULE), 3)))
    with pytest.raises(openmm.OpenMMException, match=r"particles .* are at the same place"):
        force_in(context).evaluate(context)
    context.setPositions(MOLECULE.positions * ANGSTROM)
    np.testing.assert_array_equal(force_in(context).evaluate(context).forces, expected.forces)


@pytest.fixture
def scan(models):
    """Asks for energies alone, as Monte Carlo moves do; Context.getState always asks for forces as well."""

    def start(name: str) -> "Scan":
        return Scan(models[name])

    return start


class Scan:
    def __init__(self, model):
        self.integrator = openmm.CustomIntegrator(0.001)
        self.integrator.addGlobalVariable("result", 0.0)
        self.integrator.addComputeGlobal("result", "energy")
        system = systems.system_of(MOLECULE, systems.force_of(MOLECULE, model))
        self.context = systems.context_of(system, MOLECULE.positions, integrator=self.integrator)

    def energy(self, scale: float) -> float:
        """Energy of the scaled molecule, kJ/mol."""
        self.context.setPositions(scale * MOLECULE.positions * ANGSTROM)
        self.integrator.step(1)
        return self.integrator.getGlobalVariableByName("result")

    def forces(self) -> None:
        self.context.getState(forces=True)


def test_one_energy_after_another_skips_the_gradient(scan, model):
    molecule = scan("conservative-120")
    molecule.energy(1.0)
    scales = (1.01, 1.02, 1.03)
    energies = []
    assert spent(lambda: energies.extend(map(molecule.energy, scales))) == (0, 3)
    assert spent(lambda: molecule.energy(1.03)) == (0, 0)
    # what holds only an energy does not serve forces
    assert spent(molecule.forces) == (1, 0)
    moved = MOLECULE.copy()
    moved.positions *= 1.03
    systems.assert_same(systems.measure(molecule.context), systems.predicted(moved, model))
    for scale, value in zip(scales, energies, strict=True):
        moved.positions = scale * MOLECULE.positions
        assert abs(value / KJ_PER_MOL - systems.predicted(moved, model).energy) < 1e-9


def test_an_energy_after_forces_looks_ahead(scan):
    molecule = scan("conservative-120")
    for scale in (1.0, 1.01, 1.02):  # as after a step of dynamics
        assert spent(lambda scale=scale: molecule.energy(scale)) == (1, 0)
        assert spent(molecule.forces) == (0, 0)


def test_energies_of_direct_models_bring_their_forces(scan):
    molecule = scan("direct-20")
    assert spent(lambda: [molecule.energy(scale) for scale in (1.0, 1.01, 1.02)]) == (3, 0)
    assert spent(molecule.forces) == (0, 0)


def test_a_rejected_move_costs_nothing_more(scan):
    molecule = scan("conservative-120")
    molecule.forces()
    assert spent(lambda: molecule.energy(1.01)) == (1, 0)  # looked ahead
    assert spent(lambda: molecule.energy(1.02)) == (0, 1)  # the trial
    molecule.context.setPositions(1.01 * MOLECULE.positions * ANGSTROM)
    assert spent(molecule.forces) == (0, 0)


def test_trials_bring_their_forces_while_most_are_accepted(scan):
    molecule = scan("conservative-120")
    scales = iter(1.0 + 0.001 * k for k in range(100))

    def move(accepted: bool) -> tuple[int, int]:
        start, trial = next(scales), next(scales)
        molecule.energy(start)
        cost = spent(lambda: molecule.energy(trial))
        if not accepted:
            molecule.energy(start)
        molecule.forces()
        return cost

    assert [move(True) for _ in range(10)][-1] == (1, 0)
    assert [move(False) for _ in range(20)][-1] == (0, 1)
    assert [move(True) for _ in range(20)][-1] == (1, 0)


@pytest.mark.parametrize("name", ["conservative-120", "direct-20"])
def test_evaluations_with_barostat_and_reporters(name, models):
    """At every 25th step a barostat, at every 10th a reporter: at most 1.06 evaluations a step."""
    system = systems.system_of(CRYSTAL, systems.force_of(CRYSTAL, models[name]))
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 25)
    barostat.setRandomNumberSeed(4)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    integrator.setRandomNumberSeed(5)
    context = systems.context_of(system, CRYSTAL.positions, integrator=integrator)
    context.setVelocitiesToTemperature(300.0, 6)
    integrator.step(5)
    steps, attempts = 500, 20

    def run() -> None:
        for _ in range(steps // 10):
            integrator.step(10)
            context.getState(energy=True, forces=True)

    full, energy_only = spent(run)
    assert steps + attempts <= full + energy_only <= 1.06 * steps
    if name == "direct-20":
        assert energy_only == 0


def test_timings_grow_with_the_work(model):
    context = context_of(CRYSTAL, model)
    before = timings()
    context.getState(forces=True)
    after = timings()
    assert after.graph_builds == before.graph_builds + 1
    assert after.seconds_model > before.seconds_model
    assert after.seconds_graph > before.seconds_graph
    assert after.seconds_other > before.seconds_other
    assert timings() == after
