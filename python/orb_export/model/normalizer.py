"""Running normalization of scalar targets."""

import torch
from torch import Tensor, nn


class Normalizer(nn.Module):
    """(x - mean) / sqrt(var) with running statistics over all elements it has ever been shown in training.

    Each call in training mode with more than one element counts as one batch, whatever its size:
    mean += (batch mean - mean) / count, and likewise for the unbiased variance.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, mean: float = 0.0, std: float = 1.0, count: int = 0) -> None:
        super().__init__()
        dtype = torch.get_default_dtype()
        self.register_buffer("mean", torch.tensor([mean], dtype=dtype))
        self.register_buffer("var", torch.tensor([std * std], dtype=dtype))
        self.register_buffer("count", torch.tensor(count, dtype=torch.int64))

    def update(self, x: Tensor) -> None:
        """Take the elements of `x` (any shape, more than one) into the running statistics."""
        values = x.detach().reshape(-1).to(torch.float64)
        self.take(values.mean(), values.var())

    def take(self, mean: Tensor, var: Tensor) -> None:
        """Take a batch with this mean and unbiased variance, () float64, into the running statistics."""
        with torch.no_grad():
            self.count.add_(1)
            weight = 1.0 / self.count.to(torch.float64)
            self.mean.add_(weight * (mean - self.mean))
            self.var.add_(weight * (var - self.var))

    def forward(self, x: Tensor) -> Tensor:
        """Normalized `x` in float64, after taking it into the statistics in training mode."""
        if self.training and x.numel() > 1:
            self.update(x)
        return self.normalize(x)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalized `x`, float64, with the statistics as they are."""
        return (x.to(torch.float64) - self.mean.to(torch.float64)) / self.std()

    def denormalize(self, x: Tensor) -> Tensor:
        """Physical value of a normalized `x`, float64."""
        return x.to(torch.float64) * self.std() + self.mean.to(torch.float64)

    def std(self) -> Tensor:
        """Running standard deviation (1,), float64."""
        return self.var.to(torch.float64).sqrt()
