"""New models before the first step. Oracles: the labels that they were made for."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from orb_export import checkpoint
from orb_export.model import OrbConfig, OrbV3
from orb_export.train.catalog import StructureSet
from orb_export.train.config import parse_config
from orb_export.train.data import collate, random_rotation
from orb_export.train.equivariant import Ties, initialize, layouts
from orb_export.train.initial import FORCE_SHARE, initial_model
from orb_export.train.report import evaluate
from torch.nn import functional

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


@pytest.mark.parametrize("size", ["tiny", "small", "medium"])
def test_features_of_a_new_equivariant_model_are_scalars_and_harmonics(tmp_path, size):
    path = crystals(tmp_path, 1.0)
    config = parse_config(
        {"data": {"train": [str(path)]}, "model": {"size": size}, "optimizer": {"equivariant": True}}, "test"
    )
    structures = StructureSet([str(path)], config.data, 120, False)
    network = initial_model(config, structures, structures.catalog).eval().network
    stream, _ = layouts(*config.model.dimensions()[:2])

    encoder = network.edge_encoder
    directions = functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    raw = encoder.block.mlp(encoder.features(2.5 * directions)[0]).detach()
    components = raw[:, stream.scalars :]
    harmonics = encoder.angular(directions)
    for order, width, copies in stream.sizes():  # exact
        values = harmonics[:, order**2 : order**2 + width]
        for _ in range(copies):
            copy, components = components[:, :width], components[:, width:]
            factor = (copy * values).sum() / values.square().sum()
            torch.testing.assert_close(copy, factor * values, rtol=0, atol=1e-5)
            assert abs(factor) > 1e-3

    graph, _ = collate([structures[0]])
    rotations = [random_rotation(torch.Generator().manual_seed(seed)) for seed in range(8)]
    ends = graph.numbers, graph.centers, graph.neighbors
    turned = [network(*ends, graph.vectors @ rotation.T, torch.zeros(1, 0)) for rotation in rotations]
    turning = torch.stack(turned).detach().std(dim=0)  # N, C; of scalars not exactly zero
    of_scalars, of_components = turning[:, : stream.scalars], turning[:, stream.scalars :]
    assert of_scalars.square().mean() < 0.1**2 * of_components.square().mean()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"kind": "direct"}, "the model is direct"),
        ({"channels": 12}, "12 channels and hidden width 128 are too few: 16 and 24 at least"),
        ({"hidden": 20}, "64 channels and hidden width 20 are too few"),
    ],
    ids=str,
)
def test_models_that_cannot_be_equivariant_are_refused(tmp_path, model, message):
    path = crystals(tmp_path, 1.0)
    content = {"data": {"train": [str(path)]}, "model": model, "optimizer": {"equivariant": True}}
    config = parse_config(content, "test")
    structures = StructureSet([str(path)], config.data, 120, False)
    with pytest.raises(ValueError, match=f"`optimizer.equivariant` is true but {message}"):
        initial_model(config, structures, structures.catalog)


def test_gradients_of_an_equivariant_network_are_tied_before_the_optimizer_sees_them():
    model = OrbV3(OrbConfig(kind="conservative", channels=16, hidden=32, head_hidden=16, layers=1))
    torch.manual_seed(1)
    with torch.no_grad():
        initialize(model, torch.randn(100, 128))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Ties(model).keep(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    gradients = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gradients.get_parameter(name).copy_(parameter.grad)
    Ties(gradients)  # raises otherwise
    Ties(model)
