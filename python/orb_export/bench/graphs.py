"""Radius graphs of periodic copper at 6 angstrom, beside vesin, matscipy and nvalchemi-toolkit-ops.

All return pairs, shifts and vectors, "nvalchemi matrix" neighbors and shifts alone; ours are also sorted by
center and distance. Capped lists have no peer: their ratio is to the time of the peers' full list, which a
caller would have to sort and cut. The peers use one core. On a GPU atoms and results are there, and nvalchemi
is the only peer.
"""

import importlib.util
from typing import Any

import ase.build
import torch
from ase import Atoms

from orb_export import _core, ops  # noqa: F401  (registers the operators)
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


def installed_peers(device: str = "cpu") -> list[str]:
    """Names of the peers that can be imported here and find edges on that device."""
    here = [name for name, module in PEERS.items() if importlib.util.find_spec(module) is not None]
    return [name for name in here if device == "cpu" or name == "nvalchemi"]


def _peer(name: str, atoms: Atoms, device: str, width: int) -> dict[str, Run]:
    positions, cell, periodic = atoms.positions, atoms.cell.array, atoms.pbc
    if name == "vesin":
        import vesin

        def by_vesin() -> object:
            calculator = vesin.NeighborList(cutoff=CUTOFF, full_list=True)
            return calculator.compute(positions, cell, periodic, "PSD")

        return {"vesin": by_vesin}
    if name == "matscipy":
        from matscipy.neighbours import neighbour_list

        return {"matscipy": lambda: neighbour_list("ijSD", atoms, CUTOFF)}
    return _nvalchemi(atoms, device, width)


def _nvalchemi(atoms: Atoms, device: str, width: int) -> dict[str, Run]:
    """Prepared for this structure, its arrays reserved and just wide enough: the faster of its ways.

    Its own form is a matrix of neighbors and shifts; the list, with vectors as all others give them, is made
    from it. `width`: the most neighbors of an atom.
    """
    from nvalchemiops.torch.neighbors import neighbor_list, prepare_neighbor_list

    arrays = (atoms.positions, atoms.cell.array[None], atoms.pbc[None])
    x, box, periodic = (torch.as_tensor(array, device=device) for array in arrays)

    def state(as_list: bool) -> object:
        return prepare_neighbor_list(
            x,
            CUTOFF,
            box,
            periodic,
            method="cell_list",
            max_neighbors=width,
            fixed_cell=True,
            return_neighbor_list=as_list,
        )

    list_state, matrix_state = state(True), state(False)

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def as_list() -> object:
        pairs, _, shifts = neighbor_list(x, cell=box, state=list_state)
        vectors = x[pairs[1]] - x[pairs[0]] + shifts.to(box.dtype) @ box[0]
        finish()
        return pairs, shifts, vectors

    def as_matrix() -> object:
        result = neighbor_list(x, cell=box, state=matrix_state)
        finish()
        return result

    return {"nvalchemi": as_list, "nvalchemi matrix": as_matrix}


def ours(atoms: Atoms, cap: int, device: str) -> Run:
    """Our edges, of which the first array (2, E) has centers and neighbors."""
    if device == "cpu":
        return lambda: _core.radius_graph(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF, cap)
    positions = torch.as_tensor(atoms.positions, device=device)
    box = torch.as_tensor(atoms.cell.array), torch.as_tensor(atoms.pbc)

    def on_device() -> object:
        found = torch.ops.orb_export.radius_graph_device(positions, *box, CUTOFF, cap)
        torch.cuda.synchronize()
        return found

    return on_device


def measure(n_atoms: int, peers: list[str], repeats: int, device: str = "cpu") -> list[dict[str, Any]]:
    """A row for every cap; `times_as_fast` as each peer, with its full list."""
    atoms = copper(n_atoms)
    runs = {name: ours(atoms, cap, device) for name, cap in CAPS.items()}
    found = {name: torch.as_tensor(run()[0]) for name, run in runs.items()}  # type: ignore[index]
    edges = {name: pairs.shape[1] for name, pairs in found.items()}
    width = int(found["full"][0].bincount().max())
    del found
    for peer in peers:
        runs |= _peer(peer, atoms, device, width)
    # short runs need more tries to meet a quiet moment of the machine
    times = least_times(runs, repeats * max(1, 30000 // n_atoms), warm_up=1)
    others = {name: seconds for name, seconds in times.items() if name not in CAPS}
    return [
        {
            "atoms": len(atoms),
            "list": name,
            "edges": edges[name],
            "ms": 1e3 * times[name],
            "ns_per_edge": 1e9 * times[name] / edges[name],
            "peer_ms": {peer: 1e3 * seconds for peer, seconds in others.items()},
            "times_as_fast": {peer: seconds / times[name] for peer, seconds in others.items()},
        }
        for name in CAPS
    ]
