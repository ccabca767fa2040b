"""A system cut into parts, each evaluated by a thread as if it were a process of its own.

A part has rows for its own atoms, then for ghosts: every image of any atom that its edges touch, images of
own atoms included, as LAMMPS has them. `ThreadExchange` is the communication between the parts.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from orb_export import _core, artefact
from orb_export.contract import CUTOFF

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass
class System:
    """Atoms and edges of a whole system."""

    atoms: Atoms
    centers: Ints
    neighbors: Ints
    shifts: Ints
    vectors: Doubles

    @property
    def cell(self) -> Doubles:
        return np.ascontiguousarray(self.atoms.cell.array)

    def arguments(self) -> tuple[Any, ...]:
        """Of `_core.Potential.evaluate`."""
        return (
            *(self.atoms.numbers.astype(np.int64), self.centers, self.neighbors, self.vectors),
            *(self.atoms.positions, self.cell),
        )


def system(atoms: Atoms, cap: int) -> System:
    """The system with its radius graph."""
    edges, shifts, vectors = _core.radius_graph(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF, cap)
    return System(atoms, edges[0], edges[1], np.asarray(shifts, dtype=np.int64), vectors)


@dataclass
class Part:
    """Rows and edges of one part."""

    own: Ints  # atoms of the first rows
    ghosts: list[tuple[int, tuple[int, int, int]]] = field(
        default_factory=list
    )  # atom and image of the others
    edges: list[int] = field(default_factory=list)  # of the whole system, own centers first
    centers: list[int] = field(default_factory=list)  # rows
    neighbors: list[int] = field(default_factory=list)
    n_ghost_edges: int = 0

    @property
    def n_rows(self) -> int:
        return len(self.own) + len(self.ghosts)


HOME = (0, 0, 0)


def cut(whole: System, owners: Ints, n_parts: int, redundant: bool) -> list[Part]:
    """Parts of a system; `owners` (N,) is the part of each atom."""
    parts = [Part(np.flatnonzero(owners == p)) for p in range(n_parts)]
    for p, part in enumerate(parts):
        rows = {(int(atom), HOME): row for row, atom in enumerate(part.own)}

        def row(atom: int, image: tuple[int, int, int], rows: Any = rows, part: Part = part) -> int:
            if (atom, image) not in rows:
                rows[atom, image] = part.n_rows
                part.ghosts.append((atom, image))
            return rows[atom, image]

        ghost_edges = []
        for e, (c, n) in enumerate(zip(whole.centers.tolist(), whole.neighbors.tolist(), strict=True)):
            shift = whole.shifts[e]
            if owners[c] == p:
                part.edges.append(e)
                part.centers.append(row(c, HOME))
                part.neighbors.append(row(n, tuple(shift.tolist())))
            if redundant and owners[n] == p and (owners[c] != p or shift.any()):
                ghost_edges.append((row(c, tuple((-shift).tolist())), row(n, HOME), e))
        for center, neighbor, e in sorted(ghost_edges):
            part.edges.append(e)
            part.centers.append(center)
            part.neighbors.append(neighbor)
        part.n_ghost_edges = len(ghost_edges)
    return parts


class Meeting:
    """What the exchanges of all parts share: where ghosts live, a barrier, a board to write on."""

    def __init__(self, parts: Sequence[Part], seconds: float = 60.0) -> None:
        self.homes = [
            [
                next(
                    (q, int(np.flatnonzero(other.own == atom)[0]))
                    for q, other in enumerate(parts)
                    if atom in other.own
                )
                for atom, _ in part.ghosts
            ]
            for part in parts
        ]
        self.n_own = [len(part.own) for part in parts]
        self.board: list[Any] = [None] * len(parts)
        self.barrier = threading.Barrier(len(parts), timeout=seconds)


class ThreadExchange(_core.Exchange):
    """The exchange of one part."""

    def __init__(self, meeting: Meeting, part: int) -> None:
        super().__init__()
        self.meeting = meeting
        self.part = part
        self.calls: list[tuple[str, int, str]] = []

    def _all(self, name: str, mine: NDArray[Any]) -> list[NDArray[Any]]:
        """Arrays of all parts; nobody changes his own before everyone has read, see `_done`."""
        self.calls.append((name, mine.shape[-1], str(mine.dtype)))
        self.meeting.board[self.part] = mine
        self.meeting.barrier.wait()
        return list(self.meeting.board)

    def _done(self) -> None:
        self.meeting.barrier.wait()

    def forward(self, rows: NDArray[Any]) -> None:
        n_own, everyone = self.meeting.n_own[self.part], self._all("forward", rows)
        for ghost, (part, row) in enumerate(self.meeting.homes[self.part]):
            rows[n_own + ghost] = everyone[part][row]
        self._done()

    def reverse_add(self, rows: NDArray[Any]) -> None:
        everyone = self._all("reverse_add", rows)
        total = rows[: self.meeting.n_own[self.part]].copy()
        for part, homes in enumerate(self.meeting.homes):
            for ghost, (home, row) in enumerate(homes):
                if home == self.part:
                    total[row] += everyone[part][self.meeting.n_own[part] + ghost]
        self._done()
        rows[: len(total)] = total
        rows[len(total) :] = np.nan  # they may hold anything: nobody may read them

    def sum(self, values: NDArray[Any]) -> None:
        total = np.sum(self._all("sum", values), axis=0)
        self._done()
        values[:] = total


def evaluate(
    potential: artefact.Potential,
    whole: System,
    parts: Sequence[Part],
    redundant: bool,
    make_exchange: Callable[[Meeting, int], ThreadExchange] = ThreadExchange,
    changes: dict[int, dict[str, Any]] | None = None,
    **options: Any,
) -> list[Any]:
    """Results of all parts, each a dictionary or the exception that ended it.

    `changes` of a part replace arguments of its evaluation.
    """
    meeting = Meeting(parts)
    results: list[Any] = [None] * len(parts)

    def run(p: int) -> None:
        part = parts[p]
        atoms = [*part.own.tolist(), *(atom for atom, _ in part.ghosts)]
        images = np.array([HOME] * len(part.own) + [image for _, image in part.ghosts]).reshape(-1, 3)
        arguments = {
            "numbers": whole.atoms.numbers[atoms].astype(np.int64),
            "centers": np.array(part.centers, dtype=np.int64),
            "neighbors": np.array(part.neighbors, dtype=np.int64),
            "vectors": whole.vectors[part.edges].reshape(-1, 3),
            "positions": whole.atoms.positions[atoms] + images @ whole.cell,
            "cell": whole.cell,
            "n_ghosts": len(part.ghosts),
            "n_ghost_edges": part.n_ghost_edges,
            "redundant": redundant,
            "exchange": make_exchange(meeting, p),
            **options,
            **(changes or {}).get(p, {}),
        }
        try:
            results[p] = potential._compiled.evaluate(**arguments)
        except Exception as error:
            results[p] = error

    threads = [threading.Thread(target=run, args=(p,)) for p in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


GLOBAL = ("energy", "stress", "strain_gradient")
OF_ATOMS = ("forces", "confidence", "atom_energies", "atom_virials")


def joined(results: Sequence[dict[str, Any]], parts: Sequence[Part]) -> dict[str, Any]:
    """The result of the whole system; global ones must be the same bits in all parts."""
    n_atoms = sum(len(part.own) for part in parts)
    whole: dict[str, Any] = {}
    for name, value in results[0].items():
        if name in GLOBAL:
            assert all(np.array_equal(result[name], value) for result in results), name
            whole[name] = value
        elif name in OF_ATOMS:
            whole[name] = np.full((n_atoms, *np.shape(value)[1:]), np.nan)
            for result, part in zip(results, parts, strict=True):
                whole[name][part.own] = result[name]
    return whole
