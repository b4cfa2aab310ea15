"""A table of a real PostgreSQL, and of SQLite, fetched by its cursor into the landing zone: everything once."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from tests.conftest import make_settings
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput, Unavailable
from tiltyard.prepare import features
from tiltyard.prepare.fetch import database, step
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.rails import Rails
from tiltyard.settings import ROOT

CONTRACT = """
sources:
  - name: shop
    tables:
      - name: visit
        config:
          meta:
            tiltyard:
              event_time: {{column: visited_at, zone: {zone}}}
              available_at: {available_at}
              fetch: {fetch}
        columns:
          - {{name: visit_id, data_type: bigint, config: {{meta: {{tiltyard: {{header: Visit No}}}}}}}}
          - {{name: who, data_type: varchar}}
          - {{name: basket, data_type: double}}
          - {{name: visited_at, data_type: timestamptz}}
          - {{name: written_at, data_type: timestamptz}}
"""
PASSWORD = "pX7!qc'ata\\log@uE9zW"
FIRST = clock.parse_as_of("2025-03-04")


@dataclass
class Shop:
    """A source whose table lies in a database."""

    rails: Rails
    engine: sa.Engine
    address: str

    def contract(self, fetch: str, available_at: str = "{column: written_at}", zone: str = "UTC") -> None:
        folder = self.rails.settings.dbt / "models" / "staging" / "shop"
        folder.mkdir(parents=True, exist_ok=True)
        text = CONTRACT.format(fetch=fetch, available_at=available_at, zone=zone)
        (folder / "_shop__sources.yml").write_text(text)

    def by_cursor(self, **more: str) -> None:
        keys = {"from": f"'{self.address}'", "connection": "shop_db", "cursor": "written_at", **more}
        self.contract("{" + ", ".join(f"{name}: {value}" for name, value in keys.items()) + "}")

    def write(self, number: int, written_at: str, who: str = "ann", basket: str = "1.50") -> None:
        with self.engine.begin() as connection:
            connection.execute(
                sa.text('insert into "web shop"."Visit" values (:number, :who, :basket, :at, :at, \'not asked for\')'),
                {"number": number, "who": who, "basket": basket, "at": written_at},
            )

    def night(self, days: int = 0) -> IngestSummary:
        return features.ingest(self.rails, FIRST + timedelta(days=days), ["shop"])["shop"]

    def rows(self, columns: str = "visit_id, source_file") -> list[tuple[Any, ...]]:
        return self.rails.lake.connection.execute(f"select {columns} from lake.raw.visit order by all").fetchall()

    def landing(self) -> list[str]:
        return sorted(path.name for path in (self.rails.settings.landing / "shop" / "visit").iterdir())


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Rails]:
    home = tmp_path_factory.mktemp("fetched")
    settings = make_settings(home, postgres_url, dbt=home / "dbt", sources=("shop",))
    with rails_module.opened(settings) as rails:
        yield rails


@pytest.fixture
def shop(opened: Rails, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """An empty shop, and an empty table of a database of its own."""
    shutil.rmtree(opened.settings.landing, ignore_errors=True)
    shutil.rmtree(opened.settings.quarantine, ignore_errors=True)
    for table in ("raw.visit", "ops.landed_file", "ops.ingest_run"):
        if opened.lake.has(table):
            opened.lake.connection.execute(f"delete from lake.{table}")
    with opened.ledger.engine.begin() as connection:
        connection.execute(sa.text("delete from event"))
    name, reader = f"shop_{uuid.uuid4().hex[:8]}", f"reader_{uuid.uuid4().hex[:8]}"
    url = sa.make_url(postgres_url)
    with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
        connection.execute(sa.text(f"create role {reader} login"))
    engine = sa.create_engine(url.set(database=name), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text('create schema "web shop"'))
        connection.execute(
            sa.text(
                'create table "web shop"."Visit" ("Visit No" integer, who text, basket numeric(10, 2), '
                "visited_at timestamp, written_at timestamptz, other text)"
            )
        )
        connection.execute(sa.text(f'grant usage on schema "web shop" to {reader}'))
        connection.execute(sa.text(f'grant select on "web shop"."Visit" to {reader}'))
    monkeypatch.setenv(
        "AIRFLOW_CONN_SHOP_DB", json.dumps({"conn_type": "postgres", "login": reader, "password": PASSWORD})
    )
    address = engine.url.set(username=None, password=None).render_as_string(hide_password=False) + "#web%20shop.Visit"
    made = Shop(opened, engine, address)
    made.by_cursor()
    yield made
    engine.dispose()


def test_a_table_lands_by_its_cursor_each_row_with_the_night_of_its_day(shop: Shop) -> None:
    shop.write(1, "2025-03-01 10:00+00")
    shop.write(2, "2025-03-03 00:00+00")  # the night that closes then has seen it
    shop.write(3, "2025-03-03 23:59+00", who="bea, née 'x'")
    shop.write(4, "2025-03-04 00:01+00")
    landed = shop.night()
    assert (landed.rows, landed.null_available_at, landed.quarantined) == (3, 0, ())
    assert landed.fetched[0].files == ("2025-03-01.parquet", "2025-03-02.parquet", "2025-03-03.parquet")
    assert shop.rows() == [(1, "2025-03-01.parquet"), (2, "2025-03-02.parquet"), (3, "2025-03-03.parquet")]
    assert shop.rows("who, basket, event_time = available_at")[-1] == ("bea, née 'x'", 1.5, True)
    assert shop.night().rows == 0, "twice is once"
    assert shop.night(1).rows == 1
    assert shop.rows()[-1] == (4, "2025-03-04.parquet")


def test_late_rows_come_with_the_next_night_and_none_twice(shop: Shop) -> None:
    shop.by_cursor(overlap="2h")
    shop.write(1, "2025-03-03 22:30+00")
    shop.write(1, "2025-03-03 22:30+00")  # two that are alike are two
    shop.write(2, "2025-03-03 23:30+00")
    assert shop.night().rows == 3
    shop.write(1, "2025-03-03 22:30+00")  # a third one
    shop.write(3, "2025-03-03 21:40+00")
    shop.write(4, "2025-03-03 20:00+00")  # later than the overlap forgives
    shop.write(5, "2025-03-03 23:30+00")  # as new as the newest
    assert shop.night().rows == 3, "the same night again"
    assert shop.landing() == ["2025-03-03-2.parquet", "2025-03-03.parquet"]
    shop.write(6, "2025-03-04 08:00+00")
    shop.write(7, "2025-03-03 23:50+00")
    shop.night(1)
    assert [number for number, _ in shop.rows()] == [1, 1, 1, 2, 3, 5, 6, 7]
    assert shop.rows()[-1] == (7, "2025-03-04.parquet"), "it was not there on its day"


def test_a_number_as_cursor_and_rows_that_are_known_when_they_are_fetched(shop: Shop) -> None:
    keys = f"{{from: '{shop.address}', connection: shop_db, cursor: visit_id, overlap: 1}}"
    shop.contract(keys, available_at="ingested_at", zone="Europe/Vienna")
    as_of = clock.midnight(clock.now().date())
    shop.write(1, "2025-03-01 10:00+00")
    shop.write(2, "2025-03-02 10:00+00")
    landed = features.ingest(shop.rails, as_of, ["shop"])["shop"]
    day = (as_of - timedelta(days=1)).date()
    assert landed.fetched[0].files == (f"{day}.parquet",)
    shop.write(3, "2025-03-02 10:00+00")
    assert features.ingest(shop.rails, as_of, ["shop"])["shop"].rows == 1
    assert [number for number, _ in shop.rows()] == [1, 2, 3]
    assert shop.rows("available_at = ingested_at, cast(event_time as varchar)")[0] == (True, "2025-03-01 09:00:00+00")


def test_a_row_like_one_that_came_alone_before_is_no_repeated_file(shop: Shop) -> None:
    for _ in range(3):
        shop.write(1, "2025-03-03 10:00+00")
        assert shop.night().rows == 1
    assert len(shop.rows()) == 3


def test_a_row_that_was_written_again_comes_again(shop: Shop) -> None:
    shop.write(1, "2025-03-03 10:00+00")
    shop.night()
    with shop.engine.begin() as connection:
        connection.execute(sa.text('update "web shop"."Visit" set basket = 9, written_at = \'2025-03-04 09:00+00\''))
    shop.night(1)
    assert shop.rows("visit_id, basket, source_file") == [
        (1, 1.5, "2025-03-03.parquet"), (1, 9.0, "2025-03-04.parquet"),
    ]  # fmt: skip


KILLED = """
import os, signal, sys
from pathlib import Path
from tiltyard import rails as rails_module
from tiltyard import clock
from tiltyard.prepare.fetch import step
from tiltyard.settings import Settings

rename, left = Path.rename, [int(sys.argv[1])]

def killed(self, target):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return rename(self, target)

Path.rename = killed
with rails_module.opened(Settings()) as rails:
    step.fetch_night(rails, "shop", clock.parse_as_of("2025-03-04"))
"""


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_killed_between_any_two_steps_nothing_is_lost_and_nothing_comes_twice(shop: Shop, renames: int) -> None:
    shop.by_cursor(overlap="7d")
    for day in (1, 2, 3):
        shop.write(day, f"2025-03-0{day} 10:00+00")
    settings = shop.rails.settings
    environment = {
        "TILTYARD_HOME": str(settings.home), "TILTYARD_DBT": str(settings.dbt), "TILTYARD_SOURCES": "shop",
        "TILTYARD_DATABASE_URL": str(settings.database_url), "TILTYARD_DATABASE_PREFIX": settings.database_prefix,
        "PYTHONPATH": str(ROOT / "plugins"),
    }  # fmt: skip
    process = subprocess.run([sys.executable, "-c", KILLED, str(renames)], env={**os.environ, **environment})
    assert process.returncode == -signal.SIGKILL
    shop.write(4, "2025-03-01 11:00+00")
    assert shop.night().rows == 4
    assert sorted(number for number, _ in shop.rows()) == [1, 2, 3, 4]
    assert all(name.endswith(".parquet") for name in shop.landing())


def test_a_column_that_does_not_fit_goes_to_quarantine_and_lands_once_it_does(shop: Shop) -> None:
    shop.write(1, "2025-03-03 10:00+00", who="ann")
    folder = shop.rails.settings.dbt / "models" / "staging" / "shop" / "_shop__sources.yml"
    good = folder.read_text()
    folder.write_text(good.replace("name: who, data_type: varchar", "name: who, data_type: integer"))
    shop.rails.lake.connection.execute("drop table lake.raw.visit")
    shop.rails.lake._ensured.clear()
    landed = shop.night()
    assert [file.reason for file in landed.quarantined] == ["column 'who' is VARCHAR instead of INTEGER"]
    shop.rails.lake.connection.execute("drop table lake.raw.visit")
    shop.rails.lake._ensured.clear()
    folder.write_text(good)
    assert shop.night(1).rows == 1
    assert shop.rows() == [(1, "2025-03-03.parquet")]


def test_a_column_that_the_table_lost_is_named(shop: Shop) -> None:
    shop.write(1, "2025-03-03 10:00+00")
    with shop.engine.begin() as connection:
        connection.execute(sa.text('alter table "web shop"."Visit" drop column who'))
    assert [file.reason for file in shop.night().quarantined] == ["column 'who' is missing"]
    with shop.engine.begin() as connection:
        connection.execute(sa.text('alter table "web shop"."Visit" drop column written_at'))
    with pytest.raises(BadInput, match="has no column 'written_at'"):
        shop.night()


def test_a_database_that_is_away_makes_its_table_late_until_it_is_back(shop: Shop) -> None:
    there = shop.address
    shop.address = "postgresql://reader@127.0.0.1:1/shop#web%20shop.Visit"
    shop.by_cursor()
    landed = shop.night()
    assert landed.rows == 0
    assert "postgresql://reader@127.0.0.1:1/shop does not answer" in landed.away[0]
    assert set(step.away(shop.rails, "shop", FIRST.date())) == {"raw.visit"}
    shop.address = there
    shop.by_cursor()
    shop.write(1, "2025-03-03 10:00+00")
    assert shop.night().rows == 1
    assert step.away(shop.rails, "shop", FIRST.date()) == {}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"connection": "nobody"}, "no connection 'nobody'.*AIRFLOW_CONN_NOBODY"),
        ({"from": "'{address}s'"}, "is no table for us"),
        ({"from": "'nosuch://host/shop#visit'"}, "no driver is installed"),
    ],
)
def test_what_refuses_says_what_to_mend(shop: Shop, change: dict[str, str], sentence: str) -> None:
    shop.by_cursor(**{name: value.format(address=shop.address) for name, value in change.items()})
    with pytest.raises(BadInput, match=sentence):
        shop.night()


def test_who_may_not_read_is_told_so_without_the_password(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    reader = json.loads(os.environ["AIRFLOW_CONN_SHOP_DB"])["login"]
    with shop.engine.begin() as connection:
        connection.execute(sa.text(f'revoke all on "web shop"."Visit" from {reader}'))
    with pytest.raises(BadInput, match="permission denied") as raised:
        shop.night()
    assert PASSWORD not in str(raised.value)
    assert PASSWORD not in caplog.text


def test_a_wrong_password_is_shown_to_nobody(tmp_path: Path) -> None:
    """By a server that quotes what it was given, as one behind a proxy may."""
    from tiltyard.prepare.fetch.credentials import Connection, find, without

    text = json.dumps({"conn_type": "postgres", "login": "me", "password": PASSWORD, "extra": {"sslkey": "k-9f31"}})
    connection = find("shop_db", lambda name: text)
    assert isinstance(connection, Connection)
    assert PASSWORD not in repr(connection)
    assert "k-9f31" not in repr(connection)
    said = f'FATAL: "{PASSWORD}" is wrong for postgresql://me:pX7%21qc%27ata%5Clog%40uE9zW@host, k-9f31'
    assert without(said, connection) == 'FATAL: "…" is wrong for postgresql://me:…@host, …'
    uri = find("shop_db", lambda name: "postgres://me:p%40ss%2Fword@db:5433/shop?sslmode=require")
    assert uri is not None
    assert (uri.host, uri.port, uri.login, uri.password, uri.database) == ("db", 5433, "me", "p@ss/word", "shop")
    with pytest.raises(BadInput, match="neither a URI nor JSON") as raised:
        find("shop_db", lambda name: f"{{'password': '{PASSWORD}'")
    assert PASSWORD not in str(raised.value)


def test_sqlite_too_by_a_day_as_cursor(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "create table visit (number integer, day date, paid boolean, note blob, price decimal(9, 2))"
        )
        connection.executemany(
            "insert into visit values (?, ?, ?, ?, ?)",
            [(1, "2025-03-01", True, None, 1.25), (2, "2025-03-02", None, b"x", None), (3, None, False, None, 2)],
        )
    address, into = f"sqlite:///{path}#visit", tmp_path / "out.parquet"
    window = database.Window("day", FIRST.date() - timedelta(days=2), None)
    assert database.read(address, None, ["number", "day", "paid", "price"], window, into) == 1
    assert duckdb.sql(f"select * from '{into}'").fetchall() == [(2, FIRST.date() - timedelta(days=2), None, None)]
    assert database.read(address, None, [], None, into) == 3
    assert duckdb.sql(f"select price from '{into}' order by number").fetchall()[0] == (1.25,)
    with pytest.raises(Unavailable, match="is not there"):
        database.read(f"sqlite:///{tmp_path}/gone.db#visit", None, [], None, into)
    assert not (tmp_path / "gone.db").exists()
    with pytest.raises(BadInput, match="no column 'week'"):
        database.read(address, None, [], database.Window("week", None, None), into)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("decimal(9, 2)", "n/a", "not of its column's type"),
        ("timestamp", "yesterday", "not of its column's type"),
        ("integer", "many", "'value' of visit holds a value that is no int64"),
    ],
)
def test_a_value_that_is_not_of_its_column_is_told_with_its_table(
    tmp_path: Path, kind: str, value: object, said: str
) -> None:
    """A database that does not hold its columns to their types gives what its driver cannot read."""
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"create table visit (number integer, value {kind})")
        connection.execute("insert into visit values (1, ?)", [str(value)])
    with pytest.raises(BadInput, match=said) as raised:
        database.read(f"sqlite:///{path}#visit", None, [], None, tmp_path / "out.parquet")
    assert "give the table a view" in str(raised.value)


def test_an_identifier_that_a_number_would_shorten_is_told(shop: Shop, tmp_path: Path) -> None:
    """PostgreSQL's numeric has any number of digits."""
    address = shop.engine.url.render_as_string(hide_password=False) + "#web%20shop.Visit"
    for value, is_kept in (("12345678901234567890", False), ("9007199254740993", False), ("0.1", True), ("1e20", True)):
        with shop.engine.begin() as connection:
            connection.execute(
                sa.text('alter table "web shop"."Visit" drop column if exists code, add column code numeric')
            )
        shop.write(1, "2025-03-01")
        with shop.engine.begin() as connection:
            connection.execute(sa.text('update "web shop"."Visit" set code = :value'), {"value": value})
        if is_kept:
            assert database.read(address, None, ["code"], None, tmp_path / "out.parquet")
            assert duckdb.sql(f"select distinct code from '{tmp_path}/out.parquet'").fetchall() == [(float(value),)]
        else:
            with pytest.raises(BadInput, match=r"'code' of Visit holds a value that is no double.*or a text"):
                database.read(address, None, ["code"], None, tmp_path / "out.parquet")
