"""Time of one molecular dynamics step of full-size models, graph construction included, beside orb-models.

Weights are random and the same for both packages. Atoms are rattled copper and move between evaluations as
in dynamics; no two neighbors are equally far, so both packages take the same ones.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import ase.build
import numpy as np
import torch
from ase import Atoms

from orb_export import artefact, checkpoint
from orb_export.export import export_model
from orb_export.model import OrbConfig, OrbV3

from .timing import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODELS = {
    "direct-20": OrbConfig("direct", max_neighbors=20),
    "conservative-20": OrbConfig("conservative", max_neighbors=20),
    "direct-inf": OrbConfig("direct", max_neighbors=120),
    "conservative-inf": OrbConfig("conservative", max_neighbors=120),
}
_CELLS = {64: (2, 2, 4), 108: (3, 3, 3), 256: (4, 4, 4), 500: (5, 5, 5), 1000: (5, 5, 10), 2000: (5, 10, 10)}
SIZES = (*_CELLS, 20000)


def copper(n_atoms: int) -> Atoms:
    """Rattled fcc copper of one of SIZES."""
    cells = _CELLS.get(n_atoms, (10, 10, n_atoms // 400))
    atoms: Atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat(cells)
    assert len(atoms) == n_atoms
    atoms.rattle(0.1, seed=0)
    return atoms


def wandering(atoms: Atoms) -> Run:
    """Moves the atoms as far as a step of dynamics does."""
    rng = np.random.default_rng(1)

    def move() -> None:
        moved: NDArray[np.float64] = 1e-3 * rng.standard_normal(atoms.positions.shape)
        atoms.positions += moved

    return move


def random_model(name: str, device: str = "cpu") -> OrbV3:
    """Full size, float32; the same weights at every call."""
    torch.manual_seed(0)
    return OrbV3(MODELS[name]).to(device).eval()


def export(
    name: str, file: Path, precision: str = "float32", device: str = "cpu", with_steps: bool = False
) -> None:
    """The artefact of random_model(name); steps, for a memory limit, take as long again."""
    model = random_model(name, device)
    export_model(model, file, precision=precision, verified=False, with_steps=with_steps)


def peer(name: str, folder: Path, atoms: Atoms, device: str = "cpu") -> Run:
    """orb-models 0.5.5 with the same weights, compiled by its own default, through its ASE calculator."""
    from orb_models.forcefield import pretrained
    from orb_models.forcefield.calculator import ORBCalculator

    file = folder / f"{name}.ckpt"
    torch.save(checkpoint.to_upstream_state_dict(random_model(name)), file)
    load = getattr(pretrained, f"orb_v3_{name.replace('-', '_')}_omat")
    atoms = atoms.copy()
    atoms.calc = ORBCalculator(load(weights_path=str(file), device=device), device=device)
    move = wandering(atoms)

    def step() -> None:
        move()
        atoms.get_forces()

    return step


def ours(file: Path, atoms: Atoms) -> Run:
    """An artefact through Python."""
    potential, atoms = artefact.load(file), atoms.copy()
    move = wandering(atoms)

    def step() -> None:
        move()
        potential.predict(atoms)

    return step
