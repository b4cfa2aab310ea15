"""The chronicle: what people look back at, read from the ledger for its pages. Nothing decides on it.

What stages have in hand of a night and the ledger needs for nothing else, like the figures of every slice, is kept here
for the newest nights, a part for each stage, so that no page reads the lake. Everything else is what the ledger has,
with what did not change left out: of a year of holds the night on which they began.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.dialects import postgresql as pg

from tiltyard import clock, reading
from tiltyard.ledger_tables import decision, event, incident, named_dates, night_document, publication, stage_run
from tiltyard.records import Event, Incident, JsonObject, Record
from tiltyard.stages import STAGES

KEPT = 35
"""So many nights of a model, or a source, are kept."""
KeptOf = Literal["model", "source"]
PartT = TypeVar("PartT", bound=Record)


@dataclass(frozen=True)
class KeptNight(Generic[PartT]):
    """What was kept of a night."""

    night: date
    """The night."""
    body: PartT
    """What its stages had in hand."""


class VerdictChange(NamedTuple):
    """A night on which the gate said another thing of a challenger than the night before."""

    night: date
    recorded_at: datetime
    challenger: int
    champion: int | None
    """The version that it was held against; None for the safe default."""
    verdict: str
    reasons: tuple[str, ...]


class AlarmChange(NamedTuple):
    """A night on which a drift alarm began, or was there no more."""

    night: date
    recorded_at: datetime
    begins: bool
    reasons: tuple[str, ...]


class TableChange(NamedTuple):
    """A night on which a table began or ceased to be good."""

    night: date
    recorded_at: datetime
    table: str
    state: str
    reason: str | None
    cause: str | None


class NightLoss(NamedTuple):
    """What a night measured, as it is recorded."""

    night: date
    champion: JsonObject
    """Figures of the version in service; empty where none was measured."""
    safe_default: float | None
    """What the safe default lost on the same rows; None where it was not measured."""


class NightSpan(NamedTuple):
    """When a night was worked on, wall clock."""

    first: datetime
    last: datetime


class HeldModel(NamedTuple):
    """What the governor decided on a model for an incident."""

    night: date
    model: str
    decision: str


class Chronicle:
    """The chronicle of an open ledger."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    # -- what stages keep ---------------------------------------------------------------------

    def keep(self, of: KeptOf, name: str, night: date, part: Record) -> None:
        """Keep a stage's part of a night beside those of other stages, in place of what it kept of it before. What is
        older than the newest KEPT nights goes."""
        key = {"kind": of, "name": name, "night": night}
        insert = pg.insert(night_document).values(**key, body=part.to_json(), recorded_at=clock.now())
        both = night_document.c.body.op("||")(insert.excluded.body)
        merged = insert.on_conflict_do_update(
            index_elements=[*night_document.primary_key.columns],
            set_={"body": both, "recorded_at": insert.excluded.recorded_at},
        )
        own = (night_document.c.kind == of, night_document.c.name == name)
        nights = sa.select(night_document.c.night).where(*own).order_by(night_document.c.night.desc())
        oldest = nights.offset(KEPT - 1).limit(1).scalar_subquery()
        with self._engine.begin() as connection:
            connection.execute(merged)
            connection.execute(sa.delete(night_document).where(*own, night_document.c.night < oldest))

    def kept(self, kind: type[PartT], of: KeptOf, name: str, until: date) -> KeptNight[PartT] | None:
        """What was kept of the newest night up to and including one; None where nothing was, or as an older version
        wrote it."""
        query = sa.select(night_document.c.night, night_document.c.body).where(
            night_document.c.kind == of, night_document.c.name == name, night_document.c.night <= until
        )
        with suppress(ValidationError, TypeError):
            for row in self._rows(query.order_by(night_document.c.night.desc()).limit(1)):
                return KeptNight(row.night, kind.from_json(row.body))
        return None

    def kept_since(self, kind: type[PartT], of: KeptOf, name: str, since: date) -> list[KeptNight[PartT]]:
        """What was kept of the nights from one on, the newest first."""
        query = sa.select(night_document.c.night, night_document.c.body).where(
            night_document.c.kind == of, night_document.c.name == name, night_document.c.night >= since
        )
        nights = []
        for row in self._rows(query.order_by(night_document.c.night.desc())):
            with suppress(ValidationError, TypeError):
                nights.append(KeptNight(row.night, kind.from_json(row.body)))
        return nights

    def nights_scored(self, model: str, since: date, until: date) -> dict[int, int]:
        """Version → number of the nights in [since, until] that it has scored."""
        number = sa.func.jsonb_object_keys(stage_run.c.summary["roles"]).label("version")
        done = (stage_run.c.stage == "shadow", stage_run.c.model == model, stage_run.c.status == "done")
        own = sa.select(number).where(*done, stage_run.c.night.between(since, until)).subquery()
        query = sa.select(own.c.version, sa.func.count().label("nights")).group_by(own.c.version)
        return {int(row.version): row.nights for row in self._rows(query)}

    def last_decided(self, model: str, until: date) -> date | None:
        """The newest night up to and including one on which the gate judged a challenger of the model."""
        query = sa.select(sa.func.max(decision.c.night)).where(decision.c.model == model, decision.c.night <= until)
        [row] = self._rows(query)
        decided: date | None = row[0]
        return decided

    def events(self, model: str, but: Collection[str], most: int) -> list[Event]:
        """The newest events of a model, the newest first, without those of some kinds."""
        query = sa.select(event).where(event.c.model == model, event.c.kind.not_in(but))
        return [
            Event.from_json(dict(row._mapping)) for row in self._rows(query.order_by(event.c.id.desc()).limit(most))
        ]

    def count_events(self, model: str, but: Collection[str]) -> int:
        """The number of a model's events, without those of some kinds."""
        query = sa.select(sa.func.count()).where(event.c.model == model, event.c.kind.not_in(but))
        [row] = self._rows(query)
        return int(row[0])

    # -- what changed -------------------------------------------------------------------------

    def verdicts(self, model: str, most: int) -> list[VerdictChange]:
        """The newest changes of the gate's word on the model's challengers, the newest first."""
        columns = [getattr(decision.c, name) for name in VerdictChange._fields]
        before = sa.func.lag(decision.c.verdict).over(partition_by=decision.c.challenger, order_by=decision.c.night)
        own = sa.select(*columns, before.label("before")).where(decision.c.model == model).subquery()
        query = sa.select(*(own.c[column.name] for column in columns)).where(
            own.c.before.is_distinct_from(own.c.verdict)
        )
        rows = self._rows(query.order_by(own.c.night.desc(), own.c.challenger.desc()).limit(most))
        return [VerdictChange._make((*row[:-1], tuple(row.reasons))) for row in rows]

    def alarms(self, model: str, most: int) -> list[AlarmChange]:
        """The newest beginnings and ends of the model's drift alarm, the newest first."""
        stands = sa.func.coalesce(stage_run.c.summary["alarm"].as_boolean(), sa.false())
        before = sa.func.lag(stands, 1, sa.false()).over(order_by=stage_run.c.night)
        reasons = stage_run.c.summary["reasons"].label("reasons")
        own = (
            sa.select(
                stage_run.c.night, stage_run.c.recorded_at, stands.label("stands"), before.label("before"), reasons
            )
            .where(stage_run.c.stage == "drift", stage_run.c.model == model, stage_run.c.status == "done")
            .subquery()
        )
        query = sa.select(own.c.night, own.c.recorded_at, own.c.stands, own.c.reasons)
        rows = self._rows(query.where(own.c.before != own.c.stands).order_by(own.c.night.desc()).limit(most))
        return [AlarmChange(row.night, row.recorded_at, row.stands, tuple(row.reasons or ())) for row in rows]

    def table_changes(self, tables: Collection[str], most: int) -> list[TableChange]:
        """The newest nights on which one of these tables began or ceased to be good, the newest first."""
        is_good = publication.c.state == "published"
        before = sa.func.lag(is_good, 1, sa.true()).over(partition_by=publication.c.table, order_by=publication.c.night)
        columns = [publication.c[name].label(name) for name in TableChange._fields]
        own = (
            sa.select(*columns, is_good.label("is_good"), before.label("before"))
            .where(publication.c.table.in_(sorted(tables)))
            .subquery()
        )
        query = sa.select(*(own.c[name] for name in TableChange._fields)).where(own.c.before != own.c.is_good)
        return [
            TableChange._make(row) for row in self._rows(query.order_by(own.c.night.desc(), own.c.table).limit(most))
        ]

    # -- nights -------------------------------------------------------------------------------

    def span(self, night: date) -> NightSpan | None:
        """When the first and the last of a night was recorded; None where nothing was."""
        of_stages = sa.select(stage_run.c.recorded_at).where(
            stage_run.c.stage.in_([*STAGES]), stage_run.c.night == night
        )
        of_tables = sa.select(publication.c.recorded_at).where(publication.c.night == night)
        both = sa.union_all(of_stages, of_tables).subquery()
        [row] = self._rows(sa.select(sa.func.min(both.c.recorded_at), sa.func.max(both.c.recorded_at)))
        return NightSpan._make(row) if row[0] is not None else None

    def beside(self, night: date) -> tuple[date | None, date | None]:
        """The night before, and the one after, of those on which any source or model was worked on."""
        worked = (stage_run.c.stage.in_(("features", "shadow")),)
        earlier = sa.select(sa.func.max(stage_run.c.night)).where(*worked, stage_run.c.night < night)
        later = sa.select(sa.func.min(stage_run.c.night)).where(*worked, stage_run.c.night > night)
        [row] = self._rows(sa.select(earlier.scalar_subquery().label("before"), later.scalar_subquery().label("after")))
        return row.before, row.after

    def newest_night(self) -> date | None:
        """The newest night on which any source or model was worked on; None before the first."""
        worked = stage_run.c.stage.in_(("features", "shadow"))
        [row] = self._rows(sa.select(sa.func.max(stage_run.c.night)).where(worked))
        newest: date | None = row[0]
        return newest

    def losses(self, since: Mapping[str, date]) -> dict[str, list[NightLoss]]:
        """Model → what its nights have measured from the model's `since` on, in their order. One query, which takes no
        more of a record than that: of a hundred models a month of whole records is megabytes."""
        found: dict[str, list[NightLoss]] = {name: [] for name in since}
        if not since:
            return found
        asked = named_dates(since)
        figures = sa.func.jsonb_path_query_first(
            stage_run.c.summary["metrics"],
            sa.literal('$.* ? (@.role == "champion")', sa.Text).op("::")(sa.text("jsonpath")),
        )
        default = stage_run.c.summary["default_loss"].label("default_loss")
        query = sa.select(stage_run.c.model, stage_run.c.night, figures.label("champion"), default)
        own = (stage_run.c.model == asked.c.name, stage_run.c.night >= asked.c.since, stage_run.c.status == "done")
        query = query.where(stage_run.c.stage == "shadow", *own).order_by(stage_run.c.model, stage_run.c.night)
        for row in self._rows(query):
            champion = row.champion if isinstance(row.champion, dict) else {}
            loss = float(row.default_loss) if isinstance(row.default_loss, int | float) else None
            found[row.model].append(NightLoss(row.night, champion, loss))
        return found

    # -- incidents ----------------------------------------------------------------------------

    def incident_nights(self, node: str, most: int) -> list[tuple[date, Incident]]:
        """The newest nights on which a node had incidents, each with them, the newest first."""
        query = sa.select(*(column.label(column.key) for column in incident.c)).where(incident.c.node == node)
        rows = self._rows(query.order_by(incident.c.night.desc(), incident.c.kind).limit(most))
        return [(row.night, Incident.from_json(dict(row._mapping))) for row in rows]

    def incidents_since(self, since: date) -> list[tuple[date, Incident]]:
        """Every incident of every night from one on, the newest first."""
        query = sa.select(*(column.label(column.key) for column in incident.c)).where(incident.c.night >= since)
        rows = self._rows(query.order_by(incident.c.night.desc(), incident.c.node, incident.c.kind))
        return [(row.night, Incident.from_json(dict(row._mapping))) for row in rows]

    def held_by(self, node: str, first: date, last: date) -> list[HeldModel]:
        """What the governor decided for an incident of a node on the nights in [first, last]."""
        each = sa.func.jsonb_each(stage_run.c.summary["actions"]).table_valued("key", "value").lateral("each")
        value = sa.cast(each.c.value, pg.JSONB)
        query = (
            sa.select(stage_run.c.night, each.c.key, value["decision"].astext)
            .select_from(sa.join(stage_run, each, sa.true()))
            .where(stage_run.c.stage == "governor", stage_run.c.night.between(first, last))
            .where(value["incident"].astext == node)
            .order_by(stage_run.c.night.desc(), each.c.key)
        )
        return [HeldModel._make(row) for row in self._rows(query)]

    # -- pages --------------------------------------------------------------------------------

    def evidence_pages(self, model: str) -> dict[int, str]:
        """Challenger → the newest page with its evidence, below settings.reports."""
        number = stage_run.c.summary["challenger"].as_integer().label("challenger")
        page = stage_run.c.summary["page"].astext.label("page")
        query = (
            sa.select(number, page)
            .where(stage_run.c.stage == "promotion", stage_run.c.model == model, page.is_not(None), number.is_not(None))
            .distinct(number)
            .order_by(number, stage_run.c.night.desc())
        )
        return {row.challenger: row.page for row in self._rows(query)}

    def _rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        with reading.connection(self._engine) as connection:
            return list(connection.execute(query))


def lately(night: date, nights: int) -> date:
    """The first of so many nights up to and including one."""
    return night - timedelta(days=nights - 1)
