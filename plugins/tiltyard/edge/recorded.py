"""A model's document as the ledger alone has it: what its stages recorded of a night, and what they had in hand then.

The pages show it. `status` gives the same with what only the lake can say now: all that has matured, the realized
lines. Whatever is read of the ledger is of some nights, or of what changed: a year costs what a month does.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import date, datetime, timedelta

from tiltyard import clock, operating
from tiltyard.answered import delivery, fallback_audit
from tiltyard.edge.document import (
    ChecksNight,
    Document,
    DriftNight,
    FilledFeatures,
    GateDecision,
    GovernedNight,
    GrantedRetrain,
    LearnedBounds,
    ModelStatus,
    NoNight,
    PromotedVersion,
    Rollback,
    ServedBy,
    TrainingNight,
    WatchedChampion,
)
from tiltyard.govern import governor, grants, routine, standing
from tiltyard.govern.routine import NextRetrain
from tiltyard.judge import rollback, shadow
from tiltyard.judge.best import best_of
from tiltyard.judge.night_figures import NightFigures
from tiltyard.lake import qualified
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import contracts, data_incidents, ingest
from tiltyard.prepare.source_figures import SourceFigures
from tiltyard.rails import Rails
from tiltyard.records import (
    DriftSummary,
    Embargo,
    FeaturesSummary,
    FilledFeature,
    MeasuredVersion,
    PromotionSummary,
    RefusedText,
    ShadowSummary,
    StageRun,
    TrainingSummary,
)
from tiltyard.spec import Spec
from tiltyard.succession import Roles

DAY, WEEK = timedelta(days=1), timedelta(days=7)


def newest(rails: Rails, spec: Spec) -> datetime | None:
    """The end of the newest night on which the model was scored, however that ended; None before the first."""
    night = rails.ledger.newest_attempts("shadow", [spec.name]).get(spec.name)
    return clock.midnight(night) if night else None


def status(rails: Rails, spec: Spec, as_of: datetime | None = None) -> Document:
    """The model's document after a night; without `as_of` after the newest that was scored, and of its source's data as
    far as that is known. `matured` counts those of the night's window, and nothing is said of the realized lines."""
    is_asked = as_of is not None
    as_of = as_of or newest(rails, spec)
    if as_of is None:
        return NoNight(
            model=spec.name,
            owner=spec.owner,
            tier=spec.tier,
            measure=spec.target.measure,
            state=f"no night yet; run tiltyard hindcast --model {spec.name} --from DATE --to DATE",
        )
    before = as_of.date() + DAY if is_asked else date.max
    checked = rails.ledger.last_features_run(spec.source, before)
    operations = rails.ledger.operations.of([spec.name])[spec.name]
    held = operating.standing(operations, *([before] if is_asked else []))
    told = _document(rails, rails.ledger.bounded(spec), as_of, checked)
    return replace(told, operations=tuple(operations), held=held.in_words())


def _document(rails: Rails, spec: Spec, as_of: datetime, checked: StageRun[FeaturesSummary] | None) -> ModelStatus:
    ledger, night = rails.ledger, as_of.date()
    known = max(night, checked.night) if checked else night
    roles = ledger.roles(spec.name, (as_of + clock.NIGHT).date())  # in force from the next night on
    training = ledger.last_stage_run(TrainingSummary, spec.name, before=night + DAY)
    scored = ledger.last_stage_run(ShadowSummary, spec.name, before=night + DAY)
    told = scored.summary if scored else ShadowSummary()
    kept = ledger.chronicle.kept(NightFigures, "model", spec.name, night)
    figures = kept.body if kept else NightFigures()
    tables = _source_figures(rails, spec, known)
    return ModelStatus(
        model=spec.name,
        owner=spec.owner,
        tier=spec.tier,
        measure=spec.target.measure,
        as_of=as_of,
        champion=roles.champion,
        previous=roles.previous,
        challengers=tuple(roles.challengers),
        first=roles.first,
        shadow_nights=_shadow_nights(rails, spec, roles, night),
        served_by=_served_by(told, figures),
        fallback=fallback_audit.recorded(rails, spec, night, figures),
        popular=checked.summary.popular.get(spec.name, ()) if checked else (),
        matured=told.counts.matured,
        matured_since=_matured_since(spec, scored),
        immature=told.counts.immature,
        early=told.counts.early,
        outside=told.counts.outside,
        bounds=_bounds(rails, spec),
        figures_night=kept.night if kept and kept.night != night else None,
        metrics=figures.metrics
        or {version: MeasuredVersion.of(measured.to_json()) for version, measured in told.metrics.items()},
        gate=_gate(rails, spec, night),
        promotions=tuple(
            PromotedVersion(night=entry.night, version=entry.version, replaced=entry.replaced, by=entry.approved_by)
            for entry in ledger.promotions(spec.name, until=night)
        ),
        watch=_watch(rails, spec, as_of),
        rollbacks=tuple(
            Rollback(night=entry.night, version=entry.champion, back=entry.previous, reasons=entry.reasons)
            for entry in ledger.watches(spec.name, until=night, verdict="rollback")
        ),
        retrains=tuple(
            GrantedRetrain(night=entry.night, reasons=entry.reasons)
            for entry in ledger.retrains(spec.name, until=night)
        ),
        online=told.online,
        drift=_drift(rails, spec, night),
        governor=_governor(rails, spec, night),
        freshness=tables[spec.source].freshness if spec.source in tables else {},
        latency=_latency(rails, spec, tables),
        incidents=data_incidents.of_source(rails, spec.source, known),
        open_incidents=standing.of_model(rails, spec, known),
        quarantined=ingest.quarantined(rails, spec.source, known),
        unpublished=tuple(
            state for state in ledger.table_states(until=known) if state.table in spec.tables and not state.is_published
        ),
        refused=_refused(rails, spec),
        answered_until=_answered_until(rails, spec),
        unanswered=told.unanswered,
        label_arrival=figures.label_arrival,
        estimated=figures.estimated,
        checks=_checks(checked),
        training=_training(training),
        next_retrain=_next_retrain(rails, spec, night),
        features=_features(rails, spec, roles, night),
        replay=training.summary.replay if training else None,
        realized=None,
        delivery=delivery.standing(rails, spec),
        events=ledger.chronicle.count_events(spec.name, delivery.ROUTINE),
    )


def _served_by(told: ShadowSummary, figures: NightFigures) -> dict[str, ServedBy]:
    """Tier → its answers of the night."""
    return {
        tier: ServedBy(answers=answers, example=figures.examples.get(tier, ""))
        for tier, answers in sorted(told.tiers.items())
    }


# -- parts ----------------------------------------------------------------------------------------------------


def _matured_since(spec: Spec, scored: StageRun[ShadowSummary] | None) -> date | None:
    """The first night whose cohorts a summary counts."""
    return shadow.window_since(spec, clock.midnight(scored.night)) if scored else None


def _shadow_nights(rails: Rails, spec: Spec, roles: Roles, night: date) -> dict[int, int]:
    """Challenger → nights that it has scored."""
    trained = {entry.version: entry.night for entry in rails.ledger.versions(spec.name)}
    since = min((trained[number] for number in roles.challengers if number in trained), default=None)
    nights = rails.ledger.chronicle.nights_scored(spec.name, since, night) if since else {}
    return {number: nights.get(number, 0) for number in roles.challengers}


def _source_figures(rails: Rails, spec: Spec, known: date) -> dict[str, SourceFigures]:
    """Source → what was kept of its newest night: of the model's, and of those whose tables it reads as well."""
    found: dict[str, SourceFigures] = {}
    for source in dict.fromkeys((spec.source, *rails.settings.sources)):
        kept = rails.ledger.chronicle.kept(SourceFigures, "source", source, known)
        if kept:
            found[source] = kept.body
        if not _missing(spec, found.values()):
            break
    return found


def _missing(spec: Spec, figures: Collection[SourceFigures]) -> set[str]:
    """The feature views of a model of whose latency nothing is among these."""
    return {*map(qualified, spec.prediction.features)} - {row.table for part in figures for row in part.latency}


def _latency(rails: Rails, spec: Spec, figures: dict[str, SourceFigures]) -> tuple[Embargo, ...]:
    """How late the rows of the tables really were that the model stands on."""
    raw = contracts.raw_tables(rails.settings, spec.source) if spec.source in contracts.sources(rails.settings) else ()
    rows = {row.table: row for part in figures.values() for row in part.latency}
    return tuple(rows[table] for table in sorted({*raw, *map(qualified, spec.prediction.features)}) if table in rows)


def _gate(rails: Rails, spec: Spec, night: date) -> GateDecision | None:
    """Of the newest night's decisions the one that is acted on, which is the one that a person is asked about."""
    decided = rails.ledger.chronicle.last_decided(spec.name, night)
    decision = best_of(rails.ledger.decisions(spec.name, until=decided, since=decided)) if decided else None
    if decision is None:
        return None
    run = rails.ledger.stage_run(PromotionSummary, spec.name, decision.night)
    closed = run.summary if run and run.status == "done" and decision.verdict == "promote" else None
    return GateDecision(
        night=decision.night,
        challenger=decision.challenger,
        champion=decision.champion,
        verdict=decision.verdict,
        reasons=decision.reasons,
        outcome=closed.reason if closed and closed.promoted is None else None,
        due=run.summary.due if run and run.summary.challenger == decision.challenger else None,
    )


def _watch(rails: Rails, spec: Spec, as_of: datetime) -> WatchedChampion | None:
    """What the rollback watch says of the champion that is under it."""
    change = rollback.watched(spec, rails.ledger.changes(spec.name), as_of)
    if change is None or change.champion is None:
        return None
    verdicts = rails.ledger.watches(spec.name, until=as_of.date(), since=change.night + DAY)
    newest = verdicts[-1] if verdicts else None
    return WatchedChampion(
        champion=change.champion,
        previous=change.previous,
        predictions_until=change.night + spec.gate.rollback_window,
        night=newest.night if newest else None,
        verdict=newest.verdict if newest else None,
        reasons=newest.reasons if newest else ("Nothing has matured since the promotion.",),
    )


def _governor(rails: Rails, spec: Spec, night: date) -> GovernedNight | None:
    """What the governor decided on the model, on the newest night that it decided on, until `night`."""
    newest = rails.ledger.last_governed(spec.name, before=night + DAY)
    if newest is None:
        return None
    action = newest.summary.actions[spec.name]
    return GovernedNight(night=newest.night, decision=action.decision, reasons=action.reasons, incident=action.incident)


def _drift(rails: Rails, spec: Spec, night: date) -> DriftNight | None:
    """The newest night's finding; of a night that ended without one, how it ended, and why."""
    newest = rails.ledger.last_stage_run(DriftSummary, spec.name, before=night + DAY)
    if newest is None:
        return None
    values = vars(newest.summary) | {"night": newest.night, "status": newest.status}
    if newest.status != "done":
        values |= {"verdict": newest.status, "reasons": (newest.summary.reason,) if newest.summary.reason else ()}
    return DriftNight(**values)


def _checks(newest: StageRun[FeaturesSummary] | None) -> ChecksNight | None:
    if newest is None:
        return None
    return ChecksNight(**vars(newest.summary) | {"night": newest.night, "status": newest.status})


def _training(newest: StageRun[TrainingSummary] | None) -> TrainingNight | None:
    if newest is None:
        return None
    return TrainingNight(
        night=newest.night, status=newest.status, version=newest.summary.version, reason=newest.summary.reason
    )


def _next_retrain(rails: Rails, spec: Spec, night: date) -> NextRetrain | None:
    """When a retrain is due by the spec's own rules, after what this night granted; by what drift has counted."""
    finding = rails.ledger.finding(spec.name, night) if spec.retrain.is_given else None
    if finding is None:
        return None
    past = grants.past(rails, spec.name, night + DAY)
    cooldown = governor.cooling(past, night + DAY, spec.drift, load_portfolio(rails.settings.models).trainings)
    return routine.upcoming(spec.retrain, finding.since_training, *(cooldown or ()))


def _features(rails: Rails, spec: Spec, roles: Roles, night: date) -> FilledFeatures | None:
    """How far the features of the champion have values, or of the newest challenger where there is none."""
    number = roles.champion if roles.champion is not None else max(roles.challengers, default=None)
    version = None if number is None else rails.ledger.version(spec.name, number)
    if version is None or not version.facts.filled:
        return None
    return filled(rails, spec.name, version.version, version.facts.filled, night)


def filled(rails: Rails, model: str, version: int, features: tuple[FilledFeature, ...], night: date) -> FilledFeatures:
    """How far features of a version have values: at training, and on the newest night of the week up to `night` that
    counted its rows."""
    kept = rails.ledger.chronicle.kept(NightFigures, "model", model, night)
    shares = kept.body.filled.get(version, {}) if kept and kept.night > night - WEEK else {}
    return FilledFeatures(
        version=version,
        night=kept.night if kept and shares else None,
        features=tuple(replace(feature, now=shares.get(feature.feature)) for feature in features),
    )


def _refused(rails: Rails, spec: Spec) -> tuple[RefusedText, ...]:
    """What was refused of the model itself and of what no model owns."""
    accepted = rails.ledger.release()
    texts = accepted.refused if accepted else ()
    own = (f"models/{spec.name}", "models/portfolio.yaml")
    return tuple(text for text in texts if text.path in own or not text.path.startswith("models/"))


def _answered_until(rails: Rails, spec: Spec) -> datetime | None:
    """The end of the newest night or hour whose rows were answered."""
    ends = [clock.midnight(night) for night in rails.ledger.newest_nights("shadow", [spec.name]).values()]
    ends += [hour.as_of for hour in rails.ledger.hours("model", [spec.name]).values()]
    return max(ends, default=None)


def _bounds(rails: Rails, spec: Spec) -> LearnedBounds | None:
    """The bounds that were learned, by the first version that has them."""
    own = [version for version in rails.ledger.versions(spec.name) if version.facts.bounds == spec.target.bounds]
    if not own:
        return None
    low, high = spec.target.bounds
    facts = own[-1].facts
    return LearnedBounds(
        low=low, high=high, learned=own[0].night, rows=facts.rows or 0, outside=facts.labels_outside_bounds or 0
    )
