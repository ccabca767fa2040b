"""Short LAMMPS runs in this process, and the same structures as Python sees them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data
from orb_export.lammps import lammps
from orb_export.lammps.inputs import boxed_for_lammps

from tests.accuracy import within

# LAMMPS's own constants of units metal and real: bar (atm) per eV/A^3 (kcal/mol/A^3), and kcal/mol per eV
PRESSURE_UNIT = {"metal": 1.6021765e6, "real": 68568.415}
ENERGY_UNIT = {"metal": 1.0, "real": 23.060549}
# what the issue allows between any two ways to run one float64 model: rounding over the depth of the network
ENERGY_BAR, FORCE_BAR, STRESS_BAR = 1e-10, 1e-9, 1e-9


class Result(NamedTuple):
    energy: float  # eV
    forces: np.ndarray  # (N, 3) eV/A, by atom ID
    stress: np.ndarray  # (6,) eV/A^3, xx yy zz yz xz xy, tension positive


@contextmanager
def session(screen: bool = False) -> Iterator[Any]:
    lmp = lammps(cmdargs=["-log", "none", *([] if screen else ["-screen", "none"])])
    try:
        yield lmp
    finally:
        lmp.close()


def turned(atoms: Atoms) -> Atoms:
    """The structure in LAMMPS's orientation, without a cell if it is open in all directions."""
    boxed = boxed_for_lammps(atoms)
    prism = Prism(boxed.cell.array)
    xhi, yhi, zhi, xy, xz, yz = prism.get_lammps_prism()
    cell = np.array([[xhi, 0, 0], [xy, yhi, 0], [xz, yz, zhi]])
    result = boxed.copy()
    result.positions = prism.vector_to_lammps(boxed.positions)
    result.set_cell(cell if atoms.pbc.any() else None)
    return result


def setup(
    atoms: Atoms, folder: Path, *, units: str = "metal", before: Iterable[str] = (), open_side: str = "f"
) -> list[str]:
    """Commands up to and with read_data."""
    data = folder / "structure.data"
    with data.open("w") as file:
        write_lammps_data(file, boxed_for_lammps(atoms), specorder=elements(atoms), masses=True, units=units)
    boundary = " ".join("p" if periodic else open_side for periodic in atoms.pbc)
    return [f"units {units}", "atom_style atomic", f"boundary {boundary}", *before, f"read_data {data}"]


def elements(atoms: Atoms) -> list[str]:
    return list(dict.fromkeys(atoms.get_chemical_symbols()))


def pair(model: Path, atoms: Atoms, keywords: str = "") -> list[str]:
    return [f"pair_style orbv3 {keywords}", f"pair_coeff * * {model} {' '.join(elements(atoms))}"]


def measure(lmp: Any, units: str = "metal") -> Result:
    """Energy, forces and stress of the last step."""
    energy = lmp.get_thermo("pe") / ENERGY_UNIT[units]
    pressure = np.array([lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")])
    kinetic = lmp.get_thermo("ke")
    assert kinetic == 0.0, "the pressure is that of the forces alone only at rest"
    stress = -pressure / PRESSURE_UNIT[units] / ENERGY_UNIT[units]
    return Result(energy, gathered(lmp, "f", 3) / ENERGY_UNIT[units], stress)


def gathered(lmp: Any, name: str, columns: int) -> np.ndarray:
    """(N, columns) of a per-atom quantity by atom ID."""
    return np.array(lmp.gather_atoms(name, 1, columns)).reshape(-1, columns)


def evaluate(
    atoms: Atoms,
    model: Path,
    folder: Path,
    *,
    keywords: str = "",
    before: Iterable[str] = (),
    after: Iterable[str] = (),
    units: str = "metal",
    open_side: str = "f",
) -> Result:
    """`run 0` of a structure with a model."""
    with session() as lmp:
        lmp.commands_list(setup(atoms, folder, units=units, before=before, open_side=open_side))
        lmp.commands_list([*pair(model, atoms, keywords), *after, "run 0"])
        return measure(lmp, units)


def assert_same(
    actual: Result,
    expected: Result,
    stress: bool = True,
    check: str = "LAMMPS and Python, float64",
    bars: tuple[float, float, float] = (ENERGY_BAR, FORCE_BAR, STRESS_BAR),
) -> None:
    """All quantities within their bars; what was measured enters the accuracy table as `check`."""
    energy = abs(actual.energy - expected.energy) / len(expected.forces)
    assert within(check, "energy", energy, bars[0])
    assert within(check, "forces", np.abs(actual.forces - expected.forces).max(), bars[1])
    if stress:
        assert within(check, "stress", np.abs(actual.stress - expected.stress).max(), bars[2])
