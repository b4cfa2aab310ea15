"""Examples of what changed: a row then and now, with the commit that wrote the later value."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from tiltyard.lake import quoted, stored
from tiltyard.prepare import contracts, frame
from tiltyard.spec import feature_key
from tiltyard.train.comparison import SPINE_JUDGED, SPINE_KIND, ReplayComparison, Tally
from tiltyard.train.history import LakeVersion, Writing, written

EXAMPLES = 5
"""Rows that are shown of a feature that changed."""
ORIGINS = 3
"""Raw rows that are shown of an example."""


@dataclass(frozen=True)
class Origin:
    """A raw row that landed after the prediction and claims to have been known at it."""

    table: str
    """The raw table."""
    file: str
    """The file it was delivered in."""
    row: int
    """Its number in the file."""
    event_time: datetime | None
    """When it happened; None where it does not say so."""
    available_at: datetime | None
    """When it claims to have been known; None where it does not say so."""
    commit: LakeVersion | None
    """The version of the lake that landed it; None where the lake has it no more."""


@dataclass(frozen=True)
class Side:
    """What the lake said of a feature in one row."""

    value: object
    """The value; None where there was none."""
    event_time: datetime | None
    """Of the view's row that said it; None where there was none."""
    available_at: datetime | None
    """Of the same row."""
    snapshot: int
    """The version of the lake that was read."""


@dataclass(frozen=True)
class Example:
    """One row, then and now."""

    entity: str
    """The entity's key."""
    prediction_time: datetime
    """What the prediction speaks for."""
    kind: str
    """In what way it changed (comparison.KINDS)."""
    label: bool | None
    """Its label; None where it has not matured."""
    then: Side
    """What it was predicted from."""
    now: Side
    """What the lake says of it today."""
    commit: LakeVersion | None
    """The one that wrote the later value; None where the lake has it no more."""
    origins: tuple[Origin, ...] = ()
    """Raw rows that it came from, landed after the prediction."""


class ChangedRow(NamedTuple):
    """A row of side_by_side that changed, as it is read for an example."""

    entity: str
    prediction_time: datetime
    kind: str
    label: bool | None
    made_from: int
    """The snapshot that the prediction names; of a row that was not there then, the oldest of all."""
    value_then: object
    event_time_then: datetime | None
    available_at_then: datetime | None
    value_now: object
    event_time_now: datetime | None
    available_at_now: datetime | None


def examples(comparison: ReplayComparison, tallies: Sequence[Tally]) -> dict[str, tuple[Example, ...]]:
    """Feature → up to EXAMPLES rows that changed, positives first, with the commit that wrote the later value."""
    features = {feature.name: feature for feature in comparison.features}
    rows: dict[str, list[ChangedRow]] = {}
    by_view: dict[str, set[tuple[str, datetime]]] = {}
    for tally in tallies:
        if tally.changed:
            rows[tally.feature] = _changed(comparison, features.get(tally.feature))
            by_view.setdefault(tally.view, set()).update(row[:2] for row in rows[tally.feature])
    proofs = {view: _proof(comparison, view, pairs, features) for view, pairs in by_view.items()}
    return {
        tally.feature: tuple(
            _example(comparison, proofs[tally.view], tally.feature, row) for row in rows[tally.feature]
        )
        for tally in tallies
        if tally.changed
    }


def _changed(comparison: ReplayComparison, feature: frame.Feature | None) -> list[ChangedRow]:
    """Rows that changed, of the spine where no feature is given."""
    if feature is None:
        kind, judged = SPINE_KIND, SPINE_JUDGED
        there = "case when {} then 'there' end, case when {} then prediction_time end, null"
        sides = f"{there.format('there_then', 'there_then')}, {there.format('there_now', 'there_now')}"
    else:
        kind, judged = comparison.kind(feature), comparison.comparable(feature)
        columns = (feature.name, f"{feature.view}__event_time", f"{feature.view}__available_at")
        sides = ", ".join(f"{side}.{quoted(column)}" for side in ("then_row", "now_row") for column in columns)
    rows = comparison.connection.execute(
        f"""
        select entity_id, prediction_time, {kind} as kind, label, coalesce(made_from, {comparison.oldest}), {sides}
        from side_by_side where ({judged}) and kind is not null
        order by label desc nulls last, prediction_time, entity_id limit {EXAMPLES}
        """
    ).fetchall()
    return [ChangedRow(*row) for row in rows]


@dataclass(frozen=True)
class _Proof:
    """What the lake's record says of some entities of a view."""

    keys: Mapping[tuple[str, datetime], str]
    """Entity and prediction time → key of the view's rows that they were joined with."""
    writings: Sequence[Writing]
    """Rows of the view that were written since, oldest first."""
    landed: Mapping[str, Sequence[Writing]]
    """Raw table → rows that were landed since."""

    def writer(self, feature: str, row: ChangedRow, then: Side, now: Side) -> int | None:
        """The first version since that wrote the row which is read now, or took away the one that was read then."""
        is_there = now.event_time is not None
        read = now if is_there else then
        key, times = self.keys.get(row[:2]), (read.event_time, read.available_at)
        own = [
            writing
            for writing in self.writings
            if writing.snapshot > then.snapshot
            and writing.key == key
            and (writing.event_time, writing.available_at) == times
        ]
        inserts = {writing.snapshot for writing in own if writing.is_insert}
        if is_there:
            return min(
                (writing.snapshot for writing in own if writing.is_insert and writing.values[feature] == now.value),
                default=None,
            )
        return min((writing.snapshot for writing in own if writing.snapshot not in inserts), default=None)

    def origins(self, row: ChangedRow) -> list[tuple[str, Writing]]:
        """Raw table and row of the entity that landed after the prediction and claims to have been known at it."""
        key = self.keys.get(row[:2])
        return [
            (table, writing)
            for table, writings in self.landed.items()
            for writing in writings
            if writing.key == key
            and writing.snapshot > row.made_from
            and writing.available_at is not None
            and writing.available_at <= row.prediction_time
        ][:ORIGINS]


def _proof(
    comparison: ReplayComparison,
    view: str,
    rows: Collection[tuple[str, datetime]],
    features: Mapping[str, frame.Feature],
) -> _Proof:
    """What the lake's record says of the entities in `rows`: the view's writings, and what landed of them."""
    rails, spec = comparison.rails, comparison.spec
    after, last = comparison.oldest, comparison.snapshot
    writings: list[Writing] = []
    if view == spec.prediction.spine:
        key, keys = spec.key, {row: row[0] for row in rows}
    else:
        key, keys = feature_key(view), _view_keys(comparison, view, rows)
        names = [feature.name for feature in features.values() if feature.view == view]
        writings = written(rails, view, key, sorted(set(keys.values())), names, after, last)
    landed: dict[str, list[Writing]] = {}
    contracted = spec.source in contracts.sources(rails.settings)
    for table in contracts.raw_tables(rails.settings, spec.source) if contracted else ():
        if rails.lake.has(table) and key in rails.lake.columns(table):
            wanted, columns = sorted(set(keys.values())), ("source_file", "row_number")
            landed[table] = written(rails, table, key, wanted, columns, after, last)
    return _Proof(keys, writings, landed)


def _view_keys(
    comparison: ReplayComparison, view: str, rows: Collection[tuple[str, datetime]]
) -> dict[tuple[str, datetime], str]:
    """Entity and prediction time → the key of the view's rows that they were joined with."""
    spec = comparison.spec
    if feature_key(view) == spec.key:
        return {row: row[0] for row in rows}
    spine = stored(spec.prediction.spine, comparison.at)
    keys = comparison.connection.execute(
        f'select cast("{spec.key}" as varchar) as entity_id, prediction_time, '
        f'cast("{feature_key(view)}" as varchar) from {spine} where list_contains($entities, entity_id)',
        {"entities": sorted({entity for entity, _ in rows})},
    ).fetchall()
    return {(entity, at): key for entity, at, key in keys if (entity, at) in rows and key is not None}


def _example(comparison: ReplayComparison, proof: _Proof, feature: str, row: ChangedRow) -> Example:
    commits = comparison.record.commits
    then = Side(row.value_then, row.event_time_then, row.available_at_then, row.made_from)
    now = Side(row.value_now, row.event_time_now, row.available_at_now, comparison.snapshot)
    writer = proof.writer(feature, row, then, now)
    return Example(
        entity=row.entity,
        prediction_time=row.prediction_time,
        kind=row.kind,
        label=row.label,
        then=then,
        now=now,
        commit=commits.get(writer) if writer is not None else None,
        origins=tuple(
            Origin(
                table=table,
                file=str(writing.values["source_file"]),
                row=int(str(writing.values["row_number"])),
                event_time=writing.event_time,
                available_at=writing.available_at,
                commit=commits.get(writing.snapshot),
            )
            for table, writing in proof.origins(row)
        ),
    )
