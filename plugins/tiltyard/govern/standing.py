"""What is wrong upstream and not over: one list, which the command line, a model's status and the page all read.

It holds the governor's incidents of the newest night that it decided on for a source's models, and the data incidents
of that source which the governor has not counted yet, or which hold no model. Both are read from the ledger as of a
night, so that a past night is told again as the ledger has it. An incident stays the governor's word until it decides
on the next night; where what it rests on is gone by then, it says so itself (`OpenIncident.closing`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

from tiltyard.clock import night_closing
from tiltyard.prepare import data_incidents
from tiltyard.rails import Rails
from tiltyard.records import Broken, DataIncident, Finding, Incident, OpenIncident
from tiltyard.spec import Spec, portfolio
from tiltyard.stages import STAGES, recorded_as

NIGHT = timedelta(days=1)


def incidents(rails: Rails, as_of: datetime | None = None) -> list[OpenIncident]:
    """All that is open after a night, by node; by default after the newest night of every source."""
    until = night_closing(as_of) if as_of else None
    specs = portfolio(rails.settings) if rails.settings.models.is_dir() else ()
    source_of = {spec.name: spec.source for spec in specs}
    found: dict[tuple[str, str, tuple[str, ...]], OpenIncident] = {}
    for source in sorted({*rails.settings.sources, *source_of.values()}):
        own = _Source(rails, source, until)
        governed = (row for row in own.governed if source in {source_of.get(model) for model in row.models})
        for incident in own.told(governed, [spec for spec in specs if spec.source == source]):
            place = (incident.node, incident.kind, incident.columns)
            if place not in found or found[place].night < incident.night:
                found[place] = incident
    rest = _Source(rails, "", until)  # what holds models that are no longer here, until the governor's next night
    for incident in rest.told((row for row in rest.governed if source_of.keys().isdisjoint(row.models)), ()):
        found.setdefault((incident.node, incident.kind, incident.columns), incident)
    return sorted(found.values(), key=lambda incident: (incident.node, incident.kind, incident.columns))


def of_model(rails: Rails, spec: Spec, until: date) -> tuple[OpenIncident, ...]:
    """What is open after a night and holds a model, or is wrong with its source, by node."""
    own = _Source(rails, spec.source, until)
    return tuple(own.told((row for row in own.governed if spec.name in row.models), [spec]))


@dataclass(frozen=True)
class _Source:
    """What the ledger says of a source up to a night; '' for none in particular."""

    rails: Rails
    source: str
    until: date | None

    @cached_property
    def known(self) -> date | None:
        """The newest night of the source's features; without any the night that is asked about."""
        before = self.until + NIGHT if self.until else date.max
        end = self.rails.ledger.last_end("features", self.source, before) if self.source else None
        return end.night if end else self.until

    @cached_property
    def night(self) -> date | None:
        """The newest of its nights that the governor has decided on: the nights of another source may be years away."""
        newest = self.rails.ledger.last_end("governor", before=self.known + NIGHT if self.known else None)
        return newest.night if newest else None

    @cached_property
    def governed(self) -> tuple[Incident, ...]:
        return self.rails.ledger.incidents(self.night) if self.night else ()

    @cached_property
    def data(self) -> tuple[DataIncident, ...]:
        night = self.known or self.night
        return data_incidents.of_source(self.rails, self.source, night) if night else ()

    @cached_property
    def open(self) -> frozenset[tuple[str, str | None]]:
        """(table, column) of every open data incident: models also read tables of other sources."""
        night = self.known or self.night
        keys = data_incidents.open_after(self.rails, None, night) if night else ()
        return frozenset((key.table, key.column or None) for key in keys)

    @cached_property
    def faulty(self) -> frozenset[str]:
        """The tables at fault where tables are not good."""
        states = self.rails.ledger.table_states(until=self.known)
        return frozenset(state.cause or state.table for state in states if not state.is_published)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(self.rails.ledger.findings(self.night)) if self.night else ()

    def told(self, governed: Iterable[Incident], specs: Sequence[Spec]) -> list[OpenIncident]:
        """The governor's incidents, and the data incidents that are none of them. `specs`: whom these may hold."""
        rows = list(governed)
        told = [OpenIncident(**vars(row), night=self.night, closing=self.closing(row)) for row in rows if self.night]
        for incident in self.data:
            if not any(_covers(row, incident) for row in rows):
                held = [spec.name for spec in specs if data_incidents.touches(self.rails.settings, spec, incident)]
                told.append(
                    OpenIncident(
                        node=incident.table,
                        kind="broken",
                        models=tuple(sorted(held)),
                        columns=(incident.column,) if incident.column else (),
                        reason=str(incident),
                        since=incident.since,
                        night=self.known or incident.since,
                    )
                )
        return sorted(told, key=lambda incident: (incident.node, incident.kind, incident.columns))

    def closing(self, incident: Incident) -> str | None:
        """That an incident of the governor's newest night is over, and with which night it closes; None while it is
        not, and where nobody can tell."""
        if self.night is None or not (why := self._over(incident)):
            return None
        following = self.known if self.known and self.known > self.night else self.night + NIGHT
        return f"{why}, closes with the night of {following}"

    def _over(self, incident: Incident) -> str | None:
        for event in self.rails.ledger.events(kind=data_incidents.RELEASED, since=self.night):
            if incident.kind != "broken" and event.detail.get("node") == incident.node:
                return f"released by {event.detail.get('by')}"
        looked_at = [finding for finding in self.findings if finding.model in incident.models]
        if not looked_at:
            return None
        if incident.kind == "broken":
            is_there = any(
                _is_of(incident, broken) and self._is_still(finding.model, broken)
                for finding in looked_at
                for broken in finding.broken
            )
            return None if is_there else "mended"
        shown = {signal.column for finding in looked_at for signal in finding.signals if signal.drifted}
        return None if shown & {*incident.columns} else "over"

    def _is_still(self, model: str, broken: Broken) -> bool:
        """Whether what was broken for a model on the governor's night is so by now."""
        stage = next((stage for stage in STAGES if stage == broken.node), None)
        if stage is not None:
            assert self.night is not None
            recorded = recorded_as(stage, model, self.source)
            return self.rails.ledger.stage_status(stage, recorded, self.night) != "done"
        if broken.node.startswith("spn_"):
            return True  # there was nothing to predict on, which no record says again before drift looks again
        is_open = (broken.node, broken.column) in self.open
        return is_open or (broken.column is None and broken.node in self.faulty)


def _is_of(incident: Incident, broken: Broken) -> bool:
    """Whether an incident explains something that is broken."""
    return broken.node == incident.node or broken.column in incident.columns or broken.reason in incident.reason


def _covers(incident: Incident, data: DataIncident) -> bool:
    """Whether an incident of the governor is that data incident, or one that explains it."""
    if incident.kind != "broken":
        return False
    is_there = incident.node == data.table and (not data.column or data.column in incident.columns)
    return is_there or str(data) in incident.reason
