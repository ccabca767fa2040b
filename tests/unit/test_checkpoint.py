"""Checkpoints in and out. Oracle for keys and shapes: a dump of upstream's models in ../shared/reference."""

import json
import pickle
import re

import pytest
import safetensors.torch
import torch
from orb_export import checkpoint, variants
from orb_export.model import OrbConfig, OrbV3

from tests.reference.stored_cases import MODELS

REFERENCE_KEY = "heads.energy.reference.linear.weight"
DUMPED = {  # name in the dump -> our configuration
    "cons": {"kind": "conservative"},
    "direct": {"kind": "direct"},
    "cons-omol": {"kind": "conservative", "has_charge_spin": True},
    "direct-omol": {"kind": "direct", "has_charge_spin": True, "has_stress": False},
}


def assert_same_state(actual, expected):
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        assert actual[key].shape == tensor.shape, key
        assert actual[key].dtype == tensor.dtype, key
        assert (actual[key] == tensor).all(), key


@pytest.mark.parametrize("name", MODELS)
def test_upstream_state_survives_the_round_trip(stored, name):
    state = stored.state_dict(name)
    assert_same_state(
        checkpoint.to_upstream_state_dict(checkpoint.from_upstream_state_dict(state, 20)), state
    )


@pytest.mark.parametrize("name", DUMPED)
def test_keys_and_shapes_of_full_size_models_are_upstreams(shared, name):
    dump = (shared / "reference/orb_v3_state_dicts.txt").read_text()
    section = next(s for s in dump.split("===== ")[1:] if s.split()[0].replace("_", "-") == name)
    rows = re.findall(r"^\s*(\S+) \(([\d, ]*)\) (\S+)$", section, flags=re.MULTILINE)
    expected = {key: tuple(int(n) for n in re.findall(r"\d+", shape)) for key, shape, _ in rows}
    assert len(expected) == int(section.split()[2])
    with torch.device("meta"):
        state = checkpoint.to_upstream_state_dict(OrbV3(OrbConfig(**DUMPED[name])))
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected


@pytest.mark.parametrize("name", MODELS)
def test_sizes_and_kind_are_read_from_the_tensors(stored, name):
    config = stored.model(name, cap=77).config
    assert (config.channels, config.hidden, config.head_hidden, config.layers) == (32, 64, 16, 2)
    assert config.max_neighbors == 77
    assert config.kind == {"c": "conservative", "d": "direct"}[name[0]]
    assert config.has_charge_spin == name.endswith("omol")
    assert config.has_stress == (name != "direct_omol")


def old_heads(state):
    """Names of the heads of the v2 era."""
    new = {"heads.forces.": "node_head.", "heads.energy.": "graph_head.", "heads.stress.": "stress_head."}
    for now, then in new.items():
        state = {key.replace(now, then): tensor for key, tensor in state.items()}
    return state


HISTORIC = {
    "heads of the v2 era": old_heads,
    "British normalisers": lambda s: {k.replace("normalizer.", "normaliser."): t for k, t in s.items()},
    "wrapped in a denoiser": lambda s: {
        **{k.replace("model.", "model.model.", 1) if k.startswith("model.") else k: t for k, t in s.items()},
        "model.noise_schedule": torch.zeros(3),
    },
    "references with two dimensions": lambda s: {**s, REFERENCE_KEY: s[REFERENCE_KEY][None]},
    "counters without a dimension": lambda s: {
        k: t.reshape(()) if k.endswith("num_batches_tracked") else t for k, t in s.items()
    },
    "counters with a dimension": lambda s: {
        k: t.reshape(1) if k.endswith("num_batches_tracked") else t for k, t in s.items()
    },
}


@pytest.mark.parametrize("spelling", HISTORIC)
@pytest.mark.parametrize("name", ["cons", "direct"])
def test_historic_spellings_load_the_same(stored, name, spelling):
    state = stored.state_dict(name)
    loaded = checkpoint.from_upstream_state_dict(HISTORIC[spelling](dict(state)), 20)
    assert_same_state(checkpoint.to_upstream_state_dict(loaded), state)


class TestMisfits:
    """What does not fit is listed, never skipped."""

    def test_missing_and_unexpected_keys_are_listed(self, stored):
        state = stored.state_dict("direct")
        del state["heads.confidence.mlp.NN-1.bias"], state["model._decoder.node_fn.mlp.NN-0.bias"]
        state |= {"heads.charges.weight": torch.zeros(1), "zzz": torch.zeros(1)}
        with pytest.raises(ValueError, match="does not fit") as caught:
            checkpoint.from_upstream_state_dict(state, 20)
        for part in (
            "missing keys: heads.confidence.mlp.NN-1.bias, model._decoder.node_fn.mlp.NN-0.bias;",
            "unexpected keys: heads.charges.weight, zzz",
        ):
            assert part in str(caught.value)

    def test_wrong_shapes_are_named(self, stored):
        state = stored.state_dict("cons")
        state["heads.energy.mlp.NN-1.weight"] = torch.zeros(2, 16)
        message = r"heads\.energy\.mlp\.NN-1\.weight has shape \(2, 16\) but must have shape \(1, 16\)"
        with pytest.raises(ValueError, match=message):
            checkpoint.from_upstream_state_dict(state, 20)

    def test_other_architectures_are_refused(self, stored):
        state = {k: t for k, t in stored.state_dict("cons").items() if "rbf_transform" not in k}
        with pytest.raises(ValueError, match=r"is no Orb-v3 checkpoint; missing keys: model\.rbf_transform"):
            checkpoint.from_upstream_state_dict(state, 20)

    def test_a_bare_network_without_heads_is_refused(self, stored):
        state = stored.state_dict("cons")
        bare = {k.removeprefix("model."): t for k, t in state.items() if k.startswith("model.")}
        with pytest.raises(ValueError, match=r"missing keys: heads\.energy\.mlp\.NN-0\.weight$"):
            checkpoint.from_upstream_state_dict(bare, 20)


class TestOwnFiles:
    """safetensors with the config in the header."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("name", MODELS)
    def test_round_trip(self, stored, tmp_path, name, dtype):
        model = stored.model(name, dtype, cap=33)
        checkpoint.save(model, tmp_path / "m.safetensors")
        loaded = checkpoint.load(tmp_path / "m.safetensors")
        assert loaded.config == model.config
        assert not loaded.training
        assert_same_state(loaded.state_dict(), model.state_dict())
        assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]

    def test_dtype_and_cap_can_be_chosen_at_loading(self, stored, tmp_path):
        checkpoint.save(stored.model("cons", torch.float32), tmp_path / "m.safetensors")
        loaded = checkpoint.load(tmp_path / "m.safetensors", dtype=torch.float64, max_neighbors=50)
        assert loaded.dtype == torch.float64
        assert loaded.config.max_neighbors == 50

    def test_config_is_readable_json(self, stored, tmp_path):
        checkpoint.save(stored.model("direct"), tmp_path / "m.safetensors")
        with safetensors.safe_open(tmp_path / "m.safetensors", framework="pt") as file:
            config = json.loads(file.metadata()[checkpoint.CONFIG_KEY])
        assert config["kind"] == "direct"

    def test_other_suffixes_are_refused(self, stored, tmp_path):
        with pytest.raises(ValueError, match=r"`path` is '.*m\.bin' but must end in \.safetensors"):
            checkpoint.save(stored.model("cons"), tmp_path / "m.bin")

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            (None, "has no `orb_export_config` in its header"),
            ({checkpoint.CONFIG_KEY: "{"}, "has a config that this version cannot read"),
            ({checkpoint.CONFIG_KEY: '{"kind": "direct", "flavor": 1}'}, "cannot read: .*flavor"),
            ({checkpoint.CONFIG_KEY: '{"kind": "odd"}'}, "`kind` is 'odd'"),
            ({checkpoint.CONFIG_KEY: '{"kind": "direct", "layers": 1, "hidden": 8}'}, "missing keys: "),
        ],
    )
    def test_foreign_headers_are_named(self, tmp_path, metadata, message):
        path = tmp_path / "m.safetensors"
        safetensors.torch.save_file({"weight": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(ValueError, match=message):
            checkpoint.load(path)

    def test_truncated_files_are_named(self, stored, tmp_path):
        path = tmp_path / "m.safetensors"
        checkpoint.save(stored.model("cons"), path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"m\.safetensors` is not a readable safetensors file"):
            checkpoint.load(path)


class TestUpstreamFiles:
    """`.ckpt` files."""

    @pytest.fixture
    def file(self, stored, tmp_path):
        torch.save(stored.state_dict("direct"), tmp_path / "my.ckpt")
        return tmp_path / "my.ckpt"

    def test_cap_must_be_given_when_the_name_does_not_tell(self, file):
        with pytest.raises(ValueError, match=r"`max_neighbors` is None but must be given, since `my\.ckpt`"):
            checkpoint.load(file)
        assert checkpoint.load(file, max_neighbors=20).config.max_neighbors == 20

    @pytest.mark.parametrize(("name", "cap"), [("orb-v3-direct-20-omat", 20), ("orb-v3-direct-inf-mpa", 120)])
    def test_cap_and_name_follow_from_a_published_file_name(self, file, name, cap):
        published = file.rename(file.with_name(variants.get(name).file_name))
        config = checkpoint.load(published).config
        assert (config.name, config.max_neighbors) == (name, cap)
        assert "Apache-2.0" in config.description

    def test_family_name_with_local_weights(self, file):
        model = checkpoint.load("orb_v3_direct_20_omat", weights=file, dtype=torch.float64)
        assert (model.config.name, model.dtype) == ("orb-v3-direct-20-omat", torch.float64)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "orb-v3-conservative-20-omat",
                "has kind 'direct' but orb-v3-conservative-20-omat has 'conservative'",
            ),
            ("orb-v3-direct-omol", "has has_charge_spin False but orb-v3-direct-omol has True"),
        ],
    )
    def test_weights_of_another_variant_are_refused(self, file, name, message):
        with pytest.raises(ValueError, match=message):
            checkpoint.load(name, weights=file)

    def test_weights_beside_a_file_are_refused(self, file):
        with pytest.raises(ValueError, match=r"`weights` is .* but `model` names a file already"):
            checkpoint.load(file, weights=file)

    def test_absent_files_are_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"absent\.ckpt` does not exist"):
            checkpoint.load(tmp_path / "absent.ckpt", max_neighbors=20)

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
    def test_unreadable_files_are_named(self, tmp_path, content):
        path = tmp_path / "bad.ckpt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.ckpt` is not a readable checkpoint"):
            checkpoint.load(path, max_neighbors=20)

    def test_truncated_files_are_named(self, file):
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(ValueError, match=r"my\.ckpt` is not a readable checkpoint"):
            checkpoint.load(file, max_neighbors=20)

    def test_code_in_a_file_is_not_run(self, tmp_path):
        path = tmp_path / "evil.ckpt"
        path.write_bytes(pickle.dumps(_Touch(str(tmp_path / "touched")), protocol=2))
        with pytest.raises(ValueError, match=r"evil\.ckpt` is not a readable checkpoint"):
            checkpoint.load(path, max_neighbors=20)
        assert not (tmp_path / "touched").exists()

    def test_nested_checkpoints_are_refused(self, stored, tmp_path):
        torch.save({"state_dict": stored.state_dict("cons"), "epoch": 3}, tmp_path / "nested.ckpt")
        with pytest.raises(ValueError, match=r"nested\.ckpt` holds dict but must hold a flat state dict"):
            checkpoint.load(tmp_path / "nested.ckpt", max_neighbors=20)


class _Touch:
    """Unpickles into a call that leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


class TestConvert:
    """Both ways."""

    @pytest.mark.parametrize("name", MODELS)
    def test_there_and_back_changes_nothing(self, stored, tmp_path, name):
        torch.save(stored.state_dict(name), tmp_path / "a.ckpt")
        checkpoint.convert(tmp_path / "a.ckpt", tmp_path / "b.safetensors", max_neighbors=120)
        checkpoint.convert(tmp_path / "b.safetensors", tmp_path / "c.ckpt")
        back = torch.load(tmp_path / "c.ckpt", weights_only=True)
        assert_same_state(back, stored.state_dict(name))
        assert checkpoint.load(tmp_path / "b.safetensors").config.max_neighbors == 120
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ckpt", "b.safetensors", "c.ckpt"]

    def test_unknown_formats_are_refused(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"`destination` is '.*' but must end in \.safetensors or \.ckpt"
        ):
            checkpoint.convert(tmp_path / "a.ckpt", tmp_path / "b.onnx")
