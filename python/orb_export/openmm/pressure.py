"""Instantaneous pressure of a Context, from the stress that its Orb-v3 forces know already.

Strain gradients are dE/d(strain) in kJ/mol, minus the virial. That of an OrbV3Force costs nothing where its
forces are computed anyway. Other forces of the System have no virial in OpenMM; theirs is a central
difference of their energies alone, for which they must be in other force groups than the OrbV3Forces.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from orb_export.openmm.force import OrbV3Force, is_orbv3

BAR = 0.0602214076  # kJ/mol/nm^3
MOLAR_GAS_CONSTANT = 8.31446261815324e-3  # kJ/mol/K
AXES = "xyz"
# Small enough for the third derivative, large enough for energies that a platform sums in float32.
_STRAIN = 2e-4
_BAROSTATS = (
    openmm.MonteCarloBarostat,
    openmm.MonteCarloAnisotropicBarostat,
    openmm.MonteCarloMembraneBarostat,
    openmm.MonteCarloFlexibleBarostat,
    openmm.RPMDMonteCarloBarostat,
)
_WITHOUT_ENERGY = (openmm.CMMotionRemover, openmm.AndersenThermostat, *_BAROSTATS)
# positions of these are linear in those of their parents, so that they follow a strain
_LINEAR_SITES = (openmm.TwoParticleAverageSite, openmm.ThreeParticleAverageSite)


class PressureMeter:
    """What the stress of one Context is made of. Made anew when its System or integrator changes."""

    def __init__(self, context: openmm.Context, where: str) -> None:
        """Look at the System. `where` opens the messages of errors.

        Raises ValueError for Systems whose pressure the stress of the forces does not give: without box, with
        constraints or virtual sites that are not averages, path integrals, no OrbV3Force.
        """
        system, integrator = context.getSystem(), context.getIntegrator()
        self._where = where
        self._check(system, integrator)
        self.groups: int = integrator.getIntegrationForceGroups()  # a bit for each that moves the particles
        forces = [force for force in system.getForces() if self.groups >> force.getForceGroup() & 1]
        self._forces = [OrbV3Force.cast(force) for force in forces if is_orbv3(force)]
        self._scales = [f"{force.prefix}_scale" for force in self._forces]
        # without images a direct model has no stress head; forces and positions say the same
        self._free = [None if any(force.periodic) else force.particles for force in self._forces]
        if not self._forces:
            raise ValueError(f"{where}: the System has no OrbV3Force that the integrator uses")
        others = [force for force in forces if not is_orbv3(force) and not isinstance(force, _WITHOUT_ENERGY)]
        self._other_groups = self._groups_without_models(others)
        self.masses = np.array([mass._value for mass in _masses(system)])
        # OpenMM takes the momentum of the center of mass away, not its place in the box
        self.removed_momentum = any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())
        self._has_sites = any(map(system.isVirtualSite, range(system.getNumParticles())))

    def _check(self, system: openmm.System, integrator: openmm.Integrator) -> None:
        if not system.usesPeriodicBoundaryConditions():
            raise ValueError(f"{self._where}: the System has no periodic box, so it has no pressure")
        if system.getNumConstraints():
            raise ValueError(
                f"{self._where}: the System has {system.getNumConstraints()} constraints, whose forces the "
                "stress does not contain: make the System without them"
            )
        for index in range(system.getNumParticles()):
            if system.isVirtualSite(index) and not isinstance(system.getVirtualSite(index), _LINEAR_SITES):
                raise ValueError(
                    f"{self._where}: particle {index} is a virtual site that is no average of two or three "
                    "particles, and does not follow a change of the box"
                )
        if isinstance(integrator, openmm.RPMDIntegrator):
            raise ValueError(f"{self._where}: `integrator` is an RPMDIntegrator, whose beads have no stress")

    def _groups_without_models(self, others: Sequence[openmm.Force]) -> int:
        groups = 0
        for force in others:
            for model in self._forces:
                if force.getForceGroup() == model.getForceGroup():
                    raise ValueError(
                        f"{self._where}: {force.getName()} has the force group {force.getForceGroup()} of an "
                        "OrbV3Force: give it another one, so that its own share of the pressure can be found"
                    )
            groups |= 1 << force.getForceGroup()
        return groups

    @property
    def only_models(self) -> bool:
        """Whether nothing but OrbV3Forces contributes."""
        return self._other_groups == 0

    def model_strain_gradient(self, context: openmm.Context) -> NDArray[np.float64]:
        """(3, 3) kJ/mol of all OrbV3Forces together, at the present positions, with their scales."""
        total = np.zeros((3, 3))
        for force, scale, free in zip(self._forces, self._scales, self._free, strict=True):
            evaluation = force.evaluate(context)
            gradient = evaluation.strain_gradient
            if free is not None:
                product = positions_of(context.getState(positions=True))[free].T @ evaluation.forces
                gradient = -0.5 * (product + product.T)
            total += context.getParameter(scale) * gradient
        return total

    def other_strain_derivative(self, context: openmm.Context, axes: Sequence[int]) -> float:
        """Sum of the diagonal of the strain gradient over `axes`, of everything but the OrbV3Forces, kJ/mol.

        Two energies of those forces; none where there are none.
        """
        if self.only_models:
            return 0.0
        state = context.getState(positions=True)
        positions, box = positions_of(state), box_of(state)
        energies = []
        try:
            for sign in (1, -1):
                factors = np.ones(3)
                factors[list(axes)] += sign * _STRAIN
                self.place(context, positions * factors, box * factors)
                energy = context.getState(energy=True, groups=self._other_groups).getPotentialEnergy()
                energies.append(energy._value)
        finally:
            self.place(context, positions, box)
        return float(energies[0] - energies[1]) / (2 * _STRAIN)

    def place(
        self, context: openmm.Context, positions: NDArray[np.float64], box: NDArray[np.float64]
    ) -> None:
        """Give a Context positions (n, 3) and box vectors (3, 3), nm."""
        context.setPeriodicBoxVectors(*box)
        context.setPositions(positions)
        if self._has_sites:
            context.computeVirtualSites()

    def momentum_flux(self, velocities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Twice the kinetic energy as a tensor (3, 3), kJ/mol, of velocities (n, 3) in nm/ps."""
        flux: NDArray[np.float64] = (velocities * self.masses[:, None]).T @ velocities
        return flux


def check_no_barostat(system: openmm.System, where: str) -> None:
    """Raise ValueError if another barostat acts on the System."""
    for force in system.getForces():
        if isinstance(force, _BAROSTATS):
            raise ValueError(f"{where}: the System has a {force.getName()} already")


def value_in(of: unit.Unit, value: Any) -> Any:
    """The number of a quantity in a unit; of a bare number, which has that unit already, the same."""
    return value.value_in_unit(of) if unit.is_quantity(value) else value


def positions_of(state: openmm.State) -> NDArray[np.float64]:
    """(n, 3) nm."""
    return np.asarray(state.getPositions(asNumpy=True)._value)


def velocities_of(state: openmm.State) -> NDArray[np.float64]:
    """(n, 3) nm/ps."""
    return np.asarray(state.getVelocities(asNumpy=True)._value)


def box_of(state: openmm.State) -> NDArray[np.float64]:
    """(3, 3) nm, rows are box vectors."""
    return np.array(state.getPeriodicBoxVectors(asNumpy=True)._value)


def _masses(system: openmm.System) -> list[unit.Quantity]:
    return [system.getParticleMass(index) for index in range(system.getNumParticles())]
