"""On which nights a source has nothing to deliver, because it is closed. Pure.

Weekdays, single dates, and the public holidays of a country, which the library `holidays` knows. A night is named by
its UTC date, and so is a closed day.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import BeforeValidator, model_validator

from tiltyard.spec import Strict

# `holidays` takes a tenth of a second, which a DAG file does not spend when it is parsed: it is imported inside.

if TYPE_CHECKING:
    from holidays import HolidayBase

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
"""The names of weekdays, as `date.weekday` counts them."""
LONGEST = 400
"""Days back from a night in which closed ones are counted: more than a year of silence is no holiday."""


class PublicHolidays(Strict):
    """The public holidays of a country, or of a part of it."""

    holidays: str
    """Its ISO 3166 code, like BR."""
    subdivision: str | None = None
    """Code of the part of the country whose own holidays count as well, like SP; None for those of the whole alone."""

    @model_validator(mode="after")
    def _calendar_that_exists(self) -> "PublicHolidays":
        import holidays

        try:
            holidays.country_holidays(self.holidays, subdiv=self.subdivision, years=[])
        except NotImplementedError:
            place = f"{self.holidays}, subdivision {self.subdivision}" if self.subdivision else self.holidays
            raise ValueError(f"no holidays are known of '{place}'; write an ISO 3166 code like BR") from None
        return self


def _closed_day(value: object) -> object:
    """`holidays: BR` as the mapping that it is in a list of YAML, and a weekday in any case."""
    if isinstance(value, str):
        name = value.strip().lower()
        if name in WEEKDAYS:
            return name
        try:
            return date.fromisoformat(name)
        except ValueError:
            raise ValueError(
                f"'{value}' is no weekday and no date; write sunday, 2025-12-24, or holidays: BR"
            ) from None
    return value


ClosedDay = Annotated[Weekday | date | PublicHolidays, BeforeValidator(_closed_day)]
"""A weekday, a date, or a country's public holidays."""


def why_closed(days: Iterable[ClosedDay], night: date) -> str | None:
    """Why there is nothing to deliver for a night: its weekday, `closed` or the holiday's name; None where there is."""
    for day in days:
        if isinstance(day, PublicHolidays):
            if name := _calendar(day.holidays, day.subdivision, night.year).get(night):
                return str(name)
        elif isinstance(day, date):
            if day == night:
                return "closed"
        elif WEEKDAYS[night.weekday()] == day:
            return day
    return None


def closed_nights(days: Iterable[ClosedDay], as_of: datetime) -> tuple[date, ...]:
    """The closed nights of the LONGEST days before an instant, the oldest first."""
    closed = tuple(days)
    if not closed:
        return ()
    newest = (as_of - timedelta(days=1)).date()
    nights = (newest - timedelta(days=back) for back in reversed(range(LONGEST)))
    return tuple(night for night in nights if why_closed(closed, night))


@lru_cache(maxsize=64)
def _calendar(country: str, subdivision: str | None, year: int) -> "HolidayBase":
    import holidays

    return holidays.country_holidays(country, subdiv=subdivision, years=year, language="en_US")
