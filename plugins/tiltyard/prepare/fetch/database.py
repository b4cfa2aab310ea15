"""The rows of a table of a database, from a value of its cursor column on.

Read by SQLAlchemy, so by whichever database has a driver here: PostgreSQL's is installed, SQLite's comes with Python.
Where no connection is named, a driver asks its own files and variables, like `~/.pgpass` and `PGPASSWORD`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from tiltyard.errors import BadInput, Unavailable
from tiltyard.prepare.fetch import credentials
from tiltyard.prepare.fetch.credentials import Connection
from tiltyard.prepare.places import table_of

AT_ONCE = 20_000
"""Rows that are held at a time."""
CONNECT_S = 10
"""Seconds that a database has to answer."""
_PATIENT = ("psycopg2", "psycopg", "pymysql", "mysqldb", "mariadbconnector")
"""Drivers that can be told so."""

Bound = datetime | date | int


@dataclass(frozen=True)
class Window:
    """Which rows are asked for."""

    cursor: str
    """The column that tells what is new, as the database spells it."""
    low: Bound | None
    """The least value of it that is asked for; None: any."""
    high: Bound | None
    """The largest; None: any."""
    zone: str = "UTC"
    """Zone of the cursor, where the database keeps none with it."""


def read(
    address: str, connection: Connection | None, columns: Sequence[str], window: Window | None, path: Path,
    limit: int | None = None,
) -> int:  # fmt: skip
    """Write the rows of a window to a Parquet file, by the cursor; returns how many there are. Of the columns those
    that the table has; all of them where none are named. Of `limit` rows the newest ones.

    Raises Unavailable for a database that is away, BadInput for one that refuses, and for a table or cursor that is
    not there.
    """
    with _opened(address, connection) as (engine, name):
        table = _table(engine, *name)
        there = [column for column in table.columns if column.name in columns or not columns]
        query = sa.select(*there)
        if window is not None:
            query = _within(query, table, window, newest_first=limit is not None)
        if limit is not None:
            query = query.limit(limit)
        fields = [_field(column) for column in there]
        count = 0
        with engine.connect() as opened, pq.ParquetWriter(path, pa.schema(fields)) as writer:
            result = opened.execution_options(stream_results=True, max_row_buffer=AT_ONCE).execute(query)
            for part in _parts(result, name[1]):
                writer.write_table(_arrow(name[1], part, fields))
                count += len(part)
        return count


@contextmanager
def _opened(address: str, connection: Connection | None) -> Iterator[tuple[sa.Engine, tuple[str | None, str]]]:
    """An engine, and the schema and name of the table. What the database says of an error has no secret in it."""
    database, schema, table = table_of(address)
    engine: sa.Engine | None = None
    try:
        url = _url(database, connection)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise Unavailable(f"{database} is not there, or may not be read; mount it, or mend the contract.")
        patience = {"connect_timeout": CONNECT_S} if url.get_driver_name() in _PATIENT else {}
        engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=patience)
        yield engine, (schema, table)
    except (ModuleNotFoundError, sa.exc.NoSuchModuleError):
        scheme = database.partition("://")[0]
        raise BadInput(
            f"{database} is a database for which no driver is installed here; install one that SQLAlchemy has for "
            f"{scheme}, and name it, like mysql+pymysql://."
        ) from None
    except sa.exc.NoSuchTableError:
        raise BadInput(f"{address} is no table for us; mend its name, or its rights.") from None
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        raise Unavailable(f"{database} does not answer ({_said(error, connection)}).") from None
    except sa.exc.SQLAlchemyError as error:
        raise BadInput(
            f"{database} refuses to be read ({_said(error, connection)}); mend the contract or its rights."
        ) from None
    finally:
        if engine is not None:
            engine.dispose()


def _url(database: str, connection: Connection | None) -> sa.URL:
    """The address with what the connection says of who reads, and of what the address leaves out."""
    url = sa.make_url(database)
    if connection is None:
        return url
    options = {name: value for name, value in connection.extra.items() if name.startswith("ssl")}
    return url.update_query_dict(options).set(
        username=connection.login or url.username,
        password=connection.password,
        host=url.host or connection.host,
        port=url.port or connection.port,
        database=url.database or connection.database,
    )


def _said(error: Exception, connection: Connection | None) -> str:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return credentials.without(lines[0].rstrip(".:"), connection)


def _table(engine: sa.Engine, schema: str | None, name: str) -> sa.TableClause:
    """The table with its columns and their types. A view is one as well."""
    described = sa.inspect(engine).get_columns(name, schema)
    if not described:
        raise sa.exc.NoSuchTableError(name)
    return sa.table(name, *(sa.column(each["name"], each["type"]) for each in described), schema=schema)


def _within(query: "sa.Select[Any]", table: sa.TableClause, window: Window, *, newest_first: bool) -> "sa.Select[Any]":
    if window.cursor not in table.columns:
        raise BadInput(f"The table {table.name} has no column '{window.cursor}'; name its cursor anew in the contract.")
    cursor = table.columns[window.cursor]
    query = query.where(cursor.is_not(None))
    if window.low is not None:
        query = query.where(cursor >= _bound(window.low, cursor, window.zone))
    if window.high is not None:
        query = query.where(cursor <= _bound(window.high, cursor, window.zone))
    return query.order_by(cursor.desc() if newest_first else cursor)


def _bound(value: Bound, cursor: "sa.ColumnClause[Any]", zone: str) -> Bound:
    """A bound as the database has the column: an instant without its zone, where it keeps none."""
    if isinstance(value, datetime) and not getattr(cursor.type, "timezone", False):
        return value.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    return value


def _parts(result: "sa.CursorResult[Any]", table: str) -> Iterator[Sequence[Sequence[Any]]]:
    """The rows, some at a time. A database that does not hold its columns to their types, like SQLite, gives what its
    driver cannot read."""
    try:
        yield from result.partitions(AT_ONCE)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise BadInput(
            f"{table} holds a value that is not of its column's type ({' '.join(str(error).split())[:120]}); mend it "
            "there, or give the table a view that casts it."
        ) from None


# -- values -----------------------------------------------------------------------------------


def _field(column: "sa.ColumnClause[Any]") -> pa.Field:
    """How a column is kept until it gets the type of the contract: numbers and times as such, all else as text."""
    kind = column.type
    if isinstance(kind, sa.DateTime):
        return pa.field(column.name, pa.timestamp("us", tz="UTC" if kind.timezone else None))
    if isinstance(kind, sa.Numeric) and kind.scale == 0:
        return pa.field(column.name, pa.int64() if (kind.precision or 99) <= 18 else pa.string())
    kinds: Mapping[type, pa.DataType] = {
        sa.Boolean: pa.bool_(), sa.Integer: pa.int64(), sa.Numeric: pa.float64(), sa.Date: pa.date32(),
    }  # fmt: skip
    return pa.field(column.name, next((kept for own, kept in kinds.items() if isinstance(kind, own)), pa.string()))


def _arrow(table: str, rows: Sequence[Sequence[Any]], fields: Sequence[pa.Field]) -> pa.Table:
    arrays = []
    for place, field in enumerate(fields):
        try:
            arrays.append(pa.array([_value(row[place], field.type) for row in rows], field.type))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            raise BadInput(
                f"The column '{field.name}' of {table} holds a value that is no {field.type}; mend it there, or give "
                "the table a view that makes it one, or a text."
            ) from None
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _value(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else format(value, "f") if isinstance(value, Decimal) else _text(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, Decimal) and pa.types.is_integer(kind):
        return int(value)
    if isinstance(value, Decimal):
        if abs(value) > 2**53 and value == value.to_integral_value() and Decimal(float(value)) != value:
            raise ValueError("an identifier, of which a number would lose digits")
        return float(value)
    return value


def _text(value: Any) -> str:
    import orjson

    return orjson.dumps(value, default=str).decode() if isinstance(value, dict | list) else str(value)
