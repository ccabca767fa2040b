"""Stochastic cell rescaling against exact distributions and against OpenMM's Monte Carlo barostat."""

import io
import itertools

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase.build import bulk  # noqa: E402
from openmm import app, unit  # noqa: E402
from orb_export.export import export_model  # noqa: E402
from orb_export.export.sources import load_source  # noqa: E402
from orb_export.openmm import evaluations  # noqa: E402
from orb_export.openmm.barostat import StochasticCellRescaling  # noqa: E402

from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402

CRYSTAL = systems.boxed_for_openmm(CASES["crystal"])
TEMPERATURE = 300.0
KT = 8.31446261815324e-3 * TEMPERATURE  # kJ/mol
BAR = 0.0602214076  # kJ/mol/nm^3


def barostat(pressure=1000.0, **options) -> StochasticCellRescaling:
    return StochasticCellRescaling(
        pressure, TEMPERATURE, **{"compressibility": 1e-6, "interval": 5, "seed": 7, **options}
    )


def topology_of(atoms) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain()
    for symbol in atoms.get_chemical_symbols():
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), topology.addResidue("X", chain))
    topology.setPeriodicBoxVectors(systems.ANGSTROM * atoms.cell.array * unit.nanometer)
    return topology


def simulation_of(atoms, model, *forces, integrator=None, **options) -> app.Simulation:
    if integrator is None:
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.0005)
        integrator.setRandomNumberSeed(3)
    system = systems.system_of(atoms, systems.force_of(atoms, model, **options), *forces)
    made = app.Simulation(
        topology_of(atoms), system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    made.context.setPositions(atoms.positions * systems.ANGSTROM)
    made.context.setVelocitiesToTemperature(TEMPERATURE, 4)
    return made


def standard_error(values: np.ndarray, blocks: int = 20) -> np.ndarray:
    """Of the mean, along the first axis, from block averages."""
    means = values[: len(values) // blocks * blocks].reshape(blocks, -1, *values.shape[1:]).mean(axis=1)
    return means.std(axis=0, ddof=1) / np.sqrt(blocks)


def test_volume_of_an_ideal_gas():
    # density V^N exp(-P V / kT): a gamma distribution, mean (N + 1) kT/P and variance (N + 1) (kT/P)^2
    n_atoms, pressure, duration = 200, 100.0, 0.02
    gas = barostat(pressure, compressibility=1 / pressure, relaxation_time=1.0)
    rng = np.random.default_rng(1)
    velocities = rng.normal(size=(n_atoms, 3)) * np.sqrt(KT)  # unit masses
    volume, volumes = n_atoms * KT / (pressure * BAR), []
    damping = np.exp(-2.0 * duration)
    for _ in range(100_000):
        velocities = damping * velocities + np.sqrt((1 - damping**2) * KT) * rng.normal(size=velocities.shape)
        inner = np.sum(velocities**2) / (3 * volume)
        strains = gas.strains([inner], volume, duration, rng.normal(size=1))
        volume *= np.exp(strains.sum())
        velocities /= np.exp(strains)
        volumes.append(volume)
    reduced = np.array(volumes[5000:]) * pressure * BAR / KT
    deviations = (reduced - reduced.mean()) ** 2
    assert abs(reduced.mean() - (n_atoms + 1)) < 4 * standard_error(reduced)
    assert standard_error(reduced) < 0.005 * n_atoms
    assert abs(deviations.mean() - (n_atoms + 1)) < 4 * standard_error(deviations)
    assert standard_error(deviations) < 0.06 * n_atoms


@pytest.mark.parametrize("axes", ["x y z", "xy z", "z x"])
def test_lengths_of_an_elastic_box(axes):
    # energy k/2 (L - L0)^2 of each axis, no outer pressure: k axes that share a length share the stiffness
    length, stiffness = 2.0, KT / 0.1**2
    box = barostat(0.0, compressibility=BAR * length / stiffness, relaxation_time=1.0, axes=axes)
    rng = np.random.default_rng(2)
    lengths, series = np.full(3, length), []
    for _ in range(60_000):
        volume = lengths.prod()
        tension = stiffness * (lengths - length) * lengths
        inner = [-tension[group].mean() / volume for group in box.axes]
        lengths = lengths * np.exp(box.strains(inner, volume, 0.02, rng.normal(size=len(inner))))
        series.append(lengths)
    series = np.array(series[2000:])
    variances = (series - length) ** 2
    partners = {axis: len(group) for group in box.axes for axis in group}
    for axis, count in partners.items():
        expected = KT / stiffness / count
        assert abs(series[:, axis].mean() - length) < 4 * standard_error(series)[axis]
        assert abs(variances[:, axis].mean() - expected) < 4 * standard_error(variances)[axis]
        assert standard_error(variances)[axis] < 0.15 * expected
    for axis in set(range(3)) - set(partners):
        assert (series[:, axis] == length).all()


INTEGRATORS = {
    "LangevinMiddle": lambda: openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.0005),
    "Langevin": lambda: openmm.LangevinIntegrator(TEMPERATURE, 5.0, 0.0005),
    "Verlet": lambda: openmm.VerletIntegrator(0.0005),
    "NoseHoover": lambda: openmm.NoseHooverIntegrator(TEMPERATURE, 5.0, 0.0005),
}


@pytest.mark.parametrize("interval", [1, 5])
@pytest.mark.parametrize("name", INTEGRATORS)
def test_a_step_stays_one_evaluation(name, interval, model):
    simulation = simulation_of(CRYSTAL, model, integrator=INTEGRATORS[name]())
    simulation.reporters.append(barostat(interval=interval))
    simulation.step(5)
    volume = simulation.context.getState().getPeriodicBoxVolume()
    before = evaluations()
    simulation.step(30)
    assert evaluations() == before + 30
    assert simulation.context.getState().getPeriodicBoxVolume() != volume


def test_reporters_of_every_step_leave_every_other_rescaling(model):
    simulation = simulation_of(CRYSTAL, model)
    simulation.reporters += [barostat(interval=1), app.StateDataReporter(io.StringIO(), 1, volume=True)]
    simulation.step(5)
    before, volumes = evaluations(), [0.0]
    for _ in range(20):
        simulation.step(1)
        volumes.append(simulation.context.getState().getPeriodicBoxVolume()._value)
    assert evaluations() == before + 20  # volumes alone need no energy
    assert (np.diff(volumes) != 0).all()
    simulation.reporters[1] = app.StateDataReporter(io.StringIO(), 1, potentialEnergy=True)
    before, volumes = evaluations(), volumes[-1:]
    for _ in range(20):
        simulation.step(1)
        volumes.append(simulation.context.getState().getPeriodicBoxVolume()._value)
    assert evaluations() == before + 20 + 10
    changed = np.diff(volumes) != 0
    assert changed.sum() == 10
    assert (changed[:-1] != changed[1:]).all()


def test_velocity_verlet_costs_one_evaluation_per_rescaling(model):
    # it ends a step with the forces that the next begins with, and these change with the box
    simulation = simulation_of(CRYSTAL, model, integrator=openmm.MTSIntegrator(0.0005, [(0, 1)]))
    simulation.reporters.append(barostat())
    simulation.step(10)
    before = evaluations()
    simulation.step(50)
    assert evaluations() <= before + 50 + 10


def test_rescaling_keeps_fractional_positions_and_scales_velocities_inversely(model):
    simulation = simulation_of(CRYSTAL, model)
    coupling = barostat(1e5, axes="xz")
    assert coupling.describeNextReport(simulation)["steps"] == 1
    simulation.step(1)
    before = simulation.context.getState(positions=True, velocities=True)
    coupling.report(simulation, before)
    after = simulation.context.getState(positions=True, velocities=True)
    boxes = [np.array(s.getPeriodicBoxVectors(asNumpy=True)._value) for s in (before, after)]
    factors = np.diag(boxes[1]) / np.diag(boxes[0])
    assert abs(factors[0] - 1) > 1e-5
    np.testing.assert_allclose(factors, [factors[0], 1.0, factors[0]], rtol=1e-14)
    np.testing.assert_allclose(boxes[1], boxes[0] * factors, rtol=1e-14)
    positions = [s.getPositions(asNumpy=True)._value for s in (before, after)]
    velocities = [s.getVelocities(asNumpy=True)._value for s in (before, after)]
    np.testing.assert_allclose(positions[1], positions[0] * factors, rtol=1e-14)
    np.testing.assert_allclose(velocities[1], velocities[0] / factors, rtol=1e-14)


def strain_after_one_rescaling(model, *forces, **options) -> float:
    simulation = simulation_of(CRYSTAL, model, *forces)
    at_rest = simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value
    at_rest = at_rest - np.average(at_rest, axis=0, weights=CRYSTAL.get_masses())
    simulation.context.setVelocities(at_rest)
    simulation.reporters.append(barostat(**options))
    volume = simulation.context.getState().getPeriodicBoxVolume()
    simulation.step(1)
    return float(np.log(simulation.context.getState().getPeriodicBoxVolume() / volume))


def test_every_option_matters(model):
    usual = strain_after_one_rescaling(model)
    others = [
        strain_after_one_rescaling(model, **options)
        for options in (
            {"pressure": 1001.0},
            {"compressibility": 1.1e-6},
            {"relaxation_time": 1.1},
            {"interval": 6},
            {"axes": "xy"},
            {"axes": "x yz"},
            {"seed": 8},
        )
    ]
    assert all(abs(a - b) > 1e-12 for a, b in itertools.combinations([usual, *others], 2))
    assert strain_after_one_rescaling(model) == usual


def test_pressure_and_its_units_enter_as_the_equation_says(model):
    low = strain_after_one_rescaling(model, pressure=0.0)
    high = strain_after_one_rescaling(model, pressure=1e8 * unit.pascal)
    # -b/t P dt: 1e-6/bar, 1 ps, 1000 bar, 5 steps of 0.5 fs
    assert high - low == pytest.approx(-1e-6 * 1000 * 0.0025, rel=1e-6)
    forces = [openmm.CustomVolumeForce("500*v")]
    forces[0].setForceGroup(1)
    pushed = strain_after_one_rescaling(model, *forces, pressure=0.0)
    assert pushed - low == pytest.approx(-1e-6 * 500 / BAR * 0.0025, rel=1e-6)


def test_center_of_mass_keeps_its_share_of_the_pressure(model):
    plain = strain_after_one_rescaling(model, interval=100)
    held = strain_after_one_rescaling(model, openmm.CMMotionRemover(1000), interval=100)
    volume = CRYSTAL.get_volume() * systems.ANGSTROM**3
    assert held - plain == pytest.approx(1e-6 * KT / volume / BAR * 0.05, rel=1e-2)


def test_restart_from_a_checkpoint_is_exact(model, tmp_path):
    def run() -> app.Simulation:
        simulation = simulation_of(CRYSTAL, model)
        simulation.reporters.append(barostat())
        return simulation

    def end(simulation):
        state = simulation.context.getState(positions=True)
        return state.getPositions(asNumpy=True)._value, state.getPeriodicBoxVolume()._value

    for steps in (10, 13, 16):  # before, between and right after rescalings
        whole = run()
        whole.step(steps)
        whole.saveCheckpoint(str(tmp_path / "state.chk"))
        whole.step(20)
        restarted = run()
        restarted.loadCheckpoint(str(tmp_path / "state.chk"))
        restarted.step(20)
        assert end(whole)[1] == end(restarted)[1]
        np.testing.assert_array_equal(end(whole)[0], end(restarted)[0])


def test_steps_taken_without_the_simulation_are_no_rescaling(model):
    simulation = simulation_of(CRYSTAL, model)
    coupling = barostat()
    coupling.describeNextReport(simulation)
    simulation.integrator.step(2)
    state = simulation.context.getState(positions=True)
    coupling.report(simulation, state)
    assert simulation.context.getState().getPeriodicBoxVolume() == state.getPeriodicBoxVolume()


@pytest.fixture(scope="module")
def demo_model(tmp_path_factory):
    file = tmp_path_factory.mktemp("demo") / "demo.pt"
    export_model(load_source("demo"), file, format="torchscript", verified=False)
    return file


def relative_volumes(atoms, model, pressure: float, *forces, reporters=()) -> np.ndarray:
    """Volumes of 10 ps of dynamics every 20 fs, over that of `atoms`."""
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 10.0, 0.004)
    integrator.setRandomNumberSeed(6)
    simulation = simulation_of(atoms, model, *forces, integrator=integrator, threads=1)
    simulation.reporters.extend(reporters)
    simulation.step(250)
    volumes = []
    for _ in range(500):
        simulation.step(5)
        volumes.append(simulation.context.getState().getPeriodicBoxVolume()._value)
    return np.array(volumes) / (atoms.get_volume() * systems.ANGSTROM**3)


def test_volume_is_that_of_the_monte_carlo_barostat(demo_model):
    # benchmarks/openmm_barostat.py is the long version
    atoms, pressure = bulk("Si", "diamond", a=5.42, cubic=True), 50_000.0
    monte_carlo = openmm.MonteCarloBarostat(pressure, TEMPERATURE, 10)
    monte_carlo.setRandomNumberSeed(5)
    expected = relative_volumes(atoms, demo_model, pressure, monte_carlo)
    volumes = relative_volumes(
        atoms, demo_model, pressure, reporters=[barostat(pressure, relaxation_time=0.3)]
    )
    error = np.hypot(standard_error(expected, 10), standard_error(volumes, 10))
    assert error < 5e-3  # the pressure compresses by ten times as much
    assert abs(volumes.mean() - expected.mean()) < 4 * error
    assert 0.5 < volumes.std() / expected.std() < 2.0


def constrained() -> openmm.System:
    system = systems.system_of(CRYSTAL)
    system.addConstraint(0, 1, 0.2)
    return system


def with_site() -> openmm.System:
    system = systems.system_of(CRYSTAL)
    system.setParticleMass(3, 0.0)
    system.setVirtualSite(3, openmm.OutOfPlaneSite(0, 1, 2, 0.3, 0.3, 0.1))
    return system


def neighbor_in_the_same_group() -> openmm.Force:
    return openmm.CustomVolumeForce("v")


@pytest.mark.parametrize(
    ("system", "forces", "integrator", "text"),
    [
        (constrained, [], None, "the System has 1 constraints"),
        (with_site, [], None, "particle 3 is a virtual site that is no average"),
        (
            None,
            [openmm.MonteCarloBarostat(1.0, 300.0)],
            None,
            "the System has a MonteCarloBarostat already",
        ),
        (
            None,
            [neighbor_in_the_same_group()],
            None,
            "CustomVolumeForce has the force group 0 of an OrbV3Force",
        ),
        (
            None,
            [],
            openmm.VariableVerletIntegrator(0.001),
            "`integrator` has steps of variable size",
        ),
        (None, [], openmm.RPMDIntegrator(2, 300.0, 1.0, 0.001), "`integrator` is an RPMDIntegrator"),
    ],
    ids=["constraints", "virtual site", "two barostats", "group", "variable step", "beads"],
)
def test_systems_without_a_known_pressure_are_refused(system, forces, integrator, text, model):
    made = system() if system else systems.system_of(CRYSTAL)
    for force in [systems.force_of(CRYSTAL, model), *forces]:
        made.addForce(force)
    simulation = app.Simulation(
        topology_of(CRYSTAL),
        made,
        integrator or openmm.VerletIntegrator(0.0005),
        openmm.Platform.getPlatformByName("Reference"),
    )
    simulation.context.setPositions(CRYSTAL.positions * systems.ANGSTROM)
    simulation.context.computeVirtualSites()
    simulation.reporters.append(barostat())
    with pytest.raises(ValueError, match=text):
        simulation.step(1)


def test_free_systems_and_systems_without_the_force_are_refused(model):
    molecule = CASES["molecule"]
    free = simulation_of(CRYSTAL, model)
    context = systems.context_of(
        systems.system_of(molecule, systems.force_of(molecule, model, periodic=False)), molecule.positions
    )
    free.context = context
    with pytest.raises(ValueError, match="the System has no periodic box"):
        barostat().describeNextReport(free)
    volume_alone = systems.context_of(
        systems.system_of(CRYSTAL, openmm.CustomVolumeForce("v")), CRYSTAL.positions
    )
    free.context = volume_alone
    with pytest.raises(ValueError, match="the System has no"):
        barostat().describeNextReport(free)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"axes": "xx"}, "`axes` is 'xx' but must be groups of x, y and z"),
        ({"axes": ""}, "`axes` is '' but must be"),
        ({"axes": "xw"}, "`axes` is 'xw' but must be"),
        ({"pressure": [1.0, 2.0]}, r"`pressure` is \[1.0, 2.0\] but must be one finite number"),
        ({"pressure": float("nan")}, "`pressure` is nan but must be one finite number"),
        ({"compressibility": 0.0}, "`compressibility` is 0.0 but must be positive"),
        ({"relaxation_time": -1.0}, "`relaxation_time` is -1.0 but must be positive"),
        ({"interval": 0}, "`interval` is 0 but must be positive"),
        ({"seed": -1}, "`seed` is -1 but must not be negative"),
    ],
)
def test_wrong_arguments_are_named(options, text):
    with pytest.raises(ValueError, match=f"StochasticCellRescaling: {text}"):
        barostat(**options)


def test_explosions_are_named(model):
    with pytest.raises(ValueError, match=r"the `compressibility` of 0.1/bar is too large"):
        strain_after_one_rescaling(model, compressibility=0.1)
