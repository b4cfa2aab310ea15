"""The landing zone: which files are due, whether each is whole and fits its contract, and the quarantine.

A file that cannot be taken is moved to quarantine whole, with its reason beside it. What only shows on reading the
rows is found later, by `ingest`.
"""

import codecs
import csv
import gzip
import hashlib
import json
import logging
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import BinaryIO, cast

import duckdb

from tiltyard.files import whole
from tiltyard.lake import parquet, text
from tiltyard.prepare import contracts
from tiltyard.prepare.contracts import SourceContract, TableContract
from tiltyard.settings import Settings

log = logging.getLogger(__name__)

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
    """Number of its rows; 0 until they were staged."""

    @classmethod
    def of(cls, path: Path, table: TableContract | None) -> "LandingFile":
        """The file at `path`. Raises FileNotFoundError when it is gone."""
        stat = path.stat()
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
                first = file.readline()
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
        except UnicodeDecodeError:
            self.reason = f"it is not {form.encoding.upper()} text"
            return
        self.header = tuple(next(csv.reader([line], delimiter=form.delimiter), ()))
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


def due_files(
    settings: Settings, contract: SourceContract, as_of: datetime
) -> Iterator[tuple[Path, TableContract | None, str | None]]:
    """Every file that is due at `as_of`, in order of table and name: (path, contract of its table, complaint).

    The complaint says what is wrong with the file's name or folder; None when nothing is.
    """
    root = settings.landing / contract.name
    if not root.is_dir():
        return
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        table = contract.table(folder.name)
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name.endswith((".part", ".tmp")):
                continue
            day = contracts.day_of(path.name)
            if day is not None and contracts.due(path.name) > as_of:
                continue
            if not path.is_file():
                if day is not None:
                    log.warning("%s is named like a delivery and is no file; it is left alone.", path)
                continue
            complaint = None
            if table is None and folder.is_symlink():
                log.warning("%s leads elsewhere and is no table of %s; it is left alone.", folder, contract.name)
                break
            if table is None:
                complaint = f"there is no table '{folder.name}' in the contract of {contract.name}"
            elif day is None:
                complaint = "its name is not like 2016-03-01.csv, .csv.gz or .parquet"
            yield path, table, complaint


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits. Raises FileNotFoundError when it is gone."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    with whole(target.with_name(target.name + ".reason.json")) as part:
        part.write_text(json.dumps(note, indent=1) + "\n")
    with whole(target) as part:  # the quarantine may be another disk, onto which nothing can be renamed
        shutil.copy2(file.path, part)


def path_literal(path: Path) -> str:
    """An SQL literal of one path, in which a bracket in a folder's name is no pattern."""
    return text(re.sub(r"([\[*?])", r"[\1]", str(path)))


def first_line(error: Exception) -> str:
    """What an error of DuckDB says, without its drawing of the place."""
    return str(error).strip().splitlines()[0].rstrip(".:")


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
    missing = [name for name in names if name not in header]
    extra = [name for name in header if name not in names]
    twice = sorted({name for name in header if header.count(name) > 1})
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
