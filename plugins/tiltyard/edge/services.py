"""What `make up` starts and `make down` stops: PostgreSQL and Airflow's four parts, on loopback only.

Each part is a process of its own with its own session, log (`home/logs`) and pid file (`home/run`). Starting
is making it so: what runs stays, what is missing is started. Stopping finds also what a killed part left
behind. No part needs root, Docker or a fixed place; the API's port is the only one that is taken.
"""

import base64
import errno
import fcntl
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2
from pydantic import SecretStr
from sqlalchemy.engine import URL

from tiltyard import postgres
from tiltyard.errors import BadInput, CheckFailed, Unavailable
from tiltyard.files import whole
from tiltyard.settings import NO_TELEMETRY, ROOT, TRAINING_POOL, Settings
from tiltyard.spec import load_portfolio

Progress = Callable[[str, float | None], None]

COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    # Their log servers would listen on every interface; on one machine the API reads the files themselves.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
USER = "admin"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POOL_DESCRIPTION = "models/portfolio.yaml: trainings.at_once; make up sets it"
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 20
MARK = "TILTYARD_SERVICE"
"""In the environment of every process started here, whatever has become of its parents."""

# -- settings -------------------------------------------------------------------------------------


def airflow_env(settings: Settings) -> dict[str, str]:
    """Every setting of Airflow and its tasks, as environment variables. Starts PostgreSQL for its address."""
    metadata = postgres.url(settings, "airflow")
    keys = _secrets(settings)
    home = settings.home.resolve() / "airflow"
    logs = settings.home.resolve() / "logs" / "airflow"
    address = f"http://{_bracketed(settings.api_host)}:{settings.api_port}"
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LAZY_LOAD_PLUGINS": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": keys["fernet_key"],
        # The default asks the DNS for the full name, which takes seconds on a machine without one.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_passwords_file(settings)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata.render_as_string(hide_password=False),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": _asynchronous(metadata).render_as_string(hide_password=False),
        "AIRFLOW__API__HOST": settings.api_host,
        "AIRFLOW__API__PORT": str(settings.api_port),
        "AIRFLOW__API__BASE_URL": settings.public_url or address,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": keys["api_secret"],
        "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt_secret"],
        # Above the longest training: a task whose token ran out cannot report that it is done.
        "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": str(24 * 3600),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "60",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(logs / "dag_processor"),
        **tiltyard_env(settings),
        **NO_TELEMETRY,
    }


def tiltyard_env(settings: Settings) -> dict[str, str]:
    """The settings as their environment variables, so that another process has the same ones."""
    values: dict[str, Any] = {name: getattr(settings, name) for name in type(settings).model_fields}
    values["home"] = settings.home.resolve()
    values["database_url"] = postgres.server_url(settings).render_as_string(hide_password=False)
    if "TILTYARD_SOURCES" not in os.environ:  # found anew in the landing zone, as sources arrive
        del values["sources"]
    return {f"TILTYARD_{name.upper()}": _spelled(value) for name, value in values.items() if value is not None}


def _spelled(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, SecretStr):  # as text it would be a row of stars
        return value.get_secret_value()
    return str(value.absolute() if isinstance(value, Path) else value)


def password(settings: Settings) -> str:
    """The password of the user `admin`; made once, kept in a file that only its owner reads."""
    found: dict[str, str] = _made_once(_passwords_file(settings), lambda: {USER: secrets.token_urlsafe(12)})
    if USER not in found:
        raise BadInput(f"{_passwords_file(settings)} names no user {USER}; remove it, and a new one is made.")
    return found[USER]


def address(settings: Settings) -> str:
    """Where a browser finds Airflow."""
    return settings.public_url or f"http://{_bracketed(settings.api_host)}:{settings.api_port}"


def _passwords_file(settings: Settings) -> Path:
    return settings.home.resolve() / "airflow" / "passwords.json"


def _secrets(settings: Settings) -> dict[str, str]:
    password(settings)
    return _made_once(
        settings.home.resolve() / "airflow" / "secrets.json",
        lambda: {
            "fernet_key": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "api_secret": secrets.token_urlsafe(32),
            "jwt_secret": secrets.token_urlsafe(64),
        },
    )


def _made_once(path: Path, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The JSON in `path`; whoever comes first writes it, whole, readable by its owner only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(make(), file)
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    try:
        found: dict[str, str] = json.loads(path.read_text())
    except ValueError:
        raise BadInput(f"{path} is not JSON any more; remove it, and a new one is made.") from None
    return found


def _asynchronous(target: URL) -> URL:
    """The same database for asyncpg, which spells `sslmode` its own way."""
    query = {("ssl" if key == "sslmode" else key): value for key, value in target.query.items()}
    return target.set(drivername="postgresql+asyncpg", query=query)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# -- start, stop, status --------------------------------------------------------------------------


def start(settings: Settings, progress: Progress | None = None) -> dict[str, Any]:
    """Start what does not run yet and wait until all of it is healthy; a second start changes nothing.

    Returns {"started": names of the parts started now, "url", "user", "password_file"}. Raises Unavailable
    when the port is taken or a part does not come up; then nothing that was started now is left running.
    """
    say = progress or (lambda message, share: None)
    _refuse_open_host(settings)
    with _locked(settings):
        say("Starting PostgreSQL", 0.0)
        postgres.create_all(settings)
        environment = _process_env(settings)
        missing = [name for name in COMPONENTS if _recorded(settings, name) is None]
        if missing:
            _sweep(settings)
            if "api-server" in missing:
                check_port(settings)
            _migrate(settings, environment, say)
            begun = datetime.now(UTC)
            say("Starting Airflow", 0.4)
            try:
                for name in missing:
                    _spawn(settings, name, environment)
                _wait_until_healthy(settings, begun, say)
            except BaseException:
                _end(settings, missing)
                raise
        else:
            _wait_until_healthy(settings, datetime.fromtimestamp(0, UTC), say)
        with Airflow(settings) as airflow:
            airflow.pool(TRAINING_POOL, load_portfolio(settings.models).trainings.at_once)
        say("Airflow is up", 1.0)
    return {
        "started": missing,
        "url": address(settings),
        "user": USER,
        "password_file": str(_passwords_file(settings)),
    }


def stop(settings: Settings, progress: Progress | None = None) -> dict[str, Any]:
    """End every part, what its parts left behind, and the embedded PostgreSQL; nothing committed is lost."""
    say = progress or (lambda message, share: None)
    if not settings.home.exists():
        return {"stopped": []}
    with _locked(settings):
        running = [name for name in COMPONENTS if _recorded(settings, name) is not None]
        say("Stopping Airflow", 0.0)
        _end(settings, list(COMPONENTS))
        say("Stopping PostgreSQL", 0.8)
        if not settings.database_url and postgres.is_running(settings):
            running.append("postgres")
        postgres.stop(settings)
        say("Stopped", 1.0)
    return {"stopped": running}


def status(settings: Settings) -> dict[str, Any]:
    """What runs, and whether Airflow says that it is well. Starts nothing."""
    parts = {}
    for name in COMPONENTS:
        process = _recorded(settings, name)
        parts[name] = {"running": process is not None, "pid": process.pid if process else None}
    health = _health(settings) if parts["api-server"]["running"] else {}
    return {
        "postgres": postgres.is_running(settings),
        "airflow": parts,
        "healthy": bool(health) and not _unwell(health, datetime.fromtimestamp(0, UTC)),
        "url": address(settings),
    }


def _refuse_open_host(settings: Settings) -> None:
    if settings.api_host not in LOOPBACK:
        raise BadInput(
            f"TILTYARD_API_HOST={settings.api_host} would open the plain login to the network; keep 127.0.0.1 and put "
            "a proxy in front, or use docker-compose.yml."
        )


def _process_env(settings: Settings) -> dict[str, str]:
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "AIRFLOW_CONFIG"} and not key.startswith("TILTYARD_")
    }
    bypass = ",".join(dict.fromkeys(filter(None, [os.environ.get("no_proxy", os.environ.get("NO_PROXY")), *LOOPBACK])))
    return {
        **inherited,
        **airflow_env(settings),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(ROOT / "plugins"),
        "PYTHONUNBUFFERED": "1",
        "no_proxy": bypass,
        "NO_PROXY": bypass,
        "SPT_NOENV": "1",  # process titles may not overwrite the environment, which holds the mark
        MARK: _tag(settings),
    }


def _tag(settings: Settings) -> str:
    return hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:16]


def check_port(settings: Settings) -> None:
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


def _migrate(settings: Settings, environment: Mapping[str, str], say: Progress) -> None:
    """`airflow db migrate`, unless this very schema is there already (it costs ten seconds to ask Airflow)."""
    stamp = settings.home / "airflow" / "migrated.json"
    release = version("apache-airflow")
    revision = _revision(settings)
    if revision and stamp.exists() and json.loads(stamp.read_text()) == {"airflow": release, "revision": revision}:
        return
    say("Preparing Airflow's database", 0.1)
    log = _log(settings, "migrate")
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


def _spawn(settings: Settings, name: str, environment: Mapping[str, str]) -> None:
    log = _log(settings, name)
    if log.exists() and log.stat().st_size > 32_000_000:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", *COMPONENTS[name]],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.home / "airflow",
            start_new_session=True,
        )
    record = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
    path = _pid_file(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(json.dumps(record))


def _log(settings: Settings, name: str) -> Path:
    folder = settings.home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def _pid_file(settings: Settings, name: str) -> Path:
    return settings.home / "run" / f"{name}.json"


def _recorded(settings: Settings, name: str) -> psutil.Process | None:
    """The part's living process. A number that another process got since does not count."""
    try:
        record = json.loads(_pid_file(settings, name).read_text())
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["created"]) < 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, ValueError, KeyError, psutil.Error):
        return None


def processes(settings: Settings) -> list[psutil.Process]:
    """Every living process that was started here, known by the mark in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == _tag(settings):
                found.append(process)
        except psutil.Error:  # gone, or somebody else's
            continue
    ours = {one.pid for one in psutil.Process().parents()}  # `make down` typed into a task's own shell
    return [process for process in found if process.pid not in ours]


def _sweep(settings: Settings) -> None:
    """End what killed parts left running, before their successors start."""
    spared = {process.pid for process in _family(_parts(settings, COMPONENTS))}
    _kill([process for process in processes(settings) if process.pid not in spared], patience=1)


def _parts(settings: Settings, names: Iterable[str]) -> list[psutil.Process]:
    return [process for name in names if (process := _recorded(settings, name))]


def _family(parts: list[psutil.Process]) -> list[psutil.Process]:
    """These processes and everything that descends from them."""
    family = list(parts)
    for process in parts:
        with suppress(psutil.NoSuchProcess):
            family.extend(process.children(recursive=True))
    return family


def _end(settings: Settings, names: list[str]) -> None:
    """End these parts: the parts themselves first, so that they can put their work away, then what is left."""
    parts = _parts(settings, names)
    family = _family(parts)
    _kill(parts, patience=STOP_TIMEOUT_S)
    everything = set(names) == set(COMPONENTS)
    _kill([*family, *(processes(settings) if everything else [])], patience=3)
    for name in names:
        _pid_file(settings, name).unlink(missing_ok=True)


def _kill(processes: list[psutil.Process], patience: float) -> None:
    """SIGTERM, and SIGKILL for what has not ended after `patience` seconds."""
    for process in processes:
        _signal(process.terminate)
    for process in _alive_after(processes, patience):
        _signal(process.kill)
    _alive_after(processes, 5)


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        send()


def _alive_after(processes: list[psutil.Process], patience: float) -> list[psutil.Process]:
    deadline = time.monotonic() + patience
    alive = processes
    while True:
        alive = [process for process in alive if _lives(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _health(settings: Settings) -> dict[str, Any]:
    try:
        answer = httpx.get(f"{_local(settings)}/api/v2/monitor/health", timeout=5, trust_env=False)
        found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        return found
    except (httpx.HTTPError, ValueError):
        return {}


def _local(settings: Settings) -> str:
    return f"http://{_bracketed(settings.api_host)}:{settings.api_port}"


def _unwell(health: Mapping[str, Any], since: datetime) -> list[str]:
    """The parts that Airflow does not call healthy, or has not heard of since `since`."""
    unwell = [] if (health.get("metadatabase") or {}).get("status") == "healthy" else ["metadatabase"]
    for name in ("scheduler", "triggerer", "dag_processor"):
        part = health.get(name) or {}
        heard = part.get(f"latest_{name}_heartbeat")
        if part.get("status") != "healthy" or not heard or datetime.fromisoformat(heard) < since:
            unwell.append(name.replace("_", "-"))
    return unwell


def _wait_until_healthy(settings: Settings, since: datetime, say: Progress) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    said: list[str] = []
    while True:
        for name in COMPONENTS:
            if _recorded(settings, name) is None:
                raise Unavailable(f"Airflow's {name} ended while it was starting; look into {_log(settings, name)}.")
        health = _health(settings)
        unwell = _unwell(health, since) if health else ["api-server"]
        if not unwell:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"Airflow's {' and '.join(unwell)} did not get well within {START_TIMEOUT_S} s; look into "
                f"{settings.home / 'logs'}."
            )
        if unwell != said:
            say(f"Waiting for Airflow's {' and '.join(unwell)}", 0.9 - 0.1 * len(unwell))
            said = unwell
        time.sleep(0.25)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One start or stop at a time; a second one waits for the first and then finds its work done."""
    settings.home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(settings.home / "services.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# -- a client -------------------------------------------------------------------------------------


class Airflow:
    """The running Airflow's REST API, as the user `admin`. Use it in a `with`.

    Raises Unavailable when Airflow does not answer, BadInput for a DAG it does not know.
    """

    def __init__(
        self, settings: Settings, *, timeout_s: float = 30.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._client = httpx.Client(base_url=_local(settings), timeout=timeout_s, trust_env=False, transport=transport)
        self._token: str | None = None

    def __enter__(self) -> "Airflow":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, logical_date: datetime | None = None) -> str:
        """Start a run and return its id; for a logical date that has a run already, that run's."""
        body = {"conf": dict(conf or {}), "logical_date": logical_date.isoformat() if logical_date else None}
        answer = self._call("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body, allow=(409,))
        if answer.status_code != 409:
            return str(answer.json()["dag_run_id"])
        for run in self.runs(dag_id):
            if logical_date and run["logical_date"] and datetime.fromisoformat(run["logical_date"]) == logical_date:
                return str(run["dag_run_id"])
        raise Unavailable(f"Airflow took no new run of {dag_id}: {answer.text}")

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The DAG's runs, newest first."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"order_by": "-run_after", "limit": 100, "offset": len(found)}
            page = self._call("GET", f"/api/v2/dags/{dag_id}/dagRuns", params=query).json()
            found += page["dag_runs"]
            if not page["dag_runs"] or len(found) >= page["total_entries"]:
                return found

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}").json()
        return found

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The run's task instances, with state and duration."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = self._call("GET", path, params={"limit": 100}).json()["task_instances"]
        return found

    def wait(
        self, dag_id: str, run_id: str, *, timeout_s: float = 600, progress: Progress | None = None
    ) -> dict[str, Any]:
        """The run, once it has succeeded. Raises CheckFailed when it fails, Unavailable when it takes longer."""
        deadline = time.monotonic() + timeout_s
        while True:
            run = self.run(dag_id, run_id)
            if run["state"] == "success":
                return run
            if run["state"] == "failed":
                failed = [task["task_id"] for task in self.tasks(dag_id, run_id) if task["state"] == "failed"]
                raise CheckFailed(
                    f"{dag_id} failed ({', '.join(failed) or 'no task'}); its log: "
                    f"{address(self._settings)}/dags/{dag_id}/runs/{run_id}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(f"{dag_id} is still {run['state']} after {timeout_s:.0f} s; run {run_id} goes on.")
            if progress:
                progress(f"{dag_id}: {run['state']}", None)
            time.sleep(0.25)

    def dags(self) -> dict[str, dict[str, Any]]:
        """dag_id → the DAG, of every DAG that was found and parsed."""
        found: dict[str, dict[str, Any]] = {}
        while True:
            page = self._call("GET", "/api/v2/dags", params={"limit": 100, "offset": len(found)}).json()
            found |= {dag["dag_id"]: dag for dag in page["dags"]}
            if not page["dags"] or len(found) >= page["total_entries"]:
                return found

    def wait_for_dags(self, dag_ids: list[str], *, timeout_s: float = 120) -> None:
        """Return once Airflow has parsed all of these. Raises Unavailable with its import errors when it does not."""
        deadline = time.monotonic() + timeout_s
        while missing := sorted(set(dag_ids) - self.dags().keys()):
            errors = self.import_errors()
            if errors or time.monotonic() > deadline:
                why = "; ".join(f"{name}: {text.strip().splitlines()[-1]}" for name, text in errors.items())
                raise Unavailable(f"Airflow has no DAG {', '.join(missing)} ({why or 'no error was reported'}).")
            time.sleep(0.5)

    def import_errors(self) -> dict[str, str]:
        """File name → stack trace of every DAG file that does not import."""
        page = self._call("GET", "/api/v2/importErrors", params={"limit": 100}).json()
        return {error["filename"]: error["stack_trace"] for error in page["import_errors"]}

    def pool(self, name: str, slots: int) -> None:
        """Let so many tasks of a pool run at once. A pool that is there already gets the new number."""
        body = {"slots": slots, "description": POOL_DESCRIPTION, "include_deferred": False}
        answer = self._call("POST", "/api/v2/pools", json={"name": name, **body}, allow=(409,))
        if answer.status_code == 409:
            # Airflow holds a change against its model of a whole pool, whose name is called `pool` here.
            self._call("PATCH", f"/api/v2/pools/{name}", json={"pool": name, **body})

    def get(self, path: str, **params: Any) -> Any:
        """Anything else of the REST API, like `get("/api/v2/assets")`."""
        return self._call("GET", path, params=params).json()

    def page(self, path: str) -> str:
        """A page of the user interface, as the logged-in user gets it."""
        return self._call("GET", path).text

    def _call(self, method: str, path: str, *, allow: tuple[int, ...] = (), **arguments: Any) -> httpx.Response:
        for fresh in (False, True):
            if self._token is None or fresh:
                self._log_in()
            answer = self._send(method, path, headers={"Authorization": f"Bearer {self._token}"}, **arguments)
            if answer.status_code != 401:
                break
        if answer.is_success or answer.status_code in allow:
            return answer
        if answer.status_code == 404:
            raise BadInput(f"Airflow knows no {path.removeprefix('/api/v2/')}; tiltyard models lists the models.")
        raise Unavailable(f"Airflow refused {method} {path} with {answer.status_code}: {answer.text[:500]}")

    def _log_in(self) -> None:
        body = {"username": USER, "password": password(self._settings)}
        answer = self._send("POST", "/auth/token", json=body)
        if not answer.is_success:
            raise Unavailable(f"Airflow does not let {USER} in ({answer.status_code}); run make down, then make up.")
        self._token = answer.json()["access_token"]

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Unavailable(f"Airflow does not answer at {_local(self._settings)} ({error}); run make up.") from None
