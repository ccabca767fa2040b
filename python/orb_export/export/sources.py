"""MODEL on the command line: a family name, a checkpoint file, or the demonstration model of the package."""

from importlib import resources
from pathlib import Path

import torch

from orb_export import checkpoint, variants
from orb_export.model import OrbV3

DEMO = "demo"
_DEMO_FILE = "data/demo.safetensors"


def load_source(
    source: str,
    *,
    weights: Path | None = None,
    dtype: torch.dtype | None = None,
    max_neighbors: int | None = None,
    device: str = "cpu",
) -> OrbV3:
    """The model that MODEL means; the other arguments as for `checkpoint.load`."""
    if source != DEMO:
        return checkpoint.load(
            source, weights=weights, dtype=dtype, max_neighbors=max_neighbors, device=device
        )
    if weights is not None:
        raise ValueError(f"export: `weights` is {str(weights)!r} but the model `demo` brings its own")
    with resources.as_file(resources.files("orb_export") / _DEMO_FILE) as path:
        return checkpoint.load(path, dtype=dtype, max_neighbors=max_neighbors, device=device)


def licence_of(source: str) -> str:
    """Licence of the weights: that of the published family, of our demonstration model, or unknown."""
    if source == DEMO:
        return "MIT"
    published = variants.by_file(Path(source).name) or variants.VARIANTS.get(source.replace("_", "-").lower())
    return "Apache-2.0" if published else "unknown"
