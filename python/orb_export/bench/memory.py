"""Peak memory of one evaluation in a process of its own.

Run as `python -m orb_export.bench.memory FILE ATOMS LIMIT` this module is that process.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def resident() -> int:
    """Largest resident set of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def evaluate(file: Path, n_atoms: int, limit: int) -> dict[str, float]:
    """One evaluation of rattled copper in this process; `limit` in bytes, 0 for none."""
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


def measure(file: Path, n_atoms: int, limit: int = 0) -> dict[str, Any]:
    """The same in a process of its own, whose resident set is then the peak of that evaluation."""
    command = [sys.executable, "-m", __name__, str(file), str(n_atoms), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"bench: the evaluation of {n_atoms} atoms failed: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    print(json.dumps(evaluate(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
