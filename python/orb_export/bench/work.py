"""How much arithmetic and memory traffic an evaluation needs: the roofline of the potential.

Counted are matrix products, which are nearly all of the arithmetic, and the least traffic: weights once, and
what is too large for a cache once for each time that it is written or read.
"""

from typing import NamedTuple

from orb_export.model import OrbConfig
from orb_export.model.angular import HARMONICS
from orb_export.model.network import RADIAL_FUNCTIONS


class Work(NamedTuple):
    """Of one evaluation with forces."""

    flops: float  # of the products of edges, in the precision of the artefact
    node_flops: float  # of those of atoms, float32
    bytes: float


def evaluation(config: OrbConfig, atoms: int, edges: int, precision: str = "float32") -> Work:
    """The least work of one evaluation of a graph of this size."""
    c, h, layers = config.channels, config.hidden, config.layers
    rest = h * h + h * c  # second and third layer of every perceptron
    features = RADIAL_FUNCTIONS * HARMONICS
    per_edge = features * h + rest + layers * (c * h + rest)
    per_atom = layers * (2 * c * h + 3 * c * h + rest)
    passes = 2 if config.kind == "conservative" else 1  # forward, and gradients of the same products
    flops, node_flops = 2.0 * passes * edges * per_edge, 2.0 * atoms * (passes * per_atom + c * h + rest)

    size = {"float64": 8}.get(precision, 4)
    weight = {"bfloat16": 2, "float64": 8}.get(precision, 4)
    weights = passes * (weight * per_edge + size * per_atom)
    stream = (
        size * c * (3 * layers + 1)
    )  # written by the encoder; read by layer, message, next stream written
    if config.kind == "conservative":
        derivatives = 2 * (layers + 1) * h * min(weight, size)  # of both activations, written and read
        gradients = 2 * layers * h * size  # of what atoms give to edges, before they are summed
        stream = 2 * stream + 2 * derivatives + gradients
    return Work(flops, node_flops, float(weights + edges * stream))
