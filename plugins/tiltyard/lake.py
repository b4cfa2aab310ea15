"""The lake: DuckLake tables (Parquet files, catalogue in PostgreSQL). The only module that opens it.

Reading: every read takes `as_of` and sees the rows with `available_at <= as_of`; a NULL or infinite `available_at`
is never seen (it fails closed). `at` goes further and reads what the lake held at a snapshot, or every table as it is
in service by a publication: at its own snapshot, and nothing later than its last good night.
Writing: `commit` runs one transaction, again on conflict, under a fence where a stage has one; all or nothing.
Tables are named `schema.table`: raw.*, staging.stg_*, spines.spn_*, features.ftr_*, labels.lbl_*, popular.pop_*, ops.*.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, TypeVar

import duckdb
import pandas as pd
import sqlalchemy as sa

from tiltyard import postgres
from tiltyard.errors import BadInput, Unavailable
from tiltyard.fence import Fence
from tiltyard.records import Publication
from tiltyard.settings import Settings
from tiltyard.tables import Table

T = TypeVar("T")
At = int | Publication | None
"""The state of the lake that is read: a snapshot, what a publication has in service, or (None) what there is now."""

_TABLE = re.compile(r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*\.[a-z][a-z0-9_]*)\}")
_OF_A_BUCKET = re.compile(r"[^\n]*\bHTTP (?:GET|PUT|POST|HEAD|DELETE)\b(?![^\n]*404)[^\n]*")
"""What DuckDB says of a request to a bucket that failed, but for a file that is not there."""
_COLUMN = re.compile(r"^[a-z_][a-z0-9_]*$")
_SCHEMAS = {"stg": "staging", "spn": "spines", "ftr": "features", "lbl": "labels", "pop": "popular"}
CATALOGUE_SECRET = "tiltyard_catalogue"
"""DuckDB's name of the secret that holds the catalogue's password."""
EXTENSIONS = ("ducklake", "postgres_scanner", "httpfs")
_checked: set[str] = set()
"""The extensions whose signatures DuckDB has checked in this process, and whose code is in it since."""
ATTEMPTS = 8
FIRST = "timestamptz '0001-01-01 00:00:00+00'"
"""The first instant that Python can hold: what says that it was known before that, says nothing."""


def qualified(table: str | Table) -> str:
    """`ftr_ticket__intake` as `features.ftr_ticket__intake`: the prefix names the schema."""
    name = str(table)
    return name if "." in name else f"{_SCHEMAS[name.split('_', 1)[0]]}.{name}"


def identifier(table: str | Table) -> str:
    """The quoted name of a table in the lake. Raises ValueError for what is not a plain name."""
    if not _TABLE.match(str(table)):
        raise ValueError(f"{str(table)!r} is not a table of the lake (schema.table in lower case)")
    schema, name = str(table).split(".")
    return f'lake."{schema}"."{name}"'


@dataclass(frozen=True)
class Commit(Generic[T]):
    """What a commit left behind."""

    snapshot: int
    """The number of the lake's snapshot that it made."""
    result: T
    """What its work returned."""


class Lake:
    """An open lake. One per process and thread of work; `close()` it, or use it in a `with`."""

    def __init__(self, settings: Settings, *, read_only: bool = False, at_once: bool = True) -> None:
        """Open the lake: now, or, unless `at_once`, with the first read. Raises Unavailable where it is away."""
        self.settings = settings
        self._is_read_only = read_only
        self._ensured: set[str] = set()
        if at_once:
            assert self.connection

    @cached_property
    def _catalogue(self) -> sa.URL:
        return postgres.url(self.settings, "lake")

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The engine's connection, with the lake attached as `lake`."""
        assert self._catalogue  # started, and made, where it is not there yet
        connection = duckdb.connect(config=config(self.settings))
        try:
            # a query of more than two seconds would be drawn on stdout, in the middle of a JSON document
            connection.execute("set enable_progress_bar_print = false")
            configure(connection, self.settings, read_only=self._is_read_only)
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def is_open(self) -> bool:
        """Whether anything was read or written."""
        return "connection" in vars(self)

    def __enter__(self) -> "Lake":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the engine's connection."""
        if self.is_open:
            self.connection.close()

    def renew(self) -> None:
        """Open the lake anew with the next read: a few of the bits that turn in a file end the connection that meets
        them."""
        if self.is_open:
            with suppress(duckdb.Error):
                self.connection.close()
            del self.connection
            self._ensured.clear()

    # -- reading ------------------------------------------------------------------------------

    def relation(self, table: str | Table, as_of: datetime, at: At = None) -> str:
        """SQL of `table` as it was known at `as_of`, for a FROM clause. Raises BadInput for one that was never good."""
        until = at.until(str(table)) if isinstance(at, Publication) else None
        moment = as_of if until is None else min(as_of, until)
        return f"(select * from {stored(table, at)} where available_at between {FIRST} and {literal(moment)})"

    def sql(self, sql: str, as_of: datetime, at: At = None) -> str:
        """`sql` with every `{schema.table}` replaced by that table as it was known at `as_of`."""
        return _PLACEHOLDER.sub(lambda match: self.relation(match[1], as_of, at), sql)

    def query(
        self, sql: str, as_of: datetime, params: Mapping[str, object] | None = None, at: At = None
    ) -> pd.DataFrame:
        """Rows of a query over `{schema.table}` placeholders, read at `as_of`; `$name` takes `params`."""
        return self.connection.execute(self.sql(sql, as_of, at), dict(params or {})).df()

    def snapshot(self) -> int:
        """The lake's current snapshot id."""
        row = self.connection.execute("select id from ducklake_current_snapshot('lake')").fetchone()
        assert row is not None
        return int(row[0])

    def has(self, table: str | Table, at: At = None) -> bool:
        """Whether the lake has a table, now or at another state."""
        try:  # information_schema would list every table of the lake, which takes many times longer
            self.connection.execute(f"describe select * from {stored(table, at)}")
        except duckdb.CatalogException:
            return False
        return True

    def columns(self, table: str | Table) -> dict[str, str]:
        """Column name → DuckDB type, in table order. Raises BadInput when there is no such table."""
        try:
            rows = self.connection.execute(f"describe {identifier(qualified(table))}").fetchall()
        except duckdb.CatalogException:
            raise BadInput(
                f"The lake has no table '{qualified(table)}'; run tiltyard features first, or mend the name."
            ) from None
        return {name: kind for name, kind, *_ in rows}

    # -- writing ------------------------------------------------------------------------------

    def ensure(self, table: Table) -> None:
        """Create a table when it is missing, and add columns it lacks. Safe among many processes."""
        if table.name in self._ensured:
            return
        for column in table.columns:
            if not _COLUMN.match(column):
                raise ValueError(f"{column!r} is not a plain column name")
        with self.exclusive("ddl"):
            if not self.has(table):
                self.connection.execute(f'create schema if not exists lake."{table.name.split(".")[0]}"')
                body = ", ".join(f'"{name}" {kind}' for name, kind in table.columns.items())
                self.connection.execute(f"create table if not exists {identifier(table)} ({body})")
            else:
                present = self.columns(table)
                for name, kind in table.columns.items():
                    if name not in present:
                        self.connection.execute(f'alter table {identifier(table)} add column "{name}" {kind}')
        self._ensured.add(table.name)

    def commit(
        self, work: Callable[[duckdb.DuckDBPyConnection], T], *, message: str, fence: Fence | None = None
    ) -> Commit[T]:
        """Run `work(connection)` in one transaction, again on conflict. Raises Fenced when outdated.

        `work` must be safe to repeat: it only touches the lake. The fence is held from before the
        transaction until after its commit, so that of two attempts at the same work only the newest lands.
        """
        for attempt in range(ATTEMPTS):
            try:
                with fence.held() if fence else nullcontext():
                    self.connection.begin()
                    self.connection.execute("call lake.set_commit_message('tiltyard', ?)", [message])
                    result = work(self.connection)
                    self.connection.commit()
                    row = self.connection.execute("select id from ducklake_last_committed_snapshot('lake')").fetchone()
                    return Commit(
                        snapshot=int(row[0]) if row and row[0] is not None else self.snapshot(), result=result
                    )
            except duckdb.TransactionException:
                self._rollback()
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0.02, 0.1) * 2**attempt)
            except BaseException:
                self._rollback()
                raise
        raise AssertionError("unreachable")

    def replace(
        self,
        table: str | Table,
        partition: Mapping[str, object],
        rows: pd.DataFrame,
        *,
        message: str,
        fence: Fence | None = None,
    ) -> int:
        """Replace the rows of `partition` (column → value) by `rows`; twice is once. Returns the snapshot."""
        return self.commit(
            lambda connection: put(connection, table, partition, rows), message=message, fence=fence
        ).snapshot

    @contextmanager
    def exclusive(self, name: str, limit_s: float | None = None) -> Iterator[None]:
        """One at a time among all processes that open this lake; the next one waits. It ends with its process.

        Raises Unavailable where it is not its turn within `limit_s` seconds.
        """
        engine = sa.create_engine(self._catalogue, poolclass=sa.NullPool)
        with engine.begin() as connection:
            if limit_s is not None:
                wait = sa.text("select set_config('lock_timeout', :limit, true)")
                connection.execute(wait, {"limit": f"{max(1, round(limit_s * 1000))}ms"})
            try:
                lock = sa.text("select pg_advisory_xact_lock(hashtext(:name))")
                connection.execute(lock, {"name": f"tiltyard/{name}"})
            except sa.exc.OperationalError as error:
                if "lock timeout" not in str(error):
                    raise
                raise Unavailable(
                    f"It was not its turn ('{name}') for {limit_s:g} s: others are at work for longer than they may. "
                    "Look for a task that hangs, end it, and run this again."
                ) from None
            yield

    def vacuum(self) -> None:
        """Let PostgreSQL clear its tables of the catalogue of rows that are gone, and count what is there anew."""
        engine = sa.create_engine(self._catalogue, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text("vacuum (analyze)"))

    def _rollback(self) -> None:
        with suppress(duckdb.Error):  # the transaction may be gone already
            self.connection.rollback()


def stored(table: str | Table, at: At = None) -> str:
    """SQL of all rows of `table` as the lake held it at `at` (now, without one), for a FROM clause."""
    version = snapshot_of(table, at)
    return identifier(qualified(table)) + (f" at (version => {version})" if version is not None else "")


def snapshot_of(table: str | Table, at: At) -> int | None:
    """The snapshot at which `table` is read; None for now. Raises BadInput for a table that was never good."""
    return at.of(str(table)) if isinstance(at, Publication) else None if at is None else int(at)


def catalogue(table: str) -> str:
    """SQL name of one of DuckLake's own tables, `ducklake_…`, in which it keeps its record."""
    return f"__ducklake_metadata_lake.{quoted(table)}"


def put(
    connection: duckdb.DuckDBPyConnection, table: str | Table, partition: Mapping[str, object], rows: pd.DataFrame
) -> None:
    """Inside a transaction: delete the partition, insert `rows` by column name."""
    where = " and ".join(f'"{column}" = ${column}' for column in partition)
    if where:
        connection.execute(f"delete from {identifier(table)} where {where}", dict(partition))
    if len(rows):
        names = ", ".join(f'"{column}"' for column in rows.columns)
        connection.register("_rows", rows)
        try:
            connection.execute(f"insert into {identifier(table)} ({names}) select {names} from _rows")
        finally:
            connection.unregister("_rows")


def config(settings: Settings) -> dict[str, Any]:
    """What a connection is opened with that `configure` then attaches the lake to."""
    return {"threads": settings.threads, **config_of_extensions(EXTENSIONS)}


def config_of_extensions(extensions: Iterable[str]) -> dict[str, Any]:
    """What a connection is opened with that loads these extensions, and then calls `lock_extensions`.

    DuckDB hashes the whole file of an extension to check its signature, 0.2 s for ours, in every connection. The first
    one of a process has it do so; the others load what is in the process already.
    """
    return {"allow_unsigned_extensions": _checked.issuperset(extensions)}


def lock_extensions(connection: duckdb.DuckDBPyConnection) -> None:
    """Let no further extension into a connection unless DuckDB has checked its signature."""
    connection.execute("set allow_unsigned_extensions = false")


def configure(connection: duckdb.DuckDBPyConnection, settings: Settings, *, read_only: bool = False) -> None:
    """Attach the lake as `lake` to any DuckDB connection (dbt and Great Expectations bring their own)."""
    for extension in EXTENSIONS:
        load(connection, extension)
    lock_extensions(connection)
    _checked.update(EXTENSIONS)
    connection.execute("set TimeZone = 'UTC'")
    forget_files(connection, settings)
    create_secrets(connection, settings)
    if not is_on_s3(settings):
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for attempt in range(ATTEMPTS):
        if connection.execute("select 1 from duckdb_databases() where database_name = 'lake'").fetchone():
            return
        try:
            attach(connection, settings, read_only=read_only)
            return
        except duckdb.Error as error:  # on a fresh catalogue of two who create its tables one loses, and finds them
            if refused := postgres.forbidden(settings, error):
                raise refused from None
            if attempt == ATTEMPTS - 1 or ("already exists" not in str(error) and "duplicate key" not in str(error)):
                raise Unavailable(f"The lake does not open: {str(error).splitlines()[0]}") from None
            time.sleep(random.uniform(0.02, 0.1) * 2**attempt)


@contextmanager
def reading(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection by which files of the lake are read by their paths, one by one; the lake itself is not attached."""
    with duckdb.connect(config=config(settings)) as connection:
        for extension in EXTENSIONS:
            load(connection, extension)
        lock_extensions(connection)
        _checked.update(EXTENSIONS)
        if is_on_s3(settings):
            connection.execute(s3_secret(settings))
        yield connection


def forget_files(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Have every file read from its place again.

    DuckDB keeps the bytes of files in memory, and tells a file that was replaced by its second and size: a mended
    delivery of the same length would be landed as the one before it. Objects in S3 it tells by their tag, so that a
    lake there keeps the bytes that it has read from now on.
    """
    connection.execute("set enable_external_file_cache = false")  # this drops what is kept
    if is_on_s3(settings):
        connection.execute("set enable_external_file_cache = true")


def load(connection: duckdb.DuckDBPyConnection, extension: str) -> None:
    """Load one of DuckDB's extensions, from the package that brings it: nothing is downloaded."""
    import duckdb_extensions

    try:
        connection.load_extension(extension)
    except duckdb.Error:
        duckdb_extensions.import_extension(extension)
        connection.load_extension(extension)


def attach(connection: duckdb.DuckDBPyConnection, settings: Settings, *, read_only: bool = False) -> None:
    """Attach the lake to a DuckDB connection that has its secrets; where there is none yet, make it.

    Whether its files are encrypted is settled when it is made: a lake of plain files does not open with the option, and
    an encrypted one needs none. Raises duckdb.Error.
    """
    known = f"data_path {text(settings.lake_path)}, meta_secret {text(CATALOGUE_SECRET)}"
    known += ", read_only" if read_only else ""
    statement = f"attach {text(address(settings))} as lake ({known}"
    try:
        connection.execute(f"{statement}, create_if_not_exists false)")
    except duckdb.InvalidInputException as error:
        if "creating a new DuckLake is explicitly disabled" not in str(error):
            raise
        connection.execute(f"{statement}, encrypted {str(settings.lake_encrypted).lower()})")


def is_encrypted(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the files of the lake that is attached are encrypted, so that a read finds every bit that has turned."""
    row = connection.execute(f"select value from {catalogue('ducklake_metadata')} where key = 'encrypted'").fetchone()
    return row is not None and row[0] == "true"


def address(settings: Settings) -> str:
    """The lake's catalogue as DuckLake names it, without the password: DuckDB quotes addresses in its errors."""
    return "ducklake:postgres:" + postgres.conninfo(postgres.url(settings, "lake"), with_password=False)


def store_is_away(settings: Settings, error: BaseException) -> Unavailable | None:
    """What to raise where an error, or what it came from, is the bucket's that does not answer as it should; None for
    any other. A file that is gone is damage, which is met elsewhere."""
    link: BaseException | None = error
    while link is not None and is_on_s3(settings):
        if isinstance(link, duckdb.IOException) and (said := _OF_A_BUCKET.search(str(link))):
            return Unavailable(
                f"The lake's bucket, {settings.lake_path}, does not answer as it should ({said[0].rstrip(' .:')}); see "
                "that it runs and takes these keys, and check TILTYARD_S3_ENDPOINT."
            )
        link = link.__cause__ or link.__context__
    return None


def is_on_s3(settings: Settings) -> bool:
    """Whether the lake's Parquet files lie in S3."""
    return settings.lake_path.startswith("s3://")


def create_secrets(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Hand the catalogue's password and the keys of S3 to DuckDB's secret manager, which shows them to nobody.

    Raises BadInput when a key of S3 is missing, Unavailable when DuckDB takes one of them not.
    """
    statements = [catalogue_secret(settings), *([s3_secret(settings)] if is_on_s3(settings) else [])]
    for statement in statements:
        try:
            connection.execute(statement)
        except duckdb.Error:  # its message may quote the statement, and so the secret
            raise Unavailable(
                "DuckDB does not take the password in TILTYARD_DATABASE_URL or the credentials of AWS; look for "
                "letters in them that do not belong there."
            ) from None


def catalogue_secret(settings: Settings) -> str:
    """`create secret` for the catalogue's password; an empty one where the database asks for none."""
    password = postgres.url(settings, "lake").password
    value = f", password {text(str(password))}" if password else ""
    return f"create or replace secret {CATALOGUE_SECRET} (type postgres{value})"


def s3_secret(settings: Settings, address: str | None = None) -> str:
    """`create secret` for s3://, the lake's or another address. Raises BadInput where nobody gives credentials."""
    given = _credentials()
    if given is None:
        whose = f"{address} is in S3" if address else f"The lake is at {settings.lake_path}"
        raise BadInput(
            f"{whose}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give it a profile or a role of AWS."
        )
    key, secret, token = given
    session = f"session_token {text(token)}, " if token else ""
    endpoint = ""
    if settings.s3_endpoint:
        ssl = "false" if settings.s3_insecure else "true"
        endpoint = f", endpoint {text(settings.s3_endpoint)}, url_style 'path', use_ssl {ssl}"
    return (
        f"create or replace secret tiltyard_s3 (type s3, key_id {text(key)}, secret {text(secret)}, {session}"
        f"region {text(settings.s3_region)}{endpoint})"
    )


def _credentials() -> tuple[str, str, str | None] | None:
    """Key, secret and session token of S3, as all tools of AWS find them: the environment, a profile, or the role of
    the machine or container; None where nobody gives any. A role's run out after hours, longer than a connection stays
    open."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if key and secret:
        return key, secret, os.environ.get("AWS_SESSION_TOKEN") or None
    from botocore.exceptions import BotoCoreError  # what follows may ask an address of the machine's own network
    from botocore.session import get_session

    try:
        found = get_session().get_credentials()
        frozen = found.get_frozen_credentials() if found is not None else None
    except BotoCoreError:  # half a pair of keys, a profile that is none
        return None
    return (frozen.access_key, frozen.secret_key, frozen.token) if frozen is not None else None


def text(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def one_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The one row of a query that has one, as an aggregate of all rows does."""
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def quoted(column: str) -> str:
    """The quoted name of a column, whatever it is called."""
    return '"' + column.replace('"', '""') + '"'


def literal(instant: datetime) -> str:
    """An SQL timestamptz literal. Raises ValueError for a naive datetime."""
    if instant.tzinfo is None:
        raise ValueError("as_of must carry a time zone")
    return f"timestamptz {text(instant.isoformat())}"
