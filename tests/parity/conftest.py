"""An AOTInductor artefact with all its steps takes more than a minute: made once for all tests."""

from pathlib import Path
from typing import NamedTuple

import pytest
from orb_export.export import export_model
from orb_export.model import OrbV3

from tests.artefacts import tiny_model


class Exported(NamedTuple):
    """A model and the artefact made from it."""

    model: OrbV3
    file: Path


@pytest.fixture(scope="session")
def compiled_with_steps(tmp_path_factory) -> Exported:
    model = tiny_model("conservative", layers=3)
    file = tmp_path_factory.mktemp("steps") / "conservative.pt2"
    export_model(model, file, format="aoti", verified=False)
    return Exported(model, file)
