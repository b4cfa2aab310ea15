"""When a model has answered with its safe default for so long that a person has to say why. Pure: counts in, tasks out.

A night is *on the safe default* when more than half of its answers were that constant, online or in the nightly batch:
the worse of the two counts, since whoever reads the one is not helped by the other. A night without an answer says
nothing and breaks nothing. From the first such night on, until a night that is not, is one *stretch*. Whether there
ever was a champion makes no difference: a model that was never promoted anything serves nobody either.

A stretch of `fallback.audit_after` opens a task. An answer (cause, owner, until when) closes it, and the first night
after `until` on which the stretch still goes on opens the next. So does the end of the stretch, without an answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from tiltyard.errors import BadInput

SAFE_DEFAULT = "safe_default"
MOST = 0.5
"""A night is on the safe default when a larger share of its answers than this was."""
LONGEST = timedelta(days=90)
"""How far ahead `until` may lie: a promise for longer is none."""
LONG = 2_000
"""Characters of a cause; an owner's name has a tenth of them."""


@dataclass(frozen=True)
class Night:
    """Who answered on one night: channel (nightly, online) → tier → answers."""

    night: date
    answers: Mapping[str, Mapping[str, int]]

    @property
    def share(self) -> float | None:
        """The safe default's share of the answers, in the channel where it is the largest. None without an answer."""
        shares = [
            tiers.get(SAFE_DEFAULT, 0) / sum(tiers.values()) for tiers in self.answers.values() if sum(tiers.values())
        ]
        return max(shares, default=None)


@dataclass(frozen=True)
class Stretch:
    """Nights in a row on the safe default, those without an answer aside."""

    since: date
    last: date
    nights: int
    share: float
    """Of the last night."""

    def lasts(self, every: timedelta) -> timedelta:
        """From the first prediction of its first night to the end of its last one."""
        return self.last - self.since + every


@dataclass(frozen=True)
class Task:
    """A question that a person has to answer, and how it ended so far."""

    model: str
    opened: date
    since: date
    """The first night of the stretch."""
    repeats: date | None = None
    """When the task was opened whose answer has run out."""
    until: date | None = None
    """What the answer promised. None: there is no answer."""
    recovered: date | None = None
    """The night on which the model had left its safe default."""

    @property
    def is_open(self) -> bool:
        return self.until is None and self.recovered is None


@dataclass(frozen=True)
class Answer:
    cause: str
    owner: str
    until: date


@dataclass(frozen=True)
class Decision:
    """What the audit of a night does to a model's tasks."""

    stretch: Stretch | None
    opens: Task | None = None
    recovered: tuple[Task, ...] = ()


def stretch(nights: Iterable[Night]) -> Stretch | None:
    """The stretch that the newest night with an answer belongs to. None when that one is not on the safe default."""
    days: list[date] = []
    newest: float | None = None
    for night in sorted(nights, key=lambda one: one.night, reverse=True):
        if night.share is None:
            continue
        if night.share <= MOST:
            break
        newest = night.share if newest is None else newest
        days.append(night.night)
    return Stretch(days[-1], days[0], len(days), newest) if newest is not None else None


def decide(
    model: str, night: date, nights: Sequence[Night], tasks: Sequence[Task], audit_after: timedelta, every: timedelta
) -> Decision:
    """What `night` does to the tasks of `model`. `tasks` are those opened on earlier nights, as they stood before it.

    Later nights are not looked at, so that a night audited again decides the same.
    """
    nights = [one for one in nights if one.night <= night and one.share is not None]
    if not nights:
        return Decision(None)
    found = stretch(nights)
    over = tuple(task for task in tasks if task.recovered is None and (found is None or task.opened < found.since))
    if found is None:
        return Decision(None, None, over)
    current = sorted((task for task in tasks if task.opened >= found.since), key=lambda task: task.opened)
    if not current:
        is_due = found.lasts(every) >= audit_after
        return Decision(found, Task(model, night, found.since) if is_due else None, over)
    latest = current[-1]
    is_due = latest.until is not None and night > latest.until
    return Decision(found, Task(model, night, found.since, latest.opened) if is_due else None, over)


def checked(cause: str | None, owner: str | None, until: str | date | None, newest: date) -> Answer:
    """A person's answer, when it is one. `newest`: the last night that was audited, which `until` has to lie after.

    Raises BadInput with a sentence for each thing that is wrong with it.
    """
    cause, owner = str(cause or "").strip(), str(owner or "").strip()
    wrong = []
    if not cause:
        wrong.append("The cause is empty; say why the model cannot answer.")
    if not owner:
        wrong.append("The owner is empty; name who sees to it.")
    if len(cause) > LONG or len(owner) > LONG // 10:
        wrong.append(f"A cause has at most {LONG:,} characters and an owner {LONG // 10}; link to the rest.")
    day = until
    if not isinstance(day, date):
        try:
            day = date.fromisoformat(str(until or "").strip())
        except ValueError:
            wrong.append(
                f"'{str(until or '')[:40]}' is no date; write until when the model may stay there, like 2016-05-02."
            )
            raise BadInput(" ".join(wrong)) from None
    if day <= newest:
        wrong.append(f"{day} has passed: the last night was {newest}; name a later day.")
    elif day - newest > LONGEST:
        wrong.append(f"{day} is too far away; name a day up to {newest + LONGEST}, and you will be asked again then.")
    if wrong:
        raise BadInput(" ".join(wrong))
    return Answer(cause, owner, day)
