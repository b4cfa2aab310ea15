"""Does it stay on? `tiltyard serve` under steady load while, one after the other, everything beneath it breaks.

The champion raises, hangs, gives NaN; the registry (the ledger's PostgreSQL) is killed; Redis, which holds the online
features here, is killed; the lake's catalogue is locked; the champion changes every second; the process is killed with
-9 and started again, in the end while the registry is down as well. Each fault has its share of the time and ends with
what was broken being whole again; the load goes on for a moment of health, and rests, so that counts can be compared.

Counted: answers that are no 2xx, outside the windows between a kill and the first ready answer; answers that are not in
ops.request after delivery, or there with another reason (of those given within 100 ms before a kill a loss is allowed);
reasons as the callers got them beside what /metrics counted.

    python benchmarks/availability.py [--minutes 10]

One minute is the short form. Exit 1 when anything was not as it should be.
"""

import argparse
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import psycopg2
from servers import faulty, load, process, stores, yard
from servers.steady import Record, Steady

MODEL = "steady"
PER_S, DEADLINE_MS = 100, 20
KILL_EVERY_S, BOUND_S = 12.0, 0.1
REFRESH_S = 0.2
HEALTH_S = 2.0


@dataclass
class Fault:
    name: str
    begin: Callable[[float], None]
    """Break it, for so many seconds; returns when the time is over and it is whole again."""
    kinds: list[str] = field(default_factory=lambda: ["healthy"])
    counted: bool = True
    """Can the service's counters be compared? A killed process takes its own with it."""
    metrics: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass
class Stage:
    """Where it happens: the yard, its Redis, the service as it runs now, and when it was away."""

    mine: yard.Yard
    store: stores.Redis
    port: int
    environment: dict[str, str]
    server: process.Server | None = None
    away: list[tuple[float, float]] = field(default_factory=list)

    def start(self) -> None:
        self.server = self.mine.start(self.port, **self.environment)

    # -- what breaks ----------------------------------------------------------------------------

    def nothing(self, seconds: float) -> None:
        time.sleep(seconds)

    def registry(self, seconds: float) -> None:
        self.kill_postgres()
        time.sleep(seconds)
        self.bring_postgres()

    def redis(self, seconds: float) -> None:
        self.store.kill()
        time.sleep(seconds)
        self.store.start()

    def lake(self, seconds: float) -> None:
        """All of the catalogue's tables are locked; a delivery that is due meanwhile waits, and nobody with it."""
        from tiltyard import postgres

        connection = psycopg2.connect(postgres.conninfo(postgres.url(self.mine.settings, "lake")))
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "select format('%I.%I', schemaname, tablename) from pg_tables where tablename like 'ducklake%'"
            )
            tables = [row[0] for row in cursor.fetchall()]
            cursor.execute(f"lock table {', '.join(tables)} in access exclusive mode")
            time.sleep(seconds)
        connection.close()

    def changes(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.mine.promote(MODEL, "sound")
            time.sleep(1.0)

    def kills(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.kill_service()
            time.sleep(max(0.0, min(KILL_EVERY_S, until - time.monotonic())))

    def kills_without_registry(self, seconds: float) -> None:
        self.kill_postgres()
        self.kills(seconds)
        self.bring_postgres()

    # -- how ------------------------------------------------------------------------------------

    def kill_service(self) -> None:
        assert self.server is not None
        gone = time.time()
        self.server.kill()
        self.start()
        self.away.append((gone, time.time()))

    def kill_postgres(self) -> None:
        """The postmaster and its children at once, as the kernel's out-of-memory killer would."""
        pid = int((self.mine.settings.home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for member in family:
            os.kill(member.pid, signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)

    def bring_postgres(self) -> None:
        from tiltyard import postgres

        postgres.server_url(self.mine.settings)

    def metrics(self) -> Counter[tuple[str, str]]:
        """Rows answered by (tier, reason), from /metrics."""
        request = load.get("/metrics").replace("\r\n\r\n", f"\r\nX-API-Key: {yard.KEY}\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request.encode())
            _, body = load.receive(connection)
        counts: Counter[tuple[str, str]] = Counter()
        for line in re.findall(r"^tiltyard_answers_total\{(.*?)\} (\S+)$", body.decode(), re.MULTILINE):
            labels = dict(re.findall(r'(\w+)="(.*?)"', line[0]))
            counts[labels["tier"], labels["reason"]] += int(float(line[1]))
        return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as name, ExitStack() as stack:
        mine = stack.enter_context(yard.opened(Path(name), yard.train(), []))
        mine.model(MODEL, deadline_ms=DEADLINE_MS)
        mine.promote(MODEL, "sound")
        mine.promote(MODEL, "faulty")
        store = stack.enter_context(stores.redis())
        mine.fill(online_url=store.url)
        environment = {
            "TILTYARD_ONLINE_URL": store.url,
            "TILTYARD_SERVE_REFRESH_S": str(REFRESH_S),
            "TILTYARD_SERVE_DELIVER_S": "15",
        }
        stage = Stage(mine, store, process.free_port(), environment)
        stage.start()
        stack.callback(lambda: stage.server and stage.server.stop())
        in_order = faults(stage)
        records = under_load(stage, in_order, options.minutes * 60 / len(in_order), stack)
        assert stage.server is not None
        stage.server.stop()
        logged = delivered(mine)
        print(process.machine())
        sys.exit(0 if tell(stage, in_order, records, logged) else 1)


def faults(stage: Stage) -> list[Fault]:
    """In this order; each begins and ends in health."""
    return [
        Fault("none", stage.nothing),
        Fault("champion raises now and then", stage.nothing, ["healthy", "healthy", "raised"]),
        Fault("champion raises", stage.nothing, ["raised"]),
        Fault("champion gives NaN", stage.nothing, ["healthy", "healthy", "not_finite"]),
        Fault("champion hangs", stage.nothing, ["late"]),
        Fault("registry dies", stage.registry),
        Fault("Redis dies", stage.redis, ["healthy", "unseen"]),
        Fault("lake is locked", stage.lake),
        Fault("champion changes every second", stage.changes),
        Fault("process is killed", stage.kills, counted=False),
        Fault("killed without registry", stage.kills_without_registry, counted=False),
    ]


def under_load(stage: Stage, in_order: list[Fault], seconds: float, stack: ExitStack) -> list[Record]:
    kinds = {"healthy": [yard.looked_up(number) for number in range(200)]}
    kinds["unseen"] = [yard.looked_up(number) for number in range(300, 900)]
    kinds |= {name: [yard.looked_up(number, code) for number in range(200)] for name, code in faulty.CODES.items()}
    steady = Steady(stage.port, f"/v1/models/{MODEL}/predict", yard.KEY, PER_S, kinds)
    stack.callback(steady.kill)
    for fault in in_order:
        before = stage.metrics()
        steady.send(fault.name, fault.kinds)
        fault.begin(max(seconds - HEALTH_S, 1.0))
        steady.rest()
        if fault.counted:
            fault.metrics = stage.metrics() - before
        recover(stage)
    return steady.stop()


def recover(stage: Stage) -> None:
    """Until the champion answers again: its breaker has to hear of its health."""
    ask = stage.mine.ask(MODEL, yard.looked_up(1))
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.create_connection(("127.0.0.1", stage.port), timeout=10) as connection:
            connection.sendall(ask.encode())
            _, body = load.receive(connection)
        if b'"in_service"' in body:
            return
        time.sleep(0.1)
    raise RuntimeError(f"the champion does not come back: {body.decode()[:300]}")


def delivered(mine: yard.Yard) -> dict[str, list[str]]:
    """request_id → reasons in ops.request, after everything that is spooled has been delivered."""
    from tiltyard.answered import request_log

    print(f"last delivery: {request_log.deliver(mine.rails)}")
    from tiltyard.lake import stored
    from tiltyard.tables import REQUEST

    rows = mine.rails.lake.connection.execute(f"select request_id, reason from {stored(REQUEST)}").fetchall()
    reasons: dict[str, list[str]] = {}
    for request_id, reason in rows:
        reasons.setdefault(request_id, []).append(reason)
    return reasons


# -- what is printed ------------------------------------------------------------------------------


def tell(stage: Stage, in_order: list[Fault], records: list[Record], logged: dict[str, list[str]]) -> bool:
    print(f"\n{'':32}{'requests':>9}{'p50 ms':>8}{'p99':>8}{'no 2xx':>8}{'outside':>8}{'not logged':>11}  reasons")
    bad = lost = miscounted = twice = 0
    for fault in in_order:
        of_fault = [record for record in records if record.phase == fault.name]
        failed = [record for record in of_fault if record.status != 200]
        outside = [record for record in failed if not within(record, stage.away)]
        answered = [record for record in of_fault if record.status == 200]
        unlogged = [record for record in answered if record.reason not in logged.get(record.request_id, [])]
        beyond = [record for record in unlogged if not before_a_kill(record, stage.away)]
        twice += sum(len(logged.get(record.request_id, [])) > 1 for record in answered)
        p50, p99 = np.percentile([(record.came - record.at) * 1e3 for record in answered], [50, 99])
        reasons = Counter((record.tier, record.reason) for record in answered)
        same = not fault.counted or fault.metrics == reasons
        bad, lost, miscounted = bad + len(outside), lost + len(beyond), miscounted + (not same)
        listed = ", ".join(f"{reason} {count}" for (_, reason), count in reasons.most_common())
        print(
            f"{fault.name:32}{len(of_fault):9,}{p50:8.2f}{p99:8.2f}{len(failed):8,}"
            f"{len(outside):8,}{len(unlogged):11,}  {listed}{'' if same else f'; /metrics: {dict(fault.metrics)}'}"
        )
        for record in outside[:3]:
            print(f"    {record.request_id}: {record.status} {record.reason}")
    versions = {record.version for record in records if record.phase == "champion changes every second"}
    away = [end - begun for begun, end in stage.away]
    print(f"champions seen while they changed: {len(versions)}")
    print(f"killed {len(away)} times, away for {min(away):.1f} to {max(away):.1f} s")
    verdicts = {
        "answers other than 2xx outside the restart windows": bad,
        "answers that are not in the log, beyond the last 100 ms before a kill": lost,
        "answers that are in the log twice": twice,
        "faults whose reasons /metrics counted otherwise": miscounted,
    }
    for what, count in verdicts.items():
        print(f"{what}: {count}, wanted 0: {'missed' if count else 'reached'}")
    return not any(verdicts.values())


def within(record: Record, away: list[tuple[float, float]]) -> bool:
    """Was it sent, or under way, while the process was away?"""
    return any(record.at <= end and record.came >= gone for gone, end in away)


def before_a_kill(record: Record, away: list[tuple[float, float]]) -> bool:
    return any(gone - BOUND_S <= record.came <= end for gone, end in away)


if __name__ == "__main__":
    main()
