"""TorchScript: the same outputs for the C++ runtime, and the interface of openmm-torch's TorchForce.

`evaluate` has the inputs and outputs of the contract. `forward` has positions and box in nm in and kJ/mol
out, and builds its graph inside with `orb_export::radius_graph`, which `liborb_export_runtime.so` registers.
TorchForce passes no species, so atomic numbers, charge and spin are stored in the file at export.
"""

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from orb_export.contract import CUTOFF
from orb_export.model import OrbV3
from orb_export.model.chain import Chain
from orb_export.model.derivatives import edge_forces, remove_net_force, remove_net_torque


class _Script(nn.Module):
    """What both kinds share: the structure stored at export, and the graph of given positions."""

    numbers: Tensor
    charge: Tensor
    spin: Tensor

    def __init__(self, model: OrbV3, numbers: Tensor | None, charge: float, spin: float) -> None:
        super().__init__()
        self.core = model.core()
        self.chain = Chain(model)  # its modules share the weights of the core
        self.max_neighbors = model.config.max_neighbors
        self.cutoff = CUTOFF
        self.angstrom_per_nm = 10.0
        self.kj_per_mol = 96.48533212331002  # of one eV, exact since the SI of 2019
        stored = torch.zeros(0, dtype=torch.int64) if numbers is None else numbers
        self.register_buffer("numbers", stored.to(model.device))
        self.register_buffer("charge", torch.tensor(charge, dtype=torch.float64, device=model.device))
        self.register_buffer("spin", torch.tensor(spin, dtype=torch.float64, device=model.device))

    def in_angstrom(self, positions: Tensor) -> Tensor:
        """nm to angstrom, after checking that the file knows these atoms."""
        if self.numbers.shape[0] == 0:
            raise RuntimeError(
                "forward: this file stores no atomic numbers; export it with --structure to use TorchForce"
            )
        if positions.shape[0] != self.numbers.shape[0]:
            raise RuntimeError(
                f"forward: `positions` has {positions.shape[0]} atoms but this file was exported for "
                f"{self.numbers.shape[0]}"
            )
        return positions.to(torch.float64) * self.angstrom_per_nm

    def edges(self, positions: Tensor, boxvectors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Centers, neighbors and vectors (angstrom) of positions in angstrom and a box in nm."""
        periodic = boxvectors is not None
        cell = torch.zeros(3, 3, dtype=torch.float64)
        if boxvectors is not None:
            cell = boxvectors.detach().to(torch.float64).cpu() * self.angstrom_per_nm
        flags = torch.full([3], periodic, dtype=torch.bool)
        found, _, vectors = torch.ops.orb_export.radius_graph(
            positions.cpu(), cell, flags, self.cutoff, self.max_neighbors
        )
        device = positions.device
        return found[0].to(device), found[1].to(device), vectors.to(device)


class ConservativeScript(_Script):
    """`forward` returns the energy, and its gradient gives TorchForce the forces."""

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
        """INPUTS of the contract -> its OUTPUTS."""
        vectors = vectors.detach().requires_grad_()
        energy, confidence, energies = self.core(numbers, centers, neighbors, vectors, charge, spin)
        gradient = torch.autograd.grad([energy], [vectors])[0]
        assert gradient is not None
        return energy.detach(), gradient, confidence.detach(), energies.detach()

    def forward(self, positions: Tensor, boxvectors: Tensor | None = None) -> Tensor:
        """(N, 3) nm, (3, 3) nm -> energy () kJ/mol, differentiable with respect to the positions."""
        x = self.in_angstrom(positions)
        centers, neighbors, vectors = self.edges(x, boxvectors)
        energy = self.core(self.numbers, centers, neighbors, vectors, self.charge, self.spin)[0]
        result: Tensor = energy * self.kj_per_mol
        return result


class DirectScript(_Script):
    """`forward` returns energy and forces, for TorchForce.setOutputsForces(True)."""

    @torch.jit.export
    def evaluate(
        self,
        numbers: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        vectors: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """INPUTS of the contract -> its OUTPUTS."""
        vectors = vectors.detach().requires_grad_()
        energy, confidence, energies, node_forces, offset, stress = self.core(
            numbers, centers, neighbors, vectors, charge, spin
        )
        gradient = torch.autograd.grad([energy], [vectors])[0]
        assert gradient is not None
        return (
            energy.detach(),
            gradient,
            confidence.detach(),
            energies.detach(),
            node_forces.detach(),
            offset.detach(),
            stress.detach(),
        )

    def forward(self, positions: Tensor, boxvectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, 3) nm, (3, 3) nm -> energy () kJ/mol and forces (N, 3) kJ/mol/nm, not differentiable."""
        x = self.in_angstrom(positions).detach()
        centers, neighbors, vectors = self.edges(x, boxvectors)
        energy, gradient, _, _, node_forces, offset, _ = self.evaluate(
            self.numbers, centers, neighbors, vectors, self.charge, self.spin
        )
        one_graph = torch.zeros_like(self.numbers)
        count = torch.full([1], self.numbers.shape[0], dtype=torch.int64, device=x.device)
        forces = remove_net_force(node_forces, one_graph, count)
        if boxvectors is None:
            forces = remove_net_torque(forces, x, one_graph, count)
        forces = forces + offset + edge_forces(gradient, centers, neighbors, self.numbers.shape[0])
        return energy * self.kj_per_mol, forces * (self.kj_per_mol * self.angstrom_per_nm)


def compile_torchscript(
    model: OrbV3, path: Path, numbers: Tensor | None = None, charge: float = 0.0, spin: float = 1.0
) -> None:
    """Write the TorchScript file of a model to `path` (.pt), without metadata.

    `numbers` (N,), `charge` and `spin` are what `forward` will use; without numbers it raises an error.
    """
    from orb_export import ops  # noqa: F401  (registers orb_export::radius_graph)

    frozen = copy.deepcopy(model).requires_grad_(False)  # the caller keeps training
    kind = ConservativeScript if model.config.kind == "conservative" else DirectScript
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's, at each use
        script = torch.jit.script(kind(frozen, numbers, charge, spin).eval())
        torch.jit.save(script, str(path))
