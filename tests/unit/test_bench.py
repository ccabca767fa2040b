"""`orb-export bench`: what it counts, and the page that it writes. Oracle of the work: torch's products."""

import json

import pytest
import torch
from orb_export import cli
from orb_export.bench import graphs, report, run, steps, work
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


@pytest.mark.parametrize("n_atoms", steps.SIZES[:-1])
def test_structures_have_the_size_asked_for(n_atoms):
    assert len(steps.copper(n_atoms)) == n_atoms


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


def test_steps_and_peers_have_their_columns(tmp_path):
    row = {"model": "direct-20", "precision": "bfloat16", "atoms": 256, "edges": 5120, "ms": 200.0}
    row |= {"steps_per_second": 5.0, "peer_ms": 1000.0, "ratio": 0.2, "gflop": 100.0, "megabytes": 50.0}
    row |= {"gflops": 500.0, "share_of_peak": 0.625}
    found = {
        "machine": {"processor": "P", "instructions": [], "cores": 2, "memory_gb": 8.0, "gpu": None}
        | {"threads": 2, "torch": "2"},
        "time": "now",
        "device": "cpu",
        "repeats": 3,
        "peak_gflops": {"bfloat16": 800.0},
        "graphs": graphs.measure(500, ["vesin"], 1),
        "steps": [row],
        "linearity": {"ratio": 10.1},
        "memory": {"model": "direct-inf", "atoms": 10000, "edges": 10, "seconds": 3.0, "before": 1, "peak": 2}
        | {"tensors": 1},
    }
    page = report.markdown(found)
    expected = "| direct-20 | bfloat16 | 256 | 5120 | 200.0 | 5 | 1000.0 | 0.20 | 100.0 | 50 | 500 | 62 % |"
    assert expected in page
    assert "vesin ns/edge" in page
    assert "t(20000) / t(2000) = 10.10" in page
    assert len(report.write(found, tmp_path)) == 3


def test_mistakes_are_named(capsys):
    with pytest.raises(ValueError, match=r"`atoms` has \[7\] but must be of"):
        run.Plan(atoms=(7,))
    with pytest.raises(ValueError, match="`repeats` is 0 but must be positive"):
        run.Plan(repeats=0)
    if torch.cuda.is_available():
        pytest.skip("a GPU is here: asking for it is no mistake")
    assert cli.main(["bench", "--device", "cuda"]) == 1
    assert "`device` is 'cuda' but torch finds no CUDA device" in capsys.readouterr().err
