"""What LAMMPS does with several ranks: partitions, replicas, hybrid styles, restarts; that the exchange is
the transpose of itself; and that mistakes in it are noticed."""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.accuracy import within
from tests.engines.lammps import ranks, runs
from tests.engines.lammps.ranks import Case
from tests.engines.lammps.test_ranks import metal

TEST_PLUGIN = next(Path(__file__).parents[3].glob("build/cp3*/lammps_plugin/orbv3test.so"), None)
PACKAGE = Path(find_spec("orb_export._core").origin).parent
needs_test_plugin = pytest.mark.skipif(
    TEST_PLUGIN is None, reason="orbv3test.so was not built (ORB_EXPORT_TESTS)"
)

# forces of a test style that makes no mistake; the test of each mistake expects more than this
WRONG = 1e-6  # eV/A


def checked_cases() -> dict[str, Case]:
    """The exchange checks itself in every communication style."""
    cases = {}
    for tiled, newton, tilted in ((0, 1, 1), (0, 0, 0), (1, 1, 0), (1, 0, 1)):
        name, scheme = (("direct-120", "redundant"), ("conservative-20", "reverse"))[tilted]
        cases[f"{tiled}{newton}{tilted} {name}"] = Case(
            metal(bool(tilted)),
            name,
            f"check exchange {scheme}",
            (f"newton {'on' if newton else 'off'}", *(["comm_style tiled"] if tiled else [])),
            ("balance 0.9 rcb",) if tiled else (),
            style="orbv3/test",
        )
    return cases


def with_test_plugin(launch, cases, models, folder, n_ranks):
    load = [f"plugin load {TEST_PLUGIN}"]
    return ranks.run(launch, cases, models, folder, n_ranks, load, ORBV3_TEST_PACKAGE=str(PACKAGE))


@needs_test_plugin
@pytest.mark.parametrize("n_ranks", [2, 4])
def test_reverse_exchange_is_the_transpose_of_the_forward_one(n_ranks, models, stock_lmp, tmp_path):
    cases = checked_cases()
    found, printed = with_test_plugin(stock_lmp, cases, models, tmp_path, n_ranks)
    lines = re.findall(r"adjoint identity: (\d+) checks, worst (\S+)", printed)
    assert len(lines) == len(cases)
    for count, worst in lines:
        assert int(count) >= 2  # one before each layer but the first, which ranks know of each other
        assert within(
            "LAMMPS on several ranks, float64", "adjoint identity of the exchange", float(worst), 1e-13
        )
    for name, outcome in found.items():
        ranks.assert_predicted(outcome, models[cases[name].model])


@needs_test_plugin
def test_mistakes_in_the_exchange_are_noticed(models, stock_lmp, tmp_path):
    def case(mistake, model="conservative-20", scheme="reverse"):
        return Case(metal(), model, f"{mistake} exchange {scheme}", style="orbv3/test")

    cases = {
        "none": case("none"),
        "stale": case("stale"),
        "stale, direct": case("stale", "direct-20"),
        "stale, redundant": case("stale", scheme="redundant"),
        "sign": case("sign"),
        "sign, redundant": case("sign", scheme="redundant"),
    }
    found, _ = with_test_plugin(stock_lmp, cases, models, tmp_path, 2)
    for name, outcome in found.items():
        error = ranks.errors(outcome, models[cases[name].model])["forces"]
        assert (error > WRONG) == (name != "none"), f"{name}: {error}"


@needs_test_plugin
def test_a_wrong_limit_of_neighbors_stops_the_run(models, stock_lmp, tmp_path):
    case = Case(metal(), "conservative-20", "limits exchange redundant", style="orbv3/test")
    lines = [f"plugin load {TEST_PLUGIN}", *ranks.lines_of(case, models[case.model], tmp_path, "0")]
    done = stock_lmp("\n".join(lines), tmp_path, ranks=2, ORBV3_TEST_PACKAGE=str(PACKAGE))
    assert done.returncode != 0
    assert re.search(
        r"ranks found \d+ edges across their borders from one side and \d+ from the other", done.stdout
    )


def replicas(launch, folder, model, commands, *, n_replicas=2, n_ranks=2) -> list[ranks.Outcome]:
    """Worlds of `n_ranks` ranks, each with a structure of its own; what each ends with."""
    cases = []
    for k in range(n_replicas):
        atoms = metal()
        atoms.positions[5] += 0.05 * k
        cases.append(Case(atoms, "", before=("atom_modify map yes sort 0 0.0",)))
        for line in (lines := ranks.lines_of(cases[k], model, folder, str(k))):
            assert "universe" not in line
    # the scripts differ in the folder only
    script = "\n".join(line.replace(f"{folder}/{n_replicas - 1}", f"{folder}/${{world}}") for line in lines)
    script = script.replace("run 0", "\n".join(commands), 1).replace("clear\n", "", 1)
    worlds = " ".join(str(k) for k in range(n_replicas))
    done = launch(
        f"variable world world {worlds}\n{script}\n",
        folder,
        ranks=n_replicas * n_ranks,
        arguments=["-partition", f"{n_replicas}x{n_ranks}", "-screen", "none"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [ranks.read(case, folder / str(k)) for k, case in enumerate(cases)]


def assert_energy_is_predicted(outcome, model):
    # forces are those of the springs between replicas as well
    expected = ranks.predicted(outcome, model)
    assert abs(outcome.result.energy - expected.energy) / len(outcome.atoms) < ranks.ENERGY_BAR


def test_every_partition_is_a_system_of_its_own(model, stock_lmp, tmp_path):
    found = replicas(stock_lmp, tmp_path, model, ["run 0"])
    assert abs(found[0].result.energy - found[1].result.energy) > 1e-6
    for outcome in found:
        ranks.assert_predicted(outcome, model)
        assert set(outcome.owners) == {0, 1}


def test_path_integrals_of_replicas_on_two_ranks(model, stock_lmp, tmp_path):
    commands = [
        "velocity all create 300 5",
        "fix rings all pimd/langevin method nmpimd ensemble nvt integrator obabo temp 300 "
        "thermostat PILE_L 1234 tau 0.1",
        "run 5",
    ]
    found = replicas(stock_lmp, tmp_path, model, commands)
    assert not np.allclose(found[0].atoms.positions, found[1].atoms.positions)
    for outcome in found:
        assert_energy_is_predicted(outcome, model)


def test_nudged_elastic_band_of_replicas_on_two_ranks(model, stock_lmp, tmp_path):
    final = tmp_path / "final"
    start = metal()
    final.write_text("1\n6 " + " ".join(f"{x:.6f}" for x in start.positions[5] + [0.4, 0.1, 0.0]) + "\n")
    commands = [
        "fix band all neb 1.0",
        "min_style quickmin",
        "thermo 1",
        f"neb 0.0 1e-6 4 4 1 final {final}",
    ]
    found = replicas(stock_lmp, tmp_path, model, commands)
    for outcome in found:
        assert_energy_is_predicted(outcome, model)


def test_hybrid_styles_and_types_that_the_model_does_not_see(model, stock_lmp, tmp_path):
    atoms = metal()
    setup = runs.setup(atoms, tmp_path, before=("atom_modify map yes",))
    pair = [
        "pair_style hybrid/overlay orbv3 lj/cut 5.0",
        f"pair_coeff * * orbv3 {model} Ni NULL",
        "pair_coeff 1 1 lj/cut 0.01 2.4",
        "pair_coeff 1 2 lj/cut 0.02 2.4",
        "pair_coeff 2 2 lj/cut 0.03 2.4",
        "neighbor 0.3 bin",
        "compute virial all pressure NULL virial",
        "run 0",
    ]
    with runs.session() as lmp:
        lmp.commands_list([*setup, *pair])
        expected = runs.measure(lmp)
    case = Case(atoms, "")
    lines = ranks.lines_of(case, model, tmp_path, "0")
    first = next(k for k, line in enumerate(lines) if line.startswith("pair_style"))
    for k, n_ranks in enumerate((2, 3)):
        script = [*lines[:first], *pair[:5], *lines[first + 2 :]]
        done = stock_lmp("\n".join(script), tmp_path, ranks=n_ranks)
        assert done.returncode == 0, done.stdout
        actual = ranks.read(case, tmp_path / "0").result
        assert abs(actual.energy - expected.energy) < 1e-11 * len(atoms), k
        assert np.abs(actual.forces - expected.forces).max() < ranks.FORCE_BAR
        assert np.abs(actual.stress - expected.stress).max() < ranks.STRESS_BAR


def test_a_restart_file_moves_between_numbers_of_ranks(model, stock_lmp, tmp_path):
    restart = tmp_path / "file.restart"
    case = Case(metal(), "", "exchange redundant timing yes", run=("run 0", f"write_restart {restart}"))
    done = stock_lmp("\n".join(ranks.lines_of(case, model, tmp_path, "0")), tmp_path, ranks=2)
    assert done.returncode == 0, done.stdout
    expected = ranks.read(case, tmp_path / "0").result
    with runs.session() as lmp:
        lmp.commands_list([f"read_restart {restart}", "run 0"])
        runs.assert_same(runs.measure(lmp), expected)
    script = [f"read_restart {restart}", "run 0", f"write_dump all custom {tmp_path}/again id fx fy fz"]
    script[-1] += " modify sort id format float %.17g"
    done = stock_lmp("\n".join(script), tmp_path, ranks=3)
    assert done.returncode == 0, done.stdout
    assert "Orb-v3: 1 evaluations on 3 ranks, exchange redundant" in done.stdout  # settings are kept
    forces = np.loadtxt(tmp_path / "again", skiprows=9)[:, 1:]
    assert np.abs(forces - expected.forces).max() < ranks.FORCE_BAR


def test_a_short_cutoff_of_ghosts_is_raised_by_lammps(model, stock_lmp, tmp_path):
    cases = {"short": Case(metal(), "m", after=("comm_modify cutoff 3.0",))}
    found, printed = ranks.run(stock_lmp, cases, {"m": model}, tmp_path, 2)
    assert "Communication cutoff adjusted to 6.3" in printed
    ranks.assert_predicted(found["short"], model)


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_table_at_the_end_of_a_run(n_ranks, model, stock_lmp, tmp_path):
    case = Case(metal(), "m", "timing yes", run=("fix md all nve", "run 4"))
    _, printed = ranks.run(stock_lmp, {"run": case}, {"m": model}, tmp_path, n_ranks)
    assert f"Orb-v3: 5 evaluations on {n_ranks} ranks" in printed
    table = {
        name: [float(word) for word in words.split()]
        for name, words in re.findall(r"^  (\S.*?) {2,}([-+.\d\s]+)$", printed, re.MULTILINE)
    }
    assert table["own atoms"][1] * n_ranks == 48
    assert table["edges"][1] * n_ranks > 48 * 40
    assert table["model, s"][1] > 0.0
    assert table["katom-step/s"][0] > 0.0
    assert (table["atoms of other ranks"][1] > 0) == (n_ranks > 1)
    assert (table["exchange of rows, MB"][1] > 0) == (n_ranks > 1)
    assert (table["exchange of rows, calls"][1] > 6) == (n_ranks > 1)
    assert "exchange reverse" in printed or n_ranks == 1
