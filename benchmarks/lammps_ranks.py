"""Two MPI ranks against one, and what a fitted model says of many, as Markdown tables.

    python benchmarks/lammps_ranks.py [--models demo-size direct-20 conservative-20] [--cells 10] [--steps 3]
                                      [--repeats 3] [--artefacts FOLDER]

Each rank has one core and one thread. One rank runs the steps for systems of this size, or the whole program
for small ones; two ranks run the steps with an exchange between layers. Both take turns in every repeat, on
rattled copper in stock LAMMPS (NVE, float32, random weights); the least time of each counts. `--cells 10` is
4000 atoms. On a busy machine the ratio of processor times, without waiting, says what the speed-up would be
on free cores.

The model of many ranks: a step costs seconds per edge and per atom, fitted to one rank at two sizes and to
the measured share of the steps; each exchange a latency and bytes over a bandwidth, of which the rows are
fitted to the measured number of ghosts as a shell around a cube; each sum log2(ranks) latencies.
"""

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MODELS = {
    # kind, cap, sizes of the network; the first is that of the shipped demonstration model
    "demo-size": ("conservative", 20, {"channels": 64, "hidden": 128, "head_hidden": 64, "layers": 3}),
    "direct-20": ("direct", 20, {}),
    "conservative-20": ("conservative", 20, {}),
}
BUSY = "processor, not waiting, s"
BAR = 1.8  # of one rank's speed on two, issue 5
DENSITY = 4 / 3.61**3  # atoms per A^3
RANKS = (8, 32, 128, 512, 1024)
ATOMS = (1e4, 1e5, 1e6, 1e7)

SCRIPT = """\
units metal
atom_style atomic
atom_modify map yes
boundary p p p
lattice fcc 3.61
region box block 0 {cells} 0 {cells} 0 {cells}
create_box 1 box
create_atoms 1 box
mass 1 63.546
displace_atoms all random 0.1 0.1 0.1 7
pair_style orbv3 threads 1 timing yes exchange {exchange}
pair_coeff * * {file} Cu
neighbor 1.0 bin
timestep 0.001
fix md all nve
run 1
run {steps} pre no
"""


@dataclass
class Run:
    """What one start of LAMMPS printed."""

    seconds: float  # per step, LAMMPS's loop time
    table: dict[str, list[float]]  # pair_style's own, per rank and evaluation: least, mean, most


def export(name: str, file: Path) -> None:
    import torch
    from orb_export.export import export_model
    from orb_export.model import OrbConfig, OrbV3

    torch.manual_seed(0)
    kind, cap, sizes = MODELS[name]
    export_model(OrbV3(OrbConfig(kind, max_neighbors=cap, **sizes)).eval(), file, verified=False)


def launch(file: Path, folder: Path, cells: int, steps: int, ranks: int, exchange: str) -> Run:
    script = folder / "in.lammps"
    script.write_text(SCRIPT.format(file=file, cells=cells, steps=steps, exchange=exchange))
    programs = Path(sys.executable).parent
    cores = sorted(os.sched_getaffinity(0))
    # one core a rank where there are enough; LAMMPS and the model keep to one thread in any case
    pin = ["taskset", "-c", ",".join(map(str, cores[:ranks]))]
    command = [*pin, programs / "mpiexec", "-n", str(ranks), programs / "lmp", "-in", script, "-log", "none"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    loops = re.findall(r"Loop time of (\S+) on", done.stdout)
    table = {}
    last = done.stdout[done.stdout.rindex("Orb-v3:") :]
    for line in last.splitlines()[2:]:
        found = re.match(r"  (\S.*?) {2,}(.*)", line)
        if not found:
            break
        table[found[1]] = [float(word) for word in found[2].split()]
    return Run(float(loops[-1]) / steps, table)


@dataclass
class Fit:
    """Of one model; seconds and bytes are per rank and step."""

    fixed: float
    per_atom: float
    overhead: float  # of what several ranks run over what one does
    shell: float  # A, thickness of the ghosts around a cube
    bytes_per_ghost: float
    seconds_per_byte: float  # to pack and unpack
    exchanges: float
    sums: float

    def seconds(self, atoms: float, ranks: int, latency: float, bandwidth: float) -> float:
        """Of a step."""
        own = atoms / ranks
        side = (own / DENSITY) ** (1 / 3)
        ghosts = DENSITY * ((side + 2 * self.shell) ** 3 - side**3)
        bytes_ = min(ghosts, atoms - own) * self.bytes_per_ghost
        compute = self.fixed + self.per_atom * own * self.overhead
        messages = 6 * self.exchanges * latency + self.sums * math.log2(ranks) * latency
        return compute + messages + bytes_ * (self.seconds_per_byte + 1 / bandwidth)


def fit(small: Run, large: Run, two: Run) -> Fit:
    atoms = [run.table["own atoms"][1] for run in (small, large)]
    per_atom = (large.seconds - small.seconds) / (atoms[1] - atoms[0])
    fixed = max(0.0, small.seconds - per_atom * atoms[0])
    own, ghosts = two.table["own atoms"][1], two.table["atoms of other ranks"][1]
    area = 2 * (2 * own / DENSITY) ** (2 / 3)  # two ranks share two faces of the periodic box
    bytes_ = 1e6 * two.table["exchange of rows, MB"][1]
    model = two.table["model, s"][1] + two.table["graph, s"][1]
    return Fit(
        fixed=fixed,
        per_atom=per_atom,
        overhead=model / (per_atom * own),
        shell=ghosts / DENSITY / area,
        bytes_per_ghost=bytes_ / ghosts,
        seconds_per_byte=two.table["of these in copies, s"][1] / bytes_,
        exchanges=two.table["exchange of rows, calls"][1],
        sums=two.table["sums over ranks, calls"][1],
    )


def measure(name: str, file: Path, folder: Path, options: argparse.Namespace) -> Fit:
    """The least of each contestant's times; prints a row."""
    contestants = {
        "small": (max(4, options.cells // 2), 1, "auto"),
        "one": (options.cells, 1, "auto"),
        "two": (options.cells, 2, "reverse"),
        "redundant": (options.cells, 2, "redundant"),
    }
    best: dict[str, Run] = {}
    for _ in range(options.repeats):
        for key, (cells, ranks, exchange) in contestants.items():
            run = launch(file, folder, cells, options.steps, ranks, exchange)
            if key not in best or run.seconds < best[key].seconds:
                best[key] = run
    one, two, redundant = (best[key] for key in ("one", "two", "redundant"))
    table = two.table
    cells = (
        name,
        f"{4 * options.cells**3}",
        f"{one.seconds:.3f}",
        f"{two.seconds:.3f}",
        f"{one.seconds / two.seconds:.2f} (bar {BAR})",
        f"{one.table[BUSY][1] / two.table[BUSY][2]:.2f}",
        f"{redundant.seconds:.3f}",
        f"{table['atoms of other ranks'][1]:.0f}",
        f"{table['exchange of rows, MB'][1]:.1f}",
        f"{table['exchange of rows, calls'][1]:.0f}",
        f"{table['exchange of rows, s'][0]:.4f}",
        f"{table['model, s'][3]:.2f}",
    )
    print("| " + " | ".join(cells) + " |", flush=True)
    return fit(best["small"], one, two)


def print_scaling(name: str, model: Fit, latency: float, bandwidth: float) -> None:
    print(f"\n{name}: thousand atom-steps per second, and the share of perfect scaling\n")
    print("| atoms | " + " | ".join(f"{ranks} ranks" for ranks in RANKS) + " |")
    print("|---" * (len(RANKS) + 1) + "|")
    for atoms in ATOMS:
        cells = []
        for ranks in RANKS:
            seconds = model.seconds(atoms, ranks, latency, bandwidth)
            ideal = model.per_atom * model.overhead * atoms / ranks
            cells.append(f"{1e-3 * atoms / seconds:.3g} ({100 * ideal / seconds:.0f} %)")
        print(f"| {atoms:.0e} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--cells", type=int, default=10, help="of copper along each edge (default 10)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--latency", type=float, default=2e-6, help="of a network, s (default 2e-6)")
    parser.add_argument("--bandwidth", type=float, default=5e9, help="of each rank, bytes/s (default 5e9)")
    parser.add_argument("--artefacts", type=Path, help="folder to keep the exported models in")
    options = parser.parse_args()
    if options.cells < 5:
        parser.error(
            f"--cells is {options.cells} but must be at least 5: the fit needs a smaller system, of 4"
        )
    print(
        "| model | atoms | 1 rank, s/step | 2 ranks, s/step | speed-up | of processor time "
        "| 2 ranks redundant, s/step | ghosts per rank "
        "| MB per rank | exchanges | exchange s | model most/mean |"
    )
    print("|---" * 12 + "|")
    fits = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.artefacts or Path(temporary)
        for name in options.models:
            file = folder / f"{name}.pt2"
            if not file.exists():
                export(name, file)
            fits[name] = measure(name, file, Path(temporary), options)
    for name, found in fits.items():
        print_scaling(name, found, options.latency, options.bandwidth)


if __name__ == "__main__":
    main()
