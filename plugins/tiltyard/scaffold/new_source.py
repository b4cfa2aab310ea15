"""A new source: a file is looked at, its contract and staging are written, and its rows are cut into deliveries."""

from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from tiltyard.errors import BadInput
from tiltyard.prepare import contracts
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


def look(settings: Settings, request: SourceRequest) -> SourcePlan:
    """What would be written. Raises BadInput for a name that is taken or is none, and a file that cannot be used."""
    name = _plain(request.name, "name of a source")
    if name in contracts.sources(settings):
        raise BadInput(f"There is a source '{name}' already ({contracts.path_of(name)}); choose another name.")
    table = _plain(
        request.table or naming.plain(request.path.name.split(".")[0]) or "row", "name of a table; say --table"
    )
    for other in contracts.sources(settings):
        if contracts.read(settings, other).table(table) is not None:
            raise BadInput(f"{other} has a table '{table}' already, and both would land in raw.{table}; say --table.")
    try:
        ZoneInfo(request.zone)
    except (KeyError, ValueError, OSError):
        raise BadInput(f"'{request.zone}' is no time zone; write it like Europe/Vienna.") from None
    with sample.opened(request.path) as opened:
        found = find(opened, request)
    said = request.said.available_at
    return plan(name, table, found, "ingested_at" if said == "ingested_at" else None)


def find(opened: sample.Opened, request: SourceRequest) -> Findings:
    """What the rows say, with what somebody said."""
    said = request.said
    if said.available_at == "ingested_at":
        said = Said(said.event_time, None, said.key, said.planned, said.written_later, said.identifies)
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
