"""Steps whose atoms stay on the device of an artefact, as an engine on a GPU takes them: time and memory.

Each model and size has a process of its own, so that nothing is left of the one before; run as `python -m
orb_export.bench.on_device JSON` this module is that process. Where the whole program does not fit into the
device's memory, the steps of the potential take edges in parts, under a memory limit.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from orb_export import _core, artefact
from orb_export.graph import from_atoms

from . import steps
from .memory import status
from .timing import Run, least_times

if TYPE_CHECKING:
    from ase import Atoms

SHARE = 0.9  # of the device's free memory
_WARM_UP = 4  # kernels are captured at the third evaluation
_SHORT = 30_000  # atoms; larger systems are not captured
_SECONDS, _MOST = 1.0, 200  # short steps are repeated for so long, or so often


class Task(NamedTuple):
    """What such a process is to measure."""

    model: str  # of steps.MODELS; of orb-models where there is no file
    file: str  # an artefact; "": orb-models
    atoms: int
    device: str  # cpu, cuda
    repeats: int
    limit: int = 0  # bytes of tensors, 0 for as many as there are


class _Array:
    """Float64 numbers (n_atoms, 3) at an address of a GPU, for torch.as_tensor."""

    def __init__(self, address: int, n_atoms: int) -> None:
        entries = {"shape": (n_atoms, 3), "typestr": "<f8", "data": (address, False), "version": 3}
        self.__cuda_array_interface__ = entries


def tensor_at(address: int, n_atoms: int, device: str) -> Tensor:
    """(n_atoms, 3) float64 at an address of the device's memory, not copied."""
    if torch.device(device).type == "cpu":
        pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_double))
        return torch.from_numpy(np.ctypeslib.as_array(pointer, (n_atoms, 3)))
    return torch.as_tensor(_Array(address, n_atoms), device=device)


def on_device(potential: artefact.Potential, atoms: "Atoms", device: str) -> Run:
    """A step of dynamics: atoms move on the device, edges are found there, forces stay there."""
    evaluation = potential._compiled.on_device(atoms.numbers.tolist())
    positions = tensor_at(evaluation.positions, len(atoms), device)
    positions.copy_(torch.from_numpy(atoms.positions))
    conditions = _core.Conditions(cell=atoms.cell.array.ravel().tolist(), periodic=atoms.pbc.tolist())
    generator = torch.Generator(device).manual_seed(1)

    def step() -> object:
        moved = torch.randn(positions.shape, generator=generator, dtype=torch.float64, device=device)
        positions.add_(moved, alpha=1e-3)
        if positions.is_cuda:
            torch.cuda.synchronize()  # the potential has a stream of its own
        return evaluation.evaluate(conditions, confidence=False)

    return step


def _free_memory(device: str) -> int:
    if device == "cpu":
        return next(
            int(line.split()[1]) * 1024
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("MemAvailable:")
        )
    free: int = torch.cuda.mem_get_info()[0]
    return free


def _peak_memory(device: str) -> int:
    return status("VmHWM") if device == "cpu" else int(torch.cuda.max_memory_reserved())


def _ours(task: Task) -> tuple[Run, dict[str, Any]]:
    atoms = steps.copper(task.atoms)
    potential = artefact.load(task.file, task.device, program="whole")
    edges = len(from_atoms(atoms, potential.metadata["max_neighbors"]).centers)
    limit = task.limit or int(SHARE * _free_memory(task.device))
    whole = potential.predict_memory(task.atoms, edges).used
    described = {"edges": edges, "limit": task.limit}
    program = "whole" if whole <= limit else "steps"
    if program == "steps":
        potential = artefact.load(task.file, task.device, memory_limit=limit)
        potential.predict_memory(task.atoms, edges)  # ValueError if there is no way
    return on_device(potential, atoms, task.device), {**described, "program": program}


def _upstream(task: Task) -> tuple[Run, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        on = steps.peer(task.model, Path(folder), task.device)
    for n_atoms in (64, 108):  # compiled, for any size
        on(steps.copper(n_atoms))()
    return on(steps.copper(task.atoms)), {"program": "orb-models", "limit": 0}


def evaluate(task: Task) -> dict[str, Any]:
    """Least time of a step in this process and the most memory of the device, in bytes."""
    import warnings

    warnings.simplefilter("ignore")  # of orb-models
    before = status("VmRSS") if task.device == "cpu" else 0
    step, described = _ours(task) if task.file else _upstream(task)
    first = least_times({"step": step}, 1, _WARM_UP if task.atoms <= _SHORT else 1)["step"]
    repeats = max(task.repeats, min(_MOST, int(_SECONDS / first)))
    seconds = least_times({"step": step}, repeats)["step"]
    memory = _peak_memory(task.device) - before
    return {**described, "seconds": seconds, "repeats": repeats, "memory": memory}


def measure(task: Task, run: Callable[..., Any] = subprocess.run) -> dict[str, Any]:
    """The same in a process of its own; {"failed": its last words} where it does not succeed."""
    command = [sys.executable, "-m", __name__, json.dumps(task)]
    done = run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        return {"failed": words[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    print(json.dumps(evaluate(Task(*json.loads(sys.argv[1])))))
