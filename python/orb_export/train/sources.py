"""Labelled structures in files, read one at a time: sets may be larger than memory.

Extended XYZ files are indexed by byte offset once; ASE databases (sqlite, and aselmdb, the format of OMat24)
have indices of their own. Every other format that ASE reads is held in memory.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.utils import string2index

DATABASES = (".db", ".aselmdb")


class Frames(ABC):
    """The structures of one file, by number."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def __len__(self) -> int:
        """Number of structures."""

    @abstractmethod
    def __getitem__(self, number: int) -> Atoms:
        """A structure with its labels as a calculator."""


class XyzFrames(Frames):
    """Extended XYZ, found by byte offset."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.offsets = self._scan()

    def _scan(self) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = []
        with self.path.open("rb") as file:
            begin = 0
            while (line := file.readline()).strip():
                try:
                    rows = int(line) + 1
                except ValueError:
                    text = line.decode(errors="replace").strip()
                    raise ValueError(f"{self.path}:{len(offsets)}: number of atoms is {text!r}") from None
                for _ in range(rows):
                    if not file.readline():
                        raise ValueError(f"{self.path}:{len(offsets)}: ends within the structure")
                offsets.append((begin, file.tell() - begin))
                begin = file.tell()
        return offsets

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, number: int) -> Atoms:
        begin, size = self.offsets[number]
        with self.path.open("rb") as file:
            file.seek(begin)
            text = file.read(size).decode()
        atoms = ase.io.read(io.StringIO(text), index=0, format="extxyz")
        assert isinstance(atoms, Atoms)
        return atoms


class DatabaseFrames(Frames):
    """An ASE database; charge and spin are taken from `data` and `key_value_pairs` of a row."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._database: Any = None
        # aselmdb has a list at hand, where a select would unpack every row
        self.ids: list[int] = getattr(self.database, "ids", None) or [
            row.id for row in self.database.select(include_data=False)
        ]
        self._database = None  # connections do not survive a fork; each process opens its own

    @property
    def database(self) -> Any:
        """The open database of this process."""
        if self._database is None:
            from ase.db import connect

            self._database = connect(str(self.path))
        return self._database

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_database": None}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> Atoms:
        row = self.database.get(id=self.ids[number])
        atoms: Atoms = row.toatoms()
        atoms.info |= row.key_value_pairs
        atoms.info |= {name: value for name, value in row.data.items() if np.isscalar(value)}
        return atoms


class MemoryFrames(Frames):
    """Any other format of ASE."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            frames: Any = ase.io.read(path, index=":")
        except Exception as error:  # ASE's readers raise whatever their parsing trips over
            raise ValueError(f"train: `{path}` cannot be read by ASE: {error}") from error
        self.frames: list[Atoms] = list(frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, number: int) -> Atoms:
        return self.frames[number]


class Selection(Sequence[Atoms]):
    """Structures of several files, each possibly with a slice: `train.xyz@::2`.

    Raises ValueError that names the file when it does not exist, cannot be read, or nothing is selected.
    """

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files: list[Frames] = []
        self.places: list[tuple[int, int]] = []
        for file in files:
            name, _, chosen = str(file).partition("@")
            path = Path(name)
            if not path.is_file():
                raise ValueError(f"train: `{name}` does not exist")
            frames = _open(path)
            try:
                selection: Any = string2index(chosen or ":")
                numbers = np.atleast_1d(np.arange(len(frames))[selection])
            except (ValueError, IndexError):
                raise ValueError(
                    f"train: `{file}` has slice {chosen!r} but must have one like 0:100:2"
                ) from None
            self.places += [(len(self.files), int(number)) for number in numbers]
            self.files.append(frames)
        if not self.places:
            raise ValueError(f"train: {', '.join(map(str, files)) or 'no file'} holds no structure")

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        file, number = self.places[index]
        return self.files[file][number]

    def place(self, index: int) -> str:
        """File and number of a structure, for messages."""
        file, number = self.places[index]
        return f"{self.files[file].path}:{number}"

    def path(self, index: int) -> Path:
        """File of a structure."""
        return self.files[self.places[index][0]].path


def _open(path: Path) -> Frames:
    if path.suffix in (".xyz", ".extxyz"):
        return XyzFrames(path)
    if path.suffix in DATABASES:
        return DatabaseFrames(path)
    return MemoryFrames(path)
