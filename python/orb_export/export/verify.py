"""Compare an artefact, opened in a fresh process, with the model it was made from.

Run as `python -m orb_export.export.verify FILE STRUCTURES RESULTS` this module is that process: it evaluates
the structures of an ASE .traj file and writes an .npz file. It knows nothing of the model.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from orb_export.contract import MAX_ATOMIC_NUMBER

from . import fresh

if TYPE_CHECKING:
    from ase import Atoms

    from orb_export.model import OrbV3


class Tolerances(NamedTuple):
    """Largest accepted differences between artefact and eager model."""

    energy: float  # eV per atom
    forces: float  # eV/angstrom
    stress: float  # eV/angstrom^3
    confidence: float


# Rounding of the two arithmetics over the depth of the network; the same bars hold against orb-models.
TOLERANCES = {
    "float64": Tolerances(1e-10, 1e-9, 1e-9, 1e-9),
    "float32": Tolerances(1e-5, 1e-4, 1e-5, 1e-4),
    "float32-split": Tolerances(1e-5, 1e-4, 1e-5, 1e-4),
    # eager model and artefact round the same numbers, but now and then to different sides
    "bfloat16": Tolerances(1e-4, 1e-3, 1e-4, 1e-3),
    "tf32": Tolerances(1e-4, 1e-3, 1e-4, 1e-3),
}


def structures(elements: Sequence[int] = range(1, MAX_ATOMIC_NUMBER + 1)) -> "list[Atoms]":
    """Sizes and boundaries that the trace did not see: no edges, one atom, self-images, a crystal.

    Atoms that are not of the given elements are replaced by some that are.
    """
    from ase import Atoms
    from ase.build import bulk, molecule

    rng = np.random.default_rng(7)
    triclinic = Atoms(
        "AlSiO",
        scaled_positions=rng.random((3, 3)),
        cell=[[3.9, 0.0, 0.0], [1.1, 4.2, 0.0], [-0.9, 1.3, 4.6]],
        pbc=True,
    )
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 2)
    crystal.rattle(0.1, seed=3)
    slab = bulk("Cu", "fcc", a=3.61, cubic=True) * (2, 2, 1)
    slab.pbc = (True, True, False)
    slab.rattle(0.05, seed=4)
    named = {
        "isolated atom": Atoms("C"),
        "one-atom cell": bulk("Fe", "bcc", a=2.87),
        "triclinic cell": triclinic,
        "ethanol": molecule("CH3CH2OH"),
        "linear molecule": molecule("CO2"),
        "slab": slab,
        "crystal": crystal,
    }
    for name, atoms in named.items():
        atoms.info = {"name": name, "charge": 1.0, "spin": 2.0}
        atoms.numbers = [z if z in elements else elements[z % len(elements)] for z in atoms.numbers]
    return list(named.values())


def eager_model(model: "OrbV3", precision: str, always_split: bool = False) -> "OrbV3":
    """What an artefact of this precision must equal: the model, or one that rounds where it does.

    `always_split`: float32-split as processors with AMX compute it.
    """
    from orb_export.export.packed import packed
    from orb_export.export.precision import REDUCED
    from orb_export.export.tf32 import in_tf32

    if precision not in REDUCED:
        return model
    if precision == "tf32":
        return in_tf32(model)
    return packed(model, "three-bfloat16" if always_split and precision == "float32-split" else precision)


def eager_results(model: "OrbV3", atoms: "Atoms") -> dict[str, np.ndarray]:
    """`energy`, `forces`, `confidence` and perhaps `stress` of the model in Python."""
    from orb_export import graph

    built = graph.from_atoms(
        atoms, model.config.max_neighbors, needs_charge_spin=model.config.has_charge_spin
    )
    results = model.predict(built.to_device(model.device))
    arrays = {name: value.cpu().numpy() for name, value in results.items() if name != "rotational_grad"}
    return {name: value if name in ("forces", "confidence") else value[0] for name, value in arrays.items()}


def artefact_results(
    file: Path, images: "Sequence[Atoms]", always_split: bool = False
) -> list[dict[str, np.ndarray]]:
    """Results of an artefact in a new process. Raises RuntimeError with that process's last words.

    `always_split`: as for `eager_model`.
    """
    import ase.io

    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "structures.traj", Path(folder) / "results.npz"
        bare = [atoms.copy() for atoms in images]
        ase.io.write(inputs, bare)
        fresh.run(__name__, [file, inputs, outputs], always_split)
        with np.load(outputs) as archive:
            flat = dict(archive)
    results: list[dict[str, np.ndarray]] = [{} for _ in images]
    for key, value in flat.items():
        index, name = key.split("/")
        results[int(index)][name] = value
    return results


def differences(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], n_atoms: int
) -> dict[str, float]:
    """Largest absolute difference of each quantity, of the energy per atom. ValueError if one is missing."""
    if found.keys() != expected.keys():
        raise ValueError(f"verify: the artefact gives {sorted(found)} but the model gives {sorted(expected)}")
    result = {name: float(np.abs(found[name] - expected[name]).max()) for name in expected}
    result["energy"] /= n_atoms
    return result


def verification_and_accuracy(
    file: Path,
    model: "OrbV3",
    precision: str,
    validation: "Sequence[Atoms] | None" = None,
    with_effects: bool = False,
) -> dict[str, Any]:
    """The entries `verification` and `accuracy` of the record of a new artefact, from fresh processes.

    `validation`: structures to measure the accuracy on; default: rattled crystals of the model's elements.
    `with_effects`: also on phonons and dynamics, of the crystals among them that are nearest to equilibrium.
    float32-split enters as processors with AMX compute it, the less accurate of its two ways.
    """
    from orb_export.export import effects
    from orb_export.export.precision import accuracy, in_float64, lattices, rattled_crystals

    elements = model.config.known_elements
    images, given = structures(elements), list(validation or [])
    if validation is not None and not given:
        raise ValueError("export: `validation` has no structures")
    description = "given structures" if given else "rattled crystals"
    measured_on = given or rattled_crystals(elements)
    found = artefact_results(file, [*images, *measured_on], always_split=True)
    eager, exact = eager_model(model, precision, always_split=True), in_float64(model)
    expected = [eager_results(eager, atoms) for atoms in images]
    exact_results = [eager_results(exact, atoms) for atoms in measured_on]
    errors = accuracy(measured_on, found[len(images) :], exact_results, description)
    if with_effects:
        sizes = [np.abs(results["forces"]).mean() for results in exact_results]
        errors |= effects.measured(
            file, exact, [given[k] for k in np.argsort(sizes)] if given else lattices(elements)
        )
    else:
        errors |= effects.skipped("not asked for")
    return {
        "verification": verification(precision, images, found[: len(images)], expected),
        "accuracy": errors,
    }


def verification(
    precision: str,
    images: "Sequence[Atoms]",
    results: Sequence[dict[str, np.ndarray]],
    expected: Sequence[dict[str, np.ndarray]],
) -> dict[str, Any]:
    """The verification record: number of structures, tolerances, largest differences, the verdict."""
    tolerances = TOLERANCES[precision]._asdict()
    largest = dict.fromkeys(tolerances, 0.0)
    for atoms, found, wanted in zip(images, results, expected, strict=True):
        for name, value in differences(found, wanted, len(atoms)).items():
            # written so that a NaN stays
            largest[name] = largest[name] if value <= largest[name] else value
    passed = all(largest[name] <= tolerances[name] for name in tolerances)
    return {
        "structures": len(images),
        "tolerances": tolerances,
        "largest_differences": largest,
        "passed": passed,
    }


def compare(
    file: Path, precision: str, images: "Sequence[Atoms]", expected: Sequence[dict[str, np.ndarray]]
) -> dict[str, Any]:
    """The verification record of an artefact on given structures."""
    return verification(precision, images, artefact_results(file, images), expected)


def failure(record: dict[str, Any]) -> str:
    """One line on what a failed comparison exceeds."""
    found, allowed = record["largest_differences"], record["tolerances"]
    beyond = [
        f"{name} {found[name]:.2e} > {allowed[name]:.0e}"
        for name in allowed
        if not found[name] <= allowed[name]
    ]
    return "verify: artefact and eager model differ: " + ", ".join(beyond)


def _evaluate_in_this_process(file: str, inputs: str, outputs: str) -> None:
    import ase.io

    from orb_export.artefact import load

    potential = load(file)
    arrays: dict[str, Any] = {}
    for index, atoms in enumerate(ase.io.read(inputs, index=":")):
        for name, value in potential.predict(atoms).items():
            arrays[f"{index}/{name}"] = np.asarray(value)
    np.savez(outputs, allow_pickle=False, **arrays)


if __name__ == "__main__":
    _evaluate_in_this_process(*sys.argv[1:])
