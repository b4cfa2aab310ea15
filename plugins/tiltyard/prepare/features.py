"""The features stage, portfolio-wide: ingest → dbt build → checks → publish.

Write, audit, publish: dbt builds into the lake, the suites judge the night's batch at that snapshot, and only
then is the batch published, table by table. What dbt could not build, what a critical check holds, and what is made of
either stays as it was on its last good night, and so do the champions that read it; everything else goes on. The store
of online features is brought up to it afterwards (`online.fill`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from tiltyard import suites
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.prepare import checks, contracts, embargo, popular, settling
from tiltyard.prepare import ingest as ingesting
from tiltyard.prepare import transform as transforming
from tiltyard.prepare.graph import Graph, parents
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails, recording_its_end
from tiltyard.records import FeaturesSummary, Publication, Record, TableState
from tiltyard.records.publication import plain
from tiltyard.spec import portfolio
from tiltyard.stages import StageName
from tiltyard.suites import CheckReport

STAGE: StageName = "features"


@dataclass(frozen=True, kw_only=True)
class PublishedNight(Record):
    """What was put in service."""

    night: date
    """Date that names the night."""
    snapshot: int
    """Snapshot of the lake at which the tables of the batch are in service now."""
    unpublished: tuple[TableState, ...] = ()
    """The tables that stay as they were, and why."""


@dataclass(frozen=True, kw_only=True)
class FeaturesNight(PublishedNight):
    """What the whole stage did in one night."""

    ingest: Mapping[str, IngestSummary]
    """Name of the source → what landed of it."""
    transform: BuildSummary
    """What dbt brought up to date."""
    checks: FeaturesSummary
    """How the batch was judged."""


def build_night(rails: Rails, as_of: datetime, *, render: bool = True) -> FeaturesNight:
    """The whole stage for one night. Raises CheckFailed when nothing could be published."""
    landed = ingest(rails, as_of)
    build = transform(rails, as_of)
    summary = check(rails, as_of, build, render=render)
    published = publish(rails, as_of)
    return FeaturesNight(**vars(published), ingest=landed, transform=build, checks=summary)


def ingest(rails: Rails, as_of: datetime) -> dict[str, IngestSummary]:
    """Land what became available until `as_of`, for every active source: name of the source → what landed."""
    with recording_its_end(rails, STAGE, as_of):
        return {source: ingesting.land_night(rails, source, as_of) for source in rails.settings.sources}


def transform(rails: Rails, as_of: datetime) -> BuildSummary:
    """Bring staging, spines, features and labels up to what has landed."""
    with recording_its_end(rails, STAGE, as_of):
        return transforming.build(rails, rails.settings.sources, as_of)


def check(rails: Rails, as_of: datetime, build: BuildSummary, *, render: bool = True) -> FeaturesSummary:
    """Judge the night's batch at the lake's current snapshot; record what was judged and which tables are good.

    `build` is what `transform` said of it. Nothing is put in service yet. The stage is recorded as `checked`, and as
    `stopped` when no table is good.
    """
    night = night_closing(as_of)
    with transforming.alone(rails):
        snapshot = rails.lake.snapshot()
    reports = _reports(rails, as_of, snapshot, render)
    suites.record(rails, reports, as_of)
    if render:
        for spec in portfolio(rails.settings):
            embargo.plot(rails, spec.name, embargo.tables_of(rails, spec), as_of)
    states = _settled(rails, night, build, reports)
    summary = FeaturesSummary(
        snapshot=snapshot,
        checks=sum(len(report.results) for report in reports),
        critical=tuple(str(failure) for report in reports for failure in report.critical_failures),
        warnings=tuple(str(failure) for report in reports for failure in report.warnings),
        reports=tuple(sorted({str(report.report_path) for report in reports if report.report_path})),
        states=dict(sorted(Counter(state.state for state in states).items())),
        published=tuple(state.table for state in states if state.is_published),
        unpublished=tuple(state for state in states if not state.is_published),
    )
    before = rails.ledger.stage_run(FeaturesSummary, "", night)
    if not summary.published:
        summary = replace(summary, reason=complaint(summary.unpublished, night))
        rails.ledger.record_stage("", night, "stopped", summary)
    elif before is None or before.status != "done" or before.summary.snapshot < snapshot:
        # otherwise a slower attempt has been overtaken: what is published since is as new, and stays published
        rails.ledger.record_stage("", night, "checked", summary)
    return summary


def _reports(rails: Rails, as_of: datetime, snapshot: int, render: bool) -> list[CheckReport]:
    """What every suite says of the batch. What cannot be judged is at fault itself, and nobody else."""
    reports = [
        checks.check_batch(
            rails, "freshness", as_of, source=source, snapshot=snapshot, render=render, record=False, strict=False
        )
        for source in rails.settings.sources
    ]
    for spec in portfolio(rails.settings):
        for suite in ("features", "leakage"):
            reports.append(
                checks.check_batch(
                    rails, suite, as_of, spec=spec, snapshot=snapshot, render=render, record=False, strict=False
                )
            )
    return reports


def _settled(rails: Rails, night: date, build: BuildSummary, reports: Sequence[CheckReport]) -> tuple[TableState, ...]:
    """The state of every table of the active sources, and of what models read beside."""
    held: dict[str, list[str]] = {}
    for report in reports:
        for failure in report.critical_failures:
            held.setdefault(plain(failure.table), []).append(str(failure))
        for table, reason in report.unjudged.items():
            held.setdefault(plain(table), []).append(reason)
    read = {table for spec in portfolio(rails.settings) for table in spec.tables}
    read |= {spec.fallback.popular.table for spec in portfolio(rails.settings) if spec.fallback.popular}
    return settling.settle(
        Graph(parents(transforming.manifest(rails.settings))),
        [table for source in rails.settings.sources for table in contracts.raw_tables(rails.settings, source)],
        read | held.keys(),
        night,
        failed=build.failed,
        held={table: tuple(dict.fromkeys(reasons)) for table, reasons in held.items()},
    )


def publish(rails: Rails, as_of: datetime) -> PublishedNight:
    """Put the tables that are good in service; the others stay as they were on their last good night.

    Raises BadInput when the night's batch was not judged, CheckFailed when no table of it is good.
    """
    night = night_closing(as_of)
    run = rails.ledger.stage_run(FeaturesSummary, "", night)
    if run is None or run.status not in ("checked", "done", "stopped"):
        state = run.status if run else "not checked yet"
        raise BadInput(
            f"The batch of {night} is {state} and cannot be published; run tiltyard features --as-of {night}."
        )
    summary = run.summary
    if run.status == "done":  # by an earlier attempt, and perhaps a later night since
        return PublishedNight(night=night, snapshot=summary.snapshot, unpublished=summary.unpublished)
    states = _standing(rails, night, summary)
    summary = replace(summary, unpublished=tuple(state for state in states if not state.is_published))
    if run.status == "stopped":
        rails.ledger.publish(states, night, "stopped", summary)
        raise CheckFailed(summary.reason or complaint(summary.unpublished, night))
    publication = Publication(snapshot=summary.snapshot, tables={state.table: state for state in summary.unpublished})
    items = {spec.name: popular.items(rails, spec, as_of, publication) for spec in portfolio(rails.settings)}
    best = {name: most_popular for name, most_popular in items.items() if most_popular}
    rails.ledger.publish(states, night, "done", replace(summary, popular=best))
    return PublishedNight(night=night, snapshot=summary.snapshot, unpublished=summary.unpublished)


def _standing(rails: Rails, night: date, summary: FeaturesSummary) -> list[TableState]:
    """The states of a night with what each table's last good night was: asked when it is published, since nights before
    it may have been published after it was judged."""
    before = {state.table: state for state in rails.ledger.table_states(until=night)}
    states = [
        TableState(night=night, table=table, state="published", snapshot=summary.snapshot, good_night=night)
        for table in summary.published
    ]
    in_service = rails.ledger.publication()
    for state in summary.unpublished:
        last = before.get(state.table) or _before_states(rails, state.table)
        good = (last.snapshot, last.good_night) if last else (None, None)
        if state.table in before and last and last.is_published and in_service:
            good = (in_service.of(state.table), last.good_night)  # newer, where a night before it was done again since
        since = last.since if last and last.since else night
        states.append(replace(state, snapshot=good[0], good_night=good[1], since=since))
    return states


def _before_states(rails: Rails, table: str) -> TableState | None:
    """How a table stood that has no state yet: good on the newest night published, in a home from before there were
    states; None for a table that was not there then."""
    run = rails.ledger.newest_published()
    if run is None or (not table.startswith("raw.") and not rails.lake.has(table, run.summary.snapshot)):
        return None
    return TableState(
        night=run.night, table=table, state="published", snapshot=run.summary.snapshot, good_night=run.night
    )


def complaint(unpublished: Sequence[TableState], night: date) -> str:
    """Which tables of a night are not published and who is at fault, as a sentence; empty when all are."""
    causes = [state for state in unpublished if state.cause == state.table]
    if not unpublished:
        return ""
    named = "; ".join(f"{state.table} is {state.state}: {state.reason}" for state in causes[:5])
    more = f", and {len(causes) - 5} more" if len(causes) > 5 else ""
    return (
        f"{len(unpublished)} table(s) of {night} are not published, because of {len(causes)}: {named}{more}. They stay "
        "in service as of their last good night, and so do the champions that read them; mend the cause and run the "
        "night again."
    )
