"""The pair style by the scheme of LAMMPS's own tests: stored energies, virials, forces; every way to a run.

The reference values are of LAMMPS; those of the first step are held to Python as well.
"""

from pathlib import Path

import numpy as np
import orb_export
import pytest
from ase import Atoms
from ase.data import atomic_masses

from tests.engines.lammps import runs, yaml_cases
from tests.engines.lammps.test_examples import demo  # noqa: F401 (a fixture)

FILES = sorted((Path(__file__).parent / "yaml").glob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request) -> Path:
    return request.param


@pytest.fixture
def case(file, monkeypatch, request) -> yaml_cases.Case:
    monkeypatch.chdir(file.parent)
    case = yaml_cases.load(file)
    if request.node.originalname.removeprefix("test_") in case.skip_tests:
        pytest.skip(f"skip_tests of {file.name}")
    return case


@pytest.mark.parametrize("newton", [True, False], ids=["newton on", "newton off"])
def test_zero_and_four_steps(newton, case, demo):  # noqa: F811
    with runs.session() as lmp:
        yaml_cases.start(lmp, case, demo, newton=newton)
        assert lmp.get_natoms() == case.natoms
        yaml_cases.assert_equal(yaml_cases.measure(lmp), case.init, case.epsilon)
        yaml_cases.four_steps(lmp)
        yaml_cases.assert_equal(yaml_cases.measure(lmp), case.run, 5 * case.epsilon)
    # else every way would be compared with the wrong thing
    assert np.abs(case.run.forces - case.init.forces).max() > 100 * case.epsilon


def test_nofdotr(case, demo):  # noqa: F811
    case.post_commands.append("pair_modify nofdotr")
    with runs.session() as lmp:
        yaml_cases.start(lmp, case, demo)
        yaml_cases.assert_equal(yaml_cases.measure(lmp), case.init, case.epsilon)


def test_restart(case, demo, tmp_path):  # noqa: F811
    with runs.session() as lmp:
        yaml_cases.start(lmp, case, demo)
        lmp.commands_list([f"write_restart {tmp_path}/case.restart", "clear"])
        lmp.command(f"read_restart {tmp_path}/case.restart")
        if case.pair_style.startswith("hybrid"):
            yaml_cases.coefficients(lmp, case, demo)
        yaml_cases.assert_equal(yaml_cases.measure(lmp), case.init, case.epsilon)


def test_data_file(case, demo, tmp_path):  # noqa: F811
    with runs.session() as lmp:
        yaml_cases.start(lmp, case, demo)
        lmp.commands_list([f"write_data {tmp_path}/case.data", "clear", "variable data_file delete"])
        case.pre_commands = [line for line in case.pre_commands if "data_file" not in line]
        yaml_cases.start(lmp, case, demo, data_file=tmp_path / "case.data")
        yaml_cases.assert_equal(yaml_cases.measure(lmp), case.init, case.epsilon)


def test_extract(case, demo):  # noqa: F811
    with runs.session() as lmp:
        yaml_cases.start(lmp, case, demo)
        for line in case.extract:
            name, dimension = line.split()
            assert lmp.extract_pair_dimension(name) == int(dimension)
            assert lmp.extract_pair(name) is not None
        assert lmp.extract_pair_dimension("none of these") is None


def test_first_step_is_that_of_python(case, demo):  # noqa: F811
    with runs.session() as lmp:
        yaml_cases.start(lmp, case, demo)
        low, high, xy, yz, xz, _, _ = lmp.extract_box()
        (lx, ly, lz) = np.subtract(high, low)
        masses = lmp.numpy.extract_atom("mass")
        order = np.argsort(lmp.numpy.extract_atom("id")[: case.natoms])
        numbers = [np.abs(atomic_masses - masses[k]).argmin() for k in lmp.numpy.extract_atom("type")[order]]
        positions = lmp.numpy.extract_atom("x")[order]
        unit = runs.ENERGY_UNIT[lmp.extract_global("units")]
    atoms = Atoms(numbers, positions, cell=[[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]], pbc=True)
    expected = orb_export.load(demo).predict(atoms)
    virial = -atoms.get_volume() * expected["stress"][[0, 1, 2, 5, 4, 3]]
    state = yaml_cases.State(unit * float(expected["energy"]), 0.0, unit * virial, unit * expected["forces"])
    yaml_cases.assert_equal(case.init, state, 1e-9)


def test_unknown_keys_are_refused(file, tmp_path):
    changed = tmp_path / "case.yaml"
    changed.write_text(file.read_text().replace("natoms:", "atoms: 3\nnatoms:"))
    with pytest.raises(ValueError, match=r"\['atoms'\] are no keys"):
        yaml_cases.load(changed)
