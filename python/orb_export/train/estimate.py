"""What a run will need, before it starts: sizes, batches, memory."""

from collections.abc import Iterator

import numpy as np

from orb_export.model import OrbConfig, OrbV3

from .batches import Plan
from .catalog import Catalog
from .config import TrainConfig

# Numbers per edge that a training step of a conservative model keeps for its backward passes: multiples of
# the channels and the hidden width in each layer (and the encoder), and of the input features. Fitted to the
# growth of resident memory of models from 16 to 256 channels, which it meets within 30 %.
KEPT_CHANNELS, KEPT_HIDDEN, KEPT_INPUTS = 40, 16, 6
DIRECT_SHARE = 0.3  # of that, measured likewise: one backward pass instead of two
INPUT_FEATURES = 128
BYTES = {"float32": 4, "float64": 8, "bf16-mixed": 4}


def parameters(model: OrbV3) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def activation_bytes(model: OrbConfig, precision: str) -> int:
    """Memory of one edge in a training step, roughly."""
    per_layer = KEPT_CHANNELS * model.channels + KEPT_HIDDEN * model.hidden
    floats = KEPT_INPUTS * INPUT_FEATURES + (model.layers + 1) * per_layer
    share = DIRECT_SHARE if model.kind == "direct" else 1.0
    return int(share * floats) * BYTES[precision]


def describe(config: TrainConfig, model: OrbV3, catalog: Catalog, held_out: int, plan: Plan) -> Iterator[str]:
    """Lines on model, data, batches and memory."""
    shape = model.config
    weights = parameters(model) * BYTES[config.machine.precision]
    yield (
        f"model       {shape.kind}, {shape.channels} channels, hidden {shape.hidden}, {shape.layers} layers, "
        f"{shape.max_neighbors} neighbors, {parameters(model):,} weights ({weights / 1e6:.1f} MB)"
    )
    symbols = np.unique(catalog.sources)
    yield (
        f"data        {len(catalog):,} structures to train on, {held_out:,} held out, "
        f"{int(catalog.n_atoms.sum()):,} atoms, {int(catalog.n_edges.sum()):,} edges, "
        f"{len(catalog.elements)} elements, {len(symbols)} sources"
    )
    edges = np.array([catalog.n_edges[members].sum() for members in plan.batches_of_epoch(0)])
    yield (
        f"batches     {len(plan):,} steps in {plan.epochs} epochs; edges in a batch: {edges.mean():,.0f} on "
        f"average, {edges.max():,} at most (limit {config.data.max_edges:,})"
    )
    # weights, gradients, two moments of Adam, average
    memory = 5 * weights + edges.max() * activation_bytes(shape, config.machine.precision)
    memory /= config.machine.devices
    yield f"memory      about {memory / 1e9:.2f} GB in a process for a step on the largest batch"
