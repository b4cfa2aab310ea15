"""How a column of anybody's table is read: as instants, numbers or categories. Pure.

A column may hold instants as timestamps, as text in several formats and zones at once, or as integers (epoch,
20140131). Whatever it holds, a reading has one code per row (`codes`), so that every statistic is a table of
counts; numbers and instants have `values` beside them.
"""

from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from tiltyard.leak.arrays import Bools, Floats, Ints
from tiltyard.leak.instants import GUESSABLE, GUESSED, PLACEHOLDERS, declared
from tiltyard.leak.suspicion import Cell

ReadingKind = Literal["number", "instant", "category", "empty"]

MOSTLY = 0.95
"""So much of a text column has to parse for it to count as instants or numbers: the rest is dirt or a placeholder."""
NOTHING = frozenset({"", "?", "-", "na", "n/a", "nan", "nat", "none", "null", "undefined"})
"""Text that stands for no value; left out where text is parsed, a level of its own otherwise."""
FORMATS = (
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y",
    "%d-%m-%Y %H:%M",
    "%d-%m-%Y",
    "%d %b %Y %H:%M",
    "%d %b %Y",
    "%b %d, %Y",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d",
    "%a, %d %b %Y %H:%M:%S %z",
    "%Y%m%d",
    "%Y-%m",
)
"""Tried after ISO 8601, in this order; where day and month could be either, the column's own rows decide."""
FEWEST_DIGITS = 5
"""Of an instant in any of these forms: a year and a day."""
SPIKE = 0.01
"""A value that so many rows share is a level of its own beside the bins: zeros, caps, defaults."""
BINS = 32
"""Of numbers with more different values: of equal numbers of rows, cut between distinct values."""
DISTINCT = 64
"""Numbers with at most so many different values are not binned."""
HANGS = 0.3
"""How much closer than by chance a reading has to keep to the prediction's clock, as a mean resultant length; hours
spread evenly over half a day around it reach .6."""
RARE = 5
"""Categories of fewer rows count as one: a name that is there once tells nothing about the next row."""


@dataclass(frozen=True)
class Reading:
    """One column of n rows, read."""

    name: str
    kind: ReadingKind
    raw: "pd.Series[Any]"
    """The column as it came."""
    values: Floats | None = None
    """n numbers, NaN where missing; for instants seconds since 1970 UTC; None for categories."""
    day_only: bool = False
    """The instants are dates, to be compared by day."""
    written: str = ""
    """How the instants were written: 'timestamps', 'text', 'epoch ms', 'yyyymmdd'; '' for others."""
    ambiguous: int = 0
    """Texts whose day and month could not be told apart; they are missing from `values`."""

    @cached_property
    def missing(self) -> Bools:
        """n rows that hold no value."""
        if self.values is not None:
            return np.isnan(self.values)
        gone: Bools = self.raw.isna().to_numpy(dtype=bool)
        return gone

    def only(self, rows: Bools) -> "Reading":
        """The same column on some of its rows, with the same levels."""
        values = None if self.values is None else self.values[rows]
        part = Reading(self.name, self.kind, self.raw[rows], values, self.day_only, self.written)
        part.__dict__["_levels"] = (self.codes[rows], self.labels)
        return part

    @cached_property
    def _levels(self) -> tuple[Ints, list[str]]:
        if self.values is not None:
            return _number_levels(self.values, self.missing, self.kind == "instant", self.day_only)
        return _category_levels(self.raw)

    @property
    def codes(self) -> Ints:
        """n integers in [0, len(labels)); 0 is missing."""
        return self._levels[0]

    @property
    def labels(self) -> list[str]:
        """What each code stands for, for a person."""
        return self._levels[1]

    def show(self, row: int) -> Cell:
        """The value of a row as it came, fit for JSON."""
        value = self.raw.iloc[row]
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
            return None
        if isinstance(value, (bool, int, float, str)):
            return value
        return str(value)


def read(name: str, column: "pd.Series[Any]") -> Reading:
    """Never raises: what can be read no other way is a category."""
    column = column.reset_index(drop=True)
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        column = column.astype(object)
        kind = column.dtype
    if bool(column.isna().all()):
        return Reading(name, "empty", column)
    if isinstance(kind, pd.DatetimeTZDtype) or np.issubdtype(_numpy(kind), np.datetime64):
        seconds = to_seconds(column)
        return Reading(name, "instant", column, seconds, _whole_days(seconds, column), "timestamps")
    if np.issubdtype(_numpy(kind), np.timedelta64):
        return Reading(name, "number", column, column.dt.total_seconds().to_numpy(dtype=np.float64))
    if pd.api.types.is_complex_dtype(kind):
        return Reading(name, "category", column.map(str, na_action="ignore"))
    if pd.api.types.is_bool_dtype(kind) or pd.api.types.is_numeric_dtype(kind):
        return _numbers(name, column, column.to_numpy(dtype=np.float64, na_value=np.nan))
    return _objects(name, column)


def as_instants(reading: Reading) -> Floats | None:
    """n seconds since 1970 UTC of a column that was declared to hold times; None when it holds none."""
    if reading.kind == "instant":
        return reading.values
    if reading.kind != "number" or reading.values is None:
        return None
    instants = declared(reading.values)
    return instants[0] if instants else None


def to_seconds(column: "pd.Series[Any]") -> Floats:
    """Seconds since 1970 UTC of a datetime column; times without a zone count as UTC. NaN where missing."""
    index = pd.DatetimeIndex(column)
    index = index.tz_localize("UTC") if index.tz is None else index.tz_convert("UTC")
    micros = index.as_unit("us").asi8
    seconds: Floats = np.where(index.isna(), np.nan, micros / 1e6)
    return seconds


def _numpy(kind: object) -> "np.dtype[Any]":
    """The dtype that numpy knows; object for those of pandas' own."""
    return kind if isinstance(kind, np.dtype) else np.dtype(object)


def _whole_days(seconds: Floats, column: "pd.Series[Any]") -> bool:
    """Every instant lies on a midnight, of UTC or of its own zone."""
    here = seconds[~np.isnan(seconds)]
    if not len(here):
        return False
    if bool((here % 86_400 == 0).all()):
        return True
    index = pd.DatetimeIndex(column.dropna())
    return index.tz is not None and bool((index.normalize() == index).all())


def _numbers(name: str, column: "pd.Series[Any]", values: Floats) -> Reading:
    values = np.where(np.isfinite(values), values, np.nan)
    here = values[~np.isnan(values)]
    if not len(here):
        return Reading(name, "empty", column)
    days = _yyyymmdd(values, here)
    if days is not None:
        return Reading(name, "instant", column, days, True, "yyyymmdd")
    return Reading(name, "number", column, values)


def _yyyymmdd(values: Floats, here: Floats) -> Floats | None:
    """Seconds, where every number is a date written 20140131: of eight-digit numbers drawn at random 4 % are."""
    if here.min() < 19_000_101 or here.max() > 99_991_231 or (here % 1 != 0).any():
        return None
    distinct = np.unique(here)
    texts = pd.Series(distinct.astype(np.int64).astype(str))
    sentinel = texts.str.startswith("9999")
    parsed = pd.to_datetime(texts.where(~sentinel), format="%Y%m%d", errors="coerce", utc=True)
    if not bool((parsed.notna() | sentinel).all()) or not bool(parsed.notna().any()):
        return None
    seconds = to_seconds(parsed)
    places = np.searchsorted(distinct, np.where(np.isnan(values), distinct[0], values))
    result: Floats = np.where(np.isnan(values), np.nan, seconds[places])
    return result


def epoch_of(reading: Reading, prediction: Floats) -> Reading | None:
    """The column as instants when its numbers are an epoch: in range, and they move with the prediction time.

    An id or an amount can lie in the range too, so the offset from the prediction has to spread less than a tenth
    of what the numbers would if they had nothing to do with it: they follow the clock.
    """
    if reading.kind != "number" or reading.values is None:
        return None
    values = reading.values
    here = ~np.isnan(values) & ~np.isin(values, PLACEHOLDERS) & ~np.isnan(prediction)
    if here.sum() < 10 or ((values[here] % 1 != 0).any() and np.nanmax(values) > 4e9):
        return None
    for unit in GUESSABLE:
        seconds = unit.to_seconds(values)
        inside = here & (seconds >= GUESSED[0]) & (seconds <= GUESSED[1])
        if inside.sum() < MOSTLY * here.sum():
            continue
        offset = seconds[inside] - prediction[inside]
        spread = np.subtract(*np.quantile(offset, [0.75, 0.25]))
        shuffled = seconds[inside] - np.random.default_rng(0).permutation(prediction[inside])
        if spread < 0.9 * np.subtract(*np.quantile(shuffled, [0.75, 0.25])) and abs(np.median(offset)) < 5 * 3.2e7:
            return Reading(
                reading.name, "instant", reading.raw, np.where(inside, seconds, np.nan), False, f"epoch {unit.name}"
            )
    return None


def clock_of(reading: Reading) -> tuple[float, Floats] | None:
    """(minutes of a turn, minutes per row) when all numbers of the column can be read as a clock's."""
    values = reading.values
    if reading.kind != "number" or values is None:
        return None
    here = values[~np.isnan(values)]
    if (here[:100] % 1 != 0).any() or here.min() < 0 or here.max() > 86_400 or (here % 1 != 0).any():
        return None
    high, different = here.max(), len(np.unique(here))
    if high <= 24 and different > 4:
        return 1440.0, values % 24 * 60
    if high <= 59 and different > 24:
        return 60.0, values
    if 1000 < high <= 2400 and (here % 100 < 60).all():
        return 1440.0, values // 100 % 24 * 60 + values % 100
    if 720 < high <= 1440 and different > 60:
        return 1440.0, values % 1440
    if 43_200 < high <= 86_400 and different > 1440:
        return 1440.0, values / 60 % 1440
    return None


def hangs_on(turn: float, minutes: Floats, prediction: Floats) -> bool:
    """Reading and prediction move together: the distance between them has a direction, and not only because each has
    its own favourite times (the product of their lengths; Mardia, Jupp 2000, Directional Statistics, 2.3)."""
    hand = np.exp(2j * np.pi * minutes / turn)
    prediction_hand = np.exp(2j * np.pi * (prediction / 60 % turn) / turn)
    here = ~np.isnan(hand) & ~np.isnan(prediction_hand)
    if here.sum() < 30 or np.ptp((prediction[here] / 60) % turn) == 0:
        return False
    together = np.abs(np.mean(hand[here] * np.conj(prediction_hand[here])))
    apart = np.abs(np.mean(hand[here])) * np.abs(np.mean(prediction_hand[here]))
    return bool(together - apart >= HANGS)


def _objects(name: str, column: "pd.Series[Any]") -> Reading:
    codes, levels = _factorized(column)
    kinds = {type(level) for level in levels}
    if kinds <= {pd.Timestamp, datetime, date}:
        parsed = pd.Series(pd.to_datetime(list(levels), utc=True, errors="coerce"))
        seconds = _spread(codes, to_seconds(parsed))
        local = all((value.hour, value.minute, value.second) == (0, 0, 0) for value in levels if hasattr(value, "hour"))
        return Reading(name, "instant", column, seconds, local, "timestamps")
    if not kinds & {str}:
        numbers = pd.to_numeric(pd.Series(levels, dtype=object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
        if not np.isnan(numbers).any():
            return _numbers(name, column, _spread(codes, numbers))
    texts = pd.Series([str(level).strip() for level in levels], dtype=object)
    filled = ~texts.str.lower().isin(NOTHING).to_numpy(dtype=bool)
    if not filled.any():
        return Reading(name, "category", column.map(str, na_action="ignore"))
    parsed_clock = _clock_texts(texts[filled])
    if parsed_clock is not None:
        return Reading(name, "number", column, _spread(codes, _placed(filled, parsed_clock)), written="HH:MM")
    numbers = pd.to_numeric(texts[filled], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if np.isfinite(numbers).mean() >= MOSTLY:
        return _numbers(name, column, _spread(codes, _placed(filled, numbers)))
    instants = parse_texts(texts[filled])
    if instants is not None:
        seconds = _spread(codes, _placed(filled, instants[0]))
        there = seconds[~np.isnan(seconds)]
        whole = bool((there % 86_400 == 0).all()) if len(there) else False
        unsure = int(np.isin(codes, np.flatnonzero(_placed(filled, instants[1].astype(np.float64)) == 1)).sum())
        return Reading(name, "instant", column, seconds, whole, "text", unsure)
    return Reading(name, "category", column.map(str, na_action="ignore"))


def _factorized(column: "pd.Series[Any]") -> tuple[Ints, list[Any]]:
    """(code per row, -1 where missing; the levels). Values that cannot be hashed count by their text."""
    try:
        codes, levels = pd.factorize(column.astype(object).to_numpy(dtype=object))
    except TypeError:
        codes, levels = pd.factorize(column.map(str, na_action="ignore").to_numpy(dtype=object))
    return codes.astype(np.int64), list(levels)


def _spread(codes: Ints, values: Floats) -> Floats:
    spread: Floats = np.where(codes < 0, np.nan, values[codes])
    return spread


def _placed(where: Bools, values: Floats) -> Floats:
    placed = np.full(len(where), np.nan)
    placed[where] = values
    return placed


def _clock_texts(texts: "pd.Series[Any]") -> Floats | None:
    """Texts like 07:45 as the number 745 (the clock's own writing); None when they are not."""
    parts = texts.str.extract(r"^([01]?\d|2[0-4]):([0-5]\d)(?::[0-5]\d(?:\.\d+)?)?$")
    if parts[0].notna().mean() < MOSTLY:
        return None
    return np.asarray(parts[0].astype(float) * 100 + parts[1].astype(float), dtype=np.float64)


def parse_texts(texts: "pd.Series[Any]") -> tuple[Floats, Bools] | None:
    """(seconds, ambiguous) per text, or None when fewer than `MOSTLY` of them are instants.

    A column may mix formats and zones; times without a zone count as UTC. 3/4/2016 is read as the column's other
    rows say (31/4 is a day first, 4/31 a month first); when they say both, such texts are ambiguous and missing;
    when none says, the day comes first.
    """
    texts = texts.astype(str)
    probe = texts.iloc[:: max(1, len(texts) // 200)]
    if (probe.str.count(r"\d") >= FEWEST_DIGITS).mean() < MOSTLY:
        return None
    seconds, ambiguous = _parse(probe)
    if np.isfinite(seconds).mean() + ambiguous.mean() < MOSTLY:
        return None
    seconds, ambiguous = _parse(texts)
    return (seconds, ambiguous) if (np.isfinite(seconds) | ambiguous).mean() >= MOSTLY else None


def _parse(texts: "pd.Series[Any]") -> tuple[Floats, Bools]:
    seconds = np.full(len(texts), np.nan)
    ambiguous = np.zeros(len(texts), dtype=bool)
    iso = texts.str.match(r"^\d{4}-\d{2}-\d{2}").to_numpy(dtype=bool)
    if iso.any():
        seconds[iso] = _to_seconds(texts[iso], "ISO8601")
    slashed = texts.str.extract(r"^(\d{1,2})/(\d{1,2})/\d{4}").astype(float)
    day_first = bool((slashed[0] > 12).any())
    month_first = bool((slashed[1] > 12).any())
    if day_first and month_first:
        ambiguous = ((slashed[0] <= 12) & (slashed[1] <= 12) & (slashed[0] != slashed[1])).to_numpy(dtype=bool)
    for form in FORMATS:
        unread = np.isnan(seconds) & ~ambiguous
        if not unread.any():
            break
        if form.startswith("%m/%d") and day_first and not month_first:
            continue
        if form.startswith("%d/%m") and month_first and not day_first:
            continue
        seconds[unread] = _to_seconds(texts[unread], form)
    return seconds, ambiguous


def _to_seconds(texts: "pd.Series[Any]", form: str) -> Floats:
    # a sentinel such as 9999-12-31 does not fit nanoseconds: pandas reads it in microseconds, or not at all
    parsed = pd.to_datetime(texts, format=form, errors="coerce", utc=True)
    return to_seconds(pd.Series(parsed))


def _number_levels(values: Floats, missing: Bools, instants: bool, day_only: bool) -> tuple[Ints, list[str]]:
    codes = np.zeros(len(values), dtype=np.int64)
    here = np.flatnonzero(~missing)
    if not len(here):
        return codes, ["missing"]
    distinct, inverse, counts = np.unique(values[here], return_inverse=True, return_counts=True)

    def shown(value: float) -> str:
        if not instants:
            return f"{value:g}"
        try:
            return f"{pd.Timestamp(value, unit='s', tz='UTC'):{'%Y-%m-%d' if day_only else '%Y-%m-%d %H:%M'}}"
        except (ValueError, OverflowError, NotImplementedError):  # before the year 1, after 9999
            return f"{value:g} s"

    if len(distinct) <= DISTINCT:
        codes[here] = inverse + 1
        return codes, ["missing", *(shown(value) for value in distinct)]
    spikes = np.flatnonzero(counts >= max(SPIKE * len(values), 2))
    plain = counts.copy()
    plain[spikes] = 0
    order = np.cumsum(plain)
    total = order[-1]
    # every value lies in one bin, whatever its ties: bins are cut between distinct values
    bins = np.minimum((order - plain / 2) * BINS // max(total, 1), BINS - 1).astype(np.int64)
    level = np.empty(len(distinct), dtype=np.int64)
    is_spike = np.zeros(len(distinct), dtype=bool)
    is_spike[spikes] = True
    used, level[~is_spike] = np.unique(bins[~is_spike], return_inverse=True)
    level[spikes] = len(used) + np.arange(len(spikes))
    codes[here] = level[inverse] + 1
    binned, places = distinct[~is_spike], bins[~is_spike]
    low = binned[np.searchsorted(places, used)]
    high = binned[np.searchsorted(places, used, side="right") - 1]
    names_of_bins = [f"{shown(a)} to {shown(b)}" if a != b else shown(a) for a, b in zip(low, high, strict=True)]
    return codes, ["missing", *names_of_bins, *(shown(value) for value in distinct[spikes])]


def _category_levels(column: "pd.Series[Any]") -> tuple[Ints, list[str]]:
    codes, levels = _factorized(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(levels))
    common = np.flatnonzero(counts >= RARE)
    place = np.full(len(levels), len(common) + 1, dtype=np.int64)
    place[common] = np.arange(len(common)) + 1
    shown = ["missing", *(str(levels[number])[:60] for number in common)]
    if len(common) < len(levels):
        shown.append(f"{len(levels) - len(common)} rare ones")
    result: Ints = np.where(codes < 0, 0, place[codes])
    return result, shown
