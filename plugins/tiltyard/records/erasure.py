"""A person's right: what was erased, by whom and why, and what is held about one."""

from dataclasses import dataclass
from typing import Literal

from tiltyard.records.base import Instant, JsonObject, Record


@dataclass(frozen=True, kw_only=True)
class Erasure(Record):
    """That somebody is to be erased. It says whom by tombstones alone."""

    id: int
    """Its number."""
    entity: str
    """The entity that they are, like `customer`."""
    hashes: tuple[str, ...]
    """Their tombstones."""
    reason: str
    """Why, in the words of whoever asked."""
    requested_by: str
    """Who asked."""
    recorded_at: Instant
    """When it began, wall clock."""


@dataclass(frozen=True, kw_only=True)
class Learned(Record):
    """A version whose training frame held somebody who was erased."""

    model: str
    """The model's name."""
    version: int
    """Its number."""
    frame: str
    """The digest of its frame, which is gone."""
    follows: Literal["retrain", "record"]
    """What the spec says of it (`privacy.on_erasure`)."""


@dataclass(frozen=True, kw_only=True)
class Receipt(Record):
    """What came of an erasure."""

    erasure: int
    """The number of the erasure."""
    entity: str
    """The entity, like `customer`."""
    hashes: tuple[str, ...]
    """The tombstones of those who were erased."""
    reason: str
    """Why, in the words of whoever asked."""
    requested_by: str
    """Who asked."""
    begun_at: Instant
    """When it began, wall clock."""
    ended_at: Instant
    """When this attempt ended, wall clock."""
    attempt: int
    """Number of the attempt; more than 1 where an earlier one was killed, or did not find everything gone."""
    counts: dict[str, dict[str, int]]
    """Place → part of it → what was there when it began: rows, files, texts."""
    learned: tuple[Learned, ...] = ()
    """The versions that have learned from them."""
    left: tuple[str, ...] = ()
    """Where they still are, a sentence each; empty where it is done."""
    notes: tuple[str, ...] = ()
    """What a person should know, a sentence each."""
    seconds: float = 0.0
    """Time that this attempt took, in seconds."""

    @property
    def is_done(self) -> bool:
        """Whether the rescan has found nothing."""
        return not self.left


@dataclass(frozen=True, kw_only=True)
class HeldPart(Record):
    """What one part of a place holds about one."""

    part: str
    """The part: a table, a folder, a database."""
    count: int
    """Number of rows, files or texts."""
    rows: tuple[JsonObject, ...] = ()
    """The first of them."""


@dataclass(frozen=True, kw_only=True)
class HeldPlace(Record):
    """What one place holds about one."""

    place: str
    """The place."""
    what: str
    """What it holds, in words."""
    parts: tuple[HeldPart, ...] = ()
    """Its parts that hold anything."""


@dataclass(frozen=True, kw_only=True)
class Subject(Record):
    """All that is held about one."""

    entity: str
    """The entity, like `customer`."""
    value: str
    """Who it is."""
    at: Instant
    """When it was looked for."""
    places: tuple[HeldPlace, ...]
    """What every place holds."""
    learned: tuple[Learned, ...] = ()
    """The versions that have learned from them."""
    notes: tuple[str, ...] = ()
    """What a person should know, a sentence each."""
