"""The gate: evidence and policy in, promote | hold | reject out, with every criterion and its reason. Pure.

The statistic is a confidence sequence on the paired difference of Brier losses, champion minus challenger,
so that above zero the challenger is better. It holds at every sample size at once: a gate that looks every
night and stops when it likes what it sees still promotes a challenger that is no better with probability
at most alpha / 2 (and rejects one that is no worse with at most as much).

Method. For differences d_i in [-1, 1] and predictable centres g_i in [-1, 1] (the mean of the differences
before i), put V_t = sum (d_i - g_i)². Then mean(d) ± u(V_t) / t covers the running mean of the conditional
expectations E[d_i | the past] for all t at once, where u is a uniform boundary of level alpha / 2, sub-exponential
with scale c = 2: Choe & Ramdas (2023), Comparing Sequential Forecasters, Operations Research, Theorem 2, which
rests on Howard, Ramdas, McAuliffe & Sekhon (2021), Time-uniform, nonparametric, nonasymptotic confidence sequences,
Annals of Statistics 49(2), Theorem 4. u is their gamma-exponential mixture (Proposition 9): the s at which
the integral over l in [0, 1/c) of exp(l s - psi(l) v), psi(l) = (-log(1 - c l) - c l) / c², weighted by a
truncated gamma density, reaches 2 / alpha. Nothing is assumed about independence, equal distribution or stationarity.

What it speaks for, and what not. Rows are taken in the order of their prediction times. The quantity that is
covered is the average expected difference *under the conditions that were met*, given what came before. Rows of
one night share conditions (a queue, a holiday), so it is no statement about nights to come: min_shadow is
what makes a challenger meet several nights. Taking one mean per night as the observation would speak
for nights, and would need some hundred of them, since the range of an observation stays 2. Several challengers that are
judged at once share alpha (Bonferroni); challengers of different nights do not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainc, gammaln  # type: ignore[import-untyped]

from tiltyard.clock import format_duration
from tiltyard.spec import GatePolicy

Floats = NDArray[np.float64]
Status = Literal["pass", "fail", "not_yet"]

SCALE = 2.0
"""c: how far a difference may lie from its centre, both in [-1, 1]."""
TYPICAL_VARIANCE = 0.02
"""The row-wise variance of a Brier difference for which the boundary is at its tightest at min_matured. Fixed
beforehand; a wrong guess costs width, never validity."""
MIN_SLICE_ROWS = 50
"""Below this many rows a slice is not judged: its mean says little."""
MIN_COVERAGE = 0.95
"""Share of the rows of the challenger's matured cohorts that must carry both scores and a label."""


@dataclass(frozen=True)
class SliceEvidence:
    """One slice of the same pairs. `mean`: champion's loss minus challenger's, None without rows."""

    name: str
    """`column=value`."""
    rows: int
    mean: float | None


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about one challenger at one night. Losses are Brier losses on the same rows."""

    challenger: int
    champion: int | None
    """None: nobody is in service, and the challenger is measured against `safe_default`."""
    safe_default: float | None
    shadow: timedelta
    """Nights the challenger has scored, times the length of a night."""
    differences: Floats
    """Champion's loss minus challenger's per matured row, in the order of prediction times, in [-1, 1]."""
    expected: int
    """Rows of those matured cohorts, with or without both scores and a label."""
    challengers: int = 1
    """How many are judged at once."""
    slices: tuple[SliceEvidence, ...] = ()
    immature: int = 0
    """Rows whose cohort has not matured, and those of them whose label is known early. Counted, never decided on."""
    early: int = 0


@dataclass(frozen=True)
class Criterion:
    name: str
    value: float | str | None
    limit: float | str | None
    status: Status
    reason: str


@dataclass(frozen=True)
class Verdict:
    """`criteria` are always all there, in the same order; slices last."""

    verdict: Literal["promote", "hold", "reject"]
    criteria: tuple[Criterion, ...]
    mean: float | None
    low: float | None
    high: float | None

    @property
    def reasons(self) -> list[str]:
        """What stands in the way, or, when nothing does, what was met."""
        open_ = [criterion.reason for criterion in self.criteria if criterion.status != "pass"]
        return open_ or [criterion.reason for criterion in self.criteria]


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float


def log_mixture(s: ArrayLike, v: ArrayLike, rho: float, c: float = SCALE) -> Floats:
    """Logarithm of the gamma-exponential mixture supermartingale at sum `s` and variance process `v`."""
    s, v = np.asarray(s, dtype=np.float64), np.asarray(v, dtype=np.float64)
    square = c * c
    prior = rho / square
    shape = (v + rho) / square
    rate = (c * s + v + rho) / square
    lead = prior * math.log(prior) - gammaln(prior) - np.log(gammainc(prior, prior))
    value: Floats = lead + gammaln(shape) + np.log(gammainc(shape, rate)) - shape * np.log(rate) + rate - prior
    return value


def boundary(v: ArrayLike, alpha: float, rho: float, c: float = SCALE) -> Floats:
    """u(v): the s at which the mixture reaches 1 / alpha, for every v >= 0. Same shape as `v`.

    Newton's method on a convex, increasing function: after the first step it comes down to the root
    from above, so that stopping early errs on the wide side.
    """
    v = np.asarray(v, dtype=np.float64)
    target = math.log(1 / alpha)
    square = c * c
    shape = (v + rho) / square
    s = np.sqrt(2 * v * target) + c * target
    for _ in range(100):
        rate = (c * s + v + rho) / square
        portion = gammainc(shape, rate)
        density = np.exp((shape - 1) * np.log(rate) - rate - gammaln(shape))
        slope = (1 - shape / rate + density / portion) / c
        step = (log_mixture(s, v, rho, c) - target) / slope
        s = np.maximum(s - step, 0.0)
        if np.all(np.abs(step) <= 1e-10 * (1 + s)):
            break
    return s


def tuning(alpha: float, rows: int) -> float:
    """rho for which the boundary of level `alpha` is about tightest after `rows` rows of typical variance.

    Howard et al. (2021), section 3.5, for the one-sided normal mixture, which the gamma-exponential follows.
    """
    log_level = 2 * math.log(1 / alpha)
    return TYPICAL_VARIANCE * rows / (log_level + math.log(1 + log_level))


def variance_process(differences: Floats) -> Floats:
    """V_t for t = 1..n: running sum of squared distances from the mean of what came before (0 at first)."""
    before = np.concatenate([[0.0], np.cumsum(differences)[:-1]])
    centre = before / np.maximum(np.arange(len(differences)), 1)
    running: Floats = np.cumsum((differences - centre) ** 2)
    return running


def sequence(differences: Floats, alpha: float, rows: int) -> tuple[Floats, Floats, Floats]:
    """(mean, low, high) after each of n differences: the two-sided confidence sequence of level `alpha`."""
    times = np.arange(1, len(differences) + 1)
    mean = np.cumsum(differences) / times
    margin = boundary(variance_process(differences), alpha / 2, tuning(alpha / 2, rows)) / times
    return mean, mean - margin, mean + margin


def interval(differences: Floats, alpha: float, rows: int) -> Interval:
    """The last element of `sequence`: what may be believed now. Needs at least one difference."""
    mean = float(differences.mean())
    v = variance_process(differences)[-1:]
    margin = float(boundary(v, alpha / 2, tuning(alpha / 2, rows))[0]) / len(differences)
    return Interval(mean, mean - margin, mean + margin)


def decide(evidence: Evidence, policy: GatePolicy) -> Verdict:
    """Promote when every criterion passes; reject when the challenger is worse beyond doubt; hold otherwise.

    Missing or contradictory evidence holds: nothing is computed from it.
    """
    problems = _problems(evidence)
    sound = not problems
    matured = len(evidence.differences)
    found = None
    if sound and matured:
        found = interval(np.asarray(evidence.differences), policy.alpha / evidence.challengers, policy.min_matured)
    criteria = (
        _evidence(problems),
        _shadow(evidence, policy),
        _matured(evidence, policy),
        _coverage(evidence, sound),
        _better(evidence, policy, found),
        *_slices(evidence, policy, sound),
    )
    status = {criterion.name: criterion.status for criterion in criteria}
    judged = all(status[name] == "pass" for name in ("evidence", "matured", "coverage"))
    verdict: Literal["promote", "hold", "reject"] = "hold"
    if all(criterion.status == "pass" for criterion in criteria):
        verdict = "promote"
    elif judged and found is not None and found.high < 0:
        verdict = "reject"
    if found is None:
        return Verdict(verdict, criteria, None, None, None)
    return Verdict(verdict, criteria, found.mean, found.low, found.high)


def _problems(evidence: Evidence) -> list[str]:
    differences = np.asarray(evidence.differences, dtype=np.float64)
    problems = []
    if differences.ndim != 1:
        problems.append("the differences are not one number per row")
    elif not np.isfinite(differences).all():
        problems.append(f"{int((~np.isfinite(differences)).sum())} differences are not numbers")
    elif len(differences) and np.abs(differences).max() > 1:
        problems.append("a difference of Brier losses lies outside [-1, 1]")
    if evidence.champion is None and not _is_probability(evidence.safe_default):
        problems.append("there is neither a champion nor a safe default to compare with")
    if evidence.champion == evidence.challenger:
        problems.append("the challenger is compared with itself")
    if evidence.challengers < 1:
        problems.append("no challenger is being judged")
    if evidence.shadow < timedelta():
        problems.append("the time in shadow is negative")
    if evidence.expected < differences.size:
        problems.append(f"{differences.size} pairs were found among {evidence.expected} rows")
    if not 0 <= evidence.early <= evidence.immature:
        problems.append(f"{evidence.early} early labels were counted among {evidence.immature} immature rows")
    if len({part.name for part in evidence.slices}) != len(evidence.slices):
        problems.append("a slice appears twice")
    for part in evidence.slices:
        if not 0 <= part.rows <= differences.size:
            problems.append(f"slice {part.name} counts {part.rows} of {differences.size} pairs")
        elif part.rows and (part.mean is None or not math.isfinite(part.mean) or abs(part.mean) > 1):
            problems.append(f"slice {part.name} has rows but no difference")
    return problems


def _is_probability(value: float | None) -> bool:
    return value is not None and 0 <= value <= 1


def _evidence(problems: Sequence[str]) -> Criterion:
    if problems:
        return Criterion("evidence", "; ".join(problems), None, "fail", f"The evidence is unsound: {problems[0]}.")
    return Criterion("evidence", "sound", None, "pass", "The evidence is complete and agrees with itself.")


def _shadow(evidence: Evidence, policy: GatePolicy) -> Criterion:
    value, limit = _days(evidence.shadow), format_duration(policy.min_shadow)
    if evidence.shadow >= policy.min_shadow:
        return Criterion("shadow", value, limit, "pass", f"In shadow for {value}, {limit} are asked for.")
    return Criterion("shadow", value, limit, "not_yet", f"Only {value} in shadow, {limit} are asked for.")


def _days(span: timedelta) -> str:
    return "0d" if not span else format_duration(span) if span > timedelta() else f"-{format_duration(-span)}"


def _matured(evidence: Evidence, policy: GatePolicy) -> Criterion:
    rows, limit = len(evidence.differences), policy.min_matured
    waiting = f"{evidence.immature} rows wait for their cohort, {evidence.early} of them with a label known early"
    if rows >= limit:
        return Criterion("matured", rows, limit, "pass", f"{rows} matured rows, {limit} are asked for; {waiting}.")
    return Criterion("matured", rows, limit, "not_yet", f"Only {rows} matured rows of {limit}; {waiting}.")


def _coverage(evidence: Evidence, sound: bool) -> Criterion:
    if not sound or not evidence.expected:
        return Criterion("coverage", None, MIN_COVERAGE, "not_yet", "No matured cohort yet to cover.")
    share = len(evidence.differences) / evidence.expected
    text = f"{share:.1%} of {evidence.expected} rows carry both scores and a label, {MIN_COVERAGE:.0%} are asked for."
    return Criterion("coverage", share, MIN_COVERAGE, "pass" if share >= MIN_COVERAGE else "fail", text)


def _better(evidence: Evidence, policy: GatePolicy, found: Interval | None) -> Criterion:
    against = f"version {evidence.champion}" if evidence.champion is not None else "the safe default"
    if found is None:
        return Criterion("better", None, 0.0, "not_yet", f"Nothing yet to compare with {against}.")
    level = 1 - policy.alpha / evidence.challengers
    where = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] at level {level:.3g}"
    if found.low > 0:
        return Criterion("better", found.low, 0.0, "pass", f"Better than {against} by {where}.")
    if found.high < 0:
        return Criterion("better", found.low, 0.0, "fail", f"Worse than {against}: {where}.")
    return Criterion("better", found.low, 0.0, "not_yet", f"Not told apart from {against}: {where}.")


def _slices(evidence: Evidence, policy: GatePolicy, sound: bool) -> list[Criterion]:
    criteria = []
    limit = -policy.max_slice_loss
    for column in policy.slices:
        parts = [part for part in evidence.slices if part.name.startswith(f"{column}=")]
        if not parts:
            text = f"No matured row says how the challenger does by {column}."
            criteria.append(Criterion(f"slice {column}", None, limit, "not_yet", text))
        for part in sorted(parts, key=lambda part: part.name):
            name = f"slice {part.name}"
            if not sound or part.mean is None:
                criteria.append(Criterion(name, None, limit, "not_yet", f"{part.name}: nothing to judge."))
            elif part.rows < MIN_SLICE_ROWS:
                text = f"{part.name}: {part.rows} rows are too few to judge ({MIN_SLICE_ROWS} are asked for)."
                criteria.append(Criterion(name, part.mean, limit, "pass", text))
            else:
                worse = part.mean < limit
                text = f"{part.name}: {part.mean:+.4f} on {part.rows} rows, {limit:+.4f} is the least allowed."
                criteria.append(Criterion(name, part.mean, limit, "fail" if worse else "pass", text))
    return criteria
