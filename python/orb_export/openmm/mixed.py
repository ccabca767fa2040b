"""What `<OrbV3Force>` does to a System: a force for all atoms, or for a region embedded by openmm-ml."""

import copy
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import openmm
from openmm import unit
from openmm.app import Topology

from orb_export.artefact import read_metadata
from orb_export.openmm.force import OrbV3Force

# Whose terms inside a region openmm-ml removes, or which have none.
_EMBEDDED = (
    openmm.HarmonicBondForce,
    openmm.HarmonicAngleForce,
    openmm.PeriodicTorsionForce,
    openmm.RBTorsionForce,
    openmm.CMAPTorsionForce,
    openmm.CustomBondForce,
    openmm.CustomAngleForce,
    openmm.CustomTorsionForce,
    openmm.NonbondedForce,
    openmm.CustomNonbondedForce,
    openmm.CustomExternalForce,
    openmm.CMMotionRemover,
)
# Fields of the surroundings that act on a region as on the rest, but cannot take more particles.
_IMPLICIT_SOLVENT = (openmm.GBSAOBCForce, openmm.CustomGBForce)


def add_to_all(system: openmm.System, topology: Topology, model: Path, options: dict[str, Any]) -> None:
    """Add the force of `model` for all atoms. `options`: for OrbV3Force."""
    _check_charge_and_spin(model, options)
    force = OrbV3Force(model, topology, **options)
    if "charge" in options:
        check_multiplicity(force.numbers, options["charge"], options["spin"])
    system.addForce(force)
    keep_molecules(system, topology, range(topology.getNumAtoms()))


def add_to_region(
    system: openmm.System,
    topology: Topology,
    model: Path,
    region: list[int],
    distances: Iterable[tuple[int, int, Any]],
    options: dict[str, Any],
) -> None:
    """Replace what is inside `region` by the model, in place; mechanical embedding of openmm-ml.

    Link atoms are massless particles after all others. Raises ImportError without openmm-ml, ValueError.
    """
    try:
        import openmmml

        from orb_export.openmm.openmmml import GENERIC, OrbExportFactory
    except ModuleNotFoundError as error:
        raise ImportError(
            f"createSystem: `orbRegion` needs openmm-ml ({error}): pip install 'openmmml>=1.8'"
        ) from error
    region = _with_extra_particles(system, topology, region)
    _check_forces(system, is_cut=_check_cuts(topology, region))
    _check_charge_and_spin(model, options)
    if "charge" in options:
        _check_region_charge(system, region, options["charge"])
    openmmml.MLPotential.registerImplFactory(GENERIC, OrbExportFactory())
    embedded = openmmml.MLPotential(GENERIC, modelPath=model).createMixedSystem(
        _with_elements(topology),
        system,
        region,
        multiplicity=options.pop("spin", None),
        forceGroup=options.pop("force_group", 0),
        linkAtomDistances=list(distances),
        **options,
    )
    # createSystem holds `system` and returns it: the C++ objects change places
    system.this, embedded.this = embedded.this, system.this
    keep_molecules(system, topology, region)


def check_multiplicity(numbers: Iterable[int], charge: float, multiplicity: float) -> None:
    """Warn when no state of the atoms has this charge and spin multiplicity."""
    electrons = sum(numbers) - charge
    unpaired = multiplicity - 1
    if unpaired < 0 or unpaired > electrons or (electrons - unpaired) % 2 != 0:
        warnings.warn(
            f"OrbV3: {electrons:g} electrons (charge {charge:g}) cannot have spin multiplicity "
            f"{multiplicity:g}; are hydrogens missing?",
            stacklevel=2,
        )


def keep_molecules(system: openmm.System, topology: Topology, region: Iterable[int]) -> None:
    """Bonds of no strength where the Topology has bonds inside the region.

    OpenMM finds molecules by the bonds of forces. Without any, a Monte Carlo barostat scales and
    enforcePeriodicBox wraps every atom of the region by itself.
    """
    inside = set(region)
    bonds = openmm.HarmonicBondForce()
    bonds.setName("OrbV3 molecules")
    for first, second in topology.bonds():
        if first.index in inside and second.index in inside:
            bonds.addBond(first.index, second.index, 0.0, 0.0)
    if bonds.getNumBonds():
        system.addForce(bonds)


class _NoElement(NamedTuple):
    """Stands for the missing element of an extra particle; openmm-ml 1.8 asks every atom for its number."""

    atomic_number: int = 0


def _with_extra_particles(system: openmm.System, topology: Topology, region: list[int]) -> list[int]:
    """The region with the extra particles of its atoms: their charges are those of the atoms."""
    inside = set(region)
    extra = [
        atom.index for atom in topology.atoms() if atom.element is None and system.isVirtualSite(atom.index)
    ]
    for index in extra:
        site = system.getVirtualSite(index)
        if inside.issuperset(site.getParticle(i) for i in range(site.getNumParticles())):
            inside.add(index)
    return sorted(inside)


def _with_elements(topology: Topology) -> Topology:
    if all(atom.element is not None for atom in topology.atoms()):
        return topology
    completed = copy.deepcopy(topology)
    for atom in completed.atoms():
        if atom.element is None:
            atom.element = _NoElement()
    return completed


def _check_charge_and_spin(model: Path, options: dict[str, Any]) -> None:
    """Charge and spin are never assumed: a model that takes them gives other energies without a word."""
    needed = read_metadata(model)["has_charge_spin"]
    for name in ("charge", "spin"):
        if needed != (name in options):
            state = "is missing: the model depends" if needed else "is given but the model does not depend"
            raise ValueError(f"createSystem: `orb{name.capitalize()}` {state} on it ({model.name})")


def _check_region_charge(system: openmm.System, region: Sequence[int], charge: float) -> None:
    """Warn when the other force field has another net charge there; a cut bond shifts it a little."""
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            charges = (force.getParticleParameters(index)[0] for index in region)
            net = round(sum(one.value_in_unit(unit.elementary_charge) for one in charges), 3) + 0.0
            if abs(net - charge) > 0.5:
                warnings.warn(
                    f"createSystem: `orbCharge` is {charge:g} but the charges of the region in the other "
                    f"force field add up to {net:.2f}",
                    stacklevel=2,
                )


def _check_cuts(topology: Topology, region: Sequence[int]) -> bool:
    """Whether the region cuts bonds; ValueError where two link atoms would come too close to each other."""
    inside = set(region)
    cut = [bond for bond in topology.bonds() if (bond[0].index in inside) != (bond[1].index in inside)]
    outer = Counter(first if second.index in inside else second for first, second in cut)
    for atom, count in outer.items():
        if count > 1:
            raise ValueError(
                f"createSystem: `orbRegion` cuts more than one bond at atom {atom.index} ({atom.name} of "
                f"{atom.residue.name} {atom.residue.id}): take it in, or leave its neighbors out"
            )
    return bool(cut)


def _check_forces(system: openmm.System, is_cut: bool) -> None:
    for force in system.getForces():
        kind = type(force).__name__
        if isinstance(force, _IMPLICIT_SOLVENT):
            if is_cut:
                raise ValueError(
                    f"createSystem: `orbRegion` cuts a bond, and {kind} cannot take link atoms: choose whole "
                    "molecules, or explicit solvent"
                )
        elif not isinstance(force, _EMBEDDED):
            raise ValueError(
                f"createSystem: `orbRegion` cannot be embedded in {kind}: which of its terms lie inside the "
                "region is not known"
            )
