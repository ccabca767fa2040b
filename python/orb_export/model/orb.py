"""The Orb-v3 potential (arXiv:2504.06231): a chain of functions from edge vectors to energies.

Shapes: N atoms, E edges, B graphs, C channels. The energy tail (mean of the node features, perceptron, times
N, reference energies, repulsion) is float64 whatever the dtype of the weights.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orb_export.contract import MAX_ATOMIC_NUMBER, UNLIMITED_NEIGHBORS
from orb_export.graph import Graph

from .angular import HARMONICS, SphericalHarmonics
from .blocks import MLP, Block
from .conditioning import ChargeSpinEmbedding, NoEmbedding
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
from .interaction import Interaction
from .normalizer import Normalizer
from .radial import BesselBasis, Envelope
from .zbl import ZBL

RADIAL_FUNCTIONS = 8


@dataclass(frozen=True)
class OrbConfig:
    """What it takes to build an Orb-v3 model; the defaults are the published sizes."""

    kind: str  # "conservative": forces are gradients; "direct": forces and stress have heads of their own
    max_neighbors: int = UNLIMITED_NEIGHBORS  # nearest neighbors per center that make edges
    channels: int = 256
    hidden: int = 1024
    head_hidden: int = 256
    layers: int = 5
    has_charge_spin: bool = False  # conditioned on total charge and spin multiplicity
    has_stress: bool = True  # direct: there is a stress head; conservative: always
    name: str = "orb-v3"
    description: str = ""  # one line on training data, purpose and licence

    def __post_init__(self) -> None:
        if self.kind not in ("conservative", "direct"):
            raise ValueError(f"OrbConfig: `kind` is {self.kind!r} but must be 'conservative' or 'direct'")
        for field in ("max_neighbors", "channels", "hidden", "head_hidden", "layers"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"OrbConfig: `{field}` is {value!r} but must be a positive integer")
        if self.kind == "conservative" and not self.has_stress:
            raise ValueError("OrbConfig: `has_stress` is False but a conservative model always has a stress")


class EdgeEncoder(nn.Module):
    """Edge features from vectors: radial function times harmonic (radial index slow) under the envelope."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.radial = BesselBasis(RADIAL_FUNCTIONS)
        self.angular = SphericalHarmonics()
        self.envelope = Envelope()
        self.block = Block(RADIAL_FUNCTIONS * HARMONICS, hidden, channels)

    def features(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(E, 3) angstrom -> input features (E, 128) and envelope (E, 1), in the dtype of the weights."""
        vectors = vectors.to(self.radial.wavenumbers.dtype)
        r = vectors.square().sum(1, keepdim=True).sqrt()  # (E, 1)
        envelope: Tensor = self.envelope(r)  # (E, 1)
        radial = self.radial(r)[:, :, None]  # (E, 8, 1)
        angular = self.angular(vectors / r)[:, None, :]  # (E, 1, 16)
        return envelope * (radial * angular).flatten(1), envelope  # (E, 128), (E, 1)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(E, 3) -> (E, C), (E, 1)."""
        features, envelope = self.features(vectors)
        return self.block(features), envelope


class Network(nn.Module):
    """Encoders and message passing: everything up to the node features that the heads read."""

    def __init__(self, config: OrbConfig) -> None:
        super().__init__()
        channels, hidden = config.channels, config.hidden
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 2, channels)  # by atomic number, row 0 unused
        nn.init.uniform_(self.embedding.weight, -(3.0**0.5), 3.0**0.5)
        self.conditioning: nn.Module = (
            ChargeSpinEmbedding(channels) if config.has_charge_spin else NoEmbedding()
        )
        self.node_encoder = Block(channels, hidden, channels)
        self.edge_encoder = EdgeEncoder(channels, hidden)
        self.layers = nn.ModuleList(
            Interaction(channels, hidden, config.has_charge_spin) for _ in range(config.layers)
        )

    def encode_nodes(self, numbers: Tensor) -> Tensor:
        """(N,) -> (N, C)."""
        nodes: Tensor = self.node_encoder(self.embedding(numbers))
        return nodes

    def forward(
        self, numbers: Tensor, centers: Tensor, neighbors: Tensor, vectors: Tensor, condition: Tensor
    ) -> Tensor:
        """Node features (N, C); `condition` has a row for each atom, or one row for all."""
        x = self.encode_nodes(numbers)  # (N, C)
        e, envelope = self.edge_encoder(vectors)  # (E, C), (E, 1)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x, message = layer(x, e, envelope, centers, neighbors, condition)
            if index < last:  # nobody reads the edge stream after the last layer
                e = e + message
        return x


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
        totals = torch.zeros(len(graph.counts), x.shape[1], dtype=torch.float64, device=x.device)
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

        `energy` (B,) eV, `forces` (N, 3) eV/angstrom, `stress` (B, 6) eV/angstrom^3 in Voigt order with tension
        positive (absent from direct models without a stress head), `confidence` (N, 50) probabilities; of
        conservative models also `rotational_grad` (B, 3, 3) eV.
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

    def core(self) -> "ConservativeCore | DirectCore":
        """The same model for one graph, with the inputs and outputs of the contract before differentiation."""
        core = ConservativeCore(self) if self.config.kind == "conservative" else DirectCore(self)
        return core.train(self.training)


class ConservativeCore(nn.Module):
    """One graph, conservative: `edge_gradient` of the contract is d(energy)/d(vectors). Shares the weights."""

    def __init__(self, model: OrbV3) -> None:
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
    ) -> tuple[Tensor, Tensor]:
        """Energy () eV and confidence (N, 50), float64; inputs as in contract.INPUTS."""
        condition = self.network.conditioning(charge.reshape(1), spin.reshape(1))  # (1, C)
        x = self.network(numbers, centers, neighbors, vectors, condition)  # (N, C)
        latent_mean = x.to(torch.float64).mean(0, keepdim=True)  # (1, C)
        n_atoms = torch.full_like(charge, numbers.shape[0])
        repulsion = self.repulsion(numbers, centers, neighbors, vectors).sum() / n_atoms
        references = self.energy_head.references(numbers).sum()
        energy = self.energy_head(latent_mean, n_atoms.reshape(1)).squeeze(0) + references + repulsion
        confidence = torch.softmax(self.confidence_head(x).to(torch.float64), dim=1)
        return energy, confidence


class DirectCore(nn.Module):
    """One graph, direct: d(energy)/d(vectors) is that of the repulsion alone. Shares the weights.

    The rest is evaluated without gradients: train on OrbV3, not on this.
    """

    def __init__(self, model: OrbV3) -> None:
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Energy (), confidence (N, 50), node forces (N, 3), force offset (), node stress (6,), float64."""
        repulsion = self.repulsion(numbers, centers, neighbors, vectors).sum()
        with torch.no_grad():  # vectors.detach() would not do: torch.jit.freeze drops it
            condition = self.network.conditioning(charge.reshape(1), spin.reshape(1))  # (1, C)
            x = self.network(numbers, centers, neighbors, vectors, condition)  # (N, C)
            latent_mean = x.to(torch.float64).mean(0, keepdim=True)  # (1, C)
            n_atoms = torch.full_like(charge, numbers.shape[0]).reshape(1)
            references = self.energy_head.references(numbers).sum()
            interaction = self.energy_head(latent_mean, n_atoms).squeeze(0)
            confidence = torch.softmax(self.confidence_head(x).to(torch.float64), dim=1)
            node_forces, force_offset = self.force_head(x)
            stress = self.stress_head(latent_mean).squeeze(0)
        return interaction + references + repulsion, confidence, node_forces, force_offset, stress
