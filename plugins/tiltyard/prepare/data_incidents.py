"""Data incidents in the ledger: what of a source, or of a truth, stopped saying anything, since when and until when.

The batch is served, and no model is retrained on it. An incident opens on the night it is first seen and closes on the
first night that is clean. Events are added, never rewritten: of one night the last word counts, and nights in their
order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal, NamedTuple

from tiltyard.prepare import columns
from tiltyard.prepare.deliveries import DAY
from tiltyard.prepare.latency import FEW_ROWS, Latency
from tiltyard.prepare.outage import Looked, OutageVerdict
from tiltyard.rails import Rails
from tiltyard.records import DataIncident, DataIncidentChange, DataIncidentKey
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.words import counted, listed

EVENT = "data_incident"
"""The kind of event in the ledger."""
RELEASED = "incident_release"
"""The kind of event in the ledger of a person's word that what was found at a node is the world."""
SUSPECT = "suspect_to_"
"""How the word for an incident of labels begins that contradict what a model said of their rows; its name follows."""
LATE = "arrived_late"
"""What an incident is called of a delivery that earlier nights had looked for, with rows that claim to have been known
then: no rule on columns, but an incident as well."""
LATE_SHARE = 0.2
"""Share of a night's rows from which on those of a late delivery are an incident, and not only a warning."""


class DatedChange(NamedTuple):
    """A change with its night."""

    night: date
    """Night of the change."""
    change: DataIncidentChange
    """What changed."""


# -- reading --------------------------------------------------------------------------------------


def changes(rails: Rails, until: date) -> Iterator[DatedChange]:
    """What opened and closed up to and including this night, in order."""
    dated = [(event.night, event) for event in rails.ledger.events(kind=EVENT) if event.night is not None]
    for night, event in sorted(dated, key=lambda pair: (pair[0], pair[1].id)):
        if night <= until:
            yield DatedChange(night, DataIncidentChange.from_json(event.detail))


def open_after(rails: Rails, source: str | None, night: date) -> dict[DataIncidentKey, DataIncident]:
    """The data incidents of a source, or of any, that are open after `night`, by what tells them apart."""
    incidents: dict[DataIncidentKey, DataIncident] = {}
    for _, change in changes(rails, night):
        if source is not None and change.source != source:
            continue
        if change.state == "open":
            incidents[change.key] = _incident(change)
        else:
            incidents.pop(change.key, None)
    return incidents


def of_source(rails: Rails, source: str, night: date) -> tuple[DataIncident, ...]:
    """The data incidents of a source that are open after `night`, oldest first."""
    incidents = open_after(rails, source, night).values()
    return tuple(sorted(incidents, key=lambda incident: (incident.since, incident.table, incident.column)))


def of_model(rails: Rails, spec: Spec, night: date) -> tuple[DataIncident, ...]:
    """Those open after `night` that a model stands on: of what its tables are made of, and of its own truth."""
    return tuple(
        incident for incident in of_source(rails, spec.source, night) if touches(rails.settings, spec, incident)
    )


def touches(settings: Settings, spec: Spec, incident: DataIncident) -> bool:
    """Does anything of a model stand on what is broken? A column that nothing of it is made of is shown, and holds
    nothing up; a truth that stopped is that of the models that learn from it."""
    if incident.table.startswith("lbl_"):
        return incident.table == spec.label.table
    return columns.read(settings).stands_on(spec.tables, incident.table, incident.column or None)


@dataclass(frozen=True)
class SuspectSpell:
    """Nights on which labels contradicted what a model had said of their rows."""

    what: str
    """SUSPECT and the name of the model."""
    since: date
    """Night on which that was found."""
    reason: str
    """What was found."""
    until: date | None = None
    """Night on which it was closed; None while it is open."""
    released: str | None = None
    """Who has said that these labels are the world, and why; None where nobody has."""


def suspect_spells(rails: Rails, table: str, until: date) -> list[SuspectSpell]:
    """When the labels of a label table were suspect to any model, up to and including a night, oldest first."""
    spells: dict[tuple[str, date], SuspectSpell] = {}
    for night, change in changes(rails, until):
        if change.table != table or not change.what.startswith(SUSPECT):
            continue
        key = (change.what, change.since)
        if change.state == "open":
            spells[key] = SuspectSpell(change.what, change.since, change.reason)
        elif key in spells:
            spells[key] = replace(spells[key], until=night)
    for event in rails.ledger.events(kind=RELEASED) if spells else ():
        if event.detail.get("node") != table or event.night is None:
            continue
        for key, spell in spells.items():
            if spell.until is not None and spell.since <= event.night <= spell.until:
                words = f"released by {event.detail.get('by')}: {event.detail.get('reason')}"
                spells[key] = replace(spell, released=words)
    return sorted(spells.values(), key=lambda spell: (spell.since, spell.what))


class ClosedIncident(NamedTuple):
    """A data incident that is over."""

    table: str
    """Table that was broken."""
    column: str | None
    """Name of the column; None where it was the whole table."""
    last: date
    """Last night on which it was open."""


def mended(rails: Rails, night: date) -> list[ClosedIncident]:
    """Every data incident that is closed on `night`, by table."""
    last: dict[DataIncidentKey, date | None] = {}
    for closed_on, change in changes(rails, night):
        last[change.key] = closed_on - DAY if change.state == "closed" else None
    return sorted({ClosedIncident(key.table, key.column or None, day) for key, day in last.items() if day}, key=str)


def during(rails: Rails, source: str, first: date, last: date) -> tuple[str, ...]:
    """The incidents that were open on any night in [first, last], in words, for the record of a training."""
    spells = {(incident.key, incident.since): incident for incident in of_source(rails, source, first)}
    for night, change in changes(rails, last):
        if change.source == source and change.state == "open" and first <= night:
            spells[change.key, change.since] = _incident(change)
    return tuple(map(str, spells.values()))


def _incident(change: DataIncidentChange) -> DataIncident:
    return DataIncident(
        table=change.table, column=change.column, what=change.what, reason=change.reason, since=change.since
    )


# -- opening and closing --------------------------------------------------------------------------


def settle(
    rails: Rails, source: str, night: date, verdicts: Mapping[Looked, OutageVerdict], latencies: Mapping[str, Latency]
) -> tuple[DataIncident, ...]:
    """Open what a night shows and is not open, close what is open and was seen to be well.

    `latencies` are by raw table. Returns the incidents that are open then.
    """
    before, after = open_after(rails, source, night - DAY), open_after(rails, source, night)
    for looked, verdict in verdicts.items():
        table = looked.table
        broken = {
            DataIncidentKey(table, outage.column, looked.what(outage.rule)): looked.prefix + outage.reason
            for outage in verdict.outages
        }
        well = {DataIncidentKey(table, column, looked.what(rule)): "" for rule, column in verdict.clean}
        for rule, column in verdict.unusual:
            well[DataIncidentKey(table, column, looked.what(rule))] = "no clean night is left: it is the new usual"
        own = latencies[table]
        if own.rows and not looked.along:  # when rows came is asked once
            if own.late_files and own.late >= max(FEW_ROWS, LATE_SHARE * own.rows):
                files = listed(own.late_files)
                reason = f"{files}: {own.late} of {own.rows} rows missed up to {counted(max(own.missed), 'night')}"
                broken[DataIncidentKey(table, "", LATE)] = reason
            else:
                well[DataIncidentKey(table, "", LATE)] = ""
        for key, reason in broken.items():
            if key not in after:
                since = before[key].since if key in before else night
                record_change(rails, source, night, key, "open", reason, since)
        for key, incident in after.items():
            if key in well and key not in broken:
                record_change(rails, source, night, key, "closed", well[key], incident.since)
    return of_source(rails, source, night)


def record_change(
    rails: Rails,
    source: str,
    night: date,
    key: DataIncidentKey,
    state: Literal["open", "closed"],
    reason: str,
    since: date,
) -> None:
    """Write into the ledger that an incident, first seen on the night `since`, is open or closed from `night` on."""
    entry = DataIncidentChange(
        table=key.table, column=key.column, what=key.what, reason=reason, since=since, source=source, state=state
    )
    rails.ledger.add_event(EVENT, "", night, entry.to_json())
