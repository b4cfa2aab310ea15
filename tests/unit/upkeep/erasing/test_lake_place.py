"""Rows go from every file that any snapshot reads, of a plain lake and of an encrypted one; nothing else changes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.conftest import make_settings
from tiltyard import rails as rails_module
from tiltyard.lake import catalogue
from tiltyard.prepare.whose import Whose
from tiltyard.rails import Rails
from tiltyard.tables import CHECK_RESULT
from tiltyard.upkeep import files
from tiltyard.upkeep.erasing import lake_files
from tiltyard.upkeep.erasing.hunt import Hunt
from tiltyard.upkeep.erasing.lake_place import LakePlace

WHO = "C-4711-00"
SALES = 'lake."raw"."sale"'
WHOSE = Whose(
    entity="customer", key="customer_id", models=("churn",), views=(), columns={"raw.sale": ("payer",)}, doubts=()
)


@pytest.fixture(params=["plain", "encrypted"])
def rails(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str) -> Iterator[Rails]:
    settings = make_settings(tmp_path, postgres_url, lake_encrypted=request.param == "encrypted")
    with rails_module.opened(settings) as opened:
        connection = opened.lake.connection
        connection.execute("create schema lake.raw")
        connection.execute(
            f"create table {SALES} "
            "(payer varchar, amount double, parts integer[], note varchar, available_at timestamptz)"
        )
        for day in range(3):  # files of a hundred rows, and rows that lie in the catalogue
            for rows in (100, 3):
                connection.execute(
                    f"insert into {SALES} select case when i % 10 = 1 then '{WHO}' else 'C-' || i end, i + {day} / 10, "
                    f"[i, {day}], 'n' || i, timestamptz '2025-01-01' + interval (i) minute from range({rows}) s(i)"
                )
        connection.execute(f"delete from {SALES} where amount = 5")
        connection.execute(f"delete from {SALES} where amount = 91")
        connection.execute(f"alter table {SALES} add column shop varchar")
        connection.execute(f"insert into {SALES} select 'C-' || i, i, [i], 'x', now(), 's' from range(50) s(i)")
        yield opened


def others(rails: Rails) -> dict[int, list[tuple[object, ...]]]:
    """Snapshot → the rows of everybody else, with their numbers."""
    found = {}
    for (number,) in rails.lake.connection.execute("select snapshot_id from ducklake_snapshots('lake')").fetchall():
        with contextlib.suppress(duckdb.CatalogException):
            found[number] = rails.lake.connection.execute(
                f"select rowid, * from {SALES} at (version => {number}) where payer <> '{WHO}' order by all"
            ).fetchall()
    return found


def erased(rails: Rails) -> None:
    hunt = Hunt.of(rails, WHOSE, [WHO])
    LakePlace().erase(hunt, LakePlace().find(hunt))


def test_they_go_and_every_snapshot_is_the_same_for_everybody_else(rails: Rails) -> None:
    hunt = Hunt.of(rails, WHOSE, [WHO])
    found = LakePlace().find(hunt)
    assert found.values == {WHO}
    assert found.counts == {"raw.sale": 33}, "in every file and in the catalogue, deleted ones as well"
    before = others(rails)
    erased(rails)
    after = others(rails)
    assert before == {number: rows for number, rows in after.items() if number in before}
    assert LakePlace().find(hunt).counts == {}
    for number in before:
        rows = rails.lake.connection.execute(
            f"select count(*) from {SALES} at (version => {number}) where payer = '{WHO}'"
        ).fetchone()
        assert rows == (0,)
    assert rails.lake.connection.execute(f"select count(*) from {SALES} where payer is null").fetchone() == (0,)
    erased(rails)
    assert others(rails)[max(before)] == before[max(before)], "twice is once"


def test_no_file_and_no_statistic_holds_them(rails: Rails) -> None:
    """C-4711-00 is the greatest of no column but of some files'."""
    rails.lake.connection.execute(f"insert into {SALES} select 'D', 1, [1], 'x', now(), 's' from range(20)")
    rails.lake.connection.execute(f"delete from {SALES} where payer like 'C-5%' or payer like 'C-6%'")
    erased(rails)
    connection = rails.lake.connection
    for table in ("ducklake_file_column_stats", "ducklake_table_column_stats"):
        stats = connection.execute(f"select min_value, max_value from {catalogue(table)}").fetchall()
        assert WHO not in {value for row in stats for value in row}
    named = {Path(file.path) for file in lake_files.files(rails.lake)}
    there = set(Path(rails.settings.lake_path).rglob("*.parquet"))
    assert not [path for path in there - named if "delete" not in path.name], "no file is left that no record names"
    assert not lake_files.waiting(rails.lake)


def test_the_lake_goes_on_as_before(rails: Rails) -> None:
    erased(rails)
    kept = others(rails)
    assert files.rewrite(rails, "raw.sale") >= 0
    files.merge(rails, "raw.sale")
    assert others(rails)[max(kept)] == kept[max(kept)]
    rails.lake.connection.execute(f"insert into {SALES} select 'C-9', 1, [1], 'x', now(), 's' from range(20)")
    assert rails.lake.connection.execute(f"select max(amount) from {SALES} where payer = 'C-9'").fetchone()


def test_a_text_that_names_them_is_struck_out_of_ops_and_a_doubt_in_raw(rails: Rails) -> None:
    rails.lake.ensure(CHECK_RESULT)
    for rows in (1, 30):
        rails.lake.connection.execute(
            "insert into lake.ops.check_result (suite, detail) "
            f"select 's', 'row of {WHO}, ' || i from range({rows}) s(i)"
        )
    hunt = Hunt.of(rails, WHOSE, [WHO])
    assert LakePlace().find(hunt).counts["ops.check_result.detail"] == 31
    erased(rails)
    details = rails.lake.connection.execute("select distinct detail from lake.ops.check_result").fetchall()
    assert len(details) == 30 and ("row of (erased), 0",) in details
    rails.lake.connection.execute(f"update {SALES} set note = 'sent by {WHO}' where amount = 3")
    [doubt] = LakePlace().find(hunt).doubts
    assert "raw.sale.note" in doubt and "identifies: customer" in doubt
