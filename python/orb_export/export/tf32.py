"""A model for a GPU whose products of edges may be made in TF32: what precision `tf32` is compiled from.

Factors are rounded to 10 bits, sums are float32. `orb_export::matmul_tf32` (cpp/src/ops/matmul_tf32.cpp)
allows that for its own product alone, whatever the process allows: perceptrons of atoms stay float32.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from orb_export import ops  # noqa: F401  (registers the operator)
from orb_export.model import OrbV3
from orb_export.model.blocks import MLP
from orb_export.model.interaction import Interaction


def register_fakes() -> None:
    """Tells torch the output shape of the operator."""

    def matmul_tf32(rows: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        return rows.new_empty((rows.shape[0], matrix.shape[1]))

    torch.library.register_fake("orb_export::matmul_tf32", matmul_tf32, allow_override=True)


class _Product(torch.autograd.Function):
    """rows . weight^T + bias, with the gradient of rows alone: inference has no other."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        result: Tensor = torch.ops.orb_export.matmul_tf32(rows, weight.t(), bias)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return torch.ops.orb_export.matmul_tf32(gradient, weight, None), None, None


class TF32MLP(MLP):
    """Stands in for blocks.MLP at inference."""

    def __init__(self, mlp: MLP) -> None:
        nn.Module.__init__(self)  # new weights would only be replaced
        self.first, self.second, self.third = mlp.first, mlp.second, mlp.third

    def product(self, rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """See blocks.MLP."""
        result: Tensor = _Product.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
        return result


def in_tf32(model: OrbV3) -> OrbV3:
    """A copy of a float32 model for inference whose perceptrons of edges multiply in TF32 on a GPU."""
    register_fakes()
    model = copy.deepcopy(model).requires_grad_(False)
    encoder = model.network.edge_encoder.block
    encoder.mlp = TF32MLP(encoder.mlp)
    for layer in model.network.layers:
        assert isinstance(layer, Interaction)
        layer.edge_block.mlp = TF32MLP(layer.edge_block.mlp)
    return model
