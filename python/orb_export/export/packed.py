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


def register_fakes() -> None:
    """Tells torch the output shapes of the operators."""

    def perceptron(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        w1, b1, _, b2, _, b3, keep = rest[-7:]
        narrow = w1.dtype == torch.bfloat16 and w1.dim() == 3
        rows, dtype = x.shape[0] if keep else 0, torch.bfloat16 if narrow else torch.float32
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

    def __init__(self, mlp: MLP, precision: str, inputs: int | None = None) -> None:
        """`inputs`: the first so many columns of the first layer only."""
        super().__init__()
        layers = (mlp.first.weight[:, :inputs], mlp.second.weight, mlp.third.weight)
        for index, (weight, layer) in enumerate(zip(layers, (mlp.first, mlp.second, mlp.third), strict=True)):
            matrix = weight.detach()  # (outputs, inputs)
            self.register_buffer(f"weight{index}", _ops.pack_matrix(matrix.t(), precision))
            self.register_buffer(f"transposed{index}", _ops.pack_matrix(matrix, precision))
            self.register_buffer(f"bias{index}", layer.bias.detach().clone())

    def forward(self, x: Tensor, first: Rows = (None, None), second: Rows = (None, None)) -> Tensor:  # type: ignore[assignment]
        """(R, D) and two tables of rows to add to the first layer -> (R, C)."""
        weights = [getattr(self, f"{kind}{index}") for index in range(3) for kind in ("weight", "bias")]
        transposed = [getattr(self, f"transposed{index}") for index in range(3)]
        result: Tensor = _Perceptron.apply(x, *first, *second, weights, transposed)  # type: ignore[no-untyped-call]
        return result


class PackedMessageBlock(nn.Module):
    """Stands in for interaction.MessageBlock: what atoms give to an edge is added within the operator."""

    center: Tensor
    neighbor: Tensor

    def __init__(self, block: MessageBlock, precision: str) -> None:
        super().__init__()
        self.mlp = PackedMLP(block.mlp, precision, inputs=block.channels)
        self.norm = block.norm
        for name, matrix in zip(("center", "neighbor"), block.projections(), strict=True):
            self.register_buffer(name, matrix.detach().contiguous())

    def projections(self) -> tuple[Tensor, Tensor]:
        """See interaction.MessageBlock."""
        return self.center, self.neighbor

    def finish(self, e: Tensor, from_nodes: Tensor) -> Tensor:
        """See interaction.MessageBlock."""
        result: Tensor = self.norm(self.mlp(e, (from_nodes, None)))
        return result

    def forward(self, x: Tensor, e: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
        """See interaction.MessageBlock."""
        added = ((x @ self.center, centers), (x @ self.neighbor, neighbors))
        result: Tensor = self.norm(self.mlp(e, *added))
        return result


def _pack_block(block: Block, precision: str) -> None:
    block.mlp = PackedMLP(block.mlp, precision)  # type: ignore[assignment]


def packed(model: OrbV3, precision: str = "float32") -> OrbV3:
    """A copy of a float32 model on the CPU for inference whose perceptrons are packed.

    `precision`: float32, float32-split or bfloat16, of the matrix products of edges.
    """
    register_fakes()
    model = copy.deepcopy(model).requires_grad_(False)
    _pack_block(model.network.node_encoder, "float32")
    _pack_block(model.network.edge_encoder.block, precision)
    for layer in model.network.layers:
        assert isinstance(layer, Interaction)
        layer.edge_block = PackedMessageBlock(layer.edge_block, precision)  # type: ignore[assignment]
        _pack_block(layer.node_block, "float32")
    return model
