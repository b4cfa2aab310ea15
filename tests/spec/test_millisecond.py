"""The millisecond test: did this row really contain this value at that moment?

A visit is predicted on 1 February at noon, from the size that its shop has then. The night closes at midnight: the
prediction names the lake's snapshot of that night. Days later the same row is read again, as of the same night: what
differs was written in between, whatever dates it carries.
"""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from tests.lakes import COLUMNS, FEATURES, LABELS, SPINES, fill, instant, small_spec
from tiltyard import clock
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.tables import PREDICTION, Table
from tiltyard.train import replay

NIGHT = instant("2024-02-02")
VISIT = {"visit_id": "v1", "shop_id": "s1", "prediction_time": instant("2024-02-01 12:00")}
TODAY = clock.parse_as_of("2024-02-10")

# shop     then: size, happened, known     written since: size, happened, known    what is said
SHOPS = """
untouched  10 31Jan10:00 31Jan10:00        -                                       same
late       10 31Jan10:00 31Jan10:00        12 31Jan10:00 03Feb09:00                same
next_day   10 31Jan10:00 31Jan10:00        12 02Feb10:00 02Feb10:00                same
repeated   10 31Jan10:00 31Jan10:00        10 31Jan10:00 31Jan10:00                same
unknown    -                               10 31Jan10:00 31Jan10:00                absent_then
outdated   10 30Jan10:00 30Jan10:00        12 31Jan10:00 31Jan10:00                stale_then
blanked    10 31Jan10:00 31Jan10:00        ?  31Jan10:00 31Jan10:01                blanked_since
filled_in  ?  31Jan10:00 31Jan10:00        10 31Jan10:00 31Jan10:01                absent_then
"""
# - is no row, ? a row that says nothing. Late is honest: it says that it was known on 3 February.


def at(text: str) -> datetime:
    return datetime.strptime(f"2024 {text}", "%Y %d%b%H:%M").replace(tzinfo=UTC)


def write(rails: Rails, size: str, happened: str, known: str, shop: str = "s1") -> None:
    state = {"shop_id": shop, "size": None if size == "?" else int(size), "mood": "good", "is_open": True}
    fill(rails, FEATURES, [{**state, "event_time": at(happened), "available_at": at(known)}])


def predict(rails: Rails, visits: list[dict], night: datetime = NIGHT) -> int:
    """A night's predictions, with the snapshot that they were made from."""
    snapshot = rails.lake.snapshot()
    rows = pd.DataFrame(
        {
            "request_id": visit["visit_id"], "model": "small", "role": "safe_default",
            "entity_id": visit["visit_id"], "prediction_time": visit["prediction_time"], "score": 0.5,
            "tier": "safe_default", "snapshot": snapshot, "night": night.date(), "available_at": night,
        }
        for visit in visits
    )  # fmt: skip
    rails.lake.ensure(PREDICTION)
    rails.lake.replace(PREDICTION, {"model": "small", "night": night.date()}, rows, message="shadow")
    return snapshot


def publish(rails: Rails) -> None:
    rails.ledger.record_stage("", TODAY.date(), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))


def again(rails: Rails, folder: Path, **values: object) -> replay.Replay:
    publish(rails)
    return replay.replay_nights(rails, small_spec(folder), [(NIGHT, NIGHT)], **values)


def said(result: replay.Replay) -> dict[str, str]:
    """Feature → in what way it changed, of those that did."""
    return {change.tally.feature: change.kind for change in result.changes if change.tally.changed}


@pytest.fixture
def shop(rails: Rails) -> Rails:
    for table, columns in COLUMNS.items():
        rails.lake.ensure(Table(table, columns))
    fill(rails, SPINES, [VISIT])
    return rails


def test_what_was_written_since_under_dates_of_the_past(shop: Rails, tmp_path: Path) -> None:
    then, since, expected = {}, {}, {}
    for line in SHOPS.strip().splitlines():
        name, *words = line.split()
        then[name], words = (None, words[1:]) if words[0] == "-" else (words[:3], words[3:])
        since[name], words = (None, words[1:]) if words[0] == "-" else (words[:3], words[3:])
        [expected[name]] = words
    visits = [{**VISIT, "visit_id": name, "shop_id": name} for name in expected]
    fill(shop, SPINES, visits)
    for name, row in then.items():
        if row:
            write(shop, *row, shop=name)
    predict(shop, visits)
    for name, row in since.items():
        if row:
            write(shop, *row, shop=name)
    result = again(shop, tmp_path)
    assert result.rows == result.tested == len(expected)
    found = {example.entity: example.kind for example in result.examples["size"]}
    assert {name: found.get(name, "same") for name in expected} == expected
    assert said(result) == {"size": "absent_then", "mood": "absent_then", "is_open": "absent_then"}
    [late] = {change.tally.late for change in result.changes if change.tally.view == "ftr_shop__state"}
    assert late == 1  # the shop that is called so: a join on event time alone would have taken its 12


# A row that is overwritten keeps its dates: only the lake's versions tell.


def test_a_value_overwritten_in_place(shop: Rails, tmp_path: Path) -> None:
    write(shop, "10", "31Jan10:00", "31Jan10:00")
    then = predict(shop, [VISIT])
    now = shop.lake.commit(
        lambda connection: connection.execute("update lake.features.ftr_shop__state set size = 12"),
        message="set the size right",
    )
    result = again(shop, tmp_path)
    assert said(result) == {"size": "different_then"}
    [example] = result.examples["size"]
    assert (example.then.value, example.then.snapshot) == (10, then)
    assert (example.now.value, example.now.snapshot) == (12, now.snapshot)
    assert example.then.event_time == example.now.event_time == at("31Jan10:00")
    assert example.commit is not None
    assert (example.commit.snapshot, example.commit.message) == (now.snapshot, "set the size right")


def test_a_row_that_is_taken_away(shop: Rails, tmp_path: Path) -> None:
    write(shop, "10", "31Jan10:00", "31Jan10:00")
    predict(shop, [VISIT])
    shop.lake.commit(
        lambda connection: connection.execute("delete from lake.features.ftr_shop__state"), message="tidied up"
    )
    result = again(shop, tmp_path)
    assert said(result) == {"size": "blanked_since", "mood": "blanked_since", "is_open": "blanked_since"}
    [example] = result.examples["mood"]
    assert example.now.value is None
    assert example.commit is not None
    assert example.commit.message == "tidied up"


# The rows of the spine are part of the past: who was predicted at all may not be changed either.


def test_a_prediction_whose_row_is_gone(shop: Rails, tmp_path: Path) -> None:
    predict(shop, [VISIT])
    shop.lake.commit(lambda connection: connection.execute("delete from lake.spines.spn_visit"), message="tidied up")
    assert said(again(shop, tmp_path)) == {"spn_visit": "gone_since"}


@pytest.mark.parametrize(
    ("known", "found", "late"),
    [("01Feb13:00", {"spn_visit": "absent_then"}, 0), ("03Feb09:00", {}, 1)],
    ids=["dated back", "honest late"],
)
def test_a_row_that_was_not_there(shop: Rails, tmp_path: Path, known: str, found: dict[str, str], late: int) -> None:
    predict(shop, [VISIT])
    other = {**VISIT, "visit_id": "v2", "event_time": VISIT["prediction_time"], "available_at": at(known)}
    fill(shop, SPINES, [other])
    result = again(shop, tmp_path)
    assert said(result) == found
    assert result.late_rows == late


# Rare changes are a warning, unless they follow the label.
#
# |  40 visits, 8 of them a sale; of 2 the shop's size was blanked since  |  verdict |
# |  both no sale, limit 10 %                                             |  warn    |
# |  both no sale, limit 1 %                                              |  fail    |
# |  8 of 8 sales, limit 50 %                                             |  fail    |


@pytest.mark.parametrize(
    ("blanked", "limit", "expected"),
    [((30, 31), 0.1, "warn"), ((30, 31), 0.01, "fail"), (range(8), 0.5, "fail"), ((), 0.0, "pass")],
    ids=["rare", "over the limit", "follows the label", "none"],
)
def test_when_a_change_stops_the_training(
    shop: Rails, tmp_path: Path, blanked: tuple[int, ...], limit: float, expected: str
) -> None:
    visits = [{**VISIT, "visit_id": f"x{number}", "shop_id": f"s{number}"} for number in range(40)]
    state = {"mood": "good", "is_open": True, "event_time": at("31Jan10:00")}
    fill(shop, SPINES, visits)
    fill(
        shop,
        FEATURES,
        [{**state, "shop_id": f"s{number}", "size": 10, "available_at": at("31Jan10:00")} for number in range(40)],
    )
    predict(shop, visits)
    fill(
        shop,
        LABELS,
        [
            {"visit_id": f"x{number}", "prediction_time": VISIT["prediction_time"], "label": number < 8,
             "event_time": at("03Feb12:00"), "available_at": at("03Feb12:00")}
            for number in range(40)
        ],
    )  # fmt: skip
    fill(shop, SPINES, [{**VISIT, "visit_id": "later", "prediction_time": instant("2024-02-05 12:00")}])
    fill(
        shop,
        FEATURES,
        [{**state, "shop_id": f"s{n}", "size": None, "available_at": at("31Jan10:01")} for n in blanked],
    )
    result = again(shop, tmp_path, limit=limit)
    assert result.verdict == expected, result.changes[0].reason
    assert result.matured == 40
    if blanked:
        change = result.changes[0]
        assert (change.tally.feature, change.tally.changed) == ("size", len(blanked))
        assert "tells the label" in change.reason if len(blanked) == 8 else "limit of" in change.reason
