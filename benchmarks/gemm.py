"""Matrix products of the model's sizes through MKL (torch's choice) and oneDNN (ours), as a table.

    python benchmarks/gemm.py

All take turns; the best of each counts. The last column has bfloat16 factors.
"""

import torch
from orb_export.bench.products import SHAPES, speeds


def main() -> None:
    """Print GFLOP/s of (rows, inputs) times (inputs, outputs)."""
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| rows | inputs | outputs | MKL GFLOP/s | oneDNN GFLOP/s | bfloat16 GFLOP/s |")
    print("|---|---|---|---|---|---|")
    for shape in SHAPES:
        cells = [*map(str, shape), *(f"{speed:.0f}" for speed in speeds(*shape).values())]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
