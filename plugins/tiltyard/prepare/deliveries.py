"""When was a delivery here? Not when our clock says that it was loaded, and not when its rows claim.

In a hindcast the loader's clock is years after the fact, and one night lands everything, so neither tells. What tells
is which night looked for a delivery and which one landed it: `delivery_times` is the one definition.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import count, islice
from typing import Literal

from tiltyard import casts, clock
from tiltyard.lake import identifier, stored, text
from tiltyard.prepare import contracts
from tiltyard.prepare.contracts import AUDIT_COLUMNS, due
from tiltyard.rails import Rails
from tiltyard.tables import INGEST_RUN, LANDED_FILE
from tiltyard.words import counted, listed

Basis = Literal["night", "delivery", "untimed"]

DAY = timedelta(days=1)
REGULAR = 7
"""Days in a row on which a table has to have had a delivery for one to be missed."""


@dataclass(frozen=True)
class Delivery:
    """One file of one table, as ingest has recorded it."""

    file: str
    """Name of the file, which begins with its day, or the hour."""
    landed_by: datetime
    """as_of of the night that landed it."""
    loaded_at: datetime
    """Wall clock of our loader."""
    rows: int = 0
    """Number of its rows."""


@dataclass(frozen=True)
class DeliveryLook:
    """A night looked for the deliveries of the source."""

    as_of: datetime
    """as_of of the night."""
    looked_at: datetime
    """Wall clock of doing so."""


@dataclass(frozen=True)
class DeliveryTime:
    """When a delivery was here, in production time, and how that is known."""

    landed_at: datetime | None
    """as_of of the first night that had it; None where nothing tells."""
    delivered_at: datetime | None
    """The same, or finer: the loader's clock, where it ran in production time; None where nothing tells."""
    basis: Basis
    """How it is known. night: the nights observed it. delivery: nobody looked in between, so it is taken from the day
    or the hour that the file is named by. untimed: not at all."""


def delivery_times(deliveries: Sequence[Delivery], looks: Sequence[DeliveryLook]) -> dict[str, DeliveryTime]:
    """When each delivery of one table was here, by the name of its file.

    A night that looked for a delivery that was due and did not find it makes it late: it was here with the night that
    landed it. Landed by the first night that could have, it was here then. Where nobody looked in between (a history
    landed at once), it cannot have been here before it was due, the end of the day or hour it is named by, and is taken
    to have been on time. The table's first day brings whatever there was before it, and says nothing.
    """
    first = min((delivery.file[:10] for delivery in deliveries), default=None)
    ordered = sorted(looks, key=lambda look: look.as_of)
    nights = [look.as_of for look in ordered]
    soonest: list[datetime] = []  # of the looks of this night and all later ones, the wall clock of the first
    for look in reversed(ordered):
        soonest.append(min(look.looked_at, soonest[-1]) if soonest else look.looked_at)
    soonest.reverse()
    times: dict[str, DeliveryTime] = {}
    for delivery in deliveries:
        end = due(delivery.file)
        if delivery.file[:10] == first:
            times[delivery.file] = DeliveryTime(None, None, "untimed")
            continue
        place = bisect_left(nights, end)
        was_missed = place < len(soonest) and soonest[place] < delivery.loaded_at
        if was_missed or delivery.landed_by - end < DAY:
            is_live = timedelta() <= delivery.loaded_at - delivery.landed_by < DAY
            delivered_at = delivery.loaded_at if is_live else delivery.landed_by
            times[delivery.file] = DeliveryTime(delivery.landed_by, delivered_at, "night")
        else:
            times[delivery.file] = DeliveryTime(end, end, "delivery")
    return times


@dataclass(frozen=True)
class Deliveries:
    """The deliveries of one raw table, and when they were here."""

    table: str
    """The table, like `raw.login`."""
    files: tuple[Delivery, ...]
    """Its deliveries, in no order."""
    times: Mapping[str, DeliveryTime]
    """Name of the file → when it was here; one for each of `files`."""

    def between(self, since: datetime, until: datetime) -> dict[str, DeliveryTime]:
        """Those that were first here in (since, until]."""
        return {
            file: time
            for file, time in self.times.items()
            if time.landed_at is not None and since < time.landed_at <= until
        }

    def late(self, times: Mapping[str, DeliveryTime]) -> tuple[str, ...]:
        """Of these the files that were due, and looked for, on an earlier night than the one that landed them."""
        return tuple(
            file
            for file, time in sorted(times.items())
            if time.landed_at is not None and time.landed_at - due(file) >= DAY
        )

    def untimed_rows(self, since: datetime, until: datetime) -> int:
        """Number of rows that a night in (since, until] landed and of which nothing tells when they were here."""
        return sum(
            delivery.rows
            for delivery in self.files
            if self.times[delivery.file].landed_at is None and since < delivery.landed_by <= until
        )

    @property
    def usual_rows(self) -> float:
        """Number of rows of the median delivery; 0 without any."""
        rows = sorted(delivery.rows for delivery in self.files if self.times[delivery.file].landed_at is not None)
        return float(rows[len(rows) // 2]) if rows else 0.0


def of_source(rails: Rails, source: str, as_of: datetime) -> dict[str, Deliveries]:
    """Raw table → its deliveries up to the night that closes at `as_of`, for every table of the source's contract.

    A night that is run again judges what it brought by what was usual until then, not by what came later.
    """
    rails.lake.ensure(INGEST_RUN)  # a lake that is older than these has no rows there
    rails.lake.ensure(LANDED_FILE)
    rows = rails.lake.connection.execute(
        f"select '', '', available_at, ingested_at, 0 from {identifier(INGEST_RUN)} "
        "where source = $source and available_at <= $as_of "
        f"union all select table_name, file, available_at, ingested_at, rows from {identifier(LANDED_FILE)} "
        "where source = $source and available_at <= $as_of",
        {"source": source, "as_of": as_of},
    ).fetchall()
    looks = [DeliveryLook(night, looked_at) for table, _, night, looked_at, _ in rows if not table]
    files: dict[str, list[Delivery]] = {table: [] for table in contracts.raw_tables(rails.settings, source)}
    for table, *row in rows:
        if f"raw.{table}" in files:
            files[f"raw.{table}"].append(Delivery(*row))
    return {table: Deliveries(table, tuple(own), delivery_times(own, looks)) for table, own in files.items()}


def silent_tables(
    days: Mapping[str, Collection[date]], day: date, closed: Collection[date] = ()
) -> dict[str, tuple[date, ...]]:
    """The tables of a source that have no delivery of a day, though another one has, and had one on each of the days
    before it: table → these `REGULAR` days, the closed ones left out.

    Of a table that is not delivered daily nothing is said, and of a source that is silent as a whole neither: that is
    late, or too old.
    """
    if not any(day in own for own in days.values()):
        return {}
    open_days = (before for number in count(1) if (before := day - number * DAY) not in closed)
    usual = tuple(islice(open_days, REGULAR))
    return {table: usual for table, own in sorted(days.items()) if day not in own and {*usual} <= {*own}}


def came_before(rails: Rails, source: str, night: date) -> tuple[str, ...]:
    """What of the files that a night landed came before, by the key of its contract, a sentence a file."""
    if not rails.lake.has(LANDED_FILE):
        return ()
    rails.lake.ensure(LANDED_FILE)
    rows = rails.lake.connection.execute(
        f"select table_name || '/' || file, coalesce(repeated, 0), coalesce(corrections, 0) "
        f"from {identifier(LANDED_FILE)} where source = $source and landed_night = $night "
        "and coalesce(repeated, 0) + coalesce(corrections, 0) > 0 order by 1",
        {"source": source, "night": night},
    ).fetchall()
    return tuple(
        f"{file}: "
        + listed(
            [f"{counted(repeated, 'row')} that came before were dropped"] * bool(repeated)
            + [f"{counted(corrected, 'row')} whose key came with other values were kept as corrections"]
            * bool(corrected)
        )
        for file, repeated, corrected in rows
    )


def missing(rails: Rails, source: str, as_of: datetime) -> tuple[str, ...]:
    """What a source delivers every day and has not delivered for the night that closes at `as_of`, a sentence each."""
    rails.lake.ensure(LANDED_FILE)
    day = clock.day_ending(as_of)
    closed = contracts.closed(rails.settings, source, day)
    rows = rails.lake.connection.execute(
        f"select distinct table_name, left(file, 10) from {identifier(LANDED_FILE)} "
        "where source = $source and file >= $first and file < $last",
        {"source": source, "first": f"{day - 4 * REGULAR * DAY}", "last": f"{day + DAY}"},
    ).fetchall()
    days: dict[str, set[date]] = {}
    for table, text_of_day in rows:
        days.setdefault(table, set()).add(date.fromisoformat(text_of_day))
    return tuple(
        f"raw.{table}: nothing was delivered of {day}, though something was of each of the {REGULAR} open days before "
        f"it ({usual[-1]} to {usual[0]}), and other tables of {source} came"
        for table, usual in silent_tables(days, day, closed).items()
    )


def delivered_rows(table: str, times: Mapping[str, DeliveryTime], snapshot: int | None, columns: str = "raw.*") -> str:
    """SQL of the rows of these files, each with `landed_us` and `delivered_us` (microseconds since 1970).

    `columns` lists what else is selected, of `raw`. Every file must have a time. What an older load left of instants
    that Python cannot hold is NULL.
    """
    held = ", ".join(f"{casts.held(name, AUDIT_COLUMNS[name])} as {name}" for name in ("event_time", "available_at"))
    listed = ", ".join(
        f"({text(file)}, {microseconds(time.landed_at)}, {microseconds(time.delivered_at)})"
        for file, time in sorted(times.items())
    )
    return f"""(
        select {columns}, delivery.landed_us, delivery.delivered_us
        from (select * replace ({held}) from {stored(table, snapshot)}) as raw
        inner join (values {listed}) as delivery (file, landed_us, delivered_us) on raw.source_file = delivery.file
    )"""


def microseconds(instant: datetime | None) -> int:
    """Since 1970. Raises ValueError without an instant."""
    if instant is None:
        raise ValueError("nothing tells when this was")
    return (instant - clock.midnight(date(1970, 1, 1))) // timedelta(microseconds=1)
