"""Brute-force radius graph: every atom against every image of every atom. Slow, obvious, independent.

Follows the rule of contract.py, not the code of the kernel: no grid, no lattice reduction, no wrapping.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from orb_export import contract

RIM = 1e-9  # angstrom; pairs this close to the cutoff count as outside


def radius_graph(
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    periodic: NDArray[np.bool_],
    cutoff: float,
    max_neighbors: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Edges (2, E), shifts (E, 3) and vectors (E, 3), in the order of the rule; negative cap: none."""
    images = _images(positions, cell, periodic, cutoff)  # (S, 3)
    translations = images @ np.where(np.asarray(periodic)[:, None], cell, 0.0)  # (S, 3)
    edges, shifts, vectors = [], [], []
    for center in range(len(positions)):
        candidates = positions[None, :] + translations[:, None] - positions[center]  # (S, N, 3)
        distances = np.linalg.norm(candidates, axis=-1)
        distances[np.all(images == 0, axis=1), center] = np.inf
        image, neighbor = np.nonzero(distances < cutoff - RIM)
        order = _order(candidates[image, neighbor], neighbor, images[image])
        if max_neighbors >= 0:
            order = order[:max_neighbors]
        edges.append(np.stack([np.full(len(order), center), neighbor[order]]))
        shifts.append(images[image[order]])
        vectors.append(candidates[image[order], neighbor[order]])
    if not edges:
        return np.zeros((2, 0), int), np.zeros((0, 3), int), np.zeros((0, 3))
    return np.concatenate(edges, axis=1), np.concatenate(shifts), np.concatenate(vectors)


def _images(
    positions: NDArray[np.float64], cell: NDArray[np.float64], periodic: NDArray[np.bool_], cutoff: float
) -> NDArray[np.int64]:
    """Lattice translations that can bring any two atoms within the cutoff.

    A pair with |x_j + n . cell - x_i| < cutoff has |n_k| <= cutoff * |g_k| + |(x_i - x_j) . g_k| with g the
    dual vectors of the periodic rows within their span.
    """
    rows = [k for k in range(3) if periodic[k]]
    if not rows or len(positions) == 0:
        return np.zeros((1, 3), dtype=np.int64)
    dual = np.linalg.pinv(cell[rows])  # (3, P): columns are the dual vectors
    fractional = positions @ dual  # (N, P)
    spread = fractional.max(axis=0) - fractional.min(axis=0)
    bounds = np.ceil(cutoff * np.linalg.norm(dual, axis=0) + spread).astype(int)
    axes = [[0], [0], [0]]
    for row, bound in zip(rows, bounds, strict=True):
        axes[row] = list(range(-bound, bound + 1))
    return np.array(list(product(*axes)), dtype=np.int64)


def _order(
    vectors: NDArray[np.float64], neighbors: NDArray[np.int64], shifts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """By distance; chains of distances closer than the tolerance by projection, then by index and shift."""
    distances = np.linalg.norm(vectors, axis=-1)
    shell = np.empty(len(vectors), dtype=np.int64)
    by_distance = np.argsort(distances, kind="stable")
    gaps = np.diff(distances[by_distance], prepend=0.0)
    shell[by_distance] = np.cumsum(gaps >= contract.TIE_TOLERANCE)
    projections = vectors @ np.array(contract.TIE_DIRECTION)
    return np.lexsort((*shifts.T[::-1], neighbors, projections, shell))
