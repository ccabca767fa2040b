"""Molecular dynamics of a structure with one artefact, in a folder, that can be stopped and continued.

`start` makes a run and `resume` opens one; `Run.advance` carries it on. `orb-export openmm` is this and the
checks before it.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import openmm
from openmm import app, unit

from orb_export.artefact import sha256_of_file
from orb_export.openmm import outputs, restart
from orb_export.openmm.force import OrbV3Force
from orb_export.openmm.minimize import minimize
from orb_export.openmm.progress import Interrupt, Progress
from orb_export.openmm.structures import Structure

BAROSTATS = ("monte-carlo", "anisotropic", "flexible", "stochastic")
# Bonds that hold nothing together tell barostat and trajectory what a molecule is. In a group of their own
# that no integrator asks for they cost nothing.
_MOLECULES_GROUP = 31
_MONTE_CARLO_INTERVAL = 25  # steps between attempts
_CHUNKS = (1, 5, 10, 50, 100, 500)  # steps between two looks at progress and interrupts


@dataclass(frozen=True)
class Settings:
    """What makes a run the run it is; a continuation must have the same."""

    temperature: float = 300.0  # K
    timestep: float = 0.5  # fs
    friction: float = 1.0  # 1/ps; 0: constant energy
    pressure: float | None = None  # bar; None: constant volume
    barostat: str = "monte-carlo"
    compressibility: float = 4.5e-5  # 1/bar, of the stochastic barostat
    charge: float | None = None  # e
    spin: float | None = None  # multiplicity 2S+1
    seed: int = 1
    minimize: int = 0  # iterations
    platform: str = "auto"
    device: str = "auto"
    threads: int = 0
    memory_limit: float = 0.0  # GB that an evaluation may use; 0: no limit
    trajectory: str = "dcd"
    report_interval: int = 100  # steps
    checkpoint_interval: int = 10000  # steps
    confidence: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for what no run can have."""
        for name in ("temperature", "timestep", "compressibility"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"simulate: `{name}` is {value} but must be positive")
        for name in ("report_interval", "checkpoint_interval", "seed"):
            if getattr(self, name) < 1:
                raise ValueError(f"simulate: `{name}` is {getattr(self, name)} but must be at least 1")
        for name in ("friction", "memory_limit"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"simulate: `{name}` is {value} but must not be negative")
        for name, known in (("barostat", BAROSTATS), ("trajectory", outputs.TRAJECTORIES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"simulate: `{name}` is {getattr(self, name)!r} but must be {', '.join(known)}"
                )
        if self.pressure is not None and self.friction == 0:
            raise ValueError("simulate: `pressure` needs a thermostat: `friction` is 0")

    @property
    def monte_carlo(self) -> bool:
        """Whether a barostat of OpenMM's acts, which remembers things that no checkpoint holds."""
        return self.pressure is not None and self.barostat != "stochastic"


@dataclass
class Run:
    """A Simulation and the folder it writes to."""

    simulation: app.Simulation
    folder: Path
    settings: Settings
    identity: restart.Identity

    def advance(self, last: int, progress: Progress, interrupt: Interrupt) -> int:
        """Carry the run on to step `last`, or until `interrupt` asks for its end; returns the step reached.

        Writes a checkpoint each `checkpoint_interval` steps and at the end, and then final.pdb. Raises
        RuntimeError when the model or OpenMM fails.
        """
        simulation, chunk = self.simulation, _CHUNKS[0]
        saved = step = simulation.currentStep
        while step < last and not interrupt.asked:
            interval = self.settings.checkpoint_interval
            stop = min(last, (step // chunk + 1) * chunk, (step // interval + 1) * interval)
            began = time.perf_counter()
            try:
                simulation.step(stop - step)
            except openmm.OpenMMException as error:
                raise RuntimeError(
                    f"simulate: the run stopped after step {step}: {error}; its last checkpoint is of step "
                    f"{saved}"
                ) from error
            chunk = _chunk(chunk, (time.perf_counter() - began) / (stop - step))
            step = simulation.currentStep
            if step % interval == 0 or step >= last:
                self.save()
                saved = step
            progress.show(step)
        if saved != step:
            self.save()
        state = simulation.context.getState(positions=True)
        outputs.write_structure(self.folder / outputs.FINAL, simulation.topology, state)
        return int(step)

    def save(self) -> None:
        """Write a checkpoint, and begin anew what a restart from it could not continue."""
        files = outputs.output_files(self.folder, self.settings.trajectory, self.settings.confidence)
        restart.write_checkpoint(self.folder, self.simulation.context, self.identity, files)
        if self.settings.monte_carlo:
            _begin_barostat_anew(self.simulation.context)


def _chunk(before: int, seconds_a_step: float) -> int:
    """Steps until the next look at interrupts: as many as take half a second, and not many more than before.

    The first step is quick, because it uses forces that are there already.
    """
    allowed = _CHUNKS[: _CHUNKS.index(before) + 2]
    return next((chunk for chunk in reversed(allowed) if chunk * seconds_a_step < 0.5), _CHUNKS[0])


def start(
    structure: Structure,
    model: Path,
    folder: Path,
    settings: Settings,
    identity: restart.Identity,
) -> Run:
    """Make a run: System, minimization, velocities, and first files, which replace those of another run."""
    system = build_system(structure, model, settings)
    simulation = _simulation(structure.topology, system, settings, {})
    context = simulation.context
    if structure.box is not None:
        context.setPeriodicBoxVectors(*structure.box)
    context.setPositions(structure.positions)
    if settings.minimize:
        minimize(context, settings.minimize)
    if structure.velocities is None:
        context.setVelocitiesToTemperature(settings.temperature * unit.kelvin, settings.seed)
    else:
        context.setVelocities(structure.velocities)
    context.getState(energy=True, forces=True)  # whatever fails does so before files are touched
    folder.mkdir(parents=True, exist_ok=True)
    for file in outputs.known_files(folder):
        file.unlink()
    (folder / outputs.SYSTEM).write_text(openmm.XmlSerializer.serialize(system))
    state = context.getState(positions=True)
    outputs.write_structure(folder / outputs.START, structure.topology, state)
    run = _with_reporters(Run(simulation, folder, settings, identity), append=False)
    run.save()
    return run


def resume(model: Path, folder: Path, settings: Settings, identity: restart.Identity) -> Run:
    """Open the run of a folder at its checkpoint.

    Raises FileNotFoundError, and ValueError when there is none, when it is damaged, or when it is of another
    model, structure, OpenMM or settings.
    """
    checkpoint = restart.read_checkpoint(folder)
    restart.check_same(checkpoint.identity, identity, folder)
    system = openmm.XmlSerializer.deserialize(_moved((folder / outputs.SYSTEM).read_text(), model))
    topology = app.PDBFile(str(folder / outputs.START)).topology
    simulation = _simulation(topology, system, settings, checkpoint.properties, checkpoint.platform)
    try:
        simulation.context.loadCheckpoint(checkpoint.state)
    except openmm.OpenMMException as error:
        raise ValueError(f"restart: OpenMM cannot load the checkpoint in `{folder}`: {error}") from error
    restart.cut_files(folder, checkpoint.files)
    if settings.monte_carlo:
        _begin_barostat_anew(simulation.context)
    return _with_reporters(Run(simulation, folder, settings, identity), append=True)


def identity_of(
    structure_file: Path, model: Path, settings: Settings, prepared: Mapping[str, Any]
) -> restart.Identity:
    """What a continuation of the run must have; `prepared` says how the structure was made of the file."""
    return restart.Identity(
        sha256_of_file(model),
        hashlib.sha256(structure_file.read_bytes()).hexdigest(),
        openmm.Platform.getOpenMMVersion(),
        {**asdict(settings), **prepared},
    )


def build_system(structure: Structure, model: Path, settings: Settings) -> openmm.System:
    """A System of all atoms with the model and nothing else, no constraints, and perhaps a barostat.

    Raises ValueError when the settings do not fit the structure.
    """
    system = openmm.System()
    for atom in structure.topology.atoms():
        system.addParticle(0.0 if atom.element is None else atom.element.mass)
    if (box := structure.box) is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(
        OrbV3Force(
            model,
            structure.topology,
            periodic=structure.periodic,
            charge=structure.charge if settings.charge is None else settings.charge,
            spin=structure.spin if settings.spin is None else settings.spin,
            device=settings.device,
            threads=settings.threads,
            memory_limit=round(settings.memory_limit * 1e9),
        )
    )
    if len(structure.bonds):
        molecules = openmm.HarmonicBondForce()
        for first, second in structure.bonds:
            molecules.addBond(int(first), int(second), 0.0, 0.0)
        molecules.setForceGroup(_MOLECULES_GROUP)
        molecules.setUsesPeriodicBoundaryConditions(box is not None)
        molecules.setName("MoleculesWithoutForce")
        system.addForce(molecules)
    if settings.pressure is not None:
        if not all(structure.periodic):
            raise ValueError("simulate: `pressure` needs a structure that is periodic along all three axes")
        if settings.barostat != "stochastic":
            system.addForce(_monte_carlo(settings))
    return system


def _monte_carlo(settings: Settings) -> openmm.Force:
    pressure, temperature = settings.pressure * unit.bar, settings.temperature * unit.kelvin
    barostat: openmm.Force
    if settings.barostat == "anisotropic":
        barostat = openmm.MonteCarloAnisotropicBarostat(
            openmm.Vec3(1, 1, 1) * pressure, temperature, True, True, True, _MONTE_CARLO_INTERVAL
        )
    elif settings.barostat == "flexible":
        barostat = openmm.MonteCarloFlexibleBarostat(pressure, temperature, _MONTE_CARLO_INTERVAL)
    else:
        barostat = openmm.MonteCarloBarostat(pressure, temperature, _MONTE_CARLO_INTERVAL)
    barostat.setRandomNumberSeed(settings.seed + 1)
    return barostat


def _begin_barostat_anew(context: openmm.Context) -> None:
    """Forget what Monte Carlo barostats count and adapt: no checkpoint holds it.

    Done at every checkpoint, in the run that goes on as in one that is restarted from it, so both take the
    same moves. State and random streams stay.
    """
    context.reinitialize(preserveState=True)


def _simulation(
    topology: app.Topology,
    system: openmm.System,
    settings: Settings,
    properties: dict[str, str],
    platform: str | None = None,
) -> app.Simulation:
    step = settings.timestep * unit.femtosecond
    if settings.friction > 0:
        integrator = openmm.LangevinMiddleIntegrator(
            settings.temperature * unit.kelvin, settings.friction / unit.picosecond, step
        )
        integrator.setRandomNumberSeed(settings.seed)
    else:
        integrator = openmm.VerletIntegrator(step)
    integrator.setIntegrationForceGroups(set(range(32)) - {_MOLECULES_GROUP})
    name = platform or (None if settings.platform == "auto" else settings.platform)
    if name is None:
        return app.Simulation(topology, system, integrator)
    chosen = openmm.Platform.getPlatformByName(name)
    if not properties and settings.threads and "Threads" in chosen.getPropertyNames():
        properties = {"Threads": str(settings.threads)}
    return app.Simulation(topology, system, integrator, chosen, properties)


def _with_reporters(run: Run, append: bool) -> Run:
    settings, folder, simulation = run.settings, run.folder, run.simulation
    reporters: list[Any] = []
    if settings.pressure is not None and settings.barostat == "stochastic":
        from orb_export.openmm.barostat import StochasticCellRescaling

        reporters.append(
            StochasticCellRescaling(
                settings.pressure,
                settings.temperature,
                compressibility=settings.compressibility,
                seed=settings.seed + 1,
            )
        )
    periodic = simulation.system.usesPeriodicBoundaryConditions()
    interval = settings.report_interval
    log = folder / outputs.LOG
    reporters.append(outputs.log_reporter(log, interval, periodic, append and outputs.begun(log)))
    if settings.trajectory != "none":
        file = folder / f"trajectory.{settings.trajectory}"
        reporters.append(outputs.trajectory_reporter(file, interval, append and outputs.begun(file)))
    if settings.confidence:
        from orb_export.openmm.reporters import ConfidenceReporter

        file = folder / outputs.CONFIDENCE
        reporters.append(ConfidenceReporter(str(file), interval, append=append and outputs.begun(file)))
    simulation.reporters.extend(reporters)
    return run


def _moved(system: str, model: Path) -> str:
    """The XML of a System with the artefact at another path; its SHA-256 is checked by the force."""
    tree = ElementTree.fromstring(system)
    for force in tree.iter("Force"):
        if force.attrib.get("type") == "OrbV3Force":
            force.attrib["artefact"] = str(model.absolute())
    return ElementTree.tostring(tree, encoding="unicode")
