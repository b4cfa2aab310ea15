"""Which predictions of some nights can be held against what the lake says today."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.lake import identifier, text
from tiltyard.prepare import frame
from tiltyard.rails import Rails
from tiltyard.records import Publication
from tiltyard.spec import Spec
from tiltyard.tables import PREDICTION
from tiltyard.train.history import LakeHistory


@dataclass(frozen=True)
class PredictionBatch:
    """Predictions made from the same state of the lake."""

    number: int
    """Its place among the batches, from 0."""
    publication: Publication
    """What they are read from again: the newest of those that read the same."""
    nights: tuple["MadeFrom", ...]
    """What the predictions of every night name."""
    rows: int
    """Number of predictions."""

    @property
    def snapshot(self) -> int:
        return self.publication.snapshot


class MadeFrom(NamedTuple):
    """What predictions of a night name as what they were made from."""

    as_of: datetime
    """The end of the night, or of the hour of it."""
    snapshot: int
    """The lake's snapshot."""
    apart: str | None
    """The tables that were read elsewhere (Publication.apart)."""
    ahead: bool
    """Whether the snapshot held deliveries of later nights already."""


@dataclass(frozen=True)
class UncomparedRows:
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
    rails: Rails, spec: Spec, ranges: Sequence[tuple[datetime, datetime]], record: LakeHistory, at: int | Publication
) -> tuple[list[PredictionBatch], list[UncomparedRows]]:
    """The predictions in reach, by the state of the lake they were made from; and those out of reach."""
    if not rails.lake.has(PREDICTION):
        return [], [UncomparedRows("predictions", 0, f"{spec.name} has made none yet")]
    within = " or ".join(
        f"night between date {text(str(night_closing(first)))} and date {text(str(night_closing(last)))}"
        for first, last in ranges
    )
    rails.lake.ensure(PREDICTION)
    rows = rails.lake.connection.execute(
        f"select snapshot, apart, available_at, count(distinct (entity_id, prediction_time)) "
        f"from {identifier(PREDICTION)} where model = ? and ({within}) group by all order by all",
        [spec.name],
    ).fetchall()
    if not rows:
        return [], [UncomparedRows("predictions", 0, _none_there(rails, spec))]
    tables = (spec.prediction.spine, *spec.prediction.features)
    now = at if isinstance(at, Publication) else Publication(snapshot=at)
    groups: dict[tuple[object, ...], list[tuple[MadeFrom, int]]] = {}
    expired = fresh = 0  # rows
    for made_from, apart, as_of, count in rows:
        publication = Publication.made_from(made_from, apart)
        read = {table: publication.of(table) for table in tables if not _is_never(publication, table)}
        if any(number not in record.commits for number in (made_from, *read.values())):
            expired += count
        elif not publication.tables and all(
            number >= now.of(table) or record.states[number] == record.states[now.of(table)]
            for table, number in read.items()
        ):
            fresh += count
        else:
            until = record.landed_until(made_from)
            key = (*((table, record.states[number]) for table, number in read.items()), apart)
            made = MadeFrom(as_of, made_from, apart, until is not None and until > as_of)
            groups.setdefault(key, []).append((made, count))
    untested = []
    if expired:
        untested.append(
            UncomparedRows("predictions", expired, "the lake's snapshots they were made from have been expired")
        )
    if fresh:
        why = "nothing was written since into the tables that they were made from"
        why += f" (looked up to snapshot {now.snapshot})"
        untested.append(UncomparedRows("predictions", fresh, why, in_hindsight=True))
    batches: list[PredictionBatch] = []
    for group in groups.values():
        newest = max((made for made, _ in group), key=lambda made: made.snapshot)
        publication, count = Publication.made_from(newest.snapshot, newest.apart), sum(count for _, count in group)
        missing = _missing(rails, spec, publication)
        if missing:
            untested.append(UncomparedRows("predictions", count, missing))
            continue
        batches.append(PredictionBatch(len(batches), publication, tuple(made for made, _ in group), count))
    ahead = sum(count for group in groups.values() for made, count in group if made.ahead)
    if ahead:
        why = "made from a snapshot that held deliveries of later nights (a hindcast, or a night run again)"
        why += ": what changed since convicts, but does not acquit"
        untested.append(UncomparedRows("predictions", ahead, why, in_hindsight=True))
    return batches, untested


def _none_there(rails: Rails, spec: Spec) -> str:
    row = rails.lake.connection.execute(
        f"select min(night), max(night) from {identifier(PREDICTION)} where model = ?", [spec.name]
    ).fetchone()
    if row is None or row[0] is None:
        return f"{spec.name} has made none yet"
    return f"{spec.name} has none of these nights; it has some from {row[0]} to {row[1]}"


def _is_never(publication: Publication, table: str) -> bool:
    """Whether a table had never been good when a prediction was made."""
    state = publication.state(table)
    return state is not None and state.snapshot is None


def _missing(rails: Rails, spec: Spec, publication: Publication) -> str | None:
    """Why the model's frame cannot be read as it was published."""
    try:
        frame.select(
            rails,
            spec,
            clock.midnight(date(2000, 1, 1)),
            clock.midnight(date(2000, 1, 2)),
            clock.midnight(date(2000, 1, 2)),
            publication,
        )
    except BadInput as error:
        return str(error).split(";")[0]
    return None
