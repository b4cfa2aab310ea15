"""A table that is not a file here: at an http(s) address, in S3, in a folder of many files, or in a database.

A sample of it is brought as a file, with what the contract will say of where its rows are fetched from: of one file
alone nothing, since that is all there is, of a pattern of files and of a table of a database their address.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from tiltyard.errors import BadInput, Unavailable
from tiltyard.prepare import datasets
from tiltyard.prepare.fetch import credentials, database, files
from tiltyard.prepare.fetch.database import Window
from tiltyard.prepare.places import Fetch, table_of
from tiltyard.settings import Settings

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
    with files.listed(address, found, settings) as listed:
        if not listed:
            raise BadInput(f"{address} names no file; mend the address.")
        newest = max(listed, key=lambda file: (file.written, file.path))
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
