"""Peak memory and time of one evaluation of a large system under a memory limit, as a Markdown table.

    python benchmarks/memory.py [--models direct-inf conservative-20] [--atoms 20000] [--limit 4e9]
                                [--artefacts FOLDER]

Full-size models with random weights in float32, rattled copper. Each evaluation has a process of its own, so
that the resident set of that process is its peak; `tensors` are torch's alone, counted in the runtime, and
`predicted` is what was said of them beforehand. `before` is the process with torch and the edge list.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = {
    "direct-20": ("direct", 20),
    "direct-inf": ("direct", 120),
    "conservative-20": ("conservative", 20),
    "conservative-inf": ("conservative", 120),
}


def export(name: str, file: Path) -> None:
    import torch
    from orb_export.export import export_model
    from orb_export.model import OrbConfig, OrbV3

    torch.manual_seed(0)
    kind, cap = MODELS[name]
    export_model(OrbV3(OrbConfig(kind, max_neighbors=cap)).eval(), file, verified=False)


def resident() -> int:
    """Largest resident set of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def evaluate(file: Path, n_atoms: int, limit: int) -> dict[str, float]:
    """One evaluation in this process."""
    import ase.build
    import torch  # noqa: F401  (its libraries must be in the process before ours)
    from orb_export import _core, artefact

    potential = artefact.load(file, memory_limit=limit)
    atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True)
    layers = -(-n_atoms // (4 * 10 * 10))  # slabs of 400 atoms
    atoms = atoms.repeat((10, 10, layers))
    atoms.rattle(0.1, seed=0)
    box, cap = (atoms.cell.array, atoms.pbc), potential.metadata["max_neighbors"]
    edges, _, vectors = _core.radius_graph(atoms.positions, *box, potential.metadata["cutoff"], cap)
    predicted = potential.predict_memory(len(atoms), len(vectors)).used
    before, start = resident(), time.perf_counter()
    results = potential._compiled.evaluate(atoms.numbers, *edges, vectors, atoms.positions, atoms.cell.array)
    return {
        "atoms": len(atoms),
        "edges": len(vectors),
        "seconds": time.perf_counter() - start,
        "before": before,
        "peak": resident(),
        "tensors": results["memory"],
        "predicted": predicted,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["direct-inf", "conservative-20"])
    parser.add_argument("--atoms", type=int, default=20000)
    parser.add_argument("--limit", type=float, default=4e9, help="memory limit, bytes (default 4e9)")
    parser.add_argument("--artefacts", type=Path, help="folder to keep the exported models in")
    parser.add_argument("--evaluate", type=Path, help=argparse.SUPPRESS)  # the process of one evaluation
    options = parser.parse_args()
    if options.evaluate:
        print(json.dumps(evaluate(options.evaluate, options.atoms, int(options.limit))))
        return
    print(f"memory limit {options.limit / 1e9:g} GB; 1 GB = 10^9 bytes\n")
    print("| model | atoms | edges | before GB | peak GB | peak kB/atom | tensors GB | predicted GB | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.artefacts or Path(temporary)
        for name in options.models:
            file = folder / f"{name}.pt2"
            if not file.exists():
                export(name, file)
            command = [sys.executable, __file__, "--evaluate", file, "--atoms", options.atoms]
            command += ["--limit", options.limit]
            done = subprocess.run(
                [str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True
            )
            r = json.loads(done.stdout)
            gb = " | ".join(f"{r[key] / 1e9:.2f}" for key in ("tensors", "predicted"))
            print(
                f"| {name} | {r['atoms']} | {r['edges']} | {r['before'] / 1e9:.2f} | {r['peak'] / 1e9:.2f} "
                f"| {r['peak'] / r['atoms'] / 1e3:.0f} | {gb} | {r['seconds']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
