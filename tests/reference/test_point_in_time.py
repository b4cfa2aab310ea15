"""The point-in-time join, fast and portable SQL, on a view and on its kept answers, against a slow and obvious one in
Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltyard.prepare import frame
from tiltyard.settings import ROOT

MACROS: Path = ROOT / "dbt" / "macros"
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
state = st.tuples(shops, st.one_of(few, st.none()), st.one_of(few, st.none()), sizes, moods)
states = st.lists(state, max_size=25)
batches = st.lists(st.lists(state, max_size=12), min_size=1, max_size=4)


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
    with drawn(visits, states) as connection:
        return answered(connection, dialect, max_age)


def answered(connection: duckdb.DuckDBPyConnection, dialect: str, max_age: int | None, **read: Any) -> list[Any]:
    """The join of visit and state, as sorted rows of plain numbers. `read`: other relations, and if they are pruned."""
    sql = frame.point_in_time_sql(
        MACROS,
        dialect,
        key="shop",
        columns=["size", "mood"],
        spine_key=["visit", "prediction_time"],
        prefix="state",
        max_age_s=max_age,
        **{"spine": "visit", "view": "state", **read},
    )
    rows = connection.execute(
        "select visit, shop, prediction_time, size, mood, state__event_time, state__available_at "
        f"from ({sql}) as answer"
    ).fetchall()
    return sorted(
        ((visit, shop, _number(time), size, mood, _number(happened), _number(known))
         for visit, shop, time, size, mood, happened, known in rows),
        key=repr,
    )  # fmt: skip


def drawn(visits: Sequence[Visit], states: Sequence[State]) -> duckdb.DuckDBPyConnection:
    """A database with the tables visit and state."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("create table visit (visit integer, shop varchar, prediction_time timestamp)")
    connection.execute(
        "create table state (shop varchar, event_time timestamp, available_at timestamp, size double, mood varchar, "
        "built_at integer)"
    )
    add(connection, "visit", visits)
    add(connection, "state", states)
    return connection


def add(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Visit] | Sequence[State]) -> None:
    at, names = {
        "visit": ((2,), "visit, shop, prediction_time"),
        "state": ((1, 2), "shop, event_time, available_at, size, mood"),
    }[table]
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        timed = [[_time(value) if i in at else value for i, value in enumerate(row)] for row in rows]
        connection.executemany(f"insert into {table} ({names}) values ({marks})", timed)


def _time(seconds: int | None) -> Any:
    return None if seconds is None else (pd.Timestamp("2024-01-01") + pd.Timedelta(seconds=seconds)).to_pydatetime()


def _number(time: Any) -> int | None:
    return None if time is None else int((pd.Timestamp(time) - pd.Timestamp("2024-01-01")).total_seconds())


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=150, derandomize=True)
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


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=40, derandomize=True)
@given(visits=visits, batches=batches, max_age=st.one_of(st.none(), st.integers(0, 3)))
def test_kept_answers_serve_every_as_of_after_every_batch(
    dialect: str, visits: list[Visit], batches: list[list[State]], max_age: int | None
) -> None:
    """Batches arrive in any order; each rebuilds the shops it names, and their kept answers with them."""
    renewed = frame.macro(MACROS, "answers_renewed", "state", "kept", "shop", ["size", "mood"], "current_build()")
    arrived: list[State] = []
    with drawn(visits, []) as connection:
        connection.execute("create table build (n integer)")
        connection.execute("create macro current_build() as (select max(n) from build)")
        connection.execute(f"create table kept as {frame.macro(MACROS, 'answers', 'state', 'shop', ['size', 'mood'])}")
        for number, batch in enumerate(batches):
            arrived += batch
            add(connection, "state", batch)
            connection.execute("insert into build values (?)", [number])
            connection.execute(
                "update state set built_at = current_build() "
                "where shop in (select shop from state where built_at is null)"
            )
            connection.execute("update state set built_at = current_build() where built_at is null")
            connection.execute(renewed)
            for as_of in range(6):
                known = [state for state in arrived if state[2] is not None and state[2] <= as_of]
                asked = [visit for visit in visits if visit[2] <= as_of]
                read = {
                    "spine": f"(select * from visit where prediction_time <= '{_time(as_of)}')",
                    "view": f"(select * from kept where available_at <= '{_time(as_of)}')",
                    "pruned": True,
                }
                assert answered(connection, dialect, max_age, **read) == obvious(asked, known, max_age)


def test_a_row_known_before_it_happens_is_an_answer_when_it_has_happened() -> None:
    """Announced at 1 for 3, and at 2 for 4: at 3 the first has happened, at 4 the second, whatever is known."""
    states: list[State] = [("a", 3, 1, 1.0, None), ("a", 4, 2, 2.0, None)]
    with drawn([(1, "a", 2), (2, "a", 3), (3, "a", 4)], states) as connection:
        connection.execute(f"create table kept as {frame.macro(MACROS, 'answers', 'state', 'shop', ['size', 'mood'])}")
        found = answered(connection, "duckdb", None, view="kept", pruned=True)

    assert [(visit, size) for visit, _, _, size, *_ in found] == [(1, None), (2, 1.0), (3, 2.0)]
