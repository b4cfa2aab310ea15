"""The rollback watch: so long as predictions of `gate.rollback_window` after a promotion mature, the previous champion,
which goes on scoring unseen, is held against the new one with the gate's own statistic and the roles reversed.

The better one comes back by itself, at every tier: nobody needs to approve what was approved before. Where a person
holds the model, frozen or pinned, nobody comes back: that the previous one does better is told. A champion that
replaced the safe default is held against that, and sends the model back to it: a constant that is nearer to the truth
serves better. On a night that rolls back no challenger is judged; the next night judges them against whom is back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

from pydantic import JsonValue

from tiltyard.clock import night_closing
from tiltyard.judge import aliases, gate, pairs
from tiltyard.prepare import truth
from tiltyard.rails import Rails
from tiltyard.records import EvidenceRecord, Watch, WatchVerdict
from tiltyard.spec import Spec
from tiltyard.succession import ChampionChange

HELD = "It does worse than the one before it, and stays: "
"""How the reasons begin of a watch that a person's word keeps from a rollback."""


def watched(spec: Spec, changes: Sequence[ChampionChange], as_of: datetime) -> ChampionChange | None:
    """The promotion that is under watch at `as_of`: the newest change of champion, while its window matures."""
    earlier = [change for change in changes if change.night < night_closing(as_of)]
    if not earlier or earlier[-1].kind != "promotion" or not spec.gate.rollback_window:
        return None
    promoted = earlier[-1]
    return promoted if truth.all_matured(spec, as_of).date() <= promoted.night + spec.gate.rollback_window else None


def watch(rails: Rails, spec: Spec, as_of: datetime) -> Watch | None:
    """Hold the newest champion against the one before it, and bring that one back when it is better.

    On the matured predictions of the window that the promotion opened. A verdict is recorded once per night and a
    rollback claimed once per promotion. Returns what the ledger keeps; None when nobody is under watch.
    """
    night = night_closing(as_of)
    change = watched(spec, rails.ledger.changes(spec.name), as_of)
    if change is None:
        return None
    versions = [number for number in (change.champion, change.previous) if number is not None]
    rows = truth.side_by_side(rails, spec, as_of, versions, since=change.night)
    within = (rows["scored_on"] > change.night.toordinal()) & (
        rows["scored_on"] <= (change.night + spec.gate.rollback_window).toordinal()
    )
    evidence, record = pairs.gather(spec, night, rows[within], change.previous, change.champion, fills=True)
    verdict = gate.watch(evidence, spec.gate)
    record = replace(pairs.judged(record, verdict), promoted_on=change.night).signed(verdict.verdict)
    is_worse = verdict.verdict == "rollback"
    held = rails.ledger.operations.hindrance(spec.name, night) if is_worse else None
    assert change.version is not None  # it was promoted
    entry = rails.ledger.add_watch(
        Watch(
            model=spec.name,
            night=night,
            champion=change.version,
            previous=change.previous,
            verdict="rollback" if is_worse and held is None else "keep",
            reasons=(f"{HELD}{held}", *verdict.reasons) if held else tuple(verdict.reasons),
            evidence=record,
        )
    )
    if entry is None:
        rails.ledger.add_event("rollback_out_of_order", spec.name, night, {"version": change.version})
        return None
    note_change(rails, spec, night, entry.evidence, record, {"watched": change.version})
    if entry.verdict == "rollback":
        aliases.follow(rails, spec, night)
    return entry


def in_words(entry: Watch) -> str:
    """The rollback as half a sentence."""
    back = f"version {entry.previous}" if entry.previous is not None else "the safe default"
    return f"Version {entry.champion} does worse than {back}, which is back in service"


def summary(entry: Watch | None) -> WatchVerdict | None:
    """The watch as the stage's summary has it; None when nobody is under watch."""
    if entry is None:
        return None
    evidence = entry.evidence
    return WatchVerdict(
        champion=entry.champion,
        previous=entry.previous,
        verdict=entry.verdict,
        reasons=entry.reasons,
        matured=evidence.matured,
        mean=evidence.mean,
        low=evidence.low,
        high=evidence.high,
        promoted_on=evidence.promoted_on,
        is_held=entry.verdict == "keep" and entry.reasons[:1] != () and entry.reasons[0].startswith(HELD),
    )


def note_change(
    rails: Rails,
    spec: Spec,
    night: date,
    recorded: EvidenceRecord,
    made: EvidenceRecord,
    about: Mapping[str, JsonValue],
) -> None:
    """An event when a rerun finds other evidence than what was recorded."""
    if recorded.digest != made.digest:
        detail = {**about, "recorded": recorded.digest, "now": made.digest}
        rails.ledger.add_event("evidence_changed", spec.name, night, detail)
