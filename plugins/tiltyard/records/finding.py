"""What drift tells the governor of a model on a night, and the incidents that the governor makes of it."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from tiltyard.records.base import Record, formerly

SignalKind = Literal["feature", "prediction", "label", "performance", "missing"]
Harm = Literal["felt", "not_felt", "unknown"]
Cause = Literal["broken", "missing", "shared_shift"]


@dataclass(frozen=True)
class Signal(Record):
    """One thing that was looked at."""

    kind: SignalKind
    """What was looked at: a feature's values, the predictions, the labels, the losses, or missing values."""
    column: str
    """The column's name."""
    view: str | None
    """The feature view that the column comes from; None for prediction, label and performance."""
    statistic: str
    """The name of the distance or bound that `value` is."""
    value: float | None
    """Effect size in the window. None: it could not be tested, and `note` says why."""
    threshold: float | None
    """The effect from which on it counts, in the unit of `value`; None where nothing was tested."""
    drifted: bool
    """Whether the effect was over its threshold in k of n windows; of `missing`, at once."""
    evidence: float | None = None
    """The e-detector of this column; None where it has none. One without bound is the largest float there is."""
    weight: float = 0.0
    """Importance weight in the model's detector, between 0 and 1."""
    note: str = ""
    """What a person should know about it, as half a sentence."""

    def __post_init__(self) -> None:
        if self.drifted and self.value is None:
            raise ValueError(f"{self.column}: what was not tested cannot have drifted")


@dataclass(frozen=True)
class Broken(Record):
    """Data that cannot be trusted, or is not there."""

    node: str
    """A raw table like `raw.booking`, a feature view, or `features` or `shadow` for a stage that did not end."""
    column: str | None
    """The column that is broken; None for the whole of it."""
    reason: Annotated[str, formerly("said", now="reason")]
    """What is wrong, as a sentence."""


@dataclass(frozen=True)
class SinceTraining(Record):
    """What has passed since a model was trained last."""

    night: date | None = None
    """The night as of which the newest version was trained; None without one, or where nobody looked."""
    matured: int | None = None
    """Number of labels that have matured since; None where nobody counted them."""
    is_erased: bool = False
    """Whether somebody was erased from whom the newest version has learned, and its spec asks for a retrain then."""


@dataclass(frozen=True)
class Finding(Record):
    """What drift knows about one model on one night. It decides nothing."""

    model: str
    """The model's name."""
    night: date
    """The night that was looked at."""
    tier: int
    """The model's tier: 1 for the highest stakes."""
    owner: str
    """Who owns the model."""
    champion: int | None
    """The version in service; None for the safe default."""
    challengers: tuple[int, ...]
    """The versions that challenge it."""
    alarm: bool = False
    """Whether the model's detector passed the threshold that the budget sets, an effect shows, and Evidently agreed."""
    evidence: float | None = None
    """The model's e-detector; None where nothing was tested. One without bound is the largest float there is."""
    threshold: float | None = None
    """The evidence from which on it is an alarm, in nights between two false alarms; None where nothing was tested."""
    harm: Harm = "unknown"
    """Whether realized or estimated performance feels it."""
    harm_reason: Annotated[str, formerly("harm_said", now="harm_reason")] = ""
    """The figures behind `harm`, as a sentence."""
    signals: tuple[Signal, ...] = ()
    """Everything that was looked at, what moved most first."""
    broken: tuple[Broken, ...] = ()
    """The data that cannot be trusted, or is missing."""
    matured: int = 0
    """Number of matured labels that a training frame of this night would hold."""
    min_matured: int = 0
    """Number of matured labels that a first training wants."""
    since_training: SinceTraining = SinceTraining()
    """What has passed since the newest training before the night."""
    report: str | None = None
    """Path of the page, which is drawn when somebody opens it; None where there is nothing to draw."""


@dataclass(frozen=True)
class Incident(Record):
    """One fault of what feeds several models, or one model: named, and no reason to retrain."""

    node: str
    """The most downstream table that explains it; for a stage that did not end `features`, `shadow`, or
    `<model>/shadow` where it is that model's alone."""
    kind: Cause
    """What is the matter: broken data, missing data, or a shift that models share."""
    models: tuple[str, ...]
    """The models that it holds back, by name."""
    columns: tuple[str, ...]
    """The columns that show it."""
    reason: Annotated[str, formerly("said", now="reason")]
    """What is wrong, as a sentence."""
    since: date
    """The night on which it opened."""


@dataclass(frozen=True)
class OpenIncident(Incident):
    """An incident that is open after a night."""

    night: date
    """The night."""
    closing: str | None = None
    """That what it rests on is gone, or released, and with which night it closes; None while it is there."""


@dataclass(frozen=True)
class Release(Record):
    """A person's word that what moved at a node until a night is the world, and no fault."""

    node: str
    """The table."""
    night: date
    """The night up to which it holds."""
    by: str
    """Who said so."""
    reason: str
    """Why, in the person's words."""
    models: tuple[str, ...] = ()
    """The models that were held back, by name; empty in what the ledger keeps."""
