"""The config file: defaults, values that are used, and mistakes, each named with its value."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from orb_export import cli
from orb_export.train.config import (
    SIZES,
    OptimizerOptions,
    Options,
    TrainConfig,
    parse_config,
    parse_yaml,
    read_config,
)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DATA = {"train": ["a.xyz"]}


def test_data_is_all_that_is_needed(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data:\n  train: [a.xyz]\n")
    config = read_config(file)
    assert config.data.train == ("a.xyz",)
    assert config.reference_mode == "refitted"


def test_numbers_may_be_written_as_people_write_them(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "data: {train: [a.xyz]}\noptimizer: {learning_rate: 1e-3, clip: 1}\nloss: {equigrad: 2.5E-5}"
    )
    config = read_config(file)
    assert (config.optimizer.learning_rate, config.optimizer.clip, config.loss.equigrad) == (
        1e-3,
        1.0,
        2.5e-5,
    )


@pytest.mark.parametrize("size", SIZES)
def test_sizes_have_defaults_that_single_numbers_replace(size):
    model = parse_config({"data": DATA, "model": {"size": size}}, "c").model
    assert model.dimensions() == SIZES[size]
    model = parse_config({"data": DATA, "model": {"size": size, "layers": 4}}, "c").model
    assert model.dimensions() == (*SIZES[size][:3], 4)


def test_the_largest_size_is_the_published_one():
    from orb_export.model import OrbConfig

    published = OrbConfig("conservative")
    assert SIZES["orb-v3"] == (
        published.channels,
        published.hidden,
        published.head_hidden,
        published.layers,
    )


def test_rate_warms_up_holds_and_falls_to_zero():
    options = OptimizerOptions(learning_rate=0.5, warmup_steps=10, decay_fraction=0.4)
    assert options.factor(0, 1000) == pytest.approx(0.1)
    assert options.factor(9, 1000) == options.factor(600, 1000) == pytest.approx(1.0)
    assert options.factor(800, 1000) == pytest.approx(0.5)
    assert options.factor(1000, 1000) == pytest.approx(0.0)
    assert OptimizerOptions(schedule="constant", warmup_steps=10).factor(1000, 1000) == 1.0


def test_energy_gains_weight_while_the_rate_decays():
    loss = parse_config({"data": DATA, "loss": {"energy": 0.1, "final_energy": 0.9, "forces": 2.0}}, "c").loss
    assert [loss.at(decay).energy for decay in (0.0, 0.5, 1.0)] == pytest.approx([0.1, 0.3, 0.9])
    assert {loss.at(decay).forces for decay in (0.0, 0.5, 1.0)} == {2.0}
    constant = parse_config({"data": DATA, "loss": {"energy": 0.1, "final_energy": None}}, "c").loss
    assert constant.at(1.0).energy == 0.1
    from_nothing = parse_config({"data": DATA, "loss": {"energy": 0, "final_energy": 10}}, "c").loss
    assert from_nothing.at(0.5).energy == pytest.approx(5.0)


def test_every_option_of_the_loss_reaches_its_term():
    weights = {
        "energy": 1.0,
        "forces": 2.0,
        "stress": 3.0,
        "confidence": 4.0,
        "equigrad": 5.0,
        "additivity": 6.0,
        "energy_huber_delta": 7.0,
    }
    loss = parse_config({"data": DATA, "loss": weights | {"final_energy": None}}, "c").loss
    assert dataclasses.asdict(loss.at(0.5)) == weights


def test_references_are_kept_from_a_model_and_refitted_without():
    assert parse_config({"data": DATA, "start": {"model": "x.ckpt"}}, "c").reference_mode == "kept"
    trunk = {"model": "x.ckpt", "transfer": "trunk"}
    assert parse_config({"data": DATA, "start": trunk}, "c").reference_mode == "refitted"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "c: is [] but must hold the sections of a config"),
        ({}, "c: `data` is missing"),
        ({"data": {"train": []}}, "`data.train` is [] but: "),
        ({"data": {"train": "a.xyz"}}, "`data.train` is 'a.xyz' but: input should be a valid array"),
        ({"data": DATA | {"max_edges": 0}}, "`data.max_edges` is 0 but: input should be greater than 0"),
        ({"data": DATA | {"workers": "2"}}, "`data.workers` is '2' but: input should be a valid integer"),
        ({"data": DATA | {"split": "atom"}}, "`data.split` is 'atom' but: input should be 'structure', "),
        ({"data": DATA | {"validation_fraction": 1.0}}, "`data.validation_fraction` is 1.0 but: "),
        ({"data": DATA | {"max_force": -1}}, "`data.max_force` is -1 but: "),
        ({"data": DATA | {"cutoff": 5.0}}, "`data.cutoff` is 5.0 but there is no such option"),
        ({"data": DATA, "modle": {}}, "`modle` is {} but there is no such option"),
        ({"data": DATA, "model": {"layers": 1.5}}, "`model.layers` is 1.5 but: "),
        ({"data": DATA, "model": {"kind": "x"}}, "`model.kind` is 'x' but: input should be 'conservative'"),
        ({"data": DATA, "seed": -1}, "`seed` is -1 but: "),
        (
            {"data": DATA, "optimizer": {"ema": 1.0}},
            "`optimizer.ema` is 1.0 but: input should be less than 1",
        ),
        ({"data": DATA, "optimizer": {"clip": True}}, "`optimizer.clip` is True but: "),
        ({"data": DATA, "loss": {"forces": float("nan")}}, "`loss.forces` is nan but: "),
        (
            {"data": DATA, "loss": {"energy_huber_delta": 0}},
            "`loss.energy_huber_delta` is 0 but: input should be greater than 0",
        ),
        ({"data": DATA, "machine": {"precision": "half"}}, "`machine.precision` is 'half' but: "),
        (
            {"data": DATA, "references": {"mode": "given"}},
            "`references`: `values` are needed by mode 'given'",
        ),
        (
            {"data": DATA, "references": {"values": {"H": 1.0}}},
            "`values` are needed by mode 'given' and by no",
        ),
        (
            {"data": DATA, "optimizer": {"precondition_steps": 5}},
            "`optimizer`: `precondition_steps` is 5 but `name` is 'adam': it is of 'soap'",
        ),
        (
            {"data": DATA, "references": {"mode": "given", "values": {"Qq": 1.0}}},
            "`references`: `values` has ['Qq'] but must be chemical symbols",
        ),
        ({"data": DATA, "machine": {"strategy": "fsdp"}}, "`optimizer.ema` is 0.999 but must be 0 with "),
        (
            {"data": DATA, "machine": {"strategy": "fsdp", "accelerator": "cpu"}, "optimizer": {"ema": 0}},
            "`machine.accelerator` is 'cpu' but `machine.strategy` fsdp needs GPUs",
        ),
        (
            {"data": DATA, "machine": {"strategy": "fsdp"}, "optimizer": {"ema": 0, "equivariant": True}},
            "`optimizer.equivariant` is true but must be false with `machine.strategy` fsdp",
        ),
        ({"data": DATA, "references": {"mode": "kept"}}, "`references.mode` is 'kept' but there is no model"),
        ({"data": DATA, "model": {}, "start": {"model": "x"}}, "`model` and `start` are both given"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_mistakes_are_named(content, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared below)
        parse_config(content, "c")
    assert message in str(caught.value)


def test_every_mistake_is_named_at_once():
    content = {"data": {"train": ["a"], "workers": -1}, "optimizer": {"epochs": 0, "typo": 1}}
    with pytest.raises(ValueError, match=r"data.workers.*optimizer.epochs.*optimizer.typo"):
        parse_config(content, "c")


def test_a_file_that_is_missing_or_no_yaml_is_named(tmp_path, capsys):
    assert cli.main(["train", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml` does not exist" in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text("data: [")
    assert cli.main(["train", str(tmp_path / "bad.yaml")]) == 1
    assert "bad.yaml: not YAML" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text("data: {train: [a.xyz]}")
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--max-steps", "0"]) == 1
    assert "`max_steps` is 0 but must be positive" in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_way_to_get_it(tmp_path):
    (tmp_path / "run.yaml").write_text("data: {train: [a.xyz]}")
    script = (
        "import sys; sys.modules['lightning'] = None; from orb_export import cli; "
        f"sys.exit(cli.main(['train', {str(tmp_path / 'run.yaml')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "lightning" in done.stderr
    assert "orb-export[train]" in done.stderr


def test_configs_in_the_docs_are_valid_and_every_option_is_described():
    text = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    documents = [parse_yaml(part, "docs") for block in blocks for part in block.split("---\n")]
    assert len(documents) == 3
    for document in documents:
        parse_config({"data": DATA} | document, "docs")
    sections = [field.annotation for field in TrainConfig.model_fields.values()]
    sections = [part for section in sections for part in (get_args(section) or (section,))]
    for section in sections:
        if isinstance(section, type) and issubclass(section, Options):
            missing = [
                name for name in section.model_fields if f"`{name}" not in text and f" {name}:" not in text
            ]
            assert not missing, f"{section.__name__}: {missing}"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_valid_config(path):
    assert read_config(path).data.train
