"""Time of radius graphs of periodic copper at 6 angstrom, beside vesin and matscipy, as a Markdown table.

    python benchmarks/graph.py [--repeats 7] [--sizes 1000 10000 100000]

All libraries take turns within every repeat and use every core; the least of each one's times counts. What
they return: orb_export/bench/graphs.py.
"""

import argparse
import os
from itertools import pairwise

from orb_export.bench import graphs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds at 100000 atoms (default 7)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000, 100000], help="atoms")
    options = parser.parse_args()

    peers = graphs.installed_peers()
    print(f"{len(os.sched_getaffinity(0))} cores; least of {options.repeats} or more interleaved runs\n")
    header = ["atoms", "list", "edges", "ms", "ns/edge", *(f"{peer} ns/edge" for peer in peers)]
    print(f"| {' | '.join(header)} | times as fast |")
    print("|---" * (len(header) + 1) + "|")
    full_lists = []
    for size in options.sizes:
        for row in graphs.measure(size, peers, options.repeats):
            numbers = [row["ns_per_edge"], *(row[f"{peer}_ns_per_edge"] for peer in peers)]
            cells = [str(row["atoms"]), row["list"], str(row["edges"]), f"{row['ms']:.2f}"]
            cells += [f"{number:.1f}" for number in numbers]
            ratio = row["times_as_fast"]
            print(f"| {' | '.join(cells)} | {'' if ratio is None else f'{ratio:.1f}'} |", flush=True)
            if row["list"] == "full":
                full_lists.append((row["atoms"], row["ms"]))
    print()
    for (small, t_small), (large, t_large) in pairwise(full_lists):
        print(f"full list: t({large}) / t({small}) = {t_large / t_small:.2f}, atoms {large / small:.2f}")


if __name__ == "__main__":
    main()
