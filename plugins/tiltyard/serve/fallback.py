"""Who answers when the champion cannot. Pure: outcomes in, the serving tier and its reason out.

The declared tiers are asked in their order; the first that has a score answers. When none has, the safe
default does: there is always a row, and always a reason why it is not the champion's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Seat = Literal["challenger", "champion", "previous", "light"]
"""Who may be asked for a score. A challenger is asked first, for its share of the online traffic."""
Tier = Literal["challenger", "champion", "previous", "light", "safe_default"]
TierOutcome = Literal[
    "scored",
    "absent",
    "not_loaded",
    "no_score",
    "late",
    "raised",
    "not_finite",
    "out_of_range",
    "wrong_shape",
    "breaker_open",
    "features_missing",
    "features_stale",
    "store_unavailable",
]
"""What became of a tier.

`scored`: it has a score. `absent`: there is no such version. `not_loaded`: its files were refused or could not be read.
`no_score`: a night's batch has no finite score in [0, 1], or within the label's bounds, for this row. Online the reason
is known more closely: it did not answer before the deadline (`late`), raised an exception, gave no finite number, a
number out of range, or another number of scores than there were rows; its breaker is open; a feature that it needs is
neither given nor in the store, or is older than `max_feature_age`; the store of features does not answer.
"""

OUTCOMES: tuple[TierOutcome, ...] = get_args(TierOutcome)
IN_SERVICE = "in_service"
NO_CHAMPION = "no_champion"
NO_TIERS = "no_tiers"
SERVICE_FAILED = "service_failed"
"""The reason where no tier but the service itself is at fault: somebody has to look at its log."""
REASONS: tuple[str, ...] = (
    IN_SERVICE,
    NO_CHAMPION,
    NO_TIERS,
    SERVICE_FAILED,
    *(
        f"{tier}_{outcome}"
        for tier in get_args(Seat)
        for outcome in OUTCOMES
        if outcome != "scored" and (tier, outcome) != ("champion", "absent")
    ),
)
"""Every reason there is. A reason names the first declared tier that did not answer, and why."""


@dataclass(frozen=True)
class Choice:
    """Who answers for a row, and why."""

    tier: Tier
    """The tier that answers."""
    reason: str
    """One of REASONS."""
    skipped: tuple[tuple[Seat, TierOutcome], ...] = ()
    """The tiers before it, in their order, each with what became of it."""


def choose(tiers: Sequence[Seat], outcomes: Mapping[Seat, TierOutcome]) -> Choice:
    """The first of `tiers` whose outcome is `scored`, else the safe default. A tier without an outcome is absent.

    Raises ValueError for an outcome that is none of OUTCOMES.
    """
    skipped: list[tuple[Seat, TierOutcome]] = []
    for tier in tiers:
        outcome = outcomes.get(tier, "absent")
        if outcome not in OUTCOMES:
            raise ValueError(f"{outcome!r} is not one of {OUTCOMES}")
        if outcome == "scored":
            return Choice(tier, _reason(skipped), tuple(skipped))
        skipped.append((tier, outcome))
    return Choice("safe_default", _reason(skipped) if skipped else NO_TIERS, tuple(skipped))


def _reason(skipped: Sequence[tuple[Seat, TierOutcome]]) -> str:
    if not skipped:
        return IN_SERVICE
    tier, outcome = skipped[0]
    return NO_CHAMPION if (tier, outcome) == ("champion", "absent") else f"{tier}_{outcome}"
