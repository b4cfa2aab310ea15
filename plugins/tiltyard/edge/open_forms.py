"""Which forms wait in Airflow for a person, and where each of them is: asked of its database, without importing it."""

import logging
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from urllib.parse import quote

import sqlalchemy as sa

from tiltyard import postgres
from tiltyard.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenForm:
    """A form that waits."""

    dag_id: str
    """The DAG that asks."""
    subject: str
    """The question in a line."""
    link: str
    """Where it is answered, below Airflow's address."""
    asked_at: datetime | None
    """When it was asked, wall clock."""


def of_dag(dag_id: str) -> str:
    """Where the forms of a DAG are, below Airflow's address."""
    return f"/dags/{dag_id}/required_actions"


def waiting(settings: Settings) -> list[OpenForm]:
    """The forms that wait, the oldest first; none where Airflow's database cannot be asked, which is logged."""
    query = sa.text(
        "select t.dag_id, t.run_id, t.task_id, h.subject, h.created_at"
        " from hitl_detail h join task_instance t on t.id = h.ti_id"
        " where h.responded_at is null and t.state in ('deferred', 'awaiting_input', 'running') and t.map_index = -1"
        " order by h.created_at"
    )
    engine = sa.create_engine(postgres.url(settings, "airflow"), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            rows = connection.execute(query).all()
    except sa.exc.SQLAlchemyError as error:
        log.debug("Airflow's forms are not known: %s", error)
        return []
    return [
        OpenForm(
            dag_id=row.dag_id,
            subject=row.subject or "",
            link=f"/dags/{quote(row.dag_id)}/runs/{quote(row.run_id, safe='')}/tasks/{row.task_id}/required_actions",
            asked_at=row.created_at,
        )
        for row in rows
    ]


class Forms:
    """The forms that wait in Airflow, asked for once and only where somebody wants to know."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _forms(self) -> list[OpenForm]:
        return waiting(self._settings)

    def find(self, dag_id: str, begins: str = "") -> OpenForm | None:
        """The form of a DAG whose question begins so; None where there is none."""
        own = (form for form in self._forms if form.dag_id == dag_id and form.subject.startswith(begins))
        return next(own, None)

    def link(self, dag_id: str, begins: str = "") -> str:
        """Where it is answered; where all of the DAG's are, without one."""
        form = self.find(dag_id, begins)
        return form.link if form else of_dag(dag_id)
