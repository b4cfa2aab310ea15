"""Ingest: what the sources delivered, appended to `raw.*` exactly once, each row with the time it was known.

A delivery is a file `landing/<source>/<table>/YYYY-MM-DD*.csv|.csv.gz|.parquet`, due when its day has ended.
The contract with a source is the dbt source YAML (columns, and under `meta.tiltyard` which of them tell when
a row happened and when it was written). A file that breaks it goes to quarantine whole, with its reason.
All good files of a run land in one transaction under a fence, together with their digests in
`ops.landed_file`: a killed run has written nothing, a repeated one finds nothing left to do.
"""

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import yaml
from pydantic import ValidationError, field_validator

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.lake import identifier, literal, put, text
from tiltyard.rails import Rails
from tiltyard.settings import Settings
from tiltyard.spec import Duration, Strict
from tiltyard.tables import INGEST_RUN, LANDED_FILE, Table

AUDIT_COLUMNS = {
    "event_time": "TIMESTAMP WITH TIME ZONE",
    "available_at": "TIMESTAMP WITH TIME ZONE",
    "ingested_at": "TIMESTAMP WITH TIME ZONE",
    "landed_night": "DATE",
    "source_file": "VARCHAR",
    "row_number": "BIGINT",
}
"""What ingest adds to the columns of a delivery."""

_TYPES = {
    "varchar": "VARCHAR",
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "integer": "INTEGER",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
}
_WIDENS = {
    "BIGINT": {"INTEGER", "SMALLINT", "TINYINT", "UINTEGER", "USMALLINT", "UTINYINT"},
    "INTEGER": {"SMALLINT", "TINYINT", "USMALLINT", "UTINYINT"},
    "DOUBLE": {"FLOAT"},
}
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
_FILE = re.compile(r"^(\d{4}-\d{2}-\d{2})[A-Za-z0-9_.-]*?(\.csv|\.csv\.gz|\.parquet)$")
_BLOCK = 1 << 20


# -- the contract -----------------------------------------------------------------------------


class TimeColumn(Strict):
    """Which column tells a time, and how it is written there."""

    column: str
    format: str | None = None
    """strptime format of a text column; unset means ISO 8601, or a typed column."""
    zone: str = "UTC"
    """Zone of times that carry none."""

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            return ZoneInfo(value).key
        except (KeyError, ValueError, OSError):
            raise ValueError(f"'{value}' is no time zone; write it like Europe/Vienna") from None


class Promise(Strict):
    """How long after the fact the source promises its rows to be here."""

    p99: Duration
    """Of a hundred rows, 99 arrive within this time of their event_time."""


class Timing(Strict):
    """`config.meta.tiltyard` of a dbt source table."""

    event_time: TimeColumn
    available_at: TimeColumn | Literal["ingested_at"]
    """When the row was written; `ingested_at` where the source cannot prove it."""
    null_values: tuple[str, ...] = ()
    """How a text file spells "missing", beside the empty field."""
    latency: Promise | None = None


@dataclass(frozen=True)
class TableContract:
    """What a delivery of one table must look like."""

    source: str
    name: str
    columns: Mapping[str, str]
    """Column → DuckDB type, in the contract's order."""
    timing: Timing

    @property
    def raw(self) -> str:
        return f"raw.{self.name}"

    @property
    def raw_columns(self) -> dict[str, str]:
        return {**self.columns, **AUDIT_COLUMNS}


@dataclass(frozen=True)
class SourceContract:
    name: str
    tables: tuple[TableContract, ...]

    def table(self, name: str) -> TableContract | None:
        return next((table for table in self.tables if table.name == name), None)


def sources(settings: Settings) -> tuple[str, ...]:
    """The sources there is a contract with, sorted."""
    staging = settings.dbt / "models" / "staging"
    return tuple(sorted(path.parent.name for path in staging.glob("*/_*__sources.yml")))


def tables(settings: Settings, source: str) -> tuple[str, ...]:
    """The raw tables of a source, like `raw.login`."""
    return tuple(table.raw for table in contract(settings, source).tables)


def contract(settings: Settings, source: str) -> SourceContract:
    """The contract with `source`. Raises BadInput, with the file, when it does not hold together."""
    path = settings.dbt / "models" / "staging" / source / f"_{source}__sources.yml"
    if not _NAME.match(source) or not path.is_file():
        known = ", ".join(sources(settings)) or "none"
        raise BadInput(f"There is no source '{source}'; the sources with a contract are: {known}.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
        [declared] = [entry for entry in content["sources"] if entry["name"] == source]
        found = tuple(_table(path, source, entry) for entry in declared["tables"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{path}: not a dbt source file that declares the source '{source}' and its tables "
            f"({type(error).__name__}: {error})."
        ) from None
    return SourceContract(source, found)


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _table(path: Path, source: str, entry: Mapping[str, Any]) -> TableContract:
    name = str(entry["name"])
    where = f"{path}: table '{name}'"
    columns: dict[str, str] = {}
    for column in entry.get("columns") or ():
        if not _NAME.match(str(column["name"])):
            raise BadInput(f"{where}: '{column['name']}' is no plain column name (lower case, digits, underscores).")
        if column["name"] in AUDIT_COLUMNS or column["name"] in columns:
            raise BadInput(f"{where}: column '{column['name']}' is declared twice, or is one that ingest adds.")
        kind = _TYPES.get(str(column.get("data_type", "")).lower())
        if kind is None:
            raise BadInput(f"{where}: column '{column['name']}' needs a data_type, one of {', '.join(_TYPES)}.")
        columns[column["name"]] = kind
    if not _NAME.match(name) or not columns:
        raise BadInput(f"{where}: a table needs a plain name and its columns.")
    meta = ((entry.get("config") or {}).get("meta") or {}).get("tiltyard")
    if meta is None:
        raise BadInput(f"{where}: config.meta.tiltyard must say which column is event_time and which available_at.")
    try:
        timing = Timing(**meta)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        raise BadInput(f"{where}: config.meta.tiltyard.{place}: {detail['msg']}.") from None
    for time in (timing.event_time, timing.available_at):
        if isinstance(time, TimeColumn):
            if time.column not in columns:
                raise BadInput(f"{where}: the time column '{time.column}' is not among its columns.")
            if columns[time.column] not in ("VARCHAR", "DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
                kind = columns[time.column]
                raise BadInput(f"{where}: the time column '{time.column}' is {kind}, which tells no time.")
    return TableContract(source, name, columns, timing)


# -- a night ----------------------------------------------------------------------------------


def run(rails: Rails, source: str, as_of: datetime) -> dict[str, Any]:
    """Land every delivery of `source` that is due at `as_of` and has not landed. Twice is once.

    Raises BadInput for an unknown source, Fenced when a newer run has taken over (then nothing was written).
    """
    lake, night = rails.lake, night_closing(as_of)
    agreed = contract(rails.settings, source)
    for table in agreed.tables:
        lake.ensure(Table(table.raw, table.raw_columns))
    lake.ensure(LANDED_FILE)
    lake.ensure(INGEST_RUN)
    fence = rails.ledger.claim(f"ingest/{source}")  # from here on, what an older run has landed is in sight
    due = _sift(rails, agreed, as_of)

    moment = clock.now()
    stamps = {"landed_night": f"date {text(night.isoformat())}", "ingested_at": literal(moment)}
    refused, loaded, nulls, snapshot = list(due.refused), {}, Counter[str](), None
    try:
        for name, deliveries in due.fresh.items():
            good, bad = _stage(lake.connection, deliveries, stamps)
            refused += bad
            if good:
                loaded[name] = good
                nulls += _count(lake.connection, name, good)
        quarantined = [_put_away(rails.settings, source, delivery, reason, night) for delivery, reason in refused]
        look = not _has_looked(lake.connection, source, as_of)
        if loaded or look:

            def work(connection: duckdb.DuckDBPyConnection) -> None:
                for deliveries in loaded.values():
                    _append(connection, deliveries[0].table)
                if loaded:
                    _record(connection, loaded, as_of, moment)
                if look:
                    rows = pd.DataFrame([{"source": source, "available_at": as_of, "ingested_at": moment}])
                    put(connection, INGEST_RUN, {}, rows)

            committed = lake.commit(work, message=f"ingest {source} {night}", fence=fence).snapshot
            snapshot = committed if loaded else None
    finally:
        for name in due.fresh:
            lake.connection.execute(f'drop table if exists temp."{_batch(name)}"')

    rows = {name: sum(delivery.rows for delivery in deliveries) for name, deliveries in sorted(loaded.items())}
    return {
        "source": source,
        "night": night.isoformat(),
        "files": sum(len(deliveries) for deliveries in loaded.values()),
        "rows": sum(rows.values()),
        "tables": rows,
        "repeated": due.repeated,
        "quarantined": quarantined,
        "null_available_at": nulls["available_at"],
        "null_event_time": nulls["event_time"],
        "snapshot": snapshot,
    }


@dataclass
class _Due:
    """What is due: what has not landed yet, what cannot land and why, and how many files came again."""

    fresh: dict[str, list["_Delivery"]] = field(default_factory=lambda: defaultdict(list))
    refused: list[tuple["_Delivery", str]] = field(default_factory=list)
    repeated: int = 0


def _sift(rails: Rails, agreed: SourceContract, as_of: datetime) -> _Due:
    """Look into every due file that is not known by name, size and time of change."""
    due, landed = _Due(), _landed(rails.lake.connection, agreed.name)
    for path, table, complaint in _files(rails.settings, agreed, as_of):
        try:
            delivery = _Delivery.of(path, table)
            known = landed.get(path.parent.name, _Landed())
            if complaint is None and delivery.stat in known.stats:
                continue
            delivery.sha256 = _digest(path)
        except FileNotFoundError:  # gone since it was listed: another run has put it away
            continue
        if complaint is not None:
            due.refused.append((delivery, complaint))
            continue
        delivery.look_into(rails.lake.connection)
        fresh = due.fresh[delivery.table.name]
        if delivery.reason is not None:
            due.refused.append((delivery, delivery.reason))
        elif known.files.get(path.name) == delivery.sha256:  # only touched
            continue
        elif delivery.has_rows and delivery.sha256 in known.digests:
            due.repeated += 1
        elif path.name in known.files:
            reason = "a file of this name has landed before with other content; send corrections under a new name"
            due.refused.append((delivery, reason))
        elif delivery.has_rows and delivery.sha256 in {other.sha256 for other in fresh}:
            due.repeated += 1
        else:
            fresh.append(delivery)
    due.fresh = {name: deliveries for name, deliveries in due.fresh.items() if deliveries}
    return due


@dataclass
class _Landed:
    """What of one table has landed before."""

    files: dict[str, str] = field(default_factory=dict)
    """Name → digest."""
    digests: set[str] = field(default_factory=set)
    """Of files with rows: the deliveries of two quiet days are alike, and still two."""
    stats: set[tuple[str, int, int]] = field(default_factory=set)
    """Name, size and time of change: a file of which none has changed is not read again."""


def _has_looked(connection: duckdb.DuckDBPyConnection, source: str, as_of: datetime) -> bool:
    query = f"select 1 from {identifier(INGEST_RUN)} where source = ? and available_at = ?"
    return connection.execute(query, [source, as_of]).fetchone() is not None


def _landed(connection: duckdb.DuckDBPyConnection, source: str) -> dict[str, _Landed]:
    landed: dict[str, _Landed] = defaultdict(_Landed)
    rows = connection.execute(
        f"select table_name, file, sha256, rows, bytes, modified_ns from {identifier(LANDED_FILE)} where source = ?",
        [source],
    ).fetchall()
    for table, file, sha256, count, size, modified in rows:
        landed[table].files[file] = sha256
        if count:
            landed[table].digests.add(sha256)
        landed[table].stats.add((file, size, modified))
    return dict(landed)


def _files(
    settings: Settings, agreed: SourceContract, as_of: datetime
) -> Iterator[tuple[Path, TableContract | None, str | None]]:
    """Path, table, and what is wrong with the name, of every file that is due, in order of table and name."""
    root = settings.landing / agreed.name
    if not root.is_dir():
        return
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        table = agreed.table(folder.name)
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name.endswith((".part", ".tmp")) or not path.is_file():
                continue
            day, complaint = day_of(path.name), None
            if table is None:
                complaint = f"there is no table '{folder.name}' in the contract of {agreed.name}"
            elif day is None:
                complaint = "its name is not like 2016-03-01.csv, .csv.gz or .parquet"
            elif clock.midnight(day) + timedelta(days=1) > as_of:
                continue
            yield path, table, complaint


def day_of(name: str) -> date | None:
    """The day that a delivery is named by; None for what is no delivery's name."""
    match = _FILE.match(name)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None


# -- one delivery -----------------------------------------------------------------------------


@dataclass
class _Delivery:
    """One file: what it is and, once looked into, its digest, its columns and what is wrong with it."""

    path: Path
    contract: TableContract | None
    stat: tuple[str, int, int]
    sha256: str = ""
    header: tuple[str, ...] = ()
    reason: str | None = None
    has_rows: bool = True
    rows: int = 0

    @classmethod
    def of(cls, path: Path, table: TableContract | None) -> "_Delivery":
        stat = path.stat()
        return cls(path, table, (path.name, stat.st_size, stat.st_mtime_ns))

    @property
    def table(self) -> TableContract:
        assert self.contract is not None
        return self.contract

    @property
    def is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    def look_into(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Its columns, and whether it is whole. What only shows on reading the rows comes in `_stage`."""
        if self.stat[1] == 0:
            self.reason = "it is empty (0 bytes)"
        elif self.is_parquet:
            self._look_into_parquet(connection)
        else:
            self._look_into_csv()

    def _look_into_csv(self) -> None:
        try:
            with _opened(self.path) as file:
                first = file.readline()
                last = first
                while block := file.read(_BLOCK):
                    last = block
                self.has_rows = last is not first
            if not last.endswith(b"\n"):
                self.reason = "its last line is cut off (no line break at the end)"
                return
            line = first.decode("utf-8-sig").rstrip("\r\n")
        except (EOFError, OSError, zlib.error) as error:
            self.reason = f"it cannot be unpacked, or is cut off ({error})"
            return
        except UnicodeDecodeError:
            self.reason = "it is not UTF-8 text"
            return
        self.header = tuple(next(csv.reader([line]), ()))
        self.reason = _misfit(self.table, self.header, line)

    def _look_into_parquet(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            described = connection.execute(f"describe select * from read_parquet({_path(self.path)})").fetchall()
            counted = connection.execute(f"select count(*) from read_parquet({_path(self.path)})").fetchone()
        except duckdb.Error as error:
            self.reason = f"it is no readable Parquet file, or is cut off ({_first_line(error)})"
            return
        self.has_rows = counted != (0,)
        found = {name: kind for name, kind, *_ in described}
        self.header = tuple(found)
        self.reason = _misfit(self.table, self.header, None)
        if self.reason is None:
            wrong = [
                f"'{name}' is {found[name]} instead of {kind}"
                for name, kind in self.table.columns.items()
                if found[name] != kind and found[name] not in _WIDENS.get(kind, ())
            ]
            self.reason = f"column {'; '.join(wrong)}" if wrong else None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with closing(gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
        yield cast(BinaryIO, file)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _misfit(table: TableContract, header: Sequence[str], line: str | None) -> str | None:
    """How `header` differs from the contract, in words; None when it fits. The order is free."""
    if line is not None and len(header) == 1 and len(table.columns) > 1:
        for delimiter, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if delimiter in line:
                return f"its columns are parted by {name} instead of commas"
    missing = [name for name in table.columns if name not in header]
    extra = [name for name in header if name not in table.columns]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        return f"column {_list(twice)} is there twice"
    if missing and extra:
        return f"column {_list(missing)} is missing and {_list(extra)} is not in the contract (renamed?)"
    if missing:
        return f"column {_list(missing)} is missing"
    return f"column {_list(extra)} is not in the contract" if extra else None


def _list(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(f"'{name[:60]}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _put_away(settings: Settings, source: str, delivery: _Delivery, reason: str, night: date) -> dict[str, str]:
    """Move a file out of the landing zone, whole, with its reason beside it."""
    folder = settings.quarantine / source / delivery.path.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / delivery.path.name
    if target.exists():  # an earlier one of this name lies there
        target = folder / f"{delivery.sha256[:12]}-{delivery.path.name}"
    note = {
        "source": source,
        "table": delivery.path.parent.name,
        "file": delivery.path.name,
        "reason": reason,
        "sha256": delivery.sha256,
        "bytes": delivery.stat[1],
        "night": night.isoformat(),
    }
    with whole(target.with_name(target.name + ".reason.json")) as part:
        part.write_text(json.dumps(note, indent=1) + "\n")
    delivery.path.replace(target)
    return {"file": f"{delivery.path.parent.name}/{delivery.path.name}", "reason": reason}


# -- rows -------------------------------------------------------------------------------------


def _stage(
    connection: duckdb.DuckDBPyConnection, deliveries: Sequence[_Delivery], stamps: Mapping[str, str]
) -> tuple[list[_Delivery], list[tuple[_Delivery, str]]]:
    """Read all rows of one table's files into a temporary table; returns the good files, and the bad with reasons.

    All files of a shape are read in one pass. Only when that fails are they read one by one, to name the bad.
    """
    table = deliveries[0].table
    connection.execute(f'drop table if exists temp."{_batch(table.name)}"')
    body = ", ".join(f'"{name}" {kind}' for name, kind in table.raw_columns.items())
    connection.execute(f'create temp table "{_batch(table.name)}" ({body})')
    good: list[_Delivery] = []
    bad: list[tuple[_Delivery, str]] = []
    shapes: dict[tuple[bool, tuple[str, ...]], list[_Delivery]] = defaultdict(list)
    for delivery in deliveries:
        shapes[delivery.is_parquet, delivery.header].append(delivery)
    for alike in shapes.values():
        try:
            _read(connection, alike, stamps)
            good += alike
        except duckdb.Error:
            for delivery in alike:
                try:
                    _read(connection, [delivery], stamps)
                    good.append(delivery)
                except duckdb.Error as error:
                    bad.append((delivery, f"its rows cannot be read ({_first_line(error)})"))
    return good, bad


def _read(connection: duckdb.DuckDBPyConnection, deliveries: Sequence[_Delivery], stamps: Mapping[str, str]) -> None:
    """Append the rows of files of one shape to the temporary table: all of them, or none and a duckdb.Error.

    Row numbers count from 1 in each file. A time that cannot be read is NULL, and fails closed downstream.
    """
    table = deliveries[0].table
    paths = "[" + ", ".join(_path(delivery.path) for delivery in deliveries) + "]"
    if deliveries[0].is_parquet:
        rows = f"""
            select *, filename as _file, file_row_number + 1 as _line
            from read_parquet({paths}, file_row_number = true, filename = true)"""
    else:
        names = "{" + ", ".join(f"{text(name)}: 'VARCHAR'" for name in deliveries[0].header) + "}"
        missing = "[" + ", ".join(text(value) for value in ("", *table.timing.null_values)) + "]"
        rows = f"""
            select *, _row - min(_row) over (partition by _file) + 1 as _line
            from (
                select *, filename as _file, row_number() over () as _row
                from read_csv({paths}, columns = {names}, auto_detect = false, header = true, delim = ',',
                              quote = '"', escape = '"', nullstr = {missing}, filename = true)
            )"""
    values = {name: f'cast("{name}" as {kind})' for name, kind in table.columns.items()}
    values["event_time"] = _instant(table, table.timing.event_time)
    values["available_at"] = (
        _instant(table, table.timing.available_at)
        if isinstance(table.timing.available_at, TimeColumn)
        else stamps["ingested_at"]
    )
    values |= {**stamps, "source_file": "parse_filename(_file)", "row_number": "_line"}
    columns = ", ".join(f'"{name}"' for name in values)
    select = ", ".join(f'{value} as "{name}"' for name, value in values.items())
    connection.execute(
        f'insert into temp."{_batch(table.name)}" ({columns}) with delivered as ({rows}) select {select} from delivered'
    )


def _instant(table: TableContract, time: TimeColumn) -> str:
    """SQL of a column as timestamptz; NULL where it cannot be read."""
    column, kind = f'"{time.column}"', table.columns[time.column]
    if kind == "TIMESTAMP WITH TIME ZONE":
        return column
    if kind == "VARCHAR" and time.format is None:
        zoned = f"regexp_matches({column}, '(Z|[+-]\\d{{2}}(:?\\d{{2}})?)$') and contains({column}, ':')"
        naive = f"timezone({text(time.zone)}, try_cast({column} as timestamp))"
        return f"case when {zoned} then try_cast({column} as timestamptz) else {naive} end"
    value = f"try_strptime({column}, {text(time.format)})" if time.format and kind == "VARCHAR" else column
    return f"timezone({text(time.zone)}, cast({value} as timestamp))"


def _count(connection: duckdb.DuckDBPyConnection, table: str, good: Iterable[_Delivery]) -> Counter[str]:
    """Tell every delivery its rows; returns how many rows' times could not be read."""
    counts = connection.execute(
        f"select source_file, count(*), count(*) - count(available_at), count(*) - count(event_time) "
        f'from temp."{_batch(table)}" group by all'
    ).fetchall()
    rows = {file: count for file, count, *_ in counts}
    for delivery in good:
        delivery.rows = rows.get(delivery.path.name, 0)
    return Counter(available_at=sum(count[2] for count in counts), event_time=sum(count[3] for count in counts))


def _append(connection: duckdb.DuckDBPyConnection, table: TableContract) -> None:
    names = ", ".join(f'"{name}"' for name in table.raw_columns)
    connection.execute(f'insert into {identifier(table.raw)} ({names}) select {names} from temp."{_batch(table.name)}"')


def _record(
    connection: duckdb.DuckDBPyConnection,
    loaded: Mapping[str, Sequence[_Delivery]],
    as_of: datetime,
    moment: datetime,
) -> None:
    """What has landed, in the transaction that lands it."""
    rows = [
        {
            "source": delivery.table.source,
            "table_name": table,
            "file": delivery.path.name,
            "sha256": delivery.sha256,
            "rows": delivery.rows,
            "bytes": delivery.stat[1],
            "modified_ns": delivery.stat[2],
            "landed_night": night_closing(as_of),
            "available_at": as_of,
            "ingested_at": moment,
        }
        for table, deliveries in loaded.items()
        for delivery in deliveries
    ]
    put(connection, LANDED_FILE, {}, pd.DataFrame(rows))


def _batch(table: str) -> str:
    return f"_batch_{table}"


def _path(path: Path) -> str:
    """An SQL literal of one path; a bracket in a folder's name is no pattern."""
    return text(re.sub(r"([\[*?])", r"[\1]", str(path)))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".:")
