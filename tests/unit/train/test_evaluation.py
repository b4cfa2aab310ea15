"""Figures on matured rows: against scikit-learn, and where the rows do not carry a figure."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard import target
from tiltyard.spec import Cost, GatePolicy
from tiltyard.train import evaluation

START = datetime(2016, 3, 1, tzinfo=UTC)


def frame(score, label, per_night=50, **columns):
    times = [START + timedelta(days=place // per_night, minutes=place % per_night) for place in range(len(score))]
    return pd.DataFrame({"score": score, "label": label, "prediction_time": times, **columns})


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5001, 0.9, 1.0]), st.integers(0, 1)), min_size=2, max_size=60
    )
)
def test_the_figures_are_those_of_scikit_learn(rows):
    from sklearn import metrics

    score, label = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = evaluation.evaluate(frame(score, label))[0]
    assert found.figures["brier"] == pytest.approx(metrics.brier_score_loss(label, score, pos_label=1))
    clipped = np.clip(score, target.CLIP, 1 - target.CLIP)
    assert found.figures["log_loss"] == pytest.approx(metrics.log_loss(label, clipped, labels=[0, 1]), abs=1e-9)
    if 0 < label.sum() < len(label):
        assert found.figures["auc"] == pytest.approx(metrics.roc_auc_score(label, score))
    else:
        assert found.figures["auc"] is None


def test_slices_come_after_all_sorted_and_with_their_own_cohorts():
    rows = frame([0.2] * 120, [0, 1] * 60, slice_priority=["high"] * 70 + ["low"] * 50)
    found = evaluation.evaluate(rows, ["priority"])
    assert [(part.slice, part.matured, part.nights) for part in found] == [
        ("all", 120, 3),
        ("priority=high", 70, 2),
        ("priority=low", 50, 2),
    ]
    assert found[2].cohort_from == START + timedelta(days=1, minutes=20)
    assert found[0].figures["positive_rate"] == 0.5
    assert found[0].mean_score == pytest.approx(0.2)


def test_without_rows_there_are_no_figures():
    (found,) = evaluation.evaluate(frame([], []))
    assert (found.matured, found.figures["brier"], found.figures["auc"], found.cohort_from) == (0, None, None, None)


def test_one_night_has_a_brier_score_but_no_interval():
    (found,) = evaluation.evaluate(frame([0.3] * 20, [0, 1] * 10))
    assert found.figures["brier"] is not None
    assert found.figures["brier_low"] is None


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


COST = Cost(false_positive=1, false_negative=4)
scored = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=60)


@given(scored, st.sampled_from(["brier", "log_loss", "cost"]))
def test_losses_are_in_the_unit_interval_and_order_scores_by_the_truth(rows, metric):
    score, label = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = target.YES_OR_NO.losses(metric, score, label, COST)
    assert ((found >= 0) & (found <= 1)).all()
    closer = target.YES_OR_NO.losses(metric, score + (label - score) / 2, label, COST)
    assert (closer <= found + 1e-12).all()


def test_losses_by_hand():
    score, label = np.array([0.5, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0])
    assert target.YES_OR_NO.losses("brier", score, label, None).tolist() == [0.25, 1, 0, 0]
    logs = target.YES_OR_NO.losses("log_loss", score, label, None)
    assert logs == pytest.approx([math.log(2) / math.log(1000), 1, *[-math.log(0.999) / math.log(1000)] * 2])
    with pytest.raises(ValueError, match="cost matrix"):
        target.YES_OR_NO.losses("cost", score, label, None)


@pytest.mark.parametrize(
    ("cost", "threshold"),
    [
        (Cost(false_positive=1, false_negative=4), 0.2),
        (Cost(false_positive=1, false_negative=4, threshold=0.5), 0.5),
        (Cost(false_positive=3, false_negative=3), 0.5),
        (Cost(false_positive=2, false_negative=6, true_positive=3, true_negative=1), 0.25),
        (Cost(false_positive=1, false_negative=0), 1.0),
    ],
)
def test_costs_are_paid_by_the_decision_that_the_threshold_makes(cost, threshold):
    assert target.decision_threshold(cost) == pytest.approx(threshold)
    largest = max(cost.false_positive, cost.false_negative, cost.true_positive)
    below, above = np.array([threshold - 0.01] * 2), np.array([threshold + 0.01] * 2)
    label = np.array([1.0, 0.0])
    waiting = np.array([cost.false_negative, cost.true_negative]) / largest
    acting = np.array([cost.true_positive, cost.false_positive]) / largest
    assert target.YES_OR_NO.losses("cost", below, label, cost) == pytest.approx(waiting)
    assert target.YES_OR_NO.losses("cost", above, label, cost) == pytest.approx(acting)
    assert target.YES_OR_NO.losses("cost", np.full(2, threshold), label, cost) == pytest.approx(acting)
    if cost.threshold is None:  # break-even: in expectation it is all one
        assert threshold * waiting[0] + (1 - threshold) * waiting[1] == pytest.approx(
            threshold * acting[0] + (1 - threshold) * acting[1]
        )


def simulated(rng, rows, off=0.0):
    score = rng.beta(2, 3, rows)
    return score, (rng.random(rows) < np.clip(score + off, 0, 1)).astype(float)


@pytest.mark.parametrize("off", [0.0, 0.05, 0.15])
def test_the_calibration_error_is_not_enlarged_by_few_rows(off):
    """The mean square over many small samples is that of one large one. At 0, where negative squares are cut off, some
    is left: half of the 0.07 that the plug-in would say."""
    rng = np.random.default_rng(1)
    small = [evaluation.calibration_error(*simulated(rng, 400, off)) for _ in range(400)]
    large = evaluation.calibration_error(*simulated(rng, 400_000, off))
    assert large == pytest.approx(off, abs=0.006)
    assert float(np.sqrt(np.mean(np.square(small)))) == pytest.approx(off, abs=0.01 if off else 0.035)


def test_a_perfect_model_passes_the_default_limits_on_500_rows():
    rng = np.random.default_rng(2)
    limits = GatePolicy()
    for _ in range(300):
        score, label = simulated(rng, 500)
        assert evaluation.calibration_error(score, label) <= limits.max_calibration_error
        assert evaluation.population_stability(score[:250], score[250:]) <= limits.max_score_shift


def test_scores_that_are_all_alike_are_calibrated_by_their_mean():
    label = np.tile([1.0, 0.0, 0.0, 0.0], 500)
    assert evaluation.calibration_error(np.full(2000, 0.25), label) == 0
    assert evaluation.calibration_error(np.full(2000, 0.45), label) == pytest.approx(0.2, abs=0.001)


def test_too_few_rows_have_neither_calibration_nor_stability():
    assert evaluation.calibration_error(np.full(19, 0.5), np.ones(19)) is None
    assert evaluation.population_stability(np.full(99, 0.5), np.full(1000, 0.5)) is None
    assert evaluation.population_stability(np.full(1000, 0.5), np.full(99, 0.5)) is None


def test_stability_is_zero_in_expectation_without_a_change_and_by_definition_with_one():
    rng = np.random.default_rng(3)
    assert np.mean([evaluation.population_stability(rng.random(300), rng.random(300)) for _ in range(300)]) < 0.02
    before, after = rng.random(400_000), rng.random(400_000) ** 2
    edges = np.sqrt(np.linspace(0, 1, 11))
    q = np.diff(edges)
    assert evaluation.population_stability(before, after) == pytest.approx(
        ((q - 0.1) * np.log(q / 0.1)).sum(), rel=0.02
    )


@pytest.mark.parametrize("moved", [0.2, 0.4])
def test_a_constant_score_that_moves_is_a_shift(moved):
    assert evaluation.population_stability(np.full(200, 0.3), np.full(200, 0.3)) == 0
    assert evaluation.population_stability(np.full(200, 0.3), np.full(200, moved)) > 1


@given(st.lists(st.sampled_from([0.1, 0.2, 0.2, 0.5, 0.9]), min_size=100, max_size=300), st.floats(0.1, 5))
def test_stability_depends_on_the_order_of_scores_only(values, spread):
    before = np.array(values)
    moved = (spread * np.arange(9) ** 2)[np.unique(before, return_inverse=True)[1]]
    half = len(values) // 2 if len(values) >= 200 else 100
    found = evaluation.population_stability(before, before[:half])
    assert evaluation.population_stability(moved, moved[:half]) == found


# -- a number -----------------------------------------------------------------------------------


def test_the_absolute_error_of_a_number_is_scaled_by_its_bounds_and_never_beyond_them() -> None:
    score, label = np.array([10.0, 20.0, -5.0, 60.0, 0.0]), np.array([15.0, 20.0, 10.0, 55.0, 99.0])
    errors = target.Bounded((0, 50)).row_losses(score, label)
    assert list(errors) == [5, 0, 10, 0, 50]
    scaled = target.Bounded((0, 50)).losses("absolute_error", score, label)
    assert list(scaled) == [0.1, 0, 0.2, 0, 1]
    shifted = target.Bounded((-100, -50)).losses("absolute_error", score - 100, label - 100)
    assert list(shifted) == pytest.approx(list(scaled))


def test_an_absolute_error_without_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs label\.bounds"):
        target.YES_OR_NO.losses("absolute_error", np.zeros(1), np.zeros(1), None)


def test_a_number_is_evaluated_in_its_own_unit_and_has_no_figures_of_probabilities() -> None:
    times = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"], utc=True)
    rows = pd.DataFrame({"score": [10.0, 30.0, 20.0], "label": [16.0, 30.0, 17.0], "prediction_time": times})
    [found] = evaluation.evaluate(rows, target=target.Bounded((0, 50)))
    assert (found.figures["absolute_error"], found.mean_score, found.matured, found.nights) == (3, 20, 3, 3)
    assert found.figures["absolute_error_low"] is not None and found.figures["absolute_error_high"] is not None
    assert 0 <= found.figures["absolute_error_low"] < 3 < found.figures["absolute_error_high"] <= 50
    assert not {"brier", "log_loss", "auc", "positive_rate"} & set(found.figures)
    with pytest.raises(ValueError, match="a label of 0 or 1"):
        evaluation.evaluate(rows)
    with pytest.raises(ValueError, match="a label that is a number"):
        evaluation.evaluate(rows.assign(label=np.nan), target=target.Bounded((0, 50)))
