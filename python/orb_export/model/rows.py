"""Rows of a table by index, and sums of rows by index. Shapes: R rows with an index each, N rows of a table.

On a GPU torch adds rows up with atomics, in another order in every run, also in the gradient of a gather.
Inductor's programs get other sums from export/gpu_passes.py. In scripts indices are sorted, which takes
longer and gives the same bits in every run. In Python that is torch.use_deterministic_algorithms.
"""

import torch
from torch import Tensor


def _zeros(values: Tensor, n_rows: int) -> Tensor:
    return values.new_zeros([n_rows] + list(values.shape[1:]))  # noqa: RUF005 (scripts know no stars)


def gather_sorted(table: Tensor, index: Tensor) -> Tensor:
    """table[index], (N, ...), (R,) -> (R, ...), whose gradient is a `sum_sorted`."""
    indices: list[Tensor | None] = [index]
    gathered: Tensor = torch.ops.aten.index(table, indices)
    return gathered


def sum_sorted(values: Tensor, index: Tensor, n_rows: int) -> Tensor:
    """out[index[r]] += values[r], (R, ...), (R,) -> (N, ...); on a GPU in the same order in every run."""
    if n_rows == 1:
        return values.sum(0, keepdim=True)  # a sum of all in one row would be done by one thread
    total = _zeros(values, n_rows)
    indices: list[Tensor | None] = [index]
    # unsafe: indices are within bounds, and the check would wait for the device
    return torch._index_put_impl_(total, indices, values, accumulate=True, unsafe=True)


def gather_rows(table: Tensor, index: Tensor) -> Tensor:
    """table[index], (N, ...), (R,) -> (R, ...)."""
    if torch.jit.is_scripting() and table.is_cuda:  # type: ignore[attr-defined]
        return gather_sorted(table, index)
    return table.index_select(0, index)


def sum_rows(values: Tensor, index: Tensor, n_rows: int) -> Tensor:
    """out[index[r]] += values[r], (R, ...), (R,) -> (N, ...)."""
    if torch.jit.is_scripting() and values.is_cuda:  # type: ignore[attr-defined]
        return sum_sorted(values, index, n_rows)
    return _zeros(values, n_rows).index_add(0, index, values)
