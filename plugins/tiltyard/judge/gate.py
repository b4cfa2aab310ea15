"""The gate: evidence and policy in, promote | hold | reject out, with every criterion and its reason. Pure.

Promotion needs every criterion. Two of them are statistics that hold however often one looks (sequential.py): `better`
bounds the mean difference of losses on the rows so far and assumes nothing, `nights` asks whether the difference
would hold on nights to come, since the rows of one night share its conditions. Each is taken at `alpha / challengers`,
challengers being the largest number that was judged at once since this one entered shadow.

What is bounded. For one challenger against one champion: the probability that it is *ever* promoted although it
is on average no better is at most alpha / challengers, hence at most alpha for all those that shared a
tiltyard from their first night on (Bonferroni). One that was judged alone before others came had alpha for itself.
A champion that is replaced makes a new pair. Not bounded is the number of false promotions in a year of new
challengers: each batch has its own alpha. Of `nights` the bound is exact for Gaussian nights and an approximation
for others.

Rejection needs sound evidence of enough covered rows and both statistics the other way round, at the same level.
`watch` asks the same of a promotion afterwards, with the roles reversed.

The other criteria compare a number with the limit that the spec declares. They are not tests: a limit is
chosen to be far from noise. Evidence that is missing is `not_yet`, evidence that contradicts itself fails `evidence`;
both hold, and nothing is computed from the latter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiltyard import arguments, target
from tiltyard.clock import format_duration
from tiltyard.judge import sequential
from tiltyard.records import Compared, Criterion, CriterionStatus, Labelled, Missing, Replayed
from tiltyard.spec import ALPHA, GatePolicy

__all__ = [
    "Compared",
    "Criterion",
    "Evidence",
    "Labelled",
    "Missing",
    "Replayed",
    "SliceEvidence",
    "Verdict",
    "compare",
    "decide",
    "watch",
]

Floats = NDArray[np.float64]

MIN_SLICE_ROWS = 50
"""Below this many rows the mean of a slice says little; only what is beyond doubt counts against it."""
SLICE_COVERAGE = 0.9 / 0.95
"""What of the policy's `min_coverage` a slice needs, which is smaller and varies more."""
MIN_NIGHTS = 2
"""Fewer have no spread to compare their mean with."""
UNEVEN = "champion, challenger and nights are not three columns of one length"


@dataclass(frozen=True, eq=False)
class SliceEvidence:
    """One slice of the same pairs."""

    name: str
    """`column=value`."""
    differences: Floats
    """In the order of prediction times."""
    expected: int
    """Rows of the slice in those matured cohorts, with or without both scores and a label."""

    @property
    def rows(self) -> int:
        """Number of its rows with both scores and a label."""
        return int(np.size(self.differences))

    @property
    def mean(self) -> float | None:
        """The mean difference; None without rows."""
        return float(np.mean(self.differences)) if self.rows else None


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about one challenger at one night. Losses are `Target.losses` on the same rows."""

    challenger: int
    """The version that asks to be promoted."""
    champion: int | None
    """The version in service; None where there is none, and the challenger is measured against `safe_default`."""
    safe_default: float | None
    """The constant that is served without a champion; None where there is a champion."""
    shadow: timedelta
    """Number of nights that the challenger has scored, times the length of a night."""
    differences: Floats
    """Champion's loss minus challenger's per matured row, in the order of prediction times, in [-1, 1]."""
    nights: NDArray[np.int64]
    """The night (date ordinal) of each difference, non-decreasing."""
    expected: int
    """Rows of those matured cohorts, with or without both scores and a label."""
    challengers: int = 1
    """The largest number judged at once on any night since this one entered shadow."""
    slices: tuple[SliceEvidence, ...] = ()
    """The same differences per value of the columns in `gate.slices`."""
    immature: int = 0
    """Number of rows whose cohort has not matured; counted, never decided on."""
    early: int = 0
    """Number of those whose label is known early; counted, never decided on."""
    calibration: Compared | None = None
    """evaluation.calibration_error of both; None where there is none."""
    score_shift: Compared | None = None
    """evaluation.population_stability between the first and the second half of the nights in shadow; None where there
    is none."""
    missing: Missing | None = None
    """The feature whose share of missing values rose most since the training; None where it is not known."""
    latency_ms: float | None = None
    """99th percentile of the time for one row, in milliseconds, measured at registration; None where it was not."""
    size_mb: float | None = None
    """Size of the version's files, in megabytes; None where it is not known."""
    replay: Replayed | None = None
    """What the millisecond test said of the training; None where there was none."""
    labels: Labelled | None = None
    """What is known of the labels that it has learned from; None where nobody has looked."""


@dataclass(frozen=True)
class Verdict:
    """`criteria` are always all there, in the same order; slices last. `rollback` and `keep` are those of `watch`."""

    verdict: Literal["promote", "hold", "reject", "rollback", "keep"]
    """The decision in a word."""
    criteria: tuple[Criterion, ...]
    """Every criterion with its value, its limit and its reason."""
    mean: float | None
    """Mean difference of the losses so far; None without statistics, as are both bounds."""
    low: float | None
    """One-sided lower bound of the mean, at level 1 - alpha / challengers."""
    high: float | None
    """One-sided upper bound of the mean, at the same level."""

    @property
    def reasons(self) -> list[str]:
        """What stands in the way, or, when nothing does, what was met."""
        open_ = [criterion.reason for criterion in self.criteria if criterion.status != "pass"]
        return open_ or [criterion.reason for criterion in self.criteria]

    @property
    def lines(self) -> list[str]:
        """Every criterion with its number, its limit and pass, fail or not yet."""
        return [criterion.line for criterion in self.criteria]


@dataclass(frozen=True)
class _Statistics:
    """What the two statistics say of the differences so far."""

    level: float
    mean: float
    low: float
    high: float
    nights: int
    better: float
    """Logarithm of the nights' evidence for the challenger, and for the champion."""
    worse: float


def decide(evidence: Evidence, policy: GatePolicy, deadline_ms: int) -> Verdict:
    """Promote when every criterion passes; reject when the challenger is worse beyond doubt; hold otherwise.

    `deadline_ms`: the spec's fallback.deadline_ms, the limit of latency where the policy declares none.
    """
    problems = _problems(evidence)
    sound = not problems
    statistics = _statistics(evidence, policy.alpha / evidence.challengers) if sound else None
    criteria = (
        _evidence(problems),
        _shadow(evidence, policy),
        _matured(evidence, policy),
        _coverage(evidence, policy, sound),
        _better(evidence, statistics),
        _nights(evidence, statistics),
        _calibration(evidence, policy),
        _stability(evidence, policy),
        _availability(evidence, policy),
        _latency(evidence, policy, deadline_ms),
        _size(evidence, policy),
        _replay(evidence),
        _labels(evidence),
        *_slices(evidence, policy, sound),
    )
    status = {criterion.name: criterion.status for criterion in criteria}
    verdict: Literal["promote", "hold", "reject"] = "hold"
    if all(criterion.status == "pass" for criterion in criteria):
        verdict = "promote"
    elif all(status[name] == "pass" for name in ("evidence", "matured", "coverage")) and (
        status["better"] == status["nights"] == "fail"
    ):
        verdict = "reject"
    return _verdict(verdict, criteria, statistics)


def watch(evidence: Evidence, policy: GatePolicy) -> Verdict:
    """The gate with the roles reversed, on rows since a promotion: `rollback` when the previous champion is better.

    `evidence.challenger` is the previous champion, `evidence.champion` the promoted one. Evidence that is missing or
    unsound keeps; neither a time in shadow nor a number of rows is asked for, since harm may show at once and
    the two statistics hold from the first row on. The new champion is sent away wrongly with probability at most alpha.
    """
    problems = _problems(evidence)
    if evidence.champion is None:
        problems.append("nobody was promoted")
    statistics = _statistics(evidence, policy.alpha / evidence.challengers) if not problems else None
    criteria = (
        _evidence(problems),
        _coverage(evidence, policy, not problems),
        _better(evidence, statistics),
        _nights(evidence, statistics),
    )
    worse = all(criterion.status == "pass" for criterion in criteria)
    return _verdict("rollback" if worse else "keep", criteria, statistics)


def compare(champion: ArrayLike, challenger: ArrayLike, nights: ArrayLike, *, alpha: float = 0.05) -> Verdict:
    """The gate's two statistics on two columns of losses, for losses from anywhere. Look as often as you like.

    `champion` and `challenger` are losses of the same rows, in [0, 1]; `nights` says of each row to which night it
    belongs, as a date or a whole number, in any order. `alpha` lies above 0 and below 0.5, as in a spec: the
    probability of ever promoting a challenger that is no better. `promote` when the challenger is better on the rows so
    far and from night to night, `reject` when it is worse in both, `hold` otherwise. Losses that contradict themselves
    (not finite, out of range, of different lengths) hold as well, and the criterion `evidence` says why.

    Raises BadInput for an `alpha` out of its bounds, for losses that are no numbers and nights that are no dates.
    """
    arguments.check_between(alpha, "alpha", *ALPHA)
    losses = [arguments.numbers(column, name) for column, name in ((champion, "champion"), (challenger, "challenger"))]
    dates = np.asarray(nights)
    is_whole = np.issubdtype(dates.dtype, np.integer) or not dates.size
    ordinals = dates.astype(np.int64) if is_whole else arguments.days(nights, "nights")
    is_aligned = losses[0].shape == losses[1].shape == ordinals.shape and ordinals.ndim == 1
    differences = losses[0] - losses[1] if is_aligned else np.empty(0)
    order = np.argsort(ordinals, kind="stable") if is_aligned else np.empty(0, dtype=np.int64)
    evidence = Evidence(
        challenger=2,
        champion=1,
        safe_default=None,
        shadow=timedelta(),
        differences=differences[order],
        nights=ordinals[order] if is_aligned else order,
        expected=len(differences),
    )
    problems = _problems_of_losses(losses) + _problems(evidence) if is_aligned else [UNEVEN]
    statistics = _statistics(evidence, alpha) if not problems else None
    compared = [
        replace(criterion, reason=criterion.reason.replace("version 1", "the champion"))
        for criterion in (_better(evidence, statistics), _nights(evidence, statistics))
    ]
    criteria = (_evidence(problems), *compared)
    both = {criterion.status for criterion in compared}
    verdict: Literal["promote", "hold", "reject"] = "hold"
    if both == {"pass"}:
        verdict = "promote"
    elif both == {"fail"}:
        verdict = "reject"
    return _verdict(verdict, criteria, statistics)


def _problems_of_losses(losses: Sequence[Floats]) -> list[str]:
    """Losses from anywhere may be of any size, and a difference of two large ones small."""
    finite = np.concatenate([column[np.isfinite(column)] for column in losses])
    outside = int(((finite < 0) | (finite > 1)).sum())
    return [f"{outside} losses lie outside [0, 1]"] if outside else []


def _verdict(
    verdict: Literal["promote", "hold", "reject", "rollback", "keep"],
    criteria: tuple[Criterion, ...],
    statistics: _Statistics | None,
) -> Verdict:
    if statistics is None:
        return Verdict(verdict, criteria, None, None, None)
    return Verdict(verdict, criteria, statistics.mean, statistics.low, statistics.high)


def _statistics(evidence: Evidence, level: float) -> _Statistics | None:
    """None without a single difference."""
    differences = np.asarray(evidence.differences, dtype=np.float64)
    if not len(differences):
        return None
    sums = sequential.nightly(differences, evidence.nights)
    total, squares, nights = float(sums.sum()), float((sums**2).sum()), len(sums)
    return _Statistics(
        level=level,
        mean=float(differences.mean()),
        low=sequential.lower(differences, level),
        high=sequential.upper(differences, level),
        nights=nights,
        better=float(sequential.log_e_nights(total, squares, nights)),
        worse=float(sequential.log_e_nights(-total, squares, nights)),
    )


def _problems(evidence: Evidence) -> list[str]:
    differences, nights = np.asarray(evidence.differences, dtype=np.float64), np.asarray(evidence.nights)
    problems = []
    if differences.ndim != 1:
        problems.append("the differences are not one number per row")
    elif not np.isfinite(differences).all():
        problems.append(f"{int((~np.isfinite(differences)).sum())} differences are not numbers")
    elif len(differences) and np.abs(differences).max() > 1:
        problems.append("a difference of losses lies outside [-1, 1]")
    if nights.shape != differences.shape or (nights.size and not np.issubdtype(nights.dtype, np.integer)):
        problems.append("not every difference has its night")
    elif nights.ndim == 1 and (np.diff(nights) < 0).any():
        problems.append("the nights are not in order")
    if evidence.champion is None and not _is_share(evidence.safe_default):
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
        values = np.asarray(part.differences, dtype=np.float64)
        if values.size > differences.size:
            problems.append(f"slice {part.name} counts {values.size} of {differences.size} pairs")
        elif values.size > part.expected:
            problems.append(f"slice {part.name} counts {values.size} pairs among {part.expected} rows")
        elif values.ndim != 1 or not np.isfinite(values).all() or (values.size and np.abs(values).max() > 1):
            problems.append(f"slice {part.name} has differences that are none")
    return problems + _odd_figures(evidence)


def _odd_figures(evidence: Evidence) -> list[str]:
    """Figures that cannot be what they are called."""
    figures = [("latency", evidence.latency_ms), ("size", evidence.size_mb)]
    for name, compared in (("calibration error", evidence.calibration), ("score shift", evidence.score_shift)):
        if compared is not None:
            figures += [(name, compared.challenger), (f"champion's {name}", compared.champion)]
    odd = [f"the {name} is {value}" for name, value in figures if value is not None and not 0 <= value < math.inf]
    missing = evidence.missing
    if missing is not None and not (_is_share(missing.training) and _is_share(missing.shadow)):
        odd.append(f"the missing values of {missing.feature} are no shares")
    return odd


def _is_share(value: float | None) -> bool:
    return value is not None and 0 <= value <= 1


def _evidence(problems: Sequence[str]) -> Criterion:
    if problems:
        return Criterion("evidence", "; ".join(problems), None, "fail", f"The evidence is unsound: {problems[0]}.")
    return Criterion("evidence", "sound", None, "pass", "The evidence agrees with itself.")


def _shadow(evidence: Evidence, policy: GatePolicy) -> Criterion:
    value, limit = _days(evidence.shadow), format_duration(policy.min_shadow)
    if evidence.shadow >= policy.min_shadow:
        return Criterion("shadow", value, limit, "pass", f"In shadow for {value}, {limit} are asked for.")
    return Criterion("shadow", value, limit, "not_yet", f"Only {value} in shadow, {limit} are asked for.")


def _days(span: timedelta) -> str:
    return "0d" if not span else format_duration(span) if span > timedelta() else f"-{format_duration(-span)}"


def _matured(evidence: Evidence, policy: GatePolicy) -> Criterion:
    rows, limit = int(np.size(evidence.differences)), policy.min_matured
    waiting = f"{evidence.immature} rows wait for their cohort, {evidence.early} of them with a label known early"
    if rows >= limit:
        return Criterion("matured", rows, limit, "pass", f"{rows} matured rows, {limit} are asked for; {waiting}.")
    return Criterion("matured", rows, limit, "not_yet", f"Only {rows} matured rows of {limit}; {waiting}.")


def _coverage(evidence: Evidence, policy: GatePolicy, sound: bool) -> Criterion:
    limit = policy.min_coverage
    if not sound or not evidence.expected:
        return Criterion("coverage", None, limit, "not_yet", "No matured cohort yet to cover.")
    share = len(evidence.differences) / evidence.expected
    text = f"{share:.1%} of {evidence.expected} rows carry both scores and a label, {limit:.0%} are asked for"
    if share >= limit:
        return Criterion("coverage", share, limit, "pass", f"{text}.")
    way_out = "; where it is usual that a row has no outcome, gate.min_coverage says so."
    return Criterion("coverage", share, limit, "fail", text + way_out)


def _against(evidence: Evidence) -> str:
    return f"version {evidence.champion}" if evidence.champion is not None else "the safe default"


def _better(evidence: Evidence, statistics: _Statistics | None) -> Criterion:
    against = _against(evidence)
    if statistics is None:
        return Criterion("better", None, 0.0, "not_yet", f"Nothing yet to compare with {against}.")
    interval = f"{statistics.mean:+.4f} [{statistics.low:+.4f}, {statistics.high:+.4f}]"
    where = f"{interval}, each bound at level {1 - statistics.level:.3g}"
    if statistics.low > 0:
        return Criterion("better", statistics.low, 0.0, "pass", f"Better than {against} by {where}.")
    if statistics.high < 0:
        return Criterion("better", statistics.low, 0.0, "fail", f"Worse than {against}: {where}.")
    return Criterion("better", statistics.low, 0.0, "not_yet", f"Not told apart from {against}: {where}.")


def _nights(evidence: Evidence, statistics: _Statistics | None) -> Criterion:
    """Its number is an e-value: the evidence against `no better` that chance exceeds with probability 1 / e."""
    against = _against(evidence)
    if statistics is None:
        return Criterion("nights", None, None, "not_yet", f"No night yet to compare with {against}.")
    limit, value = 1 / statistics.level, math.exp(min(statistics.better, 700.0))
    if statistics.nights < MIN_NIGHTS:
        text = f"One matured night says nothing of others, {MIN_NIGHTS} are the least."
        return Criterion("nights", value, limit, "not_yet", text)
    where = f"evidence {value:.3g} over {statistics.nights} matured nights, {limit:.3g} is asked for"
    if statistics.better >= math.log(limit):
        return Criterion("nights", value, limit, "pass", f"Better than {against} from night to night: {where}.")
    if statistics.worse >= math.log(limit):
        counter = math.exp(min(statistics.worse, 700.0))
        text = (
            f"Worse than {against} from night to night: evidence {counter:.3g} over {statistics.nights} matured nights."
        )
        return Criterion("nights", value, limit, "fail", text)
    return Criterion("nights", value, limit, "not_yet", f"Nights do not tell it apart from {against}: {where}.")


def _calibration(evidence: Evidence, policy: GatePolicy) -> Criterion:
    says = target.of_metric(policy.metric).miscalibrated
    return _compared("calibration", evidence.calibration, policy.max_calibration_error, says)


def _stability(evidence: Evidence, policy: GatePolicy) -> Criterion:
    return _compared("stability", evidence.score_shift, policy.max_score_shift, "Scores shifted while in shadow by")


def _compared(name: str, figure: Compared | None, limit: float, says: str) -> Criterion:
    """Passes within the limit, or not worse than the champion: what is in service already is no reason to hold."""
    if figure is None or figure.challenger is None:
        return Criterion(name, None, limit, "not_yet", f"There is no figure of {name} yet.")
    theirs = f" (in service: {figure.champion:.3f})" if figure.champion is not None else ""
    text = f"{says} {figure.challenger:.3f}{theirs}; {limit:g} is allowed."
    fine = figure.challenger <= limit or (figure.champion is not None and figure.challenger <= figure.champion)
    return Criterion(name, figure.challenger, limit, "pass" if fine else "fail", text)


def _availability(evidence: Evidence, policy: GatePolicy) -> Criterion:
    missing, limit = evidence.missing, policy.max_missing_rise
    if missing is None:
        return Criterion("availability", None, limit, "not_yet", "How often features are missing is not known.")
    rise = missing.shadow - missing.training
    text = (
        f"{missing.feature} is missing in {missing.shadow:.1%} of the rows in shadow and in {missing.training:.1%} in "
        f"training; a rise of {limit:.0%} is allowed."
    )
    return Criterion("availability", rise, limit, "pass" if rise <= limit else "fail", text)


def _latency(evidence: Evidence, policy: GatePolicy, deadline_ms: int) -> Criterion:
    limit = float(deadline_ms) if policy.max_latency_ms is None else policy.max_latency_ms
    return _budget("latency", evidence.latency_ms, limit, "One row takes {} ms (99th percentile)")


def _size(evidence: Evidence, policy: GatePolicy) -> Criterion:
    return _budget("size", evidence.size_mb, policy.max_size_mb, "The model takes {} MB")


def _budget(name: str, value: float | None, limit: float, says: str) -> Criterion:
    if value is None:
        return Criterion(name, None, limit, "not_yet", f"The {name} was not measured.")
    text = f"{says.format(f'{value:.3g}')}, {limit:g} are allowed."
    return Criterion(name, value, limit, "pass" if value <= limit else "fail", text)


def _replay(evidence: Evidence) -> Criterion:
    replay = evidence.replay
    if replay is None:
        return Criterion("replay", None, "pass", "not_yet", "The millisecond test has not been run.")
    status: dict[str, CriterionStatus] = {"pass": "pass", "warn": "pass", "fail": "fail"}
    text = f"The millisecond test says {replay.verdict}" + (f": {replay.note}" if replay.note else "")
    return Criterion("replay", replay.verdict, "pass", status.get(replay.verdict, "not_yet"), text.rstrip(".") + ".")


def _labels(evidence: Evidence) -> Criterion:
    """What nobody could test passes, and says so: a first version is of before anybody has said anything."""
    labels = evidence.labels
    if labels is None:
        return Criterion("labels", None, "sound", "not_yet", "Nobody has looked at the labels that it learned from.")
    status: CriterionStatus = "fail" if labels.state == "suspect" else "pass"
    return Criterion("labels", labels.state, "sound", status, labels.note)


def _slices(evidence: Evidence, policy: GatePolicy, sound: bool) -> list[Criterion]:
    """Every value of every declared column, and of those that the evidence has beside them; a column with no value that
    can be judged is not yet known."""
    criteria = []
    limit = -policy.max_slice_loss
    for column in dict.fromkeys((*policy.slices, *(part.name.partition("=")[0] for part in evidence.slices))):
        parts = [part for part in evidence.slices if part.name.startswith(f"{column}=")]
        if not sound or not any(part.rows >= MIN_SLICE_ROWS for part in parts):
            text = f"No {column} has {MIN_SLICE_ROWS} matured rows to say how the challenger does by it."
            criteria.append(Criterion(f"slice {column}", None, limit, "not_yet", text))
        if sound:
            level = policy.alpha / evidence.challengers
            criteria += [
                _slice(part, level, limit, policy.min_coverage) for part in sorted(parts, key=lambda part: part.name)
            ]
    return criteria


def _slice(part: SliceEvidence, level: float, limit: float, coverage: float) -> Criterion:
    name, mean = f"slice {part.name}", part.mean
    if part.expected >= MIN_SLICE_ROWS and part.rows < SLICE_COVERAGE * coverage * part.expected:
        text = f"{part.name}: only {part.rows} of {part.expected} rows carry both scores and a label."
        return Criterion(name, mean, limit, "not_yet", text)
    if mean is None:
        return Criterion(name, None, limit, "pass", f"{part.name}: {part.expected} rows are too few to judge.")
    where = f"{part.name}: {mean:+.4f} on {part.rows} rows, {limit:+.4f} is the least allowed"
    if mean >= limit:
        return Criterion(name, mean, limit, "pass", f"{where}.")
    if sequential.upper(np.asarray(part.differences, dtype=np.float64), level) < limit:
        return Criterion(name, mean, limit, "fail", f"{where}, and it is worse beyond doubt.")
    if part.rows < MIN_SLICE_ROWS:
        text = f"{part.name}: {mean:+.4f} on {part.rows} rows, too few to judge ({MIN_SLICE_ROWS} are asked for)."
        return Criterion(name, mean, limit, "pass", text)
    return Criterion(name, mean, limit, "not_yet", f"{where}; more rows may clear or confirm it.")
