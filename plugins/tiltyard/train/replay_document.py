"""What `tiltyard leakage replay --json` prints."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Self

from pydantic import Field

from tiltyard.leak.suspicion import Cell, LeakVerdict, Severity
from tiltyard.records import Instant, Record
from tiltyard.train.history import LakeVersion
from tiltyard.train.proof import Example, Origin, Side
from tiltyard.train.reach import UncomparedRows
from tiltyard.train.replay import FeatureChange, Replay


@dataclass(frozen=True, kw_only=True)
class CommitEntry(Record):
    """One version of the lake."""

    snapshot: int
    """The version's number."""
    at: Instant
    """When it was written, by the catalogue's clock."""
    author: str | None
    """Who wrote it; null where nobody signed."""
    message: str | None
    """What for; null where nothing was said."""

    @classmethod
    def of(cls, commit: LakeVersion | None) -> Self | None:
        """The entry of a commit; None for none."""
        if commit is None:
            return None
        return cls(snapshot=commit.snapshot, at=commit.at, author=commit.author, message=commit.message)


@dataclass(frozen=True, kw_only=True)
class OriginEntry(Record):
    """A raw row that landed after the prediction and claims to have been known at it."""

    table: str
    """The raw table."""
    file: str
    """The file it was delivered in."""
    row: int
    """Its number in the file."""
    event_time: Instant | None
    """When it happened; null where it does not say so."""
    available_at: Instant | None
    """When it claims to have been known; null where it does not say so."""
    commit: CommitEntry | None
    """The version of the lake that landed it; null where the lake has it no more."""

    @classmethod
    def of(cls, origin: Origin) -> Self:
        """The entry of a raw row."""
        return cls(
            table=origin.table,
            file=origin.file,
            row=origin.row,
            event_time=origin.event_time,
            available_at=origin.available_at,
            commit=CommitEntry.of(origin.commit),
        )


@dataclass(frozen=True, kw_only=True)
class SideEntry(Record):
    """What the lake said of a feature in one row."""

    value: Cell
    """The value; null where there was none, instants as ISO texts."""
    event_time: Instant | None
    """Of the view's row that said it; null where there was none."""
    available_at: Instant | None
    """Of the same row."""
    snapshot: int
    """The version of the lake that was read."""

    @classmethod
    def of(cls, side: Side) -> Self:
        """The entry of what was read on one side."""
        return cls(
            value=_cell(side.value),
            event_time=side.event_time,
            available_at=side.available_at,
            snapshot=side.snapshot,
        )


@dataclass(frozen=True, kw_only=True)
class ExampleEntry(Record):
    """One row, then and now."""

    entity: str
    """The entity's key."""
    prediction_time: Instant
    """What the prediction speaks for."""
    kind: str
    """In what way it changed."""
    label: bool | None
    """Its label; null where it has not matured."""
    then: SideEntry
    """What it was predicted from."""
    now: SideEntry
    """What the lake says of it today."""
    commit: CommitEntry | None
    """The one that wrote the later value; null where the lake has it no more."""
    origins: tuple[OriginEntry, ...]
    """Raw rows that it came from, landed after the prediction."""

    @classmethod
    def of(cls, example: Example) -> Self:
        """The entry of a changed row."""
        return cls(
            entity=example.entity,
            prediction_time=example.prediction_time,
            kind=example.kind,
            label=example.label,
            then=SideEntry.of(example.then),
            now=SideEntry.of(example.now),
            commit=CommitEntry.of(example.commit),
            origins=tuple(map(OriginEntry.of, example.origins)),
        )


@dataclass(frozen=True, kw_only=True)
class ChangeEntry(Record):
    """A feature that changed."""

    feature: str
    """The feature's name, or the spine's."""
    severity: Severity
    """critical: it stops a training; warning: within the limit, and it does not tell the label."""
    kind: str
    """In what way most rows changed."""
    effect: float
    """Share of the rows that changed."""
    interval: tuple[float, float] | None
    """Lower and upper end of the effect, holding for all features at once."""
    evidence: str
    """One sentence with the numbers."""
    examples: tuple[ExampleEntry, ...]
    """At most five rows."""


@dataclass(frozen=True, kw_only=True)
class FeatureEntry(Record):
    """What was counted of a feature, whether it changed or not."""

    feature: str
    """The feature's name, or the spine's."""
    view: str
    """The table that it comes from."""
    rows: int
    """Number of rows that could be compared."""
    changed: int
    """Number of rows that changed, in whatever way."""
    rate: float
    """Share of the rows that changed."""
    interval: tuple[float, float]
    """Wilson's interval of the rate, simultaneous over the features."""
    absent_then: int
    """Number of rows that had no value then and have one today."""
    blanked_since: int
    """Number of rows that had a value then and have none today."""
    stale_then: int
    """Number of rows whose value was from an older row than today's."""
    different_then: int
    """Number of rows with another value in the row of the same dates."""
    gone_since: int
    """Number of rows that were there then and are gone."""
    positives: tuple[int, int]
    """Number of changed rows, and of all, whose label has matured and is positive."""
    negatives: tuple[int, int]
    """The same of rows whose label has matured and is negative."""
    p_value: float | None
    """Chance of a change that follows the label as closely by accident, times the number of features that changed; null
    without labels to test with."""
    late: int
    """Number of rows for which the view has by now a row that had happened and was not known yet, and says so."""
    severity: Severity | None
    """What the change means for training; null where nothing changed."""


@dataclass(frozen=True, kw_only=True)
class UntestedEntry(Record):
    """Rows, or a feature of them, that could not be compared or do not acquit, and why."""

    what: str
    """The feature, or `predictions`."""
    rows: int
    """Number of rows; 0 where none was made."""
    why: str
    """A sentence."""
    in_hindsight: bool
    """Whether the lake holds what it held when they were made, or held later nights already: a hindcast, not a gap."""

    @classmethod
    def of(cls, gap: UncomparedRows) -> Self:
        """The entry of what could not be compared."""
        return cls(what=gap.what, rows=gap.rows, why=gap.why, in_hindsight=gap.in_hindsight)


@dataclass(frozen=True, kw_only=True)
class ReplayDocument(Record):
    """A replay as the command prints it."""

    model: str
    """The model's name."""
    first: Annotated[date, Field(alias="from")]
    """The first night."""
    to: date
    """The last night."""
    snapshot: int
    """The lake's snapshot that the predictions were held against."""
    limit: float
    """Largest share of a feature's rows that may have changed."""
    verdict: LeakVerdict
    """What it comes to."""
    reason: str
    """The sentences of the verdict: how many predictions were compared, and how many of them can acquit."""
    rows: int
    """Number of predictions that were compared, one per entity and prediction time."""
    tested: int
    """Number of those that can acquit: they were made from a snapshot that held nothing of later nights."""
    nights: int
    """Number of nights that they were made on."""
    matured: int
    """Number of those whose label has matured."""
    late_rows: int
    """Number of rows that today's frame has and that night's could not, honestly."""
    findings: tuple[ChangeEntry, ...]
    """What changed, the worst first."""
    features: tuple[FeatureEntry, ...]
    """Every feature, the worst first."""
    untested: tuple[UntestedEntry, ...]
    """What could not be compared, or does not acquit."""

    @classmethod
    def of(cls, replay: Replay) -> Self:
        """The document of a whole replay."""
        return cls(
            model=replay.model,
            first=replay.ranges[0][0],
            to=replay.ranges[-1][1],
            snapshot=replay.snapshot,
            limit=replay.limit,
            verdict=replay.verdict,
            reason=replay.reason,
            rows=replay.rows,
            tested=replay.tested,
            nights=replay.nights,
            matured=replay.matured,
            late_rows=replay.late_rows,
            findings=tuple(_change(replay, change) for change in replay.changes if change.severity),
            features=tuple(map(_feature, replay.changes)),
            untested=tuple(map(UntestedEntry.of, replay.untested)),
        )


def _change(replay: Replay, change: FeatureChange) -> ChangeEntry:
    assert change.severity is not None
    return ChangeEntry(
        feature=change.tally.feature,
        severity=change.severity,
        kind=change.kind,
        effect=change.rate,
        interval=change.interval,
        evidence=change.reason,
        examples=tuple(map(ExampleEntry.of, replay.examples.get(change.tally.feature, ()))),
    )


def _feature(change: FeatureChange) -> FeatureEntry:
    tally = change.tally
    return FeatureEntry(
        feature=tally.feature,
        view=tally.view,
        rows=tally.rows,
        changed=tally.changed,
        rate=change.rate,
        interval=change.interval,
        **tally.kinds,
        positives=tally.positives,
        negatives=tally.negatives,
        p_value=change.p_value,
        late=tally.late,
        severity=change.severity,
    )


def _cell(value: Any) -> Cell:
    """A value of the lake as JSON holds it."""
    for name in ("isoformat", "item"):  # an instant or a date; a number of NumPy's
        turned: Callable[[], Cell] | None = getattr(value, name, None)
        if turned is not None:
            return turned()
    return value if value is None or isinstance(value, str | int | float) else str(value)
