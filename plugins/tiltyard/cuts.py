"""How each source system would have delivered a public data set: one file per table and day. Pure.

A cut takes the contents of a data set's files (their digests are checked by datasets.py, so that their form is
known) and gives its deliveries: path below landing/<source>/ → bytes, and the number of rows. A delivery holds
what its day brought, with the columns as they lie in the public file: staging has to blank what was filled in
afterwards.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta

Cut = Callable[[Sequence[bytes]], tuple[Mapping[str, bytes], int]]


def incident(contents: Sequence[bytes]) -> tuple[Mapping[str, bytes], int]:
    """The event log by the day on which its rows were written."""
    [content] = contents
    files, rows = by_day(content, column="sys_updated_at")
    return {f"incident_update/{day}.csv": data for day, data in files.items()}, rows


def hotels(contents: Sequence[bytes]) -> tuple[Mapping[str, bytes], int]:
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
    return files, 2 * len(lines)


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
