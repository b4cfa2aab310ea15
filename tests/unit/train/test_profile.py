"""Histograms: every value has one cell, what a version keeps comes back, a night is the date on which it closes."""

import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from tiltyard.train import profile

numbers = st.lists(st.floats(-1e6, 1e6, width=32) | st.none(), min_size=1, max_size=200)


@given(numbers, numbers)
@settings(max_examples=60)
def test_every_number_has_one_cell(training, now):
    cells = profile.cut(pd.Series(training, dtype="float64"), numeric=True)
    counts = profile.count(cells, pd.Series(now, dtype="float64"))
    assert len(counts) == cells.count and counts.sum() == len(now)
    assert counts[-1] == sum(value is None for value in now)
    known = [value for value in training if value is not None]
    if known:
        beyond = sum(value is not None and not min(known) <= value <= max(known) for value in now)
        assert counts[cells.outside].sum() == beyond


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1), st.lists(st.sampled_from(["a", "b", "z", None])))
@settings(max_examples=60)
def test_every_category_has_one_cell(training, now):
    cells = profile.cut(pd.Series(training, dtype=object), numeric=False)
    counts = profile.count(cells, pd.Series(now, dtype=object))
    seen = {value for value in training if value is not None}
    assert counts.sum() == len(now) and counts[-1] == now.count(None)
    assert counts[-2] == sum(value is not None and value not in seen for value in now)


def test_rare_categories_share_a_cell_and_are_no_new_ones():
    names = [f"n{number:03d}" for number in range(100)]
    cells = profile.cut(pd.Series([name for name in names for _ in range(3)] + ["often"] * 9), numeric=False)
    assert cells.names[0] == "often" and len(cells.names) == profile.KEPT
    counts = profile.count(cells, pd.Series(["often", "n099", "never"]))
    assert counts[0] == 1 and counts[-3:].tolist() == [1, 1, 0]


def test_infinite_numbers_and_words_among_numbers_are_missing():
    cells = profile.cut(pd.Series([1.0, 2.0, 3.0, np.inf]), numeric=True)
    assert (cells.low, cells.high) == (1.0, 3.0)
    assert profile.count(cells, pd.Series(["2", "two", np.inf], dtype=object))[-1] == 2


@given(st.integers(0, 10_000), st.floats(-2, 2), st.floats(0.5, 1.25))
@settings(max_examples=30)
def test_the_distance_of_numbers_is_wassersteins_over_the_deviation(seed, moved, wider):
    random = np.random.default_rng(seed)
    training, now = random.gamma(2, 3, 1500), random.gamma(2, 3, 400) * wider + moved
    cells = profile.cut(pd.Series(training), numeric=True)
    found = profile.distance(cells, profile.count(cells, training), profile.count(cells, now))
    assert float(found) == pytest.approx(wasserstein_distance(training, now) / training.std(), rel=0.1, abs=0.06)


def test_nothing_against_something_has_no_distance():
    for values, numeric in (([1.0, 2.0, 3.0], True), (["a", "b", "a"], False)):
        cells = profile.cut(pd.Series(values), numeric=numeric)
        counts = profile.count(cells, pd.Series(values))
        assert float(profile.distance(cells, counts, counts)) == pytest.approx(0.0)
        assert np.isnan(profile.distance(cells, counts, np.zeros_like(counts)))


def test_a_night_is_named_by_the_date_on_which_it_closes():
    as_of = datetime(2024, 3, 5, tzinfo=UTC)
    times = pd.Series(
        pd.to_datetime(["2024-03-03T23:59Z", "2024-03-04T00:00Z", "2024-03-04T23:59Z", "2024-03-01T05:00Z"])
    )
    found = profile.nights_of(times, timedelta(days=1), as_of)
    assert [date.fromordinal(int(night)).day for night in found] == [4, 5, 5, 2]


def frame(rows, seed=1):
    random = np.random.default_rng(seed)
    columns = {"amount": random.normal(0, 1, rows), "plan": random.choice(list("abc"), rows)}
    return pd.DataFrame(columns), random.random(rows), (random.random(rows) < 0.3).astype(float)


def test_what_a_version_keeps_comes_back_and_counts_its_own_training():
    rows, score, label = frame(300)
    nights = 738_000 + np.arange(300) // 60
    importance = {"amount": 0.9, "plan": 0.1}
    kinds = {"amount": "numeric", "plan": "categorical"}
    kept = profile.describe(rows, kinds, {"amount": "ftr_a"}, nights, score, label, importance)
    reference = profile.read(json.loads(json.dumps({"profile": kept})))
    assert reference is not None and profile.read({}) is None
    assert reference.nights.tolist() == [738_000, 738_001, 738_002, 738_003, 738_004]
    names = ["amount", "plan", profile.PREDICTION, profile.LABEL, profile.LOSS]
    assert [column.name for column in reference.columns] == names
    assert [column.view for column in reference.columns] == ["ftr_a", None, None, None, None]
    assert sum(column.weight for column in reference.columns) == pytest.approx(1.0)
    assert all((column.counts.sum(axis=1) == 60).all() for column in reference.columns)

    tonight = profile.night(reference, rows.iloc[:60], score[:60])
    assert set(tonight) == {"amount", "plan", profile.PREDICTION}
    for name, counts in tonight.items():
        assert counts.tolist() == reference.column(name).counts[0].tolist()
    known = profile.truth(reference, nights[:120], score[:120], label[:120])
    assert known.counts[profile.LOSS].tolist() == reference.column(profile.LOSS).counts[:2].tolist()
    assert known.until(738_000).counts[profile.LABEL].shape[0] == 1


def test_a_useless_feature_still_weighs():
    found = profile.weights({"all": 1.0, "nothing": 0.0})
    assert 0 < found["nothing"] < found["all"]
    assert sum(found.values()) + sum(profile.OTHERS.values()) == pytest.approx(1.0)
    assert profile.importance(np.zeros((3, 2)), ["a", "b"]) == {"a": 0.5, "b": 0.5}
    assert profile.importance(np.array([[3.0, -1.0]]), ["a", "b"]) == {"a": 0.75, "b": 0.25}


def test_booleans_are_categories_whatever_holds_them():
    cells = profile.cut(pd.Series([True, False, True]), numeric=False)
    for values in ([True, False, None], pd.array([True, False, None], dtype="boolean")):
        assert profile.count(cells, pd.Series(values)).tolist() == [1, 1, 0, 0, 1]
