"""LAMMPS against the ASE calculator of orb-models 0.5.5 with the same full-size random weights."""

import numpy as np
import pytest
import torch
from orb_export.checkpoint import from_upstream_state_dict
from orb_export.export import export_model

from tests.engines.lammps import runs
from tests.engines.lammps.structures import CASES
from tests.parity.test_orb_models import checkpoint, upstream  # noqa: F401 (a fixture)

# none with ties, nor a cell so skewed that upstream misses edges
STRUCTURES = ["crystal", "triclinic with large tilt", "molecule"]
BARS = {torch.float64: (1e-10, 1e-9, 1e-9), torch.float32: (1e-5, 1e-4, 1e-5)}


def calculator(upstream, kind, state, cap, dtype):  # noqa: F811
    """An ORBCalculator, under the default dtype that upstream's own loaders would leave."""
    from orb_models.forcefield.calculator import ORBCalculator

    torch.set_default_dtype(dtype)
    model = getattr(upstream.pretrained, f"orb_v3_{kind}_architecture")(device="cpu").to(dtype)
    model.load_state_dict(state, strict=True)
    config = upstream.atomic_system.SystemConfig(6.0, cap)
    return ORBCalculator(model.eval(), system_config=config, device="cpu")


@pytest.mark.parametrize("dtype", BARS, ids=["float64", "float32"])
@pytest.mark.parametrize(("kind", "cap"), [("conservative", 120), ("direct", 20)])
def test_lammps_gives_what_orb_models_gives(upstream, kind, cap, dtype, tmp_path):  # noqa: F811
    state = checkpoint({"kind": kind})
    file = tmp_path / "model.pt"
    export_model(
        from_upstream_state_dict(state, cap, dtype=dtype), file, format="torchscript", verified=False
    )
    results = {case: runs.evaluate(CASES[case], file, tmp_path) for case in STRUCTURES}

    theirs = calculator(upstream, kind, state, cap, dtype)
    check = f"LAMMPS and orb-models in ASE, full size, {dtype}".replace("torch.", "")
    for case, result in results.items():
        atoms = runs.turned(CASES[case])
        theirs.calculate(atoms)
        energy, forces = np.asarray(theirs.results["energy"]).item(), theirs.results["forces"]
        assert np.abs(result.forces).max() > 1e-3
        # LAMMPS: the virial over the volume of its box; upstream: no stress without a cell
        stress = theirs.results["stress"] if atoms.pbc.any() else result.stress
        runs.assert_same(result, runs.Result(energy, forces, stress), atoms.pbc.any(), check, BARS[dtype])
