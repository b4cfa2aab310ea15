"""Feature latency: how long after the fact was a row really there?

Three times make it. A source's row *happened* (`event_time`), the source *claims* that it could be known
(`available_at`), and its delivery *was here* (`deliveries`). Of every night it is kept, per source table and per
feature view, how long rows took by the claim and by what was observed (`ops.feature_latency`); `embargo` reads there
what the nights say together.

A row that comes long after it claims to have been known is a *backfill that claims to be old*: no prediction in
between can have seen it. An honest late row has a late `available_at`, and is no such thing.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import duckdb
import pandas as pd

from tiltyard.clock import night_closing
from tiltyard.lake import identifier, literal, put, qualified, stored, text
from tiltyard.leak.rules import RuleResult
from tiltyard.prepare import contracts, deliveries
from tiltyard.prepare.deliveries import DAY, Deliveries, delivered_rows, microseconds
from tiltyard.rails import Rails
from tiltyard.spec import feature_key
from tiltyard.tables import FEATURE_LATENCY, POINTS

GRACE = timedelta(hours=6)
"""How much older than a day a row may be on landing: a delivery brings a day when it has ended, and exports are cut
minutes to hours around midnight."""
FEW_ROWS = 20
"""Number of rows in a night below which nothing is said about a p99."""
BULK_NIGHTS = 7
"""Number of usual deliveries; a backfill of more rows than they have rewrites history."""
_US = 1_000_000
"""Microseconds in a second."""

LatencyKind = Literal["source", "view"]


@dataclass(frozen=True)
class Spread:
    """How long rows took, in seconds."""

    p50: float
    """Median."""
    p95: float
    """95th percentile."""
    p99: float
    """99th percentile."""
    max: float
    """The slowest row."""


@dataclass(frozen=True)
class LateRow:
    """A row of a source that missed nights."""

    file: str
    """File that brought it."""
    row: int
    """Its number in the file, from 1."""
    claimed_at: datetime
    """Its available_at."""
    landed_at: datetime
    """as_of of the night that landed it."""

    def __str__(self) -> str:
        claimed, landed = (f"{instant:%Y-%m-%d %H:%M}" for instant in (self.claimed_at, self.landed_at))
        return f"{self.file} row {self.row} says {claimed}, landed {landed}"


@dataclass(frozen=True)
class Latency:
    """What the rows of one table that came in one night had taken."""

    table: str
    """The table with its schema, like `raw.login` or `features.ftr_ticket__intake`."""
    kind: LatencyKind
    """Whether a source's table or a feature view."""
    rows: int
    """Number of rows that came and carry both times."""
    observed_rows: int
    """Number of those whose delivery the nights themselves observed; the others are taken to have been on time."""
    untimed: int
    """Number of rows of the table's first delivery, which say nothing about it."""
    claimed: Spread | None
    """Spread of available_at - event_time; None without rows."""
    observed: Spread | None
    """Spread of the time of delivery - event_time; None without rows."""
    missed: Mapping[int, int]
    """Nights that passed since the first that could have read a row → number of such rows."""
    promised: timedelta | None
    """What the source promises of 99 in a hundred rows; None without a promise."""
    late_files: tuple[str, ...] = ()
    """Deliveries that a night looked for and did not find."""
    worst: tuple[LateRow, ...] = ()
    """Up to three rows of a source that missed the most nights."""

    @property
    def late(self) -> int:
        """Number of rows that came at least a night after they claim to have been known."""
        return sum(rows for nights, rows in self.missed.items() if nights > 0)

    @property
    def late_share(self) -> float:
        """Share of the rows that are late; 0 without rows."""
        return self.late / self.rows if self.rows else 0.0

    @property
    def over(self) -> float | None:
        """Observed p99 in units of the promise; None without a promise, or with too few rows."""
        if self.promised is None or self.observed is None or self.rows < FEW_ROWS:
            return None
        return self.observed.p99 / self.promised.total_seconds()


# -- measuring ------------------------------------------------------------------------------------


def of_source(
    rails: Rails,
    source: str,
    as_of: datetime,
    snapshot: int | None = None,
    delivered: Mapping[str, Deliveries] | None = None,
) -> dict[str, Latency]:
    """Raw table → latency of the rows that were first here in the night that closes at `as_of`.

    `delivered` is what deliveries.of_source gives, where the caller has it already.
    """
    promises = {table.raw: table.timing.latency for table in contracts.read(rails.settings, source).tables}
    latencies = {}
    for table, own in (delivered or deliveries.of_source(rails, source, as_of)).items():
        promise = promises[table]
        promised = promise.p99 if promise else None
        untimed = own.untimed_rows(as_of - DAY, as_of)
        times = own.between(as_of - DAY, as_of)
        if not times:
            latencies[table] = Latency(table, "source", 0, 0, untimed, None, None, {}, promised)
            continue
        observed = sorted(file for file, time in times.items() if time.basis == "night")
        listed = ", ".join(map(text, observed)) or "''"
        shown = "raw.event_time, raw.available_at, raw.source_file, raw.row_number"
        latencies[table] = _measured(
            rails,
            table,
            "source",
            f"select *, source_file in ({listed}) as is_observed from {delivered_rows(table, times, snapshot, shown)}",
            example="{'file': source_file, 'row': row_number, 'claimed_at': available_at, "
            "'landed_at': make_timestamptz(landed_us)}",
            untimed=untimed,
            promised=promised,
            late_files=own.late(times),
        )
    return latencies


def of_views(
    rails: Rails, views: Iterable[str], as_of: datetime, snapshot: int | None = None, source: str | None = None
) -> dict[str, Latency]:
    """Feature view → latency of the rows that could first be read in the night that closes at `as_of`.

    Those are the rows that became available since the night before, and those that claim an earlier time but were
    not in the view as that night read it: of the rows that a later build wrote, what its snapshot did not hold.
    """
    before = _night_before(rails, as_of, source)
    return {view: _of_view(rails, view, as_of, snapshot, before) for view in views}


def _night_before(rails: Rails, as_of: datetime, source: str | None) -> tuple[datetime, int] | None:
    """as_of and snapshot of the newest earlier night whose features, of the source or of any, were checked."""
    night = night_closing(as_of)
    before = rails.ledger.last_features_run(source, before=night)
    while before is not None and not before.summary.snapshot:
        before = rails.ledger.last_features_run(source, before=before.night)
    return (as_of - (night - before.night), before.summary.snapshot) if before else None


def _of_view(
    rails: Rails, view: str, as_of: datetime, snapshot: int | None, before: tuple[datetime, int] | None
) -> Latency:
    since = before[0] if before else as_of - DAY
    relation = rails.lake.relation(view, as_of, snapshot)
    us = microseconds(as_of)
    built = _newest_build(rails, view, before[1]) if before else None
    observed = f"built_at > {literal(built)}" if built else "false"
    shown = f"event_time, available_at, {us} as landed_us, {us} as delivered_us, {observed} as is_observed"
    rows = f"select {shown} from {relation} where available_at > {literal(since)}"
    if built and before and built != _newest_build(rails, view, snapshot):
        key = feature_key(qualified(view).split(".")[1])
        same = " and ".join(
            f'was."{name}" is not distinct from now."{name}"' for name in (key, "event_time", "available_at")
        )
        rows += f"""
            union all
            select {shown} from {relation} as now
            where available_at <= {literal(since)} and built_at > {literal(built)} and not exists (
                select 1 from {rails.lake.relation(view, since, before[1])} as was where {same}
            )
        """
    return _measured(rails, qualified(view), "view", rows)


def _newest_build(rails: Rails, view: str, snapshot: int | None) -> datetime | None:
    try:
        row = rails.lake.connection.execute(f"select max(built_at) from {stored(view, snapshot)}").fetchone()
    except duckdb.Error:  # the view is younger than that snapshot, or the snapshot has expired
        return None
    return row[0] if row else None


def _measured(
    rails: Rails,
    table: str,
    kind: LatencyKind,
    rows: str,
    *,
    example: str = "null",
    untimed: int = 0,
    promised: timedelta | None = None,
    late_files: tuple[str, ...] = (),
) -> Latency:
    """One pass over `rows`: SQL with event_time, available_at, landed_us, delivered_us and is_observed.

    `example` is the SQL of a struct of LateRow's fields; null where nobody asks for examples.
    """
    points = ", ".join(str(point) for point in POINTS.values())
    day, grace = DAY // timedelta(microseconds=1), GRACE // timedelta(microseconds=1)
    row = rails.lake.connection.execute(
        f"""
        select count(*), count(*) filter (is_observed),
            quantile_cont((epoch_us(available_at) - epoch_us(event_time)) / {_US}, [{points}]),
            quantile_cont((delivered_us - epoch_us(event_time)) / {_US}, [{points}]),
            histogram(missed), max_by(example, missed, 3) filter (missed > 0)
        from (
            select *, {example} as example,
                greatest((landed_us - epoch_us(available_at) - {grace}) // {day}, 0)::integer as missed
            from ({rows}) where event_time is not null and available_at is not null
        )
        """
    ).fetchone()
    assert row is not None
    count, observed_rows, claimed, observed, missed, examples = row
    return Latency(
        table=table,
        kind=kind,
        rows=count,
        observed_rows=observed_rows,
        untimed=untimed,
        claimed=Spread(*claimed) if count else None,
        observed=Spread(*observed) if count else None,
        missed={int(nights): int(rows) for nights, rows in (missed or {}).items()},
        promised=promised,
        late_files=late_files,
        worst=tuple(LateRow(**values) for values in examples or () if values is not None),
    )


# -- keeping --------------------------------------------------------------------------------------


def store(connection: duckdb.DuckDBPyConnection, latencies: Iterable[Latency], as_of: datetime) -> None:
    """Inside a transaction: replace the night's rows of these tables in ops.feature_latency."""
    rows = [_row(latency, as_of) for latency in latencies]
    if rows:
        connection.execute(
            f"delete from {identifier(FEATURE_LATENCY)} where night = $night and list_contains($tables, table_name)",
            {"night": night_closing(as_of), "tables": [row["table_name"] for row in rows]},
        )
        put(connection, FEATURE_LATENCY, {}, pd.DataFrame(rows, columns=list(FEATURE_LATENCY.columns)))


def _row(latency: Latency, as_of: datetime) -> dict[str, object]:
    """A row of ops.feature_latency."""
    spreads: dict[str, float | None] = {}
    for name, spread in (("claimed", latency.claimed), ("observed", latency.observed)):
        for point in POINTS:
            spreads[f"{name}_{point}_s"] = getattr(spread, point) if spread else None
    return {
        "night": night_closing(as_of), "table_name": latency.table, "kind": latency.kind, "rows": latency.rows,
        "observed_rows": latency.observed_rows, "untimed": latency.untimed, **spreads,
        "missed": json.dumps({str(nights): rows for nights, rows in sorted(latency.missed.items())}),
        "promised_p99_s": latency.promised.total_seconds() if latency.promised else None, "available_at": as_of,
    }  # fmt: skip


# -- rules ----------------------------------------------------------------------------------------


def backfills(latencies: Mapping[str, Latency], usual: Mapping[str, float]) -> list[RuleResult]:
    """Two rules on the rows that came in a night, per raw table: none claims to be old, nor do many at once.

    `usual` is the number of rows of each table's median delivery.
    """
    results = []
    for table, latency in latencies.items():
        worst = "; ".join(map(str, latency.worst))
        is_bulk = latency.late > BULK_NIGHTS * usual[table] > 0
        results.append(RuleResult("backfill", table, "available_at", latency.rows, latency.late, worst))
        results.append(
            RuleResult(
                "bulk_backfill", table, "available_at", latency.rows, latency.late * is_bulk, worst if is_bulk else ""
            )
        )
    return results


def backfill_results(rails: Rails, source: str, as_of: datetime, snapshot: int | None) -> list[RuleResult]:
    """Those two rules on what a source delivered for the night that closes at `as_of`; none without a contract."""
    if source not in contracts.sources(rails.settings):
        return []
    delivered = deliveries.of_source(rails, source, as_of)
    latencies = of_source(rails, source, as_of, snapshot, delivered)
    return backfills(latencies, {table: own.usual_rows for table, own in delivered.items()})
