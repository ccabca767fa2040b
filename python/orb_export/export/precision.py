"""The arithmetic of an artefact's network, and how far its results are from float64.

`dtype` of a record is that of the tensors between the matrix products, `precision` that of the products: of
all for float32 and float64, of those of edges for the reduced ones, where a float32 network multiplies
rounded numbers and adds the products in float32: float32-split and bfloat16 on a CPU, tf32 on a GPU.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from orb_export.model import OrbV3
from orb_export.model.blocks import RMSNorm

if TYPE_CHECKING:
    from ase import Atoms

# to the dtype of the network
PRECISIONS = {
    "float32": torch.float32,
    "float32-split": torch.float32,
    "bfloat16": torch.float32,
    "tf32": torch.float32,
    "float64": torch.float64,
}
REDUCED = {"float32-split": "cpu", "bfloat16": "cpu", "tf32": "cuda"}  # to the device that has them
_CRYSTALS = ("fcc", "bcc", "diamond", "sc", "hcp")
_STRUCTURES = 8
_RATTLE = 0.1  # angstrom


def checked(precision: str | None, dtype: torch.dtype, format: str, device: str) -> str:
    """`precision`, or that of a model of `dtype`; ValueError where it is none, or cannot be compiled."""
    if precision is None:
        return str(dtype).removeprefix("torch.")
    if precision not in PRECISIONS:
        raise ValueError(f"export: `precision` is {precision!r} but must be one of {sorted(PRECISIONS)}")
    needed = REDUCED.get(precision, device)
    if precision in REDUCED and (format, device) != ("aoti", needed):
        raise ValueError(
            f"export: `precision` is {precision!r}, which needs format 'aoti' and device {needed!r}, not "
            f"{format!r} and {device!r}"
        )
    return precision


def lattices(elements: Sequence[int]) -> "list[Atoms]":
    """Primitive cells of crystals of single elements, of up to eight spread over the given ones.

    Structure and lattice constant are ASE's for the element, or copper's where it has none.
    """
    from ase.build import bulk
    from ase.data import chemical_symbols, reference_states

    found = []
    for number in sorted({elements[i * len(elements) // _STRUCTURES] for i in range(_STRUCTURES)}):
        state = reference_states[number] or {}
        # Se and Te: a lattice without a basis, which bulk refuses
        symmetry = None if "basis" in state else state.get("symmetry")
        symbol = chemical_symbols[number]
        lattice = bulk(symbol) if symmetry in _CRYSTALS else bulk(symbol, "fcc", a=3.6)
        lattice.info = {"name": symbol, "charge": 0.0, "spin": 1.0}
        found.append(lattice)
    return found


def rattled_crystals(elements: Sequence[int]) -> "list[Atoms]":
    """The same with eight or sixteen atoms, off their equilibrium."""
    images = []
    for index, lattice in enumerate(lattices(elements)):
        atoms = lattice * (2, 2, 2)
        atoms.rattle(_RATTLE, seed=index)
        atoms.info["name"] += ", rattled"
        images.append(atoms)
    return images


def in_float64(model: OrbV3) -> OrbV3:
    """A copy that computes in float64, but with the constants of the arithmetic that it was trained in."""
    model = copy.deepcopy(model).to(torch.float64)
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.eps64 = module.eps32
    return model


def accuracy(
    structures: "Sequence[Atoms]",
    found: Sequence[dict[str, np.ndarray]],
    exact: Sequence[dict[str, np.ndarray]],
    description: str,
) -> dict[str, Any]:
    """The record of an artefact's errors against float64 on `structures`, which `description` names."""
    energy = [
        abs(float(a["energy"] - b["energy"])) / len(atoms)
        for atoms, a, b in zip(structures, found, exact, strict=True)
    ]
    forces = np.concatenate(
        [np.abs(a["forces"] - b["forces"]).ravel() for a, b in zip(found, exact, strict=True)]
    )
    size = np.concatenate([np.abs(b["forces"]).ravel() for b in exact])
    return {
        "reference": "the eager model in float64",
        "set": description,
        "structures": len(structures),
        "atoms": sum(map(len, structures)),
        "energy_mean": float(np.mean(energy)),  # eV per atom
        "energy_max": float(np.max(energy)),
        "forces_mean": float(forces.mean()),  # eV/angstrom, of components
        "forces_max": float(forces.max()),
        "forces_size": float(size.mean()),  # of the components themselves
    }
