"""Which promotion a person is asked about, and which approval did not count: read once, for the inbox, the pages,
`tiltyard start` and whoever is told.

An approval that does not count closes its night. It is told until somebody has asked again (whoever clears `judge` of
its run), or a later night was judged, whose verdict is another question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from tiltyard import operating
from tiltyard.edge import event_words
from tiltyard.edge.open_forms import Forms
from tiltyard.judge.best import best_of, by_how_much
from tiltyard.ledger import Ledger
from tiltyard.records import Decision, Event, Operation
from tiltyard.spec import Spec
from tiltyard.stages import STAGES, dag_id
from tiltyard.words import listed

REFUSED = "approval_refused"
"""Kind of the ledger's event about answers that do not count."""
LOOKED_BACK = timedelta(days=7)
"""Nights before its newest one of which a model's refused approvals are looked for."""


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """A promotion that a person is asked about."""

    decision: Decision
    """What the gate said of the challenger that it is about."""
    until: datetime
    """When silence counts as a no."""
    link: str
    """Where it is answered, below Airflow's address."""

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
    """The DAG whose task asks again, below Airflow's address."""

    @property
    def why(self) -> str:
        """Why it does not count and how to go on, as a sentence."""
        return (
            f"The approval does not hold: {listed(self.faults, '; ')}. Clear judge in its run, and it is asked again."
        )


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """What there is to answer, and what was answered in vain."""

    open: Mapping[str, Proposed]
    """Model → what is asked, of those of which something is."""
    refused: Mapping[str, Refused]
    """Model → what was refused, of those of which something was, and nothing is asked."""


def read(
    ledger: Ledger,
    specs: Sequence[Spec],
    operations: Mapping[str, Sequence[Operation]],
    newest: Mapping[str, date],
    forms: Forms,
    now: datetime,
) -> Proposals:
    """What there is to answer of models of the tier that asks. `newest`: model → its newest night, of those that have
    one. As many queries for a hundred models as for one, and one more for each of which an approval was refused."""
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
            link = f"/dags/{dag_id('promotion', name)}"
            vain[name] = Refused(decision=best, faults=_texts(event.detail.get("faults")), link=link)
    opened = {name: asked for name, best in proposed.items()
              if (asked := _asked(asking[name], best, operations.get(name, ()), forms, now))}  # fmt: skip
    return Proposals(open=opened, refused=vain)


def question(model: str, version: int, night: date) -> str:
    """What a person is asked about a challenger, in a line; `approvals` reads it back."""
    return f"Promote {model} version {version} on the night of {night}?"


def _asked(spec: Spec, best: Decision, operations: Sequence[Operation], forms: Forms, now: datetime) -> Proposed | None:
    """The question, as long as its answer would count. The form's own time counts, where there is one already."""
    if operating.hindrance(operations, best.night):
        return None
    dag, begins = dag_id("promotion", spec.name), question(spec.name, best.challenger, best.night)
    form = forms.find(dag, begins)
    until = ((form.asked_at if form else None) or best.recorded_at or now) + spec.gate.approval_timeout
    return Proposed(decision=best, until=until, link=forms.link(dag, begins)) if until > now else None


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
