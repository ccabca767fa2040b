"""What does not fit around the plugin: other releases of torch or OpenMM, a missing or broken runtime."""

import shutil
from pathlib import Path

import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

import torch  # noqa: E402
from ase.build import molecule  # noqa: E402
from orb_export.openmm.plugin import PLUGIN, plugin_path  # noqa: E402

from tests.engines.openmm import systems  # noqa: E402
from tests.processes import printed_by  # noqa: E402

WATER = molecule("H2O")


def other_installation(model: Path, site: Path) -> str:
    """What a Context says of a copy of the plugin in a tree of its own."""
    plugins = site / "OpenMM.libs" / "lib" / "plugins"
    (site / "orb_export" / "lib").mkdir(parents=True, exist_ok=True)
    plugins.mkdir(parents=True, exist_ok=True)
    shutil.copy(plugin_path(), plugins)
    force = openmm.XmlSerializer.serialize(systems.force_of(WATER, model))
    code = f"""
import openmm
system = openmm.System()
for _ in range(3):
    system.addParticle(1.0)
system.addForce(openmm.XmlSerializer.deserialize({force!r}))
try:
    openmm.Context(system, openmm.VerletIntegrator(0.001))
except openmm.OpenMMException as error:
    print(error)
"""
    return printed_by(code, env={"OPENMM_PLUGIN_DIR": str(plugins)})


def fake_torch(site: Path, version: str) -> Path:
    (site / "torch").mkdir()
    (site / "torch" / "version.py").write_text(f"debug = False\n__version__ = '{version}'\n")
    return site / "torch"


def test_another_torch_is_refused_by_name(model, tmp_path):
    torch_folder = fake_torch(tmp_path, "2.5.1+cu121")
    message = other_installation(model, tmp_path)
    assert (
        f"OrbV3Force: orb_export was built for torch {torch.__version__} but torch 2.5.1+cu121 is "
        f"installed in {torch_folder}: install orb-export again into the environment of this openmm (pip"
    ) in message


def test_missing_runtime_is_named(model, tmp_path):
    fake_torch(tmp_path, torch.__version__.split("+")[0] + "+cu999")  # another build of the release is fine
    library = tmp_path / "orb_export" / "lib" / "liborb_export_runtime.so"
    message = other_installation(model, tmp_path)
    assert f"OrbV3Force: the runtime {library} is missing: install orb-export again" in message


def test_broken_runtime_is_named(model, tmp_path):
    fake_torch(tmp_path, torch.__version__)
    library = tmp_path / "orb_export" / "lib" / "liborb_export_runtime.so"
    library.parent.mkdir(parents=True)
    library.write_text("not a library")
    message = other_installation(model, tmp_path)
    assert "OrbV3Force: cannot open the runtime of orb_export (" in message
    assert "file too short" in message


def test_another_openmm_is_refused_by_name(model, tmp_path):
    # the same library as if it had been built for another release; here OpenMM is 8.6
    content = plugin_path().read_bytes()
    assert content.count(b"\x008.6\x00") == 1
    other = tmp_path / PLUGIN
    other.write_bytes(content.replace(b"\x008.6\x00", b"\x008.5\x00"))
    code = f"""
import openmm
from pathlib import Path
from orb_export.openmm import plugin
plugin.plugin_path = lambda: Path({str(other)!r})
try:
    plugin.library()
except RuntimeError as error:
    print(error)
"""
    printed = printed_by(code, env={"OPENMM_PLUGIN_DIR": str(tmp_path)})
    assert f"{other} was built for OpenMM 8.5 but this is OpenMM 8.6" in printed
