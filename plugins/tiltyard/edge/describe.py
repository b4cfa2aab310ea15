"""The documents of `status` and `explain` as text for a terminal."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from tiltyard import clock, operating
from tiltyard.answered.arm import SHADOW, Arms
from tiltyard.answered.report import FallbackReport, RequestNight, RequestsReport, TaskReport
from tiltyard.edge.document import (
    SAFE_DEFAULT,
    ChecksNight,
    Document,
    DriftNight,
    ExplainedPrediction,
    FilledFeatures,
    GateDecision,
    GovernedNight,
    ModelStatus,
    NoNight,
    Realized,
    RealizedMeans,
    Rollback,
    TrainingNight,
    WatchedChampion,
)
from tiltyard.judge.arrival import ArrivalReport
from tiltyard.records import (
    ArmFigures,
    DeliverySummary,
    Embargo,
    EstimatedVersion,
    Incident,
    MeasuredVersion,
    OpenIncident,
    PortfolioNight,
    ReplaySummary,
    VersionFigures,
)
from tiltyard.target import MEASURES, at_start
from tiltyard.upkeep.holds import OpenHold
from tiltyard.words import counted, listed

NOTHING = "–"
SHOWN = 5
"""So many tables or files are named one by one."""
MOVED = 0.1
"""A feature is named when the share of rows that have a value differs by so much from training."""


def model(document: Document) -> str:
    """A model's status, a line for each fact."""
    if isinstance(document, NoNight):
        return f"{document.model}: {document.state}"
    measure, champion = document.measure, str(document.champion)
    facts = {
        "champion": _roles(document),
        "truth": _truth(document),
        "measured": _metrics(document.metrics.get(champion), measure),
        "estimated": _estimated(document.estimated.get(champion), measure),
        "labels": _labels(document.label_arrival),
        "online": online(document.online, measure),
        "gate": _gate(document.gate),
        "promotions": _list(f"v{promotion.version} on {promotion.night}" for promotion in document.promotions),
        **({"by hand": _by_hand(document)} if document.operations else {}),
        "watch": _watch(document.watch, document.rollbacks),
        "drift": _drift(document.drift),
        "governor": _governor(document.governor),
        "retrains": _list(str(retrain.night) for retrain in document.retrains),
        "realized": _realized(document.realized),
        "checks": _checks(document.checks),
        "latency": _latency(document.latency),
        "incidents": "; ".join(map(_open, document.open_incidents)) or "none",
        **({"quarantine": "; ".join(map(str, document.quarantined))} if document.quarantined else {}),
        "tables": "; ".join(map(str, document.unpublished)) or "all published",
        **({"refused": "; ".join(map(str, document.refused))} if document.refused else {}),
        **({"checkout": f"{document.not_in_force_yet}, not in force yet"} if document.not_in_force_yet else {}),
        **({"answered": f"until {_instant(document.answered_until)}"} if document.answered_until else {}),
        **({"unanswered": _unanswered(document)} if document.unanswered else {}),
        **({"delivered": delivery(document.delivery)} if document.delivery else {}),
        "training": _training(document.training),
        **({"next retrain": str(document.next_retrain)} if document.next_retrain else {}),
        **({"features": features(document.features)} if document.features else {}),
        "replay": _replay(document.replay),
    }
    if document.fallback.on_default or document.fallback.tasks:
        facts["fallback"] = "; ".join(line.strip() for line in _lasting(document.fallback))
    if document.popular:
        facts["popular"] = _list(f"{item.item_name} ({item.score:.0%})" for item in document.popular)
    head = f"{document.model} as of {document.as_of:%Y-%m-%d} (owner {document.owner}, tier {document.tier})"
    return "\n".join([head, *(f"  {label:<12} {text}" for label, text in facts.items())])


def _by_hand(document: ModelStatus) -> str:
    """Who holds the model, what was done last, and what waits for a second person."""
    done = operating.in_order(document.operations)
    waiting = [one for one in document.operations if one.state(clock.now()) == "waiting"]
    retired = operating.standing(document.operations).retired
    back = f"; {operating.back_in_words(retired)}" if retired else ""
    parts = [f"{document.held}{back}"] if document.held else [operating.done_in_words(done[-1])] if done else []
    return "; ".join([*parts, *map(operating.asked_in_words, waiting)]) or "nothing that holds"


def _unanswered(document: ModelStatus) -> str:
    """How many rows nobody has answered, and what would."""
    nights = sorted(document.unanswered)
    rows = counted(sum(document.unanswered.values()), "row")
    return (
        f"{rows} of {', '.join(map(str, nights))}: known after that night was scored, or it never was; "
        f"tiltyard shadow {document.model} --as-of {nights[-1]} scores what is known now"
    )


def delivery(summary: DeliverySummary) -> str:
    """Which nights are at their destination, and which are owed, and why."""
    done = [f"{night} ({counted(rows, 'answer')})" for night, rows in sorted(summary.delivered.items())]
    waiting = f"; owed: {listed([str(night) for night in summary.owed])}" if summary.owed else ""
    why = f": {summary.reason}" if summary.owed and summary.reason else ""
    return f"to {summary.to}: {listed(done) or 'nothing'}{waiting}{why}"


def holds(open_holds: Sequence[OpenHold]) -> str:
    """The legal holds that stand, a line each."""
    lines = [
        f"{hold.id}: from {hold.first:%Y-%m-%d} {f'before {hold.last:%Y-%m-%d}' if hold.last else 'on'}, "
        f"by {hold.by}: {hold.reason}"
        for hold in open_holds
    ]
    return "\n".join(lines) or "No legal hold stands."


def prediction(document: ExplainedPrediction) -> str:
    """One explained prediction as a small table."""
    width = max((len(value.feature) for value in document.features), default=0)
    truth = json.dumps(document.truth.to_json()) if document.truth else "not matured yet"
    at = document.prediction_time.isoformat()
    return "\n".join(
        [
            f"{document.model} on {document.entity_id} at {at}: {_said(document)}",
            f"  served by {document.tier}, {_version(document.version)} as {document.role}, "
            f"from lake snapshot {document.snapshot}{_apart(document)}",
            f"  truth: {truth}",
            *(
                f"  {value.feature:<{width}}  {value.value!s:<24} happened {_instant(value.event_time)}, "
                f"known {_instant(value.available_at)} ({value.view})"
                for value in document.features
            ),
        ]
    )


def _said(document: ExplainedPrediction) -> str:
    """The score; of several classes, all of them, the likeliest first."""
    if not document.scores:
        return f"{document.score:.4f}"
    ordered = sorted(document.scores.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{name} {share:.4f}" for name, share in ordered)


def _apart(document: ExplainedPrediction) -> str:
    """The tables that were read elsewhere."""
    parts = (
        f"{table} at {snapshot}" if snapshot is not None else f"without {table}, which was never good"
        for table, snapshot in document.apart.items()
    )
    return "".join(f", {part}" for part in parts)


def latencies(embargoes: Iterable[Embargo]) -> list[dict[str, str | int]]:
    """The cells of `tiltyard leakage latency`, a row per table."""
    return [
        {
            "table": embargo.table,
            "nights": embargo.nights,
            "rows": embargo.rows,
            "observed": embargo.observed_rows,
            "promised p99": _took(embargo.promised_p99_s),
            "claimed p99": _took(embargo.claimed_p99_s),
            "observed p99": _took(embargo.observed_p99_s),
            "max": _took(embargo.observed_max_s),
            "late rows": embargo.late_rows,
            "embargo": counted(embargo.missed_nights, "night"),
            "verdict": embargo.verdict,
        }
        for embargo in embargoes
    ]


def governed(night: PortfolioNight) -> str:
    """The governor's word on a night: how many of each, the incidents, and every model that is not steady."""
    told = {"incident": "held by an incident", "cooldown": "in their cooldown"}
    counts = ", ".join(f"{number} {told.get(decision, decision)}" for decision, number in night.decisions.items())
    lines = [f"night of {night.night}: {counts or 'no model'}"]
    lines += [f"  {_shared(incident)}" for incident in night.incidents]
    lines += [
        f"  {action.decision:<9} {name}: {'; '.join(action.reasons)}"
        for name, action in night.actions.items()
        if action.decision not in ("steady", "incident")
    ]
    return "\n".join(lines)


def answered(reports: Sequence[FallbackReport]) -> str:
    """What `tiltyard fallback` shows: per model who answered, and what a person is asked or has said."""
    return "\n".join(line for report in reports for line in _answered(report)) or "there is no model"


def _answered(report: FallbackReport) -> list[str]:
    model = report.model
    if report.night is None:
        return [f"{model}: no night is audited yet; run tiltyard fallback audit {model} --as-of DATE"]
    state, *tasks = _lasting(report)
    return [
        f"{model} on the night of {report.night}: {state}",
        *(
            f"  {row.channel:<8} {row.share:>6.1%}  {row.answers:>9,}  {row.tier}, {row.reason}"
            for row in report.shares
        ),
        *tasks,
    ]


def _lasting(report: FallbackReport) -> list[str]:
    """Whether the model is on its safe default, and every task that there was."""
    current = report.on_default
    return [
        f"on its safe default since {current.since}, {current.nights} nights" if current else "in service",
        *(f"  task of {task.opened}: {_task(report.model, task)}" for task in report.tasks),
    ]


def _task(model: str, task: TaskReport) -> str:
    if task.state == "open":
        return f"open; tiltyard fallback explain {model} --cause … --owner … --until …"
    recovery = f"left its safe default on {task.recovered}" if task.recovered else ""
    if task.state == "recovered":
        return f"recovered without an answer, it {recovery}"
    answer = f"{task.answered_by} says: {task.cause} (owner {task.owner}, until {task.until})"
    return f"{answer}; it {recovery}" if recovery else answer


def incidents(open_now: Sequence[OpenIncident]) -> str:
    """The portfolio's incidents, a line for each."""
    return "\n".join(map(_shared, open_now)) or "no incident is open"


def _open(incident: OpenIncident) -> str:
    """An incident in a model's status; `tiltyard incidents` says more."""
    columns = f" ({', '.join(incident.columns)})" if incident.columns else ""
    kind = incident.kind.replace("_", " ")
    return f"{incident.node} {kind} since {incident.since}{columns}" + (
        f", {incident.closing}" if incident.closing else ""
    )


def _shared(incident: Incident) -> str:
    node, models = incident.node, incident.models
    named = f"{listed(models)}"
    columns = f", columns {', '.join(incident.columns)}" if incident.columns else ""
    closing = incident.closing if isinstance(incident, OpenIncident) else None
    end = (
        closing
        or {
            "broken": "closes when it is mended",
            "missing": f"closes when it is back, or: tiltyard incidents release {node} --reason …",
            "shared_shift": f"held until it is over, or: tiltyard incidents release {node} --reason …",
        }[incident.kind]
    )
    kind = incident.kind.replace("_", " ")
    whom = f"{counted(len(models), 'model')} ({named}){columns}" if models else f"no model{columns}"
    return f"{node} {kind} since {incident.since}, {whom}: {incident.reason}; {end}"


def _late(embargo: Embargo) -> str:
    if embargo.verdict == "over":
        return f"{embargo.table} p99 {_took(embargo.observed_p99_s)}, promised {_took(embargo.promised_p99_s)}"
    missed = counted(embargo.missed_nights, "night")
    return f"{embargo.table} misses {missed}, {embargo.late_rows} of {embargo.rows} rows late"


def _took(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    took = timedelta(seconds=round(seconds))
    return f"{took.days} d {took.seconds // 3600} h" if took.days else str(took)


def _roles(document: ModelStatus) -> str:
    nights = document.shadow_nights
    waiting = _list(f"v{number} ({nights[number]} nights)" for number in document.challengers)
    return f"{_version(document.champion)}; previous {_version(document.previous)}; challengers: {waiting}"


def _truth(document: ModelStatus) -> str:
    of = f"of the nights since {document.matured_since}" if document.matured_since else "in all"
    counts = (
        f"{document.matured} matured {of}, {document.immature} immature, {document.early} known early and not counted"
    )
    if document.bounds:
        learned = document.bounds
        counts += (
            f"; bounds {learned.low:g} to {learned.high:g}, learned on {learned.learned}: {learned.outside:,} of "
            f"{learned.rows:,} labels of the newest training lay beyond"
        )
    if document.outside:
        counts += f"; {document.outside} {MEASURES[document.measure].outside_told}"
    return counts


def _metrics(metrics: MeasuredVersion | None, measure: str) -> str:
    if metrics is None or metrics.figure(measure) is None:
        return NOTHING
    target = MEASURES[measure]
    loss, low, high = _interval(metrics, measure)
    more = "".join(f", {words} {_round(metrics.figure(name))}" for name, words in target.headline.items())
    return f"champion's {target.figure} {loss} ({low} to {high}){more} on {metrics.matured} matured"


def _estimated(estimate: EstimatedVersion | None, measure: str) -> str:
    """Never without the word: nothing of this was measured."""
    if reason := MEASURES[measure].inestimable:
        return f"not estimated: {reason}"
    if estimate is None or estimate.brier is None:
        return NOTHING
    by = (
        f"by {estimate.calibration_rows} matured rows"
        if estimate.is_calibrated
        else "raw scores, too few matured rows to calibrate them"
    )
    return (
        f"champion's Brier {_round(estimate.brier)} ({_round(estimate.brier_low)} to {_round(estimate.brier_high)}) "
        f"on {estimate.rows} rows without truth, estimated {by}; decides nothing"
    )


def _latency(tables: Sequence[Embargo]) -> str:
    """How many tables were measured, and which of them were late."""
    if not tables:
        return "not measured"
    late = ", ".join(_late(table) for table in tables if table.verdict in ("late", "over"))
    return f"{counted(len(tables), 'table')} measured, {late or 'none late'}"


def _labels(report: ArrivalReport | None) -> str:
    if report is None:
        return NOTHING
    half, most = (
        None if nights is None else f"after {counted(nights, 'night')}"
        for nights in (report.half_after, report.most_after)
    )
    known = f"half are known {half}, 95 % {most or 'not yet'}" if half else "half are not known yet"
    last = f"the last came in the night of {report.last_arrived}" if report.last_arrived else "none has come yet"
    broken = "; ".join(f"{incident.what.replace('_', ' ')} since {incident.since}" for incident in report.incidents)
    return f"{known}; {report.waiting_rows} rows of {report.waiting_cohorts} cohorts wait, {last}" + (
        f"; {broken}" if broken else ""
    )


def _gate(gate: GateDecision | None) -> str:
    if gate is None:
        return NOTHING
    against = f"champion v{gate.champion}" if gate.champion is not None else "the safe default"
    due = f"; {gate.due}" if gate.due else ""
    outcome = f"; not promoted: {gate.outcome.rstrip('.')}" if gate.outcome else ""
    why = f"{_sentences(gate.reasons)}{due}{outcome}"
    return f"{gate.verdict} v{gate.challenger} against {against} on {gate.night}: {why}"


def _watch(watch: WatchedChampion | None, rollbacks: Sequence[Rollback]) -> str:
    """The rollback watch, and what it has sent back."""
    sent = "".join(
        f"v{rollback.version} went back to {_served_by(rollback.back)} on {rollback.night}; " for rollback in rollbacks
    )
    if watch is None:
        return sent.rstrip("; ") or "nobody is under watch"
    reasons, before = _sentences(watch.reasons), _served_by(watch.previous)
    if not watch.verdict:
        return f"{sent}v{watch.champion}, before it {before}: {reasons}"
    return (
        f"{sent}{watch.verdict} v{watch.champion} on {watch.night}. Of {before}, which was in service before: {reasons}"
    )


def _served_by(version: int | None) -> str:
    return "the safe default" if version is None else f"v{version}"


def online(arms: Arms, measure: str) -> str:
    """How the answers given online turned out, per arm; of a challenger's unseen scores per version."""
    name = MEASURES[measure].figure
    lines = []
    for arm, rows in arms.items():
        for row in rows if arm == SHADOW else rows[:1]:
            who = f"shadow v{row.version}" if arm == SHADOW else arm
            defaults = sum(part.requests for part in rows if part.tier == SAFE_DEFAULT)
            fell = f", {defaults} of them by the safe default" if defaults else ""
            loss, low, high = _interval(row, measure)
            figure = f"{name} {loss} ({low} to {high}) on {row.matured} matured"
            unmatched = f", {row.unmatched} of no spine row" if row.unmatched else ""
            lines.append(f"{who} {row.requests} requests{fell}, {figure}{unmatched}")
    return "; ".join(lines) or NOTHING


def request_nights(nights: Sequence[RequestNight]) -> list[dict[str, str | int]]:
    """The cells of `tiltyard requests show`, a row per night."""
    return [
        {
            "night": str(night.night),
            "requests": night.requests,
            "answered by": _list(f"{tier} {count}" for tier, count in night.tiers.items()),
            "p50": f"{night.p50_us / 1000:.2f} ms",
            "p99": f"{night.p99_us / 1000:.2f} ms",
        }
        for night in nights
    ]


def turned_out(report: RequestsReport, measure: str) -> list[str]:
    """How the answers turned out, and what the log of all models has lost."""
    if not report.nights:
        return ["no request was delivered yet; run tiltyard serve, ask it, then tiltyard requests deliver"]
    log = report.log
    aside = f"; {log.damaged} segments are kept in spool/damaged" if log.damaged else ""
    return [
        f"outcome: {online(report.arms, measure)}",
        f"log of all models: {log.requests} requests and {log.shadow} shadow scores in {log.segments} segments, "
        f"{log.lost} lost, {log.unreadable} unreadable{aside}",
    ]


def _drift(drift: DriftNight | None) -> str:
    if drift is None:
        return NOTHING
    skewed = drift.skew.skewed if drift.skew else ()
    aside = f"; online not as at night: {listed(skewed)}" if skewed else ""
    return f"{drift.verdict} on {drift.night}: {_sentences(drift.reasons)}{aside}"


def _governor(governed: GovernedNight | None) -> str:
    return f"{governed.decision} on {governed.night}: {_sentences(governed.reasons)}" if governed else NOTHING


def _realized(realized: Realized | None) -> str:
    if realized is None:
        return "nothing has matured yet"
    after = realized.since_first_promotion
    figure = at_start(MEASURES[realized.metric].figure)
    return f"{figure} over all {_lines(realized)}" + (f"; since the first promotion {_lines(after)}" if after else "")


def _lines(means: RealizedMeans) -> str:
    return (
        f"{means.rows} rows: promoted line {means.promoted_line:.4f}, "
        f"never retrained {means.never_retrained:.4f}, safe default {means.safe_default:.4f}"
    )


def _checks(checks: ChecksNight | None) -> str:
    if checks is None:
        return NOTHING
    anew = f"; made anew: {', '.join(f'{table} ({why})' for table, why in checks.rebuilt.items())}"
    return (
        f"{checks.status} on {checks.night}: {len(checks.critical)} critical and "
        f"{counted(len(checks.warnings), 'warning')} of {counted(checks.checks, 'check')} of its source"
        f"{anew if checks.rebuilt else ''}"
    )


def _training(training: TrainingNight | None) -> str:
    if training is None:
        return NOTHING
    outcome = f"v{training.version}" if training.version is not None else "no version"
    state = "" if training.status == "done" else f"{training.status}, "
    return f"{state}{outcome} on {training.night}" + (f": {training.reason}" if training.reason else "")


def features(filled: FilledFeatures) -> str:
    """The features of which training saw at most one value, and those that are filled otherwise than then."""
    newest = f"now is the night of {filled.night}" if filled.night else "no night was scored lately"
    head = f"{len(filled.features)} of v{filled.version}"
    dead = [str(feature) for feature in filled.features if feature.is_dead]
    moved = [
        str(feature)
        for feature in filled.features
        if not feature.is_dead and feature.now is not None and abs(feature.now - feature.training) >= MOVED
    ]
    parts = [f"{len(dead)} had at most one value at training: {', '.join(dead)}"] if dead else []
    parts += [f"{len(moved)} filled otherwise than at training: {', '.join(moved)}"] if moved else []
    return f"{head}, {'; '.join(parts)}; {newest}" if parts else f"{head}, filled as at training"


def _replay(replay: ReplaySummary | None) -> str:
    """The millisecond test of the last training."""
    if replay is None:
        return NOTHING
    sentences = replay.critical or replay.untested
    why = f": {_sentences(sentences)}" if sentences else ""
    asked = f"{replay.rows} predictions asked again, of which {replay.tested} can acquit"
    return f"{replay.verdict} before the last training, {asked}{why}"


def _interval(figures: VersionFigures | ArmFigures, measure: str) -> tuple[str, str, str]:
    """The measure and the ends of its interval, as texts."""
    loss, low, high = (_round(figures.figure(name)) for name in (measure, f"{measure}_low", f"{measure}_high"))
    return loss, low, high


def _instant(instant: datetime | None) -> str:
    return "None" if instant is None else instant.isoformat()


def _list(parts: Iterable[str]) -> str:
    return ", ".join(parts) or "none"


def _sentences(reasons: Iterable[str]) -> str:
    """All of them on one line; the last reason may be the one that decides."""
    return "; ".join(reason.rstrip(".") for reason in reasons) or "no reason given"


def _version(number: int | None) -> str:
    return "none" if number is None else f"v{number}"


def _round(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
