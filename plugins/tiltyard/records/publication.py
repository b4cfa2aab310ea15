"""What of every table is in service: its state on a night, and where each table stands that is not at the batch's own.

A table that a check held, that dbt could not build, or that is made of such a one stays as it was on its last good
night: at the lake's snapshot of then, and with nothing that became known later (a hindcast builds many nights into one
snapshot). Every other table stands at the snapshot of the batch that was published last.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Literal

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.records.base import Record

State = Literal["published", "held", "failed", "blocked", "late"]
"""published; held by a check; failed in dbt, or before it was judged; blocked by a table that it is made of; late,
since its source is."""


@dataclass(frozen=True, kw_only=True)
class TableState(Record):
    """How a table stands after a night."""

    night: date
    """The night."""
    table: str
    """The table, as dbt names it; of a source with its schema, like `raw.login`."""
    state: State
    """published, held, failed, blocked or late."""
    snapshot: int | None = None
    """The lake's snapshot at which the table was last good; None: never."""
    good_night: date | None = None
    """The night on which it was last good; None: never."""
    since: date | None = None
    """The first night of those on which it is not published; None when it is."""
    reason: str | None = None
    """Why it is not published, as a sentence; None when it is."""
    cause: str | None = None
    """The table at fault: itself, or the one that it is made of; None when it is published."""

    @property
    def is_published(self) -> bool:
        return self.state == "published"

    @property
    def until(self) -> datetime | None:
        """The instant up to which it is good, the end of its last good night; None: without a bound, or never good."""
        return None if self.is_published or self.good_night is None else clock.midnight(self.good_night)

    def __str__(self) -> str:
        if self.is_published:
            return f"{self.table} is published"
        last = f"stands as of {self.good_night}" if self.good_night else "was never published"
        return f"{self.table} is {self.state} since {self.since or self.night} and {last}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Publication(Record):
    """What is in service: the newest batch, and the tables that stand elsewhere."""

    snapshot: int
    """The lake's snapshot of the batch that was published last."""
    tables: Mapping[str, TableState] = field(default_factory=dict)
    """Table → its state, of those that do not stand at the batch's snapshot."""

    @property
    def snapshots(self) -> frozenset[int]:
        """Every snapshot that something is read at."""
        elsewhere = (state.snapshot for state in self.tables.values())
        return frozenset((self.snapshot, *(number for number in elsewhere if number is not None)))

    def of(self, table: str) -> int:
        """The snapshot at which a table is read. Raises BadInput for one that was never published."""
        state = self.state(table)
        if state is None:
            return self.snapshot
        if state.snapshot is None:
            raise BadInput(f"{state}. Mend it, and run tiltyard features again.")
        return state.snapshot

    def until(self, table: str) -> datetime | None:
        """The instant up to which a table may be read; None where nothing bounds it."""
        state = self.state(table)
        return state.until if state else None

    def state(self, table: str) -> TableState | None:
        """The state of a table that does not stand at the batch's snapshot; None for any other."""
        return self.tables.get(plain(table))

    def unpublished(self, tables: Collection[str]) -> tuple[TableState, ...]:
        """The states of those of `tables` that are not good, by name."""
        states = (self.state(table) for table in sorted(tables))
        return tuple(state for state in states if state is not None and not state.is_published)

    def part(self, tables: Collection[str]) -> "Publication":
        """What it says of some tables only: of the newest batch that one of them is of, and those that stand apart
        from it."""
        names = {plain(table): self.state(table) for table in tables}
        stands = [self.snapshot if state is None else state.snapshot for state in names.values()]
        snapshot = max((number for number in stands if number is not None), default=self.snapshot)
        apart = {}
        for name in sorted(names):
            state = names[name] or TableState(
                night=date.min, table=name, state="published", snapshot=self.snapshot, good_night=None
            )
            if not state.is_published or state.snapshot != snapshot:
                apart[name] = state
        return Publication(snapshot=snapshot, tables=apart)

    def without(self, tables: Collection[str], night: date) -> "Publication":
        """The same, and that there is nothing yet of some tables that no night was built with."""
        reason = "no features have been built since a spec names it"
        new = {
            name: TableState(night=night, table=name, state="blocked", reason=reason, cause=name)
            for name in map(plain, sorted(tables))
            if name not in self.tables
        }
        return replace(self, tables={**self.tables, **new}) if new else self

    @property
    def apart(self) -> str | None:
        """What a prediction keeps beside the batch's snapshot: a JSON object, table → [snapshot, the last good night
        where it bounds what may be read]; None where every table stands at the batch's."""
        body = {
            name: [state.snapshot, str(state.good_night) if state.until else None]
            for name, state in sorted(self.tables.items())
        }
        return json.dumps(body) if body else None

    @classmethod
    def made_from(cls, snapshot: int, apart: str | None) -> "Publication":
        """The publication of which a prediction kept `snapshot` and `apart`."""
        tables = {}
        for name, (stood, until) in json.loads(apart or "{}").items():
            night = date.fromisoformat(until) if until else date.min
            state: State = "held" if until or stood is None else "published"
            tables[name] = TableState(
                night=night,
                table=name,
                state=state,
                snapshot=stood,
                good_night=night if until else None,
                reason=None if state == "published" else "so it stood when the prediction was made",
            )
        return cls(snapshot=snapshot, tables=tables)


def plain(table: str) -> str:
    """The name by which a table has a state: without a schema that is not a source's. Kept answers are their view's."""
    schema, _, name = table.rpartition(".")
    return f"{schema}.{name}" if schema in ("raw", "ops") else name.removesuffix("__answers")
