"""The potentials of openmmml.py: they add an OrbV3Force where openmm-ml asks for one."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import openmm
from openmm.app import Topology
from openmmml.mlpotential import MLPotentialImpl

from orb_export import variants
from orb_export.artefact import SUFFIXES, read_metadata, sha256_of_file
from orb_export.openmm.force import OrbV3Force
from orb_export.openmm.mixed import check_multiplicity

_log = logging.getLogger(__name__)


class OrbExportPotential(MLPotentialImpl):  # type: ignore[misc]  # openmm-ml has no types
    """One model for openmm-ml."""

    def __init__(self, model: "Path | Family") -> None:
        self._model = model

    def addForces(
        self,
        topology: Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        *,
        charge: float | None = None,
        multiplicity: float | None = None,
        periodic: bool | Sequence[bool] | None = None,
        device: Any = "auto",
        linkAtomDistances: Any = None,
        **options: Any,
    ) -> None:
        """Add the force; called by `createSystem` and `createMixedSystem`, which pass their arguments on.

        Args:
            topology: of the new System, link atoms included.
            system: to add the force to.
            atoms: indices of the atoms of the model; None for all.
            forceGroup: 0 to 31.
            charge: total charge of `atoms`, e; only for models conditioned on it, default 0.
            multiplicity: spin multiplicity 2S+1; likewise, default 1.
            periodic: flags of the box vectors; by default whether there is a box.
            device: auto, cpu, cuda, cuda:N or a torch.device.
            linkAtomDistances: of openmm-ml's embedding; not for the force.
            options: other keywords of OrbV3Force.

        Raises:
            ValueError, TypeError, FileNotFoundError: an argument cannot be used; the message names it.
            ConnectionError: the weights of a family name are neither here nor to be had.
        """
        path = self._model if isinstance(self._model, Path) else self._model.artefact(_kind(device))
        indices, numbers = _real_atoms(topology, atoms)
        if periodic is None:
            periodic = topology.getPeriodicBoxVectors() is not None or system.usesPeriodicBoundaryConditions()
        if read_metadata(path)["has_charge_spin"]:
            charge = 0 if charge is None else charge
            multiplicity = 1 if multiplicity is None else multiplicity
            check_multiplicity(numbers, charge, multiplicity)
        elif charge or multiplicity not in (None, 1):
            raise ValueError(
                f"MLPotential: `charge` is {charge} and `multiplicity` {multiplicity}, but {path.name} does "
                "not depend on them"
            )
        else:
            charge = multiplicity = None
        system.addForce(
            OrbV3Force(
                path,
                numbers,
                particles=indices,
                periodic=periodic,
                charge=charge,
                spin=multiplicity,
                device=str(device),
                force_group=forceGroup,
                **options,
            )
        )

    def getMLLongRange(self) -> bool:
        """Orb-v3 sees neighbors within 6 angstrom only."""
        return False


def _real_atoms(topology: Topology, atoms: Iterable[int] | None) -> tuple[list[int], list[int]]:
    """Indices and atomic numbers; extra particles of a water model in a region are no atoms and left out."""
    known = list(topology.atoms())
    indices = list(range(len(known))) if atoms is None else [int(atom) for atom in atoms]
    numbers = [0 if known[i].element is None else known[i].element.atomic_number for i in indices]
    if atoms is None and 0 in numbers:
        raise ValueError(
            f"MLPotential: `topology` has no element for atom {numbers.index(0)} "
            f"({known[numbers.index(0)].name}): delete extra particles with Modeller.delete"
        )
    kept = [(index, number) for index, number in zip(indices, numbers, strict=True) if number]
    return [index for index, _ in kept], [number for _, number in kept]


def _kind(device: Any) -> str:
    if str(device) == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(device).partition(":")[0]


class Family:
    """A published model: exported on first use, and kept in the user's cache directory."""

    def __init__(self, variant: variants.Variant, weights: str | Path | None, format: str) -> None:
        self._variant, self._weights, self._format = variant, weights, format

    def artefact(self, device: str) -> Path:
        """The artefact for `device` ("cpu" or "cuda"); made now if it does not exist."""
        import pooch
        import torch

        from orb_export import checkpoint
        from orb_export.export import export_model
        from orb_export.export.aoti import processor
        from orb_export.export.sources import licence_of

        name = self._variant.name
        weights = variants.weights_path(self._variant, self._weights)
        # what an artefact is tied to: weights, torch, and the processor or GPU
        host = [processor()["machine"], *processor()["features"]]
        if device == "cuda":
            host = ["sm", *map(str, torch.cuda.get_device_capability())]
        tied = f"{sha256_of_file(weights)[:16]}-torch{torch.__version__}-{'-'.join(host)}"
        folder = Path(pooch.os_cache("orb_export")) / "artefacts"
        path = folder / f"{name}-{tied}{SUFFIXES[self._format]}"
        if not path.is_file():
            _log.warning("exporting %s to %s, once; this can take minutes", name, path)
            folder.mkdir(parents=True, exist_ok=True)
            model = checkpoint.load(name, weights=weights, device=device)
            export_model(model, path, format=self._format, source=name, licence=licence_of(name))
        return path
