"""Modules of this package as processes of their own, which know a file and nothing of the model behind it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run(module: str, arguments: Sequence[str | Path], always_split: bool = False) -> None:
    """`python -m module arguments`; the first one is the artefact. RuntimeError with its last words.

    `always_split`: float32-split as processors with AMX compute it, which a process decides once.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {**os.environ, **({"ORB_EXPORT_SPLIT": "always"} if always_split else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise RuntimeError(f"verify: `{arguments[0]}` cannot be evaluated in a fresh process: {last}")
