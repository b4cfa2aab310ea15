"""How good scores were, once the truth is in. Pure: frames in, frozen results out.

Every figure stands on whole cohorts (truth.py hands over nothing else). Intervals are cluster-robust by
night: the rows of one night share a queue, a release, a holiday, so a night is one observation of the
conditions and its rows are not independent of each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from tiltyard.target import YES_OR_NO, Target

ALL = "all"
GROUPS = 10
"""Groups of equal mass for `calibration_error` and `population_stability`."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """One slice's figures. None where the rows do not carry the figure (no rows, one class, one night)."""

    slice: str
    """`all`, or `column=value`."""
    matured: int
    """Number of rows, all of matured cohorts."""
    nights: int
    """Number of nights that they come from."""
    mean_score: float | None
    """Mean score; None without rows."""
    cohort_from: datetime | None
    """Earliest prediction time among the rows; None without rows."""
    cohort_to: datetime | None
    """Latest prediction time among the rows; None without rows."""
    figures: Mapping[str, float | None]
    """The measure of the label's kind with the ends of its interval, and the kind's other figures (target.FIGURES)."""


@dataclass(frozen=True)
class Bin:
    """Scores in [low, high): what was promised and what came."""

    low: float
    """Least score that lies in it."""
    high: float
    """Score from which on the next bin begins."""
    rows: int
    """Number of rows in it."""
    mean_score: float
    """Mean of their scores."""
    positive_rate: float
    """Mean of their labels: the share of positive ones, or the mean place between the bounds."""


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
    parts = []
    for number in range(bins):
        inside = index == number
        if inside.any():
            parts.append(
                Bin(
                    low=float(edges[number]),
                    high=float(edges[number + 1]),
                    rows=int(inside.sum()),
                    mean_score=float(score[inside].mean()),
                    positive_rate=float(label[inside].mean()),
                )
            )
    return tuple(parts)


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
    target: Target = YES_OR_NO,
) -> tuple[Evaluation, ...]:
    """`all` first, then every value of every column in `slices`, sorted.

    `frame`: score and label (numbers in the label's unit; of a yes or no a probability and 0 or 1; of classes a
    distribution, as Target.scores reads it, and the place of the class), prediction_time, `slice_<name>` of every
    slice, and night where a night is not the prediction's day. Raises ValueError for a score or a label that is none of
    `target`.
    """
    score = target.scores(frame["score"])
    label = frame["label"].to_numpy(dtype=np.float64)
    if len(frame) and not (target.is_scored(score).all() and target.are_labels(label).all()):
        raise ValueError(f"evaluation needs a finite score and a label {target.wrong_label} in every row")
    nights = frame["night"] if "night" in frame else pd.to_datetime(frame["prediction_time"], utc=True).dt.date
    clusters = pd.factorize(nights)[0].astype(np.int64)
    times = pd.to_datetime(frame["prediction_time"], utc=True)
    everything = np.ones(len(frame), dtype=bool)
    results = [_evaluation(ALL, everything, score, label, clusters, times, confidence, target)]
    for column in slices:
        values = frame[f"slice_{column}"].astype(str)
        for value in sorted(values.unique()):
            inside = (values == value).to_numpy()
            results.append(_evaluation(f"{column}={value}", inside, score, label, clusters, times, confidence, target))
    return tuple(results)


def _evaluation(
    name: str,
    inside: NDArray[np.bool_],
    score: Floats,
    label: Floats,
    clusters: NDArray[np.int64],
    times: "pd.Series[pd.Timestamp]",
    confidence: float,
    target: Target,
) -> Evaluation:
    measure, low, high = target.interval
    if not inside.any():
        nothing = dict.fromkeys((*target.interval, *target.more_figures))
        return Evaluation(name, 0, 0, None, None, None, figures=nothing)
    score, label, times = score[inside], label[inside], times[inside]
    own = np.unique(clusters[inside], return_inverse=True)[1].astype(np.int64)
    losses = target.row_losses(score, label)
    ends = clustered_interval(losses, own, confidence)
    return Evaluation(
        slice=name,
        matured=len(score),
        nights=int(own.max()) + 1,
        mean_score=float(target.single(score).mean()),
        cohort_from=times.min().to_pydatetime(),
        cohort_to=times.max().to_pydatetime(),
        figures={
            measure: float(losses.mean()),
            low: max(0.0, ends[0]) if ends else None,
            high: min(target.largest_loss, ends[1]) if ends else None,
            **target.figures(score, label),
        },
    )
