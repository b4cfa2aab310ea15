"""Profiles of the columns of raw tables, night by night: counted in one pass, kept in `ops.column_profile`.

`outage` says what a profile shows.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import duckdb
import pandas as pd

from tiltyard import clock
from tiltyard.lake import identifier, literal, put, stored, text
from tiltyard.prepare.contracts import TableContract, TimeColumn
from tiltyard.prepare.deliveries import DAY, DeliveryTime
from tiltyard.prepare.outage import MOST_KINDS, ColumnProfile, RuleOnColumn, TableProfile
from tiltyard.rails import Rails
from tiltyard.tables import COLUMN_PROFILE

_FIGURES = 4
"""Number of figures that one pass counts of a column."""


def scan(
    rails: Rails, table: TableContract, nights: Mapping[date, Mapping[str, DeliveryTime]], snapshot: int | None
) -> list[TableProfile]:
    """The profiles of these nights (night → its files), oldest first.

    One pass counts all columns, and another the categories of those with few kinds.
    """
    night_of = {file: night for night, files in nights.items() for file in files}
    if not night_of:
        return []
    listed = ", ".join(f"({text(file)}, date {text(night.isoformat())})" for file, night in sorted(night_of.items()))
    source = f"""
        from (select * from {stored(table.raw, snapshot)}) as raw
        inner join (values {listed}) as delivery (_file, _night) on raw.source_file = delivery._file
    """
    return _counted(rails, table, source, tuple(table.columns))


def scan_along(
    rails: Rails, table: TableContract, column: str, nights: Collection[date], snapshot: int | None
) -> list[TableProfile]:
    """The profiles of the rows whose planned `column` lies on the day that ended with each of these nights, as they
    were known when it did, oldest first.

    A day on which nothing happened that could still have been booked for it is left out: what is known of it is what
    was booked long before.
    """
    if not nights:
        return []
    listed = ", ".join(f"date {text(night.isoformat())}" for night in sorted(nights))
    first, end = clock.midnight(min(nights) - DAY), clock.midnight(max(nights))
    rows = stored(table.raw, snapshot)
    source = f"""
        from (
            select *, cast("{column}" as date) + 1 as _night from {rows}
            where "{column}" >= {literal(first)} and "{column}" < {literal(end)}
                and available_at <= cast(cast("{column}" as date) + 1 as timestamptz)
                and cast("{column}" as date) + 1 in ({listed})
                and cast("{column}" as date) in (
                    select distinct cast(event_time as date) from {rows}
                    where event_time >= {literal(first)} and event_time < {literal(end)}
                )
        ) as raw
    """
    return [
        replace(profile, along=column)
        for profile in _counted(rails, table, source, tuple(name for name in table.columns if name != column))
    ]


def _counted(rails: Rails, table: TableContract, source: str, names: Sequence[str]) -> list[TableProfile]:
    """Per `_night` of the rows of `source`, SQL from its `from` on, a profile of these columns. A column of a contract
    begins with a letter, and so is none of ours."""
    values = {name: _value(name, table.columns[name]) for name in names}
    parts = ", ".join(
        f"count(*) - count({value}), count(*) filter ({_zero(value, table.columns[name])}), "
        f"approx_count_distinct({value}), coalesce(min({value}) = max({value}), false)"
        for name, value in values.items()
    )
    connection = rails.lake.connection
    rows = connection.execute(
        f"select _night, count(*), {_content(table, values)}, {parts} {source} group by _night"
    ).fetchall()
    few = [
        name
        for place, name in enumerate(values)
        if table.columns[name] in ("VARCHAR", "BOOLEAN")
        and all(row[3 + _FIGURES * place + 2] <= MOST_KINDS for row in rows)
    ]
    counts: dict[date, list[dict[str, int] | None]] = {}
    if few:
        histograms = ", ".join(f"histogram({values[name]}::varchar)" for name in few)
        per_night = connection.execute(f"select _night, {histograms} {source} group by _night").fetchall()
        counts = {night: list(categories) for night, *categories in per_night}
    times = _times(table)
    profiles = []
    for night, count, digest, *figures in rows:
        categories_of = dict(zip(few, counts.get(night, ()), strict=False))
        columns = {}
        for place, name in enumerate(values):
            nulls, zeros, kinds, is_constant = figures[_FIGURES * place : _FIGURES * (place + 1)]
            is_constant &= name not in times  # a batch that was written down at one instant has lost nothing
            columns[name] = ColumnProfile(nulls, zeros, kinds, is_constant, dict(categories_of.get(name) or {}))
        profiles.append(TableProfile(night, count, str(digest), columns))
    return sorted(profiles, key=lambda profile: profile.night)


def _times(table: TableContract) -> set[str]:
    """The columns that tell when a row happened, and when it was known."""
    timing = table.timing
    times = (time for time in (timing.event_time, timing.available_at) if isinstance(time, TimeColumn))
    return {name for time in times for name in time.columns}


def _content(table: TableContract, values: Mapping[str, str]) -> str:
    """SQL of the digest of all rows without their times."""
    times = _times(table)
    hashed = [
        value
        for name, value in values.items()
        if name not in times and not table.columns[name].startswith(("TIMESTAMP", "DATE"))
    ]
    return f"sum(hash({', '.join(hashed)}))::varchar" if hashed else "''"


def _value(name: str, kind: str) -> str:
    """SQL of a column's value. A blank text is no value."""
    return f"nullif(trim(raw.\"{name}\"), '')" if kind == "VARCHAR" else f'raw."{name}"'


def _zero(value: str, kind: str) -> str:
    """SQL of whether a value is 0."""
    if kind == "VARCHAR":
        return f"{value} in ('0', '0.0')"
    return f"{value} = 0" if kind in ("BIGINT", "INTEGER", "DOUBLE") else "false"


def history(rails: Rails, table: str, since: date, until: date, along: str = "") -> list[TableProfile]:
    """The stored profiles of the nights in [since, until), oldest first, of the rows that came or, `along` a planned
    column, of those of its days."""
    rows = rails.lake.connection.execute(
        f"select night, rows, content, column_name, nulls, zeros, kinds, is_constant, categories, broken "
        f"from {identifier(COLUMN_PROFILE)} where table_name = ? and night >= ? and night < ? "
        "and coalesce(along, '') = ?",
        [table, since, until, along],
    ).fetchall()
    nights: dict[date, _Parts] = {}
    for night, count, content, name, nulls, zeros, kinds, is_constant, categories, rules in rows:
        parts = nights.setdefault(night, _Parts(count, content, {}, set()))
        if name:
            parts.columns[name] = ColumnProfile(nulls, zeros, kinds, is_constant, json.loads(categories))
        parts.broken.update((rule, name) for rule in rules.split())
    return [
        TableProfile(night, parts.rows, parts.content, parts.columns, frozenset(parts.broken), along)
        for night, parts in sorted(nights.items())
    ]


@dataclass(frozen=True)
class _Parts:
    """A stored profile while its rows are gathered."""

    rows: int
    content: str
    columns: dict[str, ColumnProfile]
    broken: set[RuleOnColumn]


def store(connection: duckdb.DuckDBPyConnection, profiles: Sequence[tuple[str, TableProfile]], as_of: datetime) -> None:
    """Inside a transaction: replace these (table, profile) in ops.column_profile."""
    rows = [row for table, profile in profiles for row in _rows(table, profile, as_of)]
    if rows:
        listed = ", ".join(
            f"({text(table)}, date {text(str(profile.night))}, {text(profile.along)})" for table, profile in profiles
        )
        connection.execute(
            f"delete from {identifier(COLUMN_PROFILE)} where (table_name, night, coalesce(along, '')) in ({listed})"
        )
        put(connection, COLUMN_PROFILE, {}, pd.DataFrame(rows, columns=list(COLUMN_PROFILE.columns)))


def _rows(table: str, profile: TableProfile, as_of: datetime) -> list[dict[str, object]]:
    """A row per column, and one for the table as a whole under the name ''."""
    whole = ColumnProfile(0, 0, 0, False)
    return [
        {
            "night": profile.night, "table_name": table, "rows": profile.rows, "content": profile.content,
            "column_name": name, "nulls": column.nulls, "zeros": column.zeros, "kinds": column.kinds,
            "is_constant": column.is_constant, "categories": json.dumps(dict(column.categories)),
            "broken": " ".join(sorted(rule for rule, broken in profile.broken if broken == name)),
            "available_at": as_of, "along": profile.along or None,
        }
        for name, column in {"": whole, **profile.columns}.items()
    ]  # fmt: skip
