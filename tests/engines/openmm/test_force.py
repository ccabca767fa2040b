"""OrbV3Force as Python sees it: arguments, XML, copies, and what an import loads."""

import copy
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import orb_export
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase.build import molecule  # noqa: E402
from openmm import app, unit  # noqa: E402
from orb_export.artefact import sha256_of_file  # noqa: E402
from orb_export.openmm import OrbV3Force, is_orbv3  # noqa: E402
from orb_export.openmm.plugin import PLUGIN, plugin_path  # noqa: E402

from tests.engines.openmm import systems  # noqa: E402
from tests.processes import printed_by  # noqa: E402

WATER = molecule("H2O")
XML = openmm.XmlSerializer


def water_topology(box: bool = False) -> app.Topology:
    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    for name in ("O", "H1", "H2"):
        topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
    topology.addAtom("M", None, residue)
    if box:
        topology.setPeriodicBoxVectors(np.eye(3))
    return topology


@pytest.mark.parametrize("module", ["openmm", "orb_export.openmm"])
def test_import_loads_the_plugin_and_no_torch(module):
    code = f"""
import {module}, openmm
maps = open("/proc/self/maps").read()
print([name for name in ("{PLUGIN}", "libtorch", "orb_export_runtime") if name in maps])
print([line for line in openmm.Platform.getPluginLoadFailures() if "OrbV3" in line])
"""
    printed = printed_by(code)
    assert printed.split("\n")[:2] == [f"['{PLUGIN}']", "[]"]


def test_torch_is_opened_by_a_context(model):
    code = f"""
import openmm
from orb_export.openmm import OrbV3Force
system = openmm.System()
system.addParticle(1.0)
system.addForce(OrbV3Force({str(model)!r}, [6], periodic=False))
def loaded():
    return "libtorch_cpu" in open("/proc/self/maps").read()
print(loaded())
context = openmm.Context(system, openmm.VerletIntegrator(0.001))
print(loaded(), context.getPlatform().getName())
"""
    printed = printed_by(code)
    # without a wish for a platform OpenMM takes the fastest that has the force
    before, after = printed.split("\n")[:2]
    assert before == "False"
    assert after in ("True CPU", "True OpenCL", "True CUDA", "True HIP")


def test_the_plugin_needs_no_torch():
    # names of needed libraries stand in the file as they are
    content = plugin_path().read_bytes()
    assert b"libOpenMM.so" in content
    for library in (b"libtorch", b"libc10", b"liborb_export_runtime.so.", b"libgomp"):
        assert library not in content


def test_the_plugin_needs_no_python_and_no_platform():
    # so that one build serves every version of Python, with whatever drivers are installed
    content = plugin_path().read_bytes()
    for name in (b"libpython", b"PyObject", b"libOpenMMOpenCL", b"libOpenMMCUDA", b"libcuda", b"libOpenCL"):
        assert name not in content


def test_types_are_shipped():
    assert (Path(orb_export.__file__).parent / "py.typed").is_file()


def test_another_folder_of_plugins_does_not_matter(model, tmp_path):
    code = f"""
import openmm
from orb_export.openmm import OrbV3Force
print(openmm.pluginLoadedLibNames, OrbV3Force({str(model)!r}, [6], periodic=False).numbers)
"""
    printed = printed_by(code, env={"OPENMM_PLUGIN_DIR": str(tmp_path)})
    assert printed == "() [6]\n"


def test_xml_keeps_everything(models):
    force = OrbV3Force(
        models["charged"],
        [8, 1, 1, 6],
        particles=[4, 5, 6, 2],
        periodic=(True, False, True),
        charge=-0.1,
        spin=2,
        scale=0.7,
        device="cpu",
        precision="float64",
        program="steps",
        memory_limit=5_000_000_000,
        threads=2,
        skin=0.123,
        prefix="region",
        force_group=7,
        name="<a & b>",
    )
    text = XML.serialize(force)
    back = OrbV3Force.cast(XML.deserialize(text))
    assert XML.serialize(back) == text
    for written in (
        'version="1"', 'particles="4-6 2"', 'numbers="8 1 1 6"', 'charge="-.1"', 'spin="2"', 'scale=".7"',
        'device="cpu"', 'threads="2"', 'skin=".123"', 'prefix="region"', 'forceGroup="7"',
        'precision="float64"', 'program="steps"', 'memoryLimit="5000000000"',
    ):  # fmt: skip
        assert written in text
    assert back.getName() == "<a & b>"
    assert back.getForceGroup() == 7
    assert back.particles == [4, 5, 6, 2]
    assert back.numbers == [8, 1, 1, 6]
    assert back.periodic == (True, False, True)
    assert back.usesPeriodicBoundaryConditions()
    assert back.prefix == "region"
    assert back.precision == "float64"
    assert back.program == "steps"
    assert back.memory_limit == 5_000_000_000
    assert not back.embedded
    assert back.artefact == models["charged"]
    assert back.sha256 == sha256_of_file(models["charged"])


def test_xml_without_charge_has_none(model):
    text = XML.serialize(OrbV3Force(model, [6], periodic=False))
    assert "charge" not in text
    assert "spin=" not in text
    assert not OrbV3Force(model, [6], periodic=False).usesPeriodicBoundaryConditions()


def test_xml_of_a_large_system_is_small(model):
    rng = np.random.default_rng(1)
    force = OrbV3Force(model, rng.integers(1, 90, 20_000), particles=rng.permutation(20_000), periodic=True)
    text = XML.serialize(force)
    assert len(text) < 1_000_000
    assert XML.serialize(XML.deserialize(text)) == text


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, copy.copy, lambda o: pickle.loads(pickle.dumps(o)), lambda o: XML.clone(o)],
    ids=["deepcopy", "copy", "pickle", "clone"],
)
def test_systems_and_forces_can_be_copied(duplicate, model):
    system = systems.system_of(WATER, systems.force_of(WATER, model, force_group=2))
    other = duplicate(system)
    assert is_orbv3(other.getForce(0))
    assert other.getForce(0).getForceGroup() == 2
    expected = systems.predicted(WATER, model)
    systems.assert_same(systems.measure(systems.context_of(other, WATER.positions)), expected)
    force = duplicate(OrbV3Force.cast(system.getForce(0)))
    alone = systems.system_of(WATER, force)
    systems.assert_same(systems.measure(systems.context_of(alone, WATER.positions)), expected)


def test_forces_of_a_system_are_recognized(model):
    system = systems.system_of(WATER, openmm.HarmonicBondForce(), systems.force_of(WATER, model))
    bonds, plain = system.getForces()
    assert not is_orbv3(bonds)
    assert not is_orbv3(None)
    assert is_orbv3(plain)
    assert isinstance(OrbV3Force.cast(plain), OrbV3Force)
    assert OrbV3Force.cast(plain).numbers == [8, 1, 1]
    with pytest.raises(TypeError, match="must be an OrbV3Force"):
        OrbV3Force.cast(bonds)


def test_cast_is_the_same_force(model):
    system = systems.system_of(WATER, systems.force_of(WATER, model))
    OrbV3Force.cast(system.getForce(0)).setForceGroup(5)
    assert system.getForce(0).getForceGroup() == 5


def test_a_force_belongs_to_one_system(model):
    force = systems.force_of(WATER, model)
    systems.system_of(WATER, force)
    with pytest.raises(Exception, match="does not own its corresponding OpenMM object"):
        systems.system_of(WATER, force)


def test_elements_come_from_the_topology(model):
    force = OrbV3Force(model, water_topology(), particles=[2, 0])
    assert (force.particles, force.numbers) == ([2, 0], [1, 8])


@pytest.mark.parametrize("box", [True, False])
def test_periodicity_comes_from_the_topology(box, model):
    force = OrbV3Force(model, water_topology(box), particles=range(3))
    assert force.periodic == (box, box, box)
    assert OrbV3Force(model, water_topology(box), particles=[0], periodic=False).periodic == 3 * (False,)


def test_paths_may_have_any_characters(model, tmp_path):
    odd = tmp_path / "größe <1> & \"2\" 'three'.pt"
    shutil.copy(model, odd)
    force = OrbV3Force(odd, WATER.numbers, periodic=False)
    assert force.artefact == odd
    result = systems.measure(systems.context_of(systems.system_of(WATER, force), WATER.positions))
    systems.assert_same(result, systems.predicted(WATER, model))


def test_paths_are_absolute(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    assert OrbV3Force(model.name, [6], periodic=False).artefact == model


def test_the_example_of_the_documentation_runs(model, tmp_path, monkeypatch):
    ethanol = molecule("CH3CH2OH")
    topology = app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    for index, symbol in enumerate(ethanol.symbols):
        topology.addAtom(f"{symbol}{index}", app.Element.getBySymbol(symbol), residue)
    monkeypatch.chdir(tmp_path)
    with open("ethanol.pdb", "w") as file:
        app.PDBFile.writeFile(topology, ethanol.positions * unit.angstrom, file)
    shutil.copy(model, "orb.pt2")
    page = (Path(__file__).parents[3] / "docs" / "openmm.md").read_text()
    (example,) = (block for block in re.findall("```python\n(.*?)```", page, re.DOTALL) if "PDBFile" in block)
    names: dict = {}
    exec(example, names)
    assert names["simulation"].currentStep == 1000


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"artefact": "missing.pt"}, FileNotFoundError, "`artefact` is /.*missing.pt, which is no file"),
        ({"artefact": "/"}, FileNotFoundError, "`artefact` is /, which is no file"),
        ({"periodic": None}, ValueError, "`periodic` is missing: it must be given with atomic numbers"),
        ({"periodic": (True, False)}, ValueError, r"`periodic` is \(True, False\) but must be one flag or"),
        ({"periodic": "xy "}, ValueError, "`periodic` is 'xy ' but must be one flag or three"),
        ({"atoms": []}, ValueError, "`particles` is empty"),
        ({"atoms": [8, 1.0]}, TypeError, "`atoms` has 1.0 but must be whole numbers"),
        ({"atoms": [-8]}, ValueError, "`atoms` has -8 but must be at least 0"),
        ({"particles": [0, 1]}, ValueError, "`atoms` has 3 atomic numbers but `particles` has 2 indices"),
        ({"particles": [0, 1, -1]}, ValueError, "`particles` has -1 but must be at least 0"),
        ({"particles": [0, 1, "2"]}, TypeError, "`particles` has '2' but must be whole numbers"),
        ({"particles": [0, 1, True]}, TypeError, "`particles` has True but must be whole numbers"),
        ({"charge": 1}, ValueError, "`spin` is missing: give both `charge` and `spin`, or none"),
        ({"spin": 1}, ValueError, "`charge` is missing: give both"),
        ({"charge": float("nan"), "spin": 1}, ValueError, "`charge` is nan but must be finite"),
        ({"charge": "1", "spin": 1}, TypeError, "`charge` is '1' but must be a number"),
        ({"charge": 0, "spin": -1}, ValueError, "`spin` is -1 but must be finite and at least 0"),
        ({"scale": float("inf")}, ValueError, "`scale` is inf but must be finite"),
        ({"skin": -0.1}, ValueError, "`skin` is -0.1 but must be finite and at least 0"),
        (
            {"precision": "double"},
            ValueError,
            "`precision` is 'double' but must be one of auto, float32, float64",
        ),
        ({"program": "half"}, ValueError, "`program` is 'half' but must be one of auto, whole, steps"),
        ({"memory_limit": -1}, ValueError, "`memory_limit` has -1 but must be at least 0"),
        ({"memory_limit": 8e9}, TypeError, "`memory_limit` has 8000000000.0 but must be whole numbers"),
        ({"threads": -1}, ValueError, "`threads` has -1 but must be at least 0"),
        ({"force_group": 32}, ValueError, "`force_group` has 32 but must be from 0 to 31"),
        ({"atoms": water_topology()}, ValueError, r"`atoms` has no element for atom 3 \(M\): leave it out"),
        ({"atoms": water_topology(), "particles": [4]}, ValueError, "has 4 but the Topology has 4 atoms"),
        (
            {"atoms": water_topology(), "particles": [0], "periodic": True},
            ValueError,
            "`periodic` is True but the Topology has no box vectors",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_arguments_are_refused(changes, error, text, model):
    arguments = {"artefact": model, "atoms": [8, 1, 1], "periodic": False, **changes}
    if "atoms" in changes and "periodic" not in changes and not isinstance(changes["atoms"], list):
        del arguments["periodic"]
    with pytest.raises(error, match=re.compile(text)):
        OrbV3Force(arguments.pop("artefact"), arguments.pop("atoms"), **arguments)


def test_misspelt_arguments_are_refused(model):
    with pytest.raises(TypeError, match="unexpected keyword argument 'devise'"):
        OrbV3Force(model, [6], periodic=False, devise="cpu")
