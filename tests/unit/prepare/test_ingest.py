"""Ingest: exactly once through kills and races, whole files to quarantine, contracts that hold."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import pytest
import sqlalchemy as sa

from tiltyard import clock, file_rows
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput, Fenced
from tiltyard.prepare import checks, contracts, datasets, ingest, landing
from tiltyard.prepare.landing import LandingFile
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.tables import LANDED_FILE

CONTRACT = """
sources:
  - name: shop
    tables:
      - name: sale
        config: {meta: {tiltyard: {event_time: {column: sold_at}, available_at: {column: sold_at}, null_values: ["?"]}}}
        columns:
          - {name: item, data_type: varchar}
          - {name: pieces, data_type: bigint}
          - {name: sold_at, data_type: timestamptz}
      - name: visit
        config: {meta: {tiltyard: {event_time: {column: day, zone: Europe/Vienna}, available_at: ingested_at}}}
        columns: [{name: day, data_type: varchar}]
"""
GOOD = "item,pieces,sold_at\ntea,3,2025-01-01T08:00:00Z\n?,1,2025-01-01 09:30:00+01\n"
NIGHT = clock.parse_as_of("2025-01-02")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Rails]:
    home = tmp_path_factory.mktemp("shop [1]")  # a bracket in a path is no pattern
    folder = home / "dbt" / "models" / "staging" / "shop"
    folder.mkdir(parents=True)
    (folder / "_shop__sources.yml").write_text(CONTRACT)
    prefix = f"t{uuid.uuid4().hex[:8]}_"
    settings = Settings(home=home, dbt=home / "dbt", database_url=postgres_url, database_prefix=prefix)
    with rails_module.opened(settings) as rails:
        yield rails


@pytest.fixture
def shop(opened: Rails) -> Rails:
    """An empty shop: opening a lake takes longer than emptying one."""
    for folder in (opened.settings.landing, opened.settings.quarantine):
        shutil.rmtree(folder, ignore_errors=True)
    for table in ("raw.sale", "raw.visit", LANDED_FILE):
        if opened.lake.has(table):
            opened.lake.connection.execute(f"delete from lake.{table}")
    with opened.ledger.engine.begin() as connection:
        connection.execute(sa.text("delete from event"))
    return opened


def deliver(rails: Rails, name: str, content: str | bytes, table: str = "sale") -> Path:
    path = rails.settings.landing / "shop" / table / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet(rails: Rails, name: str, select: str) -> Path:
    path = deliver(rails, name, b"")
    duckdb.execute(f"copy ({select}) to '{path}' (format parquet)")
    return path


@contextmanager
def contract(rails: Rails, text: str) -> Iterator[None]:
    """Another contract with the shop for as long, whose raw table has its types."""
    path = rails.settings.dbt / "models" / "staging" / "shop" / "_shop__sources.yml"
    rails.lake.connection.execute("drop table if exists lake.raw.sale")
    rails.lake._ensured.clear()
    try:
        path.write_text(text)
        yield
    finally:
        path.write_text(CONTRACT)
        rails.lake.connection.execute("drop table if exists lake.raw.sale")
        rails.lake._ensured.clear()


def rows(rails: Rails, columns: str = "item, pieces", table: str = "sale") -> list[tuple[Any, ...]]:
    return rails.lake.connection.execute(f"select {columns} from lake.raw.{table} order by all").fetchall()


def test_csv_gzip_and_parquet_of_one_table_land_alike(shop):
    deliver(shop, "2025-01-01.csv", "\ufeff" + GOOD.replace("\n", "\r\n"))
    other_order = 'sold_at,item,pieces\n2025-01-01T10:00:00Z,"milk, fresh",\n'
    deliver(shop, "2025-01-01-b.csv.gz", gzip.compress(other_order.encode()))
    select = "select 'salt' as item, 7::integer as pieces, timestamptz '2025-01-01 11:00:00+00' as sold_at"
    parquet(shop, "2025-01-01-c.parquet", select)
    result = ingest.land_night(shop, "shop", NIGHT)
    assert (result.files, result.rows, result.quarantined) == (3, 4, ())
    assert rows(shop) == [("milk, fresh", None), ("salt", 7), ("tea", 3), (None, 1)]
    times = rows(shop, "hour(event_time), hour(available_at), source_file, row_number, landed_night")
    assert times == [
        (8, 8, "2025-01-01.csv", 1, date(2025, 1, 2)),
        (8, 8, "2025-01-01.csv", 2, date(2025, 1, 2)),
        (10, 10, "2025-01-01-b.csv.gz", 1, date(2025, 1, 2)),
        (11, 11, "2025-01-01-c.parquet", 1, date(2025, 1, 2)),
    ]


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "varchar"])
def test_a_time_without_a_zone_is_read_in_that_of_the_contract_whatever_its_type(shop, kind):
    """And a zone in the text counts."""
    path = shop.settings.dbt / "models" / "staging" / "shop" / "_shop__sources.yml"
    mended = CONTRACT.replace("{column: sold_at}", "{column: sold_at, zone: Europe/Vienna}")
    shop.lake.connection.execute("drop table if exists lake.raw.sale")
    shop.lake._ensured.clear()
    try:
        path.write_text(mended.replace("sold_at, data_type: timestamptz", f"sold_at, data_type: {kind}"))
        written = [
            "2025-01-01 09:00:00", "2025-01-01T09:00:00Z", "2025-01-01 09:00:00.5+03", "2025-01-01",
            "2025-01-01 12:00:00 UTC", "2025-01-01 13:00:00 +0200", "2025-07-01 13:00:00 Asia/Tokyo",
        ]  # fmt: skip
        deliver(shop, "2025-01-01.csv", "item,pieces,sold_at\n" + "".join(f"x,1,{text}\n" for text in written))
        assert not ingest.land_night(shop, "shop", NIGHT).quarantined
        instants = [
            "2025-01-01 08:00:00+00",
            "2025-01-01 09:00:00+00",
            "2025-01-01 06:00:00.5+00",
            "2024-12-31 23:00:00+00",
            "2025-01-01 12:00:00+00",
            "2025-01-01 11:00:00+00",
            "2025-07-01 04:00:00+00",
        ]
        assert rows(shop, "event_time::varchar, available_at::varchar") == sorted((text, text) for text in instants)
        if kind == "timestamptz":
            assert rows(shop, "sold_at::varchar") == sorted((text,) for text in instants)
        if kind == "timestamp":
            assert rows(shop, "timezone('Europe/Vienna', sold_at) = event_time") == [(True,)] * len(instants)
    finally:
        path.write_text(CONTRACT)
        shop.lake.connection.execute("drop table lake.raw.sale")
        shop.lake._ensured.clear()


def test_where_the_source_cannot_prove_it_available_at_is_when_it_was_ingested(shop):
    deliver(shop, "2025-01-01.csv", "day\n2025-01-01 12:00\n2025-01-01T12:00:00Z\n", table="visit")
    before = clock.now()
    ingest.land_night(shop, "shop", NIGHT)
    found = rows(shop, "hour(event_time), available_at = ingested_at, available_at", "visit")
    assert [row[:2] for row in found] == [(11, True), (12, True)]  # noon in Vienna is eleven
    assert all(before <= row[2] <= clock.now() for row in found)


def test_a_load_is_stamped_after_the_one_before_whatever_the_clock_says(shop, monkeypatch, caplog):
    """What is made of raw rows takes up those that were loaded after its own newest one."""
    usual, stamps = clock.now, []
    for name, ahead in (("2025-01-01.csv", 900), ("2025-01-01-b.csv", 0), ("2025-01-01-c.csv", 800)):
        monkeypatch.setattr(clock, "now", lambda ahead=ahead: usual() + timedelta(seconds=ahead))
        deliver(shop, name, GOOD.replace("tea", name))
        ingest.land_night(shop, "shop", NIGHT)
        [(stamp,)] = shop.lake.connection.execute(
            "select distinct ingested_at from lake.raw.sale where source_file = ?", [name]
        ).fetchall()
        stamps.append(stamp)
    assert stamps == sorted(set(stamps))
    [told] = [record.getMessage() for record in caplog.records if "clock" in record.getMessage()]
    assert told.startswith("shop: the clock of this machine is at ") and "No row is lost by it" in told


TEXTS_OF_A_TYPE = {
    "bigint": ["3.7", "2.5", "1e-5", "1e3", "0x1F", "0b11", "1_000", "1,000", "--1", "\u0663", "9223372036854775808"],
    "integer": ["2147483648", "0.5"],
    "double": ["0x1F", "1_000", "1.5_5", "1,5", "1e400", "one"],
    "boolean": ["2", "1.0", "on", "ja"],
    "date": ["25-01-01", "2025-01-01 10:00:00", "2025-01-1x", "2025-02-30", "01/02/2025", "epoch"],
    "timestamp": ["25-01-01 10:00:00", "2016-12-31 23:59:60", "2025-01-01 10:00:00 CST", "2025-01-01 10:00 PM"],
    "timestamptz": ["2025-01-01T10:00:00x", "12:00:00", "20250101T100000Z"],
}
"""Type → texts that are none of it. DuckDB would take most of them."""


@pytest.mark.parametrize("kind", TEXTS_OF_A_TYPE)
def test_a_text_that_is_not_of_its_type_stops_its_file_and_no_other(shop, kind):
    with contract(shop, CONTRACT.replace("item, data_type: varchar", f"item, data_type: {kind}")):
        for number, text in enumerate(TEXTS_OF_A_TYPE[kind]):
            content = f'item,pieces,sold_at\n,1,2025-01-01T08:00:00Z\n"{text}",2,2025-01-01T08:00:00Z\n'
            deliver(shop, f"2025-01-01-{number}.csv", content)
        deliver(shop, "2025-01-01.csv", "item,pieces,sold_at\n,3,2025-01-01T08:00:00Z\n")
        result = ingest.land_night(shop, "shop", NIGHT)
        assert rows(shop) == [(None, 3)]
        assert len(result.quarantined) == len(TEXTS_OF_A_TYPE[kind])
        for refused in result.quarantined:
            text = TEXTS_OF_A_TYPE[kind][int(refused.file.split("-")[-1].removesuffix(".csv"))]
            said = f"its rows cannot be read (column 'item' is '{text}' in row 2, which is no {contracts.TYPES[kind]})"
            assert refused.reason == said


def test_a_text_that_is_of_its_type_lands_as_what_it_is(shop):
    whole = {"7": 7, "+7": 7, "-7": -7, " 7 ": 7, "007": 7, "7.0": 7, "9223372036854775807": 2**63 - 1}
    deliver(shop, "2025-01-01.csv", "pieces,item,sold_at\n" + "".join(f"{x},{x},2025-01-01\n" for x in whole))
    assert ingest.land_night(shop, "shop", NIGHT).quarantined == ()
    assert dict(rows(shop)) == whole


def test_a_decimal_comma_is_no_point_between_thousands(shop):
    form = 'null_values: ["?"], format: {delimiter: ";", decimal: ","}'
    changed = CONTRACT.replace("pieces, data_type: bigint", "pieces, data_type: double")
    with contract(shop, changed.replace('null_values: ["?"]', form)):
        head = "item;pieces;sold_at\n"
        deliver(shop, "2025-01-01.csv", head + "".join(f"{x};{x};2025-01-01\n" for x in ("1,5", "-,25", "3", "2,5e3")))
        deliver(shop, "2025-01-01-b.csv", head + "1.500;1.500;2025-01-01\n")
        [refused] = ingest.land_night(shop, "shop", NIGHT).quarantined
        assert "column 'pieces' is '1.500' in row 1, which is no DOUBLE" in refused.reason
        assert rows(shop) == [("-,25", -0.25), ("1,5", 1.5), ("2,5e3", 2500.0), ("3", 3.0)]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_folders_that_a_home_lies_in_change_nothing(tmp_path, postgres_url, kind):
    settings = Settings(
        home=tmp_path / "item=salt" / "env=prod" / "pieces=9", dbt=tmp_path / "dbt", database_url=postgres_url,
        database_prefix=f"t{uuid.uuid4().hex[:8]}_",
    )  # fmt: skip
    folder = settings.dbt / "models" / "staging" / "shop"
    folder.mkdir(parents=True)
    (folder / "_shop__sources.yml").write_text(CONTRACT)
    with rails_module.opened(settings) as rails:
        if kind == "csv":
            deliver(rails, "2025-01-01.csv", GOOD)
        else:
            parquet(rails, "2025-01-01.parquet", "select 'tea' as item, 3 as pieces, now() as sold_at "
                                                 "union all select null, 1, now()")  # fmt: skip
        assert ingest.land_night(rails, "shop", NIGHT).quarantined == ()
        assert rows(rails) == [("tea", 3), (None, 1)]


def test_a_column_may_be_called_what_an_engine_would_call_its_own(shop):
    names = ("filename", "file_row_number", "file_index", "row", "column0", "name", "line", "hive_partitioning")
    declared = "".join(f"          - {{name: {name}, data_type: varchar}}\n" for name in names)
    with contract(shop, CONTRACT.replace("          - {name: pieces", f"{declared}          - {{name: pieces")):
        header = f"item,{','.join(names)},pieces,sold_at\n"
        for number in range(2):
            line = f"tea,{','.join(f'{name}{number}' for name in names)},{number},2025-01-01\n"
            deliver(shop, f"2025-01-01-{number}.csv", header + line * 2)
            values = ", ".join(f"'{name}{number}' as {name}" for name in names)
            select = f"select 'salt' as item, {values}, {number} as pieces, now() as sold_at"
            parquet(shop, f"2025-01-01-{number}.parquet", f"{select} union all {select}")
        assert ingest.land_night(shop, "shop", NIGHT).quarantined == ()
        found = rows(shop, f"source_file, row_number, {', '.join(names)}")
        assert found == [
            (f"2025-01-01-{number}.{ending}", place, *(f"{name}{number}" for name in names))
            for number in range(2) for ending in ("csv", "parquet") for place in (1, 2)
        ]  # fmt: skip


def test_a_day_that_no_clock_shows_the_end_of_stops_nothing(shop):
    for name in ("9999-12-31.csv", "9999-12-31T23.csv", "9999-12-30.csv", "0001-01-01.csv", "0000-01-01.csv"):
        deliver(shop, name, GOOD.replace("tea", name))
    deliver(shop, "2025-01-01.csv", GOOD)
    result = ingest.land_night(shop, "shop", NIGHT)
    assert [item for item, _ in rows(shop) if item] == ["0001-01-01.csv", "tea"]
    assert {file.file for file in result.quarantined} == {
        f"sale/{name}.csv" for name in ("9999-12-31", "9999-12-31T23", "0000-01-01")
    }
    assert (shop.settings.landing / "shop" / "sale" / "9999-12-30.csv").exists(), "it is not due yet"


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date", "varchar"])
def test_an_instant_that_python_cannot_hold_is_null_and_counted(shop, kind, form):
    texts = ["infinity", "-infinity", "10000-01-01", "0044-03-15 (BC)", "290000-01-01"]
    with contract(shop, CONTRACT.replace("sold_at, data_type: timestamptz", f"sold_at, data_type: {kind}")):
        if form == "csv":
            content = "".join(f"x,{number},{text}\n" for number, text in enumerate([*texts, "2025-01-01"]))
            deliver(shop, "2025-01-01.csv", "item,pieces,sold_at\n" + content)
        else:
            values = ", ".join(f"('x', {number}, '{text}')" for number, text in enumerate([*texts, "2025-01-01"]))
            select = (
                f"select item, pieces, sold_at::{kind} as sold_at from (values {values}) as t (item, pieces, sold_at)"
            )
            parquet(shop, "2025-01-01.parquet", select)
        result = ingest.land_night(shop, "shop", NIGHT)
        assert (result.rows, result.null_available_at, result.null_event_time) == (6, 5, 5)
        if kind != "varchar":
            assert result.beyond == 5
            assert "5 instants infinite, before the year 1 or after 9999: NULL from here on" in result.notes
        assert rows(shop, "pieces, event_time is null, available_at is null") == [
            *((number, True, True) for number in range(5)), (5, False, False)
        ]  # fmt: skip
        night = clock.parse_as_of("2025-01-02")
        assert shop.lake.query("select pieces, available_at from {raw.sale}", night)["pieces"].tolist() == [5]


def test_what_was_landed_as_an_endless_time_before_is_never_seen(shop):
    deliver(shop, "2025-01-01.csv", GOOD)
    ingest.land_night(shop, "shop", NIGHT)
    for far in ("infinity", "-infinity", "10000-01-01 00:00:00+00", "0044-03-15 (BC) 00:00:00+00"):
        shop.lake.connection.execute(
            "insert into lake.raw.sale select * replace ($far::timestamptz as event_time, $far::timestamptz as "
            "available_at, $far::timestamptz as sold_at) from lake.raw.sale where row_number = 1 limit 1", {"far": far},
        )  # fmt: skip
    assert shop.lake.query("select pieces, available_at from {raw.sale}", NIGHT)["pieces"].tolist() == [3, 1]
    report = checks.check_batch(shop, "freshness", NIGHT, source="shop")
    [undated] = [result for result in report.results if result.column == "undated_rows" and not result.success]
    assert undated.said == "3, at most 0"
    checks.check_batch(shop, "leakage", NIGHT, source="shop")


def test_an_hour_that_clocks_show_twice_is_the_first_and_one_that_they_skip_the_next(shop):
    """What dbt/macros/wall_clock.sql says."""
    with contract(shop, CONTRACT.replace("{column: sold_at}", "{column: sold_at, zone: Europe/Vienna}")):
        shown = {
            "2024-10-27 01:30:00": "2024-10-26 23:30:00+00", "2024-10-27 02:30:00": "2024-10-27 00:30:00+00",
            "2024-10-27 02:30:00+01": "2024-10-27 01:30:00+00", "2024-10-27 03:30:00": "2024-10-27 02:30:00+00",
            "2024-10-27 20:00:00": "2024-10-27 19:00:00+00", "2024-03-31 02:30:00": "2024-03-31 01:30:00+00",
            "2024-03-31 03:30:00": "2024-03-31 01:30:00+00", "2024-03-31 20:00:00": "2024-03-31 18:00:00+00",
        }  # fmt: skip
        deliver(shop, "2025-01-01.csv", "item,pieces,sold_at\n" + "".join(f"{text},1,{text}\n" for text in shown))
        ingest.land_night(shop, "shop", NIGHT)
        assert dict(rows(shop, "item, event_time::varchar")) == shown
        assert dict(rows(shop, "item, sold_at::varchar")) == shown


@pytest.mark.parametrize(("zone", "day", "minutes", "instant"), [
    ("Europe/Vienna", "2024-10-27", 150, "2024-10-27 00:30:00+00"),
    ("Europe/Vienna", "2024-10-27", 180, "2024-10-27 02:00:00+00"),
    ("Europe/Vienna", "2024-03-31", 150, "2024-03-31 01:30:00+00"),
    ("America/Los_Angeles", "2024-11-03", 90, "2024-11-03 08:30:00+00"),
    ("America/Los_Angeles", "2024-11-03", 120, "2024-11-03 10:00:00+00"),
    ("America/Los_Angeles", "2024-11-04", 90, "2024-11-04 09:30:00+00"),
    ("Australia/Lord_Howe", "2025-04-06", 105, "2025-04-05 14:45:00+00"),
])  # fmt: skip
def test_the_macro_of_wall_clocks_does_as_its_comment_says(settings, zone, day, minutes, instant):
    text = (settings.dbt / "macros" / "wall_clock.sql").read_text()
    body = text[text.index("{% macro duckdb__wall_clock") :].replace("duckdb__wall_clock", "shown")
    sql = jinja2.Template(f"{body}{{{{ shown(\"date '{day}'\", {minutes}, '{zone}') }}}}").render()
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        assert connection.execute(f"select ({sql})::varchar").fetchone() == (instant,)


def test_what_nobody_expects_in_a_folder_is_left_alone_and_said(shop):
    """And keeps nobody from landing."""
    path = deliver(shop, "2025-01-01.csv", GOOD)
    table, source = path.parent, path.parent.parent
    for deep in ("2024/01/2024-01-01.csv", "2024/01/2024-01-02.csv", "old/x.csv"):
        (table / deep).parent.mkdir(parents=True, exist_ok=True)
        (table / deep).write_text(GOOD)
    (source / "lost+found").mkdir()
    (source / "lost+found" / "#123").write_text("?")
    (source / "2025-01-01.csv").write_text(GOOD)
    (table / ".DS_Store").write_text("?")
    for name in ("README.txt", "notes.md", "SHA256SUMS"):
        (table / name).write_text("?")
    (table / "2025-01-01-b.csv").symlink_to(table / "nothing.csv")
    os.mkfifo(table / "2025-01-01-c.csv")
    (source.parent / "lost+found").mkdir()
    (source.parent / "archive").mkdir()
    (source.parent / "readme.txt").write_text("?")
    result = ingest.land_night(shop, "shop", NIGHT)
    assert (result.files, result.quarantined) == (1, ())
    there = shop.settings.landing
    assert set(result.left_alone) == {
        f"{there}/shop/2025-01-01.csv lies beside the folders of the tables, in none of them; it is left alone",
        f"{there}/shop/lost+found is no folder of a table of shop; it is left alone",
        f"{there}/shop/sale/.DS_Store is hidden, or still being written; it is left alone",
        f"{there}/shop/sale/2024/01/2024-01-01.csv lies a folder too deep; it is left alone, like 2 more",
        f"{there}/shop/sale/2025-01-01-b.csv leads elsewhere, and a delivery is a file of its own; it is left alone",
        f"{there}/shop/sale/2025-01-01-c.csv is named like a delivery and is no file (a pipe); it is left alone",
        f"{there}/shop/sale/README.txt is named like no delivery, and holds none by its ending; it is left alone, like "
        "2 more",
        f"{there}/archive is the folder of no source that has a contract; it is left alone, like 2 more",
    }
    assert Settings(home=shop.settings.home, dbt=shop.settings.dbt).sources == ("shop",)
    assert json.loads(json.dumps(result.to_json()))["left_alone"] == list(result.left_alone)


@pytest.mark.parametrize("kind", ["double", "varchar", "integer"])
def test_a_column_that_the_contract_gives_another_type_is_refused(shop, kind):
    """Cast to what the table has, 2.5 pieces would be 2."""
    deliver(shop, "2025-01-01.csv", GOOD)
    ingest.land_night(shop, "shop", NIGHT)
    path = shop.settings.dbt / "models" / "staging" / "shop" / "_shop__sources.yml"
    path.write_text(CONTRACT.replace("data_type: bigint", f"data_type: {kind}"))
    deliver(shop, "2025-01-02.csv", GOOD.replace("tea,3", "tea,2.5"))
    try:
        with pytest.raises(BadInput, match=rf"raw.sale: the contract makes column 'pieces' {kind.upper()}, .* BIGINT"):
            ingest.land_night(shop, "shop", NIGHT + timedelta(days=1))
    finally:
        path.write_text(CONTRACT)
    assert rows(shop) == [("tea", 3), (None, 1)]


def test_a_file_that_is_replaced_while_it_is_read_lands_with_the_next_look(shop, monkeypatch):
    usual, path = ingest._read, deliver(shop, "2025-01-01.csv", GOOD)
    deliver(shop, "2025-01-01-b.csv", GOOD.replace("tea", "salt"))

    def read(*asked):
        usual(*asked)
        path.write_text(
            GOOD.replace("item,pieces,sold_at", "item,sold_at,pieces")
            .replace("3,2025-01-01T08:00:00Z", "2025-01-01T08:00:00Z,3")
            .replace("1,2025-01-01 09:30:00+01", "2025-01-01 09:30:00+01,1")
        )

    with monkeypatch.context() as trap:
        trap.setattr(ingest, "_read", read)
        assert ingest.land_night(shop, "shop", NIGHT).files == 1
    assert rows(shop, "source_file") == [("2025-01-01-b.csv",)] * 2
    assert ingest.land_night(shop, "shop", NIGHT).files == 1
    assert rows(shop) == [("salt", 3), ("tea", 3), (None, 1), (None, 1)]


def test_a_name_that_is_no_text_goes_to_quarantine_and_is_told(shop):
    path = deliver(shop, "2025-01-01.csv", GOOD)
    path.rename(os.fsdecode(os.fsencode(path.parent) + b"/2025-01-01\xff.csv"))
    result = ingest.land_night(shop, "shop", NIGHT)
    assert [file.file for file in result.quarantined] == ["sale/2025-01-01\\udcff.csv"]
    json.dumps(result.to_json())


def test_what_leads_elsewhere_or_is_no_file_is_left_alone(shop, caplog):
    path = deliver(shop, "2025-01-01.csv", GOOD)
    (path.parent / "2025-01-02.csv").mkdir()
    (path.parent.parent / "copy").symlink_to(path.parent)
    early = deliver(shop, "2025-03-01.csv", GOOD, table="nothing")
    result = ingest.land_night(shop, "shop", NIGHT + timedelta(days=1))
    assert (result.files, result.quarantined) == (1, ())
    assert early.exists(), "it is not due yet"
    assert "2025-01-02.csv is named like a delivery and is no file" in caplog.text
    assert "copy leads elsewhere and is no table of shop" in caplog.text


BROKEN = {
    "empty": (b"", "0 bytes"),
    "header without end": (b"a" * (2 << 20) + b"\n1\n", "its first line is no header"),
    "columns without end": (",".join(map(str, range(150_000))) + "\n1\n", "is not in the contract (renamed?)"),
    "column missing": ("item,sold_at\ntea,2025-01-01T08:00Z\n", "column 'pieces' is missing"),
    "column extra": ("item,pieces,sold_at,colour\ntea,1,2025-01-01T08:00Z,red\n", "'colour' is not in the contract"),
    "column renamed": ("item,count,sold_at\ntea,1,2025-01-01T08:00Z\n", "renamed?"),
    "column twice": ("item,item,pieces,sold_at\ntea,tea,1,2025-01-01T08:00Z\n", "'item' is there twice"),
    "semicolons": (GOOD.replace(",", ";"), "semicolons"),
    "last line cut off": (GOOD[:-9], "last line is cut off"),
    "a line with a field too many": (GOOD + "tea,1,2025-01-01T08:00:00Z,x\n", "rows cannot be read"),
    "a line with a field too few": (GOOD + "tea,1\n", "rows cannot be read"),
    "text for a number": (GOOD.replace("tea,3", "tea,three"), "three"),
    "not UTF-8": (GOOD.replace("tea", "th\xe9").encode("latin-1"), "rows cannot be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_goes_to_quarantine_whole_and_the_others_land(shop, case):
    content, reason = BROKEN[case]
    deliver(shop, "2025-01-01-a.csv", content)
    deliver(shop, "2025-01-01-b.csv", GOOD)
    result = ingest.land_night(shop, "shop", NIGHT)
    [refused] = result.quarantined
    assert refused.file == "sale/2025-01-01-a.csv"
    assert reason in refused.reason
    assert "\n" not in refused.reason
    assert rows(shop) == [("tea", 3), (None, 1)]
    assert not (shop.settings.landing / "shop" / "sale" / "2025-01-01-a.csv").exists()
    kept = shop.settings.quarantine / "shop" / "sale" / "2025-01-01-a.csv"
    assert kept.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert json.loads(kept.with_name(kept.name + ".reason.json").read_text())["reason"] == refused.reason
    assert ingest.land_night(shop, "shop", NIGHT).quarantined == ()


def test_packed_files_that_are_cut_off_or_wrong_go_to_quarantine(shop):
    deliver(shop, "2025-01-01-a.csv.gz", gzip.compress(GOOD.encode() * 50)[:-20])
    deliver(shop, "2025-01-01-b.csv.gz", GOOD)
    whole = parquet(shop, "2025-01-01-c.parquet", "select 'a' as item, 1 as pieces, now() as sold_at").read_bytes()
    deliver(shop, "2025-01-01-c.parquet", whole[:-30])
    parquet(shop, "2025-01-01-d.parquet", "select 'a' as item, 'one' as pieces, now() as sold_at")
    deliver(shop, "2025-01-01-e.parquet", whole[:4] + bytes(len(whole) // 3) + whole[4 + len(whole) // 3 :])
    deliver(shop, "monday.csv", GOOD)
    deliver(shop, "2025-13-01.csv", GOOD)
    deliver(shop, "2025-01-01.csv", GOOD, table="refund")
    result = ingest.land_night(shop, "shop", NIGHT)
    reasons = {refused.file: refused.reason for refused in result.quarantined}
    assert "cut off" in reasons["sale/2025-01-01-a.csv.gz"]
    assert "cannot be unpacked" in reasons["sale/2025-01-01-b.csv.gz"]
    assert "cut off" in reasons["sale/2025-01-01-c.parquet"]
    assert "'pieces' is VARCHAR instead of BIGINT" in reasons["sale/2025-01-01-d.parquet"]
    assert "sale/2025-01-01-e.parquet" in reasons
    assert "name is not like" in reasons["sale/monday.csv"]
    assert "name is not like" in reasons["sale/2025-13-01.csv"]
    assert "no table 'refund'" in reasons["refund/2025-01-01.csv"]
    assert rows(shop) == []


def test_what_is_still_being_written_is_left_alone(shop):
    names = (".2025-01-01.csv", "2025-01-01.csv.part", "2025-01-01.csv.tmp")
    paths = [deliver(shop, name, GOOD[:-4]) for name in names]
    result = ingest.land_night(shop, "shop", NIGHT)
    assert (result.files, result.quarantined) == (0, ())
    assert all(path.exists() for path in paths)


def test_a_second_bad_file_of_the_same_name_does_not_hide_the_first(shop):
    for content in ("a\n1\n", "b\n1\n"):
        deliver(shop, "2025-01-01.csv", content)
        ingest.land_night(shop, "shop", NIGHT)
    kept = sorted((shop.settings.quarantine / "shop" / "sale").glob("*.csv"))
    assert sorted(path.read_text() for path in kept) == ["a\n1\n", "b\n1\n"]


def test_a_landing_zone_that_lets_nothing_go_is_named_and_not_the_quarantine(shop):
    file = landing.LandingFile.of(Path("/proc/version"), None)  # which nobody may remove, root neither
    said = landing.put_away(shop.settings, "shop", file, "it is no table", clock.night_closing(NIGHT))
    assert said.startswith("it is no table; it stays in the landing zone, for /proc does not let it go (")
    kept = shop.settings.quarantine / "shop" / "proc" / "version"
    assert kept.read_bytes() == Path("/proc/version").read_bytes()


def test_what_went_to_quarantine_is_told_for_a_week(shop):
    deliver(shop, "2025-01-01.csv", GOOD, table="refund")
    deliver(shop, "2025-01-01.csv", GOOD)
    ingest.land_night(shop, "shop", NIGHT)
    night = clock.night_closing(NIGHT)
    [file] = ingest.quarantined(shop, "shop", night)
    assert (file.source, file.file, file.night) == ("shop", "refund/2025-01-01.csv", night)
    assert str(file) == "refund/2025-01-01.csv on 2025-01-02: there is no table 'refund' in the contract of shop"
    ingest.land_night(shop, "shop", NIGHT)  # it is gone from the landing zone, and is not told again
    assert len(shop.ledger.events(kind=ingest.QUARANTINED)) == 1
    day = timedelta(days=1)
    assert ingest.quarantined(shop, "shop", night + 6 * day) == (file,)
    assert [ingest.quarantined(shop, "shop", night + age * day) for age in (-1, 7)] == [(), ()]
    assert ingest.quarantined(shop, "stall", night) == ()
    (shop.settings.quarantine / "shop" / "refund" / "2025-01-01.csv").unlink()
    assert ingest.quarantined(shop, "shop", night) == (), "whoever deletes it there has done with it"


def test_a_file_that_was_mended_and_has_landed_is_told_no_more(shop):
    deliver(shop, "2025-01-01.csv", "a\n1\n")
    ingest.land_night(shop, "shop", NIGHT)
    night = clock.night_closing(NIGHT)
    assert [file.file for file in ingest.quarantined(shop, "shop", night)] == ["sale/2025-01-01.csv"]
    deliver(shop, "2025-01-01.csv", GOOD)
    ingest.land_night(shop, "shop", NIGHT)
    assert ingest.quarantined(shop, "shop", night) == ()
    assert ingest.quarantined_of(shop, night, night) == ()
    deliver(shop, "2025-01-01.csv", GOOD + "tea,3,2025-01-01 09:00:00,2025-01-01 09:00:00\n")  # and written over later
    ingest.land_night(shop, "shop", NIGHT + timedelta(days=1))
    later = night + timedelta(days=1)
    refused = [file.file for file in ingest.quarantined(shop, "shop", later)]
    assert refused == ["sale/2025-01-01.csv"], "what had landed before it was refused mends nothing"
    with rails_module.opened(shop.settings, lake_at_once=False) as looking:  # as a page does
        assert ingest.quarantined(looking, "shop", night) == ()
        assert [file.file for file in ingest.quarantined(looking, "shop", later)] == refused
        assert not looking.lake.is_open


def test_a_quarantine_that_takes_nothing_keeps_no_other_file_from_landing(shop):
    broken = deliver(shop, "2025-01-01.csv", "item,pieces\ntea,3\n")
    deliver(shop, "2025-01-01-b.csv", GOOD)
    shop.settings.quarantine.write_text("no folder")
    for _ in range(2):  # it is refused again, and nothing is lost
        result = ingest.land_night(shop, "shop", NIGHT)
        [refused] = result.quarantined
        assert "column 'sold_at' is missing; it stays in the landing zone" in refused.reason
    assert len(rows(shop)) == 2
    assert broken.exists()
    shop.settings.quarantine.unlink()
    ingest.land_night(shop, "shop", NIGHT)
    assert not broken.exists()
    assert (shop.settings.quarantine / "shop" / "sale" / "2025-01-01.csv").read_text() == "item,pieces\ntea,3\n"


def test_a_mended_file_lands_under_the_name_that_was_refused(shop):
    deliver(shop, "2025-01-01.csv", GOOD[:-9])
    ingest.land_night(shop, "shop", NIGHT)
    deliver(shop, "2025-01-01.csv", GOOD)
    assert ingest.land_night(shop, "shop", NIGHT).files == 1


def test_a_file_that_was_mended_in_place_at_the_same_length_is_read_again(shop, tmp_path):
    lying, described = tmp_path / "lying.parquet", []
    for kind in ("timestamp", "timestamptz"):
        duckdb.execute(f"copy (select '2025-01-01'::{kind} as sold_at) to '{tmp_path / kind}' (format parquet)")
        lying.write_bytes((tmp_path / kind).read_bytes())
        os.utime(lying, (1_735_700_000, 1_735_700_000))
        [column] = shop.lake.connection.execute(f"describe select * from {file_rows.parquet(lying)}").fetchall()
        described.append((column[1], lying.stat().st_size))
    assert [name for name, _ in described] == ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE"]
    assert described[0][1] == described[1][1]


def test_a_link_brings_nothing_of_what_it_leads_to_anywhere(shop, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("password=hunter2\nrows\n")
    place = deliver(shop, "2025-01-01.csv", GOOD)
    place.with_name("2025-01-01-b.csv").symlink_to(secret)
    result = ingest.land_night(shop, "shop", NIGHT)
    assert (result.files, result.quarantined) == (1, ())
    assert [sentence for sentence in result.notes if "leads elsewhere" in sentence]
    written = [path.read_bytes() for path in shop.settings.home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not any(b"hunter2" in content for content in written) and secret.exists()


def test_a_file_that_becomes_a_link_while_it_is_looked_at_does_not_land(shop, tmp_path, monkeypatch):
    place, elsewhere = deliver(shop, "2025-01-01.csv", GOOD), tmp_path / "elsewhere.csv"
    elsewhere.write_text(GOOD)
    inspect = LandingFile.inspect

    def swapped(self, connection):
        inspect(self, connection)
        place.unlink()
        place.symlink_to(elsewhere)

    monkeypatch.setattr(LandingFile, "inspect", swapped)
    assert ingest.land_night(shop, "shop", NIGHT).rows == 0


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_refused_file_that_is_another_by_then_is_not_copied_into_quarantine(shop, tmp_path, monkeypatch, kind):
    place, secret = deliver(shop, "2025-01-01.csv", "nothing,of,this\n1,2,3\n"), tmp_path / "secret"
    secret.write_text("password=hunter2\n")
    inspect = LandingFile.inspect

    def swapped(self, connection):
        inspect(self, connection)
        place.unlink()
        place.symlink_to(secret) if kind == "link" else os.mkfifo(place)

    monkeypatch.setattr(LandingFile, "inspect", swapped)
    (refused,) = ingest.land_night(shop, "shop", NIGHT).quarantined
    assert "stays in the landing zone" in refused.reason
    assert not [path for path in shop.settings.quarantine.rglob("*.csv") if path.is_file()] and secret.exists()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_nul_is_taken_out_of_a_text_and_counted(shop, form):
    if form == "csv":
        deliver(shop, "2025-01-01.csv", GOOD.replace("tea", "te\x00a"))
    else:
        item = "'te' || chr(0) || 'a'"
        parquet(shop, "2025-01-01.parquet", f"select {item} as item, 3::bigint as pieces, now() as sold_at")
    result = ingest.land_night(shop, "shop", NIGHT)
    assert (result.holed, result.quarantined) == (1, ())
    assert "1 text with a NUL, which was taken out" in result.notes
    assert ("tea", 3) in rows(shop)


def test_a_file_that_was_only_touched_is_not_new(shop):
    path = deliver(shop, "2025-01-01.csv", GOOD)
    ingest.land_night(shop, "shop", NIGHT)
    os.utime(path, (0, 0))
    result = ingest.land_night(shop, "shop", NIGHT)
    assert (result.files, result.repeated, result.quarantined) == (0, 0, ())


def test_two_quiet_days_are_two_deliveries(shop):
    header = GOOD.splitlines(keepends=True)[0]
    paths = [deliver(shop, f"2025-01-0{day}.csv", header) for day in (1, 2, 3)]
    parquet(shop, "2025-01-01.parquet", "select 'a' as item, 1 as pieces, now() as sold_at limit 0")
    assert ingest.land_night(shop, "shop", clock.parse_as_of("2025-01-03")).files == 3
    os.utime(paths[0], (0, 0))
    result = ingest.land_night(shop, "shop", clock.parse_as_of("2025-01-04"))
    assert (result.files, result.repeated, result.quarantined) == (1, 0, ())


KILLED = """
import os, signal, sys
from pathlib import Path
from tiltyard import clock, rails
from tiltyard.prepare import ingest
from tiltyard.settings import Settings
ingest._record = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
home, url, prefix = sys.argv[1:]
settings = Settings(home=Path(home), dbt=Path(home) / "dbt", database_url=url, database_prefix=prefix)
with rails.opened(settings) as opened:
    ingest.land_night(opened, "shop", clock.parse_as_of("2025-01-02"))
"""


def test_killed_between_rows_and_record_then_run_again(shop):
    deliver(shop, "2025-01-01.csv", "item,pieces,sold_at\n" + "tea,1,2025-01-01T08:00:00Z\n" * 5_000)
    deliver(shop, "2025-01-01.csv", "day\n2025-01-01\n", table="visit")
    settings = shop.settings
    assert settings.database_url
    command = [sys.executable, "-c", KILLED, str(settings.home), settings.database_url, settings.database_prefix]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "plugins")}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (rows(shop), rows(shop, "day", "visit")) == ([], [])
    assert ingest.land_night(shop, "shop", NIGHT).rows == 5_001
    assert rows(shop, "count(*), sum(pieces)") == [(5_000, 5_000)]


def test_of_two_runs_at_once_one_lands_and_the_other_is_fenced(shop, monkeypatch):
    deliver(shop, "2025-01-01.csv", GOOD)
    stage = ingest._stage

    def overtaken(*args):
        monkeypatch.setattr(ingest, "_stage", stage)
        staged = stage(*args)
        with rails_module.opened(shop.settings) as other:
            assert ingest.land_night(other, "shop", NIGHT).rows == 2
        return staged

    monkeypatch.setattr(ingest, "_stage", overtaken)
    with pytest.raises(Fenced):
        ingest.land_night(shop, "shop", NIGHT)
    assert len(rows(shop)) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("data_type: bigint", "data_type: number"),
        ("column: sold_at", "column: sold_when"),
        ("null_values", "nul_values"),
        ("name: pieces", "name: 'pieces; drop'"),
        ("name: pieces", "name: available_at"),
        ("name: pieces", "name: rowid"),
        ("name: visit", "name: sale"),
        ("Europe/Vienna", "Europe/Wien"),
        ("meta: {tiltyard", "meta: {tilted"),
        ("- name: shop", "- name: shed"),
    ],
)
def test_a_contract_that_does_not_hold_is_one_sentence_that_names_the_file(tmp_path, settings, wrong, message):
    folder = tmp_path / "models" / "staging" / "shop"
    folder.mkdir(parents=True)
    (folder / "_shop__sources.yml").write_text(CONTRACT.replace(wrong, message, 1))
    with pytest.raises(BadInput, match=r"_shop__sources\.yml(:\d+)?: .*\.$"):
        contracts.read(settings.model_copy(update={"dbt": tmp_path}), "shop")


def test_two_sources_with_a_table_of_one_name_are_told_apart(opened):
    shop = contracts.read(opened.settings, "shop")
    other = replace(shop, name="web", tables=shop.tables[1:])
    with pytest.raises(BadInput, match=r"_web__sources.yml: table 'visit' is a table of shop already"):
        contracts.tell_apart(opened.settings, [shop, other])
    contracts.tell_apart(opened.settings, [shop])


def test_the_sources_of_this_checkout_have_contracts(settings):
    assert contracts.sources(settings) == ("flights", "hotels", "incident", "retail", "subscription")
    incident = contracts.read(settings, "incident").table("incident_update")
    assert incident is not None
    assert len(incident.columns) == 36
    tables = ("raw.customer", "raw.login", "raw.payment", "raw.cancellation")
    assert contracts.raw_tables(settings, "subscription") == tables
    with pytest.raises(BadInput, match="incident, retail, subscription"):
        contracts.read(settings, "../incident")


def test_the_whole_incident_log_lands_once(rails, data_mirror):
    settings = rails.settings.model_copy(update={"data_mirror": data_mirror})
    datasets.fetch(settings, "incident")
    first = ingest.land_night(rails, "incident", clock.parse_as_of("2016-05-01"))
    rest = ingest.land_night(rails, "incident", clock.parse_as_of("2017-03-01"))
    assert (first.files + rest.files, first.rows + rest.rows) == (350, 141_712)
    assert first.null_available_at + rest.null_available_at == 0
    assert ingest.land_night(rails, "incident", clock.parse_as_of("2017-03-01")).files == 0
    total = rails.lake.query("select count(*), count(distinct number) from {raw.incident_update}", clock.now())
    assert total.iloc[0].tolist() == [141_712, 24_918]
