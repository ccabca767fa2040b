"""What a table was measured on."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

import orb_export

_PACKAGES = ("orb-models", "vesin", "matscipy", "nvalchemi-toolkit-ops", "numpy")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe() -> dict[str, Any]:
    """Processor, its instructions for matrix products, cores, memory, GPU, and versions."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    name = re.search(r"model name\s*:\s*(.+)", text)
    flags = re.search(r"flags\s*:\s*(.+)", text)
    words = flags.group(1).split() if flags else []
    return {
        "processor": name.group(1) if name else platform.machine(),
        "instructions": [flag for flag in _FLAGS if flag in words],
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "orb_export": orb_export.__version__,
        **{package: found for package in _PACKAGES if (found := _version(package)) is not None},
    }


def one_line(machine: dict[str, Any]) -> str:
    """The description as a sentence for a report."""
    cpu = f"{machine['processor']} ({', '.join(machine['instructions'])}), {machine['cores']} cores"
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return (
        f"{cpu}, {machine['memory_gb']:.0f} GB{gpu}; {machine['threads']} threads, torch {machine['torch']}"
    )
