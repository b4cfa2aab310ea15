"""A file that nobody has described: how it is written, its columns with their types, and what their values look like.

It is read into a table of a DuckDB of its own, whose columns have the plain names of `naming`. DuckDB's sniffer finds
the delimiter (https://duckdb.org/docs/stable/data/csv/auto_detection); the encoding, the types, spellings of "missing",
instants that are days, and other ways to write a time are found here.
"""

import codecs
import csv
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import duckdb

from tiltyard import casts, file_rows
from tiltyard.errors import BadInput
from tiltyard.lake import one_row, quoted, text
from tiltyard.leak.formats import uneven
from tiltyard.prepare.landing import first_line
from tiltyard.scaffold import doubts, inferring, naming, numerals
from tiltyard.scaffold.found import Column, FileForm, Kind, Roles, Table
from tiltyard.scaffold.inferring import Lead, Said

MOST_ROWS = 5_000_000
"""Rows that are read of a larger file."""
SPELLINGS = (
    "NULL",
    "null",
    "Null",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "NaN",
    "nan",
    "None",
    "none",
    "\\N",
    "-",
    "--",
    "?",
    ".",
)
"""How "missing" is spelled; the first eight are that wherever they stand, the others where a column then has a type."""
FORMATS = tuple(
    day + hour
    for day in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d-%b-%Y",
                "%d %b %Y",
                "%d %B %Y", "%B %d, %Y", "%d/%m/%y", "%m/%d/%y", "%d-%b-%y", "%d %b %y")
    for hour in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
)  # fmt: skip
"""How times are written that are not ISO 8601. Where a day may be a month, the day is taken to stand first, unless
somebody says that the month does."""
_ISO = tuple(
    f"%Y-%m-%d{hour}" for hour in ("", "T%H:%M:%S", " %H:%M:%S", " %H:%M", "T%H:%M", " %H:%M:%S.%f", "T%H:%M:%S.%f")
)
"""The formats of times that are text in Parquet, which no cast reads; without a zone, which a format does not keep."""
_ALWAYS = SPELLINGS[:8]
_WIDE = ("UBIGINT", "HUGEINT", "UHUGEINT")
_TYPES = ("BOOLEAN", "BIGINT", "DOUBLE", *casts.INSTANTS)
"""What a column of texts may be, the narrowest first."""
_LONGEST = 1 << 30
"""Letters that a field may have."""
_FEW = 20
_AT_ONCE = 25
"""Columns that one query asks about."""
_SOME = 100
"""Values that tell in which format a time can be."""
_KINDS: dict[str, tuple[str, Kind]] = {
    "BOOLEAN": ("boolean", "yes_no"),
    "TINYINT": ("integer", "whole"), "SMALLINT": ("integer", "whole"), "INTEGER": ("integer", "whole"),
    "UTINYINT": ("integer", "whole"), "USMALLINT": ("integer", "whole"), "UINTEGER": ("bigint", "whole"),
    "BIGINT": ("bigint", "whole"), "UBIGINT": ("double", "number"), "HUGEINT": ("double", "number"),
    "UHUGEINT": ("double", "number"),
    "FLOAT": ("double", "number"), "DOUBLE": ("double", "number"),
    "DATE": ("date", "day"), "TIMESTAMP": ("timestamp", "instant"),
    "TIMESTAMP WITH TIME ZONE": ("timestamptz", "instant"),
    "TIMESTAMP_NS": ("timestamp", "instant"), "TIMESTAMP_MS": ("timestamp", "instant"),
    "TIMESTAMP_S": ("timestamp", "instant"),
}  # fmt: skip
"""DuckDB's type → a contract's, and what such values are; any other is text."""


@dataclass(frozen=True)
class Opened:
    """A file that has been read."""

    connection: duckdb.DuckDBPyConnection
    """Has its rows as the table `sample`: the columns by their plain names, and `_line`."""
    table: Table
    """What it looks like."""
    notes: tuple[str, ...]
    """What somebody should know of how it was read."""
    naive: Mapping[str, int] = field(default_factory=dict)
    """Column of instants that carry a zone → in how many rows they carry none."""


@contextmanager
def opened(path: Path, *, is_month_first: bool = False, thousands: str | None = None) -> Iterator[Opened]:
    """Read a file: CSV of any dialect and encoding, JSON lines, or Parquet.

    `is_month_first`: what a date is that may be read both ways, like 03/04/2025; `thousands`: what stands
    between the thousands of numbers, empty for nothing, None for what the file proves. Raises BadInput, one sentence,
    for a file that is not there, is empty, is no text, has no header or a column twice.
    """
    if not path.is_file():
        raise BadInput(f"{path} is no file; give one CSV, a file of JSON lines, or Parquet.")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty (0 bytes); export it again, with a header and rows.")
    with tempfile.TemporaryDirectory(prefix="tiltyard-") as folder, duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        try:
            form, headers = _form(connection, path, Path(folder), thousands)
            plain = Path(folder) / "utf8" if (Path(folder) / "utf8").exists() else path
            _load(connection, path, form, headers, plain)
            said = _said(connection, form, headers, plain)
            dates = sorted(FORMATS, key=lambda form: not form.startswith("%m")) if is_month_first else FORMATS
            unclear = []
            if form.kind == "csv" and thousands is None and form.thousands is None and form.decimal == ".":
                unclear = numerals.open_ones(connection, "sample", naming.aliases(headers))
            texts = frozenset(one.name for one in unclear if one.whole is not None)
            formats, naive = _typed(connection, form, said, dates, texts)
        except duckdb.Error as error:
            raise BadInput(f"{path} cannot be read ({first_line(error)}).") from None
        rows = one_row(connection, "select count(*) from sample")[0]
        if not rows:
            raise BadInput(f"{path} has a header and no rows; export it with some.")
        types = _types(connection)
        columns = tuple(
            _column(connection, header, name, types[name], form, rows, formats.get(name))
            for header, name in zip(headers, naming.aliases(headers), strict=True)
        )
        notes = [f"Only the first {MOST_ROWS:,} rows were read."] if rows == MOST_ROWS else []
        strange = [value for value in form.null_values if value not in SPELLINGS]
        if strange:
            shown = " and ".join(map(repr, strange))
            what = "stands among numbers, and is" if len(strange) == 1 else "stand among numbers, and are"
            notes.append(f"{shown} {what} taken for missing (null_values in the contract).")
        if form.kind == "csv":
            notes += doubts.of_missing(connection, _texts(plain, replace(form, null_values=()), headers), form, columns)
        notes += doubts.of_objects(said, columns)
        notes += doubts.of_thousands(unclear, columns, form.delimiter)
        if not is_month_first:
            notes += doubts.of_dates(connection, formats, columns)
        if form.kind != "parquet":
            named = {one.name for one in unclear if one.whole is not None}
            notes += doubts.of_texts(connection, [each for each in columns if each.name not in named], form)
        yield Opened(connection, Table(form, rows, columns), tuple(notes), naive)


def _form(
    connection: duckdb.DuckDBPyConnection, path: Path, folder: Path, thousands: str | None
) -> tuple[FileForm, list[str]]:
    """How a file is written, and its header; a text that is not UTF-8 is written to the folder as such."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head.startswith(b"PAR1"):
        described = connection.execute(f"describe select * from {file_rows.parquet(path)}").fetchall()
        return FileForm("parquet"), _each_once(path, [name for name, *_ in described])
    encoding = _encoding(path, head)
    plain = path
    if encoding != "utf-8":
        plain = folder / "utf8"
        try:
            with path.open("rb") as before, plain.open("wb") as after:
                shutil.copyfileobj(codecs.EncodedFile(before, "utf-8", encoding), after)
        except UnicodeError:
            raise BadInput(f"{path} is no whole {encoding.upper()} text; export it again, as UTF-8.") from None
    if file_rows.is_json(head.decode(encoding, "ignore")):
        if encoding != "utf-8":
            raise BadInput(f"{path} is JSON in {encoding.upper()}; JSON is written in UTF-8: save it as that.")
        _keys_each_once(connection, path)
        described = connection.execute(f"describe select * from {file_rows.json_lines(plain)}").fetchall()
        return FileForm("jsonl", encoding=encoding), _each_once(path, [name for name, *_ in described])
    return _csv_form(connection, path, plain, encoding, thousands)


def _encoding(path: Path, head: bytes) -> str:
    """The encoding of a text. Raises BadInput for what is none."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise BadInput(f"{path} is UTF-32 text; export it as UTF-8.")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head or head[:2] in (b"PK", b"\x1f\x8b"):
        what = "it is packed; unpack it first" if head[:2] in (b"PK", b"\x1f\x8b") else "export it as CSV"
        raise BadInput(f"{path} is not text, and no Parquet: {what}.")
    candidates = ("utf-8", "cp1252", "iso8859-1")
    for encoding in candidates:
        try:
            with path.open(encoding=encoding) as file:
                while file.read(1 << 20):
                    pass
        except UnicodeDecodeError:
            continue
        return encoding
    return candidates[-1]


def _csv_form(
    connection: duckdb.DuckDBPyConnection, path: Path, plain: Path, encoding: str, thousands: str | None
) -> tuple[FileForm, list[str]]:
    delimiter, has_header = one_row(connection, f"select Delimiter, HasHeader from {file_rows.dialect(plain)}")
    csv.field_size_limit(_LONGEST)
    try:
        with plain.open(encoding="utf-8-sig", newline="") as file:
            if "\n" not in (first := file.read(1 << 16)) and "\r" in first:
                raise BadInput(f"{path}: its lines end as those of an old Mac (CR alone); save it with LF or CRLF.")
            file.seek(0)
            reader = csv.reader(file, delimiter=str(delimiter))
            header, second = next(reader, []), next(reader, [])
    except csv.Error as error:
        raise BadInput(f"{path} cannot be read ({error}).") from None
    _is_header(path, header, second, bool(has_header))
    if len(header) == 1 and (mark := next((mark for mark in ",;\t|" if mark in header[0]), None)):
        raise BadInput(uneven(path, plain, mark))  # the sniffer gave up, since some line does not fit
    if len(header) != len(second):
        raise BadInput(f"{path}: its header has {len(header)} columns, and its lines have {len(second)}.")
    headers = _each_once(path, header)
    form = FileForm("csv", str(delimiter), encoding)
    texts, names = _texts(plain, form, headers), naming.aliases(headers)
    marks = numerals.marks(connection, texts, names, delimiter=form.delimiter, said=thousands)
    form = replace(form, decimal=marks.decimal, thousands=marks.thousands)
    missing = _missing(connection, texts, form, names)
    return replace(form, null_values=missing), headers


def _is_header(path: Path, header: Sequence[str], second: Sequence[str], sniffed: bool) -> None:
    """Raises BadInput for a first line that is none."""
    values = sum(any(letter.isdigit() for letter in name) and not any(map(str.isalpha, name)) for name in header)
    if not header or values or (not sniffed and not all(name.strip() for name in header)):
        first = ", ".join(header[:3])
        raise BadInput(
            f"{path} has no header: its first line begins with {first[:60]!r}; write the columns' names there."
        )
    if not second:
        raise BadInput(f"{path} has a header and no rows; export it with some.")


def _each_once(path: Path, header: Sequence[str]) -> list[str]:
    nameless = next((place for place, name in enumerate(header, start=1) if not name.strip()), None)
    if nameless is not None:
        raise BadInput(
            f"{path}: column {nameless} has no name; give it one in the header, or take it away (an index that pandas "
            "or R has written: export without it)."
        )
    for name in header:
        if "\n" in name or "\r" in name:
            raise BadInput(f"{path}: the name {' '.join(name.split())!r} goes over two lines; write it on one.")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise BadInput(f"{path} has the column {twice[0]!r} twice; rename one of them, or take it away.")
    return list(header)


def _keys_each_once(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raises BadInput for a key that cannot be a column: one without a name, or two that differ by their case alone, of
    which DuckDB gives the second another name, and no values."""
    keys = [key for (key,) in connection.execute(f"select key from {file_rows.json_keys(path)} order by 1").fetchall()]
    owners: dict[str, str] = {}
    for key in keys:
        if not key.strip():
            raise BadInput(f"{path} has a key without a name; give it one.")
        if (other := owners.setdefault(key.casefold(), key)) != key:
            raise BadInput(
                f"{path} has the keys {other!r} and {key!r}, which are one column to SQL; rename one of them."
            )


def _texts(plain: Path, form: FileForm, headers: Sequence[str]) -> str:
    """SQL of the rows of a text, all of it text, by plain names."""
    names = naming.aliases(headers)
    return file_rows.csv(plain, columns=names, delimiter=form.delimiter, missing=form.null_values)


def _said(connection: duckdb.DuckDBPyConnection, form: FileForm, headers: Sequence[str], plain: Path) -> dict[str, str]:
    """Column → the type that the file gives it: JSON tells a text from a number, CSV does not."""
    if form.kind != "jsonl":
        return {}
    described = connection.execute(f"describe select * from {file_rows.json_lines(plain)}").fetchall()
    return dict(zip(naming.aliases(headers), (kind for _, kind, *_ in described), strict=True))


def _parted(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """The names, some at a time: one query about thousands of columns takes more memory than there is."""
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


def _missing(
    connection: duckdb.DuckDBPyConnection, texts: str, form: FileForm, names: Sequence[str]
) -> tuple[str, ...]:
    """The spellings of "missing" that the file has."""
    listed = ", ".join(text(value) for value in SPELLINGS)
    found: list[set[str]] = []
    own: list[set[str]] = []
    for some in _parted(names):
        parts = ", ".join(f"list(distinct {quoted(name)}) filter ({quoted(name)} in ({listed}))" for name in some)
        found += [set(values or ()) for values in one_row(connection, f"select {parts} from {texts}")]
        own += _among_numbers(connection, texts, some, form.thousands)
    for values, words in zip(found, own, strict=True):
        values |= words
    besides = (*SPELLINGS, *sorted(set().union(*own) - {*SPELLINGS}))
    present = [value for value in besides if any(value in values for values in found)]
    typed = {
        value
        for name, values in zip(names, found, strict=True)
        if values
        and (
            _type(connection, texts, quoted(name), _TYPES, form, besides)
            or time_format(connection, texts, quoted(name), besides)
        )
        for value in values
    }
    return tuple(value for value in present if value in _ALWAYS or value in typed)


def _type(
    connection: duckdb.DuckDBPyConnection,
    rows: str,
    column: str,
    kinds: Sequence[str],
    form: FileForm,
    besides: Sequence[str] = (),
) -> str | None:
    """The first of the types that every value of a column of texts is of, `besides` left out; None: none, or there is
    no value. A few values tell which it can be; only that one is held against all of them."""
    listed = ", ".join(text(value) for value in ("", *besides))
    some = f"(select distinct {column} from {rows} where {column} not in ({listed}) limit {_SOME})"
    everything = f"(select {column} from {rows} where {column} not in ({listed}))"

    def fits(kind: str, values: str) -> bool:
        is_like = casts.is_like(column, kind, decimal=form.decimal, thousands=form.thousands)
        given, fitting = one_row(connection, f"select count({column}), count(*) filter ({is_like}) from {values}")
        return bool(given == fitting > 0)

    return next((kind for kind in kinds if fits(kind, some) and fits(kind, everything)), None)


_NUMBER = "[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?"


def _among_numbers(
    connection: duckdb.DuckDBPyConnection, rows: str, names: Sequence[str], thousands: str | None
) -> list[set[str]]:
    """Of each column the one or two words without a digit that stand where all other values are numbers, nine in ten at
    least: `k.A.`, `not measured`."""
    number = f"{_NUMBER}|-?[1-9][0-9]{{0,2}}([{thousands}][0-9]{{3}})+([.,][0-9]+)?" if thousands else _NUMBER
    parts = ", ".join(
        f"count(*) filter (regexp_full_match({name}, {text(number)})), count(distinct {name}) filter ({word}), "
        f"min({name}) filter ({word}), max({name}) filter ({word}), count(*) filter ({word}), count({name})"
        for name in map(quoted, names)
        for word in [f"{name} <> '' and not regexp_full_match({name}, {text(number)})"]
    )
    counts = one_row(connection, f"select {parts} from {rows}")
    found: list[set[str]] = []
    for place in range(0, len(counts), 6):
        numbers, kinds, least, most, words, given = counts[place : place + 6]
        is_word = 1 <= kinds <= 2 and numbers >= 20 and words <= 0.1 * given and numbers + words == given
        found.append({word for word in (least, most) if is_word and not re.search(r"[0-9]", word)})
    return found


def _load(
    connection: duckdb.DuckDBPyConnection, path: Path, form: FileForm, headers: Sequence[str], plain: Path
) -> None:
    """Read all rows, a text as text: what its columns are is found by casting them as ingest will."""
    names = naming.aliases(headers)
    if form.kind == "csv":
        source, values = _texts(plain, form, headers), [quoted(name) for name in names]
    elif form.kind == "jsonl":
        source, values = file_rows.json_lines(plain, headers), [quoted(header) for header in headers]
    else:
        source = file_rows.parquet(path)
        kinds = {name: kind for name, kind, *_ in connection.execute(f"describe select * from {source}").fetchall()}
        values = [casts.held(quoted(name), kind) for name, kind in kinds.items()]
    named = ", ".join(f"{value} as {quoted(name)}" for value, name in zip(values, names, strict=True))
    connection.execute(
        f"create table sample as select {named}, row_number() over () as _line from {source} limit {MOST_ROWS}"
    )


def _typed(
    connection: duckdb.DuckDBPyConnection,
    form: FileForm,
    said: Mapping[str, str],
    dates: Sequence[str],
    texts: frozenset[str],
) -> tuple[dict[str, str], dict[str, int]]:
    """Give the columns of texts the types that all their values have; returns column → strptime format, of those whose
    times are not written as ISO 8601, and column → rows without a zone, of those that carry one in others. `said`:
    column → the type that the file itself gives it, where it does; `texts`: columns that stay text; `dates`: FORMATS,
    in the order in which they are tried."""
    formats: dict[str, str] = {}
    naive: dict[str, int] = {}
    for name in (name for name, kind in _types(connection).items() if kind == "VARCHAR"):
        column = quoted(name)
        is_text = name in texts or said.get(name, "") in ("VARCHAR", *casts.INSTANTS, "TIME")
        kind = None
        if form.kind != "parquet":
            kind = _type(connection, "sample", column, casts.INSTANTS if is_text else _TYPES, form)
        if kind == "TIMESTAMP WITH TIME ZONE":
            is_naive = casts.is_like(column, "TIMESTAMP")
            naive[name] = one_row(connection, f"select count(*) filter ({is_naive}) from sample")[0]
        if kind is not None:
            value = casts.held(f"({casts.read(column, kind, decimal=form.decimal, thousands=form.thousands)})", kind)
            connection.execute(f"alter table sample alter {column} type {kind} using {value}")
        elif format_ := time_format(
            connection, "sample", column, dates=dates if form.kind != "parquet" else (*_ISO, *dates)
        ):
            formats[name] = format_
            connection.execute(
                f"alter table sample alter {column} type timestamp using {casts.in_format(column, format_)}"
            )
    return formats, naive


def _types(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Column of the sample → its DuckDB type."""
    described = connection.execute("describe sample").fetchall()
    return {name: kind for name, kind, *_ in described if name != "_line"}


def time_format(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    column: str,
    besides: Sequence[str] = (),
    dates: Sequence[str] = FORMATS,
) -> str | None:
    """The first of `dates` that every value of a column of texts is written in, `besides` left out; None: none is.

    A few values tell which it can be; only those are held against all of them.
    """
    listed = ", ".join(text(value) for value in ("", *besides))
    some = f"(select distinct {column} from {table} where {column} not in ({listed}) limit {_SOME})"
    longest = one_row(connection, f"select max(length({column})) from {some}")[0] or 0
    if not 6 <= longest <= 30:
        return None
    fitting = _parsing(connection, some, column, dates)
    everything = f"(select {column} from {table} where {column} not in ({listed}))"
    return next(iter(_parsing(connection, everything, column, fitting)), None) if fitting else None


def _parsing(connection: duckdb.DuckDBPyConnection, rows: str, column: str, formats: Sequence[str]) -> list[str]:
    """Those of the formats that every value of some rows is written in."""
    parts = ", ".join(f"count({casts.in_format(column, format_)})" for format_ in formats)
    given, *parsed = one_row(connection, f"select count({column}), {parts} from {rows}")
    return [format_ for format_, count in zip(formats, parsed, strict=True) if count == given > 0]


def _column(
    connection: duckdb.DuckDBPyConnection,
    header: str,
    name: str,
    kind: str,
    form: FileForm,
    rows: int,
    format_: str | None,
) -> Column:
    """What one column looks like."""
    column = quoted(name)
    data_type, values = _KINDS.get(kind, ("double", "number") if kind.startswith("DECIMAL") else ("varchar", "text"))
    if kind.startswith("DECIMAL") and kind.endswith(",0)"):
        fits = f"count(*) = count(*) filter ({column} is null or try_cast({column} as bigint) is not null)"
        is_held = one_row(connection, f"select {fits} from sample")[0]
        data_type, values = ("bigint", "whole") if is_held else ("varchar", "text")
    given, distinct, least, most = one_row(
        connection,
        f"select count({column}), count(distinct {column}), min({column})::varchar, max({column})::varchar from sample",
    )
    if kind in _WIDE and one_row(connection, f"select max(abs({column}::hugeint)) > {2**53} from sample")[0]:
        data_type, values = "varchar", "text"  # an identifier, of which a number would lose digits
    described = Column(
        header=header, name=name, data_type=data_type, kind=values, is_zoned=data_type == "timestamptz",
        rows=rows, missing=rows - given, distinct=distinct, least=least or "", most=most or "",
    )  # fmt: skip
    if values in ("whole", "number"):
        low, high = one_row(
            connection,
            f"select quantile_cont({column}, 0.01) {casts.finite(column)}, quantile_cont({column}, 0.99) "
            f"{casts.finite(column)} from sample",
        )
        described = replace(described, low=low, high=high)
    if described.is_time and given:
        early = one_row(connection, f"select cast(quantile_disc({column}, 0.01) as date) from sample")[0]
        described = replace(described, early=str(early))
    if values == "instant" and given:
        described = _as_day(connection, described, form)
    if format_ is not None:
        described = replace(described, data_type="varchar", format=format_)
    if distinct <= _FEW and not described.is_time:
        frequent = connection.execute(
            f"select {column}::varchar from sample where {column} is not null group by 1 order by count(*) desc, 1"
        ).fetchall()
        described = replace(described, values=tuple(value for (value,) in frequent))
    return described


def _as_day(connection: duckdb.DuckDBPyConnection, column: Column, form: FileForm) -> Column:
    """An instant that is midnight in every row is a day."""
    name = quoted(column.name)
    if one_row(connection, f"select bool_and({name} = date_trunc('day', {name})) from sample")[0] is not True:
        return column
    connection.execute(f"alter table sample alter {name} type date")
    kept = column.data_type if form.kind == "parquet" else "date"
    return replace(column, kind="day", data_type=kept, is_zoned=False, least=column.least[:10], most=column.most[:10])


# -- times ------------------------------------------------------------------------------------

JOINED = "happened_at"
"""The name of a time that is made of several columns, with a number behind it where a file has such a column."""
_HOURS = ("", " %H:%M:%S", " %H:%M", " %I:%M %p", " %I:%M:%S %p", " %H")
_OF_NUMBERS = {
    3: ("%Y %m %d", "%d %m %Y", "%m %d %Y"),
    4: ("%Y %m %d %H",),
    5: ("%Y %m %d %H %M",),
    6: ("%Y %m %d %H %M %S",),
}
"""How a time is written whose parts are numbers, by how many there are."""


def with_joined_time(sample: Opened, said: Said) -> tuple[Opened, Said]:
    """The file with one column more that tells when a row happened, where several do; and that it does.

    They are those that somebody named with commas between them; where nobody named any, an hour beside a day, or year,
    month and day. Raises BadInput for columns that together are no time.
    """
    table = sample.table
    if said.event_time is not None and "," in said.event_time and table.column(said.event_time) is None:
        parts = [inferring.named(table, part.strip(), "--event-time") for part in said.event_time.split(",")]
        joined = _joined(sample, parts)
        if joined is None:
            shown = " ".join(part.least for part in parts)
            raise BadInput(
                f"--event-time: {said.event_time} together are no time, like {shown!r}. What can be one: a day and a "
                "time of day (11:38:36), or the numbers year,month,day, with hour and minute behind them."
            )
    elif said.event_time is None:
        joined = next((time for parts in _beside(table) if (time := _joined(sample, parts))), None)
    else:
        joined = None
    if joined is None:
        return sample, said
    note = f"{' and '.join(joined.parts)} together are taken to tell when a row happened; say --event-time where not."
    notes = sample.notes if said.event_time is not None else (*sample.notes, note)
    columns = (*table.columns, replace(joined, header=said.event_time or joined.header))
    opened = replace(sample, table=replace(table, columns=columns), notes=notes)
    return opened, replace(said, event_time=columns[-1].header)


def _beside(table: Table) -> Iterator[list[Column]]:
    """The columns that may be one time together: a day and the one hour beside it; or year, month and day, where no
    column tells a day."""
    times = [column for column in table.columns if column.is_time]
    hours = [column for column in table.columns if re.fullmatch(r"(\w+_)?(time|hour)(_of_day)?", column.name)]
    if len(times) == 1 and times[0].kind == "day" and len(hours) == 1 and not hours[0].is_time:
        yield [times[0], hours[0]]
    by_name = {column.name: column for column in table.columns}
    if not times and {"year", "month", "day"} <= by_name.keys():
        day = [by_name[name] for name in ("year", "month", "day")]
        clock = [by_name[name] for name in ("hour", "minute") if name in by_name]
        yield from (day + clock[:number] for number in range(len(clock), -1, -1))


def _joined(sample: Opened, parts: Sequence[Column]) -> Column | None:
    """The time that the texts of these columns are together, parted by spaces, which the sample then has as JOINED;
    None where they are none in every row that has them all."""
    if any(part.kind == "instant" for part in parts):
        return None
    value = " || ' ' || ".join(_text(part) for part in parts)
    given = one_row(sample.connection, f"select count({value}) from sample")[0]
    if not given:
        return None
    # a cast takes other texts than ISO 8601 as well, and not those of numbers as they are meant
    is_iso = parts[0].kind == "day" and parts[0].format is None
    if is_iso and one_row(sample.connection, f"select count(try_cast({value} as timestamp)) from sample")[0] == given:
        format_, time = "", f"cast({value} as timestamp)"
    else:
        days = [parts[0].format or "%Y-%m-%d"] if parts[0].kind == "day" else list(FORMATS)
        formats = _OF_NUMBERS.get(len(parts), ()) if all(part.kind == "whole" for part in parts) else ()
        fitting = _parsing(
            sample.connection, f"(select {value} as joined from sample)", "joined",
            formats or [day + hour for day in days for hour in _HOURS],
        )  # fmt: skip
        if not fitting:
            return None
        format_, time = fitting[0], casts.in_format(value, fitting[0])
    name = naming.free(JOINED, _types(sample.connection))
    sample.connection.execute(f"alter table sample add column {name} timestamp")
    sample.connection.execute(f"update sample set {name} = {time}")
    is_day = format_ != "" and "%H" not in format_ and "%I" not in format_
    least, most = one_row(sample.connection, f"select min({name})::varchar, max({name})::varchar from sample")
    return Column(
        header=name, name=name, data_type="varchar", kind="day" if is_day else "instant", format=format_ or None,
        parts=tuple(part.name for part in parts), rows=sample.table.rows, missing=sample.table.rows - given,
        least=least, most=most,
    )  # fmt: skip


def _text(part: Column) -> str:
    """SQL of a column as the deliveries have it."""
    if part.format is not None and part.kind == "day":
        return f"strftime({quoted(part.name)}, {text(part.format)})"
    return f"cast({quoted(part.name)} as varchar)"


def day_of(column: Column, zone: str) -> str:
    """SQL of the day of a time, by the clocks of the zone."""
    name = quoted(column.name)
    if column.kind == "instant" and column.is_zoned:
        return f"cast(timezone({text(zone)}, {name}) as date)"
    return f"cast({name} as date)"


def leads(sample: Opened, happened: Column, zone: str) -> dict[str, Lead]:
    """How the times of each other column lie to when the rows happened."""
    found = {}
    for column in sample.table.columns:
        if column.is_time and column.name != happened.name and column.missing < column.rows:
            day, own = day_of(column, zone), day_of(happened, zone)
            ahead = f"({day} - {own})"
            filled, before, after, usual, _, last = one_row(
                sample.connection,
                f"select count({day}), count(*) filter ({ahead} < 0), count(*) filter ({ahead} > 0), "
                f"quantile_cont({ahead}, 0.95), min({day}), max({day}) from sample",
            )
            first, last = inferring.whole_span(dict(_by_day(sample, day)), last)
            found[column.name] = Lead(filled, before, after, float(usual), first, last)
    return found


FEWEST_MISSING = 20
"""Rows without a value below which nothing is said of what else is missing in them."""


def missing_with(sample: Opened, roles: Roles) -> dict[str, str]:
    """Column → one that is written later, where it is missing in the same rows: in all of the other's, and seldom in
    any more. What is known only of rows whose outcome is known was hardly known before it."""
    later = [column for column in map(sample.table.column, roles.written_later) if column is not None]
    later = [column for column in later if FEWEST_MISSING <= column.missing < column.rows]
    known = {*roles.written_later, *roles.planned}
    free = [column for column in sample.table.columns if not column.parts and column.name not in known]
    pairs = [
        (column, other)
        for column in free
        for other in later
        if 0.99 * other.missing <= column.missing <= 2 * other.missing
    ]
    if not pairs:
        return {}
    both = ", ".join(
        f"count(*) filter ({quoted(column.name)} is null and {quoted(other.name)} is null)" for column, other in pairs
    )
    found: dict[str, str] = {}
    for (column, other), count in zip(pairs, one_row(sample.connection, f"select {both} from sample"), strict=True):
        if count >= 0.99 * other.missing:
            found.setdefault(column.name, other.name)
    return found


def days(sample: Opened, happened: Column) -> list[tuple[date, int]]:
    """Day (UTC) → how many rows happened on it, in order."""
    return _by_day(sample, f"cast({quoted(happened.name)} as date)")


def _by_day(sample: Opened, day: str) -> list[tuple[date, int]]:
    """Day → rows of it, in order. `day`: SQL."""
    rows = sample.connection.execute(
        f"select {day} as day, count(*) from sample where day is not null group by 1 order by 1"
    ).fetchall()
    return [(day, count) for day, count in rows]
