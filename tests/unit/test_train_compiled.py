"""Compiled predictions of training. Oracle: the same passes in ordinary torch."""

import copy

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from orb_export.graph import batch_graphs, from_atoms
from orb_export.train.compiled import CompiledPredict, is_worth_compiling
from orb_export.train.config import parse_config
from orb_export.train.data import Labels
from orb_export.train.losses import LossWeights, loss_terms

from tests.artefacts import tiny_model

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
WEIGHTS = LossWeights(energy=1.0, forces=1.0, stress=0.3, confidence=0.1, equigrad=0.01)


def batches():
    """One structure, three of them one without a cell, and a structure without edges among others."""
    copper = ase.build.bulk("Cu", "fcc", a=3.6, cubic=True)
    copper.rattle(0.1, seed=1)
    silicon = ase.build.bulk("Si", "diamond", a=5.4)
    silicon.rattle(0.1, seed=2)
    water, lone = ase.build.molecule("H2O"), Atoms("Cu")
    return [[copper], [silicon, water, copper], [water, lone]]


def labelled(structures, seed):
    rng = np.random.default_rng(seed)
    graph = batch_graphs([from_atoms(atoms, 120) for atoms in structures])
    stress = torch.from_numpy(0.01 * rng.standard_normal((len(structures), 6)))
    stress[~graph.cell.any(dim=2).any(dim=1)] = torch.nan
    return graph, Labels(
        torch.from_numpy(rng.standard_normal(len(structures))),
        torch.from_numpy(rng.standard_normal((len(graph.numbers), 3))),
        stress,
    )


def step(model, predict, structures, seed):
    """Loss, gradient as one vector, and statistics afterwards."""
    graph, labels = labelled(structures, seed)
    model.zero_grad()
    prediction = None if predict is None else predict(graph)
    loss, _ = loss_terms(model, graph, labels, WEIGHTS, prediction=prediction)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return loss.detach(), gradient, torch.cat([b.double().flatten() for b in model.buffers()])


# torch warns of its own internals while it compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_compiled_step_is_the_eager_one_for_every_size(dtype):
    model = tiny_model("conservative").to(dtype).train()
    model.decoder.requires_grad_(False)
    eager = copy.deepcopy(model)
    compiled = CompiledPredict(model)
    for seed, structures in enumerate(batches()):
        results = step(model, compiled, structures, seed), step(eager, None, structures, seed)
        for ours, expected in zip(*results, strict=True):
            assert (ours - expected).norm() <= TOLERANCE[dtype] * (1 + expected.norm())


def config(**machine):
    return parse_config({"data": {"train": ["a.xyz"]}, "machine": {"accelerator": "cpu"} | machine}, "test")


def test_long_runs_are_compiled_and_short_ones_not():
    model = tiny_model("conservative")
    assert not is_worth_compiling(config(), model, 10)
    assert is_worth_compiling(config(), model, 10**12)
    assert is_worth_compiling(config(compile=True), model, 10)
    assert not is_worth_compiling(config(compile=False), model, 10**12)


def test_what_cannot_be_compiled_is_named():
    model = tiny_model("conservative")
    assert not is_worth_compiling(config(precision="bf16-mixed"), model, 10**12)
    with pytest.raises(ValueError, match="`machine.compile` is true but must be false with bf16-mixed"):
        is_worth_compiling(config(precision="bf16-mixed", compile=True), model, 10**12)
