"""Small models with random weights, exported once per session."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from orb_export.export import export_model
from orb_export.model import OrbConfig, OrbV3
from orb_export.model.angular import HARMONICS

from tests.engines.lammps.on_ranks import ENVIRONMENT


def random_model(kind: str, cap: int, **options) -> OrbV3:
    """A small float64 model with random weights, and statistics that make forces of some 0.1 eV/A."""
    torch.manual_seed(20 + cap)
    sizes = {"channels": 16, "hidden": 24, "head_hidden": 16, "layers": 3}
    model = OrbV3(OrbConfig(kind, cap, **sizes, name=f"random-{kind}-{cap}", **options)).double().eval()
    with torch.no_grad():
        model.energy_head.normalizer.mean.fill_(-4.0)
        model.energy_head.normalizer.var.fill_(40.0**2)
        model.energy_head.reference.uniform_(-3.0, 0.0)
        model.confidence_head.mlp.second.weight.mul_(20.0)  # expected errors that differ between atoms
        if kind == "direct":  # a mean of the forces, which must survive the removal of the net force
            model.force_head.normalizer.mean.fill_(0.02)
            model.stress_head.diagonal_normalizer.var.fill_(0.1**2)
            model.stress_head.offdiagonal_normalizer.var.fill_(0.1**2)
    return model


def invariant_model(cap: int) -> OrbV3:
    """One that does not change under rotations, since it reads no harmonic but the constant one."""
    model = random_model("conservative", cap)
    with torch.no_grad():
        weights = model.network.edge_encoder.block.mlp.first.weight  # (hidden, radial * harmonics)
        weights[:, torch.arange(weights.shape[1]) % HARMONICS != 0] = 0.0
        weights *= HARMONICS**0.5
    return model


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """TorchScript artefacts by name; AOTInductor has a fixture of its own, since it takes long."""
    folder = tmp_path_factory.mktemp("models")
    made = {"charged": random_model("conservative", 120, has_charge_spin=True)}
    for cap in (20, 120):
        made[f"conservative-{cap}"] = random_model("conservative", cap)
        made[f"direct-{cap}"] = random_model("direct", cap)
        made[f"invariant-{cap}"] = invariant_model(cap)
    for name, model in made.items():
        export_model(model, folder / f"{name}.pt", format="torchscript", verified=False)
    return {name: folder / f"{name}.pt" for name in made}


@pytest.fixture(scope="session")
def model(models) -> Path:
    """The one for tests in which the model does not matter: conservative, 120 neighbors."""
    return models["conservative-120"]


@pytest.fixture(scope="session")
def compiled_model(tmp_path_factory) -> Path:
    """The same model as `model`, through AOTInductor."""
    file = tmp_path_factory.mktemp("compiled") / "model.pt2"
    export_model(random_model("conservative", 120), file, format="aoti", verified=False, with_steps=False)
    return file


@pytest.fixture(scope="session")
def stock_lmp() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the `lmp` of the wheel with a script, in an environment that says nothing of this package."""
    programs = Path(sys.executable).parent

    def run(
        script: str,
        folder: Path,
        *,
        ranks: int = 1,
        arguments: Sequence[str] = (),
        program: Path = programs / "lmp",
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        (folder / "in.lammps").write_text(script)
        launcher = [programs / "mpiexec", "-n", str(ranks)] if ranks > 1 else []
        return subprocess.run(
            [*launcher, program, "-in", "in.lammps", "-log", "none", *arguments],
            cwd=folder,
            env={**ENVIRONMENT, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,  # ranks that wait for each other would wait for ever
        )

    return run
