"""Expected force errors in LAMMPS, against those of Python, and what `uncertainty` does about large ones."""

import re

import numpy as np
import orb_export
import pytest
from ase.io import read
from orb_export.contract import CONFIDENCE_BINS, CONFIDENCE_MAX_ERROR

from tests.accuracy import within
from tests.engines.lammps import runs
from tests.engines.lammps.structures import CASES

ATOMS = CASES["triclinic with large tilt"]
MOTION = ["velocity all create 300 5", "fix md all nve", "timestep 0.0005"]


def expected_errors(atoms, model) -> np.ndarray:
    """(N,) eV/A, by the midpoints of the bins."""
    midpoints = (np.arange(CONFIDENCE_BINS) + 0.5) * CONFIDENCE_MAX_ERROR / CONFIDENCE_BINS
    return orb_export.load(model).predict(atoms)["confidence"] @ midpoints


def start(lmp, model, folder, keywords="", units="metal", atoms=ATOMS, extra=()):
    lmp.commands_list(runs.setup(atoms, folder, units=units, before=["atom_modify map yes"]))
    lmp.commands_list([*runs.pair(model, atoms, keywords), *extra])


def by_id(lmp, values) -> np.ndarray:
    n = lmp.extract_global("nlocal")
    return values[:n][np.argsort(lmp.numpy.extract_atom("id")[:n])]


@pytest.mark.parametrize("units", ["metal", "real"])
@pytest.mark.parametrize("name", ["conservative-20", "direct-120"])
def test_expected_errors_are_those_of_python(name, units, models, tmp_path):
    expected = expected_errors(runs.turned(ATOMS), models[name])
    assert np.ptp(expected) > 1e-3
    with runs.session() as lmp:
        extra = [
            "group some id 2 5 7",
            "compute error all orbv3/confidence",
            "compute part some orbv3/confidence",
            "fix error all pair 1 orbv3 confidence 0",
            "thermo_style custom step c_error c_error[*] c_part c_part[*]",
        ]
        start(lmp, models[name], tmp_path, units=units, extra=[*extra, "run 0"])
        unit = runs.ENERGY_UNIT[units]
        computed = by_id(lmp, lmp.numpy.extract_compute("error", 1, 1)) / unit
        fixed = by_id(lmp, lmp.numpy.extract_fix("error", 1, 1)) / unit
        part = by_id(lmp, lmp.numpy.extract_compute("part", 1, 1)) / unit
        scalars = [lmp.extract_compute(name, 0, 0) / unit for name in ("error", "part")]
        vectors = [lmp.numpy.extract_compute(name, 0, 1) / unit for name in ("error", "part")]
    assert within("LAMMPS and Python, float64", "expected error", np.abs(computed - expected).max(), 1e-12)
    np.testing.assert_array_equal(fixed, computed)
    some = np.isin(np.arange(len(ATOMS)) + 1, [2, 5, 7])
    np.testing.assert_array_equal(part, np.where(some, computed, 0.0))
    for chosen, scalar, vector in zip((computed, computed[some]), scalars, vectors, strict=True):
        np.testing.assert_allclose(vector, [chosen.max(), chosen.mean()], rtol=1e-14)
        assert scalar == vector[0]


def test_atoms_that_the_model_does_not_see_have_no_error(model, tmp_path):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(ATOMS, tmp_path))
        lmp.commands_list(["pair_style hybrid/overlay orbv3 zero 6.0", "pair_coeff * * zero"])
        lmp.commands_list([f"pair_coeff * * orbv3 {model} Si NULL", "compute error all orbv3/confidence"])
        lmp.commands_list(["thermo_style custom step c_error c_error[2]", "run 0"])
        errors = by_id(lmp, lmp.numpy.extract_compute("error", 1, 1))
        mean = lmp.numpy.extract_compute("error", 0, 1)[1]
    seen = ATOMS.symbols == "Si"
    assert (errors[~seen] == 0).all()
    assert (errors[seen] > 0).all()
    assert mean == pytest.approx(errors[seen].mean(), rel=1e-14)


def test_compute_names_one_of_two_styles(models, tmp_path):
    names = ["conservative-20", "conservative-120"]
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(ATOMS, tmp_path))
        lmp.command("pair_style hybrid/overlay orbv3 orbv3")
        for k, name in enumerate(names, start=1):
            symbols = " ".join(runs.elements(ATOMS))
            lmp.commands_list([f"pair_coeff * * orbv3 {k} {models[name]} {symbols}"])
            lmp.command(f"compute e{k} all orbv3/confidence {k}")
        lmp.commands_list(["thermo_style custom step c_e1 c_e2", "run 0"])
        for k, name in enumerate(names, start=1):
            expected = expected_errors(runs.turned(ATOMS), models[name])
            np.testing.assert_allclose(lmp.extract_compute(f"e{k}", 0, 0), expected.max(), rtol=1e-10)
        with pytest.raises(Exception, match="finds no pair style orbv3, or several in a hybrid style"):
            lmp.commands_list(["compute both all orbv3/confidence", "run 0"])


def test_compute_needs_forces_of_the_step(model, tmp_path):
    with runs.session() as lmp:
        start(lmp, model, tmp_path, extra=["compute error all orbv3/confidence", "run 0"])
        lmp.commands_list(["reset_timestep 5", "variable error equal c_error"])
        with pytest.raises(Exception, match="orbv3/confidence needs forces of the current step"):
            lmp.extract_variable("error")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("0 warn", "uncertainty is 0 but must be positive"),
        ("0.1 stop", "uncertainty action is stop but must be warn, error, halt or dump"),
        ("0.1 dump", "Illegal pair_style orbv3 uncertainty X dump command: missing argument"),
        ("0.1", "Illegal pair_style orbv3 uncertainty command: missing argument"),
    ],
)
def test_wrong_rules_are_refused(arguments, message, tmp_path):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(ATOMS, tmp_path))
        with pytest.raises(Exception, match=re.escape(message)):
            lmp.command(f"pair_style orbv3 uncertainty {arguments}")


@pytest.mark.parametrize("words", ["0", "x y"])
def test_wrong_arguments_of_the_compute_are_refused(words, tmp_path):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(ATOMS, tmp_path))
        with pytest.raises(Exception, match=r"ompute orbv3/confidence (index is 0|argument: y)"):
            lmp.command(f"compute error all orbv3/confidence {words}")


def thresholds(atoms, model) -> tuple[np.ndarray, np.ndarray, float]:
    """IDs by falling error, the errors, and a threshold that two atoms are above."""
    errors = expected_errors(runs.turned(atoms), model)
    order = np.argsort(-errors)
    return order + 1, errors[order], errors[order][1:3].mean()


def test_error_names_the_worst_atoms(model, tmp_path):
    ids, errors, threshold = thresholds(ATOMS, model)
    text = f"the atoms with ID {ids[0]} ({errors[0]:.3g}), {ids[1]} ({errors[1]:.3g})"
    with runs.session() as lmp:
        start(lmp, model, tmp_path, f"uncertainty {threshold:.9f} error")
        with pytest.raises(Exception, match=re.escape(text) + r" \("):
            lmp.command("run 0")
    with runs.session() as lmp:
        start(lmp, model, tmp_path, f"uncertainty {0.99 * errors[-1]:.9f} error")
        named = ", ".join(f"{i} ({e:.3g})" for i, e in zip(ids[:5], errors[:5], strict=True))
        with pytest.raises(Exception, match=re.escape(f"{named} and {len(ATOMS) - 5} more")):
            lmp.command("run 0")


def test_a_threshold_that_is_not_reached_changes_nothing(model, tmp_path, capfd):
    largest = thresholds(ATOMS, model)[1][0]
    with runs.session(screen=True) as lmp:
        start(lmp, model, tmp_path, f"uncertainty {1.001 * largest:.9f} error", extra=["run 0"])
    assert "expected force error" not in capfd.readouterr().out


def test_warning_once_a_step_in_force_units(model, tmp_path, capfd):
    threshold = thresholds(ATOMS, model)[2] * runs.ENERGY_UNIT["real"]
    with runs.session(screen=True) as lmp:
        start(lmp, model, tmp_path, f"uncertainty {threshold:.9f} warn", units="real")
        lmp.commands_list(["fix md all nve", "timestep 0.01", "run 2", "run 0"])
    printed = capfd.readouterr().out
    assert len(re.findall(r"WARNING: .*expected force error is above [\d.]+ kcal/mol/Angstrom", printed)) == 3


def test_halt_ends_the_run_with_its_last_frame(stock_lmp, model, tmp_path):
    threshold = thresholds(ATOMS, model)[2]
    script = [
        *runs.setup(ATOMS, tmp_path),
        *runs.pair(model, ATOMS, "uncertainty 10 halt"),
        *MOTION,
        "thermo 100",
        "dump frames all custom 100 frames.txt id x y z",
        "restart 100 frames.restart",
        "run 3",
        # the threshold falls below the errors that are there after a run has begun
        f"pair_style orbv3 uncertainty {threshold:.9f} halt",
        f"pair_coeff * * {model} {' '.join(runs.elements(ATOMS))}",
        "run 50 post no",
        "print 'ended at $(step)'",
        "run 10 post no",
        "print 'stays at $(step)'",
    ]
    done = stock_lmp("\n".join(script), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # the first evaluation of a run is above: nothing is to be written, and no step is made
    assert "ended at 3\n" in done.stdout
    assert "stays at 3\n" in done.stdout
    assert done.stdout.count("the run ends here") == 1


def test_halt_in_a_run_writes_thermo_dump_and_restart(stock_lmp, models, tmp_path):
    """Errors that pass the threshold later, since a strong push heats the atoms."""
    model = models["conservative-120"]
    errors = [expected_errors(runs.turned(ATOMS), model).max()]
    commands = [*runs.setup(ATOMS, tmp_path, before=["atom_modify map yes"]), *runs.pair(model, ATOMS)]
    with runs.session() as lmp:
        lmp.commands_list([*commands, "velocity all create 20000 5", *MOTION[1:]])
        lmp.commands_list(["compute error all orbv3/confidence", "thermo_style custom step c_error", "run 0"])
        for _ in range(12):
            lmp.command("run 1 pre no")
            errors.append(lmp.extract_compute("error", 0, 0))
    first = next(k for k in range(2, 12) if errors[k] > max(errors[:k]))
    threshold = (errors[first] + max(errors[:first])) / 2
    script = [
        *runs.setup(ATOMS, tmp_path),
        *runs.pair(model, ATOMS, f"uncertainty {threshold:.12f} halt"),
        "velocity all create 20000 5",
        *MOTION[1:],
        "thermo_style custom step pe press",
        "thermo 100",
        "dump frames all custom 100 frames.txt id x y z",
        "restart 100 frames.*.restart",
        "run 50 post no",
        "print 'ended at $(step)'",
    ]
    done = stock_lmp("\n".join(script), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"at step {first} the expected force error is above" in done.stdout
    assert f"ended at {first + 1}\n" in done.stdout
    assert re.search(rf"^\s+{first + 1}\s+-?\d", done.stdout, re.MULTILINE), "no thermodynamic output"
    frames = (tmp_path / "frames.txt").read_text()
    assert re.findall(r"TIMESTEP\n(\d+)", frames) == ["0", str(first + 1)]
    assert (tmp_path / f"frames.{first + 1}.restart").is_file()


def test_halt_ends_a_minimization(model, tmp_path, capfd):
    threshold = thresholds(ATOMS, model)[2]
    with runs.session(screen=True) as lmp:
        start(lmp, model, tmp_path, f"uncertainty {threshold:.9f} halt")
        lmp.command("minimize 0 1e-9 50 100")
        assert lmp.extract_global("ntimestep") < 3
    assert "the run ends here" in capfd.readouterr().out


def test_dump_writes_the_frames_above_the_threshold(model, tmp_path):
    threshold = thresholds(ATOMS, model)[2]
    file = tmp_path / "frames.xyz"
    with runs.session() as lmp:
        start(lmp, model, tmp_path, f"uncertainty {threshold:.9f} dump {file} uncertainty 9 halt")
        lmp.commands_list(["fix md all nve", "timestep 0.0001", "run 2"])
    frames = read(file, ":")
    assert [frame.info["step"] for frame in frames] == [0, 1, 2]
    turned = runs.turned(ATOMS)
    np.testing.assert_allclose(frames[0].cell.array, turned.cell.array, atol=1e-10)
    assert (frames[0].pbc == ATOMS.pbc).all()
    assert frames[0].get_chemical_symbols() == ATOMS.get_chemical_symbols()
    away = frames[0].positions - turned.positions
    np.testing.assert_allclose(away - np.round(away @ np.linalg.inv(turned.cell)) @ turned.cell, 0, atol=1e-9)
    np.testing.assert_allclose(
        frames[0].arrays["expected_force_error"], expected_errors(turned, model), rtol=1e-5
    )
    again = orb_export.load(model).predict(frames[2])
    assert np.isfinite(again["energy"])


def test_dump_into_a_folder_that_is_not_there(model, tmp_path):
    with runs.session() as lmp:
        start(lmp, model, tmp_path, f"uncertainty 1e-6 dump {tmp_path}/none/frames.xyz")
        with pytest.raises(Exception, match=r"cannot write .*frames.xyz: No such file"):
            lmp.command("run 0")


def test_restart_keeps_the_rules(model, tmp_path):
    threshold = thresholds(ATOMS, model)[2]
    with runs.session() as lmp:
        start(lmp, model, tmp_path, f"uncertainty 99 dump none.xyz uncertainty {threshold:.9f} error")
        lmp.command(f"write_restart {tmp_path}/run.restart")
    with runs.session() as lmp:
        lmp.command(f"read_restart {tmp_path}/run.restart")
        with pytest.raises(Exception, match="expected force error is above"):
            lmp.command("run 0")
