"""`forward` of a TorchScript artefact keeps the interface of openmm-torch's TorchForce.

TorchForce itself is a compiled plugin: it calls torch::jit::load and `forward(positions, box)` with
nm, takes kJ/mol, and differentiates or takes forces in kJ/mol/nm. A process that only loads the op
library does the same here. Oracle: the artefact through the C++ runtime, in eV and angstrom.
"""

import subprocess
import sys

import ase.units
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from orb_export import artefact, ops
from orb_export.export import export_model

from tests.artefacts import tiny_model

KJ_PER_MOL = ase.units.mol / ase.units.kJ  # eV -> kJ/mol, ASE's CODATA 2014: 1e-8 from the exact value

HOST = """
import sys, numpy, torch
library, file, data = sys.argv[1:]
torch.ops.load_library(library)
assert "orb_export" not in sys.modules
module = torch.jit.load(file)
arrays = numpy.load(data)
positions = torch.tensor(arrays["positions"], requires_grad=True)
arguments = [positions] + ([torch.tensor(arrays["box"])] if "box" in arrays else [])
result = module(*arguments)
if isinstance(result, tuple):
    energy, forces = result
else:
    energy = result
    energy.backward()
    forces = -positions.grad
numpy.savez(data, energy=energy.detach().numpy(), forces=forces.detach().numpy())
"""


def _structure(periodic: bool):
    if not periodic:
        return molecule("CH3CH2OH")
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=5)
    return atoms


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("kind", ["conservative", "direct"])
@pytest.mark.parametrize("periodic", [False, True], ids=["molecule", "crystal"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_energy_and_forces_in_openmm_units(tmp_path, kind, periodic, precision):
    atoms = _structure(periodic)
    file, data = tmp_path / "model.pt", tmp_path / "data.npz"
    export_model(tiny_model(kind), file, format="torchscript", structure=atoms, verified=False)
    box = {"box": atoms.cell.array.astype(precision) / 10} if periodic else {}
    np.savez(data, positions=atoms.positions.astype(precision) / 10, **box)
    command = [sys.executable, "-c", HOST, str(ops.library_path()), str(file), str(data)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = artefact.load(file).predict(atoms)
    # positions in float32 nm are off by up to 3e-8 nm
    energy, forces = (1e-7, 1e-6) if precision == "float64" else (1e-3, 1e-1)
    with np.load(data) as result:
        assert result["energy"] == pytest.approx(expected["energy"] * KJ_PER_MOL, rel=3e-8, abs=energy)
        np.testing.assert_allclose(
            result["forces"], expected["forces"] * KJ_PER_MOL * 10, rtol=3e-8, atol=forces
        )
        assert np.abs(result["forces"]).max() > 10.0


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_forward_without_stored_atoms_says_what_to_do(tmp_path):
    file = tmp_path / "model.pt"
    export_model(tiny_model("conservative"), file, format="torchscript", verified=False)
    with pytest.raises(torch.jit.Error, match="stores no atomic numbers; export it with --structure"):
        torch.jit.load(file)(torch.zeros(2, 3))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_forward_refuses_another_number_of_atoms(tmp_path):
    file = tmp_path / "model.pt"
    export_model(tiny_model("direct"), file, format="torchscript", structure=molecule("H2O"), verified=False)
    with pytest.raises(torch.jit.Error, match="`positions` has 2 atoms but this file was exported for 3"):
        torch.jit.load(file)(torch.zeros(2, 3))
