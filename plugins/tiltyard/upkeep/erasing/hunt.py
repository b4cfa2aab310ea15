"""What is looked for, what a place is, and what it has found."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from tiltyard.prepare.whose import Whose
from tiltyard.rails import Rails
from tiltyard.records import JsonObject
from tiltyard.upkeep.erasing.needles import Needles


@dataclass(frozen=True)
class Hunt:
    """Who is looked for."""

    rails: Rails
    whose: Whose
    """What holds the entity."""
    values: frozenset[str]
    """Who, as texts without spaces around them."""
    needles: Needles
    """The same, for bytes and texts."""
    most: int = 0
    """Number of rows of each part that are brought along."""
    erasure: int | None = None
    """Number of the erasure that orders it; None where nothing is erased."""

    @classmethod
    def of(cls, rails: Rails, whose: Whose, values: Collection[str], most: int = 0) -> "Hunt":
        """The hunt for these."""
        return cls(rails, whose, frozenset(values), Needles(values), most)


@dataclass
class Found:
    """What a place holds."""

    counts: Counter[str] = field(default_factory=Counter)
    """Part → number of rows, files or texts."""
    values: set[str] = field(default_factory=set)
    """Who of those that are looked for was found."""
    rows: dict[str, list[JsonObject]] = field(default_factory=dict)
    """Part → the first of them."""
    doubts: list[str] = field(default_factory=list)
    """What names them and cannot be erased before a person has said what it is, a sentence each."""
    notes: list[str] = field(default_factory=list)
    """What a person should know, a sentence each."""

    def add(
        self,
        part: str,
        values: Collection[str],
        count: int = 1,
        row: Mapping[str, object] | None = None,
        most: int = 0,
    ) -> None:
        """Count something of a part."""
        self.counts[part] += count
        self.values |= set(values)
        if row is not None and len(self.rows.setdefault(part, [])) < most:
            self.rows[part].append({name: _plain(value) for name, value in row.items()})


class Place(Protocol):
    """Where something of one may lie."""

    name: str
    """Its name in a receipt."""
    what: str
    """What lies there, in words."""

    def find(self, hunt: Hunt) -> Found:
        """What is there. It changes nothing."""

    def erase(self, hunt: Hunt, found: Found) -> None:
        """Take it away. Safe to repeat, and to kill."""


def _plain(value: object) -> JsonValue:
    """A value as JSON holds it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value)
