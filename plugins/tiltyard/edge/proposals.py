"""Which promotion a person is asked about, and which approval did not count: read once, for the inbox, the pages,
`tiltyard start` and whoever is told.

An approval that does not count closes its night. It is told until somebody has asked again (whoever clears `judge` of
its run), or a later night was judged, whose verdict is another question.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from tiltyard import clock, operating
from tiltyard.edge import event_words, logins
from tiltyard.edge.open_forms import OPENING, Forms
from tiltyard.judge import releasers
from tiltyard.judge.best import best_of, by_how_much
from tiltyard.ledger import Ledger
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.rails import Rails
from tiltyard.records import Decision, Event, Operation
from tiltyard.spec import Spec
from tiltyard.stages import STAGES, dag_id
from tiltyard.words import counted, listed

REFUSED = "approval_refused"
"""Kind of the ledger's event about answers that do not count."""
LOOKED_BACK = timedelta(days=7)
"""Nights before its newest one of which a model's refused approvals are looked for."""


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """A promotion that a person is asked about."""

    decision: Decision
    """What the gate said of the challenger that it is about."""
    until: datetime | None
    """When silence counts as a no, as its form says; None as long as there is no form."""
    link: str
    """Where it is answered, below Airflow's address; without a form the DAG that opens it."""
    who: str
    """Who may answer, as its form says, or that there is no form yet, in sentences; empty where that is not known."""
    is_opening: bool = False
    """Whether its form is about to be opened: nobody can answer yet, and nobody is told."""

    @property
    def why(self) -> str:
        """What speaks for it, as a sentence: the gate's figure."""
        return by_how_much(self.decision.evidence) or next(iter(self.decision.reasons), "The gate says promote.")


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An approval that does not count, after which nobody was asked again."""

    decision: Decision
    """What the gate said of the challenger that it is about."""
    faults: tuple[str, ...]
    """Why it does not count, as half sentences."""
    link: str
    """The task that asks again, in the run that has asked; the DAG where the run is not known. Below Airflow's
    address."""
    who: str
    """Who may answer, in sentences, and how to go on where too few can."""

    @property
    def why(self) -> str:
        """Why it does not count and how to go on, as sentences."""
        return (
            f"The approval does not hold: {listed(self.faults, '; ')}. {self.who} Clear judge in its run, and it is "
            "asked again."
        )


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """What there is to answer, and what was answered in vain."""

    open: Mapping[str, Proposed]
    """Model → what is asked, of those of which something is."""
    refused: Mapping[str, Refused]
    """Model → what was refused, of those of which something was, and nothing is asked."""


def read(
    rails: Rails,
    specs: Sequence[Spec],
    operations: Mapping[str, Sequence[Operation]],
    newest: Mapping[str, date],
    forms: Forms,
    now: datetime,
) -> Proposals:
    """What there is to answer of models of the tier that asks. `newest`: model → its newest night, of those that have
    one. As many queries for a hundred models as for one, and one more for each of which an approval was refused."""
    ledger = rails.ledger
    asking = {spec.name: spec for spec in specs if spec.tier == STAGES["promotion"].asks_tier}
    if not asking:
        return Proposals(open={}, refused={})
    longest = max(spec.gate.approval_timeout for spec in asking.values())
    found = ledger.open_proposals(asking, now - 2 * longest)
    proposed = {name: best for name, own in found.items() if (best := _best(own, own[-1].night))}
    since = {name: newest[name] - LOOKED_BACK for name in asking if name in newest}
    events = {event.model: event for event in ledger.newest_events(since, (REFUSED,))}  # the last is the newest night's
    vain: dict[str, Refused] = {}
    for name, event in events.items():
        if name in proposed or not event_words.is_approval(event.detail) or (best := _in_vain(ledger, event)) is None:
            continue
        if forms.find(
            dag_id("promotion", name), question(name, best.challenger, best.night)
        ):  # it was asked again, though the night is closed
            proposed[name] = best
        elif operating.hindrance(operations.get(name, ()), best.night) is None:
            vain[name] = _refused(rails, asking[name], best, event, forms)
    opened = {name: asked for name, best in proposed.items()
              if (asked := _asked(asking[name], best, operations.get(name, ()), forms, now))}  # fmt: skip
    return Proposals(open=opened, refused=vain)


def question(model: str, version: int, night: date) -> str:
    """What a person is asked about a challenger, in a line; `approvals` reads it back."""
    return f"Promote {model} version {version} on the night of {night}?"


def _asked(spec: Spec, best: Decision, operations: Sequence[Operation], forms: Forms, now: datetime) -> Proposed | None:
    """The question, as long as its answer would count. The form's own time counts: without one there is none yet."""
    if operating.hindrance(operations, best.night):
        return None
    dag, timeout = dag_id("promotion", spec.name), spec.gate.approval_timeout
    own = forms.of(dag, question(spec.name, best.challenger, best.night))
    if form := next((form for form in own if not form.is_answered), None):
        until = form.until or (form.asked_at or now) + timeout
        return Proposed(decision=best, until=until, link=form.link, who=form.who) if until > now else None
    begun = best.recorded_at or now
    if len(own) >= spec.gate.approvals or begun + timeout <= now:  # answered, and about to be acted on; or too late
        return None
    is_opening = now - begun < OPENING
    who = "Its form is being opened." if is_opening else (
        f"Its form has not been opened in {counted(round((now - begun) / timedelta(minutes=1)), 'minute')}: look into "
        "what its DAG waits for."
    )  # fmt: skip
    return Proposed(decision=best, until=None, link=f"/dags/{dag}", who=who, is_opening=is_opening)


def _refused(rails: Rails, spec: Spec, best: Decision, event: Event, forms: Forms) -> Refused:
    """An approval that does not count, with the run that has asked and who may answer it."""
    dag = dag_id("promotion", spec.name)
    asked = forms.of(dag, question(spec.name, best.challenger, best.night))
    who = who_may(rails, spec, best.challenger, best.champion, event_words.requesters(event.detail))
    return Refused(
        decision=best,
        faults=_texts(event.detail.get("faults")),
        link=f"{asked[-1].run}/tasks/judge" if asked else f"/dags/{dag}",
        who=who.replace("**", ""),
    )


def who_may(rails: Rails, spec: Spec, challenger: int, champion: int | None, asked_by: Collection[str]) -> str:
    """Who may approve a promotion of a model now, in sentences. `asked_by`: who asked for it; who had the version
    trained, and who released what it is made of, the ledger knows."""
    trained = rails.ledger.version(spec.name, challenger)
    asked = sorted({*asked_by, *(trained.requested_by.split(",") if trained else ())})
    released = releasers.behind(rails, spec, challenger, champion)
    rules = load_portfolio(rails.settings.models)
    people = rules.may_answer(spec.owner, clock.now().date(), [*asked, *released])
    return logins.who_may(people, asked, logins.known(rails.settings), rules.who, spec.gate.approvals, released)


def _best(decisions: Sequence[Decision], night: date) -> Decision | None:
    return best_of([decision for decision in decisions if decision.night == night])


def _in_vain(ledger: Ledger, event: Event) -> Decision | None:
    """What a refused approval was about, as long as it is the last word: no later night was judged, and nobody has
    changed the champion since."""
    if event.night is None:
        return None
    own = ledger.decisions(event.model, since=event.night)
    if any(decision.night > event.night for decision in own):
        return None
    if any(change.night >= event.night for change in ledger.changes(event.model)):
        return None
    best = _best(own, event.night)
    return best if best and best.verdict == "promote" else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
