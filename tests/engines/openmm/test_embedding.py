"""Artefacts inside the force, so that the XML of a System needs no other file."""

import copy
import os
import stat
from pathlib import Path

import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase.build import molecule  # noqa: E402
from orb_export.openmm import OrbV3Force, timings  # noqa: E402
from orb_export.openmm import force as force_module  # noqa: E402

from tests.engines.openmm import systems  # noqa: E402
from tests.processes import printed_by  # noqa: E402

WATER = molecule("H2O")
XML = openmm.XmlSerializer


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """The folder of temporary files, empty."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def gone(model, tmp_path) -> OrbV3Force:
    """A force that carries its artefact, whose file is there no more; Systems get copies of it."""
    file = tmp_path / "model.pt"
    file.write_bytes(model.read_bytes())
    force = systems.force_of(WATER, file, embed=True)
    file.unlink()
    return force


def measure(force: openmm.Force) -> systems.Result:
    system = systems.system_of(WATER, copy.deepcopy(force))
    return systems.measure(systems.context_of(system, WATER.positions))


def test_the_file_is_not_needed(gone, model):
    assert gone.embedded
    expected = systems.predicted(WATER, model)
    text = XML.serialize(systems.system_of(WATER, copy.deepcopy(gone)))
    system = XML.deserialize(text)
    assert XML.serialize(system) == text
    systems.assert_same(systems.measure(systems.context_of(system, WATER.positions)), expected)
    systems.assert_same(measure(gone), expected)


def test_it_can_be_read_again_while_a_context_lives(model, tmp_path):
    """Energies without forces open more of the artefact, when the first is asked for."""
    file = tmp_path / "model.pt"
    file.write_bytes(model.read_bytes())
    integrator = openmm.CustomIntegrator(0.001)
    integrator.addGlobalVariable("result", 0.0)
    integrator.addComputeGlobal("result", "energy")
    system = systems.system_of(WATER, systems.force_of(WATER, file, embed=True))
    file.unlink()
    context = systems.context_of(system, WATER.positions, integrator=integrator)
    before = timings().energy_evaluations
    for scale in (1.0, 1.01):
        moved = WATER.copy()
        moved.positions *= scale
        context.setPositions(moved.positions * systems.ANGSTROM)
        integrator.step(1)
        energy = integrator.getGlobalVariableByName("result") / systems.KJ_PER_MOL
        assert abs(energy - systems.predicted(moved, model).energy) < 1e-9
    assert timings().energy_evaluations == before + 1


def test_compiled_artefacts_too(compiled_model, model, tmp_path):
    file = tmp_path / "model.pt2"
    file.write_bytes(compiled_model.read_bytes())
    force = systems.force_of(WATER, file, embed=True)
    file.unlink()
    systems.assert_same(measure(force), systems.predicted(WATER, model))


def test_another_process_needs_nothing_else(gone):
    code = """
import sys, openmm
system = openmm.XmlSerializer.deserialize(sys.stdin.read())
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU"))
context.setPositions([(0, 0, 0.0119), (0, 0.0763, -0.0477), (0, -0.0763, -0.0477)])
print(context.getState(energy=True).getPotentialEnergy()._value < 0)
"""
    xml = XML.serialize(systems.system_of(WATER, copy.deepcopy(gone)))
    assert printed_by(code, stdin=xml) == "True\n"


def test_the_temporary_file_is_private_and_goes_with_the_context(gone, scratch):
    context = systems.context_of(systems.system_of(WATER, copy.deepcopy(gone)), WATER.positions)
    (folder,) = scratch.glob("orbv3-*")
    (file,) = folder.iterdir()
    assert file.name == f"{gone.sha256}.pt"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second = systems.context_of(systems.system_of(WATER, copy.deepcopy(gone)), WATER.positions)
    assert len(list(scratch.glob("orbv3-*"))) == 1  # both share it
    del context, second
    assert not list(scratch.glob("orbv3-*"))


def test_a_folder_that_cannot_be_written_is_named(gone, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(openmm.OpenMMException, match=r"OrbV3Force: TMPDIR is .*missing, which is no folder"):
        measure(gone)


def test_settings_are_read_without_the_artefact(gone):
    assert gone.numbers == [8, 1, 1]
    assert gone.memory_limit == 0


def test_forces_without_it_do_not_carry_it(model):
    force = systems.force_of(WATER, model)
    assert not force.embedded
    assert "base64" not in XML.serialize(force)


def altered(force: OrbV3Force, change) -> openmm.Force:
    head, _, rest = XML.serialize(force).partition('base64="')
    content, _, tail = rest.partition('"')
    return XML.deserialize(f'{head}base64="{change(content)}"{tail}')


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda content: content[:-1], "has an artefact inside that is no base64: it has"),
        (lambda content: content[:100] + "*" + content[101:], "is no base64: letter 100 is none of its"),
        (lambda content: content + "====", "is no base64: it has"),
    ],
    ids=["short", "letter", "padding"],
)
def test_what_is_no_base64_is_refused(change, text, gone):
    with pytest.raises(openmm.OpenMMException, match=text):
        altered(gone, change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda content: content[:4000], "is truncated"),
        (lambda content: "", "is not an orb_export artefact: 0 bytes"),
        (lambda content: content[:4000] + content[4000:4004].swapcase() + content[4004:], "altered"),
    ],
    ids=["half", "empty", "altered"],
)
def test_damaged_artefacts_are_refused(change, text, models, scratch):
    force = systems.force_of(WATER, models["direct-20"], embed=True)
    with pytest.raises(openmm.OpenMMException, match=text):
        measure(altered(force, change))
    assert not list(scratch.glob("orbv3-*"))


def test_another_artefact_is_refused_by_both_hashes(gone, models, scratch):
    other = systems.force_of(WATER, models["conservative-20"], embed=True)
    swapped = XML.deserialize(XML.serialize(other).replace(other.sha256, gone.sha256))
    with pytest.raises(openmm.OpenMMException) as caught:
        measure(swapped)
    assert str(caught.value) == (
        f"OrbV3Force: the artefact inside the XML has SHA-256 {other.sha256} but the force was made for "
        f"{gone.sha256}"
    )
    assert not list(scratch.glob("orbv3-*"))


def test_large_artefacts_warn_and_very_large_ones_are_refused(model, monkeypatch, tmp_path):
    monkeypatch.setattr(force_module, "EMBED_WARNING", 1000)
    with pytest.warns(UserWarning, match="`embed` puts .* into the force: every copy and XML"):
        systems.force_of(WATER, model, embed=True)
    huge = tmp_path / "huge.pt"
    huge.touch()
    os.truncate(huge, force_module.EMBED_LIMIT + 1)
    with pytest.raises(ValueError, match=r"`embed` is True but .*huge\.pt has 1073741825 bytes, more than"):
        systems.force_of(WATER, huge, embed=True)
