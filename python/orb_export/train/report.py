"""Errors of a model on labelled structures: by set, element and source; calibration; rotational gradient.

Shapes: N atoms, M structures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from orb_export.contract import CONFIDENCE_BINS, CONFIDENCE_MAX_ERROR
from orb_export.model import OrbV3
from orb_export.model.heads import expected_error

from .data import Sample, collate
from .losses import predict

GPA = 160.21766208  # eV/angstrom^3


@dataclass(frozen=True)
class Evaluation:
    """Predictions and labels of a set, with what tables and plots need."""

    sources: list[str]  # M
    n_atoms: NDArray[np.int64]  # (M,)
    energy: NDArray[np.float64]  # (M, 2) eV/atom: label, prediction
    stress: NDArray[np.float64]  # (M, 12) eV/angstrom^3: label, prediction; NaN where there is none
    rotation: NDArray[np.float64]  # (M,) eV per atom, Frobenius norm; NaN of direct models
    numbers: NDArray[np.int64]  # (N,)
    owner: NDArray[np.int64]  # (N,) structure of each atom
    forces: NDArray[np.float64]  # (N, 6) eV/angstrom: label, prediction
    confidence: NDArray[np.float64]  # (N, bins) probabilities


def evaluate(model: OrbV3, samples: Iterable[Sample]) -> Evaluation:
    """Predictions for every structure, one at a time: no structure sees another's size."""
    columns: list[list[Any]] = [[] for _ in range(9)]
    for index, sample in enumerate(samples):
        graph, labels = collate([sample])
        predicted = predict(model, graph)
        n = graph.numbers.numel()
        stress = predicted.stress if predicted.stress is not None else torch.full((1, 6), torch.nan)
        rotation = predicted.rotational_gradient
        row = (
            sample.source,
            n,
            [float(labels.energy) / n, float(predicted.energy.detach()) / n],
            torch.cat([labels.stress[0], stress[0].detach()]).numpy(),
            np.nan if rotation is None else float(rotation.detach().norm()) / n,
            graph.numbers.numpy(),
            np.full(n, index),
            torch.cat([labels.forces, predicted.forces.detach()], dim=1).numpy(),
            torch.softmax(predicted.outputs.confidence_logits.detach().to(torch.float64), dim=1).numpy(),
        )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    if not columns[0]:
        raise ValueError("evaluate: `samples` is empty")
    per_structure = [columns[0], *(np.array(column) for column in columns[1:5])]
    return Evaluation(*per_structure, *(np.concatenate(column) for column in columns[5:]))  # type: ignore[arg-type]


def errors(model: OrbV3, samples: Sequence[Sample]) -> dict[str, float]:
    """Mean absolute errors: energy in meV/atom, forces in eV/angstrom, stress in GPa (components alike)."""
    return mean_errors(evaluate(model, samples))


def mean_errors(found: Evaluation) -> dict[str, float]:
    """The same of an evaluation; stress only where some structure has one."""
    energy, forces, stress = _differences(found)
    result = {"energy_mae": 1e3 * float(energy.mean()), "forces_mae": float(forces.mean())}
    if np.isfinite(stress).any():
        result["stress_mae"] = GPA * float(np.nanmean(stress))
    return result


def _differences(found: Evaluation) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    energy = np.abs(found.energy[:, 1] - found.energy[:, 0])
    forces = np.abs(found.forces[:, 3:] - found.forces[:, :3])
    return energy, forces, np.abs(found.stress[:, 6:] - found.stress[:, :6])


def by_source(found: Evaluation) -> dict[str, dict[str, float]]:
    """Mean absolute errors of the structures of each source, and how many there are."""
    energy, forces, _ = _differences(found)
    sources = np.array(found.sources)
    return {
        str(source): {
            "structures": int((sources == source).sum()),
            "energy_mae": 1e3 * float(energy[sources == source].mean()),
            "forces_mae": float(forces[(sources == source)[found.owner]].mean()),
        }
        for source in np.unique(sources)
    }


def by_element(found: Evaluation) -> dict[str, dict[str, float]]:
    """Mean absolute force error of the atoms of each element, and how many there are."""
    _, forces, _ = _differences(found)
    return {
        chemical_symbols[z]: {
            "atoms": int((found.numbers == z).sum()),
            "forces_mae": float(forces[found.numbers == z].mean()),
        }
        for z in np.unique(found.numbers)
    }


def calibration(found: Evaluation) -> list[dict[str, float]]:
    """By the bin of the expected force error: how many atoms, expected and true mean error, eV/angstrom.

    An expected error is the mean over the predicted distribution; bins that hold no atom are left out.
    """
    _, forces, _ = _differences(found)
    expected = expected_error(torch.from_numpy(found.confidence)).numpy()
    bins = np.minimum((expected / CONFIDENCE_MAX_ERROR * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    true = forces.mean(axis=1)
    return [
        {
            "atoms": int((bins == k).sum()),
            "expected": float(expected[bins == k].mean()),
            "found": float(true[bins == k].mean()),
        }
        for k in np.unique(bins)
    ]


def rotational(found: Evaluation) -> dict[str, float] | None:
    """Mean, median and largest norm of the rotational gradient per atom, meV; None of direct models."""
    norms = 1e3 * found.rotation
    if np.isnan(norms).all():
        return None
    return {"mean": float(norms.mean()), "median": float(np.median(norms)), "largest": float(norms.max())}


def report(found: Evaluation) -> dict[str, Any]:
    """All of it for one set, as plain values."""
    return {
        "all": mean_errors(found) | {"structures": len(found.sources), "atoms": len(found.numbers)},
        "by source": by_source(found),
        "by element": by_element(found),
        "confidence": calibration(found),
        "rotational gradient": rotational(found),
    }
