"""What a caller from Python gives to the functions of docs/how-to/use-the-library.md, looked at before its use. Pure.

Every sentence names the argument and says what belongs there, since the caller sees neither a command line nor a file.
"""

import re
from collections.abc import Iterable
from datetime import date
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tiltyard.errors import BadInput


def kind(value: object) -> str:
    """What a value is, for a sentence."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def check_frame(frame: object, argument: str) -> None:
    """Raises BadInput for what is no DataFrame, and for one whose columns cannot be told apart by name."""
    if not isinstance(frame, pd.DataFrame):
        raise BadInput(f"{argument} is a pandas DataFrame, not {kind(frame)}; read the file with pandas first.")
    odd = next((name for name in frame.columns if not isinstance(name, str)), None)
    if odd is not None:
        raise BadInput(f"A column of {argument} is called {odd!r}, which is no text; rename it: columns have names.")
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise BadInput(f"Two columns of {argument} are called '{twice[0]}'; rename one of them.")


def check_in_sql(columns: Iterable[str], argument: str) -> None:
    """Raises BadInput for a column's name that SQL cannot say: no character, the one that ends a text, half a pair."""
    odd = next((name for name in columns if not name or re.search("[\0\ud800-\udfff]", name)), None)
    if odd is not None:
        raise BadInput(f"A column of {argument} is called {odd!r}, which no database takes for a name; rename it.")


def mixed(column: "pd.Series[Any]") -> bool:
    """Values of several kinds stand beside each other (text and numbers): what no engine has a type for."""
    return column.dtype == object and len(set(column.dropna().map(_family))) > 1


def _family(value: object) -> str:
    return "number" if isinstance(value, Number) else "time" if isinstance(value, date) else type(value).__name__


def check_name(name: object, argument: str) -> None:
    """Raises BadInput for what is no name of a column or a model."""
    if not isinstance(name, str):
        raise BadInput(f"{argument} is a name, as text, not {kind(name)}.")


def names(given: object, argument: str) -> tuple[str, ...]:
    """Names of columns. Raises BadInput for one text, whose letters would be taken for names, and for what is no
    name."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        shown = f"[{given!r}]" if isinstance(given, str) else "['a column']"
        raise BadInput(f"{argument} is a list of names, like {shown}, not {kind(given)}.")
    listed = tuple(given)
    for name in listed:
        check_name(name, f"Every part of {argument}")
    return listed


def check_between(number: object, argument: str, low: float, high: float) -> None:
    """Raises BadInput for what is no number above `low` and below `high`."""
    is_number = isinstance(number, int | float | np.integer | np.floating) and not isinstance(number, bool)
    if not (is_number and low < number < high):  # type: ignore[operator]
        raise BadInput(f"{argument} is a number above {low:g} and below {high:g}, not {number!r}.")


def check_count(number: object, argument: str) -> None:
    """Raises BadInput for what is no whole number from 1 on."""
    if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < 1:
        raise BadInput(f"{argument} is a whole number from 1 on, not {number!r}.")


def numbers(values: ArrayLike, argument: str) -> NDArray[np.float64]:
    """The values as numbers, whatever they are in. Raises BadInput when some of them are none."""
    try:
        if np.iscomplexobj(values):  # NumPy would drop a part of each
            raise TypeError
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{argument} is a column of numbers; some of what was given is none.") from None


def days(values: object, argument: str) -> NDArray[np.int64]:
    """Days since 1970 of a column or an index of dates: timestamps with or without a zone, dates, or text.

    Whole numbers are not taken for dates. Raises BadInput for what is no date, and for a date that is missing.
    """
    try:
        index = pd.Index(values)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise BadInput(f"{argument} is a column of dates, not {kind(values)}.") from None
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if len(index) and (pd.api.types.is_numeric_dtype(index) or pd.api.types.is_bool_dtype(index)):
        raise BadInput(f"{argument} holds numbers ({index[0]}, …) and no dates.")
    try:
        dates = pd.DatetimeIndex(pd.to_datetime(index, format="ISO8601"))
    except (TypeError, ValueError):
        raise BadInput(f"{argument} holds what is no date; give dates, timestamps or ISO 8601 text.") from None
    if dates.hasnans:
        raise BadInput(f"{argument} has rows without a date; leave those out.")
    ordinals: NDArray[np.int64] = dates.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int64)
    return ordinals
