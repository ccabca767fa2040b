"""Labelled structures as graphs: reading, rotation, batches.

Graphs are built once; a rotated structure keeps its edges and rotates their vectors.
Shapes: N atoms, E edges, B graphs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor
from tqdm import tqdm

from orb_export.graph import Graph, batch_graphs, from_atoms

from .sources import Selection


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
    source: str  # where it comes from, for reports by source

    @property
    def n_edges(self) -> int:
        """Number of directed edges, the measure of its cost."""
        return int(self.graph.centers.numel())

    def without_stress(self) -> "Sample":
        """The same structure with no stress label."""
        labels = self.labels
        return replace(self, labels=labels._replace(stress=torch.full_like(labels.stress, torch.nan)))

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


def read_samples(files: Sequence[str | Path], max_neighbors: int, charge_spin: bool = False) -> list[Sample]:
    """Frames of every file, with their graphs. Energy and forces are required, stress is used where present.

    A file may be followed by a slice, `train.xyz@::2`. Raises ValueError that names file and frame.
    """
    frames = Selection(files)
    bar = tqdm(range(len(frames)), desc="graphs", unit="frame", leave=False)
    return [make_sample(frames[i], frames.place(i), max_neighbors, charge_spin) for i in bar]


def with_labels_of(
    atoms: Atoms, place: str, energy_key: str | None, forces_key: str | None, stress_key: str | None
) -> Atoms:
    """The structure with labels from entries of `info` and `arrays` where a key is given.

    The other labels stay those of its calculator. Raises ValueError that names `place` and the missing entry.
    """
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    if not any(keys.values()):
        return atoms
    results = {} if atoms.calc is None else dict(atoms.calc.results)
    for name, key in keys.items():
        if key is None:
            continue
        entries = atoms.arrays if name == "forces" else atoms.info
        if key not in entries:
            raise ValueError(f"{place}: `data.{name}_key` is {key!r} but there are {sorted(entries)}")
        value = entries[key]
        if name == "stress" and np.size(value) == 9:
            value = full_3x3_to_voigt_6_stress(np.reshape(value, (3, 3)))
        results[name] = float(value) if name == "energy" else np.asarray(value, dtype=np.float64)
    labelled: Atoms = atoms.copy()
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled


def make_sample(
    atoms: Any, place: str, max_neighbors: int, charge_spin: bool, source: str = "", *, labelled: bool = True
) -> Sample:
    """Graph and labels of a structure; `place` names it in errors. Raises ValueError.

    Unless `labelled`, calculators are ignored and the labels are zero.
    """
    if not labelled:
        energy, forces = np.zeros(1), np.zeros((len(atoms), 3))
        labels = Labels(*map(torch.from_numpy, (energy, forces, np.full((1, 6), np.nan))))
        return Sample(_graph(atoms, place, max_neighbors, charge_spin), labels, source or place)
    if atoms.calc is None:
        raise ValueError(f"{place}: no energy and forces")
    try:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    except PropertyNotImplementedError as error:
        raise ValueError(f"{place}: energy and forces are both required, {error}") from None
    try:
        stress = atoms.get_stress(voigt=True, apply_constraint=False)
    except PropertyNotImplementedError:
        stress = np.full(6, np.nan)
    if not np.isfinite(energy) or not np.isfinite(forces).all():
        raise ValueError(f"{place}: energy or forces are not finite")
    labels = Labels(
        torch.tensor([energy], dtype=torch.float64),
        torch.as_tensor(forces, dtype=torch.float64),
        torch.as_tensor(stress, dtype=torch.float64)[None],
    )
    return Sample(_graph(atoms, place, max_neighbors, charge_spin), labels, source or place)


def _graph(atoms: Any, place: str, max_neighbors: int, charge_spin: bool) -> Graph:
    try:
        return from_atoms(atoms, max_neighbors, needs_charge_spin=charge_spin)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from None


def collate(samples: Sequence[Sample]) -> tuple[Graph, Labels]:
    """One batch of several structures."""
    columns: list[Any] = [
        torch.cat(column) for column in zip(*(sample.labels for sample in samples), strict=True)
    ]
    return batch_graphs([sample.graph for sample in samples]), Labels(*columns)
