"""How a message reads on a phone: what, since when, who is concerned, what to do, where. Plain text. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from tiltyard.portfolio_rules import AlertKind
from tiltyard.records import Fact, HowTold, Message
from tiltyard.words import counted, line, listed

WORDS: Final[dict[AlertKind, str]] = {
    "approve": "a promotion waits for you",
    "uncounted": "an approval does not count",
    "operate": "done by hand",
    "worse": "worse than the one before it, and held",
    "explain": "still on its safe default",
    "table": "table held",
    "incident": "incident upstream",
    "refused": "text refused",
    "quarantined": "file in quarantine",
    "failed": "failed",
    "stopped": "stopped by a check",
    "unanswered": "rows without an answer",
    "undelivered": "answers not delivered",
    "copying": "somebody may have a copy",
    "touched": "somebody wrote into the ledger",
    "unerased": "failed erasure",
    "damaged": "a file of the lake is damaged",
}
"""What is told → in a few words."""


def title(fact: Fact, now: datetime) -> str:
    """The first line."""
    stakes = "tier 1, " if fact.tier == 1 else ""
    closes = f", closes in {span(fact.until - now)}" if fact.until and fact.until > now else ""
    return f"{WORDS[fact.kind]}: {stakes}{shown(fact)}{closes}"


def shown(fact: Fact) -> str:
    """Whom it is about."""
    together = fact.kind in ("failed", "stopped", "unanswered") and len(fact.models) > 1
    return counted(len(fact.models), "model") if together else line(fact.subject)


def body(fact: Fact, address: str) -> str:
    """The rest."""
    lines = [f"What: {line(fact.reason).rstrip('.')}."]
    if fact.since:
        lines.append(f"Since: the night of {fact.since}.")
    if fact.models and fact.models != (fact.subject,):
        lines.append(f"Concerned: {listed(fact.models)}.")
    if fact.until:
        lines.append(f"Closes: {fact.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC.")
    if fact.needs:
        lines.append(f"Do: {line(fact.needs)}")
    return "\n".join([*lines, f"{address}{fact.link}"])


def reminder(fact: Fact, now: datetime) -> str:
    """The first line of a reminder."""
    return f"reminder: {title(fact, now)}"


def over(message: Message, now: datetime, address: str) -> tuple[str, str]:
    """(first line, rest) of what says that a message is over."""
    fact = message.fact
    since = fact.since
    how_long = counted(max((now.date() - since).days, 0), "night") if since else span(now - message.opened_at)
    if since and now.date() - since > timedelta(days=60):  # a night of the past that was played today
        how_long = span(now - message.opened_at)
    return f"over: {WORDS[fact.kind]}: {shown(fact)}", f"It is over after {how_long}.\n{address}{fact.link}"


def digest(messages: Sequence[Message], address: str) -> tuple[str, str]:
    """(first line, rest) of a morning's digest."""
    facts = [message.fact for message in messages]
    lines = [f"- {WORDS[fact.kind]}: {shown(fact)}: {line(fact.reason).rstrip('.')}." for fact in facts]
    first = f"{counted(len(messages), 'thing')} to look at this morning"
    return first, "\n".join([*lines, f"{address}/tiltyard/"])


def how(told: HowTold) -> str:
    """Who was told of a message, in words."""
    parts = [f"told {', '.join(told.to)}"] if told.to else []
    parts += [f"not taken yet by {', '.join(told.refused)}"] if told.refused else []
    if told.until:
        parts.append(f"{'people ' if told.to else ''}not before {told.until:%Y-%m-%d %H:%M} UTC: {told.why}")
    elif told.why:
        parts.append(told.why)
    return "; ".join(parts) or "nobody was told"


def span(length: timedelta) -> str:
    """A length of time in its largest unit."""
    minutes = max(round(length / timedelta(minutes=1)), 0)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{round(minutes / 60)} h"
    return counted(round(minutes / 1_440), "day")
