"""Tools that come with Tiltyard, opened on what is here: MLflow's pages on loopback, and dbt's as a file."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tiltyard import child, postgres
from tiltyard.edge import processes
from tiltyard.edge.processes import LOOPBACK
from tiltyard.errors import Unavailable
from tiltyard.prepare import transform
from tiltyard.settings import NO_TELEMETRY, Settings
from tiltyard.train import registry

PATIENCE_S = 90.0
"""Seconds that MLflow may take to answer."""


@contextmanager
def mlflow(settings: Settings, port: int) -> Iterator[tuple[str, Callable[[], int]]]:
    """MLflow's pages on the store of this home, on loopback: their address, once they answer, and what waits for their
    end. They end with the block, and with this process, whatever ends it; where that is SIGKILL, with `tiltyard down`.
    Raises Unavailable where the port is taken, or MLflow does not come up."""
    host = LOOPBACK[0]
    _require_free(host, port)
    postgres.create_all(settings)
    registry.client(settings)  # the database as this MLflow has it
    address = f"http://{host}:{port}"
    environment = {
        **os.environ,
        **NO_TELEMETRY,
        **processes.opened_env(settings, port),
        "MLFLOW_BACKEND_STORE_URI": registry.tracking_uri(settings),  # not as an argument, which everybody may read
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.mlflow_path,
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    log = settings.home / "logs" / "mlflow.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with child.ended_with_us():
        try:
            with log.open("ab") as output:
                server = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            _wait(server, address, log)
            yield address, server.wait
        finally:
            processes.close(settings, port)


def dbt_docs(settings: Settings) -> Path:
    """Write dbt's documentation of the project in force, one file that needs no server and no network. Returns it."""
    work = settings.home / "dbt" / "docs"
    transform.document(settings, work)
    return work / "target" / "static_index.html"


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(
                f"Port {port} cannot be had ({error.strerror}); free it, or choose another one with --port."
            ) from None


def _wait(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise Unavailable(f"MLflow ended while it was starting; look into {log}.")
        with suppress(httpx.HTTPError):
            if httpx.get(f"{address}/health", timeout=5, trust_env=False).is_success:
                return
        time.sleep(0.25)
    raise Unavailable(f"MLflow did not answer at {address} within {PATIENCE_S:.0f} s; look into {log}.")
