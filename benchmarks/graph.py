"""Time of radius graphs of periodic copper at 6 angstrom, beside vesin and matscipy, as a Markdown table.

    python benchmarks/graph.py [--repeats 7] [--sizes 1000 10000 100000]

All libraries take turns within every repeat and use every core; the least of each one's times counts. All
return pairs, shifts and vectors; ours are also sorted by center and distance. Capped lists have no peer:
their ratio is to the time of the peers' full list, which a caller would have to sort and cut.
"""

import argparse
import os
import time
from collections.abc import Callable
from itertools import pairwise

import ase.build
import numpy as np
import vesin
from ase import Atoms
from matscipy.neighbours import neighbour_list
from orb_export import _core

CUTOFF = 6.0  # angstrom
CAPS = {"full": -1, "cap 120": 120, "cap 20": 20}
PEERS = ("vesin", "matscipy")


def copper(n_atoms: int) -> Atoms:
    """Rattled fcc copper of about n_atoms atoms."""
    edge = (n_atoms / 4) ** (1 / 3)
    repeats = (round(edge - 1 / 3), round(edge), round(edge + 1 / 3))
    atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat(repeats)
    atoms.rattle(0.1, seed=0)
    return atoms


def contestants(atoms: Atoms) -> dict[str, Callable[[], object]]:
    positions, cell, periodic = atoms.positions, atoms.cell.array, atoms.pbc

    def ours(cap: int) -> Callable[[], object]:
        return lambda: _core.radius_graph(positions, cell, periodic, CUTOFF, cap)

    def by_vesin() -> object:
        calculator = vesin.NeighborList(cutoff=CUTOFF, full_list=True)
        return calculator.compute(positions, cell, periodic, "PSD")

    peers = {"vesin": by_vesin, "matscipy": lambda: neighbour_list("ijSD", atoms, CUTOFF)}
    return {name: ours(cap) for name, cap in CAPS.items()} | peers


def least_times(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each contestant, interleaved so that all see the same load of the machine."""
    times = dict.fromkeys(runs, np.inf)
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            result = run()
            times[name] = min(times[name], time.perf_counter() - start)
            del result
    return times


def table_rows(atoms: Atoms, times: dict[str, float]) -> list[str]:
    arguments = (atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)
    edges = {name: _core.radius_graph(*arguments, cap)[0].shape[1] for name, cap in CAPS.items()}
    peers = " | ".join(f"{times[peer] * 1e9 / edges['full']:.1f}" for peer in PEERS)
    fastest = min(times[peer] for peer in PEERS)
    return [
        f"| {len(atoms)} | {name} | {edges[name]} | {times[name] * 1e3:.2f} "
        f"| {times[name] * 1e9 / edges[name]:.1f} | {peers} | {fastest / times[name]:.1f} |"
        for name in CAPS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds at 100000 atoms (default 7)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000, 100000], help="atoms")
    options = parser.parse_args()

    print(f"{len(os.sched_getaffinity(0))} cores; least of {options.repeats} or more interleaved runs\n")
    print("| atoms | list | edges | ms | ns/edge | vesin ns/edge | matscipy ns/edge | times as fast |")
    print("|---|---|---|---|---|---|---|---|")
    full_lists = []
    for size in options.sizes:
        atoms = copper(size)
        # short runs need more tries to meet a quiet moment of the machine
        times = least_times(contestants(atoms), options.repeats * max(1, 30000 // size))
        print("\n".join(table_rows(atoms, times)), flush=True)
        full_lists.append((len(atoms), times["full"]))
    print()
    for (small, t_small), (large, t_large) in pairwise(full_lists):
        print(f"full list: t({large}) / t({small}) = {t_large / t_small:.2f}, atoms {large / small:.2f}")


if __name__ == "__main__":
    main()
