"""contract.py and contract.h agree. Oracle: the header's text, read with regular expressions."""

import re
from pathlib import Path

import pytest
from orb_export import contract

HEADER = Path(__file__).resolve().parents[2] / "cpp/include/orb_export/contract.h"
NUMBERS = {
    "kSchemaVersion": contract.SCHEMA_VERSION,
    "kCutoff": contract.CUTOFF,
    "kTieTolerance": contract.TIE_TOLERANCE,
    "kMaxAtomicNumber": contract.MAX_ATOMIC_NUMBER,
    "kConfidenceBins": contract.CONFIDENCE_BINS,
    "kConfidenceMaxError": contract.CONFIDENCE_MAX_ERROR,
}
NAMES = {
    "kInputs": contract.INPUTS,
    "kConservativeOutputs": contract.OUTPUTS["conservative"],
    "kDirectOutputs": contract.OUTPUTS["direct"],
}

STEPS = {"kSteps": contract.STEPS, "kGradientSteps": contract.GRADIENT_STEPS}
TEXTS = {
    "kMetadataEntry": contract.METADATA_ENTRY,
    "kWholeProgram": contract.WHOLE_PROGRAM,
    "kWeightsEntry": contract.WEIGHTS_ENTRY,
}


@pytest.fixture(scope="module")
def definitions() -> dict[str, str]:
    """Right-hand sides of the header's constants by name."""
    text = re.sub(r"//.*", "", HEADER.read_text())
    return dict(re.findall(r"\b(k\w+)(?:\[\d*\])?\s*=\s*([^;]+);", text))


def test_every_constant_of_the_header_is_compared(definitions):
    assert definitions.keys() == {*NUMBERS, *NAMES, *STEPS, *TEXTS, "kTieDirection"}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_agree(definitions, name):
    assert float(definitions[name]) == NUMBERS[name]


@pytest.mark.parametrize("name", NAMES)
def test_fields_have_the_same_names_in_the_same_order(definitions, name):
    assert re.findall(r'"(\w+)"', definitions[name]) == [field.name for field in NAMES[name]]


@pytest.mark.parametrize("name", STEPS)
def test_steps_have_the_same_names_in_the_same_order(definitions, name):
    assert tuple(re.findall(r'"([\w.]+)"', definitions[name])) == STEPS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_texts_agree(definitions, name):
    assert definitions[name].strip() == f'"{TEXTS[name]}"'


def test_tie_directions_agree(definitions):
    direction = re.findall(r"[\d.]+", definitions["kTieDirection"])
    assert tuple(float(x) for x in direction) == contract.TIE_DIRECTION
