"""An ASE calculator for eager models and for compiled artefacts alike."""

import copy
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes

from orb_export import artefact, checkpoint, graph
from orb_export.contract import METADATA_ENTRY
from orb_export.model import OrbV3

if TYPE_CHECKING:
    from ase import Atoms


class Predictor(Protocol):
    """What a calculator needs; `orb_export.load` returns one."""

    def predict(self, atoms: "Atoms") -> Mapping[str, Any]:
        """Results of one structure by name, in ASE's units and conventions."""
        ...


class EagerPredictor:
    """A model of this process, without compilation."""

    def __init__(self, model: OrbV3) -> None:
        self.model = model
        self.metadata = {
            "has_charge_spin": model.config.has_charge_spin,
            "has_stress": model.config.has_stress,
        }

    def predict(self, atoms: "Atoms") -> dict[str, Any]:
        """As artefact.Potential.predict."""
        config = self.model.config
        unknown = sorted(set(atoms.numbers.tolist()) - set(config.known_elements))
        if unknown:
            raise ValueError(
                f"predict: `atoms` has elements {unknown} that model `{config.name}` does not know"
            )
        built = graph.from_atoms(atoms, config.max_neighbors, needs_charge_spin=config.has_charge_spin)
        results = self.model.predict(built.to_device(self.model.device))
        arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in results.items()}
        arrays["energy"] = float(arrays["energy"][0])
        for per_graph in ("stress", "rotational_grad"):
            if per_graph in arrays:
                arrays[per_graph] = arrays[per_graph][0]
        return arrays


def _is_artefact(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return path.suffix in artefact.SUFFIXES.values()  # damaged: let load() say what is wrong
    with zipfile.ZipFile(path) as archive:
        return METADATA_ENTRY in archive.namelist() or path.suffix == ".pt2"


def _open(model: object, device: str | None, dtype: torch.dtype | None) -> Predictor:
    if isinstance(model, OrbV3):
        to_device, to_dtype = torch.device(device or model.device), dtype or model.dtype
        if (to_device, to_dtype) != (model.device, model.dtype):
            model = copy.deepcopy(model).to(device=to_device, dtype=to_dtype)  # the caller's stays as it is
        return EagerPredictor(model)
    if isinstance(model, str | Path):
        path = Path(model)
        if not path.is_file() or not _is_artefact(path):
            return EagerPredictor(checkpoint.load(model, dtype=dtype, device=device or "cpu"))
        model = artefact.load(path, device=device or "auto")
    elif not hasattr(model, "predict"):
        raise TypeError(
            f"OrbCalculator: `model` is {type(model).__name__} but must be an OrbV3, an opened artefact, a "
            "path or a model name"
        )
    if dtype is not None:
        raise ValueError(f"OrbCalculator: `dtype` is {dtype} but must be None for a compiled potential")
    return model


class OrbCalculator(Calculator):
    """Energy, forces, stress and confidence of an Orb-v3 model for ASE.

    `model`: an OrbV3, an artefact opened with `orb_export.load`, the path of an artefact or of a checkpoint,
    or the name of a published model. `device`: cpu, cuda or cuda:N; `dtype`: of models and checkpoints. A
    model in memory is copied if they differ from its own. Models conditioned on charge and spin read
    `atoms.info["charge"]` (e) and `atoms.info["spin"]` (multiplicity 2S+1); both must be there.

    Results: `energy` = `free_energy` (eV), `forces` (N, 3) eV/angstrom, `stress` (6,) eV/angstrom^3 in Voigt
    order (not for direct models without a stress head), `confidence` (N, 50) probabilities of the bins of the
    force error, 0 to 0.3 eV/angstrom; for an eager conservative model also `rotational_grad` (3, 3) eV.
    """

    def __init__(
        self,
        model: "OrbV3 | Predictor | str | Path",
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(**parameters)  # type: ignore[no-untyped-call]  # ASE is partly typed
        self.predictor = _open(model, device, dtype)
        metadata: Mapping[str, Any] = getattr(self.predictor, "metadata", {})
        self.has_charge_spin = bool(metadata.get("has_charge_spin", False))
        self.implemented_properties = ["energy", "free_energy", "forces", "confidence"]
        if metadata.get("has_stress", True):
            self.implemented_properties.append("stress")

    def check_state(self, atoms: "Atoms", tol: float = 1e-15) -> list[str]:
        """As in ASE, plus "info" when charge or spin has changed, which ASE does not watch."""
        changes: list[str] = super().check_state(atoms, tol=tol)  # type: ignore[no-untyped-call]
        if self.has_charge_spin and self.atoms is not None:
            watched = [(s.info.get("charge"), s.info.get("spin")) for s in (self.atoms, atoms)]
            if watched[0] != watched[1]:
                changes.append("info")
        return changes

    def calculate(
        self,
        atoms: "Atoms | None" = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate everything at once; `properties` changes nothing."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        results = dict(self.predictor.predict(self.atoms))
        if not np.isfinite(results["energy"]):
            raise ValueError(f"OrbCalculator: `atoms` has energy {results['energy']}; two atoms may coincide")
        self.results = {**results, "free_energy": results["energy"]}
