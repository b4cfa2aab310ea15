"""When was a delivery here? Not when our clock says that it was loaded, and not when its rows claim.

`day` names a file and its rows; it is due when that day has ended. `looks`: the nights that looked for deliveries,
each with the wall clock of doing so. A night looks once, and what it does not find, a later one lands.
"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard.prepare.deliveries import Delivery, DeliveryLook, delivery_times

YEARS = timedelta(days=3650)


def at(text: str) -> datetime:
    """`3 Mar`, or `3 Mar 14:00`."""
    day, _, time = text.partition(" ")
    month, _, clock = time.partition(" ")
    return datetime.strptime(f"2025 {day} {month} {clock or '00:00'}", "%Y %d %b %H:%M").replace(tzinfo=UTC)


def arrived(drawing: str, looks: str) -> dict[str, tuple[str | None, str]]:
    """file → (landed at, basis)."""
    deliveries = []
    for line in drawing.strip().splitlines()[1:]:
        file, landed, loaded = (cell.strip() for cell in line.split("|"))
        deliveries.append(Delivery(f"{file}.csv", at(landed), clock_of(loaded)))
    looked = []
    for line in looks.strip().splitlines()[1:]:
        as_of, when = (cell.strip() for cell in line.split("|"))
        looked.append(DeliveryLook(at(as_of), clock_of(when)))
    found = delivery_times(deliveries, looked)
    return {
        file.removesuffix(".csv"): (f"{one.landed_at.day} {one.landed_at:%b}" if one.landed_at else None, one.basis)
        for file, one in found.items()
    }


def clock_of(text: str) -> datetime:
    """`years later`, or an instant."""
    return at(text.split(" + ")[0]) + YEARS if text.endswith("+ years") else at(text)


def test_what_lands_on_the_first_night_that_could_land_it_arrived_on_time() -> None:
    found = arrived(
        """
        day        | landed by | loaded
        2025-03-01 | 2 Mar     | 2 Mar 02:00
        2025-03-02 | 3 Mar     | 3 Mar 02:00
        """,
        """
        night | looked
        2 Mar | 2 Mar 02:00
        3 Mar | 3 Mar 02:00
        """,
    )
    assert found == {"2025-03-01": (None, "untimed"), "2025-03-02": ("3 Mar", "night")}


def test_the_first_delivery_brings_what_was_there_before_it_and_says_nothing() -> None:
    found = arrived("day | landed by | loaded\n2025-03-01 | 2 Mar | 2 Mar 02:00", "night | looked")
    assert found == {"2025-03-01": (None, "untimed")}


def test_a_delivery_that_nights_looked_for_arrived_with_the_night_that_found_it() -> None:
    """The night runs in production time or years after: only the order of looking and landing counts."""
    for later in ("", " + years"):
        found = arrived(
            f"""
            day        | landed by | loaded
            2025-03-01 | 2 Mar     | 2 Mar 02:00{later}
            2025-03-02 | 5 Mar     | 5 Mar 02:00{later}
            2025-03-03 | 4 Mar     | 4 Mar 02:00{later}
            2025-03-04 | 5 Mar     | 5 Mar 02:00{later}
            """,
            f"""
            night | looked
            2 Mar | 2 Mar 02:00{later}
            3 Mar | 3 Mar 02:00{later}
            4 Mar | 4 Mar 02:00{later}
            5 Mar | 5 Mar 02:00{later}
            """,
        )
        assert found["2025-03-02"] == ("5 Mar", "night")
        assert found["2025-03-03"] == ("4 Mar", "night")
        assert found["2025-03-04"] == ("5 Mar", "night")


def test_a_history_that_one_night_lands_is_taken_to_have_been_on_time() -> None:
    """A hindcast: nobody looked in between, so it was here no sooner than it was due, and perhaps not later."""
    found = arrived(
        """
        day        | landed by | loaded
        2025-03-01 | 9 Mar     | 9 Mar + years
        2025-03-02 | 9 Mar     | 9 Mar + years
        2025-03-08 | 9 Mar     | 9 Mar + years
        """,
        "night | looked\n9 Mar | 9 Mar + years",
    )
    assert found == {
        "2025-03-01": (None, "untimed"),
        "2025-03-02": ("3 Mar", "delivery"),
        "2025-03-08": ("9 Mar", "night"),
    }


def test_a_second_hindcast_that_goes_further_makes_nothing_late() -> None:
    found = arrived(
        """
        day        | landed by | loaded
        2025-03-01 | 4 Mar     | 4 Mar + years
        2025-03-03 | 4 Mar     | 4 Mar + years
        2025-03-05 | 9 Mar     | 9 Mar + years
        """,
        "night | looked\n4 Mar | 4 Mar + years\n9 Mar | 9 Mar + years",
    )
    assert found["2025-03-05"] == ("6 Mar", "delivery")


def test_a_correction_under_a_new_name_arrived_when_it_landed() -> None:
    found = arrived(
        """
        day          | landed by | loaded
        2025-03-01   | 2 Mar     | 2 Mar 02:00
        2025-03-02   | 3 Mar     | 3 Mar 02:00
        2025-03-02-b | 8 Mar     | 8 Mar 02:00
        """,
        "night | looked\n2 Mar | 2 Mar 02:00\n3 Mar | 3 Mar 02:00\n8 Mar | 8 Mar 02:00",
    )
    assert found["2025-03-02-b"] == ("8 Mar", "night")


@pytest.mark.parametrize(("loaded", "delivered_at"), [("3 Mar 02:10", "3 Mar 02:10"), ("3 Mar + years", "3 Mar")])
def test_the_loaders_clock_counts_only_in_production_time(loaded: str, delivered_at: str) -> None:
    deliveries = [
        Delivery("2025-03-01.csv", at("2 Mar"), clock_of(loaded)),
        Delivery("2025-03-02.csv", at("3 Mar"), clock_of(loaded)),
    ]
    assert delivery_times(deliveries, [])["2025-03-02.csv"].delivered_at == at(delivered_at)


DAYS = st.integers(1, 20)


@given(deliveries=st.dictionaries(DAYS, st.tuples(DAYS, DAYS), min_size=2), looks=st.lists(st.tuples(DAYS, DAYS)))
def test_a_delivery_was_missed_when_any_night_looked_for_it_in_vain(
    deliveries: dict[int, tuple[int, int]], looks: list[tuple[int, int]]
) -> None:
    """Nights run again, and in any order: for each delivery, every look is asked."""
    first = datetime(2025, 3, 1, tzinfo=UTC)
    after = [first + timedelta(days=number) for number in range(50)]
    named = {day: f"{after[day]:%Y-%m-%d}.csv" for day in deliveries}
    made = [Delivery(named[day], after[day + wait], after[loaded]) for day, (wait, loaded) in deliveries.items()]
    found = delivery_times(made, [DeliveryLook(after[night], after[when]) for night, when in looks])
    for day, (wait, loaded) in deliveries.items():
        missed = any(night > day and when < loaded for night, when in looks)
        observed = day != min(deliveries) and (missed or wait == 1)
        assert (found[named[day]].basis == "night") == observed
