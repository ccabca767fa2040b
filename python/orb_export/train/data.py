"""Labelled structures for training: reading, reference energies, rotation and batches by edge count.

Graphs are built once; a rotated structure keeps its edges and rotates their vectors.
Shapes: N atoms, E edges, B graphs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from ase.utils import string2index
from torch import Tensor
from tqdm import tqdm

from orb_export.contract import MAX_ATOMIC_NUMBER
from orb_export.graph import Graph, batch_graphs, from_atoms

# A composition fit is ill-conditioned where elements always occur together; singular values below this
# fraction of the largest are dropped, which shares the energy among such elements.
REFERENCE_RCOND = 1e-6


class Labels(NamedTuple):
    """Targets of a batch. A structure without a stress label has NaN in its row."""

    energy: Tensor  # (B,) eV
    forces: Tensor  # (N, 3) eV/angstrom
    stress: Tensor  # (B, 6) eV/angstrom^3, Voigt xx yy zz yz xz xy, tension positive


@dataclass(frozen=True)
class Sample:
    """One structure with its graph and labels, float64."""

    graph: Graph
    labels: Labels
    source: str

    @property
    def n_edges(self) -> int:
        """Number of directed edges, the measure of its cost."""
        return int(self.graph.centers.numel())

    def rotated(self, rotation: Tensor) -> "Sample":
        """The same structure after x -> x R; edges, energy and reference data stay as they are."""
        graph, labels = self.graph, self.labels
        return replace(
            self,
            graph=graph._replace(
                vectors=graph.vectors @ rotation,
                positions=graph.positions @ rotation,
                cell=graph.cell @ rotation,
            ),
            labels=Labels(
                labels.energy,
                labels.forces @ rotation,
                to_voigt(rotation.T @ from_voigt(labels.stress) @ rotation),
            ),
        )


def from_voigt(stress: Tensor) -> Tensor:
    """(..., 6) in Voigt order to symmetric (..., 3, 3)."""
    return stress[..., [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(*stress.shape[:-1], 3, 3)


def to_voigt(stress: Tensor) -> Tensor:
    """(..., 3, 3) to (..., 6); off-diagonal pairs are averaged."""
    flat = stress.flatten(-2)
    return (flat[..., [0, 4, 8, 5, 2, 1]] + flat[..., [0, 4, 8, 7, 6, 3]]) / 2


def random_rotation(generator: torch.Generator) -> Tensor:
    """Rotation matrix (3, 3), float64, uniform over SO(3): a unit quaternion from four normal deviates."""
    quaternion = torch.randn(4, generator=generator, dtype=torch.float64)
    w, x, y, z = (quaternion / quaternion.norm()).tolist()
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )


def read_samples(files: Sequence[str | Path], max_neighbors: int) -> list[Sample]:
    """Frames of every file, with their graphs. Energy and forces are required, stress is used where present.

    A file may be followed by a slice, `train.xyz@::2`. Raises ValueError that names file and frame.
    """
    samples = []
    for file in files:
        name, _, chosen = str(file).partition("@")
        if not Path(name).is_file():
            raise ValueError(f"train: `{name}` does not exist")
        frames: Any = ase.io.read(name, index=":")
        selection: Any = string2index(chosen or ":")
        numbers = np.atleast_1d(np.arange(len(frames))[selection])
        for number in tqdm(numbers, desc=Path(name).name, unit="frame", leave=False):
            samples.append(_sample(frames[number], f"{name}:{number}", max_neighbors))
    if not samples:
        raise ValueError("train: no structure was given")
    return samples


def _sample(atoms: Any, source: str, max_neighbors: int) -> Sample:
    if atoms.calc is None:
        raise ValueError(f"{source}: no energy and forces")
    try:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    except PropertyNotImplementedError as error:
        raise ValueError(f"{source}: energy and forces are both required, {error}") from None
    try:
        stress = atoms.get_stress(voigt=True, apply_constraint=False)
    except PropertyNotImplementedError:
        stress = np.full(6, np.nan)
    if not np.isfinite(energy) or not np.isfinite(forces).all():
        raise ValueError(f"{source}: energy or forces are not finite")
    labels = Labels(
        torch.tensor([energy], dtype=torch.float64),
        torch.as_tensor(forces, dtype=torch.float64),
        torch.as_tensor(stress, dtype=torch.float64)[None],
    )
    return Sample(from_atoms(atoms, max_neighbors), labels, source)


def fit_references(samples: Sequence[Sample]) -> Tensor:
    """Energy per element (118,), eV, float64: the least-squares fit of total energies on composition.

    Rows are divided by the number of atoms, so that every structure counts alike; absent elements get 0.
    """
    composition = torch.zeros(len(samples), MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
    for row, sample in zip(composition, samples, strict=True):
        row += torch.bincount(sample.graph.numbers, minlength=MAX_ATOMIC_NUMBER + 1)
    counts = composition.sum(dim=1, keepdim=True)
    energies = torch.stack([sample.labels.energy for sample in samples])
    fit = torch.linalg.lstsq(composition / counts, energies / counts, rcond=REFERENCE_RCOND, driver="gelsd")
    references: Tensor = fit.solution[:, 0]
    return references


def split(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation parts, drawn at random; `fraction` of the structures go to validation."""
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"train: `validation_fraction` is {fraction} but must be at least 0 and below 1")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed)).tolist()
    n_validation = round(fraction * len(samples))
    return [samples[i] for i in order[n_validation:]], [samples[i] for i in order[:n_validation]]


def epoch_batches(edges: Sequence[int], max_edges: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Indices of one pass in random order, grouped so that a batch has at most `max_edges` edges.

    A structure larger than that is a batch of its own.
    """
    batch: list[int] = []
    total = 0
    for index in torch.randperm(len(edges), generator=generator).tolist():
        if batch and total + edges[index] > max_edges:
            yield batch
            batch, total = [], 0
        batch.append(index)
        total += edges[index]
    if batch:
        yield batch


def collate(samples: Sequence[Sample]) -> tuple[Graph, Labels]:
    """One batch of several structures."""
    columns: list[Any] = [
        torch.cat(column) for column in zip(*(sample.labels for sample in samples), strict=True)
    ]
    return batch_graphs([sample.graph for sample in samples]), Labels(*columns)
