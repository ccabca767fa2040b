"""Malformed inputs: each gives one clear error that names the argument and, where there are two, both sides.

Three tables: files, graphs as hosts pass them to the runtime, structures as users pass them to Python.
"""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from orb_export import artefact
from orb_export.contract import METADATA_ENTRY
from orb_export.export import export_model, record
from orb_export.export.aoti import processor
from orb_export.export.torchscript import compile_torchscript

from tests.artefacts import forge, forge_record, tiny_model

NAN = float("nan")


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> SimpleNamespace:
    """A payload of torch, its record, a good artefact of it, and a plain zip archive."""
    folder = tmp_path_factory.mktemp("errors")
    model = tiny_model("conservative")
    payload, good, plain = folder / "payload.pt", folder / "good.pt", folder / "plain.zip"
    compile_torchscript(model, payload)
    description = record.describe(model, "torchscript", "tiny", "MIT")
    artefact.write(payload, description, good)
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("readme", "nothing to see here")
    return SimpleNamespace(payload=payload, record=description, good=good, plain=plain)


def _bytes(change):
    """A file made of the bytes of the good artefact."""

    def make(material, path: Path) -> Path:
        path.write_bytes(change(material.good.read_bytes()))
        return path

    return make


def _record(payload="payload", **changes):
    """An artefact with an intact payload and a changed record."""
    return lambda material, path: forge_record(getattr(material, payload), path, material.record, **changes)


def _text(text, compression=zipfile.ZIP_STORED):
    """An artefact with an arbitrary record."""
    return lambda material, path: forge(material.payload, path, text, compression)


def _flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def _in_record(data: bytes) -> bytes:
    return _flip(data, data.rindex(b"arXiv"))


def _in_directory(data: bytes) -> bytes:
    return _flip(data, data.rindex(b"PK\x01\x02"))


def _with_another_entry(material, path: Path) -> Path:
    path.write_bytes(material.good.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("extra", "added later")
    return path


def _wrong_size(material, path: Path) -> Path:
    return forge(
        material.payload, path, json.dumps({**material.record, "payload_bytes": 5, "payload_sha256": ""})
    )


TIES = {"rule": "nearest", "tolerance": 1e-6, "direction": [0.5377, 0.6763, 0.5036]}
CPU = {"machine": "x86_64", "features": []}
FILES = {
    "missing file": (lambda m, path: path, "does not exist"),
    "folder": (lambda m, path: path.parent, "is not a file"),
    "empty file": (_bytes(lambda data: b""), "0 bytes, no zip archive"),
    "text file": (
        _bytes(lambda data: b"units metal\n" * 40),
        "is not an orb_export artefact: it is no zip archive",
    ),
    "other zip archive": (lambda m, path: m.plain, f"the archive has no record `{METADATA_ENTRY}`"),
    "plain TorchScript file": (lambda m, path: m.payload, f"the archive has no record `{METADATA_ENTRY}`"),
    "first half of an artefact": (_bytes(lambda data: data[: len(data) // 2]), "is truncated"),
    "artefact without its last byte": (_bytes(lambda data: data[:-1]), "is truncated"),
    "one bit of the payload": (
        _bytes(lambda data: _flip(data, len(data) // 2)),
        "is altered: its payload has SHA-256",
    ),
    "one bit of the record": (_bytes(_in_record), "is altered: the checksum of its metadata record"),
    "one bit of the directory": (_bytes(_in_directory), "is altered: its zip directory is damaged"),
    "bytes cut out of the middle": (
        _bytes(lambda data: data[:3000] + data[3100:]),
        "is altered|is truncated",
    ),
    "another entry behind the record": (
        _with_another_entry,
        "is altered: its metadata record is not the last entry",
    ),
    "wrong size of the payload": (
        _wrong_size,
        r"is altered: its payload has \d+ bytes but its record says 5",
    ),
    "compressed record": (
        _text("{}" * 99, zipfile.ZIP_DEFLATED),
        "is altered: its metadata record is compressed",
    ),
    "record that is no JSON": (
        _text("{schema: 1}"),
        "unreadable metadata record: JSON: expected a member name at byte 1",
    ),
    "record that ends early": (
        _text('{"schema_version": 2'),
        "unreadable metadata record: JSON: expected `}` at byte 20",
    ),
    "record that is a list": (_text("[1, 2]"), "a metadata record that is no JSON object"),
    "record that nests without end": (_text("[" * 5000), "JSON: expected less nesting"),
    "empty record": (_text("{}"), "a metadata record without `schema_version`"),
    "newer schema": (_record(schema_version=3), "has `schema_version` 3 but this runtime needs 2"),
    "schema that is no number": (_record(schema_version="one"), "record whose `schema_version` is no number"),
    "unknown format": (
        _record(format="onnx"),
        "has `format` `onnx` but this runtime needs one of `aoti`, `torchscript`",
    ),
    "unknown kind": (
        _record(kind="hybrid"),
        "has `kind` `hybrid` but this runtime needs one of `conservative`, `direct`",
    ),
    "inputs in another order": (
        _record(inputs=[{"name": "vectors"}]),
        "has `inputs` `vectors` but this runtime needs `numbers`",
    ),
    "outputs of the other kind": (
        _record(kind="direct"),
        "has `outputs` .* but this runtime needs .*`node_forces`",
    ),
    "half precision": (
        _record(dtype="float16"),
        "has `dtype` `float16` but this runtime needs one of `float32`, `float64`",
    ),
    "unknown device": (
        _record(device="tpu"),
        "has `device` `tpu` but this runtime needs one of `cpu`, `cuda`",
    ),
    "other torch version": (
        _record(torch_version="1.9.1"),
        r"was exported with torch 1\.9\.1 but this runtime has torch \d",
    ),
    "other machine": (
        _record(format="aoti", arch={**CPU, "machine": "vax"}),
        "compiled for `vax` but this machine is `",
    ),
    "missing processor feature": (
        _record(format="aoti", arch={**CPU, "features": ["x87-quantum"]}),
        "compiled for a processor with `x87-quantum`, which this one lacks",
    ),
    "no elements": (_record(elements=[]), "lists no `elements`"),
    "element 118": (_record(elements=[6, 118]), "lists an element that is no atomic number from 1 to 117"),
    "negative cutoff": (_record(cutoff=-6.0), "has `cutoff` -6 but this runtime needs a positive one"),
    "no neighbors": (_record(max_neighbors=0), "has `max_neighbors` 0 but this runtime needs at least 1"),
    "fractional neighbors": (_record(max_neighbors=20.5), r"whose `max_neighbors` is 20\.5, no integer"),
    "other tie tolerance": (
        _record(tie_rule={**TIES, "tolerance": 1e-5}),
        "has `tie_rule.tolerance` 10e-6 .* needs 1e-6",
    ),
    "other tie direction": (
        _record(tie_rule={**TIES, "direction": [1, 0, 0]}),
        "along another `tie_rule.direction`",
    ),
    "no weights hash": (_record(weights_sha256=None), "a metadata record without `weights_sha256`"),
    "stress flag that is a word": (_record(has_stress="yes"), "whose `has_stress` is neither true nor false"),
    "TorchScript payload called AOTI": (_record(format="aoti", arch=CPU), "cannot be opened by AOTInductor"),
    "zip payload called TorchScript": (_record(payload="plain"), "cannot be opened by TorchScript"),
}


@pytest.mark.parametrize("case", FILES)
def test_malformed_file(case, material, tmp_path):
    make, message = FILES[case]
    path = make(material, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=message) as caught:
        artefact.load(path)
    assert str(caught.value).startswith(f"load: `{path}` ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "load: `device` is `gpu` but must be auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "load: `device` is `cuda:x` but must be"),
        ({"device": "cuda"}, "was exported for device `cpu` but device `cuda` was asked for"),
        ({"threads": -1}, "load: `threads` is -1 but must be 0"),
    ],
    ids=["device name", "device index", "other device", "threads"],
)
def test_malformed_load_option(material, options, message):
    with pytest.raises(ValueError, match=message):
        artefact.load(material.good, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_artefact_without_cuda(material, tmp_path):
    path = forge_record(material.payload, tmp_path / "cuda.pt", material.record, device="cuda")
    with pytest.raises(ValueError, match="exported for device `cuda` but torch finds no CUDA device here"):
        artefact.load(path)


@pytest.fixture(scope="module")
def potentials(tmp_path_factory) -> dict[str, artefact.Potential]:
    folder = tmp_path_factory.mktemp("potentials")
    models = {
        "conservative": tiny_model("conservative"),
        "direct": tiny_model("direct"),
        "charged": tiny_model("conservative", has_charge_spin=True),
    }
    for name, model in models.items():
        export_model(model, folder / f"{name}.pt", format="torchscript", verified=False)
    return {name: artefact.load(folder / f"{name}.pt") for name in models}


GRAPH = {
    "numbers": [6, 8],
    "centers": [0, 1],
    "neighbors": [1, 0],
    "vectors": [[1.2, 0.0, 0.0], [-1.2, 0.0, 0.0]],
    "positions": [[0.0, 0.0, 0.0], [1.2, 0.0, 0.0]],
    "cell": np.zeros((3, 3)),
}
STAR = {"centers": [0] * 21, "neighbors": [1] * 21, "vectors": [[1.0, 0.0, 0.1 * i] for i in range(21)]}
NO_ATOMS = {
    "numbers": [],
    "centers": [],
    "neighbors": [],
    "vectors": np.zeros((0, 3)),
    "positions": np.zeros((0, 3)),
}
GRAPHS = {
    "no atoms": ("conservative", NO_ATOMS, "`n_atoms` is 0 but must be positive"),
    "atomic number 0": (
        "conservative",
        {"numbers": [6, 0]},
        r"`numbers\[1\]` is 0, an element that model `tiny-",
    ),
    "atomic number 118": ("conservative", {"numbers": [118, 6]}, r"`numbers\[0\]` is 118, an element"),
    "center beyond the atoms": (
        "conservative",
        {"centers": [0, 2]},
        r"`centers\[1\]` is 2, no index of 2 atoms",
    ),
    "negative neighbor": (
        "conservative",
        {"neighbors": [-1, 0]},
        r"`neighbors\[0\]` is -1, no index of 2 atoms",
    ),
    "centers that descend": (
        "conservative",
        {"centers": [1, 0]},
        r"`centers\[1\]` is smaller than the one before",
    ),
    "NaN vector": ("conservative", {"vectors": [[1, 0, 0], [NAN, 0, 0]]}, r"`vectors\[1\]` is not finite"),
    "infinite vector": (
        "conservative",
        {"vectors": [[1, 0, 0], [np.inf, 0, 0]]},
        r"`vectors\[1\]` is not finite",
    ),
    "coincident atoms": (
        "conservative",
        {"vectors": [[0, 0, 0], [1, 0, 0]]},
        r"`vectors\[0\]` has length 0: atoms 0 and 1 are at the same place",
    ),
    "edge beyond the cutoff": (
        "conservative",
        {"vectors": [[6.1, 0, 0], [1, 0, 0]]},
        r"length 6\.1\d* but the cutoff is 6",
    ),
    "more edges than the cap": ("conservative", STAR, "atom 0 has more than 20 edges, the cap of model"),
    "vectors of a wrong shape": (
        "conservative",
        {"vectors": [[1, 0, 0]]},
        r"`vectors` has shape \(1, 3\) but must have \(2, 3\)",
    ),
    "neighbors too few": (
        "conservative",
        {"neighbors": [1]},
        r"`neighbors` has shape \(1\) but must have \(2,\)",
    ),
    "cell of a wrong shape": (
        "conservative",
        {"cell": np.zeros((2, 3))},
        r"`cell` has shape \(2, 3\) but must have \(3, 3\)",
    ),
    "NaN cell": (
        "conservative",
        {"cell": np.full((3, 3), NAN)},
        "`cell` has the entry nan but must be finite",
    ),
    "NaN position": ("direct", {"positions": [[0, 0, 0], [NAN, 0, 0]]}, r"`positions\[1\]` is not finite"),
    "infinite charge": ("charged", {"charge": np.inf}, "`charge` is inf but must be finite"),
    "negative spin": ("charged", {"spin": -1.0}, r"`spin` is -1\.0* but must be a multiplicity 2S\+1"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_malformed_graph(case, potentials):
    model, changes, message = GRAPHS[case]
    with pytest.raises(ValueError, match=message) as caught:
        potentials[model]._compiled.evaluate(**{**GRAPH, **changes})
    assert str(caught.value).startswith("evaluate: ")


def test_aoti_without_named_processor_levels_is_refused(monkeypatch, tmp_path):
    if not processor()["features"]:
        pytest.skip("no named level for this processor")
    monkeypatch.setattr(torch._inductor, "config", SimpleNamespace(cpp=SimpleNamespace()))  # torch 2.9
    with pytest.raises(ValueError, match=r"`format` is aoti but Inductor of torch .* --format torchscript"):
        export_model(tiny_model("direct"), tmp_path / "model.pt2", format="aoti", verified=False)
    assert list(tmp_path.iterdir()) == []


def test_overflow_is_an_error_not_a_number(potentials):
    tiny = {"vectors": [[1e-150, 0.0, 0.0], [-1e-150, 0.0, 0.0]]}
    with pytest.raises(
        RuntimeError, match=r"gave a non-finite .*; check the structure for atoms that are far too close"
    ):
        potentials["conservative"]._compiled.evaluate(**{**GRAPH, **tiny})


def _pair(cell=None, pbc=False, **info) -> Atoms:
    return Atoms("CO", [[0, 0, 0], [0, 0, 1.2]], cell=cell, pbc=pbc, info=info)


def _coincident() -> Atoms:
    return Atoms("CO", [[0, 0, 0], [0, 0, 0]])


FLAT = [[4, 0, 0], [0, 4, 0], [4, 4, 0]]
STRUCTURES = {
    "no atoms": ("conservative", Atoms(), ValueError, "`numbers`"),
    "element X": ("conservative", Atoms("X"), ValueError, "`numbers` is 0 at atom 0"),
    "NaN position": ("conservative", Atoms("C", [[0, NAN, 0]]), ValueError, "`positions` has .*nan.* finite"),
    "NaN cell": (
        "conservative",
        _pair(np.diag([5.0, 5.0, NAN]), True),
        ValueError,
        "`cell` has .*nan.* finite",
    ),
    "periodic without a cell": ("conservative", _pair(None, True), ValueError, "`cell` is"),
    "dependent lattice vectors": ("conservative", _pair(FLAT, True), ValueError, "`cell` is"),
    "coincident atoms": ("conservative", _coincident(), ValueError, "`positions` of atoms 0 and 1"),
    "no charge": ("charged", _pair(spin=1), ValueError, r"lacks \['charge'\]"),
    "no spin": ("charged", _pair(charge=0), ValueError, r"lacks \['spin'\]"),
    "charge that is a word": (
        "charged",
        _pair(charge="one", spin=1),
        TypeError,
        "`charge` is 'one' but must be a number",
    ),
    "NaN charge": ("charged", _pair(charge=NAN, spin=1), ValueError, "`charge` is nan but must be finite"),
    "negative spin": (
        "charged",
        _pair(charge=0, spin=-1),
        ValueError,
        "`spin` is -1 but must be a multiplicity",
    ),
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_malformed_structure(case, potentials):
    model, atoms, kind, message = STRUCTURES[case]
    with pytest.raises(kind, match=message):
        potentials[model].predict(atoms)


def test_the_tables_hold_at_least_fifty_malformed_inputs():
    assert len(FILES) + len(GRAPHS) + len(STRUCTURES) >= 50
