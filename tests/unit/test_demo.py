"""The parts of `make demo` that turn LAMMPS's output into numbers. Oracle: series whose slope is known."""

import re

import numpy as np
import orb_export
import pytest
import torch
from ase.io import read
from orb_export import artefact, demo, export
from orb_export.demo import COLUMNS, Thermo
from orb_export.export.record import weights_sha256
from orb_export.export.sources import load_source


def series(slope, n_atoms):
    """One picosecond at constant energy in which each atom gains `slope` eV/ps, under a fast oscillation."""
    step = np.arange(0, 1001, 10.0)
    table = np.zeros((len(step), len(COLUMNS)))
    table[:, COLUMNS.index("step")] = 500 + step
    table[:, COLUMNS.index("temp")] = 300
    energy = -340.0 + n_atoms * (slope * step * 1e-3 + 1e-9 * np.cos(step))
    table[:, COLUMNS.index("etotal")] = table[:, COLUMNS.index("pe")] = energy
    return Thermo(nvt=table - [500, *[0] * (len(COLUMNS) - 1)], nve=table, steps_per_second=10.0)


@pytest.mark.parametrize("slope", [2e-5, -3e-6, 0.0])
def test_drift_is_the_slope_of_the_total_energy_per_atom(slope):
    assert demo.energy_drift(series(slope, 64), 64) == pytest.approx(slope, abs=1e-8)


def test_last_frame_is_read_with_all_digits(tmp_path):
    atoms = demo.write_lammps_files(tmp_path, cells=1, nvt_steps=1, nve_steps=1)
    generator = np.random.default_rng(2)
    rows = generator.normal(size=(len(atoms), 6))
    text = "".join(f"{i + 1} 1 " + " ".join(f"{x:.17g}" for x in row) + " \n" for i, row in enumerate(rows))
    (tmp_path / "last.dump").write_text(f"ITEM: TIMESTEP\n2\nITEM: ATOMS id type x y z fx fy fz \n{text}")
    frame, forces = demo.read_last_frame(tmp_path / "last.dump", atoms)
    assert np.array_equal(frame.positions, rows[:, :3])
    assert np.array_equal(forces, rows[:, 3:])
    assert np.array_equal(frame.cell, atoms.cell)


def test_data_file_holds_the_crystal(tmp_path):
    atoms = demo.write_lammps_files(tmp_path, cells=2, nvt_steps=1, nve_steps=1)
    stored = read(tmp_path / "structure.data", format="lammps-data")
    assert len(stored) == 64
    assert set(stored.get_chemical_symbols()) == {"Si"}
    assert np.abs(stored.positions - atoms.positions).max() < 1e-10


def test_plot_is_written(tmp_path):
    demo.plot(series(1e-5, 64), 64, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_an_artefact_is_used_again_only_if_weights_and_versions_fit(tmp_path, monkeypatch):
    made = []

    def fake_export(model, path, **options):
        made.append(path)
        path.write_text("artefact")

    monkeypatch.setattr(export, "export_model", fake_export)
    path = demo.export(tmp_path, "float32")
    assert made == [path]
    record = {
        "weights_sha256": weights_sha256(load_source("demo", dtype=torch.float32)),
        "dtype": "float32",
        "torch_version": torch.__version__,
        "orb_export_version": orb_export.__version__,
    }
    monkeypatch.setattr(artefact, "read_metadata", lambda _: record)
    assert demo.export(tmp_path, "float32") == path
    assert len(made) == 1
    demo.export(tmp_path, "float64")
    assert len(made) == 2
    record["weights_sha256"] = "0" * 64
    demo.export(tmp_path, "float32")
    assert len(made) == 3


def test_summary_fits_one_screen_and_states_the_figures(tmp_path):
    args = demo.parser().parse_args(["--output", str(tmp_path)])
    atoms = demo.write_lammps_files(tmp_path, cells=2, nvt_steps=1, nve_steps=1)
    text = demo.summary(args, atoms, series(2e-5, 64), 2e-5, 3e-7, 4e-9)
    assert len(text.splitlines()) < 24
    for figure in ("10.0 steps/s", r"\+2.0e-05 eV/atom/ps", "3.0e-07 eV/Å", "300 K"):
        assert re.search(figure, text), figure
    assert str(tmp_path / "trajectory.lammpstrj") in text


def test_bad_counts_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        demo.main(["--output", str(tmp_path), "--nve-steps", "0"])
    assert "must be positive" in capsys.readouterr().err
