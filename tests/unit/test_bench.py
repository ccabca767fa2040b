"""`orb-export bench`: what it counts, and the page that it writes. Oracle of the work: torch's products."""

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from orb_export import artefact, cli
from orb_export.bench import graphs, memory, report, run, steps, work
from orb_export.export import export_model
from orb_export.graph import from_atoms
from torch.utils._python_dispatch import TorchDispatchMode

from tests.artefacts import tiny_model


class Products(TorchDispatchMode):
    """Counts the operations of all matrix products."""

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.flops += 2 * result.numel() * args[-2].shape[1]
        return result


@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_counted_work_is_what_the_model_multiplies(kind):
    model = tiny_model(kind, dtype=torch.float32, layers=3)
    graph = from_atoms(steps.copper(64), model.config.max_neighbors)
    with Products() as counter:
        model.predict(graph)
    expected = work.evaluation(model.config, 64, len(graph.centers))
    counted = counter.flops / (expected.flops + expected.node_flops)
    # gates and heads are left out; they weigh more in a model of 16 channels
    assert 1.0 <= counted < 1.06


def test_work_grows_with_the_numbers_that_move():
    config = steps.MODELS["conservative-20"]
    wide, narrow = (work.evaluation(config, 256, 5120, name) for name in ("float32", "bfloat16"))
    assert (wide.flops, wide.node_flops) == (narrow.flops, narrow.node_flops)
    assert narrow.bytes < wide.bytes
    direct = work.evaluation(steps.MODELS["direct-20"], 256, 5120)
    assert direct.flops == wide.flops / 2
    assert direct.bytes < wide.bytes


@pytest.mark.parametrize("n_atoms", [32, 64, 108, 1000, 4000, 400 * 101])
def test_structures_have_the_size_asked_for(n_atoms):
    atoms = steps.copper(n_atoms)
    assert len(atoms) == n_atoms
    assert atoms.cell.lengths().min() > 7  # angstrom


def test_large_structures_are_close_to_cubes():
    sizes = {20_000: (10, 20, 25), 100_000: (25, 25, 40), 1_000_000: (50, 50, 100)}
    assert {n_atoms: steps.repeats(n_atoms) for n_atoms in sizes} == sizes


def test_page_picture_and_numbers_are_saved(tmp_path, capsys):
    """Graphs and products only: compiling full-size models takes minutes."""
    arguments = ["bench", "--atoms", "--graph-atoms", "500", "--repeats", "1", "-o", str(tmp_path / "new")]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "| 500 | cap 20 | 10000 |" in shown
    found = json.loads((tmp_path / "new/bench.json").read_text())
    assert [row["list"] for row in found["graphs"]] == list(graphs.CAPS)
    assert found["peak_gflops"]["float32"] > 0
    assert found["machine"]["torch"] == torch.__version__
    assert (tmp_path / "new/bench.md").read_text() in shown
    assert (tmp_path / "new/bench.png").read_bytes()[:4] == b"\x89PNG"


def found_rows(**row):
    """A report's data with one row of each table."""
    step = {"model": "direct-20", "precision": "bfloat16", "atoms": 256, "edges": 5120, "ms": 200.0}
    step |= {"steps_per_second": 5.0, "peer_ms": 1000.0, "ratio": 0.2, "gflop": 100.0, "megabytes": 50.0}
    step |= {"gflops": 500.0, "share_of_peak": 0.625, "repeats": 3}
    memory = {"model": "direct-inf", "atoms": 10000, "seconds": 3.0, "before": 1e9}
    return {
        "machine": {"processor": "P", "instructions": [], "cores": 2, "memory_gb": 8.0, "gpu": None}
        | {"threads": 2, "torch": "2"},
        "time": "now",
        "device": "cpu",
        "peak_gflops": {"bfloat16": 800.0},
        "graphs": [],
        "steps": [step | row],
        "linearity": [{"model": "direct-20", "atoms": [2000, 20000], "seconds": [1.0, 10.1], "ratio": 10.1}],
        "memory": [
            memory | {"program": "ours", "peak": 3e9, "limit": 0},
            memory | {"program": "limited", "peak": 2e9, "limit": int(1e9)},
            memory | {"program": "orb-models", "peak": 5e9, "limit": 0},
        ],
    }


def test_steps_and_peers_have_their_columns(tmp_path):
    found = found_rows() | {"graphs": graphs.measure(500, ["vesin"], 1)}
    page = report.markdown(found)
    assert "| direct-20 | bfloat16 | 256 | 5120 | 200.0 (3) | 5 | 100.0 | 50 | 500 | 62 % |" in page
    assert "| direct-20 | 256 | 1000 | 0.20 (0.20) |" in page
    assert "vesin, ms (times as fast)" in page
    assert "t(20000) / t(2000) = 10.10 (bar 10.5)" in page
    assert "| direct-inf | ours | 10000 | 1.00 | 3.00 | 2.00 | 0.50 (bar 0.25) | 3 |" in page
    assert "| limited, at most 1 GB | 10000 | 1.00 | 2.00 | 1.00 | 0.25 (bar 0.25) | 3 |" in page
    assert len(report.write(found, tmp_path)) == 3


def test_results_of_several_runs_make_one_page():
    """Models are measured one by one; what is measured again replaces what was."""
    old, new = found_rows(), found_rows(ms=150.0, ratio=0.15)
    new["steps"] += found_rows(precision="float32", ratio=0.4)["steps"]
    new["steps"] += found_rows(model="conservative-20", precision="bfloat16", atoms=64)["steps"]
    new["memory"] = []
    both = report.merged(old, new)
    assert [(row["model"], row["ms"]) for row in both["steps"]] == [
        ("direct-20", 150.0),
        ("direct-20", 200.0),
        ("conservative-20", 200.0),
    ]
    assert both["memory"] == old["memory"]
    page = report.markdown(both)
    assert "| direct-20 | 256 | 1000 | 0.15 (0.20) | 0.40 (0.70) |" in page
    assert "| conservative-20 | 64 | 1000 | 0.20 (0.22) |  |" in page


def test_results_of_another_machine_are_not_added_to(tmp_path):
    assert report.previous(tmp_path, {}, "cpu") is None
    report.write(found_rows(), tmp_path)
    same = found_rows()["machine"] | {"vesin": "0.6"}
    assert report.previous(tmp_path, same, "cpu") == found_rows()
    with pytest.raises(ValueError, match=r"`add` is given but threads is 1 and that of the results in .* 2"):
        report.previous(tmp_path, same | {"threads": 1}, "cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An artefact of a tiny model that takes 20 neighbors."""
    file = tmp_path_factory.mktemp("bench") / "small.pt"
    model = tiny_model("direct", dtype=torch.float32)
    export_model(model, file, format="torchscript", verified=False)
    return model, file


def test_another_cap_makes_the_artefact_of_another_model(small, tmp_path):
    model, file = small
    steps.with_cap(file, 7, tmp_path / "seven.pt")
    model = copy.deepcopy(model)
    model.config = dataclasses.replace(model.config, max_neighbors=7)
    export_model(model, tmp_path / "expected.pt", format="torchscript", verified=False)
    atoms = steps.copper(64)
    found, expected, other = (
        artefact.load(path).predict(atoms)["forces"]
        for path in (tmp_path / "seven.pt", tmp_path / "expected.pt", file)
    )
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - other).max() > 1e-6
    assert {**artefact.read_metadata(file), "max_neighbors": 7} == artefact.read_metadata(
        tmp_path / "seven.pt"
    )


def test_artefacts_are_kept_and_one_is_made_from_the_other(small, tmp_path, monkeypatch):
    compiled = []

    def export(name, file, precision, device):
        compiled.append((name, precision))
        shutil.copyfile(small[1], file)

    monkeypatch.setattr(steps, "export", export)
    plan = run.Plan(models=("direct-20", "direct-inf"), precisions=("float32", "bfloat16"), keep=tmp_path)
    for _ in range(2):
        run.prepare(plan, lambda message: None)
    assert compiled == [("direct-20", "float32"), ("direct-20", "bfloat16")]
    assert artefact.read_metadata(tmp_path / "direct-inf-bfloat16.pt2")["max_neighbors"] == 120
    with pytest.raises(ValueError, match="`keep` must name a folder"):
        run.prepare(run.Plan(), lambda message: None)


def test_memory_is_that_of_the_evaluation(small):
    row = memory.measure("direct-20", small[1], 4000)
    assert row["edges"] == 80000
    # a stream of edges alone, and no more than all that torch had at once, twice over
    assert 80000 * 16 * 4 < row["tensors"] < row["peak"] - row["before"] < 2 * row["tensors"]
    with pytest.raises(RuntimeError, match=r"the evaluation of 400 atoms failed: .*memory_limit"):
        memory.measure("direct-20", small[1], 400, limit=1000)


def test_mistakes_are_named(capsys):
    for n_atoms in (7, 28, 4, 66):
        with pytest.raises(ValueError, match=f"`atoms` is {n_atoms} but must be 4 times a product of three"):
            run.Plan(atoms=(n_atoms,))
    with pytest.raises(ValueError, match=r"`models` has \['large'\] but must be of"):
        run.Plan(models=("large",))
    with pytest.raises(ValueError, match=r"`precisions` has \['tf32'\] but must be of"):
        run.Plan(precisions=("tf32",))
    assert run.Plan(precisions=("tf32",), device="cuda").precisions == ("tf32",)
    with pytest.raises(ValueError, match="`repeats` is 0 but must be positive"):
        run.Plan(repeats=0)
    with pytest.raises(ValueError, match="`atoms` is 20 but must be"):
        run.Plan(memory_atoms=20)
    if torch.cuda.is_available():
        pytest.skip("a GPU is here: asking for it is no mistake")
    assert cli.main(["bench", "--device", "cuda"]) == 1
    assert "`device` is 'cuda' but torch finds no CUDA device" in capsys.readouterr().err
