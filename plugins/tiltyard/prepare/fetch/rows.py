"""What has been fetched of a table before, and deliveries of the rows that have not.

What was fetched is what has landed in the raw table, with what lies in the landing zone and has not landed yet. There
is no other memory that could disagree with it: rows that went to quarantine, or that nobody wrote before a kill, are
fetched again, and rows that are there are told by their content.

The files of one fetch take their places all or none: they are written to a hidden folder, which is renamed in one step,
and are moved from there. What a kill leaves of that is finished, or taken away, before the next look.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import orjson

from tiltyard import casts, clock
from tiltyard.file_rows import parquet
from tiltyard.files import whole
from tiltyard.lake import quoted, stored, text
from tiltyard.prepare import contracts, delivery_rows, landing
from tiltyard.prepare.contracts import TableContract, TimeColumn
from tiltyard.prepare.fetch.topic import PLACE
from tiltyard.prepare.landing import LandingFile
from tiltyard.rails import Rails
from tiltyard.tables import LANDED_FILE

log = logging.getLogger(__name__)

_WRITTEN, _READY = ".fetching", ".fetched"
"""Folders beside the deliveries: files that are being written, and that only have to be moved."""
_DAY = timedelta(days=1)
_UNFIT = (duckdb.ConversionException, duckdb.InvalidInputException)
"""What DuckDB raises where a value is not of a column's type."""


@dataclass(frozen=True)
class Had:
    """What of a table has been fetched."""

    relation: str
    """SQL of these rows, with the columns of the contract."""
    files: Mapping[str, int]
    """Name of a delivery that lies here or has landed → its size in bytes."""

    @property
    def newest(self) -> date | None:
        """The day of the newest delivery."""
        return max((day for name in self.files if (day := contracts.day_of(name))), default=None)


def folder_of(rails: Rails, table: TableContract) -> Path:
    """Where the deliveries of a table lie, with what a kill has left there put in order."""
    folder = rails.settings.landing / table.source / table.name
    folder.mkdir(parents=True, exist_ok=True)
    _settle(folder)
    return folder


@contextmanager
def had(rails: Rails, table: TableContract, folder: Path) -> Iterator[Had]:
    """What has been fetched of a table until now."""
    connection = rails.lake.connection
    rails.lake.ensure(LANDED_FILE)
    snapshot = rails.lake.snapshot()  # of files and rows alike: what lands meanwhile is still read from its file
    landed = dict(
        connection.execute(
            f"select file, bytes from {stored(LANDED_FILE, snapshot)} where source = ? and table_name = ?",
            [table.source, table.name],
        ).fetchall()
    )
    waiting, lying = [], {}
    for path in sorted(folder.iterdir()):
        if contracts.day_of(path.name) is None or path.is_symlink() or not path.is_file():
            continue
        file = LandingFile.of(path, table)
        lying[path.name] = file.stat[1]
        if path.name not in landed:
            file.inspect(connection)
            if file.reason is None:
                waiting.append(file)
    parts = [_landed(rails, table, snapshot)] if rails.lake.has(table.raw) else []
    values = ", ".join(quoted(name) for name in table.columns)
    with landing.in_utf8(waiting) as paths:
        parts += [
            f"select {values} from ({delivery_rows.sql([file], [path], 'null')})"
            for file, path in zip(waiting, paths, strict=True)
        ]
        empty = ", ".join(f"cast(null as {kind}) as {quoted(name)}" for name, kind in table.columns.items())
        relation = " union all by name ".join(parts or [f"select {empty} where false"])
        yield Had(f"({relation})", {**landed, **lying})


def _landed(rails: Rails, table: TableContract, snapshot: int) -> str:
    """SQL of the rows of the raw table, which may be older than a column of the contract."""
    there = rails.lake.columns(table.raw)
    values = ", ".join(
        quoted(name) if name in there else f"cast(null as {kind}) as {quoted(name)}"
        for name, kind in table.columns.items()
    )
    return f"select {values} from {stored(table.raw, snapshot)}"


def deliver(
    rails: Rails, table: TableContract, fetched: Path, before: Had, since: str | None, as_of: datetime
) -> tuple[tuple[str, ...], int]:
    """Lay the rows of a Parquet file that are new into the landing zone; returns the names of the deliveries, and how
    many rows there are.

    `since`: SQL that is true of the rows fetched before that may be among these; None: none may.
    """
    connection = rails.lake.connection
    folder = rails.settings.landing / table.source / table.name
    described = connection.execute(f"describe select * from {parquet(fetched)}").fetchall()
    kinds = {name: kind for name, kind, *_ in described}
    own = {name: table.header(name) for name in table.columns if table.header(name) in kinds}
    typed = {name: _value(table, name, kinds[header]) for name, header in own.items()}
    names = ", ".join(quoted(name) for name in own)
    known = f" except all (select {names} from {before.relation} where {since})" if since else ""

    def select(values: Mapping[str, str]) -> str:
        listed = ", ".join(f"{value} as {quoted(name)}" for name, value in values.items())
        return f"select {listed} from {parquet(fetched)}"

    try:
        connection.execute(f"create or replace temp table _fetched as ({select(typed)}){known}")
        day = _day_of(table, own, before, as_of)
    except _UNFIT:  # as it came: ingest says of it what is wrong, and puts it away
        fitting = {name: value for name, value in typed.items() if _fits(connection, select({name: value}))}
        as_it_came = {name: fitting.get(name, quoted(header)) for name, header in own.items()}
        connection.execute(f"create or replace temp table _fetched as {select(as_it_came)}")
        day = f"date {text(min(_last_day(), clock.day_ending(as_of)).isoformat())}"
    try:
        connection.execute(
            f"create or replace temp table _dated as select *, {day} as _day from temp._fetched order by _day, {names}"
        )
        return _written(connection, own, before, folder)
    finally:
        connection.execute("drop table if exists temp._fetched")
        connection.execute("drop table if exists temp._dated")


def _value(table: TableContract, name: str, found: str) -> str:
    """SQL of a column as the contract has it, of one of another type where that is read."""
    header, kind = quoted(table.header(name)), table.columns[name]
    typed = casts.converted(header, found, kind, zone=table.zones.get(name, "UTC"))
    return casts.or_stop(header, typed, text(f"column '{table.header(name)}' has values that are no {kind}"))


def _fits(connection: duckdb.DuckDBPyConnection, select: str) -> bool:
    """Whether all values of a column can be read as its type."""
    try:
        connection.execute(f"create or replace temp table _column as {select}")
    except _UNFIT:
        return False
    connection.execute("drop table temp._column")
    return True


def _last_day() -> date:
    """The newest day that has ended, by the clock."""
    return clock.now().date() - _DAY


def _day_of(table: TableContract, own: Mapping[str, str], before: Had, as_of: datetime) -> str:
    """SQL of the day of a row's delivery: that on which it was written, as far as the contract says so.

    A row that was not there when its day was delivered goes with the day after the newest delivery, on which it is
    fetched. One that cannot prove when it was known was known when it was fetched.
    """
    last = f"date {text(_last_day().isoformat())}"
    written = table.timing.available_at
    if not isinstance(written, TimeColumn) or written.column not in own:
        return last
    instant = delivery_rows.instant(written, table.columns[written.column])
    known = f"cast(({instant}) - interval '1 microsecond' as date)"
    night = clock.day_ending(as_of)
    first = min(before.newest + _DAY, night) if before.newest else None
    open_day = f"greatest({known}, date {text(first.isoformat())})" if first else known
    return f"case when ({instant}) is null then {last} else least({last}, {open_day}) end"


def _written(
    connection: duckdb.DuckDBPyConnection, own: Mapping[str, str], before: Had, folder: Path
) -> tuple[tuple[str, ...], int]:
    """Write a file for each day of `_dated`, and let all of them take their places."""
    named = ", ".join(f"{quoted(name)} as {quoted(header)}" for name, header in own.items())
    part = folder / _WRITTEN
    part.mkdir()
    names, count = [], 0
    for day, rows in connection.execute("select _day, count(*) from temp._dated group by 1 order by 1").fetchall():
        name = next(
            name
            for number in range(1, len(before.files) + 2)
            if (name := f"{day}.parquet" if number == 1 else f"{day}-{number}.parquet") not in before.files
        )
        # with its name in it, since ingest passes over a file with the bytes of another, and rows may be alike
        connection.execute(
            f"copy (select {named} from temp._dated where _day = date {text(day.isoformat())}) "
            f"to {text(str(part / name))} (format parquet, kv_metadata {{delivery: {text(name)}}})"
        )
        names.append(name)
        count += rows
    part.rename(folder / _READY)
    _settle(folder)
    return tuple(names), count


def _settle(folder: Path) -> None:
    """Finish what was written whole and take away what was not."""
    shutil.rmtree(folder / _WRITTEN, ignore_errors=True)
    ready = folder / _READY
    if ready.is_dir():
        for path in sorted(ready.iterdir()):
            path.rename(folder / path.name)
        ready.rmdir()


# -- messages ---------------------------------------------------------------------------------


def set_aside(rails: Rails, table: TableContract, fetched: Path, into: Path) -> tuple[int, str, Path | None]:
    """Write those messages of a Parquet file that can be used as rows to another; returns how many cannot, what is
    wrong with most of them, and the file in quarantine that has them all.

    That file is named after the first of them, so that those that are read again are kept once.
    """
    connection, place = rails.lake.connection, table.timing.fetch
    assert place is not None
    fields = [name for name in table.columns if name not in place.message_place]
    where = dict(zip(place.message_place, PLACE, strict=False))
    wrong = {}
    for name in fields:
        written = f"cast({quoted(table.header(name))} as varchar)"
        read = casts.read(written, table.columns[name], zone=table.zones.get(name, "UTC"))
        wrong[name] = f"{written} is not null and ({read}) is null"
    reason = " ".join(
        f"when {condition} then {text(f'{table.header(name)} is no {table.columns[name].lower()}')}"
        for name, condition in wrong.items()
    )
    reason = f"case when {PLACE[2]} is not null then 'it is no JSON object' {reason} end"
    values = ", ".join(
        [f"{quoted(table.header(name))}" for name in fields]
        + [f"{quoted(kept)} as {quoted(table.header(name))}" for name, kept in where.items()]
    )
    content = ", ".join(f"{text(table.header(name))}: {quoted(table.header(name))}" for name in fields)
    connection.execute(
        f"copy (select {values} from {parquet(fetched)} where ({reason}) is null) to {text(str(into))} (format parquet)"
    )
    bad = connection.execute(
        f"select {PLACE[0]}, {PLACE[1]}, {reason} as reason, coalesce({PLACE[2]}, to_json({{{content}}})::varchar) "
        f"from {parquet(fetched)} where ({reason}) is not null order by 1, 2"
    ).fetchall()
    if not bad:
        return 0, "", None
    folder = rails.settings.quarantine / table.source / table.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"messages-{bad[0][0]}-{bad[0][1]}.jsonl"
    keys = ("partition", "offset", "reason", "content")
    with whole(path, lasting=True) as part:
        part.write_bytes(b"".join(orjson.dumps(dict(zip(keys, row, strict=True))) + b"\n" for row in bad))
    log.warning("%s: %d messages cannot be used; they are in %s", table.raw, len(bad), path)
    return len(bad), Counter(row[2] for row in bad).most_common(1)[0][0], path
