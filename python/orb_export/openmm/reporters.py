"""Reporters of what Orb-v3 knows beside energy and forces: expected errors, stress, and time spent.

They follow OpenMM's protocol: `simulation.reporters.append(ConfidenceReporter("errors.csv", 100))`. All are
for free, since the step after a report needs the same evaluation. Tables have the form of
`StateDataReporter`: a first line `#"Step","Time (ps)",...`, then numbers separated by commas.
"""

import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit
from openmm.app import Simulation, Topology

from orb_export.contract import CONFIDENCE_BINS, CONFIDENCE_MAX_ERROR
from orb_export.openmm.force import OrbV3Force, is_orbv3
from orb_export.openmm.pressure import BAR, PressureMeter, box_of, value_in, velocities_of
from orb_export.openmm.report_files import File, Table, Trajectory
from orb_export.openmm.results import timings

_KJ_PER_MOL_NM = 964.8533212331002  # of one eV/angstrom
_NAMED_ATOMS = 5  # in the message of ForceErrorExceeded
_VOIGT = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}
_STRESS_UNITS = {"bar": BAR, "GPa": 1e4 * BAR}  # kJ/mol/nm^3
_LEAPFROG = (openmm.VerletIntegrator, openmm.VariableVerletIntegrator)


class ForceErrorExceeded(RuntimeError):
    """The expected force error of some atoms is above the threshold of a `ConfidenceReporter`.

    Attributes: `step`; `particles`, their indices by falling error; `errors`, eV/angstrom; `threshold`.
    """

    def __init__(
        self,
        step: int,
        particles: Sequence[int],
        errors: Sequence[float],
        threshold: float,
        topology: Topology,
    ) -> None:
        self.step, self.particles, self.errors = step, list(particles), [float(error) for error in errors]
        self.threshold = threshold
        atoms = list(topology.atoms())
        named = [
            f"{atoms[particle].name} of {atoms[particle].residue.name} {atoms[particle].residue.id} "
            f"(particle {particle}): {error:.3f}"
            for particle, error in list(zip(self.particles, self.errors, strict=True))[:_NAMED_ATOMS]
        ]
        more = len(self.particles) - len(named)
        super().__init__(
            f"ConfidenceReporter: at step {step} the expected force error is above {threshold:g} eV/A for "
            + ", ".join(named)
            + (f" and {more} more" if more > 0 else "")
        )


def expected_error(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected force error of each atom, eV/angstrom: (n, bins) probabilities -> (n,), by bin midpoints."""
    midpoints = (np.arange(CONFIDENCE_BINS) + 0.5) * (CONFIDENCE_MAX_ERROR / CONFIDENCE_BINS)
    errors: NDArray[np.float64] = confidence @ midpoints
    return errors


class ConfidenceReporter:
    """Expected force error of every atom: a table, a trajectory with B-factors, a stop."""

    def __init__(
        self,
        file: File | None,
        interval: int,
        *,
        pdb: str | PathLike[str] | None = None,
        threshold: float | unit.Quantity | None = None,
        per_atom: bool = True,
        force: openmm.Force | None = None,
        append: bool = False,
    ) -> None:
        """Make the reporter.

        Args:
            file: of the table, name or open file; None for no table. Columns: step, time in ps, mean and
                largest error in eV/angstrom, particle of the largest; if `per_atom` the error of each.
            interval: steps between reports.
            pdb: file name of a trajectory whose B-factors are the errors in meV/angstrom.
            threshold: error, eV/angstrom, above which ForceErrorExceeded is raised, after table and
                trajectory have been written. Reporters later in the list do not see that step.
            per_atom: whether the table has a column for each particle.
            force: the OrbV3Force of the System, where the integrator uses several.
            append: to existing files, whose header is kept.

        Raises:
            ValueError: an argument cannot be used; the message names it.
        """
        where = "ConfidenceReporter"
        if file is None and pdb is None and threshold is None:
            raise ValueError(f"{where}: none of `file`, `pdb` and `threshold` is given: nothing to do")
        self._interval = _interval(where, interval)
        self._threshold = _threshold(where, threshold)
        self._table = None if file is None else Table(file, append)
        self._trajectory = None if pdb is None else Trajectory(Path(pdb), append)
        self._per_atom = per_atom
        self._force = None if force is None else OrbV3Force.cast(force)

    def describeNextReport(self, simulation: Simulation) -> dict[str, Any]:
        """Steps until the next report and what it needs; called by `Simulation`."""
        include = [] if self._trajectory is None else ["positions"]
        return _next_report(simulation, self._interval, include)

    def report(self, simulation: Simulation, state: openmm.State) -> None:
        """Write a report; called by `Simulation`. Raises ForceErrorExceeded."""
        if self._force is None:
            self._force = _only_force(simulation, "ConfidenceReporter")
        particles = np.array(self._force.particles)
        errors = expected_error(self._force.evaluate(simulation.context).confidence)
        if self._table is not None:
            self._write_row(simulation, state, particles, errors)
        if self._trajectory is not None:
            factors = np.zeros(simulation.system.getNumParticles())
            factors[particles] = 1e3 * errors  # meV/angstrom
            self._trajectory.write(simulation.topology, state, factors)
        if self._threshold is not None and errors.max() > self._threshold:
            worst = np.argsort(-errors, kind="stable")
            worst = worst[errors[worst] > self._threshold]
            raise ForceErrorExceeded(
                simulation.currentStep,
                particles[worst].tolist(),
                errors[worst].tolist(),
                self._threshold,
                simulation.topology,
            )

    def _write_row(
        self,
        simulation: Simulation,
        state: openmm.State,
        particles: NDArray[np.int64],
        errors: NDArray[np.float64],
    ) -> None:
        assert self._table is not None
        row: dict[str, object] = {
            **_when(simulation, state),
            "Mean (eV/A)": f"{errors.mean():.6f}",
            "Largest (eV/A)": f"{errors.max():.6f}",
            "Particle of Largest": particles[errors.argmax()],
        }
        if self._per_atom:
            row |= {f"Particle {p} (eV/A)": f"{e:.6f}" for p, e in zip(particles, errors, strict=True)}
        self._table.write(row)


class StressReporter:
    """Pressure and stress with their kinetic part, from the stress of the model."""

    def __init__(
        self, file: File, interval: int, *, tensor: bool = True, unit: str = "bar", append: bool = False
    ) -> None:
        """Make the reporter.

        Args:
            file: name, or open file. Columns: step, time in ps, volume in nm^3, pressure; if `tensor` the
                stress in Voigt order xx yy zz yz xz xy, tension positive: pressure is minus a third of its
                trace. Both contain the kinetic part.
            interval: steps between reports.
            tensor: whether the stress is written; other forces of the System allow for the pressure alone,
                at two evaluations of theirs for each report.
            unit: of pressure and stress, bar or GPa.
            append: to an existing file, whose header is kept.

        Raises:
            ValueError: an argument cannot be used; the message names it.
        """
        self._interval = _interval("StressReporter", interval)
        if unit not in _STRESS_UNITS:
            raise ValueError(f"StressReporter: `unit` is {unit!r} but must be 'bar' or 'GPa'")
        self._unit = unit
        self._tensor = tensor
        self._table = Table(file, append)
        self._meter: PressureMeter | None = None
        self._context: openmm.Context | None = None

    def describeNextReport(self, simulation: Simulation) -> dict[str, Any]:
        """Steps until the next report and what it needs; called by `Simulation`."""
        return _next_report(simulation, self._interval, [])

    def report(self, simulation: Simulation, state: openmm.State) -> None:
        """Write a report; called by `Simulation`."""
        context = simulation.context
        if self._meter is None or self._context is not context:
            self._meter, self._context = PressureMeter(context, "StressReporter"), context
            if self._tensor and not self._meter.only_models:
                raise ValueError(
                    "StressReporter: forces other than OrbV3Force contribute to the stress, whose tensor "
                    "they do not give: use `tensor=False`"
                )
        # of its own, since a barostat among the reporters may have changed the box after `state` was taken
        leapfrog, groups = isinstance(simulation.integrator, _LEAPFROG), self._meter.groups
        present = context.getState(velocities=True, forces=leapfrog, groups=groups)
        velocities = velocities_of(present)
        if leapfrog:
            velocities = _half_a_step_later(velocities, present, simulation, self._meter.masses)
        volume, per_unit = float(np.linalg.det(box_of(present))), _STRESS_UNITS[self._unit]
        stress = self._meter.model_strain_gradient(context) - self._meter.momentum_flux(velocities)
        others = self._meter.other_strain_derivative(context, (0, 1, 2))
        scale = 1.0 / (volume * per_unit)
        row: dict[str, object] = {
            **_when(simulation, state),
            "Box Volume (nm^3)": f"{volume:.12g}",
            f"Pressure ({self._unit})": f"{-scale * (np.trace(stress) + others) / 3.0:.12g}",
        }
        if self._tensor:
            row |= {
                f"Stress {name} ({self._unit})": f"{scale * stress[place]:.12g}"
                for name, place in _VOIGT.items()
            }
        self._table.write(row)


class TimingReporter:
    """Speed, and where the time goes. Counts all forces and Contexts of the process together."""

    def __init__(self, file: File, interval: int, *, append: bool = False) -> None:
        """Make the reporter.

        Args:
            file: name, or open file. Columns, since the report before (first: since the first step with it):
                step, time in ps, speed in ns/day, seconds per step of all, in the model, in the graph and in
                the rest (integrator, other forces, reporters), evaluations of models per step.
            interval: steps between reports.
            append: to an existing file, whose header is kept.

        Raises:
            ValueError: `interval` cannot be used.
        """
        self._interval = _interval("TimingReporter", interval)
        self._table = Table(file, append)
        self._before: _Clock | None = None

    def describeNextReport(self, simulation: Simulation) -> dict[str, Any]:
        """Steps until the next report and what it needs; called by `Simulation`."""
        if self._before is None:
            self._before = _Clock(simulation)
        return _next_report(simulation, self._interval, [])

    def report(self, simulation: Simulation, state: openmm.State) -> None:
        """Write a report; called by `Simulation`."""
        before, now = self._before, _Clock(simulation)
        self._before = now
        if before is None or now.step <= before.step:
            return
        steps, seconds = now.step - before.step, now.seconds - before.seconds
        model, graph = (now.model - before.model) / steps, (now.graph - before.graph) / steps
        days, nanoseconds = seconds / 86400, (now.picoseconds - before.picoseconds) / 1000
        self._table.write(
            {
                **_when(simulation, state),
                "Speed (ns/day)": f"{nanoseconds / days:.4g}",
                "Step (s)": f"{seconds / steps:.4g}",
                "Model (s)": f"{model:.4g}",
                "Graph (s)": f"{graph:.4g}",
                "Rest (s)": f"{seconds / steps - model - graph:.4g}",
                "Evaluations per Step": f"{(now.evaluations - before.evaluations) / steps:.6g}",
            }
        )


class _Clock:
    """What a Simulation and this process have done so far."""

    def __init__(self, simulation: Simulation) -> None:
        spent = timings()
        self.seconds = time.perf_counter()
        self.step: int = simulation.currentStep
        self.picoseconds = float(simulation.context.getTime()._value)
        self.model, self.graph, self.evaluations = spent.seconds_model, spent.seconds_graph, spent.evaluations


def _half_a_step_later(
    velocities: NDArray[np.float64], state: openmm.State, simulation: Simulation, masses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Velocities at the time of the positions, where an integrator has them half a step before."""
    forces = np.asarray(state.getForces(asNumpy=True)._value)
    half = 0.5 * simulation.integrator.getStepSize()._value
    mobile = masses > 0
    later: NDArray[np.float64] = velocities.copy()
    later[mobile] += half * forces[mobile] / masses[mobile, None]
    return later


def _next_report(simulation: Simulation, interval: int, include: list[str]) -> dict[str, Any]:
    steps = interval - simulation.currentStep % interval
    return {"steps": steps, "periodic": None, "include": include}


def _when(simulation: Simulation, state: openmm.State) -> dict[str, object]:
    return {"Step": simulation.currentStep, "Time (ps)": f"{state.getTime()._value:.9g}"}


def _only_force(simulation: Simulation, where: str) -> OrbV3Force:
    groups = simulation.integrator.getIntegrationForceGroups()  # without the inner one of two models
    forces = [force for force in simulation.system.getForces() if groups >> force.getForceGroup() & 1]
    found = [force for force in forces if is_orbv3(force)]
    if len(found) != 1:
        raise ValueError(
            f"{where}: the integrator uses {len(found)} OrbV3Forces"
            + (": say with `force` which one is meant" if found else "")
        )
    return OrbV3Force.cast(found[0])


def _interval(where: str, interval: int) -> int:
    if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
        raise ValueError(f"{where}: `interval` is {interval!r} but must be a positive whole number")
    return interval


def _threshold(where: str, threshold: float | unit.Quantity | None) -> float | None:
    if threshold is None:
        return None
    error = float(value_in(unit.kilojoule_per_mole / unit.nanometer, threshold))
    if unit.is_quantity(threshold):
        error /= _KJ_PER_MOL_NM
    if not 0.0 < error < CONFIDENCE_MAX_ERROR:
        raise ValueError(
            f"{where}: `threshold` is {error:g} eV/A but must be above 0 and below "
            f"{CONFIDENCE_MAX_ERROR}, where the bins end"
        )
    return error
