"""The tag `<OrbV3Force>` of OpenMM's ForceField: alone for everything, beside others for a region.

Loaded through the entry point `openmm.forcefielddir` and by data/orbv3.xml. All work is done in a script that
`createSystem` runs last, because it adds the constraints of residue templates after `postprocessSystem`.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import openmm
from openmm import unit
from openmm.app import ForceField, Topology
from openmm.app import forcefield as host

from orb_export.openmm.mixed import add_to_all, add_to_region
from orb_export.openmm.regions import select

TAG = "OrbV3Force"
_SCRIPT = """
from orb_export.openmm.forcefield import finish

finish(self, sys, topology, args, constraints, rigidWater)
"""


def data_directory() -> str:
    """Folder of orbv3.xml; what the entry point `openmm.forcefielddir` names."""
    return str(Path(__file__).parent / "data")


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError("must be true or false")
    return text.lower() in ("true", "1")


class _Option(NamedTuple):
    """An attribute of the tag, or a keyword of createSystem: `model` and `orbModel`, `spin` and `orbSpin`."""

    parse: Callable[[str], Any]  # the attribute
    unit: Any = None  # that a Quantity is converted to
    name: str = ""  # of the argument of OrbV3Force, where it is another


_OPTIONS = {
    "model": _Option(str),
    "region": _Option(str),
    "charge": _Option(float, unit.elementary_charge),
    "spin": _Option(float),
    "periodic": _Option(_flag),
    "device": _Option(str),
    "precision": _Option(str),
    "program": _Option(str),
    "memoryLimit": _Option(int, name="memory_limit"),
    "threads": _Option(int),
    "skin": _Option(float, unit.nanometer),
    "embed": _Option(_flag),
    "forceGroup": _Option(int, name="force_group"),
    "interpolate": _Option(_flag),
}
_LINK_DISTANCES = "orbLinkAtomDistances"  # a keyword only: its indices belong to one Topology


def _keyword(attribute: str) -> str:
    return f"orb{attribute[0].upper()}{attribute[1:]}"


class OrbV3Generator:
    """What all `<OrbV3Force>` tags of one ForceField say together."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.attached = False
        self._elements: list[ElementTree.Element] = []

    @staticmethod
    def parseElement(element: ElementTree.Element, forcefield: ForceField) -> None:
        """Take a tag; OpenMM calls it by this name. Raises ValueError."""
        generator = _generator(forcefield)
        if generator is None:
            generator = OrbV3Generator()
            forcefield.registerGenerator(generator)
            forcefield.registerTemplateGenerator(_add_template)
        generator._add(element)

    def _add(self, element: ElementTree.Element) -> None:
        if any(element is known for known in self._elements):
            return
        self._elements.append(element)
        for name, text in element.attrib.items():
            if name not in _OPTIONS:
                raise ValueError(f"<{TAG}>: unknown attribute `{name}`; there are {', '.join(_OPTIONS)}")
            try:
                value = _OPTIONS[name].parse(text)
            except ValueError as error:
                raise ValueError(f"<{TAG}>: `{name}` is {text!r}: {error}") from None
            if self.attributes.setdefault(name, value) != value:
                raise ValueError(
                    f"<{TAG}>: `{name}` is {text!r} in one tag and {self.attributes[name]!r} in another"
                )

    def createForce(self, *arguments: Any) -> None:
        """OpenMM asks every generator for its force; ours comes last, with `finish`. Raises ValueError."""
        if not self.attached:  # and in a process that has not loaded this module the tag would be skipped
            raise ValueError(f'<{TAG}>: `<Include file="orbv3.xml"/>` is missing beside the tag')

    def options(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Attributes, each replaced by the keyword of createSystem where that was given."""
        values = dict(self.attributes)
        for name, option in _OPTIONS.items():
            # `get` with a default is what makes a keyword known to OpenMM, and misspelt ones an error
            value = keywords.get(_keyword(name), None)
            if value is not None:
                is_quantity = option.unit is not None and unit.is_quantity(value)
                values[name] = value.value_in_unit(option.unit) if is_quantity else value
        if "model" not in values:
            raise ValueError("createSystem: `orbModel` is missing: the artefact, a .pt2 or .pt file")
        return {_OPTIONS[name].name or name: value for name, value in values.items()}


host.parsers[TAG] = OrbV3Generator.parseElement


def attach(forcefield: ForceField, trees: Iterable[Any]) -> None:
    """Called by orbv3.xml when it is loaded, with all `trees` of one call of loadFile.

    Parses the tags that OpenMM has skipped because this module was not loaded yet, and registers our script
    behind those of the other files: implicit solvents are added by scripts too.
    """
    for tree in trees:
        for element in tree.getroot().findall(TAG):
            OrbV3Generator.parseElement(element, forcefield)
    generator = _generator(forcefield)
    assert generator is not None  # orbv3.xml has a tag itself
    if not generator.attached:
        generator.attached = True
        forcefield.registerScript(_SCRIPT)


def finish(
    forcefield: ForceField,
    system: openmm.System,
    topology: Topology,
    keywords: Mapping[str, Any],
    constraints: Any,
    rigid_water: bool | None,
) -> None:
    """Put the force into the finished System, in place. Raises ValueError, TypeError, ImportError."""
    generator = _generator(forcefield)
    assert generator is not None
    options = generator.options(keywords)
    model = Path(options.pop("model")).expanduser()
    distances = keywords.get(_LINK_DISTANCES, ())
    if _is_alone(forcefield):
        _reject("the model has no rigid parts", constraints=constraints, rigidWater=rigid_water)
        _reject(
            "there is no other force field",
            orbRegion=options.pop("region", None),
            orbInterpolate=options.pop("interpolate", None),
            orbLinkAtomDistances=distances,
        )
        add_to_all(system, topology, model, options)
    elif "region" in options:
        region = select(topology, options.pop("region"))
        add_to_region(system, topology, model, region, distances, options)
    else:
        raise ValueError(
            "createSystem: `orbRegion` is missing: the atoms that the model takes over from the other force "
            "field; ForceField('orbv3.xml') alone takes all"
        )


def _generator(forcefield: ForceField) -> OrbV3Generator | None:
    generators = forcefield.getGenerators()
    return next((found for found in generators if isinstance(found, OrbV3Generator)), None)


def _is_alone(forcefield: ForceField) -> bool:
    return all(isinstance(generator, OrbV3Generator) for generator in forcefield.getGenerators())


def _reject(reason: str, **given: Any) -> None:
    for name, value in given.items():
        if value:
            raise ValueError(f"createSystem: `{name}` is {value!r} but has no meaning here: {reason}")


def _add_template(forcefield: ForceField, residue: Any) -> bool:
    """A residue template from the residue itself, for OpenMM's registerTemplateGenerator.

    Beside another force field it declines: without that one's parameters a residue cannot be embedded.
    """
    if not _is_alone(forcefield):
        return False
    template = ForceField._TemplateData(f"orbv3-{len(forcefield._templates)}")
    template.rigidWater = False
    local = {atom: index for index, atom in enumerate(residue.atoms())}
    for atom, index in local.items():
        if atom.element is None:
            raise ValueError(
                f"createSystem: `topology` has no element for atom {atom.index} ({atom.name} of "
                f"{residue.name}): delete extra particles with Modeller.delete"
            )
        symbol, mass = atom.element.symbol, atom.element.mass.value_in_unit(unit.dalton)
        name = f"orbv3-{symbol}"
        forcefield.registerAtomType({"name": name, "class": name, "mass": mass, "element": symbol})
        template.addAtom(ForceField._TemplateAtomData(str(index), name, atom.element))
    # sets: a bond that a file gives twice is one bond to OpenMM's matching
    for first, second in {frozenset(bond) for bond in residue.internal_bonds()}:
        template.addBond(local[first], local[second])
    for bond in {frozenset(bond) for bond in residue.external_bonds()}:
        template.addExternalBond(next(local[atom] for atom in bond if atom in local))
    forcefield.registerResidueTemplate(template)
    return True
