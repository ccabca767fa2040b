"""Small models with random weights, exported once per session."""

from pathlib import Path

import pytest
import torch
from orb_export.export import export_model
from orb_export.model import OrbV3

from tests.artefacts import tiny_model


@pytest.fixture(scope="session", autouse=True)
def default_platform():
    """Tests that name no platform mean one that is everywhere the same, also where there is a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENMM_DEFAULT_PLATFORM", "CPU")
        yield


def random_model(kind: str, cap: int, **options) -> OrbV3:
    """Random weights, and statistics that make forces of some 0.1 eV/A."""
    model = tiny_model(kind, cap=cap, **options)
    with torch.no_grad():
        model.energy_head.normalizer.var.fill_(100.0**2)
    return model


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """TorchScript artefacts by name; AOTInductor has a fixture of its own, since it takes long."""
    folder = tmp_path_factory.mktemp("models")
    made = {
        "conservative-20": random_model("conservative", 20),
        "conservative-120": random_model("conservative", 120),
        "direct-20": random_model("direct", 20),
        "charged": random_model("conservative", 120, has_charge_spin=True),
        "float32": random_model("conservative", 120, dtype=torch.float32),
    }
    for name, model in made.items():
        export_model(model, folder / f"{name}.pt", format="torchscript", verified=False)
    return {name: folder / f"{name}.pt" for name in made}


@pytest.fixture(scope="session")
def model(models) -> Path:
    """The one for tests in which the model does not matter: conservative, 120 neighbors, float64."""
    return models["conservative-120"]


@pytest.fixture(scope="session")
def compiled_model(tmp_path_factory) -> Path:
    """The same model as `model`, through AOTInductor."""
    file = tmp_path_factory.mktemp("compiled") / "model.pt2"
    export_model(random_model("conservative", 120), file, verified=False, with_steps=False)
    return file
