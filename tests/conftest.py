"""Fixtures that several folders of tests share."""

from pathlib import Path

import pytest

from tests import accuracy
from tests.reference.stored_cases import StoredCases

SHARED = Path(__file__).resolve().parents[1] / "../shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    return SHARED


@pytest.fixture(scope="session")
def stored(shared) -> StoredCases:
    """Results of orb-models 0.5.5 for tiny models."""
    return StoredCases(shared / "reference/reference_cases.npz")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the parity checks measured."""
    if lines := list(accuracy.table()):
        terminalreporter.section("largest errors")
        for line in lines:
            terminalreporter.write_line(line)
