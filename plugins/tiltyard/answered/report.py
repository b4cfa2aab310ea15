"""What a person, or `--json`, is told of answers that were given."""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from tiltyard.records import ArmFigures, Instant, Record


@dataclass(frozen=True, kw_only=True)
class LogDelivery(Record):
    """What was brought into the lake of the request log, of all models."""

    segments: int = 0
    """Number of segments."""
    requests: int = 0
    """Number of rows that were answered."""
    shadow: int = 0
    """Number of scores of versions that did not answer."""
    lost: int = 0
    """Number of records that were numbered and are in no segment."""
    unreadable: int = 0
    """Number of whole records that are none of ours."""
    damaged: int = 0
    """Number of segments with other bytes than were written; they stay in spool/damaged."""


@dataclass(frozen=True, kw_only=True)
class RequestNight(Record):
    """What was asked of a model on one night."""

    night: date
    """The night."""
    requests: int
    """Number of rows that were answered."""
    tiers: dict[str, int]
    """Tier → number of rows that it answered."""
    p50_us: float
    """Median time from request to answer, in microseconds."""
    p99_us: float
    """99th percentile of the same."""


@dataclass(frozen=True, kw_only=True)
class RequestsReport(Record):
    """The answers of one model, and how they turned out."""

    model: str
    """The model's name."""
    nights: tuple[RequestNight, ...]
    """The newest nights with requests, the oldest first."""
    arms: dict[str, tuple[ArmFigures, ...]]
    """Arm → how its answers turned out, the whole of it first."""
    log: LogDelivery
    """What was delivered so far."""


@dataclass(frozen=True, kw_only=True)
class TierShare(Record):
    """How many of a night's answers one tier gave for one reason."""

    channel: str
    """`nightly` for the batch, `online` for requests."""
    tier: str
    """The tier that answered."""
    reason: str
    """Why it was this tier; empty where it was not noted."""
    answers: int
    """Number of answers."""
    share: float
    """Their share of the channel's answers on the night."""


@dataclass(frozen=True, kw_only=True)
class OnDefault(Record):
    """A stretch of nights on the safe default."""

    since: date
    """The first night."""
    nights: int
    """Number of nights with answers."""
    share: float
    """Share of the last night's answers that were the safe default."""


@dataclass(frozen=True, kw_only=True)
class AuditedFigures(Record):
    """What an audit has in hand of a night, kept for the pages."""

    audited: date | None = None
    """The night; None where none was audited."""
    shares: tuple[TierShare, ...] = ()
    """Who answered on it."""
    on_default: OnDefault | None = None
    """The stretch on the safe default; None when the model is not on it."""


@dataclass(frozen=True, kw_only=True)
class DefaultFacts(Record):
    """What a task says of the night it was opened on."""

    nights: int
    """Number of nights with answers on the safe default."""
    share: float
    """Share of the night's answers that were the safe default."""
    reasons: dict[str, float]
    """Reason → its share of the safe default's answers."""
    never_promoted: bool
    """Whether no version was ever promoted."""


@dataclass(frozen=True, kw_only=True)
class TaskReport(Record):
    """A question that a person was asked about a safe default, and how it ended so far."""

    opened: date
    """The night whose audit asked."""
    since: date
    """The first night of the stretch."""
    state: Literal["open", "answered", "recovered"]
    """Whether it waits for a person, was answered, or the model left its safe default before anybody answered."""
    repeats: date | None = None
    """When the task was opened whose answer has run out; None the first time."""
    cause: str | None = None
    """Why the model could not answer; None without an answer, as are the next five."""
    owner: str | None = None
    """Who sees to it."""
    until: date | None = None
    """The last day on which it may stay on its safe default."""
    answered_by: str | None = None
    """Who answered."""
    source: str | None = None
    """`airflow`, or `command line`."""
    answered_at: Instant | None = None
    """When it was answered, wall clock."""
    recovered: date | None = None
    """The night on which the model had left its safe default; None while it has not."""


@dataclass(frozen=True, kw_only=True)
class FallbackReport(Record):
    """Who answered for one model, and what a person was asked about it."""

    model: str
    """The model's name."""
    night: date | None
    """The newest audited night; None before the first."""
    shares: tuple[TierShare, ...] = ()
    """Who answered on that night."""
    on_default: OnDefault | None = None
    """The stretch on the safe default; None when it is not on it."""
    audit_after: str
    """How long a stretch may be before a person is asked, like `3d`."""
    tasks: tuple[TaskReport, ...] = ()
    """The tasks so far, in the order in which they were opened."""


@dataclass(frozen=True, kw_only=True)
class AcceptedAnswer(Record):
    """A person's answer as it was accepted."""

    model: str
    """The model's name."""
    since: date
    """The first night of the stretch that it is about."""
    cause: str
    """Why the model cannot answer."""
    owner: str
    """Who sees to it."""
    until: date
    """The last day on which it may stay on its safe default."""
    answered_by: str
    """Who answered."""
