"""Which forms wait in Airflow for a person, where each of them is and what it says: asked of its database, without
importing it."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from urllib.parse import quote

import sqlalchemy as sa

from tiltyard import clock, postgres
from tiltyard.edge import logins
from tiltyard.settings import Settings

log = logging.getLogger(__name__)

LATELY = timedelta(days=7)
"""How far back forms are known that were answered."""
OPENING = timedelta(minutes=30)
"""How long it may take until a form is there before somebody is told that it is not."""


@dataclass(frozen=True)
class OpenForm:
    """A form that waits, or was answered."""

    dag_id: str
    """The DAG that asks."""
    run: str
    """The run that asks, below Airflow's address."""
    subject: str
    """The question in a line."""
    link: str
    """Where it is answered, below Airflow's address."""
    asked_at: datetime | None
    """When it was asked, wall clock."""
    until: datetime | None = None
    """When it closes, as it says itself; None where it does not say."""
    who: str = ""
    """Who may answer, as it says itself, in sentences; empty where it does not say."""
    is_answered: bool = False
    """Whether somebody has answered it, or its time was over."""


def of_dag(dag_id: str) -> str:
    """Where the forms of a DAG are, below Airflow's address."""
    return f"/dags/{dag_id}/required_actions"


def waiting(settings: Settings) -> list[OpenForm]:
    """The forms that wait, the oldest first; none where Airflow's database cannot be asked, which is logged."""
    return [form for form in known(settings) if not form.is_answered]


def known(settings: Settings) -> list[OpenForm]:
    """The forms that wait, and those that were answered lately, the oldest first; none where Airflow's database cannot
    be asked, which is logged."""
    query = sa.text(
        "select t.dag_id, t.run_id, t.task_id, h.subject, h.body, h.created_at, h.responded_at"
        " from hitl_detail h join task_instance t on t.id = h.ti_id"
        " where t.map_index = -1 and (h.responded_at >= :lately"
        " or h.responded_at is null and t.state in ('deferred', 'awaiting_input', 'running'))"
        " order by h.created_at"
    )
    engine = postgres.engine(settings, "airflow")
    try:
        with engine.connect() as connection:
            rows = connection.execute(query, {"lately": clock.now() - LATELY}).all()
    except sa.exc.SQLAlchemyError as error:
        log.debug("Airflow's forms are not known: %s", error)
        return []
    return [
        OpenForm(
            dag_id=row.dag_id,
            subject=row.subject or "",
            run=(run := f"/dags/{quote(row.dag_id)}/runs/{quote(row.run_id, safe='')}"),
            link=f"{run}/tasks/{row.task_id}/required_actions",
            asked_at=row.created_at,
            until=logins.closes(row.body or ""),
            who=logins.answering(row.body or ""),
            is_answered=row.responded_at is not None,
        )
        for row in rows
    ]


class Forms:
    """The forms that wait in Airflow, asked for once and only where somebody wants to know."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _forms(self) -> list[OpenForm]:
        return known(self._settings)

    def find(self, dag_id: str, begins: str = "") -> OpenForm | None:
        """The form of a DAG that waits, whose question begins so; None where there is none."""
        return next((form for form in self.of(dag_id, begins) if not form.is_answered), None)

    def of(self, dag_id: str, begins: str) -> list[OpenForm]:
        """The forms of a DAG whose question begins so, answered ones too, the oldest first."""
        return [form for form in self._forms if form.dag_id == dag_id and form.subject.startswith(begins)]

    def link(self, dag_id: str, begins: str = "") -> str:
        """Where it is answered; where all of the DAG's are, without one."""
        form = self.find(dag_id, begins)
        return form.link if form else of_dag(dag_id)
