"""Every way into OpenMM against orb-models 0.5.5, run side by side on the same random weights.

Both packages build their own graphs, from structures in which no two neighbors are equally far and orb-models
misses no edge, as it does where atoms lie outside a small skewed box. The float64 reference of a float32
network is orb-models' network in float64 with the epsilon of float32 in its normalization: Orb-v3 in float64
is a slightly different function (docs/conventions.md).
"""

import functools
from pathlib import Path

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")
pytest.importorskip("openmmml", reason="needs openmm-ml")

import torch  # noqa: E402
from openmm import app  # noqa: E402
from orb_export.checkpoint import from_upstream_state_dict, to_upstream_state_dict  # noqa: E402
from orb_export.export import export_model  # noqa: E402
from orb_export.model import OrbConfig  # noqa: E402

from tests.accuracy import within  # noqa: E402
from tests.engines.openmm.conftest import random_model  # noqa: E402
from tests.engines.openmm.peptides import BACKBONE, dipeptide  # noqa: E402
from tests.engines.openmm.routes import (  # noqa: E402
    BOXES,
    FULL_SIZE,
    ROUTES,
    SMALL,
    Upstream,
    embedded_by_openmm_ml,
)
from tests.engines.openmm.systems import ANGSTROM, Result, context_of, measure  # noqa: E402
from tests.parity.test_orb_models import checkpoint, upstream  # noqa: E402, F401 (a fixture)

pytestmark = pytest.mark.usefixtures("upstream")

# eV/angstrom; eV per atom. A float32 network rounds each atom's features, of a spread of half an eV here, to
# some 1e-7 of it: that, not the energy tail, is what its energies differ by from the float64 reference.
FORCE_BARS = {torch.float64: 1e-9, torch.float32: 1e-5}
ENERGY_BARS = {torch.float64: 1e-10, torch.float32: 1e-6}


@functools.cache
def weights(kind: str, cap: int, full_size: bool) -> tuple[OrbConfig, dict[str, torch.Tensor]]:
    options = {"kind": kind, "max_neighbors": cap, **(FULL_SIZE if full_size else SMALL)}
    return OrbConfig(**options), checkpoint(options)


def assert_route_is_upstream(route: str, case: str, file: Path, reference: Result, dtype, energy) -> None:
    result = ROUTES[route](BOXES[case], file)
    check = f"OpenMM by {route} and orb-models, {dtype}".replace("torch.", "")
    error = np.abs(result.forces - reference.forces).max()
    assert within(check, "forces", error, FORCE_BARS[dtype]), f"{case}: {error:.1e}"
    error = abs(result.energy - energy) / len(reference.forces)
    assert within(check, "energy", error, ENERGY_BARS[dtype]), f"{case}: {error:.1e}"
    assert np.abs(result.forces).max() > 1e-3  # there is something to compare


@pytest.mark.parametrize("dtype", FORCE_BARS, ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("kind", "cap", "full_size"),
    [("conservative", 120, False), ("direct", 20, False), ("conservative", 120, True)],
    ids=["conservative-inf", "direct-20", "full-size conservative-inf"],
)
def test_every_route_gives_what_orb_models_gives(kind, cap, full_size, dtype, tmp_path):
    config, state = weights(kind, cap, full_size)
    theirs = Upstream(state, config, dtype)
    exact = Upstream(state, config, torch.float64, epsilon_of=dtype)
    model = from_upstream_state_dict(state, cap, dtype=dtype)
    for case in ("skewed", "molecule") if full_size else BOXES:
        atoms, file = BOXES[case], tmp_path / f"{case}.pt"
        export_model(model, file, format="torchscript", structure=atoms, verified=False)
        reference, energy = theirs.checked(atoms), exact.checked(atoms).energy
        for route in ROUTES:
            assert_route_is_upstream(route, case, file, reference, dtype, energy)


@pytest.mark.parametrize("route", ["OrbV3Force", "ForceField XML", "MLPotential"])
@pytest.mark.parametrize("case", BOXES)
def test_a_compiled_artefact_gives_what_orb_models_gives(route, case, compiled_model):
    model = random_model("conservative", 120)  # that of the fixture
    reference = Upstream(to_upstream_state_dict(model), model.config, torch.float64).checked(BOXES[case])
    assert_route_is_upstream(route, case, compiled_model, reference, torch.float64, reference.energy)


def test_a_region_is_that_of_openmm_ml_with_orb_models(tmp_path):
    """Two bonds are cut; openmm-ml embeds a PythonForce that evaluates orb-models."""
    config, state = weights("conservative", 120, False)
    file = tmp_path / "model.pt"
    model = from_upstream_state_dict(state, 120, dtype=torch.float64)
    export_model(model, file, format="torchscript", verified=False)
    topology, positions = dipeptide()
    amber = ("amber14/protein.ff14SB.xml",)
    ours = app.ForceField(*amber, "orbv3.xml").createSystem(topology, orbModel=str(file), orbRegion=BACKBONE)
    plain = app.ForceField(*amber).createSystem(topology)
    region = [atom.index for atom in topology.atoms() if atom.residue.name == "ALA"]
    theirs = embedded_by_openmm_ml(Upstream(state, config, torch.float64), topology, plain, region)
    results = []
    for system in (ours, theirs):
        assert system.getNumParticles() == 24  # two link atoms
        context = context_of(system, np.vstack([positions / ANGSTROM, np.zeros((2, 3))]))
        context.computeVirtualSites()
        results.append(measure(context))
    error = abs(results[0].energy / results[1].energy - 1)
    assert within("OpenMM: region of orb-models by openmm-ml", "energy, relative", error, 1e-6)
    error = np.abs(results[0].forces - results[1].forces)[:22].max()
    assert within("OpenMM: region of orb-models by openmm-ml", "forces", error, 1e-9)
