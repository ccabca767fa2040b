"""What was measured as JSON, Markdown and a picture."""

import json
from pathlib import Path
from typing import Any

from .machine import one_line

Rows = list[dict[str, Any]]


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _steps(rows: Rows) -> str:
    header = ["model", "precision", "atoms", "edges", "ms", "steps/s", "orb-models ms", "ratio"]
    header += ["GFLOP", "MB", "GFLOP/s", "of the peak"]
    cells = [
        [
            row["model"],
            row["precision"],
            str(row["atoms"]),
            str(row["edges"]),
            f"{row['ms']:.1f}",
            f"{row['steps_per_second']:.3g}",
            _optional(row["peer_ms"], ".1f"),
            _optional(row["ratio"], ".2f"),
            f"{row['gflop']:.1f}",
            f"{row['megabytes']:.0f}",
            f"{row['gflops']:.0f}",
            f"{100 * row['share_of_peak']:.0f} %",
        ]
        for row in rows
    ]
    return _table(header, cells)


def _graphs(rows: Rows) -> str:
    peers = [name.removesuffix("_ns_per_edge") for name in rows[0] if name.endswith("_ns_per_edge")]
    peers = [name for name in peers if name]
    header = ["atoms", "list", "edges", "ms", "ns/edge", *(f"{peer} ns/edge" for peer in peers)]
    cells = [
        [
            str(row["atoms"]),
            row["list"],
            str(row["edges"]),
            f"{row['ms']:.2f}",
            f"{row['ns_per_edge']:.1f}",
            *(f"{row[f'{peer}_ns_per_edge']:.1f}" for peer in peers),
            _optional(row["times_as_fast"], ".1f"),
        ]
        for row in rows
    ]
    return _table([*header, "times as fast"], cells)


def markdown(found: dict[str, Any]) -> str:
    """The report as a page."""
    peaks = ", ".join(f"{name} {speed:.0f}" for name, speed in found["peak_gflops"].items())
    parts = [
        "# Speed of orb_export on this machine",
        f"{one_line(found['machine'])}; {found['device']}; {found['time']}. Contestants take turns, the "
        f"least of {found['repeats']} times counts. Matrix products, GFLOP/s: {peaks}.",
    ]
    if found["steps"]:
        parts += [
            "## A step of molecular dynamics",
            "Rattled copper, full-size random weights, graph construction included. GFLOP: matrix products; "
            "MB: the least traffic to memory; of the peak: time that these products take at the speed above "
            "over the time of the step.",
            _steps(found["steps"]),
        ]
    if found["graphs"]:
        parts += ["## Radius graph", "Periodic rattled copper, cutoff 6 Å.", _graphs(found["graphs"])]
    if linearity := found.get("linearity"):
        parts += ["## Linearity", f"direct-20, t(20000) / t(2000) = {linearity['ratio']:.2f}"]
    if memory := found.get("memory"):
        parts += [
            "## Memory",
            f"{memory['model']}, {memory['atoms']} atoms, {memory['edges']} edges: peak of the process "
            f"{memory['peak'] / 1e9:.2f} GB, {memory['before'] / 1e9:.2f} GB of it before the evaluation; "
            f"tensors {memory['tensors'] / 1e9:.2f} GB; {memory['seconds']:.0f} s",
        ]
    return "\n\n".join(parts) + "\n"


def _picture(found: dict[str, Any], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for model in dict.fromkeys(row["model"] for row in found["steps"]):
        rows = [row for row in found["steps"] if row["model"] == model]
        for precision in dict.fromkeys(row["precision"] for row in rows):
            chosen = [row for row in rows if row["precision"] == precision]
            sizes = [row["atoms"] for row in chosen]
            style = "-" if precision == "float32" else "--"
            left.loglog(sizes, [row["ms"] for row in chosen], f"o{style}", label=f"{model}, {precision}")
        if rows[0]["peer_ms"] is not None:
            peer = {row["atoms"]: row["peer_ms"] for row in rows}
            left.loglog(list(peer), list(peer.values()), "x:", color="0.4", label=f"{model}, orb-models")
    left.set(xlabel="atoms", ylabel="ms per step", title="step")
    for name in dict.fromkeys(row["list"] for row in found["graphs"]):
        chosen = [row for row in found["graphs"] if row["list"] == name]
        right.loglog([row["atoms"] for row in chosen], [row["ms"] for row in chosen], "o-", label=name)
    right.set(xlabel="atoms", ylabel="ms", title="radius graph")
    for axis in (left, right):
        if axis.lines:
            axis.legend(fontsize="x-small")
    figure.savefig(path, dpi=150, metadata={"Software": f"matplotlib {matplotlib.__version__}"})


def write(found: dict[str, Any], folder: Path) -> list[Path]:
    """bench.json, bench.md and bench.png in `folder`, which is made; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"bench.{suffix}" for suffix in ("json", "md", "png")]
    paths[0].write_text(json.dumps(found, indent=1) + "\n")
    paths[1].write_text(markdown(found))
    _picture(found, paths[2])
    return paths
