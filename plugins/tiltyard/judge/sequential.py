"""What may be believed of paired differences by somebody who looks every night. Pure.

A difference is the champion's loss minus the challenger's on one row, in [-1, 1]; above zero the challenger is
better. Two statistics, both one-sided and valid at every look at once: by Ville's inequality each passes 1 / level
with probability at most `level`, however often one looks, however long one waits and whenever one stops.

**Rows** (`log_wealth`, `lower`): nothing is assumed but the bounds. A gambler who stakes the fixed share b of the
wealth on every difference against a price m owns W_t(b) = prod (1 + b d_i) / (1 + b m) per unit staked: betting,
Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting, JRSS B 86(1), section 4, with
the shares mixed as in Cover (1991), Universal portfolios, Mathematical Finance 1(1). With conditional means
mu_i = E[d_i | the past], prod (1 + b d_i) / (1 + b mu_i) is a martingale for every b in [0, 1), and by Jensen's
inequality (the logarithm is concave) prod (1 + b mu_i) <= (1 + b D_t)^t, where D_t is the mean of the mu_i up to t. So
the mixture over b of prod (1 + b d_i) / (1 + b D_t)^t never exceeds a martingale: the m at which it equals 1 / level
lies below D_t at every t at once with probability 1 - level. Neither independence nor stationarity is needed, and the
null is the weak one of Choe & Ramdas (2023), Comparing sequential forecasters, Operations Research 72(4): better *on
average so far*, not on every row. This takes the place of their sub-exponential boundary (Howard, Ramdas, McAuliffe &
Sekhon 2021, Proposition 9), which at the variances of a Brier difference needs a tenth to four fifths more rows: it
pays for a skewness that a bet sees for itself.

**Nights** (`log_e_nights`): rows of one night share a queue, a release, a holiday, and D_t is an average over the
conditions that were met. What is to hold for nights to come takes one observation per night, the sum of its
differences, and a t-test that may be looked at every night: the likelihood ratio of the standardised sums under a
standardised effect e > 0 against e = 0, scale integrated out by the right Haar measure (Lai 1976, On confidence
sequences, Annals of Statistics 4(2); Wang & Ramdas, Anytime-valid t-tests and confidence sequences for Gaussian means
with unknown variance, Sequential Analysis 44(1), 2025, section 4), with a half normal of spread EFFECT over e. It
is exact for Gaussian nights of equal spread and, because it rises in the t statistic, holds for every e <= 0. For other
nights it is an approximation that gets better with their number: symmetric ones, however heavy-tailed or uneven, are
safe (tests/reference), while a challenger that is a little better on most nights and rarely much worse can
pass too often before the rare night has been met.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, stdtr

Floats = NDArray[np.float64]

BETS: Floats = np.array([0.99 / 2**octave for octave in range(6)])
"""Shares staked. The best one is effect / variance: 0.99 for an effect of 0.002 where differences have variance 0.002
(2,500 rows), 0.03 for one of 0.0006 at variance 0.02 (300,000 rows). Half an octave off costs a tenth of the rate."""
WEIGHTS: Floats = np.sqrt(BETS) / np.sqrt(BETS).sum()
"""How the wealth is divided over BETS before the first row."""
EFFECT = 0.7
"""Spread of the standardised effects (mean of a night over its standard deviation) that are looked for. Fixed
beforehand: 0.3 is found in some 80 nights, 2 in five, the fewest that can reach 1 / 0.05."""
_BLOCK = 64
"""Factors in [0.01, 1.99] that are multiplied before a logarithm is taken: 64 of them stay within a double."""


def log_wealth(differences: Floats) -> Floats:
    """For every bet in BETS the sum of log(1 + b d) over `differences` (1-d, in [-1, 1]). Sums add up over parts."""
    rest = len(differences) % _BLOCK
    blocks = differences[: len(differences) - rest].reshape(-1, _BLOCK)
    wealth = np.empty(len(BETS))
    for place, bet in enumerate(BETS):
        wealth[place] = np.log((1 + bet * blocks).prod(axis=1)).sum()
        wealth[place] += math.log((1 + bet * differences[len(differences) - rest :]).prod())
    return wealth


def log_e_rows(wealth: Floats, rows: ArrayLike, price: ArrayLike = 0.0) -> Floats:
    """Logarithm of the evidence that the mean difference so far exceeds `price`.

    `wealth`: `log_wealth` of the rows so far, its bets in the last axis; `rows` and `price` broadcast over the others.
    """
    rows, price = np.asarray(rows, dtype=np.float64)[..., None], np.asarray(price, dtype=np.float64)[..., None]
    value: Floats = logsumexp(np.log(WEIGHTS) + wealth - rows * np.log1p(BETS * price), axis=-1)
    return value


def lower(differences: Floats, level: float) -> float:
    """The lower confidence sequence of level 1 - `level` for the mean difference, at the last row; at least -1.

    Newton's method on a decreasing convex function, begun at the root of its largest single term, which lies left of
    the root: it comes up from below, so that stopping early errs on the careful side.
    """
    rows, target = len(differences), math.log(1 / level)
    if not rows:
        return -1.0
    start = np.log(WEIGHTS) + log_wealth(differences)
    price = max(-1.0, float((np.expm1((start - target) / rows) / BETS).max()))
    for _ in range(100):
        terms = start - rows * np.log1p(BETS * price)
        excess = float(logsumexp(terms)) - target
        slope = float(rows * (np.exp(terms - terms.max()) * BETS / (1 + BETS * price)).sum())
        step = excess / (slope / float(np.exp(terms - terms.max()).sum()))
        if step <= 1e-12:
            break
        price += step
    return price


def upper(differences: Floats, level: float) -> float:
    """The mirror image of `lower`; at most 1."""
    return -lower(-differences, level)


def nightly(differences: Floats, nights: NDArray[np.int64]) -> Floats:
    """Sum of the differences of every night; `nights` is non-decreasing, one entry per difference."""
    if not len(differences):
        return np.zeros(0)
    starts = np.flatnonzero(np.concatenate([[True], nights[1:] != nights[:-1]]))
    sums: Floats = np.add.reduceat(differences, starts)
    return sums


def log_e_nights(total: ArrayLike, squares: ArrayLike, nights: ArrayLike) -> Floats:
    """Logarithm of the t-test's evidence that nights are better than nothing, from their sum and sum of squares.

    With n nights, r = total / sqrt(squares) and a = n + 1 / EFFECT², the integral over effect and scale is
    2 (1 + n EFFECT²)^(-1/2) (1 - r² / a)^(-n/2) T_n(r sqrt(n / (a - r²))), T_n being Student's distribution function.
    One night says at most 2; no night says nothing.
    """
    total, squares, nights = (np.asarray(value, dtype=np.float64) for value in (total, squares, nights))
    ratio = np.divide(total, np.sqrt(squares), out=np.zeros_like(total * squares), where=squares > 0)
    room = nights + EFFECT**-2
    with np.errstate(divide="ignore"):
        tail = np.log(stdtr(np.maximum(nights, 1), ratio * np.sqrt(nights / (room - ratio**2))))
    lead = math.log(2) - np.log1p(nights * EFFECT**2) / 2
    value: Floats = lead - nights / 2 * np.log1p(-(ratio**2) / room) + tail
    return value
