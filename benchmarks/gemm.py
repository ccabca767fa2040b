"""float32 matrix products of the model's sizes through MKL (torch's choice) and oneDNN (ours), as a table.

    python benchmarks/gemm.py

Both take turns; the best of each counts.
"""

import time
from collections.abc import Callable

import torch
from orb_export import ops  # noqa: F401  (registers orb_export::matmul)

SHAPES = [(5120, 1024, 1024), (5120, 256, 1024), (5120, 1024, 256), (20000, 1024, 1024), (256, 768, 1024)]
REPEATS = 10


def main() -> None:
    """Print GFLOP/s of (rows, inputs) times (inputs, outputs)."""
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| rows | inputs | outputs | MKL GFLOP/s | oneDNN GFLOP/s |\n|---|---|---|---|---|")
    for rows, inputs, outputs in SHAPES:
        x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
        contestants: list[Callable[[], torch.Tensor]] = [
            lambda x=x, weight=weight, bias=bias: torch.nn.functional.linear(x, weight, bias),
            lambda x=x, weight=weight, bias=bias: torch.ops.orb_export.matmul(x, weight.t(), bias),
        ]
        seconds = [float("inf")] * len(contestants)
        for _ in range(REPEATS):
            for index, product in enumerate(contestants):
                start = time.perf_counter()
                product()
                seconds[index] = min(seconds[index], time.perf_counter() - start)
        speeds = " | ".join(f"{2e-9 * rows * inputs * outputs / t:.0f}" for t in seconds)
        print(f"| {rows} | {inputs} | {outputs} | {speeds} |")


if __name__ == "__main__":
    main()
