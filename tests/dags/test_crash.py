"""A library that crashes ends the task's process, and the log says where."""

import os
import signal
import subprocess
import sys

from tiltyard.settings import ROOT

CRASH = """
import ctypes
from contextlib import nullcontext
from airflow.dag_processing.dagbag import DagBag
from tiltyard import rails
from tiltyard.edge import task_run

assert DagBag(DAGS).import_errors == {}  # as a task's process does, which leaves a handler of the signal behind
rails.opened = nullcontext

def read_where_nothing_is():
    ctypes.string_at(0)

with task_run.working():
    read_where_nothing_is()
"""


def test_a_crash_ends_the_process_and_is_told() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CRASH.replace("DAGS", repr(str(ROOT / "dags" / "shadow.py")))],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT / "plugins"), "TILTYARD_SOURCES": "incident"},
    )
    assert ended.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in ended.stderr
    assert "in read_where_nothing_is" in ended.stderr
