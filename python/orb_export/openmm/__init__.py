"""OpenMM with Orb-v3: `OrbV3Force`, a force for all or some particles of a System.

Nothing here loads torch; the plugin opens it when a Context is created.
"""

from orb_export.openmm.force import OrbV3Force, is_orbv3
from orb_export.openmm.results import Evaluation, Timings, evaluations, timings

__all__ = ["Evaluation", "OrbV3Force", "Timings", "evaluations", "is_orbv3", "timings"]
