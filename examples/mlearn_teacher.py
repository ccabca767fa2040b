r"""More structures of an element for mlearn.yaml, labelled by a polynomial fitted to those there are.

    pip install cmeel-eigen    # pypolymlp is compiled when it is installed, and looks for Eigen
    CMAKE_PREFIX_PATH=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/cmeel.prefix \
      pip install pypolymlp phonopy
    python mlearn_teacher.py mlearn_Si/train.xyz -o teacher_Si.xyz

Nothing is learned from any other file. A core needs some minutes for the fit and a fraction of a second for
each structure.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list

FREE_ATOM = 5.0  # eV above the mean energy per atom; above a free atom's, pypolymlp gives less weight
HOTTEST, COOLEST = 5000.0, 300.0  # K, bounds of the highest temperature of a structure
STRAIN = 0.015  # standard deviation of its components
HELD_OUT = slice(5, None, 10)
SNAPSHOTS = (10, 15)  # steps before the first structure of a trajectory, and from there to the second


class Polynomial(Calculator):
    """A polynomial potential (Seko, J. Appl. Phys. 133, 011101 (2023)) fitted to `frames` of one element.

    Those of `HELD_OUT` are not fitted to, but choose the regularization.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012  # a list in ASE

    def __init__(self, frames: list[Atoms], *, with_stress: bool = True):
        from pypolymlp.calculator.utils.ase_calculator import PolymlpASECalculator
        from pypolymlp.calculator.utils.ase_utils import ase_atoms_to_structure
        from pypolymlp.mlp_dev.pypolymlp import Pypolymlp

        super().__init__()
        (element,) = {symbol for frame in frames for symbol in frame.symbols}
        mean = np.mean([frame.get_potential_energy() / len(frame) for frame in frames])
        self.free_atom = FREE_ATOM + float(mean)
        potential = Pypolymlp()
        potential.set_params(
            elements=[element],
            cutoff=6.0,
            gaussian_params2=[0.0, 5.0, 7],
            gtinv_order=3,
            gtinv_maxl=(8, 8),
            reg_alpha_params=(-4, 2, 7),
            atomic_energy=[self.free_atom],
            include_stress=with_stress,
        )
        held_out = frames[HELD_OUT]
        fitted = list(frames)
        del fitted[HELD_OUT]
        labels = {}
        for part, chosen in (("train", fitted), ("test", held_out)):
            virials = [
                -frame.get_stress(voigt=False) * frame.get_volume() if with_stress else np.zeros((3, 3))
                for frame in chosen
            ]
            labels |= {
                f"{part}_structures": [ase_atoms_to_structure(frame) for frame in chosen],
                f"{part}_energies": np.array([frame.get_potential_energy() for frame in chosen]),
                f"{part}_forces": [frame.get_forces().T for frame in chosen],
                f"{part}_stresses": np.array(virials),
            }
        potential.set_datasets_structures(**labels)
        potential.fit()
        self.inner = PolymlpASECalculator(params=potential.parameters, coeffs=potential.coeffs)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """As in ASE; energies of the scale of `frames`."""
        super().calculate(atoms, properties, system_changes)
        self.inner.calculate(atoms)
        found = self.inner.results
        xx, yy, zz, xy, yz, zx = -found["stress"] / atoms.get_volume()  # a virial in eV, in this order
        self.results = {
            "energy": found["energy"] + self.free_atom * len(atoms),
            "forces": found["forces"],
            "stress": np.array([xx, yy, zz, yz, zx, xy]),
        }


def report(name: str, frames: list[Atoms], teacher: Calculator) -> None:
    """Print the mean absolute errors of energies and force components of `frames`."""
    energies, forces = [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = teacher
        energies.append((atoms.get_potential_energy() - frame.get_potential_energy()) / len(atoms))
        forces.append((atoms.get_forces() - frame.get_forces()).ravel())
    energy, force = (np.abs(np.hstack(all_errors)).mean() for all_errors in (energies, forces))
    print(f"{name}: {1000 * energy:.2f} meV/atom, {force:.4f} eV/Å ({len(frames)} structures)", flush=True)


def closest(atoms: Atoms) -> float:
    """Shortest distance between two atoms in Å, or infinity where none is below 4 Å."""
    return float(min(neighbor_list("d", atoms, 4.0), default=np.inf))


def others(frames: list[Atoms], teacher: Calculator, rng: np.random.Generator) -> Iterator[Atoms]:
    """Structures without end, labelled by `teacher`: frames of all groups alike, strained, then moving.

    They start at up to the temperature at which a crystal has a frame's potential energy. A trajectory ends
    where atoms are closer, or forces larger, than in any of `frames`. Groups are called "<group> of teacher".
    """
    groups = defaultdict(list)
    for frame in frames:
        groups[frame.info.get("group", "structures")].append(frame)
    names = sorted(groups)
    lowest = min(frame.get_potential_energy() / len(frame) for frame in frames)
    shortest = min(closest(frame) for frame in frames)
    strongest = max(np.abs(frame.get_forces()).max() for frame in frames)
    while True:
        group = names[rng.integers(len(names))]
        frame = groups[group][rng.integers(len(groups[group]))]
        excess = frame.get_potential_energy() / len(frame) - lowest
        hottest = float(np.clip(excess / (1.5 * units.kB), COOLEST, HOTTEST))
        strain = rng.normal(0.0, STRAIN, (3, 3))
        atoms = Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=True)
        atoms.set_cell(frame.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.calc = teacher
        thermalize_momenta(atoms, rng.uniform(0.0, hottest), rng=rng)
        motion = VelocityVerlet(atoms, 0.4 * np.sqrt(atoms.get_masses().mean()) * units.fs)
        for steps in SNAPSHOTS:
            motion.run(steps)
            if closest(atoms) < shortest or np.abs(atoms.get_forces()).max() > strongest:
                break
            found = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
            found.info["group"] = f"{group} of teacher"
            labels = {name: atoms.calc.results[name] for name in ("energy", "forces", "stress")}
            found.calc = SinglePointCalculator(found, **labels)
            yield found


def check(frames: list[Atoms], name: Path, *, with_stress: bool) -> None:
    """Raise ValueError where structures are not what a fit takes."""
    elements = sorted({symbol for frame in frames for symbol in frame.symbols})
    if len(elements) != 1:
        raise ValueError(f"{name} holds {', '.join(elements)}: one file for each element")
    if not all(frame.pbc.all() for frame in frames):
        raise ValueError(f"{name} holds structures that are not periodic along all three axes")
    if len(frames) < 20:
        raise ValueError(f"{name} holds {len(frames)} structures: 20 are the least that are fitted to")
    results = [frame.calc.results if frame.calc else {} for frame in frames]
    for label in ("energy", "forces"):
        if not all(label in found for found in results):
            raise ValueError(f"{name} holds structures without {label}")
    if with_stress and not all("stress" in found for found in results):
        raise ValueError(f"{name} holds structures without stress: give --drop-stress")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("train", type=Path, help="extended XYZ of one element with energies, forces and stresses")
    add("-o", "--output", type=Path, required=True, help="extended XYZ of the other structures")
    add("--structures", type=int, default=1200, help="how many to write (default: %(default)s)")
    add("--drop-stress", action="store_true", help="fit to energies and forces only")
    add("--test", type=Path, help="extended XYZ to print errors of the fit on, too")
    add("--seed", type=int, default=1, help="of the other structures (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.structures < 1:
        parser.error(f"--structures is {arguments.structures}: 1 is the least")
    frames = read(arguments.train, ":")
    try:
        check(frames, arguments.train, with_stress=not arguments.drop_stress)
    except ValueError as error:
        parser.error(str(error))
    teacher = Polynomial(frames, with_stress=not arguments.drop_stress)
    report("held out", frames[HELD_OUT], teacher)
    if arguments.test:
        report(str(arguments.test), read(arguments.test, ":"), teacher)
    source = others(frames, teacher, np.random.default_rng(arguments.seed))
    write(arguments.output, [next(source) for _ in range(arguments.structures)])
    print(f"{arguments.structures} structures in {arguments.output}")


if __name__ == "__main__":
    main()
