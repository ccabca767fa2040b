"""Small models with random weights, exported once per session."""

from pathlib import Path

import pytest
import torch
from orb_export.export import export_model
from orb_export.model import OrbConfig, OrbV3


def random_model(kind: str, cap: int, **options) -> OrbV3:
    """A small float64 model whose forces, stress and curvature are of ordinary size."""
    torch.manual_seed(20 + cap)
    config = OrbConfig(
        kind,
        max_neighbors=cap,
        channels=16,
        hidden=24,
        head_hidden=16,
        layers=3,
        name=f"random-{kind}-{cap}",
        **options,
    )
    return OrbV3(config).double().eval()


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """TorchScript artefacts by name; AOTInductor has a fixture of its own, since it takes long."""
    folder = tmp_path_factory.mktemp("models")
    files = {}
    for kind in ("conservative", "direct"):
        for cap in (20, 120):
            files[f"{kind}-{cap}"] = folder / f"{kind}-{cap}.pt"
            export_model(
                random_model(kind, cap), files[f"{kind}-{cap}"], format="torchscript", verified=False
            )
    files["charged"] = folder / "charged.pt"
    charged = random_model("conservative", 120, has_charge_spin=True)
    export_model(charged, files["charged"], format="torchscript", verified=False)
    return files


@pytest.fixture(scope="session")
def model(models) -> Path:
    """The one for tests in which the model does not matter: conservative, 120 neighbors."""
    return models["conservative-120"]


@pytest.fixture(scope="session")
def compiled_model(tmp_path_factory) -> Path:
    """The same model as `model`, through AOTInductor."""
    file = tmp_path_factory.mktemp("compiled") / "model.pt2"
    export_model(random_model("conservative", 120), file, format="aoti", verified=False)
    return file
