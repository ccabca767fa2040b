"""GraphBuilder (Verlet lists) against radius_graph, its definition."""

import ase.build
import numpy as np
import pytest
from orb_export import _core


def assert_equal_graphs(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cap", [-1, 20])
@pytest.mark.parametrize(
    "periodic", [(True, True, True), (True, False, True), (False, False, False)], ids=str
)
def test_every_step_equals_a_fresh_graph(periodic, cap):
    rng = np.random.default_rng(0)
    atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat((3, 3, 2))
    cell = atoms.cell.array + rng.uniform(-0.5, 0.5, (3, 3))
    positions = atoms.positions + rng.integers(-1, 2, (len(atoms), 3)) @ cell * periodic
    builder = _core.GraphBuilder(5.0, cap, 1.0)
    for _ in range(40):
        positions = positions + rng.normal(scale=0.03, size=positions.shape)
        expected = _core.radius_graph(positions, cell, periodic, 5.0, cap)
        assert_equal_graphs(builder.update(positions, cell, periodic), expected)
    assert builder.updates == 40
    assert 2 <= builder.rebuilds <= 20


def test_perfect_crystal_keeps_its_order_through_noise():
    rng = np.random.default_rng(1)
    atoms = ase.build.bulk("C", "diamond", a=3.567, cubic=True)
    builder = _core.GraphBuilder(6.0, 20, 1.0)
    first = builder.update(atoms.positions, atoms.cell.array, atoms.pbc)
    for _ in range(5):
        noisy = atoms.positions + rng.normal(scale=1e-13, size=(8, 3))
        edges, shifts, _ = builder.update(noisy, atoms.cell.array, atoms.pbc)
        assert_equal_graphs((edges, shifts), first[:2])
    assert builder.rebuilds == 1


def test_rebuilds_only_when_an_atom_moved_half_the_skin_or_the_box_changed():
    positions, cell, periodic = np.array([[0.0, 0, 0], [0, 0, 2.0]]), 8.0 * np.eye(3), np.ones(3, bool)
    builder = _core.GraphBuilder(5.0, -1, 1.0)

    def moved_by(distance):
        return positions + np.array([0, distance, 0])

    def rebuilds_after(*arguments):
        builder.update(*arguments)
        return builder.rebuilds

    assert rebuilds_after(positions, cell, periodic) == 1
    assert rebuilds_after(moved_by(0.499), cell, periodic) == 1
    assert rebuilds_after(moved_by(0.501), cell, periodic) == 2
    assert rebuilds_after(moved_by(0.501), 1.001 * cell, periodic) == 3
    assert rebuilds_after(moved_by(0.501), 1.001 * cell, [True, True, False]) == 4
    assert rebuilds_after(positions[:1], 1.001 * cell, [True, True, False]) == 5
    assert builder.updates == 6


def test_without_skin_every_movement_rebuilds():
    positions, cell, periodic = np.array([[0.0, 0, 0], [0, 0, 2.0]]), 8.0 * np.eye(3), np.ones(3, bool)
    builder = _core.GraphBuilder(5.0, -1, 0.0)
    for step in range(3):
        builder.update(positions + 1e-9 * step, cell, periodic)
    assert builder.rebuilds == 3


def test_bad_input_leaves_the_builder_usable():
    positions, cell, periodic = np.array([[0.0, 0, 0], [0, 0, 2.0]]), 8.0 * np.eye(3), np.ones(3, bool)
    builder = _core.GraphBuilder(5.0, -1, 1.0)
    expected = builder.update(positions, cell, periodic)
    with pytest.raises(ValueError, match=r"GraphBuilder: `positions` of atom 1 is \(0, 0, nan\)"):
        builder.update([[0, 0, 0], [0, 0, np.nan]], cell, periodic)
    with pytest.raises(ValueError, match="`cell` is singular"):
        builder.update(positions, [[1, 0, 0], [1, 0, 0], [0, 0, 1]], periodic)
    assert_equal_graphs(builder.update(positions, cell, periodic), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 20, 1.0), "GraphBuilder: `cutoff` is -1 but must be positive"),
        ((6.0, 20, -0.5), "GraphBuilder: `skin` is -0.5 but must be finite and not negative"),
        ((6.0, 20, 1.0, -1), "GraphBuilder: `threads` is -1 but must not be negative"),
    ],
)
def test_bad_options_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        _core.GraphBuilder(*arguments)
