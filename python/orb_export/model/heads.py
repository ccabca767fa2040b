"""Output heads of Orb-v3 (arXiv:2504.06231). Shapes: N atoms, B graphs, C channels.

What is global (energy, stress) is evaluated in float64 whatever the dtype of the weights; what is per atom in
the dtype of the node features.
"""

import torch
from torch import Tensor, nn

from orb_export.contract import CONFIDENCE_BINS, CONFIDENCE_MAX_ERROR, MAX_ATOMIC_NUMBER

from .blocks import HeadMLP, linear, silu_with_slope
from .normalizer import Normalizer


class EnergyHead(nn.Module):
    """Pools first and applies the perceptron afterwards: an atom has an energy only as in `shares`."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.mlp = HeadMLP(channels, hidden, 1)
        self.normalizer = Normalizer()
        # energy of a free atom by atomic number, eV; taken from data, not from gradients
        self.reference = nn.Parameter(torch.zeros(MAX_ATOMIC_NUMBER + 1), requires_grad=False)

    def references(self, numbers: Tensor) -> Tensor:
        """(N,) -> (N,) eV float64."""
        return self.reference.to(torch.float64).index_select(0, numbers)

    def forward(self, latent_mean: Tensor, n_atoms: Tensor) -> Tensor:
        """Interaction energy: (B, C) float64, (B,) -> (B,) eV float64, without references and repulsion."""
        return self.per_atom(latent_mean) * n_atoms.to(torch.float64)

    def per_atom(self, latent_mean: Tensor) -> Tensor:
        """Interaction energy divided by the number of atoms: (B, C) float64 -> (B,) eV float64."""
        result: Tensor = self.normalizer.denormalize(self.mlp(latent_mean)[:, 0])
        return result

    def gradient(self, latent_mean: Tensor) -> Tensor:
        """Of `per_atom` with respect to its input: (B, C) float64 -> (B, C) eV float64."""
        first, second = self.mlp.first, self.mlp.second
        _, slope = silu_with_slope(linear(latent_mean, first.weight, first.bias))  # (B, H)
        gradient = torch.mm(slope * second.weight.to(slope.dtype), first.weight.to(slope.dtype))
        return gradient * self.normalizer.std()

    def shares(self, x: Tensor, latent_mean: Tensor) -> Tensor:
        """Each atom's part of the interaction energy of one graph: (N, C), (1, C) float64 -> (N,) eV float64.

        The head linearized at the mean, f(h) + grad f(h) . (x_i - h): exact for the sum, a definition for
        each atom.
        """
        from_mean = x.to(latent_mean.dtype) - latent_mean  # (N, C)
        return self.per_atom(latent_mean) + torch.mm(from_mean, self.gradient(latent_mean).t())[:, 0]


class ForceHead(nn.Module):
    """Forces of direct models, before the removal of net force and torque."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.mlp = HeadMLP(channels, hidden, 3)
        self.normalizer = Normalizer()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> forces without their mean value (N, 3), and that value () in eV/angstrom, float64.

        The mean of the normalizer is added to each component after the removal of the net force, so that
        predicted forces keep a net force: published behavior, negligible with trained statistics.
        """
        prediction: Tensor = self.mlp(x)
        offset = self.normalizer.mean.to(torch.float64).squeeze(0)
        return prediction.to(torch.float64) * self.normalizer.std(), offset


class StressHead(nn.Module):
    """Stress of direct models, Voigt xx yy zz yz xz xy, with separate normalizers for the two halves."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.mlp = HeadMLP(channels, hidden, 6)
        self.diagonal_normalizer = Normalizer()
        self.offdiagonal_normalizer = Normalizer()

    def forward(self, latent_mean: Tensor) -> Tensor:
        """(B, C) float64 -> (B, 6) eV/angstrom^3 float64."""
        raw = self.mlp(latent_mean)
        diagonal = self.diagonal_normalizer.denormalize(raw[:, :3])
        offdiagonal = self.offdiagonal_normalizer.denormalize(raw[:, 3:])
        return torch.cat([diagonal, offdiagonal], dim=1)


class NoStressHead(nn.Module):
    """Zero stress, for direct models without a stress head."""

    def forward(self, latent_mean: Tensor) -> Tensor:
        """(B, C) -> (B, 6)."""
        return latent_mean.new_zeros(latent_mean.shape[0], 6)


class ConfidenceHead(nn.Module):
    """Logits for the bins of an atom's force error; sends no gradient to the rest of the model."""

    bin_edges: Tensor

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.mlp = HeadMLP(channels, hidden, CONFIDENCE_BINS)
        edges = torch.linspace(0.0, CONFIDENCE_MAX_ERROR, CONFIDENCE_BINS + 1)
        self.register_buffer("bin_edges", edges)  # eV/angstrom

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) -> (N, bins)."""
        logits: Tensor = self.mlp(x.detach())
        return logits

    def bins(self, errors: Tensor) -> Tensor:
        """Bin of each force error (eV/angstrom, mean over components), -100 beyond the last edge.

        Bins are open below and closed above, except that 0 belongs to the first.
        """
        index = torch.bucketize(errors, self.bin_edges.to(errors.dtype)) - 1
        clamped = index.clamp(0, CONFIDENCE_BINS - 1)
        return torch.where(errors > CONFIDENCE_MAX_ERROR, torch.full_like(clamped, -100), clamped)


def expected_error(confidence: Tensor) -> Tensor:
    """Expected force error of each atom, eV/angstrom: (N, bins) probabilities -> (N,), by bin midpoints."""
    bins = confidence.shape[-1]
    width = CONFIDENCE_MAX_ERROR / bins
    midpoints = (torch.arange(bins, dtype=confidence.dtype, device=confidence.device) + 0.5) * width
    return confidence @ midpoints
