"""Of several challengers that may be promoted everything names the same one; an approval that does not count is told
until it is asked again."""

from datetime import timedelta

import pytest

from tests.unit.edge.test_board import NIGHT, SPEC, answered_in_airflow, asked_in_airflow, done, published, read
from tiltyard import clock
from tiltyard.edge import describe, logins, proposals, quickstart, recorded
from tiltyard.edge.document import ModelStatus
from tiltyard.edge.told.facts import facts
from tiltyard.judge import approval
from tiltyard.judge.approval import Approval, Subject
from tiltyard.rails import Rails
from tiltyard.records import Decision, EvidenceRecord, PromotionSummary, ShadowSummary, Version, VersionFacts

DAY = timedelta(days=1)
HIGH = SPEC.model_copy(update={"tier": 1})
FIGURE = (
    "Its Brier score is lower by 0.00644 [0.002, 0.011] than that of the safe default, on the same 1,925 matured rows "
    "of 31 nights."
)


def judged(rails: Rails, challenger: int, low: float | None, night_after: int = 0) -> None:
    """What the gate says of a challenger on the night, or some nights after it: promote with a lower bound, else hold.
    The first of its reasons says nothing, as the gate's does."""
    night = NIGHT + timedelta(days=night_after)
    evidence = EvidenceRecord(model="churn", night=night, challenger=challenger, mean=0.00644, low=low, high=0.011,
                              matured=1925, nights=31)  # fmt: skip
    rails.ledger.add_decision(
        Decision(model="churn", night=night, challenger=challenger, champion=None, evidence=evidence,
                 verdict="promote" if low else "hold", reasons=("The evidence agrees with itself.",))
    )  # fmt: skip


def three(rails: Rails) -> None:
    """Versions 1 and 2 may be promoted, 2 with the larger bound; 3 is the newest and is held."""
    published(rails)
    done(rails, night=NIGHT - timedelta(days=1))
    rails.ledger.record_stage("churn", NIGHT, "done", ShadowSummary(night=NIGHT))
    for challenger, low in ((1, 0.001), (2, 0.002), (3, None)):
        rails.ledger.add_version(
            Version(model="churn", version=challenger, night=NIGHT - timedelta(days=31), inputs=str(challenger),
                    run_id="r", digests={}, facts=VersionFacts(), requested_by="admin")
        )  # fmt: skip
        judged(rails, challenger, low)


def test_start_inbox_row_and_status_name_one_version_and_why(rails: Rails) -> None:
    three(rails)
    found = read(rails, HIGH)
    [row], [item] = found.models, found.inbox
    assert row.challengers[-1] == 3, "the newest is another one"
    assert (row.gate, row.judged, item.subject) == ("promote", 2, "churn v2")
    assert (item.reason, row.gate_reason) == (f"{FIGURE} Its form is being opened.", FIGURE), "and no phrase"
    [question] = quickstart.questions(rails, [HIGH], NIGHT)
    assert (question.version, question.until) == (2, None)
    assert question.form.endswith(item.link)
    assert str(question).endswith("promoted. Its form is being opened. Its DAG: " + question.form)
    until = clock.now().replace(second=0, microsecond=0) + timedelta(days=1)
    body = logins.conditions(until, "These may answer: bob.")
    asked_in_airflow(rails, "churn__promotion", "approval", proposals.question("churn", 2, NIGHT), body)
    [item], [question] = read(rails, HIGH).inbox, quickstart.questions(rails, [HIGH], NIGHT)
    assert item.until == question.until == until, "all of them name the form's own end"
    assert item.reason == f"{FIGURE} These may answer: bob."
    assert question.form.endswith(item.link) and item.link.endswith("/tasks/approval/required_actions")
    assert "These may answer: bob." in str(question)
    document = recorded.status(rails, HIGH)
    assert isinstance(document, ModelStatus) and document.gate
    assert document.gate.challenger == 2


def test_a_question_is_told_once_its_form_is_there_and_is_none_once_that_is_answered(rails: Rails) -> None:
    three(rails)
    assert [item.kind for item in read(rails, HIGH).inbox] == ["approve"]
    assert not facts(read(rails, HIGH), [HIGH]), "nobody can answer yet"
    subject = proposals.question("churn", 2, NIGHT)
    asked_in_airflow(rails, "churn__promotion", "approval", subject, logins.conditions(clock.now() + DAY, "Bob may."))
    [fact] = facts(read(rails, HIGH), [HIGH])
    assert fact.link == "/dags/churn__promotion/runs/asset%2F1/tasks/approval/required_actions"
    assert "Bob may." in fact.reason and fact.until is not None
    answered_in_airflow(rails)
    assert not read(rails, HIGH).inbox, "the night is not closed yet, and nobody is asked any more"
    two = HIGH.model_copy(update={"gate": HIGH.gate.model_copy(update={"approvals": 2})})
    assert [item.kind for item in read(rails, two).inbox] == ["approve"], "another one has to answer"


def test_a_held_verdict_is_about_the_version_that_it_names(rails: Rails) -> None:
    """Of two that are held the newest is told of; of a night that is closed the one of its record."""
    three(rails)
    summary = PromotionSummary(night=NIGHT, model="churn", verdict="hold", challenger=2, reasons=("Not yet.",))
    rails.ledger.record_stage("churn", NIGHT, "done", summary)
    [row] = read(rails, HIGH).models
    assert (row.gate, row.judged, row.gate_reason) == ("hold", 2, "Not yet.")


def refuse(rails: Rails, chosen: str, by: str | None) -> None:
    """What `promote` leaves behind of an answer that does not count."""
    subject = Subject("churn", 2, NIGHT, "0a" * 32)
    answer = Approval(by, "admin", (chosen,), clock.now(), subject, "airflow")
    detail = {"faults": approval.faults_of_all(HIGH, [answer], subject, "admin"), "approvals": [answer.to_json()]}
    rails.ledger.add_event(proposals.REFUSED, "churn", NIGHT, detail)
    rails.ledger.record_stage("churn", NIGHT, "done", PromotionSummary(night=NIGHT, model="churn", verdict="promote",
                              reason="The answer was Reject."))  # fmt: skip


def test_an_approval_that_does_not_count_stays_in_the_inbox_and_is_told_until_it_is_asked_again(rails: Rails) -> None:
    three(rails)
    refuse(rails, "Approve", "admin")
    found = read(rails, HIGH)
    [item] = found.inbox
    assert (item.kind, item.subject, item.link) == ("uncounted", "churn v2", "/dags/churn__promotion")
    assert item.reason == (
        "The approval does not hold: 'admin' asked for it and cannot approve it. These may answer: anybody else. Not "
        "admin, who asked for it. Clear judge in its run, and it is asked again."
    )
    assert found.models[0].state == "approve" and "does not hold" in found.models[0].reason
    [fact] = facts(found, [HIGH])
    assert (fact.kind, fact.subject, fact.tier) == ("uncounted", "churn v2", 1), "somebody is told"
    assert quickstart.questions(rails, [HIGH], NIGHT) == ()
    asked_in_airflow(rails, "churn__promotion", "approval", proposals.question("churn", 2, NIGHT))
    again = read(rails, HIGH)
    assert [(item.kind, item.subject) for item in again.inbox] == [("approve", "churn v2")]
    assert [question.version for question in quickstart.questions(rails, [HIGH], NIGHT)] == [2]


def test_an_approval_that_does_not_count_leads_to_the_run_that_asks_again_and_says_who_is_missing(
    rails: Rails, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a laptop two have to answer, and one of the two logins has asked."""
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "airflow.SimpleAuthManager")
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "admin:admin,approver:op")
    two = HIGH.model_copy(update={"gate": HIGH.gate.model_copy(update={"approvals": 2})})
    three(rails)
    asked_in_airflow(rails, "churn__promotion", "approval", proposals.question("churn", 2, NIGHT))
    answered_in_airflow(rails)
    subject = Subject("churn", 2, NIGHT, "0a" * 32)
    answers = [Approval("approver", "admin", ("Approve",), clock.now(), subject, "airflow")] * 2
    detail = {"faults": approval.faults_of_all(two, answers, subject, "hindcast"),
              "approvals": [answer.to_json() for answer in answers]}  # fmt: skip
    rails.ledger.add_event(proposals.REFUSED, "churn", NIGHT, detail)
    rails.ledger.record_stage("churn", NIGHT, "done", PromotionSummary(night=NIGHT, model="churn", verdict="promote"))
    [item] = read(rails, two).inbox
    assert (item.kind, item.link) == ("uncounted", "/dags/churn__promotion/runs/asset%2F1/tasks/judge")
    for part in (
        "'approver' has approved twice, which is once: 2 different people have to approve",
        "Only one of the two who are needed can answer it here: approver.",
        "Not admin, who asked for it.",
        "write approvals: 1 under gate",
        "Clear judge in its run, and it is asked again.",
    ):
        assert part in item.reason, part
    assert "hindcast" not in item.reason


def test_a_no_is_no_approval_and_a_later_verdict_is_another_question(rails: Rails) -> None:
    three(rails)
    refuse(rails, "Approve", "admin")
    judged(rails, 2, None, night_after=1)
    assert not read(rails, HIGH).inbox, "a later night has judged"


def test_who_says_no_or_nothing_is_asked_nothing_more(rails: Rails) -> None:
    three(rails)
    for by in ("bob", None):
        refuse(rails, "Reject", by)
        assert not read(rails, HIGH).inbox
    document = recorded.status(rails, HIGH)
    assert isinstance(document, ModelStatus) and document.gate
    assert (document.gate.verdict, document.gate.outcome) == ("promote", "The answer was Reject.")
    assert "; not promoted: The answer was Reject" in describe.model(document)
    refuse(rails, "Approve", "admin")
    assert read(rails, HIGH).inbox
    refuse(rails, "Reject", None)
    assert not read(rails, HIGH).inbox, "it was asked again, and nobody has answered"
    assert read(rails, HIGH).models[0].state != "approve"
