"""Copies of a prepared home: its folder by copying, its databases by PostgreSQL's templates, well within a second."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
from psycopg2 import sql

from tiltyard import postgres
from tiltyard.settings import DATABASES, Settings


def copied(made: Settings, folder: Path) -> Settings:
    """Settings of a home of its own in `folder`, in which all is as in `made`, and as in what lies beside it.

    For homes without trained versions: the registry names its files by the home that they were made in.
    """
    place = made.home.parent
    shutil.copytree(place, folder, dirs_exist_ok=True)
    values = {
        name: folder / value.relative_to(place) if isinstance(value, Path) and value.is_relative_to(place) else value
        for name, value in made.model_dump(exclude_unset=True).items()
    }
    copy = Settings(**values | {"database_prefix": f"t{uuid.uuid4().hex[:8]}_"})
    copy_databases(made, copy)
    return copy


def copy_databases(made: Settings, copy: Settings) -> None:
    """Make those databases of `copy` that are not there yet as they are in `made`."""
    with cursor(made, "postgres") as server:
        server.execute("select datname from pg_database")
        there = {name for (name,) in server.fetchall()}
        for old, new in ((made.database(name), copy.database(name)) for name in DATABASES):
            if old in there and new not in there:
                # of a template nobody may be in, and the session of the suites stays open
                server.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [old])
                names = map(sql.Identifier, (new, old))
                server.execute(sql.SQL("create database {} template {} strategy file_copy").format(*names))
    with cursor(copy, copy.database("lake")) as catalogue:
        moved = f"{copy.lake_path.rstrip('/')}/"
        catalogue.execute("update ducklake_metadata set value = %s where key = 'data_path'", [moved])


@contextmanager
def cursor(settings: Settings, database: str) -> "Iterator[psycopg2.extensions.cursor]":
    target = postgres.server_url(settings).set(database=database)
    with closing(psycopg2.connect(postgres.conninfo(target))) as connection:
        connection.autocommit = True
        with connection.cursor() as opened:
            yield opened
