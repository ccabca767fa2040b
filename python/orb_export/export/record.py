"""The metadata record of an artefact, but for payload and verification, which are added later."""

import datetime
import hashlib
import platform
from typing import Any

import torch

import orb_export
from orb_export import contract
from orb_export.export import aoti, steps
from orb_export.model import OrbV3

CITATION = "B. Rhodes et al., Orb-v3: atomistic simulation at scale, arXiv:2504.06231 (2025)"
UPSTREAM_LICENCE = "Apache-2.0"


def weights_sha256(model: OrbV3) -> str:
    """SHA-256 over names, shapes and values of all weights, in the order of their names.

    Values enter as little-endian float64, so a float32 model and the same model widened to float64 agree.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().to(torch.float64).contiguous().numpy().astype("<f8")
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _fields(fields: tuple[contract.Field, ...]) -> list[dict[str, Any]]:
    return [{**field._asdict(), "shape": list(field.shape)} for field in fields]


def describe(model: OrbV3, format: str, source: str, licence: str, with_steps: bool = True) -> dict[str, Any]:
    """Everything the record says of `model` compiled as `format`; `source` is the MODEL that was exported.

    `with_steps`: whether the steps of the chain are in the file beside the whole program.
    """
    config = model.config
    return {
        "schema_version": contract.SCHEMA_VERSION,
        "format": format,
        "kind": config.kind,
        "model": config.name,
        "description": config.description,
        "source": source,
        "inputs": _fields(contract.INPUTS),
        "outputs": _fields(contract.OUTPUTS[config.kind]),
        "programs": [contract.WHOLE_PROGRAM, *(steps.names(config.kind) if with_steps else ())],
        "cutoff": contract.CUTOFF,
        "max_neighbors": config.max_neighbors,
        "tie_rule": {
            "rule": contract.TIE_RULE,
            "tolerance": contract.TIE_TOLERANCE,
            "direction": list(contract.TIE_DIRECTION),
        },
        "elements": list(config.known_elements),
        "has_charge_spin": config.has_charge_spin,
        "has_stress": config.has_stress,
        "sizes": {"channels": config.channels, "hidden": config.hidden, "layers": config.layers},
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "arch": aoti.processor(),
        "torch_version": torch.__version__,
        "orb_export_version": orb_export.__version__,
        "weights_sha256": weights_sha256(model),
        "licence": licence,
        "citation": CITATION,
        "created": {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "system": platform.system(),
        },
    }
