"""Training runs: learning, exact resume, processes. Labels: effective-medium theory; tiny models."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from orb_export import cli
from orb_export.artefact import read_metadata
from orb_export.checkpoint import load
from orb_export.train.batches import evaluation_loader
from orb_export.train.catalog import StructureSet
from orb_export.train.config import DataOptions, DenoisingOptions, parse_config
from orb_export.train.data import collate, read_samples
from orb_export.train.equivariant import Ties
from orb_export.train.losses import denoising_loss, predict
from orb_export.train.report import errors
from orb_export.train.run import CHECKPOINTS, MODEL, train

from tests.accuracy import within

CAP = 30


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    generator = np.random.default_rng(7)
    frames = []
    for _ in range(8):
        atoms = bulk("Al", "fcc", a=4.05, cubic=True)
        atoms.set_cell(atoms.cell @ (np.eye(3) + generator.normal(size=(3, 3)) * 0.02), scale_atoms=True)
        atoms.positions += generator.normal(size=(4, 3)) * 0.15
        atoms.calc = EMT()
        atoms.get_stress()
        frames.append(atoms)
    file = tmp_path_factory.mktemp("data") / "al.xyz"
    write(file, frames)
    return file


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over threads may differ in the last bit from run to run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(path, **changes):
    """A run of 12 steps in 4 passes; `changes` are sections with dots, `optimizer__epochs=2`."""
    content = {
        "seed": 3,
        "data": {"train": [str(path)], "validation_fraction": 0.25, "max_edges": 250},
        "model": {"size": "tiny", "channels": 8, "max_neighbors": CAP},
        "optimizer": {"epochs": 4, "warmup_steps": 3, "ema": 0.9},
        "machine": {"accelerator": "cpu", "threads": 1, "checkpoint_steps": 1, "log_steps": 1},
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            content[section][key] = value
        else:
            content[section] = value
    return content


def run(output, path, *, resume=False, max_steps=None, **changes):
    return train(parse_config(settings(path, **changes), "test"), output, resume=resume, max_steps=max_steps)


def weights(output):
    return load(output / MODEL).state_dict()


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


@pytest.fixture(scope="module")
def unbroken(path, tmp_path_factory):
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("unbroken") / "run"
    assert run(output, path)
    return output


@pytest.mark.parametrize("stop", [1, 6, 11], ids=lambda stop: f"after {stop} steps")
def test_stopped_and_resumed_run_equals_the_unbroken_one_bitwise(path, unbroken, tmp_path, stop):
    assert not run(tmp_path, path, max_steps=stop)
    assert run(tmp_path, path, resume=True)
    assert_same_weights(weights(tmp_path), weights(unbroken))


@pytest.fixture
def groups(path, tmp_path):
    """The same structures, two of which have a source of their own."""
    frames = read(path, ":")
    for number, atoms in enumerate(frames):
        atoms.info["rank"] = "rare" if number < 2 else "common"
    file = tmp_path / "groups.xyz"
    write(file, frames)
    return file


BALANCED = {"data__source_key": "rank", "data__balance": 1.0}
SOAP = {"optimizer__name": "soap", "optimizer__precondition_steps": 3}


def test_a_stopped_run_with_soap_and_balanced_sources_equals_the_unbroken_one_bitwise(groups, tmp_path):
    changes = BALANCED | SOAP
    assert run(tmp_path / "whole", groups, **changes)
    assert not run(tmp_path / "parts", groups, max_steps=7, **changes)
    assert run(tmp_path / "parts", groups, resume=True, **changes)
    assert_same_weights(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


@pytest.mark.parametrize(
    "change",
    [{"data__balance": 0.0}, {"optimizer__precondition_steps": 2}, {"optimizer__weight_decay": 0.1}],
    ids=str,
)
def test_options_of_soap_and_balance_change_the_weights(groups, tmp_path, change):
    assert run(tmp_path / "one", groups, **BALANCED | SOAP)
    assert run(tmp_path / "other", groups, **BALANCED | SOAP | change)
    ours, theirs = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_that_is_told_to_stop_leaves_a_checkpoint_of_that_step(path, unbroken, tmp_path):
    assert not run(tmp_path, path, max_steps=5, machine__checkpoint_steps=1000)
    assert [file.name for file in (tmp_path / CHECKPOINTS).iterdir()] == ["step=000000005.ckpt"]
    assert run(tmp_path, path, resume=True)
    assert_same_weights(weights(tmp_path), weights(unbroken))


def test_a_complete_run_that_is_resumed_writes_the_same_weights_again(path, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    (tmp_path / "run" / MODEL).unlink()
    assert run(tmp_path / "run", path, resume=True)
    assert_same_weights(weights(tmp_path / "run"), weights(unbroken))


def command(output, config, *words):
    file = output.parent / f"{output.name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "orb_export.cli", "train", str(file), "-o", str(output), *words]


def test_killed_and_resumed_run_equals_the_unbroken_one_bitwise(path, tmp_path):
    """SIGKILL at some moment of the run: whatever was written last is what the resumed run starts from."""
    config = settings(path, optimizer__epochs=400)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    output = tmp_path / "killed"
    process = subprocess.Popen(
        command(output, config), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while not list((output / CHECKPOINTS).glob("*1?.ckpt")):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    killed_at = max(int(file.stem.partition("=")[2]) for file in (output / CHECKPOINTS).glob("*.ckpt"))
    assert 0 < killed_at < 100
    # the schedule was that of 400 epochs until here, so the unbroken run has it, too
    steps = killed_at + 5
    assert not run(output, path, resume=True, max_steps=steps, optimizer__epochs=400)
    assert not run(tmp_path / "whole", path, max_steps=steps, optimizer__epochs=400)
    states = [
        torch.load(folder / CHECKPOINTS / f"step={steps:09d}.ckpt", weights_only=True)
        for folder in (output, tmp_path / "whole")
    ]
    for part in ("state_dict", "current_model_state"):
        assert_same_weights(states[0][part], states[1][part])


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("kind", ["conservative", "direct", "equivariant"])
def test_two_processes_learn_what_one_learns(path, tmp_path, kind):
    """torchrun with gloo against one process, same batches; float64, relative to 1 + largest weight."""
    changes = {
        "model": {"size": "tiny", "channels": 8, "max_neighbors": CAP, "kind": kind},
        "loss": {"additivity": 0.1},
        "machine__precision": "float64",
        "optimizer__epochs": 2,
    }
    if kind == "equivariant":
        changes |= {"model": {"size": "tiny", "max_neighbors": CAP}, "optimizer__equivariant": True}
    assert run(tmp_path / "one", path, **changes)
    config = settings(path, **changes, machine__devices=2, machine__strategy="ddp")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launch += [f"--master-port={free_port()}", *command(tmp_path / "two", config)[1:]]
    done = subprocess.run(
        launch, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        difference = float((value - two[name]).abs().max() / (1 + value.abs().max()))
        assert within("two processes against one", f"weights, {kind}", difference, 1e-6)


def test_training_lowers_the_errors_on_structures_it_has_not_seen(path, tmp_path):
    changes = {
        "data__train": [f"{path}@:6"],
        "data__validation_fraction": 0.0,
        "model": {"size": "tiny"},
        "optimizer": {"epochs": 25, "learning_rate": 5e-3, "warmup_steps": 5, "ema": 0.9},
        "machine__checkpoint_steps": 1000,
    }
    held_out = read_samples([f"{path}@6:"], 120)
    before_steps = {**changes, "optimizer": {**changes["optimizer"], "epochs": 1, "learning_rate": 1e-12}}
    run(tmp_path / "before", path, **before_steps)
    run(tmp_path / "after", path, **changes)
    before, after = (errors(load(tmp_path / name / MODEL), held_out) for name in ("before", "after"))
    assert after["forces_mae"] < 0.5 * before["forces_mae"]


@pytest.mark.parametrize(
    "changes",
    [{"data__in_memory": False}, {"data__workers": 2}, {"data__in_memory": False, "data__workers": 1}],
    ids=lambda changes: " ".join(f"{name[6:]}={value}" for name, value in changes.items()),
)
def test_weights_do_not_depend_on_how_the_data_are_read(path, unbroken, tmp_path, changes):
    assert run(tmp_path, path, **changes)
    assert_same_weights(weights(tmp_path), weights(unbroken))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"data__rotate": False},
        {"data__max_edges": 500},
        {"data__drop_stress": ["al"]},
        {"loss": {"equigrad": 0.01}},
        {"loss": {"additivity": 0.1}},
        {"loss": {"energy": 0.1}},
        {"loss": {"energy_huber_delta": 1e-3}},
        {"loss": {"final_energy": 0.1}},
        {"loss": {"confidence": 0.5}},
        {"optimizer__clip": 1e-3},
        {"optimizer__ema": 0.5},
        {"optimizer__weight_decay": 0.1},
        {"optimizer__warmup_steps": 0},
        {"optimizer__name": "soap"},
        {"optimizer__schedule": "one-cycle"},
        {"optimizer__schedule": "constant"},
        {"optimizer__decay_fraction": 1.0},
        {"references": {"mode": "trained"}},
        {"machine__precision": "bf16-mixed"},
    ],
    ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_every_option_of_the_course_changes_the_weights(path, unbroken, tmp_path, changes):
    assert run(tmp_path, path, **changes)
    ours, theirs = weights(tmp_path), weights(unbroken)
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())
    assert all(value.isfinite().all() for value in ours.values())


def test_an_equivariant_run_resumes_bitwise_and_another_goes_on_from_it(path, tmp_path):
    options = {"model": {"size": "tiny", "max_neighbors": CAP}, "optimizer__name": "soap"}
    tied = options | {"optimizer__equivariant": True}
    assert run(tmp_path / "first", path, **tied)
    assert not run(tmp_path / "parts", path, max_steps=5, **tied)
    assert run(tmp_path / "parts", path, resume=True, **tied)
    assert_same_weights(weights(tmp_path / "parts"), weights(tmp_path / "first"))

    start = {"model": None, "start": {"model": str(tmp_path / "first" / MODEL)}}
    assert run(tmp_path / "second", path, **tied | start)
    Ties(load(tmp_path / "second" / MODEL))  # raises otherwise
    changed = weights(tmp_path / "second")
    assert any(not torch.equal(value, changed[name]) for name, value in weights(tmp_path / "first").items())

    assert run(tmp_path / "free", path, **options)
    for name, symmetric in (("first", True), ("second", True), ("free", False)):
        found = largest_change_under_symmetries(load(tmp_path / name / MODEL), path)
        assert found < 1e-12 if symmetric else found > 1e-9, (name, found)
    start["start"] = {"model": str(tmp_path / "free" / MODEL)}
    with pytest.raises(
        ValueError, match=r"`optimizer\.equivariant` is true but `start\.model` was trained w"
    ):
        run(tmp_path / "refused", path, **tied | start)


def largest_change_under_symmetries(model, path):
    """Of energies (eV/atom), by operations that only permute components of harmonics and change their signs.

    Such are inversion, a mirror, and a quarter turn about y, the polar axis; other rotations are not exact.
    """
    model = model.double().eval()
    inversion, mirror = (
        -torch.eye(3, dtype=torch.float64),
        torch.diag(torch.tensor([-1.0, 1.0, 1.0]).double()),
    )
    turn = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]).double()
    changes = []
    for sample in read_samples([path], CAP):
        graph, _ = collate([sample])
        energy = float(predict(model, graph).energy.detach())
        for operation in (inversion, mirror, turn):
            turned = graph._replace(vectors=graph.vectors @ operation.T)
            changes.append(abs(float(predict(model, turned).energy.detach()) - energy) / len(graph.numbers))
    return max(changes)


def test_resuming_with_other_options_is_refused(path, tmp_path):
    run(tmp_path, path, max_steps=1)
    with pytest.raises(ValueError, match=r"`optimizer.clip` was 0\.5 and is 0\.1"):
        run(tmp_path, path, resume=True, optimizer__clip=0.1)
    with pytest.raises(ValueError, match=r"`machine.precision` was 'float32' and is 'float64'"):
        run(tmp_path, path, resume=True, machine__precision="float64")
    with pytest.raises(ValueError, match="holds a run already; give --resume to continue it"):
        run(tmp_path, path)
    with pytest.raises(ValueError, match="holds no run to resume"):
        run(tmp_path / "none", path, resume=True)
    assert run(tmp_path, path, resume=True, optimizer__epochs=2, machine__log_steps=7)


def test_a_run_leaves_report_plots_card_and_artefact(path, tmp_path, capsys):
    config = settings(path, optimizer__epochs=1, data__test=[f"{path}@6:"], name="aluminium", licence="CC0")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert cli.main(["train", str(tmp_path / "run.yaml")]) == 0
    output = tmp_path / "run"
    report = json.loads((output / "report.json").read_text())
    assert list(report) == ["held out of train", f"test {path}@6:"]
    model = load(output / MODEL)
    assert (model.config.name, model.config.elements) == ("aluminium", (13,))
    found = report[f"test {path}@6:"]
    expected = errors(model, read_samples([f"{path}@6:"], CAP))
    assert {name: found["all"][name] for name in expected} == pytest.approx(expected)
    assert found["by source"]["al"]["structures"] == 2
    assert found["by element"]["Al"] == {"atoms": 8, "forces_mae": pytest.approx(expected["forces_mae"])}
    assert sum(row["atoms"] for row in found["confidence"]) == 8
    assert found["rotational gradient"]["mean"] > 0
    plots = list(output.glob("*.png"))
    assert len(plots) == 4
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in plots)
    card = (output / "card.md").read_text()
    assert "# Model card: `aluminium`" in card
    assert "| licence | CC0 |" in card
    assert f"{found['all']['energy_mae']:.3g} meV/atom" in card
    assert read_metadata(output / "model.pt")["licence"] == "CC0"
    with (output / "logs/version_0/metrics.csv").open() as file:
        assert {"train/forces_loss", "validation/forces_mae"} <= set(next(csv.reader(file)))
    assert list((output / "logs/tensorboard").glob("events*"))


def test_dry_run_describes_model_data_batches_and_memory_and_writes_nothing(path, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings(path)))
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "data", "batches", "memory", "passes"]
    assert "6 structures to train on, 2 held out, 24 atoms" in lines[1]
    assert "12 steps in 4 epochs" in lines[2]
    assert lines[4].split()[1] == "eager"  # too small a run for a compilation to pay
    assert not (tmp_path / "run").exists()


def trained_part(before, after):
    """Names of the parts of a model whose weights differ."""
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}


def test_fine_tuning_starts_from_the_weights_and_keeps_the_references(path, unbroken, tmp_path):
    before = weights(unbroken)
    changes = {"model": None, "start": {"model": str(unbroken / MODEL)}, "optimizer__learning_rate": 1e-12}
    assert run(tmp_path, path, **changes)
    after = weights(tmp_path)
    assert torch.equal(after["energy_head.reference"], before["energy_head.reference"])
    for name, value in after.items():
        if "normalizer" not in name:
            assert (value - before[name]).abs().max() < 1e-6, name


@pytest.mark.parametrize("mode", ["trained", "given", "refitted"])
def test_references_of_a_model_can_be_trained_given_or_refitted(path, unbroken, tmp_path, mode):
    """Of labels shifted by 2 eV per atom: refitting finds the shift, within the error of the model."""
    shifted = read(path, ":")
    for atoms in shifted:
        results = atoms.calc.results | {"energy": atoms.get_potential_energy() + 2.0 * len(atoms)}
        atoms.calc = SinglePointCalculator(atoms, **results)
    write(tmp_path / "shifted.xyz", shifted)
    values = {"values": {"Al": 7.5}} if mode == "given" else {}
    changes = {
        "model": None,
        "start": {"model": str(unbroken / MODEL)},
        "references": {"mode": mode, **values},
    }
    assert run(tmp_path / "run", tmp_path / "shifted.xyz", **changes)
    before = float(weights(unbroken)["energy_head.reference"][13])
    after = float(weights(tmp_path / "run")["energy_head.reference"][13])
    if mode == "given":
        assert after == 7.5
    elif mode == "trained":
        assert 0 < abs(after - before) < 0.5
    else:
        error = errors(load(unbroken / MODEL), read_samples([path], CAP))["energy_mae"] / 1e3
        assert abs(after - before - 2.0) <= 2 * error


def test_given_references_must_cover_the_data(path, tmp_path):
    with pytest.raises(ValueError, match=r"`references.values` lacks atomic numbers \[13\]"):
        run(tmp_path, path, references={"mode": "given", "values": {"H": 1.0}})


def test_a_model_that_does_not_know_an_element_is_refused(path, unbroken, tmp_path):
    copper = bulk("Cu", cubic=True)
    copper.calc = EMT()
    copper.get_stress()
    write(tmp_path / "cu.xyz", copper)
    changes = {"model": None, "start": {"model": str(unbroken / MODEL)}, "data__validation_fraction": 0.0}
    with pytest.raises(ValueError, match=r"`start.model` does not know atomic numbers \[29\]"):
        run(tmp_path / "run", tmp_path / "cu.xyz", **changes)


def denoising(path, epochs):
    return {
        "denoising": {"min_sigma": 0.1, "max_sigma": 0.4},
        "data": {"train": [f"{path}@:6"], "max_edges": 600},
        "optimizer": {"epochs": epochs, "learning_rate": 5e-3, "warmup_steps": 3, "ema": 0.9},
        "machine__precision": "float64",
    }


def denoising_error(folder, path):
    model = load(folder / MODEL)
    structures = StructureSet([f"{path}@6:"], DataOptions(train=("x",)), CAP, False, labelled=False)
    options = DenoisingOptions(min_sigma=0.1, max_sigma=0.4)
    batches = evaluation_loader(structures, structures.catalog, 10_000, 0, options)
    return np.mean([float(denoising_loss(model, b.graph, b.noise).detach()) for b in batches])


def test_denoising_learns_to_see_noise_on_structures_it_has_not_seen(path, tmp_path):
    """Predicting nothing scores 0.75: four atoms, whose mean displacement is taken out."""
    run(tmp_path / "before", path, **denoising(path, 1))
    run(tmp_path / "after", path, **denoising(path, 60))
    before, after = (denoising_error(tmp_path / name, path) for name in ("before", "after"))
    assert after < 0.8 * before
    assert trained_part(weights(tmp_path / "before"), weights(tmp_path / "after")) == {"network", "decoder"}


@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_the_trunk_of_a_pretrained_model_can_be_transferred(path, unbroken, tmp_path, kind):
    changes = {
        "model": {"size": "tiny", "channels": 8, "max_neighbors": CAP, "kind": kind},
        "start": {"model": str(unbroken / MODEL), "transfer": "trunk"},
        "optimizer__learning_rate": 1e-12,
    }
    assert run(tmp_path, path, **changes)
    before, after = weights(unbroken), weights(tmp_path)
    trunk = [name for name in before if name.startswith("network.")]
    assert trunk
    for name in trunk:
        assert (after[name] - before[name]).abs().max() < 1e-6, name
    heads = [name for name in after if name.startswith("energy_head.mlp") and name.endswith("weight")]
    assert not any(torch.allclose(after[name], before[name]) for name in heads)
    with pytest.raises(ValueError, match=r"does not fit: `channels` 8 there and 16 here"):
        run(tmp_path / "wide", path, **(changes | {"model": {"size": "tiny", "hidden": 16}}))


def test_a_model_may_be_conditioned_on_charge_and_spin(path, tmp_path):
    frames = read(path, ":")
    for atoms in frames:
        atoms.info |= {"charge": 1, "spin": 2}
    write(tmp_path / "charged.xyz", frames)
    options = {"size": "tiny", "channels": 8, "max_neighbors": CAP, "charge_spin": True}
    assert run(tmp_path / "run", tmp_path / "charged.xyz", model=options)
    assert load(tmp_path / "run" / MODEL).config.has_charge_spin
