"""Peak memory and time of one evaluation of a large system under a memory limit, as a Markdown table.

    python benchmarks/memory.py [--models direct-inf conservative-20] [--atoms 20000] [--limit 4e9]
                                [--artefacts FOLDER]

Full-size models with random weights in float32, rattled copper. Each evaluation has a process of its own, so
that the peak of its resident set is that of the evaluation, edge search included; `tensors` are torch's
alone, counted in the runtime, and `predicted` is what was said of them beforehand. `before` is the process
after an evaluation of 64 atoms.
"""

import argparse
import tempfile
from pathlib import Path

from orb_export.bench import memory, steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", choices=steps.MODELS, default=["direct-inf", "conservative-20"]
    )
    parser.add_argument("--atoms", type=int, default=20000)
    parser.add_argument("--limit", type=float, default=4e9, help="memory limit, bytes (default 4e9)")
    parser.add_argument("--artefacts", type=Path, help="folder to keep the exported models in")
    options = parser.parse_args()
    print(f"memory limit {options.limit / 1e9:g} GB; 1 GB = 10^9 bytes\n")
    print("| model | atoms | edges | before GB | peak GB | peak kB/atom | tensors GB | predicted GB | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.artefacts or Path(temporary)
        for name in options.models:
            file = folder / f"{name}.pt2"
            if not file.exists():
                steps.export(name, file)
            r = memory.measure(name, file, options.atoms, int(options.limit))
            gb = " | ".join(f"{r[key] / 1e9:.2f}" for key in ("tensors", "predicted"))
            print(
                f"| {name} | {r['atoms']} | {r['edges']} | {r['before'] / 1e9:.2f} | {r['peak'] / 1e9:.2f} "
                f"| {r['peak'] / r['atoms'] / 1e3:.0f} | {gb} | {r['seconds']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
