"""A table that is delivered every day and was not tonight, though its source came."""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import pandas as pd
import pytest

from tiltyard import clock
from tiltyard.prepare import deliveries
from tiltyard.rails import Rails
from tiltyard.tables import LANDED_FILE

DAY = timedelta(days=1)
TONIGHT = date(2025, 2, 25)


def back(*numbers: int) -> set[date]:
    return {TONIGHT - number * DAY for number in numbers}


EVERY = back(*range(30))


@pytest.mark.parametrize(
    ("days", "missed"),
    [
        ({"login": EVERY, "cancellation": EVERY}, set()),
        ({"login": EVERY, "cancellation": EVERY - back(0)}, {"cancellation"}),
        ({"login": EVERY - back(0), "cancellation": EVERY - back(0)}, set()),  # the source as a whole: it is late
        ({"login": EVERY, "cancellation": EVERY - back(0, 3)}, set()),  # it is not delivered daily
        ({"login": EVERY, "cancellation": back(1, 2, 3)}, set()),  # nobody knows yet
        ({"login": EVERY, "cancellation": EVERY - back(0, 9)}, {"cancellation"}),
    ],
    ids=["all came", "one did not", "none came", "not daily", "new", "an older gap"],
)
def test_a_table_is_missed_that_had_a_delivery_every_day(days: Mapping[str, set[date]], missed: set[str]) -> None:
    assert set(deliveries.silent_tables(days, TONIGHT)) == missed


def test_closed_days_are_no_days_without_a_delivery() -> None:
    sundays = {day for day in EVERY if day.weekday() == 6}
    days = {"login": EVERY, "visit": EVERY - sundays - back(0)}
    assert not deliveries.silent_tables(days, TONIGHT)
    (usual,) = deliveries.silent_tables(days, TONIGHT, sundays).values()
    assert len(usual) == deliveries.REGULAR and not sundays & {*usual}
    assert min(usual) == TONIGHT - 8 * DAY, "a Sunday lies between"


def test_it_is_told_from_what_has_landed(rails: Rails) -> None:
    def landed(table: str, days: Iterable[date], source: str = "shop") -> list[dict[str, object]]:
        own = {"source": source, "table_name": table, "available_at": clock.midnight(TONIGHT)}
        return [own | {"file": f"{day}.csv", "rows": 3} for day in sorted(days)]

    rails.lake.ensure(LANDED_FILE)
    rows = [*landed("visit", EVERY), *landed("refund", EVERY - back(0)), *landed("gate", EVERY, "airport")]
    whole = pd.DataFrame(rows).reindex(columns=list(LANDED_FILE.columns))
    rails.lake.replace(LANDED_FILE, {}, whole, message="deliveries")
    night = clock.midnight(TONIGHT + DAY)
    assert deliveries.missing(rails, "shop", night) == (
        "raw.refund: nothing was delivered of 2025-02-25, though something was of each of the 7 open days before it "
        "(2025-02-18 to 2025-02-24), and other tables of shop came",
    )
    assert deliveries.missing(rails, "shop", night - DAY) == ()
    assert deliveries.missing(rails, "airport", night) == ()
