"""The shared store: Redis, one hash per table. Without it, a process serves the rows that it saw last."""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tiltyard.errors import Unavailable
from tiltyard.online.store import (
    BATCH,
    PAUSE_S,
    FeatureRow,
    Place,
    R,
    batches,
    best,
    key_bytes,
    pack,
    pack_note,
    readable,
    unpack,
    unpack_note,
    wins,
)
from tiltyard.records import Record

READ_S = 0.02
"""How long Redis may take on the way of a request, all turns together, in seconds."""
WRITE_S = 10.0
"""How long Redis may take for a write, in seconds."""
FIRST_PAUSE_S = 0.05
"""How long Redis is left alone after one failure, which may be no more than a busy moment; it doubles up to PAUSE_S."""
SEEN_ROWS = 50_000
"""Rows last seen of Redis that a process remembers for when Redis is away."""

CLOSE_S = 1.0
"""How long `close` waits for another thread's loop, in seconds."""

_closing: set[asyncio.Task[None]] = set()
"""Clients that are being closed on the loop that closes them: a loop itself keeps no task alive."""
_NOTES = "online"
"""The hash that holds the notes."""
_SWAP = """
local lost = {}
for place = 1, #ARGV, 3 do
    local current = redis.call('HGET', KEYS[1], ARGV[place])
    if (current or '') == ARGV[place + 1] then
        redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 2])
    else
        lost[#lost + 1] = ARGV[place]
    end
end
return lost
"""
"""Compare and swap: which rows win is decided in one place, in Python, whatever the store."""

_BUDGET = "budget"
"""Beginning of the names of the hashes that hold the rows of a day: name of a key → rows."""
_SPEND = """
local used = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if used + tonumber(ARGV[2]) > tonumber(ARGV[3]) then
    return used
end
redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], 172800)
return -1
"""
"""Count rows where the budget has room for them: in one step, so that no two hosts spend the same rows."""

_OPTIONS = frozenset(
    {
        "client_name", "db", "health_check_interval", "lib_name", "lib_version", "max_connections", "password",
        "protocol", "retry_on_timeout", "socket_connect_timeout", "socket_keepalive", "socket_timeout",
        "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname",
        "ssl_ciphers", "ssl_keyfile", "ssl_password", "username",
    }
)  # fmt: skip
"""Of redis-py's options those that a text can give, and that do not change in what form it answers."""
_NEITHER = (ArithmeticError, AttributeError, TypeError, ValueError)
"""What redis-py raises for an address that it cannot use, by and by: it looks at a part of it when it needs it. A name
of a host that no DNS can have is a UnicodeError, which is a ValueError."""


def is_address(url: str) -> bool:
    """Whether this is the address of a Redis, whole: host, database and options. Connects to nothing."""
    import redis
    import redis.asyncio

    try:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix") or not url.startswith(f"{parts.scheme}://"):
            return False
        # part of a password stands in the port's place when it holds a / ? or #
        if parts.port == 0 or parts.fragment or not parts.query.isprintable():
            return False
        if parts.scheme == "unix":
            place = unquote(parts.path)
        else:
            place = unquote(parts.hostname or "").encode("idna").decode()
            if " " in place or not re.fullmatch(r"(/[0-9]*)?", parts.path):
                return False
        if not place.isprintable() or not _OPTIONS.issuperset(parse_qs(parts.query, keep_blank_values=True)):
            return False
        for library in (redis, redis.asyncio):  # which differ in what they look at
            library.Redis.from_url(url).connection_pool.make_connection()
    except (redis.RedisError, *_NEITHER):
        return False
    return True


class RedisStore:
    """Redis, one hash per table. When it is away, a process serves the rows that it saw last, however often asked.

    The library is imported at the first use (0.1 s): a service with the embedded store never needs it.
    """

    is_local = False

    def __init__(self, url: str) -> None:
        self.read_s = READ_S
        self._url = url
        self._reader: Any = None
        self._writer: Any = None
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        """Event loop → its client. By the loop itself: the number of one that is gone (`id`) may be another's."""
        self._seen: OrderedDict[Place, FeatureRow] = OrderedDict()
        self._away_until = 0.0
        self._failures = 0

    # -- reading --------------------------------------------------------------------------------------------

    def get(self, places: Sequence[Place]) -> list[FeatureRow | None]:
        import redis

        if time.monotonic() < self._away_until:
            return self._from_memory(places)
        try:
            if self._reader is None:
                self._reader = self._client(redis, redis.retry, self.read_s)
            contents = _questions(self._reader, places).execute()
        except (redis.RedisError, OSError, *_NEITHER):
            return self._failed(places)
        return self._answered(places, contents)

    async def aget(self, places: Sequence[Place], until: float) -> list[FeatureRow | None]:
        if time.monotonic() < self._away_until:
            return self._from_memory(places)
        # shielded: who asked may be gone before the answer, which is remembered for the next one all the same
        return await asyncio.shield(asyncio.ensure_future(self._ask(places, until)))

    async def _ask(self, places: Sequence[Place], until: float) -> list[FeatureRow | None]:
        import redis

        try:
            client = self._client_here()
            async with asyncio.timeout_at(until):  # redis-py counts every read anew
                contents = await _questions(client, places).execute()
        except (
            redis.RedisError,
            OSError,
            *_NEITHER,
        ):  # OSError: also a timeout, after which redis-py drops the connection
            return self._failed(places)
        return self._answered(places, contents)

    def _client_here(self) -> Any:
        """The client of the running loop."""
        import redis.asyncio

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # a loop that was closed takes no client any more, and its own would keep its connections
            self._clients = {loop: client for loop, client in self._clients.items() if not loop.is_closed()}
            client = self._clients[loop] = self._client(redis.asyncio, redis.asyncio.retry, self.read_s)
        return client

    async def spend(self, name: str, day: int, rows: int, budget: int) -> int | None:
        """Count `rows` of a name on a day (days since 1970, UTC), over all that have this Redis; None when they passed,
        else how many had been counted, with nothing added. Raises Unavailable when Redis does not answer in time."""
        import redis

        if time.monotonic() < self._away_until:
            raise Unavailable("Redis does not answer.")
        try:
            async with asyncio.timeout(self.read_s):
                used = await self._client_here().eval(_SPEND, 1, f"{_BUDGET}/{day}", name, rows, budget)
        except (redis.RedisError, OSError, *_NEITHER) as error:
            self._failed([])  # it is left alone for a moment, for whatever it is asked
            raise Unavailable(f"Redis does not answer ({type(error).__name__}).") from None
        return None if used < 0 else int(used)

    def _answered(self, places: Sequence[Place], contents: Sequence[bytes | None]) -> list[FeatureRow | None]:
        self._failures = 0
        rows = [None if content is None else unpack(content) for content in contents]
        for place, row in zip(places, rows, strict=True):
            if row is None:
                self._seen.pop(place, None)
            else:
                self._seen[place] = row
                self._seen.move_to_end(place)
        while len(self._seen) > SEEN_ROWS:
            self._seen.popitem(last=False)
        return rows

    def _failed(self, places: Sequence[Place]) -> list[FeatureRow | None]:
        self._away_until = time.monotonic() + min(FIRST_PAUSE_S * 2**self._failures, PAUSE_S)
        self._failures = min(self._failures + 1, 16)
        return self._from_memory(places)

    def _from_memory(self, places: Sequence[Place]) -> list[FeatureRow | None]:
        rows: list[FeatureRow | None] = [self._seen.get(place) for place in places]
        if None in rows:
            raise Unavailable("The online store does not answer, and not all of this was looked up here before.")
        return rows

    # -- writing --------------------------------------------------------------------------------------------

    def put(self, table: str, rows: Iterable[tuple[str, FeatureRow]], *, settled: bool = False) -> int:
        return sum(self._put(table, best(batch, settled), settled) for batch in batches(rows))

    def _put(self, table: str, waiting: dict[str, FeatureRow], settled: bool) -> int:
        name, written = _hash(table), 0
        while waiting:
            keys = list(waiting)
            contents = self._do("hmget", name, [key_bytes(key) for key in keys])
            winners = {
                key_bytes(key): (key, content or b"", pack(waiting[key]))
                for key, content in zip(keys, contents, strict=True)
                if wins(waiting[key], readable(content), settled=settled)
            }
            arguments = [part for field, (_, old, new) in winners.items() for part in (field, old, new)]
            lost = self._do("eval", _SWAP, 1, name, *arguments) if arguments else []
            written += len(winners) - len(lost)
            waiting = {winners[field][0]: waiting[winners[field][0]] for field in lost}  # somebody else wrote meanwhile
        return written

    def prune(self, table: str, before: float) -> int:
        name, count, cursor = _hash(table), 0, 0
        while True:
            cursor, page = self._do("hscan", name, cursor, count=BATCH)
            rows = {field: readable(content) for field, content in page.items()}
            old = [field for field, row in rows.items() if row is None or row.event_time < before]
            count += self._do("hdel", name, *old) if old else 0
            if cursor == 0:
                return count

    def forget(self, table: str, keys: Sequence[str]) -> int:
        for key in keys:
            self._seen.pop((table, key), None)
        return int(self._do("hdel", _hash(table), *map(key_bytes, keys))) if keys else 0

    def forget_seen(self) -> None:
        self._seen.clear()

    def write_note(self, name: str, note: Record) -> None:
        self._do("hset", _NOTES, name, pack_note(note))

    def read_note(self, name: str, kind: type[R]) -> R | None:
        return unpack_note(self._do("hget", _NOTES, name), kind)

    def filling(self) -> AbstractContextManager[None]:
        """Nothing to look over: what Redis has cannot kill who reads it."""
        return nullcontext()

    def clear(self) -> None:
        cursor = 0
        while True:
            cursor, names = self._do("scan", cursor, match=_hash("*"), count=BATCH)
            self._do("unlink", _NOTES, *names)
            if cursor == 0:
                break
        self._seen.clear()

    # -- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        sync_clients, self._reader, self._writer = (self._reader, self._writer), None, None
        for client in sync_clients:
            if client is not None:
                client.close()
        async_clients, self._clients = self._clients, {}
        for loop, client in async_clients.items():
            _close_on(loop, client)

    async def aclose(self) -> None:
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await _aclose(client)
        self.close()

    def _do(self, command: str, *arguments: Any, **options: Any) -> Any:
        """What a command of redis-py gives. Raises Unavailable."""
        import redis

        try:
            if self._writer is None:
                self._writer = self._client(redis, redis.retry, WRITE_S)
            return getattr(self._writer, command)(*arguments, **options)
        except redis.exceptions.OutOfMemoryError:
            raise Unavailable(
                "The Redis of the online store is full; raise its maxmemory, or give its models a "
                "prediction.max_feature_age, and run tiltyard online."
            ) from None
        except (redis.RedisError, OSError, *_NEITHER) as error:
            raise Unavailable(f"The online store does not answer ({error}); start Redis and run it again.") from None

    def _client(self, library: Any, retry: Any, timeout_s: float) -> Any:
        """A pooled connection that went stale is replaced at once; a slow answer is not waited for twice."""
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as Gone

        again = retry.Retry(NoBackoff(), 1, supported_errors=(Gone,))
        timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        return library.Redis.from_url(self._url, protocol=2, retry=again, **timeouts)


def _hash(table: str) -> str:
    """The hash that holds a table's rows."""
    return f"{_NOTES}/{table}"


def _questions(client: Any, places: Sequence[Place]) -> Any:
    """A pipeline of redis-py that asks for all places in one turn."""
    pipeline = client.pipeline(transaction=False)
    for table, key in places:
        pipeline.hget(_hash(table), key_bytes(key))
    return pipeline


async def _aclose(client: Any) -> None:
    import redis

    with suppress(redis.RedisError, OSError):  # a server that is gone has closed it already
        await client.aclose()


def _close_on(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    """Close a loop's client from outside of it: its connections can only be closed on that loop."""
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if loop.is_closed():
        return  # its connections go with the client
    if loop is here:
        task = loop.create_task(_aclose(client))
        _closing.add(task)
        task.add_done_callback(_closing.discard)
    elif loop.is_running():
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_aclose(client), loop).result(CLOSE_S)
    elif here is None:
        loop.run_until_complete(_aclose(client))
