"""How each source system would have delivered a public data set: one file per table and day. Pure.

A cut takes the contents of a data set's files (their digests are checked by datasets.py, so that their form is
known) and gives its deliveries: path below landing/<source>/ → bytes, and the number of rows. A delivery holds
what its day brought, with the columns of the public file as they are: staging has to blank what was filled in
afterwards.
"""

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from itertools import groupby
from typing import IO, NamedTuple

import numpy as np
import pandas as pd


class CutDeliveries(NamedTuple):
    """What a source system would have delivered."""

    files: Mapping[str, bytes]
    """Path below landing/<source>/ → content."""
    rows: int
    """Rows in all files."""


Cut = Callable[[Sequence[bytes]], CutDeliveries]
"""The contents of a data set's files → its deliveries."""


def incident(contents: Sequence[bytes]) -> CutDeliveries:
    """The event log by the day on which its rows were written."""
    [content] = contents
    files, rows = by_day(content, column="sys_updated_at")
    return CutDeliveries({f"incident_update/{day}.csv": data for day, data in files.items()}, rows)


def hotels(contents: Sequence[bytes]) -> CutDeliveries:
    """Bookings on the day they were made, and what became of them on the day it was settled.

    The export has no booking number: a booking is called by its line. It knows days only, so that a day stands for
    its end: a booking counts as made at 23:59 of (arrival - lead_time), and as settled at the midnight after
    `reservation_status_date`, later than a booking of the same day. No field may hold a comma, a quote or a line
    break.
    """
    [content] = contents
    header, *lines = content.splitlines()
    names = header.decode().split(",")
    parts = ("lead_time", "arrival_date_year", "arrival_date_month", "arrival_date_day_of_month")
    lead, *arrival = (names.index(name) for name in parts)
    status, settled = names.index("reservation_status"), names.index("reservation_status_date")
    bookings: dict[date, list[bytes]] = defaultdict(list)
    outcomes: dict[date, list[bytes]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        fields = line.decode().split(",")
        arrives = datetime.strptime(" ".join(fields[place] for place in arrival), "%Y %B %d").date()
        made_on, settled_on = arrives - timedelta(days=int(fields[lead])), date.fromisoformat(fields[settled])
        bookings[made_on].append(b"%s,%d,%s 23:59" % (line, number, str(made_on).encode()))
        row = f"{number},{fields[status]},{fields[settled]},{settled_on + timedelta(days=1)} 00:00"
        outcomes[settled_on].append(row.encode())
    tables = {
        "hotel_booking": (header + b",booking_number,booked_at", bookings),
        "hotel_outcome": (b"booking_number,reservation_status,reservation_status_date,settled_at", outcomes),
    }
    files = {
        f"{table}/{day}.csv": b"\n".join([first, *rows, b""])
        for table, (first, days) in tables.items()
        for day, rows in sorted(days.items())
    }
    return CutDeliveries(files, 2 * len(lines))


def by_day(content: bytes, column: str) -> tuple[dict[date, bytes], int]:
    """A CSV as one CSV per day of `column` (d/m/yyyy HH:MM), lines in their order; and the number of rows.

    No field may hold a comma, a quote or a line break.
    """
    header, *lines = content.splitlines(keepends=True)
    index = header.rstrip().split(b",").index(column.encode())
    parts: dict[bytes, list[bytes]] = defaultdict(list)
    for line in lines:
        parts[line.split(b",", index + 1)[index].split(b" ", 1)[0]].append(line)
    files: dict[date, bytes] = {}
    for text, part in parts.items():
        day, month, year = (int(number) for number in text.split(b"/"))
        files[date(year, month, day)] = header + b"".join(part)
    return dict(sorted(files.items())), len(lines)


_EXCEL_EPOCH = datetime(1899, 12, 30)


# half a million lines share a few thousand values in each column
@cache
def _minute(text: str) -> str:
    """An instant, ISO 8601 or Excel's days since 30 December 1899."""
    if "-" in text:
        moment = datetime.fromisoformat(text)
    else:
        moment = _EXCEL_EPOCH + timedelta(minutes=round(float(text) * 24 * 60))
    return f"{moment:%Y-%m-%d %H:%M}"


@cache
def _words(text: str) -> str:
    return "" if text == "Unknown" else " ".join(text.split())


@cache
def _whole(text: str) -> str:
    return str(int(float(text))) if text else ""


@cache
def _decimal(text: str) -> str:
    return repr(float(text))


INVOICE_LINE: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "InvoiceDate": ("invoice_date", _minute),
    "InvoiceNo": ("invoice_no", str.strip),
    "StockCode": ("stock_code", str.strip),
    "Description": ("description", _words),
    "Quantity": ("quantity", _whole),
    "UnitPrice": ("unit_price", _decimal),
    "CustomerID": ("customer_id", _whole),
    "Country": ("country", str.strip),
}
"""Public name of each column of an invoice line → its name in a delivery, the date first, and its one spelling."""
_CELL = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def online_retail(contents: Sequence[bytes]) -> CutDeliveries:
    """The invoice lines, as `invoice_lines` gives them, by the day of their invoice.

    The till reports every evening: a day on which the shop was closed brings the header alone.
    """
    [content] = contents
    header, *lines = content.splitlines(keepends=True)
    days = {
        date.fromisoformat(day.decode()): b"".join(part) for day, part in groupby(lines, key=lambda line: line[:10])
    }
    first, last = min(days), max(days)
    every = (first + timedelta(days=number) for number in range((last - first).days + 1))
    files = {f"invoice_line/{day}.csv": header + days.get(day, b"") for day in every}
    return CutDeliveries(files, len(lines))


def invoice_lines(content: bytes) -> bytes:
    """The invoice lines of an Excel workbook or a Parquet file as one CSV, the same for both, sorted.

    What the two write differently is made one: a missing description (`Unknown` in Parquet) is empty, spaces around
    a text are gone, times are ISO 8601 to the minute. Nothing else is touched, copies of a line stay.
    Raises ValueError for any other file.
    """
    table = _workbook(content) if content.startswith(b"PK") else _parquet(content)
    header = next(table, [])
    missing = sorted(set(INVOICE_LINE) - set(header))
    if missing:
        raise ValueError(f"no column {', '.join(missing)}")
    columns = [(header.index(name), form) for name, (_, form) in INVOICE_LINE.items()]
    lines = sorted(tuple([form(row[place]) for place, form in columns]) for row in table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(name for name, _ in INVOICE_LINE.values())
    writer.writerows(lines)
    return text.getvalue().encode()


def _parquet(content: bytes) -> Iterator[list[str]]:
    """The header and the rows of a Parquet file, as text; missing is empty."""
    import pandas as pd

    try:
        table = pd.read_parquet(io.BytesIO(content))
    except (ValueError, OSError) as error:
        raise ValueError(f"no readable Parquet file: {error}") from None
    yield [str(name) for name in table.columns]
    columns = []
    for name in table.columns:
        codes, values = pd.factorize(table[name])  # missing is -1, the last
        texts = [*(str(value) for value in values), ""]
        columns.append([texts[code] for code in codes])
    yield from (list(row) for row in zip(*columns, strict=True))


def _workbook(content: bytes) -> Iterator[list[str]]:
    """The header and the rows of a workbook's first sheet, as text; missing is empty.

    The format: ECMA-376, part 1, 18.3.1 (sheets) and 18.4 (shared strings). Only cells' values are read, as they are
    written: a number in its digits, a time in days.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            shared: list[str] = []
            if "xl/sharedStrings.xml" in archive.namelist():
                with archive.open("xl/sharedStrings.xml") as file:
                    shared = ["".join(_texts(entry)) for entry in _elements(file, "si")]
            width = 0
            with archive.open("xl/worksheets/sheet1.xml") as file:
                for row in _elements(file, "row"):
                    cells = {_place(cell.get("r", "")): _value(cell, shared) for cell in row}
                    width = width or max(cells, default=-1) + 1
                    yield [cells.get(place, "") for place in range(width)]
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, IndexError, ElementTree.ParseError) as error:
        raise ValueError(f"no readable workbook: {error}") from None


def _elements(file: IO[bytes], name: str) -> Iterator[ElementTree.Element]:
    """Every element of that name, one at a time: a sheet of half a million rows is never whole in memory."""
    parents: list[ElementTree.Element] = []
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        if event == "start":
            parents.append(element)
            continue
        parents.pop()
        if element.tag == _CELL + name:
            yield element
            parents[-1].remove(element)


def _texts(element: ElementTree.Element) -> Iterator[str]:
    return (part.text or "" for part in element.iter(_CELL + "t"))


def _value(cell: ElementTree.Element, shared: Sequence[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(_texts(cell))
    value = cell.findtext(_CELL + "v") or ""
    return shared[int(value)] if cell.get("t") == "s" else value


def _place(reference: str) -> int:
    """The column of a cell reference, from 0: B7 → 1."""
    place = 0
    for letter in reference.rstrip("0123456789"):
        place = place * 26 + ord(letter) - ord("A") + 1
    return place - 1


PUBLISHED_AHEAD = "12h"
"""A day's flights are delivered at noon UTC of the day before: after every schedule is public, and before the first
prediction of the day."""
_ZONES = {
    (-5, "A"): "America/New_York",
    (-6, "A"): "America/Chicago",
    (-7, "A"): "America/Denver",
    (-7, "N"): "America/Phoenix",
    (-8, "A"): "America/Los_Angeles",
    (-9, "A"): "America/Anchorage",
    (-10, "N"): "Pacific/Honolulu",
}
"""Hours from UTC in winter and whether it keeps daylight saving time ("A"), as airports.csv says it → its zone."""


def flights(contents: Sequence[bytes]) -> CutDeliveries:
    """Every flight twice, as published on the day before and as it ended; and the weather by the hour.

    The public file has one row per flight, with its end in it, and no write time. Both deliveries of a flight have
    that row as it is, with one more column: `written_at`, when the delivery was written. See `flight_writings`
    and `weather_writings`.
    """
    flown, weather, airports = contents
    files: dict[str, bytes] = {}
    rows = 0
    for table, content, times in (
        ("flight", flown, flight_writings(flown, airports)),
        ("weather", weather, weather_writings(weather)),
    ):
        for day, data in _stamped(content, times).items():
            files[f"{table}/{day}.csv"] = data
        rows += sum(len(written) for written in times)
    return CutDeliveries(files, rows)


def one_spelling(content: bytes) -> bytes:
    """A CSV whose fields need no quotes, as every writer of CSV would have to have written it: no quotes, NA as an
    empty field, whole numbers without a point, lines sorted. Raises ValueError where a field needs its quotes."""
    body = b"\n".join([*content.replace(b'"', b"").splitlines(), b""])
    body = re.sub(rb"(?<=[,\n])NA(?=[,\n])", b"", body)
    body = re.sub(rb"(?<=[,\n])(-?\d+)\.0+(?=[,\n])", rb"\1", body)
    header, *lines = body.splitlines()
    if any(line.count(b",") != header.count(b",") for line in lines):
        raise ValueError("a field with a comma or a line break")
    return b"\n".join([header, *sorted(lines), b""])


def flight_writings(flown: bytes, airports: bytes) -> tuple[pd.Series, pd.Series]:
    """When each flight was published, and when its end was written: instants in UTC, one per row of `flown`.

    Published: noon UTC of the day before. Ended: when it landed, which is the first time after take-off and time in
    the air that the clocks at the destination showed `arr_time`. A flight that never landed there (cancelled,
    diverted) has its end written two days after it was published, when the next day is over at either coast.
    """
    table = pd.read_csv(io.BytesIO(flown), na_values=["NA"])
    places = pd.read_csv(io.BytesIO(airports), keep_default_na=False).set_index("faa")
    day = pd.to_datetime(table[["year", "month", "day"]])
    published = day.dt.tz_localize("UTC") - pd.Timedelta(PUBLISHED_AHEAD)
    left = _wall(table["dep_time"])
    scheduled = day + pd.to_timedelta((left - table["dep_delay"]) % _DAY, unit="min")
    departed = _instant(scheduled, "America/Los_Angeles") + pd.to_timedelta(table["dep_delay"], unit="min")
    down = departed + pd.to_timedelta(table["air_time"], unit="min")
    landed = pd.Series(pd.NaT, index=table.index, dtype=down.dtype)
    for keeps, zone in _ZONES.items():
        here = table["dest"].isin(places.index[[key == keeps for key in zip(places["tz"], places["dst"], strict=True)]])
        local = down[here].dt.tz_convert(zone)
        waits = (_wall(table.loc[here, "arr_time"]) - local.dt.hour * 60 - local.dt.minute) % _DAY
        # half a day between touching down and the gate is a clock that was not put forward (four flights of 8 March)
        landed[here] = down[here] + pd.to_timedelta(waits.where(waits < _DAY / 2, 0), unit="min")
    return published, landed.fillna(published + pd.Timedelta("2d"))


def weather_writings(weather: bytes) -> tuple[pd.Series]:
    """When each observation was written: at the end of its hour. `date` is the hour's beginning, in UTC.

    A row is the first report within its hour, at any minute of it: only at the hour's end was it there for sure.
    """
    table = pd.read_csv(io.BytesIO(weather), usecols=["date"], parse_dates=["date"])
    return (table["date"].dt.tz_localize("UTC") + pd.Timedelta("1h"),)


_DAY = 24 * 60


def _wall(clock: pd.Series) -> pd.Series:
    """Minutes since midnight of a time written as 5, 830 or 2400."""
    return clock // 100 * 60 + clock % 100


def _instant(local: pd.Series, zone: str) -> pd.Series:
    """Wall-clock times of a zone as instants in UTC; an hour that came twice is its first, one that never came is
    the next."""
    ambiguous = local.notna().to_numpy()
    here: pd.Series = local.dt.tz_localize(zone, ambiguous=ambiguous, nonexistent="shift_forward")
    instants: pd.Series = here.dt.tz_convert("UTC")
    return instants


def _stamped(content: bytes, times: Sequence[pd.Series]) -> dict[date, bytes]:
    """A CSV's lines by the UTC day of their writing, each with `written_at` as its last column, in order of writing.

    `times` has a series per writing: a line is written once for each.
    """
    header, *lines = content.splitlines()
    written = pd.concat(list(times)).sort_values(kind="stable")
    stamps = np.datetime_as_string(written.dt.tz_localize(None).to_numpy(), unit="s")
    parts: dict[str, list[bytes]] = defaultdict(list)
    for line, stamp in zip(written.index, stamps.tolist(), strict=True):
        parts[stamp[:10]].append(b"%s,%sZ\n" % (lines[line], stamp.encode()))
    top = header + (b',"written_at"\n' if header.startswith(b'"') else b",written_at\n")
    return {date.fromisoformat(day): top + b"".join(part) for day, part in sorted(parts.items())}
