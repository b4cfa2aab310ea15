"""The messages of a Kafka topic, partition by partition, from an offset on to the end that there is now.

No group is joined and nothing is committed: from where to read is told by the offsets that have been fetched. A message
is a JSON object, whose fields are those of the contract.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tiltyard.errors import BadInput, Unavailable
from tiltyard.prepare.fetch import credentials
from tiltyard.prepare.fetch.credentials import Connection
from tiltyard.prepare.places import topic_of
from tiltyard.settings import Settings

log = logging.getLogger(__name__)

AT_ONCE = 10_000
WAIT_S = 10.0
"""Seconds that the brokers have to say which partitions there are, and where these end."""
SILENT_S = 60.0
"""Seconds without a message after which brokers that owe some count as away."""
PLACE = ("_partition", "_offset", "_content")
"""Columns of the Parquet file beside the fields: where a message stands, and what it says."""


def options(settings: Settings, connection: Connection | None = None) -> dict[str, str]:
    """librdkafka's options: those of TILTYARD_KAFKA_OPTIONS, and of a connection what it says of who reads. Raises
    BadInput for what is none."""
    text = settings.kafka_options.get_secret_value() if settings.kafka_options else ""
    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = part.partition("=")
        if not sign:
            raise BadInput("TILTYARD_KAFKA_OPTIONS is written like security.protocol=SASL_SSL,sasl.username=me.")
        given[name.strip()] = value.strip()
    if connection is not None:
        given |= {name: value for name, value in connection.extra.items() if "." in name}
        if connection.login:
            given |= {"sasl.username": connection.login, "sasl.password": connection.password or ""}
    return given


@dataclass(frozen=True)
class Topic:
    """A topic that is open."""

    client: Any
    """confluent_kafka's consumer."""
    address: str
    name: str

    def ends(self) -> dict[int, tuple[int, int]]:
        """Partition → the offset of its oldest message, and the one after its newest."""
        from confluent_kafka import TopicPartition

        about = self.client.list_topics(self.name, timeout=WAIT_S).topics[self.name]
        if about.error is not None:
            raise BadInput(f"{self.address} is no topic for us ({about.error.str()}); mend its name.")
        return {
            part: self.client.get_watermark_offsets(TopicPartition(self.name, part), timeout=WAIT_S)
            for part in sorted(about.partitions)
        }


def read(
    address: str,
    connection: Connection | None,
    settings: Settings,
    fields: Sequence[str],
    following: Mapping[int, int],
    path: Path,
) -> int:
    """Write what each partition has from an offset on to a Parquet file, every field as text; returns the number of
    messages. `following`: partition → the offset that is read first; a partition without one is read whole.

    Raises Unavailable for brokers that are away, BadInput for a topic that is not there, or was made anew.
    """
    from confluent_kafka import Consumer, KafkaException

    servers, name = topic_of(address)
    chosen = {
        **options(settings, connection), "bootstrap.servers": servers, "group.id": "tiltyard",
        "enable.auto.commit": "false", "enable.partition.eof": "true", "auto.offset.reset": "error",
    }  # fmt: skip
    try:
        client = Consumer(chosen, logger=None)
    except Exception:  # what the binding says quotes names and values, which may be pieces of a password
        raise BadInput(
            "Kafka does not take TILTYARD_KAFKA_OPTIONS or the options of the connection; hold their names and values "
            "against librdkafka's CONFIGURATION.md."
        ) from None
    try:
        topic = Topic(client, address, name)
        wanted = {part: _range(address, part, *ends, following.get(part)) for part, ends in topic.ends().items()}
        return _written(topic, {part: ends for part, ends in wanted.items() if ends[0] < ends[1]}, fields, path)
    except KafkaException as error:
        said = credentials.without(str(error.args[0].str()), connection)
        raise Unavailable(f"{address} does not answer ({said}).") from None
    finally:
        client.close()


def _range(address: str, part: int, oldest: int, end: int, first: int | None) -> tuple[int, int]:
    """Where a partition is read from and until."""
    if first is None:
        return oldest, end
    if first > end:
        raise BadInput(
            f"Partition {part} of {address} ends at offset {end}, and {first - 1} was fetched: the topic was made "
            "anew; fetch it into a table of another name."
        )
    if first < oldest:
        log.warning("%s: offsets %d to %d of partition %d were gone before they were fetched", address, first,
                    oldest - 1, part)  # fmt: skip
    return max(first, oldest), end


def _written(topic: Topic, wanted: Mapping[int, tuple[int, int]], fields: Sequence[str], path: Path) -> int:
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    kinds = dict(zip(PLACE, (pa.int64(), pa.int64(), pa.string()), strict=True))
    schema = pa.schema([*kinds.items(), *((name, pa.string()) for name in fields)])
    count, left = 0, set(wanted)
    heard = time.monotonic()
    with pq.ParquetWriter(path, schema) as writer:
        if left:
            topic.client.assign([TopicPartition(topic.name, part, start) for part, (start, _) in wanted.items()])
        while left:
            rows = []
            for message in topic.client.consume(AT_ONCE, timeout=0.5):
                error, part, offset = message.error(), message.partition(), message.offset()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        left.discard(part)
                    elif not error.retriable():
                        raise KafkaException(error)
                    continue
                if part in left and offset < wanted[part][1]:
                    rows.append(row_of(part, offset, message.value() or b"", fields))
                if offset + 1 >= wanted[part][1]:
                    left.discard(part)
                heard = time.monotonic()
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                count += len(rows)
            if left and time.monotonic() - heard > SILENT_S:
                raise Unavailable(f"{topic.address} does not answer (nothing came for {SILENT_S:g} s).")
    return count


def row_of(part: int | str, offset: int | str, content: bytes, fields: Sequence[str]) -> dict[str, object]:
    """A message by its fields, each as text; one that is no JSON object has none of them."""
    row: dict[str, object] = {PLACE[0]: part, PLACE[1]: offset, PLACE[2]: content.decode("utf-8", "replace")}
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return row
    if isinstance(body, dict):
        row[PLACE[2]] = None  # it can be used, as far as this goes
        for name in fields:
            value = body.get(name)
            row[name] = value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
    return row
