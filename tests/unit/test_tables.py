"""The lake's own tables: declared once, and read under the names they are declared by."""

import re

import pytest
import yaml

from tiltyard import tables
from tiltyard.rails import Rails
from tiltyard.settings import ROOT
from tiltyard.tables import TABLES, Table

LIBRARY = ROOT / "plugins" / "tiltyard"


def test_every_table_is_an_ops_table_with_a_name_of_its_own() -> None:
    names = [table.name for table in TABLES]
    assert all(re.fullmatch(r"ops\.[a-z_]+", name) for name in names)
    assert len(names) == len(set(names))
    assert {vars(tables)[table.name.removeprefix("ops.").upper()] for table in TABLES} == set(TABLES)


def test_a_past_night_reads_what_was_known_then() -> None:
    assert [table.name for table in TABLES if table.columns.get("available_at") != "timestamptz"] == []


def test_a_table_says_what_one_row_is() -> None:
    text = (LIBRARY / "tables.py").read_text(encoding="utf-8")
    for table in TABLES:
        constant = table.name.removeprefix("ops.").upper()
        declared = re.search(rf'^{constant}: Final = Table\(.*?^\)\n"""One row per ', text, re.MULTILINE | re.DOTALL)
        assert declared and declared[0].count("Final = Table(") == 1, constant


def test_no_other_module_spells_a_name_of_a_table() -> None:
    """In prose a name may stand (`ops.prediction`); in code the constant does."""
    spelled = re.compile(r"""["'{.](ops\.[a-z_]+)["'}]|lake\."?ops""")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sorted(LIBRARY.rglob("*.py"))
        if path.name != "tables.py"
        for match in spelled.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_the_sql_project_reads_them_as_they_are() -> None:
    """dbt's sources name their columns for people who write SQL: they are those that are written."""
    content = yaml.safe_load((ROOT / "dbt/models/staging/_ops__sources.yml").read_text(encoding="utf-8"))
    (source,) = content["sources"]
    written = {table.name: table for table in TABLES}
    for described in source["tables"]:
        columns = written[f"{source['schema']}.{described['name']}"].columns
        types = {column["name"]: column["data_type"] for column in described["columns"]}
        assert types == {name: columns.get(name) for name in types}


def test_a_table_of_an_older_project_gains_what_it_lacks(rails: Rails) -> None:
    rails.lake.ensure(Table("ops.grown", {"night": "date", "available_at": "timestamptz"}))
    rails.lake._ensured.clear()  # as another process sees it
    grown = Table("ops.grown", {"night": "date", "value": "double", "available_at": "timestamptz"})
    rails.lake.ensure(grown)
    assert rails.lake.columns(grown)["value"] == "DOUBLE"
    assert rails.lake.has(grown)


def test_a_column_name_is_plain(rails: Rails) -> None:
    with pytest.raises(ValueError, match="plain"):
        rails.lake.ensure(Table("ops.odd", {"a b": "integer"}))
