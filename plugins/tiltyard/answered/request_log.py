"""The request log in the lake: every answer given online, exactly once.

The service spools its records (`spool`); `deliver` brings what is sealed, and what dead processes left, into
ops.request and ops.request_shadow. The segment's name goes into ops.request_segment in the same commit, and the file
goes after it: whoever finds a file whose name is there only removes it. One delivers at a time.

`available_at` of a request is its prediction time, so that a reader of a night sees what was asked for in it, however
late it was delivered; `scored_at` is the service's clock.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from tiltyard import clock, lake
from tiltyard.rails import Rails
from tiltyard.serve import spool
from tiltyard.tables import REQUEST, REQUEST_SEGMENT, REQUEST_SHADOW, Table

WRITTEN = (REQUEST, REQUEST_SHADOW, REQUEST_SEGMENT)
"""The tables that a delivery writes in one commit."""
DAMAGED = "damaged"
"""The folder, within the spool, of segments that a person should look at."""
MANY = 100
"""Files of a table, from which on they are merged."""
BATCH = 8
"""Segments in one commit: 64 MiB of records at most, as serving writes them."""


# -- delivery -----------------------------------------------------------------------------------


@dataclass
class _Batch:
    rows: dict[Table, list[dict[str, Any]]] = field(default_factory=lambda: {table: [] for table in WRITTEN})


def deliver(rails: Rails) -> dict[str, int]:
    """Bring the spool into the lake: counts of segments, requests, shadow scores, lost, unreadable and damaged.

    Safe to be killed anywhere, to run twice, and to run twice at once (the second waits for the first). A segment that
    is damaged, or holds what is no record, is kept in spool/damaged after all that can be read of it was delivered.
    """
    folder = rails.settings.spool
    total = dict.fromkeys(("segments", "requests", "shadow", "lost", "unreadable", "damaged"), 0)
    if not folder.is_dir() or not any(folder.iterdir()):
        return total
    for table in WRITTEN:
        rails.lake.ensure(table)
    with rails.lake.exclusive("requests"):
        gone = spool.boots(folder)  # before the segments: of these processes no more will come
        paths = spool.segments(folder)
        for start in range(0, len(paths), BATCH):
            _add(total, _deliver(rails, paths[start : start + BATCH]))
        _add(total, _account(rails, folder, gone))
        if total["segments"]:
            _tidy(rails)
    if total["lost"] or total["unreadable"] or total["damaged"]:
        rails.ledger.add_event("requests_lost", "", None, dict(total))
    return total


def _deliver(rails: Rails, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """One commit: the segments that are not in the lake, and their names. Then the files go.

    Returns the rows of ops.request_segment that were written.
    """
    fence = rails.ledger.claim("requests")
    names = _delivered(rails, [path.stem for path in paths])
    batch = _Batch()
    for path in paths:
        if path.stem not in names:
            with suppress(FileNotFoundError):  # sealed since it was listed: the next delivery's
                _read(path, batch)
    if batch.rows[REQUEST_SEGMENT]:
        frames = {table: typed(rows, table) for table, rows in batch.rows.items()}

        def write(connection: Any) -> None:
            for table, frame in frames.items():
                lake.put(connection, table, {}, frame)

        rails.lake.commit(write, message=f"requests, {len(batch.rows[REQUEST_SEGMENT])} segments", fence=fence)
    delivered = {row["segment"]: row for row in batch.rows[REQUEST_SEGMENT]}
    names |= {name: row["is_damaged"] or row["unreadable"] > 0 for name, row in delivered.items()}
    for path in paths:
        if path.stem in names:
            _remove(path, keep=names[path.stem])
    return list(delivered.values())


def _read(path: Path, batch: _Batch) -> None:
    import orjson

    try:
        found = spool.read(path)
        size = path.stat().st_size
    except FileNotFoundError:
        raise
    except OSError:  # the disk does not give it back
        found, size = spool.Segment(path.name.split("-", 1)[0], [], 0, 0, is_damaged=True), 0
    counts = {"requests": 0, "shadow": 0, "unreadable": 0}
    now = clock.now()
    for record in found.records:
        try:
            content = orjson.loads(record)
            kind = content["kind"]
            if kind == "request":
                batch.rows[REQUEST].append(_request(content))
                counts["requests"] += 1
            elif kind == "shadow":
                batch.rows[REQUEST_SHADOW].append(_shadow(content))
                counts["shadow"] += 1
            else:
                counts["unreadable"] += 1
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            counts["unreadable"] += 1
    batch.rows[REQUEST_SEGMENT].append(
        {
            "segment": path.stem,
            "boot": found.boot,
            **counts,
            "lost": found.lost,
            "is_damaged": found.is_damaged,
            "bytes": size,
            "available_at": now,
        }
    )


def _account(rails: Rails, folder: Path, gone: dict[str, int]) -> list[dict[str, Any]]:
    """Of every process that has gone, what it numbered beyond its segments: lost after the last one, or with one."""
    if not gone:
        return []
    fence = rails.ledger.claim("requests")
    seen = f"""
        select boot, sum(requests + shadow + unreadable + lost), bool_or(segment = boot || '.lock')
        from {lake.stored(REQUEST_SEGMENT)} where boot in (select unnest(?)) group by boot
    """
    known = {boot: rest for boot, *rest in rails.lake.connection.execute(seen, [list(gone)]).fetchall()}
    rows = []
    for boot, said in gone.items():
        accounted, is_closed = known.get(boot, (0, False))
        if said > accounted and not is_closed:
            nothing = {"requests": 0, "shadow": 0, "unreadable": 0, "is_damaged": False, "bytes": 0}
            missing = {"segment": f"{boot}.lock", "boot": boot, "lost": said - int(accounted)}
            rows.append(nothing | missing | {"available_at": clock.now()})
    if rows:
        frame = typed(rows, REQUEST_SEGMENT)
        message = f"requests, lost by {len(rows)} processes"
        rails.lake.commit(
            lambda connection: lake.put(connection, REQUEST_SEGMENT, {}, frame), message=message, fence=fence
        )
    for boot in gone:
        (folder / f"{boot}{spool.LOCK}").unlink(missing_ok=True)
    return rows


def _tidy(rails: Rails) -> None:
    """Every delivery adds a small file to each table: many of them become one. Older snapshots read the same."""
    connection = rails.lake.connection
    for table in WRITTEN:
        schema, name = table.name.split(".")
        files = f"select count(*) from ducklake_list_files('lake', '{name}', schema => '{schema}')"
        if connection.execute(files).fetchall()[0][0] > MANY:
            with suppress(duckdb.TransactionException):  # somebody else commits: the next delivery's turn
                connection.execute(f"call ducklake_merge_adjacent_files('lake', '{name}', schema => '{schema}')")


def _delivered(rails: Rails, names: Sequence[str]) -> dict[str, bool]:
    """segment → is it one to keep, of those of `names` that are in the lake."""
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


def _add(total: dict[str, int], rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        total["segments"] += not row["segment"].endswith(spool.LOCK)
        total["damaged"] += bool(row["is_damaged"])
        for name in ("requests", "shadow", "lost", "unreadable"):
            total[name] += row[name]


# -- looking ----


def nights(rails: Rails, model: str, as_of: datetime, last: int = 14) -> list[dict[str, Any]]:
    """The `last` nights with requests, oldest first: night, requests, tiers (tier → answers), p50_us, p99_us."""
    if not rails.lake.has(REQUEST):
        return []
    rows = rails.lake.query(
        f"""
        select night, tier, count(*) as requests, list(latency_us) as took
        from {{{REQUEST}}} where model = $model group by night, tier
        qualify dense_rank() over (order by night desc) <= $last order by night, tier
        """,
        as_of,
        {"model": model, "last": last},
    )
    found = []
    for night, part in rows.groupby("night", sort=True):
        took = pd.Series([value for values in part["took"] for value in values], dtype="float64")
        tiers = {str(row.tier): int(row.requests) for row in part.itertuples()}
        p50, p99 = (float(took.quantile(at)) for at in (0.5, 0.99))
        counted = {"night": str(night.date()), "requests": int(part["requests"].sum()), "tiers": tiers}
        found.append(counted | {"p50_us": p50, "p99_us": p99})
    return found


def delivered(rails: Rails) -> dict[str, int]:
    """What was delivered so far, of all models: segments, requests, shadow, lost, unreadable, damaged."""
    if not rails.lake.has(REQUEST_SEGMENT):
        return {}
    row = rails.lake.connection.execute(f"""
        select count(*) filter (where not ends_with(segment, '{spool.LOCK}')) as segments,
            coalesce(sum(requests), 0) as requests, coalesce(sum(shadow), 0) as shadow, coalesce(sum(lost), 0) as lost,
            coalesce(sum(unreadable), 0) as unreadable, count(*) filter (where is_damaged) as damaged
        from {lake.stored(REQUEST_SEGMENT)}
    """).df()
    return {str(name): int(value) for name, value in row.iloc[0].items()}


# -- records ------------------------------------------------------------------------------------


def _request(content: dict[str, Any]) -> dict[str, Any]:
    """A row of ops.request. Raises KeyError, TypeError or ValueError for what is no such record."""
    at = _instant(content["prediction_time"])
    features, given, views = content["features"], content["given"], content["views"]
    if not isinstance(features, dict) or not isinstance(given, list) or not isinstance(views, dict):
        raise TypeError("features and views are objects, given is a list")
    if any(isinstance(value, list | dict) for value in features.values()):
        raise TypeError("a feature is a number, a boolean, text or nothing")
    return {
        **_asked(content),
        "arm": str(content["arm"]),
        "version": _maybe(content["version"], 32),
        "tier": str(content["tier"]),
        "reason": str(content["reason"]),
        "score": float(content["score"]),
        "entity_id": _text(content["entity_id"]),
        "prediction_time": at,
        "scored_at": _instant(content["scored_at"]),
        "latency_us": _whole(content["latency_us"], 64),
        "snapshot": _maybe(content["snapshot"], 64),
        "features": _json(features),
        "given": _json(sorted(given)),
        "views": _json(views),
        "key": _text(content["key"]),
        "night": clock.night_covering(at),
        "available_at": at,
    }


def _shadow(content: dict[str, Any]) -> dict[str, Any]:
    scored_at = _instant(content["scored_at"])
    score = content["score"]
    return {
        **_asked(content),
        "version": _whole(content["version"], 32),
        "score": float(score) if score is not None else math.nan,
        "scored_at": scored_at,
        "available_at": scored_at,
    }


def _asked(content: dict[str, Any]) -> dict[str, Any]:
    row = _whole(content["row"], 32)
    return {"request_id": str(content["request_id"]), "row": row, "model": str(content["model"])}


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return instant.astimezone(UTC)


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _whole(value: Any, bits: int) -> int:
    """Raises ValueError for what the column cannot hold: one such record must not stop a delivery."""
    number = int(value)
    if number.bit_length() >= bits:
        raise ValueError(f"{number} has more than {bits} bits")
    return number


def _maybe(value: Any, bits: int) -> int | None:
    return None if value is None else _whole(value, bits)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


_TYPES = {"integer": "Int32", "bigint": "Int64", "double": "float64", "boolean": "bool"}


def typed(rows: Sequence[dict[str, Any]], table: Table) -> pd.DataFrame:
    """`rows` as a table of the lake takes them."""
    columns = table.columns
    frame = pd.DataFrame(list(rows), columns=list(columns))
    frame = frame.astype({name: _TYPES[kind] for name, kind in columns.items() if kind in _TYPES})
    for name, kind in columns.items():
        if kind == "timestamptz":
            frame[name] = pd.to_datetime(frame[name], utc=True)
        elif kind == "varchar":
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame
