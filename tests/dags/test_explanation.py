"""The question about a safe default in Airflow's terms: when it waits, when it goes away, what counts as an answer.

And of every question: which answer counts when an attempt at asking it was given up.
"""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.models.hitl import HITLDetail
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput
from airflow.sdk.execution_time.context import OutletEventAccessors

from tests.conftest import make_settings
from tiltyard import clock, postgres
from tiltyard import rails as rails_module
from tiltyard.answered import fallback_audit
from tiltyard.edge import answers, approvals, explanations, task_run, work
from tiltyard.edge.assets import unexplained_assets
from tiltyard.rails import Rails
from tiltyard.records import DefaultTask, FallbackAuditSummary, ShadowSummary
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, load

SINCE, OPENED, NEWEST = date(2016, 4, 1), date(2016, 4, 3), date(2016, 4, 4)
ANSWERED = datetime(2016, 4, 5, 8, tzinfo=UTC)
GOOD = {"cause": "its files were refused", "owner": "ann", "until": "2016-04-20"}
KEYS = ("subject", "chosen_options", "params_input", "responded_at", "responded_by")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Rails]:
    """One home for all tests; each has a model of its own in it."""
    with rails_module.opened(make_settings(tmp_path_factory.mktemp("asked"), postgres_url)) as rails:
        yield rails


@pytest.fixture
def spec() -> Spec:
    return load(ROOT / "models" / "sla_breach").model_copy(update={"name": f"model_{uuid.uuid4().hex[:8]}"})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, opened: Rails, spec: Spec) -> dict[str, Any]:
    """What Airflow tells the task about its run, which works in the tests' home."""
    monkeypatch.setenv("TILTYARD_HOME", str(opened.settings.home))
    monkeypatch.setenv("TILTYARD_DATABASE_URL", opened.settings.database_url or "")
    monkeypatch.setenv("TILTYARD_DATABASE_PREFIX", opened.settings.database_prefix)
    ti = SimpleNamespace(id=uuid.uuid4(), dag_id=f"{spec.name}__explanation", run_id="one", task_id="explain")
    ti.try_number, ti.max_tries = 1, 2
    by_nobody = SimpleNamespace(
        triggering_user_name=None, run_type="asset_triggered", data_interval_end=None, logical_date=None,
        run_after=clock.now(), start_date=None,
    )  # fmt: skip
    context = {"params": {}, "ti": ti, "task_instance": ti, "dag_run": by_nobody}
    context["outlet_events"] = OutletEventAccessors()
    monkeypatch.setattr(task_run, "get_current_context", lambda: context)
    return context


@pytest.fixture
def waiting(opened: Rails, spec: Spec) -> Rails:
    """A task that was opened on one night and is asked on the next."""
    facts = {"nights": 3, "share": 0.9, "reasons": {"champion_not_loaded": 1.0}, "never_promoted": False}
    opened.ledger.open_default_task(DefaultTask(model=spec.name, opened=OPENED, since=SINCE, repeats=None, facts=facts))
    opened.ledger.record_stage(spec.name, NEWEST, "done", FallbackAuditSummary())
    return opened


@pytest.fixture
def record(waiting: Rails, run: dict[str, Any], spec: Spec) -> Any:
    """`record(cause=…, by=…)`: what Airflow's answering endpoint leaves behind, in the columns that its model has."""
    assert set(KEYS) <= set(HITLDetail.__table__.columns.keys())
    engine = sa.create_engine(postgres.url(waiting.settings, "airflow"), poolclass=sa.NullPool)
    ti = run["ti"]

    def write(given: dict[str, Any], by: str | None = "bob", model: str = spec.name) -> None:
        row = {
            "id": ti.id,
            "dag_id": ti.dag_id,
            "run_id": ti.run_id,
            "task_id": ti.task_id,
            "subject": fallback_audit.subject(model, SINCE, OPENED),
            "given": json.dumps(given),
            "at": ANSWERED if by else None,
            "by": json.dumps({"id": "7", "name": by}) if by else None,
        }
        with engine.begin() as connection:
            connection.execute(sa.text("drop table if exists task_instance, hitl_detail"))
            connection.execute(
                sa.text("create table task_instance (id uuid, dag_id text, run_id text, task_id text, map_index int)")
            )
            connection.execute(
                sa.text(
                    "create table hitl_detail (ti_id uuid, subject text, body text, chosen_options json,"
                    " params_input json, responded_at timestamptz, responded_by json)"
                )
            )
            connection.execute(
                sa.text("insert into task_instance values (:id, :dag_id, :run_id, :task_id, -1)"),
                {key: row[key] for key in ("id", "dag_id", "run_id", "task_id")},
            )
            connection.execute(
                sa.text("""insert into hitl_detail values (:id, :subject, '', '["Explain"]', :given, :at, :by)"""),
                {key: row[key] for key in ("id", "subject", "given", "at", "by")},
            )

    return write


def announced(run: dict[str, Any]) -> list[str]:
    return [one.dest_asset_key.name for one in run["outlet_events"][unexplained_assets()].asset_alias_events]


def complete(spec: Spec, run: dict[str, Any], **event: Any) -> Any:
    """What the event carries beside an error does not matter: Airflow's record of the answer does."""
    forged = {"chosen_options": ["Explain"], "params_input": GOOD, "responded_by_user": {"id": "1", "name": "mallory"}}
    return explanations.explanation(spec).execute_complete(run, forged | event)


def test_where_nothing_is_open_nobody_is_asked(opened: Rails, spec: Spec, run: dict[str, Any]) -> None:
    with pytest.raises(AirflowSkipException, match="no task is open"):
        explanations.explanation(spec).execute(run)


def test_a_person_is_asked_without_a_default(
    waiting: Rails, spec: Spec, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(hitl, "upsert_hitl_detail", asked.update)  # the supervisor would write it down
    with pytest.raises(TaskAwaitingInput) as parked:
        explanations.explanation(spec).execute(run)
    assert parked.value.timeout == explanations.LOOK_AGAIN
    assert asked["subject"] == fallback_audit.subject(spec.name, SINCE, OPENED)
    assert "champion_not_loaded 100%" in asked["body"]
    assert (asked["options"], asked["defaults"]) == (["Explain"], None)
    assert {"cause", "owner", "until"} <= set(asked["params"])


def test_silence_waits_on_while_it_is_asked(waiting: Rails, spec: Spec, run: dict[str, Any]) -> None:
    with pytest.raises(TaskAwaitingInput):
        complete(spec, run, error="The response timeout has passed.", error_type="timeout")
    assert fallback_audit.open_task(waiting, spec.name)
    waiting.ledger.recover_default_task(spec.name, OPENED, NEWEST)
    with pytest.raises(AirflowSkipException):
        complete(spec, run, error="The response timeout has passed.", error_type="timeout")


def test_an_answer_is_kept_with_the_name_that_airflow_recorded(
    waiting: Rails, spec: Spec, run: dict[str, Any], record: Any
) -> None:
    record(GOOD)
    complete(spec, run)
    [row] = waiting.ledger.default_tasks(spec.name)
    answered = row.explanation
    assert {key: str(getattr(answered, key)) for key in GOOD} == GOOD
    assert (answered.answered_by, answered.source, answered.answered_at) == ("bob", "airflow", ANSWERED)
    assert announced(run) == []


def test_an_answer_that_an_attempt_died_over_is_kept_by_the_next_one(
    waiting: Rails, spec: Spec, run: dict[str, Any], record: Any
) -> None:
    """As when it comes while the asking attempt still ends: Airflow takes that one for killed."""
    record(GOOD)
    run["ti"].try_number = 2
    form = explanations.explanation(spec)
    form.retries = 2
    form.execute(run)
    [row] = waiting.ledger.default_tasks(spec.name)
    assert row.explanation
    assert (row.explanation.answered_by, row.explanation.answered_at) == ("bob", ANSWERED)


def test_an_approval_that_an_attempt_died_over_is_not_asked_for_again(
    waiting: Rails, spec: Spec, run: dict[str, Any], record: Any
) -> None:
    """The promoting task reads it in Airflow's record, which asking again would empty."""
    record({})
    run["ti"].try_number = 2
    run["ti"].xcom_pull = lambda **which: {"proposal": {"subject": "Promote?", "body": ""}}
    [asking] = approvals.approvals(spec.model_copy(update={"tier": 1}), "judge")[:1]
    asking.retries = 2
    assert asking.execute(run) is None
    answer = answers.recorded(waiting, task_run.key())
    assert answer
    assert answer.responded_by == "bob"


def test_who_clears_a_question_that_was_answered_is_asked_anew(
    waiting: Rails, spec: Spec, run: dict[str, Any], record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **asked: None)  # the supervisor would write it down
    record(GOOD)
    run["ti"].try_number, run["ti"].max_tries = 2, 3
    form = explanations.explanation(spec)
    form.retries = 2
    with pytest.raises(TaskAwaitingInput):
        form.execute(run)


@pytest.mark.parametrize(
    ("given", "by", "sentence"),
    [
        (GOOD | {"cause": " "}, "bob", "The cause is empty"),
        (GOOD | {"owner": None}, "bob", "The owner is empty"),
        (GOOD | {"until": "2016-04-04"}, "bob", "has passed"),
        (GOOD | {"until": "2017-04-04"}, "bob", "too far away"),
        ({}, "bob", "The cause is empty"),
        (GOOD, None, "no record of who answered"),
    ],
)
def test_a_bad_answer_is_asked_again_with_what_was_wrong(
    waiting: Rails, spec: Spec, run: dict[str, Any], record: Any, given: dict[str, Any], by: str | None, sentence: str
) -> None:
    record(given, by)
    assert sentence in complete(spec, run)["refused"]
    assert announced(run) == [f"{spec.name}/unexplained"], "which starts the next question"
    asked = fallback_audit.question(waiting, spec)
    assert asked is not None
    assert asked.body.startswith("**Your last answer does not count.**")
    assert sentence in asked.body


def test_an_answer_that_comes_too_late_is_dropped(waiting: Rails, spec: Spec, run: dict[str, Any], record: Any) -> None:
    waiting.ledger.recover_default_task(spec.name, OPENED, NEWEST)
    record(GOOD)
    with pytest.raises(AirflowSkipException, match="not asked about the night of 2016-04-03 any more"):
        complete(spec, run)


def test_an_answer_to_another_question_is_none(waiting: Rails, spec: Spec, run: dict[str, Any], record: Any) -> None:
    record(GOOD, model="churn")
    with pytest.raises(AirflowFailException, match=r"no question about model_\w+ on record"):
        complete(spec, run)
    assert fallback_audit.open_task(waiting, spec.name)


def test_a_model_whose_audit_fails_keeps_no_other_from_its_own(
    waiting: Rails, spec: Spec, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [spec.model_copy(update={"name": f"{spec.name}_{which}"}) for which in ("one", "other")]
    for one in specs:
        waiting.ledger.record_stage(one.name, NEWEST, "done", ShadowSummary())
    usual, handed = fallback_audit.audit_night, {}
    run["ti"].xcom_push = lambda key, value: handed.update({key: value})

    def audit_night(rails: Rails, audited: Spec, as_of: datetime) -> FallbackAuditSummary:
        if audited.name == specs[0].name:
            raise ZeroDivisionError("nobody foresaw it")
        return usual(rails, audited, as_of)

    with monkeypatch.context() as trap:
        trap.setattr(fallback_audit, "audit_night", audit_night)
        said = work.audit_fallback(waiting, specs)
        assert (list(said.nights), list(said.failed)) == ([specs[1].name], [specs[0].name])
        [left] = said.handed_on()
        with pytest.raises(RuntimeError, match="ZeroDivisionError: nobody foresaw it"):
            work.audit_alone(waiting, specs, left["label"])
    assert list(handed["nights"]) == [specs[1].name]
    assert list(work.audit_alone(waiting, specs, left["label"])) == [str(NEWEST)]


def test_no_night_is_audited_from_before_a_model_was_there(waiting: Rails, spec: Spec, run: dict[str, Any]) -> None:
    """Of a model whose name another one had; nor where a person names the night for all models."""
    specs = [spec, spec.model_copy(update={"name": f"{spec.name}_new"})]
    for one in specs:
        for day in (NEWEST, date(2016, 4, 5)):
            waiting.ledger.record_stage(one.name, day, "done", ShadowSummary())
    waiting.ledger.begin(specs[1].name, date(2016, 4, 5))
    said = work.audit_fallback(waiting, specs)
    assert {name: list(nights) for name, nights in said.nights.items()} == {
        spec.name: [NEWEST, date(2016, 4, 5)], specs[1].name: [date(2016, 4, 5)],
    }  # fmt: skip
    run["params"] = {"as_of": str(NEWEST)}
    assert list(work.audit_fallback(waiting, specs).nights) == [spec.name]


def test_an_audit_announces_whom_a_person_is_asked_about(waiting: Rails, spec: Spec, run: dict[str, Any]) -> None:
    """The task here is of a night before; the nights to audit have no answer, which neither opens nor closes any. The
    newest was audited, and has been scored again since."""
    specs = [spec, spec.model_copy(update={"name": f"{spec.name}_too"})]
    for one in specs:
        for day in (NEWEST, date(2016, 4, 5)):
            waiting.ledger.record_stage(one.name, day, "done", ShadowSummary())
    said = work.audit_fallback(waiting, specs)
    assert said.failed == {}
    assert [list(nights) for nights in said.nights.values()] == [[NEWEST, date(2016, 4, 5)]] * 2
    assert announced(run) == [f"{spec.name}/unexplained"]
    with pytest.raises(AirflowSkipException, match="is audited"):
        work.audit_fallback(waiting, specs)
    run["outlet_events"], run["ti"].try_number = OutletEventAccessors(), 2
    assert work.audit_fallback(waiting, specs).nights == {}
    assert announced(run) == [f"{spec.name}/unexplained"], "a second attempt says what the first may not have"
