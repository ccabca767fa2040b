"""MODEL on the command line: a family name, a checkpoint file, or a demonstration model of the package."""

from importlib import resources
from pathlib import Path

import torch

from orb_export import checkpoint, variants
from orb_export.model import OrbV3

DEMO = "demo"
DEMOS = {DEMO: "data/demo.safetensors", "demo-molecular": "data/demo_molecular.safetensors"}


def load_source(
    source: str,
    *,
    weights: Path | None = None,
    dtype: torch.dtype | None = None,
    max_neighbors: int | None = None,
    device: str = "cpu",
) -> OrbV3:
    """The model that MODEL means; the other arguments as for `checkpoint.load`."""
    if source not in DEMOS:
        return checkpoint.load(
            source, weights=weights, dtype=dtype, max_neighbors=max_neighbors, device=device
        )
    if weights is not None:
        raise ValueError(f"export: `weights` is {str(weights)!r} but the model `{source}` brings its own")
    with resources.as_file(resources.files("orb_export") / DEMOS[source]) as path:
        return checkpoint.load(path, dtype=dtype, max_neighbors=max_neighbors, device=device)


def licence_of(source: str) -> str:
    """Licence of the weights: that of the published family, of our demonstration models, or unknown."""
    if source in DEMOS:
        return "MIT"
    published = variants.by_file(Path(source).name) or variants.VARIANTS.get(source.replace("_", "-").lower())
    return "Apache-2.0" if published else "unknown"
