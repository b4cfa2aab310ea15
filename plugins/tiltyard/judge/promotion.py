"""The promotion stage: rollback watch → evidence on every challenger → gate → (people) → the ledger's claim → alias.

The ledger decides, the alias follows. A promotion needs three things that nobody can forge from a task's return
value: a verdict `promote` in the ledger, for tier 1 the approvals that the spec asks for, each of which names exactly
this evidence page and comes from somebody who did not ask for it, and the ledger's unique claim. What is refused is
recorded as an event.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Literal, NamedTuple

import pandas as pd

from tiltyard import clock
from tiltyard.answered import arm
from tiltyard.clock import night_closing
from tiltyard.errors import CheckFailed, Unavailable
from tiltyard.judge import aliases, approval, evidence_file, forecast, gate, label_check, pairs, releasers, rollback
from tiltyard.judge.approval import Approval, Subject
from tiltyard.judge.best import best_of
from tiltyard.lake import quoted
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import frame, truth
from tiltyard.rails import Rails, records_its_end
from tiltyard.records import (
    ChallengerDecision,
    Decision,
    DueForecast,
    EvidenceRecord,
    FilledFeature,
    JsonObject,
    LearnedScale,
    PageFile,
    PromiseRecord,
    Promotion,
    PromotionSummary,
    Replayed,
    ReplaySummary,
    TrainedFrom,
    TrainingSummary,
    Version,
)
from tiltyard.spec import Spec
from tiltyard.stages import StageName
from tiltyard.succession import ChampionChange, Roles
from tiltyard.train import registry, replay
from tiltyard.train.encoding import LARGEST

STAGE: StageName = "promotion"
DAY = timedelta(days=1)


@dataclass(frozen=True)
class PromotionOutcome:
    """What came of a night's verdict."""

    reason: str
    """Why, as a sentence."""
    promoted: int | None = None
    """The version that was promoted; None for none."""
    replaced: int | None = None
    """The version that it replaced; None for the safe default, or without a promotion."""
    rolled_back: int | None = None
    """The version that was sent back; None for none."""
    is_refused: bool = False
    """Whether somebody has approved and that does not count."""

    @property
    def has_changed(self) -> bool:
        """Whether there is another champion from the next night on."""
        return self.promoted is not None or self.rolled_back is not None


def judge_night(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    *approvals: Approval,
    assume: Literal["auto", "never"] | None = None,
) -> PromotionSummary:
    """Watch and judge the night and promote what may be promoted; twice is once.

    `assume` is what a hindcast declares that people would have said, a yes (`auto`) or a no (`never`), recorded as
    assumed. Without it nobody has said anything.
    """
    judged = judge(rails, spec, as_of)
    if not approvals and assume and judged.needs_approval:
        approvals = (approval.assumed(subject_of(spec, judged), as_of, f"hindcast:{assume}"),)
    outcome = promote(rails, spec, as_of, *approvals)
    return close(rails, spec, judged, outcome)


def close(rails: Rails, spec: Spec, judged: PromotionSummary, outcome: PromotionOutcome) -> PromotionSummary:
    """Record the night as done, with what came of it."""
    summary = replace(
        judged,
        promoted=outcome.promoted,
        replaced=outcome.replaced,
        rolled_back=outcome.rolled_back,
        reason=outcome.reason,
    )
    assert summary.night is not None  # `judge` names it
    rails.ledger.record_stage(spec.name, summary.night, "done", summary)
    return summary


def subject_of(spec: Spec, judged: PromotionSummary) -> Subject:
    """What an approval of a night's proposal has to be about."""
    assert judged.night is not None and judged.challenger is not None and judged.evidence is not None
    return Subject(spec.name, judged.challenger, judged.night, judged.evidence)


# -- judging ----------------------------------------------------------------------------------


@records_its_end(STAGE)
def judge(rails: Rails, spec: Spec, as_of: datetime) -> PromotionSummary:
    """Put the night's evidence on every challenger before the gate and record the verdicts.

    A rerun gets the recorded verdicts back. The one to promote is, of those that may be, the one with the largest
    lower bound. The summary says nothing yet of a promotion.
    """
    aliases.reconcile(rails, spec, as_of)
    night = night_closing(as_of)
    roles = rails.ledger.roles(spec.name, night)
    watch = rollback.watch(rails, spec, as_of)
    summary = PromotionSummary(
        model=spec.name,
        night=night,
        champion=roles.champion,
        reasons=("No challenger is in shadow.",),
        watch=rollback.summary(watch),
    )
    if watch is not None and watch.verdict == "rollback":
        reason = f"{rollback.in_words(watch)}; challengers are judged against it from the next night on."
        return replace(summary, reasons=(reason, *watch.reasons))
    if not roles.challengers:
        return summary
    history = _history(rails, spec, as_of, roles)
    judged = [_decide(rails, spec, as_of, history, challenger, roles.champion) for challenger in roles.challengers]
    decisions = [one.decision for one in judged]
    best = best_of(decisions)
    assert best is not None
    may_be = best.verdict == "promote"
    hindrance = rails.ledger.operations.hindrance(spec.name, night) if may_be else None
    return replace(
        summary,
        verdict=best.verdict,
        challenger=best.challenger,
        champion=best.champion,
        reasons=(hindrance, *best.reasons) if hindrance else best.reasons,
        evidence=best.evidence.bound,
        page=best.evidence.page.path if best.evidence.page else None,
        needs_approval=may_be and spec.tier == 1 and hindrance is None,
        decisions=tuple(map(_in_short, decisions)),
        due=next(one.due(spec, night) for one in judged if one.decision is best),
    )


@dataclass(frozen=True, eq=False)
class _ModelNight:
    """What there is of a model at a night, read once for all its challengers."""

    rows: pd.DataFrame
    """truth.side_by_side of champion and challengers."""
    nights: Mapping[int, Sequence[date]]
    """version → the nights it has scored."""
    profile: pd.DataFrame
    """See `profile`."""
    judged_at_once: Mapping[date, int]
    """night → challengers that were judged then, this night included."""
    replays: dict[str, Replayed]
    """The fresh millisecond test, once somebody needed it: it costs seconds."""


class _Judged(NamedTuple):
    """A decision, and what the gate makes of the evidence now."""

    decision: Decision
    evidence: gate.Evidence
    verdict: gate.Verdict

    def due(self, spec: Spec, night: date) -> DueForecast | None:
        """When the evidence would be enough: drawn for the one that is told of, and for no other."""
        return forecast.due(self.evidence, self.verdict, spec.gate, night)


def _history(rails: Rails, spec: Spec, as_of: datetime, roles: Roles) -> _ModelNight:
    night = night_closing(as_of)
    trained = [entry for number in roles.challengers if (entry := rails.ledger.version(spec.name, number))]
    oldest = min((entry.night for entry in trained), default=night)  # none has scored before it was trained
    nights = truth.nights(rails, spec, as_of, oldest)
    since = min((nights[number][0] for number in roles.challengers if number in nights), default=night)
    versions = [number for number in (roles.champion, *roles.challengers) if number is not None]
    judged = Counter(rails.ledger.nights_judged(spec.name, since, night - DAY))
    judged[night] = len(roles.challengers)
    return _ModelNight(
        rows=truth.side_by_side(rails, spec, as_of, versions, since),
        nights=nights,
        profile=profile(rails, spec, as_of, since),
        judged_at_once=judged,
        replays={},
    )


def _decide(
    rails: Rails, spec: Spec, as_of: datetime, history: _ModelNight, challenger: int, champion: int | None
) -> _Judged:
    """The night's recorded decision on one challenger, made now if there is none yet."""
    night = night_closing(as_of)
    trained = rails.ledger.version(spec.name, challenger)
    assert trained is not None
    evidence, record = _gather(rails, spec, as_of, history, trained, champion)
    verdict = gate.decide(evidence, spec.gate, spec.fallback.deadline_ms)
    if all(criterion.status == "pass" or criterion.name == "replay" for criterion in verdict.criteria):
        # The training's own millisecond test is as old as the training; the last word is a fresh one.
        if "fresh" not in history.replays:
            history.replays["fresh"] = _replayed_now(rails, spec, as_of)
        evidence = replace(evidence, replay=history.replays["fresh"])
        record = replace(record, replay=history.replays["fresh"])
        verdict = gate.decide(evidence, spec.gate, spec.fallback.deadline_ms)
    record = pairs.judged(record, verdict)
    if verdict.verdict == "promote":
        drawn = pairs.picture(spec, evidence, history.rows, challenger, champion)
        record = replace(record, drawn=drawn, promise=_promise(spec, trained), learned=_learned(trained))
    record = replace(record.signed(verdict.verdict), dead=_dead(history, trained) or None)
    if verdict.verdict == "promote":
        # Shown beside the digest of what decided, which the outcomes online are no part of.
        record = replace(record, online=arm.report(rails, spec, as_of) or None)
        record = replace(record, page=evidence_file.put(rails, record))
    assert verdict.verdict != "rollback" and verdict.verdict != "keep"  # those are the watch's
    decision = rails.ledger.add_decision(
        Decision(
            model=spec.name,
            night=night,
            challenger=challenger,
            champion=champion,
            verdict=verdict.verdict,
            reasons=tuple(verdict.reasons),
            evidence=record,
        )
    )
    rollback.note_change(rails, spec, night, decision.evidence, record, {"challenger": challenger})
    if decision.evidence.page:
        evidence_file.put(rails, decision.evidence)
    return _Judged(decision, evidence, verdict)


def _in_short(decision: Decision) -> ChallengerDecision:
    evidence = decision.evidence
    return ChallengerDecision(
        challenger=decision.challenger,
        champion=decision.champion,
        verdict=decision.verdict,
        reasons=decision.reasons,
        digest=evidence.digest,
        mean=evidence.mean,
        low=evidence.low,
        high=evidence.high,
        matured=evidence.matured,
        nights=evidence.nights,
    )


# -- gathering --------------------------------------------------------------------------------


def _gather(
    rails: Rails, spec: Spec, as_of: datetime, history: _ModelNight, trained: Version, champion: int | None
) -> tuple[gate.Evidence, EvidenceRecord]:
    """The evidence on one challenger at `as_of`, and what the ledger keeps of it. See pairs.gather.

    The millisecond test is the one before the challenger's training; `_decide` replaces it where it matters.
    """
    night = night_closing(as_of)
    first = min(history.nights.get(trained.version, [night]))
    missing_at_training, size = _files(rails, spec, trained.version)
    return pairs.gather(
        spec,
        night,
        history.rows,
        trained.version,
        champion,
        pairs.ChallengerFacts(
            challengers=max(count for judged, count in history.judged_at_once.items() if judged >= first),
            missing=pairs.missing(_shares_missing(history.profile, first), missing_at_training),
            latency_ms=trained.facts.latency_ms,
            size_mb=trained.facts.size_mb or size,
            replay=_replayed_before_training(rails, spec, trained),
            labels=label_check.of_version(rails, spec, trained, night),
        ),
    )


def profile(rails: Rails, spec: Spec, as_of: datetime, since: date) -> pd.DataFrame:
    """Per night from `since` on: `_night`, `_rows`, and per feature how many of them have no value."""
    publication = rails.publication()
    spec = frame.readable(rails, spec, publication)
    counts = ", ".join(
        f"count_if({name} is null{f' or not abs({name}) <= {LARGEST}' if feature.kind == 'numeric' else ''}) as {name}"
        for feature in frame.features(rails, spec, publication)
        for name in [quoted(feature.name)]
    )
    start = clock.midnight(since) - clock.NIGHT
    sql = f"""
        select cast(prediction_time as date) + 1 as _night, count(*) as _rows, {counts}
        from ({frame.select(rails, spec, start, as_of, as_of, publication)}) group by 1 order by 1
    """
    rows = rails.lake.connection.execute(sql).df()
    return rows.assign(_night=pd.to_datetime(rows["_night"]).dt.date)


def _shares_missing(profiled: pd.DataFrame, since: date) -> dict[str, float]:
    """Feature → share of missing values from a night on; empty when no row was seen."""
    sums = profiled[profiled["_night"] >= since].drop(columns="_night").sum()
    rows = float(sums["_rows"])
    return {str(name): float(count) / rows for name, count in sums.drop("_rows").items()} if rows else {}


def _dead(history: _ModelNight, trained: Version) -> tuple[FilledFeature, ...]:
    """The features of which the version's training saw at most one value, with what they are since it is in shadow."""
    dead = [feature for feature in trained.facts.filled if feature.is_dead]
    nights = history.nights.get(trained.version, ())
    missing = _shares_missing(history.profile, nights[0]) if dead and nights else {}
    return tuple(
        replace(feature, now=1 - missing[feature.feature] if feature.feature in missing else None) for feature in dead
    )


def _files(rails: Rails, spec: Spec, version: int) -> tuple[dict[str, float], float | None]:
    """Feature → share of missing values at training, and the version's size, from its files.

    What cannot be had is no evidence, and holds.
    """
    try:
        reference, size = registry.described(rails, spec.name, version)
    except (CheckFailed, Unavailable):
        return {}, None
    return pairs.missing_at_training(reference), size


def _replayed_before_training(rails: Rails, spec: Spec, trained: Version) -> Replayed | None:
    run = rails.ledger.stage_run(TrainingSummary, spec.name, trained.night)
    if run is None or run.summary.version != trained.version or run.summary.replay is None:
        return None
    return _replayed(run.summary.replay, "before its training")


def _replayed_now(rails: Rails, spec: Spec, as_of: datetime) -> Replayed:
    replayed = replay.check(rails, spec, as_of, rails.publication(), render=False)
    if replayed.verdict == "untestable" and replayed.untested and all(gap.in_hindsight for gap in replayed.untested):
        # A hindcast reads the state that it scored from: what cannot have been written over is no gap in the evidence.
        return Replayed("warn", "all of it was scored in hindsight, where nothing shows what was known then")
    gaps = [f"{gap.what}: {gap.why}" for gap in replayed.untested if not gap.in_hindsight]
    return _replayed(replayed.summary(), "on this night", gaps)


def _replayed(summary: ReplaySummary, when: str, gaps: Sequence[str] = ()) -> Replayed:
    """Without counts and snapshots: they differ from one run of a night to the next, and evidence is to be the same."""
    reasons = summary.critical or (gaps if summary.verdict == "untestable" else ())
    return Replayed(summary.verdict, ", ".join([when, *reasons[:2]]))


def _promise(spec: Spec, trained: Version) -> PromiseRecord:
    """Whose model it is, under which policy it was judged, and where the challenger comes from: for the page."""
    facts = trained.facts
    return PromiseRecord(
        owner=spec.owner,
        tier=spec.tier,
        approvals=spec.gate.approvals if spec.tier == 1 else 0,
        policy=spec.gate.model_dump(mode="json"),
        trained_on=trained.night,
        trained_by=trained.requested_by,
        training=TrainedFrom(
            rows=facts.rows,
            start=facts.start,
            end=facts.end,
            frame=facts.frame,
            git_commit=facts.git_commit,
            reasons=facts.reasons,
        ),
    )


def _learned(trained: Version) -> LearnedScale | None:
    """On which scale the challenger has learned a number, and how many labels of its frame lay beyond."""
    outside = trained.facts.labels_outside_bounds
    return None if outside is None else LearnedScale(bounds=trained.facts.bounds, outside=outside)


# -- promoting --------------------------------------------------------------------------------


@records_its_end(STAGE)
def promote(rails: Rails, spec: Spec, as_of: datetime, *approvals: Approval) -> PromotionOutcome:
    """Promote the night's best challenger, if the ledger's verdict, and for tier 1 enough people, say so.

    Only the ledger is believed: the verdict is read from it, not passed in, and it has to be as it was put down, which
    raises CheckFailed where it is not. A rerun of a night that changed the
    champion says so again and changes nothing.
    """
    night = night_closing(as_of)
    changes = rails.ledger.changes(spec.name)
    by_itself = (change for change in changes if change.kind != "operation")
    if mine := next((change for change in by_itself if change.night == night), None):
        return _changed_already(rails, spec, as_of, mine, approvals)
    best = best_of(rails.ledger.decisions(spec.name, until=night, since=night))
    if best is None or best.verdict != "promote":
        _refuse_people(rails, spec, night, approvals, "the gate has not said promote on this night")
        return PromotionOutcome(best.reasons[0] if best else "No challenger has been judged.")
    rails.ledger.require_untouched(spec.name)
    if held := rails.ledger.operations.hindrance(spec.name, night):
        _refuse_people(rails, spec, night, approvals, held.rstrip("."))
        return PromotionOutcome(f"{held} Version {best.challenger} is not promoted.")
    if overtaken := _overtaken(rails, spec, night, best, changes):
        return PromotionOutcome(overtaken)
    trained = rails.ledger.version(spec.name, best.challenger)
    assert trained is not None
    if spec.tier == 1 and not approvals:
        return PromotionOutcome("Tier 1: a person has to approve, and nobody has.")
    shown = best.evidence.promise.approvals if best.evidence.promise else 0
    if shown and not approvals:  # the spec asks for none any more: the next night's decision goes by that
        return PromotionOutcome("The model was of tier 1 when this night was judged, and nobody has approved.")
    if approvals:
        subject = Subject(spec.name, best.challenger, night, best.evidence.bound)
        rules = load_portfolio(rails.settings.models)
        approvers = rules.approvers.get(spec.owner)
        released_by = releasers.behind(rails, spec, best.challenger, best.champion)
        faults = approval.faults_of_all(
            spec, approvals, subject, trained.requested_by, approvers, rules.who, released_by, shown
        )
        faults += evidence_file.faults(rails, best.evidence)
        if all(answer.is_assumed and answer.chosen == approval.REJECT for answer in approvals):
            _refuse(rails, spec, night, approvals, [])
            return PromotionOutcome(f"A no was assumed: nobody was asked about version {best.challenger}.")
        if faults:
            _refuse(rails, spec, night, approvals, faults)
            is_refused = any(approval.APPROVE in answer.chosen for answer in approvals)
            return PromotionOutcome(f"The approval does not hold: {'; '.join(faults)}.", is_refused=is_refused)
    return _claim(rails, spec, best, trained, approvals)


def _changed_already(
    rails: Rails, spec: Spec, as_of: datetime, change: ChampionChange, approvals: Sequence[Approval]
) -> PromotionOutcome:
    """What a rerun says of a night that has changed the champion."""
    aliases.reconcile(rails, spec, as_of)
    if change.kind == "promotion":
        return PromotionOutcome(f"Version {change.version} was promoted on this night.", promoted=change.version)
    _refuse_people(rails, spec, change.night, approvals, "the champion was rolled back on this night")
    entry = rails.ledger.watches(spec.name, night=change.night)[0]
    return PromotionOutcome(f"{rollback.in_words(entry)}.", rolled_back=change.version)


def _overtaken(rails: Rails, spec: Spec, night: date, best: Decision, changes: Sequence[ChampionChange]) -> str | None:
    """Why the verdict of the night has no say any more, as a sentence; None when it has."""
    if any(change.night > night for change in changes):
        detail = {"version": best.challenger, "newest": str(changes[-1].night)}
        rails.ledger.add_event("promotion_out_of_order", spec.name, night, detail)
        return f"A later night ({changes[-1].night}) has changed the champion already."
    if rails.ledger.roles(spec.name, night).champion != best.champion:
        rails.ledger.add_event(
            "evidence_outdated", spec.name, night, {"version": best.challenger, "judged_against": best.champion}
        )
        return "The champion has changed since this night was judged."
    return None


def _claim(
    rails: Rails, spec: Spec, best: Decision, trained: Version, approvals: Sequence[Approval]
) -> PromotionOutcome:
    """Claim the promotion under the ledger's unique key, and let the aliases follow."""
    page = best.evidence.page
    is_first = rails.ledger.claim_promotion(
        Promotion(
            model=spec.name,
            version=best.challenger,
            night=best.night,
            replaced=best.champion,
            requested_by=trained.requested_by,
            approved_by=", ".join(str(answer.approved_by) for answer in approvals) or None,
            approval=_given(approvals, best.evidence, page) if approvals and page else {"needed": False},
        )
    )
    if not is_first:
        if held := rails.ledger.operations.hindrance(spec.name, best.night):  # since it was looked at
            return PromotionOutcome(f"{held} Version {best.challenger} is not promoted.")
        rails.ledger.add_event("promotion_lost", spec.name, best.night, {"version": best.challenger})
        return PromotionOutcome(f"Another gate was first: version {best.challenger} or this night is taken.")
    aliases.follow(rails, spec, best.night)
    return PromotionOutcome(best.reasons[0], promoted=best.challenger, replaced=best.champion)


def _given(approvals: Sequence[Approval], evidence: EvidenceRecord, page: PageFile) -> JsonObject:
    """Who approved, when, and what was seen, as the ledger keeps it."""
    seen: JsonObject = {"page": page.path, "sha256": page.sha256, "record": evidence.digest}
    return {"source": approvals[0].source, "given": [answer.to_json() for answer in approvals], "seen": seen}


def _refuse_people(rails: Rails, spec: Spec, night: date, approvals: Sequence[Approval], fault: str) -> None:
    """Keep the approvals of people that have no say; what a hindcast assumes is nobody's."""
    if answers := [answer for answer in approvals if not answer.is_assumed]:
        _refuse(rails, spec, night, answers, [fault])


def _refuse(rails: Rails, spec: Spec, night: date, approvals: Sequence[Approval], faults: Sequence[str]) -> None:
    detail = {"faults": list(faults), "approvals": [answer.to_json() for answer in approvals]}
    rails.ledger.add_event("approval_refused", spec.name, night, detail)
