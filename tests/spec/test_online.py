"""What a request gets from the online store is what the lake's join gives for the same key and instant.

Times are days of February 2024. A request asks at `at`; `size` is what it is told, `-` nothing. Each table is put
into the store as the features stage does it, and as a stream may do it: one row at a time, in any order, twice.
"""

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import make_settings
from tests.lakes import FEATURES, SPINES, fill, instant, small_spec
from tiltyard import rails as rails_module
from tiltyard.online import fill as filling
from tiltyard.online import lookup
from tiltyard.online.lmdb_store import LmdbStore
from tiltyard.online.store import FeatureRow, Store
from tiltyard.prepare import frame
from tiltyard.rails import Rails
from tiltyard.records import Publication
from tiltyard.spec import Spec

SPINE = "spn_visit"
VIEW = "ftr_shop__state"


def day(number: float) -> datetime:
    return instant("2024-02-01") + timedelta(days=number - 1)


def table(text: str) -> list[list[float | None]]:
    _, *rows = [line.split() for line in text.strip().splitlines()]
    return [[None if cell == "-" else float(cell) for cell in row] for row in rows]


@pytest.fixture(scope="module")
def rails(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Rails]:
    with rails_module.opened(make_settings(tmp_path_factory.mktemp("online"), postgres_url)) as opened:
        yield opened


@pytest.fixture
def told(rails: Rails, tmp_path: Path):
    """What the request of visit v at `at` is told, however the rows came; checked against the lake's own answer."""

    def read(drawn: str, *, at: float, max_age: str = "null") -> float | None:
        spec = small_spec(tmp_path, max_feature_age=max_age)
        rows = table(drawn)
        for name in (FEATURES, SPINES):
            fill(rails, name, [])
            rails.lake.connection.execute(f"delete from lake.{name}")
        fill(rails, SPINES, [{"visit_id": "v", "shop_id": "s", "prediction_time": day(at)}])
        states = [
            {"shop_id": "s", "event_time": day(event), "available_at": day(available), "size": size, "is_open": True}
            for event, available, size in rows
            if event is not None and available is not None
        ]
        fill(rails, FEATURES, states)
        offline = frame.build(rails, spec, day(at), day(at) + timedelta(seconds=1), day(29))["size"].iloc[0]
        expected = None if pd.isna(offline) else float(offline)
        online = materialised(rails, tmp_path, spec, at)
        assert online == expected, "brought in by the features stage"
        for number, order in enumerate(itertools.islice(itertools.permutations(states), 6)):
            store = LmdbStore(tmp_path / f"stream{at}{max_age}{len(rows)}{number}")
            for state in (*order, *order):
                if state["available_at"] <= day(at):  # the consumer has not seen the others yet
                    store.put(VIEW, [("s", as_row(state))])
            assert size(store, spec, at, {"shop_id": "s"}) == expected, "told by a stream"
        return expected

    return read


def as_row(state: dict) -> FeatureRow:
    values = {"size": state["size"], "mood": None, "is_open": state["is_open"]}
    return FeatureRow(values, state["event_time"].timestamp(), state["available_at"].timestamp())


def materialised(rails: Rails, folder: Path, spec: Spec, at: float) -> float | None:
    store = LmdbStore(folder / f"store{rails.lake.snapshot()}")
    parts, waiting = filling.tables(rails, [spec], Publication(snapshot=rails.lake.snapshot()))
    assert [part.name for part in parts] == [VIEW, SPINE]
    assert not waiting
    for part in parts:
        filling.fill(rails, store, part, day(at), rails.lake.snapshot())
    return size(store, spec, at, {"visit_id": "v"})  # the shop is known by the spine


def size(store: Store, spec: Spec, at: float, keys: dict[str, str]) -> float | None:
    result = lookup.find(store, lookup.plan(spec), keys, day(at).timestamp())
    return result.values.get("size")  # type: ignore[return-value]


def test_the_newest_event_that_was_known(told) -> None:
    drawn = """
        event known size
        7     7     70
        8     8     80
        9     12    90
    """
    assert told(drawn, at=8.5) == 80
    assert told(drawn, at=8) == 80  # known at the instant is known
    assert told(drawn, at=7.9) == 70
    assert told(drawn, at=12) == 90
    assert told(drawn, at=6) is None


def test_a_correction_wins_and_a_late_row_of_an_earlier_event_does_not(told) -> None:
    drawn = """
        event known size
        8     8     80
        8     9     81
        7     10    70
    """
    assert told(drawn, at=8.5) == 80
    assert told(drawn, at=11) == 81


def test_of_a_full_tie_the_greatest_value_counts_and_null_is_the_least(told) -> None:
    drawn = """
        event known size
        8     8     -
        8     8     80
        8     8     79
    """
    assert told(drawn, at=9) == 80


def test_a_null_that_is_newer_hides_a_value(told) -> None:
    drawn = """
        event known size
        7     7     70
        8     8     -
    """
    assert told(drawn, at=9) is None


def test_over_max_feature_age_a_value_is_refused(told) -> None:
    drawn = """
        event known size
        7     7     70
    """
    assert told(drawn, at=9, max_age="2d") == 70  # as old as it may be
    assert told(drawn, at=9.01, max_age="2d") is None


def test_what_was_refused_and_what_was_not_there_are_told_apart(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path, max_feature_age="2d")
    store = LmdbStore(tmp_path / "store")
    store.put(VIEW, [("old", FeatureRow({"size": 1.0}, day(1).timestamp(), day(1).timestamp()))])
    plan = lookup.plan(spec)
    old = lookup.find(store, plan, {"shop_id": "old"}, day(9).timestamp())
    none = lookup.find(store, plan, {"shop_id": "none"}, day(9).timestamp())
    early = lookup.find(store, plan, {"shop_id": "old"}, day(0.5).timestamp())
    assert (old.stale, old.missing, old.values, old.views) == ((VIEW,), (), {}, {VIEW: None})
    assert (none.stale, none.missing) == ((), (VIEW,))
    assert (early.stale, early.missing) == ((), (VIEW,))  # not known yet
