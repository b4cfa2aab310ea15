"""How the truth arrives: what share of a cohort's rows has a label, so many nights after the prediction. Pure.

A cohort is a night of predictions; its age at a night is the number of nights since. The newest cohorts have been seen
only up to their age, and the classes do not arrive alike (cancellations before stays), which is why early labels lie.

**The curve.** Of all rows the size of a cohort is known, so a row without a label is one that waits: F(age) is one
minus the product of (1 - hazard), the hazard at an age being the labels that arrived at it over the rows that were
still without one, over the cohorts that have reached the age (Kaplan & Meier 1958, Nonparametric Estimation from
Incomplete Observations, J. American Statistical Association 53). It need not reach 1: some labels never come. Of one
class the number of rows is *not* known before all have come, so only what has come can be counted: F(age) is the
product over the later ages of (1 - reverse hazard), the reverse hazard at an age being the labels that arrived at it
over those that had arrived by it (Lawless 1994, Adjustments for Reporting Delays and the Prediction of Occurred but Not
Reported Events, Canadian J. Statistics 22, section 2; the same as the chain ladder of England & Verrall 2002,
Stochastic Claims Reserving in General Insurance, British Actuarial J. 8, section 2). It is the share of those that come
by the last age at all.

**A truth that stops arriving.** A night's arrivals are held against those that the hazards and the waiting rows
predict, per weekday, and against the model's own past: the rank of the night's shortfall among the last nights is a
conformal p-value (Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World, section 8.2). However unevenly
labels come, it is uniform as long as nights are exchangeable. A bet against it makes an e-value, and their sum of
products over all starts is an e-detector (Shin, Ramdas & Rinaldo 2024, E-detectors: A Nonparametric Framework for
Sequential Change Detection, New England J. Statistics in Data Science 2): alarming when it reaches c takes at least c
nights on average where nothing has changed. `STREAMS` are watched, each against as many model-years, so that there is
at most one false alarm in a model-year as far as nights are exchangeable. Made-up nights that are noisier on busy
weekdays are not quite, and give two. An alarm is an incident only if the effect is large, too (`STOPPED`, `GONE`,
`LOST`), which leaves one in thirty model-years of them (benchmarks/arrival.py).

Nothing here decides on a model. `arrival` reads the lake, and opens and closes the incident.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Stream = Literal["labels", "positives", "negatives", "missing"]
STREAMS: tuple[Stream, ...] = ("labels", "positives", "negatives", "missing")

WINDOW = 56
"""Nights that are a night's past, itself included: eight of every weekday."""
RUN = 14
"""The detector starts anew so many nights ago: older starts would only add to it."""
LOW, PAYS = 0.08, 12.0
"""A night among the lowest `LOW` of its past pays `PAYS` times the stake, any other the rest: LOW * PAYS < 1."""
YEAR = 365.25
STOPPED: Mapping[Stream, float] = {"labels": 0.5, "positives": 0.1, "negatives": 0.1}
"""Over the nights of an alarm fewer labels than this share of what was predicted. One class fading is drift, and the
world's doing (the breaches of `sla_breach` fell from 96 to 18 % in a spring); one that is gone is a broken delivery."""
GONE = 7
"""A class is only gone when it has been for so many nights: shops close over Easter, and no order comes."""
LOST = 0.2
"""By so much the share of rows without a label in the cohorts that have just matured exceeds what is usual."""
FEW = 5.0
"""Nights for which fewer labels are predicted (or fewer rows matured) are neither judged nor a past."""


@dataclass(frozen=True, eq=False)
class Arrivals:
    """The run-off triangle of one model: cohorts in rows, one a night without a gap, ages in columns.

    Cells of nights that have not come (cohort + age > night) are zero. A label counts at the age at which it was first
    known, by what it says now.
    """

    first: date
    """The night of the first cohort."""
    night: date
    """The last night that was seen."""
    sizes: NDArray[np.int64]
    """(cohorts,) rows that were predicted."""
    positive: NDArray[np.int64]
    """(cohorts, ages) labels that became known at that age."""
    negative: NDArray[np.int64]
    matures: int
    """The age at which a cohort has matured."""
    has_classes: bool = True
    """False: the label is a number; all stand in `positive`, and classes are neither shown nor watched."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(cohorts, ages) labels of either class that became known at that age."""
        return self.positive + self.negative

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(cohorts, ages): the nights that have come."""
        return self.nights <= self.night.toordinal()

    @property
    def nights(self) -> NDArray[np.int64]:
        """(cohorts, ages): the ordinal of the night at which a cohort has that age."""
        cohorts, ages = self.positive.shape
        nights: NDArray[np.int64] = self.first.toordinal() + np.add.outer(np.arange(cohorts), np.arange(ages))
        return nights

    @property
    def shares(self) -> NDArray[np.float64]:
        """(cohorts with rows, ages): the share of a cohort's rows that have a label; NaN for nights to come."""
        came = np.cumsum(self.labels, axis=1) / np.maximum(self.sizes, 1)[:, None]
        shares: NDArray[np.float64] = np.where(self.seen, came, np.nan)[self.sizes > 0]
        return shares

    @property
    def waiting(self) -> NDArray[np.int64]:
        """(cohorts, ages): rows still without a label when the cohort came to that age."""
        came = np.cumsum(self.labels, axis=1)
        at_risk: NDArray[np.int64] = self.sizes[:, None] - came + self.labels
        return at_risk

    def until(self, night: date) -> "Arrivals":
        """The same as it was seen at an earlier night."""
        kept = max(0, (night - self.first).days + 1)
        seen = self.nights[:kept] <= night.toordinal()
        positive, negative = self.positive[:kept] * seen, self.negative[:kept] * seen
        return Arrivals(self.first, night, self.sizes[:kept], positive, negative, self.matures, self.has_classes)


# -- the curve ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Shares by age, from age 0 on. Empty where no cohort is."""

    labels: tuple[float, ...]
    """Of all rows."""
    positives: tuple[float, ...]
    """Of those positives that come by the last age; the same for negatives. Empty where none has come."""
    negatives: tuple[float, ...]

    def age(self, share: float) -> int | None:
        """The age by which that share of all rows has a label; None when it never does."""
        return next((age for age, labels in enumerate(self.labels) if labels >= share), None)


def curve(arrivals: Arrivals, excluded: Collection[date] = ()) -> Curve:
    """The arrival curve, ages up to the oldest that a cohort has reached. `excluded`: nights of incidents."""
    seen = arrivals.seen
    ages = int(seen.any(axis=0).sum()) if arrivals.sizes.sum() else 0
    seen = seen & ~np.isin(arrivals.nights, [day.toordinal() for day in excluded])
    hazard = _hazard(arrivals.labels, arrivals.waiting, seen)[:ages]
    return Curve(
        labels=tuple(float(share) for share in 1 - np.cumprod(1 - hazard)),
        positives=_of_class(arrivals.positive, seen, ages) if arrivals.has_classes else (),
        negatives=_of_class(arrivals.negative, seen, ages),
    )


def _hazard(came: NDArray[np.int64], waiting: NDArray[np.int64], counted: NDArray[np.bool_]) -> Floats:
    """(ages,) labels that came at an age over the rows that waited for one; 0 where none waited."""
    at_risk = np.where(counted, waiting, 0).sum(axis=0)
    arrived = np.where(counted, came, 0).sum(axis=0)
    hazard: Floats = arrived / np.maximum(at_risk, 1)
    return hazard


def _of_class(came: NDArray[np.int64], seen: NDArray[np.bool_], ages: int) -> tuple[float, ...]:
    arrived = np.where(seen, came, 0)[:, :ages].sum(axis=0)
    if not arrived.sum():
        return ()
    by_then = np.where(seen, np.cumsum(came, axis=1), 0)[:, :ages].sum(axis=0)
    reverse = arrived / np.maximum(by_then, 1)
    later = np.append(np.cumprod((1 - reverse)[::-1])[::-1][1:], 1.0)  # the product over the ages after this one
    return tuple(float(share) for share in later)


# -- a truth that stops arriving ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Expected:
    """Labels by night: what came and what was predicted. Of the stream `missing`: rows of the cohort that matured on
    the night which have no label, and as many as usually have none."""

    nights: NDArray[np.int64]
    """Ordinals, without a gap, up to the last one; so are the others."""
    came: Floats
    predicted: Floats
    rows: NDArray[np.int64]
    """Of `missing`: the size of the cohort. Else 0."""
    judged: NDArray[np.bool_]
    """Enough is predicted, and the night belongs to no incident."""


@dataclass(frozen=True)
class Assessment:
    """One stream at one night."""

    stream: Stream
    evidence: float
    """Of the detector; an alarm from `threshold` on. 0 where tonight is not low, or cannot be judged."""
    threshold: float
    since: date
    """The first night of what the evidence speaks of; without evidence, tonight."""
    came: float
    predicted: float
    """Over the nights since then."""
    stopped: bool
    """Alarm and large effect."""
    well: bool
    """Tonight shows no large effect: closes an incident. A night that cannot be judged is not well."""


def threshold() -> float:
    """The evidence that makes an alarm: one false alarm in as many model-years as there are streams."""
    return YEAR * len(STREAMS)


def assess(arrivals: Arrivals, excluded: Collection[date] = ()) -> tuple[Assessment, ...]:
    """Every stream at `arrivals.night`, in the order of `STREAMS`. `excluded`: nights of incidents, no past."""
    last = arrivals.night.toordinal()
    out = frozenset(day.toordinal() for day in excluded) - {last}
    assessments = []
    for stream in STREAMS if arrivals.has_classes else ("labels", "missing"):
        tonight = expected(arrivals, stream, out)
        evidence, since = _detector(arrivals, stream, out, tonight)
        span = tonight.judged & (tonight.nights >= since)
        assessments.append(
            Assessment(
                stream=stream,
                evidence=evidence,
                threshold=threshold(),
                since=date.fromordinal(since),
                came=float(tonight.came[span].sum()),
                predicted=float(tonight.predicted[span].sum()),
                stopped=evidence >= threshold()
                and last - since + 1 >= (GONE if stream in ("positives", "negatives") else 1)
                and _large(stream, tonight, since),
                well=bool(tonight.judged[-1:].any()) and not _large(stream, tonight, last),
            )
        )
    return tuple(assessments)


def expected(arrivals: Arrivals, stream: Stream, out: frozenset[int] = frozenset()) -> Expected:
    """What came and what was to be expected in the last `WINDOW` nights, fitted on all of them but those in `out`.

    Tonight is fitted on as well, like every other night: only then are the nights exchangeable.
    """
    last = arrivals.night.toordinal()
    if stream == "missing":
        return _matured(arrivals, out)
    came = {"labels": arrivals.labels, "positives": arrivals.positive, "negatives": arrivals.negative}[stream]
    nights_of, waiting = arrivals.nights, arrivals.waiting
    first = max(arrivals.first.toordinal(), last - WINDOW + 1)
    nights = np.arange(first, last + 1)
    inside = (nights_of >= first) & (nights_of <= last)
    hazard = _hazard(came, waiting, inside & ~np.isin(nights_of, [*out]))
    place = nights_of[inside] - first
    arrived: Floats = np.bincount(place, weights=came[inside], minlength=len(nights)).astype(np.float64)
    predicted: Floats = np.bincount(place, weights=(waiting * hazard)[inside], minlength=len(nights)).astype(np.float64)
    usual = ~np.isin(nights, [*out])
    for weekday in range(7):
        same = nights % 7 == weekday
        on, due = arrived[same & usual].sum(), predicted[same & usual].sum()
        predicted[same] *= (on + 1) / (due + 1)
    rows = np.zeros(len(nights), dtype=np.int64)
    return Expected(nights, arrived, predicted, rows, usual & (predicted >= FEW))


def _matured(arrivals: Arrivals, out: frozenset[int]) -> Expected:
    last = arrivals.night.toordinal()
    nights = np.arange(max(arrivals.first.toordinal() + arrivals.matures, last - WINDOW + 1), last + 1)
    cohorts = nights - arrivals.matures - arrivals.first.toordinal()
    sizes = arrivals.sizes[cohorts]
    came = np.cumsum(arrivals.labels, axis=1)[cohorts, arrivals.matures]
    missing = (sizes - came).astype(np.float64)
    usual = ~np.isin(nights, [*out])
    share = missing[usual].sum() / max(int(sizes[usual].sum()), 1)
    return Expected(nights, missing, sizes * share, sizes, usual & (sizes >= FEW))


def _low(expectation: Expected, stream: Stream) -> bool:
    """Is the last night among the lowest of its past?

    Counts are compared as square roots, which vary alike whatever the count (Anscombe 1948); of `missing` the highest
    are the lowest.
    """
    shortfall = np.sqrt(expectation.came) - np.sqrt(expectation.predicted)
    past = (-shortfall if stream == "missing" else shortfall)[expectation.judged]
    return float(np.mean(past <= past[-1] + 1e-9)) <= LOW


def _detector(arrivals: Arrivals, stream: Stream, out: frozenset[int], tonight: Expected) -> tuple[float, int]:
    """(the sum over all starts of the products of bets, the first night since it was last below 1)."""
    last = arrivals.night.toordinal()
    if not tonight.judged[-1:].any() or not _low(tonight, stream):
        return 0.0, last
    value, since = 0.0, last
    for night in range(last - RUN + 1, last + 1):
        if night in out:
            value = 0.0
            continue
        expectation = expected(arrivals.until(date.fromordinal(night)), stream, out)
        if not expectation.judged[-1:].any():
            continue
        if value < 1:
            since = night
        value = (1 + value) * (PAYS if _low(expectation, stream) else (1 - LOW * PAYS) / (1 - LOW))
    return value, since


def _large(stream: Stream, expectation: Expected, since: int) -> bool:
    """Is the effect of the nights since then worth an incident?"""
    span = expectation.judged & (expectation.nights >= since)
    came = expectation.came[span].sum()
    if stream != "missing":
        return bool(came < STOPPED[stream] * expectation.predicted[span].sum())
    before = expectation.judged & (expectation.nights < since)
    usual = expectation.came[before].sum() / max(int(expectation.rows[before].sum()), 1)
    return bool(came > (usual + LOST) * expectation.rows[span].sum())
