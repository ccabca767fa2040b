"""Energies and virials of atoms. Oracles: the convention of docs/conventions.md, by the eager model; sums."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from orb_export import artefact, graph
from orb_export.export import export_model, verify
from orb_export.model import OrbV3

from tests.accuracy import within
from tests.artefacts import tiny_model

EXACT = 1e-12
KINDS = ["conservative", "direct"]


@pytest.fixture(scope="module", params=KINDS)
def model(request) -> OrbV3:
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "model.pt"
    export_model(model, path, format="torchscript", verified=False)
    return path


def structures() -> list[Atoms]:
    """Also left-handed, where the repulsion of direct models changes its sign; short pairs in all but one."""
    left_handed = next(atoms for atoms in verify.structures() if atoms.info["name"] == "triclinic cell")
    left_handed.set_cell(left_handed.cell.array[[1, 0, 2]], scale_atoms=True)
    return [left_handed, *verify.structures()]


def evaluate(file: Path, atoms: Atoms, **options: Any) -> dict[str, Any]:
    """With what `predict` leaves out."""
    built = graph.from_atoms(atoms, 20)
    arrays = (built.numbers, built.centers, built.neighbors, built.vectors, built.positions, built.cell[0])
    return artefact.load(file)._compiled.evaluate(*(a.numpy() for a in arrays), per_atom=True, **options)


def eager_energies(model: OrbV3, atoms: Atoms) -> np.ndarray:
    """Of each atom, with the head differentiated by torch."""
    g = graph.from_atoms(atoms, 20)
    x = model.node_features(g, g.vectors).detach()
    mean = x.mean(0, keepdim=True).requires_grad_()
    per_atom = model.energy_head(mean, torch.ones(1)).sum()
    (slope,) = torch.autograd.grad(per_atom, mean)
    repulsion = torch.zeros(len(x), dtype=torch.float64)
    repulsion.index_add_(0, g.centers, model.repulsion(g.numbers, g.centers, g.neighbors, g.vectors))
    if model.config.kind == "conservative":
        repulsion = repulsion / len(x)
    shares = per_atom + ((x - mean) * slope).sum(1)
    return (shares + repulsion + model.energy_head.references(g.numbers)).detach().numpy()


def test_energies_are_those_of_the_convention(model, file):
    for atoms in structures():
        expected = eager_energies(model, atoms)
        for options in ({}, {"forces": False}):  # the whole program; the chain
            results = evaluate(file, atoms, **options)
            scale = max(1.0, np.abs(expected).max())
            error = np.abs(results["atom_energies"] - expected).max() / scale
            assert within("energies of atoms, float64", "convention", error, EXACT)
            error = abs(results["atom_energies"].sum() - results["energy"]) / max(1.0, abs(results["energy"]))
            assert within("energies of atoms, float64", "sum", error, EXACT)


def test_virials_add_up_to_the_strain_derivative(model, file):
    for atoms in structures():
        results = evaluate(file, atoms)
        total = results["atom_virials"].sum(0)
        scale = max(1.0, np.abs(results["atom_virials"]).sum(0).max())
        error = np.abs(0.5 * (total + total.T) + results["strain_gradient"]).max() / scale
        assert within("virials of atoms, float64", "sum", error, EXACT)


def test_virials_of_a_pair_are_shared_evenly(file):
    """Two atoms and an isolated third, which has none; the two are images of each other under inversion."""
    atoms = Atoms("C3", [[0, 0, 0], [1.2, 0.3, -0.4], [50.0, 0, 0]])
    virials = evaluate(file, atoms)["atom_virials"]
    np.testing.assert_allclose(virials[0], virials[1], rtol=1e-12)
    assert np.abs(virials[0]).max() > 1e-3
    assert not virials[2].any()


def test_parts_that_are_not_asked_for_are_absent(file):
    potential, atoms = artefact.load(file), structures()[0]
    assert not {"atom_energies", "atom_virials"} & potential.predict(atoms).keys()
    assert "atom_virials" not in potential.predict(atoms, forces=False, per_atom=True)
