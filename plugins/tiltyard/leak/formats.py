"""What a file is, its content says, not its name: Parquet as it lies, and CSV of every kind as a Parquet copy."""

import codecs
import csv
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb

from tiltyard import casts, file_rows
from tiltyard.errors import BadInput
from tiltyard.file_rows import parquet
from tiltyard.files import whole
from tiltyard.lake import quoted, text
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
_NUMBERS = ("BOOLEAN", "BIGINT", "DOUBLE")
"""What a column of a CSV may be beside text, the narrowest first."""
_HEAD = 20_480
"""Rows that tell which columns may be numbers."""
_AT_ONCE = 250
"""Columns that one query asks about: thousands at once cost more than one query each."""
_NO_NUMBER = "a column of numbers has a text"


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
    # the quick look at the file's head first; all of it where that was not enough
    trouble = ""
    for place, code, size in _tries(path, copy, packed, encoding):
        source = file_rows.csv_of_some_kind(place, encoding=code, packed=packed, rows=size)
        try:
            names = [name for name, *_ in connection.execute(f"describe select * from {source}").fetchall()]
            delimiter = next((mark for mark in ",;\t|" if mark in names[0]), None) if len(names) == 1 else None
            if delimiter and packed:
                raise BadInput(f"{path} cannot be read as CSV: it was cut off, or its lines differ in length.")
            if delimiter:  # lines that do not fit made the sniffer give up
                raise BadInput(uneven(path, path, delimiter, code))
            if _write_typed(connection, source, names, copy) == ",":
                notes.append(f"{path.name}: its numbers are written with a decimal comma.")
        except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.BinderException) as error:
            trouble = trouble or str(error)
            continue
        if code == "latin-1":
            notes.append(f"{path.name} is not UTF-8; it was read as Latin-1.")
        if place != path:
            notes.append(f"{path.name} is not UTF-8; it was read as Windows-1252.")
        _without_mark(connection, copy)
        return
    line = re.search(r"Line: (\d+)", trouble)
    where = f" (line {line[1]})" if line else ""
    reasons = [part.strip() for part in trouble.splitlines()[1:] if part.strip()]
    raise BadInput(f"{path} cannot be read as CSV{where}: {(reasons or [trouble])[0].rstrip('.')}.")


def _tries(path: Path, copy: Path, packed: str | None, encoding: str | None) -> Iterator[tuple[Path, str, int]]:
    """(where the text lies, its encoding for DuckDB, rows that the sniffer looks at), the likeliest first."""
    for code in [encoding] if encoding else ["utf-8", "latin-1"]:
        yield path, code, 20_480
        yield path, code, -1
    if not packed and not encoding:  # DuckDB's Latin-1 has no euro, and no dash
        windows = copy.with_name(f"{copy.name}.utf8")
        try:
            with suppress(UnicodeDecodeError), path.open(encoding="utf-8") as file:
                while file.read(1 << 20):
                    pass
                return
            with path.open("rb") as before, windows.open("wb") as after:
                shutil.copyfileobj(codecs.EncodedFile(before, "utf-8", "cp1252"), after)
            yield windows, "utf-8", -1
        except UnicodeDecodeError:
            return
        finally:
            windows.unlink(missing_ok=True)


def _write_typed(connection: duckdb.DuckDBPyConnection, source: str, names: Sequence[str], copy: Path) -> str:
    """Write the rows of a CSV, a column of numbers as numbers; returns what stands before their decimals.

    The head tells which columns may be numbers. Where that is wrong of one further down, it is found out which, and
    they stay text.
    """
    head = f"(select * from {source} limit {_HEAD})"
    kinds, mark = _kinds(connection, head, dict.fromkeys(names, _NUMBERS), "."), "."
    with_comma = _kinds(connection, head, dict.fromkeys(names, _NUMBERS), ",")
    if list(with_comma.values()).count("DOUBLE") > list(kinds.values()).count("DOUBLE"):
        kinds, mark = with_comma, ","
    try:
        _copy(connection, source, names, kinds, mark, copy)
    except duckdb.InvalidInputException as error:
        if _NO_NUMBER not in str(error):
            raise
        sure = _kinds(connection, source, {name: _from(kind) for name, kind in kinds.items()}, mark)
        _copy(connection, source, names, sure, mark, copy)
    return mark


def _from(kind: str) -> Sequence[str]:
    """A type, and those that its values may be of as well."""
    return _NUMBERS[_NUMBERS.index(kind) :] if kind != "BOOLEAN" else ("BOOLEAN",)


def _kinds(
    connection: duckdb.DuckDBPyConnection, source: str, asked: Mapping[str, Sequence[str]], mark: str
) -> dict[str, str]:
    """Column → the first of its types that every value of it is like, of those that have one."""
    found: dict[str, str] = {}
    columns = list(asked)
    for start in range(0, len(columns), _AT_ONCE):
        part = [(name, kind) for name in columns[start : start + _AT_ONCE] for kind in asked[name]]
        counts = ", ".join(
            f"count({quoted(name)}) > 0 and count({quoted(name)}) = count(*) filter "
            f"({casts.is_like(quoted(name), kind, decimal=mark)})"
            for name, kind in part
        )
        fits = first_row(connection, f"select {counts} from {source}") if part else ()
        for (name, kind), is_fitting in zip(part, fits, strict=True):
            if is_fitting:
                found.setdefault(name, kind)
    return found


def _copy(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    names: Sequence[str],
    kinds: Mapping[str, str],
    mark: str,
    copy: Path,
) -> None:
    """Write the rows with these types. Raises InvalidInputException, which says _NO_NUMBER, for a value of another."""
    values = []
    for name in names:
        column = value = quoted(name)
        if kind := kinds.get(name):
            number = f"replace({column}, ',', '.')" if mark == "," else column
            is_like = casts.is_like(column, kind, decimal=mark)
            value = f"case when {column} is null or ({is_like}) then cast({number} as {kind}) "
            value += f"else error({text(_NO_NUMBER)}) end"
        values.append(f"{value} as {column}")
    connection.execute(f"copy (select {', '.join(values)} from {source}) to {text(str(copy))} (format parquet)")


def uneven(path: Path, copy: Path, delimiter: str, encoding: str = "utf-8-sig") -> str:
    """What is wrong with a CSV whose lines have different numbers of fields: the first line that does not fit.
    `copy`: where its text is read, in that encoding."""
    with copy.open(encoding=encoding, errors="replace", newline="") as file:
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
        names = connection.execute(f"select name from {file_rows.parquet_names(path)}").fetchall()
        own = {name for (name,) in names}
    else:
        head = file_rows.csv_of_some_kind(path, with_header=False)
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
