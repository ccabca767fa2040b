"""What OrbV3Force tells beyond energy and forces, and what it has cost."""

import ctypes
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import openmm
from numpy.typing import NDArray

from orb_export.contract import CONFIDENCE_BINS
from orb_export.openmm.plugin import library

if TYPE_CHECKING:
    from orb_export.openmm.force import OrbV3Force


class Evaluation(NamedTuple):
    """The potential of one force at the present positions and box of a Context; n particles."""

    energy: float  # kJ/mol, without the scale
    strain_gradient: NDArray[np.float64]  # (3, 3) kJ/mol, dE/d(strain) = volume * stress = minus the virial
    confidence: NDArray[np.float64]  # (n, bins) probabilities of the bins of the expected force error
    forces: NDArray[np.float64]  # (n, 3) kJ/mol/nm, without the scale


class Timings(NamedTuple):
    """What all forces and Contexts of this process have spent since it began."""

    evaluations: int  # of potentials
    energy_evaluations: int  # those among them that skipped the gradient
    graph_builds: int  # searches for candidate neighbors; other evaluations only filter these
    seconds_model: float  # in potentials
    seconds_graph: float  # in the edge search
    seconds_other: float  # in the rest of the force, not in OpenMM


def evaluate(force: "OrbV3Force", context: openmm.Context) -> Evaluation:
    """See `OrbV3Force.evaluate`."""
    if not isinstance(context, openmm.Context):
        raise TypeError(f"OrbV3Force.evaluate: `context` is {context!r} but must be an openmm.Context")
    n_particles = library().orbv3_openmm_num_particles(int(force.this))
    energy, strain_gradient = np.empty(1), np.empty((3, 3))
    confidence, forces = np.empty((n_particles, CONFIDENCE_BINS)), np.empty((n_particles, 3))
    arrays = (energy, strain_gradient, confidence, forces)
    if not library().orbv3_openmm_evaluate(
        int(force.this), int(context.this), *(array.ctypes.data for array in arrays)
    ):
        raise openmm.OpenMMException(library().orbv3_openmm_failure().decode())
    return Evaluation(float(energy[0]), strain_gradient, confidence, forces)


def timings() -> Timings:
    """Counts and seconds of this process, all forces and Contexts together."""
    counts, seconds = (ctypes.c_int64 * 3)(), (ctypes.c_double * 3)()
    library().orbv3_openmm_timings(counts, seconds)
    return Timings(*counts, *seconds)


def evaluations() -> int:
    """How often potentials were evaluated in this process, with or without the gradient."""
    return timings().evaluations
