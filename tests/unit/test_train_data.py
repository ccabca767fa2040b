"""Data of the training: rotations, reference energies, batches, reading. Labels are made by ASE."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from orb_export.train.batches import group_by_edges
from orb_export.train.catalog import fit_references
from orb_export.train.data import (
    Labels,
    collate,
    from_voigt,
    random_rotation,
    read_samples,
    to_voigt,
)

CAP = 120


def structures(count=4):
    """Rattled crystals and alloys with energies, forces and stresses of effective-medium theory."""
    generator = np.random.default_rng(11)
    frames = []
    for index in range(count):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
        atoms.numbers[: index % 3] = 13
        atoms.set_cell(atoms.cell @ (np.eye(3) + generator.normal(size=(3, 3)) * 0.02), scale_atoms=True)
        atoms.positions += generator.normal(size=(4, 3)) * 0.1
        atoms.calc = EMT()
        atoms.get_stress()
        frames.append(atoms)
    return frames


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "frames.xyz"
    write(file, structures())
    return file


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_labels_and_edges_are_those_of_the_file(path):
    samples, frames = read_samples([path], CAP), structures()
    for sample, atoms in zip(samples, frames, strict=True):
        assert float(sample.labels.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        assert np.abs(sample.labels.forces.numpy() - atoms.get_forces()).max() < 1e-7
        assert np.abs(sample.labels.stress.numpy()[0] - atoms.get_stress()).max() < 1e-7
        assert sample.n_edges > 100


def test_a_slice_of_a_file_can_be_chosen(path):
    chosen, everything = read_samples([f"{path}@1::2"], CAP), read_samples([path], CAP)
    assert [sample.source for sample in chosen] == [f"{path}:1", f"{path}:3"]
    assert torch.equal(chosen[1].labels.forces, everything[3].labels.forces)


def test_a_file_without_forces_is_named_in_the_error(tmp_path):
    file = tmp_path / "bare.xyz"
    write(file, bulk("Cu"))
    with pytest.raises(ValueError, match=r"bare.xyz:0: no energy and forces"):
        read_samples([file], CAP)


def test_a_missing_file_is_named_in_the_error(tmp_path):
    with pytest.raises(ValueError, match=r"`.*absent.xyz` does not exist"):
        read_samples([tmp_path / "absent.xyz"], CAP)


def test_a_file_without_stress_has_nan_stress_labels(tmp_path):
    atoms = structures(1)[0]
    atoms.calc.results.pop("stress")
    atoms.calc.implemented_properties = ["energy", "forces"]
    file = tmp_path / "no_stress.xyz"
    write(file, atoms)
    assert read_samples([file], CAP)[0].labels.stress.isnan().all()


def test_rotation_matrices_are_proper_and_uniform():
    generator = seeded(4)
    matrices = torch.stack([random_rotation(generator) for _ in range(4000)])
    identity = torch.eye(3, dtype=torch.float64)
    assert (matrices @ matrices.transpose(1, 2) - identity).abs().max() < 1e-12
    assert (torch.linalg.det(matrices) - 1).abs().max() < 1e-12
    # of a uniform rotation every element has mean 0 and mean square 1/3 (standard errors 0.009 and 0.005)
    assert matrices.mean(0).abs().max() < 0.045
    assert (matrices.square().mean(0) - 1 / 3).abs().max() < 0.025


def test_rotated_labels_are_the_labels_of_the_rotated_structure(path):
    sample = read_samples([path], CAP)[1]
    rotation = random_rotation(seeded(2))
    turned = structures()[1]
    turned.set_cell(turned.cell.array @ rotation.numpy(), scale_atoms=False)
    turned.positions = turned.positions @ rotation.numpy()
    turned.calc = EMT()
    rotated = sample.rotated(rotation)
    assert np.abs(rotated.labels.forces.numpy() - turned.get_forces()).max() < 1e-6
    assert np.abs(rotated.labels.stress.numpy()[0] - turned.get_stress()).max() < 1e-6
    assert np.abs(rotated.graph.positions.numpy() - turned.positions).max() < 1e-7
    assert np.abs(rotated.graph.cell.numpy()[0] - turned.cell.array).max() < 1e-7
    lengths = rotated.graph.vectors.norm(dim=1)
    assert (lengths - sample.graph.vectors.norm(dim=1)).abs().max() < 1e-12
    assert torch.equal(rotated.graph.centers, sample.graph.centers)


def test_voigt_order_is_xx_yy_zz_yz_xz_xy():
    stress = torch.arange(1.0, 7.0)
    matrix = from_voigt(stress)
    assert matrix.tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    assert torch.equal(to_voigt(matrix), stress)


def test_reference_energies_recover_an_additive_energy(path):
    truth = torch.zeros(118, dtype=torch.float64)
    truth[13], truth[29] = -3.0, -4.5
    numbers = [sample.graph.numbers for sample in read_samples([path], CAP)]
    composition = np.stack([torch.bincount(z, minlength=118).numpy() for z in numbers])
    energies = np.array([float(truth[z].sum()) for z in numbers])
    assert (fit_references(composition, energies) - truth).abs().max() < 1e-10


def test_every_structure_is_in_one_batch_and_batches_keep_the_limit():
    edges = [*torch.randint(1, 400, (50,), generator=seeded(1)).tolist(), 5000]
    order = torch.randperm(51, generator=seeded(3)).tolist()
    batches = list(group_by_edges(order, edges, 1000))
    assert [index for batch in batches for index in batch] == order
    assert all(len(batch) == 1 or sum(edges[i] for i in batch) <= 1000 for batch in batches)
    assert max(len(batch) for batch in batches) > 1


def test_collated_labels_follow_the_order_of_the_graphs(path):
    samples = read_samples([path], CAP)
    graph, labels = collate(samples[2:])
    assert isinstance(labels, Labels)
    assert torch.equal(labels.forces[graph.batch == 1], samples[3].labels.forces)
    assert labels.energy.tolist() == [float(samples[2].labels.energy), float(samples[3].labels.energy)]
