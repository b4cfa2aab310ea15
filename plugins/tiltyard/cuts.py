"""How each source system would have delivered a public data set: one file per table and day. Pure.

A cut takes the contents of a data set's files (their digests are checked by datasets.py, so that their form is
known) and gives its deliveries: path below landing/<source>/ → bytes, and the number of rows. A delivery holds
what its day brought, with the columns as they lie in the public file: staging has to blank what was filled in
afterwards.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date

Cut = Callable[[Sequence[bytes]], tuple[Mapping[str, bytes], int]]


def incident(contents: Sequence[bytes]) -> tuple[Mapping[str, bytes], int]:
    """The event log by the day on which its rows were written."""
    [content] = contents
    files, rows = by_day(content, column="sys_updated_at")
    return {f"incident_update/{day}.csv": data for day, data in files.items()}, rows


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
