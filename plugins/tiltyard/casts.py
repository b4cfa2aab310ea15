"""What is of a type, in SQL: a text is read as what it is, and as nothing else.

DuckDB's own casts are lenient: as a BIGINT `3.7` is 4, `0x1F` 31 and `1_000` 1000; as a DATE `25-01-01` is a day of the
year 25, and `2025-01-01 10:00` loses its hours; as a TIMESTAMP `12:00+02` loses its zone. Here a text that is not
spelled like its type is none of it. Instants that Python cannot hold, before the year 1 or after 9999 or without an
end, are told apart from those that are no instants at all.
"""

import re

from tiltyard.lake import text

INTEGERS = ("BIGINT", "INTEGER")
INSTANTS = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
_DAY = r"(?:\d{4}-\d{1,2}-\d{1,2}|\d{4}/\d{1,2}/\d{1,2})"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d*)?)?"
_ZONE = r"(?:Z|[+-]\d{2}(?::?\d{2}(?::?\d{2})?)?|UTC|GMT|[A-Z][A-Za-z_]+/[A-Za-z_/+-]+\d*)"
"""Of zones with a name only those that mean one thing: CST is a zone of America, of China and of Cuba."""
_NAIVE = rf"\s*{_DAY}(?:[T ] *{_CLOCK})?\s*"
_ZONED = rf"\s*{_DAY}[T ] *{_CLOCK}(?: ?{_ZONE})\s*"
_MENDED = (
    (rf"\s*({_DAY}[T ] *{_CLOCK}) (Z|[+-].*)", r"\1\2"),
    (rf"\s*({_DAY}[T ] *\d{{1,2}}:\d{{2}}) ?(Z|[+-].*)", r"\1:00\2"),
    (rf"\s*({_DAY}[T ] *\d{{1,2}}:\d{{2}})( [A-Z].*)", r"\1:00\2"),
)
"""How instants are written that DuckDB does not take: a zone behind a space, or behind minutes → how it does."""
_MIDNIGHT = rf"\s*{_DAY}(?:[T ] *0{{1,2}}:00(?::00(?:\.0*)?)?(?: ?{_ZONE})?)?\s*"
"""A day, or the midnight that it begins with, of whichever zone."""
_WHOLE = r"\s*[+-]?\d+(?:{mark}0*)?\s*"
_PLAIN = r"\s*[+-]?(?:\d+{mark}?\d*|{mark}\d+)\s*"
_USUAL = r"-?(?:(?:0|[1-9]\d{0,14})|(?:0|[1-9]\d*){mark}\d*)"
"""A number that is one whoever wrote it: no identifier."""
_NUMBER = r"(?i)\s*[+-]?(?:(?:\d+{mark}?\d*|{mark}\d+)(?:e[+-]?\d+)?|nan|inf|infinity)\s*"
_RUN_TOGETHER = re.compile("%[YmdHMSyIjf]%[YmdHMSyIjf]")
"""Numbers of a format with nothing between them."""
_ENDS = {
    "DATE": ("date '0001-01-01'", "date '9999-12-31'"),
    "TIMESTAMP": ("timestamp '0001-01-01 00:00:00'", "timestamp '9999-12-31 23:59:59.999999'"),
    "TIMESTAMP WITH TIME ZONE": (
        "timestamptz '0001-01-01 00:00:00+00'",
        "timestamptz '9999-12-31 23:59:59.999999+00'",
    ),
}
"""The first and the last that Python can hold."""


def read(value: str, kind: str, *, decimal: str = ".", thousands: str | None = None, zone: str = "UTC") -> str:
    """SQL of a text as a value of a DuckDB type of a contract; NULL where it is none.

    `thousands`: what may stand between the thousands of a number, all of them or none. `value`: SQL of the text. An
    instant that Python cannot hold is one here still: see `held`. `zone` is that of instants that carry none; a zone in
    the text counts. TIMESTAMP is what the clocks of `zone` show.
    """
    if kind in (*INTEGERS, "DOUBLE"):
        value = _ungrouped(value, decimal, thousands)
    if kind in INTEGERS:
        whole = _is(value, _WHOLE.replace("{mark}", "," if decimal == "," else "[.]"))
        number = f"replace({value}, ',', '.')" if decimal == "," else value
        return f"case when {whole} then try_cast({number} as {kind}) end"
    if kind == "DOUBLE":
        number = f"replace({value}, ',', '.')" if decimal == "," else value
        plain, there = (
            _is(value, pattern.replace("{mark}", "," if decimal == "," else "[.]")) for pattern in (_PLAIN, _NUMBER)
        )
        typed = f"try_cast({number} as double)"
        # 1e400 would be endless, and no such number was written
        far = f"case when isfinite({typed}) or not regexp_matches({value}, '\\d') then {typed} end"
        return f"case when {plain} and length({value}) < 100 then {typed} when {there} then {far} end"
    if kind == "BOOLEAN":
        return f"try_cast({value} as boolean)"
    if kind == "DATE":
        day = f"try_cast({value} as date)"
        return f"case when {_is(value, _MIDNIGHT)} then {day} else {_unheld(day, kind)} end"
    clocks, moment = f"try_cast({value} as timestamp)", f"try_cast({value} as timestamptz)"
    mended = [f"regexp_replace({value}, {text(pattern)}, {text(order)})" for pattern, order in _MENDED]
    zoned = f"coalesce({', '.join([moment, *(f'try_cast({spelled} as timestamptz)' for spelled in mended)])})"
    # a pattern of LIKE takes a fraction of the time of a regular expression
    since = f"{clocks} >= timestamp '1000-01-01'"
    usual = f"{_like(value)} and not suffix({value}, 'Z') and {since}"
    if kind == "TIMESTAMP":
        return (
            f"case when {usual} then {clocks} when {_is(value, _NAIVE)} then {clocks} "
            f"when {_is(value, _ZONED)} then {in_clocks(zoned, zone)} "
            f"else {_unheld(clocks, kind)} end"
        )
    if kind == "TIMESTAMP WITH TIME ZONE":
        return (
            f"case when {_like(value, 'Z')} and {since} then {moment} "
            f"when ({usual}) or {_is(value, _NAIVE)} then {instant(clocks, zone)} "
            f"when {_is(value, _ZONED)} then {zoned} else {_unheld(moment, kind)} end"
        )
    return value


def _like(value: str, end: str = "") -> str:
    """SQL of whether a text looks like a day and a clock, with this at its end.

    DuckDB takes a tab behind a day of one digit, and a blank or a point behind a second of one, which the regular
    expressions do not: the day and the seconds end in a digit.
    """
    shapes = f"{value} like '____-__-__ __:__:__{end}' or {value} like '____-__-__T__:__:__{end}'"
    return f"({shapes}) and substr({value}, 10, 1) >= '0' and substr({value}, 19, 1) >= '0'"


def _ungrouped(value: str, decimal: str, thousands: str | None) -> str:
    """SQL of a text without the marks between its thousands, where it has them between all."""
    if thousands is None:
        return value
    grouped = rf"\s*[+-]?[1-9]\d{{0,2}}(?:[{thousands}]\d{{3}})+(?:[{decimal}]\d*)?\s*"
    return f"(case when {_is(value, grouped)} then replace({value}, {text(thousands)}, '') else {value} end)"


def is_like(value: str, kind: str, *, decimal: str = ".", thousands: str | None = None) -> str:
    """SQL of whether a text that nobody has said the type of may be taken for one of this type; NULL or false where
    not. A number that does not print back as it is written is an identifier: 007, +43, one of twenty digits.
    """
    if kind in (*INTEGERS, "DOUBLE"):
        value = _ungrouped(value, decimal, thousands)
    typed = read(value, kind, decimal=decimal)
    if kind == "BOOLEAN":
        return f"lower({value}) in ('true', 'false', 't', 'f', 'yes', 'no', 'y', 'n')"
    if kind in INTEGERS:
        return f"cast(try_cast({value} as {kind}) as varchar) = trim({value})"
    if kind == "DOUBLE":
        same = f"try_cast(try_cast({value} as double) as hugeint) = try_cast({value} as hugeint)"
        is_short = f"(length({value}) < 16 or not regexp_full_match({value}, '\\s*-?\\d+\\s*') or {same})"
        usual = _is(value, _USUAL.replace("{mark}", "," if decimal == "," else "[.]"))
        unusual = f"({typed}) is not null and not regexp_matches({value}, '^\\s*([+]|-?0\\d)') and {is_short}"
        return f"case when {usual} and length({value}) < 100 then true else {unusual} end"
    if kind == "TIMESTAMP":
        return f"({typed}) is not null and not {_is(value, _ZONED)}"
    return f"({typed}) is not null"


def converted(value: str, found: str, kind: str, *, zone: str = "UTC") -> str:
    """SQL of a value of the DuckDB type `found` as one of a contract's type; NULL where it would be another one, like
    2.5 among whole numbers. Instants and clocks are of `zone`."""
    if found == kind:
        return value
    if found == "VARCHAR":
        return read(value, kind, zone=zone)
    if (found, kind) == ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return instant(value, zone)
    if found == "TIMESTAMP WITH TIME ZONE" and kind in INSTANTS:
        return f"cast({in_clocks(value, zone)} as {kind})"
    if kind in INTEGERS or (kind == "DOUBLE" and found.endswith(("INT", "INTEGER"))):
        return (
            f"case when try_cast(try_cast({value} as {kind}) as {found}) = {value} then try_cast({value} as {kind}) end"
        )
    return f"cast({value} as {kind})"


def finite(value: str) -> str:
    """SQL of the filter of an aggregate over those numbers that are one: neither without an end, nor none."""
    return f"filter (isfinite({value}))"


def or_stop(value: str, typed: str, complaint: str) -> str:
    """SQL of `typed`, which stops with the text `complaint`, in SQL, where there is a value and it is NULL."""
    return f"case when ({typed}) is not null or {value} is null then {typed} else error({complaint}) end"


def in_format(value: str, form: str) -> str:
    """SQL of a text that is written in a format of strptime as a TIMESTAMP, or as an instant where the format has its
    offset; NULL where it is not. DuckDB takes 25 for the year 25 where %Y stands, and no such year was meant; and where
    nothing stands between two numbers it takes 2025101 for the 1st of October, which may be the 11th of January."""
    read = f"try_strptime({value}, {text(form)})"
    is_meant = f"{read} >= {'timestamptz' if '%z' in form.lower() else 'timestamp'} '1000-01-01'"
    if _RUN_TOGETHER.search(form):
        is_meant += f" and strftime({read}, {text(form)}) = trim({value})"
    return f"case when {is_meant} then {read} end"


def instant(clocks: str, zone: str) -> str:
    """SQL of the instant at which the clocks of a zone show a TIMESTAMP. An hour that they skip is the next one, one
    that they show twice is the first (DuckDB takes the second)."""
    if zone == "UTC":
        return f"timezone('UTC', {clocks})"
    there = f"timezone({text(zone)}, {clocks})"
    # by the offset that was in force a day before, in microseconds, for intervals of instants are slow
    before = f"(epoch_us(timezone({text(zone)}, {clocks} - interval 1 day)) + 86400000000)"
    return (
        f"case when {before} < epoch_us({there}) and timezone({text(zone)}, make_timestamptz({before})) = {clocks} "
        f"then make_timestamptz({before}) else {there} end"
    )


def in_clocks(instant: str, zone: str) -> str:
    """SQL of what the clocks of a zone show at an instant."""
    return f"timezone({text(zone)}, {instant})"


def is_held(value: str, kind: str) -> str:
    """SQL of whether Python can hold an instant; NULL where there is none."""
    first, last = _ENDS[kind]
    return f"({value} between {first} and {last})"


def held(value: str, kind: str) -> str:
    """SQL of a value, without what Python cannot hold."""
    return f"case when {is_held(value, kind)} then {value} end" if kind in _ENDS else value


def _unheld(value: str, kind: str) -> str:
    """SQL of an instant, only where Python cannot hold it: `infinity`, the year 10000, the year 44 before Christ."""
    return f"case when not {is_held(value, kind)} then {value} end"


def _is(value: str, pattern: str) -> str:
    return f"regexp_full_match({value}, {text(pattern)})"
