"""LAMMPS from Python on several ranks, where a test must see what each rank sees.

The program that `mpiexec` starts and the function that starts it. Each case has, by rank, a color: ranks of
one color are one LAMMPS on a communicator of their own.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

# ranks that are more than cores must not spin while they wait for each other (MPICH's own setting for that)
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "OMP_NUM_THREADS": "1",
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1",
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "64",
}
TIMEOUT = 300  # seconds; ranks that wait for each other would wait for ever


class Case(NamedTuple):
    """All lists but `folders` are by color."""

    colors: list[int]  # by rank
    blocks: list[list[list[str]]]  # commands; an error ends a block, and the next one begins
    folders: list[str]  # by rank, to work in
    # run 0 again and again while one allocation fails on this rank, then without
    failing_rank: int | None = None
    plugin: str = ""


class Seen(NamedTuple):
    """By one rank."""

    n_ranks: int  # of its LAMMPS
    errors: list[str]  # of each block; empty: none
    step: int
    energy: float  # eV
    forces: list[float]  # (3 N) by ID, eV/angstrom; empty after errors
    failures: list[str]  # of each allocation that was made to fail


def start(cases: dict[str, Case], folder: Path, **environment: str) -> list[dict[str, Seen]]:
    """What each rank saw of each case."""
    file = folder / "cases.json"
    file.write_text(json.dumps(cases))
    n_ranks = len(next(iter(cases.values())).colors)
    programs = Path(sys.executable).parent
    # as a module of mpi4py an exception on one rank ends all
    command = [programs / "mpiexec", "-n", str(n_ranks), sys.executable, "-m", "mpi4py", "-m", __name__, file]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[3],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    seen = [json.loads(Path(f"{file}.{rank}").read_text()) for rank in range(n_ranks)]
    return [{name: Seen(*values) for name, values in of_rank.items()} for of_rank in seen]


def attempt(lmp: Any, commands: list[str]) -> str:
    try:
        lmp.commands_list(commands)
    except Exception as error:  # LAMMPS has one class for all of them
        return str(error)
    return ""


def failures(lmp: Any, comm: Any, case: Case) -> list[str]:
    """Errors of this rank, where allocations further and further into a step fail on one of the ranks."""
    countdown = ctypes.c_long.in_dll(ctypes.CDLL(case.plugin), "orbv3test_countdown")
    found, place, failed = [], 0, True
    while failed:
        mine = comm.rank == case.failing_rank
        countdown.value = place if mine else -1
        found.append(attempt(lmp, ["run 0 post no"]))
        failed = comm.bcast(countdown.value < 0, case.failing_rank)
        countdown.value = -1
        place += 1 + place // 5
    return found[:-1]


def run(case: Case, world: Any) -> Seen:
    from orb_export.lammps import lammps

    os.chdir(case.folders[world.rank])
    color = case.colors[world.rank]
    comm = world.Split(color)
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"], comm=comm)
    errors = [attempt(lmp, block) for block in case.blocks[color]]
    found = [] if case.failing_rank is None else failures(lmp, comm, case)
    errors.append(attempt(lmp, ["run 0 post no"] if found else []))
    forces = [] if any(errors) else [float(value) for value in lmp.gather_atoms("f", 1, 3)]
    seen = Seen(
        comm.size, errors, lmp.extract_global("ntimestep"), lmp.extract_pair("energy_eV"), forces, found
    )
    lmp.close()
    comm.Free()
    return seen


def main() -> None:
    from mpi4py import MPI

    file = Path(sys.argv[1])
    cases = json.loads(file.read_text())
    seen = {name: run(Case(*values), MPI.COMM_WORLD) for name, values in cases.items()}
    Path(f"{file}.{MPI.COMM_WORLD.rank}").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
