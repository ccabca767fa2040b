"""Carbonic anhydrase II in water, zinc included, with Orb-v3 for every atom: the large case of the report.

    python carbonic_anhydrase.py 1CA2.pdb --model orb-v3-direct-inf-omat.pt2 --steps 1000

The deposited file has no hydrogens; more than 20,000 atoms are made of it, once, and kept in --prepared:

- residues 2, 3 and 261, which the crystal does not show, are left out; the ends are charged, NH3+ and COO-;
- protonation at pH 7.4 by the usual pKa. The zinc ligands are set by hand: His 94 and 96 bind with NE2 and
  keep their proton on ND1 (HID), His 119 binds with ND1 (HIE);
- the water on the zinc (HOH 263, pKa 6.9) is a hydroxide, whose hydrogen points to OG1 of Thr 199;
- water to 6 angstrom beyond the protein on each side, crystal water kept, 0.1 M NaCl, neutral;
- hydrogens, water and ions are relaxed with Amber ff14SB and TIP3P; heavy atoms of the crystal, zinc site
  included, stay where they were found.

Then there is no force field any more: no constraints, Langevin dynamics at 300 K, steps of 1 fs. The water
has not been equilibrated to its density. With random weights the run shows speed and memory, nothing else.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from orb_export.artefact import read_metadata, sha256_of_file
from orb_export.openmm import OrbV3Force, evaluations
from orb_export.openmm.solvate import add_missing, add_water, formal_charge, kept_atoms, relaxed
from orb_export.openmm.structures import Structure, read_biomolecular, with_atoms, without_box

PH = 7.4
IONIC_STRENGTH = 0.1  # mol/l
MARGIN = 0.6  # nm of water beyond the protein on each side
RELAXATION = 300  # iterations with the force field
ZINC_LIGANDS = {"A:94": "HID", "A:96": "HID", "A:119": "HIE"}
CHOICES = f"pH {PH}, {IONIC_STRENGTH} M NaCl, margin {MARGIN} nm, hydroxide on zinc"


def atom_of(structure: Structure, residue: str, name: str) -> int:
    """Index of an atom by residue id and name."""
    for atom in structure.topology.atoms():
        if (atom.residue.id, atom.name) == (residue, name):
            return int(atom.index)
    raise ValueError(f"carbonic_anhydrase: there is no {name} in residue {residue}")


def zinc_of(structure: Structure) -> int:
    """Index of the zinc."""
    return int(np.flatnonzero(structure.numbers == 30)[0])


def prepare(deposited: Path, seed: int = 1) -> Structure:
    """The solvated protein, by the choices above."""
    crystal = without_box(read_biomolecular(deposited))
    protein = add_missing(crystal, deposited, ph=PH, variants=ZINC_LIGANDS, seed=seed)
    size = np.ptp(protein.positions, axis=0) + 2 * MARGIN
    solvated = add_water(
        protein,
        box=(float(size[0]), float(size[1]), float(size[2])),
        ionic_strength=IONIC_STRENGTH,
        charge=formal_charge(protein) - 1,  # of the hydroxide that one water will be
        seed=seed,
    )
    # the force field has no hydroxide: the water loses its proton when everything has found its place
    return with_hydroxide(relaxed(solvated, kept_atoms(solvated, crystal), iterations=RELAXATION))


def with_hydroxide(structure: Structure) -> Structure:
    """The structure without one proton of the water on the zinc; the other is nearer to OG1 of Thr 199."""
    oxygens = [
        atom.index for atom in structure.topology.atoms() if atom.residue.name == "HOH" and atom.name == "O"
    ]
    zinc = structure.positions[zinc_of(structure)]
    nearest = oxygens[int(np.argmin(np.linalg.norm(structure.positions[oxygens] - zinc, axis=1)))]
    water = list(structure.topology.atoms())[nearest].residue
    threonine = structure.positions[atom_of(structure, "199", "OG1")]
    hydrogens = [atom for atom in water.atoms() if atom.index != nearest]
    lost = max(hydrogens, key=lambda atom: np.linalg.norm(structure.positions[atom.index] - threonine))
    modeller = app.Modeller(structure.topology, structure.positions * unit.nanometer)
    modeller.delete([lost])
    for residue in modeller.topology.residues():
        if residue.name == "HOH" and len(list(residue.atoms())) == 2:
            residue.name = "OH"
    return with_atoms(structure, modeller.topology, modeller.positions)


def prepared_once(deposited: Path, file: Path) -> Structure:
    """The prepared structure, from `file` if that was made of the same deposited file by the same choices."""
    mark = f"REMARK   2 {CHOICES}, OF SHA-256 {sha256_of_file(deposited)}\n"
    if not file.is_file() or mark not in file.read_text():
        structure = prepare(deposited)
        with file.open("w") as stream:
            stream.write(mark)
            app.PDBFile.writeFile(
                structure.topology, structure.positions * unit.nanometer, stream, keepIds=True
            )
    return read_biomolecular(file)


def cut_out(structure: Structure, radius: float) -> Structure:
    """Whole residues that reach within `radius` angstrom of the zinc, without a box: for tests."""
    distances = np.linalg.norm(structure.positions - structure.positions[zinc_of(structure)], axis=1)
    far = [
        residue
        for residue in structure.topology.residues()
        if min(distances[atom.index] for atom in residue.atoms()) > radius / 10
    ]
    modeller = app.Modeller(structure.topology, structure.positions * unit.nanometer)
    modeller.delete(far)
    return without_box(with_atoms(structure, modeller.topology, modeller.positions))


def make_simulation(
    structure: Structure, args: argparse.Namespace, limit_memory: float = 0.0
) -> app.Simulation:
    """All atoms with the model alone, Langevin dynamics."""
    system = openmm.System()
    for atom in structure.topology.atoms():
        system.addParticle(atom.element.mass)
    if structure.box is not None:
        system.setDefaultPeriodicBoxVectors(*structure.box)
    # of models that ask for them; the prepared box is neutral, a cut of it may be anything
    conditions = {"charge": args.charge, "spin": args.spin}
    conditioned = read_metadata(args.model)["has_charge_spin"]
    system.addForce(
        OrbV3Force(
            args.model,
            structure.topology,
            **(conditions if conditioned else {}),
            threads=args.threads,
            memory_limit=round(limit_memory * 1e9),  # bytes
        )
    )
    integrator = openmm.LangevinMiddleIntegrator(
        args.temperature * unit.kelvin, 1 / unit.picosecond, args.timestep * unit.femtosecond
    )
    integrator.setRandomNumberSeed(args.seed)
    platform = openmm.Platform.getPlatformByName(args.platform)
    simulation = app.Simulation(structure.topology, system, integrator, platform)
    simulation.context.setPositions(structure.positions)
    simulation.context.setVelocitiesToTemperature(args.temperature, args.seed)
    return simulation


def forces_of(simulation: app.Simulation) -> np.ndarray:
    """Forces (N, 3), eV/angstrom."""
    state = simulation.context.getState(forces=True)
    return np.asarray(state.getForces(asNumpy=True)._value) / 964.853321  # of kJ/mol/nm


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Prepare, run, and print what it took; returns the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("deposited", type=Path, metavar="PDB", help="1CA2 as deposited")
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="made by orb-export export")
    parser.add_argument("--prepared", type=Path, default=Path("carbonic_anhydrase_prepared.pdb"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--timestep", type=float, default=1.0, help="fs")
    parser.add_argument("--cut", type=float, metavar="RADIUS", help="only what is near the zinc, angstrom")
    parser.add_argument(
        "--limit-memory", type=float, default=0.0, metavar="GB", help="that an evaluation may use"
    )
    parser.add_argument("--charge", type=float, default=0.0, help="of models that are conditioned on it")
    parser.add_argument("--spin", type=float, default=1.0, help="multiplicity, likewise")
    parser.add_argument("--compare", action="store_true", help="forces with and without --limit-memory")
    parser.add_argument("--trajectory", type=Path, metavar="DCD")
    parser.add_argument("--report-interval", type=int, default=10)
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)

    structure = prepared_once(args.deposited, args.prepared)
    if args.cut is not None:
        structure = cut_out(structure, args.cut)
    atoms = len(structure.numbers)
    box = "no box" if structure.box is None else " x ".join(f"{10 * x:.1f}" for x in np.diag(structure.box))
    print(f"{atoms} atoms, box {box} A, {args.prepared}")

    simulation = make_simulation(structure, args, args.limit_memory)
    figures = {"atoms": float(atoms)}
    if args.compare:
        limited, free = forces_of(simulation), forces_of(make_simulation(structure, args))
        figures["difference"] = float(np.abs(limited - free).max())
        print(f"largest difference of forces with and without limit: {figures['difference']:.1e} eV/A")
    interval = args.report_interval
    simulation.reporters.append(
        app.StateDataReporter(
            sys.stdout, interval, step=True, potentialEnergy=True, temperature=True, speed=True
        )
    )
    if args.trajectory is not None:
        simulation.reporters.append(app.DCDReporter(str(args.trajectory), interval))
    # the first evaluation also opens the model and is not timed; the first step uses it
    simulation.context.getState(energy=True, forces=True)
    before, began = evaluations(), time.perf_counter()
    simulation.step(args.steps)
    seconds, evaluated = time.perf_counter() - began, evaluations() - before
    figures |= {
        "ns_a_day": evaluated * args.timestep * 1e-6 * 86400 / seconds,
        "evaluations": float(evaluated),
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(
        f"{args.steps} steps, {evaluated} evaluations after the first in {seconds:.1f} s: "
        f"{figures['ns_a_day']:.3g} ns/day, at most {figures['memory_gb']:.2f} GB in use"
    )
    return figures


if __name__ == "__main__":
    main()
