"""The direction of dependencies, by walking imports and includes; and what an import must not load."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "orb_export"

# A module may import modules of a lower layer only (and its own subpackage).
LAYERS = [
    ["contract"],
    ["ops"],
    ["graph"],
    ["model"],
    ["variants", "checkpoint", "artefact"],
    ["ase"],
    ["export", "lammps"],
    ["train", "bench"],  # training compiles its steps with the passes of export
    ["openmm"],  # its openmm-ml potentials export published models on first use
    ["commands", "demo"],
    ["cli"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def unit(path: Path) -> str:
    """`model/zbl.py` -> `model`, `ops.py` -> `ops`."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_units(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "orb_export":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("orb_export.")}
    return found & RANK.keys()


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


def test_every_module_has_a_layer():
    assert {unit(path) for path in MODULES} == RANK.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = unit(path)
    up = {name for name in imported_units(path) if name != here and RANK[name] >= RANK[here]}
    # variants and checkpoint are two halves of one layer: a checkpoint is looked up in the table
    up -= {"variants"} if here == "checkpoint" else set()
    assert not up, f"{path.name} imports {sorted(up)}, which are not below it"


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', path.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("cpp/include/orb_export", r"torch|ATen|c10|pybind11|lammps|pair\.h"),
        ("cpp/src/graph", r"torch|ATen|c10|pybind11|potential\.h"),
        ("cpp/src/ops", r"pybind11|potential\.h"),
        ("cpp/src/runtime", r"pybind11|lammps|pair\.h"),
        ("cpp/src/python", r"torch|ATen|c10"),
        ("cpp/src/plugin", r"torch|ATen|c10|pybind11|lammps|openmm"),
        ("openmm_plugin", r"torch|ATen|c10|pybind11"),
        ("lammps_plugin", r"torch|ATen|c10|pybind11"),
    ],
)
def test_includes_point_down(folder, forbidden):
    sources = [p for p in (ROOT / folder).rglob("*") if p.suffix in {".h", ".cpp"}]
    assert sources
    wrong = [f"{p.name}: {name}" for p in sources for name in includes(p) if re.match(forbidden, name)]
    assert not wrong


@pytest.mark.parametrize(
    "module", ["orb_export", "orb_export.lammps", "orb_export.cli", "orb_export.contract"]
)
def test_import_loads_no_torch(module):
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
