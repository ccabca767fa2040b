"""Time of one molecular dynamics step of full-size models, beside orb-models, as a Markdown table.

    python benchmarks/step.py [--models direct-20 conservative-inf] [--atoms 256 1000] [--repeats 7]

Weights are random and the same for both packages; float32 on the CPU. The peer is orb-models 0.5.5, compiled
by its own default, through its ASE calculator. Ours are the AOTInductor artefact in LAMMPS (one rank, NVE)
and through Python. All take turns within every repeat, with the same threads, on rattled copper whose atoms
move between evaluations; a step includes the neighbor search. The least of each one's times counts.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import ase.build
import numpy as np
import torch
from ase import Atoms
from orb_export import artefact, checkpoint
from orb_export.export import export_model
from orb_export.lammps import lammps, write_input
from orb_export.model import OrbConfig, OrbV3

MODELS = {
    "direct-20": OrbConfig("direct", max_neighbors=20),
    "conservative-20": OrbConfig("conservative", max_neighbors=20),
    "direct-inf": OrbConfig("direct", max_neighbors=120),
    "conservative-inf": OrbConfig("conservative", max_neighbors=120),
}
REPEATS_OF_CELL = {108: (3, 3, 3), 256: (4, 4, 4), 500: (5, 5, 5), 1000: (5, 5, 10)}
BAR = 0.85  # of the peer's time, issue 2

Step = Callable[[], None]


def copper(n_atoms: int) -> Atoms:
    """Rattled fcc copper; no two neighbors are equally far, so both packages take the same ones."""
    atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat(REPEATS_OF_CELL[n_atoms])
    atoms.rattle(0.1, seed=0)
    return atoms


def wandering(atoms: Atoms) -> Step:
    """Moves the atoms as far as a step of dynamics does."""
    rng = np.random.default_rng(1)

    def move() -> None:
        atoms.positions += 1e-3 * rng.standard_normal(atoms.positions.shape)

    return move


def peer(model: OrbV3, name: str, folder: Path, atoms: Atoms) -> Step:
    """orb-models with the weights of `model`, through ASE."""
    from orb_models.forcefield import pretrained
    from orb_models.forcefield.calculator import ORBCalculator

    file = folder / f"{name}.ckpt"
    torch.save(checkpoint.to_upstream_state_dict(model), file)
    load = getattr(pretrained, f"orb_v3_{name.replace('-', '_')}_omat")
    atoms = atoms.copy()
    atoms.calc = ORBCalculator(load(weights_path=str(file), device="cpu"), device="cpu")
    move = wandering(atoms)

    def step() -> None:
        move()
        atoms.get_forces()

    return step


def ours_in_python(file: Path, atoms: Atoms) -> Step:
    potential, atoms = artefact.load(file), atoms.copy()
    move = wandering(atoms)

    def step() -> None:
        move()
        potential.predict(atoms)

    return step


def ours_in_lammps(file: Path, atoms: Atoms, folder: Path) -> Step:
    folder.mkdir()
    write_input(atoms, file, folder, ensemble="nve", temperature=100.0, steps=0)
    instance = lammps(cmdargs=["-log", "none", "-screen", "none"])
    for line in (folder / "in.lammps").read_text().splitlines():
        command = line.split()[:1]
        if command in (["read_data"], ["pair_coeff"]):  # paths are relative to the folder
            line = " ".join(
                str(folder / word) if (folder / word).is_file() else word for word in line.split()
            )
        if command not in (["dump"], ["dump_modify"], ["write_data"], ["restart"], ["log"]):
            instance.command(line)

    def step() -> None:
        instance.command("run 1 pre no post no")

    return step


def least_times(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Seconds by contestant; the first evaluation of each, which may compile, does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["direct-20", "conservative-inf"])
    parser.add_argument("--atoms", nargs="+", type=int, choices=REPEATS_OF_CELL, default=[256, 1000])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of orb-models
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| model | atoms | orb-models, ASE | ours, Python | ours, LAMMPS | LAMMPS / orb-models |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model_name in args.models:
            torch.manual_seed(0)
            model = OrbV3(MODELS[model_name]).eval()
            file = folder / f"{model_name}.pt2"
            export_model(model, file, verified=False)
            for n_atoms in args.atoms:
                atoms = copper(n_atoms)
                steps = {
                    "peer": peer(model, model_name, folder, atoms),
                    "python": ours_in_python(file, atoms),
                    "lammps": ours_in_lammps(file, atoms, folder / f"{model_name}-{n_atoms}"),
                }
                t = least_times(steps, args.repeats)
                ratio = t["lammps"] / t["peer"]
                cells = (f"{1e3 * t[key]:.0f} ms" for key in ("peer", "python", "lammps"))
                print(
                    f"| {model_name} | {n_atoms} | {' | '.join(cells)} | {ratio:.2f} (bar {BAR}) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
