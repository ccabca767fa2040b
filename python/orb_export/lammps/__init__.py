"""Stock LAMMPS with `pair_style orbv3`: where its plugin lies, how to start it from Python, its input files.

Imported at every start of LAMMPS (entry point `lammps.plugins`), so nothing here loads torch.
"""

from orb_export.lammps.host import lammps, plugin_path
from orb_export.lammps.inputs import Ensemble, write_input

__all__ = ["Ensemble", "lammps", "plugin_path", "write_input"]
