"""Which snapshots stay, drawn as a line of commits."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard.upkeep.references import KeptReason, References, Snapshot, kept

START = datetime(2025, 1, 1, tzinfo=UTC)
LONG_AGO = {"recent_since": START + timedelta(days=1000)}


def line(text: str) -> list[Snapshot]:
    """`1:a 2 3:ab`: snapshots with the tables that each wrote, a letter each; snapshot n is of day n."""
    snapshots = []
    for word in text.split():
        number, _, tables = word.partition(":")
        at = START + timedelta(days=int(number))
        snapshots.append(Snapshot(int(number), at, frozenset(tables)))
    return snapshots


def staying(snapshots: list[Snapshot], references: References) -> dict[int, set[KeptReason]]:
    return {number: set(why) for number, why in kept(snapshots, references).items() if why}


def test_of_a_lake_that_nothing_refers_to_the_newest_stays() -> None:
    assert staying(line("1 2 3"), References(**LONG_AGO)) == {3: {"newest"}}
    assert kept([], References(**LONG_AGO)) == {}


def test_what_is_younger_than_the_grace_is_left_alone() -> None:
    references = References(recent_since=START + timedelta(days=2))
    assert staying(line("1 2 3"), references) == {2: {"recent"}, 3: {"newest", "recent"}}


def test_what_was_the_newest_when_the_grace_began_may_still_be_read_however_old_it_is() -> None:
    """A lake that rests for a week, somebody who begins to read it, and a night that writes meanwhile."""
    references = References(recent_since=START + timedelta(days=9))
    assert staying(line("1 2 10 11"), references) == {2: {"recent"}, 10: {"recent"}, 11: {"newest", "recent"}}
    assert staying(line("1 2"), references) == {2: {"newest"}}


@pytest.mark.parametrize(
    "reason", ["in_service", "published", "predicted", "answered", "trained", "decided", "incident"]
)
def test_what_a_record_names_stays_for_it(reason: KeptReason) -> None:
    references = References(named={reason: {2, 17}}, **LONG_AGO)  # 17 is not there (any more)
    assert staying(line("1 2 3 4"), references) == {2: {reason}, 4: {"newest"}}


def test_the_last_writing_before_a_snapshot_that_stays_is_kept_table_by_table() -> None:
    references = References(named={"predicted": {1, 6}}, **LONG_AGO)
    # without 3 and 5 the predictions of 1 and 6 would seem to be made from the same state
    assert staying(line("1:a 2:a 3:a 4:b 5:b 6 7"), references) == {
        1: {"predicted"},
        3: {"last_writing"},
        5: {"last_writing"},
        6: {"predicted"},
        7: {"newest"},
    }


def test_within_the_replay_window_every_writing_is_a_witness() -> None:
    references = References(named={"predicted": {2}}, replayed_since=2, **LONG_AGO)
    assert staying(line("1:a 2 3:a 4 5:a 6"), references) == {
        1: {"last_writing"},
        2: {"predicted"},
        3: {"witness"},
        5: {"witness"},
        6: {"newest"},
    }


@pytest.mark.parametrize(
    ("first", "last", "held"),
    [
        (2.5, 3.5, {2, 3}),  # 2 was the lake at the first instant
        (2.0, 2.0, {2}),
        (0.0, 1.5, {1}),
        (3.5, None, {3, 4}),
        (9.0, None, {4}),
    ],
)
def test_a_hold_keeps_the_lake_as_it_stood(first: float, last: float | None, held: set[int]) -> None:
    span = (START + timedelta(days=first), START + timedelta(days=last) if last is not None else None)
    reasons = kept(line("1 2 3 4"), References(held=[span], **LONG_AGO))
    assert {number for number, why in reasons.items() if "held" in why} == held


@given(
    st.lists(st.sets(st.sampled_from("abc")), min_size=1, max_size=14),
    st.sets(st.integers(1, 14)),
    st.none() | st.integers(1, 14),
)
def test_between_two_that_stay_one_is_seen_to_write_whatever_was_written(
    written: list[set[str]], named: set[int], since: int | None
) -> None:
    snapshots = [
        Snapshot(number, START + timedelta(days=number), frozenset(tables)) for number, tables in enumerate(written, 1)
    ]
    references = References(named={"predicted": named}, replayed_since=since, **LONG_AGO)
    stays = staying(snapshots, references)
    for number in (number for number, why in stays.items() if why != {"last_writing"}):
        for table in "abc":
            assert _last(snapshots, table, number) == _last([s for s in snapshots if s.number in stays], table, number)
    again = kept([snapshot for snapshot in snapshots if snapshot.number in stays], references)
    assert all(again.values()), "a second night lets go of nothing that the first has kept"


def _last(snapshots: list[Snapshot], table: str, until: int) -> int | None:
    return max((s.number for s in snapshots if table in s.wrote and s.number <= until), default=None)
