"""What is told at once, what waits for the morning, and what is over. Pure.

Whoever is paged for nothing stops reading, so that interruptions are bounded per owner (`pages.per_owner_week`), as
retrains for nothing are. Four rules: what may end by itself is left alone for a while, whatever the stakes
(`pages.patience`); then what must not wait always comes (the highest stakes, and what silence answers); what a later
night settles without anybody is never more than a line of the morning; and of the rest the most urgent come as long as
the week's pages last, and the others are in the digest of the next morning. `benchmarks/pages.py` plays years of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from typing import Final

from tiltyard.outbox import Standing
from tiltyard.portfolio_rules import AlertKind, Pages
from tiltyard.records import Fact, Message, Weight

URGENCY: Final[dict[AlertKind, int]] = {
    "touched": 0,
    "damaged": 0, "approve": 0, "uncounted": 1, "operate": 2, "table": 3, "worse": 4, "explain": 5, "quarantined": 6,
    "failed": 7, "undelivered": 8, "refused": 9, "incident": 10, "stopped": 11, "unanswered": 12,
    "copying": 13, "unerased": 3,
}  # fmt: skip
"""What is told → its place where not all can come at once."""
HEALS: Final[frozenset[AlertKind]] = frozenset({"failed", "table"})
"""What may end by itself: a stage or a source is tried again."""
SETTLES: Final[frozenset[AlertKind]] = frozenset({"stopped", "unanswered"})
"""What a later night settles: late rows are answered with the next one, and after a stopped training the governor
decides anew."""
ANEW: Final[frozenset[AlertKind]] = frozenset({"approve", "uncounted", "table"})
"""What is another fact where it stands since another night: another question, or another fault of the same table."""
REMINDERS: Final = (0.5, 0.9)
"""Shares of the time to answer after which whoever is asked is reminded."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What follows from what there is to tell, and from what was told."""

    opened: tuple[tuple[Fact, Weight], ...]
    """New facts, and how each is told."""
    weighed: tuple[tuple[Message, Weight], ...]
    """Messages that have waited, and how they are told now."""
    reminded: tuple[Message, ...]
    """Messages of which whoever is asked is reminded."""
    ended: tuple[Message, ...]
    """Messages that are over."""
    renewed: tuple[Message, ...]
    """Messages whose fact reads otherwise by now, as it reads: they are not told again."""
    replaced: tuple[Message, ...]
    """Messages that are over since another fact has come in their place, which is told."""
    digests: Mapping[str, tuple[Message, ...]]
    """Owner → the messages of its digest, which is due, the most urgent first."""


def decide(facts: Sequence[Fact], standing: Standing, pages: Pages, now: datetime) -> Decided:
    """What is told of `facts` now. `now`: wall clock."""
    seen = {fact.key: fact for fact in facts}
    replaced = tuple(own for own in standing.messages if _is_replaced(own, seen.get(own.fact.key), now))
    told = {message.fact.key: message for message in standing.messages if message not in replaced}
    renewed = {key: replace(message, fact=seen[key]) for key, message in told.items()
               if key in seen and seen[key] != message.fact}  # fmt: skip
    told |= renewed
    ended = tuple(message for key, message in told.items() if key not in seen)
    left = {owner: pages.per_owner_week - count for owner, count in standing.paged.items()}

    def weigh(fact: Fact, since: datetime) -> Weight:
        if fact.kind in SETTLES:
            return "digest"
        if fact.kind in HEALS and now - since < pages.patience:
            return "waits"
        if not must_not_wait(fact) and left.get(fact.owner, pages.per_owner_week) <= 0:
            return "digest"
        left[fact.owner] = left.get(fact.owner, pages.per_owner_week) - 1
        return "page"

    undecided = [(fact, told.get(fact.key)) for fact in facts]
    undecided = [(fact, own) for fact, own in undecided if own is None or own.weight == "waits"]
    opened: list[tuple[Fact, Weight]] = []
    weighed: list[tuple[Message, Weight]] = []
    for fact, own in sorted(undecided, key=lambda pair: urgency(pair[0])):
        weight = weigh(fact, own.opened_at if own else now)
        if own is None:
            opened.append((fact, weight))
        elif weight != "waits":
            weighed.append((own, weight))
    stays = [message for key, message in told.items() if key in seen]
    return Decided(
        opened=tuple(opened),
        weighed=tuple(weighed),
        reminded=tuple(message for message in stays if _is_reminded(message, now)),
        ended=ended,
        renewed=tuple(renewed.values()),
        replaced=replaced,
        digests=_digests(stays, standing.digests, pages, now),
    )


def next_digest(pages: Pages, now: datetime) -> datetime:
    """When the next morning's digest is put down."""
    due = datetime.combine(now.date(), time.fromisoformat(pages.digest), now.tzinfo)
    return due if now < due else due + timedelta(days=1)


def _is_replaced(message: Message, fact: Fact | None, now: datetime) -> bool:
    """Whether another fact has come in the place of the one that was told."""
    return fact is not None and (_is_another(fact, message.fact) or _is_asked_anew(message, fact, now))


def _is_another(fact: Fact, before: Fact) -> bool:
    return fact.kind in ANEW and None not in (fact.since, before.since) and fact.since != before.since


def must_not_wait(fact: Fact) -> bool:
    """Whether it comes, whatever was told before: the highest stakes, and what silence answers."""
    return fact.until is not None or (fact.tier == 1 and fact.kind not in SETTLES)


def urgency(fact: Fact) -> tuple[bool, int, int, int, tuple[str, str, str]]:
    """What facts are sorted by, the most urgent first."""
    return not must_not_wait(fact), fact.tier, URGENCY[fact.kind], -len(fact.models), fact.key


def _is_asked_anew(message: Message, fact: Fact, now: datetime) -> bool:
    """Whether the time to answer is over and another night asks the same: it was told when the first one closes."""
    until = message.fact.until
    return until is not None and until <= now and fact.until is not None and fact.since != message.fact.since


def _is_reminded(message: Message, now: datetime) -> bool:
    if message.fact.until is None or message.weight != "page" or message.reminders >= len(REMINDERS):
        return False
    passed = (now - message.opened_at) / max(message.fact.until - message.opened_at, timedelta(seconds=1))
    return message.fact.until > now and passed >= REMINDERS[message.reminders]


def _digests(
    stays: Sequence[Message], last: Mapping[str, datetime], pages: Pages, now: datetime
) -> dict[str, tuple[Message, ...]]:
    """Owner → what nobody was told at once, of those whose last digest is of before this morning's hour."""
    due = next_digest(pages, now) - timedelta(days=1)
    found: dict[str, list[Message]] = {}
    for message in sorted(stays, key=lambda message: urgency(message.fact)):
        owner = message.fact.owner
        is_told = owner in last and last[owner] >= due
        is_early = due <= message.opened_at <= now  # and not of a clock that was ahead
        if message.weight == "digest" and not is_told and not is_early:
            found.setdefault(owner, []).append(message)
    return {owner: tuple(messages) for owner, messages in found.items()}
