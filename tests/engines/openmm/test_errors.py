"""Every refusal of the plugin, by its text."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase import Atoms  # noqa: E402
from ase.build import molecule  # noqa: E402
from orb_export.artefact import sha256_of_file  # noqa: E402
from orb_export.openmm import OrbV3Force, evaluations  # noqa: E402

from tests.engines.openmm import systems  # noqa: E402

WATER = molecule("H2O")
XML = openmm.XmlSerializer


def failure(*forces: OrbV3Force, atoms: Atoms = WATER) -> str:
    """What the creation of a Context, or else the first evaluation, stops with."""
    with pytest.raises(openmm.OpenMMException) as caught:
        systems.measure(systems.context_of(systems.system_of(atoms, *forces), atoms.positions))
    return str(caught.value)


def water(model: Path, **options) -> OrbV3Force:
    return systems.force_of(WATER, model, **options)


def edited(force: OrbV3Force, old: str, new: str) -> openmm.Force:
    """The force whose XML has `new` instead of `old`."""
    text = XML.serialize(force)
    assert len(re.findall(old, text)) == 1
    return XML.deserialize(re.sub(old, new, text))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"particles": [0, 1, 3]}, "particle 3 is none of the 3 particles of the System"),
        ({"particles": [0, 1, 1]}, "particle 1 was added twice"),
        ({"device": "gpu"}, "`gpu`"),
        ({"device": "cuda:x"}, "cuda:x"),
        ({"device": "cuda:77"}, "cuda:77"),
        ({"charge": 0, "spin": 1}, "`tiny-conservative` does not depend on charge or spin, but"),
        ({"prefix": ""}, "`prefix` is empty"),
        ({"precision": "float32"}, "`precision` is float32 but the artefact /"),
        (
            {"precision": "float32"},
            "computes in float64: export it with --dtype float32, or leave `precision` at",
        ),
    ],
    ids=str,
)
def test_misuse_is_refused(options, text, model):
    message = failure(water(model, **options))
    assert message.startswith("OrbV3Force: ")
    assert text in message, message


def test_precision_is_that_of_the_artefact(models):
    for name, precision in (("float32", "float32"), ("conservative-120", "float64")):
        systems.measure(
            systems.context_of(
                systems.system_of(WATER, water(models[name], precision=precision)), WATER.positions
            )
        )
    assert "`precision` is float64 but the artefact" in failure(water(models["float32"], precision="float64"))


def test_unknown_elements_are_named(model):
    assert failure(OrbV3Force(model, [8, 118, 1], particles=[1, 0, 2], periodic=False)) == (
        "OrbV3Force: particle 0 has atomic number 118, an element that model `tiny-conservative` does not "
        "know"
    )


def test_charge_and_spin_are_required(models):
    assert "depends on the total charge and the spin multiplicity: give both, `charge` and `spin`" in failure(
        water(models["charged"])
    )


@pytest.mark.parametrize(("name", "value"), [("charge", np.nan), ("spin", -1.0), ("spin", np.inf)])
def test_wrong_charge_and_spin_parameters_are_refused(name, value, models):
    force = water(models["charged"], charge=0, spin=1)
    context = systems.context_of(systems.system_of(WATER, force), WATER.positions)
    systems.measure(context)
    context.setParameter(f"orbv3_{name}", value)
    with pytest.raises(openmm.OpenMMException, match=f"OrbV3Force: evaluate: `{name}` is"):
        systems.measure(context)


@pytest.mark.parametrize(("first", "second"), [({"scale": 1.0}, {"scale": 0.5}), ({}, {"scale": 0.0})])
def test_shared_parameters_must_have_one_default(first, second, model):
    message = failure(water(model, **first), water(model, **second))
    assert "the parameter orbv3_scale has the defaults" in message
    assert "in two forces: give one of them another `prefix`" in message


def test_forces_with_other_prefixes_are_independent(model):
    forces = water(model, scale=2.0), water(model, scale=0.5, prefix="other")
    context = systems.context_of(systems.system_of(WATER, *forces), WATER.positions)
    alone = systems.predicted(WATER, model)
    for other in (0.5, -1.0):
        context.setParameter("other_scale", other)
        expected = systems.Result((2 + other) * alone.energy, (2 + other) * alone.forces)
        systems.assert_same(systems.measure(context), expected)


def test_particles_at_the_same_place_are_named(model):
    atoms = Atoms("ArOH2", [[9, 9, 9], [0, 0, 0], [1, 0, 0], [1, 0, 0]])
    message = failure(OrbV3Force(model, [1, 1, 8], particles=[3, 2, 1], periodic=False), atoms=atoms)
    assert re.fullmatch("OrbV3Force: particles (3 and 2|2 and 3) are at the same place", message)


def test_particles_far_too_close_are_named_with_their_distance(model):
    atoms = Atoms("OHH", [[0, 0, 0], [1, 0, 0], [1, 0.009, 0]])
    assert failure(water(model), atoms=atoms) == (
        "OrbV3Force: particles 1 and 2 are 0.009000 angstrom apart, less than 0.010000: the structure is "
        "broken"
    )
    atoms.positions[2, 1] = 0.011  # still absurd, but no broken structure: a minimizer mends it
    systems.measure(systems.context_of(systems.system_of(atoms, water(model)), atoms.positions))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_scale_that_is_not_finite_is_refused(value, model):
    context = systems.context_of(systems.system_of(WATER, water(model)), WATER.positions)
    context.setParameter("orbv3_scale", value)
    with pytest.raises(
        openmm.OpenMMException, match=f"the parameter orbv3_scale is {value} but must be finite"
    ):
        systems.measure(context)


def test_a_box_that_is_not_finite_is_refused(model):
    force = water(model, periodic=True)
    context = systems.context_of(systems.system_of(WATER, force), WATER.positions)
    context.setPeriodicBoxVectors((2, 0, 0), (0, 2, 0), (0, 0, np.nan))
    with pytest.raises(openmm.OpenMMException, match="OrbV3Force: box vector 2 is not finite"):
        systems.measure(context)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_named(value, model):
    context = systems.context_of(systems.system_of(WATER, water(model)), WATER.positions)
    good = systems.measure(context)
    positions = WATER.positions.copy()
    positions[1, 2] = value
    context.setPositions(positions)
    with pytest.raises(openmm.OpenMMException, match="position of particle 1 is not finite"):
        systems.measure(context)
    context.setPositions(WATER.positions * systems.ANGSTROM)  # and the Context can go on
    systems.assert_same(systems.measure(context), good)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda data: data[: len(data) // 2], "is truncated: it begins as a zip archive but"),
        (lambda data: b"", "is not an orb_export artefact: 0 bytes, no zip archive"),
        (lambda data: 9 * b"not a model\n", "is not an orb_export artefact: it is no zip archive"),
        (lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], "altered"),
    ],
    ids=["half", "empty", "text", "one bit"],
)
def test_damaged_artefacts_are_refused(damage, text, model, tmp_path):
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(damage(model.read_bytes()))
    message = failure(water(damaged))
    assert message.startswith(f"OrbV3Force: load: `{damaged}` ")
    assert text in message, message


def test_an_artefact_that_is_gone_is_named(model, tmp_path):
    moved = tmp_path / "moved.pt"
    shutil.copy(model, moved)
    force = water(moved)
    moved.unlink()
    assert failure(force) == f"OrbV3Force: load: `{moved}` does not exist"


def test_an_artefact_that_is_another_is_named_by_both_hashes(models, tmp_path):
    file = tmp_path / "model.pt"
    shutil.copy(models["conservative-20"], file)
    force = water(file)
    shutil.copy(models["conservative-120"], file)
    message = failure(force)
    assert str(file) in message
    assert f"has SHA-256 {sha256_of_file(models['conservative-120'])} but the force was made for " in message
    assert sha256_of_file(models["conservative-20"]) in message


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('device="auto"', 'devise="auto"', "has the attribute `devise`, which OrbV3Force does not have"),
        ('skin=', 'cutoff="6" skin=', "has the attribute `cutoff`, which OrbV3Force does not have"),
        ("/>", "><Particle index='0'/></Force>", "has the element `Particle`, which"),
        ('precision="auto"', "", "precision"),
        ('memoryLimit="0"', 'memoryLimit="much"', "has `much` as `memoryLimit`, which must be a number"),
        ('periodicA="0"', 'periodicA="yes"', "has `yes` as `periodicA`, which must be a number"),
        ('spin="1"', 'spin=""', "has `` as `spin`, which must be a number"),
        ('version="1"', 'version="2"', "has version 2 but this orb_export reads 1"),
        ('particles="0-2"', 'particles="0-1"', "has 2 `particles` but 3 `numbers`"),
        ('particles="0-2"', 'particles="0-2000000000"', "has more `particles` than `numbers`, which are 3"),
        ('particles="0-2"', 'particles="2-0 1"', "has `2-0` where a number or a range is expected"),
        ('particles="0-2"', 'particles="0 1 x"', "has `x` where a number or a range is expected"),
        ('particles="0-2"', 'particles="0 1 2x"', "has `2x` where a number or a range is expected"),
        ('particles="0-2"', 'particles="0 1 -2"', "has `-2` where a number or a range is expected"),
        ('numbers="8 1 1"', 'numbers="8 1 99999999999"', "has `99999999999` where a number"),
        ('charge="0"', "", "has only one of `charge` and `spin`"),
        (' artefact="[^"]*"', "", "artefact"),
        (' sha256="[^"]*"', "", "sha256"),
        (' periodicB="0"', "", "periodicB"),
    ],
)  # fmt: skip
def test_malformed_xml_is_refused(old, new, text, models):
    with pytest.raises(openmm.OpenMMException, match=re.escape(text)):
        edited(water(models["charged"], charge=0, spin=1), old, new)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('numbers="8 1 1"(.*) particles="0-2"', r'numbers=""\1 particles=""', "it has no particles"),
        ('threads="0"', 'threads="-1"', "`threads` is -1 but must not be negative"),
        ('memoryLimit="0"', 'memoryLimit="-1"', "`memory_limit` is -1 but must be bytes, or 0 for no limit"),
        (
            'precision="auto"',
            'precision="half"',
            "`precision` is `half` but must be auto, float32 or float64",
        ),
        (
            'precision="auto"',
            'precision="auto" program="half"',
            "`program` is `half` but must be auto, whole or steps",
        ),
        ('sha256="..', 'sha256="../', "but must be 64 hexadecimal digits, or empty"),
        ('skin=".1"', 'skin="-1"', "`skin` is -1.000000 nm but must be finite and not negative"),
        ('scale="1"', 'scale="nan"', "`scale` is nan but must be finite"),
    ],
)
def test_settings_of_xml_are_checked(old, new, text, model):
    assert text in failure(edited(water(model), old, new))


def test_a_failed_evaluation_is_not_kept(models):
    force = water(models["charged"], charge=0, spin=1)
    context = systems.context_of(systems.system_of(WATER, force), WATER.positions)
    context.setParameter("orbv3_charge", np.nan)
    before = evaluations()
    for _ in range(2):
        with pytest.raises(openmm.OpenMMException, match="`charge` is nan"):
            systems.measure(context)
    assert evaluations() == before + 2
