"""Two models in one simulation: a cheap one for small steps, an accurate one for what it misses.

Reversible multiple time steps (Tuckerman, Berne and Martyna, J. Chem. Phys. 97, 1990 (1992)) with the
Langevin steps of BAOAB inside (Lagardere et al., J. Phys. Chem. Lett. 10, 2593 (2019)). With forces f of the
inner and F of the outer model, one step of size h with n substeps is

    kick by h/2 (F - f);  n times: half a kick by f, drift and noise, half a kick by f, each of h/n;
    kick by h/2 (F - f)

so that in the limit of small h the dynamics are those of the outer model, whatever the inner one is. OpenMM's
own `MTSIntegrator` does the same when the System has a third OrbV3Force, the inner model with the scale -1 in
the group of the outer one; here the difference is taken from forces that are known already, which saves one
evaluation of the inner model a step, and the energy is that of the outer model.
"""

import math
from collections.abc import Sequence

import openmm
from openmm import unit

from orb_export.openmm.pressure import MOLAR_GAS_CONSTANT, value_in

_WHERE = "TwoModelIntegrator"
_ALL_GROUPS = 0xFFFFFFFF


class TwoModelIntegrator(openmm.CustomIntegrator):  # type: ignore[misc]  # openmm has no types
    """Small steps with the OrbV3Force of one force group, corrected by that of another at each full step.

    A step costs `substeps` evaluations of the inner model and one of the outer. The inner group is left out
    of the integrator's force groups: energies that a `Simulation` reports, and pressures of barostats, are
    those of all others. With a temperature it is a Langevin integrator, without one it conserves energy.
    """

    def __init__(
        self,
        timestep: float | unit.Quantity,
        substeps: int,
        *,
        inner: int = 1,
        outer: int = 0,
        fast: Sequence[int] = (),
        temperature: float | unit.Quantity | None = None,
        friction: float | unit.Quantity | None = None,
    ) -> None:
        """Make the integrator.

        Args:
            timestep: of the outer model, ps.
            substeps: of the inner model in each.
            inner: force group of the inner model; only its OrbV3Force may be in it.
            outer: force group of the outer model, and of other forces that may wait for it.
            fast: groups of other forces that the substeps need as well.
            temperature: K; with `friction`.
            friction: 1/ps; with `temperature`.

        Raises:
            ValueError: an argument cannot be used; the message names it.
        """
        _check_groups(inner, outer, fast)
        if substeps < 1:
            raise ValueError(f"{_WHERE}: `substeps` is {substeps} but must be positive")
        step = value_in(unit.picosecond, timestep)
        if not 0.0 < step < math.inf:
            raise ValueError(f"{_WHERE}: `timestep` is {timestep} but must be positive")
        if (temperature is None) != (friction is None):
            raise ValueError(f"{_WHERE}: `temperature` and `friction` must be given both, or none")
        super().__init__(step)
        self.setIntegrationForceGroups(_ALL_GROUPS & ~(1 << inner))
        if temperature is not None:
            self._add_bath(temperature, friction, step / substeps)
        self.addPerDofVariable("unconstrained", 0)
        self.addUpdateContextState()
        correction = [f"0.5*dt*f{outer}", f"-0.5*dt*f{inner}"]
        kick = [f"(0.5*dt/{substeps})*f{group}" for group in (*fast, inner)]
        self._add_kicks(correction)
        for _ in range(substeps):
            self._add_kicks(kick)
            self._add_drift(substeps, temperature is not None)
            self._add_kicks(kick)
        # backwards, so that the group that was evaluated last is used first
        self._add_kicks(correction[::-1])
        self.addConstrainVelocities()

    def _add_bath(
        self, temperature: float | unit.Quantity, friction: float | unit.Quantity | None, duration: float
    ) -> None:
        kelvin, rate = value_in(unit.kelvin, temperature), value_in(unit.picosecond**-1, friction)
        for name, given, number in (("temperature", temperature, kelvin), ("friction", friction, rate)):
            if not 0.0 <= number < math.inf:
                raise ValueError(f"{_WHERE}: `{name}` is {given} but must not be negative")
        self.addGlobalVariable("damping", math.exp(-rate * duration))
        self.addGlobalVariable("noise", math.sqrt(-math.expm1(-2.0 * rate * duration)))
        self.addGlobalVariable("kT", MOLAR_GAS_CONSTANT * kelvin)

    def _add_kicks(self, impulses: Sequence[str]) -> None:
        for impulse in impulses:  # one at a time: OpenMM evaluates one group for each
            self.addComputePerDof("v", f"v+{impulse}/m")

    def _add_drift(self, substeps: int, bath: bool) -> None:
        drift = f"(dt/{substeps})"
        if bath:
            self.addComputePerDof("x", f"x+0.5*{drift}*v")
            self.addComputePerDof("v", "damping*v+noise*sqrt(kT/m)*gaussian")
            self.addComputePerDof("x", f"x+0.5*{drift}*v")
        else:
            self.addComputePerDof("x", f"x+{drift}*v")
        self.addComputePerDof("unconstrained", "x")
        self.addConstrainPositions()
        self.addComputePerDof("v", f"v+(x-unconstrained)/{drift}")
        self.addConstrainVelocities()


def _check_groups(inner: int, outer: int, fast: Sequence[int]) -> None:
    for name, group in (("inner", inner), ("outer", outer), *(("fast", group) for group in fast)):
        if not 0 <= group <= 31:
            raise ValueError(f"{_WHERE}: `{name}` has the force group {group} but must be from 0 to 31")
    groups = [inner, outer, *fast]
    if len(set(groups)) < len(groups):
        raise ValueError(
            f"{_WHERE}: `inner` {inner}, `outer` {outer} and `fast` {list(fast)} must be different "
            "force groups"
        )
