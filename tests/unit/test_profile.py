"""Profiles: every row has one cell, what is kept comes back, nights are named by their end."""

import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard import profile

ANY = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32))


@given(training=st.lists(ANY, max_size=60), later=st.lists(ANY, max_size=60))
def test_every_row_has_one_cell(training: list, later: list) -> None:
    cells = profile.cut(pd.Series(training, dtype="float64"), numeric=True)
    counts = profile.count(cells, pd.Series(later, dtype="float64"))
    gone = sum(value is None or not np.isfinite(value) for value in later)
    assert (len(counts), counts.sum(), counts[-1]) == (cells.count, len(later), gone)


def test_what_training_never_saw_lies_outside() -> None:
    cells = profile.cut(pd.Series(np.linspace(10, 20, 500)), numeric=True)
    assert profile.count(cells, pd.Series([10.0, 15.0, 20.0]))[cells.outside].sum() == 0
    assert profile.count(cells, pd.Series([9.99, 20.01, 1e9, -1e9]))[cells.outside].sum() == 4


def test_rare_new_and_missing_categories_are_told_apart() -> None:
    names = [f"n{place:02}" for place in range(profile.KEPT)]
    cells = profile.cut(pd.Series([*names, *names, "rare"]), numeric=False)
    counts = profile.count(cells, pd.Series(["n00", "rare", "new", "newer", None]))
    assert (counts[0], *counts[-3:]) == (1, 1, 2, 1)


def test_booleans_are_categories_whatever_holds_them() -> None:
    cells = profile.cut(pd.Series([True, False, False]), numeric=False)
    assert cells.names == ("False", "True")
    assert list(profile.count(cells, pd.Series([True, None, False], dtype=object))) == [1, 1, 0, 0, 1]
    assert list(profile.count(cells, pd.Series([True, None, False], dtype="boolean"))) == [1, 1, 0, 0, 1]


def test_a_night_is_named_by_the_day_on_which_it_closes() -> None:
    as_of = datetime(2024, 3, 10, tzinfo=UTC)
    times = pd.Series(pd.to_datetime(["2024-03-09 00:00", "2024-03-09 23:59", "2024-03-08 23:59"], utc=True))
    found = profile.nights_of(times, timedelta(days=1), as_of)
    assert [date.fromordinal(int(night)) for night in found] == [date(2024, 3, 10)] * 2 + [date(2024, 3, 9)]


def test_what_a_version_keeps_comes_back() -> None:
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"amount": random.normal(size=200), "plan": random.choice(list("ab"), 200)})
    nights = np.repeat(np.arange(4) + 740_000, 50)
    score, label = random.random(200), (random.random(200) < 0.3).astype(float)
    kinds, views = {"amount": "numeric", "plan": "categorical"}, {"amount": "ftr_a__b", "plan": "ftr_a__b"}
    kept = profile.describe(frame, kinds, views, nights, score, label, {"amount": 0.75, "plan": 0.25})
    read = profile.read(json.loads(json.dumps({"profile": kept})))
    assert read is not None and [column.name for column in read.columns] == [
        "amount", "plan", "prediction", "label", "loss",
    ]  # fmt: skip
    assert sum(column.weight for column in read.columns) == pytest.approx(1.0)
    amount = read.column("amount")
    assert amount is not None and amount.view == "ftr_a__b"
    assert (amount.counts == profile.count_nights(amount.cells, frame["amount"], nights - 740_000, 4)).all()
    tonight = profile.night(read, frame.iloc[:50], score[:50])
    assert set(tonight) == {"amount", "plan", "prediction"}
    assert (tonight["amount"] == amount.counts[0]).all()
    known = profile.truth(read, nights, score, label)
    loss = read.column("loss")
    assert loss is not None and (known.counts["loss"] == loss.counts).all()


def test_a_version_from_before_has_no_profile() -> None:
    assert profile.read({}) is None


def test_the_distance_of_a_histogram_to_itself_and_to_nothing() -> None:
    for cells in (
        profile.cut(pd.Series(np.arange(50.0)), numeric=True),
        profile.cut(pd.Series(list("abc")), numeric=False),
    ):
        counts = np.arange(cells.count)
        assert profile.distance(cells, counts, 3 * counts) == 0
        assert np.isnan(profile.distance(cells, counts, 0 * counts))
