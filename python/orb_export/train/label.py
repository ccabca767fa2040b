"""Labels from a teacher: energies, forces and stresses of an artefact or of any ASE calculator.

A student trained on them is a static distillation, as direct-mpa of the report is of conservative-inf-mpa.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorSetupError, PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from tqdm import tqdm

from .sources import DATABASES, Selection

log = logging.getLogger(__name__)


class Teacher:
    """An ASE calculator by its class, made anew for each charge and spin where it takes them as options.

    Strings among `options` may be {charge} or {spin}: every structure gets a calculator with its own
    info["charge"] or info["spin"] then (0 and 1 where it has none).
    """

    def __init__(
        self, name: str, make: Callable[..., Calculator], options: dict[str, Any] | None = None
    ) -> None:
        self.name, self.make, self.options = name, make, options or {}
        self._calculator: Calculator | None = None
        self._made_for: dict[str, Any] | None = None

    def _options_for(self, atoms: Atoms) -> dict[str, Any]:
        own = {"{charge}": int(atoms.info.get("charge", 0)), "{spin}": int(atoms.info.get("spin", 1))}
        return {
            name: own.get(value, value) if isinstance(value, str) else value
            for name, value in self.options.items()
        }

    def label(self, atoms: Atoms) -> Atoms:
        """A copy with energy, forces and, where the teacher and the cell have one, stress.

        Keeps `info`. Raises whatever the calculator raises.
        """
        options = self._options_for(atoms)
        if self._calculator is None or options != self._made_for:
            self._calculator, self._made_for = self.make(**options), options
        labelled = Atoms(
            atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=dict(atoms.info)
        )
        labelled.calc = self._calculator
        results: dict[str, Any] = {
            "energy": labelled.get_potential_energy(),
            "forces": labelled.get_forces(),
        }
        if labelled.cell.rank == 3:
            try:
                results["stress"] = labelled.get_stress()
            except (PropertyNotImplementedError, CalculatorSetupError):
                log.debug("%s gives no stress", self.name)
        labelled.calc = SinglePointCalculator(labelled, **results)
        return labelled


def label_structures(
    teacher: Teacher, files: Sequence[str | Path], output: Path, *, resume: bool = False
) -> int:
    """Label all structures of `files` (each possibly FILE@SLICE) into `output`; returns how many are in it.

    The suffix of `output` decides the format: .xyz, .extxyz, .db or .aselmdb. With `resume`, structures that
    it has already are skipped, by their number. A structure that the teacher fails on ends the work with a
    ValueError that names it; what was labelled before stays.
    """
    frames = Selection(files)
    if output.suffix not in (".xyz", ".extxyz", *DATABASES):
        raise ValueError(f"label: `output` is {str(output)!r} but must end in .xyz, .extxyz, .db or .aselmdb")
    if output.exists() and not resume:
        raise ValueError(
            f"label: `output` is {str(output)!r} but exists already; give --resume to continue it"
        )
    done = len(Selection([output])) if output.exists() and output.stat().st_size else 0
    for number, atoms in enumerate(_labelled(teacher, frames, done), start=done):
        atoms.info.setdefault("source", frames.path(number).stem)
        if output.suffix in DATABASES:
            _add_row(output, atoms)
        else:
            ase.io.write(output, atoms, format="extxyz", append=True)
    return len(frames)


def _labelled(teacher: Teacher, frames: Selection, done: int) -> Iterator[Atoms]:
    for number in tqdm(range(done, len(frames)), "label", initial=done, total=len(frames), unit="frame"):
        try:
            yield teacher.label(frames[number])
        except Exception as error:  # calculators raise anything; which structure it was is what helps
            raise ValueError(
                f"{frames.place(number)}: {teacher.name} failed: {type(error).__name__}: {error}"
            ) from error


def _add_row(output: Path, atoms: Atoms) -> None:
    from ase.db import connect

    scalars = {name: value for name, value in atoms.info.items() if np.isscalar(value)}
    # the formats know no scalars of numpy
    data = {name: np.asarray(value).item() for name, value in scalars.items()}
    with connect(str(output)) as database:
        database.write(atoms, data=data)
