"""From a model to an artefact: compile, describe, verify in a fresh process, rename into place."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orb_export import artefact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from orb_export.model import OrbV3


def _no_progress(message: str) -> None:
    pass


def export_model(
    model: "OrbV3",
    file: str | Path,
    *,
    format: str = "aoti",
    source: str = "",
    licence: str = "unknown",
    structure: "Atoms | None" = None,
    precision: str | None = None,
    validation: "Sequence[Atoms] | None" = None,
    with_effects: bool | None = None,
    verified: bool = True,
    with_steps: bool = True,
    progress: Callable[[str], None] = _no_progress,
) -> dict[str, Any]:
    """Compile `model`, on its device, into the artefact `file`; returns the metadata.

    `with_steps`: also the steps that energies without forces and a memory limit need; they add to the time of
    "aoti", not to that of "torchscript", which always has them. `format`: "aoti" (file name ends in .pt2) or
    "torchscript" (.pt). `structure`: TorchScript only, whose atomic numbers, charge and spin `forward` will
    use. `precision`: float32, float32-split, bfloat16, tf32 or float64, see docs/artefact.md; default the
    dtype of the model. `verified`: compare with the model in a fresh process first; no file is left when they
    differ, and the record gets the errors against float64 on `validation` (default: rattled crystals).
    `with_effects`: also those on phonons and dynamics, which take minutes for models of published size;
    default: in reduced precisions of small models. Raises ValueError, and RuntimeError when verification
    fails.
    """
    from orb_export.export import effects, record, verify
    from orb_export.export.precision import PRECISIONS, REDUCED, checked

    file = Path(file)
    _check_arguments(file, format, structure)
    if not verified and (validation is not None or with_effects is not None):
        ignored = "validation" if validation is not None else "with_effects"
        raise ValueError(
            f"export: `{ignored}` is given but `verified` is False: no accuracy is measured then"
        )
    precision = checked(precision, model.dtype, format, model.device.type)
    if PRECISIONS[precision] != model.dtype:
        model = copy.deepcopy(model).to(PRECISIONS[precision])
    if with_effects is None:
        with_effects = precision in REDUCED and effects.small_weights(model)
    entries = record.describe(model, format, source, licence, with_steps or format == "torchscript")
    entries |= {"precision": precision, "accuracy": {"skipped": True}}
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        payload = Path(folder) / ("payload" + file.suffix)
        candidate = Path(folder) / ("candidate" + file.suffix)
        progress(f"compiling {entries['model']} ({format}, {precision}, {entries['device']})")
        _compile(model, payload, format, structure, with_steps, precision)
        artefact.write(payload, {**entries, "verification": {"skipped": True}}, candidate)
        if verified:
            progress("verifying against the eager model in a fresh process")
            entries |= verify.verification_and_accuracy(candidate, model, precision, validation, with_effects)
            if not entries["verification"]["passed"]:
                raise RuntimeError(verify.failure(entries["verification"]))
            artefact.write(payload, entries, candidate)
        complete = artefact.read_metadata(candidate)
        candidate.replace(file)
    return complete


def _check_arguments(file: Path, format: str, structure: "Atoms | None") -> None:
    if format not in artefact.SUFFIXES:
        raise ValueError(f"export: `format` is {format!r} but must be one of {sorted(artefact.SUFFIXES)}")
    suffix = artefact.SUFFIXES[format]
    if file.suffix != suffix:
        raise ValueError(
            f"export: `file` is {str(file)!r} but the name of a {format} artefact must end in {suffix}"
        )
    if not file.parent.is_dir():
        raise ValueError(
            f"export: `file` is {str(file)!r} but the folder {str(file.parent)!r} does not exist"
        )
    if structure is not None and format != "torchscript":
        raise ValueError(
            "export: `structure` is given but only format 'torchscript' stores one (for TorchForce)"
        )


def _compile(
    model: "OrbV3", payload: Path, format: str, structure: "Atoms | None", with_steps: bool, precision: str
) -> None:
    import torch

    from orb_export.export import aoti, torchscript
    from orb_export.graph import checked_charge_spin

    if format == "aoti":
        aoti.compile_aoti(model, payload, with_steps, precision)
        return
    if structure is None:
        torchscript.compile_torchscript(model, payload)
        return
    if unknown := sorted(set(structure.numbers.tolist()) - set(model.config.known_elements)):
        raise ValueError(f"export: `structure` has elements {unknown} that the model does not know")
    charge, spin = checked_charge_spin(structure.info.get("charge", 0.0), structure.info.get("spin", 1.0))
    torchscript.compile_torchscript(model, payload, torch.tensor(structure.numbers), charge, spin)
