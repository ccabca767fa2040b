"""Real spherical harmonics up to l = 3. Shapes: E edges.

"Component" normalization (the squares of one l sum to 2l + 1) with y as the polar axis, in the order of m
from -l to l: the convention of e3nn, on which the published weights rest.
"""

import math

import torch
from torch import Tensor, nn

HARMONICS = 16


class SphericalHarmonics(nn.Module):
    """The 16 functions of l = 0..3 of unit vectors, as polynomials in the components."""

    def __init__(self) -> None:
        super().__init__()
        self.sqrt3: float = math.sqrt(3.0)
        self.sqrt5: float = math.sqrt(5.0)
        self.sqrt15: float = math.sqrt(15.0)
        self.sqrt7: float = math.sqrt(7.0)
        self.sqrt105: float = math.sqrt(105.0)
        self.sqrt21_8: float = math.sqrt(21.0 / 8.0)
        self.sqrt35_8: float = math.sqrt(35.0 / 8.0)

    def forward(self, unit: Tensor) -> Tensor:
        """(E, 3) -> (E, 16)."""
        x, y, z = unit[:, 0], unit[:, 1], unit[:, 2]
        xx, yy, zz = x * x, y * y, z * z
        rows = [
            torch.ones_like(x),
            self.sqrt3 * x,
            self.sqrt3 * y,
            self.sqrt3 * z,
            self.sqrt15 * x * z,
            self.sqrt15 * x * y,
            self.sqrt5 * (yy - 0.5 * (xx + zz)),
            self.sqrt15 * y * z,
            0.5 * self.sqrt15 * (zz - xx),
            self.sqrt35_8 * x * (3.0 * zz - xx),
            self.sqrt105 * x * y * z,
            self.sqrt21_8 * x * (4.0 * yy - xx - zz),
            0.5 * self.sqrt7 * y * (2.0 * yy - 3.0 * xx - 3.0 * zz),
            self.sqrt21_8 * z * (4.0 * yy - xx - zz),
            0.5 * self.sqrt105 * y * (zz - xx),
            self.sqrt35_8 * z * (zz - 3.0 * xx),
        ]
        return torch.stack(rows, dim=1)
