"""The network of Orb-v3 (arXiv:2504.06231), up to the node features that the heads read.

Shapes: N atoms, E edges, C channels.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from orb_export.contract import MAX_ATOMIC_NUMBER, UNLIMITED_NEIGHBORS

from .angular import HARMONICS, SphericalHarmonics
from .blocks import Block
from .conditioning import ChargeSpinEmbedding, NoEmbedding
from .interaction import Interaction
from .radial import BesselBasis, Envelope

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
    elements: tuple[int, ...] = ()  # atomic numbers it was trained for; empty: all with a reference energy

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(self.elements))  # JSON has lists only
        unknown = [z for z in self.elements if not isinstance(z, int) or not 1 <= z <= MAX_ATOMIC_NUMBER]
        if unknown:
            raise ValueError(
                f"OrbConfig: `elements` has {unknown} but must be atomic numbers, 1 to {MAX_ATOMIC_NUMBER}"
            )
        if self.kind not in ("conservative", "direct"):
            raise ValueError(f"OrbConfig: `kind` is {self.kind!r} but must be 'conservative' or 'direct'")
        for field in ("max_neighbors", "channels", "hidden", "head_hidden", "layers"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"OrbConfig: `{field}` is {value!r} but must be a positive integer")
        if self.kind == "conservative" and not self.has_stress:
            raise ValueError("OrbConfig: `has_stress` is False but a conservative model always has a stress")

    @property
    def known_elements(self) -> tuple[int, ...]:
        """Atomic numbers that the model accepts."""
        return self.elements or tuple(range(1, MAX_ATOMIC_NUMBER + 1))


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
