"""Reduced precisions: how far a model moves when the products of its edges are rounded.

Oracles: stored results of orb-models 0.5.5; the same model in float64 or float32; conservation of energy.
"""

from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from orb_export import artefact, cli, ops
from orb_export.ase import OrbCalculator
from orb_export.contract import MAX_ATOMIC_NUMBER
from orb_export.export import export_model, verify
from orb_export.export.packed import packed
from orb_export.export.precision import accuracy, in_float64, rattled_crystals
from orb_export.export.sources import load_source
from orb_export.model import OrbConfig, OrbV3

from tests import partitions
from tests.accuracy import within
from tests.artefacts import tiny_model
from tests.reference.stored_cases import CAPS, MODELS, largest_error

FLOAT32_BAR = 1e-5  # relative to 1 + |x|, as for float32 itself
CHANGES_WITH_PRECISION = {"three-bfloat16": 1e-8, "bfloat16": 1e-5}


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("precision", ["float32", "three-bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_float32_and_split_float32_equal_upstream(stored, name, precision, cap):
    model = packed(stored.model(name, torch.float32, cap), precision)
    compared = 0
    for structure in stored.structures:
        expected = stored.results("out", name, structure, cap)
        actual = model.predict(stored.graph(structure, cap)) if expected else {}  # refused by upstream
        for result, array in expected.items():
            if not np.isfinite(array).all():
                continue  # upstream divides by the volume of a cell that is not there
            error = largest_error(actual[result], array)
            assert within(f"stored results, packed {precision}, relative", result, error, FLOAT32_BAR), (
                f"{structure} {result}: {error:.1e}"
            )
            compared += 1
    assert compared >= 20 * 3


@pytest.mark.parametrize("kind", ["conservative", "direct"])
def test_split_float32_keeps_the_bars_of_float32_at_full_size(kind):
    torch.manual_seed(3)
    model = OrbV3(OrbConfig(kind, max_neighbors=20)).eval()
    split, exact = packed(model, "three-bfloat16"), in_float64(model)
    bars = verify.TOLERANCES["float32"]
    crystal = bulk("Cu", "fcc", a=3.61) * (2, 2, 2)
    crystal.rattle(0.1, seed=1)
    for atoms in (crystal, *verify.structures()[:3]):
        found, expected = verify.eager_results(split, atoms), verify.eager_results(exact, atoms)
        for quantity, error in verify.differences(found, expected, len(atoms)).items():
            bar = getattr(bars, quantity)
            assert within("full-size float32-split, three products, against float64", quantity, error, bar), (
                quantity
            )


@pytest.fixture(scope="module")
def demo() -> OrbV3:
    return load_source("demo", dtype=torch.float32)


def test_bfloat16_moves_forces_of_the_demonstration_model_by_less_than_10_meV(shared, demo):
    frames = ase.io.read(shared / "data/mlearn_Si/test.xyz", index=":")
    reduced, exact, errors = packed(demo, "bfloat16"), in_float64(demo), []
    for atoms in frames:
        found, expected = verify.eager_results(reduced, atoms), verify.eager_results(exact, atoms)
        errors.append(np.abs(found["forces"] - expected["forces"]).ravel())
    error = float(np.concatenate(errors).mean())
    assert within("demo on mlearn's test set, bfloat16", "forces, mean, eV/Å", error, 0.010)
    assert error > 1e-5  # it did round


def test_bfloat16_dynamics_keep_their_energy(demo):
    """Rounding makes forces noisy by some meV/Å but no less conservative on average."""
    atoms = bulk("Si", "diamond", a=5.43, cubic=True)
    spread = np.sqrt(atoms.get_masses() * 600 * units.kB)
    atoms.set_momenta(np.random.default_rng(4).standard_normal((len(atoms), 3)) * spread[:, None])
    atoms.calc = OrbCalculator(packed(demo, "bfloat16"))
    dynamics, energies = VelocityVerlet(atoms, 1.0 * units.fs), []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy() / len(atoms)), interval=10)
    dynamics.run(300)
    time = np.arange(len(energies)) * 0.01  # ps
    drift = abs(np.polyfit(time, energies, 1)[0])
    assert within("demo, NVE of 0.3 ps, bfloat16", "drift, eV/atom/ps", drift, 5e-3)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("precision") / "model.pt2"
    model = tiny_model("conservative", dtype=torch.float32)
    export_model(model, path, precision="bfloat16", verified=True)
    return path


def test_record_states_precision_and_accuracy(file, capsys):
    record = artefact.read_metadata(file)
    assert (record["precision"], record["dtype"]) == ("bfloat16", "float32")
    accuracy, crystals = record["accuracy"], rattled_crystals(record["elements"])
    assert accuracy["structures"] == len(crystals)
    assert accuracy["atoms"] == sum(map(len, crystals))
    assert 1e-6 < accuracy["forces_mean"] < accuracy["forces_max"] < 0.1 * accuracy["forces_size"] + 1e-3
    assert 0 < accuracy["energy_mean"] <= accuracy["energy_max"] < 1e-2
    assert cli.main(["info", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "precision     bfloat16" in shown
    assert f"against float64 on {len(crystals)} rattled crystals" in shown
    assert accuracy["phonons"]["structures"] == len(crystals)
    assert 0 < accuracy["phonons"]["mean"] < accuracy["phonons"]["max"]
    assert f" of {len(crystals)} crystals, up to " in shown
    assert " ps at constant energy: drift " in shown


@pytest.fixture(scope="module")
def split_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("precision") / "split.pt2"
    model = tiny_model("direct", dtype=torch.float32)
    export_model(model, path, precision="float32-split", with_effects=False, with_steps=False)
    return path


def test_accuracy_of_split_float32_is_that_of_three_products(split_file, capsys):
    record = artefact.read_metadata(split_file)
    crystals = rattled_crystals(record["elements"])
    exact = [
        verify.eager_results(in_float64(tiny_model("direct", dtype=torch.float32)), atoms)
        for atoms in crystals
    ]
    errors = {}
    for always in (False, True):
        found = verify.artefact_results(split_file, crystals, always_split=always)
        errors[always] = accuracy(crystals, found, exact, "rattled crystals")["forces_mean"]
    assert record["accuracy"]["forces_mean"] == pytest.approx(errors[True])
    assert record["accuracy"]["phonons"] == {"skipped": True, "reason": "not asked for"}
    assert (errors[False] != errors[True]) == (not ops.splits_products())
    assert cli.main(["info", str(split_file)]) == 0
    here = "three bfloat16 products for each float32 one" if ops.splits_products() else "plain float32"
    assert f"precision     float32-split, on this processor {here}\n" in capsys.readouterr().out


def close(found: dict[str, Any], expected: dict[str, Any], n_atoms: int) -> bool:
    """Rounded at the same places, but now and then to different sides."""
    bars = verify.TOLERANCES["bfloat16"]
    names = {"energy", "forces", "stress", "confidence"} & found.keys()
    errors = verify.differences({n: found[n] for n in names}, {n: expected[n] for n in names}, n_atoms)
    check = "steps and whole program, bfloat16"
    verdicts = [within(check, name, error, getattr(bars, name)) for name, error in errors.items()]
    return all(verdicts)


@pytest.mark.parametrize("kept", [(2, 2), (1, 2), (0, 1), (0, 0)], ids=str)
def test_steps_round_as_the_whole_program_does(file, kept):
    compiled, crystal = artefact.load(file)._compiled, rattled_crystals([29])[0]
    arguments = partitions.system(crystal, 20).arguments()
    whole = compiled.evaluate(*arguments)
    assert close(compiled.evaluate(*arguments, chunk=70, kept=kept), whole, len(crystal))
    assert close(compiled.evaluate(*arguments, forces=False), whole, len(crystal))


def test_a_memory_limit_is_kept_in_a_reduced_precision(file):
    crystal = rattled_crystals([29])[0] * (3, 3, 3)
    arguments = partitions.system(crystal, 20).arguments()
    least = artefact.load(file).predict_memory(len(arguments[0]), len(arguments[1])).least
    whole, limited = (
        artefact.load(file, memory_limit=m)._compiled.evaluate(*arguments) for m in (None, least)
    )
    assert limited["memory"] <= least < 0.7 * whole["memory"]
    assert close(limited, whole, len(crystal))


@pytest.mark.parametrize("redundant", [False, True])
def test_two_processes_give_what_one_gives_in_a_reduced_precision(file, redundant):
    potential, crystal = artefact.load(file), rattled_crystals([29])[0]
    whole = partitions.system(crystal, 20)
    owners = np.random.default_rng(5).integers(2, size=len(crystal))
    parts = partitions.cut(whole, owners, 2, redundant)
    found = partitions.joined(partitions.evaluate(potential, whole, parts, redundant), parts)
    assert close(found, potential._compiled.evaluate(*whole.arguments()), len(crystal))


@pytest.mark.parametrize("precision", CHANGES_WITH_PRECISION)
def test_each_precision_is_another_function(precision):
    """Fails where the choice is not passed on."""
    model, atoms = tiny_model("conservative", dtype=torch.float32), verify.structures()[-1]
    plain = verify.eager_results(packed(model), atoms)["forces"]
    reduced = verify.eager_results(packed(model, precision), atoms)["forces"]
    assert np.abs(plain - reduced).max() > CHANGES_WITH_PRECISION[precision]


def test_split_float32_is_what_this_processor_computes_fastest():
    model, atoms = tiny_model("conservative", dtype=torch.float32), verify.structures()[-1]
    found = verify.eager_results(packed(model, "float32-split"), atoms)["forces"]
    same = "three-bfloat16" if ops.splits_products() else "float32"
    np.testing.assert_array_equal(found, verify.eager_results(packed(model, same), atoms)["forces"])


def test_reduced_precision_needs_aoti_on_the_cpu(tmp_path):
    model = tiny_model("conservative", dtype=torch.float32)
    with pytest.raises(ValueError, match="`precision` is 'bfloat16', which needs format 'aoti'"):
        export_model(model, tmp_path / "model.pt", format="torchscript", precision="bfloat16")
    with pytest.raises(ValueError, match="`precision` is 'float16' but must be one of"):
        export_model(model, tmp_path / "model.pt2", precision="float16")


@pytest.mark.parametrize("number", range(1, MAX_ATOMIC_NUMBER + 1))
def test_every_element_has_a_crystal_to_measure_accuracy_on(number):
    (atoms,) = rattled_crystals([number])
    assert set(atoms.numbers) == {number}
    assert len(atoms) >= 8


def test_precision_decides_the_dtype(tmp_path):
    model = tiny_model("direct", dtype=torch.float32)
    record = export_model(
        model, tmp_path / "model.pt", format="torchscript", precision="float64", verified=False
    )
    assert (record["precision"], record["dtype"]) == ("float64", "float64")
    assert model.dtype == torch.float32
    assert record["accuracy"] == {"skipped": True}
