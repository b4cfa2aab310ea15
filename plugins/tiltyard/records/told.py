"""What people are told: messages, which stand as long as what they are about, and their sendings."""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from tiltyard.portfolio_rules import AlertKind
from tiltyard.records.base import Instant, Record

Weight = Literal["waits", "page", "digest"]
"""How it is told: not yet, since it may end by itself; at once; or with the others in the morning."""
Occasion = Literal["begun", "reminder", "ended", "digest", "test"]
"""Why something is sent."""


@dataclass(frozen=True, kw_only=True)
class Fact(Record):
    """Something that somebody should hear of, as long as it stands."""

    kind: AlertKind
    """What it is."""
    subject: str
    """Whom or what it is about."""
    owner: str
    """Who is told; empty: whoever looks after the whole portfolio."""
    tier: int
    """The highest stakes of the models that are concerned: 1, 2 or 3."""
    models: tuple[str, ...] = ()
    """The owner's models that are concerned; empty: all of them."""
    reason: str
    """Why, as a sentence."""
    needs: str | None = None
    """What a person is to do; None where it is only to be known."""
    since: date | None = None
    """The night since which it stands; None where that is not known."""
    until: Instant | None = None
    """When silence counts as an answer; None: never."""
    link: str
    """Where it is answered or seen, below Airflow's address."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same one at the next look."""
        return self.kind, self.subject, self.owner


@dataclass(frozen=True, kw_only=True)
class Message(Record):
    """A fact that is told, from when it was first seen to when it is over."""

    id: int
    """Its number."""
    fact: Fact
    """What it is about, as it was seen last."""
    weight: Weight
    """How it is told."""
    opened_at: Instant
    """When it was seen first, wall clock."""
    weighed_at: Instant | None = None
    """When it was decided how it is told; None while that waits."""
    reminders: int = 0
    """Number of reminders so far."""
    ended_at: Instant | None = None
    """When it was seen no more; None while it stands."""
    needed: bool | None = None
    """Whether whoever was paged had to do something; None where nobody has said."""
    judged_by: str | None = None
    """Who said so."""


@dataclass(frozen=True, kw_only=True)
class Sending(Record):
    """A text for one address. It is sent at least once, by whoever gets hold of it first."""

    id: int = 0
    """Its number; 0 before the ledger has it."""
    message: int | None = None
    """The message that it is of; None for a digest or a test."""
    occasion: Occasion
    """Why it is sent."""
    owner: str
    """Whom it is for; empty: whoever looks after the whole portfolio."""
    to: str
    """The address by its name, like `env:ALERTS_DESK`: the address itself may be a secret."""
    title: str
    """Its first line."""
    body: str
    """The rest, plain text."""
    created_at: Instant
    """When it was put down, wall clock."""
    sent_at: Instant | None = None
    """When the service took it; None before."""
    attempts: int = 0
    """Number of attempts so far."""
    error: str | None = None
    """What the last attempt came to, as a sentence; None where it was taken, or before any."""


@dataclass(frozen=True, kw_only=True)
class HowTold(Record):
    """Who was told of a message, and who is not yet."""

    message: int
    """Its number."""
    to: tuple[str, ...] = ()
    """The addresses, by name, that took it, each once; with those of a digest that it stood in."""
    refused: tuple[str, ...] = ()
    """The addresses that have not taken it yet; it is sent again."""
    until: Instant | None = None
    """Until when people are told nothing of it; None where they were told, or nobody is going to be."""
    why: str | None = None
    """Why they are not told yet, or at all, as half a sentence."""


@dataclass(frozen=True, kw_only=True)
class PagePrecision(Record):
    """How many pages were needed, by those who were paged."""

    pages: int
    """Pages that were sent."""
    judged: int
    """Those of which somebody has said whether they were needed."""
    needed: int
    """Those that were."""
