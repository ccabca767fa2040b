"""Conditioning of the node features on total charge and spin multiplicity (the OrbMol models).

Shapes: N atoms, B graphs, C channels; R is N or 1 (one row for all atoms of a single graph).
"""

import math

import torch
from torch import Tensor, nn


def _waves(values: Tensor, frequencies: Tensor) -> Tensor:  # (B,), (C/4,) -> (B, C/2)
    # charge and spin pass through float32 in the published models
    phase = 2.0 * math.pi * values.to(torch.float32).to(frequencies.dtype)[:, None] * frequencies
    return torch.cat([torch.sin(phase), torch.cos(phase)], dim=1)


class ChargeSpinEmbedding(nn.Module):
    """Random Fourier features of charge (e) and multiplicity 2S+1; spin 0 stands for "not given"."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"ChargeSpinEmbedding: `channels` is {channels} but must be a multiple of 4")
        self.charge_frequencies = nn.Parameter(torch.randn(channels // 4))
        self.spin_frequencies = nn.Parameter(torch.randn(channels // 4))

    def forward(self, charge: Tensor, spin: Tensor) -> Tensor:
        """(B,), (B,) -> (B, C)."""
        charge_part = _waves(charge, self.charge_frequencies)
        spin_part = _waves(spin, self.spin_frequencies) * (spin != 0)[:, None]
        return torch.cat([charge_part, spin_part], dim=1)


class NoEmbedding(nn.Module):
    """Stands in for ChargeSpinEmbedding in models that know neither charge nor spin."""

    def forward(self, charge: Tensor, spin: Tensor) -> Tensor:
        """(B,), (B,) -> (B, 0)."""
        return charge[:, None][:, :0]


class Shift(nn.Module):
    """Adds a linear image of the conditioning to the node stream itself, where it persists."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, C), (R, C) -> (N, C)."""
        result: Tensor = x + self.linear(condition)
        return result


class NoShift(nn.Module):
    """Leaves the node stream alone."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, C), (1, 0) or (N, 0) -> (N, C)."""
        return x
