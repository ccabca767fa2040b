"""Per-atom energies and virials: their sums, their formula, and what LAMMPS makes of them."""

import numpy as np
import orb_export
import pytest
import torch
from orb_export.export import export_model

from tests.accuracy import within
from tests.engines.lammps import runs
from tests.engines.lammps.conftest import random_model
from tests.engines.lammps.structures import CASES

CHECK = "per-atom quantities in LAMMPS, float64"
NAMES = ["conservative-20", "conservative-120", "direct-20", "direct-120"]
STRUCTURES = ["triclinic with large tilt", "very flat cell", "slab open in z", "molecule", "one-atom cell"]
NINE = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)]  # LAMMPS's order
PER_ATOM = [
    "compute energy all pe/atom pair",
    "compute six all stress/atom NULL pair",
    "compute nine all centroid/stress/atom NULL pair",
    "compute total all pressure NULL pair",
    "thermo_style custom step pe vol c_total[*]",
    # what thermo does not ask for is not computed
    "compute sums all reduce sum c_energy c_six[*] c_nine[*]",
    "thermo_style custom step pe vol c_total[*] c_sums[*]",
]


def by_id(lmp, compute: str, columns: int) -> np.ndarray:
    n = lmp.extract_global("nlocal")
    order = np.argsort(lmp.numpy.extract_atom("id")[:n])
    return lmp.numpy.extract_compute(compute, 1, 1 if columns == 1 else 2)[:n][order].copy()


@pytest.mark.parametrize(
    ("case", "name", "units"),
    [
        *((case, name, "metal") for case in STRUCTURES for name in NAMES),
        *((STRUCTURES[0], name, "real") for name in NAMES[1:3]),
    ],
)
def test_sums_are_the_energy_and_the_virial(case, name, units, models, tmp_path):
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(CASES[case], tmp_path, units=units))
        lmp.commands_list([*runs.pair(models[name], CASES[case]), *PER_ATOM, "run 0"])
        unit, bar = runs.ENERGY_UNIT[units], runs.PRESSURE_UNIT[units]
        energies = by_id(lmp, "energy", 1) / unit
        # LAMMPS multiplies by pressure units and leaves out the volume; stress is minus virial
        six, nine = (-by_id(lmp, c, k) / bar / unit for c, k in (("six", 6), ("nine", 9)))
        pressure = lmp.numpy.extract_compute("total", 0, 1) * lmp.get_thermo("vol") / bar / unit
        energy = lmp.get_thermo("pe") / unit
    n = len(CASES[case])
    assert within(CHECK, "sum of energies, per atom", abs(energies.sum() - energy) / n, 1e-12)
    assert within(CHECK, "sum of virials, per atom", np.abs(six.sum(axis=0) - pressure).max() / n, 1e-12)
    symmetric = (nine[:, 3:6] + nine[:, 6:9]) / 2
    np.testing.assert_allclose(six, np.hstack([nine[:, :3], symmetric]), rtol=0, atol=1e-12)
    if n > 1:
        assert np.ptp(energies) > 1e-3


@pytest.mark.parametrize("name", ["conservative-20", "direct-120"])
def test_shares_are_those_of_python(name, models, tmp_path):
    atoms = CASES["triclinic with large tilt"]
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, tmp_path))
        lmp.commands_list([*runs.pair(models[name], atoms), *PER_ATOM, "run 0"])
        energies = by_id(lmp, "energy", 1)
        nine = -by_id(lmp, "nine", 9) / runs.PRESSURE_UNIT["metal"]
    expected = orb_export.load(models[name]).predict(runs.turned(atoms), per_atom=True)
    np.testing.assert_allclose(energies, expected["atom_energies"], rtol=0, atol=1e-10)
    virials = np.reshape(expected["atom_virials"], (-1, 3, 3))
    np.testing.assert_allclose(nine, [[w[place] for place in NINE] for w in virials], rtol=0, atol=1e-9)
    if name.startswith("conservative"):  # else nothing shows which index is first
        assert np.abs(nine[:, 3] - nine[:, 6]).max() > 1e-4


def test_forces_do_not_change_where_shares_are_asked_for(model, tmp_path):
    atoms = CASES["triclinic with large tilt"]
    plain = runs.evaluate(atoms, model, tmp_path)
    last = "thermo_style custom step temp ke pe press pxx pyy pzz pyz pxz pxy c_sums[*]"
    shared = runs.evaluate(atoms, model, tmp_path, after=[*PER_ATOM, last])
    runs.assert_same(shared, plain, check=CHECK, bars=(1e-12, 1e-12, 1e-12))


def test_shares_add_to_those_of_other_styles(model, tmp_path):
    atoms = CASES["crystal"]
    styles = {"orbv3": f"orbv3 {model} Na Cl", "lj/cut": "lj/cut 0.01 2.5"}
    results = []
    for chosen in (["orbv3"], ["lj/cut"], ["orbv3", "lj/cut"]):
        with runs.session() as lmp:
            lmp.commands_list(runs.setup(atoms, tmp_path))
            words = {"orbv3": "orbv3", "lj/cut": "lj/cut 5.0"}
            lmp.command("pair_style hybrid/overlay " + " ".join(words[style] for style in chosen))
            lmp.commands_list([f"pair_coeff * * {styles[style]}" for style in chosen])
            lmp.commands_list([*PER_ATOM[:2], "compute sums all reduce sum c_energy c_six[*]"])
            lmp.commands_list(["thermo_style custom step c_sums[*]", "run 0"])
            results.append(np.column_stack([by_id(lmp, "energy", 1), by_id(lmp, "six", 6)]))
    np.testing.assert_allclose(results[0] + results[1], results[2], rtol=1e-9, atol=1e-9)


FLUX = [
    *PER_ATOM,
    "compute kinetic all ke/atom",
    "compute virial all centroid/stress/atom NULL virial",
    "compute flux all heat/flux kinetic energy virial",
    "variable x atom x*(c_kinetic+c_energy)",
    "variable y atom y*(c_kinetic+c_energy)",
    "variable z atom z*(c_kinetic+c_energy)",
    "compute moment all reduce sum v_x v_y v_z",
    "thermo_style custom step pe ke vol c_total[*] c_sums[*] c_flux[*] c_moment[*]",
]


def test_heat_flux_is_the_sum_over_atoms(model, tmp_path):
    """J = sum of e_i v_i + W_i v_i, with the first index of W that of the flux."""
    atoms = CASES["triclinic with large tilt"]
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, tmp_path))
        lmp.commands_list([*runs.pair(model, atoms), *FLUX, "velocity all create 500 4", "run 0"])
        flux = lmp.numpy.extract_compute("flux", 0, 1).copy()
        velocities, kinetic = runs.gathered(lmp, "v", 3), by_id(lmp, "kinetic", 1)
    expected = orb_export.load(model).predict(runs.turned(atoms), per_atom=True)
    energies = kinetic + expected["atom_energies"]
    virials = np.reshape(expected["atom_virials"], (-1, 3, 3))
    total = energies @ velocities + np.einsum("iab,ib->a", virials, velocities)
    np.testing.assert_allclose(flux[:3], total, rtol=1e-6)  # constants of the unit system


@pytest.mark.parametrize("name", ["conservative-20", "direct-120"])
def test_heat_flux_of_a_moving_body_carries_its_enthalpy(name, models, tmp_path):
    """All atoms at one velocity v: J = E v + W v, which no choice of shares changes."""
    atoms, velocity = CASES["triclinic with large tilt"], np.array([3.0, -1.0, 2.0])
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, tmp_path))
        lmp.commands_list([*runs.pair(models[name], atoms), *FLUX])
        lmp.commands_list(["velocity all set " + " ".join(map(str, velocity)), "run 0"])
        flux = lmp.numpy.extract_compute("flux", 0, 1)[:3].copy()
        energy = lmp.get_thermo("pe") + lmp.get_thermo("ke")
    virial = np.sum(
        orb_export.load(models[name]).predict(runs.turned(atoms), per_atom=True)["atom_virials"], 0
    )
    np.testing.assert_allclose(flux, energy * velocity + virial @ velocity, rtol=1e-6)


def continuity(model, atoms, folder) -> tuple[np.ndarray, np.ndarray]:
    """Heat flux of an isolated body, and the rate of the first moment of its energy, eV A/ps."""
    step, moments = 1e-5, []
    with runs.session() as lmp:
        lmp.commands_list(runs.setup(atoms, folder))
        lmp.commands_list([*runs.pair(model, atoms), *FLUX, "velocity all create 2000 4", "fix md all nve"])
        lmp.commands_list([f"timestep {step}", "thermo 1", "run 0 post no"])
        for _ in range(3):
            moments.append(lmp.numpy.extract_compute("moment", 0, 1).copy())
            if len(moments) == 2:
                flux = lmp.numpy.extract_compute("flux", 0, 1)[:3].copy()
            lmp.command("run 1 pre no post no")
    return flux, (moments[2] - moments[0]) / (2 * step)


def test_heat_flux_of_the_repulsion_is_the_rate_of_the_moment_of_energy(tmp_path):
    """Exactly, as for any sum over pairs; what the network adds is not such a sum."""
    network = random_model("conservative", 120)
    atoms = CASES["slab open in z"].copy()
    atoms.pbc = False
    atoms.positions *= 0.75  # so close that they repel each other
    fluxes = []
    for name, factor in {"repulsion": 0.0, "all": 1.0}.items():
        with torch.no_grad():
            network.energy_head.normalizer.var.mul_(factor**2)
        export_model(network, tmp_path / f"{name}.pt", format="torchscript", verified=False)
        fluxes.append(continuity(tmp_path / f"{name}.pt", atoms, tmp_path))
        network = random_model("conservative", 120)
    flux, rate = fluxes[0]
    assert np.abs(rate).min() > 1.0
    np.testing.assert_allclose(flux, rate, rtol=1e-5)  # finite differences
    assert np.abs(fluxes[1][0] - flux).max() > 1.0  # the network takes part at all
