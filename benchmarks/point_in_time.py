"""The point-in-time join on one machine, beside what else is used for it, on the same Parquet files.

Run: python benchmarks/point_in_time.py [--predictions 1000] [--history 5000] (thousands of rows) [--rounds 3]
     python benchmarks/point_in_time.py --linear 1 3 10   millions of predictions, each over as many rows
     python benchmarks/point_in_time.py --peers PYTHON    beside Feast, run by that interpreter (make bench-peers)

Every way runs in a process of its own, all of them once per round, one after the other; it reads Parquet (or the lake)
and ends with the frame in memory. Shown are medians over the rounds: seconds of the join, those seconds over the
one-column ASOF join's of the same round, the most memory the process ever held. `wrong` is the share of predictions
that got another row than the rule gives (the portable SQL join, on a sample); `from the future` the share that got a
row which was not written yet.

The history is what a business writes: 30 % of the rows come up to 14 days late, every tenth is a correction of another
row, and all times lie on whole hours, so that many are equal.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from tiltyard.prepare import frame
from tiltyard.settings import ROOT, Settings

MACROS = ROOT / "dbt" / "macros"
FEAST = ROOT / "benchmarks" / "peers" / "feast_join.py"
START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC)
SAMPLE = 20_000
SPINE = """
    select i as order_id, hash(i) % {entities} as entity_id,
        timestamptz '2024-01-01' + to_hours((hash(i + 7) % 2160)::bigint) as prediction_time
    from range({rows}) as spine(i)
"""
VIEW = """
    select hash(first + 13) % {entities} as entity_id, event_time,
        event_time
            + to_hours((case when hash(i + 19) % 10 < 3 then hash(i + 23) % 336 else 1 end)::bigint) as available_at,
        i::double as value
    from (
        select i, first, timestamptz '2023-12-01' + to_hours((hash(first + 17) % 2880)::bigint) as event_time
        from (select i, i - (i % 10 = 9)::bigint as first from range({rows}) as history(i))
    )
"""
SPEC = """
entity: order
owner: nobody
tier: 3
source: orders
prediction: {spine: spn_order, features: [ftr_entity__state]}
label: {table: lbl_order, horizon: 1d, delay: 0d}
estimator: {class: xgboost.XGBClassifier}
light: {class: sklearn.linear_model.LogisticRegression}
fallback: {safe_default: 0.5}
"""
Answers = tuple[float, Any]
"""Seconds of a join, and something that DuckDB can read with columns order_id and value."""


def main() -> None:
    asked = arguments()
    if asked.way:
        run(asked.way, asked.folder)
        return
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        if asked.linear:
            linear(Path(folder), asked.linear, asked.rounds)
        else:
            compare(Path(folder), asked)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=1_000, help="thousands")
    parser.add_argument("--history", type=int, default=5_000, help="thousands of rows of the view")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--linear", type=float, nargs="+", metavar="MILLIONS", help="how the time grows")
    parser.add_argument("--peers", type=Path, help="a Python that has Feast")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# -- the ways, each in a process of its own -------------------------------------------------------


def pruning(folder: Path) -> Answers:
    return _joined(folder, _ours(f"read_parquet('{folder}/view.parquet')", pruned=False))


def kept(folder: Path) -> Answers:
    return _joined(folder, _ours(f"read_parquet('{folder}/answers.parquet')", pruned=True))


def one_column(folder: Path) -> Answers:
    view = f"read_parquet('{folder}/view.parquet')"
    return _joined(
        folder,
        f"""select spine.*, view.value, view.event_time, view.available_at
        from spine asof left join {view} as view
            on spine.entity_id = view.entity_id and spine.prediction_time >= view.event_time""",
    )


def lake_pruning(folder: Path) -> Answers:
    return _built(folder, "ftr_entity__plain")


def lake_kept(folder: Path) -> Answers:
    return _built(folder, "ftr_entity__state")


def pandas_asof(folder: Path) -> Answers:
    import pandas as pd

    began = time.perf_counter()
    spine, view = pd.read_parquet(folder / "spine.parquet"), pd.read_parquet(folder / "view.parquet")
    answer = pd.merge_asof(
        spine.sort_values("prediction_time"),
        view.sort_values("event_time"),
        left_on="prediction_time",
        right_on="event_time",
        by="entity_id",
    )
    return time.perf_counter() - began, answer[["order_id", "value"]]


WAYS: dict[str, Callable[[Path], Answers]] = {
    "one-column ASOF on event_time": one_column,
    "ours, pruning at the join": pruning,
    "ours, answers kept": kept,
    "ours, frame of the lake, pruning": lake_pruning,
    "ours, frame of the lake, kept": lake_kept,
    "pandas.merge_asof on event_time": pandas_asof,
}
BASE, OURS = "one-column ASOF on event_time", "ours, answers kept"
PATIENCE_S = 60
"""A way that took longer in the first round is not asked again."""
PEERS = {"Feast, DuckDB store": "duckdb", "Feast, Dask store": "dask"}


def run(way: str, folder: Path) -> None:
    """Do it once; say how long it took and what it held, and leave the sample's answers behind."""
    seconds, answer = WAYS[way](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    keep_sample(answer, folder)
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024}))


def keep_sample(answer: Any, folder: Path) -> None:
    rows = answer  # DuckDB finds it by this name
    duckdb.sql(
        f"copy (select order_id, value from rows where order_id in (from read_parquet('{folder}/sample.parquet'))) "
        f"to '{folder}/answered.parquet'"
    )
    del rows


def _joined(folder: Path, sql: str) -> Answers:
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    connection.execute(f"create view spine as from read_parquet('{folder}/spine.parquet')")
    began = time.perf_counter()
    table = connection.execute(sql).to_arrow_table()
    return time.perf_counter() - began, table


def _ours(view: str, *, pruned: bool) -> str:
    return frame.point_in_time_sql(
        MACROS,
        spine="spine",
        view=view,
        key="entity_id",
        columns=["value"],
        spine_key=["order_id"],
        prefix="view",
        pruned=pruned,
    )


def _built(folder: Path, view: str) -> Answers:
    from tiltyard import rails as rails_module
    from tiltyard import spec as specs

    spec = specs.load(folder / "models" / "order")
    spec = spec.model_copy(update={"prediction": spec.prediction.model_copy(update={"features": (view,)})})
    with rails_module.opened(_settings(folder)) as rails:
        snapshot = rails.lake.snapshot()
        began = time.perf_counter()
        built = frame.build(rails, spec, START, END, END, snapshot)
        return time.perf_counter() - began, built


def _settings(folder: Path) -> Settings:
    return Settings(home=folder / "home", database_url=None)


# -- the data ------------------------------------------------------------------------------------------


def write(folder: Path, predictions: int, history: int, entities: int) -> float:
    """spine, view, the view's answers, and a sample of predictions with their right answers. Returns the seconds
    that the answers took."""
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")

    def copy(sql: str, name: str) -> float:
        began = time.perf_counter()
        connection.execute(f"copy ({sql}) to '{folder}/{name}.parquet' (format parquet, row_group_size 122880)")
        return time.perf_counter() - began

    copy(SPINE.format(rows=predictions, entities=entities), "spine")
    copy(VIEW.format(rows=history, entities=entities), "view")
    view = f"read_parquet('{folder}/view.parquet')"
    seconds = copy(frame.macro(MACROS, "answers", view, "entity_id", ["value"]), "answers")
    connection.execute(
        f"create table sample as from read_parquet('{folder}/spine.parquet') order by hash(order_id) limit {SAMPLE}"
    )
    copy("select order_id from sample", "sample")
    connection.execute(
        f"create view near as from {view} where entity_id in (select sample.entity_id from sample)"
    )  # the portable join looks at every pair
    right = frame.point_in_time_sql(
        MACROS,
        "default",
        spine="sample",
        view="near",
        key="entity_id",
        columns=["value"],
        spine_key=["order_id"],
        prefix="view",
    )
    copy(right, "right")
    return seconds


def fill_lake(folder: Path) -> None:
    """The same rows in a lake: one view with its answers kept, one without."""
    from tiltyard import rails as rails_module

    model = folder / "models" / "order"
    model.mkdir(parents=True)
    (model / "spec.yaml").write_text(SPEC, encoding="utf-8")
    with rails_module.opened(_settings(folder)) as rails:
        connection = rails.lake.connection
        connection.execute("create schema lake.spines; create schema lake.features")
        connection.execute(
            "create table lake.spines.spn_order as select *, prediction_time as available_at "
            f"from read_parquet('{folder}/spine.parquet')"
        )
        for view in ("plain", "state"):
            connection.execute(
                f"create table lake.features.ftr_entity__{view} as from read_parquet('{folder}/view.parquet')"
            )
        answers = frame.macro(MACROS, "answers", "lake.features.ftr_entity__state", "entity_id", ["value"])
        connection.execute(f"create table lake.features.ftr_entity__state__answers as {answers}")
        if frame.answers_kept(rails, rails.lake.snapshot()) != {"ftr_entity__state"}:
            raise SystemExit(
                "The lake does not hold the answers as kept: what is measured here would be something else."
            )


# -- the comparison -------------------------------------------------------------------------------


def compare(folder: Path, asked: argparse.Namespace) -> None:
    from tiltyard import postgres

    predictions, history = asked.predictions * 1000, asked.history * 1000
    entities = max(1, history // 50)
    print(f"{predictions:,} predictions, {history:,} rows of history, {entities:,} entities; {machine()}")
    keeping = write(folder, predictions, history, entities)
    print(
        f"keeping the answers of the whole history took {keeping:.1f} s, once; a build renews the entities it touches"
    )
    measured: dict[str, list[dict[str, float]]] = {}
    commands = {way: [sys.executable, __file__, "--way", way] for way in WAYS}
    if asked.peers:
        commands |= {way: [str(asked.peers), str(FEAST), "--store", store] for way, store in PEERS.items()}
    try:
        fill_lake(folder)
        for number in range(asked.rounds):
            for way, command in commands.items():
                if number and measured[way][0]["seconds"] > PATIENCE_S:
                    continue
                found = once(way, [*command, "--folder", str(folder)], folder)
                measured.setdefault(way, []).append(found)
                print(f"round {number + 1}: {way}: {found['seconds']:.2f} s ({machine()})", flush=True)
    finally:
        postgres.stop(_settings(folder))
    table(measured, peers=bool(asked.peers))


def once(way: str, command: list[str], folder: Path) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    row = duckdb.sql(
        f"""
        select
            avg((row(used.event_time, used.available_at)
                is distinct from row(expected.view__event_time, expected.view__available_at))::int),
            avg(coalesce(used.available_at > expected.prediction_time, false)::int)
        from '{folder}/right.parquet' as expected
        left join '{folder}/answered.parquet' as answered using (order_id)
        left join '{folder}/view.parquet' as used on answered.value = used.value
        """
    ).fetchone()
    assert row is not None
    return found | {"wrong": row[0], "future": row[1]}


def table(measured: dict[str, list[dict[str, float]]], *, peers: bool) -> None:
    def median(values: list[float]) -> float:
        return statistics.median(values)

    head = f"{'':34}{'seconds':>9}{'x ASOF':>9}{'peak MB':>9}{'wrong':>9}{'from the future':>17}"
    print(head + (f"{'x kept':>9}{'x its MB':>10}" if peers else ""))
    for way, runs in measured.items():
        line = f"{way:34}{median([run['seconds'] for run in runs]):>9.2f}"
        pairs = zip(runs, measured[BASE], strict=False)  # of the same round, as far as it took part
        line += f"{median([run['seconds'] / base['seconds'] for run, base in pairs]):>9.2f}"
        line += f"{median([run['peak_mb'] for run in runs]):>9,.0f}"
        line += f"{max(run['wrong'] for run in runs):>9.2%}{max(run['future'] for run in runs):>17.2%}"
        if peers:
            against = list(zip(runs, measured[OURS], strict=False))
            line += f"{median([run['seconds'] / other['seconds'] for run, other in against]):>9.1f}"
            line += f"{median([run['peak_mb'] / other['peak_mb'] for run, other in against]):>10.1f}"
        print(line)


def linear(folder: Path, sizes: list[float], rounds: int) -> None:
    print(f"as many predictions as rows of history, ten per entity; {machine()}")
    print(f"{'millions':>8}  {'':34}{'seconds':>9}{'per million':>13}{'peak MB':>9}{'wrong':>9}")
    for millions in sizes:
        rows = int(millions * 1_000_000)
        write(folder, rows, rows, rows // 10)
        for way in (BASE, "ours, pruning at the join", OURS):
            command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
            runs = [once(way, command, folder) for _ in range(rounds)]
            seconds, peak = (statistics.median(run[part] for run in runs) for part in ("seconds", "peak_mb"))
            wrong = max(run["wrong"] for run in runs)
            print(
                f"{millions:>8g}  {way:34}{seconds:>9.2f}{seconds / millions:>13.2f}{peak:>9,.0f}{wrong:>9.2%}",
                flush=True,
            )


def machine() -> str:
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
