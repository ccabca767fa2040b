"""The examples, run as a user runs them, with tiny models of random weights."""

import importlib.util
from pathlib import Path
from types import ModuleType

import ase.io
import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from orb_export.artefact import read_metadata  # noqa: E402
from orb_export.openmm import OrbV3Force, evaluations, is_orbv3  # noqa: E402
from orb_export.openmm.preflight import Plan, examine  # noqa: E402
from orb_export.openmm.structures import Structure, boxed_for_openmm, read_biomolecular  # noqa: E402

from tests.accuracy import within  # noqa: E402
from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[3] / "openmm_plugin/examples"
TESTED = {"carbonic_anhydrase", "crystal_npt", "multiple_time_steps", "peptide_ml_mm", "water_box"}


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object):
    return example(name).main([str(argument) for argument in arguments])


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED


def test_water_box(model, tmp_path):
    file = tmp_path / "water.dcd"
    simulation = run("water_box", "--model", model, "--edge", 0.9, "--steps", 20, "--output", file)
    system = simulation.system
    assert system.getNumConstraints() == 0  # flexible
    assert [is_orbv3(force) for force in system.getForces()].count(True) == 1
    rows = np.genfromtxt(f"{file}.csv", delimiter=",", skip_header=1)
    assert list(rows[:, 0]) == list(range(2, 21, 2))
    assert np.isfinite(rows).all()
    atoms = system.getNumParticles()
    assert file.stat().st_size == 276 + 10 * (56 + 3 * (8 + 4 * atoms))


def test_crystal_at_constant_pressure(model, tmp_path, capsys):
    ase.io.write(tmp_path / "crystal.xyz", CASES["crystal"])
    options = ["--steps", 40, "--output", tmp_path / "stress.csv"]
    simulation = run("crystal_npt", tmp_path / "crystal.xyz", "--model", model, *options)
    assert "40 steps, 40 evaluations" in capsys.readouterr().out
    box = simulation.context.getState().getPeriodicBoxVectors(asNumpy=True)._value
    before = boxed_for_openmm(CASES["crystal"]).cell.array / 10
    assert len(set(np.diag(box) / np.diag(before))) == 3  # each axis by itself
    assert len((tmp_path / "stress.csv").read_text().splitlines()) == 11


def test_peptide_in_classical_water(model, shared, tmp_path, capsys):
    pdb = shared / "data/proteins/solvated/alanine-dipeptide-explicit.pdb"
    options = ["--steps", 4, "--output", tmp_path / "peptide.dcd"]
    simulation = run("peptide_ml_mm", pdb, "--model", model, *options)
    assert "22 of 2269 atoms by conservative-120.pt" in capsys.readouterr().out
    system = simulation.system
    (force,) = (OrbV3Force.cast(force) for force in system.getForces() if is_orbv3(force))
    residues = [atom.residue.name for atom in simulation.topology.atoms()]
    assert {residues[index] for index in force.particles} == {"ACE", "ALA", "NME"}
    constrained = {
        i for k in range(system.getNumConstraints()) for i in system.getConstraintParameters(k)[:2]
    }
    assert constrained == {index for index, name in enumerate(residues) if name == "HOH"}


def test_multiple_time_steps_are_those_of_the_conservative_model(models, tmp_path, capsys):
    atoms = CASES["molecule"]
    ase.io.write(tmp_path / "molecule.xyz", atoms)
    options = ["--conservative", models["conservative-120"], "--direct", models["direct-20"], "--steps", 6]
    simulation = run("multiple_time_steps", tmp_path / "molecule.xyz", *options)
    assert "6.00 evaluations for each outer step" in capsys.readouterr().out
    now = atoms.copy()
    now.positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value * 10
    expected = systems.predicted(now, models["conservative-120"])
    systems.assert_same(systems.measure(simulation.context), expected)


# Carbonic anhydrase II: the deposited file is the only input.


@pytest.fixture(scope="module")
def enzyme(shared, tmp_path_factory) -> tuple[ModuleType, Path, Path]:
    """The example, the deposited file, and the prepared one, with less relaxation than a user takes."""
    pytest.importorskip("pdbfixer", reason="needs pdbfixer")
    script = example("carbonic_anhydrase")
    script.RELAXATION = 15
    deposited = shared / "data/proteins/carbonic_anhydrase_II/1CA2.pdb"
    prepared = tmp_path_factory.mktemp("enzyme") / "prepared.pdb"
    script.prepared_once(deposited, prepared)
    return script, deposited, prepared


def coordination(structure: Structure) -> dict[str, float]:
    """Atoms within 2.5 angstrom of the zinc, hydrogens left out, and their distances."""
    zinc = int(np.flatnonzero(structure.numbers == 30)[0])
    apart = structure.positions - structure.positions[zinc]
    apart -= np.diag(structure.box) * np.round(apart / np.diag(structure.box))
    distances = 10 * np.linalg.norm(apart, axis=1)
    near = [index for index in np.argsort(distances)[1:20] if distances[index] < 2.5]
    atoms = list(structure.topology.atoms())
    return {
        f"{atoms[index].name} {atoms[index].residue.id}": float(distances[index])
        for index in near
        if structure.numbers[index] != 1
    }


def test_the_enzyme_is_whole_solvated_and_neutral(enzyme, shared):
    _, deposited, prepared = enzyme
    structure = read_biomolecular(prepared)
    names = [residue.name for residue in structure.topology.residues()]
    assert len(structure.numbers) > 20000
    assert names.count("ZN") == 1
    assert all(50 < 10 * edge < 72 for edge in np.diag(structure.box))
    # three histidines and the hydroxide at the distances of the crystal, and nothing else
    assert coordination(structure).keys() == {"NE2 94", "NE2 96", "ND1 119", "O 263"}
    assert all(1.8 < distance < 2.2 for distance in coordination(structure).values())
    hydrogens = {
        residue.id: {atom.name for atom in residue.atoms()} & {"HD1", "HE2"}
        for residue in structure.topology.residues()
        if residue.id in ("94", "96", "119") and residue.name == "HIS"
    }
    assert hydrogens == {"94": {"HD1"}, "96": {"HD1"}, "119": {"HE2"}}
    assert names.count("OH") == 1
    waters = names.count("HOH")
    salt = round(0.1 * waters / 55.4)
    assert abs(min(names.count("NA"), names.count("CL")) - salt) <= 1
    # the other preparation of the same protein: as many residues of each kind, ions and water aside
    other = read_biomolecular(shared / "data/proteins/carbonic_anhydrase_II/ca2_solvated_20k_300K.pdb")
    solvent = {"HOH", "OH", "NA", "CL"}
    others = [residue.name for residue in other.topology.residues()]
    assert sorted(set(names) - solvent) == sorted(set(others) - solvent)
    assert [n for n in names if n not in solvent] == [n for n in others if n not in solvent]
    # nothing that forbids a run
    record = {"elements": [1, 6, 7, 8, 11, 16, 17, 30], "model": "m", "kind": "direct", "cutoff": 6.0}
    found = examine(structure, {**record, "has_charge_spin": False}, Plan(timestep=1.0))
    assert [finding for finding in found if finding.level == "error"] == []
    # heavy atoms of the crystal stay where they were found
    crystal = read_biomolecular(deposited)
    heavy = {(a.residue.id, a.name): i for i, a in enumerate(structure.topology.atoms()) if i < 4034}
    pairs = [
        (index, heavy[atom.residue.id, atom.name])
        for index, atom in enumerate(crystal.topology.atoms())
        if atom.residue.name not in ("HOH", "ZN")
    ]
    moved = crystal.positions[[i for i, _ in pairs]] - structure.positions[[j for _, j in pairs]]
    assert len(pairs) == deposited.read_text().count("\nATOM")
    assert np.ptp(moved, axis=0).max() < 2e-4  # nm; the rounding of PDB files


def test_the_prepared_enzyme_is_used_again_unless_the_choices_change(enzyme):
    script, deposited, prepared = enzyme
    before = prepared.stat().st_mtime_ns
    script.prepared_once(deposited, prepared)
    assert prepared.stat().st_mtime_ns == before
    assert script.CHOICES in prepared.read_text().splitlines()[0]


def test_a_cut_of_the_enzyme_runs(enzyme, models, capsys):
    script, deposited, prepared = enzyme
    line = [
        str(deposited),
        "--prepared",
        str(prepared),
        "--cut",
        "7",
        "--steps",
        "2",
        "--report-interval",
        "1",
    ]
    before = evaluations()
    figures = script.main([*line, "--model", str(models["direct-20"]), "--platform", "Reference"])
    assert 200 < figures["atoms"] < 700
    assert figures["evaluations"] == 2  # a report after the last step asks for its energy
    assert evaluations() > before
    assert figures["memory_gb"] > 0.05
    shown = capsys.readouterr().out
    assert "no box" in shown
    assert "2 steps, 2 evaluations after the first in" in shown


def test_models_with_charge_and_spin_are_given_them(enzyme, models, tmp_path, capsys):
    script, deposited, prepared = enzyme
    line = [str(deposited), "--prepared", str(prepared), "--cut", "5", "--steps", "1"]
    script.main([*line, "--model", str(models["charged"]), "--charge", "2"])
    assert "1 steps" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "bar"), [("float32", 1e-5), ("conservative-120", 1e-9)])
def test_the_enzyme_in_pieces_has_the_same_forces(name, bar, enzyme, models):
    """Refused where memory is too little for any piece, so the limit is looked at."""
    script, deposited, prepared = enzyme
    model = models[name]
    if len(read_metadata(model).get("programs", ())) < 2:
        pytest.skip("artefacts of this version have no layer programs: memory_limit has no effect")
    line = [str(deposited), "--prepared", str(prepared), "--cut", "9", "--steps", "1", "--model", str(model)]
    figures = script.main([*line, "--limit-memory", "0.02", "--compare"])
    precision = read_metadata(model)["dtype"]
    check = f"carbonic anhydrase in pieces against whole, {precision}"
    assert within(check, "forces", figures["difference"], bar)
    with pytest.raises(openmm.OpenMMException, match="`memory_limit` is 1000 bytes"):
        script.main([*line, "--limit-memory", "1e-6"])
