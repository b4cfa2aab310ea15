"""How a text file writes its numbers: what stands before the decimals, and what between thousands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb

from tiltyard.lake import quoted, text

HEAD = 20_000
"""Rows that tell it."""
_AT_ONCE = 25
"""Columns that one query asks about."""
_WORDS = 0.1
"""Share of a column's values that may be words, as "missing" is spelled, and tell nothing of its numbers."""
_FEWEST = 20
"""Values that may be read both ways from which on a column is told."""
_PAIRS: tuple[tuple[Literal[".", ","], str], ...] = ((",", "."), (".", ","))


@dataclass(frozen=True)
class Marks:
    """How numbers are written."""

    decimal: Literal[".", ","] = "."
    thousands: str | None = None
    """What stands between thousands; None: nothing."""


@dataclass(frozen=True)
class Open:
    """A column whose numbers may be read both ways, like 175.848."""

    name: str
    shown: str
    """One of them."""
    whole: str | None
    """A number of three digits at most beside them, which has no decimals; None: there is none, so that they may well
    be numbers of three decimals each."""


def marks(
    connection: duckdb.DuckDBPyConnection, rows: str, names: Sequence[str], *, delimiter: str, said: str | None = None
) -> Marks:
    """What the numbers of a file prove. `rows`: SQL of its texts; `said`: what somebody says stands between thousands,
    empty for nothing.

    A comma stands before decimals where a column has numbers like 0,5 and no others. What stands between thousands is
    proven by 1.234,56 or 1.234.567; or by 1.234 where another column proves that the decimals stand behind a comma.
    Words in a tenth of a column's values are passed over: so is "missing" spelled.
    """
    if said:
        return Marks("," if said == "." else "." if said == "," else _decimal(connection, rows, names), said)
    decimal = _decimal(connection, rows, names) if delimiter != "," else "."
    if said == "":
        return Marks(decimal)
    proven, possible = set[str](), set[str]()
    for point, between in _PAIRS:
        group = f"-?[1-9][0-9]{{0,2}}([{between}][0-9]{{3}})"
        one, many = f"{group}+([{point}][0-9]+)?", f"{group}+[{point}][0-9]+|{group}{{2,}}"
        for grouped, sure in _columns(connection, rows, names, f"-?[0-9]+([{point}][0-9]+)?|{one}", one, many):
            possible |= {between} if grouped else set()
            proven |= {between} if sure else set()
    if len(proven) == 1:
        [between] = proven
        return Marks("," if between == "." else ".", between)
    if decimal == "," and "." in possible and not proven:
        return Marks(",", ".")
    return Marks(decimal)


def _decimal(connection: duckdb.DuckDBPyConnection, rows: str, names: Sequence[str]) -> Literal[".", ","]:
    """`,` where some column has numbers like 0,5. Where three digits stand behind each comma, as in 1,234, they may be
    thousands: that alone does not speak for it."""
    commas = _columns(
        connection,
        rows,
        names,
        "-?[0-9]+(,[0-9]+)?",
        "-?[0-9]+,([0-9]{1,2}|[0-9]{4,})|-?0[0-9]*,[0-9]+|-?[0-9]{4,},[0-9]+",
    )
    return "," if any(count for (count,) in commas) else "."


def _columns(
    connection: duckdb.DuckDBPyConnection, rows: str, names: Sequence[str], number: str, *patterns: str
) -> Iterator[tuple[int, ...]]:
    """Of each column that holds such numbers alone, words in a tenth of it left out, how many values match each of the
    patterns."""
    for start in range(0, len(names), _AT_ONCE):
        asked = [
            part
            for column in map(quoted, names[start : start + _AT_ONCE])
            for part in (
                f"count(*) filter ({column} <> '')",
                f"count(*) filter (regexp_matches({column}, '[0-9]'))",
                f"count(*) filter (regexp_full_match({column}, {text(number)}))",
                *(f"count(*) filter (regexp_full_match({column}, {text(pattern)}))" for pattern in patterns),
            )
        ]
        counts = connection.execute(f"select {', '.join(asked)} from (select * from {rows} limit {HEAD})").fetchone()
        assert counts is not None
        width = 3 + len(patterns)
        for place in range(0, len(counts), width):
            given, digits, numbers, *matching = counts[place : place + width]
            if given and digits == numbers and given - digits <= _WORDS * given:
                yield tuple(matching)


def open_ones(connection: duckdb.DuckDBPyConnection, rows: str, names: Sequence[str]) -> list[Open]:
    """The columns of a file without marks between thousands whose numbers may have some: all behind the point have
    three digits, and none has a zero or more than three digits before it."""
    found = []
    grouped = "-?[1-9][0-9]{0,2}[.][0-9]{3}"
    for name in names:
        counts = list(_columns(connection, rows, [name], f"-?[0-9]{{1,3}}|{grouped}", grouped, "-?[0-9]{1,3}"))
        if not counts or counts[0][0] < _FEWEST:
            continue
        column = quoted(name)
        row = connection.execute(
            f"select max({column}) filter (regexp_full_match({column}, '{grouped}')), "
            f"max({column}) filter (regexp_full_match({column}, '-?[1-9][0-9]{{0,2}}')) "
            f"from (select * from {rows} limit {HEAD})"
        ).fetchone()
        assert row is not None
        found.append(Open(name, row[0], row[1]))
    return found
