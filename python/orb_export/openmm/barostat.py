"""Constant pressure from the stress of Orb-v3: stochastic cell rescaling, without extra evaluations.

Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020); by groups of axes after Del Tatto, Raiteri, Bernetti
and Bussi, Appl. Sci. 12, 1139 (2022). The strain e of a group of k of the three axes (the sum of those of its
axes) follows

    de = -(k b / 3 t) (P0 - P) dt + sqrt(2 kT k b / (3 V t)) dW

with compressibility b, relaxation time t, outer pressure P0, and P the mean of the diagonal of the
instantaneous pressure over the axes, kinetic part included. Positions grow with the box and velocities
shrink, so that the volume of phase space stays and the distribution is exp(-(K + U + P0 V) / kT) in the
lengths that change, as that of OpenMM's Monte Carlo barostats is. b and t set the pace, not the ensemble.

Where the evaluations go: integrators of OpenMM with a leapfrog (LangevinMiddleIntegrator, LangevinIntegrator,
VerletIntegrator, NoseHooverIntegrator and others) compute the forces of x(n) when step n begins, kick, and
drift to x(n+1). A rescaling between the kick and the drift would need no new forces, but a host has no way
in there. One of x(n+1) by the stress of x(n), which the step has computed, differs from it by the product of
a drift and a rescaling, and so does not change the order of the integrator. The box of that stress is the
present one, so the feedback from volume to pressure is not late. The next step computes the forces of
wherever x(n+1) has gone, as it would have to anyway.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit
from openmm.app import Simulation

from orb_export.openmm.pressure import (
    AXES,
    BAR,
    MOLAR_GAS_CONSTANT,
    PressureMeter,
    box_of,
    check_no_barostat,
    positions_of,
    value_in,
    velocities_of,
)

_WHERE = "StochasticCellRescaling"
_LARGEST_STRAIN = 0.1  # of a group in one application; beyond it the discrete steps are no dynamics any more


class _Record(NamedTuple):
    """What is known of the positions that a step starts from."""

    step: int
    strain_derivatives: list[float]  # kJ/mol, of each group of axes: sum of the diagonal over them


class StochasticCellRescaling:
    """Barostat for a Simulation with OrbV3Forces; put it first among `simulation.reporters`.

    It needs a thermostat at its side. Each `interval` steps it reads the stress of the forces that the next
    step computes, and rescales box, positions and velocities after that step. Where a reporter has asked for
    the energy after that very step, it leaves a rescaling out, since the energy would have to be computed
    again, but never two in a row. Integrators that end a step with new forces (MTSIntegrator and other
    velocity Verlet) cost one evaluation more for each rescaling. Random numbers belong to seed and step, so a
    run that is restarted from a checkpoint with the same seed continues as if it had not stopped.
    """

    def __init__(
        self,
        pressure: float | Sequence[float] | unit.Quantity,
        temperature: float | unit.Quantity,
        *,
        compressibility: float | unit.Quantity,
        relaxation_time: float | unit.Quantity = 1.0,
        interval: int = 5,
        axes: str = "xyz",
        seed: int | None = None,
    ) -> None:
        """Make the barostat.

        Args:
            pressure: outer pressure, bar; one number, or one for each group of `axes`.
            temperature: of the thermostat, K.
            compressibility: isothermal, 1/bar, by its order of magnitude: 5e-5 for water, 1e-6 for silicon,
                7e-7 for copper. The volume relaxes in `relaxation_time` times the true one over this one.
            relaxation_time: of the volume, ps.
            interval: steps between rescalings; few against the fastest vibrations of the pressure, since that
                of one instant stands for the whole interval.
            axes: groups of axes that are scaled by one factor: "xyz" isotropic, "xy z" semi-isotropic,
                "x y z" anisotropic; axes that are left out keep their lengths.
            seed: of the random numbers; by default drawn, and to be read from the attribute `seed`.

        Raises:
            ValueError: an argument cannot be used; the message names it.
        """
        self.axes = _axes(axes)
        self.pressure = _pressures(pressure, len(self.axes))
        self.temperature = _positive("temperature", temperature, unit.kelvin)
        self.compressibility = _positive("compressibility", compressibility, unit.bar**-1)
        self.relaxation_time = _positive("relaxation_time", relaxation_time, unit.picosecond)
        if interval < 1:
            raise ValueError(f"{_WHERE}: `interval` is {interval} but must be positive")
        self.interval = interval
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        if self.seed < 0:
            raise ValueError(f"{_WHERE}: `seed` is {seed} but must not be negative")
        self._meter: PressureMeter | None = None
        self._context: openmm.Context | None = None
        self._record: _Record | None = None
        self._left_out = False

    def describeNextReport(self, simulation: Simulation) -> dict[str, Any]:
        """Steps until it is needed; called by `Simulation` before each of its runs of steps.

        Where a rescaling is due after the next step, this reads the stress, for which it evaluates the forces
        that the step is about to ask for.
        """
        to_go = -simulation.currentStep % self.interval
        if to_go == 0:
            self._record = self._read(simulation.context)
        return {"steps": to_go or 1, "periodic": None, "include": []}

    def report(self, simulation: Simulation, state: openmm.State) -> None:
        """Rescale if the step that ends here is one whose stress was read; called by `Simulation`."""
        record, self._record = self._record, None
        if record is None or simulation.currentStep != record.step + 1:
            return
        evaluated = bool(state.getDataTypes() & (openmm.State.Energy | openmm.State.Forces))
        self._left_out = evaluated and not self._left_out
        if not self._left_out:
            self._rescale(simulation.context, record)

    def _read(self, context: openmm.Context) -> _Record:
        meter = self._meter_of(context)
        gradient = np.diagonal(meter.model_strain_gradient(context))
        derivatives = [
            float(gradient[group].sum()) + meter.other_strain_derivative(context, group)
            for group in self.axes
        ]
        return _Record(context.getStepCount(), derivatives)

    def _meter_of(self, context: openmm.Context) -> PressureMeter:
        if self._meter is None or self._context is not context:
            integrator = context.getIntegrator()
            if isinstance(integrator, (openmm.VariableVerletIntegrator, openmm.VariableLangevinIntegrator)):
                raise ValueError(f"{_WHERE}: `integrator` has steps of variable size, but they must be equal")
            check_no_barostat(context.getSystem(), _WHERE)
            self._meter, self._context = PressureMeter(context, _WHERE), context
        return self._meter

    def _rescale(self, context: openmm.Context, record: _Record) -> None:
        meter = self._meter_of(context)
        state = context.getState(positions=True, velocities=True)
        velocities, box = velocities_of(state), box_of(state)
        flux = np.diagonal(meter.momentum_flux(velocities)).copy()
        if meter.removed_momentum:
            flux += MOLAR_GAS_CONSTANT * self.temperature
        volume = float(np.linalg.det(box))
        pressures = [
            (flux[group].sum() - derivative) / (len(group) * volume)
            for group, derivative in zip(self.axes, record.strain_derivatives, strict=True)
        ]
        duration = self.interval * context.getIntegrator().getStepSize()._value
        factors = np.exp(self.strains(pressures, volume, duration, self._noise(record.step)))
        context.setVelocities(velocities / factors)
        meter.place(context, positions_of(state) * factors, box * factors)

    def strains(
        self, pressures: Sequence[float], volume: float, duration: float, noise: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Logarithmic strains (3,) of the axes over one interval.

        Args:
            pressures: instantaneous, of each group of axes, kJ/mol/nm^3.
            volume: of the box, nm^3.
            duration: of the interval, ps.
            noise: a unit normal deviate for each group.

        Raises ValueError where they are beyond what the equations can follow.
        """
        strains = np.zeros(3)
        pace = self.compressibility / BAR * duration / (3.0 * self.relaxation_time)  # nm^3 mol/kJ
        thermal = MOLAR_GAS_CONSTANT * self.temperature  # kJ/mol
        for group, outer, inner, deviate in zip(self.axes, self.pressure, pressures, noise, strict=True):
            size = len(group)
            drift = -size * pace * (outer * BAR - inner)
            strain = drift + math.sqrt(2.0 * thermal * size * pace / volume) * deviate
            if not abs(strain) <= _LARGEST_STRAIN:
                raise ValueError(
                    f"{_WHERE}: one rescaling would change the box by a factor of exp({strain:.2g}) at a "
                    f"pressure of {inner / BAR:.3g} bar: the `compressibility` of "
                    f"{self.compressibility:g}/bar is too large, or the `relaxation_time` of "
                    f"{self.relaxation_time:g} ps too short"
                )
            strains[group] = strain / size
        return strains

    def _noise(self, step: int) -> NDArray[np.float64]:
        # a counter of its own for each step, far from that of the next
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=step << 64))
        return generator.standard_normal(len(self.axes))


def _axes(axes: str) -> list[list[int]]:
    groups = axes.split()
    letters = "".join(groups)
    if not letters or len(set(letters)) < len(letters) or not set(letters) <= set(AXES):
        raise ValueError(
            f"{_WHERE}: `axes` is {axes!r} but must be groups of x, y and z, as in 'xyz' or 'xy z'"
        )
    return [sorted(AXES.index(letter) for letter in group) for group in groups]


def _pressures(pressure: float | Sequence[float] | unit.Quantity, count: int) -> list[float]:
    numbers = np.atleast_1d(np.asarray(value_in(unit.bar, pressure), dtype=float))
    if numbers.shape not in {(1,), (count,)} or not np.isfinite(numbers).all():
        raise ValueError(
            f"{_WHERE}: `pressure` is {pressure} but must be one finite number, or one for each of the "
            f"{count} groups of `axes`"
        )
    return [float(number) for number in np.broadcast_to(numbers, (count,))]


def _positive(name: str, value: float | unit.Quantity, of: unit.Unit) -> float:
    number = float(value_in(of, value))
    if not 0.0 < number < math.inf:
        raise ValueError(f"{_WHERE}: `{name}` is {value} but must be positive")
    return number
