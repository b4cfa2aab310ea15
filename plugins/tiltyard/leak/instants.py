"""Numbers that are instants: days, seconds or smaller units since 1970, and dates written 20140131. Pure.

There is one table of units and one rule that chooses among them. Whoever reads a column that was declared to hold
times (`unit_of`, `declared`), in a file by SQL or in a sample by numpy, and whoever asks whether an undeclared column
might hold some (`GUESSED`), reads from here.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tiltyard.leak.arrays import Floats

PLACEHOLDERS = (0.0, -1.0)
"""Numbers that stand for "no time": a table in which most outcomes have not come holds more of them than of times."""
GUESSED = (5e8, 4e9)
"""Seconds since 1970 between which numbers that nobody declared may be instants: 1985 to 2096."""
FIRST_DATE, LAST_DATE = 19_000_101, 21_001_231
"""The numbers that are read as dates written YYYYMMDD when the middle one of their column lies between them."""


@dataclass(frozen=True)
class Unit:
    """How numbers count the time since 1970."""

    name: str
    """For a note: 's', of 's since 1970'."""
    seconds: int
    """Seconds in one of it; 1 where it is shorter than a second."""
    per_second: int
    """How many of it make a second; 1 where it is longer. Two whole numbers, so that no instant is rounded."""
    low: float
    """The least number, in this unit, that a declared column may hold as an instant."""
    high: float
    """The first number that is too large for one."""

    def to_seconds(self, values: Floats) -> Floats:
        """Seconds since 1970 of numbers in this unit, to the microsecond, as a column of timestamps is read: the same
        instant is the same number then, in whatever unit it is written."""
        seconds: Floats = np.round(values * self.seconds / self.per_second * 1e6) / 1e6
        return seconds


UNITS = (
    Unit("ns", 1, 1_000_000_000, 1e17, 1e20),
    Unit("µs", 1, 1_000_000, 1e14, 1e17),
    Unit("ms", 1, 1_000, 1e11, 1e14),
    Unit("s", 1, 1, 1e8, 1e11),
    Unit("days", 86_400, 1, GUESSED[0] // 86_400, GUESSED[1] // 86_400),
)
"""No two ranges touch. Days begin only at 1985, above every number of a year: 2024 is a year and no day of 1975."""
DATES = Unit("YYYYMMDD", 86_400, 1, FIRST_DATE, LAST_DATE + 1)
"""No count: the digits of a date. `seconds` says how finely it tells the time."""


def unit_of(middle: float) -> Unit | None:
    """The unit of a column that was declared to hold times, by the median of its numbers; None when they are no time.

    The median is taken without `PLACEHOLDERS`, so that neither those nor a few numbers of many nines decide.
    """
    return next((unit for unit in (DATES, *UNITS) if unit.low <= middle < unit.high), None)


def declared(values: Floats) -> tuple[Floats, Unit] | None:
    """n numbers of a column that was declared to hold times, as seconds since 1970 UTC, and their unit.

    NaN where a number is missing, a placeholder or no such time. None when the numbers as a whole are no time.
    """
    counted = values[np.isfinite(values) & ~np.isin(values, PLACEHOLDERS)]
    unit = unit_of(float(np.median(counted))) if len(counted) else None
    if unit is None:
        return None
    if unit is DATES:
        return dates(values), unit
    there = (values >= unit.low) & (values < unit.high)
    seconds: Floats = np.where(there, unit.to_seconds(values), np.nan)
    return seconds, unit


def dates(values: Floats) -> Floats:
    """Seconds since 1970 UTC of numbers written YYYYMMDD; NaN where a number is no date."""
    distinct, place = np.unique(values, return_inverse=True)
    whole = np.isfinite(distinct) & (distinct % 1 == 0) & (distinct >= 1_000_101) & (distinct <= 99_991_231)
    texts = pd.Series(np.where(whole, distinct, 0).astype(np.int64).astype(str))
    parsed = pd.to_datetime(texts, format="%Y%m%d", errors="coerce", utc=True)
    micros = pd.DatetimeIndex(parsed).as_unit("us").asi8
    seconds: Floats = np.where(parsed.isna().to_numpy(), np.nan, micros / 1e6)[place]
    return seconds


GUESSABLE = tuple(unit for unit in reversed(UNITS) if unit.name != "days")
"""Units that are tried on columns that nobody declared, within `GUESSED`. Days are not: ids, sums and durations lie in
the same range."""
