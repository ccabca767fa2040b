"""Atoms and their directed edges as one immutable value, and the functions that make it.

Shapes: N atoms, E edges, B graphs. Lengths in angstrom. Rows of a cell are lattice vectors. Edge e runs from
`centers[e]` to `neighbors[e]`; vectors[e] = position of the neighbor, in its image, minus that of the center.
"""

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from orb_export.contract import CUTOFF, MAX_ATOMIC_NUMBER

if TYPE_CHECKING:
    from ase import Atoms


class Graph(NamedTuple):
    """A batch of B systems; edges join atoms of one system only. Usable in TorchScript."""

    numbers: Tensor  # (N,) int64 atomic numbers
    centers: Tensor  # (E,) int64
    neighbors: Tensor  # (E,) int64
    vectors: Tensor  # (E, 3) float64
    batch: Tensor  # (N,) int64 graph of each atom, ascending
    counts: Tensor  # (B,) int64 atoms of each graph
    charge: Tensor  # (B,) float64 total charge
    spin: Tensor  # (B,) float64 multiplicity 2S+1; 0 for "not given"
    cell: Tensor  # (B, 3, 3) float64, zero when there is none
    positions: Tensor  # (N, 3) float64 as given; direct models without a cell remove the torque about them

    def to_device(self, device: torch.device | str) -> "Graph":
        """The same graph on another device."""
        return Graph(*(tensor.to(device) for tensor in self))


def _array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"graph: `{name}` has shape {array.shape} but must have shape {shape}")
    if not np.isfinite(array).all():
        row = np.argwhere(~np.isfinite(array))[0][0]
        raise ValueError(f"graph: `{name}` has {array[row]} in row {row} but must be finite")
    return array


def _checked_numbers(value: ArrayLike) -> np.ndarray:
    numbers = np.asarray(value)
    if numbers.ndim != 1 or numbers.shape[0] == 0 or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(
            f"graph: `numbers` has shape {numbers.shape} and type {numbers.dtype} but must be a list of "
            "at least one integer"
        )
    bad = np.flatnonzero((numbers < 1) | (numbers > MAX_ATOMIC_NUMBER))
    if bad.size:
        raise ValueError(
            f"graph: `numbers` is {numbers[bad[0]]} at atom {bad[0]} but must be within "
            f"1..{MAX_ATOMIC_NUMBER}"
        )
    return numbers.astype(np.int64)


def _checked_periodic(value: ArrayLike, cell: np.ndarray) -> np.ndarray:
    periodic = np.asarray(value)
    if periodic.dtype != np.bool_ or periodic.shape not in ((), (3,)):
        raise ValueError(f"graph: `periodic` is {value!r} but must be one or three booleans")
    periodic = np.broadcast_to(periodic, (3,)).copy()
    vectors = cell[periodic]
    lengths = np.linalg.norm(vectors, axis=1)
    # independent means: the parallelepiped of the unit vectors has a volume
    flat = not (lengths > 0).all()
    if len(vectors) and not flat:
        units = vectors / lengths[:, None]
        flat = np.linalg.matrix_rank(units, tol=1e-8) < len(vectors)
    if flat:
        raise ValueError(
            f"graph: `cell` is {cell.tolist()} but must have non-zero and independent lattice vectors "
            f"along the periodic axes {periodic.tolist()}"
        )
    return periodic


def checked_charge_spin(charge: object, spin: object) -> tuple[float, float]:
    """Both as floats: charge in e, multiplicity 2S+1 or 0 for "not given". Raises TypeError, ValueError."""
    for name, value in (("charge", charge), ("spin", spin)):
        # numpy's integers and floats are registered as Real, its booleans are not
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"graph: `{name}` is {value!r} but must be a number")
        if not np.isfinite(float(value)):
            raise ValueError(f"graph: `{name}` is {value} but must be finite")
    assert isinstance(charge, Real)
    assert isinstance(spin, Real)
    if float(spin) < 0:
        raise ValueError(f"graph: `spin` is {spin} but must be a multiplicity 2S+1, or 0 for unknown")
    return float(charge), float(spin)


def _single(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    edges: Sequence[Tensor],
    charge: float,
    spin: float,
) -> Graph:
    """One checked system; `edges` are centers, neighbors and vectors, which the graph takes over uncopied."""
    charge, spin = checked_charge_spin(charge, spin)
    centers, neighbors, vectors = edges
    return Graph(
        numbers=torch.from_numpy(numbers),
        centers=centers,
        neighbors=neighbors,
        vectors=vectors,
        batch=torch.zeros(len(numbers), dtype=torch.int64),
        counts=torch.tensor([len(numbers)]),
        charge=torch.tensor([charge], dtype=torch.float64),
        spin=torch.tensor([spin], dtype=torch.float64),
        cell=torch.from_numpy(cell[None].copy()),
        positions=torch.from_numpy(positions.copy()),
    )


def from_edges(
    numbers: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike | None,
    centers: ArrayLike,
    neighbors: ArrayLike,
    vectors: ArrayLike,
    *,
    charge: float = 0.0,
    spin: float = 1.0,
) -> Graph:
    """A graph from edges that are known already; nothing about them is checked but the shapes."""
    checked = _checked_numbers(numbers)
    x = _array("positions", positions, (len(checked), 3))
    box = np.zeros((3, 3)) if cell is None else _array("cell", cell, (3, 3))
    n_edges = len(np.asarray(centers))
    edges = (
        torch.from_numpy(np.array(centers, dtype=np.int64).reshape(n_edges)),
        torch.from_numpy(np.array(neighbors, dtype=np.int64).reshape(n_edges)),
        torch.from_numpy(np.array(vectors, dtype=np.float64).reshape(n_edges, 3)),
    )
    return _single(checked, x, box, edges, charge, spin)


def from_arrays(
    numbers: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike | None = None,
    periodic: ArrayLike = False,
    *,
    max_neighbors: int,
    cutoff: float = CUTOFF,
    charge: float = 0.0,
    spin: float = 1.0,
) -> Graph:
    """The graph of one system: (N,) atomic numbers, (N, 3) positions, (3, 3) cell, one or three flags.

    Any combination of `periodic` flags is allowed: images are made along periodic axes only, so a slab is
    (True, True, False) and needs no vacuum. The lattice vector of an open axis makes no images, but counts as
    part of the cell (stress is per volume of all three). Positions may lie anywhere, also outside the cell.
    Each center keeps its `max_neighbors` nearest neighbors within `cutoff`. Raises ValueError and TypeError.
    """
    from orb_export.ops import radius_graph  # the only user of the compiled library here

    checked = _checked_numbers(numbers)
    x = _array("positions", positions, (len(checked), 3))
    box = np.zeros((3, 3)) if cell is None else _array("cell", cell, (3, 3))
    flags = _checked_periodic(periodic, box)
    edges, _, vectors = radius_graph(
        torch.from_numpy(x.copy()),
        torch.from_numpy(box.copy()),
        torch.from_numpy(flags),
        cutoff,
        max_neighbors,
    )
    if len(vectors) and bool((vectors == 0).all(1).any()):
        first, second = edges[:, (vectors == 0).all(1)][:, 0].tolist()
        raise ValueError(
            f"graph: `positions` of atoms {first} and {second} are both {x[first].tolist()} (or images) "
            "but atoms must not coincide"
        )
    return _single(checked, x, box, (edges[0], edges[1], vectors), charge, spin)


def from_atoms(
    atoms: "Atoms", max_neighbors: int, cutoff: float = CUTOFF, *, needs_charge_spin: bool = False
) -> Graph:
    """The graph of an ASE structure.

    With `needs_charge_spin` (models conditioned on them), total charge and multiplicity are read from
    `atoms.info["charge"]` and `atoms.info["spin"]`, which must be there. Raises ValueError and TypeError.
    """
    missing = [name for name in ("charge", "spin") if name not in atoms.info]
    if needs_charge_spin and missing:
        raise ValueError(
            f"graph: `atoms.info` lacks {missing} but this model needs the total charge as info['charge'] "
            "and the spin multiplicity 2S+1 as info['spin']"
        )
    charge, spin = (
        (atoms.info.get("charge", 0.0), atoms.info.get("spin", 1.0)) if needs_charge_spin else (0.0, 1.0)
    )
    return from_arrays(
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        max_neighbors=max_neighbors,
        cutoff=cutoff,
        charge=charge,
        spin=spin,
    )


def batch_graphs(graphs: Sequence[Graph]) -> Graph:
    """Put graphs side by side; the result does not connect them."""
    if not graphs:
        raise ValueError("batch_graphs: `graphs` is empty but must hold at least one graph")
    atom_offsets = np.cumsum([0, *(len(graph.numbers) for graph in graphs)])
    graph_offsets = np.cumsum([0, *(len(graph.counts) for graph in graphs)])
    shifted = [
        graph._replace(
            centers=graph.centers + int(atoms),
            neighbors=graph.neighbors + int(atoms),
            batch=graph.batch + int(index),
        )
        for graph, atoms, index in zip(graphs, atom_offsets[:-1], graph_offsets[:-1], strict=True)
    ]
    return Graph(*(torch.cat(tensors) for tensors in zip(*shifted, strict=True)))
