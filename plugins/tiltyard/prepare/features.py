"""The features stage, portfolio-wide: ingest → dbt build → checks → publish.

Write, audit, publish: dbt builds into the lake, the suites judge the night's batch at that snapshot, and only
then is the snapshot published. Everything downstream reads the newest *published* snapshot, so that a batch
that a critical check stopped leaves yesterday's features, and the champion, in service. The store of online features
is brought up to it afterwards (`online.fill`).
"""

from datetime import datetime
from typing import Any

from tiltyard import suites
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.prepare import checks, embargo, popular
from tiltyard.prepare import ingest as ingesting
from tiltyard.prepare import transform as transforming
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.spec import portfolio
from tiltyard.stages import StageName

STAGE: StageName = "features"


def build_night(rails: Rails, as_of: datetime, *, render: bool = True) -> dict[str, Any]:
    """The whole stage for one night, JSON-ready. Raises CheckFailed when a critical check stops the batch."""
    return {
        "ingest": {source: summary.to_json() for source, summary in ingest(rails, as_of).items()},
        "transform": transform(rails, as_of).to_json(),
        "checks": check(rails, as_of, render=render),
        **publish(rails, as_of),
    }


def ingest(rails: Rails, as_of: datetime) -> dict[str, IngestSummary]:
    """Land what became available until `as_of`, for every active source: name of the source → what landed."""
    return {source: ingesting.land_night(rails, source, as_of) for source in rails.settings.sources}


def transform(rails: Rails, as_of: datetime) -> BuildSummary:
    """Bring staging, spines, features and labels up to what has landed."""
    return transforming.build(rails, rails.settings.sources, as_of)


def check(rails: Rails, as_of: datetime, *, render: bool = True) -> dict[str, Any]:
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
    critical = [str(failure) for report in reports for failure in report.critical_failures]
    warnings = [str(failure) for report in reports for failure in report.warnings]
    summary = {
        "snapshot": snapshot,
        "checks": sum(len(report.results) for report in reports),
        "critical": critical,
        "warnings": warnings,
        "reports": sorted({str(report.report_path) for report in reports if report.report_path}),
    }
    if critical:
        rails.ledger.record_stage(STAGE, "", night, "stopped", summary)
        raise CheckFailed(
            f"The batch of {night} is stopped by {len(critical)} critical check(s): "
            f"{'; '.join(critical[:5])}. "
            "Yesterday's features and the champions stay in service; mend the source and run the night again."
        )
    before = rails.ledger.stage_run(FeaturesSummary, "", night)
    if before is None or before["status"] != "done" or before["summary"]["snapshot"] < snapshot:
        # otherwise a slower attempt has been overtaken: what is published since is as new, and stays published
        rails.ledger.record_stage(STAGE, "", night, "checked", summary)
    return summary


def publish(rails: Rails, as_of: datetime) -> dict[str, Any]:
    """Put the checked snapshot in service. Raises BadInput when the night's batch has not passed its checks."""
    night = night_closing(as_of)
    record = rails.ledger.stage_run(FeaturesSummary, "", night)
    if record is None or record["status"] not in ("checked", "done"):
        state = record["status"] if record else "not checked yet"
        raise BadInput(
            f"The batch of {night} is {state} and cannot be published; run tiltyard features --as-of {night}."
        )
    snapshot = int(record["summary"]["snapshot"])
    items = {spec.name: popular.items(rails, spec, as_of, snapshot) for spec in portfolio(rails.settings)}
    summary = {**record["summary"], "popular": {name: best for name, best in items.items() if best}}
    rails.ledger.record_stage(STAGE, "", night, "done", summary)
    return {"night": str(night), "snapshot": summary["snapshot"]}
