"""The chain: whoever changes what was decided, whichever way, is found out.

Versions, decisions, promotions, watches, operations and explanations are only added to. Triggers refuse to change or
delete a row, unless a night is taken back, and write an entry for every row that comes or goes: its digest and the hash
of the entry before, so that an entry can be neither changed, taken out nor put in without every later one. Triggers can
be switched off by whoever owns the database; then the rows do not agree with their entries any more. Whoever writes all
later entries anew is found out by a head of the chain that was kept elsewhere.

The digests are PostgreSQL's own, of a row as JSON in UTC, without what is NULL. What the triggers do is held against
what stands here; nothing that verifies calls a function of the database's.

Method: Haber and Stornetta (1991), How to time-stamp a digital document, Journal of Cryptology 3:99-111.
"""

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from tiltyard import clock, ledger_tables
from tiltyard.errors import BadInput
from tiltyard.records.base import Record
from tiltyard.words import counted, listed

log = logging.getLogger(__name__)

GUARDED: Final = (
    ledger_tables.version, ledger_tables.decision, ledger_tables.promotion, ledger_tables.watch,
    ledger_tables.operation, ledger_tables.operation_end, ledger_tables.default_task_end,
    ledger_tables.tombstone, ledger_tables.erasure, ledger_tables.erasure_end,
)  # fmt: skip
"""The tables that are only added to."""
UNWATCHED = "ledger_unwatched"
"""Kind of the event of triggers that were off when the ledger was opened."""
MOST = 20
"""Faults of a kind and table that are told one by one."""
_TAKING_BACK = "tiltyard.taking_back"
"""Setting of a transaction that may delete rows, which the chain then says."""
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")
_DIGEST = "sha256(convert_to(jsonb_strip_nulls(to_jsonb({row}))::text, 'UTF8'))"
_HASH = (
    "sha256({previous} || convert_to(concat_ws('|', {id}::text, {relation}, {action}, {key}::text, "
    "encode({digest}, 'hex'), extract(epoch from {at})::text), 'UTF8'))"
)
_FUNCTION = f"""
declare
  entry jsonb := case tg_op when 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
  last record;
  own record;
begin
  if tg_op = 'UPDATE' then
    raise exception '% is only added to: what was decided stays as it was', tg_table_name
      using errcode = 'insufficient_privilege';
  end if;
  if tg_op = 'DELETE' and coalesce(current_setting('{_TAKING_BACK}', true), '') <> 'on' then
    raise exception '% is only added to: a night is taken back with tiltyard nights withdraw', tg_table_name
      using errcode = 'insufficient_privilege';
  end if;
  perform pg_advisory_xact_lock(hashtext('tiltyard/chain'));
  select id, hash into last from chain order by id desc limit 1;
  select coalesce(last.id, 0) + 1 as id, tg_table_name::text as relation, lower(tg_op) as action,
    (select jsonb_object_agg(name, entry -> name) from unnest(tg_argv) as name) as key,
    sha256(convert_to(jsonb_strip_nulls(entry)::text, 'UTF8')) as digest,
    coalesce(last.hash, ''::bytea) as previous, clock_timestamp() as recorded_at into own;
  insert into chain (id, relation, action, key, digest, previous, hash, recorded_at) values (
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
    )
},
    own.recorded_at
  );
  return null;
end
"""
_OF_ENTRY = _HASH.format(
    previous="previous", id="id", relation="relation", action="action", key="key", digest="digest", at="recorded_at"
)


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
    rows: int
    """Number of rows that were held against it."""
    faults: tuple[ChainFault, ...] = ()
    """What is not as it was put down."""


def begin(connection: sa.Connection) -> None:
    """See to the triggers, and, of a ledger that has no entry yet, take its rows as they are. That they were off
    is kept as an event."""
    is_new = not connection.scalar(sa.text("select exists (select 1 from chain)"))
    unwatched = _faulty_guards(connection)
    if not unwatched:
        return
    if not is_new:
        # a table of a newer version of ours comes without a trigger, and without a row
        tables = [fault.relation for fault in unwatched if _has_rows(connection, fault.relation)]
    if not is_new and tables:
        log.error("The ledger was not watched: the triggers of %s were off. They are on again.", listed(tables))
        values = {"kind": UNWATCHED, "model": "", "night": None, "detail": {"tables": tables}}
        connection.execute(ledger_tables.event.insert().values(**values, recorded_at=clock.now()))
    connection.execute(
        sa.text(
            f"create or replace function tiltyard_chain() returns trigger language plpgsql "
            "security definer set timezone = 'UTC' set search_path = public, pg_temp "
            f"as $tiltyard${_FUNCTION}$tiltyard$"
        )
    )
    for table in GUARDED:
        keys = ", ".join(f"'{column.name}'" for column in table.primary_key.columns)
        connection.execute(
            sa.text(
                f"create or replace trigger tiltyard_chain after insert or update or delete on {table.name} "
                f"for each row execute function tiltyard_chain({keys})"
            )
        )
        connection.execute(sa.text(f"alter table {table.name} enable always trigger tiltyard_chain"))
        if is_new:
            _append(connection, table, "adopt", "")


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
        "clock_timestamp() as recorded_at"
    )
    connection.execute(
        sa.text(
            f"with own as materialized ({own}) insert into chain "
            "(id, relation, action, key, digest, previous, hash, recorded_at) "
            f"select id, relation, action, key, digest, previous, {_OF_ENTRY}, recorded_at from own"
        ),
        {"relation": relation, "action": action, "key": ledger_tables.json_text(key), "digest": digest},
    )


def taking_back(connection: sa.Connection) -> None:
    """Let the rest of this transaction delete rows, which the chain then says."""
    connection.execute(sa.text(f"set local {_TAKING_BACK} = 'on'"))


def verify(connection: sa.Connection, head: str | None = None) -> ChainState:
    """Hold every row against its entry, every entry against the one before it, and, with a `head` that was kept
    elsewhere, the chain against that. Raises BadInput for what is no head."""
    connection.execute(sa.text("set local timezone = 'UTC'"))
    faults = [*_faulty_guards(connection), *_faulty_links(connection)]
    for table in GUARDED:
        faults += _faulty_rows(connection, table)
    if head is not None:
        faults += _faulty_head(connection, head)
    row = connection.execute(
        sa.text(
            "select count(*) as entries, min(recorded_at) as begun_at, "
            "count(*) filter (where action = 'adopt') as adopted, "
            "count(*) filter (where action = 'accept') as accepted, "
            "(select id || ':' || encode(hash, 'hex') from chain order by id desc limit 1) as head from chain"
        )
    ).one()
    rows = [connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in GUARDED]
    return ChainState(
        entries=row.entries, head=row.head, begun_at=row.begun_at, adopted=row.adopted, accepted=row.accepted,
        rows=sum(rows), faults=tuple(faults),
    )  # fmt: skip


def faults_of(connection: sa.Connection, model: str) -> list[ChainFault]:
    """What of a model's rows is not as it was put down: as many rows as it has, and no other's."""
    connection.execute(sa.text("set local timezone = 'UTC'"))
    return [fault for table in GUARDED if "model" in table.c for fault in _faulty_rows(connection, table, model)]


def faults_of_succession(connection: sa.Connection) -> dict[str, list[ChainFault]]:
    """Model → what of its versions, and of what says which of them is in service, is not as it was put down."""
    connection.execute(sa.text("set local timezone = 'UTC'"))
    found: dict[str, list[ChainFault]] = {}
    operation, end = ledger_tables.operation, ledger_tables.operation_end
    for table in (ledger_tables.version, ledger_tables.promotion, ledger_tables.watch, operation, end):
        for fault in _faulty_rows(connection, table, most=None):
            model = fault.key.get("model")
            if model is None:  # of what was done by hand the operation says to whom
                model = connection.scalar(sa.select(operation.c.model).where(operation.c.id == fault.key["id"]))
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
    connection: sa.Connection, table: sa.Table, model: str | None = None, most: int | None = MOST
) -> list[ChainFault]:
    """The rows of a table, of all models or of one, that are not those of their newest entries; of more than `most` the
    first, and how many more."""
    own = of_model = ""
    if model is not None:
        own, keyed = "where t.model = :model", "model" in table.primary_key.columns
        # of a key that does not name the model, those that the table has: what is gone of them, the whole chain tells
        of_model = " and " + ("key ->> 'model' = :model" if keyed else "key in (select key from present)")
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
    source = connection.scalar(sa.text("select prosrc from pg_proc where oid = to_regproc('tiltyard_chain')"))
    watched = set(
        connection.scalars(
            sa.text(
                "select tgrelid::regclass::text from pg_trigger "
                "where tgname = 'tiltyard_chain' and tgenabled = 'A' and tgfoid = to_regproc('tiltyard_chain')"
            )
        )
    )
    is_ours = source == _FUNCTION
    return [
        ChainFault(relation=table.name, key={}, what="is not watched: its trigger is off, or does something else")
        for table in GUARDED
        if not is_ours or table.name not in watched
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
