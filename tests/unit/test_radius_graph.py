"""The radius graph against a brute-force oracle, vesin, matscipy and stored lists; its errors.

Vectors are compared to 1e-10 angstrom: positions are below 100 angstrom, whose last bit is 1e-14.
"""

from pathlib import Path
from typing import NamedTuple

import ase.build
import numpy as np
import pytest
import vesin
from ase import Atoms
from matscipy.neighbours import neighbour_list
from orb_export import _core

from tests.reference.radius_graph import radius_graph as oracle

STORED = Path(__file__).resolve().parents[2] / "../shared/reference/reference_cases.npz"
TOLERANCE = 1e-10
NO_CAP = -1


class Case(NamedTuple):
    positions: np.ndarray
    cell: np.ndarray
    periodic: np.ndarray
    cutoff: float
    cap: int


def compact_cell(rng):
    return ase.geometry.cellpar_to_cell([*rng.uniform(3, 9, 3), *rng.uniform(65, 115, 3)])


def skewed_cell(rng):
    cell = np.diag(rng.uniform(3, 7, 3))
    cell[1] += rng.uniform(-3, 3) * cell[0]
    cell[2] += rng.uniform(-3, 3) * cell[0] + rng.uniform(-3, 3) * cell[1]
    return cell[rng.permutation(3)]


def tiny_cell(rng):
    return compact_cell(rng) * rng.uniform(0.25, 0.45)


def left_handed_cell(rng):
    return compact_cell(rng)[[1, 0, 2]] @ np.linalg.qr(rng.normal(size=(3, 3)))[0]


def elongated_cell(rng):
    return np.diag([2.2, 2.9, 41.0])[rng.permutation(3)] + rng.uniform(-1, 1, (3, 3))


CELLS = {f.__name__: f for f in (compact_cell, skewed_cell, tiny_cell, left_handed_cell, elongated_cell)}


def random_cases(shape, n_cases):
    """Cases of one cell shape, with any periodicity, atoms far outside the cell, and all caps."""
    rng = np.random.default_rng([sorted(CELLS).index(shape), 5])
    for _ in range(n_cases):
        cell = CELLS[shape](rng)
        n_atoms = int(rng.integers(1, 4 if shape == "tiny_cell" else 14))
        positions = rng.uniform(-2.5, 3.0, (n_atoms, 3)) @ cell
        periodic = rng.random(3) < 0.7
        yield Case(positions, cell, periodic, rng.uniform(1.5, 6.0), int(rng.choice([NO_CAP, 1, 20, 120])))


def assert_same_edges(actual, expected):
    """Both lists agree edge by edge, order included."""
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])
    np.testing.assert_allclose(actual[2], expected[2], rtol=0, atol=TOLERANCE)


def in_canonical_order(edges, shifts, vectors):
    """Sorted by center, neighbor and shift, for lists whose order means nothing."""
    keys = np.column_stack([np.asarray(edges).T, shifts]).astype(np.int64)
    order = np.lexsort(keys.T[::-1])
    return keys[order].T[:2], keys[order][:, 2:], np.asarray(vectors)[order]


@pytest.mark.parametrize("shape", CELLS)
def test_edges_match_brute_force(shape):
    n_edges = 0
    for case in random_cases(shape, 80):
        expected = oracle(*case)
        assert_same_edges(_core.radius_graph(*case), expected)
        n_edges += expected[0].shape[1]
    assert n_edges > 1000


@pytest.mark.parametrize("shape", CELLS)
def test_full_lists_match_vesin_and_matscipy(shape):
    for case in random_cases(shape, 60):
        actual = in_canonical_order(*_core.radius_graph(*case._replace(cap=NO_CAP)))
        # vesin wants a cell with rows of zeros along open axes
        cell = np.where(case.periodic[:, None], case.cell, 0.0)
        calculator = vesin.NeighborList(cutoff=case.cutoff, full_list=True)
        i, j, shifts, vectors = calculator.compute(case.positions, cell, case.periodic, "ijSD")
        assert_same_edges(actual, in_canonical_order([i, j], shifts, vectors))
        atoms = Atoms(f"H{len(case.positions)}", case.positions, cell=case.cell, pbc=case.periodic)
        i, j, shifts, vectors = neighbour_list("ijSD", atoms, case.cutoff)
        assert_same_edges(actual, in_canonical_order([i, j], shifts, vectors))


@pytest.mark.parametrize(
    "periodic", [(True, True, True), (True, False, True), (False, False, False)], ids=str
)
@pytest.mark.parametrize("density", [1e-4, 1e-3, 0.1])  # atoms per cubic angstrom
def test_many_atoms_match_vesin(density, periodic):
    rng = np.random.default_rng(8)
    cell = ase.geometry.cellpar_to_cell(
        [*(1500 / density) ** (1 / 3) * np.array([0.7, 1.0, 1.4]), 80, 100, 70]
    )
    positions = rng.uniform(0, 1, (1500, 3)) @ cell
    positions[:300] = positions[0] + rng.uniform(0, 14, (300, 3))  # a droplet in the gas
    case = Case(positions, cell, np.array(periodic), 5.0, NO_CAP)
    i, j, shifts, vectors = vesin.NeighborList(cutoff=5.0, full_list=True).compute(
        positions, np.where(case.periodic[:, None], cell, 0.0), case.periodic, "ijSD"
    )
    expected = in_canonical_order([i, j], shifts, vectors)
    assert len(i) > 10000
    assert_same_edges(in_canonical_order(*_core.radius_graph(*case)), expected)


def test_coincident_atoms_are_neighbors_at_distance_zero():
    rng = np.random.default_rng(9)
    positions = np.repeat(rng.uniform(0, 4, (4, 3)), 2, axis=0)
    for cap in (NO_CAP, 7):
        case = Case(positions, 4.0 * np.eye(3), np.ones(3, bool), 5.0, cap)
        edges, shifts, vectors = _core.radius_graph(*case)
        assert_same_edges((edges, shifts, vectors), oracle(*case))
        assert np.sum(~vectors.any(axis=1)) == 8


@pytest.mark.skipif(not STORED.exists(), reason="needs ../shared/reference/reference_cases.npz")
def test_edges_match_lists_of_orb_models():
    stored = np.load(STORED)
    names = sorted({key.split("/")[1] for key in stored if key.startswith("graph/")})
    assert len(names) > 15
    for name in names:
        structure = [stored[f"struct/{name}/{key}"] for key in ("positions", "cell", "pbc")]
        structure[2] = np.broadcast_to(structure[2], (3,))
        for cap in (20, 120):
            edges, _, vectors = _core.radius_graph(*structure, 6.0, cap)
            graph = {key: stored[f"graph/{name}/{cap}/{key}"] for key in ("senders", "receivers", "vectors")}
            order = np.lexsort((np.linalg.norm(graph["vectors"], axis=1), graph["senders"]))
            assert np.array_equal(edges[0], graph["senders"][order]), (name, cap)
            np.testing.assert_allclose(
                np.linalg.norm(vectors, axis=1),
                np.linalg.norm(graph["vectors"][order], axis=1),
                rtol=0,
                atol=TOLERANCE,
                err_msg=f"{name} {cap}",
            )
            if stored[f"graph/{name}/{cap}/tie_at_cap"]:
                continue  # which of equally distant neighbors are kept is our own choice there
            ours = np.column_stack([edges.T, np.round(vectors, 7)])
            theirs = np.column_stack([graph["senders"], graph["receivers"], np.round(graph["vectors"], 7)])
            assert {*map(tuple, ours + 0.0)} == {*map(tuple, theirs + 0.0)}, (name, cap)


def test_strongly_sheared_basis_gives_the_same_vectors():
    rng = np.random.default_rng(6)
    cell = compact_cell(rng)
    positions = rng.uniform(0, 1, (8, 3)) @ cell
    expected = _core.radius_graph(positions, cell, [True] * 3, 6.0, 50)
    sheared = np.array([[1, 0, 0], [137, 1, 0], [-55, 2048, 1]]) @ cell
    edges, shifts, vectors = _core.radius_graph(positions, sheared, [True] * 3, 6.0, 50)
    np.testing.assert_array_equal(edges, expected[0])
    # 1e5 angstrom long vectors: their last bit is 1e-11
    np.testing.assert_allclose(vectors, expected[2], rtol=0, atol=1e-9)
    rebuilt = positions[edges[1]] + shifts @ sheared - positions[edges[0]]
    np.testing.assert_allclose(vectors, rebuilt, rtol=0, atol=1e-9)


def test_result_does_not_depend_on_threads():
    atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat(8)
    atoms.rattle(0.1, seed=3)
    arguments = (atoms.positions, atoms.cell.array, atoms.pbc, 6.0, 50)
    expected = _core.radius_graph(*arguments, threads=1)
    for threads in (0, 2, 3, 7):
        for a, b in zip(_core.radius_graph(*arguments, threads=threads), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_more_neighbors_than_the_short_sort_holds():
    rng = np.random.default_rng(1)
    case = Case(rng.uniform(0, 8, (60, 3)), 8.0 * np.eye(3), np.array([True, True, False]), 9.5, NO_CAP)
    assert np.bincount(oracle(*case)[0][0]).max() > 256
    for cap in (NO_CAP, 30):
        assert_same_edges(_core.radius_graph(*case._replace(cap=cap)), oracle(*case._replace(cap=cap)))


def test_clusters_far_apart_need_memory_for_their_atoms_only():
    rng = np.random.default_rng(2)
    clusters = [
        rng.uniform(0, 9, (30, 3)) + offset for offset in ([0, 0, 0], [1e6, -1e6, 3e5], [-1e6, 0, 1e6])
    ]
    positions = np.concatenate(clusters)
    edges, shifts, vectors = _core.radius_graph(positions, np.zeros((3, 3)), np.zeros(3, bool), 5.0, NO_CAP)
    parts = [oracle(x, np.zeros((3, 3)), np.zeros(3, bool), 5.0, NO_CAP) for x in clusters]
    expected = np.concatenate([part[0] + 30 * k for k, part in enumerate(parts)], axis=1)
    np.testing.assert_array_equal(edges, expected)
    assert not shifts.any()
    # the last bit of 1e6 angstrom
    np.testing.assert_allclose(vectors, np.concatenate([part[2] for part in parts]), rtol=0, atol=1e-9)


def test_two_atoms_a_million_angstrom_apart_have_no_edges():
    edges, shifts, vectors = _core.radius_graph([[0, 0, 0], [1e6, 1e6, 1e6]], np.eye(3), [False] * 3, 6.0, 20)
    assert (edges.shape, shifts.shape, vectors.shape) == ((2, 0), (0, 3), (0, 3))


@pytest.mark.parametrize("n_atoms", [0, 1])
def test_no_neighbors_is_an_empty_graph(n_atoms):
    edges, shifts, vectors = _core.radius_graph(np.zeros((n_atoms, 3)), np.eye(3), [False] * 3, 6.0, 20)
    assert (edges.shape, shifts.shape, vectors.shape) == ((2, 0), (0, 3), (0, 3))
    assert (edges.dtype, shifts.dtype, vectors.dtype) == (np.int64, np.int32, np.float64)


def test_cutoff_is_exclusive():
    for distance, n_edges in ((5.99999, 2), (6.0, 0), (6.00001, 0)):
        edges, _, _ = _core.radius_graph([[0, 0, 0], [0, 0, distance]], np.eye(3), [False] * 3, 6.0, 20)
        assert edges.shape[1] == n_edges


def test_rows_of_open_axes_are_ignored():
    rng = np.random.default_rng(4)
    positions, cell = rng.uniform(0, 4, (5, 3)), np.diag([4.0, 5.0, 6.0])
    expected = _core.radius_graph(positions, cell, [True, False, True], 6.0, NO_CAP)
    for row in ([np.nan] * 3, [0.0] * 3, [4.0, 0.0, 0.0]):
        cell[1] = row
        assert_same_edges(_core.radius_graph(positions, cell, [True, False, True], 6.0, NO_CAP), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff": -1.0}, "radius_graph: `cutoff` is -1 but must be positive"),
        ({"cutoff": 0.0}, "radius_graph: `cutoff` is 0 but must be positive"),
        ({"cutoff": np.nan}, "radius_graph: `cutoff` is nan but must be positive"),
        ({"cutoff": np.inf}, "radius_graph: `cutoff` is inf but must be finite"),
        ({"cutoff": 1e5}, "radius_graph: `cutoff` is 100000 but needs .* periodic images"),
        ({"threads": -2}, "radius_graph: `threads` is -2 but must not be negative"),
        (
            {"positions": [[0, 0, 0], [0, np.nan, 1]]},
            r"`positions` of atom 1 is \(0, nan, 1\) but must be finite",
        ),
        ({"positions": [[0, 0, 1e300]]}, "`positions` of atom 0 is .* within 1e\\+09 angstrom"),
        ({"positions": np.zeros((4, 2))}, r"`positions` has shape \(4, 2\) but must have shape \(N, 3\)"),
        ({"cell": np.eye(2)}, r"`cell` has shape \(2, 2\) but must have shape \(3, 3\)"),
        ({"periodic": [True]}, r"`periodic` has shape \(1,\) but must have shape \(3,\)"),
        ({"cell": np.diag([1.0, 0.0, 1.0])}, r"`cell` row 1 is \(0, 0, 0\) but axis 1 is periodic"),
        ({"cell": np.diag([1.0, np.inf, 1.0])}, r"`cell` row 1 is \(0, inf, 0\) but axis 1 is periodic"),
        (
            {"cell": np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])},
            "`cell` is singular: .* not linearly independent",
        ),
        ({"cell": np.array([[1, 0, 0], [2**0.5, 0, 0], [0, 0, 1]])}, "`cell` is singular"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "positions": np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]),
        "cell": 4.0 * np.eye(3),
        "periodic": [True] * 3,
        "cutoff": 6.0,
        "max_neighbors": 20,
    }
    with pytest.raises(ValueError, match=message):
        _core.radius_graph(**(arguments | change))
