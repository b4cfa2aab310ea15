"""Servers as processes of their own: started, waited for, their CPU time read, stopped with all they started."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

PATIENCE_S = 120


@dataclass
class Server:
    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float:
        """Seconds of CPU that the process and what it started have used; the kernel counts by hundredths."""
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        return sum(times.user + times.system for times in (process.cpu_times() for process in family))

    def last_words(self) -> str:
        return Path(self.log.name).read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """As `kill -9` would, with no time to put anything in order."""
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()


def start(
    name: str, command: Sequence[str], port: int, env: Mapping[str, str] | None = None, ready: str = "/health"
) -> Server:
    """Start a server in a process group of its own and wait until GET `ready` is answered with 200.

    Raises RuntimeError, with the end of what it said, when it ends before or is not ready in time.
    """
    log = tempfile.NamedTemporaryFile(prefix=f"bench-{name.split()[0]}-", suffix=".log")  # noqa: SIM115
    process = subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    server = Server(name, port, process, log)
    until = time.monotonic() + PATIENCE_S
    while not answers(port, ready):
        if process.poll() is not None or time.monotonic() > until:
            server.stop()
            raise RuntimeError(f"{name} does not come up: {server.last_words()}")
        time.sleep(0.05)
    return server


@contextmanager
def stopping(server: Server) -> Iterator[Server]:
    """Until the end of the block; after a failure, with what the server had to say."""
    try:
        yield server
    except BaseException:
        print(f"{server.name} said: {server.last_words()}", file=sys.stderr)
        raise
    finally:
        server.stop()


def answers(port: int, path: str) -> bool:
    """Is GET `path` answered with 200?"""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def machine() -> str:
    """What else the machine had to do tells how far figures can be trusted."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} over the last minute"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
