"""A table that is not a file here: at an http(s) address, in S3, in a folder of many files, or in a database.

A sample of it is brought as a file, with what the contract will say of where its rows are fetched from: of one file
alone nothing, since that is all there is, of a pattern of files and of a table of a database their address.
"""

import codecs
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import duckdb
from pydantic import ValidationError

from tiltyard import file_rows
from tiltyard.errors import BadInput, Unavailable
from tiltyard.lake import text
from tiltyard.prepare import datasets
from tiltyard.prepare.fetch import credentials, database, files
from tiltyard.prepare.fetch.database import Window
from tiltyard.prepare.landing import first_line
from tiltyard.prepare.places import Fetch, table_of
from tiltyard.settings import Settings
from tiltyard.words import listed

MOST_ROWS = 200_000
"""Rows that are read of a table of a database: the newest, where it is known which these are."""


@dataclass(frozen=True)
class Brought:
    """A sample that lies here."""

    path: Path
    """The file."""
    place: Fetch | None = None
    """Where the rows are fetched from; None: the file is all there is."""


@contextmanager
def joined(paths: Sequence[Path]) -> Iterator[Brought]:
    """Several files of one header as one export, for as long, by the name of the first.

    Raises BadInput for files that are not of one header, and for those that cannot be joined as they are.
    """
    with tempfile.TemporaryDirectory(prefix="tiltyard-") as folder:
        whole = Path(folder) / paths[0].name
        heads = [_head(path) for path in paths]
        kinds = {_kind(head) for head in heads}
        if len(kinds) > 1:
            raise BadInput(f"{_shown(paths)} are of several kinds, {' and '.join(sorted(kinds))}; give those of one.")
        if kinds == {"Parquet"}:
            with duckdb.connect() as connection:
                try:
                    rows = file_rows.parquet(*paths)
                    connection.execute(f"copy (select * from {rows}) to {text(str(whole))} (format parquet)")
                except duckdb.Error as error:
                    raise BadInput(f"{_shown(paths)} are not of one shape ({first_line(error)}).") from None
        else:
            _append(paths, heads, whole, is_json=kinds == {"JSON"})
        yield Brought(whole)


def _head(path: Path) -> bytes:
    """How a file begins: its first line, of Parquet its mark."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name the files in it, like {path}/*.csv without quotes.")
    if not path.is_file() or path.stat().st_size == 0:
        raise BadInput(f"{path} is {'empty; leave it out' if path.is_file() else 'no file'}.")
    with path.open("rb") as file:
        head = file.readline(1 << 20).removeprefix(codecs.BOM_UTF8)
    if not head.startswith(b"PAR1") and (b"\0" in head or head[:2] in (b"PK", b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{path} is packed, or UTF-16; several files are joined as plain text or as Parquet.")
    return head


def _kind(head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "Parquet"
    return "JSON" if file_rows.is_json(head.decode("utf-8", "ignore")) else "CSV"


def _text(head: bytes) -> str:
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError:
        return head.decode("cp1252", "replace")


def _append(paths: Sequence[Path], heads: Sequence[bytes], whole: Path, *, is_json: bool) -> None:
    """One text of several, of CSV with the first header alone."""
    other = next((place for place, head in enumerate(heads) if head.rstrip() != heads[0].rstrip()), None)
    if other is not None and not is_json:
        header, first = (_text(heads[place]).strip() for place in (other, 0))
        raise BadInput(
            f"{paths[other]} has another header than {paths[0]}: {header[:300]!r}, and not {first[:300]!r}; write all "
            "of them with the same columns in the same order."
        )
    ends = [head.endswith(b"\r\n") for head in heads]
    if not is_json and len(set(ends)) > 1:
        raise BadInput(f"{paths[ends.index(not ends[0])]} ends its lines otherwise than {paths[0]}; save them alike.")
    if is_json and (listing := next((path for path, head in zip(paths, heads, strict=True) if head[:1] == b"["), None)):
        raise BadInput(f"{listing} is a list; of several files of JSON each has an object in each line.")
    with whole.open("wb") as after:
        for place, path in enumerate(paths):
            with path.open("rb") as before:
                if place and not is_json:
                    before.readline()
                last = b"\n"
                while block := before.read(1 << 20):
                    after.write(block)
                    last = block[-1:]
                after.write(b"" if last == b"\n" else b"\n")


def _shown(paths: Sequence[Path]) -> str:
    return listed([path.name for path in paths])


@contextmanager
def brought(
    settings: Settings, address: str, connection: str | None = None, cursor: str | None = None
) -> Iterator[Brought]:
    """The sample at a path or an address, for as long. `cursor`: the column of a table of a database by which the
    newest rows are told.

    Raises Unavailable for a place that is away, BadInput for one that refuses, or that carries a password.
    """
    scheme = urlsplit(address).scheme if "://" in address else ""
    is_pattern = any(letter in address for letter in "*?[") and not Path(address).exists()
    with tempfile.TemporaryDirectory(prefix="tiltyard-") as folder:
        if scheme in ("http", "https"):
            yield Brought(_downloaded(settings, address, Path(folder)))
        elif scheme == "kafka":
            raise BadInput("A topic tells no types; write its contract by hand (docs/reference/sources.md).")
        elif scheme == "" and Path(address).is_dir():
            raise BadInput(
                f"{address} is a folder; name the files in it, like {address.rstrip('/')}/*.csv without quotes."
            )
        elif scheme == "" and not is_pattern:
            yield Brought(Path(address))
        elif "#" in address:
            table = _place(address, connection, cursor or "cursor")
            yield Brought(_read(address, connection, cursor, Path(folder)), table)
        else:
            if scheme not in ("", "file", "s3"):
                _place(address, connection)  # says what it could be
            pattern = _place(address, connection) if is_pattern else None
            yield Brought(_newest(settings, address, connection, Path(folder)), pattern)


def _place(address: str, connection: str | None, cursor: str | None = None) -> Fetch:
    said = {"from": address, "connection": connection, "cursor": cursor}
    try:
        return Fetch.model_validate({name: value for name, value in said.items() if value is not None})
    except ValidationError as error:  # without the address: it may carry a password
        raise BadInput(
            f"The address cannot be used: {error.errors()[0]['msg'].removeprefix('Value error, ')}."
        ) from None


def _downloaded(settings: Settings, address: str, folder: Path) -> Path:
    parts = urlsplit(address)
    if parts.password is not None:
        raise BadInput("The address carries a password, which has no place in a text; download the file yourself.")
    path = folder / (Path(unquote(parts.path)).name or "export")
    shown = address.partition("?")[0]  # what follows may be a signature
    try:
        datasets.download(address, path, timeout_s=settings.data_timeout_s)
    except Unavailable as error:
        raise Unavailable(f"{shown} cannot be had ({error}); try again later, or download it yourself.") from None
    return path


def _newest(settings: Settings, address: str, connection: str | None, folder: Path) -> Path:
    """The newest of the files that a pattern names."""
    found = credentials.find(connection, credentials.from_environment)
    with files.listed(address, found, settings) as present:
        if not present:
            raise BadInput(f"{address} names no file; mend the address.")
        newest = max(present, key=lambda file: (file.written, file.path))
        path = folder / Path(newest.path).name
        newest.fetch(path)
    return path


def _read(address: str, connection: str | None, cursor: str | None, folder: Path) -> Path:
    """Rows of a table of a database, as Parquet."""
    table = table_of(address)[2]
    path = folder / f"{table.replace('/', '_').replace('.', '_')}.parquet"
    found = credentials.find(connection, credentials.from_environment)
    window = Window(cursor, None, None) if cursor else None
    database.read(address, found, (), window, path, limit=MOST_ROWS)
    return path
