"""The chain of steps gives what the whole program gives, however the edges are cut into chunks.

Oracle: the whole program of the same artefact, itself held to the eager model by test_artefacts.py.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from orb_export import artefact, graph
from orb_export.export import export_model, record, torchscript, verify

from tests.accuracy import within
from tests.artefacts import forge_record, tiny_model

EXACT = 1e-12  # relative, float64: rounding of sums in another order
LAYERS = 3
CASES = [
    *(("torchscript", kind, cap) for kind in ("conservative", "direct") for cap in (20, 120)),
    ("aoti", "conservative", 20),
]
# by layer: what is stored of the edges. 0 nothing, 1 edge features, 2 all that the gradient needs
KEPT = [(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (2, 2, 2), (1, 2, 2), (0, 2, 1), (0, 0, 2)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def file(request, tmp_path_factory) -> Path:
    format, kind, cap = request.param
    if format == "aoti":
        return request.getfixturevalue("compiled_with_steps").file
    model = tiny_model(kind, cap=cap, has_charge_spin=cap == 120, layers=LAYERS)
    path = tmp_path_factory.mktemp("steps") / "model.pt"
    export_model(model, path, format=format, verified=False)
    return path


def arguments(potential: artefact.Potential, atoms: Atoms) -> tuple[Any, ...]:
    built = graph.from_atoms(atoms, potential.metadata["max_neighbors"])
    arrays = (built.numbers, built.centers, built.neighbors, built.vectors, built.positions, built.cell[0])
    return (*(array.numpy() for array in arrays), 1.0, 2.0)


def evaluate(potential: artefact.Potential, atoms: Atoms, **options: Any) -> dict[str, Any]:
    results: dict[str, Any] = potential._compiled.evaluate(*arguments(potential, atoms), **options)
    assert results.pop("memory") > 0
    return results


def structures() -> list[Atoms]:
    """No edges, self-images, a molecule without cell, a crystal of some thousand edges."""
    wanted = ("isolated atom", "one-atom cell", "linear molecule", "slab", "crystal")
    return [atoms for atoms in verify.structures() if atoms.info["name"] in wanted]


def worst(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Largest difference relative to the largest value of its quantity, or to 1 where that is smaller."""
    assert found.keys() == expected.keys()
    return max(
        np.abs(np.subtract(found[name], expected[name])).max() / max(1.0, np.abs(expected[name]).max())
        for name in expected
    )


def test_energy_alone_is_that_of_the_whole_program(file):
    potential = artefact.load(file)
    for atoms in structures():
        whole = evaluate(potential, atoms)
        alone = evaluate(potential, atoms, forces=False)
        assert alone.keys() == {"energy", "confidence"}
        expected = {name: whole[name] for name in alone}
        assert within(
            "energy without forces and whole program, float64", "all", worst(alone, expected), EXACT
        )


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: "".join(map(str, kept)))
def test_chunks_give_what_the_whole_program_gives(file, kept):
    potential = artefact.load(file)
    sizes = np.random.default_rng(3).integers(5, 700, 3).tolist()
    for atoms in structures():
        whole = evaluate(potential, atoms, per_atom=True)
        assert whole.keys() == {
            *("energy", "forces", "stress", "strain_gradient", "confidence", "atom_energies", "atom_virials")
        }
        for chunk in sizes if len(atoms) > 3 else [1, 10**6]:
            error = worst(evaluate(potential, atoms, chunk=chunk, kept=kept, per_atom=True), whole)
            assert within("chunks of edges and whole program, float64", "all", error, EXACT), (atoms, chunk)


def test_outputs_that_are_not_asked_for_are_absent(file):
    potential, atoms = artefact.load(file), structures()[3]
    for forces, confidence in itertools.product((True, False), repeat=2):
        found = evaluate(potential, atoms, forces=forces, confidence=confidence)
        assert ("forces" in found, "confidence" in found) == (forces, confidence)


def test_energy_in_float32_is_that_of_the_whole_program(tmp_path):
    file = tmp_path / "model.pt"
    export_model(tiny_model("conservative", dtype=torch.float32), file, format="torchscript", verified=False)
    potential = artefact.load(file)
    for atoms in structures():
        whole, alone = (evaluate(potential, atoms, forces=forces) for forces in (True, False))
        error = abs(alone["energy"] - whole["energy"]) / max(1.0, abs(whole["energy"]))
        assert within("energy without forces and whole program, float32", "all", error, 1e-6)


class TestChoiceOfProgram:
    """What was chosen shows in the memory that an evaluation used, which is counted."""

    @staticmethod
    def results(file: Path, atoms: Atoms, **options: Any) -> dict[str, Any]:
        potential = artefact.load(file, **options)
        results: dict[str, Any] = potential._compiled.evaluate(*arguments(potential, atoms))
        predicted = potential.predict_memory(len(atoms), 20 * len(atoms)).used
        assert results["memory"] <= predicted
        return results

    @pytest.mark.parametrize("repeats", [(2, 2, 2), (7, 4, 4)], ids=["640 edges", "8960 edges"])
    def test_compiled_forces_of_many_edges_come_from_the_steps(self, compiled_with_steps, repeats):
        file, large = compiled_with_steps.file, repeats[0] > 2
        crystal = bulk("Cu", "fcc", a=3.61, cubic=True).repeat(repeats)
        crystal.rattle(0.1, seed=2)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            found = {p: self.results(file, crystal, program=p) for p in ("auto", "whole", "steps")}
        finally:
            torch.set_num_threads(threads)
        memory = {program: results.pop("memory") for program, results in found.items()}
        assert memory["whole"] != memory["steps"]
        assert memory["auto"] == memory["steps" if large else "whole"]
        error = worst(found["steps"], found["whole"])
        assert within("chunks of edges and whole program, float64", "all", error, EXACT)

    def test_unknown_choices_are_refused(self, compiled_with_steps, tmp_path):
        with pytest.raises(ValueError, match="`program` is `fast` but must be auto, whole or steps"):
            artefact.load(compiled_with_steps.file, program="fast")

    def test_steps_that_are_not_there_are_refused(self, tmp_path):
        file = tmp_path / "model.pt"
        model = tiny_model("direct")
        payload = tmp_path / "payload.pt"
        torchscript.compile_torchscript(model, payload)
        described = {**record.describe(model, "torchscript", "", ""), "verification": {"skipped": True}}
        forge_record(payload, file, described, programs=["whole"])
        with pytest.raises(ValueError, match=r"`program` is `steps`, which `.*` does not have: export it"):
            artefact.load(file, program="steps")
