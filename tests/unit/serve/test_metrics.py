"""Several processes, one page."""

import os
import subprocess
import sys
from pathlib import Path

from tiltyard.serve.metrics import FOLDER

WORKER = """
import sys
from tiltyard.serve.metrics import Metrics
metrics = Metrics({"tiltyard_models": ("Models.", lambda: float(sys.argv[1]))})
metrics.count(metrics.requests, "steady", "200")
print(metrics.page({}).decode())
"""


def test_a_worker_that_is_gone_leaves_its_counts_and_no_gauge(tmp_path: Path) -> None:
    pages = [
        subprocess.run(
            [sys.executable, "-c", WORKER, models],
            env=os.environ | {FOLDER: str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for models in ("7", "1")
    ]
    assert "tiltyard_models 7.0" in pages[0]
    assert "tiltyard_models 1.0" in pages[1]
    assert 'tiltyard_requests_total{model="steady",status="200"} 2.0' in pages[1]
