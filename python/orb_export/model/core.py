"""One graph in the terms of contract.py, before differentiation: what TorchScript and AOTInductor compile.

Shapes: N atoms, E edges, C channels. Inputs as in contract.INPUTS; all outputs float64.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .rows import sum_rows

if TYPE_CHECKING:
    from .orb import OrbV3


def by_center(edge_energy: Tensor, centers: Tensor, n_atoms: int) -> Tensor:
    """Sums over the edges of each center: (E,) -> (N,)."""
    columns = edge_energy.detach()[:, None]  # cpu_passes knows sums of rows
    return sum_rows(columns, centers, n_atoms)[:, 0]


class ConservativeCore(nn.Module):
    """One graph, conservative: the contract's `edge_gradient` is d(energy)/d(vectors). Shares the weights."""

    def __init__(self, model: "OrbV3") -> None:
        super().__init__()
        self.network = model.network
        self.repulsion = model.repulsion
        self.energy_head = model.energy_head
        self.confidence_head = model.confidence_head

    def forward(
        self,
        numbers: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        vectors: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energy () eV, confidence (N, 50), energies of atoms (N,), float64; inputs as in contract.INPUTS."""
        condition = self.network.conditioning(charge.reshape(1), spin.reshape(1))  # (1, C)
        x = self.network(numbers, centers, neighbors, vectors, condition)  # (N, C)
        latent_mean = x.to(torch.float64).mean(0, keepdim=True)  # (1, C)
        n_atoms = torch.full_like(charge, numbers.shape[0])
        repulsion = self.repulsion(numbers, centers, neighbors, vectors) / n_atoms  # (E,)
        references = self.energy_head.references(numbers)  # (N,)
        interaction = self.energy_head(latent_mean, n_atoms.reshape(1)).squeeze(0)
        energy = interaction + references.sum() + repulsion.sum()
        with torch.no_grad():
            confidence = torch.softmax(self.confidence_head(x).to(torch.float64), dim=1)
            shares = self.energy_head.shares(x, latent_mean)
            energies = shares + references + by_center(repulsion, centers, numbers.shape[0])
        return energy, confidence, energies


class DirectCore(nn.Module):
    """One graph, direct: d(energy)/d(vectors) is that of the repulsion alone. Shares the weights.

    The rest is evaluated without gradients: train on OrbV3, not on this.
    """

    def __init__(self, model: "OrbV3") -> None:
        super().__init__()
        self.network = model.network
        self.repulsion = model.repulsion
        self.energy_head = model.energy_head
        self.confidence_head = model.confidence_head
        self.force_head = model.force_head
        self.stress_head = model.stress_head

    def forward(
        self,
        numbers: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        vectors: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As the conservative one; then node forces (N, 3), force offset (), node stress (6,), float64."""
        repulsion = self.repulsion(numbers, centers, neighbors, vectors)  # (E,)
        with torch.no_grad():  # vectors.detach() would not do: torch.jit.freeze drops it
            condition = self.network.conditioning(charge.reshape(1), spin.reshape(1))  # (1, C)
            x = self.network(numbers, centers, neighbors, vectors, condition)  # (N, C)
            latent_mean = x.to(torch.float64).mean(0, keepdim=True)  # (1, C)
            n_atoms = torch.full_like(charge, numbers.shape[0]).reshape(1)
            references = self.energy_head.references(numbers)  # (N,)
            interaction = self.energy_head(latent_mean, n_atoms).squeeze(0) + references.sum()
            shares = self.energy_head.shares(x, latent_mean)
            energies = shares + references + by_center(repulsion, centers, numbers.shape[0])
            confidence = torch.softmax(self.confidence_head(x).to(torch.float64), dim=1)
            node_forces, force_offset = self.force_head(x)
            stress = self.stress_head(latent_mean).squeeze(0)
        return interaction + repulsion.sum(), confidence, energies, node_forces, force_offset, stress
