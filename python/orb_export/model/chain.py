"""The potential as a chain of steps, for a host that comes between them.

    encode nodes, encode edges -> (message -> update) x layers -> readout

Between the steps the host does what is linear: it adds a row to the node stream (`shifts`), multiplies it by
the two projections of each layer, and sums messages over edges and atoms. So it may walk over the edges in
chunks and exchange rows of atoms with other processes. `<step>_vjp` takes the inputs of a step and the
gradients of the energy with respect to its outputs, evaluates the step again, and returns the gradients with
respect to the inputs. cpp/src/runtime/chain.cpp is the walk. The modules can be scripted; they share the
weights of a model.

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
    def encode(
        self, numbers: Tensor, centers: Tensor, neighbors: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> e (E, C), envelope (E, 1), sum () of the repulsion and its gradient (E, 3), these float64."""
        e, envelope = self.encoder(vectors)
        varied = vectors.detach().requires_grad_()
        repulsion = self.zbl(numbers, centers, neighbors, varied).sum()
        gradient = _vjp([repulsion], [varied], [torch.ones_like(repulsion)])[0]
        return e, envelope, repulsion.detach(), gradient

    @torch.jit.export
    def encode_vjp(self, vectors: Tensor, g_e: Tensor, g_envelope: Tensor) -> Tensor:
        """-> g_vectors (E, 3) float64, without the repulsion's."""
        vectors = vectors.detach().requires_grad_()
        e, envelope = self.encoder(vectors)
        return _vjp([e, envelope], [vectors], [g_e, g_envelope])[0]


class Layer(nn.Module):
    """One interaction layer; all layers have the same steps and differ in weights only."""

    def __init__(self, interaction: nn.Module) -> None:
        super().__init__()
        assert isinstance(interaction, Interaction)
        self.interaction = interaction

    @torch.jit.export
    def projections(self) -> tuple[Tensor, Tensor]:
        """(C, H) each: x . projection is what atoms give to their edges as center, and as neighbor."""
        block = self.interaction.edge_block
        c, weight = block.channels, block.mlp.first.weight
        return weight[:, c : 2 * c].t(), weight[:, 2 * c :].t()

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
        C).
        """
        from_nodes = as_center.index_select(0, centers) + as_neighbor.index_select(0, neighbors)  # (E, H)
        return self._message(e, envelope, from_nodes)

    def _message(self, e: Tensor, envelope: Tensor, from_nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        message = self.interaction.edge_block.finish(e, from_nodes)  # (E, C)
        to_neighbors, to_centers = self.interaction.gated(e, envelope, message)
        return e + message, to_neighbors, to_centers

    @torch.jit.export
    def message_vjp(
        self,
        e: Tensor,
        envelope: Tensor,
        as_center: Tensor,
        as_neighbor: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        g_next_e: Tensor,
        g_received: Tensor,
        g_sent: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> g_e (E, C), g_envelope (E, 1), and g_from_nodes (E, H), to be summed onto centers and neighbors.

        g_next_e is (E, C); g_received and g_sent are (N, C).
        """
        from_nodes = as_center.index_select(0, centers) + as_neighbor.index_select(0, neighbors)  # (E, H)
        inputs = [tensor.detach().requires_grad_() for tensor in (e, envelope, from_nodes)]
        next_e, to_neighbors, to_centers = self._message(inputs[0], inputs[1], inputs[2])
        gradients = [g_next_e, g_received.index_select(0, neighbors), g_sent.index_select(0, centers)]
        found = _vjp([next_e, to_neighbors, to_centers], inputs, gradients)
        return found[0], found[1], found[2]

    @torch.jit.export
    def update(self, x: Tensor, received: Tensor, sent: Tensor) -> Tensor:
        """(N, C) each -> x of the next layer (N, C)."""
        return self.interaction.update(x, received, sent)

    @torch.jit.export
    def update_vjp(
        self, x: Tensor, received: Tensor, sent: Tensor, g_next_x: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> g_x, g_received, g_sent (N, C) each."""
        inputs = [tensor.detach().requires_grad_() for tensor in (x, received, sent)]
        found = _vjp([self.interaction.update(inputs[0], inputs[1], inputs[2])], inputs, [g_next_x])
        return found[0], found[1], found[2]


class _Readout(nn.Module):
    """What both kinds of model read from the node stream after the last layer."""

    def __init__(self, model: "OrbV3") -> None:
        super().__init__()
        self.energy_head = model.energy_head
        self.confidence_head = model.confidence_head

    def interaction_energy(self, latent_sum: Tensor, n_atoms: Tensor) -> Tensor:
        """(C,), () -> () eV float64."""
        energy: Tensor = self.energy_head((latent_sum / n_atoms)[None, :], n_atoms.reshape(1))
        return energy.squeeze(0)

    def confidence(self, x: Tensor) -> Tensor:
        """(N, C) -> (N, 50) float64."""
        return torch.softmax(self.confidence_head(x).to(torch.float64), dim=1)


class ConservativeReadout(_Readout):
    """Energy, and its gradient with respect to what was summed over atoms and edges."""

    @torch.jit.export
    def evaluate(
        self, x: Tensor, latent_sum: Tensor, references: Tensor, repulsion: Tensor, n_atoms: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (N, C), the rest float64 -> energy (), g_repulsion (), confidence (N, 50), g_latent_sum (C,)."""
        latent_sum = latent_sum.detach().requires_grad_()
        interaction = self.interaction_energy(latent_sum, n_atoms)
        gradient = _vjp([interaction], [latent_sum], [torch.ones_like(interaction)])[0]
        # the repulsion is a mean over atoms
        energy = interaction.detach() + references + repulsion / n_atoms
        return energy, 1.0 / n_atoms, self.confidence(x), gradient


class DirectReadout(_Readout):
    """Energy, with forces and stress from heads of their own."""

    def __init__(self, model: "OrbV3") -> None:
        super().__init__(model)
        self.force_head = model.force_head
        self.stress_head = model.stress_head

    @torch.jit.export
    def evaluate(
        self, x: Tensor, latent_sum: Tensor, references: Tensor, repulsion: Tensor, n_atoms: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As the conservative one up to the confidence; then node forces (N, 3), force offset (), stress
        (6,).
        """
        energy = self.interaction_energy(latent_sum, n_atoms) + references + repulsion
        node_forces, offset = self.force_head(x)
        stress = self.stress_head((latent_sum / n_atoms)[None, :]).squeeze(0)
        return energy, torch.ones_like(repulsion), self.confidence(x), node_forces, offset, stress


class Chain(nn.Module):
    """All steps of a model."""

    def __init__(self, model: "OrbV3") -> None:
        super().__init__()
        self.nodes = Nodes(model)
        self.edges = Edges(model)
        self.layers = nn.ModuleList(Layer(interaction) for interaction in model.network.layers)
        direct = model.config.kind == "direct"
        self.readout: nn.Module = DirectReadout(model) if direct else ConservativeReadout(model)
