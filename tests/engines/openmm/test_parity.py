"""OpenMM against `Potential.predict` of the same artefact, which tests/parity holds against orb-models."""

import re

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

import torch  # noqa: E402
from ase import Atoms  # noqa: E402
from ase.build import molecule  # noqa: E402

from tests.accuracy import within  # noqa: E402
from tests.artefacts import without_steps  # noqa: E402
from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402
from tests.engines.openmm.systems import assert_same, evaluate, predicted  # noqa: E402

BOXED = {name: systems.boxed_for_openmm(atoms) for name, atoms in CASES.items()}


@pytest.mark.parametrize("name", ["conservative-20", "conservative-120", "direct-20"])
@pytest.mark.parametrize("case", BOXED)
def test_openmm_gives_what_python_gives(case, name, models):
    atoms = BOXED[case]
    assert_same(evaluate(atoms, models[name]), predicted(atoms, models[name]))


@pytest.mark.parametrize("case", ["triclinic with large tilt", "molecule"])
def test_cpu_platform_gives_the_same(case, model):
    atoms = BOXED[case]
    assert_same(evaluate(atoms, model, "CPU"), predicted(atoms, model))


@pytest.mark.parametrize("case", ["triclinic with large tilt", "molecule", "isolated atom"])
def test_aoti_artefact_gives_the_same(case, model, compiled_model):
    atoms = BOXED[case]
    assert_same(evaluate(atoms, compiled_model), predicted(atoms, model))


@pytest.mark.parametrize("case", ["crystal", "molecule"])
def test_float32_artefact(case, models):
    # the geometry is float64 on both sides, so the float32 network sees the same numbers
    atoms = BOXED[case]
    assert_same(
        evaluate(atoms, models["float32"]), predicted(atoms, models["float32"]), "OpenMM, float32 model"
    )


def test_forces_are_those_of_a_model_that_has_some(model):
    for case in ("crystal", "molecule", "triclinic with large tilt"):
        assert np.abs(predicted(BOXED[case], model).forces).max() > 0.01


@pytest.mark.parametrize("flags", [(True, True, False), (False, True, False), (False, False, False)], ids=str)
def test_each_box_vector_has_its_own_flag(flags, model):
    atoms = BOXED["crystal"].copy()
    atoms.pbc = flags
    expected = atoms if any(flags) else Atoms(atoms.numbers, atoms.positions)
    result = evaluate(atoms, model)
    assert_same(result, predicted(expected, model))
    assert abs(result.energy - predicted(BOXED["crystal"], model).energy) > 1e-3


def mixed_with_others(atoms: Atoms, seed: int) -> tuple[Atoms, np.ndarray]:
    """`atoms` at random places among as many particles of argon; and their indices, in no order."""
    rng = np.random.default_rng(seed)
    indices = rng.permutation(2 * len(atoms))[: len(atoms)]
    numbers = np.full(2 * len(atoms), 18)
    positions = rng.uniform(0, 8, (2 * len(atoms), 3))
    numbers[indices], positions[indices] = atoms.numbers, atoms.positions
    return Atoms(numbers, positions, cell=atoms.cell, pbc=atoms.pbc), indices


@pytest.mark.parametrize("case", ["crystal", "molecule"])
def test_a_subset_in_any_order_sees_nothing_of_the_others(case, model):
    atoms = BOXED[case]
    everything, indices = mixed_with_others(atoms, 4)
    force = systems.force_of(atoms, model, particles=indices.tolist())
    result = systems.measure(systems.context_of(systems.system_of(everything, force), everything.positions))
    assert_same(systems.Result(result.energy, result.forces[indices]), predicted(atoms, model))
    others = np.setdiff1d(np.arange(len(everything)), indices)
    assert not result.forces[others].any()


def test_forces_add_to_those_of_other_forces(model):
    atoms = BOXED["molecule"]
    spring = openmm.CustomExternalForce("50*x")
    for particle in range(len(atoms)):
        spring.addParticle(particle, [])
    context = systems.context_of(
        systems.system_of(atoms, spring, systems.force_of(atoms, model)), atoms.positions
    )
    alone = predicted(atoms, model)
    slope = 50 * systems.ANGSTROM / systems.KJ_PER_MOL
    expected = systems.Result(
        alone.energy + slope * atoms.positions[:, 0].sum(), alone.forces - [slope, 0.0, 0.0]
    )
    assert_same(systems.measure(context), expected)


def test_forces_on_virtual_sites_go_to_their_parents(model):
    water = molecule("H2O")
    site = 2 * water.positions[0] - water.positions[1]
    whole = Atoms("OH2He", [*water.positions, site])
    system = systems.system_of(whole, systems.force_of(whole, model))
    system.setParticleMass(3, 0.0)
    system.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 1, 2.0, -1.0))
    context = systems.context_of(system, np.vstack([water.positions, np.zeros(3)]))
    context.computeVirtualSites()
    result = systems.measure(context)
    alone = predicted(whole, model)
    forces = alone.forces[:3].copy()
    forces[0] += 2 * alone.forces[3]
    forces[1] -= alone.forces[3]
    assert_same(systems.Result(result.energy, result.forces[:3]), systems.Result(alone.energy, forces))


def test_charge_and_spin_reach_the_model(models):
    atoms = molecule("CH3CH2OH")
    atoms.info = {"charge": -1, "spin": 2}
    system = systems.system_of(atoms, systems.force_of(atoms, models["charged"], charge=-1, spin=2))
    context = systems.context_of(system, atoms.positions)
    before = systems.measure(context)
    assert_same(before, predicted(atoms, models["charged"]))
    for name, value in (("charge", 1.0), ("spin", 3.0)):
        context.setParameter(f"orbv3_{name}", value)
        atoms.info[name] = value
        assert_same(systems.measure(context), predicted(atoms, models["charged"]))
        assert abs(systems.measure(context).energy - before.energy) > 1e-6


def test_scale_is_a_parameter_with_a_derivative(model):
    atoms = BOXED["molecule"]
    context = systems.context_of(
        systems.system_of(atoms, systems.force_of(atoms, model, scale=0.5)), atoms.positions
    )
    alone = predicted(atoms, model)
    for scale in (0.5, 0.0, -2.0):
        context.setParameter("orbv3_scale", scale)
        assert_same(systems.measure(context), systems.Result(scale * alone.energy, scale * alone.forces))
        derivatives = context.getState(parameterDerivatives=True).getEnergyParameterDerivatives()
        assert abs(derivatives["orbv3_scale"] / systems.KJ_PER_MOL - alone.energy) < 1e-9


def test_force_groups_select_the_force(model):
    atoms = BOXED["molecule"]
    context = systems.context_of(
        systems.system_of(atoms, systems.force_of(atoms, model, force_group=3)), atoms.positions
    )
    assert_same(systems.measure(context, groups=1 << 3), predicted(atoms, model))
    nothing = systems.measure(context, groups=~(1 << 3))
    assert nothing.energy == 0.0
    assert not nothing.forces.any()


@pytest.mark.parametrize(
    "options",
    [{"threads": 1}, {"threads": 3}, {"skin": 0.0}, {"skin": 0.35}, {"device": "cpu"}, {"program": "steps"}],
    ids=str,
)
def test_options_do_not_change_results(options, model):
    atoms = BOXED["triclinic with large tilt"]
    assert_same(evaluate(atoms, model, **options), predicted(atoms, model))


def test_a_model_without_steps_cannot_take_them(model, tmp_path):
    """Fails where the choice is not passed on; that steps give the same is a case above."""
    whole = without_steps(model, tmp_path / "whole.pt")
    with pytest.raises(openmm.OpenMMException, match="`program` is `steps`, which"):
        evaluate(BOXED["crystal"], whole, program="steps")


def test_the_least_memory_gives_the_same(model):
    atoms = BOXED["crystal"]
    with pytest.raises(
        openmm.OpenMMException, match="OrbV3Force: evaluate: `memory_limit` is 1 bytes"
    ) as caught:
        evaluate(atoms, model, memory_limit=1)
    least = int(re.search(r"need at least (\d+)", str(caught.value))[1])
    assert_same(evaluate(atoms, model, memory_limit=least), predicted(atoms, model))
    with pytest.raises(openmm.OpenMMException, match=f"`memory_limit` is {least - 1} bytes"):
        evaluate(atoms, model, memory_limit=least - 1)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_of_torch(threads, model):
    before = torch.get_num_threads()
    try:
        evaluate(BOXED["molecule"], model, threads=threads)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_forces_are_minus_the_gradient_of_the_energy(model):
    atoms = BOXED["triclinic with large tilt"]
    context = systems.context_of(systems.system_of(atoms, systems.force_of(atoms, model)), atoms.positions)
    forces = systems.measure(context).forces
    step = 1e-4  # angstrom: rounding and third order both stay below 1e-8
    for atom, axis in [(0, 0), (3, 1), (7, 2)]:
        energies = []
        for sign in (1, -1):
            moved = atoms.positions.copy()
            moved[atom, axis] += sign * step
            context.setPositions(moved * systems.ANGSTROM)
            energies.append(systems.measure(context).energy)
        error = abs((energies[1] - energies[0]) / (2 * step) - forces[atom, axis])
        assert within("OpenMM, finite differences", "forces", error, 1e-7)
