"""A new source: a file is looked at, its contract and staging are written, and its rows are cut into deliveries."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from zoneinfo import ZoneInfo

from tiltyard.errors import BadInput
from tiltyard.prepare import contracts
from tiltyard.prepare.places import CURSORS, Fetch
from tiltyard.scaffold import inferring, naming, sample
from tiltyard.scaffold.found import Findings
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.source_texts import SourcePlan, plan
from tiltyard.settings import Settings


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


def look(settings: Settings, request: SourceRequest) -> SourcePlan:
    """What would be written. Raises BadInput for a name that is taken or is none, and a file that cannot be used."""
    name = _plain(request.name, "name of a source")
    if name in contracts.sources(settings):
        raise BadInput(
            f"There is a source '{name}' already ({contracts.path_of(name)}); choose another name, or take it away "
            f"first with tiltyard remove {name}."
        )
    table = _plain(
        request.table or naming.plain(request.path.name.split(".")[0]) or "row", "name of a table; say --table"
    )
    for other in contracts.sources(settings):
        if contracts.read(settings, other).table(table) is not None:
            raise BadInput(
                f"{other} has a table '{table}' already, and both would land in raw.{table}; give this one another "
                "name with --table."
            )
    try:
        ZoneInfo(request.zone)
    except (KeyError, ValueError, OSError):
        raise BadInput(f"'{request.zone}' is no time zone; write it like Europe/Vienna.") from None
    with sample.opened(request.path) as opened:
        found = find(opened, request)
    said = request.said.available_at
    planned = plan(name, table, found, "ingested_at" if said == "ingested_at" else None)
    return planned if request.place is None else _fetched(planned, request, request.place)


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
    if available_at != "ingested_at":
        return available_at
    key = next(column for column in columns if column.name == planned.key)
    return key.name if key.kind == "whole" else roles.event_time


def find(opened: sample.Opened, request: SourceRequest) -> Findings:
    """What the rows say, with what somebody said."""
    said = request.said
    if said.available_at == "ingested_at":
        said = replace(said, available_at=None)
    opened, said = sample.with_joined_time(opened, said)
    happened = inferring.event_time(opened.table, said)
    leads = sample.leads(opened, happened, request.zone)
    roles = inferring.roles(opened.table, happened, leads, said)
    known = leads.get(roles.available_at or "")
    if known is not None and known.before > 0.01 * known.filled:
        raise BadInput(
            f"By {roles.available_at} {known.before:,} of {known.filled:,} rows were known before they happened; give "
            "the column that tells when a row was made as --event-time, and what lies ahead of it as --planned."
        )
    days = sample.days(opened, happened)
    if len(days) < 2:
        raise BadInput(f"All rows happened on one day by {happened.header}; give another column with --event-time.")
    cohorts = inferring.cohorts(days, {name: leads[name] for name in roles.planned if name in leads})
    notes = list(opened.notes)
    if cohorts is not None:
        notes.append(
            f"The rows were sampled by {cohorts.sampled_by}, and not by when they happened: of those before "
            f"{cohorts.first} only the ones with a long lead are there, of those after {cohorts.last} the long leads "
            f"are missing. Whole cohorts are {cohorts.first} to {cohorts.last}."
        )
    if not said.written_later:
        notes += [
            f"{name} is taken to be written later, after its name; where it is not, name those that are with "
            "--written-later."
            for name in roles.written_later
        ]
    try:
        rhythm = inferring.rhythm(days, request.country)
    except ValueError:
        raise BadInput(
            f"--country: no holidays are known of '{request.country}'; write an ISO 3166 code like BR."
        ) from None
    return Findings(opened.table, roles, request.zone, rhythm, cohorts, tuple(notes))


def _plain(name: str, what: str) -> str:
    if naming.plain(name) != name or name in naming.RESERVED or name.endswith("__answers"):
        near = naming.plain(name)
        raise BadInput(
            f"'{name}' is no plain {what}: small letters, digits and single underscores, like {near or 'clinic'}."
        )
    return name
