"""The order of the data: batches by edge count, the same for any number of processes and workers.

Everything random is derived from the seed of the run and a place in it (epoch, structure), so a checkpoint
needs only the number of batches behind it, and a resumed run continues bit for bit.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from orb_export.graph import Graph

from .catalog import Catalog, StructureSet
from .config import DenoisingOptions
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
        self, graph: Graph, labels: Labels, *, noise: Tensor | None, counts: bool, rows: Sequence[int]
    ):
        self.graph, self.labels = graph, labels
        self.noise = noise  # (N, 3) in units of its width, which was added to the positions; for denoising
        self.counts = counts  # False: only keeps the process in step with the others
        self.rows = rows

    def to(self, device: torch.device | str, **_: Any) -> "Batch":
        """The same on another device; Lightning calls it."""
        labels = Labels(*(tensor.to(device) for tensor in self.labels))
        graph = self.graph.to_device(device)
        noise = None if self.noise is None else self.noise.to(device)
        return Batch(graph, labels, noise=noise, counts=self.counts, rows=self.rows)


def group_by_edges(order: Sequence[int], edges: Sequence[int], max_edges: int) -> Iterator[list[int]]:
    """Successive parts of `order`, indices into `edges`, with at most `max_edges` edges each.

    A structure larger than that is a batch of its own.
    """
    batch: list[int] = []
    total = 0
    for index in order:
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
    """All batches of a run, in order, for one of `processes`; iteration begins at batch `start`.

    With `balance` b, a structure of a source of n structures is used (N / n)^b times in an epoch, on average,
    where N is the size of the largest source.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        max_edges: int,
        epochs: int,
        seed: int,
        balance: float = 0.0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.rows, self.edges = catalog.rows.tolist(), catalog.n_edges.tolist()
        self.max_edges, self.epochs, self.seed = max_edges, epochs, seed
        self.rank, self.processes, self.start = rank, processes, 0
        self.repeats = _repeats(catalog, balance)
        # kept as flat arrays: a list of lists would cost a hundred times as much for a large set
        ends: list[NDArray[np.int64]] = []
        self.batches_in_epoch = [self._group(epoch, ends) for epoch in range(epochs)]
        self._ends = ends

    def _order(self, epoch: int) -> list[int]:
        """Indices into the catalog in the order of their use."""
        generator = torch.Generator().manual_seed(_mixed(self.seed, epoch))
        uses = torch.arange(len(self.edges))
        if self.repeats is not None:
            chance = torch.rand(len(uses), generator=generator, dtype=torch.float64)
            uses = uses.repeat_interleave((self.repeats + chance).to(torch.int64))
        order: list[int] = uses[torch.randperm(len(uses), generator=generator)].tolist()
        return order

    def _group(self, epoch: int, ends: list[NDArray[np.int64]]) -> int:
        sizes = [len(batch) for batch in group_by_edges(self._order(epoch), self.edges, self.max_edges)]
        ends.append(np.cumsum(sizes))
        return len(sizes)

    def __len__(self) -> int:
        return sum(self.batches_in_epoch)

    def batches_of_epoch(self, epoch: int) -> list[list[int]]:
        """Indices into the catalog, for all processes together."""
        order = self._order(epoch)
        ends = self._ends[epoch].tolist()
        return [order[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]

    def __iter__(self) -> Iterator[list[Ticket]]:
        skip = self.start
        for epoch, count in enumerate(self.batches_in_epoch):
            if skip < count:
                uses: Counter[int] = Counter()
                for number, members in enumerate(self.batches_of_epoch(epoch)):
                    seeds = [self._seed(epoch, index, uses) for index in members]
                    if number >= skip:
                        yield self._share(members, seeds)
            skip = max(0, skip - count)

    def _seed(self, epoch: int, index: int, uses: Counter[int]) -> int:
        """Of the next use of a structure in an epoch; `uses` counts those before."""
        again = [uses[index]] if uses[index] else []
        uses[index] += 1
        return _mixed(self.seed, epoch, self.rows[index], *again)

    def _share(self, members: list[int], seeds: list[int]) -> list[Ticket]:
        """The part of this process: heaviest first, each to the process with the fewest edges so far."""
        batch = list(zip(members, seeds, strict=True))
        if self.processes > 1:
            batch.sort(key=lambda use: (-self.edges[use[0]], use))
        loads = [0] * self.processes
        shares: list[list[tuple[int, int]]] = [[] for _ in loads]
        for index, seed in batch:
            lightest = min(range(self.processes), key=lambda r: (loads[r], r))
            shares[lightest].append((index, seed))
            loads[lightest] += self.edges[index]
        mine, counts = shares[self.rank] or batch[:1], bool(shares[self.rank])
        return [Ticket(self.rows[index], seed, counts) for index, seed in mine]


def _repeats(catalog: Catalog, balance: float) -> Tensor | None:
    """(M,) mean number of uses of a structure in an epoch; None: once each."""
    if not balance:
        return None
    _, source, sizes = np.unique(catalog.sources, return_inverse=True, return_counts=True)
    return torch.from_numpy((sizes.max() / sizes[source]) ** balance)


class Use(NamedTuple):
    """A structure as one batch shows it."""

    sample: Sample
    noise: Tensor | None  # (N, 3)
    ticket: Ticket


class _Uses(torch.utils.data.Dataset[Use]):
    """Structures by ticket, turned at random and, for denoising, with atoms displaced at random."""

    def __init__(self, structures: StructureSet, rotate: bool, denoising: DenoisingOptions | None) -> None:
        self.structures, self.rotate, self.denoising = structures, rotate, denoising

    def __getitem__(self, ticket: Any) -> Use:
        generator = torch.Generator().manual_seed(ticket.seed)
        if self.denoising is not None:
            sample, noise = _noised(self.structures, ticket.row, self.denoising, generator)
        else:
            sample, noise = self.structures[ticket.row], None
        if self.rotate:
            rotation = random_rotation(generator)
            sample = sample.rotated(rotation)
            noise = None if noise is None else noise @ rotation
        return Use(sample, noise, ticket)


def _noised(
    structures: StructureSet, row: int, options: DenoisingOptions, generator: torch.Generator
) -> tuple[Sample, Tensor]:
    """A structure with displaced atoms and new edges, and the noise in units of its width."""
    atoms = structures.frames[row].copy()
    low, high = math.log(options.min_sigma), math.log(options.max_sigma)
    width = math.exp(low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64)))
    noise = torch.randn(len(atoms), 3, generator=generator, dtype=torch.float64)
    if len(atoms) > 1:
        noise -= noise.mean(dim=0)  # a shift of the whole cannot be seen
    atoms.positions += width * noise.numpy()
    return structures.sample_of(atoms, row), noise


def _collate(uses: Sequence[Use]) -> Batch:
    samples, noises, tickets = zip(*uses, strict=True)
    graph, labels = collate(samples)
    noise = None if noises[0] is None else torch.cat(noises)
    rows = [ticket.row for ticket in tickets]
    return Batch(graph, labels, noise=noise, counts=tickets[0].counts, rows=rows)


class TrainingLoader(DataLoader[Any]):
    """Batches of a plan; its state is the number of batches that have been handed out."""

    def __init__(
        self,
        structures: StructureSet,
        plan: Plan,
        *,
        rotate: bool,
        workers: int,
        denoising: DenoisingOptions | None = None,
    ) -> None:
        uses = _Uses(structures, rotate, denoising)
        super().__init__(uses, batch_sampler=plan, num_workers=workers, collate_fn=_collate)
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
    structures: StructureSet,
    catalog: Catalog,
    max_edges: int,
    workers: int,
    denoising: DenoisingOptions | None = None,
) -> DataLoader[Any]:
    """Batches of a held-out part in its order, unturned; noise is the same every time."""
    batches: list[list[Ticket]] = [[]]
    total = 0
    for row, edges in zip(catalog.rows.tolist(), catalog.n_edges.tolist(), strict=True):
        if batches[-1] and total + edges > max_edges:
            batches.append([])
            total = 0
        batches[-1].append(Ticket(row, row, True))
        total += edges
    uses = _Uses(structures, False, denoising)
    return DataLoader(uses, batch_sampler=batches, num_workers=workers, collate_fn=_collate)
