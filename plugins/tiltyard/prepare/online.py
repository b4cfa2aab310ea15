"""Online features: the newest row of every feature view and spine, by key, where a request finds it in microseconds.

Embedded in LMDB by default (`home/online`, read by many processes while one writes), in Redis by `online_url`. What
the lake knows is brought in by the features stage (`materialise`), what a stream says by `streams`; both may say it
twice and in any order, because a row only ever gives way to one that wins by the point-in-time rule: the later
`event_time`, then the later `available_at`, then the greater values.

A lookup serves what was known at its instant and is not older than `prediction.max_feature_age`, and says of every
view which row it used. Every night `check` holds what was served against the lake's own point-in-time join.

Imported by the service: at import, and on the way of a request, no pandas, no DuckDB, no SQLAlchemy.
"""

import asyncio
import hashlib
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import lmdb
import orjson

from tiltyard.errors import BadInput, Unavailable
from tiltyard.settings import Settings
from tiltyard.spec import Spec, feature_key

if TYPE_CHECKING:
    from tiltyard.rails import Rails

if TYPE_CHECKING:
    pass

T = TypeVar("T")
Value = float | bool | str | None
"""As an encoding reads it: a number, a yes or no, a category, or missing."""
Wanted = Sequence[tuple[str, str]]
"""(table, key) each."""

BATCH = 10_000
"""Rows per write."""
MAP_BYTES = 64 * 2**30
"""How far the embedded store may grow: address space, not disk."""
KEY_BYTES = 400
"""A longer key is known by its digest; LMDB's keys end at 511 bytes."""
READ_S = 0.02
"""How long Redis may take on the way of a request, all turns together."""
WRITE_S = 10.0
PAUSE_S = 1.0
"""A store that fails again and again is left alone for so long, and no request waits for it."""
FIRST_PAUSE_S = 0.05
"""After one failure, which may be no more than a busy moment; it doubles."""
KEPT = 50_000
"""Rows last seen of Redis that a process keeps for when Redis is away."""


class Held(NamedTuple):
    """One row of a view or spine: values by column, and its two times in epoch seconds, UTC."""

    values: Mapping[str, Value]
    event_time: float
    available_at: float


class Store(Protocol):
    """Rows by table and key, and small notes by name."""

    is_local: bool
    """Is a `get` a matter of microseconds, so that it may be called on an event loop?"""

    def get(self, wanted: Wanted) -> list[Held | None]:
        """The row of each, None where there is none. Raises Unavailable when the store does not answer."""

    async def aget(self, wanted: Wanted, until: float) -> list[Held | None]:
        """`get` on an event loop, whose clock says how long the store may take."""

    def put(self, table: str, rows: Iterable[tuple[str, Held]], *, settled: bool = False) -> int:
        """Write the rows that win against what is held; how many did. Durable on return; twice is once.

        `settled`: of two rows with the same times the new one counts, whatever its values: the lake has decided.
        """

    def prune(self, table: str, before: float) -> int:
        """Forget the rows whose event_time lies before; how many there were."""

    def note(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep a small JSON document beside the rows, durable on return: it shares their fate."""

    def noted(self, name: str) -> dict[str, Any] | None: ...

    def close(self) -> None: ...


def connect(settings: Settings) -> Store:
    """The store of these settings. It is opened at the first use: nothing here waits for a server or fails with it."""
    url = settings.online_url.get_secret_value() if settings.online_url else None
    if url is None:
        return Embedded(settings.home / "online")
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise BadInput("TILTYARD_ONLINE_URL is no address of a Redis; write it like redis://host:6379/0.")
    return Remote(url)


# -- the rule -----------------------------------------------------------------------------------------------


def wins(new: Held, old: Held | None, *, settled: bool = False) -> bool:
    """Does `new` take the place of `old`? By the point-in-time rule (docs/glossary.md); a repetition does not."""
    if old is None:
        return True
    times, before = (new.event_time, new.available_at), (old.event_time, old.available_at)
    if times != before:
        return times > before
    if settled:
        return dict(new.values) != dict(old.values)
    return _rank(new.values) > _rank(old.values)


def _rank(values: Mapping[str, Value]) -> list[tuple[Any, ...]]:
    """For an order among rows of one view: column by column, NULL the least."""
    return [(value is not None, 0 if value is None else value) for value in values.values()]


def _best(rows: Iterable[tuple[str, Held]], settled: bool) -> dict[str, Held]:
    """Of several rows for one key the one that wins."""
    best: dict[str, Held] = {}
    for key, row in rows:
        if wins(row, best.get(key), settled=settled):
            best[key] = row
    return best


def _pack(row: Held) -> bytes:
    return orjson.dumps(tuple(row))


def _unpack(content: Any) -> Held:
    return Held._make(orjson.loads(content))


def _key(key: str) -> bytes:
    content = key.encode("utf-8", "surrogatepass")
    return content if len(content) <= KEY_BYTES else b"\0" + hashlib.sha256(content).digest()


def _place(table: str, key: str) -> bytes:
    return b"%b\0%b" % (table.encode(), _key(key))


def _batches(rows: Iterable[T]) -> Iterator[list[T]]:
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        yield batch


# -- LMDB ---------------------------------------------------------------------------------------------------

_environments: dict[tuple[int, Path], Any] = {}
_opening = threading.Lock()
"""(pid, folder) → what LMDB opens once per process; whoever asks again shares it, a forked child does not."""


class Embedded:
    """LMDB in one folder. A read sees one moment of it, whoever writes meanwhile; a write is whole or not there."""

    is_local = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment: Any = None
        self._retry_at = 0.0

    def get(self, wanted: Wanted) -> list[Held | None]:
        environment = self._environment or self._open()
        try:
            with environment.begin() as reading:
                found = [reading.get(_place(table, key)) for table, key in wanted]
            return [None if content is None else _unpack(content) for content in found]
        except lmdb.Error as error:
            raise Unavailable(self._said(error)) from None

    async def aget(self, wanted: Wanted, until: float) -> list[Held | None]:
        return self.get(wanted)

    def put(self, table: str, rows: Iterable[tuple[str, Held]], *, settled: bool = False) -> int:
        written = 0
        for batch in _batches(rows):
            written += self._writing(partial(_put, table=table, rows=batch, settled=settled))
        return written

    def prune(self, table: str, before: float) -> int:
        return self._writing(partial(_prune, table=table, before=before))

    def note(self, name: str, content: Mapping[str, Any]) -> None:
        self._writing(lambda txn: txn.put(b"\0%b" % name.encode(), orjson.dumps(dict(content))))

    def noted(self, name: str) -> dict[str, Any] | None:
        with (self._environment or self._open()).begin() as reading:
            content = reading.get(b"\0%b" % name.encode())
        return None if content is None else dict(orjson.loads(content))

    def close(self) -> None:
        """Nothing to do: the environment belongs to the process, and every write is on the disk already."""

    def _writing(self, work: Callable[[Any], T]) -> T:
        try:
            with (self._environment or self._open()).begin(write=True) as txn:
                return work(txn)
        except lmdb.MapFullError:
            raise Unavailable(
                f"The online store in {self.folder} has grown to its limit of {MAP_BYTES >> 30} GiB; "
                "give its models a prediction.max_feature_age, or set TILTYARD_ONLINE_URL to a Redis."
            ) from None
        except lmdb.Error as error:
            raise Unavailable(self._said(error)) from None

    def _open(self) -> Any:
        if time.monotonic() < self._retry_at:
            raise Unavailable(f"The online store in {self.folder} does not open.")
        path = self.folder.absolute()
        here = os.getpid(), path
        with _opening:
            if here not in _environments:
                try:
                    path.mkdir(parents=True, exist_ok=True)
                    environment = lmdb.open(str(path), map_size=MAP_BYTES, max_readers=1024, metasync=True)
                    environment.reader_check()  # slots of readers that were killed
                except (lmdb.Error, OSError) as error:
                    self._retry_at = time.monotonic() + PAUSE_S
                    raise Unavailable(self._said(error)) from None
                _environments[here] = environment
            self._environment = _environments[here]
        return self._environment

    def _said(self, error: Exception) -> str:
        return (
            f"The online store in {self.folder} does not answer ({error}); mend the folder, or delete it and run "
            "tiltyard online."
        )


def _put(txn: Any, table: str, rows: Iterable[tuple[str, Held]], settled: bool) -> int:
    written = 0
    for key, row in rows:
        place = _place(table, key)
        content = txn.get(place)
        if wins(row, None if content is None else _unpack(content), settled=settled):
            txn.put(place, _pack(row))
            written += 1
    return written


def _prune(txn: Any, table: str, before: float) -> int:
    prefix, gone = b"%b\0" % table.encode(), 0
    with txn.cursor() as cursor:
        there = cursor.set_range(prefix)
        while there and cursor.key().startswith(prefix):
            if _unpack(cursor.value()).event_time < before:
                there = cursor.delete()  # and stands on the next one
                gone += 1
                there = bool(cursor.key())
            else:
                there = cursor.next()
    return gone


# -- Redis --------------------------------------------------------------------------------------------------

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


class Remote:
    """Redis, one hash per table. When it is away, a process serves the rows that it saw last, however often asked."""

    is_local = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._reader: Any = None
        self._writer: Any = None
        self._loops: dict[int, Any] = {}
        self._kept: OrderedDict[tuple[str, str], Held] = OrderedDict()
        self._away_until = 0.0
        self._failures = 0

    def get(self, wanted: Wanted) -> list[Held | None]:
        import redis

        if time.monotonic() < self._away_until:
            return self._from_memory(wanted)
        try:
            if self._reader is None:
                self._reader = self._client(redis, redis.retry, READ_S)
            return self._seen(wanted, self._asked(self._reader, wanted).execute())
        except (redis.RedisError, OSError):
            return self._missed(wanted)

    async def aget(self, wanted: Wanted, until: float) -> list[Held | None]:
        if time.monotonic() < self._away_until:
            return self._from_memory(wanted)
        # shielded: who asked may be gone before the answer, which is kept for the next one all the same
        return await asyncio.shield(asyncio.ensure_future(self._ask(wanted, until)))

    async def _ask(self, wanted: Wanted, until: float) -> list[Held | None]:
        import redis
        import redis.asyncio

        loop = id(asyncio.get_running_loop())
        try:
            if loop not in self._loops:
                self._loops[loop] = self._client(redis.asyncio, redis.asyncio.retry, READ_S)
            async with asyncio.timeout_at(until):  # redis-py counts every read anew
                contents = await self._asked(self._loops[loop], wanted).execute()
        except (redis.RedisError, OSError):  # OSError: also a timeout, after which redis-py drops the connection
            return self._missed(wanted)
        return self._seen(wanted, contents)

    def put(self, table: str, rows: Iterable[tuple[str, Held]], *, settled: bool = False) -> int:
        return sum(self._put(table, _best(batch, settled), settled) for batch in _batches(rows))

    def _put(self, table: str, waiting: dict[str, Held], settled: bool) -> int:
        place, written = f"online/{table}", 0
        while waiting:
            keys = list(waiting)
            held = self._written("hmget", place, [_key(key) for key in keys])
            new = {
                _key(key): (key, content or b"", _pack(waiting[key]))
                for key, content in zip(keys, held, strict=True)
                if wins(waiting[key], None if content is None else _unpack(content), settled=settled)
            }
            arguments = [part for field, (_, old, row) in new.items() for part in (field, old, row)]
            lost = self._written("eval", _SWAP, 1, place, *arguments) if arguments else []
            waiting = {new[field][0]: waiting[new[field][0]] for field in lost}  # somebody else wrote: look again
            written += len(new) - len(lost)
        return written

    def prune(self, table: str, before: float) -> int:
        gone, cursor = 0, 0
        while True:
            cursor, page = self._written("hscan", f"online/{table}", cursor, count=BATCH)
            old = [field for field, content in page.items() if _unpack(content).event_time < before]
            gone += self._written("hdel", f"online/{table}", *old) if old else 0
            if cursor == 0:
                return gone

    def note(self, name: str, content: Mapping[str, Any]) -> None:
        self._written("hset", "online", name, orjson.dumps(dict(content)))

    def noted(self, name: str) -> dict[str, Any] | None:
        content = self._written("hget", "online", name)
        return None if content is None else dict(orjson.loads(content))

    def close(self) -> None:
        for client in (self._reader, self._writer):
            if client is not None:
                client.close()

    @staticmethod
    def _asked(client: Any, wanted: Wanted) -> Any:
        asking = client.pipeline(transaction=False)
        for table, key in wanted:
            asking.hget(f"online/{table}", _key(key))
        return asking

    def _written(self, command: str, *arguments: Any, **named: Any) -> Any:
        import redis

        if self._writer is None:
            self._writer = self._client(redis, redis.retry, WRITE_S)
        try:
            return getattr(self._writer, command)(*arguments, **named)
        except (redis.RedisError, OSError) as error:
            raise Unavailable(f"The online store does not answer ({error}); start Redis and run it again.") from None

    def _client(self, library: Any, retry: Any, timeout_s: float) -> Any:
        """A pooled connection that went stale is replaced at once; a slow answer is not waited for twice."""
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as Gone

        again = retry.Retry(NoBackoff(), 1, supported_errors=(Gone,))
        timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        return library.Redis.from_url(self._url, protocol=2, retry=again, **timeouts)

    def _seen(self, wanted: Wanted, contents: Sequence[bytes | None]) -> list[Held | None]:
        self._failures = 0
        found = [None if content is None else _unpack(content) for content in contents]
        for place, row in zip(wanted, found, strict=True):
            if row is None:
                self._kept.pop(place, None)
            else:
                self._kept[place] = row
                self._kept.move_to_end(place)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def _missed(self, wanted: Wanted) -> list[Held | None]:
        self._away_until = time.monotonic() + min(FIRST_PAUSE_S * 2**self._failures, PAUSE_S)
        self._failures = min(self._failures + 1, 16)
        return self._from_memory(wanted)

    def _from_memory(self, wanted: Wanted) -> list[Held | None]:
        found: list[Held | None] = [self._kept.get(place) for place in wanted]
        if None in found:
            raise Unavailable("The online store does not answer, and not all of this was looked up here before.")
        return found


# -- looking up ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model asks the store for. Made once per model."""

    entity: str
    """The entity's key, like ticket_id."""
    spine: str
    others: tuple[str, ...]
    """Keys beside the entity's, which the spine's row knows."""
    views: tuple[tuple[str, str], ...]
    """(view, key)."""
    max_age_s: int | None


class Looked(NamedTuple):
    """What a lookup found. `views`: per view [key, event_time, available_at] of the row that was used, or None."""

    values: dict[str, Value]
    views: dict[str, list[Any] | None]
    missing: tuple[str, ...]
    """Views without a row that was known."""
    stale: tuple[str, ...]
    """Views whose row is older than max_feature_age: refused."""
    refused: tuple[str, ...]
    """What these rows would have said: their features."""
    absent: tuple[str, ...]
    """Of the missing views of an entity that is known those with nothing under its key, or without a key: where the
    store is up to date there is nothing to know, and the lake's join gives nulls."""


def plan(spec: Spec) -> Plan:
    views = tuple((view, feature_key(view)) for view in spec.prediction.features)
    age = spec.prediction.max_feature_age
    return Plan(
        entity=spec.key,
        spine=spec.prediction.spine,
        others=tuple(dict.fromkeys(key for _, key in views if key != spec.key)),
        views=views,
        max_age_s=None if age is None else int(age.total_seconds()),
    )


def lookup(store: Store, plan: Plan, keys: Mapping[str, str], at: float) -> Looked:
    """The features known at `at` (epoch seconds) under `keys` (key column → value).

    Keys that are not given are looked up in the spine by the entity's. Raises Unavailable.
    """
    steps = _steps(plan, keys, at)
    wanted = next(steps)
    while True:
        try:
            wanted = steps.send(store.get(wanted))
        except StopIteration as done:
            found: Looked = done.value
            return found


def nulls(store: Store, plans: Iterable[Plan], now: float) -> dict[str, dict[str, None]]:
    """view → its features, all null, of every view that is up to date at `now`: what it does not hold is not there.

    Up to date is what was brought up within `max_feature_age`, of several models the shortest. Raises Unavailable.
    """
    found: dict[str, dict[str, None]] = {}
    ages: dict[str, float] = {}
    for plan in plans:
        for view, _ in plan.views:
            age = math.inf if plan.max_age_s is None else plan.max_age_s
            ages[view] = min(age, ages.get(view, math.inf))
    for view, age in ages.items():
        note = store.noted(f"table/{view}")
        if note is not None and note["as_of"] >= now - age:
            found[view] = dict.fromkeys(note["columns"])
    return found


async def alookup(store: Store, plan: Plan, keys: Mapping[str, str], at: float) -> Looked:
    """`lookup` on an event loop."""
    return (await alookup_many(store, plan, [(keys, at)]))[0]


async def alookup_many(store: Store, plan: Plan, rows: Sequence[tuple[Mapping[str, str], float]]) -> list[Looked]:
    """Many lookups, (keys, at) each, in one or two turns to the store for all of them together, READ_S at most."""
    until = asyncio.get_running_loop().time() + READ_S
    found: dict[int, Looked] = {}
    asking = {place: _steps(plan, keys, at) for place, (keys, at) in enumerate(rows)}
    wanted = {place: next(steps) for place, steps in asking.items()}
    while wanted:
        held = iter(await store.aget([one for some in wanted.values() for one in some], until))
        answers = {place: list(islice(held, len(some))) for place, some in wanted.items()}
        wanted = {}
        for place, answer in answers.items():
            try:
                wanted[place] = asking[place].send(answer)
            except StopIteration as done:
                found[place] = done.value
    return [found[place] for place in range(len(rows))]


def _steps(plan: Plan, keys: Mapping[str, str], at: float) -> Generator[Wanted, list[Held | None], Looked]:
    """Yields what to get and is sent what was there: one turn, or two where the spine has to say the other keys."""
    under = {view: keys[column] for view, column in plan.views if column in keys}
    told: Mapping[str, Value] | None = None
    if len(under) < len(plan.views) and plan.entity in keys:
        row, *held = yield [(plan.spine, keys[plan.entity]), *under.items()]
        if row is not None and row.event_time <= at and row.available_at <= at:
            told = row.values
            later = {
                view: str(told[column])
                for view, column in plan.views
                if column not in keys and told.get(column) is not None
            }
            if later:
                held += yield [*later.items()]
                under |= later
    else:
        held = yield [*under.items()]
    rows = dict(zip(under, held, strict=True))
    oldest = -math.inf if plan.max_age_s is None else at - plan.max_age_s
    values: dict[str, Value] = {}
    views: dict[str, list[Any] | None] = {}
    missing, stale, refused, absent = [], [], list[str](), list[str]()
    for view, column in plan.views:
        row = rows.get(view)
        views[view] = None
        if row is None:
            missing.append(view)
            if view in under or (told is not None and column in told and column not in keys):  # a null in the spine
                absent.append(view)
            continue
        content, happened, known = row
        if happened > at or known > at:
            missing.append(view)
        elif happened < oldest:
            stale.append(view)
            refused += content
        else:
            values.update(content)
            views[view] = [under[view], iso(happened), iso(known)]
    is_known = told is not None or len(missing) < len(plan.views)
    return Looked(values, views, tuple(missing), tuple(stale), tuple(refused), tuple(absent) if is_known else ())


@lru_cache(maxsize=65_536)
def iso(seconds: float) -> str:
    """Epoch seconds as ISO text, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


# -- from the lake ------------------------------------------------------------------------------------------

AGES = 2
"""Rows are held until they are so many max_feature_ages old: refused as stale before they are forgotten."""


@dataclass(frozen=True)
class Table:
    """What is held of one view or spine."""

    name: str
    key: str
    columns: Mapping[str, str]
    """Column → numeric, boolean or categorical, in the lake's order."""
    event_time: str
    """The column that says when a row happened: a spine's is its prediction_time."""
    max_age_s: int | None
    """The longest that a model accepts; None: one accepts any."""


def tables(rails: "Rails", specs: Sequence[Spec], snapshot: int) -> tuple[list[Table], dict[str, str]]:
    """Every feature view and spine of the models, by name; and model → why not, of those that cannot be read yet."""
    from tiltyard.prepare import frame

    found: dict[str, Table] = {}
    waiting: dict[str, str] = {}
    for spec in specs:
        asked = plan(spec)
        try:
            inputs = frame.features(rails, spec, snapshot)
        except BadInput as error:
            waiting[spec.name] = str(error)
            continue
        keys = dict.fromkeys(asked.others, "categorical")
        of_views = {view: {item.name: item.kind for item in inputs if item.view == view} for view, _ in asked.views}
        parts = [Table(view, key, dict(of_views[view]), "event_time", asked.max_age_s) for view, key in asked.views]
        if keys:
            parts.append(Table(asked.spine, asked.entity, dict(keys), "prediction_time", asked.max_age_s))
        for part in parts:
            other = found.get(part.name, part)
            ages = (part.max_age_s, other.max_age_s)
            longest = None if None in ages else max(age for age in ages if age is not None)
            found[part.name] = Table(part.name, part.key, {**other.columns, **part.columns}, part.event_time, longest)
    return [found[name] for name in sorted(found)], waiting


def materialise(rails: "Rails", as_of: datetime, *, afresh: bool = False) -> dict[str, Any]:
    """Bring the store up to what the published lake knows at `as_of`: the newest row per key of every view and spine.

    Only keys with a row that was written or became known since the last time are looked at. A night that is done
    again never takes the store back; `afresh` does: it empties the tables first. Gives {"tables", "rows", "seconds"}:
    rows are those that won, by table. Models whose views are not built yet are `waiting`, with the reason, and keep
    nobody else. Raises Unavailable when the store does not answer.
    """
    from tiltyard.spec import portfolio

    began, snapshot = time.monotonic(), rails.published_snapshot()
    store = connect(rails.settings)
    try:
        parts, waiting = tables(rails, portfolio(rails.settings), snapshot)
        rows = {part.name: bring(rails, store, part, as_of, snapshot, afresh=afresh) for part in parts}
    finally:
        store.close()
    return {
        "tables": len(parts),
        "rows": rows,
        **({"waiting": waiting} if waiting else {}),
        "seconds": round(time.monotonic() - began, 2),
    }


def bring(rails: "Rails", store: Store, table: Table, as_of: datetime, snapshot: int, *, afresh: bool = False) -> int:
    """Bring one table up to what the lake held at `snapshot` and knew at `as_of`; how many rows won."""
    name = f"table/{table.name}"
    before = None if afresh else store.noted(name)
    if afresh:
        store.prune(table.name, float("inf"))
    until, pruned, full = as_of.timestamp(), None, True
    if before is not None:
        until, pruned = max(until, before["as_of"]), before["pruned"]
        full = before["columns"] != dict(table.columns) or before["max_age_s"] != table.max_age_s
    else:
        before = {}
    written = store.put(table.name, _newest(rails, table, until, snapshot, {} if full else before), settled=True)
    if table.max_age_s is not None and (pruned is None or pruned + table.max_age_s <= until):
        store.prune(table.name, until - AGES * table.max_age_s)
        pruned = until
    store.note(
        name,
        {
            "as_of": until,
            "snapshot": max(snapshot, before.get("snapshot", 0)),
            "key": table.key,
            "columns": dict(table.columns),
            "max_age_s": table.max_age_s,
            "pruned": pruned,
        },
    )
    return written


def _newest(
    rails: "Rails", table: Table, until: float, snapshot: int, before: Mapping[str, Any]
) -> Iterator[tuple[str, Held]]:
    """(key, row) of what the lake held at `snapshot` and knew at `until`; with `before`, of what changed since."""
    import duckdb

    from tiltyard.lake import qualified, stored

    names = list(table.columns)
    casts = {"numeric": "double", "boolean": "boolean", "categorical": "varchar"}
    listed = "".join(f', cast("{name}" as {casts[table.columns[name]]}) as "{name}"' for name in names)
    order = "".join(f', "{name}" desc nulls last' for name in names)
    happened, key = f'epoch_us("{table.event_time}")', f'cast("{table.key}" as varchar)'
    parameters: dict[str, Any] = {"until": round(until * 1e6)}
    source = stored(table.name, snapshot)
    bounds = f'{happened} <= $until and epoch_us(available_at) <= $until and "{table.key}" is not null'
    if table.max_age_s is not None:
        bounds += f" and {happened} >= $until - {AGES * table.max_age_s * 1_000_000}"
    changed = ""
    if before:
        parameters["since"] = round(before["as_of"] * 1e6)
        changed = f'select "{table.key}" from {source} where greatest({happened}, epoch_us(available_at)) > $since'
        if before["snapshot"] < snapshot:
            schema, name = qualified(table.name).split(".")
            changed += (
                f' union select "{table.key}" from ducklake_table_insertions('
                f"'lake', '{schema}', '{name}', {int(before['snapshot']) + 1}, {snapshot})"
            )
        changed = f' and "{table.key}" in ({changed})'

    def sql(more: str) -> str:
        return f"""
            select {key} as key, {happened} as event_time, epoch_us(available_at) as available_at{listed}
            from {source} where {bounds}{more}
            qualify row_number() over (partition by key order by event_time desc, available_at desc{order}) = 1
        """

    try:
        cursor = rails.lake.connection.execute(sql(changed), parameters)
    except duckdb.Error:
        if not before:
            raise
        # the record of what was written since is not there any more (snapshots were expired): look at every key
        cursor = rails.lake.connection.execute(sql(""), {"until": parameters["until"]})
    while batch := cursor.fetchmany(BATCH):
        for name, event_us, known_us, *values in batch:
            yield name, Held(plain(names, values), event_us / 1e6, known_us / 1e6)


def plain(names: Iterable[str], values: Iterable[Value]) -> dict[str, Value]:
    """Values as they are held: a number that is not finite says as little as a missing one."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in zip(names, values, strict=True)
    }


# -- online equals offline ----------------------------------------------------------------------------------

DIFFERS = "online_differs"
"""The kind of the ledger's event."""
MOST = 20_000
"""Requests of a model and night that are held against the lake; of more, those that a hash picks."""
VERDICTS = ("equal", "stale", "ahead", "different")


def check(rails: "Rails", spec: Spec, as_of: datetime) -> dict[str, Any]:
    """What requests of the night were served from the store, against the lake's point-in-time join at the same key
    and instant.

    Per looked-up row of a view: `equal`; `stale`, the lake knew a newer one that the store did not have yet;
    `ahead`, it was not known yet, or the lake does not know it; `different`, the same row says something else. Any of
    the last two is an event in the ledger. Gives the four counts, `requests`, `views` and a few `examples`; {} where
    nothing was looked up.
    """
    from tiltyard.clock import night_closing
    from tiltyard.prepare import frame

    if not rails.lake.has("ops.request"):
        return {}
    night = night_closing(as_of)
    asked = _looked_up(rails, spec, as_of)
    if not asked:
        return {}
    snapshot = rails.published_snapshot()
    inputs = frame.features(rails, spec, snapshot)
    views: dict[str, dict[str, int]] = {}
    examples: list[dict[str, Any]] = []
    for view, key in plan(spec).views:
        names = [feature.name for feature in inputs if feature.view == view]
        served = list(_served(asked, view, names, is_entitys=key == spec.key))
        counts = dict.fromkeys(VERDICTS, 0)
        for one, row in zip(served, _offline(rails, spec, inputs, view, served, snapshot), strict=True):
            verdict, feature = judge(one, row)
            counts[verdict] += 1
            if verdict in ("ahead", "different") and len(examples) < 5:
                examples.append(_example(one, row, view, verdict, feature))
        views[view] = counts
    total = {verdict: sum(counts[verdict] for counts in views.values()) for verdict in VERDICTS}
    result = {"requests": len(asked), **total, "views": views, "examples": examples}
    if total["ahead"] or total["different"]:
        told = rails.ledger.events(model=spec.name, kind=DIFFERS)
        if not any(event["night"] == night and event["detail"] == result for event in told):
            rails.ledger.add_event(DIFFERS, spec.name, night, result)
    return result


@dataclass(frozen=True)
class Served:
    """A view's row as a request was served it: none, where the store had none that it might use."""

    request_id: str
    key: str
    at: float
    row: Held | None
    names: tuple[str, ...]
    """The features to compare: those that the caller did not give."""


def judge(served: Served, offline: Held | None) -> tuple[str, str | None]:
    """One of VERDICTS, and the first feature that differs. `offline`: the row the lake's join gives, if any.

    Pure. Rows of other times are told apart by their times, also where they say the same: `stale` is harmless.
    """
    online = served.row
    if online is not None and max(online.event_time, online.available_at) > served.at:
        return "ahead", None
    if online is None or offline is None:
        return ("equal" if online is offline else "stale" if online is None else "ahead"), None
    times, known = (online.event_time, online.available_at), (offline.event_time, offline.available_at)
    if times != known:
        return ("stale" if times < known else "ahead"), None
    differs = next((name for name in served.names if online.values.get(name) != offline.values.get(name)), None)
    return ("equal" if differs is None else "different"), differs


def _looked_up(rails: "Rails", spec: Spec, as_of: datetime) -> list[tuple[Any, ...]]:
    """(request_id, entity_id, epoch µs, features, given, views) of the night's requests that asked the store."""
    from tiltyard.lake import stored

    start = as_of - spec.prediction.every
    rows = rails.lake.connection.execute(
        f"""
        select request_id, entity_id, epoch_us(prediction_time), features, given, views
        from {stored("ops.request")}
        where model = $model and prediction_time >= $start and prediction_time < $end and views != '{{}}'
        order by hash(request_id, "row"), request_id, "row" limit {MOST}
        """,
        {"model": spec.name, "start": start, "end": as_of},
    ).fetchall()
    return [
        (request, entity, at / 1e6, orjson.loads(features), set(orjson.loads(given)), orjson.loads(views))
        for request, entity, at, features, given, views in rows
    ]


def _served(asked: Iterable[tuple[Any, ...]], view: str, names: Sequence[str], *, is_entitys: bool) -> Iterator[Served]:
    for request, entity, at, features, given, views in asked:
        compared = tuple(name for name in names if name not in given)
        if view not in views or not compared:
            continue
        if views[view] is not None:
            key, happened, known = views[view]
            row = Held(
                {name: features.get(name) for name in compared},
                datetime.fromisoformat(happened).timestamp(),
                datetime.fromisoformat(known).timestamp(),
            )
            yield Served(request, str(key), at, row, tuple(name for name in compared if name in features))
        elif is_entitys and entity is not None:  # of other keys nobody knows what was asked for
            yield Served(request, entity, at, None, compared)


def _offline(
    rails: "Rails", spec: Spec, inputs: Sequence[Any], view: str, served: Sequence[Served], snapshot: int
) -> list[Held | None]:
    """What the lake's point-in-time join gives for the same keys and instants, in the order of `served`."""
    import pandas as pd

    from tiltyard.lake import stored
    from tiltyard.prepare import frame, transform

    if not served:
        return []
    key, age = feature_key(view), spec.prediction.max_feature_age
    columns = {feature.name: feature.kind for feature in inputs if feature.view == view}
    joined = frame.point_in_time_sql(
        transform.macro_path(rails.settings),
        spine="_asked",
        view=stored(view, snapshot),
        pruned=False,
        key=key,
        columns=list(columns),
        spine_key=["place"],
        prefix=view,
        max_age_s=None if age is None else int(age.total_seconds()),
    )
    listed = "".join(
        f', cast("{name}" as double)' if kind == "numeric" else f', "{name}"' for name, kind in columns.items()
    )
    asked = pd.DataFrame(
        {
            "place": range(len(served)),
            key: [one.key for one in served],
            "prediction_time": pd.to_datetime([round(one.at * 1e6) for one in served], unit="us", utc=True),
        }
    )
    connection = rails.lake.connection
    connection.register("_asked", asked)
    try:
        rows = connection.execute(
            f'select epoch_us("{view}__event_time"), epoch_us("{view}__available_at"){listed} '
            f"from ({joined}) order by place"
        ).fetchall()
    finally:
        connection.unregister("_asked")
    return [
        None if happened is None else Held(plain(columns, values), happened / 1e6, known / 1e6)
        for happened, known, *values in rows
    ]


def _example(served: Served, offline: Held | None, view: str, verdict: str, feature: str | None) -> dict[str, Any]:
    def side(row: Held | None) -> dict[str, Any] | None:
        if row is None:
            return None
        value = {} if feature is None else {"value": row.values.get(feature)}
        return {"event_time": iso(row.event_time), "available_at": iso(row.available_at), **value}

    return {
        "verdict": verdict,
        "view": view,
        "feature": feature,
        "request_id": served.request_id,
        "key": served.key,
        "prediction_time": iso(served.at),
        "online": side(served.row),
        "offline": side(offline),
    }
