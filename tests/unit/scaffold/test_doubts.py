"""What a file leaves open is said, and what it says is not silently read as something else."""

import json
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiltyard.errors import BadInput
from tiltyard.prepare.places import Fetch
from tiltyard.scaffold import sample
from tiltyard.scaffold.found import Column
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.new_source import SourceRequest, look
from tiltyard.scaffold.source_texts import SourcePlan, texts
from tiltyard.settings import Settings

DAYS = [date(2025, 1, 1) + timedelta(days=number) for number in range(40)]


def csv(folder: Path, *values: str, delimiter: str = ",", header: str = "value") -> Path:
    """A file with a day and a value in each row."""
    path = folder / "a.csv"
    rows = [f"{number}{delimiter}{DAYS[number % 40]}{delimiter}{value}" for number, value in enumerate(values)]
    path.write_text("\n".join([delimiter.join(("id", "day", header)), *rows]) + "\n", encoding="utf-8")
    return path


def read(path: Path, *, is_month_first: bool = False) -> tuple[Column, list[object], tuple[str, ...]]:
    """The last column, its values, and what is said of the file."""
    with sample.opened(path, is_month_first=is_month_first) as opened:
        last = opened.table.columns[-1]
        rows = opened.connection.execute(f'select "{last.name}" from sample order by _line').fetchall()
        return last, [value for (value,) in rows], opened.notes


def planned(path: Path, settings_folder: Path, zone: str = "UTC", **said: object) -> SourcePlan:
    settings = Settings(home=settings_folder / "home", dbt=settings_folder / "dbt")
    return look(settings, SourceRequest("shop", path, "visit", zone, None, Said(**said)))  # type: ignore[arg-type]


def test_thousands_are_no_decimals(tmp_path: Path) -> None:
    column, values, notes = read(csv(tmp_path, *(f"{1000 + number * 37:,}" for number in range(40)), delimiter=";"))
    assert column.kind == "text"
    assert values[1] == "1,037"
    assert "is text, for its numbers are written like '1,000'" in notes[0]


def test_points_between_semicolons_may_be_thousands_as_well(tmp_path: Path) -> None:
    column, values, notes = read(csv(tmp_path, *["1.500", "12", "2.250"] * 13, delimiter=";"))
    assert (column.kind, values[0]) == ("text", "1.500")
    assert "is text, for 2.250 beside 12 may be thousands, or have three decimals" in notes[0]
    for delimiter, other in ((",", "1.500"), (";", "0.125"), (";", "1.5"), (";", "1500.125")):
        column, values, notes = read(csv(tmp_path, *["1.500"] * 39, other, delimiter=delimiter))
        assert (column.kind, values[0], notes) == ("number", 1.5, ())


def test_one_value_that_can_be_no_thousands_tells_what_the_comma_is(tmp_path: Path) -> None:
    column, values, notes = read(csv(tmp_path, *["1,500"] * 39, "0,125", delimiter=";"))
    assert column.kind == "number"
    assert values[0] == 1.5
    assert notes == ()


@pytest.mark.parametrize("value", ["5 %", "$5.00", "(5)", "5-", "1 000", "5 €"])
def test_numbers_with_something_beside_them_are_told(tmp_path: Path, value: str) -> None:
    _, _, notes = read(csv(tmp_path, *[value] * 40))
    assert f"is text, for its numbers are written like '{value}'" in notes[0]


@pytest.mark.parametrize("value", ["01010", "+43", "A5", "10.0.0.1", "5"])
def test_codes_are_not_taken_for_numbers_that_somebody_has_decorated(tmp_path: Path, value: str) -> None:
    assert read(csv(tmp_path, *[value] * 40))[2] == ()


def test_dates_that_may_be_read_both_ways_are_told_and_can_be_said(tmp_path: Path) -> None:
    path = csv(tmp_path, *(f"{1 + number % 12:02d}/{1 + number % 11:02d}/2024" for number in range(40)))
    column, values, notes = read(path)
    assert (column.format, values[1]) == ("%d/%m/%Y", date(2024, 2, 2))
    assert "may be read both ways" in notes[0]
    assert "--month-first" in notes[0]
    column, values, notes = read(path, is_month_first=True)
    assert (column.format, values[12]) == ("%m/%d/%Y", date(2024, 1, 2))
    assert notes == ()


def test_dates_of_which_one_tells_are_not_asked_about(tmp_path: Path) -> None:
    rows = ["01/02/2024"] * 39
    assert read(csv(tmp_path, *rows, "13/02/2024"), is_month_first=True)[0].format == "%d/%m/%Y"
    assert read(csv(tmp_path, *rows, "02/13/2024"))[0].format == "%m/%d/%Y"
    assert read(csv(tmp_path, *rows, "13/02/2024"))[2] == ()


@pytest.mark.parametrize(("value", "form"), [("01/02/25", "%d/%m/%y"), ("01-FEB-25", "%d-%b-%y")])
def test_a_year_of_two_digits_is_of_our_time(tmp_path: Path, value: str, form: str) -> None:
    column, values, _ = read(csv(tmp_path, *[value] * 40))
    assert (column.format, values[0]) == (form, date(2025, 2, 1))


def test_a_word_that_is_missing_elsewhere_and_a_value_here_is_told(tmp_path: Path) -> None:
    _, _, notes = read(csv(tmp_path, *["AT", "NA"] * 20))
    assert notes == (
        "'NA' is taken for missing in 20 rows of value as well; where it is a value there, take it out of null_values "
        "in the contract, and cut the export again.",
    )


def test_one_value_that_hides_what_a_column_is_is_named(tmp_path: Path) -> None:
    _, _, notes = read(csv(tmp_path, *["2025-01-01 10:00:00"] * 39, "2016-12-31 23:59:60"))
    assert "39 of 40 values are instants, and '2016-12-31 23:59:60' is none" in notes[0]
    _, _, notes = read(csv(tmp_path, *[str(number) for number in range(37)], "n/k", "x", "1e5x"))
    assert "37 of 40 values are numbers" in notes[0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1735689600", "as seconds since 1970 are"),
        ("1735689600000", "as milliseconds since 1970 are"),
        ("20250101", "as a day without its dashes is"),
        ("45658.5", "as a spreadsheet's days are"),
        ("2025-01-01 10:00:00 CET", "which is no time as it is written"),
    ],
)
def test_a_time_that_is_written_in_another_way_is_named(tmp_path: Path, value: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,created_at\n" + "".join(f"{number},{value}\n" for number in range(40)))
    with pytest.raises(BadInput, match=f"created_at holds .*{said}: export it like 2025-03-01"):
        planned(path, tmp_path)


def test_instants_without_a_zone_among_those_with_one_are_told(tmp_path: Path) -> None:
    path = csv(tmp_path, *["2025-01-01 10:00:00", "2025-01-01 10:00:00+02:00"] * 20)
    found = planned(path, tmp_path, zone="Europe/Vienna", event_time="day").found
    assert any("value carries no zone in 20 rows, which are taken for UTC" in note for note in found.notes)
    assert not any("zone" in note for note in planned(path, tmp_path, event_time="day").found.notes)


def test_an_outcome_that_was_known_before_its_row_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{number},{day}T10:00:00Z,{day - timedelta(days=2)},{number % 2}" for number, day in enumerate(DAYS)]
    path.write_text("id,at,due,done\n" + "\n".join(rows) + "\n")
    found = planned(path, tmp_path, event_time="at", written_later={"done": "due"}).found
    assert any("due lies before the row happened in 40 of 40 rows" in note for note in found.notes)


def test_a_whole_decimal_keeps_its_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for first, kind in ((12_345_678_901_234_567_890, "varchar"), (123_456_789_012_345_678, "bigint")):
        values = pa.array([Decimal(first + number) for number in range(40)], pa.decimal128(38, 0))
        pq.write_table(pa.table({"day": DAYS, "value": values}), path)
        column, found, _ = read(path)
        assert column.data_type == kind
        assert [int(str(value)) for value in found] == [first + number for number in range(40)]


@pytest.mark.parametrize(
    ("keys", "said"),
    [(("value", "Value"), "the keys 'Value' and 'value', which are one column"), (("", "x"), "a key without a name")],
)
def test_keys_that_cannot_be_columns_are_refused(tmp_path: Path, keys: tuple[str, str], said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"day": str(day), keys[0]: 1, keys[1]: 2}) for day in DAYS))
    with pytest.raises(BadInput, match=said):
        read(path)


def test_a_list_of_objects_is_read_like_lines_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"day": str(day), "value": number} for number, day in enumerate(DAYS)], indent=1))
    assert read(path)[1] == list(range(40))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,day,value\r1,2025-01-01,x\r2,2025-01-02,y\r", "old Mac"),
        ("id,day,value\n1,2025-01-01,x\n".encode("utf-32"), "is UTF-32 text"),
        (json.dumps({"day": "2025-01-01", "value": 1}).encode("utf-16"), "is JSON in UTF-16"),
        (b'id,day,"a\nb"\n1,2025-01-01,x\n2,2025-01-02,y\n', "'a b' goes over two lines"),
        (b"id,day,value\n" + b"1,2025-01-01,x\n" * 40 + b"2,2025-01-02\n", "line 42 has 2 fields, its header 3"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        read(path)


def test_a_long_text_and_a_wide_table_are_read(tmp_path: Path) -> None:
    assert read(csv(tmp_path, *["x" * 200_000] * 3))[0].most == "x" * 200_000
    names = [f"c{number}" for number in range(400)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([",".join(["day", *names]), *(",".join([str(day), *"1" * 400]) for day in DAYS)]) + "\n")
    assert len({column.name for column in planned(path, tmp_path).columns}) == 403


@pytest.mark.parametrize("own", ["written_at", "Written At", "happened_at"])
def test_a_column_that_is_called_like_one_of_ours_stays(tmp_path: Path, own: str) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{number},{day},10:{number:02d}:00,{day} 12:00:00,No" for number, day in enumerate(DAYS)]
    path.write_text(f"id,day,time,{own},done\n" + "\n".join(rows) + "\n")
    found = planned(path, tmp_path, written_later={"done": own})
    assert len({column.name for column in found.columns}) == len(found.columns) == 6
    contract = next(text for name, text in texts(found).items() if name.name.endswith("__sources.yml"))
    assert contract.count("name: written_at,") == 1
    assert f"available_at: {{column: {found.written_at}}}" in contract


@pytest.mark.parametrize(
    ("form", "read_as"),
    [
        ("%Y-%m-%d", "%Y-%m-%d"),
        ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S"),
        ("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f"),
        ("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M"),
    ],
)
def test_a_time_that_is_a_text_in_parquet_is_one(tmp_path: Path, form: str, read_as: str) -> None:
    path = tmp_path / "a.parquet"
    times = [datetime(2025, 1, 1, 10, 30) + timedelta(days=number) for number in range(40)]
    numbers = [f"{number:03d}" for number in range(40)]
    pq.write_table(pa.table({"id": numbers, "at": [f"{time:{form}}" for time in times]}), path)
    column, values, _ = read(path)
    assert (column.data_type, column.format) == ("varchar", read_as)
    expected = [time if "%H" in form else time.date() for time in times]
    assert values == expected
    contract = next(
        text for name, text in texts(planned(path, tmp_path)).items() if name.name.endswith("__sources.yml")
    )
    assert f'event_time: {{column: at, format: "{read_as}"}}' in contract


def test_a_text_is_no_cursor(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [f"k{day}" for day in DAYS], "at": [f"{day} 10:00:00" for day in DAYS]}), path)
    place = Fetch.model_validate({"from": "sqlite:////shop.db#visit", "cursor": "at"})
    settings = Settings(home=tmp_path / "home", dbt=tmp_path / "dbt")
    with pytest.raises(BadInput, match="Nothing tells what is new in the table: at hold texts there; say --cursor COL"):
        look(settings, SourceRequest("shop", path, "visit", said=Said(event_time="at"), place=place))
