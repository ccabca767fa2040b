"""The perceptron of compiled CPU programs and its derivative. Oracle: the same in float64 by torch."""

import os
import subprocess
import sys

import pytest
import torch
from orb_export import ops
from torch.nn.functional import silu

from tests.accuracy import within

pack, perceptron, perceptron_vjp = (
    getattr(torch.ops.orb_export, name) for name in ("pack_matrix", "perceptron", "perceptron_vjp")
)
# largest error relative to the largest number: float32 sums of up to 1024; factors of 16 and of 8 bits
BARS = {"float32": 5e-6, "float32-split": 5e-5, "three-bfloat16": 5e-5, "bfloat16": 2e-2}
# rows, inputs, hidden, outputs: more and less than a tile, none of them a multiple of one
SHAPES = [(1, 16, 32, 16), (77, 17, 35, 19), (130, 256, 1024, 256)]


def layers(inputs, hidden, outputs):
    """Matrices (K, C) and biases (C,) of three layers."""
    sizes = [(inputs, hidden), (hidden, hidden), (hidden, outputs)]
    return [(torch.randn(size) / size[0] ** 0.5, torch.randn(size[1])) for size in sizes]


def packed(weights, precision):
    flat = [[pack(matrix, precision), bias] for matrix, bias in weights]
    return [tensor for pair in flat for tensor in pair]


def exact(x, added, weights):
    (w1, b1), (w2, b2), (w3, b3) = [(matrix.double(), bias.double()) for matrix, bias in weights]
    first = x.double().requires_grad_(), added.double().requires_grad_()
    return *first, silu(silu(first[0] @ w1 + b1 + first[1]) @ w2 + b2) @ w3 + b3


def error(found, expected):
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("precision", BARS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_result_and_gradients_are_those_of_float64(shape, precision):
    torch.manual_seed(1)
    rows, inputs, hidden, outputs = shape
    weights, x, g = layers(inputs, hidden, outputs), torch.randn(rows, inputs), torch.randn(rows, outputs)
    table, index, plain = torch.randn(5, hidden), torch.randint(0, 5, (rows,)), torch.randn(rows, hidden)
    x64, added64, expected = exact(x, table[index] + plain, weights)
    expected.backward(g.double())

    found, d1, d2 = perceptron(x, table, index, plain, None, *packed(weights, precision), True)
    transposed = [pack(matrix.t().contiguous(), precision) for matrix, _ in weights]
    g_x, g_first = perceptron_vjp(g, d1, d2, *transposed, inputs, True)
    errors = {
        "result": error(found, expected),
        "gradient": max(error(g_x, x64.grad), error(g_first, added64.grad)),
    }
    for quantity, value in errors.items():
        assert within(f"perceptron, {precision}, relative", quantity, value, BARS[precision]), errors
    # a reduced precision that computed in float32 after all would be no cheaper
    assert precision.startswith("float32") or errors["result"] > 2e-6


@pytest.mark.parametrize("choice", ["auto", "always", "never"])
def test_split_float32_is_three_products_where_the_processor_has_AMX_or_the_environment_says_so(
    choice, tmp_path
):
    torch.manual_seed(4)
    weights, x = layers(17, 35, 19), torch.randn(77, 17)
    kinds = ("float32-split", "three-bfloat16", "float32")
    torch.save([[x, *packed(weights, kind)] for kind in kinds], tmp_path / "given.pt")
    found, three, plain = elsewhere(tmp_path, ORB_EXPORT_SPLIT=choice)
    splits = ops.splits_products() if choice == "auto" else choice == "always"
    assert torch.equal(found, three if splits else plain)
    assert not torch.equal(three, plain)


def test_weights_are_split_again_when_others_take_their_place(tmp_path):
    """Splits are kept by address, which the next weights may get."""
    file = tmp_path / "script.py"
    file.write_text(SPLIT_TWICE)
    subprocess.run([sys.executable, file], env={**os.environ, "ORB_EXPORT_SPLIT": "always"}, check=True)


def test_an_unknown_choice_of_products_is_named(tmp_path):
    command = [sys.executable, "-c", "from orb_export import ops; ops.splits_products()"]
    environment = {**os.environ, "ORB_EXPORT_SPLIT": "yes"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "ValueError: ORB_EXPORT_SPLIT is `yes` but must be auto, always or never" in done.stderr


@pytest.mark.parametrize("precision", BARS)
def test_rows_do_not_depend_on_each_other_or_on_threads(precision):
    torch.manual_seed(2)
    weights, x = packed(layers(16, 32, 16), precision), torch.randn(150, 16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = perceptron(x, None, None, None, None, *weights, False)[0]
        torch.set_num_threads(2)
        again = perceptron(x, None, None, None, None, *weights, False)[0]
    finally:
        torch.set_num_threads(threads)
    parts = [perceptron(part, None, None, None, None, *weights, False)[0] for part in x.split(37)]
    assert torch.equal(whole, again)
    assert torch.equal(whole, torch.cat(parts))


# what a process of its own evaluates, from and to files of torch
ELSEWHERE = """
import sys, torch
from orb_export import ops
given = torch.load(sys.argv[1])
torch.save([torch.ops.orb_export.perceptron(x, None, None, None, None, *weights, False)[0]
            for x, *weights in given], sys.argv[2])
"""
SPLIT_TWICE = """
import torch
from orb_export import ops
pack = torch.ops.orb_export.pack_matrix
x, bias, one, seen = torch.randn(20, 16), torch.zeros(16), torch.eye(16), set()
for number in range(20):
    packed = pack(number * one, "float32-split")
    seen.add(packed.data_ptr())
    weights = [packed, bias, pack(one, "float32-split"), bias, pack(one, "float32-split"), bias]
    expected = torch.nn.functional.silu(torch.nn.functional.silu(number * x))
    for _ in range(2):
        found = torch.ops.orb_export.perceptron(x, None, None, None, None, *weights, False)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * number)
    del packed, weights
assert len(seen) < 20, "no address was used twice"
"""


def elsewhere(folder, **environment):
    """Results of a process of its own for the inputs in given.pt."""
    command = [sys.executable, "-c", ELSEWHERE, str(folder / "given.pt"), str(folder / "found.pt")]
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    return torch.load(folder / "found.pt")


def test_a_processor_without_kernels_of_onednn_gives_the_same_numbers(tmp_path):
    """oneDNN is told to use no instructions beyond SSE 4.1, for which it has no such kernels."""
    torch.manual_seed(3)
    weights, x = layers(256, 1024, 256), torch.randn(77, 256)
    expected = exact(x, torch.zeros(77, 1024), weights)[2]
    given = [[x, *packed(weights, precision)] for precision in BARS]
    torch.save(given, tmp_path / "given.pt")
    results = elsewhere(tmp_path, ONEDNN_MAX_CPU_ISA="SSE41")
    for precision, (_, *matrices), found in zip(BARS, given, results, strict=True):
        value = error(found, expected)
        assert within(f"perceptron without oneDNN, {precision}, relative", "result", value, BARS[precision])
        here = perceptron(x, None, None, None, None, *matrices, False)[0]
        if torch.cpu._is_avx512_supported():  # sums in another order: the kernels here are others
            assert not torch.equal(found, here)


def test_no_rows_give_no_rows():
    weights = layers(16, 32, 16)
    found, d1, d2 = perceptron(torch.zeros(0, 16), None, None, None, None, *packed(weights, "float32"), True)
    assert (found.shape, d1.shape, d2.shape) == ((0, 16), (0, 32), (0, 32))


def test_derivatives_are_stored_only_when_asked_for():
    weights = packed(layers(16, 32, 16), "bfloat16")
    _, d1, d2 = perceptron(torch.zeros(3, 16), None, None, None, None, *weights, False)
    assert (d1.shape, d2.shape) == ((0, 32), (0, 32))


def test_large_inputs_saturate_silu():
    """exp of the activation must neither overflow nor lose the sign."""
    identity = [(1e4 * torch.eye(16), torch.zeros(16)), (torch.eye(16), torch.zeros(16))]
    identity.append(identity[1])
    x = torch.linspace(-1, 1, 16)[None, :]
    found = perceptron(x, None, None, None, None, *packed(identity, "float32"), False)[0]
    torch.testing.assert_close(found, silu(silu(1e4 * x)))


def test_not_a_number_stays_one():
    weights, x = packed(layers(16, 32, 16), "bfloat16"), torch.zeros(2, 16)
    x[0, 3] = float("nan")
    found = perceptron(x, None, None, None, None, *weights, False)[0]
    assert found[0].isnan().all()
    assert not found[1].isnan().any()


def test_wrong_arguments_are_named():
    weights = packed(layers(16, 32, 16), "float32")
    with pytest.raises(
        ValueError, match="`precision` is float16 but must be float32, float32-split, three-bf"
    ):
        pack(torch.zeros(2, 2), "float16")
    with pytest.raises(ValueError, match="`matrix` must be a float32 matrix, got Double"):
        pack(torch.zeros(2, 2, dtype=torch.float64), "float32")
    with pytest.raises(RuntimeError, match=r"`x` must be a float32 matrix, got Float \[3\]"):
        perceptron(torch.zeros(3), None, None, None, None, *weights, False)
    with pytest.raises(RuntimeError, match=r"what pack_matrix makes of a matrix \(8, 32\)"):
        perceptron(torch.zeros(3, 8), None, None, None, None, *weights, False)
    with pytest.raises(RuntimeError, match=r"`rows` must have shape \(3, 32\), got \[4, 32\]"):
        perceptron(torch.zeros(3, 16), torch.zeros(4, 32), None, None, None, *weights, False)
