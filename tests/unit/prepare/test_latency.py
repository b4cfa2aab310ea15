"""What nights say together, and what a measured night says for itself."""

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.lakes import COLUMNS as TABLES
from tests.lakes import FEATURES, instant, small_spec
from tiltyard import suites
from tiltyard.edge import describe
from tiltyard.leak import suite
from tiltyard.pages import plots
from tiltyard.prepare import checks, contracts, embargo, latency, observation
from tiltyard.prepare.deliveries import DAY
from tiltyard.prepare.embargo import learn, quantile_of_counts
from tiltyard.prepare.latency import Latency, Spread, backfills
from tiltyard.prepare.observation import Observation
from tiltyard.prepare.outage import OutageVerdict
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.tables import FEATURE_LATENCY, Table

HOUR = 3600.0


def night(
    number: int, observed: np.ndarray, missed: dict[int, int] | None = None, **values: object
) -> dict[str, object]:
    """A row of ops.feature_latency."""
    points = np.quantile(observed, [0.5, 0.95, 0.99, 1.0]) if len(observed) else [None] * 4
    spread = dict(zip(("p50", "p95", "p99", "max"), points, strict=True))
    return {
        "night": date(2025, 3, 1) + timedelta(days=number),
        "table_name": "raw.login",
        "kind": "source",
        "rows": len(observed),
        "observed_rows": len(observed),
        "untimed": 0,
        **{f"claimed_{point}_s": value for point, value in spread.items()},
        **{f"observed_{point}_s": value for point, value in spread.items()},
        "missed": json.dumps(missed or {"0": len(observed)}),
        "promised_p99_s": 30 * HOUR,
        **values,
    }


def frame(*nights: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(nights, columns=[name for name in FEATURE_LATENCY.columns if name != "available_at"])


def test_the_p99_of_several_nights_is_that_of_all_their_rows() -> None:
    random = np.random.default_rng(3)
    nights = [random.uniform(0, hours * HOUR, 2000) for hours in (20, 24, 30, 24)]
    learned = learn(frame(*(night(number, rows) for number, rows in enumerate(nights))))["raw.login"]
    assert learned.observed_p99_s == pytest.approx(float(np.quantile(np.concatenate(nights), 0.99)), rel=0.03)
    assert (learned.nights, learned.rows, learned.verdict) == (4, 8000, "kept")


def test_one_late_day_in_four_weeks_is_an_embargo() -> None:
    """A day's file that came three nights late is more than a hundredth of four weeks' rows."""
    hours = np.full(100, 12 * HOUR)
    nights = [night(number, hours) for number in range(27)]
    late = night(27, np.concatenate([hours, hours + 3 * 86400]), {"0": 100, "3": 100})
    learned = learn(frame(*nights, late))["raw.login"]
    assert (learned.missed_nights, learned.late_rows, learned.verdict) == (3, 100, "late")
    assert learn(frame(*nights))["raw.login"].missed_nights == 0


def test_slower_than_promised_is_over_and_nothing_measured_is_unknown() -> None:
    assert learn(frame(night(0, np.full(50, 40 * HOUR))))["raw.login"].verdict == "over"
    assert learn(frame(night(0, np.array([]), {})))["raw.login"].verdict == "unknown"


def test_a_quantile_of_counts_is_exact() -> None:
    assert quantile_of_counts({0: 99, 5: 1}, 0.99) == 0
    assert quantile_of_counts({0: 98, 5: 2}, 0.99) == 5
    assert quantile_of_counts({}, 0.99) == 0


def test_rows_that_claim_to_be_old_are_counted_and_a_weeks_worth_of_them_is_critical() -> None:
    spread = Spread(1, 2, 3, 4)
    few = Latency("raw.login", "source", 100, 100, 0, spread, spread, {0: 70, 2: 20, 5: 10}, None)
    alerting, stopping = backfills({"raw.login": few}, {"raw.login": 100.0})
    assert (alerting.rule, alerting.rows, alerting.violations) == ("backfill", 100, 30)
    assert (stopping.rule, stopping.violations) == ("bulk_backfill", 0)
    many = Latency("raw.login", "source", 900, 900, 0, spread, spread, {0: 100, 9: 800}, None)
    assert backfills({"raw.login": many}, {"raw.login": 100.0})[1].violations == 800


def test_a_promise_is_held_against_the_observed_p99() -> None:
    day = DAY.total_seconds()
    slow = Latency("raw.login", "source", 100, 100, 0, None, Spread(1, day, 3 * day, 4 * day), {0: 100}, 2 * DAY)
    assert slow.over == 1.5
    assert slow.late_share == 0
    assert Latency("raw.login", "source", 10, 10, 0, None, Spread(1, day, 3 * day, 9), {0: 10}, DAY).over is None


def test_the_plot_is_drawn_with_gaps_and_without_a_promise(tmp_path: Path) -> None:
    rows = frame(
        night(0, np.full(30, HOUR)),
        night(3, np.full(30, 2 * HOUR)),
        night(0, np.full(30, HOUR), table_name="features.ftr_a__b", promised_p99_s=None),
    )
    path = plots.latency(rows, tmp_path / "latency" / "m.png", title="m")
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert not list(path.parent.glob(".*"))


def test_latencies_are_told_in_words() -> None:
    learned = learn(frame(night(0, np.full(50, 40 * HOUR))))["raw.login"]
    [row] = describe.latencies([learned])
    assert (row["promised p99"], row["observed p99"], row["verdict"]) == ("1 d 6 h", "1 d 16 h", "over")


# -- on a lake --------------------------------------------------------------------------------------

NIGHT = instant("2024-02-10")


def state(rails: Rails, shop: str, known: str, built: str) -> None:
    rails.lake.ensure(Table(FEATURES, TABLES[FEATURES]))
    rails.lake.connection.execute(
        f"insert into lake.{FEATURES} by name select ? as shop_id, 1 as size, "
        "?::timestamptz as event_time, ?::timestamptz as available_at, ?::timestamptz as built_at",
        [shop, instant(known), instant(known), instant(built)],
    )


def test_a_row_of_a_view_that_claims_to_be_older_than_the_night_that_first_had_it(rails: Rails) -> None:
    """s1 was there the night before and is only built again; s2 claims so and was not; s3 is new."""
    state(rails, "s1", "2024-02-05 10:00", "2024-02-09 02:00")
    before = FeaturesSummary(snapshot=rails.lake.snapshot())
    rails.ledger.record_stage("", (NIGHT - DAY).date(), "done", before)
    rails.lake.connection.execute(f"delete from lake.{FEATURES}")
    state(rails, "s1", "2024-02-05 10:00", "2024-02-10 02:00")
    state(rails, "s2", "2024-02-05 10:00", "2024-02-10 02:00")
    state(rails, "s3", "2024-02-09 10:00", "2024-02-10 02:00")
    found = latency.of_views(rails, ["ftr_shop__state"], NIGHT)["ftr_shop__state"]
    assert (found.rows, found.observed_rows, found.missed) == (2, 2, {0: 1, 4: 1})
    assert found.late == 1


def test_a_feature_that_would_not_have_been_there_is_named(rails: Rails, tmp_path: Path) -> None:
    """The slowest rows of the view miss two nights: of these three predictions the first two had not seen theirs."""
    rails.lake.ensure(FEATURE_LATENCY)
    spread = Spread(1, 2, 3, 4)
    slow = Latency("features.ftr_shop__state", "view", 100, 100, 0, spread, spread, {0: 97, 2: 3}, None)
    rails.lake.commit(lambda connection: latency.store(connection, [slow], NIGHT), message="measured")
    rails.lake.connection.execute(
        "create temp table made as select prediction_time, prediction_time - age as ftr_shop__state__available_at "
        "from (select ?::timestamptz as prediction_time, unnest([interval 1 hour, interval 1 day, interval 3 day, "
        "null]) as age)",
        [NIGHT - timedelta(hours=12)],
    )
    spec, views = small_spec(tmp_path), ["ftr_shop__state"]
    found = embargo.frame_results(rails, spec, "frame", "made", views, NIGHT)
    assert [(one.rule, one.rows, one.violations) for one in found] == [("arrives_in_time", 3, 2)]
    report = suite.report(rails, found, NIGHT, subject="small", suite_name="training_frame", render=False)
    assert report.success
    assert [one.name for one in report.warnings] == ["features_to_arrive_in_time"]
    [kept] = embargo.frame_results(rails, spec, "frame", "made", views, NIGHT - DAY)
    assert kept.violations == 0, "the night before, nothing had been measured yet"


GOOD_NIGHT = {
    "table_name": "'raw.login'", "rows_total": "100", "rows_night": "100", "usual_rows": "100", "volume_ratio": "1",
    "age_hours": "1", "rows_landed": "100", "undated_rows": "0", "undated_share": "0", "dated_after_ingest": "0",
    "keyless_rows": "0",
}  # fmt: skip


VERY_LATE = [  # rows of 100 that come nights late, observed p99 in units of the promise, what fails by severity
    (0, 0.9, {}),
    (60, 2, {"latency_ratio": "warning"}),  # most of the night is late, though not by much
    (40, 8, {"latency_ratio": "warning"}),  # some of it is very late
    (60, 8, {"latency_ratio": "warning", "late_latency_ratio": "critical"}),
]


def test_a_night_of_mostly_very_late_rows_is_not_served(rails: Rails) -> None:
    observation.expectations()
    suite = suites.load(rails.settings.expectations / "freshness.yaml")
    table = contracts.read(rails.settings, "subscription").table("login")
    assert table
    listed = ", ".join(f"{value} as {name}" for name, value in GOOD_NIGHT.items())
    for late, promises, expected in VERY_LATE:
        observed = Spread(*[promises * 30 * HOUR] * 4)
        missed = {0: 100 - late, 9: late}
        one = Latency("raw.login", "source", 100, 100, 0, observed, observed, missed, timedelta(hours=30))
        night_of_shop = Observation("shop", {"raw.login": one}, {"raw.login": OutageVerdict((), frozenset())}, ())
        sql = f"select {listed}, {night_of_shop.columns('raw.login')}"
        batch = suites.Batch("raw.login", sql, (*GOOD_NIGHT, *observation.OBSERVED), checks.limits(table))
        results = suites.run_suite(rails, suite, batch, complete=True).results
        assert {one.column: one.severity for one in results if not one.success} == expected, (late, promises)
