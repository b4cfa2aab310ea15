"""The fetch step of a night: what is new at the places that a contract names becomes deliveries in the landing zone.

Everything after it goes on as for files that somebody has laid there: contract, quarantine, ingest, hindcast. It may be
killed at any instant and run again: nothing is lost, and nothing comes twice (`rows`, `files`). A place that is away
makes its own tables late, and is in nobody else's way.
"""

import logging
import re
import tempfile
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path

from tiltyard import clock
from tiltyard.clock import night_of
from tiltyard.errors import Unavailable
from tiltyard.lake import literal, quoted, text
from tiltyard.prepare import contracts, ingest
from tiltyard.prepare.contracts import TableContract
from tiltyard.prepare.fetch import credentials, database, files, rows, stream, topic
from tiltyard.prepare.fetch.credentials import Connection, Lookup
from tiltyard.prepare.fetch.database import Bound, Window
from tiltyard.prepare.places import Fetch
from tiltyard.rails import Rails
from tiltyard.records import FetchedTable

log = logging.getLogger(__name__)

AWAY = "place_away"
"""Kind of the ledger's event for a place that could not be read."""
BACK = "place_back"
"""Kind of the event for one that could be, later in the same night."""
_NUMBERED = re.compile(r"^[0-9a-f]{12}-(?=\d{4}-)")
WAIT_S = 3600.0
"""Seconds that a fetch waits for another one of the same source."""


def fetch_night(
    rails: Rails, source: str, as_of: datetime, lookup: Lookup = credentials.from_environment
) -> tuple[FetchedTable, ...]:
    """Bring what is new of every table of `source` that its contract says a place of; nothing for others.

    What is brought is due as of the night; a table whose place is away says so, and so does one whose rows cannot be
    laid down here, as on a disk that is full or read-only: it is fetched once they can. Raises BadInput for a place
    that refuses, and for a connection that there is not.
    """
    wanted = [table for table in contracts.read(rails.settings, source).tables if table.timing.fetch is not None]
    if not wanted:
        return ()
    done = []
    with rails.lake.exclusive(f"fetch/{source}", WAIT_S):
        missed = away(rails, source, night_of(as_of))
        for table in wanted:
            try:
                fetched = _fetched(rails, table, as_of, lookup)
            except (Unavailable, OSError) as error:
                why = str(error) if isinstance(error, Unavailable) else _unwritten(rails, source, error)
                log.warning("%s: %s", table.raw, why)
                fetched = FetchedTable(table=table.raw, away=why)
            if fetched.away or table.raw in missed:
                detail = {"source": source, "table": table.raw, "reason": fetched.away}
                rails.ledger.add_event(AWAY if fetched.away else BACK, "", night_of(as_of), detail)
            done.append(fetched)
    return tuple(done)


def _unwritten(rails: Rails, source: str, error: OSError) -> str:
    """Why nothing can be laid down of a table, as a sentence."""
    folder = Path(error.filename).parent if error.filename else rails.settings.landing / source
    return f"{folder} takes no files ({error.strerror or error}); make room, or mend the folder."


def away(rails: Rails, source: str, night: date) -> Mapping[str, str]:
    """Raw table of a source → why its place could not be read on a night; only those that could not be at the last
    look."""
    last: dict[str, str | None] = {}
    for event in sorted(
        (*rails.ledger.events(kind=AWAY, since=night), *rails.ledger.events(kind=BACK, since=night)),
        key=lambda each: each.id,
    ):
        if event.night == night and event.detail.get("source") == source:
            last[str(event.detail["table"])] = str(event.detail["reason"]) if event.kind == AWAY else None
    return {table: reason for table, reason in last.items() if reason is not None}


def _fetched(rails: Rails, table: TableContract, as_of: datetime, lookup: Lookup) -> FetchedTable:
    place = table.timing.fetch
    assert place is not None
    connection = credentials.find(place.connection, lookup)
    if place.kind == "files":
        return _files(rails, table, place, as_of, connection)
    folder = rows.folder_of(rails, table)
    with tempfile.TemporaryDirectory(prefix="tiltyard-") as scratch, rows.had(rails, table, folder) as before:
        path = Path(scratch) / "fetched.parquet"
        unusable, since = None, None
        if place.kind == "table":
            since, count = _from_database(rails, table, place, as_of, connection, before, path)
        else:
            count, unusable = _from_messages(rails, table, place, as_of, connection, before, path)
        names, new = rows.deliver(rails, table, path, before, since, as_of) if count else ((), 0)
    return FetchedTable(table=table.raw, files=names, rows=new, unusable=unusable)


def _files(
    rails: Rails, table: TableContract, place: Fetch, as_of: datetime, connection: Connection | None
) -> FetchedTable:
    folder = rows.folder_of(rails, table)
    refused = (
        rails.settings.quarantine / table.source / table.name
    )  # of a second one of a name it has the digest before
    aside = {(_NUMBERED.sub("", path.name), path.stat().st_size) for path in refused.glob("*")}
    with rows.had(rails, table, folder) as before, files.listed(place.address, connection, rails.settings) as found:
        names, undated = files.fetch(found, place.day, as_of, folder, aside | {*before.files.items()})
    for path in undated:
        log.warning("%s: %s has no day like %s in its name; it is left alone", table.raw, path, place.day)
    return FetchedTable(table=table.raw, files=names)


# -- a table of a database --------------------------------------------------------------------


def _from_database(
    rails: Rails, table: TableContract, place: Fetch, as_of: datetime, connection: Connection | None,
    before: rows.Had, path: Path,
) -> tuple[str | None, int]:  # fmt: skip
    """Write what may be new to a Parquet file; returns what is true of those rows fetched before that may be in it, and
    how many rows it has."""
    cursor = place.cursor
    assert cursor is not None
    kind, zone = table.columns[cursor], table.zones.get(cursor, "UTC")
    newest = _newest(rails, f"select max({quoted(cursor)}) from {before.relation}", kind, zone)
    low = None if newest is None else _earlier(newest, place.overlap, kind)
    columns = [table.header(name) for name in table.columns]
    window = Window(table.header(cursor), low, _last(kind, as_of), zone)
    count = database.read(place.address, connection, columns, window, path)
    return (None if low is None else f"{quoted(cursor)} >= {_literal(low, kind, zone)}"), count


def _newest(rails: Rails, query: str, kind: str, zone: str) -> Bound | None:
    """The newest value of a cursor; an instant with its zone."""
    if kind == "TIMESTAMP":
        query = f"select timezone({text(zone)}, newest) from ({query}) as it (newest)"
    row = rails.lake.connection.execute(query).fetchone()
    return row[0] if row else None


def _earlier(newest: Bound, overlap: timedelta | int, kind: str) -> Bound:
    if isinstance(newest, int):
        return newest - (overlap if isinstance(overlap, int) else 0)
    back = overlap if isinstance(overlap, timedelta) else timedelta()
    if kind == "DATE":  # a part of a day is a whole one
        return newest - timedelta(days=-(-back // timedelta(days=1)))
    return newest - back


def _last(kind: str, as_of: datetime) -> Bound | None:
    """The largest value of a cursor that a night asks for; None: any."""
    if kind == "DATE":
        return clock.day_ending(as_of)
    return as_of if kind.startswith("TIMESTAMP") else None


def _literal(value: Bound, kind: str, zone: str) -> str:
    if isinstance(value, datetime):
        instant = literal(value)
        return instant if kind != "TIMESTAMP" else f"timezone({text(zone)}, {instant})"
    return str(value) if isinstance(value, int) else f"date {text(value.isoformat())}"


# -- messages ---------------------------------------------------------------------------------


def _from_messages(
    rails: Rails, table: TableContract, place: Fetch, as_of: datetime, connection: Connection | None,
    before: rows.Had, path: Path,
) -> tuple[int, str | None]:  # fmt: skip
    """Write the new messages to a Parquet file, and aside those that cannot be used; returns how many can, and what
    is to be said of those that cannot."""
    read = path.with_name("messages.parquet")
    fields = [table.header(name) for name in table.columns if name not in place.message_place]
    part, where = map(quoted, place.message_place)
    had = rails.lake.connection.execute
    if place.kind == "stream":  # of numbers of so many digits the longer one is the greater one
        newest = had(f"select {part}, max(lpad({where}, 128, '0')) from {before.relation} group by 1").fetchall()
        after = {shard: sequence.lstrip("0") for shard, sequence in newest}
        count = stream.read(place.address, connection, rails.settings, fields, after, read)
    else:
        following = dict(had(f"select {part}, max({where}) + 1 from {before.relation} group by 1").fetchall())
        count = topic.read(place.address, connection, rails.settings, fields, following, read)
    if not count:
        return 0, None
    bad, reason, aside = rows.set_aside(rails, table, read, path)
    if aside is None:
        return count, None
    said = f"{bad} of {count} messages of {place.address} cannot be used: {reason}"
    detail = {"source": table.source, "file": f"{table.name}/{aside.name}", "reason": said}
    rails.ledger.add_event(ingest.QUARANTINED, "", night_of(as_of), detail)
    return count - bad, f"{said}; they are in {aside}"
