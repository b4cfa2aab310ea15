"""The request log in the lake: every answer given online, exactly once.

The service spools its records (`serve.spool`); `deliver` brings what is sealed, and what dead processes left, into
ops.request and ops.request_shadow. The segment's name goes into ops.request_segment in the same commit, and its file is
removed afterwards: whoever finds a file whose name is in the table only removes it. One process delivers at a time.

`available_at` of a request is its prediction time, so that a reader of a night sees all that was asked for in it,
however late it was delivered; `scored_at` is by the service's clock.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import orjson
import pandas as pd

from tiltyard import clock, lake
from tiltyard.answered.report import LogDelivery, RequestNight
from tiltyard.rails import Rails
from tiltyard.serve import spool
from tiltyard.spec import load_all
from tiltyard.tables import REQUEST, REQUEST_SEGMENT, REQUEST_SHADOW, Table
from tiltyard.tombstones import Tombstones, normal
from tiltyard.words import counted

log = logging.getLogger(__name__)

WRITTEN = (REQUEST, REQUEST_SHADOW, REQUEST_SEGMENT)
"""The tables that a delivery writes in one commit."""
DAMAGED = "damaged"
"""Folder within the spool for segments that a person should look at."""
NOT_EMPTIED = "spool_not_emptied"
"""Kind of the ledger's event for files that were delivered and could not be taken away."""
MANY = 100
"""Number of a table's files from which on they are merged."""
BATCH = 8
"""Number of segments in one commit: 64 MiB of records at most, as serving writes them."""


class RequestRow(NamedTuple):
    """A row of ops.request; the fields are its columns."""

    request_id: str
    row: int
    model: str
    arm: str
    version: int | None
    tier: str
    reason: str
    score: float
    scores: str | None
    entity_id: str | None
    prediction_time: datetime
    scored_at: datetime
    latency_us: int
    snapshot: int | None
    features: str
    given: str
    views: str
    key: str | None
    night: date
    available_at: datetime


class ShadowRow(NamedTuple):
    """A row of ops.request_shadow; the fields are its columns."""

    request_id: str
    row: int
    model: str
    version: int
    score: float
    scores: str | None
    scored_at: datetime
    available_at: datetime


class SegmentRow(NamedTuple):
    """A row of ops.request_segment; the fields are its columns."""

    segment: str
    boot: str
    requests: int
    shadow: int
    unreadable: int
    lost: int
    is_damaged: bool
    bytes: int
    available_at: datetime


# -- delivery -----------------------------------------------------------------------------------


@dataclass
class _Batch:
    """What one commit brings."""

    requests: list[RequestRow] = field(default_factory=list)
    shadows: list[ShadowRow] = field(default_factory=list)
    segments: list[SegmentRow] = field(default_factory=list)

    def frames(self) -> dict[Table, pd.DataFrame]:
        """Table → its rows, as the lake takes them."""
        rows = ((REQUEST, self.requests), (REQUEST_SHADOW, self.shadows), (REQUEST_SEGMENT, self.segments))
        return {table: typed(of_table, table) for table, of_table in rows}


def deliver(rails: Rails) -> LogDelivery:
    """Bring the spool into the lake.

    Safe to be killed anywhere, to run twice, and to run twice at once (the second waits for the first). A segment that
    is damaged, or has records that are none of ours, is moved to spool/damaged after all that can be read of it was
    delivered. A file that cannot be taken away, as on a disk that is read-only, stays where it is, which is an event:
    it has been delivered, and is not delivered again.
    """
    folder, total = rails.settings.spool, LogDelivery()
    stuck: list[OSError] = []
    if not folder.is_dir() or not any(folder.iterdir()):
        return total
    for table in WRITTEN:
        rails.lake.ensure(table)
    with rails.lake.exclusive("requests"):
        counts = spool.boots(folder)  # read before the segments are listed, so that these processes add no more
        paths = spool.segments(folder)
        for start in range(0, len(paths), BATCH):
            total = _plus(total, _deliver(rails, paths[start : start + BATCH], stuck))
        total = _plus(total, _account(rails, folder, counts, stuck))
        if total.segments:
            _tidy(rails)
    if stuck:
        why = stuck[0].strerror
        reason = f"{folder} cannot be emptied ({why}); mend the folder, then run tiltyard requests deliver."
        log.warning("%s", reason)
        if total.segments:  # told with what is new, and not by every model of the night
            rails.ledger.add_event(NOT_EMPTIED, "", None, {"reason": reason, "files": len(stuck)})
    if total.lost or total.unreadable or total.damaged:
        rails.ledger.add_event("requests_lost", "", None, total.to_json())
    return total


def _deliver(rails: Rails, paths: Sequence[Path], stuck: list[OSError]) -> list[SegmentRow]:
    """Commit the segments that are not in the lake, with their names, then remove the files; why files could not be
    removed is added to `stuck`. Returns what was added."""
    fence = rails.ledger.claim("requests")
    is_suspect = _delivered(rails, [path.stem for path in paths])
    batch = _Batch()
    erased = rails.tombstones()
    for path in paths:
        if path.stem not in is_suspect:
            with suppress(FileNotFoundError):  # it was sealed since it was listed, and the next delivery takes it
                _read(path, batch)
    if batch.segments:
        if erased.entities:
            _leave_out(rails, batch, erased)
        frames = batch.frames()

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            for table, frame in frames.items():
                lake.put(connection, table, {}, frame)

        rails.lake.commit(write, message=f"requests, {len(batch.segments)} segments", fence=fence)
    is_suspect |= {row.segment: row.is_damaged or row.unreadable > 0 for row in batch.segments}
    for path in paths:
        if path.stem in is_suspect:
            try:
                _remove(path, keep=is_suspect[path.stem])
            except OSError as error:
                stuck.append(error)
    return batch.segments


def _read(path: Path, batch: _Batch) -> None:
    """Add a segment to the batch. Raises FileNotFoundError."""
    try:
        segment = spool.read(path)
        size = path.stat().st_size
    except FileNotFoundError:
        raise
    except OSError:  # the disk does not give it back
        segment, size = spool.Segment(path.name.split("-", 1)[0], [], 0, 0, is_damaged=True), 0
    requests, shadows, unreadable = len(batch.requests), len(batch.shadows), 0
    for record in segment.records:
        try:
            content = orjson.loads(record)
            kind = content["kind"]
            if kind == "request":
                batch.requests.append(_request(content))
            elif kind == "shadow":
                batch.shadows.append(_shadow(content))
            else:
                unreadable += 1
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            unreadable += 1
    batch.segments.append(
        SegmentRow(
            segment=path.stem,
            boot=segment.boot,
            requests=len(batch.requests) - requests,
            shadow=len(batch.shadows) - shadows,
            unreadable=unreadable,
            lost=segment.lost,
            is_damaged=segment.is_damaged,
            bytes=size,
            available_at=clock.now(),
        )
    )


def _leave_out(rails: Rails, batch: _Batch, erased: Tombstones) -> None:
    """Take what is about those who were erased out of the batch. Its segments count them as what they have read."""
    entity_of = {spec.name: spec.entity for spec in load_all(rails.settings.models)}
    asked = {
        (entity_of[row.model], row.entity_id) for row in batch.requests if row.model in entity_of and row.entity_id
    }
    gone = {
        (entity, value)
        for entity in erased.entities
        for value in erased.among(entity, [value for of, value in asked if of == entity])
    }
    if not gone:
        return
    theirs = {
        (row.request_id, row.row)
        for row in batch.requests
        if (entity_of.get(row.model, ""), normal(row.entity_id or "")) in gone
    }
    batch.requests = [row for row in batch.requests if (row.request_id, row.row) not in theirs]
    batch.shadows = [row for row in batch.shadows if (row.request_id, row.row) not in theirs]
    log.warning("%s of those who were erased: not taken into the log.", counted(len(theirs), "answer"))


def _account(rails: Rails, folder: Path, counts: Mapping[str, int], stuck: list[OSError]) -> list[SegmentRow]:
    """Commit as lost what processes that have ended numbered beyond their segments.

    `counts`: boot → how many records the process numbered. `stuck` as in `_deliver`. Returns what was added.
    """
    if not counts:
        return []
    fence = rails.ledger.claim("requests")
    seen = f"""
        select boot, sum(requests + shadow + unreadable + lost), bool_or(segment = boot || '.lock')
        from {lake.stored(REQUEST_SEGMENT)} where boot in (select unnest(?)) group by boot
    """
    in_lake = {
        boot: (int(records), bool(is_closed))
        for boot, records, is_closed in rails.lake.connection.execute(seen, [list(counts)]).fetchall()
    }
    rows = []
    for boot, count in counts.items():
        records, is_closed = in_lake.get(boot, (0, False))
        if count > records and not is_closed:
            rows.append(
                SegmentRow(
                    segment=f"{boot}{spool.LOCK}",
                    boot=boot,
                    requests=0,
                    shadow=0,
                    unreadable=0,
                    lost=count - records,
                    is_damaged=False,
                    bytes=0,
                    available_at=clock.now(),
                )
            )
    if rows:
        frame = typed(rows, REQUEST_SEGMENT)
        message = f"requests, lost by {len(rows)} processes"
        rails.lake.commit(
            lambda connection: lake.put(connection, REQUEST_SEGMENT, {}, frame), message=message, fence=fence
        )
    for boot in counts:
        try:
            (folder / f"{boot}{spool.LOCK}").unlink(missing_ok=True)
        except OSError as error:
            stuck.append(error)
    return rows


def _tidy(rails: Rails) -> None:
    """Merge the small files that deliveries add to each table. Older snapshots read the same."""
    connection = rails.lake.connection
    for table in WRITTEN:
        schema, name = table.name.split(".")
        files = f"select count(*) from ducklake_list_files('lake', '{name}', schema => '{schema}')"
        if connection.execute(files).fetchall()[0][0] > MANY:
            with suppress(duckdb.TransactionException):  # another process commits, and the next delivery merges
                connection.execute(f"call ducklake_merge_adjacent_files('lake', '{name}', schema => '{schema}')")


def _delivered(rails: Rails, names: Sequence[str]) -> dict[str, bool]:
    """Segment → whether a person should look at it, of those of `names` that are in the lake."""
    sql = (
        f"select segment, is_damaged or unreadable > 0 from {lake.stored(REQUEST_SEGMENT)} "
        "where segment in (select unnest(?))"
    )
    return dict(rails.lake.connection.execute(sql, [list(names)]).fetchall())


def _remove(path: Path, *, keep: bool) -> None:
    if not keep:
        path.unlink(missing_ok=True)
        return
    aside = path.parent / DAMAGED
    aside.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        path.rename(aside / path.name)


def _plus(total: LogDelivery, rows: Sequence[SegmentRow]) -> LogDelivery:
    return LogDelivery(
        segments=total.segments + sum(not row.segment.endswith(spool.LOCK) for row in rows),
        requests=total.requests + sum(row.requests for row in rows),
        shadow=total.shadow + sum(row.shadow for row in rows),
        lost=total.lost + sum(row.lost for row in rows),
        unreadable=total.unreadable + sum(row.unreadable for row in rows),
        damaged=total.damaged + sum(row.is_damaged for row in rows),
    )


# -- looking ------------------------------------------------------------------------------------


def nights(rails: Rails, model: str, as_of: datetime, last: int = 14) -> list[RequestNight]:
    """The `last` nights with requests, the oldest first."""
    if not rails.lake.has(REQUEST):
        return []
    rows = rails.lake.query(
        f"""
        select night, tier, count(*) as requests, list(latency_us) as latencies
        from {{{REQUEST}}} where model = $model group by night, tier
        qualify dense_rank() over (order by night desc) <= $last order by night, tier
        """,
        as_of,
        {"model": model, "last": last},
    )
    result = []
    for night, part in rows.groupby("night", sort=True):
        latencies = pd.Series([value for values in part["latencies"] for value in values], dtype="float64")
        result.append(
            RequestNight(
                night=pd.Timestamp(str(night)).date(),
                requests=int(part["requests"].sum()),
                tiers={str(tier): int(count) for tier, count in zip(part["tier"], part["requests"], strict=True)},
                p50_us=float(latencies.quantile(0.5)),
                p99_us=float(latencies.quantile(0.99)),
            )
        )
    return result


def delivered(rails: Rails) -> LogDelivery:
    """What was delivered so far."""
    if not rails.lake.has(REQUEST_SEGMENT):
        return LogDelivery()
    row = rails.lake.connection.execute(f"""
        select count(*) filter (where not ends_with(segment, '{spool.LOCK}')) as segments,
            coalesce(sum(requests), 0) as requests, coalesce(sum(shadow), 0) as shadow, coalesce(sum(lost), 0) as lost,
            coalesce(sum(unreadable), 0) as unreadable, count(*) filter (where is_damaged) as damaged
        from {lake.stored(REQUEST_SEGMENT)}
    """).df()
    return LogDelivery(**{str(name): int(value) for name, value in row.iloc[0].items()})


# -- records ------------------------------------------------------------------------------------


def _request(content: Mapping[str, Any]) -> RequestRow:
    """A row from a record of the log. Raises KeyError, TypeError or ValueError for any other record."""
    at = _instant(content["prediction_time"])
    features, given, views = content["features"], content["given"], content["views"]
    if not isinstance(features, dict) or not isinstance(given, list) or not isinstance(views, dict):
        raise TypeError("features and views are objects, given is a list")
    if any(isinstance(value, list | dict) for value in features.values()):
        raise TypeError("a feature is a number, a boolean, text or nothing")
    return RequestRow(
        request_id=str(content["request_id"]),
        row=_whole(content["row"], 32),
        model=str(content["model"]),
        arm=str(content["arm"]),
        version=_maybe(content["version"], 32),
        tier=str(content["tier"]),
        reason=str(content["reason"]),
        score=float(content["score"]),
        scores=_shares(content),
        entity_id=_text(content["entity_id"]),
        prediction_time=at,
        scored_at=_instant(content["scored_at"]),
        latency_us=_whole(content["latency_us"], 64),
        snapshot=_maybe(content["snapshot"], 64),
        features=_json(features),
        given=_json(sorted(given)),
        views=_json(views),
        key=_text(content["key"]),
        night=clock.night_covering(at),
        available_at=at,
    )


def _shadow(content: Mapping[str, Any]) -> ShadowRow:
    """The same of a score of a version that did not answer."""
    scored_at = _instant(content["scored_at"])
    score = content["score"]
    return ShadowRow(
        request_id=str(content["request_id"]),
        row=_whole(content["row"], 32),
        model=str(content["model"]),
        version=_whole(content["version"], 32),
        score=float(score) if score is not None else math.nan,
        scores=_shares(content),
        scored_at=scored_at,
        available_at=scored_at,
    )


def _shares(content: Mapping[str, Any]) -> str | None:
    """Class → probability, as JSON; None of a score that is one number. A record from before there were any has
    none."""
    shares = content.get("scores")
    if shares is None:
        return None
    if not isinstance(shares, dict) or not all(isinstance(share, float | int) for share in shares.values()):
        raise TypeError("scores are an object of numbers")
    return _json(shares)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return instant.astimezone(UTC)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _whole(value: Any, bits: int) -> int:
    """A whole number for a column of so many bits.

    Raises ValueError for one that the column cannot hold, which would stop the delivery of all others.
    """
    number = int(value)
    if number.bit_length() >= bits:
        raise ValueError(f"{number} has more than {bits} bits")
    return number


def _maybe(value: Any, bits: int) -> int | None:
    return None if value is None else _whole(value, bits)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


_DTYPES = {"integer": "Int32", "bigint": "Int64", "double": "float64", "boolean": "bool"}
"""Type of a column in the lake → that of a frame's column, where pandas would choose another one."""


def typed(rows: Sequence[tuple[object, ...]], table: Table) -> pd.DataFrame:
    """Rows, each in the order of the table's columns, as the lake takes them."""
    columns = table.columns
    frame = pd.DataFrame(list(rows), columns=list(columns))
    frame = frame.astype({name: _DTYPES[kind] for name, kind in columns.items() if kind in _DTYPES})
    for name, kind in columns.items():
        if kind == "timestamptz":
            frame[name] = pd.to_datetime(frame[name], utc=True)
        elif kind == "varchar":
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame
