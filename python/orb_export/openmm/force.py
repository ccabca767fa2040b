"""OrbV3Force for Python: made through OpenMM's XML, so that one library serves every version of Python."""

import base64
import math
import warnings
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import openmm
from openmm.app import Topology

from orb_export.artefact import sha256_of_file
from orb_export.openmm import results
from orb_export.openmm.plugin import library

EMBED_WARNING = 32 * 2**20  # bytes of an artefact
EMBED_LIMIT = 2**30  # OpenMM's reader of XML counts letters in 32 bits
_VERSION = "1"  # of the XML, orbv3_force_proxy.cpp
_AXES = ("periodicA", "periodicB", "periodicC")


class OrbV3Force(openmm.Force):  # type: ignore[misc]  # openmm has no types
    """An Orb-v3 potential on all or some particles of a System; add it with `System.addForce`.

    The artefact is opened when a Context is created; what does not fit is an OpenMMException then. The
    Context has the global parameter `<prefix>_scale`, a factor of energy and forces whose energy derivative
    is always provided, and for models conditioned on them `<prefix>_charge` and `<prefix>_spin`.
    """

    def __init__(
        self,
        artefact: str | Path,
        atoms: Topology | Sequence[int],
        *,
        particles: Sequence[int] | None = None,
        periodic: bool | Sequence[bool] | None = None,
        charge: float | None = None,
        spin: float | None = None,
        scale: float = 1.0,
        device: str = "auto",
        precision: str = "auto",
        program: str = "auto",
        memory_limit: int = 0,
        threads: int = 0,
        skin: float = 0.1,
        embed: bool = False,
        prefix: str = "orbv3",
        force_group: int = 0,
        name: str = "OrbV3Force",
    ) -> None:
        """Make the force.

        Args:
            artefact: file written by ``orb-export export``. Its path and SHA-256 are kept; its content only
                with `embed`.
            atoms: a Topology, which gives the elements; or atomic numbers, one for each of `particles`.
            particles: indices of particles in the System, in any order; by default all of `atoms`.
            periodic: whether there are images along the box vectors, one flag or three. Required with atomic
                numbers; with a Topology by default whether it has box vectors.
            charge: total charge, e; required by, and only allowed for, models conditioned on it.
            spin: spin multiplicity 2S+1; likewise.
            scale: default of the parameter `<prefix>_scale`.
            device: auto (the one that the artefact was made for), cpu, cuda or cuda:N.
            precision: float32, float64 or auto; what the artefact must compute in, which auto leaves to it.
            program: what gives forces on the CPU where the limit permits: whole, steps, or auto, the faster
                for the number of edges (docs/artefact.md, Steps).
            memory_limit: bytes that an evaluation may use beyond the weights, 0 for no limit; large systems
                are then evaluated piece by piece.
            threads: of torch in this process and of the edge search; 0 leaves it to them.
            skin: length that the list of candidate neighbors reaches beyond the cutoff, nm.
            embed: keep the artefact itself, so that the XML of a System needs no other file; warns above
                `EMBED_WARNING` bytes.
            prefix: of the names of the parameters; forces with the same prefix share them.
            force_group: 0 to 31.
            name: of the force.

        Raises:
            FileNotFoundError: there is no `artefact`.
            ValueError, TypeError: an argument cannot be used; the message names it.
        """
        path = Path(artefact).absolute()
        if not path.is_file():
            raise FileNotFoundError(f"OrbV3Force: `artefact` is {path}, which is no file")
        indices, numbers = _particles_and_numbers(atoms, particles)
        record = {
            "type": "OrbV3Force",
            "version": _VERSION,
            "forceGroup": str(_integer("force_group", force_group, 0, 31)),
            "name": name,
            "artefact": str(path),
            "sha256": sha256_of_file(path),
            "particles": " ".join(map(str, indices)),
            "numbers": " ".join(map(str, numbers)),
            **dict(zip(_AXES, _flags(atoms, periodic), strict=True)),
            **_charge_and_spin(charge, spin),
            "scale": _real("scale", scale),
            "device": device,
            "precision": _one_of("precision", precision, ("auto", "float32", "float64")),
            "program": _one_of("program", program, ("auto", "whole", "steps")),
            "memoryLimit": str(_integer("memory_limit", memory_limit, 0)),
            "threads": str(_integer("threads", threads, 0)),
            "skin": _real("skin", skin, 0.0),
            "prefix": prefix,
        }
        library().registerKernelFactories()  # for platforms that were loaded since
        element = ElementTree.Element("Force", record)
        if embed:
            element.append(_embedded(path))
        made = openmm.XmlSerializer.deserialize(ElementTree.tostring(element, encoding="unicode"))
        self.this = made.this  # the C++ object and its ownership

    @classmethod
    def cast(cls, force: openmm.Force) -> "OrbV3Force":
        """The same C++ force as an OrbV3Force, for what `System.getForce` returns. Raises TypeError."""
        if not is_orbv3(force):
            raise TypeError(f"OrbV3Force.cast: `force` is {force!r} but must be an OrbV3Force")
        same: OrbV3Force = cls.__new__(cls)
        same.this = force.this
        return same

    def __deepcopy__(self, memo: dict[int, Any]) -> "OrbV3Force":
        return self.cast(openmm.XmlSerializer.clone(self))

    def evaluate(self, context: openmm.Context) -> results.Evaluation:
        """Energy, forces, strain gradient and confidence at the present positions and box of a Context.

        Costs nothing when the Context has just computed the forces of this force, and the next step then
        costs no evaluation either. The force must be the one in the System of the Context:
        ``OrbV3Force.cast(context.getSystem().getForce(i))``; for a collective variable, in the System of
        ``CustomCVForce.getInnerContext(context)``.

        Raises OpenMMException when it is not, and when the evaluation fails; TypeError.
        """
        return results.evaluate(self, context)

    @property
    def artefact(self) -> Path:
        """Path of the artefact."""
        return Path(self._record()["artefact"])

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 that the artefact must have."""
        return self._record()["sha256"]

    @property
    def particles(self) -> list[int]:
        """Indices of the particles, in the order they were given in."""
        indices: list[int] = []
        for word in self._record()["particles"].split():
            first, _, last = word.partition("-")
            indices.extend(range(int(first), int(last or first) + 1))
        return indices

    @property
    def numbers(self) -> list[int]:
        """Atomic numbers of `particles`."""
        return [int(word) for word in self._record()["numbers"].split()]

    @property
    def periodic(self) -> tuple[bool, bool, bool]:
        """Whether there are images along each box vector."""
        record = self._record()
        a, b, c = (record[axis] == "1" for axis in _AXES)
        return a, b, c

    @property
    def precision(self) -> str:
        """What the artefact must compute in: float32, float64 or auto."""
        return self._record()["precision"]

    @property
    def program(self) -> str:
        """What gives forces on the CPU: whole, steps or auto."""
        return self._record().get("program", "auto")

    @property
    def memory_limit(self) -> int:
        """Bytes that an evaluation may use beyond the weights; 0: no limit."""
        return int(self._record()["memoryLimit"])

    @property
    def embedded(self) -> bool:
        """Whether the force carries the artefact itself."""
        return bool(library().orbv3_openmm_content_size(int(self.this)))

    @property
    def prefix(self) -> str:
        """What the names of the parameters begin with."""
        return self._record()["prefix"]

    def _record(self) -> dict[str, str]:
        xml = library().orbv3_openmm_record(int(self.this))  # without an embedded artefact
        if xml is None:
            raise openmm.OpenMMException(library().orbv3_openmm_failure().decode())
        return ElementTree.fromstring(xml).attrib


def is_orbv3(force: openmm.Force) -> bool:
    """Whether a force is an OrbV3Force, also where OpenMM returns it as a plain `openmm.Force`."""
    return isinstance(force, openmm.Force) and bool(library().orbv3_openmm_is_orbv3(int(force.this)))


def _embedded(path: Path) -> ElementTree.Element:
    size = path.stat().st_size
    if size > EMBED_LIMIT:
        raise ValueError(f"OrbV3Force: `embed` is True but {path} has {size} bytes, more than {EMBED_LIMIT}")
    if size > EMBED_WARNING:
        warnings.warn(
            f"OrbV3Force: `embed` puts {path} of {size / 1e6:.0f} MB into the force: every copy and XML of "
            f"the System has {size * 4 / 3e6:.0f} MB",
            stacklevel=3,
        )
    return ElementTree.Element("Artefact", {"base64": base64.b64encode(path.read_bytes()).decode()})


def _particles_and_numbers(
    atoms: Topology | Sequence[int], particles: Sequence[int] | None
) -> tuple[list[int], list[int]]:
    if isinstance(atoms, Topology):
        known = list(atoms.atoms())
        indices = _indices(range(len(known)) if particles is None else particles)
        beyond = [index for index in indices if index >= len(known)]
        if beyond:
            raise ValueError(
                f"OrbV3Force: `particles` has {beyond[0]} but the Topology has {len(known)} atoms"
            )
        for index in indices:
            if known[index].element is None:
                raise ValueError(
                    f"OrbV3Force: `atoms` has no element for atom {index} ({known[index].name}): leave it "
                    "out of `particles`"
                )
        return indices, [known[index].element.atomic_number for index in indices]
    numbers = [_integer("atoms", number, 0) for number in atoms]
    indices = _indices(range(len(numbers)) if particles is None else particles)
    if len(indices) != len(numbers):
        raise ValueError(
            f"OrbV3Force: `atoms` has {len(numbers)} atomic numbers but `particles` has {len(indices)} "
            "indices"
        )
    return indices, numbers


def _indices(particles: Sequence[int]) -> list[int]:
    indices = [_integer("particles", index, 0) for index in particles]
    if not indices:
        raise ValueError("OrbV3Force: `particles` is empty")
    return indices


def _flags(atoms: Topology | Sequence[int], periodic: bool | Sequence[bool] | None) -> list[str]:
    boxed = isinstance(atoms, Topology) and atoms.getPeriodicBoxVectors() is not None
    if periodic is None:
        if not isinstance(atoms, Topology):
            raise ValueError("OrbV3Force: `periodic` is missing: it must be given with atomic numbers")
        periodic = boxed
    flags = list(periodic) if isinstance(periodic, Iterable) else [periodic] * 3
    if len(flags) != 3 or not all(flag in (True, False) for flag in flags):
        raise ValueError(f"OrbV3Force: `periodic` is {periodic!r} but must be one flag or three")
    if any(flags) and isinstance(atoms, Topology) and not boxed:
        raise ValueError(f"OrbV3Force: `periodic` is {periodic!r} but the Topology has no box vectors")
    return [str(int(flag)) for flag in flags]


def _charge_and_spin(charge: float | None, spin: float | None) -> dict[str, str]:
    if charge is None and spin is None:
        return {}
    if charge is None or spin is None:
        missing = "charge" if charge is None else "spin"
        raise ValueError(f"OrbV3Force: `{missing}` is missing: give both `charge` and `spin`, or none")
    return {"charge": _real("charge", charge), "spin": _real("spin", spin, 0.0)}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"OrbV3Force: `{name}` is {value!r} but must be one of {', '.join(allowed)}")
    return value


def _real(name: str, value: float, least: float = -math.inf) -> str:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"OrbV3Force: `{name}` is {value!r} but must be a number")
    if not math.isfinite(value) or value < least:
        wanted = "finite" if least == -math.inf else f"finite and at least {least:g}"
        raise ValueError(f"OrbV3Force: `{name}` is {value} but must be {wanted}")
    return repr(float(value))


def _integer(name: str, value: int, least: int, most: int | None = None) -> int:
    try:
        integer = value.__index__()
    except AttributeError:
        raise TypeError(f"OrbV3Force: `{name}` has {value!r} but must be whole numbers") from None
    if isinstance(value, bool):
        raise TypeError(f"OrbV3Force: `{name}` has {value!r} but must be whole numbers")
    if integer < least or (most is not None and integer > most):
        wanted = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"OrbV3Force: `{name}` has {integer} but must be {wanted}")
    return integer
