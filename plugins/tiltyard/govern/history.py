"""What the governor knows on a night of the nights before it: retrains, onsets, incidents, releases. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, NamedTuple

from tiltyard.records import Incident, Release, Signal

Became = Literal["running", "none", "pending", "rejected", "promoted"]
"""What became of a retrain: still running, no version, still a challenger, rejected, promoted."""


class Drifting(NamedTuple):
    """A column of a model that drifts."""

    model: str
    """The model's name."""
    kind: str
    """What was looked at (records.SignalKind)."""
    column: str
    """The column's name."""


@dataclass(frozen=True)
class Grant:
    """An earlier retrain."""

    night: date
    """The night on which it was granted."""
    became: Became
    """What has become of it."""


@dataclass(frozen=True)
class ModelHistory:
    """What a model asked for before."""

    grants: tuple[Grant, ...] = ()
    """Its retrains, in any order."""
    best: date | None = None
    """The night as of which the champion in force was trained; None without one."""

    @property
    def answered(self) -> date | None:
        """The newest retrain that answers an alarm: under way, or with a version. One that came to nothing does not."""
        return max((grant.night for grant in self.grants if grant.became != "none"), default=None)


@dataclass(frozen=True)
class Mended:
    """A data incident of a raw table that is closed."""

    node: str
    """The raw table."""
    column: str | None
    """The column that was broken; None for the whole table."""
    last: date
    """The last night on which it was open."""


@dataclass(frozen=True)
class NightHistory:
    """What is known on a night of the nights before it. What other nights say, this one's grants apart, is ignored."""

    night: date
    """The night that is decided on."""
    models: Mapping[str, ModelHistory] = field(default_factory=dict)
    """Model → what it asked for before; one that never did may be left out."""
    since: Mapping[Drifting, date] = field(default_factory=dict)
    """Column → the first of the unbroken nights up to the last one on which it had drifted."""
    incidents: tuple[Incident, ...] = ()
    """The portfolio's incidents that were open after the night before."""
    releases: tuple[Release, ...] = ()
    """What persons have released until this night."""
    mended: tuple[Mended, ...] = ()
    """The data incidents that are closed on this night."""

    def past(self, model: str) -> ModelHistory:
        """What a model asked for before; nothing of one that never did."""
        return self.models.get(model, ModelHistory())

    def onset(self, model: str, signal: Signal) -> date:
        """Since when a column drifts that drifts on this night."""
        return min(self.since.get(Drifting(model, signal.kind, signal.column), self.night), self.night)
