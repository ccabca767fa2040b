"""A picture of the LAMMPS run."""

from pathlib import Path

from orb_export.demo import ELEMENT, TIMESTEP
from orb_export.demo.lammps import COLUMNS, Thermo


def plot(thermo: Thermo, n_atoms: int, path: Path) -> None:
    """Energies per atom relative to the end, and the temperature, against time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    energy, temperature = figure.subplots(2, 1, sharex=True)
    for rows, style in ((thermo.nvt, "--"), (thermo.nve, "-")):
        columns = dict(zip(COLUMNS, rows.T, strict=True))
        picoseconds = columns["step"] * TIMESTEP * 1e-3
        for name, color in (("etotal", "black"), ("pe", "tab:blue")):
            last = thermo.nve[-1, COLUMNS.index(name)]
            label = {"etotal": "total", "pe": "potential"}[name] if style == "-" else None
            energy.plot(picoseconds, 1e3 * (columns[name] - last) / n_atoms, style, color=color, label=label)
        temperature.plot(picoseconds, columns["temp"], style, color="tab:red")
    switch = thermo.nve[0, 0] * TIMESTEP * 1e-3
    for axes in (energy, temperature):
        axes.axvline(switch, color="gray", linewidth=0.8)
        axes.grid(alpha=0.3)
    energy.set_ylabel("energy - last / (meV/atom)")
    energy.legend()
    energy.set_title(f"{n_atoms} {ELEMENT} atoms: constant temperature (dashed), constant energy (solid)")
    temperature.set_ylabel("temperature / K")
    temperature.set_xlabel("time / ps")
    figure.savefig(path, dpi=120)
