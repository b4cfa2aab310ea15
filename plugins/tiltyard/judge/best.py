"""Which of a night's challengers is acted on: one rule, for the gate, the form, the pages and `status`. Pure."""

from collections.abc import Sequence

from tiltyard.records import Decision


def best_of(decisions: Sequence[Decision]) -> Decision | None:
    """Of one night's decisions the promotable one with the largest lower bound, else the newest challenger's; None
    without any."""
    promotable = [decision for decision in decisions if decision.verdict == "promote"]
    if promotable:
        return max(promotable, key=lambda decision: (decision.evidence.low or 0.0, decision.challenger))
    return max(decisions, key=lambda decision: decision.challenger, default=None)
