"""How good something was: a version on matured truth, an arm of the service, a model on held-out rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Generic, Self, TypeVar

from tiltyard.records.base import Record, unless_empty

FigureT = TypeVar("FigureT")
"""What a figure is: a number, or one with its interval."""


@dataclass(frozen=True)
class Interval(Record):
    """A figure with its 95 % interval by resampling."""

    value: float | None
    """The figure; None where it cannot be computed."""
    low: float | None
    """Lower end; None where it cannot be computed."""
    high: float | None
    """Upper end; None where it cannot be computed."""


@dataclass(frozen=True)
class FilledFeature(Record):
    """How far a feature of a version has values, at training and later."""

    feature: str
    """Its name."""
    training: float
    """Share of the training rows that have a value, between 0 and 1."""
    is_dead: bool = False
    """Whether training saw no two different values of it: what it says moves no score."""
    now: float | None = None
    """The same share of later rows; None where there are none."""

    def __str__(self) -> str:
        what = "" if not self.is_dead else "no value, " if self.training == 0 else "one value only, "
        later = "" if self.now is None else f", now {100 * self.now:.3g} %"
        return f"{self.feature} ({what}filled at training {100 * self.training:.3g} %{later})"


class WithFigures(Generic[FigureT]):
    """What has figures by name: some in fields of their own, the others among `more`."""

    more: dict[str, FigureT]

    def figure(self, name: str) -> FigureT | None:
        """A figure by its name (target.Target.measure); None where there is none."""
        figure: FigureT | None = getattr(self, name, None)
        return self.more.get(name) if figure is None else figure


@dataclass(frozen=True, kw_only=True)
class Figured(Record, WithFigures[float]):
    """Base of what says how good something was. Which figures there are is the label's kind to say (see `target`)."""

    brier: float | None = None
    """Brier score of a probability; None where nothing has matured, and of a number."""
    brier_low: float | None = None
    """Lower end of its 95 % interval."""
    brier_high: float | None = None
    """Upper end of its 95 % interval."""
    absolute_error: float | None = None
    """Mean absolute error of a number, in the label's unit; None where nothing has matured, and of a probability."""
    absolute_error_low: float | None = None
    """Lower end of its 95 % interval."""
    absolute_error_high: float | None = None
    """Upper end of its 95 % interval."""
    more: Annotated[dict[str, float], unless_empty()] = field(default_factory=dict)
    """Name → value, of figures that have no field here: those of a kind of label that has measures of its own."""

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """The record of these columns, each in its field or, where it has none, among `more`: there not what is None,
        and NaN says as little."""
        names = {entry.name for entry in fields(cls)}
        more = {
            name: value
            for name, value in values.items()
            if name not in names and value is not None and not (isinstance(value, float) and math.isnan(value))
        }
        return cls.from_json({**{name: value for name, value in values.items() if name in names}, "more": more})


@dataclass(frozen=True, kw_only=True)
class VersionFigures(Figured):
    """How good one version was on the last drift.window of matured cohorts."""

    role: str = ""
    """The version's role on the night."""
    matured: int = 0
    """Number of rows that the figures stand on."""
    immature: int = 0
    """Number of the version's rows whose cohort has not matured."""
    early: int = 0
    """Number of those whose label is known early."""
    auc: float | None = None
    """Area under the ROC curve; None with one class only, and of a number."""


@dataclass(frozen=True, kw_only=True)
class ArmFigures(Figured):
    """How the answers of one arm, version and tier turned out online."""

    version: int | None = None
    """The version that answered; None for all of the arm, and for the safe default."""
    tier: str = "all"
    """The tier that answered; `all` for the whole arm."""
    requests: int = 0
    """Number of requests."""
    matured: int = 0
    """Number of rows that the figures stand on."""
    missing: int = 0
    """Number of matured rows without a label."""
    immature: int = 0
    """Number of rows whose cohort has not matured."""
    early: int = 0
    """Number of those whose label is known early."""
    unmatched: int = 0
    """Number of requests that speak for no row of the spine."""
    mean_score: float | None = None
    """Mean score; None without one."""


@dataclass(frozen=True, kw_only=True)
class Measured(Record, WithFigures[Interval]):
    """How good a model was on the held-out rows of its training frame."""

    rows: int = 0
    """Number of held-out rows."""
    brier: Interval | None = None
    """Brier score; None of a number."""
    log_loss: Interval | None = None
    """Log loss, in nats; None of a number."""
    auc: Interval | None = None
    """Area under the ROC curve; None of a number."""
    absolute_error: Interval | None = None
    """Mean absolute error, in the label's unit; None of a probability."""
    positive_rate: float | None = None
    """Share of positive labels; None of a number."""
    mean_label: float | None = None
    """Mean label, in its unit; None of a probability."""
    mean_score: float | None = None
    """Mean score of the heavy model; None where it was not kept."""
    light: "Measured | None" = None
    """The same of the light twin, on the same rows; None within it."""
    more: Annotated[dict[str, Interval], unless_empty()] = field(default_factory=dict)
    """Name → value with its interval, of figures that have no field here."""

    @classmethod
    def of(cls, intervals: Mapping[str, Interval], **values: object) -> Self:
        """The record of these figures, each in its field or, where it has none, among `more`."""
        names = {entry.name for entry in fields(cls)}
        named = {name: figure for name, figure in intervals.items() if name in names}
        more = {name: figure for name, figure in intervals.items() if name not in names}
        return cls.from_json({**named, **values, "more": more})


@dataclass(frozen=True, kw_only=True)
class MeasuredVersion(VersionFigures):
    """How good one version was on matured truth, with the figures that are shown and not compared."""

    log_loss: float | None = None
    """Log loss, in nats; None where nothing has matured, and of a number."""
    positive_rate: float | None = None
    """Share of positive labels; None where nothing has matured, and of a number."""
    mean_score: float | None = None
    """Mean score, in the label's unit; None where nothing has matured, and of a probability."""


@dataclass(frozen=True, kw_only=True)
class EstimatedVersion(Record):
    """What the scores of one version promise of the rows whose truth has not come. Nothing decides on it."""

    role: str
    """The version's role on the night."""
    rows: int
    """Number of rows without truth."""
    is_calibrated: bool
    """Whether matured rows corrected the scores."""
    calibration_rows: int
    """Number of those rows."""
    brier: float | None
    """Estimated Brier score; None where it cannot be estimated, as are all that follow."""
    brier_low: float | None
    """Lower end of its 95 % interval."""
    brier_high: float | None
    """Upper end of its 95 % interval."""
    log_loss: float | None
    """Estimated log loss, in nats."""
    auc: float | None
    """Estimated area under the ROC curve."""
    positive_rate: float | None
    """Estimated share of positive labels."""
