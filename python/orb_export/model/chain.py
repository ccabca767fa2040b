"""The potential as a chain of steps, for a host that comes between them.

    encode nodes, encode edges -> (message -> update) x layers -> readout

Between the steps the host does what is linear: it adds a row to the node stream (`shifts`), multiplies it by
the two projections of each layer, and sums messages over edges and atoms. So it may walk over the edges in
chunks and exchange rows of atoms with other processes. A `<step>_vjp` goes back through a step: from the
gradients of the energy with respect to the outputs and from what the step kept to those with respect to its
inputs, without repeating a matrix product. Steps on edges keep that only as `<step>_keep`: it is much.
cpp/src/runtime/walk.cpp is the walk. The modules can be scripted; they share the weights of a model.

Kept of a perceptron with normalization on R rows: the slopes of its two activations (R, H) each, and its
result before the normalization (R, C).

Shapes: N atoms, E edges (of a chunk), C channels, H hidden width, L layers. g_ is the gradient of the energy.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .interaction import Interaction

if TYPE_CHECKING:
    from .orb import OrbV3


def _vjp(outputs: list[Tensor], inputs: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    seeds: list[Tensor | None] = []
    for gradient in gradients:
        seeds.append(gradient)
    found = torch.autograd.grad(outputs, inputs, seeds)
    results: list[Tensor] = []
    for tensor in found:
        assert tensor is not None
        results.append(tensor)
    return results


class Nodes(nn.Module):
    """Node stream before the first layer, and what depends on elements, charge and spin alone."""

    def __init__(self, model: "OrbV3") -> None:
        super().__init__()
        self.embedding = model.network.embedding
        self.encoder = model.network.node_encoder
        self.conditioning = model.network.conditioning
        self.shifts = nn.ModuleList(layer.get_submodule("shift") for layer in model.network.layers)
        self.energy_head = model.energy_head

    @torch.jit.export
    def encode(self, numbers: Tensor, charge: Tensor, spin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N,), (), () -> x (N, C), shifts (L, C) to be added to x by each layer, references (N,) float64."""
        x: Tensor = self.encoder(self.embedding(numbers))
        condition = self.conditioning(charge.reshape(1), spin.reshape(1))  # (1, C) or (1, 0)
        zero = torch.zeros(1, x.shape[1], dtype=x.dtype, device=x.device)
        shifts = torch.cat([shift(zero, condition) for shift in self.shifts])
        return x, shifts, self.energy_head.references(numbers)


class Edges(nn.Module):
    """Edge stream before the first layer, and the repulsion."""

    def __init__(self, model: "OrbV3") -> None:
        super().__init__()
        self.encoder = model.network.edge_encoder
        self.zbl = model.repulsion

    @torch.jit.export
    def repulsion(
        self, numbers: Tensor, centers: Tensor, neighbors: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """-> repulsion of each edge (E,) and the gradient of their sum (E, 3), float64."""
        vectors = vectors.detach().requires_grad_()
        energies = self.zbl(numbers, centers, neighbors, vectors)
        gradient = _vjp([energies], [vectors], [torch.ones_like(energies)])[0]
        return energies.detach(), gradient

    @torch.jit.export
    def encode(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(E, 3) -> e (E, C), envelope (E, 1)."""
        e, envelope = self.encoder(vectors)
        return e, envelope

    @torch.jit.export
    def encode_keep(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As `encode`, and what its perceptron keeps (E, H), (E, H), (E, C)."""
        features, envelope = self.encoder.features(vectors)
        e, first_slope, second_slope, raw = self.encoder.block.keep(features)
        return e, envelope, first_slope, second_slope, raw

    @torch.jit.export
    def encode_vjp(
        self,
        vectors: Tensor,
        first_slope: Tensor,
        second_slope: Tensor,
        raw: Tensor,
        g_e: Tensor,
        g_envelope: Tensor,
    ) -> Tensor:
        """-> g_vectors (E, 3) float64, without the repulsion's."""
        g_features = self.encoder.block.vjp(first_slope, second_slope, raw, g_e)
        vectors = vectors.detach().requires_grad_()
        features, envelope = self.encoder.features(vectors)
        return _vjp([features, envelope], [vectors], [g_features, g_envelope])[0]


class Layer(nn.Module):
    """One interaction layer; all layers have the same steps and differ in weights only."""

    def __init__(self, interaction: nn.Module) -> None:
        super().__init__()
        assert isinstance(interaction, Interaction)
        self.interaction = interaction

    @torch.jit.export
    def projections(self) -> tuple[Tensor, Tensor]:
        """(C, H) each: x . projection is what atoms give to their edges as center, and as neighbor."""
        return self.interaction.edge_block.projections()

    @torch.jit.export
    def message(
        self,
        e: Tensor,
        envelope: Tensor,
        as_center: Tensor,
        as_neighbor: Tensor,
        centers: Tensor,
        neighbors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> e of the next layer, and what is summed into `received` of neighbors and `sent` of centers (E,
        C). `as_center` needs rows for all centers only, `as_neighbor` for all neighbors.
        """
        block = self.interaction.edge_block
        message = block.finish(e, as_center, as_neighbor, centers, neighbors)  # (E, C)
        to_neighbors, to_centers = self.interaction.gated(e, envelope, message)
        return e + message, to_neighbors, to_centers

    @torch.jit.export
    def message_keep(
        self,
        e: Tensor,
        envelope: Tensor,
        as_center: Tensor,
        as_neighbor: Tensor,
        centers: Tensor,
        neighbors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As `message`; what its perceptron keeps (E, H), (E, H), (E, C); and its gates (E, 2)."""
        message, first_slope, second_slope, raw = self.interaction.edge_block.finish_keep(
            e, as_center, as_neighbor, centers, neighbors
        )
        gates = self.interaction.gates(e)  # (E, 2)
        opened = gates * envelope
        to_neighbors, to_centers = opened[:, :1] * message, opened[:, 1:] * message
        return e + message, to_neighbors, to_centers, first_slope, second_slope, raw, gates

    @torch.jit.export
    def message_vjp(
        self,
        envelope: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        first_slope: Tensor,
        second_slope: Tensor,
        raw: Tensor,
        gates: Tensor,
        g_next_e: Tensor,
        g_received: Tensor,
        g_sent: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> g_e (E, C), g_envelope (E, 1), and g_from_nodes (E, H), to be summed onto centers and neighbors.

        g_next_e is (E, C); g_received has rows for all neighbors, g_sent for all centers.
        """
        message = self.interaction.edge_block.norm(raw)  # (E, C)
        g_to_neighbors, g_to_centers = g_received.index_select(0, neighbors), g_sent.index_select(0, centers)
        g_opened = torch.cat(
            [
                (g_to_neighbors * message).sum(1, keepdim=True),
                (g_to_centers * message).sum(1, keepdim=True),
            ],
            dim=1,
        )  # (E, 2)
        opened = gates * envelope
        g_message = g_next_e + opened[:, :1] * g_to_neighbors + opened[:, 1:] * g_to_centers
        g_e, g_first = self.interaction.edge_block.finish_vjp(first_slope, second_slope, raw, g_message)
        g_gates = g_opened * opened * (1.0 - gates)  # before the sigmoid
        weight = torch.cat([self.interaction.receive_gate.weight, self.interaction.send_gate.weight])
        g_e = g_next_e + g_e + g_gates[:, :1] * weight[:1] + g_gates[:, 1:] * weight[1:]
        return g_e, (g_opened * gates).sum(1, keepdim=True), g_first

    @torch.jit.export
    def update(self, x: Tensor, received: Tensor, sent: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, C) each -> x of the next layer (N, C), and what its perceptron keeps (N, H), (N, H), (N, C)."""
        inputs = torch.cat([x, received, sent], dim=1)
        change, first_slope, second_slope, raw = self.interaction.node_block.keep(inputs)
        return x + change, first_slope, second_slope, raw

    @torch.jit.export
    def update_vjp(
        self, first_slope: Tensor, second_slope: Tensor, raw: Tensor, g_next_x: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> g_x, g_received, g_sent (N, C) each."""
        c = g_next_x.shape[1]
        g_inputs = self.interaction.node_block.vjp(first_slope, second_slope, raw, g_next_x)  # (N, 3C)
        return g_next_x + g_inputs[:, :c], g_inputs[:, c : 2 * c], g_inputs[:, 2 * c :]


class _Readout(nn.Module):
    """What both kinds of model read from the node stream after the last layer."""

    def __init__(self, model: "OrbV3") -> None:
        super().__init__()
        self.energy_head = model.energy_head
        self.confidence_head = model.confidence_head

    def interaction_energy(self, latent_sum: Tensor, n_atoms: Tensor) -> tuple[Tensor, Tensor]:
        """(C,), () -> () eV, and its gradient with respect to the sum (C,), float64."""
        mean = (latent_sum / n_atoms)[None, :]
        energy: Tensor = self.energy_head(mean, n_atoms.reshape(1)).squeeze(0)
        return energy, self.energy_head.gradient(mean).squeeze(0)

    def confidence(self, x: Tensor) -> Tensor:
        """(N, C) -> (N, 50) float64."""
        return torch.softmax(self.confidence_head(x).to(torch.float64), dim=1)


class ConservativeReadout(_Readout):
    """Energy, and its gradient with respect to what was summed over atoms and edges."""

    @torch.jit.export
    def atoms(self, x: Tensor) -> Tensor:
        """(N, C) -> confidence (N, 50) float64."""
        return self.confidence(x)

    @torch.jit.export
    def total(
        self, latent_sum: Tensor, references: Tensor, repulsion: Tensor, n_atoms: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over atoms (C,), () and over edges (), and () -> energy (), g_repulsion (), g_latent_sum (C,).

        All float64.
        """
        interaction, gradient = self.interaction_energy(latent_sum, n_atoms)
        # the repulsion is a mean over atoms
        return interaction + references + repulsion / n_atoms, 1.0 / n_atoms, gradient


class DirectReadout(_Readout):
    """Energy, with forces and stress from heads of their own."""

    def __init__(self, model: "OrbV3") -> None:
        super().__init__(model)
        self.force_head = model.force_head
        self.stress_head = model.stress_head

    @torch.jit.export
    def atoms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> confidence (N, 50), node forces (N, 3), float64."""
        return self.confidence(x), self.force_head(x)[0]

    @torch.jit.export
    def total(
        self, latent_sum: Tensor, references: Tensor, repulsion: Tensor, n_atoms: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As the conservative one; then force offset (), stress (6,)."""
        interaction, gradient = self.interaction_energy(latent_sum, n_atoms)
        energy = interaction + references + repulsion
        offset = self.force_head.normalizer.mean.to(torch.float64).squeeze(0)
        stress = self.stress_head((latent_sum / n_atoms)[None, :]).squeeze(0)
        return energy, torch.ones_like(repulsion), gradient, offset, stress


class Chain(nn.Module):
    """All steps of a model."""

    def __init__(self, model: "OrbV3") -> None:
        super().__init__()
        self.nodes = Nodes(model)
        self.edges = Edges(model)
        self.layers = nn.ModuleList(Layer(interaction) for interaction in model.network.layers)
        direct = model.config.kind == "direct"
        self.readout: nn.Module = DirectReadout(model) if direct else ConservativeReadout(model)
