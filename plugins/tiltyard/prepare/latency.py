"""Feature latency: how long after the fact was a row really there, and would a feature have been there in time?

Three times make it. A source's row *happened* (`event_time`), the source *claims* that it could be known
(`available_at`), and its delivery *arrived* (`arrivals`, the one definition). Of every night it is kept, per source
table and per feature view, how long rows took by the claim and by what was observed (`ops.feature_latency`).

The *learned embargo* is what the last nights' arrivals say: by how many nights the slowest hundredth missed the first
night that could have read it. A feature whose row is fresher than that would not have been there when the prediction
was made, and is named before a model learns from it. A row that arrives long after it claims to have been known is a
*backfill that claims to be old*: no prediction in between can have seen it. An honest late row has a late
`available_at`, and is no such thing.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import pandas as pd

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.lake import identifier, literal, put, qualified, stored, text
from tiltyard.leak.rules import RuleResult
from tiltyard.prepare import ingest
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.spec import Spec, feature_key
from tiltyard.tables import FEATURE_LATENCY, INGEST_RUN, LANDED_FILE, POINTS, SPREADS

if TYPE_CHECKING:
    from pathlib import Path

Basis = Literal["night", "delivery", "untimed"]

DAY = timedelta(days=1)
GRACE = timedelta(hours=6)
"""How much older than a day a row may be on landing: a delivery brings a day when it has ended, and exports are cut
minutes to hours around midnight."""
NIGHTS = 28
"""Over so many nights the embargo is learned."""
QUANTILE = 0.99
FEW_ROWS = 20
"""Fewer rows than this in a night say nothing about a p99."""
BULK_NIGHTS = 7
"""A backfill of more rows than so many usual deliveries rewrites history."""
_US = 1_000_000


# -- when a delivery arrived ----------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """One file of one table, as ingest has recorded it."""

    file: str
    landed_by: datetime
    """as_of of the night that landed it."""
    loaded_at: datetime
    """Wall clock of our loader."""
    rows: int = 0


@dataclass(frozen=True)
class Look:
    """A night looked for the deliveries of the source."""

    as_of: datetime
    looked_at: datetime
    """Wall clock."""


@dataclass(frozen=True)
class Arrival:
    """When a delivery was here, in production time, and how that is known."""

    landed_at: datetime | None
    """as_of of the first night that had it; None where nothing tells."""
    arrived_at: datetime | None
    """The same, or finer: the loader's clock, where it ran in production time."""
    basis: Basis
    """night: observed by the nights. delivery: nobody looked in between; by the day that it is named by."""


def arrivals(deliveries: Sequence[Delivery], looks: Sequence[Look]) -> dict[str, Arrival]:
    """When each delivery of one table arrived: file → Arrival.

    In a hindcast the loader's clock is years after the fact, and one night lands everything, so neither tells.
    What tells is a night that looked for a delivery that was due and did not find it: then it arrived with the night
    that landed it. Landed by the first night that could have, it arrived then. Where nobody looked in between (a
    history landed at once), it cannot have been here before it was due, the end of the day it is named by, and is
    taken to have been on time. The table's first day brings whatever there was before it, and says nothing.
    """
    first = min((due(one.file) for one in deliveries), default=None)
    ordered = sorted(looks, key=lambda look: look.as_of)
    nights = [look.as_of for look in ordered]
    soonest: list[datetime] = []  # of the looks of this night and all later ones, the wall clock of the first
    for look in reversed(ordered):
        soonest.append(min(look.looked_at, soonest[-1]) if soonest else look.looked_at)
    soonest.reverse()
    found: dict[str, Arrival] = {}
    for one in deliveries:
        end = due(one.file)
        if end == first:
            found[one.file] = Arrival(None, None, "untimed")
            continue
        place = bisect_left(nights, end)
        missed = place < len(soonest) and soonest[place] < one.loaded_at
        if missed or one.landed_by - end < DAY:
            live = timedelta() <= one.loaded_at - one.landed_by < DAY
            found[one.file] = Arrival(one.landed_by, one.loaded_at if live else one.landed_by, "night")
        else:
            found[one.file] = Arrival(end, end, "delivery")
    return found


def due(file: str) -> datetime:
    """A delivery is due when the day that it is named by has ended."""
    day = ingest.day_of(file)
    assert day is not None  # nothing else lands
    return clock.midnight(day) + DAY


@dataclass(frozen=True)
class Landed:
    """The deliveries of one raw table, and when they arrived."""

    table: str
    deliveries: tuple[Delivery, ...]
    arrivals: Mapping[str, Arrival]

    def between(self, since: datetime, until: datetime) -> dict[str, Arrival]:
        """Those that arrived in (since, until]."""
        return {
            file: arrival
            for file, arrival in self.arrivals.items()
            if arrival.landed_at is not None and since < arrival.landed_at <= until
        }

    def late(self, files: Mapping[str, Arrival]) -> tuple[str, ...]:
        """Of these those that were due, and looked for, on an earlier night than the one that landed them."""
        return tuple(
            file
            for file, arrival in sorted(files.items())
            if arrival.landed_at is not None and arrival.landed_at - due(file) >= DAY
        )

    def untimed_rows(self, since: datetime, until: datetime) -> int:
        """Rows of those without an arrival that a night in (since, until] landed."""
        return sum(
            one.rows
            for one in self.deliveries
            if self.arrivals[one.file].landed_at is None and since < one.landed_by <= until
        )

    @property
    def usual_rows(self) -> float:
        """Rows of the median delivery."""
        rows = sorted(one.rows for one in self.deliveries if self.arrivals[one.file].landed_at is not None)
        return float(rows[len(rows) // 2]) if rows else 0.0


def landed(rails: Rails, source: str, as_of: datetime) -> dict[str, Landed]:
    """Raw table → its deliveries up to the night that closes at `as_of`, for every table of the source's contract.

    A night that is run again judges what it brought by what was usual until then, not by what came later.
    """
    rails.lake.ensure(INGEST_RUN)  # a lake that is older than these has no rows there
    rails.lake.ensure(LANDED_FILE)
    rows = rails.lake.connection.execute(
        f"select '', '', available_at, ingested_at, 0 from {identifier(INGEST_RUN)} "
        "where source = $source and available_at <= $as_of "
        f"union all select table_name, file, available_at, ingested_at, rows from {identifier(LANDED_FILE)} "
        "where source = $source and available_at <= $as_of",
        {"source": source, "as_of": as_of},
    ).fetchall()
    looks = [Look(as_of, looked_at) for table, _, as_of, looked_at, _ in rows if not table]
    deliveries: dict[str, list[Delivery]] = {table: [] for table in ingest.tables(rails.settings, source)}
    for table, *row in rows:
        if f"raw.{table}" in deliveries:
            deliveries[f"raw.{table}"].append(Delivery(*row))
    return {table: Landed(table, tuple(own), arrivals(own, looks)) for table, own in deliveries.items()}


def arrived_rows(table: str, files: Mapping[str, Arrival], snapshot: int | None, columns: str = "raw.*") -> str:
    """SQL of the rows of `files`, each with `landed_us` and `arrived_us` (microseconds since 1970)."""
    listed = ", ".join(
        f"({text(file)}, {_micros(arrival.landed_at)}, {_micros(arrival.arrived_at)})"
        for file, arrival in sorted(files.items())
    )
    return f"""(
        select {columns}, arrival.landed_us, arrival.arrived_us
        from (select * from {stored(table, snapshot)}) as raw
        inner join (values {listed}) as arrival (file, landed_us, arrived_us) on raw.source_file = arrival.file
    )"""


def _micros(instant: datetime | None) -> int:
    assert instant is not None  # only what has arrived is listed
    return (instant - clock.midnight(date(1970, 1, 1))) // timedelta(microseconds=1)


# -- what a night's rows took ---------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Seconds."""

    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Latency:
    """What the rows of one table that arrived in one night had taken."""

    table: str
    kind: Literal["source", "view"]
    rows: int
    """Rows that arrived and carry both times."""
    observed_rows: int
    """Of them those whose arrival the nights themselves observed; the others are taken to have been on time."""
    untimed: int
    """Rows of the table's first delivery, which say nothing about it."""
    claimed: Spread | None
    """available_at - event_time."""
    observed: Spread | None
    """arrived - event_time."""
    missed: Mapping[int, int]
    """Nights missed since the first that could have read the row → rows."""
    promised: timedelta | None
    late_files: tuple[str, ...] = ()
    """Deliveries that a night looked for and did not find."""
    worst: tuple[Mapping[str, Any], ...] = ()
    """Up to three rows that missed the most nights: file, row, known (claimed), arrived."""

    @property
    def late(self) -> int:
        """Rows that arrived at least a night after they claim to have been known."""
        return sum(rows for nights, rows in self.missed.items() if nights > 0)

    @property
    def late_share(self) -> float:
        return self.late / self.rows if self.rows else 0.0

    @property
    def over(self) -> float | None:
        """Observed p99 in units of the promise; None without a promise, or with too few rows."""
        if self.promised is None or self.observed is None or self.rows < FEW_ROWS:
            return None
        return self.observed.p99 / self.promised.total_seconds()


def of_source(
    rails: Rails, source: str, as_of: datetime, snapshot: int | None = None, known: Mapping[str, Landed] | None = None
) -> dict[str, Latency]:
    """Raw table → latency of the rows whose delivery arrived in the night that closes at `as_of`."""
    promises = {table.raw: table.timing.latency for table in ingest.contract(rails.settings, source).tables}
    found = {}
    for table, own in (known or landed(rails, source, as_of)).items():
        promise = promises[table]
        files = own.between(as_of - DAY, as_of)
        untimed = own.untimed_rows(as_of - DAY, as_of)
        promised = promise.p99 if promise else None
        if not files:
            found[table] = Latency(table, "source", 0, 0, untimed, None, None, {}, promised)
            continue
        seen = {file for file, arrival in files.items() if arrival.basis == "night"}
        shown = "raw.event_time, raw.available_at, raw.source_file, raw.row_number"
        rows = arrived_rows(table, files, snapshot, shown)
        listed = ", ".join(map(text, sorted(seen))) or "''"
        found[table] = _measured(
            rails,
            table,
            "source",
            f"select *, source_file in ({listed}) as is_observed from {rows}",
            "{'file': source_file, 'row': row_number, 'known': available_at, 'arrived': make_timestamptz(landed_us)}",
            untimed,
            promised,
            late_files=own.late(files),
        )
    return found


def of_views(rails: Rails, views: Iterable[str], as_of: datetime, snapshot: int | None = None) -> dict[str, Latency]:
    """Feature view → latency of the rows that could first be read in the night that closes at `as_of`.

    Those are the rows that became available since the night before, and those that claim an earlier time but were
    not in the view as that night read it: of the rows that a later build wrote, what its snapshot did not hold.
    """
    before = _night_before(rails, as_of)
    return {view: _of_view(rails, view, as_of, snapshot, before) for view in views}


def _night_before(rails: Rails, as_of: datetime) -> tuple[datetime, int] | None:
    """as_of and snapshot of the newest earlier night whose features were checked."""
    night = night_closing(as_of)
    before = rails.ledger.last_stage_run(FeaturesSummary, before=night)
    while before is not None and not before.summary.snapshot:
        before = rails.ledger.last_stage_run(FeaturesSummary, before=before.night)
    return (as_of - (night - before.night), before.summary.snapshot) if before else None


def _of_view(
    rails: Rails, view: str, as_of: datetime, snapshot: int | None, before: tuple[datetime, int] | None
) -> Latency:
    since = before[0] if before else as_of - DAY
    relation = rails.lake.relation(view, as_of, snapshot)
    us = _micros(as_of)
    built = _newest_build(rails, view, before[1]) if before else None
    observed = f"built_at > {literal(built)}" if built else "false"
    shown = f"event_time, available_at, {us} as landed_us, {us} as arrived_us, {observed} as is_observed"
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
    return _measured(rails, qualified(view), "view", rows, "available_at", 0, None)


def _newest_build(rails: Rails, view: str, snapshot: int | None) -> datetime | None:
    try:
        row = rails.lake.connection.execute(f"select max(built_at) from {stored(view, snapshot)}").fetchone()
    except duckdb.Error:  # the view is younger than that snapshot, or the snapshot has expired
        return None
    return row[0] if row else None


def _measured(
    rails: Rails,
    table: str,
    kind: Literal["source", "view"],
    rows: str,
    shown: str,
    untimed: int,
    promised: timedelta | None,
    late_files: tuple[str, ...] = (),
) -> Latency:
    """One pass over `rows` (event_time, available_at, landed_us, arrived_us, is_observed, and what is shown)."""
    points = ", ".join(str(point) for point in POINTS.values())
    day, grace = DAY // timedelta(microseconds=1), GRACE // timedelta(microseconds=1)
    row = rails.lake.connection.execute(
        f"""
        select count(*), count(*) filter (is_observed),
            quantile_cont((epoch_us(available_at) - epoch_us(event_time)) / {_US}, [{points}]),
            quantile_cont((arrived_us - epoch_us(event_time)) / {_US}, [{points}]),
            histogram(missed), max_by(shown, missed, 3) filter (missed > 0)
        from (
            select *, {shown} as shown,
                greatest((landed_us - epoch_us(available_at) - {grace}) // {day}, 0)::integer as missed
            from ({rows}) where event_time is not null and available_at is not null
        )
        """
    ).fetchone()
    assert row is not None
    count, observed_rows, claimed, observed, missed, worst = row
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
        worst=tuple(worst or ()),
    )


def store(connection: Any, measured: Iterable[Latency], as_of: datetime) -> None:
    """Inside a transaction: replace the night's rows of these tables."""
    rows = [_row(one, as_of) for one in measured]
    if rows:
        connection.execute(
            f"delete from {identifier(FEATURE_LATENCY)} where night = $night and list_contains($tables, table_name)",
            {"night": night_closing(as_of), "tables": [row["table_name"] for row in rows]},
        )
        put(connection, FEATURE_LATENCY, {}, pd.DataFrame(rows, columns=list(FEATURE_LATENCY.columns)))


def _row(one: Latency, as_of: datetime) -> dict[str, Any]:
    spreads: dict[str, float | None] = {}
    for name in SPREADS:
        spread = getattr(one, name)
        for point in POINTS:
            spreads[f"{name}_{point}_s"] = getattr(spread, point) if spread else None
    return {
        "night": night_closing(as_of), "table_name": one.table, "kind": one.kind, "rows": one.rows,
        "observed_rows": one.observed_rows, "untimed": one.untimed, **spreads,
        "missed": json.dumps({str(nights): rows for nights, rows in sorted(one.missed.items())}),
        "promised_p99_s": one.promised.total_seconds() if one.promised else None, "available_at": as_of,
    }  # fmt: skip


# -- what the nights say together -----------------------------------------------------------------


@dataclass(frozen=True)
class Embargo:
    """What the arrivals of the last nights say of one table. Seconds, over all its rows."""

    table: str
    kind: str
    nights: int
    rows: int
    observed_rows: int
    untimed: int
    promised_p99_s: float | None
    claimed_p99_s: float | None
    observed_p99_s: float | None
    observed_max_s: float | None
    missed_nights: int
    """The learned embargo: so many nights after the first that could have read it, 99 of 100 rows are there."""
    late_rows: int

    @property
    def verdict(self) -> str:
        """In a word: late (rows miss nights), over (slower than promised), kept, or unknown."""
        if not self.rows:
            return "unknown"
        if self.missed_nights:
            return "late"
        if self.promised_p99_s is not None and (self.observed_p99_s or 0.0) > self.promised_p99_s:
            return "over"
        return "kept"


def learn(nights: pd.DataFrame) -> dict[str, Embargo]:
    """Table → embargo, from rows of ops.feature_latency. Pure.

    The p99 over several nights is that of the mixture of the nights' distributions, each known by its median, p95,
    p99 and maximum, and linear in between. Missed nights are counted, so their quantile is exact.
    """
    found: dict[str, Embargo] = {}
    for table, rows in nights.groupby("table_name", sort=True):
        rows = rows.sort_values("night")
        missed: Counter[int] = Counter()
        for counted in rows["missed"]:
            missed.update({int(night): int(count) for night, count in json.loads(counted).items()})
        timed = rows[rows["rows"] > 0]
        promised = rows["promised_p99_s"].iloc[-1]
        found[str(table)] = Embargo(
            table=str(table),
            kind=str(rows["kind"].iloc[-1]),
            nights=int(rows["night"].nunique()),
            rows=int(rows["rows"].sum()),
            observed_rows=int(rows["observed_rows"].sum()),
            untimed=int(rows["untimed"].sum()),
            promised_p99_s=None if pd.isna(promised) else float(promised),
            claimed_p99_s=_pooled(timed, "claimed"),
            observed_p99_s=_pooled(timed, "observed"),
            observed_max_s=float(timed["observed_max_s"].max()) if len(timed) else None,
            missed_nights=quantile_of_counts(missed, QUANTILE),
            late_rows=sum(count for night, count in missed.items() if night > 0),
        )
    return found


def quantile_of_counts(counts: Mapping[int, int], quantile: float) -> int:
    """The smallest value that at least `quantile` of all do not exceed; 0 of nothing."""
    total, below = sum(counts.values()), 0
    for value, count in sorted(counts.items()):
        below += count
        if below >= quantile * total:
            return value
    return 0


def _pooled(nights: pd.DataFrame, spread: str) -> float | None:
    """The p99 of the mixture of nights, weighed by their rows."""
    import numpy as np

    if nights.empty:
        return None
    knots = nights[[f"{spread}_{point}_s" for point in POINTS]].to_numpy(dtype=float)
    weights = nights["rows"].to_numpy(dtype=float) / nights["rows"].sum()
    levels = np.array([*POINTS.values()])
    grid = np.unique(knots)
    below = sum(
        weight * np.interp(grid, own, levels, left=0.0, right=1.0) for weight, own in zip(weights, knots, strict=True)
    )
    place = min(int(np.searchsorted(below, QUANTILE - 1e-12)), len(grid) - 1)
    if place == 0 or below[place] - below[place - 1] <= 0:
        return float(grid[place])
    share = (QUANTILE - below[place - 1]) / (below[place] - below[place - 1])
    return float(grid[place - 1] + share * (grid[place] - grid[place - 1]))


def history(rails: Rails, as_of: datetime, tables: Sequence[str], nights: int = NIGHTS) -> pd.DataFrame:
    """Rows of ops.feature_latency of these tables over the last nights, oldest first."""
    if not tables or not rails.lake.has(FEATURE_LATENCY):
        return pd.DataFrame(columns=list(FEATURE_LATENCY.columns))
    return rails.lake.query(
        f"select * from {{{FEATURE_LATENCY}}} where list_contains($tables, table_name) and night > $since "
        "order by table_name, night",
        as_of,
        {"tables": [*tables], "since": night_closing(as_of - nights * DAY)},
    )


def embargoes(rails: Rails, as_of: datetime, tables: Sequence[str], nights: int = NIGHTS) -> dict[str, Embargo]:
    """What the last nights up to `as_of` say of these tables; those never measured are left out."""
    return learn(history(rails, as_of, tables, nights))


def tables_of(rails: Rails, spec: Spec) -> tuple[str, ...]:
    """The tables that a model stands on: its source's, and its feature views."""
    return (*_delivered(rails, spec.source), *map(qualified, spec.prediction.features))


def _delivered(rails: Rails, source: str) -> tuple[str, ...]:
    """The raw tables of a source; none without a contract: its tables come from elsewhere."""
    return ingest.tables(rails.settings, source) if source in ingest.sources(rails.settings) else ()


# -- rules ----------------------------------------------------------------------------------------


def backfills(measured: Mapping[str, Latency], usual: Mapping[str, float]) -> list[RuleResult]:
    """Two rules on the rows that arrived in a night, per raw table: none claims to be old, nor do many at once."""
    found = []
    for table, one in measured.items():
        worst = "; ".join(_said(row) for row in one.worst)
        bulk = one.late > BULK_NIGHTS * usual[table] > 0
        found.append(RuleResult("backfill", table, "available_at", one.rows, one.late, worst))
        found.append(
            RuleResult("bulk_backfill", table, "available_at", one.rows, one.late * bulk, worst if bulk else "")
        )
    return found


def _said(row: Mapping[str, Any]) -> str:
    return f"{row['file']} row {row['row']} says {row['known']:%Y-%m-%d %H:%M}, landed {row['arrived']:%Y-%m-%d %H:%M}"


def backfill_findings(rails: Rails, source: str, as_of: datetime, snapshot: int | None) -> list[RuleResult]:
    """Those two rules on what a source delivered for the night that closes at `as_of`."""
    if not _delivered(rails, source):
        return []
    known = landed(rails, source, as_of)
    measured = of_source(rails, source, as_of, snapshot, known)
    return backfills(measured, {table: own.usual_rows for table, own in known.items()})


def frame_findings(
    rails: Rails, spec: Spec, table: str, relation: str, views: Iterable[str], as_of: datetime
) -> list[RuleResult]:
    """Would the features of a frame have been there when the prediction was made?

    A prediction is made by the night that closes its interval of `prediction.every`. A feature row that was first
    readable n nights before that night, of a view whose rows miss more than n nights (the learned embargo), would
    have been older than in the frame, or missing.
    """
    learned = embargoes(rails, as_of, [qualified(view) for view in views])
    source = embargoes(rails, as_of, _delivered(rails, spec.source))
    slowest = max((one.missed_nights for one in source.values()), default=0)
    every, anchor = spec.prediction.every // timedelta(microseconds=1), _micros(as_of)
    scored = f"{anchor} - (({anchor} - epoch_us(prediction_time) - 1) // {every}) * {every}"
    day = DAY // timedelta(microseconds=1)
    found = []
    for view in views:
        own = learned.get(qualified(view))
        missed = own.missed_nights if own and own.observed_rows else slowest
        known = f'"{view}__available_at"'
        row = rails.lake.connection.execute(
            f"select count({known}), count(*) filter ({missed} > ({scored} - epoch_us({known})) // {day}) "
            f"from {relation}"
        ).fetchone()
        assert row is not None
        said = f"the slowest hundredth of its rows misses {missed} night(s)" if row[1] else ""
        found.append(RuleResult("arrives_in_time", table, f"{view}__available_at", row[0], row[1], said))
    return found


# -- for people -----------------------------------------------------------------------------------


def report(rails: Rails, tables: Sequence[str], as_of: datetime, nights: int = NIGHTS) -> list[dict[str, Any]]:
    """One JSON-ready row per table: what it promises and claims, and what was observed."""
    return [{**asdict(one), "verdict": one.verdict} for one in embargoes(rails, as_of, tables, nights).values()]


def look(
    rails: Rails, *, model: Spec | None, source: str | None, as_of: datetime | None, nights: int
) -> dict[str, Any]:
    """What a person asked to see: `report` of a model's tables, of a source's, or of all active ones, and the plot.

    By default as of the newest night that was measured. Raises BadInput when no night was, or there is no source.
    """
    if model:
        tables = tables_of(rails, model)
    else:
        sources = (source,) if source else rails.settings.sources
        tables = tuple(table for one in sources for table in ingest.tables(rails.settings, one))
    if as_of is None and rails.lake.has(FEATURE_LATENCY):
        newest = rails.lake.connection.execute(
            f"select max(available_at) from {identifier(FEATURE_LATENCY)} where list_contains($tables, table_name)",
            {"tables": [*tables]},
        ).fetchone()
        as_of = newest[0] if newest else None
    rows = report(rails, tables, as_of, nights) if as_of else []
    if as_of is None or not rows:
        raise BadInput(f"The latency of {', '.join(tables)} was never measured; run tiltyard features --as-of DATE.")
    name = model.name if model else source or "portfolio"
    path = plot(rails, name, tables, as_of, max(nights, NIGHTS))
    return {"as_of": as_of.isoformat(), "nights": nights, "tables": rows, "plot": str(path) if path else None}


def plot(rails: Rails, name: str, tables: Sequence[str], as_of: datetime, nights: int = 60) -> "Path | None":
    """Draw the nights of these tables to reports/latency/<name>.png; None when there is nothing to draw."""
    from tiltyard.pages import plots

    rows = history(rails, as_of, tables, nights)
    if rows.empty or not rows["rows"].sum():
        return None
    return plots.latency(rows, rails.settings.reports / "latency" / f"{name}.png", title=name)
