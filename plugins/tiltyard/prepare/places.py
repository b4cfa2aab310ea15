"""`fetch` of a table's contract: the place beside the landing zone that its rows are brought from. Pure.

`from` is an address. Its scheme says what lies there:

- a folder, `/exports/visits/*.csv`, or a bucket, `s3://bucket/visits/*.csv`: files, each of which becomes a delivery;
- a database, `postgresql://reader@db.example.org/shop#web.visit`: the rows of a table, by a cursor column;
- `kafka://broker:9092/visits`: the messages of a topic, by their partitions and offsets;
- `kinesis://visits`: the records of a stream, by their shards and sequence numbers.

An address carries no password. Who reads it is said by `connection`, the name of a connection of Airflow, or by the
environment.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tiltyard.clock import parse_duration
from tiltyard.spec import Strict

Kind = Literal["files", "table", "topic", "stream"]
"""What lies at a place."""

CURSORS = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "BIGINT", "INTEGER")
"""DuckDB types of a column by which it can be told what is new."""
_OWN: Mapping[Kind, frozenset[str]] = {
    "files": frozenset({"day"}),
    "table": frozenset({"cursor", "overlap"}),
    "topic": frozenset({"partition", "offset"}),
    "stream": frozenset({"shard", "sequence"}),
}
"""What only a place of one kind has."""
_WORDS: Mapping[Kind, str] = {"files": "files", "table": "a table", "topic": "a topic", "stream": "a stream"}
_NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "files": (),
    "table": ("cursor",),
    "topic": ("partition", "offset"),
    "stream": ("shard", "sequence"),
}
"""What a place of one kind must have."""
_SECRET = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)
_ENDINGS = (".csv", ".csv.gz", ".parquet")


def _overlap(value: object) -> object:
    return value if isinstance(value, timedelta | int) and not isinstance(value, bool) else parse_duration(str(value))


class Fetch(Strict):
    """`config.meta.tiltyard.fetch` of a dbt source table."""

    address: Annotated[str, Field(alias="from")]
    """Where the rows are, as a URL without a password."""
    connection: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")] | None = None
    """Name of the Airflow connection that says who reads; None: the environment does."""
    cursor: str | None = None
    """Column of a table of a database that grows with every row that is new or written again."""
    overlap: Annotated[timedelta | int, BeforeValidator(_overlap)] = 0
    """How far behind the newest cursor rows may still appear; what was fetched before is told by its content."""
    day: str | None = None
    """strptime format of the day in a file's name. None: a file is of the day on which it was written."""
    partition: str | None = None
    """Column of a message's partition."""
    offset: str | None = None
    """Column of a message's offset."""
    shard: str | None = None
    """Column of a record's shard."""
    sequence: str | None = None
    """Column of a record's sequence number, a text of up to 56 digits."""

    @field_validator("address")
    @classmethod
    def _that_can_be_read(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            has_secret = parts.password is not None or any(_SECRET.search(name) for name, _ in parse_qsl(parts.query))
            _ = parts.port if parts.scheme != "kafka" else None
        except ValueError:
            raise ValueError("it is no address; write it like s3://bucket/visits/*.csv") from None
        if has_secret:
            raise ValueError(
                "it carries a password, which has no place in a text; take it out, and name a connection of Airflow "
                "with connection, or set it in the environment"
            )
        check = {"files": _check_files, "table": _check_table, "topic": _check_topic, "stream": _check_stream}[
            kind_of(value)
        ]
        check(value)
        return value

    @model_validator(mode="after")
    def _of_one_kind(self) -> "Fetch":
        for kind, names in _OWN.items():
            for name in sorted(names & self.model_fields_set) if kind != self.kind else ():
                raise ValueError(f"{name} is said of {_WORDS[kind]}, and {self.address} leads to none; take it away")
        for name in _NEEDED[self.kind]:
            if getattr(self, name) is None:
                raise ValueError(
                    f"{_WORDS[self.kind]} needs {name}, the column by which it is told what is new; name it"
                )
        if isinstance(self.overlap, int) and self.overlap < 0:
            raise ValueError("overlap is less than 0; write how far behind the newest cursor rows may still appear")
        return self

    @property
    def kind(self) -> Kind:
        """What lies there."""
        return kind_of(self.address)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the contract that it names."""
        named = (self.cursor, self.partition, self.offset, self.shard, self.sequence)
        return tuple(name for name in named if name is not None)

    @property
    def message_place(self) -> tuple[str, str]:
        """The columns that tell where a message stands: of a topic its partition and offset, of a stream its shard and
        sequence number."""
        part, place = (self.shard, self.sequence) if self.kind == "stream" else (self.partition, self.offset)
        assert part is not None and place is not None  # a place of messages names both
        return part, place

    def misfit(self, columns: Mapping[str, str]) -> str | None:
        """What is wrong with the columns that it names, in words; `columns`: those of the contract → DuckDB type."""
        for name in self.columns:
            if name not in columns:
                return f"fetch names the column '{name}', which is not among its columns"
            allowed: tuple[str, ...] = ("BIGINT",)
            kinds = "a bigint"
            if name == self.cursor:
                allowed, kinds = CURSORS, "a day, an instant or a whole number"
            elif name in (self.shard, self.sequence):
                allowed, kinds = ("VARCHAR",), "a varchar"
            if columns[name] not in allowed:
                return f"fetch names the column '{name}', which is {columns[name]}, and has to be {kinds}"
        if self.cursor and isinstance(self.overlap, timedelta) and columns[self.cursor] in ("BIGINT", "INTEGER"):
            return f"the overlap of the cursor '{self.cursor}', a number, is a number as well"
        if self.cursor and self.overlap and isinstance(self.overlap, int) and columns[self.cursor] in CURSORS[:3]:
            return f"the overlap of the cursor '{self.cursor}', a time, is written like 1h"
        return None


def kind_of(address: str) -> Kind:
    """What lies at an address. Raises ValueError for one that says nothing of it."""
    parts = urlsplit(address)
    if parts.scheme in ("", "file", "s3"):
        return "files"
    if parts.scheme == "kafka":
        return "topic"
    if parts.scheme == "kinesis":
        return "stream"
    if parts.fragment:
        return "table"
    raise ValueError(
        f"{parts.scheme}:// is no place to fetch from; write a folder, s3://bucket/visits/*.csv, "
        "postgresql://reader@host/database#schema.table, kafka://broker:9092/topic or kinesis://stream"
    )


def bucket_of(address: str) -> tuple[str, str] | None:
    """(bucket, pattern of its keys) of an address in S3; None for a folder."""
    parts = urlsplit(address)
    return (parts.netloc, address.partition("://")[2].partition("/")[2]) if parts.scheme == "s3" else None


def folder_of(address: str) -> PurePosixPath:
    """The path, with its pattern, of an address in a folder."""
    return PurePosixPath(address.removeprefix("file://"))


def table_of(address: str) -> tuple[str, str | None, str]:
    """(address of the database, schema, table) of an address of a table."""
    database, _, fragment = address.partition("#")
    schema, _, table = unquote(fragment).rpartition(".")
    return database, schema or None, table


def topic_of(address: str) -> tuple[str, str]:
    """(servers, topic) of an address in Kafka."""
    parts = urlsplit(address)
    return parts.netloc, parts.path.strip("/")


def stream_of(address: str) -> str:
    """The name of the stream of an address in Kinesis."""
    return address.partition("://")[2]


def _check_files(address: str) -> None:
    bucket = bucket_of(address)
    path = bucket[1] if bucket else str(folder_of(address))
    if bucket is None and not path.startswith("/"):
        raise ValueError("a folder is written from its root on, like /exports/visits/*.csv")
    if bucket is not None and not (bucket[0] and path):
        raise ValueError("a bucket is written with the files in it, like s3://bucket/visits/*.csv")
    if not path.endswith(_ENDINGS):
        folder, _, last = path.rstrip("/").rpartition("/")
        beside = folder if "*" in last or "." in last else path.rstrip("/")
        raise ValueError(
            f"its files end in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]} where they are fetched; write it like "
            f"{beside}/*.csv"
        )


def _check_table(address: str) -> None:
    database, _, table = table_of(address)
    if not table or "//" not in database:
        raise ValueError("a table is written behind its database, like postgresql://reader@host/database#schema.table")


def _check_topic(address: str) -> None:
    servers, topic = topic_of(address)
    if not servers or not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
        raise ValueError("a topic is written like kafka://broker:9092/topic")


def _check_stream(address: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", stream_of(address)):
        raise ValueError("a stream is written like kinesis://stream; its region is AWS_REGION, or of the connection")
