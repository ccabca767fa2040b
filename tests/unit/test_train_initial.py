"""New models before the first step. Oracles: the labels that they were made for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from orb_export import checkpoint
from orb_export.train.catalog import StructureSet
from orb_export.train.config import parse_config
from orb_export.train.initial import FORCE_SHARE, initial_model
from orb_export.train.report import evaluate

from tests.artefacts import tiny_model


def crystals(folder: Path, energy_scale: float) -> Path:
    """Rattled crystals of one composition; their energies beyond the mean are scaled."""
    rng = np.random.default_rng(5)
    frames = []
    for _ in range(6):
        atoms = bulk("Al", "fcc", a=4.05, cubic=True)
        atoms.positions += rng.normal(size=(4, 3)) * 0.1
        atoms.calc = EMT()
        frames.append(atoms)
    mean = np.mean([atoms.get_potential_energy() for atoms in frames])
    for atoms in frames:
        energy = mean + energy_scale * (atoms.get_potential_energy() - mean)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=atoms.get_forces())
    write(folder / "al.xyz", frames)
    return folder / "al.xyz"


@pytest.mark.parametrize("energy_scale", [1e-5, 1.0], ids=["equal energies", "true energies"])
def test_forces_begin_at_a_share_of_the_labels_and_energies_near_them(tmp_path, energy_scale):
    path = crystals(tmp_path, energy_scale)
    config = parse_config({"data": {"train": [str(path)]}, "model": {"size": "tiny"}}, "test")
    structures = StructureSet([str(path)], config.data, 120, False)
    model = initial_model(config, structures, structures.catalog)
    found = evaluate(model.eval(), iter(structures))
    share = np.sqrt((found.forces[:, 3:] ** 2).mean() / (found.forces[:, :3] ** 2).mean())
    assert FORCE_SHARE * (1 - 1e-4) < share < 2
    assert np.abs(found.energy[:, 1] - found.energy[:, 0]).max() < 0.1  # eV/atom


@pytest.mark.parametrize(("elements", "admitted"), [("kept", (3, 13, 29)), ("data", (13,))])
def test_a_continued_model_admits_the_elements_of_the_old_one_or_of_the_data(tmp_path, elements, admitted):
    path = crystals(tmp_path, 1.0)
    old = tiny_model("conservative")
    old.config = replace(old.config, elements=(3, 13, 29))
    checkpoint.save(old, tmp_path / "old.safetensors")
    start = {"model": str(tmp_path / "old.safetensors"), "elements": elements}
    config = parse_config({"data": {"train": [str(path)]}, "start": start}, "test")
    structures = StructureSet([str(path)], config.data, 120, False)
    assert initial_model(config, structures, structures.catalog).config.known_elements == admitted
