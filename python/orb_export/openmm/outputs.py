"""The files of a run: start.pdb, log.csv, trajectory, confidence.csv, final.pdb; new ones or continued ones.

log.csv holds nothing that depends on the clock, so that a run that was stopped and restarted leaves the same
bytes as one that was not.
"""

from pathlib import Path
from typing import Any

import openmm
from openmm import app

START, SYSTEM, LOG, CONFIDENCE, FINAL = "start.pdb", "system.xml", "log.csv", "confidence.csv", "final.pdb"
TRAJECTORIES = ("dcd", "xtc", "pdb", "none")


def write_structure(file: Path, topology: app.Topology, state: openmm.State) -> None:
    """Write a PDB file of a state, in its box."""
    if topology.getPeriodicBoxVectors() is not None:
        topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
    with file.open("w") as stream:
        app.PDBFile.writeFile(topology, state.getPositions(), stream, keepIds=True)


def output_files(folder: Path, trajectory: str, confidence: bool) -> list[Path]:
    """Files that grow during a run."""
    names = [LOG]
    names += [f"trajectory.{trajectory}"] if trajectory != "none" else []
    names += [CONFIDENCE] if confidence else []
    return [folder / name for name in names]


def known_files(folder: Path) -> list[Path]:
    """All files in a folder that a run writes, to be replaced by a new run."""
    names = (START, SYSTEM, LOG, CONFIDENCE, FINAL, "checkpoint.json")
    found = [folder / name for name in names]
    found += [folder / f"trajectory.{kind}" for kind in TRAJECTORIES]
    return [path for path in found if path.is_file()] + sorted(folder.glob("checkpoint-*.chk"))


def begun(file: Path) -> bool:
    """Whether a file has its header, which is written with the first report."""
    return file.is_file() and file.stat().st_size > 0


def log_reporter(file: Path, interval: int, periodic: bool, append: bool) -> app.StateDataReporter:
    """Step, time, energies, temperature and, with a box, its volume and density, as CSV."""
    return app.StateDataReporter(
        str(file),
        interval,
        step=True,
        time=True,
        potentialEnergy=True,
        kineticEnergy=True,
        totalEnergy=True,
        temperature=True,
        volume=periodic,
        density=periodic,
        append=append,
    )


def trajectory_reporter(file: Path, interval: int, append: bool) -> Any:
    """Positions in the format of the suffix."""
    if file.suffix == ".dcd":
        return app.DCDReporter(str(file), interval, append=append)
    if file.suffix == ".xtc":
        return app.XTCReporter(str(file), interval, append=append)
    return PdbTrajectory(file, interval, append)


class PdbTrajectory:
    """Models of a PDB file; unlike OpenMM's PDBReporter it can continue one."""

    def __init__(self, file: Path, interval: int, append: bool) -> None:
        self._file, self._interval = file, interval
        self._models = 0
        if append:
            with file.open() as stream:
                self._models = sum(line.startswith("MODEL") for line in stream)
        else:
            file.write_text("")

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """Called by `Simulation`: steps until the next model, and what it needs."""
        steps = self._interval - simulation.currentStep % self._interval
        return {"steps": steps, "periodic": None, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Called by `Simulation`: write a model."""
        topology = simulation.topology
        if topology.getPeriodicBoxVectors() is not None:
            topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
        with self._file.open("a") as stream:
            if self._models == 0:
                app.PDBFile.writeHeader(topology, stream)
            self._models += 1
            app.PDBFile.writeModel(topology, state.getPositions(), stream, self._models, keepIds=True)
