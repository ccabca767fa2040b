"""Losses of one training step. Oracle: steps of orb-models 0.5.5 stored in ../shared/reference, float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from orb_export.checkpoint import from_upstream_state_dict, to_upstream_state_dict
from orb_export.graph import Graph, batch_graphs, from_edges
from orb_export.model import OrbConfig, OrbV3
from orb_export.train.data import Labels
from orb_export.train.losses import (
    LossWeights,
    additivity_gaps,
    conditional_huber,
    confidence_loss,
    huber,
    loss_terms,
    predict,
)
from torch.nn import functional

REFERENCE = Path(__file__).resolve().parents[2] / "../shared/reference/reference_cases.npz"
TOLERANCE = 1e-10  # float64 against float64, relative to 1 + |x|
CAP = 20


@pytest.fixture(scope="module")
def reference():
    if not REFERENCE.is_file():
        pytest.skip("needs ../shared/reference/reference_cases.npz")
    return np.load(REFERENCE)


def assert_close(actual, expected, name):
    actual, expected = (
        torch.as_tensor(actual).double().flatten(),
        torch.as_tensor(expected).double().flatten(),
    )
    error = ((actual - expected).abs() / (1 + expected.abs())).max()
    assert error <= TOLERANCE, f"{name}: {error:.2e}"


def stored_step(reference, kind):
    """Model, batch, labels and weights of the stored step."""
    state = {
        key.removeprefix(f"sd/{kind}/"): torch.from_numpy(reference[key])
        for key in reference.files
        if key.startswith(f"sd/{kind}/")
    }
    model = from_upstream_state_dict(state, CAP, dtype=torch.float64).train()
    graphs, energy, forces, stress = [], [], [], []
    for member in reference[f"train/{kind}/members"]:
        structure, edges, target = f"struct/{member}/", f"graph/{member}/{CAP}/", f"train/{kind}/{member}/"
        graphs.append(
            from_edges(
                reference[structure + "numbers"],
                reference[edges + "wrapped_positions"],
                reference[structure + "cell"],
                reference[edges + "senders"],
                reference[edges + "receivers"],
                reference[edges + "vectors"],
                charge=float(reference[structure + "charge"]),
                spin=float(reference[structure + "spin"]),
            )
        )
        energy.append(torch.from_numpy(reference[target + "energy"]))
        forces.append(torch.from_numpy(reference[target + "forces"]))
        has_stress = target + "stress" in reference.files
        stress.append(
            torch.from_numpy(reference[target + "stress"]) if has_stress else torch.full((1, 6), torch.nan)
        )
    names = {"grad_forces": "forces", "grad_stress": "stress", "rotational_grad": "equigrad"}
    stored = json.loads(str(reference[f"train/{kind}/loss_weights"]))
    weights = LossWeights(
        **{"stress": 0.0} | {names.get(name, name): value for name, value in stored.items()}
    )
    return (
        model,
        batch_graphs(graphs),
        Labels(torch.cat(energy), torch.cat(forces), torch.cat(stress)),
        weights,
    )


@pytest.mark.parametrize("kind", ["cons", "direct", "cons_omol", "direct_omol"])
def test_step_has_the_stored_loss_terms_statistics_and_gradients(reference, kind):
    model, graph, labels, weights = stored_step(reference, kind)
    loss, terms = loss_terms(model, graph, labels, weights)
    loss.backward()

    assert_close(loss.detach(), reference[f"train/{kind}/loss"], "loss")
    direct = {"forces_loss": "forces_loss", "stress_loss": "stress_loss"} if kind.startswith("direct") else {}
    conservative = {"forces_loss": "grad-grad_forces_loss", "stress_loss": "grad-grad_stress_loss"}
    logged = 0
    for name, term in terms.items():
        key = f"train/{kind}/log/" + (direct or conservative).get(name, name)
        if name.endswith("loss"):
            assert_close(term, reference[key], name)
            logged += 1
    assert logged >= 4

    state = to_upstream_state_dict(model)
    after = [key for key in reference.files if key.startswith(f"train/{kind}/after/")]
    assert after
    for key in after:
        assert_close(state[key.removeprefix(f"train/{kind}/after/")], reference[key], key)

    # gradients, in upstream's names: our state dict with each parameter replaced by its gradient
    for parameter in model.parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        with torch.no_grad():
            parameter.copy_(gradient)
    gradients = to_upstream_state_dict(model)
    norms = [key for key in reference.files if key.startswith(f"train/{kind}/gradnorm/")]
    assert norms
    for key in norms:
        assert_close(gradients[key.removeprefix(f"train/{kind}/gradnorm/")].norm(), reference[key], key)
    for key in (key for key in reference.files if key.startswith(f"train/{kind}/grad/")):
        assert_close(gradients[key.removeprefix(f"train/{kind}/grad/")], reference[key], key)


def test_huber_is_an_absolute_error_beyond_its_threshold():
    target = torch.zeros(1, dtype=torch.float64)
    # torch's kernel keeps the threshold in float32
    assert float(huber(target + 0.005, target)) == pytest.approx(0.5 * 0.005**2, rel=1e-7)
    assert float(huber(target + 2.0, target)) == pytest.approx(0.01 * (2.0 - 0.005), rel=1e-7)


@pytest.mark.parametrize(("norm", "delta"), [(99.0, 0.01), (150.0, 0.007), (250.0, 0.004), (300.0, 0.001)])
def test_threshold_of_forces_shrinks_with_the_target(norm, delta):
    target = torch.tensor([[0.0, norm, 0.0]], dtype=torch.float64)
    prediction = target + 1.0
    expected = functional.huber_loss(prediction, target, delta=delta)
    assert_close(conditional_huber(prediction, target), expected, "bracket")


def tiny_model():
    torch.manual_seed(3)
    return OrbV3(OrbConfig("conservative", channels=8, hidden=8, head_hidden=8, layers=1)).double()


def test_confidence_loss_ignores_errors_beyond_the_last_bin():
    model = tiny_model()
    logits = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = torch.tensor([0.0, 0.15, 7.0], dtype=torch.float64)
    expected = functional.cross_entropy(logits[:2], torch.tensor([0, 24]))
    assert_close(confidence_loss(model, logits, errors), expected, "two of three")
    assert float(confidence_loss(model, logits, errors + 1.0)) == 0.0


def small_batch():
    generator = np.random.default_rng(5)
    vectors = generator.normal(size=(2, 3)) * 2
    graph = from_edges(
        [14, 14],
        np.array([[0, 0, 0], vectors[0]]),
        np.eye(3) * 9.0,
        [0, 1],
        [1, 0],
        [vectors[0], -vectors[0]],
    )
    labels = Labels(
        torch.tensor([-9.0], dtype=torch.float64),
        torch.from_numpy(generator.normal(size=(2, 3))),
        torch.from_numpy(generator.normal(size=(1, 6))),
    )
    return graph, labels


def test_confidence_gradients_reach_the_confidence_head_only():
    model, (graph, labels) = tiny_model(), small_batch()
    weights = LossWeights(energy=0.0, forces=0.0, stress=0.0, confidence=1.0)
    labels = labels._replace(forces=torch.zeros_like(labels.forces))
    loss_terms(model, graph, labels, weights)[0].backward()
    moved = {
        name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert moved == {"confidence_head"}


def test_a_structure_without_stress_adds_nothing_to_loss_or_statistics():
    model, (graph, labels) = tiny_model(), small_batch()
    both = Labels(*(torch.cat([column, column]) for column in labels))
    both.stress[1] = torch.nan
    both.energy[1] += 1.0  # equal targets have no spread to normalize with
    loss, terms = loss_terms(model.train(), batch_graphs([graph, graph]), both, LossWeights())
    alone = tiny_model().train()
    _, expected = loss_terms(alone, graph, labels, LossWeights())
    assert torch.isfinite(loss)
    assert_close(terms["stress_loss"], expected["stress_loss"], "stress")
    assert_close(model.stress_normalizer.mean, alone.stress_normalizer.mean, "mean")
    assert_close(model.stress_normalizer.var, alone.stress_normalizer.var, "variance")


def two_structures():
    """Three atoms and one, without edges."""
    numbers = torch.tensor([3, 14, 29, 42])
    nothing = torch.zeros(0, dtype=torch.int64)
    return Graph(
        numbers=numbers,
        centers=nothing,
        neighbors=nothing,
        vectors=torch.zeros(0, 3, dtype=torch.float64),
        batch=torch.tensor([0, 0, 0, 1]),
        counts=torch.tensor([3, 1]),
        charge=torch.zeros(2, dtype=torch.float64),
        spin=torch.ones(2, dtype=torch.float64),
        cell=torch.zeros(2, 3, 3, dtype=torch.float64),
        positions=torch.zeros(4, 3, dtype=torch.float64),
    )


def test_additivity_gap_is_the_head_of_the_mean_less_the_mean_of_the_head():
    model = tiny_model()
    graph = two_structures()
    features = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        gaps = additivity_gaps(model, graph, features)
        per_atom = model.energy_head.mlp(features[:3])[:, 0]
        pooled = float(model.energy_head.mlp(features[:3].mean(dim=0, keepdim=True)))
    assert float(gaps[0]) == pytest.approx(pooled - sum(per_atom.tolist()) / 3, abs=1e-14)
    assert abs(float(gaps[0])) > 1e-6
    assert float(gaps[1]) == pytest.approx(0.0, abs=1e-14)  # a single atom is its own mean


def test_additivity_is_a_term_of_the_loss_that_training_can_lower():
    model = tiny_model()
    graph = two_structures()
    labels = Labels(
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(4, 3, dtype=torch.float64),
        torch.full((2, 6), torch.nan, dtype=torch.float64),
    )
    weights = LossWeights(energy=0.0, forces=0.0, stress=0.0, confidence=0.0, additivity=2.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss, terms = loss_terms(model, graph, labels, weights)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    final, _ = loss_terms(model, graph, labels, weights)
    gaps = additivity_gaps(model, graph, predict(model, graph).outputs.node_features).detach()
    assert set(terms) == {"additivity_loss", "loss", "energy_mae", "forces_mae"}
    assert losses[0] > 0.0
    assert losses[-1] < 0.1 * losses[0]
    assert float(final.detach()) == pytest.approx(2.0 * float(huber(gaps, torch.zeros_like(gaps))))


@pytest.mark.parametrize("delta", [0.01, 1e-4])
def test_energies_are_compared_with_the_threshold_of_the_weights(delta):
    model = tiny_model()
    graph = two_structures()
    target = torch.tensor([3.0, -2.0], dtype=torch.float64)
    labels = Labels(target, torch.zeros(4, 3, dtype=torch.float64), torch.full((2, 6), torch.nan))
    only = {"forces": 0.0, "stress": 0.0, "confidence": 0.0}
    model.eval()
    with torch.no_grad():
        model.energy_head.normalizer.mean.fill_(0.0)
        model.energy_head.normalizer.var.fill_(4.0)  # far errors: the loss is delta * (error - delta / 2)
    predicted = predict(model, graph).energy.detach()
    errors = ((predicted - target) / graph.counts / 2.0).abs()
    loss, _ = loss_terms(model, graph, labels, LossWeights(energy=2.0, energy_huber_delta=delta, **only))
    expected = 2.0 * float((delta * (errors - 0.5 * delta)).mean())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
