"""What the pair style tells beside energy and forces: its citation, and values for other parts of LAMMPS."""

import pytest

from tests.engines.lammps import runs
from tests.engines.lammps.structures import CASES

ATOMS = CASES["crystal"]


def test_the_report_of_the_model_is_cited_once(stock_lmp, model, tmp_path):
    pair = runs.pair(model, ATOMS)
    script = "\n".join([*runs.setup(ATOMS, tmp_path), *pair, "run 0", *pair, "run 0"])
    done = stock_lmp(script, tmp_path, arguments=["-log", "log", "-cite", "references.bib"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "references.bib").read_text().count("eprint = {2504.06231}") == 1
    assert stock_lmp(script, tmp_path, arguments=["-nocite"]).returncode == 0


@pytest.mark.parametrize("units", ["metal", "real"])
def test_extracted_energy_is_in_electronvolt(units, model, tmp_path):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(ATOMS, tmp_path, units=units))
        lmp.commands_list([*runs.pair(model, ATOMS), "run 0"])
        energy = lmp.get_thermo("pe") / runs.ENERGY_UNIT[units]
        assert lmp.extract_pair("energy_eV") == pytest.approx(energy, rel=1e-12)
        assert lmp.extract_pair("cutoff") == 6.0
