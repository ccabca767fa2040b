"""Equally distant neighbors: their order, and the cap that falls among them, depend on geometry alone."""

import ase.build
import numpy as np
import pytest
from orb_export import _core

from tests.reference.radius_graph import radius_graph as oracle

CRYSTALS = {
    "fcc": ase.build.bulk("Cu", "fcc", a=3.61, cubic=True),
    "bcc": ase.build.bulk("Fe", "bcc", a=2.87, cubic=True),
    "diamond": ase.build.bulk("C", "diamond", a=3.567, cubic=True),
    "hcp": ase.build.bulk("Mg", "hcp", a=3.21, c=5.21),
    "sc_shell_on_cutoff": ase.build.bulk("Po", "sc", a=3.0),
}


def vectors_of(positions, cell, cap):
    """Edge vectors of each atom (N, K, 3), in order."""
    edges, _, vectors = _core.radius_graph(positions, cell, np.ones(3, bool), 6.0, cap)
    counts = np.bincount(edges[0], minlength=len(positions))
    assert len(set(counts)) == 1
    return vectors.reshape(len(positions), counts[0], 3)


@pytest.mark.parametrize("cap", [20, 120])
@pytest.mark.parametrize("crystal", CRYSTALS)
def test_ties_do_not_depend_on_order_cell_or_rounding(crystal, cap):
    rng = np.random.default_rng(7)
    atoms = CRYSTALS[crystal]
    positions, cell = atoms.positions, atoms.cell.array
    expected = vectors_of(positions, cell, cap)
    assert expected.shape[1] == cap or crystal != "diamond"
    for _ in range(10):
        order = rng.permutation(len(atoms))
        moved = positions[order] + rng.integers(-3, 4, (len(atoms), 3)) @ cell  # lattice translations
        moved = moved + rng.uniform(-20, 20, 3)  # of the whole crystal
        moved = moved + rng.normal(scale=1e-12, size=moved.shape)
        actual = vectors_of(moved, cell, cap)
        np.testing.assert_allclose(actual, expected[order], rtol=0, atol=1e-9)
        # another basis of the same lattice
        skewed = cell + rng.integers(-2, 3, (1, 3)) * np.eye(3, k=-1) @ cell
        np.testing.assert_allclose(vectors_of(moved, skewed, cap), expected[order], rtol=0, atol=1e-9)
    repeated = atoms.repeat((2, 3, 2))
    actual = vectors_of(repeated.positions, repeated.cell.array, cap)
    np.testing.assert_allclose(actual, np.tile(expected, (12, 1, 1)), rtol=0, atol=1e-9)


def test_cap_keeps_the_smallest_projections_of_a_shell():
    octahedron = np.concatenate([np.zeros((1, 3)), 2.0 * np.eye(3), -2.0 * np.eye(3)])
    edges, _, _ = _core.radius_graph(octahedron, np.zeros((3, 3)), np.zeros(3, bool), 2.5, 2)
    # -y, then -x: direction (0.5377, 0.6763, 0.5036)
    assert edges[1][edges[0] == 0].tolist() == [5, 4]


def test_shells_of_a_perfect_crystal_are_sorted_like_the_oracle():
    for atoms in CRYSTALS.values():
        arguments = (atoms.positions, atoms.cell.array, np.ones(3, bool), 6.0, -1)
        edges, shifts, _ = _core.radius_graph(*arguments)
        expected_edges, expected_shifts, _ = oracle(*arguments)
        np.testing.assert_array_equal(edges, expected_edges)
        np.testing.assert_array_equal(shifts, expected_shifts)
