"""Streams into the online store: consumers of Kinesis and Kafka, at least once, with writes that may be repeated.

An event is a JSON object: `view`, `key`, `values` (every column of the view, null where it is not known),
`event_time` and `available_at` (ISO, with a zone). It is one row of a feature view or a spine.

How far a stream has been read is kept only after what was read is written. Whoever is killed in between reads some
events again, and those change nothing: a row wins by its times (`online.wins`), not by when it came. For the same
reason no order among shards or partitions is needed, and two consumers of one stream do no harm.

An event that cannot be used never holds up the others: it is counted by its reason and put aside in
`home/streams/`, with its place in the stream. A store that does not answer does hold them up: nothing is skipped.
"""

import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import orjson

from tiltyard import clock
from tiltyard.errors import BadInput, Unavailable
from tiltyard.prepare.online import Held, Store, Value, connect
from tiltyard.settings import Settings

T = TypeVar("T")
Reason = Literal["no_event", "unknown_view", "no_key", "wrong_values", "no_time", "ahead"]
"""Why an event is put aside: no JSON object with these fields; a view that the store does not hold; a key that is no
text; values that are not the view's columns, or not of their kinds; times that are none; times that lie ahead."""
AHEAD_S = 5.0
"""How far the clock of whoever wrote an event may be ahead. A row from later on would hide the one that is true now."""
ASIDE_BYTES = 64 * 2**20
"""Of events put aside, per stream; more are only counted."""
AT_ONCE = 1_000
"""Events per write."""
ASK_S = 0.25
"""Between two questions to a shard: Kinesis allows five a second."""
WAIT_S = 10.0
"""For Kafka's brokers, to say which partitions there are."""
LOOK_S = 30.0
"""Between two looks at which shards there are, and at which columns a view has."""
TOLD_S = 30.0
"""Between two notes of the counts."""

_VIEW = re.compile(r"^(ftr|spn)_[a-z0-9_]{1,120}$")
_FIELDS = {"view", "key", "values", "event_time", "available_at"}
_KINDS: dict[str, tuple[type, ...]] = {"numeric": (int, float), "boolean": (bool,), "categorical": (str,)}


class Aside(ValueError):
    """An event that cannot be used, and why."""

    def __init__(self, reason: Reason, said: str) -> None:
        super().__init__(said)
        self.reason: Reason = reason


def read(content: bytes, columns: Callable[[str], Mapping[str, str] | None], now: float) -> tuple[str, str, Held]:
    """(view, key, row) of an event. `columns` gives a view's columns and their kinds. Pure. Raises Aside."""
    try:
        event = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Aside("no_event", f"not JSON: {error}") from None
    if not isinstance(event, dict) or event.keys() != _FIELDS:
        raise Aside("no_event", f"an event is an object with {', '.join(sorted(_FIELDS))}, and nothing else")
    view, key, values = event["view"], event["key"], event["values"]
    known = columns(view) if isinstance(view, str) and _VIEW.match(view) else None
    if known is None:
        raise Aside("unknown_view", f"the store holds no view {view!r}; run tiltyard features once it is a model's")
    if not isinstance(key, str) or not key:
        raise Aside("no_key", "the key is a text, as in the lake")
    times = _instant(event["event_time"]), _instant(event["available_at"])
    if max(times) > now + AHEAD_S:
        raise Aside("ahead", f"its times lie {max(times) - now:.0f} s ahead of this clock")
    return view, key, Held(_values(values, known), *times)


def _values(values: Any, known: Mapping[str, str]) -> dict[str, Value]:
    if not isinstance(values, dict) or values.keys() != known.keys():
        given = set(values) if isinstance(values, dict) else set()
        lacks, extra = sorted(known.keys() - given), sorted(map(str, given - known.keys()))
        raise Aside(
            "wrong_values", f"values lack {', '.join(lacks) or 'nothing'} and add {', '.join(extra) or 'nothing'}"
        )
    found: dict[str, Value] = {}
    for name, kind in known.items():  # in the lake's order, by which a full tie is decided
        value: Any = values[name]
        if value is not None and type(value) not in _KINDS[kind]:
            raise Aside("wrong_values", f"{name} is {kind}, not {type(value).__name__}")
        found[name] = float(value) if kind == "numeric" and value is not None else value
    return found


def _instant(text: Any) -> float:
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None:
            return instant.timestamp()
    except (TypeError, ValueError, OverflowError):
        pass
    raise Aside("no_time", f"{text!r} is no ISO time with a zone, like 2016-04-02T06:00:00Z")


@dataclass
class Sink:
    """Where a consumer puts what it read: good rows into the store, the others aside."""

    store: Store
    name: str
    """Of the stream, like kinesis/tickets."""
    folder: Path
    now: Callable[[], float] = lambda: clock.now().timestamp()
    stop: threading.Event = field(default_factory=threading.Event)
    say: Callable[[str], None] = lambda said: None
    """Tells whoever watches what is in the way, not more often than every TOLD_S."""
    counts: Counter[str] = field(default_factory=Counter)
    """events; written, of those the ones that won; repeated, the ones that did not; aside_<reason>; not_kept, put aside
    where no file took it; retries; not_committed."""
    _columns: dict[str, tuple[float, Mapping[str, str] | None]] = field(default_factory=dict)
    _told_at: float = float("-inf")
    _said_at: float = float("-inf")

    def take(self, records: Sequence[tuple[str, bytes]]) -> bool:
        """Write what was read, (place in the stream, content) each. Waits for a store that does not answer.

        False: it was stopped before everything was written, and the place in the stream must not be kept.
        """
        rows: dict[str, list[tuple[str, Held]]] = {}
        good, now = 0, self.now()
        for place, content in records:
            try:
                view, key, row = self._read(content, now)
            except Aside as aside:
                self._put_aside(place, content, aside)
            except Unavailable:
                return False
            else:
                rows.setdefault(view, []).append((key, row))
                good += 1
        written = 0
        for view, some in rows.items():
            done = self.insist(partial(self.store.put, view, some))
            if done is None:
                return False
            written += done
        self.counts.update(events=len(records), written=written, repeated=good - written)
        self._tell()
        return True

    def keep(self, name: str, content: Mapping[str, Any]) -> bool:
        """A note in the store, insisted on: how far a stream is read."""

        def write() -> bool:
            self.store.note(name, content)
            return True

        return self.insist(write) is not None

    def noted(self, name: str) -> dict[str, Any] | None:
        """A note of the store, {} where there is none; None when stopped before it answered."""
        return self.insist(lambda: self.store.noted(name) or {})

    def insist(self, work: Callable[[], T]) -> T | None:
        """What `work` gives, tried until the store answers; None when stopped before."""
        pause = 0.1
        while True:
            try:
                return work()
            except Unavailable as error:
                self.trouble(str(error))
                if self.stop.wait(pause):
                    return None
                pause = min(2 * pause, 5.0)

    def trouble(self, said: str) -> None:
        self.counts["retries"] += 1
        if time.monotonic() - self._said_at > TOLD_S:
            self._said_at = time.monotonic()
            self.say(said)

    def close(self) -> dict[str, int]:
        self._tell(at_once=True)
        return dict(sorted(self.counts.items()))

    def _read(self, content: bytes, now: float) -> tuple[str, str, Held]:
        return read(content, self._known, now)

    def _known(self, view: str) -> Mapping[str, str] | None:
        """The view's columns, as the features stage noted them."""
        asked_at, columns = self._columns.get(view, (float("-inf"), None))
        if time.monotonic() - asked_at > LOOK_S:
            table = self.noted(f"table/{view}")
            if table is None:
                raise Unavailable("Stopped before the store answered.")
            columns = table.get("columns")
            if len(self._columns) < 10_000:  # whoever makes up names must not fill the memory
                self._columns[view] = (time.monotonic(), columns)
        return columns

    def _put_aside(self, place: str, content: bytes, aside: Aside) -> None:
        self.counts[f"aside_{aside.reason}"] += 1
        line = {
            "place": place,
            "reason": aside.reason,
            "said": str(aside),
            "content": content.decode("utf-8", "replace"),
        }
        path = self.folder / f"{self.name.replace('/', '.')}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                if file.tell() > ASIDE_BYTES:
                    raise OSError("full")
                file.write(orjson.dumps(line) + b"\n")
        except OSError:  # a full disk must not hold up the good ones
            self.counts["not_kept"] += 1

    def _tell(self, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self._told_at > TOLD_S:
            self._told_at = time.monotonic()
            with suppress(Unavailable):  # it is told again
                self.store.note(f"stream/{self.name}", {"counts": dict(self.counts), "at": self.now()})


class Consumer(Protocol):
    def run(self, *, drain: bool = False) -> dict[str, int]:
        """Consume until stopped, or with `drain` until everything that was there is read. Gives the sink's counts."""


# -- Kinesis ------------------------------------------------------------------------------------------------


class Kinesis:
    """One stream, all of its shards, from where the store's notes say that it was left.

    A shard is read to its end, also one that was split or merged away; its children are read as soon as they are
    seen, since no order is needed. The notes carry the stream's time of creation: one that is made again under the
    same name is read from its beginning.
    """

    def __init__(self, client: Any, stream: str, sink: Sink) -> None:
        self._client, self._stream, self._sink = client, stream, sink
        self._iterators: dict[str, str] = {}
        self._fresh: list[str] = []
        self._ended: set[str] = set()
        self._looked_at = float("-inf")
        self._prefix = ""

    def run(self, *, drain: bool = False) -> dict[str, int]:
        self._begin()
        pause = ASK_S
        while not self._sink.stop.is_set():
            began, behind = time.monotonic(), False
            try:
                if began - self._looked_at > LOOK_S:
                    self._look()
                for shard in list(self._iterators):
                    behind |= self._ask(shard)
                if drain and not behind:
                    self._look()
                    if not self._fresh:
                        break
                pause = ASK_S
            except self._passing() as error:
                self._refused(error)
                self._sink.trouble(str(error))
                pause = min(2 * pause, 10.0)
            self._sink.stop.wait(max(pause - (time.monotonic() - began), 0.0))
        return self._sink.close()

    def _begin(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            about = self._client.describe_stream_summary(StreamName=self._stream)["StreamDescriptionSummary"]
        except ClientError as error:
            raise BadInput(
                f"Kinesis has no stream '{self._stream}' for us ({error.response['Error'].get('Message', error)}); "
                "mend the name, the region or the credentials (AWS_*)."
            ) from None
        except BotoCoreError as error:
            raise Unavailable(f"Kinesis does not answer: {error}; check AWS_REGION and the network.") from None
        created = about.get("StreamCreationTimestamp")
        self._prefix = f"{self._sink.name}@{created.timestamp() if created else 0:.0f}"

    def _look(self) -> None:
        """Which shards there are; whoever is new is read from its note, or from its beginning."""
        shards, more = [], {"StreamName": self._stream}
        while more:
            page = self._client.list_shards(**more)
            shards += [shard["ShardId"] for shard in page["Shards"]]
            more = {"NextToken": page["NextToken"]} if page.get("NextToken") else {}
        self._fresh = [shard for shard in shards if shard not in self._iterators and shard not in self._ended]
        for shard in self._fresh:
            note = self._sink.noted(f"{self._prefix}/{shard}")
            if note is None:  # stopped
                return
            if note.get("is_ended"):
                self._ended.add(shard)
            else:
                self._iterators[shard] = self._iterator(shard, note.get("sequence"))
        self._fresh = [shard for shard in self._fresh if shard in self._iterators]
        self._looked_at = time.monotonic()

    def _iterator(self, shard: str, sequence: str | None) -> str:
        asked: dict[str, Any] = {"StreamName": self._stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        if sequence is not None:
            asked |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence}
        try:
            return str(self._client.get_shard_iterator(**asked)["ShardIterator"])
        except self._client.exceptions.InvalidArgumentException:  # a place that this shard never had
            if sequence is None:
                raise
            return self._iterator(shard, None)

    def _ask(self, shard: str) -> bool:
        """Read on in one shard, then keep how far. Is there more?"""
        try:
            page = self._client.get_records(ShardIterator=self._iterators[shard], Limit=AT_ONCE)
        except self._client.exceptions.ExpiredIteratorException:
            note = self._sink.noted(f"{self._prefix}/{shard}") or {}
            self._iterators[shard] = self._iterator(shard, note.get("sequence"))
            return True
        records = [(f"{shard}/{record['SequenceNumber']}", record["Data"]) for record in page["Records"]]
        following = page.get("NextShardIterator")
        if records and not self._sink.take(records):
            return False
        if records or following is None:
            note = {"sequence": page["Records"][-1]["SequenceNumber"]} if records else {}
            if not self._sink.keep(f"{self._prefix}/{shard}", note | ({} if following else {"is_ended": True})):
                return False
        if following is None:
            del self._iterators[shard]
            self._ended.add(shard)
            self._looked_at = float("-inf")  # it has children
            return True
        self._iterators[shard] = following
        return bool(records) or page.get("MillisBehindLatest", 0) > 0

    @staticmethod
    def _passing() -> tuple[type[Exception], ...]:
        from botocore.exceptions import BotoCoreError, ClientError

        return BotoCoreError, ClientError

    def _refused(self, error: Exception) -> None:
        """What no waiting mends ends the consumer: the stream is gone, or the credentials are."""
        code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
        if code in ("ResourceNotFoundException", "AccessDeniedException", "UnrecognizedClientException"):
            raise BadInput(f"Kinesis refuses '{self._stream}' ({code}); mend the stream or the credentials.") from None


# -- Kafka --------------------------------------------------------------------------------------------------


class Kafka:
    """One topic, in a consumer group. Offsets are committed by hand, after the write.

    To drain it needs no group, whose other members may be dead and not yet missed: it takes every partition for
    itself, from the group's offsets.
    """

    def __init__(self, options: Mapping[str, Any], topic: str, sink: Sink) -> None:
        self._topic, self._sink = topic, sink
        self._options = {
            "group.id": "tiltyard",
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10_000,  # a killed consumer is missed after so long, and its partitions move on
            **options,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
        }

    def run(self, *, drain: bool = False) -> dict[str, int]:
        from confluent_kafka import OFFSET_STORED, KafkaError, KafkaException, TopicPartition
        from confluent_kafka import Consumer as Client

        try:
            client = Client(self._options, logger=None)
        except KafkaException as refused:
            raise BadInput(f"Kafka takes no such option: {refused.args[0].str()}.") from None
        ended: set[int] = set()
        assigned: set[int] = set()
        try:
            if drain:
                about = client.list_topics(self._topic, timeout=WAIT_S).topics[self._topic]
                if about.error is not None:
                    raise self._refused(about.error.str())
                assigned = set(about.partitions)
                client.assign([TopicPartition(self._topic, part, OFFSET_STORED) for part in assigned])
            else:
                client.subscribe([self._topic])
            while not self._sink.stop.is_set():
                messages = client.consume(AT_ONCE, timeout=ASK_S)
                records, offsets = [], {}
                message: Any
                for message in messages:
                    error, part, offset = message.error(), message.partition(), message.offset()
                    if error is None:
                        ended.discard(part)
                        offsets[part] = offset + 1
                        records.append((f"{part}/{offset}", message.value() or b""))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended.add(part)
                    elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
                        raise self._refused(error.str())
                    elif error.fatal():
                        raise Unavailable(f"Kafka ends this consumer: {error.str()}; start it again.")
                    else:
                        self._sink.trouble(error.str())  # librdkafka goes on by itself
                if records:
                    if not self._sink.take(records):
                        break
                    parts = [TopicPartition(self._topic, part, offset) for part, offset in offsets.items()]
                    try:
                        client.commit(offsets=parts, asynchronous=False)
                    except KafkaException:  # the partitions have moved on: another reads them again, which does no harm
                        self._sink.counts["not_committed"] += 1
                elif drain and ended >= assigned:
                    break
        except KafkaException as error:
            raise Unavailable(f"Kafka does not answer ({error.args[0].str()}); check --servers.") from None
        finally:
            client.close()
        return self._sink.close()

    def _refused(self, said: str) -> BadInput:
        return BadInput(f"Kafka has no topic '{self._topic}' for us ({said}); mend the name.")


# -- the command --------------------------------------------------------------------------------------------


def kinesis(stream: str, sink: Sink) -> Kinesis:
    """A consumer by the usual AWS_* variables; AWS_ENDPOINT_URL_KINESIS names another endpoint."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        client = boto3.client("kinesis")
    except BotoCoreError as error:
        raise BadInput(
            f"No Kinesis client: {error} Set AWS_REGION (or AWS_DEFAULT_REGION) and the AWS_* keys."
        ) from None
    return Kinesis(client, stream, sink)


def kafka(settings: Settings, topic: str, servers: str, group: str, sink: Sink) -> Kafka:
    """A consumer; what librdkafka wants to know beside these is in TILTYARD_KAFKA_OPTIONS."""
    given = settings.kafka_options.get_secret_value() if settings.kafka_options else ""
    options: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in given.split(","))):
        name, sign, value = part.partition("=")
        if not sign:
            raise BadInput("TILTYARD_KAFKA_OPTIONS is written like security.protocol=SASL_SSL,sasl.username=me.")
        options[name.strip()] = value.strip()
    options |= {"bootstrap.servers": servers, "group.id": group}
    return Kafka(options, topic, sink)


def run(
    settings: Settings, name: str, made: Callable[[Sink], Consumer], *, drain: bool, say: Callable[[str], None]
) -> dict[str, int]:
    """Consume `name` until SIGINT or SIGTERM; what is in hand is written first. Gives the counts."""
    stop, store = threading.Event(), connect(settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        return made(Sink(store, name, settings.home / "streams", stop=stop, say=say)).run(drain=drain)
    finally:
        store.close()
