"""Perceptrons and normalization shared by all parts of Orb-v3 (arXiv:2504.06231).

Shapes: R rows (atoms, edges or graphs), D inputs, H hidden width, C outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear map in the precision of `x`: a float64 input makes float32 weights compute in float64."""
    return functional.linear(x, weight.to(x.dtype), bias.to(x.dtype))


def silu_with_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """SiLU and its derivative, from one sigmoid."""
    sigmoid = torch.sigmoid(x)
    y = x * sigmoid
    return y, sigmoid + y * (1.0 - sigmoid)


class MLP(nn.Module):
    """Two hidden layers with SiLU, nothing after the last: the perceptron of encoders and interactions."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, outputs)

    def product(self, rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """rows . weight^T + bias: (R, D), (C, D), (C) -> (R, C). All its products are made here."""
        return functional.linear(rows, weight, bias)

    def finish(self, before_first_activation: Tensor) -> Tensor:
        """The rest of the perceptron, for callers that evaluate the first layer in parts."""
        hidden = functional.silu(before_first_activation)  # (R, H)
        hidden = functional.silu(self.product(hidden, self.second.weight, self.second.bias))
        return self.product(hidden, self.third.weight, self.third.bias)  # (R, C)

    def forward(self, x: Tensor) -> Tensor:
        """(R, D) -> (R, C)."""
        return self.finish(self.product(x, self.first.weight, self.first.bias))

    def finish_keep(self, before_first_activation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `finish`, and the slopes of both activations (R, H), all that `finish_vjp` needs."""
        hidden, first_slope = silu_with_slope(before_first_activation)  # (R, H)
        hidden, second_slope = silu_with_slope(self.product(hidden, self.second.weight, self.second.bias))
        return self.product(hidden, self.third.weight, self.third.bias), first_slope, second_slope

    def finish_vjp(self, first_slope: Tensor, second_slope: Tensor, gradient: Tensor) -> Tensor:
        """Gradient with respect to the result of `finish` (R, C) -> to its input (R, H)."""
        gradient = self.product(gradient, self.third.weight.t()) * second_slope
        return self.product(gradient, self.second.weight.t()) * first_slope


class HeadMLP(nn.Module):
    """One hidden layer with SiLU, evaluated in the precision of its input (float64 for graph-level heads)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(R, D) -> (R, C)."""
        hidden = functional.silu(linear(x, self.first.weight, self.first.bias))  # (R, H)
        return linear(hidden, self.second.weight, self.second.bias)


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight, with the machine epsilon of the arithmetic as eps.

    The published weights were trained with this eps, so float64 is a slightly different function, not only
    a more precise one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps32: float = torch.finfo(torch.float32).eps
        self.eps64: float = torch.finfo(torch.float64).eps

    def scale(self, x: Tensor) -> Tensor:
        """(R, C) -> (R, 1)."""
        eps = self.eps64 if x.dtype == torch.float64 else self.eps32
        return torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C) -> (R, C)."""
        return x * self.scale(x) * self.weight

    def vjp(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Gradient with respect to the result for the input x (R, C) -> to x (R, C)."""
        scale = self.scale(x)
        unit, gradient = x * scale, gradient * self.weight
        return scale * (gradient - unit * (gradient * unit).mean(-1, keepdim=True))


class Block(nn.Module):
    """A perceptron followed by RMS normalization."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.mlp = MLP(inputs, hidden, outputs)
        self.norm = RMSNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(R, D) -> (R, C)."""
        result: Tensor = self.norm(self.mlp(x))
        return result

    def keep(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `forward`, and all that `vjp` needs: two slopes (R, H) and what is normalized (R, C)."""
        before = self.mlp.product(x, self.mlp.first.weight, self.mlp.first.bias)
        raw, first_slope, second_slope = self.mlp.finish_keep(before)
        return self.norm(raw), first_slope, second_slope, raw

    def vjp(self, first_slope: Tensor, second_slope: Tensor, raw: Tensor, gradient: Tensor) -> Tensor:
        """Gradient with respect to the result (R, C) -> with respect to `x` (R, D)."""
        gradient = self.mlp.finish_vjp(first_slope, second_slope, self.norm.vjp(raw, gradient))
        return self.mlp.product(gradient, self.mlp.first.weight.t())
