"""OrbV3Force on OpenMM's GPU platforms, in each of their precisions, against Python.

CUDA, HIP and OpenCL share one kernel; where OpenMM has none of them (no driver, no PoCL) this skips. The last
test needs no GPU to see that the device code is CUDA, but NVRTC and the CUDA platform of OpenMM on sys.path:
    pip install --no-deps --target DIR nvidia-cuda-nvrtc-cu12 OpenMM-CUDA-12==8.6.1
    PYTHONPATH=DIR python -m pytest tests/engines/openmm/test_platforms.py
"""

import ctypes
import re
import sys
from pathlib import Path

import numpy as np
import pytest

openmm = pytest.importorskip("openmm", reason="needs the openmm wheel")

from ase import Atoms  # noqa: E402
from ase.build import molecule  # noqa: E402
from orb_export.openmm import OrbV3Force, evaluations  # noqa: E402

from tests.accuracy import within  # noqa: E402
from tests.engines.lammps.structures import CASES  # noqa: E402
from tests.engines.openmm import systems  # noqa: E402
from tests.engines.openmm.systems import ANGSTROM  # noqa: E402

MOLECULE = systems.boxed_for_openmm(CASES["molecule"])
CRYSTAL = systems.boxed_for_openmm(CASES["crystal"])
SKEWED = systems.boxed_for_openmm(CASES["triclinic with large tilt"])
NAMES = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
PLATFORMS = sorted(NAMES & {"CUDA", "HIP", "OpenCL"})
PRECISIONS = ("single", "mixed", "double")
# Positions are float32, float32 + float32 and float64. Energies are float32 in single; forces, added in units
# of 2^-32 kJ/mol/nm, are handed out as float32 but in double.
ENERGY_BAR = {"single": 1e-6, "mixed": 1e-10, "double": 1e-10}  # eV per atom
FORCE_BAR = {"single": 1e-5, "mixed": 1e-6, "double": 1e-9}  # eV/angstrom


@pytest.fixture(params=PLATFORMS or ["none"])
def platform(request) -> openmm.Platform:
    if request.param == "none":
        pytest.skip("OpenMM has no CUDA, HIP or OpenCL platform here")
    return openmm.Platform.getPlatformByName(request.param)


def context_of(system, positions, platform, precision, integrator=None) -> openmm.Context:
    integrator = integrator or openmm.VerletIntegrator(0.0005)
    context = openmm.Context(system, integrator, platform, {"Precision": precision})
    context.setPositions(positions * ANGSTROM)
    return context


def assert_same(actual: systems.Result, expected: systems.Result, precision: str) -> None:
    per_atom = abs(actual.energy - expected.energy) / len(expected.forces)
    check = f"OpenMM's GPU platforms, {precision}"
    assert within(check, "energy", per_atom, ENERGY_BAR[precision])
    assert within(check, "forces", np.abs(actual.forces - expected.forces).max(), FORCE_BAR[precision])


def now(context: openmm.Context, atoms: Atoms) -> Atoms:
    """`atoms` as the Context has them."""
    state = context.getState(positions=True)
    moved = atoms.copy()
    moved.positions = state.getPositions(asNumpy=True)._value / ANGSTROM
    if atoms.cell.rank == 3:
        moved.cell = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) / ANGSTROM
    return moved


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("atoms", [MOLECULE, SKEWED], ids=["molecule", "skewed"])
def test_platforms_give_what_python_gives(atoms, precision, platform, model):
    system = systems.system_of(atoms, systems.force_of(atoms, model))
    context = context_of(system, atoms.positions, platform, precision)
    assert_same(systems.measure(context), systems.predicted(atoms, model), precision)


@pytest.mark.parametrize("precision", ["single", "mixed"])
def test_a_subset_among_reordered_atoms(precision, platform, model):
    """OpenMM sorts atoms and moves molecules by box vectors: neither may be seen, nor the other atoms."""
    rng = np.random.default_rng(6)
    count = 400
    particles = rng.permutation(count)[: len(CRYSTAL)]
    numbers, positions = np.full(count, 18), rng.uniform(-2.0, 3.0, (count, 3)) @ CRYSTAL.cell.array
    numbers[particles] = CRYSTAL.numbers
    # far from the box, along the open axis too
    positions[particles] = CRYSTAL.positions + CRYSTAL.cell.array.T @ [2, -1, 1]
    everything = Atoms(numbers, positions, cell=CRYSTAL.cell, pbc=True)
    flags = (True, True, False)
    force = systems.force_of(CRYSTAL, model, particles=particles.tolist(), periodic=flags)
    # OpenMM does either only where a force has a cutoff with periodic images
    sorter = openmm.NonbondedForce()
    sorter.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    sorter.setCutoffDistance(0.15)
    sorter.setForceGroup(1)
    for _ in range(count):
        sorter.addParticle(0.0, 0.1, 0.0)
    system = systems.system_of(everything, force, sorter)
    for particle in range(count):
        system.setParticleMass(particle, 20.0)  # it exchanges what it takes for alike
    integrator = openmm.VerletIntegrator(1e-9)
    integrator.setIntegrationForceGroups({1})
    context = context_of(system, positions, platform, precision, integrator)
    others = np.setdiff1d(np.arange(count), particles)
    for _ in range(3):
        integrator.step(260)  # it sorts every 250 steps
        result = systems.measure(context, groups=1)
        alone = now(context, everything)[particles]
        alone.pbc = flags
        assert_same(
            systems.Result(result.energy, result.forces[particles]),
            systems.predicted(alone, model),
            precision,
        )
        assert not result.forces[others].any()
        # another order in space for the next round
        positions[others] = rng.permutation(positions[others])
        context.setPositions((positions + rng.uniform(-9, 9, 3)) * ANGSTROM)


def test_several_devices_add_the_forces_once(platform, model):
    """Threads of OpenMM then clear and fill the sums of forces; here one device plays two."""
    bonds = openmm.HarmonicBondForce()
    for particle in range(len(CRYSTAL) - 1):
        bonds.addBond(particle, particle + 1, 0.3, 1000.0)
    bonds.setForceGroup(1)
    system = systems.system_of(CRYSTAL, systems.force_of(CRYSTAL, model), bonds)
    properties = {"Precision": "double", "DeviceIndex": "0,0"}
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.0005), platform, properties)
    except openmm.OpenMMException as error:
        pytest.skip(f"one device cannot be two: {error}")
    context.setPositions(CRYSTAL.positions * ANGSTROM)
    alone = systems.predicted(CRYSTAL, model)
    other = systems.measure(context, groups=2)
    expected = systems.Result(alone.energy + other.energy, alone.forces + other.forces)
    for _ in range(30):  # the order of the threads changes
        assert_same(systems.measure(context, groups=1), alone, "double")
        assert_same(systems.measure(context), expected, "double")
        derivatives = context.getState(parameterDerivatives=True).getEnergyParameterDerivatives()
        assert abs(derivatives["orbv3_scale"] / systems.KJ_PER_MOL - alone.energy) < 1e-9


def test_virtual_sites(platform, model):
    water = molecule("H2O")
    whole = Atoms("OH2He", [*water.positions, 2 * water.positions[0] - water.positions[1]])
    system = systems.system_of(whole, systems.force_of(whole, model))
    system.setParticleMass(3, 0.0)
    system.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 1, 2.0, -1.0))
    context = context_of(system, np.vstack([water.positions, np.zeros(3)]), platform, "mixed")
    context.computeVirtualSites()
    alone = systems.predicted(whole, model)
    forces = alone.forces[:3].copy()
    forces[0] += 2 * alone.forces[3]
    forces[1] -= alone.forces[3]
    result = systems.measure(context)
    assert_same(
        systems.Result(result.energy, result.forces[:3]), systems.Result(alone.energy, forces), "mixed"
    )


def test_scale_and_its_derivative(platform, model):
    system = systems.system_of(MOLECULE, systems.force_of(MOLECULE, model, scale=0.5))
    context = context_of(system, MOLECULE.positions, platform, "mixed")
    alone = systems.predicted(MOLECULE, model)
    for scale in (0.5, -2.0):
        context.setParameter("orbv3_scale", scale)
        expected = systems.Result(scale * alone.energy, scale * alone.forces)
        assert_same(systems.measure(context), expected, "mixed")
        derivatives = context.getState(parameterDerivatives=True).getEnergyParameterDerivatives()
        assert abs(derivatives["orbv3_scale"] / systems.KJ_PER_MOL - alone.energy) < 1e-5


def test_evaluation_is_that_of_python(platform, model):
    system = systems.system_of(MOLECULE, systems.force_of(MOLECULE, model))
    context = context_of(system, MOLECULE.positions, platform, "double")
    before = evaluations()
    result = OrbV3Force.cast(system.getForce(0)).evaluate(context)
    expected = systems.predicted(MOLECULE, model)
    np.testing.assert_allclose(result.forces / systems.KJ_PER_MOL * ANGSTROM, expected.forces, atol=1e-9)
    systems.measure(context)
    assert evaluations() == before + 1


def test_dynamics_keeps_the_neighbor_list_right(platform, model):
    integrator = openmm.LangevinMiddleIntegrator(2000.0, 10.0, 0.002)
    integrator.setRandomNumberSeed(3)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 5)
    barostat.setRandomNumberSeed(4)
    system = systems.system_of(CRYSTAL, systems.force_of(CRYSTAL, model), barostat)
    context = context_of(system, CRYSTAL.positions, platform, "mixed", integrator)
    for _ in range(3):
        integrator.step(10)
        assert_same(systems.measure(context), systems.predicted(now(context, CRYSTAL), model), "mixed")
    assert abs(now(context, CRYSTAL).get_volume() - CRYSTAL.get_volume()) > 0.1


def test_inside_a_collective_variable(platform, model):
    variable = openmm.CustomCVForce("0.5*e")
    variable.addCollectiveVariable("e", systems.force_of(MOLECULE, model))
    context = context_of(systems.system_of(MOLECULE, variable), MOLECULE.positions, platform, "mixed")
    alone = systems.predicted(MOLECULE, model)
    expected = systems.Result(0.5 * alone.energy, 0.5 * alone.forces)
    assert_same(systems.measure(context), expected, "mixed")


def test_the_minimizer_may_come_first(platform, model):
    system = systems.system_of(MOLECULE, systems.force_of(MOLECULE, model))
    context = context_of(system, MOLECULE.positions, platform, "mixed")
    name = "OpenCLPlatformName"
    if name in platform.getPropertyNames() and "Portable" in platform.getPropertyValue(context, name):
        pytest.skip("OpenMM's minimizer fails on PoCL, for a harmonic well too")
    openmm.LocalEnergyMinimizer.minimize(context, tolerance=1.0, maxIterations=30)
    before = systems.predicted(MOLECULE, model)
    after = systems.measure(context)
    assert after.energy < before.energy
    assert np.abs(after.forces).max() < 0.5 * np.abs(before.forces).max()


def test_forces_beyond_what_the_platform_can_add_are_refused(platform, model):
    system = systems.system_of(MOLECULE, systems.force_of(MOLECULE, model, scale=1e12))
    context = context_of(system, MOLECULE.positions, platform, "single")
    with pytest.raises(
        openmm.OpenMMException, match=r"OrbV3Force: the force on particle \d+ is .* more than"
    ):
        systems.measure(context)


def test_positions_that_are_not_finite_are_named(platform, model):
    system = systems.system_of(MOLECULE, systems.force_of(MOLECULE, model))
    positions = MOLECULE.positions.copy()
    positions[2, 1] = np.nan
    context = context_of(system, positions, platform, "single")
    with pytest.raises(openmm.OpenMMException, match="position of particle 2 is not finite"):
        systems.measure(context)


def found_on_path(*names: str) -> list[Path]:
    """The first file of each name under a folder of sys.path; skips if there is none."""
    files = [
        next((file for entry in sys.path if (file := Path(entry) / name).is_file()), None) for name in names
    ]
    for name, file in zip(names, files, strict=True):
        if file is None:
            pytest.skip(f"needs {name} on sys.path")
    return [file for file in files if file]


def cuda_dialect(library: Path) -> str:
    """What OpenMM puts in front of device code for CUDA: a string of its library."""
    content = library.read_bytes()
    within_it = content.index(b'#define KERNEL extern "C" __global__')
    start = content.rindex(b"\0", 0, within_it) + 1
    return content[start : content.index(b"\0", within_it)].decode()


@pytest.mark.parametrize("shared", [False, True], ids=["host arrays", "shared arrays"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_device_code_is_cuda(precision, shared):
    nvrtc_file, openmm_file = found_on_path(
        "nvidia/cuda_nvrtc/lib/libnvrtc.so.12", "OpenMM.libs/lib/plugins/libOpenMMCUDA.so"
    )
    header = Path(__file__).parents[3] / "openmm_plugin" / "src" / "device_code.h"
    (code,) = re.findall(r'R"\((.*)\)"', header.read_text(), re.DOTALL)
    real = "double" if precision == "double" else "float"
    types = "".join(f"typedef {real}{n} real{n};\n" for n in ("", "2", "3", "4"))
    defines = "#define NUM_PARTICLES 3\n#define PADDED_NUM_ATOMS 32\n#define POSITION double\n"
    defines += "#define LENGTH_UNIT 10.0\n"
    if shared:
        defines += "#define SHARED 1\n"
    if precision == "mixed":
        defines += "#define HAS_CORRECTION 1\n"
    source = (types + defines + cuda_dialect(openmm_file) + code).encode()
    nvrtc, program, size = ctypes.CDLL(str(nvrtc_file)), ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"orbv3.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * 1)(b"--gpu-architecture=compute_80")
    failed = nvrtc.nvrtcCompileProgram(program, 1, options)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert not failed, log.value.decode()
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    assert re.findall(r"\.entry (\w+)", ptx.value.decode()) == ["orbv3GatherPositions", "orbv3AddForces"]
