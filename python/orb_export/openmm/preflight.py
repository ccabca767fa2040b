"""What is wrong with a structure before a model is asked: findings with the names of atoms.

The model answers any question without a word, also for a protein without hydrogens. Every check here is
cheap beside one step of dynamics and returns findings; whether an error stops the run is the caller's choice.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orb_export.openmm.molecules import neighbor_pairs
from orb_export.openmm.residues import missing_heavy_atoms, standard_hydrogens
from orb_export.openmm.structures import ANGSTROM, Structure, listed, residue_label

Level = Literal["error", "warning", "note"]
CHECKS = (
    "elements",
    "hydrogens",
    "spin",
    "contacts",
    "bonds",
    "periodic-charge",
    "space-group",
    "occupancy",
    "missing-atoms",
    "alternates",
    "box",
    "direct",
    "timestep",
)
# Parts of the sum of the covalent radii. Bonds of molecules lie above 0.75 (CO, N2, C2H2), and ions and
# metals above 0.65 (uranyl).
_OVERLAP, _TIGHT, _TORN = 0.55, 0.70, 1.6
_MANY_WATERS = 30


class Finding(NamedTuple):
    """One thing that a check found; errors should stop a run."""

    level: Level
    check: str  # one of CHECKS
    message: str

    def __str__(self) -> str:
        return f"{self.level} [{self.check}]: {self.message}"


class Plan(NamedTuple):
    """What the run will do, as far as the checks need it."""

    charge: float | None = None  # e
    spin: float | None = None  # multiplicity 2S+1
    timestep: float = 0.5  # fs
    needs_energy: bool = False  # a Monte Carlo barostat


def examine(structure: Structure, record: Mapping[str, Any], plan: Plan) -> list[Finding]:
    """All findings for a structure, the metadata record of an artefact, and a plan; errors come first."""
    findings = [
        *_elements(structure, record),
        *_hydrogens(structure),
        *_spin(structure, record, plan),
        *_distances(structure),
        *_box(structure, record, plan),
        *_quality(structure),
        *_run(structure, record, plan),
    ]
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.level))


def _elements(structure: Structure, record: Mapping[str, Any]) -> Iterator[Finding]:
    from ase.data import chemical_symbols

    numbers = structure.numbers
    if not numbers.all():
        first = structure.label(int(np.argmin(numbers)))
        yield Finding("error", "elements", f"{first} has no element: name it in the file, or remove the atom")
    unknown = sorted(set(numbers[numbers > 0].tolist()) - set(record["elements"]))
    if unknown:
        names = ", ".join(chemical_symbols[number] for number in unknown)
        where = structure.label(int(np.argmax(np.isin(numbers, unknown))))
        yield Finding(
            "error", "elements", f"{record['model']} does not know {names}; the first such atom is {where}"
        )


def _hydrogens(structure: Structure) -> Iterator[Finding]:
    expected = standard_hydrogens()
    lacking: list[str] = []
    missing = found = 0
    unclear: list[str] = []
    for residue in structure.topology.residues():
        atoms = list(residue.atoms())
        hydrogens = sum(atom.element is not None and atom.element.atomic_number == 1 for atom in atoms)
        if residue.name in expected:
            parents = [atom.name for atom in atoms]
            wanted = sum(expected[residue.name].get(name, 0) for name in parents)
            found += hydrogens
            if hydrogens < wanted:
                missing += wanted - hydrogens
                lacking.append(f"{residue_label(residue)} ({hydrogens} of {wanted})")
        elif hydrogens == 0 and sum(_is(atom, 6) for atom in atoms) >= 2 and any(_is(a, 7, 8) for a in atoms):
            unclear.append(residue_label(residue))
    if lacking:
        yield Finding(
            "error",
            "hydrogens",
            f"{missing} hydrogens are missing in {len(lacking)} residues: {listed(lacking)}"
            + ("; the file has none at all" if not found else "")
            + ": --fix adds them",
        )
    if unclear:
        yield Finding(
            "warning", "hydrogens", f"no hydrogens, though there is carbon with N or O: {listed(unclear)}"
        )


def _is(atom: Any, *numbers: int) -> bool:
    return atom.element is not None and atom.element.atomic_number in numbers


def _spin(structure: Structure, record: Mapping[str, Any], plan: Plan) -> Iterator[Finding]:
    if not record["has_charge_spin"]:
        if plan.charge is not None or plan.spin is not None:
            yield Finding(
                "note", "spin", f"{record['model']} does not depend on charge or spin: they are not used"
            )
        return
    if plan.charge is None or plan.spin is None:
        missing = " and ".join(f"--{name}" for name in ("charge", "spin") if getattr(plan, name) is None)
        yield Finding(
            "error",
            "spin",
            f"{record['model']} depends on total charge and spin multiplicity: give {missing}",
        )
        return
    if plan.charge != round(plan.charge) or plan.spin != round(plan.spin) or plan.spin < 1:
        yield Finding(
            "error",
            "spin",
            f"the charge {plan.charge:g} and the multiplicity {plan.spin:g} must be whole, the latter 1 or "
            "more",
        )
        return
    electrons = int(structure.numbers.sum()) - round(plan.charge)
    if (electrons + round(plan.spin)) % 2 == 0:
        fitting = "1, 3, 5, ..." if electrons % 2 == 0 else "2, 4, 6, ..."
        yield Finding(
            "error",
            "spin",
            f"{electrons} electrons (charge {plan.charge:g}) cannot have the multiplicity {plan.spin:g}, "
            f"only {fitting}; a missing hydrogen or a wrong charge looks like this too",
        )
    elif plan.spin - 1 > electrons:
        yield Finding(
            "error", "spin", f"{electrons} electrons are too few for the multiplicity {plan.spin:g}"
        )


def _distances(structure: Structure) -> Iterator[Finding]:
    numbers, box = structure.numbers, structure.box
    positions = structure.positions / ANGSTROM
    if not np.isfinite(positions).all():
        index = int(np.argmin(np.isfinite(positions).all(axis=1)))
        yield Finding("error", "contacts", f"the position of {structure.label(index)} is not finite")
        return
    first, second, vectors, parts = neighbor_pairs(
        numbers, positions, None if box is None else box / ANGSTROM, structure.periodic, _TIGHT
    )
    lengths = np.linalg.norm(vectors, axis=1)
    for level, low, high in (("error", 0.0, _OVERLAP), ("warning", _OVERLAP, _TIGHT)):
        chosen = np.flatnonzero((parts >= low) & (parts < high) & (first <= second))
        if len(chosen):
            chosen = chosen[np.argsort(parts[chosen])]
            named = [_pair(structure, first[k], second[k], lengths[k]) for k in chosen[:3]]
            more = f", and {len(chosen) - 3} more such pairs" if len(chosen) > 3 else ""
            hint = "; does the box fit the atoms?" if box is not None else ""
            yield Finding(level, "contacts", f"atoms too close: {'; '.join(named)}{more}{hint}")  # type: ignore[arg-type]
    yield from _torn_bonds(structure)


def _pair(structure: Structure, first: int, second: int, length: float) -> str:
    other = "its own image" if first == second else structure.label(int(second))
    return f"{structure.label(int(first))} and {other}, {length:.2f} Å"


def _torn_bonds(structure: Structure) -> Iterator[Finding]:
    """Bonds that no bond can be: chains with gaps, molecules cut by a wrong box."""
    from ase.data import covalent_radii

    bonds = structure.bonds
    if not len(bonds):
        return
    radii = covalent_radii[structure.numbers[bonds]].sum(axis=1) * ANGSTROM
    lengths = np.linalg.norm(structure.positions[bonds[:, 0]] - structure.positions[bonds[:, 1]], axis=1)
    torn = np.flatnonzero(lengths > _TORN * radii)
    if len(torn):
        named = [_pair(structure, bonds[k, 0], bonds[k, 1], lengths[k] / ANGSTROM) for k in torn[:3]]
        yield Finding(
            "warning",
            "bonds",
            f"{len(torn)} bonds are torn (missing residues, or a molecule cut by the box): "
            + "; ".join(named),
        )


def _box(structure: Structure, record: Mapping[str, Any], plan: Plan) -> Iterator[Finding]:
    box = structure.box
    if structure.needs_symmetry:
        yield Finding(
            "error",
            "space-group",
            f"the file has the space group {structure.space_group} and one asymmetric unit of it, not a "
            "whole cell: --solvate it, or leave the box out with --no-box",
        )
    if box is None:
        waters = sum(residue.name == "HOH" for residue in structure.topology.residues())
        if waters >= _MANY_WATERS:
            yield Finding("warning", "box", f"{waters} waters without a box: they will evaporate")
        elif len(structure.numbers) >= 8 and 1 not in structure.numbers and 6 not in structure.numbers:
            yield Finding("warning", "box", "no box: if this is a crystal, its file lacks the cell")
        return
    if record["has_charge_spin"] and plan.charge is not None and plan.spin is not None:
        yield _periodic_charge(record["model"], plan.charge, plan.spin)
    if all(structure.periodic):
        yield from _density(structure, box)
    heights = [
        abs(np.linalg.det(box)) / np.linalg.norm(np.cross(box[axis - 2], box[axis - 1])) for axis in range(3)
    ]
    shortest = (
        min(height for height, flag in zip(heights, structure.periodic, strict=True) if flag) / ANGSTROM
    )
    if shortest < 2 * record["cutoff"]:
        yield Finding(
            "note",
            "box",
            f"the box is {shortest:.1f} Å high, less than two cutoffs ({2 * record['cutoff']:g} Å): allowed, "
            "atoms see several images of each other",
        )


def _periodic_charge(model: str, charge: float, spin: float) -> Finding:
    where = f"{model} is conditioned on total charge and spin, as of molecules in vacuum"
    if (charge, spin) == (0, 1):
        return Finding("warning", "periodic-charge", f"{where}; was it trained on periodic boxes?")
    return Finding(
        "error",
        "periodic-charge",
        f"{where}; in a periodic box every image has the charge {charge:g} and multiplicity {spin:g}: leave "
        "the box out with --no-box",
    )


def _density(structure: Structure, box: NDArray[np.float64]) -> Iterator[Finding]:
    from ase.data import atomic_masses

    mass = atomic_masses[structure.numbers].sum() * 1.66053907e-24  # g
    density = mass / (abs(np.linalg.det(box)) * 1e-21)
    if not 0.05 < density < 30:
        yield Finding("warning", "box", f"the density is {density:.3g} g/cm³: is the box right?")


def _quality(structure: Structure) -> Iterator[Finding]:
    if structure.occupancies:
        values = ", ".join(f"{value:g}" for value in structure.occupancies)
        yield Finding(
            "error", "occupancy", f"sites are occupied in part ({values}): choose an ordered structure"
        )
    if structure.alternates:
        yield Finding(
            "warning",
            "alternates",
            f"{structure.alternates} residues have several conformations: the first is used",
        )
    incomplete = [
        f"{residue_label(residue)} ({' '.join(sorted(names))})"
        for residue, names in missing_heavy_atoms(structure)
    ]
    if incomplete:
        yield Finding(
            "warning",
            "missing-atoms",
            f"{len(incomplete)} residues lack atoms: {listed(incomplete)}: --fix adds them",
        )


def _run(structure: Structure, record: Mapping[str, Any], plan: Plan) -> Iterator[Finding]:
    if plan.needs_energy and record["kind"] == "direct":
        yield Finding(
            "error",
            "direct",
            f"the forces of {record['model']} are not the gradient of its energy, which a Monte "
            "Carlo barostat uses: take a conservative model, or --barostat stochastic",
        )
    if 1 in structure.numbers and plan.timestep > 1.0:
        yield Finding(
            "warning",
            "timestep",
            f"{plan.timestep:g} fs is long for hydrogen without constraints: 1 fs or less",
        )
    if not math.isfinite(plan.timestep):
        yield Finding("error", "timestep", f"the time step is {plan.timestep}")
