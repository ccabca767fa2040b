"""Ziegler-Biersack-Littmark repulsion as the published Orb-v3 models contain it.

Shapes: N atoms, E edges. Always float64. Two peculiarities were present in training and are therefore part of
the potential: charges and radii are those of element Z + 1, and the model's own directed, capped edge list
is summed (half an edge's energy each way), not a symmetric pair list.
"""

import torch
from torch import Tensor, nn

# Covalent radii by atomic number in picometers: Cordero et al., Dalton Trans. 2008, 2832, for Z = 1..96; the
# entries beyond and of Z = 0 are the placeholders of ASE 3.29, which the published models see as well.
_MEASURED_RADII = (
    "31 28 128 96 84 76 71 66 57 58 166 141 121 111 107 105 102 106 203 176 170 160 153 139 139 132 126 "
    "124 132 122 122 120 119 120 120 116 220 195 190 175 164 154 147 146 142 139 145 144 142 139 139 "
    "138 139 140 244 215 207 204 203 201 199 198 198 196 194 192 192 189 190 187 187 175 170 162 151 "
    "144 141 136 136 132 145 146 148 140 150 150 260 221 215 206 200 196 190 187 180 169"
)
COVALENT_RADII_PM = (20, *(int(radius) for radius in _MEASURED_RADII.split()), *(200,) * 22)  # Z = 0..118


class ZBL(nn.Module):
    """Energy of each edge, eV; the screening parameters are the rounded ones of the published models."""

    radii_pm: Tensor

    def __init__(self) -> None:
        super().__init__()
        # integers survive a cast of the model to float32, and pm / 100 gives the exact float64 radius
        self.register_buffer("radii_pm", torch.tensor(COVALENT_RADII_PM), persistent=False)

    def forward(self, numbers: Tensor, centers: Tensor, neighbors: Tensor, vectors: Tensor) -> Tensor:
        """(N,), (E,), (E,), (E, 3) angstrom float64 -> (E,) eV float64."""
        r = vectors.square().sum(1).sqrt()  # (E,)
        charge = (numbers + 1).to(torch.float64)  # (N,)
        radius = self.radii_pm.index_select(0, numbers + 1).to(torch.float64) / 100.0  # (N,)
        reduced = charge.pow(0.3)  # (N,)
        charges = charge.index_select(0, centers) * charge.index_select(0, neighbors)  # (E,)
        screening = 0.4543 * 0.529 / (reduced.index_select(0, centers) + reduced.index_select(0, neighbors))
        cutoff = radius.index_select(0, centers) + radius.index_select(0, neighbors)
        rho = r / screening
        phi = 0.1818 * torch.exp(-3.2 * rho) + 0.5099 * torch.exp(-0.9423 * rho)
        phi = phi + 0.2802 * torch.exp(-0.4028 * rho) + 0.02817 * torch.exp(-0.2016 * rho)
        t = r / cutoff
        t6 = t.square() * t.square() * t.square()
        smooth = 1.0 - 28.0 * t6 + 48.0 * t6 * t - 21.0 * t6 * t * t
        energy = 0.5 * 14.3996 * charges / r * phi * smooth
        return torch.where(r < cutoff, energy, torch.zeros_like(energy))
