"""Rows per second from landing files to a committed lake table, beside DuckDB reading the same files and no more.

    python benchmarks/ingest.py [incident|simulated]
    python benchmarks/ingest.py rows [10000000] [Europe/Vienna]
    python benchmarks/ingest.py keys [60] [20000]

incident needs TILTYARD_DATA_MIRROR or the internet. `rows` writes so many rows of CSV, of every type that a contract
knows, in files of a million, and lands them in one night. `keys` lands so many nights of so many rows, beside a tenth
that came the night before: without a key in the contract, by a key that grows, and by one that is drawn. Everything
happens in a folder that is removed at the end.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import duckdb

from tiltyard import clock, postgres
from tiltyard.prepare import datasets, ingest
from tiltyard.rails import opened
from tiltyard.settings import Settings


def main(name: str) -> None:
    source = {"incident": "incident", "simulated": "subscription"}[name]
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        Path(folder).chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
        settings = Settings(home=Path(folder), database_url=None)
        began = time.perf_counter()
        fetched = datasets.fetch(settings, name)
        report("fetch and cut into days", fetched.rows, time.perf_counter() - began)

        paths = sorted((settings.landing / source).glob("*/*.*"))
        began = time.perf_counter()
        raw = sum(read(settings, files) for files in by_table(paths).values())
        floor = time.perf_counter() - began
        report(f"DuckDB reads {len(paths)} files, as text", raw, floor)

        days = sorted({path.name[:10] for path in paths})
        last = clock.parse_as_of(days[-1]) + timedelta(days=1)
        try:
            with opened(settings) as rails:
                began = time.perf_counter()
                night = ingest.land_night(rails, source, clock.parse_as_of(days[0]) + timedelta(days=1))
                report("ingest: the first night", night.rows, time.perf_counter() - began)
                began = time.perf_counter()
                rest = ingest.land_night(rails, source, last)
                taken = time.perf_counter() - began
                report(f"ingest: the other {rest.files} files at once", rest.rows, taken, floor)
                began = time.perf_counter()
                ingest.land_night(rails, source, last)
                report("ingest: again, nothing to do", 0, time.perf_counter() - began)
        finally:
            postgres.stop(settings)


CONTRACT = """
sources:
  - name: shop
    tables:
      - name: sale
        config: {meta: {tiltyard: {event_time: {column: sold_at, zone: ZONE}, available_at: {column: known_at}}}}
        columns:
          - {name: item, data_type: varchar}
          - {name: pieces, data_type: bigint}
          - {name: price, data_type: double}
          - {name: is_new, data_type: boolean}
          - {name: day, data_type: date}
          - {name: sold_at, data_type: timestamp}
          - {name: known_at, data_type: timestamptz}
"""


@contextmanager
def shop(contract: str) -> Iterator[tuple[Settings, Path]]:
    """A home of its own with one source, and the folder that its deliveries lie in."""
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
        settings = Settings(home=folder, dbt=folder / "dbt", database_url=None)
        staging = folder / "dbt" / "models" / "staging" / "shop"
        staging.mkdir(parents=True)
        (staging / "_shop__sources.yml").write_text(contract)
        landing = settings.landing / "shop" / "sale"
        landing.mkdir(parents=True)
        try:
            yield settings, landing
        finally:
            postgres.stop(settings)


def rows(count: int, zone: str) -> None:
    """Land so many rows of CSV, whose times are of a zone."""
    with shop(CONTRACT.replace("ZONE", zone)) as (settings, landing):
        for number, start in enumerate(range(0, count, 1_000_000)):
            made = min(1_000_000, count - start)
            duckdb.execute(f"""copy (
                select 'item ' || i % 997 as item, i * 7919 % 100003 as pieces, round(i * 0.37, 2) as price,
                    i % 2 = 0 as is_new, date '2024-01-01' + (i % 365)::integer as day,
                    timestamp '2024-01-01' + to_seconds(i) as sold_at,
                    strftime(timestamp '2024-01-01' + to_seconds(i), '%Y-%m-%dT%H:%M:%SZ') as known_at
                from range({start}, {start + made}) as rows (i)
            ) to '{landing}/2024-06-01-{number:03}.csv' (header)""")
        paths = sorted(landing.iterdir())
        began = time.perf_counter()
        raw = read(settings, paths)
        floor = time.perf_counter() - began
        report(f"DuckDB reads {len(paths)} files, as text", raw, floor)
        with opened(settings) as rails:
            began = time.perf_counter()
            summary = ingest.land_night(rails, "shop", clock.parse_as_of("2024-06-02"))
            report("ingest", summary.rows, time.perf_counter() - began, floor)


KEYED = """
sources:
  - name: shop
    tables:
      - name: sale
        config: {meta: {tiltyard: {event_time: {column: sold_at}, available_at: {column: sold_at}KEY}}}
        columns:
          - {name: number, data_type: bigint}
          - {name: name, data_type: varchar}
          - {name: pieces, data_type: bigint}
          - {name: sold_at, data_type: timestamptz}
"""


def keys(nights: int, count: int) -> None:
    """CPU seconds of the first and of the last nights, by what the contract says of keys."""
    for what, key in (("without a key", ""), ("by a key that grows", "number"), ("by a key that is drawn", "name")):
        spent, dropped, first = [], 0, clock.parse_as_of("2024-01-02")
        with shop(KEYED.replace("KEY", f", key: {key}" if key else "")) as (settings, landing):
            with opened(settings) as rails:
                for night in range(nights):
                    day, start = first + night * clock.NIGHT, night * count
                    duckdb.execute(f"""copy (
                        select i as number, md5(i::varchar) as name, i % 7 as pieces,
                            timestamptz '2024-01-01' + to_seconds(i) as sold_at
                        from range({max(0, start - count // 10)}, {start + count}) as rows (i)
                    ) to '{landing}/{(day - clock.NIGHT):%Y-%m-%d}.parquet'""")
                    began = time.process_time()
                    landed = ingest.land_night(rails, "shop", day)
                    dropped += landed.repeated_rows
                    assert landed.files == 1, landed.quarantined
                    spent.append(time.process_time() - began)
            few = min(5, nights // 2)
            early, late = (sorted(part)[few // 2] for part in (spent[1 : few + 1], spent[-few:]))
            print(
                f"{what:<24} {nights} nights of {count:,} rows, {dropped:,} dropped: {early:.2f} CPU s a night at "
                f"first, {late:.2f} at last",
                flush=True,
            )


def by_table(paths: list[Path]) -> dict[str, list[Path]]:
    tables: dict[str, list[Path]] = {}
    for path in paths:
        tables.setdefault(path.parent.name, []).append(path)
    return tables


def read(settings: Settings, paths: list[Path]) -> int:
    files = [str(path) for path in paths]
    with duckdb.connect(config={"threads": settings.threads}) as connection:
        function = "read_parquet" if paths[0].suffix == ".parquet" else "read_csv"
        options = ", all_varchar = true, header = true, delim = ',', quote = '\"'" if function == "read_csv" else ""
        connection.execute(f"create temp table read as select * from {function}($files{options})", {"files": files})
        [rows] = connection.execute("select count(*) from read").fetchone() or (0,)
        return int(rows)


def report(what: str, rows: int, seconds: float, floor: float | None = None) -> None:
    beside = f"  {seconds / floor:.1f} × the bare read" if floor else ""
    print(f"{what:<46} {rows:>9,} rows {seconds:7.2f} s {rows / seconds:>12,.0f} rows/s{beside}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["rows", *given]:
            rows(int(given[0]) if given else 10_000_000, given[1] if len(given) > 1 else "UTC")
        case ["keys", *given]:
            keys(int(given[0]) if given else 60, int(given[1]) if len(given) > 1 else 20_000)
        case given:
            main(given[0] if given else "incident")
