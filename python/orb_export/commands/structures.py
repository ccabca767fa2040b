"""Reading structure files for the commands that take them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms


def read_structures(path: Path) -> "list[Atoms]":
    """All frames of any file that ASE reads. Raises FileNotFoundError, ValueError."""
    import ase.io

    if not path.is_file():
        raise FileNotFoundError(f"structure: `{path}` does not exist")
    try:
        frames = ase.io.read(path, index=":")
    except Exception as error:  # ASE's readers raise whatever their parsing trips over
        raise ValueError(
            f"structure: `{path}` cannot be read by ASE: {type(error).__name__}: {error}"
        ) from error
    if not frames:
        raise ValueError(f"structure: `{path}` holds no structure")
    return list(frames)
