"""Radial part of the edge features of Orb-v3 (arXiv:2504.06231). Shapes: E edges, K radial functions."""

import math

import torch
from torch import Tensor, nn

from orb_export.contract import CUTOFF


class BesselBasis(nn.Module):
    """sqrt(2/cutoff) sin(k pi r/cutoff) / r for k = 1..K; distances in angstrom.

    Wavenumbers and prefactor are part of every checkpoint, hence rounded to its precision. `r_max` is
    stored there too and takes no part in the formula.
    """

    wavenumbers: Tensor
    prefactor: Tensor
    r_max: Tensor

    def __init__(self, functions: int, cutoff: float = CUTOFF) -> None:
        super().__init__()
        dtype = torch.get_default_dtype()
        k = torch.arange(1, functions + 1, dtype=torch.float64)
        self.register_buffer("wavenumbers", (k * math.pi / cutoff).to(dtype))  # (K,)
        self.register_buffer("prefactor", torch.tensor(math.sqrt(2.0 / cutoff), dtype=dtype))
        self.register_buffer("r_max", torch.tensor(cutoff, dtype=dtype))

    def forward(self, distances: Tensor) -> Tensor:
        """(E, 1) -> (E, K)."""
        return self.prefactor * torch.sin(distances * self.wavenumbers) / distances


class Envelope(nn.Module):
    """Smooth cutoff 1 - 15 t^4 + 24 t^5 - 10 t^6 of t = r/cutoff, zero from the cutoff on.

    Expanded as in the published model, not factorized: in float32 the forms differ by 1e-6 near the cutoff.
    """

    def __init__(self, cutoff: float = CUTOFF) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, distances: Tensor) -> Tensor:
        """(E, 1) -> (E, 1)."""
        t = distances / self.cutoff
        t4 = t * t * t * t
        value = 1.0 - 15.0 * t4 + 24.0 * t4 * t - 10.0 * t4 * t * t
        return torch.where(distances < self.cutoff, value, torch.zeros_like(value))
