"""Small random models and forged artefacts for tests."""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from orb_export import artefact
from orb_export.contract import METADATA_ENTRY, WHOLE_PROGRAM
from orb_export.model import OrbConfig, OrbV3


def tiny_model(
    kind: str,
    *,
    cap: int = 20,
    has_charge_spin: bool = False,
    dtype: torch.dtype = torch.float64,
    layers: int = 2,
) -> OrbV3:
    """Random weights, with normalizers and references away from their neutral values."""
    torch.manual_seed(11)
    config = OrbConfig(
        kind,
        max_neighbors=cap,
        channels=16,
        hidden=32,
        head_hidden=16,
        layers=layers,
        has_charge_spin=has_charge_spin,
        has_stress=not (has_charge_spin and kind == "direct"),
        name=f"tiny-{kind}",
    )
    model = OrbV3(config)
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("normalizer.mean"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            elif name.endswith("normalizer.var"):
                tensor.copy_(4.0 + torch.rand(tensor.shape, generator=generator))
            elif name.endswith("reference"):
                tensor.copy_(-5.0 * torch.rand(tensor.shape, generator=generator))
    return model.to(dtype).eval()


def forge(payload: Path, destination: Path, text: str, compression: int = zipfile.ZIP_STORED) -> Path:
    """An artefact of `payload` whose metadata record is `text`, whatever that is."""
    destination.write_bytes(payload.read_bytes())
    with zipfile.ZipFile(destination, "a", compression) as archive:
        archive.writestr(zipfile.ZipInfo(METADATA_ENTRY), text, compress_type=compression)
    return destination


def forge_record(payload: Path, destination: Path, record: dict[str, Any], **changes: Any) -> Path:
    """An artefact of `payload` whose hash is right, with `changes` in its record; None drops an entry."""
    changed = {name: value for name, value in {**record, **changes}.items() if value is not None}
    artefact.write(payload, changed, destination)
    return destination


def without_steps(file: Path, destination: Path) -> Path:
    """The same artefact whose record lists no steps."""
    payload = destination.with_suffix(".payload")
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(payload, "w") as target:
        for entry in source.infolist():
            if entry.filename != METADATA_ENTRY:
                target.writestr(entry, source.read(entry))
    return forge_record(payload, destination, read_record(file), programs=[WHOLE_PROGRAM])


def read_record(path: Path) -> dict[str, Any]:
    """The record of an artefact without any check."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(METADATA_ENTRY))
