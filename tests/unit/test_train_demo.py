"""The demonstration model of the package and its card. Oracle of the errors: the held-out part of mlearn."""

import re
from importlib import resources
from pathlib import Path

import pytest
import torch
from ase.io import read
from orb_export.checkpoint import load
from orb_export.train.data import read_samples
from orb_export.train.report import errors

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
FOLDER = resources.files("orb_export")
WEIGHTS, CARD = (Path(str(FOLDER / f"data/demo.{suffix}")) for suffix in ("safetensors", "md"))
ELEMENTS = ("Cu", "Li", "Mo", "Si")


def card_row(name):
    """Cells of a row of a table of the card, by its first cell."""
    (row,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", CARD.read_text(), flags=re.MULTILINE)
    return [tuple(float(number) for number in cell.split(",")) for cell in row.split("|")]


def test_weights_are_a_small_float32_model_that_calls_itself_a_demonstration():
    assert WEIGHTS.stat().st_size < 10e6
    model = load(WEIGHTS)
    assert (model.config.kind, model.config.max_neighbors, model.dtype) == (
        "conservative",
        120,
        torch.float32,
    )
    assert model.config.elements == (3, 14, 29, 42)
    assert "not for production" in model.config.description
    assert "not for production" in CARD.read_text().lower()


@pytest.mark.parametrize("element", ELEMENTS)
def test_card_states_the_held_out_errors_and_they_are_below_those_of_quadratic_snap(element):
    file = DATA / f"mlearn_{element}" / "test.xyz"
    if not file.is_file():
        pytest.skip(f"needs ../shared/data/mlearn_{element}")
    column = ELEMENTS.index(element)
    found = errors(load(WEIGHTS), read_samples([file], 120))
    energy, forces = card_row("this model")[column]
    (stress,) = card_row("this model, stress MAE GPa")[column]
    # the card is rounded to the last digit it shows
    assert found["energy_mae"] == pytest.approx(energy, abs=0.1)
    assert found["forces_mae"] == pytest.approx(forces, abs=0.001)
    assert found["stress_mae"] == pytest.approx(stress, abs=0.01)
    peer_energy, peer_forces = card_row("quadratic SNAP")[column]
    assert found["energy_mae"] < peer_energy
    assert found["forces_mae"] < peer_forces


@pytest.mark.parametrize("element", ELEMENTS)
def test_no_held_out_structure_is_a_training_structure(element):
    folder = DATA / f"mlearn_{element}"
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/data/mlearn_{element}")
    training, held_out = (
        {
            (atoms.cell.array.round(3).tobytes(), atoms.positions.round(3).tobytes())
            for atoms in read(file, ":")
        }
        for file in (folder / "train.xyz", folder / "test.xyz")
    )
    assert len(held_out) > 20
    assert not training & held_out
