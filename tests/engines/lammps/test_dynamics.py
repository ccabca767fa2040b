"""Runs of many steps; energy, forces and virial of the last are what Python gives for the atoms then."""

import numpy as np
import orb_export
import pytest
from ase import Atoms
from ase.data import atomic_numbers

from tests.artefacts import without_steps
from tests.engines.lammps import runs
from tests.engines.lammps.structures import CASES

VIRIAL = "compute virial all pressure NULL virial"


def snapshot(lmp, symbols: list[str]) -> Atoms:
    """The atoms of a LAMMPS instance; `symbols` by type."""
    low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
    (lx, ly, lz) = np.subtract(high, low)
    n = lmp.extract_global("nlocal")
    order = np.argsort(lmp.numpy.extract_atom("id")[:n])
    numbers = [atomic_numbers[symbols[kind - 1]] for kind in lmp.numpy.extract_atom("type")[:n][order]]
    cell = np.array([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]])
    positions = lmp.numpy.extract_atom("x")[:n][order]
    return Atoms(numbers, positions, cell=cell if any(periodic) else None, pbc=np.array(periodic, bool))


def assert_last_step_is_predicted(lmp, model, symbols: list[str]) -> None:
    atoms = snapshot(lmp, symbols)
    expected = orb_export.load(model).predict(atoms)
    n = lmp.extract_global("nlocal")
    order = np.argsort(lmp.numpy.extract_atom("id")[:n])
    pressure = lmp.numpy.extract_compute("virial", 0, 1)  # xx yy zz xy xz yz
    actual = runs.Result(
        lmp.get_thermo("pe"),
        lmp.numpy.extract_atom("f")[:n][order],
        -pressure[[0, 1, 2, 5, 4, 3]] / runs.PRESSURE_UNIT["metal"],
    )
    runs.assert_same(
        actual, runs.Result(*(expected[k] for k in ("energy", "forces", "stress"))), atoms.pbc.any()
    )


def start(lmp, atoms, model, folder, before=()):
    lmp.commands_list(runs.setup(atoms, folder, before=before))
    lmp.commands_list(
        [*runs.pair(model, atoms), "neighbor 0.5 bin", "neigh_modify every 1 delay 0 check yes"]
    )
    lmp.commands_list(
        [VIRIAL, "thermo_style custom step pe ke etotal press vol c_virial[*]", "timestep 0.0005"]
    )


RUNS = {
    "nve with rebuilt lists and sorted atoms": (
        "crystal",
        ["velocity all create 2000 5", "fix md all nve", "run 60"],
    ),
    "npt of a tilted box": (
        "triclinic with large tilt",
        ["velocity all create 300 5", "fix md all npt temp 300 300 0.05 tri 0 0 0.5", "run 30"],
    ),
    "deformed box": (
        "crystal",
        [
            "change_box all triclinic",
            "fix md all nve",
            "fix tilt all deform 1 xy erate 5 remap x",
            "run 30",
            "unfix tilt",  # it changes the box after the last forces
            "run 0",
        ],
    ),
    "minimize": ("crystal", ["minimize 0 1e-4 50 200"]),
    "box/relax": (
        "crystal",
        ["fix relax all box/relax aniso 0.0 vmax 0.002", "minimize 1e-12 1e-6 20 60"],
    ),
    "atoms deleted": (
        "crystal",
        ["run 0", "group odd id 1 3 7", "delete_atoms group odd compress no", "run 1"],
    ),
    "atoms deposited": (
        "slab open in z",
        [
            "change_box all z final -3 14",
            "region top block 1 6 1 6 8.8 10",
            "fix md all nve",
            "fix new all deposit 3 1 4 77 region top near 1.0",
            "run 20",
        ],
    ),
    "atoms evaporated": (
        "crystal",
        ["region part block 0 3 INF INF INF INF", "fix gone all evaporate 5 1 part 7", "run 20"],
    ),
    "r-respa with the pair style as one level": (
        "crystal",
        ["velocity all create 300 5", "fix md all nve", "run_style respa 2 2 improper 1 pair 2", "run 20"],
    ),
    "shrink-wrapped molecule": ("molecule", ["velocity all create 300 5", "fix md all nve", "run 40"]),
    "two runs and a replicated box": (
        "crystal",
        ["velocity all create 300 5", "fix md all nve", "run 10", "replicate 1 2 1", "run 10"],
    ),
}


@pytest.mark.parametrize("name", ["conservative-20", "direct-120"])
@pytest.mark.parametrize("run", RUNS)
def test_last_step_is_what_python_gives(run, name, models, tmp_path):
    case, commands = RUNS[run]
    atoms = CASES[case]
    symbols = runs.elements(atoms)
    with runs.session() as lmp:
        start(lmp, atoms, models[name], tmp_path, before=["atom_modify map yes sort 5 3.0"])
        lmp.commands_list(commands)
        assert_last_step_is_predicted(lmp, models[name], symbols)


def test_deposit_and_evaporate_change_the_number_of_atoms(model, tmp_path):
    # the two cases above would prove little if nothing happened
    for run, change in {"atoms deposited": +3, "atoms evaporated": -4, "atoms deleted": -3}.items():
        case, commands = RUNS[run]
        with runs.session() as lmp:
            start(lmp, CASES[case], model, tmp_path)
            lmp.commands_list(commands)
            assert lmp.get_natoms() - len(CASES[case]) == change, run


def test_no_atoms_have_no_energy(model, tmp_path):
    with runs.session() as lmp:
        start(lmp, CASES["crystal"], model, tmp_path)
        lmp.commands_list(["delete_atoms group all", "run 1"])
        assert lmp.get_thermo("pe") == 0.0


def test_energy_error_of_nve_falls_with_the_square_of_the_time_step(model, tmp_path):
    """A property of velocity Verlet with forces that are the gradient of the energy."""

    def error(timestep: float, steps: int) -> float:
        with runs.session() as lmp:
            start(lmp, CASES["crystal"], model, tmp_path)
            lmp.commands_list(
                ["velocity all create 600 9", "fix md all nve", f"timestep {timestep}", "run 0"]
            )
            first, worst = lmp.get_thermo("etotal"), 0.0
            for _ in range(20):
                lmp.command(f"run {steps // 20} pre no")
                worst = max(worst, abs(lmp.get_thermo("etotal") - first))
            return worst

    assert 3.5 < error(0.002, 100) / error(0.001, 200) < 4.5


def test_minimize_goes_down_the_gradient(model, tmp_path):
    with runs.session() as lmp:
        start(lmp, CASES["crystal"], model, tmp_path)
        lmp.command("run 0")
        energy = lmp.get_thermo("pe")
        lmp.command("minimize 0 1e-8 20 100")  # random weights have no minimum worth the name
        assert lmp.get_thermo("pe") < energy - 0.1


MOTION = ["velocity all create 300 5", "fix md all nve"]


def test_restart_continues_the_same_trajectory(model, tmp_path):
    atoms, restart = CASES["triclinic with large tilt"], tmp_path / "run.restart"
    with runs.session() as lmp:
        start(lmp, atoms, model, tmp_path)
        lmp.commands_list([*MOTION, "run 10", f"write_restart {restart}", "run 10"])
        expected = runs.gathered(lmp, "x", 3)
    with runs.session() as lmp:
        lmp.commands_list(
            [f"read_restart {restart}", "neighbor 0.5 bin", "timestep 0.0005", "fix md all nve", "run 10"]
        )
        actual = runs.gathered(lmp, "x", 3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def test_restart_keeps_every_setting(models, tmp_path, capfd):
    atoms, restart = CASES["molecule"], tmp_path / "run.restart"
    keywords = "charge 1 spin 2 threads 1 device cpu skin 2.5 memory 2"
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, tmp_path))
        lmp.commands_list(
            [*runs.pair(models["charged"], atoms, keywords), "run 0", f"write_restart {restart}"]
        )
        expected = runs.measure(lmp)
    with runs.session() as lmp:
        lmp.commands_list([f"read_restart {restart}", "run 0"])
        runs.assert_same(runs.measure(lmp), expected)
        with pytest.raises(Exception, match=r"skin 2.5 is smaller than the 3"):
            lmp.commands_list(["neighbor 3.0 bin", "run 0"])


def test_restart_keeps_the_memory_limit(model, tmp_path):
    atoms, restart = CASES["crystal"], tmp_path / "run.restart"
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, tmp_path))
        lmp.commands_list([*runs.pair(model, atoms, "memory 1e-7"), f"write_restart {restart}"])
    with runs.session() as lmp:
        lmp.command(f"read_restart {restart}")
        with pytest.raises(Exception, match="`memory_limit` is 100 bytes but"):
            lmp.command("run 0")


def test_restart_keeps_the_choice_of_program(models, tmp_path):
    """A model without steps, in the place of the one that the restart file was written with."""
    atoms, restart = CASES["crystal"], tmp_path / "run.restart"
    moved, whole = tmp_path / "moved.pt", tmp_path / "whole.pt"
    moved.write_bytes(models["conservative-20"].read_bytes())
    without_steps(moved, whole)
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, tmp_path))
        lmp.commands_list([*runs.pair(moved, atoms, "program steps"), f"write_restart {restart}"])
    moved.unlink()
    with runs.session() as lmp:
        lmp.command(f"read_restart {restart}")
        with pytest.raises(Exception, match=r"`program` is `steps`, which .*whole\.pt` does not have"):
            lmp.command(f"pair_coeff * * {whole} Na Cl")


def restart_file(model, folder):
    restart = folder / "run.restart"
    with runs.session() as lmp:
        start(lmp, CASES["crystal"], model, folder)
        lmp.commands_list(["run 0", f"write_restart {restart}"])
    return restart


def test_restart_without_its_model_asks_for_one(models, tmp_path, capfd):
    moved = tmp_path / "moved.pt"
    moved.write_bytes(models["conservative-20"].read_bytes())
    restart = restart_file(moved, tmp_path)
    moved.unlink()
    with runs.session(screen=True) as lmp:
        lmp.command(f"read_restart {restart}")
        with pytest.raises(Exception, match="All pair coeffs are not set"):
            lmp.command("run 0")
        lmp.commands_list([f"pair_coeff * * {models['conservative-20']} Na Cl", "run 0"])
    printed = capfd.readouterr().out
    assert f"The model of the restart file is not at {moved}: pair_coeff must name it again" in printed
    assert "written with another model" not in printed


def test_restart_with_an_exchanged_model_is_noticed(models, tmp_path, capfd):
    file = tmp_path / "model.pt"
    file.write_bytes(models["conservative-20"].read_bytes())
    restart = restart_file(file, tmp_path)
    file.write_bytes(models["conservative-120"].read_bytes())
    with runs.session(screen=True) as lmp:
        lmp.command(f"read_restart {restart}")
        with pytest.raises(Exception, match="All pair coeffs are not set"):
            lmp.command("run 0")
        lmp.commands_list([f"pair_coeff * * {file} Na Cl", "run 0"])
    printed = capfd.readouterr().out
    assert f"The model at {file} is not that of the restart file (SHA-256 " in printed
    assert f"The restart file was written with another model than {file}" in printed


def test_restart_of_a_hybrid_style(model, tmp_path):
    restart = tmp_path / "run.restart"
    coefficients = [f"pair_coeff * * orbv3 {model} Na Cl", "pair_coeff * * lj/cut 0.01 2.5"]
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(CASES["crystal"], tmp_path))
        lmp.commands_list(["pair_style hybrid/overlay orbv3 threads 1 lj/cut 5.0", *coefficients, "run 0"])
        lmp.command(f"write_restart {restart}")
        expected = runs.measure(lmp)
    with runs.session() as lmp:
        lmp.commands_list([f"read_restart {restart}", *coefficients, "run 0"])
        runs.assert_same(runs.measure(lmp), expected)


def test_data_file_written_by_lammps_gives_the_same(model, tmp_path):
    atoms, data = CASES["triclinic with large tilt"], tmp_path / "written.data"
    with runs.session() as lmp:
        start(lmp, atoms, model, tmp_path)
        lmp.commands_list(["run 0", f"write_data {data}"])
        expected = runs.measure(lmp)
    with runs.session() as lmp:
        lmp.commands_list(
            ["units metal", "atom_style atomic", f"read_data {data}", *runs.pair(model, atoms), "run 0"]
        )
        runs.assert_same(runs.measure(lmp), expected)


def test_clear_and_a_second_instance(model, tmp_path):
    with runs.session() as lmp:
        results = []
        for _ in range(2):
            start(lmp, CASES["crystal"], model, tmp_path)
            lmp.command("run 0")
            results.append(runs.measure(lmp))
            with runs.session() as other:
                start(other, CASES["molecule"], model, tmp_path)
                other.command("run 0")
            lmp.command("clear")
        runs.assert_same(*results)
