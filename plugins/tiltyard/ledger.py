"""The decisions database: what was claimed, trained, decided, approved and promoted, and by whom.

The ledger decides, MLflow's aliases follow. Roles at a past night are derived from it, so that a rerun of
that night sees the champion of that night. Rows are added, not rewritten; a stage's run record is the one
exception (it says how the last attempt went).

Longer than other modules, because no other one may ask the database of decisions anything. Its tables and the longer
statements over them are `ledger_tables`; that only the newest of two attempts commits is `fence`; what pages look back
at is `chronicle`; who is champion is worked out in `succession`.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.dialects import postgresql as pg

from tiltyard import chain, clock, postgres, reading
from tiltyard.accounts import Accounts
from tiltyard.chain import ChainState
from tiltyard.chronicle import Chronicle
from tiltyard.erasures import Erasures
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.fence import Fence, changing, claim, played, playing
from tiltyard.file_looks import FileLooks
from tiltyard.ledger_tables import (
    ACCEPTED,
    ACCEPTED_AS_FOUND,
    ADDED_LATER,
    REMOVED,
    WITHDRAWN,
    advancing,
    decision,
    default_task,
    default_task_end,
    erasure,
    event,
    features_runs,
    finding,
    first_nights,
    hour,
    incident,
    json_text,
    metadata,
    named_dates,
    named_rows,
    newest_states,
    next_moment,
    night_withdrawal,
    operation,
    operation_end,
    promotion,
    publication,
    recorded_as,
    release,
    retrain,
    stage_run,
    upserting,
    version,
    watch,
    withdrawing,
)
from tiltyard.operating import CHANGING
from tiltyard.operations import Operations
from tiltyard.outbox import Outbox
from tiltyard.records import (
    AcceptedRelease,
    Decision,
    DefaultTask,
    Event,
    Explanation,
    FeaturesSummary,
    Finding,
    GovernorSummary,
    Incident,
    Promotion,
    Publication,
    Record,
    Recovery,
    Retrain,
    StageRun,
    Status,
    Summary,
    TableState,
    Version,
    Watch,
)
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.stages import StageName
from tiltyard.succession import ChampionChange, ChampionStep, Roles, cast, succession
from tiltyard.words import listed

RecordT = TypeVar("RecordT", bound=Record)
SummaryT = TypeVar("SummaryT", bound=Summary)
_made: set[str] = set()
"""The ledgers whose tables this process has seen to. To see to them locks every table against writers for a moment: a
server that opens the ledger for every page does that once."""
HourOf = Literal["table", "model"]
"""Of what there is a newest hour."""


class StageEnd(NamedTuple):
    """How the last attempt of a stage at a night ended."""

    status: Status
    """done; checked, of features before they are published; stopped by a check; failed."""
    recorded_at: datetime
    """When it was recorded, wall clock."""


class NightEnd(NamedTuple):
    """The newest night of a stage, and how its last attempt ended."""

    night: date
    """The night."""
    status: Status
    """done; checked, of features before they are published; stopped by a check; failed."""
    recorded_at: datetime
    """When it was recorded, wall clock."""


class HourEnd(NamedTuple):
    """The newest hour of a table that was published at it, or of a model that was answered."""

    as_of: datetime
    """The end of the hour."""
    snapshot: int
    """The lake's snapshot that was published, or answered from."""
    recorded_at: datetime
    """When it was recorded, wall clock."""


@lru_cache(maxsize=8)
def _engine(process: int, url: sa.URL) -> sa.Engine:
    """The engine of a process: it remembers how a query is spelled, which takes longer than to ask it. Who gives its
    connections back takes them from nobody who has one, and nobody waits for one that another has."""
    return sa.create_engine(url, pool_size=2, max_overflow=-1, pool_pre_ping=True, json_serializer=json_text)


class Ledger:
    """An open ledger. Thread-safe; one per process."""

    def __init__(self, settings: Settings) -> None:
        url = postgres.url(settings, "ledger")
        self.engine = _engine(os.getpid(), url)
        if str(url) in _made:
            return
        with self.engine.begin() as connection:
            connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('tiltyard/ledger'))"))
            metadata.create_all(connection)
            for column in _lacking(connection):
                kind = column.type.compile(dialect=connection.dialect)
                connection.execute(sa.text(f"alter table {column.table.name} add column {column.name} {kind}"))
            there = set(connection.scalars(sa.text("select indexname from pg_indexes")))
            for table in metadata.sorted_tables:  # of a home from before there was an index
                for index in table.indexes:
                    if index.name not in there:  # asked for all the same it would hold up whoever writes, or be held up
                        connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
            chain.begin(connection)
        _made.add(str(url))

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    @cached_property
    def accounts(self) -> Accounts:
        """What nights have cost, and what models are worth."""
        return Accounts(self.engine)

    @cached_property
    def outbox(self) -> Outbox:
        """What people are told."""
        return Outbox(self.engine)

    @cached_property
    def chronicle(self) -> Chronicle:
        """What people look back at."""
        return Chronicle(self.engine)

    @cached_property
    def file_looks(self) -> FileLooks:
        """What is known of the lake's files."""
        return FileLooks(self.engine)

    @cached_property
    def operations(self) -> Operations:
        """What persons did to models by hand."""
        return Operations(self.engine)

    @cached_property
    def erasures(self) -> Erasures:
        """Who was erased."""
        return Erasures(self.engine)

    def require_right(self, to: Literal["INSERT", "DELETE"], table: sa.Table = decision) -> None:
        """Raises BadInput where the database's user may not add rows to a table, or take them out: asked first by what
        reaches further than the ledger, so that it is not left half done."""
        with self.engine.connect() as connection:
            if not connection.scalar(sa.select(sa.func.has_table_privilege(table.name, to))):
                raise postgres.may_not(self.engine.url.username, f"permission denied for table {table.name}")

    def verify(self, head: str | None = None) -> ChainState:
        """What the chain says of all that was decided (`chain.verify`)."""
        with self.engine.begin() as connection:
            return chain.verify(connection, head)

    def require_untouched(self, model: str) -> None:
        """Raises CheckFailed where what the ledger says of a model is not what was put down."""
        with self.engine.begin() as connection:
            faults = chain.faults_of(connection, model)
        if faults:
            raise CheckFailed(
                f"What the ledger says of {model} is not what was put down: {listed([str(f) for f in faults], '; ')}. "
                "Nothing follows from it; tiltyard verify says all of it, and how to go on."
            )

    def touched_successions(self) -> dict[str, str]:
        """Model, or '' for each → what of its succession is not as it was put down, in a sentence."""
        with self.engine.begin() as connection:
            found = chain.faults_of_succession(connection)
        return {model: listed([str(fault) for fault in faults], "; ") for model, faults in found.items()}

    def accept_as_found(self, by: str, reason: str) -> int:
        """Take what is not as it was put down as it is, in the name of whoever has looked. Returns how many rows."""
        with self.engine.begin() as connection:
            faults = chain.verify(connection).faults
            count = chain.accept(connection, faults)
            if count:
                detail = {"by": by, "reason": reason, "faults": [str(fault) for fault in faults]}
                values = {"kind": ACCEPTED_AS_FOUND, "model": "", "night": None, "recorded_at": clock.now()}
                connection.execute(event.insert().values(**values, detail=detail))
        return count

    # -- work ---------------------------------------------------------------------------------

    def claim(self, key: str) -> Fence:
        """Claim a piece of work; every earlier claim on it is outdated from now on."""
        return claim(self.engine, key)

    def playing(self, models: Collection[str]) -> AbstractContextManager[None]:
        """Have these models to oneself for a hindcast. Raises BadInput when another one has them."""
        return playing(self.engine, models)

    def played(self, models: Collection[str]) -> set[str]:
        """Those of the models that a hindcast has to itself at this moment."""
        return played(self.engine, models)

    def require_unplayed(self, models: Collection[str]) -> None:
        """Raises BadInput when a hindcast has one of these models to itself at this moment."""
        if taken := self.played(models):
            raise BadInput(f"A hindcast plays {listed(sorted(taken))} at this moment; wait until it has ended.")

    def record_stage(self, model: str, night: date, status: Status, summary: Summary) -> None:
        """Say how an attempt of a stage went, in place of what the attempt before it said."""
        body = summary.to_json()
        self._upsert(stage_run, stage=summary.stage, model=model, night=night, status=status, summary=body)

    def record_bad_end(self, model: str, night: date, status: Status, summary: Summary) -> None:
        """Say how an attempt of a stage ended that did not end well, unless the night is done by then."""
        values = {"stage": summary.stage, "model": model, "night": night, "status": status}
        insert = pg.insert(stage_run).values(**values, summary=summary.to_json(), recorded_at=self._now())
        changed = {name: insert.excluded[name] for name in ("status", "summary", "recorded_at")}
        unless_done = insert.on_conflict_do_update(
            index_elements=["stage", "model", "night"], set_=changed, where=stage_run.c.status != "done"
        )
        with self.engine.begin() as connection:
            connection.execute(unless_done)

    def stage_runs(
        self, kind: type[SummaryT], model: str = "", *, until: date | None = None
    ) -> dict[date, StageRun[SummaryT]]:
        """night → how a stage went, in the order of nights. `kind` is the class of the stage's summary."""
        query = sa.select(stage_run).where(stage_run.c.stage == kind.stage, stage_run.c.model == model)
        if until is not None:
            query = query.where(stage_run.c.night <= until)
        return {row["night"]: _stage_run(kind, row) for row in self._rows(query.order_by(stage_run.c.night))}

    def stage_run(self, kind: type[SummaryT], model: str, night: date) -> StageRun[SummaryT] | None:
        """How a stage went on a night; None when it did not run."""
        where = (stage_run.c.stage == kind.stage, stage_run.c.model == model, stage_run.c.night == night)
        return self._newest_run(kind, sa.select(stage_run).where(*where))

    def last_stage_run(
        self, kind: type[SummaryT], model: str = "", before: date | None = None
    ) -> StageRun[SummaryT] | None:
        """How a stage went on its newest night, or on the newest one before a night."""
        query = sa.select(stage_run).where(stage_run.c.stage == kind.stage, stage_run.c.model == model)
        if before is not None:
            query = query.where(stage_run.c.night < before)
        return self._newest_run(kind, query.order_by(stage_run.c.night.desc()))

    def last_governed(self, model: str, before: date) -> StageRun[GovernorSummary] | None:
        """The governor's newest night before one that decided on a model: the nights of other sources may be newer."""
        query = sa.select(stage_run).where(stage_run.c.stage == GovernorSummary.stage, stage_run.c.night < before)
        query = query.where(stage_run.c.summary["actions"].has_key(model))
        return self._newest_run(GovernorSummary, query.order_by(stage_run.c.night.desc()))

    def last_end(self, stage: StageName, model: str = "", before: date | None = None) -> NightEnd | None:
        """How a stage ended on its newest night, or on the newest one before a night; without what it said, which may
        be long, or as nobody can read it any more. `model`: of features the source."""
        query = sa.select(stage_run.c.night, stage_run.c.status, stage_run.c.recorded_at)
        query = query.where(*recorded_as(stage, model))
        if before is not None:
            query = query.where(stage_run.c.night < before)
        rows = self._rows(query.order_by(stage_run.c.night.desc(), stage_run.c.model.desc()).limit(1))
        return NightEnd(**rows[0]) if rows else None

    def stage_statuses(self, stage: StageName, model: str = "") -> dict[date, Status]:
        """night → how a stage went in a word, in the order of nights. `model`: of features the source."""
        query = sa.select(stage_run.c.night, stage_run.c.status).where(*recorded_as(stage, model))
        rows = self._rows(query.order_by(stage_run.c.night, stage_run.c.model))
        return {row["night"]: row["status"] for row in rows}

    def finished(self, stage: StageName, model: str = "") -> set[date]:
        """The nights that a stage has done."""
        return {night for night, status in self.stage_statuses(stage, model).items() if status == "done"}

    def stage_status(self, stage: StageName, model: str, night: date) -> Status | None:
        """How a stage went on a night in a word; None when it did not run."""
        query = sa.select(stage_run.c.status).where(*recorded_as(stage, model), stage_run.c.night == night)
        rows = self._rows(query.order_by(stage_run.c.model.desc()).limit(1))
        return rows[0]["status"] if rows else None

    def statuses_of_night(self, stage: StageName, night: date) -> dict[str, Status]:
        """Model → how a stage went on a night in a word."""
        query = sa.select(stage_run.c.model, stage_run.c.status)
        query = query.where(stage_run.c.stage == stage, stage_run.c.night == night)
        return {row["model"]: row["status"] for row in self._rows(query)}

    def bad_ends(self, kind: type[SummaryT], first: date, last: date) -> list[StageRun[SummaryT]]:
        """How a stage went on the nights in [first, last] on which it was not done, of all models."""
        query = sa.select(stage_run).where(
            stage_run.c.stage == kind.stage, stage_run.c.night.between(first, last), stage_run.c.status != "done"
        )
        return [_stage_run(kind, row) for row in self._rows(query.order_by(stage_run.c.model, stage_run.c.night))]

    def newest_nights(self, stage: StageName, models: Collection[str]) -> dict[str, date]:
        """Model → the newest night that a stage has done for it, of those for which it has done one."""
        return self._newest_nights(stage, models, stage_run.c.status == "done")

    def newest_attempts(self, stage: StageName, models: Collection[str]) -> dict[str, date]:
        """Model → the newest night that a stage was attempted on for it, however that ended, of those that have one."""
        return self._newest_nights(stage, models, sa.true())

    def newest_before(self, stage: StageName, models: Collection[str], night: date) -> dict[str, date]:
        """The same before a night."""
        return self._newest_nights(stage, models, stage_run.c.night < night)

    def worked_on(self, since: date, until: date) -> dict[date, set[tuple[str, str]]]:
        """Night in [since, until] → (stage, source or model, or '' for all at once) of what was recorded of it."""
        query = sa.select(stage_run.c.night, stage_run.c.stage, stage_run.c.model)
        found: dict[date, set[tuple[str, str]]] = {}
        for row in self._rows(query.where(stage_run.c.night.between(since, until))):
            found.setdefault(row["night"], set()).add((row["stage"], row["model"]))
        return found

    def _newest_nights(
        self, stage: StageName, models: Collection[str], condition: sa.ColumnElement[bool]
    ) -> dict[str, date]:
        """One query for all models, which reads as many rows as there are models, not nights."""
        names = named_rows(models)
        own = (stage_run.c.stage == stage, stage_run.c.model == names.c.name, condition)
        newest = sa.select(stage_run.c.night).where(*own).order_by(stage_run.c.night.desc()).limit(1).lateral("newest")
        query = sa.select(names.c.name, newest.c.night).select_from(names.join(newest, sa.true()))
        return {row["name"]: row["night"] for row in self._rows(query)}

    def runs_since(self, kind: type[SummaryT], since: Mapping[str, date]) -> dict[str, list[StageRun[SummaryT]]]:
        """Model → how a stage went on its nights from the model's `since` on, in their order. One query."""
        runs: dict[str, list[StageRun[SummaryT]]] = {name: [] for name in since}
        if not since:
            return runs
        asked = named_dates(since)
        query = sa.select(stage_run).where(
            stage_run.c.stage == kind.stage, stage_run.c.model == asked.c.name, stage_run.c.night >= asked.c.since
        )
        for row in self._rows(query.order_by(stage_run.c.model, stage_run.c.night)):
            runs[row["model"]].append(_stage_run(kind, row))
        return runs

    def begin(self, model: str, night: date) -> None:
        """A model came into the portfolio, and takes part from this night on; it shows among its events."""
        self._insert(event, kind=ACCEPTED, model=model, night=night, detail={})

    def leave(self, model: str, night: date) -> None:
        """A model left the portfolio when this was the newest night that was settled for it."""
        self._insert(event, kind=REMOVED, model=model, night=night, detail={})

    def left_after(self, model: str) -> date | None:
        """The newest night that was settled for a model when it left the portfolio last; None where it never did."""
        rows = self._rows(
            sa.select(event.c.night)
            .where(event.c.model == model, event.c.kind == REMOVED)
            .order_by(event.c.id.desc())
            .limit(1)
        )
        return rows[0]["night"] if rows else None

    def first_nights(self, models: Collection[str]) -> dict[str, date]:
        """Model → the first night that it takes part in, of those that came later than the home's first release; the
        others go back as far as the data does. One query."""
        return {row["name"]: row["night"] for row in self._rows(first_nights(models))}

    def ends(
        self, stage: StageName, since: Mapping[str, date], until: date | None = None
    ) -> dict[str, dict[date, StageEnd]]:
        """Model → night → how a stage's last attempt ended, of the nights from the model's `since` on. One query."""
        if not since:
            return {}
        asked = named_dates(since)
        query = sa.select(stage_run.c.model, stage_run.c.night, stage_run.c.status, stage_run.c.recorded_at).where(
            stage_run.c.stage == stage, stage_run.c.model == asked.c.name, stage_run.c.night >= asked.c.since
        )
        if until is not None:
            query = query.where(stage_run.c.night <= until)
        ends: dict[str, dict[date, StageEnd]] = {name: {} for name in since}
        for row in self._rows(query.order_by(stage_run.c.model, stage_run.c.night)):
            ends[row["model"]][row["night"]] = StageEnd(row["status"], row["recorded_at"])
        return ends

    # -- features -----------------------------------------------------------------------------
    # recorded under their source; in older ledgers under '', for all of them at once

    def features_run(self, source: str, night: date) -> StageRun[FeaturesSummary] | None:
        """How the features of a source went on a night; None when they did not run."""
        query = features_runs(source).where(stage_run.c.night == night)
        return self._newest_run(FeaturesSummary, query.order_by(stage_run.c.model.desc()))

    def last_features_run(self, source: str | None, before: date) -> StageRun[FeaturesSummary] | None:
        """How the features of a source, or of any, went on the newest night before one."""
        query = features_runs(source).where(stage_run.c.night < before)
        return self._newest_run(FeaturesSummary, query.order_by(stage_run.c.night.desc(), stage_run.c.model.desc()))

    def newest_published(self, source: str | None = None) -> StageRun[FeaturesSummary] | None:
        """The features that were published last, whatever their night: of any source, or of one."""
        query = features_runs(source).where(stage_run.c.status == "done")
        snapshot = sa.cast(stage_run.c.summary["snapshot"].astext, sa.BigInteger)
        return self._newest_run(
            FeaturesSummary, query.order_by(snapshot.desc().nulls_last(), stage_run.c.recorded_at.desc())
        )

    def published_nights(self) -> set[date]:
        """The nights of which features of any source were published."""
        query = sa.select(stage_run.c.night).distinct()
        rows = self._rows(query.where(stage_run.c.stage == "features", stage_run.c.status == "done"))
        return {row["night"] for row in rows}

    # -- publication --------------------------------------------------------------------------

    def publish(
        self, states: Sequence[TableState], night: date, status: Status, summary: FeaturesSummary, source: str = ""
    ) -> None:
        """Put a night's batch of a source in service, table by table, and record how the stage went: both or neither.

        Of any other table nothing is changed.
        """
        now = self._now()
        rows = [{**vars(state), "recorded_at": now} for state in states]
        run = {"stage": summary.stage, "model": source, "night": night, "status": status, "recorded_at": now}
        with self.engine.begin() as connection:
            if rows:
                connection.execute(upserting(publication, rows))
            connection.execute(upserting(stage_run, [{**run, "summary": summary.to_json()}]))

    def withdraw(
        self,
        night: date,
        models: Collection[str],
        sources: Collection[str],
        tables: Collection[str],
        *,
        whole: bool,
        detail: Mapping[str, object],
        is_more: bool = False,
    ) -> dict[str, int]:
        """Take a night back, as far as it is of these models, sources and tables (and, `whole`, of the portfolio), and
        keep as an event what was taken, with `by` whom and for what `reason` (`detail`), which is also what orders it
        (`chain`): all or nothing. Table → number of rows. Nothing is kept where nothing was there to take, here or
        (`is_more`) elsewhere."""
        rows: dict[str, list[dict[str, Any]]] = {}
        order = {"night": night, "models": sorted(models), "requested_by": detail["by"], "reason": detail["reason"]}
        with self.engine.connect() as connection, connection.begin() as transaction:
            ordering = night_withdrawal.insert().values(**order, recorded_at=self._now())
            number: int = connection.execute(ordering.returning(night_withdrawal.c.id)).scalar_one()
            chain.take_out(connection, night_withdrawal, number)
            for name, statement in withdrawing(night, models, sources, tables, whole):
                if found := [dict(row) for row in connection.execute(statement).mappings()]:
                    rows[name] = found
            if rows or is_more:
                kept = {name: json.loads(json.dumps(found, default=str)) for name, found in rows.items()}
                values = {"kind": WITHDRAWN, "model": "", "night": night, "recorded_at": self._now()}
                connection.execute(event.insert().values(**values, detail={**detail, "taken": kept}))
            else:
                transaction.rollback()
        return {name: len(found) for name, found in rows.items()}

    def table_states(self, until: date | None = None) -> list[TableState]:
        """The newest state of every table, or the newest up to and including a night, by name."""
        return [TableState.from_json(row) for row in self._rows(newest_states(until))]

    def forget_tables(self, tables: Collection[str]) -> None:
        """Forget how tables stood that there are no more: one of the same name that comes is another one."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(publication).where(publication.c.table.in_(sorted(tables))))
            connection.execute(sa.delete(hour).where(hour.c.kind == "table", hour.c.name.in_(sorted(tables))))

    def record_hour(self, kind: HourOf, names: Collection[str], as_of: datetime, snapshot: int) -> None:
        """Say that tables were published at an hour, or that it was answered for models. No night is settled by it."""
        if names:
            with self.engine.begin() as connection:
                connection.execute(advancing(kind, names, as_of, snapshot, self._now()))

    def hours(self, kind: HourOf, names: Collection[str]) -> dict[str, HourEnd]:
        """Table, or model → its newest hour, of those that have had one. One query."""
        query = sa.select(hour).where(hour.c.kind == kind, hour.c.name.in_(sorted(names)))
        return {
            row["name"]: HourEnd(row["as_of"].astimezone(UTC), row["snapshot"], row["recorded_at"])
            for row in self._rows(query)
        }

    def moment(self) -> datetime:
        """The stamp of a build: now, by the database's clock, one for all workers, whose own may differ by minutes; and
        never before the last one."""
        return self._next_moment("build", sa.func.clock_timestamp())

    def _now(self) -> datetime:
        """When a row is recorded: now, and after every row that was recorded before, whatever the clocks say. What is
        due is told by which of two rows came later."""
        return self._next_moment("record", clock.now())

    def _next_moment(self, name: str, now: sa.ColumnElement[datetime] | datetime) -> datetime:
        with self.engine.begin() as connection:
            given: datetime = connection.execute(next_moment(name, now)).scalar_one()
        return given.astimezone(UTC)

    def newest_good(self, until: Mapping[str, date]) -> dict[str, TableState]:
        """Table → its newest state of those up to and including a night on which it was published. One query."""
        if not until:
            return {}
        asked = (
            sa.func.unnest(sa.cast(list(until), pg.ARRAY(sa.Text)), sa.cast(list(until.values()), pg.ARRAY(sa.Date)))
            .table_valued(sa.column("name", sa.Text), sa.column("until", sa.Date))
            .render_derived("asked")
        )
        query = (
            sa.select(*(column.label(column.key) for column in publication.c))
            .where(publication.c.table == asked.c.name, publication.c.night <= asked.c.until)
            .where(publication.c.state == "published")
            .distinct(publication.c.table)
            .order_by(publication.c.table, publication.c.night.desc())
        )
        return {row["table"]: TableState.from_json(row) for row in self._rows(query)}

    def publication(self) -> Publication | None:
        """What is in service; None before anything was published.

        A table that is good on its newest night stands where it was published last, whatever the night: a past night
        that is done again brings newer rows of all nights, and so does an hour since. One that is not stands where that
        night left it, or at a night before it that was published since: those that come late are not lost. In a home
        from before tables had states, all of them stand at the newest batch.
        """
        rows = [_with_hour(row) for row in self._rows(newest_states(None))]
        snapshots = [row["published_snapshot"] for row in rows if row["published_snapshot"] is not None]
        if snapshots:
            snapshot = max(snapshots)
        elif (run := self.newest_published()) is not None:
            snapshot = run.summary.snapshot
        else:
            return None
        apart = {}
        for row in rows:
            state = TableState.from_json(row)
            if state.is_published:
                state = replace(state, snapshot=row["published_snapshot"])
            elif row["published_night"] and (state.good_night is None or row["published_night"] > state.good_night):
                state = replace(state, snapshot=row["published_snapshot"], good_night=row["published_night"])
            if not state.is_published or state.snapshot != snapshot:
                apart[state.table] = state
        return Publication(snapshot=snapshot, tables=apart)

    def accept(self, accepted: AcceptedRelease) -> None:
        """Keep which specs, suites and dbt project are in force from now on."""
        body = {**accepted.to_json(), "accepted_at": accepted.accepted_at}
        with self.engine.begin() as connection:
            connection.execute(release.insert().values(**body))

    def release(self) -> AcceptedRelease | None:
        """The release in force; None before the first one, and where its row cannot be read: then the checkout is
        looked at anew."""
        with suppress(ValidationError, TypeError):
            return self._first(AcceptedRelease, sa.select(release).order_by(release.c.id.desc()))
        return None

    def releases(self) -> list[AcceptedRelease]:
        """Every release, the newest first."""
        return self._records(AcceptedRelease, sa.select(release).order_by(release.c.id.desc()))

    def unpublished(self, tables: Collection[str]) -> dict[str, set[date]]:
        """Table → the nights on which it was not good, of those tables that have such nights. One query."""
        query = sa.select(publication.c.table.label("table"), publication.c.night).where(
            publication.c.table.in_(sorted(tables)), publication.c.state != "published"
        )
        nights: dict[str, set[date]] = {}
        for row in self._rows(query):
            nights.setdefault(row["table"], set()).add(row["night"])
        return nights

    def unpublished_states(self, first: date, last: date) -> list[TableState]:
        """The states of tables that were not good on the nights in [first, last], by night and table."""
        columns = (column.label(column.key) for column in publication.c)
        query = sa.select(*columns).where(publication.c.night.between(first, last), publication.c.state != "published")
        return self._records(TableState, query.order_by(publication.c.night, publication.c.table))

    def settled_at(
        self, tables: Collection[str], nights: int, until: date | None = None
    ) -> dict[str, dict[date, datetime]]:
        """Table → night → when its state on that night was recorded, of the newest `nights` that it has, or has up to
        and including one. One query."""
        names = named_rows(tables)
        own = sa.select(publication.c.night, publication.c.recorded_at).where(publication.c.table == names.c.name)
        if until is not None:
            own = own.where(publication.c.night <= until)
        newest = own.order_by(publication.c.night.desc()).limit(nights).lateral("newest")
        query = sa.select(names.c.name, newest).select_from(names.join(newest, sa.true()))
        settled: dict[str, dict[date, datetime]] = {}
        for row in self._rows(query):
            settled.setdefault(row["name"], {})[row["night"]] = row["recorded_at"]
        return settled

    # -- versions and roles -------------------------------------------------------------------

    def add_version(self, trained: Version) -> None:
        """Record a version that was registered. Raises sqlalchemy.exc.IntegrityError for a number that is taken."""
        self._insert(version, **_columns(trained))

    def versions(self, model: str) -> list[Version]:
        """Every version of the model, by number."""
        return self._records(Version, sa.select(version).where(version.c.model == model).order_by(version.c.version))

    def version(self, model: str, number: int) -> Version | None:
        """A version; None when there is none of this number."""
        query = sa.select(version).where(version.c.model == model, version.c.version == number)
        return self._first(Version, query)

    def bounded(self, spec: Spec) -> Spec:
        """The spec with the bounds that the first version of its label has learned, of a number whose bounds it does
        not say; itself where it says them, and before any version.

        They stay what they are, whatever is trained later: evidence is summed on their scale. Of a label that has
        changed since and was not trained on, those of the newest version hold.
        """
        if spec.target.is_learned:
            return spec
        learned = [(entry.facts.label, entry.facts.bounds) for entry in self.versions(spec.name)]
        known = [(label, bounds) for label, bounds in learned if bounds]
        own = [bounds for label, bounds in known if label == spec.label.digest]
        of_another = [bounds for _, bounds in known[-1:]]
        return spec.bounded([*own, *of_another][0]) if known else spec

    def version_of_inputs(self, model: str, inputs: str) -> Version | None:
        """The version that was made of these inputs; None when there is none."""
        return self._first(Version, sa.select(version).where(version.c.model == model, version.c.inputs == inputs))

    def roles(self, model: str, night: date) -> Roles:
        """Roles in force while `night` is scored and judged: decided on strictly earlier nights. See `cast`."""
        return self.roles_of({model: night})[model]

    def roles_of(self, nights: Mapping[str, date]) -> dict[str, Roles]:
        """Model → `roles` in force at its night. As many queries for many models as for one."""
        if not nights:
            return {}
        models = sorted(nights)
        trained: dict[str, dict[int, date]] = {model: {} for model in models}
        query = sa.select(version.c.model, version.c.version, version.c.night).where(version.c.model.in_(models))
        for row in self._rows(query.order_by(version.c.version)):
            trained[row["model"]][row["version"]] = row["night"]
        changed = self.changes_of(models)
        passed: dict[str, set[int]] = {model: set() for model in models}
        query = sa.select(decision.c.model, decision.c.challenger, decision.c.night)
        for row in self._rows(query.where(decision.c.model.in_(models), decision.c.verdict == "reject")):
            if row["night"] < nights[row["model"]]:
                passed[row["model"]].add(row["challenger"])
        return {model: cast(trained[model], changed[model], passed[model], nights[model]) for model in models}

    def changes(self, model: str) -> list[ChampionChange]:
        """Every promotion and rollback of the model, and what persons did to it, in the order of nights.

        What else their records keep is not read: be it damaged, it takes nobody out of service.
        """
        return self.changes_of([model])[model]

    def changes_of(self, models: Collection[str]) -> dict[str, list[ChampionChange]]:
        """Model → its `changes`. One query."""
        made, undone = promotion.c, watch.c
        own = (sa.null().label("action"), sa.literal(0).label("place"))
        promoted = sa.select(made.model, made.night, sa.false(), made.version, made.replaced, *own)
        back = sa.select(undone.model, undone.night, sa.true(), undone.champion, undone.previous, *own)
        query = sa.union_all(
            promoted.where(made.model.in_(models)),
            back.where(undone.model.in_(models), undone.verdict == "rollback"),
            self._operated().where(operation.c.model.in_(models)),
        )
        steps: dict[str, list[ChampionStep]] = {model: [] for model in models}
        with reading.connection(self.engine) as connection:
            for model, *step in connection.execute(query):
                steps[str(model)].append(ChampionStep._make(step))
        return {model: succession(own) for model, own in steps.items()}

    def _operated(self) -> sa.Select[Any]:
        """What persons did that put somebody in service, as steps of a succession, numbered in their order."""
        asked, end = operation.c, operation_end.c
        place = sa.func.row_number().over(order_by=(end.decided_at, asked.id))
        steps = sa.select(
            asked.model, end.night, sa.false(), asked.version, asked.before, asked.action, sa.cast(place, sa.Integer)
        )
        joined = steps.join_from(operation, operation_end, asked.id == end.id)
        return joined.where(end.outcome == "done", asked.action.in_(sorted(CHANGING)))

    def tide(self) -> str:
        """Changes whenever something does that decides who is in service: asked often, costs one query."""
        counted = [sa.select(sa.func.count()).select_from(t).scalar_subquery() for t in (version, promotion, decision)]
        undone = sa.select(sa.func.count()).where(watch.c.verdict == "rollback").scalar_subquery()
        by_hand = sa.select(sa.func.count()).select_from(operation_end).scalar_subquery()
        erased = sa.select(sa.func.count()).select_from(erasure).scalar_subquery()
        features = sa.select(sa.func.max(stage_run.c.recorded_at)).where(
            stage_run.c.stage == "features", stage_run.c.status == "done"
        )
        with reading.connection(self.engine) as connection:
            return str(
                connection.execute(sa.select(*counted, undone, by_hand, erased, features.scalar_subquery())).one()
            )

    # -- decisions ----------------------------------------------------------------------------

    def add_decision(self, verdict: Decision) -> Decision:
        """Record a verdict once per (model, night, challenger); a rerun gets the first one back."""
        with self.engine.begin() as connection:
            values = _columns(verdict) | {"recorded_at": self._now()}
            connection.execute(pg.insert(decision).values(**values).on_conflict_do_nothing())
        return self.decision(verdict.model, verdict.night, verdict.challenger)

    def decision(self, model: str, night: date, challenger: int) -> Decision:
        """The verdict on a challenger on a night. Raises LookupError when there is none."""
        where = (decision.c.model == model, decision.c.night == night, decision.c.challenger == challenger)
        return self._records(Decision, sa.select(decision).where(*where))[0]

    def decisions(self, model: str, until: date | None = None, *, since: date | None = None) -> list[Decision]:
        """The verdicts on a model's challengers, by night and challenger; up to and from a night on, where given."""
        query = sa.select(decision).where(decision.c.model == model)
        if since is not None:
            query = query.where(decision.c.night >= since)
        if until is not None:
            query = query.where(decision.c.night <= until)
        return self._records(Decision, query.order_by(decision.c.night, decision.c.challenger))

    def open_proposals(self, models: Collection[str], since: datetime) -> dict[str, list[Decision]]:
        """Model → what the gate said may be promoted since an instant, on nights that are not closed: a person is
        asked. Of the models that have any. One query."""
        closed = sa.select(stage_run.c.night).where(
            stage_run.c.stage == "promotion", stage_run.c.status == "done",
            stage_run.c.model == decision.c.model, stage_run.c.night == decision.c.night,
        )  # fmt: skip
        query = sa.select(decision).where(
            decision.c.model.in_(models), decision.c.verdict == "promote", decision.c.recorded_at >= since,
            ~closed.exists(),
        )  # fmt: skip
        found: dict[str, list[Decision]] = {}
        for own in self._records(Decision, query.order_by(decision.c.night, decision.c.challenger)):
            found.setdefault(own.model, []).append(own)
        return found

    def nights_judged(self, model: str, first: date, last: date) -> list[date]:
        """The nights in [first, last] of every verdict on a challenger of the model: one on which two were judged is
        there twice."""
        query = sa.select(decision.c.night).where(decision.c.model == model, decision.c.night.between(first, last))
        return [row["night"] for row in self._rows(query)]

    def rejected(self, model: str, before: date) -> set[int]:
        """The model's versions that the gate has rejected on a night before this one."""
        query = sa.select(decision.c.challenger).where(
            decision.c.model == model, decision.c.night < before, decision.c.verdict == "reject"
        )
        return {row["challenger"] for row in self._rows(query)}

    def models(self) -> set[str]:
        """Every model that has a record of a stage, a version or a decision."""
        recorded = sa.select(stage_run.c.model).where(stage_run.c.stage != "features")  # those are sources
        named = (recorded, *(sa.select(table.c.model) for table in (version, decision)))
        with reading.connection(self.engine) as connection:
            rows = connection.execute(sa.union(*named)).all()
        return {str(model) for (model,) in rows if model}

    def proposed(self, nights: Mapping[str, Collection[date]]) -> dict[str, set[date]]:
        """Model → those of its `nights` on which the gate said promote, of the models that have one. One query."""
        pairs = [(model, night) for model, own in nights.items() for night in own]
        if not pairs:
            return {}
        query = sa.select(decision.c.model, decision.c.night).where(
            sa.tuple_(decision.c.model, decision.c.night).in_(pairs), decision.c.verdict == "promote"
        )
        proposed: dict[str, set[date]] = {}
        for row in self._rows(query):
            proposed.setdefault(row["model"], set()).add(row["night"])
        return proposed

    def changed(self, nights: Mapping[str, Collection[date]]) -> dict[str, set[date]]:
        """Model → those of its `nights` that changed the champion, of the models that have one. One query."""
        pairs = [(model, night) for model, own in nights.items() for night in own]
        if not pairs:
            return {}
        of_promotions = sa.select(promotion.c.model, promotion.c.night).where(
            sa.tuple_(promotion.c.model, promotion.c.night).in_(pairs)
        )
        of_rollbacks = sa.select(watch.c.model, watch.c.night).where(
            sa.tuple_(watch.c.model, watch.c.night).in_(pairs), watch.c.verdict == "rollback"
        )
        changed: dict[str, set[date]] = {}
        with reading.connection(self.engine) as connection:
            for row in connection.execute(sa.union(of_promotions, of_rollbacks)):
                changed.setdefault(str(row.model), set()).add(row.night)
        return changed

    def claim_promotion(self, claimed: Promotion) -> bool:
        """True for exactly one caller per (model, version) and per (model, night), and for none once that night, or
        a later one, has rolled back, or a person holds the model or has changed its champion since."""
        values = _columns(claimed) | {"recorded_at": self._now()}
        statement = pg.insert(promotion).values(**values).on_conflict_do_nothing().returning(promotion.c.version)
        undone = sa.select(watch.c.night).where(
            watch.c.model == claimed.model, watch.c.night >= claimed.night, watch.c.verdict == "rollback"
        )
        with changing(self.engine, claimed.model) as connection:
            if connection.scalar(undone) is not None or self.operations.hindrance(
                claimed.model, claimed.night, connection
            ):
                return False
            return connection.scalar(statement) is not None

    def promotions(self, model: str, until: date | None = None) -> list[Promotion]:
        """The model's promotions, in the order of nights."""
        query = sa.select(promotion).where(promotion.c.model == model)
        if until is not None:
            query = query.where(promotion.c.night <= until)
        return self._records(Promotion, query.order_by(promotion.c.night))

    def add_watch(self, watched: Watch) -> Watch | None:
        """Record what the rollback watch of a night says, once; a rerun gets the first record back.

        None, with nothing recorded, for a rollback that may not be: the night or a later one has promoted, the version
        was sent back on another night, or a person holds the model or has changed its champion since.
        """
        values = _columns(watched) | {"recorded_at": self._now()}
        promoted = sa.select(promotion.c.night).where(
            promotion.c.model == watched.model, promotion.c.night >= watched.night
        )
        with changing(self.engine, watched.model) as connection:
            if watched.verdict == "rollback" and (
                connection.scalar(promoted) is not None
                or self.operations.hindrance(watched.model, watched.night, connection)
            ):
                return None
            statement = pg.insert(watch).values(**values).on_conflict_do_nothing().returning(watch.c.night)
            is_new = connection.scalar(statement) is not None
            if is_new and watched.verdict == "rollback":  # in the same transaction: once, whoever dies after it
                detail = {"version": watched.champion, "back": watched.previous}
                entry = {name: values[name] for name in ("model", "night", "recorded_at")}
                connection.execute(event.insert().values(kind="rolled_back", detail=detail, **entry))
        records = self.watches(watched.model, night=watched.night)
        return records[0] if records else None

    def watches(
        self,
        model: str,
        until: date | None = None,
        *,
        since: date | None = None,
        night: date | None = None,
        verdict: str | None = None,
    ) -> list[Watch]:
        """What the rollback watch has said of the model, in the order of nights."""
        query = sa.select(watch).where(watch.c.model == model)
        if since is not None:
            query = query.where(watch.c.night >= since)
        if until is not None:
            query = query.where(watch.c.night <= until)
        if night is not None:
            query = query.where(watch.c.night == night)
        if verdict is not None:
            query = query.where(watch.c.verdict == verdict)
        return self._records(Watch, query.order_by(watch.c.night))

    # -- retrains, findings and incidents -----------------------------------------------------

    def request_retrain(self, model: str, night: date, reasons: Sequence[str]) -> None:
        """Ask for a retrain. Asked again on the same night, the newer reasons count."""
        self._upsert(retrain, model=model, night=night, reasons=list(reasons))

    def retrains(
        self, model: str | None = None, until: date | None = None, *, since: date | None = None
    ) -> list[Retrain]:
        """The retrains that were granted, of one model or of all, in the order of nights."""
        query = sa.select(retrain)
        if since is not None:
            query = query.where(retrain.c.night >= since)
        if model is not None:
            query = query.where(retrain.c.model == model)
        if until is not None:
            query = query.where(retrain.c.night <= until)
        return self._records(Retrain, query.order_by(retrain.c.night))

    def add_finding(self, drift_finding: Finding) -> None:
        """Record what drift knows of a model on a night, in place of what it knew before."""
        values = {"model": drift_finding.model, "night": drift_finding.night, "body": drift_finding.to_json()}
        self._upsert(finding, **values)

    def finding(self, model: str, night: date) -> Finding | None:
        """What drift knows of a model on a night; None when it has not looked, or as an older version wrote it."""
        rows = self._rows(sa.select(finding.c.body).where(finding.c.model == model, finding.c.night == night))
        with suppress(ValidationError, TypeError):
            return Finding.from_json(rows[0]["body"]) if rows else None
        return None

    def findings(self, first: date, last: date | None = None) -> list[Finding]:
        """The findings of a night, or of the nights from `first` to `last`, by night and model.

        One that cannot be read any more, as an older version wrote it, is none: its model waits to be looked at.
        """
        query = sa.select(finding.c.body).where(finding.c.night.between(first, last or first))
        findings = []
        for row in self._rows(query.order_by(finding.c.night, finding.c.model)):
            with suppress(ValidationError, TypeError):
                findings.append(Finding.from_json(row["body"]))
        return findings

    def looked_at(self, night: date) -> set[str]:
        """The models that have a finding of a night."""
        return {row["model"] for row in self._rows(sa.select(finding.c.model).where(finding.c.night == night))}

    def set_incidents(self, night: date, incidents: Sequence[Incident]) -> None:
        """The portfolio's incidents of a night, in place of those that it had."""
        values = [
            {**_columns(open_incident), "night": night, "recorded_at": self._now()} for open_incident in incidents
        ]
        with self.engine.begin() as connection:
            connection.execute(incident.delete().where(incident.c.night == night))
            if values:
                connection.execute(incident.insert(), values)

    def incidents(self, night: date) -> tuple[Incident, ...]:
        """The portfolio's incidents that were open on a night, by node."""
        query = sa.select(incident).where(incident.c.night == night).order_by(incident.c.node, incident.c.kind)
        return tuple(self._records(Incident, query))

    # -- questions and events -----------------------------------------------------------------

    def open_default_task(self, task: DefaultTask) -> bool:
        """Ask a person why a model is on its safe default. True for exactly one caller per (model, night)."""
        values = {"opened": task.opened, "since": task.since, "repeats": task.repeats, "facts": dict(task.facts)}
        return self._once(default_task, model=task.model, **values)

    def answer_default_task(self, model: str, opened: date, explanation: Explanation) -> bool:
        """A person has answered a question. True for the first answer."""
        return self._once(default_task_end, model=model, opened=opened, how="answered", **_columns(explanation))

    def recover_default_task(self, model: str, opened: date, night: date) -> bool:
        """The model has left its safe default. True for the first night that saw it."""
        return self._once(default_task_end, model=model, opened=opened, how="recovered", night=night)

    def default_tasks(self, model: str | None = None) -> list[DefaultTask]:
        """Every question, in the order in which they were asked, with what became of it."""
        tasks, ends = sa.select(default_task), sa.select(default_task_end)
        if model is not None:
            tasks = tasks.where(default_task.c.model == model)
            ends = ends.where(default_task_end.c.model == model)
        ended: dict[tuple[str, date], dict[str, Record]] = {}
        for row in self._rows(ends):
            end = ended.setdefault((row["model"], row["opened"]), {})
            if row["how"] == "answered":
                end["explanation"] = Explanation.from_json(row)
            else:
                end["recovery"] = Recovery.from_json(row)
        rows = self._rows(tasks.order_by(default_task.c.opened, default_task.c.model))
        return [DefaultTask.from_json(row | ended.get((row["model"], row["opened"]), {})) for row in rows]

    def add_event(self, kind: str, model: str, night: date | None, detail: Mapping[str, object]) -> None:
        """Something a person should find later: a forged approval, a fenced attempt, an alias moved by hand."""
        self._insert(event, kind=kind, model=model, night=night, detail=dict(detail))

    def events(self, model: str | None = None, kind: str | None = None, since: date | None = None) -> list[Event]:
        """Everything that was put down for a person to find, in the order in which it happened. `since`: the first
        night of which they are."""
        query = sa.select(event).order_by(event.c.id)
        if since is not None:
            query = query.where(event.c.night >= since)
        if model is not None:
            query = query.where(event.c.model == model)
        if kind is not None:
            query = query.where(event.c.kind == kind)
        return self._records(Event, query)

    def newest_events(self, since: Mapping[str, date], kinds: Sequence[str]) -> list[Event]:
        """Of these kinds the newest event of each model and night, from the model's night in `since` on, by model and
        night."""
        if not since:
            return []
        begins = sa.or_(*(sa.and_(event.c.model == model, event.c.night >= night) for model, night in since.items()))
        query = (
            sa.select(event)
            .distinct(event.c.model, event.c.night)
            .where(event.c.kind.in_(kinds), begins)
            .order_by(event.c.model, event.c.night, event.c.id.desc())
        )
        return self._records(Event, query)

    # -- what refers to the lake --------------------------------------------------------------

    def publications(self) -> dict[date, set[int]]:
        """night → the lake's snapshots whose features were judged, and published unless a check stopped them; and those
        at which a table was published that a later judgement of the night has left as it was."""
        number = sa.cast(stage_run.c.summary["snapshot"].astext, sa.BigInteger)
        query = sa.select(stage_run.c.night, number.label("snapshot")).where(stage_run.c.stage == "features")
        snapshots: dict[date, set[int]] = {}
        tables = sa.select(publication.c.night, publication.c.snapshot).where(publication.c.state == "published")
        for row in (*self._rows(query), *self._rows(tables.distinct())):
            if row["snapshot"]:
                snapshots.setdefault(row["night"], set()).add(row["snapshot"])
        return snapshots

    def trained_snapshots(self) -> set[int]:
        """The lake's snapshots that frames of registered versions were read from."""
        number = sa.cast(version.c.facts["snapshot"].astext, sa.BigInteger)
        rows = self._rows(sa.select(number.label("snapshot")).distinct())
        return {row["snapshot"] for row in rows if row["snapshot"]}

    def nights_decided(self) -> set[date]:
        """The nights on which anything was decided, approved, promoted or sent back, of any model."""
        tables = (decision, promotion, watch)
        return {row["night"] for table in tables for row in self._rows(sa.select(table.c.night).distinct())}

    def incident_since(self) -> date | None:
        """The night on which the oldest of the portfolio's open incidents opened; None when none is open."""
        newest = sa.select(sa.func.max(stage_run.c.night)).where(stage_run.c.stage == "governor").scalar_subquery()
        query = sa.select(sa.func.min(incident.c.since)).where(incident.c.night == newest)
        with reading.connection(self.engine) as connection:
            since: date | None = connection.scalar(query)
        return since

    # -- plumbing -----------------------------------------------------------------------------

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with reading.connection(self.engine) as connection:
            found = connection.execute(query)
            names = tuple(found.keys())  # once: asked of each row, they cost more than the row
            return [dict(zip(names, row, strict=True)) for row in found]

    def _records(self, kind: type[RecordT], query: sa.Select[Any]) -> list[RecordT]:
        return [kind.from_json(row) for row in self._rows(query)]

    def _first(self, kind: type[RecordT], query: sa.Select[Any]) -> RecordT | None:
        return next(iter(self._records(kind, query.limit(1))), None)

    def _newest_run(self, kind: type[SummaryT], query: sa.Select[Any]) -> StageRun[SummaryT] | None:
        rows = self._rows(query.limit(1))
        return _stage_run(kind, rows[0]) if rows else None

    def _once(self, table: sa.Table, **values: Any) -> bool:
        insert = pg.insert(table).values(recorded_at=self._now(), **values).on_conflict_do_nothing()
        with self.engine.begin() as connection:
            return connection.scalar(insert.returning(table.c.model)) is not None

    def _insert(self, table: sa.Table, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(table.insert().values(recorded_at=self._now(), **values))

    def _upsert(self, table: sa.Table, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(upserting(table, [{**values, "recorded_at": self._now()}]))


def _with_hour(row: dict[str, Any]) -> dict[str, Any]:
    """The newest state of a table, as it stands since its newest hour. What its night has held no hour lets go."""
    if row["state"] != "published" or (row["hour_snapshot"] or 0) <= (row["published_snapshot"] or 0):
        return row
    return {**row, "published_snapshot": row["hour_snapshot"]}


def _lacking(connection: sa.Connection) -> list[sa.Column[Any]]:
    """The columns that a home from before them has not."""
    query = sa.text(
        "select table_name, column_name from information_schema.columns where table_schema = current_schema()"
    )
    there = {tuple(row) for row in connection.execute(query)}
    return [column for column in ADDED_LATER if (column.table.name, column.name) not in there]


def _columns(record: Record) -> dict[str, object]:
    """The record's fields as PostgreSQL takes them: dates and instants as they are, what is nested as JSON."""
    body = record.to_json()
    columns: dict[str, object] = {}
    for field in fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        columns[field.name] = value if isinstance(value, date) else body.get(field.name)
    columns.pop("recorded_at", None)
    return columns


def _stage_run(kind: type[SummaryT], row: Mapping[str, Any]) -> StageRun[SummaryT]:
    return StageRun(**{**row, "summary": kind.from_json(row["summary"])})
