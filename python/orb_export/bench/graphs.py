"""Radius graphs of periodic copper at 6 angstrom, beside vesin, matscipy and nvalchemi-toolkit-ops.

All return pairs, shifts and vectors; ours are also sorted by center and distance. Capped lists have no peer:
their ratio is to the time of the peers' full list, which a caller would have to sort and cut.
"""

import importlib.util
from typing import Any

import ase.build
from ase import Atoms

from orb_export import _core
from orb_export.contract import CUTOFF

from .timing import Run, least_times

CAPS = {"full": -1, "cap 120": 120, "cap 20": 20}
PEERS = {"vesin": "vesin", "matscipy": "matscipy", "nvalchemi": "nvalchemiops"}


def copper(n_atoms: int) -> Atoms:
    """Rattled fcc copper of about n_atoms atoms."""
    edge = (n_atoms / 4) ** (1 / 3)
    repeats = (round(edge - 1 / 3), round(edge), round(edge + 1 / 3))
    atoms: Atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat(repeats)
    atoms.rattle(0.1, seed=0)
    return atoms


def installed_peers() -> list[str]:
    """Names of the peers that can be imported here."""
    return [name for name, module in PEERS.items() if importlib.util.find_spec(module) is not None]


def _peer(name: str, atoms: Atoms) -> Run:
    positions, cell, periodic = atoms.positions, atoms.cell.array, atoms.pbc
    if name == "vesin":
        import vesin

        def by_vesin() -> object:
            calculator = vesin.NeighborList(cutoff=CUTOFF, full_list=True)
            return calculator.compute(positions, cell, periodic, "PSD")

        return by_vesin
    if name == "matscipy":
        from matscipy.neighbours import neighbour_list

        return lambda: neighbour_list("ijSD", atoms, CUTOFF)
    import torch
    from nvalchemiops.torch.neighbors import neighbor_list

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, box, axes = (torch.as_tensor(array, device=device) for array in (positions, cell, periodic))

    def by_nvalchemi() -> object:
        pairs, _, shifts = neighbor_list(
            x, CUTOFF, box[None], axes[None], method="cell_list", return_neighbor_list=True
        )
        vectors = x[pairs[1]] - x[pairs[0]] + shifts.to(box.dtype) @ box
        if device == "cuda":
            torch.cuda.synchronize()
        return pairs, shifts, vectors

    return by_nvalchemi


def contestants(atoms: Atoms, peers: list[str]) -> dict[str, Run]:
    """Ours with every cap, and the peers."""
    arguments = (atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)

    def ours(cap: int) -> Run:
        return lambda: _core.radius_graph(*arguments, cap)

    return {name: ours(cap) for name, cap in CAPS.items()} | {name: _peer(name, atoms) for name in peers}


def measure(n_atoms: int, peers: list[str], repeats: int) -> list[dict[str, Any]]:
    """A row for every cap; `times_as_fast` is to the fastest peer, None without one."""
    atoms = copper(n_atoms)
    # short runs need more tries to meet a quiet moment of the machine
    times = least_times(contestants(atoms, peers), repeats * max(1, 30000 // n_atoms))
    arguments = (atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)
    edges = {name: _core.radius_graph(*arguments, cap)[0].shape[1] for name, cap in CAPS.items()}
    fastest = min((times[peer] for peer in peers), default=None)
    return [
        {
            "atoms": len(atoms),
            "list": name,
            "edges": edges[name],
            "ms": 1e3 * times[name],
            "ns_per_edge": 1e9 * times[name] / edges[name],
            **{f"{peer}_ns_per_edge": 1e9 * times[peer] / edges["full"] for peer in peers},
            "times_as_fast": None if fastest is None else fastest / times[name],
        }
        for name in CAPS
    ]
