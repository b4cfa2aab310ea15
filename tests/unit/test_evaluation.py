"""Figures on matured rows: against scikit-learn, and where the rows do not carry a figure."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltyard import evaluation

START = datetime(2016, 3, 1, tzinfo=UTC)


def frame(score, label, per_night=50, **columns):
    times = [START + timedelta(days=place // per_night, minutes=place % per_night) for place in range(len(score))]
    return pd.DataFrame({"score": score, "label": label, "prediction_time": times, **columns})


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5001, 0.9, 1.0]), st.integers(0, 1)), min_size=2, max_size=60
    )
)
@settings(deadline=None)
def test_the_figures_are_those_of_scikit_learn(rows):
    from sklearn import metrics

    score, label = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = evaluation.evaluate(frame(score, label))[0]
    assert found.brier == pytest.approx(metrics.brier_score_loss(label, score, pos_label=1))
    clipped = np.clip(score, evaluation.CLIP, 1 - evaluation.CLIP)
    assert found.log_loss == pytest.approx(metrics.log_loss(label, clipped, labels=[0, 1]), abs=1e-9)
    if 0 < label.sum() < len(label):
        assert found.auc == pytest.approx(metrics.roc_auc_score(label, score))
    else:
        assert found.auc is None


def test_slices_come_after_all_sorted_and_with_their_own_cohorts():
    rows = frame([0.2] * 120, [0, 1] * 60, priority=["high"] * 70 + ["low"] * 50)
    found = evaluation.evaluate(rows, ["priority"])
    assert [(part.slice, part.matured, part.nights) for part in found] == [
        ("all", 120, 3),
        ("priority=high", 70, 2),
        ("priority=low", 50, 2),
    ]
    assert found[2].cohort_from == START + timedelta(days=1, minutes=20)
    assert found[0].positive_rate == 0.5
    assert found[0].mean_score == pytest.approx(0.2)


def test_without_rows_there_are_no_figures():
    (found,) = evaluation.evaluate(frame([], []))
    assert (found.matured, found.brier, found.auc, found.cohort_from) == (0, None, None, None)


def test_one_night_has_a_brier_score_but_no_interval():
    (found,) = evaluation.evaluate(frame([0.3] * 20, [0, 1] * 10))
    assert found.brier is not None
    assert found.brier_low is None


@pytest.mark.parametrize(("score", "label"), [([math.nan], [0]), ([0.5], [math.nan]), ([0.5], [2])])
def test_rows_that_are_no_evidence_are_refused(score, label):
    with pytest.raises(ValueError, match="finite score"):
        evaluation.evaluate(frame(score, label))


def test_rows_that_share_a_night_widen_the_interval():
    rng = np.random.default_rng(1)
    nights = np.repeat(np.arange(12), 100)
    shared = rng.normal(0, 0.1, 12)[nights] + rng.normal(0, 0.05, 1200)
    clustered = evaluation.clustered_interval(shared, nights)
    naive = 1.96 * shared.std() / math.sqrt(len(shared))
    assert clustered is not None
    assert clustered[1] - clustered[0] > 3 * 2 * naive


def test_the_interval_covers_the_mean_of_nights_as_often_as_it_says():
    rng = np.random.default_rng(2)
    nights = np.repeat(np.arange(10), 40)
    covered = 0
    for _ in range(600):
        low, high = evaluation.clustered_interval(rng.normal(0, 0.1, 10)[nights] + rng.normal(0, 0.1, 400), nights)
        covered += low <= 0 <= high
    assert 0.92 <= covered / 600 <= 0.98


def test_calibration_counts_every_row_once():
    score = np.linspace(0, 1, 101)
    bins = evaluation.calibration(score, (score > 0.5).astype(float))
    assert sum(part.rows for part in bins) == 101
    assert bins[-1].high == 1.0
    assert all(part.low - 1e-12 <= part.mean_score <= part.high for part in bins)
