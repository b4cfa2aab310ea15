"""Ingest: what the sources delivered, appended to `raw.*` exactly once, each row with the time it was known.

A delivery is a file `landing/<source>/<table>/YYYY-MM-DD*.csv|.csv.gz|.parquet`, due when its day has ended; or
`YYYY-MM-DDTHH*`, due when that hour of it has.
`contracts` says what it must look like, `landing` whether it does. All good files of a night land in one transaction
under a fence, together with their digests in `ops.landed_file`: a killed run has written nothing, a repeated one finds
nothing left to do.
"""

import csv
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb
import pandas as pd

from tiltyard import clock
from tiltyard.clock import night_of
from tiltyard.errors import BadInput
from tiltyard.lake import Lake, forget_files, identifier, literal, put, quoted, text
from tiltyard.prepare import contracts, delivery_rows, landing, repeats, whose, without_rows
from tiltyard.prepare.contracts import SourceContract, TableContract
from tiltyard.prepare.delivery_rows import BEYOND, LINE, NAME, NUL
from tiltyard.prepare.landing import LandingFile
from tiltyard.prepare.repeats import Repeats
from tiltyard.rails import Rails
from tiltyard.records import FetchedTable, QuarantinedFile, Record, RefusedFile
from tiltyard.tables import INGEST_RUN, LANDED_FILE, Table
from tiltyard.tombstones import Tombstones
from tiltyard.words import counted

log = logging.getLogger(__name__)

QUARANTINED = "file_quarantined"
"""Kind of the ledger's event for a file that was put into quarantine."""
MENDED = "file_mended"
"""Kind of the ledger's event of a file that was refused and landed under its name since."""
TAKEN_BACK = "delivery_withdrawn"
"""Kind of the ledger's event of a delivery that was withdrawn: its rows count as never known."""
TOLD = timedelta(days=7)
"""For so many nights it is told."""
CLOCKS_DIFFER = timedelta(minutes=5)
"""A clock that is further behind the stamp of the load before is told."""


@dataclass(frozen=True, kw_only=True)
class IngestSummary(Record):
    """What one night landed of one source."""

    source: str
    """Name of the source."""
    night: date
    """Date that names the night."""
    files: int
    """Number of files that landed."""
    rows: int
    """Number of rows in them."""
    tables: Mapping[str, int]
    """Table → number of its rows, for the tables that got any file."""
    repeated: int
    """Number of files that came again under another name, and were passed over."""
    quarantined: tuple[RefusedFile, ...]
    """Files that could not be taken."""
    null_available_at: int
    """Number of rows whose `available_at` could not be read. They are never seen."""
    null_event_time: int
    """Number of rows whose `event_time` could not be read."""
    snapshot: int | None
    """Snapshot of the lake that holds the rows; None when nothing landed."""
    fetched: tuple[FetchedTable, ...] = ()
    """What was brought before from the places that its contract names."""
    beyond: int = 0
    """Number of instants that are infinite, before the year 1 or after 9999. They are NULL."""
    holed: int = 0
    """Number of texts out of which a NUL was taken."""
    left_alone: tuple[str, ...] = ()
    """What lies in the landing zone and is no delivery, a sentence for each folder and reason."""
    null_key: int = 0
    """Number of rows without the key of their staging table. They land, and are nobody's."""
    erased: int = 0
    """Number of rows of those who were erased. They do not land, and are taken out of their files."""
    repeated_rows: int = 0
    """Number of rows that said what came before, by the key of their contract, and were dropped."""
    corrections: int = 0
    """Number of rows whose key came before with other values, and that landed beside those."""

    @property
    def away(self) -> tuple[str, ...]:
        """Why places of its contract could not be read, a sentence each."""
        return tuple(table.away for table in self.fetched if table.away)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of what was there, a sentence each."""
        beyond = f"{counted(self.beyond, 'instant')} infinite, before the year 1 or after 9999: NULL from here on"
        holed = f"{counted(self.holed, 'text')} with a NUL, which was taken out"
        erased = f"{counted(self.erased, 'row')} of those who were erased: they do not land"
        repeated = f"{counted(self.repeated_rows, 'row')} that came before, word for word: dropped"
        corrected = f"{counted(self.corrections, 'row')} whose key came before with other values: kept as corrections"
        of_keys = ((self.repeated_rows, repeated), (self.corrections, corrected))
        told = ((self.beyond, beyond), (self.holed, holed), (self.erased, erased), *of_keys)
        return (*self.left_alone, *(sentence for count, sentence in told if count))


# -- a night ----------------------------------------------------------------------------------


def land_night(rails: Rails, source: str, as_of: datetime) -> IngestSummary:
    """Land every delivery of `source` that is due at `as_of` and has not landed. Twice is once.

    Raises BadInput for an unknown source, Fenced when a newer run has taken over (then nothing was written).
    """
    lake, night = rails.lake, night_of(as_of)
    forget_files(lake.connection, rails.settings)
    contract = contracts.read(rails.settings, source)
    for table in contract.tables:
        lake.ensure(Table(table.raw, table.raw_columns))
        _same_types(lake, table)
    lake.ensure(LANDED_FILE)
    lake.ensure(INGEST_RUN)
    fence = rails.ledger.claim(f"ingest/{source}")  # from here on, what an older run has landed is in sight
    sifted = _sift(rails, contract, as_of)

    for sentence in sifted.left_alone:
        log.warning("%s.", sentence)
    moment = _stamp(lake.connection, source, clock.now())
    stamps = {"landed_night": f"date {text(night.isoformat())}", "ingested_at": literal(moment)}
    refused = list(sifted.refused)
    loaded: dict[str, list[LandingFile]] = {}
    nulls: Counter[str] = Counter()
    snapshot: int | None = None
    try:
        for name, files in sifted.fresh.items():
            staged, bad = _stage(lake.connection, files, stamps)
            refused += bad
            good = _unchanged(lake.connection, name, staged)
            came = repeats.sift(lake.connection, good[0].table, f'temp."{_batch(name)}"') if good else Repeats()
            refused += [(file, came.refused[file.path.name]) for file in good if file.path.name in came.refused]
            good = [file for file in good if file.path.name not in came.refused]
            for file in good:
                file.repeated, file.corrections = came.dropped[file.path.name], came.corrections[file.path.name]
            if good:
                loaded[name] = good
                nulls += _count(lake.connection, name, good, contracts.known_key(rails.settings, good[0].table))
        for file, reason in refused:  # before it is moved: who is killed in between tells it twice, not never
            detail = {"source": source, "file": _name(file), "reason": reason}
            rails.ledger.add_event(QUARANTINED, "", night, detail)
        refused = [(file, landing.put_away(rails.settings, source, file, reason, night)) for file, reason in refused]
        _tell_mended(rails, source, night, [file for files in loaded.values() for file in files])
        is_first_look = not _has_looked(lake.connection, source, as_of)
        if loaded or is_first_look:

            def work(connection: duckdb.DuckDBPyConnection) -> None:
                for files in loaded.values():
                    append(connection, files[0].table)
                if loaded:
                    _record(connection, loaded, as_of, moment)
                if is_first_look:
                    rows = pd.DataFrame([{"source": source, "available_at": as_of, "ingested_at": moment}])
                    put(connection, INGEST_RUN, {}, rows)

            committed = lake.commit(work, message=f"ingest {source} {night}", fence=fence).snapshot
            snapshot = committed if loaded else None
    finally:
        for name in sifted.fresh:
            lake.connection.execute(f'drop table if exists temp."{_batch(name)}"')

    rows = {name: sum(file.rows for file in files) for name, files in sorted(loaded.items())}
    return IngestSummary(
        source=source,
        night=night,
        files=sum(len(files) for files in loaded.values()),
        rows=sum(rows.values()),
        tables=rows,
        repeated=sifted.repeated,
        quarantined=tuple(RefusedFile(file=_name(file), reason=reason) for file, reason in refused),
        null_available_at=nulls["available_at"],
        null_event_time=nulls["event_time"],
        snapshot=snapshot,
        beyond=nulls[BEYOND],
        holed=nulls[NUL],
        left_alone=sifted.left_alone,
        null_key=nulls["key"],
        erased=sifted.erased,
        repeated_rows=sum(file.repeated for files in loaded.values() for file in files),
        corrections=sum(file.corrections for files in loaded.values() for file in files),
    )


def quarantined(rails: Rails, source: str, night: date) -> tuple[QuarantinedFile, ...]:
    """The files of a source that were put into quarantine in the week up to a night and lie there still, or in the
    landing zone where it did not take them, the oldest first. Whoever deletes one there has done with it."""
    files = _refused(
        rails, night - TOLD + timedelta(days=1), lambda file: file.source == source and file.night <= night
    )
    return tuple(file for file in files if landing.lies(rails.settings, source, file.file))


def quarantined_of(rails: Rails, first: date, last: date) -> tuple[QuarantinedFile, ...]:
    """The files of the active sources that nights in [first, last] had to do without, since they were put into
    quarantine on one of them or were due on one, the oldest first."""

    def was_due(file: QuarantinedFile) -> bool:
        day = contracts.day_of(file.file.rpartition("/")[2])
        due = day + clock.NIGHT if day else file.night
        return file.source in rails.settings.sources and any(first <= night <= last for night in (due, file.night))

    return _refused(rails, None, was_due)


def withdrawn(rails: Rails, source: str) -> dict[str, str]:
    """SHA-256 of what was withdrawn of a source → by whom and why, in words."""
    return {
        str(event.detail["sha256"]): f"{event.detail['by']} has withdrawn it ({event.detail['reason']})"
        for event in rails.ledger.events(kind=TAKEN_BACK)
        if event.detail.get("source") == source
    }


def _refused(
    rails: Rails, since: date | None, wanted: Callable[[QuarantinedFile], bool]
) -> tuple[QuarantinedFile, ...]:
    """The files that were put into quarantine since a night, those that are wanted, each once."""
    files = [
        QuarantinedFile.from_json({**event.detail, "night": event.night.isoformat()})
        for event in rails.ledger.events(kind=QUARANTINED, since=since)
        if event.night is not None
    ]
    refused = {(file.source, file.file): file for file in files if wanted(file)}
    for event in rails.ledger.events(kind=MENDED, since=since) if refused else ():
        key = str(event.detail["source"]), str(event.detail["file"])
        if event.night is not None and key in refused and refused[key].night <= event.night:
            del refused[key]
    for mended in _landed_since(rails, refused.values()):
        del refused[mended]
    return tuple(refused.values())


def _tell_mended(rails: Rails, source: str, night: date, files: Sequence[LandingFile]) -> None:
    """Put down which of these files, which land now, had been refused before. Who is killed before they have landed
    tells it again, or has them refused again, later."""
    refused = {event.detail.get("file") for event in rails.ledger.events(kind=QUARANTINED) if files}
    for name in sorted({*map(_name, files)} & {name for name in refused if isinstance(name, str)}):
        rails.ledger.add_event(MENDED, "", night, {"source": source, "file": name})


def _landed_since(rails: Rails, files: Collection[QuarantinedFile]) -> set[tuple[str, str]]:
    """(source, table and file) of those of the files that were mended and have landed under their name since."""
    if (
        not files or not rails.lake.is_open or not rails.lake.has(LANDED_FILE)
    ):  # of a home from before there were events
        return set()
    rows = rails.lake.connection.execute(
        f"select source, table_name || '/' || file, max(landed_night) from {identifier(LANDED_FILE)} "
        "where list_contains($sources, source) and list_contains($files, table_name || '/' || file) group by all",
        {"sources": sorted({file.source for file in files}), "files": sorted({file.file for file in files})},
    ).fetchall()
    landed = {(source, name): night for source, name, night in rows}
    return {key for file in files if (key := (file.source, file.file)) in landed and landed[key] >= file.night}


def _name(file: LandingFile) -> str:
    """Table and file, of bytes that are no UTF-8 as JSON can carry them."""
    return landing.printable(Path(file.path.parent.name, file.path.name))


def _same_types(lake: Lake, table: TableContract) -> None:
    """Raises BadInput where the contract gives a column another type than its raw table has: DuckDB would cast what
    comes, and round a 2.5 to 2 without a word."""
    present = lake.columns(table.raw)
    for name, kind in table.columns.items():
        if present[name] != kind:
            raise BadInput(
                f"{table.raw}: the contract makes column '{name}' {kind}, and the rows that have landed have it as "
                f"{present[name]}; give it another name in the contract of {table.source}, or its old type."
            )


def _stamp(connection: duckdb.DuckDBPyConnection, source: str, now: datetime) -> datetime:
    """When a load is written: now, and never before the source's newest load. What is made of raw rows is told by
    their stamps which of them are new, and a clock may run behind the one of the worker that loaded last."""
    stamps: list[datetime] = [now]
    for table in (LANDED_FILE, INGEST_RUN):
        query = f"select max(ingested_at) from {identifier(table)} where source = ?"
        if (row := connection.execute(query, [source]).fetchone()) and row[0]:
            stamps.append(row[0] + timedelta(microseconds=1))
    if max(stamps) - now > CLOCKS_DIFFER:
        log.warning(
            "%s: the clock of this machine is at %s, and what was loaded last at %s: it is behind, or "
            "that machine's was ahead; set it. No row is lost by it: they are stamped after those.",
            source, f"{now:%Y-%m-%d %H:%M} UTC", f"{max(stamps):%Y-%m-%d %H:%M} UTC",
        )  # fmt: skip
    return max(stamps)


def newest_delivery(rails: Rails, source: str, until: date = date.max) -> date | None:
    """The day of the newest delivery of a source that has landed, up to a day; None where none has."""
    if not rails.lake.has(LANDED_FILE):
        return None
    query = f"select max(left(file, 10)) from {identifier(LANDED_FILE)} where source = ? and left(file, 10) <= ?"
    row = rails.lake.connection.execute(query, [source, str(until)]).fetchone()
    return contracts.day_of(f"{row[0]}.csv") if row and row[0] else None


def newest_here(rails: Rails, source: str, until: date = date.max) -> date | None:
    """The day of a source's newest delivery that has landed, or lies in the landing zone; None where there is none, up
    to a day."""
    lying = (contracts.day_of(path.name) for path in (rails.settings.landing / source).glob("*/*"))
    days = [day for day in (newest_delivery(rails, source, until), *lying) if day and day <= until]
    return max(days, default=None)


def delivered_until(rails: Rails, source: str) -> datetime | None:
    """When the newest delivery of a source that has landed was due; None where none has."""
    if not rails.lake.has(LANDED_FILE):
        return None
    landed = identifier(LANDED_FILE)
    query = (
        f"select distinct left(file, 13) from {landed} where source = $source "
        f"and left(file, 10) = (select max(left(file, 10)) from {landed} where source = $source)"
    )
    names = rails.lake.connection.execute(query, {"source": source}).fetchall()
    return max((contracts.due(f"{name}.csv") for (name,) in names), default=None)


def has_delivered(until: datetime | None, as_of: datetime, every: timedelta = clock.NIGHT) -> bool:
    """Whether a source that has `delivered_until` then has delivered for the night that closes at `as_of`; one that
    delivers more often, for the last part of it, or for its hour."""
    return until is not None and until > as_of - every


@dataclass
class _Sifted:
    """The files that are due."""

    fresh: dict[str, list[LandingFile]] = field(default_factory=lambda: defaultdict(list))
    """Table → its files that have not landed yet."""
    refused: list[tuple[LandingFile, str]] = field(default_factory=list)
    """Files that cannot land, each with the reason."""
    repeated: int = 0
    """Number of files that came again."""
    left_alone: tuple[str, ...] = ()
    """What is no delivery, a sentence each."""
    erased: int = 0
    """Number of rows that were taken out of their files, since they are of those who were erased."""


def _sift(rails: Rails, contract: SourceContract, as_of: datetime) -> _Sifted:
    """Inspect every due file that has not landed yet under its name, size and time of change."""
    sifted, history, left = _Sifted(), _history(rails.lake.connection, contract.name), landing.LeftAlone()
    taken_back, of_erased = withdrawn(rails, contract.name), OfErased.of(rails)
    for path, table, complaint in landing.due_files(rails.settings, contract, as_of, left):
        try:
            file = LandingFile.of(path, table)
            before = history.get(path.parent.name, _History())
            if complaint is None and file.stat in before.stats:
                continue
            if table is not None and (count := of_erased.rows(rails.lake.connection, file, take=True)):
                sifted.erased += count
                file = LandingFile.of(path, table)
            file.sha256 = landing.digest(path)
        except FileNotFoundError:  # gone since it was listed: another run has put it away
            continue
        except OSError as error:
            left.add(path, f"cannot be read ({error.strerror})")
            continue
        if complaint is not None:
            sifted.refused.append((file, complaint))
            continue
        file.inspect(rails.lake.connection)
        fresh = sifted.fresh[file.table.name]
        if file.reason is not None:
            sifted.refused.append((file, file.reason))
        elif before.files.get(path.name) == file.sha256:  # only touched
            continue
        elif file.sha256 in taken_back:
            why = f"{taken_back[file.sha256]}; where that was wrong, tiltyard replace {contract.name} FILE takes it"
            sifted.refused.append((file, why))
        elif file.has_rows and file.sha256 in before.digests:
            sifted.repeated += 1
        elif path.name in before.files:
            reason = (
                "a file of this name has landed before with other content; where it is the mended one, tiltyard "
                f"replace {contract.name} FILE takes it in place of that"
            )
            sifted.refused.append((file, reason))
        elif file.has_rows and file.sha256 in {earlier.sha256 for earlier in fresh}:
            sifted.repeated += 1
        else:
            fresh.append(file)
    sifted.fresh = {name: files for name, files in sifted.fresh.items() if files}
    is_first = contract.name not in rails.settings.sources[1:]  # of several, one tells what belongs to none
    sifted.left_alone = (*left.sentences, *(landing.strangers(rails.settings) if is_first else ()))
    return sifted


@dataclass(frozen=True)
class OfErased:
    """What tells the rows of those who were erased."""

    erased: Tombstones
    columns: Mapping[str, Sequence[tuple[str, str]]]
    """Raw table → (entity, column) of each that it holds."""

    @classmethod
    def of(cls, rails: Rails) -> "OfErased":
        """As the ledger and the texts in force say. Raises BadInput where the key of the tombstones is gone."""
        erased = rails.tombstones()
        return cls(erased, whose.raw_columns(rails.settings, erased.entities) if erased.entities else {})

    def rows(self, connection: duckdb.DuckDBPyConnection, file: LandingFile, *, take: bool = False) -> int:
        """How many rows of a file are theirs; with `take` they are taken out of it. None of one that cannot be read,
        which goes to quarantine as every other."""
        rows = 0
        for entity, column in self.columns.get(file.table.raw, ()):
            try:
                own = without_rows.without(
                    connection, file.path, file.table, [column], partial(self.erased.among, entity)
                )
            except (duckdb.Error, EOFError, UnicodeError, csv.Error):
                return rows
            if own is not None:
                rows += own.rows
                if take:
                    without_rows.put(file.path, own.content)
        return rows


@dataclass
class _History:
    """What of one table has landed before."""

    files: dict[str, str] = field(default_factory=dict)
    """Name → SHA-256."""
    digests: set[str] = field(default_factory=set)
    """SHA-256 of the files with rows. Those without are left out: two quiet days deliver the same bytes."""
    stats: set[tuple[str, int, int]] = field(default_factory=set)
    """Name, size in bytes and time of change in nanoseconds, as in LandingFile.stat."""


def _history(connection: duckdb.DuckDBPyConnection, source: str) -> dict[str, _History]:
    """Table → what of it has landed before."""
    history: dict[str, _History] = defaultdict(_History)
    rows = connection.execute(
        f"select table_name, file, sha256, rows, bytes, modified_ns from {identifier(LANDED_FILE)} where source = ?",
        [source],
    ).fetchall()
    for table, file, sha256, count, size, modified in rows:
        history[table].files[file] = sha256
        if count:
            history[table].digests.add(sha256)
        history[table].stats.add((file, size, modified))
    return dict(history)


def _has_looked(connection: duckdb.DuckDBPyConnection, source: str, as_of: datetime) -> bool:
    query = f"select 1 from {identifier(INGEST_RUN)} where source = ? and available_at = ?"
    return connection.execute(query, [source, as_of]).fetchone() is not None


# -- rows -------------------------------------------------------------------------------------


def _stage(
    connection: duckdb.DuckDBPyConnection, files: Sequence[LandingFile], stamps: Mapping[str, str]
) -> tuple[list[LandingFile], list[tuple[LandingFile, str]]]:
    """Read all rows of one table's files into a temporary table; returns the good files, and the bad with reasons.

    All files of a shape are read in one pass. Only when that fails are they read one by one, to name the bad.
    """
    table = files[0].table
    connection.execute(f'drop table if exists temp."{_batch(table.name)}"')
    body = ", ".join(
        f'"{name}" {kind}' for name, kind in {**table.raw_columns, BEYOND: "INTEGER", NUL: "INTEGER"}.items()
    )
    connection.execute(f'create temp table "{_batch(table.name)}" ({body})')
    good: list[LandingFile] = []
    bad: list[tuple[LandingFile, str]] = []
    shapes: dict[tuple[bool, tuple[str, ...]], list[LandingFile]] = defaultdict(list)
    for file in files:
        shapes[file.is_parquet, file.header].append(file)
    for alike in shapes.values():
        try:
            _read(connection, alike, stamps)
            good += alike
        except (duckdb.Error, UnicodeError):
            for file in alike:
                try:
                    _read(connection, [file], stamps)
                    good.append(file)
                except (duckdb.Error, UnicodeError) as error:
                    bad.append((file, f"its rows cannot be read ({landing.first_line(error)})"))
    return good, bad


def _unchanged(connection: duckdb.DuckDBPyConnection, table: str, files: Sequence[LandingFile]) -> list[LandingFile]:
    """The staged files that are still those that were inspected. What was replaced meanwhile is taken out again, and
    is looked at anew with the next load."""
    same = []
    for file in files:
        try:
            is_same = LandingFile.of(file.path, file.contract).stat == file.stat
        except FileNotFoundError:
            is_same = False
        if is_same:
            same.append(file)
        else:
            log.warning("%s was changed while it was read; it lands with the next look.", _name(file))
            connection.execute(f'delete from temp."{_batch(table)}" where source_file = ?', [file.path.name])
    return same


def _read(connection: duckdb.DuckDBPyConnection, files: Sequence[LandingFile], stamps: Mapping[str, str]) -> None:
    """Append the rows of files of one shape to the temporary table: all of them, or none and a duckdb.Error.

    Row numbers count from 1 in each file. A time that cannot be read is NULL, and fails closed downstream.
    """
    table = files[0].table
    values = {name: quoted(name) for name in (*table.columns, "event_time", "available_at", BEYOND, NUL)}
    values |= {**stamps, "source_file": NAME, "row_number": LINE}
    columns = ", ".join(quoted(name) for name in values)
    with landing.in_utf8(files) as paths:
        connection.execute(
            f'insert into temp."{_batch(table.name)}" ({columns}) select {", ".join(values.values())} '
            f"from ({delivery_rows.sql(files, paths, stamps['ingested_at'])})"
        )


def _count(
    connection: duckdb.DuckDBPyConnection, table: str, files: Iterable[LandingFile], key: str | None
) -> Counter[str]:
    """Set `rows` of every staged file; returns how many rows have no `available_at`, no `event_time`, and no `key`, and
    of how many values the instant is BEYOND, or a NUL was taken out."""
    keyless = f"count(*) - count({quoted(key)})" if key else "0"
    counts = connection.execute(
        "select source_file, count(*), count(*) - count(available_at), count(*) - count(event_time), "
        f"{keyless}, sum({BEYOND})::bigint, sum({NUL})::bigint "
        f'from temp."{_batch(table)}" group by all'
    ).fetchall()
    rows = {name: count for name, count, *_ in counts}
    for file in files:
        file.rows = rows.get(file.path.name, 0)
    names = ("available_at", "event_time", "key", BEYOND, NUL)
    return Counter({name: sum(count[place] for count in counts) for place, name in enumerate(names, start=2)})


def stamp(rails: Rails, source: str) -> datetime:
    """When a load of a source is written that begins now."""
    return _stamp(rails.lake.connection, source, clock.now())


def staged(rails: Rails, file: LandingFile, stamps: Mapping[str, str]) -> int:
    """Read the rows of one file for `append`, and return their number. Raises BadInput where they cannot be read."""
    rails.lake.ensure(Table(file.table.raw, file.table.raw_columns))
    good, bad = _stage(rails.lake.connection, [file], stamps)
    if bad:
        raise BadInput(f"{file.path} cannot be taken: {bad[0][1]}. Nothing was replaced.")
    came = repeats.sift(rails.lake.connection, file.table, f'temp."{_batch(file.table.name)}"', but_of=[file.path.name])
    if came.refused:
        raise BadInput(f"{file.path} cannot be taken: {came.refused[file.path.name]}. Nothing was replaced.")
    _count(rails.lake.connection, file.table.name, good, None)
    return file.rows


def append(connection: duckdb.DuckDBPyConnection, table: TableContract) -> None:
    """Move the staged rows of a table to its raw table."""
    names = ", ".join(f'"{name}"' for name in table.raw_columns)
    connection.execute(f'insert into {identifier(table.raw)} ({names}) select {names} from temp."{_batch(table.name)}"')


def _record(
    connection: duckdb.DuckDBPyConnection,
    loaded: Mapping[str, Sequence[LandingFile]],
    as_of: datetime,
    moment: datetime,
) -> None:
    """Write down which files have landed, in the transaction that lands them."""
    rows = [
        {
            "source": file.table.source,
            "table_name": table,
            "file": file.path.name,
            "sha256": file.sha256,
            "rows": file.rows,
            "repeated": file.repeated,
            "corrections": file.corrections,
            "bytes": file.stat[1],
            "modified_ns": file.stat[2],
            "landed_night": night_of(as_of),
            "available_at": as_of,
            "ingested_at": moment,
        }
        for table, files in loaded.items()
        for file in files
    ]
    put(connection, LANDED_FILE, {}, pd.DataFrame(rows))


def _batch(table: str) -> str:
    """Name of the temporary table that a table's rows are staged in."""
    return f"_batch_{table}"
