"""A source: what it delivered on its last nights, what of it lies in quarantine and what to do, how its tables stand,
and who reads them. From the ledger and its contract alone."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from tiltyard import clock
from tiltyard.chronicle import lately
from tiltyard.errors import BadInput
from tiltyard.govern import standing
from tiltyard.prepare import contracts, ingest
from tiltyard.prepare.graph import Graph
from tiltyard.prepare.publishing import Feeding
from tiltyard.prepare.source_figures import SourceFigures
from tiltyard.rails import Rails
from tiltyard.records import (
    Embargo,
    FeaturesSummary,
    Freshness,
    Instant,
    LandedFile,
    OpenIncident,
    QuarantinedFile,
    Record,
    StageRun,
    Status,
    TableState,
)
from tiltyard.spec import Spec
from tiltyard.stages import dag_id

log = logging.getLogger(__name__)

NIGHTS = 14
"""Nights that are shown."""


@dataclass(frozen=True, kw_only=True)
class SourceNightRow(Record):
    """A night of a source."""

    night: date
    """The night."""
    status: Status
    """How its features ended."""
    reason: str | None
    """Why they did not end well; None where they did."""
    recorded_at: Instant | None
    """When that was put down, wall clock."""
    late: tuple[str, ...]
    """Its tables that were late."""
    unpublished: int
    """Number of tables that stayed as they were."""
    published: int
    """Number of tables that were brought up to date."""
    critical: tuple[str, ...]
    """The critical checks that failed, a sentence each."""
    warnings: tuple[str, ...]
    """The warnings, a sentence each."""
    files: int | None
    """Number of files that landed; None where that is not kept any more."""
    rows: int | None
    """Number of rows in them."""
    deliveries: tuple[LandedFile, ...]
    """The first of the files."""


@dataclass(frozen=True, kw_only=True)
class SourceTable(Record):
    """A table of a source, or one that is made of it."""

    table: str
    """Its name."""
    state: TableState | None
    """How it stands; None before its first night."""
    freshness: Freshness | None
    """How old its newest row is, of a table of the source; None elsewhere, and where nothing is kept."""
    latency: Embargo | None
    """How late its rows really were; None where that was not measured."""
    readers: tuple[str, ...]
    """The models that stand on it, at whatever distance."""


@dataclass(frozen=True, kw_only=True)
class SourcePage(Record):
    """All that there is to see of a source."""

    source: str
    """Its name."""
    is_active: bool
    """Whether its nights are worked on."""
    dag: str
    """Its DAG."""
    schedule: str | None
    """When it is looked for, as cron; None: never by itself."""
    due_by: str | None
    """How long after the night's end it is waited for; None: it is not."""
    deadline: Instant | None
    """Until when the newest night's deliveries were waited for; None: they were not."""
    models: tuple[str, ...]
    """The models of the source."""
    nights: tuple[SourceNightRow, ...]
    """Its newest nights, the newest first."""
    tables: tuple[SourceTable, ...]
    """Its tables, those at fault first, then in the order in which they are made."""
    quarantined: tuple[QuarantinedFile, ...]
    """Its files that lie in quarantine."""
    incidents: tuple[OpenIncident, ...]
    """What is wrong with it and not over."""
    problem: str | None
    """What is wrong with its contract, or what the ledger says of it, as a sentence; None where nothing is."""


def read(rails: Rails, specs: Sequence[Spec], source: str) -> SourcePage | None:
    """What there is to see of a source; None for a name that is none."""
    promised = contracts.sources(rails.settings) if rails.settings.dbt.is_dir() else ()
    own = [spec for spec in specs if spec.source == source]
    if source not in (*promised, *rails.settings.sources) and not own:
        return None
    newest = rails.ledger.newest_attempts("features", [source]).get(source)
    rhythm = _Rhythm.of(rails, source, clock.midnight(newest) if newest else None)
    graph, below = _below(rails, source)
    kept = rails.ledger.chronicle.kept(SourceFigures, "source", source, newest) if newest else None
    open_now = standing.incidents(rails)
    tables = _tables(rails, source, specs, graph, below, kept.body if kept else SourceFigures())
    names = {table.table for table in tables} | {spec.label.table for spec in own}
    nights = _nights(rails, source, newest) if newest else ()
    unreadable = "What the ledger says of its nights cannot be read; the log of the API server says why."
    return SourcePage(
        source=source,
        is_active=source in rails.settings.sources,
        dag=dag_id("features", source),
        schedule=rhythm.schedule,
        due_by=rhythm.due_by,
        deadline=rhythm.deadline,
        models=tuple(spec.name for spec in own),
        nights=nights or (),
        tables=tables,
        quarantined=ingest.quarantined(rails, source, newest) if newest else (),
        incidents=tuple(incident for incident in open_now if incident.node in names),
        problem=unreadable if nights is None else rhythm.problem,
    )


class _Rhythm(NamedTuple):
    """When a source is looked for, and what is wrong with its contract."""

    schedule: str | None = None
    due_by: str | None = None
    deadline: datetime | None = None
    problem: str | None = None

    @classmethod
    def of(cls, rails: Rails, source: str, as_of: datetime | None) -> "_Rhythm":
        try:
            due_by = contracts.read(rails.settings, source).rhythm.due_by
            deadline = contracts.deadline(rails.settings, source, as_of) if as_of else None
            told = clock.format_duration(due_by) if due_by else None
            return cls(contracts.schedule(rails.settings, source), told, deadline)
        except BadInput as error:
            return cls(problem=str(error))


def _below(rails: Rails, source: str) -> tuple[Graph, tuple[str, ...]]:
    """Which table stands on which, and those of a source and what is made of them; before dbt has built anything those
    of its contract alone."""
    feeding = Feeding.as_built(rails.settings)
    return (feeding.graph, feeding.below(source)) if feeding else (Graph(), ())


def _nights(rails: Rails, source: str, newest: date) -> tuple[SourceNightRow, ...] | None:
    """Its newest nights, the newest first; None where a record of them cannot be read."""
    since = lately(newest, NIGHTS)
    try:
        runs = rails.ledger.runs_since(FeaturesSummary, {source: since}).get(source, [])
    except ValueError:
        log.exception("The records of the nights of %s cannot be read.", source)
        return None
    kept = {
        night.night: night.body for night in rails.ledger.chronicle.kept_since(SourceFigures, "source", source, since)
    }
    return tuple(_night(run, kept.get(run.night)) for run in reversed(runs))


def _night(run: StageRun[FeaturesSummary], kept: SourceFigures | None) -> SourceNightRow:
    summary = run.summary
    return SourceNightRow(
        night=run.night,
        status=run.status,
        reason=summary.reason,
        recorded_at=run.recorded_at,
        late=tuple(state.table for state in summary.unpublished if state.state == "late"),
        unpublished=len(summary.unpublished),
        published=len(summary.published),
        critical=summary.critical,
        warnings=summary.warnings,
        files=kept.files if kept else None,
        rows=kept.rows if kept else None,
        deliveries=kept.deliveries if kept else (),
    )


def _tables(
    rails: Rails, source: str, specs: Sequence[Spec], graph: Graph, below: Sequence[str], kept: SourceFigures
) -> tuple[SourceTable, ...]:
    try:
        raw = contracts.raw_tables(rails.settings, source)
    except BadInput:
        raw = ()
    states = {state.table: state for state in rails.ledger.table_states()}
    latencies = {row.table.removeprefix("features."): row for row in kept.latency}
    tables = [
        SourceTable(
            table=name,
            state=states.get(name),
            freshness=kept.freshness.get(name.removeprefix("raw.")) if name in raw else None,
            latency=latencies.get(name),
            readers=tuple(spec.name for spec in specs if any(graph.stands_on(table, name) for table in spec.tables)),
        )
        for name in dict.fromkeys((*raw, *below))
    ]
    return tuple(sorted(tables, key=_trouble))


def _trouble(table: SourceTable) -> int:
    """What is at fault itself comes first, then what stands on such, then what is good."""
    state = table.state
    if state is None or state.is_published:
        return 2
    return 0 if state.cause in (None, table.table) else 1
