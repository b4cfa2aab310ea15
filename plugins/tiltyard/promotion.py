"""The promotion stage: evidence for every challenger → gate → (a person) → the ledger's claim → MLflow's alias.

The ledger decides, the alias follows. A promotion needs three things that nobody can forge from a task's return
value: a verdict `promote` in the ledger, for tier 1 an approval that names exactly this evidence and comes from
somebody who did not ask for it, and the ledger's unique claim. What is refused is recorded as an event.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal

import numpy as np
import pandas as pd

from tiltyard import gate, registry, truth
from tiltyard.evaluation import brier_losses
from tiltyard.ledger import Roles, night_of
from tiltyard.rails import Rails
from tiltyard.spec import Spec

STAGE = "promotion"
APPROVE = "Approve"
HINDCAST_SOURCE = "hindcast:auto"
HINDCAST_PERSON = "hindcast"

Subject = tuple[str, int, Any, str]
"""(model, version, night, evidence digest): what an approval is about."""
_KEYS = ["entity_id", "prediction_time"]


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
    approval: Approval | None = None,
    *,
    assume: Literal["auto", "never"] = "never",
) -> dict[str, Any]:
    """Judge the night and promote what may be promoted; twice is once.

    `assume="auto"` is the hindcast's declared assumption that a person would have approved. Returns what `judge`
    and `promote` return, in one dict.
    """
    judged = judge(rails, spec, as_of)
    if approval is None and assume == "auto" and judged["needs_approval"]:
        approval = hindcast_approval(spec, judged, as_of)
    summary = judged | promote(rails, spec, as_of, approval)
    rails.ledger.record_stage(STAGE, spec.name, night_of(as_of), "done", summary)
    return summary


# -- judging ----------------------------------------------------------------------------------


def judge(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Put the night's evidence on every challenger before the gate and record the verdicts.

    A rerun gets the recorded verdicts back. The one to promote is, of those that may be, the one with the largest
    lower bound. Returns verdict, challenger, champion, reasons, evidence (its digest), needs_approval, and
    every decision.
    """
    reconcile(rails, spec, as_of)
    night = night_of(as_of)
    roles = rails.ledger.roles(spec.name, night)
    known = _known(rails, spec, as_of, roles) if roles.challengers else None
    decisions = []
    for challenger in roles.challengers:
        assert known is not None
        evidence, record = gather(spec, as_of, known, challenger, roles.champion, len(roles.challengers))
        verdict = gate.decide(evidence, spec.gate, spec.fallback.deadline_ms)
        record |= {
            "criteria": [asdict(criterion) for criterion in verdict.criteria],
            "mean": verdict.mean,
            "low": verdict.low,
            "high": verdict.high,
        }
        record["digest"] = digest(record | {"verdict": verdict.verdict})
        kept = rails.ledger.add_decision(
            model=spec.name,
            night=night,
            challenger=challenger,
            champion=roles.champion,
            verdict=verdict.verdict,
            reasons=verdict.reasons,
            evidence=record,
        )
        if kept["evidence"].get("digest") != record["digest"]:
            detail = {"challenger": challenger, "recorded": kept["evidence"].get("digest"), "now": record["digest"]}
            rails.ledger.add_event("evidence_changed", spec.name, night, detail)
        decisions.append(kept)
    best = _best(decisions)
    if best is None:
        return {
            "model": spec.name,
            "night": str(night),
            "verdict": "hold",
            "challenger": None,
            "champion": roles.champion,
            "reasons": ["No challenger is in shadow."],
            "evidence": None,
            "needs_approval": False,
            "decisions": [],
        }
    return {
        "model": spec.name,
        "night": str(night),
        "verdict": best["verdict"],
        "challenger": best["challenger"],
        "champion": best["champion"],
        "reasons": best["reasons"],
        "evidence": best["evidence"]["digest"],
        "needs_approval": best["verdict"] == "promote" and spec.tier == 1,
        "decisions": [
            {name: row[name] for name in ("challenger", "champion", "verdict", "reasons")}
            | {name: row["evidence"][name] for name in ("digest", "mean", "low", "high", "matured", "nights")}
            for row in decisions
        ],
    }


@dataclass(frozen=True)
class Known:
    """What is known of a model at a night, read once for all its challengers."""

    nights: dict[int, list[date]]
    """version → the nights it has scored."""
    rows: pd.DataFrame
    """truth.matured of champion and challengers, with a column per slice."""
    sizes: dict[date, int]
    counts: dict[tuple[int | None, str], truth.Count]


def _known(rails: Rails, spec: Spec, as_of: datetime, roles: Roles) -> Known:
    nights = truth.nights(rails, spec, as_of)
    since = min((nights[number][0] for number in roles.challengers if number in nights), default=night_of(as_of))
    wanted = tuple(number for number in (roles.champion, *roles.challengers) if number is not None)
    return Known(
        nights=nights,
        rows=truth.with_slices(truth.matured(rails, spec, as_of, versions=wanted, since=since), spec),
        sizes=truth.cohort_sizes(rails, spec, as_of, since),
        counts={(count.version, count.slice): count for count in truth.by_version(rails, spec, as_of, since)},
    )


def gather(
    spec: Spec, as_of: datetime, known: Known, challenger: int, champion: int | None, challengers: int
) -> tuple[gate.Evidence, dict[str, Any]]:
    """The evidence on one challenger at `as_of`, and what the ledger keeps of it.

    Pairs are rows of matured cohorts, since the challenger's first night in shadow, that both versions scored,
    whatever role the champion had then; without a champion the safe default scores every row.
    """
    nights = known.nights.get(challenger, [])
    pairs = _pairs(spec, known.rows, challenger, champion)
    expected = sum(size for night, size in known.sizes.items() if nights and night >= nights[0])
    waiting = known.counts.get((challenger, "all"))
    slices = tuple(
        gate.SliceEvidence(f"{name}={value}", part["difference"].to_numpy(dtype=np.float64))
        for name in spec.gate.slices
        for value, part in pairs.groupby(name, sort=True)
    )
    evidence = gate.Evidence(
        challenger=challenger,
        champion=champion,
        safe_default=spec.fallback.safe_default if champion is None else None,
        shadow=len(nights) * spec.prediction.every,
        differences=pairs["difference"].to_numpy(dtype=np.float64),
        nights=np.array([night.toordinal() for night in pairs["night"]], dtype=np.int64),
        expected=expected,
        challengers=challengers,
        slices=slices,
        immature=waiting.immature if waiting else 0,
        early=waiting.early if waiting else 0,
    )
    record = {
        "model": spec.name,
        "night": str(night_of(as_of)),
        "challenger": challenger,
        "champion": champion,
        "against": "safe_default" if champion is None else f"version {champion}",
        "nights": len(nights),
        "matured": len(pairs),
        "expected": expected,
        "immature": evidence.immature,
        "early": evidence.early,
        "challengers": challengers,
        "brier_challenger": _mean(pairs["loss_challenger"]),
        "brier_champion": _mean(pairs["loss_champion"]),
        "cohort_from": pairs["prediction_time"].min().isoformat() if len(pairs) else None,
        "cohort_to": pairs["prediction_time"].max().isoformat() if len(pairs) else None,
        "slices": [{"name": part.name, "rows": part.rows, "mean": part.mean} for part in slices],
        "rows": hashlib.sha256(evidence.differences.astype("<f8").tobytes()).hexdigest(),
    }
    return evidence, record


def digest(record: dict[str, Any]) -> str:
    """SHA-256 of an evidence record: what an approval is bound to."""
    canonical = json.dumps({name: value for name, value in record.items() if name != "digest"}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def evidence_markdown(rails: Rails, spec: Spec, as_of: datetime, challenger: int) -> str:
    """The evidence behind the night's recorded decision on a challenger, for the person who is asked."""
    decision = rails.ledger.decision(spec.name, night_of(as_of), challenger)
    evidence = decision["evidence"]
    lines = [
        f"The gate says **{decision['verdict']}** for {spec.name} version {challenger} against {evidence['against']}, "
        f"night of {evidence['night']}.",
        "",
        f"Brier score (lower is better) on the same {evidence['matured']} matured rows of {evidence['nights']} nights "
        f"in shadow: challenger {_figure(evidence['brier_challenger'])}, {evidence['against']} "
        f"{_figure(evidence['brier_champion'])}. "
        f"{evidence['immature']} rows are not matured and were not looked at.",
        "",
        "| criterion | value | limit | status | why |",
        "|---|---|---|---|---|",
    ]
    for row in evidence["criteria"]:
        cells = [row["name"], _figure(row["value"]), _figure(row["limit"]), row["status"], row["reason"]]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join([*lines, "", f"Evidence: `{evidence['digest']}`"])


def _pairs(spec: Spec, rows: pd.DataFrame, challenger: int, champion: int | None) -> pd.DataFrame:
    """The challenger's rows that can be compared, with both losses and their difference, in the order of time."""
    pairs = rows[rows["version"] == challenger]
    if champion is None:
        pairs = pairs.assign(score_champion=spec.fallback.safe_default)
    else:
        other = rows.loc[rows["version"] == champion, [*_KEYS, "score"]].rename(columns={"score": "score_champion"})
        pairs = pairs.merge(other, on=_KEYS, how="inner", validate="one_to_one")
    label = pairs["label"].to_numpy(dtype=np.float64)
    pairs = pairs.assign(
        loss_challenger=brier_losses(pairs["score"].to_numpy(dtype=np.float64), label),
        loss_champion=brier_losses(pairs["score_champion"].to_numpy(dtype=np.float64), label),
    )
    pairs["difference"] = pairs["loss_champion"] - pairs["loss_challenger"]
    return pairs.sort_values(_KEYS[::-1], ignore_index=True)


def _best(decisions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The decision to act on: the promotable one with the largest lower bound, else the newest challenger's."""
    if not decisions:
        return None
    promotable = [row for row in decisions if row["verdict"] == "promote"]
    if promotable:
        return max(promotable, key=lambda row: (row["evidence"]["low"], row["challenger"]))
    return max(decisions, key=lambda row: row["challenger"])


def _mean(values: "pd.Series[float]") -> float | None:
    return float(values.mean()) if len(values) else None


def _figure(value: Any) -> str:
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


# -- promoting --------------------------------------------------------------------------------


def promote(rails: Rails, spec: Spec, as_of: datetime, approval: Approval | None = None) -> dict[str, Any]:
    """Promote the night's best challenger, if the ledger's verdict, and for tier 1 a person, say so.

    Only the ledger is believed: the verdict is read from it, not passed in. Returns `promoted` (the version, or
    None) and `reason`; a rerun of a night that promoted says so again and changes nothing.
    """
    night = night_of(as_of)
    history = rails.ledger.promotions(spec.name)
    mine = next((row for row in history if row["night"] == night), None)
    if mine is not None:
        reconcile(rails, spec, as_of)
        return {"promoted": mine["version"], "reason": f"Version {mine['version']} was promoted on this night."}
    best = _best([row for row in rails.ledger.decisions(spec.name, until=night) if row["night"] == night])
    if best is None or best["verdict"] != "promote":
        if approval is not None and approval.source != HINDCAST_SOURCE:
            _refuse(rails, spec, night, approval, ["the gate has not said promote on this night"])
        return {"promoted": None, "reason": best["reasons"][0] if best else "No challenger has been judged."}
    version = best["challenger"]
    if any(row["night"] > night for row in history):
        detail = {"version": version, "newest": str(history[-1]["night"])}
        rails.ledger.add_event("promotion_out_of_order", spec.name, night, detail)
        return {"promoted": None, "reason": f"A later night ({history[-1]['night']}) has promoted already."}
    if rails.ledger.roles(spec.name, night).champion != best["champion"]:
        detail = {"version": version, "judged_against": best["champion"]}
        rails.ledger.add_event("evidence_outdated", spec.name, night, detail)
        return {"promoted": None, "reason": "The champion has changed since this night was judged."}
    if approval is None and spec.tier == 1:
        return {"promoted": None, "reason": "Tier 1: a person has to approve, and nobody has."}
    row = rails.ledger.version(spec.name, version)
    assert row is not None
    if approval is not None:
        faults = _faults(approval, (spec.name, version, night, best["evidence"]["digest"]), row["requested_by"])
        if faults:
            _refuse(rails, spec, night, approval, faults)
            return {"promoted": None, "reason": f"The approval does not hold: {'; '.join(faults)}."}
    won = rails.ledger.claim_promotion(
        model=spec.name,
        version=version,
        night=night,
        replaced=best["champion"],
        requested_by=row["requested_by"],
        approved_by=approval.approved_by if approval else None,
        approval=_plain(approval) if approval else {"needed": False},
    )
    if not won:
        rails.ledger.add_event("promotion_lost", spec.name, night, {"version": version})
        return {"promoted": None, "reason": f"Another gate was first: version {version} or this night is taken."}
    _move(rails, spec, version, best["champion"])
    return {"promoted": version, "replaced": best["champion"], "reason": best["reasons"][0]}


def reconcile(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Put MLflow's champion and previous aliases back to what the ledger says; record who was found there.

    Nights older than the newest promotion leave the aliases alone: a rerun of the past must not undo the present.
    """
    night = night_of(as_of)
    if not rails.ledger.versions(spec.name):
        return {"moved": {}}
    history = rails.ledger.promotions(spec.name)
    if history and night < history[-1]["night"]:
        return {"moved": {}}
    wanted = {
        "champion": history[-1]["version"] if history else None,
        "previous": history[-1]["replaced"] if history else None,
    }
    found = registry.aliases(rails, spec.name)
    moved = {}
    for alias, version in wanted.items():
        if found.get(alias) != version:
            moved[alias] = {"found": found.get(alias), "put_back": version}
            kind = "alias_moved_by_hand" if alias in found else "alias_missing"
            rails.ledger.add_event(kind, spec.name, night, {"alias": alias, **moved[alias]})
            registry.set_alias(rails, spec.name, alias, version)
    return {"moved": moved}


def hindcast_approval(spec: Spec, judged: dict[str, Any], as_of: datetime) -> Approval:
    """The declared assumption that a person would have approved; recorded under its own source and name."""
    return Approval(
        approved_by=HINDCAST_PERSON,
        requested_by="assumption",
        chosen=APPROVE,
        responded_at=as_of,
        subject=(spec.name, judged["challenger"], night_of(as_of), judged["evidence"]),
        source=HINDCAST_SOURCE,
    )


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
        if approver in (_person(approval.requested_by), _person(trained_by)):
            faults.append(f"'{approval.approved_by}' asked for it and cannot approve it")
    return faults


def _person(name: str | None) -> str:
    return (name or "").strip().casefold()


def _refuse(rails: Rails, spec: Spec, night: Any, approval: Approval, faults: list[str]) -> None:
    rails.ledger.add_event("approval_refused", spec.name, night, {"faults": faults, "approval": _plain(approval)})


def _plain(approval: Approval) -> dict[str, Any]:
    """The approval as JSON can hold it."""
    return json.loads(json.dumps(asdict(approval), default=str))


def _move(rails: Rails, spec: Spec, version: int, replaced: int | None) -> None:
    registry.set_alias(rails, spec.name, "previous", replaced)
    registry.set_alias(rails, spec.name, "champion", version)
