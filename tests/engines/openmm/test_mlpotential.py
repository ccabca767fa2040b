"""Orb-v3 through openmm-ml.

Oracle: the artefact called from Python, and openmm-ml's own mechanical embedding with a factory that is no
part of the package.
"""

import importlib.metadata
from pathlib import Path

import numpy as np
import openmm
import openmmml
import pooch
import pytest
import torch
from ase.build import molecule
from openmm import app, unit
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory
from orb_export import checkpoint, variants
from orb_export.openmm import OrbV3Force, is_orbv3
from orb_export.openmm.openmmml import OrbExportFactory

from tests.accuracy import within
from tests.engines.openmm.conftest import random_model
from tests.engines.openmm.peptides import dipeptide, solvated
from tests.engines.openmm.systems import assert_same, context_of, measure, predicted
from tests.engines.openmm.test_forcefield import BOXED, crystal, force_in, topology_of
from tests.processes import printed_by

FILES = ("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
RELATIVE = 1e-6
BACKBONE_ATOMS = list(range(6, 16))


class PlainImpl(MLPotentialImpl):
    """The same force without anything of our openmm-ml classes."""

    def __init__(self, model):
        self.model = model

    def addForces(self, topology, system, atoms, forceGroup, **options):
        known = list(topology.atoms())
        numbers = [known[index].element.atomic_number for index in atoms]
        periodic = topology.getPeriodicBoxVectors() is not None
        force = OrbV3Force(self.model, numbers, particles=atoms, periodic=periodic, force_group=forceGroup)
        system.addForce(force)

    def getMLLongRange(self):
        return False


class PlainFactory(MLPotentialImplFactory):
    def createImpl(self, name, modelPath):
        return PlainImpl(modelPath)


@pytest.fixture
def potential(model):
    return openmmml.MLPotential("orb-export", modelPath=model)


def energy(system: openmm.System, positions, **parameters) -> float:
    beyond = np.zeros((system.getNumParticles() - len(positions), 3))
    context = context_of(system, np.vstack([positions, beyond]) * 10)
    context.computeVirtualSites()
    for name, value in parameters.items():
        context.setParameter(name, value)
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


@pytest.mark.parametrize("case", BOXED)
def test_a_system_has_the_forces_of_the_model(model, potential, case):
    atoms = BOXED[case]
    system = potential.createSystem(topology_of(atoms), periodic=list(atoms.pbc))
    check = "OpenMM: MLPotential against Python, float64"
    assert_same(measure(context_of(system, atoms.positions)), predicted(atoms, model), check)


@pytest.mark.parametrize("region", [BACKBONE_ATOMS, list(range(22))], ids=["bonds cut", "a molecule"])
@pytest.mark.parametrize("in_water", [False, True], ids=["vacuum", "water"])
def test_mixed_systems_are_those_of_openmm_ml(monkeypatch, model, potential, region, in_water):
    monkeypatch.setitem(openmmml.MLPotential._implFactories, "plain", PlainFactory())
    topology, positions = solvated() if in_water else dipeptide()
    options = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.9 * unit.nanometer} if in_water else {}
    full = app.ForceField(*FILES).createSystem(topology, constraints=app.HBonds, **options)
    plain = openmmml.MLPotential("plain", modelPath=model)
    expected = energy(plain.createMixedSystem(topology, full, region), positions)
    by_name = potential.createMixedSystem(topology, full, region)
    by_file = app.ForceField(*FILES, "orbv3.xml").createSystem(
        topology, constraints=app.HBonds, orbModel=model, orbRegion=region, **options
    )
    for system in (by_name, by_file):
        error = abs(energy(system, positions) - expected) / abs(expected)
        assert within("OpenMM: mixed systems against openmm-ml", "energy, relative", error, RELATIVE)
        assert system.getNumConstraints() == by_name.getNumConstraints()


def test_lambda_interpolates(potential):
    topology, positions = dipeptide()
    full = app.ForceField(*FILES).createSystem(topology)
    mixed = energy(potential.createMixedSystem(topology, full, BACKBONE_ATOMS), positions)
    between = potential.createMixedSystem(topology, full, BACKBONE_ATOMS, interpolate=True)
    for fraction in (0.0, 0.3, 1.0):
        expected = (1 - fraction) * energy(full, positions) + fraction * mixed
        actual = energy(between, positions, lambda_interpolate=fraction)
        error = abs(actual - expected) / abs(expected)
        assert within("OpenMM: lambda interpolation", "energy, relative", error, RELATIVE)


def test_link_atoms_are_hydrogens_of_the_model(potential):
    topology, _ = dipeptide()
    full = app.ForceField(*FILES).createSystem(topology)
    made = potential.createMixedSystem(topology, full, [13, 10, 12, 11], forceGroup=5, returnInfo=True)
    force = force_in(made["system"])
    assert force.particles == [13, 10, 12, 11, 22]
    assert force.numbers == [1, 6, 1, 1, 1]
    assert force.getForceGroup() == 5
    assert made["topology"].getNumAtoms() == made["system"].getNumParticles() == 23


def test_two_regions_may_have_models_of_their_own(model, models):
    topology, positions = dipeptide()
    full = app.ForceField(*FILES).createSystem(topology)
    first = openmmml.MLPotential("orb-export", modelPath=model)
    second = openmmml.MLPotential("orb-export", modelPath=models["charged"])
    system = first.createMixedSystem(topology, full, [0, 1, 2, 3])
    system = second.createMixedSystem(
        topology, system, [18, 19, 20, 21], charge=0, multiplicity=1, prefix="b"
    )
    assert sum(is_orbv3(force) for force in system.getForces()) == 2
    assert np.isfinite(energy(system, positions, orbv3_scale=0.5, b_charge=1))


class TestChargeAndMultiplicity:
    @pytest.fixture
    def charged(self, models):
        return openmmml.MLPotential("orb-export", modelPath=models["charged"])

    def record(self, system):
        record = force_in(system)._record()
        return float(record["charge"]), float(record["spin"])

    def test_they_have_the_names_and_defaults_of_openmm_ml(self, charged):
        topology = topology_of(molecule("H2O"))
        assert self.record(charged.createSystem(topology)) == (0, 1)
        assert self.record(charged.createSystem(topology, charge=1, multiplicity=2)) == (1, 2)

    def test_they_change_the_energy_as_they_do_in_python(self, models, charged):
        water = molecule("H2O")
        system = charged.createSystem(topology_of(water), charge=-1, multiplicity=2)
        water.info.update(charge=-1, spin=2)
        check = "OpenMM: MLPotential against Python, float64"
        assert_same(measure(context_of(system, water.positions)), predicted(water, models["charged"]), check)

    def test_an_impossible_multiplicity_is_told(self, charged):
        with pytest.warns(UserWarning, match="9 electrons .* cannot have spin multiplicity 1"):
            charged.createSystem(topology_of(molecule("CH3")))

    def test_a_model_without_them_refuses_them(self, potential):
        topology = topology_of(molecule("H2O"))
        potential.createSystem(topology, charge=0, multiplicity=1)  # what openmm-ml's own examples pass
        with pytest.raises(
            ValueError, match=r"`charge` is 1 and `multiplicity` None, but .* does not depend"
        ):
            potential.createSystem(topology, charge=1)


def test_options_reach_the_force(potential):
    system = potential.createSystem(
        topology_of(crystal()),
        device=torch.device("cpu"),
        threads=1,
        skin=0.3,
        periodic=(True, True, False),
        prefix="slab",
        removeCMMotion=False,
    )
    record = force_in(system)._record()
    assert (record["device"], int(record["threads"]), float(record["skin"])) == ("cpu", 1, 0.3)
    assert (force_in(system).periodic, force_in(system).prefix) == ((True, True, False), "slab")


def test_a_misspelt_option_is_refused(potential):
    with pytest.raises(TypeError, match="skim"):
        potential.createSystem(topology_of(molecule("H2O")), skim=0.1)
    with pytest.raises(TypeError, match="modlePath"):
        openmmml.MLPotential("orb-export", modlePath="a.pt2")


def test_extra_particles_of_a_whole_system_are_refused(potential):
    topology, _ = solvated("tip4pew")
    with pytest.raises(ValueError, match=r"no element for atom \d+ \(M\): delete extra particles"):
        potential.createSystem(topology)


class TestNames:
    def test_every_published_model_has_one(self):
        factories = openmmml.MLPotential._implFactories
        assert not variants.VARIANTS.keys() - factories.keys()

    def test_none_is_taken_from_another_package(self):
        names = [entry.name for entry in importlib.metadata.entry_points(group="openmmml.potentials")]
        assert len(names) == len(set(names))

    def test_openmm_ml_loads_them_without_torch_and_in_any_order(self):
        for first in ("openmmml", "orb_export.openmm.openmmml", "orb_export.openmm.mlpotential"):
            code = (
                f"import sys, {first}\n"
                "import openmmml\n"
                "factory = openmmml.MLPotential._implFactories['orb-export']\n"
                "assert type(factory).__module__ == 'orb_export.openmm.openmmml'\n"
                "assert 'torch' not in sys.modules\n"
            )
            printed_by(code)

    def test_a_name_takes_an_artefact_instead_of_weights(self, model):
        potential = openmmml.MLPotential("orb-v3-direct-20-omat", modelPath=model)
        assert force_in(potential.createSystem(topology_of(molecule("H2O")))).artefact == model

    def test_a_name_is_exported_once_and_kept(self, monkeypatch, tmp_path):
        monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
        weights = tmp_path / "weights.ckpt"
        tiny = random_model("conservative", 20, dtype=torch.float32)
        torch.save(checkpoint.to_upstream_state_dict(tiny), weights)
        water = topology_of(molecule("H2O"))
        arguments = {"weights": weights, "format": "torchscript"}
        # a name that openmm-ml has for its own route is reached through ours
        names = [
            ("orb-v3-conservative-20-mpa", {}),
            ("orb-export", {"modelName": "orb-v3-conservative-20-mpa"}),
        ]
        made = []
        for name, more in names:
            system = openmmml.MLPotential(name, **arguments, **more).createSystem(water)
            made.append((force_in(system).artefact, force_in(system).artefact.stat().st_mtime_ns))
        assert made[0] == made[1]
        assert made[0][0].name.startswith("orb-v3-conservative-20-mpa-")
        atoms = molecule("H2O")
        actual = measure(context_of(system, atoms.positions))
        assert_same(actual, predicted(atoms, made[0][0]), "OpenMM: MLPotential against Python, float32")

    def test_a_name_without_network_says_what_to_do(self, monkeypatch, tmp_path):
        def unreachable(*arguments, **keywords):
            raise OSError("no route")

        monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
        monkeypatch.setattr(pooch, "retrieve", unreachable)
        potential = openmmml.MLPotential("orb-v3-direct-omol")
        with pytest.raises(
            ConnectionError, match="fetch the file by other means and give its path as `weights`"
        ):
            potential.createSystem(topology_of(molecule("H2O")))

    @pytest.mark.parametrize(
        ("name", "arguments", "message"),
        [
            ("orb-export", {}, "needs either `modelPath` or `modelName`"),
            ("orb-export", {"modelPath": "a.pt", "modelName": "b"}, "needs either"),
            ("orb-export", {"modelName": "orb-v4"}, "`name` is 'orb-v4' but must be a published model"),
            ("orb-v3-direct-omol", {"modelName": "b"}, "`modelName` is 'b' but 'orb-v3-direct-omol' names"),
            ("orb-v3-direct-omol", {"format": "onnx"}, "`format` is 'onnx' but must be one of"),
            ("orb-v3-direct-omol", {"modelPath": "a", "weights": "b"}, "`weights` and `modelPath` are given"),
        ],
    )
    def test_arguments_that_name_no_model_are_refused(self, name, arguments, message):
        with pytest.raises(ValueError, match=message):
            OrbExportFactory().createImpl(name, **arguments)

    def test_a_missing_artefact_is_told(self):
        potential = openmmml.MLPotential("orb-export", modelPath=Path("nowhere.pt2"))
        with pytest.raises(FileNotFoundError, match="nowhere"):
            potential.createSystem(topology_of(molecule("H2O")))
