"""A load generator in a process of its own: raw sockets, HTTP/1.1 kept alive, no parsing beyond status and length.

A request costs it 15 to 25 µs, so that on two cores it is the server that is measured. Run as a program it reads a job
from its standard input and writes the result to its standard output, both JSON; `run` does that from a benchmark.

    {"port": 8090, "requests": {"healthy": ["POST / HTTP/1.1…", …], …}, "order": ["healthy", "nan", …],
     "connections": 1, "seconds": 2.0 or "count": 1000, "pause_ms": {"nan": 60}, "ports": {"nan": 8091}}

One connection: the kinds of `order` in turn, each with the next of its requests, and after it a pause where its kind
has one. Several connections: as many requests as they bear, each sending the next when it has its answer.
"""

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tiltyard.serve import timeslice


@dataclass
class Load:
    """What came of a job. Latencies are microseconds, by kind and by the reason that the answer gave for itself;
    `failed` are answers other than 2xx."""

    answered: int
    seconds: float
    failed: int
    latency: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    """Of several connections: reason → answers."""
    example: str = ""
    """The body of the first answer that was no 2xx."""

    @property
    def per_s(self) -> float:
        return self.answered / self.seconds

    def reasons_of(self, kind: str) -> dict[str, int]:
        """Reason → answers."""
        return {reason: len(latencies) for reason, latencies in sorted(self.latency[kind].items())}

    def percentile(self, kind: str, percent: float, reason: str | None = None) -> float:
        """Milliseconds, of all answers of a kind or of those with one reason; NaN when there are none."""
        by_reason = self.latency[kind].items()
        latencies = [latency_us for why, some in by_reason if reason in (None, why) for latency_us in some]
        return float(np.percentile(latencies, percent)) / 1e3 if latencies else float("nan")


def post(path: str, body: Any, key: str | None = None) -> str:
    """A whole request as text; `body` is what JSON can say."""
    content = json.dumps(body)
    headers = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": len(content.encode())}
    if key is not None:
        headers["X-API-Key"] = key
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", content]
    return "\r\n".join(lines)


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def run(port: int, requests: Mapping[str, Sequence[str]], **job: Any) -> Load:
    """Run a job in a process of its own. Raises RuntimeError when that fails."""
    job = {"port": port, "requests": requests, "order": list(requests), "connections": 1, **job}
    done = subprocess.run(
        [sys.executable, str(Path(__file__))], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr.strip()[-2000:]}")
    return Load(**json.loads(done.stdout))


# -- in its own process ---------------------------------------------------------------------------


def main() -> None:
    job = json.load(sys.stdin)
    timeslice.shorten()  # what is measured is the server, not how long an answer lies here
    requests = {kind: [text.encode() for text in texts] for kind, texts in job["requests"].items()}
    result = in_turn(job, requests) if job["connections"] == 1 else at_once(job, requests)
    json.dump(result, sys.stdout)


def in_turn(job: Mapping[str, Any], requests: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    order, pause, ports = job["order"], job.get("pause_ms", {}), job.get("ports", {})
    kinds = dict.fromkeys(order)
    by_port = {port: dial(port) for port in {ports.get(kind, job["port"]) for kind in kinds}}
    connections = {kind: by_port[ports.get(kind, job["port"])] for kind in kinds}
    latency: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    turn = dict.fromkeys(kinds, 0)
    failed, number, example = 0, 0, ""
    begun = time.perf_counter()
    until = begun + job.get("seconds", 1e9)
    while number < job.get("count", 1e12) and time.perf_counter() < until:
        kind = order[number % len(order)]
        request = requests[kind][turn[kind] % len(requests[kind])]
        turn[kind] += 1
        connection = connections[kind]
        sent = time.perf_counter_ns()
        connection.sendall(request)
        status, body = receive(connection)
        taken = time.perf_counter_ns() - sent
        latency[kind].setdefault(reason(status, body), []).append(taken / 1e3)
        if status // 100 != 2:
            failed += 1
            example = example or body.decode(errors="replace")[:500]
        number += 1
        if kind in pause:
            time.sleep(pause[kind] / 1e3)
    seconds = time.perf_counter() - begun
    return {"answered": number, "seconds": seconds, "failed": failed, "latency": latency, "example": example}


def at_once(job: Mapping[str, Any], requests: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    in_all = [request for texts in requests.values() for request in texts]
    connections = [dial(job["port"]) for _ in range(job["connections"])]
    waiting = select.epoll()
    by_number = {}
    for connection in connections:
        connection.setblocking(False)
        waiting.register(connection, select.EPOLLIN)
        by_number[connection.fileno()] = connection
    buffers = dict.fromkeys(by_number, b"")
    answered = failed = sent = 0
    reasons: dict[str, int] = {}
    example = ""
    begun = time.perf_counter()
    until = begun + job["seconds"]
    for connection in connections:
        connection.sendall(in_all[sent % len(in_all)])
        sent += 1
    while True:
        now = time.perf_counter()
        if now >= until:
            break
        for number, _ in waiting.poll(0.5):
            data = buffers[number] + by_number[number].recv(65536)
            end = data.find(b"\r\n\r\n")
            if end < 0 or len(data) < end + 4 + length(data, end):
                if not data:
                    raise SystemExit("the server closed a connection")
                buffers[number] = data
                continue
            answered += 1
            why = reason(int(data[9:12]), data)
            reasons[why] = reasons.get(why, 0) + 1
            if data[9:10] != b"2":
                failed += 1
                example = example or data.decode(errors="replace")[-500:]
            buffers[number] = b""
            by_number[number].sendall(in_all[sent % len(in_all)])
            sent += 1
    seconds = time.perf_counter() - begun
    return {"answered": answered, "seconds": seconds, "failed": failed, "reasons": reasons, "example": example}


def dial(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of one answer. Raises ConnectionError when the server hangs up."""
    data = connection.recv(65536)
    while True:
        end = data.find(b"\r\n\r\n")
        if end >= 0 and len(data) >= (whole := end + 4 + length(data, end)):
            return int(data[9:12]), data[end + 4 : whole]
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("the server hung up")
        data += more


def length(data: bytes, end: int) -> int:
    """What Content-Length says in the head of an answer; none means no body."""
    place = data.lower().find(b"content-length:", 0, end)
    if place < 0:
        return 0
    return int(data[place + 15 : data.find(b"\r\n", place)])


def reason(status: int, body: bytes) -> str:
    """Why an answer is what it is: the reason of its first prediction, or the status."""
    if status // 100 != 2:
        return str(status)
    place = body.find(b'"reason":"')
    return body[place + 10 : body.find(b'"', place + 10)].decode() if place >= 0 else "ok"


if __name__ == "__main__":
    main()
