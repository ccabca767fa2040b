"""The main job from end to end: export the demonstration model, run silicon in LAMMPS and OpenMM, check it.

`python -m orb_export.demo` (or `make demo`) leaves artefact, LAMMPS input and log, trajectories, a plot of
energy and temperature, and a summary in its output directory.
"""

ELEMENT, LATTICE_CONSTANT = "Si", 5.47  # angstrom, PBE
TEMPERATURE = 300.0  # K
TIMESTEP = 1.0  # fs
ARTEFACT = "demo.pt2"
FRAME_EVERY = 50  # steps between frames of the trajectories
