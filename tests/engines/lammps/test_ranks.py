"""Several MPI ranks give what one process gives with the whole program.

mpiexec and torch take seconds to start, so each start runs many cases; a test looks at one of them.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from tests.engines.lammps import ranks
from tests.engines.lammps.ranks import Case

MODELS = ["conservative-20", "conservative-120", "direct-20", "direct-120"]
TEST_PLUGIN = next(Path(__file__).parents[3].glob("build/cp3*/lammps_plugin/orbv3test.so"), None)


def metal(tilted: bool = False) -> Atoms:
    """48 atoms in a box that tiles must not be larger than, with no ties."""
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (3, 2, 2)
    if tilted:
        cell = atoms.cell.array + np.array([[0, 0, 0], [2.3, 0, 0], [-1.9, 1.7, 0]])
        atoms.set_cell(cell, scale_atoms=True)
    atoms.symbols[::3] = "Ni"
    atoms.rattle(0.1, seed=32)
    return atoms


def perfect(structure: str, a: float, repeats: tuple[int, int, int]) -> Atoms:
    """A crystal in which the cap falls inside a shell of equal distances."""
    return bulk("Cu", structure, a=a, cubic=True) * repeats


TILED = ("comm_style tiled",)
MOVE = ("velocity all create 3000 5", "timestep 0.002", "fix md all nve")
BALANCED = ("balance 0.9 rcb",)


def grid(halves: tuple[int, ...] = (0, 1)) -> dict[str, Case]:
    """Every pair of settings at least once: kind and cap x communication x newton x cell x scheme."""
    cases = {}
    for (k, name), tiled, newton in itertools.product(enumerate(MODELS), (0, 1), (0, 1)):
        if (tiled + newton + k + k // 2) % 2 not in halves:
            continue
        tilted = (tiled + newton + k) % 2
        redundant = (tiled + k // 2) % 2
        before = ["newton on" if newton else "newton off", *(TILED if tiled else ())]
        label = (
            f"{name}, {'tiled' if tiled else 'brick'}, newton {'on' if newton else 'off'}, "
            f"{'tilted' if tilted else 'orthogonal'}, {'redundant' if redundant else 'reverse'}"
        )
        cases[label] = Case(
            metal(bool(tilted)),
            name,
            keywords=f"exchange {'redundant' if redundant else 'reverse'}",
            before=tuple(before),
            after=BALANCED if tiled else (),
        )
    return cases


def ties() -> dict[str, Case]:
    """Perfect crystals, whose neighbors at the cap are chosen among equals."""
    cases = {}
    for scheme, (structure, a, repeats) in itertools.product(
        ("reverse", "redundant"),
        [("fcc", 3.61, (2, 2, 2)), ("bcc", 2.87, (3, 3, 3)), ("diamond", 5.43, (2, 2, 2))],
    ):
        cases[f"perfect {structure}, {scheme}"] = Case(
            perfect(structure, a, repeats), "conservative-20", keywords=f"exchange {scheme}"
        )
    return cases


def small() -> dict[str, Case]:
    """Ranks without atoms, atoms that are their own neighbors, open boundaries; and corners of four ranks."""
    slab = metal()
    slab.pbc = (True, True, False)
    wire = metal()
    wire.pbc = (False, False, True)
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=16)
    boxed = ethanol.copy()
    boxed.set_cell([20, 21, 22])  # all of it in the corner of one rank
    boxed.positions += 4.0 - boxed.positions.min(axis=0)
    boxed.pbc = True
    iron = Atoms("Fe", cell=[[2.5, 0, 0], [0.7, 2.6, 0], [-0.5, 0.6, 2.7]], pbc=True)
    structures = {
        "slab": slab,
        "wire": wire,
        "molecule": ethanol,
        "molecule in a box": boxed,
        "one-atom cell": iron,
        "two-atom cell": Atoms("CO", [[0, 0, 0], [1.1, 0.9, 0.8]], cell=[4.1, 3.2, 3.0], pbc=True),
        "isolated atom": Atoms("C"),
    }
    cases = {
        "molecule, direct": Case(ethanol, "direct-20"),  # its torque is removed
        "memory for a part of the edges": Case(metal(), "conservative-120", "memory 0.003"),
        "migration of corners": Case(metal(), "conservative-20", run=(*MOVE, "run 6")),
    }
    for k, (name, atoms) in enumerate(structures.items()):
        scheme = ("reverse", "redundant", "auto")[k % 3]
        kind = ("conservative-120", "direct-20")[k % 2]
        cases[f"{name}, {kind}, {scheme}"] = Case(atoms, kind, keywords=f"exchange {scheme}")
    return cases


def dynamics() -> dict[str, Case]:
    """Runs in which atoms move between ranks, appear and vanish."""
    model, direct = "conservative-20", "direct-120"
    slab = metal()
    slab.pbc = (True, True, False)
    # fast atoms and long steps, so that few of them are enough
    return {
        "no step": Case(metal(), model),
        "migration": Case(metal(), model, before=("atom_modify sort 5 3.0",), run=(*MOVE, "run 30")),
        "fix balance rcb": Case(
            metal(),
            model,
            "exchange redundant",
            before=TILED,
            run=(*MOVE, "fix lb all balance 5 1.0 rcb", "run 20"),
        ),
        "fix balance shift": Case(
            metal(), direct, run=(*MOVE, "fix lb all balance 5 1.0 shift xyz 5 1.1", "run 20")
        ),
        "npt of a tilted box": Case(
            metal(True),
            model,
            "exchange redundant",
            run=(MOVE[0], "fix md all npt temp 300 300 0.05 tri 0 0 0.5", "run 10"),
        ),
        "deposit": Case(
            slab,
            model,
            run=(
                "change_box all z final -3 14",
                "region top block 1 9 1 6 8.8 10",
                "fix md all nve",
                "fix new all deposit 3 1 4 77 region top near 1.0",
                "run 12",
            ),
        ),
        "evaporate": Case(
            metal(),
            model,
            run=("region part block 0 5 INF INF INF INF", "fix gone all evaporate 5 1 part 7", "run 20"),
        ),
        "delete_atoms": Case(
            metal(),
            model,
            run=("run 0", "group odd id 1 3 7 40", "delete_atoms group odd compress no", "run 1"),
        ),
        "minimize": Case(metal(), model, run=("minimize 0 1e-4 10 40",)),
        "r-respa": Case(metal(), model, run=(*MOVE, "run_style respa 2 2 improper 1 pair 2", "run 10")),
        "replicated": Case(metal(), model, run=(*MOVE, "run 5", "replicate 1 2 1", "run 5")),
    }  # fmt: skip


# by the number of ranks: each is one start of mpiexec
CASES = {
    2: grid() | dynamics(),
    3: grid((0,)) | ties(),
    4: grid((1,)) | small(),
}


@pytest.fixture(scope="module")
def outcomes(models, stock_lmp, tmp_path_factory):
    """On a number of ranks, by the name of the case."""
    done = {}

    def of(n_ranks: int) -> dict[str, ranks.Outcome]:
        if n_ranks not in done:
            folder = tmp_path_factory.mktemp("ranks")
            done[n_ranks], printed = ranks.run(stock_lmp, CASES[n_ranks], models, folder, n_ranks)
            assert "WARNING: Pair" not in printed
        return done[n_ranks]

    return of


@pytest.mark.parametrize(
    ("n_ranks", "name"), [(n_ranks, name) for n_ranks, cases in CASES.items() for name in cases]
)
def test_ranks_give_what_one_process_gives(n_ranks, name, outcomes, models):
    outcome = outcomes(n_ranks)[name]
    ranks.assert_predicted(outcome, models[CASES[n_ranks][name].model])


@pytest.mark.parametrize("n_ranks", CASES)
def test_every_rank_has_atoms_on_the_grid(n_ranks, outcomes):
    for name in grid().keys() & outcomes(n_ranks).keys():
        assert set(outcomes(n_ranks)[name].owners) == set(range(n_ranks)), name


def test_some_ranks_are_empty(outcomes):
    found = [outcomes(4)[name] for name in small()]
    assert any(len(outcome.atoms) < 4 for outcome in found)
    assert any(len(set(outcome.owners)) == 1 and len(outcome.atoms) > 4 for outcome in found)


def test_atoms_move_appear_and_vanish(outcomes):
    found = outcomes(2)
    assert (found["migration"].owners != found["no step"].owners).sum() >= 3
    assert len(found["deposit"].atoms) == 48 + 3
    assert len(found["evaporate"].atoms) < 48
    assert len(found["delete_atoms"].atoms) == 48 - 4
