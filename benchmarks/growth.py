"""What one more model costs a night, and what a year of nights costs it: CPU seconds and queries, in one process.

Clones of `churn` on the simulated business, the stages called as a chunk of the portfolio calls them, without Airflow:

- the CPU seconds that a model costs each stage, after the first one, which also pays for imports and connections
  (limit 0.5), and the queries that it puts to the ledger and to the lake; of the checks, what they take for all the
  models more than for one of them;
- the CPU of a week of nights of one model after 365 nights, over that of a week after 30, by this process and by the
  database's (limit 1.1). Its champion is as old as its history, which is the worst case for drift. The history in
  between is written in bulk, as `lake_maintenance` leaves it: predictions for the real spine rows, and copies of what a
  real night left in the other tables and in the ledger.

Exit 1 when a limit is missed. `--models` says how many clones, `--profile STAGE` prints where a stage's time goes.
"""

import argparse
import cProfile
import importlib
import pstats
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from tiltyard import clock, postgres
from tiltyard import rails as rails_module
from tiltyard.answered import fallback_audit
from tiltyard.clock import night_closing
from tiltyard.govern import drift, grants
from tiltyard.judge import promotion, shadow
from tiltyard.prepare import features
from tiltyard.prepare.simulator import Simulator
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, Promotion
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, portfolio
from tiltyard.train import training

MARGINAL_S, GROWTH = 0.5, 1.1
SOURCE = "subscription"
FIRST = clock.parse_as_of("2025-03-01")
DAY = timedelta(days=1)
WEEK, EARLY, LATE = 7, 30, 365
COPIED = ("profile", "evaluation", "estimate", "drift", "drift_detector", "tier_share")
"""Tables of which a real night's rows are copied to the others."""

Stage = Callable[[Rails, Spec, datetime], object]
STAGES: dict[str, Stage] = {
    "shadow": shadow.shadow_night,
    "promotion": lambda rails, spec, as_of: promotion.judge_night(rails, spec, as_of, assume="auto"),
    "drift": drift.measure_night,
    "fallback_audit": fallback_audit.audit_night,
}


@dataclass
class Cost:
    """What some work took."""

    cpu_s: float = 0.0
    ledger: int = 0
    lake: int = 0


@dataclass
class Meter:
    """Counts the queries of a process's rails, and its CPU seconds."""

    rails: Rails
    ledger: int = 0
    lake: int = 0
    profiles: dict[str, cProfile.Profile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def count(*_: Any) -> None:
            self.ledger += 1

        # a table that is missing is missing, whatever this module has imported under its name
        self.rails.lake.connection.execute("set python_enable_replacements = false")
        sa.event.listen(self.rails.ledger.engine, "before_cursor_execute", count)
        self.rails.lake.connection = Counted(self.rails.lake.connection, self)  # type: ignore[assignment]

    @contextmanager
    def measuring(self, stage: str = "") -> Iterator[Cost]:
        cost, before, begun = Cost(), (self.ledger, self.lake), time.process_time()
        profile = self.profiles.get(stage)
        if profile:
            profile.enable()
        yield cost
        if profile:
            profile.disable()
        cost.cpu_s = time.process_time() - begun
        cost.ledger, cost.lake = self.ledger - before[0], self.lake - before[1]


class Counted:
    """A connection of the lake that counts its statements."""

    def __init__(self, connection: Any, meter: Meter) -> None:
        self._connection, self._meter = connection, meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *arguments: Any) -> Any:
        self._meter.lake += 1
        return self._connection.execute(*arguments)


def clones(folder: Path, models: int) -> None:
    """Specs that train in a second, and promote as soon as they may."""
    content = yaml.safe_load((ROOT / "models" / "churn" / "spec.yaml").read_text())
    content["estimator"]["tune"] = {"trials": 1}
    content["gate"] |= {"min_matured": 100, "min_shadow": "1d", "rollback_window": "0d"}  # the same on every night
    content["drift"]["min_effect"] = 0.9  # no alarm, whose raw rows one of the compared weeks would read
    for number in range(models):
        home = folder / f"churn_{number:03}"
        home.mkdir(parents=True)
        (home / "spec.yaml").write_text(yaml.safe_dump(content))


@contextmanager
def business(models: int, days: int, customers: int) -> Iterator[Rails]:
    """Rails of a home with clones and `days` days of deliveries, built up to the last."""
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = Settings(home=folder / "home", models=folder / "models", sources=(SOURCE,))
        clones(settings.models, models)
        Simulator(customers=customers, days=days).land(settings.landing / SOURCE)
        try:
            with rails_module.opened(settings) as rails:
                yield rails
        finally:
            postgres.stop(settings)


def served(rails: Rails, specs: tuple[Spec, ...], as_of: datetime) -> None:
    """Every model has a champion that was trained and promoted on a night."""
    for spec in specs:
        version = training.train(rails, spec, as_of, requested_by="benchmark").version
        assert version is not None
        rails.ledger.claim_promotion(
            Promotion(
                model=spec.name,
                version=version,
                night=night_closing(as_of),
                replaced=None,
                requested_by="benchmark",
                approved_by=None,
                approval={"needed": False},
            )
        )
    rails.ledger.accept_as_found("benchmark", "champions by decree")


# -- one more model -------------------------------------------------------------------------------


def one_more_model(models: int, profiled: str) -> bool:
    with business(models, 62, 1_200) as rails:
        meter, specs = Meter(rails), portfolio(rails.settings)
        if profiled:
            meter.profiles[profiled] = cProfile.Profile()
        as_of = FIRST + DAY
        build = built(rails, as_of)
        features.check(rails, SOURCE, FIRST, build)
        features.publish(rails, SOURCE, FIRST)
        served(rails, specs, FIRST)
        costs = {"features' check": checked(meter, as_of, build)}
        features.publish(rails, SOURCE, as_of)
        for stage, work in STAGES.items():
            of_model = []
            for spec in specs:
                with meter.measuring(stage) as cost:
                    work(rails, spec, as_of)
                of_model.append(cost)
            costs[stage] = mean(of_model[1:])
        grants.govern_night(rails, as_of, specs)
    print(f"one more model, of {models} clones of churn that share a process:")
    print(f"  {'stage':16} {'CPU s':>7} {'ledger':>7} {'lake':>6} queries   limit {MARGINAL_S} s")
    for stage, cost in costs.items():
        missed = "" if cost.cpu_s <= MARGINAL_S else "   missed"
        print(f"  {stage:16} {cost.cpu_s:7.3f} {cost.ledger:7} {cost.lake:6}{missed}")
    for profile in meter.profiles.values():
        pstats.Stats(profile).sort_stats("cumulative").print_stats(50)
    return all(cost.cpu_s <= MARGINAL_S for cost in costs.values())


def built(rails: Rails, as_of: datetime) -> BuildSummary:
    features.ingest(rails, as_of)
    return features.transform(rails, as_of)


def checked(meter: Meter, as_of: datetime, build: BuildSummary) -> Cost:
    """What the checks take more for all the models than for the first of them, per model."""
    rails = meter.rails
    everybody = sorted(rails.settings.models.iterdir())
    aside = rails.settings.models.with_name("aside")
    aside.mkdir()
    for folder in everybody[1:]:
        folder.rename(aside / folder.name)
    features.check(rails, SOURCE, as_of, build)  # what is opened and created once
    with meter.measuring() as one:
        features.check(rails, SOURCE, as_of, fresh(rails, build))
    for folder in everybody[1:]:
        (aside / folder.name).rename(folder)
    with meter.measuring("check") as every:
        features.check(rails, SOURCE, as_of, fresh(rails, build))
    more = len(everybody) - 1
    return Cost((every.cpu_s - one.cpu_s) / more, (every.ledger - one.ledger) // more, (every.lake - one.lake) // more)


def fresh(rails: Rails, build: BuildSummary) -> BuildSummary:
    """Another snapshot of the lake: of the same one the process still knows what it found."""
    rails.lake.connection.execute("create or replace table lake.ops.mark as select 1 as mark")
    return build


def mean(costs: list[Cost]) -> Cost:
    number = len(costs)
    return Cost(
        sum(cost.cpu_s for cost in costs) / number,
        round(sum(cost.ledger for cost in costs) / number),
        round(sum(cost.lake for cost in costs) / number),
    )


# -- a year of nights -----------------------------------------------------------------------------


def a_year_of_nights(profiled: str) -> bool:
    with business(1, 60 + LATE + 2 * WEEK, 600) as rails:
        (spec,) = portfolio(rails.settings)
        meter = Meter(rails)
        if profiled:
            meter.profiles[profiled] = cProfile.Profile()
        build = built(rails, FIRST + (LATE + 2 * WEEK) * DAY)
        assert not build.failed
        published(rails, FIRST)
        served(rails, (spec,), FIRST)
        importlib.import_module("evidently")  # which an alarm would import in one of the two weeks
        week(meter, spec, 1)  # what the copies are made of, and everything that a process does once
        weeks = {}
        copied = WEEK
        for number in (EARLY, LATE):
            lengthen(rails, spec, copied + 1, number)
            copied = number + WEEK
            weeks[number] = week(meter, spec, number + 1)
    print(f"seven nights of one model, after {EARLY} and after {LATE}: CPU s of the process, and of the database")
    totals: dict[int, float] = defaultdict(float)
    for stage in weeks[EARLY]:
        (early, early_base), (late, late_base) = (weeks[number][stage] for number in (EARLY, LATE))
        print(f"  {stage:16} {early:6.2f} + {early_base:5.2f}   {late:6.2f} + {late_base:5.2f}")
        totals[EARLY] += early + early_base
        totals[LATE] += late + late_base
    ratio = totals[LATE] / totals[EARLY]
    missed = "" if ratio <= GROWTH else "   missed"
    print(f"  night {LATE} over night {EARLY}: {ratio:.2f}, limit {GROWTH}{missed}")
    for profile in meter.profiles.values():
        pstats.Stats(profile).sort_stats("cumulative").print_stats(50)
    return ratio <= GROWTH


def published(rails: Rails, as_of: datetime) -> None:
    """What was built is in service; the checks have their own measurement."""
    night = night_closing(as_of)
    rails.ledger.record_stage(SOURCE, night, "done", FeaturesSummary(snapshot=rails.lake.snapshot()))


def week(meter: Meter, spec: Spec, first: int) -> dict[str, tuple[float, float]]:
    """Stage → CPU seconds of this process and of the database's in seven nights, the `first` one after FIRST on."""
    rails = meter.rails
    spent: dict[str, tuple[float, float]] = dict.fromkeys(STAGES, (0.0, 0.0))
    for number in range(first, first + WEEK):
        as_of = FIRST + number * DAY
        published(rails, as_of)
        for stage, work in STAGES.items():
            before = database_s(rails)
            with meter.measuring(stage if first > LATE else "") as cost:
                work(rails, spec, as_of)
            process, base = spent[stage]
            spent[stage] = (process + cost.cpu_s, base + database_s(rails) - before)
        grants.govern_night(rails, as_of, [spec])
    return spent


def database_s(rails: Rails) -> float:
    """CPU seconds of the database's processes that answer now."""
    with rails.ledger.engine.connect() as connection:
        pids = [pid for (pid,) in connection.execute(sa.text("select pid from pg_stat_activity"))]
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def lengthen(rails: Rails, spec: Spec, first: int, last: int) -> None:
    """Write what the nights from the `first` to the `last` one after FIRST would have left."""
    start, end = (night_closing(FIRST + number * DAY) for number in (first, last))
    pattern = night_closing(FIRST + WEEK * DAY)
    lake = rails.lake.connection
    own = f"model = '{spec.name}' and night = date '{pattern}'"
    nights = f"(select unnest(generate_series(date '{start}', date '{end}', interval 1 day))::date as day)"
    version, apart, slices = lake.execute(
        f"select max(version), any_value(apart), any_value(slices) from lake.ops.prediction where {own}"
    ).fetchone()
    lake.execute(
        f"""
        insert into lake.ops.prediction by name
        select md5(concat(customer_id, prediction_time)) as request_id, '{spec.name}' as model, {version} as version,
            'champion' as role, customer_id as entity_id, prediction_time,
            0.05 + (hash(customer_id) % 100) / 500 as score, 'champion' as tier, 'in_service' as tier_reason,
            $slices as slices, {rails.publication().snapshot} as snapshot, $apart as apart,
            prediction_time::date + 1 as night, night::timestamptz as available_at, available_at as scored_at
        from (select customer_id, prediction_time from lake.spines.{spec.prediction.spine})
        where prediction_time::date + 1 between date '{start}' and date '{end}'
        """,
        {"slices": slices, "apart": apart},
    )
    for table in COPIED:
        lake.execute(
            f"insert into lake.ops.{table} by name "
            "select * exclude (day) replace (day as night, day::timestamptz as available_at) "
            f"from lake.ops.{table}, {nights} where {own}"
        )
    with rails.ledger.engine.begin() as connection:
        for table, columns in (("stage_run", "stage, model, status, summary"), ("finding", "model, body")):
            names = ", ".join(f"source.{name.strip()}" for name in columns.split(","))
            connection.execute(
                sa.text(
                    f"insert into {table} ({columns}, night, recorded_at) select {names}, day::date, day "
                    f"from {table} as source, generate_series(:start, :end, interval '1 day') as day "
                    "where source.night = :pattern on conflict do nothing"
                ),
                {"start": start, "end": end, "pattern": pattern},
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=12, help="number of clones")
    parser.add_argument("--only", choices=("models", "nights"), help="one of the two measurements")
    parser.add_argument("--profile", default="", help="a stage, or check")
    arguments = parser.parse_args()
    reached = []
    if arguments.only != "nights":
        reached.append(one_more_model(arguments.models, arguments.profile))
    if arguments.only != "models":
        reached.append(a_year_of_nights(arguments.profile))
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
