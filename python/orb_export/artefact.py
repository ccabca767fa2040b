"""Artefacts: a compiled potential in one file that describes itself. docs/artefact.md specifies the format.

The file is the zip archive that torch wrote (AOTInductor's .pt2, TorchScript's .pt) with one entry appended:
the metadata record, JSON, uncompressed, the last entry. It holds size and SHA-256 of all bytes before it.
"""

import hashlib
import json
import shutil
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from orb_export.contract import METADATA_ENTRY, SCHEMA_VERSION

if TYPE_CHECKING:
    from ase import Atoms

SUFFIXES = {"aoti": ".pt2", "torchscript": ".pt"}
_CHUNK = 1 << 20
# PKWARE APPNOTE 4.3.7 and 4.5: local header, and an extra field of padding with the id that zipalign uses
_LOCAL_HEADER, _EXTRA_HEADER, _EXTRA_ID = 30, 4, 0xD935


def sha256_of_file(path: Path, size: int | None = None) -> str:
    """Hexadecimal SHA-256 of the first `size` bytes of a file, or of all."""
    digest, left = hashlib.sha256(), path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def write(payload: Path, record: Mapping[str, Any], destination: Path) -> None:
    """Copy a zip archive of torch to `destination` and append the metadata record.

    `record` gets `payload_bytes` and `payload_sha256`. Appending leaves every earlier byte of the entries in
    place and rewrites the archive's directory only.
    """
    with zipfile.ZipFile(payload) as archive:
        size = archive.start_dir
    complete = {**record, "payload_bytes": size, "payload_sha256": sha256_of_file(payload, size)}
    shutil.copyfile(payload, destination)
    with zipfile.ZipFile(destination, "a", zipfile.ZIP_STORED) as archive:
        # a fixed date: the same payload and record give the same file
        entry = zipfile.ZipInfo(METADATA_ENTRY, date_time=(1980, 1, 1, 0, 0, 0))
        archive.writestr(entry, json.dumps(complete, indent=1))


def append_aligned(archive: Path, name: str, content: bytes) -> None:
    """Append an uncompressed entry whose bytes begin at a multiple of 64, to be mapped into memory."""
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:
        entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        begin = file.start_dir + _LOCAL_HEADER + len(name.encode()) + _EXTRA_HEADER
        padding = -begin % 64
        entry.extra = struct.pack("<HH", _EXTRA_ID, padding) + bytes(padding)
        file.writestr(entry, content)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata record of an artefact, after checking schema, size and SHA-256 of the payload.

    Needs no torch. Raises FileNotFoundError and ValueError. That torch version, device and processor fit is
    checked by `load`, not here: a record can be read anywhere.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load: `{path}` " + ("is not a file" if path.exists() else "does not exist"))
    try:
        with zipfile.ZipFile(path) as archive:
            if METADATA_ENTRY not in archive.namelist():
                raise ValueError(
                    f"load: `{path}` is not an orb_export artefact: the archive has no record "
                    f"`{METADATA_ENTRY}`"
                )
            entry = archive.getinfo(METADATA_ENTRY)
            record = json.loads(archive.read(entry))
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"load: `{path}` is not an orb_export artefact, or is truncated or altered: {error}"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"load: `{path}` has an unreadable metadata record: {error}") from error
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        found = record.get("schema_version") if isinstance(record, dict) else None
        raise ValueError(
            f"load: `{path}` has `schema_version` {found} but this orb_export needs {SCHEMA_VERSION}"
        )
    found_hash = sha256_of_file(path, entry.header_offset)
    if (entry.header_offset, found_hash) != (record.get("payload_bytes"), record.get("payload_sha256")):
        raise ValueError(
            f"load: `{path}` is altered: its payload has SHA-256 {found_hash} but its record says "
            f"{record.get('payload_sha256')}"
        )
    return record


class Memory(NamedTuple):
    """Bytes of tensors at the worst moment of an evaluation, beyond the weights and its inputs."""

    used: int  # under the memory limit
    least: int  # the smallest limit that can be kept


class Potential:
    """A compiled potential; open one with `orb_export.load`."""

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        threads: int = 0,
        memory_limit: int | None = None,
        program: str = "auto",
        cuda_graphs: bool = True,
    ) -> None:
        import torch  # noqa: F401  (its libraries must be in the process before ours)

        from orb_export._core import load_potential

        self.path = Path(path)
        self._compiled = load_potential(
            str(path), device, threads, memory_limit or 0, program, cuda_graphs=cuda_graphs
        )
        self.metadata: dict[str, Any] = json.loads(self._compiled.metadata_json)

    @property
    def file_sha256(self) -> str:
        """SHA-256 of the whole file."""
        sha256: str = self._compiled.file_sha256
        return sha256

    def predict(
        self, atoms: "Atoms", *, forces: bool = True, confidence: bool = True, per_atom: bool = False
    ) -> dict[str, Any]:
        """Evaluate an ASE structure; models with charge and spin read `atoms.info["charge"]` and `["spin"]`.

        Returns `energy` (eV, float), `forces` (N, 3) in eV/angstrom, `stress` (6,) in eV/angstrom^3, Voigt
        xx yy zz yz xz xy, tension positive (absent from models without one), and `confidence` (N, 50), the
        probabilities of the bins of the expected force error. Without `forces` there are no forces and no
        stress, which saves conservative models more than half of the work. With `per_atom` also
        `atom_energies` (N,) and, with forces, `atom_virials` (N, 3, 3), both in eV. Raises ValueError,
        TypeError, RuntimeError.
        """
        from orb_export import graph

        built = graph.from_atoms(
            atoms,
            self.metadata["max_neighbors"],
            self.metadata["cutoff"],
            needs_charge_spin=self.metadata["has_charge_spin"],
        )
        results: dict[str, Any] = self._compiled.evaluate(
            built.numbers.numpy(),
            built.centers.numpy(),
            built.neighbors.numpy(),
            built.vectors.numpy(),
            np.ascontiguousarray(atoms.positions),
            built.cell[0].numpy(),
            float(built.charge[0]),
            float(built.spin[0]),
            forces,
            confidence,
            per_atom,
        )
        del results["memory"]
        results.pop("strain_gradient", None)  # stress times volume, for hosts
        if not self.metadata["has_stress"]:
            results.pop("stress", None)
        return results

    def predict_memory(self, n_atoms: int, n_edges: int, *, forces: bool = True) -> Memory:
        """What an evaluation of this size will need. Raises ValueError if it cannot keep the memory limit."""
        return Memory(*self._compiled.predict_memory(n_atoms, n_edges, forces))

    def __repr__(self) -> str:
        m = self.metadata
        return f"Potential({str(self.path)!r}: {m['model']}, {m['format']}, {m['dtype']}, {m['device']})"


def load(
    path: str | Path,
    device: str = "auto",
    threads: int = 0,
    memory_limit: int | None = None,
    program: str = "auto",
    cuda_graphs: bool = True,
) -> Potential:
    """Open an artefact written by `orb-export export`.

    `device`: auto (the one it was made for), cpu, cuda or cuda:N. `threads`: of torch in this process; 0
    keeps torch's choice. `memory_limit`: bytes that an evaluation may use beyond the weights and its inputs;
    what needs more is done in parts, which takes longer. `program`: what gives forces where the limit
    permits, whole, steps or auto, the faster for the number of edges (docs/artefact.md, Steps).
    `cuda_graphs`: on a GPU, without a memory limit, kernels are captured and replayed. Raises ValueError when
    the file is no artefact, is damaged, or was made for another schema, torch version, device or processor;
    the message names both sides.
    """
    return Potential(path, device, threads, memory_limit, program, cuda_graphs)
