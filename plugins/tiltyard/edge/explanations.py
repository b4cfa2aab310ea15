"""A person's explanation of a safe default that lasts: the task that asks, and what becomes of an answer."""

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLEntryOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import TaskAwaitingInput

from tiltyard import clock
from tiltyard.edge import answers, task_run
from tiltyard.edge.answers import RecordedAnswer
from tiltyard.edge.assets import model_asset, unexplained_assets
from tiltyard.errors import BadInput
from tiltyard.records import JsonObject
from tiltyard.spec import Spec

# What a task stands on brings pandas along, which a DAG file must not import when it is parsed: it is imported inside.

if TYPE_CHECKING:
    from tiltyard.answered.fallback_audit import TaskForm
    from tiltyard.rails import Rails

EXPLAIN = "explain"
"""The task that asks."""
LOOK_AGAIN = timedelta(hours=6)
"""How often a question that waits is looked at: is it still asked?"""

_QUESTION = re.compile(
    r"Why is (?P<model>\w+) on its safe default since [\d-]+\? \(asked on the night of (?P<night>[\d-]+)\)"
)


class ExplanationForm(HITLEntryOperator):
    """Asks a person why a model is on its safe default, and keeps the answer in the ledger.

    There is no default and no timeout that answers. The task wakes up every LOOK_AGAIN only to see whether it is still
    asked: if so it waits on, and the form stays what it is; once the model has left its safe default, or somebody has
    answered from a terminal, it ends as skipped. What counts of an answer is Airflow's own record of it
    (`recorded_answer`). An answer that is none ends the run, and starts the next one, whose question begins with what
    was wrong: Airflow keeps the text of a question for as long as its task lives.
    """

    EXPLAIN = "Explain"

    def __init__(self, *, spec: Spec, **kwargs: Any) -> None:
        self.spec = spec
        super().__init__(
            subject="",
            body="",
            options=[self.EXPLAIN],
            response_timeout=LOOK_AGAIN,
            outlets=[unexplained_assets()],
            **kwargs,
        )

    def execute(self, context: Any) -> Any:
        if answer := answers.to_earlier_attempt(self.retries or 0):
            with task_run.working() as rails:
                return self._read(rails, answer)
        form = self._question()
        self.subject, self.body = form.subject, form.body
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        if "error" in event:
            self._question()
            raise TaskAwaitingInput(method_name="execute_complete", timeout=self.response_timeout)
        with task_run.working() as rails:
            return self._read(rails, answers.recorded(rails, task_run.key()) or RecordedAnswer())

    def _read(self, rails: "Rails", answer: RecordedAnswer) -> JsonObject:
        """Keep an answer that is about this model."""
        question = _QUESTION.fullmatch(answer.subject)
        if question is None or question["model"] != self.spec.name:
            raise BadInput(f"Airflow has no question about {self.spec.name} on record; clear the task to ask again.")
        return self._keep(rails, date.fromisoformat(question["night"]), answer)

    def _keep(self, rails: "Rails", opened: date, answer: RecordedAnswer) -> JsonObject:
        """Keep the answer in the ledger; ask again where it is none."""
        from tiltyard.answered import fallback_audit

        try:
            if not answer.responded_by or not answer.responded_at:
                raise BadInput("Airflow has no record of who answered; answer the form under Required Actions.")
            cause, owner, until = (_text(answer.form.get(name)) for name in ("cause", "owner", "until"))
            return fallback_audit.answer_task(
                rails,
                self.spec,
                opened=opened,
                cause=cause,
                owner=owner,
                until=until,
                by=answer.responded_by,
                source="airflow",
                at=answer.responded_at,
            ).to_json()
        except BadInput as error:
            task = fallback_audit.open_task(rails, self.spec.name)
            if task is None:
                task_run.skip(str(error))
            fallback_audit.refuse(rails, self.spec.name, task.opened, answer.responded_by, str(error))
            ask(self.spec, task.opened)
            return {"refused": str(error), "by": answer.responded_by}

    def _question(self) -> "TaskForm":
        """What the ledger has to ask about the model. Skips the task when it has nothing."""
        from tiltyard.answered import fallback_audit

        with task_run.working() as rails:
            form = fallback_audit.question(rails, self.spec)
        if form is None:
            task_run.skip(f"Nobody has to explain {self.spec.name}: no task is open.")
        return form


def explanation(spec: Spec) -> ExplanationForm:
    """The task that asks, with its form. Airflow validates a form before anybody has filled it in, so every field may
    be empty there; what an answer needs is checked when it comes. Every field is a line: a higher one pushes the button
    out of a laptop's screen."""
    form = {
        "cause": Param(None, type=["null", "string"], title="Cause"),
        "owner": Param(spec.owner, type=["null", "string"], title="Owner: who sees to it"),
        "until": Param(None, type=["null", "string"], format="date", title="Until when it may stay there"),
    }
    return ExplanationForm(task_id=EXPLAIN, spec=spec, params=form)


def require_kept(answer: JsonObject) -> JsonObject:
    """Fails the task, in sight, where the answer was none; it is asked again by then."""
    if refused := answer.get("refused"):
        task_run.fail(f"The answer does not count: {refused} It is asked again.")
    return answer


def ask(spec: Spec, opened: date) -> None:
    """Announce the model whose task was opened on that night, so that a person is asked about it."""
    task_run.announce_through(unexplained_assets(), model_asset(spec, "unexplained"), [clock.midnight(opened)])


def _text(value: object) -> str | None:
    return None if value is None else str(value)
