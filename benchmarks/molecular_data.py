"""Training data of `demo-molecular`: GFN2-xTB energies and forces, charge and spin, from the reference data.

    python benchmarks/molecular_data.py label FOLDER --data DATA --kind zinc --structures 400 --seed 1
    python benchmarks/molecular_data.py assemble FOLDER --data DATA

`label` makes structures of one kind and appends those that converge to FOLDER/labels/KIND_SEED.xyz. Kinds:
zinc sites, protein pieces, water clusters (also compressed) and ions, cut from the hydrated carbonic
anhydrase II of the reference data, bonds cut open closed by hydrogen; and `close`: two monomers, or a monomer
and an ion, nearly in collision. Of every structure there are rattled copies and steps of a relaxation; each
takes a second or less. `assemble` writes FOLDER/train.xyz and FOLDER/test.xyz: the sets of the reference
data, the labels made here, and `joined` systems of several structures, far apart, whose energies, forces and
charges are theirs together, so that a model that pools over atoms learns that energies add. Needs `tblite`
(label only) and `openmm`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE
from molecular_pieces import SolvatedProtein
from numpy.random import Generator

MAX_FORCE = 25.0  # eV/angstrom, largest component of what is kept
MAX_ATOMS = 114
IONS = [("Na", 1), ("Cl", -1), ("K", 1), ("Zn", 2), ("Li", 1), ("F", -1), ("Br", -1), ("I", -1)]
SETS = {
    "monomers of DES": "mol_spice_gfn2/des_monomers_neutral.xyz",
    "solvated amino acids": "mol_spice_gfn2/solvated_aa_neutral.xyz",
    "30 water molecules": "mol_spice_gfn2/water30_neutral.xyz",
    "ion pairs": "mol_spice_gfn2/ion_pairs_neutral.xyz",
    "carbonate solvents": "mol_solvent_gfn2xtb/train_200.xyz",
}
KINDS = {
    "zinc": "zinc sites (own)",
    "water": "compressed water (own)",
    "protein": "protein pieces (own)",
    "ions": "ions in water and protein (own)",
    "close": "monomers in collision (own)",
}
HELD_OUT = slice(7, None, 20)  # of every set
JOINED, JOINED_ATOMS, APART = 300, 160, 100.0  # systems, most atoms in one, angstrom between their centers


def charge_of(atoms: Atoms) -> int:
    return int(atoms.info.get("charge", 0))


def closed_shell(atoms: Atoms) -> bool:
    return bool((int(atoms.numbers.sum()) - charge_of(atoms)) % 2 == 0)


def computed(atoms: Atoms) -> Atoms:
    """With GFN2-xTB as calculator."""
    from tblite.ase import TBLite

    atoms.calc = TBLite(method="GFN2-xTB", charge=charge_of(atoms), multiplicity=1, verbosity=0)
    return atoms


def frozen(atoms: Atoms) -> Atoms | None:
    """A copy that keeps energy and forces; None where forces are beyond MAX_FORCE."""
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    if not np.isfinite(forces).all() or np.abs(forces).max() > MAX_FORCE:
        return None
    copy = Atoms(atoms.numbers, atoms.positions, info={"charge": charge_of(atoms), "spin": 1})
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
    return copy


def rattled(atoms: Atoms, width: float, rng: Generator) -> Atoms:
    copy = atoms.copy()
    copy.positions += rng.normal(size=copy.positions.shape) * width
    return copy


def family(atoms: Atoms, relaxation: int, dynamics: int, rng: Generator) -> Iterator[Atoms]:
    """The structure, rattled copies, every fourth step of a relaxation, every tenth of hot dynamics."""
    if not closed_shell(atoms) or len(neighbor_list("i", atoms, 0.75)):
        return
    yield computed(atoms.copy())
    for width in (0.05, 0.12):
        yield computed(rattled(atoms, width * rng.uniform(0.6, 1.3), rng))
    moving = computed(atoms.copy())
    optimizer = FIRE(moving, logfile=None, maxstep=0.08)
    for _ in range(relaxation // 4):
        optimizer.run(steps=4)
        yield moving
    if dynamics:
        temperature = rng.uniform(300, 900)
        thermalize_momenta(moving, temperature, rng=rng)
        run = Langevin(moving, 0.5 * units.fs, temperature_K=temperature, friction=0.05, fixcm=False, rng=rng)
        for _ in range(dynamics // 10):
            run.run(10)
            yield moving


def collision(monomers: list[Atoms], rng: Generator) -> Atoms:
    """Two monomers, or an ion and one, turned at random and pushed together until atoms nearly touch."""
    first, second = (monomers[rng.integers(len(monomers))].copy() for _ in range(2))
    if rng.random() < 0.3:
        symbol, charge = IONS[rng.integers(len(IONS))]
        first = Atoms(symbol, info={"charge": charge})
    for part in (first, second):
        part.positions -= part.positions.mean(axis=0)
        part.rotate(rng.uniform(0, 360), rng.normal(size=3))
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    nearest, distance = rng.uniform(0.95, 2.6), 12.0
    heavy = 0.35 * ((first.numbers > 1)[:, None] + (second.numbers > 1)[None, :].astype(float))
    while distance > 0:
        apart = first.positions[:, None] - (second.positions + distance * direction)[None]
        if (np.linalg.norm(apart, axis=2) / (1 + heavy)).min() < nearest:
            break
        distance -= 0.05
    pair = Atoms(first.numbers, first.positions) + Atoms(
        second.numbers, second.positions + distance * direction
    )
    pair.info = {"charge": charge_of(first) + charge_of(second), "spin": 1}
    return rattled(pair, rng.uniform(0, 0.08), rng)


def structures(kind: str, data: Path, rng: Generator) -> Iterator[Iterator[Atoms]]:
    """Endless families of a kind."""
    if kind == "close":
        water = read(data / SETS["30 water molecules"], 0)[:3]
        monomers = [*read(data / SETS["monomers of DES"], ":"), *[water] * 500]
        while True:
            pair = collision(monomers, rng)
            yield (
                computed(atoms)
                for atoms in [pair]
                if closed_shell(pair) and not len(neighbor_list("i", pair, 0.75))
            )
    relaxation, dynamics = {"zinc": (16, 40), "protein": (4, 0)}.get(kind, (8, 0))
    box = SolvatedProtein(data / "proteins/carbonic_anhydrase_II/ca2_solvated_20k_300K.pdb")
    cut = {"zinc": box.zinc_site, "water": box.water, "ions": box.ion, "protein": box.piece}[kind]
    while True:
        atoms = cut(rng)
        if len(atoms) <= MAX_ATOMS:
            yield family(atoms, relaxation, dynamics, rng)


def label(folder: Path, data: Path, kind: str, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = folder / "labels" / f"{kind}_{seed}.xyz"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    for members in structures(kind, data, rng):
        try:
            for atoms in members:
                if (kept := frozen(atoms)) is not None:
                    write(path, kept, append=True, format="extxyz")
                    done += 1
        except RuntimeError as error:  # no self-consistent charges
            print(f"left out: {error}")
        if done >= count:
            return


def named(atoms: Atoms, source: str) -> Atoms:
    """A copy with charge, spin, source and labels, and nothing else."""
    copy = Atoms(atoms.numbers, atoms.positions)
    copy.info = {"charge": charge_of(atoms), "spin": 1, "source": source}
    copy.calc = SinglePointCalculator(copy, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return copy


def joined(frames: list[Atoms], rng: Generator) -> Atoms:
    """Two to eight structures far apart, as one system."""
    total: Atoms | None = None
    most = rng.integers(2, 9)
    for place in range(most):
        part = frames[rng.integers(len(frames))]
        if total is not None and len(total) + len(part) > JOINED_ATOMS:
            break
        moved = part.copy()
        moved.positions += (APART * place, 0, 0) - moved.positions.mean(axis=0)
        energy, forces = part.get_potential_energy(), part.get_forces()
        if total is None:
            total, energies, all_forces, charge = moved, energy, [forces], charge_of(part)
        else:
            total, energies, charge = total + moved, energies + energy, charge + charge_of(part)
            all_forces.append(forces)
    assert total is not None
    total.info = {"charge": charge, "spin": 1}
    total.calc = SinglePointCalculator(total, energy=energies, forces=np.concatenate(all_forces))
    return total


def assemble(folder: Path, data: Path) -> None:
    sets = {
        name: [atoms for atoms in read(data / file, ":") if len(atoms) > 1] for name, file in SETS.items()
    }
    for kind, name in KINDS.items():
        files = sorted((folder / "labels").glob(f"{kind}_*.xyz"))
        sets[name] = [atoms for file in files for atoms in read(file, ":")]
    training, test = [], []
    for name, frames in sets.items():
        held_out = frames[HELD_OUT]
        test += [named(atoms, name) for atoms in held_out]
        training += [named(atoms, name) for k, atoms in enumerate(frames) if k % 20 != HELD_OUT.start]
        print(f"{name}: {len(frames)} structures, {len(held_out)} held out")
    rng = np.random.default_rng(0)
    small = [atoms for atoms in training if np.abs(atoms.get_forces()).max() < MAX_FORCE]
    together = [named(joined(small, rng), "joined") for _ in range(JOINED)]
    write(folder / "train.xyz", training + together)
    write(folder / "test.xyz", test)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    for name in ("label", "assemble"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("--data", type=Path, required=True)
        if name == "label":
            command.add_argument("--kind", choices=KINDS, required=True)
            command.add_argument("--structures", type=int, default=400)
            command.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.command == "label":
        label(options.folder, options.data, options.kind, options.structures, options.seed)
    else:
        assemble(options.folder, options.data)


if __name__ == "__main__":
    main()
