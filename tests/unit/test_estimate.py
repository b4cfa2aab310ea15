"""Estimated performance: near the realized one where scores keep their meaning, wrong and silent where they do not."""

import numpy as np
import pytest

from tiltyard import estimate, evaluation


def drawn(rng, rows, *, bend=1.0, shift=0.0):
    """(score, label): the log odds of a positive are `bend` times those of the score, plus `shift`."""
    score = rng.beta(1.2, 2.5, rows)
    odds = bend * np.log(score / (1 - score)) + shift
    return score, (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(float)


@pytest.mark.parametrize("taught", [400, 5_000])
@pytest.mark.parametrize(("bend", "shift"), [(1.0, 0.0), (0.5, -0.7)])
def test_the_interval_holds_the_realized_figure_where_scores_keep_their_meaning(taught, bend, shift):
    rng = np.random.default_rng(7)
    hits, off = 0, []
    for _ in range(200):
        known, labels = drawn(rng, taught, bend=bend, shift=shift)
        score, label = drawn(rng, 800, bend=bend, shift=shift)
        found = estimate.performance(score, known, labels)
        assert found.calibrated
        assert found.calibration_rows == taught
        realized = float(evaluation.brier_losses(score, label).mean())
        hits += found.low <= realized <= found.high
        off.append(
            (
                found.brier - realized,
                found.log_loss - evaluation.log_loss(score, label),
                found.auc - evaluation.auc(score, label),
                found.positive_rate - label.mean(),
            )
        )
    assert hits >= 180
    assert np.abs(np.mean(off, axis=0)).max() < 0.01


def test_uncalibrated_scores_are_corrected_only_when_there_are_rows_to_learn_from():
    rng = np.random.default_rng(8)
    score, label = drawn(rng, 4_000, shift=-1.5)
    known, labels = drawn(rng, 4_000, shift=-1.5)
    realized = float(evaluation.brier_losses(score, label).mean())
    corrected = estimate.performance(score, known, labels)
    raw = estimate.performance(score, known[:100], labels[:100])
    assert not raw.calibrated
    assert raw.calibration_rows == 0
    assert raw.positive_rate == pytest.approx(score.mean())
    assert abs(corrected.brier - realized) < 0.01 < abs(raw.brier - realized)


def test_a_change_of_concept_is_not_seen():
    """The reason why an estimate decides nothing: labels turn round, and the estimate does not move."""
    rng = np.random.default_rng(9)
    known, labels = drawn(rng, 4_000)
    score, label = drawn(rng, 4_000)
    found = estimate.performance(score, known, labels)
    assert evaluation.brier_losses(score, 1 - label).mean() > found.high + 0.1


def test_expected_figures_by_hand():
    """Two rows, taken at their word: 0.8 and 0.25."""
    found = estimate.performance(np.array([0.8, 0.25]), np.array([]), np.array([]))
    assert found.brier == pytest.approx((0.8 * 0.04 + 0.2 * 0.64 + 0.25 * 0.5625 + 0.75 * 0.0625) / 2)
    assert found.positive_rate == pytest.approx(0.525)
    assert found.auc == pytest.approx(0.8 * 0.75 / (0.8 * 0.75 + 0.25 * 0.2))
    expected = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2) + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / 2
    assert found.log_loss == pytest.approx(expected)


def test_no_rows_one_score_and_certainty():
    assert estimate.performance(np.array([]), np.array([]), np.array([])).brier is None
    assert estimate.performance(np.array([1.0, 1.0]), np.array([]), np.array([])).auc is None
    for rows in (300, 2_000):
        labels = (np.arange(rows) % 4 == 0).astype(float)
        same = estimate.performance(np.full(50, 0.4), np.full(rows, 0.4), labels)
        assert same.positive_rate == pytest.approx(0.25, abs=0.01)
        assert same.auc == pytest.approx(0.5)
    sure = np.repeat([0.0, 1.0], 600)
    assert 0 < estimate.performance(sure, sure, sure).brier < 0.01


@pytest.mark.parametrize(("scores", "labels"), [([1.2], [1.0]), ([np.nan], [1.0]), ([0.5], [0.5]), ([0.5, 0.5], [1.0])])
def test_what_is_no_score_or_no_label_is_refused(scores, labels):
    with pytest.raises(ValueError, match="an estimate"):
        estimate.performance(np.array([0.5]), np.array(scores), np.array(labels))
