"""Filling the store from the lake: every night, the newest row per key of every feature view and spine.

A night looks only at keys with a row that was written, or became known, since the last time. A night that is done
again never takes the store back. A store that is away holds up no night: the next one catches up.
"""

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, Unavailable
from tiltyard.lake import qualified, quoted, stored
from tiltyard.online.connection import connect
from tiltyard.online.lookup import plan
from tiltyard.online.store import BATCH, EARLIEST, Damaged, FeatureRow, Store, TableNote, Value, table_note
from tiltyard.prepare import frame
from tiltyard.rails import Rails
from tiltyard.records import Publication, Record
from tiltyard.spec import Spec, portfolio

AGES = 2
"""Rows stay until they are so many max_feature_ages old: they are refused as stale before they are forgotten."""
UNAVAILABLE = "online_unavailable"
"""Kind of the ledger's event on a night whose store could not be filled."""
REBUILT = "online_rebuilt"
"""Kind of the ledger's event when a damaged store was made anew."""

_CASTS = {"numeric": "double", "boolean": "boolean", "categorical": "varchar"}


@dataclass(frozen=True)
class OnlineTable:
    """A feature view or spine in the store."""

    name: str
    key: str
    """The column of its key."""
    columns: Mapping[str, str]
    """Column → numeric, boolean or categorical, in the lake's order."""
    event_time: str
    """The column that says when a row happened: a spine's is its prediction_time."""
    max_age_s: int | None
    """Longest age of a row that a model accepts, in seconds; None: a model accepts any."""


@dataclass(frozen=True, kw_only=True)
class FillSummary(Record):
    """What a filling brought."""

    tables: int = 0
    """Feature views and spines of the models."""
    rows: dict[str, int] = field(default_factory=dict)
    """Table → rows that won against those in the store."""
    waiting: dict[str, str] = field(default_factory=dict)
    """Model → why it waits: its views are not built yet. It keeps nobody else."""
    unavailable: str | None = None
    """Why the store could not be filled, and what to do; None: it was."""
    rebuilt: str | None = None
    """What was damaged in the store, so that it was made anew; None: nothing was."""
    seconds: float = 0.0
    """How long it took."""


def fill_night(rails: Rails, as_of: datetime, only: Collection[str] | None = None) -> FillSummary:
    """Bring the store up to what is published, at the end of a night: all of it, or `only` these tables.

    A store that is away, full, locked or of another version holds up no night: it is an event in the ledger, which
    says what to do, and the next night catches up. One that is damaged is made anew, which is an event, too.
    """
    try:
        return materialise(rails, as_of, only=only)
    except Unavailable as error:
        rails.ledger.add_event(UNAVAILABLE, "", night_closing(as_of), {"reason": str(error)})
        return FillSummary(unavailable=str(error))


def materialise(
    rails: Rails, as_of: datetime, *, only: Collection[str] | None = None, afresh: bool = False
) -> FillSummary:
    """Bring the store up to what the published lake knows at `as_of`: the newest row per key of every table, or of
    `only` these.

    `afresh` empties the tables first, and so can take the store back to an earlier night. A store that is damaged is
    made anew; what a stream has brought since comes back with its next landing. Raises Unavailable when the store does
    not answer, BadInput when nothing is published.
    """
    began, publication = time.monotonic(), rails.publication()
    store, rebuilt = connect(rails.settings), None
    try:
        contents, waiting = tables(rails, portfolio(rails.settings), publication)
        try:
            with store.filling():
                chosen = [table for table in contents if only is None or table.name in only]
                rows = _fill_all(rails, store, chosen, as_of, publication, afresh=afresh)
        except Damaged as error:
            rebuilt = str(error)
            store.clear()
            with store.filling():
                rows = _fill_all(rails, store, contents, as_of, publication)
    finally:
        store.close()
    if rebuilt is not None:
        rails.ledger.add_event(REBUILT, "", night_closing(as_of), {"reason": rebuilt})
    seconds = round(time.monotonic() - began, 2)
    return FillSummary(tables=len(contents), rows=rows, waiting=waiting, rebuilt=rebuilt, seconds=seconds)


def _fill_all(
    rails: Rails,
    store: Store,
    contents: Iterable[OnlineTable],
    as_of: datetime,
    publication: Publication,
    *,
    afresh: bool = False,
) -> dict[str, int]:
    """Table → rows that won. A table that is not good is brought up to its last good night, and no further."""
    rows = {}
    for table in contents:
        moment = min(as_of, publication.until(table.name) or as_of)
        rows[table.name] = fill(rails, store, table, moment, publication.of(table.name), afresh=afresh)
    return rows


def tables(rails: Rails, specs: Sequence[Spec], publication: Publication) -> tuple[list[OnlineTable], dict[str, str]]:
    """Every feature view and spine of the models, by name; and model → why not, of those that cannot be read yet."""
    by_name: dict[str, OnlineTable] = {}
    waiting: dict[str, str] = {}
    for spec in specs:
        try:
            parts = _tables_of(rails, spec, publication)
        except BadInput as error:
            waiting[spec.name] = str(error)
            continue
        for table in parts:
            by_name[table.name] = _merged(by_name.get(table.name, table), table)
    return [by_name[name] for name in sorted(by_name)], waiting


def _tables_of(rails: Rails, spec: Spec, publication: Publication) -> list[OnlineTable]:
    """One model's tables, but for the views that there is nothing of yet. Raises BadInput while its spine is not built,
    or none of its views."""
    publication.of(spec.prediction.spine)  # says so when it was never good
    read = frame.readable(rails, spec, publication)
    spec = read if read.prediction.features else spec
    lookup_plan = plan(spec)
    features = frame.features(rails, spec, publication)
    parts = []
    for view, key in lookup_plan.views:
        columns: dict[str, str] = {feature.name: feature.kind for feature in features if feature.view == view}
        parts.append(OnlineTable(view, key, columns, "event_time", lookup_plan.max_age_s))
    if lookup_plan.other_keys:
        columns = dict.fromkeys(lookup_plan.other_keys, "categorical")
        parts.append(
            OnlineTable(lookup_plan.spine, lookup_plan.entity, columns, "prediction_time", lookup_plan.max_age_s)
        )
    return parts


def _merged(first: OnlineTable, second: OnlineTable) -> OnlineTable:
    """One table as two models want it: the columns of both, and the longer of their ages."""
    longest = None
    if first.max_age_s is not None and second.max_age_s is not None:
        longest = max(first.max_age_s, second.max_age_s)
    return OnlineTable(second.name, second.key, {**first.columns, **second.columns}, second.event_time, longest)


def fill(
    rails: Rails, store: Store, table: OnlineTable, as_of: datetime, snapshot: int, *, afresh: bool = False
) -> int:
    """Bring one table up to what the lake held at `snapshot` and knew at `as_of`; the number of rows that won."""
    name = table_note(table.name)
    if afresh:
        store.prune(table.name, math.inf)
    before = None if afresh else store.read_note(name, TableNote)
    until = as_of.timestamp() if before is None else max(as_of.timestamp(), before.as_of)
    is_same = before is not None and before.columns == dict(table.columns) and before.max_age_s == table.max_age_s
    rows = _newest(rails, table, until, snapshot, before if is_same else None)
    written = store.put(table.name, rows, settled=True)
    pruned = None if before is None else before.pruned
    if table.max_age_s is not None and (pruned is None or pruned + table.max_age_s <= until):
        store.prune(table.name, until - AGES * table.max_age_s)
        pruned = until
    note = TableNote(
        as_of=until,
        snapshot=snapshot if before is None else max(snapshot, before.snapshot),
        key=table.key,
        columns=dict(table.columns),
        max_age_s=table.max_age_s,
        pruned=pruned,
    )
    store.write_note(name, note)
    return written


def _newest(
    rails: Rails, table: OnlineTable, until: float, snapshot: int, before: TableNote | None
) -> Iterator[tuple[str, FeatureRow]]:
    """(key, row) of what the lake held at `snapshot` and knew at `until`; with `before`, of keys that changed since."""
    names = list(table.columns)
    parameters = {"until": round(until * 1e6)}
    connection = rails.lake.connection
    whole = _newest_sql(table, snapshot)
    if before is None:
        cursor = connection.execute(whole, parameters)
    else:
        since = {"since": round(before.as_of * 1e6)}
        changed = f'and "{table.key}" in ({_changed_sql(table, snapshot, before)})'
        try:
            cursor = connection.execute(_newest_sql(table, snapshot, changed), parameters | since)
        except duckdb.Error:
            # the record of what was written since is not there any more (snapshots were expired): look at every key
            cursor = connection.execute(whole, parameters)
    while batch := cursor.fetchmany(BATCH):
        for key, event_us, available_us, *values in batch:
            yield key, FeatureRow(finite(names, values), event_us / 1e6, available_us / 1e6)


def _newest_sql(table: OnlineTable, snapshot: int, condition: str = "") -> str:
    """SQL of the newest row per key that was known at $until, of the rows that meet a further `condition`."""
    columns = "".join(f", cast({quoted(name)} as {_CASTS[kind]})" for name, kind in table.columns.items())
    order = "".join(f", {quoted(name)} desc nulls last" for name in table.columns)
    event_us = f'epoch_us("{table.event_time}")'
    oldest = f"and least({event_us}, epoch_us(available_at)) >= {EARLIEST * 1e6:.0f}"
    if table.max_age_s is not None:
        oldest += f" and {event_us} >= $until - {AGES * table.max_age_s * 1_000_000}"
    return f"""
        select cast("{table.key}" as varchar), {event_us}, epoch_us(available_at){columns}
        from {stored(table.name, snapshot)}
        where {event_us} <= $until and epoch_us(available_at) <= $until and "{table.key}" is not null {oldest}
            {condition}
        qualify row_number() over (
            partition by "{table.key}" order by "{table.event_time}" desc, available_at desc{order}
        ) = 1
    """


def _changed_sql(table: OnlineTable, snapshot: int, before: TableNote) -> str:
    """SQL of the keys with a row that became known since $since, or was written since the note's snapshot."""
    sql = f"""
        select "{table.key}" from {stored(table.name, snapshot)}
        where greatest(epoch_us("{table.event_time}"), epoch_us(available_at)) > $since
    """
    if before.snapshot < snapshot:
        schema, name = qualified(table.name).split(".")
        sql += f"""
            union select "{table.key}" from ducklake_table_insertions(
                'lake', '{schema}', '{name}', {before.snapshot}, {snapshot}) where snapshot_id > {before.snapshot}
        """
    return sql


def finite(names: Iterable[str], values: Iterable[Value]) -> dict[str, Value]:
    """Column → value as the store has it: a number that is not finite says as little as a missing one."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in zip(names, values, strict=True)
    }
