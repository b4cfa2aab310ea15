"""The chain: whoever changes what was decided, whichever way, is found out.

Versions, decisions, promotions, watches, operations and explanations are only added to. Triggers refuse to change or
delete a row, unless another row orders it, and write an entry for every row that comes or goes: its digest and the hash
of the entry before, so that an entry can be neither changed, taken out nor put in without every later one. Triggers can
be switched off by whoever owns the database; then the rows do not agree with their entries any more. Whoever writes all
later entries anew is found out by a head of the chain that was kept elsewhere.

What orders that rows go says who asked and why, is guarded itself, and its entry stands before theirs. A night that is
taken back orders that decisions, watches and answers of its models go, in its own transaction alone; an erasure that a
row goes and comes again at once. And what changes who serves has to stand on what was decided (`grounds`).

The digests are PostgreSQL's own, of a row as JSON in UTC, without what is NULL. What the triggers do is held against
what stands here; nothing that verifies calls a function of the database's.

Method: Haber and Stornetta (1991), How to time-stamp a digital document, Journal of Cryptology 3:99-111.
"""

import hashlib
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from tiltyard import clock, grounds, ledger_tables
from tiltyard.errors import BadInput
from tiltyard.records.base import Record
from tiltyard.words import counted, listed

log = logging.getLogger(__name__)

GUARDED: Final = (
    ledger_tables.version, ledger_tables.decision, ledger_tables.promotion, ledger_tables.watch,
    ledger_tables.operation, ledger_tables.operation_end, ledger_tables.default_task_end,
    ledger_tables.tombstone, ledger_tables.erasure, ledger_tables.erasure_end, ledger_tables.night_withdrawal,
)  # fmt: skip
"""The tables that are only added to."""
_OF_NIGHTS = "('decision', 'watch', 'default_task_end')"
"""Those of which rows go when a night is taken back. One that has changed who serves never is."""
_OF_ERASURES = "('tombstone', 'erasure', 'erasure_end')"
"""Those that name nobody who was erased, so that no erasure writes into them."""
_OF_OPERATIONS = (ledger_tables.operation, ledger_tables.operation_end)
"""What persons did by hand: its key names no model, and only the operation says whose it is."""
_NOT_ANOTHERS = "not exists (select 1 from operation o where to_jsonb(o.id) = {key} -> 'id' and o.model <> :model)"
"""SQL of what was done by hand, by its `key`: it is not known to be another model's. One that is gone may be any's."""
UNWATCHED = "ledger_unwatched"
"""Kind of the event of triggers that were off when the ledger was opened."""
MOST = 20
"""Faults of a kind and table that are told one by one."""
_ORDERED_BY = "tiltyard.ordered_by"
"""Setting of a transaction: table and number of the row that orders its deletes, like 'erasure 3'."""
_WATCH: Final = {"tiltyard_chain": 1 + 4 + 8 + 16, "tiltyard_truncate": 2 + 32}
"""Trigger → when it fires, as `pg_trigger.tgtype` has it: after each row that is inserted, deleted or updated; before a
table is truncated."""
_EARLIER: Final = {"5231828234dac4b692f97d94282d721df2815716cd4892b38ff3f64cedde2d70"}
"""SHA-256 of what the triggers' function was in earlier versions, which had `tiltyard_chain` alone."""
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")
_DIGEST = "sha256(convert_to(jsonb_strip_nulls(to_jsonb({row}))::text, 'UTF8'))"
_HASH = (
    "sha256({previous} || convert_to(concat_ws('|', {id}::text, {relation}, {action}, {key}::text, "
    "encode({digest}, 'hex'), extract(epoch from {at})::text, {ordered_by}), 'UTF8'))"
)
"""Of an entry that nothing orders it is what it was before entries said so: `concat_ws` leaves out what is NULL."""
_FUNCTION = f"""
declare
  entry jsonb;
  ordered text[] := regexp_match(current_setting('{
    _ORDERED_BY
}', true), '^(night_withdrawal|erasure) ([0-9]{{1,18}})$');
  last record;
  own record;
begin
  if tg_op in ('UPDATE', 'TRUNCATE') then
    raise exception '% is only added to: what was decided stays as it was', tg_table_name
      using errcode = 'insufficient_privilege';
  end if;
  if tg_op = 'INSERT' then
    entry := to_jsonb(new);
    ordered := null;
  else
    entry := to_jsonb(old);
    if ordered[1] = 'night_withdrawal' and tg_table_name in {_OF_NIGHTS} then
      perform from night_withdrawal n
      where n.id = ordered[2]::bigint and n.xmin = pg_current_xact_id()::xid and n.models ? (entry ->> 'model')
        and to_jsonb(n.night) in (entry -> 'night', entry -> 'opened');
    elsif ordered[1] = 'erasure' and tg_table_name not in {_OF_ERASURES} then
      perform from erasure e
      where e.id = ordered[2]::bigint
        and not exists (select from erasure_end d where d.erasure = e.id and d.outcome = 'done');
    else
      perform where false;
    end if;
    if not found then
      raise exception '% is only added to: a night is taken back with tiltyard nights withdraw', tg_table_name
        using errcode = 'insufficient_privilege';
    end if;
  end if;
  perform pg_advisory_xact_lock(hashtext('tiltyard/chain'));
  select id, hash into last from chain order by id desc limit 1;
  select coalesce(last.id, 0) + 1 as id, tg_table_name::text as relation, lower(tg_op) as action,
    (select jsonb_object_agg(name, entry -> name) from unnest(tg_argv) as name) as key,
    sha256(convert_to(jsonb_strip_nulls(entry)::text, 'UTF8')) as digest,
    coalesce(last.hash, ''::bytea) as previous, clock_timestamp() as recorded_at,
    ordered[1] || ' ' || ordered[2] as ordered_by into own;
  insert into chain (id, relation, action, key, digest, previous, hash, recorded_at, ordered_by) values (
    own.id, own.relation, own.action, own.key, own.digest, own.previous,
    {
    _HASH.format(
        previous="own.previous",
        id="own.id",
        relation="own.relation",
        action="own.action",
        key="own.key",
        digest="own.digest",
        at="own.recorded_at",
        ordered_by="own.ordered_by",
    )
},
    own.recorded_at, own.ordered_by
  );
  return null;
end
"""
_OF_ENTRY = _HASH.format(
    previous="previous", id="id", relation="relation", action="action", key="key", digest="digest", at="recorded_at",
    ordered_by="ordered_by",
)  # fmt: skip
_BEGINS = "(select coalesce(min(id), 0) from chain where relation = 'chain' and action = 'adopt')"
"""SQL of the entry from which on every delete has to be ordered: the first one of its kind; 0 in a home that never was
without."""


@dataclass(frozen=True, kw_only=True)
class ChainFault(Record):
    """Something that is not as it was put down."""

    relation: str
    """The table; `chain` where the chain itself does not hold."""
    key: dict[str, str | int | float | None]
    """The row, or the chain's entry."""
    what: str
    """What is wrong with it, as the end of a sentence."""

    def __str__(self) -> str:
        return f"{self.relation} ({', '.join(f'{name} {value}' for name, value in self.key.items())}) {self.what}"


@dataclass(frozen=True, kw_only=True)
class ChainState(Record):
    """What the chain says of the rows that it is of."""

    entries: int
    """Number of its entries."""
    head: str | None
    """Number and hash of the newest, to be kept elsewhere; None of an empty chain."""
    begun_at: datetime | None
    """When its first entry was written; None of an empty chain."""
    adopted: int
    """Number of rows that were there before the chain was, of which it cannot tell what they were before."""
    accepted: int
    """Number of rows that a person has accepted as they were found."""
    unordered: int = 0
    """Number of rows that were taken out before the chain said what had ordered it."""
    rows: int
    """Number of rows that were held against it."""
    faults: tuple[ChainFault, ...] = ()
    """What is not as it was put down."""


def begin(connection: sa.Connection) -> None:
    """See to the triggers, and, of a ledger that has no entry yet, take its rows as they are. That they were off
    is kept as an event; that they are those of an earlier version is not."""
    is_new = not connection.scalar(sa.text("select exists (select 1 from chain)"))
    if not _faulty_guards(connection):
        return
    # a table of a newer version of ours comes without a trigger, and without a row
    tables = [] if is_new else [name for name in _switched_off(connection) if _has_rows(connection, name)]
    if tables:
        log.error("The ledger was not watched: the triggers of %s were off. They are on again.", listed(tables))
        values = {"kind": UNWATCHED, "model": "", "night": None, "detail": {"tables": tables}}
        connection.execute(ledger_tables.event.insert().values(**values, recorded_at=clock.now()))
    _take_on_orders(connection)
    connection.execute(
        sa.text(
            f"create or replace function tiltyard_chain() returns trigger language plpgsql "
            f"security definer set timezone = 'UTC' set search_path = {_schema(connection)}, pg_temp "
            f"as $tiltyard${_FUNCTION}$tiltyard$"
        )
    )
    for table in GUARDED:
        keys = ", ".join(f"'{column.name}'" for column in table.primary_key.columns)
        for name, when in (
            ("tiltyard_chain", f"after insert or update or delete on {table.name} for each row"),
            ("tiltyard_truncate", f"before truncate on {table.name} for each statement"),
        ):
            connection.execute(
                sa.text(f"create or replace trigger {name} {when} execute function tiltyard_chain({keys})")
            )
            connection.execute(sa.text(f"alter table {table.name} enable always trigger {name}"))
        if is_new:
            _append(connection, table, "adopt", "")


def _take_on_orders(connection: sa.Connection) -> None:
    """Of a chain whose entries do not say yet what ordered a delete: from here on each has to. Those that are there are
    told as what they are, and an entry says up to which."""
    if "ordered_by" in {column["name"] for column in sa.inspect(connection).get_columns("chain")}:
        return
    connection.execute(sa.text("alter table chain add column ordered_by text"))
    last = connection.scalar(sa.text("select max(id) from chain where action = 'delete'"))
    if last is not None:
        _write(connection, "chain", "adopt", {"id": last}, b"")


def _has_rows(connection: sa.Connection, table: str) -> bool:
    return bool(connection.scalar(sa.text(f"select exists (select 1 from {table})")))


def _append(connection: sa.Connection, table: sa.Table, action: str, where: str, **values: object) -> int:
    """Write an entry for each of these rows as they are now. Returns their number."""
    connection.execute(sa.text("set local timezone = 'UTC'"))
    connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('tiltyard/chain'))"))
    rows = connection.execute(
        sa.text(
            f"select {_key(table)} as key, {_DIGEST.format(row='t')} as digest from {table.name} t {where} order by 1"
        ),
        values,
    ).all()
    for row in rows:
        _write(connection, table.name, action, row.key, row.digest)
    return len(rows)


def _write(connection: sa.Connection, relation: str, action: str, key: object, digest: bytes) -> None:
    own = (
        "select coalesce((select max(id) from chain), 0) + 1 as id, cast(:relation as text) as relation, "
        "cast(:action as text) as action, cast(:key as jsonb) as key, cast(:digest as bytea) as digest, "
        "coalesce((select hash from chain order by id desc limit 1), ''::bytea) as previous, "
        "clock_timestamp() as recorded_at, cast(null as text) as ordered_by"
    )
    connection.execute(
        sa.text(
            f"with own as materialized ({own}) insert into chain "
            "(id, relation, action, key, digest, previous, hash, recorded_at) "
            f"select id, relation, action, key, digest, previous, {_OF_ENTRY}, recorded_at from own"
        ),
        {"relation": relation, "action": action, "key": ledger_tables.json_text(key), "digest": digest},
    )


def take_out(connection: sa.Connection, order: sa.Table, number: int) -> None:
    """Let the rest of this transaction delete the rows that a row of `order` orders, which the chain then says."""
    connection.execute(sa.text(f"set local {_ORDERED_BY} = '{order.name} {int(number)}'"))


def verify(connection: sa.Connection, head: str | None = None) -> ChainState:
    """Hold every row against its entry, every entry against the one before it, and, with a `head` that was kept
    elsewhere, the chain against that. Raises BadInput for what is no head."""
    connection.execute(sa.text("set local timezone = 'UTC'"))
    faults = [*_faulty_guards(connection), *_faulty_links(connection)]
    for table in GUARDED:
        faults += _faulty_rows(connection, table)
    faults += _unordered(connection, [table.name for table in GUARDED]) + _unfounded(connection)
    if head is not None:
        faults += _faulty_head(connection, head)
    row = connection.execute(
        sa.text(
            "select count(*) as entries, min(recorded_at) as begun_at, "
            "count(*) filter (where action = 'adopt' and relation <> 'chain') as adopted, "
            "count(*) filter (where action = 'accept') as accepted, "
            f"count(*) filter (where action = 'delete' and ordered_by is null and id < {_BEGINS}) as unordered, "
            "(select id || ':' || encode(hash, 'hex') from chain order by id desc limit 1) as head from chain"
        )
    ).one()
    rows = [connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in GUARDED]
    return ChainState(
        entries=row.entries, head=row.head, begun_at=row.begun_at, adopted=row.adopted, accepted=row.accepted,
        unordered=row.unordered, rows=sum(rows), faults=tuple(faults),
    )  # fmt: skip


def faults_of(connection: sa.Connection, model: str) -> list[ChainFault]:
    """What of a model's rows is not as it was put down, or changes who serves without a decision: as many rows as it
    has, and no other's. What was done by hand and is gone may have held any model, and counts for each."""
    connection.execute(sa.text("set local timezone = 'UTC'"))
    own = [table for table in GUARDED if "model" in table.c or table in _OF_OPERATIONS]
    faults = [fault for table in own for fault in _faulty_rows(connection, table, model)]
    return [*faults, *_unordered(connection, [table.name for table in own], model), *_unfounded(connection, model)]


def faults_of_succession(connection: sa.Connection) -> dict[str, list[ChainFault]]:
    """Model → what of its versions, and of what says which of them is in service, is not as it was put down or stands
    on no decision. Under '' what was done by hand and is gone: it may have held any model."""
    connection.execute(sa.text("set local timezone = 'UTC'"))
    found: dict[str, list[ChainFault]] = {}
    operation, end = ledger_tables.operation, ledger_tables.operation_end
    tables = (ledger_tables.version, ledger_tables.promotion, ledger_tables.watch, operation, end)
    faults = [fault for table in tables for fault in _faulty_rows(connection, table, most=None)]
    faults += _faulty_rows(connection, ledger_tables.decision, most=None, where=grounds.PROMOTING)
    faults += _unordered(connection, [table.name for table in tables], most=None) + _unfounded(connection, most=None)
    for fault in faults:
        model = fault.key.get("model")
        if model is None:  # of what was done by hand the operation says to whom
            model = connection.scalar(sa.select(operation.c.model).where(operation.c.id == fault.key["id"]))
            if model is None and fault.relation != operation.name:
                continue  # the end of nothing holds nobody
        found.setdefault(str(model or ""), []).append(fault)
    return found


def accept(connection: sa.Connection, faults: Collection[ChainFault]) -> int:
    """Take rows that are not as they were put down as they are, which the chain then says. Returns their number."""
    count = 0
    for table in GUARDED:
        for fault in faults:
            if fault.relation != table.name or not fault.key:
                continue
            where = " and ".join(f"to_jsonb(t) -> '{name}' = cast(:{name} as jsonb)" for name in fault.key)
            values = {name: ledger_tables.json_text(value) for name, value in fault.key.items()}
            found = _append(connection, table, "accept", f"where {where}", **values)
            if not found:
                _write(connection, table.name, "gone", fault.key, b"")
            count += 1
    return count


def _key(table: sa.Table, alias: str = "t") -> str:
    names = ", ".join(f"'{column.name}', {alias}.{column.name}" for column in table.primary_key.columns)
    return f"jsonb_build_object({names})"


def _faulty_rows(
    connection: sa.Connection, table: sa.Table, model: str | None = None, most: int | None = MOST, where: str = "true"
) -> list[ChainFault]:
    """The rows `t` of a table, of all models or of one, that are not those of their newest entries; of more than `most`
    the first, and how many more. With `where` of those that are there alone."""
    own, of_model = f"where {where}", "" if where == "true" else " and key in (select key from present)"
    if model is not None and table in _OF_OPERATIONS:
        own = "where exists (select 1 from operation o where o.id = t.id and o.model = :model)"
        is_gone = f"not exists (select 1 from {table.name} e where to_jsonb(e.id) = key -> 'id')"
        of_model = f" and (key in (select key from present) or {is_gone} and {_NOT_ANOTHERS.format(key='key')})"
    elif model is not None:
        own, of_model = "where t.model = :model", " and key ->> 'model' = :model"
    found = connection.execute(
        sa.text(
            f"""
            with present as (
                select {_key(table)} as key, {_DIGEST.format(row="t")} as digest from {table.name} t {own}
            ),
            newest as (
                select distinct on (key) key, action, digest, hash = {_OF_ENTRY} as is_whole
                from chain where relation = :relation{of_model} order by key, id desc
            )
            select coalesce(newest.key, present.key) as key,
                case
                    when present.key is null then 'is gone'
                    when newest.key is null or newest.action in ('delete', 'gone') then 'was put in by another way'
                    when not newest.is_whole then 'has an entry in the chain that was changed'
                    else 'was changed'
                end as what
            from newest full join present on newest.key = present.key
            where (present.key is null and newest.action not in ('delete', 'gone'))
                or (present.key is not null and (
                    newest.key is null or newest.action in ('delete', 'gone') or newest.digest <> present.digest
                    or not newest.is_whole
                ))
            order by 1
            """
        ),
        {"relation": table.name} | ({} if model is None else {"model": model}),
    ).all()
    return _told(table.name, [(row.key, row.what) for row in found], most)


def _unordered(
    connection: sa.Connection, tables: Collection[str], model: str | None = None, most: int | None = MOST
) -> list[ChainFault]:
    """The deletes that nothing ordered, also of rows that came again since: of the withdrawal of a night each stands
    behind its order's own entry or another one of it, and in an erasure the row comes again with the next entry. What a
    person has accepted since is not told."""
    found = connection.execute(
        sa.text(
            f"""
            select gone.relation, gone.key
            from chain gone
            left join night_withdrawal n on gone.ordered_by = 'night_withdrawal ' || n.id
            left join erasure e on gone.ordered_by = 'erasure ' || e.id
            left join chain before on before.id = gone.id - 1
            left join chain after on after.id = gone.id + 1 and after.action = 'insert'
                and after.relation = gone.relation and after.key = gone.key
            where gone.action = 'delete' and gone.relation = any(:tables)
                and (cast(:model as text) is null or gone.key ->> 'model' = :model
                    or not gone.key ? 'model' and {_NOT_ANOTHERS.format(key="gone.key")})
                and not coalesce(case
                    when n.id is not null then gone.relation in {_OF_NIGHTS} and n.models ? (gone.key ->> 'model')
                        and case
                            when gone.key ? 'night' then gone.key -> 'night' = to_jsonb(n.night)
                            else gone.key ->> 'opened' <= to_jsonb(n.night) #>> '{{}}'
                        end
                        and (before.ordered_by = gone.ordered_by or (
                            before.relation = 'night_withdrawal' and before.action = 'insert'
                            and before.key -> 'id' = to_jsonb(n.id)
                        ))
                    when e.id is not null then gone.relation not in {_OF_ERASURES} and after.id is not null
                    when gone.ordered_by is null then gone.id < {_BEGINS}
                        and (gone.relation in {_OF_NIGHTS} or after.id is not null)
                end, false)
                and not exists (
                    select 1 from chain later
                    where later.relation = gone.relation and later.key = gone.key and later.id > gone.id
                        and later.action in ('gone', 'accept')
                )
            order by 1, 2
            """
        ),
        {"tables": [*tables], "model": model},
    ).all()
    what = "was taken out, and nothing ordered it"
    return _told_of_all([(row.relation, row.key, what) for row in found], most)


def _unfounded(connection: sa.Connection, model: str | None = None, most: int | None = MOST) -> list[ChainFault]:
    """What changes who serves and stands on no decision (`grounds`)."""
    found = connection.execute(sa.text(grounds.UNFOUNDED), {"model": model}).all()
    return _told_of_all([(row.relation, row.key, row.what) for row in found], most)


def _faulty_links(connection: sa.Connection) -> list[ChainFault]:
    """The entries that do not follow the one before them."""
    found = connection.execute(
        sa.text(
            f"""
            with linked as (
                select id, row_number() over (order by id) as place, hash <> {_OF_ENTRY} as is_changed,
                    previous <> coalesce(lag(hash) over (order by id), ''::bytea) as is_loose
                from chain
            )
            select id, case when is_changed then 'was changed' else 'does not follow the one before it' end as what
            from linked where is_changed or is_loose or id <> place order by id
            """
        )
    ).all()
    return _told("chain", [({"id": row.id}, row.what) for row in found])


def _faulty_head(connection: sa.Connection, head: str) -> list[ChainFault]:
    kept = _HEAD.fullmatch(head.strip())
    if kept is None:
        raise BadInput(
            f"'{head}' is no head of the chain; it is written like 17:9f86d0…, as tiltyard verify prints it."
        )
    found = connection.scalar(sa.text("select encode(hash, 'hex') from chain where id = :id"), {"id": int(kept[1])})
    if found == kept[2]:
        return []
    what = (
        "is gone, and was there when its head was kept"
        if found is None
        else "is another one than when its head was kept"
    )
    return [ChainFault(relation="chain", key={"id": int(kept[1])}, what=what)]


def _faulty_guards(connection: sa.Connection) -> list[ChainFault]:
    """The tables whose rows could be changed without the chain saying so."""
    source, config = _function(connection)
    on = _triggers(connection)
    path = f"search_path={_schema(connection)}, pg_temp"
    is_ours = source == _FUNCTION and {setting.lower() for setting in config} == {"timezone=utc", path.lower()}
    return [
        ChainFault(relation=table.name, key={}, what="is not watched: its trigger is off, or does something else")
        for table in GUARDED
        if not is_ours or {(table.name, name) for name in _WATCH} - on
    ]


def _switched_off(connection: sa.Connection) -> list[str]:
    """The tables whose triggers are not those of any version of ours."""
    source, _ = _function(connection)
    is_earlier = hashlib.sha256(source.encode()).hexdigest() in _EARLIER
    needed = {"tiltyard_chain"} if is_earlier else {*_WATCH}
    on = _triggers(connection)
    is_known = is_earlier or source == _FUNCTION
    return [table.name for table in GUARDED if not is_known or {(table.name, name) for name in needed} - on]


def _function(connection: sa.Connection) -> tuple[str, list[str]]:
    """What the triggers' function does, and with which settings."""
    query = "select prosrc, coalesce(proconfig, '{}') from pg_proc where oid = to_regproc('tiltyard_chain')"
    row = connection.execute(sa.text(query)).one_or_none()
    return ("", []) if row is None else (str(row[0]), list(row[1]))


def _triggers(connection: sa.Connection) -> set[tuple[str, str]]:
    """(table, name) of the triggers that fire always, when they should, and call our function."""
    rows = connection.execute(
        sa.text(
            "select tgrelid::regclass::text, tgname::text, tgtype::integer from pg_trigger "
            "where tgenabled = 'A' and tgqual is null and tgattr::text = '' "
            "and tgfoid = to_regproc('tiltyard_chain')"
        )
    )
    return {(str(table), str(name)) for table, name, when in rows if _WATCH.get(str(name)) == when}


def _schema(connection: sa.Connection) -> str:
    """The schema of the ledger's tables, as SQL has it."""
    return str(connection.scalar(sa.text("select quote_ident(current_schema())")))


def _told_of_all(
    found: Sequence[tuple[str, dict[str, str | int | float | None], str]], most: int | None
) -> list[ChainFault]:
    """The same of several tables."""
    return [
        fault
        for relation in dict.fromkeys(relation for relation, _, _ in found)
        for fault in _told(relation, [(key, what) for own, key, what in found if own == relation], most)
    ]


def _told(
    relation: str, found: Sequence[tuple[dict[str, str | int | float | None], str]], most: int | None = MOST
) -> list[ChainFault]:
    """The first of them, and how many more there are."""
    faults = [ChainFault(relation=relation, key=key, what=what) for key, what in found[:most]]
    if most is not None and len(found) > most:
        more = f"has {counted(len(found) - most, 'more row')} like that"
        faults.append(ChainFault(relation=relation, key={}, what=more))
    return faults
