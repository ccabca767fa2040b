"""Orb-v3 potentials for LAMMPS, OpenMM, ASE and C++: definition, training and export."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from orb_export.artefact import load


def __getattr__(name: str) -> Any:
    # Lazy, so that `import orb_export` (and with it LAMMPS's plugin discovery) loads no torch.
    if name == "load":
        from orb_export.artefact import load

        return load
    raise AttributeError(f"module 'orb_export' has no attribute {name!r}")
