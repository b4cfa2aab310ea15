"""What is of a type, in SQL: a text is read as what it is, and as nothing else.

DuckDB's own casts are lenient: as a BIGINT `3.7` is 4, `0x1F` 31 and `1_000` 1000; as a DATE `25-01-01` is a day of the
year 25, and `2025-01-01 10:00` loses its hours; as a TIMESTAMP `12:00+02` loses its zone. Here a text that is not
spelled like its type is none of it. Instants that Python cannot hold, before the year 1 or after 9999 or without an
end, are told apart from those that are no instants at all.
"""

from tiltyard.lake import text

INTEGERS = ("BIGINT", "INTEGER")
INSTANTS = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
_DAY = r"(?:\d{4}-\d{1,2}-\d{1,2}|\d{4}/\d{1,2}/\d{1,2})"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d*)?)?"
_ZONE = r"(?:Z|[+-]\d{2}(?::?\d{2}(?::?\d{2})?)?|UTC|GMT|[A-Z][A-Za-z_]+/[A-Za-z_/+-]+\d*)"
"""Of zones with a name only those that mean one thing: CST is a zone of America, of China and of Cuba."""
_NAIVE = rf"\s*{_DAY}(?:[T ] *{_CLOCK})?\s*"
_ZONED = rf"\s*{_DAY}[T ] *{_CLOCK} ?{_ZONE}\s*"
_APART = r"(\d) (Z|[+-])"
"""A zone behind a space, which DuckDB does not take."""
_MIDNIGHT = rf"\s*{_DAY}(?:[T ] *0{{1,2}}:00(?::00(?:\.0*)?)?)?\s*"
_WHOLE = r"\s*[+-]?\d+(?:\.0*)?\s*"
_NUMBER = r"(?i)\s*[+-]?(?:(?:\d+{mark}?\d*|{mark}\d+)(?:e[+-]?\d+)?|nan|inf|infinity)\s*"
_ENDS = {
    "DATE": ("date '0001-01-01'", "date '9999-12-31'"),
    "TIMESTAMP": ("timestamp '0001-01-01 00:00:00'", "timestamp '9999-12-31 23:59:59.999999'"),
    "TIMESTAMP WITH TIME ZONE": (
        "timestamptz '0001-01-01 00:00:00+00'",
        "timestamptz '9999-12-31 23:59:59.999999+00'",
    ),
}
"""The first and the last that Python can hold."""


def read(value: str, kind: str, *, decimal: str = ".", zone: str = "UTC") -> str:
    """SQL of a text as a value of a DuckDB type of a contract; NULL where it is none.

    `value`: SQL of the text. An instant that Python cannot hold is one here still: see `held`. `zone` is that of
    instants that carry none; a zone in the text counts. TIMESTAMP is what the clocks of `zone` show.
    """
    if kind in INTEGERS:
        return f"case when {_is(value, _WHOLE)} then try_cast({value} as {kind}) end"
    if kind == "DOUBLE":
        number = f"replace({value}, ',', '.')" if decimal == "," else value
        there = _is(value, _NUMBER.replace("{mark}", "," if decimal == "," else "[.]"))
        # 1e400 would be endless, and no such number was written
        written = f"(isfinite(try_cast({number} as double)) or not regexp_matches({value}, '\\d'))"
        return f"case when {there} and {written} then try_cast({number} as double) end"
    if kind == "BOOLEAN":
        return f"try_cast({value} as boolean)"
    if kind == "DATE":
        far = _unheld(f"try_cast({value} as date)", kind)
        return f"case when {_is(value, _MIDNIGHT)} then try_cast({value} as date) else {far} end"
    if kind == "TIMESTAMP":
        zoned, far = in_clocks(_with_zone(value), zone), _unheld(f"try_cast({value} as timestamp)", kind)
        return (
            f"case when {_is(value, _NAIVE)} then try_cast({value} as timestamp) "
            f"when {_is(value, _ZONED)} then {zoned} else {far} end"
        )
    if kind == "TIMESTAMP WITH TIME ZONE":
        naive = instant(f"try_cast({value} as timestamp)", zone)
        far = _unheld(f"try_cast({value} as timestamptz)", kind)
        return (
            f"case when {_is(value, _NAIVE)} then {naive} "
            f"when {_is(value, _ZONED)} then {_with_zone(value)} else {far} end"
        )
    return value


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


def or_stop(value: str, typed: str, complaint: str) -> str:
    """SQL of `typed`, which stops with the text `complaint`, in SQL, where there is a value and it is NULL."""
    return f"case when ({typed}) is not null or {value} is null then {typed} else error({complaint}) end"


def instant(clocks: str, zone: str) -> str:
    """SQL of the instant at which the clocks of a zone show a TIMESTAMP. An hour that they skip is the next one, one
    that they show twice is the first (DuckDB takes the second)."""
    if zone == "UTC":
        return f"timezone('UTC', {clocks})"
    there = f"timezone({text(zone)}, {clocks})"
    before = (
        f"(timezone({text(zone)}, {clocks} - interval 1 day) + interval 24 hours)"  # by the offset of the day before
    )
    return (
        f"case when {before} < {there} and timezone({text(zone)}, {before}) = {clocks} then {before} else {there} end"
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


def _with_zone(value: str) -> str:
    """SQL of the instant of a text that has a zone."""
    return f"try_cast(regexp_replace({value}, {text(_APART)}, '\\1\\2') as timestamptz)"


def _unheld(value: str, kind: str) -> str:
    """SQL of an instant, only where Python cannot hold it: `infinity`, the year 10000, the year 44 before Christ."""
    return f"case when not {is_held(value, kind)} then {value} end"


def _is(value: str, pattern: str) -> str:
    return f"regexp_full_match({value}, {text(pattern)})"
