"""Streams into the online store: consumers of Kinesis and Kafka, at least once, with writes that may be repeated.

An event is a JSON object: `view`, `key`, `values` (every column of the view, null where it is not known),
`event_time` and `available_at` (ISO, with a zone). It is one row of a feature view or a spine.

How far a stream has been read is kept only after what was read is written. Whoever is killed in between reads some
events again, and those change nothing: a row wins by its times (`store.wins`), not by when it came. For the same
reason no order among shards or partitions is needed, and two consumers of one stream do no harm.

An event that cannot be used never holds up the others: it is counted by its reason and put aside in
`home/streams/`, with its place in the stream. A store that does not answer does hold them up: nothing is skipped.

botocore, boto3 and confluent_kafka are imported where they are used (0.1 to 0.3 s each): a consumer needs one of them.
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
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import orjson

from tiltyard import clock, tombstones
from tiltyard.errors import BadInput, Unavailable
from tiltyard.online.connection import connect
from tiltyard.online.store import EARLIEST, LATEST, FeatureRow, R, Store, TableNote, Value, table_note
from tiltyard.prepare.fetch.topic import options as topic_options
from tiltyard.records import Record
from tiltyard.settings import Settings
from tiltyard.tombstones import Tombstones

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

T = TypeVar("T")
AsideReason = Literal["no_event", "unknown_view", "no_key", "wrong_values", "no_time", "ahead"]
"""Why an event is put aside: no JSON object with these fields; a view that the store does not have; a key that is no
text; values that are not the view's columns, or not of their kinds; times that are none; times that lie ahead."""

AHEAD_S = 5.0
"""How far the clock of whoever wrote an event may be ahead, in seconds. A row from later on would hide the one that is
true now."""
ASIDE_BYTES = 64 * 2**20
"""Bytes of events put aside, per stream; more are only counted."""
AT_ONCE = 1_000
"""Events per write."""
ASK_S = 0.25
"""Seconds between two questions to a shard: Kinesis allows five a second."""
WAIT_S = 10.0
"""Seconds that Kafka's brokers have to say which partitions there are."""
LOOK_S = 30.0
"""Seconds between two looks at which shards there are, and at which columns a view has."""
REPORT_S = 30.0
"""Seconds between two notes of the counts, and between two messages of what is in the way."""
MOST_VIEWS = 10_000
"""Views whose columns a consumer remembers: whoever makes up names must not fill the memory."""

_VIEW = re.compile(r"^(ftr|spn)_[a-z0-9_]{1,120}$")
_FIELDS = {"view", "key", "values", "event_time", "available_at"}
_KINDS: dict[str, tuple[type, ...]] = {"numeric": (int, float), "boolean": (bool,), "categorical": (str,)}


# -- events -------------------------------------------------------------------------------------------------


class Unusable(ValueError):
    """An event that cannot be used, and why."""

    def __init__(self, reason: AsideReason, message: str) -> None:
        super().__init__(message)
        self.reason: AsideReason = reason


def read(
    content: bytes, columns_of: Callable[[str], Mapping[str, str] | None], now: float
) -> tuple[str, str, FeatureRow]:
    """(view, key, row) of an event.

    `columns_of` gives a view's columns and their kinds, None for a view that the store does not have; `now` is in epoch
    seconds. Pure. Raises Unusable.
    """
    try:
        event = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Unusable("no_event", f"not JSON: {error}") from None
    if not isinstance(event, dict) or event.keys() != _FIELDS:
        raise Unusable("no_event", f"an event is an object with {', '.join(sorted(_FIELDS))}, and nothing else")
    view, key = event["view"], event["key"]
    columns = columns_of(view) if isinstance(view, str) and _VIEW.match(view) else None
    if columns is None:
        raise Unusable("unknown_view", f"the store has no view {view!r}; run tiltyard features once it is a model's")
    if not isinstance(key, str) or not key:
        raise Unusable("no_key", "the key is a text, as in the lake")
    times = _instant(event["event_time"]), _instant(event["available_at"])
    if max(times) > now + AHEAD_S:
        raise Unusable("ahead", f"its times lie {max(times) - now:.0f} s ahead of this clock")
    return view, key, FeatureRow(_values(event["values"], columns), *times)


def _values(values: Any, columns: Mapping[str, str]) -> dict[str, Value]:
    if not isinstance(values, dict) or values.keys() != columns.keys():
        names = set(values) if isinstance(values, dict) else set()
        lacks, extra = sorted(columns.keys() - names), sorted(map(str, names - columns.keys()))
        raise Unusable(
            "wrong_values", f"values lack {', '.join(lacks) or 'nothing'} and add {', '.join(extra) or 'nothing'}"
        )
    row: dict[str, Value] = {}
    for name, kind in columns.items():  # in the lake's order, by which a full tie is decided
        value: Any = values[name]
        if value is not None and type(value) not in _KINDS[kind]:
            raise Unusable("wrong_values", f"{name} is {kind}, not {type(value).__name__}")
        row[name] = float(value) if kind == "numeric" and value is not None else value
    return row


def _instant(text: Any) -> float:
    """Epoch seconds of an ISO time with a zone."""
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None and EARLIEST <= (seconds := instant.timestamp()) < LATEST:
            return seconds
    except (TypeError, ValueError, OverflowError):
        pass
    raise Unusable("no_time", f"{text!r} is no ISO time with a zone, like 2016-04-02T06:00:00Z")


# -- the sink -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ShardNote(Record):
    """How far a shard of Kinesis is read."""

    sequence: str | None = None
    """Sequence number of the last record that was written; None: none was."""
    is_ended: bool = False
    """Whether the shard was split or merged away, and is read to its end."""


@dataclass(frozen=True, kw_only=True)
class StreamNote(Record):
    """What a consumer of a stream has done so far."""

    counts: dict[str, int]
    """The sink's counts."""
    at: float
    """Instant of the note, in epoch seconds."""


class ConsumerStopped(Exception):
    """The consumer was stopped while the store did not answer."""


@dataclass
class Sink:
    """Where a consumer puts what it read: good rows into the store, the others aside."""

    store: Store
    name: str
    """Name of the stream, like kinesis/tickets."""
    folder: Path
    """Folder of the events that were put aside."""
    now: Callable[[], float] = lambda: clock.now().timestamp()
    """The clock, in epoch seconds."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the consumer has to end."""
    say: Callable[[str], None] = lambda message: None
    """Tells whoever watches what is in the way, not more often than every REPORT_S."""
    counts: Counter[str] = field(default_factory=Counter)
    """events; written, of those the ones that won; repeated, the ones that did not; erased, of those who were erased,
    which go nowhere; aside_<reason>; not_kept, put aside where no file took it; retries; not_committed."""
    erased: Callable[[], Tombstones] = lambda: Tombstones(b"", {})
    """Of whom nothing is taken in; asked again with every write."""
    _keys: dict[str, str] = field(default_factory=dict)
    """View → the name of its key."""
    _columns: dict[str, tuple[float, Mapping[str, str] | None]] = field(default_factory=dict)
    """View → when it was looked at, and its columns; None: the store does not have it."""
    _counts_noted_at: float = float("-inf")
    _trouble_told_at: float = float("-inf")

    def take(self, records: Sequence[tuple[str, bytes]]) -> bool:
        """Write what was read, (place in the stream, content) each. Waits for a store that does not answer.

        False: it was stopped before everything was written, and the place in the stream must not be kept.
        """
        rows: dict[str, list[tuple[str, FeatureRow]]] = {}
        usable, written, now, erased = 0, 0, self.now(), self.erased()
        try:
            for place, content in records:
                try:
                    view, key, row = read(content, self._columns_of, now)
                except Unusable as error:
                    self._put_aside(place, content, error)
                else:
                    if erased.among(self._keys.get(view, "").removesuffix("_id"), [key]):
                        self.counts["erased"] += 1
                        continue
                    rows.setdefault(view, []).append((key, row))
                    usable += 1
            for view, rows_of_view in rows.items():
                written += self.insist(partial(self.store.put, view, rows_of_view))
        except ConsumerStopped:
            return False
        self.counts.update(events=len(records), written=written, repeated=usable - written)
        self._note_counts()
        return True

    def write_note(self, name: str, note: Record) -> None:
        """A note into the store, insisted on. Raises ConsumerStopped."""
        self.insist(partial(self.store.write_note, name, note))

    def read_note(self, name: str, kind: type[R]) -> R | None:
        """A note of the store, insisted on; None where there is none. Raises ConsumerStopped."""
        return self.insist(partial(self.store.read_note, name, kind))

    def insist(self, work: Callable[[], T]) -> T:
        """What `work` gives, tried until the store answers. Raises ConsumerStopped when stopped before."""
        pause = 0.1
        while True:
            try:
                return work()
            except Unavailable as error:
                self.trouble(str(error))
                if self.stop.wait(pause):
                    raise ConsumerStopped from None
                pause = min(2 * pause, 5.0)

    def trouble(self, message: str) -> None:
        """Count a retry, and say why."""
        self.counts["retries"] += 1
        if time.monotonic() - self._trouble_told_at > REPORT_S:
            self._trouble_told_at = time.monotonic()
            self.say(message)

    def close(self) -> dict[str, int]:
        """Note the counts; gives them."""
        self._note_counts(at_once=True)
        return dict(sorted(self.counts.items()))

    def _columns_of(self, view: str) -> Mapping[str, str] | None:
        """The view's columns, as the filling noted them; None for a view that it did not."""
        looked_at, columns = self._columns.get(view, (float("-inf"), None))
        if time.monotonic() - looked_at > LOOK_S:
            note = self.read_note(table_note(view), TableNote)
            columns = None if note is None else note.columns
            if note is not None:
                self._keys[view] = note.key
            if len(self._columns) < MOST_VIEWS:
                self._columns[view] = (time.monotonic(), columns)
        return columns

    def _put_aside(self, place: str, content: bytes, error: Unusable) -> None:
        self.counts[f"aside_{error.reason}"] += 1
        line = {
            "place": place,
            "kind": error.reason,
            "reason": str(error),
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

    def _note_counts(self, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self._counts_noted_at > REPORT_S:
            self._counts_noted_at = time.monotonic()
            with suppress(Unavailable):  # the next note has the same counts, and more
                self.store.write_note(f"stream/{self.name}", StreamNote(counts=dict(self.counts), at=self.now()))


class Consumer(Protocol):
    """What reads a stream, whichever it is."""

    def consume(self, *, drain: bool = False) -> dict[str, int]:
        """Consume until stopped, or with `drain` until everything that was there is read. Gives the sink's counts.

        Closes its client at the end. Raises BadInput for a stream that cannot be read, Unavailable when it is out of
        reach.
        """


# -- Kinesis ------------------------------------------------------------------------------------------------


class Kinesis:
    """One stream, all of its shards, from where the store's notes say that it was left.

    A shard is read to its end, also one that was split or merged away; its children are read as soon as they are
    seen, since no order is needed. The notes carry the stream's time of creation: one that is made again under the
    same name is read from its beginning.
    """

    def __init__(self, client: Any, stream: str, sink: Sink) -> None:
        """`client` is boto3's, and the consumer's own from now on."""
        self._client, self._stream, self._sink = client, stream, sink
        self._iterators: dict[str, str] = {}
        """Shard → where it is read next."""
        self._fresh: list[str] = []
        """Shards that the last look saw for the first time."""
        self._ended: set[str] = set()
        self._looked_at = float("-inf")
        self._prefix = ""

    def consume(self, *, drain: bool = False) -> dict[str, int]:
        try:
            self._begin()
            with suppress(ConsumerStopped):
                self._consume(drain)
        finally:
            self._client.close()
        return self._sink.close()

    def _consume(self, drain: bool) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        pause = ASK_S
        while not self._sink.stop.is_set():
            began, is_behind = time.monotonic(), False
            try:
                if began - self._looked_at > LOOK_S:
                    self._look()
                for shard in list(self._iterators):
                    is_behind |= self._ask(shard)
                if drain and not is_behind:
                    self._look()
                    if not self._fresh:
                        return
                pause = ASK_S
            except (BotoCoreError, ClientError) as error:
                self._end_if_refused(error)
                self._sink.trouble(str(error))
                pause = min(2 * pause, 10.0)
            self._sink.stop.wait(max(pause - (time.monotonic() - began), 0.0))

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
        """Which shards there are; a new one is read from its note, or from its beginning."""
        shards: list[str] = []
        question: dict[str, str] = {"StreamName": self._stream}
        while question:
            page = self._client.list_shards(**question)
            shards += [shard["ShardId"] for shard in page["Shards"]]
            question = {"NextToken": page["NextToken"]} if page.get("NextToken") else {}
        new = [shard for shard in shards if shard not in self._iterators and shard not in self._ended]
        for shard in new:
            note = self._note_of(shard)
            if note.is_ended:
                self._ended.add(shard)
            else:
                self._iterators[shard] = self._iterator(shard, note.sequence)
        self._fresh = [shard for shard in new if shard in self._iterators]
        self._looked_at = time.monotonic()

    def _note_of(self, shard: str) -> ShardNote:
        return self._sink.read_note(f"{self._prefix}/{shard}", ShardNote) or ShardNote()

    def _iterator(self, shard: str, sequence: str | None) -> str:
        question = {"StreamName": self._stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        if sequence is not None:
            question |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence}
        try:
            return str(self._client.get_shard_iterator(**question)["ShardIterator"])
        except self._client.exceptions.InvalidArgumentException:  # a place that this shard never had
            if sequence is None:
                raise
            return self._iterator(shard, None)

    def _ask(self, shard: str) -> bool:
        """Read on in one shard, then keep how far. Is there more?"""
        try:
            page = self._client.get_records(ShardIterator=self._iterators[shard], Limit=AT_ONCE)
        except self._client.exceptions.ExpiredIteratorException:
            self._iterators[shard] = self._iterator(shard, self._note_of(shard).sequence)
            return True
        records = [(f"{shard}/{record['SequenceNumber']}", record["Data"]) for record in page["Records"]]
        following = page.get("NextShardIterator")
        if records and not self._sink.take(records):
            return False
        if records or following is None:
            sequence = page["Records"][-1]["SequenceNumber"] if records else None
            note = ShardNote(sequence=sequence, is_ended=following is None)
            self._sink.write_note(f"{self._prefix}/{shard}", note)
        if following is None:
            del self._iterators[shard]
            self._ended.add(shard)
            self._looked_at = float("-inf")  # it has children
            return True
        self._iterators[shard] = following
        return bool(records) or page.get("MillisBehindLatest", 0) > 0

    def _end_if_refused(self, error: Exception) -> None:
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

    def __init__(self, options: Mapping[str, str], topic: str, sink: Sink) -> None:
        """`options` are librdkafka's."""
        self._topic, self._sink = topic, sink
        self._given = tuple(options)
        self._options: dict[str, str | int | bool] = {
            "group.id": "tiltyard",
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10_000,  # a killed consumer is missed after so long, and its partitions move on
            **options,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
        }
        self._assigned: set[int] = set()
        """Partitions that a draining consumer took for itself."""
        self._ended: set[int] = set()
        """Partitions of which nothing more is there."""

    def consume(self, *, drain: bool = False) -> dict[str, int]:
        from confluent_kafka import Consumer as Client
        from confluent_kafka import KafkaException

        try:
            client = Client(self._options, logger=None)
        except KafkaException as refusal:
            raise self._refused_option(refusal.args[0].str()) from None
        except (AttributeError, SystemError, TypeError, ValueError) as refusal:  # an option that is no text
            raise self._refused_option("".join(f'"{name}"' for name in self._given if name in str(refusal))) from None
        try:
            if drain:
                self._assign_all(client)
            else:
                client.subscribe([self._topic])
            while not self._sink.stop.is_set():
                messages = client.consume(AT_ONCE, timeout=ASK_S)
                records, offsets = self._sorted_out(messages)
                if records:
                    if not self._sink.take(records):
                        break
                    self._commit(client, offsets)
                elif drain and self._ended >= self._assigned:
                    break
        except KafkaException as error:
            raise Unavailable(f"Kafka does not answer ({error.args[0].str()}); check --servers.") from None
        finally:
            client.close()
        return self._sink.close()

    def _assign_all(self, client: Any) -> None:
        from confluent_kafka import OFFSET_STORED, TopicPartition

        about = client.list_topics(self._topic, timeout=WAIT_S).topics[self._topic]
        if about.error is not None:
            raise self._refused(about.error.str())
        self._assigned = set(about.partitions)
        client.assign([TopicPartition(self._topic, part, OFFSET_STORED) for part in self._assigned])

    def _sorted_out(self, messages: "Sequence[Message]") -> tuple[list[tuple[str, bytes]], dict[int, int]]:
        """The records of what was consumed, and partition → the offset after them. Raises for what no waiting mends."""
        records: list[tuple[str, bytes]] = []
        offsets: dict[int, int] = {}
        message: Any
        for message in messages:
            error, part, offset = message.error(), message.partition(), message.offset()
            if error is None:
                self._ended.discard(part)
                offsets[part] = offset + 1
                records.append((f"{part}/{offset}", message.value() or b""))
            else:
                self._heed(error, part)
        return records, offsets

    def _heed(self, error: "KafkaError", part: int) -> None:
        from confluent_kafka import KafkaError

        if error.code() == KafkaError._PARTITION_EOF:
            self._ended.add(part)
        elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise self._refused(error.str())
        elif error.fatal():
            raise Unavailable(f"Kafka ends this consumer: {error.str()}; start it again.")
        else:
            self._sink.trouble(error.str())  # librdkafka goes on by itself

    def _commit(self, client: Any, offsets: Mapping[int, int]) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        parts = [TopicPartition(self._topic, part, offset) for part, offset in offsets.items()]
        try:
            client.commit(offsets=parts, asynchronous=False)
        except KafkaException:  # the partitions have moved on: another reads them again, which does no harm
            self._sink.counts["not_committed"] += 1

    def _refused_option(self, reason: str) -> BadInput:
        """librdkafka's reason quotes names and values, and a comma in a password makes a name of its second half."""
        place = next((place for place, name in enumerate(self._given, 1) if f'"{name}"' in reason), None)
        entry = f"entry {place} of " if place else ""
        return BadInput(
            f"Kafka does not take {entry}TILTYARD_KAFKA_OPTIONS; hold its names and values against librdkafka's "
            "CONFIGURATION.md (a value with a comma cannot be given)."
        )

    def _refused(self, message: str) -> BadInput:
        return BadInput(f"Kafka has no topic '{self._topic}' for us ({message}); mend the name.")


# -- the command --------------------------------------------------------------------------------------------


def kinesis(stream: str, sink: Sink) -> Kinesis:
    """A consumer by the usual AWS_* variables; AWS_ENDPOINT_URL_KINESIS names another endpoint."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        client = boto3.client("kinesis")
    except (BotoCoreError, ValueError) as error:  # ValueError: AWS_ENDPOINT_URL is none
        raise BadInput(
            f"No Kinesis client: {error} Set AWS_REGION (or AWS_DEFAULT_REGION) and the AWS_* keys, and as "
            "AWS_ENDPOINT_URL_KINESIS an address like http://127.0.0.1:4566 or nothing."
        ) from None
    return Kinesis(client, stream, sink)


def kafka(settings: Settings, topic: str, servers: str, group: str, sink: Sink) -> Kafka:
    """A consumer; what librdkafka wants to know beside these is in TILTYARD_KAFKA_OPTIONS."""
    options = topic_options(settings)
    if not group:  # librdkafka's binding ends the process
        raise BadInput("A consumer group has a name: give one with --group.")
    options |= {"bootstrap.servers": servers, "group.id": group}
    return Kafka(options, topic, sink)


def follow(
    settings: Settings, name: str, consumer: Callable[[Sink], Consumer], *, drain: bool, say: Callable[[str], None]
) -> dict[str, int]:
    """Consume `name` until SIGINT or SIGTERM; what is in hand is written first. Gives the counts."""
    stop, store = threading.Event(), connect(settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        sink = Sink(
            store, name, settings.home / "streams", stop=stop, say=say, erased=partial(tombstones.copied, settings)
        )
        return consumer(sink).consume(drain=drain)
    finally:
        store.close()
