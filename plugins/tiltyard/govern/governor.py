"""The governor: what drift found of every model on one night, and the few actions that follow. Pure.

Many findings in, few actions out. Data that is broken or missing is an incident and never a reason to retrain; what
many models show at once is one incident of the table that they have in common. What is left may retrain: where harm
is felt or the spec's time has come, not sooner than its cooldown, and not more a night than the portfolio affords, the
highest stakes first.
It fails closed: a model of which nothing is known waits.
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal, NamedTuple

from tiltyard.govern.history import Drifting, Grant, ModelHistory, NightHistory
from tiltyard.govern.incident import incidents
from tiltyard.govern.lineage import Lineage
from tiltyard.govern.routine import due
from tiltyard.portfolio_rules import Portfolio, Trainings
from tiltyard.records import Finding, Harm, Incident, Signal
from tiltyard.spec import DriftPolicy, RetrainPolicy
from tiltyard.words import counted, listed, strength

RetrainDecision = Literal["retrain", "queued", "cooldown", "report", "steady", "incident", "waiting"]
"""What follows for a model."""
HARM: Mapping[Harm, str] = {"felt": "it is felt", "not_felt": "it is not felt", "unknown": "harm is not known"}
"""Harm in words, where there are no figures."""


@dataclass(frozen=True)
class Action:
    """What follows for one model."""

    model: str
    """The model's name."""
    decision: RetrainDecision
    """What follows."""
    reasons: tuple[str, ...]
    """Why, a sentence each."""
    incident: str | None = None
    """The node of the incident that holds it; None without one."""


@dataclass(frozen=True)
class GovernorOutcome:
    """What follows on a night."""

    night: date
    """The night."""
    actions: tuple[Action, ...]
    """What follows for every model, by name."""
    incidents: tuple[Incident, ...]
    """The portfolio's incidents, by node."""
    granted: tuple[str, ...]
    """The models that may retrain, in the order of their precedence."""
    since: Mapping[Drifting, date] = field(default_factory=dict)
    """For the history of the next night: a column that drifts → since when."""


def govern(
    findings: Iterable[Finding],
    lineage: Lineage,
    history: NightHistory,
    drift: Mapping[str, DriftPolicy],
    portfolio: Portfolio,
    retrain: Mapping[str, RetrainPolicy] | None = None,
    frozen: Mapping[str, str] | None = None,
) -> GovernorOutcome:
    """Decide for every model of `drift` on the night of `history`. Findings may come in any order. `retrain`: model →
    when it asks for a training without an alarm; one that never does may be left out. `frozen`: model → why nothing is
    trained of it, whatever is found: it is only reported.

    A model without a finding of this night waits: nothing follows for it. Raises ValueError for two findings of one
    model. Of every other model exactly one thing follows, in this order:

    1. Data that is broken or missing is an *incident*, one for each node of the lineage that explains it, and so is a
       shift that models share (incident.py).
    2. Without a model, enough matured labels are a reason for a first training.
    3. Without an alarm it is *steady*. With one, `on_drift` and the harm say whether to *report* or to retrain; harm
       that is not known yet is none yet: it is reported, and looked at again on the next night. While no version is in
       service there is nothing that could feel it, and the alarm is enough. What the spec asks for by age or by
       matured rows (routine.py) is a reason of its own, whatever became of the alarm.
    4. Within its cooldown (`cooling`) it is *cooldown*. The others are granted a *retrain* by tier, then alarms before
       first trainings before those that are due without either, then by evidence, then by name, up to
       `trainings.per_night` less what earlier nights have running; the rest is *queued*, which keeps nothing: on the
       next night its finding of that night counts.
    """
    night = history.night
    tonight = _by_model(findings, night, drift)
    open_now = incidents(tonight, lineage, history, portfolio.shared_break)
    holding: dict[str, list[Incident]] = {}
    for incident in open_now:
        for model in incident.models:
            holding.setdefault(model, []).append(incident)

    actions: dict[str, Action] = {}
    asking: dict[str, tuple[str, ...]] = {}
    routine: set[str] = set()
    for model in sorted(drift):
        if model not in tonight:
            actions[model] = Action(model, "waiting", (f"nothing is known of it on {night}",))
            continue
        action = _alone(tonight[model], lineage, history, drift[model], holding.get(model, []))
        if action.decision in ("steady", "report"):
            reasons = due((retrain or {}).get(model, RetrainPolicy()), tonight[model].since_training, night)
            if reasons:
                action = Action(model, "retrain", (*action.reasons, *reasons))
                routine.add(model)
        if action.decision == "retrain" and frozen and model in frozen:
            action = Action(model, "report", (*action.reasons, frozen[model]))
        if action.decision == "retrain":
            cooldown = cooling(history.past(model), night, drift[model], portfolio.trainings)
            if cooldown is None:
                asking[model] = action.reasons
                continue
            wait = f"the next retrain may be on {cooldown.until}{cooldown.reason}"
            action = Action(model, "cooldown", (*action.reasons, wait))
        actions[model] = action

    ordered = _in_order(asking, tonight, routine)
    granted = _granted(ordered, history, portfolio.trainings)
    for place, model in enumerate(ordered):
        if model in granted:
            actions[model] = Action(model, "retrain", asking[model])
        else:
            full = f"{len(granted)} of at most {portfolio.trainings.per_night} retrains go before it, place {place + 1}"
            actions[model] = Action(model, "queued", (*asking[model], full))
    in_order = tuple(actions[model] for model in sorted(actions))
    return GovernorOutcome(night, in_order, open_now, granted, _onsets(drift, tonight, history))


def _by_model(findings: Iterable[Finding], night: date, models: Container[str]) -> dict[str, Finding]:
    """Model → its finding of the night, by name. Raises ValueError for two of one model."""
    by_model: dict[str, Finding] = {}
    for finding in findings:
        if finding.night == night and finding.model in models:
            if finding.model in by_model:
                raise ValueError(f"{finding.model} has two findings for {night}")
            by_model[finding.model] = finding
    return dict(sorted(by_model.items()))


def _onsets(models: Iterable[str], findings: Mapping[str, Finding], history: NightHistory) -> dict[Drifting, date]:
    """Since when every column that drifts tonight has; of a model that waits, what was known before."""
    silent = set(models) - findings.keys()
    earlier = {column: day for column, day in history.since.items() if column[0] in silent}
    return earlier | {
        Drifting(model, signal.kind, signal.column): history.onset(model, signal)
        for model, finding in findings.items()
        for signal in finding.signals
        if signal.drifted
    }


# -- one model ------------------------------------------------------------------------------------


def _alone(
    finding: Finding, lineage: Lineage, history: NightHistory, policy: DriftPolicy, holding: Sequence[Incident]
) -> Action:
    """What follows for a model by itself; `retrain` is what it asks for."""
    model = finding.model
    if holding:
        first = holding[0]
        why = "a person has to release it" if first.kind == "shared_shift" else "broken data is no reason to retrain"
        reasons = (*(f"{incident.node}: {incident.reason}" for incident in holding), why)
        return Action(model, "incident", reasons, first.node)
    if finding.champion is None and not finding.challengers:
        if finding.matured < finding.min_matured or finding.matured == 0:
            short = f"no champion yet; {finding.matured} of {max(finding.min_matured, 1)} matured labels to train on"
            return Action(model, "steady", (short,))
        return Action(model, "retrain", (f"no champion yet, {finding.matured} matured labels to train on",))
    if not finding.alarm:  # only alarms are within the portfolio's budget
        return Action(model, "steady", _quiet(finding))
    reasons = (*_alarm(finding), finding.harm_reason or HARM[finding.harm])
    if echo := _echo(finding, lineage, history, policy):
        return Action(model, "report", (*reasons, echo))
    if policy.on_drift == "report":
        return Action(model, "report", (*reasons, "on_drift: report"))
    if policy.on_drift == "retrain" and finding.harm != "felt" and finding.champion is not None:
        again = "it is looked at again tomorrow" if finding.harm == "unknown" else "on_drift: retrain asks for harm"
        return Action(model, "report", (*reasons, again))
    return Action(model, "retrain", reasons)


class Cooldown(NamedTuple):
    """How long a model waits for its next retrain."""

    until: date
    """The first night on which it may be asked for again."""
    reason: str
    """Why so late, as the end of a sentence; empty where there is no more to say."""


def cooling(past: ModelHistory, night: date, policy: DriftPolicy, trainings: Trainings) -> Cooldown | None:
    """How long a retrain has to wait that is asked for on `night`; None when it may be granted at once."""
    before = [grant for grant in past.grants if grant.night < night]
    if not before:
        return None
    running = [grant.night for grant in before if grant.became == "running"]
    if running:
        return Cooldown(night + timedelta(days=1), f"; the one of {max(running)} is still running")
    waits = [_after_a_version(before, past.best, policy, trainings), _after_nothing(before, policy)]
    latest = max((wait for wait in waits if wait is not None), key=lambda wait: wait.until)
    return latest if latest.until > night else None


def _after_a_version(
    grants: Sequence[Grant], best: date | None, policy: DriftPolicy, trainings: Trainings
) -> Cooldown | None:
    """How long a model waits after the newest retrain that gave a version; None without one."""
    made = [grant for grant in grants if grant.became != "none"]
    if not made:
        return None
    vain = _in_vain(made, best)
    longest = max(policy.cooldown, trainings.max_cooldown)
    wait = policy.cooldown
    for _ in range(vain):
        wait = min(2 * wait, longest)
    reason = f"; {counted(vain, 'retrain')} made nothing better" if vain else ""
    return Cooldown(max(grant.night for grant in made) + wait, reason)


def _after_nothing(grants: Sequence[Grant], policy: DriftPolicy) -> Cooldown | None:
    """How long a model waits after a retrain that gave no version; None where the newest gave one.

    What kept it from one (too few cohorts, a check) may be over on the next night, so that it waits for one night, and
    for twice as many with each further one that came to nothing, up to a cooldown.
    """
    newest = max((grant.night for grant in grants if grant.became != "none"), default=date.min)
    nothing = [grant.night for grant in grants if grant.became == "none" and grant.night > newest]
    if not nothing:
        return None
    wait = min(timedelta(days=2 ** min(len(nothing) - 1, 10)), policy.cooldown)
    return Cooldown(max(nothing) + wait, f"; {counted(len(nothing), 'training')} in a row gave no version")


def _in_vain(grants: Sequence[Grant], best: date | None) -> int:
    """How many retrains since the champion's own training made nothing better.

    One whose version was rejected, was promoted and had to give way again (it would be the champion's own else), or
    still was a challenger when the next one was trained.
    """
    last = max(grant.night for grant in grants)
    return sum(
        grant.became in ("rejected", "promoted") or (grant.became == "pending" and grant.night < last)
        for grant in grants
        if best is None or grant.night > best
    )


def _alarm(finding: Finding) -> tuple[str, ...]:
    """What the model's alarm says."""
    drifted = sorted((signal for signal in finding.signals if signal.drifted), key=_order)
    measured = ""
    if finding.evidence is not None:
        limit = "" if finding.threshold is None else f" of {finding.threshold:,.0f}"
        measured = f", evidence {strength(finding.evidence)}{limit}"
    moved = [_measure(signal) for signal in drifted if signal.kind not in ("performance", "missing")]
    decayed = [signal.note or _measure(signal) for signal in drifted if signal.kind == "performance"]
    reasons = [f"alarm{measured}: {listed(moved, '; ') or 'no single column stands out'}"]
    if decayed:
        reasons.append(f"performance: {listed(decayed, '; ')}")
    return tuple(reasons)


def _quiet(finding: Finding) -> tuple[str, ...]:
    """Why there is no alarm, and what could not be tested."""
    tested = [signal for signal in finding.signals if signal.kind == "feature" and signal.value is not None]
    drifted = sum(signal.drifted for signal in tested)
    reasons = [f"no alarm; {drifted} of {len(tested)} feature columns show drift" if tested else "no alarm"]
    if not tested:
        reasons.append("no feature column could be tested")
    for signal in sorted(finding.signals, key=_order):
        if signal.kind not in ("feature", "missing") and signal.value is None:
            reasons.append(f"{signal.kind} could not be tested: {signal.note}")
    return tuple(dict.fromkeys(reasons))


def _echo(finding: Finding, lineage: Lineage, history: NightHistory, policy: DriftPolicy) -> str | None:
    """Rows of a mended incident stay in the window for its length; until they have left it, they move columns."""
    views = sorted({signal.view for signal in finding.signals if signal.drifted and signal.view})
    for mended in sorted(history.mended, key=lambda incident: (incident.last, incident.node, incident.column or "")):
        recent = mended.last < history.night < mended.last + policy.window + timedelta(days=1)
        if not recent or not lineage.reaches(mended.node, mended.column, finding.model):
            continue
        if any(lineage.stands_on(view, mended.node) for view in views):
            where = ".".join(filter(None, (mended.node, mended.column)))
            return f"{where} was broken until {mended.last}, and the window still holds its rows"
    return None


# -- many models, few trainings ---------------------------------------------------------------------


def _granted(ordered: Sequence[str], history: NightHistory, trainings: Trainings) -> tuple[str, ...]:
    """Who may train, of those who ask in their order. What this night granted already stays granted, so that an attempt
    after it takes nothing back."""
    night = history.night
    before = {model for model in ordered if any(grant.night == night for grant in history.past(model).grants)}
    running = sum(
        grant.became == "running" and grant.night < night for past in history.models.values() for grant in past.grants
    )
    spent = sum(grant.night == night for past in history.models.values() for grant in past.grants)
    room = max(trainings.per_night - running - spent, 0)
    chosen = before | set([model for model in ordered if model not in before][:room])
    return tuple(model for model in ordered if model in chosen)


def _in_order(asking: Iterable[str], findings: Mapping[str, Finding], routine: Container[str]) -> list[str]:
    """Tier 1 first; then alarms, first trainings, and those of `routine`, which are due without either, whatever alarm
    they only report; then who has the most evidence for its limit; then by name."""

    def place(model: str) -> tuple[int, int, float, str]:
        finding = findings[model]
        cause = 2 if model in routine else 0 if finding.alarm else 1
        return finding.tier, cause, -_excess(finding), model

    return sorted(asking, key=place)


def _excess(record: Finding | Signal) -> float:
    """How many times its limit a finding's evidence or a signal's effect is, for ordering."""
    value = record.evidence if isinstance(record, Finding) else record.value
    if value is None or math.isnan(value):
        return 0.0
    return value / record.threshold if record.threshold else value


def _order(signal: Signal) -> tuple[float, str, str]:
    return -_excess(signal), signal.kind, signal.column


def _measure(signal: Signal) -> str:
    limit = "" if signal.threshold is None else f" (limit {signal.threshold:.3f})"
    return f"{signal.statistic} of {signal.column} {signal.value:.3f}{limit}"
