"""What a store of online features is: the newest row of every table, by key, and the rule by which a row gives way.

A table here is a feature view or a spine. A row only ever gives way to one that wins by the point-in-time rule: the
later `event_time`, then the later `available_at`, then the greater values. So the lake and a stream may both bring a
row, twice and in any order.

Imported by the service: no pandas, no DuckDB, no SQLAlchemy, and no Redis before it is used.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, NamedTuple, Protocol, TypeVar

import orjson
from pydantic import Field, ValidationError

from tiltyard.errors import Unavailable
from tiltyard.records import Record

T = TypeVar("T")
R = TypeVar("R", bound=Record)
Value = float | bool | str | None
"""As an encoding reads it: a number, a yes or no, a category, or missing."""
Place = tuple[str, str]
"""Where a row lies: table and key."""

BATCH = 10_000
"""Rows per write."""
PAUSE_S = 1.0
"""For how long a store that fails again and again is left alone, while no request waits for it."""
EARLIEST, LATEST = -62_135_596_800.0, 253_402_300_799.0
"""What a row's times lie between, in epoch seconds: Python's calendar, from the year 1 to the last second of 9999."""
Moment = Annotated[float, Field(ge=EARLIEST, lt=LATEST)]
"""Such an instant in a note."""
KEY_BYTES = 400
"""The longest key that is written as it is; of a longer one its digest is. LMDB's keys end at 511 bytes."""


class FeatureRow(NamedTuple):
    """One row of a feature view or spine: its values by column, and its two times in epoch seconds, UTC."""

    values: Mapping[str, Value]
    event_time: float
    available_at: float


class Damaged(Unavailable):
    """The store holds what cannot be read. What the lake knows of it can be filled in again (`fill.materialise`)."""


class Store(Protocol):
    """Rows by table and key, and small notes by name."""

    is_local: bool
    """Whether a `get` is a matter of microseconds, so that it may be called on an event loop."""
    read_s: float
    """How long the lookups of one request may take on an event loop, all turns together, in seconds."""

    def get(self, places: Sequence[Place]) -> list[FeatureRow | None]:
        """The row of each place, None where there is none.

        Raises Unavailable when the store does not answer, Damaged when a row cannot be read.
        """

    async def aget(self, places: Sequence[Place], until: float) -> list[FeatureRow | None]:
        """`get` on an event loop, whose clock says how long the store may take."""

    def put(self, table: str, rows: Iterable[tuple[str, FeatureRow]], *, settled: bool = False) -> int:
        """Write the rows that win against those in the store, (key, row) each; the number that did.

        Durable on return; twice is once. `settled`: of two rows with the same times the new one counts, whatever its
        values, because the lake has decided. Raises Unavailable, also when it is full, and Damaged.
        """

    def prune(self, table: str, before: float) -> int:
        """Forget the rows whose event_time lies before, in epoch seconds; the number of them."""

    def forget(self, table: str, keys: Sequence[str]) -> int:
        """Forget the rows of these keys, whatever their times, so that no byte of them stays where the store lies; the
        number of them. Safe to repeat: what an earlier call has left of them goes as well."""

    def forget_seen(self) -> None:
        """Forget what this process remembers of rows that it has read."""

    def write_note(self, name: str, note: Record) -> None:
        """Keep a small record beside the rows, durable on return: it shares their fate."""

    def read_note(self, name: str, kind: type[R]) -> R | None:
        """The note under a name; None where there is none. Raises Unavailable, and Damaged for what is no `kind`."""

    def filling(self) -> AbstractContextManager[None]:
        """Around a filling: if the one before was killed, the store is looked over first. Raises Damaged."""

    def clear(self) -> None:
        """Forget everything, rows and notes, also what cannot be read. Raises Unavailable."""

    def close(self) -> None:
        """Give back what is open. A store that is used again opens again."""

    async def aclose(self) -> None:
        """`close` on an event loop, with what is open on that loop."""


@dataclass(frozen=True, kw_only=True)
class TableNote(Record):
    """How far a table is filled from the lake."""

    as_of: Moment
    """Instant up to which the lake's rows are in the store, in epoch seconds."""
    columns: dict[str, Annotated[str, Field(pattern="^(numeric|boolean|categorical)$")]]
    """Column → numeric, boolean or categorical, in the lake's order."""
    snapshot: Annotated[int, Field(ge=0)] = 0
    """Snapshot of the lake that was read."""
    key: str = ""
    """Name of the key's column."""
    max_age_s: int | None = None
    """Longest age of a row that a model accepts, in seconds; None: a model accepts any."""
    pruned: Moment | None = None
    """Instant of the last pruning, in epoch seconds; None: there was none."""


def table_note(table: str) -> str:
    """Name of a table's TableNote."""
    return f"table/{table}"


# -- the rule -----------------------------------------------------------------------------------------------


def wins(new: FeatureRow, old: FeatureRow | None, *, settled: bool = False) -> bool:
    """Does `new` take the place of `old`? By the point-in-time rule (docs/glossary.md); a repetition does not."""
    if old is None:
        return True
    new_times, old_times = (new.event_time, new.available_at), (old.event_time, old.available_at)
    if new_times != old_times:
        return new_times > old_times
    if settled:
        return dict(new.values) != dict(old.values)
    return _rank(new.values) > _rank(old.values)


def _rank(values: Mapping[str, Value]) -> list[tuple[int, float | str]]:
    """For an order among rows of one view: column by column, NULL the least, then numbers, then texts. A column has
    both only where it is of another kind since; what is neither was damaged, and counts as NULL."""
    return [
        (1, value) if isinstance(value, float | int) else (2, value) if isinstance(value, str) else (0, 0)
        for value in values.values()
    ]


def best(rows: Iterable[tuple[str, FeatureRow]], settled: bool) -> dict[str, FeatureRow]:
    """Of several rows for one key the one that wins."""
    winners: dict[str, FeatureRow] = {}
    for key, row in rows:
        if wins(row, winners.get(key), settled=settled):
            winners[key] = row
    return winners


# -- as bytes -----------------------------------------------------------------------------------------------


def pack(row: FeatureRow) -> bytes:
    """A row as JSON: [values, event_time, available_at]."""
    return orjson.dumps(tuple(row))


def unpack(content: bytes) -> FeatureRow:
    """The row that `pack` wrote. Raises Damaged for what is none."""
    # on the way of every request: it looks at what whoever uses a row relies on, and makes the row the quickest way
    try:
        values, event_time, available_at = parts = orjson.loads(content)
        if type(values) is dict and EARLIEST <= event_time < LATEST and EARLIEST <= available_at < LATEST:
            return tuple.__new__(FeatureRow, parts)
        error: Exception = ValueError("it holds no values, or times of no calendar")
    except (ValueError, TypeError) as caught:
        error = caught
    raise Damaged(f"The online store holds a row that cannot be read ({error}); run tiltyard online --afresh.")


def readable(content: bytes | None) -> FeatureRow | None:
    """The row that a new one has to win against; one that cannot be read gives way to any."""
    if content is None:
        return None
    try:
        return unpack(content)
    except Damaged:
        return None


def pack_note(note: Record) -> bytes:
    """A note as the store keeps it."""
    return orjson.dumps(note.to_json())


def unpack_note(content: bytes | None, kind: type[R]) -> R | None:
    """The note that `pack_note` wrote; None for nothing. Raises Damaged for what is none."""
    if content is None:
        return None
    try:
        return kind.from_json(orjson.loads(content))
    except (ValidationError, ValueError, TypeError):
        raise Damaged(f"The online store holds a {kind.__name__} that cannot be read; run tiltyard online.") from None


def key_bytes(key: str) -> bytes:
    """A key as the store writes it: any text, of any length."""
    content = key.encode("utf-8", "surrogatepass")
    return content if len(content) <= KEY_BYTES else b"\0" + hashlib.sha256(content).digest()


def batches(rows: Iterable[T]) -> Iterator[list[T]]:
    """`rows` in lists of BATCH."""
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        yield batch
