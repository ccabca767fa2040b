"""Losses of the published Orb-v3 models. Shapes: N atoms, E edges, B graphs.

All errors are taken in normalized units: predictions with the statistics as they were, targets with the
statistics that those same targets have just updated. Huber losses have a threshold of 0.01 there, so they are
absolute errors in effect.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from orb_export.graph import Graph
from orb_export.model import (
    OrbV3,
    Outputs,
    conservative_stress,
    direct_stress,
    edge_forces,
    rotational_gradient,
    strain_gradient,
)
from orb_export.model.heads import StressHead
from orb_export.model.normalizer import Normalizer

from .config import LossWeights
from .data import Labels

HUBER_DELTA = 0.01
# Large forces are noise more than signal: the threshold shrinks by these factors with the normalized norm.
FORCE_BRACKETS = (100.0, 200.0, 300.0)
FORCE_FACTORS = (1.0, 0.7, 0.4, 0.1)
IGNORED_BIN = -100  # of errors beyond the last confidence bin


class Prediction(NamedTuple):
    """Differentiable results of a batch, float64."""

    outputs: Outputs
    energy: Tensor  # (B,) eV
    forces: Tensor  # (N, 3) eV/angstrom
    stress: Tensor | None  # (B, 6) eV/angstrom^3
    rotational_gradient: Tensor | None  # (B, 3, 3) eV


class Pool(NamedTuple):
    """The processes that share a batch. Their mean of the losses is the loss of the whole batch.

    `total` sums a float64 tensor over the processes; all call it equally often. A batch that does not count
    adds nothing to losses and statistics.
    """

    processes: int = 1
    total: Callable[[Tensor], Tensor] = lambda values: values
    counts: bool = True
    device: torch.device | str = "cpu"  # of the losses; NCCL sums nothing that lies elsewhere

    def share(self, n: Tensor | int) -> Tensor:
        """What to multiply a mean over `n` local elements with, () float64; 1 in a single process."""
        local = torch.as_tensor(n, dtype=torch.float64, device=self.device) * self.counts
        return local * self.processes / self.total(local.clone()).clamp(min=1.0)

    def observe(self, normalizer: Normalizer, targets: Tensor) -> Tensor:
        """Normalized targets; in training mode after taking those of all processes into the statistics."""
        if not normalizer.training or (self.processes == 1 and self.counts):
            normalized: Tensor = normalizer(targets)
            return normalized
        values = targets.detach().to(torch.float64).flatten() * self.counts
        count, total = self.total(
            torch.stack([values.new_tensor(values.numel() * self.counts), values.sum()])
        )
        if count > 1:
            mean = total / count
            squares = self.total(((values - mean) * self.counts).square().sum())
            normalizer.take(mean, squares / (count - 1))
        return normalizer.normalize(targets)


ALONE = Pool()


class Passes(NamedTuple):
    """What the network and the gradient of its energy say of a batch."""

    outputs: Outputs
    forces: Tensor  # (N, 3) eV/angstrom, of the gradient
    strain: Tensor  # (B, 3, 3) eV, gradient of the energy
    rotational_gradient: Tensor | None  # (B, 3, 3) eV, of conservative models


def predict(model: OrbV3, graph: Graph, *, differentiable: bool = False) -> Prediction:
    """Evaluate a batch. If `differentiable`, everything has gradients with respect to the weights."""
    return finished(model, graph, passes(model, graph, differentiable=differentiable))


def passes(model: OrbV3, graph: Graph, *, differentiable: bool) -> Passes:
    """The part of `predict` that takes the time."""
    graph = graph._replace(vectors=graph.vectors.detach().requires_grad_())
    outputs = model(graph)
    (gradient,) = torch.autograd.grad(
        outputs.energy.sum(), graph.vectors, create_graph=differentiable, retain_graph=differentiable
    )
    edge_graph, n_graphs = graph.batch.index_select(0, graph.centers), graph.counts.shape[0]
    forces = edge_forces(gradient, graph.centers, graph.neighbors, graph.numbers.shape[0])
    strain = strain_gradient(graph.vectors, gradient, edge_graph, n_graphs)
    conservative = model.config.kind == "conservative"
    rotation = rotational_gradient(graph.vectors, gradient, edge_graph, n_graphs) if conservative else None
    return Passes(outputs, forces, strain, rotation)


def finished(model: OrbV3, graph: Graph, found: Passes) -> Prediction:
    """The rest of it: stresses, and what the heads of a direct model add."""
    outputs, forces, strain, rotation = found
    if model.config.kind == "conservative":
        stress = conservative_stress(strain, graph.cell)
        return Prediction(outputs, outputs.energy, forces, stress, rotation)
    assert outputs.node_forces is not None
    assert outputs.force_offset is not None
    forces = forces + model.direct_forces(graph, outputs.node_forces) + outputs.force_offset
    head = outputs.node_stress
    direct = None if head is None else direct_stress(head, strain, graph.cell)
    return Prediction(outputs, outputs.energy, forces, direct, None)


def huber(prediction: Tensor, target: Tensor, delta: float = HUBER_DELTA) -> Tensor:
    """Mean Huber loss, by default with the threshold of Orb-v3."""
    return functional.huber_loss(prediction, target, delta=delta)


def conditional_huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean Huber loss of force components (N, 3), with a smaller threshold for atoms under large forces."""
    brackets = torch.tensor(FORCE_BRACKETS, dtype=target.dtype, device=target.device)
    factors = torch.tensor(FORCE_FACTORS, dtype=target.dtype, device=target.device)
    bracket = torch.bucketize(target.norm(dim=1), brackets, right=True)
    delta = HUBER_DELTA * factors[bracket][:, None]  # (N, 1)
    error = (prediction - target).abs()  # (N, 3)
    return torch.where(error < delta, 0.5 * error.square(), delta * (error - 0.5 * delta)).mean()


def confidence_loss(model: OrbV3, logits: Tensor, errors: Tensor) -> Tensor:
    """Cross-entropy of the bin of each atom's force error (N,); 0 if every error is beyond the last bin.

    (The published code returns NaN then.)
    """
    bins = model.confidence_head.bins(errors)
    total = functional.cross_entropy(logits, bins, ignore_index=IGNORED_BIN, reduction="sum")
    return total / (bins != IGNORED_BIN).sum().clamp(min=1)


def additivity_gaps(model: OrbV3, graph: Graph, node_features: Tensor) -> Tensor:
    """(B,) energy head of the mean of the atoms' features (N, C), less its mean over the atoms, normalized.

    The energy head is nonlinear and acts on the mean, so that the energy of a surface or of a vacancy
    depends on how much else is in the cell. Where this is zero, the energy of a structure is that of its
    atoms' features one by one; structures joined to one may still differ from their sum.
    """
    head, features = model.energy_head.mlp, node_features.to(torch.float64)
    n_graphs, n_atoms = len(graph.counts), graph.counts.to(torch.float64)[:, None]  # (B, 1)

    def means(values: Tensor) -> Tensor:  # (N, D) -> (B, D)
        return values.new_zeros(n_graphs, values.shape[1]).index_add(0, graph.batch, values) / n_atoms

    gaps: Tensor = (head(means(features)) - means(head(features)))[:, 0]
    return gaps


def loss_terms(
    model: OrbV3,
    graph: Graph,
    labels: Labels,
    weights: LossWeights,
    pool: Pool = ALONE,
    prediction: Prediction | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch and, for the log, its weighted terms and errors in physical units.

    In training mode the normalizers take the targets into their statistics. `prediction` is what
    `predict(model, graph, differentiable=True)` gives, for callers that have it already.
    """
    prediction = prediction or predict(model, graph, differentiable=True)
    per_graph, per_atom = pool.share(len(graph.counts)), pool.share(len(graph.numbers))
    terms = {}
    if weights.energy:
        predicted, normalized = _energies(model, graph, prediction.energy, labels.energy, pool)
        energy_loss = huber(predicted, normalized, weights.energy_huber_delta)
        terms["energy_loss"] = weights.energy * per_graph * energy_loss
    normalizer = _forces_normalizer(model)
    predicted = normalizer.normalize(prediction.forces)
    if weights.forces:
        forces_loss = conditional_huber(predicted, pool.observe(normalizer, labels.forces))
        terms["forces_loss"] = weights.forces * per_atom * forces_loss
    if prediction.stress is not None and weights.stress:
        labelled = labels.stress.isfinite().all(dim=1)
        stress_loss = _stress_loss(model, prediction.stress, labels.stress, labelled, pool)
        terms["stress_loss"] = weights.stress * pool.share(labelled.sum()) * stress_loss
    if prediction.rotational_gradient is not None and weights.equigrad:
        norms = torch.linalg.matrix_norm(prediction.rotational_gradient)  # (B,) Frobenius, not squared
        terms["equigrad_loss"] = weights.equigrad * per_graph * norms.mean()
    if weights.additivity:
        gaps = additivity_gaps(model, graph, prediction.outputs.node_features)
        terms["additivity_loss"] = weights.additivity * per_graph * huber(gaps, torch.zeros_like(gaps))
    force_errors = (prediction.forces - labels.forces).detach().abs()
    if weights.confidence:
        if model.config.kind == "direct":  # as published: forces that have gone through both statistics
            force_errors = (normalizer.denormalize(predicted) - labels.forces).detach().abs()
        errors, logits = force_errors.mean(dim=1), prediction.outputs.confidence_logits
        per_bin = pool.share((model.confidence_head.bins(errors) != IGNORED_BIN).sum())
        terms["confidence_loss"] = weights.confidence * per_bin * confidence_loss(model, logits, errors)
    loss = torch.stack([term.to(torch.float64) for term in terms.values()]).sum()
    energy_error = (prediction.energy - labels.energy).detach().abs() / graph.counts
    log = {name: term.detach() for name, term in terms.items()}
    return loss, log | {
        "loss": loss.detach(),
        "energy_mae": per_graph * energy_error.mean(),
        "forces_mae": per_atom * force_errors.mean(),
    }


def denoising_loss(model: OrbV3, graph: Graph, noise: Tensor, pool: Pool = ALONE) -> Tensor:
    """Mean squared error of the decoder's guess of the noise (N, 3) that displaced the atoms."""
    guess = model.decoder(model.node_features(graph, graph.vectors)).to(torch.float64)
    loss: Tensor = pool.share(len(noise)) * (guess - noise).square().mean()
    return loss


def _energies(
    model: OrbV3, graph: Graph, energy: Tensor, target: Tensor, pool: Pool
) -> tuple[Tensor, Tensor]:
    """Predicted and labelled energies per atom (B,) as the losses compare them."""
    head = model.energy_head
    references = torch.zeros_like(energy).index_add(0, graph.batch, head.references(graph.numbers))
    n_atoms = graph.counts.to(energy.dtype)
    predicted = head.normalizer.normalize((energy - references) / n_atoms)
    # references cancel in the prediction; where they are trained, their gradient comes from the target
    return predicted, pool.observe(head.normalizer, (target - references) / n_atoms)


def _forces_normalizer(model: OrbV3) -> Normalizer:
    normalizer: Normalizer = (
        model.force_head.normalizer if model.config.kind == "direct" else model.forces_normalizer
    )
    return normalizer


def _stress_loss(model: OrbV3, stress: Tensor, target: Tensor, labelled: Tensor, pool: Pool) -> Tensor:
    """Of the structures with a label (B,) bool; 0 if there is none."""
    stress, target = stress[labelled], target[labelled]
    if model.config.kind == "conservative":
        predicted, normalized = _both(model.stress_normalizer, stress, target, pool)
        return huber(predicted, normalized) if len(target) else predicted.sum()
    assert isinstance(model.stress_head, StressHead)
    diagonal = _both(model.stress_head.diagonal_normalizer, stress[:, :3], target[:, :3], pool)
    offdiagonal = _both(model.stress_head.offdiagonal_normalizer, stress[:, 3:], target[:, 3:], pool)
    if not len(target):  # empty sums, through which every weight of the head still gets its zero gradient
        return diagonal[0].sum() + offdiagonal[0].sum()
    return huber(*diagonal) + 0.1 * huber(*offdiagonal)


def _both(
    normalizer: Normalizer, predicted: Tensor, target: Tensor, pool: Pool
) -> tuple[Tensor, Tensor]:  # in this order: predictions with the old statistics
    return normalizer.normalize(predicted), pool.observe(normalizer, target)
