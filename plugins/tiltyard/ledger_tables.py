"""The tables of the decisions database, the longer statements over them, and what their JSON may hold.

Only `ledger`, `fence`, `outbox`, `accounts`, `operations` and `chronicle` read and write them.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tiltyard import clock
from tiltyard.stages import OF_A_NIGHT, StageName

_UNSTORABLE = re.compile(r"\\u(0000|d[89a-f])")
"""A NUL or a surrogate, as `json.dumps` writes them; half of those that it matches are harmless."""

ACCEPTED = "model_accepted"
"""Kind of the event of a model that came into the portfolio; its night is the first one that it takes part in."""
REMOVED = "model_removed"
"""Kind of the event of a model that left the portfolio; its night is the newest one that was settled for it by then."""
WITHDRAWN = "night_withdrawn"
"""Kind of the event of a night that was taken back, with all that the ledger said of it."""
ACCEPTED_AS_FOUND = "ledger_accepted_as_found"
"""Kind of the event of rows that were not as they were put down, and that a person has accepted as they were."""

metadata = sa.MetaData()
_json = pg.JSONB
_instant = sa.DateTime(timezone=True)

moment = sa.Table(
    "moment",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # record | build
    sa.Column("at", _instant, nullable=False),  # the last one that was given out
)
fence = sa.Table(
    "fence",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("token", sa.BigInteger, nullable=False),
)
stage_run = sa.Table(
    "stage_run",
    metadata,
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),  # of features the source; '' for a stage of the portfolio
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),  # done | stopped | failed
    sa.Column("summary", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
publication = sa.Table(
    "publication",
    metadata,
    sa.Column("table_name", sa.Text, primary_key=True, key="table"),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),  # published | held | failed | blocked | late
    sa.Column("snapshot", sa.BigInteger),  # at which it was last good; NULL: never
    sa.Column("good_night", sa.Date),  # on which it was
    sa.Column("since", sa.Date),
    sa.Column("reason", sa.Text),
    sa.Column("cause", sa.Text),
    sa.Column("recorded_at", _instant, nullable=False),
)
sa.Index(
    "last_good_of_table",
    publication.c.table,
    publication.c.snapshot.desc(),
    postgresql_where=publication.c.state == "published",
)
hour = sa.Table(
    "hour",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),  # table | model
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("as_of", _instant, nullable=False),  # the newest hour that a table was published at, or a model answered
    sa.Column("snapshot", sa.BigInteger, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
sa.Index("night_of_publication", publication.c.night)
sa.Index("unpublished_of_table", publication.c.table, postgresql_where=publication.c.state != "published")
release = sa.Table(
    "release",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("checkout", sa.Text, nullable=False),
    sa.Column("accepted_at", _instant, nullable=False),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("refused", _json, nullable=False),  # records.RefusedText
    sa.Column("released_by", sa.Text),  # NULL: from before it was kept
    sa.Column("changed", _json),  # files, and of models their folder
)
ADDED_LATER = (release.c.released_by, release.c.changed)
"""Columns that a home from before them gets when it is opened."""
version = sa.Table(
    "version",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("night", sa.Date, nullable=False),  # trained as of
    sa.Column("inputs", sa.Text, nullable=False),  # digest of frame, spec and seed: same inputs, same version
    sa.Column("run_id", sa.Text, nullable=False),  # MLflow
    sa.Column("digests", _json, nullable=False),  # file → sha256
    sa.Column("facts", _json, nullable=False),  # frame, snapshot, spec digest, git commit, metrics, reason
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
decision = sa.Table(
    "decision",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("challenger", sa.Integer, primary_key=True),
    sa.Column("champion", sa.Integer),  # NULL: against the safe default
    sa.Column("verdict", sa.Text, nullable=False),  # promote | hold | reject
    sa.Column("reasons", _json, nullable=False),
    sa.Column("evidence", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
promotion = sa.Table(
    "promotion",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("night", sa.Date, nullable=False),
    sa.Column("replaced", sa.Integer),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("approved_by", sa.Text),  # NULL: the tier needs no person
    sa.Column("approval", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
    sa.UniqueConstraint("model", "night", name="one_promotion_per_night"),
)
watch = sa.Table(
    "watch",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("champion", sa.Integer, nullable=False),  # the one that was promoted, and is watched
    sa.Column("previous", sa.Integer),  # NULL: it replaced the safe default
    sa.Column("verdict", sa.Text, nullable=False),  # keep | rollback
    sa.Column("reasons", _json, nullable=False),
    sa.Column("evidence", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
sa.Index(
    "one_rollback_per_version",
    watch.c.model,
    watch.c.champion,
    unique=True,
    postgresql_where=watch.c.verdict == "rollback",
)
retrain = sa.Table(
    "retrain",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("reasons", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
finding = sa.Table(
    "finding",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("body", _json, nullable=False),  # records.Finding
    sa.Column("recorded_at", _instant, nullable=False),
)
incident = sa.Table(
    "incident",
    metadata,
    sa.Column("night", sa.Date, primary_key=True),  # a row for every night on which it was open
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),  # broken | missing | shared_shift
    sa.Column("since", sa.Date, nullable=False),
    sa.Column("models", _json, nullable=False),
    sa.Column("columns", _json, nullable=False),
    sa.Column("said", sa.Text, nullable=False, key="reason"),
    sa.Column("recorded_at", _instant, nullable=False),
)
event = sa.Table(
    "event",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("night", sa.Date),
    sa.Column("detail", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
sa.Index("bad_ends", stage_run.c.stage, stage_run.c.night, postgresql_where=stage_run.c.status != "done")
sa.Index("nights_of_stage", stage_run.c.stage, stage_run.c.night)
sa.Index("rejections", decision.c.model, postgresql_where=decision.c.verdict == "reject")
sa.Index("findings_of_night", finding.c.night)
sa.Index("events_of_model", event.c.model, event.c.kind)
sa.Index("events_of_kind", event.c.kind)
lake_file = sa.Table(
    "lake_file",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # of the file: it is never written twice
    sa.Column("table_name", sa.Text, nullable=False, key="table"),
    sa.Column("sha256", sa.Text),  # of the file when it was first looked at; NULL: it was never found sound
    sa.Column("looked_at", _instant, nullable=False),
    sa.Column("damage", sa.Text),  # what is wrong with it; NULL: nothing
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("found_at", _instant),  # when it was first found damaged; NULL: it is sound
)
sa.Index("damaged_files", lake_file.c.name, postgresql_where=lake_file.c.damage.is_not(None))
default_task = sa.Table(
    "default_task",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("opened", sa.Date, primary_key=True),  # the night whose audit asked
    sa.Column("since", sa.Date, nullable=False),  # the first night on the safe default
    sa.Column("repeats", sa.Date),  # NULL: asked for the first time; else when the answer was asked for that ran out
    sa.Column("said", _json, nullable=False, key="facts"),  # nights, share and reasons when it was opened
    sa.Column("recorded_at", _instant, nullable=False),
)
default_task_end = sa.Table(
    "default_task_end",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("opened", sa.Date, primary_key=True),
    sa.Column("how", sa.Text, primary_key=True),  # answered | recovered
    sa.Column("night", sa.Date, nullable=False),  # the newest audited night when it ended
    sa.Column("cause", sa.Text),
    sa.Column("owner", sa.Text),
    sa.Column("until", sa.Date),
    sa.Column("answered_by", sa.Text),
    sa.Column("source", sa.Text),  # airflow | command line
    sa.Column("answered_at", _instant),
    sa.Column("recorded_at", _instant, nullable=False),
)
night_document = sa.Table(
    "night_document",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),  # model | source
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("body", _json, nullable=False),  # judge.night_figures, prepare.source_figures: a part per stage
    sa.Column("recorded_at", _instant, nullable=False),
)
operation = sa.Table(
    "operation",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),  # rollback | freeze | unfreeze | pin | unpin | retire | unretire
    sa.Column("version", sa.Integer),  # in service by it; NULL: the safe default, or nobody else
    sa.Column("before", sa.Integer),  # the champion then; NULL: the safe default
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),  # airflow | command line
    sa.Column("requested_at", _instant, nullable=False),
    sa.Column("until", _instant),  # NULL: one person is enough
)
sa.Index("operations_of_model", operation.c.model)
operation_end = sa.Table(
    "operation_end",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),  # of the operation
    sa.Column("outcome", sa.Text, nullable=False),  # done | refused
    sa.Column("night", sa.Date),  # after which it holds; NULL: refused
    sa.Column("decided_by", sa.Text),  # NULL: one person was enough
    sa.Column("decided_at", _instant, nullable=False),
    sa.Column("answer", sa.Text),
)
message = sa.Table(
    "message",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("fact", _json, nullable=False),  # records.Fact
    sa.Column("weight", sa.Text, nullable=False),  # waits | page | digest
    sa.Column("opened_at", _instant, nullable=False),
    sa.Column("weighed_at", _instant),
    sa.Column("reminders", sa.Integer, nullable=False),
    sa.Column("ended_at", _instant),  # NULL: it stands
    sa.Column("needed", sa.Boolean),
    sa.Column("judged_by", sa.Text),
)
sa.Index(
    "one_message_while_it_stands",
    message.c.kind,
    message.c.subject,
    message.c.owner,
    unique=True,
    postgresql_where=message.c.ended_at.is_(None),
)
sa.Index("pages", message.c.weighed_at, postgresql_where=message.c.weight == "page")
sending = sa.Table(
    "sending",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("message", sa.BigInteger),  # NULL: a digest, or a test
    sa.Column("occasion", sa.Text, nullable=False),  # begun | reminder | ended | digest | test
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("to", sa.Text, nullable=False),  # the name of an address, never the address
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", _instant, nullable=False),
    sa.Column("sent_at", _instant),  # NULL: nobody has taken it yet
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
)
sa.Index("unsent", sending.c.id, postgresql_where=sending.c.sent_at.is_(None))
sa.Index("sendings_of_message", sending.c.message)
sa.Index("digests", sending.c.owner, sending.c.created_at, postgresql_where=sending.c.occasion == "digest")

cost = sa.Table(
    "cost",
    metadata,
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),  # the model; of features the source; '' for all at once
    sa.Column("cpu_s", sa.Double, nullable=False),
    sa.Column("wall_s", sa.Double, nullable=False),
    sa.Column("memory_bytes", sa.BigInteger, nullable=False),
    sa.Column("read_bytes", sa.BigInteger, nullable=False),
    sa.Column("written_bytes", sa.BigInteger, nullable=False),
    sa.Column("processes", sa.Integer, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
stored = sa.Table(
    "stored",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
worth = sa.Table(
    "worth",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("body", _json, nullable=False),  # records.ModelWorth
    sa.Column("recorded_at", _instant, nullable=False),
)

tombstone = sa.Table(
    "tombstone",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),  # tombstones.made
    sa.Column("entity", sa.Text, nullable=False),
    sa.Column("erasure", sa.BigInteger, nullable=False),
    sa.Column("key_mark", sa.Text, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
erasure = sa.Table(
    "erasure",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("entity", sa.Text, nullable=False),
    sa.Column("hashes", _json, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
erasure_end = sa.Table(
    "erasure_end",
    metadata,
    sa.Column("erasure", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("outcome", sa.Text, nullable=False),  # done | failed
    sa.Column("receipt", _json, nullable=False),  # records.Receipt
    sa.Column("recorded_at", _instant, nullable=False),
)
erasure_found = sa.Table(
    "erasure_found",  # what is not done yet, for a run that goes on; the receipt has what it came to
    metadata,
    sa.Column("erasure", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("place", sa.Text, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)

night_withdrawal = sa.Table(
    "night_withdrawal",  # what orders that rows of a night are taken out; the event has what they were
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("night", sa.Date, nullable=False),
    sa.Column("models", _json, nullable=False),  # whose rows of the night may go
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)

erasure_touched = sa.Table(
    "erasure_touched",  # what was counted with rows of theirs, and is counted without by the next build
    metadata,
    sa.Column("erasure", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("view", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("snapshot", sa.BigInteger, nullable=False),  # of the lake, before they went
)

chain = sa.Table(  # of which `chain.py` says what it is
    "chain",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 …
    sa.Column("relation", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),  # insert | delete | adopt | accept | gone
    sa.Column("key", _json, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("previous", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
    sa.Column("ordered_by", sa.Text),  # table and number of what orders a delete; NULL: no delete, or from before
)
sa.Index("entries_of_row", chain.c.relation, chain.c.key)
sa.Index("entries_of_model", chain.c.relation, chain.c.key["model"].astext)
sa.Index("deletes", chain.c.relation, postgresql_where=chain.c.action == "delete")


def upserting(table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> pg.Insert:
    """The statement that writes rows, each in place of the one with its key. All of them have the same columns."""
    insert = pg.insert(table).values([dict(row) for row in rows])
    update = {table.c[name]: insert.excluded[name] for name in rows[0] if name not in table.primary_key.columns}
    return insert.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=update)


def next_moment(name: str, now: sa.ColumnElement[datetime] | datetime) -> sa.Executable:
    """The statement that gives out the next moment of a kind: now, and never one before the last. A clock that was
    ahead for a night orders nothing wrongly when it is right again."""
    insert = pg.insert(moment).values(name=name, at=now)
    after = sa.func.greatest(insert.excluded["at"], moment.c["at"] + sa.text("interval '1 microsecond'"))
    return insert.on_conflict_do_update(index_elements=[moment.c.name], set_={"at": after}).returning(moment.c["at"])


def withdrawing(
    night: date, models: Collection[str], sources: Collection[str], tables: Collection[str], whole: bool
) -> list[tuple[str, sa.Executable]]:
    """Table → the statement that takes a night back from it, which returns what it takes: of these models, of these
    sources with their tables, and, where it is the `whole` night, of the portfolio."""
    of_models = sorted(models)
    named = [sa.and_(stage_run.c.stage != "features", stage_run.c.model.in_(of_models))]
    named.append(sa.and_(stage_run.c.stage == "features", stage_run.c.model.in_(sorted(sources))))
    if whole:
        named.append(sa.and_(stage_run.c.stage != "features", stage_run.c.model == ""))
    start, end = clock.interval(clock.midnight(night))
    hours = sa.or_(
        sa.and_(hour.c.kind == "table", hour.c.name.in_(sorted(tables))),
        sa.and_(hour.c.kind == "model", hour.c.name.in_(of_models)),
    )
    asked = sa.select(default_task.c.opened).where(default_task.c.model.in_(of_models), default_task.c.opened == night)
    taken = [
        sa.delete(stage_run).where(stage_run.c.night == night, sa.or_(*named)),
        sa.delete(publication).where(publication.c.night == night, publication.c.table.in_(sorted(tables))),
        sa.delete(hour).where(hours, hour.c.as_of > start, hour.c.as_of <= end),
        sa.delete(night_document).where(
            night_document.c.night == night,
            sa.or_(
                sa.and_(night_document.c.kind == "model", night_document.c.name.in_(of_models)),
                sa.and_(night_document.c.kind == "source", night_document.c.name.in_(sorted(sources))),
            ),
        ),
        *(
            sa.delete(table).where(table.c.night == night, table.c.model.in_(of_models))
            for table in (decision, watch, retrain, finding)
        ),
        sa.delete(default_task_end).where(
            default_task_end.c.model.in_(of_models),
            sa.or_(
                sa.and_(default_task_end.c.night == night, default_task_end.c.how == "recovered"),
                default_task_end.c.opened.in_(asked),
            ),
        ),
        sa.delete(default_task).where(default_task.c.model.in_(of_models), default_task.c.opened == night),
    ]
    if whole:
        taken.append(sa.delete(incident).where(incident.c.night == night))
    payers = {*models, *sources, *([""] if whole else [])}
    taken.append(sa.delete(cost).where(cost.c.night == night, cost.c.stage.in_(OF_A_NIGHT), cost.c.name.in_(payers)))
    return [(str(statement.table), statement.returning(statement.table)) for statement in taken]


def first_nights(models: Collection[str]) -> sa.Select[Any]:
    """Per model that was accepted into a home that had a release already, its first night: the one that it was accepted
    for, or an earlier one on which it was scored since, as by a hindcast. It reads as many rows as there are models."""
    names = named_rows(models)
    accepted = (
        sa.select(event.c.night, event.c.recorded_at)
        .where(event.c.model == names.c.name, event.c.kind == ACCEPTED, event.c.night.is_not(None))
        .order_by(event.c.id.desc())
        .limit(1)
        .lateral("accepted")
    )
    scored = (
        sa.select(stage_run.c.night)
        .where(stage_run.c.stage == "shadow", stage_run.c.model == names.c.name)
        .where(stage_run.c.night < accepted.c.night, stage_run.c.recorded_at >= accepted.c.recorded_at)
        .order_by(stage_run.c.night)
        .limit(1)
        .lateral("scored")
    )
    first = sa.func.least(accepted.c.night, scored.c.night).label("night")
    joined = names.join(accepted, sa.true()).outerjoin(scored, sa.true())
    return sa.select(names.c.name, first).select_from(joined)


def recorded_as(stage: StageName, model: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Whose records of a stage these are; those of a source's features are in older ledgers those of all at once."""
    names = sorted({model, ""}) if stage == "features" else [model]
    return (stage_run.c.stage == stage, stage_run.c.model.in_(names))


def features_runs(source: str | None) -> sa.Select[Any]:
    """The records of the features of a source, and those of all at once; of any source without one."""
    query = sa.select(stage_run).where(stage_run.c.stage == "features")
    return query if source is None else query.where(stage_run.c.model.in_((source, "")))


def named_rows(names: Collection[str]) -> sa.TableValuedAlias:
    """A table with these names in its one column `name`."""
    values = sa.func.unnest(sa.cast(sorted(names), pg.ARRAY(sa.Text)))
    return values.table_valued(sa.column("name", sa.Text)).render_derived("asked")


def named_dates(dates: Mapping[str, date]) -> sa.TableValuedAlias:
    """A table with these names and dates in its columns `name` and `since`."""
    begins = sa.func.unnest(sa.cast(list(dates), pg.ARRAY(sa.Text)), sa.cast(list(dates.values()), pg.ARRAY(sa.Date)))
    return begins.table_valued(sa.column("name", sa.Text), sa.column("since", sa.Date)).render_derived("asked")


def newest_states(until: date | None) -> sa.Select[Any]:
    """Per table its newest row, with `published_snapshot` and `published_night` of the row that was published last, by
    the lake's snapshot and no clock; and `hour_snapshot` of the newest hour.

    It hops from name to name through the index, so that it reads as many rows as there are tables, not nights.
    """
    own = publication.alias()
    following = sa.select(sa.func.min(own.c.table)).where(own.c.table > sa.column("name")).scalar_subquery()
    first = sa.select(sa.func.min(publication.c.table).label("name")).cte("names", recursive=True)
    names = first.union_all(sa.select(following).select_from(first).where(first.c.name.is_not(None)))
    columns = (column.label(column.key) for column in publication.c)
    newest = sa.select(*columns).where(publication.c.table == names.c.name)
    if until is not None:
        newest = newest.where(publication.c.night <= until)
    row = newest.order_by(publication.c.night.desc()).limit(1).lateral("newest")
    good = (
        sa.select(
            own.c.snapshot.label("published_snapshot"),
            own.c.night.label("published_night"),
        )
        .where(own.c.table == names.c.name, own.c.state == "published")
        .order_by(own.c.snapshot.desc())
        .limit(1)
        .lateral("good")
    )
    of_table = sa.and_(hour.c.kind == "table", hour.c.name == names.c.name)
    joined = names.join(row, sa.true()).outerjoin(good, sa.true()).outerjoin(hour, of_table)
    return sa.select(row, good, hour.c.snapshot.label("hour_snapshot")).select_from(joined).order_by(names.c.name)


def advancing(kind: str, names: Collection[str], as_of: datetime, snapshot: int, now: datetime) -> pg.Insert:
    """The statement that says of tables or models that an hour of them is done. One that is done again is no newer."""
    rows = [{"kind": kind, "name": name, "as_of": as_of, "snapshot": snapshot} for name in sorted(names)]
    insert = pg.insert(hour).values([{**row, "recorded_at": now} for row in rows])
    newer = {name: sa.func.greatest(hour.c[name], insert.excluded[name]) for name in ("as_of", "snapshot")}
    update = {**newer, "recorded_at": insert.excluded.recorded_at}
    return insert.on_conflict_do_update(index_elements=[hour.c.kind, hour.c.name], set_=update)


def json_text(value: object) -> str:
    """JSON that PostgreSQL takes. What an error quotes may hold a NUL or half a surrogate, which a jsonb does not."""
    try:
        content = json.dumps(value, allow_nan=False)
    except ValueError:
        content = ""
    return content if content and not _UNSTORABLE.search(content) else json.dumps(_storable(value), allow_nan=False)


def storable(text: str) -> str:
    """A text with signs in place of what PostgreSQL does not hold."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _storable(value: object) -> object:
    """`value` with signs in place of what no jsonb holds, and null for a number that is not finite."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_storable(str(name)): _storable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(part) for part in value]
    return value
