"""Reporters of expected errors, stress and time.

Oracles: `orb_export.model.expected_error`, `Potential.predict`, OpenMM's finite differences of the energy.
"""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

import orb_export  # noqa: E402
import torch  # noqa: E402
from openmm import app, unit  # noqa: E402
from orb_export.model import expected_error  # noqa: E402
from orb_export.openmm import evaluations  # noqa: E402
from orb_export.openmm.barostat import StochasticCellRescaling  # noqa: E402
from orb_export.openmm.reporters import (  # noqa: E402
    ConfidenceReporter,
    ForceErrorExceeded,
    StressReporter,
    TimingReporter,
)

from tests.accuracy import within  # noqa: E402
from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402
from tests.engines.openmm.test_barostat import simulation_of  # noqa: E402

CRYSTAL = systems.boxed_for_openmm(CASES["crystal"])
SKEWED = systems.boxed_for_openmm(CASES["triclinic with large tilt"])
MOLECULE = systems.boxed_for_openmm(CASES["molecule"])
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
BAR = 0.0602214076  # kJ/mol/nm^3
GPA = 1 / 160.2176634  # eV/angstrom^3


def rows_of(file: Path) -> list[dict[str, float]]:
    header, *lines = file.read_text().splitlines()
    assert header.startswith('#"Step","Time (ps)",')
    names = next(csv.reader([header[1:]]))
    return [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines]


def current_atoms(simulation, atoms):
    state = simulation.context.getState(positions=True)
    now = atoms.copy()
    now.positions = state.getPositions(asNumpy=True)._value / systems.ANGSTROM
    if atoms.cell.rank == 3:
        now.cell = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) / systems.ANGSTROM
    return now


def expected_errors(atoms, model) -> np.ndarray:
    confidence = orb_export.load(model).predict(atoms)["confidence"]
    return expected_error(torch.as_tensor(confidence, dtype=torch.float64)).numpy()


def test_table_of_expected_errors(model, tmp_path):
    simulation = simulation_of(CRYSTAL, model)
    simulation.reporters.append(ConfidenceReporter(tmp_path / "errors.csv", 3))
    simulation.step(6)
    first, last = rows_of(tmp_path / "errors.csv")
    assert (first["Step"], last["Step"]) == (3, 6)
    assert last["Time (ps)"] == pytest.approx(6 * 0.0005)
    expected = expected_errors(current_atoms(simulation, CRYSTAL), model)
    errors = [last[f"Particle {k} (eV/A)"] for k in range(len(CRYSTAL))]
    np.testing.assert_allclose(errors, expected, atol=1e-6)
    assert last["Mean (eV/A)"] == pytest.approx(expected.mean(), abs=1e-6)
    assert last["Largest (eV/A)"] == pytest.approx(expected.max(), abs=1e-6)
    assert last["Particle of Largest"] == expected.argmax()
    assert np.ptp(expected) > 1e-4  # atoms differ


def test_table_without_a_column_for_each_atom(model):
    out = io.StringIO()
    simulation = simulation_of(CRYSTAL, model)
    simulation.reporters.append(ConfidenceReporter(out, 2, per_atom=False))
    simulation.step(2)
    assert out.getvalue().splitlines()[0].endswith('"Largest (eV/A)","Particle of Largest"')
    assert len(out.getvalue().splitlines()[1].split(",")) == 5


def frames_of(file: Path) -> list[list[float]]:
    """B-factors of each model of a PDB file, which OpenMM must be able to read."""
    app.PDBFile(str(file))
    models = file.read_text().split("MODEL ")[1:]
    return [
        [float(line[60:66]) for line in model.splitlines() if line[:6] in ("ATOM  ", "HETATM")]
        for model in models
    ]


def test_b_factors_of_the_trajectory(model, tmp_path):
    simulation = simulation_of(CRYSTAL, model)
    simulation.reporters.append(ConfidenceReporter(None, 2, pdb=tmp_path / "errors.pdb"))
    simulation.step(2)
    assert len(frames_of(tmp_path / "errors.pdb")) == 1  # whole after every frame
    simulation.step(2)
    frames = frames_of(tmp_path / "errors.pdb")
    expected = expected_errors(current_atoms(simulation, CRYSTAL), model)
    np.testing.assert_allclose(frames[1], 1000 * expected, atol=0.0051)  # meV/angstrom, two digits
    text = (tmp_path / "errors.pdb").read_text()
    assert text.count("ENDMDL") == 2
    assert text.endswith("END\n")
    positions = app.PDBFile(str(tmp_path / "errors.pdb")).getPositions(asNumpy=True, frame=1)
    moved = positions._value / systems.ANGSTROM - current_atoms(simulation, CRYSTAL).positions
    shifts = np.round(moved @ np.linalg.inv(CRYSTAL.cell.array))  # frames are wrapped into the box
    np.testing.assert_allclose(moved - shifts @ CRYSTAL.cell.array, 0.0, atol=6e-4)


def test_particles_that_the_model_does_not_see_have_no_error(model, tmp_path):
    particles = [4, 1, 6]
    simulation = simulation_of(CRYSTAL, model)
    system = systems.system_of(CRYSTAL, systems.force_of(CRYSTAL[particles], model, particles=particles))
    simulation = app.Simulation(
        simulation.topology,
        system,
        openmm.VerletIntegrator(0.0005),
        openmm.Platform.getPlatformByName("Reference"),
    )
    simulation.context.setPositions(CRYSTAL.positions * systems.ANGSTROM)
    files = tmp_path / "errors.csv", tmp_path / "errors.pdb"
    simulation.reporters.append(ConfidenceReporter(files[0], 1, pdb=files[1]))
    simulation.step(1)
    expected = expected_errors(current_atoms(simulation, CRYSTAL)[particles], model)
    (row,) = rows_of(files[0])
    assert [row[f"Particle {p} (eV/A)"] for p in particles] == pytest.approx(expected, abs=1e-6)
    assert f"Particle {0} (eV/A)" not in row
    (frame,) = frames_of(files[1])
    assert np.flatnonzero(frame).tolist() == sorted(particles)


def test_stop_names_the_atoms_after_writing(model, tmp_path):
    simulation = simulation_of(CRYSTAL, model)
    simulation.step(4)
    expected = expected_errors(current_atoms(simulation, CRYSTAL), model)
    threshold = float(np.sort(expected)[-3:-1].mean())  # between the second and the third largest
    worst = np.argsort(-expected)[:2].tolist()

    def stop(limit) -> ForceErrorExceeded:
        simulation = simulation_of(CRYSTAL, model)
        files = tmp_path / "errors.csv", tmp_path / "errors.pdb"
        simulation.reporters.append(ConfidenceReporter(files[0], 4, pdb=files[1], threshold=limit))
        with pytest.raises(ForceErrorExceeded, match="at step 4 the expected force error is above") as caught:
            simulation.step(20)
        assert len(rows_of(files[0])) == 1
        assert len(frames_of(files[1])) == 1
        return caught.value

    for limit in (
        threshold,
        threshold * systems.KJ_PER_MOL / systems.ANGSTROM * unit.kilojoule_per_mole / unit.nanometer,
    ):
        failure = stop(limit)
        symbol = CRYSTAL.get_chemical_symbols()[worst[0]]
        assert f"{symbol} of X {worst[0] + 1} (particle {worst[0]}): {expected[worst[0]]:.3f}" in str(failure)
        assert failure.particles == worst
        assert failure.errors == pytest.approx(expected[worst])
        assert failure.step == 4
        assert failure.threshold == pytest.approx(threshold)
    assert "and 3 more" in str(stop(float(expected.min()) * 0.99)) or len(CRYSTAL) != 8


def test_no_stop_below_the_threshold(model):
    simulation = simulation_of(CRYSTAL, model)
    simulation.reporters.append(ConfidenceReporter(None, 1, threshold=0.2999))
    simulation.step(3)


def test_append_goes_on_in_the_same_files(model, tmp_path):
    table, pdb = tmp_path / "errors.csv", tmp_path / "errors.pdb"
    for append in (True, True, False):  # the first finds no files
        simulation = simulation_of(CRYSTAL, model)
        simulation.reporters.append(ConfidenceReporter(table, 1, pdb=pdb, append=append))
        simulation.step(2)
        del simulation
        if append:
            assert len(rows_of(table)) == len(frames_of(pdb))
            assert pdb.read_text().count("END\n") == 1
            assert pdb.read_text().count("CRYST1") == 1
            last = f"MODEL     {len(rows_of(table)):4d}"
            assert last in pdb.read_text()
    assert len(rows_of(table)) == len(frames_of(pdb)) == 2


def test_one_of_several_forces_must_be_named(model, models):
    second = systems.force_of(CRYSTAL, models["conservative-20"], prefix="second", force_group=1)
    simulation = simulation_of(CRYSTAL, model, second)
    simulation.reporters.append(ConfidenceReporter(io.StringIO(), 1))
    with pytest.raises(ValueError, match="the integrator uses 2 OrbV3Forces: say with `force`"):
        simulation.step(1)
    out = io.StringIO()
    simulation.integrator.setIntegrationForceGroups({0})
    simulation.reporters[:] = [ConfidenceReporter(out, 1)]
    simulation.step(1)
    largest = expected_errors(current_atoms(simulation, CRYSTAL), model).max()
    assert float(out.getvalue().splitlines()[1].split(",")[3]) == pytest.approx(largest, abs=1e-6)
    out = io.StringIO()
    simulation.reporters[:] = [ConfidenceReporter(out, 1, force=simulation.system.getForce(1))]
    simulation.step(1)
    largest = expected_errors(current_atoms(simulation, CRYSTAL), models["conservative-20"]).max()
    assert float(out.getvalue().splitlines()[1].split(",")[3]) == pytest.approx(largest, abs=1e-6)


@pytest.mark.parametrize("name", ["conservative-120", "direct-20"])
@pytest.mark.parametrize(("stress_unit", "size"), [("GPa", GPA), ("bar", 1e-4 * GPA)])
def test_stress_is_that_of_the_model_and_of_motion(stress_unit, size, name, models, tmp_path):
    simulation = simulation_of(SKEWED, models[name])
    simulation.reporters.append(StressReporter(tmp_path / "stress.csv", 2, unit=stress_unit))
    simulation.step(2)
    (row,) = rows_of(tmp_path / "stress.csv")
    atoms = current_atoms(simulation, SKEWED)
    velocities = simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value
    flux = (velocities * atoms.get_masses()[:, None]).T @ velocities / systems.KJ_PER_MOL  # eV
    stress = orb_export.load(models[name]).predict(atoms)["stress"]
    stress = stress - flux[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / atoms.get_volume()
    reported = np.array([row[f"Stress {axes} ({stress_unit})"] for axes in VOIGT]) * size
    assert within("OpenMM, stress", "stress", np.abs(reported - stress).max(), 1e-9)
    assert row[f"Pressure ({stress_unit})"] * size == pytest.approx(-stress[:3].mean(), abs=1e-9)
    assert row["Box Volume (nm^3)"] == pytest.approx(atoms.get_volume() * 1e-3)
    assert np.abs(flux).max() / atoms.get_volume() > 1e-4


def dispersion(atoms) -> openmm.Force:
    force = openmm.CustomNonbondedForce("-0.01*exp(-4*r)/r")
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.25)
    for _ in atoms:
        force.addParticle([])
    force.setForceGroup(2)
    return force


def finite_difference_pressure(simulation) -> float:
    """Bar, from the energies of slightly smaller and larger boxes."""
    context, step = simulation.context, 1e-4
    state = context.getState(positions=True, energy=True)
    positions, box = state.getPositions(asNumpy=True)._value, state.getPeriodicBoxVectors(asNumpy=True)._value
    energies = []
    for factor in (1 + step, 1 - step):
        context.setPeriodicBoxVectors(*(box * factor))
        context.setPositions(positions * factor)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    virial = (energies[1] - energies[0]) / (2 * step)
    return (2 * state.getKineticEnergy()._value + virial) / (3 * np.linalg.det(box)) / BAR


@pytest.mark.parametrize("with_others", [False, True], ids=["model alone", "other forces"])
def test_pressure_is_that_of_finite_differences(with_others, model, tmp_path):
    def simulation(*forces):
        simulation = simulation_of(CRYSTAL, model, *forces, scale=0.7)
        simulation.reporters.append(StressReporter(tmp_path / "p.csv", 2, tensor=False))
        simulation.step(2)
        (row,) = rows_of(tmp_path / "p.csv")
        assert list(row) == ["Step", "Time (ps)", "Box Volume (nm^3)", "Pressure (bar)"]
        return row["Pressure (bar)"], finite_difference_pressure(simulation)

    volume = openmm.CustomVolumeForce("3000*v^2")
    volume.setForceGroup(3)
    reported, expected = simulation(dispersion(CRYSTAL), volume) if with_others else simulation()
    assert reported == pytest.approx(expected, rel=1e-6)
    alone, _ = simulation()
    assert (abs(alone - expected) > 1e-2 * abs(expected)) == with_others


@pytest.mark.parametrize("name", ["conservative-120", "direct-20"])
def test_model_without_images_in_a_periodic_system(name, models, tmp_path):
    # a part of the particles, as a molecule in a solvent; the pressure of forces, not of a stress head
    particles, box = list(range(len(MOLECULE))), 2.0
    atoms = MOLECULE.copy()
    atoms.set_cell(np.eye(3) * box / systems.ANGSTROM)
    solvent = openmm.CustomVolumeForce("10*v")
    solvent.setForceGroup(1)
    simulation = simulation_of(atoms, models[name], solvent, particles=particles, periodic=False)
    simulation.reporters.append(StressReporter(tmp_path / "p.csv", 1, tensor=False))
    simulation.step(1)
    state = simulation.context.getState(positions=True, forces=True, energy=True)
    positions, forces = (x(asNumpy=True)._value for x in (state.getPositions, state.getForces))
    virial = np.sum(positions * forces) - 3 * 10 * box**3
    expected = (2 * state.getKineticEnergy()._value + virial) / (3 * box**3) / BAR
    (row,) = rows_of(tmp_path / "p.csv")
    assert row["Pressure (bar)"] == pytest.approx(expected, rel=1e-6)
    assert abs(np.sum(positions * forces)) > 1e-2 * abs(virial)
    if name.startswith("conservative"):
        assert expected == pytest.approx(finite_difference_pressure(simulation), rel=1e-5)


def test_looking_at_other_forces_leaves_the_context_as_it_was(model):
    ends = []
    for reporters in ([], [StressReporter(io.StringIO(), 2, tensor=False)]):
        volume = openmm.CustomVolumeForce("3000*v")
        volume.setForceGroup(3)
        simulation = simulation_of(CRYSTAL, model, volume)
        simulation.reporters.extend(reporters)
        simulation.step(6)
        ends.append(current_atoms(simulation, CRYSTAL))
    np.testing.assert_array_equal(ends[0].positions, ends[1].positions)
    np.testing.assert_array_equal(ends[0].cell.array, ends[1].cell.array)


def test_leapfrog_velocities_are_moved_to_the_time_of_the_positions(model, tmp_path):
    simulation = simulation_of(CRYSTAL, model, integrator=openmm.VerletIntegrator(0.002))
    simulation.reporters.append(StressReporter(tmp_path / "stress.csv", 5))
    simulation.step(5)
    (row,) = rows_of(tmp_path / "stress.csv")
    kinetic = simulation.context.getState(energy=True).getKineticEnergy()._value  # OpenMM moves them, too
    atoms = current_atoms(simulation, CRYSTAL)
    trace = orb_export.load(model).predict(atoms)["stress"][:3].sum() * atoms.get_volume()  # eV
    expected = (2 * kinetic / systems.KJ_PER_MOL - trace) / (3 * atoms.get_volume())
    assert row["Pressure (bar)"] * 1e-4 * GPA == pytest.approx(expected, abs=1e-9)
    half_a_step_early = simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value
    early = 0.5 * np.sum(atoms.get_masses()[:, None] * half_a_step_early**2)
    assert abs(kinetic - early) > 1e-3 * kinetic


def test_tensor_of_other_forces_is_refused(model):
    volume = openmm.CustomVolumeForce("v")
    volume.setForceGroup(1)
    simulation = simulation_of(CRYSTAL, model, volume)
    simulation.reporters.append(StressReporter(io.StringIO(), 1))
    with pytest.raises(ValueError, match=r"forces other than OrbV3Force contribute.*use `tensor=False`"):
        simulation.step(1)


def test_time_and_evaluations_per_step(model, tmp_path):
    simulation = simulation_of(CRYSTAL, model)
    simulation.step(1)
    simulation.reporters.append(TimingReporter(tmp_path / "time.csv", 10))
    simulation.step(30)
    rows = rows_of(tmp_path / "time.csv")
    assert [row["Step"] for row in rows] == [10, 20, 30]
    assert rows[1]["Evaluations per Step"] == 1.0
    for row in rows:
        parts = row["Model (s)"] + row["Graph (s)"] + row["Rest (s)"]
        assert parts == pytest.approx(row["Step (s)"], rel=1e-2)
        assert min(row["Model (s)"], row["Graph (s)"], row["Rest (s)"]) > 0
        assert row["Speed (ns/day)"] == pytest.approx(86400 / row["Step (s)"] * 0.0005e-3, rel=1e-2)


@pytest.mark.parametrize("interval", [1, 5, 25])
def test_reporters_and_barostat_together_need_no_more_evaluations(interval, model, tmp_path):
    simulation = simulation_of(CRYSTAL, model)
    simulation.reporters += [
        StochasticCellRescaling(1.0, 300.0, compressibility=1e-6, interval=interval),
        app.StateDataReporter(str(tmp_path / "state.csv"), 10, potentialEnergy=True),
        StressReporter(tmp_path / "stress.csv", 10),
        TimingReporter(tmp_path / "time.csv", 10),
        ConfidenceReporter(tmp_path / "errors.csv", 10, pdb=tmp_path / "errors.pdb"),
    ]
    simulation.step(5)
    before = evaluations()
    simulation.step(100)
    assert evaluations() == before + 100  # the bar is 1.06 per step
    volume = simulation.context.getState().getPeriodicBoxVolume()._value
    simulation.reporters[2].report(simulation, simulation.context.getState())
    assert rows_of(tmp_path / "stress.csv")[-1]["Box Volume (nm^3)"] == pytest.approx(volume, rel=1e-11)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ConfidenceReporter(None, 1), "ConfidenceReporter: none of `file`, `pdb` and `threshold`"),
        (lambda: ConfidenceReporter(io.StringIO(), 0), "ConfidenceReporter: `interval` is 0 but must be"),
        (lambda: StressReporter(io.StringIO(), 2.5), "StressReporter: `interval` is 2.5 but must be"),
        (lambda: TimingReporter(io.StringIO(), True), "TimingReporter: `interval` is True but must be"),
        (
            lambda: ConfidenceReporter(None, 1, threshold=0.4),
            "`threshold` is 0.4 eV/A but must be above 0 and",
        ),
        (lambda: ConfidenceReporter(None, 1, threshold=0.0), "`threshold` is 0 eV/A but must be above 0"),
        (
            lambda: StressReporter(io.StringIO(), 1, unit="kbar"),
            "`unit` is 'kbar' but must be 'bar' or 'GPa'",
        ),
    ],
)
def test_wrong_arguments_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()
