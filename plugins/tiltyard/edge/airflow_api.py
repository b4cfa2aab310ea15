"""A client of the running Airflow's REST API, and what it answers as records.

Their fields have Airflow's names: https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import httpx

from tiltyard import clock
from tiltyard.edge.airflow_settings import USER, address, local_address, password
from tiltyard.errors import BadInput, CheckFailed, Unavailable
from tiltyard.records import JsonObject, Record
from tiltyard.settings import Settings

Progress = Callable[[str, float | None], None]
"""Takes the label of a step and the share of the work that is done, in [0, 1]; None where it is not known."""
REPARSE_S = 30.0
"""Seconds after which Airflow is asked again to parse its files, where a DAG is still missing."""
PAGE = 100
"""Entries that one answer holds at most."""


@dataclass(frozen=True, kw_only=True)
class Run(Record):
    """One run of a DAG."""

    dag_run_id: str
    """Airflow's id of the run; unique within its DAG."""
    dag_id: str = ""
    """Id of its DAG."""
    state: str
    """Where it is: queued, running, success or failed."""
    run_type: str = ""
    """What started it: manual, scheduled, asset_triggered or backfill."""
    logical_date: datetime | None = None
    """Instant that it stands for; None for a run of none."""
    start_date: datetime | None = None
    """Instant at which its first task began; None before that."""
    end_date: datetime | None = None
    """Instant at which it ended; None before that."""


@dataclass(frozen=True, kw_only=True)
class TaskRun(Record):
    """One task of a run."""

    task_id: str
    """Name of the task, unique within its DAG."""
    state: str | None = None
    """Where it is, as Airflow calls it; None before it was scheduled."""
    duration: float | None = None
    """Time that it took, in seconds; None before it ended."""
    map_index: int = -1
    """Which one of a mapped task it is; -1 for one that is not mapped."""
    rendered_map_index: str | None = None
    """What that one is called; None where nobody said it."""


@dataclass(frozen=True, kw_only=True)
class Pool(Record):
    """So many tasks of one kind may run at once."""

    name: str
    """Name of the pool."""
    slots: int
    """Number of tasks that run at once; -1 for any number."""
    description: str | None = None
    """What it is for; None where nobody said it."""
    include_deferred: bool = False
    """Whether a task that waits in the triggerer takes a slot."""


@dataclass(frozen=True)
class Health:
    """What Airflow says of itself."""

    database: bool
    """Whether it reaches its database."""
    heard: Mapping[str, datetime | None]
    """Part → the last instant at which it was heard of; None for a part that is not well, or was never heard of."""

    @classmethod
    def read(cls, body: Mapping[str, Mapping[str, str | None] | None]) -> Self:
        """From the answer of /monitor/health."""
        heard: dict[str, datetime | None] = {}
        for name in ("scheduler", "triggerer", "dag_processor"):
            part = body.get(name) or {}
            beat = part.get(f"latest_{name}_heartbeat") if part.get("status") == "healthy" else None
            heard[name.replace("_", "-")] = datetime.fromisoformat(beat) if beat else None
        return cls(database=(body.get("metadatabase") or {}).get("status") == "healthy", heard=heard)

    def unwell(self, since: datetime) -> list[str]:
        """The parts that are not well, or were not heard of since `since`."""
        late = [name for name, instant in self.heard.items() if instant is None or instant < since]
        return late if self.database else ["metadatabase", *late]


def health(settings: Settings) -> Health | None:
    """What Airflow says of itself; None where it does not answer."""
    try:
        answer = httpx.get(f"{local_address(settings)}/api/v2/monitor/health", timeout=5, trust_env=False)
        return Health.read(answer.json()) if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None


class Airflow:
    """The running Airflow's REST API, as one of its logins. Use it in a `with`.

    Raises Unavailable when Airflow does not answer, BadInput for a DAG it does not know.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        user: str = USER,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._user = user
        self._client = httpx.Client(
            base_url=local_address(settings), timeout=timeout_s, trust_env=False, transport=transport
        )
        self._token: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def trigger(self, dag_id: str, conf: JsonObject | None = None, logical_date: datetime | None = None) -> str:
        """Start a run and return its id; for a logical date that has a run already, that run's."""
        body: JsonObject = {"conf": conf or {}, "logical_date": logical_date.isoformat() if logical_date else None}
        answer = self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body, allow=(409,))
        if answer.status_code != 409:
            return str(answer.json()["dag_run_id"])
        for run in self.runs(dag_id):
            if logical_date and run.logical_date == logical_date:
                return run.dag_run_id
        raise Unavailable(f"Airflow took no new run of {dag_id}: {answer.text}")

    def trigger_night(self, dag_id: str, as_of: datetime) -> str:
        """Start the run of a night and return its id. It is called after the night, says it in its note, has its
        interval and stands on its day in Airflow's calendar; one more run of a night that has one is called after it,
        too."""
        night = clock.night_closing(as_of)
        begin, end = clock.interval(as_of)
        named: JsonObject = {"conf": {"as_of": str(night)}, "note": f"The night of {night}"}
        interval: JsonObject = {
            name: moment.isoformat()
            for name, moment in (
                ("logical_date", begin),
                ("data_interval_start", begin),
                ("data_interval_end", end),
            )
        }
        path = f"/api/v2/dags/{dag_id}/dagRuns"
        answer = self.call("POST", path, json={**named, **interval, "dag_run_id": f"night_{night}"}, allow=(409,))
        if answer.status_code == 409:
            again = f"night_{night}__{clock.now():%Y-%m-%dT%H:%M:%S.%f}"
            answer = self.call("POST", path, json={**named, "logical_date": None, "dag_run_id": again})
        return str(answer.json()["dag_run_id"])

    def runs(self, dag_id: str) -> list[Run]:
        """The DAG's runs, newest first."""
        entries = self._entries(f"/api/v2/dags/{dag_id}/dagRuns", "dag_runs", order_by="-run_after")
        return [Run.from_json(entry) for entry in entries]

    def failed_runs(self, since: datetime) -> list[Run]:
        """The runs of any DAG that have failed, of those that were started since an instant."""
        asked = {"state": "failed", "start_date_gte": since.isoformat(), "order_by": "-run_after"}
        return [Run.from_json(entry) for entry in self._entries("/api/v2/dags/~/dagRuns", "dag_runs", **asked)]

    def run(self, dag_id: str, run_id: str) -> Run:
        """One run of a DAG, as it is now."""
        return Run.from_json(self.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"))

    def tasks(self, dag_id: str, run_id: str) -> list[TaskRun]:
        """The run's tasks."""
        entries = self._entries(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")
        return [TaskRun.from_json(entry) for entry in entries]

    def wait(self, dag_id: str, run_id: str, *, timeout_s: float = 600, progress: Progress | None = None) -> Run:
        """The run, once it has succeeded. Raises CheckFailed when it fails, Unavailable when it takes longer."""
        deadline = time.monotonic() + timeout_s
        while True:
            run = self.run(dag_id, run_id)
            if run.state == "success":
                return run
            if run.state == "failed":
                failed = [task.task_id for task in self.tasks(dag_id, run_id) if task.state == "failed"]
                raise CheckFailed(
                    f"{dag_id} failed ({', '.join(failed) or 'no task'}); its log: "
                    f"{address(self._settings)}/dags/{dag_id}/runs/{run_id}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(f"{dag_id} is still {run.state} after {timeout_s:.0f} s; run {run_id} goes on.")
            if progress:
                progress(f"{dag_id}: {run.state}", None)
            time.sleep(0.25)

    def dag_ids(self) -> set[str]:
        """Every DAG that was found and parsed."""
        return {str(entry["dag_id"]) for entry in self._entries("/api/v2/dags", "dags")}

    def wait_for_dags(self, dag_ids: Sequence[str], *, timeout_s: float = 120) -> None:
        """Return once Airflow has parsed all of these, which it is asked to do at once.

        Raises Unavailable with its import errors when it does not.
        """
        deadline = time.monotonic() + timeout_s
        asked = -REPARSE_S
        while missing := sorted(set(dag_ids) - self.dag_ids()):
            if time.monotonic() - asked >= REPARSE_S:
                self.parse_again()
                asked = time.monotonic()
            errors = self.import_errors()
            if errors or time.monotonic() > deadline:
                why = "; ".join(f"{name}: {trace.strip().splitlines()[-1]}" for name, trace in errors.items())
                raise Unavailable(f"Airflow has no DAG {', '.join(missing)} ({why or 'no error was reported'}).")
            time.sleep(0.5)

    def parse_again(self) -> None:
        """Ask Airflow to parse the files of the DAGs that it knows before their time: they may hold others by now."""
        entries = self._entries("/api/v2/dags", "dags")
        of_files = {(entry["fileloc"], entry["bundle_name"]): str(entry["file_token"]) for entry in entries}
        for token in of_files.values():
            self.call("PUT", f"/api/v2/parseDagFile/{token}", allow=(409,))

    def import_errors(self) -> dict[str, str]:
        """File name → stack trace of every DAG file that does not import."""
        entries = self._entries("/api/v2/importErrors", "import_errors")
        return {str(entry["filename"]): str(entry["stack_trace"]) for entry in entries}

    def pool(self, name: str) -> Pool:
        """The pool of this name. Raises as `get` does where there is none."""
        return Pool.from_json(self.get(f"/api/v2/pools/{name}"))

    def set_pool(self, pool: Pool) -> None:
        """Make the pool, or change the one of its name that is there already."""
        body = pool.to_json()
        answer = self.call("POST", "/api/v2/pools", json=body, allow=(409,))
        if answer.status_code == 409:
            # Airflow holds a change against its model of a whole pool, whose name is called `pool` here.
            body["pool"] = body.pop("name")
            self.call("PATCH", f"/api/v2/pools/{pool.name}", json=body)

    def get(self, path: str, **query: str | int) -> Any:
        """The JSON of anything else of the REST API, like `get("/api/v2/assets")`."""
        return self.call("GET", path, query=query).json()

    @property
    def address(self) -> str:
        """Where it is reached on this machine."""
        return local_address(self._settings)

    def authorization(self) -> dict[str, str]:
        """What a request of somebody else, like a browser, has in its head to be the logged-in user's."""
        if self._token is None:
            self._log_in()
        return {"Authorization": f"Bearer {self._token}"}

    def page(self, path: str) -> str:
        """A page of the user interface, as the logged-in user gets it."""
        return self.call("GET", path).text

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        json: JsonObject | None = None,
        allow: tuple[int, ...] = (),
    ) -> httpx.Response:
        """The answer of one request, logged in again where the token has run out.

        `allow` are statuses of refusals that the caller handles. Raises BadInput for 404, Unavailable for any other.
        """
        for fresh in (False, True):
            if self._token is None or fresh:
                self._log_in()
            answer = self._send(method, path, query, json)
            if answer.status_code != 401:
                break
        if answer.is_success or answer.status_code in allow:
            return answer
        if answer.status_code == 404:
            raise BadInput(f"Airflow knows no {path.removeprefix('/api/v2/')}; tiltyard models lists the models.")
        raise Unavailable(f"Airflow refused {method} {path} with {answer.status_code}: {answer.text[:500]}")

    def _entries(self, path: str, key: str, **query: str | int) -> Iterator[JsonObject]:
        """The entries under `key` of all pages of a list."""
        read = 0
        while True:
            page = self.get(path, limit=PAGE, offset=read, **query)
            yield from page[key]
            read += len(page[key])
            if not page[key] or read >= page["total_entries"]:
                return

    def _log_in(self) -> None:
        self._token = None
        body: JsonObject = {"username": self._user, "password": password(self._settings, self._user)}
        answer = self._send("POST", "/auth/token", None, body)
        if not answer.is_success:
            raise Unavailable(
                f"Airflow does not let {self._user} in ({answer.status_code}); run make down, then make up."
            )
        self._token = str(answer.json()["access_token"])

    def _send(
        self, method: str, path: str, query: Mapping[str, str | int] | None, json: JsonObject | None
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else None
        try:
            return self._client.request(method, path, params=query, json=json, headers=headers)
        except httpx.HTTPError as error:
            address = local_address(self._settings)
            raise Unavailable(f"Airflow does not answer at {address} ({error}); run make up.") from None
