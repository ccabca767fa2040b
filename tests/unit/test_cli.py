"""`orb-export` as a user runs it: results, exit status, and one line on stderr for every mistake."""

import json
import re
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from orb_export import artefact, checkpoint, cli
from orb_export.export.record import weights_sha256
from orb_export.export.torchscript import compile_torchscript

from tests.artefacts import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Weights, an exported artefact of them, one of a model with charge and spin, and structures."""
    path = tmp_path_factory.mktemp("cli")
    for name, charged in (("weights", False), ("charged", True)):
        checkpoint.save(tiny_model("conservative", has_charge_spin=charged), path / f"{name}.safetensors")
        arguments = [str(path / f"{name}.safetensors"), "-o", str(path / f"{name}.pt"), "--no-verify"]
        assert cli.main(["export", *arguments]) == 0
    frames = [bulk("Cu", "fcc", a=3.6, cubic=True), molecule("H2O")]
    ase.io.write(path / "frames.xyz", frames, format="extxyz")
    ase.io.write(path / "water.xyz", molecule("H2O"), format="xyz")
    (path / "notes.xyz").write_text("this is no structure\n")
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orb_export.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_export_verifies_in_a_fresh_process_and_says_so(folder, tmp_path, capsys):
    file = tmp_path / "model.pt"
    assert (
        cli.main(["export", str(folder / "weights.safetensors"), "-o", str(file), "--dtype", "float32"]) == 0
    )
    assert "tiny-conservative, torchscript, float32" in capsys.readouterr().out
    record = artefact.read_metadata(file)
    assert record["dtype"] == "float32"
    assert record["verification"]["passed"]
    assert record["verification"]["structures"] == 7
    differences = record["verification"]["largest_differences"]
    assert 0 < differences["forces"] < record["verification"]["tolerances"]["forces"]
    assert record["weights_sha256"] == weights_sha256(tiny_model("conservative", dtype=torch.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_info_shows_the_record(folder, capsys):
    assert cli.main(["info", str(folder / "weights.pt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == artefact.read_metadata(folder / "weights.pt")
    assert cli.main(["info", str(folder / "charged.pt")]) == 0
    shown = capsys.readouterr().out
    assert "tiny-conservative (conservative)" in shown
    assert "H to Ts (117)" in shown
    assert "charge, spin  needed" in shown
    assert "skipped at export" in shown


def test_predict_prints_what_the_artefact_gives(folder, capsys):
    assert cli.main(["predict", str(folder / "weights.pt"), str(folder / "frames.xyz"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    potential = artefact.load(folder / "weights.pt")
    for row, atoms in zip(rows, ase.io.read(folder / "frames.xyz", ":"), strict=True):
        results = potential.predict(atoms)
        assert row["energy"] == results["energy"]
        for name in ("forces", "stress", "confidence"):
            np.testing.assert_array_equal(row[name], results[name])
    assert cli.main(["predict", str(folder / "weights.pt"), str(folder / "frames.xyz")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[1:3] for line in shown[1:]] == [["Cu4", "4"], ["H2O", "3"]]
    assert float(shown[2].split()[3]) == pytest.approx(rows[1]["energy"], abs=1e-8)


def test_predict_shows_progress_on_many_frames_and_on_stderr_only(folder, tmp_path, capsys):
    many = tmp_path / "many.xyz"
    ase.io.write(many, [molecule("H2O")] * 12, format="extxyz")
    assert cli.main(["predict", str(folder / "weights.pt"), str(many)]) == 0
    captured = capsys.readouterr()
    assert "12/12" in captured.err
    assert len(captured.out.splitlines()) == 13


def test_verify_accepts_the_model_and_refuses_another(folder, tmp_path):
    done = run("verify", folder / "weights.pt", folder / "frames.xyz")
    assert done.returncode == 0, done.stderr
    assert "equal to tiny-conservative on 2 structures" in done.stdout
    other = tiny_model("conservative")
    with torch.no_grad():
        other.energy_head.reference[29] += 1e-3
    checkpoint.save(other, tmp_path / "other.safetensors")
    done = run("verify", folder / "weights.pt", "--model", tmp_path / "other.safetensors")
    assert done.returncode == 1
    assert "verify: the model has weights with SHA-256" in done.stderr


def test_verify_notices_an_artefact_that_computes_something_else(folder, tmp_path):
    """Negative control: the metadata of one model on the payload of another."""
    other = tiny_model("conservative")
    with torch.no_grad():
        other.energy_head.reference[29] += 1e-3
    compile_torchscript(other, tmp_path / "payload.pt")
    artefact.write(
        tmp_path / "payload.pt", artefact.read_metadata(folder / "weights.pt"), tmp_path / "liar.pt"
    )
    done = run("verify", tmp_path / "liar.pt", folder / "frames.xyz")
    assert done.returncode == 1
    assert "artefact and eager model differ: energy 1.00e-03 > 1e-10" in done.stderr


def test_verify_asks_for_a_checkpoint_that_was_moved(folder, tmp_path, capsys):
    record = {**artefact.read_metadata(folder / "weights.pt"), "source": "gone.safetensors"}
    payload = tmp_path / "payload.pt"
    compile_torchscript(tiny_model("conservative"), payload)
    artefact.write(payload, record, tmp_path / "moved.pt")
    assert cli.main(["verify", str(tmp_path / "moved.pt")]) == 1
    assert (
        "was made from `gone.safetensors`, which is not here; name it with --model" in capsys.readouterr().err
    )


def test_convert_goes_both_ways(folder, tmp_path, capsys):
    upstream, back = tmp_path / "model.ckpt", tmp_path / "back.safetensors"
    assert cli.main(["convert", str(folder / "weights.safetensors"), str(upstream)]) == 0
    assert cli.main(["convert", str(upstream), str(back), "--max-neighbors", "20"]) == 0
    assert "conservative" in capsys.readouterr().out
    assert weights_sha256(checkpoint.load(back)) == weights_sha256(
        tiny_model("conservative", dtype=torch.float32)
    )


def test_doctor_finds_the_runtime(capsys):
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "liborb_export_runtime.so" in shown
    assert torch.__version__ in shown


MISTAKES = {
    "no artefact": (["info", "missing.pt"], "load: `.*missing.pt` does not exist"),
    "info on weights": (["info", "weights.safetensors"], "is not an orb_export artefact"),
    "predict on weights": (["predict", "weights.safetensors", "frames.xyz"], "is not an orb_export artefact"),
    "no structure": (["predict", "weights.pt", "missing.xyz"], "structure: `.*missing.xyz` does not exist"),
    "unreadable structure": (
        ["predict", "weights.pt", "notes.xyz"],
        "structure: `.*notes.xyz` cannot be read by ASE",
    ),
    "no charge": (
        ["predict", "charged.pt", "water.xyz"],
        r"`.*water.xyz` frame 0: .*lacks \['charge', 'spin'\]",
    ),
    "wrong device": (
        ["predict", "weights.pt", "water.xyz", "--device", "gpu"],
        "`device` is `gpu` but must be",
    ),
    "unknown model": (["export", "orb-v3-direct-21-omat", "-o", "x.pt2"], "did you mean orb-v3-direct-2"),
    "missing checkpoint": (
        ["export", "missing.safetensors", "-o", "x.pt2"],
        "`.*missing.safetensors` does not exist",
    ),
    "missing weights": (
        ["export", "orb-v3-direct-20-omat", "--weights", "missing.ckpt", "-o", "x.pt2"],
        "`weights` is '.*missing.ckpt' but no such file exists",
    ),
    "weights for demo": (
        ["export", "demo", "--weights", "weights.safetensors", "-o", "x.pt2"],
        "`demo` brings its own",
    ),
    "structure as model": (["export", "notes.xyz", "-o", "x.pt2"], "checkpoint: "),
    "output folder": (
        ["export", "weights.safetensors", "-o", "missing/x.pt"],
        "the folder '.*missing' does not exist",
    ),
    "structure for aoti": (
        ["export", "weights.safetensors", "-o", "x.pt2", "--structure", "water.xyz"],
        "only format 'torchscript' stores one",
    ),
    "convert to nothing": (["convert", "weights.safetensors", "x.txt"], "must end in .safetensors or .ckpt"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_end_with_status_one_and_one_line(case, folder, capsys, monkeypatch):
    arguments, message = MISTAKES[case]
    monkeypatch.chdir(folder)
    before = sorted(path.name for path in folder.iterdir())
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("orb-export: error: ")
    assert re.search(message, lines[0])
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_export_for_cuda_without_cuda(folder, capsys):
    arguments = [str(folder / "weights.safetensors"), "-o", str(folder / "x.pt2"), "--device", "cuda"]
    assert cli.main(["export", *arguments]) == 1
    assert "`device` is 'cuda' but torch finds no CUDA device here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["bake"], "invalid choice: 'bake'"),
        (["export", "demo"], "required: -o/--output"),
        (["export", "demo", "-o", "model.onnx"], "'model.onnx' must end in .pt2"),
        (["export", "demo", "-o", "model.pt", "--format", "aoti"], "'model.pt' must end in .pt2"),
        (["export", "demo", "-o", "x.pt2", "--dtype", "float16"], "invalid choice: 'float16'"),
        (["predict", "weights.pt"], "required: STRUCTURE"),
    ],
    ids=["no command", "unknown command", "no output", "suffix", "suffix of format", "dtype", "no structure"],
)
def test_wrong_usage_ends_with_status_two(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_in_a_real_process_shows_no_traceback(folder):
    done = run("predict", folder / "charged.pt", folder / "water.xyz")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
