"""What was decided about a model, by whom and why, the newest first; and which version was in service on a day.

What happens night after night, like a hold, is told once, on the night on which it began.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

from tiltyard import operating
from tiltyard.answered import delivery
from tiltyard.edge import event_words
from tiltyard.operations import DONE
from tiltyard.rails import Rails
from tiltyard.records import Instant, OperationAction, Record, TrainingSummary
from tiltyard.spec import Spec

PAGE = 30
"""Moments a page."""
PAGES = 10_000
"""So many pages nobody has."""
TRAININGS = timedelta(days=365)
"""How far back trainings without a version are told."""
TOLD_OTHERWISE: Final = (*delivery.ROUTINE, "rolled_back", DONE)
"""Kinds of event that another line tells, or that are of every night."""

Kind = Literal[
    "trained", "not trained", "promote", "hold", "reject", "promoted", "rolled back", "alarm", "alarm over", "held",
    "published", "retrain", "asked", "explained", "recovered", "by hand", "event",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Moment(Record):
    """Something that was decided, or began or ended."""

    night: date
    """The night."""
    kind: Kind
    """What it is."""
    what: str
    """It, as half a sentence."""
    version: int | None = None
    """The version that it is about; None for none."""
    by: str | None = None
    """Who decided it; None where nobody did."""
    reasons: tuple[str, ...] = ()
    """Why, a sentence each."""
    recorded_at: Instant | None = None
    """When it was put down, wall clock."""


@dataclass(frozen=True, kw_only=True)
class Timeline(Record):
    """A page of a model's moments."""

    model: str
    """The model's name."""
    page: int
    """From 1, the newest."""
    has_older: bool
    """Whether there are older ones."""
    moments: tuple[Moment, ...]
    """The newest first."""


@dataclass(frozen=True, kw_only=True)
class InService(Record):
    """Who answered for a model on a day."""

    model: str
    """The model's name."""
    day: date
    """The day."""
    version: int | None
    """The version in service; None for the safe default."""
    since: date | None
    """The night of the change that put it there; None where there was none."""
    by: str | None
    """Who approved that, or did it by hand; None where nobody had to."""
    kind: Literal["promotion", "rollback", "operation"] | None
    """What the change was."""
    action: OperationAction | None = None
    """What a person did; None where nobody did."""
    until: date | None
    """The night of the next change; None while it lasts."""

    def __str__(self) -> str:
        who = "the safe default" if self.version is None else f"version {self.version}"
        if self.since is None:
            begun = "no version had been promoted yet"
        else:
            how = f"{self.action} by hand" if self.action else self.kind
            by = f", {'by' if self.action else 'approved by'} {self.by}" if self.by else ""
            begun = f"in service by the {how} of {self.since}{by}"
        return f"On {self.day} {who} answered: {begun}" + (f"; until the night of {self.until}." if self.until else ".")


def in_service(rails: Rails, model: str, day: date) -> InService:
    """Who answered for a model on a day, from what was decided up to its morning: the night of the day closes as it
    begins, and who is promoted on it answers from then on."""
    changes = rails.ledger.changes(model)
    before = [change for change in changes if change.night <= day]
    after = [change for change in changes if change.night > day]
    last = before[-1] if before else None
    by = None
    if last is not None and last.kind == "promotion":
        by = next((entry.approved_by for entry in rails.ledger.promotions(model) if entry.night == last.night), None)
    if last is not None and last.action is not None:
        done = [
            one for one in operating.in_order(rails.ledger.operations.of([model])[model]) if one.night == last.night
        ]
        by = next((" and ".join(filter(None, (one.requested_by, one.decided_by)))
                   for one in reversed(done) if one.action == last.action), None)  # fmt: skip
    return InService(
        model=model,
        day=day,
        version=last.champion if last else None,
        since=last.night if last else None,
        by=by,
        kind=last.kind if last else None,
        action=last.action if last else None,
        until=after[0].night if after else None,
    )


def read(rails: Rails, spec: Spec, page: int = 1) -> Timeline:
    """A page of what was decided about a model. One that is none is the first."""
    page = page if 1 <= page < PAGES else 1
    most = page * PAGE + 1
    moments = [
        *_versions(rails, spec),
        *_judged(rails, spec, most),
        *_changes(rails, spec),
        *_by_hand(rails, spec),
        *_drift(rails, spec, most),
    ]
    moments += [*_tables(rails, spec, most), *_granted(rails, spec), *_asked(rails, spec), *_events(rails, spec, most)]
    ordered = sorted(moments, key=_place, reverse=True)
    shown = ordered[(page - 1) * PAGE : page * PAGE]
    return Timeline(model=spec.name, page=page, has_older=len(ordered) > page * PAGE, moments=tuple(shown))


def _place(moment: Moment) -> tuple[date, float, str]:
    return moment.night, moment.recorded_at.timestamp() if moment.recorded_at else 0.0, moment.kind


def _versions(rails: Rails, spec: Spec) -> Iterator[Moment]:
    for version in rails.ledger.versions(spec.name):
        yield Moment(
            night=version.night, kind="trained", version=version.version, what=f"version {version.version} was trained",
            by=version.requested_by, reasons=version.facts.reasons, recorded_at=version.recorded_at,
        )  # fmt: skip
    newest = rails.ledger.newest_attempts("training", [spec.name]).get(spec.name)
    since = {spec.name: newest - TRAININGS} if newest else {}
    for run in rails.ledger.runs_since(TrainingSummary, since).get(spec.name, ()):
        if run.summary.version is None:
            yield Moment(
                night=run.night, kind="not trained", what=f"a training {run.status} without a version",
                by=run.summary.requested_by, reasons=(run.summary.reason,) if run.summary.reason else (),
                recorded_at=run.recorded_at,
            )  # fmt: skip


def _judged(rails: Rails, spec: Spec, most: int) -> Iterator[Moment]:
    words = {"promote": "may be promoted", "hold": "is held", "reject": "is rejected"}
    for change in rails.ledger.chronicle.verdicts(spec.name, most):
        against = f"version {change.champion}" if change.champion is not None else "the safe default"
        what = f"version {change.challenger} {words.get(change.verdict, change.verdict)}, against {against}"
        yield Moment(
            night=change.night, kind=change.verdict, version=change.challenger, what=what, by="the gate",  # type: ignore[arg-type]
            reasons=change.reasons, recorded_at=change.recorded_at,
        )  # fmt: skip


def _changes(rails: Rails, spec: Spec) -> Iterator[Moment]:
    for entry in rails.ledger.promotions(spec.name):
        instead = f"version {entry.replaced}" if entry.replaced is not None else "the safe default"
        nobody = "the gate; the tier needs no person"
        yield Moment(
            night=entry.night, kind="promoted", version=entry.version,
            what=f"version {entry.version} was promoted in place of {instead}", by=entry.approved_by or nobody,
            recorded_at=entry.recorded_at,
        )  # fmt: skip
    for watch in rails.ledger.watches(spec.name, verdict="rollback"):
        back = f"version {watch.previous}" if watch.previous is not None else "the safe default"
        yield Moment(
            night=watch.night, kind="rolled back", version=watch.champion, by="the rollback watch",
            what=f"version {watch.champion} was sent back; {back} answers again", reasons=watch.reasons,
            recorded_at=watch.recorded_at,
        )  # fmt: skip


def _by_hand(rails: Rails, spec: Spec) -> Iterator[Moment]:
    for entry in operating.in_order(rails.ledger.operations.of([spec.name])[spec.name]):
        by = entry.requested_by + (f", confirmed by {entry.decided_by}" if entry.decided_by else "")
        assert entry.night is not None  # of what is done it is known
        yield Moment(
            night=entry.night, kind="by hand", version=entry.version, what=operating.what(entry), by=by,
            reasons=(entry.reason,), recorded_at=entry.decided_at,
        )  # fmt: skip


def _drift(rails: Rails, spec: Spec, most: int) -> Iterator[Moment]:
    for change in rails.ledger.chronicle.alarms(spec.name, most):
        yield Moment(
            night=change.night, kind="alarm" if change.begins else "alarm over", by=None,
            what="its drift alarm began" if change.begins else "its drift alarm was over",
            reasons=change.reasons, recorded_at=change.recorded_at,
        )  # fmt: skip


def _tables(rails: Rails, spec: Spec, most: int) -> Iterator[Moment]:
    for change in rails.ledger.chronicle.table_changes(spec.tables, most):
        is_good = change.state == "published"
        cause = f", for {change.cause}" if change.cause not in (None, change.table) else ""
        yield Moment(
            night=change.night, kind="published" if is_good else "held",
            what=f"{change.table} was published again" if is_good else f"{change.table} was {change.state}{cause}",
            reasons=(change.reason,) if change.reason else (), recorded_at=change.recorded_at,
        )  # fmt: skip


def _granted(rails: Rails, spec: Spec) -> Iterator[Moment]:
    for retrain in rails.ledger.retrains(spec.name):
        yield Moment(
            night=retrain.night, kind="retrain", what="a retrain was granted", by="the governor",
            reasons=retrain.reasons, recorded_at=retrain.recorded_at,
        )  # fmt: skip


def _asked(rails: Rails, spec: Spec) -> Iterator[Moment]:
    for task in rails.ledger.default_tasks(spec.name):
        yield Moment(
            night=task.opened, kind="asked",
            what=f"a person was asked why it is on its safe default since {task.since}",
            recorded_at=task.recorded_at,
        )  # fmt: skip
        if told := task.explanation:
            yield Moment(
                night=told.night, kind="explained", by=told.answered_by, recorded_at=told.answered_at,
                what=f"it was said why; it may stay there until {told.until}, {told.owner} sees to it",
                reasons=(told.cause,),
            )  # fmt: skip
        if task.recovery:
            yield Moment(night=task.recovery.night, kind="recovered", what="it had left its safe default")


def _events(rails: Rails, spec: Spec, most: int) -> Iterator[Moment]:
    for event in rails.ledger.chronicle.events(spec.name, TOLD_OTHERWISE, most):
        what, reasons = event_words.in_words(event)
        yield Moment(
            night=event.night or _day(event.recorded_at), kind="event", what=what, by=event_words.by(event),
            reasons=reasons, recorded_at=event.recorded_at,
        )  # fmt: skip


def _day(recorded_at: datetime | None) -> date:
    return recorded_at.date() if recorded_at else date.min
