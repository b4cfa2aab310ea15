"""Where answers are brought: a folder, S3, or a table of a PostgreSQL; and with whose credentials.

A night is whole there or as it was before, and twice is once: a file of its own that is replaced in one step, or its
rows of a table, deleted and inserted in one transaction. Credentials come from the environment or from Airflow's
connections and go to DuckDB's secret manager, which shows them to nobody; no sentence quotes what DuckDB says of them.
"""

from contextlib import nullcontext
from datetime import date
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa

from tiltyard import lake, private
from tiltyard.answered import predictions
from tiltyard.errors import BadInput, Unavailable
from tiltyard.lake import quoted, text
from tiltyard.prepare.fetch import credentials
from tiltyard.prepare.fetch.credentials import Connection, Lookup
from tiltyard.settings import Settings
from tiltyard.spec import Deliver

PATIENCE_S = 30
"""Seconds for which a destination may not answer."""
STATEMENT_S = 600
"""Seconds that one statement of a table may take."""
KEY = ("model", "night", "entity_id", "prediction_time")
"""The key of a table that is made here."""
_PHRASES = (
    "Forbidden", "NoSuchBucket", "Could not establish connection", "Connection refused", "permission denied",
    "could not translate host name", "password authentication failed", "does not exist", "timeout",
)  # fmt: skip
"""What DuckDB, S3 and PostgreSQL say, and may be told on."""
_POSTGRES = {"varchar": "text", "double": "double precision", "timestamptz": "timestamptz"}


def name_of(deliver: Deliver) -> str:
    """A destination, for a sentence."""
    return deliver.folder or f"{deliver.table} of {deliver.connection}"


def send(settings: Settings, deliver: Deliver, rows: pa.Table, model: str, night: date, lookup: Lookup) -> None:
    """Bring the answers of a night to their destination, in place of what is there of that night.

    Raises Unavailable where it does not answer or refuses them, BadInput for credentials that are missing.
    """
    if deliver.table is not None:
        _to_table(deliver, rows, model, night, lookup)
    else:
        assert deliver.folder is not None  # the spec names one of the two
        _to_folder(settings, deliver, deliver.folder, rows, f"{model}_{night}.{deliver.format}", lookup)


def _connection(name: str, lookup: Lookup) -> Connection:
    """The connection of that name. Raises BadInput where there is none, or it is none."""
    found = credentials.find(name, lookup)
    assert found is not None  # it has a name
    return found


def _to_folder(settings: Settings, deliver: Deliver, folder: str, rows: pa.Table, name: str, lookup: Lookup) -> None:
    if not folder.startswith("s3://"):
        place = settings.home / folder / name
        try:  # of what may be a mount the folder above has to be there
            is_ours = place.is_relative_to(settings.home)
            with nullcontext() if is_ours else private.as_usual():  # outside of home others read it
                place.parent.mkdir(parents=is_ours, exist_ok=True)
                predictions.save(rows, place, deliver.format)
        except OSError as error:
            raise Unavailable(
                f"{place.parent} cannot be had ({error.strerror}); mount it, or make the folder above it."
            ) from None
        except BadInput as error:
            raise Unavailable(str(error)) from None
        return
    address = f"{folder.rstrip('/')}/{name}"
    secret = _s3_secret(settings, deliver, lookup)
    with duckdb.connect(config={"threads": 1}) as connection:
        lake.load(connection, "httpfs")
        try:
            connection.execute(secret)
            connection.execute(f"set http_timeout = {PATIENCE_S}; set http_retries = 2")
            predictions.write(connection, rows, address, deliver.format)
        except duckdb.Error as error:
            raise Unavailable(
                f"{address} was not written ({_kind(error)}); see whether S3 is there, the bucket exists, and the keys "
                "may write to it."
            ) from None


def _s3_secret(settings: Settings, deliver: Deliver, lookup: Lookup) -> str:
    """`create secret` for S3, with the keys of the environment or of the connection."""
    if deliver.connection is None:
        return lake.s3_secret(settings, deliver.folder or "")
    found = _connection(deliver.connection, lookup)
    if not found.login or not found.password:
        raise BadInput(f"The Airflow connection '{deliver.connection}' has no login and password: the keys of S3.")
    endpoint = found.extra.get("endpoint_url")
    host = urlsplit(endpoint).netloc if endpoint else settings.s3_endpoint
    is_open = endpoint.startswith("http://") if endpoint else settings.s3_insecure
    place = f", endpoint {text(host)}, url_style 'path', use_ssl {not is_open}" if host else ""
    return (
        f"create or replace secret destination (type s3, key_id {text(found.login)}, secret {text(found.password)}, "
        f"region {text(found.extra.get('region_name', settings.s3_region))}{place})"
    )


def _kind(error: duckdb.Error) -> str:
    """What went wrong, as a known phrase: the whole message quotes the address, and may quote the secret."""
    said = str(error).lower()
    found = next((phrase for phrase in _PHRASES if phrase.lower() in said), None)
    return f"{type(error).__name__}{f': {found}' if found else ''}"


def _to_table(deliver: Deliver, rows: pa.Table, model: str, night: date, lookup: Lookup) -> None:
    assert deliver.table is not None
    assert deliver.connection is not None
    found = _connection(deliver.connection, lookup)
    schema, _, table = deliver.table.rpartition(".")
    schema = schema or "public"
    place = f"destination.{quoted(schema)}.{quoted(table)}"
    types = predictions.types(rows)
    columns = ", ".join(f"{quoted(name)} {_POSTGRES.get(kind, kind)}" for name, kind in types.items())
    made = f"create table if not exists {quoted(schema)}.{quoted(table)} ({columns}, primary key ({', '.join(KEY)}))"
    names = ", ".join(map(quoted, types))
    with duckdb.connect(config={"threads": 1}) as connection:
        lake.load(connection, "postgres_scanner")
        connection.execute("set TimeZone = 'UTC'")
        try:
            connection.execute(_postgres_secret(found))
            connection.execute(f"attach {text(_options(found))} as destination (type postgres, secret destination)")
            connection.register("_rows", rows)
            connection.begin()
            connection.execute(f"call postgres_execute('destination', {text(made)})")
            connection.execute(f"delete from {place} where model = ? and night = ?", [model, night])
            connection.execute(f"insert into {place} ({names}) select {names} from _rows")
            connection.commit()
        except duckdb.Error as error:
            raise Unavailable(
                f"{deliver.table} of the Airflow connection '{deliver.connection}' was not written "
                f"({_kind(error)}); see whether the database is there, the schema exists, the login may write "
                f"to it, and a table of that name has the columns {', '.join(types)}."
            ) from None


def _postgres_secret(found: Connection) -> str:
    given = {
        "host": found.host, "port": str(found.port or 5432), "user": found.login, "password": found.password,
        "database": found.database,
    }  # fmt: skip
    parts = "".join(f", {name} {text(value)}" for name, value in given.items() if value)
    return f"create or replace secret destination (type postgres{parts})"


def _options(found: Connection) -> str:
    """What the driver is told beside the secret."""
    options = {"connect_timeout": str(PATIENCE_S), "options": f"'-c statement_timeout={STATEMENT_S}s'"}
    if mode := found.extra.get("sslmode"):
        options["sslmode"] = mode
    return " ".join(f"{name}={value}" for name, value in options.items())
