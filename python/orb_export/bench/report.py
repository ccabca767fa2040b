"""What was measured as JSON, Markdown and a picture."""

import json
from pathlib import Path
from typing import Any

from .machine import one_line
from .steps import MODELS

Rows = list[dict[str, Any]]
# of the time of orb-models, compiled
BARS = {
    "direct": {"float32": 0.70, "float32-split": 0.40, "bfloat16": 0.20},
    "conservative": {"float32": 0.70, "float32-split": 0.40, "bfloat16": 0.22},
}
_STYLES = {"float32": "o-", "float32-split": "s-.", "bfloat16": "o--", "tf32": "^--", "orb-models": "x:"}
LINEARITY = 10.5
# of a step on a GPU with that in its name: least steps/s, most bytes; a bar of 0 is none
DEVICE_BARS = {
    "H200": {
        ("direct-20", 1000): (600.0, 0.0),
        ("direct-inf", 1000): (350.0, 0.0),
        ("conservative-20", 1000): (130.0, 0.0),
        ("conservative-inf", 1000): (85.0, 0.0),
        ("direct-20", 100_000): (1 / 0.15, 8e9),
    }
}
MEMORY = 0.25  # of orb-models
# what must be alike for results of several runs to be on one page
_MACHINE = ("processor", "cores", "threads", "gpu", "torch", "orb_export", "device")
# what tells the rows of each list apart
_KEYS = {
    "graphs": ("atoms", "list"),
    "steps": ("model", "atoms", "precision"),
    "device_steps": ("model", "atoms", "precision", "program", "limit"),
    "linearity": ("model",),
    "memory": ("model", "atoms", "program"),
}


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _steps(rows: Rows) -> str:
    header = ["model", "precision", "atoms", "edges", "ms (repeats)", "steps/s"]
    header += ["GFLOP", "MB", "GFLOP/s", "of the peak"]
    cells = [
        [
            row["model"],
            row["precision"],
            str(row["atoms"]),
            str(row["edges"]),
            f"{row['ms']:.1f} ({row['repeats']})",
            f"{row['steps_per_second']:.3g}",
            f"{row['gflop']:.1f}",
            f"{row['megabytes']:.0f}",
            f"{row['gflops']:.0f}",
            f"{100 * row['share_of_peak']:.0f} %",
        ]
        for row in rows
    ]
    return _table(header, cells)


def _device_steps(rows: Rows, gpu: str | None) -> str:
    """One row of each process, with the bars of the project where this GPU has some."""
    bars = next((bars for name, bars in DEVICE_BARS.items() if name in (gpu or "")), {})
    header = ["model", "precision", "atoms", "edges", "program", "ms (repeats)", "steps/s", "memory GB"]
    cells = []
    for row in rows:
        limit = f", at most {1e-9 * row['limit']:g} GB" if row["limit"] else ""
        first = [row["model"], row["precision"], str(row["atoms"])]
        if "failed" in row:
            cells.append(
                [*first, "", row["program"] + limit, row["failed"].replace("|", "/"), "", "", "", ""]
            )
            continue
        speed, memory = bars.get((row["model"], row["atoms"]), (0.0, 0.0))
        cells.append(
            [
                *first,
                str(row.get("edges", "")),
                row["program"] + limit,
                f"{1e3 * row['seconds']:.2f} ({row['repeats']})",
                f"{1 / row['seconds']:.4g}" + (f" (bar {speed:.3g})" if speed else ""),
                f"{1e-9 * row['memory']:.2f}" + (f" (bar {1e-9 * memory:g})" if memory else ""),
                f"{row['gflops']:.0f}" if "gflops" in row else "",
                f"{100 * row['share_of_peak']:.0f} %" if "gflops" in row else "",
            ]
        )
    return _table([*header, "GFLOP/s", "of the peak"], cells)


def graphs_table(rows: Rows) -> str:
    """Radius graphs beside each peer: its milliseconds, and how many times as fast ours is."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row["peer_ms"]))
    header = ["atoms", "list", "edges", "ms", "ns/edge", *(f"{peer}, ms (times as fast)" for peer in peers)]
    cells = [
        [
            str(row["atoms"]),
            row["list"],
            str(row["edges"]),
            f"{row['ms']:.2f}",
            f"{row['ns_per_edge']:.1f}",
            *(
                f"{row['peer_ms'][peer]:.2f} ({row['times_as_fast'][peer]:.1f})"
                if peer in row["peer_ms"]
                else ""
                for peer in peers
            ),
        ]
        for row in rows
    ]
    return _table(header, cells)


def _ratios(rows: Rows) -> str:
    """Times over those of orb-models, with the bars of the project."""
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for row in rows:
        bar = BARS[row["model"].split("-")[0]][row["precision"]]
        line = cells.setdefault((row["model"], row["atoms"]), {"peer": f"{row['peer_ms']:.0f}"})
        line[row["precision"]] = f"{row['ratio']:.2f} ({bar:.2f})"
    lines = [
        [model, str(atoms), *(line.get(column, "") for column in ("peer", *precisions))]
        for (model, atoms), line in cells.items()
    ]
    return _table(["model", "atoms", "orb-models ms", *(f"{name} (bar)" for name in precisions)], lines)


def _memory(rows: Rows) -> str:
    header = [
        "model",
        "program",
        "atoms",
        "before GB",
        "peak GB",
        "peak less before GB",
        "of orb-models",
        "s",
    ]
    needed = {(row["program"], row["atoms"]): row["peak"] - row["before"] for row in rows}
    cells = []
    for row in rows:
        need, peer = row["peak"] - row["before"], needed.get(("orb-models", row["atoms"]))
        limit = f", at most {1e-9 * row['limit']:g} GB" if row["limit"] else ""
        cells.append(
            [
                row["model"],
                row["program"] + limit,
                str(row["atoms"]),
                *(f"{1e-9 * value:.2f}" for value in (row["before"], row["peak"], need)),
                "" if peer is None else f"{need / peer:.2f} (bar {MEMORY:.2f})",
                f"{row['seconds']:.0f}",
            ]
        )
    return _table(header, cells)


def markdown(found: dict[str, Any]) -> str:
    """The report as a page."""
    peaks = ", ".join(f"{name} {speed:.0f}" for name, speed in found["peak_gflops"].items())
    parts = [
        "# Speed of orb_export on this machine",
        f"{one_line(found['machine'])}; {found['device']}; {found['time']}. Contestants take turns, the "
        f"least time of each counts. Matrix products, GFLOP/s: {peaks}.",
    ]
    if found["steps"]:
        parts += [
            "## A step of molecular dynamics",
            "Rattled copper, full-size random weights, graph construction included. GFLOP: matrix products; "
            "MB: the least traffic to memory; of the peak: time that these products take at the speed above "
            "over the time of the step.",
            _steps(found["steps"]),
        ]
    if compared := [row for row in found["steps"] if row["ratio"] is not None]:
        parts += ["Time over that of orb-models, compiled and through ASE:", _ratios(compared)]
    if rows := found.get("device_steps"):
        parts += [
            "## Steps on the device",
            "Rattled copper, full-size random weights, each row a process of its own; atoms, edges, forces "
            "stay on the device. `steps`: edges are taken in parts, because of a limit or because the device "
            "has no more memory. Memory: the most that torch held there (on a CPU: resident set, less that "
            "before).",
            _device_steps(rows, found["machine"]["gpu"]),
        ]
    if found["graphs"]:
        parts += ["## Radius graph", "Periodic rattled copper, cutoff 6 Å.", graphs_table(found["graphs"])]
    for row in found["linearity"]:
        small, large = row["atoms"]
        text = f"t({large}) / t({small}) = {row['ratio']:.2f} (bar {LINEARITY}): {row['seconds'][1]:.1f} s"
        parts += ["## Linearity", f"{row['model']}, {text} and {row['seconds'][0]:.2f} s"]
    if found["memory"]:
        parts += [
            "## Memory",
            "Resident set of a process before and at the worst moment of an evaluation.",
            _memory(found["memory"]),
        ]
    return "\n\n".join(parts) + "\n"


def _picture(found: dict[str, Any], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    all_rows = found["steps"] + [
        {"peer_ms": None, **row} for row in found.get("device_steps", []) if "ms" in row and not row["limit"]
    ]
    for color, model in enumerate(dict.fromkeys(row["model"] for row in all_rows)):
        rows = [row for row in all_rows if row["model"] == model]
        lines = {
            precision: [(row["atoms"], row["ms"]) for row in rows if row["precision"] == precision]
            for precision in _STYLES
        }
        lines["orb-models"] = sorted({(row["atoms"], row["peer_ms"]) for row in rows if row["peer_ms"]})
        for name, points in lines.items():
            if points:
                left.loglog(*zip(*points, strict=True), _STYLES[name], color=f"C{color}")
        left.plot([], [], "-", color=f"C{color}", label=model)
    if all_rows:
        for name, style in _STYLES.items():
            left.plot([], [], style, color="0.4", label=name)
    left.set(xlabel="atoms", ylabel="ms per step", title="step")
    for name in dict.fromkeys(row["list"] for row in found["graphs"]):
        chosen = [row for row in found["graphs"] if row["list"] == name]
        right.loglog([row["atoms"] for row in chosen], [row["ms"] for row in chosen], "o-", label=name)
    right.set(xlabel="atoms", ylabel="ms", title="radius graph")
    for axis in (left, right):
        if axis.lines:
            axis.legend(fontsize="x-small")
    figure.savefig(path, dpi=150, metadata={"Software": f"matplotlib {matplotlib.__version__}"})


def previous(folder: Path, machine: dict[str, Any], device: str) -> dict[str, Any] | None:
    """Results in `folder` to add to, None without. ValueError if they are of another machine or software."""
    file = folder / "bench.json"
    if not file.is_file():
        return None
    old: dict[str, Any] = json.loads(file.read_text())
    here, there = {**machine, "device": device}, {**old["machine"], "device": old["device"]}
    if other := [name for name in _MACHINE if here.get(name) != there.get(name)]:
        raise ValueError(
            f"bench: `add` is given but {other[0]} is {here.get(other[0])} and that of the results in "
            f"{str(folder)!r} {there.get(other[0])}"
        )
    return old


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Rows of both, the new ones where both have measured the same."""
    result = {**new, "machine": {**old["machine"], **new["machine"]}}
    for name, key in _KEYS.items():
        rows = {tuple(row[field] for field in key): row for row in [*old.get(name, []), *new.get(name, [])]}
        result[name] = list(rows.values())
    for name in ("steps", "device_steps"):
        result[name].sort(key=lambda row: (list(MODELS).index(row["model"]), row["atoms"]))
    return result


def write(found: dict[str, Any], folder: Path) -> list[Path]:
    """bench.json, bench.md and bench.png in `folder`, which is made; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"bench.{suffix}" for suffix in ("json", "md", "png")]
    paths[0].write_text(json.dumps(found, indent=1) + "\n")
    paths[1].write_text(markdown(found))
    _picture(found, paths[2])
    return paths
