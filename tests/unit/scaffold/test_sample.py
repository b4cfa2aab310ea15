"""A file that nobody has described is read: dialect, types, what is missing; and what cannot be used is said."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests import stranger
from tiltyard.errors import BadInput
from tiltyard.scaffold import sample
from tiltyard.scaffold.found import Column, Table


def table_of(path: Path) -> Table:
    with sample.opened(path) as opened:
        return opened.table


def column(table: Table, name: str) -> Column:
    found = table.column(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(";", "utf-8"), (",", "cp1252"), ("\t", "utf-16"), ("|", "utf-8-sig")]
)
def test_any_dialect_and_encoding_gives_the_same_columns(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = stranger.write(tmp_path / "a.csv", stranger.appointments(500), delimiter=delimiter, encoding=encoding)
    table = table_of(path)
    assert table.form.delimiter == delimiter
    assert table.form.null_values == ("NA",)
    assert {entry.name: entry.data_type for entry in table.columns} == {
        "patient_id": "bigint", "appointment_id": "bigint", "gender": "varchar", "scheduled_day": "timestamptz",
        "appointment_day": "date", "age": "bigint", "neighbourhood": "varchar", "sms_received": "bigint",
        "no_show": "boolean",
    }  # fmt: skip
    assert "ITARARÉ" in column(table, "Neighbourhood").values
    assert column(table, "age").missing > 0
    assert column(table, "AppointmentID").is_unique


def test_times_that_are_not_iso_and_numbers_with_a_comma(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [f"{day:02d}/04/2016 10:{day:02d};{day},5;{day}.04.2016" for day in range(1, 29)]
    path.write_text("am;preis;tag\n" + "\n".join(lines))
    table = table_of(path)
    assert column(table, "am").format == "%d/%m/%Y %H:%M"
    assert column(table, "am").kind == "instant"
    assert column(table, "am").data_type == "varchar"
    assert column(table, "tag").kind == "day"
    assert column(table, "tag").format == "%d.%m.%Y"
    assert table.form.decimal == ","
    assert column(table, "preis").data_type == "double"
    assert column(table, "preis").most == "28.5"


def test_json_lines_and_parquet(tmp_path: Path) -> None:
    rows = [{"id": number, "at": f"2016-04-{number:02d}T10:00:00", "ok": number % 2 == 0} for number in range(1, 29)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert [entry.kind for entry in table_of(path).columns] == ["whole", "instant", "yes_no"]
    frame = pd.DataFrame(rows)
    frame["at"] = pd.to_datetime(frame["at"])
    frame.to_parquet(tmp_path / "a.parquet")
    assert [entry.kind for entry in table_of(tmp_path / "a.parquet").columns] == ["whole", "instant", "yes_no"]


def test_a_dash_is_a_value_unless_the_others_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "number,word\n" + "\n".join(f"{n if n % 5 else '-'},{'blue' if n % 2 else '?'}" for n in range(1, 40))
    )
    table = table_of(path)
    assert table.form.null_values == ("-",)
    assert column(table, "number").data_type == "bigint"
    assert set(column(table, "word").values) == {"blue", "?"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a,b\n", "has a header and no rows"),
        (b",a,b\n1,x,3\n4,y,6\n", "column 1 has no name; give it one"),
        (b"a,b,a\n1,2,3\n4,5,6\n", "has the column 'a' twice"),
        (b"1,2\n3,4\n5,6\n", "has no header"),
        (b"\x00\x01\x02\xff\xfe" * 100, "is not text, and no Parquet"),
        (b"PK\x03\x04" + b"x" * 100, "it is packed; unpack it first"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        table_of(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no file"):
        table_of(tmp_path / "gone.csv")


def test_a_number_that_does_not_print_back_is_an_identifier(tmp_path: Path) -> None:
    """Whatever the folders above are called."""
    values = {
        "code": ("007", "7"), "phone": ("+431", "432"), "long": ("12345678901234567890", "1"), "hex": ("0x1F", "0x20"),
        "grouped": ("1_000", "2_000"), "whole": ("7", "-8"), "part": ("1.50", "2e3"), "ok": ("yes", "No"),
        "at": ("2025-01-01 12:00:00 UTC", "2025-01-01T12:00:00+02:00"), "day": ("2025-01-01", "2025-01-02"),
        "zip": ("01010", "99999"), "clock": ("12:30", "13:00"),
    }  # fmt: skip
    folder = tmp_path / "env=prod" / "code=9"
    folder.mkdir(parents=True)
    names = list(values)
    lines = [",".join(values[name][place] for name in names) for place in (0, 1)]
    (folder / "a.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
    rows = [{name: values[name][place] for name in names} for place in (0, 1)]
    with sample.opened(folder / "a.csv") as opened:
        kinds = {entry.name: entry.data_type for entry in opened.table.columns}
        assert kinds == {
            **dict.fromkeys(("code", "phone", "long", "hex", "grouped", "zip", "clock"), "varchar"),
            "whole": "bigint", "part": "double", "ok": "boolean", "at": "timestamptz", "day": "date",
        }  # fmt: skip
        texts = opened.connection.execute("select code, phone, long, hex, grouped, zip from sample").fetchall()
    assert texts == [tuple(row[name] for name in ("code", "phone", "long", "hex", "grouped", "zip")) for row in rows]


def test_json_keeps_what_its_texts_and_numbers_say(tmp_path: Path) -> None:
    path = tmp_path / "kind=x" / "a.jsonl"
    path.parent.mkdir()
    rows = [
        {"code": "007", "text": "12", "long": 12345678901234567890, "part": 1.5, "at": "2025-01-01T12:00:00+02:00",
         "nested": {"a": [1]}, "ok": True, "kind": "y"},
        {"code": "7", "text": "13", "long": 2, "part": 2, "at": "2025-01-01 12:00:00 UTC", "nested": None, "ok": None},
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with sample.opened(path) as opened:
        assert {entry.name: entry.data_type for entry in opened.table.columns} == {
            "code": "varchar", "text": "varchar", "long": "varchar", "part": "double", "at": "timestamptz",
            "nested": "varchar", "ok": "boolean", "kind": "varchar",
        }  # fmt: skip
        query = 'select code, text, long, "at"::varchar, nested, kind from sample order by _line'
        assert opened.connection.execute(query).fetchall() == [
            ("007", "12", "12345678901234567890", "2025-01-01 10:00:00+00", '{"a":[1]}', "y"),
            ("7", "13", "2", "2025-01-01 12:00:00+00", None, None),
        ]


def test_instants_that_python_cannot_hold_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,at\n1,2025-01-01 10:00:00\n2,infinity\n3,10000-01-01 00:00:00\n4,-infinity\n")
    found = column(table_of(path), "at")
    assert (found.data_type, found.missing, found.most) == ("timestamp", 3, "2025-01-01 10:00:00")
