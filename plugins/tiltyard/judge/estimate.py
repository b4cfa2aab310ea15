"""How good scores are before the truth has come: *estimated* performance, from what the scores promise. Pure.

A calibrated score of 0.3 promises that three rows in ten are positive, so every figure of performance has an expected
value without a single label: confidence-based performance estimation. Kivimäki, Białek, Kuberski & Nurminen (2025),
Confidence-based Estimators for Predictive Performance in Model Monitoring, J. Artificial Intelligence Research 82
(average confidence is unbiased and consistent under calibration; errors follow a Poisson binomial); NannyML's CBPE is
the same idea for other figures; Guo et al. (2017) and Garg et al. (2022), Leveraging Unlabeled Data to Predict
Out-of-Distribution Performance, ICLR, use it as a baseline and show where it fails.

What it cannot see. The map from score to probability is learned from rows whose truth has matured. When the world
changes so that the same score means another chance (concept drift), no score shows it and neither does the estimate.
So it is shown, marked as estimated, and decides nothing: no module on the way to a promotion imports this one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from tiltyard.target import CLIP

Floats = NDArray[np.float64]

MIN_ROWS, MIN_OF_A_KIND = 200, 20
"""Fewer matured rows, or fewer of either label, teach no map; the scores are then taken at their word."""
ISOTONIC_FROM = 1_000
"""From so many rows on the map is any non-decreasing one; with fewer it is a logistic one (Niculescu-Mizil & Caruana
2005, Predicting Good Probabilities with Supervised Learning, section 5: isotonic regression overfits below that)."""
Z = 1.959964
"""95 % of a normal distribution lie within so many standard deviations."""


@dataclass(frozen=True)
class Estimate:
    """Expected figures of rows without labels. None without rows; `auc` also where all would be of one kind."""

    brier: float | None
    """Expected Brier score."""
    low: float | None
    """Lower end of a 95 % interval of the realized Brier score, by the chance in the labels to come and in those that
    taught the map. A change in what a score means is not in it, nor that the rows of a night share conditions."""
    high: float | None
    """Its upper end."""
    log_loss: float | None
    """Expected log loss, in nats."""
    auc: float | None
    """Expected area under the ROC curve."""
    positive_rate: float | None
    """Expected share of positive labels."""
    rows: int
    """Number of rows without labels."""
    calibrated: bool
    """Whether matured rows corrected the scores; with too few of them the raw scores were taken for probabilities."""
    calibration_rows: int = 0
    """Number of those matured rows."""


def performance(scores: Floats, calibration_scores: Floats, calibration_labels: Floats) -> Estimate:
    """What to expect of `scores`, (n,) in [0, 1], with a map learned from (m,) matured scores and their 0/1 labels.

    All of one version. Raises ValueError for a score outside [0, 1] or a label that is neither 0 nor 1.
    """
    scores, labelled, labels = (
        np.asarray(values, dtype=np.float64) for values in (scores, calibration_scores, calibration_labels)
    )
    for values in (scores, labelled):
        if not (np.isfinite(values) & (values >= 0) & (values <= 1)).all():
            raise ValueError("an estimate needs scores in [0, 1]")
    if len(labelled) != len(labels) or not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError("an estimate is calibrated on a label of 0 or 1 per score")
    learned = _learn(labelled, labels)
    rows, calibrated, taught = len(scores), learned is not None, len(labelled) if learned else 0
    if not rows:
        return Estimate(None, None, None, None, None, None, 0, calibrated, taught)
    chance = learned.chance(scores) if learned else scores
    # a row's loss is (1 - s)² with chance p, else s²: two values that lie 1 - 2s apart
    apart = 1 - 2 * scores
    brier = float(np.mean(scores**2 + chance * apart))
    variance = float(np.sum(chance * (1 - chance) * apart**2)) / rows**2
    if learned:
        variance += learned.variance(scores, apart / rows)
    margin = Z * math.sqrt(variance)
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    return Estimate(
        brier=brier,
        low=max(0.0, brier - margin),
        high=min(1.0, brier + margin),
        log_loss=float(-np.mean(chance * np.log(clipped) + (1 - chance) * np.log1p(-clipped))),
        auc=_auc(scores, chance),
        positive_rate=float(chance.mean()),
        rows=rows,
        calibrated=calibrated,
        calibration_rows=taught,
    )


def _auc(scores: Floats, chance: Floats) -> float | None:
    """Expected concordant pairs over expected pairs of two different rows, ties counted half."""
    _, place = np.unique(scores, return_inverse=True)
    positive, negative = np.bincount(place, weights=chance), np.bincount(place, weights=1 - chance)
    below = np.cumsum(negative) - negative
    itself = float(np.sum(chance * (1 - chance)))
    pairs = float(positive.sum() * negative.sum()) - itself
    if pairs <= 1e-12:
        return None
    return float((np.sum(positive * (below + negative / 2)) - itself / 2) / pairs)


@dataclass(frozen=True)
class _Map:
    """A learned map: the chance of a positive per score; and what it adds to the variance of sum(weight * chance)."""

    chance: Callable[[Floats], Floats]
    variance: Callable[[Floats, Floats], float]


def _learn(scores: Floats, labels: Floats) -> _Map | None:
    positives = int(labels.sum())
    if len(labels) < MIN_ROWS or min(positives, len(labels) - positives) < MIN_OF_A_KIND:
        return None
    return _isotonic(scores, labels) if len(labels) >= ISOTONIC_FROM else _logistic(scores, labels)


def _isotonic(scores: Floats, labels: Floats) -> _Map:
    """Zadrozny & Elkan (2002): the non-decreasing step function that fits best. Each step is drawn to the overall rate
    by the weight of one row, so that none promises certainty."""
    values, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    positives = np.bincount(place, weights=labels)
    blocks = isotonic_regression(positives / counts, weights=counts).blocks
    starts = blocks[:-1]
    size = np.add.reduceat(counts, starts).astype(np.float64)
    rate = np.maximum.accumulate((np.add.reduceat(positives, starts) + labels.mean()) / (size + 1))
    edges = (values[starts[1:] - 1] + values[starts[1:]]) / 2

    def step(at: Floats) -> NDArray[np.int64]:
        return np.searchsorted(edges, at, side="right").astype(np.int64)

    def chance(at: Floats) -> Floats:
        chances: Floats = rate[step(at)]
        return chances

    def variance(at: Floats, weights: Floats) -> float:
        on = np.bincount(step(at), weights=weights, minlength=len(rate))
        return float(np.sum(on**2 * rate * (1 - rate) / size))

    return _Map(chance, variance)


def _logistic(scores: Floats, labels: Floats) -> _Map:
    """Platt (1999), Probabilistic Outputs for Support Vector Machines, on the log odds of the score, with his targets
    (section 2.2), by Newton's method; the variance by the delta method."""
    positives = labels.sum()
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    design = _design(scores)
    slope = np.zeros(2)
    ridge = 1e-6 * np.eye(2)  # all scores alike: the slope is anybody's guess, the sum is not

    def loss(at: Floats) -> float:
        odds = design @ at
        return float(np.sum(np.logaddexp(0, odds) - target * odds) + at @ ridge @ at / 2)

    information = ridge
    for _ in range(50):
        guess = _sigmoid(design @ slope)
        information = (design * (guess * (1 - guess))[:, None]).T @ design + ridge
        step = np.linalg.solve(information, design.T @ (target - guess) - ridge @ slope)
        while loss(slope + step) > loss(slope) and np.abs(step).max() > 1e-9:
            step = step / 2
        slope = slope + step
        if np.abs(step).max() < 1e-9:
            break
    covariance = np.linalg.inv(information)

    def chance(at: Floats) -> Floats:
        return _sigmoid(_design(at) @ slope)

    def variance(at: Floats, weights: Floats) -> float:
        chances = chance(at)
        gradient = (weights * chances * (1 - chances)) @ _design(at)
        return float(gradient @ covariance @ gradient)

    return _Map(chance, variance)


def _design(scores: Floats) -> Floats:
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    return np.column_stack([np.log(clipped) - np.log1p(-clipped), np.ones(len(scores))])


def _sigmoid(value: Floats) -> Floats:
    probability: Floats = 1 / (1 + np.exp(-np.clip(value, -40, 40)))
    return probability
