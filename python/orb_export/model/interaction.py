"""One message-passing layer of Orb-v3 (arXiv:2504.06231). Shapes: N atoms, E edges, C channels,
H hidden width.

Edge e runs from its center s (the atom whose neighbors are capped) to its neighbor t. Both ends collect the
message of every edge, so the graph need not be symmetric.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import MLP, Block, RMSNorm
from .conditioning import NoShift, Shift
from .rows import gather_rows, sum_rows


class MessageBlock(nn.Module):
    """Normalized perceptron of [e | x_s | x_t].

    The first layer acts on the parts separately, W[e | x_s | x_t] = W_e e + (W_s x)[s] + (W_t x)[t], which
    moves two thirds of its work from the edges to the atoms.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.channels = channels
        self.mlp = MLP(3 * channels, hidden, channels)
        self.norm = RMSNorm(channels)

    def projections(self) -> tuple[Tensor, Tensor]:
        """(C, H) each: x . projection is what atoms give to the first layer as centers, and as neighbors."""
        c, weight = self.channels, self.mlp.first.weight
        return weight[:, c : 2 * c].t(), weight[:, 2 * c :].t()

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What atoms give to the first layer as centers and as neighbors: (N, C) -> (N, H), (N, H)."""
        c, weight = self.channels, self.mlp.first.weight
        return functional.linear(x, weight[:, c : 2 * c]), functional.linear(x, weight[:, 2 * c :])

    def before_first_activation(
        self, e: Tensor, as_center: Tensor, as_neighbor: Tensor, centers: Tensor, neighbors: Tensor
    ) -> Tensor:
        """Edge stream (E, C), what atoms give as center, as neighbor (N, H), both ends (E,) -> (E, H)."""
        from_nodes = gather_rows(as_center, centers) + gather_rows(as_neighbor, neighbors)  # (E, H)
        weight = self.mlp.first.weight[:, : self.channels]
        return self.mlp.product(e, weight, self.mlp.first.bias) + from_nodes

    def finish(
        self, e: Tensor, as_center: Tensor, as_neighbor: Tensor, centers: Tensor, neighbors: Tensor
    ) -> Tensor:
        """As above -> (E, C)."""
        before = self.before_first_activation(e, as_center, as_neighbor, centers, neighbors)
        result: Tensor = self.norm(self.mlp.finish(before))
        return result

    def finish_keep(
        self, e: Tensor, as_center: Tensor, as_neighbor: Tensor, centers: Tensor, neighbors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `finish`, and all that `finish_vjp` needs: two slopes (E, H) and what is normalized (E, C)."""
        before = self.before_first_activation(e, as_center, as_neighbor, centers, neighbors)
        raw, first_slope, second_slope = self.mlp.finish_keep(before)
        return self.norm(raw), first_slope, second_slope, raw

    def finish_vjp(
        self, first_slope: Tensor, second_slope: Tensor, raw: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradient with respect to the result (E, C) -> to e (E, C) and to what its atoms give (E, H)."""
        g_first = self.mlp.finish_vjp(first_slope, second_slope, self.norm.vjp(raw, gradient))
        weight = self.mlp.first.weight[:, : self.channels]
        return self.mlp.product(g_first, weight.t()), g_first

    def forward(self, x: Tensor, e: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
        """(N, C), (E, C), (E,), (E,) -> (E, C)."""
        as_center, as_neighbor = self.project(x)
        return self.finish(e, as_center, as_neighbor, centers, neighbors)


class Interaction(nn.Module):
    """condition -> message -> update; the caller adds the message to the edge stream."""

    def __init__(self, channels: int, hidden: int, conditioned: bool) -> None:
        super().__init__()
        self.edge_block = MessageBlock(channels, hidden)
        self.node_block = Block(3 * channels, hidden, channels)
        self.receive_gate = nn.Linear(channels, 1)
        self.send_gate = nn.Linear(channels, 1)
        self.shift: nn.Module = Shift(channels) if conditioned else NoShift()

    def gates(self, e: Tensor) -> Tensor:
        """What opens the sums of neighbors and of centers to a message: (E, C) -> (E, 2), 0 to 1.

        They read the edge stream before the message is added to it.
        """
        weight = torch.cat([self.receive_gate.weight, self.send_gate.weight])  # (2, C)
        bias = torch.cat([self.receive_gate.bias, self.send_gate.bias])
        return torch.sigmoid(functional.linear(e, weight, bias))

    def gated(self, e: Tensor, envelope: Tensor, message: Tensor) -> tuple[Tensor, Tensor]:
        """The message as it enters the sums of neighbors and of centers, (E, C) each; 0 at the cutoff."""
        gates = self.gates(e) * envelope  # (E, 2)
        return gates[:, :1] * message, gates[:, 1:] * message

    def message(
        self, x: Tensor, e: Tensor, envelope: Tensor, centers: Tensor, neighbors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Message of each edge (E, C), and its gated sums onto neighbors and onto centers (N, C) each."""
        message = self.edge_block(x, e, centers, neighbors)  # (E, C)
        to_neighbors, to_centers = self.gated(e, envelope, message)  # (E, C)
        received = sum_rows(to_neighbors, neighbors, x.shape[0])  # (N, C)
        sent = sum_rows(to_centers, centers, x.shape[0])  # (N, C)
        return message, received, sent

    def update(self, x: Tensor, received: Tensor, sent: Tensor) -> Tensor:
        """(N, C) each -> (N, C)."""
        result: Tensor = x + self.node_block(torch.cat([x, received, sent], dim=1))
        return result

    def forward(
        self, x: Tensor, e: Tensor, envelope: Tensor, centers: Tensor, neighbors: Tensor, condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Node stream after the layer (N, C) and the message (E, C)."""
        x = self.shift(x, condition)
        message, received, sent = self.message(x, e, envelope, centers, neighbors)
        return self.update(x, received, sent), message
