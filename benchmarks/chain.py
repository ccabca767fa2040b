"""Time of an evaluation by the chain of steps beside that of the whole program, as a Markdown table.

    python benchmarks/chain.py [--models direct-20 conservative-20] [--atoms 500] [--repeats 5]
                               [--chunks 4096] [--artefacts FOLDER]

Models of full size, or small, with random weights in float32 on the CPU, rattled copper. Several processes
use the chain; here it is one process without a memory limit. Both take turns; the least of each one's times
counts. With one thread (OMP_NUM_THREADS=1) these are times of the processor, which other programs disturb
less.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import ase.build
import torch
from orb_export import artefact, graph
from orb_export.export import export_model
from orb_export.model import OrbConfig, OrbV3

SMALL: dict[str, Any] = {"channels": 64, "hidden": 256, "layers": 3}
MODELS = {
    "direct-20": OrbConfig("direct", max_neighbors=20),
    "conservative-20": OrbConfig("conservative", max_neighbors=20),
    "direct-inf": OrbConfig("direct", max_neighbors=120),
    "conservative-inf": OrbConfig("conservative", max_neighbors=120),
    "small-direct-20": OrbConfig("direct", max_neighbors=20, **SMALL),
    "small-conservative-20": OrbConfig("conservative", max_neighbors=20, **SMALL),
}
CELLS = {108: (3, 3, 3), 256: (4, 4, 4), 500: (5, 5, 5), 1000: (5, 5, 10)}
BAR = 1.05  # of the whole program's time


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["direct-20", "conservative-20"])
    parser.add_argument("--atoms", nargs="+", type=int, choices=CELLS, default=[500])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chunks", nargs="+", type=int, default=[4096], help="edges at once")
    parser.add_argument("--artefacts", type=Path, help="folder to keep the exported models in")
    options = parser.parse_args()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| model | atoms | chunk | whole ms | chain ms | chain / whole | whole GB | chain GB |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.models:
            file = (options.artefacts or Path(temporary)) / f"{name}.pt2"
            if not file.exists():
                torch.manual_seed(0)
                export_model(OrbV3(MODELS[name]).eval(), file, verified=False)
            potential = artefact.load(file, program="whole")
            for n_atoms in options.atoms:
                atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat(CELLS[n_atoms])
                atoms.rattle(0.1, seed=0)
                g = graph.from_atoms(atoms, potential.metadata["max_neighbors"])
                parts = (g.numbers, g.centers, g.neighbors, g.vectors, g.positions, g.cell[0])
                arrays = [part.numpy() for part in parts]
                kept = [2 if "conservative" in name else 1] * MODELS[name].layers
                ways = {0: {}} | {chunk: {"chunk": chunk, "kept": kept} for chunk in options.chunks}
                least, memory = dict.fromkeys(ways, float("inf")), {}
                for _ in range(options.repeats + 1):
                    for chunk, way in ways.items():
                        start = clock()
                        memory[chunk] = potential._compiled.evaluate(*arrays, **way)["memory"]
                        least[chunk] = min(least[chunk], clock() - start)
                for chunk in options.chunks:
                    ratio = least[chunk] / least[0]
                    print(
                        f"| {name} | {n_atoms} | {chunk} | {1e3 * least[0]:.0f} | {1e3 * least[chunk]:.0f} "
                        f"| {ratio:.2f} (bar {BAR}) | {memory[0] / 1e9:.2f} | {memory[chunk] / 1e9:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
