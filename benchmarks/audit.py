"""The auditor on generated tables of 1,000,000 rows × 50 features: seconds and peak memory, beside what they may be.

    python benchmarks/audit.py [--ten]

--ten adds 10,000,000 rows. Half of the features are declared with columns that date them; the write-time rules alone
are compared with one DuckDB scan that does the same comparisons and nothing else. Every audit is a process of its own,
so that its peak memory is its own.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb

from tiltyard.lake import quoted, text
from tiltyard.leak import audit, engine, rules, tabular, write_times
from tiltyard.leak.roles import ColumnRoles

NUMBERS, TEXTS, INSTANTS, DATED_BY = 38, 8, 4, 5
LIMITS = {1_000_000: 20.0, 10_000_000: 240.0}
MEMORY_LIMIT_GIB = 4.0
SCAN_LIMIT = 1.5
FEATURES = [
    *(f"x{place}" for place in range(NUMBERS)),
    *(f"t{place}" for place in range(TEXTS)),
    *(f"since{place}" for place in range(INSTANTS)),
]
AVAILABLE = {name: f"known{place % DATED_BY}" for place, name in enumerate(FEATURES[::2])}
ROLES = {"label": "label", "prediction_time": "predicted_at", "entity": "customer", "label_time": "ended"}


def generate(rows: int, path: Path) -> None:
    """Customers with about ten rows each; every value was known up to 30 days before it is used, 2 % are missing."""
    columns = [
        f"case when hash(i, {place + 10}) % 50 > 0 then (hash(i, {place + 10}) % 100000) / 1000.0 end as x{place}"
        for place in range(NUMBERS)
    ]
    columns += [f"'v' || (hash(i, {place + 100}) % 40) as t{place}" for place in range(TEXTS)]
    columns += [
        f"predicted_at - to_seconds((hash(i, {place + 200}) % 31536000 + 2592000)::bigint) as since{place}"
        for place in range(INSTANTS)
    ]
    known = [
        f"predicted_at - to_seconds((hash(i, {place + 300}) % 2592000)::bigint) as known{place}"
        for place in range(DATED_BY)
    ]
    with closing(duckdb.connect(config={"threads": 2, "memory_limit": "2GB"})) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(
            f"""copy (select hash(i, 1) % {max(rows // 10, 1)} as customer, predicted_at, hash(i, 2) % 10 < 3 as label,
                predicted_at + interval 20 day as ended, {", ".join([*columns, *known])}
            from (
                select i,
                    timestamptz '2024-01-01' + to_microseconds((hash(i, 3) % 31536000000000)::bigint) as predicted_at
                from range({rows}) as made(i)) as made) to {text(str(path))} (format parquet)"""
        )


def rules_alone(path: Path) -> tuple[float, ...]:
    """Seconds of the write-time rules, and of one scan that does the same comparisons."""
    with tempfile.TemporaryDirectory() as folder, closing(engine.connect(Path(folder), threads=2)) as connection:
        roles = ColumnRoles(**ROLES, available_at=AVAILABLE)
        table = tabular.table(connection, path, Path(folder), times=roles.times, columns=roles.columns)
        chosen = write_times.applicable(roles, table, roles.features(table.columns))
        at = quoted("predicted_at")
        parts = []
        for name, known in AVAILABLE.items():
            value, since = quoted(name), quoted(known)
            parts += [f"count(*) filter ({value} is not null and {since} > {at})"]
            parts += [f"count(*) filter ({value} is not null and {since} is null)"]
        for name in FEATURES[NUMBERS + TEXTS :]:
            parts += [f"count(*) filter ({quoted(name)} > {quoted(AVAILABLE.get(name, 'predicted_at'))})"]
        raw = f"select {', '.join(parts)} from read_parquet({text(str(path))})"
        probes = [rule.probe for rule in chosen]
        return quickest(
            lambda: rules.tally(connection, "", table.relation, probes, count_applicable=False),
            lambda: connection.execute(raw).fetchall(),
        )


def quickest(*works: Callable[[], object], repeat: int = 7) -> tuple[float, ...]:
    """The quickest run of each; by turns, so that whatever else the machine does hits all alike."""
    best = [float("inf")] * len(works)
    for _ in range(repeat):
        for place, work in enumerate(works):
            begun = time.perf_counter()
            work()
            best[place] = min(best[place], time.perf_counter() - begun)
    return tuple(best)


def whole(path: Path) -> None:
    """One audit in this process; prints what it took as JSON."""
    begun, stages = time.perf_counter(), [("start", 0.0)]
    found = audit.audit(
        path,
        **ROLES,
        available_at=AVAILABLE,
        progress=lambda what, _: stages.append((what, time.perf_counter() - begun)),
    )
    taken = time.perf_counter() - begun
    parts: dict[str, float] = {}
    for (what, since), (_, until) in zip(stages, [*stages[1:], ("", taken)], strict=True):
        parts[what] = parts.get(what, 0.0) + until - since
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    used = os.times()
    print(
        json.dumps(
            {"verdict": found.verdict, "seconds": taken, "cpu": used.user + used.system, "gib": peak, "parts": parts}
        )
    )


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        whole(Path(sys.argv[2]))
        return
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for rows in (1_000_000, 10_000_000) if "--ten" in sys.argv else (1_000_000,):
        with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
            path = Path(folder) / "frame.parquet"
            generate(rows, path)
            print(f"{rows:,} rows × {len(FEATURES)} features, {path.stat().st_size / 2**30:.2f} GiB of Parquet")
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(path)], capture_output=True, text=True, check=True
            )
            seen = json.loads(done.stdout)
            share = seen["seconds"] / LIMITS[rows]
            print(
                f"  audit: {seen['seconds']:.1f} s (CPU {seen['cpu']:.1f} s), {share:.2f} of the {LIMITS[rows]:.0f} s "
                f"allowed; peak {seen['gib']:.2f} GiB, {seen['gib'] / MEMORY_LIMIT_GIB:.2f} of {MEMORY_LIMIT_GIB:.0f}; "
                f"{seen['verdict']}"
            )
            for what, seconds in seen["parts"].items():
                if seconds >= 0.05 * seen["seconds"]:
                    print(f"    {what:<32} {seconds:6.1f} s")
            ours, raw = rules_alone(path)
            print(f"  rules alone: {ours:.2f} s, raw scan {raw:.2f} s: {ours / raw:.2f} × (limit {SCAN_LIMIT})")


if __name__ == "__main__":
    main()
