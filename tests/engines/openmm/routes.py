"""Every way into OpenMM, and orb-models 0.5.5 beside them, on the same weights.

Shared by test_routes.py and by benchmarks/openmm_bar.py and openmm_step.py.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.units
import numpy as np
import openmm
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from openmm import app, unit
from orb_export import ops
from orb_export.model import OrbConfig

from tests.engines.lammps.structures import CASES
from tests.engines.openmm import systems
from tests.engines.openmm.systems import ANGSTROM, KJ_PER_MOL, Result
from tests.parity.test_orb_models import structures

SMALL = {"channels": 64, "hidden": 96, "head_hidden": 64, "layers": 2}  # those of the demo model
FULL_SIZE = {"channels": 256, "hidden": 1024, "head_hidden": 256, "layers": 5}


def skewed() -> Atoms:
    """Eight atoms inside a box near the limits of the form that OpenMM wants."""
    cell = [[7.0, 0.0, 0.0], [3.4, 6.8, 0.0], [-3.3, 3.1, 7.2]]
    corners = np.stack(np.meshgrid(*3 * [np.arange(2) / 2 + 0.2]), -1).reshape(-1, 3)
    atoms = Atoms("Si3O5", scaled_positions=corners, cell=cell, pbc=True)
    atoms.rattle(0.15, seed=12)
    return atoms


# No two neighbors are equally far, so that both packages take the same ones.
BOXES = {
    name: systems.boxed_for_openmm(atoms)
    for name, atoms in {
        "crystal": CASES["crystal"],
        "skewed": skewed(),
        "small box": structures()["copper"],  # 3.61 angstrom, less than the cutoff
        "small skewed box": structures()["skewed"],
        "molecule": CASES["molecule"],
    }.items()
}


def topology_of(atoms: Atoms) -> app.Topology:
    """One residue, without bonds: OpenMM's way to say which elements there are."""
    topology = app.Topology()
    residue = topology.addResidue("ALL", topology.addChain())
    for index, number in enumerate(atoms.numbers):
        topology.addAtom(f"A{index}", app.Element.getByAtomicNumber(int(number)), residue)
    if atoms.cell.rank == 3:
        vectors = [openmm.Vec3(*row) for row in atoms.cell.array * ANGSTROM]
        topology.setPeriodicBoxVectors(vectors * unit.nanometer)
    return topology


def measured(system: openmm.System, atoms: Atoms) -> Result:
    return systems.measure(systems.context_of(system, atoms.positions))


def by_force(atoms: Atoms, file: Path) -> Result:
    return systems.evaluate(atoms, file)


def by_force_field(atoms: Atoms, file: Path) -> Result:
    system = app.ForceField("orbv3.xml").createSystem(topology_of(atoms), orbModel=str(file))
    return measured(system, atoms)


def by_openmm_ml(atoms: Atoms, file: Path) -> Result:
    from openmmml import MLPotential

    system = MLPotential("orb-export", modelPath=file).createSystem(topology_of(atoms))
    return measured(system, atoms)


def by_contract_of_torch_force(atoms: Atoms, file: Path) -> Result:
    """What TorchForce calls; `make test-torchforce` has the real one. The file must store these atoms."""
    torch.ops.load_library(ops.library_path())
    module = torch.jit.load(file)
    positions = torch.tensor(atoms.positions * ANGSTROM, requires_grad=True)
    box = [torch.tensor(atoms.cell.array * ANGSTROM)] if atoms.pbc.any() else []
    result = module(positions, *box)
    if isinstance(result, tuple):
        energy, forces = result
    else:
        energy = result
        forces = -torch.autograd.grad(energy, positions)[0]
    scale = ANGSTROM / KJ_PER_MOL
    return Result(energy.item() / KJ_PER_MOL, forces.detach().double().numpy() * scale)


ROUTES: dict[str, Callable[[Atoms, Path], Result]] = {
    "OrbV3Force": by_force,
    "ForceField XML": by_force_field,
    "MLPotential": by_openmm_ml,
    "TorchForce contract": by_contract_of_torch_force,
}


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """orb-models builds models and graphs in torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Upstream:
    """A model of orb-models with our weights, in eV and angstrom."""

    def __init__(
        self,
        state: dict[str, torch.Tensor],
        config: OrbConfig,
        dtype: torch.dtype,
        *,
        epsilon_of: torch.dtype | None = None,  # of the normalization, if not that of `dtype`
        compiled: bool = False,  # as its loaders do by default
    ) -> None:
        from orb_models.forcefield import atomic_system, pretrained

        self.graphs = atomic_system.ase_atoms_to_atom_graphs
        self.system = atomic_system.SystemConfig(6.0, config.max_neighbors)
        self.conservative, self.dtype = config.kind == "conservative", dtype
        with default_dtype(dtype):
            self.model = getattr(pretrained, f"orb_v3_{config.kind}_architecture")(
                latent_dim=config.channels,
                base_mlp_hidden_dim=config.hidden,
                head_mlp_hidden_dim=config.head_hidden,
                num_message_passing_steps=config.layers,
                device="cpu",
            )
        self.model = self.model.to(dtype).eval().requires_grad_(False)
        self.model.load_state_dict(state, strict=True)
        norms = [module for module in self.model.modules() if isinstance(module, torch.nn.RMSNorm)]
        assert norms
        for norm in norms if epsilon_of else ():
            norm.eps = torch.finfo(epsilon_of).eps
        if compiled:
            self.model.compile(mode="default", dynamic=True)

    def __call__(self, atoms: Atoms) -> Result:
        with default_dtype(self.dtype):
            results = self.model.predict(self.graphs(atoms, self.system, device="cpu"))
        forces = results["grad_forces" if self.conservative else "forces"]
        return Result(results["energy"].item(), forces.detach().numpy())

    def checked(self, atoms: Atoms) -> Result:
        """The result, after making sure that orb-models misses no edge, as it does for some atoms outside a
        skewed box.
        """
        with default_dtype(self.dtype):
            found = self.graphs(atoms, self.system, device="cpu").n_edge.sum()
        within_cutoff = np.bincount(neighbor_list("i", atoms, 6.0))
        assert found == np.minimum(within_cutoff, self.system.max_num_neighbors).sum()
        return self(atoms)

    def python_force(self, numbers: Any, periodic: bool, particles: Any = None) -> openmm.PythonForce:
        """The way in which openmm-ml 1.8 calls Orb: at every step to NumPy, ASE, torch, and back."""
        atoms = Atoms(numbers, np.zeros((len(numbers), 3)), pbc=periodic)

        def compute(state: openmm.State) -> tuple[float, np.ndarray]:
            atoms.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
            if periodic:
                atoms.cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
            result = self(atoms)
            kj_per_mol = ase.units.kJ / ase.units.mol
            return result.energy / kj_per_mol, result.forces / (kj_per_mol * ANGSTROM)

        force = openmm.PythonForce(compute)
        force.setUsesPeriodicBoundaryConditions(periodic)
        if particles is not None:
            force.setParticles(particles)
        return force


def embedded_by_openmm_ml(
    model: Upstream, topology: app.Topology, system: openmm.System, region: list[int]
) -> openmm.System:
    """openmm-ml's own mechanical embedding of a region, with a PythonForce of orb-models."""
    from openmmml.mlpotential import MLPotential, MLPotentialImpl, MLPotentialImplFactory

    class Impl(MLPotentialImpl):
        def addForces(self, topology, system, atoms, forceGroup, **options):
            numbers = [atom.element.atomic_number for atom in topology.atoms()]
            periodic = topology.getPeriodicBoxVectors() is not None
            system.addForce(model.python_force([numbers[index] for index in atoms], periodic, atoms))

        def getMLLongRange(self):
            return False

    class Factory(MLPotentialImplFactory):
        def createImpl(self, name, **options):
            return Impl()

    MLPotential.registerImplFactory("orb-models", Factory())
    return MLPotential("orb-models").createMixedSystem(topology, system, region)
