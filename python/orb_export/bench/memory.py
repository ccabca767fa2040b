"""Peak memory of one evaluation in a process of its own, ours and that of orb-models.

Run as `python -m orb_export.bench.memory JSON` this module is that process.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ase import Atoms


class Task(NamedTuple):
    """What such a process is to evaluate."""

    model: str  # of steps.MODELS; of orb-models where there is no file
    file: str  # an artefact; "": orb-models
    atoms: int
    limit: int = 0  # bytes, 0 for none


def status(name: str) -> int:
    """Bytes that the kernel says of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"bench: /proc/self/status has no {name}")


def _ceiling() -> None:
    """What needs more memory than the machine has free fails by itself, and stops no other program."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
            resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + free, resource.RLIM_INFINITY))


def _measured(evaluate: Callable[[], object]) -> dict[str, float]:
    """Seconds, resident set before, and its peak during one evaluation."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start = status("VmRSS"), time.perf_counter()
    evaluate()
    return {"seconds": time.perf_counter() - start, "before": before, "peak": status("VmHWM")}


def _ours(task: Task) -> dict[str, float]:
    from orb_export import artefact, graph

    from .steps import copper

    potential = artefact.load(task.file, memory_limit=task.limit)
    cap: int = potential.metadata["max_neighbors"]
    found: dict[str, int] = {}

    def run(atoms: "Atoms") -> None:
        g = graph.from_atoms(atoms, cap)
        tensors = (g.numbers, g.centers, g.neighbors, g.vectors, g.positions, g.cell[0])
        results = potential._compiled.evaluate(*(tensor.numpy() for tensor in tensors))
        found.update(edges=len(g.centers), tensors=results["memory"])

    run(copper(64))  # what the libraries keep
    atoms = copper(task.atoms)
    measured = _measured(lambda: run(atoms))
    predicted = potential.predict_memory(len(atoms), found["edges"]).used
    return {**found, "predicted": predicted, **measured}


def _upstream(task: Task) -> dict[str, float]:
    import tempfile

    from . import steps

    with tempfile.TemporaryDirectory() as folder:
        on = steps.peer(task.model, Path(folder))
    for n_atoms in (64, 108):  # compiled, for any size
        on(steps.copper(n_atoms))()
    return _measured(on(steps.copper(task.atoms)))


def evaluate(task: Task) -> dict[str, Any]:
    """One evaluation of rattled copper in this process."""
    import warnings

    import torch  # noqa: F401  (its libraries must be in the process before ours)

    warnings.simplefilter("ignore")  # of orb-models
    _ceiling()
    return {"atoms": task.atoms, **(_ours(task) if task.file else _upstream(task))}


def measure(model: str, file: Path | None, n_atoms: int, limit: int = 0) -> dict[str, Any]:
    """The same in a process of its own, of orb-models without a `file`. RuntimeError with its last words."""
    task = Task(model, "" if file is None else str(file), n_atoms, limit)
    command = [sys.executable, "-m", __name__, json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise RuntimeError(f"bench: the evaluation of {n_atoms} atoms failed: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    print(json.dumps(evaluate(Task(*json.loads(sys.argv[1])))))
