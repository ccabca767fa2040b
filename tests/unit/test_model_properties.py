"""Invariances and derivatives of the eager model and its single-graph cores.

Oracles: the model itself on transformed input, finite differences, and TorchScript. Tiny randomized weights.
"""

import numpy as np
import pytest
import torch
from orb_export.graph import Graph, batch_graphs, from_edges
from orb_export.model import OrbConfig, OrbV3

from tests.reference.stored_cases import MODELS, largest_error

STRUCTURES = ("triclinic_3sp_unwrapped", "co_short_nopbc", "ethanol_in_periodic_box", "isolated_atom_nopbc")
EXACT = 1e-12  # float64, sums of at most some hundred terms in another order


def core_inputs(graph: Graph, vectors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return graph.numbers, graph.centers, graph.neighbors, vectors, graph.charge[0], graph.spin[0]


def core_outputs(core, graph: Graph) -> dict[str, torch.Tensor]:
    """Outputs of the contract, by name."""
    vectors = graph.vectors.clone().requires_grad_()
    energy, confidence, energies, *direct = core(*core_inputs(graph, vectors))
    (gradient,) = torch.autograd.grad(energy, vectors)
    named = dict(zip(("node_forces", "force_offset", "node_stress"), direct, strict=False))
    common = {"energy": energy, "edge_gradient": gradient, "confidence": confidence}
    return {**common, "atom_energies": energies, **named}


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance=EXACT):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert largest_error(actual[name], tensor.detach().numpy()) <= tolerance, name


class TestCores:
    """The programs that are compiled."""

    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize("name", MODELS)
    def test_core_equals_the_batched_model(self, stored, name, structure):
        model, graph = stored.model(name), stored.graph(structure)
        actual, outputs = core_outputs(model.core(), graph), model(graph)
        energies = actual.pop("atom_energies")
        assert_same({"sum": energies.sum()}, {"sum": outputs.energy[0]})
        expected = {"energy": outputs.energy[0], "confidence": outputs.confidence_logits.softmax(1)}
        if model.config.kind == "direct":
            expected |= {"node_forces": outputs.node_forces, "force_offset": outputs.force_offset}
            expected["node_stress"] = (
                torch.zeros(6) if outputs.node_stress is None else outputs.node_stress[0]
            )
        vectors = graph.vectors.clone().requires_grad_()
        energy = model(graph._replace(vectors=vectors)).energy.sum()
        (expected["edge_gradient"],) = torch.autograd.grad(energy, vectors)
        assert_same(actual, expected)
        assert {tensor.dtype for tensor in actual.values()} == {torch.float64}

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("name", MODELS)
    def test_torchscript_gives_the_same_numbers(self, stored, name, dtype):
        core = stored.model(name, dtype).core().requires_grad_(False)
        scripted = torch.jit.script(core)
        frozen = torch.jit.freeze(torch.jit.script(core))
        tolerance = EXACT if dtype == torch.float64 else 1e-6
        # more than one call each, at different sizes: TorchScript specializes after the first
        for structure in (*STRUCTURES, *STRUCTURES):
            graph = stored.graph(structure)
            expected = core_outputs(core, graph)
            assert_same(core_outputs(scripted, graph), expected, tolerance)
            assert_same(core_outputs(frozen, graph), expected, tolerance)

    @pytest.mark.parametrize("name", MODELS)
    def test_torch_export_takes_the_core_unchanged(self, stored, name):
        core = stored.model(name).core().requires_grad_(False)
        example = stored.graph("nacl_8")
        atoms, edges = torch.export.Dim("atoms"), torch.export.Dim("edges")
        shapes = ({0: atoms}, {0: edges}, {0: edges}, {0: edges}, None, None)
        with torch.no_grad():
            program = torch.export.export(
                core, core_inputs(example, example.vectors), dynamic_shapes=shapes
            ).module()
            graph = stored.graph("triclinic_3sp_unwrapped")
            actual, expected = (f(*core_inputs(graph, graph.vectors)) for f in (program, core))
        for one, other in zip(actual, expected, strict=True):
            assert largest_error(one, other.numpy()) <= EXACT


class TestInvariances:
    """What must not matter."""

    @pytest.mark.parametrize("name", MODELS)
    def test_order_of_atoms_and_edges_does_not_matter(self, stored, name):
        model, graph = stored.model(name), stored.graph("triclinic_3sp_unwrapped")
        generator = torch.Generator().manual_seed(1)
        atoms = torch.randperm(len(graph.numbers), generator=generator)
        edges = torch.randperm(len(graph.centers), generator=generator)
        new_index = torch.argsort(atoms)
        shuffled = graph._replace(
            numbers=graph.numbers[atoms],
            positions=graph.positions[atoms],
            centers=new_index[graph.centers[edges]],
            neighbors=new_index[graph.neighbors[edges]],
            vectors=graph.vectors[edges],
        )
        actual, expected = model.predict(shuffled), model.predict(graph)
        for per_atom in ("forces", "confidence"):
            expected[per_atom] = expected[per_atom][atoms]
        assert_same(actual, expected)

    @pytest.mark.parametrize("name", MODELS)
    def test_a_batch_gives_what_its_members_give(self, stored, name):
        model = stored.model(name)
        graphs = [
            stored.graph(s) for s in ("ethanol_nopbc", "isolated_atom_box", *STRUCTURES, "far_pair_nopbc")
        ]
        singles = [model.predict(graph) for graph in graphs]
        expected = {key: torch.cat([single[key] for single in singles]) for key in singles[0]}
        assert_same(model.predict(batch_graphs(graphs)), expected)

    @pytest.mark.parametrize("name", MODELS)
    def test_prediction_leaves_model_graph_and_defaults_alone(self, stored, name):
        model, graph = stored.model(name, torch.float32), stored.graph("nacl_8")
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        tensors, dtype = [tensor.clone() for tensor in graph], torch.get_default_dtype()
        results = model.predict(graph)
        assert all((tensor == before[key]).all() for key, tensor in model.state_dict().items())
        assert all((one == other).all() for one, other in zip(graph, tensors, strict=True))
        assert not graph.vectors.requires_grad
        assert all(weight.grad is None for weight in model.parameters())
        assert not any(tensor.requires_grad for tensor in results.values())
        assert {tensor.dtype for tensor in results.values()} == {torch.float64}
        assert torch.get_default_dtype() == dtype

    @pytest.mark.parametrize("name", MODELS)
    def test_results_are_repeatable_to_the_bit(self, stored, name):
        model, graph = stored.model(name, torch.float32), stored.graph("slab_al_o_full_pbc")
        first, second = model.predict(graph), model.predict(graph)
        assert all((first[key] == second[key]).all() for key in first)


class TestDerivatives:
    """Finite differences of the energy, edges held fixed (float64, central, step 1e-5)."""

    STEP = 1e-5
    TOLERANCE = 1e-7  # eV/angstrom: cancellation leaves about 1e-10 / STEP times a few, truncation is smaller

    @pytest.fixture(params=["triclinic_3sp_unwrapped", "co_short_periodic", "ethanol_nopbc"])
    def case(self, stored, request):
        graph = stored.graph(request.param)
        shifts = torch.from_numpy(stored[f"graph/{request.param}/20/unit_shifts"].astype(np.float64))
        return graph, shifts

    @staticmethod
    def energy(model, graph, shifts, positions, cell):
        vectors = positions[graph.neighbors] + shifts @ cell - positions[graph.centers]
        with torch.no_grad():
            return model(graph._replace(vectors=vectors)).energy.item()

    @pytest.mark.parametrize("name", ["cons", "cons_omol"])
    def test_forces(self, stored, case, name):
        model, (graph, shifts) = stored.model(name), case
        forces, cell = model.predict(graph)["forces"], graph.cell[0]
        for atom, axis in [(0, 0), (1, 1), (len(graph.numbers) - 1, 2)]:
            energies = []
            for sign in (1, -1):
                moved = graph.positions.clone()
                moved[atom, axis] += sign * self.STEP
                energies.append(self.energy(model, graph, shifts, moved, cell))
            difference = -(energies[0] - energies[1]) / (2 * self.STEP)
            assert forces[atom, axis].item() == pytest.approx(difference, abs=self.TOLERANCE)

    def deformation(self, model, graph, shifts, matrix_of):
        """Central differences of the energy over the nine entries of a 3x3 argument."""
        result = torch.zeros(3, 3, dtype=torch.float64)
        for i in range(3):
            for j in range(3):
                energies = []
                for sign in (1, -1):
                    argument = torch.zeros(3, 3, dtype=torch.float64)
                    argument[i, j] = sign * self.STEP
                    m = matrix_of(argument)
                    energies.append(self.energy(model, graph, shifts, graph.positions @ m, graph.cell[0] @ m))
                result[i, j] = (energies[0] - energies[1]) / (2 * self.STEP)
        return result

    @pytest.mark.parametrize("name", ["cons", "cons_omol"])
    def test_stress(self, stored, case, name):
        model, (graph, shifts) = stored.model(name), case
        if not graph.cell.any():
            graph = graph._replace(cell=10 * torch.eye(3, dtype=torch.float64)[None])
        one = torch.eye(3, dtype=torch.float64)
        strain = self.deformation(model, graph, shifts, lambda eps: one + (eps + eps.T) / 2)
        expected = strain[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / torch.linalg.det(graph.cell[0]).abs()
        assert largest_error(model.predict(graph)["stress"][0], expected.numpy()) <= self.TOLERANCE

    @pytest.mark.parametrize("name", ["cons", "cons_omol"])
    def test_rotational_gradient(self, stored, case, name):
        model, (graph, shifts) = stored.model(name), case
        rotation = self.deformation(model, graph, shifts, lambda g: torch.linalg.matrix_exp(g - g.T))
        actual = model.predict(graph)["rotational_grad"][0]
        assert (actual + actual.T == 0).all()
        assert largest_error(actual, rotation.numpy()) <= self.TOLERANCE

    @pytest.mark.parametrize("name", ["direct", "direct_omol"])
    def test_repulsion_forces_of_direct_models(self, stored, case, name):
        model, (graph, shifts) = stored.model(name), case
        moved, forces = graph.positions.clone().requires_grad_(), model.predict(graph)["forces"]
        vectors = moved[graph.neighbors] + shifts @ graph.cell[0] - moved[graph.centers]
        outputs = model(graph._replace(vectors=vectors))
        (gradient,) = torch.autograd.grad(outputs.repulsion.sum(), moved)
        heads = model.direct_forces(graph, outputs.node_forces) + outputs.force_offset
        assert largest_error(forces, (heads - gradient).detach().numpy()) <= EXACT

    def test_second_derivatives_exist(self, stored):
        # training on forces differentiates them with respect to the weights
        model, graph = stored.model("cons"), stored.graph("co_short_periodic")
        vectors = graph.vectors.clone().requires_grad_()
        weight = model.network.layers[0].edge_block.mlp.first.weight

        def gradient_norm():
            energy = model(graph._replace(vectors=vectors)).energy.sum()
            return torch.autograd.grad(energy, vectors, create_graph=True)[0].square().sum()

        (slope,) = torch.autograd.grad(gradient_norm(), weight)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[3, 5] += sign * self.STEP
            values.append(gradient_norm().item())
            with torch.no_grad():
                weight[3, 5] -= sign * self.STEP
        difference = (values[0] - values[1]) / (2 * self.STEP)
        assert slope[3, 5].item() == pytest.approx(difference, rel=1e-5, abs=1e-7)


class TestSizes:
    """Parameter counts of the published sizes, from the published checkpoints' key lists."""

    @pytest.mark.parametrize(
        ("options", "parameters"),
        [
            ({"kind": "conservative"}, 25_510_582),
            ({"kind": "direct"}, 25_644_479),
            ({"kind": "conservative", "has_charge_spin": True}, 25_839_670),
            ({"kind": "direct", "has_charge_spin": True, "has_stress": False}, 25_906_233),
        ],
    )
    def test_number_of_parameters(self, options, parameters):
        with torch.device("meta"):
            model = OrbV3(OrbConfig(**options))
        assert sum(weight.numel() for weight in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "magic"}, "`kind` is 'magic' but must be 'conservative' or 'direct'"),
        ({"kind": "direct", "layers": 0}, "`layers` is 0 but must be a positive integer"),
        ({"kind": "direct", "max_neighbors": 2.5}, "`max_neighbors` is 2.5 but must be a positive integer"),
        ({"kind": "conservative", "has_stress": False}, "`has_stress` is False but a conservative model"),
        ({"kind": "direct", "elements": (14, 118)}, r"`elements` has \[118\] but must be atomic numbers"),
    ],
)
def test_impossible_configurations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OrbConfig(**options)


def test_channels_that_cannot_be_split_into_waves_are_refused():
    with pytest.raises(ValueError, match="`channels` is 18 but must be a multiple of 4"):
        OrbV3(OrbConfig(kind="direct", channels=18, has_charge_spin=True))


@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_coincident_atoms_give_no_silent_number(kind):
    model = OrbV3(OrbConfig(kind=kind, channels=8, hidden=8, head_hidden=8, layers=1)).eval()
    graph = from_edges([1, 1], np.zeros((2, 3)), None, [0, 1], [1, 0], np.zeros((2, 3)))
    assert not torch.isfinite(model.predict(graph)["energy"]).any()
