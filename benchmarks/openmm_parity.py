"""Forces and energies of every way from OpenMM to a potential: a part of the table of openmm_bar.py."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from orb_export.checkpoint import from_upstream_state_dict
from orb_export.export import export_model
from orb_export.model import OrbConfig, OrbV3

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the oracles are those of the tests
from tests.engines.openmm import systems
from tests.engines.openmm.routes import BOXES, FULL_SIZE, ROUTES, SMALL, Upstream
from tests.engines.openmm.systems import Result
from tests.parity.test_orb_models import checkpoint

DTYPES = {"float64": torch.float64, "float32": torch.float32}
FORCES = {"float64": 1e-9, "float32": 1e-5}  # eV/angstrom


class Line(NamedTuple):
    """Of the table."""

    check: str
    measured: str
    limit: str
    is_met: bool


class Model(NamedTuple):
    """Random weights in the format of orb-models."""

    name: str
    config: OrbConfig
    state: dict[str, torch.Tensor]

    def ours(self, dtype: torch.dtype) -> OrbV3:
        """The same for our package."""
        return from_upstream_state_dict(self.state, self.config.max_neighbors, dtype=dtype)


def random_model(name: str, kind: str, cap: int, sizes: dict[str, int]) -> Model:
    options = {"kind": kind, "max_neighbors": cap, **sizes}
    return Model(name, OrbConfig(**options), checkpoint(options))


class Largest:
    """Largest errors by route: of forces in eV/angstrom, and of energies in eV per atom."""

    def __init__(self) -> None:
        self.forces: dict[str, float] = {}
        self.energies: dict[str, float] = {}

    def add(self, key: str, result: Result, forces: np.ndarray, energy: float) -> None:
        """Take in a result beside the right forces (N, 3) and energy."""
        error = float(np.abs(result.forces - forces).max())
        self.forces[key] = max(self.forces.get(key, 0.0), error)
        error = abs(result.energy - energy) / len(forces)
        self.energies[key] = max(self.energies.get(key, 0.0), error)


def parity(folder: Path, full_size: bool) -> Iterator[Line]:
    """Forces and energies of every route in every box."""
    inf = random_model("inf", "conservative", 120, SMALL)
    direct = random_model("direct-20", "direct", 20, SMALL)
    full = random_model("full-size inf", "conservative", 120, FULL_SIZE)
    compiled = [inf, *([full] if full_size else [])]
    for name, dtype in DTYPES.items():
        largest = Largest()
        for model in (inf, direct, full):
            ours, theirs = model.ours(dtype), Upstream(model.state, model.config, dtype)
            exact = Upstream(model.state, model.config, torch.float64, epsilon_of=dtype)
            if model in compiled:
                package = folder / f"{model.name}-{name}.pt2"
                # the steps would take most of the time to compile, and nothing here calls them
                export_model(ours, package, format="aoti", verified=False, with_steps=False)
            for atoms in BOXES.values():
                right = theirs.checked(atoms).forces, exact(atoms).energy
                file = folder / "model.pt"
                export_model(ours, file, format="torchscript", structure=atoms, verified=False)
                for route, evaluate in ROUTES.items():
                    key = "OrbV3Force .pt" if route == "OrbV3Force" else route
                    largest.add(key, evaluate(atoms, file), *right)
                if model in compiled:
                    largest.add("OrbV3Force .pt2", systems.evaluate(atoms, package), *right)
        limit = FORCES[name]
        for key, error in sorted(largest.forces.items()):
            yield Line(f"forces by {key}, {name}", f"{error:.1e} eV/Å", f"{limit:.0e} eV/Å", error <= limit)
        error = max(largest.energies.values())
        yield Line(
            f"energy per atom against the float64 reference, {name} networks, 3 to 16 atoms",
            f"{error:.1e} eV",
            "1e-07 eV",
            error <= 1e-7,
        )
