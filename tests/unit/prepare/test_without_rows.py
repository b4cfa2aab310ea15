"""A delivery without somebody's rows: every other byte stays, and the same delivery gives the same bytes."""

import gzip
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pytest

from tiltyard.prepare import contracts
from tiltyard.prepare.without_rows import Without, without
from tiltyard.settings import Settings

TEXT = b'Kunde;"Notiz"\r\n 12 ;"a;\r\nb"\r\n13;x\r\n12;"z"\r\n14;\xff\r\n'


def among(values: Iterable[object]) -> set[str]:
    return {str(value).strip() for value in values} & {"12"}


@pytest.fixture
def contract(tmp_path: Path) -> contracts.TableContract:
    folder = tmp_path / "dbt" / "models" / "staging" / "shop"
    folder.mkdir(parents=True)
    (folder / "_shop__sources.yml").write_text(
        """
version: 2
sources:
  - name: shop
    database: lake
    schema: raw
    config: {loaded_at_field: ingested_at}
    tables:
      - name: sale
        config: {meta: {tiltyard: {event_time: {column: at}, available_at: {column: at}, format: {delimiter: ";"}}}}
        columns:
          - {name: customer_id, data_type: varchar, config: {meta: {tiltyard: {header: Kunde}}}}
          - {name: note, data_type: varchar, config: {meta: {tiltyard: {header: Notiz}}}}
          - {name: at, data_type: timestamptz}
"""
    )
    [table] = contracts.read(Settings(home=tmp_path, dbt=tmp_path / "dbt"), "shop").tables
    return table


def taken(file: Path, contract: contracts.TableContract) -> Without | None:
    return without(duckdb.connect(), file, contract, ["customer_id"], among)


@pytest.mark.parametrize("name", ["2025-01-01.csv", "2025-01-01.csv.gz"])
def test_of_a_text_every_other_byte_stays(tmp_path: Path, contract: contracts.TableContract, name: str) -> None:
    file = tmp_path / name
    packed = name.endswith(".gz")
    file.write_bytes(gzip.compress(TEXT) if packed else TEXT)
    first = taken(file, contract)
    assert first is not None and (first.rows, first.values) == (2, {"12"})
    assert (gzip.decompress(first.content) if packed else first.content) == b'Kunde;"Notiz"\r\n13;x\r\n14;\xff\r\n'
    again = taken(file, contract)
    assert again is not None and again.content == first.content
    file.write_bytes(first.content)
    assert taken(file, contract) is None


def test_of_parquet_the_rows(tmp_path: Path, contract: contracts.TableContract) -> None:
    file = tmp_path / "2025-01-01.parquet"
    rows = 'select i as "Kunde", [i] as "Notiz" from range(11, 14) s(i)'
    duckdb.execute(f"copy ({rows}) to '{file}'")
    found = taken(file, contract)
    assert found is not None and found.rows == 1
    file.write_bytes(found.content)
    assert duckdb.execute(f'select "Kunde", "Notiz" from \'{file}\'').fetchall() == [(11, [11]), (13, [13])]
