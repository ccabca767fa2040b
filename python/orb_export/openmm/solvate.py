"""Completing a structure: atoms that a file lacks, water and ions around it, and room for what was added.

Tools of OpenMM and PDBFixer do the work. What they place is relaxed with a classical force field, Amber
ff14SB with TIP3P, so that the model never sees the clashes of the first guess.
"""

import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from orb_export.openmm.structures import Structure, in_nanometers, with_atoms

FORCE_FIELD = ("amber14-all.xml", "amber14/tip3p.xml")
_LONGEST_LOOP = 12  # residues that are built where the crystal showed none; longer ones are left open


def add_missing(
    structure: Structure,
    file: Path,
    *,
    ph: float = 7.4,
    variants: Mapping[str, str] | None = None,
    seed: int = 1,
) -> Structure:
    """Missing heavy atoms, short missing loops and hydrogens of a PDB or mmCIF file.

    Args:
        structure: as read from `file`.
        file: PDBFixer reads the sequence from it.
        ph: decides the protonation of residues by their usual pKa.
        variants: forms that this rule gets wrong, as OpenMM's `Modeller.addHydrogens` calls them, by chain
            and residue id: `{"A:94": "HID"}`.
        seed: of the places of built atoms.

    Raises:
        ModuleNotFoundError: pdbfixer is not installed.
        ValueError: `variants` names a residue that is not there.
    """
    try:
        from pdbfixer import PDBFixer  # type: ignore[import-untyped]
    except ImportError as error:
        raise ModuleNotFoundError(
            "solvate: adding missing atoms needs PDBFixer: `pip install pdbfixer`"
        ) from error
    fixer = PDBFixer(filename=str(file))
    fixer.findMissingResidues()
    lengths = {chain.index: len(list(chain.residues())) for chain in fixer.topology.chains()}
    fixer.missingResidues = {  # those at the ends of a chain were disordered in the crystal for a reason
        place: names
        for place, names in fixer.missingResidues.items()
        if 0 < place[1] < lengths[place[0]] and len(names) <= _LONGEST_LOOP
    }
    fixer.findMissingAtoms()
    fixer.addMissingAtoms(seed=seed)
    modeller = app.Modeller(fixer.topology, fixer.positions)
    residues = list(modeller.topology.residues())
    chosen = dict(variants or {})
    forms = [chosen.pop(f"{residue.chain.id}:{residue.id}", None) for residue in residues]
    if chosen:
        raise ValueError(
            f"solvate: `variants` has {', '.join(chosen)}, but the structure has no such residue"
        )
    with _random(seed):
        modeller.addHydrogens(pH=ph, variants=forms, platform=_fast_platform())
    return with_atoms(structure, modeller.topology, modeller.positions)


def add_water(
    structure: Structure,
    *,
    padding: float = 1.0,
    box: tuple[float, float, float] | None = None,
    ionic_strength: float = 0.0,
    charge: float | None = None,
    seed: int = 1,
) -> Structure:
    """Water (geometry of TIP3P) in a periodic box around a structure, and sodium and chloride.

    Args:
        structure: its own box is dropped.
        padding: nm between two periodic images of the structure, at least.
        box: edges in nm instead.
        ionic_strength: mol/l of sodium chloride, besides the ions that make the box neutral.
        charge: total charge of the structure, e; by default that of the force field.
        seed: of the places of ions.

    Raises:
        ValueError: the force field does not know the structure and `charge` is missing.
    """
    force_field: Any = app.ForceField(*FORCE_FIELD)
    if charge is not None:
        force_field = _Shapes(charge)
    elif names := unknown_residues(structure):
        raise ValueError(
            f"solvate: `charge` is missing: {', '.join(names)} is unknown to the force field, so the charge "
            "that ions must balance has to be given"
        )
    modeller = app.Modeller(structure.topology, structure.positions * unit.nanometer)
    size = (
        {"padding": padding * unit.nanometer}
        if box is None
        else {"boxSize": openmm.Vec3(*box) * unit.nanometer}
    )
    with _random(seed):
        modeller.addSolvent(
            force_field, model="tip3p", ionicStrength=ionic_strength * unit.molar, neutralize=True, **size
        )
    return with_atoms(structure, modeller.topology, modeller.positions)._replace(space_group=None)


def relaxed(structure: Structure, fixed: Collection[int] = (), iterations: int = 200) -> Structure:
    """The structure after a minimization with the classical force field, `fixed` atoms staying in place.

    Raises ValueError when the force field does not know a residue.
    """
    if names := unknown_residues(structure):
        raise ValueError(
            f"solvate: the force field does not know {', '.join(names)}, so added atoms cannot be relaxed"
        )
    force_field = app.ForceField(*FORCE_FIELD)
    periodic = all(structure.periodic)
    cutoff = 0.9 if structure.box is None else min(0.9, 0.49 * float(np.diag(structure.box).min()))
    system = force_field.createSystem(
        structure.topology,
        nonbondedMethod=app.PME if periodic else app.CutoffNonPeriodic,
        nonbondedCutoff=cutoff * unit.nanometer,
        constraints=None,
        rigidWater=False,
    )
    for atom in fixed:
        system.setParticleMass(atom, 0)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), _fast_platform())
    context.setPositions(structure.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, iterations)
    positions = in_nanometers(context.getState(positions=True).getPositions(asNumpy=True))
    return structure._replace(positions=positions)


def formal_charge(structure: Structure) -> int:
    """Total charge by the force field, e. Raises ValueError when that does not know a residue."""
    if names := unknown_residues(structure):
        raise ValueError(
            f"solvate: the force field does not know {', '.join(names)}, so the charge is unknown"
        )
    system = app.ForceField(*FORCE_FIELD).createSystem(structure.topology)
    (nonbonded,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    charges = [nonbonded.getParticleParameters(k)[0]._value for k in range(nonbonded.getNumParticles())]
    total: float = sum(charges)
    return round(total)


def unknown_residues(structure: Structure) -> list[str]:
    """Names of residues that the force field does not know."""
    unmatched = app.ForceField(*FORCE_FIELD).getUnmatchedResidues(structure.topology)
    return sorted({residue.name for residue in unmatched})


def kept_atoms(structure: Structure, original: Structure) -> list[int]:
    """Atoms of a structure that lie where `original` has an atom: those that were not added or moved."""
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    distances, _ = cKDTree(original.positions).query(structure.positions, distance_upper_bound=1e-5)
    return [int(index) for index in np.flatnonzero(np.isfinite(distances))]


class _Shapes:
    """Stands in for a ForceField in `Modeller.addSolvent`, which asks it for radii and the total charge."""

    def __init__(self, charge: float) -> None:
        self.charge = charge

    def createSystem(self, topology: app.Topology, **_: Any) -> openmm.System:
        """A System whose NonbondedForce has van der Waals radii, and the whole charge on one atom."""
        from ase.data import vdw_radii

        system, nonbonded = openmm.System(), openmm.NonbondedForce()
        for index, atom in enumerate(topology.atoms()):
            radius = vdw_radii[atom.element.atomic_number] if atom.element else 1.5
            radius = 2.0 if np.isnan(radius) else radius
            system.addParticle(1.0)
            nonbonded.addParticle(self.charge if index == 0 else 0.0, 2 * 0.1 * radius * 2 ** (-1 / 6), 1.0)
        system.addForce(nonbonded)
        return system


def _fast_platform() -> openmm.Platform:
    names = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    return openmm.Platform.getPlatformByName("CPU" if "CPU" in names else "Reference")


@contextmanager
def _random(seed: int) -> Iterator[None]:
    """Modeller draws from Python's global generator: seeded inside, restored after."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
