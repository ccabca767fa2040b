"""The hand-written gradients of the steps of the chain. Oracle: torch's automatic differentiation."""

import pytest
import torch
from orb_export.model.chain import Chain
from torch import Tensor

from tests.artefacts import tiny_model

ATOMS, EDGES, CHANNELS, HIDDEN = 5, 17, 16, 32
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain(tiny_model("conservative").requires_grad_(False))


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def differentiated(outputs: tuple[Tensor, ...], inputs: list[Tensor], seeds: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(outputs, inputs, seeds))


def test_gradient_of_the_message(chain):
    layer = chain.layers[1]
    generator = torch.Generator().manual_seed(1)
    centers, neighbors = (torch.randint(ATOMS, (EDGES,), generator=generator) for _ in range(2))
    as_center, as_neighbor = random(ATOMS, HIDDEN), random(ATOMS + 2, HIDDEN)
    e, envelope = random(EDGES, CHANNELS).requires_grad_(), torch.rand(EDGES, 1).double().requires_grad_()
    g_next_e = random(EDGES, CHANNELS, seed=2)
    g_sent, g_received = random(ATOMS, CHANNELS, seed=3), random(ATOMS + 2, CHANNELS, seed=4)

    given = (e, envelope, as_center, as_neighbor, centers, neighbors)
    plain = layer.message(*given)
    *results, first_slope, second_slope, raw, gates = layer.message_keep(*given)
    for kept, alone in zip(results, plain, strict=True):
        torch.testing.assert_close(kept, alone, **EXACT)

    # onto the hidden layer of each edge: the edges' shares of the gradient of as_center, one atom an edge
    own = as_center.index_select(0, centers).requires_grad_()
    each = layer.message(e, envelope, own, as_neighbor, torch.arange(EDGES), neighbors)
    seeds = [g_next_e, g_received.index_select(0, neighbors), g_sent.index_select(0, centers)]
    expected = differentiated(each, [e, envelope, own], seeds)
    kept = (first_slope, second_slope, raw, gates)
    found = layer.message_vjp(envelope, centers, neighbors, *kept, g_next_e, g_received, g_sent)
    for gradient, oracle in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, oracle, **EXACT)


def test_gradient_of_the_update(chain):
    layer = chain.layers[0]
    inputs = [random(ATOMS, CHANNELS, seed=seed).requires_grad_() for seed in range(3)]
    g_next_x = random(ATOMS, CHANNELS, seed=4)
    next_x, *kept = layer.update(*inputs)
    torch.testing.assert_close(next_x, layer.interaction.update(*inputs), **EXACT)
    for gradient, oracle in zip(
        layer.update_vjp(*kept, g_next_x), differentiated((next_x,), inputs, [g_next_x]), strict=True
    ):
        torch.testing.assert_close(gradient, oracle, **EXACT)


def test_gradient_of_the_edge_encoder(chain):
    vectors = (1.5 * random(EDGES, 3)).requires_grad_()
    e, envelope = chain.edges.encode(vectors)
    kept_e, kept_envelope, *kept = chain.edges.encode_keep(vectors)
    torch.testing.assert_close((kept_e, kept_envelope), (e, envelope), **EXACT)
    seeds = [random(EDGES, CHANNELS, seed=1), random(EDGES, 1, seed=2)]
    (oracle,) = differentiated((e, envelope), [vectors], seeds)
    torch.testing.assert_close(chain.edges.encode_vjp(vectors, *kept, *seeds), oracle, **EXACT)


@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_gradient_of_the_energy_head(kind):
    head = tiny_model(kind).energy_head
    mean = random(1, CHANNELS).requires_grad_()
    (oracle,) = torch.autograd.grad(head.per_atom(mean).sum(), mean)
    torch.testing.assert_close(head.gradient(mean), oracle, **EXACT)


def test_shares_of_atoms_add_up_to_the_interaction_energy():
    head = tiny_model("conservative").energy_head
    x = random(ATOMS, CHANNELS)
    mean = x.mean(0, keepdim=True)
    total = head(mean, torch.tensor([ATOMS])).sum()
    torch.testing.assert_close(head.shares(x, mean).sum(), total, **EXACT)
    assert head.shares(x, mean).std() > 1e-3  # no even spread
