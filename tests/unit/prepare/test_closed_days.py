"""Which days a source has nothing to deliver of."""

from datetime import date

import pytest
from pydantic import ValidationError

from tiltyard.prepare.closed_days import closed_until, why_closed
from tiltyard.prepare.contracts import Rhythm

BRAZIL = Rhythm.model_validate({"closed": ["Sunday", {"holidays": "BR"}, "2016-05-16"]}).closed


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        (date(2016, 4, 21), "Tiradentes' Day"),
        (date(2016, 5, 15), "sunday"),
        (date(2016, 5, 16), "closed"),
        (date(2016, 5, 14), None),
        (date(2016, 1, 25), None),  # of the city of São Paulo alone
    ],
)
def test_a_weekday_a_holiday_or_a_date(day: date, reason: str | None) -> None:
    assert why_closed(BRAZIL, day) == reason


def test_a_part_of_a_country_has_holidays_of_its_own() -> None:
    of_state = Rhythm.model_validate({"closed": [{"holidays": "BR", "subdivision": "SP"}]}).closed
    assert why_closed(of_state, date(2016, 7, 9)) == "Constitutionalist Revolution"
    assert why_closed(BRAZIL, date(2016, 7, 9)) is None


def test_the_days_up_to_the_one_that_is_over() -> None:
    days = closed_until(BRAZIL, date(2016, 5, 16))
    assert days[-3:] == (date(2016, 5, 8), date(2016, 5, 15), date(2016, 5, 16))
    assert closed_until(BRAZIL, date(2016, 5, 14))[-1] == date(2016, 5, 8)
    assert closed_until((), date(2016, 5, 16)) == ()


@pytest.mark.parametrize(
    ("closed", "sentence"),
    [
        (["sundays"], "'sundays' is no weekday and no date"),
        ([{"holidays": "XX"}], "no holidays are known of 'XX'"),
        ([{"holidays": "BR", "subdivision": "ZZ"}], "no holidays are known of 'BR, subdivision ZZ'"),
    ],
)
def test_a_day_that_nobody_knows_is_refused(closed: list[object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Rhythm.model_validate({"closed": closed})
