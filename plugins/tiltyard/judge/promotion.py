"""The promotion stage: rollback watch → evidence on every challenger → gate → (people) → the ledger's claim → alias.

The ledger decides, the alias follows. A promotion needs three things that nobody can forge from a task's return
value: a verdict `promote` in the ledger, for tier 1 the approvals that the spec asks for, each of which names exactly
this evidence page and comes from somebody who did not ask for it, and the ledger's unique claim. What is refused is
recorded as an event.

The evidence page is drawn when the gate says promote, once, from what the ledger keeps. What a person approves is
its SHA-256, and before anybody is promoted the file is held against it again.

The watch. So long as predictions of `gate.rollback_window` after a promotion mature, the previous champion, which
goes on scoring unseen, is held against the new one with the gate's own statistic and the roles reversed. The better one
comes back by itself, at every tier: nobody needs to approve what was approved before. A champion that replaced the
safe default is held against that, and sends the model back to it: a constant that is nearer to the truth
serves better. On a night that rolls back no challenger is judged; the next night judges them against whom is back.
"""

import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tiltyard import clock, target
from tiltyard.answered import arm
from tiltyard.clock import night_closing
from tiltyard.errors import CheckFailed, Unavailable
from tiltyard.judge import gate, pairs
from tiltyard.ledger import Change, Roles
from tiltyard.prepare import truth
from tiltyard.rails import Rails, records_its_end
from tiltyard.records import Decision, EvidenceRecord, Promotion, TrainingSummary, Watch
from tiltyard.spec import Spec
from tiltyard.stages import StageName
from tiltyard.train import registry

STAGE: StageName = "promotion"
APPROVE = "Approve"
HINDCAST_SOURCE = "hindcast:auto"
HINDCAST_PERSON = "hindcast"

Subject = tuple[str, int, Any, str]
"""(model, version, night, SHA-256 of the evidence page): what an approval is about."""


@dataclass(frozen=True)
class Approval:
    """A person's answer as it stands in the record of whoever asked, never a task's return value."""

    approved_by: str | None
    """Who answered; None when nobody did, or the timeout did."""
    requested_by: str | None
    """Who started the run that asked."""
    chosen: str | tuple[str, ...]
    responded_at: datetime | None
    subject: Subject | None
    source: str
    """`airflow`, or `hindcast:auto`: assumed, not given, and recorded as such."""


def run(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    *approvals: Approval,
    assume: Literal["auto", "never"] = "never",
) -> dict[str, Any]:
    """Watch and judge the night and promote what may be promoted; twice is once.

    `assume="auto"` is the hindcast's declared assumption that people would have approved. Returns what `judge`
    and `promote` return, in one dict.
    """
    judged = judge(rails, spec, as_of)
    if not approvals and assume == "auto" and judged["needs_approval"]:
        approvals = (hindcast_approval(spec, judged, as_of),)
    summary = judged | promote(rails, spec, as_of, *approvals)
    rails.ledger.record_stage(STAGE, spec.name, night_closing(as_of), "done", summary)
    return summary


# -- the watch --------------------------------------------------------------------------------


def watched(spec: Spec, changes: Sequence[Change], as_of: datetime) -> Change | None:
    """The promotion that is under watch at `as_of`: the newest change of champion, while its window matures."""
    earlier = [change for change in changes if change.night < night_closing(as_of)]
    if not earlier or earlier[-1].kind != "promotion" or not spec.gate.rollback_window:
        return None
    promoted = earlier[-1]
    return promoted if truth.cutoff(spec, as_of).date() <= promoted.night + spec.gate.rollback_window else None


def watch(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any] | None:
    """Hold the newest champion against the one before it, and bring that one back when it is better.

    On the matured predictions of the window that the promotion opened. A verdict is recorded once per night and a
    rollback claimed once per promotion. Returns the ledger's record (night, champion, previous, verdict, reasons,
    evidence); None when nobody is under watch.
    """
    night = night_closing(as_of)
    change = watched(spec, rails.ledger.changes(spec.name), as_of)
    if change is None:
        return None
    versions = [number for number in (change.champion, change.previous) if number is not None]
    rows = truth.side_by_side(rails, spec, as_of, versions, since=change.night)
    within = (rows["night"] > change.night.toordinal()) & (
        rows["night"] <= (change.night + spec.gate.rollback_window).toordinal()
    )
    evidence, record = pairs.gather(spec, night, rows[within], change.previous, change.champion, fills=True)
    verdict = gate.watch(evidence, spec.gate)
    record |= _judged(verdict) | {"promoted_on": str(change.night)}
    record["digest"] = digest(record | {"verdict": verdict.verdict})
    kept = rails.ledger.add_watch(
        Watch(
            model=spec.name,
            night=night,
            champion=change.version,
            previous=change.previous,
            verdict=verdict.verdict,
            reasons=tuple(verdict.reasons),
            evidence=EvidenceRecord.from_json(record),
        )
    )
    if kept is None:
        rails.ledger.add_event("rollback_out_of_order", spec.name, night, {"version": change.version})
        return None
    _note_change(rails, spec, night, kept, record, {"watched": change.version})
    if kept["verdict"] == "rollback":
        _follow(rails, spec, night)
    return kept


# -- judging ----------------------------------------------------------------------------------


@records_its_end(STAGE)
def judge(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Put the night's evidence on every challenger before the gate and record the verdicts.

    A rerun gets the recorded verdicts back. The one to promote is, of those that may be, the one with the largest
    lower bound. Returns verdict, challenger, champion, reasons, evidence (the SHA-256 of the page when there is one,
    else of the record), page (its path under the reports, or None), needs_approval, watch, and every decision.
    """
    reconcile(rails, spec, as_of)
    night = night_closing(as_of)
    roles = rails.ledger.roles(spec.name, night)
    seen = watch(rails, spec, as_of)
    told = {
        "model": spec.name,
        "night": str(night),
        "verdict": "hold",
        "challenger": None,
        "champion": roles.champion,
        "reasons": ["No challenger is in shadow."],
        "evidence": None,
        "page": None,
        "needs_approval": False,
        "watch": _told_of_watch(seen),
        "decisions": [],
    }
    if seen is not None and seen["verdict"] == "rollback":
        reason = f"{_rolled_back(seen)}; challengers are judged against it from the next night on."
        return told | {"reasons": [reason, *seen["reasons"]]}
    known = _known(rails, spec, as_of, roles) if roles.challengers else None
    decisions = [
        _decide(rails, spec, as_of, known, challenger, roles.champion)
        for challenger in roles.challengers
        if known is not None
    ]
    best = _best(decisions)
    if best is None:
        return told
    return told | {
        "verdict": best["verdict"],
        "challenger": best["challenger"],
        "champion": best["champion"],
        "reasons": best["reasons"],
        "evidence": _bound(best["evidence"]),
        "page": (best["evidence"].get("page") or {}).get("path"),
        "needs_approval": best["verdict"] == "promote" and spec.tier == 1,
        "decisions": [
            {name: row[name] for name in ("challenger", "champion", "verdict", "reasons")}
            | {name: row["evidence"][name] for name in ("digest", "mean", "low", "high", "matured", "nights")}
            for row in decisions
        ],
    }


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of a model at a night, read once for all its challengers."""

    rows: pd.DataFrame
    """truth.side_by_side of champion and challengers."""
    nights: Mapping[int, list[date]]
    """version → the nights it has scored."""
    profile: pd.DataFrame
    """See `profile`."""
    judged_at_once: Mapping[date, int]
    """night → challengers that were judged then, of earlier nights."""
    replays: dict[str, gate.Replayed]
    """The fresh millisecond test, once somebody needed it: it costs seconds."""


def _known(rails: Rails, spec: Spec, as_of: datetime, roles: Roles) -> _Known:
    night = night_closing(as_of)
    nights = truth.nights(rails, spec, as_of)
    since = min((nights[number][0] for number in roles.challengers if number in nights), default=night)
    wanted = [number for number in (roles.champion, *roles.challengers) if number is not None]
    judged: dict[date, int] = {}
    for row in rails.ledger.decisions(spec.name, until=night):
        if since <= row["night"] < night:
            judged[row["night"]] = judged.get(row["night"], 0) + 1
    judged[night] = len(roles.challengers)
    return _Known(
        rows=truth.side_by_side(rails, spec, as_of, wanted, since),
        nights=nights,
        profile=profile(rails, spec, as_of, since),
        judged_at_once=judged,
        replays={},
    )


def _decide(
    rails: Rails, spec: Spec, as_of: datetime, known: _Known, challenger: int, champion: int | None
) -> dict[str, Any]:
    """The night's recorded decision on one challenger, made now if there is none yet."""
    night = night_closing(as_of)
    evidence, record = gather(rails, spec, as_of, known, challenger, champion)
    verdict = gate.decide(evidence, spec.gate, spec.fallback.deadline_ms)
    if all(criterion.status == "pass" or criterion.name == "replay" for criterion in verdict.criteria):
        # the training's own millisecond test is as old as the training; the last word is a fresh one
        if "fresh" not in known.replays:
            known.replays["fresh"] = _replayed_now(rails, spec, as_of)
        evidence = replace(evidence, replay=known.replays["fresh"])
        record["replay"] = asdict(known.replays["fresh"])
        verdict = gate.decide(evidence, spec.gate, spec.fallback.deadline_ms)
    record |= _judged(verdict)
    if verdict.verdict == "promote":
        record["drawn"] = pairs.picture(spec, evidence, known.rows, challenger, champion)
        record["promise"] = _promise(rails, spec, challenger)
    record["digest"] = digest(record | {"verdict": verdict.verdict})
    if verdict.verdict == "promote":
        if online := arm.report(rails, spec, as_of):  # shown beside the digest of what decided, which it is no part of
            record["online"] = arm.as_json(online)
        record["page"] = _put_page(rails, record)
    kept = rails.ledger.add_decision(
        Decision(
            model=spec.name,
            night=night,
            challenger=challenger,
            champion=champion,
            verdict=verdict.verdict,
            reasons=tuple(verdict.reasons),
            evidence=EvidenceRecord.from_json(record),
        )
    )
    _note_change(rails, spec, night, kept, record, {"challenger": challenger})
    if kept["evidence"].get("page"):
        _put_page(rails, kept["evidence"])
    return kept


def gather(
    rails: Rails, spec: Spec, as_of: datetime, known: _Known, challenger: int, champion: int | None
) -> tuple[gate.Evidence, dict[str, Any]]:
    """The evidence on one challenger at `as_of`, and what the ledger keeps of it. See pairs.gather.

    The millisecond test is the one before the challenger's training; `_decide` replaces it where it matters.
    """
    row = rails.ledger.version(spec.name, challenger)
    assert row is not None
    first = min(known.nights.get(challenger, [night_closing(as_of)]))
    reference, size = _files(rails, spec, challenger)
    return pairs.gather(
        spec,
        night_closing(as_of),
        known.rows,
        challenger,
        champion,
        pairs.Known(
            challengers=max(count for night, count in known.judged_at_once.items() if night >= first),
            missing=_missing(spec, known.profile, reference, first),
            latency_ms=row["facts"].get("latency_ms"),
            size_mb=row["facts"].get("size_mb") or size,
            replay=_replayed_before_training(rails, spec, row),
        ),
    )


def profile(rails: Rails, spec: Spec, as_of: datetime, since: date) -> pd.DataFrame:
    """Per night from `since` on: `night`, `rows`, and per feature how many of them have no value."""
    from tiltyard.prepare import frame

    snapshot = rails.published_snapshot()
    inputs = frame.features(rails, spec, snapshot)
    counts = ", ".join(
        f'count_if("{one.name}" is null{f""" or isnan("{one.name}")""" if one.kind == "numeric" else ""}) '
        f'as "{one.name}"'
        for one in inputs
    )
    start = clock.midnight(since) - spec.prediction.every
    sql = f"""
        select cast(prediction_time as date) + 1 as night, count(*) as rows, {counts}
        from ({frame.select(rails, spec, start, as_of, as_of, snapshot)}) group by 1 order by 1
    """
    found = rails.lake.connection.execute(sql).df()
    return found.assign(night=pd.to_datetime(found["night"]).dt.date)


def _missing(
    spec: Spec, profiled: pd.DataFrame, reference: Mapping[str, Any] | None, since: date
) -> gate.Missing | None:
    """The feature whose share of missing values rose most. The one place that knows where the shares come from."""
    rows = profiled[profiled["night"] >= since].drop(columns="night").sum()
    if reference is None or not rows["rows"]:
        return None
    shares = (rows.drop("rows") / rows["rows"]).astype(float)
    return pairs.missing(dict(shares.items()), reference.get("features") or {})


def _files(rails: Rails, spec: Spec, version: int) -> tuple[Mapping[str, Any] | None, float | None]:
    """The version's training reference and size, from its files; what cannot be had is no evidence, and holds."""
    try:
        return registry.described(rails, spec.name, version)
    except (CheckFailed, Unavailable):
        return None, None


def _replayed_before_training(rails: Rails, spec: Spec, row: Mapping[str, Any]) -> gate.Replayed | None:
    run = rails.ledger.stage_run(TrainingSummary, spec.name, row["night"])
    summary = run["summary"] if run else {}
    if summary.get("version") != row["version"] or summary.get("replay") is None:
        return None
    return _replayed(summary["replay"], "before its training")


def _replayed_now(rails: Rails, spec: Spec, as_of: datetime) -> gate.Replayed:
    from tiltyard.train import replay

    found = replay.check(rails, spec, as_of, rails.published_snapshot(), render=False)
    if found.verdict == "untestable" and found.untested and all(one.in_hindsight for one in found.untested):
        # a hindcast reads the state that it scored from: what cannot have been written over is no gap in the evidence
        return gate.Replayed("warn", "all of it was scored in hindsight, where nothing shows what was known then")
    gaps = [f"{one.what}: {one.why}" for one in found.untested if not one.in_hindsight]
    return _replayed(found.summary(), "on this night", gaps)


def _replayed(summary: Mapping[str, Any], when: str, gaps: Sequence[str] = ()) -> gate.Replayed:
    """Without counts and snapshots: they differ from one run of a night to the next, and evidence is to be the same."""
    said = summary.get("critical") or (gaps if summary["verdict"] == "untestable" else ())
    return gate.Replayed(summary["verdict"], ", ".join([when, *said[:2]]))


def _judged(verdict: Any) -> dict[str, Any]:
    """A gate's or a watch's verdict, JSON-ready."""
    return {
        "criteria": [asdict(criterion) for criterion in verdict.criteria],
        "mean": verdict.mean,
        "low": verdict.low,
        "high": verdict.high,
        "reasons": verdict.reasons,
    }


def _promise(rails: Rails, spec: Spec, challenger: int) -> dict[str, Any]:
    """Whose model it is, under which policy it was judged, and where the challenger comes from: for the page."""
    row = rails.ledger.version(spec.name, challenger)
    assert row is not None
    facts = row.facts.to_json()
    return {
        "owner": spec.owner,
        "tier": spec.tier,
        "approvals": spec.gate.approvals if spec.tier == 1 else 0,
        "policy": spec.gate.model_dump(mode="json"),
        "trained_on": str(row["night"]),
        "trained_by": row["requested_by"],
        "training": {name: facts[name] for name in ("rows", "start", "end", "frame", "git_commit", "reasons")},
    }


def _note_change(
    rails: Rails,
    spec: Spec,
    night: date,
    kept: Mapping[str, Any],
    record: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    """An event when a rerun finds other evidence than what was recorded."""
    if kept["evidence"].get("digest") != record["digest"]:
        detail = {**about, "recorded": kept["evidence"].get("digest"), "now": record["digest"]}
        rails.ledger.add_event("evidence_changed", spec.name, night, detail)


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of an evidence record, without its own digest and the page that is drawn from it."""
    content = {name: value for name, value in record.items() if name not in ("digest", "page")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _bound(evidence: Mapping[str, Any]) -> str:
    """What an approval is bound to: the page that was seen, which names the record's digest."""
    page = evidence.get("page")
    return str(page["sha256"] if page else evidence["digest"])


# -- the evidence page --------------------------------------------------------------------------


def _put_page(rails: Rails, record: Mapping[str, Any]) -> dict[str, str]:
    """Draw the page of a record and put it into its place, unless there is one: {"path", "sha256"}.

    `path` is below settings.reports and ends in the digest's first digits, so that other evidence is another file. A
    page that is there is left alone, whatever is in it: only `promote` says whether it is what was drawn. One that
    is gone comes back when it can be drawn as it was.
    """
    from tiltyard.judge import evidence_page
    from tiltyard.leak import page

    known = record.get("page")
    if known and _page(rails, known).exists():
        return dict(known)
    content = evidence_page.draw(record)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    path = Path(STAGE, record["model"], f"{record['night']}-v{record['challenger']}-{sha256[:12]}.html")
    target = rails.settings.reports / path
    if not target.exists() and (not known or known["sha256"] == sha256):
        target.parent.mkdir(parents=True, exist_ok=True)
        page.save(content, target)
    return dict(known or {"path": str(path), "sha256": sha256})


def _page(rails: Rails, known: Mapping[str, str]) -> Path:
    return rails.settings.reports / known["path"]


def _page_faults(rails: Rails, evidence: Mapping[str, Any]) -> list[str]:
    """Why the page on disk is not the one that the approval is about; empty when it is."""
    known = evidence.get("page")
    if not known:
        return ["no evidence page was drawn for it"]
    try:
        content = _page(rails, known).read_bytes()
    except OSError:
        return [f"the evidence page {known['path']} is gone; clear judge to have it drawn again"]
    if hashlib.sha256(content).hexdigest() != known["sha256"]:
        return [f"the evidence page {known['path']} was changed; delete it and clear judge to have it drawn again"]
    return []


def evidence_markdown(rails: Rails, spec: Spec, as_of: datetime, challenger: int, link: str = "") -> str:
    """The evidence behind the night's recorded decision on a challenger, for the person who is asked.

    `link` is where the evidence page is served.
    """
    decision = rails.ledger.decision(spec.name, night_closing(as_of), challenger)
    evidence = decision["evidence"]
    lines = [
        f"The gate says **{decision['verdict']}** for {spec.name} version {challenger} against {evidence['against']}, "
        f"night of {evidence['night']}.",
        "",
        f"{gate_metric(evidence['metric'])} (lower is better) on the same {evidence['matured']} matured rows of "
        f"{evidence['nights']} nights in shadow: challenger {_figure(evidence['loss_challenger'])}, "
        f"{evidence['against']} {_figure(evidence['loss_champion'])}. "
        f"{evidence['immature']} rows are not matured and were not looked at.",
        "",
        *([f"**[Look at the evidence page]({link})** before you answer: it is what you approve.", ""] if link else []),
        "| criterion | value | limit | status | why |",
        "|---|---|---|---|---|",
    ]
    for row in evidence["criteria"]:
        cells = [row["name"], _figure(row["value"]), _figure(row["limit"]), row["status"], row["reason"]]
        shown = (html.escape(str(cell)).replace("|", "\\|").replace("\n", " ") for cell in cells)
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", f"Evidence: `{_bound(evidence)}`"])


def gate_metric(metric: str) -> str:
    return target.at_start(target.METRICS[metric])


def _best(decisions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The decision to act on: the promotable one with the largest lower bound, else the newest challenger's."""
    if not decisions:
        return None
    promotable = [row for row in decisions if row["verdict"] == "promote"]
    if promotable:
        return max(promotable, key=lambda row: (row["evidence"]["low"], row["challenger"]))
    return max(decisions, key=lambda row: row["challenger"])


def _figure(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


# -- promoting --------------------------------------------------------------------------------


@records_its_end(STAGE)
def promote(rails: Rails, spec: Spec, as_of: datetime, *approvals: Approval) -> dict[str, Any]:
    """Promote the night's best challenger, if the ledger's verdict, and for tier 1 enough people, say so.

    Only the ledger is believed: the verdict is read from it, not passed in. Returns `promoted` (the version, or
    None), `rolled_back` (the version that went back on this night, or None) and `reason`; a rerun of a night that
    changed the champion says so again and changes nothing.
    """
    night = night_closing(as_of)
    changes = rails.ledger.changes(spec.name)
    mine = next((change for change in changes if change.night == night), None)
    if mine is not None:
        reconcile(rails, spec, as_of)
        if mine.kind == "promotion":
            return _outcome(f"Version {mine.version} was promoted on this night.", promoted=mine.version)
        if given := [one for one in approvals if one.source != HINDCAST_SOURCE]:
            _refuse(rails, spec, night, given, ["the champion was rolled back on this night"])
        row = rails.ledger.watches(spec.name, night=night)[0]
        return _outcome(f"{_rolled_back(row)}.", rolled_back=mine.version)
    best = _best([row for row in rails.ledger.decisions(spec.name, until=night) if row["night"] == night])
    if best is None or best["verdict"] != "promote":
        if given := [one for one in approvals if one.source != HINDCAST_SOURCE]:
            _refuse(rails, spec, night, given, ["the gate has not said promote on this night"])
        return _outcome(best["reasons"][0] if best else "No challenger has been judged.")
    version = best["challenger"]
    if any(change.night > night for change in changes):
        detail = {"version": version, "newest": str(changes[-1].night)}
        rails.ledger.add_event("promotion_out_of_order", spec.name, night, detail)
        return _outcome(f"A later night ({changes[-1].night}) has changed the champion already.")
    if rails.ledger.roles(spec.name, night).champion != best["champion"]:
        detail = {"version": version, "judged_against": best["champion"]}
        rails.ledger.add_event("evidence_outdated", spec.name, night, detail)
        return _outcome("The champion has changed since this night was judged.")
    row = rails.ledger.version(spec.name, version)
    assert row is not None
    if spec.tier == 1 and not approvals:
        return _outcome("Tier 1: a person has to approve, and nobody has.")
    if approvals:
        faults = _faults_of_all(spec, approvals, (spec.name, version, night, _bound(best["evidence"])), row)
        faults += _page_faults(rails, best["evidence"])
        if faults:
            _refuse(rails, spec, night, approvals, faults)
            return _outcome(f"The approval does not hold: {'; '.join(faults)}.")
    won = rails.ledger.claim_promotion(
        Promotion(
            model=spec.name,
            version=version,
            night=night,
            replaced=best["champion"],
            requested_by=row["requested_by"],
            approved_by=", ".join(str(one.approved_by) for one in approvals) or None,
            approval=_given(approvals, best["evidence"]) if approvals else {"needed": False},
        )
    )
    if not won:
        rails.ledger.add_event("promotion_lost", spec.name, night, {"version": version})
        return _outcome(f"Another gate was first: version {version} or this night is taken.")
    _follow(rails, spec, night)
    return _outcome(best["reasons"][0], promoted=version) | {"replaced": best["champion"]}


def _outcome(reason: str, *, promoted: int | None = None, rolled_back: int | None = None) -> dict[str, Any]:
    return {"promoted": promoted, "rolled_back": rolled_back, "reason": reason}


def _rolled_back(row: Mapping[str, Any]) -> str:
    back = f"version {row['previous']}" if row["previous"] is not None else "the safe default"
    return f"Version {row['champion']} does worse than {back}, which is back in service"


def _told_of_watch(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The watch in a summary."""
    if row is None:
        return None
    told = {name: row[name] for name in ("champion", "previous", "verdict", "reasons")}
    return told | {name: row["evidence"][name] for name in ("matured", "mean", "low", "high", "promoted_on")}


def reconcile(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Put MLflow's champion and previous aliases back to what the ledger says; record who was found there.

    Nights older than the newest change leave the aliases alone: a rerun of the past must not undo the present.
    """
    night = night_closing(as_of)
    if not rails.ledger.versions(spec.name):
        return {"moved": {}}
    changes = rails.ledger.changes(spec.name)
    if changes and night < changes[-1].night:
        return {"moved": {}}
    found = registry.aliases(rails, spec.name)
    moved = {}
    for alias, version in _aliases(changes).items():
        if found.get(alias) != version:
            moved[alias] = {"found": found.get(alias), "put_back": version}
            kind = "alias_moved_by_hand" if alias in found else "alias_missing"
            rails.ledger.add_event(kind, spec.name, night, {"alias": alias, **moved[alias]})
            registry.set_alias(rails, spec.name, alias, version)
    return {"moved": moved}


def _follow(rails: Rails, spec: Spec, night: date) -> None:
    """Let the aliases follow the change of this night, unless a later one has come."""
    changes = rails.ledger.changes(spec.name)
    if changes and night < changes[-1].night:
        return
    found = registry.aliases(rails, spec.name)
    for alias, version in _aliases(changes).items():
        if found.get(alias) != version:
            registry.set_alias(rails, spec.name, alias, version)


def _aliases(changes: Sequence[Change]) -> dict[str, int | None]:
    """What the aliases have to say; `previous` first, so that whoever looks in between finds a champion."""
    newest = changes[-1] if changes else None
    return {"previous": newest.previous if newest else None, "champion": newest.champion if newest else None}


def hindcast_approval(spec: Spec, judged: dict[str, Any], as_of: datetime) -> Approval:
    """The declared assumption that everybody who is asked would have approved; recorded under its own source."""
    return Approval(
        approved_by=HINDCAST_PERSON,
        requested_by="assumption",
        chosen=APPROVE,
        responded_at=as_of,
        subject=(spec.name, judged["challenger"], night_closing(as_of), judged["evidence"]),
        source=HINDCAST_SOURCE,
    )


def _faults_of_all(spec: Spec, approvals: Sequence[Approval], subject: Subject, row: Mapping[str, Any]) -> list[str]:
    """What keeps these approvals, together, from counting."""
    faults = list(dict.fromkeys(fault for one in approvals for fault in _faults(one, subject, row["requested_by"])))
    if all(one.source == HINDCAST_SOURCE for one in approvals):
        return faults
    people = [_person(one.approved_by) for one in approvals if _person(one.approved_by)]
    for name in sorted({name for name in people if people.count(name) > 1}):
        faults.append(f"'{name}' has approved twice, which is once")
    needed = spec.gate.approvals if spec.tier == 1 else 1
    if not faults and len(set(people)) < needed:
        faults.append(f"{needed} people have to approve, {len(set(people))} did")
    return faults


def _faults(approval: Approval, subject: Subject, trained_by: str) -> list[str]:
    """Everything that keeps an approval from counting, as half sentences."""
    faults = []
    approver, assumed = _person(approval.approved_by), approval.source == HINDCAST_SOURCE
    if approval.subject is None or tuple(map(str, approval.subject)) != tuple(map(str, subject)):
        faults.append("it is about something else than this model, version, night and evidence")
    chosen = (approval.chosen,) if isinstance(approval.chosen, str) else tuple(approval.chosen)
    if chosen != (APPROVE,):
        faults.append(f"the answer was {', '.join(chosen) or 'nothing'}")
    if not approver:
        faults.append("no person answered")
    if approval.responded_at is None or approval.responded_at.tzinfo is None:
        faults.append("there is no record of when it was answered")
    if assumed != (approver == HINDCAST_PERSON):
        faults.append(f"'{approval.approved_by}' and the source '{approval.source}' do not belong together")
    if not assumed and approver:
        if not _person(approval.requested_by):
            faults.append("it is not known who asked for it")
        if not _person(trained_by):
            faults.append("it is not known who trained it")
        if approver in (_person(approval.requested_by), _person(trained_by)):
            faults.append(f"'{approval.approved_by}' asked for it and cannot approve it")
    return faults


def _person(name: str | None) -> str:
    return (name or "").strip().casefold()


def _refuse(rails: Rails, spec: Spec, night: date, approvals: Sequence[Approval], faults: list[str]) -> None:
    detail = {"faults": faults, "approvals": [_plain(one) for one in approvals]}
    rails.ledger.add_event("approval_refused", spec.name, night, detail)


def _given(approvals: Sequence[Approval], evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Who approved, when, and what was seen, as the ledger keeps it."""
    seen = {"page": evidence["page"]["path"], "sha256": evidence["page"]["sha256"], "record": evidence["digest"]}
    return {"source": approvals[0].source, "given": [_plain(one) for one in approvals], "seen": seen}


def _plain(approval: Approval) -> dict[str, Any]:
    """The approval as JSON can hold it."""
    return dict(json.loads(json.dumps(asdict(approval), default=str)))
