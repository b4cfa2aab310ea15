"""Steady load, in a process of its own: so many requests a second over a few connections, whatever comes back.

Every request has an id of its own. What was sent, when, and what came of it is kept; a connection that breaks is
dialled again with the next request. `Steady` talks to it from a benchmark: `send` says which rows to send from now on,
`rest` waits until everything under way has come back, `stop` ends it and gives the records.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONNECTIONS = 4
TIMEOUT_S = 5.0
IDLE_S = 2.0
"""A connection that has been idle for longer is dialled again: the server closes it after five seconds."""


@dataclass(frozen=True)
class Record:
    """One request. `status` 0: no whole answer came (`reason` says why). `at` and `came` are time.time()."""

    phase: str
    request_id: str
    at: float
    came: float
    status: int
    reason: str
    tier: str
    version: int | None


class Steady:
    def __init__(
        self, port: int, path: str, key: str, per_s: float, kinds: dict[str, Sequence[dict[str, Any]]]
    ) -> None:
        """`kinds`: name → rows of which one after the other is sent."""
        job = {"port": port, "path": path, "key": key, "per_s": per_s, "kinds": kinds}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._say(job)

    def send(self, phase: str, kinds: Sequence[str]) -> None:
        """From now on rows of these kinds in turn, under the name of a phase."""
        self._say({"phase": phase, "kinds": list(kinds)})

    def rest(self) -> None:
        self._say({"rest": True})
        self._heard()

    def stop(self) -> list[Record]:
        self._say({"stop": True})
        records = [Record(*entry) for entry in self._heard()]
        self._process.wait(30)
        return records

    def kill(self) -> None:
        self._process.kill()

    def _say(self, what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load has ended by itself")
        return json.loads(line)


# -- in its own process ---------------------------------------------------------------------------


class Sender:
    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.phase, self.kinds = "", list[str]()
        self.records: list[list[Any]] = []
        self.active, self.done = False, False
        self.number = 0
        self.began = time.perf_counter()
        self.under_way = 0
        self.turn = threading.Condition()

    def order(self, what: dict[str, Any]) -> None:
        with self.turn:
            if "phase" in what:
                self.phase, self.kinds, self.active = what["phase"], what["kinds"], True
                self.began, self.number = time.perf_counter(), 0
            else:
                self.active, self.done = False, "stop" in what
            self.turn.notify_all()
            if not self.active:
                self.turn.wait_for(lambda: self.under_way == 0)

    def next(self) -> tuple[str, str, dict[str, Any], float] | None:
        """Phase, request id, row and the moment at which it is due; None at the end. Counts it as under way."""
        with self.turn:
            self.turn.wait_for(lambda: self.active or self.done)
            if self.done:
                return None
            number = self.number
            self.number += 1
            self.under_way += 1
            rows = self.job["kinds"][self.kinds[number % len(self.kinds)]]
            due = self.began + number / self.job["per_s"]
            phase = self.phase
        return phase, f"{phase.replace(' ', '-')}.{number}", rows[number % len(rows)], due

    def run(self) -> None:
        connection: socket.socket | None = None
        used = 0.0
        while (order := self.next()) is not None:
            phase, request_id, row, due = order
            time.sleep(max(0.0, due - time.perf_counter()))
            at = time.time()
            if connection is not None and at - used > IDLE_S:
                connection.close()
                connection = None
            try:
                if connection is None:
                    connection = dial(self.job["port"])
                    connection.settimeout(TIMEOUT_S)
                body = {"rows": [row], "request_id": request_id}
                connection.sendall(post(self.job["path"], body, self.job["key"]).encode())
                status, content = receive(connection)
                prediction = json.loads(content)["predictions"][0] if status == 200 else {}
                reason = prediction.get("reason", content.decode(errors="replace")[:200])
                answer = [status, reason, prediction.get("served_by", ""), prediction.get("version")]
            except OSError as error:
                if connection is not None:
                    connection.close()
                connection = None
                answer = [0, type(error).__name__, "", None]
                time.sleep(0.01)
            used = time.time()
            record = [phase, request_id, at, used, *answer]
            with self.turn:
                self.records.append(record)
                self.under_way -= 1
                self.turn.notify_all()


def main() -> None:
    sender = Sender(json.loads(sys.stdin.readline()))
    threads = [threading.Thread(target=sender.run, daemon=True) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        what = json.loads(line)
        sender.order(what)
        if "rest" in what:
            print("{}", flush=True)
        elif "stop" in what:
            print(json.dumps(sender.records), flush=True)
            return


if __name__ == "__main__":
    from load import dial, post, receive

    main()
