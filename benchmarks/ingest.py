"""Rows per second from landing files to a committed lake table, beside DuckDB reading the same files and no more.

    python benchmarks/ingest.py [incident|simulated]

incident needs TILTYARD_DATA_MIRROR or the internet. Everything happens in a folder that is removed at the end.
"""

import sys
import tempfile
import time
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
                report("ingest: the first night", night["rows"], time.perf_counter() - began)
                began = time.perf_counter()
                rest = ingest.land_night(rails, source, last)
                taken = time.perf_counter() - began
                report(f"ingest: the other {rest['files']} files at once", rest["rows"], taken, floor)
                began = time.perf_counter()
                ingest.land_night(rails, source, last)
                report("ingest: again, nothing to do", 0, time.perf_counter() - began)
        finally:
            postgres.stop(settings)


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
    main(sys.argv[1] if len(sys.argv) > 1 else "incident")
