"""Orb-v3 for openmm-ml: `MLPotential("orb-export", modelPath=FILE)` and the names of the family.

openmm-ml loads and instantiates every factory when it is imported. So this module is small, and does not
import openmm-ml itself: imported first, it would be asked for the factory before that exists.
`orb-v3-conservative-inf-omat` and `orb-v3-conservative-omol` are names of openmm-ml's own route through
orb-models; those models are reached as `MLPotential("orb-export", modelName=NAME)`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from orb_export import variants
from orb_export.artefact import SUFFIXES

if TYPE_CHECKING:
    from orb_export.openmm.mlpotential import OrbExportPotential

GENERIC = "orb-export"


class OrbExportFactory:
    """What the entry points of group `openmmml.potentials` name."""

    def createImpl(
        self,
        name: str,
        modelPath: str | Path | None = None,
        modelName: str | None = None,
        weights: str | Path | None = None,
        format: str = "aoti",
    ) -> "OrbExportPotential":
        """The potential of `MLPotential(name, ...)`.

        Args:
            name: orb-export or a name of the family.
            modelPath: artefact written by ``orb-export export``.
            modelName: name of the family, with `name` orb-export.
            weights: local checkpoint of a family name, instead of the download.
            format: that a family name is exported to: aoti (needs a C++ compiler) or torchscript.

        Raises:
            ValueError: the arguments do not say which model, or say it twice.
        """
        from orb_export.openmm.mlpotential import Family, OrbExportPotential

        family = modelName if name == GENERIC else name
        if (modelPath is None) == (family is None) and name == GENERIC:
            raise ValueError(f"MLPotential: {GENERIC!r} needs either `modelPath` or `modelName`")
        if modelName is not None and name != GENERIC:
            raise ValueError(f"MLPotential: `modelName` is {modelName!r} but {name!r} names a model already")
        if format not in SUFFIXES:
            raise ValueError(f"MLPotential: `format` is {format!r} but must be one of {sorted(SUFFIXES)}")
        if modelPath is not None:
            if weights is not None:
                raise ValueError("MLPotential: `weights` and `modelPath` are given, but only one is used")
            return OrbExportPotential(Path(modelPath))
        return OrbExportPotential(Family(variants.get(str(family)), weights, format))
