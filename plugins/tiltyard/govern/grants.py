"""The governor stage, portfolio-wide: the findings of all models on one night → at most the trainings that it allows.

It comes after the drift of every model and reads nothing but the ledger and dbt's manifest. `governor.govern` decides;
what it decided is written under a fence: the retrains, which start trainings, the incidents of the night, and one
record of the stage. A night done again grants what it granted, and what has become possible since.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

from tiltyard import operating
from tiltyard import spec as specs_module
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.govern import governor
from tiltyard.govern.governor import GovernorOutcome
from tiltyard.govern.history import Became, Drifting, Grant, Mended, ModelHistory, NightHistory
from tiltyard.govern.lineage import Lineage
from tiltyard.govern.standing import incidents
from tiltyard.portfolio_rules import Portfolio, load_portfolio
from tiltyard.prepare import contracts, data_incidents, transform
from tiltyard.prepare.data_incidents import RELEASED
from tiltyard.rails import Rails
from tiltyard.records import (
    DataIncident,
    GovernorAction,
    GovernorSummary,
    JsonObject,
    PortfolioNight,
    Release,
    TrainingSummary,
)
from tiltyard.spec import Spec
from tiltyard.stages import StageName

STAGE: StageName = "governor"
STOPPABLE: tuple[StageName, ...] = ("shadow", "drift")
"""The stages that a model passes before the governor."""
UNHEARD = timedelta(days=2)
"""A training of which nothing was heard for so many nights is not running any more: it failed."""
NIGHT = timedelta(days=1)
GAP = timedelta(days=7)
"""Over more nights than this without a governor, what drifted before and drifts now is not the same drift."""


def govern_night(
    rails: Rails, as_of: datetime, specs: Sequence[Spec] | None = None, portfolio: Portfolio | None = None
) -> PortfolioNight:
    """Decide on one night for `specs` (default: the active models), and ask for the retrains that are granted.

    Models without a finding wait. Raises BadInput where there is no dbt project to build a lineage from.
    """
    night = night_closing(as_of)
    claim = rails.ledger.claim(f"{STAGE}/{night}")
    models = {spec.name: spec for spec in (specs_module.portfolio(rails.settings) if specs is None else specs)}
    held = {name: operating.standing(own, night) for name, own in rails.ledger.operations.of(models).items()}
    models = {name: spec for name, spec in models.items() if held[name].retired is None}
    outcome = governor.govern(
        rails.ledger.findings(night),
        Lineage.of(transform.manifest(rails.settings), models.values()),
        _history(rails, night),
        {name: spec.drift for name, spec in models.items()},
        portfolio or load_portfolio(rails.settings.models),
        {name: spec.retrain for name, spec in models.items()},
        {name: f"it is {operating.in_words(own.frozen)}" for name, own in held.items() if own.frozen is not None},
    )
    actions = _actions(outcome)
    granted = {model: actions[model].reasons for model in outcome.granted}
    with claim.held():
        for model, reasons in granted.items():
            rails.ledger.request_retrain(model, night, reasons)
        # a run for some models leaves the incidents that are none of theirs
        of_others = [row for row in rails.ledger.incidents(night) if models.keys().isdisjoint(row.models)]
        rails.ledger.set_incidents(night, [*of_others, *outcome.incidents])
        rails.ledger.record_stage("", night, "done", _summary(rails, outcome))
    return PortfolioNight(
        night=night, granted=granted, actions=actions, incidents=outcome.incidents, decisions=counted(outcome)
    )


def counted(outcome: GovernorOutcome) -> dict[str, int]:
    """Decision → number of models, without those that no model got."""
    decisions = [action.decision for action in outcome.actions]
    return {decision: decisions.count(decision) for decision in sorted(set(decisions))}


def published(rails: Rails, specs: Iterable[Spec], back: timedelta) -> set[date]:
    """The nights of which features of any source of these models were published, less than `back` before the newest of
    that source: the data of two sources may be years apart."""
    newest = rails.ledger.newest_nights("features", _publishers(specs))
    ends = rails.ledger.ends("features", {source: night - back + NIGHT for source, night in newest.items()})
    return {night for own in ends.values() for night, end in own.items() if end.status == "done"}


def taking_part(rails: Rails, specs: Iterable[Spec], night: date) -> list[Spec]:
    """The models of sources that have a run for a night, by their schedule or by their record; without those that came
    later than that night, those that are retired on it, and those that a hindcast plays at this moment."""
    specs = list(specs)
    names = [spec.name for spec in specs]
    first = rails.ledger.first_nights(names)
    away = rails.ledger.played(names) | rails.ledger.operations.retired(names, night)
    specs = [spec for spec in specs if night >= first.get(spec.name, date.min) and spec.name not in away]
    publishers = _publishers(specs)
    ends = rails.ledger.ends("features", dict.fromkeys(publishers, night), until=night)
    begun = {source for source in publishers if night in ends[source]}
    begun |= {source for source in publishers - begun - {""} if contracts.is_expected(rails.settings, source, night)}
    return [spec for spec in specs if not begun.isdisjoint({spec.source, ""})]


def waiting(rails: Rails, specs: Sequence[Spec], night: date, now: datetime) -> list[str]:
    """The models that take part in a night, have not been looked at on it and may still be, by name. `now`: wall clock.

    None is waited for once a later night of its source is published, or `governor_wait_h` hours after this one was:
    what has not come by then is late, and the others go on.
    """
    publishers = _publishers(specs)
    ends = rails.ledger.ends("features", dict.fromkeys(publishers, night), until=night)
    published_at = [own[night].recorded_at for own in ends.values() if night in own and own[night].status == "done"]
    if published_at and now - max(published_at) >= timedelta(hours=rails.settings.governor_wait_h):
        return []
    newest = rails.ledger.newest_nights("features", publishers)
    gone = {source for source, day in newest.items() if day > night}
    may_come = {spec.name for spec in taking_part(rails, specs, night) if gone.isdisjoint({spec.source, ""})}
    missing = may_come - rails.ledger.looked_at(night)
    for stage in STOPPABLE:
        stopped = rails.ledger.ends(stage, dict.fromkeys(missing, night), until=night)
        missing -= {
            name for name, own in stopped.items() if night in own and own[night].status in ("stopped", "failed")
        }
    return sorted(missing)


def _publishers(specs: Iterable[Spec]) -> set[str]:
    """Under which names features of these models are recorded: their sources', or, in older ledgers, all sources'."""
    return {spec.source for spec in specs} | {""}


def undecided(rails: Rails, models: Iterable[str], night: date) -> list[str]:
    """Those of the models on which nothing was decided yet for a night, or only that they wait."""
    entry = rails.ledger.stage_run(GovernorSummary, "", night)
    actions = entry.summary.actions if entry else {}
    return sorted(model for model in models if model not in actions or actions[model].decision == "waiting")


def decided(rails: Rails, model: str, night: date) -> GovernorAction | None:
    """What the governor decided for a model on a night; None before it did."""
    return actions(rails, night).get(model)


def actions(rails: Rails, night: date) -> Mapping[str, GovernorAction]:
    """Model → what the governor decided for it on a night."""
    entry = rails.ledger.stage_run(GovernorSummary, "", night)
    return entry.summary.actions if entry else {}


# -- incidents ------------------------------------------------------------------------------------


def release(rails: Rails, node: str, *, by: str, reason: str, as_of: datetime | None = None) -> Release:
    """A person's word that what moved at `node` is the world and no fault; kept with name and reason.

    From the night on that is given, by default the newest that was governed, its models may retrain on it. Raises
    BadInput when nothing is held there, or when it is broken data, which only its mending closes. Labels that are
    suspect may be released as well.
    """
    open_now = incidents(rails, as_of)
    if not reason.strip():
        raise BadInput("A release needs a reason, like --reason 'prices rose on 1 March'.")
    here = [incident for incident in open_now if incident.node == node]
    if not here:
        may_be = [one.node for one in open_now if one.kind != "broken" or _suspect_labels(rails, one.node, one.night)]
        nodes = ", ".join(may_be) or "none"
        raise BadInput(f"No incident is open at '{node}'; those that a person may release are: {nodes}.")
    labels = _suspect_labels(rails, node, here[0].night)
    if all(incident.kind == "broken" for incident in here) and not labels:
        raise BadInput(f"The data of {node} is broken, which nobody can release; mend it, and the incident closes.")
    night = here[0].night
    if labels:
        for source, incident in labels:
            words = f"released by {by}: {reason.strip()}"
            data_incidents.record_change(rails, source, night, incident.key, "closed", words, incident.since)
    detail: JsonObject = {"node": node, "by": by, "reason": reason.strip()}
    rails.ledger.add_event(RELEASED, "", night, detail)
    models = {model for incident in here for model in incident.models}
    return Release(node, night, by, reason.strip(), tuple(sorted(models)))


def _suspect_labels(rails: Rails, table: str, night: date) -> list[tuple[str, DataIncident]]:
    """(source, incident) of labels that contradict what was said of their rows: a fault and a world that has turned
    look the same from here, so that a person may say which it is."""
    return [
        (source, incident)
        for source in sorted(
            {spec.source for spec in specs_module.portfolio(rails.settings) if spec.label.table == table}
        )
        for incident in data_incidents.of_source(rails, source, night)
        if incident.table == table and incident.what.startswith(data_incidents.SUSPECT)
    ]


# -- what is known of the nights before ---------------------------------------------------------------


def _history(rails: Rails, night: date) -> NightHistory:
    before = rails.ledger.last_stage_run(GovernorSummary, before=night)
    since: dict[Drifting, date] = {}
    if before is not None and before.night >= night - GAP:
        for model, kind, column, day in before.summary.since:
            since[Drifting(model, kind, column)] = day
    return NightHistory(
        night=night,
        models=_pasts(rails, night),
        since=since,
        incidents=rails.ledger.incidents(before.night) if before else (),
        releases=tuple(
            Release.from_json({**event.detail, "night": event.night})
            for event in rails.ledger.events(kind=RELEASED)
            if event.night is not None and event.night <= night
        ),
        mended=tuple(Mended(*closed) for closed in data_incidents.mended(rails, night)),
    )


def _pasts(rails: Rails, night: date) -> dict[str, ModelHistory]:
    """Every model that ever asked → its retrains until `night` and what had become of each by then."""
    nights: dict[str, list[date]] = {}
    for retrain in rails.ledger.retrains(until=night):
        nights.setdefault(retrain.model, []).append(retrain.night)
    return {model: _past(rails, model, own, night) for model, own in nights.items()}


def past(rails: Rails, model: str, night: date) -> ModelHistory:
    """A model's retrains before `night`, and what had become of each by then."""
    retrains = rails.ledger.retrains(model, until=night - timedelta(days=1))
    return _past(rails, model, [retrain.night for retrain in retrains], night)


def _past(rails: Rails, model: str, nights: Sequence[date], night: date) -> ModelHistory:
    trainings = rails.ledger.stage_runs(TrainingSummary, model)
    rejected = rails.ledger.rejected(model, night)
    promoted = {promotion.version for promotion in rails.ledger.promotions(model) if promotion.night < night}
    champion = rails.ledger.roles(model, night).champion
    best = None if champion is None else rails.ledger.version(model, champion)

    def became(granted_on: date) -> Became:
        training = trainings.get(granted_on)
        if training is None:
            return "running" if night - granted_on < UNHEARD else "none"
        version = training.summary.version
        if version is None:
            return "none"
        return "promoted" if version in promoted else "rejected" if version in rejected else "pending"

    return ModelHistory(tuple(Grant(day, became(day)) for day in sorted(nights)), best.night if best else None)


def _actions(outcome: GovernorOutcome) -> dict[str, GovernorAction]:
    """Model → what was decided."""
    return {
        action.model: GovernorAction(decision=action.decision, reasons=action.reasons, incident=action.incident)
        for action in outcome.actions
    }


def _summary(rails: Rails, outcome: GovernorOutcome) -> GovernorSummary:
    """The record of the night. What it says of other models, which this run was not about, stays."""
    actions = _actions(outcome)
    entry = rails.ledger.stage_run(GovernorSummary, "", outcome.night)
    before = entry.summary if entry else GovernorSummary()
    since = [drifting for drifting in before.since if drifting[0] not in actions]
    since += [(*column, day) for column, day in sorted(outcome.since.items())]
    return GovernorSummary(
        night=outcome.night,
        granted=(*(model for model in before.granted if model not in actions), *outcome.granted),
        actions=before.actions | actions,
        since=tuple(since),
    )
