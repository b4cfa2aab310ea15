"""A truth that stops arriving: how many false incidents the real nights raise, and how soon a cut is one.

Each source is built once; every spine row counts as predicted. Then `arrival.record` judges night by night, as the
shadow stage does. After that the labels (all of them, or one class) are cut off on a night of every third week, and
the nights until the incident are counted. Then nights of made-up models of which nothing changes, with weekdays and
more noise than chance, for the rate of false alarms. Prints a table and a line; returns 1 when an untouched night
raised an incident, or a cut of all labels was not noticed within a week.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from tiltyard import clock, postgres
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.judge import arrival, runoff
from tiltyard.judge.runoff import Arrivals
from tiltyard.prepare import datasets, ingest, transform
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, find
from tiltyard.tables import PREDICTION

DAY = timedelta(days=1)
NIGHTS = {
    "sla_breach": (date(2016, 3, 2), date(2016, 6, 10)),
    "hotel_cancellation": (date(2015, 10, 1), date(2017, 1, 31)),
    "flight_delay": (date(2014, 1, 3), date(2014, 12, 31)),
    "customer_repurchase": (date(2011, 1, 10), date(2011, 12, 9)),
}
"""Model → its nights. Hotels and tickets: as long as their cohorts are whole (the data is sampled by arrival, and 98 %
of the tickets were opened by the end of May)."""
SOONEST = 40
"""Nights before the first cut: what is usual has to be known."""


def predicted(rails: Rails, spec: Spec, last: datetime) -> None:
    """Every spine row, as if the safe default had answered."""
    rows = rails.lake.query(
        f"select cast({spec.key} as varchar) as entity_id, prediction_time from {{spines.{spec.prediction.spine}}}",
        last,
    )
    ends = pd.to_datetime(rows["prediction_time"], utc=True).dt.floor("D") + DAY
    rows = rows.assign(
        request_id=rows["entity_id"], model=spec.name, version=pd.array([None] * len(rows), dtype="Int32"),
        role="safe_default", score=spec.fallback.safe_default, tier="safe_default", tier_reason=None, slices="{}",
        snapshot=1, apart=None, night=ends.dt.date, available_at=ends, scored_at=ends, cohort=pd.NaT,
    )  # fmt: skip
    rails.lake.ensure(PREDICTION)
    rails.lake.replace(PREDICTION, {"model": spec.name}, rows[list(PREDICTION.columns)], message="the spine")
    rails.ledger.record_stage("", night_closing(last), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))


def real(name: str) -> Iterator[tuple[date, Arrivals, list[dict[str, object]]]]:
    """(night, triangle, incidents opened by then) of a model's nights."""
    spec = find(ROOT / "models", name)
    first, last = NIGHTS[name]
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        settings = Settings(home=Path(folder), sources=(spec.source,))
        try:
            datasets.fetch(settings, spec.source)
            with rails_module.opened(settings) as rails:
                ingest.land_night(rails, spec.source, clock.midnight(last))
                transform.build(rails, (spec.source,), clock.midnight(last))
                predicted(rails, spec, clock.midnight(last))
                for as_of in clock.nights(clock.midnight(first), clock.midnight(last)):
                    arrival.record(rails, spec, as_of)
                    found = arrival.arrivals(rails, spec, as_of)
                    if found is not None:
                        yield night_closing(as_of), found, arrival.incidents(rails, spec, night_closing(as_of))
        finally:
            postgres.stop(settings)


def noticed(nights: dict[date, Arrivals], cut: date, stream: str) -> int | None:
    """Nights until the cut is an incident, the first without labels being 1; None when it is not one within 30."""
    for number in range(30):
        found = nights.get(cut + number * DAY)
        if found is None:
            return None
        gone = found.nights >= cut.toordinal()
        without = replace(
            found,
            positive=np.where(gone & (stream != "negatives"), 0, found.positive),
            negative=np.where(gone & (stream != "positives"), 0, found.negative),
        )
        if any(one.stopped for one in runoff.assess(without)):
            return number + 1
    return None


def stationary(seed: int, nights: int) -> Arrivals:
    """A model of which nothing changes: weekdays differ, nights vary three times as much as chance, holidays come."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(np.log(20), np.log(2_000)))
    ages, rate = 22, rng.uniform(0.05, 0.5)
    first = date(2024, 1, 1)
    weekday = rng.gamma(4, 1 / 4, 7)
    busy = weekday[(np.arange(nights) + first.weekday()) % 7] * rng.gamma(12, 1 / 12, nights)
    sizes = rng.poisson(size * busy)
    open_ = weekday[(np.arange(nights + ages) + first.weekday()) % 7] * rng.gamma(12, 1 / 12, nights + ages)
    positive, negative = np.zeros((2, nights, ages), dtype=np.int64)
    for cohort in range(nights):
        yes = rng.binomial(sizes[cohort], rate)
        for table, left, speed in ((positive, yes, 0.2), (negative, sizes[cohort] - yes, 0.1)):
            for age in range(ages):
                chance = 1 - np.exp(-speed * open_[cohort + age])
                table[cohort, age] = rng.binomial(left, chance)
                left -= table[cohort, age]
    return Arrivals(first, first + (nights - 1) * DAY, sizes, positive, negative, 14)


def main() -> int:
    bad = 0
    print(
        "| model | nights | labels | incidents on untouched nights | cut | cuts | noticed after (median, worst) | not |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in NIGHTS:
        nights, opened = {}, set()
        for night, found, open_ in real(name):
            nights[night] = found
            opened |= {(one["what"], one["since"]) for one in open_}
        bad += len(opened)
        rows = int(sum(found.labels[found.nights == night.toordinal()].sum() for night, found in nights.items()))
        cuts = sorted(nights)[SOONEST:-15:21]
        for stream in ("labels", "positives", "negatives"):
            took = [noticed(nights, cut, stream) for cut in cuts]
            known = [number for number in took if number is not None]
            if stream == "labels":
                bad += sum(number is None or number > 7 for number in took)
            told = f"{np.median(known):.0f}, {max(known)} nights" if known else "–"
            listed = ", ".join(f"{what} {since}" for what, since in sorted(opened)) or "0"
            print(
                f"| {name} | {len(nights)} | {rows:,} | {listed} | {stream} | {len(cuts)} | {told} | "
                f"{len(took) - len(known)} |",
                flush=True,
            )
    models, span = 30, 365
    alarms = incidents = judged = 0
    for seed in range(models):
        whole = stationary(seed, span + runoff.WINDOW)
        last = {"alarm": -runoff.RUN, "incident": -runoff.RUN}
        for number in range(runoff.WINDOW, span + runoff.WINDOW):
            found = runoff.assess(whole.until(whole.first + number * DAY))
            alarm, incident = any(one.evidence >= one.threshold for one in found), any(one.stopped for one in found)
            alarms += alarm and number - last["alarm"] >= runoff.RUN
            incidents += incident and number - last["incident"] >= runoff.RUN
            last = {"alarm": number if alarm else last["alarm"], "incident": number if incident else last["incident"]}
            judged += 1
    years = judged / runoff.YEAR
    print(f"\n{models} made-up models over {years:.0f} model-years of which nothing changes: {alarms} alarms "
          f"({alarms / years:.2f} a model-year; at most 1 if nights were exchangeable), {incidents} of them with an "
          f"effect, hence an incident ({incidents / years:.3f} a model-year)")  # fmt: skip
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
