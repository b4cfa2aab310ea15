"""Estimated performance: near the realized one where scores keep their meaning, wrong and silent where they do not."""

import re
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tiltyard import target
from tiltyard.clock import night_closing
from tiltyard.judge import estimate, promotion, shadow
from tiltyard.prepare import truth
from tiltyard.settings import ROOT
from tiltyard.tables import ESTIMATE
from tiltyard.target import YES_OR_NO


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
        realized = float(YES_OR_NO.row_losses(score, label).mean())
        hits += found.low <= realized <= found.high
        off.append(
            (
                found.brier - realized,
                found.log_loss - target.log_loss(score, label),
                found.auc - target.auc(score, label),
                found.positive_rate - label.mean(),
            )
        )
    assert hits >= 180
    assert np.abs(np.mean(off, axis=0)).max() < 0.01


def test_uncalibrated_scores_are_corrected_only_when_there_are_rows_to_learn_from():
    rng = np.random.default_rng(8)
    score, label = drawn(rng, 4_000, shift=-1.5)
    known, labels = drawn(rng, 4_000, shift=-1.5)
    realized = float(YES_OR_NO.row_losses(score, label).mean())
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
    assert YES_OR_NO.row_losses(score, 1 - label).mean() > found.high + 0.1


def test_expected_figures_by_hand():
    """Two rows, taken at their word: 0.8 and 0.25."""
    found = estimate.performance(np.array([0.8, 0.25]), np.array([]), np.array([]))
    assert found.brier == pytest.approx((0.8 * 0.04 + 0.2 * 0.64 + 0.25 * 0.5625 + 0.75 * 0.0625) / 2)
    assert found.positive_rate == pytest.approx(0.525)
    assert found.auc == pytest.approx(0.8 * 0.75 / (0.8 * 0.75 + 0.25 * 0.2))
    expected = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2) + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / 2
    assert found.log_loss == pytest.approx(expected)


@pytest.mark.parametrize("taught", [300, 3_000])
def test_scores_that_are_sure_and_often_wrong_are_seen_through(taught):
    """A third of the scores is exactly 0 or 1, and a quarter of those is wrong."""
    rng = np.random.default_rng(10)

    def sure(rows):
        chance = rng.random(rows)
        return np.clip(chance + rng.normal(0, 0.4, rows), 0, 1), (rng.random(rows) < chance).astype(float)

    (known, labels), (score, label) = sure(taught), sure(20_000)
    found = estimate.performance(score, known, labels)
    assert found.brier == pytest.approx(YES_OR_NO.row_losses(score, label).mean(), abs=0.03)


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


# -- it decides nothing ---------------------------------------------------------------------------


def test_no_query_on_the_way_to_a_promotion_reads_the_table():
    """That nothing on that way leads to one of these readers is a contract of the imports (pyproject.toml)."""
    library = ROOT / "plugins" / "tiltyard"
    readers = [path.stem for path in library.rglob("*.py") if re.search(r"\bESTIMATE\b", path.read_text("utf-8"))]
    assert {"shadow", "tables"} <= set(readers) <= {"shadow", "status", "tables", "withdrawing"}


def test_estimates_stand_beside_the_evaluation_and_the_verdict_does_not_read_them(arena):
    spec = arena.spec("estimated")
    as_of = arena.duel(spec, {1: 0.4, 2: 0.05}, nights=12)
    shadow.evaluate(arena.rails, spec, as_of)
    shadow.evaluate(arena.rails, spec, as_of)
    rows = estimates(arena, spec, as_of)
    assert list(rows.version) == [1, 2]
    assert set(rows.rows) == {2 * 60}  # the two nights that have not matured
    assert set(rows["calibration_rows"]) == {10 * 60}
    assert rows["is_calibrated"].all()
    waiting = truth.immature(arena.rails, spec, as_of, versions=(1,))
    assert "label" not in waiting
    assert len(waiting) == 120
    known = truth.matured(arena.rails, spec, as_of + timedelta(days=4), versions=(1, 2))
    for row in rows.itertuples():
        own = known[(known.version == row.version) & (known.night > night_closing(as_of) - timedelta(days=2))]
        realized = ((own.score - own["label"]) ** 2).mean()
        assert row.brier_low <= realized <= row.brier_high
        assert row.brier_low < row.brier < row.brier_high
    before = promotion.judge(arena.rails, spec, as_of)
    wrong = rows.assign(brier=0.0 if before.verdict != "promote" else 1.0, brier_low=0.0, brier_high=1.0, rows=10**6)
    arena.rails.lake.replace(
        ESTIMATE, {"model": spec.name}, wrong[list(ESTIMATE.columns)], message="estimates turned round"
    )
    events = len(arena.rails.ledger.events(spec.name, "evidence_changed"))
    assert promotion.judge(arena.rails, spec, as_of) == before
    assert len(arena.rails.ledger.events(spec.name, "evidence_changed")) == events


def test_a_night_without_waiting_rows_leaves_no_estimate(arena):
    spec = arena.spec("all_matured")
    as_of = arena.duel(spec, {1: 0.2}, nights=6) + timedelta(days=3)
    shadow.evaluate(arena.rails, spec, as_of)
    assert estimates(arena, spec, as_of).empty


def estimates(arena, spec, as_of) -> pd.DataFrame:
    wanted = {"model": spec.name, "night": night_closing(as_of)}
    return arena.rails.lake.query(
        f"select * from {{{ESTIMATE}}} where model = $model and night = $night order by version", as_of, wanted
    )
