"""What the request log costs an answer, what a kill takes from it, and how fast it gets into the lake.

1. One record of about 1 kB, one system call: microseconds per write, with the syncing thread at work beside it.
2. A writer that answers after every write is killed with SIGKILL at a random moment, many times: of what it had
   answered, how much is not read back (must be none).
3. Delivery: records per second into a lake of its own, of segments as the service seals them; and of many small
   deliveries, as a quiet service makes them.

Exit code 1 when an answered record is missing, doubled or out of order, or the lake holds another number than was
written.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson

from tiltyard import lake, rails
from tiltyard.answered import request_log
from tiltyard.serve import spool
from tiltyard.serve.spool import Spool
from tiltyard.settings import Settings
from tiltyard.tables import REQUEST

WRITER = """
import os, sys, pathlib
from tiltyard.serve.spool import Spool
log = Spool(pathlib.Path(sys.argv[1]), max_bytes=1 << 20)
number = 0
while True:
    log.write([b"%d:" % number + b"x" * 900])
    number += 1
    os.write(1, b"%d\\n" % number)
"""
START = datetime(2016, 3, 1, tzinfo=UTC)


def record(place: int) -> bytes:
    at = (START + timedelta(seconds=place)).isoformat()
    features = {f"feature_number_{number:02d}": (place * number % 977) / 977 for number in range(30)}
    return orjson.dumps(
        {
            "kind": "request", "request_id": f"{place:032x}", "row": 0, "model": "measured", "arm": "champion",
            "version": 3, "tier": "champion", "reason": "in_service", "score": 0.25, "entity_id": f"e{place % 5000}",
            "prediction_time": at, "scored_at": at, "latency_us": 250, "snapshot": 12, "features": features,
            "given": list(features), "views": {}, "key": None,
        }
    )  # fmt: skip


def cost(folder: Path, writes: int) -> None:
    log = Spool(folder)
    records = [record(1)]
    took = np.empty(writes)
    for place in range(writes):
        began = time.perf_counter()
        log.write(records)
        took[place] = time.perf_counter() - began
        if place % 50 == 0:
            time.sleep(0.001)
    log.close()
    p50, p99, most = np.quantile(took, (0.5, 0.99, 1.0)) * 1e6
    print(f"write of {len(records[0])} bytes: p50 {p50:.1f} µs, p99 {p99:.1f}, slowest of {writes:,} {most:,.0f}")


def kills(folder: Path, rounds: int) -> bool:
    rng = random.Random(1)
    answered = read = torn = 0
    sound = True
    for number in range(rounds):
        here = folder / str(number)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(here)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            answers = [writer.stdout.readline()]
            reader = threading.Thread(target=lambda out=writer.stdout, into=answers: into.extend(out))
            reader.start()
            time.sleep(rng.uniform(0, 0.1))
            writer.send_signal(signal.SIGKILL)
            reader.join()
        acknowledged = int([line for line in answers if line.endswith(b"\n")][-1])
        segments = [spool.read(path) for path in spool.segments(here)]
        numbers = [int(content.split(b":")[0]) for segment in segments for content in segment.records]
        torn += sum(segment.lost for segment in segments)
        answered, read = answered + acknowledged, read + len(numbers)
        sound = sound and numbers == list(range(len(numbers))) and len(numbers) >= acknowledged
    print(f"{rounds} kills: {answered:,} records answered, {read:,} read back, {torn} torn (never answered); {sound=}")
    return sound


def delivery(home: Path, records: int, small: int) -> bool:
    settings = Settings(home=home)
    with rails.opened(settings) as opened:
        log = Spool(settings.spool)
        for place in range(records):
            log.write([record(place)])
        log.close()
        size = sum(path.stat().st_size for path in spool.segments(settings.spool))
        began = time.perf_counter()
        request_log.deliver(opened)
        took = time.perf_counter() - began
        print(f"delivery of {records:,} records, {size / 1e6:.0f} MB: {took:.1f} s, {records / took:,.0f} a second")
        times = []
        for place in range(small):
            log = Spool(settings.spool)
            log.write([record(records + place)])
            log.close()
            began = time.perf_counter()
            request_log.deliver(opened)
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
        sql = f"select count(*), count(distinct request_id) from {lake.stored(REQUEST)} where model = ?"
        counts = opened.lake.connection.execute(sql, ["measured"]).fetchone()
        read_s = time.perf_counter() - began
        print(
            f"{small} deliveries of one record: first {times[0]:.2f} s, last {times[-1]:.2f} s each; "
            f"reading all afterwards {read_s:.2f} s"
        )
    return counts == (records + small, records + small)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writes", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        cost(Path(scratch) / "cost", options.writes)
        sound = kills(Path(scratch) / "kills", options.kills)
        whole = delivery(Path(scratch) / "home", options.records, options.small)
    print("exactly once" if whole else "NOT exactly once")
    return 0 if sound and whole else 1


if __name__ == "__main__":
    sys.exit(main())
