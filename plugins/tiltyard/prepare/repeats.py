"""Rows that came before, told by the key that the contract of their table names: before a delivery is appended, what
says the same once more is dropped and counted, and what says otherwise is a correction, or puts its file into
quarantine, as the contract says.

All of it is joins of the staged rows with the rows of their keys in the raw table, in the engine. Of the table only
files are read whose range of keys meets that of the night: with keys that grow a night costs what it brings.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import duckdb

from tiltyard.lake import identifier, quoted
from tiltyard.prepare.contracts import TableContract
from tiltyard.words import counted


@dataclass(frozen=True)
class Repeats:
    """What of staged rows came before."""

    dropped: Counter[str] = field(default_factory=Counter)
    """File → number of its rows that said what was said already, and that are dropped."""
    corrections: Counter[str] = field(default_factory=Counter)
    """File → number of its rows whose key came with other values, and that are kept beside those."""
    refused: dict[str, str] = field(default_factory=dict)
    """File whose rows say otherwise where the contract does not let them → why."""


def sift(
    connection: duckdb.DuckDBPyConnection, table: TableContract, staged: str, *, but_of: Collection[str] = ()
) -> Repeats:
    """Take out of the staged rows what came before. `staged`: the quoted temporary table; `but_of`: files whose rows of
    the raw table do not count. Nothing is done for a table whose contract names no key; a row without its key repeats
    nobody's."""
    if not table.key:
        return Repeats()
    _ground(connection, table, staged, but_of)
    try:
        refused: dict[str, str] = {}
        if table.on_repeat == "quarantine":
            refused = _refused(connection, table, staged)
            for name in refused:
                connection.execute(f"delete from {staged} where source_file = ?", [name])
        dropped = _drop(connection, table, staged)
        return Repeats(dropped, _corrections(connection, table, staged), refused)
    finally:
        connection.execute("drop table if exists temp._came_before")


def _ground(connection: duckdb.DuckDBPyConnection, table: TableContract, staged: str, but_of: Collection[str]) -> None:
    """The rows of the raw table that have a key of the staged ones, as `_came_before`. Where the source cannot prove
    when a row was known, only the newest of each key counts: a value that comes back is news."""
    keys = [quoted(name) for name in table.key]
    ends = ", ".join(f"min({key}), max({key})" for key in keys)
    row = connection.execute(f"select {ends} from {staged}").fetchone()
    assert row is not None
    bounds = {f"end_{number}": value for number, value in enumerate(row)}
    within = [f"{key} between $end_{2 * number} and $end_{2 * number + 1}" for number, key in enumerate(keys)]
    named = f"({', '.join(keys)}) in (select {', '.join(keys)} from {staged})"
    values = ", ".join(quoted(name) for name in table.columns)
    newest = (
        f"qualify row_number() over (partition by {', '.join(keys)} order by available_at desc nulls last, "
        "ingested_at desc, source_file desc, row_number desc) = 1"
        if table.timing.available_at == "ingested_at"
        else ""
    )
    connection.execute(
        f"create or replace temp table _came_before as select {values} from {identifier(table.raw)} "
        f"where {' and '.join(within)} and {named} and not list_contains($but_of, source_file) {newest}",
        {**bounds, "but_of": [*but_of]},
    )


def _same(table: TableContract, columns: Sequence[str], one: str, other: str) -> str:
    return " and ".join(f"{one}.{quoted(name)} is not distinct from {other}.{quoted(name)}" for name in columns)


def _key(table: TableContract, one: str, other: str) -> str:
    return " and ".join(f"{one}.{quoted(name)} = {other}.{quoted(name)}" for name in table.key)


def _refused(connection: duckdb.DuckDBPyConnection, table: TableContract, staged: str) -> dict[str, str]:
    """File with rows that say of their key what a row of before, or of a file before it, does not → why."""
    key, same = _key(table, "fresh", "past"), _same(table, [*table.columns], "fresh", "past")
    shown = ", ".join(f"fresh.{quoted(name)}" for name in table.key)
    rows = connection.execute(
        f"""
        with past as (
            select *, '' as source_file, 0::bigint as row_number from temp._came_before
            union all by name
            select {", ".join(quoted(name) for name in table.columns)}, source_file, row_number from {staged}
        )
        select fresh.source_file, count(distinct fresh.row_number), first(concat_ws(', ', {shown}))
        from {staged} as fresh
        inner join past on {key} and (past.source_file, past.row_number) < (fresh.source_file, fresh.row_number)
        where not ({same})
        group by all
        order by all
        """
    ).fetchall()
    name = ", ".join(table.key)
    return {
        file: f"{counted(count, 'row')} say of {name} what came before otherwise, {name} {example} first, and the "
        "contract lets no row be corrected (on_repeat: quarantine)"
        for file, count, example in rows
    }


def _drop(connection: duckdb.DuckDBPyConnection, table: TableContract, staged: str) -> Counter[str]:
    """Delete the staged rows that say what was said, before or in the same load; file → their number."""
    known = " and ".join(f"{quoted(name)} is not null" for name in table.key)
    values = ", ".join(quoted(name) for name in table.columns)
    before = connection.execute(
        f"delete from {staged} as fresh where exists (select 1 from temp._came_before as past "
        f"where {_key(table, 'fresh', 'past')} and {_same(table, [*table.columns], 'fresh', 'past')}) "
        "returning source_file"
    ).fetchall()
    beside = connection.execute(
        f"""
        delete from {staged} where {known} and rowid in (
            select rowid from {staged} where {known}
            qualify row_number() over (partition by {values} order by source_file, row_number) > 1
        )
        returning source_file
        """
    ).fetchall()
    return Counter(str(name) for (name,) in (*before, *beside))


def _corrections(connection: duckdb.DuckDBPyConnection, table: TableContract, staged: str) -> Counter[str]:
    """File → number of its staged rows, of those that are left, whose key came before, or in a row before it."""
    keys = ", ".join(f"fresh.{quoted(name)}" for name in table.key)
    rows = connection.execute(
        f"""
        with told as (
            select source_file, row_number() over (partition by {keys} order by source_file, row_number) > 1
                or exists (select 1 from temp._came_before as past where {_key(table, "fresh", "past")}) as is_again
            from {staged} as fresh
            where {" and ".join(f"fresh.{quoted(name)} is not null" for name in table.key)}
        )
        select source_file, count(*) from told where is_again group by all
        """
    ).fetchall()
    return Counter({str(name): int(count) for name, count in rows})
