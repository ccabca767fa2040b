"""Link atoms: hydrogens that cap the bonds between a region and the rest, massless sites after all atoms.

`ForceField.createSystem` returns a System and nothing else, but Simulation, reporters and setPositions need
the sites in Topology and positions as well.
"""

import copy
from typing import Any

import numpy as np
import openmm
from openmm import unit
from openmm.app import Topology, element


def add_link_atoms(topology: Topology, positions: Any, system: openmm.System) -> tuple[Topology, Any]:
    """Topology and positions with the link atoms of `system`; copies, also where there are none.

    Args:
        topology: what `system` was made from; stays as it is.
        positions: of its atoms, a Quantity or in nm.
        system: returned by `ForceField.createSystem`.

    Returns:
        A Topology with one more chain, of a residue LNK with the hydrogen HL for each link atom, and the
        positions, a Quantity of shape (particles, 3).

    Raises:
        ValueError: `system` was not made from `topology`, or `positions` has another length.
    """
    atoms, particles = topology.getNumAtoms(), system.getNumParticles()
    if unit.is_quantity(positions):
        positions = positions.value_in_unit(unit.nanometer)
    placed = np.asarray([list(position) for position in positions], dtype=float)
    if placed.shape != (atoms, 3):
        raise ValueError(
            f"add_link_atoms: `positions` has shape {placed.shape} but `topology` has {atoms} atoms"
        )
    ends = [link_bond(system, site) for site in range(atoms, particles)]
    if particles < atoms or None in ends:
        raise ValueError(
            f"add_link_atoms: `system` has {particles} particles and `topology` {atoms} atoms, which are not "
            "all but the link atoms"
        )
    extended = copy.deepcopy(topology)
    if ends:
        chain = extended.addChain("LNK")
    for inner, outer, distance in filter(None, ends):
        residue = extended.addResidue("LNK", chain)
        extended.addAtom("HL", element.hydrogen, residue)
        axis = placed[outer] - placed[inner]
        site = placed[inner] + distance * axis / np.linalg.norm(axis)
        placed = np.vstack([placed, site])
    return extended, unit.Quantity(placed, unit.nanometer)


def link_bond(system: openmm.System, particle: int) -> tuple[int, int, float] | None:
    """Of a link atom: atom of the region, atom outside, distance from the former in nm. None for others."""
    if not system.isVirtualSite(particle):
        return None
    site = system.getVirtualSite(particle)
    if not isinstance(site, openmm.LocalCoordinatesSite) or site.getNumParticles() != 2:
        return None
    distance = site.getLocalPosition().value_in_unit(unit.nanometer)[0]
    return site.getParticle(0), site.getParticle(1), distance
