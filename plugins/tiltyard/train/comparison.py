"""What predictions were made from, and what the lake says of it today, row by row in its own engine.

`reachable` says which predictions can be compared at all. A `Comparison` reads their frame from the snapshots that
they were made from and from today's, puts them side by side, counts in what ways every feature changed, and draws
examples with the commit that wrote the later value. What the counts mean is `replay`'s to decide.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.lake import identifier, literal, stored, text
from tiltyard.prepare import contracts, frame, truth
from tiltyard.rails import Rails
from tiltyard.spec import Spec, feature_key
from tiltyard.tables import PREDICTION
from tiltyard.train.history import Commit, History, written

KINDS: Mapping[str, str] = {
    "absent_then": "There was no value when the prediction was made; today there is one.",
    "blanked_since": "There was a value when the prediction was made; today there is none.",
    "stale_then": "The prediction was made from an older row than today's, whose dates say that it was known then.",
    "different_then": "The row has the dates that it had then and says something else: it was overwritten.",
    "gone_since": "The prediction was made, and today its row is not in the spine any more.",
}
EXAMPLES = 5
ORIGINS = 3
SLACK = 1e-9
"""Two numbers this close, relatively, are the same: a sum taken in another order differs in its last digits."""


# -- what is counted and shown ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """What was counted of one feature, or of the spine itself, over the rows that could be compared."""

    feature: str
    view: str
    rows: int
    kinds: Mapping[str, int]
    """Kind → rows that changed in this way; a row changes in one way."""
    positives: tuple[int, int] = (0, 0)
    """(changed, all) of the rows whose label has matured and is positive."""
    negatives: tuple[int, int] = (0, 0)
    late: int = 0
    """Rows for which the view has by now a row that had happened and was not known yet, and says so. A join on
    event time alone would take it; the point-in-time join does not, so that it is no change."""

    @property
    def changed(self) -> int:
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Origin:
    """A raw row that landed after the prediction and claims to have been known at it."""

    table: str
    file: str
    row: int
    event_time: datetime | None
    available_at: datetime | None
    commit: Commit | None


@dataclass(frozen=True)
class Side:
    """What the lake said, and the times of the row that said it; None where there was none."""

    value: Any
    event_time: datetime | None
    available_at: datetime | None
    snapshot: int


@dataclass(frozen=True)
class Example:
    """One row, then and now."""

    entity: str
    prediction_time: datetime
    kind: str
    label: bool | None
    then: Side
    now: Side
    commit: Commit | None
    """The one that wrote the later value."""
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True)
class Untested:
    """Rows, or a feature of them, that could not be compared, and why."""

    what: str
    rows: int
    why: str
    in_hindsight: bool = False
    """The lake holds what it held when they were made, or held later nights already: a hindcast, not a gap."""


# -- comparing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Predictions made from the same state of the lake."""

    snapshot: int
    nights: tuple[tuple[datetime, int, bool], ...]
    """as_of of each, the snapshot its predictions name, and whether that held deliveries of later nights already."""
    rows: int


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
    expired = fresh = 0
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
        why = f"up to snapshot {snapshot} nothing was written since into the tables they were made from"
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


class Comparison:
    """Rows of predictions, what they held then and what the lake says now, as temporary tables of one transaction."""

    def __init__(
        self, rails: Rails, spec: Spec, as_of: datetime, snapshot: int, batches: Sequence[Batch], record: History
    ) -> None:
        self.rails, self.spec, self.snapshot, self.record = rails, spec, snapshot, record
        self.batches = batches
        self.features = frame.features(rails, spec, snapshot)
        self.untested: list[Untested] = []
        self._apart: dict[str, set[int]] = {}
        self._connection = rails.lake.connection
        self._read_predictions()
        self._read_now(as_of)
        self._read_then()
        self._read_late(as_of)
        self._put_side_by_side(as_of)
        self._count_unread()

    # -- reading ------------------------------------------------------------------------------

    def _read_predictions(self) -> None:
        """replayed: one row per entity and prediction time."""
        rows = ", ".join(
            f"({literal(as_of)}, {made_from}, {batch.snapshot}, {str(ahead).lower()})"
            for batch in self.batches
            for as_of, made_from, ahead in batch.nights
        )
        self._connection.execute(
            f"""
            create temp table replayed as
            select distinct made.entity_id, made.prediction_time, made.available_at as as_of,
                batch.snapshot, made.snapshot as made_from, batch.ahead
            from {identifier(PREDICTION)} as made
            inner join (values {rows}) as batch (as_of, made_from, snapshot, ahead)
                on made.available_at = batch.as_of and made.snapshot = batch.made_from
            where made.model = {text(self.spec.name)}
            """
        )

    def _window(self, batches: Sequence[Batch]) -> tuple[datetime, datetime]:
        nights = [as_of for batch in batches for as_of, *_ in batch.nights]
        return min(nights) - self.spec.prediction.every, max(nights)

    def _read_now(self, as_of: datetime) -> None:
        """now_rows: the frame as training would compute it today, over all the nights.

        Read as of today: the join asks `available_at <= prediction_time` of every value, and prediction times lie
        before the end of their night, so that as of their own nights the values are the same. Only the spine's
        rows may have come later; `spine_known_at` tells those.
        """
        start, end = self._window(self.batches)
        key = self.spec.key
        spine = self.rails.lake.relation(self.spec.prediction.spine, as_of, self.snapshot)
        self._connection.execute(
            f"""
            create temp table now_rows as
            select cast(frame."{key}" as varchar) as entity_id, frame.prediction_time, spine.known_at, frame
            from ({frame.select(self.rails, self.spec, start, end, as_of, self.snapshot)}) as frame
            left join (
                select "{key}", prediction_time, min(available_at) as known_at from {spine} group by all
            ) as spine using ("{key}", prediction_time)
            """
        )

    def _read_then(self) -> None:
        """then_rows: the frame at each snapshot, the columns that it has in common with today's."""
        kinds = {feature.name: feature for feature in self.features}
        for number, batch in enumerate(self.batches):
            start, end = self._window([batch])
            known = {feature.name: feature for feature in frame.features(self.rails, self.spec, batch.snapshot)}
            listed = []
            for name, feature in kinds.items():
                was = known.get(name)
                if was is None or was.kind != feature.kind:
                    self._apart.setdefault(name, set()).add(batch.snapshot)
                    why = "the view did not have it yet" if was is None else f"it was {was.kind} then"
                    self.untested.append(Untested(name, batch.rows, f"{why} (snapshot {batch.snapshot})"))
                    listed.append(f'null as "{name}"')
                else:
                    listed.append(f'"{name}"')
            times = [
                f'"{view}__{time}"' for view in self.spec.prediction.features for time in ("event_time", "available_at")
            ]
            sql = frame.select(self.rails, self.spec, start, end, end, batch.snapshot)
            body = f"""
                select cast("{self.spec.key}" as varchar) as entity_id, prediction_time, {batch.snapshot} as snapshot,
                    {", ".join([*listed, *times])}
                from ({sql})
            """
            if number == 0:
                names = ", ".join([*(f'"{feature.name}"' for feature in self.features), *times])
                self._connection.execute(
                    f"create temp table then_rows as select entity_id, prediction_time, 0 as snapshot, {names} "
                    "from (select entity_id, prediction_time, unnest(frame) from now_rows) limit 0"
                )
            self._connection.execute(f"insert into then_rows by name {body}")

    def _read_late(self, as_of: datetime) -> None:
        """late_rows: entity, prediction time, and the views that have an honest late row for it."""
        start, end = self._window(self.batches)
        key, lake = self.spec.key, self.rails.lake
        spine = lake.relation(self.spec.prediction.spine, as_of, self.snapshot)
        parts = [
            f"""
            select distinct now_rows.entity_id, now_rows.prediction_time, {text(view)} as view
            from {spine} as spine
            inner join now_rows
                on now_rows.entity_id = cast(spine."{key}" as varchar)
                and now_rows.prediction_time = spine.prediction_time
            inner join {lake.relation(view, as_of, self.snapshot)} as late
                on spine."{feature_key(view)}" = late."{feature_key(view)}"
                and late.event_time <= spine.prediction_time
                and late.available_at > spine.prediction_time
                and late.event_time >= coalesce(now_rows.frame."{view}__event_time", late.event_time)
            where spine.prediction_time >= {literal(start)} and spine.prediction_time < {literal(end)}
            """
            for view in self.spec.prediction.features
        ]
        self._connection.execute(
            "create temp table late_rows as select entity_id, prediction_time, list(view) as late_views "
            f"from ({' union all '.join(parts)}) group by all"
        )

    def _put_side_by_side(self, as_of: datetime) -> None:
        """side_by_side: every row of either, with its matured label."""
        spec = self.spec
        labels = self.rails.lake.relation(spec.label.table, as_of, self.snapshot)
        cutoff = literal(truth.cutoff(spec, as_of))
        ends = sorted({night for batch in self.batches for night, *_ in batch.nights})
        nights = ", ".join(f"({literal(night)})" for night in ends)
        is_positive = spec.target.sql_half("label")
        every = spec.prediction.every / timedelta(microseconds=1)
        self._connection.execute(
            f"""
            create temp table side_by_side as
            with then_known as (
                select made.*, then_row.entity_id is not null as was_there, then_row
                from replayed as made
                left join then_rows as then_row
                    on made.entity_id = then_row.entity_id and made.prediction_time = then_row.prediction_time
                    and made.snapshot = then_row.snapshot
            ),
            now_known as (
                select now_rows.*, night.as_of, was.entity_id is not null as was_in_spine
                from now_rows
                left join (select distinct entity_id, prediction_time from then_rows) as was
                    using (entity_id, prediction_time)
                inner join (values {nights}) as night (as_of)
                    on now_rows.prediction_time < night.as_of
                    and epoch_us(now_rows.prediction_time) >= epoch_us(night.as_of) - {int(every)}
            ),
            newest as (
                select cast("{spec.key}" as varchar) as entity_id, prediction_time,
                    arg_max(label, available_at) as label
                from {labels}
                where prediction_time < {cutoff} and label is not null
                group by all
            ),
            labels as (
                select entity_id, prediction_time, {is_positive} as label from newest
            )
            select
                coalesce(made.entity_id, now.entity_id) as entity_id,
                coalesce(made.prediction_time, now.prediction_time) as prediction_time,
                coalesce(made.as_of, now.as_of) as as_of,
                made.snapshot,
                made.made_from,
                coalesce(made.ahead, false) as ahead,
                coalesce(made.was_there, false) as there_then,
                now.entity_id is not null as there_now,
                now.known_at > now.as_of and not now.was_in_spine as is_late,
                coalesce(now.known_at <= now.as_of and not now.was_in_spine, false) as is_new,
                made.then_row as then_row,
                now.frame as now_row,
                late_rows.late_views,
                labels.label
            from then_known as made
            full outer join now_known as now
                on made.entity_id = now.entity_id and made.prediction_time = now.prediction_time
                and made.as_of = now.as_of
            left join late_rows
                on late_rows.entity_id = now.entity_id and late_rows.prediction_time = now.prediction_time
            left join labels
                on labels.entity_id = coalesce(made.entity_id, now.entity_id)
                and labels.prediction_time = coalesce(made.prediction_time, now.prediction_time)
            """
        )

    def _count_unread(self) -> None:
        """Predictions whose row the spine did not hold at the snapshot that they name are told, not dropped."""
        query = "select count(*) from side_by_side where made_from is not null and not there_then"
        [unread] = self._connection.execute(query).fetchone() or (0,)
        if unread:
            why = "their rows are not in the spine at the snapshot that they name"
            self.untested.append(Untested("predictions", unread, why))

    # -- counting -----------------------------------------------------------------------------

    def counts(self, where: str = "true") -> dict[str, int]:
        names = ("rows", "tested", "nights", "matured", "late_rows")
        row = self._connection.execute(
            f"""
            select count(*) filter (there_then and there_now),
                count(*) filter (there_then and there_now and not ahead),
                count(distinct as_of) filter (there_then),
                count(label) filter (there_then and there_now),
                count(*) filter (not there_then and is_late)
            from side_by_side where {where}
            """
        ).fetchone()
        assert row is not None
        return dict(zip(names, row, strict=True))

    def tallies(self, where: str = "true") -> tuple[Tally, ...]:
        """The spine's rows first, then every feature; `where` picks rows of side_by_side."""
        parts = [self._counted(self.spec.prediction.spine, self.spec.prediction.spine, _SPINE_JUDGED, _SPINE_KIND)]
        for feature in self.features:
            parts.append(self._counted(feature.name, feature.view, self._comparable(feature), self._kind(feature)))
        rows = self._connection.execute(
            f"select unnest(found, recursive := true) from (select [{', '.join(parts)}] as found "
            f"from side_by_side where {where})"
        ).fetchall()
        return tuple(
            Tally(
                feature=name,
                view=view,
                rows=count,
                kinds=dict(zip(KINDS, kinds, strict=True)),
                positives=(changed_positive, positive),
                negatives=(changed_negative, negative),
                late=late,
            )
            for name, view, count, *kinds, changed_positive, positive, changed_negative, negative, late in rows
        )

    def _counted(self, name: str, view: str, judged: str, kind: str) -> str:
        kinds = ", ".join(f"'{way}': count(*) filter (({judged}) and ({kind}) = '{way}')" for way in KINDS)
        labels = ", ".join(
            f"'{side}_changed': count(*) filter (({judged}) and {condition} and ({kind}) is not null), "
            f"'{side}': count(*) filter (({judged}) and {condition})"
            for side, condition in (("positive", "label"), ("negative", "not label"))
        )
        return (
            f"{{'feature': {text(name)}, 'view': {text(view)}, 'rows': count(*) filter ({judged}), {kinds}, {labels}, "
            f"'late': count(*) filter (({judged}) and list_contains(late_views, {text(view)}))}}"
        )

    def _comparable(self, feature: frame.Feature) -> str:
        apart = self._apart.get(feature.name)
        but = f" and snapshot not in ({', '.join(map(str, sorted(apart)))})" if apart else ""
        return f"there_then and there_now{but}"

    def _kind(self, feature: frame.Feature) -> str:
        """SQL: in what way a row changed; NULL when it did not."""
        name, view = feature.name, feature.view
        then, now = f'then_row."{name}"', f'now_row."{name}"'
        same = f"{then} is not distinct from {now}"
        if feature.kind == "numeric":
            same += f" or abs({then} - {now}) <= {SLACK} * greatest(abs({then}), abs({now}))"
        dates = " or ".join(
            f'then_row."{view}__{time}" is distinct from now_row."{view}__{time}"'
            for time in ("event_time", "available_at")
        )
        return (
            f"case when coalesce({same}, false) then null when {then} is null then 'absent_then' "
            f"when {now} is null then 'blanked_since' when {dates} then 'stale_then' else 'different_then' end"
        )

    # -- showing ------------------------------------------------------------------------------

    def examples(self, tallies: Sequence[Tally]) -> dict[str, tuple[Example, ...]]:
        """Feature → up to five rows that changed, positives first, with the commit that wrote the later value."""
        features = {feature.name: feature for feature in self.features}
        drawn: dict[str, list[tuple[Any, ...]]] = {}
        asked: dict[str, set[tuple[str, datetime]]] = {}
        for tally in tallies:
            if tally.changed:
                rows = self._drawn(features.get(tally.feature))
                drawn[tally.feature] = rows
                asked.setdefault(tally.view, set()).update((row[0], row[1]) for row in rows)
        proofs = {view: self._proof(view, rows, features) for view, rows in asked.items()}
        found = {}
        for tally in tallies:
            if tally.changed:
                rows = drawn[tally.feature]
                found[tally.feature] = tuple(self._example(proofs[tally.view], tally.feature, row) for row in rows)
        return found

    def _drawn(self, feature: frame.Feature | None) -> list[tuple[Any, ...]]:
        """(entity, prediction time, kind, label, snapshot, value and times then, value and times now) of some rows."""
        if feature is None:
            kind, judged = _SPINE_KIND, _SPINE_JUDGED
            there = "case when {} then 'there' end, case when {} then prediction_time end, null"
            sides = f"{there.format('there_then', 'there_then')}, {there.format('there_now', 'there_now')}"
        else:
            kind, judged = self._kind(feature), self._comparable(feature)
            columns = (feature.name, f"{feature.view}__event_time", f"{feature.view}__available_at")
            sides = ", ".join(f'{side}."{column}"' for side in ("then_row", "now_row") for column in columns)
        return self._connection.execute(
            f"""
            select entity_id, prediction_time, {kind} as kind, label, coalesce(made_from, {self._oldest}), {sides}
            from side_by_side where ({judged}) and kind is not null
            order by label desc nulls last, prediction_time, entity_id limit {EXAMPLES}
            """
        ).fetchall()

    @property
    def _oldest(self) -> int:
        return min(made_from for batch in self.batches for _, made_from, _ in batch.nights)

    def _proof(
        self, view: str, rows: Collection[tuple[str, datetime]], features: Mapping[str, frame.Feature]
    ) -> "_Proof":
        """What the lake's record says of the entities in `rows`: the view's writings, and what landed of them."""
        first, last = self._oldest + 1, self.snapshot
        if view == self.spec.prediction.spine:
            key, keys = self.spec.key, {row: row[0] for row in rows}
            writings = []
        else:
            key, keys = feature_key(view), self._view_keys(view, rows)
            names = [feature.name for feature in features.values() if feature.view == view]
            writings = written(self.rails, view, key, sorted(set(keys.values())), names, first, last)
        landed: dict[str, list[dict[str, Any]]] = {}
        contracted = self.spec.source in contracts.sources(self.rails.settings)
        for table in contracts.raw_tables(self.rails.settings, self.spec.source) if contracted else ():
            if self.rails.lake.has(table) and key in self.rails.lake.columns(table):
                wanted, columns = sorted(set(keys.values())), ("source_file", "row_number")
                landed[table] = written(self.rails, table, key, wanted, columns, first, last)
        return _Proof(keys, writings, landed)

    def _view_keys(self, view: str, rows: Collection[tuple[str, datetime]]) -> dict[tuple[str, datetime], str]:
        """(entity, prediction time) → the key of the view's rows it was joined with."""
        if feature_key(view) == self.spec.key:
            return {row: row[0] for row in rows}
        spine = stored(self.spec.prediction.spine, self.snapshot)
        found = self._connection.execute(
            f'select cast("{self.spec.key}" as varchar) as entity_id, prediction_time, '
            f'cast("{feature_key(view)}" as varchar) from {spine} where list_contains($entities, entity_id)',
            {"entities": sorted({entity for entity, _ in rows})},
        ).fetchall()
        return {(entity, at): key for entity, at, key in found if (entity, at) in rows and key is not None}

    def _example(self, proof: "_Proof", feature: str, row: tuple[Any, ...]) -> Example:
        entity, at, kind, label, made_from, *values = row
        then, now = Side(*values[:3], made_from), Side(*values[3:], self.snapshot)
        writer = proof.writer(feature, (entity, at), then, now)
        origins = tuple(
            Origin(
                table,
                landed["source_file"],
                landed["row_number"],
                landed["event_time"],
                landed["available_at"],
                self.record.commits.get(landed["snapshot"]),
            )
            for table, landed in proof.origins((entity, at), made_from)
        )
        return Example(entity, at, kind, label, then, now, self.record.commits.get(writer or -1), origins)


_SPINE_JUDGED = "there_then or (is_new and not there_then)"
_SPINE_KIND = "case when not there_now then 'gone_since' when not there_then then 'absent_then' end"


@dataclass(frozen=True)
class _Proof:
    """What the lake's record says of some entities of a view."""

    keys: Mapping[tuple[str, datetime], str]
    writings: Sequence[Mapping[str, Any]]
    landed: Mapping[str, Sequence[Mapping[str, Any]]]
    """Raw table → rows that were landed since."""

    def writer(self, feature: str, row: tuple[str, datetime], then: Side, now: Side) -> int | None:
        """The first version since that wrote the row which is read now, or took away the one that was read then."""
        read = now if now.event_time is not None else then
        key, times = self.keys.get(row), (read.event_time, read.available_at)
        mine = [
            writing
            for writing in self.writings
            if writing["snapshot"] > then.snapshot
            and writing["key"] == key
            and (writing["event_time"], writing["available_at"]) == times
        ]
        inserts = [writing["snapshot"] for writing in mine if writing["is_insert"]]
        if read is now:
            return min(
                (one["snapshot"] for one in mine if one["is_insert"] and one[feature] == now.value), default=None
            )
        return min((one["snapshot"] for one in mine if one["snapshot"] not in inserts), default=None)

    def origins(self, row: tuple[str, datetime], made_from: int) -> list[tuple[str, Mapping[str, Any]]]:
        """Raw rows of the entity that landed after the prediction and claim to have been known at it."""
        key, at = self.keys.get(row), row[1]
        return [
            (table, landed)
            for table, rows in self.landed.items()
            for landed in rows
            if landed["key"] == key
            and landed["snapshot"] > made_from
            and landed["available_at"] is not None
            and landed["available_at"] <= at
        ][:ORIGINS]
