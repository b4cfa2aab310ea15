"""Statistics with their intervals, from counts and codes; and what some columns make one expect of another. Pure."""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import pandas as pd
from scipy.special import betaincinv, ndtri

from tiltyard.leak.arrays import Bools, Floats, Ints
from tiltyard.leak.reading import Reading

FOLDS = 5
ASKED = 30
"""Other columns that may explain one: those that explain the most of it by themselves."""
SCREENED = 5_000
"""Rows on which those are looked for."""
FITTED = 20_000
"""Rows that regressions are fitted on: coefficients are known to a percent by then."""


def out_of_fold_auc(codes: Ints, label: Bools, folds: Ints, levels: int) -> tuple[float, float]:
    """(AUC, variance) of the label's smoothed rate per level, learnt on the other folds, averaged over the folds.

    Within a fold the AUC is Mann-Whitney's and its variance DeLong's (DeLong, DeLong, Clarke-Pearson 1988,
    Biometrics 44), from counts per level. A fold weighs as many pairs as it has; one without both classes is left
    out. NaN when none has.
    """
    cells = np.bincount((folds * 2 + label) * levels + codes, minlength=FOLDS * 2 * levels)
    counts = cells.reshape(FOLDS, 2, levels).astype(np.float64)
    return auc_of_counts(counts)


def auc_of_counts(counts: Floats) -> tuple[float, float]:
    """The same from counts: folds × (negative, positive) × levels."""
    total = counts.sum(axis=0)
    weights, aucs, variances = [], [], []
    for fold in counts:
        negative, positive = fold
        n, p = negative.sum(), positive.sum()
        if n < 2 or p < 2:
            continue
        others = total - fold
        rate = others[1].sum() / max(others.sum(), 1.0)
        score = (others[1] + 20 * rate) / (others.sum(axis=0) + 20)
        auc, variance = _delong(score, negative, positive)
        weights.append(n * p)
        aucs.append(auc)
        variances.append(variance)
    if not weights:
        return float("nan"), float("nan")
    share = np.array(weights) / sum(weights)
    return float(share @ aucs), float(share**2 @ variances)


def _delong(score: Floats, negative: Floats, positive: Floats) -> tuple[float, float]:
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    _, group = np.unique(ranked, return_inverse=True)
    n = np.bincount(group, weights=negative[order])
    p = np.bincount(group, weights=positive[order])
    below = np.cumsum(n) - n / 2
    above = p.sum() - np.cumsum(p) + p / 2
    of_positive, of_negative = below / n.sum(), above / p.sum()
    auc = float((p @ of_positive) / p.sum())
    variance = (p @ (of_positive - auc) ** 2) / p.sum() / max(p.sum() - 1, 1)
    variance += (n @ (of_negative - auc) ** 2) / n.sum() / max(n.sum() - 1, 1)
    return auc, float(variance)


def auc_interval(auc: float, variance: float, z: float, positives: float, negatives: float) -> tuple[float, float]:
    """Wald's on the logit scale, which keeps it in [0, 1]; at least as wide as one misplaced row of each class."""
    floor = 1 / (4 * positives * negatives) + 0.25 * (1 / positives**2 + 1 / negatives**2)
    clipped = min(max(auc, 1e-4), 1 - 1e-4)
    width = z * np.sqrt(max(variance, floor)) / (clipped * (1 - clipped)) if 0.02 < clipped < 0.98 else None
    if width is None:
        width = z * np.sqrt(max(variance, floor))
        return max(auc - width, 0.0), min(auc + width, 1.0)
    centre = np.log(clipped / (1 - clipped))
    low, high = 1 / (1 + np.exp(-(centre - width))), 1 / (1 + np.exp(-(centre + width)))
    return float(low), float(high)


def out_of_fold_correlation(codes: Ints, amounts: Floats, folds: Ints, levels: int) -> float:
    """Correlation of amounts with their mean per level, learnt on the other folds; 0 where either does not vary."""
    cells = folds * levels + codes
    rows = np.bincount(cells, minlength=FOLDS * levels).reshape(FOLDS, levels)
    sums = np.bincount(cells, weights=amounts, minlength=FOLDS * levels).reshape(FOLDS, levels)
    others, count = sums.sum(axis=0) - sums, rows.sum(axis=0) - rows
    learnt = ((others + amounts.mean()) / (count + 1))[folds, codes]  # as if one more row held the mean
    if learnt.std() == 0 or amounts.std() == 0:
        return 0.0
    return float(np.corrcoef(learnt, amounts)[0, 1])


def correlation_interval(correlation: float, rows: float, z: float) -> tuple[float, float]:
    """Fisher's on the scale of arctanh, with the variance for ranks of Bonett and Wright (2000, Psychometrika 65)."""
    centre = np.arctanh(min(max(correlation, -1 + 1e-6), 1 - 1e-6))
    width = z * np.sqrt((1 + correlation**2 / 2) / max(rows - 3, 1.0))
    return float(np.tanh(centre - width)), float(np.tanh(centre + width))


def proportion_interval(hits: float, rows: float, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's (1934, Biometrika 26), two-sided at `alpha`."""
    low = 0.0 if hits <= 0 else float(betaincinv(hits, rows - hits + 1, alpha / 2))
    high = 1.0 if hits >= rows else float(betaincinv(hits + 1, rows - hits, 1 - alpha / 2))
    return low, high


def odds_interval(first: Bools, second: Bools, alpha: float, spread: float = 1.0) -> tuple[float, float, float]:
    """(low, high, ratio) of the odds in `first` over those in `second`: Woolf's logit interval with Haldane and
    Anscombe's half (Agresti 2013, Categorical Data Analysis, 3.1.2), rows counted as entities."""
    cells = np.array([first.sum(), (~first).sum(), second.sum(), (~second).sum()]) / spread + 0.5
    centre = np.log(cells[0] * cells[3] / (cells[1] * cells[2]))
    width = float(ndtri(1 - alpha / 2)) * np.sqrt((1 / cells).sum())
    return float(np.exp(centre - width)), float(np.exp(centre + width)), float(np.exp(centre))


def expected(
    target: Floats,
    others: Sequence[Reading],
    learn: Bools,
    skip: Callable[[Reading], bool] = lambda reading: False,
    rounds: int = 60,
) -> Floats:
    """What the other columns, but those to `skip`, make one expect of `target`, per row; learnt on the rows `learn`.

    Stagewise additive least squares over the levels of one column at a time, a third of each step, shrunk by twenty
    rows (Bühlmann, Yu 2003, "Boosting with the L2 loss", JASA 98: componentwise boosting).
    """
    learnt = np.flatnonzero(learn)
    if len(learnt) > FITTED:
        learnt = np.sort(np.random.default_rng(0).permutation(learnt)[:FITTED])
    mean = float(target[learnt].mean()) if len(learnt) else 0.0
    result: Floats = np.full(len(target), mean)
    residual = target[learnt] - mean
    gains = []
    some = slice(None, None, max(1, len(learnt) // SCREENED))
    for reading in others:
        codes = reading.codes[learnt[some]]
        sums = np.bincount(codes, weights=residual[some], minlength=len(reading.labels))
        gains.append(float(sums @ (sums / (np.bincount(codes, minlength=len(reading.labels)) + 20.0))))
    ranked = (others[place] for place in np.argsort(gains, kind="stable")[::-1])
    others = list(islice((reading for reading in ranked if not skip(reading)), ASKED))
    inside = [reading.codes[learnt] for reading in others]
    counts = [
        np.bincount(codes, minlength=len(reading.labels)) + 20.0 for codes, reading in zip(inside, others, strict=True)
    ]
    enough = 1e-4 * float(residual @ residual)
    for _ in range(rounds):
        best, gain = None, enough
        for place, codes in enumerate(inside):
            sums = np.bincount(codes, weights=residual, minlength=len(counts[place]))
            step = sums / counts[place]
            if sums @ step > gain:
                best, gain = (place, step), float(sums @ step)
        if best is None:
            break
        place, step = best
        residual = residual - step[inside[place]] / 3
        result += step[others[place].codes] / 3
    return result


def number_codes(values: Floats) -> tuple[Ints, int]:
    """(code per row, how many codes) of n numbers that are in no column of the table."""
    reading = Reading("", "number", pd.Series(dtype=float), values)
    return reading.codes, len(reading.labels)
