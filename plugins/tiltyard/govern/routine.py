"""Retrains that a spec asks for without any alarm: by the newest version's age, or by rows matured since. Pure.

`due` gives the governor its reasons; whether a retrain that is due is granted, cooldown, incidents and the night's room
decide as they do for every other. `upcoming` says ahead when that may be.
"""

from dataclasses import dataclass
from datetime import date, timedelta

from tiltyard.clock import format_duration
from tiltyard.records import Record, SinceTraining
from tiltyard.spec import RetrainPolicy

NIGHT = timedelta(days=1)


@dataclass(frozen=True)
class NextRetrain(Record):
    """When a retrain is due that no alarm asks for."""

    trained: date
    """The night as of which the newest version was trained."""
    by_age: date | None
    """The night on which `retrain.every` has passed since; None where the spec names none."""
    matured: int | None
    """Number of labels that have matured since; None where the spec does not count them."""
    after_matured: int | None
    """Number from which on a retrain is due; None where the spec names none."""
    not_before: date | None = None
    """The first night after the cooldown; None where it is over."""
    why_not_before: str = ""
    """Why the cooldown is longer than usual, as the end of a sentence."""

    def __str__(self) -> str:
        parts = [f"due on {self.by_age} by age"] if self.by_age else []
        if self.after_matured is not None and self.matured is not None:
            short = f"{self.matured:,} of {self.after_matured:,} labels have matured"
            parts.append(f"{short}, due" if self.matured >= self.after_matured else short)
        wait = f"; not before {self.not_before}{self.why_not_before}" if self.not_before else ""
        return f"{' or '.join(parts)} since the training of {self.trained}{wait}"


def due(policy: RetrainPolicy, since: SinceTraining, night: date) -> tuple[str, ...]:
    """Why a retrain is due on `night`, a sentence per rule; nothing where none is, or nobody knows when the newest
    version was trained."""
    if since.night is None:
        return ()
    reasons = []
    if policy.every is not None and night - since.night >= policy.every:
        age = (night - since.night).days
        reasons.append(f"the newest version is {age} nights old, retrain.every is {format_duration(policy.every)}")
    if policy.after_matured is not None and since.matured is not None and since.matured >= policy.after_matured:
        reasons.append(
            f"{since.matured:,} labels have matured since the newest training, "
            f"retrain.after_matured is {policy.after_matured:,}"
        )
    if since.is_erased:
        reasons.append(
            "somebody was erased from whom the newest version has learned, and privacy.on_erasure is retrain"
        )
    return tuple(reasons)


def upcoming(
    policy: RetrainPolicy, since: SinceTraining, not_before: date | None = None, why: str = ""
) -> NextRetrain | None:
    """When the next retrain is due; None where the spec names no rule, or there is no version yet.

    `not_before`, `why`: of the cooldown, where there is one.
    """
    if since.night is None or not policy.is_given:
        return None
    nights = None if policy.every is None else -(-policy.every // NIGHT)
    by_age = None if nights is None else since.night + nights * NIGHT
    return NextRetrain(since.night, by_age, since.matured, policy.after_matured, not_before, why if not_before else "")
