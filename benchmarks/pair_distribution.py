"""Pair distribution functions of trajectories, and where their peaks are, with errors from blocks.

A peak is the maximum of a cubic fitted to g(r) around its largest bin.
"""

from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

BLOCKS = 5
BIN, LONGEST = 0.02, 6.2  # angstrom


class Peak(NamedTuple):
    """Maximum of a pair distribution function, with standard errors."""

    position: float  # angstrom
    height: float
    position_error: float
    height_error: float


def distances(frame: Atoms, first: int, second: int) -> NDArray[np.float64]:
    """Between nearest images of the atoms of two elements, (A, B), in angstrom; for orthorhombic cells."""
    if not frame.cell.orthorhombic:
        raise ValueError(f"distances: `frame` has cell {frame.cell} but must have an orthorhombic one")
    one, other = frame.positions[frame.numbers == first], frame.positions[frame.numbers == second]
    steps = other - one[:, None]
    lengths = frame.cell.lengths()
    return np.asarray(np.linalg.norm(steps - lengths * np.round(steps / lengths), axis=2))


def histogram(frame: Atoms, first: int, second: int) -> NDArray[np.float64]:
    """g(r) of one frame on the grid of bins."""
    found = distances(frame, first, second)
    count, edges = np.histogram(found[found > 0.1], np.arange(0, LONGEST + BIN / 2, BIN))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    pairs = len(found) * (found.shape[1] - (first == second))
    return np.asarray(count / shells * frame.get_volume() / pairs)


def radii() -> NDArray[np.float64]:
    edges = np.arange(0, LONGEST + BIN / 2, BIN)
    return np.asarray((edges[1:] + edges[:-1]) / 2)


def maximum(g: NDArray[np.float64], width: float, between: tuple[float, float]) -> tuple[float, float]:
    """Position and height of the peak: of a cubic fitted around the largest bin. ValueError without one."""
    r = radii()
    inside = (r > between[0]) & (r < between[1])
    top = r[inside][np.argmax(g[inside])]
    near = np.abs(r - top) <= width
    cubic = np.poly1d(np.polyfit(r[near] - top, g[near], 3))
    roots = [root.real for root in cubic.deriv().roots if abs(root.imag) < 1e-9 and abs(root.real) <= width]
    if not roots:
        raise ValueError(
            f"maximum: `g` has no peak within {width} angstrom of its largest value between {between[0]} and "
            f"{between[1]}: too few frames were sampled to find one"
        )
    best = max(roots, key=cubic)
    return float(top + best), float(cubic(best))


def peak(blocks: NDArray[np.float64], width: float, between: tuple[float, float]) -> Peak:
    """Of the mean over blocks (B, bins); errors by leaving out one block at a time (jackknife)."""
    n = len(blocks)
    parts = np.array([maximum(np.delete(blocks, k, axis=0).mean(axis=0), width, between) for k in range(n)])
    errors = np.sqrt((n - 1) / n * ((parts - parts.mean(axis=0)) ** 2).sum(axis=0))
    return Peak(*maximum(blocks.mean(axis=0), width, between), *errors)


def blocks_of(frames: list[Atoms], first: int, second: int) -> NDArray[np.float64]:
    """(BLOCKS, bins)"""
    parts = np.array_split(np.arange(len(frames)), BLOCKS)
    return np.array([np.mean([histogram(frames[k], first, second) for k in part], axis=0) for part in parts])
