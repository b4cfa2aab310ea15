"""What `make up` starts, as far as it can be seen without starting Airflow (tests/e2e does that)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from tiltyard.edge import airflow_settings, processes, services
from tiltyard.edge.airflow_api import Airflow, Health
from tiltyard.errors import BadInput, CheckFailed, Unavailable
from tiltyard.settings import ROOT, Settings

SINCE = datetime(2016, 4, 2, tzinfo=UTC)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def at(settings: Settings, **values: object) -> Settings:
    return settings.model_copy(update=values)


def test_a_full_port_is_told_by_its_number_and_starts_nothing(settings: Settings, taken_port: int) -> None:
    with pytest.raises(Unavailable, match=rf"Port {taken_port} is taken .*TILTYARD_API_PORT"):
        services.start(at(settings, api_port=taken_port))
    assert not any(services.status(settings).pids.values())


def test_a_host_that_opens_the_login_to_the_network_is_refused(settings: Settings) -> None:
    with pytest.raises(BadInput, match=r"TILTYARD_API_HOST=0\.0\.0\.0"):
        services.start(at(settings, api_host="0.0.0.0"))


def test_secrets_are_made_once_and_only_their_owner_reads_them(settings: Settings) -> None:
    first, second = airflow_settings.airflow_env(settings), airflow_settings.airflow_env(settings)
    files = list((settings.home / "airflow").iterdir())

    assert first == second
    assert {file.name for file in files} == {"passwords.json", "secrets.json"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    assert airflow_settings.password(settings) not in str(first)


def test_there_are_two_logins_and_a_home_of_before_gets_the_second_beside_the_first(settings: Settings) -> None:
    """Nobody approves what is their own, so that one login alone could approve nothing."""
    path = settings.home / "airflow" / "passwords.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"admin": "as it was", "somebody": "else"}))
    users = airflow_settings.airflow_env(settings)["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"]
    assert users == "admin:admin,approver:user"
    kept = json.loads(path.read_text())
    assert (kept["admin"], kept["somebody"], set(kept)) == ("as it was", "else", {"admin", "somebody", "approver"})
    assert kept["approver"] == airflow_settings.password(settings, airflow_settings.SECOND_USER) != kept["admin"]
    assert path.stat().st_mode & 0o077 == 0


def test_a_spoiled_password_file_is_told_in_one_sentence(settings: Settings) -> None:
    airflow_settings.password(settings)
    (settings.home / "airflow" / "passwords.json").write_text("{")

    with pytest.raises(BadInput, match=r"passwords\.json is not JSON any more; remove it"):
        airflow_settings.password(settings)


def test_tasks_see_the_settings_and_start_no_database_of_their_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {
        "data_mirror": tmp_path,
        "threads": 3,
        "s3_insecure": True,
        "serve_rate": 2.5,
        "serve_keys": f"ann:{'0' * 64}",
        "online_url": "redis://:password@there:6379/0",
        "kafka_options": "sasl.username=me,sasl.password=password",
    }
    landing = Settings(**{**settings.model_dump(), **given})
    for name, value in airflow_settings.tiltyard_env(landing).items():
        monkeypatch.setenv(name, value)
    theirs = Settings()

    assert theirs.database_url == settings.database_url
    assert theirs.home == settings.home
    assert {name: getattr(theirs, name) for name in given} == {name: getattr(landing, name) for name in given}


def test_nothing_of_this_shell_leaks_into_airflow(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("TILTYARD_API_PORT", "1")
    monkeypatch.setenv("no_proxy", "intranet")
    environment = processes.process_env(settings)

    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["TILTYARD_API_PORT"] == str(settings.api_port)
    assert environment["no_proxy"].split(",") == ["intranet", "127.0.0.1", "localhost", "::1"]


def test_a_pid_that_another_process_got_is_not_ours(settings: Settings) -> None:
    path = settings.home / "run" / "scheduler.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"pid": os.getpid(), "created": 1.0}))

    assert processes.recorded(settings, "scheduler") is None


def test_stop_finds_what_killed_parts_left_behind(settings: Settings) -> None:
    # A child that left its parent's session and outlived it, as a task does whose supervisor was killed.
    code = (
        "import subprocess, sys\n"
        "null, sleep = subprocess.DEVNULL, 'import time; time.sleep(300)'\n"
        "child = subprocess.Popen([sys.executable, '-c', sleep], start_new_session=True, stdout=null, stderr=null)\n"
        "print(child.pid)"
    )
    environment = processes.process_env(settings)
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    orphan = psutil.Process(int(printed.stdout))
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        assert processes.is_alive(orphan)
        services.stop(settings)
        assert not processes.is_alive(orphan)
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()


def test_a_start_that_is_ended_by_sigterm_leaves_no_part_behind(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = airflow_settings.tiltyard_env(at(settings, api_port=port))
    environment = {**os.environ, **own, "PYTHONPATH": str(ROOT / "plugins")}
    start = subprocess.Popen([sys.executable, "-m", "tiltyard.cli", "start"], env=environment)
    try:
        wait_for(lambda: processes.recorded(settings, "triggerer") is not None or start.poll() is not None)
        begun = [part for name in processes.COMPONENTS if (part := processes.recorded(settings, name))]
        start.send_signal(signal.SIGTERM)

        assert start.wait(timeout=60) == 128 + signal.SIGTERM
        assert len(begun) == len(processes.COMPONENTS)
        assert not processes.marked(settings)
    finally:
        start.kill()
        services.stop(settings)


def test_stop_ends_what_a_killed_command_has_opened(settings: Settings) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
    first, second = (
        subprocess.Popen(sleep, env={**os.environ, **processes.opened_env(settings, port)}) for port in (5000, 50001)
    )
    try:
        processes.close(settings, 5000)
        assert first.wait(timeout=5) == -signal.SIGTERM
        processes.sweep(settings)
        assert second.poll() is None, "a start of Airflow leaves it alone"
        assert services.stop(settings).stopped == ("mlflow",)
        assert second.wait(timeout=5) == -signal.SIGTERM
    finally:
        first.kill()
        second.kill()


def wait_for(is_so: Callable[[], bool], within_s: float = 180) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_stop_where_nothing_was_started(tmp_path: Path) -> None:
    assert services.stop(Settings(home=tmp_path / "none", database_url=None)) == services.StopReport(stopped=())


def health(heard: datetime, **states: str) -> dict[str, dict[str, str]]:
    parts = {
        name: {"status": states.get(name, "healthy"), f"latest_{name}_heartbeat": heard.isoformat()}
        for name in ("scheduler", "triggerer", "dag_processor")
    }
    return {"metadatabase": {"status": "healthy"}, **parts}


def test_health_counts_heartbeats_since_the_start_only() -> None:
    assert Health.read(health(SINCE + timedelta(seconds=1))).unwell(SINCE) == []
    assert Health.read(health(SINCE - timedelta(seconds=1))).unwell(SINCE) == [
        "scheduler",
        "triggerer",
        "dag-processor",
    ]
    assert Health.read(health(SINCE, dag_processor="unhealthy")).unwell(SINCE) == ["dag-processor"]
    assert Health.read({}).unwell(SINCE) == ["metadatabase", "scheduler", "triggerer", "dag-processor"]


# -- the client, against a small server that answers as Airflow's REST API does --------------------------


class Api(BaseHTTPRequestHandler):
    tokens = 0
    states: list[str]

    def answer(self, status: int, body: object) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/auth/token":
            Api.tokens += 1
            return self.answer(201, {"access_token": f"token-{Api.tokens}"})
        if self.headers["Authorization"] != "Bearer token-2":  # the first one has run out
            return self.answer(401, {})
        if body["logical_date"]:
            return self.answer(409, {"detail": "exists"})
        return self.answer(200, {"dag_run_id": "fresh"})

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/api/v2/dags/features/dagRuns":
            runs = [{"dag_run_id": "earlier", "state": "success", "logical_date": "2016-04-02T00:00:00Z"}]
            return self.answer(200, {"dag_runs": runs, "total_entries": 1})
        if path.endswith("taskInstances"):
            return self.answer(200, {"task_instances": [{"task_id": "ingest", "state": "failed"}], "total_entries": 1})
        if path.startswith("/api/v2/dags/features/dagRuns/"):
            return self.answer(200, {"dag_run_id": "fresh", "state": Api.states.pop(0)})
        return self.answer(404, {})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def client(settings: Settings) -> Iterator[Airflow]:
    Api.tokens, Api.states = 0, ["queued", "running", "success"]
    server = HTTPServer(("127.0.0.1", 0), Api)
    Thread(target=server.serve_forever, daemon=True).start()
    with Airflow(at(settings, api_port=server.server_port)) as client:
        yield client
    server.shutdown()
    server.server_close()


def test_the_client_logs_in_again_when_its_token_has_run_out(client: Airflow) -> None:
    assert client.trigger("features", {"night": "2016-04-02"}) == "fresh"
    assert Api.tokens == 2


def test_a_night_that_was_triggered_already_gives_its_run(client: Airflow) -> None:
    assert client.trigger("features", logical_date=SINCE) == "earlier"


def test_waiting_ends_with_the_run(client: Airflow) -> None:
    assert client.wait("features", "fresh", timeout_s=20).state == "success"


def test_a_failed_run_names_its_task(client: Airflow) -> None:
    Api.states = ["failed"]
    with pytest.raises(CheckFailed, match=r"features failed \(ingest\)"):
        client.wait("features", "fresh")


def test_an_unknown_dag_and_an_absent_airflow_are_told_in_one_sentence(client: Airflow, settings: Settings) -> None:
    with pytest.raises(BadInput, match="knows no dags/nothing"):
        client.runs("nothing")
    with Airflow(at(settings, api_port=1)) as absent, pytest.raises(Unavailable, match="run make up"):
        absent.dag_ids()
