"""The container around a compiled potential. Oracles: hashlib, zipfile, torch."""

import hashlib
import json
import re
import zipfile

import pytest
import torch
from orb_export import artefact
from orb_export.contract import INPUTS, METADATA_ENTRY, OUTPUTS
from orb_export.export import export_model, record

from tests.artefacts import forge, read_record, tiny_model

KINDS = ("conservative", "direct")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("artefact") / "tiny.pt"
    export_model(tiny_model("direct"), path, format="torchscript", source="tiny", verified=False)
    return path


@pytest.mark.parametrize(
    "size", [0, 1, 54, 55, 56, 57, 62, 63, 64, 65, 119, 120, 121, 1000, 2**20 - 3, 2**21 + 5]
)
def test_runtime_hash_equals_hashlib(tmp_path, size):
    payload = tmp_path / "payload.zip"
    with zipfile.ZipFile(payload, "w") as archive:
        archive.writestr(zipfile.ZipInfo("data"), bytes(i % 251 for i in range(size)))
        length = archive.start_dir
    expected = hashlib.sha256(payload.read_bytes()[:length]).hexdigest()
    text = json.dumps({"schema_version": 2, "payload_bytes": length, "payload_sha256": "other"})
    with pytest.raises(ValueError, match=f"its payload has SHA-256 {expected} but its record says other"):
        artefact.load(forge(payload, tmp_path / "forged.pt", text))


def test_record_is_the_last_entry_and_the_payload_stays_readable_by_torch(file):
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist()[-1] == METADATA_ENTRY
        assert archive.testzip() is None
    assert torch.jit.load(file).max_neighbors == 20


def test_python_and_runtime_read_the_same_record(file):
    assert artefact.load(file).metadata == artefact.read_metadata(file) == read_record(file)
    assert artefact.load(file).file_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_record_states_the_contract(kind):
    described = record.describe(tiny_model(kind), "aoti", "tiny", "MIT")
    assert [field["name"] for field in described["inputs"]] == [field.name for field in INPUTS]
    assert [tuple(field["shape"]) for field in described["outputs"]] == [
        field.shape for field in OUTPUTS[kind]
    ]
    assert described["kind"] == kind
    assert described["max_neighbors"] == 20
    assert described["dtype"] == "float64"
    assert described["licence"] == "MIT"
    assert "2504.06231" in described["citation"]


def test_weights_hash_ignores_precision_but_not_values():
    model = tiny_model("conservative", dtype=torch.float32)
    before = record.weights_sha256(model)
    assert record.weights_sha256(model.double()) == before
    with torch.no_grad():
        model.energy_head.mlp.second.bias[0] += 1e-9
    assert record.weights_sha256(model) != before


def test_names_with_escapes_survive_the_json_reader(tmp_path, file):
    name = 'Å "quoted" \\ \n\t \U0001f600'
    payload = tmp_path / "payload.pt"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(payload, "w") as target:
        for entry in source.infolist()[:-1]:
            target.writestr(entry, source.read(entry))
    path = tmp_path / "renamed.pt"
    artefact.write(payload, {**read_record(file), "model": name}, path)
    potential = artefact.load(path)
    assert potential.metadata["model"] == name
    with pytest.raises(ValueError, match=re.escape(f"model `{name}` does not know")):
        potential._compiled.evaluate([0], [], [], torch.zeros(0, 3), [[0, 0, 0]], torch.zeros(3, 3))


def test_a_failed_verification_leaves_no_file(tmp_path, monkeypatch):
    from orb_export.export import verify

    wrong = tiny_model("conservative")
    with torch.no_grad():
        wrong.energy_head.reference += 1e-8
    monkeypatch.setattr(
        verify, "eager_results", lambda model, atoms, original=verify.eager_results: original(wrong, atoms)
    )
    path = tmp_path / "tiny.pt"
    with pytest.raises(RuntimeError, match=r"artefact and eager model differ: energy 1\.00e-08 > 1e-10"):
        export_model(tiny_model("conservative"), path, format="torchscript")
    assert list(tmp_path.iterdir()) == []


def test_skipping_the_verification_is_recorded(file):
    assert artefact.read_metadata(file)["verification"] == {"skipped": True}
