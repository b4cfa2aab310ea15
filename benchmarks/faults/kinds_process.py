"""Faults of processes: killed, hanging, out of memory, with a clock that is wrong."""

import ctypes
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from faults.business import model, readers, view
from faults.kind import Kind, Place, add, all_of
from faults.player import Job, Trap

NOBODY: frozenset[str] = frozenset()
SOURCE = "grove"
ONE = model(SOURCE, "money")
FEATURES = {
    "ingest": "prepare.ingest.land_night",
    "transform": "prepare.transform.build",
    "checks": "prepare.checks.check_batch",
    "publish": "prepare.features.publish",
}
"""Task of the features → the function that it comes to."""
STAGES = {
    "shadow": "judge.scoring.score_night",
    "promotion": "judge.promotion.judge",
    "drift": "govern.drift.measure_night",
}
"""Stage → the function that it comes to for a model."""


def at(
    where: str, act: Callable[[], None], *, dag: str, task: str | None = None, of: str | None = None, once: bool = False
) -> Trap:
    """Something happens whenever a task of a DAG comes to a function; where it is about a model, for that one alone."""

    def trap(job: Job) -> None:
        if job.dag_id != dag or task not in (None, job.task_id) or (once and job.attempt > 1):
            return
        module_name, _, name = f"tiltyard.{where}".rpartition(".")
        module = importlib.import_module(module_name)
        usual = getattr(module, name)

        def trapped(*arguments: Any, **named: Any) -> Any:
            if of is None or any(getattr(argument, "name", None) == of for argument in arguments):
                act()
            return usual(*arguments, **named)

        setattr(module, name, trapped)

    return trap


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_soon() -> None:
    threading.Timer(1.0, kill).start()


def crash() -> None:
    """Read where there is no memory: a signal that is sent would be caught by a library that listens for it."""
    ctypes.string_at(0)


def hang() -> None:
    time.sleep(3_600)


def leave() -> None:
    os._exit(0)


def foresee_nothing() -> None:
    raise ZeroDivisionError("nobody foresaw it")


def eat() -> None:
    """Take memory until there is no more: the process may have 300 MB more than it has."""
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, used + 300_000_000))
    held = []
    while True:
        held.append(bytearray(10_000_000))


def untouched(place: Place) -> None:
    """Nothing is put into the home: the fault is in the process."""


def process(
    name: str,
    what: str,
    trap: Trap,
    downstream: frozenset[str],
    *,
    sources: tuple[str, ...] = (),
    late: bool = False,
    unseen: str = "",
    **environment: str,
) -> None:
    add(
        Kind(
            name,
            "process",
            what,
            downstream,
            untouched,
            sources=sources,
            traps=(trap,),
            environment={f"TILTYARD_{key.upper()}": value for key, value in environment.items()},
            late=late,
            unseen=unseen,
        )
    )


for _task, _where in FEATURES.items():
    process(
        f"killed_{_task}_once",
        f"A source's {_task} is killed on its first attempt.",
        at(_where, kill, dag=f"{SOURCE}__features", once=True),
        NOBODY,
    )
    process(
        f"killed_{_task}",
        f"A source's {_task} is killed on every attempt.",
        at(_where, kill, dag=f"{SOURCE}__features"),
        all_of(SOURCE),
        sources=(SOURCE,),
    )
process(
    "killed_dbt_halfway",
    "dbt is killed in the middle of its work, on every attempt.",
    at(FEATURES["transform"], kill_soon, dag=f"{SOURCE}__features"),
    all_of(SOURCE),
    sources=(SOURCE,),
)
for _task in ("ingest", "checks", "publish"):
    process(
        f"hangs_{_task}",
        f"A source's {_task} hangs, on every attempt.",
        at(FEATURES[_task], hang, dag=f"{SOURCE}__features"),
        all_of(SOURCE),
        sources=(SOURCE,),
        source_timeout_s="6",
    )
for _stage, _where in STAGES.items():
    process(
        f"killed_{_stage}_once",
        f"A chunk is killed in the middle of {_stage}, at one of its models, and only the first time.",
        at(_where, kill, dag=_stage, of=ONE, once=True),
        NOBODY,
        late=True,
    )
    process(
        f"killed_{_stage}",
        f"Whatever process does {_stage} of a model is killed.",
        at(_where, kill, dag=_stage, of=ONE),
        frozenset({ONE}),
        late=True,
    )
    process(
        f"raises_{_stage}",
        f"{_stage} of a model raises what nobody foresaw.",
        at(_where, foresee_nothing, dag=_stage, of=ONE),
        frozenset({ONE}),
        late=True,
    )
    process(
        f"hangs_{_stage}",
        f"{_stage} of a model hangs.",
        at(_where, hang, dag=_stage, of=ONE),
        frozenset({ONE}),
        late=True,
        stage_limits=f"{_stage}=20s",
    )
process(
    "crashes_shadow",
    "A library crashes the process that scores a model.",
    at(STAGES["shadow"], crash, dag="shadow", of=ONE),
    frozenset({ONE}),
    late=True,
)
process(
    "leaves_shadow",
    "The process that scores a model ends without a word, and says that it went well.",
    at(STAGES["shadow"], leave, dag="shadow", of=ONE),
    frozenset({ONE}),
    late=True,
)
process(
    "memory_shadow",
    "A model needs more memory than there is when it is scored.",
    at(STAGES["shadow"], eat, dag="shadow", of=ONE),
    frozenset({ONE}),
    late=True,
)
process(
    "killed_plan",
    "The task that plans shadow is killed before it has planned anything, on every attempt.",
    at("edge.due.lot", kill, dag="shadow", task="plan"),
    NOBODY,
    late=True,
)
process(
    "killed_governor_once",
    "The governor is killed on its first attempt.",
    at("govern.grants.govern_night", kill, dag="governor", once=True),
    NOBODY,
    late=True,
)
process(
    "killed_audit_once",
    "The audit of fallbacks is killed on its first attempt, in the middle.",
    at("answered.fallback_audit.audit_night", kill, dag="fallback_audit", of=ONE, once=True),
    NOBODY,
    late=True,
)


process(
    "raises_audit",
    "The audit of a model's fallbacks raises what nobody foresaw.",
    at("answered.fallback_audit.audit_night", foresee_nothing, dag="fallback_audit", of=ONE),
    frozenset({ONE}),
    late=True,
)


def _clock(days: int) -> Trap:
    def trap(job: Job) -> None:
        if job.dag_id == f"{SOURCE}__features" and job.task_id == "ingest":
            clock = importlib.import_module("tiltyard.clock")
            now = clock.now
            clock.now = lambda: now() + timedelta(days=days)

    return trap


process(
    "clock_behind",
    "The machine that ingests a source has a clock that is two years behind.",
    _clock(-730),
    all_of(SOURCE),
    sources=(SOURCE,),
    unseen="what is loaded is stamped after what went before, whatever the clock says; the task's log tells it",
)
process(
    "clock_ahead",
    "The machine that ingests a source has a clock that is two years ahead.",
    _clock(730),
    all_of(SOURCE),
    sources=(SOURCE,),
)


def _slow(place: Place) -> None:
    place.change(
        place.sql(f"features/{view(SOURCE, 'payments')}.sql"),
        lambda sql: (
            sql.rstrip() + " where (select count(*) from range(30000000000) as a(i) where hash(i) % 7 = 1) > 0\n"
        ),
    )


add(
    Kind(
        "hangs_query",
        "process",
        "The query of a feature view does not end.",
        readers(SOURCE, "payments"),
        _slow,
        sources=(SOURCE,),
        environment={"TILTYARD_BUILD_TIMEOUT_S": "45"},
    )
)


# -- trainings, and pages that are drawn ------------------------------------------------------------------------------

TRAINED = model(SOURCE, "plain")


def training(name: str, what: str, act: Callable[[], None], **environment: str) -> None:
    add(
        Kind(
            name,
            "process",
            what,
            frozenset({TRAINED}),
            untouched,
            traps=(at("train.candidate.make", act, dag=f"{TRAINED}__training"),),
            environment={f"TILTYARD_{key.upper()}": value for key, value in environment.items()},
            trains=TRAINED,
            late=True,
            lasting="that it was trained, and how that ended, stays recorded",
        )
    )


training("killed_training", "A training is killed, for memory say, on every attempt.", kill)
training("raises_training", "A training raises what nobody foresaw.", foresee_nothing)
training("memory_training", "A training needs more memory than there is.", eat)
training("hangs_training", "A training hangs.", hang, stage_limits="training=5s")


def _no_evidently(place: Place) -> None:
    place.write(place.at.home / "shim" / "evidently" / "__init__.py", "raise RuntimeError('it cannot draw this')\n")


def _suite_fails(place: Place) -> None:
    why = "expectations:\n  - type: expect_table_row_count_to_be_between\n    kwargs: {min_value: 1000000000}\n"
    place.write(
        place.suite(view(SOURCE, "payments")), why + "    severity: warning\n    meta: {why: A page is drawn.}\n"
    )


add(
    Kind(
        "evidently_raises",
        "process",
        "Evidently cannot draw the drift page that somebody opens.",
        NOBODY,
        _no_evidently,
        environment={"PYTHONPATH": "{home}/shim"},
        opens=f"drift/{ONE}/{{night}}.html",
    )
)
add(
    Kind(
        "expectations_raise",
        "process",
        "The page of a night whose checks fail cannot be drawn.",
        NOBODY,
        _suite_fails,
        traps=(at("suites.page.failure", foresee_nothing, dag=f"{SOURCE}__features"),),
    )
)
