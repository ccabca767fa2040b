"""Plots of a report: parity of energy, forces and stress, and calibration of the confidence head."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .report import GPA, Evaluation, calibration

MANY_POINTS = 20_000  # beyond, a random choice is drawn


def parity(found: Evaluation, path: Path, title: str) -> None:
    """Predictions over labels: energies, force components, stress components where there are labels; PNG."""
    panels = [
        ("energy, eV/atom", found.energy[:, 0], found.energy[:, 1]),
        ("force component, eV/Å", found.forces[:, :3].ravel(), found.forces[:, 3:].ravel()),
    ]
    labelled = np.isfinite(found.stress).all(axis=1)
    if labelled.any():
        stress = GPA * found.stress[labelled]
        panels.append(("stress component, GPa", stress[:, :6].ravel(), stress[:, 6:].ravel()))
    figure = Figure(figsize=(4.0 * len(panels), 4.0), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, label, predicted) in zip(axes, panels, strict=True):
        _parity_panel(axis, name, label, predicted)
    figure.suptitle(title)
    figure.savefig(path, dpi=150, metadata={"Software": f"matplotlib {matplotlib.__version__}"})


def _parity_panel(axis: Axes, name: str, label: NDArray[np.float64], predicted: NDArray[np.float64]) -> None:
    chosen = np.random.default_rng(0).permutation(len(label))[:MANY_POINTS]
    axis.plot(label[chosen], predicted[chosen], ".", markersize=2, alpha=0.5, rasterized=True)
    ends = [min(label.min(), predicted.min()), max(label.max(), predicted.max())]
    axis.plot(ends, ends, color="0.5", linewidth=0.8)
    axis.set(
        xlabel=f"label: {name}", ylabel="prediction", title=f"MAE {np.abs(predicted - label).mean():.3g}"
    )


def confidence(found: Evaluation, path: Path, title: str) -> None:
    """Found force error over expected force error, by predicted bin, areas as the number of atoms; PNG."""
    rows = calibration(found)
    expected, actual, atoms = (np.array([row[key] for row in rows]) for key in ("expected", "found", "atoms"))
    figure = Figure(figsize=(4.5, 4.0), layout="constrained")
    axis = figure.subplots()
    axis.scatter(expected, actual, s=4 + 100 * atoms / atoms.max())
    axis.plot([0, expected.max()], [0, expected.max()], color="0.5", linewidth=0.8)
    axis.set(xlabel="expected force error, eV/Å", ylabel="found force error, eV/Å", title=title)
    figure.savefig(path, dpi=150, metadata={"Software": f"matplotlib {matplotlib.__version__}"})
