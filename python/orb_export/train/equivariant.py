"""First weights of conservative models: nearly a function of distances, with directions within reach.

Orb-v3 is told nothing of rotations. From unstructured weights it has directions to unlearn; from weights that
see only distances it hardly takes them up. Here every stream begins as *scalars* and a few *copies* of the
harmonics of order 1, 2 and 3, and no weight mixes scalars with components or components of different orders.
What is linear is exact: a component x takes two hidden units, since silu(x) - silu(-x) = x. The rest is
nearly so: silu(x) + silu(-x) = x tanh(x/2), whose sum over the components of a copy is almost its squared
length, a scalar: of sums over neighbors, a power spectrum. Training is free to leave all of this.

Shapes: C channels, H hidden width, K components in all, E edges, R rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orb_export.model import OrbV3
from orb_export.model.angular import HARMONICS
from orb_export.model.blocks import MLP
from orb_export.model.conditioning import Shift
from orb_export.model.interaction import Interaction

ORDERS = (1, 2, 3)
# 1 / sqrt(<SiLU(x)^2>) of a unit normal x: layers that follow an activation keep the scale of the signal.
SILU_GAIN = 1.68
# Root mean square of the components before an activation: where x tanh(x/2) is close to a square.
AMPLITUDE = 0.5
# Components of sums over neighbors nearly cancel, scalars add up.
SUM_GAIN = 5.0
# Share of the lengths among what a scalar reads; with 1 energies vary too fast to be learned well.
LENGTHS = 0.2


@dataclass(frozen=True)
class Layout:
    """How many scalars come first, and how many copies of each order follow, component by component."""

    scalars: int
    copies: tuple[int, ...]

    def sizes(self) -> Iterator[tuple[int, int, int]]:
        """Each order, its number of components, and of copies."""
        for order, copies in zip(ORDERS, self.copies, strict=True):
            yield order, 2 * order + 1, copies


def layouts(channels: int, hidden: int) -> tuple[Layout, Layout]:
    """Of streams and of hidden layers, where every component takes two units; about a third is components."""
    width = min(channels, 2 * hidden // 3)
    copies = ((width + 16) // 32, (width + 16) // 32, width // 64)
    components = sum(size * n for _, size, n in Layout(0, copies).sizes())
    return Layout(channels - components, copies), Layout(hidden - 2 * components, copies)


def radial_index(features: int) -> Tensor:
    """Number (1, 2, ...) of the radial function in each edge feature: (128,).

    First weights are divided by it, since forces of random weights grow with the wavenumber.
    """
    return torch.arange(features) // HARMONICS + 1


def initialize(model: OrbV3, features: Tensor) -> None:
    """Overwrite the weights of encoders and layers, and what heads read of components.

    `features` (E, 128) are edge features of data: they set the scale of the layer that reads them.
    """
    stream, hidden = layouts(model.config.channels, model.config.hidden)
    network, scalars = model.network, stream.scalars
    network.embedding.weight[:, scalars:] = 0
    _fill(network.node_encoder.mlp, [1.0], stream, hidden)
    encoder = network.edge_encoder.block.mlp
    _fill(encoder, [], stream, hidden)
    encoder.first.weight.copy_(_first_of_edges(features, hidden))
    for layer in network.layers:
        assert isinstance(layer, Interaction)
        _fill(layer.edge_block.mlp, [1.0, 1.0, 1.0], stream, hidden)
        _fill(layer.node_block.mlp, [1.0, SUM_GAIN, SUM_GAIN], stream, hidden)
        layer.receive_gate.weight[:, scalars:] = 0
        layer.send_gate.weight[:, scalars:] = 0
        if isinstance(layer.shift, Shift):
            layer.shift.linear.weight[scalars:] = 0
    model.energy_head.mlp.first.weight[:, scalars:] = 0
    model.confidence_head.mlp.first.weight[:, scalars:] = 0


def _first_of_edges(features: Tensor, hidden: Layout) -> Tensor:
    """Each scalar reads a radial function, and each copy of harmonics another: (H, 128)."""
    index = radial_index(features.shape[1])
    radial = int(index[-1])
    scalars = torch.zeros(hidden.scalars, radial, HARMONICS)
    scalars[:, :, 0] = torch.randn(hidden.scalars, radial)
    components = []
    for order, size, n in hidden.sizes():
        copies = torch.zeros(n, size, radial, HARMONICS)
        function = torch.randn(n, radial)
        for m in range(size):
            copies[:, m, :, order * order + m] = function
        components.append(copies.view(n * size, len(index)))
    blocks = [scalars.view(hidden.scalars, len(index)) / index, torch.cat(components) / index]
    for block, scale in zip(blocks, (1.0, AMPLITUDE), strict=True):
        if block.numel() and features.numel():
            block.mul_(scale / (features @ block.t()).std().clamp(min=1e-6))
    return torch.cat([blocks[0], blocks[1], -blocks[1]])


def _fill(mlp: MLP, gains: list[float], stream: Layout, hidden: Layout) -> None:
    """The three layers; the first reads as many streams side by side as there are `gains` of components."""
    reads = []
    for gain in gains:
        scalars = _normal(hidden.scalars, stream.scalars) / math.sqrt(len(gains))
        mixed = _mixture(hidden, stream) * (AMPLITUDE * gain / math.sqrt(len(gains)))
        reads.append(_rows([scalars, torch.zeros(hidden.scalars, mixed.shape[1])], [mixed], [-mixed]))
    if reads:
        mlp.first.weight.copy_(torch.cat(reads, dim=1))

    scalars = _normal(hidden.scalars, hidden.scalars) * SILU_GAIN
    lengths, turned = _lengths(hidden.scalars, hidden), _mixture(hidden, hidden)
    mlp.second.weight.copy_(_rows([scalars, lengths, lengths], [turned, -turned], [-turned, turned]))

    scalars = _normal(stream.scalars, hidden.scalars) * SILU_GAIN
    lengths, carried = _lengths(stream.scalars, hidden), _mixture(stream, hidden) / AMPLITUDE
    mlp.third.weight.copy_(_rows([scalars, lengths, lengths], [carried, -carried]))


def _rows(of_scalars: list[Tensor], *of_components: list[Tensor]) -> Tensor:
    """Rows of a weight from blocks side by side; rows of components read no scalars."""
    rows = [torch.cat(of_scalars, dim=1)]
    for blocks in of_components:
        unread = torch.zeros(blocks[0].shape[0], of_scalars[0].shape[1])
        rows.append(torch.cat([unread, *blocks], dim=1))
    return torch.cat(rows)


def _normal(outputs: int, inputs: int) -> Tensor:
    return torch.randn(outputs, inputs) / math.sqrt(max(1, inputs))


def _mixture(outputs: Layout, inputs: Layout) -> Tensor:
    """Random orthogonal map of copies to copies of the same order, alike for all components: (K, K)."""
    columns = sum(size * n for _, size, n in inputs.sizes())
    rows, start = [torch.zeros(0, columns)], 0
    for (_, size, n_out), (_, _, n_in) in zip(outputs.sizes(), inputs.sizes(), strict=True):
        block = torch.zeros(n_out * size, columns)
        mixture = (
            nn.init.orthogonal_(torch.empty(n_out, n_in)) if n_out and n_in else torch.empty(n_out, n_in)
        )
        block[:, start : start + n_in * size] = torch.kron(mixture, torch.eye(size))
        rows.append(block)
        start += n_in * size
    return torch.cat(rows)


def _lengths(outputs: int, hidden: Layout) -> Tensor:
    """Random weights of the squared lengths of the copies, at unit scale times LENGTHS: (R, K).

    The sum of x tanh(x/2) over the components of a copy is about (2 order + 1) AMPLITUDE^2 / 2.
    """
    scale = LENGTHS / AMPLITUDE**2 / math.sqrt(max(1, sum(hidden.copies)))
    return torch.cat(
        [
            torch.kron(torch.randn(outputs, n) * (scale / size), torch.ones(1, size))
            for _, size, n in hidden.sizes()
        ],
        dim=1,
    )
