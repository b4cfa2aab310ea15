"""When a model has answered with its safe default for so long that a person has to say why. Pure: counts in, tasks out.

A night is *on the safe default* when more than half of its answers were that constant, online or in the nightly batch:
the worse of the two counts, since good answers in one channel do not help who reads the other. A night without an
answer says nothing and breaks nothing. A *stretch* is all nights from the first on the safe default until one that is
not. Whether there ever was a champion makes no difference: a model without one serves nobody either.

A stretch as long as `fallback.audit_after` opens a task. A person's answer (cause, owner, until when) closes it, and
the first night after `until` on which the stretch still goes on opens the next. The end of the stretch closes it, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from tiltyard.errors import BadInput

SAFE_DEFAULT = "safe_default"
MOST = 0.5
"""Largest share of a night's answers that may be the safe default without the night being on it."""
LONGEST = timedelta(days=90)
"""How far ahead of the last night `until` may lie."""
LONG = 2_000
"""Number of characters that a cause may have; an owner's name may have a tenth of them."""


@dataclass(frozen=True)
class Night:
    """Who answered on one night."""

    night: date
    """The night."""
    answers: Mapping[str, Mapping[str, int]]
    """Channel (nightly, online) → tier → number of answers."""

    @property
    def share(self) -> float | None:
        """Share of answers that were the safe default, in the channel where it is largest. None without an answer."""
        shares = [
            tiers.get(SAFE_DEFAULT, 0) / sum(tiers.values()) for tiers in self.answers.values() if sum(tiers.values())
        ]
        return max(shares, default=None)


@dataclass(frozen=True)
class Stretch:
    """Nights in a row on the safe default, those without an answer aside."""

    since: date
    """The first night."""
    last: date
    """The last night so far."""
    nights: int
    """Number of nights with answers."""
    share: float
    """Share of the last night's answers that were the safe default."""

    def lasts(self, every: timedelta) -> timedelta:
        """From the first prediction of its first night to the end of its last one."""
        return self.last - self.since + every


@dataclass(frozen=True)
class ExplanationTask:
    """A question that a person has to answer, and how it ended so far."""

    model: str
    """The model's name."""
    opened: date
    """The night whose audit asked."""
    since: date
    """The first night of the stretch."""
    repeats: date | None = None
    """When the task was opened whose answer has run out; None the first time."""
    until: date | None = None
    """The day until which the answer allows it; None while there is no answer."""
    recovered: date | None = None
    """The night on which the model had left its safe default; None while it has not."""

    @property
    def is_open(self) -> bool:
        """Whether the question still waits for a person."""
        return self.until is None and self.recovered is None


@dataclass(frozen=True)
class ExplanationAnswer:
    """What a person says about a safe default that lasts."""

    cause: str
    """Why the model cannot answer."""
    owner: str
    """Who sees to it."""
    until: date
    """The last day on which it may stay on its safe default."""


@dataclass(frozen=True)
class TaskChange:
    """What the audit of a night does to a model's tasks."""

    stretch: Stretch | None
    """The stretch that the night belongs to; None when it is not on the safe default."""
    opens: ExplanationTask | None = None
    """The task to open; None for none."""
    recovered: tuple[ExplanationTask, ...] = ()
    """The tasks whose stretch is over."""


def stretch(nights: Iterable[Night]) -> Stretch | None:
    """The stretch that the newest night with answers belongs to. None when that night is not on the safe default."""
    days: list[date] = []
    newest: float | None = None
    for night in sorted(nights, key=lambda night: night.night, reverse=True):
        if night.share is None:
            continue
        if night.share <= MOST:
            break
        newest = night.share if newest is None else newest
        days.append(night.night)
    return Stretch(days[-1], days[0], len(days), newest) if newest is not None else None


def decide(
    model: str,
    night: date,
    nights: Sequence[Night],
    tasks: Sequence[ExplanationTask],
    audit_after: timedelta,
    every: timedelta,
) -> TaskChange:
    """What `night` does to the tasks of `model`. `tasks` are those opened on earlier nights, as they stood before it.

    Nights after `night` are not looked at, so that a night audited again decides the same. `audit_after` is how long a
    stretch may be, `every` the time from one night to the next.
    """
    history = [earlier for earlier in nights if earlier.night <= night and earlier.share is not None]
    if not history:
        return TaskChange(None)
    current = stretch(history)
    over = tuple(task for task in tasks if task.recovered is None and (current is None or task.opened < current.since))
    if current is None:
        return TaskChange(None, None, over)
    of_stretch = sorted((task for task in tasks if task.opened >= current.since), key=lambda task: task.opened)
    if not of_stretch:
        is_due = current.lasts(every) >= audit_after
        return TaskChange(current, ExplanationTask(model, night, current.since) if is_due else None, over)
    latest = of_stretch[-1]
    is_due = latest.until is not None and night > latest.until
    return TaskChange(current, ExplanationTask(model, night, current.since, latest.opened) if is_due else None, over)


def checked(cause: str | None, owner: str | None, until: str | date | None, newest: date) -> ExplanationAnswer:
    """A person's answer, checked. `newest` is the last night that was audited; `until` has to lie after it.

    Raises BadInput with a sentence for each thing that is wrong.
    """
    cause, owner = str(cause or "").strip(), str(owner or "").strip()
    faults = []
    if not cause:
        faults.append("The cause is empty; say why the model cannot answer.")
    if not owner:
        faults.append("The owner is empty; name who sees to it.")
    if len(cause) > LONG or len(owner) > LONG // 10:
        faults.append(f"A cause has at most {LONG:,} characters and an owner {LONG // 10}; link to the rest.")
    day = until
    if not isinstance(day, date):
        try:
            day = date.fromisoformat(str(until or "").strip())
        except ValueError:
            faults.append(
                f"'{str(until or '')[:40]}' is no date; write until when the model may stay there, like 2016-05-02."
            )
            raise BadInput(" ".join(faults)) from None
    if day <= newest:
        faults.append(f"{day} has passed: the last night was {newest}; name a later day.")
    elif day - newest > LONGEST:
        faults.append(f"{day} is too far away; name a day up to {newest + LONGEST}, and you will be asked again then.")
    if faults:
        raise BadInput(" ".join(faults))
    return ExplanationAnswer(cause, owner, day)
