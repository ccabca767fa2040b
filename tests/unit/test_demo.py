"""The parts of `make demo` that turn output into numbers. Oracles: series whose slope is known; Python."""

import re

import ase.units
import numpy as np
import orb_export
import pytest
import torch
from ase.io import read
from orb_export import artefact, export
from orb_export.demo import __main__ as demo
from orb_export.demo import lammps
from orb_export.demo.lammps import COLUMNS, Thermo
from orb_export.demo.openmm import Run, run_openmm
from orb_export.demo.plot import plot
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
    assert lammps.energy_drift(series(slope, 64), 64) == pytest.approx(slope, abs=1e-8)


def test_last_frame_is_read_with_all_digits(tmp_path):
    atoms = lammps.write_lammps_files(tmp_path, cells=1, nvt_steps=1, nve_steps=1)
    generator = np.random.default_rng(2)
    rows = generator.normal(size=(len(atoms), 6))
    text = "".join(f"{i + 1} 1 " + " ".join(f"{x:.17g}" for x in row) + " \n" for i, row in enumerate(rows))
    (tmp_path / "last.dump").write_text(f"ITEM: TIMESTEP\n2\nITEM: ATOMS id type x y z fx fy fz \n{text}")
    frame, forces = lammps.read_last_frame(tmp_path / "last.dump", atoms)
    assert np.array_equal(frame.positions, rows[:, :3])
    assert np.array_equal(forces, rows[:, 3:])
    assert np.array_equal(frame.cell, atoms.cell)


def test_data_file_holds_the_crystal(tmp_path):
    atoms = lammps.write_lammps_files(tmp_path, cells=2, nvt_steps=1, nve_steps=1)
    stored = read(tmp_path / "structure.data", format="lammps-data")
    assert len(stored) == 64
    assert set(stored.get_chemical_symbols()) == {"Si"}
    assert np.abs(stored.positions - atoms.positions).max() < 1e-10


def test_plot_is_written(tmp_path):
    plot(series(1e-5, 64), 64, tmp_path / "plot.png")
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


def test_openmm_starts_at_the_frame_and_keeps_its_energy(tmp_path):
    """The other half of `make demo`, with a TorchScript file, which is made in a second."""
    pytest.importorskip("openmm", reason="needs the openmm wheel")
    file = tmp_path / "demo.pt"
    export.export_model(load_source("demo", dtype=torch.float64), file, format="torchscript", verified=False)
    frame = lammps.write_lammps_files(tmp_path, cells=1, nvt_steps=1, nve_steps=1)
    frame.rattle(0.05, seed=3)
    run = run_openmm(tmp_path, file, frame, 55)
    expected = orb_export.load(file).predict(frame)
    found = demo.difference((run.forces, run.potential), (expected["forces"], expected["energy"]))
    assert found.force < 1e-9
    assert found.energy < 1e-10
    assert len(run.energies) == 7  # of step 0, 10, ..., 50, 55
    assert np.std(run.energies) / len(frame) < 1e-4
    kinetic = run.energies[0] - run.potential
    assert kinetic == pytest.approx(1.5 * len(frame) * 300 * ase.units.kB, rel=0.6)
    assert (tmp_path / "openmm.dcd").stat().st_size > 0


def test_difference_is_the_largest_of_forces_and_that_per_atom_of_energies():
    forces = np.arange(6.0).reshape(2, 3)
    found = demo.difference((forces, 3.0), (forces + np.array([[0, 0, 0.5], [-0.75, 0, 0]]), 4.0))
    assert found == (0.75, 0.5)


def run_of(n_atoms):
    return Run(np.zeros((n_atoms, 3)), -1.0, n_atoms * np.array([0.0, 2e-6]), "Reference", 20.0)


def test_summary_fits_one_screen_and_states_the_figures(tmp_path):
    args = demo.parser().parse_args(["--output", str(tmp_path)])
    differences = {"LAMMPS - Python": demo.Difference(3e-7, 4e-9)}
    text = demo.summary(args, series(2e-5, 64), run_of(64), differences)
    assert len(text.splitlines()) < 24
    for figure in (
        "10.0 steps/s",
        r"\+2.0e-05 eV/atom/ps",
        "3.0e-07 eV/Å, energy by 4.0e-09 eV/atom",
        "300 K",
        "20.0 steps/s, 781 µs/step/atom",
        "deviation 1.0e-06 eV/atom",
        "platform Reference",
    ):
        assert re.search(figure, text), figure
    assert str(tmp_path / "trajectory.lammpstrj") in text


@pytest.mark.parametrize("wrong", ["LAMMPS", "OpenMM"])
def test_a_disagreement_fails_and_says_which(wrong, tmp_path, monkeypatch, capsys):
    atoms = lammps.write_lammps_files(tmp_path, cells=1, nvt_steps=1, nve_steps=1)
    forces = {name: np.full((len(atoms), 3), 1e-3 * (name == wrong)) for name in ("LAMMPS", "OpenMM")}

    class Potential:
        def predict(self, frame):
            return {"energy": -340.0, "forces": np.zeros((len(frame), 3))}

    thermo = series(0.0, len(atoms))
    run = run_of(len(atoms))._replace(forces=forces["OpenMM"])
    monkeypatch.setattr(demo, "export", lambda *_: tmp_path / "demo.pt2")
    monkeypatch.setattr(lammps, "run_lammps", lambda *_: thermo)
    monkeypatch.setattr(lammps, "read_last_frame", lambda *_: (atoms, forces["LAMMPS"]))
    monkeypatch.setattr(demo.openmm, "run_openmm", lambda *_: run)
    monkeypatch.setattr(orb_export, "load", lambda _: Potential())
    assert demo.main(["--output", str(tmp_path)]) == 1
    assert f"demo: {wrong} - Python: forces differ by 1.0e-03 eV/Å" in capsys.readouterr().err
    forces["LAMMPS"][:] = forces["OpenMM"][:] = 0.0
    assert demo.main(["--output", str(tmp_path)]) == 0


@pytest.mark.parametrize("option", ["--nve-steps", "--openmm-steps"])
def test_bad_counts_are_refused(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        demo.main(["--output", str(tmp_path), option, "0"])
    assert "must be positive" in capsys.readouterr().err
