"""Where a table is read: at the batch's snapshot, or where it was good last, and no later than then."""

from datetime import UTC, date, datetime

import pytest

from tiltyard.errors import BadInput
from tiltyard.lake import stored
from tiltyard.records import Publication, TableState

NIGHT = date(2025, 2, 4)
HELD = TableState(
    night=NIGHT,
    table="ftr_shop__size",
    state="held",
    snapshot=7,
    good_night=date(2025, 2, 3),
    since=NIGHT,
    reason="too few rows",
    cause="ftr_shop__size",
)
NEVER = TableState(
    night=NIGHT, table="ftr_shop__new", state="failed", since=NIGHT, reason="no SQL", cause="ftr_shop__new"
)
ELSEWHERE = TableState(night=NIGHT, table="spn_visit", state="published", snapshot=8, good_night=NIGHT)
PUBLICATION = Publication(snapshot=9, tables={state.table: state for state in (HELD, NEVER, ELSEWHERE)})


@pytest.mark.parametrize(
    "table, snapshot",
    [
        ("ftr_shop__mood", 9),
        ("ftr_shop__size", 7),
        ("features.ftr_shop__size", 7),
        ("features.ftr_shop__size__answers", 7),
        ("spn_visit", 8),
        ("ops.prediction", 9),
    ],
)
def test_a_table_is_read_at_its_own_snapshot(table: str, snapshot: int) -> None:
    assert PUBLICATION.of(table) == snapshot
    assert stored(table, PUBLICATION).endswith(f"at (version => {snapshot})")


def test_its_snapshots_are_all_that_something_is_read_at() -> None:
    assert PUBLICATION.snapshots == {7, 8, 9}


def test_only_what_is_not_good_is_bound_to_its_last_good_night() -> None:
    assert PUBLICATION.until("features.ftr_shop__size__answers") == datetime(2025, 2, 3, tzinfo=UTC)
    assert PUBLICATION.until("spn_visit") is None
    assert PUBLICATION.until("ftr_shop__mood") is None
    assert PUBLICATION.unpublished(["spn_visit", "ftr_shop__size", "ftr_shop__mood"]) == (HELD,)


def test_a_table_that_was_never_good_cannot_be_read() -> None:
    with pytest.raises(BadInput, match="ftr_shop__new is failed since 2025-02-04 and was never published: no SQL"):
        PUBLICATION.of("ftr_shop__new")


def test_what_a_prediction_keeps_of_it_is_enough_to_read_the_same_again() -> None:
    kept = PUBLICATION.part(["spn_visit", "ftr_shop__size", "ftr_shop__mood"])
    assert kept.apart == '{"ftr_shop__size": [7, "2025-02-03"], "spn_visit": [8, null]}'
    again = Publication.made_from(kept.snapshot, kept.apart)
    for table in ("spn_visit", "ftr_shop__size", "ftr_shop__mood"):
        assert (again.of(table), again.until(table)) == (kept.of(table), kept.until(table))
    assert PUBLICATION.part(["ftr_shop__mood"]).apart is None
    assert Publication.made_from(9, None) == Publication(snapshot=9)
