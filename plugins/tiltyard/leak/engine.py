"""What every reader of a file shares: the engine, and small questions about types, values and names."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from tiltyard import arguments
from tiltyard.errors import BadInput
from tiltyard.leak.rules import is_instant
from tiltyard.leak.suspicion import Cell

Progress = Callable[[str, float], None]
"""Called with what is going on, and the share of the whole that is done."""
NUMBERS = frozenset(
    {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT",
     "DOUBLE"}
)  # fmt: skip
"""DuckDB's types that are numbers, and are read as they are."""
WIDE_NUMBERS = ("DECIMAL", "HUGEINT", "UHUGEINT", "BIGNUM")
"""How the types begin that are numbers, and are read as DOUBLE."""


def connect(folder: Path, *, threads: int, memory: str = "2GB") -> duckdb.DuckDBPyConnection:
    """An engine in this process that stays within `memory` and spills to `folder`.

    Raises BadInput for a number of threads or an amount of memory that is none.
    """
    arguments.check_count(threads, "threads")
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "memory_limit": memory,
        "temp_directory": str(folder / "spill"),
    }
    try:
        connection = duckdb.connect(config=config)
    except (duckdb.ProgrammingError, duckdb.DataError):
        raise BadInput(f"memory is an amount like '2GB', not {memory!r}.") from None
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set enable_progress_bar_print = false")
    return connection


def first_row(connection: duckdb.DuckDBPyConnection, sql: str) -> Sequence[Any]:
    """The first row of a query that has one: values of DuckDB, of the types that the query gives them."""
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row


def is_readable(kind: str) -> bool:
    """A column of this DuckDB type can be judged: numbers, text and instants, but no lists, structs or blobs."""
    return kind in NUMBERS or kind == "VARCHAR" or is_instant(kind)


def plain(value: object) -> Cell:
    """A value of DuckDB, fit for JSON: numbers that are none become None, instants ISO 8601, the rest text."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is pd.NaT or value is pd.NA:
        return None
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean 'x'?` in words, or the columns there are when none is near; '' when there are none."""
    names = list(candidates)
    folded = {candidate.casefold().replace(" ", "_"): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold().replace(" ", "_"), list(folded), n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{folded[close[0]]}'"
    shown = ", ".join(names[:12])
    return f"; it has {shown}{', …' if len(names) > 12 else ''}" if names else ""
