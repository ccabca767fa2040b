"""Compiled predictions of training. Oracle: the same passes in ordinary torch."""

import copy

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from functorch.compile import make_boxed_func
from orb_export.export import cpu_passes
from orb_export.graph import batch_graphs, from_atoms
from orb_export.model import OrbConfig, OrbV3
from orb_export.train import compiled
from orb_export.train.catalog import Catalog, Summary
from orb_export.train.compiled import is_compiled
from orb_export.train.config import parse_config
from orb_export.train.data import Labels
from orb_export.train.losses import LossWeights, loss_terms

from tests.artefacts import tiny_model

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
WEIGHTS = LossWeights(energy=1.0, forces=1.0, stress=0.3, confidence=0.1, equigrad=0.01, additivity=0.1)


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


def interpreted(module, inputs, **options):
    """In place of Inductor, which takes half a minute: the same operations, one after the other."""
    return make_boxed_func(cpu_passes.apply(module).forward)


# torch warns of its own internals while it compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "dtype", "layers", "lowered"),
    [
        ("conservative", torch.float32, 1, "inductor"),
        ("conservative", torch.float64, 2, "interpreted"),
        ("direct", torch.float64, 2, "interpreted"),
    ],
    ids=str,
)
def test_a_compiled_step_is_the_eager_one_for_every_size(kind, dtype, layers, lowered, monkeypatch):
    torch.manual_seed(0)
    sizes = {"channels": 8, "hidden": 16, "head_hidden": 8, "layers": layers}
    model = OrbV3(OrbConfig(kind, 120, **sizes)).to(dtype).train()
    model.decoder.requires_grad_(False)
    eager = copy.deepcopy(model)
    predict = compiled.CompiledPredict(model)
    if lowered == "interpreted":
        monkeypatch.setattr(compiled, "_lowered", interpreted)
    for seed, structures in enumerate(batches()):
        results = step(model, predict, structures, seed), step(eager, None, structures, seed)
        for ours, expected in zip(*results, strict=True):
            assert (ours - expected).norm() <= TOLERANCE[dtype] * (1 + expected.norm())


def decided(n_edges, kind="conservative", **machine):
    machine = {"accelerator": "auto" if machine.get("strategy") == "fsdp" else "cpu", **machine}
    config = parse_config({"data": {"train": ["a.xyz"]}, "machine": machine, "optimizer": {"ema": 0}}, "test")
    row = Summary(np.zeros(119, dtype=np.int64), n_edges, 0.0, (0.0, 0.0, 0.0), np.zeros(6), "test")
    return is_compiled(config, tiny_model(kind), Catalog.of([row]))


def test_long_runs_are_compiled_and_short_ones_not():
    assert decided(10**12)
    assert not decided(10)
    assert decided(10, compile=True)
    assert not decided(10**12, compile=False)
    assert not decided(10**12, accelerator="gpu")


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed"}, {"strategy": "fsdp"}], ids=str)
def test_what_cannot_be_compiled_is_named(options):
    assert not decided(10**12, **options)
    with pytest.raises(ValueError, match=r"`machine\.compile` is true but must be false with denoising"):
        decided(10**12, compile=True, **options)
