"""Evaluations through captured graphs: what padded edges add, and what a GPU would be asked for.

Oracle: the same program without padding. When graphs are captured and replayed is tested by
cpp/tests/test_captured.cpp; the capture itself needs a GPU.
"""

import numpy as np
import pytest
import torch
from ase.build import bulk
from orb_export import artefact
from orb_export.contract import CUTOFF, OUTPUTS
from orb_export.export import export_model
from orb_export.export.aoti import trace, trace_step
from orb_export.export.program import contract_program
from torch import Tensor

from tests import partitions
from tests.accuracy import within
from tests.artefacts import tiny_model

MODELS = {
    "conservative-20": {"kind": "conservative"},
    "conservative-inf": {"kind": "conservative", "cap": 120},
    "direct-20": {"kind": "direct"},
    "direct-inf": {"kind": "direct", "cap": 120},
    "charge and spin": {"kind": "conservative", "has_charge_spin": True},
    "direct, charge and spin": {"kind": "direct", "has_charge_spin": True},
}
# relative to 1 + |x|: sums of more rows may be blocked in another way
BARS = {torch.float64: 1e-13, torch.float32: 1e-6}


def inputs(cap: int = 20) -> tuple[Tensor, ...]:
    """INPUTS of the contract for a rattled crystal with two atoms closer than repulsion reaches."""
    atoms = bulk("NaCl", "rocksalt", a=5.0, cubic=True)
    atoms.rattle(0.2, seed=1)
    atoms.positions[7] = atoms.positions[6] + [0.9, 0.6, 0.3]
    numbers, centers, neighbors, vectors = partitions.system(atoms, cap).arguments()[:4]
    arrays = (torch.as_tensor(np.asarray(array)) for array in (numbers, centers, neighbors, vectors))
    return *arrays, torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)


def padded(given: tuple[Tensor, ...], count: int, length: float = CUTOFF) -> tuple[Tensor, ...]:
    """With edges of atoms to themselves, as the runtime appends them (cpp/src/runtime/captured.cpp)."""
    numbers, centers, neighbors, vectors, *rest = given
    ends = torch.arange(len(centers), len(centers) + count) % len(numbers)
    more = torch.tensor([[length, 0.0, 0.0]], dtype=torch.float64).expand(count, 3)
    return (
        numbers,
        torch.cat([centers, ends]),
        torch.cat([neighbors, ends]),
        torch.cat([vectors, more]),
        *rest,
    )


@pytest.mark.parametrize("dtype", BARS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_padded_edges_add_nothing(name, dtype):
    choice = MODELS[name]
    program = contract_program(tiny_model(**choice, dtype=dtype))
    given = inputs(choice.get("cap", 20))
    n_edges = len(given[1])
    expected, found = program(*given), program(*padded(given, 90))
    shorter = program(*padded(given, 90, 0.999 * CUTOFF))
    for index, field in enumerate(OUTPUTS[choice["kind"]]):
        value = found[index]
        if field.name == "edge_gradient":
            assert torch.equal(value[n_edges:], torch.zeros(90, 3, dtype=torch.float64))
            value = value[:n_edges]
        error = float(((value - expected[index]) / (1.0 + expected[index].abs())).abs().max())
        assert within(f"padded edges, {dtype}, relative", field.name, error, BARS[dtype]), field.name
    assert not torch.equal(shorter[0], expected[0])  # the energy would notice


@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_programs_for_a_gpu_call_no_operators_of_the_cpu(kind):
    """They have no kernel there: only models that are packed for the CPU may call them."""
    model = tiny_model(kind, dtype=torch.float32, layers=1).requires_grad_(False)
    programs = [trace(model), trace_step(model, "layer.message" if kind == "direct" else "layer.message_vjp")]
    called = {str(node.target) for program in programs for node in program.graph.nodes}
    assert any(name.startswith("aten.mm") or name.startswith("aten.addmm") for name in called)
    assert not [name for name in called if "orb_export" in name or "mkldnn" in name]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_a_gpu_gives_the_same_through_graphs(kind, tmp_path):
    model = tiny_model(kind, dtype=torch.float32).to("cuda")
    file = tmp_path / "model.pt2"
    export_model(model, file, verified=False, with_steps=False)
    plain, graphs = (artefact.load(file, cuda_graphs=choice) for choice in (False, True))
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * (2, 2, 2)
    for step in range(8):
        atoms.rattle(0.03, seed=step)
        atoms.set_cell((1.0 + 0.01 * step) * atoms.cell.array, scale_atoms=True)  # other numbers of edges
        found, expected = graphs.predict(atoms), plain.predict(atoms)
        error = np.abs(found["forces"] - expected["forces"]).max()
        assert within("graphs on a GPU, float32", "forces, eV/Å", error, 1e-4)
        assert found["energy"] == pytest.approx(expected["energy"], abs=1e-5 * len(atoms))
