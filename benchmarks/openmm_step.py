"""Time of one step in OpenMM, beside openmm-ml's own route to Orb, as a Markdown table.

    python benchmarks/openmm_step.py [--models small full-size] [--atoms 22 256 1000] [--repeats 7]

Both have the same random weights, float32, conservative, up to 120 neighbors; "small" has the sizes of the
demonstration model. The peer does what openmm-ml 1.8 does for its Orb potentials: a PythonForce that goes
through NumPy and ASE to orb-models, compiled by its own default. openmm-ml 1.8 itself cannot do it with
orb-models 0.5.5, whose models come without the adapter that it asks for, nor with weights of one's own. Ours
is an AOTInductor artefact in OrbV3Force. Both take turns in one process within every repeat, on one platform,
with the same threads; the least time counts. 22 atoms are alanine dipeptide without a box, the others rattled
copper. Forces of random weights make no dynamics: masses and temperature are a thousand times too large, so
that atoms move as far in a step as at 300 K, and nearly straight.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import ase.build
import numpy as np
import openmm
import torch
from ase import Atoms
from openmm import unit
from orb_export.checkpoint import to_upstream_state_dict
from orb_export.export import export_model
from orb_export.model import OrbConfig, OrbV3
from orb_export.openmm import OrbV3Force

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the peer is one of the tests' oracles
from tests.engines.openmm.peptides import dipeptide
from tests.engines.openmm.routes import FULL_SIZE, SMALL, Upstream

MODELS = {"small": SMALL, "full-size": FULL_SIZE}
COPPER = {256: (4, 4, 4), 1000: (5, 5, 10)}
HEAVY = 1000.0
TIMESTEP = 1.0  # fs


def structure(n_atoms: int) -> Atoms:
    if n_atoms == 22:
        topology, positions = dipeptide()
        return Atoms([atom.element.atomic_number for atom in topology.atoms()], 10 * positions)
    atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat(COPPER[n_atoms])
    atoms.rattle(0.1, seed=0)
    return atoms


def context_with(force: openmm.Force, atoms: Atoms, platform: str) -> openmm.Context:
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(HEAVY * mass)
    if atoms.pbc.all():
        system.setDefaultPeriodicBoxVectors(*(atoms.cell.array / 10))
    system.addForce(force)
    integrator = openmm.VerletIntegrator(TIMESTEP * unit.femtosecond)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(atoms.positions / 10)
    context.setVelocitiesToTemperature(HEAVY * 300 * unit.kelvin, 1)
    return context


def largest_difference(contexts: list[openmm.Context]) -> float:
    """Of forces, eV/angstrom."""
    one, other = (context.getState(forces=True).getForces(asNumpy=True)._value for context in contexts)
    return float(np.abs(one - other).max()) / 964.8533212331002


def least_times(contexts: list[openmm.Context], repeats: int, seconds: float) -> list[float]:
    """Seconds a step of each, in turns of about `seconds`; the first, which may compile, do not count."""
    times: list[list[float]] = [[] for _ in contexts]
    steps = [1] * len(contexts)
    for repeat in range(repeats + 2):
        for k, context in enumerate(contexts):
            start = time.perf_counter()
            context.getIntegrator().step(steps[k])
            spent = (time.perf_counter() - start) / steps[k]
            if repeat >= 2:
                times[k].append(spent)
            elif repeat == 1:
                steps[k] = max(1, round(seconds / spent))
    return [min(values) for values in times]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--atoms", nargs="+", type=int, choices=[22, *COPPER], default=[22, *COPPER])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn (default: 0.5)")
    parser.add_argument("--platform", choices=("Reference", "CPU"), default="CPU")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of orb-models
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, platform {args.platform}\n")
    print("| model | atoms | PythonForce, orb-models | OrbV3Force | times as fast | forces differ, eV/Å |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            torch.manual_seed(0)
            model = OrbV3(OrbConfig("conservative", **MODELS[name])).eval()
            file = Path(folder) / f"{name}.pt2"
            export_model(model, file, verified=False)
            for n_atoms in args.atoms:
                atoms = structure(n_atoms)
                periodic = bool(atoms.pbc.all())
                peer = Upstream(to_upstream_state_dict(model), model.config, torch.float32, compiled=True)
                contexts = [
                    context_with(peer.python_force(atoms.numbers, periodic), atoms, args.platform),
                    context_with(OrbV3Force(file, atoms.numbers, periodic=periodic), atoms, args.platform),
                ]
                difference = largest_difference(contexts)
                theirs, ours = least_times(contexts, args.repeats, args.seconds)
                print(
                    f"| {name} | {n_atoms} | {1e3 * theirs:.2f} ms | {1e3 * ours:.2f} ms | "
                    f"{theirs / ours:.2f} | {difference:.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
