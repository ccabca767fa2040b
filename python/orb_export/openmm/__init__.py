"""OpenMM with Orb-v3: `OrbV3Force`, a force for all or some particles of a System.

Nothing here loads torch; the plugin opens it when a Context is created. The tag `<OrbV3Force>` of OpenMM's
ForceField is known once `orb_export.openmm.forcefield` is loaded.
"""

from orb_export.openmm import forcefield as _forcefield  # noqa: F401  # makes the tag known
from orb_export.openmm.barostat import StochasticCellRescaling
from orb_export.openmm.force import OrbV3Force, is_orbv3
from orb_export.openmm.linkatoms import add_link_atoms
from orb_export.openmm.multiple_time_steps import TwoModelIntegrator
from orb_export.openmm.reporters import (
    ConfidenceReporter,
    ForceErrorExceeded,
    StressReporter,
    TimingReporter,
)
from orb_export.openmm.results import Evaluation, Timings, evaluations, timings

__all__ = [
    "ConfidenceReporter",
    "Evaluation",
    "ForceErrorExceeded",
    "OrbV3Force",
    "StochasticCellRescaling",
    "StressReporter",
    "TimingReporter",
    "Timings",
    "TwoModelIntegrator",
    "add_link_atoms",
    "evaluations",
    "is_orbv3",
    "timings",
]
