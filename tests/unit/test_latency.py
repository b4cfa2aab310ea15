"""What nights say together, and what a measured night says for itself."""

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiltyard import describe, plots
from tiltyard.latency import COLUMNS, DAY, Latency, Spread, backfills, learn, quantile_of_counts

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
    return pd.DataFrame(nights, columns=[name for name in COLUMNS if name != "available_at"])


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
    from dataclasses import asdict

    [row] = describe.latencies([{**asdict(learned), "verdict": learned.verdict}])
    assert (row["promised p99"], row["observed p99"], row["verdict"]) == ("1 d 6 h", "1 d 16 h", "over")
