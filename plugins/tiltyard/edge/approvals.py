"""A person's approval of a promotion: the task that asks, and the answer that counts."""

import logging
import re
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param
from airflow.sdk.bases.notifier import BaseNotifier

from tiltyard import clock
from tiltyard.edge import answers, logins, task_run
from tiltyard.edge.answers import RecordedAnswer
from tiltyard.spec import Spec
from tiltyard.stages import STAGES

if TYPE_CHECKING:
    from tiltyard.judge.approval import Approval
    from tiltyard.rails import Rails

log = logging.getLogger(__name__)

APPROVALS = ("approval", "second_approval")
"""The tasks that ask, each a person of its own."""

_SUBJECT = re.compile(r"Promote (?P<model>\w+) version (?P<version>\d+) on the night of (?P<night>[\d-]+)\?")
CONFIRM = "second_person"
"""The task that asks a second person about an operation."""
COMMENT = "comment"
"""The field of a form in which whoever answers may say why."""
_EVIDENCE = re.compile(r"^Evidence: `([0-9a-f]{64})`$", re.MULTILINE)


class Look(BaseNotifier):
    """Tells people what there is to tell, now that a form is there, and not with the next look of the alerts DAG."""

    def notify(self, context: Any) -> None:
        """Look and send. What keeps that from being done keeps nobody from answering: the next look comes."""
        from tiltyard.edge.told import telling

        try:
            with task_run.working() as rails:
                told = telling.tell(rails, clock.now(), task_run.connection)
            for name, why in sorted(told.unsent.items()):
                log.warning("%s: %s", name, why)
        except Exception:  # whatever it is, the question is asked
            log.exception("Nobody was told that the form is there; the next look of the alerts DAG tells it.")


class Question(ApprovalOperator):
    """Asks a person to approve something. Silence until the timeout is a no.

    It has no default: Airflow's form puts the button of the default before the others, which speaks against what the
    evidence says. So the no of a silence is written by this task, where Airflow would write it.
    """

    def execute(self, context: Any) -> Any:
        """Open the form, and let whoever may answer hear of it."""
        self.notifiers = [Look()]
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Keep the answer; what comes of a Reject is the business of the task that follows."""
        if event.get("error_type") == "timeout":
            with task_run.working() as rails:
                answers.close(rails, task_run.key(), self.REJECT)
            return None
        return HITLOperator.execute_complete(self, context, event)


class PromotionApproval(Question):
    """Asks a person, with the evidence in the body.

    Skipped when the judging task proposes nothing. Whatever the answer, the promoting task runs: it reads the answer
    back from Airflow's own record (`recorded_approval`), never from this task's state or return value.
    """

    def __init__(self, *, judged_by: str, spec: Spec, **kwargs: Any) -> None:
        self.judged_by = judged_by
        proposal = f"((ti.xcom_pull(task_ids='{judged_by}') or {{}}).get('proposal') or {{}})"
        super().__init__(
            subject="{{ " + proposal + ".get('subject', 'Nothing is proposed') }}",
            body="{{ " + proposal + ".get('body', '') }}",
            response_timeout=spec.gate.approval_timeout,
            **kwargs,
        )
        self.open_for = spec.gate.approval_timeout

    def execute(self, context: Any) -> Any:
        """Ask, and say on the form until when: from now on, and not from when it was judged, to the minute that the
        form names."""
        proposal = (context["ti"].xcom_pull(task_ids=self.judged_by) or {}).get("proposal")
        if not proposal:
            task_run.skip("The gate proposes no promotion tonight, so nobody has to be asked.")
        if answers.to_earlier_attempt(self.retries or 0):
            return None
        now = clock.now()
        until = now + self.open_for
        if until.second or until.microsecond:
            until = until.replace(second=0, microsecond=0) + timedelta(minutes=1)
        self.response_timeout = until - now
        self.body = (
            f"{logins.conditions(until, proposal.get('who', ''), proposal.get('others', ()))}\n\n{self.body or ''}"
        )
        return super().execute(context)


class SecondPerson(Question):
    """Asks a second person to confirm an operation, until its own time is over. Skipped where one person is enough."""

    def __init__(self, *, asked_by: str, **kwargs: Any) -> None:
        self.asked_by = asked_by
        asked = f"(ti.xcom_pull(task_ids='{asked_by}') or {{}})"
        super().__init__(
            subject="{{ " + asked + ".get('subject', '') }}",
            body="{{ " + asked + ".get('body', '') }}",
            **kwargs,
        )

    def execute(self, context: Any) -> Any:
        asked = context["ti"].xcom_pull(task_ids=self.asked_by) or {}
        if not asked.get("number"):
            task_run.skip("One person is enough, or there was nothing to do.")
        if answers.to_earlier_attempt(self.retries or 0):
            return None
        left = datetime.fromisoformat(asked["until"]) - clock.now()
        self.response_timeout = max(left, timedelta(seconds=1))
        return super().execute(context)


def second_person(asked_by: str) -> SecondPerson:
    """The task that asks a second person what `asked_by` has put down."""
    return SecondPerson(task_id=CONFIRM, asked_by=asked_by, params=comment())


def approval_tasks(spec: Spec) -> tuple[str, ...]:
    """Which of APPROVALS the promotion DAG of a model has: none but for tier 1, as many as its gate asks for."""
    return APPROVALS[: spec.gate.approvals] if spec.tier == STAGES["promotion"].asks_tier else ()


def approvals(spec: Spec, judged_by: str) -> list[PromotionApproval]:
    """The approving tasks of a model, asked side by side: any two people may answer, in any order."""
    return [
        PromotionApproval(task_id=name, judged_by=judged_by, spec=spec, params=comment())
        for name in approval_tasks(spec)
    ]


def comment() -> dict[str, Param]:
    """The form's one field; it may be empty."""
    return {COMMENT: Param(None, type=["null", "string"], format="multiline", title="Comment, kept with your answer")}


def said(answer: RecordedAnswer) -> str | None:
    """What whoever answered said; None where that was nothing."""
    return str(answer.form.get(COMMENT) or "").strip() or None


def recorded_approval(rails: "Rails", spec: Spec, as_of: datetime, asked_by: str) -> "Approval | None":
    """The answer to this run's approval task `asked_by`, from Airflow's own record.

    None when nobody was asked and the ledger has nothing to promote. An approval without an answer, or answered by the
    timeout, names no approver, and so does one that was never asked for although it had to be: promotion refuses it
    and keeps the event.
    """
    answer = answers.recorded(rails, task_run.key()._replace(task_id=asked_by))
    is_due = any(
        decision.verdict == "promote" and decision.night == as_of.date()
        for decision in rails.ledger.decisions(spec.name, until=as_of.date())
    )
    if answer is None and not is_due:
        return None
    people = task_run.requesters()
    return approval(answer or RecordedAnswer(), requested_by=people[0] if len(people) == 1 else people)


def approval(answer: RecordedAnswer, requested_by: str | tuple[str, ...]) -> "Approval":
    """An answer in the promotion's terms. A question that this project did not write is about nothing."""
    from tiltyard.judge.approval import Approval, Subject  # `judge` brings pandas along

    question_asked = _SUBJECT.fullmatch(answer.subject)
    evidence = _EVIDENCE.findall(answer.body)
    subject = None
    if question_asked and evidence:
        model, version, night = question_asked.groups()
        subject = Subject(model, int(version), date.fromisoformat(night), evidence[-1])
    return Approval(
        approved_by=answer.responded_by,
        requested_by=requested_by,
        chosen=answer.chosen,
        responded_at=answer.responded_at,
        subject=subject,
        source="airflow",
        comment=said(answer),
    )
