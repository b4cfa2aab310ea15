"""Statistics of evidence.py against slow and obvious ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tiltyard.leak import intervals, reading

CELLS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.booleans()), min_size=8, max_size=60)


def slow_auc(rows):
    """Pair by pair: fold by fold, each row scored by the rows of the other folds."""
    wins, pairs = 0.0, 0
    for fold in {fold for fold, _, _ in rows}:
        others = [row for row in rows if row[0] != fold]
        base = sum(row[2] for row in others) / max(len(others), 1)

        def score(level, others=others, base=base):
            inside = [row[2] for row in others if row[1] == level]
            return round((sum(inside) + 20 * base) / (len(inside) + 20), 12)

        positive = [score(level) for number, level, label in rows if number == fold and label]
        negative = [score(level) for number, level, label in rows if number == fold and not label]
        if len(positive) < 2 or len(negative) < 2:
            continue
        wins += sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
        pairs += len(positive) * len(negative)
    return wins / pairs if pairs else None


@given(CELLS)
@settings(max_examples=60)
def test_the_auc_is_that_of_all_pairs(rows):
    folds, codes, label = (np.array(column) for column in zip(*rows, strict=True))
    auc, variance = intervals.out_of_fold_auc(codes, label.astype(bool), folds, 5)
    slow = slow_auc(rows)
    if slow is None:
        assert np.isnan(auc)
    else:
        assert auc == pytest.approx(slow)
        assert variance >= 0


@given(st.integers(0, 200), st.integers(1, 200), st.sampled_from([0.05, 0.001]))
@settings(max_examples=40)
def test_a_share_has_clopper_and_pearsons_interval(hits, rows, alpha):
    hits = min(hits, rows)
    exact = binomtest(hits, rows).proportion_ci(1 - alpha, method="exact")
    assert intervals.proportion_interval(hits, rows, alpha) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("true", [0.6, 0.8])
def test_the_interval_of_an_auc_holds_the_truth_as_often_as_it_says(true):
    """Two normals apart by d have an AUC of Φ(d / √2); a code per value keeps the ranks."""
    from scipy.stats import norm

    apart = np.sqrt(2) * norm.ppf(true)
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        label = rng.random(400) < 0.3
        value = rng.normal(size=400) + apart * label
        ranks = pd.Series(value).rank().to_numpy(dtype=int) - 1
        counts = np.zeros((2, 400))
        counts[label.astype(int), ranks] = 1
        auc, variance = intervals._delong(np.arange(400.0), counts[0], counts[1])
        low, high = intervals.auc_interval(auc, variance, 1.96, label.sum(), (~label).sum())
        missed += not low <= true <= high
    assert missed <= 22  # 5 % of 200, and what chance adds in one case of a thousand


@given(
    st.lists(st.datetimes(pd.Timestamp("1990-01-01"), pd.Timestamp("2090-01-01")), min_size=20, max_size=40),
    st.permutations(["%Y-%m-%dT%H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d %b %Y %H:%M"]),
)
@settings(max_examples=30)
def test_times_in_three_formats_are_read_as_they_were_written(moments, forms):
    moments = [moment.replace(microsecond=0, second=0) for moment in moments]
    texts = pd.Series([moment.strftime(forms[place % 3]) for place, moment in enumerate(moments)])
    read = reading.read("x", texts)
    assert read.kind == "instant"
    assert read.values.tolist() == [pd.Timestamp(moment, tz="UTC").timestamp() for moment in moments]
