"""Options of a training run."""

import math
from dataclasses import dataclass, field
from typing import Any

from orb_export.contract import UNLIMITED_NEIGHBORS


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms of the loss; a term of weight 0 is left out."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0
    confidence: float = 1.0
    equigrad: float = 0.0  # conservative models only; per eV, hence far below the others


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the course of a run besides the data."""

    channels: int = _option(64, "channels of atoms and edges")
    hidden: int = _option(128, "width of the hidden layers")
    head_hidden: int = _option(64, "width of the hidden layer of the heads")
    layers: int = _option(2, "message-passing layers")
    max_neighbors: int = _option(UNLIMITED_NEIGHBORS, "nearest neighbors kept per atom")
    epochs: int = _option(20, "passes over the data")
    max_edges: int = _option(8000, "edges in a batch, at most")
    learning_rate: float = _option(1e-3, "of Adam, while held constant")
    warmup_steps: int = _option(200, "steps of linear warm-up")
    decay_fraction: float = _option(0.5, "last part of the run, in which the rate falls to 0 as a cosine")
    clip: float = _option(0.5, "global norm of the gradient, at most")
    ema: float = _option(0.999, "decay of the moving average of weights, which is what is saved")
    rotate: bool = _option(True, "rotate every structure at random in every epoch")
    seed: int = _option(1, "of weights, order and rotations")
    name: str = _option("orb-v3-small", "name of the model")
    description: str = _option("", "one line on data, purpose and licence, stored in the model file")
    dtype: str = _option("float32", "precision of training, float32 or float64")
    energy_weight: float = _option(0.05, "loss weight; more than forces bear at first stalls the training")
    final_energy_weight: float = _option(0.5, "loss weight at the end; rises while the rate decays")
    forces_weight: float = _option(1.0, "loss weight")
    stress_weight: float = _option(0.05, "loss weight")
    confidence_weight: float = _option(0.01, "loss weight; touches the confidence head only")
    equigrad_weight: float = _option(0.0002, "loss weight of the norm of the rotational gradient, per eV")

    def __post_init__(self) -> None:
        for name in ("channels", "hidden", "head_hidden", "layers", "max_neighbors", "epochs", "max_edges"):
            if getattr(self, name) < 1:
                raise ValueError(f"train: `{name}` is {getattr(self, name)} but must be positive")
        if not 0.0 < self.decay_fraction <= 1.0:
            raise ValueError(f"train: `decay_fraction` is {self.decay_fraction} but must be in (0, 1]")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"train: `dtype` is {self.dtype!r} but must be 'float32' or 'float64'")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"train: `ema` is {self.ema} but must be at least 0 and below 1")

    def decay(self, progress: float) -> float:
        """Part of the decay (0 to 1) that is behind when `progress` (0 to 1) of the run is."""
        return max(0.0, (progress - (1.0 - self.decay_fraction)) / self.decay_fraction)

    def loss_weights(self, progress: float) -> LossWeights:
        """The weights of the terms of the loss when `progress` (0 to 1) of the run is behind."""
        return LossWeights(
            energy=self.energy_weight
            + (self.final_energy_weight - self.energy_weight) * self.decay(progress),
            forces=self.forces_weight,
            stress=self.stress_weight,
            confidence=self.confidence_weight,
            equigrad=self.equigrad_weight,
        )

    def rate(self, progress: float, step: int) -> float:
        """Learning rate at a step, when `progress` of the run (0 to 1) is behind."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.learning_rate * warmup * 0.5 * (1.0 + math.cos(math.pi * self.decay(progress)))
