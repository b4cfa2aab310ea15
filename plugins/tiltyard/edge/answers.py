"""What a person answered, as Airflow recorded it.

Any user who may edit task instances can mark a task successful or write its XCom, and a task may ask the execution API
only about itself; the record that the answering endpoint writes (`hitl_detail`) names the logged-in user.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import JsonValue

from tiltyard.edge import task_run
from tiltyard.edge.task_run import TaskKey

if TYPE_CHECKING:
    from tiltyard.rails import Rails


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


def recorded(rails: "Rails", task: TaskKey) -> RecordedAnswer | None:
    """What was asked by a task and answered; None where it has not asked."""
    import sqlalchemy as sa  # seconds, at every parse of a DAG file

    from tiltyard import postgres

    engine = sa.create_engine(postgres.url(rails.settings, "airflow"), poolclass=sa.NullPool)
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
