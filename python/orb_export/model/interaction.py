"""One message-passing layer of Orb-v3 (arXiv:2504.06231). Shapes: N atoms, E edges, C channels.

Edge e runs from its center s (the atom whose neighbors are capped) to its neighbor t. Both ends collect the
message of every edge, so the graph need not be symmetric.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import MLP, Block, RMSNorm
from .conditioning import NoShift, Shift


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

    def forward(self, x: Tensor, e: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
        """(N, C), (E, C), (E,), (E,) -> (E, C)."""
        c = self.channels
        weight = self.mlp.first.weight
        first = functional.linear(e, weight[:, :c], self.mlp.first.bias)  # (E, H)
        first = first + functional.linear(x, weight[:, c : 2 * c]).index_select(0, centers)
        first = first + functional.linear(x, weight[:, 2 * c :]).index_select(0, neighbors)
        result: Tensor = self.norm(self.mlp.finish(first))  # (E, C)
        return result


class Interaction(nn.Module):
    """condition -> message -> update; the caller adds the message to the edge stream."""

    def __init__(self, channels: int, hidden: int, conditioned: bool) -> None:
        super().__init__()
        self.edge_block = MessageBlock(channels, hidden)
        self.node_block = Block(3 * channels, hidden, channels)
        self.receive_gate = nn.Linear(channels, 1)
        self.send_gate = nn.Linear(channels, 1)
        self.shift: nn.Module = Shift(channels) if conditioned else NoShift()

    def message(
        self, x: Tensor, e: Tensor, envelope: Tensor, centers: Tensor, neighbors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Message of each edge (E, C), and its gated sums onto neighbors and onto centers (N, C) each.

        The gates read the edge stream before the message is added to it, and vanish at the cutoff.
        """
        weight = torch.cat([self.receive_gate.weight, self.send_gate.weight])  # (2, C)
        bias = torch.cat([self.receive_gate.bias, self.send_gate.bias])
        gates = torch.sigmoid(functional.linear(e, weight, bias)) * envelope  # (E, 2)
        message = self.edge_block(x, e, centers, neighbors)  # (E, C)
        received = torch.zeros_like(x).index_add(0, neighbors, gates[:, :1] * message)  # (N, C)
        sent = torch.zeros_like(x).index_add(0, centers, gates[:, 1:] * message)  # (N, C)
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
