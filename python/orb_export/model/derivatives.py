"""From the energy gradient of each edge vector to forces, stress and the rotational gradient.

Shapes: N atoms, E edges, B graphs; all float64. g = dE/d(vector), vector = x_neighbor - x_center. The map
x -> x (1 + (eps + eps^T)/2) exp(G - G^T) acts on every vector alike, strain before rotation; with
T = sum of vector (x) g over the edges of a graph, dE/d(eps) = (T + T^T)/2 and dE/dG = T - T^T.
"""

import torch
from torch import Tensor

from .rows import sum_rows

LARGEST_STRESS = 1e10  # eV/angstrom^3; published conservative models zero what is not smaller than this
_INERTIA_RTOL = 1e-12  # directions with a smaller share of the inertia count as the axis of a linear molecule


def edge_forces(gradient: Tensor, centers: Tensor, neighbors: Tensor, n_atoms: int) -> Tensor:
    """Forces (N, 3) eV/angstrom of the edge gradients g (E, 3)."""
    return sum_rows(gradient, centers, n_atoms) - sum_rows(gradient, neighbors, n_atoms)


def _edge_tensor(vectors: Tensor, gradient: Tensor, edge_graph: Tensor, n_graphs: int) -> Tensor:
    outer = vectors[:, :, None] * gradient[:, None, :]  # (E, 3, 3)
    return sum_rows(outer, edge_graph, n_graphs)


def strain_gradient(vectors: Tensor, gradient: Tensor, edge_graph: Tensor, n_graphs: int) -> Tensor:
    """dE/d(strain) (B, 3, 3) in eV, symmetric; `edge_graph` (E,) is the graph of each edge."""
    tensor = _edge_tensor(vectors, gradient, edge_graph, n_graphs)
    return 0.5 * (tensor + tensor.transpose(1, 2))


def rotational_gradient(vectors: Tensor, gradient: Tensor, edge_graph: Tensor, n_graphs: int) -> Tensor:
    """dE/dG (B, 3, 3) in eV, antisymmetric; zero for a rotationally invariant energy."""
    tensor = _edge_tensor(vectors, gradient, edge_graph, n_graphs)
    return tensor - tensor.transpose(1, 2)


def _voigt(tensor: Tensor) -> Tensor:  # (B, 3, 3) symmetric -> (B, 6)
    i, j = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
    return tensor[:, i, j]


def conservative_stress(strain_gradient: Tensor, cell: Tensor) -> Tensor:
    """Stress (B, 6) of the strain gradients (B, 3, 3): divided by |det cell|, zero without a cell."""
    volume = torch.linalg.det(cell).abs()[:, None]  # (B, 1)
    # dividing by infinity also has a derivative of zero, where dividing by zero would have none
    stress = _voigt(strain_gradient) / torch.where(volume > 0, volume, torch.full_like(volume, torch.inf))
    usable = stress.abs() < LARGEST_STRESS  # false for NaN, too
    return torch.where(usable, stress, torch.zeros_like(stress))


def direct_stress(head: Tensor, strain_gradient: Tensor, cell: Tensor) -> Tensor:
    """Stress (B, 6) of direct models: the head (B, 6) plus the repulsion's strain gradient / det cell.

    The volume has its sign here, so the repulsion of a left-handed cell counts negative, as published.
    Without a cell the head stands alone (published models return NaN).
    """
    volume = torch.linalg.det(cell)[:, None]  # (B, 1)
    has_cell = volume != 0
    repulsion = _voigt(strain_gradient) / torch.where(has_cell, volume, torch.ones_like(volume))
    return head + torch.where(has_cell, repulsion, torch.zeros_like(repulsion))


def remove_net_force(forces: Tensor, batch: Tensor, counts: Tensor) -> Tensor:
    """Subtract the mean of each graph: (N, 3) -> (N, 3)."""
    totals = sum_rows(forces, batch, counts.shape[0])
    means = totals / counts.to(forces.dtype)[:, None]
    return forces - means.index_select(0, batch)


def remove_net_torque(
    forces: Tensor, positions: Tensor, batch: Tensor, counts: Tensor, rtol: float = _INERTIA_RTOL
) -> Tensor:
    """The smallest change of the forces (N, 3) that leaves no torque about each graph's centroid.

    With r from the unweighted centroid: add r x mu, where M mu = -torque and M = sum r r^T - (sum r^2) 1.
    M is singular for single atoms and linear molecules, hence the pseudo-inverse.
    """
    n_graphs = counts.shape[0]
    r = remove_net_force(positions, batch, counts)  # relative to the centroid
    torque = sum_rows(torch.cross(r, forces, dim=1), batch, n_graphs)
    outer = r[:, :, None] * r[:, None, :]  # (N, 3, 3)
    inertia = sum_rows(outer, batch, n_graphs)  # (B, 3, 3)
    trace = inertia.diagonal(dim1=1, dim2=2).sum(1)
    inertia = inertia - trace[:, None, None] * torch.eye(3, dtype=r.dtype, device=r.device)
    inverse = torch.linalg.pinv(inertia, rtol=rtol, hermitian=True)
    mu = -(inverse @ torque[:, :, None])[:, :, 0]  # (B, 3)
    return forces + torch.cross(r, mu.index_select(0, batch), dim=1)
