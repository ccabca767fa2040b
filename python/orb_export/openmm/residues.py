"""What standard residues are made of, from the tables of OpenMM."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from openmm import app

from orb_export.openmm.structures import Structure

_TABLES = Path(app.__file__).parent / "data"


def standard_hydrogens() -> dict[str, dict[str, int]]:
    """Residue -> heavy atom -> hydrogens that it has at every pH and place in the chain (OpenMM's table)."""
    tree = ElementTree.parse(_TABLES / "hydrogens.xml")
    table: dict[str, dict[str, int]] = {}
    for residue in tree.getroot().iter("Residue"):
        counts = table.setdefault(residue.attrib["name"], {})
        for hydrogen in residue.iter("H"):
            if not {"maxph", "variant", "terminal"} & hydrogen.attrib.keys():
                parent = hydrogen.attrib["parent"]
                counts[parent] = counts.get(parent, 0) + 1
    return table


def missing_heavy_atoms(structure: Structure) -> Iterator[tuple[Any, set[str]]]:
    """Standard residues with a backbone or sugar that lack heavy atoms of OpenMM's table of bonds."""
    tree = ElementTree.parse(_TABLES / "residues.xml")
    table = {
        residue.attrib["name"]: {
            name
            for bond in residue.iter("Bond")
            for name in (bond.attrib["from"], bond.attrib["to"])
            if name[0] not in "-+H" and name not in ("OXT", "OP3")
        }
        for residue in tree.getroot().iter("Residue")
    }
    for residue in structure.topology.residues():
        names = {atom.name for atom in residue.atoms()}
        wanted = table.get(residue.name, set())
        # the 5' end of a nucleic acid has no phosphate
        if lacking := wanted - names - ({"P", "OP1", "OP2"} if "P" not in names else set()):
            yield residue, lacking
