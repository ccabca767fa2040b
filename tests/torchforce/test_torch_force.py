"""TorchForce of openmm-torch, the real package, on exported TorchScript files: platform Reference.

Run by `make test-torchforce`, in an environment of its own: openmmtorch 1.5 works with torch 2.9 only, and
that needs the CUDA build of torch (no GPU). Oracle: `load().predict` of the same file, which tests/parity
holds against orb-models; tests/parity/test_torch_force.py checks the same interface without the package.
"""

import openmm
import pytest
import torch  # before openmmtorch, which does not find the libraries of torch by itself

openmmtorch = pytest.importorskip("openmmtorch", reason="run by make test-torchforce")

import numpy as np  # noqa: E402
import orb_export  # noqa: E402
from ase import Atoms  # noqa: E402
from ase.build import molecule  # noqa: E402
from orb_export import ops  # noqa: E402
from orb_export.export import export_model  # noqa: E402
from orb_export.export.sources import load_source  # noqa: E402

from tests.accuracy import within  # noqa: E402
from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402
from tests.engines.openmm.conftest import random_model  # noqa: E402

# TorchScript announces its end at every use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:.*torch.jit.*is deprecated")

# eV per atom, eV/angstrom. The geometry is float64 on both sides; a float32 network is differentiated in two
# ways, by TorchForce from the positions and by us from the edges, and rounds differently.
BARS = {"float64": (1e-10, 1e-9), "float32": (1e-7, 1e-5)}

STRUCTURES = {
    name: systems.boxed_for_openmm(CASES[name])
    for name in ("crystal", "triclinic with large tilt", "very flat cell", "one-atom cell", "molecule")
}
MODELS = {
    "conservative": {"kind": "conservative", "cap": 120},
    "conservative-float32": {"kind": "conservative", "cap": 120, "dtype": torch.float32},
    "direct": {"kind": "direct", "cap": 20},
    "direct-float32": {"kind": "direct", "cap": 20, "dtype": torch.float32},
    "charged": {"kind": "conservative", "cap": 120, "has_charge_spin": True},
}


def torch_force(file, kind: str, periodic: bool) -> openmm.Force:
    torch.ops.load_library(ops.library_path())
    force = openmmtorch.TorchForce(str(file))
    force.setOutputsForces(kind == "direct")
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force


def export(model, file, atoms) -> None:
    export_model(model, file, format="torchscript", structure=atoms, verified=False)


def assert_same(actual: systems.Result, expected: systems.Result, dtype: str = "float64") -> None:
    energy, forces = BARS[dtype]
    per_atom = abs(actual.energy - expected.energy) / len(expected.forces)
    assert within(f"TorchForce, {dtype}", "energy", per_atom, energy)
    assert within(f"TorchForce, {dtype}", "forces", np.abs(actual.forces - expected.forces).max(), forces)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", STRUCTURES)
def test_torch_force_gives_what_python_gives(case, name, tmp_path):
    options, atoms, file = MODELS[name], STRUCTURES[case].copy(), tmp_path / "model.pt"
    if name == "charged":
        atoms.info |= {"charge": -1, "spin": 2}
    export(random_model(**options), file, atoms)
    force = torch_force(file, options["kind"], bool(atoms.pbc.all()))
    result = systems.measure(systems.context_of(systems.system_of(atoms, force), atoms.positions))
    dtype = "float32" if options.get("dtype") is torch.float32 else "float64"
    assert_same(result, systems.predicted(atoms, file), dtype)
    if case in ("crystal", "triclinic with large tilt", "molecule"):
        assert np.abs(result.forces).max() > 1e-2  # there is something to compare


def test_the_demo_model_runs_and_stays_right(tmp_path):
    atoms, file = STRUCTURES["crystal"].copy(), tmp_path / "demo.pt"
    atoms.numbers[:] = 14
    export(load_source("demo"), file, atoms)
    integrator = openmm.VerletIntegrator(0.001)
    force = torch_force(file, "conservative", True)
    context = systems.context_of(systems.system_of(atoms, force), atoms.positions, integrator=integrator)
    integrator.step(20)
    now = atoms.copy()
    state = context.getState(positions=True)
    now.positions = state.getPositions(asNumpy=True)._value / systems.ANGSTROM
    assert np.abs(now.positions - atoms.positions).max() > 1e-2
    assert_same(systems.measure(context), systems.predicted(now, file), "float32")


def test_torch_force_and_orbv3_force_agree(tmp_path):
    atoms, file = STRUCTURES["triclinic with large tilt"], tmp_path / "model.pt"
    export(random_model("conservative", 120), file, atoms)
    forces = (torch_force(file, "conservative", True), systems.force_of(atoms, file))
    one, other = (
        systems.measure(systems.context_of(systems.system_of(atoms, force), atoms.positions))
        for force in forces
    )
    assert_same(one, other)


def test_another_number_of_atoms_is_an_error(tmp_path):
    file = tmp_path / "model.pt"
    export(random_model("conservative", 120), file, molecule("H2O"))
    pair = Atoms("CO", [[0, 0, 0], [1.1, 0, 0]])
    force = torch_force(file, "conservative", False)
    context = systems.context_of(systems.system_of(pair, force), pair.positions)
    with pytest.raises(Exception, match="`positions` has 2 atoms but this file was exported for 3"):
        context.getState(energy=True)


def test_this_is_the_torch_that_the_package_was_built_for():
    assert torch.__version__.startswith("2.9.")
    assert torch.version.cuda is not None
    assert orb_export.__file__.startswith(str(torch.__path__[0]).rsplit("/", 1)[0])  # not an editable install
