"""The features stage, portfolio-wide: ingest → dbt build → checks → publish.

Write, audit, publish: dbt builds into the lake, the suites judge the night's batch at that snapshot, and only
then is the snapshot published. Everything downstream reads the newest *published* snapshot, so that a batch
that a critical check stopped leaves yesterday's features, and the champion, in service. The store of online features
is brought up to it afterwards (`online.fill`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime

from tiltyard import suites
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.prepare import checks, embargo, popular
from tiltyard.prepare import ingest as ingesting
from tiltyard.prepare import transform as transforming
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, Record
from tiltyard.spec import portfolio
from tiltyard.stages import StageName

STAGE: StageName = "features"


@dataclass(frozen=True, kw_only=True)
class Publication(Record):
    """What was put in service."""

    night: date
    """Date that names the night."""
    snapshot: int
    """Snapshot of the lake that is in service now."""


@dataclass(frozen=True, kw_only=True)
class FeaturesNight(Publication):
    """What the whole stage did in one night."""

    ingest: Mapping[str, IngestSummary]
    """Name of the source → what landed of it."""
    transform: BuildSummary
    """What dbt brought up to date."""
    checks: FeaturesSummary
    """How the batch was judged."""


def build_night(rails: Rails, as_of: datetime, *, render: bool = True) -> FeaturesNight:
    """The whole stage for one night. Raises CheckFailed when a critical check stops the batch."""
    landed = ingest(rails, as_of)
    build = transform(rails, as_of)
    summary = check(rails, as_of, render=render)
    publication = publish(rails, as_of)
    return FeaturesNight(
        night=publication.night, snapshot=publication.snapshot, ingest=landed, transform=build, checks=summary
    )


def ingest(rails: Rails, as_of: datetime) -> dict[str, IngestSummary]:
    """Land what became available until `as_of`, for every active source: name of the source → what landed."""
    return {source: ingesting.land_night(rails, source, as_of) for source in rails.settings.sources}


def transform(rails: Rails, as_of: datetime) -> BuildSummary:
    """Bring staging, spines, features and labels up to what has landed."""
    return transforming.build(rails, rails.settings.sources, as_of)


def check(rails: Rails, as_of: datetime, *, render: bool = True) -> FeaturesSummary:
    """Judge the night's batch at the lake's current snapshot; record what was judged and how it went.

    Raises CheckFailed, naming the checks, when a critical one fails.
    """
    night = night_closing(as_of)
    with transforming.alone(rails):
        snapshot = rails.lake.snapshot()
    reports = [
        checks.check_batch(rails, "freshness", as_of, source=source, snapshot=snapshot, render=render, record=False)
        for source in rails.settings.sources
    ]
    for spec in portfolio(rails.settings):
        for suite in ("features", "leakage"):
            reports.append(
                checks.check_batch(rails, suite, as_of, spec=spec, snapshot=snapshot, render=render, record=False)
            )
    suites.record(rails, reports, as_of)
    if render:
        for spec in portfolio(rails.settings):
            embargo.plot(rails, spec.name, embargo.tables_of(rails, spec), as_of)
    summary = FeaturesSummary(
        snapshot=snapshot,
        checks=sum(len(report.results) for report in reports),
        critical=tuple(str(failure) for report in reports for failure in report.critical_failures),
        warnings=tuple(str(failure) for report in reports for failure in report.warnings),
        reports=tuple(sorted({str(report.report_path) for report in reports if report.report_path})),
    )
    if summary.critical:
        rails.ledger.record_stage("", night, "stopped", summary)
        raise CheckFailed(
            f"The batch of {night} is stopped by {len(summary.critical)} critical check(s): "
            f"{'; '.join(summary.critical[:5])}. "
            "Yesterday's features and the champions stay in service; mend the source and run the night again."
        )
    before = rails.ledger.stage_run(FeaturesSummary, "", night)
    if before is None or before.status != "done" or before.summary.snapshot < snapshot:
        # otherwise a slower attempt has been overtaken: what is published since is as new, and stays published
        rails.ledger.record_stage("", night, "checked", summary)
    return summary


def publish(rails: Rails, as_of: datetime) -> Publication:
    """Put the checked snapshot in service. Raises BadInput when the night's batch has not passed its checks."""
    night = night_closing(as_of)
    run = rails.ledger.stage_run(FeaturesSummary, "", night)
    if run is None or run.status not in ("checked", "done"):
        state = run.status if run else "not checked yet"
        raise BadInput(
            f"The batch of {night} is {state} and cannot be published; run tiltyard features --as-of {night}."
        )
    snapshot = run.summary.snapshot
    items = {spec.name: popular.items(rails, spec, as_of, snapshot) for spec in portfolio(rails.settings)}
    best = {name: most_popular for name, most_popular in items.items() if most_popular}
    rails.ledger.record_stage("", night, "done", replace(run.summary, popular=best))
    return Publication(night=night, snapshot=snapshot)
