"""Structures that LAMMPS and Python must agree on: boundaries, tilts, tiny cells, ties, isolated atoms."""

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule


def _triclinic() -> Atoms:
    rng = np.random.default_rng(11)
    cell = [[6.1, 0.0, 0.0], [4.9, 5.7, 0.0], [-3.8, 4.4, 6.3]]
    positions = rng.permutation(np.stack(np.meshgrid(*3 * [np.arange(2) / 2]), -1).reshape(-1, 3))
    atoms = Atoms("Si3O5", scaled_positions=positions, cell=cell, pbc=True)
    atoms.rattle(0.15, seed=12)
    return atoms


def _slab(pbc: tuple[bool, bool, bool]) -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (2, 2, 2)
    atoms.symbols[::3] = "Ni"
    # with a cap of 20 the energy jumps where the 20th and 21st neighbor change places: here none is near that
    atoms.rattle(0.1, seed=32)
    atoms.pbc = pbc
    return atoms


def _crystal() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=14)
    return atoms


def _molecule() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=16)  # no mirror plane, which would make two shear components zero
    return atoms


def _left_handed() -> Atoms:
    atoms = _triclinic()
    atoms.set_cell(atoms.cell.array[[0, 2, 1]])
    return atoms


def _outside() -> Atoms:
    atoms = _crystal()
    atoms.positions += np.random.default_rng(15).integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    return atoms


CASES = {
    "crystal": _crystal(),
    "atoms outside the box": _outside(),
    "perfect crystal with ties": bulk("Cu", "fcc", a=3.61, cubic=True) * (2, 2, 2),
    "one-atom cell": Atoms("Fe", cell=[[2.5, 0, 0], [0.7, 2.6, 0], [-0.5, 0.6, 2.7]], pbc=True),
    "one-atom cell with ties": bulk("Fe", "bcc", a=2.87),
    "very flat cell": Atoms(
        "CO", [[0, 0, 0], [1.1, 0.9, 0.8]], cell=[[2.9, 0, 0], [2.7, 2.8, 0], [-2.6, 2.7, 3.1]], pbc=True
    ),
    "triclinic with large tilt": _triclinic(),
    "left-handed cell": _left_handed(),
    "slab open in z": _slab((True, True, False)),
    "slab open in x": _slab((False, True, True)),
    "wire": _slab((False, True, False)),
    "molecule": _molecule(),
    "isolated atom": Atoms("C"),
    "isolated atom in a large cell": Atoms("C", cell=[20, 21, 22], pbc=True),
}
