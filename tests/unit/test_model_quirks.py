"""Peculiarities that the published weights were trained with: each test fails if one were "fixed".

Oracles: closed forms written here from the published description, and stored results of orb-models 0.5.5.
"""

import dataclasses
import math

import ase.data
import numpy as np
import pytest
import torch
from orb_export.checkpoint import from_upstream_state_dict
from orb_export.contract import CONFIDENCE_MAX_ERROR, MAX_ATOMIC_NUMBER
from orb_export.graph import Graph, batch_graphs, from_edges
from orb_export.model import OrbConfig, OrbV3, expected_error
from orb_export.model.blocks import RMSNorm
from orb_export.model.derivatives import conservative_stress, direct_stress
from orb_export.model.zbl import ZBL

from tests.reference.stored_cases import largest_error

TINY = {"channels": 16, "hidden": 24, "head_hidden": 8, "layers": 2, "max_neighbors": 20}


def tiny_model(kind: str, **options) -> OrbV3:
    torch.manual_seed(3)
    return OrbV3(OrbConfig(kind=kind, **(TINY | options))).double().eval()


def pair(first: int, second: int, distance: float, **options) -> Graph:
    """Two atoms along an oblique direction, with the edge and its reverse."""
    vector = np.array([2.0, 1.0, 2.0]) / 3 * distance
    positions = np.stack([np.zeros(3), vector])
    return from_edges([first, second], positions, None, [0, 1], [1, 0], [vector, -vector], **options)


def zbl_edge(z1: float, z2: float, radius1: float, radius2: float, r: float) -> float:
    """The textbook formula with the published parameters and no shift of Z."""
    rho = r / (0.4543 * 0.529 / (z1**0.3 + z2**0.3))
    terms = [(0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016)]
    phi = sum(weight * math.exp(-decay * rho) for weight, decay in terms)
    t = r / (radius1 + radius2)
    return 0.5 * 14.3996 * z1 * z2 / r * phi * (1 - 28 * t**6 + 48 * t**7 - 21 * t**8) if t < 1 else 0.0


class TestRepulsion:
    """ZBL."""

    @pytest.mark.parametrize(
        ("first", "second", "r"), [(1, 1, 0.3), (6, 8, 0.6), (29, 29, 1.5), (92, 82, 1.7)]
    )
    def test_charges_and_radii_are_those_of_the_next_element(self, first, second, r):
        radii = ase.data.covalent_radii
        graph = pair(first, second, r)
        energy = ZBL()(graph.numbers, graph.centers, graph.neighbors, graph.vectors)
        shifted = zbl_edge(first + 1, second + 1, radii[first + 1], radii[second + 1], r)
        unshifted = zbl_edge(first, second, radii[first], radii[second], r)
        assert energy.tolist() == pytest.approx([shifted, shifted], rel=1e-12)
        assert abs(shifted - unshifted) > 0.01 * shifted

    def test_hydrogen_is_cut_at_the_radii_of_helium(self):
        energies = [
            ZBL()(g.numbers, g.centers, g.neighbors, g.vectors) for g in (pair(1, 1, 0.55), pair(1, 1, 0.57))
        ]
        assert energies[0].sum() > 0
        assert energies[1].tolist() == [0.0, 0.0]  # 2 * 0.28, although 2 * 0.31 is larger

    @pytest.mark.parametrize(("kind", "factor"), [("conservative", 0.5), ("direct", 1.0)])
    def test_is_a_mean_over_atoms_in_conservative_and_a_sum_in_direct_models(self, kind, factor):
        model, graph = tiny_model(kind), pair(6, 8, 0.6)
        edges = model.repulsion(graph.numbers, graph.centers, graph.neighbors, graph.vectors)
        assert model(graph).repulsion.item() == pytest.approx(factor * edges.sum().item(), rel=1e-14)
        # the very same in the program that is compiled
        inputs = (
            graph.numbers,
            graph.centers,
            graph.neighbors,
            graph.vectors,
            graph.charge[0],
            graph.spin[0],
        )
        with_repulsion = model.core()(*inputs)[0]
        model.repulsion = _NoRepulsion()
        without = model.core()(*inputs)[0]
        assert (with_repulsion - without).item() == pytest.approx(factor * edges.sum().item(), rel=1e-9)

    def test_stays_float64_in_a_float32_model(self):
        model, graph = tiny_model("direct").float(), pair(6, 8, 0.6)
        radii = ase.data.covalent_radii
        exact = 2 * zbl_edge(7, 9, radii[7], radii[9], 0.6)
        assert model(graph).repulsion.item() == pytest.approx(exact, rel=1e-13)

    @pytest.mark.parametrize("z", [95, 96, 97, 110, MAX_ATOMIC_NUMBER])
    def test_radius_is_the_placeholder_from_96_on(self, z):
        # 0.2 angstrom in old versions of ASE; published models were made with 2.0
        graph = pair(z, z, 3.5)
        energy = ZBL()(graph.numbers, graph.centers, graph.neighbors, graph.vectors)
        assert (energy.sum() > 0) == (z >= 96)


class _NoRepulsion(torch.nn.Module):
    def forward(self, numbers, centers, neighbors, vectors):
        return torch.zeros(len(vectors), dtype=torch.float64)


class TestArithmetic:
    """Dtypes and epsilons."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_rms_norm_uses_the_machine_epsilon_of_the_arithmetic(self, dtype):
        eps = torch.finfo(dtype).eps
        x = torch.full((1, 4), math.sqrt(eps), dtype=dtype)  # then mean(x^2) = eps
        assert RMSNorm(4).to(dtype)(x).tolist()[0] == pytest.approx([math.sqrt(0.5)] * 4, rel=1e-6)

    def test_energy_tail_is_float64_in_a_float32_model(self):
        model = tiny_model("conservative").float()
        model.energy_head.reference[:] = 1e5 + 1 / 3
        graph = batch_graphs([pair(1, 8, 1.0), pair(6, 8, 1.1)])
        outputs = model(graph)
        latent = outputs.node_features.double().reshape(2, 2, -1).mean(1)
        head = model.double().energy_head
        expected = head(latent, graph.counts) + 2 * float(np.float32(1e5 + 1 / 3)) + outputs.repulsion
        assert outputs.energy.dtype == torch.float64
        assert outputs.energy.tolist() == pytest.approx(expected.tolist(), rel=1e-15)

    def test_charge_passes_through_float32(self):
        model, charge = tiny_model("conservative", has_charge_spin=True), 0.1
        rounded = float(np.float32(charge))
        energies = [model(pair(1, 8, 1.0, charge=q)).energy.item() for q in (charge, rounded, charge + 1e-6)]
        assert energies[0] == energies[1]
        assert energies[0] != energies[2]


class TestNetwork:
    """Where the envelope acts, what the gates read, and which end of an edge gets what."""

    def test_envelope_is_on_features_and_gates_but_not_on_messages(self, stored):
        model, graph = stored.model("cons"), stored.graph("near_cutoff_pair")
        with torch.no_grad():
            features, envelope = model.network.edge_encoder.features(graph.vectors)
            e = model.network.edge_encoder(graph.vectors)[0]
            x = model.network.encode_nodes(graph.numbers)
            layer = model.network.layers[0]
            message, received, sent = layer.message(x, e, envelope, graph.centers, graph.neighbors)
        assert envelope.max() < 1e-10
        assert features.abs().max() < 1e-9
        assert max(received.abs().max(), sent.abs().max()) < 1e-9
        assert message.abs().max() > 0.1

    def test_gates_read_the_edge_stream_before_the_message(self, stored):
        model, graph = stored.model("cons"), stored.graph("co_short_nopbc")
        with torch.no_grad():
            e, envelope = model.network.edge_encoder(graph.vectors)
            x = model.network.encode_nodes(graph.numbers)
            layer = model.network.layers[0]
            message, received, _ = layer.message(x, e, envelope, graph.centers, graph.neighbors)
            before = torch.sigmoid(layer.receive_gate(e)) * envelope * message
            after = torch.sigmoid(layer.receive_gate(e + message)) * envelope * message
        assert largest_error(received[graph.neighbors], before.numpy()) < 1e-14
        assert largest_error(received[graph.neighbors], after.numpy()) > 1e-3

    def test_directed_edges_reach_both_ends(self):
        vector = [[1.5, 0.0, 0.0]]
        model = tiny_model("conservative")
        one_way = from_edges([1, 8], [[0, 0, 0], vector[0]], None, [0], [1], vector)
        with torch.no_grad():
            e, envelope = model.network.edge_encoder(one_way.vectors)
            x = model.network.encode_nodes(one_way.numbers)
            _, received, sent = model.network.layers[0].message(
                x, e, envelope, one_way.centers, one_way.neighbors
            )
        assert received.abs().sum(1).bool().tolist() == [False, True]  # the neighbor
        assert sent.abs().sum(1).bool().tolist() == [True, False]  # the center

    def test_first_edge_layer_acts_on_edge_center_and_neighbor_in_this_order(self):
        block = tiny_model("conservative").network.layers[0].edge_block
        x, e = torch.randn(3, 16, dtype=torch.float64), torch.randn(2, 16, dtype=torch.float64)
        centers, neighbors = torch.tensor([0, 2]), torch.tensor([1, 0])
        whole = block.norm(block.mlp(torch.cat([e, x[centers], x[neighbors]], dim=1)))
        assert largest_error(block(x, e, centers, neighbors), whole.detach().numpy()) < 1e-13

    def test_y_is_the_polar_axis_and_the_radial_index_is_slow(self):
        encoder = tiny_model("conservative").network.edge_encoder
        features, envelope = encoder.features(torch.tensor([[0.0, 2.0, 0.0]], dtype=torch.float64))
        table = features.reshape(8, 16) / envelope
        radial = torch.tensor([math.sin(k * math.pi / 3) / 2 for k in range(1, 9)]) * math.sqrt(1 / 3)
        along_y = [1, 0, math.sqrt(3), 0, 0, 0, math.sqrt(5), 0, 0, 0, 0, 0, math.sqrt(7), 0, 0, 0]
        expected = torch.outer(radial, torch.tensor(along_y))
        assert largest_error(table, expected.numpy()) < 1e-6

    @pytest.mark.parametrize("z", [1, 57, MAX_ATOMIC_NUMBER])
    def test_tables_are_indexed_by_atomic_number_from_zero(self, z):
        model = tiny_model("conservative")
        assert model.network.embedding.weight.shape[0] == 119
        assert model.energy_head.reference.shape == (118,)
        graph = from_edges([z], np.zeros((1, 3)), None, [], [], [])
        before = model(graph).energy.item()
        with torch.no_grad():
            model.energy_head.reference[z] += 7.0
        assert model(graph).energy.item() - before == pytest.approx(7.0, rel=1e-12)
        with torch.no_grad():
            model.network.embedding.weight[z] += 1.0
        assert model(graph).energy.item() - before != pytest.approx(7.0, rel=1e-6)


class TestEnergy:
    """Pooling before the perceptron."""

    def test_unlike_fragments_do_not_add_up_but_copies_do(self, stored):
        model = stored.model("cons")
        single = {z: from_edges([z], np.zeros((1, 3)), None, [], [], []) for z in (3, 9)}
        apart = from_edges([3, 9], [[0, 0, 0], [30.0, 0, 0]], None, [], [], [])
        twice = from_edges([3, 3], [[0, 0, 0], [30.0, 0, 0]], None, [], [], [])
        energy = {
            name: model(graph).energy.item() for name, graph in {**single, "LiF": apart, "Li2": twice}.items()
        }
        assert energy["Li2"] == pytest.approx(2 * energy[3], rel=1e-13)
        assert abs(energy["LiF"] - energy[3] - energy[9]) > 1e-3

    def test_spin_zero_switches_the_spin_embedding_off(self):
        # the waves of zero would be sin 0 = 0 and cos 0 = 1, as they are for the charge
        embedding = tiny_model("conservative", has_charge_spin=True).network.conditioning
        zero = torch.zeros(1, dtype=torch.float64)
        assert embedding(zero, zero).tolist()[0] == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
        assert embedding(zero, zero + 1)[0, 8:].square().sum().item() == pytest.approx(4)

    def test_charge_and_spin_are_ignored_by_other_models(self):
        model = tiny_model("conservative")
        energies = {model(pair(1, 8, 1.0, charge=q, spin=s)).energy.item() for q, s in [(0, 1), (2, 3)]}
        assert len(energies) == 1


class TestStress:
    """Volumes and missing cells."""

    LEFT_HANDED = torch.tensor([[[0.0, 4, 0], [4, 0, 0], [0, 0, 4]]], dtype=torch.float64)
    STRAIN = torch.arange(9, dtype=torch.float64).reshape(1, 3, 3)
    STRAIN = STRAIN + STRAIN.transpose(1, 2)

    def test_volume_of_a_left_handed_cell_is_positive_in_conservative_models(self):
        stress = conservative_stress(self.STRAIN, self.LEFT_HANDED)
        assert stress[0].tolist() == [0.0, 8 / 64, 16 / 64, 12 / 64, 8 / 64, 4 / 64]

    def test_volume_of_a_left_handed_cell_is_negative_in_direct_models(self):
        head = torch.full((1, 6), 0.5, dtype=torch.float64)
        stress = direct_stress(head, self.STRAIN, self.LEFT_HANDED)
        assert stress[0].tolist() == [
            0.5,
            0.5 - 8 / 64,
            0.5 - 16 / 64,
            0.5 - 12 / 64,
            0.5 - 8 / 64,
            0.5 - 4 / 64,
        ]

    def test_without_a_cell_it_is_zero_or_the_bare_head(self):
        no_cell = torch.zeros(1, 3, 3, dtype=torch.float64)
        head = torch.full((1, 6), 0.5, dtype=torch.float64)
        assert conservative_stress(self.STRAIN, no_cell).tolist() == [[0.0] * 6]
        assert direct_stress(head, self.STRAIN, no_cell).tolist() == [[0.5] * 6]

    def test_a_cell_counts_even_without_periodicity(self, stored):
        # stored with the cell and pbc off; the same edges in a cell of twice the volume give half the stress
        model, graph = stored.model("cons"), stored.graph("ethanol_cell_but_nopbc")
        doubled = graph._replace(cell=graph.cell * torch.tensor([2.0, 1.0, 1.0])[None, :, None])
        stress, halved = model.predict(graph)["stress"], model.predict(doubled)["stress"]
        assert stress.abs().max() > 1e-6
        assert halved.tolist()[0] == pytest.approx((stress / 2).tolist()[0], rel=1e-12)

    def test_stress_normalizers_of_the_two_halves_are_separate(self):
        head = tiny_model("direct").stress_head
        latent = torch.randn(1, 16, dtype=torch.float64)
        before = head(latent)
        head.offdiagonal_normalizer.mean += 1.0
        assert (head(latent) - before)[0].tolist() == pytest.approx([0, 0, 0, 1, 1, 1], abs=1e-12)


class TestDirectForces:
    """Order of removal and offset."""

    def test_net_force_is_the_offset_times_the_number_of_atoms(self, stored):
        model = stored.model("direct")
        offset = model.force_head.normalizer.mean.item()
        assert abs(offset) > 1e-3
        for structure in ("nacl_8", "ethanol_nopbc"):
            forces = model.predict(stored.graph(structure))["forces"]
            assert forces.sum(0).tolist() == pytest.approx([offset * len(forces)] * 3, abs=1e-11)

    @pytest.mark.parametrize(
        ("structure", "removed"), [("ethanol_nopbc", True), ("ethanol_cell_but_nopbc", False)]
    )
    def test_the_cell_and_not_periodicity_decides_on_torque_removal(self, stored, structure, removed):
        model, graph = stored.model("direct"), stored.graph(structure)
        forces = model.direct_forces(graph, model(graph).node_forces).detach()
        r = graph.positions - graph.positions.mean(0)
        torque = torch.linalg.cross(r, forces).sum(0).abs().max().item()
        assert (torque < 1e-11) == removed
        assert forces.sum(0).abs().max() < 1e-12

    def test_only_the_repulsion_depends_on_the_vectors_differentiably(self, stored):
        model, graph = stored.model("direct"), stored.graph("co_short_nopbc")
        graph = graph._replace(vectors=graph.vectors.requires_grad_())
        outputs = model(graph)
        whole, repulsion = (
            torch.autograd.grad(energy.sum(), graph.vectors, retain_graph=True)[0]
            for energy in (outputs.energy, outputs.repulsion)
        )
        assert (whole == repulsion).all()
        assert repulsion.abs().max() > 1


class TestConfidence:
    """Bins of the force error."""

    def test_sends_no_gradient_into_the_network(self, stored):
        model = stored.model("cons")
        model(stored.graph("nacl_8")).confidence_logits.square().sum().backward()
        touched = {name for name, weight in model.named_parameters() if weight.grad is not None}
        assert touched == {
            name for name, _ in model.named_parameters() if name.startswith("confidence_head.")
        }

    def test_bins_are_closed_above_and_errors_beyond_the_last_are_ignored(self):
        bins = tiny_model("conservative").confidence_head.double().bins
        errors = torch.tensor([0.0, 1e-9, 0.003, 0.29999, CONFIDENCE_MAX_ERROR + 1e-3], dtype=torch.float64)
        assert bins(errors).tolist() == [0, 0, 0, 49, -100]

    def test_expected_error_is_the_mean_over_bin_midpoints(self):
        one_bin = torch.eye(50, dtype=torch.float64)
        assert expected_error(one_bin).tolist() == pytest.approx([0.003 + 0.006 * k for k in range(50)])


def test_the_cap_is_not_in_the_weights(stored):
    models = [from_upstream_state_dict(stored.state_dict("cons"), cap) for cap in (20, 120)]
    configs = [dataclasses.replace(model.config, max_neighbors=1) for model in models]
    assert configs[0] == configs[1]
