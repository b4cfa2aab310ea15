"""What a gate's or a watch's decision stood on, as the ledger keeps it and the evidence page draws it.

The SHA-256 of an evidence record is what a rerun is held against and what a person approves, so `to_json` writes what
it always wrote: a field that a record of its time did not have is left out, not null.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import date
from typing import ClassVar, Literal

from tiltyard.records.base import JsonObject, Record
from tiltyard.records.figures import ArmFigures, FilledFeature

CriterionStatus = Literal["pass", "fail", "not_yet"]


class _Sparse(Record):
    """A record that leaves out the fields of `_later` where they are None."""

    _later: ClassVar[tuple[str, ...]] = ()

    def to_json(self) -> JsonObject:
        return {
            name: value for name, value in super().to_json().items() if value is not None or name not in self._later
        }


@dataclass(frozen=True)
class Compared(Record):
    """A figure of the challenger beside the champion's on the same rows."""

    challenger: float | None
    """The challenger's; None where it cannot be computed."""
    champion: float | None
    """The champion's; None without a champion, or where it is not known."""


@dataclass(frozen=True)
class Missing(Record):
    """The feature whose share of missing values rose most since training."""

    feature: str
    """Its name."""
    training: float
    """Share of missing values in the training frame, between 0 and 1."""
    shadow: float
    """The same in the rows since the challenger's first night in shadow."""


@dataclass(frozen=True)
class Replayed(Record):
    """The millisecond test of what the challenger was trained on and scored with."""

    verdict: Literal["pass", "warn", "fail", "untestable"]
    """What it says."""
    note: str
    """When it was made, and what it found, as half a sentence."""


@dataclass(frozen=True)
class Criterion(Record):
    """One of the gate's criteria: its number, its limit, and what follows."""

    name: str
    """The criterion's name, like `better`, or `slice priority=1`."""
    value: int | float | str | None
    """What was found; None where nothing could be."""
    limit: int | float | str | None
    """What is asked for; None where nothing is compared."""
    status: CriterionStatus
    """Whether it is met."""
    reason: str
    """The same as a sentence."""

    @property
    def line(self) -> str:
        """`better 0.0012, limit 0: pass`."""
        return f"{self.name} {figure(self.value)}, limit {figure(self.limit)}: {self.status.replace('_', ' ')}"


@dataclass(frozen=True)
class SliceMean(Record):
    """One slice of the rows that a decision stands on."""

    name: str
    """`column=value`."""
    rows: int
    """Number of rows with both scores and a label."""
    expected: int
    """Number of rows of matured cohorts in the slice."""
    mean: float | None
    """Mean of the champion's loss minus the challenger's; None without a row."""


@dataclass(frozen=True)
class PageFile(Record):
    """The evidence page of a decision."""

    path: str
    """Path below settings.reports."""
    sha256: str
    """Digest of the file, in hexadecimal."""


@dataclass(frozen=True)
class RunningPoint(Record):
    """Both statistics as they stood when a cohort had matured."""

    night: date
    """The cohort's night."""
    rows: int
    """Number of matured rows so far."""
    mean: float
    """Mean difference of losses so far."""
    low: float
    """Its lower bound."""
    high: float
    """Its upper bound."""
    log_e_nights: float
    """Natural logarithm of the nights' evidence."""


@dataclass(frozen=True)
class SliceInterval(Record):
    """Mean difference of losses of a slice, for reading."""

    name: str
    """`column=value`, or `all`."""
    rows: int
    """Number of rows."""
    mean: float | None
    """Mean difference of losses; None without a row."""
    low: float | None
    """Lower end of its 95 % interval, clustered by night; None where there is none."""
    high: float | None
    """Upper end; None where there is none."""


@dataclass(frozen=True)
class CalibrationBin(Record):
    """Rows whose scores lie in one bin of [0, 1]."""

    low: float
    """Lower edge of the bin."""
    high: float
    """Upper edge of the bin."""
    rows: int
    """Number of rows."""
    mean_score: float
    """Mean score, scaled to [0, 1]."""
    positive_rate: float
    """Share of positive labels; of a number, its mean, scaled to [0, 1]."""


@dataclass(frozen=True)
class CohortArrival(Record):
    """How far the truth of one cohort is known, in rows."""

    night: date
    """The cohort's night."""
    labelled: int
    """Number of matured rows with a label."""
    missing: int
    """Number of matured rows whose label never came."""
    early: int
    """Number of rows that have not matured and whose label is known."""
    waiting: int
    """Number of rows that have not matured and whose label is not known."""


@dataclass(frozen=True, kw_only=True)
class Drawing(_Sparse):
    """What the evidence page draws."""

    _later: ClassVar[tuple[str, ...]] = ("kind", "bounds")

    level: float
    """Level of each statistic: alpha over the number of challengers."""
    running: tuple[RunningPoint, ...]
    """Both statistics, cohort by cohort."""
    slices: tuple[SliceInterval, ...]
    """All rows, then every declared slice."""
    calibration: dict[str, tuple[CalibrationBin, ...]]
    """`challenger` and `champion` → the bins that hold a row."""
    scores: dict[str, tuple[int, ...]]
    """`challenger` and `champion` → number of rows per equal bin of the scores' range."""
    arrival: tuple[CohortArrival, ...]
    """Every cohort since the challenger entered shadow."""
    kind: str | None = None
    """The kind of label, of those whose name is written down; None of the others."""
    bounds: tuple[float, float] | None = None
    """The label's bounds, in its unit; None of a kind without."""


@dataclass(frozen=True, kw_only=True)
class TrainedFrom(Record):
    """What a challenger was trained on."""

    rows: int | None = None
    """Number of rows of its training frame."""
    start: str | None = None
    """First prediction time of the frame, ISO."""
    end: str | None = None
    """End of its prediction times, ISO, not included."""
    frame: str | None = None
    """SHA-256 of the frame."""
    git_commit: str | None = None
    """The commit of the checkout; None outside one."""
    reasons: tuple[str, ...] = ()
    """Why it was trained."""


@dataclass(frozen=True, kw_only=True)
class LearnedScale(Record):
    """Between which values the labels of a training frame count."""

    bounds: tuple[float, float] | None
    """The bounds, where they were learned; None where the spec says them."""
    outside: int
    """Number of labels of the frame beyond the bounds, counted as the nearer one."""


@dataclass(frozen=True, kw_only=True)
class PromiseRecord(Record):
    """Whose model it is, under which policy it was judged, and where the challenger comes from."""

    owner: str
    """Who owns the model."""
    tier: int
    """The stakes: 1 for the highest."""
    approvals: int
    """Number of people who have to approve."""
    policy: JsonObject
    """The gate's policy as the spec had it on that night."""
    trained_on: date
    """The night as of which the challenger was trained."""
    trained_by: str
    """Who asked for the training, and may not approve."""
    training: TrainedFrom
    """What it was trained on."""


@dataclass(frozen=True, kw_only=True)
class EvidenceRecord(_Sparse):
    """What a decision on one challenger, or on the champion under watch, stood on."""

    _later: ClassVar[tuple[str, ...]] = (
        "outside",
        "learned",
        "promoted_on",
        "drawn",
        "promise",
        "dead",
        "online",
        "page",
        "digest",
    )

    model: str
    """The model's name."""
    night: date
    """The night of the decision."""
    challenger: int | None = None
    """The version that is judged; None for the safe default, which a watch holds against the champion."""
    champion: int | None = None
    """The version that it is held against; None for the safe default."""
    against: str = "the safe default"
    """`version 3`, or `the safe default`."""
    nights: int = 0
    """Number of nights in shadow."""
    matured: int = 0
    """Number of matured rows that both scored."""
    expected: int = 0
    """Number of rows of matured cohorts."""
    immature: int = 0
    """Number of rows whose cohort has not matured."""
    early: int = 0
    """Number of those whose label is known early."""
    challengers: int = 1
    """The largest number of challengers judged at once."""
    outside: int | None = None
    """Number of the matured rows whose label lay beyond the bounds, counted as the nearer one; None of a yes or no."""
    metric: str = "brier"
    """The loss that the differences are of."""
    loss_challenger: float | None = None
    """Mean loss; None without a row."""
    loss_champion: float | None = None
    """Mean loss; None without a row."""
    cohort_from: str | None = None
    """First prediction time, ISO to the second; None without a row."""
    cohort_to: str | None = None
    """Last prediction time, ISO to the second; None without a row."""
    slices: tuple[SliceMean, ...] = ()
    """Every declared slice."""
    calibration: Compared | None = None
    """Root mean square distance of score and observed share; None where it cannot be computed."""
    score_shift: Compared | None = None
    """Population stability index between the halves of the time in shadow; None with less than two nights."""
    missing: Missing | None = None
    """The feature whose share of missing values rose most; None where nothing is known."""
    latency_ms: float | None = None
    """99th percentile for one row, in milliseconds; None where it was not measured."""
    size_mb: float | None = None
    """Size of the version's files, in megabytes; None where it is not known."""
    replay: Replayed | None = None
    """The millisecond test; None where there was none."""
    rows: str = ""
    """SHA-256 of the differences and their nights: the same rows give the same digest."""
    criteria: tuple[Criterion, ...] = ()
    """Every criterion, in the gate's order."""
    mean: float | None = None
    """Mean difference of losses, champion's minus challenger's; None without a row."""
    low: float | None = None
    """Lower one-sided bound of the mean."""
    high: float | None = None
    """Upper one-sided bound of the mean."""
    reasons: tuple[str, ...] = ()
    """What stands in the way, or, when nothing does, what was met."""
    promoted_on: date | None = None
    """Of a watch: the night of the promotion that is watched."""
    drawn: Drawing | None = None
    """Of a promotion: what the page draws."""
    promise: PromiseRecord | None = None
    """Of a promotion: whose model it is, under which policy it was judged, and where the challenger comes from."""
    learned: LearnedScale | None = None
    """Of a promotion: on which scale the number was learned; None of a yes or no."""
    digest: str | None = None
    """SHA-256 of all of it but the page, the online outcomes and the dead features."""
    dead: tuple[FilledFeature, ...] | None = None
    """The challenger's features of which training saw at most one value, filled then and since it is in shadow; shown,
    and no part of what decided. None where there are none, or it was not kept."""
    online: dict[str, tuple[ArmFigures, ...]] | None = None
    """Of a promotion: arm → how its answers given online turned out; shown, and no part of what decided."""
    page: PageFile | None = None
    """Of a promotion: the page that a person approves."""

    def to_json(self) -> JsonObject:
        body = super().to_json()
        if self.drawn is not None:
            body["drawn"] = self.drawn.to_json()
        return body

    def signed(self, verdict: str) -> "EvidenceRecord":
        """The record with its digest, which covers the verdict too."""
        content = self.to_json() | {"verdict": verdict}
        for name in ("digest", "dead", "online", "page"):
            content.pop(name, None)
        return replace(self, digest=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest())

    @property
    def bound(self) -> str:
        """What an approval is bound to: the page that was seen, which names the record's digest."""
        return self.page.sha256 if self.page else str(self.digest)


def figure(value: float | str | None) -> str:
    """A number to four digits, a text as it is, a dash for nothing."""
    return "–" if value is None else value if isinstance(value, str) else f"{value:.4g}"
