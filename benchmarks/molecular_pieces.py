"""Pieces of a solvated protein as molecules: bonds cut open are closed by hydrogen, total charge known."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.random import Generator
from numpy.typing import NDArray
from openmm import app, unit

CAP = {6: 1.09, 7: 1.01, 8: 0.97, 16: 1.34}  # angstrom from an atom to the hydrogen that closes its bond
BACKBONE = {"N", "CA", "C", "O", "H", "HA", "H2", "H3", "OXT"}
BEFORE = ("C", "O", "CA", "HA", "HA2", "HA3")  # of the residue before a piece, which keeps its peptide group
AFTER = ("N", "H", "CA", "HA", "HA2", "HA3")
OH = 1.25  # angstrom; hydrogens nearer to an oxygen are bound to it
LIGANDS, NEIGHBORS = (
    ("94", "96", "119"),
    ("106", "199"),
)  # of the zinc of carbonic anhydrase II: His; Glu, Thr


class SolvatedProtein:
    """A periodic box of one protein with a zinc ion, water, sodium and chloride."""

    def __init__(self, path: Path) -> None:
        pdb = app.PDBFile(str(path))
        self.positions = np.array(pdb.positions.value_in_unit(unit.angstrom))
        vectors = pdb.topology.getPeriodicBoxVectors().value_in_unit(unit.angstrom)
        self.box = np.diag(np.array(vectors))
        atoms, self.residues = list(pdb.topology.atoms()), list(pdb.topology.residues())
        self.numbers = np.array([atomic_numbers[atom.element.symbol] for atom in atoms])
        self.owner = np.array([atom.residue.index for atom in atoms])
        self.names = [{atom.name: atom.index for atom in residue.atoms()} for residue in self.residues]
        self.bonds: list[list[int]] = [[] for _ in atoms]
        for one, other in pdb.topology.bonds():
            if "ZN" not in (one.residue.name, other.residue.name):
                self.bonds[one.index].append(other.index)
                self.bonds[other.index].append(one.index)
        self.protein = [k for k, names in enumerate(self.names) if "CA" in names and len(names) > 1]
        self.waters = self._called("HOH")
        self.oxygens = np.array([self.names[water]["O"] for water in self.waters])
        (self.zinc,) = self._called("ZN")

    def _called(self, name: str) -> list[int]:
        return [residue.index for residue in self.residues if residue.name == name]

    def _around(self, center: NDArray[np.float64]) -> NDArray[np.float64]:
        """All positions in the image nearest to `center`, relative to it."""
        shifted = self.positions - center
        return np.asarray(shifted - self.box * np.round(shifted / self.box))

    def _place(self, residue: int) -> NDArray[np.float64]:
        return np.asarray(self.positions[next(iter(self.names[residue].values()))])

    def _charge(self, residue: int) -> int:
        name, atoms = self.residues[residue].name, self.names[residue]
        charge = {"ZN": 2, "NA": 1, "CL": -1, "ARG": 1}.get(name, 0)
        charge += name == "LYS" and "HZ3" in atoms
        charge -= (name == "ASP" and "HD2" not in atoms) + (name == "GLU" and "HE2" not in atoms)
        charge += name.startswith("HI") and "HD1" in atoms and "HE2" in atoms
        return int(charge + ("H3" in atoms and "H2" in atoms) - ("OXT" in atoms))

    def _nearest_waters(self, center: NDArray[np.float64], count: int) -> list[int]:
        distances = np.linalg.norm(self._around(center)[self.oxygens], axis=1)
        return [self.waters[k] for k in np.argsort(distances)[:count]]

    def cut(self, residues: set[int], center: NDArray[np.float64]) -> Atoms:
        """Whole residues with the peptide groups next to them."""
        kept = {atom for residue in residues for atom in self.names[residue].values()}
        for residue in residues & set(self.protein):
            for other, mine, theirs, group in (
                (residue - 1, "N", "C", BEFORE),
                (residue + 1, "C", "N", AFTER),
            ):
                if other in residues or other not in self.protein:
                    continue
                if self.names[other].get(theirs) in self.bonds[self.names[residue][mine]]:
                    kept |= {self.names[other][name] for name in group if name in self.names[other]}
        places, chosen = self._around(center), sorted(kept)
        piece = Atoms(self.numbers[chosen], places[chosen])
        for atom in chosen:
            for other in set(self.bonds[atom]) - kept:
                direction = self.positions[other] - self.positions[atom]
                length = CAP[int(self.numbers[atom])] / np.linalg.norm(direction)
                piece += Atoms("H", [places[atom] + length * direction])
        piece.info = {"charge": sum(map(self._charge, residues)), "spin": 1}
        return piece

    def water(self, rng: Generator) -> Atoms:
        """8 to 35 molecules, whose centers are pushed together by up to 16 %."""
        center = self.positions[rng.choice(self.oxygens)]
        piece = self.cut(set(self._nearest_waters(center, int(rng.integers(8, 36)))), center)
        scale = rng.uniform(0.84, 1.03)
        for oxygen in np.flatnonzero(piece.numbers == 8):
            piece.positions[oxygen : oxygen + 3] += (scale - 1) * piece.positions[oxygen]
        return piece

    def ion(self, rng: Generator) -> Atoms:
        """Sodium or chloride with what is within 4 to 5.6 angstrom of a point near it."""
        ion = int(rng.choice(self._called(str(rng.choice(["NA", "CL"])))))
        center = self._place(ion) + 1.5 * rng.normal(size=3)
        return self.cut(self._within(center, rng.uniform(4, 5.6)) | {ion}, center)

    def piece(self, rng: Generator) -> Atoms:
        """A residue of the protein with what is within 2.6 to 4.4 angstrom of one of its atoms."""
        residue = int(rng.choice(self.protein))
        center = self.positions[rng.choice(list(self.names[residue].values()))]
        return self.cut((self._within(center, rng.uniform(2.6, 4.4)) | {residue}) - {self.zinc}, center)

    def _within(self, center: NDArray[np.float64], radius: float) -> set[int]:
        return set(self.owner[np.linalg.norm(self._around(center), axis=1) < radius].tolist())

    def zinc_site(self, rng: Generator) -> Atoms:
        """Zinc with the side chains that hold it and water, or in water alone; often with hydroxide."""
        if rng.random() < 0.5:
            near = {residue.index for residue in self.residues if residue.id in LIGANDS}
            near |= {r.index for r in self.residues if r.id in NEIGHBORS and rng.random() < 0.3}
            site = self._side_chains(sorted(near & set(self.protein)), int(rng.integers(0, 10)))
        else:
            center = self.positions[rng.choice(self.oxygens)]
            site = self.cut(set(self._nearest_waters(center, int(rng.integers(5, 20)))[1:]), center)
            site += Atoms("Zn", [[0.0, 0.0, 0.0]])
            site.info = {"charge": 2, "spin": 1}
        return _with_hydroxide(site) if rng.random() < 0.6 else site

    def _side_chains(self, residues: list[int], waters: int) -> Atoms:
        center = self._place(self.zinc)
        places = self._around(center)
        site = self.cut({self.zinc, *self._nearest_waters(center, waters)}, center)
        for residue in residues:
            names = self.names[residue]
            chosen = [atom for name, atom in names.items() if name not in BACKBONE]
            bond = places[names["CA"]] - places[names["CB"]]
            site += Atoms(self.numbers[chosen], places[chosen])
            site += Atoms("H", [places[names["CB"]] + CAP[6] / np.linalg.norm(bond) * bond])
        site.info["charge"] += sum(map(self._charge, residues))
        return site


def _with_hydroxide(site: Atoms) -> Atoms:
    """Without the farther hydrogen of the water nearest to the zinc."""
    distances = site.get_all_distances()
    (zinc,) = np.flatnonzero(site.numbers == 30)
    for oxygen in np.argsort(distances[zinc]):
        bound = np.flatnonzero((site.numbers == 1) & (distances[oxygen] < OH))
        if site.numbers[oxygen] == 8 and len(bound) == 2:
            del site[[int(max(bound, key=lambda atom: distances[zinc, atom]))]]
            site.info["charge"] -= 1
            break
    return site
