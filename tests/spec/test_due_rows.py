"""Rows that are decided at a time of their own: `horizon: until due_on, at most 20d`.

A visit is made today for a day that lies ahead, and whether it comes to something is decided on that day. A cohort is
what is decided on one day, whenever it was made, and matures when that day is over and the delay of a day has passed.
Days are of February 2024.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests.lakes import COLUMNS, FEATURES, LABELS, SPINES, fill, small_spec
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.judge import arrival, shadow
from tiltyard.prepare import frame, truth
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.tables import Table

# visit | made at | due | label, known at | the night that names its cohort: the one that covers the instant at which
# it is decided
VISITS = """
far      1 09:00   12   yes  13 00:00   13
near    10 09:00   12   no   12 18:00   13
today   12 09:00   12   yes  13 10:00   13
next    12 10:00   13   no   13 11:00   14
early    3 09:00   15   yes   4 09:00   16
past     8 09:00    2   no    8 20:00    9
nobody  20 09:00    -   yes  22 09:00   41
beyond   2 09:00   60   no   12 09:00   23
"""
# night | whose labels count | matured, of which none has a label | early ones
NIGHTS = """
 4  -                          0 0  0
 9  -                          0 0  2
10  past                       1 0  1
13  past                       1 0  4
14  past far near today        4 0  3
15  past far near today next   5 0  2
17  past far near today next early   6 0  1
24  past far near today next early beyond   7 0  1
"""


def at(day: int, time: str = "00:00") -> datetime:
    return datetime(2024, 2, 1, int(time[:2]), int(time[3:]), tzinfo=UTC) + timedelta(days=day - 1)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return small_spec(tmp_path_factory.mktemp("due"), horizon="'until due_on, at most 20d'", delay="1d")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, spec: Spec) -> Iterator[Rails]:
    """The visits, each scored on its night by the safe default."""
    home = tmp_path_factory.mktemp("drawn")
    settings = Settings(home=home / "home", models=home, database_url=postgres_url, database_prefix="due_rows_")
    with rails_module.opened(settings) as rails:
        rails.lake.ensure(Table(SPINES, COLUMNS[SPINES] | {"due_on": "date"}))
        fill(rails, FEATURES, [{"shop_id": "s", "event_time": at(1), "size": 1}])
        fill(rails, LABELS, [])
        for line in VISITS.strip().splitlines():
            name, day, time, due, label, known, known_at, _ = line.split()
            made = at(int(day), time)
            fill(rails, SPINES, [{"visit_id": name, "shop_id": "s", "prediction_time": made}])
            fill(
                rails, LABELS,
                [{"visit_id": name, "prediction_time": made, "label": label == "yes",
                  "event_time": at(int(known), known_at), "available_at": at(int(known), known_at)}],
            )  # fmt: skip
            if due != "-":
                rails.lake.connection.execute(
                    f"update lake.{SPINES} set due_on = ? where visit_id = ?", [at(int(due)).date(), name]
                )
        for number in range(2, 26):
            night = night_closing(at(number))
            rails.ledger.record_stage("", night, "done", FeaturesSummary(snapshot=rails.lake.snapshot()))
            shadow.score(rails, spec, at(number))
        yield rails


def test_a_row_is_of_the_cohort_of_the_day_on_which_it_is_decided(drawn: Rails, spec: Spec) -> None:
    rows = drawn.lake.connection.execute(
        f"select visit_id, {frame.cohort(drawn, spec, drawn.lake.snapshot())} from lake.{SPINES}"
    ).fetchall()
    told = {line.split()[0]: int(line.split()[-1]) for line in VISITS.strip().splitlines()}
    assert {name: (cohort - night_closing(at(1))).days + 1 for name, cohort in rows} == told
    scored = drawn.lake.connection.execute("select entity_id, cohort from lake.ops.prediction").fetchall()
    assert {name: (cohort - night_closing(at(1))).days + 1 for name, cohort in scored} == told


def test_whole_cohorts_count_and_what_is_known_early_does_not(drawn: Rails, spec: Spec) -> None:
    for line in NIGHTS.strip().splitlines():
        day, *names, labelled, missing, early = line.split()
        looked_at = truth.matured(drawn, spec, at(int(day)))
        assert sorted(looked_at["entity_id"]) == sorted(name for name in names if name != "-"), line
        assert looked_at["night"].is_monotonic_increasing
        counts = truth.counts(drawn, spec, at(int(day)))
        assert (counts.matured, counts.missing, counts.early) == (int(labelled), int(missing), int(early)), line
        waiting = truth.immature(drawn, spec, at(int(day)))
        made = [name for name, when, *_ in map(str.split, VISITS.strip().splitlines()) if int(when) < int(day)]
        assert len(waiting) == len(made) - len(looked_at), line


def test_since_a_cohort_also_brings_what_was_made_long_before_it(drawn: Rails, spec: Spec) -> None:
    since = night_closing(at(13))
    assert set(truth.matured(drawn, spec, at(17), since=since)["entity_id"]) == {
        "far",
        "near",
        "today",
        "next",
        "early",
    }
    rows = truth.side_by_side(drawn, spec, at(17), [], since=since)
    first = night_closing(at(1)).toordinal() - 1
    assert sorted(rows["scored_on"] - first) == [2, 3, 4, 11, 13, 13]
    matured = dict(zip(rows["night"] - first, rows["is_matured"], strict=True))
    assert matured == {13: True, 14: True, 16: True, 23: False}


def test_a_training_frame_holds_the_cohorts_that_have_matured(drawn: Rails, spec: Spec) -> None:
    found = frame.training(drawn, spec, at(14), drawn.lake.snapshot()).read()
    assert sorted(found["visit_id"]) == ["far", "near", "past", "today"]
    assert (found["decided_at"] <= pd.Timestamp(at(13))).all()
    assert frame.matured(drawn, spec, at(14), drawn.lake.snapshot()) == 4
    assert frame.matured(drawn, spec, at(17), drawn.lake.snapshot(), after=at(14)) == 2


def test_the_truth_of_a_row_comes_so_many_nights_after_its_cohort(drawn: Rails, spec: Spec) -> None:
    triangle = arrival.arrivals(drawn, spec, at(17))
    assert triangle is not None and triangle.matures == 1
    of_13 = (night_closing(at(13)) - triangle.first).days
    assert triangle.sizes[of_13] == 3
    assert list(triangle.labels[of_13][:2]) == [2, 1], "two on the night of the day itself, one on the next"
    told = arrival.report(drawn, spec, at(17))
    assert told is not None and (told.waiting_rows, told.waiting_cohorts) == (1, 1), "beyond waits for day 22"


def test_a_column_that_tells_no_time_is_refused(drawn: Rails, tmp_path: Path) -> None:
    for column, why in (("due", "has no column due"), ("shop_id", "is a VARCHAR; cast it to a date")):
        other = small_spec(tmp_path, horizon=f"'until {column}, at most 20d'")
        with pytest.raises(BadInput, match=why):
            frame.training(drawn, other, at(14), drawn.lake.snapshot())


@pytest.mark.parametrize("text", ["until", "until due_on", "until due_on, at most", "until due_on, at most soon"])
def test_a_horizon_says_both_the_column_and_the_longest_time(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"at most|not a duration"):
        small_spec(tmp_path, horizon=f"'{text}'")
