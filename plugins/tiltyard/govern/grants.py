"""The governor stage, portfolio-wide: the findings of all models on one night → at most the trainings that it allows.

It comes after the drift of every model and reads nothing but the ledger and dbt's manifest. `governor.govern` decides;
what it decided is written under a fence: the retrains, which start trainings, the incidents of the night, and one
record of the stage. A night done again grants what it granted, and what has become possible since.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from tiltyard import spec as specs_module
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.govern import governor
from tiltyard.govern.governor import Became, Grant, History, Outcome, Past, Release
from tiltyard.govern.lineage import Lineage
from tiltyard.prepare import data_incidents, transform
from tiltyard.rails import Rails
from tiltyard.records import GovernorSummary, TrainingSummary
from tiltyard.spec import Portfolio, Spec
from tiltyard.stages import StageName

STAGE: StageName = "governor"
STOPPABLE: tuple[StageName, ...] = ("shadow", "drift")
"""The stages that a model passes before the governor."""
RELEASED = "incident_release"
"""The kind of event in the ledger."""
UNHEARD = timedelta(days=2)
"""A training of which nothing was heard for so many nights is not running any more: it failed."""
GAP = timedelta(days=7)
"""Over more nights than this without a governor, what drifted before and drifts now is not the same drift."""


def run(
    rails: Rails, as_of: datetime, specs: Sequence[Spec] | None = None, portfolio: Portfolio | None = None
) -> dict[str, Any]:
    """Decide on one night for `specs` (default: the active models), and ask for the retrains that are granted.

    Returns {"night", "granted": {model: reasons} in the order of their precedence, "actions": {model: {"decision",
    "reasons", "incident"}}, "incidents", "decisions": counts}. Models without a finding wait.
    """
    night = night_closing(as_of)
    claim = rails.ledger.claim(f"{STAGE}/{night}")
    models = {one.name: one for one in (specs_module.portfolio(rails.settings) if specs is None else specs)}
    outcome = governor.govern(
        rails.ledger.findings(night),
        Lineage.of(transform.manifest(rails.settings), models.values()),
        _history(rails, night),
        {name: one.drift for name, one in models.items()},
        portfolio or specs_module.load_portfolio(rails.settings.models),
    )
    actions = {one.model: one for one in outcome.actions}
    granted = {model: list(actions[model].reasons) for model in outcome.granted}
    with claim.held():
        for model, reasons in granted.items():
            rails.ledger.request_retrain(model, night, reasons)
        others = [one for one in rails.ledger.incidents(night) if models.keys().isdisjoint(one.models)]
        rails.ledger.set_incidents(night, [*others, *outcome.incidents])
        rails.ledger.record_stage(STAGE, "", night, "done", _summary(rails, outcome))
    return {
        "night": str(night),
        "granted": granted,
        "actions": {
            name: {"decision": one.decision, "reasons": list(one.reasons), "incident": one.incident}
            for name, one in actions.items()
        },
        "incidents": [plain(one) for one in outcome.incidents],
        "decisions": counted(outcome),
    }


def counted(outcome: Outcome) -> dict[str, int]:
    """decision → models, without those that nobody got."""
    decisions = [one.decision for one in outcome.actions]
    return {decision: decisions.count(decision) for decision in sorted(set(decisions))}


def waiting(rails: Rails, specs: Sequence[Spec], night: date) -> list[str]:
    """The models that have not been looked at on a night and may still be, by name.

    None is waited for once a later night is published: what has not come by then is late, and the others go on.
    """
    if any(day > night for day in rails.ledger.finished("features")):
        return []
    missing = {one.name for one in specs} - rails.ledger.looked_at(night)
    ended = {
        name
        for name in missing
        for stage in STOPPABLE
        if rails.ledger.stage_status(stage, name, night) in ("stopped", "failed")
    }
    return sorted(missing - ended)


def undecided(rails: Rails, models: Iterable[str], night: date) -> list[str]:
    """Those of the models on which nothing was decided yet for a night, or only that they wait."""
    record = rails.ledger.stage_run(GovernorSummary, "", night)
    actions = record["summary"]["actions"] if record else {}
    return sorted(model for model in models if actions.get(model, {}).get("decision", "waiting") == "waiting")


def decided(rails: Rails, model: str, night: date) -> dict[str, Any] | None:
    """What the governor said of a model on a night: {"decision", "reasons", "incident"}; None before it did."""
    record = rails.ledger.stage_run(GovernorSummary, "", night)
    return record["summary"]["actions"].get(model) if record else None


# -- incidents ------------------------------------------------------------------------------------


def incidents(rails: Rails, as_of: datetime | None = None) -> list[dict[str, Any]]:
    """The portfolio's incidents that were open on a night, by default the newest that was governed."""
    if as_of is None:
        newest = rails.ledger.last_stage_run(GovernorSummary)
        if newest is None:
            return []
        night = newest["night"]
    else:
        night = night_closing(as_of)
    return [{"night": str(night), **plain(one)} for one in rails.ledger.incidents(night)]


def release(rails: Rails, node: str, *, by: str, reason: str, as_of: datetime | None = None) -> dict[str, Any]:
    """A person's word that what moved at `node` is the world and no fault; kept with name and reason.

    From the night on that is given, by default the newest that was governed, its models may retrain on it. Raises
    BadInput when nothing is held there, or when it is broken data, which only its mending closes.
    """
    open_now = incidents(rails, as_of)
    if not reason.strip():
        raise BadInput("A release needs a reason, like --reason 'prices rose on 1 March'.")
    here = [one for one in open_now if one["node"] == node]
    if not here:
        known = ", ".join(one["node"] for one in open_now if one["kind"] != "broken") or "none"
        raise BadInput(f"No incident is open at '{node}'; those that a person may release are: {known}.")
    if all(one["kind"] == "broken" for one in here):
        raise BadInput(f"The data of {node} is broken, which nobody can release; mend it, and the incident closes.")
    night = date.fromisoformat(here[0]["night"])
    detail = {"node": node, "by": by, "reason": reason.strip()}
    rails.ledger.add_event(RELEASED, "", night, detail)
    return {"night": str(night), **detail, "models": sorted({model for one in here for model in one["models"]})}


def plain(incident: governor.Incident) -> dict[str, Any]:
    return {
        "node": incident.node,
        "kind": incident.kind,
        "since": str(incident.since),
        "models": list(incident.models),
        "columns": list(incident.columns),
        "said": incident.said,
    }


# -- what is known of the nights before ---------------------------------------------------------------


def _history(rails: Rails, night: date) -> History:
    before = rails.ledger.last_stage_run(GovernorSummary, before=night)
    since: dict[tuple[str, str, str], date] = {}
    if before is not None and before["night"] >= night - GAP:
        for model, kind, column, day in before["summary"]["since"]:
            since[model, kind, column] = day
    return History(
        night=night,
        models=_pasts(rails, night),
        since=since,
        incidents=rails.ledger.incidents(before["night"]) if before else (),
        releases=tuple(
            Release(row["detail"]["node"], row["night"], row["detail"]["by"], row["detail"]["reason"])
            for row in rails.ledger.events(kind=RELEASED)
            if row["night"] <= night
        ),
        mended=tuple(governor.Mended(*one) for one in data_incidents.mended(rails, night)),
    )


def _pasts(rails: Rails, night: date) -> dict[str, Past]:
    """Every model that ever asked → its retrains until `night` and what had become of each by then."""
    asked: dict[str, list[date]] = {}
    for row in rails.ledger.retrains(until=night):
        asked.setdefault(row["model"], []).append(row["night"])
    return {model: _past(rails, model, nights, night) for model, nights in asked.items()}


def past(rails: Rails, model: str, night: date) -> Past:
    """A model's retrains before `night`, and what had become of each by then."""
    asked = rails.ledger.retrains(model, until=night - timedelta(days=1))
    return _past(rails, model, [row["night"] for row in asked], night)


def _past(rails: Rails, model: str, nights: Sequence[date], night: date) -> Past:
    runs = rails.ledger.stage_runs(TrainingSummary, model)
    rejected = {
        row["challenger"]
        for row in rails.ledger.decisions(model)
        if row["night"] < night and row["verdict"] == "reject"
    }
    promoted = {row["version"] for row in rails.ledger.promotions(model) if row["night"] < night}
    champion = rails.ledger.roles(model, night).champion
    row = None if champion is None else rails.ledger.version(model, champion)

    def became(asked: date) -> Became:
        run: Mapping[str, Any] | None = runs.get(asked)
        if run is None:
            return "running" if night - asked < UNHEARD else "none"
        version = run["summary"].get("version")
        if version is None:
            return "none"
        return "promoted" if version in promoted else "rejected" if version in rejected else "pending"

    return Past(tuple(Grant(asked, became(asked)) for asked in sorted(nights)), row["night"] if row else None)


def _summary(rails: Rails, outcome: Outcome) -> dict[str, Any]:
    """The record of the night. What it says of other models, which this run was not about, stays."""
    actions = {
        one.model: {"decision": one.decision, "reasons": list(one.reasons), "incident": one.incident}
        for one in outcome.actions
    }
    record = rails.ledger.stage_run(GovernorSummary, "", outcome.night)
    before = record["summary"] if record else {"granted": [], "actions": {}, "since": []}
    since = [entry for entry in before["since"] if entry[0] not in actions]
    since += [[*key, str(day)] for key, day in sorted(outcome.since.items())]
    return {
        "night": str(outcome.night),
        "granted": [*(model for model in before["granted"] if model not in actions), *outcome.granted],
        "actions": before["actions"] | actions,
        "since": since,
    }
