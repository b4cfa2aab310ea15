"""A night as Airflow plays it: the DAG files are parsed, and every task is a process of its own, with retries.

The tasks are those of `dags/`, and they are told what Airflow tells them: parameters, events, what another
task of the run handed on. What is Airflow's is played here: which task follows which, how often it is tried, when it is
ended. A task's process is a fork of one that has imported what tasks import, so that a night costs what it does.
"""

import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from tiltyard.settings import ROOT

State = Literal["success", "skipped", "failed", "upstream_failed"]
Handed = Mapping[tuple[str, str], Any]
"""(task, key) → what it handed on."""
Trap = Callable[["Job"], None]
"""What a fault does in the process of a task, before the task begins."""
AIRFLOW = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:1/none",  # parsing connects to none
}


def preload() -> None:
    """Import what tasks import, before the fork."""
    import dbt.adapters.duckdb.connections
    import dbt.cli.main  # noqa: F401
    import duckdb  # noqa: F401
    import evidently  # noqa: F401
    import great_expectations  # noqa: F401
    import mlflow  # noqa: F401
    import onnxruntime  # noqa: F401
    import xgboost  # noqa: F401
    from airflow.dag_processing import dagbag  # noqa: F401

    from tiltyard.edge import orchestration  # noqa: F401
    from tiltyard.online import fill  # noqa: F401
    from tiltyard.rewind import hindcast  # noqa: F401
    from tiltyard.suites import gx  # noqa: F401


@dataclass(frozen=True)
class Job:
    """One attempt at a task."""

    dag_id: str
    task_id: str
    attempt: int
    about: tuple[str, ...] = ()
    """The models that it is told to do, where it is told."""


@dataclass
class Outcome:
    """What became of a task."""

    job: Job
    state: State
    value: Any = None
    pushed: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    events: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(asset, nights) that it announced."""
    error: str = ""
    seconds: float = 0.0
    tried: int = 1
    is_final: bool = False
    """Whether trying again is no use."""

    @property
    def is_bad(self) -> bool:
        return self.state in ("failed", "upstream_failed")


@dataclass
class Player:
    """Plays DAGs in a home."""

    environment: Mapping[str, str]
    """Settings of the home, as variables."""
    logs: Path
    traps: Sequence[Trap] = ()
    outcomes: list[Outcome] = field(default_factory=list)
    """What became of every task, in the order in which they ended."""
    import_errors: dict[str, str] = field(default_factory=dict)
    """DAG file → why it could not be parsed."""
    unopened: str = ""
    """A report that somebody could not open."""
    by_hand: bool = False
    """Whether a person starts the runs, naming the night."""
    models: tuple[str, ...] = ()
    """Models of which a person does the night's stages again, whatever is due; by hand alone."""
    _dags: dict[str, Any] = field(default_factory=dict)

    def parse(self) -> None:
        """Parse the DAG files, as Airflow does again and again."""
        from airflow.dag_processing.dagbag import DagBag

        os.environ.update(AIRFLOW | dict(self.environment) | {"AIRFLOW_HOME": str(self.logs.parent / "airflow")})
        bag = DagBag(ROOT / "dags")
        self._dags = dict(bag.dags)
        self.import_errors |= {Path(path).name: text for path, text in bag.import_errors.items()}

    def features(self, source: str, as_of: datetime) -> bool:
        """A run of a source's features. Whether it announced anything."""
        run = Run(self, f"{source}__features", as_of)
        landed = run.task("ingest")
        built = run.task("transform") if landed.state == "success" else run.passed_over("transform", landed)
        if built.state == "success":
            run.task("checks", built.value)
        else:
            run.passed_over("checks", built)
        return bool(run.task("publish").events)

    def stage(self, stage: str, as_of: datetime | None = None, events: Sequence[str] = ()) -> bool:
        """A run of a stage that goes through its models in chunks. Whether it announced anything."""
        run = Run(self, stage, as_of, nights=events)
        planned = run.task("plan")
        if "left" not in planned.skipped:
            for part in planned.value or ():
                run.task("chunk", part)
            rest = run.task("left")
            if "alone" not in rest.skipped:
                for own in rest.value or ():
                    run.task("alone", own)
                run.task("settle")
        return any(outcome.events for outcome in run.outcomes)

    def one(self, dag_id: str, task_id: str, nights: Sequence[str] = (), as_of: datetime | None = None) -> Outcome:
        """A run of a DAG of one task."""
        return Run(self, dag_id, as_of, nights=nights).task(task_id)

    def build(self, as_of: datetime, sources: Sequence[str]) -> bool:
        """The features of a night. Whether they announced anything."""
        self.parse()
        announced = [self.features(source, as_of) for source in sources]
        return any(announced)

    def night(self, as_of: datetime, sources: Sequence[str], *, is_built: bool = False) -> None:
        """Every DAG of a night, each started by what the one before announced; by hand, all of them are looked at.

        `is_built` of whose features an earlier call of `build` has announced.
        """
        announced = self.build(as_of, sources)
        day = [as_of.isoformat()]
        if not (announced or is_built or self.by_hand):
            return
        again = as_of if self.models else None
        scored = self.stage("shadow", again, events=day)
        if not (scored or self.by_hand):
            return
        self.stage("promotion", again, events=day)
        found = self.stage("drift", again, events=day)
        audited = Run(self, "fallback_audit", nights=day)
        for own in audited.task("audit").value or ():
            audited.task("alone", own)
        if found or self.by_hand:
            granted = self.one("governor", "decide", day, as_of if self.by_hand else None)
            if granted.state == "skipped":  # it waits for somebody; hours later it does not
                os.environ["TILTYARD_GOVERNOR_WAIT_H"] = "0"
                granted = self.one("governor", "decide", day)
                del os.environ["TILTYARD_GOVERNOR_WAIT_H"]
            for asset, nights in granted.events:
                self.one(f"{asset.partition('/')[0]}__training", "train", nights)

    def attempt(
        self, job: Job, as_of: datetime | None, nights: Sequence[str], handed: Handed, arguments: Sequence[Any]
    ) -> Outcome:
        """One attempt at a task, in a process of its own. What it hands on counts at once, whatever becomes of it; an
        end without a word is a success where the exit code is 0, as it is for Airflow."""
        reading, writing = os.pipe()
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._be(job, as_of, nights, handed, arguments, writing)
        os.close(writing)
        pushed: dict[str, Any] = {}
        outcome: Outcome | None = None
        with os.fdopen(reading, "rb") as pipe, suppress(EOFError, pickle.UnpicklingError):
            while True:
                said = pickle.load(pipe)  # noqa: S301  # from a fork of this process
                if isinstance(said, Outcome):
                    outcome = said
                else:
                    pushed |= said
        _, status = os.waitpid(pid, 0)
        if outcome is None and status == 0:
            outcome = Outcome(job, "success", error="it ended without a word")
        elif outcome is None:
            how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
            outcome = Outcome(job, "failed", error=f"its process ended: {how}")
        outcome.pushed = pushed
        outcome.seconds = time.monotonic() - begun
        return outcome

    def _be(
        self,
        job: Job,
        as_of: datetime | None,
        nights: Sequence[str],
        handed: Handed,
        arguments: Sequence[Any],
        writing: int,
    ) -> None:
        """Be the process of a task, and end."""
        code = 1
        try:
            log = (self.logs / f"{len(self.outcomes):03}-{job.dag_id}.{job.task_id}.{job.attempt}.log").open("w")
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)

            def tell(message: object) -> None:
                os.write(writing, pickle.dumps(message))

            outcome = self._worked(job, as_of, nights, handed, arguments, tell)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(outcome, pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _worked(
        self,
        job: Job,
        as_of: datetime | None,
        nights: Sequence[str],
        handed: Handed,
        arguments: Sequence[Any],
        tell: Callable[[object], None],
    ) -> Outcome:
        from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped
        from airflow.sdk.execution_time.context import OutletEventAccessors, set_current_context
        from airflow.sdk.execution_time.timeout import TimeoutPosix

        by_hand = self.by_hand or job.dag_id.endswith("__training")
        operator = self._dags[job.dag_id].get_task(job.task_id)
        work = getattr(operator, "python_callable", None) or operator.partial_kwargs["python_callable"]
        outcome, events = Outcome(job, "success"), OutletEventAccessors()
        ti = SimpleNamespace(
            dag_id=job.dag_id, run_id="night", task_id=job.task_id, try_number=job.attempt,
            xcom_push=lambda key, value: tell({key: value}),
            xcom_pull=lambda task_ids, key: handed.get((task_ids, key)),
        )  # fmt: skip
        run = SimpleNamespace(
            triggering_user_name="somebody" if as_of and by_hand else None,
            data_interval_end=as_of, logical_date=as_of,
            run_after=as_of,
        )  # fmt: skip
        context: Any = {
            "params": {"as_of": f"{as_of:%Y-%m-%d}" if as_of and by_hand else None, "models": list(self.models)},
            "ti": ti, "dag_run": run, "outlet_events": events,
            "triggering_asset_events": {"asset": [SimpleNamespace(extra={"as_of": list(nights)})]} if nights else {},
        }  # fmt: skip
        limit = getattr(operator, "execution_timeout", None)
        try:
            with set_current_context(context), TimeoutPosix(limit.total_seconds()) if limit else nullcontext():
                for trap in self.traps:
                    trap(job)
                outcome.value = work(*arguments)
                outcome.value = getattr(outcome.value, "xcom_value", outcome.value)
            outcome.events = tuple(_announced(events))
        except DownstreamTasksSkipped as skip:
            outcome.skipped, outcome.events = tuple(skip.tasks), tuple(_announced(events))
        except AirflowSkipException as skip:
            outcome.state, outcome.error = "skipped", str(skip)
        except AirflowFailException as error:
            traceback.print_exc()
            outcome.state, outcome.error, outcome.is_final = "failed", str(error), True
        except BaseException as error:
            traceback.print_exc()
            outcome.state, outcome.error = "failed", f"{type(error).__name__}: {error}"
        return outcome


def _announced(events: Any) -> list[tuple[str, tuple[str, ...]]]:
    told = []
    for accessor in events._dict.values():
        told += [(event.dest_asset_key.name, tuple(event.extra["as_of"])) for event in accessor.asset_alias_events]
        if accessor.extra.get("as_of"):
            told.append((str(accessor.key), tuple(accessor.extra["as_of"])))
    return told


@dataclass
class Run:
    """A run of a DAG: what its tasks hand on to each other."""

    player: Player
    dag_id: str
    as_of: datetime | None = None
    nights: Sequence[str] = ()
    handed: dict[tuple[str, str], Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    def task(self, task_id: str, *arguments: Any) -> Outcome:
        """A task, tried as often as its DAG says."""
        operator = self.player._dags[self.dag_id].get_task(task_id)
        named = arguments[0].get("models") if arguments and isinstance(arguments[0], dict) else None
        about = tuple(named) if isinstance(named, dict) else ()
        for attempt in range(1, (operator.retries or 0) + 2):
            job = Job(self.dag_id, task_id, attempt, about)
            outcome = self.player.attempt(job, self.as_of, self.nights, self.handed, arguments)
            outcome.tried = attempt
            self.handed |= {(task_id, key): value for key, value in outcome.pushed.items()}
            if outcome.state != "failed" or outcome.is_final:
                break
        return self._ended(outcome)

    def passed_over(self, task_id: str, before: Outcome) -> Outcome:
        state: State = "skipped" if before.state == "skipped" else "upstream_failed"
        return self._ended(Outcome(Job(self.dag_id, task_id, 0), state, tried=0))

    def _ended(self, outcome: Outcome) -> Outcome:
        self.outcomes.append(outcome)
        self.player.outcomes.append(outcome)
        return outcome
