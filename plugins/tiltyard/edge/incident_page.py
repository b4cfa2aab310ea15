"""An incident upstream, open or over: its cause, whom it holds, what was decided for it night by night, how it ends."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from tiltyard.chronicle import HeldModel, lately
from tiltyard.govern import standing
from tiltyard.prepare import data_incidents
from tiltyard.rails import Rails
from tiltyard.records import Incident, OpenIncident, Record
from tiltyard.records.finding import Cause

NIGHTS = 120
"""So many of the newest nights of a node are shown."""
LATELY = 30
"""Incidents that were over in so many nights are listed."""
ENDS: dict[Cause, str] = {
    "broken": "It closes with the first night on which it is mended.",
    "missing": "It closes when the data is back, or by tiltyard incidents release NODE --reason …",
    "shared_shift": "It is held until the shift is over, or by tiltyard incidents release NODE --reason …",
}
"""What is the matter → how it ends."""


@dataclass(frozen=True, kw_only=True)
class IncidentNight(Record):
    """A night of an incident."""

    night: date
    """The night."""
    models: tuple[str, ...]
    """The models that it held."""
    decisions: dict[str, str]
    """Model → what the governor decided for it because of the incident."""


@dataclass(frozen=True, kw_only=True)
class Spell(Record):
    """An incident from its first night to its last."""

    node: str
    """The table, or stage, that explains it."""
    kind: Cause
    """What is the matter."""
    since: date
    """The night on which it opened."""
    last: date
    """The newest night on which it was open."""
    is_open: bool
    """Whether it is."""
    closing: str | None
    """That what it rests on is gone, and with which night it closes; None while it is there."""
    columns: tuple[str, ...]
    """The columns that show it."""
    reason: str
    """What is wrong, as a sentence."""
    models: tuple[str, ...]
    """Every model that it has held."""
    ends: str
    """How it ends, as a sentence."""
    nights: tuple[IncidentNight, ...] = ()
    """Night by night, the newest first."""


@dataclass(frozen=True, kw_only=True)
class DataChange(Record):
    """A data incident that opened or closed."""

    night: date
    """The night."""
    state: str
    """open or closed."""
    what: str
    """What was seen."""


@dataclass(frozen=True, kw_only=True)
class IncidentPage(Record):
    """All that there is to see of a node."""

    node: str
    """The table, or stage."""
    spells: tuple[Spell, ...]
    """Its incidents, the newest first."""
    changes: tuple[DataChange, ...]
    """What its data incidents did, the newest first."""


@dataclass(frozen=True, kw_only=True)
class Incidents(Record):
    """The portfolio's incidents."""

    open: tuple[OpenIncident, ...]
    """Those that are not over."""
    over: tuple[Spell, ...]
    """Those of the last nights that are, the newest first."""


def listed(rails: Rails) -> Incidents:
    """What is open, and what was over lately."""
    open_now, newest = tuple(standing.incidents(rails)), rails.ledger.chronicle.newest_night()
    nights = rails.ledger.chronicle.incidents_since(lately(newest, LATELY)) if newest else []
    spells = _spells(nights, open_now)
    return Incidents(open=open_now, over=tuple(spell for spell in spells if not spell.is_open))


def read(rails: Rails, node: str) -> IncidentPage | None:
    """What there is to see of a node; None where the ledger knows of no incident of it."""
    nights = rails.ledger.chronicle.incident_nights(node, NIGHTS)
    open_now = [incident for incident in standing.incidents(rails) if incident.node == node]
    newest = rails.ledger.chronicle.newest_night()
    changes = tuple(
        DataChange(night=day, state=change.state, what=str(change))
        for day, change in (data_incidents.changes(rails, newest) if newest else ())
        if change.table == node
    )
    if not nights and not open_now and not changes:
        return None
    held: list[HeldModel] = []
    if nights:
        days = [night for night, _ in nights]
        held = rails.ledger.chronicle.held_by(node, min(days), max(days))
    return IncidentPage(node=node, spells=_spells(nights, open_now, held), changes=changes[::-1][:NIGHTS])


def _spells(
    nights: Iterable[tuple[date, Incident]], open_now: Iterable[OpenIncident], held: Iterable[HeldModel] = ()
) -> tuple[Spell, ...]:
    """Nights of incidents as spells, those that are open first, then the newest."""
    decisions: dict[date, dict[str, str]] = {}
    for entry in held:
        decisions.setdefault(entry.night, {})[entry.model] = entry.decision
    of_spell: dict[tuple[str, Cause, date], list[tuple[date, Incident]]] = {}
    for night, incident in nights:
        of_spell.setdefault((incident.node, incident.kind, incident.since), []).append((night, incident))
    standing_now = {(incident.node, incident.kind, incident.since): incident for incident in open_now}
    for key, incident in standing_now.items():  # what the governor has not counted, or holds no model
        of_spell.setdefault(key, [(incident.night, incident)])
    spells = []
    for key, own in of_spell.items():
        newest, current = own[0][1], standing_now.get(key)
        models = sorted({model for _, incident in own for model in incident.models})
        spells.append(
            Spell(
                node=newest.node,
                kind=newest.kind,
                since=newest.since,
                last=own[0][0],
                is_open=current is not None,
                closing=current.closing if current else None,
                columns=newest.columns,
                reason=newest.reason,
                models=tuple(models),
                ends=_ends(newest, current, own[0][0]),
                nights=tuple(
                    IncidentNight(
                        night=night,
                        models=incident.models,
                        decisions={
                            model: decision
                            for model, decision in decisions.get(night, {}).items()
                            if model in incident.models
                        },
                    )
                    for night, incident in own
                ),
            )
        )
    return tuple(sorted(spells, key=lambda spell: (spell.is_open, spell.last, spell.since, spell.node), reverse=True))


def _ends(incident: Incident, current: OpenIncident | None, last: date) -> str:
    if current is None:
        return f"It was over with the night of {last + timedelta(days=1)}."
    if current.closing:
        return f"It is over: {current.closing}."
    return ENDS[incident.kind].replace("NODE", incident.node)
