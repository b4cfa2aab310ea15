"""One export becomes the deliveries that would have brought it: nothing in them before it could have been known."""

import os
import shutil
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from tiltyard.errors import BadInput
from tiltyard.scaffold import cutting, inferring, new_source, source_texts, write
from tiltyard.scaffold.cutting import CutSummary
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.new_source import SourceRequest
from tiltyard.settings import Settings

EXPORT = """am,bis,was,ausgang,bericht
01.03.2016,01.03.2016,a,gut,x
01.03.2016,04.03.2016,b,schlecht,
02.03.2016,05.03.2016,c,,
03.03.2016,03.03.2016,d,gut,y
"""
SAID = Said(event_time="am", planned=("bis",), written_later={"ausgang": "bis", "bericht": None})


def cut(
    folder: Path, text: str = EXPORT, *, zone: str = "UTC", known: str | None = None, said: Said = SAID
) -> CutSummary:
    """The export beside a checkout without any other source."""
    (folder / "dbt" / "models" / "staging").mkdir(parents=True)
    settings = Settings(home=folder, dbt=folder / "dbt")
    (folder / "a.csv").write_text(text, encoding="utf-8")
    plan = new_source.look(settings, SourceRequest("werk", folder / "a.csv", table="auftrag", zone=zone, said=said))
    write.files(settings, source_texts.texts(plan))
    return cutting.cut(settings, "werk", folder / "a.csv", known=known)


def delivered(folder: Path) -> list[tuple[object, ...]]:
    """(day of the file, number, what is written later, when it was written), in order."""
    files = folder / "landing" / "werk" / "auftrag" / "*.parquet"
    query = (
        "select left(parse_filename(filename), 10), auftrag_id, ausgang, bericht, "
        "strftime(written_at, '%m-%d %H:%M:%S') "
        f"from read_parquet('{files}', filename = true) order by 2, written_at"
    )
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        return connection.execute(query).fetchall()


def test_a_day_stands_for_its_end_and_an_outcome_of_the_same_day_comes_after_it(tmp_path: Path) -> None:
    summary = cut(tmp_path)
    assert (summary.rows, summary.written_again, summary.undated) == (4, 3, 0)
    assert delivered(tmp_path) == [
        ("2016-03-01", 1, None, None, "03-01 23:59:59"),
        ("2016-03-01", 1, "gut", "x", "03-02 00:00:00"),
        ("2016-03-01", 2, None, None, "03-01 23:59:59"),
        ("2016-03-04", 2, "schlecht", None, "03-05 00:00:00"),
        ("2016-03-02", 3, None, None, "03-02 23:59:59"),
        ("2016-03-03", 4, None, None, "03-03 23:59:59"),
        ("2016-03-03", 4, "gut", "y", "03-04 00:00:00"),
    ]


def test_days_are_those_of_the_zone(tmp_path: Path) -> None:
    cut(tmp_path, zone="America/Sao_Paulo")
    assert delivered(tmp_path)[0] == ("2016-03-02", 1, None, None, "03-02 02:59:59")
    assert delivered(tmp_path)[1] == ("2016-03-02", 1, "gut", "x", "03-02 03:00:00")


def test_what_nothing_dates_comes_thirty_days_after_its_row(tmp_path: Path) -> None:
    said = Said(event_time="am", planned=("bis",), written_later={"ausgang": None, "bericht": None})
    cut(tmp_path, said=said)
    assert delivered(tmp_path)[1] == ("2016-03-31", 1, "gut", "x", "03-31 23:59:59")


def test_how_long_after_its_row_is_in_the_contract_and_a_cut_takes_it_from_there(tmp_path: Path) -> None:
    said = Said(event_time="am", planned=("bis",), written_later={"ausgang": None, "bericht": None})
    (tmp_path / "dbt" / "models" / "staging").mkdir(parents=True)
    settings = Settings(home=tmp_path, dbt=tmp_path / "dbt")
    (tmp_path / "a.csv").write_text(EXPORT, encoding="utf-8")
    request = SourceRequest("werk", tmp_path / "a.csv", "auftrag", said=said, written_after=timedelta(days=1))
    texts = source_texts.texts(new_source.look(settings, request))
    assert any("written_after: 1d" in text for text in texts.values())
    write.files(settings, texts)
    cutting.cut(settings, "werk", tmp_path / "a.csv")
    assert delivered(tmp_path)[1] == ("2016-03-02", 1, "gut", "x", "03-02 23:59:59")


def test_a_mistyped_year_makes_no_years_of_deliveries(tmp_path: Path) -> None:
    """One outcome of 2027 among a thousand rows: the row is delivered as it was known first, and that is said."""
    rows = "".join(f"{1 + number % 28:02}.03.2016,{1 + number % 28:02}.03.2016,a,gut,x\n" for number in range(1_000))
    summary = cut(tmp_path, f"am,bis,was,ausgang,bericht\n{rows}03.03.2016,03.03.2027,d,gut,y\n")
    assert (summary.last, summary.outlying, summary.rows) == (date(2016, 3, 28), 1, 1_001)
    assert summary.deliveries == 28 and summary.written_again == 1_000
    assert summary.caution is not None
    assert summary.caution.startswith("1 writing of a row was left out: the day lies months before or after all others")


def test_a_row_of_a_mistyped_year_is_left_out_in_all_its_writings(tmp_path: Path) -> None:
    """Its outcome lies within, and would be the first that is known of it. Nor do two years close every day."""
    days = [f"{1 + number % 28:02}.03.2016" for number in range(3_000)]
    rows = "".join(f"{day},{day},a,gut,x\n" for day in days)
    odd = "03.03.1926,05.03.2016,d,gut,y\n03.03.2206,05.03.2016,e,gut,y\n"
    summary = cut(tmp_path, f"am,bis,was,ausgang,bericht\n{rows}{odd}")
    assert (summary.first, summary.last) == (date(2016, 3, 1), date(2016, 3, 28))
    assert (summary.outlying, summary.outlying_rows, summary.written_again) == (4, 2, 3_000)
    assert summary.caution is not None
    assert "with all that there is of 2 rows" in summary.caution
    assert not [row for row in delivered(tmp_path) if row[1] in (3_001, 3_002)]
    [contract] = (tmp_path / "dbt" / "models" / "staging" / "werk").glob("_*.yml")
    assert "closed:" not in contract.read_text(encoding="utf-8")
    assert "Median rows: 107." in contract.read_text(encoding="utf-8")
    said = new_source.look(
        Settings(home=tmp_path / "b", dbt=tmp_path / "b"),
        SourceRequest("neu", tmp_path / "a.csv", table="auftrag", said=SAID),
    )
    assert any("In 2 rows am lies months before or after all others (2016-03-01 to 2016-03-28)" in note
               for note in said.found.notes)  # fmt: skip


DAYS = {date(2016, 1, 1) + timedelta(days=number): 50 for number in range(60)}


@pytest.mark.parametrize(
    ("more", "first", "last"),
    [
        ({}, date(2016, 1, 1), date(2016, 2, 29)),
        ({date(1900, 1, 1): 1, date(2061, 1, 1): 1}, date(2016, 1, 1), date(2016, 2, 29)),
        ({date(2027, 4, 27): 2}, date(2016, 1, 1), date(2016, 2, 29)),
        ({date(2016, 3, 20): 1}, date(2016, 1, 1), date(2016, 3, 20)),
        ({date(2017, 3, 1): 400}, date(2016, 1, 1), date(2017, 3, 1)),
        ({date(2031, 3, 1): 400}, date(2016, 1, 1), date(2016, 2, 29)),
    ],
)
def test_the_span_of_an_export_ends_where_its_rows_do(more: dict[date, int], first: date, last: date) -> None:
    assert inferring.whole_span({**DAYS, **more}, date(2026, 11, 30)) == (first, last)


def test_an_export_of_the_future_is_cut_as_it_is() -> None:
    days = {date(2050, 1, day): 5 for day in range(1, 20)}
    assert inferring.whole_span(days, date(2026, 11, 30)) == (date(2050, 1, 1), date(2050, 1, 19))


def test_an_empty_day_within_is_a_delivery_without_rows(tmp_path: Path) -> None:
    summary = cut(tmp_path, EXPORT.replace("03.03.2016,03.03.2016,d", "08.03.2016,08.03.2016,d"))
    assert summary.deliveries == 8
    assert len(list((tmp_path / "landing" / "werk" / "auftrag").iterdir())) == 8


def test_an_export_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    cut(tmp_path)
    settings = Settings(home=tmp_path / "other", dbt=tmp_path / "dbt")
    (tmp_path / "b.csv").write_text(EXPORT.replace("ausgang", "ergebnis"), encoding="utf-8")
    with pytest.raises(BadInput, match="'ausgang' is missing and 'ergebnis' is not in the contract"):
        cutting.cut(settings, "werk", tmp_path / "b.csv")
    with pytest.raises(BadInput, match="has no table 'lauf'"):
        cutting.cut(settings, "werk", tmp_path / "a.csv", table="lauf")
    with pytest.raises(BadInput, match="no column 'wann'"):
        cutting.cut(settings, "werk", tmp_path / "a.csv", known="wann")


@pytest.mark.parametrize("value", ["3.7", '"3.7"', '"0x1F"', '"1_000"', "12345678901234567890", "true"])
def test_an_export_of_json_whose_value_is_not_of_its_type_is_refused(tmp_path: Path, value: str) -> None:
    cut(tmp_path, "am,zahl\n2016-03-01,3\n2016-03-02,4\n", said=Said(event_time="am"))
    export = tmp_path / "zahl=1" / "b.jsonl"
    export.parent.mkdir()
    settings = Settings(home=tmp_path / "other", dbt=tmp_path / "dbt")
    export.write_text(f'{{"am": "2016-03-01", "zahl": 5}}\n{{"am": "2016-03-02", "zahl": {value}}}\n')
    with pytest.raises(BadInput, match="column 'zahl' has values that are no BIGINT"):
        cutting.cut(settings, "werk", export)
    export.write_text('{"am": "2016-03-01", "zahl": 5}\n{"am": "2016-03-02", "zahl": "6"}\n')
    assert cutting.cut(settings, "werk", export).rows == 2


class Ended(Exception):
    """Somebody ends it."""


def test_of_a_cut_that_is_ended_nobody_reads_a_part(tmp_path: Path) -> None:
    cut(tmp_path)
    folder = tmp_path / "landing" / "werk" / "auftrag"
    whole = sorted(path.name for path in folder.iterdir())
    shutil.rmtree(folder)
    settings = Settings(home=tmp_path, dbt=tmp_path / "dbt")

    def end(label: str, share: float | None) -> None:
        if label == "writing" and share:
            assert not folder.exists()
            raise Ended

    with pytest.raises(Ended):
        cutting.cut(settings, "werk", tmp_path / "a.csv", progress=end)
    assert not folder.exists()
    assert [*settings.landing.glob(".cut-*")] == []
    left = settings.landing / ".cut-werk-auftrag-killed"  # who is killed cannot even take that away
    (left / "auftrag").mkdir(parents=True)
    os.utime(left, (0, 0))
    folder.mkdir()
    (folder / ".2016-03-01.parquet.1-1.part").touch()
    cutting.cut(settings, "werk", tmp_path / "a.csv")
    assert sorted(path.name for path in folder.iterdir()) == whole
    assert not left.exists()


def test_of_two_cuts_at_once_one_is_refused(tmp_path: Path) -> None:
    cut(tmp_path)
    folder = tmp_path / "landing" / "werk" / "auftrag"
    shutil.rmtree(folder)
    settings = Settings(home=tmp_path, dbt=tmp_path / "dbt")
    others = iter([True])

    def another(label: str, share: float | None) -> None:
        if label == "writing" and next(others, False):
            cutting.cut(settings, "werk", tmp_path / "a.csv")

    with pytest.raises(BadInput, match="holds deliveries by now, and none is written over"):
        cutting.cut(settings, "werk", tmp_path / "a.csv", progress=another)
    assert [path.name for path in settings.landing.iterdir()] == ["werk"]
    assert len(delivered(tmp_path)) == 7


def test_what_an_ended_run_has_written_is_no_obstacle_and_another_text_is(tmp_path: Path) -> None:
    (tmp_path / "dbt" / "models" / "staging").mkdir(parents=True)
    settings = Settings(home=tmp_path, dbt=tmp_path / "dbt")
    (tmp_path / "a.csv").write_text(EXPORT, encoding="utf-8")
    plan = new_source.look(settings, SourceRequest("werk", tmp_path / "a.csv", table="auftrag", said=SAID))
    texts = source_texts.texts(plan)
    paths = write.files(settings, texts)
    paths[0].unlink()
    assert write.files(settings, texts) == paths
    exposures = settings.dbt / "models" / "_models__exposures.yml"
    for _ in range(2):
        assert {exposures, *paths} == {*write.files(settings, texts, "  - name: a\n")}
        assert exposures.read_text().count("- name: a") == 1
    paths[1].write_text("mine")
    with pytest.raises(BadInput, match=f"{paths[1].name} is there already, and nothing is written over"):
        write.files(settings, texts)
    assert paths[1].read_text() == "mine"
