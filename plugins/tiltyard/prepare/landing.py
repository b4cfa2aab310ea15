"""The landing zone: which files are due, whether each is whole and fits its contract, and the quarantine.

A file that cannot be taken is moved to quarantine whole, with its reason beside it. What only shows on reading the
rows is found later, by `ingest`.
"""

import codecs
import csv
import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from glob import escape
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, cast

import duckdb

from tiltyard.file_rows import parquet
from tiltyard.files import whole
from tiltyard.prepare import contracts
from tiltyard.prepare.contracts import SourceContract, TableContract
from tiltyard.settings import Settings

_WIDENS = {
    "BIGINT": {"INTEGER", "SMALLINT", "TINYINT", "UINTEGER", "USMALLINT", "UTINYINT"},
    "INTEGER": {"SMALLINT", "TINYINT", "USMALLINT", "UTINYINT"},
    "DOUBLE": {"FLOAT"},
}
"""A contract's type → the types of a Parquet file that fit into it without loss."""
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
"""What parts the columns of a text file, in words."""
_BLOCK = 1 << 20
"""Bytes that are read at once."""
_LONGEST_HEADER = 1 << 20
"""Bytes that a header has no more than: a packed line without end would be held in memory whole."""


@dataclass
class LandingFile:
    """One file of the landing zone. It is made from its name and status; `inspect` and `ingest` fill in the rest."""

    path: Path
    """Where it lies."""
    contract: TableContract | None
    """Contract of its table; None when the source has no such table."""
    stat: tuple[str, int, int]
    """Name, size in bytes and time of change in nanoseconds: a file of which none has changed is not read again."""
    sha256: str = ""
    """Digest of its bytes; empty until it was read."""
    header: tuple[str, ...] = ()
    """Names of its columns; empty until it was inspected."""
    reason: str | None = None
    """Why it cannot be taken; None while nothing speaks against it."""
    has_rows: bool = True
    """Whether anything follows the header."""
    rows: int = 0
    """Number of its rows that land; 0 until they were staged."""
    repeated: int = 0
    """Number of its rows that came before, and were dropped."""
    corrections: int = 0
    """Number of its rows whose key came before with other values."""

    @classmethod
    def of(cls, path: Path, table: TableContract | None) -> "LandingFile":
        """The file at `path`, and not what it may lead to. Raises FileNotFoundError when it is gone."""
        stat = path.lstat()
        return cls(path, table, (path.name, stat.st_size, stat.st_mtime_ns))

    @property
    def table(self) -> TableContract:
        """The contract of its table, for a file that has one."""
        assert self.contract is not None
        return self.contract

    @property
    def is_parquet(self) -> bool:
        """Whether it is Parquet, by its name."""
        return self.path.suffix == ".parquet"

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns by the names that the contract gives them, in its order."""
        names = {self.table.header(name): name for name in self.table.columns}
        return tuple(names[header] for header in self.header)

    def inspect(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Read its columns, and whether it is whole: sets `header`, `has_rows` and `reason`."""
        if self.stat[1] == 0:
            self.reason = "it is empty (0 bytes)"
        elif self.is_parquet:
            self._inspect_parquet(connection)
        else:
            self._inspect_csv()

    def _inspect_csv(self) -> None:
        form = self.table.timing.format
        try:
            with _opened(self.path, form.encoding) as file:
                first = file.readline(_LONGEST_HEADER)
                if len(first) == _LONGEST_HEADER:
                    self.reason = f"its first line is no header: it has more than {_LONGEST_HEADER:,} bytes"
                    return
                last = first
                while block := file.read(_BLOCK):
                    last = block
                self.has_rows = last is not first
            if not last.endswith(b"\n"):
                self.reason = "its last line is cut off (no line break at the end)"
                return
            line = first.decode("utf-8-sig").rstrip("\r\n")
        except (EOFError, OSError, zlib.error) as error:
            self.reason = f"it cannot be unpacked, or is cut off ({error})"
            return
        except UnicodeError:
            self.reason = f"it is not {form.encoding.upper()} text"
            return
        try:
            self.header = tuple(next(csv.reader([line], delimiter=form.delimiter), ()))
        except csv.Error as error:
            self.reason = f"its header cannot be read ({error})"
            return
        self.reason = _misfit(self.table, self.header, line)

    def _inspect_parquet(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            described = connection.execute(f"describe select * from {parquet(self.path)}").fetchall()
            count = connection.execute(f"select count(*) from {parquet(self.path)}").fetchone()
        except duckdb.Error as error:
            self.reason = f"it is no readable Parquet file, or is cut off ({first_line(error)})"
            return
        self.has_rows = count != (0,)
        types = {name: kind for name, kind, *_ in described}
        self.header = tuple(types)
        self.reason = _misfit(self.table, self.header, None)
        if self.reason is None:
            wrong = [
                f"'{header}' is {types[header]} instead of {kind}"
                for header, kind in ((self.table.header(name), kind) for name, kind in self.table.columns.items())
                if types[header] != kind and types[header] not in _WIDENS.get(kind, ())
            ]
            self.reason = f"column {'; '.join(wrong)}" if wrong else None


_COULD_DELIVER = re.compile(
    r"^[0-9]|\.(csv|gz|json|jsonl|ndjson|parquet|pq|tsv|xls|xlsx|zip|zst)$", re.ASCII | re.IGNORECASE
)
"""Names of which somebody may have meant a delivery. A README or a checksum beside them is none."""


class LeftAlone:
    """What lies in the landing zone and is no delivery: it is counted, and nobody touches it."""

    def __init__(self) -> None:
        self._found: dict[tuple[Path, str], tuple[Path, int]] = {}

    def add(self, path: Path, why: str, count: int = 1, folder: Path | None = None) -> None:
        """Count so many things of a folder, of which `path` is the first. `why`: what it is, or does, instead."""
        first, before = self._found.get((folder or path.parent, why), (path, 0))
        self._found[folder or path.parent, why] = (first, before + count)

    @property
    def sentences(self) -> tuple[str, ...]:
        """A sentence for each folder and reason."""
        return tuple(
            f"{printable(path)} {why}; it is left alone{f', like {count - 1:,} more' if count > 1 else ''}"
            for (_, why), (path, count) in sorted(self._found.items())
        )


def due_files(
    settings: Settings, contract: SourceContract, as_of: datetime, left: LeftAlone
) -> Iterator[tuple[Path, TableContract | None, str | None]]:
    """Every file that is due at `as_of`, in order of table and name: (path, contract of its table, complaint).

    The complaint says what is wrong with the file's name or folder; None when nothing is. What is no delivery by its
    kind or its place is told to `left`.
    """
    for folder in entries(settings.landing / contract.name, left):
        if folder.name.startswith("."):
            continue
        table = contract.table(folder.name)
        if not _is(folder, Path.is_dir):
            left.add(folder, "lies beside the folders of the tables, in none of them")
        elif table is None and folder.is_symlink():
            left.add(folder, f"leads elsewhere and is no table of {contract.name}")
        elif table is None and not contracts.is_name(folder.name):
            left.add(folder, f"is no folder of a table of {contract.name}")
        else:
            yield from _due_in(folder, contract, table, as_of, left)


def _due_in(
    folder: Path, contract: SourceContract, table: TableContract | None, as_of: datetime, left: LeftAlone
) -> Iterator[tuple[Path, TableContract | None, str | None]]:
    for path in entries(folder, left):
        if path.name.startswith(".") or path.name.endswith((".part", ".tmp")):
            if _is(path, Path.is_file):
                left.add(path, "is hidden, or still being written")
            continue
        day = contracts.day_of(path.name)
        if day is not None and contracts.due(path.name) > as_of:
            continue
        if _is(path, Path.is_symlink):  # what it leads to may be nobody's business
            left.add(path, "leads elsewhere, and a delivery is a file of its own")
        elif _is(path, Path.is_dir):
            if deep := _files_below(path):
                left.add(deep[0], "lies a folder too deep", len(deep), folder)
            elif day is not None:
                left.add(path, "is named like a delivery and is no file")
        elif not _is(path, Path.is_file):
            named = "is named like a delivery and is" if day is not None else "is"
            left.add(path, f"{named} no file (a pipe)")
        elif day is None and not _COULD_DELIVER.search(path.name):
            left.add(path, "is named like no delivery, and holds none by its ending")
        elif table is None:
            yield path, table, f"there is no table '{folder.name}' in the contract of {contract.name}"
        else:
            yield path, table, None if day is not None else "its name is not like 2016-03-01.csv, .csv.gz or .parquet"


def strangers(settings: Settings) -> tuple[str, ...]:
    """What lies in the landing zone itself and is the folder of no source, a sentence each. Those of sources with a
    contract are none, whether they are active or not."""
    left, known = LeftAlone(), {*settings.sources, *contracts.sources(settings)}
    for path in entries(settings.landing, left):
        if path.name not in known and not path.name.startswith("."):
            left.add(path, "is the folder of no source that has a contract")
    return left.sentences


def entries(folder: Path, left: LeftAlone) -> list[Path]:
    """What a folder holds, sorted; nothing where it is not there. One that cannot be looked into is left alone."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        left.add(folder, f"cannot be looked into ({error.strerror})")
        return []


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except OSError:  # of a folder that one may list and not enter
        return False


def _files_below(folder: Path) -> list[Path]:
    """The files in a folder and in those in it, hidden ones left out, in order."""
    return sorted(
        Path(place, name) for place, _, names in os.walk(folder) for name in names if not name.startswith(".")
    )


def printable(path: Path) -> str:
    """A path for a sentence, of bytes that are no UTF-8 as JSON can carry them."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits. Raises FileNotFoundError when it is gone, and OSError where
    it leads elsewhere by now."""
    with _own(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own(path: Path) -> BufferedReader:
    """A file, opened to be read. Raises OSError where a link or a pipe lies there by now."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no file any more", str(path))
    return file


def put_away(settings: Settings, source: str, file: LandingFile, reason: str, night: date) -> str:
    """Move a file out of the landing zone, whole, with its reason beside it. Returns the reason.

    Where the quarantine cannot take it, or the landing zone does not let it go, it stays, which the reason then says:
    it is refused again on the next night.
    """
    try:
        _copy(settings, source, file, reason, night)
    except OSError as error:
        return f"{reason}; it stays in the landing zone, for {settings.quarantine} does not take it ({error.strerror})"
    try:
        file.path.unlink(missing_ok=True)
    except OSError as error:
        return f"{reason}; it stays in the landing zone, for {file.path.parent} does not let it go ({error.strerror})"
    return reason


def lies(settings: Settings, source: str, file: str) -> bool:
    """Whether a file that was refused, `table/name`, lies in quarantine or, where that did not take it, in the landing
    zone still."""
    folder, _, name = file.rpartition("/")
    put = settings.quarantine / source / folder
    if "\\" in name:  # of bytes that are no UTF-8: it is not found by its name
        return True
    return (settings.landing / source / file).exists() or (put / name).exists() or any(put.glob(f"*-{escape(name)}"))


def _copy(settings: Settings, source: str, file: LandingFile, reason: str, night: date) -> None:
    """Copy a file into quarantine, with its reason. The landing zone still has it."""
    folder = settings.quarantine / source / file.path.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.path.name
    if target.exists():  # an earlier one of this name lies there
        target = folder / f"{file.sha256[:12]}-{file.path.name}"
    note = {
        "source": source,
        "table": file.path.parent.name,
        "file": file.path.name,
        "reason": reason,
        "sha256": file.sha256,
        "bytes": file.stat[1],
        "night": night.isoformat(),
    }
    with whole(target.with_name(target.name + ".reason.json"), lasting=True) as part:
        part.write_text(json.dumps(note, indent=1) + "\n")
    with whole(target, lasting=True) as part:  # the quarantine may be another disk, onto which nothing can be renamed
        with _own(file.path) as before, part.open("wb") as after:
            shutil.copyfileobj(before, after)
            told = os.fstat(before.fileno())
        os.utime(part, ns=(told.st_atime_ns, told.st_mtime_ns))


def first_line(error: Exception) -> str:
    """What an error of DuckDB says, without its drawing of the place."""
    said = str(error).strip().splitlines()[0].rstrip(".:")
    return said.removeprefix("Invalid Input Error: ")


@contextmanager
def in_utf8(files: Sequence[LandingFile]) -> Iterator[list[Path]]:
    """Where the text of these files can be read as UTF-8: where they lie, or copies of their names for as long."""
    with tempfile.TemporaryDirectory(prefix="tiltyard-") as folder:
        yield [_transcoded(file, Path(folder) / str(place)) for place, file in enumerate(files)]


def _transcoded(file: LandingFile, folder: Path) -> Path:
    encoding = file.table.timing.format.encoding
    if file.is_parquet or encoding == "utf-8":
        return file.path
    folder.mkdir()
    copy = folder / file.path.name
    with (
        _opened(file.path, encoding) as before,
        closing(gzip.open(copy, "wb", compresslevel=1) if copy.suffix == ".gz" else copy.open("wb")) as after,
    ):
        shutil.copyfileobj(before, cast(BinaryIO, after))
    return copy


@contextmanager
def _opened(path: Path, encoding: str) -> Iterator[BinaryIO]:
    """The bytes of a text file, unpacked and in UTF-8."""
    with closing(gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
        if encoding == "utf-8":
            yield cast(BinaryIO, file)
        else:
            yield cast(BinaryIO, codecs.EncodedFile(cast(BinaryIO, file), "utf-8", encoding))


def _misfit(table: TableContract, header: Sequence[str], line: str | None) -> str | None:
    """How `header` differs from the contract, in words; None when it fits. The order is free.

    `line` is the header of a text file as it stands there; None for a Parquet file.
    """
    if line is not None and len(header) == 1 and len(table.columns) > 1:
        agreed = table.timing.format.delimiter
        for delimiter, name in _DELIMITERS.items():
            if delimiter in line:
                return f"its columns are parted by {name} instead of {_DELIMITERS.get(agreed, repr(agreed))}"
    names = [table.header(name) for name in table.columns]
    there = set(header)
    missing = [name for name in names if name not in there]
    extra = [name for name in header if name not in names]
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        return f"column {_list(twice)} is there twice"
    if missing and extra:
        return f"column {_list(missing)} is missing and {_list(extra)} is not in the contract (renamed?)"
    if missing:
        return f"column {_list(missing)} is missing"
    return f"column {_list(extra)} is not in the contract" if extra else None


def _list(names: Sequence[str], most: int = 5) -> str:
    """Names for a sentence; of long names and long lists the beginning."""
    shown = ", ".join(f"'{name[:60]}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
