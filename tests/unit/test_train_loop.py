"""The training loop: learning, resuming, schedule. Labels: effective-medium theory; tiny models."""

import argparse
import csv
import json
import signal

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from orb_export.checkpoint import load
from orb_export.commands import train
from orb_export.train.config import TrainConfig
from orb_export.train.data import read_samples
from orb_export.train.loop import CHECKPOINT, LOG, MODEL, REPORT, Trainer, errors

TINY = TrainConfig(
    channels=8,
    hidden=16,
    head_hidden=8,
    layers=1,
    max_neighbors=30,
    epochs=2,
    max_edges=150,
    warmup_steps=3,
    ema=0.9,
)


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


@pytest.fixture(scope="module")
def samples(path):
    return read_samples([path], TINY.max_neighbors)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over threads may differ in the last bit from run to run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trainer(config, samples, output):
    output.mkdir(exist_ok=True)
    return Trainer(config, samples[:6], samples[6:], output)


def assert_same(left, right, where="state"):
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, list | tuple):
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    elif where != "state.place.seconds":
        assert left == right, where


@pytest.mark.parametrize("stop", [1, 3, 5], ids=lambda stop: f"after {stop} steps")
def test_interrupted_and_resumed_run_equals_the_unbroken_one_bitwise(samples, tmp_path, stop):
    unbroken = trainer(TINY, samples, tmp_path / "unbroken")
    assert unbroken.fit()
    first = trainer(TINY, samples, tmp_path / "broken")
    assert not first.fit(max_steps=stop)
    second = trainer(TINY, samples, tmp_path / "broken")
    second.resume()
    assert second.step == stop
    assert second.fit()
    assert unbroken.step > 5
    assert_same(unbroken.state(), second.state())

    def rows(name):
        with (tmp_path / name / LOG).open() as file:
            return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]

    assert rows("unbroken") == rows("broken")


def test_an_interrupted_run_continues_from_the_step_after(samples, tmp_path, monkeypatch):
    run = trainer(TINY, samples, tmp_path)
    update = run._update_average

    def interrupted_update():
        if run.step == 2:
            signal.raise_signal(signal.SIGINT)
        update()

    monkeypatch.setattr(run, "_update_average", interrupted_update)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    assert signal.getsignal(signal.SIGINT) is before
    resumed, unbroken = trainer(TINY, samples, tmp_path), trainer(TINY, samples, tmp_path / "unbroken")
    resumed.resume()
    assert resumed.step == 3
    resumed.fit()
    unbroken.fit()
    assert_same(resumed.state(), unbroken.state())


def test_training_lowers_the_errors_on_structures_it_has_not_seen(samples, tmp_path):
    config = TrainConfig(
        channels=16,
        hidden=32,
        head_hidden=16,
        layers=1,
        epochs=25,
        max_edges=300,
        learning_rate=5e-3,
        warmup_steps=5,
        ema=0.9,
    )
    run = trainer(config, samples, tmp_path)
    before = errors(run.averaged_model(), samples[6:])
    run.fit()
    after = errors(run.averaged_model(), samples[6:])
    assert after["forces_mae"] < 0.5 * before["forces_mae"]


def test_seed_decides_weights_and_order(samples, tmp_path):
    def trained(seed):
        run = trainer(TrainConfig(**{**vars(TINY), "seed": seed, "epochs": 1}), samples, tmp_path / str(seed))
        run.fit(max_steps=2)
        return run.model.network.embedding.weight.detach().clone()

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_rotation_can_be_switched_off_and_changes_the_course_of_training(samples, tmp_path):
    losses = []
    for rotate in (True, False):
        run = trainer(TrainConfig(**{**vars(TINY), "rotate": rotate}), samples, tmp_path / str(rotate))
        losses.append(run._step([0], 0.0)["loss"])
    assert losses[0] != losses[1]


def test_rate_warms_up_holds_and_falls_to_zero():
    config = TrainConfig(learning_rate=0.5, warmup_steps=10, decay_fraction=0.4)
    assert config.rate(0.0, 0) == pytest.approx(0.05)
    assert config.rate(0.0, 9) == config.rate(0.6, 1000) == pytest.approx(0.5)
    assert config.rate(0.8, 1000) == pytest.approx(0.25)
    assert config.rate(1.0, 1000) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layers", 0, "`layers` is 0 but must be positive"),
        ("ema", 1.0, "`ema` is 1.0 but must be at least 0 and below 1"),
        ("decay_fraction", 0.0, r"`decay_fraction` is 0.0 but must be in \(0, 1\]"),
        ("dtype", "half", "`dtype` is 'half' but must be"),
    ],
)
def test_bad_options_are_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{name: value})


def test_resuming_with_other_options_is_refused(samples, tmp_path):
    trainer(TINY, samples, tmp_path).fit(max_steps=1)
    other = trainer(TrainConfig(**{**vars(TINY), "clip": 0.1}), samples, tmp_path)
    with pytest.raises(ValueError, match=r"`clip` was 0\.5 and is 0\.1"):
        other.resume()
    longer = trainer(TrainConfig(**{**vars(TINY), "epochs": 3}), samples, tmp_path)
    longer.resume()
    assert longer.step == 1


def run_command(*words):
    parser = argparse.ArgumentParser()
    train.register(parser.add_subparsers())
    arguments = parser.parse_args(["train", *map(str, words)])
    return arguments.run(arguments)


def test_command_trains_resumes_and_reports(path, tmp_path, capsys):
    options = [path, "--output", tmp_path / "run", "--test", f"{path}@6:", "--threads", 1]
    for name in ("channels", "hidden", "head_hidden", "layers", "max_neighbors", "epochs", "max_edges"):
        options += ["--" + name.replace("_", "-"), getattr(TINY, name)]
    assert run_command(*options, "--max-steps", 2) == 3
    with pytest.raises(ValueError, match="holds a run already; give --resume"):
        run_command(*options)
    assert run_command(*options, "--resume") == 0
    assert (tmp_path / "run" / CHECKPOINT).is_file()
    report = json.loads((tmp_path / "run" / REPORT).read_text())
    model = load(tmp_path / "run" / MODEL)
    assert model.config.channels == TINY.channels
    assert model.config.elements == tuple(sorted({z for atoms in read(path, ":") for z in atoms.numbers}))
    expected = errors(model, read_samples([f"{path}@6:"], TINY.max_neighbors))
    assert report[f"{path}@6:"] == pytest.approx(expected)
    assert f"{path}@6:: energy_mae" in capsys.readouterr().out


def test_command_refuses_to_resume_nothing(path, tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint to resume"):
        run_command(path, "--output", tmp_path / "none", "--resume")


def test_energy_gains_weight_while_the_rate_decays():
    config = TrainConfig(energy_weight=0.1, final_energy_weight=0.9, decay_fraction=0.5, forces_weight=2.0)
    assert config.loss_weights(0.5).energy == pytest.approx(0.1)
    assert config.loss_weights(0.75).energy == pytest.approx(0.5)
    assert config.loss_weights(1.0).energy == pytest.approx(0.9)
    assert {config.loss_weights(progress).forces for progress in (0.0, 0.6, 1.0)} == {2.0}
