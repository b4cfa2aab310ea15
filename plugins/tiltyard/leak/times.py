"""Columns of a file that hold times, as SQL that reads them as instants.

Text that holds times is read as times: ISO 8601 with or without a zone, day/month/year and month/day/year (which of
the two, the column as a whole decides), names of months, a clock of 12 hours. Numbers are read where somebody says
that they are times (instants.py). Times without a zone count as UTC. A year of two digits is the newest that lies at
most AHEAD years after the predictions. What nothing in the file tells, like that, is a guess, and is told as one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from tiltyard.errors import BadInput
from tiltyard.lake import quoted, text
from tiltyard.leak.engine import NUMBERS, WIDE_NUMBERS, first_row
from tiltyard.leak.instants import DATES, PLACEHOLDERS, unit_of
from tiltyard.leak.rules import is_instant

HEAD = 2_000
"""Rows, spread over the file, that are looked at to see which text columns hold times."""
AHEAD = 5
"""Years after the newest prediction that a year of two digits may still mean."""
MOSTLY = 0.8
"""From this share of its values on that look like times, a text column is taken for one that holds times."""
_DMY = r"^\s*(\d{1,2})[/.-](\d{1,2})[/.-](\d{4}|\d{2})(?:\s|T|$)"
_SHORT = r"^(\d{1,2})[/.-](\d{1,2})[/.-](\d{2})(\s|T|$)"
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


def read_times(
    connection: duckdb.DuckDBPyConnection,
    raw: str,
    stored: Mapping[str, str],
    rows: int,
    path: Path,
    times: Mapping[str, str],
    moment: str = "",
) -> tuple[dict[str, str], list[str], frozenset[str]]:
    """Column → SQL that reads its times, of those that do not hold instants as they lie; notes; and the columns of
    which it is a guess.

    `raw`: SQL of the file's rows; `stored`: column → DuckDB type; `times`: columns that must hold times → the option
    that says so; `moment`: the one of them that tells when a row was known, or predicted for, if any. Raises BadInput
    for one of those that holds none.
    """
    instants: dict[str, str] = {}
    notes: list[str] = []
    guessed: set[str] = set()
    last: int | None = None
    texts = _texts_with_times(connection, raw, stored, rows, times)
    for column in sorted(texts, key=lambda name: name != moment):
        if column != moment and last is None:
            last = _last_year(connection, raw, instants.get(moment), moment, stored.get(moment, ""))
        read = _from_text(connection, raw, column, path, times.get(column), last)
        instants[column] = read.sql
        notes += read.notes
        guessed |= {column} if read.is_guess else set()
    for column, option in times.items():
        if column not in instants and not is_instant(stored[column]):
            kind = stored[column]
            instants[column], column_notes = _from_column(connection, raw, column, kind, path, option)
            notes += column_notes
    for column in times:
        if column not in instants:  # an endless instant is a default: nothing could ever be later
            finite = f"case when isfinite({quoted(column)}) then {quoted(column)} end"
            (endless,) = first_row(connection, f"select count({quoted(column)}) - count({finite}) from {raw}")
            if endless:
                instants[column] = finite
                notes.append(f"{column}: {endless:,} values are infinite; they are missing.")
    return instants, notes, frozenset(guessed)


def _last_year(connection: duckdb.DuckDBPyConnection, raw: str, read: str | None, moment: str, kind: str) -> int | None:
    """The year until which a column of times goes, but for one row of a hundred; None where it has no times as it
    lies."""
    if read is None and not is_instant(kind):
        return None
    value = read or quoted(moment)
    (year,) = first_row(connection, f"select quantile_disc(year({value}), 0.99) filter (isfinite({value})) from {raw}")
    return None if year is None else int(year)


def _texts_with_times(
    connection: duckdb.DuckDBPyConnection, raw: str, stored: Mapping[str, str], rows: int, must: Iterable[str]
) -> list[str]:
    """Text columns whose values look like times, and those that must hold them."""
    texts = [column for column, kind in stored.items() if kind == "VARCHAR"]
    columns = [column for column in texts if column in set(must)]
    rest = [column for column in texts if column not in set(columns)]
    for start in range(0, len(rest), 250):  # thousands of columns at once cost more than one query each
        part = rest[start : start + 250]
        names = ", ".join(quoted(column) for column in part)
        if any(column.casefold() == "file_row_number" for column in stored):
            spread = f"select {names} from {raw} limit {HEAD}"
        else:
            spread = f"select {names} from {raw} where file_row_number % {max(1, rows // HEAD)} = 0"
        values = zip(*connection.execute(spread).fetchall(), strict=True)
        for column, of_column in zip(part, values, strict=True):
            there = [value for value in of_column if value]
            if there and sum(bool(_LIKE_A_TIME.match(value)) for value in there) >= MOSTLY * len(there):
                columns.append(column)
    return columns


@dataclass(frozen=True)
class _Read:
    """How a column of texts is read as times."""

    sql: str
    """SQL of its times."""
    notes: list[str]
    is_guess: bool = False
    """Nothing in the file tells that it is meant so."""


def _from_text(
    connection: duckdb.DuckDBPyConnection, raw: str, column: str, path: Path, option: str | None, last: int | None
) -> _Read:
    """SQL that reads the column's times. `last`: the newest year that is known of the predictions. Raises BadInput when
    `option` names it and it holds none."""
    name = quoted(column)
    if option:
        filled, digits = f"nullif(trim({name}), '')", f"try_cast(trim({name}) as double)"
        values, numbers = first_row(connection, f"select count({filled}), count({digits}) from {raw}")
        instants = _from_number(connection, raw, column, digits, filled) if 2 * numbers > values else None
        if instants:
            return _Read(*instants)
    zoned = f"regexp_matches({name}, ':\\d\\d.*(Z|[+-]\\d\\d:?\\d*|[A-Za-z]+/[A-Za-z_]+|UTC|GMT)\\s*$')"
    values, with_clock, with_zone = first_row(
        connection,
        f"select count(*) filter (trim({name}) <> ''), count(*) filter (regexp_matches({name}, ':\\d\\d')), "
        f"count(*) filter ({zoned}) from {raw}",
    )
    day_first, notes, is_guess = _day_first(connection, raw, column)
    (short,) = first_row(
        connection, f"select count(*) filter (regexp_matches(trim({name}), {text(_SHORT)})) from {raw}"
    )
    if day_first is not None and short:
        first, newest = _century(last)
        is_guess = True
        by = f", by the predictions, which end in {last}" if last else ""
        notes.append(f"{column}: {short:,} years have two digits; they are read as {first} to {newest}{by}.")
    expression = _instant(name, day_first, last)
    if not with_clock:
        expression = f"({expression})::date"
    (readable,) = first_row(connection, f"select count({expression}) from {raw}")
    if option and not readable:
        example = connection.execute(f"select {name} from {raw} where trim({name}) <> '' limit 1").fetchone()
        shown = f", like {str(example[0])[:40]!r}" if example else ": it is empty"
        raise BadInput(f"{option}: column '{column}' of {path.name} holds nothing that can be read as a time{shown}.")
    if readable < values:
        notes.append(
            f"{column}: {values - readable:,} of {values:,} values cannot be read as a time; they are missing."
        )
    if with_zone and with_zone < with_clock:
        plain = with_clock - with_zone
        notes.append(f"{column}: {with_zone:,} values bear a time zone and {plain:,} do not; those count as UTC.")
    return _Read(expression, notes, is_guess)


def _century(last: int | None) -> tuple[int, int]:
    """The first and the newest year that two digits may mean; where nothing tells, those of strptime (POSIX)."""
    return (1969, 2068) if last is None else (last + AHEAD - 99, last + AHEAD)


def _day_first(connection: duckdb.DuckDBPyConnection, raw: str, column: str) -> tuple[bool | None, list[str], bool]:
    """Whether 3/4/2016 is the third of April, as the whole column says, and notes; None when it holds no such text.
    The last is whether that is a guess."""
    name = quoted(column)
    first, second = (f"try_cast(regexp_extract({name}, {text(_DMY)}, {group}) as integer)" for group in (1, 2))
    slashed = f"regexp_matches({name}, {text(_DMY)})"
    slashes, by_day, by_month, dots = first_row(
        connection,
        f"select count(*) filter ({slashed}), count(*) filter ({first} > 12), count(*) filter ({second} > 12), "
        f"count(*) filter ({slashed} and regexp_matches({name}, '^\\s*\\d+\\.')) from {raw}",
    )
    if not slashes:
        return None, [], False
    day_first = bool(by_day >= by_month)
    order = "day/month/year" if day_first else "month/day/year"
    if by_day and by_month:
        minority = min(by_day, by_month)
        return (
            day_first,
            [f"{column}: read as {order}, as most of its values say; {minority:,} say the other order."],
            True,
        )
    if by_day or by_month:
        return (
            day_first,
            [f"{column}: read as {order}: {max(by_day, by_month):,} of its values fit no other order."],
            False,
        )
    if dots < slashes:
        return (
            day_first,
            [f"{column}: no value has a day above 12, so its order of day and month cannot be told; read as {order}."],
            True,
        )
    return day_first, [], False


def _instant(name: str, day_first: bool | None, last: int | None) -> str:
    """SQL: text → timestamptz, NULL where it cannot be read. `day_first`: None where no value has slashes."""
    plain = f"trim({name})"
    if day_first is not None:
        order = r"\3-\2-\1" if day_first else r"\3-\1-\2"
        plain = f"regexp_replace({plain}, '^(\\d{{1,2}})[/.-](\\d{{1,2}})[/.-](\\d{{4}})', '{order}')"
        newest = _century(last)[1]
        digits = f"try_cast(regexp_extract({plain}, {text(_SHORT)}, 3) as integer)"
        year = f"({newest} - ({newest} + 100 - {digits}) % 100)::varchar"
        rest = f"regexp_replace({plain}, {text(_SHORT)}, '{order[2:]}\\4')"
        plain = f"case when regexp_matches({plain}, {text(_SHORT)}) then {year} || {rest} else {plain} end"
    hours = f"regexp_replace({plain}, '(:\\d\\d(?:\\.\\d+)?) ?([+-]\\d\\d)$', '\\1\\2:00')"
    clocks = "['%Y-%m-%d %I:%M %p', '%Y-%m-%d %I:%M:%S %p']"
    with_names = f"[{', '.join(text(form) for form in _NAMED)}]"
    return (  # without a digit it is no time: DuckDB would read "infinity" as 1900
        f"coalesce(case when regexp_matches({plain}, '^\\d{{4}}[-/]') then try_cast({hours} as timestamptz) end, "
        f"case when regexp_matches({plain}, '\\d') then coalesce(try_strptime({plain}, {clocks})::timestamptz, "
        f"try_strptime({plain}, {with_names})::timestamptz) end)"
    )


def _from_column(
    connection: duckdb.DuckDBPyConnection, raw: str, column: str, kind: str, path: Path, option: str
) -> tuple[str, list[str]]:
    """SQL that reads a column of no text and no times as instants, and notes. Raises BadInput when `option` names it
    and it holds none."""
    name = quoted(column)
    if first_row(connection, f"select count({name}) from {raw}")[0] == 0:
        raise BadInput(f"{option}: column '{column}' of {path.name} is empty.")
    if kind in NUMBERS - {"BOOLEAN"} or kind.startswith(WIDE_NUMBERS):
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
    filled, middle = first_row(connection, f"select count({value}), median({number}) filter ({counted}) from {raw}")
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
    readable = first_row(connection, f"select count({expression}) from {raw}")[0]
    if readable < filled:
        notes.append(f"{column}: {filled - readable:,} of {filled:,} values are no such time; they are missing.")
    return expression, notes
