"""Fixtures that several folders of tests share."""

from pathlib import Path

import pytest

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
