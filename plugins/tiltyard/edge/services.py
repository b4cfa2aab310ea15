"""What `make up` starts and `make down` stops: PostgreSQL and Airflow's four parts, on loopback only.

Starting is making it so: what runs stays, what is missing is started. Stopping finds also what a killed part left
behind. No part needs root, Docker or a fixed place; the API's port is the only one that is taken.
"""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psycopg2

from tiltyard import child, postgres, roles
from tiltyard.edge import processes
from tiltyard.edge.airflow_api import Airflow, Pool, Progress, health
from tiltyard.edge.airflow_settings import USER, address, password_file
from tiltyard.edge.processes import COMPONENTS, LOOPBACK
from tiltyard.errors import BadInput, Unavailable
from tiltyard.files import whole
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.records import Record
from tiltyard.settings import GPU_POOL, TRAINING_POOL, Settings

START_TIMEOUT_S = 180
"""Seconds that Airflow may take to get well."""
POOL_DESCRIPTION = "models/portfolio.yaml: trainings.{field}; make up sets it"
EVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, kw_only=True)
class Started(Record):
    """What a start came to."""

    started: tuple[str, ...]
    """Parts that were started now; empty when all of them ran already."""
    url: str
    """Where a browser finds Airflow."""
    user: str
    """Name to log in with."""
    password_file: Path
    """File that holds the passwords."""


@dataclass(frozen=True, kw_only=True)
class StopReport(Record):
    """What a stop came to."""

    stopped: tuple[str, ...]
    """Parts that ran until now, PostgreSQL among them."""


@dataclass(frozen=True)
class RunningParts:
    """What runs."""

    postgres: bool
    """Whether PostgreSQL answers."""
    pids: Mapping[str, int | None]
    """Part of Airflow → number of its process; None where it does not run."""
    healthy: bool
    """Whether Airflow says that all of it is well."""
    url: str
    """Where a browser finds Airflow, or would."""


def start(settings: Settings, progress: Progress | None = None) -> Started:
    """Start what does not run yet and wait until all of it is healthy; a second start changes nothing.

    Raises Unavailable when the port is taken or a part does not come up; then nothing that was started now is left
    running.
    """
    say = progress or silent
    _refuse_open_host(settings)
    roles.refuse_role(settings)
    with _locked(settings):
        say("Starting PostgreSQL", 0.0)
        postgres.create_all(settings)
        missing = [name for name in COMPONENTS if processes.recorded(settings, name) is None]
        if missing:
            _start_parts(settings, missing, say)
        else:
            _wait_until_healthy(settings, EVER, say)
        with Airflow(settings) as airflow:
            trainings = load_portfolio(settings.models).trainings
            for name, slots, field in (
                (TRAINING_POOL, trainings.at_once, "at_once"),
                (GPU_POOL, trainings.on_gpu, "on_gpu"),
            ):
                airflow.set_pool(Pool(name=name, slots=slots, description=POOL_DESCRIPTION.format(field=field)))
        say("Airflow is up", 1.0)
    return Started(started=tuple(missing), url=address(settings), user=USER, password_file=password_file(settings))


def stop(settings: Settings, progress: Progress | None = None) -> StopReport:
    """End every part, what its parts left behind, what commands have opened, and the embedded PostgreSQL; nothing
    committed is lost."""
    say = progress or silent
    if not settings.home.exists():
        return StopReport(stopped=())
    with _locked(settings):
        running = [name for name in COMPONENTS if processes.recorded(settings, name) is not None]
        running += ["mlflow"] if processes.opened(settings) else []
        say("Stopping Airflow", 0.0)
        processes.end(settings, list(COMPONENTS))
        say("Stopping PostgreSQL", 0.8)
        if not settings.database_url and postgres.is_running(settings):
            running.append("postgres")
        postgres.stop(settings)
        say("Stopped", 1.0)
    return StopReport(stopped=tuple(running))


def status(settings: Settings) -> RunningParts:
    """What runs, and whether Airflow says that it is well. Starts nothing."""
    parts = {name: processes.recorded(settings, name) for name in COMPONENTS}
    report = health(settings) if parts["api-server"] else None
    return RunningParts(
        postgres=postgres.is_running(settings),
        pids={name: process.pid if process else None for name, process in parts.items()},
        healthy=report is not None and not report.unwell(EVER),
        url=address(settings),
    )


def parts(settings: Settings) -> tuple[str, ...]:
    """The parts of Airflow that were started here and run."""
    return tuple(name for name in COMPONENTS if processes.recorded(settings, name) is not None)


def check_port(settings: Settings) -> None:
    """Raises Unavailable when Airflow's port is taken, or may not be had."""
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.api_host, settings.api_port))
        except OSError as error:
            why = (
                "is taken by another program"
                if error.errno == errno.EADDRINUSE
                else f"cannot be had ({error.strerror})"
            )
            raise Unavailable(
                f"Port {settings.api_port} {why}; free it, or choose another one with TILTYARD_API_PORT."
            ) from None


def silent(label: str, share: float | None) -> None:
    """The progress that nobody looks at."""


def _refuse_open_host(settings: Settings) -> None:
    if settings.api_host not in LOOPBACK:
        raise BadInput(
            f"TILTYARD_API_HOST={settings.api_host} would open the plain login to the network; keep 127.0.0.1 and put "
            "a proxy in front, or use docker-compose.yml."
        )


def _start_parts(settings: Settings, names: list[str], say: Progress) -> None:
    """Start these parts and wait until all of Airflow is well; when it does not get well, they are ended again."""
    environment = processes.process_env(settings)
    processes.sweep(settings)
    if "api-server" in names:
        check_port(settings)
    _migrate(settings, environment, say)
    begun = datetime.now(UTC)
    say("Starting Airflow", 0.4)
    with child.ended_with_us():
        try:
            for name in names:
                processes.spawn(settings, name, environment)
            _wait_until_healthy(settings, begun, say)
        except BaseException:
            processes.end(settings, names)
            raise


def _migrate(settings: Settings, environment: Mapping[str, str], say: Progress) -> None:
    """`airflow db migrate`, unless this very schema is there already (it costs ten seconds to ask Airflow)."""
    stamp = settings.home / "airflow" / "migrated.json"
    release = version("apache-airflow")
    revision = _revision(settings)
    if revision and stamp.exists() and json.loads(stamp.read_text()) == {"airflow": release, "revision": revision}:
        return
    say("Preparing Airflow's database", 0.1)
    log = processes.log_file(settings, "migrate")
    with log.open("ab") as output:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.home / "airflow",
            check=False,
        )
    if done.returncode:
        raise Unavailable(f"Airflow's database could not be prepared; look into {log}.")
    with whole(stamp) as part:
        part.write_text(json.dumps({"airflow": release, "revision": _revision(settings)}))


def _revision(settings: Settings) -> str | None:
    """The version of the schema in Airflow's database; None in a fresh one."""
    connection = psycopg2.connect(postgres.conninfo(postgres.url(settings, "airflow")))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("select version_num from alembic_version")
            row = cursor.fetchone()
            return str(row[0]) if row else None
    except psycopg2.errors.UndefinedTable:
        return None
    finally:
        connection.close()


def _wait_until_healthy(settings: Settings, since: datetime, say: Progress) -> None:
    """Return once every part is well and was heard of since `since`. Raises Unavailable when one ends or is late."""
    deadline = time.monotonic() + START_TIMEOUT_S
    last_unwell: list[str] = []
    while True:
        for name in COMPONENTS:
            if processes.recorded(settings, name) is None:
                log = processes.log_file(settings, name)
                raise Unavailable(f"Airflow's {name} ended while it was starting; look into {log}.")
        report = health(settings)
        unwell = report.unwell(since) if report else ["api-server"]
        if not unwell:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"Airflow's {' and '.join(unwell)} did not get well within {START_TIMEOUT_S} s; look into "
                f"{settings.home / 'logs'}."
            )
        if unwell != last_unwell:
            say(f"Waiting for Airflow's {' and '.join(unwell)}", 0.9 - 0.1 * len(unwell))
            last_unwell = unwell
        time.sleep(0.25)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One start or stop at a time; a second one waits for the first and then finds its work done."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(settings.home / "services.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
