"""The features stage, source by source: fetch and ingest → dbt build → checks → publish.

Write, audit, publish: dbt builds into the lake, the suites judge the night's batch at that snapshot, and only then is
the batch published, table by table. What dbt could not build, what a critical check holds, what is late, and what is
made of any of these stays as it was on its last good night, and so do the champions that read it; everything else goes
on. A source in trouble is in nobody's way but that of what is made of it. The store of online features is brought up to
it afterwards (`online.fill`).
"""

import difflib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from tiltyard import release, suites
from tiltyard.clock import NIGHT, night_closing
from tiltyard.errors import BadInput, CheckFailed, Fenced, TiltyardError, Unavailable
from tiltyard.prepare import (
    changed_columns,
    checks,
    checks_page,
    contracts,
    deliveries,
    publishing,
    schedules,
    settling,
    source_figures,
)
from tiltyard.prepare import ingest as ingesting
from tiltyard.prepare import transform as transforming
from tiltyard.prepare.fetch import step as fetching
from tiltyard.prepare.fetch.credentials import Lookup, from_environment
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.prepare.publishing import Feeding, PublishedNight, complaint, publish
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails, recording_its_end
from tiltyard.records import FeaturesSummary, QuarantinedFile, Record, TableState
from tiltyard.records.publication import plain
from tiltyard.settings import Settings
from tiltyard.spec import portfolio
from tiltyard.stages import StageName
from tiltyard.suites import CheckReport

__all__ = [
    "STAGE", "FeaturesNight", "PublishedNight", "SourceNight", "build_night", "check", "check_more", "complaint", "end",
    "ingest", "publish", "transform",
]  # fmt: skip

log = logging.getLogger(__name__)

STAGE: StageName = "features"


@dataclass(frozen=True, kw_only=True)
class SourceNight(Record):
    """What the whole stage did for one source."""

    published: PublishedNight
    """What was put in service."""
    ingest: IngestSummary | None = None
    """What landed; None where that failed, as for the next two."""
    transform: BuildSummary | None = None
    """What dbt brought up to date."""
    checks: FeaturesSummary | None = None
    """How the batch was judged."""
    error: str | None = None
    """What ended it before it was judged; None where nothing did."""


@dataclass(frozen=True, kw_only=True)
class FeaturesNight(Record):
    """What the whole stage did in one night."""

    night: date
    """Date that names the night."""
    sources: Mapping[str, SourceNight]
    """Source → what was done for it."""

    @property
    def unpublished(self) -> tuple[TableState, ...]:
        """The tables that stay as they were, and why, in the order of the sources."""
        states: dict[str, TableState] = {}
        for source in self.sources.values():  # of a table that several feed, the one that settled it last counts
            for table in source.published.published:
                states.pop(table, None)
            states |= {state.table: state for state in source.published.unpublished}
        return tuple(states.values())


def build_night(
    rails: Rails,
    as_of: datetime,
    sources: Sequence[str] | None = None,
    *,
    render: bool = True,
    rebuild: Collection[str] = (),
) -> FeaturesNight:
    """The whole stage for one night, source by source: of `sources`, or of all that are active. The tables named in
    `rebuild` are made anew with all their rows, by the first source that feeds them.

    What ends one source ends no other. Raises what ended the first of them where nothing of any could be published,
    and, when all others are done, what was out of reach or taken over of one.
    """
    again = set(rebuild)
    nights: dict[str, SourceNight] = {}
    errors: list[Exception] = []
    interrupted: list[TiltyardError] = []
    for source in rails.settings.sources if sources is None else sources:
        landed, build, summary, error = None, None, None, ""
        try:
            landed = ingest(rails, as_of, [source])[source]
            build = transform(rails, as_of, [source], rebuild=again)
            again -= build.rebuilt.keys()
            summary = check(rails, source, as_of, build, render=render)
        except (Unavailable, Fenced) as failure:  # it is tried again, or another attempt has it
            log.warning("%s: %s", source, failure)
            interrupted.append(failure)
            continue
        except Exception as failure:  # whatever nobody foresaw of one source
            log.warning("%s: %s", source, failure, exc_info=not isinstance(failure, TiltyardError))
            error = str(failure) or type(failure).__name__
            errors.append(failure)
        published = end(rails, source, as_of)
        source_figures.keep(rails, source, as_of)
        if not error and not published.published:
            errors.append(CheckFailed(complaint(published.unpublished, published.night)))
        nights[source] = SourceNight(
            published=published,
            ingest=landed,
            transform=build,
            checks=summary,
            error=error or None,
        )
    if interrupted:
        raise interrupted[0]
    if errors and not any(entry.published.published for entry in nights.values()):
        raise errors[0]
    return FeaturesNight(night=night_closing(as_of), sources=nights)


def require_tables(settings: Settings, tables: Collection[str]) -> None:
    """Raises BadInput naming the first of the tables that dbt does not make of any active source, and close ones."""
    feeding = Feeding.of(settings)
    made = [table for source in settings.sources for table in feeding.below(source) if table not in feeding.sources]
    for table in tables:
        if table not in made:
            close = difflib.get_close_matches(table, made, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else "give its name as in its SQL file."
            raise BadInput(f"--rebuild: no active source feeds a table '{table}'; {hint}")


@contextmanager
def _recording(rails: Rails, sources: Collection[str], as_of: datetime) -> Iterator[None]:
    """What ends the stage inside is in the record of every one of the sources."""
    with ExitStack() as stack:
        for source in sources:
            stack.enter_context(recording_its_end(rails, STAGE, as_of, source))
        yield


def ingest(
    rails: Rails, as_of: datetime, sources: Sequence[str] | None = None, lookup: Lookup = from_environment
) -> dict[str, IngestSummary]:
    """Fetch and land what became available until `as_of`: name of the source → what landed, of `sources` or all active
    ones. `lookup` knows the connections by which places are read."""
    landed = {}
    for source in rails.settings.sources if sources is None else sources:
        with recording_its_end(rails, STAGE, as_of, source):
            fetched = fetching.fetch_night(rails, source, as_of, lookup)
            landed[source] = replace(ingesting.land_night(rails, source, as_of), fetched=fetched)
    return landed


def transform(
    rails: Rails, as_of: datetime, sources: Sequence[str] | None = None, rebuild: Collection[str] = ()
) -> BuildSummary:
    """Bring staging, spines, features and labels up to what has landed of `sources`, or of all active ones; the tables
    named in `rebuild` are made anew with all their rows."""
    chosen = rails.settings.sources if sources is None else sources
    with _recording(rails, chosen, as_of):
        return transforming.build(rails, chosen, as_of, rebuild=rebuild)


def check(rails: Rails, source: str, as_of: datetime, build: BuildSummary, *, render: bool = True) -> FeaturesSummary:
    """Judge a source's batch of the night at the lake's current snapshot; record what was judged, and which tables are
    good as far as this source goes.

    `build` is what `transform` said of it. Nothing is put in service yet. The stage is recorded as `checked`, and as
    `stopped` when no table is good.
    """
    night = night_closing(as_of)
    with recording_its_end(rails, STAGE, as_of, source):
        feeding = Feeding.of(rails.settings)
        tables = [*feeding.below(source), *publishing.read_beside(rails, feeding, source)]
        return _recorded(rails, source, night, _judged(rails, feeding, source, tables, as_of, build, render))


def check_more(
    rails: Rails, source: str, as_of: datetime, build: BuildSummary, wanted: Collection[str], *, render: bool = True
) -> FeaturesSummary | None:
    """`check` of what a night that was settled lacks: the tables that have no state as of it, and of those that are not
    good, or were made anew, the ones that `wanted`, or what these are made of, names. Everything else stays as it is
    (`kept`), so that no model that reads it has its night done again.

    Nothing is recorded: `end` takes what this returns. None where nothing is lacking. A night that was not settled is
    checked whole.
    """
    night = night_closing(as_of)
    with recording_its_end(rails, STAGE, as_of, source):
        feeding = Feeding.of(rails.settings)
        whole = [*feeding.below(source), *publishing.read_beside(rails, feeding, source)]
        settled = publishing.settled_on(rails, night)
        known = [table for table in wanted if table in feeding.graph.parents]
        asked = {*wanted}.union(*(feeding.graph.upstream(table) for table in known))
        good = {name for name, state in settled.items() if state.is_published and name not in build.rebuilt}
        kept = [name for name in whole if name in settled and (name in good or name not in asked)]
        lacking = [table for table in whole if table not in kept]
        if kept and not lacking:
            return None
        if kept:
            more = _judged(rails, feeding, source, lacking, as_of, build, render)
            return publishing.with_kept(
                more, rails.ledger.features_run(source, night), [settled[name] for name in kept]
            )
    return check(rails, source, as_of, build, render=render)


def _judged(
    rails: Rails,
    feeding: Feeding,
    source: str,
    tables: Sequence[str],
    as_of: datetime,
    build: BuildSummary,
    render: bool,
) -> FeaturesSummary:
    """What the suites say of these tables of a source, and how the tables stand then."""
    night = night_closing(as_of)
    with transforming.alone(rails):
        snapshot = rails.lake.snapshot()
    made = [table for table in tables if table not in build.failed]  # of the others dbt has said what is wrong
    reports = _reports(rails, source, made, as_of, snapshot)
    suites.record(rails, reports, as_of)
    reasons, late = held(reports, ingesting.quarantined(rails, source, night)), _late(rails, feeding, source, as_of)
    faults = settling.at_fault(tables, night, failed=build.failed, held=reasons, late=late)
    waiting = publishing.waiting(feeding, source, publishing.awaited(rails, feeding, night))
    settled = [table for table in tables if table not in waiting]
    before = rails.ledger.table_states(until=night)
    given = [state for state in before if state.table not in tables and feeding.is_fed(state.table)]
    states = settling.settle(feeding.graph, settled, night, faults=faults, given=given)
    page = checks_page.draw(rails, feeding, source, as_of, reports, states) if render else None
    return FeaturesSummary(
        snapshot=snapshot,
        release=release.name(rails.settings),
        checks=sum(len(report.results) for report in reports),
        critical=tuple(str(failure) for report in reports for failure in report.critical_failures),
        warnings=(
            *(str(failure) for report in reports for failure in report.warnings),
            *deliveries.missing(rails, source, as_of),
            *deliveries.came_before(rails, source, night),
            *_columns_changed(rails, source, night, snapshot),
        ),
        reports=(page,) if page else (),
        states=publishing.counted_states(states),
        published=tuple(state.table for state in states if state.is_published),
        unpublished=tuple(state for state in states if not state.is_published),
        faults=faults,
        waiting=waiting,
        rebuilt={table: why for table, why in build.rebuilt.items() if table in tables},
    )


def _columns_changed(rails: Rails, source: str, night: date, snapshot: int) -> tuple[str, ...]:
    """What is said of columns that a contract has added since the last night, or dropped."""
    last = rails.ledger.last_features_run(source, before=night)
    return changed_columns.sentences(rails, source, snapshot, last.summary.snapshot if last else None)


def _recorded(rails: Rails, source: str, night: date, summary: FeaturesSummary) -> FeaturesSummary:
    before = rails.ledger.stage_run(FeaturesSummary, source, night)
    if before is not None and before.status == "done" and before.summary.snapshot > summary.snapshot:
        return summary  # a slower attempt, which has been overtaken: what is published since is newer, and stays
    if not summary.published:
        summary = replace(summary, reason=complaint(summary.unpublished, night))
        rails.ledger.record_stage(source, night, "stopped", summary)
    elif before is None or before.status != "done" or before.summary.snapshot < summary.snapshot:
        # otherwise the same batch was judged twice at once: what is published since is as new, and stays published
        rails.ledger.record_stage(source, night, "checked", summary)
    return summary


def _reports(rails: Rails, source: str, tables: Collection[str], as_of: datetime, snapshot: int) -> list[CheckReport]:
    """What every suite says of the batch: a table is judged once, however many models read it. What cannot be judged is
    at fault itself, and nobody else."""
    is_read = any(not set(spec.tables).isdisjoint(tables) for spec in portfolio(rails.settings))
    return [
        checks.check_batch(
            rails, suite, as_of, source=source, tables=frozenset(tables), snapshot=snapshot, record=False,
            strict=False,
        )
        for suite in ("freshness", "features", "leakage")
        if suite == "freshness" or is_read
    ]  # fmt: skip


def held(reports: Sequence[CheckReport], refused: Iterable[QuarantinedFile]) -> dict[str, tuple[str, ...]]:
    """Table → why checks do not let it through, each reason once; and before them which of its deliveries is in
    quarantine, which is where most of them come from."""
    held: dict[str, dict[str, None]] = {}
    for report in reports:
        for failure in report.critical_failures:
            held.setdefault(plain(failure.table), {})[str(failure)] = None
        for table, reason in report.unjudged.items():
            held.setdefault(plain(table), {})[reason] = None
    told = {}
    for table, reasons in held.items():
        lie = [
            f"its delivery {file.file} lies in quarantine: {file.reason}"
            for file in refused
            if f"raw.{file.file.partition('/')[0]}" == table
        ]
        told[table] = (*lie[-1:], *reasons)
    return told


def _late(rails: Rails, feeding: Feeding, source: str, as_of: datetime) -> dict[str, str]:
    """Raw table of a source that is late → why: its place was away, or nothing of the source has come in time."""
    away = fetching.away(rails, source, night_closing(as_of))
    deadline = contracts.deadline(rails.settings, source, as_of)
    until = None if deadline is None else ingesting.delivered_until(rails, source)
    if deadline is None or ingesting.has_delivered(until, as_of, every(rails.settings, source) or NIGHT):
        return {table: f"it could not be fetched for the night: {reason}" for table, reason in away.items()}
    newest = ingesting.newest_delivery(rails, source)
    last = f"its newest delivery is that of {newest}" if newest else "nothing of it has ever landed"
    reason = f"{source} had until {deadline:%Y-%m-%d %H:%M} UTC and has delivered nothing for the night; {last}"
    reasons = {table: f"{reason}; {why.rstrip('.')}" for table, why in away.items()}
    return {**dict.fromkeys(feeding.raw(source), reason), **reasons}


def every(settings: Settings, source: str) -> timedelta | None:
    """How long the hours of a source are: how often it is looked for, or one of its hourly models answered; None where
    it has no such model."""
    hourly = [spec.prediction.every for spec in portfolio(settings) if spec.source == source]
    shortest = min((often for often in hourly if often < NIGHT), default=None)
    return shortest and min(shortest, schedules.step(contracts.schedule(settings, source)))


def end(rails: Rails, source: str, as_of: datetime, more: FeaturesSummary | None = None) -> PublishedNight:
    """Publish what is good of a source's night, however it went: where it ended before it was judged, everything of it
    stays as it was, and is told so, so that nobody waits for it. `more`: what `check_more` has judged beside what was
    in service."""
    night = night_closing(as_of)
    run = rails.ledger.stage_run(FeaturesSummary, source, night)
    if run is None:
        reason = "it was ended from outside, or its limit ran out; the log of its last attempt says more."
        rails.ledger.record_bad_end(source, night, "failed", FeaturesSummary(night=night, reason=reason))
    return publish(rails, source, as_of, more)
