"""The torch operators of orb_export: loads their library, tells compilers their shapes.

Schema, CPU kernel and derivatives are C++ (cpp/src/ops), so that a process without Python has them too.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["library_path", "radius_graph", "splits_products"]

_LIBRARY = "liborb_export_runtime.so"


def library_path() -> Path:
    """The shared library that registers the operators when it is loaded, for hosts without Python too.

    Raises ImportError when orb_export was installed without its compiled part.
    """
    core = importlib.util.find_spec("orb_export._core")
    if core is None or core.origin is None:
        raise ImportError("ops: the compiled module `orb_export._core` is missing; reinstall orb_export")
    path = Path(core.origin).parent / "lib" / _LIBRARY
    if not path.is_file():
        raise ImportError(f"ops: {path} is missing; reinstall orb_export")
    return path


torch.ops.load_library(library_path())  # type: ignore[no-untyped-call]


def splits_products() -> bool:
    """Whether precision float32-split computes three bfloat16 products for each float32 one in this process.

    True on processors with AMX; elsewhere plain float32 is faster, and that is what is computed. The
    environment variable ORB_EXPORT_SPLIT (auto, always, never) decides otherwise; it is read once. Raises
    ValueError for other values.
    """
    result: bool = torch.ops.orb_export.splits_products()
    return result


def radius_graph(
    positions: Tensor, cell: Tensor, periodic: Tensor, cutoff: float, max_neighbors: int
) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs closer than `cutoff`, at most `max_neighbors` nearest per center (negative: no cap).

    positions (N, 3) float64 and cell (3, 3) float64, rows are lattice vectors, in angstrom; periodic (3,)
    bool, per lattice vector: rows of open axes are ignored. Atoms may lie anywhere relative to the cell.

    Returns edges (2, E) int64: centers and neighbors, shifts (E, 3) int64, and vectors (E, 3) float64 =
    positions[neighbors] + shifts @ cell - positions[centers], sorted by center and distance; neighbors whose
    distances agree within `contract.TIE_TOLERANCE` are sorted by vector . `contract.TIE_DIRECTION`.
    Vectors are twice differentiable with respect to positions and cell. Raises ValueError and TypeError.
    """
    edges, shifts, vectors = torch.ops.orb_export.radius_graph(
        positions, cell, periodic, cutoff, max_neighbors
    )
    return edges, shifts, vectors


@torch.library.register_fake("orb_export::radius_graph")  # type: ignore[untyped-decorator]
def _radius_graph_fake(
    positions: Tensor, cell: Tensor, periodic: Tensor, cutoff: float, max_neighbors: int
) -> tuple[Tensor, Tensor, Tensor]:
    n_edges = torch.library.get_ctx().new_dynamic_size()
    edges = positions.new_empty((2, n_edges), dtype=torch.int64)
    shifts = positions.new_empty((n_edges, 3), dtype=torch.int64)
    vectors = positions.new_empty((n_edges, 3))
    return edges, shifts, vectors
