"""A look at what there is to tell, and the sending of what was put down. The addresses are Apprise's: mail, chats,
pagers, webhooks and a hundred more.

An address may hold a secret, so that it is known by its name alone, to the last call of the library that posts to it.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import product
from typing import get_args

from tiltyard import clock
from tiltyard.edge import board
from tiltyard.edge.airflow_settings import address
from tiltyard.edge.told import deciding, texts, webhook
from tiltyard.edge.told.facts import facts
from tiltyard.errors import BadInput
from tiltyard.outbox import SHOWN, Look, Standing
from tiltyard.portfolio_rules import AlertKind, Portfolio, load_portfolio
from tiltyard.prepare.fetch import credentials
from tiltyard.prepare.fetch.credentials import Lookup
from tiltyard.rails import Rails
from tiltyard.records import Fact, HowTold, Message, Occasion, PagePrecision, Record, Sending, Weight
from tiltyard.spec import portfolio

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""Seconds that a service may take, with all its answers."""
QUARTER = timedelta(days=90)
"""How far back the precision of pages is counted."""


@dataclass(frozen=True, kw_only=True)
class Told(Record):
    """What a look and a sending came to."""

    standing: int
    """Number of messages that stand."""
    paged: int
    """Number of those that were told at once now."""
    later: int
    """Number of those that are left to the morning, or wait."""
    ended: int
    """Number of messages that are over now."""
    sent: int
    """Number of sendings that a service took."""
    unsent: dict[str, str] = field(default_factory=dict)
    """Address, by its name → why it took nothing."""
    unrouted: tuple[str, ...] = ()
    """First lines of what no route takes."""
    to: tuple[str, ...] = ()
    """The addresses of a test, by their names."""


@dataclass(frozen=True, kw_only=True)
class AlertList(Record):
    """What stands, how it was told, and what could not be."""

    messages: tuple[Message, ...]
    """What stands or was over lately, the oldest first."""
    how: tuple[HowTold, ...]
    """Who was told of each of them, in the same order."""
    unsent: tuple[Sending, ...]
    """What no service has taken yet."""
    precision: PagePrecision
    """How many pages of the last quarter were needed."""


def tell(rails: Rails, now: datetime, lookup: Lookup = credentials.from_environment) -> Told:
    """Look at what there is to tell, put down what follows, and send what waits. Nothing where no route is named.
    `lookup` knows the connections that addresses name."""
    rules, specs = load_portfolio(rails.settings.models), portfolio(rails.settings)
    if not rules.routes:
        return Told(standing=0, paged=0, later=0, ended=0, sent=0)
    found = facts(board.read(rails, specs, now), specs)
    unrouted: list[str] = []
    look = rails.ledger.outbox.look(lambda standing: _look(rails, rules, found, standing, now, unrouted), now)
    base = address(rails.settings)
    tried = rails.ledger.outbox.send(
        lambda entry: post(entry, lookup), now, lambda entry, about: _as_it_reads(entry, about, now, base)
    )
    weights = [*(weight for _, weight, _ in look.opened), *(weight for _, weight in look.weighed)]
    return Told(
        standing=len(rails.ledger.outbox.standing()),
        paged=weights.count("page"),
        later=len(weights) - weights.count("page"),
        ended=len(look.ended),
        sent=sum(entry.sent_at is not None for entry in tried),
        unsent={entry.to: entry.error for entry in tried if entry.error},
        unrouted=tuple(unrouted),
    )


def test(rails: Rails, owner: str, now: datetime, lookup: Lookup = credentials.from_environment) -> Told:
    """Send one message to every address that a page for an owner goes to. Raises BadInput where there is none."""
    rules = load_portfolio(rails.settings.models)
    owners = sorted({spec.owner for spec in portfolio(rails.settings)})
    if owner not in owners:
        raise BadInput(f"No model is {owner}'s; the owners are: {', '.join(owners) or 'none'}.")
    everything = product((1, 2, 3), get_args(AlertKind))
    addresses = {to for tier, kind in everything for to in rules.addresses(owner, tier, kind, now.date())}
    if not addresses:
        raise BadInput(f"No route takes what is {owner}'s; write one under routes in models/portfolio.yaml.")
    body = f"A test for {owner}: whoever reads this is told of its models.\n{address(rails.settings)}/tiltyard/"
    entries = [
        Sending(occasion="test", owner=owner, to=to, title="Tiltyard: a test", created_at=now,
                body=json.dumps({"type": "tiltyard.test", "owner": owner}) if webhook.is_one(to) else body)
        for to in sorted(addresses)
    ]  # fmt: skip
    errors = {entry.to: post(entry, lookup) for entry in entries}
    unsent = {to: error for to, error in errors.items() if error}
    return Told(standing=0, paged=0, later=0, ended=0, sent=len(entries) - len(unsent), unsent=unsent,
                to=tuple(errors))  # fmt: skip


def listing(rails: Rails, now: datetime) -> AlertList:
    """What stands, what was over in the last week, and what could not be told."""
    outbox = rails.ledger.outbox
    messages = outbox.since(now - timedelta(days=7))
    return AlertList(
        messages=tuple(messages),
        how=tuple(_how(rails, messages, now)),
        unsent=tuple(outbox.unsent(now - SHOWN)),
        precision=outbox.precision(now - QUARTER),
    )


def _how(rails: Rails, messages: Sequence[Message], now: datetime) -> Iterator[HowTold]:
    """Who was told of each message, and until when who is not."""
    outbox, rules = rails.ledger.outbox, load_portfolio(rails.settings.models)
    sent = outbox.sendings([message.id for message in messages])
    digests = outbox.digests(min((message.opened_at for message in messages), default=now))
    for message in messages:
        fact, over = message.fact, message.ended_at or now
        own = [entry for entry in sent if entry.message == message.id]
        if message.weight == "digest":
            own += [
                entry for entry in digests if entry.owner == fact.owner and message.opened_at < entry.created_at <= over
            ]
        to = dict.fromkeys(entry.to for entry in own if entry.sent_at)
        refused = dict.fromkeys(entry.to for entry in own if entry.sent_at is None and entry.attempts)
        until, why = None, None
        people = [to for to in rules.addresses(fact.owner, fact.tier, fact.kind, now.date()) if not webhook.is_one(to)]
        if message.ended_at is None and not {*people} & {*to, *refused}:
            if not people:
                why = "no route takes it to anybody"
            elif message.weight == "waits":
                until, why = message.opened_at + rules.pages.patience, "it may end by itself"
            elif message.weight == "digest":
                until, why = deciding.next_digest(rules.pages, now), "it is told in the morning with the others"
        yield HowTold(
            message=message.id, to=tuple(to), refused=tuple(name for name in refused if name not in to), until=until,
            why=why,
        )  # fmt: skip


def post(entry: Sending, lookup: Lookup) -> str | None:
    """Post a text to its address. Why it could not be, as a sentence without any secret; None where it was taken."""
    import apprise  # with a hundred services: nothing that only looks may pay for it

    try:
        if webhook.is_one(entry.to):
            return _in_time(entry, lambda: webhook.post(entry, clock.now()))
        target = _address(entry.to, lookup)
    except BadInput as error:
        return str(error)
    service = apprise.Apprise(asset=apprise.AppriseAsset(secure_logging=True, app_id="Tiltyard", app_desc="Tiltyard"))
    if not service.add(target):
        return f"{entry.to} holds no address that Apprise knows; see its list of services."

    def notify() -> str | None:
        taken = service.notify(title=entry.title, body=entry.body, body_format=apprise.NotifyFormat.TEXT)
        return None if taken else f"{entry.to} did not take it; it is tried again at the next look."

    return _in_time(entry, notify)


def _in_time(entry: Sending, work: Callable[[], str | None]) -> str | None:
    """What `work` returns, or why nothing came of it. Whatever a service or a library does, the next message is sent:
    a receiver that answers a byte a second keeps nobody, whom a time limit on each read would not notice.

    Raises BadInput as `work` does.
    """
    came: list[str | Exception | None] = []

    def run() -> None:
        try:
            came.append(work())
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    outcome = came[0] if came else f"{entry.to} had not answered after {PATIENCE_S:g} s; it is tried again."
    if isinstance(outcome, BadInput):
        raise outcome
    if isinstance(outcome, Exception):
        log.warning("%s: %s", entry.to, type(outcome).__name__)
        return f"{entry.to} could not be posted to ({type(outcome).__name__})."
    return outcome


def _as_it_reads(entry: Sending, about: Message, now: datetime, base: str) -> Sending:
    """What people are sent of a message that stands, with the time that is left now, however long it has waited."""
    if webhook.is_one(entry.to) or entry.occasion not in ("begun", "reminder"):
        return entry
    title = texts.title if entry.occasion == "begun" else texts.reminder
    return replace(entry, title=title(about.fact, now), body=texts.body(about.fact, base))


def _address(name: str, lookup: Lookup) -> str:
    """The address that a name stands for. Raises BadInput where there is none."""
    kind, _, rest = name.partition(":")
    if kind == "env":
        if not os.environ.get(rest):
            raise BadInput(f"{rest} is not set; put an address of Apprise there, like mailto://user:secret@host.")
        return os.environ[rest]
    connection = credentials.find(rest, lookup)
    if connection is None or not connection.password:
        raise BadInput(f"The connection '{rest}' has no password; an address of Apprise goes there.")
    return connection.password


def _look(
    rails: Rails, rules: Portfolio, found: Sequence[Fact], standing: Standing, now: datetime, unrouted: list[str]
) -> Look:
    """What is put down of what was decided."""
    decided = deciding.decide(found, standing, rules.pages, now)
    base = address(rails.settings)

    def written(fact: Fact, occasion: Occasion, title: str, body: str, message: int | None = None) -> list[Sending]:
        """For people."""
        addresses = rules.addresses(fact.owner, fact.tier, fact.kind, now.date())
        if not addresses:
            unrouted.append(title)
        return [
            Sending(message=message, occasion=occasion, owner=fact.owner, to=to, title=title, body=body, created_at=now)
            for to in addresses
            if not webhook.is_one(to)
        ]

    def posted(fact: Fact, occasion: Occasion, title: str, message: int | None = None) -> list[Sending]:
        """For other systems, which nothing interrupts: all that begins, and its end."""
        body = webhook.document(fact, occasion, title, base)
        return [
            Sending(message=message, occasion=occasion, owner=fact.owner, to=to, title=title, body=body, created_at=now)
            for to in rules.addresses(fact.owner, fact.tier, fact.kind)
            if webhook.is_one(to)
        ]

    def paged(fact: Fact, weight: Weight, message: int | None = None) -> list[Sending]:
        if weight != "page":
            return []
        return written(fact, "begun", texts.title(fact, now), texts.body(fact, base), message)

    more = [entry for message, weight in decided.weighed for entry in paged(message.fact, weight, message.id)]
    for message in decided.reminded:
        text = texts.reminder(message.fact, now), texts.body(message.fact, base)
        more += written(message.fact, "reminder", *text, message.id)
    for message in decided.ended:
        title, body = texts.over(message, now, base)
        more += posted(message.fact, "ended", title, message.id)
        if message.weight == "page":
            more += written(message.fact, "ended", title, body, message.id)
    for messages in decided.digests.values():
        more += written(messages[0].fact, "digest", *texts.digest(messages, base))
    opened = [
        (fact, weight, (*paged(fact, weight), *posted(fact, "begun", texts.title(fact, now))))
        for fact, weight in decided.opened
    ]
    return Look(
        opened=tuple(opened),
        weighed=tuple((message.id, weight) for message, weight in decided.weighed),
        reminded=tuple(message.id for message in decided.reminded),
        ended=tuple(message.id for message in (*decided.ended, *decided.replaced)),
        renewed=decided.renewed,
        sendings=tuple(more),
    )
