"""The service is killed under load: whatever it had answered is in the lake afterwards, once, as it was answered."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import httpx

from tests import served
from tiltyard import lake, rails
from tiltyard.answered import request_log
from tiltyard.serve import spool
from tiltyard.tables import REQUEST

ROUNDS, CALLERS = 1, 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, answered: dict[str, list[float]], ready: threading.Event) -> None:
    """Ask until the service is gone; keep every answer that came whole."""
    rng = random.Random(threading.get_ident())
    with httpx.Client(base_url=url, timeout=10) as client:
        while True:
            name = uuid.uuid4().hex
            rows = [{"entity_id": name, "features": {**served.ROW, "weight": rng.random()}} for _ in range(3)]
            try:
                answer = client.post("/v1/models/asked/predict", json={"rows": rows, "request_id": name})
            except httpx.HTTPError:
                if ready.is_set():
                    return
                time.sleep(0.05)
                continue
            assert answer.status_code == 200, answer.text
            answered[name] = [prediction["score"] for prediction in answer.json()["predictions"]]
            ready.set()


def test_what_was_answered_is_in_the_lake_whenever_the_service_is_killed(tmp_path, postgres_url) -> None:
    settings = served.home(tmp_path, postgres_url, f"killed{uuid.uuid4().hex[:8]}_")
    answered: dict[str, list[float]] = {}
    with rails.opened(settings) as opened:
        spec = served.written(settings.models, "asked")
        first = served.register(opened, spec, served.FIRST, served.model(1), served.model(2))
        served.promote(opened, spec, first, served.FIRST + served.DAY)
        for _ in range(ROUNDS):
            port = free_port()
            environment = {
                "TILTYARD_HOME": str(settings.home),
                "TILTYARD_MODELS": str(settings.models),
                "TILTYARD_SOURCES": "incident",
                "TILTYARD_DATABASE_URL": settings.database_url or "",
                "TILTYARD_DATABASE_PREFIX": settings.database_prefix,
                "TILTYARD_SERVE_DELIVER_S": "0",
            }
            command = [sys.executable, "-m", "tiltyard.cli", "serve", "--port", str(port), "--as-of", "2016-03-10"]
            service = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
            ready = threading.Event()
            callers = [
                threading.Thread(target=ask, args=(f"http://127.0.0.1:{port}", answered, ready)) for _ in range(CALLERS)
            ]
            for caller in callers:
                caller.start()
            assert ready.wait(120)
            request_log.deliver(opened)  # of a living service: not its open segment
            time.sleep(random.uniform(0.3, 0.8))
            service.send_signal(signal.SIGKILL)
            for caller in callers:
                caller.join()
            service.wait()
        found = request_log.deliver(opened)
        assert (found.lost, found.unreadable, found.damaged) == (0, 0, 0)
        assert spool.segments(settings.spool) == [] and spool.boots(settings.spool) == {}
        rows = opened.lake.connection.execute(
            f'select request_id, list(score order by "row"), count(*) from {lake.stored(REQUEST)} group by 1'
        ).fetchall()
    kept = {name: scores for name, scores, count in rows if count == 3}
    assert len(kept) == len(rows) and len(answered) > 100
    assert {name: kept.get(name) for name in answered} == answered
    assert len(kept) <= len(answered) + ROUNDS * CALLERS  # written, and killed before the answer was out
