"""`orb-export openmm`: molecular dynamics of a structure with OpenMM, checked first."""

import argparse
import sys
from argparse import SUPPRESS
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orb_export.openmm.preflight import Finding
    from orb_export.openmm.simulate import Settings
    from orb_export.openmm.structures import Structure

INTERRUPTED = 130
# Options that another one calls for, and their defaults; alone they would be ignored, so they are errors.
DEPENDENT: dict[str, dict[str, Any]] = {
    "fix": {"ph": 7.4},
    "solvate": {"padding": 1.0, "ionic_strength": 0.0, "solute_charge": None},
    "npt": {"pressure": 1.0, "barostat": "monte-carlo", "compressibility": 4.5e-5},
}


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `orb-export`."""
    parser = subparsers.add_parser(
        "openmm",
        help="run molecular dynamics with OpenMM",
        description="Check STRUCTURE, run it with a model alone in OpenMM, and write to DIR: start.pdb, "
        "log.csv, a trajectory, checkpoints and final.pdb. The same command with --restart, and perhaps more "
        "--steps, continues it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "structure",
        type=Path,
        metavar="STRUCTURE",
        help="PDB or mmCIF (read by OpenMM), or any file of ASE; its last frame",
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="FILE", help="made by `orb-export export`"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    _add_preparation(parser.add_argument_group("preparation"))
    _add_physics(parser.add_argument_group("physics"))
    _add_run(parser.add_argument_group("run"))
    parser.set_defaults(run=run)


def _add_preparation(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--fix", action="store_true", help="add missing atoms and hydrogens to a PDB or mmCIF file"
    )
    group.add_argument("--ph", type=float, default=SUPPRESS, help="of --fix (default: 7.4)")
    group.add_argument("--solvate", action="store_true", help="put the structure into a box of water")
    group.add_argument(
        "--padding",
        type=float,
        default=SUPPRESS,
        help="of --solvate, between periodic images of the structure, nm (default: 1.0)",
    )
    group.add_argument(
        "--ionic-strength",
        type=float,
        default=SUPPRESS,
        help="of --solvate, NaCl, mol/l (default: 0, only what neutralizes)",
    )
    group.add_argument(
        "--solute-charge",
        type=float,
        default=SUPPRESS,
        help="of --solvate, e, balanced by ions (default: by the force field)",
    )
    group.add_argument("--no-box", action="store_true", help="leave the periodic box of STRUCTURE out")
    group.add_argument(
        "--minimize",
        type=int,
        default=0,
        metavar="N",
        help="first move downhill by the forces of the model, iterations at most",
    )
    group.add_argument(
        "--ignore", action="append", default=[], metavar="CHECK", help="run in spite of errors of this check"
    )
    group.add_argument("--force", action="store_true", help="run in spite of all errors of the checks")
    group.add_argument("--check-only", action="store_true", help="check, and do not run")


def _add_physics(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--temperature", type=float, default=300.0, help="K")
    group.add_argument("--timestep", type=float, default=0.5, help="fs")
    group.add_argument("--friction", type=float, default=1.0, help="of the Langevin thermostat, 1/ps")
    group.add_argument("--nve", action="store_true", help="constant energy: no thermostat")
    group.add_argument("--npt", action="store_true", help="constant pressure")
    group.add_argument("--pressure", type=float, default=SUPPRESS, help="of --npt, bar (default: 1)")
    group.add_argument(
        "--barostat",
        choices=["monte-carlo", "anisotropic", "flexible", "stochastic"],
        default=SUPPRESS,
        help="of --npt; stochastic: by the stress of the model, no extra evaluations (default: monte-carlo)",
    )
    group.add_argument(
        "--compressibility",
        type=float,
        default=SUPPRESS,
        help="of the stochastic barostat, its order, 1/bar (default: 4.5e-5)",
    )
    group.add_argument(
        "--charge", type=float, help="total charge of OrbMol models, e; default: that of STRUCTURE"
    )
    group.add_argument("--spin", type=float, help="spin multiplicity 2S+1; likewise")
    group.add_argument("--seed", type=int, default=1, help="of velocities, thermostat, barostat and ions")


def _add_run(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--steps", type=int, default=1000, help="of the whole run, restarts included")
    group.add_argument("--platform", default="auto", help="of OpenMM: auto, Reference, CPU, CUDA, ...")
    group.add_argument("--device", default="auto", help="of the model: auto, cpu, cuda or cuda:N")
    group.add_argument(
        "--threads", type=int, default=0, help="of the model and of platform CPU; 0: their own choice"
    )
    group.add_argument(
        "--limit-memory",
        type=float,
        default=0.0,
        metavar="GB",
        help="that an evaluation may use beyond the weights; 0: no limit",
    )
    group.add_argument(
        "--trajectory", choices=["dcd", "xtc", "pdb", "none"], default="dcd", help="its format"
    )
    group.add_argument("--report-interval", type=int, default=100, help="of log and trajectory, steps")
    group.add_argument("--confidence", action="store_true", help="log the expected error of the forces")
    group.add_argument("--checkpoint", type=int, default=10000, metavar="N", help="steps between checkpoints")
    group.add_argument("--restart", action="store_true", help="continue the run in DIR")
    group.add_argument("--overwrite", action="store_true", help="replace the run in DIR")


def run(args: argparse.Namespace) -> int:
    """Run the command; 130 when it was interrupted, after writing a checkpoint."""
    import openmm

    try:
        return _run(args)
    except openmm.OpenMMException as error:
        raise RuntimeError(f"openmm: {error}") from error


def _run(args: argparse.Namespace) -> int:
    from orb_export.openmm.progress import Progress, interruptible

    _complete(args)
    settings = _settings(args)
    if args.steps < 0:
        raise ValueError(f"openmm: `--steps` is {args.steps} but must not be negative")
    if args.restart and args.overwrite:
        raise ValueError("openmm: give --restart or --overwrite, not both")
    if args.restart and args.check_only:
        raise ValueError("openmm: --check-only is for new runs, not for --restart")
    if args.restart:
        dynamics = _resume(args, settings)
    else:
        made = _start(args, settings)
        if made is None:
            return 0
        dynamics = made
    first = dynamics.simulation.currentStep
    progress = Progress(first, args.steps, settings.timestep)
    with interruptible() as interrupt:
        try:
            last = dynamics.advance(args.steps, progress, interrupt)
        finally:
            progress.close()
    done = f"{args.output}: step {last} of {args.steps}, {progress.speed(last):.3g} ns/day"
    if last < args.steps:
        print(f"orb-export: interrupted, {done}; --restart continues it", file=sys.stderr)
        return INTERRUPTED
    print(done)
    return 0


def _complete(args: argparse.Namespace) -> None:
    """Give dependent options their defaults. Raises ValueError for one without the option it depends on."""
    for switch, defaults in DEPENDENT.items():
        for name, default in defaults.items():
            if not hasattr(args, name):
                setattr(args, name, default)
            elif not getattr(args, switch):
                raise ValueError(f"openmm: --{name.replace('_', '-')} needs --{switch}")


def _settings(args: argparse.Namespace) -> "Settings":
    from orb_export.openmm.simulate import Settings

    return Settings(
        temperature=args.temperature,
        timestep=args.timestep,
        friction=0.0 if args.nve else args.friction,
        pressure=args.pressure if args.npt else None,
        barostat=args.barostat,
        compressibility=args.compressibility,
        charge=args.charge,
        spin=args.spin,
        seed=args.seed,
        minimize=args.minimize,
        platform=args.platform,
        device=args.device,
        threads=args.threads,
        memory_limit=args.limit_memory,
        trajectory=args.trajectory,
        report_interval=args.report_interval,
        checkpoint_interval=args.checkpoint,
        confidence=args.confidence,
    )


def _prepared(args: argparse.Namespace) -> dict[str, Any]:
    """How the structure is made of the file: part of what a restart must have."""
    names = ["no_box"]
    names += ["ph"] if args.fix else []
    names += ["padding", "ionic_strength", "solute_charge"] if args.solvate else []
    return {"fix": args.fix, "solvate": args.solvate, **{name: getattr(args, name) for name in names}}


def _resume(args: argparse.Namespace, settings: "Settings") -> Any:
    from orb_export.openmm import simulate

    identity = simulate.identity_of(args.structure, args.model, settings, _prepared(args))
    dynamics = simulate.resume(args.model, args.output, settings, identity)
    if dynamics.simulation.currentStep > args.steps:
        raise ValueError(
            f"openmm: `--steps` is {args.steps} but the run in `{args.output}` is at step "
            f"{dynamics.simulation.currentStep} already"
        )
    return dynamics


def _start(args: argparse.Namespace, settings: "Settings") -> Any:
    from orb_export.artefact import read_metadata
    from orb_export.openmm import outputs, simulate

    present = outputs.known_files(args.output)
    if present and not (args.overwrite or args.check_only):
        raise ValueError(
            f"openmm: `{args.output}` holds a run already: --restart continues it, --overwrite replaces it"
        )
    record = read_metadata(args.model)
    structure = _structure(args, settings, record)
    _report(args, _findings(structure, settings, record))
    if args.check_only:
        print(f"{args.structure}: {len(structure.numbers)} atoms, nothing that forbids a run")
        return None
    identity = simulate.identity_of(args.structure, args.model, settings, _prepared(args))
    return simulate.start(structure, args.model, args.output, settings, identity)


def _structure(args: argparse.Namespace, settings: "Settings", record: dict[str, Any]) -> "Structure":
    from orb_export.openmm.solvate import add_missing, kept_atoms, relaxed, unknown_residues

    original = structure = _read(args)
    if args.fix:
        structure = add_missing(structure, args.structure, ph=args.ph, seed=args.seed)
    if args.solvate:
        # what is wrong with the solute would otherwise come up as a riddle of the force field
        findings = [finding for finding in _findings(structure, settings, record) if finding.level == "error"]
        _report(args, findings)
        structure = _solvated(args, structure)
    if not (args.fix or args.solvate):
        return structure
    if names := unknown_residues(structure):
        print(
            f"orb-export: note [contacts]: added atoms are not relaxed, since the force field does not know "
            f"{', '.join(names)}: --minimize does it with the model",
            file=sys.stderr,
        )
        return structure
    return relaxed(structure, kept_atoms(structure, original))


def _read(args: argparse.Namespace) -> "Structure":
    from orb_export.commands.structures import read_structures
    from orb_export.openmm import structures

    if structures.is_biomolecular(args.structure):
        structure = structures.read_biomolecular(args.structure)
    elif args.fix:
        raise ValueError("openmm: --fix needs residues: a PDB or mmCIF file")
    else:
        structure = structures.from_ase(read_structures(args.structure)[-1])
    return structures.without_box(structure) if args.no_box or args.solvate else structure


def _solvated(args: argparse.Namespace, structure: "Structure") -> "Structure":
    from orb_export.openmm.solvate import add_water

    return add_water(
        structure,
        padding=args.padding,
        ionic_strength=args.ionic_strength,
        charge=args.solute_charge,
        seed=args.seed,
    )


def _findings(structure: "Structure", settings: "Settings", record: dict[str, Any]) -> "list[Finding]":
    from orb_export.openmm.preflight import Plan, examine

    plan = Plan(
        charge=structure.charge if settings.charge is None else settings.charge,
        spin=structure.spin if settings.spin is None else settings.spin,
        timestep=settings.timestep,
        needs_energy=settings.monte_carlo,
    )
    return examine(structure, record, plan)


def _report(args: argparse.Namespace, findings: "list[Finding]") -> None:
    """Print what the checks have found; ValueError when there are errors that are not to be ignored."""
    from orb_export.openmm.preflight import CHECKS

    if unknown := sorted(set(args.ignore) - set(CHECKS)):
        raise ValueError(f"openmm: --ignore {unknown[0]} is none of the checks {', '.join(CHECKS)}")
    for finding in findings:
        print(f"orb-export: {finding}", file=sys.stderr)
    errors = sorted({finding.check for finding in findings if finding.level == "error"} - set(args.ignore))
    if errors and not args.force:
        ways = " ".join(f"--ignore {check}" for check in errors)
        hint = "" if "elements" in errors else f"; {ways} runs it as it is"
        raise ValueError(f"openmm: the structure has errors ({', '.join(errors)}){hint}")
