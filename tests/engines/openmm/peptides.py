"""A capped dipeptide, alone and in water, for regions that cut bonds."""

import io
from typing import NamedTuple

import numpy as np
import openmm
from openmm import app, unit

# One frame of a short run at 300 K with Amber14, angstrom.
_ATOMS = """
ACE H1 1.767 -2.293 -3.416
ACE CH3 1.444 -1.365 -2.997
ACE H2 0.640 -0.948 -3.699
ACE H3 2.331 -0.723 -2.992
ACE C 0.884 -1.556 -1.647
ACE O 0.492 -2.651 -1.269
ALA N 0.761 -0.453 -0.949
ALA H 1.036 0.413 -1.354
ALA CA 0.201 -0.334 0.416
ALA HA -0.360 -1.254 0.687
ALA CB 1.283 -0.166 1.391
ALA HB1 0.893 -0.199 2.402
ALA HB2 1.948 -0.982 1.240
ALA HB3 1.774 0.785 1.157
ALA C -0.737 0.814 0.449
ALA O -0.742 1.764 -0.351
NME N -1.572 0.777 1.494
NME H -1.618 -0.084 1.988
NME C -2.443 1.886 1.805
NME H1 -2.016 2.621 2.494
NME H2 -2.695 2.486 0.949
NME H3 -3.270 1.464 2.201
"""
SIDE_CHAIN = "resname ALA and name CB HB1 HB2 HB3"  # cut at CA-CB: one link atom
BACKBONE = "resname ALA"  # cut at both peptide bonds: two


class Structure(NamedTuple):
    topology: app.Topology
    positions: np.ndarray  # (N, 3) nm


def dipeptide() -> Structure:
    """ACE-ALA-NME without a box, 22 atoms."""
    lines = []
    for index, line in enumerate(_ATOMS.strip().splitlines()):
        residue, name, *place = line.split()
        number = ("ACE", "ALA", "NME").index(residue) + 1
        x, y, z = (float(word) for word in place)
        lines.append(
            f"ATOM  {index + 1:5d}  {name:<3s} {residue} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
            f"  1.00  0.00          {name[0]:>2s}\n"
        )
    file = app.PDBFile(io.StringIO("".join(lines) + "END\n"))
    return Structure(file.topology, _plain(file.positions))


def solvated(model: str = "tip3p") -> Structure:
    """The same in a cubic box of water of 1.9 nm; some 650 atoms."""
    structure = dipeptide()
    modeller = app.Modeller(structure.topology, structure.positions * unit.nanometer)
    modeller.addSolvent(
        app.ForceField("amber14/protein.ff14SB.xml", f"amber14/{model}.xml"),
        model=model,
        boxSize=openmm.Vec3(1.9, 1.9, 1.9) * unit.nanometer,
    )
    return Structure(modeller.topology, _plain(modeller.positions))


def _plain(positions) -> np.ndarray:
    return np.array([list(position) for position in positions.value_in_unit(unit.nanometer)])
