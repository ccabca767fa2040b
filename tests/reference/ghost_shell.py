"""Many processes without an exchange: each part gets all atoms and images that its own atoms can feel.

The slow and obvious way: a shell of layers x cutoff of ghosts around the own atoms, evaluated by the eager
model as a cluster of its own. Only sums over all parts (mean of the features, gradients of ghosts that belong
to other parts) are shared.
"""

from typing import NamedTuple

import numpy as np
import torch
from orb_export import graph
from orb_export.contract import CUTOFF
from orb_export.model import OrbV3
from torch import Tensor

from tests.partitions import HOME, Ints, System


class _Shell(NamedTuple):
    """Rows of one part: atoms of the whole system they are images of, own ones first; and their edges."""

    atoms: Ints
    n_own: int
    edges: Ints  # of the whole system
    centers: Ints
    neighbors: Ints


def _shell(whole: System, own: Ints, layers: int) -> _Shell:
    distance = layers * CUTOFF
    heights = 1.0 / np.linalg.norm(np.linalg.inv(whole.cell), axis=0) if whole.atoms.pbc.any() else None
    reach = [0, 0, 0] if heights is None else [int(np.ceil(distance / height)) + 1 for height in heights]
    images = np.stack(np.meshgrid(*(range(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
    rows = {(int(atom), HOME): row for row, atom in enumerate(own)}
    positions = whole.atoms.positions
    for image in images.tolist():
        moved = positions + np.array(image) @ whole.cell
        gaps = np.linalg.norm(moved[:, None] - positions[own][None], axis=2).min(1, initial=np.inf)
        for atom in np.flatnonzero(gaps < distance).tolist():
            rows.setdefault((atom, tuple(image)), len(rows))
    edges = []
    for (atom, image), row in rows.items():
        for e in np.flatnonzero(whole.centers == atom).tolist():
            end = (int(whole.neighbors[e]), tuple((np.array(image) + whole.shifts[e]).tolist()))
            if end in rows:
                edges.append((row, rows[end], e))
    columns = np.array(edges, dtype=np.int64).reshape(-1, 3)
    return _Shell(np.array([a for a, _ in rows], dtype=np.int64), len(own), columns[:, 2], *columns[:, :2].T)


def evaluate(model: OrbV3, whole: System, owners: Ints, n_parts: int) -> dict[str, np.ndarray]:
    """Energy of a conservative model, and the network's part of the forces (N, 3): without repulsion."""
    numbers = torch.from_numpy(whole.atoms.numbers.astype(np.int64))
    built = graph.from_atoms(
        whole.atoms, model.config.max_neighbors, needs_charge_spin=model.config.has_charge_spin
    )
    condition = model.network.conditioning(built.charge, built.spin)
    own_features: list[Tensor] = []
    all_vectors: list[Tensor] = []
    shells = []
    for part in range(n_parts):
        shell = _shell(whole, np.flatnonzero(owners == part), model.config.layers)
        vectors = torch.from_numpy(whole.vectors[shell.edges]).requires_grad_()
        x = model.network(
            *(numbers[shell.atoms], torch.from_numpy(shell.centers), torch.from_numpy(shell.neighbors)),
            *(vectors, condition),
        )
        own_features.append(x[: shell.n_own])
        all_vectors.append(vectors)
        shells.append(shell)
    n_atoms = torch.tensor([len(numbers)])
    latent = sum(x.sum(0, keepdim=True) for x in own_features) / n_atoms
    interaction = model.energy_head(latent, n_atoms)[0]
    forces = np.zeros((len(numbers), 3))
    for shell, gradient in zip(shells, torch.autograd.grad(interaction, all_vectors), strict=True):
        np.add.at(forces, shell.atoms[shell.centers], gradient.numpy())
        np.add.at(forces, shell.atoms[shell.neighbors], -gradient.numpy())
    edges = (torch.from_numpy(part) for part in (whole.centers, whole.neighbors, whole.vectors))
    repulsion = model.repulsion(numbers, *edges).sum() / n_atoms
    energy = interaction + model.energy_head.references(numbers).sum() + repulsion
    return {"energy": energy.detach().numpy()[0], "network_forces": forces}
