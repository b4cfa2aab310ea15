"""What a night's profile gives away, held against nights of its past; and how profiles are kept."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from tiltyard import clock
from tiltyard.prepare import observation
from tiltyard.prepare.observation import Observation
from tiltyard.prepare.outage import ColumnProfile as Column
from tiltyard.prepare.outage import OutageVerdict, tail, verdict_on
from tiltyard.prepare.outage import TableProfile as Profile
from tiltyard.rails import Rails

TONIGHT = date(2025, 6, 2)
DEVICES = {"web": 380, "phone": 590, "tv": 30}


def profile(back: int = 0, rows: int = 1000, **columns: Column) -> Profile:
    night = TONIGHT - timedelta(days=back)
    return Profile(night, rows, f"content of {night}", columns)


def devices(counts: Mapping[str, int], nulls: int = 0) -> Column:
    return Column(nulls, 0, len(counts), len(counts) == 1, counts)


def usual(nights: int = 28, **values: Any) -> list[Profile]:
    """Nights like each other, a little restless."""
    random = np.random.default_rng(1)
    found = []
    for back in range(1, nights + 1):
        counts = {name: int(random.poisson(count)) for name, count in DEVICES.items()}
        nulls = int(random.poisson(20))
        rows = sum(counts.values()) + nulls
        amount = Column(0, int(random.binomial(rows, 0.1)), 300, False)
        found.append(profile(back, rows, device=devices(counts, nulls), amount=amount, **values))
    return found


def tonight(device: Column = devices(DEVICES, 20), amount: Column = Column(0, 100, 300, False)) -> Profile:  # noqa: B008
    return profile(0, 1020, device=device, amount=amount)


def rules(verdict: OutageVerdict) -> set[tuple[str, str]]:
    return {(outage.rule, outage.column) for outage in verdict.outages}


def test_a_night_like_the_others_is_clean() -> None:
    verdict = verdict_on(tonight(), usual())
    assert verdict.outages == ()
    assert ("went_null", "device") in verdict.clean


@pytest.mark.parametrize(
    ("changed", "rule", "said"),
    [
        (
            {"device": Column(1020, 0, 0, False)},
            ("went_null", "device"),
            "1020 of 1020 values are missing, at most",
        ),
        ({"amount": Column(0, 1020, 1, True)}, ("went_zero", "amount"), "1020 of 1020 values are zero"),
        ({"amount": Column(0, 0, 1, True)}, ("went_constant", "amount"), "all 1020 values are the same one, of"),
        ({"device": devices({"web": 1000}, 20)}, ("went_constant", "device"), "the same one (web), of usually 3"),
        ({"device": devices({"web": 970, "tv": 30}, 20)}, ("category_vanished", "device"), "values is 'phone' (at"),
    ],
)
def test_each_kind_of_silence_is_found_once_and_said(changed: dict[str, Column], rule: Any, said: str) -> None:
    verdict = verdict_on(tonight(**changed), usual())
    assert rules(verdict) == {rule}
    assert said in verdict.outages[0].reason
    assert "(against " in verdict.outages[0].reason


def test_a_rare_category_may_be_absent_and_a_small_night_says_nothing() -> None:
    assert not verdict_on(tonight(devices({"web": 400, "phone": 600}, 20)), usual()).outages
    few = profile(0, 15, device=Column(15, 0, 0, False), amount=Column(0, 15, 1, True))
    assert verdict_on(few, usual()) == OutageVerdict((), frozenset())


def test_a_party_that_books_half_the_house_is_no_outage_and_a_month_may_end() -> None:
    assert not verdict_on(tonight(device=devices({"web": 210, "phone": 330}, 480)), usual()).outages
    past = [profile(back, 700, month=devices({"5": 700})) for back in range(1, 29)]
    assert not verdict_on(profile(0, 700, month=devices({"6": 700})), past).outages


def test_what_is_possible_by_chance_is_neither_found_nor_cleared() -> None:
    small = profile(0, 25, device=devices({"phone": 25}), amount=Column(0, 2, 20, False))
    verdict = verdict_on(small, usual())
    assert not verdict.outages
    assert ("category_vanished", "device") not in verdict.clean
    assert ("went_constant", "device") not in verdict.clean
    assert ("went_null", "device") in verdict.clean


def test_the_same_weekday_counts_where_there_are_enough_of_them() -> None:
    """A table that the source rewrites on Mondays: full then, and nearly all NULL on other days."""
    past = [profile(back, 500, last_login=Column(10 if back % 7 == 0 else 500, 0, 50, False)) for back in range(1, 36)]
    assert rules(verdict_on(profile(0, 500, last_login=Column(500, 0, 50, False)), past)) == {
        ("went_null", "last_login")
    }
    assert not verdict_on(profile(1, 500, last_login=Column(500, 0, 50, False)), past[1:]).outages


def test_the_rows_of_another_night_are_found_whatever_their_dates() -> None:
    past = usual()
    again = replace(tonight(), rows=past[2].rows, content=past[2].content)
    verdict = verdict_on(again, past)
    assert rules(verdict) == {("repeated_partition", "")}
    assert str(past[2].night) in verdict.outages[0].reason


def test_two_weeks_make_a_past_and_broken_nights_are_none() -> None:
    gone = tonight(device=Column(1020, 0, 0, False))
    assert not verdict_on(gone, usual(13)).outages
    assert verdict_on(gone, usual(14)).outages
    broken = [replace(night, broken=frozenset({("went_null", "device")})) for night in usual(28)]
    verdict = verdict_on(gone, broken)
    assert ("went_null", "device") not in rules(verdict)
    assert ("went_null", "device") in verdict.unusual


def test_the_bound_on_the_tail_is_one() -> None:
    """Against the binomial tail itself."""
    from scipy.stats import binom

    for rows, share in ((30, 0.1), (200, 0.5), (1000, 0.02)):
        for hits in range(0, rows + 1, max(rows // 20, 1)):
            assert tail(rows, hits, share) >= binom.sf(hits - 1, rows, share) * (1 - 1e-9)


def test_a_night_that_is_profiled_later_does_not_see_what_came_after_it() -> None:
    """Yesterday's partition came again today: today repeats yesterday, and not the other way round."""
    yesterday, today = profile(1, 1020, amount=Column(0, 0, 9, False)), tonight()
    today = replace(today, content=yesterday.content, rows=yesterday.rows)
    assert ("repeated_partition", "") in verdict_on(today, [*usual(), yesterday]).broken
    assert verdict_on(yesterday, [*usual(), today]).outages == ()


def test_a_profile_is_kept_once_and_leaves_those_of_other_tables_alone(rails: Rails) -> None:
    first, second = profile(1, device=devices(DEVICES)), profile(0, device=devices(DEVICES))
    broken = replace(first, broken=frozenset({("went_null", "device")}))
    as_of = clock.midnight(TONIGHT)
    observation.store(rails, Observation("shop", {}, {}, (("raw.visit", broken), ("raw.visit", second))), {}, as_of)
    for _ in range(2):
        observation.store(rails, Observation("shop", {}, {}, (("raw.visit", second), ("raw.sale", first))), {}, as_of)
    rows = rails.lake.query(
        "select table_name, night, column_name, broken from {ops.column_profile} order by all",
        as_of + timedelta(days=1),
    )
    assert [tuple(row) for row in rows[rows["column_name"] == "device"].astype(str).itertuples(index=False)] == [
        ("raw.sale", str(first.night), "device", ""),
        ("raw.visit", str(first.night), "device", "went_null"),
        ("raw.visit", str(second.night), "device", ""),
    ]
    assert len(rows) == 6


def test_a_day_that_is_written_as_text_passes_and_is_no_value_that_vanished() -> None:
    """What is due on the day before is there on every night up to it; tonight nothing can be due before tonight."""
    last = (TONIGHT - timedelta(days=1)).isoformat()
    past = []
    for back in range(1, 29):
        night = TONIGHT - timedelta(days=back)
        days = {(night + timedelta(days=ahead)).isoformat(): 20 for ahead in range(10)}
        past.append(profile(back, due=devices({**days, last: 400})))
    tonight = profile(due=devices({(TONIGHT + timedelta(days=ahead)).isoformat(): 60 for ahead in range(10)}))
    verdict = verdict_on(tonight, past)
    assert verdict.outages == () and ("category_vanished", "due") in verdict.clean
    letters = [profile(back, due=devices({"a": 400, "b": 300})) for back in range(1, 29)]
    assert verdict_on(profile(due=devices({"b": 700})), letters).outages, "a letter that is gone has not passed"
