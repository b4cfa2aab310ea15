"""What predictions were made from, and what the lake says of it today, row by row in its own engine.

A `ReplayComparison` reads the frame of predictions that are in reach (`reach`) from the snapshots that they were made
from and from today's, puts them side by side, and counts in what ways every feature changed. `proof` draws examples of
it. What the counts mean is `replay`'s to decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tiltyard import clock
from tiltyard.lake import identifier, literal, quoted, text
from tiltyard.prepare import frame, truth
from tiltyard.rails import Rails
from tiltyard.records import Publication
from tiltyard.spec import Spec, feature_key
from tiltyard.tables import PREDICTION
from tiltyard.train.history import LakeHistory
from tiltyard.train.reach import PredictionBatch, UncomparedRows

KINDS: Mapping[str, str] = {
    "absent_then": "There was no value when the prediction was made; today there is one.",
    "blanked_since": "There was a value when the prediction was made; today there is none.",
    "stale_then": "The prediction was made from an older row than today's, whose dates say that it was known then.",
    "different_then": "The row has the dates that it had then and says something else: it was overwritten.",
    "gone_since": "The prediction was made, and today its row is not in the spine any more.",
}
"""In what way a row changed → what that means."""
SPINE_JUDGED = "there_then or (is_new and not there_then)"
"""SQL: is this row of side_by_side one by which the spine is judged?"""
SPINE_KIND = "case when not there_now then 'gone_since' when not there_then then 'absent_then' end"
"""SQL: in what way the spine changed there; NULL where it did not."""
SLACK = 1e-9
"""Two numbers this close, relatively, are the same: a sum taken in another order differs in its last digits."""


@dataclass(frozen=True)
class Tally:
    """What was counted of one feature, or of the spine itself, over the rows that could be compared."""

    feature: str
    """The feature's name, or the spine's."""
    view: str
    """The table that it comes from."""
    rows: int
    """Number of rows that could be compared."""
    kinds: Mapping[str, int]
    """Kind → number of rows that changed in this way; a row changes in one way."""
    positives: tuple[int, int] = (0, 0)
    """Number of changed rows, and of all, whose label has matured and is positive."""
    negatives: tuple[int, int] = (0, 0)
    """The same of rows whose label has matured and is negative."""
    late: int = 0
    """Number of rows for which the view has by now a row that had happened and was not known yet, and says so. A join
    on event time alone would take it; the point-in-time join does not, so that it is no change."""

    @property
    def changed(self) -> int:
        """Number of rows that changed, in whatever way."""
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Counts:
    """How many predictions were compared."""

    rows: int
    """Number of predictions that were there then and are there now."""
    tested: int
    """Number of those that were made from a snapshot that held nothing of later nights."""
    nights: int
    """Number of nights that they were made on."""
    matured: int
    """Number of those whose label has matured."""
    late_rows: int
    """Number of rows of today's frame whose spine row is dated later than their night, and honestly."""


class ReplayComparison:
    """Rows of predictions, what they held then and what the lake says now, as temporary tables of one transaction."""

    def __init__(
        self,
        rails: Rails,
        spec: Spec,
        as_of: datetime,
        at: int | Publication,
        batches: Sequence[PredictionBatch],
        record: LakeHistory,
    ) -> None:
        self.rails, self.spec, self.at, self.record = rails, spec, at, record
        self.batches = batches
        self.features = frame.features(rails, spec, at)
        self.untested: list[UncomparedRows] = []
        self._apart: dict[str, set[int]] = {}
        self.connection = rails.lake.connection
        self._read_predictions()
        self._read_now(as_of)
        self._read_then()
        self._read_late(as_of)
        self._read_erased(as_of)
        self._put_side_by_side(as_of)
        self._count_unread()

    # -- reading ------------------------------------------------------------------------------

    def _read_predictions(self) -> None:
        """replayed: one row per entity and prediction time."""
        rows = ", ".join(
            f"({literal(made.as_of)}, {made.snapshot}, {'null' if made.apart is None else text(made.apart)}, "
            f"{batch.number}, {str(made.ahead).lower()})"
            for batch in self.batches
            for made in batch.nights
        )
        self.connection.execute(
            f"""
            create temp table replayed as
            select distinct made.entity_id, made.prediction_time, cast(made.night as timestamptz) as as_of,
                batch.number, made.snapshot as made_from, batch.ahead
            from {identifier(PREDICTION)} as made
            inner join (values {rows}) as batch (as_of, made_from, apart, number, ahead)
                on made.available_at = batch.as_of and made.snapshot = batch.made_from
                and made.apart is not distinct from cast(batch.apart as varchar)
            where made.model = {text(self.spec.name)}
            """
        )

    def _window(self, batches: Sequence[PredictionBatch]) -> tuple[datetime, datetime]:
        ends = [made.as_of for batch in batches for made in batch.nights]
        begins = [end - (self.spec.prediction.every if clock.is_hour(end) else clock.NIGHT) for end in ends]
        return min(begins), max(ends)

    def _read_now(self, as_of: datetime) -> None:
        """now_rows: the frame as training would compute it today, over all the nights.

        Read as of today: the join asks `available_at <= prediction_time` of every value, and prediction times lie
        before the end of their night, so that as of their own nights the values are the same. Only the spine's
        rows may have come later; `spine_known_at` tells those.
        """
        start, end = self._window(self.batches)
        key = self.spec.key
        spine = self.rails.lake.relation(self.spec.prediction.spine, as_of, self.at)
        self.connection.execute(
            f"""
            create temp table now_rows as
            select cast(_row."{key}" as varchar) as entity_id, _row.prediction_time, spine.known_at, _row as frame
            from ({frame.select(self.rails, self.spec, start, end, as_of, self.at)}) as _row
            left join (
                select "{key}", prediction_time, min(available_at) as known_at from {spine} group by all
            ) as spine using ("{key}", prediction_time)
            """
        )

    def _read_then(self) -> None:
        """then_rows: the frame at each snapshot, the columns that it has in common with today's. What is ours in it
        begins with an underscore, as no feature does."""
        kinds = {feature.name: feature for feature in self.features}
        for batch in self.batches:
            start, end = self._window([batch])
            earlier = {feature.name: feature for feature in frame.features(self.rails, self.spec, batch.publication)}
            selected = []
            for name, feature in kinds.items():
                before = earlier.get(name)
                held = batch.publication.until(feature.view)
                if before is None or before.kind != feature.kind or held is not None:
                    self._apart.setdefault(name, set()).add(batch.number)
                    why = "the view did not have it yet" if before is None else f"it was {before.kind} then"
                    in_hindsight = False
                    if held is not None:  # that today's rows are newer is what was said of it, and convicts nobody
                        why = f"the view was not published then, and read as of {held:%Y-%m-%d}"
                        in_hindsight = all(made.ahead for made in batch.nights)
                    self.untested.append(
                        UncomparedRows(name, batch.rows, f"{why} (snapshot {batch.snapshot})", in_hindsight)
                    )
                    selected.append(f"null as {quoted(name)}")
                else:
                    selected.append(quoted(name))
            times = [
                f'"{view}__{time}"' for view in self.spec.prediction.features for time in ("event_time", "available_at")
            ]
            sql = frame.select(self.rails, self.spec, start, end, end, batch.publication)
            body = f"""
                select cast("{self.spec.key}" as varchar) as _entity, prediction_time, {batch.number} as _number,
                    {", ".join([*selected, *times])}
                from ({sql})
            """
            if batch.number == 0:
                names = ", ".join([*(quoted(feature.name) for feature in self.features), *times])
                self.connection.execute(
                    f"create temp table then_rows as select _entity, prediction_time, 0 as _number, {names} "
                    "from (select entity_id as _entity, unnest(frame) from now_rows) limit 0"
                )
            self.connection.execute(f"insert into then_rows by name {body}")

    def _read_late(self, as_of: datetime) -> None:
        """late_rows: entity, prediction time, and the views that have an honest late row for it."""
        start, end = self._window(self.batches)
        key, lake = self.spec.key, self.rails.lake
        spine = lake.relation(self.spec.prediction.spine, as_of, self.at)
        parts = [
            f"""
            select distinct now_rows.entity_id, now_rows.prediction_time, {text(view)} as view
            from {spine} as spine
            inner join now_rows
                on now_rows.entity_id = cast(spine."{key}" as varchar)
                and now_rows.prediction_time = spine.prediction_time
            inner join {lake.relation(view, as_of, self.at)} as late
                on spine."{feature_key(view)}" = late."{feature_key(view)}"
                and late.event_time <= spine.prediction_time
                and late.available_at > spine.prediction_time
                and late.event_time >= coalesce(now_rows.frame."{view}__event_time", late.event_time)
            where spine.prediction_time >= {literal(start)} and spine.prediction_time < {literal(end)}
            """
            for view in self.spec.prediction.features
        ]
        self.connection.execute(
            "create temp table late_rows as select entity_id, prediction_time, list(view) as late_views "
            f"from ({' union all '.join(parts)}) group by all"
        )

    def _read_erased(self, as_of: datetime) -> None:
        """erased_rows: entity, prediction time, and view → up to which snapshot its row was counted with somebody who
        was erased since. Such a row was not written over, and says nothing of the past."""
        self.connection.execute(
            "create temp table erased_rows (entity_id varchar, prediction_time timestamptz, view varchar, until bigint)"
        )
        touched = self.rails.ledger.erasures.touched(self.spec.prediction.features)
        spine = self.rails.lake.relation(self.spec.prediction.spine, as_of, self.at)
        for view, keys in touched.items():
            self.connection.execute(
                f"""
                insert into erased_rows
                select distinct cast(spine."{self.spec.key}" as varchar), spine.prediction_time, {text(view)}, own.until
                from {spine} as spine
                inner join (select unnest($keys) as key, unnest($until) as until) as own
                    on cast(spine."{feature_key(view)}" as varchar) = own.key
                """,
                {"keys": [*keys], "until": [*keys.values()]},
            )
            row = self.connection.execute(
                "select count(*) from replayed inner join erased_rows using (entity_id, prediction_time) "
                "where erased_rows.view = ? and replayed.made_from <= erased_rows.until",
                [view],
            ).fetchone()
            if row and row[0]:
                why = "they were counted with rows of somebody who was erased since"
                self.untested.append(UncomparedRows(view, row[0], why))

    def _put_side_by_side(self, as_of: datetime) -> None:
        """side_by_side: every row of either, with its matured label."""
        spec = self.spec
        labels = self.rails.lake.relation(spec.label.table, as_of, self.at)
        cutoff = literal(truth.cutoff(spec, as_of))
        matured = f"prediction_time < {cutoff}"
        if spec.label.until:
            spine = self.rails.lake.relation(spec.prediction.spine, as_of, self.at)
            keys = f'"{spec.key}", prediction_time'
            decided = f"{frame.decided_at(self.rails, spec, self.at)} < {cutoff}"
            matured = f"({keys}) in (select {keys} from {spine} where {decided})"
        days = sorted({clock.night_of(made.as_of) for batch in self.batches for made in batch.nights})
        nights = ", ".join(f"({literal(clock.midnight(day))})" for day in days)
        is_positive = spec.target.sql_half("label")
        every = clock.NIGHT / timedelta(microseconds=1)
        self.connection.execute(
            f"""
            create temp table side_by_side as
            with then_known as (
                select made.*, _then._entity is not null as was_there, _then as then_row
                from replayed as made
                left join then_rows as _then
                    on made.entity_id = _then._entity and made.prediction_time = _then.prediction_time
                    and made.number = _then._number
            ),
            now_known as (
                select now_rows.*, night.as_of, was.entity_id is not null as was_in_spine
                from now_rows
                left join (select distinct _entity as entity_id, prediction_time from then_rows) as was
                    using (entity_id, prediction_time)
                inner join (values {nights}) as night (as_of)
                    on now_rows.prediction_time < night.as_of
                    and epoch_us(now_rows.prediction_time) >= epoch_us(night.as_of) - {int(every)}
            ),
            newest as (
                select cast("{spec.key}" as varchar) as entity_id, prediction_time,
                    arg_max(label, available_at) as label
                from {labels}
                where {matured} and label is not null
                group by all
            ),
            labels as (
                select entity_id, prediction_time, {is_positive} as label from newest
            )
            select
                coalesce(made.entity_id, now.entity_id) as entity_id,
                coalesce(made.prediction_time, now.prediction_time) as prediction_time,
                coalesce(made.as_of, now.as_of) as as_of,
                made.number,
                made.made_from,
                coalesce(made.ahead, false) as ahead,
                coalesce(made.was_there, false) as there_then,
                now.entity_id is not null as there_now,
                now.known_at > now.as_of and not now.was_in_spine as is_late,
                coalesce(now.known_at <= now.as_of and not now.was_in_spine, false) as is_new,
                made.then_row as then_row,
                now.frame as now_row,
                late_rows.late_views,
                erased.views as erased_views,
                labels.label
            from then_known as made
            full outer join now_known as now
                on made.entity_id = now.entity_id and made.prediction_time = now.prediction_time
                and made.as_of = now.as_of
            left join late_rows
                on late_rows.entity_id = now.entity_id and late_rows.prediction_time = now.prediction_time
            left join (
                select erased_rows.entity_id, erased_rows.prediction_time, replayed.made_from,
                    list(distinct erased_rows.view) as views
                from erased_rows
                inner join replayed using (entity_id, prediction_time)
                where replayed.made_from <= erased_rows.until
                group by all
            ) as erased
                on erased.entity_id = made.entity_id and erased.prediction_time = made.prediction_time
                and erased.made_from = made.made_from
            left join labels
                on labels.entity_id = coalesce(made.entity_id, now.entity_id)
                and labels.prediction_time = coalesce(made.prediction_time, now.prediction_time)
            """
        )

    def _count_unread(self) -> None:
        """Predictions whose row the spine did not hold at the snapshot that they name are told, not dropped."""
        query = "select count(*) from side_by_side where made_from is not null and not there_then"
        [unread] = self.connection.execute(query).fetchone() or (0,)
        if unread:
            why = "their rows are not in the spine at the snapshot that they name"
            self.untested.append(UncomparedRows("predictions", unread, why))

    @property
    def snapshot(self) -> int:
        """The lake's snapshot of the batch that they are held against."""
        return self.at.snapshot if isinstance(self.at, Publication) else self.at

    @property
    def oldest(self) -> int:
        """The oldest snapshot that a prediction names."""
        return min(made.snapshot for batch in self.batches for made in batch.nights)

    # -- counting -----------------------------------------------------------------------------

    def counts(self, where: str = "true") -> Counts:
        """`where` picks rows of side_by_side."""
        row = self.connection.execute(
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
        return Counts(*row)

    def tallies(self, where: str = "true") -> tuple[Tally, ...]:
        """The spine's rows first, then every feature; `where` picks rows of side_by_side."""
        parts = [self._counted(self.spec.prediction.spine, self.spec.prediction.spine, SPINE_JUDGED, SPINE_KIND)]
        for feature in self.features:
            parts.append(self._counted(feature.name, feature.view, self.comparable(feature), self.kind(feature)))
        rows = self.connection.execute(
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

    def comparable(self, feature: frame.Feature) -> str:
        """SQL: may this row of side_by_side be compared by the feature?"""
        apart = self._apart.get(feature.name)
        but = f" and number not in ({', '.join(map(str, sorted(apart)))})" if apart else ""
        erased = f"coalesce(list_contains(erased_views, {text(feature.view)}), false)"
        return f"there_then and there_now and not {erased}{but}"

    def kind(self, feature: frame.Feature) -> str:
        """SQL: in what way a row changed; NULL when it did not."""
        name, view = feature.name, feature.view
        then, now = f"then_row.{quoted(name)}", f"now_row.{quoted(name)}"
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
