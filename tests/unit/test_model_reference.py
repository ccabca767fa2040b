"""The eager model against stored results of orb-models 0.5.5 for tiny randomized models.

Tolerances are relative to 1 + |x|: 1e-10 for float64 arithmetic, 1e-5 for float32 weights and activations.
"""

import numpy as np
import pytest
import torch
from orb_export.graph import batch_graphs
from orb_export.model.angular import SphericalHarmonics
from orb_export.model.conditioning import ChargeSpinEmbedding
from orb_export.model.derivatives import edge_forces, remove_net_torque, strain_gradient
from orb_export.model.heads import ConfidenceHead
from orb_export.model.normalizer import Normalizer
from orb_export.model.radial import BesselBasis, Envelope
from orb_export.model.zbl import COVALENT_RADII_PM

from tests.accuracy import within
from tests.reference.stored_cases import CAPS, MODELS, RESULTS, largest_error

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
DTYPES = [pytest.param(torch.float64, id="float64"), pytest.param(torch.float32, id="float32")]
INTERMEDIATES = "triclinic_3sp_unwrapped"


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_all_results_of_all_structures_equal_upstream(stored, name, dtype, cap):
    model = stored.model(name, dtype, cap)
    compared = 0
    for structure in stored.structures:
        expected = stored.results("out", name, structure, cap)
        if not expected:  # refused by upstream
            continue
        actual = model.predict(stored.graph(structure, cap))
        for result, array in expected.items():
            if result == "stress" and not np.isfinite(array).all():
                # upstream's direct models divide by the volume of a cell that is not there
                assert not stored[f"struct/{structure}/cell"].any()
                assert torch.isfinite(actual["stress"]).all()
                continue
            error = largest_error(actual[result], array)
            check = f"stored orb-models results, {dtype}, relative".replace("torch.", "")
            assert within(check, result, error, TOLERANCE[dtype]), f"{structure} {result}: {error:.1e}"
            compared += 1
    assert compared >= 20 * 3


@pytest.mark.parametrize("name", ["cons", "direct"])
def test_float32_equals_upstream_float32(stored, name):
    model = stored.model(name, torch.float32)
    for structure in stored.structures:
        if f"graph/{structure}/20/tie_at_cap" not in stored.arrays or stored.tie(structure, 20):
            continue  # float32 rounding decides upstream which neighbor of a tie stays
        actual = model.predict(stored.graph(structure))
        for result, array in stored.results("out_f32", name, structure, 20).items():
            if structure == "co2_linear_nopbc" and result == "forces" and name == "direct":
                continue  # upstream's float32 torque removal of linear molecules is noise
            if np.isfinite(array).all():
                assert largest_error(actual[result], array) <= TOLERANCE[torch.float32], (
                    f"{structure} {result}"
                )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_batch_with_graphs_without_edges_equals_upstream(stored, name, dtype):
    members = stored[f"batch/{name}/members"].tolist()
    results = stored.model(name, dtype).predict(batch_graphs([stored.graph(member) for member in members]))
    expected = {RESULTS[k]: a for k, a in stored.under(f"batch/{name}/").items() if k != "members"}
    assert {"energy", "forces", "confidence"} <= expected.keys()
    for result, array in expected.items():
        # without a cell, in the molecular batch, upstream has no stress to compare
        assert largest_error(results[result], array) <= TOLERANCE[dtype], result


@pytest.mark.parametrize("name", MODELS)
def test_every_intermediate_equals_upstream(stored, name):
    model, graph = stored.model(name), stored.graph(INTERMEDIATES)
    expected = stored.under(f"inter/{name}/{INTERMEDIATES}/20/")
    network, actual = model.network, {}
    with torch.no_grad():
        actual["atom_emb"] = network.embedding(graph.numbers)
        actual["edge_features_in"], envelope = network.edge_encoder.features(graph.vectors)
        actual["cutoff"] = envelope[:, 0]
        actual["encoder_nodes"] = x = network.encode_nodes(graph.numbers)
        actual["encoder_edges"] = e = network.edge_encoder(graph.vectors)[0]
        condition = network.conditioning(graph.charge, graph.spin)
        for index, layer in enumerate(network.layers):
            x, message = layer(x, e, envelope, graph.centers, graph.neighbors, condition)
            e = e + message
            actual[f"block{index}_nodes"], actual[f"block{index}_edges"] = x, e
        latent_mean = x.mean(0, keepdim=True)
        actual["decoder_pred"] = model.decoder(x)
        actual["head_energy_mlp"] = model.energy_head.mlp(latent_mean)
        actual["head_confidence_mlp"] = model.confidence_head(x)
        if model.config.kind == "direct":
            actual["head_forces_mlp"] = model.force_head.mlp(x)
            if model.config.has_stress:
                actual["head_stress_mlp"] = model.stress_head.mlp(latent_mean)
    vectors = graph.vectors.clone().requires_grad_()
    energy = model.repulsion(graph.numbers, graph.centers, graph.neighbors, vectors).sum()
    (gradient,) = torch.autograd.grad(energy, vectors)
    strain = strain_gradient(graph.vectors, gradient, torch.zeros_like(graph.centers), 1)[0]
    stress = strain / torch.linalg.det(graph.cell[0])
    actual["zbl_sum_energy"] = energy.reshape(1)
    actual["zbl_mean_energy"] = energy.reshape(1) / len(graph.numbers)
    actual["zbl_forces"] = edge_forces(gradient, graph.centers, graph.neighbors, len(graph.numbers))
    actual["zbl_stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]][None]
    assert actual.keys() == expected.keys()
    for key, array in expected.items():
        assert largest_error(actual[key], array) <= 1e-10, key


class TestTables:
    """Every scalar function by itself."""

    def test_harmonics(self, stored):
        unit = torch.nn.functional.normalize(torch.from_numpy(stored["table/vectors"]))
        assert largest_error(SphericalHarmonics()(unit), stored["table/sh_lmax3_component"]) <= 1e-14

    def test_bessel(self, stored):
        r = torch.from_numpy(stored["table/lengths"])[:, None]
        basis = BesselBasis(8)
        basis.wavenumbers = torch.arange(1, 9, dtype=torch.float64) * np.pi / 6
        basis.prefactor = torch.tensor(3.0, dtype=torch.float64) ** -0.5
        assert largest_error(basis(r), stored["table/bessel8_rmax6"]) <= 1e-14

    def test_envelope(self, stored):
        r = torch.from_numpy(stored["table/lengths"])[:, None]
        assert largest_error(Envelope()(r)[:, 0], stored["table/envelope_p4_rmax6"]) <= 1e-14

    def test_envelope_vanishes_from_the_cutoff_on(self):
        assert Envelope()(torch.tensor([[6.0], [6.5]])).tolist() == [[0.0], [0.0]]

    def test_covalent_radii(self, stored):
        assert (np.array(COVALENT_RADII_PM) / 100 == stored["table/ase_covalent_radii"]).all()

    def test_charge_spin_embedding(self, stored):
        embedding = ChargeSpinEmbedding(32).double()
        with torch.no_grad():
            embedding.charge_frequencies.copy_(torch.from_numpy(stored["table/chargespin_W_charge"]))
            embedding.spin_frequencies.copy_(torch.from_numpy(stored["table/chargespin_W_spin"]))
        charge, spin = (torch.from_numpy(stored[f"table/chargespin_{key}"]) for key in ("charge", "spin"))
        assert largest_error(embedding(charge, spin), stored["table/chargespin_embedding"]) <= 1e-13

    def test_confidence_bins(self, stored):
        head = ConfidenceHead(32, 16).double()
        head.bin_edges = torch.from_numpy(stored["table/confidence_bin_edges"])
        bins = head.bins(torch.from_numpy(stored["table/confidence_errors"]))
        assert bins.tolist() == stored["table/confidence_bins"].tolist()

    def test_torque_removal_with_a_linear_molecule_and_a_single_atom(self, stored):
        counts = torch.from_numpy(stored["table/torque_n_node"])
        batch = torch.repeat_interleave(torch.arange(len(counts)), counts)
        forces, positions = (
            torch.from_numpy(stored[f"table/torque_{key}"]) for key in ("forces_in", "positions")
        )
        actual = remove_net_torque(forces, positions, batch, counts)
        assert largest_error(actual, stored["table/torque_forces_out"]) <= 1e-10

    def test_normalizer(self, stored):
        normalizer = Normalizer(0.4, 1.3, count=1000).double().train()
        normalizer.mean.fill_(0.4)
        normalizer.var.fill_(1.3**2)
        for step in range(2):
            x = torch.from_numpy(stored[f"table/normalizer_x{step}"])
            assert largest_error(normalizer(x), stored[f"table/normalizer_y{step}"]) <= 1e-12
            assert largest_error(normalizer.mean, stored[f"table/normalizer_mean{step}"]) <= 1e-12
            assert largest_error(normalizer.var, stored[f"table/normalizer_var{step}"]) <= 1e-12
            assert normalizer.count.item() == stored[f"table/normalizer_count{step}"].item()
