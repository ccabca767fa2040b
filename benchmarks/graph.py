"""Time of radius graphs of periodic copper at 6 angstrom, beside vesin and matscipy, as a Markdown table.

    python benchmarks/graph.py [--repeats 7] [--sizes 1000 10000 100000]

All libraries take turns within every repeat and use every core; the least of each one's times counts. All return
pairs, shifts and vectors; ours are also sorted by center and distance. Capped lists have no peer: their ratio is
to the time of the peers' full list, which a caller would have to sort and cut.
"""

import argparse
import os
import time
from collections.abc import Callable

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
    repeats = round((n_atoms / 4) ** (1 / 3))
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds of all contestants (default 7)")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1000, 10000, 100000], help="numbers of atoms"
    )
    options = parser.parse_args()

    print(f"{len(os.sched_getaffinity(0))} cores; least of {options.repeats} interleaved runs\n")
    print("| atoms | list | edges | ms | ns/edge | vesin ns/edge | matscipy ns/edge | times as fast |")
    print("|---|---|---|---|---|---|---|---|")
    full_times = {}
    for size in options.sizes:
        atoms = copper(size)
        times = least_times(contestants(atoms), options.repeats)
        arguments = (atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)
        edges = {name: _core.radius_graph(*arguments, cap)[0].shape[1] for name, cap in CAPS.items()}
        peers = [times[peer] * 1e9 / edges["full"] for peer in PEERS]
        for name in CAPS:
            ratio = min(times[peer] for peer in PEERS) / times[name]
            print(
                f"| {len(atoms)} | {name} | {edges[name]} | {times[name] * 1e3:.2f} "
                f"| {times[name] * 1e9 / edges[name]:.1f} | {peers[0]:.1f} | {peers[1]:.1f} | {ratio:.1f} |"
            )
        full_times[len(atoms)] = times["full"] / len(atoms)
    sizes = list(full_times)
    for small, large in zip(sizes, sizes[1:], strict=False):
        growth = full_times[large] * large / (full_times[small] * small)
        print(
            f"\nfull list: t({large}) / t({small}) = {growth:.2f} at {large / small:.2f} times the atoms",
            end="",
        )
    print()


if __name__ == "__main__":
    main()
