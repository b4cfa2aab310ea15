"""One export becomes the deliveries that would have brought its rows: a file a day, as the source's contract has it.

A row is delivered on the day on which it was known, without what is written later; and again, with that, on the day on
which that was. A day stands for its end: a row that happened on it is known in its last second, what is written later
and is known by a day with the midnight after. So nothing is there before it could have been, and a model that is
trained on the deliveries sees of each row what it would have seen.
"""

import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import duckdb

from tiltyard import casts, clock, file_rows
from tiltyard.errors import BadInput
from tiltyard.lake import quoted, text
from tiltyard.prepare import closed_days, contracts, dbt_files, delivery_rows, landing
from tiltyard.prepare.columns import ColumnMeta
from tiltyard.prepare.contracts import SourceContract, TableContract, TimeColumn
from tiltyard.prepare.delivery_rows import LINE
from tiltyard.prepare.landing import LandingFile
from tiltyard.records import Record
from tiltyard.scaffold.inferring import whole_span
from tiltyard.settings import Settings
from tiltyard.words import counted

Progress = Callable[[str, float | None], None]
WRITTEN_AFTER = timedelta(days=30)
"""How long after its row what is written later is taken to be known, where no column tells when."""


@dataclass(frozen=True, kw_only=True)
class CutSummary(Record):
    """What a cut has laid into the landing zone."""

    source: str
    table: str
    deliveries: int
    """Number of files."""
    rows: int
    """Rows of the export, of those that are the same value by value one."""
    written_again: int
    """Rows that are delivered once more, with what was written later."""
    undated: int
    """Rows that are left out, because nothing tells when they happened."""
    outlying: int
    """Writings of rows that are left out, because their day lies months from all others or is yet to come."""
    outlying_rows: int
    """Rows that are left out in all their writings, because it is the day on which they were known."""
    first: date
    last: date
    """Days of the first delivery and of the last."""

    @property
    def caution(self) -> str | None:
        """What somebody should know of what was left out, as a sentence."""
        if not self.outlying:
            return None
        what = "1 writing of a row was" if self.outlying == 1 else f"{self.outlying:,} writings of rows were"
        whole = f", with all that there is of {counted(self.outlying_rows, 'row')}" if self.outlying_rows else ""
        return (
            f"{what} left out{whole}: the day lies months before or after all others ({self.first} to {self.last}), "
            "or is yet to come, like a mistyped year. Mend the export and cut it again where it does not."
        )


def cut(
    settings: Settings,
    source: str,
    path: Path,
    *,
    table: str | None = None,
    known: str | None = None,
    written_after: timedelta | None = None,
    progress: Progress = lambda label, share: None,
) -> CutSummary:
    """Lay the rows of a file into the landing zone, by the contract of its source.

    `known` is the column that tells when a row was known, where the contract leaves that to the cut; `written_after`
    how long after its row what nothing dates is known, by default as the contract says. Raises BadInput
    for an export that does not fit the contract, and where the table has deliveries already.
    """
    contract = contracts.read(settings, source)
    if table is None and len(contract.tables) > 1:
        names = ", ".join(entry.name for entry in contract.tables)
        raise BadInput(f"{source} has the tables {names}; say which one the file is of, with --table.")
    chosen = contract.table(table) if table else contract.tables[0]
    if chosen is None:
        raise BadInput(f"{source} has no table '{table}'.")
    folder = settings.landing / source / chosen.name
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise BadInput(
            f"{folder} holds deliveries already, and none is written over; take them away, or cut into another home."
        )
    if not path.is_file() or path.stat().st_size == 0:
        raise BadInput(f"{path} is {'empty' if path.is_file() else 'no file'}; give the export that is to be cut.")
    with tempfile.TemporaryDirectory(prefix="tiltyard-") as temporary, duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        progress("reading", 0.0)
        export = _export(connection, path, Path(temporary), chosen, contracts.key_of(settings, chosen))
        known_column = _known_column(path, chosen, known, export)
        try:
            _read(connection, export, known_column)
            said = said_of(settings, chosen) if export.is_split else {}
            later = {name: meta.written_later for name, meta in said.items() if meta.written_later}
            after = written_after or chosen.timing.written_after or WRITTEN_AFTER
            connection.execute(f"create temp table written as {_versions(export, later, after)}")
        except duckdb.Error as error:
            raise BadInput(f"{path} does not fit the contract of {source} ({landing.first_line(error)}).") from None
        return _deliver(connection, contract, export, folder, progress)


# -- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Export:
    """An export that fits a contract, but for the columns that a cut fills in."""

    file: LandingFile
    """Where its rows can be read, as those of a delivery that lacks these columns."""
    table: TableContract
    """The contract."""
    key: str | None
    """The column that names a row."""

    @property
    def added(self) -> tuple[str, ...]:
        """The columns that a cut fills in: when a row was written, and its number."""
        return tuple(name for name in self.table.columns if name not in self.file.table.columns)

    @property
    def is_split(self) -> bool:
        """Whether a row becomes several writings of it; else it is one, and tells itself when it was written."""
        written = self.table.timing.available_at
        return not isinstance(written, TimeColumn) or written.column in self.added


def _export(
    connection: duckdb.DuckDBPyConnection, path: Path, folder: Path, table: TableContract, key: str | None
) -> _Export:
    """The export, as a delivery could be. Raises BadInput for what is missing in it, or is too much."""
    with path.open("rb") as opened:
        head = opened.read(4096)
    if head.startswith(b"PAR1") or file_rows.is_json(head.decode("utf-8-sig", "ignore")):
        copy = folder / "export.parquet"
        try:
            rows = _converted(connection, path, table, is_parquet=head.startswith(b"PAR1"))
            connection.execute(f"copy ({rows}) to {text(str(copy))} (format parquet)")
        except duckdb.Error as error:
            raise BadInput(
                f"{path} does not fit the contract of {table.source} ({landing.first_line(error)})."
            ) from None
    else:
        copy = folder / "export.csv"
        _copy_text(path, copy, table.timing.format.encoding)
        form = table.timing.format.model_copy(update={"encoding": "utf-8"})
        table = replace(table, timing=table.timing.model_copy(update={"format": form}))
    whole_file = LandingFile.of(copy, table)
    whole_file.inspect(connection)
    written = table.timing.available_at
    own = {key} if key and table.columns[key] == "BIGINT" else set()
    own |= {written.column} if isinstance(written, TimeColumn) else set()
    kept = {
        name: kind for name, kind in table.columns.items() if name not in own or table.header(name) in whole_file.header
    }
    timing = table.timing
    if isinstance(written, TimeColumn) and written.column not in kept:
        timing = timing.model_copy(update={"available_at": "ingested_at"})
    file = LandingFile.of(copy, replace(table, columns=kept, timing=timing))
    file.inspect(connection)
    if file.reason:
        raise BadInput(f"{path} does not fit the contract of {table.source}: {file.reason}.")
    return _Export(file, table, key)


def _converted(connection: duckdb.DuckDBPyConnection, path: Path, table: TableContract, *, is_parquet: bool) -> str:
    """SQL of the rows of Parquet or of JSON lines, each column of the type that the contract has of it. Reading it
    fails where a value would be another one as that."""
    source = file_rows.parquet(path) if is_parquet else file_rows.json_lines(path)
    found = {name: kind for name, kind, *_ in connection.execute(f"describe select * from {source}").fetchall()}
    if not is_parquet:
        source, found = file_rows.json_lines(path, [*found]), dict.fromkeys(found, "VARCHAR")
    columns = {table.header(name): name for name in table.columns}
    values = []
    for header, kind in found.items():
        column, wanted = quoted(header), table.columns.get(columns.get(header, ""), "VARCHAR")
        typed = casts.converted(column, kind, wanted, zone=table.zones.get(columns.get(header, ""), "UTC"))
        complaint = text(f"column '{header}' has values that are no {wanted}")
        values.append(f"{casts.or_stop(column, typed, complaint)} as {column}")
    return f"select {', '.join(values)} from {source}"


def _copy_text(path: Path, copy: Path, encoding: str) -> None:
    """A text in UTF-8, with a line break at its end."""
    last = "\n"
    try:
        with path.open(encoding=encoding, newline="") as before, copy.open("w", encoding="utf-8", newline="") as after:
            while block := before.read(1 << 20):
                after.write(block)
                last = block[-1]
            after.write("" if last == "\n" else "\n")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not {encoding.upper()} text, as the contract says; mend its format.") from None


def _known_column(path: Path, table: TableContract, known: str | None, export: _Export) -> TimeColumn | None:
    """The column that tells when a row was known; None: its event time does."""
    if known is None:
        written = table.timing.available_at
        return written if isinstance(written, TimeColumn) and written.column not in export.added else None
    name = next((name for name in table.columns if known in (name, table.header(name))), None)
    written = table.timing.available_at
    if isinstance(written, TimeColumn) and written.column == name:
        return written
    if name is None:
        raise BadInput(f"{path}: the contract of {table.source} has no column '{known}'.")
    return TimeColumn(column=name, zone=table.timing.event_time.zone)


def _read(connection: duckdb.DuckDBPyConnection, export: _Export, known: TimeColumn | None) -> None:
    """Fill the table `typed`: the rows as the contract has them, when each happened and when it was known."""
    table = export.file.table
    first = _ending(known or table.timing.event_time, table)
    with landing.in_utf8([export.file]) as paths:
        rows = delivery_rows.sql([export.file], paths, "cast(null as timestamptz)")
        connection.execute(
            f"create temp table typed as select *, event_time as _happened, {first} as _known from ({rows})"
        )
    if export.key in table.columns:
        values = ", ".join(map(quoted, table.columns))  # a whole repeat tells nothing that its row does not
        connection.execute(f"delete from typed where {LINE} not in (select min({LINE}) from typed group by {values})")


def _ending(time: TimeColumn, table: TableContract) -> str:
    """SQL of the instant by which a time has passed: of a day its last second."""
    kind = table.columns[time.column]
    instant = delivery_rows.instant(time, kind)
    return f"({instant} + interval '1 day' - interval '1 second')" if time.is_day(kind) else instant


def _versions(export: _Export, later: Mapping[str, bool | TimeColumn], written_after: timedelta) -> str:
    """SQL of every row at every time at which it was written: first without what is written later, then with what was
    written by each of its times."""
    table = export.file.table
    seconds = f"interval '{int(written_after.total_seconds())} seconds'"
    times = {name: when for name, when in later.items() if isinstance(when, TimeColumn)}
    known_by = {name: _by(when, table) for name, when in times.items()}
    last = (
        f"coalesce(greatest({', '.join(dict.fromkeys(known_by.values()))}), _known + {seconds})"
        if known_by
        else f"_known + {seconds}"
    )
    instants = {
        name: f"greatest(coalesce({known_by[name]}, {last}), _known + interval '1 second')" if name in known_by
        else f"greatest({last}, _known + interval '1 second')"
        for name in later
    }  # fmt: skip
    own = [name for name in table.columns if name not in later]

    def version(at: str, shown: Mapping[str, str], condition: str) -> str:
        values = [f"{quoted(name)}" for name in own]
        values += [
            f"case when {instants[name]} <= {at} then {quoted(name)} end as {quoted(name)}" if name in shown
            else f"cast(null as {table.columns[name]}) as {quoted(name)}"
            for name in later
        ]  # fmt: skip
        return f"select {', '.join(values)}, {at} as _written, _line from typed where {condition}"

    is_dated = "_known is not null and _happened is not null"
    parts = [version("_known", {}, is_dated)]
    for at in dict.fromkeys(instants.values()):
        filled = " or ".join(f"{quoted(name)} is not null" for name, instant in instants.items() if instant == at)
        parts.append(version(at, instants, f"{is_dated} and ({filled})"))
    return " union ".join(parts)


def _by(when: TimeColumn, table: TableContract) -> str:
    """SQL of the instant at which what is written later is known: of a day the midnight after."""
    kind = table.columns[when.column]
    instant = delivery_rows.instant(when, kind)
    return f"({instant} + interval '1 day')" if when.is_day(kind) else instant


# -- writing ----------------------------------------------------------------------------------

LEFTOVER_S = 3_600
"""Seconds after which the folder of a cut is nobody's any more."""


@contextmanager
def _all_at_once(folder: Path) -> Iterator[Path]:
    """Yields an empty folder, which becomes that of a table once it is full: half of an export looks like a whole one
    to whoever reads it. Raises BadInput where deliveries have come there meanwhile."""
    landing_zone, prefix = folder.parent.parent, f".cut-{folder.parent.name}-{folder.name}-"
    landing_zone.mkdir(parents=True, exist_ok=True)
    for left in landing_zone.glob(f"{prefix}*"):  # of a cut that was killed: those that run now are younger
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFTOVER_S:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=landing_zone, ignore_cleanup_errors=True) as temporary:
        part = Path(temporary) / folder.name
        part.mkdir()
        yield part
        folder.parent.mkdir(exist_ok=True)
        if folder.is_dir():
            for hidden in folder.iterdir():  # what is left of a part, where nothing else was
                if hidden.name.startswith(".") and hidden.is_file():
                    hidden.unlink()
        try:
            part.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise BadInput(f"{folder} holds deliveries by now, and none is written over; take them away.") from None


def _deliver(
    connection: duckdb.DuckDBPyConnection, contract: SourceContract, export: _Export, folder: Path, progress: Progress
) -> CutSummary:
    """Write a file for each day from the first to the last on which the source is not closed, or has rows all the same:
    an export is complete, so that a day without rows is one on which there was nothing."""
    table, added = export.table, export.added
    written = table.timing.available_at
    values = []
    for name, kind in table.columns.items():
        if name not in added:
            values.append(quoted(name))
        elif isinstance(written, TimeColumn) and name == written.column:
            values.append(f"cast(_written as {kind})")
        else:
            values.append("_line")
    named = ", ".join(
        f"{value} as {quoted(table.header(name))}" for value, name in zip(values, table.columns, strict=True)
    )
    day = "cast(_written - interval '1 microsecond' as date)"
    connection.execute(f"create temp table placed as select *, {day} as _day from written")
    counts = dict(connection.execute("select _day, count(*) from placed group by 1").fetchall())
    if not counts:
        raise BadInput(
            f"No row tells when it happened: {table.timing.event_time.column} cannot be read in any of them."
        )
    total = sum(counts.values())
    first, last = whole_span(counts, clock.now().date())
    # a row of a mistyped year would come for the first time with its outcome, were one writing of it left out
    own = f"cast(_known - interval '1 microsecond' as date) between date '{first}' and date '{last}'"
    connection.execute(
        f"create temp table kept as select * from placed where _day between date '{first}' and date '{last}' "
        f"and _line in (select _line from typed where {own})"
    )
    counts = dict(connection.execute("select _day, count(*) from kept group by 1").fetchall())
    files = 0
    with _all_at_once(folder) as part:
        for number in range((last - first).days + 1):
            current = first + timedelta(days=number)
            if current not in counts and closed_days.why_closed(contract.rhythm.closed, current):
                continue
            progress("writing", number / ((last - first).days + 1))
            path = part / f"{current.isoformat()}.parquet"
            connection.execute(
                f"copy (select {named} from kept where _day = date {text(current.isoformat())} "
                f"order by _written, _line) to {text(str(path))} (format parquet)"
            )
            files += 1
    rows, undated, left_out = connection.execute(
        "select count(*), count(*) filter (_known is null or _happened is null), "
        f"count(*) filter (_known is not null and _happened is not null and not ({own})) from typed"
    ).fetchone() or (0, 0, 0)
    kept = sum(counts.values())
    return CutSummary(
        source=contract.name, table=table.name, deliveries=files, rows=rows,
        written_again=kept - (rows - undated - left_out), undated=undated, outlying=total - kept,
        outlying_rows=left_out, first=first, last=last,
    )  # fmt: skip


# -- what the project says --------------------------------------------------------------------


def said_of(settings: Settings, table: TableContract) -> Mapping[str, ColumnMeta]:
    """Column → what the contract says of it."""
    path = settings.dbt / "models" / "staging" / table.source / f"_{table.source}__sources.yml"
    declared = dbt_files.read(path)[1]["sources"]
    [entry] = [entry for source in declared for entry in source["tables"] if entry["name"] == table.name]
    return {
        column["name"]: ColumnMeta(**(((column.get("config") or {}).get("meta") or {}).get("tiltyard") or {}))
        for column in entry["columns"]
    }
