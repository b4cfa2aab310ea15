"""Which snapshots of the lake somebody may still ask for, and why. Pure: `claims` reads what refers to them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Literal

KeptReason = Literal[
    "newest", "recent", "in_service", "published", "predicted", "answered", "trained", "decided", "incident", "held",
    "witness", "last_writing",
]  # fmt: skip
"""Why a snapshot stays.

- `newest`: the lake as it is.
- `recent`: a read, a training or a transaction may be under way at it: it is younger than the grace, or was the newest
  one when that began, however old.
- `in_service`: frames and answers are read from it tonight.
- `published`: features were published from it on a night of the replay window.
- `predicted`, `answered`: a prediction, or an answer over HTTP, names it.
- `trained`: a version's frame was read from it.
- `decided`: features were published from it on a night with a decision, an approval, a promotion or a rollback.
- `incident`: features were published from it since the night before an incident that is open.
- `held`: a legal hold covers it.
- `witness`: within the replay window it wrote what a replay holds against predictions; a replay names its commit.
- `last_writing`: of a table that a replay asks for, the last one to write before a snapshot that stays. Without it the
  two snapshots around it would seem to say the same.
"""


@dataclass(frozen=True)
class Snapshot:
    """One version of the lake."""

    number: int
    """Its number."""
    at: datetime
    """When it was committed, by the committer's clock."""
    wrote: frozenset[str] = frozenset()
    """The tables that it changed and whose history a replay asks for, as the lake's record names them."""


@dataclass(frozen=True, kw_only=True)
class References:
    """What refers to snapshots."""

    recent_since: datetime
    """Snapshots that were the newest at this instant or later are left alone."""
    named: Mapping[KeptReason, Collection[int]] = field(default_factory=dict)
    """Reason → the snapshots that something names."""
    replayed_since: int | None = None
    """The oldest snapshot that the replay window names; None when it names none."""
    held: Sequence[tuple[datetime, datetime | None]] = ()
    """First and last instant of every legal hold; None where it has no end."""


def kept(snapshots: Collection[Snapshot], references: References) -> dict[int, frozenset[KeptReason]]:
    """Snapshot → why it stays; empty for one that nothing refers to. A name of none that is there is passed over."""
    ordered = sorted(snapshots, key=lambda snapshot: snapshot.number)
    reasons: dict[int, set[KeptReason]] = {snapshot.number: set() for snapshot in ordered}
    if ordered:
        reasons[ordered[-1].number].add("newest")
    for reason, numbers in references.named.items():
        for number in reasons.keys() & set(numbers):
            reasons[number].add(reason)
    for snapshot, following in zip_longest(ordered, ordered[1:]):
        # a reader who began within the grace may be at what was the newest then, however long it had been that
        was_newest = following is not None and following.at > references.recent_since
        if snapshot.at >= references.recent_since or was_newest:
            reasons[snapshot.number].add("recent")
        since = references.replayed_since
        if since is not None and snapshot.number > since and snapshot.wrote:
            reasons[snapshot.number].add("witness")
    for first, last in references.held:
        for number in _in_force(ordered, first, last):
            reasons[number].add("held")
    for number in _last_writings(ordered, {number for number, why in reasons.items() if why}):
        reasons[number].add("last_writing")
    return {number: frozenset(why) for number, why in reasons.items()}


def _in_force(ordered: Sequence[Snapshot], first: datetime, last: datetime | None) -> set[int]:
    """Every snapshot that was the newest at some instant from `first` to `last`."""
    before = [snapshot for snapshot in ordered if snapshot.at <= first][-1:]
    within = [snapshot for snapshot in ordered if snapshot.at >= first and (last is None or snapshot.at <= last)]
    return {snapshot.number for snapshot in (*before, *within)}


def _last_writings(ordered: Sequence[Snapshot], staying: Collection[int]) -> set[int]:
    """Per table and snapshot that stays, the last one up to it that wrote the table, of those that would not stay."""
    needed: set[int] = set()
    newest: dict[str, int] = {}  # table → the last snapshot that wrote it, since the one before that stays
    for snapshot in ordered:
        newest |= dict.fromkeys(snapshot.wrote, snapshot.number)
        if snapshot.number in staying:
            needed |= set(newest.values()) - set(staying)
            newest.clear()
    return needed
