"""Questions of models that are gone: the next night ends them in Airflow's own tables, and no other."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance

from tests.conftest import make_settings
from tiltyard import postgres
from tiltyard import rails as rails_module
from tiltyard.edge import work
from tiltyard.rails import Rails
from tiltyard.settings import ROOT
from tiltyard.spec import load

COLUMNS = {
    DagRun: {"dag_id": "text", "run_id": "text", "state": "text", "end_date": "timestamptz"},
    TaskInstance: {
        "id": "uuid", "dag_id": "text", "run_id": "text", "task_id": "text", "state": "text", "end_date": "timestamptz",
    },
    HITLDetail: {"ti_id": "uuid", "responded_at": "timestamptz"},
}  # fmt: skip
"""What is read and written of Airflow's tables."""


@pytest.fixture
def rails(tmp_path: Path, postgres_url: str) -> Iterator[Rails]:
    """A portfolio of two models, `asked` of tier 1, and Airflow's tables in its database."""
    text = (ROOT / "models" / "sla_breach" / "spec.yaml").read_text(encoding="utf-8")
    for name, tier in (("asked", 1), ("other", 2)):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text(text.replace("tier: 2", f"tier: {tier}"), encoding="utf-8")
    assert load(tmp_path / "models" / "asked").tier == 1
    settings = make_settings(tmp_path, postgres_url, models=tmp_path / "models", sources=("incident",))
    with rails_module.opened(settings) as opened:
        with airflow(opened) as connection:
            for model, columns in COLUMNS.items():
                assert set(columns) <= set(model.__table__.columns.keys())
                parts = ", ".join(f"{name} {kind}" for name, kind in columns.items())
                connection.execute(sa.text(f"create table {model.__tablename__} ({parts})"))
        yield opened


def airflow(rails: Rails) -> Any:
    return sa.create_engine(postgres.url(rails.settings, "airflow"), poolclass=sa.NullPool).begin()


def ask(rails: Rails, dag_id: str, task_id: str, state: str = "awaiting_input", answered: bool = False) -> None:
    """A run that asks in one task, and has another one after it."""
    values = {"dag": dag_id, "run": f"{dag_id} {task_id}", "task": task_id, "state": state, "id": uuid.uuid4()}
    with airflow(rails) as connection:
        for statement in (
            "insert into dag_run (dag_id, run_id, state) values (:dag, :run, 'running')",
            "insert into task_instance (id, dag_id, run_id, task_id, state) values (:id, :dag, :run, :task, :state)",
            "insert into task_instance (id, dag_id, run_id, task_id) values (gen_random_uuid(), :dag, :run, 'then')",
            f"insert into hitl_detail values (:id, {'now()' if answered else 'null'})",
        ):
            connection.execute(sa.text(statement), values)


def states(rails: Rails) -> dict[str, tuple[str, str | None, str | None]]:
    """Run → (its state, that of the task which asks, that of the next one)."""
    query = sa.text(
        "select r.run_id, r.state, a.state, b.state from dag_run r join task_instance a using (dag_id, run_id)"
        " join task_instance b using (dag_id, run_id) where a.task_id <> 'then' and b.task_id = 'then'"
    )
    with airflow(rails) as connection:
        return {run: (state, asks, then) for run, state, asks, then in connection.execute(query)}


WAITS, ENDED = ("running", "awaiting_input", None), ("success", "skipped", "skipped")


def test_questions_of_models_that_are_gone_end_and_no_other_does(rails: Rails) -> None:
    ask(rails, "asked__promotion", "approval")
    ask(rails, "asked__explanation", "explain")
    ask(rails, "other__explanation", "explain")
    ask(rails, "deleted__promotion", "approval")
    ask(rails, "deleted__explanation", "explain")
    ask(rails, "other__promotion", "approval")  # it was of tier 1
    ask(rails, "asked__promotion", "second_approval")  # it asked for two
    ask(rails, "somebody__else", "approval")
    ask(rails, "gone__promotion", "approval", answered=True)
    ask(rails, "gone__explanation", "explain", state="running")
    work.withdraw_questions(rails)
    assert states(rails) == {
        "asked__promotion approval": WAITS,
        "asked__explanation explain": WAITS,
        "other__explanation explain": WAITS,
        "deleted__promotion approval": ENDED,
        "deleted__explanation explain": ENDED,
        "other__promotion approval": ENDED,
        "asked__promotion second_approval": ("running", "skipped", None),
        "somebody__else approval": WAITS,
        "gone__promotion approval": WAITS,
        "gone__explanation explain": ("running", "running", None),
    }
    before = states(rails)
    work.withdraw_questions(rails)
    assert states(rails) == before, "twice is once"


def test_where_airflow_has_no_tables_the_night_goes_on(rails: Rails) -> None:
    with airflow(rails) as connection:
        connection.execute(sa.text("drop table hitl_detail"))
    work.withdraw_questions(rails)
