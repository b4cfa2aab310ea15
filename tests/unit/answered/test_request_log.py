"""The request log gets into the lake exactly once, and what is known of it afterwards."""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.test_cli import tiltyard
from tests.unit.conftest import FIRST, Arena
from tiltyard import lake, rails
from tiltyard.answered import request_log
from tiltyard.answered.report import LogDelivery
from tiltyard.rails import Rails
from tiltyard.serve import spool
from tiltyard.serve.spool import Spool
from tiltyard.tables import REQUEST, Table


@pytest.fixture
def spooled(arena: Arena) -> Iterator[Spool]:
    log = Spool(arena.rails.settings.spool, max_bytes=4000)
    yield log
    if not log._stop.is_set():
        log.close()


def request(model: str, place: int = 0, **changes: Any) -> dict[str, Any]:
    at = FIRST + timedelta(minutes=place)
    values = {
        "kind": "request",
        "request_id": f"{model}-{place}",
        "row": 0,
        "model": model,
        "arm": "champion",
        "version": 1,
        "tier": "champion",
        "reason": "in_service",
        "score": 0.25,
        "entity_id": f"t{place:05d}",
        "prediction_time": at.isoformat(),
        "scored_at": (at + timedelta(milliseconds=3)).isoformat(),
        "latency_us": 310,
        "snapshot": 7,
        "features": {"weight": 0.5},
        "given": ["weight"],
        "views": {},
        "key": None,
    }
    return values | changes


def encoded(*records: dict[str, Any]) -> list[bytes]:
    return [json.dumps(record).encode() for record in records]


def ids(opened: Rails, model: str, table: Table = REQUEST) -> list[str]:
    sql = f"select request_id from {lake.stored(table)} where model = ? order by scored_at, request_id"
    return [name for (name,) in opened.lake.connection.execute(sql, [model]).fetchall()]


def test_every_record_is_delivered_once_and_its_file_goes(arena: Arena, spooled: Spool) -> None:
    model = "log_once"
    records = [request(model, place) for place in range(40)]
    shadow = {"kind": "shadow", "request_id": f"{model}-3", "row": 0, "model": model, "version": 2, "score": None}
    for record in records:
        spooled.write(encoded(record))
    spooled.write(encoded(shadow | {"scored_at": FIRST.isoformat()}))
    spooled.close()
    found = request_log.deliver(arena.rails)
    assert found.segments > 3
    assert (found.requests, found.shadow, found.lost, found.unreadable) == (40, 1, 0, 0)
    assert ids(arena.rails, model) == [record["request_id"] for record in records]
    assert list(arena.rails.settings.spool.glob(f"*{spooled.boot}*")) == []
    assert request_log.deliver(arena.rails).segments == 0
    row = arena.rails.lake.connection.execute(
        f"select * from {lake.stored(REQUEST)} where request_id = ?", [f"{model}-3"]
    ).df()
    wanted = records[3]
    for name in ("row", "arm", "version", "tier", "reason", "score", "entity_id", "latency_us", "snapshot"):
        assert row[name].iloc[0] == wanted[name]
    assert json.loads(row["features"].iloc[0]) == wanted["features"]
    assert row["prediction_time"].iloc[0] == datetime.fromisoformat(wanted["prediction_time"])
    assert row["night"].iloc[0].date() == (FIRST + timedelta(days=1)).date()


def test_a_late_record_lands_in_the_night_of_its_prediction_time(arena: Arena, spooled: Spool) -> None:
    model = "log_late"
    midnight = FIRST + timedelta(days=3)
    last = midnight - timedelta(microseconds=1)
    for place, at in enumerate((last, midnight)):
        late = (midnight + timedelta(days=30)).isoformat()
        spooled.write(encoded(request(model, place, prediction_time=at.isoformat(), scored_at=late)))
    spooled.close()
    request_log.deliver(arena.rails)
    sql = "select request_id, night from {ops.request} where model = $model"
    seen = arena.rails.lake.query(sql, midnight, {"model": model})
    assert len(seen) == 2 and sorted(night.date() for night in seen["night"]) == [
        midnight.date(),
        (midnight + timedelta(days=1)).date(),
    ]
    assert len(arena.rails.lake.query(sql, midnight - timedelta(seconds=1), {"model": model})) == 0


KILLED = """
import os, pathlib, signal, sys
from tiltyard import lake, rails
from tiltyard.answered import request_log
from tiltyard.settings import Settings
from tiltyard.tables import REQUEST_SEGMENT
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
step = sys.argv[1]
if step == "before the commit":  # everything is inserted, nothing committed
    put = lake.put
    def last(connection, table, *rest):
        put(connection, table, *rest)
        if table == REQUEST_SEGMENT:
            die()
    lake.put = last
elif step == "after the commit":
    request_log._remove = die
elif step == "between two files":
    remove, seen = request_log._remove, []
    def second(path, *, keep):
        if seen:
            die()
        seen.append(path)
        remove(path, keep=keep)
    request_log._remove = second
with rails.opened(Settings()) as opened:
    request_log.deliver(opened)
"""


def environment(opened: Rails) -> dict[str, str]:
    settings = opened.settings
    assert settings.database_url
    named = {
        "HOME": str(settings.home),
        "DATABASE_URL": settings.database_url,
        "DATABASE_PREFIX": settings.database_prefix,
    }
    return os.environ | {f"TILTYARD_{name}": value for name, value in named.items()}


@pytest.mark.parametrize("step", ["before the commit", "after the commit", "between two files"])
def test_a_deliverer_that_is_killed_neither_loses_nor_doubles(arena: Arena, spooled: Spool, step: str) -> None:
    model = f"log_killed_{step.split()[0]}"
    for place in range(20):
        spooled.write(encoded(request(model, place)))
    spooled.close()
    killed = subprocess.run([sys.executable, "-c", KILLED, step], env=environment(arena.rails))
    assert killed.returncode == -signal.SIGKILL
    held = len(ids(arena.rails, model))
    assert held == (0 if step == "before the commit" else 20)
    assert spool.segments(arena.rails.settings.spool)
    request_log.deliver(arena.rails)
    assert ids(arena.rails, model) == [f"{model}-{place}" for place in range(20)]
    assert spool.segments(arena.rails.settings.spool) == []


def test_two_at_once_deliver_once(arena: Arena, spooled: Spool) -> None:
    model = "log_twice"
    for place in range(40):
        spooled.write(encoded(request(model, place)))
    spooled.close()

    def work(_: int) -> LogDelivery:
        with rails.opened(arena.rails.settings) as opened:
            return request_log.deliver(opened)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, range(3)))
    assert sum(one.requests for one in found) == 40
    assert ids(arena.rails, model) == [f"{model}-{place}" for place in range(40)]


def test_a_dead_process_is_delivered_with_what_it_lost(arena: Arena) -> None:
    """The disk fills, and the process is killed before anything else is written: its lock says how many there were."""
    script = """
import json, os, pathlib, resource, signal, sys
from tiltyard.serve.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = Spool(pathlib.Path(sys.argv[1]))
record = sys.argv[2].encode()
log.write([record])
resource.setrlimit(resource.RLIMIT_FSIZE, (len(record) + 100, len(record) + 100))
log.write([record, record])
os.kill(os.getpid(), signal.SIGKILL)
"""
    model = "log_dead"
    folder = arena.rails.settings.spool
    record = json.dumps(request(model))
    assert subprocess.run([sys.executable, "-c", script, str(folder), record]).returncode == -signal.SIGKILL
    found = request_log.deliver(arena.rails)
    assert (found.requests, found.lost, found.damaged) == (1, 2, 0)
    assert ids(arena.rails, model) == [f"{model}-0"]
    assert list(folder.glob("*.lock")) == [] and request_log.deliver(arena.rails).lost == 0
    assert any(event.detail["lost"] == 2 for event in arena.rails.ledger.events(kind="requests_lost"))


def test_a_living_process_keeps_its_open_segment(arena: Arena, spooled: Spool) -> None:
    model = "log_alive"
    spooled.write(encoded(request(model)))
    assert request_log.deliver(arena.rails).requests == 0
    spooled.write(encoded(request(model, 1)))
    spooled.close()
    assert request_log.deliver(arena.rails).requests == 2
    assert ids(arena.rails, model) == [f"{model}-0", f"{model}-1"]


def test_damage_is_put_aside_with_a_count_and_nothing_else_is_lost(arena: Arena) -> None:
    model = "log_damaged"
    folder = arena.rails.settings.spool
    log = Spool(folder)
    good = encoded(*(request(model, place) for place in range(5)))
    log.write([*good[:3], b"no record of ours", b'{"kind": "request"}', *good[3:]])
    log.close()
    (path,) = folder.glob(f"{log.boot}-*.log")
    content = bytearray(path.read_bytes())
    content[content.index(f"{model}-1".encode())] ^= 1  # one bit of the second record
    path.write_bytes(content)
    broken = folder / f"{uuid.uuid4().hex}-00000001.log"
    broken.write_bytes(b"nothing of a segment")
    found = request_log.deliver(arena.rails)
    assert (found.requests, found.lost, found.unreadable, found.damaged) == (4, 1, 2, 2)
    assert ids(arena.rails, model) == [f"{model}-{place}" for place in (0, 2, 3, 4)]
    assert {entry.name for entry in (folder / request_log.DAMAGED).iterdir()} >= {path.name, broken.name}
    assert request_log.deliver(arena.rails).segments == 0


def test_a_spool_that_cannot_be_emptied_is_delivered_once_and_holds_nobody_up(arena: Arena) -> None:
    """Every model's shadow stage delivers: a folder of the service is no reason for any of them to fail."""
    model, folder = "log_stuck", arena.rails.settings.spool
    shutil.rmtree(folder / request_log.DAMAGED, ignore_errors=True)
    for begin in (0, 3):
        log = Spool(folder)
        log.write([b"no record of ours", *encoded(*(request(model, place) for place in range(begin, begin + 3)))])
        log.close()
    (folder / request_log.DAMAGED).write_text("where the folder should be")
    told = len(arena.rails.ledger.events(kind=request_log.NOT_EMPTIED))
    assert request_log.deliver(arena.rails).requests == 6
    assert request_log.deliver(arena.rails).requests == 0
    assert ids(arena.rails, model) == [f"{model}-{place}" for place in range(6)]
    assert len(list(folder.glob("*.log"))) == 2, "nothing of them is lost either"
    event = arena.rails.ledger.events(kind=request_log.NOT_EMPTIED)[-1]
    assert len(arena.rails.ledger.events(kind=request_log.NOT_EMPTIED)) == told + 1, "it is told once"
    assert event.detail["files"] == 2 and str(folder) in str(event.detail["reason"])
    (folder / request_log.DAMAGED).unlink()
    assert request_log.deliver(arena.rails).segments == 0
    assert len(list((folder / request_log.DAMAGED).iterdir())) == 2 and not list(folder.glob("*.log"))


def test_many_small_deliveries_become_one_file_and_the_past_reads_the_same(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "log_tidy"
    connection = arena.rails.lake.connection
    held: dict[int, int] = {}
    for number in range(6):
        log = Spool(arena.rails.settings.spool)
        log.write(encoded(*(request(model, 100 * number + place) for place in range(30))))  # too many to be inlined
        log.close()
        monkeypatch.setattr(request_log, "MANY", 2 if number == 5 else 10_000)
        request_log.deliver(arena.rails)
        held[arena.rails.lake.snapshot()] = 30 * (number + 1)
    files = "select count(*) from ducklake_list_files('lake', 'request', schema => 'ops')"
    assert connection.execute(files).fetchall()[0][0] <= 2
    for snapshot, rows in held.items():
        sql = f"select count(*) from {lake.stored(REQUEST, snapshot)} where model = ?"
        assert connection.execute(sql, [model]).fetchall() == [(rows,)]
    assert len(set(ids(arena.rails, model))) == 180


@pytest.mark.parametrize(
    "changes",
    [
        {"prediction_time": "2016-03-01T00:00:00"},
        {"prediction_time": None},
        {"score": None},
        {"features": []},
        {"row": "first"},
        {"version": {}},
    ],
)
def test_a_record_that_says_nothing_usable_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        request_log._request(request("log_refused", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": "nul \0 and \u202e"},
        {"entity_id": "nul \0"},
        {"entity_id": "'; drop table", "key": "☃"},
        {"prediction_time": "9999-12-31T23:59:59.999999+00:00"},
        {"prediction_time": "9999-12-30T00:00:00+00:00"},
        {"prediction_time": "0001-01-01T00:00:00+14:00"},
        {"prediction_time": "0001-01-01T00:00:00+00:00"},
        {"prediction_time": "2500-01-01T00:00:00+00:00"},
        {"row": 2**40},
        {"version": 2**31},
        {"latency_us": 2**63},
        {"score": 1e300},
        {"features": {"weight": "nul \0", "é": 2**63}},
        {"features": {"weight": [1]}},
        {"given": ["a", 1]},
        {"views": {"ftr_ticket__x": ["key \0", "2016", None]}},
    ],
)
def test_no_record_stands_in_the_way_of_the_others(arena: Arena, spooled: Spool, changes: dict[str, Any]) -> None:
    """What a caller can send gets in, or is counted: it never stops a delivery."""
    model = f"log_odd_{uuid.uuid4().hex[:8]}"
    spooled.write(encoded(request(model, 1), request(model, 2, **changes), request(model, 3)))
    spooled.close()
    found = request_log.deliver(arena.rails)
    assert found.requests + found.unreadable == 3 and found.lost == 0
    assert len(ids(arena.rails, model)) == found.requests >= 2
    assert spool.segments(arena.rails.settings.spool) == []


def test_nothing_spooled_costs_nothing(tmp_path: Path, arena: Arena) -> None:
    empty = arena.rails.settings.model_copy(update={"home": tmp_path})
    assert request_log.deliver(Rails(empty, arena.rails.lake, arena.rails.ledger)).segments == 0


def test_the_commands_deliver_and_show(arena: Arena) -> None:
    log = Spool(arena.rails.settings.spool)
    records = [request("sla_breach", place, latency_us=1000 * (1 + place)) for place in range(10)]
    fallen = {"tier": "safe_default", "reason": "champion_late", "version": None}
    log.write(encoded(*records, request("sla_breach", 10, latency_us=11_000, **fallen)))
    log.close()
    settings = arena.rails.settings
    done = tiltyard("requests", "deliver", "--json", settings=settings)
    assert json.loads(done.stdout)["requests"] == 11
    shown = json.loads(tiltyard("requests", "show", "sla_breach", "--json", settings=settings).stdout)
    (night,) = shown["nights"]
    assert night == {
        "night": "2016-03-02",
        "requests": 11,
        "tiers": {"champion": 10, "safe_default": 1},
        "p50_us": 6000,
        "p99_us": pytest.approx(10_900),
    }
    assert shown["log"]["requests"] >= 11 and shown["arms"] == {}
    text = tiltyard("requests", "show", "sla_breach", settings=settings).stdout
    assert "champion 10, safe_default 1" in text and "6.00 ms" in text and "lost" in text
