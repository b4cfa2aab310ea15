"""The records of a Kinesis stream, shard by shard, from a sequence number on to the end that there is now.

Nothing is kept in the stream or beside it: from where to read is told by the sequence numbers that have been fetched. A
record is a JSON object, whose fields are those of the contract. A shard that was split or merged away is read to its
end, and its children beside it; of rows no order is needed.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tiltyard.errors import BadInput
from tiltyard.prepare.fetch import aws
from tiltyard.prepare.fetch.credentials import Connection
from tiltyard.prepare.fetch.topic import AT_ONCE, PLACE, row_of
from tiltyard.prepare.places import stream_of
from tiltyard.settings import Settings

log = logging.getLogger(__name__)

ASK_S = 0.21
"""Seconds between two questions to a shard: Kinesis allows five a second."""


@dataclass(frozen=True)
class Stream:
    """A stream that is open."""

    client: Any
    """boto3's client."""
    address: str
    name: str

    def shards(self) -> list[str]:
        """Its shards, those that were split or merged away as well, as long as they have records."""
        found: list[str] = []
        question = {"StreamName": self.name}
        while question:
            page = self.client.list_shards(**question)
            found += [shard["ShardId"] for shard in page["Shards"]]
            question = {"NextToken": page["NextToken"]} if page.get("NextToken") else {}
        return sorted(found)

    def iterator(self, shard: str, sequence: str | None) -> str:
        """Where a shard is read: behind a sequence number, or from its oldest record on."""
        question = {"StreamName": self.name, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        if sequence is not None:
            question |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence}
        try:
            return str(self.client.get_shard_iterator(**question)["ShardIterator"])
        except self.client.exceptions.InvalidArgumentException:
            if sequence is None:
                raise
            raise BadInput(
                f"{shard} of {self.address} never had the sequence number {sequence}, which was fetched: the stream "
                "was made anew; fetch it into a table of another name."
            ) from None


def read(
    address: str,
    connection: Connection | None,
    settings: Settings,
    fields: Sequence[str],
    following: Mapping[str, str],
    path: Path,
) -> int:
    """Write what each shard has behind a sequence number to a Parquet file, every field as text; returns the number of
    records. `following`: shard → the newest sequence number that was fetched; a shard without one is read whole.

    Raises Unavailable for a stream that is away, BadInput for one that is not there, or was made anew.
    """
    kinds = dict.fromkeys(PLACE, pa.string())
    schema = pa.schema([*kinds.items(), *((name, pa.string()) for name in fields)])
    count = 0
    with aws.client("kinesis", address, connection, settings) as client, pq.ParquetWriter(path, schema) as writer:
        stream = Stream(client, address, stream_of(address))
        shards = stream.shards()
        if gone := sorted(following.keys() - {*shards}):
            log.info("%s: shards that have ended and are gone: %s", address, ", ".join(gone))
        for shard in shards:
            for records in _pages(stream, shard, following.get(shard)):
                rows = [row_of(shard, record["SequenceNumber"], record["Data"], fields) for record in records]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                count += len(rows)
    return count


def _pages(stream: Stream, shard: str, sequence: str | None) -> Iterator[list[dict[str, Any]]]:
    """What a shard has, page by page, until it has no more now."""
    place: str | None = stream.iterator(shard, sequence)
    while place is not None:
        began = time.monotonic()
        page = stream.client.get_records(ShardIterator=place, Limit=AT_ONCE)
        if page["Records"]:
            yield page["Records"]
        if not page.get("MillisBehindLatest"):
            return
        place = page.get("NextShardIterator")
        time.sleep(max(ASK_S - (time.monotonic() - began), 0.0))
