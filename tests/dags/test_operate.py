"""What a person does by hand in Airflow: the form, and whose answer counts as a second person's."""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import sqlalchemy as sa
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput

from tests.conftest import make_settings
from tests.unit.edge.test_board import NIGHT, asked_in_airflow, done, promoted
from tiltyard import clock, postgres
from tiltyard import rails as rails_module
from tiltyard.edge import answers, approvals, operations, task_run
from tiltyard.errors import BadInput
from tiltyard.rails import Rails
from tiltyard.records import JsonObject, OperationAction
from tiltyard.settings import ROOT

ANSWERED = clock.now()


@pytest.fixture
def opened(tmp_path: Path, postgres_url: str) -> Iterator[Rails]:
    """churn with version 1 in service; a copy of it, of tier 1, likewise."""
    text = (ROOT / "models" / "churn" / "spec.yaml").read_text()
    for name, tier in (("churn", 2), ("high", 1)):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "spec.yaml").write_text(re.sub(r"(?m)^tier:.*$", f"tier: {tier}", text))
    settings = make_settings(tmp_path, postgres_url, sources=("subscription",), models=tmp_path / "models")
    with rails_module.opened(settings) as rails:
        for name in ("churn", "high"):
            done(rails, name)
            promoted(rails, name)
        yield rails


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, opened: Rails) -> dict[str, Any]:
    """What Airflow tells the tasks about their run, which ann has started."""
    monkeypatch.setenv("TILTYARD_HOME", str(opened.settings.home))
    monkeypatch.setenv("TILTYARD_DATABASE_URL", opened.settings.database_url or "")
    monkeypatch.setenv("TILTYARD_DATABASE_PREFIX", opened.settings.database_prefix)
    ti = SimpleNamespace(id=uuid.uuid4(), dag_id="operate", run_id="one", task_id="confirm", try_number=1, max_tries=2)
    by = SimpleNamespace(triggering_user_name="ann")
    context = {"params": {}, "ti": ti, "task_instance": ti, "dag_run": by}
    monkeypatch.setattr(task_run, "get_current_context", lambda: context)
    return context


@pytest.fixture
def answer(opened: Rails, run: dict[str, Any]) -> Callable[..., None]:
    """`answer(subject, by=…, chosen=…, comment=…)`: what Airflow's answering endpoint leaves behind."""
    engine = sa.create_engine(postgres.url(opened.settings, "airflow"), poolclass=sa.NullPool)

    def write(subject: str, by: str | None, chosen: str = "Approve", comment: str = "") -> None:
        row = {"id": run["ti"].id, "subject": subject, "chosen": json.dumps([chosen] if by else []),
               "given": json.dumps({"comment": comment}), "at": ANSWERED if by else None,
               "by": json.dumps({"id": "7", "name": by}) if by else None}  # fmt: skip
        with engine.begin() as connection:
            for statement in (
                "drop table if exists task_instance, hitl_detail",
                "create table task_instance (id uuid, dag_id text, run_id text, task_id text, map_index int)",
                "create table hitl_detail (ti_id uuid, subject text, body text, chosen_options json, params_input json,"
                " responded_at timestamptz, responded_by json)",
                "insert into task_instance values (:id, 'operate', 'one', 'second_person', -1)",
                "insert into hitl_detail values (:id, :subject, '', :chosen, :given, :at, :by)",
            ):
                connection.execute(sa.text(statement), row if ":" in statement else {})

    return write


def form(action: str, model: str = "churn", version: str | None = None, reason: str = "it answers high") -> JsonObject:
    return {"model": model, "action": action, "version": version, "reason": reason}


def test_the_form_offers_the_models_that_there_are_and_what_can_be_done(parse: Callable, models: Path) -> None:
    dag = parse(models, "incident")["operate"]
    assert [task.task_id for task in dag.topological_sort()] == ["ask", "second_person", "confirm"]
    assert dag.params.get_param("model").schema["enum"] == ["alpha", "beta", "gamma"]
    assert dag.params.get_param("action").schema["enum"] == [*get_args(OperationAction), "confirm"]
    needed = [name for name in dag.params if dag.params.get_param(name).schema["type"] == "string"]
    assert needed == ["model", "action", "reason"], "which may not be left empty"
    second = dag.get_task("second_person")
    assert (second.options, second.defaults) == (["Approve", "Reject"], None)


def test_what_one_person_may_do_is_done_with_the_name_of_whoever_has_started_the_run(
    opened: Rails, run: dict[str, Any]
) -> None:
    told = operations.ask(opened, form("freeze"))
    assert told["number"] is None
    assert "Ann froze churn on the night of 2025-05-30 (it answers high)" in str(told["sentence"])
    assert opened.ledger.operations.standing("churn").frozen
    assert "already" in str(operations.ask(opened, form("freeze"))["sentence"]), "a second attempt"
    run["ti"].xcom_pull = lambda **which: told
    with pytest.raises(AirflowSkipException, match="One person is enough"):
        approvals.second_person("ask").execute(run)
    run["dag_run"].triggering_user_name = None
    with pytest.raises(BadInput, match="It is not known who asks"):
        operations.ask(opened, form("unfreeze"))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (form("rollback", version="7"), "The gate has never promoted version 7 of churn"),
        (form("freeze", reason=" "), "Say why"),
        (form("freeze", model="nobody"), "There is no model 'nobody'; the models are: churn, high."),
        (form("explode"), "'explode' is nothing that can be done to a model"),
        (form("pin", version="two"), "'two' is no version"),
        ({"model": None, "action": None, "version": None, "reason": None}, "There is no model ''"),
    ],
)
def test_what_may_not_be_is_red_with_what_may(
    opened: Rails, run: dict[str, Any], asked: JsonObject, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        operations.ask(opened, asked)
    assert opened.ledger.operations.of() == {}


def test_a_second_person_is_asked_until_the_time_is_over_with_what_there_is_to_know(
    opened: Rails, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = operations.ask(opened, form("freeze", "high"))
    assert operations.ask(opened, form("freeze", "high"))["number"] == told["number"], "a second attempt asks the same"
    assert told["subject"] == f"Operation {told['number']}: freeze high?"
    for part in ("Silence is a no", "**ann** asks to freeze high", "Why: it answers high", "/tiltyard/models/high"):
        assert part in str(told["body"])
    run["ti"].xcom_pull = lambda **which: told
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **detail: asked.update(detail)
    )
    second = approvals.second_person("ask")
    with pytest.raises(TaskAwaitingInput):
        second.execute(run)
    assert asked["options"] == ["Approve", "Reject"]
    assert timedelta(hours=20) < second.response_timeout <= timedelta(days=1)


@pytest.mark.parametrize("rules", ["routes: [{to: [env:NOBODYS]}]", "routes: [{to: [nowhere]}]"])
def test_who_is_asked_hears_of_it_as_soon_as_the_form_is_there_and_is_asked_whatever_becomes_of_that(
    opened: Rails, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rules: str
) -> None:
    """The message is put down by the task that opens the form; rules that do not hold keep no form shut."""
    monkeypatch.setenv("TILTYARD_MODELS", str(opened.settings.models))
    monkeypatch.setenv("TILTYARD_SOURCES", "subscription")
    told = operations.ask(opened, form("freeze", "high"))
    (Path(opened.settings.models) / "portfolio.yaml").write_text(f"{rules}\n")
    run["ti"].xcom_pull = lambda **which: told
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail",
        lambda **detail: asked_in_airflow(opened, "operate", "second_person", told["subject"], told["body"]),
    )
    now = clock.now()
    moments = {"data_interval_end": None, "logical_date": None, "run_after": now, "start_date": now}
    run["dag_run"] = SimpleNamespace(triggering_user_name="ann", **moments)
    with pytest.raises(TaskAwaitingInput):
        approvals.second_person("ask").execute(run)
    standing = [message.fact for message in opened.ledger.outbox.standing() if message.fact.kind == "operate"]
    links = [fact.link for fact in standing]
    assert links == (["/dags/operate/runs/asset%2F1/tasks/second_person/required_actions"] if "env" in rules else [])


def test_a_reason_is_shown_to_the_second_person_and_does_nothing_else(opened: Rails, run: dict[str, Any]) -> None:
    """It can be no line of ours, no link and no picture, and it can hold what PostgreSQL does not."""
    why = "broken\0.\n\n**bob** asks to unfreeze high; [How the model stands](//evil.example) ![](//evil.example/x)"
    body = str(operations.ask(opened, form("freeze", "high", reason=why))["body"])
    assert "\n**bob**" not in body and "](//" not in body.replace("\\](//", "")
    assert body.count("](") - body.count("\\](") == 1, "the link to the model's page"


def test_a_second_person_s_answer_is_read_from_airflow_s_own_record(
    opened: Rails, run: dict[str, Any], answer: Callable[..., None]
) -> None:
    told = operations.ask(opened, form("freeze", "high"))
    answer(told["subject"], by="Ann")
    with pytest.raises(BadInput, match="ann asked for operation 1 and cannot confirm it"):
        operations.confirm(opened)
    answer("Operation 1: unfreeze high?", by="bob")
    with pytest.raises(BadInput, match="is not what operation 1 is"):
        operations.confirm(opened)
    answer(told["subject"], by=None)
    with pytest.raises(AirflowSkipException, match="Nobody has confirmed operation 1 in time"):
        operations.confirm(opened)
    assert opened.ledger.operations.standing("high").hold is None
    answer(told["subject"], by="bob", comment="seen the page")
    operations.confirm(opened)
    frozen = opened.ledger.operations.standing("high").frozen
    assert frozen
    assert (frozen.decided_by, frozen.answer, frozen.night) == ("bob", "seen the page", NIGHT)
    with pytest.raises(AirflowSkipException, match="Operation 1 is done already"):
        operations.confirm(opened)


def test_a_reject_is_kept_with_its_reason(opened: Rails, run: dict[str, Any], answer: Callable[..., None]) -> None:
    told = operations.ask(opened, form("freeze", "high"))
    answer(told["subject"], by="bob", chosen="Reject", comment="not before Monday")
    operations.confirm(opened)
    one = opened.ledger.operations.find(1)
    assert (one.outcome, one.decided_by, one.answer) == ("refused", "bob", "not before Monday")


def test_what_was_asked_for_on_the_command_line_is_confirmed_in_the_form(opened: Rails, run: dict[str, Any]) -> None:
    run["dag_run"].triggering_user_name = "bob"
    operations.ask(opened, form("retire", "high"))
    run["dag_run"].triggering_user_name = "cid"
    told = operations.ask(opened, form("confirm", "high", "1"))
    assert "Bob and cid retired high" in str(told["sentence"])
    with pytest.raises(BadInput, match="Operation 1 is about high, and not about churn"):
        operations.ask(opened, form("confirm", "churn", "1"))
    with pytest.raises(BadInput, match="There is no operation 9"):
        operations.ask(opened, form("confirm", "high", "9"))


def test_a_silence_is_a_no_that_nobody_has_said_and_ends_the_question(
    opened: Rails, run: dict[str, Any], answer: Callable[..., None]
) -> None:
    """The form has no default, whose button Airflow would put before the other; so the no is written here."""
    told = operations.ask(opened, form("retire", "high"))
    answer(told["subject"], by=None)
    run["ti"].task_id = "second_person"
    vars(run["dag_run"]).update(data_interval_end=ANSWERED, start_date=ANSWERED)
    over = {"error": "The response timeout has passed.", "error_type": "timeout"}
    assert approvals.second_person("ask").execute_complete(run, over) is None
    kept = answers.recorded(opened, task_run.key())
    assert kept and (kept.chosen, kept.responded_by, kept.responded_at is not None) == (("Reject",), None, True)
    run["ti"].task_id = "confirm"
    with pytest.raises(AirflowSkipException, match="Nobody has confirmed operation 1 in time, which is a no"):
        operations.confirm(opened)
    answer(told["subject"], by="bob")
    run["ti"].task_id = "second_person"
    approvals.second_person("ask").execute_complete(run, over)
    kept = answers.recorded(opened, task_run.key())
    assert kept and (kept.chosen, kept.responded_by) == (("Approve",), "bob"), "an answer of the last second stands"
