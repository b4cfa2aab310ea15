"""The portfolio at a glance: a row per model, sorted by trouble, and all that waits for a person.

It is read from the ledger alone, with as many queries for a hundred models as for one, of the newest nights only: what
it costs grows with models, and not with nights. It is anchored to the newest night that was *attempted*, and not to the
newest that was scored: what stands still looks no better for it.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Final, Literal

from tiltyard import clock, operating
from tiltyard.answered import copying, delivery
from tiltyard.chronicle import NightLoss, lately
from tiltyard.edge import cost_page, describe_lake, logins, proposals, table_faults
from tiltyard.edge.open_forms import OPENING, Forms
from tiltyard.edge.proposals import Proposals, Proposed
from tiltyard.errors import BadInput
from tiltyard.govern import standing
from tiltyard.govern.bills import Bill
from tiltyard.ledger import Ledger, SummaryT
from tiltyard.outbox import SHOWN
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import contracts, ingest
from tiltyard.prepare.publishing import Feeding
from tiltyard.rails import Rails
from tiltyard.records import (
    DefaultTask,
    DriftSummary,
    Event,
    LakeMaintenanceSummary,
    OpenIncident,
    Operation,
    PromotionSummary,
    Record,
    ShadowSummary,
    StageRun,
    Status,
    TableState,
)
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio
from tiltyard.stages import NIGHTLY, STAGES, StageName, recorded_as
from tiltyard.succession import ChampionChange
from tiltyard.target import at_start
from tiltyard.upkeep import scrub
from tiltyard.words import clauses, counted, listed

log = logging.getLogger(__name__)

State = Literal[
    "failed", "held", "approve", "asked", "stopped", "unanswered", "alarm", "incident", "late", "frozen", "pinned",
    "default", "hold", "steady", "new", "retired",
]  # fmt: skip
STATES: Final[dict[State, str]] = {
    "failed": "a stage failed on the newest night",
    "held": "a table that it reads is not good, and stands as of an earlier night",
    "approve": "a promotion, or what somebody wants done, waits for a person",
    "asked": "it lasts on its safe default, and a person has not said why",
    "stopped": "a check stopped a stage on the newest night",
    "unanswered": "rows of the last week have no answer",
    "alarm": "its drift alarm stands",
    "incident": "an incident upstream holds its retrains",
    "late": "its newest night lies behind that of its source",
    "frozen": "a person wants it left as it is: scored and watched, and changed by nobody else",
    "pinned": "a person wants one version to serve, whatever the gate says",
    "default": "no version has earned its place yet; the safe default answers",
    "hold": "a challenger waits at the gate",
    "steady": "its champion answers, and nothing is asked of anybody",
    "new": "it has no night yet",
    "retired": "a person has taken it out of work; its safe default answers",
}
"""State of a model → what it means; the most trouble first."""
NIGHTS = 7
"""Nights whose ends are shown."""
OWED = 35
"""Nights of which it is told that their answers were not delivered."""
LOSSES = 30
"""Nights of which the measured loss is drawn."""
ERASING = timedelta(hours=1)
"""For so long an erasure may be at work before it is told as one that was ended."""
TOLD = timedelta(days=7)
"""How long it is told that one person has sent a model of tier 1 to its safe default."""
_SCORED: tuple[StageName, ...] = ("features", *(stage for stage in NIGHTLY if STAGES[stage].is_taken_up_again))
"""The stages that every night has; a training is not of every night."""
_BAD: dict[str, int] = {"failed": 0, "stopped": 1, "": 2, "done": 3}


@dataclass(frozen=True, kw_only=True)
class MeasuredLoss(Record):
    """What the champion lost on matured truth, as the night measured it."""

    night: date
    """The night."""
    champion: float | None
    """Of the champion, in the unit of the model's measure; None where none was measured."""
    safe_default: float | None
    """Of the safe default on the same rows; None where it was not measured."""


@dataclass(frozen=True, kw_only=True)
class ModelRow(Record):
    """A model at a glance."""

    model: str
    """Its name."""
    owner: str
    """Who owns it."""
    tier: int
    """1 for the highest stakes."""
    source: str
    """The source that it belongs to."""
    state: State
    """How it stands, in a word: of all that holds, what is most trouble."""
    reason: str
    """Why, as a sentence."""
    needs: str | None = None
    """What a person is to do; None where nobody is asked."""
    night: date | None = None
    """Its newest attempted night; None: none yet."""
    champion: int | None = None
    """The version in service; None for the safe default."""
    since: date | None = None
    """The night of the change that put it there; None where there was none."""
    challengers: tuple[int, ...] = ()
    """The versions in shadow."""
    measure: str
    """The figure that losses are in, like `brier`."""
    losses: tuple[MeasuredLoss, ...] = ()
    """By night."""
    gate: str | None = None
    """What the gate said last: promote, hold or reject; None without a challenger."""
    judged: int | None = None
    """The challenger that this is about: of several the one that is acted on."""
    gate_reason: str | None = None
    """What stands in the way, or speaks for it, as a sentence."""
    held: str | None = None
    """Who holds it, how, since when and why, as a sentence without an end; None where nobody does."""
    drift: str | None = None
    """The newest finding in a word; None before the first."""
    tiers: dict[str, int] = field(default_factory=dict)
    """Tier → answers that it gave on the newest scored night."""
    ends: tuple[tuple[date, Status | Literal[""]], ...] = ()
    """The last nights with how their stages ended, the worst of them; empty: not all has been done."""
    data_night: date | None = None
    """As of which night the oldest table that it reads stands; None: one was never good, or it has no night yet."""
    cpu_s: float | None = None
    """CPU seconds of a night, with its part of its source's features, on average; None where nothing was measured."""
    price: float | None = None
    """What a month of it comes to, in the board's currency; None without prices."""

    @property
    def hold(self) -> str | None:
        """How a person holds it, in a word, where its state says something worse; None where it does not."""
        word = self.held.partition(" ")[0] if self.held else None
        return None if word == self.state else word

    @property
    def nights_behind(self) -> int | None:
        """By how many nights its data are older than its newest night; None: not all was ever good, or no night yet."""
        return max(0, (self.night - self.data_night).days) if self.night and self.data_night else None

    @property
    def loss(self) -> MeasuredLoss | None:
        """The newest that was measured."""
        return next((loss for loss in reversed(self.losses) if loss.champion is not None), None)

    @property
    def against_default(self) -> float | None:
        """By how much of the safe default's loss the champion's is above it; None where either was not measured."""
        loss = self.loss
        if loss is None or loss.champion is None or not loss.safe_default:
            return None
        return loss.champion / loss.safe_default - 1


@dataclass(frozen=True, kw_only=True)
class SourceRow(Record):
    """A source at a glance."""

    source: str
    """Its name."""
    night: date | None
    """Its newest attempted night; None: none yet."""
    status: Status | None
    """How its features ended on it."""
    recorded_at: datetime | None
    """When that was put down, wall clock."""
    models: int
    """Number of models of it."""
    tables: tuple[TableState, ...] = ()
    """Its tables that are not good, what is made of them among them."""

    @property
    def worst(self) -> Status | None:
        """How it stands: how its features ended, or as its tables say where that is worse."""
        if not self.tables or self.status not in ("done", "checked"):
            return self.status
        return "failed" if any(state.state == "failed" for state in self.tables) else "stopped"


@dataclass(frozen=True, kw_only=True)
class Asked(Record):
    """Something that waits for a person."""

    kind: Literal[
        "approve", "uncounted", "operate", "explain", "table", "incident", "worse", "refused", "quarantined",
        "undelivered", "copying", "untold", "touched", "unerased", "damaged",
    ]  # fmt: skip
    """What it is."""
    subject: str
    """Whom or what it is about."""
    reason: str
    """Why, as a sentence."""
    since: date | None
    """The night since which it waits; None where that is not known."""
    until: datetime | None = None
    """When silence counts as an answer; None: never."""
    link: str
    """Where it is answered or seen, below Airflow's address."""
    models: tuple[str, ...] = ()
    """The models that are concerned; empty: all of them."""
    tables: tuple[str, ...] = ()
    """The tables that are at fault; empty where none is."""
    is_opening: bool = False
    """Whether its form is about to be opened: nobody can answer yet, and nobody is told."""


@dataclass(frozen=True, kw_only=True)
class Board(Record):
    """The whole portfolio at a glance."""

    models: tuple[ModelRow, ...]
    """By trouble, then tier, then name."""
    sources: tuple[SourceRow, ...]
    """By name."""
    inbox: tuple[Asked, ...]
    """What waits for a person, what ends soonest first."""
    incidents: tuple[OpenIncident, ...]
    """What is wrong upstream and not over."""
    trainings: int
    """Retrains that were granted on the newest night."""
    currency: str | None = None
    """The unit of money; None without prices."""

    @property
    def counts(self) -> dict[State, int]:
        """State → number of models, of those that there are, the most trouble first."""
        states = [row.state for row in self.models]
        return {state: states.count(state) for state in STATES if state in states}


def read(rails: Rails, specs: Sequence[Spec], now: datetime) -> Board:
    """The portfolio as the ledger has it. `now`: for what ends by itself."""
    ledger = rails.ledger
    names = [spec.name for spec in specs]
    sources = sorted({*rails.settings.sources, *(spec.source for spec in specs)})
    attempted = {stage: ledger.newest_attempts(stage, names) for stage in NIGHTLY}
    of_source = ledger.newest_attempts("features", sources)
    anchors = {
        spec.name: max(nights)
        for spec in specs
        if (nights := [own[spec.name] for own in attempted.values() if spec.name in own])
    }
    lately = {name: night - timedelta(days=NIGHTS - 1) for name, night in anchors.items()}
    drawn = {name: night - timedelta(days=LOSSES - 1) for name, night in anchors.items()}
    problems: dict[str, str] = {}
    forms = Forms(rails.settings)
    delivered = {name: _delivered(rails.settings, name) for name in sources}
    operations = ledger.operations.of(names)
    at_work = [spec for spec in specs if operating.standing(operations[spec.name]).retired is None]
    costs = cost_page.sums(rails, portfolio(rails.settings))  # of all: models bear the parts of what they share
    facts = _Facts(
        rails=rails,
        operations=operations,
        proposals=proposals.read(rails, at_work, operations, anchors, forms, now),
        problems=problems,
        now=now,
        anchors=anchors,
        of_source=of_source,
        delivered=delivered,
        shadow=runs(ledger, ShadowSummary, lately, problems),
        drift=runs(ledger, DriftSummary, attempted["drift"], problems),
        promotion=runs(ledger, PromotionSummary, attempted["promotion"], problems),
        losses=ledger.chronicle.losses(drawn),
        changes=ledger.changes_of(names),
        challengers={
            name: roles.challengers
            for name, roles in ledger.roles_of({name: night + clock.NIGHT for name, night in anchors.items()}).items()
        },
        ends=_ends(rails, specs, anchors, of_source, delivered),
        states={state.table: state for state in ledger.table_states()},
        tasks={task.model: task for task in _tasks(ledger, names, problems) if task.is_open},
        forms=forms,
        bills={bill.name: bill for bill in costs.bills if bill.cpu_s},
        incidents=tuple(standing.incidents(rails)),
    )
    rows = sorted((facts.row(spec) for spec in specs), key=trouble)
    newest = max(anchors.values(), default=None)
    return Board(
        models=tuple(rows),
        sources=tuple(facts.source(name, specs) for name in sources),
        inbox=tuple(facts.inbox(at_work)),
        incidents=facts.incidents,
        trainings=len(ledger.retrains(until=newest, since=newest)) if newest else 0,
        currency=costs.currency,
    )


def runs(
    ledger: Ledger, kind: type[SummaryT], since: Mapping[str, date], problems: dict[str, str]
) -> dict[str, list[StageRun[SummaryT]]]:
    """Model → how a stage went since a night, in one query; where a record cannot be read, which then is its model's
    problem and nobody else's, model by model."""
    try:
        return ledger.runs_since(kind, since)
    except ValueError:
        found: dict[str, list[StageRun[SummaryT]]] = {}
        for model, night in since.items():
            try:
                found |= ledger.runs_since(kind, {model: night})
            except ValueError:
                log.exception("The records of %s of %s cannot be read.", kind.stage, model)
                problems[model] = f"what the ledger says of its {kind.stage} cannot be read; the log says why"
        return found


def _tasks(ledger: Ledger, models: Sequence[str], problems: dict[str, str]) -> list[DefaultTask]:
    """What persons were asked; where that of one model cannot be read, which is its own problem, of the others."""
    try:
        return ledger.default_tasks()
    except ValueError:
        tasks: list[DefaultTask] = []
        for model in models:
            try:
                tasks += ledger.default_tasks(model)
            except ValueError:
                log.exception("What was asked of %s, or answered, cannot be read.", model)
                problems[model] = "what the ledger says of its safe default cannot be read; the log says why"
        return tasks


def trouble(row: ModelRow) -> tuple[int, int, str]:
    """What rows are sorted by: trouble, then tier, then name."""
    return [*STATES].index(row.state), row.tier, row.model


def _ends(
    rails: Rails,
    specs: Sequence[Spec],
    anchors: Mapping[str, date],
    of_source: Mapping[str, date],
    delivered: Mapping[str, Collection[str]],
) -> dict[str, tuple[tuple[date, Status | Literal[""]], ...]]:
    """Model → its last nights with the worst end of its stages and tables, the newest of its source's the last. A table
    that was not good on a night was stopped, or had failed, whatever the stages made of it. That its source was stopped
    for a table which a model does not stand on is no trouble of that model's."""
    newest = {spec.name: max(anchors[spec.name], of_source.get(spec.source, anchors[spec.name]))
              for spec in specs if spec.name in anchors}  # fmt: skip
    ends = {}
    for stage in _SCORED:
        since: dict[str, date] = {}
        for spec in specs:
            if spec.name in newest:
                name = recorded_as(stage, spec.name, spec.source)
                first = newest[spec.name] - timedelta(days=NIGHTS - 1)
                since[name] = min(since.get(name, first), first)
        ends[stage] = rails.ledger.ends(stage, since)
    held: dict[tuple[str, date], str] = {}
    if newest:
        first = min(newest.values()) - timedelta(days=NIGHTS - 1)
        held = {(state.table, state.night): state.state
                for state in rails.ledger.unpublished_states(first, max(newest.values()))}  # fmt: skip
    tables = {source: _tables_of(specs, source, held, delivered[source]) for source in {spec.source for spec in specs}}
    shown: dict[str, tuple[tuple[date, Status | Literal[""]], ...]] = {}
    for spec in specs:
        if spec.name not in newest:
            continue
        nights = [newest[spec.name] - timedelta(days=back) for back in reversed(range(NIGHTS))]
        of_night: list[tuple[date, Status | Literal[""]]] = []
        for night in nights:
            own = {
                stage: of.get(recorded_as(stage, spec.name, spec.source), {}).get(night) for stage, of in ends.items()
            }
            if any(own.values()):
                words: list[Status | Literal[""]] = [end.status if end else "" for end in own.values()]
                if words[0] == "stopped" and any((table, night) in held for table in tables[spec.source]):
                    words[0] = "done"  # the tables say for whom
                of_tables = [held[table, night] for table in spec.tables if (table, night) in held]
                words += ["failed" if state == "failed" else "stopped" for state in of_tables]
                of_night.append((night, min(words, key=lambda word: _BAD.get(word, 1))))
        shown[spec.name] = tuple(of_night)
    return shown


def _tables_of(
    specs: Sequence[Spec], source: str, held: Mapping[tuple[str, date], str], delivered: Collection[str]
) -> frozenset[str]:
    """The tables of a source: what it delivers, what is staged of that, and what its models read."""
    own = {table for spec in specs if spec.source == source for table in spec.tables}
    own |= {table for table, _ in held if table.startswith(f"stg_{source}__")}
    return frozenset(own | {*delivered})


def _delivered(settings: Settings, source: str) -> tuple[str, ...]:
    """The raw tables of a source; none of one whose contract is gone or does not hold, which is no other's trouble."""
    try:
        return tuple(contracts.raw_tables(settings, source))
    except BadInput as error:
        log.warning("%s", error)
        return ()


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What was read of all models at once."""

    rails: Rails
    problems: Mapping[str, str]
    """Model → what of it cannot be read."""
    now: datetime
    anchors: Mapping[str, date]
    of_source: Mapping[str, date]
    delivered: Mapping[str, Collection[str]]
    shadow: Mapping[str, Sequence[StageRun[ShadowSummary]]]
    drift: Mapping[str, Sequence[StageRun[DriftSummary]]]
    promotion: Mapping[str, Sequence[StageRun[PromotionSummary]]]
    losses: Mapping[str, Sequence[NightLoss]]
    changes: Mapping[str, Sequence[ChampionChange]]
    challengers: Mapping[str, Sequence[int]]
    ends: Mapping[str, tuple[tuple[date, Status | Literal[""]], ...]]
    states: Mapping[str, TableState]
    tasks: Mapping[str, DefaultTask]
    incidents: tuple[OpenIncident, ...]
    operations: Mapping[str, Sequence[Operation]]
    proposals: Proposals
    forms: Forms
    bills: Mapping[str, Bill]

    def held(self, spec: Spec) -> operating.Standing:
        """What persons hold of a model."""
        return operating.standing(self.operations[spec.name])

    def row(self, spec: Spec) -> ModelRow:
        """A model's row."""
        state, reason, needs = self.state(spec)
        change = self.changes[spec.name][-1] if self.changes[spec.name] else None
        shadow = self.shadow.get(spec.name, ())
        scored = next((run for run in reversed(shadow) if run.summary.tiers), None)
        judged, proposed = self.judged(spec), self.proposal(spec)
        drift = self.drift.get(spec.name, ())
        bill = self.bills.get(spec.name)
        return ModelRow(
            model=spec.name,
            owner=spec.owner,
            tier=spec.tier,
            source=spec.source,
            state=state,
            reason=reason,
            needs=needs,
            night=self.anchors.get(spec.name),
            champion=change.champion if change else None,
            since=change.night if change else None,
            challengers=tuple(self.challengers.get(spec.name, ())),
            measure=spec.target.measure,
            losses=tuple(_loss(night, spec) for night in self.losses.get(spec.name, ())),
            gate="promote" if proposed else judged.summary.verdict if judged else None,
            judged=proposed.decision.challenger if proposed else judged.summary.challenger if judged else None,
            gate_reason=proposed.why if proposed else next(iter(judged.summary.reasons if judged else ()), None),
            held=self.held(spec).in_words(),
            drift=drift[-1].summary.verdict or drift[-1].status if drift else None,
            tiers=dict(scored.summary.tiers) if scored else {},
            ends=self.ends.get(spec.name, ()),
            data_night=self.data_night(spec),
            cpu_s=bill.cpu_s if bill else None,
            price=bill.price if bill else None,
        )

    def data_night(self, spec: Spec) -> date | None:
        """As of which night the oldest table that a model reads stands."""
        night = self.anchors.get(spec.name)
        unpublished = [self.states[name] for name in spec.tables if not self.good(name)]
        good = [state.good_night for state in unpublished]
        return None if night is None or None in good else min([night, *(day for day in good if day)])

    def judged(self, spec: Spec) -> StageRun[PromotionSummary] | None:
        """The newest night's word of the gate on a challenger."""
        runs = self.promotion.get(spec.name, ())
        return runs[-1] if runs and runs[-1].summary.challenger is not None else None

    def proposal(self, spec: Spec) -> Proposed | None:
        """A promotion that waits for a person."""
        return self.proposals.open.get(spec.name)

    def asked_for(self, spec: Spec) -> Operation | None:
        """What somebody wants done to a model, and a second person has to confirm."""
        return next((one for one in self.operations[spec.name] if one.state(self.now) == "waiting"), None)

    def state(self, spec: Spec) -> tuple[State, str, str | None]:
        """How a model stands in a word, why, and what a person is to do."""
        if retired := self.held(spec).retired:
            return "retired", f"it is {operating.in_words(retired)}; {operating.back_in_words(retired)}", None
        if spec.name not in self.anchors:
            return "new", f"no night yet; tiltyard hindcast --model {spec.name} plays past ones", None
        if problem := self.problems.get(spec.name):
            return "failed", problem, "look into the log of the API server"
        ends = self.ends.get(spec.name, ())
        newest = ends[-1] if ends else None
        if newest and newest[1] == "failed":
            return "failed", f"{self.culprit(spec, 'failed')} failed on {newest[0]}", "look into the failed task"
        if held := [self.states[name] for name in spec.tables if not self.good(name)]:
            first = min(held, key=lambda state: (state.state != "failed", state.table))
            return "held", str(first), "mend what stopped it, and let the night run again"
        if proposed := self.proposal(spec):
            version = proposed.decision.challenger
            return "approve", f"version {version} may be promoted; {_until(proposed)}", "approve or reject"
        if refused := self.proposals.refused.get(spec.name):
            return "approve", f"version {refused.decision.challenger}: {refused.why}", "clear judge to be asked again"
        if asked := self.asked_for(spec):
            return "approve", f"{operating.asked_in_words(asked)}; silence is a no", "approve or reject"
        if task := self.tasks.get(spec.name):  # after what silence answers: this waits as long as nobody says it
            return "asked", f"on its safe default since {task.since}", "say why (the form of its explanation)"
        if newest and newest[1] == "stopped":
            return "stopped", f"{self.culprit(spec, 'stopped')} was stopped on {newest[0]}", "look at what was found"
        shadow = self.shadow.get(spec.name, ())
        if shadow and (rows := sum(shadow[-1].summary.unanswered.values())):
            return "unanswered", f"{counted(rows, 'row')} of the last week without an answer", None
        drift = self.drift.get(spec.name, ())
        if drift and drift[-1].summary.alarm:
            return "alarm", clauses(drift[-1].summary.reasons[:2]) or "its drift alarm stands", None
        if own := [incident for incident in self.incidents if spec.name in incident.models]:
            return "incident", f"{own[0].node}: {own[0].reason}", "mend it, or release the shift"
        source = self.of_source.get(spec.source)
        if source and source > self.anchors[spec.name]:
            return "late", f"its newest night is {self.anchors[spec.name]}, that of its source {source}", None
        return self.quiet(spec)

    def quiet(self, spec: Spec) -> tuple[State, str, str | None]:
        """The same where nothing is wrong."""
        changes, judged = self.changes[spec.name], self.judged(spec)
        why = judged.summary.reasons[0] if judged and judged.summary.reasons else "nobody challenges yet"
        held = self.held(spec)
        if words := held.in_words():
            return "pinned" if held.pinned else "frozen", f"it is {words}", None
        if not changes or changes[-1].champion is None:
            return "default", f"the safe default answers; {why}", None
        if judged and judged.summary.verdict == "hold":
            due = f" {at_start(str(judged.summary.due))}." if judged.summary.due else ""
            return "hold", f"version {judged.summary.challenger}: {why}{due}", None
        return "steady", f"version {changes[-1].champion} answers since {changes[-1].night}", None

    def good(self, table: str) -> bool:
        """Whether a table is in service as of its newest night."""
        return table not in self.states or self.states[table].is_published

    def culprit(self, spec: Spec, status: Status) -> str:
        """The stage, or the table, that ended like that on the newest night, in a word."""
        for of_stage in (self.shadow, self.promotion, self.drift):
            runs = of_stage.get(spec.name, ())
            if runs and runs[-1].status == status:
                reason = runs[-1].summary.reason
                return f"its {runs[-1].summary.stage}" + (f" ({reason.rstrip('.')})" if reason else "")
        states = [self.states[name] for name in spec.tables if not self.good(name)]
        at_fault = sorted({state.cause or state.table for state in states if state.state in ("failed", "blocked")})
        if status == "failed" and at_fault:
            own = self.states.get(at_fault[0])
            return f"{at_fault[0]}" + (f" ({own.reason.rstrip('.')})" if own and own.reason else "")
        return f"the features of {spec.source}"

    def source(self, name: str, specs: Sequence[Spec]) -> SourceRow:
        """A source's row."""
        end = self.rails.ledger.last_end("features", name)
        own = {table for spec in specs if spec.source == name for table in spec.tables}
        own |= {*self.delivered[name]} | {*(self.feeding.below(name) if self.feeding else ())}
        return SourceRow(
            source=name,
            night=end.night if end else None,
            status=end.status if end else None,
            recorded_at=end.recorded_at if end else None,
            models=sum(spec.source == name for spec in specs),
            tables=tuple(
                state for table, state in sorted(self.states.items()) if table in own and not self.good(table)
            ),
        )

    def inbox(self, specs: Sequence[Spec]) -> list[Asked]:
        """What waits for a person: what ends by itself first, then by age."""
        asked = [
            Asked(kind="approve", subject=f"{name} v{one.decision.challenger}", reason=f"{one.why} {one.who}".strip(),
                  since=one.decision.night, until=one.until, link=one.link, models=(name,), is_opening=one.is_opening)
            for name, one in sorted(self.proposals.open.items())
        ]  # fmt: skip
        asked += [
            Asked(kind="uncounted", subject=f"{name} v{one.decision.challenger}", reason=one.why,
                  since=one.decision.night, link=one.link, models=(name,))
            for name, one in sorted(self.proposals.refused.items())
        ]  # fmt: skip
        asked += [item for spec in specs for item in self.by_hand(spec)]
        asked += [
            Asked(kind="explain", subject=name, reason=f"on its safe default since {task.since}", since=task.opened,
                  link=self.forms.link(f"{name}__explanation"), models=(name,))
            for name, task in sorted(self.tasks.items()) if any(spec.name == name for spec in specs)
        ]  # fmt: skip
        asked += self.tables(specs)
        asked += [
            Asked(kind="incident", subject=incident.node,
                  reason=f"{incident.kind.replace('_', ' ')}: {incident.reason}",
                  since=incident.since, link=f"/tiltyard/incidents/{incident.node}", models=incident.models)
            for incident in self.incidents if not incident.closing and incident.node not in self.states
        ]  # fmt: skip
        accepted = self.rails.ledger.release()
        asked += [
            Asked(kind="refused", subject=text.path, reason=text.reason, since=None, link="/tiltyard/",
                  models=tuple(spec.name for spec in specs if f"{text.path}/".startswith(f"models/{spec.name}/")))
            for text in (accepted.refused if accepted else ())
        ]  # fmt: skip
        for name, night in sorted(self.of_source.items()):  # of those as well whose models are all retired
            asked += [
                Asked(kind="quarantined", subject=file.file, since=file.night,
                      reason=f"{file.reason.rstrip('.')}. Mend it, and run tiltyard replace {name} FILE",
                      link=f"/tiltyard/sources/{name}#quarantine",
                      models=tuple(spec.name for spec in specs if spec.source == name))
                for file in ingest.quarantined(self.rails, name, night)
            ]  # fmt: skip
        asked += self.undelivered(specs)
        asked += self.copying(specs)
        kept = self.rails.ledger.last_stage_run(LakeMaintenanceSummary)
        if kept and kept.summary.chain_faults:
            why = f"it is not what was put down: {listed(kept.summary.chain_faults, '; ')}"
            asked.append(
                Asked(kind="touched", subject="the ledger", reason=why, since=kept.night,
                      link="/dags/lake_maintenance")
            )  # fmt: skip
        asked += self.unerased()
        asked += [
            Asked(kind="damaged", subject=one.table, reason=describe_lake.damage(one), since=one.found_at.date(),
                  link="/dags/lake_maintenance", models=one.models)
            for one in scrub.damages(self.rails) if one.is_current
        ]  # fmt: skip
        unsent = {entry.to: entry for entry in self.rails.ledger.outbox.unsent(self.now - SHOWN)}
        asked += [
            Asked(kind="untold", subject=name, reason=entry.error or "it took nothing", since=entry.created_at.date(),
                  link="/dags/alerts")
            for name, entry in sorted(unsent.items())
        ]  # fmt: skip
        far = datetime.max.replace(tzinfo=self.now.tzinfo)
        return sorted(asked, key=lambda item: (item.until or far, item.since or date.max, item.subject))

    def unerased(self) -> list[Asked]:
        """The erasures that are not done: killed, or with something left. One that works has an hour."""
        receipts = {receipt.erasure: receipt for receipt in self.rails.ledger.erasures.receipts(done=False)}
        found = []
        for one in self.rails.ledger.erasures.unfinished():
            receipt = receipts.get(one.id)
            if receipt is None and self.now - one.recorded_at < ERASING:
                continue
            left = f"still in {listed(receipt.left)}" if receipt else "it was ended before it was done"
            what = f"failed erasure {one.id} of {counted(len(one.hashes), one.entity)} ({one.reason}): {left}"
            found.append(
                Asked(kind="unerased", subject=f"erasure {one.id}", reason=what, since=one.recorded_at.date(),
                      link="/tiltyard/")
            )  # fmt: skip
        return found

    def tables(self, specs: Sequence[Spec]) -> list[Asked]:
        """The tables that are at fault, those of one cause together."""
        source_of = {table: spec.source for spec in specs for table in spec.tables}
        read = source_of.keys() | self.upstream(specs)
        own = {table: name for name in {spec.source for spec in specs} for table in self.delivered[name]}
        at_fault = (state for name, state in self.states.items()
                    if not self.good(name) and state.cause in (None, name) and name in read)  # fmt: skip
        found = []
        for fault in table_faults.together(at_fault, own):
            models = {model for state in fault.tables for model in self.readers(specs, state.table)}
            first = fault.tables[0]
            since = min((state.since for state in fault.tables if state.since), default=None)
            found.append(
                Asked(kind="table", subject=fault.subject, reason=fault.reason, since=since,
                      link=self.checks_of(first, source_of.get(first.table)),
                      models=tuple(spec.name for spec in specs if spec.name in models),
                      tables=tuple(state.table for state in fault.tables))
            )  # fmt: skip
        return found

    def undelivered(self, specs: Sequence[Spec]) -> list[Asked]:
        """The models whose answers are not where they are to be, and why, until they are there."""
        since = {spec.name: lately(self.anchors[spec.name], OWED) for spec in specs
                 if spec.deliver and spec.name in self.anchors}  # fmt: skip
        waiting: dict[str, list[Event]] = {}
        for event in self.rails.ledger.newest_events(since, delivery.KINDS):
            if event.kind == delivery.FAILED:
                waiting.setdefault(event.model, []).append(event)
        return [
            Asked(kind="undelivered", subject=name, since=events[0].night, link=f"/tiltyard/models/{name}",
                  reason=f"{events[0].detail.get('to')}: {events[-1].detail.get('reason')}", models=(name,))
            for name, events in waiting.items()
        ]  # fmt: skip

    def copying(self, specs: Sequence[Spec]) -> list[Asked]:
        """The models of which somebody who asks the service may have a copy."""
        since = {spec.name: lately(self.anchors[spec.name], OWED) for spec in specs if spec.name in self.anchors}
        newest = {event.model: event for event in self.rails.ledger.newest_events(since, copying.KINDS)}
        return [
            Asked(kind="copying", subject=name, since=date.fromisoformat(str(event.detail["since"])),
                  reason=str(event.detail["reason"]), link=f"/tiltyard/models/{name}", models=(name,))
            for name, event in sorted(newest.items()) if event.kind == copying.MUCH
        ]  # fmt: skip

    def by_hand(self, spec: Spec) -> list[Asked]:
        """What of a model's operations somebody has to see to: one that waits for a second person, a tier 1 that one
        person has sent to its safe default, and a champion that does worse and is held."""
        found = []
        if one := self.asked_for(spec):
            form = self.forms.find("operate", f"Operation {one.id}:")  # none where it was asked on the command line
            is_opening = form is None and one.source == "airflow" and self.now - one.requested_at < OPENING
            found.append(
                Asked(kind="operate", subject=f"{operating.what(one)} ({one.id})",
                      reason=f"{one.requested_by} asks for it: {one.reason.rstrip('.')}. {self.confirming(spec, one)}",
                      since=self.anchors.get(spec.name), until=one.until, link=form.link if form else "/dags/operate",
                      models=(spec.name,), is_opening=is_opening)
            )  # fmt: skip
        changed = self.changes[spec.name][-1] if self.changes[spec.name] else None
        if spec.tier == 1 and changed and changed.action == "rollback" and changed.champion is None:
            last = [one for one in operating.in_order(self.operations[spec.name]) if one.action == "rollback"][-1]
            if self.now - (last.decided_at or self.now) < TOLD:
                found.append(
                    Asked(kind="operate", subject=f"{spec.name} on its safe default",
                          reason=operating.done_in_words(last), since=last.night, link=f"/tiltyard/models/{spec.name}",
                          models=(spec.name,))
                )  # fmt: skip
        runs = self.promotion.get(spec.name, ())
        watch = runs[-1].summary.watch if runs else None
        if watch is not None and watch.is_held and self.held(spec).hold:
            found.append(
                Asked(kind="worse", subject=f"{spec.name} v{watch.champion}", reason=watch.reasons[0],
                      since=runs[-1].night, link=f"/tiltyard/models/{spec.name}", models=(spec.name,))
            )  # fmt: skip
        return found

    def confirming(self, spec: Spec, one: Operation) -> str:
        """Who may confirm an operation, in a sentence: in its form, or on a command line, which needs no login."""
        rules = load_portfolio(self.rails.settings.models)
        people = rules.may_answer(spec.owner, self.now.date(), (one.requested_by,))
        return logins.who_may(people, (one.requested_by,), None, rules.who)

    def checks_of(self, state: TableState, source: str | None) -> str:
        """Where it is seen why a table is not good: the page of the checks of its night, with the rows; where none was
        drawn, the page of its source. `source`: of a table that a model reads, the model's."""
        fed = sorted(self.feeding.of_table(state.table)) if self.feeding else []
        for name in dict.fromkeys([*fed, *([source] if source else [])]):
            page = f"checks/{name}/{state.night}.html"
            if (self.rails.settings.reports / page).is_file():
                return f"/tiltyard/reports/{page}"
        owner = source or next(iter(fed), None)
        return f"/tiltyard/sources/{owner}" if owner else "/tiltyard/reports/checks/"

    def readers(self, specs: Sequence[Spec], table: str) -> tuple[str, ...]:
        """The models that stand on a table, at whatever distance."""
        if self.feeding:
            return self.feeding.readers(specs, table)
        return tuple(spec.name for spec in specs if table in spec.tables)

    @cached_property
    def feeding(self) -> Feeding | None:
        """Which table stands on which; None before dbt has built anything."""
        return Feeding.as_built(self.rails.settings)

    def upstream(self, specs: Sequence[Spec]) -> set[str]:
        """The tables that lie before those that the models read, of their sources."""
        sources = {spec.source for spec in specs}
        raw = {table for name in sources for table in self.delivered[name]}
        return raw | {name for name in self.states if name.startswith(tuple(f"stg_{source}__" for source in sources))}


def _until(proposed: Proposed) -> str:
    """What becomes of a question without an answer, as half a sentence."""
    if proposed.until is None:
        return proposed.who[:1].lower() + proposed.who[1:].rstrip(".")
    return "silence is a no"


def _loss(night: NightLoss, spec: Spec) -> MeasuredLoss:
    """What a night measured of the version that was champion then."""
    more, own = night.champion.get("more"), night.champion.get(spec.target.measure)
    value = more.get(spec.target.measure) if own is None and isinstance(more, dict) else own
    loss = float(value) if isinstance(value, int | float) else None
    return MeasuredLoss(night=night.night, champion=loss, safe_default=night.safe_default)
