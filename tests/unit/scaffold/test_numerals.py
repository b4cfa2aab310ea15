"""Numbers with marks between their thousands are read as what they are, or said to be open; never as another value."""

from pathlib import Path

import duckdb
import pytest

from tiltyard import casts
from tiltyard.errors import BadInput
from tiltyard.lake import text
from tiltyard.prepare.contracts import Format
from tiltyard.scaffold import sample
from tiltyard.scaffold.found import FileForm

Found = tuple[FileForm, dict[str, list[object]], tuple[str, ...]]


def read(folder: Path, columns: dict[str, list[str]], *, delimiter: str = ";", thousands: str | None = None) -> Found:
    """How a file is written, its values, and what is said of it; each list of values is said again up to 60 rows."""
    lines = [delimiter.join(("day", *columns))]
    for row in range(60):
        fields = [values[row % len(values)] for values in columns.values()]
        lines.append(delimiter.join((f"2025-01-{1 + row % 28:02d}", *(f'"{field}"' for field in fields))))
    (folder / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with sample.opened(folder / "a.csv", thousands=thousands) as opened:
        found = {
            name: [
                value for (value,) in opened.connection.execute(f"select {name} from sample order by _line").fetchall()
            ]
            for name in columns
        }
        return opened.table.form, found, opened.notes


def test_points_between_thousands_are_none_before_decimals(tmp_path: Path) -> None:
    mileage = ["175.848", "969", "12.000", "1", "k. A."] + ["2.500"] * 20
    form, values, notes = read(tmp_path, {"km": mileage, "amount": ["1.234,56", "7,5", "-"] + ["12,00"] * 20})
    assert (form.decimal, form.thousands) == (",", ".")
    assert values["km"][:5] == [175848, 969, 12000, 1, None]
    assert values["amount"][:3] == [1234.56, 7.5, None]
    assert not [note for note in notes if "km" in note]


@pytest.mark.parametrize(("shown", "value"), [("1,234.56", 1234.56), ("1,234,567", 1_234_567)])
def test_commas_between_thousands_are_read_where_they_are_proven(tmp_path: Path, shown: str, value: float) -> None:
    form, values, _ = read(tmp_path, {"amount": [shown, "7"]}, delimiter=",")
    assert (form.decimal, form.thousands, values["amount"][:2]) == (".", ",", [value, 7])


def test_what_may_be_thousands_stays_text_until_somebody_says_it(tmp_path: Path) -> None:
    columns = {"km": ["175.848", "969", "2.500"]}
    _, values, notes = read(tmp_path, columns)
    assert values["km"][0] == "175.848"
    assert notes == (
        "km is text, for 2.500 beside 969 may be thousands, or have three decimals: say --thousands . where it is "
        "thousands, and --thousands none where not.",
    )
    assert read(tmp_path, columns, thousands=".")[1]["km"][:2] == [175848, 969]
    assert read(tmp_path, columns, thousands="")[1]["km"][:2] == [175.848, 969]


def test_three_decimals_everywhere_are_decimals_and_said_where_they_may_be_thousands(tmp_path: Path) -> None:
    assert "may be read both ways: 2.620 was taken" in read(tmp_path, {"wt": ["2.620", "1.935"]})[2][0]
    assert read(tmp_path, {"wt": ["2.620", "0.935"]})[2] == ()
    _, values, notes = read(tmp_path, {"wt": ["2.620", "1.935"]}, delimiter=",")
    assert (values["wt"][0], notes) == (2.62, ())


def test_a_delivery_is_read_by_the_marks_of_its_contract(tmp_path: Path) -> None:
    spelled = ["175.848", "969", "1.234.567", "12.34", "1.2345", "0.125", "-1.000", "7,0", "1.234,5", "7.0"]
    with duckdb.connect() as connection:
        for kind, expected in {
            "BIGINT": [175848, 969, 1234567, None, None, None, -1000, 7, None, None],
            "DOUBLE": [175848, 969, 1234567, None, None, None, -1000, 7, 1234.5, None],
        }.items():
            query = [casts.read(text(value), kind, decimal=",", thousands=".") for value in spelled]
            assert list(connection.execute(f"select {', '.join(query)}").fetchone() or ()) == expected
        without = casts.read("'175.000'", "BIGINT", decimal=",")
        assert connection.execute(f"select {without}").fetchone() == (None,)
    with pytest.raises(ValueError, match="cannot stand before decimals and between thousands"):
        Format(decimal=",", thousands=",")


def test_what_stands_between_no_thousands_is_refused() -> None:
    from tiltyard.cli.new import _mark

    assert [_mark(None), _mark("none"), _mark(".")] == [None, "", "."]
    with pytest.raises(BadInput, match="stands between no thousands"):
        _mark("x")
