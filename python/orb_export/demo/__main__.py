"""Command line of the demonstration."""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import orb_export.demo
from orb_export.demo import ARTEFACT, ELEMENT, TEMPERATURE, TIMESTEP, lammps, openmm
from orb_export.demo.lammps import COLUMNS, Thermo
from orb_export.demo.plot import plot

LARGEST_DIFFERENCE = {"float32": 1e-4, "float64": 1e-9}  # eV/angstrom between Python, LAMMPS and OpenMM
PLOT, SUMMARY = "energy_temperature.png", "summary.txt"


class Difference(NamedTuple):
    """Between two programs that look at the same frame."""

    force: float  # largest, eV/angstrom
    energy: float  # eV per atom


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m orb_export.demo", description=orb_export.demo.__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("demo-run"), metavar="DIR", help="default: demo-run"
    )
    parser.add_argument(
        "--cells", type=int, default=2, help="cubic cells of 8 atoms per edge of the crystal (default: 2)"
    )
    parser.add_argument("--nvt-steps", type=int, default=500, help="of 1 fs at 300 K (default: 500)")
    parser.add_argument("--nve-steps", type=int, default=2000, help="of 1 fs afterwards (default: 2000)")
    parser.add_argument("--openmm-steps", type=int, default=300, help="of 1 fs in OpenMM (default: 300)")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="of the network (default: float32)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; 0 when Python, LAMMPS and OpenMM agree."""
    args = parser().parse_args(arguments)
    if min(args.cells, args.nvt_steps, args.nve_steps, args.openmm_steps) < 1:
        parser().error("--cells, --nvt-steps, --nve-steps and --openmm-steps must be positive")
    args.output.mkdir(parents=True, exist_ok=True)
    artefact = export(args.output, args.dtype)
    atoms = lammps.write_lammps_files(args.output, args.cells, args.nvt_steps, args.nve_steps)
    thermo = lammps.run_lammps(args.output, args.nvt_steps + args.nve_steps)
    frame, forces = lammps.read_last_frame(args.output / lammps.LAST_FRAME, atoms)
    run = openmm.run_openmm(args.output, artefact, frame, args.openmm_steps)

    result: dict[str, Any] = orb_export.load(artefact).predict(frame)
    python = result["forces"], result["energy"]
    results = {"LAMMPS": (forces, thermo.nve[-1, COLUMNS.index("pe")]), "OpenMM": (run.forces, run.potential)}
    differences = {
        "LAMMPS - Python": difference(results["LAMMPS"], python),
        "OpenMM - Python": difference(results["OpenMM"], python),
        "OpenMM - LAMMPS": difference(results["OpenMM"], results["LAMMPS"]),
    }
    plot(thermo, len(atoms), args.output / PLOT)
    text = summary(args, thermo, run, differences)
    (args.output / SUMMARY).write_text(text)
    print(text, end="")
    wrong = [name for name, found in differences.items() if not found.force <= LARGEST_DIFFERENCE[args.dtype]]
    for name in wrong:
        print(f"demo: {name}: forces differ by {differences[name].force:.1e} eV/Å", file=sys.stderr)
    return 1 if wrong else 0


def export(output: Path, dtype: str) -> Path:
    """The compiled demonstration model; an artefact of the same weights and versions is used again."""
    import torch

    import orb_export
    from orb_export.artefact import read_metadata
    from orb_export.export import export_model
    from orb_export.export.record import weights_sha256
    from orb_export.export.sources import DEMO, licence_of, load_source

    path = output / ARTEFACT
    model = load_source(DEMO, dtype=getattr(torch, dtype))
    wanted = {
        "weights_sha256": weights_sha256(model),
        "dtype": dtype,
        "torch_version": torch.__version__,
        "orb_export_version": orb_export.__version__,
    }
    if path.is_file():
        try:
            found = read_metadata(path)
        except ValueError:  # of an older schema, or broken: made anew
            found = {}
        if {name: found.get(name) for name in wanted} == wanted:
            print(f"demo: {path} is up to date")
            return path
    export_model(
        model,
        path,
        format="aoti",
        source=DEMO,
        licence=licence_of(DEMO),
        progress=lambda message: print(f"demo: {message} ...", flush=True),
        with_steps=False,  # the demonstration needs no bounded memory, and they take a minute
    )
    return path


def difference(
    one: tuple[NDArray[np.float64], float], other: tuple[NDArray[np.float64], float]
) -> Difference:
    """Of forces (N, 3) in eV/angstrom and energies in eV."""
    return Difference(float(np.abs(one[0] - other[0]).max()), abs(one[1] - other[1]) / len(one[0]))


def summary(
    args: argparse.Namespace, thermo: Thermo, run: openmm.Run, differences: dict[str, Difference]
) -> str:
    """One screen of text."""
    n_atoms = len(run.forces)
    columns = dict(zip(COLUMNS, thermo.nve.T, strict=True))
    drift = lammps.energy_drift(thermo, n_atoms)
    spread = float(np.std(columns["etotal"])) / n_atoms
    steps = (
        f"{args.nvt_steps} at {TEMPERATURE:g} K, then {args.nve_steps} at constant energy, {TIMESTEP:g} fs"
    )
    cost, openmm_cost = (1e6 / speed / n_atoms for speed in (thermo.steps_per_second, run.steps_per_second))
    compared = "\n".join(
        f"  {name}   forces differ by at most {found.force:.1e} eV/Å, energy by {found.energy:.1e} eV/atom"
        for name, found in differences.items()
    )
    output: Path = args.output
    return f"""
orb_export demo: {n_atoms} {ELEMENT} atoms, {args.dtype}
LAMMPS, the stock one, with pair_style orbv3
  steps             {steps}
  speed             {thermo.steps_per_second:.1f} steps/s, {cost:.0f} µs/step/atom
  energy drift      {drift:+.1e} eV/atom/ps (standard deviation {spread:.1e} eV/atom)
  temperature       {columns["temp"].mean():.0f} K on average at constant energy
OpenMM, the stock one, with OrbV3Force on platform {run.platform}
  steps             {args.openmm_steps} at constant energy from LAMMPS's last frame on, {TIMESTEP:g} fs
  speed             {run.steps_per_second:.1f} steps/s, {openmm_cost:.0f} µs/step/atom
  energy            standard deviation {np.std(run.energies) / n_atoms:.1e} eV/atom
On the same frame
{compared}
Files
  trajectories      {output / lammps.TRAJECTORY}, {openmm.TRAJECTORY}
  plot              {output / PLOT}
  artefact          {output / ARTEFACT}
The model is a demonstration (see its card, orb_export/data/demo.md), not for production.
"""


if __name__ == "__main__":
    sys.exit(main())
