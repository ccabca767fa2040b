"""Which atoms of a Topology a user means: a selection, a function, or the atoms themselves.

    selection = term { ("and" | "or") term }, with the usual precedence and parentheses
    term      = "not" term | "(" selection ")" | "all" | field value { value }

Fields: resname, chain, name and element take names, resid the identifiers of residues; index and residue
take whole numbers from 0 and ranges such as 0-21, both ends included.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from openmm.app import Topology
from openmm.app.topology import Atom, Chain, Residue

Predicate = Callable[[Any], bool]  # of an openmm.app.topology.Atom
Region: TypeAlias = str | Predicate | Iterable[int | Atom | Residue | Chain] | Atom | Residue | Chain

_NAMED: dict[str, Callable[[Any], str]] = {
    "resname": lambda atom: atom.residue.name,
    "resid": lambda atom: atom.residue.id,
    "chain": lambda atom: atom.residue.chain.id,
    "name": lambda atom: atom.name,
    "element": lambda atom: "" if atom.element is None else atom.element.symbol,
}
_NUMBERED: dict[str, Callable[[Any], int]] = {
    "index": lambda atom: atom.index,
    "residue": lambda atom: atom.residue.index,
}
_WORDS = {"and", "or", "not", "all", "(", ")", *_NAMED, *_NUMBERED}


def select(topology: Topology, region: Region) -> list[int]:
    """Sorted indices of the atoms of `region`; no atoms at all are an error.

    `region`: a selection (above), a function of an Atom, or indices, Atoms, Residues and Chains in any
    mixture. Raises ValueError and TypeError that name what is wrong.
    """
    atoms = list(topology.atoms())
    if isinstance(region, str):
        chosen = _Parser(region).predicate()
        indices = {atom.index for atom in atoms if chosen(atom)}
    elif callable(region):
        indices = {atom.index for atom in atoms if region(atom)}
    elif isinstance(region, Iterable):  # Topology's own objects are none
        indices = set(_indices(atoms, region))
    else:
        indices = set(_indices(atoms, [region]))
    if not indices:
        raise ValueError(f"region: `region` is {region!r}, which is none of the {len(atoms)} atoms")
    return sorted(indices)


def _indices(atoms: list[Any], region: Iterable[Any]) -> Iterable[int]:
    for part in region:
        members = [part] if isinstance(part, Atom) else part
        if isinstance(part, Residue | Chain):
            members = part.atoms()
        if isinstance(part, Atom | Residue | Chain):
            for atom in members:
                # an object of another Topology, from before Modeller for example, has other indices
                if atom.index >= len(atoms) or atoms[atom.index] is not atom:
                    raise ValueError(f"region: `region` has {atom!r}, which is not of this Topology")
                yield atom.index
        elif isinstance(part, bool) or not hasattr(part, "__index__"):
            raise TypeError(f"region: `region` has {part!r} but must have indices, Atoms, Residues or Chains")
        elif not 0 <= part.__index__() < len(atoms):
            raise ValueError(f"region: `region` has {part} but the Topology has {len(atoms)} atoms")
        else:
            yield part.__index__()


class _Parser:
    """Recursive descent over the words of one selection."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = re.findall(r"[()]|[^\s()]+", text)
        self._next = 0

    def predicate(self) -> Predicate:
        chosen = self._either()
        if self._next < len(self._words):
            raise self._error(f"{self._words[self._next]!r} is one too many")
        return chosen

    def _either(self) -> Predicate:
        chosen = self._both()
        while self._take("or"):
            chosen = _or(chosen, self._both())
        return chosen

    def _both(self) -> Predicate:
        chosen = self._term()
        while self._take("and"):
            chosen = _and(chosen, self._term())
        return chosen

    def _term(self) -> Predicate:
        if self._take("not"):
            rejected = self._term()
            return lambda atom: not rejected(atom)
        if self._take("("):
            chosen = self._either()
            if not self._take(")"):
                raise self._error("a `)` is missing")
            return chosen
        if self._take("all"):
            return lambda atom: True
        return self._field()

    def _field(self) -> Predicate:
        field = self._words[self._next] if self._next < len(self._words) else ""
        if field not in _NAMED and field not in _NUMBERED:
            known = ", ".join([*_NAMED, *_NUMBERED])
            state = f"{field!r} stands" if field else "it ends"
            raise self._error(f"{state} where one of {known}, all, not or ( must stand")
        self._next += 1
        values = []
        while self._next < len(self._words) and self._words[self._next] not in _WORDS:
            values.append(self._words[self._next])
            self._next += 1
        if not values:
            raise self._error(f"{field} has no value")
        if field in _NAMED:
            name, names = _NAMED[field], set(values)
            return lambda atom: name(atom) in names
        number, ranges = _NUMBERED[field], [self._range(value) for value in values]
        return lambda atom: any(first <= number(atom) <= last for first, last in ranges)

    def _range(self, value: str) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", value)
        if match is None:
            raise self._error(f"{value!r} is no number or range")
        return int(match[1]), int(match[2] or match[1])

    def _take(self, word: str) -> bool:
        found = self._next < len(self._words) and self._words[self._next] == word
        self._next += found
        return found

    def _error(self, reason: str) -> ValueError:
        return ValueError(f"region: `region` is {self._text!r}: {reason}")


def _or(first: Predicate, second: Predicate) -> Predicate:
    return lambda atom: first(atom) or second(atom)


def _and(first: Predicate, second: Predicate) -> Predicate:
    return lambda atom: first(atom) and second(atom)
