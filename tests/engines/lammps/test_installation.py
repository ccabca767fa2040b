"""How the plugin is found and opened, and what it says when LAMMPS, torch or the runtime do not fit."""

import importlib.util
import re
import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch
from orb_export.lammps import host, plugin_path

from tests.engines.lammps import runs
from tests.engines.lammps.structures import CASES
from tests.processes import printed_by

PLUGIN = Path(plugin_path()) / "orbv3plugin.so"


def script(model, folder) -> str:
    atoms = CASES["crystal"]
    lines = [
        *runs.setup(atoms, folder),
        *runs.pair(model, atoms),
        "thermo_modify format float %.12g",
        "run 0",
    ]
    return "\n".join(lines)


def test_stock_lmp_runs_the_pair_style(stock_lmp, model, tmp_path):
    done = stock_lmp(script(model, tmp_path), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    header = next(k for k, line in enumerate(lines) if line.split()[:1] == ["Step"])
    energy = float(lines[header + 1].split()[lines[header].split().index("E_pair")])
    expected = runs.evaluate(CASES["crystal"], model, tmp_path).energy
    assert abs(energy - expected) < 1e-8  # as printed


def test_every_partition_of_one_rank_runs(stock_lmp, model, tmp_path):
    done = stock_lmp(
        script(model, tmp_path), tmp_path, ranks=2, arguments=["-partition", "2x1", "-screen", "out"]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for world in (0, 1):
        assert "Total wall time" in (tmp_path / f"out.{world}").read_text()


def test_the_plugin_brings_neither_torch_nor_mpi():
    # names of needed libraries stand in the file as they are
    content = PLUGIN.read_bytes()
    assert b"libstdc++.so" in content
    for library in (b"libtorch", b"libc10", b"libmpi", b"liborb_export_runtime.so.", b"libgomp"):
        assert library not in content


def test_torch_is_opened_by_pair_coeff_and_not_before(model, tmp_path):
    lines = runs.setup(CASES["crystal"], tmp_path)
    code = f"""
from orb_export.lammps import lammps
lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
def loaded():
    maps = open("/proc/self/maps").read()
    return [name for name in ("orbv3plugin.so", "libtorch_cpu.so") if name in maps]

print(loaded())
lmp.commands_list({[*lines, "pair_style orbv3"]!r})
print(loaded())
lmp.command("pair_coeff * * {model} Na Cl")
print(loaded())
"""
    thin, full = "['orbv3plugin.so']", "['orbv3plugin.so', 'libtorch_cpu.so']"
    assert printed_by(code).split("\n")[:3] == [thin, thin, full]


def test_entry_point_names_the_folder_of_the_plugin():
    (entry,) = metadata.entry_points(group="lammps.plugins", name="orbv3")
    folder = entry.load()()
    assert type(folder) is str
    assert (Path(folder) / "orbv3plugin.so").is_file()


@pytest.mark.parametrize("error", [metadata.PackageNotFoundError("orb-export"), OSError("broken record")])
def test_entry_point_never_raises(error, monkeypatch):
    def broken(name):
        raise error

    monkeypatch.setattr(host.metadata, "files", broken)
    assert type(plugin_path()) is str


def test_missing_mpi_is_named(monkeypatch):
    monkeypatch.setattr(host.metadata, "files", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"no MPI library of the `mpich` package; pip install 'lammps"
    ):
        host.lammps()


@pytest.fixture
def other_installation(stock_lmp, model, tmp_path):
    """LAMMPS with a copy of the plugin, in a tree of its own, instead of the installed one."""
    package = importlib.util.find_spec("lammps").submodule_search_locations[0]
    mpi = host._mpi_library().parent
    folder = tmp_path / "site" / "orb_export" / "lib" / "lammps"
    folder.mkdir(parents=True)
    shutil.copy(PLUGIN, folder)

    def run() -> str:
        done = stock_lmp(
            script(model, tmp_path),
            tmp_path,
            program=Path(package) / "lmp",
            LD_LIBRARY_PATH=str(mpi),
            LAMMPS_PLUGIN_PATH=str(folder),
        )
        assert done.returncode != 0
        return done.stdout

    run.plugin = folder / "orbv3plugin.so"
    run.library = folder.parent / "liborb_export_runtime.so"
    run.torch = tmp_path / "site" / "torch"
    return run


def fake_torch(installation, version: str) -> None:
    installation.torch.mkdir()
    (installation.torch / "version.py").write_text(f"debug = False\n__version__ = '{version}'\n")


def test_another_update_of_lammps_is_refused_by_name(other_installation):
    # the same file as if it had been built for another update, which has the same version number
    built_for = b"stable_22Jul2025_update4"
    content = other_installation.plugin.read_bytes()
    assert built_for in content
    other_installation.plugin.write_bytes(content.replace(built_for, b"stable_22Jul2025_update2"))
    assert (
        "Pair style orbv3 was built for LAMMPS stable_22Jul2025_update2 but this is LAMMPS "
        "stable_22Jul2025_update4: install that one (pip install 'lammps[mpi]=="
    ) in other_installation()


def test_another_torch_is_refused_by_name(other_installation):
    fake_torch(other_installation, "2.5.1+cu121")
    message = other_installation()
    assert (
        f"orb_export was built for torch {torch.__version__} but torch 2.5.1+cu121 is installed in" in message
    )
    assert "install orb-export again into the environment of this lmp" in message


def test_missing_runtime_is_named(other_installation):
    fake_torch(
        other_installation, torch.__version__.split("+")[0] + "+cu999"
    )  # another build of the release is fine
    assert (
        f"the runtime {other_installation.library} is missing: install orb-export again"
        in other_installation()
    )


def test_missing_torch_is_named(other_installation):
    shutil.copy(PLUGIN.parent.parent / "liborb_export_runtime.so", other_installation.library)
    message = other_installation()
    assert re.search(r"cannot open the runtime of orb_export \(lib(torch|c10)\w*\.so: cannot open", message)
    assert (
        f"there is no torch in {other_installation.torch}, install torch {torch.__version__} beside"
        in message
    )


def test_broken_runtime_is_named(other_installation):
    fake_torch(other_installation, torch.__version__)
    other_installation.library.write_text("not a library")
    message = other_installation()
    assert "cannot open the runtime of orb_export (" in message
    assert "file too short" in message
    assert "install orb-export again" in message
