"""Python code in a process of its own, for what only a fresh interpreter shows."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def printed_by(
    code: str, *, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str | None = None
) -> str:
    """What `python -c code` prints; an exception there fails the test and is shown.

    `env` replaces the environment, as in subprocess.run.
    """
    done = subprocess.run(
        [sys.executable, "-c", code], input=stdin, capture_output=True, text=True, env=env, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
