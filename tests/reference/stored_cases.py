"""Results of orb-models 0.5.5 for tiny randomized models; the npz file's generator documents its keys."""

from pathlib import Path

import numpy as np
import torch
from orb_export.checkpoint import from_upstream_state_dict
from orb_export.graph import Graph, from_edges
from orb_export.model import OrbV3
from torch import Tensor

MODELS = ("cons", "direct", "cons_omol", "direct_omol")
CAPS = (20, 120)
# upstream's name of a result -> ours
RESULTS = {
    "energy": "energy",
    "forces": "forces",
    "grad_forces": "forces",
    "stress": "stress",
    "grad_stress": "stress",
    "confidence": "confidence",
    "rotational_grad": "rotational_grad",
}
# structures with edges that 0.5.5 refuses, hence without results
REFUSED = ("slab_al_o_partial_pbc",)


class StoredCases:
    """Read access by meaning instead of by key."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.arrays = {key: file[key] for key in file.files if "v2" not in key.split("/")}
        self.structures = sorted({key.split("/")[1] for key in self.arrays if key.startswith("struct/")})

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays whose key starts with the prefix, without it."""
        return {key.removeprefix(prefix): a for key, a in self.arrays.items() if key.startswith(prefix)}

    def state_dict(self, model: str) -> dict[str, Tensor]:
        """Upstream's state dict, float32."""
        return {key: torch.from_numpy(a.copy()) for key, a in self.under(f"sd/{model}/").items()}

    def model(self, name: str, dtype: torch.dtype = torch.float64, cap: int = 20) -> OrbV3:
        return from_upstream_state_dict(self.state_dict(name), cap, dtype=dtype)

    def graph(self, structure: str, cap: int = 20) -> Graph:
        """The graph of the stored edges, which settles ties as upstream happened to."""
        system, edges = self.under(f"struct/{structure}/"), self.under(f"graph/{structure}/{cap}/")
        return from_edges(
            system["numbers"],
            edges["wrapped_positions"],
            system["cell"],
            edges["senders"],
            edges["receivers"],
            edges["vectors"],
            charge=float(system["charge"]),
            spin=float(system["spin"]),
        )

    def tie(self, structure: str, cap: int) -> bool:
        """Whether the cap cuts through neighbors at equal distance."""
        return bool(self[f"graph/{structure}/{cap}/tie_at_cap"])

    def results(self, variant: str, model: str, structure: str, cap: int) -> dict[str, np.ndarray]:
        """Upstream's results under our names; `variant` is out (float64) or out_f32."""
        return {RESULTS[k]: a for k, a in self.under(f"{variant}/{model}/{structure}/{cap}/").items()}


def largest_error(actual: Tensor, expected: np.ndarray) -> float:
    """Largest error relative to 1 + |expected|."""
    assert tuple(actual.shape) == expected.shape
    error = np.abs(actual.detach().double().numpy() - expected) / (1 + np.abs(expected))
    return float(error.max()) if error.size else 0.0
