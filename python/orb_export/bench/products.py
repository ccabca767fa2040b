"""Matrix products of the model's sizes: what this machine can do at most."""

import torch
from torch import Tensor

from orb_export import ops  # noqa: F401  (registers the operators)

from .timing import Run, least_times

SHAPES = [(5120, 1024, 1024), (5120, 256, 1024), (5120, 1024, 256), (20000, 1024, 1024), (256, 768, 1024)]
PEAK_SHAPE = (4096, 1024, 1024)


def contestants(rows: int, inputs: int, outputs: int) -> dict[str, Run]:
    """float32 through MKL (torch's choice) and oneDNN (ours), bfloat16 through oneDNN."""
    x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    narrow = [tensor.to(torch.bfloat16) for tensor in (x, weight, bias)]

    def through_onednn() -> Tensor:
        result: Tensor = torch.ops.orb_export.matmul(x, weight.t(), bias)
        return result

    return {
        "MKL": lambda: torch.nn.functional.linear(x, weight, bias),
        "oneDNN": through_onednn,
        "bfloat16": lambda: torch.nn.functional.linear(*narrow),
    }


def speeds(rows: int, inputs: int, outputs: int, repeats: int = 10) -> dict[str, float]:
    """GFLOP/s of each."""
    times = least_times(contestants(rows, inputs, outputs), repeats)
    return {name: 2e-9 * rows * inputs * outputs / seconds for name, seconds in times.items()}


def peaks(device: str = "cpu", repeats: int = 10) -> dict[str, float]:
    """Largest GFLOP/s of a square-ish product, by precision of the factors."""
    if device == "cpu":
        found = speeds(*PEAK_SHAPE, repeats)
        return {"float32": max(found["MKL"], found["oneDNN"]), "bfloat16": found["bfloat16"]}
    result = {}
    rows, inputs, outputs = (2 * size for size in PEAK_SHAPE)
    kinds = {"float32": (torch.float32, "highest"), "tf32": (torch.float32, "high")}
    for name, (dtype, setting) in {**kinds, "bfloat16": (torch.bfloat16, "highest")}.items():
        x, weight = (torch.randn(s, inputs, device=device, dtype=dtype) for s in (rows, outputs))

        def product(x: Tensor = x, weight: Tensor = weight) -> None:
            torch.nn.functional.linear(x, weight)
            torch.cuda.synchronize()

        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(setting)
        try:
            seconds = least_times({"product": product}, repeats, warm_up=3)["product"]
        finally:
            torch.set_float32_matmul_precision(before)
        result[name] = 2e-9 * rows * inputs * outputs / seconds
    return result
