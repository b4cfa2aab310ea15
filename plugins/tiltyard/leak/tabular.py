"""Anybody's table: a Parquet or CSV file that was never near this project, as a relation that SQL can judge.

CSV becomes Parquet in a temporary folder, once, so that every later pass is cheap (formats.py). What holds times is
read as times (times.py). Whatever was decided or could not be read is told in `notes`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from tiltyard.errors import BadInput
from tiltyard.file_rows import parquet
from tiltyard.lake import quoted
from tiltyard.leak.engine import WIDE_NUMBERS, first_row, nearest
from tiltyard.leak.formats import as_parquet, renamed
from tiltyard.leak.times import read_times
from tiltyard.words import ended


@dataclass(frozen=True)
class AuditedTable:
    """A view in a DuckDB connection: `relation`, with the columns under the file's own names."""

    path: Path
    relation: str
    """SQL of the view's name."""
    columns: Mapping[str, str]
    """Name → DuckDB type, after text that holds times was read as times."""
    rows: int
    row_number: str
    """A column of the view that is not in the file: the row's place in it, from 0."""
    notes: tuple[str, ...]
    """How the file was read, where that was a decision."""
    guessed: frozenset[str] = frozenset()
    """Columns of times of which nothing in the file tells how they are meant: their century, or day and month."""

    def check(self, column: str, option: str) -> None:
        """Raises BadInput when there is no such column; it names the nearest."""
        if column not in self.columns:
            near = f"{nearest(column, self.columns)}{self._few()}"
            raise BadInput(ended(f"{option}: {self.path.name} has no column '{column}'{near}"))

    def _few(self) -> str:
        if len(self.columns) > 1:
            return ""
        return f"; it has one column only, '{next(iter(self.columns))}': separate columns by one of , ; | or a tab"


def table(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    folder: Path,
    *,
    times: Mapping[str, str],
    columns: Mapping[str, str],
    moment: str = "",
    name: str = "frame",
) -> AuditedTable:
    """The file as a view called `name`.

    `columns`: columns that must be there → the option that says so; `times`: those of them that must hold times;
    `moment`: the one of those that tells when a row was predicted for, or known, if any.

    Raises BadInput for whatever is no table, for a missing column and for one that holds no time.
    """
    source, notes = as_parquet(connection, path, folder / f"{name}.parquet")
    raw = parquet(source)
    stored = {column: kind for column, kind, *_ in connection.execute(f"describe select * from {raw}").fetchall()}
    (rows,) = first_row(connection, f"select count(*) from {raw}")
    if not rows:
        raise BadInput(f"{path} has no rows.")
    whole = AuditedTable(path, quoted(name), stored, rows, "", ())
    for column, option in columns.items():
        whole.check(column, option)
    notes += renamed(connection, path, source, stored)
    instants, time_notes, guessed = read_times(connection, raw, stored, rows, path, times, moment)
    view = _view(connection, whole, raw, {**_casts(stored), **instants}, [*notes, *time_notes], name)
    return replace(view, guessed=guessed)


def _casts(stored: Mapping[str, str]) -> dict[str, str]:
    """Column → SQL, of the types that nothing reads as they are: wide numbers, enumerations, UUIDs."""
    casts = {}
    for column, kind in stored.items():
        if kind.startswith(WIDE_NUMBERS):
            casts[column] = f"{quoted(column)}::double"
        elif kind.startswith("ENUM") or kind == "UUID":
            casts[column] = f"{quoted(column)}::varchar"
    return casts


def _view(
    connection: duckdb.DuckDBPyConnection,
    whole: AuditedTable,
    raw: str,
    expressions: Mapping[str, str],
    notes: list[str],
    name: str,
) -> AuditedTable:
    """Create the view, with `expressions` in the place of columns; its row number gets a name that no column has."""
    number = "row"
    while number.casefold() in {column.casefold() for column in whole.columns}:
        number += "_"
    has_number = any(column.casefold() == "file_row_number" for column in whole.columns)
    place = "row_number() over () - 1" if has_number else "file_row_number"
    shown = ", ".join(
        f"{expressions[column]} as {quoted(column)}" if column in expressions else quoted(column)
        for column in whole.columns
    )
    connection.execute(
        f"create or replace view {quoted(name)} as select {shown}, {place} as {quoted(number)} from {raw}"
    )
    kinds = {column: kind for column, kind, *_ in connection.execute(f"describe {quoted(name)}").fetchall()}
    del kinds[number]
    return AuditedTable(whole.path, whole.relation, kinds, whole.rows, number, tuple(notes))
