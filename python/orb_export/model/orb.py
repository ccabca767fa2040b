"""The Orb-v3 potential (arXiv:2504.06231): a chain of functions from edge vectors to energies.

Shapes: N atoms, E edges, B graphs, C channels. The energy tail (mean of the node features, perceptron, times
N, reference energies, repulsion) is float64 whatever the dtype of the weights.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orb_export.graph import Graph

from .blocks import MLP
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
from .heads import ConfidenceHead, EnergyHead, ForceHead, NoStressHead, StressHead
from .network import Network, OrbConfig
from .normalizer import Normalizer
from .zbl import ZBL


class Outputs(NamedTuple):
    """Differentiable results of a batch; forces and stress of direct models as their heads give them."""

    energy: Tensor  # (B,) eV float64, with references and repulsion
    repulsion: Tensor  # (B,) eV float64, the ZBL part of it
    node_features: Tensor  # (N, C)
    confidence_logits: Tensor  # (N, 50)
    node_forces: Tensor | None  # (N, 3) float64, without offset, mean and torque still in
    force_offset: Tensor | None  # () float64
    node_stress: Tensor | None  # (B, 6) float64


class OrbV3(nn.Module):
    """A complete model: network, heads, and the parts of a checkpoint that only training uses."""

    def __init__(self, config: OrbConfig) -> None:
        super().__init__()
        self.config = config
        channels, hidden, direct = config.channels, config.head_hidden, config.kind == "direct"
        self.network = Network(config)
        self.repulsion = ZBL()
        self.energy_head = EnergyHead(channels, hidden)
        self.confidence_head = ConfidenceHead(channels, hidden)
        self.decoder = MLP(channels, config.hidden, 3)  # denoising head of the pretraining
        if direct:
            self.force_head = ForceHead(channels, hidden)
            self.stress_head: nn.Module = (
                StressHead(channels, hidden) if config.has_stress else NoStressHead()
            )
        else:
            self.forces_normalizer = Normalizer()  # of the training targets
            self.stress_normalizer = Normalizer()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.network.embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.network.embedding.weight.device

    def node_features(self, graph: Graph, vectors: Tensor) -> Tensor:
        """(N, C) of the vectors (E, 3) of a batch."""
        condition = self.network.conditioning(graph.charge, graph.spin).index_select(0, graph.batch)
        x: Tensor = self.network(graph.numbers, graph.centers, graph.neighbors, vectors, condition)
        return x

    def forward(self, graph: Graph) -> Outputs:
        """Evaluate a batch. Of direct models only the repulsion depends differentiably on `graph.vectors`."""
        direct = self.config.kind == "direct"
        x = self.node_features(graph, graph.vectors.detach() if direct else graph.vectors)
        totals = x.new_zeros(graph.counts.shape[0], x.shape[1], dtype=torch.float64)
        n_atoms = graph.counts.to(torch.float64)
        latent_mean = totals.index_add(0, graph.batch, x.to(torch.float64)) / n_atoms[:, None]  # (B, C)

        edge_energy = self.repulsion(graph.numbers, graph.centers, graph.neighbors, graph.vectors)
        repulsion = torch.zeros_like(n_atoms).index_add(
            0, graph.batch.index_select(0, graph.centers), edge_energy
        )
        if not direct:  # intensive in published conservative models, extensive in direct ones
            repulsion = repulsion / n_atoms
        references = torch.zeros_like(n_atoms).index_add(
            0, graph.batch, self.energy_head.references(graph.numbers)
        )
        energy = self.energy_head(latent_mean, graph.counts) + references + repulsion  # (B,)

        node_forces, offset = self.force_head(x) if direct else (None, None)
        stress = self.stress_head(latent_mean) if direct and self.config.has_stress else None
        return Outputs(energy, repulsion, x, self.confidence_head(x), node_forces, offset, stress)

    def predict(self, graph: Graph) -> dict[str, Tensor]:
        """Physical results of a batch, detached, float64.

        `energy` (B,) eV, `forces` (N, 3) eV/angstrom, `stress` (B, 6) eV/angstrom^3 in Voigt order with
        tension positive (absent from direct models without a stress head), `confidence` (N, 50)
        probabilities; of conservative models also `rotational_grad` (B, 3, 3) eV.
        """
        graph = graph._replace(vectors=graph.vectors.detach().requires_grad_())
        # detached weights: nothing is kept for gradients that nobody asked for
        weights = {name: weight.detach() for name, weight in self.named_parameters()}
        outputs: Outputs = functional_call(self, weights, (graph,))
        (gradient,) = torch.autograd.grad(outputs.energy.sum(), graph.vectors)
        with torch.no_grad():
            results = self._physical(graph, outputs, gradient)
        return {name: value.detach() for name, value in results.items()}

    def _physical(self, graph: Graph, outputs: Outputs, gradient: Tensor) -> dict[str, Tensor]:
        edge_graph, n_graphs = graph.batch.index_select(0, graph.centers), len(graph.counts)
        forces = edge_forces(gradient, graph.centers, graph.neighbors, len(graph.numbers))
        strain = strain_gradient(graph.vectors, gradient, edge_graph, n_graphs)
        results = {
            "energy": outputs.energy,
            "forces": forces,
            "confidence": torch.softmax(outputs.confidence_logits.to(torch.float64), dim=1),
        }
        if self.config.kind == "conservative":
            results["stress"] = conservative_stress(strain, graph.cell)
            results["rotational_grad"] = rotational_gradient(graph.vectors, gradient, edge_graph, n_graphs)
            return results
        assert outputs.node_forces is not None
        assert outputs.force_offset is not None
        results["forces"] = self.direct_forces(graph, outputs.node_forces) + outputs.force_offset + forces
        if outputs.node_stress is not None:
            results["stress"] = direct_stress(outputs.node_stress, strain, graph.cell)
        return results

    @staticmethod
    def direct_forces(graph: Graph, node_forces: Tensor) -> Tensor:
        """(N, 3) without net force, and without net torque where all nine cell entries are zero.

        The cell decides, not the boundary conditions.
        """
        balanced = remove_net_force(node_forces, graph.batch, graph.counts)
        untwisted = remove_net_torque(balanced, graph.positions, graph.batch, graph.counts)
        free = (graph.cell == 0).all(2).all(1).index_select(0, graph.batch)[:, None]  # (N, 1)
        return torch.where(free, untwisted, balanced)

    def core(self) -> ConservativeCore | DirectCore:
        """The model for one graph, with inputs and outputs of the contract before differentiation."""
        core = ConservativeCore(self) if self.config.kind == "conservative" else DirectCore(self)
        return core.train(self.training)
