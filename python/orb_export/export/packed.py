"""A model whose perceptrons are single operators with prepacked weights: what is compiled for the CPU.

`orb_export::perceptron` (cpp/src/ops/perceptron.cpp) takes a block of rows through all layers before the next
one, so that hidden layers stay in the cache. The arithmetic of its matrix products is a choice for the
perceptrons of edges; those of atoms, and everything else, keep float32 or more.

Shapes: R rows, D inputs, H hidden width, C outputs, N atoms, E edges.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from orb_export import ops  # noqa: F401  (registers the operators)
from orb_export.model import OrbV3
from orb_export.model.blocks import MLP, Block
from orb_export.model.interaction import Interaction, MessageBlock

_ops = torch.ops.orb_export
Rows = tuple[Tensor, Tensor | None]  # a table (N, H) and the row of it that each input row gets, or (R, H)


def _slope_dtype(weight: Tensor) -> torch.dtype:
    bfloat16 = weight.dtype == torch.bfloat16 and weight.dim() == 3  # split numbers have a fourth axis
    return torch.bfloat16 if bfloat16 else torch.float32


def register_fakes() -> None:
    """Tells torch the output shapes of the operators."""

    def perceptron(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        w1, b1, _, b2, _, b3, keep = rest[-7:]
        rows, dtype = x.shape[0] if keep else 0, _slope_dtype(w1)
        return (
            x.new_empty((x.shape[0], b3.shape[0])),
            x.new_empty((rows, b1.shape[0]), dtype=dtype),
            x.new_empty((rows, b2.shape[0]), dtype=dtype),
        )

    def perceptron_vjp(
        g: Tensor, d1: Tensor, d2: Tensor, w1t: Tensor, w2t: Tensor, w3t: Tensor, inputs: int, first: bool
    ) -> tuple[Tensor, Tensor]:
        return g.new_empty((g.shape[0], inputs)), g.new_empty((g.shape[0] if first else 0, d1.shape[1]))

    torch.library.register_fake("orb_export::perceptron", perceptron, allow_override=True)
    torch.library.register_fake("orb_export::perceptron_vjp", perceptron_vjp, allow_override=True)


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        first: Tensor | None,
        first_index: Tensor | None,
        second: Tensor | None,
        second_index: Tensor | None,
        weights: list[Tensor],
        transposed: list[Tensor],
    ) -> Tensor:
        keep = any(ctx.needs_input_grad)
        out, d1, d2 = _ops.perceptron(x, first, first_index, second, second_index, *weights, keep)
        ctx.save_for_backward(d1, d2, first_index, second_index)
        ctx.rows = tuple(None if table is None else table.shape[0] for table in (first, second))
        ctx.inputs, ctx.transposed = x.shape[1], transposed
        result: Tensor = out
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        d1, d2, first_index, second_index = ctx.saved_tensors
        with_first = bool(ctx.needs_input_grad[1] or ctx.needs_input_grad[3])
        g_x, g_first = _ops.perceptron_vjp(g, d1, d2, *ctx.transposed, ctx.inputs, with_first)

        def summed(needed: bool, rows: int, index: Tensor | None) -> Tensor | None:
            if not needed or index is None:
                return g_first if needed else None
            # new_zeros: a trace gives it a stand-in where torch.zeros would make a tensor
            total: Tensor = g_first.new_zeros(rows, g_first.shape[1])
            return total.index_add(0, index, g_first)

        of_first = summed(ctx.needs_input_grad[1], ctx.rows[0], first_index)
        of_second = summed(ctx.needs_input_grad[3], ctx.rows[1], second_index)
        return g_x, of_first, None, of_second, None, None, None


class PackedMLP(nn.Module):
    """Stands in for blocks.MLP at inference: same numbers up to the precision of the products."""

    weight0: Tensor

    def __init__(self, mlp: MLP, precision: str, with_gradient: bool, inputs: int | None = None) -> None:
        """`with_gradient`: goes backwards, too. `inputs`: so many columns of the first layer only."""
        super().__init__()
        self.inputs, self.with_gradient = inputs or mlp.first.in_features, with_gradient
        layers = (mlp.first.weight[:, :inputs], mlp.second.weight, mlp.third.weight)
        for index, (weight, layer) in enumerate(zip(layers, (mlp.first, mlp.second, mlp.third), strict=True)):
            matrix = weight.detach()  # (outputs, inputs)
            self.register_buffer(f"weight{index}", _ops.pack_matrix(matrix.t(), precision))
            self.register_buffer(f"bias{index}", layer.bias.detach().clone())
            if with_gradient:
                self.register_buffer(f"transposed{index}", _ops.pack_matrix(matrix, precision))

    def _weights(self) -> list[Tensor]:
        return [getattr(self, f"{kind}{index}") for index in range(3) for kind in ("weight", "bias")]

    def _transposed(self) -> list[Tensor]:
        return [getattr(self, f"transposed{index}") for index in range(3) if self.with_gradient]

    def forward(self, x: Tensor, first: Rows = (None, None), second: Rows = (None, None)) -> Tensor:  # type: ignore[assignment]
        """(R, D) and two tables of rows to add to the first layer -> (R, C)."""
        result: Tensor = _Perceptron.apply(x, *first, *second, self._weights(), self._transposed())  # type: ignore[no-untyped-call]
        return result

    def keep(
        self,
        x: Tensor,
        first: Rows = (None, None),  # type: ignore[assignment]
        second: Rows = (None, None),  # type: ignore[assignment]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and the slopes of both activations (R, H)."""
        out, first_slope, second_slope = _ops.perceptron(x, *first, *second, *self._weights(), True)
        return out, first_slope, second_slope

    def vjp(
        self, first_slope: Tensor, second_slope: Tensor, gradient: Tensor, with_first: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradient with respect to the result (R, C) -> to x (R, D) and to the added rows (R or 0, H)."""
        given = (gradient, first_slope, second_slope, *self._transposed(), self.inputs, with_first)
        g_x, g_first = _ops.perceptron_vjp(*given)
        return g_x, g_first


class PackedMessageBlock(nn.Module):
    """Stands in for interaction.MessageBlock: what atoms give to an edge is added within the operator."""

    center: Tensor
    neighbor: Tensor

    def __init__(self, block: MessageBlock, precision: str, with_gradient: bool) -> None:
        super().__init__()
        self.mlp = PackedMLP(block.mlp, precision, with_gradient, inputs=block.channels)
        self.norm = block.norm
        for name, matrix in zip(("center", "neighbor"), block.projections(), strict=True):
            self.register_buffer(name, matrix.detach().contiguous())

    def projections(self) -> tuple[Tensor, Tensor]:
        """See interaction.MessageBlock."""
        return self.center, self.neighbor

    def finish(
        self, e: Tensor, as_center: Tensor, as_neighbor: Tensor, centers: Tensor, neighbors: Tensor
    ) -> Tensor:
        """See interaction.MessageBlock."""
        result: Tensor = self.norm(self.mlp(e, (as_center, centers), (as_neighbor, neighbors)))
        return result

    def finish_keep(
        self, e: Tensor, as_center: Tensor, as_neighbor: Tensor, centers: Tensor, neighbors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See interaction.MessageBlock."""
        raw, *slopes = self.mlp.keep(e, (as_center, centers), (as_neighbor, neighbors))
        return self.norm(raw), *slopes, raw

    def finish_vjp(
        self, first_slope: Tensor, second_slope: Tensor, raw: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See interaction.MessageBlock."""
        return self.mlp.vjp(first_slope, second_slope, self.norm.vjp(raw, gradient), with_first=True)

    def forward(self, x: Tensor, e: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
        """See interaction.MessageBlock."""
        return self.finish(e, x @ self.center, x @ self.neighbor, centers, neighbors)


class PackedBlock(nn.Module):
    """Stands in for blocks.Block."""

    def __init__(self, block: Block, precision: str, with_gradient: bool) -> None:
        super().__init__()
        self.mlp = PackedMLP(block.mlp, precision, with_gradient)
        self.norm = block.norm

    def forward(self, x: Tensor) -> Tensor:
        """See blocks.Block."""
        result: Tensor = self.norm(self.mlp(x))
        return result

    def keep(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See blocks.Block."""
        raw, *slopes = self.mlp.keep(x)
        return self.norm(raw), *slopes, raw

    def vjp(self, first_slope: Tensor, second_slope: Tensor, raw: Tensor, gradient: Tensor) -> Tensor:
        """See blocks.Block."""
        return self.mlp.vjp(first_slope, second_slope, self.norm.vjp(raw, gradient), with_first=False)[0]


def packed(model: OrbV3, precision: str = "float32") -> OrbV3:
    """A copy of a float32 model on the CPU for inference whose perceptrons are packed.

    `precision` of the matrix products of edges: float32, bfloat16, float32-split, or three-bfloat16, which is
    what float32-split means on processors with AMX (`ops.splits_products`).
    """
    register_fakes()
    model = copy.deepcopy(model).requires_grad_(False)
    network, gradient = model.network, model.config.kind == "conservative"
    encoder = network.edge_encoder
    encoder.block = PackedBlock(encoder.block, precision, gradient)  # type: ignore[assignment]
    network.node_encoder = PackedBlock(network.node_encoder, "float32", False)  # type: ignore[assignment]
    for layer in network.layers:
        assert isinstance(layer, Interaction)
        layer.edge_block = PackedMessageBlock(layer.edge_block, precision, gradient)  # type: ignore[assignment]
        layer.node_block = PackedBlock(layer.node_block, "float32", gradient)  # type: ignore[assignment]
    return model


def slope_dtype(model: OrbV3) -> torch.dtype:
    """Of the slopes of activations that perceptrons of edges keep for their gradient."""
    mlp = model.network.edge_encoder.block.mlp
    return _slope_dtype(mlp.weight0) if isinstance(mlp, PackedMLP) else model.dtype
