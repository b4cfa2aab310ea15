"""A delivery without some of its rows: the file of somebody who was erased, for ingest and for whoever erases.

A text is rewritten record by record, every other one byte for byte as it was; a Parquet file by its rows. The same file
without the same rows gives the same bytes, so that a delivery that comes again is known again. What cannot be read as
what its contract says, is looked at as lines.
"""

import csv
import gzip
import io
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from tiltyard.file_rows import parquet
from tiltyard.files import whole
from tiltyard.lake import quoted, text
from tiltyard.prepare.contracts import TableContract
from tiltyard.tombstones import normal

Among = Callable[[Iterable[object]], set[str]]
"""Gives those of some values that are to go."""


@dataclass(frozen=True)
class Without:
    """A delivery without the rows that go."""

    rows: int
    """Number of rows that go."""
    values: frozenset[str]
    """Whose they are."""
    content: bytes
    """The file without them."""


def without(
    connection: duckdb.DuckDBPyConnection, file: Path, contract: TableContract, columns: Collection[str], among: Among
) -> Without | None:
    """The file without the rows in which any of `columns`, by the names of the contract, is among those that go; None
    where no row goes. Raises OSError, UnicodeError, csv.Error or duckdb.Error for one that cannot be read."""
    headers = [contract.header(column) for column in columns]
    if file.suffix == ".parquet":
        return _without_in_parquet(connection, file, headers, among)
    return _without_in_text(file, contract, headers, among)


def rows(
    connection: duckdb.DuckDBPyConnection, file: Path, contract: TableContract, columns: Collection[str], among: Among,
    most: int,
) -> list[dict[str, object]]:  # fmt: skip
    """The first of the rows that go, column by column as the file has them."""
    headers = [contract.header(column) for column in columns]
    if file.suffix == ".parquet":
        where = _where(connection, file, headers, among)
        if where is None:
            return []
        found = connection.execute(f"select * from {parquet(file)} where {where} limit {most}")
        names = [name for name, *_ in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    first: list[str] = []
    own: list[dict[str, object]] = []
    for record, _ in _records(file, contract):
        if not first:
            first = record
            continue
        places = [place for place, name in enumerate(first) if name in headers]
        if len(own) < most and among([record[place] for place in places if place < len(record)]):
            own.append(dict(zip(first, record, strict=False)))
    return own


def put(path: Path, content: bytes) -> None:
    """Put a content in the place of a file's, whole or not at all."""
    with whole(path, lasting=True) as part:
        part.write_bytes(content)


def _where(connection: duckdb.DuckDBPyConnection, file: Path, headers: Sequence[str], among: Among) -> str | None:
    there = {name for name, *_ in connection.execute(f"describe select * from {parquet(file)}").fetchall()}
    parts = []
    for header in headers:
        if header not in there:
            continue
        own = f"trim(cast({quoted(header)} as varchar))"
        values = [
            value for (value,) in connection.execute(f"select distinct {own} from {parquet(file)}").fetchall() if value
        ]
        if gone := among(values):
            parts.append(f"{own} in ({', '.join(text(value) for value in sorted(gone))})")
    return " or ".join(parts) or None


def _without_in_parquet(
    connection: duckdb.DuckDBPyConnection, file: Path, headers: Sequence[str], among: Among
) -> Without | None:
    where = _where(connection, file, headers, among)
    if where is None:
        return None
    own = ", ".join(f"trim(cast({quoted(header)} as varchar))" for header in headers)
    found = connection.execute(f"select {own} from {parquet(file)} where {where}").fetchall()
    with tempfile.TemporaryDirectory(prefix="tiltyard-") as folder:
        part = Path(folder) / "without.parquet"
        connection.execute(
            f"copy (select * from {parquet(file)} where not coalesce({where}, false)) to {text(str(part))} "
            "(format parquet, compression zstd)"
        )
        content = part.read_bytes()
    return Without(len(found), frozenset(among([value for row in found for value in row])), content)


def _without_in_text(file: Path, contract: TableContract, headers: Sequence[str], among: Among) -> Without | None:
    gone: set[str] = set()
    count = 0
    records = list(_records(file, contract))
    if not records:
        return None
    header, first = records[0]
    places = [place for place, name in enumerate(header) if name in headers]
    kept = [first]
    values = {normal(record[place]) for record, _ in records[1:] for place in places if place < len(record)}
    hits = among(values)
    if not hits:
        return None
    for record, raw in records[1:]:
        own = {normal(record[place]) for place in places if place < len(record)} & hits
        if own:
            gone |= own
            count += 1
        else:
            kept.append(raw)
    return Without(count, frozenset(gone), packed(file, b"".join(kept)))


def _records(file: Path, contract: TableContract) -> Iterator[tuple[list[str], bytes]]:
    """Every record of a text, its header first: its fields, and its bytes."""
    form = contract.timing.format
    lines = lines_of(file)
    taken: list[bytes] = []

    def decoded() -> Iterator[str]:
        for number, line in enumerate(lines):
            taken.append(line)
            said = line.decode(form.encoding, "surrogateescape")
            yield said if number else said.removeprefix("\ufeff")

    for record in csv.reader(decoded(), delimiter=form.delimiter):
        yield record, b"".join(taken)
        taken.clear()


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of a text, unpacked, each with its end."""
    content = unpacked(file)
    yield from io.BytesIO(content)


def unpacked(file: Path, content: bytes | None = None) -> bytes:
    """The bytes of a file, or those that are to be its own, unpacked where it is packed. Raises OSError or EOFError
    where they cannot be."""
    content = file.read_bytes() if content is None else content
    return gzip.decompress(content) if file.suffix == ".gz" else content


def packed(file: Path, content: bytes) -> bytes:
    """Bytes as the file has them: packed where it is."""
    return gzip.compress(content, mtime=0) if file.suffix == ".gz" else content
