"""The governor: what drift found of every model on one night, and the few actions that follow. Pure.

Many findings in, few actions out. Data that is broken or missing is an incident and never a reason to retrain; what
many models show at once is one incident of the table that they have in common. What is left may retrain: where harm
is felt, not sooner than its cooldown, and not more a night than the portfolio affords, the highest stakes first.
It fails closed: a model of which nothing is known waits.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

from tiltyard.govern.lineage import Lineage
from tiltyard.records import Cause, Finding, Incident, Signal
from tiltyard.spec import DriftPolicy, Portfolio, SharedBreak, Trainings

Decision = Literal["retrain", "queued", "cooldown", "report", "steady", "incident", "waiting"]
Became = Literal["running", "none", "pending", "rejected", "promoted"]

TOGETHER = timedelta(days=3)
"""Models whose columns began to drift within so many nights of each other drift together: their windows and their
hysteresis differ by a night or two."""
NEARLY = 0.9
"""A node explains a shift when it explains this share of what the best node does; of those the most downstream."""
NAMED = 5
"""So many models, columns or sentences are spelled out in a reason."""


@dataclass(frozen=True)
class Action:
    """What follows for one model."""

    model: str
    decision: Decision
    reasons: tuple[str, ...]
    incident: str | None = None
    """The node of the incident that holds it."""


@dataclass(frozen=True)
class Outcome:
    """What follows on a night: an action for every model, by name; incidents by node; who trains, in that order."""

    night: date
    actions: tuple[Action, ...]
    incidents: tuple[Incident, ...]
    granted: tuple[str, ...]
    since: Mapping[tuple[str, str, str], date] = field(default_factory=dict)
    """For the history of the next night: (model, kind, column) that drifts → since when."""


@dataclass(frozen=True)
class Grant:
    """An earlier retrain and what became of it: still running, no version, still a challenger, rejected, promoted."""

    night: date
    became: Became


@dataclass(frozen=True)
class Past:
    """What a model asked for before."""

    grants: tuple[Grant, ...] = ()
    best: date | None = None
    """The night as of which the champion in force was trained."""

    @property
    def answered(self) -> date | None:
        """The newest retrain that answers an alarm: under way, or with a version. One that came to nothing does not."""
        return max((grant.night for grant in self.grants if grant.became != "none"), default=None)


@dataclass(frozen=True)
class Release:
    """A person's word that what moved at `node` until `night` is the world, and no fault."""

    node: str
    night: date
    by: str
    reason: str


@dataclass(frozen=True)
class Mended:
    """A data incident of a raw table that is closed, and the last night on which it was open."""

    node: str
    column: str | None
    last: date


@dataclass(frozen=True)
class History:
    """What is known on `night` of the nights before it. What other nights say, this one's grants apart, is ignored."""

    night: date
    models: Mapping[str, Past] = field(default_factory=dict)
    since: Mapping[tuple[str, str, str], date] = field(default_factory=dict)
    """(model, kind, column) → the first of the unbroken nights up to the last one on which it had drifted."""
    incidents: tuple[Incident, ...] = ()
    """Open after the night before."""
    releases: tuple[Release, ...] = ()
    mended: tuple[Mended, ...] = ()


def govern(
    findings: Iterable[Finding],
    lineage: Lineage,
    history: History,
    drift: Mapping[str, DriftPolicy],
    portfolio: Portfolio,
) -> Outcome:
    """Decide for every model of `drift` on the night of `history`. Findings may come in any order.

    A model without a finding of this night waits: nothing follows for it. Raises ValueError for two findings of one
    model. Of every other model exactly one thing follows, in this order:

    1. Data that is broken or missing is an *incident*, one for each node of the lineage that explains it, and so is a
       shift that models share (`_shared`).
    2. Without a model, enough matured labels are a reason for a first training.
    3. Without an alarm it is *steady*. With one, `on_drift` and the harm say whether to *report* or to retrain; harm
       that is not known yet is none yet: it is reported, and looked at again on the next night. While no version is in
       service there is nothing that could feel it, and the alarm is enough.
    4. Within its cooldown (`cooling`) it is *cooldown*. The others are granted a *retrain* by tier, then by evidence,
       then by name, up to `trainings.per_night` less what earlier nights have running; the rest is *queued*, which
       keeps nothing: on the next night its finding of that night counts.
    """
    night = history.night
    seen: dict[str, Finding] = {}
    for finding in findings:
        if finding.night == night and finding.model in drift:
            if finding.model in seen:
                raise ValueError(f"{finding.model} has two findings for {night}")
            seen[finding.model] = finding
    seen = dict(sorted(seen.items()))

    shown = _shown(seen, lineage, history)
    broken = _joined(_broken(seen, lineage, history, portfolio.shared_break), shown, lineage)
    held = {model for incident in broken for model in incident.models}
    free = {model: moves for model, moves in shown.items() if model not in held}
    shared = _shared(seen, free, lineage, history, portfolio.shared_break)
    incidents = tuple(sorted((*broken, *shared), key=lambda one: (one.node, one.kind)))
    holding: dict[str, list[Incident]] = {}
    for incident in incidents:
        for model in incident.models:
            holding.setdefault(model, []).append(incident)

    actions: dict[str, Action] = {}
    asking: dict[str, tuple[str, ...]] = {}
    for model in sorted(drift):
        if model not in seen:
            actions[model] = Action(model, "waiting", (f"nothing is known of it on {night}",))
            continue
        decided = _decide(seen[model], lineage, history, drift[model], holding.get(model, []))
        if decided.decision == "retrain":
            again = cooling(_past(history, model), night, drift[model], portfolio.trainings)
            if again is None:
                asking[model] = decided.reasons
                continue
            wait = f"the next retrain may be on {again[0]}{again[1]}"
            decided = Action(model, "cooldown", (*decided.reasons, wait))
        actions[model] = decided

    granted = _granted(asking, seen, history, portfolio.trainings)
    for place, model in enumerate(_in_order(asking, seen)):
        if model in granted:
            actions[model] = Action(model, "retrain", asking[model])
        else:
            full = f"{len(granted)} of at most {portfolio.trainings.per_night} retrains go before it, place {place + 1}"
            actions[model] = Action(model, "queued", (*asking[model], full))
    return Outcome(
        night, tuple(actions[model] for model in sorted(actions)), incidents, granted, _onsets(drift, seen, history)
    )


def _onsets(
    models: Iterable[str], findings: Mapping[str, Finding], history: History
) -> dict[tuple[str, str, str], date]:
    """Since when every column that drifts tonight has; of a model that waits, what was known before."""
    silent = set(models) - findings.keys()
    kept = {key: day for key, day in history.since.items() if key[0] in silent}
    return kept | {
        (model, signal.kind, signal.column): _onset(model, signal, history)
        for model, finding in findings.items()
        for signal in finding.signals
        if signal.drifted
    }


def _onset(model: str, signal: Signal, history: History) -> date:
    return min(history.since.get((model, signal.kind, signal.column), history.night), history.night)


# -- one model ------------------------------------------------------------------------------------


def _decide(
    finding: Finding, lineage: Lineage, history: History, policy: DriftPolicy, holding: Sequence[Incident]
) -> Action:
    """What follows for a model by itself; `retrain` is what it asks for."""
    model = finding.model
    if holding:
        first = holding[0]
        why = "a person has to release it" if first.kind == "shared_shift" else "broken data is no reason to retrain"
        return Action(model, "incident", (*(f"{one.node}: {one.said}" for one in holding), why), first.node)
    if finding.champion is None and not finding.challengers:
        if finding.matured < finding.min_matured or finding.matured == 0:
            short = f"no champion yet; {finding.matured} of {max(finding.min_matured, 1)} matured labels to train on"
            return Action(model, "steady", (short,))
        return Action(model, "retrain", (f"no champion yet, {finding.matured} matured labels to train on",))
    found = _found(finding)
    if not found:
        return Action(model, "steady", _quiet(finding))
    harm = (
        finding.harm_said
        or {"felt": "it is felt", "not_felt": "it is not felt", "unknown": "harm is not known"}[finding.harm]
    )
    found = (*found, harm)
    echo = _echo(finding, lineage, history, policy)
    if echo:
        return Action(model, "report", (*found, echo))
    if policy.on_drift == "report":
        return Action(model, "report", (*found, "on_drift: report"))
    if policy.on_drift == "retrain" and finding.harm != "felt" and finding.champion is not None:
        again = "it is looked at again tomorrow" if finding.harm == "unknown" else "on_drift: retrain asks for harm"
        return Action(model, "report", (*found, again))
    return Action(model, "retrain", found)


def cooling(past: Past, night: date, policy: DriftPolicy, trainings: Trainings) -> tuple[date, str] | None:
    """The first night on which a retrain may be asked for again, where that is later than `night`, and why so late."""
    before = [grant for grant in past.grants if grant.night < night]
    if not before:
        return None
    running = [grant.night for grant in before if grant.became == "running"]
    if running:
        return night + timedelta(days=1), f"; the one of {max(running)} is still running"
    vain = _in_vain(before, past.best)
    longest = max(policy.cooldown, trainings.max_cooldown)
    wait = policy.cooldown
    for _ in range(vain):
        wait = min(2 * wait, longest)
    last = max(grant.night for grant in before)
    again = last + wait
    if again <= night:
        return None
    return again, f"; {vain} retrain(s) made nothing better" if vain else ""


def _in_vain(grants: Sequence[Grant], best: date | None) -> int:
    """How many retrains since the champion's own training made nothing better.

    One whose version was rejected, was promoted and had to give way again (it would be the champion's own else), or
    still was a challenger when the next one was trained. One that gave no version says nothing.
    """
    last = max(grant.night for grant in grants)
    return sum(
        grant.became in ("rejected", "promoted") or (grant.became == "pending" and grant.night < last)
        for grant in grants
        if best is None or grant.night > best
    )


def _found(finding: Finding) -> tuple[str, ...]:
    """What the model's alarm says; nothing without one, since only alarms are within the portfolio's budget."""
    if not finding.alarm:
        return ()
    drifted = sorted((signal for signal in finding.signals if signal.drifted), key=_order)
    measured = ""
    if finding.evidence is not None:
        limit = "" if finding.threshold is None else f" of {finding.threshold:.4g}"
        measured = f", evidence {finding.evidence:.4g}{limit}"
    moved = [_measure(signal) for signal in drifted if signal.kind not in ("performance", "missing")]
    decayed = [signal.note or _measure(signal) for signal in drifted if signal.kind == "performance"]
    reasons = [f"alarm{measured}: {_listed(moved, '; ') or 'no single column stands out'}"]
    if decayed:
        reasons.append(f"performance: {_listed(decayed, '; ')}")
    return tuple(reasons)


def _quiet(finding: Finding) -> tuple[str, ...]:
    tested = [signal for signal in finding.signals if signal.kind == "feature" and signal.value is not None]
    drifted = sum(signal.drifted for signal in tested)
    said = [f"no alarm; {drifted} of {len(tested)} feature columns show drift" if tested else "no alarm"]
    if not tested:
        said.append("no feature column could be tested")
    for signal in sorted(finding.signals, key=_order):
        if signal.kind not in ("feature", "missing") and signal.value is None:
            said.append(f"{signal.kind} could not be tested: {signal.note}")
    return tuple(dict.fromkeys(said))


def _echo(finding: Finding, lineage: Lineage, history: History, policy: DriftPolicy) -> str | None:
    """Rows of a mended incident stay in the window for its length; until they have left it, they move columns."""
    moved = sorted({signal.view for signal in finding.signals if signal.drifted and signal.view})
    for mended in sorted(history.mended, key=lambda one: (one.last, one.node, one.column or "")):
        recent = mended.last < history.night < mended.last + policy.window + timedelta(days=1)
        if not recent or not lineage.reaches(mended.node, mended.column, finding.model):
            continue
        if any(lineage.stands_on(view, mended.node) for view in moved):
            where = ".".join(filter(None, (mended.node, mended.column)))
            return f"{where} was broken until {mended.last}, and the window still holds its rows"
    return None


# -- what models have in common ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Move:
    """A column of a model that has drifted: the table that it comes from, and since when."""

    column: str
    table: str
    onset: date


def _shown(findings: Mapping[str, Finding], lineage: Lineage, history: History) -> dict[str, tuple[_Move, ...]]:
    """Model → its moves that can be followed upstream and that nobody has released."""
    shown = {}
    for model, finding in findings.items():
        moves = []
        for signal in finding.signals:
            table = _table(signal, model, lineage)
            if not signal.drifted or table is None or signal.kind == "missing":
                continue
            onset = _onset(model, signal, history)
            if not _released(table, onset, lineage, history):
                moves.append(_Move(signal.column, table, onset))
        if moves:
            shown[model] = tuple(sorted(moves, key=lambda move: (move.table, move.column)))
    return shown


def _table(signal: Signal, model: str, lineage: Lineage) -> str | None:
    if signal.kind in ("label", "performance"):
        return lineage.labels.get(model)
    return signal.view


def _released(table: str, onset: date, lineage: Lineage, history: History) -> bool:
    """Has a person said of what moved there, and since then, that it is the world?"""
    return any(
        onset <= release.night <= history.night and lineage.stands_on(table, release.node)
        for release in history.releases
    )


def _shared(
    findings: Mapping[str, Finding],
    shown: Mapping[str, tuple[_Move, ...]],
    lineage: Lineage,
    history: History,
    policy: SharedBreak,
) -> tuple[Incident, ...]:
    """Shifts that many models show at once, in columns that come from one table.

    It takes `policy.models` models, and `policy.share` of those that were looked at and read the table, whose columns
    began to drift within `TOGETHER`, and one alarm among them. A fault of the table and a change of the
    world look the same from here, so nobody retrains on it until it is over or a person says that it is the world.
    Once open it lasts as long as one of its models shows it, and takes in whoever shows it later.
    """
    left = dict(shown)
    found = []
    for before in sorted(history.incidents, key=lambda one: (-lineage.depth(one.node), one.node)):
        if before.kind == "shared_shift":
            still = _below(left, before.node, lineage)
            if still:
                found.append(_shift(before.node, still, before.since, lineage, findings))
                left = {model: moves for model, moves in left.items() if model not in still}
    while True:
        best: tuple[tuple[int, int], str, dict[str, tuple[_Move, ...]]] | None = None
        for start in sorted({move.onset for moves in left.values() for move in moves}):
            together = {
                model: within
                for model, moves in left.items()
                if (within := tuple(move for move in moves if start <= move.onset < start + TOGETHER))
            }
            node = _explains(
                {model: [move.table for move in moves] for model, moves in together.items()},
                findings.keys(),
                lineage,
                policy,
            )
            if node is None:
                continue
            members = _below(together, node, lineage)
            rank = (len(members), sum(map(len, members.values())))
            if any(findings[model].alarm for model in members) and (best is None or rank > best[0]):
                best = rank, node, members
        if best is None:
            return tuple(found)
        _, node, members = best
        found.append(_shift(node, members, history.night, lineage, findings))
        left = {model: moves for model, moves in left.items() if model not in members}


def _below(shown: Mapping[str, tuple[_Move, ...]], node: str, lineage: Lineage) -> dict[str, tuple[_Move, ...]]:
    below = {
        model: tuple(move for move in moves if lineage.stands_on(move.table, node)) for model, moves in shown.items()
    }
    return {model: moves for model, moves in below.items() if moves}


def _shift(
    node: str,
    members: Mapping[str, tuple[_Move, ...]],
    since: date,
    lineage: Lineage,
    findings: Mapping[str, Finding],
) -> Incident:
    columns = tuple(sorted({move.column for moves in members.values() for move in moves}))
    onset = min(move.onset for moves in members.values() for move in moves)
    looked = len(lineage.readers(node) & findings.keys())
    said = (
        f"{len(members)} of {looked} models that read it drift together since {onset}, in {_listed(columns)}; "
        "a fault upstream and a change of the world look the same, so a person decides"
    )
    return Incident(node, "shared_shift", tuple(sorted(members)), columns, said, since)


def _explains(
    tables: Mapping[str, Sequence[str]], looked: Iterable[str], lineage: Lineage, policy: SharedBreak
) -> str | None:
    """The table that explains most: that of the most models, then of nearly the most columns, then most downstream.

    `tables`: model → the table of each of its columns.
    """
    looked = frozenset(looked)
    models: dict[str, set[str]] = {}
    columns: dict[str, int] = {}
    for model, named in tables.items():
        for table in named:
            for node in lineage.upstream(table) if table in lineage.parents else (table,):
                models.setdefault(node, set()).add(model)
                columns[node] = columns.get(node, 0) + 1
    able = [
        node
        for node, of in models.items()
        if len(of) >= policy.models and len(of) >= policy.share * len(lineage.readers(node) & looked)
    ]
    if not able:
        return None
    most = max(len(models[node]) for node in able)
    able = [node for node in able if len(models[node]) == most]
    enough = NEARLY * max(columns[node] for node in able)
    return min((node for node in able if columns[node] >= enough), key=lambda node: (-lineage.depth(node), node))


@dataclass(frozen=True)
class _Fault:
    """Something of a model that is broken or missing."""

    model: str
    node: str
    column: str | None
    said: str
    kind: Cause


def _broken(
    findings: Mapping[str, Finding], lineage: Lineage, history: History, policy: SharedBreak
) -> tuple[Incident, ...]:
    """What is broken or missing, an incident for each table that explains it.

    A broken table explains whatever is broken below it. Tables that are broken without such a cause are one
    incident of the table that they have in common where that explains `policy.models` models and `policy.share`
    of the tables below it that anybody looked at; otherwise each is one of its own.
    """
    faults = _named([fault for finding in findings.values() for fault in _faults(finding, lineage, history)], policy)
    nodes = {fault.node for fault in faults}
    causes = {
        node: {
            root
            for root in nodes
            if lineage.stands_on(node, root)
            and not any(other != root and lineage.stands_on(root, other) for other in nodes)
        }
        for node in nodes
    }
    roots = set().union(*causes.values()) if causes else set()
    merged = _merged(
        roots,
        {root: {one.model for one in faults if root in causes[one.node]} for root in roots},
        findings,
        lineage,
        policy,
    )
    grouped: dict[str, list[_Fault]] = {}
    for fault in faults:
        for cause in sorted({merged[root] for root in causes[fault.node]}):
            grouped.setdefault(cause, []).append(fault)
    return tuple(_incident(node, group, history) for node, group in sorted(grouped.items()))


def _faults(finding: Finding, lineage: Lineage, history: History) -> list[_Fault]:
    faults = [
        _Fault(finding.model, one.node, one.column, one.said, "broken")
        for one in finding.broken
        if lineage.reaches(one.node, one.column, finding.model)
    ]
    for signal in finding.signals:
        if signal.kind == "missing" and signal.drifted:
            node = signal.view or "features"
            onset = _onset(finding.model, signal, history)
            if not _released(node, onset, lineage, history):
                said = signal.note or f"more of {signal.column} is missing than at training"
                faults.append(_Fault(finding.model, node, signal.column, said, "missing"))
    return faults


def _named(faults: Sequence[_Fault], policy: SharedBreak) -> list[_Fault]:
    """A model's own shadow that did not end is its own incident, unless it is one that many models have."""
    alone = [fault for fault in faults if fault.node == "shadow"]
    if len({fault.model for fault in alone}) >= policy.models:
        return list(faults)
    return [dataclasses.replace(fault, node=f"{fault.model}/shadow") if fault in alone else fault for fault in faults]


def _merged(
    roots: set[str],
    models: Mapping[str, set[str]],
    findings: Mapping[str, Finding],
    lineage: Lineage,
    policy: SharedBreak,
) -> dict[str, str]:
    """Broken table → the table that explains it, itself where nothing above does."""
    looked = {table for model in findings for table in lineage.models.get(model, ())} | roots
    merged = {root: root for root in roots}
    left = {root for root in roots if root in lineage.parents}
    while True:
        below: dict[str, set[str]] = {}
        for root in left:
            for node in lineage.upstream(root):
                below.setdefault(node, set()).add(root)
        able = {
            node: of
            for node, of in below.items()
            if len(of) > 1
            and len(set().union(*(models[root] for root in of))) >= policy.models
            and len(of) >= policy.share * sum(lineage.stands_on(table, node) for table in looked)
        }
        if not able:
            return merged
        node = min(able, key=lambda name: (-len(able[name]), -lineage.depth(name), name))
        merged |= dict.fromkeys(able[node], node)
        left -= able[node]


def _joined(
    incidents: Sequence[Incident], shown: Mapping[str, tuple[_Move, ...]], lineage: Lineage
) -> tuple[Incident, ...]:
    """Whoever shows a shift below what is broken shows the same fault, and makes no second incident of it."""
    found = []
    for incident in incidents:
        columns = incident.columns or (None,)
        more = {
            model
            for model in _below(shown, incident.node, lineage)
            if any(lineage.reaches(incident.node, column, model) for column in columns)
        }
        found.append(dataclasses.replace(incident, models=tuple(sorted({*incident.models, *more}))))
    return tuple(found)


def _incident(node: str, faults: Sequence[_Fault], history: History) -> Incident:
    kind: Cause = "broken" if any(fault.kind == "broken" for fault in faults) else "missing"
    before = [one.since for one in history.incidents if (one.node, one.kind) == (node, kind)]
    return Incident(
        node=node,
        kind=kind,
        models=tuple(sorted({fault.model for fault in faults})),
        columns=tuple(sorted({fault.column for fault in faults if fault.column})),
        said=_listed(sorted({fault.said for fault in faults}), "; "),
        since=min(before, default=history.night),
    )


# -- many models, few trainings ---------------------------------------------------------------------


def _past(history: History, model: str) -> Past:
    return history.models.get(model, Past())


def _granted(
    asking: Mapping[str, tuple[str, ...]], findings: Mapping[str, Finding], history: History, trainings: Trainings
) -> tuple[str, ...]:
    """Who may train. What this night granted already stays granted, so that an attempt after it takes nothing back."""
    night = history.night
    kept = {model for model in asking if any(grant.night == night for grant in _past(history, model).grants)}
    running = sum(
        grant.became == "running" and grant.night < night for past in history.models.values() for grant in past.grants
    )
    gone = sum(grant.night == night for past in history.models.values() for grant in past.grants)
    room = max(trainings.per_night - running - gone, 0)
    ordered = _in_order(asking, findings)
    chosen = kept | set([model for model in ordered if model not in kept][:room])
    return tuple(model for model in ordered if model in chosen)


def _in_order(asking: Iterable[str], findings: Mapping[str, Finding]) -> list[str]:
    """Tier 1 first; then who has the most evidence for its limit; then by name."""
    return sorted(asking, key=lambda model: (findings[model].tier, -_excess(findings[model]), model))


def _excess(one: "Finding | Signal") -> float:
    """How many times its limit it is, for ordering."""
    value = one.evidence if isinstance(one, Finding) else one.value
    if value is None or value != value:
        return 0.0
    return value / one.threshold if one.threshold else value


def _order(signal: Signal) -> tuple[float, str, str]:
    return -_excess(signal), signal.kind, signal.column


def _measure(signal: Signal) -> str:
    limit = "" if signal.threshold is None else f" (limit {signal.threshold:.3f})"
    return f"{signal.statistic} of {signal.column} {signal.value:.3f}{limit}"


def _listed(parts: Sequence[str], between: str = ", ") -> str:
    more = len(parts) - NAMED
    return between.join(parts[:NAMED]) + (f" and {more} more" if more > 0 else "")
