"""Instants, nights and durations. Pure, but for `now()`, which only the edges may call.

A *night* is named by its `as_of`, the end of its data interval: the night of 2 April 2016 closes at
2016-04-02 00:00 UTC, and speaks for predictions in [1 April 00:00, 2 April 00:00). The *hours* of a night are the
instants of its day at which rows of a model with `every: 1h` are answered before it closes.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from tiltyard.errors import BadInput

_DURATION = re.compile(r"^(\d+)\s*(ms|s|m|h|d|w)$")
LONGEST = timedelta(days=36_500)
"""No duration is longer: a hundred years."""
YEARS = range(1970, 2200)
"""The years in which a night may lie."""
NIGHT = timedelta(days=1)
"""How long a night is: what one closes over, however often its rows are answered."""
EVERY = (NIGHT, *(timedelta(hours=number) for number in (1, 2, 3, 4, 6, 8, 12)))
"""How often rows may be answered: once a night, or after these parts of a day."""
_UNIT = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def now() -> datetime:
    """Wall clock, UTC. For the edges (command line, DAG tasks, audit columns), never for a decision."""
    return datetime.now(UTC)


def parse_duration(text: str) -> timedelta:
    """`"30d"`, `"12h"`, `"15m"`, `"20ms"` as a timedelta. Raises ValueError on anything else, and for more than a
    hundred years."""
    match = _DURATION.match(text.strip()) if isinstance(text, str) else None
    if not match:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, like 7d, 12h or 30m")
    try:
        duration = timedelta(**{_UNIT[match[2]]: int(match[1])})
    except OverflowError:
        duration = timedelta.max
    if duration > LONGEST:
        raise ValueError(f"{text!r} is longer than a hundred years; write a shorter duration, like 365d")
    return duration


def format_duration(duration: timedelta) -> str:
    """The shortest form that `parse_duration` reads back."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if duration and duration % timedelta(seconds=size) == timedelta():
            return f"{duration // timedelta(seconds=size)}{unit}"
    return f"{duration // timedelta(milliseconds=1)}ms"


def parse_as_of(text: str) -> datetime:
    """`"2016-04-02"` (midnight UTC) or an ISO instant, as an aware UTC datetime.

    Raises BadInput when the text is neither, carries no zone, or lies outside of `YEARS`.
    """
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip()):
            instant = midnight(date.fromisoformat(text.strip()))
        else:
            instant = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadInput(f"'{text}' is not a date; write it like 2016-04-02 or 2016-04-02T06:00:00Z.") from None
    if instant.tzinfo is None:
        raise BadInput(f"'{text}' has no time zone; add Z for UTC, like 2016-04-02T06:00:00Z.")
    if instant.year not in YEARS:
        raise BadInput(f"'{text}' lies before {YEARS[0]} or after {YEARS[-1]}; check the year.")
    return instant.astimezone(UTC)


def parse_night(text: str) -> datetime:
    """The `as_of` of a night: `parse_as_of` of a midnight. Raises BadInput for any other instant as well: two nights
    that overlap would score rows twice, and leave others out."""
    as_of = parse_as_of(text)
    if as_of != midnight(as_of.date()):
        raise BadInput(f"'{text}' is no night: a night closes at midnight UTC; write it like {as_of:%Y-%m-%d}.")
    return as_of


def parse_hour(text: str) -> datetime:
    """The `as_of` of a night or of an hour: `parse_as_of` of a full hour. Raises BadInput for any other instant."""
    as_of = parse_as_of(text)
    if as_of != floor(as_of, EVERY[1]):
        raise BadInput(
            f"'{text}' is no night and no hour: a night closes at midnight UTC, and an hour on the hour; write it like "
            f"{as_of:%Y-%m-%d} or {as_of:%Y-%m-%dT%H:00Z}."
        )
    return as_of


def require_closed(as_of: datetime, now: datetime) -> datetime:
    """The `as_of` itself. Raises BadInput for a night, or an hour, that has not closed by now."""
    if as_of > now:
        raise BadInput(
            f"The night of {night_of(as_of)} has not closed: it does at {as_of:%Y-%m-%d %H:%M} UTC, and it is "
            f"{now:%Y-%m-%d %H:%M} here; check the year."
        )
    return as_of


def midnight(day: date) -> datetime:
    """The instant at which a day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def nights(first: datetime, last: datetime, every: timedelta = NIGHT) -> Iterator[datetime]:
    """The `as_of` of each night from `first` to `last`, both included."""
    if last < first:
        raise BadInput(f"The range ends ({last:%Y-%m-%d}) before it begins ({first:%Y-%m-%d}); swap --from and --to.")
    while first <= last:
        yield first
        first += every


def night_closing(as_of: datetime) -> date:
    """The date that names the night closing at `as_of`."""
    return as_of.date()


def day_ending(as_of: datetime) -> date:
    """The day that is over when the night closes at `as_of`: that of the deliveries which it brings."""
    return (as_of - timedelta(days=1)).date()


def night_covering(prediction_time: datetime) -> date:
    """The date that names the night which speaks for a prediction time: it closes at the end of that day."""
    return (prediction_time + timedelta(days=1)).date()


def night_of(as_of: datetime) -> date:
    """The date that names the night which closes at `as_of`, or of which `as_of` is an hour: the run at 07:00 of 30 May
    is one of the night of 31 May."""
    return night_covering(as_of - timedelta(microseconds=1))


def is_hour(as_of: datetime) -> bool:
    """Whether an `as_of` is an hour of a night, and does not close it."""
    return as_of != midnight(as_of.date())


def floor(instant: datetime, every: timedelta) -> datetime:
    """The newest end of an interval of `every`, a divisor of a day, at an instant."""
    day = midnight(instant.date())
    return day + (instant - day) // every * every


def hours(night: date, every: timedelta) -> Iterator[datetime]:
    """The `as_of` of each hour of a night before it closes, the oldest first; none where `every` is a night."""
    start, end = interval(midnight(night))
    while (start := start + every) < end:
        yield start


def interval(as_of: datetime, every: timedelta = NIGHT) -> tuple[datetime, datetime]:
    """[start, end) of the predictions that the night closing at `as_of` speaks for, or an hour of `every`."""
    return as_of - every, as_of


def matures_at(prediction_time: datetime, horizon: timedelta, delay: timedelta) -> datetime:
    """When the whole cohort of this prediction time has had its time to be judged."""
    return prediction_time + horizon + delay


def last_matured(as_of: datetime, horizon: timedelta, delay: timedelta) -> datetime:
    """Prediction times up to and including this instant have matured at `as_of` (the cohort rule)."""
    return as_of - horizon - delay
