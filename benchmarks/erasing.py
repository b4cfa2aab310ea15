"""Erasing a thousand people in one pass: what it takes, and what is left.

    python benchmarks/erasing.py --customers 6000 --people 1000 --nights 5

A simulated business, whose numbers have ten digits so that they are told by their bytes: landed, built by dbt,
published and predicted (by the safe default) for some nights, with its online features. Then so many customers, by
number, are erased in one pass, and one more of them by itself.
"""

import argparse
import shutil
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import duckdb

from tiltyard import clock, postgres
from tiltyard import rails as rails_module
from tiltyard.judge import shadow
from tiltyard.lake import identifier
from tiltyard.online import fill
from tiltyard.prepare import features
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.upkeep.erasing.erase import Erased, erase

FIRST = date(2025, 1, 1)
BEFORE = 20
"""Days that were delivered before the first night."""
FAR = 7_000_000_000
DAY = timedelta(days=1)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--customers", type=int, default=6_000)
    arguments.add_argument("--people", type=int, default=1_000)
    arguments.add_argument("--nights", type=int, default=5)
    asked = arguments.parse_args()
    home = Path(tempfile.mkdtemp(prefix="tiltyard-erasing-"))
    home.chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
    settings = Settings(home=home, database_url=None, sources=("subscription",))
    try:
        deliver(settings, asked.customers, BEFORE + asked.nights)
        with rails_module.opened(settings) as rails:
            live(rails, asked.nights)
            measure(rails, asked.people)
    finally:
        postgres.stop(settings)
        shutil.rmtree(home, ignore_errors=True)


def deliver(settings: Settings, customers: int, days: int) -> None:
    near = settings.home / "near"
    Simulator(customers=customers, start=FIRST, days=days).land(near)
    for path in sorted(near.glob("*/*.parquet")):
        place = settings.landing / "subscription" / path.relative_to(near)
        place.parent.mkdir(parents=True, exist_ok=True)
        duckdb.execute(
            f"copy (select * replace (customer_id + {FAR} as customer_id) from read_parquet('{path}')) "
            f"to '{place}' (format parquet)"
        )
    shutil.rmtree(near)


def live(rails: Rails, nights: int) -> None:
    for night in range(1, nights + 1):
        as_of = clock.midnight(FIRST) + (BEFORE + night) * DAY
        features.build_night(rails, as_of, render=False)
        shadow.shadow_night(rails, find(ROOT / "models", "churn"), as_of)
        fill.materialise(rails, as_of)


def measure(rails: Rails, people: int) -> None:
    raw = identifier("raw.customer")
    rows = rails.lake.connection.execute(f"select distinct customer_id from {raw} order by 1").fetchall()
    who = [str(number) for (number,) in rows]
    total = rails.lake.connection.execute(f"select count(*) from {identifier('raw.login')}").fetchone()
    print(f"{len(who):,} customers, {total[0] if total else 0:,} log-ins, {rails.lake.snapshot():,} snapshots")
    timed(rails, who[:people])
    timed(rails, who[people : people + 1])


def timed(rails: Rails, who: list[str]) -> None:
    marks: list[tuple[str, float]] = []
    began = time.monotonic()
    done = erase(
        rails, who, entity="customer", by="benchmark", reason="benchmark",
        step=lambda label, share: marks.append((label, time.monotonic())),
    )  # fmt: skip
    took = time.monotonic() - began
    print(f"{len(who):,} erased in {took:.1f} s, {_rows(done):,} rows, files and texts; left: {len(done.receipt.left)}")
    ends = [at for _, at in marks[1:]] + [began + took]
    steps = [(label, end - at) for (label, at), end in zip(marks, ends, strict=True)]
    for label, seconds in sorted(steps, key=lambda pair: -pair[1])[:6]:
        print(f"  {label:<28} {seconds:5.1f} s")


def _rows(done: Erased) -> int:
    return sum(count for parts in done.receipt.counts.values() for count in parts.values())


if __name__ == "__main__":
    main()
