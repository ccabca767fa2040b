"""Checkpoints that continue a run as if it had not stopped, with its files.

A checkpoint is OpenMM's own (positions, velocities, box, random streams) and, beside it, `checkpoint.json`:
the step, SHA-256 of artefact, structure and state, the settings, and the size that every output file had.
A restart cuts the files to these sizes, so nothing is lost or written twice, however the run ended. The JSON
is replaced last and in one piece: a run killed at any moment leaves a checkpoint that is whole.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import openmm

RECORD = "checkpoint.json"
_SCHEMA = 1


class Identity(NamedTuple):
    """What must be the same for a run to be continued."""

    artefact: str  # SHA-256
    structure: str  # SHA-256
    openmm: str  # version
    settings: dict[str, Any]


class Checkpoint(NamedTuple):
    """A record that was read."""

    step: int
    state: bytes
    identity: Identity
    platform: str
    properties: dict[str, str]  # of the platform
    files: dict[str, int]  # sizes in bytes


def write_checkpoint(
    folder: Path, context: openmm.Context, identity: Identity, outputs: Sequence[Path]
) -> None:
    """Write the state of a Context and the record; what came before is removed."""
    state = context.createCheckpoint()
    step = context.getStepCount()
    file = folder / f"checkpoint-{step}.chk"
    _write(file, state)
    platform = context.getPlatform()
    record = {
        "schema": _SCHEMA,
        "step": step,
        "time_ps": context.getTime()._value,
        "state": {"file": file.name, "sha256": hashlib.sha256(state).hexdigest()},
        **identity._asdict(),
        "platform": platform.getName(),
        "properties": {
            name: platform.getPropertyValue(context, name)
            for name in ("Threads",)
            if name in platform.getPropertyNames()
        },
        "files": {path.name: path.stat().st_size for path in outputs if path.is_file()},
    }
    _write(folder / RECORD, json.dumps(record, indent=1).encode())
    for old in folder.glob("checkpoint-*.chk"):
        if old != file:
            old.unlink()


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_name(file.name + ".part")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint of a run. Raises FileNotFoundError, ValueError when it is damaged."""
    path = folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"restart: `{folder}` has no checkpoint ({RECORD})")
    try:
        record = json.loads(path.read_text())
        state = (folder / record["state"]["file"]).read_bytes()
        schema, expected = record["schema"], record["state"]["sha256"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"restart: `{path}` cannot be read: {type(error).__name__}: {error}") from error
    if schema != _SCHEMA:
        raise ValueError(f"restart: `{path}` has schema {schema} but this orb_export reads {_SCHEMA}")
    if hashlib.sha256(state).hexdigest() != expected:
        raise ValueError(f"restart: `{folder / record['state']['file']}` is damaged: its SHA-256 is another")
    identity = Identity(*(record[name] for name in Identity._fields))
    return Checkpoint(
        record["step"], state, identity, record["platform"], record["properties"], record["files"]
    )


def check_same(found: Identity, wanted: Identity, folder: Path) -> None:
    """Raise ValueError that names everything in which a run differs from the one that is to be continued."""
    differences = [
        f"`{name}` has SHA-256 {getattr(found, name)[:16]}... there but {getattr(wanted, name)[:16]}... here"
        for name in ("artefact", "structure")
        if getattr(found, name) != getattr(wanted, name)
    ]
    if found.openmm != wanted.openmm:
        differences.append(f"it was made with OpenMM {found.openmm} but this is {wanted.openmm}")
    there, here = _plain(found.settings), _plain(wanted.settings)
    differences += [
        f"`{name}` is {there.get(name)!r} there but {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differences:
        raise ValueError(f"restart: the run in `{folder}` is another one: {'; '.join(differences)}")


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def cut_files(folder: Path, sizes: Mapping[str, int]) -> None:
    """Cut output files to what they were at a checkpoint. Raises ValueError when they are less."""
    for name, size in sizes.items():
        file = folder / name
        present = file.stat().st_size if file.is_file() else 0
        if present < size:
            raise ValueError(
                f"restart: `{file}` has {present} bytes but had {size} at the checkpoint: it was changed"
            )
        os.truncate(file, size)
        if file.suffix == ".dcd" and size:
            _mend_dcd(file)


def _mend_dcd(file: Path) -> None:
    """Set the counts in the header of a DCD file of OpenMM to the frames that it holds."""
    with file.open("r+b") as stream:
        header = stream.read(276)
        first, interval = struct.unpack_from("<2i", header, 12)
        (boxed,), (atoms,) = struct.unpack_from("<i", header, 48), struct.unpack_from("<i", header, 268)
        frame = (56 if boxed else 0) + 3 * (8 + 4 * atoms)
        frames = (file.stat().st_size - len(header)) // frame
        stream.seek(8)
        stream.write(struct.pack("<i", frames))
        stream.seek(20)
        stream.write(struct.pack("<i", first + (frames - 1) * interval if frames else 0))
