"""The governor: turns what drift found into at most the retrains that the policy allows. Pure.

Three kinds of drift are kept apart. *Feature* drift counts when the share of drifted columns, of those that
could be tested, reaches the policy's share. *Prediction* drift and *performance* decay count by themselves.
What could not be tested, and data that is broken, is said and is never a reason to retrain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from tiltyard.spec import DriftPolicy

Kind = Literal["feature", "prediction", "performance"]
Decision = Literal["retrain", "report", "steady", "cooldown"]


@dataclass(frozen=True)
class Signal:
    """One thing that was looked at. `value` None: it could not be tested, `note` says why."""

    kind: Kind
    column: str
    statistic: str
    value: float | None
    threshold: float | None
    drifted: bool
    note: str = ""

    def __post_init__(self) -> None:
        if self.drifted and self.value is None:
            raise ValueError(f"{self.column}: what was not tested cannot have drifted")


@dataclass(frozen=True)
class Finding:
    """What drift knows about one model on one night."""

    champion: int | None
    challengers: tuple[int, ...]
    signals: tuple[Signal, ...] = ()
    broken: tuple[str, ...] = ()
    """Why the night's data cannot be trusted: a stopped batch, an empty window, an open data incident."""
    matured: int = 0
    """Matured labels that a training frame of this night would hold."""
    min_matured: int = 0

    @property
    def share(self) -> float | None:
        """Share of drifted feature columns; None when no column could be tested."""
        tested = self.tested
        return sum(signal.drifted for signal in tested) / len(tested) if tested else None

    @property
    def tested(self) -> tuple[Signal, ...]:
        """The feature columns that could be tested."""
        return tuple(signal for signal in self.signals if signal.kind == "feature" and signal.value is not None)


@dataclass(frozen=True)
class Action:
    """What follows. `drifted` says whether anything was found, whatever the policy made of it."""

    action: Decision
    reasons: tuple[str, ...]
    drifted: bool


def govern(finding: Finding, history: Sequence[date], night: date, policy: DriftPolicy) -> Action:
    """Decide on a retrain. `history`: nights of earlier requests; this night's own and later ones don't count.

    Of two requests the later is at least `policy.cooldown` after the earlier.
    """
    if finding.broken:
        return Action("report", (*finding.broken, "broken data is no reason to retrain"), drifted=False)
    if finding.champion is None and not finding.challengers:
        if finding.matured < finding.min_matured or finding.matured == 0:
            short = f"no champion yet; {finding.matured} of {max(finding.min_matured, 1)} matured labels to train on"
            return Action("steady", (short,), drifted=False)
        return _allowed(("no champion yet",), history, night, policy.cooldown, drifted=False)
    found = _found(finding, policy)
    if not found:
        return Action("steady", _quiet(finding, policy), drifted=False)
    if policy.on_drift == "report":
        return Action("report", found, drifted=True)
    return _allowed(found, history, night, policy.cooldown, drifted=True)


def cooling(history: Sequence[date], night: date, cooldown: timedelta) -> date | None:
    """The first night on which a retrain may be asked for again, where that is later than `night`."""
    last = max((asked for asked in history if asked < night), default=None)
    return last + cooldown if last is not None and night - last < cooldown else None


def _allowed(
    reasons: tuple[str, ...], history: Sequence[date], night: date, cooldown: timedelta, *, drifted: bool
) -> Action:
    again = cooling(history, night, cooldown)
    if again is not None:
        wait = f"a retrain was requested on {again - cooldown}; the next may be on {again}"
        return Action("cooldown", (*reasons, wait), drifted)
    return Action("retrain", reasons, drifted)


def _found(finding: Finding, policy: DriftPolicy) -> tuple[str, ...]:
    drifted = [signal for signal in finding.signals if signal.drifted]
    features = [signal for signal in drifted if signal.kind == "feature"]
    reasons = [f"performance: {signal.note or _measure(signal)}" for signal in drifted if signal.kind == "performance"]
    reasons += [f"prediction drift: {_measure(signal)}" for signal in drifted if signal.kind == "prediction"]
    if finding.share is not None and features and finding.share >= policy.share:
        names = ", ".join(signal.column for signal in sorted(features, key=_excess, reverse=True)[:5])
        reasons.append(
            f"feature drift: {len(features)} of {len(finding.tested)} tested columns "
            f"({finding.share:.0%}, limit {policy.share:.0%}); most: {names}"
        )
    return tuple(reasons)


def _quiet(finding: Finding, policy: DriftPolicy) -> tuple[str, ...]:
    if finding.share is None:
        said = ["no feature column could be tested"]
    else:
        said = [f"{finding.share:.0%} of the feature columns drifted (limit {policy.share:.0%})"]
    for signal in finding.signals:
        if signal.kind != "feature" and signal.value is None:
            said.append(f"{signal.kind} could not be tested: {signal.note}")
    return tuple(dict.fromkeys(said))


def _measure(signal: Signal) -> str:
    limit = "" if signal.threshold is None else f" (limit {signal.threshold:.3f})"
    return f"{signal.statistic} of {signal.column} {signal.value:.3f}{limit}"


def _excess(signal: Signal) -> float:
    """How many times its threshold the value is, for ordering."""
    if signal.value is None or not signal.threshold:
        return 0.0
    return signal.value / signal.threshold
