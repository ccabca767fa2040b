"""What a model returns is checked before it becomes forces: artefacts whose scripts return other tensors."""

from pathlib import Path

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

import torch  # noqa: E402
from ase.build import molecule  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.artefacts import forge_record, read_record  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402

WATER = molecule("H2O")


class Returns(nn.Module):
    """A spring between all atoms, whose tensors are then spoilt in one way."""

    def __init__(self, flaw: str) -> None:
        super().__init__()
        self.flaw = flaw

    @torch.jit.export
    def evaluate(
        self,
        numbers: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        vectors: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        energy = 0.25 * (vectors * vectors).sum()  # of directed edges: k = 1 eV/A^2
        gradient = 0.5 * vectors
        confidence = torch.full([numbers.shape[0], 50], 0.02, dtype=torch.float64)
        if self.flaw == "energy of float32":
            energy = energy.to(torch.float32)
        if self.flaw == "energy of one row":
            energy = energy.reshape(1)
        if self.flaw == "energy NaN":
            energy = energy * float("nan")
        if self.flaw == "gradient of float32":
            gradient = gradient.to(torch.float32)
        if self.flaw == "gradient without an edge":
            gradient = gradient[1:]
        if self.flaw == "gradient transposed":
            gradient = gradient.t()
        if self.flaw == "gradient infinite":
            gradient = gradient / 0.0
        if self.flaw == "gradient not contiguous":
            gradient = gradient.t().contiguous().t()
        if self.flaw == "gradient as a view":
            gradient = torch.stack([gradient, -gradient], 2)[:, :, 0]
        if self.flaw == "confidence without a bin":
            confidence = confidence[:, :49]
        atom_energies = torch.zeros(numbers.shape[0], dtype=torch.float64)
        if self.flaw == "atom energies without an atom":
            atom_energies = atom_energies[1:]
        return energy, gradient, confidence, atom_energies

    def forward(self, positions: Tensor) -> Tensor:
        return positions.sum()


def artefact_of(flaw: str, model: Path, folder: Path) -> Path:
    torch.jit.script(Returns(flaw)).save(str(folder / "payload.pt"))
    return forge_record(folder / "payload.pt", folder / "model.pt", read_record(model))


def measure(file: Path) -> systems.Result:
    system = systems.system_of(WATER, systems.force_of(WATER, file))
    return systems.measure(systems.context_of(system, WATER.positions))


@pytest.mark.parametrize("flaw", ["none", "gradient not contiguous", "gradient as a view"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit.script, which torch means to drop
def test_strides_do_not_matter(flaw, model, tmp_path):
    offsets = WATER.positions[:, None] - WATER.positions
    expected = systems.Result(0.25 * (offsets**2).sum(), -offsets.sum(axis=1))
    systems.assert_same(measure(artefact_of(flaw, model, tmp_path)), expected)
    assert np.abs(expected.forces).max() > 1.0


@pytest.mark.parametrize(
    ("flaw", "text"),
    [
        ("energy of float32", "returned `energy` as Float \\[\\] where the contract has float64 \\[\\]"),
        ("energy of one row", "returned `energy` as Double \\[1\\] where the contract has float64 \\[\\]"),
        ("energy NaN", "gave a non-finite energy"),
        (
            "gradient of float32",
            "returned `edge_gradient` as Float \\[6, 3\\] where the contract has float64",
        ),
        ("gradient without an edge", "as Double \\[5, 3\\] where the contract has float64 \\[6, 3\\]"),
        ("gradient transposed", "as Double \\[3, 6\\] where the contract has float64 \\[6, 3\\]"),
        ("gradient infinite", "gave a non-finite edge gradient"),
        ("confidence without a bin", "as Double \\[3, 49\\] where the contract has float64 \\[3, 50\\]"),
        ("atom energies without an atom", "as Double \\[2\\] where the contract has float64 \\[3\\]"),
    ],
    ids=lambda value: value if "[" not in value else "",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_tensors_than_those_of_the_contract_are_refused(flaw, text, model, tmp_path):
    with pytest.raises(openmm.OpenMMException, match=f"^OrbV3Force: .*{text}"):
        measure(artefact_of(flaw, model, tmp_path))
