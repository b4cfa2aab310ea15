"""What a lookup costs: a model's features by keys, from the embedded store, from Redis on this machine, and by asking
DuckDB for the newest row known (what the lake would do, without its network).

Four views of seven columns, 5,000 keys each, every row with times of its own; the same keys, and the same answers, for
all. Best of several rounds, in process. Then how fast rows come in: a night's materialisation into both stores, and
events of a stream (parsed, checked, written durably).
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd

from tiltyard.online import lookup, redis_store, streams
from tiltyard.online.lmdb_store import LmdbStore
from tiltyard.online.store import FeatureRow, Store, TableNote, Value, table_note

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.servers import RedisServer

KEYS = 5_000
AT = 1.46e9
VIEWS = ("ftr_ticket__intake", "ftr_caller__history", "ftr_group__history", "ftr_group__load")
BUDGET_US = 60.0


def rows(view: str) -> list[tuple[str, FeatureRow]]:
    def values(number: int) -> dict[str, Value]:
        return {f"{view[4:]}_{place}": number * 0.37 + place if place < 5 else f"kind {place}" for place in range(7)}

    return [
        (f"k{number}", FeatureRow(values(number), AT - KEYS + number, AT - KEYS + number)) for number in range(KEYS)
    ]


def plan(views: int) -> lookup.LookupPlan:
    views_and_keys = tuple((view, f"{view[4:].split('__')[0]}_id") for view in VIEWS[:views])
    return lookup.LookupPlan("ticket_id", "spn_ticket", ("caller_id", "group_id"), views_and_keys, 10**6)


def best(work: Callable[[], object], count: int, rounds: int) -> float:
    """Microseconds per call."""
    return min(timeit.repeat(work, number=count, repeat=rounds)) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    rows_of = {view: rows(view) for view in VIEWS}
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            redis_store.READ_S = 5.0  # a busy machine is no Redis that is away
            stores: dict[str, Store] = {
                "embedded": LmdbStore(Path(folder) / "online"),
                "redis": redis_store.RedisStore(server.url),
            }
            paces = {}
            for name, store in stores.items():
                began = timeit.default_timer()
                for view in VIEWS:
                    store.put(view, rows_of[view], settled=True)
                paces[name] = len(VIEWS) * KEYS / (timeit.default_timer() - began)
            report(stores, rows_of, rounds)
            for name, pace in paces.items():
                print(f"rows brought in, {name:<33} {pace:12,.0f} a second")
            for name, store in stores.items():
                print(f"events of a stream, {name:<30} {consumed(store, Path(folder)):12,.0f} a second")
        finally:
            server.kill()


def report(stores: dict[str, Store], rows_of: dict[str, list[tuple[str, FeatureRow]]], rounds: int) -> None:
    place = itertools.count()

    def keys() -> dict[str, str]:
        number = next(place)
        return {"ticket_id": f"k{number % KEYS}", "caller_id": f"k{number % 4_999}", "group_id": f"k{number % 4_001}"}

    slowest = 0.0
    for views in (2, 4):
        lookup_plan = plan(views)
        for name, store in stores.items():
            count = 2_000 if store.is_local else 200
            took_us = best(
                lambda store=store, lookup_plan=lookup_plan: lookup.find(store, lookup_plan, keys(), AT), count, rounds
            )
            slowest = max(slowest, took_us) if store.is_local else slowest
            print(f"lookup of {views} views, {name:<30} {took_us:12,.1f} µs")
        lake = newest(rows_of, lookup_plan)
        same = [keys() for _ in range(50)]
        for ids in same:
            assert all(lookup.find(store, lookup_plan, ids, AT).values == lake(ids) for store in stores.values()), ids
        print(
            f"lookup of {views} views, {'DuckDB in memory':<30} {best(lambda lake=lake: lake(keys()), 20, 3):12,.1f} µs"
        )
    many = [(keys(), AT) for _ in range(100)]
    for name, store in stores.items():
        took_us = best(lambda store=store: asyncio.run(lookup.afind_many(store, plan(4), many)), 3, rounds) / len(many)
        print(f"a row of 100 looked up at once, {name:<18} {took_us:12,.1f} µs")
    if slowest > BUDGET_US:
        sys.exit(f"A local lookup takes {slowest:.0f} µs, over its {BUDGET_US:.0f}.")


def newest(
    rows_of: dict[str, list[tuple[str, FeatureRow]]], lookup_plan: lookup.LookupPlan
) -> Callable[[dict[str, str]], dict]:
    """The newest row known, by SQL over a table per view."""
    database = duckdb.connect(config={"threads": 1})
    for view, _ in lookup_plan.views:
        names = list(rows_of[view][0][1].values)
        columns = ", ".join(f'"{name}" {"double" if place < 5 else "varchar"}' for place, name in enumerate(names))
        database.execute(f'create table "{view}" (key varchar, {columns}, event_time double, available_at double)')
        content = [[key, *row.values.values(), row.event_time, row.available_at] for key, row in rows_of[view]]
        database.register("content", pd.DataFrame(content))
        database.execute(f'insert into "{view}" from content')
        database.unregister("content")

    def answer(keys: dict[str, str]) -> dict:
        values: dict = {}
        for view, key in lookup_plan.views:
            row = database.execute(
                f'select * exclude (key, event_time, available_at) from "{view}" where key = $key '
                "and event_time <= $at and available_at <= $at order by event_time desc, available_at desc limit 1",
                {"key": keys[key], "at": AT},
            ).fetchone()
            values |= dict(zip(rows_of[view][0][1].values, row or (), strict=False))
        return values

    return answer


def consumed(store: Store, folder: Path, events: int = 20_000) -> float:
    """Events a second through a consumer's sink, 1,000 a batch, as a consumer reads them."""
    view = VIEWS[0]
    columns = {f"{view[4:]}_{place}": "numeric" if place < 5 else "categorical" for place in range(7)}
    store.write_note(table_note(view), TableNote(as_of=AT, columns=columns))
    sink = streams.Sink(store, "bench", folder)
    values = {name: 1.5 if kind == "numeric" else "kind" for name, kind in columns.items()}
    records = [
        json.dumps(
            {
                "view": view,
                "key": f"k{number % KEYS}",
                "values": values,
                "event_time": (when := datetime.fromtimestamp(AT + number, UTC).isoformat()),
                "available_at": when,
            }
        ).encode()
        for number in range(events)
    ]
    began = timeit.default_timer()
    for first in range(0, events, streams.AT_ONCE):
        sink.take([(str(first), record) for record in records[first : first + streams.AT_ONCE]])
    assert sink.counts["written"] == events, sink.counts
    return events / (timeit.default_timer() - began)


if __name__ == "__main__":
    main()
