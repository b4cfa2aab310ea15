"""Who may hold a connection, for how long, and how much may come over it before anybody has asked who it is.

uvicorn parses and answers; what it has no limit for is put around its parser here (decision 47): how long a head, a
body or a rest may take, how many bytes each may have, and how many connections there may be, in all and from one
address. Below the process's limit of open files some are kept back, so that the log and the models' files are never
without one.

A newcomer for whom there is no room takes the place of a connection that waits for its caller: one that was never
answered before one that was, the one that has waited longest first; at the limit in all from the address that holds
the most, so that nobody's idle connections shut out somebody else's request. A connection whose answer is being made
keeps its place. Where all of them are, the newcomer is told to come again.
"""

import asyncio
import ipaddress
import json
import resource
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tiltyard.errors import BadInput
from tiltyard.settings import Settings

KEPT_BACK = 128
"""Open files that connections never take: for the request log, models, stores, pipes to child processes."""
LEAST = 16
"""Connections without which a service is none."""
LOOK_S = 0.5
"""Seconds between two looks at who is over his time."""
FRAMING = 65_536
"""Bytes that a body may have beside what it says: sizes of chunks, and fields after the last of them."""

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a connection may take."""

    head_s: float
    """Seconds for a request's head, from the connection or from its first byte on."""
    body_s: float
    """Seconds for a request's body, and for taking an answer."""
    rest_s: float
    """Seconds that a connection may rest between two requests."""
    head_bytes: int
    """Bytes of a request's head: its line and its fields."""
    body_bytes: int
    """Bytes of a request's body; twice as many may come over the wire for it."""
    most: int
    """Connections of this process."""
    most_of_one: int
    """Of these, from one address."""


def terms(settings: Settings) -> Terms:
    """By the settings and the process's limit of open files. Raises BadInput where that limit leaves no room."""
    with suppress(ValueError, OSError):  # a system that does not let it be raised has it lower, and that is seen below
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = settings.serve_connections if files == resource.RLIM_INFINITY else files - KEPT_BACK
    if room < LEAST:
        raise BadInput(
            f"This process may open {files} files, and {KEPT_BACK} are kept for log and models; raise the limit "
            f"(ulimit -n) to {KEPT_BACK + LEAST} at least."
        )
    most = min(settings.serve_connections, room)
    return Terms(
        head_s=settings.serve_head_s,
        body_s=settings.serve_body_s,
        rest_s=settings.serve_rest_s,
        head_bytes=settings.serve_max_head_bytes,
        body_bytes=settings.serve_max_bytes,
        most=most,
        most_of_one=min(settings.serve_connections_of_one or max(1, most // 2), most),
    )


def neighbourhood(host: str) -> str:
    """The address by which callers are told apart: of IPv6 its first 64 bits: who has one has all of these."""
    if ":" not in host:
        return host
    with suppress(ValueError):
        address = ipaddress.IPv6Address(host.partition("%")[0])
        return str(address.ipv4_mapped or ipaddress.IPv6Address(int(address) >> 64 << 64))
    return host


@dataclass(slots=True)
class Guests:
    """The connections from one address."""

    count: int = 0
    strangers: dict["Connection", None] = field(default_factory=dict)
    """Those that wait for their caller and were never answered, the longest first."""
    known: dict["Connection", None] = field(default_factory=dict)
    """Those that wait for their caller and were answered before, the longest first."""

    def longest(self) -> "Connection | None":
        """The one to give its place to a newcomer; None when all are being answered."""
        return next(iter(self.strangers), None) or next(iter(self.known), None)


class Door:
    """The connections of one serving process. For its event loop only."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.turned_away = 0
        """Newcomers for whom there was no room."""
        self.sent_away = 0
        """Connections that were over their time, or gave their place to a newcomer."""
        self.inside: set[Connection] = set()
        """Those that were let in."""
        self._guests: dict[str, Guests] = {}
        self._look: asyncio.TimerHandle | None = None

    def enter(self, newcomer: "Connection") -> bool:
        """Let it in, in the place of another where it must be. False: there is no room."""
        guests = self._guests.get(newcomer.address)
        if guests is not None and guests.count >= self.terms.most_of_one:
            crowded = [guests]
        elif len(self.inside) >= self.terms.most:
            crowded = sorted(self._guests.values(), key=lambda of_one: -of_one.count)
        else:
            crowded = []
        if crowded and not any(self._send_away(of_one) for of_one in crowded):
            self.turned_away += 1
            return False
        guests = self._guests.setdefault(newcomer.address, Guests())
        guests.count += 1
        guests.strangers[newcomer] = None
        self.inside.add(newcomer)
        if self._look is None:
            self._look = newcomer.loop.call_later(LOOK_S, self._look_around, newcomer.loop)
        return True

    def leave(self, connection: "Connection") -> None:
        """It is gone, or about to be. Twice is once."""
        if connection not in self.inside:
            return
        self.answering(connection)
        self.inside.discard(connection)
        guests = self._guests[connection.address]
        guests.count -= 1
        if not guests.count:
            del self._guests[connection.address]

    def answering(self, connection: "Connection") -> None:
        """Its request is whole: from now on it is the service that is waited for."""
        if connection in self.inside:
            guests = self._guests[connection.address]
            guests.strangers.pop(connection, None)
            guests.known.pop(connection, None)

    def answered(self, connection: "Connection") -> None:
        """From now on it waits for its caller."""
        if connection in self.inside:
            self._guests[connection.address].known[connection] = None

    def _send_away(self, guests: Guests) -> bool:
        connection = guests.longest()
        if connection is None:
            return False
        self.leave(connection)
        self.sent_away += 1
        connection.transport.abort()  # not closed: its place is needed now
        return True

    def _look_around(self, loop: asyncio.AbstractEventLoop) -> None:
        now, self._look = loop.time(), None
        for connection in [one for one in self.inside if one.until < now]:
            self.sent_away += 1
            connection.over_time()
        if self.inside:
            self._look = loop.call_later(LOOK_S, self._look_around, loop)


@cache
def here() -> Door:
    """The door of this process, by its settings; made with its first connection."""
    return Door(terms(Settings()))


class Connection(HttpToolsProtocol):
    """uvicorn's connection, within the terms of the door."""

    address = ""
    """Where it comes from, as `neighbourhood` tells callers apart."""
    until = _NEVER
    """When its caller is over his time, by the loop's clock; never, while it is answered."""
    _door: Door
    _terms: Terms
    _came = 0
    """Bytes of the request that came so far."""
    _may_come = 0
    """Bytes of the request that may come as far as it is known."""
    _is_whole = False
    """Whether the whole request has come."""
    _is_over = False
    """Whether nothing that comes is read any more."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._door = here()
        self._terms = self._door.terms
        self._may_come = self._terms.head_bytes
        self.address = neighbourhood(self.client[0]) if self.client else ""
        self.until = self.loop.time() + self._terms.head_s
        if not self._door.enter(self):
            self._end(503, "There are too many connections; come again.", "Retry-After: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._came += len(data)
        super().data_received(data)
        if self._came > self._may_come and not self._is_over:
            self._too_much()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_whole = False
        if self.cycle is not None and self.cycle.response_complete:
            self.until = self.loop.time() + self._terms.head_s

    def on_headers_complete(self) -> None:
        if self._is_over:
            return
        if self._came > self._terms.head_bytes:  # with what else came in the same read
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._terms.head_bytes:
                self._too_much()
                return
        if self.parser.should_upgrade() and any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0"))
            for name, value in self.headers
        ):  # the parser would end the request with its head, and take the body for the next one
            self._end(400, "This service speaks HTTP/1.1 alone; send a body without the field Upgrade.")
            return
        is_first = self.cycle is None or self.cycle.response_complete
        super().on_headers_complete()
        self._may_come = self._came + 2 * self._terms.body_bytes + FRAMING
        if is_first:
            self.until = self.loop.time() + self._terms.body_s

    def on_body(self, body: bytes) -> None:
        if not self._is_over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_over:
            return
        super().on_message_complete()
        self._is_whole, self._came, self._may_come = True, 0, self._terms.head_bytes
        if self.cycle.response_complete:
            self.until = self.loop.time() + self._terms.rest_s
        else:
            self.until = _NEVER
            self._door.answering(self)

    def _unsupported_upgrade_warning(self) -> None:
        """Who offers another protocol, and no body, is answered in this one: that is worth no line of the log."""

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if (
            self._is_whole and self.cycle.response_complete
        ):  # otherwise the next one is under way, or this one comes yet
            self.until = self.loop.time() + self._terms.rest_s
            self._door.answered(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.until = self.loop.time() + self._terms.body_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self.until = self.loop.time() + self._terms.rest_s

    def over_time(self) -> None:
        """End it: its caller is over his time."""
        if self._is_over or self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()  # who does not take what he was sent takes no farewell either
        elif self._came:
            self._end(408, "The request did not come in time; send it at once.")
        else:
            self._end(0, "")

    def _too_much(self) -> None:
        """End it: more has come than a request may have."""
        if self._may_come == self._terms.head_bytes:
            self._end(
                431, f"The request's line and fields are larger than {self._terms.head_bytes:,} bytes; send less."
            )
        else:
            self._end(413, f"The body is larger than {self._terms.body_bytes:,} bytes; send fewer rows at once.")

    def _end(self, status: int, sentence: str, fields: str = "") -> None:
        """Close it, with an answer where one can be given: status 0 is none."""
        self._is_over = True
        self.until = self.loop.time() + LOOK_S
        if status and (self.cycle is None or self.cycle.response_complete or not self.cycle.response_started):
            body = json.dumps({"error": sentence})
            self.transport.write(
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n{fields}connection: close\r\n\r\n{body}".encode()
            )
        self.transport.close()
