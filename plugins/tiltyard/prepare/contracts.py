"""The contract with a source: what a delivery of each of its tables must look like.

It is the dbt source YAML (dbt/models/staging/<source>/_<source>__sources.yml): the columns with their types, and under
`config.meta.tiltyard` which of them tell when a row happened and when it was written. A delivery is a file that is
named by its day, `YYYY-MM-DD*.csv`, `.csv.gz` or `.parquet`, or by an hour of it, `YYYY-MM-DDTHH*`. The source itself
says there when it is looked for, and until when it is waited for, on which days it is closed, and how old and how few
its rows may be.
"""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import closed_days, dbt_files, schedules
from tiltyard.prepare.closed_days import ClosedDay
from tiltyard.prepare.names import OF_THE_LAKE
from tiltyard.prepare.places import Fetch
from tiltyard.settings import Settings
from tiltyard.spec import Duration, Strict
from tiltyard.yaml_files import line_of

DeclaredT = TypeVar("DeclaredT", bound=Strict)

AUDIT_COLUMNS = {
    "event_time": "TIMESTAMP WITH TIME ZONE",
    "available_at": "TIMESTAMP WITH TIME ZONE",
    "ingested_at": "TIMESTAMP WITH TIME ZONE",
    "landed_night": "DATE",
    "source_file": "VARCHAR",
    "row_number": "BIGINT",
}
"""What ingest adds to the columns of a delivery: name → DuckDB type."""
TYPES = {
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
"""A column's `data_type` in the YAML → its DuckDB type."""
_META = ("config", "meta", "tiltyard")
_TELLS_TIME = ("VARCHAR", "DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
_FORMAT = re.compile(r"(?:%-?[dHIjmMSy]|%[aAbBcfgGhnpTuUVwWxXYzZ%]|[^%])+")
"""A format of DuckDB's strptime."""
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
_FILE = re.compile(r"^(\d{4}-\d{2}-\d{2})(?:T([01]\d|2[0-3]))?[A-Za-z0-9_.-]*?(\.csv|\.csv\.gz|\.parquet)$")


class TimeColumn(Strict):
    """Which column tells a time, and how it is written there."""

    column: str
    """Its name in a delivery."""
    further: tuple[str, ...] = ()
    """Columns whose texts stand behind its own, parted by a space each: the hour beside a day, month and day beside a
    year."""
    format: str | None = None
    """strptime format of a text column. None: ISO 8601, or a column that has a type of time already."""
    zone: str = "UTC"
    """Zone of times that carry none."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All the columns that tell it."""
        return (self.column, *self.further)

    def is_day(self, kind: str) -> bool:
        """Whether it tells no more than a day. `kind` is the DuckDB type of its column."""
        if self.format is not None:
            return not re.search("%-?[HIcX]", self.format)
        return kind == "DATE" and not self.further

    @field_validator("format")
    @classmethod
    def _format_that_tells_a_day(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not _FORMAT.fullmatch(value):
            raise ValueError(f"'{value}' is no format of strptime; write it like %d/%m/%Y %H:%M")
        if not re.search(r"%-?[YyGcxs]", value):
            raise ValueError(f"'{value}' tells no year; write it like %d/%m/%Y %H:%M")
        return value

    @field_validator("zone")
    @classmethod
    def _zone_that_exists(cls, value: str) -> str:
        try:
            return ZoneInfo(value).key
        except (KeyError, ValueError, OSError):
            raise ValueError(f"'{value}' is no time zone; write it like Europe/Vienna") from None


class Promise(Strict):
    """How long after the fact the source promises its rows to be here."""

    p99: Duration
    """Time from its event_time within which a row is here, for 99 of a hundred rows."""


class Volume(Strict):
    """How many rows a night may bring, in parts of what is usual on its weekday."""

    warn_below: float = Field(default=0.4, ge=0)
    """Share below which a warning says so."""
    warn_above: float = Field(default=2.2, ge=0)
    """Share above which a warning says so."""
    hold_below: float = Field(default=0.02, ge=0)
    """Share below which the table is held."""


class Age(Strict):
    """How old the newest row of a table may be when a night is judged, closed days left out.

    It is dbt's own `config.freshness`, of the table or else of the source.
    """

    warn_after: timedelta | None = timedelta(hours=36)
    """Age from which on a warning says so; None: never."""
    error_after: timedelta | None = timedelta(days=7)
    """Age from which on the table is held; None: never."""


class Format(Strict):
    """How the text files of a table are written. Parquet says it itself."""

    delimiter: str = ","
    """The character between two fields."""
    encoding: str = "utf-8"
    """The name that Python has for how its letters are written, like latin-1."""
    decimal: Literal[".", ","] = "."
    """The character before the decimals of a number."""
    thousands: Literal[".", ",", "'", " ", "\u00a0", "\u202f"] | None = None
    """The character that may stand between the thousands of a number; None: none does."""

    @model_validator(mode="after")
    def _two_marks(self) -> "Format":
        if self.thousands == self.decimal:
            raise ValueError(f"'{self.decimal}' cannot stand before decimals and between thousands, too; mend one")
        return self

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        if len(value) != 1 or value in '"\r\n':
            raise ValueError(f"{value!r} parts no fields; write one character, like ';' or \"\\t\"")
        return value

    @field_validator("encoding")
    @classmethod
    def _that_is_known(cls, value: str) -> str:
        try:
            return codecs.lookup(value).name
        except LookupError:
            raise ValueError(f"'{value}' is no encoding; write it like utf-8, latin-1, cp1252 or utf-16") from None


class Timing(Strict):
    """`config.meta.tiltyard` of a dbt source table."""

    event_time: TimeColumn
    """Column that tells when the row happened."""
    available_at: TimeColumn | Literal["ingested_at"]
    """Column that tells when the row was written; `ingested_at` where the source cannot prove it."""
    key: tuple[str, ...] = ()
    """Columns that name a row. A row of which all came before is dropped and counted. Empty: a row that comes again
    lands again."""
    on_repeat: Literal["correct", "quarantine"] = "correct"
    """What becomes of a row whose key came before with other values: it is kept beside that one, as a correction, or
    its file goes to quarantine."""
    null_values: tuple[str, ...] = ()
    """Spellings of "missing" in a text file, beside the empty field."""
    format: Format = Format()
    """How its text files are written."""
    written_after: Duration | None = None
    """How long after its row what is written later is known where no column tells when: what an export is cut by."""
    latency: Promise | None = None
    """Promise of the source; None where it makes none."""
    volume: Volume | None = None
    """How many rows a night may bring; None: as its source says."""
    fetch: Fetch | None = None
    """Where its rows are brought from; None: somebody lays its deliveries into the landing zone."""

    @field_validator("key", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _that_has_a_key(self) -> "Timing":
        if "on_repeat" in self.model_fields_set and not self.key:
            raise ValueError("on_repeat says what becomes of a row whose key came before; say the key")
        return self


class Rhythm(Strict):
    """`config.meta.tiltyard` of a dbt source: when it is looked for, until when it is waited for, and what is usual."""

    schedule: str | None = None
    """When its features DAG starts by itself, UTC: a cron expression, @daily, or none. Unset: TILTYARD_SCHEDULE."""
    due_by: Duration | None = None
    """How long after the night's end a delivery may come: a source that has delivered nothing by then is late. Unset:
    it is not waited for, and what there is at its schedule is judged as it is."""
    closed: tuple[ClosedDay, ...] = ()
    """Days on which there is nothing to deliver: weekdays, dates, and `holidays: BR` for those of a country."""
    volume: Volume = Volume()
    """How many rows a night of its tables may bring."""

    @field_validator("schedule")
    @classmethod
    def _schedule_that_can_be_read(cls, value: str | None) -> str | None:
        return None if value is None else schedules.checked(value)


@dataclass(frozen=True)
class TableContract:
    """What a delivery of one table must look like."""

    source: str
    """Name of the source."""
    name: str
    """Name of the table, and of its folder in the landing zone."""
    columns: Mapping[str, str]
    """Column → DuckDB type, in the contract's order."""
    timing: Timing
    """Which columns tell its times."""
    age: Age = field(default_factory=Age)
    """How old its newest row may be."""
    volume: Volume = field(default_factory=Volume)
    """How many rows a night may bring."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Column → how a delivery spells it; only those that it spells otherwise."""
    zones: Mapping[str, str] = field(default_factory=dict)
    """Column → the zone of its times that carry none; only those of which the contract says one."""
    planned: tuple[str, ...] = ()
    """Its days and instants that are known ahead, like the day of an appointment."""

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row, by which it is told whether it came before; empty where it is not told."""
        return self.timing.key

    @property
    def on_repeat(self) -> Literal["correct", "quarantine"]:
        """What becomes of a row whose key came before with other values."""
        return self.timing.on_repeat

    def header(self, column: str) -> str:
        """How a delivery spells a column."""
        return self.headers.get(column, column)

    @property
    def raw(self) -> str:
        """The table of the lake that its rows are appended to, like `raw.login`."""
        return f"raw.{self.name}"

    @property
    def raw_columns(self) -> dict[str, str]:
        """Column → DuckDB type of that table."""
        return {**self.columns, **AUDIT_COLUMNS}


@dataclass(frozen=True)
class SourceContract:
    """What the deliveries of one source must look like."""

    name: str
    """Name of the source, and of its folder in the landing zone."""
    tables: tuple[TableContract, ...]
    """Its tables, in the order of the YAML."""
    rhythm: Rhythm
    """When it is looked for."""

    def table(self, name: str) -> TableContract | None:
        """The table of that name; None when the contract has no such table."""
        return next((table for table in self.tables if table.name == name), None)


def sources(settings: Settings) -> tuple[str, ...]:
    """The sources there is a contract with, sorted."""
    staging = settings.dbt / "models" / "staging"
    return tuple(sorted(path.parent.name for path in staging.glob("*/_*__sources.yml")))


def is_name(name: str) -> bool:
    """Whether a source or a table may be called so."""
    return bool(_NAME.match(name))


def path_of(source: str) -> str:
    """Where the contract with a source stands, below the checkout."""
    return f"dbt/models/staging/{source}/_{source}__sources.yml"


def tell_apart(settings: Settings, contracts: Iterable[SourceContract]) -> None:
    """Raises BadInput, with the file of the later one, where two sources have a table of one name: all rows of either
    would land in the same raw table."""
    owners: dict[str, str] = {}
    for contract in contracts:
        for table in contract.tables:
            if owners.setdefault(table.name, contract.name) != contract.name:
                path = settings.dbt / "models" / "staging" / contract.name / f"_{contract.name}__sources.yml"
                raise BadInput(
                    f"{path}: table '{table.name}' is a table of {owners[table.name]} already, and all rows of both "
                    f"would land in {table.raw}; give it another name."
                )


def _once(where: "_Where", tables: Sequence[TableContract]) -> None:
    """Raises BadInput where a contract declares a table twice."""
    names = [table.name for table in tables]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise where.wrong(f"the table '{name}' is declared twice; take one away.", "tables", number)


def raw_tables(settings: Settings, source: str) -> tuple[str, ...]:
    """The raw tables of a source, like `raw.login`, in the contract's order. Raises BadInput as `read` does."""
    return tuple(table.raw for table in read(settings, source).tables)


def read(settings: Settings, source: str) -> SourceContract:
    """The contract with `source`, read again when its file has changed. Raises BadInput, with file and line, when it
    does not hold together."""
    path = settings.dbt / "models" / "staging" / source / f"_{source}__sources.yml"
    if not _NAME.match(source) or not path.is_file():
        names = ", ".join(sources(settings)) or "none"
        raise BadInput(f"There is no source '{source}'; the sources with a contract are: {names}.")
    state = path.stat()
    return _read(path, source, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=512)
def _read(path: Path, source: str, modified_ns: int, size: int) -> SourceContract:
    """The contract in a file: every stage asks for it, and every look at a page."""
    node, content = dbt_files.read(path)
    try:
        [place] = [number for number, entry in enumerate(content["sources"]) if entry["name"] == source]
        declaration = content["sources"][place]
        where = _Where(path, node, ("sources", place), f"source '{source}'")
        rhythm = _declared(where, Rhythm, _meta(declaration) or {})
        age = _age(where, declaration, Age())
        tables = tuple(
            _table(where.below(f"table '{entry['name']}'", "tables", number), source, entry, rhythm, age)
            for number, entry in enumerate(declaration["tables"])
        )
        _once(where, tables)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{path}: not a dbt source file that declares the source '{source}' and its tables "
            f"({type(error).__name__}: {error})."
        ) from None
    return SourceContract(source, tables, rhythm)


def schedule(settings: Settings, source: str) -> str | None:
    """The cron expression by which the features DAG of a source starts by itself; None for never. A source whose
    contract cannot be read is looked for as usual: its own run says what is wrong with it."""
    own = _rhythm(settings, source).schedule
    if own is not None:
        return schedules.cron(own)
    if source in settings.unscheduled:
        return None
    try:
        return schedules.cron(schedules.checked(settings.schedule))
    except ValueError as error:
        raise BadInput(f"TILTYARD_SCHEDULE: {error}.") from None


def is_expected(settings: Settings, source: str, night: date) -> bool:
    """Whether the schedule of a source has a run for a night, so that what reads it waits for it."""
    return schedules.has_run(schedule(settings, source), night)


def deadline(settings: Settings, source: str, as_of: datetime) -> datetime | None:
    """Until when a delivery of the night that closes at `as_of`, or of the hour that ends then, is waited for; None: it
    is not, or it is closed."""
    rhythm = _rhythm(settings, source)
    if rhythm.due_by is None or closed_days.why_closed(rhythm.closed, clock.night_of(as_of) - timedelta(days=1)):
        return None
    return as_of + rhythm.due_by


def closed(settings: Settings, source: str, last: date) -> tuple[date, ...]:
    """The days up to and with the last on which a source was closed, the oldest first."""
    return closed_days.closed_until(_rhythm(settings, source).closed, last)


def fetches(settings: Settings, source: str) -> bool:
    """Whether rows of a source are brought from elsewhere, so that it begins without a file in the landing zone."""
    try:
        return any(table.timing.fetch for table in read(settings, source).tables)
    except BadInput:
        return False


@dataclass(frozen=True)
class _Where:
    """A part of a contract, for a sentence on what is wrong there."""

    path: Path
    node: yaml.Node | None
    """The YAML of the whole file, which knows its lines."""
    loc: tuple[Any, ...]
    what: str
    """What it is, in words."""

    def below(self, what: str, *loc: Any) -> "_Where":
        """A part of it."""
        return _Where(self.path, self.node, (*self.loc, *loc), what)

    def wrong(self, message: str, *loc: Any) -> BadInput:
        """The error that says what is wrong, with the line of the part at `loc` below it."""
        return BadInput(f"{self.path}:{line_of(self.node, (*self.loc, *loc))}: {self.what}: {message}")


def _rhythm(settings: Settings, source: str) -> Rhythm:
    try:
        return read(settings, source).rhythm
    except BadInput:
        return Rhythm()


def _meta(entry: Mapping[str, Any]) -> Any:
    return ((entry.get("config") or {}).get("meta") or {}).get("tiltyard")


def _declared(where: _Where, kind: type[DeclaredT], meta: Any) -> DeclaredT:
    """What `config.meta.tiltyard` says. Raises BadInput, with the place."""
    try:
        return kind(**meta)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        raise where.wrong(f"config.meta.tiltyard.{place}: {message}.", *_META, *detail["loc"]) from None


def _age(where: _Where, entry: Mapping[str, Any], inherited: Age) -> Age:
    """dbt's `config.freshness` of a source or a table; `null`, whole or in part, lets rows be of any age."""
    config = entry.get("config") or {}
    if "freshness" not in config:
        return inherited
    ages = {}
    for name, period in (config["freshness"] or {"warn_after": None, "error_after": None}).items():
        if name not in Age.model_fields:
            continue  # dbt's `filter`
        try:
            ages[name] = None if period is None else timedelta(**{f"{period['period']}s": period["count"]})
        except (KeyError, TypeError):
            raise where.wrong(
                f"config.freshness.{name}: write it like {{count: 36, period: hour}}; periods are minute, hour and "
                "day.", "config", "freshness", name,
            ) from None  # fmt: skip
    return inherited.model_copy(update=ages)


def _table(where: _Where, source: str, entry: Mapping[str, Any], rhythm: Rhythm, age: Age) -> TableContract:
    """The contract of one entry under `tables` of the YAML."""
    name = str(entry["name"])
    columns = _columns(where, entry)
    headers = _headers(where, entry)
    if not _NAME.match(name) or not columns:
        raise where.wrong("a table needs a plain name and its columns.")
    meta = _meta(entry)
    if meta is None:
        raise where.wrong("config.meta.tiltyard must say which column is event_time and which available_at.")
    timing = _declared(where, Timing, meta)
    for said, time in (("event_time", timing.event_time), ("available_at", timing.available_at)):
        if isinstance(time, TimeColumn):
            if strange := next((part for part in time.columns if part not in columns), None):
                raise where.wrong(f"the time column '{strange}' is not among its columns.", *_META, said)
            if columns[time.column] not in _TELLS_TIME and not time.further:
                kind = columns[time.column]
                raise where.wrong(f"the time column '{time.column}' is {kind}, which tells no time.", *_META, said)
    if strange := next((part for part in timing.key if part not in columns), None):
        raise where.wrong(f"the key's column '{strange}' is not among its columns.", *_META, "key")
    if timing.fetch is not None and (misfit := timing.fetch.misfit(columns)):
        raise where.wrong(f"{misfit}.", *_META, "fetch")
    volume = timing.volume or rhythm.volume
    zones = _zones(entry, timing)
    planned = _planned(entry, columns)
    return TableContract(
        source, name, columns, _in_zones(timing, zones), _age(where, entry, age), volume, headers, zones, planned
    )


def _planned(entry: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that tell a time and are said to be known ahead."""
    said = [str(column["name"]) for column in entry["columns"] if (_meta(column) or {}).get("planned") is True]
    return tuple(name for name in said if columns[name].startswith(("DATE", "TIMESTAMP")))


def _zones(entry: Mapping[str, Any], timing: Timing) -> dict[str, str]:
    """Column → the zone of its times that carry none, where the contract says one, of whichever of its times."""
    later = [(_meta(column) or {}).get("written_later") for column in entry.get("columns") or ()]
    said = [(str(when["column"]), str(when.get("zone", "UTC"))) for when in later if isinstance(when, dict)]
    said += [(time.column, time.zone) for time in (timing.available_at, timing.event_time) if time != "ingested_at"]
    return {column: zone for column, zone in said if zone != "UTC"}


def _in_zones(timing: Timing, zones: Mapping[str, str]) -> Timing:
    """The times, each in the zone of its column: what is said of it once need not be said again."""
    times = {
        name: time.model_copy(update={"zone": zones[time.column]})
        for name, time in (("event_time", timing.event_time), ("available_at", timing.available_at))
        if time != "ingested_at" and "zone" not in time.model_fields_set and time.column in zones
    }
    return timing.model_copy(update=times)


def _columns(where: _Where, entry: Mapping[str, Any]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for number, column in enumerate(entry.get("columns") or ()):
        name, here = column["name"], ("columns", number)
        if not _NAME.match(str(name)):
            raise where.wrong(f"'{name}' is no plain column name (lower case, digits, underscores).", *here)
        if name in AUDIT_COLUMNS or name in columns:
            raise where.wrong(f"column '{name}' is declared twice, or is one that ingest adds.", *here)
        if name in OF_THE_LAKE:
            raise where.wrong(
                f"column '{name}' is one that the lake adds to what it says of a table; give it another name, and "
                f"config.meta.tiltyard.header: {name} where deliveries spell it so.", *here,
            )  # fmt: skip
        kind = TYPES.get(str(column.get("data_type", "")).lower())
        if kind is None:
            raise where.wrong(f"column '{name}' needs a data_type, one of {', '.join(TYPES)}.", *here)
        columns[name] = kind
    return columns


def _headers(where: _Where, entry: Mapping[str, Any]) -> dict[str, str]:
    """Column → its `config.meta.tiltyard.header`. Raises BadInput where two columns would be the same one of a file."""
    headers: dict[str, str] = {}
    columns = [str(column["name"]) for column in entry.get("columns") or ()]
    for column in entry.get("columns") or ():
        header = (_meta(column) or {}).get("header")
        if header is not None and not str(header).strip():
            raise where.wrong(
                f"column '{column['name']}': the header is empty; say it as deliveries spell it.",
                "columns", columns.index(str(column["name"])),
            )  # fmt: skip
        if header is not None:
            headers[str(column["name"])] = str(header)
    owners: dict[str, str] = {}
    for name in columns:
        header = headers.get(name, name)
        if owners.setdefault(header, name) != name:
            raise where.wrong(
                f"'{owners[header]}' and '{name}' are both the column '{header}' of a file.",
                "columns", columns.index(name),
            )  # fmt: skip
    return headers


# -- the name of a delivery -------------------------------------------------------------------


def day_of(name: str) -> date | None:
    """The day that a file is named by; None for a name that no delivery has."""
    match = _FILE.match(name)
    try:
        day = date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None
    return None if day == date.max else day  # of which no clock shows the end


def due(name: str) -> datetime:
    """When the delivery of this name is due: at the end of the day that it is named by, or of the hour.

    Raises ValueError for a name that no delivery has.
    """
    match, day = _FILE.match(name), day_of(name)
    if match is None or day is None:
        raise ValueError(f"{name!r} is not named like a delivery")
    return clock.midnight(day) + (timedelta(hours=int(match[2]) + 1) if match[2] else timedelta(days=1))


def key_of(settings: Settings, table: TableContract) -> str | None:
    """The column that names a row: the first of the grain of its staging table; None where there is none. Raises
    BadInput where the `.yml` of that cannot be read."""
    path = settings.dbt / "models" / "staging" / table.source / f"stg_{table.source}__{table.name}.yml"
    if not path.is_file():
        return None
    for model in dbt_files.read(path)[1].get("models", ()):
        for test in model.get("data_tests", ()):
            if isinstance(test, Mapping) and "one_row_per" in test:
                try:
                    name = str(test["one_row_per"]["arguments"]["columns"][0])
                except (LookupError, TypeError):  # dbt says what is wrong with it
                    return None
                return name if name in table.columns else None
    return None


def known_key(settings: Settings, table: TableContract) -> str | None:
    """`key_of`, and None as well where its file cannot be read: whoever builds from that says so."""
    try:
        return key_of(settings, table)
    except BadInput:
        return None
