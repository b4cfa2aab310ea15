"""The lake's own record: which commit wrote what, and when. It cannot be dated back, as columns can.

A column says what its writer claims. A version of the lake (a DuckLake snapshot) says what was there.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import duckdb

from tiltyard.lake import qualified, quoted, stored, text
from tiltyard.rails import Rails
from tiltyard.tables import LANDED_FILE, Table

MOVES = ("merge_adjacent", "rewrite_delete", "flushed_inlined")
"""What the lake's record calls a commit that moved rows between files and changed none."""


@dataclass(frozen=True)
class LakeVersion:
    """One version of the lake: when it was written, by whom, what for."""

    snapshot: int
    """The version's number."""
    at: datetime
    """When it was written, by the catalogue's clock."""
    author: str | None
    """Who wrote it; None where nobody signed."""
    message: str | None
    """What for; None where nothing was said."""

    def __str__(self) -> str:
        return f"snapshot {self.snapshot} of {self.at:%Y-%m-%d %H:%M:%S} ({self.message or 'without a message'})"


@dataclass(frozen=True)
class Writing:
    """A row that a version of the lake inserted into a table or deleted from it."""

    snapshot: int
    """The version."""
    is_insert: bool
    """False: it was deleted."""
    key: str
    """The entity's key."""
    event_time: datetime | None
    """When it happened; None where it does not say so."""
    available_at: datetime | None
    """When it claims to have been known; None where it does not say so."""
    values: Mapping[str, object]
    """Column → value, of the columns that were asked for."""


@dataclass(frozen=True)
class LakeHistory:
    """The versions that the lake still has, seen from some tables and one source."""

    commits: Mapping[int, LakeVersion]
    """Snapshot → the commit that wrote it."""
    states: Mapping[int, int]
    """Snapshot → the newest one up to it that changed one of the tables: two with the same read the same."""
    landed: Mapping[int, datetime]
    """Snapshot that landed files of the source → the newest night they were landed for."""

    @classmethod
    def of(cls, rails: Rails, tables: Collection[str], source: str) -> "LakeHistory":
        """As the lake remembers it now."""
        connection = rails.lake.connection
        rows = connection.execute(
            "select snapshot_id, snapshot_time, author, commit_message, changes from ducklake_snapshots('lake') "
            "order by snapshot_id"
        ).fetchall()
        commits = {row[0]: LakeVersion(*row[:4]) for row in rows}
        names = {qualified(table).split(".")[1] for table in tables}
        tables_now = connection.execute("select table_id, table_name from ducklake_table_info('lake')").fetchall()
        strangers = {str(number) for number, name in tables_now if name not in names}
        states, state = {}, min(commits)
        for number, _, _, _, changes in rows:
            written_to = [table for what, changed in changes.items() if what not in MOVES for table in changed]
            if any(_touches(table, names, strangers) for table in written_to):
                state = number
            states[number] = state
        return cls(commits, states, _landings(rails, source, min(commits), max(commits)))

    def landed_until(self, snapshot: int) -> datetime | None:
        """The newest night whose deliveries the lake held at `snapshot`; None when nothing of the source had landed."""
        return max((at for number, at in self.landed.items() if number <= snapshot), default=None)


def _touches(table: str, names: set[str], strangers: set[str]) -> bool:
    """Changes list a table by number, or by "schema"."name" where it was made. An unknown number is that of a table
    which was replaced, by a full refresh for example: it may have been one of ours."""
    if "." in table:
        return table.replace('"', "").split(".")[-1] in names
    return table.isdigit() and table not in strangers


def _landings(rails: Rails, source: str, oldest: int, newest: int) -> dict[int, datetime]:
    if not rails.lake.has(LANDED_FILE):
        return {}
    connection, landed = rails.lake.connection, {}
    with suppress(duckdb.CatalogException):  # the table was not there yet
        at = stored(LANDED_FILE, oldest)
        row = connection.execute(f"select max(available_at) from {at} where source = ?", [source]).fetchone()
        if row and row[0]:
            landed[oldest] = row[0]
    if oldest < newest:
        rows = connection.execute(
            f"select snapshot_id, max(available_at) from {changes(LANDED_FILE, oldest, newest)} "
            "where change_type = 'insert' and source = ? group by 1",
            [source],
        )
        landed |= dict(rows.fetchall())
    return landed


def changes(table: str | Table, after: int, last: int) -> str:
    """SQL, for a FROM clause: what the versions past `after` up to `last` inserted into a table and deleted from it.

    The lake must have both versions; those between may have been expired.
    """
    schema, name = qualified(table).split(".")
    ends = f"{text(schema)}, {text(name)}, {int(after)}, {int(last)}"
    return f"(select * from ducklake_table_changes('lake', {ends}) where snapshot_id > {int(after)})"


def written(
    rails: Rails, table: str, key: str, keys: Sequence[str], columns: Sequence[str], after: int, last: int
) -> list[Writing]:
    """Rows of some entities that the versions past `after` up to `last` inserted or deleted, oldest first.

    One read of the table's changes: ask for all entities at once.
    """
    more = "".join(f", {quoted(column)}" for column in columns)
    cursor = rails.lake.connection.execute(
        f"""
        select snapshot_id as snapshot, change_type in ('insert', 'update_postimage') as is_insert,
            cast("{key}" as varchar) as key, event_time, available_at{more}
        from {changes(table, after, last)}
        where list_contains($keys, cast("{key}" as varchar))
        order by snapshot_id, rowid
        """,
        {"keys": list(keys)},
    )
    return [
        Writing(snapshot, is_insert, key, event_time, available_at, dict(zip(columns, values, strict=True)))
        for snapshot, is_insert, key, event_time, available_at, *values in cursor.fetchall()
    ]
