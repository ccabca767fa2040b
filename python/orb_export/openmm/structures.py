"""Structures for OpenMM: from PDB and mmCIF files, or from ASE, in a box as OpenMM wants it.

OpenMM's boxes are right-handed and lower triangular, with b and c not leaning further than half of the
vectors before them. A crystal in any other cell is the same crystal after a rotation and a choice of vectors.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from openmm import Vec3, unit
from openmm.app import Element, PDBFile, PDBxFile, Topology

from orb_export.openmm.molecules import made_whole, molecular_bonds

if TYPE_CHECKING:
    from ase import Atoms

ANGSTROM = 0.1  # nm
_OPEN_MARGIN = (
    10.0  # angstrom between the atoms and the walls of an open side, which mean nothing to the model
)
_SYMMETRY = re.compile(r"^_s(?:pace_group\.name|ymmetry\.space_group_name)_H-M\S*\s+['\"]?([^'\"\n]+)", re.M)


class Structure(NamedTuple):
    """Atoms, where they are, and what a file says of them."""

    topology: Topology
    positions: NDArray[np.float64]  # (N, 3) nm
    periodic: tuple[bool, bool, bool]  # images along each box vector
    charge: float | None = None  # e
    spin: float | None = None  # multiplicity 2S+1
    space_group: str | None = None  # of a PDB or mmCIF file
    alternates: int = 0  # residues of which a PDB file has several conformations
    occupancies: tuple[float, ...] = ()  # partial ones of a crystal
    velocities: NDArray[np.float64] | None = None  # (N, 3) nm/ps

    @property
    def box(self) -> NDArray[np.float64] | None:
        """Box vectors as rows (3, 3), nm, or None."""
        return box_of(self.topology)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic numbers (N,); 0 for what is no atom."""
        elements = [atom.element for atom in self.topology.atoms()]
        return np.array([0 if element is None else element.atomic_number for element in elements], dtype=int)

    @property
    def bonds(self) -> NDArray[np.int64]:
        """Pairs of bonded atoms (M, 2)."""
        pairs = [(bond[0].index, bond[1].index) for bond in self.topology.bonds()]
        return np.array(pairs, dtype=int).reshape(-1, 2)

    @property
    def needs_symmetry(self) -> bool:
        """Whether the box holds one asymmetric unit of a crystal, as in a deposited file."""
        return self.space_group not in (None, "P 1", "P1")

    def label(self, index: int) -> str:
        """Name of an atom for messages: `CA of ALA 12 in chain A (atom 88)`."""
        atom = list(self.topology.atoms())[index]
        return f"{atom.name} of {residue_label(atom.residue)} (atom {index})"


def residue_label(residue: Any) -> str:
    """`ALA 12 in chain A`."""
    return f"{residue.name} {residue.id} in chain {residue.chain.id}".replace(" in chain  ", " ").strip()


def box_of(topology: Topology) -> NDArray[np.float64] | None:
    """Box vectors of a Topology as rows (3, 3), nm, or None."""
    vectors = topology.getPeriodicBoxVectors()
    return None if vectors is None else np.array(vectors.value_in_unit(unit.nanometer), dtype=float)


def in_nanometers(positions: Any) -> NDArray[np.float64]:
    """Positions of OpenMM, with units or without, as an array (N, 3) in nm."""
    if unit.is_quantity(positions):
        positions = positions.value_in_unit(unit.nanometer)
    return np.array([tuple(row) for row in positions], dtype=float).reshape(-1, 3)


def is_biomolecular(path: Path) -> bool:
    """Whether a file is a PDB or mmCIF file, which OpenMM reads with residues and bonds; ASE has the rest."""
    if path.suffix.lower() in (".pdb", ".ent", ".mmcif", ".pdbx"):
        return True
    return (
        path.suffix.lower() == ".cif" and path.is_file() and "_atom_site." in path.read_text(errors="replace")
    )


def read_biomolecular(path: Path) -> Structure:
    """The first model of a PDB or mmCIF file.

    Raises FileNotFoundError, and ValueError when it cannot be read or holds no atoms.
    """
    if not path.is_file():
        raise FileNotFoundError(f"structure: `{path}` does not exist")
    text = path.read_text(errors="replace")
    try:
        # not the path: these readers leave it open when they fail
        file = (PDBxFile if "_atom_site." in text else PDBFile)(io.StringIO(text))
        positions = in_nanometers(file.positions)
    except Exception as error:  # OpenMM's readers raise whatever their parsing trips over
        raise ValueError(
            f"structure: `{path}` cannot be read by OpenMM: {type(error).__name__}: {error}"
        ) from error
    if not len(positions):
        raise ValueError(f"structure: `{path}` holds no atoms")
    topology = file.topology
    box = box_of(topology)
    if box is not None and np.diag(box).max() <= 0.1001:  # 1 angstrom: what programs write for "none"
        topology.setPeriodicBoxVectors(None)
        box = None
    atoms = [line for line in text.splitlines() if line.startswith(("ATOM  ", "HETATM"))]
    alternates = {line[17:27] for line in atoms if line[16:17].strip()} if "_atom_site." not in text else ()
    structure = Structure(
        topology,
        positions,
        (box is not None,) * 3,
        space_group=_space_group(text) if box is not None else None,
        alternates=len(alternates),
    )
    return structure if structure.needs_symmetry else whole(structure)


def _space_group(text: str) -> str | None:
    for line in text.splitlines():
        if line.startswith("CRYST1"):
            return line[55:66].strip() or None
    found = _SYMMETRY.search(text)
    return found[1].strip() if found else None


def from_ase(atoms: "Atoms") -> Structure:
    """A structure of ASE, turned into a box of OpenMM, with bonds inside of finite molecules.

    Charge and spin multiplicity are those of `atoms.info`. Raises ValueError when the box cannot be used.
    """
    import ase.units

    if len(atoms) == 0:
        raise ValueError("structure: `atoms` has no atoms")
    boxed = boxed_for_openmm(atoms)
    topology = Topology()
    residue = topology.addResidue("MOL", topology.addChain("A"))
    for index, number in enumerate(boxed.numbers, start=1):
        try:
            element = Element.getByAtomicNumber(int(number))
        except KeyError:
            raise ValueError(
                f"structure: atom {index - 1} has atomic number {number}, which OpenMM does not know"
            ) from None
        topology.addAtom(f"{element.symbol}{index}", element, residue)
    if boxed.pbc.any():
        topology.setPeriodicBoxVectors([Vec3(*row) for row in boxed.cell.array * ANGSTROM] * unit.nanometer)
    known = list(topology.atoms())
    for first, second in molecular_bonds(boxed):
        topology.addBond(known[first], known[second])
    partial = {
        float(value)
        for site in boxed.info.get("occupancy", {}).values()
        for value in site.values()
        if value < 1.0
    }
    a, b, c = (bool(flag) for flag in boxed.pbc)
    return whole(
        Structure(
            topology,
            boxed.positions * ANGSTROM,
            (a, b, c),
            charge=boxed.info.get("charge"),
            spin=boxed.info.get("spin"),
            occupancies=tuple(sorted(partial)),
            velocities=boxed.get_velocities() * 1000 * ase.units.fs * ANGSTROM
            if boxed.has("momenta")
            else None,
        )
    )


def boxed_for_openmm(atoms: "Atoms") -> "Atoms":
    """Copy of a structure whose box is as OpenMM wants it: right-handed, lower triangular and reduced.

    The lattice along periodic axes stays the same; axes may be exchanged, and all is turned when the vectors
    are not lower triangular already (Orb-v3 is not exactly invariant to rotations: compare with other
    programs on the turned structure). Open vectors are replaced by perpendicular ones that enclose the
    atoms. Without periodic axes there is no box. The numbers of the box are angstrom, as ASE has them.

    Raises:
        ValueError: the periodic vectors are zero or dependent.
    """
    from ase.geometry import complete_cell

    boxed: Atoms = atoms.copy()
    if not atoms.pbc.any():
        boxed.cell = None
        return boxed
    cell = np.array(atoms.cell)
    if np.linalg.matrix_rank(cell[atoms.pbc], tol=1e-6) < atoms.pbc.sum():
        raise ValueError("structure: `atoms` is periodic along lattice vectors that are zero or dependent")
    cell[~atoms.pbc] = 0.0
    cell = complete_cell(cell)
    pbc = atoms.pbc.copy()
    for axis in np.flatnonzero(~pbc):
        cell[axis] *= (np.ptp(atoms.positions @ cell[axis]) + 2 * _OPEN_MARGIN) / np.linalg.norm(cell[axis])
    if np.linalg.det(cell) < 0:
        cell, pbc = cell[[1, 0, 2]], pbc[[1, 0, 2]]
    if np.any(np.triu(cell, 1)):
        rotation, upper = np.linalg.qr(cell.T)
        signs = np.sign(np.diag(upper))
        cell = np.tril(upper.T * signs)
        boxed.positions = atoms.positions @ (rotation * signs)
        if atoms.has("momenta"):
            boxed.set_momenta(atoms.get_momenta() @ (rotation * signs))
    boxed.set_cell(reduced(cell))
    boxed.pbc = pbc
    return boxed


def reduced(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same lattice with a lower triangular box (3, 3) that leans as little as possible: OpenMM's form.

    Open vectors must be perpendicular to the others, then they stay as they are.
    """
    box = box.copy()
    for row, onto in ((2, 1), (2, 0), (1, 0)):
        box[row] -= box[onto] * np.round(box[row, onto] / box[onto, onto])
    return box


def whole(structure: Structure) -> Structure:
    """The structure with every molecule in one piece."""
    box, bonds = structure.box, structure.bonds
    if box is None or not len(bonds):
        return structure
    return structure._replace(positions=made_whole(structure.positions, box, bonds))


def with_atoms(structure: Structure, topology: Topology, positions: Any) -> Structure:
    """The structure with other atoms, in the box of `topology`."""
    boxed = topology.getPeriodicBoxVectors() is not None
    return structure._replace(
        topology=topology,
        positions=in_nanometers(positions),
        periodic=(boxed,) * 3,
        alternates=0,
        velocities=None,
    )


def without_box(structure: Structure) -> Structure:
    """The structure without periodic images."""
    structure.topology.setPeriodicBoxVectors(None)
    return structure._replace(periodic=(False,) * 3, space_group=None)


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first few of many, for messages."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
