"""A new source: a file is looked at, its contract and staging are written, and its rows are cut into deliveries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import contracts
from tiltyard.prepare.places import CURSORS, Fetch
from tiltyard.scaffold import doubts, inferring, naming, sample, writings
from tiltyard.scaffold.found import Findings, Roles, Table
from tiltyard.scaffold.inferring import Lead, Said
from tiltyard.scaffold.source_texts import SourcePlan, plan
from tiltyard.settings import Settings
from tiltyard.words import counted, listed


@dataclass(frozen=True)
class SourceRequest:
    """What somebody asks for."""

    name: str
    path: Path
    table: str | None = None
    """Name of the table; None: after the file."""
    zone: str = "UTC"
    country: str | None = None
    """Whose public holidays the source keeps; None: nobody's."""
    said: Said = field(default_factory=Said)
    place: Fetch | None = None
    """Where rows are fetched from, of which the file is a sample; None: the file is all there is."""
    cursor: str | None = None
    """Column of a table of a database by which it is told what is new; None: as it was inferred."""
    is_month_first: bool = False
    """What a date is that may be read both ways, like 03/04/2025."""
    thousands: str | None = None
    """What stands between the thousands of numbers in a text file; empty: nothing, None: as the file proves."""
    written_after: timedelta | None = None
    """How long after its row what is written later is known, where no column tells when."""


def look(settings: Settings, request: SourceRequest) -> SourcePlan:
    """What would be written. Raises BadInput for a name that is taken or is none, and a file that cannot be used."""
    name = _plain(request.name, "name of a source")
    if name in contracts.sources(settings):
        raise BadInput(
            f"There is a source '{name}' already ({contracts.path_of(name)}); choose another name, or take it away "
            f"first with tiltyard remove {name}."
        )
    table = _table(settings, request)
    try:
        ZoneInfo(request.zone)
    except (KeyError, ValueError, OSError):
        raise BadInput(f"'{request.zone}' is no time zone; write it like Europe/Vienna.") from None
    with sample.opened(request.path, is_month_first=request.is_month_first, thousands=request.thousands) as opened:
        found = find(opened, request)
    said = request.said.available_at
    planned = plan(name, table, found, "ingested_at" if said == "ingested_at" else None)
    if request.written_after is not None and None in found.roles.written_later.values():
        planned = replace(planned, written_after=request.written_after)
    return planned if request.place is None else _fetched(planned, request, request.place)


def _table(settings: Settings, request: SourceRequest) -> str:
    """The name of the table, and of none that lands already: the one that is said, else after the file."""
    after = request.table or naming.plain(request.path.name.split(".")[0]) or "row"
    table = _plain(after, "name of a table; say --table")
    taken = {
        entry.name: other for other in contracts.sources(settings) for entry in contracts.read(settings, other).tables
    }
    if table not in taken:
        return table
    if request.table is not None:
        raise BadInput(
            f"--table: the source {taken[table]} has a table '{table}', and both would land in raw.{table}; give this "
            "one another name."
        )
    return naming.free(f"{request.name}_{table}", taken)


def _fetched(planned: SourcePlan, request: SourceRequest, place: Fetch) -> SourcePlan:
    """The plan of a source whose rows are fetched: nobody numbers them, or writes down when each was known."""
    found, notes = planned.found, [*planned.found.notes]
    if planned.is_numbered:
        raise BadInput(
            f"No column names a row, and nobody numbers those that are fetched; say --key COL for {place.address}."
        )
    roles = found.roles
    known = found.table.column(roles.available_at) if roles.available_at else None
    available_at = "ingested_at" if known is None or known.kind == "day" else known.name
    if available_at == "ingested_at":
        notes.append(
            "Nothing tells when a row was written, so it is known when it is fetched, and no night of the past can be "
            "played with it; where a column does tell, say --available-at COL."
        )
    planned = replace(planned, available_at=available_at, found=replace(found, notes=tuple(notes)))
    if place.kind == "table":
        place = place.model_copy(update={"cursor": _cursor(planned, request, available_at)})
    return replace(planned, place=place)


def _cursor(planned: SourcePlan, request: SourceRequest, available_at: str) -> str:
    """The column by which it is told what is new: the one that is said, else the one that tells when a row was written,
    else a number that names it, else when it happened."""
    columns, roles = planned.columns, planned.found.roles
    if request.cursor is not None:
        asked = inferring.named(planned.found.table, request.cursor, "--cursor")
        chosen = next(column for column in columns if column.header == asked.header)
        if contracts.TYPES[chosen.data_type] not in CURSORS:
            raise BadInput(f"--cursor: '{asked.header}' is neither a day, an instant nor a whole number; give another.")
        return chosen.name
    key = next(column for column in columns if column.name == planned.key)
    told = roles.event_time if available_at == "ingested_at" else available_at
    wanted = [told] if key.kind != "whole" or available_at != "ingested_at" else [key.name, told]
    by_name = {column.name: column for column in columns}
    for name in wanted:
        if name in by_name and contracts.TYPES[by_name[name].data_type] in CURSORS:
            return name
    raise BadInput(
        f"Nothing tells what is new in the table: {' and '.join(wanted)} hold texts there; say --cursor COL with a "
        "column of days, instants or whole numbers, or give the table a view that has one."
    )


def find(opened: sample.Opened, request: SourceRequest) -> Findings:
    """What the rows say, with what somebody said."""
    said = request.said
    if said.available_at == "ingested_at":
        said = replace(said, available_at=None)
    opened, said = sample.with_joined_time(opened, said)
    try:
        happened = inferring.event_time(opened.table, said)
    except BadInput as error:
        hints = doubts.like_a_time(opened.connection, opened.table.columns, opened.notes)
        raise BadInput(" ".join([str(error), *hints, *opened.notes])) from None
    opened, said, versions, repeated = writings.settled(opened, said, happened)
    leads = sample.leads(opened, happened, request.zone)
    roles = inferring.roles(opened.table, happened, leads, said, versions.changing if versions else None)
    if versions is None:
        roles = inferring.with_missing(roles, opened.table, sample.missing_with(opened, roles), said)
    known = leads.get(roles.available_at or "")
    if known is not None and known.before > 0.01 * known.filled:
        raise BadInput(
            f"By {roles.available_at} {known.before:,} of {known.filled:,} rows were known before they happened; give "
            "the column that tells when a row was made as --event-time, and what lies ahead of it as --planned."
        )
    written = opened.table.column(roles.available_at or "") if versions else None
    days = sample.days(opened, written or happened)
    if len(days) < 2:
        raise BadInput(f"All rows happened on one day by {happened.header}; give another column with --event-time.")
    days, outlying = _within(days, happened.header, date.max if roles.available_at else clock.now().date())
    cohorts = inferring.cohorts(days, {name: leads[name] for name in roles.planned if name in leads})
    notes = [*opened.notes, *_renamed(opened.table), *repeated, *outlying]
    notes += doubts.of_zones(opened.connection, opened.table.columns, opened.naive, request.zone, happened.name)
    notes += _too_early(roles, leads)
    if roles.key is None and not repeated:
        notes.append(_unnamed(opened.table, roles))
    if cohorts is not None:
        notes.append(
            f"The rows were sampled by {cohorts.sampled_by}, and not by when they happened: of those before "
            f"{cohorts.first} only the ones with a long lead are there, of those after {cohorts.last} the long leads "
            f"are missing. Whole cohorts are {cohorts.first} to {cohorts.last}."
        )
    notes += _later(opened, roles, said) if versions is None else []
    try:
        rhythm = inferring.rhythm(days, request.country)
    except ValueError:
        raise BadInput(
            f"--country: no holidays are known of '{request.country}'; write an ISO 3166 code like BR."
        ) from None
    if request.country is not None and not any(day.startswith("holidays") for day in rhythm.closed):
        notes.append(
            f"The source is not closed on the holidays of {request.country}: most of them have rows, so that --country "
            "is left out."
        )
    return Findings(opened.table, roles, request.zone, rhythm, cohorts, tuple(notes))


def _within(days: Sequence[tuple[date, int]], happened: str, today: date) -> tuple[list[tuple[date, int]], list[str]]:
    """The days of the rows without those that lie months from all others, and a sentence on these: three mistyped
    years would make every weekday one on which there is nothing."""
    first, last = inferring.whole_span(dict(days), today)
    kept = [(day, rows) for day, rows in days if first <= day <= last]
    others = [(day, rows) for day, rows in days if not first <= day <= last]
    if not others or len(kept) < 2:
        return list(days), []
    shown = f"like {others[0][0]}" if len(others) == 1 else f"like {others[0][0]} and {others[-1][0]}"
    return kept, [
        f"In {counted(sum(rows for _, rows in others), 'row')} {happened} lies months before or after all others "
        f"({first} to {last}), or is yet to come, {shown}, as a mistyped year does: what is usual of a day is told "
        "without them."
    ]


def _too_early(roles: Roles, leads: Mapping[str, Lead]) -> list[str]:
    """Of times that tell when something is written later, and lie before the row that it is written to."""
    whens = dict.fromkeys(when for when in roles.written_later.values() if when is not None and when in leads)
    return [
        f"{when} lies before the row happened in {lead.before:,} of {lead.filled:,} rows; what is known by it was "
        "known before there was anything to predict, and is delivered a second after its row: look whether "
        "--event-time and --written-later name the right columns."
        for when in whens
        if (lead := leads[when]).before > 0.01 * lead.filled
    ]


def _renamed(table: Table) -> list[str]:
    """Which columns are called otherwise than they are spelled, and why."""
    others = [f"{column.header} is {column.name}" for column in table.columns
              if not column.parts and naming.plain(column.header) not in ("", column.name)]  # fmt: skip
    if not others:
        return []
    return [f"Called otherwise, since the names are taken by SQL, by Tiltyard or by another column: {listed(others)}."]


def _unnamed(table: Table, roles: Roles) -> str:
    """That no column names a row, and which one nearly does."""
    happened = table.column(roles.event_time)
    parts = happened.parts if happened else ()
    near = [column for column in table.columns if not column.is_time and not column.parts and column.name not in parts]
    most = max(near, key=lambda column: column.distinct, default=None)
    if most is not None and most.is_unique:
        return (
            f"No column is called like a key, so rows are numbered as they stand in the file; {most.header} has "
            f"another value in each: say --key {most.header} where it stays theirs."
        )
    nearest = (
        f" ({most.header} has {most.distinct:,} different values in {most.rows:,} rows)"
        if most is not None and most.distinct > 0.1 * most.rows and most.name not in roles.written_later
        else ""
    )
    return f"No column has another value in every row{nearest}, so rows are numbered as they stand in the file."


def _later(opened: sample.Opened, roles: Roles, said: Said) -> list[str]:
    """Sentences on what is written later: what was taken for it, and what nobody said and is missing with it."""
    later = roles.written_later
    if not said.written_later:
        by_name = [name for name in later if name not in roles.missing_with]
        with_them = [name for name in later if name in roles.missing_with]
        taken = [f"{', '.join(by_name)}, by name"] if by_name else []
        taken += [f"{', '.join(with_them)}, missing where these are"] if with_them else []
        what = "; ".join(taken)
        return [
            f"Taken to be written later: {what}. Where one is not, name those that are with --written-later."
        ] * bool(taken)
    others = {other: [name for name, its in roles.missing_with.items() if its == other] for other in later}
    return [
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing in the rows in which {other} is; what of "
        "it is written later, too, say with --written-later."
        for other, names in others.items()
        if names
    ]


def _plain(name: str, what: str) -> str:
    if naming.plain(name) != name or name in naming.RESERVED or name.endswith("__answers"):
        near = naming.plain(name)
        raise BadInput(
            f"'{name}' is no plain {what}: small letters, digits and single underscores, like {near or 'clinic'}."
        )
    return name
