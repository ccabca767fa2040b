"""A system cut into parts that exchange rows gives what the whole program gives.

Oracles: the whole program of the same artefact; for the exchange of the tests itself, its adjoint identity;
and tests/reference/ghost_shell.py, which needs no exchange because each part gets all that its atoms see.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from orb_export import artefact
from orb_export.export import export_model
from orb_export.model import OrbV3

from tests import partitions
from tests.accuracy import within
from tests.artefacts import tiny_model
from tests.partitions import Part, System

EXACT = 1e-11  # relative, float64: sums in another order
LAYERS = 3
SCHEMES = {"plain": False, "redundant": True}


class Made(NamedTuple):
    model: OrbV3
    potential: artefact.Potential


def make(folder: Path, kind: str, cap: int, dtype: torch.dtype = torch.float64) -> Made:
    model = tiny_model(kind, cap=cap, has_charge_spin=cap == 120, layers=LAYERS, dtype=dtype)
    file = folder / f"{kind}-{cap}.pt"
    export_model(model, file, format="torchscript", verified=False)
    return Made(model, artefact.load(file))


@pytest.fixture(
    scope="module",
    params=[(kind, cap) for kind in ("conservative", "direct") for cap in (20, 120)],
    ids=lambda case: "-".join(map(str, case)),
)
def made(request, tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("processes"), *request.param)


@pytest.fixture(scope="module")
def conservative(tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("processes"), "conservative", 20)


def crystal() -> Atoms:
    """A skewed cell thinner than the cutoff, atoms at random, some close enough to repel each other."""
    rng = np.random.default_rng(5)
    cell = np.array([[4.1, 0.0, 0.0], [1.3, 6.5, 0.0], [-0.7, 1.9, 9.0]])
    return Atoms(rng.choice([1, 8, 14], 24), scaled_positions=rng.random((24, 3)), cell=cell, pbc=True)


def cluster() -> Atoms:
    """Without cell, so that direct models lose their torque; far from the origin."""
    rng = np.random.default_rng(6)
    return Atoms(rng.choice([6, 7], 14), positions=40.0 + rng.uniform(0, 8, (14, 3)))


def owners(atoms: Atoms, n_parts: int) -> Any:
    """Neighbors often have another owner. The third part of four is empty."""
    parts = np.random.default_rng(7).integers(n_parts, size=len(atoms))
    return np.where(parts == 2, 1, parts) if n_parts == 4 else parts


def cut(whole: System, n_parts: int, redundant: bool) -> list[Part]:
    return partitions.cut(whole, owners(whole.atoms, n_parts), n_parts, redundant)


def whole_result(made: Made, whole: System, **options: Any) -> dict[str, Any]:
    results = made.potential._compiled.evaluate(*whole.arguments(), per_atom=True, **options)
    del results["memory"]
    return results


def worst(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Largest difference relative to the largest value of its quantity, or to 1 where that is smaller."""
    assert found.keys() == expected.keys()
    return max(
        np.abs(np.subtract(found[name], expected[name])).max() / max(1.0, np.abs(expected[name]).max())
        for name in expected
    )


def in_parts(made: Made, whole: System, n_parts: int, redundant: bool, **options: Any) -> dict[str, Any]:
    parts = cut(whole, n_parts, redundant)
    results = partitions.evaluate(made.potential, whole, parts, redundant, per_atom=True, **options)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return partitions.joined(results, parts)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n_parts", [1, 2, 3, 4])
def test_parts_give_what_the_whole_gives(made, n_parts, scheme):
    cap = made.model.config.max_neighbors
    for atoms in (crystal(), cluster()):
        whole = partitions.system(atoms, cap)
        found = in_parts(made, whole, n_parts, SCHEMES[scheme])
        error = worst(found, whole_result(made, whole))
        assert within("parts of a system and the whole, float64", scheme, error, EXACT)
