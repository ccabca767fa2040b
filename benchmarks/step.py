"""One molecular dynamics step of full-size models in LAMMPS: whose time it is, as a Markdown table.

    python benchmarks/step.py [--models direct-20 conservative-20] [--atoms 256] [--steps 10]
                              [--artefacts FOLDER]

One process with all cores, NVE, rattled copper, random weights, float32; a neighbor skin of 1 A. `model` is
the call of the compiled potential, `edges` what makes its edges of LAMMPS's neighbor list, both from
`pair_style orbv3 timing yes`; `LAMMPS` is what remains of the loop time of the same run, its neighbor lists
among it. The time beside orb-models: `orb-export bench --peers`.
"""

import argparse
import re
import tempfile
from pathlib import Path

import torch
from ase import Atoms
from orb_export.bench import steps
from orb_export.bench.run import Artefacts
from orb_export.lammps import lammps, write_input

LAMMPS_BAR = 0.05  # of the model call, issue 6
GRAPH_BAR = 0.05  # of the step


def run(file: Path, atoms: Atoms, folder: Path, n_steps: int) -> dict[str, float]:
    """Seconds of a step: `loop`, and of it `graph` and `model`."""
    folder.mkdir()
    write_input(atoms, file, folder, ensemble="nve", temperature=300.0, steps=0)
    log = folder / "log.lammps"
    instance = lammps(cmdargs=["-log", str(log), "-screen", "none"])
    try:
        instance.command(f"shell cd {folder}")
        for line in (folder / "in.lammps").read_text().splitlines():
            word = line.split()[:1]
            if word == ["pair_style"]:
                instance.command(line + " timing yes")
            elif word == ["run"]:
                break
            elif word not in (["dump"], ["dump_modify"], ["log"]):
                instance.command(line)
        instance.command("neighbor 1.0 bin")
        instance.command("run 1")
        instance.command(f"run {n_steps} pre no")
    finally:
        instance.close()
    text = log.read_text()
    text = text[text.rindex("Loop time of") :]
    found = {"loop": re.search(r"Loop time of (\S+) on", text)}
    found |= {name: re.search(rf"^  {name}, s +(\S+)", text, re.MULTILINE) for name in ("graph", "model")}
    if missing := [name for name, match in found.items() if match is None]:
        raise RuntimeError(f"LAMMPS printed no {missing}")
    times = {name: float(match[1]) for name, match in found.items() if match is not None}
    return times | {"loop": times["loop"] / n_steps}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=steps.MODELS, default=["direct-20", "conservative-20"])
    parser.add_argument("--atoms", nargs="+", type=int, default=[256])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--artefacts", type=Path, help="folder of `orb-export bench --keep`")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(
        "| model | atoms | step ms | model ms | edges ms | LAMMPS ms | edges / step | all but model / model |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        artefacts = Artefacts(args.artefacts or Path(name), "cpu", lambda message: None)
        for model in args.models:
            file = artefacts.file(model)
            for n_atoms in args.atoms:
                t = run(file.resolve(), steps.copper(n_atoms), Path(name) / f"{model}-{n_atoms}", args.steps)
                rest = t["loop"] - t["model"]
                times = (t["loop"], t["model"], t["graph"], rest - t["graph"])
                cells = " | ".join(f"{1e3 * seconds:.2f}" for seconds in times)
                print(
                    f"| {model} | {n_atoms} | {cells} | {t['graph'] / t['loop']:.4f} (bar {GRAPH_BAR}) "
                    f"| {rest / t['model']:.4f} (bar {LAMMPS_BAR}) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
