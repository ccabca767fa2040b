"""The order of the data: batches by edge count, the same for any number of processes and workers.

Everything random is derived from the seed of the run and a place in it (epoch, structure), so a checkpoint
needs only the number of batches behind it, and a resumed run continues bit for bit.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from orb_export.graph import Graph

from .catalog import Catalog, StructureSet
from .data import Labels, Sample, collate, random_rotation


class Ticket(NamedTuple):
    """One use of one structure."""

    row: int  # of the structure in its set
    seed: int  # of what is random about this use
    counts: bool  # False: fills the batch of a process that would have none, with weight 0


class Batch:
    """What a process gets for a step.

    Not a tuple: Lightning would round the float64 tensors of a tuple to float32 in mixed precision.
    """

    def __init__(
        self, graph: Graph, labels: Labels, *, counts: bool, seeds: Sequence[int], rows: Sequence[int]
    ):
        self.graph, self.labels = graph, labels
        self.counts = counts  # False: only keeps the process in step with the others
        self.seeds, self.rows = seeds, rows

    def to(self, device: torch.device | str, **_: Any) -> "Batch":
        """The same on another device; Lightning calls it."""
        labels = Labels(*(tensor.to(device) for tensor in self.labels))
        graph = self.graph.to_device(device)
        return Batch(graph, labels, counts=self.counts, seeds=self.seeds, rows=self.rows)


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


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Plan(Sampler[list[Ticket]]):
    """All batches of a run, in order, for one of `processes`; iteration begins at batch `start`."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        max_edges: int,
        epochs: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.rows, self.edges = catalog.rows.tolist(), catalog.n_edges.tolist()
        self.max_edges, self.epochs, self.seed = max_edges, epochs, seed
        self.rank, self.processes, self.start = rank, processes, 0
        # kept as flat arrays: a list of lists would cost a hundred times as much for a large set
        ends: list[NDArray[np.int64]] = []
        self.batches_in_epoch = [self._group(epoch, ends) for epoch in range(epochs)]
        self._ends = ends

    def _order(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(_mixed(self.seed, epoch))

    def _group(self, epoch: int, ends: list[NDArray[np.int64]]) -> int:
        sizes = [len(batch) for batch in epoch_batches(self.edges, self.max_edges, self._order(epoch))]
        ends.append(np.cumsum(sizes))
        return len(sizes)

    def __len__(self) -> int:
        return sum(self.batches_in_epoch)

    def batches_of_epoch(self, epoch: int) -> list[list[int]]:
        """Indices into the catalog, for all processes together."""
        order = torch.randperm(len(self.edges), generator=self._order(epoch)).tolist()
        ends = self._ends[epoch].tolist()
        return [order[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]

    def __iter__(self) -> Iterator[list[Ticket]]:
        skip = self.start
        for epoch, count in enumerate(self.batches_in_epoch):
            if skip < count:
                for members in self.batches_of_epoch(epoch)[skip:]:
                    yield self._share(members, epoch)
            skip = max(0, skip - count)

    def _share(self, members: list[int], epoch: int) -> list[Ticket]:
        """The part of this process: heaviest first, each to the process with the fewest edges so far."""
        loads = [0] * self.processes
        shares: list[list[int]] = [[] for _ in loads]
        for index in sorted(members, key=lambda i: (-self.edges[i], i)) if self.processes > 1 else members:
            lightest = min(range(self.processes), key=lambda r: (loads[r], r))
            shares[lightest].append(index)
            loads[lightest] += self.edges[index]
        mine, counts = shares[self.rank] or members[:1], bool(shares[self.rank])
        return [
            Ticket(self.rows[index], _mixed(self.seed, epoch, self.rows[index]), counts) for index in mine
        ]


class _Uses(torch.utils.data.Dataset[tuple[Sample, Ticket]]):
    """Structures by ticket, turned at random."""

    def __init__(self, structures: StructureSet, rotate: bool) -> None:
        self.structures, self.rotate = structures, rotate

    def __getitem__(self, ticket: Any) -> tuple[Sample, Ticket]:
        sample = self.structures[ticket.row]
        if self.rotate:
            sample = sample.rotated(random_rotation(torch.Generator().manual_seed(ticket.seed)))
        return sample, ticket


def _collate(uses: Sequence[tuple[Sample, Ticket]]) -> Batch:
    samples, tickets = zip(*uses, strict=True)
    graph, labels = collate(samples)
    seeds, rows = [ticket.seed for ticket in tickets], [ticket.row for ticket in tickets]
    return Batch(graph, labels, counts=tickets[0].counts, seeds=seeds, rows=rows)


class TrainingLoader(DataLoader[Any]):
    """Batches of a plan; its state is the number of batches that have been handed out."""

    def __init__(self, structures: StructureSet, plan: Plan, *, rotate: bool, workers: int) -> None:
        super().__init__(
            _Uses(structures, rotate), batch_sampler=plan, num_workers=workers, collate_fn=_collate
        )
        self.plan, self.handed_out = plan, 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.handed_out = self.plan.start
        for batch in super().__iter__():
            self.handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """What Lightning keeps in a checkpoint."""
        return {"batches": self.handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next iteration begin where the checkpoint was written."""
        self.plan.start = state["batches"]


def evaluation_loader(
    structures: StructureSet, catalog: Catalog, max_edges: int, workers: int
) -> DataLoader[Any]:
    """Batches of a held-out part in its order, unturned."""
    batches: list[list[Ticket]] = [[]]
    total = 0
    for row, edges in zip(catalog.rows.tolist(), catalog.n_edges.tolist(), strict=True):
        if batches[-1] and total + edges > max_edges:
            batches.append([])
            total = 0
        batches[-1].append(Ticket(row, 0, True))
        total += edges
    uses = _Uses(structures, rotate=False)
    return DataLoader(uses, batch_sampler=batches, num_workers=workers, collate_fn=_collate)
