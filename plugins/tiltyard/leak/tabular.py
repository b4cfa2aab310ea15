"""Anybody's table: a Parquet or CSV file that was never near this project, as a relation that SQL can judge.

What a file is, its content says, not its name. CSV becomes Parquet in a temporary folder, once, so that every later
pass is cheap. Text that holds times is read as times: ISO 8601 with or without a zone, day/month/year and
month/day/year (which of the two, the column as a whole decides), names of months, a clock of 12 hours. Whatever was
decided or could not be read is told in `notes`. Times without a zone count as UTC.
"""

import csv
import difflib
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.lake import quoted, text
from tiltyard.leak.instants import DATES, PLACEHOLDERS, unit_of

HEAD = 2_000
"""Rows, spread over the file, that are looked at to see which text columns hold times."""
MOSTLY = 0.8
"""From this share of its values on that look like times, a text column is taken for one that holds times."""
NUMBERS = frozenset(
    {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT",
     "DOUBLE"}
)  # fmt: skip
_WIDE_NUMBERS = ("DECIMAL", "HUGEINT", "UHUGEINT", "BIGNUM")
_TIMES = ("TIMESTAMP", "DATE")
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
_DMY = r"^\s*(\d{1,2})[/.-](\d{1,2})[/.-](\d{4}|\d{2})(?:\s|T|$)"
_MONTH = r"[A-Za-z]{3,9}"
_LIKE_A_TIME = re.compile(
    rf"^\s*(\d{{4}}[-/]\d{{1,2}}[-/]\d{{1,2}}([T ]\d.*)?|\d{{1,2}}[/.-]\d{{1,2}}[/.-](\d{{4}}|\d{{2}})([T ]\d.*)?"
    rf"|({_MONTH}, )?\d{{1,2}}[ -]{_MONTH}[ -]\d{{4}}( \d.*)?|{_MONTH} \d{{1,2}},? \d{{4}}( \d.*)?)\s*$"
)
_NAMED = [
    f"{day}{clock}"
    for day in ("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%a, %d %b %Y")
    for clock in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
]


@dataclass(frozen=True)
class Table:
    """A view in a DuckDB connection: `relation`, with the columns under the file's own names."""

    path: Path
    relation: str
    columns: Mapping[str, str]
    """Name → DuckDB type, after text that holds times was read as times."""
    rows: int
    row_number: str
    """A column of the view that is not in the file: the row's place in it, from 0."""
    notes: tuple[str, ...]

    def check(self, column: str, option: str) -> None:
        """Raises BadInput when there is no such column; it names the nearest."""
        if column not in self.columns:
            raise BadInput(
                f"{option}: {self.path.name} has no column '{column}'{nearest(column, self.columns)}{self._few()}."
            )

    def _few(self) -> str:
        if len(self.columns) > 1:
            return ""
        return f"; it has one column only, '{next(iter(self.columns))}': separate columns by one of , ; | or a tab"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` in words, or the columns there are when none is near; '' when there are none."""
    names = list(known)
    folded = {one.casefold().replace(" ", "_"): one for one in names}
    close = difflib.get_close_matches(name.casefold().replace(" ", "_"), list(folded), n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{folded[close[0]]}'"
    shown = ", ".join(names[:12])
    return f"; it has {shown}{', …' if len(names) > 12 else ''}" if names else ""


def connect(folder: Path, *, threads: int, memory: str = "2GB") -> duckdb.DuckDBPyConnection:
    """An engine in this process that stays within `memory` and spills to `folder`."""
    config: dict[str, str | int] = {"threads": threads, "memory_limit": memory, "temp_directory": str(folder / "spill")}
    connection = duckdb.connect(config=config)
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set enable_progress_bar_print = false")
    return connection


def table(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    folder: Path,
    *,
    times: Mapping[str, str],
    known: Mapping[str, str],
    name: str = "frame",
) -> Table:
    """The file as a view called `name`.

    `known`: columns that must be there → the option that says so; `times`: those of them that must hold times.
    Raises BadInput for whatever is no table, for a missing column and for one that holds no time.
    """
    source, notes = _as_parquet(connection, path, folder / f"{name}.parquet")
    raw = f"read_parquet({text(str(source))})"
    stored = {column: kind for column, kind, *_ in connection.execute(f"describe select * from {raw}").fetchall()}
    rows = _one(connection, f"select count(*) from {raw}")[0]
    if not rows:
        raise BadInput(f"{path} has no rows.")
    whole = Table(path, quoted(name), stored, rows, "", ())
    for column, option in known.items():
        whole.check(column, option)
    notes += _renamed(connection, path, source, stored)
    read: dict[str, str] = {}
    for column in _texts_with_times(connection, raw, stored, rows, times):
        read[column], said = _from_text(connection, raw, column, path, times.get(column))
        notes += said
    for column, option in times.items():
        if column not in read and not stored[column].startswith(_TIMES):
            read[column], said = _from_column(connection, raw, column, stored[column], path, option)
            notes += said
    for column in times:
        if column not in read:  # an endless instant is a default: nothing could ever be later
            finite = f"case when isfinite({quoted(column)}) then {quoted(column)} end"
            endless = _one(connection, f"select count({quoted(column)}) - count({finite}) from {raw}")[0]
            if endless:
                read[column] = finite
                notes.append(f"{column}: {endless:,} values are infinite; they are missing.")
    for column, kind in stored.items():
        if kind.startswith(_WIDE_NUMBERS) and column not in read:
            read[column] = f"{quoted(column)}::double"
        elif kind.startswith("ENUM") or kind == "UUID":
            read[column] = f"{quoted(column)}::varchar"
    return _view(connection, whole, raw, read, notes, name)


def _view(
    connection: duckdb.DuckDBPyConnection,
    whole: Table,
    raw: str,
    read: Mapping[str, str],
    notes: list[str],
    name: str,
) -> Table:
    """Create the view; its row number gets a name that no column has."""
    number = "row"
    while number.casefold() in {column.casefold() for column in whole.columns}:
        number += "_"
    taken = any(column.casefold() == "file_row_number" for column in whole.columns)
    place = "row_number() over () - 1" if taken else "file_row_number"
    shown = ", ".join(
        f"{read[column]} as {quoted(column)}" if column in read else quoted(column) for column in whole.columns
    )
    connection.execute(
        f"create or replace view {quoted(name)} as select {shown}, {place} as {quoted(number)} from {raw}"
    )
    kinds = {column: kind for column, kind, *_ in connection.execute(f"describe {quoted(name)}").fetchall()}
    del kinds[number]
    return Table(whole.path, whole.relation, kinds, whole.rows, number, tuple(notes))


# -- what the file is -------------------------------------------------------------------------


def _as_parquet(connection: duckdb.DuckDBPyConnection, path: Path, copy: Path) -> tuple[Path, list[str]]:
    """The file itself when it is Parquet, or a Parquet copy of a CSV; and what there is to say about it."""
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
        near = nearest(path.name, (other.name for other in path.parent.iterdir())) if path.parent.is_dir() else ""
        raise BadInput(f"There is no file {path}{near if 'did you mean' in near else ''}.") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from None
    if not head:
        raise BadInput(f"{path} is empty: 0 bytes.")
    notes: list[str] = []
    if head.startswith(b"PAR1"):
        if path.suffix.lower() not in (".parquet", ".pq"):
            notes.append(f"{path.name} is Parquet, whatever its ending says; it was read as that.")
        try:
            connection.execute(f"describe select * from read_parquet({text(str(path))})")
        except duckdb.Error as error:
            raise BadInput(f"{path} begins like Parquet but cannot be read as such: {_first_line(error)}") from None
        return path, notes
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise BadInput(f"{path} is {what}; save the table as Parquet or CSV.")
    packed = "gzip" if head.startswith(b"\x1f\x8b") else "zstd" if head.startswith(b"\x28\xb5\x2f\xfd") else None
    if head.startswith(b"\xfe\xff"):
        raise BadInput(f"{path} is UTF-16 of the kind that begins with the high byte; save it as UTF-8.")
    wide = head.startswith(b"\xff\xfe")
    if not packed and not wide and b"\0" in head:
        raise BadInput(f"{path} is neither Parquet nor text; save the table as Parquet or CSV.")
    if not packed and re.match(rb"\s*(\[\s*)?\{|\s*<", head):
        what = "XML or HTML" if head.lstrip().startswith(b"<") else "JSON"
        raise BadInput(f"{path} looks like {what}; save the table as Parquet or CSV.")
    if path.suffix.lower() in (".parquet", ".pq"):
        notes.append(f"{path.name} is text, whatever its ending says; it was read as CSV.")
    _from_csv(connection, path, copy, packed, "utf-16" if wide else None, notes)
    return copy, notes


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
        source = f"read_csv({text(str(path))}, encoding = '{code}', sample_size = {size}, {fixed})"
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
    other = source.removesuffix(")") + ", decimal_separator = ',')"
    try:
        turned = connection.execute(f"describe select * from {other}").fetchall()
    except duckdb.Error:  # the comma separates columns
        return None
    numbers = [sum(kind == "DOUBLE" for _, kind, *_ in columns) for columns in (described, turned)]
    same = [name for name, *_ in described] == [name for name, *_ in turned]
    return other if same and numbers[1] > numbers[0] else None


def _uneven(path: Path, delimiter: str, encoding: str) -> str:
    """What is wrong with a CSV whose lines have different numbers of fields: the first line that does not fit."""
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        lines = csv.reader(file, delimiter=delimiter)
        header = next(lines)
        for line in lines:
            if line and len(line) != len(header):
                where = f"line {lines.line_num} has {len(line)} fields, its header {len(header)}"
                return f"{path} cannot be read as CSV: {where}."
    return f"{path} cannot be read as CSV: its columns are separated by {delimiter!r} in the header and not below."


def _without_mark(connection: duckdb.DuckDBPyConnection, copy: Path) -> None:
    """UTF-16 leaves its byte order mark in the name of the first column."""
    raw = f"read_parquet({text(str(copy))})"
    first = connection.execute(f"describe select * from {raw}").fetchall()[0][0]
    if first.startswith("\ufeff"):
        renamed = f"select * rename ({quoted(first)} as {quoted(first[1:])}) from {raw}"
        with whole(copy) as part:
            connection.execute(f"copy ({renamed}) to {text(str(part))} (format parquet)")


def _renamed(connection: duckdb.DuckDBPyConnection, path: Path, source: Path, stored: Mapping[str, str]) -> list[str]:
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
        head = f"read_csv({text(str(path))}, header = false, all_varchar = true, ignore_errors = true)"
        try:
            own = set(_one(connection, f"select * from {head} limit 1"))
        except (duckdb.Error, AssertionError):  # in another encoding; the note is all that is lost
            return []
    return [
        f"Two columns are called {first}; the second one is called {name} here."
        for name, first in suspects.items()
        if name not in own
    ]


# -- times ------------------------------------------------------------------------------------


def _texts_with_times(
    connection: duckdb.DuckDBPyConnection, raw: str, stored: Mapping[str, str], rows: int, must: Iterable[str]
) -> list[str]:
    """Text columns whose values look like times, and those that must hold them."""
    texts = [column for column, kind in stored.items() if kind == "VARCHAR"]
    found = [column for column in texts if column in set(must)]
    rest = [column for column in texts if column not in set(found)]
    for start in range(0, len(rest), 250):  # thousands of columns at once cost more than one query each
        part = rest[start : start + 250]
        names = ", ".join(quoted(column) for column in part)
        if any(column.casefold() == "file_row_number" for column in stored):
            spread = f"select {names} from {raw} limit {HEAD}"
        else:
            spread = f"select {names} from {raw} where file_row_number % {max(1, rows // HEAD)} = 0"
        values = zip(*connection.execute(spread).fetchall(), strict=True)
        for column, seen in zip(part, values, strict=True):
            there = [value for value in seen if value]
            if there and sum(bool(_LIKE_A_TIME.match(value)) for value in there) >= MOSTLY * len(there):
                found.append(column)
    return found


def _from_text(
    connection: duckdb.DuckDBPyConnection, raw: str, column: str, path: Path, option: str | None
) -> tuple[str, list[str]]:
    """SQL that reads the column's times, and notes. Raises BadInput when `option` names it and it holds none."""
    name = quoted(column)
    if option:
        filled, digits = f"nullif(trim({name}), '')", f"try_cast(trim({name}) as double)"
        values, numbers = _one(connection, f"select count({filled}), count({digits}) from {raw}")
        instants = _from_number(connection, raw, column, digits, filled) if 2 * numbers > values else None
        if instants:
            return instants
    first, second = (f"try_cast(regexp_extract({name}, {text(_DMY)}, {group}) as integer)" for group in (1, 2))
    slashed = f"regexp_matches({name}, {text(_DMY)})"
    clock = f"regexp_matches({name}, ':\\d\\d')"
    zoned = f"regexp_matches({name}, ':\\d\\d.*(Z|[+-]\\d\\d:?\\d*|[A-Za-z]+/[A-Za-z_]+|UTC|GMT)\\s*$')"
    filled, turned, by_day, by_month, dotted, timed, with_zone = _one(
        connection,
        f"select count(*) filter (trim({name}) <> ''), count(*) filter ({slashed}), count(*) filter ({first} > 12), "
        f"count(*) filter ({second} > 12), count(*) filter ({slashed} and regexp_matches({name}, '^\\s*\\d+\\.')), "
        f"count(*) filter ({clock}), count(*) filter ({zoned}) from {raw}",
    )
    notes = []
    day_first = by_day >= by_month if by_day or by_month else True
    if turned:
        order = "day/month/year" if day_first else "month/day/year"
        if by_day and by_month:
            minority = min(by_day, by_month)
            notes.append(f"{column}: read as {order}, as most of its values say; {minority:,} say the other order.")
        elif by_day or by_month:
            notes.append(f"{column}: read as {order}: {max(by_day, by_month):,} of its values fit no other order.")
        elif dotted < turned:
            notes.append(
                f"{column}: no value has a day above 12, so its order of day and month cannot be told; read as {order}."
            )
    expression = _instant(name, turned=bool(turned), day_first=day_first)
    if not timed:
        expression = f"({expression})::date"
    readable = _one(connection, f"select count({expression}) from {raw}")[0]
    if option and not readable:
        example = connection.execute(f"select {name} from {raw} where trim({name}) <> '' limit 1").fetchone()
        shown = f", like {str(example[0])[:40]!r}" if example else ": it is empty"
        raise BadInput(f"{option}: column '{column}' of {path.name} holds nothing that can be read as a time{shown}.")
    if readable < filled:
        notes.append(
            f"{column}: {filled - readable:,} of {filled:,} values cannot be read as a time; they are missing."
        )
    if with_zone and with_zone < timed:
        notes.append(
            f"{column}: {with_zone:,} values bear a time zone and {timed - with_zone:,} do not; those count as UTC."
        )
    return expression, notes


def _instant(name: str, *, turned: bool, day_first: bool) -> str:
    """SQL: text → timestamptz, NULL where it cannot be read."""
    plain = f"trim({name})"
    if turned:
        order = r"\3-\2-\1" if day_first else r"\3-\1-\2"
        plain = f"regexp_replace({plain}, '^(\\d{{1,2}})[/.-](\\d{{1,2}})[/.-](\\d{{4}})', '{order}')"
        short = "^(\\d{1,2})[/.-](\\d{1,2})[/.-](\\d{2})(\\s|T|$)"
        plain = f"regexp_replace({plain}, '{short}', '20{order}\\4')"
    hours = f"regexp_replace({plain}, '(:\\d\\d(?:\\.\\d+)?) ?([+-]\\d\\d)$', '\\1\\2:00')"
    clocks = "['%Y-%m-%d %I:%M %p', '%Y-%m-%d %I:%M:%S %p']"
    named = f"[{', '.join(text(one) for one in _NAMED)}]"
    return (  # without a digit it is no time: DuckDB would read "infinity" as 1900
        f"coalesce(case when regexp_matches({plain}, '^\\d{{4}}[-/]') then try_cast({hours} as timestamptz) end, "
        f"case when regexp_matches({plain}, '\\d') then coalesce(try_strptime({plain}, {clocks})::timestamptz, "
        f"try_strptime({plain}, {named})::timestamptz) end)"
    )


def _from_column(
    connection: duckdb.DuckDBPyConnection, raw: str, column: str, kind: str, path: Path, option: str
) -> tuple[str, list[str]]:
    """SQL that reads a column of no text and no times as instants, and notes. Raises BadInput when `option` names it
    and it holds none."""
    name = quoted(column)
    if _one(connection, f"select count({name}) from {raw}")[0] == 0:
        raise BadInput(f"{option}: column '{column}' of {path.name} is empty.")
    if kind in NUMBERS - {"BOOLEAN"} or kind.startswith(_WIDE_NUMBERS):
        instants = _from_number(connection, raw, column, f"{name}::double", name)
        if instants:
            return instants
    raise BadInput(
        f"{option}: column '{column}' of {path.name} is {kind}, which is no time; name a column that holds times."
    )


def _from_number(
    connection: duckdb.DuckDBPyConnection, raw: str, column: str, number: str, value: str
) -> tuple[str, list[str]] | None:
    """SQL that reads numbers as instants, and notes; None when they are no time (instants.py says which are).

    `number`, `value`: SQL of the column as numbers, and as it came, NULL where there is none.
    """
    counted = f"isfinite({number}) and {number} not in ({', '.join(map(repr, PLACEHOLDERS))})"
    filled, middle = _one(connection, f"select count({value}), median({number}) filter ({counted}) from {raw}")
    unit = None if middle is None else unit_of(middle)
    if unit is None:
        return None
    if unit is DATES:
        expression = f"try_strptime(try_cast({number} as bigint)::varchar, '%Y%m%d')::date"
        notes = [f"{column}: read as dates, YYYYMMDD."]
    else:
        micros = f"try_cast({number} * {unit.seconds} * {1_000_000 / unit.per_second} as bigint)"
        there = f"{number} >= {unit.low} and {number} < {unit.high}"
        kind = "date" if unit.seconds > 1 else "timestamptz"
        expression = f"case when {there} then make_timestamp({micros})::{kind} end"
        notes = [f"{column}: read as {unit.name} since 1970."]
    readable = _one(connection, f"select count({expression}) from {raw}")[0]
    if readable < filled:
        notes.append(f"{column}: {filled - readable:,} of {filled:,} values are no such time; they are missing.")
    return expression, notes


# -- plumbing ---------------------------------------------------------------------------------


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> Sequence[int]:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") + "."


Progress = Callable[[str, float], None]
"""What is going on, and the share of the whole that is done."""
