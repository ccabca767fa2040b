"""Conservative models with the weights of an equivariant network, from the first step to the last.

Orb-v3 is told nothing of rotations, and a small model that learns them from little data ends up as a function
of distances. Here every stream consists of *scalars* and of a few *copies* of the harmonics of order 1 to 3,
and weights are tied: components of a copy share theirs, and components of different orders do not mix. A
component x takes two hidden units with pre-activations s + x and s - x, where s is a scalar. The difference
of their activations is odd in x, to first order 2x silu'(s). The sum is even in x, and its sum over a copy is
nearly a function of s and of the length of the copy, a scalar: of sums over neighbors, a power spectrum. So
the network is equivariant but for higher orders in x; inversion and quarter turns about y, which only permute
components and change their signs, it keeps exactly. What comes out is an Orb-v3 model like any other.

Shapes: C channels, H hidden width, K components in all, E edges.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from orb_export.model import OrbConfig, OrbV3
from orb_export.model.angular import HARMONICS
from orb_export.model.blocks import MLP, Block
from orb_export.model.conditioning import Shift
from orb_export.model.interaction import Interaction, MessageBlock

ORDERS = (1, 2, 3)
# 1 / sqrt(<SiLU(x)^2>) of a unit normal x: layers that follow an activation keep the scale of the signal.
SILU_GAIN = 1.68
# Root mean square of the components before an activation: where x tanh(x/2) is close to a square.
AMPLITUDE = 0.5
# Components of sums over neighbors nearly cancel, scalars add up.
SUM_GAIN = 5.0
# Share of the lengths among what a scalar reads at first; 1 gives the same errors in the end.
LENGTHS = 0.2
TOLERANCE = 1e-5  # of tied weights that were read from a file, relative to the largest of the layer


@dataclass(frozen=True)
class Layout:
    """How many scalars come first, and how many copies of each order follow, component by component."""

    scalars: int
    copies: tuple[int, ...]

    def sizes(self) -> Iterator[tuple[int, int, int]]:
        """Each order, its number of components, and of copies."""
        for order, copies in zip(ORDERS, self.copies, strict=True):
            yield order, 2 * order + 1, copies

    def blocks(self) -> Iterator[int]:
        """The number of components of every copy."""
        for _, size, copies in self.sizes():
            yield from [size] * copies


def layouts(channels: int, hidden: int) -> tuple[Layout, Layout]:
    """Of streams and of hidden layers, where every component takes two units; about a third is components."""
    width = min(channels, 2 * hidden // 3)
    copies = ((width + 16) // 32, (width + 16) // 32, width // 64)
    components = sum(Layout(0, copies).blocks())
    return Layout(channels - components, copies), Layout(hidden - 2 * components, copies)


def check(config: OrbConfig) -> None:
    """Raise ValueError for a direct model, and for one too narrow for components."""
    if config.kind != "conservative":
        raise ValueError(f"train: `optimizer.equivariant` is true but the model is {config.kind}")
    if not any(layouts(config.channels, config.hidden)[0].copies):
        raise ValueError(
            f"train: `optimizer.equivariant` is true but {config.channels} channels and hidden width "
            f"{config.hidden} are too few: 16 and 24 at least"
        )


class Ties:
    """Which weights of a model are zero, or equal up to a sign.

    Raises ValueError for models that cannot be equivariant, and for one whose weights are not tied.
    """

    def __init__(self, model: OrbV3) -> None:
        check(model.config)
        numbered = copy.deepcopy(model).double()
        with torch.no_grad():
            for parameter in numbered.parameters():
                parameter.copy_(_Numbers().dense(1, parameter.numel()).view_as(parameter))
            _initialize(numbered, _Numbers(), None)
        self._ties: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        for name, parameter in numbered.named_parameters():
            values = torch.cat([torch.zeros(1), parameter.detach().flatten()])
            number = torch.unique(values.abs(), return_inverse=True)[1]  # 0: the weight is zero
            count = torch.bincount(number)
            if (count > 1).any():
                self._ties[name] = number[1:].view_as(parameter), values[1:].sign().view_as(parameter), count
        for name, parameter in model.named_parameters():
            values = parameter.detach()
            if (self._nearest(name, values) - values).abs().max() > TOLERANCE * values.abs().max():
                raise ValueError(
                    f"train: `optimizer.equivariant` is true but `start.model` was trained without ({name})"
                )

    def keep(self, model: OrbV3, optimizer: torch.optim.Optimizer) -> None:
        """Have every step of the optimizer keep them."""

        def tie_gradients(*_: Any) -> None:
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    parameter.grad.copy_(self._nearest(name, parameter.grad))

        def tie_weights(*_: Any) -> None:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(self._nearest(name, parameter))

        optimizer.register_step_pre_hook(tie_gradients)
        optimizer.register_step_post_hook(tie_weights)

    def _nearest(self, name: str, values: Tensor) -> Tensor:
        """The nearest values that are tied, of a parameter or its gradient."""
        if name not in self._ties:
            return values
        number, sign, count = (tensor.to(values.device) for tensor in self._ties[name])
        sign = sign.to(values.dtype)
        mean = values.new_zeros(len(count)).index_add_(0, number.flatten(), (values * sign).flatten()) / count
        return mean[number] * sign


class _Draw(Protocol):
    """Where independent weights come from."""

    def dense(self, outputs: int, inputs: int, scale: float) -> Tensor:
        """(outputs, inputs) of that root mean square."""

    def mixture(self, outputs: int, inputs: int, scale: float) -> Tensor:
        """(outputs, inputs), which keep lengths but for `scale`."""

    def later(self, outputs: int, inputs: int) -> Tensor:
        """(outputs, inputs) that begin as zeros."""

    def radial(self, functions: int, radial: int) -> Tensor:
        """(functions, radial) coefficients of the radial part of harmonics."""


class _Random:
    """The first weights."""

    def dense(self, outputs: int, inputs: int, scale: float) -> Tensor:
        return torch.randn(outputs, inputs) * scale

    def mixture(self, outputs: int, inputs: int, scale: float) -> Tensor:
        return nn.init.orthogonal_(torch.empty(outputs, inputs)) * scale

    def later(self, outputs: int, inputs: int) -> Tensor:
        return torch.zeros(outputs, inputs)

    def radial(self, functions: int, radial: int) -> Tensor:
        """Gaussians exp(-(r/width)^2), from 1.9 to 3.8 angstrom wide.

        sum_k k exp(-(k/q)^2) sin(kx) is proportional to x exp(-(q x/2)^2), for x = pi r/cutoff.
        """
        k = torch.arange(1, radial + 1)
        q = 1 + (torch.arange(functions)[:, None] + 0.5) / functions  # width is 2 cutoff / (pi q)
        return k * torch.exp(-((k / q) ** 2))


class _Numbers:
    """Another number for every independent weight, from 1."""

    def __init__(self) -> None:
        self.last = 0

    def dense(self, outputs: int, inputs: int, scale: float = 1.0) -> Tensor:
        start, self.last = self.last + 1, self.last + outputs * inputs
        return torch.arange(start, self.last + 1, dtype=torch.float64).view(outputs, inputs)

    mixture = later = radial = dense


def radial_index(features: int) -> Tensor:
    """Number (1, 2, ...) of the radial function in each edge feature: (128,).

    First weights are divided by it, since forces of random weights grow with the wavenumber.
    """
    return torch.arange(features) // HARMONICS + 1


def initialize(model: OrbV3, features: Tensor) -> None:
    """Overwrite the weights of encoders and layers, and what heads read of components.

    `features` (E, 128) are edge features of data: they set the scale of the layer that reads them.
    Raises ValueError as `check` does.
    """
    check(model.config)
    _initialize(model, _Random(), features)


def _initialize(model: OrbV3, draw: _Draw, features: Tensor | None) -> None:
    stream, hidden = layouts(model.config.channels, model.config.hidden)
    network, scalars = model.network, stream.scalars
    network.embedding.weight[:, scalars:] = 0
    _fill(network.node_encoder.mlp, [1.0], stream, hidden, draw)
    _fill(network.edge_encoder.block.mlp, [], stream, hidden, draw)
    _fill_first_of_edges(network.edge_encoder.block.mlp.first, hidden, draw, features)
    blocks: list[Block | MessageBlock] = [network.node_encoder, network.edge_encoder.block]
    for layer in network.layers:
        assert isinstance(layer, Interaction)
        _fill(layer.edge_block.mlp, [1.0, 1.0, 1.0], stream, hidden, draw)
        _fill(layer.node_block.mlp, [1.0, SUM_GAIN, SUM_GAIN], stream, hidden, draw)
        blocks += [layer.edge_block, layer.node_block]
        for reader in (layer.receive_gate, layer.send_gate):
            reader.weight[:, scalars:] = 0
        if isinstance(layer.shift, Shift):
            layer.shift.linear.weight[scalars:] = 0
            layer.shift.linear.bias[scalars:] = 0
    for block in blocks:
        _tie_copies(block.norm.weight, stream, 1)
        _tie_copies(block.mlp.first.bias, hidden, 2)
        _tie_copies(block.mlp.second.bias, hidden, 2)
        block.mlp.third.bias[scalars:] = 0
    for head in (model.energy_head, model.confidence_head):
        head.mlp.first.weight[:, scalars:] = 0


def _tie_copies(vector: Tensor, layout: Layout, repeats: int) -> None:
    """Give all components of a copy the value of its first, in each of the repeats."""
    components = sum(layout.blocks())
    start = layout.scalars
    for size in layout.blocks():
        for repeat in range(repeats):
            offset = start + repeat * components
            vector[offset : offset + size] = vector[start].clone()
        start += size


def _fill_first_of_edges(layer: nn.Linear, hidden: Layout, draw: _Draw, features: Tensor | None) -> None:
    """Each scalar reads a radial function, each copy of harmonics another: (H, 128)."""
    index = radial_index(layer.in_features)
    radial = int(index[-1])
    scalars = torch.zeros(hidden.scalars, radial, HARMONICS, dtype=layer.weight.dtype)
    scalars[:, :, 0] = draw.dense(hidden.scalars, radial, 1.0)
    blocks = [scalars.flatten(1)]
    for order, size, n in hidden.sizes():
        for function in draw.radial(n, radial) if n else ():
            block = torch.zeros(size, radial, HARMONICS, dtype=layer.weight.dtype)
            for m in range(size):
                block[m, :, order * order + m] = function
            blocks.append(block.flatten(1))
    if features is not None:
        blocks[0] = _at_scale(blocks[0] / index, 1.0, features)
        blocks[1:] = [_at_scale(block, AMPLITUDE, features) for block in blocks[1:]]
    layer.weight.copy_(torch.cat(blocks + [-block for block in blocks[1:]]))


def _at_scale(weight: Tensor, scale: float, features: Tensor) -> Tensor:
    """Weights whose products with the features have standard deviation `scale`."""
    if not features.numel():
        return weight
    return weight * (scale / (features @ weight.t()).std().clamp(min=1e-6))


def _fill(mlp: MLP, gains: list[float], stream: Layout, hidden: Layout, draw: _Draw) -> None:
    """The three layers; the first reads as many streams side by side as there are `gains` of components."""
    copies, components = sum(hidden.copies), sum(hidden.blocks())
    reads = []
    for gain in gains:
        scale = 1 / math.sqrt(len(gains) * stream.scalars)
        scalars = draw.dense(hidden.scalars, stream.scalars, scale)
        gates = _spread(hidden, draw.later(copies, stream.scalars))
        mixed = _mixture(hidden, stream, draw, AMPLITUDE * gain / math.sqrt(len(gains)))
        unread = torch.zeros(hidden.scalars, mixed.shape[1])
        reads.append(_stacked([scalars, unread], [gates, mixed], [gates, -mixed]))
    if reads:
        mlp.first.weight.copy_(torch.cat(reads, dim=1))

    scale = SILU_GAIN / math.sqrt(hidden.scalars)
    scalars = draw.dense(hidden.scalars, hidden.scalars, scale)
    gates = _spread(hidden, draw.later(copies, hidden.scalars))
    lengths, turned = _lengths(hidden.scalars, hidden, draw), _mixture(hidden, hidden, draw, 1.0)
    mlp.second.weight.copy_(
        _stacked([scalars, lengths, lengths], [gates, turned, -turned], [gates, -turned, turned])
    )

    scalars = draw.dense(stream.scalars, hidden.scalars, scale)
    lengths, carried = _lengths(stream.scalars, hidden, draw), _mixture(stream, hidden, draw, 1 / AMPLITUDE)
    unread = torch.zeros(components, hidden.scalars)
    mlp.third.weight.copy_(_stacked([scalars, lengths, lengths], [unread, carried, -carried]))


def _stacked(*rows: list[Tensor]) -> Tensor:
    return torch.cat([torch.cat(row, dim=1) for row in rows])


def _spread(layout: Layout, rows: Tensor) -> Tensor:
    """A row for each copy -> the same for all its components: (copies, inputs) -> (K, inputs)."""
    return rows.repeat_interleave(torch.tensor(list(layout.blocks()), dtype=torch.int64), dim=0)


def _mixture(outputs: Layout, inputs: Layout, draw: _Draw, scale: float) -> Tensor:
    """Map of copies to copies of the same order, alike for all components: (K, K)."""
    weight = torch.zeros(sum(outputs.blocks()), sum(inputs.blocks()), dtype=torch.float64)
    row = column = 0
    for (_, size, n_out), (_, _, n_in) in zip(outputs.sizes(), inputs.sizes(), strict=True):
        if n_out and n_in:
            block = torch.kron(draw.mixture(n_out, n_in, scale), torch.eye(size))
            weight[row : row + n_out * size, column : column + n_in * size] = block
        row, column = row + n_out * size, column + n_in * size
    return weight


def _lengths(outputs: int, hidden: Layout, draw: _Draw) -> Tensor:
    """Weights of the squared lengths of the copies, LENGTHS in scale: (outputs, K).

    The sum of x tanh(x/2) over the components of a copy is about (2 order + 1) AMPLITUDE^2 / 2.
    """
    scale = LENGTHS / AMPLITUDE**2 / math.sqrt(max(1, sum(hidden.copies)))
    blocks = [torch.zeros(outputs, 0)]
    for _, size, n in hidden.sizes():
        blocks.append(draw.dense(outputs, n, scale / size).repeat_interleave(size, dim=1))
    return torch.cat(blocks, dim=1)
