"""The point-in-time join on one machine: ours, a one-column ASOF join (quick, and leaks), pandas merge_asof.

Run: python benchmarks/point_in_time.py [predictions in thousands] [view rows in thousands]
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import duckdb
import pandas as pd

from tiltyard import frame
from tiltyard.settings import ROOT

KEYS = 100_000
SPINE = """
    create table spine as
    select i as id, hash(i) % {keys} as entity_id,
        timestamptz '2024-01-01' + to_seconds(hash(i + 7) % 7776000) as prediction_time
    from range({rows}) as spine(i)
"""
VIEW = """
    create table view as
    select hash(i + 13) % {keys} as entity_id, event_time,
        event_time
            + to_seconds(case when hash(i + 19) % 10 < 3 then hash(i + 23) % 1209600 else 60 end) as available_at,
        (hash(i + 29) % 1000) / 1000.0 as value
    from (
        select i, timestamptz '2023-12-01' + to_seconds(hash(i + 17) % 10368000) as event_time
        from range({rows}) as history(i)
    )
"""


def main() -> None:
    predictions, history = (int(argument) * 1000 for argument in (*sys.argv[1:], "1000", "5000")[:2])
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    connection.execute(SPINE.format(keys=KEYS, rows=predictions))
    connection.execute(VIEW.format(keys=KEYS, rows=history))
    ours = frame.point_in_time_sql(
        ROOT / "dbt" / "macros" / "point_in_time.sql",
        spine="spine",
        view="view",
        key="entity_id",
        columns=["value"],
        spine_key=["id"],
        prefix="view",
    )
    naive = """
        select spine.*, view.value, view.event_time as view__event_time, view.available_at as view__available_at
        from spine asof left join view
            on spine.entity_id = view.entity_id and spine.prediction_time >= view.event_time
    """
    print(
        f"{predictions:,} predictions, {history:,} rows of history, {KEYS:,} entities; 30 % written up to 14 days late"
    )
    for name, sql in (("ours", ours), ("one-column ASOF on event_time", naive)):
        seconds = _timed(lambda sql=sql: connection.execute(f"create or replace temp table answer as {sql}"))
        row = connection.execute(
            "select count(*) filter (where view__available_at > prediction_time) / count(*) from answer"
        ).fetchone()
        assert row is not None
        print(f"{name:32} {seconds:7.2f} s   rows with a value from the future: {row[0]:.1%}")
    spine, view = connection.table("spine").df(), connection.table("view").df()
    seconds = _timed(
        lambda: pd.merge_asof(
            spine.sort_values("prediction_time"),
            view.sort_values("event_time"),
            left_on="prediction_time",
            right_on="event_time",
            by="entity_id",
        )
    )
    print(f"{'pandas merge_asof on event_time':32} {seconds:7.2f} s   (leaks alike)")


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
