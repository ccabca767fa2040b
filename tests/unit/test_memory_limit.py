"""A memory limit is kept, predicted beforehand, and changes no result.

Oracle: the memory that the runtime counts while it evaluates, through torch's own hook for profilers.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from ase.build import bulk
from orb_export import artefact, graph
from orb_export.cli import main
from orb_export.export import record, torchscript

from tests.artefacts import forge_record, tiny_model

PREDICTION = 1.8  # how much more than needed may be predicted, at sizes where constants still count


class Made(NamedTuple):
    """The file of torch and the record of an artefact, to forge others from."""

    payload: Path
    record: dict[str, Any]


@pytest.fixture(scope="module", params=["conservative", "direct"])
def made(request, tmp_path_factory) -> Made:
    model = tiny_model(request.param, layers=3)
    payload = tmp_path_factory.mktemp("limit") / "payload.pt"
    torchscript.compile_torchscript(model, payload)
    described = record.describe(model, "torchscript", "tiny", "MIT")
    return Made(payload, {**described, "verification": {"skipped": True}})


@pytest.fixture(scope="module")
def file(made):
    return forge_record(made.payload, made.payload.parent / "model.pt", made.record)


@pytest.fixture(scope="module")
def arguments() -> tuple[Any, ...]:
    """100 atoms with 20 edges each."""
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True).repeat((5, 5, 1))
    atoms.rattle(0.1, seed=1)
    built = graph.from_atoms(atoms, 20)
    arrays = (built.numbers, built.centers, built.neighbors, built.vectors, built.positions, built.cell[0])
    return tuple(array.numpy() for array in arrays)


def evaluate(file, limit: int | None, arguments, **options: Any) -> dict[str, Any]:
    return artefact.load(file, memory_limit=limit)._compiled.evaluate(*arguments, **options)


def limits(file, arguments, forces: bool) -> list[int]:
    """From no need to save memory down to the least that can be kept."""
    sizes = len(arguments[0]), len(arguments[1])
    memory = artefact.load(file).predict_memory(*sizes, forces=forces)
    return [*np.geomspace(memory.used, memory.least, 5).astype(int).tolist()[:-1], memory.least]


@pytest.mark.parametrize("forces", [True, False])
def test_a_limit_is_kept_and_changes_no_result(file, arguments, forces):
    free = evaluate(file, None, arguments, forces=forces)
    used = []
    for limit in limits(file, arguments, forces):
        found = evaluate(file, limit, arguments, forces=forces)
        used.append(found.pop("memory"))
        assert used[-1] <= limit
        for name in found:
            np.testing.assert_allclose(found[name], free[name], rtol=1e-12, atol=1e-12, err_msg=name)
    assert used[-1] < 0.5 * used[0]


@pytest.mark.parametrize("forces", [True, False])
def test_the_prediction_is_an_upper_bound_and_not_a_loose_one(file, arguments, forces):
    for limit in limits(file, arguments, forces):
        predicted = artefact.load(file, memory_limit=limit).predict_memory(100, 2000, forces=forces).used
        used = evaluate(file, limit, arguments, forces=forces)["memory"]
        assert used <= predicted <= min(limit, PREDICTION * used)


def test_memory_without_forces_is_less(file, arguments):
    potential = artefact.load(file)
    with_forces, without = (
        potential.predict_memory(100, 2000, forces=forces).least for forces in (True, False)
    )
    assert without <= with_forces


def test_a_limit_that_cannot_be_kept_says_what_is_needed(file, arguments):
    least = artefact.load(file).predict_memory(100, 2000).least
    message = f"`memory_limit` is {least - 1} bytes but 100 atoms and 2000 edges need at least {least}"
    with pytest.raises(ValueError, match=message):
        evaluate(file, least - 1, arguments)
    with pytest.raises(ValueError, match=message):
        artefact.load(file, memory_limit=least - 1).predict_memory(100, 2000)


def test_a_negative_limit_is_refused(file):
    with pytest.raises(
        ValueError, match=re.escape("`memory_limit` is -1 but must be 0 (no limit) or a number")
    ):
        artefact.load(file, memory_limit=-1)


class TestWithoutSteps:
    """Artefacts of `--no-steps`."""

    @pytest.fixture
    def old(self, made, tmp_path):
        return forge_record(made.payload, tmp_path / "old.pt", made.record, programs=["whole"])

    def test_an_energy_alone_is_that_of_the_whole_program(self, old, file, arguments):
        found = evaluate(old, None, arguments, forces=False)
        assert found.keys() == {"energy", "confidence", "memory"}
        assert found["energy"] == evaluate(file, None, arguments)["energy"]

    def test_a_limit_is_refused_where_the_whole_program_exceeds_it(self, old, arguments):
        needed = artefact.load(old).predict_memory(100, 2000)
        assert needed.used == needed.least
        assert evaluate(old, needed.used, arguments)["memory"] <= needed.used
        with pytest.raises(
            ValueError, match="has no steps to save memory with: export it again, without --no-"
        ):
            evaluate(old, needed.used - 1, arguments)


def test_programs_that_are_no_chain_are_refused(made, tmp_path):
    forged = forge_record(made.payload, tmp_path / "x.pt", made.record, programs=made.record["programs"][:-1])
    with pytest.raises(
        ValueError, match=r"has `programs` `whole`, .* but this runtime needs `whole` alone or"
    ):
        artefact.load(forged)


def test_a_file_that_was_replaced_after_loading_is_refused(made, tmp_path, arguments):
    file = forge_record(made.payload, tmp_path / "model.pt", made.record)
    potential = artefact.load(file)
    forge_record(made.payload, file, made.record, description="another")
    with pytest.raises(RuntimeError, match="is another file than when it was loaded"):
        potential._compiled.evaluate(*arguments, forces=False)


class TestInfo:
    """`orb-export info --atoms` shows the prediction."""

    def test_it_is_that_of_the_potential(self, file, capsys):
        assert main(["info", str(file), "--atoms", "100", "--edges", "2000", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)["memory"]
        potential = artefact.load(file)
        memory, alone = (potential.predict_memory(100, 2000, forces=forces) for forces in (True, False))
        assert shown == {
            "atoms": 100,
            "edges": 2000,
            "energy_only": alone.used,
            "used": memory.used,
            "least": memory.least,
        }

    def test_edges_are_by_default_as_many_as_the_model_allows(self, file, capsys):
        assert main(["info", str(file), "--atoms", "100"]) == 0
        assert "GB for 100 atoms and 2000 edges" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("options", "message"),
        [(["--edges", "9"], "--edges: needs --atoms"), (["--atoms", "0"], "--atoms: 0 must be positive")],
    )
    def test_bad_sizes_are_refused(self, file, options, message, capsys):
        with pytest.raises(SystemExit):
            main(["info", str(file), *options])
        assert message in capsys.readouterr().err
