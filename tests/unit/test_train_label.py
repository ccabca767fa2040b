"""Labels from a teacher. Oracle: the calculator itself, called directly."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import read, write
from orb_export import cli
from orb_export.ase import OrbCalculator
from orb_export.train.label import Teacher, label_structures
from orb_export.train.sources import Selection

from tests.artefacts import tiny_model

EMT_CLASS = "ase.calculators.emt:EMT"


@pytest.fixture
def structures(tmp_path):
    frames = [bulk("Cu", cubic=True), molecule("CO"), bulk("Al", cubic=True)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
        atoms.info["charge"] = seed
    file = tmp_path / "frames.xyz"
    write(file, frames)
    return file


@pytest.mark.parametrize("suffix", [".xyz", ".db", ".aselmdb"])
def test_labels_are_those_of_the_calculator(structures, tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    assert cli.main(["label", EMT_CLASS, str(structures), "-o", str(output)]) == 0
    labelled, frames = Selection([output]), read(structures, ":")
    assert len(labelled) == 3
    for number, atoms in enumerate(frames):
        found = labelled[number]
        atoms.calc = EMT()
        assert np.array_equal(found.numbers, atoms.numbers)
        assert found.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        assert np.abs(found.get_forces() - atoms.get_forces()).max() < 1e-7
        assert found.info["source"] == "frames"
        assert found.info["charge"] == number
        if atoms.cell.rank == 3:
            assert np.abs(found.get_stress() - atoms.get_stress()).max() < 1e-7
        else:
            assert "stress" not in found.calc.results


def test_an_artefact_is_a_teacher(structures, tmp_path):
    from orb_export.export import export_model

    artefact, output = tmp_path / "teacher.pt", tmp_path / "out.xyz"
    export_model(tiny_model("conservative"), artefact, format="torchscript", verified=False)
    assert cli.main(["label", str(artefact), str(structures), "-o", str(output)]) == 0
    atoms = read(structures, 2)
    atoms.calc = OrbCalculator(artefact)
    assert np.abs(read(output, 2).get_forces() - atoms.get_forces()).max() < 1e-7


def test_work_continues_where_it_stopped(structures, tmp_path):
    calls = []

    class Counted(EMT):
        def calculate(self, *arguments, **keywords):
            calls.append(1)
            if len(calls) == 3 and not failed:
                raise RuntimeError("no convergence")
            super().calculate(*arguments, **keywords)

    output, failed = tmp_path / "out.xyz", False
    teacher = Teacher("emt", Counted)
    with pytest.raises(ValueError, match=r"frames.xyz:2: emt failed: RuntimeError: no convergence"):
        label_structures(teacher, [structures], output)
    assert len(read(output, ":")) == 2
    with pytest.raises(ValueError, match=r"`output` is '.*out.xyz' but exists already"):
        label_structures(teacher, [structures], output)
    failed = True
    assert label_structures(teacher, [structures], output, resume=True) == 3
    assert len(calls) == 4
    assert [len(atoms) for atoms in read(output, ":")] == [4, 2, 4]


def test_charge_and_spin_of_a_structure_are_options_of_its_calculator(structures, tmp_path):
    made = []

    def make(**options):
        made.append(options)
        return EMT()

    teacher = Teacher("emt", make, {"charge": "{charge}", "multiplicity": "{spin}", "method": "x"})
    label_structures(teacher, [structures], tmp_path / "out.xyz")
    assert made == [{"charge": q, "multiplicity": 1, "method": "x"} for q in (0, 1, 2)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.pt"], "`teacher` is 'nothing.pt' but there is no such file"),
        (["no.such:Thing"], "`teacher` is 'no.such:Thing' but must be an artefact or MODULE:CLASS"),
        (["ase.calculators.emt:Nothing"], "`teacher` is 'ase.calculators.emt:Nothing'"),
        ([EMT_CLASS, "--options", "{"], "`options` is '{' but must be JSON"),
        ([EMT_CLASS, "--options", "[1]"], r"`options` is '[1]' but must be a JSON object"),
        ([EMT_CLASS, "-o", "out.cif"], "`output` is 'out.cif' but must end in"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_mistakes_are_named(structures, tmp_path, capsys, words, message):
    arguments = ["label", *words, str(structures)]
    if "-o" not in words:
        arguments += ["-o", str(tmp_path / "out.xyz")]
    assert cli.main(arguments) == 1
    assert message in capsys.readouterr().err
