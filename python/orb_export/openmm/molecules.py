"""Which atoms form molecules, and molecules in one piece.

A barostat that scales molecules and a trajectory that wraps them need bonds, and molecules that are not cut
by the box. The model needs neither.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

_STRETCH = 1.15  # of the sum of two covalent radii, up to which atoms count as bonded
# Bonds of these elements make molecules; anything with a metal is taken for a solid or an ion.
_NONMETALS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53)


def neighbor_pairs(
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    box: NDArray[np.float64] | None,
    periodic: tuple[bool, bool, bool] | NDArray[np.bool_],
    stretch: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Pairs nearer than `stretch` times the sum of their covalent radii, every pair in both directions.

    Lengths in angstrom. Returns centers (P,), neighbors (P,), vectors (P, 3) and the distance of each pair as
    a part of that sum (P,). An atom may be its own neighbor, through the box.
    """
    from ase.data import covalent_radii
    from ase.neighborlist import primitive_neighbor_list

    radii = covalent_radii[numbers]
    if box is None:  # a box that fits is not needed, but makes the search linear
        box, positions = np.diag(np.ptp(positions, axis=0) + 1.0), positions - positions.min(axis=0)
    centers, neighbors, vectors = primitive_neighbor_list(
        "ijD", np.array(periodic), box, positions, radii * stretch, self_interaction=False
    )
    distances = np.linalg.norm(vectors, axis=1)
    return centers, neighbors, vectors, distances / (radii[centers] + radii[neighbors])


def molecular_bonds(atoms: "Atoms") -> list[tuple[int, int]]:
    """Pairs of bonded atoms of finite molecules made of nonmetals, by distance.

    Whatever is connected to its own periodic image is a solid and gets no bonds.
    """
    first, second, vectors, _ = neighbor_pairs(
        atoms.numbers, atoms.positions, atoms.cell.array if atoms.pbc.any() else None, atoms.pbc, _STRETCH
    )
    kept = np.isin(atoms.numbers[first], _NONMETALS) & np.isin(atoms.numbers[second], _NONMETALS)
    first, second, vectors = first[kept], second[kept], vectors[kept]
    labels, offsets = _walk(len(atoms), first, second, vectors)
    cut = np.linalg.norm(offsets[second] - offsets[first] - vectors, axis=1) > 1e-6
    solid = np.isin(labels, labels[first[cut]])
    return [(int(i), int(j)) for i, j in zip(first, second, strict=True) if i < j and not solid[i]]


def made_whole(
    positions: NDArray[np.float64], box: NDArray[np.float64], bonds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Positions (N, 3) with every molecule in one piece: bonded atoms at their nearest images.

    `bonds` (M, 2); `box` (3, 3) lower triangular and reduced, in the unit of the positions.
    """
    vectors = nearest_image(positions[bonds[:, 1]] - positions[bonds[:, 0]], box)
    first, second = np.concatenate([bonds, bonds[:, ::-1]]).T
    labels, offsets = _walk(len(positions), first, second, np.concatenate([vectors, -vectors]))
    return positions[labels] + offsets


def nearest_image(vectors: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (M, 3) shortened by multiples of the vectors of a lower triangular, reduced box."""
    vectors = vectors.copy()
    for axis in (2, 1, 0):
        vectors -= np.round(vectors[:, axis] / box[axis, axis])[:, None] * box[axis]
    return vectors


def _walk(
    count: int, first: NDArray[np.int64], second: NDArray[np.int64], vectors: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Root of each atom's molecule (N,), and its place relative to the root along the bonds (N, 3)."""
    order = np.argsort(first, kind="stable")
    starts = np.searchsorted(first[order], np.arange(count + 1))
    labels, offsets = np.full(count, -1), np.zeros((count, 3))
    for root in range(count):
        if labels[root] >= 0:
            continue
        labels[root], stack = root, [root]
        while stack:
            atom = stack.pop()
            for pair in order[starts[atom] : starts[atom + 1]]:
                other = second[pair]
                if labels[other] < 0:
                    labels[other], offsets[other] = root, offsets[atom] + vectors[pair]
                    stack.append(other)
    return labels, offsets
