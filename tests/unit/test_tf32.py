"""Precision tf32, products of edges rounded to 10 bits on a GPU. Oracle: the same model in float32.

On the CPU the operator computes in float32, so everything but the rounding is tested here.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ase.build import bulk
from orb_export import artefact
from orb_export.export import aoti, export_model
from orb_export.export.program import contract_program
from orb_export.export.tf32 import in_tf32

from tests.accuracy import within
from tests.artefacts import tiny_model
from tests.unit.test_captured import inputs

KINDS = ("conservative", "direct")
matmul_tf32 = torch.ops.orb_export.matmul_tf32


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [0, 5])
def test_products_are_those_of_float32_on_the_cpu(rows, with_bias):
    generator = torch.Generator().manual_seed(2)
    x, matrix = torch.randn(rows, 8, generator=generator), torch.randn(6, 8, generator=generator).t()
    bias = torch.randn(6, generator=generator) if with_bias else None
    torch.testing.assert_close(matmul_tf32(x, matrix, bias), x @ matrix + (0.0 if bias is None else bias))


@pytest.fixture(params=["ieee", "tf32"])
def switch(request) -> Iterator[str]:
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = request.param
    yield request.param
    torch.backends.cuda.matmul.fp32_precision = before


def test_the_switch_of_the_process_stays_as_it_is(switch):
    matmul_tf32(torch.ones(2, 3), torch.ones(3, 4), None)
    with pytest.raises(RuntimeError):
        matmul_tf32(torch.ones(2, 3), torch.ones(3, 4), torch.ones(7))  # fails inside
    assert torch.backends.cuda.matmul.fp32_precision == switch


def test_wrong_inputs_are_named():
    with pytest.raises(RuntimeError, match=r"`rows` and `matrix` must have shapes.*\[2, 3\] and \[4, 5\]"):
        matmul_tf32(torch.zeros(2, 3), torch.zeros(4, 5), None)
    with pytest.raises(RuntimeError, match=r"`rows` must be float32, got Double"):
        matmul_tf32(torch.zeros(2, 3).double(), torch.zeros(3, 5).double(), None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_the_same_but_for_the_rounding(kind):
    model = tiny_model(kind, dtype=torch.float32).requires_grad_(False)
    expected, found = contract_program(model)(*inputs()), contract_program(in_tf32(model))(*inputs())
    for value, right in zip(found, expected, strict=True):
        error = float(((value - right) / (1.0 + right.abs())).abs().max())
        assert within("model for tf32 on the CPU, float32, relative", "any", error, 1e-6)


@pytest.mark.parametrize("step", ["layer.message_keep", "layer.message_vjp", "layer.update"])
def test_steps_multiply_so_for_edges_and_not_for_atoms(step):
    """Three products forward; two backward, and one onto the edge stream."""
    model = in_tf32(tiny_model("conservative", dtype=torch.float32, layers=1))
    names = [str(node.target) for node in aoti.trace_step(model, step).graph.nodes]
    assert names.count("orb_export.matmul_tf32.default") == (0 if step == "layer.update" else 3)


@pytest.mark.parametrize("format", ["aoti", "torchscript"])
def test_it_needs_a_gpu(format, tmp_path):
    file = tmp_path / f"model{artefact.SUFFIXES[format]}"
    with pytest.raises(ValueError, match="'tf32', which needs format 'aoti' and device 'cuda'"):
        export_model(tiny_model("direct"), file, format=format, precision="tf32")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_rounds_to_tf32(kind, tmp_path):
    """Its verification and accuracy are measured by export itself."""
    model = tiny_model(kind, dtype=torch.float32).to("cuda")
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * (2, 2, 2)
    atoms.rattle(0.1, seed=1)
    results = {}
    for precision in ("float32", "tf32"):
        file = tmp_path / f"{precision}.pt2"
        record = export_model(model, file, precision=precision)
        assert record["precision"] == artefact.read_metadata(file)["precision"] == precision
        results[precision] = artefact.load(file).predict(atoms)["forces"]
    error = np.abs(results["tf32"] - results["float32"]).max()
    assert error > 0.0
    assert within("tf32 beside float32 on a GPU", "forces, eV/Å", error, 1e-2)
