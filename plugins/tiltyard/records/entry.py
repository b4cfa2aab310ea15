"""What the ledger keeps: who trained, judged, approved and promoted what, and when. An entry is never changed."""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Annotated, Generic, Literal, TypeVar

from tiltyard.records.base import JsonObject, Record, formerly
from tiltyard.records.evidence import EvidenceRecord
from tiltyard.records.figures import FilledFeature, Measured
from tiltyard.records.summary import Summary
from tiltyard.stages import StageName

Status = Literal["done", "checked", "stopped", "failed"]
SummaryT = TypeVar("SummaryT", bound=Summary)


@dataclass(frozen=True, kw_only=True)
class StageRun(Record, Generic[SummaryT]):
    """How the last attempt of a stage at a night went. The one entry that a later attempt replaces."""

    stage: StageName
    """The stage."""
    model: str
    """The model; empty for a stage of the portfolio."""
    night: date
    """The night."""
    status: Status
    """done; checked, of features before they are published; stopped by a check; failed."""
    summary: SummaryT
    """What the stage says of the night."""
    recorded_at: datetime | None = None
    """When it was recorded, wall clock; None before."""


@dataclass(frozen=True, kw_only=True)
class Parity(Record):
    """How far the ONNX files are from the models they were made of."""

    heavy: float | None = None
    """Largest difference of a score of the heavy model; None where it was not kept."""
    light: float | None = None
    """The same of the light twin."""


@dataclass(frozen=True, kw_only=True)
class VersionFacts(Record):
    """What is kept of how a version was made."""

    frame: str | None = None
    """SHA-256 of its training frame; None where it was not kept."""
    rows: int | None = None
    """Number of rows of the frame."""
    start: str | None = None
    """First prediction time of the frame, ISO."""
    end: str | None = None
    """End of its prediction times, ISO, not included."""
    snapshot: int | None = None
    """The lake's snapshot that the frame was read from."""
    release: str | None = None
    """Folder of the release that it was trained under; None for the checkout as it was, and where it was not kept."""
    spec: str | None = None
    """SHA-256 of the spec."""
    seed: int | None = None
    """Seed of everything random."""
    trials: int | None = None
    """Number of trials of tuning."""
    features: tuple[str, ...] = ()
    """The features' names, in the order of the matrix."""
    filled: tuple[FilledFeature, ...] = ()
    """How far each of them has values in the training frame; empty where it was not kept."""
    params: dict[str, float] = field(default_factory=dict)
    """Parameter → what tuning chose."""
    device: str = "cpu"
    """What the heavy model was fitted on: cpu or cuda."""
    device_reason: str = ""
    """Why it is not the one that the spec names; empty where it is."""
    metrics: Measured | None = None
    """How good it was on held-out rows."""
    bounds: tuple[float, float] | None = None
    """The bounds of labels that were learned, or were known since a first version learned them; None where the spec
    says them, and of a yes or no."""
    label: str | None = None
    """SHA-256 of the spec's label, which the bounds are of; None where there are none."""
    labels_outside_bounds: int | None = None
    """Number of labels beyond the bounds; None of a yes or no."""
    latency_ms: float | None = None
    """99th percentile for one row, in milliseconds."""
    size_mb: float | None = None
    """Size of its files, in megabytes."""
    fit_cpu_s: dict[str, float] = field(default_factory=dict)
    """`heavy`, `light` → CPU seconds that tuning and fitting it took; empty where that was not measured."""
    parity: Parity | None = None
    """How far the ONNX files are from the models."""
    reasons: tuple[str, ...] = ()
    """Why it was trained, a sentence each."""
    git_commit: str | None = None
    """The commit of the checkout; None outside one."""
    git_dirty: bool | None = None
    """Whether the checkout had changes that were not committed."""
    artifacts: str = ""
    """Where its files lie, below settings.mlflow_path."""


@dataclass(frozen=True, kw_only=True)
class Version(Record):
    """A version that was trained and registered."""

    model: str
    """The model's name."""
    version: int
    """Its number, MLflow's too."""
    night: date
    """The night as of which it was trained."""
    inputs: str
    """SHA-256 of frame, recipe and seed: the same inputs are the same version."""
    run_id: str
    """MLflow's run."""
    digests: dict[str, str]
    """File → its SHA-256."""
    facts: VersionFacts
    """How it was made."""
    requested_by: str
    """Who asked for it."""
    recorded_at: datetime | None = None
    """When it was recorded, wall clock; None before."""


@dataclass(frozen=True, kw_only=True)
class Decision(Record):
    """The gate's word on one challenger on one night."""

    model: str
    """The model's name."""
    night: date
    """The night."""
    challenger: int
    """The version that was judged."""
    champion: int | None
    """The version that it was held against; None for the safe default."""
    verdict: Literal["promote", "hold", "reject"]
    """What the gate says."""
    reasons: tuple[str, ...]
    """Why."""
    evidence: EvidenceRecord
    """What it stands on."""
    recorded_at: datetime | None = None
    """When it was recorded, wall clock; None before."""


@dataclass(frozen=True, kw_only=True)
class Promotion(Record):
    """A version that became champion."""

    model: str
    """The model's name."""
    version: int
    """The version."""
    night: date
    """The night; it is in service from the next one on."""
    replaced: int | None = None
    """The champion before it; None for the safe default."""
    requested_by: str
    """Who asked for its training."""
    approved_by: str | None = None
    """Who approved it, separated by commas; None where the tier needs no person."""
    approval: JsonObject
    """The answers as they were given, with what was seen; `needed: false` where no person is needed."""
    recorded_at: datetime | None = None
    """When it was recorded, wall clock; None before."""


@dataclass(frozen=True, kw_only=True)
class Watch(Record):
    """The rollback watch's word on one night."""

    model: str
    """The model's name."""
    night: date
    """The night."""
    champion: int
    """The version that was promoted, and is watched."""
    previous: int | None
    """The version that it replaced; None for the safe default."""
    verdict: Literal["keep", "rollback"]
    """What the watch says."""
    reasons: tuple[str, ...]
    """Why."""
    evidence: EvidenceRecord
    """What it stands on."""
    recorded_at: datetime | None = None
    """When it was recorded, wall clock; None before."""


@dataclass(frozen=True, kw_only=True)
class Retrain(Record):
    """A retrain that was granted."""

    model: str
    """The model's name."""
    night: date
    """The night on which it was granted."""
    reasons: tuple[str, ...]
    """Why, a sentence each."""
    recorded_at: datetime | None = None
    """When it was recorded, wall clock; None before."""


@dataclass(frozen=True, kw_only=True)
class Event(Record):
    """Something that a person should find later: a forged approval, a fenced attempt, an alias moved by hand."""

    id: int
    """Its place among all events."""
    kind: str
    """What happened, in a word."""
    model: str
    """The model; empty where it is none's."""
    night: date | None
    """The night; None where it is none's."""
    detail: JsonObject
    """What there is to know, in the words of its kind."""
    recorded_at: datetime | None = None
    """When it was recorded, wall clock; None before."""


@dataclass(frozen=True, kw_only=True)
class Hold(Record):
    """A legal hold on the lake, as its event has it."""

    first: date | None = None
    """The first day; None from the beginning."""
    last: date | None = None
    """The last day, included; None without an end."""
    by: str
    """Who set it."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True)
class Explanation(Record):
    """A person's answer to the question why a model is on its safe default."""

    night: date
    """The newest audited night when it was given."""
    cause: str
    """Why the model is on its safe default."""
    owner: str
    """Who sees to it."""
    until: date
    """The day until which it may stay there."""
    answered_by: str
    """Who answered."""
    source: str
    """`airflow`, or `command line`."""
    answered_at: datetime
    """When."""


@dataclass(frozen=True, kw_only=True)
class Recovery(Record):
    """The end of a stretch on the safe default."""

    night: date
    """The audited night that saw it."""


@dataclass(frozen=True, kw_only=True)
class DefaultTask(Record):
    """The question why a model is on its safe default, and what became of it."""

    model: str
    """The model's name."""
    opened: date
    """The night whose audit asked."""
    since: date
    """The first night on the safe default."""
    repeats: date | None
    """When the question was asked whose answer has run out; None the first time."""
    facts: Annotated[JsonObject, formerly("said", now="facts")]
    """Nights, share and reasons when it was opened."""
    explanation: Explanation | None = None
    """A person's answer; None while there is none."""
    recovery: Recovery | None = None
    """The end of the stretch; None while it goes on."""
    recorded_at: datetime | None = None
    """When it was recorded, wall clock; None before."""

    @property
    def is_open(self) -> bool:
        """Whether it waits for a person."""
        return self.explanation is None and self.recovery is None
