"""Everything `orb-export bench` measures, as one dictionary that report.py writes down."""

import datetime
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orb_export.graph import from_atoms

from . import graphs, machine, memory, products, steps, work
from .timing import least_times


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    models: Sequence[str] = tuple(steps.MODELS)
    precisions: Sequence[str] = ("float32", "bfloat16")
    atoms: Sequence[int] = (64, 256, 1000)
    graph_atoms: Sequence[int] = (1000, 10000, 100000)
    memory_atoms: int = 0  # of direct-inf; 0: not measured
    linearity: bool = False  # t(20000) / t(2000) of direct-20
    peers: bool = False
    repeats: int = 3
    device: str = "cpu"

    def __post_init__(self) -> None:
        known = {"models": steps.MODELS, "atoms": steps.SIZES}
        for field, values in known.items():
            if unknown := [value for value in getattr(self, field) if value not in values]:
                raise ValueError(f"bench: `{field}` has {unknown} but must be of {list(values)}")
        if self.repeats < 1:
            raise ValueError(f"bench: `repeats` is {self.repeats} but must be positive")
        if self.peers and importlib.util.find_spec("orb_models") is None:
            raise ValueError("bench: `peers` needs orb-models: pip install orb-models==0.5.5 vesin matscipy")


def run(plan: Plan, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure; takes minutes to compile each model and precision."""
    progress("matrix products")
    peaks = products.peaks(plan.device)
    found: dict[str, Any] = {
        "machine": machine.describe(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": plan.device,
        "repeats": plan.repeats,
        "peak_gflops": peaks,
        "graphs": [],
        "steps": [],
    }
    graph_peers = graphs.installed_peers() if plan.peers else []
    for n_atoms in plan.graph_atoms:
        progress(f"radius graph of {n_atoms} atoms")
        found["graphs"] += graphs.measure(n_atoms, graph_peers, plan.repeats)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orb-models
        folder = Path(name)
        for model in plan.models:
            found["steps"] += _steps(plan, model, folder, peaks, progress)
        if plan.linearity or plan.memory_atoms:
            found |= _large(plan, folder, progress)
    return found


def _file(folder: Path, model: str, precision: str, plan: Plan, progress: Callable[[str], None]) -> Path:
    file = folder / f"{model}-{precision}.pt2"
    if not file.is_file():
        progress(f"compiling {model}, {precision}")
        steps.export(model, file, precision, plan.device)
    return file


def _steps(
    plan: Plan, model: str, folder: Path, peaks: dict[str, float], progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    files = {precision: _file(folder, model, precision, plan, progress) for precision in plan.precisions}
    config, rows = steps.MODELS[model], []
    for n_atoms in plan.atoms:
        progress(f"steps of {model}, {n_atoms} atoms")
        atoms = steps.copper(n_atoms)
        runs = {precision: steps.ours(file, atoms) for precision, file in files.items()}
        if plan.peers:
            runs["peer"] = steps.peer(model, folder, atoms, plan.device)
        times = least_times(runs, plan.repeats, warm_up=2)
        edges = len(from_atoms(atoms, config.max_neighbors).centers)
        for precision in files:
            done = work.evaluation(config, n_atoms, edges, precision)
            speed = 1e-9 * (done.flops + done.node_flops) / times[precision]
            # a split product is three of bfloat16
            peak = {"bfloat16": peaks["bfloat16"], "float32-split": peaks["bfloat16"] / 3}.get(
                precision, peaks["float32"]
            )
            least = 1e-9 * (done.flops / peak + done.node_flops / peaks["float32"])
            rows.append(
                {
                    "model": model,
                    "precision": precision,
                    "atoms": n_atoms,
                    "edges": edges,
                    "ms": 1e3 * times[precision],
                    "steps_per_second": 1.0 / times[precision],
                    "peer_ms": 1e3 * times["peer"] if plan.peers else None,
                    "ratio": times[precision] / times["peer"] if plan.peers else None,
                    "gflop": 1e-9 * (done.flops + done.node_flops),
                    "megabytes": 1e-6 * done.bytes,
                    "gflops": speed,
                    "share_of_peak": least / times[precision],
                }
            )
    return rows


def _large(plan: Plan, folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if plan.linearity:
        file = _file(folder, "direct-20", "float32", plan, progress)
        times = {}
        for n_atoms in (2000, 20000):
            progress(f"steps of direct-20, {n_atoms} atoms")
            times[n_atoms] = least_times({"": steps.ours(file, steps.copper(n_atoms))}, plan.repeats, 1)[""]
        found["linearity"] = {"seconds": times, "ratio": times[20000] / times[2000]}
    if plan.memory_atoms:
        file = _file(folder, "direct-inf", "float32", plan, progress)
        progress(f"memory of direct-inf, {plan.memory_atoms} atoms")
        # without steps in the file: the whole program, the most memory that is ever used
        found["memory"] = {"model": "direct-inf", **memory.measure(file, plan.memory_atoms)}
    return found
