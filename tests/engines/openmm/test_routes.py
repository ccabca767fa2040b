"""Every way into OpenMM against orb-models 0.5.5, run side by side on the same random weights.

Both packages build their own graphs, from structures in which no two neighbors are equally far and orb-models
misses no edge, as it does where atoms lie outside a small skewed box. The float64 reference of a float32
network is orb-models' network in float64 with the epsilon of float32 in its normalization: Orb-v3 in float64
is a slightly different function (docs/conventions.md).
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

import torch  # noqa: E402
from ase import Atoms  # noqa: E402
from ase.neighborlist import neighbor_list  # noqa: E402
from openmm import app, unit  # noqa: E402
from orb_export import ops  # noqa: E402
from orb_export.checkpoint import from_upstream_state_dict, to_upstream_state_dict  # noqa: E402
from orb_export.export import export_model  # noqa: E402
from orb_export.model import OrbConfig  # noqa: E402

from tests.accuracy import within  # noqa: E402
from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402
from tests.engines.openmm.conftest import random_model  # noqa: E402
from tests.engines.openmm.systems import ANGSTROM, KJ_PER_MOL, Result  # noqa: E402
from tests.parity.test_orb_models import checkpoint, structures, upstream  # noqa: E402, F401 (a fixture)

# eV/angstrom; eV per atom. A float32 network rounds each atom's features, of a spread of half an eV here, to
# some 1e-7 of it: that, not the energy tail, is what its energies differ by from the float64 reference.
FORCE_BARS = {torch.float64: 1e-9, torch.float32: 1e-5}
ENERGY_BARS = {torch.float64: 1e-10, torch.float32: 1e-6}

SMALL = {"channels": 64, "hidden": 96, "head_hidden": 64, "layers": 2}
FULL_SIZE = {"channels": 256, "hidden": 1024, "head_hidden": 256, "layers": 5}


def skewed() -> Atoms:
    """Eight atoms inside a box near the limits of the form that OpenMM wants."""
    cell = [[7.0, 0.0, 0.0], [3.4, 6.8, 0.0], [-3.3, 3.1, 7.2]]
    corners = np.stack(np.meshgrid(*3 * [np.arange(2) / 2 + 0.2]), -1).reshape(-1, 3)
    atoms = Atoms("Si3O5", scaled_positions=corners, cell=cell, pbc=True)
    atoms.rattle(0.15, seed=12)
    return atoms


BOXES = {
    "crystal": CASES["crystal"],
    "skewed": skewed(),
    "small box": structures()["copper"],  # 3.61 angstrom, less than the cutoff
    "small skewed box": structures()["skewed"],
    "molecule": CASES["molecule"],
}
BOXES = {name: systems.boxed_for_openmm(atoms) for name, atoms in BOXES.items()}


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
    openmmml = pytest.importorskip("openmmml", reason="needs openmm-ml")
    potential = openmmml.MLPotential("orb-export", modelPath=file)
    return measured(potential.createSystem(topology_of(atoms)), atoms)


def by_contract_of_torch_force(atoms: Atoms, file: Path) -> Result:
    """What TorchForce calls; `make test-torchforce` has the real one."""
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


class Upstream:
    """A model of orb-models with our weights."""

    def __init__(self, package, state: dict, config: OrbConfig, dtype: torch.dtype) -> None:
        build = getattr(package.pretrained, f"orb_v3_{config.kind}_architecture")
        sizes = {
            "latent_dim": config.channels,
            "base_mlp_hidden_dim": config.hidden,
            "head_mlp_hidden_dim": config.head_hidden,
            "num_message_passing_steps": config.layers,
        }
        torch.set_default_dtype(dtype)  # the fixture puts it back
        self.model = build(device="cpu", **sizes).to(dtype).eval()
        self.model.load_state_dict(state, strict=True)
        self.conservative, self.dtype = config.kind == "conservative", dtype
        self.system = package.atomic_system.SystemConfig(6.0, config.max_neighbors)
        self.graphs = package.atomic_system.ase_atoms_to_atom_graphs

    def with_epsilon_of(self, dtype: torch.dtype) -> "Upstream":
        norms = [module for module in self.model.modules() if isinstance(module, torch.nn.RMSNorm)]
        assert norms
        for norm in norms:
            norm.eps = torch.finfo(dtype).eps
        return self

    def __call__(self, atoms: Atoms) -> Result:
        torch.set_default_dtype(self.dtype)
        graph = self.graphs(atoms, self.system, device="cpu")
        capped = np.minimum(np.bincount(neighbor_list("i", atoms, 6.0)), self.system.max_num_neighbors)
        assert graph.n_edge.sum() == capped.sum()  # it misses none
        results = self.model.predict(graph)
        forces = results["grad_forces" if self.conservative else "forces"]
        return Result(results["energy"].double().item(), forces.detach().double().numpy())


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
def test_every_route_gives_what_orb_models_gives(kind, cap, full_size, dtype, upstream, tmp_path):  # noqa: F811
    config, state = weights(kind, cap, full_size)
    theirs = Upstream(upstream, state, config, dtype)
    exact = Upstream(upstream, state, config, torch.float64).with_epsilon_of(dtype)
    torch.set_default_dtype(torch.float32)
    model = from_upstream_state_dict(state, cap, dtype=dtype)
    for case in ("skewed", "molecule") if full_size else BOXES:
        atoms, file = BOXES[case], tmp_path / f"{case}.pt"
        export_model(model, file, format="torchscript", structure=atoms, verified=False)
        reference, energy = theirs(atoms), exact(atoms).energy
        torch.set_default_dtype(torch.float32)
        for route in ROUTES:
            assert_route_is_upstream(route, case, file, reference, dtype, energy)


@pytest.mark.parametrize("route", ["OrbV3Force", "ForceField XML", "MLPotential"])
@pytest.mark.parametrize("case", BOXES)
def test_a_compiled_artefact_gives_what_orb_models_gives(route, case, compiled_model, upstream):  # noqa: F811
    # the weights of the fixture
    model = random_model("conservative", 120)
    theirs = Upstream(upstream, to_upstream_state_dict(model), model.config, torch.float64)
    reference = theirs(BOXES[case])
    torch.set_default_dtype(torch.float32)
    assert_route_is_upstream(route, case, compiled_model, reference, torch.float64, reference.energy)
