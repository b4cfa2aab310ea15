"""What a task came to, as the last line of its log: a sentence with figures, where Airflow would print a record."""

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from tiltyard.records import (
    DriftSummary,
    FallbackAuditSummary,
    FeaturesSummary,
    PortfolioNight,
    PromotionSummary,
    Record,
    ShadowSummary,
    TrainingSummary,
)
from tiltyard.words import counted, listed

if TYPE_CHECKING:
    from tiltyard.prepare.ingest import IngestSummary
    from tiltyard.prepare.publishing import PublishedNight
    from tiltyard.prepare.transform import BuildSummary

NOISY: Mapping[str, int] = {
    "great_expectations": logging.ERROR,
    **dict.fromkeys(("alembic", "mlflow", "evidently", "openlineage", "matplotlib", "botocore"), logging.WARNING),
}
"""Library → from which level on what it logs is of use to whoever reads a task's log."""


def quiet() -> None:
    """Let libraries keep what they say of themselves out of the log. Before they are imported: some talk then."""
    for name, level in NOISY.items():
        logging.getLogger(name).setLevel(level)


def landed(summary: "IngestSummary") -> str:
    """What a night landed."""
    tables = ", ".join(f"{table} {rows:,}" for table, rows in sorted(summary.tables.items()))
    said = f"{summary.source}: {counted(summary.files, 'file')} landed, {counted(summary.rows, 'row')}"
    said += f" ({tables})." if tables else "."
    refused = [f"{file.file} went to quarantine: {file.reason.rstrip('.')}." for file in summary.quarantined]
    notes = [f"{note}." for note in summary.notes]
    return " ".join([said, *notes, *refused, *(f"{away.rstrip('.')}." for away in summary.away)])


def built(summary: "BuildSummary") -> str:
    """What dbt brought up to date."""
    slowest = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary.slowest.items())
    said = f"{counted(summary.models, 'table')} built, {counted(summary.tests, 'test')} run in {summary.seconds:.0f} s"
    return " ".join([f"{said}; the slowest: {slowest}.", *(f"{table}: {why}" for table, why in summary.failed.items())])


def checked(summary: FeaturesSummary) -> str:
    """How a batch was judged."""
    wrong = f"{len(summary.critical)} critical, {counted(len(summary.warnings), 'warning')}"
    said = f"{counted(summary.checks, 'check')}: {wrong}."
    return " ".join([said, *summary.critical, *summary.warnings, *map(_sentence, summary.unpublished)])


def published(night: "PublishedNight") -> str:
    """What was put in service."""
    said = f"{counted(len(night.published), 'table')} of {night.night} in service."
    waiting = [f"{table} waits for {listed(others)}." for table, others in night.waiting.items()]
    return " ".join([said, *map(_sentence, night.unpublished), *waiting])


def _sentence(state: object) -> str:
    return f"{str(state).rstrip('.')}."


def each(done: Mapping[date, Record]) -> list[str]:
    """A sentence for each night that a stage has done of a model."""
    return [f"{night}: {of_night(record)}" for night, record in done.items()]


def of_night(record: Record) -> str:
    """What a stage came to on one night of a model."""
    match record:
        case ShadowSummary():
            tiers = ", ".join(f"{tier} {rows:,}" for tier, rows in record.tiers.items())
            judged = f"; {record.counts.matured:,} predictions have matured"
            return f"{counted(record.rows, 'row')} scored, answered by {tiers or 'nobody'}{judged}."
        case PromotionSummary():
            what = f"version {record.challenger}: {record.verdict}" if record.challenger is not None else record.verdict
            changed = f", version {record.promoted} is promoted" if record.promoted is not None else ""
            changed += f", version {record.rolled_back} is rolled back" if record.rolled_back is not None else ""
            asked = ", and a person is asked" if record.needs_approval else ""
            return f"{what}{changed}{asked}{_because(record.reasons)}"
        case DriftSummary():
            return f"{record.verdict or 'not compared'}{_because(record.reasons)}"
        case TrainingSummary(trained=True):
            again = ", which was there already" if record.reused else ""
            return f"version {record.version} trained on {counted(record.rows, 'row')}{again}."
        case TrainingSummary():
            return f"no version: {record.reason}"
        case FallbackAuditSummary():
            asked = "; a person is asked why" if record.opened else ""
            return f"{record.share:.0%} of {counted(record.answers, 'answer')} by the safe default{asked}."
        case PortfolioNight():
            said = ", ".join(f"{count} {decision.replace('_', ' ')}" for decision, count in record.decisions.items())
            granted = f"; may retrain: {listed(sorted(record.granted))}" if record.granted else ""
            return f"{said or 'nothing to decide'}{granted}{_because([entry.reason for entry in record.incidents])}"
    return "done."


def _because(reasons: Sequence[str]) -> str:
    return f": {'; '.join(reason.rstrip('.') for reason in reasons)}." if reasons else "."
