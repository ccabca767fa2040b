"""Files of the reporters: tables like those of `StateDataReporter`, and trajectories with B-factors."""

import io
from os import PathLike
from pathlib import Path
from typing import TextIO

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm.app import PDBFile, Topology

File = str | PathLike[str] | TextIO


class Table:
    """Lines of one set of columns in a file, each flushed."""

    def __init__(self, file: File, append: bool) -> None:
        self._own = isinstance(file, (str, PathLike))
        if isinstance(file, (str, PathLike)):
            self._out: TextIO = open(file, "a" if append else "w")  # noqa: SIM115  # as long as the reporter
        else:
            self._out = file
        self._header_due = not append or (self._own and self._out.tell() == 0)

    def write(self, row: dict[str, object]) -> None:
        """One line; the names of the first are the header."""
        if self._header_due:
            self._header_due = False
            self._out.write("#" + ",".join(f'"{name}"' for name in row) + "\n")
        self._out.write(",".join(map(str, row.values())) + "\n")
        self._out.flush()

    def __del__(self) -> None:
        if getattr(self, "_own", False) and hasattr(self, "_out"):
            self._out.close()


class Trajectory:
    """A PDB file with one MODEL for each frame; whole and readable after each."""

    def __init__(self, path: Path, append: bool) -> None:
        kept = _models(path.read_text()) if append and path.is_file() else ""
        self._n_models = kept.count("\nENDMDL")
        self._path = path
        self._footer_at = len(kept.encode())
        path.write_text(kept)

    def write(self, topology: Topology, state: openmm.State, factors: NDArray[np.float64]) -> None:
        """One frame with the B-factors of all atoms, (n,)."""
        text = io.StringIO()
        if self._n_models == 0:
            PDBFile.writeHeader(topology, text)
        self._n_models += 1
        frame = io.StringIO()
        PDBFile.writeModel(topology, state.getPositions(asNumpy=True), frame, self._n_models)
        remaining = iter(factors)
        for line in frame.getvalue().splitlines(keepends=True):
            is_atom = line.startswith(("ATOM  ", "HETATM"))
            text.write(f"{line[:60]}{next(remaining):6.2f}{line[66:]}" if is_atom else line)
        models = text.getvalue().encode()
        footer = io.StringIO()
        PDBFile.writeFooter(topology, footer)
        with self._path.open("r+b") as file:  # the footer of the frame before goes
            file.seek(self._footer_at)
            file.write(models + footer.getvalue().encode())
            file.truncate()
        self._footer_at += len(models)


def _models(text: str) -> str:
    """A PDB file up to the end of its last model."""
    end = text.rfind("\nENDMDL")
    return "" if end < 0 else text[: text.index("\n", end + 1) + 1]
