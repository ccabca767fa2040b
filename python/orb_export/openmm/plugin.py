"""The C++ library of OrbV3Force: where it lies, and whether OpenMM has taken it."""

import ctypes
import functools
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import openmm
from openmm import version

PLUGIN = "libOpenMMOrbV3.so"


def plugin_path() -> Path:
    """Path of the plugin: in OpenMM's own folder of plugins, or where orb-export was installed.

    Raises ModuleNotFoundError when it was not built.
    """
    candidates = [Path(version.openmm_library_path) / "plugins" / PLUGIN]
    with suppress(metadata.PackageNotFoundError):
        candidates += [
            Path(str(file.locate())) for file in metadata.files("orb-export") or [] if file.name == PLUGIN
        ]
    for path in candidates:
        if path.is_file():
            return path
    raise ModuleNotFoundError(
        f"orb_export.openmm: no {PLUGIN} in {candidates[0].parent}: install orb-export again, with openmm "
        "in the same environment"
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The plugin, registered with OpenMM.

    `import openmm` loads it, unless OPENMM_PLUGIN_DIR names another folder or openmm lies elsewhere.
    Raises ModuleNotFoundError, OSError when it cannot be opened, RuntimeError when it is for another OpenMM.
    """
    path = plugin_path()
    opened = ctypes.CDLL(str(path))
    opened.orbv3_openmm_release.restype = ctypes.c_char_p
    opened.orbv3_openmm_is_orbv3.argtypes = [ctypes.c_void_p]
    opened.orbv3_openmm_num_particles.argtypes = [ctypes.c_void_p]
    opened.orbv3_openmm_evaluate.argtypes = 6 * [ctypes.c_void_p]
    opened.orbv3_openmm_failure.restype = ctypes.c_char_p
    opened.orbv3_openmm_record.argtypes = [ctypes.c_void_p]
    opened.orbv3_openmm_record.restype = ctypes.c_char_p
    opened.orbv3_openmm_content_size.argtypes = [ctypes.c_void_p]
    opened.orbv3_openmm_content_size.restype = ctypes.c_int64
    opened.orbv3_openmm_timings.argtypes = 2 * [ctypes.c_void_p]
    opened.orbv3_openmm_timings.restype = None
    opened.registerKernelFactories.restype = None
    if not opened.orbv3_openmm_registered():
        openmm.Platform.loadPluginLibrary(str(path))
    if not opened.orbv3_openmm_registered():
        raise RuntimeError(
            f"orb_export.openmm: {path} was built for OpenMM {opened.orbv3_openmm_release().decode()} but "
            f"this is OpenMM {openmm.Platform.getOpenMMVersion()}: install orb-export again beside it"
        )
    return opened
