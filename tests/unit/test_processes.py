"""A system cut into parts that exchange rows gives what the whole program gives.

Oracles: the whole program of the same artefact; for the exchange of the tests itself, its adjoint identity;
and tests/reference/ghost_shell.py, which needs no exchange because each part gets all that its atoms see.
"""

import re
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from orb_export import artefact
from orb_export.export import export_model, record, torchscript
from orb_export.model import OrbV3

from tests import partitions
from tests.accuracy import within
from tests.artefacts import forge_record, tiny_model
from tests.partitions import Meeting, Part, System, ThreadExchange
from tests.reference import ghost_shell

EXACT = 1e-11  # relative, float64: sums in another order
LAYERS = 3
SCHEMES = {"plain": False, "redundant": True}


class Made(NamedTuple):
    model: OrbV3
    potential: artefact.Potential


def make(folder: Path, kind: str, cap: int, dtype: torch.dtype = torch.float64) -> Made:
    model = tiny_model(kind, cap=cap, has_charge_spin=cap == 120, layers=LAYERS, dtype=dtype)
    file = folder / f"{kind}-{cap}.pt"
    export_model(model, file, format="torchscript", verified=False)
    return Made(model, artefact.load(file))


@pytest.fixture(
    scope="module",
    params=[(kind, cap) for kind in ("conservative", "direct") for cap in (20, 120)],
    ids=lambda case: "-".join(map(str, case)),
)
def made(request, tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("processes"), *request.param)


@pytest.fixture(scope="module")
def conservative(tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("processes"), "conservative", 20)


@pytest.fixture(scope="module")
def direct(tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("processes"), "direct", 20)


def crystal() -> Atoms:
    """A skewed cell thinner than the cutoff, atoms at random, some close enough to repel each other."""
    rng = np.random.default_rng(5)
    cell = np.array([[4.1, 0.0, 0.0], [1.3, 6.5, 0.0], [-0.7, 1.9, 9.0]])
    return Atoms(rng.choice([1, 8, 14], 24), scaled_positions=rng.random((24, 3)), cell=cell, pbc=True)


def cluster() -> Atoms:
    """Without cell, so that direct models lose their torque; far from the origin."""
    rng = np.random.default_rng(6)
    return Atoms(rng.choice([6, 7], 14), positions=40.0 + rng.uniform(0, 8, (14, 3)))


def owners(atoms: Atoms, n_parts: int) -> Any:
    """Neighbors often have another owner. The third part of four is empty."""
    parts = np.random.default_rng(7).integers(n_parts, size=len(atoms))
    return np.where(parts == 2, 1, parts) if n_parts == 4 else parts


def cut(whole: System, n_parts: int, redundant: bool) -> list[Part]:
    return partitions.cut(whole, owners(whole.atoms, n_parts), n_parts, redundant)


def whole_result(made: Made, whole: System, **options: Any) -> dict[str, Any]:
    results = made.potential._compiled.evaluate(*whole.arguments(), per_atom=True, **options)
    del results["memory"]
    return results


def worst(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Largest difference relative to the largest value of its quantity, or to 1 where that is smaller."""
    assert found.keys() == expected.keys()
    return max(
        np.abs(np.subtract(found[name], expected[name])).max() / max(1.0, np.abs(expected[name]).max())
        for name in expected
    )


def in_parts(made: Made, whole: System, n_parts: int, redundant: bool, **options: Any) -> dict[str, Any]:
    parts = cut(whole, n_parts, redundant)
    results = partitions.evaluate(made.potential, whole, parts, redundant, per_atom=True, **options)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return partitions.joined(results, parts)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n_parts", [1, 2, 3, 4])
def test_parts_give_what_the_whole_gives(made, n_parts, scheme):
    cap = made.model.config.max_neighbors
    for atoms in (crystal(), cluster()):
        whole = partitions.system(atoms, cap)
        found = in_parts(made, whole, n_parts, SCHEMES[scheme])
        error = worst(found, whole_result(made, whole))
        assert within("parts of a system and the whole, float64", scheme, error, EXACT)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kept", [(0, 0, 0), (0, 1, 1), (1, 1, 2), (2, 2, 2)], ids=str)
def test_parts_of_chunks_give_what_the_whole_gives(conservative, kept, scheme):
    whole = partitions.system(crystal(), 20)
    found = in_parts(conservative, whole, 4, SCHEMES[scheme], chunk=37, kept=kept)
    error = worst(found, whole_result(conservative, whole))
    assert within("parts of a system in chunks and the whole, float64", scheme, error, EXACT)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_energy_alone_needs_no_gradient(made, scheme):
    whole = partitions.system(crystal(), made.model.config.max_neighbors)
    found = in_parts(made, whole, 3, SCHEMES[scheme], forces=False)
    expected = whole_result(made, whole)
    assert worst(found, {name: expected[name] for name in found}) < EXACT
    assert found.keys() == {"energy", "confidence", "atom_energies"}


def test_parts_in_float32_give_what_the_whole_gives(tmp_path):
    for kind in ("conservative", "direct"):
        made = make(tmp_path, kind, 20, torch.float32)
        whole = partitions.system(crystal(), 20)
        found, expected = in_parts(made, whole, 3, False), whole_result(made, whole)
        assert within("parts of a system and the whole, float32", kind, worst(found, expected), 1e-5)


class TestGhostShell:
    """Ghosts within layers x cutoff and no exchange: the slow reference."""

    @pytest.mark.parametrize("cap", [20, 120])
    def test_it_gives_what_the_exchange_gives(self, tmp_path, cap):
        made = make(tmp_path, "conservative", cap)
        # without close pairs, so that there is no repulsion: that of the reference is not differentiated
        rng = np.random.default_rng(8)
        grid = np.stack(np.meshgrid(range(5), range(2), range(2), indexing="ij"), -1).reshape(-1, 3)
        atoms = Atoms("C20", 3.4 * grid + rng.uniform(-0.3, 0.3, (20, 3)), cell=[17.5, 6.8, 6.9], pbc=True)
        whole = partitions.system(atoms, cap)
        assert np.linalg.norm(whole.vectors, axis=1).min() > 2.0
        part_of = (atoms.positions[:, 0] > 6.0).astype(np.int64)
        atoms.info = {"charge": 0.0, "spin": 1.0}
        slow = ghost_shell.evaluate(made.model, whole, part_of, 2)
        for redundant in SCHEMES.values():
            parts = partitions.cut(whole, part_of, 2, redundant)
            results = partitions.evaluate(made.potential, whole, parts, redundant)
            fast = partitions.joined(results, parts)
            assert np.abs(fast["energy"] - slow["energy"]) < EXACT * abs(slow["energy"])
            error = np.abs(fast["forces"] - slow["network_forces"]).max()
            assert np.abs(slow["network_forces"]).max() > 1e-3
            assert within("exchange and enlarged ghost shell, float64", "forces", error, EXACT)


class TestExchangeOfTheTests:
    """The exchange that these tests use is itself right."""

    @staticmethod
    def in_lockstep(meeting: Meeting, function: Any) -> list[Any]:
        results: list[Any] = [None] * len(meeting.n_own)

        def run(part: int) -> None:
            results[part] = function(ThreadExchange(meeting, part), part)

        threads = [threading.Thread(target=run, args=(part,)) for part in range(len(results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    @pytest.mark.parametrize("redundant", SCHEMES.values(), ids=SCHEMES)
    def test_reverse_add_is_the_adjoint_of_forward(self, redundant):
        whole = partitions.system(crystal(), 20)
        parts = cut(whole, 4, redundant)
        meeting, rng = Meeting(parts), np.random.default_rng(9)
        x, y = ([rng.standard_normal((part.n_rows, 7)) for part in parts] for _ in range(2))
        n_own = meeting.n_own
        for part, rows in enumerate(x):
            rows[n_own[part] :] = 0.0  # forward overwrites them

        def both(exchange: ThreadExchange, part: int) -> tuple[float, float]:
            forward, reverse = x[part].copy(), y[part].copy()
            exchange.forward(forward)
            exchange.reverse_add(reverse)
            return float(np.vdot(forward, y[part])), float(
                np.vdot(x[part][: n_own[part]], reverse[: n_own[part]])
            )

        left, right = np.sum(self.in_lockstep(meeting, both), axis=0)
        assert within("adjoint identity of the exchange", "tests", abs(left - right) / abs(left), 1e-13)


class TestNegativeControls:
    """What would be wrong shows: a broken exchange changes results."""

    @staticmethod
    def error_with(made: Made, exchange: type[ThreadExchange], redundant: bool = False) -> float:
        whole = partitions.system(crystal(), 20)
        parts = cut(whole, 3, redundant)
        results = partitions.evaluate(made.potential, whole, parts, redundant, make_exchange=exchange)
        expected = made.potential._compiled.evaluate(*whole.arguments())["forces"]
        found = np.empty_like(expected)
        for result, part in zip(results, parts, strict=True):
            found[part.own] = result["forces"]
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_one_row_that_is_not_refreshed(self, conservative, scheme):
        class Stale(ThreadExchange):
            def forward(self, rows):
                ghost = self.meeting.n_own[self.part]
                before = rows[ghost].copy()
                super().forward(rows)
                if self.part == 1:
                    rows[ghost] = before

        assert self.error_with(conservative, Stale, SCHEMES[scheme]) > 1e3 * EXACT

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_a_wrong_sign(self, conservative, scheme):
        class Subtracts(ThreadExchange):
            def reverse_add(self, rows):
                own = rows[: self.meeting.n_own[self.part]].copy()
                super().reverse_add(rows)
                rows[: len(own)] = 2 * own - rows[: len(own)]

        assert self.error_with(conservative, Subtracts, SCHEMES[scheme]) > 1e3 * EXACT

    @pytest.mark.parametrize("call", range(4))
    def test_each_of_the_reverse_calls_matters(self, conservative, call):
        class Forgets(ThreadExchange):
            def reverse_add(self, rows):
                own = rows[: self.meeting.n_own[self.part]].copy()
                super().reverse_add(rows)
                if [name for name, _, _ in self.calls].count("reverse_add") == call + 1:
                    rows[: len(own)] = own

        assert self.error_with(conservative, Forgets) > 1e3 * EXACT


class TestCalls:
    """How often the parts wait for each other."""

    @pytest.mark.parametrize(
        ("kind", "scheme", "forces", "expected"),
        [
            ("conservative", "plain", True, {"forward": 5, "reverse_add": 6, "sum": 2}),
            ("conservative", "redundant", True, {"forward": 2, "reverse_add": 3, "sum": 2}),
            ("conservative", "plain", False, {"forward": 2, "reverse_add": 3, "sum": 1}),
            ("direct", "plain", True, {"forward": 2, "reverse_add": 4, "sum": 1}),
            ("direct", "redundant", True, {"forward": 2, "reverse_add": 1, "sum": 1}),
        ],
    )
    def test_they_are_few_and_the_same_everywhere(self, request, kind, scheme, forces, expected):
        made, whole = request.getfixturevalue(kind), partitions.system(crystal(), 20)
        exchanges: list[ThreadExchange] = []

        def remember(meeting: Meeting, part: int) -> ThreadExchange:
            exchanges.append(ThreadExchange(meeting, part))
            return exchanges[-1]

        in_parts(made, whole, 4, SCHEMES[scheme], make_exchange=remember, forces=forces)
        names = [name for name, _, _ in exchanges[0].calls]
        assert {name: names.count(name) for name in set(names)} == expected
        assert all(exchange.calls == exchanges[0].calls for exchange in exchanges)


class TestFailures:
    """Every part stops: the one that failed with its own message, the others with one that says so."""

    OTHERS = "evaluate: another process failed"

    @staticmethod
    def messages(made: Made, failing: int, redundant: bool = False, **changes: Any) -> list[str]:
        whole = partitions.system(crystal(), 20)
        results = partitions.evaluate(
            made.potential, whole, cut(whole, 4, redundant), redundant, changes={failing: changes}
        )
        assert all(isinstance(result, RuntimeError | ValueError) for result in results)
        return [str(result) for result in results]

    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize("failing", [0, 2, 3])
    @pytest.mark.parametrize("kind", ["conservative", "direct"])
    def test_a_failure_of_the_host_is_told(self, request, kind, failing, scheme):
        made = request.getfixturevalue(kind)
        found = self.messages(made, failing, SCHEMES[scheme], failure="lost atoms")
        assert found == ["lost atoms" if part == failing else self.OTHERS for part in range(4)]

    def test_a_bad_graph_is_told(self, conservative):
        whole = partitions.system(crystal(), 20)
        rows = cut(whole, 4, False)[1].n_rows
        found = self.messages(conservative, 1, numbers=np.full(rows, 118))
        assert "`numbers[0]` is 118, an element that" in found[1]
        assert [found[part] for part in (0, 2, 3)] == [self.OTHERS] * 3

    def test_a_memory_limit_that_a_part_cannot_keep_is_told(self, conservative):
        made = Made(conservative.model, artefact.load(conservative.potential.path, memory_limit=1))
        found = self.messages(made, 0)
        assert all("`memory_limit` is 1 bytes but" in found[part] for part in (0, 1, 3))
        assert found[2] == self.OTHERS  # has no atoms, and needs nothing

    def test_a_gradient_that_is_not_finite_is_told(self, conservative):
        """The failure comes after the first sum, in the part that reads a broken row."""

        class Breaks(ThreadExchange):
            def forward(self, rows):
                super().forward(rows)
                if self.part == 0 and [name for name, _, _ in self.calls].count("forward") == 5:
                    rows[self.meeting.n_own[0] :] = np.nan

        whole = partitions.system(crystal(), 20)
        parts = cut(whole, 4, False)
        results = partitions.evaluate(conservative.potential, whole, parts, False, make_exchange=Breaks)
        assert "gave a non-finite" in str(results[0])
        assert all(isinstance(result, RuntimeError) for result in results)
        assert str(results[2]) == self.OTHERS  # has no atoms

    def test_an_exchange_that_fails_is_told(self, conservative):
        class Fails(ThreadExchange):
            def forward(self, rows):
                super().forward(rows)
                if self.part == 3 and len(self.calls) == 2:
                    raise OSError("the wire is cut")

        whole = partitions.system(crystal(), 20)
        parts = cut(whole, 4, False)
        results = partitions.evaluate(conservative.potential, whole, parts, False, make_exchange=Fails)
        assert "the wire is cut" in str(results[3])
        assert [str(results[part]) for part in range(3)] == [self.OTHERS] * 3


class TestBadGraphs:
    """What a host may get wrong about ghosts."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n_ghosts": 25}, "`n_ghosts` is 25 but must be from 0 to the 24 of `n_atoms`"),
            ({"n_ghosts": 2}, "`n_ghosts` is 2 and `redundant` is false, but without an exchange"),
            ({"redundant": True}, "`redundant` is true, but without an exchange there are no ghosts"),
            ({"n_ghost_edges": 3}, "`n_ghost_edges` is 3 but must be 0 unless `redundant`"),
            ({"n_ghost_edges": -1}, "`n_ghost_edges` is -1 but must be from 0 to the 480 of `n_edges`"),
        ],
    )
    def test_without_an_exchange(self, conservative, changes, message):
        whole = partitions.system(crystal(), 20)
        with pytest.raises(ValueError, match=re.escape(message)):
            conservative.potential._compiled.evaluate(*whole.arguments(), **changes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n_ghosts": 1}, "is 23, a ghost, in an edge of own atoms"),
            ({"redundant": True, "n_ghost_edges": 1}, "is 23, an own atom, in a ghost edge"),
        ],
    )
    def test_edges_of_the_wrong_owner(self, conservative, changes, message):
        whole = partitions.system(crystal(), 20)
        parts = [Part(np.arange(24))]
        exchange = ThreadExchange(Meeting(parts), 0)
        with pytest.raises(ValueError, match=message):
            conservative.potential._compiled.evaluate(*whole.arguments(), exchange=exchange, **changes)

    def test_a_file_without_steps(self, tmp_path):
        model, payload = tiny_model("direct"), tmp_path / "payload.pt"
        torchscript.compile_torchscript(model, payload)
        described = record.describe(model, "torchscript", "tiny", "MIT")
        described["verification"] = {"skipped": True}
        file = forge_record(payload, tmp_path / "model.pt", described, programs=["whole"])
        whole = partitions.system(crystal(), 20)
        exchange = ThreadExchange(Meeting([Part(np.arange(24))]), 0)
        with pytest.raises(ValueError, match="several processes need the steps of the potential"):
            artefact.load(file)._compiled.evaluate(*whole.arguments(), exchange=exchange)
