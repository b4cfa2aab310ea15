"""Nights, durations and the arithmetic of maturity."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard import clock
from tiltyard.errors import BadInput


def test_a_night_is_named_by_the_end_of_its_interval() -> None:
    as_of = clock.parse_as_of("2016-04-02")
    assert clock.interval(as_of) == (datetime(2016, 4, 1, tzinfo=UTC), datetime(2016, 4, 2, tzinfo=UTC))


@pytest.mark.parametrize("text", ["2016-13-01", "yesterday", "", "2016-04-02T06:00:00"])
def test_a_date_that_is_none_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(BadInput, match=r"date|time zone"):
        clock.parse_as_of(text)


def test_an_instant_with_an_offset_becomes_utc() -> None:
    assert clock.parse_as_of("2016-04-02T02:00:00+02:00") == datetime(2016, 4, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("7d", timedelta(days=7)),
        ("12h", timedelta(hours=12)),
        ("20ms", timedelta(milliseconds=20)),
        ("2w", timedelta(weeks=2)),
        ("0d", timedelta()),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert clock.parse_duration(text) == duration


@pytest.mark.parametrize("text", ["7", "7 days", "-1d", "1.5h", "d", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        clock.parse_duration(text)


@given(st.integers(0, 10**9))
def test_a_duration_is_read_back_as_it_was_written(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert clock.parse_duration(clock.format_duration(duration)) == duration


def test_nights_include_both_ends_and_refuse_a_range_that_ends_before_it_begins() -> None:
    first, last = clock.parse_as_of("2016-04-01"), clock.parse_as_of("2016-04-03")
    assert [night.day for night in clock.nights(first, last)] == [1, 2, 3]
    with pytest.raises(BadInput, match="swap --from and --to"):
        list(clock.nights(last, first))


def test_last_matured_is_the_inverse_of_matures_at() -> None:
    horizon, delay = timedelta(days=10), timedelta(hours=6)
    as_of = clock.parse_as_of("2016-04-20")
    assert clock.matures_at(clock.last_matured(as_of, horizon, delay), horizon, delay) == as_of


@pytest.mark.parametrize("text", ["2016-04-02T12:00:00Z", "2016-04-02T00:00:00+02:00", "0001-01-01", "9999-12-31"])
def test_a_night_closes_at_a_midnight_of_our_time(text: str) -> None:
    with pytest.raises(BadInput, match=re.escape(text)):
        clock.parse_night(text)
    assert clock.parse_night("2016-04-02") == clock.parse_night("2016-04-02T02:00:00+02:00")
