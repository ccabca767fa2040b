"""Graphs of structures: stored edge lists of orb-models 0.5.5 where no tie is cut, and cases made by hand."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from orb_export.graph import Graph, batch_graphs, from_arrays, from_atoms, from_edges

from tests.reference.stored_cases import CAPS, largest_error


def edge_set(graph: Graph) -> set[tuple[int, ...]]:
    """Order-free; vectors to 1e-6 angstrom tell images apart."""
    rounded = (graph.vectors * 1e6).round().to(torch.int64)
    columns = [graph.centers[:, None], graph.neighbors[:, None], rounded]
    return {tuple(row) for row in torch.cat(columns, dim=1).tolist()}


def stored_atoms(stored, structure: str) -> Atoms:
    system = stored.under(f"struct/{structure}/")
    atoms = Atoms(system["numbers"], system["positions"], cell=system["cell"], pbc=system["pbc"])
    atoms.info |= {"charge": int(system["charge"]), "spin": int(system["spin"])}
    return atoms


def complete(stored, cap: int) -> list[str]:
    """Structures with stored edges whose choice was not arbitrary."""
    return [
        s
        for s in stored.structures
        if f"graph/{s}/{cap}/tie_at_cap" in stored.arrays and not stored.tie(s, cap)
    ]


@pytest.mark.parametrize("cap", CAPS)
def test_edges_equal_the_stored_lists(stored, cap):
    structures = complete(stored, cap)
    assert len(structures) >= 17
    for structure in structures:
        actual, expected = from_atoms(stored_atoms(stored, structure), cap), stored.graph(structure, cap)
        assert len(actual.centers) == len(expected.centers), structure
        by_rounding = edge_set(actual) ^ edge_set(expected)
        assert not by_rounding, structure


@pytest.mark.parametrize("name", ["cons", "direct_omol"])
def test_results_on_own_edges_equal_upstream(stored, name):
    model = stored.model(name)
    for structure in complete(stored, 20):
        graph = from_atoms(
            stored_atoms(stored, structure), 20, needs_charge_spin=model.config.has_charge_spin
        )
        actual = model.predict(graph)
        for result, expected in stored.results("out", name, structure, 20).items():
            assert largest_error(actual[result], expected) <= 1e-10, f"{structure} {result}"


class TestPartialPeriodicity:
    """Images are made along periodic axes only."""

    def test_slab_needs_no_vacuum(self, stored):
        slab = stored_atoms(stored, "slab_al_o_partial_pbc")  # 12 angstrom of vacuum
        periodic = stored_atoms(stored, "slab_al_o_full_pbc")
        assert edge_set(from_atoms(slab, 120)) == edge_set(from_atoms(periodic, 120))
        thin = slab.copy()
        thin.cell[2] = [0, 0, 3.0]  # thinner than the slab itself
        assert edge_set(from_atoms(thin, 120)) == edge_set(from_atoms(slab, 120))

    def test_open_axis_may_have_no_lattice_vector(self):
        wire = Atoms("H", positions=[[0, 0, 0]], cell=[0, 2.5, 0], pbc=[False, True, False])
        graph = from_atoms(wire, 120)
        assert sorted(graph.vectors.tolist()) == [[0, 2.5 * k, 0] for k in (-2, -1, 1, 2)]

    def test_the_whole_cell_is_kept_for_the_stress(self, stored):
        slab = stored_atoms(stored, "slab_al_o_partial_pbc")
        assert (from_atoms(slab, 20).cell[0].numpy() == slab.cell.array).all()


class TestBatching:
    """Graphs side by side."""

    def test_indices_are_shifted_and_graphs_stay_apart(self):
        first = from_arrays([1, 8], [[0, 0, 0], [0, 0, 1.0]], max_neighbors=20)
        second = from_arrays([3], [[0, 0, 0]], max_neighbors=20, charge=1, spin=2)
        batch = batch_graphs([second, first, second, first])
        assert batch.numbers.tolist() == [3, 1, 8, 3, 1, 8]
        assert batch.batch.tolist() == [0, 1, 1, 2, 3, 3]
        assert batch.counts.tolist() == [1, 2, 1, 2]
        assert batch.centers.tolist() == [1, 2, 4, 5]
        assert batch.neighbors.tolist() == [2, 1, 5, 4]
        assert batch.charge.tolist() == [1, 0, 1, 0]
        assert batch.spin.tolist() == [2, 1, 2, 1]

    def test_batches_of_batches_are_batches(self):
        graphs = [from_arrays([z, z], [[0, 0, 0], [0, 0, 1.0]], max_neighbors=20) for z in (1, 2, 3)]
        nested = batch_graphs([graphs[0], batch_graphs(graphs[1:])])
        flat = batch_graphs(graphs)
        assert all((a == b).all() for a, b in zip(nested, flat, strict=True))

    def test_nothing_cannot_be_batched(self):
        with pytest.raises(ValueError, match="`graphs` is empty"):
            batch_graphs([])


def arrays(**changes):
    """Arguments of from_arrays for a small periodic system, with changes."""
    good = {"numbers": [1, 8], "positions": [[0.0, 0, 0], [0, 0, 1]], "cell": np.eye(3) * 5, "periodic": True}
    return {**good, "max_neighbors": 20, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": [1, 0]}, r"`numbers` is 0 at atom 1 but must be within 1\.\.117"),
        ({"numbers": [118, 1]}, r"`numbers` is 118 at atom 0 but must be within 1\.\.117"),
        ({"numbers": [1.0, 8.0]}, "`numbers` has shape .2,. and type float64 but must be a list"),
        ({"numbers": []}, "at least one integer"),
        ({"positions": [[0, 0, 0]]}, r"`positions` has shape \(1, 3\) but must have shape \(2, 3\)"),
        ({"positions": [[0, 0, 0], [0, np.nan, 1]]}, "`positions` has .*nan.* in row 1 but must be finite"),
        ({"positions": [[0, 0, 0], [0, np.inf, 1]]}, "`positions` has .*inf.* in row 1 but must be finite"),
        ({"cell": np.eye(2)}, r"`cell` has shape \(2, 2\) but must have shape \(3, 3\)"),
        ({"cell": np.full((3, 3), np.nan)}, "`cell` has .*nan.* in row 0 but must be finite"),
        ({"cell": None}, "`cell` is .* but must have non-zero and independent lattice vectors"),
        ({"cell": np.ones((3, 3))}, "`cell` is .* but must have non-zero and independent lattice vectors"),
        ({"cell": np.diag([5, 5, 0])}, r"along the periodic axes \[True, True, True\]"),
        ({"periodic": [True, False]}, "`periodic` is .* but must be one or three booleans"),
        ({"periodic": 1}, "`periodic` is 1 but must be one or three booleans"),
        ({"charge": np.nan}, "`charge` is nan but must be finite"),
        ({"spin": -1}, r"`spin` is -1 but must be a multiplicity 2S\+1"),
        (
            {"positions": np.zeros((2, 3))},
            "`positions` of atoms 0 and 1 are both .* but atoms must not coincide",
        ),
        ({"positions": [[0, 0, 0], [5.0, 0, 0]]}, r"\(or images\) but atoms must not coincide"),
    ],
)
def test_bad_systems_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(**arrays(**changes))


@pytest.mark.parametrize(("name", "value"), [("charge", "1"), ("spin", None), ("charge", True)])
def test_charge_and_spin_must_be_numbers(name, value):
    with pytest.raises(TypeError, match=f"`{name}` is {value!r} but must be a number"):
        from_arrays(**arrays(**{name: value}))


class TestChargeAndSpin:
    """What is read from `atoms.info`."""

    @pytest.mark.parametrize("missing", ["charge", "spin"])
    def test_both_are_mandatory_for_models_that_need_them(self, missing):
        atoms = molecule("H2O")
        atoms.info |= {"charge": 0, "spin": 1}
        del atoms.info[missing]
        with pytest.raises(
            ValueError, match=f"lacks \\['{missing}'\\] but this model needs the total charge"
        ):
            from_atoms(atoms, 20, needs_charge_spin=True)
        assert from_atoms(atoms, 20).charge.tolist() == [0.0]

    @pytest.mark.parametrize("kind", [int, float, np.int32, np.int64, np.float32])
    def test_all_kinds_of_numbers_are_accepted(self, kind):
        atoms = molecule("H2O")
        atoms.info |= {"charge": kind(-1), "spin": kind(2)}
        graph = from_atoms(atoms, 20, needs_charge_spin=True)
        assert (graph.charge.item(), graph.spin.item()) == (-1.0, 2.0)


def test_graph_does_not_share_memory_with_its_input():
    positions = np.array([[0.0, 0, 0], [0, 0, 1]])
    graph = from_edges([1, 8], positions, None, [0], [1], [[0, 0, 1.0]])
    positions += 1
    assert graph.positions.tolist() == [[0, 0, 0], [0, 0, 1]]


def test_graph_passes_through_torchscript():
    def total(graph: Graph) -> torch.Tensor:
        return graph.vectors.sum() + graph.counts.sum()

    graph = from_arrays(**arrays())
    assert torch.jit.script(total)(graph) == total(graph)
