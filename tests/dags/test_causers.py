"""Who is behind a run that no user has started: traced through Airflow's own log, in Airflow's own tables."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.models.asset import AssetModel
from airflow.models.log import Log

from tests.conftest import know_project
from tiltyard import postgres
from tiltyard.edge import causers, task_run
from tiltyard.edge.causers import Posted
from tiltyard.rails import Rails
from tiltyard.words import UNKNOWN

AT = datetime(2016, 4, 2, 3, 0, 0, 500_000, tzinfo=UTC)
DAG, RUN = "sla_breach__training", "asset_triggered__2016-04-02"


@pytest.fixture
def airflow(rails: Rails) -> Iterator[sa.Engine]:
    """Airflow's database, with its tables of assets and of what people do."""
    engine = sa.create_engine(postgres.url(rails.settings, "airflow"), poolclass=sa.NullPool)
    for table in (AssetModel.__table__, Log.__table__):
        table.create(engine)
    with engine.begin() as connection:
        for number, name in ((7, "drift"), (8, "finding")):
            row = {"id": number, "name": name, "uri": f"tiltyard://{name}", "group": "asset", "extra": {},
                   "created_at": AT, "updated_at": AT}  # fmt: skip
            connection.execute(sa.insert(AssetModel.__table__).values(row))
    yield engine
    for table in (AssetModel.__table__, Log.__table__):
        table.drop(engine)


def did(engine: sa.Engine, event: str, owner: str, at: datetime, extra: Any = None, **run: str) -> None:
    """What Airflow puts down of a request."""
    text = extra if isinstance(extra, str) else json.dumps(extra)
    with engine.begin() as connection:
        connection.execute(sa.insert(Log.__table__).values(event=event, owner=owner, dttm=at, extra=text, **run))


def posted(name: str = "drift", at: datetime = AT) -> Posted:
    return Posted(name, f"tiltyard://{name}", at)


def test_who_posted_an_event_is_in_the_log(rails: Rails, airflow: sa.Engine) -> None:
    did(airflow, "create_asset_event", "ann", AT - timedelta(milliseconds=40), {"asset_id": 7, "extra": {}})
    did(airflow, "create_asset_event", "bob", AT - timedelta(milliseconds=40), {"asset_id": 8})
    did(airflow, "create_asset_event", "cid", AT - timedelta(hours=1), {"asset_id": 7})
    did(airflow, "cli_task_run", "dan", AT, "no JSON at all")
    assert causers.posters(rails.settings, [posted()]) == ("ann",)
    assert causers.posters(rails.settings, [posted(), posted("finding")]) == ("ann", "bob")
    assert causers.posters(rails.settings, [posted(at=AT + timedelta(hours=9))]) == (UNKNOWN,)
    assert causers.posters(rails.settings, []) == ()


def test_who_had_a_training_done_again_is_in_the_log(rails: Rails, airflow: sa.Engine) -> None:
    did(airflow, "post_clear_task_instances", "ann", AT, dag_id=DAG, run_id=RUN)
    did(airflow, "patch_task_instance", "bob", AT, dag_id=DAG, run_id="another")
    did(airflow, "get_dag", "cid", AT, dag_id=DAG, run_id=RUN)
    did(airflow, "clear_dag_run", "dan", AT, dag_id="other__training", run_id=RUN)
    assert causers.repeaters(rails.settings, DAG, RUN, AT) == ("ann",)
    did(airflow, "post_clear_task_instances", "eve", AT + timedelta(seconds=1), dag_id=DAG)
    did(airflow, "post_clear_task_instances", "fay", AT - timedelta(seconds=1), dag_id=DAG)
    assert causers.repeaters(rails.settings, DAG, RUN, AT) == ("ann", "eve"), "what names no run is about all since"


def test_a_log_that_cannot_be_read_leaves_nobody_known(rails: Rails) -> None:
    assert causers.posters(rails.settings, [posted()]) == (UNKNOWN,)
    assert causers.repeaters(rails.settings, DAG, RUN, AT) == (UNKNOWN,)


def test_whoever_posts_an_event_has_asked_whatever_the_event_says(
    rails: Rails, airflow: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    did(airflow, "create_asset_event", "ann", AT, {"asset_id": 7})
    monkeypatch.setattr(task_run, "Settings", lambda: rails.settings)

    def event(extra: dict[str, Any], task: str | None) -> Any:
        asset = SimpleNamespace(name="drift", uri="tiltyard://drift")
        return SimpleNamespace(asset=asset, extra=extra, source_task_id=task, timestamp=AT)

    def run(*events: Any) -> None:
        dag_run = SimpleNamespace(triggering_user_name=None, start_date=AT)
        ti = SimpleNamespace(dag_id=DAG, run_id=RUN, task_id="train")
        context = {"dag_run": dag_run, "ti": ti, "triggering_asset_events": {"drift": list(events)}}
        monkeypatch.setattr(task_run, "get_current_context", lambda: context)

    run(event({"requested_by": ["bob"], "from_rest_api": True}, None))
    assert task_run.requesters() == ("ann", "bob")
    run(event({"requested_by": ["bob"]}, "govern"))
    assert task_run.requesters() == ("bob",)
    run(event({}, "govern"))
    assert (task_run.requesters(), task_run.trainers(rails.settings)) == (("airflow",), "airflow")
    did(airflow, "post_clear_task_instances", "cid", AT, dag_id=DAG, run_id=RUN)
    assert task_run.trainers(rails.settings) == "cid"
    run(event({}, None), event({"requested_by": ["bob"]}, "govern"))
    assert task_run.trainers(rails.settings) == "ann, bob, cid"


def test_whoever_started_the_run_releases_what_it_puts_in_force(
    rails: Rails, airflow: sa.Engine, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    know_project(rails.settings, postgres_url)
    monkeypatch.setattr(task_run, "Settings", lambda: rails.settings)
    dag_run = SimpleNamespace(triggering_user_name="ann", start_date=AT)
    ti = SimpleNamespace(dag_id="incident__features", run_id="manual", task_id="ingest")
    monkeypatch.setattr(task_run, "get_current_context", lambda: {"dag_run": dag_run, "ti": ti})
    monkeypatch.setattr(task_run, "_at_work", lambda: None)
    did(airflow, "post_clear_task_instances", "bob", AT, dag_id="incident__features", run_id="manual")
    with task_run.accepting():
        pass
    accepted = rails.ledger.release()
    assert accepted is not None
    assert (accepted.released_by, "models/sla_breach" in (accepted.changed or ())) == ("ann, bob", True)
