"""What a person answered, as Airflow recorded it; and the end of questions that nobody has to answer any more.

Any user who may edit task instances can mark a task successful or write its XCom, and a task may ask the execution API
only about itself; the record that the answering endpoint writes (`hitl_detail`) names the logged-in user.
"""

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import JsonValue

from tiltyard.edge import task_run
from tiltyard.edge.task_run import TaskKey
from tiltyard.stages import StageName

if TYPE_CHECKING:
    from tiltyard.rails import Rails


log = logging.getLogger(__name__)

ASKING: tuple[StageName, ...] = ("promotion", "explanation")
"""The stages in whose DAGs people are asked, model by model."""
UNFINISHED = "('scheduled', 'queued', 'deferred', 'awaiting_input', 'up_for_retry', 'up_for_reschedule')"
"""States of Airflow's tasks that wait, in SQL; one that works is left to its end."""


@dataclass(frozen=True, kw_only=True)
class RecordedAnswer:
    """A row of `hitl_detail`."""

    subject: str = ""
    """The question in a line; empty where Airflow has none on record."""
    body: str = ""
    """What stood below it, in Markdown."""
    chosen: tuple[str, ...] = ()
    """The options that were chosen; empty where nobody answered."""
    form: Mapping[str, JsonValue] = field(default_factory=dict)
    """Field of the form → what was put in."""
    responded_at: datetime | None = None
    """When it was answered; None when it was not."""
    responded_by: str | None = None
    """The name of whoever was logged in; None when nobody answered, or the timeout did."""


def to_earlier_attempt(retries: int) -> RecordedAnswer | None:
    """What a person answered to an attempt at this task that Airflow gave up; None where nobody did.

    Airflow takes an answer that comes while the asking attempt still ends for a task that was killed, and tries again;
    so it does when an attempt dies over an answer. Asking again would delete the answer. A task that a person has
    cleared asks anew.
    """
    if not task_run.is_retry(retries):
        return None
    with task_run.working() as rails:
        answer = recorded(rails, task_run.key())
    return answer if answer and answer.responded_by and answer.responded_at else None


def withdraw(rails: "Rails", asked: Collection[tuple[str, str]]) -> list[TaskKey]:
    """End the questions that wait for nobody any more, as skipped, with the rest of their runs: those of models that
    were deleted or renamed, and of approvals that a spec no longer asks for. Returns their tasks.

    `asked`: (dag_id, task_id) of every task that may ask. Airflow has no DAG of the others any more, so that nothing
    of its own wakes or ends them. Where its database cannot be asked, that is logged, and the next night does it.
    """
    import sqlalchemy as sa

    from tiltyard import postgres

    engine = postgres.engine(rails.settings, "airflow")
    waiting = sa.text(
        "select t.dag_id, t.run_id, t.task_id from hitl_detail h join task_instance t on t.id = h.ti_id"
        f" where h.responded_at is null and t.state in {UNFINISHED} order by 1, 2, 3"
    )
    end_task = (
        "update task_instance set state = 'skipped', end_date = now()"
        f" where dag_id = :dag_id and run_id = :run_id and (state is null or state in {UNFINISHED})"
    )
    end_run = sa.text(
        "update dag_run set state = 'success', end_date = now()"
        " where dag_id = :dag_id and run_id = :run_id and state in ('queued', 'running')"
    )
    there, gone = {dag_id for dag_id, _ in asked}, []
    try:
        with engine.begin() as connection:
            for task in [TaskKey._make(row) for row in connection.execute(waiting)]:
                if (task.dag_id, task.task_id) in asked or not _asks(task.dag_id):
                    continue
                gone.append(task)
                if task.dag_id in there:
                    connection.execute(sa.text(f"{end_task} and task_id = :task_id"), task._asdict())
                else:
                    connection.execute(sa.text(end_task), task._asdict())
                    connection.execute(end_run, task._asdict())
    except sa.exc.SQLAlchemyError as error:
        log.warning("Questions that nobody has to answer any more stay for now: %s", error)
        return []
    return gone


def _asks(dag_id: str) -> bool:
    """Whether a DAG is one of ours in which people are asked."""
    return dag_id.rpartition("__")[2] in ASKING and "__" in dag_id


def close(rails: "Rails", task: TaskKey, option: str) -> None:
    """Answer a question whose time is over, in nobody's name: it takes no other answer from then on. One that a person
    has answered keeps that."""
    import sqlalchemy as sa

    from tiltyard import postgres

    engine = postgres.engine(rails.settings, "airflow")
    query = sa.text(
        "update hitl_detail h set chosen_options = cast(:chosen as json), responded_at = now() from task_instance t"
        " where t.id = h.ti_id and t.dag_id = :dag_id and t.run_id = :run_id and t.task_id = :task_id"
        " and t.map_index = -1 and h.responded_at is null"
    )
    with engine.begin() as connection:
        connection.execute(query, {**task._asdict(), "chosen": json.dumps([option])})


def recorded(rails: "Rails", task: TaskKey) -> RecordedAnswer | None:
    """What was asked by a task and answered; None where it has not asked."""
    import sqlalchemy as sa  # seconds, at every parse of a DAG file

    from tiltyard import postgres

    engine = postgres.engine(rails.settings, "airflow")
    query = sa.text(
        "select h.subject, h.body, h.chosen_options, h.params_input, h.responded_at, h.responded_by"
        " from hitl_detail h join task_instance t on t.id = h.ti_id"
        " where t.dag_id = :dag_id and t.run_id = :run_id and t.task_id = :task_id and t.map_index = -1"
    )
    with engine.connect() as connection:
        row = connection.execute(query, task._asdict()).one_or_none()
    if row is None:
        return None
    return RecordedAnswer(
        subject=row.subject or "",
        body=row.body or "",
        chosen=tuple(row.chosen_options or ()),
        form=row.params_input or {},
        responded_at=row.responded_at,
        responded_by=(row.responded_by or {}).get("name"),
    )
