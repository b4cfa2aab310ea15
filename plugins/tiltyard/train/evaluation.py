"""How good scores were, once the truth is in. Pure: frames in, frozen results out.

Every figure stands on whole cohorts (truth.py hands over nothing else). Intervals are cluster-robust by
night: the rows of one night share a queue, a release, a holiday, so a night is one observation of the
conditions and its rows are not independent of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit  # type: ignore[import-untyped]

from tiltyard.spec import Cost

ALL = "all"
CLIP = 1e-6
"""Scores are moved this far from 0 and 1 before their logarithm is taken: log loss stays finite."""
LOSS_CLIP = 1e-3
"""The same for the log loss that decides (`losses`): its largest value, 6.9 nats, is what it is divided by. A smaller
clip would let one row in a million set the scale on which the others count."""
GROUPS = 10
"""Groups of equal mass for `calibration_error` and `population_stability`."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """One slice's figures. None where the rows do not carry the figure (no rows, one class, one night)."""

    slice: str
    """`all`, or `column=value`."""
    matured: int
    nights: int
    brier: float | None
    brier_low: float | None
    brier_high: float | None
    log_loss: float | None
    auc: float | None
    positive_rate: float | None
    mean_score: float | None
    cohort_from: datetime | None
    """Earliest and latest prediction time among the rows."""
    cohort_to: datetime | None
    absolute_error: float | None = None
    """Mean, in the label's own unit. Of a label that is a number; then the figures of probabilities are None."""
    absolute_error_low: float | None = None
    absolute_error_high: float | None = None


@dataclass(frozen=True)
class Bin:
    """Scores in [low, high): what was promised and what came."""

    low: float
    high: float
    rows: int
    mean_score: float
    positive_rate: float


def brier_losses(score: Floats, label: Floats) -> Floats:
    """Squared error per row, in [0, 1] (Brier 1950)."""
    losses: Floats = (score - label) ** 2
    return losses


def absolute_errors(score: Floats, label: Floats, bounds: tuple[float, float]) -> Floats:
    """|score - label| per row in the label's own unit, after both were moved to the nearer bound where they lie beyond:
    none is larger than the bounds are wide."""
    errors: Floats = np.abs(np.clip(score, *bounds) - np.clip(label, *bounds))
    return errors


def row_losses(score: Floats, label: Floats, bounds: tuple[float, float] | None) -> Floats:
    """The loss that is shown (spec.measure): squared error of a probability, absolute error of a number."""
    return brier_losses(score, label) if bounds is None else absolute_errors(score, label, bounds)


def losses(
    metric: Literal["brier", "log_loss", "cost", "absolute_error"],
    score: Floats,
    label: Floats,
    cost: Cost | None,
    bounds: tuple[float, float] | None = None,
) -> Floats:
    """What each row loses by, scaled to [0, 1] so that a bound on differences of losses is one on rows.

    `brier`: squared error. `log_loss`: nats, scores clipped by LOSS_CLIP, divided by the largest possible. `cost`: the
    entry of the matrix that decision and label meet in, divided by its largest; a row is acted on when its score
    reaches cost.threshold, without one the break-even (Elkan 2001, The foundations of cost-sensitive
    learning, IJCAI). `absolute_error`: of a number, over the width of its bounds, beyond which neither score nor label
    counts. Raises ValueError for the metric `cost` without a matrix, or `absolute_error` without bounds.
    """
    if metric == "absolute_error":
        if bounds is None:
            raise ValueError("the metric absolute_error needs bounds, spec's label.bounds")
        return absolute_errors(score, label, bounds) / (bounds[1] - bounds[0])
    if metric == "brier":
        return brier_losses(score, label)
    paid: Floats
    if metric == "log_loss":
        clipped = np.clip(score, LOSS_CLIP, 1 - LOSS_CLIP)
        paid = np.where(label > 0, np.log(clipped), np.log1p(-clipped)) / np.log(LOSS_CLIP)
        return paid
    if cost is None:
        raise ValueError("the metric cost needs a cost matrix, spec's gate.cost")
    acted = score >= decision_threshold(cost)
    acting = np.where(label > 0, cost.true_positive, cost.false_positive)
    waiting = np.where(label > 0, cost.false_negative, cost.true_negative)
    largest = max(cost.false_positive, cost.false_negative, cost.true_positive, cost.true_negative)
    paid = np.where(acted, acting, waiting) / largest
    return paid


def decision_threshold(cost: Cost) -> float:
    """The score from which a row is acted on: where acting and not acting cost the same in expectation."""
    if cost.threshold is not None:
        return cost.threshold
    alarm, miss = cost.false_positive - cost.true_negative, cost.false_negative - cost.true_positive
    return alarm / (alarm + miss)


def log_loss(score: Floats, label: Floats) -> float:
    """Mean negative log likelihood in nats, scores clipped to [CLIP, 1 - CLIP]."""
    clipped = np.clip(score, CLIP, 1 - CLIP)
    return float(-np.mean(label * np.log(clipped) + (1 - label) * np.log1p(-clipped)))


def auc(score: Floats, label: Floats) -> float | None:
    """Area under the ROC curve from mid-ranks (Mann-Whitney), ties counted half. None with one class."""
    positives = int(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    rank_sum = float(ranks[label == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def clustered_interval(
    values: Floats, clusters: NDArray[np.int64], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the mean of `values` whose rows are dependent within a cluster. None with one cluster.

    The cluster-robust variance of a mean, sum over clusters of the squared sum of residuals over n², times
    G/(G-1), with Student's t at G-1 degrees of freedom: Cameron & Miller (2015), A Practitioner's Guide to
    Cluster-Robust Inference, J. Human Resources 50(2), sections II.C and VI. For reading, not for deciding:
    it is not valid under daily peeking; gate.py is.
    """
    groups = int(clusters.max()) + 1 if len(clusters) else 0
    if groups < 2:
        return None
    mean = float(values.mean())
    sums = np.bincount(clusters, weights=values - mean, minlength=groups)
    error = float(np.sqrt(np.square(sums).sum() * groups / (groups - 1))) / len(values)
    margin = float(stdtrit(groups - 1, 0.5 + confidence / 2)) * error
    return mean - margin, mean + margin


def calibration(score: Floats, label: Floats, bins: int = 10) -> tuple[Bin, ...]:
    """Equal-width bins over [0, 1] that hold at least one row; the last bin includes 1."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.minimum(np.searchsorted(edges, score, side="right") - 1, bins - 1)
    found = []
    for number in range(bins):
        inside = index == number
        if inside.any():
            found.append(
                Bin(
                    low=float(edges[number]),
                    high=float(edges[number + 1]),
                    rows=int(inside.sum()),
                    mean_score=float(score[inside].mean()),
                    positive_rate=float(label[inside].mean()),
                )
            )
    return tuple(found)


def calibration_error(score: Floats, label: Floats) -> float | None:
    """Root mean square distance of score and observed share over GROUPS of equal mass. None without 2 rows in each.

    Debiased: the square of a group's mean residual is too large by the variance of that mean, which is subtracted; the
    sum may come out below zero and counts as zero then. Kumar, Liang & Ma (2019), Verified uncertainty calibration,
    NeurIPS, section 4.1, where scores are constant within a group and the variance is that of the labels.
    Equal scores stay in one group. The plug-in without it calls a perfect model on 500 rows wrong by about 0.06.
    """
    if len(score) < 2 * GROUPS:
        return None
    group = _groups(score, score)
    residual = label - score
    rows = np.bincount(group)
    mean = np.bincount(group, weights=residual) / np.maximum(rows, 1)
    spread = np.bincount(group, weights=(residual - mean[group]) ** 2)
    many = rows > 1
    square = mean[many] ** 2 - spread[many] / (rows[many] - 1) / rows[many]
    return float(np.sqrt(max(0.0, (rows[many] * square).sum() / rows[many].sum())))


def population_stability(before: Floats, after: Floats) -> float | None:
    """Population stability index of `after` against GROUPS of equal mass of `before`. None below 10 rows a group.

    sum (q - p) log(q / p) over the groups' shares, half a row added to each (Siddiqi 2006, Credit risk scorecards).
    Under no change it is not zero but about (groups - 1) (1 / before + 1 / after) in expectation (Yurdakul & Naranjo
    2020, Statistical properties of the population stability index, Journal of Risk Model Validation 14(4)), which is
    subtracted; below zero counts as zero. That holds for independent rows; conditions that a night's rows share are
    not taken off.
    """
    if min(len(before), len(after)) < 10 * GROUPS:
        return None
    cells = [_groups(before, part) for part in (before, after)]
    counts = [np.bincount(part, minlength=int(max(cells[0].max(), cells[1].max())) + 1) for part in cells]
    p, q = ((count + 0.5) / (count.sum() + 0.5 * len(count)) for count in counts)
    chance = (np.count_nonzero(counts[0]) - 1) * (1 / len(before) + 1 / len(after))
    return float(max(0.0, ((q - p) * np.log(q / p)).sum() - chance))


def _groups(reference: Floats, values: Floats) -> NDArray[np.int64]:
    """The group of each of `values` among GROUPS of about equal mass of `reference`; equal values share one."""
    cuts = np.unique(np.quantile(reference, np.linspace(0, 1, GROUPS + 1)[1:-1], method="inverted_cdf"))
    if cuts[-1] == reference.max():  # a tenth or more at the top: what lies above it is not the same
        cuts = np.append(cuts, np.nextafter(cuts[-1], np.inf))
    return np.searchsorted(cuts, values, side="right").astype(np.int64)


def evaluate(
    frame: pd.DataFrame,
    slices: Sequence[str] = (),
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> tuple[Evaluation, ...]:
    """`all` first, then every value of every column in `slices`, sorted.

    `frame`: score in [0, 1], label (0/1 or boolean), prediction_time, the slice columns, and night where
    a night is not the prediction's day. With `bounds` score and label are numbers in a unit of their own. Raises
    ValueError for a score or a label that is not a number.
    """
    score = frame["score"].to_numpy(dtype=np.float64)
    label = frame["label"].to_numpy(dtype=np.float64)
    is_known = np.isin(label, (0.0, 1.0)) if bounds is None else np.isfinite(label)
    if len(frame) and not (np.isfinite(score).all() and is_known.all()):
        kind = "of 0 or 1" if bounds is None else "that is a number"
        raise ValueError(f"evaluation needs a finite score and a label {kind} in every row")
    nights = frame["night"] if "night" in frame else pd.to_datetime(frame["prediction_time"], utc=True).dt.date
    clusters = pd.factorize(nights)[0].astype(np.int64)
    times = pd.to_datetime(frame["prediction_time"], utc=True)
    everything = np.ones(len(frame), dtype=bool)
    results = [_evaluation(ALL, everything, score, label, clusters, times, confidence, bounds)]
    for column in slices:
        values = frame[column].astype(str)
        for value in sorted(values.unique()):
            inside = (values == value).to_numpy()
            results.append(_evaluation(f"{column}={value}", inside, score, label, clusters, times, confidence, bounds))
    return tuple(results)


def _evaluation(
    name: str,
    inside: NDArray[np.bool_],
    score: Floats,
    label: Floats,
    clusters: NDArray[np.int64],
    times: "pd.Series[pd.Timestamp]",
    confidence: float,
    bounds: tuple[float, float] | None,
) -> Evaluation:
    if not inside.any():
        return Evaluation(name, 0, 0, None, None, None, None, None, None, None, None, None)
    score, label, times = score[inside], label[inside], times[inside]
    own = np.unique(clusters[inside], return_inverse=True)[1].astype(np.int64)
    losses = row_losses(score, label, bounds)
    largest = 1.0 if bounds is None else bounds[1] - bounds[0]
    interval = clustered_interval(losses, own, confidence)
    mean = float(losses.mean())
    low, high = (max(0.0, interval[0]), min(largest, interval[1])) if interval else (None, None)
    shared: dict[str, Any] = {
        "slice": name,
        "matured": len(score),
        "nights": int(own.max()) + 1,
        "mean_score": float(score.mean()),
        "cohort_from": times.min().to_pydatetime(),
        "cohort_to": times.max().to_pydatetime(),
    }
    if bounds is not None:
        return Evaluation(
            **shared,
            brier=None,
            brier_low=None,
            brier_high=None,
            log_loss=None,
            auc=None,
            positive_rate=None,
            absolute_error=mean,
            absolute_error_low=low,
            absolute_error_high=high,
        )
    return Evaluation(
        **shared,
        brier=mean,
        brier_low=low,
        brier_high=high,
        log_loss=log_loss(score, label),
        auc=auc(score, label),
        positive_rate=float(label.mean()),
    )
