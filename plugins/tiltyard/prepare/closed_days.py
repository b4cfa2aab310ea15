"""On which days a source has nothing to deliver, because it is closed. Pure.

Weekdays, single dates, and the public holidays of a country, which the library `holidays` knows. A delivery is named by
the UTC day that it is about, and so is a closed day: the night that brings it closes when that day is over.
"""

from collections.abc import Iterable
from datetime import date, timedelta
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
"""Number of days back in which closed ones are counted: more than a year of silence is no holiday."""


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


def why_closed(closed: Iterable[ClosedDay], day: date) -> str | None:
    """Why there is nothing to deliver of a day: its weekday, `closed` or the holiday's name; None where there is."""
    for rule in closed:
        if isinstance(rule, PublicHolidays):
            if name := _calendar(rule.holidays, rule.subdivision, day.year).get(day):
                return str(name)
        elif isinstance(rule, date):
            if rule == day:
                return "closed"
        elif WEEKDAYS[day.weekday()] == rule:
            return rule
    return None


def closed_until(closed: Iterable[ClosedDay], last: date) -> tuple[date, ...]:
    """The closed ones of LONGEST days up to and with the last, the oldest first."""
    rules = tuple(closed)
    days = (last - timedelta(days=back) for back in reversed(range(LONGEST if rules else 0)))
    return tuple(day for day in days if why_closed(rules, day))


@lru_cache(maxsize=64)
def _calendar(country: str, subdivision: str | None, year: int) -> "HolidayBase":
    import holidays

    return holidays.country_holidays(country, subdiv=subdivision, years=year, language="en_US")
