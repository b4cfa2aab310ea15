"""The point-in-time join, fast and portable SQL, against a slow and obvious one in Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltyard import frame
from tiltyard.settings import ROOT

MACROS: Path = ROOT / "dbt" / "macros" / "point_in_time.sql"
DIALECTS = ("duckdb", "default")

Visit = tuple[int, str | None, int]
"""id, shop, prediction time"""
State = tuple[str | None, int | None, int | None, float | None, str | None]
"""shop, event time, available at, size, mood"""

few = st.integers(min_value=0, max_value=5)  # few instants and values: nearly every row ties with another
shops = st.one_of(st.sampled_from(["a", "b"]), st.none())
visits = st.lists(st.tuples(st.integers(0, 9), shops, few), max_size=8, unique_by=lambda visit: (visit[0], visit[2]))
sizes = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 1.0]))
moods = st.one_of(st.none(), st.sampled_from(["", "calm"]))
states = st.lists(st.tuples(shops, st.one_of(few, st.none()), st.one_of(few, st.none()), sizes, moods), max_size=25)


def obvious(visits: Sequence[Visit], states: Sequence[State], max_age: int | None) -> list[tuple[Any, ...]]:
    """Look at every state for every visit, and keep the best of those that may be used."""
    found = []
    for visit, shop, time in visits:
        best: State | None = None
        for state in states:
            name, happened, known, size, mood = state
            if shop is None or name != shop or happened is None or known is None:
                continue
            if happened > time or known > time:
                continue
            rank = (happened, known, size is not None, size or 0.0, mood is not None, mood or "")
            if best is None or rank > (best[1], best[2], best[3] is not None, best[3] or 0.0, best[4] is not None,
                                       best[4] or ""):  # fmt: skip
                best = state
        if best is not None and max_age is not None and best[1] is not None and best[1] < time - max_age:
            best = None
        found.append((visit, shop, time, *((best[3], best[4], best[1], best[2]) if best else (None,) * 4)))
    return sorted(found, key=repr)


def joined(
    dialect: str, visits: Sequence[Visit], states: Sequence[State], max_age: int | None
) -> list[tuple[Any, ...]]:
    sql = frame.point_in_time_sql(
        MACROS,
        dialect,
        spine="visit",
        view="state",
        key="shop",
        columns=["size", "mood"],
        spine_key=["visit", "prediction_time"],
        prefix="state",
        max_age_s=max_age,
    )
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("create table visit (visit integer, shop varchar, prediction_time timestamp)")
        connection.execute(
            "create table state (shop varchar, event_time timestamp, available_at timestamp, size double, mood varchar)"
        )
        for table, rows in (("visit", visits), ("state", states)):
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                at = {"visit": (2,), "state": (1, 2)}[table]
                timed = [[_time(value) if i in at else value for i, value in enumerate(row)] for row in rows]
                connection.executemany(f"insert into {table} values ({marks})", timed)
        rows = connection.execute(
            "select visit, shop, prediction_time, size, mood, state__event_time, state__available_at "
            f"from ({sql}) as answer"
        ).fetchall()
    return sorted(
        ((visit, shop, _number(time), size, mood, _number(happened), _number(known))
         for visit, shop, time, size, mood, happened, known in rows),
        key=repr,
    )  # fmt: skip


def _time(seconds: int | None) -> Any:
    return None if seconds is None else (pd.Timestamp("2024-01-01") + pd.Timedelta(seconds=seconds)).to_pydatetime()


def _number(time: Any) -> int | None:
    return None if time is None else int((pd.Timestamp(time) - pd.Timestamp("2024-01-01")).total_seconds())


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(visits=visits, states=states, max_age=st.one_of(st.none(), st.integers(0, 3)))
def test_sql_agrees_with_the_obvious_join(
    dialect: str, visits: list[Visit], states: list[State], max_age: int | None
) -> None:
    assert joined(dialect, visits, states, max_age) == obvious(visits, states, max_age)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_correction_that_becomes_known_with_the_next_event_does_not_hide_it(dialect: str) -> None:
    """Both are known at 4: the later event wins, although the correction was written no earlier."""
    states: list[State] = [("a", 1, 4, 1.0, None), ("a", 3, 4, 2.0, None), ("a", 3, 2, 3.0, None)]

    assert joined(dialect, [(1, "a", 5)], states, None) == [(1, "a", 5, 2.0, None, 3, 4)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_late_correction_of_an_old_event_never_wins_over_a_newer_event(dialect: str) -> None:
    states: list[State] = [("a", 3, 3, 1.0, None), ("a", 2, 5, 9.0, None)]

    assert joined(dialect, [(1, "a", 5)], states, None) == [(1, "a", 5, 1.0, None, 3, 3)]
