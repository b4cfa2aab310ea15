"""What a file is, its content says, not its name: Parquet as it lies, and CSV of every kind as a Parquet copy."""

import csv
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.lake import parquet, quoted, text
from tiltyard.leak.engine import first_row, nearest
from tiltyard.words import counted, ended

_FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"ARROW1": "an Arrow (Feather) file",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
    b"\x80": "a pickle",
}
"""How files begin that are no tables → what they are."""


def as_parquet(connection: duckdb.DuckDBPyConnection, path: Path, copy: Path) -> tuple[Path, list[str]]:
    """The file itself when it is Parquet, or a Parquet copy of a CSV; and what there is to say about it.

    Raises BadInput for whatever is neither.
    """
    head = _head(path)
    notes: list[str] = []
    if head.startswith(b"PAR1"):
        if path.suffix and path.suffix.lower() not in (".parquet", ".pq"):
            notes.append(f"{path.name} is Parquet, whatever its ending says; it was read as that.")
        try:
            connection.execute(f"describe select * from {parquet(path)}")
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise BadInput(f"{path} begins like Parquet but cannot be read as such: {_first_line(error)}") from None
        return path, notes
    _refuse_foreign(path, head)
    packed = "gzip" if head.startswith(b"\x1f\x8b") else "zstd" if head.startswith(b"\x28\xb5\x2f\xfd") else None
    encoding = "utf-16" if head.startswith(b"\xff\xfe") else None
    if not packed and not encoding and b"\0" in head:
        raise BadInput(f"{path} is neither Parquet nor text; save the table as Parquet or CSV.")
    if not packed and re.match(rb"\s*(\[\s*)?\{|\s*<", head):
        language = "XML or HTML" if head.lstrip().startswith(b"<") else "JSON"
        raise BadInput(f"{path} looks like {language}; save the table as Parquet or CSV.")
    if path.suffix.lower() in (".parquet", ".pq"):
        notes.append(f"{path.name} is text, whatever its ending says; it was read as CSV.")
    _from_csv(connection, path, copy, packed, encoding, notes)
    return copy, notes


def _head(path: Path) -> bytes:
    """The file's first bytes. Raises BadInput where there is no file that can be read more than once."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise BadInput(f"{path} is a folder; name one Parquet or CSV file in it.")
        if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):  # opening it would wait for whoever writes
            raise BadInput(f"{path} is a pipe; an audit reads its file more than once, so save the table to a file.")
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        if path.is_symlink():
            raise BadInput(f"{path} is a link to a file that is not there: {path.readlink()}.") from None
        near = nearest(path.name, (entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else ""
        raise BadInput(ended(f"There is no file {path}{near if 'did you mean' in near else ''}")) from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from None
    if not head:
        raise BadInput(f"{path} is empty: 0 bytes.")
    return head


def _refuse_foreign(path: Path, head: bytes) -> None:
    """Raises BadInput for a file that begins like something that is no table."""
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            raise BadInput(f"{path} is {kind}; save the table as Parquet or CSV.")
    if head.startswith(b"\xfe\xff"):
        raise BadInput(f"{path} is UTF-16 of the kind that begins with the high byte; save it as UTF-8.")


def _from_csv(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    copy: Path,
    packed: str | None,
    encoding: str | None,
    notes: list[str],
) -> None:
    """Write `copy`. Delimiter and quotes are sniffed; times stay text here, for the whole column to decide."""
    fixed = "auto_type_candidates = ['BOOLEAN', 'BIGINT', 'DOUBLE', 'VARCHAR'], null_padding = false"
    if packed:
        fixed += f", compression = '{packed}'"
    # the quick look at the file's head first; all of it where that was not enough
    tries = [(code, size) for code in ([encoding] if encoding else ["utf-8", "latin-1"]) for size in (20_480, -1)]
    trouble = ""
    for code, size in tries:
        how = f"hive_partitioning = false, encoding = '{code}', sample_size = {size}, {fixed}"
        source = f"read_csv({text(str(path))}, {how})"
        try:
            described = connection.execute(f"describe select * from {source}").fetchall()
            names = [name for name, *_ in described]
            delimiter = next((mark for mark in ",;\t|" if mark in names[0]), None) if len(names) == 1 else None
            if delimiter and packed:
                raise BadInput(f"{path} cannot be read as CSV: it was cut off, or its lines differ in length.")
            if delimiter:  # lines that do not fit made the sniffer give up
                raise BadInput(_uneven(path, delimiter, code))
            comma = _decimal_comma(connection, source, described)
            connection.execute(f"copy (select * from {comma or source}) to {text(str(copy))} (format parquet)")
            if comma:
                notes.append(f"{path.name}: its numbers are written with a decimal comma.")
        except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.BinderException) as error:
            trouble = trouble or str(error)
            continue
        if code == "latin-1":
            notes.append(f"{path.name} is not UTF-8; it was read as Latin-1.")
        _without_mark(connection, copy)
        return
    line = re.search(r"Line: (\d+)", trouble)
    where = f" (line {line[1]})" if line else ""
    reasons = [part.strip() for part in trouble.splitlines()[1:] if part.strip()]
    raise BadInput(f"{path} cannot be read as CSV{where}: {(reasons or [trouble])[0].rstrip('.')}.")


def _decimal_comma(
    connection: duckdb.DuckDBPyConnection, source: str, described: Sequence[Sequence[str]]
) -> str | None:
    """The same source with 0,5 for a half, where that makes numbers of more columns; None where it does not."""
    if len(described) < 2 or all(kind != "VARCHAR" for _, kind, *_ in described):
        return None
    with_comma = source.removesuffix(")") + ", decimal_separator = ',')"
    try:
        turned = connection.execute(f"describe select * from {with_comma}").fetchall()
    except duckdb.Error:  # the comma separates columns
        return None
    numbers = [sum(kind == "DOUBLE" for _, kind, *_ in columns) for columns in (described, turned)]
    same = [name for name, *_ in described] == [name for name, *_ in turned]
    return with_comma if same and numbers[1] > numbers[0] else None


def _uneven(path: Path, delimiter: str, encoding: str) -> str:
    """What is wrong with a CSV whose lines have different numbers of fields: the first line that does not fit."""
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        lines = csv.reader(file, delimiter=delimiter)
        header = next(lines)
        for line in lines:
            if line and len(line) != len(header):
                where = f"line {lines.line_num} has {counted(len(line), 'field')}, its header {len(header)}"
                return f"{path} cannot be read as CSV: {where}."
    return f"{path} cannot be read as CSV: its columns are separated by {delimiter!r} in the header and not below."


def _without_mark(connection: duckdb.DuckDBPyConnection, copy: Path) -> None:
    """UTF-16 leaves its byte order mark in the name of the first column."""
    raw = parquet(copy)
    first = connection.execute(f"describe select * from {raw}").fetchall()[0][0]
    if first.startswith("\ufeff"):
        unmarked = f"select * rename ({quoted(first)} as {quoted(first[1:])}) from {raw}"
        with whole(copy) as part:
            connection.execute(f"copy ({unmarked}) to {text(str(part))} (format parquet)")


def renamed(connection: duckdb.DuckDBPyConnection, path: Path, source: Path, stored: Mapping[str, str]) -> list[str]:
    """A note for each column whose name another one has, but for upper and lower case: DuckDB calls it x_1."""
    folded = {name.casefold(): name for name in stored}
    suspects = {name: folded.get(re.sub(r"_\d+$", "", name).casefold(), name) for name in stored}
    suspects = {name: first for name, first in suspects.items() if first != name}
    if not suspects:
        return []
    if source == path:
        names = connection.execute(f"select name from parquet_schema({text(str(path))})").fetchall()
        own = {name for (name,) in names}
    else:
        options = "hive_partitioning = false, header = false, all_varchar = true, ignore_errors = true"
        head = f"read_csv({text(str(path))}, {options})"
        try:
            own = set(first_row(connection, f"select * from {head} limit 1"))
        except (duckdb.Error, AssertionError):  # in another encoding; the note is all that is lost
            return []
    return [
        f"Two columns are called {first}; the second one is called {name} here."
        for name, first in suspects.items()
        if name not in own
    ]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") + "."
