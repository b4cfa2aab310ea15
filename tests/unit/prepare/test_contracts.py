"""What a contract says of the files of a source, and what it may not say."""

from pathlib import Path

import pytest

from tiltyard.errors import BadInput
from tiltyard.prepare import contracts
from tiltyard.settings import Settings

HEAD = """version: 2
sources:
  - name: shop
    tables:
      - name: visit
        config:
          meta:
            tiltyard:
              event_time: {column: visited_at}
              available_at: ingested_at
"""
COLUMNS = """        columns:
          - {name: visited_at, data_type: timestamptz, config: {meta: {tiltyard: {header: Besuch am}}}}
          - {name: basket, data_type: double}
"""
FORMATTED = HEAD.replace("{column: visited_at}", "{{column: visited_at, format: {}}}") + COLUMNS.replace(
    "{", "{{"
).replace("}", "}}")


def read(folder: Path, text: str) -> contracts.TableContract:
    path = folder / "dbt" / "models" / "staging" / "shop"
    path.mkdir(parents=True)
    (path / "_shop__sources.yml").write_text(text, encoding="utf-8")
    return contracts.read(Settings(home=folder, dbt=folder / "dbt"), "shop").tables[0]


def test_a_column_has_the_header_of_its_source_and_a_file_its_format(tmp_path: Path) -> None:
    form = "              format: {delimiter: ';', encoding: latin1, decimal: ','}\n"
    table = read(tmp_path, HEAD + form + COLUMNS)
    assert (table.header("visited_at"), table.header("basket")) == ("Besuch am", "basket")
    assert table.timing.format == contracts.Format(delimiter=";", encoding="iso8859-1", decimal=",")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "              format: {delimiter: ';;'}\n" + COLUMNS, "';;' parts no fields"),
        (HEAD + "              format: {encoding: klingon}\n" + COLUMNS, "'klingon' is no encoding"),
        (HEAD + "              format: {quote: x}\n" + COLUMNS, "format.quote"),
        (HEAD + COLUMNS.replace("Besuch am", "basket"), "'visited_at' and 'basket' are both the column 'basket'"),
        (HEAD + COLUMNS.replace("Besuch am", "''"), "column 'visited_at': the header is empty"),
        (
            HEAD + COLUMNS.replace("Besuch am", "'{{ at }}'"),
            "'{{ at }}' for a Jinja template, and it is none",
        ),
        (HEAD + COLUMNS.replace("Besuch am", "'{% at %}'"), "dbt takes '{% at %}' for a Jinja template"),
        (FORMATTED.format("'%Q'"), "'%Q' is no format of strptime; write it like %d/%m/%Y %H:%M"),
        (FORMATTED.format("''"), "'' is no format of strptime"),
        (FORMATTED.format("'%d.%m. %H:%M'"), "'%d.%m. %H:%M' tells no year"),
        (FORMATTED.format("nonsense"), "'nonsense' tells no year"),
        (HEAD + "              volume: {warn_below: -3}\n" + COLUMNS, "volume.warn_below"),
    ],
)
def test_what_it_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        read(tmp_path, text)
    assert message in str(raised.value)


FETCH = "              fetch: {{{}}}\n"
DATABASE = "from: 'postgresql://reader@db.example.org/shop#web.visit'"


@pytest.mark.parametrize(
    ("fetch", "kind"),
    [
        ("from: /exports/visits/*.csv", "files"),
        ("from: 's3://bucket/visits/**/*.parquet', day: '%Y%m%d', connection: lake_keys", "files"),
        (f"{DATABASE}, cursor: visited_at, overlap: 1h", "table"),
        (f"{DATABASE}, cursor: visit_id, overlap: 100", "table"),
        ("from: 'kafka://a:9092,b:9092/visits', partition: visit_id, offset: visit_id", "topic"),
    ],
)
def test_a_place_is_told_by_its_address(tmp_path: Path, fetch: str, kind: str) -> None:
    number = "          - {name: visit_id, data_type: bigint}\n"
    table = read(tmp_path, HEAD + FETCH.format(fetch) + COLUMNS + number)
    assert table.timing.fetch is not None
    assert table.timing.fetch.kind == kind


@pytest.mark.parametrize(
    ("fetch", "message"),
    [
        ("from: visits/*.csv", "a folder is written from its root on"),
        ("from: /exports/visits", "its files end in .csv"),
        ("from: 's3://bucket'", "a bucket is written with the files in it"),
        ("from: 'ftp://host/visits.csv'", "ftp:// is no place to fetch from"),
        ("from: 'kafka://a:9092'", "a topic is written like"),
        ("from: 'kafka://a:9092/visits'", "a topic needs partition"),
        ("from: 'kafka://a:9092/visits', partition: basket, offset: basket", "'basket', which is DOUBLE"),
        (DATABASE, "a table needs cursor"),
        (f"{DATABASE}, cursor: basket", "'basket', which is DOUBLE, and has to be a day, an instant"),
        (f"{DATABASE}, cursor: gone", "'gone', which is not among its columns"),
        (f"{DATABASE}, cursor: visited_at, overlap: 3", "a time, is written like 1h"),
        (f"{DATABASE}, cursor: visited_at, overlap: soon", "'soon' is not a duration"),
        (f"{DATABASE}, cursor: visited_at, day: '%Y'", "day is said of files"),
        (f"{DATABASE}, cursor: visited_at, connection: 'a b'", "fetch.connection"),
        ("from: 'postgresql://me:s3cr3t@host/shop#visit', cursor: visited_at", "it carries a password"),
        ("from: 'postgresql://host/shop?password=s3cr3t#visit', cursor: visited_at", "it carries a password"),
        ("cursor: visited_at", "fetch.from"),
    ],
)
def test_a_place_that_cannot_be_is_named_with_its_line(tmp_path: Path, fetch: str, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        read(tmp_path, HEAD + FETCH.format(fetch) + COLUMNS)
    assert message in str(raised.value)
    assert "_shop__sources.yml:11: table 'visit': " in str(raised.value)
    assert "s3cr3t" not in str(raised.value)
