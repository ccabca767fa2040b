"""Error tables, calibration and plots of a report. Oracle: numbers worked out by hand, and the model."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from orb_export.contract import CONFIDENCE_BINS
from orb_export.train import plots
from orb_export.train.data import make_sample
from orb_export.train.report import (
    GPA,
    Evaluation,
    by_element,
    by_source,
    calibration,
    evaluate,
    mean_errors,
    report,
    rotational,
)

from tests.artefacts import tiny_model


def by_hand():
    """Two structures, of sources a and b: H2 and CO; force errors 0.1, 0.2 | 0.3, 0.4 on each component."""
    confidence = np.zeros((4, CONFIDENCE_BINS))
    confidence[[0, 1, 2, 3], [10, 10, 40, 40]] = 1.0
    forces = np.zeros((4, 6))
    forces[:, 3:] = np.array([0.1, -0.2, 0.3, -0.4])[:, None]
    stress = np.full((2, 12), np.nan)
    stress[1] = [0.0] * 6 + [0.01] * 6
    return Evaluation(
        sources=["a", "b"],
        n_atoms=np.array([2, 2]),
        energy=np.array([[-1.0, -1.5], [-2.0, -1.0]]),
        stress=stress,
        rotation=np.array([0.001, 0.003]),
        numbers=np.array([1, 1, 6, 8]),
        owner=np.array([0, 0, 1, 1]),
        forces=forces,
        confidence=confidence,
    )


def test_errors_are_those_worked_out_by_hand():
    found = by_hand()
    assert mean_errors(found) == pytest.approx(
        {"energy_mae": 750.0, "forces_mae": 0.25, "stress_mae": 0.01 * GPA}
    )
    assert by_source(found)["a"] == pytest.approx({"structures": 1, "energy_mae": 500.0, "forces_mae": 0.15})
    assert by_source(found)["b"] == pytest.approx({"structures": 1, "energy_mae": 1000.0, "forces_mae": 0.35})
    assert list(by_element(found)) == ["H", "C", "O"]
    assert by_element(found)["H"] == pytest.approx({"atoms": 2, "forces_mae": 0.15})
    assert by_element(found)["O"] == pytest.approx({"atoms": 1, "forces_mae": 0.4})
    assert rotational(found) == pytest.approx({"mean": 2.0, "median": 2.0, "largest": 3.0})


def test_calibration_is_by_the_bin_of_the_expected_error():
    width = 0.3 / CONFIDENCE_BINS
    low, high = calibration(by_hand())
    assert low == pytest.approx({"atoms": 2, "expected": 10.5 * width, "found": 0.15})
    assert high == pytest.approx({"atoms": 2, "expected": 40.5 * width, "found": 0.35})


@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_an_evaluation_holds_labels_and_predictions(kind):
    model = tiny_model(kind)
    samples = []
    for seed, atoms in enumerate([bulk("Cu", cubic=True), molecule("CO")]):
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        samples.append(make_sample(atoms, "here", model.config.max_neighbors, False, f"s{seed}"))
    found = evaluate(model, samples)
    assert found.sources == ["s0", "s1"]
    for index, sample in enumerate(samples):
        expected = model.predict(sample.graph)
        atoms = found.owner == index
        assert found.energy[index] * found.n_atoms[index] == pytest.approx(
            [float(sample.labels.energy), float(expected["energy"])]
        )
        assert np.array_equal(found.forces[atoms, :3], sample.labels.forces.numpy())
        assert np.abs(found.forces[atoms, 3:] - expected["forces"].numpy()).max() < 1e-12
        assert np.abs(found.confidence[atoms] - expected["confidence"].numpy()).max() < 1e-12
        if kind == "conservative":
            norm = float(expected["rotational_grad"].norm()) / found.n_atoms[index]
            assert found.rotation[index] == pytest.approx(norm)
    assert np.isfinite(found.stress[0, :6]).all()
    assert np.isnan(found.stress[1, :6]).all()
    assert (rotational(found) is None) == (kind == "direct")
    assert report(found)["all"]["structures"] == 2


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="`samples` is empty"):
        evaluate(tiny_model("direct"), [])


def test_plots_are_drawn_with_and_without_stress(tmp_path):
    found = by_hand()
    bare = Evaluation(**vars(found) | {"stress": np.full((2, 12), np.nan)})
    for name, evaluation in (("with", found), ("without", bare)):
        plots.parity(evaluation, tmp_path / f"{name}.png", name)
        plots.confidence(evaluation, tmp_path / f"{name}_confidence.png", name)
    sizes = {file.stem: file.read_bytes()[16:24] for file in tmp_path.glob("*.png")}  # width, height
    assert len(sizes) == 4
    assert int.from_bytes(sizes["with"][:4]) > int.from_bytes(sizes["without"][:4])
