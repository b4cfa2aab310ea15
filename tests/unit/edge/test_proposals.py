"""Of several challengers that may be promoted everything names the same one; an approval that does not count is told
until it is asked again."""

from datetime import timedelta

from tests.unit.edge.test_board import NIGHT, SPEC, asked_in_airflow, done, published, read
from tiltyard import clock
from tiltyard.edge import proposals, quickstart, recorded
from tiltyard.edge.document import ModelStatus
from tiltyard.edge.told.facts import facts
from tiltyard.judge import approval
from tiltyard.judge.approval import Approval, Subject
from tiltyard.rails import Rails
from tiltyard.records import Decision, EvidenceRecord, PromotionSummary, ShadowSummary, Version, VersionFacts

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
    assert (item.reason, row.gate_reason) == (FIGURE, FIGURE), "the gate's figure, and no phrase"
    [question] = quickstart.questions(rails, [HIGH], NIGHT)
    assert (question.version, question.until) == (2, item.until)
    assert question.form.endswith(item.link)
    document = recorded.status(rails, HIGH)
    assert isinstance(document, ModelStatus) and document.gate
    assert document.gate.challenger == 2


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
    rails.ledger.record_stage("churn", NIGHT, "done", PromotionSummary(night=NIGHT, model="churn", verdict="promote"))


def test_an_approval_that_does_not_count_stays_in_the_inbox_and_is_told_until_it_is_asked_again(rails: Rails) -> None:
    three(rails)
    refuse(rails, "Approve", "admin")
    found = read(rails, HIGH)
    [item] = found.inbox
    assert (item.kind, item.subject, item.link) == ("uncounted", "churn v2", "/dags/churn__promotion")
    assert item.reason == (
        "The approval does not hold: 'admin' asked for it and cannot approve it. Clear judge in its run, and it is "
        "asked again."
    )
    assert found.models[0].state == "approve" and "does not hold" in found.models[0].reason
    [fact] = facts(found, [HIGH])
    assert (fact.kind, fact.subject, fact.tier) == ("uncounted", "churn v2", 1), "somebody is told"
    assert quickstart.questions(rails, [HIGH], NIGHT) == ()
    asked_in_airflow(rails, "churn__promotion", "approval", proposals.question("churn", 2, NIGHT))
    again = read(rails, HIGH)
    assert [(item.kind, item.subject) for item in again.inbox] == [("approve", "churn v2")]
    assert [question.version for question in quickstart.questions(rails, [HIGH], NIGHT)] == [2]


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
    refuse(rails, "Approve", "admin")
    assert read(rails, HIGH).inbox
    refuse(rails, "Reject", None)
    assert not read(rails, HIGH).inbox, "it was asked again, and nobody has answered"
    assert read(rails, HIGH).models[0].state != "approve"
