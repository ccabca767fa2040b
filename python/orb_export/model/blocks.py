"""Perceptrons and normalization shared by all parts of Orb-v3 (arXiv:2504.06231).

Shapes: R rows (atoms, edges or graphs), D inputs, H hidden width, C outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear map in the precision of `x`: a float64 input makes float32 weights compute in float64."""
    return functional.linear(x, weight.to(x.dtype), bias.to(x.dtype))


class MLP(nn.Module):
    """Two hidden layers with SiLU, nothing after the last: the perceptron of encoders and interactions."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, outputs)

    def finish(self, before_first_activation: Tensor) -> Tensor:
        """The rest of the perceptron, for callers that evaluate the first layer in parts."""
        hidden = functional.silu(before_first_activation)  # (R, H)
        hidden = functional.silu(self.second(hidden))
        result: Tensor = self.third(hidden)  # (R, C)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """(R, D) -> (R, C)."""
        return self.finish(self.first(x))


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

    def forward(self, x: Tensor) -> Tensor:
        """(R, C) -> (R, C)."""
        eps = self.eps64 if x.dtype == torch.float64 else self.eps32
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * self.weight


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
