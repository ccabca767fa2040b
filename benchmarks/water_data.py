"""Close contacts for the liquid-water model: frames of the reference with molecules pushed together.

    python benchmarks/water_data.py FILE OUTPUT [--frames 24:172] [--seed 24]

FILE holds the frames of water_pbe0ts, which have no two oxygens nearer than 2.35 angstrom. In each, pairs of
neighboring molecules are turned and moved towards each other, and some bonds are stretched or compressed.
Labels are those of the frame, PBE0+TS, plus what GFN2-xTB says that the move changes in a cluster around it:

    F(moved) = F(frame) + F_xTB(moved cluster) - F_xTB(cluster), and so for the energy.

Composition and cell remain those of the frame, and of what is not moved the level of theory does, too. Needs
`tblite`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from numpy.random import Generator
from numpy.typing import NDArray
from pair_distribution import distances
from scipy.spatial.transform import Rotation
from tqdm import tqdm

CLUSTER, INNER = 32, 11  # molecules in a cluster, and those nearest to its center, which may be moved
MEMBERS = 2  # moves of one cluster
PUSHES = (1, 2)  # pairs in a move
APART, CLOSEST, WIDEST = 4.5, 1.6, 2.7  # angstrom between oxygens of a pair: at most before; range after
TURN = 1.2  # rad, standard deviation of each component, times a number between 0 and 1
BOND_CHANCE, BONDS = 0.25, (0.78, 1.5)  # that a molecule's bonds change length, and the factors
NEAREST = {16: 1.5, 9: 0.85, 2: 0.65}  # angstrom between molecules, by the sum of atomic numbers
MAX_FORCE = 30.0  # eV/angstrom, largest component of what is kept

Molecules = NDArray[np.int64]  # (M, 3) atoms, the oxygen first
Positions = NDArray[np.float64]  # (M, 3, 3) angstrom


def molecules_of(frame: Atoms) -> Molecules:
    """Each oxygen with its two nearest hydrogens."""
    oxygens, hydrogens = np.flatnonzero(frame.numbers == 8), np.flatnonzero(frame.numbers == 1)
    nearest = hydrogens[np.argsort(distances(frame, 8, 1), axis=1)[:, :2]]
    if len(np.unique(nearest)) != len(hydrogens):
        raise ValueError("water_data: molecules of a frame are not whole")
    return np.column_stack([oxygens, nearest])


def cluster_of(frame: Atoms, molecules: Molecules, center: int) -> tuple[Molecules, Positions]:
    """The molecules nearest to one of them, by distance, and their places, each whole and not periodic."""
    cell = frame.cell.lengths()  # the cell is a cube
    bonds = frame.positions[molecules] - frame.positions[molecules[:, :1]]
    steps = frame.positions[molecules[:, 0]] - frame.positions[molecules[center, 0]]
    bonds, steps = (x - cell * np.round(x / cell) for x in (bonds, steps))
    order = np.argsort(np.linalg.norm(steps, axis=1))[:CLUSTER]
    return molecules[order], (steps[:, None] + bonds)[order]


def moved(places: Positions, rng: Generator) -> Positions | None:
    """Pairs of the inner molecules pushed together; None where that brings others too near."""
    places = places.copy()
    free = list(rng.permutation(INNER))
    for _ in range(rng.choice(PUSHES)):
        one = free.pop()
        near = [other for other in free if np.linalg.norm(places[one, 0] - places[other, 0]) < APART]
        if not near:
            continue
        other = int(rng.choice(near))
        free.remove(other)
        for molecule in (one, other):
            turn = Rotation.from_rotvec(rng.uniform(0, TURN) * rng.normal(size=3))
            bonds = turn.apply(places[molecule, 1:] - places[molecule, 0])
            if rng.random() < BOND_CHANCE:
                bonds *= rng.uniform(*BONDS, size=(2, 1))
            places[molecule, 1:] = places[molecule, 0] + bonds
        step = places[other, 0] - places[one, 0]
        distance = np.linalg.norm(step)
        shift = 0.5 * (1 - rng.uniform(CLOSEST, WIDEST) / distance) * step
        places[one] += shift
        places[other] -= shift
    return places if apart(places) else None


def apart(places: Positions) -> bool:
    """Whether no two molecules are nearer than NEAREST."""
    x, charges = places.reshape(-1, 3), np.tile([8, 1, 1], len(places))
    between = np.linalg.norm(x[:, None] - x, axis=2)
    other = np.repeat(np.arange(len(places)), 3)
    chosen = other[:, None] < other
    sums = (charges[:, None] + charges)[chosen]
    least = np.select([sums == total for total in NEAREST], list(NEAREST.values()))
    return bool((between[chosen] > least).all())


def xtb(places: Positions) -> tuple[float, NDArray[np.float64]]:
    """Energy and forces of a cluster, eV and eV/angstrom."""
    from tblite.ase import TBLite

    cluster = Atoms("OHH" * len(places), places.reshape(-1, 3))
    cluster.calc = TBLite(method="GFN2-xTB", verbosity=0)
    return cluster.get_potential_energy(), cluster.get_forces().reshape(places.shape)


def pushed(frame: Atoms, rng: Generator) -> Iterator[Atoms]:
    """Copies of a frame with molecules pushed together, with labels."""
    molecules = molecules_of(frame)
    chosen, places = cluster_of(frame, molecules, int(rng.integers(len(molecules))))
    energy, forces = xtb(places)
    for _ in range(MEMBERS):
        while (other := moved(places, rng)) is None:
            pass
        other_energy, other_forces = xtb(other)
        total_energy = frame.get_potential_energy() + other_energy - energy
        total = frame.get_forces()
        total[chosen] += other_forces - forces
        if not np.isfinite(total).all() or np.abs(total).max() > MAX_FORCE:
            continue
        copy = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True, info={"source": "pushed"})
        copy.positions[chosen] += other - places
        copy.calc = SinglePointCalculator(copy, energy=total_energy, forces=total)
        yield copy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--frames", default="24:", help="slice of what is trained on")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    options.output.unlink(missing_ok=True)
    for frame in tqdm(read(options.data, options.frames)):
        try:
            write(options.output, list(pushed(frame, rng)), append=True, format="extxyz")
        except RuntimeError as error:  # no self-consistent charges
            print(f"left out: {error}")


if __name__ == "__main__":
    main()
