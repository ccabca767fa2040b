"""What the pair style tells beside energy and forces: its citation, and values for other parts of LAMMPS."""

import re

import pytest
from orb_export import graph

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


def test_the_memory_of_edges_is_counted(models, tmp_path, capfd):
    """Two models differ in nothing else; an edge is two integers and three numbers, held twice at most."""
    atoms, counted, edges = ATOMS.repeat((3, 3, 3)), {}, {}
    for cap in (20, 120):
        with runs.session(screen=True) as lmp:
            lmp.commands_list(runs.setup(atoms, tmp_path))
            lmp.commands_list([*runs.pair(models[f"conservative-{cap}"], atoms), "run 0"])
        line = re.search(r"Per MPI rank memory allocation .*= ([\d.]+) \|", capfd.readouterr().out)
        counted[cap] = float(line[1]) * 2**20
        edges[cap] = graph.from_atoms(atoms, cap).centers.numel()
    of_edges = 5 * 8 * (edges[120] - edges[20])
    assert of_edges <= counted[120] - counted[20] <= 4 * of_edges


def test_outputs_do_not_depend_on_the_number_of_ranks(stock_lmp, models, tmp_path):
    """Message, frames, table, compute and per-atom sums of a run that its uncertainty ends."""
    atoms, written = ATOMS * (2, 1, 1), []
    atoms.rattle(0.05, seed=1)
    keywords = (
        f"uncertainty 0.01 dump frames.xyz uncertainty {{}} halt deviation 2 devi.out 1 {models['direct-20']}"
    )
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        script = [
            *runs.setup(atoms, folder),
            *runs.pair(models["conservative-120"], atoms, keywords.format(0.4)),
            "neighbor 0.5 bin",
            "compute error all orbv3/confidence",
            "compute energy all pe/atom",
            "compute virial all centroid/stress/atom NULL virial",
            "compute sums all reduce sum c_energy c_virial[*]",
            "thermo_style custom step c_error c_error[*] pe c_sums[*]",
            "thermo_modify format float %.8g",
            "velocity all create 300 5 loop all",
            "fix md all nve",
            "run 4",
            *runs.pair(models["conservative-120"], atoms, "uncertainty 0.01 halt"),
            "run 50 post no",
            'print "ended at $(step)"',
        ]
        done = stock_lmp("\n".join(script), folder, ranks=ranks)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [line for line in done.stdout.splitlines() if re.match(r" +\d+ +0\.\d+ ", line)]
        assert "ended at 4\n" in done.stdout
        written.append([rows, *((folder / name).read_text() for name in ("frames.xyz", "devi.out"))])
    assert len(written[0][0]) == 3
    assert written[0][1].count("Lattice") == 5
    assert written[0] == written[1]
