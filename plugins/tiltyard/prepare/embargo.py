"""The learned embargo: would a feature have been there when the prediction was made?

It is what the last nights' latencies say together (`ops.feature_latency`): by how many nights the slowest hundredth of
a table's rows missed the first night that could have read it. A feature whose row is fresher than that would not have
been there when the prediction was made, and is named before a model learns from it.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.lake import identifier, qualified
from tiltyard.leak.rules import RuleResult
from tiltyard.pages import plots
from tiltyard.prepare import contracts
from tiltyard.prepare.deliveries import DAY, microseconds
from tiltyard.rails import Rails, drawing, opened
from tiltyard.records import Embargo, LatencyReport, LatencyVerdict
from tiltyard.settings import Settings
from tiltyard.spec import Spec, find
from tiltyard.tables import FEATURE_LATENCY, POINTS
from tiltyard.words import counted

NIGHTS = 28
"""Number of nights over which the embargo is learned."""
QUANTILE = 0.99
"""Share of the rows that are there when the embargo ends."""


# -- learning -------------------------------------------------------------------------------------


def learn(nights: pd.DataFrame) -> dict[str, Embargo]:
    """Table → embargo, from rows of ops.feature_latency. Pure.

    The p99 over several nights is that of the mixture of the nights' distributions, each known by its median, p95,
    p99 and maximum, and linear in between. Missed nights are counted, so their quantile is exact.
    """
    embargoes: dict[str, Embargo] = {}
    for table, rows in nights.groupby("table_name", sort=True):
        rows = rows.sort_values("night")
        missed: Counter[int] = Counter()
        for counts in rows["missed"]:
            missed.update({int(night): int(count) for night, count in json.loads(counts).items()})
        timed = rows[rows["rows"] > 0]
        last_promise = rows["promised_p99_s"].iloc[-1]
        promised = None if pd.isna(last_promise) else float(last_promise)
        count, observed = int(rows["rows"].sum()), _pooled(timed, "observed")
        missed_nights = quantile_of_counts(missed, QUANTILE)
        embargoes[str(table)] = Embargo(
            table=str(table),
            kind=str(rows["kind"].iloc[-1]),
            nights=int(rows["night"].nunique()),
            rows=count,
            observed_rows=int(rows["observed_rows"].sum()),
            untimed=int(rows["untimed"].sum()),
            promised_p99_s=promised,
            claimed_p99_s=_pooled(timed, "claimed"),
            observed_p99_s=observed,
            observed_max_s=float(timed["observed_max_s"].max()) if len(timed) else None,
            missed_nights=missed_nights,
            late_rows=sum(number for night, number in missed.items() if night > 0),
            verdict=_verdict(count, missed_nights, observed, promised),
        )
    return embargoes


def _verdict(rows: int, missed_nights: int, observed_s: float | None, promised_s: float | None) -> LatencyVerdict:
    if not rows:
        return "unknown"
    if missed_nights:
        return "late"
    return "over" if promised_s is not None and (observed_s or 0.0) > promised_s else "kept"


def quantile_of_counts(counts: Mapping[int, int], quantile: float) -> int:
    """The smallest value that at least `quantile` of all do not exceed; 0 of nothing.

    `counts` maps each value to how often it occurs.
    """
    total, below = sum(counts.values()), 0
    for value, count in sorted(counts.items()):
        below += count
        if below >= quantile * total:
            return value
    return 0


def _pooled(nights: pd.DataFrame, spread: str) -> float | None:
    """The p99 of the mixture of nights, weighed by their rows, in seconds; None without nights."""
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
    """Rows of ops.feature_latency of these tables over the last nights, by table and oldest first."""
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
    return (*_raw_tables(rails, spec.source), *map(qualified, spec.prediction.features))


def _raw_tables(rails: Rails, source: str) -> tuple[str, ...]:
    """The raw tables of a source; none without a contract: its tables come from elsewhere."""
    return contracts.raw_tables(rails.settings, source) if source in contracts.sources(rails.settings) else ()


# -- the rule on a frame --------------------------------------------------------------------------


def frame_results(
    rails: Rails, spec: Spec, table: str, relation: str, views: Iterable[str], as_of: datetime
) -> list[RuleResult]:
    """Would the features of a frame have been there when the prediction was made? One result per view.

    `relation` is SQL of the frame, `table` what the results call it. A prediction is made by the night that closes its
    interval of `prediction.every`. A feature row that was first readable n nights before that night, of a view whose
    rows miss more than n nights (the learned embargo), would have been older than in the frame, or missing.
    """
    of_view = embargoes(rails, as_of, [qualified(view) for view in views])
    of_source = embargoes(rails, as_of, _raw_tables(rails, spec.source))
    slowest = max((embargo.missed_nights for embargo in of_source.values()), default=0)
    every, anchor = spec.prediction.every // timedelta(microseconds=1), microseconds(as_of)
    scored = f"{anchor} - (({anchor} - epoch_us(prediction_time) - 1) // {every}) * {every}"
    day = DAY // timedelta(microseconds=1)
    results = []
    for view in views:
        own = of_view.get(qualified(view))
        missed = own.missed_nights if own and own.observed_rows else slowest
        available_at = f'"{view}__available_at"'
        row = rails.lake.connection.execute(
            f"select count({available_at}), "
            f"count(*) filter ({missed} > ({scored} - epoch_us({available_at})) // {day}) from {relation}"
        ).fetchone()
        assert row is not None
        rows, too_fresh = row
        reason = f"the slowest hundredth of its rows misses {counted(missed, 'night')}" if too_fresh else ""
        results.append(RuleResult("arrives_in_time", table, f"{view}__available_at", rows, too_fresh, reason))
    return results


# -- for people -----------------------------------------------------------------------------------


def report(rails: Rails, tables: Sequence[str], as_of: datetime, nights: int = NIGHTS) -> tuple[Embargo, ...]:
    """One embargo per table that was measured: what it promises and claims, and what was observed."""
    return tuple(embargoes(rails, as_of, tables, nights).values())


def look(rails: Rails, *, model: Spec | None, source: str | None, as_of: datetime | None, nights: int) -> LatencyReport:
    """What a person asks to see: the embargoes of a model's tables, of a source's, or of all active ones, and the plot.

    By default as of the newest night that was measured. Raises BadInput when no night was, or there is no source.
    """
    tables: tuple[str, ...]
    if model:
        tables = tables_of(rails, model)
    else:
        sources = (source,) if source else rails.settings.sources
        tables = tuple(table for name in sources for table in contracts.raw_tables(rails.settings, name))
    if as_of is None and rails.lake.has(FEATURE_LATENCY):
        newest = rails.lake.connection.execute(
            f"select max(available_at) from {identifier(FEATURE_LATENCY)} where list_contains($tables, table_name)",
            {"tables": [*tables]},
        ).fetchone()
        as_of = newest[0] if newest else None
    rows = report(rails, tables, as_of, nights) if as_of else ()
    if as_of is None or not rows:
        raise BadInput(f"The latency of {', '.join(tables)} was never measured; run tiltyard features --as-of DATE.")
    name = model.name if model else source or "portfolio"
    path = None
    with drawing(rails, f"latency/{name}.png", night_closing(as_of)):
        path = plot(rails, name, tables, as_of, max(nights, NIGHTS))
    return LatencyReport(as_of=as_of, nights=nights, tables=rows, plot=path)


def plot(rails: Rails, name: str, tables: Sequence[str], as_of: datetime, nights: int = 60) -> Path | None:
    """Draw the nights of these tables to reports/latency/<name>.png; None when there is nothing to draw."""
    rows = history(rails, as_of, tables, nights)
    if rows.empty or not rows["rows"].sum():
        return None
    return plots.latency(rows, rails.settings.reports / "latency" / f"{name}.png", title=name)


def main(model: str, night: str) -> None:
    """Draw a model's picture in a process of its own, when somebody opens it: matplotlib takes a second for one."""
    settings = Settings()
    with opened(settings) as rails:
        spec = find(settings.models, model)
        print(plot(rails, model, tables_of(rails, spec), clock.midnight(date.fromisoformat(night))))


if __name__ == "__main__":
    main(*sys.argv[1:])
