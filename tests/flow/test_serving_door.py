"""Who holds connections, sends without end or asks too much harms nobody else: real sockets, the real process.

Addresses of 127.0.0.0/8 are all this machine's, so that one test is many callers.
"""

import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import psutil
import pytest

from tests import served
from tiltyard import rails as rails_module
from tiltyard.serve import access, spool
from tiltyard.settings import Settings

BODY = json.dumps({"rows": [{"features": served.ROW}]})
HALF = b"POST /v1/models/steady/predict HTTP/1.1\r\nHost: x\r\nX-Slow: "
PATIENCE_S = 60.0
"""Many times what any of it takes."""
KEY = access.new("desk")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    made = served.home(tmp_path_factory.mktemp("door"), postgres_url, f"door{uuid.uuid4().hex[:8]}_")
    with rails_module.opened(made) as rails:
        spec = served.written(made.models, "steady")
        version = served.register(rails, spec, served.FIRST, served.model(1), served.model(2))
        served.promote(rails, spec, version, served.FIRST + 2 * served.DAY)
    served.cached(made)
    return made


class Service:
    """`tiltyard serve` as a process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    def connect(self, of: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S, source_address=(of, 0))

    def client(self, of: str = "127.0.0.1") -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S, source_address=(of, 0))

    def rss(self) -> int:
        """Bytes of memory of its processes."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(one.memory_info().rss for one in family)


@contextmanager
def serving(home: Settings, files: int | None = None, **values: str) -> Iterator[Service]:
    """The service on a free port; `files` is how many it may open."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "TILTYARD_HOME": str(home.home), "TILTYARD_MODELS": str(home.models), "TILTYARD_SOURCES": "incident",
        "TILTYARD_DATABASE_URL": str(home.database_url), "TILTYARD_DATABASE_PREFIX": home.database_prefix,
        "TILTYARD_SERVE_PORT": str(port), "TILTYARD_SERVE_DELIVER_S": "0",
        **{f"TILTYARD_SERVE_{name.upper()}": value for name, value in values.items()},
    }  # fmt: skip

    def limit() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    process = subprocess.Popen(
        [sys.executable, "-m", "tiltyard.cli", "serve"],
        env=environment, stdout=subprocess.DEVNULL, start_new_session=True, preexec_fn=limit,
    )  # fmt: skip
    service = Service(process, port)
    try:
        wait(lambda: is_ready(service))
        yield service
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_ready(service: Service) -> bool:
    assert service.process.poll() is None, "the service has ended"
    # before it listens, a socket of loopback may be given its port, and be answered by itself
    with suppress(OSError, http.client.HTTPException):
        client = service.client()
        client.request("GET", "/readyz")
        return client.getresponse().status == 200
    return False


def wait(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def ask(client: http.client.HTTPConnection, key: str | None = None, body: str = BODY) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {})}
    client.request("POST", "/v1/models/steady/predict", body, headers)
    answer = client.getresponse()
    return answer.status, answer.read()


class Paying:
    """A caller in a thread, who asks again and again: over one connection, or over a new one each time."""

    def __init__(self, service: Service, *, keeps: bool, of: str = "127.0.0.1") -> None:
        self.statuses: Counter[int] = Counter()
        self.ids: list[str] = []
        self._service, self._keeps, self._of = service, keeps, of
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        client = self._service.client(self._of)
        while not self._stop.wait(0.01):
            try:
                status, content = ask(client)
                if status == 200:
                    self.ids.append(json.loads(content)["request_id"])
            except (OSError, http.client.HTTPException):
                status = 0
            self.statuses[status] += 1
            if not self._keeps or not status:
                client.close()
                client = self._service.client(self._of)
        client.close()

    def __enter__(self) -> "Paying":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)


def is_gone(connection: socket.socket) -> bool:
    """Whether the other side has ended it, with or without a farewell."""
    connection.setblocking(False)
    try:
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def spooled(folder: Path) -> set[str]:
    """Request ids in the log."""
    ids = set()
    for path in folder.glob("*-*.*"):
        ids |= {orjson.loads(record)["request_id"] for record in spool.read(path).records}
    return ids


def test_idle_and_half_open_connections_are_ended_while_others_are_answered(home: Settings) -> None:
    with serving(home, head_s="2", connections="2000") as service, Paying(service, keeps=True) as paying:
        held = []
        for number in range(600):
            held.append(service.connect(f"127.0.1.{number % 3 + 1}"))
            held.append(service.connect(f"127.0.1.{number % 3 + 1}"))
            held[-1].sendall(HALF)
        begun = len(paying.ids)
        wait(lambda: all(map(is_gone, held)))
        wait(lambda: len(paying.ids) > begun + 20)
    assert set(paying.statuses) == {200}
    for connection in held:
        connection.close()


def test_half_a_body_is_not_waited_for_and_neither_is_who_takes_no_answer(home: Settings) -> None:
    with serving(home, body_s="1", rest_s="1") as service:
        half = service.connect()
        half.sendall(HALF + b"x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
        assert half.recv(65_536).startswith(b"HTTP/1.1 408 ")
        rested = service.client()
        assert ask(rested)[0] == 200
        assert rested.sock is not None
        wait(lambda: is_gone(rested.sock))
        deaf = service.connect()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        rows = json.dumps({"rows": [{"features": served.ROW}] * 1_000}).encode()
        head = b"POST /v1/models/steady/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(rows)
        deaf.setblocking(False)
        with suppress(OSError):  # as many as fit, and no answer is read
            for _ in range(200):
                deaf.send(head + rows)
        wait(lambda: has_ended(deaf))
        assert ask(service.client())[0] == 200


def has_ended(connection: socket.socket) -> bool:
    """Whether the other side has reset it, though nothing was read of it."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or not still_takes(connection)


def still_takes(connection: socket.socket) -> bool:
    try:
        connection.send(b"x")
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


@pytest.mark.parametrize("fields", ["one", "many"])
def test_a_head_without_end_costs_no_memory(home: Settings, fields: str) -> None:
    line = b"X-Much: " + b"a" * 1_000 + b"\r\n"
    piece = b"a" * 1_000_000 if fields == "one" else line * 1_000
    with serving(home) as service:
        assert ask(service.client())[0] == 200
        before, sent = service.rss(), 0
        connection = service.connect()
        connection.sendall(b"POST /v1/models/steady/predict HTTP/1.1\r\nHost: x\r\n")
        if fields == "one":
            connection.sendall(b"X-Much: ")
        connection.settimeout(5)
        try:
            for _ in range(200):
                connection.sendall(piece)
                sent += 1
        except OSError:
            pass
        assert sent < 200, "all of it was taken"
        assert service.rss() - before < 8_000_000
        small = service.connect()
        small.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + line * 40 + b"\r\n")
        assert small.recv(65_536).startswith(b"HTTP/1.1 431 ")
        assert ask(service.client())[0] == 200


def test_fields_after_a_body_have_an_end_as_well(home: Settings) -> None:
    with serving(home, max_bytes="1000") as service:
        before = service.rss()
        connection = service.connect()
        connection.settimeout(5)
        connection.sendall(
            b"POST /v1/models/steady/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
        )
        with pytest.raises(OSError):
            for _ in range(100):
                connection.sendall((b"X-Much: " + b"a" * 1_000 + b"\r\n") * 1_000)
        assert service.rss() - before < 8_000_000


def test_a_body_is_no_request_of_its_own_whatever_is_offered_beside_it(home: Settings) -> None:
    """A parser that takes the offer of another protocol for the end of the request reads the body as the next one, and
    over a proxy's connection its answer would be somebody else's. Without a body the offer is passed over."""
    hidden = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    offer = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden)
    with serving(home) as service:
        for field, body in ((b"Content-Length: %d" % len(hidden), hidden), (b"Transfer-Encoding: chunked", chunk)):
            connection = service.connect()
            connection.sendall(b"POST /v1/models/steady/predict HTTP/1.1\r\n" + offer + field + b"\r\n\r\n")
            time.sleep(0.2)
            with suppress(OSError):
                connection.sendall(body)
            said = b""
            with suppress(ConnectionResetError):  # the connection is at its end before the body comes
                while more := connection.recv(65_536):
                    said += more
            assert said.startswith(b"HTTP/1.1 400 ") and b"without the field Upgrade" in said
            assert said.count(b"content-length: ") == 1, "the body was read as a request"
        connection = service.connect()
        connection.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + offer + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_with_few_descriptors_others_are_answered_and_every_answer_is_logged(home: Settings) -> None:
    with serving(home, files=400) as service:
        held: list[socket.socket] = []
        with Paying(service, keeps=False, of="127.0.2.1") as new, Paying(service, keeps=True, of="127.0.2.2") as kept:
            for _ in range(700):
                held.append(service.connect("127.0.2.3"))
            begun = len(new.ids), len(kept.ids)
            wait(lambda: len(new.ids) > begun[0] + 50 and len(kept.ids) > begun[1] + 50)
        assert set(new.statuses) | set(kept.statuses) == {200}
        assert psutil.Process(service.process.pid).num_fds() < 400
    assert set(new.ids) | set(kept.ids) <= spooled(home.spool)
    for connection in held:
        connection.close()


def test_four_workers_pass_the_budget_exactly(home: Settings) -> None:
    entries = f"{KEY.entry},{access.new('other').entry}"
    with serving(home, keys=entries, budget="1000", workers="4") as service:

        def many(_: int) -> Counter[int]:
            statuses: Counter[int] = Counter()
            for _ in range(20):
                client = service.client()  # a new one each time, so that every worker has some
                for _ in range(8):
                    statuses[ask(client, KEY.key)[0]] += 1
                client.close()
            return statuses

        with ThreadPoolExecutor(8) as pool:
            statuses = sum(pool.map(many, range(8)), Counter())
    assert statuses == {200: 1_000, 429: 280}


def test_a_key_that_is_bound_asks_for_its_models_alone(home: Settings) -> None:
    bound = access.new("bound")
    with serving(home, keys=f"{KEY.entry},{bound.entry}:other,another", trusted="desk") as service:
        status, content = ask(service.client(), bound.key)
        assert status == 403
        assert "may not ask for 'steady'; its models are: another, other." in json.loads(content)["error"]
        client = service.client()
        client.request("GET", "/v1/models", headers={"X-API-Key": bound.key})
        assert json.loads(client.getresponse().read()) == []
        assert ask(service.client(), KEY.key)[0] == 200


def test_wrong_keys_are_slowed_and_the_right_one_is_not(home: Settings) -> None:
    with serving(home, keys=KEY.entry, trusted="desk") as service:
        statuses = [ask(service.client("127.0.3.1"), "wrong")[0]]
        while statuses[-1] == 401 and len(statuses) < 10 * access.WRONG_AT_ONCE:  # one a second comes through
            statuses.append(ask(service.client("127.0.3.1"), "wrong")[0])
        assert statuses[-1] == 429
        assert len(statuses) > access.WRONG_AT_ONCE
        assert ask(service.client("127.0.3.1"), KEY.key)[0] == 200
        assert ask(service.client("127.0.3.2"), "wrong")[0] == 401
