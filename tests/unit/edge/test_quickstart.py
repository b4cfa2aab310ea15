"""What `make up` ends with: what a check stopped is an outcome, what failed is not."""

import json
import subprocess
import sys
from datetime import date, timedelta

import psutil
import pytest
import typer

from tests.unit.edge.test_board import asked_in_airflow
from tiltyard import clock, stages
from tiltyard.cli import lifecycle
from tiltyard.edge import logins, proposals, quickstart, starting
from tiltyard.edge.processes import COMPONENTS
from tiltyard.edge.quickstart import AirflowAccess, DemoOutcome
from tiltyard.edge.starting import StartOutcome
from tiltyard.edge.told import telling
from tiltyard.errors import CheckFailed, Unavailable
from tiltyard.rails import Rails
from tiltyard.records import (
    Decision,
    DriftSummary,
    EvidenceRecord,
    FeaturesSummary,
    GovernorAction,
    GovernorSummary,
    PromotionSummary,
    Sending,
    ShadowSummary,
    TableState,
    TrainingSummary,
)
from tiltyard.rewind import hindcast
from tiltyard.settings import ROOT
from tiltyard.spec import find

NIGHTS = [date(2016, 4, 1), date(2016, 4, 2)]
LEAK = "The leakage gate found two features that know the label."


@pytest.fixture
def played(rails: Rails, monkeypatch: pytest.MonkeyPatch) -> Rails:
    """A home whose ledger says how the nights went; Airflow, which takes minutes, is not started for it."""

    def up(*_: object, **__: object) -> DemoOutcome:
        of_model = hindcast.ended_early(rails, NIGHTS)
        return DemoOutcome(
            models=(),
            plots=(),
            nights=tuple(NIGHTS),
            ended_early={name: of_model.get(name, ()) for name in ("churn", "leaky")},
            airflow=AirflowAccess(url="http://127.0.0.1:8400", user="admin", password_file="passwords.json"),
        )

    monkeypatch.setattr(quickstart, "up", up)
    return rails


def test_a_training_that_a_check_stopped_is_named_and_is_no_failure(
    played: Rails, capsys: pytest.CaptureFixture[str]
) -> None:
    for night in NIGHTS:
        played.ledger.record_stage("leaky", night, "stopped", TrainingSummary(model="leaky", reason=LEAK))
    lifecycle.up()
    told = " ".join(capsys.readouterr().err.split())
    assert "leaky: its training of 2016-04-02 (and of 1 earlier night) was stopped by a check: " in told
    assert LEAK.rstrip(".") in told
    assert "tiltyard status leaky" in told
    assert "churn" not in told


def test_a_stage_that_failed_is_one(played: Rails, capsys: pytest.CaptureFixture[str]) -> None:
    played.ledger.record_stage("leaky", NIGHTS[0], "stopped", TrainingSummary(model="leaky", reason=LEAK))
    played.ledger.record_stage("churn", NIGHTS[1], "failed", ShadowSummary(reason="its files were changed"))
    with pytest.raises(typer.Exit) as end:
        lifecycle.up()
    assert end.value.exit_code == CheckFailed.exit_code
    told = " ".join(capsys.readouterr().err.split())
    assert "1 of 2 models did not get through. churn: shadow of 2016-04-02 failed" in told
    assert "leaky: its training of 2016-04-01 was stopped by a check" in told


def test_a_red_run_is_an_outcome_where_a_check_stopped_what_is_not_taken_up_again(rails: Rails) -> None:
    night = NIGHTS[0]
    assert not quickstart.is_outcome(rails, "leaky__training", night), "nobody has said why it is red"
    rails.ledger.record_stage("leaky", night, "failed", TrainingSummary(model="leaky", reason="no memory"))
    assert not quickstart.is_outcome(rails, "leaky__training", night)
    rails.ledger.record_stage("leaky", night, "stopped", TrainingSummary(model="leaky", reason=LEAK))
    assert quickstart.is_outcome(rails, "leaky__training", night)
    rails.ledger.record_stage("leaky", night, "stopped", ShadowSummary(reason="its spine is held"))
    assert not quickstart.is_outcome(rails, "shadow", night)
    assert not quickstart.is_outcome(rails, "lake_maintenance", night)
    assert quickstart.is_outcome(rails, "alerts", night), "whom nobody could tell keeps no night"
    assert quickstart.is_outcome(rails, "operate", night), "a person's answer that does not count is no night's"
    assert quickstart.is_outcome(rails, "leaky__explanation", night)
    assert not quickstart.is_outcome(rails, "leaky__promotion", night)
    rails.ledger.record_stage("leaky", night, "done", PromotionSummary())
    assert quickstart.is_outcome(rails, "leaky__promotion", night), "the night is closed, whoever has answered"


def test_whom_nothing_could_be_told_is_a_warning_of_the_last_lines_with_its_reason(
    rails: Rails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALERTS_DESK", raising=False)
    begun = clock.now()
    entry = Sending(occasion="begun", owner="ann", to="env:ALERTS_DESK", title="held", body="raw", created_at=begun)
    rails.ledger.outbox.put([entry])
    rails.ledger.outbox.send(lambda one: telling.post(one, lambda name: None), begun)
    access = AirflowAccess(url="http://127.0.0.1:8400", user="admin", password_file="passwords.json")
    untold = quickstart.untold(rails)
    told = DemoOutcome(models=(), plots=(), nights=(), ended_early={}, airflow=access, untold=untold)
    started = StartOutcome(
        started=(), airflow=access, sources=(), resting=(), nights=(), refused=(), notes=(), untold=untold
    )
    for summary in (quickstart.summary(told), starting.summary(started)):
        warning, last = summary.splitlines()
        assert warning.startswith("warning: Nobody could be told by env:ALERTS_DESK: ALERTS_DESK is not set; put ")
        assert last.startswith("Airflow http://127.0.0.1:8400, user admin")
    monkeypatch.setenv("ALERTS_DESK", "json://127.0.0.1:1/desk")
    rails.ledger.outbox.send(lambda one: None, begun)
    assert quickstart.untold(rails) == (), "it is mended"


def test_a_night_of_which_nothing_more_comes_is_told_and_not_waited_for(rails: Rails) -> None:
    day, spec = date(2025, 5, 30), find(ROOT / "models", "churn")
    begun = clock.now()
    left = {("churn", stage) for stage in (*stages.IN_CHUNKS, "governor")}
    held = TableState(table=spec.prediction.spine, night=day, state="held", since=day, reason="no rows", cause="raw.x")
    assert quickstart._stuck(rails, [spec], left, day, begun) is None, "nothing has begun"
    rails.ledger.publish([held], day, "done", FeaturesSummary(snapshot=1), "subscription")
    stuck = quickstart._stuck(rails, [spec], left, day, begun)
    assert stuck == f"churn: {spec.prediction.spine} is held since 2025-05-30 and was never published: no rows."
    assert quickstart._stuck(rails, [spec], left, day, clock.now()) is None, "that was before it was asked for again"
    assert quickstart._stuck(rails, [spec], {("churn", "drift")}, day, begun) is None, "it has been scored"
    other = spec.model_copy(update={"name": "other"})
    both = left | {("other", "drift")}
    assert quickstart._stuck(rails, [spec, other], both, day, begun) is None, "another model goes on"


def test_a_promotion_that_waits_for_a_person_is_told_and_not_waited_for(rails: Rails) -> None:
    night = clock.now().date()
    spec = find(ROOT / "models", "churn").model_copy(update={"tier": 1})
    for stage in (ShadowSummary(), DriftSummary()):
        rails.ledger.record_stage("churn", night, "done", stage)
    rails.ledger.record_stage(
        "", night, "done", GovernorSummary(actions={"churn": GovernorAction(decision="no_alarm", reasons=("quiet",))})
    )
    assert quickstart.to_come(rails, [spec], night) == {("churn", "promotion")}, "it is not judged yet"
    evidence = EvidenceRecord(model="churn", night=night)
    rails.ledger.add_decision(
        Decision(
            model="churn", night=night, challenger=3, champion=None, verdict="promote", reasons=("better",),
            evidence=evidence,
        )
    )  # fmt: skip
    assert quickstart.to_come(rails, [spec], night) == {("churn", "promotion")}, "its form is not there yet"
    body = logins.conditions(clock.now() + timedelta(days=1), "These may answer: bob.")
    asked_in_airflow(rails, "churn__promotion", "approval", proposals.question("churn", 3, night), body)
    assert quickstart.to_come(rails, [spec], night) == set()
    later = night + timedelta(days=1)
    assert ("churn", "promotion") not in quickstart.to_come(rails, [spec], later), "no later one is judged meanwhile"
    [question] = quickstart.questions(rails, [spec], night)
    told = quickstart.summary(
        DemoOutcome(
            models=(), plots=(), nights=(night,), ended_early={}, questions=(question,),
            airflow=AirflowAccess(url="http://127.0.0.1:8400", user="admin", password_file="passwords.json"),
        )
    )  # fmt: skip
    assert "churn: a person is asked whether version 3 may be promoted, until " in told
    assert f":{rails.settings.api_port}/dags/churn__promotion" in told
    assert "user admin, and approver to answer what admin has asked for; passwords in passwords.json" in told
    assert quickstart.questions(rails, [spec.model_copy(update={"tier": 2})], night) == ()
    rails.ledger.record_stage("churn", night, "done", PromotionSummary())
    assert quickstart.questions(rails, [spec], night) == (), "it is answered"


def test_a_night_asks_nothing_of_a_source_whose_models_have_had_it(
    rails: Rails, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow is one that only puts down what it is asked for."""
    specs = tuple(find(ROOT / "models", name) for name in ("sla_breach", "churn"))
    left = iter([{("churn", "drift")}, set()])
    asked: list[str] = []

    class Listening:
        def trigger_night(self, dag_id: str, _: object) -> None:
            asked.append(dag_id)

        def failed_runs(self, since: object) -> list[object]:
            return []

    monkeypatch.setattr(quickstart, "to_come", lambda *_: next(left))
    night, sources = clock.midnight(NIGHTS[0]), ("incident", "subscription", "of_no_model")
    quickstart.night_in_airflow(rails, Listening(), specs, night, sources)  # type: ignore[arg-type]
    assert asked == ["subscription__features", "of_no_model__features"]


@pytest.mark.parametrize(
    ("ended", "when"), [("scheduler", "failed_runs"), ("triggerer", "failed_runs"), ("scheduler", "trigger_night")]
)
def test_a_part_of_airflow_that_ends_in_a_night_is_named_at_once(
    rails: Rails, monkeypatch: pytest.MonkeyPatch, ended: str, when: str
) -> None:
    """The parts are processes that do nothing; one is killed while the night is begun, or as soon as it has."""
    running = {name: subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for name in COMPONENTS}
    folder = rails.settings.home / "run"
    folder.mkdir(parents=True, exist_ok=True)
    for name, process in running.items():
        record = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
        (folder / f"{name}.json").write_text(json.dumps(record))

    class Killing:
        def trigger_night(self, dag_id: str, _: object) -> None:
            self.kill("trigger_night")

        def failed_runs(self, since: object) -> list[object]:
            self.kill("failed_runs")
            return []

        def kill(self, here: str) -> None:
            if here == when:
                running[ended].kill()
                running[ended].wait()

    monkeypatch.setattr(quickstart, "to_come", lambda *_: {("churn", "drift")})
    monkeypatch.setattr(quickstart, "PATIENCE_S", 20)
    try:
        with pytest.raises(Unavailable, match=rf"^Airflow's {ended} ended while the night of .*/{ended}\.log\.$"):
            quickstart.night_in_airflow(
                rails,
                Killing(),
                (find(ROOT / "models", "churn"),),
                clock.midnight(NIGHTS[0]),
                ("subscription",),  # type: ignore[arg-type]
            )
    finally:
        for process in running.values():
            process.kill()
            process.communicate()
