"""Which predictions of some nights can be held against what the lake says today."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.lake import identifier, text
from tiltyard.prepare import frame
from tiltyard.rails import Rails
from tiltyard.spec import Spec
from tiltyard.tables import PREDICTION
from tiltyard.train.history import History


@dataclass(frozen=True)
class Batch:
    """Predictions made from the same state of the lake."""

    snapshot: int
    """The newest of the snapshots that read the same, at which they are read again."""
    nights: tuple[tuple[datetime, int, bool], ...]
    """as_of of each, the snapshot its predictions name, and whether that held deliveries of later nights already."""
    rows: int
    """Number of predictions."""


@dataclass(frozen=True)
class Untested:
    """Rows, or a feature of them, that could not be compared, and why."""

    what: str
    """The feature, or `predictions`."""
    rows: int
    """Number of rows; 0 where none was made."""
    why: str
    """Why they could not be compared."""
    in_hindsight: bool = False
    """Whether the lake holds what it held when they were made, or held later nights already: a hindcast, not a gap."""


def reachable(
    rails: Rails, spec: Spec, ranges: Sequence[tuple[datetime, datetime]], record: History, snapshot: int
) -> tuple[list[Batch], list[Untested]]:
    """The predictions in reach, by the state of the lake they were made from; and those out of reach."""
    if not rails.lake.has(PREDICTION):
        return [], [Untested("predictions", 0, f"{spec.name} has made none yet")]
    within = " or ".join(
        f"night between date {text(str(night_closing(first)))} and date {text(str(night_closing(last)))}"
        for first, last in ranges
    )
    rows = rails.lake.connection.execute(
        f"select snapshot, available_at, count(distinct (entity_id, prediction_time)) "
        f"from {identifier(PREDICTION)} where model = ? and ({within}) group by all order by all",
        [spec.name],
    ).fetchall()
    if not rows:
        return [], [Untested("predictions", 0, _none_there(rails, spec))]
    groups: dict[int, list[tuple[int, datetime, int]]] = {}
    expired = fresh = 0  # rows
    for made_from, as_of, count in rows:
        if made_from not in record.commits:
            expired += count
        elif made_from >= snapshot or record.states[made_from] == record.states[snapshot]:
            fresh += count
        else:
            groups.setdefault(record.states[made_from], []).append((made_from, as_of, count))
    untested = []
    if expired:
        untested.append(Untested("predictions", expired, "the lake's snapshots they were made from have been expired"))
    if fresh:
        why = f"nothing was written since into the tables that they were made from (looked up to snapshot {snapshot})"
        untested.append(Untested("predictions", fresh, why, in_hindsight=True))
    batches = []
    for group in groups.values():
        made_from = max(number for number, _, _ in group)
        missing = _missing(rails, spec, made_from)
        if missing:
            untested.append(Untested("predictions", sum(count for *_, count in group), missing))
            continue
        nights = []
        for number, as_of, _ in group:
            until = record.landed_until(number)
            nights.append((as_of, number, until is not None and until > as_of))
        batches.append(Batch(made_from, tuple(nights), sum(count for *_, count in group)))
    ahead = sum(
        count
        for group in groups.values()
        for number, as_of, count in group
        if (record.landed_until(number) or as_of) > as_of
    )
    if ahead:
        why = "made from a snapshot that held deliveries of later nights (a hindcast, or a night run again)"
        why += ": what changed since convicts, but does not acquit"
        untested.append(Untested("predictions", ahead, why, in_hindsight=True))
    return batches, untested


def _none_there(rails: Rails, spec: Spec) -> str:
    row = rails.lake.connection.execute(
        f"select min(night), max(night) from {identifier(PREDICTION)} where model = ?", [spec.name]
    ).fetchone()
    if row is None or row[0] is None:
        return f"{spec.name} has made none yet"
    return f"{spec.name} has none of these nights; it has some from {row[0]} to {row[1]}"


def _missing(rails: Rails, spec: Spec, snapshot: int) -> str | None:
    """Why the model's frame cannot be read at a snapshot."""
    try:
        frame.select(
            rails,
            spec,
            clock.midnight(date(2000, 1, 1)),
            clock.midnight(date(2000, 1, 2)),
            clock.midnight(date(2000, 1, 2)),
            snapshot,
        )
    except BadInput as error:
        return str(error).split(";")[0]
    return None
