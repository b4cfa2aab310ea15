"""Whether the truth still comes: the arrival of labels read from the lake, judged every night, shown to people.

`runoff` says how: the arrival curve, and when a truth that stops arriving is an incident. That is a *data incident* of
the label table, opened and closed in the ledger beside those of its source: predictions are made and served on, and no
model is retrained while it is open. It closes on the first night on which labels come again as they used to. The nights
of an incident are no past to compare with; after `runoff.WINDOW` nights what comes is the new usual, if anything comes.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.judge import runoff
from tiltyard.judge.runoff import Arrivals, Assessment
from tiltyard.pages import plots
from tiltyard.prepare import data_incidents, truth
from tiltyard.rails import Rails
from tiltyard.records import DataIncident, DataIncidentKey, LabelArrival, Record
from tiltyard.spec import Spec
from tiltyard.tables import PREDICTION

DAY = timedelta(days=1)
LATER = 7
"""Nights after a cohort has matured in which its labels are still looked for."""
NIGHTS = runoff.WINDOW + runoff.RUN
WHAT = {
    "labels": "labels_stopped",
    "positives": "positives_stopped",
    "negatives": "negatives_stopped",
    "missing": "labels_missing",
}
"""Stream → what its incident is called."""


@dataclass(frozen=True, kw_only=True)
class ArrivalShares(Record):
    """The arrival curve: per age in nights, from 0 on, the share of what will come that has come."""

    labels: tuple[float, ...]
    """Shares of all labels."""
    positives: tuple[float, ...]
    """Shares of those positive labels that come by the last age; empty where none has come, and of a number."""
    negatives: tuple[float, ...]
    """The same of the negative labels."""


@dataclass(frozen=True, kw_only=True)
class ArrivalReport(Record):
    """How the truth of a model comes in."""

    half_after: int | None
    """Nights after which half of a cohort's labels are known; None where that was never seen."""
    most_after: int | None
    """The same of 95 %."""
    waiting_rows: int
    """Number of rows that still have time to get their label."""
    waiting_cohorts: int
    """Number of nights that these rows are of."""
    last_arrived: date | None
    """The night in which the last label came; None before the first."""
    curve: ArrivalShares
    """The arrival curve of the nights without an incident."""
    incidents: tuple[DataIncident, ...]
    """The open incidents of the truth, the oldest first."""


def arrivals(rails: Rails, spec: Spec, as_of: datetime) -> Arrivals | None:
    """The run-off triangle of the model's cohorts as known at `as_of`; None before its first prediction.

    A cohort is a night, its rows the spine rows that somebody scored; where a column tells when each row is decided,
    those that are decided on one day, whose ages count from then on. A label arrives on the first night that could read
    it, at age 0 when the night of the cohort already could.
    """
    if not rails.lake.has(PREDICTION):
        return None
    night = night_closing(as_of)
    matures = -(-spec.label.lag // DAY)
    ages = matures + LATER + 1
    is_positive = spec.target.sql_positive("arg_max(label, available_at)")
    sql = f"""
        with rows as (
            select {truth.COHORT} as night, entity_id, prediction_time from {{{PREDICTION}}}
            where model = $model and night > $scored_since and {truth.COHORT} > $since and {truth.COHORT} <= $night
            group by all
        ),
        labels as (
            select cast({spec.key} as varchar) as entity_id, prediction_time,
                {is_positive} as is_positive, min(available_at) as known_at
            from {truth.labels(rails, spec, as_of)}
            where label is not null and prediction_time >= $from group by all
        )
        select night, is_positive,
            greatest(ceil((epoch(known_at) - epoch(night::timestamptz)) / 86400), 0)::integer as age, count(*) as n
        from rows left join labels using (entity_id, prediction_time) group by all
    """
    since = night - timedelta(days=NIGHTS + ages)
    scored_since = since - spec.label.horizon if spec.label.until else since
    start = clock.midnight(scored_since) - clock.NIGHT  # the nights after it predict nothing earlier
    params = {"model": spec.name, "since": since, "scored_since": scored_since, "from": start, "night": night}
    rails.lake.ensure(PREDICTION)
    cells = rails.lake.query(sql, as_of, params)
    if cells.empty:
        return None
    days = pd.to_datetime(cells["night"]).dt.date
    first = days.min()
    place = np.array([(day - first).days for day in days])
    count = cells["n"].to_numpy(dtype=np.int64)
    shape = ((night - first).days + 1, ages)
    sizes, classes = (
        np.zeros(shape[0], dtype=np.int64),
        {True: np.zeros(shape, np.int64), False: np.zeros(shape, np.int64)},
    )
    np.add.at(sizes, place, count)
    age = cells["age"].fillna(ages).to_numpy(dtype=np.int64)
    for label, table in classes.items():
        own = (cells["is_positive"] == label).fillna(False).to_numpy(dtype=bool) & (age < ages)
        np.add.at(table, (place[own], age[own]), count[own])
    return Arrivals(first, night, sizes, classes[True], classes[False], matures, spec.target.has_positives)


class JudgedArrival(NamedTuple):
    """What a night says of how the truth comes in."""

    streams: dict[str, LabelArrival]
    """Kind of label → how many came and were to be expected."""
    report: ArrivalReport | None
    """What a person sees; None before the first prediction."""


def record(rails: Rails, spec: Spec, as_of: datetime) -> JudgedArrival:
    """Judge the night that closes at `as_of`, open and close the model's truth incidents; twice is once."""
    night = night_closing(as_of)
    triangle = arrivals(rails, spec, as_of)
    assessments = runoff.assess(triangle, _of_incidents(rails, spec, night)) if triangle else ()
    if any(assessment.stopped for assessment in assessments) or incidents(rails, spec, night):
        with rails.lake.exclusive(f"arrival/{spec.name}"):  # two attempts at a night leave its events once
            _settle(rails, spec, night, assessments)
    streams: dict[str, LabelArrival] = {
        assessment.stream: LabelArrival(float(assessment.came), round(assessment.predicted, 1))
        for assessment in assessments
    }
    return JudgedArrival(streams, _report(rails, spec, as_of, triangle) if triangle else None)


def incidents(rails: Rails, spec: Spec, night: date) -> tuple[DataIncident, ...]:
    """The truth incidents of a model that are open after `night`, oldest first."""
    open_now = data_incidents.of_source(rails, spec.source, night)
    return tuple(incident for incident in open_now if incident.table == spec.label.table)


def report(rails: Rails, spec: Spec, as_of: datetime) -> ArrivalReport | None:
    """What a person sees: the curve, when half and 95 % are known, what waits, when truth last came.

    None before the first prediction. The curve is that of the nights without an incident.
    """
    triangle = arrivals(rails, spec, as_of)
    return _report(rails, spec, as_of, triangle) if triangle else None


def _report(rails: Rails, spec: Spec, as_of: datetime, triangle: Arrivals) -> ArrivalReport:
    night = night_closing(as_of)
    curve = runoff.curve(triangle, _of_incidents(rails, spec, night + DAY))
    came = triangle.labels.sum(axis=1)
    nights = triangle.nights[triangle.labels > 0]
    waits = triangle.sizes > came
    young = np.arange(len(came)) > len(came) - 1 - triangle.matures
    ahead = _ahead(rails, spec, as_of)
    return ArrivalReport(
        half_after=curve.age(0.5),
        most_after=curve.age(0.95),
        waiting_rows=int((triangle.sizes - came)[waits & young].sum()) + ahead.rows,
        waiting_cohorts=int((waits & young).sum()) + ahead.cohorts,
        last_arrived=date.fromordinal(int(nights.max())) if len(nights) else None,
        curve=ArrivalShares(
            **{
                name: tuple(round(float(share), 4) for share in getattr(curve, name))
                for name in ("labels", "positives", "negatives")
            }
        ),
        incidents=incidents(rails, spec, night),
    )


class _Ahead(NamedTuple):
    """Rows that are decided on later days."""

    rows: int
    cohorts: int


def _ahead(rails: Rails, spec: Spec, as_of: datetime) -> _Ahead:
    """The rows that have been predicted and are decided after the night, which the triangle does not hold yet."""
    if spec.label.until is None:
        return _Ahead(0, 0)
    night = night_closing(as_of)
    sql = f"""
        select count(distinct (entity_id, prediction_time)) as rows, count(distinct cohort) as cohorts
        from {{{PREDICTION}}} where model = $model and cohort > $night and night > $since
    """
    params = {"model": spec.name, "night": night, "since": night - spec.label.horizon - DAY}
    row = rails.lake.query(sql, as_of, params).iloc[0]
    return _Ahead(int(row["rows"]), int(row["cohorts"]))


def plot(rails: Rails, spec: Spec, as_of: datetime) -> Path | None:
    """Draw the curve to reports/arrival/<model>.png; None when no label has come."""

    triangle = arrivals(rails, spec, as_of)
    if triangle is None or not triangle.labels.sum():
        return None
    curve = runoff.curve(triangle, _of_incidents(rails, spec, night_closing(as_of) + DAY))
    return plots.arrival(
        triangle.shares,
        plots.ArrivalCurve(curve.labels, curve.positives, curve.negatives),
        rails.settings.reports / "arrival" / f"{spec.name}.png",
        matures=triangle.matures,
        night=triangle.night,
        title=spec.name,
    )


# -- incidents ------------------------------------------------------------------------------------


def _settle(rails: Rails, spec: Spec, night: date, assessments: tuple[Assessment, ...]) -> None:
    table = spec.label.table
    before = data_incidents.open_after(rails, spec.source, night - DAY)
    after = data_incidents.open_after(rails, spec.source, night)
    for assessment in assessments:
        key = DataIncidentKey(table, "", WHAT[assessment.stream])
        was = before.get(key)
        if assessment.stopped and key not in after:
            since = was.since if was else assessment.since
            data_incidents.record_change(rails, spec.source, night, key, "open", _reason(assessment), since)
        elif key in after and not assessment.stopped:
            long = was is not None and (night - was.since).days > runoff.WINDOW
            usual = long and assessment.came > 0 and assessment.stream != "missing"
            if assessment.well or usual:
                reason = "" if assessment.well else "no other night is left: it is the new usual"
                data_incidents.record_change(rails, spec.source, night, key, "closed", reason, after[key].since)


def _reason(assessment: Assessment) -> str:
    if assessment.stream == "missing":
        return (
            f"{assessment.came:.0f} rows of matured cohorts have no label, {assessment.predicted:.0f} usually have none"
        )
    kind = {"positives": "positive labels", "negatives": "negative labels"}.get(assessment.stream, "labels")
    return f"{assessment.came:.0f} {kind} have come since, {assessment.predicted:.0f} were to be expected"


def _of_incidents(rails: Rails, spec: Spec, night: date) -> frozenset[date]:
    """The nights before this one that belonged to an incident of the model's truth."""
    since: dict[str, date] = {}
    nights: set[date] = set()
    for changed_on, change in data_incidents.changes(rails, night - DAY):
        if change.table != spec.label.table:
            continue
        if change.state == "open":
            since[change.what] = change.since
        elif change.what in since:
            nights.update(_days(since.pop(change.what), changed_on))
    for first in since.values():
        nights.update(_days(first, night))
    return frozenset(nights)


def _days(first: date, end: date) -> list[date]:
    """[first, end)"""
    return [first + number * DAY for number in range((end - first).days)]
