"""A runnable LAMMPS input for a structure: `in.lammps` and `structure.data`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from numpy.typing import NDArray

Ensemble = Literal["nve", "nvt", "npt"]

DATA_FILE = "structure.data"
INPUT_FILE = "in.lammps"
# angstrom between the atoms and an open side of the box, which may grow but not shrink (boundary m): LAMMPS
# cannot bin the box of a single atom without any extent
_MARGIN = 1.0
_FEMTOSECOND = {"metal": 1e-3, "real": 1.0}  # in LAMMPS time units
_BAR = {"metal": 1.0, "real": 1 / 1.01325}  # in LAMMPS pressure units


def write_input(
    atoms: "Atoms",
    model: str | Path,
    directory: str | Path,
    *,
    ensemble: Ensemble = "nve",
    temperature: float = 300.0,
    pressure: float = 0.0,
    timestep: float = 1.0,
    steps: int = 1000,
    units: str = "metal",
    charge: float | None = None,
    spin: float | None = None,
    seed: int = 1,
) -> Path:
    """Write a LAMMPS run of a structure with an artefact.

    LAMMPS wants the first lattice vector along x and the second in the xy plane, so the structure is turned.
    Orb-v3 is not exactly invariant to rotations: compare with Python on the turned structure.

    Args:
        atoms: structure; along open axes its box is fitted to the atoms, periodic axes are kept.
        model: artefact made by ``orb-export export``.
        directory: created if need be; receives `in.lammps` and `structure.data`.
        ensemble: ``nve``, ``nvt`` or ``npt``.
        temperature: of the thermostat and, where `atoms` have no momenta, of the initial velocities, K.
        pressure: of the barostat, bar.
        timestep: fs.
        steps: number of time steps.
        units: LAMMPS units, ``metal`` or ``real``.
        charge: total charge, e, of models that are conditioned on it; by default ``atoms.info["charge"]``.
        spin: spin multiplicity 2S+1; likewise.
        seed: of the initial velocities.

    Returns:
        Path of `in.lammps`; run it in its folder with ``lmp -in in.lammps``.

    Raises:
        ValueError: an argument that LAMMPS could not run, or `model` is no artefact.
        FileNotFoundError: there is no `model`.
    """
    from ase.io.lammpsdata import write_lammps_data

    from orb_export.artefact import read_metadata

    path = Path(model).resolve()
    record = read_metadata(path)
    _check(atoms, ensemble, temperature, timestep, steps, units)
    unknown = sorted(set(atoms.numbers.tolist()) - set(record["elements"]))
    if unknown:
        raise ValueError(f"write_input: `atoms` has atomic numbers {unknown}, unknown to {record['model']}")
    conditions = _conditions(atoms, record, charge, spin)
    boxed = boxed_for_lammps(atoms)
    elements = list(dict.fromkeys(boxed.get_chemical_symbols()))
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    moving = atoms.has("momenta")
    with open(folder / DATA_FILE, "w") as file:
        write_lammps_data(file, boxed, specorder=elements, masses=True, velocities=moving, units=units)

    step = timestep * _FEMTOSECOND[units]
    still = "mom yes" if boxed.pbc.any() else "mom yes rot yes"
    # a single atom at rest has no temperature that could be scaled
    start = (
        ""
        if moving or len(atoms) == 1
        else f"velocity        all create {temperature:g} {seed} {still} dist gaussian\n"
    )
    every = max(1, steps // 100)
    text = f"""\
# {ensemble} run of {atoms.get_chemical_formula(empirical=True)} with pair_style orbv3
units           {units}
atom_style      atomic
boundary        {" ".join("p" if periodic else "m" for periodic in boxed.pbc)}
read_data       {DATA_FILE}

pair_style      orbv3{conditions}
pair_coeff      * * "{path}" {" ".join(elements)}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes

timestep        {step:g}
{start}fix             md all {_fix(ensemble, boxed, temperature, pressure * _BAR[units], step)}

thermo          {every}
thermo_style    custom step time temp pe ke etotal press vol
dump            trajectory all custom {every} trajectory.lammpstrj id type element x y z vx vy vz fx fy fz
dump_modify     trajectory sort id element {" ".join(elements)} format float %.10g
run             {steps}
write_data      final.data
"""
    (folder / INPUT_FILE).write_text(text)
    return folder / INPUT_FILE


def _check(
    atoms: "Atoms", ensemble: str, temperature: float, timestep: float, steps: int, units: str
) -> None:
    if len(atoms) == 0:
        raise ValueError("write_input: `atoms` has no atoms")
    if units not in _FEMTOSECOND:
        raise ValueError(f"write_input: `units` is {units!r} but must be metal or real")
    if ensemble not in get_args(Ensemble):
        raise ValueError(f"write_input: `ensemble` is {ensemble!r} but must be nve, nvt or npt")
    if ensemble == "npt" and not atoms.pbc.all():
        raise ValueError("write_input: `ensemble` is 'npt' but the structure is not periodic in all axes")
    for name, value in (("temperature", temperature), ("timestep", timestep)):
        if not value > 0:
            raise ValueError(f"write_input: `{name}` is {value} but must be positive")
    if steps < 0:
        raise ValueError(f"write_input: `steps` is {steps} but must not be negative")


def _conditions(atoms: "Atoms", record: dict[str, Any], charge: float | None, spin: float | None) -> str:
    """Keywords of pair_style for a model conditioned on charge and spin."""
    given = {"charge": charge, "spin": spin}
    if not record["has_charge_spin"]:
        wrong = [name for name, value in given.items() if value is not None]
        if wrong:
            raise ValueError(
                f"write_input: `{wrong[0]}` is given, but {record['model']} does not depend on it"
            )
        return ""
    words = ""
    for name, value in given.items():
        known = atoms.info.get(name) if value is None else value
        if known is None:
            raise ValueError(f"write_input: `{name}` is missing, but {record['model']} depends on it")
        words += f" {name} {known:g}"
    return words


def _fix(ensemble: Ensemble, boxed: "Atoms", temperature: float, pressure: float, step: float) -> str:
    if ensemble == "nve":
        return "nve"
    thermostat = f"{ensemble} temp {temperature:g} {temperature:g} {100 * step:g}"
    if ensemble == "nvt":
        return thermostat
    shape = "aniso" if boxed.cell.orthorhombic else "tri"
    return f"{thermostat} {shape} {pressure:g} {pressure:g} {1000 * step:g}"


def boxed_for_lammps(atoms: "Atoms") -> "Atoms":
    """Copy of a structure in a right-handed cell whose open axes are perpendicular and enclose the atoms.

    A periodic axis keeps its lattice vector; open vectors mean nothing to the model and are replaced. The
    cell of the result is not turned into LAMMPS's orientation yet.

    Raises:
        ValueError: the periodic lattice vectors are zero or dependent.
    """
    import numpy as np

    boxed: Atoms = atoms.copy()
    boxed.arrays.pop("type", None)  # ase would take it for LAMMPS types
    cell = np.array(atoms.cell)
    if np.linalg.matrix_rank(cell[atoms.pbc]) < atoms.pbc.sum():
        raise ValueError("write_input: `atoms` is periodic along lattice vectors that are zero or dependent")
    open_axes = np.flatnonzero(~atoms.pbc)
    for axis, direction in zip(open_axes, _normals(cell[atoms.pbc]), strict=True):
        along = boxed.positions @ direction
        cell[axis] = direction * (np.ptp(along) + 2 * _MARGIN)
        boxed.positions += direction * (_MARGIN - along.min())
    if np.linalg.det(cell) < 0:
        if len(open_axes):  # the other direction does as well; the atoms then lie below the origin
            axis = open_axes[0]
            boxed.positions -= cell[axis]
            cell[axis] *= -1
        else:  # LAMMPS has no left-handed boxes: the same lattice with two vectors exchanged
            cell = cell[[1, 0, 2]]
    boxed.set_cell(cell)
    return boxed


def _normals(vectors: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Orthonormal directions perpendicular to `vectors` (K, 3): (3 - K, 3), along x, y, z where possible."""
    import numpy as np

    chosen: list[NDArray[np.float64]] = []
    basis = list(np.linalg.qr(vectors.T)[0].T)
    for axis in np.eye(3)[np.argsort([sum(b[k] ** 2 for b in basis) for k in range(3)], kind="stable")]:
        rest = axis - sum((b * (axis @ b) for b in basis), start=np.zeros(3))
        if len(basis) < 3 and np.linalg.norm(rest) > 0.1:
            chosen.append(rest / np.linalg.norm(rest))
            basis.append(chosen[-1])
    return np.array(chosen).reshape(-1, 3)
