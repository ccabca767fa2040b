"""Time of one molecular dynamics step of full-size models, graph construction included, beside orb-models.

Weights are random and the same for both packages. Atoms are rattled copper and move between evaluations as
in dynamics; no two neighbors are equally far, so both packages take the same ones.
"""

import json
import math
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import ase.build
import numpy as np
import torch
from ase import Atoms

from orb_export import artefact, checkpoint
from orb_export.contract import METADATA_ENTRY
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
Contestant = Callable[[Atoms], Run]  # the same model on any structure


def repeats(n_atoms: int) -> tuple[int, int, int]:
    """Cubic cells of fcc copper along each axis that make so many atoms, as close to a cube as they can.

    ValueError where some edge would be shorter than two cells.
    """
    cells = n_atoms // 4
    found = [
        (a, b, cells // a // b)
        for a in range(2, round(cells ** (1 / 3)) + 1)
        if cells % a == 0
        for b in range(a, math.isqrt(cells // a) + 1)
        if cells // a % b == 0
    ]
    if n_atoms % 4 or not found:
        raise ValueError(
            f"bench: `atoms` is {n_atoms} but must be 4 times a product of three numbers from 2 on, as are "
            "64, 256, 1000 and all multiples of 400"
        )
    return min(found, key=lambda cells: cells[2] / cells[0])


def copper(n_atoms: int) -> Atoms:
    """Rattled fcc copper, see repeats."""
    atoms: Atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat(repeats(n_atoms))
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


def export(name: str, file: Path, precision: str = "float32", device: str = "cpu") -> None:
    """The artefact of random_model(name), steps included, as `orb-export export` would write it."""
    export_model(random_model(name, device), file, precision=precision, verified=False)


def with_cap(file: Path, max_neighbors: int, destination: Path) -> None:
    """A copy of an artefact with another number of neighbors.

    The cap is one of the edge search; programs and weights, which take minutes to compile, know nothing of it
    (but `forward` of a TorchScript file, for openmm-torch, which keeps its own).
    """
    shutil.copyfile(file, destination)
    with zipfile.ZipFile(destination, "a", zipfile.ZIP_STORED) as archive:
        entry = archive.getinfo(METADATA_ENTRY)
        record = {**json.loads(archive.read(entry)), "max_neighbors": max_neighbors}
        # the record is the last entry, and stays it: the new one takes its place
        archive.filelist.remove(entry)
        del archive.NameToInfo[METADATA_ENTRY]
        archive.start_dir = entry.header_offset
        new = zipfile.ZipInfo(METADATA_ENTRY, date_time=entry.date_time)
        archive.writestr(new, json.dumps(record, indent=1))


def peer(name: str, folder: Path, device: str = "cpu") -> Contestant:
    """orb-models 0.5.5 with the same weights, compiled by its own default, through its ASE calculator."""
    from orb_models.forcefield import pretrained
    from orb_models.forcefield.calculator import ORBCalculator

    file = folder / f"{name}.ckpt"
    torch.save(checkpoint.to_upstream_state_dict(random_model(name)), file)
    load = getattr(pretrained, f"orb_v3_{name.replace('-', '_')}_omat")
    calculator = ORBCalculator(load(weights_path=str(file), device=device), device=device)

    def on(atoms: Atoms) -> Run:
        atoms = atoms.copy()
        atoms.calc = calculator
        move = wandering(atoms)

        def step() -> None:
            move()
            atoms.get_forces()

        return step

    return on


def ours(file: Path) -> Contestant:
    """An artefact through Python, opened as a user opens it."""
    potential = artefact.load(file)

    def on(atoms: Atoms) -> Run:
        atoms = atoms.copy()
        move = wandering(atoms)

        def step() -> None:
            move()
            potential.predict(atoms)

        return step

    return on
