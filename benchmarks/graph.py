"""Time of radius graphs of periodic copper at 6 angstrom, beside other libraries, as a Markdown table.

    python benchmarks/graph.py [--repeats 7] [--sizes 1000 10000 100000]

All take turns within every repeat; the least of each one's times counts. Ours uses every core that it may
(`taskset -c 0` gives it one), the peers one. What they return: orb_export/bench/graphs.py.
"""

import argparse
import os
from itertools import pairwise

from orb_export.bench import graphs, report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds at 100000 atoms (default 7)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000, 100000], help="atoms")
    options = parser.parse_args()

    peers = graphs.installed_peers()
    print(f"{len(os.sched_getaffinity(0))} cores; least of {options.repeats} or more interleaved runs\n")
    rows = []
    for size in options.sizes:
        rows += graphs.measure(size, peers, options.repeats)
    print(report.graphs_table(rows) + "\n")
    full_lists = [(row["atoms"], row["ms"]) for row in rows if row["list"] == "full"]
    for (small, t_small), (large, t_large) in pairwise(full_lists):
        print(f"full list: t({large}) / t({small}) = {t_large / t_small:.2f}, atoms {large / small:.2f}")


if __name__ == "__main__":
    main()
