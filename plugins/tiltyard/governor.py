"""The governor: what drift found of every model on one night, and the few actions that follow. Pure.

Many findings in, few actions out. This half holds what goes in.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

Kind = Literal["feature", "prediction", "label", "performance", "missing"]
Harm = Literal["felt", "not_felt", "unknown"]


@dataclass(frozen=True)
class Signal:
    """One thing that was looked at. `value` None: it could not be tested, `note` says why."""

    kind: Kind
    column: str
    view: str | None
    """The feature view that the column comes from; None for prediction, label and performance."""
    statistic: str
    value: float | None
    """Effect size in the window."""
    threshold: float | None
    drifted: bool
    """The effect was over its threshold in k of n windows; of `missing`, at once."""
    evidence: float | None = None
    """The e-detector of this column."""
    weight: float = 0.0
    """Importance weight in the model's detector."""
    note: str = ""

    def __post_init__(self) -> None:
        if self.drifted and self.value is None:
            raise ValueError(f"{self.column}: what was not tested cannot have drifted")


@dataclass(frozen=True)
class Broken:
    """Data that cannot be trusted, or is not there."""

    node: str
    """A raw table like `raw.booking`, a feature view, or `features` or `shadow` for a stage that did not end."""
    column: str | None
    said: str
    """A sentence."""


@dataclass(frozen=True)
class Finding:
    """What drift knows about one model on one night."""

    model: str
    night: date
    tier: int
    owner: str
    champion: int | None
    challengers: tuple[int, ...]
    alarm: bool = False
    """The model's detector passed the threshold that the budget sets, an effect shows, and Evidently agreed."""
    evidence: float | None = None
    threshold: float | None = None
    """Of the model's detector, as `evidence`."""
    harm: Harm = "unknown"
    """Does realized or estimated performance feel it?"""
    harm_said: str = ""
    signals: tuple[Signal, ...] = ()
    broken: tuple[Broken, ...] = ()
    matured: int = 0
    """Matured labels that a training frame of this night would hold."""
    min_matured: int = 0
    report: str | None = None
    """Path of the page that was drawn, if one was."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the ledger keeps them; `from_json` reads them back."""
        return dataclasses.asdict(self) | {"night": self.night.isoformat()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Finding":
        """Raises TypeError when a field is missing or unknown: what cannot be read is no finding."""
        parts = {
            "night": date.fromisoformat(content["night"]),
            "challengers": tuple(content["challengers"]),
            "signals": tuple(Signal(**signal) for signal in content.get("signals", ())),
            "broken": tuple(Broken(**broken) for broken in content.get("broken", ())),
        }
        return cls(**{**content, **parts})
