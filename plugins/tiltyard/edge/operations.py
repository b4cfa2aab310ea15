"""What the tasks of the DAG `operate` do: what its form asks for is put down, and a second person's answer counts as
Airflow has recorded it."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiltyard import clock, operating
from tiltyard.edge import answers, logins, task_run
from tiltyard.edge.approvals import CONFIRM, said
from tiltyard.errors import BadInput
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.records import Instant, JsonObject, Operation, Record
from tiltyard.spec import find
from tiltyard.words import UNKNOWN, markdown

if TYPE_CHECKING:
    from tiltyard.rails import Rails

CONFIRMING = "confirm"
"""The action by which the form confirms what was asked for elsewhere."""
_NUMBER = re.compile(r"Operation (\d+): ")


@dataclass(frozen=True, kw_only=True)
class AskedFor(Record):
    """What the task that asks hands on."""

    sentence: str
    """What came of it."""
    number: int | None = None
    """The operation that waits for a second person; None where none does."""
    until: Instant | None = None
    """Until when it does."""
    subject: str = ""
    """What the second person is asked."""
    body: str = ""
    """What there is to know, in Markdown."""


def ask(rails: "Rails", form: JsonObject) -> JsonObject:
    """Do what the form asks for, or have it wait for a second person. Raises BadInput for what may not be, with what
    may, and where it is not known who has started the run."""
    from tiltyard.judge import operate

    people = task_run.requesters()
    if people[0] in (logins.NOBODY, UNKNOWN):
        raise BadInput("It is not known who asks: start operate as somebody who is logged in.")
    model, reason = str(form.get("model") or ""), str(form.get("reason") or "")
    to, now = operate.target(_text(form.get("version"))), clock.now()
    if form.get("action") == CONFIRMING:
        number = to if isinstance(to, int) else 0
        if (asked := rails.ledger.operations.find(number)).model != model:
            raise BadInput(f"Operation {number} is about {asked.model}, and not about {model}.")
        done = operate.approve(rails, number, by=people[0], now=now, answer=reason.strip() or None)
        return AskedFor(sentence=done.sentence).to_json()
    spec, action = find(rails.settings.models, model), operate.action(str(form.get("action")))
    done = operate.request(rails, spec, action, to=to, reason=reason, by=people[0], source="airflow", now=now)
    if not done.waits or done.operation is None:
        return AskedFor(sentence=done.sentence).to_json()
    return _waiting(rails, done.operation, done.sentence, spec.owner).to_json()


def _waiting(rails: "Rails", one: Operation, sentence: str, owner: str) -> AskedFor:
    assert one.until is not None
    rules = load_portfolio(rails.settings.models)
    may = rules.may_answer(owner, clock.now().date(), (one.requested_by,))
    body = [
        logins.conditions(one.until, logins.who_may(may, (one.requested_by,), logins.known(rails.settings), rules.who)),
        f"**{markdown(one.requested_by)}** asks to {operating.what(one)}; in service now: "
        f"{operating.shown(one.before)}.",
        f"Why: {markdown(one.reason)}",
        f"[How the model stands](/tiltyard/models/{one.model}). From a terminal: "
        f"`tiltyard operations approve {one.id}`.",
    ]
    return AskedFor(sentence=sentence, number=one.id, until=one.until, subject=question(one), body="\n\n".join(body))


def question(one: Operation) -> str:
    """What a second person is asked, in a line."""
    return f"Operation {one.id}: {operating.what(one)}?"


def confirm(rails: "Rails") -> JsonObject:
    """Decide what waits by the second person's answer, as Airflow has recorded it. Skips the task where nobody has
    answered, and where it was decided elsewhere. Raises BadInput for an answer that does not count."""
    from tiltyard.judge import operate

    answer = answers.recorded(rails, task_run.key()._replace(task_id=CONFIRM))
    asked = _NUMBER.match(answer.subject) if answer else None
    if answer is None or asked is None:
        raise BadInput("Airflow has no question about an operation on record; clear the run to ask again.")
    one = rails.ledger.operations.find(int(asked[1]))
    if answer.subject != question(one):
        raise BadInput(f"What was asked is not what operation {one.id} is; clear the run to ask again.")
    if one.outcome is not None:
        task_run.skip(f"Operation {one.id} is {one.outcome} already.")
    if not answer.responded_by or answer.responded_at is None:
        task_run.skip(f"Nobody has confirmed operation {one.id} in time, which is a no.")
    if answer.chosen != ("Approve",):
        why = said(answer) or "refused in Airflow"
        done = operate.refuse(rails, one.id, by=answer.responded_by, reason=why, now=answer.responded_at)
    else:
        done = operate.approve(rails, one.id, by=answer.responded_by, now=answer.responded_at, answer=said(answer))
    return done.to_json()


def _text(value: object) -> str | None:
    return None if value is None else str(value)
