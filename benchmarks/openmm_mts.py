"""Drift of the total energy with two models in OpenMM, as a Markdown table.

    python benchmarks/openmm_mts.py [--picoseconds 4] [--distillation 4000] [--inner FILE]

Outer model: the demonstration model, conservative, up to 120 neighbors. Inner: a direct one with 16 neighbors
(two closed shells of silicon) that starts from its weights and is fitted to its forces here, for some
minutes, unless an artefact is given. 64 atoms of silicon, float64, constant energy, velocities of 600 K, so
that some 300 K remain. The energy is that of the outer model throughout; drift is the slope of a straight
line, after half a picosecond. Evaluations are per femtosecond; the time is that of the whole step.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import openmm
import torch
from ase import Atoms
from ase.build import bulk
from orb_export.export import export_model
from orb_export.export.sources import DEMO, load_source
from orb_export.graph import Graph, from_atoms
from orb_export.model import OrbConfig, OrbV3, edge_forces
from orb_export.openmm import OrbV3Force, TwoModelIntegrator
from torch import Tensor
from tqdm import tqdm

CRYSTAL = bulk("Si", "diamond", a=5.47, cubic=True).repeat((2, 2, 2))
NEIGHBORS = 16
STRUCTURES, HELD_OUT = 200, 10
EVERY = 8.0  # fs between energies
# outer step and substeps; 0: the outer model alone; inner step of the inner model alone
RUNS = ((1.0, 0), (2.0, 0), (4.0, 0), (8.0, 0), (2.0, 2), (4.0, 4), (8.0, 4), (8.0, 8))


def labelled(teacher: OrbV3, count: int, seed: int) -> list[tuple[Graph, Tensor]]:
    """Crystals at random displacements and volumes, with the forces of the teacher (N, 3) eV/angstrom."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in tqdm(range(count), desc="labels", leave=False, disable=None):
        atoms = CRYSTAL.copy()
        atoms.set_cell(atoms.cell * rng.uniform(0.99, 1.01), scale_atoms=True)
        atoms.positions += rng.normal(size=atoms.positions.shape) * rng.uniform(0.03, 0.13)
        forces = teacher.predict(from_atoms(atoms, teacher.config.max_neighbors))["forces"]
        pairs.append((from_atoms(atoms, NEIGHBORS), forces))
    return pairs


def forces_of(model: OrbV3, graph: Graph) -> Tensor:
    """Of a direct model (N, 3), differentiable with respect to its weights."""
    graph = graph._replace(vectors=graph.vectors.detach().requires_grad_())
    outputs = model(graph)
    (gradient,) = torch.autograd.grad(outputs.repulsion.sum(), graph.vectors)
    repulsion = edge_forces(gradient, graph.centers, graph.neighbors, len(graph.numbers))
    return model.direct_forces(graph, outputs.node_forces) + outputs.force_offset + repulsion


def distil(teacher: OrbV3, steps: int) -> OrbV3:
    """A direct model near the teacher on this crystal; prints its error on structures held out."""
    training, held_out = labelled(teacher, STRUCTURES, 1), labelled(teacher, HELD_OUT, 2)
    known = teacher.config
    torch.manual_seed(3)
    student = OrbV3(
        OrbConfig(
            "direct",
            max_neighbors=NEIGHBORS,
            channels=known.channels,
            hidden=known.hidden,
            head_hidden=known.head_hidden,
            layers=known.layers,
            elements=(14,),
            name="inner",
        )
    )
    weights = student.state_dict()
    student.load_state_dict(
        weights | {name: value for name, value in teacher.state_dict().items() if name in weights}
    )
    student.force_head.normalizer.var.fill_(float(torch.cat([forces for _, forces in training]).var()))
    optimizer = torch.optim.Adam(student.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    order = np.random.default_rng(4)
    for _ in tqdm(range(steps), desc="distillation", leave=False, disable=None):
        graph, forces = training[order.integers(len(training))]
        optimizer.zero_grad()
        (forces_of(student, graph) - forces).abs().mean().backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    errors = [float((forces_of(student, graph) - forces).abs().mean().detach()) for graph, forces in held_out]
    size = float(torch.cat([forces for _, forces in held_out]).abs().mean())
    print(f"inner model: mean error of force components {np.mean(errors):.3f} of {size:.2f} eV/Å\n")
    return student.eval()


def context_of(atoms: Atoms, outer: Path, inner: Path, integrator: openmm.Integrator) -> openmm.Context:
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*(0.1 * atoms.cell.array))
    for group, model in enumerate((outer, inner)):
        system.addForce(OrbV3Force(model, atoms.numbers, periodic=True, threads=1, force_group=group))
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(0.1 * atoms.positions)
    context.setVelocitiesToTemperature(600.0, 5)
    return context


def measure(context: openmm.Context, step: float, picoseconds: float) -> tuple[float, float, float]:
    """Drift in meV/atom/ps, rms about the line in meV/atom, and milliseconds per femtosecond."""
    integrator, per_point = context.getIntegrator(), round(EVERY / step)
    energies, seconds = [], 0.0
    for _ in tqdm(range(round(1000 * picoseconds / EVERY)), leave=False, disable=None):
        start = time.perf_counter()
        integrator.step(per_point)
        seconds += time.perf_counter() - start
        state = context.getState(energy=True, groups={0})
        energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    per_atom = np.array(energies) / len(CRYSTAL) / 96.48533212331 * 1000  # meV
    return *line_through(per_atom), seconds / picoseconds


def line_through(energies: np.ndarray) -> tuple[float, float]:
    """Slope per picosecond and rms of energies EVERY femtoseconds apart, after half a picosecond."""
    times = np.arange(1, len(energies) + 1) * EVERY / 1000  # ps
    used = times >= 0.5
    line = np.polyfit(times[used], energies[used], 1)
    return line[0], np.std(energies[used] - np.polyval(line, times[used]))


def parsed(description: str) -> argparse.Namespace:
    """Options of the benchmarks of two models."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picoseconds", type=float, default=4.0)
    parser.add_argument("--distillation", type=int, default=4000, help="steps of the fit (default: 4000)")
    parser.add_argument("--inner", type=Path, help="artefact of the inner model, instead of a fit")
    return parser.parse_args()


def export_models(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Artefacts of the outer and the inner model."""
    outer, inner = folder / "outer.pt2", options.inner or folder / "inner.pt2"
    export_model(load_source(DEMO, dtype=torch.float64), outer, format="aoti", with_steps=False)
    if options.inner is None:
        student = distil(load_source(DEMO), options.distillation)
        export_model(student.to(torch.float64), inner, format="aoti", with_steps=False)
    return outer, inner


def main() -> None:
    options = parsed(__doc__ or "")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        outer, inner = export_models(options, Path(name))
        print("| | step, fs | outer/fs | inner/fs | drift, meV/atom/ps | rms, meV/atom | ms/fs |")
        print("|---|---|---|---|---|---|---|")
        for step, substeps in (*RUNS, (1.0, -1)):
            group = 1 if substeps < 0 else 0
            label = {0: "outer alone", -1: "inner alone"}.get(substeps, f"{substeps} inner steps")
            integrator = (
                TwoModelIntegrator(step * 1e-3, substeps)
                if substeps > 0
                else openmm.MTSIntegrator(step * 1e-3, [(group, 1)])  # velocity Verlet
            )
            drift, rms, milliseconds = measure(
                context_of(CRYSTAL, outer, inner, integrator), step, options.picoseconds
            )
            counts = (0.0 if group else 1 / step, 1 / step if group else substeps / step)
            print(
                f"| {label} | {step:g} | {counts[0]:.3g} | {counts[1]:.3g} | {drift:+.2g} | {rms:.2g} "
                f"| {milliseconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
