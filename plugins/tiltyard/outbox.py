"""The outbox: what people are told, in the ledger, so that a service that is away loses nothing.

A look at the facts opens, weighs and ends messages and puts down what is to be sent in one transaction, one look at a
time. Each sending is then held by a row lock while it is sent and marked after it: it is sent at least once, and by two
senders at once only where one of them was killed in between.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tiltyard import clock, reading
from tiltyard.errors import BadInput
from tiltyard.ledger_tables import message, sending, storable
from tiltyard.records import Fact, Message, PagePrecision, Sending, Weight

log = logging.getLogger(__name__)

MOST = 200
"""Sendings of one go: the next one takes the rest."""
AWAY = 3
"""Failures one after the other from which on an address is left alone until the next go: what waits for a service that
is away neither holds up nor crowds out what goes elsewhere."""
PATIENCE = timedelta(days=7)
"""What could not be sent for so long is given up."""
A_DIGEST = timedelta(days=1)
"""How long the digest of a morning may still be sent: then there is another one, where there is anything to say."""
BEGINNINGS = ("begun", "reminder")
"""Occasions of what is not sent any more once it is over."""
SHOWN = 2 * PATIENCE
"""How long it is shown that something could not be told."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a look starts from."""

    messages: tuple[Message, ...]
    """Those that are not over."""
    paged: Mapping[str, int]
    """Owner → pages of the last seven days."""
    digests: Mapping[str, datetime]
    """Owner → when its newest digest was put down."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a look has come to."""

    opened: tuple[tuple[Fact, Weight, tuple[Sending, ...]], ...] = ()
    """New facts, how each is told, and what is sent of it."""
    weighed: tuple[tuple[int, Weight], ...] = ()
    """Messages that waited, by number, and how they are told now."""
    reminded: tuple[int, ...] = ()
    """Messages of which whoever is asked is reminded."""
    ended: tuple[int, ...] = ()
    """Messages that are over."""
    renewed: tuple[Message, ...] = ()
    """Messages whose fact reads otherwise by now, as it reads."""
    sendings: tuple[Sending, ...] = ()
    """What else is sent."""


class Outbox:
    """The outbox of an open ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def look(self, decide: Callable[[Standing], Look], now: datetime) -> Look:
        """Let `decide` say what follows from what stands, and put that down. One look at a time."""
        with self._engine.begin() as connection:
            connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('tiltyard/outbox'))"))
            standing, unreadable = _standing(connection, now)
            look = decide(standing)
            over = [*look.ended, *unreadable]
            if over:  # first: what comes in the place of one has its name
                ended = sa.update(message).where(message.c.id.in_(over))
                connection.execute(ended.values(ended_at=now))
            for fact, weight, own in look.opened:
                row: dict[str, Any] = {"kind": fact.kind, "subject": storable(fact.subject), "owner": fact.owner}
                row |= {"fact": fact.to_json(), "weight": weight, "weighed_at": None if weight == "waits" else now}
                made = sa.insert(message).values(**row, opened_at=now, reminders=0)
                number = connection.scalar(made.returning(message.c.id))
                _put(connection, own, number)
            for number, weight in look.weighed:
                chosen = sa.update(message).where(message.c.id == number)
                connection.execute(chosen.values(weight=weight, weighed_at=now))
            for entry in look.renewed:
                present = sa.update(message).where(message.c.id == entry.id).values(fact=entry.fact.to_json())
                connection.execute(present)
            if look.reminded:
                asked = sa.update(message).where(message.c.id.in_(look.reminded))
                connection.execute(asked.values(reminders=message.c.reminders + 1))
            _put(connection, _worth_sending(connection, look.sendings, over), None)
        return look

    def put(self, sendings: Sequence[Sending]) -> None:
        """Put down what is sent beside any message."""
        with self._engine.begin() as connection:
            _put(connection, sendings, None)

    def send(
        self,
        post: Callable[[Sending], str | None],
        now: datetime,
        as_it_reads: Callable[[Sending, Message], Sending] = lambda entry, about: entry,
    ) -> list[Sending]:
        """Post what waits, the oldest first. `post` returns why it could not, None where it could; `as_it_reads` is the
        text of a message that stands, as it is now. What was tried."""
        tried: list[Sending] = []
        failures: dict[str, int] = {}
        of_what_is_over = (
            sa.select(message.c.id).where(message.c.id == sending.c.message, message.c.ended_at.is_not(None)).exists()
        )
        while len(tried) < MOST:
            with self._engine.begin() as connection:
                waiting = (
                    sa.select(sending)
                    .where(sending.c.sent_at.is_(None), sending.c.created_at > now - PATIENCE)
                    .where(sending.c.occasion.not_in(BEGINNINGS) | ~of_what_is_over)
                    .where(sa.or_(sending.c.occasion != "digest", sending.c.created_at > now - A_DIGEST))
                    .where(sending.c.id.not_in([entry.id for entry in tried]))
                    .where(sending.c.to.not_in([to for to, failed in failures.items() if failed >= AWAY]))
                    .order_by(sending.c.id)
                    .limit(1)
                    .with_for_update(skip_locked=True)
                )
                row = connection.execute(waiting).mappings().first()
                if row is None:
                    return tried
                entry = Sending.from_json(dict(row))
                one = sa.select(message).where(message.c.id == entry.message, message.c.ended_at.is_(None))
                about, _ = _readable(connection.execute(one).mappings())
                if about:
                    entry = as_it_reads(entry, about[0])
                error = post(entry)
                values: dict[str, Any] = {"attempts": sending.c.attempts + 1, "error": error}
                values |= {"title": storable(entry.title), "body": storable(entry.body)}
                values["sent_at"] = None if error else clock.now()
                own = sa.update(sending).where(sending.c.id == row["id"])
                after = connection.execute(own.values(**values).returning(sending)).mappings().one()
                tried.append(Sending.from_json(dict(after)))
                failures[row["to"]] = failures.get(row["to"], 0) + 1 if error else 0
        return tried

    def standing(self) -> list[Message]:
        """The messages that are not over, the oldest first."""
        return self._messages(message.c.ended_at.is_(None))

    def since(self, instant: datetime) -> list[Message]:
        """The messages that were opened or ended since an instant, or stand, the oldest first."""
        return self._messages(
            sa.or_(message.c.ended_at.is_(None), message.c.opened_at >= instant, message.c.ended_at >= instant)
        )

    def unsent(self, since: datetime) -> list[Sending]:
        """What was put down since an instant and nobody has taken yet though it was tried, the oldest first."""
        tried = sa.select(sending).where(sending.c.sent_at.is_(None), sending.c.attempts > 0)
        query = tried.where(sending.c.created_at >= since).order_by(sending.c.id)
        with reading.connection(self._engine) as connection:
            return [Sending.from_json(dict(row)) for row in connection.execute(query).mappings()]

    def sendings(self, numbers: Collection[int]) -> list[Sending]:
        """The sendings of messages, the oldest first."""
        query = sa.select(sending).where(sending.c.message.in_(sorted(numbers))).order_by(sending.c.id)
        with reading.connection(self._engine) as connection:
            return [Sending.from_json(dict(row)) for row in connection.execute(query).mappings()]

    def digests(self, since: datetime) -> list[Sending]:
        """The digests that were put down since an instant, the oldest first."""
        own = sa.select(sending).where(sending.c.occasion == "digest", sending.c.created_at >= since)
        with reading.connection(self._engine) as connection:
            return [Sending.from_json(dict(row)) for row in connection.execute(own.order_by(sending.c.id)).mappings()]

    def judge(self, number: int, needed: bool, by: str) -> Message:
        """Say whether a page was needed. Raises BadInput where there is no page of that number."""
        own = sa.update(message).where(message.c.id == number, message.c.weight == "page")
        with self._engine.begin() as connection:
            said = own.values(needed=needed, judged_by=by).returning(message)
            row = connection.execute(said).mappings().first()
        if row is None:
            raise BadInput(f"There is no page {number}; tiltyard alerts list names them.")
        return Message.from_json(dict(row))

    def precision(self, since: datetime) -> PagePrecision:
        """How many of the pages since an instant were needed."""
        counts = sa.select(
            sa.func.count(),
            sa.func.count(message.c.needed),
            sa.func.count().filter(message.c.needed.is_(True)),
        ).where(message.c.weight == "page", message.c.weighed_at >= since)
        with reading.connection(self._engine) as connection:
            pages, judged, needed = connection.execute(counts).one()
        return PagePrecision(pages=pages, judged=judged, needed=needed)

    def _messages(self, which: sa.ColumnElement[bool]) -> list[Message]:
        query = sa.select(message).where(which).order_by(message.c.id)
        with reading.connection(self._engine) as connection:
            return _readable(connection.execute(query).mappings())[0]


def _readable(rows: Iterable[Mapping[Any, Any]]) -> tuple[list[Message], list[int]]:
    """The messages of rows, and the numbers of those that cannot be read, as another version may have written them:
    what such a one was about is told anew, and nothing else waits for it."""
    found, unreadable = [], []
    for row in rows:
        try:
            found.append(Message.from_json(dict(row)))
        except (ValueError, TypeError):
            log.exception("Message %s cannot be read.", row["id"])
            unreadable.append(int(row["id"]))
    return found, unreadable


def _worth_sending(connection: sa.Connection, sendings: Sequence[Sending], over: Collection[int]) -> list[Sending]:
    """What of these is sent. What is over before it was sent to somebody is never sent to them, nor its end, whom
    nothing has been sent yet is reminded of nothing, and a digest takes the place of the one that was not sent."""
    unsent = sending.c.sent_at.is_(None)
    begun = sa.select(sending.c.id).where(sending.c.occasion.in_(BEGINNINGS), unsent, sending.c.message.in_(over))
    left: list[int] = [*connection.scalars(begun.with_for_update(skip_locked=True))]  # what is being sent now was begun
    connection.execute(sa.delete(sending).where(sending.c.id.in_(left)))
    for entry in sendings:
        if entry.occasion == "digest":
            same = (sending.c.occasion == "digest", sending.c.owner == entry.owner, sending.c.to == entry.to)
            connection.execute(sa.delete(sending).where(*same, unsent))
    numbers = {entry.message for entry in sendings}
    own = sa.select(sending.c.message, sending.c.to, sending.c.sent_at).where(
        sending.c.message.in_(numbers), sending.c.occasion.in_(BEGINNINGS)
    )
    rows = connection.execute(own).all()
    waiting = {(row.message, row.to) for row in rows if row.sent_at is None and row.message not in over}
    begun_to = {(row.message, row.to) for row in rows}
    return [
        entry for entry in sendings
        if not (entry.occasion == "ended" and (entry.message, entry.to) not in begun_to)
        and not (entry.occasion == "reminder" and (entry.message, entry.to) in waiting)
    ]  # fmt: skip


def _put(connection: sa.Connection, sendings: Sequence[Sending], number: int | None) -> None:
    for entry in sendings:
        values = {"occasion": entry.occasion, "owner": entry.owner, "to": entry.to, "created_at": entry.created_at}
        text = {"title": storable(entry.title), "body": storable(entry.body), "attempts": 0}
        connection.execute(sa.insert(sending).values(message=entry.message or number, **values, **text))


def _standing(connection: sa.Connection, now: datetime) -> tuple[Standing, list[int]]:
    """What a look starts from, and the numbers of messages that cannot be read."""
    open_ones = sa.select(message).where(message.c.ended_at.is_(None)).order_by(message.c.id)
    lately = message.c.weighed_at > now - timedelta(days=7)
    paged = sa.select(message.c.owner, sa.func.count()).where(message.c.weight == "page", lately)
    digests = sa.select(sending.c.owner, sa.func.max(sending.c.created_at)).where(
        sending.c.occasion == "digest",
        sending.c.created_at <= now,  # of a clock that was ahead: it keeps no later one back
    )
    messages, unreadable = _readable(connection.execute(open_ones).mappings())
    standing = Standing(
        messages=tuple(messages),
        paged={str(row[0]): int(row[1]) for row in connection.execute(paged.group_by(message.c.owner))},
        digests={str(row[0]): row[1] for row in connection.execute(digests.group_by(sending.c.owner))},
    )
    return standing, unreadable
