"""Which of a night's challengers is acted on, and what speaks for it: one rule, for the gate, the form, the inbox, the
pages, `start` and `status`. Pure."""

from collections.abc import Sequence

from tiltyard.records import Decision, EvidenceRecord
from tiltyard.target import METRICS
from tiltyard.words import counted


def best_of(decisions: Sequence[Decision]) -> Decision | None:
    """Of one night's decisions the promotable one with the largest lower bound, else the newest challenger's; None
    without any."""
    promotable = [decision for decision in decisions if decision.verdict == "promote"]
    if promotable:
        return max(promotable, key=lambda decision: (decision.evidence.low or 0.0, decision.challenger))
    return max(decisions, key=lambda decision: decision.challenger, default=None)


def by_how_much(evidence: EvidenceRecord) -> str | None:
    """How much less the challenger has lost than what it is held against, with the interval, as a sentence: what speaks
    for it. None where nothing was compared yet."""
    if evidence.mean is None:
        return None
    mean, low, high = (
        "–" if value is None else f"{value:.4g}" for value in (evidence.mean, evidence.low, evidence.high)
    )
    return (
        f"Its {METRICS[evidence.metric]} is lower by {mean} [{low}, {high}] than that of {evidence.against}, on the "
        f"same {evidence.matured:,} matured rows of {counted(evidence.nights, 'night')}."
    )
