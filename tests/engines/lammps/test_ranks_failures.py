"""Whatever fails on one rank, and wherever, all ranks of that LAMMPS stop with its message, and only they.

All cases are one start of mpiexec each for the number of ranks; mpi4py makes the communicators.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import orb_export
import pytest
from ase.io import read

from tests.engines.lammps import on_ranks, runs
from tests.engines.lammps.on_ranks import Case
from tests.engines.lammps.ranks import FORCE_BAR
from tests.engines.lammps.test_ranks import metal

TEST_PLUGIN = next(Path(__file__).parents[3].glob("build/cp3*/lammps_plugin/orbv3test.so"), None)
PACKAGE = Path(find_spec("orb_export._core").origin).parent
HOT = ["velocity all create 20000 6", "fix md all nve", "timestep 0.0005"]
OUTPUT = ["dump frames all custom 100 frames.txt id x y z", "restart 100 frames.*.restart", "thermo 100"]


def commands(atoms, model, folder, keywords="", style="orbv3"):
    folder.mkdir(exist_ok=True)
    pair = [f"pair_style {style} {keywords}", f"pair_coeff * * {model} {' '.join(runs.elements(atoms))}"]
    return [*runs.setup(atoms, folder, before=["atom_modify map yes"]), *pair, "neighbor 0.3 bin"]


def largest_errors(atoms, model, folder, steps) -> list[float]:
    """The largest expected force error before the first step and after each."""
    errors = []
    with runs.session() as lmp:
        lmp.commands_list([*commands(atoms, model, folder), *HOT, "compute error all orbv3/confidence"])
        lmp.commands_list(["thermo_style custom step c_error", "thermo 1", "run 0 post no"])
        errors.append(lmp.extract_compute("error", 0, 0))
        for _ in range(steps):
            lmp.command("run 1 pre no post no")
            errors.append(lmp.extract_compute("error", 0, 0))
    return errors


@pytest.fixture(scope="module")
def passing(models, tmp_path_factory) -> tuple[int, float]:
    """A step of the hot run, and an expected error that none has passed before it."""
    errors = largest_errors(metal(), models["conservative-20"], tmp_path_factory.mktemp("hot"), 12)
    first = max(range(2, 12), key=lambda k: errors[k] - max(errors[:k]))
    assert errors[first] > max(errors[:first])
    return first, (errors[first] + max(errors[:first])) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("failures")


def broken(models, compiled_model, folder) -> dict[str, tuple]:
    """Structure, artefact, keywords and more commands, by name."""
    model = models["conservative-20"]
    damaged = folder / "damaged.pt"
    damaged.write_bytes(model.read_bytes()[:5000])
    double = metal()
    double.positions[-1] = double.positions[-2]
    # 1 / r^2 overflows, in the part of one rank
    close = ["create_atoms 1 single 0.3 0.3 0.3", "create_atoms 1 single 0.3 0.3 0.3", "group new id 50"]
    close += ["displace_atoms new move 1e-17 0 0", "set atom 49 x 0", "set atom 50 x 1e-160"]
    return {
        "two-at-one-place": (double, model, "", []),
        "not-finite": (metal(), model, "", close),
        "too-little-memory": (metal(), model, "memory 1e-7", []),
        "damaged-model": (metal(), damaged, "", []),
        "model-without-steps": (metal(), compiled_model, "", []),
    }


@pytest.fixture(scope="module")
def on_two(models, compiled_model, passing, folder) -> list[dict[str, on_ranks.Seen]]:
    """Cases of two ranks that are one LAMMPS."""
    model, cases = models["conservative-20"], {}

    def add(name, *blocks, **more):
        cases[name] = Case([0, 0], [list(blocks)], 2 * [str(folder / name)], **more)

    for name, rules in {"halt": "uncertainty {0} halt", "error": "uncertainty {0} error"}.items():
        keywords = (rules + " uncertainty {0} dump last.xyz").format(passing[1])
        lines = commands(metal(), model, folder / name, keywords)
        add(name, [*lines, *HOT, *OUTPUT, "run 50 post no"])

    lines = commands(metal(), "model.pt", folder / "other-model")
    add("other-model", lines)
    for rank, content in enumerate((model, models["direct-20"])):
        place = folder / f"folder of rank {rank}"
        place.mkdir()
        (place / "model.pt").symlink_to(content)
    places = [str(folder / f"folder of rank {rank}") for rank in range(2)]
    cases["other-model"] = cases["other-model"]._replace(folders=places)
    cases["no-model"] = cases["other-model"]._replace(folders=[places[0], str(folder)])

    for name, (atoms, artefact, keywords, more) in broken(models, compiled_model, folder).items():
        add(name, [*commands(atoms, artefact, folder / name, keywords), *more, "run 0"])

    if TEST_PLUGIN:
        for rank, scheme in enumerate(("reverse", "redundant")):
            keywords = f"none exchange {scheme} deviation 1 devi.out 1 {models['direct-20']} "
            keywords += "uncertainty 1e-6 warn uncertainty 1e-6 dump frames.xyz"
            lines = commands(metal(), model, folder / scheme, keywords, "orbv3/test")
            add(
                scheme,
                [f"plugin load {TEST_PLUGIN}", *lines, "run 0 post no"],
                failing_rank=rank,
                plugin=str(TEST_PLUGIN),
            )
    return on_ranks.start(cases, folder, ORBV3_TEST_PACKAGE=str(PACKAGE))


@pytest.mark.skipif(TEST_PLUGIN is None, reason="orbv3test.so was not built (ORB_EXPORT_TESTS)")
@pytest.mark.parametrize("scheme", ["reverse", "redundant"])
def test_memory_that_one_rank_lacks_anywhere_in_a_step_stops_both(scheme, on_two, models):
    seen = [of_rank[scheme] for of_rank in on_two]
    assert seen[0].errors == seen[1].errors == ["", ""]  # before, and after all failures
    assert len(seen[0].failures) > 15
    assert seen[0].failures == seen[1].failures
    for text in seen[0].failures:
        assert re.search("Pair style orbv3: (cannot write .*: )?out of memory", text), text
    expected = orb_export.load(models["conservative-20"]).predict(runs.turned(metal()))
    assert np.abs(np.reshape(seen[0].forces, (-1, 3)) - expected["forces"]).max() < FORCE_BAR


def test_halt_ends_the_run_of_both_ranks_with_its_last_frame(on_two, passing, folder):
    seen = [of_rank["halt"] for of_rank in on_two]
    last = passing[0] + 1
    assert [of_rank.step for of_rank in seen] == [last, last]
    assert seen[0].errors == seen[1].errors == ["", ""]
    frames = (folder / "halt/frames.txt").read_text()
    assert re.findall(r"TIMESTEP\n(\d+)", frames) == ["0", str(last)]
    assert len(frames.splitlines()) == 2 * (9 + len(metal()))
    assert (folder / f"halt/frames.{last}.restart").is_file()


def test_error_stops_both_ranks_with_the_last_frame_written(on_two, passing, folder):
    seen = [of_rank["error"] for of_rank in on_two]
    assert seen[0].errors == seen[1].errors
    assert f"at step {passing[0]} the expected force error is above" in seen[0].errors[0]
    frames = read(folder / "error/last.xyz", ":")
    assert [frame.info["step"] for frame in frames] == [passing[0]]
    assert len(frames[0]) == len(metal())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other-model", "Pair style orbv3: the ranks find different models at .*model.pt"),
        ("no-model", r"Pair style orbv3: cannot open model file model\.pt: No such file"),
        ("two-at-one-place", "Pair style orbv3: atoms (47 and 48|48 and 47) are at the same place"),
        ("not-finite", "Pair style orbv3: evaluate: .*non-finite"),
        ("too-little-memory", "`memory_limit` is 100 bytes but"),
        ("damaged-model", "Pair style orbv3: load: .*(is not an orb_export artefact|truncated)"),
        ("model-without-steps", "was exported without steps, which several MPI ranks need: export it again"),
    ],
)
def test_the_message_of_a_failure_is_that_of_both_ranks(name, message, on_two):
    texts = [of_rank[name].errors[0] for of_rank in on_two]
    assert texts[0] == texts[1]
    assert re.search(message, texts[0]), texts[0]


@pytest.fixture(scope="module")
def on_three(models, tmp_path_factory) -> list[dict[str, on_ranks.Seen]]:
    """Ranks 0 and 2 are one LAMMPS, rank 1 another."""
    folder = tmp_path_factory.mktemp("communicators")
    names, other = ("conservative-20", "direct-120"), metal(tilted=True)
    lines = [
        commands(atoms, models[name], folder / name)
        for atoms, name in zip((metal(), other), names, strict=True)
    ]
    places = 3 * [str(folder)]
    broken = metal()
    broken.positions[-1] = broken.positions[-2]
    overlap = commands(broken, models[names[0]], folder / "broken")
    return on_ranks.start(
        {
            # different numbers of evaluations at the same time
            "both": Case(
                [0, 1, 0],
                [[[*lines[0], "run 0"]], [[*lines[1], *HOT, "run 5", "run 0"]]],
                places,
            ),
            "one fails": Case([0, 1, 0], [[[*overlap, "run 0"]], [[*lines[1], "run 0"]]], places),
        },
        folder,
    )


def test_communicators_are_systems_of_their_own(on_three, models):
    seen = [of_rank["both"] for of_rank in on_three]
    assert [of_rank.n_ranks for of_rank in seen] == [2, 1, 2]
    assert all(not any(of_rank.errors) for of_rank in seen)
    assert [of_rank.step for of_rank in seen] == [0, 5, 0]
    expected = orb_export.load(models["conservative-20"]).predict(runs.turned(metal()))
    for of_rank in (seen[0], seen[2]):
        assert np.abs(np.reshape(of_rank.forces, (-1, 3)) - expected["forces"]).max() < FORCE_BAR
        assert abs(of_rank.energy - expected["energy"]) < 1e-11 * len(metal())


def test_a_failure_stops_its_own_communicator_only(on_three, models):
    seen = [of_rank["one fails"] for of_rank in on_three]
    for of_rank in (seen[0], seen[2]):
        assert "are at the same place" in of_rank.errors[0]
    assert not any(seen[1].errors)
    expected = orb_export.load(models["direct-120"]).predict(runs.turned(metal(tilted=True)))
    assert np.abs(np.reshape(seen[1].forces, (-1, 3)) - expected["forces"]).max() < FORCE_BAR
