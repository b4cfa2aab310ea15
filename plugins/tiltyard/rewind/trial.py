"""What a comparison of policies comes to, as records: per model what each policy did, and what that was worth."""

from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, NamedTuple

from pydantic import Field

from tiltyard.records import Record


class WeekLoss(NamedTuple):
    """Mean loss over a block of nights."""

    night: date
    """The first night of the block."""
    loss: float
    """Mean loss, between 0 and 1."""
    rows: int
    """Number of rows with truth."""


@dataclass(frozen=True, kw_only=True)
class TrainedVersion(Record):
    """A version that became champion under a policy."""

    night: date
    """The night of the promotion."""
    version: int
    """Its number; versions are numbered as they are trained."""
    trained: date
    """The night that it was trained on: under every policy the same training is the same version."""


@dataclass(frozen=True, kw_only=True)
class VersionNight(Record):
    """A version that was sent back, or rejected."""

    night: date
    """The night."""
    version: int
    """Its number."""


@dataclass(frozen=True, kw_only=True)
class TriedRetrain(Record):
    """A retrain that a policy granted."""

    night: date
    """The night."""
    version: int | None
    """The version that it made; None for none."""
    reasons: tuple[str, ...]
    """Why it was granted, a sentence each."""
    false: bool | None
    """Whether it was for nothing (outcome.is_false); None where nothing can be said."""


@dataclass(frozen=True, kw_only=True)
class Worth(Record):
    """What was served was worth."""

    loss: float | None
    """Mean loss, between 0 and 1; None where no truth has come."""
    days_behind: int
    """Number of nights in blocks over which it was worse than the best there was, beyond chance."""
    weeks: tuple[WeekLoss, ...]
    """The loss block by block."""


@dataclass(frozen=True, kw_only=True)
class BaselineWorth(Worth):
    """What a line was worth that policies are held against."""

    retrains: int | None = None
    """Number of trainings; None for a line that does not say."""


@dataclass(frozen=True, kw_only=True)
class PolicyWorth(Worth):
    """What one model did under one policy, and what that was worth."""

    promotions: tuple[TrainedVersion, ...]
    """Promotions, by night."""
    rollbacks: tuple[VersionNight, ...]
    """Rollbacks, by night."""
    rejected: tuple[VersionNight, ...]
    """Versions that the gate rejected, by night."""
    retrains: tuple[TriedRetrain, ...]
    """Retrains, by night; the first one makes the first version."""
    false_retrains: int
    """Number of retrains for nothing, the first one aside."""
    rows: int
    """Number of rows that the loss stands on."""
    held_by: dict[str, int]
    """Criterion → how often it stood between a challenger and its promotion, most often first."""
    actions: dict[str, int]
    """The governor's decision → number of nights."""


@dataclass(frozen=True, kw_only=True)
class PolicyTrial(Record):
    """The same nights under several policies."""

    first: Annotated[date, Field(alias="from", description="The first night.")]
    last: Annotated[date, Field(alias="to", description="The last night.")]
    assumed: tuple[str, ...]
    """What is assumed, half a sentence each."""
    policies: dict[str, dict[str, PolicyWorth]]
    """Policy → model → what it did."""
    baselines: dict[str, dict[str, BaselineWorth]]
    """Model → line that policies are held against → what it was worth."""
    metric: dict[str, str]
    """Model → the metric that its losses are of (spec.gate.metric)."""
    plots: tuple[str, ...] = field(default=())
    """Paths of the pictures, one per model; empty where none were asked for."""
