"""The databases: the ledger, Airflow's and MLflow's, and what the lake's catalogue says in texts.

Every column of every table that holds text is looked through. A name is struck out where it stands. What was decided is
only added to (`chain`): of such a row the chain then says that it went and came again with another text.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from tiltyard import chain, ledger_tables, postgres
from tiltyard.ledger_tables import json_text
from tiltyard.settings import Settings
from tiltyard.upkeep.erasing.hunt import Found, Hunt

_SCHEMAS = "('pg_catalog', 'information_schema')"
_AT_ONCE = 5_000
_TEXTS = ("text", "character varying", "character", "json", "jsonb", "bytea")
_OURS = ("tombstone", "erasure", "erasure_end", "erasure_found", "erasure_touched")
"""Tables of the ledger that say of an erasure what may stay: no name stands there."""


@dataclass(frozen=True)
class _Column:
    schema: str
    table: str
    name: str
    kind: str

    @property
    def place(self) -> str:
        """SQL of its table."""
        return f'"{self.schema}"."{self.table}"'

    @property
    def text(self) -> str:
        """SQL of it as bytes."""
        own = f'"{self.name}"'
        return own if self.kind == "bytea" else f"convert_to({own}::text, 'UTF8')"


class DatabasePlace:
    """One of the databases."""

    def __init__(self, database: str, what: str) -> None:
        self.database = database
        self.name = database if database != "lake" else "catalogue"
        self.what = what

    def find(self, hunt: Hunt) -> Found:
        found = Found()
        engine = _engine(hunt.rails.settings, self.database)
        if engine is None:
            return found
        with engine.connect() as connection:
            for column in _columns(connection):
                for _, content in _named(hunt, connection, column):
                    body = {"text": content.decode("utf-8", "replace")}
                    found.add(f"{column.table}.{column.name}", hunt.needles.within(content), 1, body, hunt.most)
        return found

    def erase(self, hunt: Hunt, found: Found) -> None:
        engine = _engine(hunt.rails.settings, self.database)
        if engine is None or self.database == "lake":  # of the catalogue the lake itself takes care
            return
        guarded = {table.name: table for table in chain.GUARDED} if self.database == "ledger" else {}
        tables = set()
        with engine.begin() as connection:
            if guarded and hunt.erasure is not None:
                chain.take_out(connection, ledger_tables.erasure, hunt.erasure)
            for column in _columns(connection):
                rows = list(_named(hunt, connection, column))
                for at, content in rows:
                    if column.table in guarded:
                        _put_down_again(connection, guarded[column.table], column, at, hunt.needles.struck(content))
                    else:
                        _write(connection, column, at, hunt.needles.struck(content))
                if rows:
                    tables.add(column.place)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in sorted(tables):
                connection.execute(sa.text(f"vacuum full {table}"))


def _engine(settings: Settings, database: str) -> sa.Engine | None:
    """The database; None where it was never made."""
    url = postgres.server_url(settings).set(database="postgres")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        there = connection.scalar(
            sa.text("select 1 from pg_database where datname = :name"), {"name": settings.database(database)}
        )
    if not there:
        return None
    return postgres.engine(settings, database)


def _columns(connection: sa.Connection) -> list[_Column]:
    rows = connection.execute(
        sa.text(
            "select c.table_schema, c.table_name, c.column_name, c.data_type from information_schema.columns c "
            "join information_schema.tables t using (table_schema, table_name) "
            f"where t.table_type = 'BASE TABLE' and c.table_schema not in {_SCHEMAS} "
            "and c.data_type = any(:kinds) order by 1, 2, c.ordinal_position"
        ),
        {"kinds": list(_TEXTS)},
    )
    return [
        _Column(str(schema), str(table), str(name), str(kind))
        for schema, table, name, kind in rows
        if table not in _OURS
    ]


def _named(hunt: Hunt, connection: sa.Connection, column: _Column) -> Iterator[tuple[str, bytes]]:
    """(place of the row, content) of every row whose column names one."""
    if not hunt.needles.telling:
        return
    query = sa.text(f'select ctid::text, {column.text} from {column.place} where "{column.name}" is not null')
    rows = connection.execute(query.execution_options(yield_per=_AT_ONCE))
    found: list[tuple[str, bytes]] = []
    for part in rows.partitions(_AT_ONCE):
        contents = [(str(row[0]), bytes(row[1])) for row in part]
        if hunt.needles.within(b"\n".join(content for _, content in contents)):
            found += [(at, content) for at, content in contents if hunt.needles.within(content)]
    yield from found


def _write(connection: sa.Connection, column: _Column, at: str, content: bytes) -> None:
    value = content if column.kind == "bytea" else content.decode()
    connection.execute(
        sa.text(
            f'update {column.place} set "{column.name}" = cast(:value as {column.kind}) where ctid = cast(:at as tid)'
        ),
        {"value": value, "at": at},
    )


def _put_down_again(connection: sa.Connection, table: sa.Table, column: _Column, at: str, content: bytes) -> None:
    """A row that is only added to: it goes and comes again, and the chain says both."""
    row = connection.execute(
        sa.text(f"delete from {column.place} where ctid = cast(:at as tid) returning to_jsonb({column.place}.*)"),
        {"at": at},
    ).scalar()
    names = ", ".join(f'"{each.name}"' for each in table.columns)
    connection.execute(
        sa.text(
            f"insert into {column.place} ({names}) select {names} from jsonb_populate_record("
            f"null::{column.place}, cast(:row as jsonb) || jsonb_build_object(cast(:name as text), cast(:value as "
            f"{'jsonb' if column.kind in ('json', 'jsonb') else 'text'})))"
        ),
        {"row": json_text(row), "name": column.name, "value": content.decode()},
    )
