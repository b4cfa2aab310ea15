"""Cuts: what each source system would have delivered, drawn small; and the real files, whole."""

import hashlib
import io
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from xml.sax.saxutils import escape

import pandas as pd
import pytest

from tiltyard.prepare import cuts, datasets
from tiltyard.settings import Settings

BOOKINGS = b"""\
hotel,lead_time,arrival_date_year,arrival_date_month,arrival_date_day_of_month,country,reservation_status,reservation_status_date
Resort Hotel,1,2016,March,1,PRT,Canceled,2016-02-29
City Hotel,0,2016,February,29,NULL,Check-Out,2016-03-02
Resort Hotel,1,2016,March,1,PRT,Canceled,2016-02-29
City Hotel,367,2017,March,2,DEU,No-Show,2017-03-02
"""


def test_a_booking_arrives_on_its_day_and_its_outcome_on_the_day_it_was_settled():
    files, rows = cuts.hotels([BOOKINGS])
    assert rows == 8
    header, first, second, third, fourth = BOOKINGS.splitlines()
    header += b",booking_number,booked_at"
    outcome = b"booking_number,reservation_status,reservation_status_date,settled_at"
    assert {path: data.splitlines() for path, data in files.items()} == {
        "hotel_booking/2016-02-29.csv": [
            header,
            first + b",1,2016-02-29 23:59",
            second + b",2,2016-02-29 23:59",
            third + b",3,2016-02-29 23:59",
            fourth + b",4,2016-02-29 23:59",
        ],
        "hotel_outcome/2016-02-29.csv": [
            outcome,
            b"1,Canceled,2016-02-29,2016-03-01 00:00",
            b"3,Canceled,2016-02-29,2016-03-01 00:00",
        ],
        "hotel_outcome/2016-03-02.csv": [outcome, b"2,Check-Out,2016-03-02,2016-03-03 00:00"],
        "hotel_outcome/2017-03-02.csv": [outcome, b"4,No-Show,2017-03-02,2017-03-03 00:00"],
    }
    assert all(data.endswith(b"\n") for data in files.values())  # ingest refuses a last line that is cut off


def test_the_real_bookings(tmp_path: Path, data_mirror: Path):
    settings = Settings(home=tmp_path, data_mirror=data_mirror)
    result = datasets.fetch(settings, "hotels")
    assert (result.files, result.rows) == (984 + 926, 2 * 119_390)
    assert datasets.fetch(settings, "hotels").unchanged


COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
# two copies of a line, one without a customer, one whose description is missing, one that gives goods back; text as
# a person typed it
LINES = [
    ("536366", "22632", " HAND WARMER  RED", 6, datetime(2010, 12, 1, 8, 28), 1.85, 17850.0, "United Kingdom"),
    ("536366", "22632", " HAND WARMER  RED", 6, datetime(2010, 12, 1, 8, 28), 1.85, 17850.0, "United Kingdom"),
    ("536365", "85123A", 'HEART, "WHITE"', 2, datetime(2010, 12, 1, 8, 26), 2.55, None, "EIRE"),
    ("536414", "22139", None, 56, datetime(2010, 12, 3, 11, 52), 0.0, None, "United Kingdom"),
    ("C536379", "20713", "20713", -1, datetime(2010, 12, 3, 9, 41), 27.5, 14527.0, "United Kingdom"),
]


def as_parquet() -> bytes:
    out = io.BytesIO()
    frame = pd.DataFrame(LINES, columns=COLUMNS)
    frame.assign(Description=frame["Description"].fillna("Unknown")).to_parquet(out)
    return out.getvalue()


def as_workbook() -> bytes:
    """The same as Excel writes it: texts in a table of their own, codes that look like numbers as numbers, times as
    days, a missing cell left out."""
    texts: list[str] = []
    rows = []
    for number, line in enumerate([COLUMNS, *LINES], 1):
        cells = []
        for letter, value in zip("ABCDEFGH", line, strict=True):
            if value is None:
                continue
            kind = ""
            if isinstance(value, datetime):
                value = (value - datetime(1899, 12, 30)) / timedelta(days=1)
            elif isinstance(value, str) and not value.isdigit():
                kind = ' t="s"'
                texts.append(value)
                value = len(texts) - 1
            cells.append(f'<c r="{letter}{number}"{kind}><v>{value}</v></c>')
        rows.append(f'<row r="{number}">{"".join(cells)}</row>')
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    shared = "".join(f"<si><t>{escape(text)}</t></si>" for text in texts)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", f"<sst {main}>{shared}</sst>")
        archive.writestr(
            "xl/worksheets/sheet1.xml",
            f'<worksheet {main}><cols><col min="1"/></cols><sheetData>{"".join(rows)}</sheetData></worksheet>',
        )
    return out.getvalue()


def test_a_workbook_and_a_parquet_file_of_the_same_lines_are_the_same():
    lines = cuts.invoice_lines(as_parquet())
    assert cuts.invoice_lines(as_workbook()) == lines
    files, rows = cuts.online_retail([lines])
    assert rows == 5
    header = b"invoice_date,invoice_no,stock_code,description,quantity,unit_price,customer_id,country"
    assert {path: data.splitlines() for path, data in files.items()} == {
        "invoice_line/2010-12-01.csv": [
            header,
            b'2010-12-01 08:26,536365,85123A,"HEART, ""WHITE""",2,2.55,,EIRE',
            b"2010-12-01 08:28,536366,22632,HAND WARMER RED,6,1.85,17850,United Kingdom",
            b"2010-12-01 08:28,536366,22632,HAND WARMER RED,6,1.85,17850,United Kingdom",
        ],
        "invoice_line/2010-12-02.csv": [header],  # closed
        "invoice_line/2010-12-03.csv": [
            header,
            b"2010-12-03 09:41,C536379,20713,20713,-1,27.5,14527,United Kingdom",
            b"2010-12-03 11:52,536414,22139,,56,0.0,,United Kingdom",
        ],
    }
    assert all(data.endswith(b"\n") for data in files.values())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<html>moved</html>", "no readable Parquet file"),
        (as_workbook()[:-60], "no readable workbook"),
        (as_workbook()[:200] + bytes(40) + as_workbook()[240:], "no readable workbook"),
    ],
)
def test_what_is_no_invoice_log_is_said_to_be_none(content: bytes, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        cuts.invoice_lines(content)


def test_a_table_of_something_else_is_told_what_it_lacks():
    out = io.BytesIO()
    pd.DataFrame(LINES, columns=COLUMNS).drop(columns=["CustomerID", "Country"]).to_parquet(out)
    with pytest.raises(ValueError, match="no column Country, CustomerID"):
        cuts.invoice_lines(out.getvalue())


def test_the_real_invoices(tmp_path: Path, data_mirror: Path):
    settings = Settings(home=tmp_path, data_mirror=data_mirror)
    mirrored = data_mirror / "online_retail" / "online_retail.parquet"
    digest = "399de155a1c07e4bc89d8ef4f75d619c70a6b4ed39cc76ea54d56c2c939fb72b"
    assert hashlib.sha256(mirrored.read_bytes()).hexdigest() == digest
    result = datasets.fetch(settings, "retail")
    assert (result.files, result.rows) == (374, 541_909)
    assert datasets.fetch(settings, "retail").unchanged


FLIGHTS = b"""\
year,month,day,dep_time,dep_delay,arr_time,arr_delay,carrier,tailnum,flight,origin,dest,air_time,distance,hour,minute
2014,1,15,830,30.0,1005,20.0,AS,N1,7,SEA,SFO,75.0,679.0,8.0,30.0
2014,1,15,1,96.0,235,70.0,AS,N2,8,PDX,ANC,194.0,1542.0,0.0,1.0
2014,7,15,2357,-8.0,733,-8.0,DL,N3,9,SEA,ATL,250.0,2182.0,23.0,57.0
2014,1,15,,,,,AS,N4,10,SEA,ANC,,1542.0,,
2014,1,15,741,41.0,2400,,AA,N5,11,PDX,ATL,,2172.0,7.0,41.0
2014,1,15,2300,0.0,2400,5.0,AS,N6,12,SEA,SFO,50.0,679.0,23.0,0.0
"""
AIRPORTS = b"""\
"faa","name","lat","lon","alt","tz","dst"
"ANC","Ted Stevens Anchorage Intl",61.2,-150.0,152,-9,"A"
"ATL","Hartsfield Jackson Atlanta Intl",33.6,-84.4,1026,-5,"A"
"SFO","San Francisco Intl",37.6,-122.4,13,-8,"A"
"""
WEATHER = b"""\
"origin","year","month","day","hour","temp","date"
"PDX",2014,1,1,0,44.96,2014-01-01 00:00:00
"PDX",2014,1,1,23,41,2014-01-01 23:00:00
"""


def test_a_flight_arrives_on_the_day_before_and_when_it_has_landed():
    """On time; left after midnight, and so a day after its own; left early, and so a day before; cancelled;
    diverted; landed at midnight."""
    published, ended = cuts.flight_writings(FLIGHTS, AIRPORTS)
    assert (
        list(published.astype(str))
        == ["2014-01-14 12:00:00+00:00"] * 2 + ["2014-07-14 12:00:00+00:00"] + ["2014-01-14 12:00:00+00:00"] * 3
    )
    assert list(ended.astype(str)) == [
        "2014-01-15 18:05:00+00:00",
        "2014-01-16 11:35:00+00:00",
        "2014-07-15 11:33:00+00:00",
        "2014-01-16 12:00:00+00:00",
        "2014-01-16 12:00:00+00:00",
        "2014-01-16 08:00:00+00:00",
    ]


def test_a_delivery_holds_the_row_as_it_lies_and_when_it_was_written():
    files, rows = cuts.flights([FLIGHTS, WEATHER, AIRPORTS])
    assert rows == 2 * 6 + 2
    header, first, *_ = FLIGHTS.splitlines()
    assert sorted(files) == [
        *(f"flight/2014-{day}.csv" for day in ("01-14", "01-15", "01-16", "07-14", "07-15")),
        "weather/2014-01-01.csv",
        "weather/2014-01-02.csv",
    ]
    assert files["flight/2014-01-14.csv"].splitlines()[:2] == [
        header + b",written_at",
        first + b",2014-01-14T12:00:00Z",
    ]
    assert files["flight/2014-01-15.csv"].splitlines()[1:] == [first + b",2014-01-15T18:05:00Z"]
    assert files["weather/2014-01-02.csv"].splitlines() == [
        b'"origin","year","month","day","hour","temp","date","written_at"',
        b'"PDX",2014,1,1,23,41,2014-01-01 23:00:00,2014-01-02T00:00:00Z',
    ]
    assert all(data.endswith(b"\n") for data in files.values())


def test_copies_that_spell_their_fields_differently_are_one():
    """As R writes it, as pandas does, sorted otherwise; a field that needs its quotes has no one spelling."""
    by_r = b'year,dep_delay,arr_delay,carrier\r\n2014,-5,NA,"AS"\r\n2014,96,70.5,"NA"\r\n'
    by_pandas = b"year,dep_delay,arr_delay,carrier\n2014,96.0,70.5,\n2014,-5.0,,AS\n"
    assert cuts.one_spelling(by_r) == cuts.one_spelling(by_pandas)
    assert cuts.one_spelling(by_r) == b"year,dep_delay,arr_delay,carrier\n2014,-5,,AS\n2014,96,70.5,\n"
    with pytest.raises(ValueError, match="comma"):
        cuts.one_spelling(b'carrier,name\nAS,"Alaska, Airlines"\n')


def test_the_real_flights(tmp_path: Path, data_mirror: Path):
    settings = Settings(home=tmp_path, data_mirror=data_mirror)
    result = datasets.fetch(settings, "flights")
    assert (result.files, result.rows) == (732, 2 * 162_049 + 17_426)
    assert datasets.fetch(settings, "flights").unchanged
