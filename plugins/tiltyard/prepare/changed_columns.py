"""What a contract has come to say otherwise of a raw table's columns, as far as rows that have landed cannot follow.

What dbt makes is made anew with all its rows where its text changes (`rebuilding`); raw rows are what was delivered. So
of a column that a contract adds the rows before have none, and of one that it drops the rows since: whoever reads it
reads half of it, which is said.
"""

from collections.abc import Iterable, Sequence

import duckdb

from tiltyard.lake import quoted, stored
from tiltyard.prepare import columns, contracts
from tiltyard.prepare.contracts import AUDIT_COLUMNS
from tiltyard.rails import Rails
from tiltyard.words import listed


def sentences(rails: Rails, source: str, snapshot: int, before: int | None) -> tuple[str, ...]:
    """A sentence per column of a source that not all rows have at `snapshot`: those that were not there at the snapshot
    `before`, that of the last night (None: there was none), and those that SQL of the dbt project still names though
    the contract does not."""
    said = []
    for table in contracts.read(rails.settings, source).tables:
        if not rails.lake.has(table.raw):
            continue
        now = [name for name in rails.lake.columns(table.raw) if name not in AUDIT_COLUMNS]
        if before is not None:
            said += _added(rails, table.raw, [name for name in now if name in table.columns], snapshot, before)
        gone = [name for name in now if name not in table.columns]
        said += [
            f"{table.raw}.{name} is not in the contract any more, so that rows have none of it since; "
            f"{listed(readers)} still {'reads' if len(readers) == 1 else 'read'} it: take it out there"
            for name, readers in ((name, _readers(rails, table.raw, name)) for name in gone)
            if readers
        ]
    return tuple(said)


def _added(rails: Rails, table: str, names: Iterable[str], snapshot: int, before: int) -> list[str]:
    """The columns that were not there at `before`, where rows were."""
    try:
        described = rails.lake.connection.execute(f"describe select * from {stored(table, before)}").fetchall()
    except duckdb.Error:  # the table is younger than that snapshot, or the snapshot has expired
        return []
    new = [name for name in names if name not in {name for name, *_ in described}]
    counts = ", ".join(f"count(*) - count({quoted(name)})" for name in new)
    row = rails.lake.connection.execute(f"select {counts} from {stored(table, snapshot)}").fetchone() if new else ()
    return [
        f"{table}.{name} is new: {count:,} rows have none, those that landed before the contract had it among them, "
        "and what is made of it is empty for them"
        for name, count in zip(new, row or (), strict=True)
        if count
    ]


def _readers(rails: Rails, table: str, column: str) -> Sequence[str]:
    """The tables of the dbt project that read a raw table and name a column of it."""
    lineage = columns.read(rails.settings).lineage
    return sorted(
        name
        for name, query in lineage.queries.items()
        if table in query.tables and any(column in item.words for items in query.items.values() for item in items)
    )
