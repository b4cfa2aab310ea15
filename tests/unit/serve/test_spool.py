"""The spool loses nothing that it acknowledged to a kill, and counts what a full disk lost."""

import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiltyard.serve import spool
from tiltyard.serve.spool import Spool

WRITER = """
import os, sys, pathlib
from tiltyard.serve.spool import Spool
log = Spool(pathlib.Path(sys.argv[1]), max_bytes=int(sys.argv[2]))
number = 0
while True:
    rows = 1 + number % 3
    log.write([b"%d:" % (number + place) + b"x" * ((number * 37) % 700) for place in range(rows)])
    number += rows
    os.write(1, b"%d\\n" % number)  # the answer: it goes out after the record
"""


def held(folder: Path) -> tuple[list[bytes], int]:
    """What a deliverer would find: the records in order, and how many are lost."""
    records: list[bytes] = []
    lost = 0
    for path in spool.segments(folder):
        found = spool.read(path)
        assert not found.is_damaged
        records += found.records
        lost += found.lost
    return records, lost


def test_what_is_written_is_read_back_in_order_over_segments(tmp_path: Path) -> None:
    log = Spool(tmp_path, max_bytes=2000)
    wanted = [b"%d" % number * 100 for number in range(100)]
    for start in range(0, 100, 4):
        log.write(wanted[start : start + 4])
    log.close()
    assert len(list(tmp_path.glob("*.log"))) > 10
    assert held(tmp_path) == (wanted, 0)
    assert (log.written, log.dropped) == (100, 0)
    assert spool.boots(tmp_path) == {log.boot: 100}


def test_a_living_process_keeps_its_open_segment_and_seals_it_by_age(tmp_path: Path) -> None:
    log = Spool(tmp_path, max_age_s=0.0)
    try:
        log.write([b"first"])
        assert spool.is_alive(tmp_path, log.boot) and not spool.boots(tmp_path)
        until = time.monotonic() + 20
        while not spool.segments(tmp_path) and time.monotonic() < until:
            time.sleep(0.02)
        assert held(tmp_path) == ([b"first"], 0)
        log.write([b"second"])  # into a segment of its own
    finally:
        log.close()
    assert held(tmp_path) == ([b"first", b"second"], 0)


def test_a_killed_writer_loses_nothing_that_it_had_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(4)
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        command = [sys.executable, "-c", WRITER, str(folder), str(rng.choice((5_000, 8 << 20)))]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            answers: list[bytes] = [writer.stdout.readline()]  # it runs
            reader = threading.Thread(target=lambda out=writer.stdout, into=answers: into.extend(out))
            reader.start()
            time.sleep(rng.uniform(0, 0.15))
            writer.send_signal(signal.SIGKILL)
            reader.join()
        acknowledged = int([line for line in answers if line.endswith(b"\n")][-1])
        records, lost = held(folder)
        numbers = [int(record.split(b":")[0]) for record in records]
        assert numbers == list(range(len(numbers))), "a record is missing, doubled or out of order"
        assert acknowledged <= len(numbers) <= acknowledged + 3
        assert lost <= 1  # the write that the kill cut short, which nobody was told of


def test_a_full_disk_is_counted_and_shows_as_a_gap(tmp_path: Path) -> None:
    """A limit on the size of files does what a full disk does: a short write, then an error."""
    log = Spool(tmp_path)
    log.write([b"a" * 500])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        log.write([b"b" * 300, b"c" * 300])  # a part of it would go in
        log.write([b"d" * 2000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert (log.written, log.dropped) == (1, 3)
    log.write([b"e"])
    log.close()
    assert held(tmp_path) == ([b"a" * 500, b"e"], 3)


def test_what_is_lost_after_the_last_segment_is_said_by_the_lock(tmp_path: Path) -> None:
    script = """
import os, pathlib, resource, signal, sys
from tiltyard.serve.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = Spool(pathlib.Path(sys.argv[1]))
log.write([b"a" * 500])
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
log.write([b"b" * 500, b"c" * 500])
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert held(tmp_path) == ([b"a" * 500], 0)
    assert list(spool.boots(tmp_path).values()) == [3]


def test_no_folder_is_no_exception_and_it_begins_when_there_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "file" / "spool"
    (tmp_path / "file").write_text("in the way")
    log = Spool(folder)
    log.write([b"a", b"b"])
    assert (log.written, log.dropped) == (0, 2)
    (tmp_path / "file").unlink()
    log.write([b"c"])
    log.close()
    assert held(folder) == ([b"c"], 2)


def test_a_folder_that_is_taken_away_takes_its_records_and_they_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    log = Spool(folder)
    log.write([b"a", b"b"])
    shutil.rmtree(folder)
    until = time.monotonic() + 20
    while not log.dropped and time.monotonic() < until:
        time.sleep(0.02)
    log.write([b"c"])
    log.close()
    assert log.dropped == 2
    assert held(folder) == ([b"c"], 0)


def test_a_forked_child_neither_writes_nor_keeps_the_lock(tmp_path: Path) -> None:
    script = """
import os, pathlib, signal, sys, time
from tiltyard.serve.spool import Spool
log = Spool(pathlib.Path(sys.argv[1]))
log.write([b"parent"])
child = os.fork()
if child == 0:
    os.close(1)
    log.write([b"child"])
    os._exit(0) if log.dropped != 1 else time.sleep(60)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    child = int(killed.stdout)
    try:
        until = time.monotonic() + 20
        while spool.is_alive(tmp_path, next(tmp_path.glob("*.lock")).stem) and time.monotonic() < until:
            time.sleep(0.02)  # the child has not come to close its copy yet
        os.kill(child, 0)  # it lives, and dropped its own record
        assert held(tmp_path) == ([b"parent"], 0)
    finally:
        os.kill(child, signal.SIGKILL)


def one_segment(folder: Path, records: list[bytes]) -> Path:
    log = Spool(folder)
    log.write(records)
    log.close()
    (path,) = spool.segments(folder)
    return path


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_of_a_damaged_segment_only_what_was_hit_is_lost(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / uuid.uuid4().hex
    records = data.draw(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8))
    path = one_segment(folder, records)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(16, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    starts = [16]
    for record in records:
        starts.append(starts[-1] + 16 + len(record))
    hit = max(place for place, start in enumerate(starts[:-1]) if start <= at)
    found = spool.read(path)
    assert found.records == records[:hit] + records[hit + 1 :]
    assert found.lost == 1


@pytest.mark.parametrize("cut", [1, 5, 17])
def test_a_torn_tail_is_lost_and_no_damage(tmp_path: Path, cut: int) -> None:
    path = one_segment(tmp_path, [b"a" * 40, b"b" * 40])
    path.write_bytes(path.read_bytes()[:-cut])
    found = spool.read(path)
    assert (found.records, found.lost, found.is_damaged) == ([b"a" * 40], 1, False)


def test_blocks_that_a_power_cut_left_empty_are_a_torn_tail(tmp_path: Path) -> None:
    path = one_segment(tmp_path, [b"a" * 40, b"b" * 40])
    content = path.read_bytes()
    path.write_bytes(content[:-56] + bytes(56))
    found = spool.read(path)
    assert (found.records, found.lost, found.is_damaged) == ([b"a" * 40], 1, False)


def test_what_is_no_segment_is_damaged(tmp_path: Path) -> None:
    path = one_segment(tmp_path, [b"a"])
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert spool.read(path).is_damaged
    path.write_bytes(struct.pack("<8sQ", spool.MAGIC, 4))
    assert spool.read(path) == spool.Segment(path.name.split("-")[0], [], 4, 0, False)


def test_the_service_imports_no_more_than_it_needs() -> None:
    code = "import json, sys, tiltyard.serve.spool; print(json.dumps(list(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"pandas", "numpy", "duckdb", "sqlalchemy", "pydantic"} & {
        name.split(".")[0] for name in json.loads(loaded)
    }
