"""What a person, or `--json`, is told of answers that were given."""

from dataclasses import dataclass
from datetime import date

from tiltyard.records import JsonObject, Record


@dataclass(frozen=True, kw_only=True)
class Delivery(Record):
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
    arms: JsonObject
    """Arm → how its answers turned out, the whole of it first."""
    log: Delivery
    """What was delivered so far."""
