"""The Orb-v3 potential: edge vectors in, energies and per-atom outputs out. `orb.py` is the place to start."""

from .derivatives import (
    conservative_stress,
    direct_stress,
    edge_forces,
    remove_net_force,
    remove_net_torque,
    rotational_gradient,
    strain_gradient,
)
from .heads import expected_error
from .orb import ConservativeCore, DirectCore, OrbConfig, OrbV3, Outputs

__all__ = [
    "ConservativeCore",
    "DirectCore",
    "OrbConfig",
    "OrbV3",
    "Outputs",
    "conservative_stress",
    "direct_stress",
    "edge_forces",
    "expected_error",
    "remove_net_force",
    "remove_net_torque",
    "rotational_gradient",
    "strain_gradient",
]
