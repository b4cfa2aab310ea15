"""A person's approval, and everything that keeps one from counting. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple

from pydantic import JsonValue

from tiltyard import words
from tiltyard.portfolio_rules import Approvers
from tiltyard.records import JsonObject
from tiltyard.spec import Spec
from tiltyard.words import UNKNOWN, Who, person

APPROVE = "Approve"
REJECT = "Reject"
ASSUMED: Final = {"hindcast:auto": APPROVE, "hindcast:never": REJECT}
"""Source of an answer that a hindcast assumes → the answer."""
HINDCAST_PERSON = words.HINDCAST


class Subject(NamedTuple):
    """What an approval is about."""

    model: str
    """Name of the model."""
    version: int
    """The version that is to be promoted."""
    night: date
    """The night on which the gate said promote."""
    evidence: str
    """SHA-256 of the evidence page."""


@dataclass(frozen=True)
class Approval:
    """A person's answer as it stands in the record of whoever asked, never a task's return value."""

    approved_by: str | None
    """Who answered; None when nobody did, or the timeout did."""
    requested_by: str | tuple[str, ...] | None
    """Who started the run that asked, or those who did; None when it is not known."""
    chosen: str | tuple[str, ...]
    """The answer that was chosen."""
    responded_at: datetime | None
    """Instant of the answer, wall clock; None without one."""
    subject: Subject | None
    """What was asked; None when the question is none that this project writes."""
    source: str
    """`airflow`, or `hindcast:auto` and `hindcast:never`: assumed, not given, and recorded as such."""
    comment: str | None = None
    """What the person said; None where that was nothing."""

    @property
    def is_assumed(self) -> bool:
        """Whether nobody has given it."""
        return self.source in ASSUMED

    def to_json(self) -> JsonObject:
        """The approval as the ledger keeps it."""
        subject = self.subject
        chosen: list[JsonValue] = [*self.chosen]
        return {
            "approved_by": self.approved_by,
            "requested_by": [*self.requested_by] if isinstance(self.requested_by, tuple) else self.requested_by,
            "chosen": self.chosen if isinstance(self.chosen, str) else chosen,
            "responded_at": None if self.responded_at is None else str(self.responded_at),
            "subject": None if subject is None else [*subject[:2], str(subject.night), subject.evidence],
            "source": self.source,
            **({"comment": self.comment} if self.comment else {}),
        }


def assumed(subject: Subject, as_of: datetime, source: str = "hindcast:auto") -> Approval:
    """The hindcast's declared assumption that everybody who is asked would have said so, under its own source, one of
    ASSUMED."""
    return Approval(
        approved_by=HINDCAST_PERSON,
        requested_by="assumption",
        chosen=ASSUMED[source],
        responded_at=as_of,
        subject=subject,
        source=source,
    )


def faults_of_all(
    spec: Spec,
    approvals: Sequence[Approval],
    subject: Subject,
    trained_by: str,
    approvers: Approvers | None = None,
    who: Who = person,
    released_by: Sequence[str] = (),
    shown: int = 0,
) -> list[str]:
    """What keeps these approvals, together, from counting, as half sentences; empty when they count.

    `approvers`: who may answer for the model's owner; None: anybody but whoever asked, trained or released. `who`:
    which names are one person's (`Portfolio.who`). `released_by`: who released what the challenger is made of and the
    champion is not (`releasers.behind`). `shown`: how many the evidence page has said that it needs.
    """
    rules = (trained_by, approvers, who, released_by)
    found = [fault for approval in approvals for fault in faults_of(approval, subject, *rules)]
    faults = list(dict.fromkeys(found))
    if all(approval.is_assumed for approval in approvals):
        return faults
    needed = max(spec.gate.approvals if spec.tier == 1 else 1, shown)
    people = Counter(name for approval in approvals if (name := who(approval.approved_by)))
    faults += [
        f"'{name}' has approved twice, which is once: {needed} different people have to approve"
        for name in sorted(people)
        if people[name] > 1
    ]
    if not faults and len(people) < needed:
        faults.append(f"{needed} people have to approve, {len(people)} did")
    return faults


def faults_of(
    approval: Approval,
    subject: Subject,
    trained_by: str,
    approvers: Approvers | None = None,
    who: Who = person,
    released_by: Sequence[str] = (),
) -> list[str]:
    """Everything that keeps one approval from counting, as half sentences.

    `trained_by`: who asked for the challenger's training, and may not approve it. `approvers`: who may answer for the
    model's owner; None: anybody else. `who`: which names are one person's. `released_by`: who released what it is made
    of, and may not approve it either.
    """
    faults = []
    approver, is_assumed = who(approval.approved_by), approval.is_assumed
    if approval.subject is None or tuple(map(str, approval.subject)) != tuple(map(str, subject)):
        faults.append("it is about something else than this model, version, night and evidence")
    chosen = (approval.chosen,) if isinstance(approval.chosen, str) else tuple(approval.chosen)
    if chosen != (APPROVE,):
        faults.append(f"the answer was {', '.join(chosen) or 'nothing'}")
    if not approver:
        faults.append("no person answered")
    if approval.responded_at is None or approval.responded_at.tzinfo is None:
        faults.append("there is no record of when it was answered")
    if is_assumed != (approver == HINDCAST_PERSON):
        faults.append(f"'{approval.approved_by}' and the source '{approval.source}' do not belong together")
    if not is_assumed and approver:
        requested_by = approval.requested_by if isinstance(approval.requested_by, tuple) else (approval.requested_by,)
        trainers = (trained_by or "").split(",")
        asked, trained = set(map(who, requested_by)), {who(trained_by), *map(who, trainers)}
        released = set(map(who, released_by))
        if not any(asked) or UNKNOWN in asked:
            faults.append("it is not known who asked for it")
        if not any(trained) or UNKNOWN in trained:
            faults.append("it is not known who trained it")
        if UNKNOWN in released:
            faults.append("it is not known who released what it is made of")
        if approver in asked | trained:
            faults.append(f"'{approval.approved_by}' asked for it and cannot approve it")
        elif approver in released:
            faults.append(f"'{approval.approved_by}' released what it is made of and cannot approve it")
        elif approvers is not None and approval.responded_at is not None:
            asked_by = [name for name in (*requested_by, *trainers, *released_by) if name]
            may = approvers.names(approval.responded_at.date(), asked_by, who)
            if approver not in map(who, may):
                faults.append(
                    f"'{approval.approved_by}' may not answer for this owner; these may: {', '.join(may) or 'nobody'}"
                )
    return faults
