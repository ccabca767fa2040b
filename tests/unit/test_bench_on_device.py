"""Steps whose atoms stay on the device, here the CPU. Oracle: the same artefact with arrays of the host."""

import dataclasses
import subprocess

import numpy as np
import pytest
import torch
from orb_export import artefact, cli
from orb_export.bench import graphs, on_device, report, run, steps
from orb_export.export import export_model

from tests.artefacts import tiny_model
from tests.unit.test_bench import found_rows

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(scope="module")
def file(device, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "small.pt"
    model = tiny_model("direct", dtype=torch.float32).to(device)
    export_model(model, path, format="torchscript", verified=False)
    return path


def task(file, device, **changes):
    return on_device.Task("direct-20", str(file), 108, device, 1)._replace(**changes)


def test_a_step_moves_the_atoms_and_evaluates_them(file, device):
    atoms = steps.copper(108)
    step = on_device.on_device(artefact.load(file), atoms, device)
    generator = torch.Generator(device).manual_seed(1)
    for _ in range(2):
        moved = torch.randn((108, 3), generator=generator, dtype=torch.float64, device=device)
        atoms.positions += 1e-3 * moved.cpu().numpy()
        expected = artefact.load(file).predict(atoms)
        result = step()
        assert result["energy"] == pytest.approx(expected["energy"], abs=1e-4)
        assert result["largest_force"] == pytest.approx(np.abs(expected["forces"]).max(), abs=1e-4)


def test_what_does_not_fit_is_taken_in_parts(file, device):
    _, whole = on_device._ours(task(file, device))
    assert whole == {"edges": 2160, "limit": 0, "program": "whole"}
    potential = artefact.load(file)
    least = potential.predict_memory(108, 2160).least
    step, parts = on_device._ours(task(file, device, limit=least))
    assert parts == {"edges": 2160, "limit": least, "program": "steps"}
    step()
    with pytest.raises(ValueError, match="`memory_limit` is 1000 bytes"):
        on_device._ours(task(file, device, limit=1000))


def test_time_and_memory_are_those_of_a_process_of_its_own(file, device):
    row = on_device.measure(task(file, device, atoms=1000))
    assert (row["program"], row["edges"], row["limit"]) == ("whole", 20000, 0)
    assert 1 <= row["repeats"] <= 200
    assert 20000 * 16 * 4 < row["memory"] < 2e9  # a stream of edges, and at most what libraries load
    assert row["seconds"] > 0


def test_a_failure_is_a_row():
    def failing(*arguments, **options):
        return subprocess.CompletedProcess(arguments, 1, "", "a trace\nCUDA out of memory | really\n")

    row = on_device.measure(task("x.pt2", "cuda"), failing)
    assert row == {"failed": "CUDA out of memory | really"}
    row |= {"model": "direct-inf", "precision": "float32", "atoms": 400, "program": "steps", "limit": 0}
    page = report.markdown(found_rows() | {"device_steps": [row]})
    assert "| direct-inf | float32 | 400 |  | steps | CUDA out of memory / really |" in page


def test_rows_have_the_bars_of_their_gpu(monkeypatch, tmp_path):
    found = {"edges": 20000, "seconds": 0.002, "repeats": 30, "memory": 1e9, "program": "whole", "limit": 0}

    def measure(task):
        if task.limit and task.atoms == 100_000:
            return {**found, "program": "steps", "limit": task.limit, "seconds": 0.2}
        return dict(found)

    monkeypatch.setattr(on_device, "measure", measure)
    monkeypatch.setattr(steps, "export", lambda *arguments: tmp_path.joinpath(arguments[1].name).touch())
    plan = run.Plan(models=("direct-20", "direct-inf"), precisions=("float32",), atoms=(1000, 100_000))
    plan = dataclasses.replace(plan, most_edges=3_000_000, on_device=True, keep=tmp_path)
    plan = dataclasses.replace(plan, device_limit=5_000_000_000)
    assert [plan.sizes(model) for model in plan.models] == [[1000, 100_000], [1000]]
    artefacts = run.Artefacts(tmp_path, "cuda", lambda message: None)
    rows = run._device_steps(plan, "direct-20", artefacts, {"float32": 1000.0})
    assert [(row["atoms"], row["program"]) for row in rows] == [
        (1000, "whole"),
        (100_000, "whole"),
        (100_000, "steps"),
    ]
    page = found_rows() | {"device_steps": rows}
    page["machine"] |= {"gpu": "NVIDIA H200"}
    shown = report.markdown(page)
    assert "| direct-20 | float32 | 1000 | 20000 | whole | 2.00 (30) | 500 (bar 600) | 1.00 |" in shown
    assert "| steps, at most 5 GB | 200.00 (30) | 5 (bar 6.67) | 1.00 (bar 8) |" in shown
    page["machine"] |= {"gpu": "another"}
    assert "500 (bar" not in report.markdown(page)
    both = report.merged(page, found_rows() | {"device_steps": rows[:1]})
    assert len(both["device_steps"]) == 3
    assert len(report.write(page, tmp_path / "page")) == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"on_device": False, "device_limit": 7_500_000_000, "most_edges": 0, "atoms": (64, 256, 1000)}),
        (["--on-device"], {"on_device": True}),
        (["--device-limit", "2e9"], {"device_limit": 2_000_000_000}),
        (["--most-edges", "5000"], {"most_edges": 5000}),
        (["--atoms", "400"], {"atoms": (400,)}),
        (["--graph-atoms", "800"], {"graph_atoms": (800,)}),
    ],
)
def test_the_command_passes_its_options_on(arguments, expected, monkeypatch):
    plans = []
    monkeypatch.setattr(run, "prepare", lambda plan, progress: plans.append(plan))
    assert cli.main(["bench", "--device", "cpu", "--prepare", *arguments]) == 0
    assert {name: getattr(plans[0], name) for name in expected} == expected


@gpu
def test_radius_graphs_of_a_gpu_have_the_edges_of_the_cpu():
    here, there = (graphs.measure(500, [], 1, name) for name in ("cpu", "cuda"))
    assert [row["edges"] for row in here] == [row["edges"] for row in there]
