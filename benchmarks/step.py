"""Time of one molecular dynamics step of full-size models, beside orb-models, as a Markdown table.

    python benchmarks/step.py [--models direct-20 conservative-inf] [--atoms 256 1000] [--repeats 7]

As `orb-export bench --peers` (orb_export/bench/steps.py), and in LAMMPS (one rank, NVE) beside Python. All
take turns within every repeat, with the same threads; a step includes the neighbor search. The least of each
one's times counts.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import torch
from ase import Atoms
from orb_export.bench import steps
from orb_export.bench.timing import Run, least_times
from orb_export.lammps import lammps, write_input

BAR = 0.70  # of the peer's time, issue 6


def ours_in_lammps(file: Path, atoms: Atoms, folder: Path) -> Run:
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", choices=steps.MODELS, default=["direct-20", "conservative-inf"]
    )
    parser.add_argument("--atoms", nargs="+", type=int, choices=steps.SIZES, default=[256, 1000])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of orb-models
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| model | atoms | orb-models, ASE | ours, Python | ours, LAMMPS | LAMMPS / orb-models |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in args.models:
            file = folder / f"{model}.pt2"
            steps.export(model, file)
            for n_atoms in args.atoms:
                atoms = steps.copper(n_atoms)
                runs = {
                    "peer": steps.peer(model, folder, atoms),
                    "python": steps.ours(file, atoms),
                    "lammps": ours_in_lammps(file, atoms, folder / f"{model}-{n_atoms}"),
                }
                t = least_times(runs, args.repeats, warm_up=2)
                ratio = t["lammps"] / t["peer"]
                cells = (f"{1e3 * t[key]:.0f} ms" for key in ("peer", "python", "lammps"))
                print(f"| {model} | {n_atoms} | {' | '.join(cells)} | {ratio:.2f} (bar {BAR}) |", flush=True)


if __name__ == "__main__":
    main()
