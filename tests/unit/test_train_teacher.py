"""The polynomial teacher of examples/mlearn_teacher.py and what it labels. Oracle: ASE's EMT for copper."""

import importlib.util
import itertools
import sys
from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

SCRIPT = Path(__file__).resolve().parents[2] / "examples/mlearn_teacher.py"
SPEC = importlib.util.spec_from_file_location("mlearn_teacher", SCRIPT)
mlearn_teacher = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mlearn_teacher)

LABELS = ("energy", "forces", "stress")


def labelled(atoms, group):
    atoms.calc = EMT()
    atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **{name: atoms.calc.results[name] for name in LABELS})
    atoms.info["group"] = group
    return atoms


def copper(count=40):
    """Strained and rattled copper, of two groups, with sheared cells."""
    rng = np.random.default_rng(0)
    frames = []
    for i in range(count):
        atoms = ase.build.bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.rattle(0.02 if i % 4 else 0.1, rng=rng)
        frames.append(labelled(atoms, "hot" if i % 4 == 0 else "cold"))
    return frames


def taken(frames, seed, count=12):
    return list(itertools.islice(mlearn_teacher.others(frames, EMT(), np.random.default_rng(seed)), count))


def test_other_structures_carry_labels_of_the_teacher_and_stay_in_the_range_of_the_frames():
    frames = copper()
    found = taken(frames, seed=1)
    assert {atoms.info["group"] for atoms in found} == {"hot of teacher", "cold of teacher"}
    shortest = min(mlearn_teacher.closest(frame) for frame in frames)
    strongest = max(np.abs(frame.get_forces()).max() for frame in frames)
    for atoms in found:
        again = atoms.copy()
        again.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(atoms.get_forces(), again.get_forces(), atol=1e-10)
        np.testing.assert_allclose(atoms.get_stress(), again.get_stress(), atol=1e-12)
        assert mlearn_teacher.closest(atoms) >= shortest
        assert np.abs(atoms.get_forces()).max() <= strongest
        assert all(np.abs(atoms.cell.array - frame.cell.array).max() > 1e-3 for frame in frames)


def test_the_seed_decides_which_structures():
    frames = copper(24)
    first, again, other = taken(frames, 1), taken(frames, 1), taken(frames, 2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        assert np.abs(a.positions - c.positions).max() > 1e-3


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["teacher", *map(str, arguments)])
    mlearn_teacher.main()


def test_the_command_passes_its_options_on(tmp_path, monkeypatch, capsys):
    fits = []

    def fit(frames, *, with_stress):
        fits.append((len(frames), with_stress))
        return EMT()

    monkeypatch.setattr(mlearn_teacher, "Polynomial", fit)
    train, test, output = (tmp_path / name for name in ("train.xyz", "test.xyz", "out.xyz"))
    frames = copper(20)
    write(train, frames)
    write(test, frames[:3])
    run(monkeypatch, train, "-o", output, "--structures", 5, "--test", test)
    printed = capsys.readouterr().out
    assert "held out: 0.00 meV/atom, 0.0000 eV/Å (2 structures)" in printed
    assert f"{test}: 0.00 meV/atom, 0.0000 eV/Å (3 structures)" in printed
    first = read(output, ":")
    assert len(first) == 5
    write(train, [without_stress(frame) for frame in frames])
    run(monkeypatch, train, "-o", output, "--structures", 5, "--seed", 2, "--drop-stress")
    assert fits == [(20, True), (20, False)]
    assert np.abs(read(output, 0).positions - first[0].positions).max() > 1e-3


@pytest.mark.filterwarnings("ignore:symbol_map:DeprecationWarning")  # of phonopy, by pypolymlp
@pytest.mark.parametrize("with_stress", [True, False])
def test_a_fitted_polynomial_has_energies_forces_and_stresses_of_what_it_was_fitted_to(with_stress):
    pytest.importorskip("pypolymlp", reason="needs pypolymlp, which has no wheels")
    frames = copper(120)
    if not with_stress:  # which must not be looked at
        for frame in frames:
            frame.calc.results["stress"] = -frame.calc.results["stress"]
    teacher = mlearn_teacher.Polynomial(frames, with_stress=with_stress)
    found = taken(copper(40), seed=1)
    fitted = [atoms.copy() for atoms in found]
    for atoms in fitted:
        atoms.calc = teacher
    for values in (energies_per_atom, forces, stresses):
        expected = values(found)
        error = np.sqrt(np.mean((values(fitted) - expected) ** 2)) / np.std(expected)
        # found: at most 0.019; stresses rolled by a component would have 1.0
        assert error < 0.05, values.__name__


def energies_per_atom(structures):
    return np.array([atoms.get_potential_energy() / len(atoms) for atoms in structures])


def forces(structures):
    return np.concatenate([atoms.get_forces() for atoms in structures])


def stresses(structures):
    return np.array([atoms.get_stress() for atoms in structures])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frames: frames[:5], "holds 5 structures: 20 are the least"),
        (lambda frames: [*frames, labelled(ase.build.bulk("Al", cubic=True), "")], "holds Al, Cu: one file"),
        (lambda frames: [*frames, without_stress(frames[0])], "without stress: give --drop-stress"),
        (lambda frames: [*frames, frames[0].copy()], "holds structures without energy"),
        (lambda frames: [*frames, without_periods(frames[0])], "not periodic along all three axes"),
    ],
)
def test_structures_that_are_not_fitted_to_are_named(tmp_path, monkeypatch, capsys, change, message):
    write(tmp_path / "train.xyz", change(copper(20)))
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path / "train.xyz", "-o", tmp_path / "out.xyz")
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.xyz").exists()


def test_a_number_of_structures_below_one_is_named(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "a.xyz", "-o", "b.xyz", "--structures", 0)
    assert "--structures is 0: 1 is the least" in capsys.readouterr().err


def without_stress(frame):
    atoms = frame.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=frame.get_potential_energy(), forces=frame.get_forces())
    return atoms


def without_periods(frame):
    atoms = frame.copy()
    atoms.pbc = False
    return labelled(atoms, "")
