"""The plan of a benchmark, and what carries it out."""

import datetime
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orb_export import ops
from orb_export.graph import from_atoms

from . import graphs, machine, memory, on_device, products, steps, work
from .timing import least_times

Progress = Callable[[str], None]
# of each device
PRECISIONS = {"cpu": ("float32", "float32-split", "bfloat16"), "cuda": ("float32", "tf32")}
MEMORY_OF = ("ours", "limited", "orb-models")
_NEIGHBORS = 80  # of copper within the cutoff, about


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    models: Sequence[str] = tuple(steps.MODELS)
    precisions: Sequence[str] = PRECISIONS["cpu"]
    atoms: Sequence[int] = (64, 256, 1000)
    graph_atoms: Sequence[int] = (1000, 10000, 100000)
    memory_atoms: int = 0  # of direct-inf; 0: not measured
    memory_of: Sequence[str] = ("ours", "limited")
    memory_limit: int = 1_000_000_000  # bytes, of the limited one
    linearity: bool = False  # t(20000) / t(2000) of direct-20
    peers: bool = False
    repeats: int = 3
    warm_up: int = 2
    device: str = "cpu"
    on_device: bool = False  # steps whose atoms stay on the device, each size in a process of its own
    device_limit: int = 7_500_000_000  # bytes, of a second evaluation of what needs more
    most_edges: int = 0  # models and sizes with more are left out; 0: none
    keep: Path | None = None  # folder of artefacts, for the next time

    def __post_init__(self) -> None:
        known: dict[str, Iterable[object]] = {
            "models": steps.MODELS,
            "precisions": PRECISIONS[self.device],
            "memory_of": MEMORY_OF,
        }
        for field, values in known.items():
            if unknown := [value for value in getattr(self, field) if value not in values]:
                raise ValueError(f"bench: `{field}` has {unknown} but must be of {list(values)}")
        for n_atoms in filter(None, (*self.atoms, self.memory_atoms)):
            steps.repeats(n_atoms)
        if self.repeats < 1:
            raise ValueError(f"bench: `repeats` is {self.repeats} but must be positive")
        if (self.peers or "orb-models" in self.memory_of) and importlib.util.find_spec("orb_models") is None:
            raise ValueError("bench: `peers` needs orb-models: pip install orb-models==0.5.5 vesin matscipy")

    def sizes(self, model: str) -> list[int]:
        """Atoms of the steps of a model."""
        edges = {n: n * min(steps.MODELS[model].max_neighbors, _NEIGHBORS) for n in self.atoms}
        return [n for n in self.atoms if not 0 < self.most_edges < edges[n]]


class Artefacts:
    """Full-size models by name and precision, compiled where they are not in the folder yet."""

    def __init__(self, folder: Path, device: str, progress: Progress) -> None:
        self.folder, self.device, self.progress = folder, device, progress

    def file(self, model: str, precision: str = "float32") -> Path:
        """Of that model; the first of a kind takes minutes to compile, others differ in the cap alone."""
        file = self.folder / f"{model}-{precision}.pt2"
        if file.is_file():
            return file
        config = steps.MODELS[model]
        alike = [name for name, other in steps.MODELS.items() if other.kind == config.kind]
        compiled = [path for name in alike if (path := self.folder / f"{name}-{precision}.pt2").is_file()]
        if compiled:
            steps.with_cap(compiled[0], config.max_neighbors, file)
        else:
            self.progress(f"compiling {model}, {precision}")
            steps.export(model, file, precision, self.device)
        return file


def prepare(plan: Plan, progress: Progress) -> None:
    """Compile all that `run` will need into `plan.keep`."""
    if plan.keep is None:
        raise ValueError("bench: `keep` must name a folder when nothing but artefacts is asked for")
    plan.keep.mkdir(parents=True, exist_ok=True)
    artefacts = Artefacts(plan.keep, plan.device, progress)
    for model in plan.models:
        for precision in plan.precisions:
            artefacts.file(model, precision)


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Measure; takes minutes to compile each kind of model and precision."""
    progress("matrix products")
    found: dict[str, Any] = {
        "machine": machine.describe(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": plan.device,
        "peak_gflops": products.peaks(plan.device),
        "graphs": [],
        "steps": [],
        "device_steps": [],
        "linearity": [],
        "memory": [],
    }
    graph_peers = graphs.installed_peers(plan.device) if plan.peers else []
    for n_atoms in plan.graph_atoms:
        progress(f"radius graph of {n_atoms} atoms")
        found["graphs"] += graphs.measure(n_atoms, graph_peers, plan.repeats, plan.device)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orb-models
        folder = plan.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        artefacts = Artefacts(folder, plan.device, progress)
        for model in plan.models:
            if plan.on_device:
                found["device_steps"] += _device_steps(plan, model, artefacts, found["peak_gflops"])
            else:
                found["steps"] += _steps(plan, model, artefacts, found["peak_gflops"])
        if plan.linearity:
            found["linearity"] = [_linearity(plan, artefacts)]
        if plan.memory_atoms:
            found["memory"] = _memory(plan, artefacts)
    return found


def _steps(plan: Plan, model: str, artefacts: Artefacts, peaks: dict[str, float]) -> list[dict[str, Any]]:
    if not plan.sizes(model):
        return []
    contestants = {name: steps.ours(artefacts.file(model, name)) for name in plan.precisions}
    if plan.peers:
        contestants["peer"] = steps.peer(model, artefacts.folder, plan.device)
    config, rows = steps.MODELS[model], []
    for n_atoms in plan.sizes(model):
        artefacts.progress(f"steps of {model}, {n_atoms} atoms")
        atoms = steps.copper(n_atoms)
        runs = {name: on(atoms) for name, on in contestants.items()}
        times = least_times(runs, plan.repeats, plan.warm_up)
        edges = len(from_atoms(atoms, config.max_neighbors).centers)
        for precision in plan.precisions:
            rows.append(
                {
                    "model": model,
                    "precision": precision,
                    "atoms": n_atoms,
                    "edges": edges,
                    "repeats": plan.repeats,
                    "peer_ms": 1e3 * times["peer"] if plan.peers else None,
                    "ratio": times[precision] / times["peer"] if plan.peers else None,
                    **_speed(model, precision, n_atoms, edges, times[precision], peaks),
                }
            )
    return rows


def _device_steps(
    plan: Plan, model: str, artefacts: Artefacts, peaks: dict[str, float]
) -> list[dict[str, Any]]:
    """Of each precision without a limit and under one, where that makes a difference, and orb-models'."""
    rows = []
    for n_atoms in plan.sizes(model):
        tasks = []
        for precision in plan.precisions:
            file = str(artefacts.file(model, precision))
            tasks += [(precision, file, limit) for limit in (0, plan.device_limit)]
        for precision, file, limit in [*tasks, *([("float32", "", 0)] if plan.peers else [])]:
            artefacts.progress(f"steps of {model}, {n_atoms} atoms, {precision if file else 'orb-models'}")
            row: dict[str, Any] = {"model": model, "precision": precision, "atoms": n_atoms}
            row |= on_device.measure(on_device.Task(model, file, n_atoms, plan.device, plan.repeats, limit))
            if limit and row.get("program") == "whole":
                continue  # the same as without
            if "edges" in row:
                row |= _speed(model, precision, n_atoms, row["edges"], row["seconds"], peaks)
            rows.append({"program": "orb-models" if not file else "steps", "limit": limit, **row})
    return rows


def _speed(
    model: str, precision: str, atoms: int, edges: int, seconds: float, peaks: dict[str, float]
) -> dict[str, float]:
    """The columns that a time and the work behind it give."""
    done = work.evaluation(steps.MODELS[model], atoms, edges, precision)
    flops = 1e-9 * (done.flops + done.node_flops)
    least = 1e-9 * (done.flops / _peak(precision, peaks) + done.node_flops / peaks["float32"])
    return {
        "ms": 1e3 * seconds,
        "steps_per_second": 1.0 / seconds,
        "gflop": flops,
        "megabytes": 1e-6 * done.bytes,
        "gflops": flops / seconds,
        "share_of_peak": least / seconds,
    }


def _peak(precision: str, peaks: dict[str, float]) -> float:
    """GFLOP/s of products that this machine could do of edges."""
    if precision == "float32-split":
        return peaks["bfloat16"] / 3 if ops.splits_products() else peaks["float32"]
    return peaks[precision]


def _linearity(plan: Plan, artefacts: Artefacts) -> dict[str, Any]:
    on, sizes = steps.ours(artefacts.file("direct-20")), (2000, 20000)
    artefacts.progress(f"steps of direct-20, {sizes[0]} and {sizes[1]} atoms")
    runs = {str(size): on(steps.copper(size)) for size in sizes}
    small, large = least_times(runs, plan.repeats, warm_up=1).values()
    return {"model": "direct-20", "atoms": sizes, "seconds": (small, large), "ratio": large / small}


def _memory(plan: Plan, artefacts: Artefacts) -> list[dict[str, Any]]:
    model, size = "direct-inf", plan.memory_atoms
    rows = []
    for program in plan.memory_of:
        file = None if program == "orb-models" else artefacts.file(model)
        limit = plan.memory_limit if program == "limited" else 0
        artefacts.progress(f"memory of {model}, {size} atoms, {program}")
        found = memory.measure(model, file, size, limit)
        rows.append({"model": model, "program": program, "limit": limit, **found})
    return rows
