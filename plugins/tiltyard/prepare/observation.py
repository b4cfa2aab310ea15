"""What a night brought of one source: how long it took, and whether it still says anything.

`observe` measures and judges it, `store` keeps it: latencies and column profiles in the lake, data incidents in the
ledger. The freshness suite puts its questions to `Observation.columns`.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import duckdb

from tiltyard import suites
from tiltyard.clock import night_closing
from tiltyard.lake import text
from tiltyard.prepare import column_profile, contracts, data_incidents, deliveries, latency
from tiltyard.prepare.deliveries import DAY, Deliveries, DeliveryTime
from tiltyard.prepare.latency import Latency
from tiltyard.prepare.outage import WINDOW, Looked, OutageVerdict, TableProfile, verdict_on
from tiltyard.rails import Rails
from tiltyard.records import DataIncident
from tiltyard.tables import COLUMN_PROFILE, FEATURE_LATENCY

RULES = {
    "went_null": "expect_no_column_to_go_null",
    "went_zero": "expect_no_column_to_go_zero",
    "went_constant": "expect_no_column_to_go_constant",
    "category_vanished": "expect_no_category_to_vanish",
    "repeated_partition": "expect_no_partition_to_repeat",
}
"""Rule of `outage` → the Great Expectations type that wraps it."""
OBSERVED = (
    "latency_p99_hours", "promised_p99_hours", "latency_ratio", "late_share", "late_latency_ratio", "outages",
)  # fmt: skip
"""Columns of `Observation.columns`."""
MOSTLY = 0.5
"""Share of late rows from which on a night that is slower than promised is not served."""


@dataclass(frozen=True)
class Observation:
    """What a night brought of one source."""

    source: str
    """Name of the source."""
    latencies: Mapping[str, Latency]
    """Raw table → how long its rows took."""
    verdicts: Mapping[Looked, OutageVerdict]
    """Raw table, and planned column along whose days it was looked at ('' where it was along what came) → what stopped
    saying anything."""
    profiles: tuple[tuple[str, TableProfile], ...]
    """(raw table, profile) that were not kept yet, or are kept anew."""

    def columns(self, table: str) -> str:
        """SQL of what a freshness suite sees of a table: OBSERVED, figures first, then the outages."""
        own = self.latencies[table]
        figures = {
            "latency_p99_hours": own.observed.p99 / 3600 if own.observed else None,
            "promised_p99_hours": own.promised.total_seconds() / 3600 if own.promised else None,
            "latency_ratio": own.over,
            "late_share": own.late_share,
            "late_latency_ratio": own.over if own.late_share >= MOSTLY else None,
        }
        listed = ", ".join(f"{_number(value)}::double as {name}" for name, value in figures.items())
        outages = ", ".join(
            f"{{'rule': {text(outage.rule)}, 'column_name': {text(outage.column)}, "
            f"'reason': {text(looked.prefix + outage.reason)}}}"
            for looked, verdict in self.verdicts.items()
            for outage in verdict.outages
            if looked.table == table
        )
        return f"{listed}, [{outages}]::struct(rule varchar, column_name varchar, reason varchar)[] as outages"


def _number(value: float | None) -> str:
    return "null" if value is None else repr(float(value))


@functools.cache
def expectations() -> Mapping[str, type]:
    """The rules as Great Expectations types: no outage of the rule among the table's `outages`."""
    query = (
        "select outage.column_name, outage.reason from (select unnest(outages) as outage from {{batch}}) "
        "where outage.rule = {rule}"
    )
    return {
        kind: suites.no_rows(kind, query.format(rule=text(rule)), f"No outage of the rule {rule}.")
        for rule, kind in RULES.items()
    }


def observe(rails: Rails, source: str, as_of: datetime, snapshot: int | None = None) -> Observation:
    """Measure and judge what came of a source in the night that closes at `as_of`. Keeps nothing of it.

    Nights of the window that were never profiled (before the first one that was checked) are profiled and judged
    on the way, oldest first.
    """
    rails.lake.ensure(COLUMN_PROFILE)
    contract = contracts.read(rails.settings, source)
    delivered = deliveries.of_source(rails, source, as_of)
    latencies = latency.of_source(rails, source, as_of, snapshot, delivered)
    night = night_closing(as_of)
    verdicts: dict[Looked, OutageVerdict] = {}
    fresh: list[tuple[str, TableProfile]] = []
    for table in contract.tables:
        for along in ("", *table.planned):
            past = column_profile.history(rails, table.raw, night - timedelta(days=WINDOW), night, along)
            nights = _unprofiled(delivered[table.raw], as_of, {profile.night for profile in past})
            found = (
                column_profile.scan_along(rails, table, along, nights, snapshot)
                if along
                else column_profile.scan(rails, table, nights, snapshot)
            )
            looked = Looked(table.raw, along)
            verdicts[looked] = OutageVerdict((), frozenset())
            for profile in found:
                verdict = verdict_on(profile, past)
                judged = replace(profile, broken=verdict.broken)
                fresh.append((table.raw, judged))
                past.append(judged)
                if profile.night == night:
                    verdicts[looked] = verdict
    return Observation(source, latencies, verdicts, tuple(fresh))


def _unprofiled(own: Deliveries, as_of: datetime, profiled: set[date]) -> dict[date, dict[str, DeliveryTime]]:
    """Night → the files that came in it: this night, and those of the window that have no profile."""
    nights: dict[date, dict[str, DeliveryTime]] = {}
    for back in range(WINDOW + 1):
        end = as_of - back * DAY
        if back and night_closing(end) in profiled:
            continue
        times = own.between(end - DAY, end)
        if times:
            nights[night_closing(end)] = times
    return nights


def store(
    rails: Rails, observation: Observation, views: Mapping[str, Latency], as_of: datetime
) -> tuple[DataIncident, ...]:
    """Keep what a night showed, with the latencies of feature views. Returns the incidents that are open now."""
    rails.lake.ensure(FEATURE_LATENCY)
    rails.lake.ensure(COLUMN_PROFILE)
    night = night_closing(as_of)

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        latency.store(connection, [*observation.latencies.values(), *views.values()], as_of)
        column_profile.store(connection, observation.profiles, as_of)

    source = observation.source
    with rails.lake.exclusive(f"outage/{source}"):  # two attempts at a night leave its rows and events once
        rails.lake.commit(work, message=f"latency and profiles of {source}, {night}")
        return data_incidents.settle(rails, source, night, observation.verdicts, observation.latencies)
