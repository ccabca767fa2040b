"""The steps of a packed model and their gradients. Oracle: those of the unpacked model in float64."""

import pytest
import torch
from orb_export.export.packed import packed
from orb_export.export.precision import in_float64
from orb_export.model import OrbV3
from orb_export.model.chain import Chain
from torch import Tensor

from tests.accuracy import within
from tests.artefacts import tiny_model

ATOMS, EDGES, CHANNELS, HIDDEN = 5, 70, 16, 32
# largest error relative to the largest number, as for a perceptron alone
BARS = {"float32": 5e-6, "float32-split": 5e-5, "three-bfloat16": 5e-5, "bfloat16": 2e-2}


@pytest.fixture(scope="module")
def model() -> OrbV3:
    return tiny_model("conservative", dtype=torch.float32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def worst(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in pairs)


def doubles(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.double() if t.is_floating_point() else t for t in tensors)


def message_inputs() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    ends = [torch.randint(ATOMS, (EDGES,), generator=generator) for _ in range(2)]
    envelope = torch.rand(EDGES, 1, generator=generator)
    return (
        random(EDGES, CHANNELS),
        envelope,
        random(ATOMS, HIDDEN, seed=2),
        random(ATOMS, HIDDEN, seed=3),
        *ends,
    )


def message(chain: Chain, *given: Tensor) -> tuple[Tensor, ...]:
    return chain.layers[1].message(*given)


def message_gradient(chain: Chain, *given: Tensor) -> tuple[Tensor, ...]:
    *_, first, second, raw, gates = chain.layers[1].message_keep(*given)
    seeds = [random(rows, CHANNELS, seed=4).to(given[0].dtype) for rows in (EDGES, ATOMS, ATOMS)]
    return chain.layers[1].message_vjp(given[1], *given[4:], first, second, raw, gates, *seeds)


def update(chain: Chain, *given: Tensor) -> tuple[Tensor, ...]:
    return chain.layers[0].update(*given)[:1]


def update_gradient(chain: Chain, *given: Tensor) -> tuple[Tensor, ...]:
    return chain.layers[0].update_vjp(*chain.layers[0].update(*given)[1:], given[0])


def encode(chain: Chain, vectors: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
    return chain.edges.encode(vectors)


def encoder_gradient(chain: Chain, vectors: Tensor, g_e: Tensor, g_envelope: Tensor) -> tuple[Tensor, ...]:
    return (chain.edges.encode_vjp(vectors, *chain.edges.encode_keep(vectors)[2:], g_e, g_envelope),)


@pytest.mark.parametrize("precision", BARS)
def test_steps_and_gradients_are_those_of_float64(model, precision):
    chain, exact = Chain(packed(model, precision)), Chain(in_float64(model).requires_grad_(False))
    of_atoms = tuple(random(ATOMS, CHANNELS, seed=seed) for seed in (5, 6, 7))
    of_edges = 1.5 * random(EDGES, 3).double(), random(EDGES, CHANNELS, seed=8), random(EDGES, 1, seed=9)
    for step, given in {
        **dict.fromkeys((message, message_gradient), message_inputs()),
        **dict.fromkeys((update, update_gradient), of_atoms),
        **dict.fromkeys((encode, encoder_gradient), of_edges),
    }.items():
        error = worst(step(chain, *given), step(exact, *doubles(*given)))
        name = step.__name__.replace("_", " ")
        assert within(f"packed steps, {precision}, relative", name, error, BARS[precision])


@pytest.mark.parametrize("precision", BARS)
def test_what_is_kept_gives_the_plain_results_again(model, precision):
    """Bit by bit: a step that is run again for its gradient must not give another stream."""
    chain, given = Chain(packed(model, precision)), message_inputs()
    layer = chain.layers[0]
    for kept, plain in zip(layer.message_keep(*given), layer.message(*given), strict=False):
        torch.testing.assert_close(kept, plain, rtol=0, atol=0)


def test_weights_for_gradients_are_those_of_conservative_models_alone():
    """They would double the file of a direct model."""
    for kind, expected in (("conservative", True), ("direct", False)):
        names = Chain(packed(tiny_model(kind, dtype=torch.float32))).state_dict()
        assert any("transposed" in name for name in names) == expected
