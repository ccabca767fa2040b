"""The Orb-v3 potential: edge vectors in, energies and per-atom outputs out. Start reading at `orb.py`."""

from .core import ConservativeCore, DirectCore
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
from .network import OrbConfig
from .orb import OrbV3, Outputs

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
