"""Checks: eight expectations on 1,000,000 rows of the lake, and what pushing them down as SQL is worth.

Prints seconds for our path (GX through duckdb-engine, the lake read once), for one SQL statement that answers the
same questions, and for GX on a pandas data frame with and without loading it. GX's import is left out.
"""

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tiltyard import postgres, rails, suites
from tiltyard.settings import Settings
from tiltyard.tables import Table

ROWS = 1_000_000
AS_OF = datetime(2016, 6, 1, tzinfo=UTC)
EXPECTATIONS = [
    ("expect_table_row_count_to_be_between", {"min_value": 1}),
    ("expect_column_values_to_not_be_null", {"column": "ticket_id"}),
    ("expect_column_values_to_be_between", {"column": "rate", "min_value": 0, "max_value": 1}),
    ("expect_column_values_to_be_in_set", {"column": "priority", "value_set": ["1", "2", "3", "4"]}),
    ("expect_column_mean_to_be_between", {"column": "backlog", "min_value": 0, "max_value": 100}),
    ("expect_column_max_to_be_between", {"column": "backlog", "max_value": 100}),
    ("expect_column_min_to_be_between", {"column": "backlog", "min_value": 0}),
    ("expect_column_values_to_not_be_null", {"column": "priority", "mostly": 0.9}),
]


def timed(work: Callable[[], Any], repeat: int = 3) -> float:
    """Seconds of the quickest of `repeat` runs."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        settings = Settings(home=Path(folder))
        try:
            measure(settings)
        finally:
            postgres.stop(settings)


def measure(settings: Settings) -> None:
    gx = suites.load_gx()
    path = settings.home / "suite.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [
        {"type": kind, "kwargs": kwargs, "severity": "critical", "meta": {"why": "Benchmark."}}
        for kind, kwargs in EXPECTATIONS
    ]
    path.write_text(yaml.safe_dump({"expectations": listed}))
    suite = suites.load(path)
    with rails.opened(settings) as opened:
        lake = opened.lake
        lake.ensure(Table(
            "features.ftr_bench__x",
            {"ticket_id": "varchar", "rate": "double", "priority": "varchar", "backlog": "bigint",
             "available_at": "timestamptz"},
        ))  # fmt: skip
        lake.connection.execute(
            f"insert into lake.features.ftr_bench__x select 'T' || i, random(), 1 + i % 4, i % 100, "
            f"timestamptz '2016-01-01' + interval (i % 100) day from range({ROWS}) r(i)"
        )
        relation = lake.relation("ftr_bench__x", AS_OF)
        batch = suites.Batch("ftr_bench__x", f"select * from {relation}", tuple(lake.columns("ftr_bench__x")))
        sql = f"""select count(*), count(*) filter (ticket_id is null), count(*) filter (rate not between 0 and 1),
            count(*) filter (priority not in ('1', '2', '3', '4')), avg(backlog), max(backlog), min(backlog),
            count(*) filter (priority is null) from {relation}"""
        assert all(result.success for result in suites.run_suite(opened, suite, batch).results)
        ours = timed(lambda: suites.run_suite(opened, suite, batch))
        raw = timed(lambda: lake.connection.execute(sql).fetchall())
        load = timed(lambda: lake.connection.execute(batch.sql).df())
        frame = lake.connection.execute(batch.sql).df()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    whole = context.data_sources.add_pandas("pandas").add_dataframe_asset("x").add_batch_definition_whole_dataframe("x")
    expectations = gx.ExpectationSuite(name="pandas", expectations=listed)
    pandas = timed(lambda: whole.get_batch({"dataframe": frame}).validate(expectations))
    print(f"8 expectations on {ROWS:,} rows")
    print(f"  GX pushed down to the lake  {ours:6.2f} s")
    print(f"  one SQL statement           {raw:6.2f} s")
    print(f"  GX on pandas                {pandas:6.2f} s, and {load:.2f} s to load the frame")


if __name__ == "__main__":
    main()
