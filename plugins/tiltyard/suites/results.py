"""What suites find: results and reports, and where the rows are that break a check. Kept in `ops.check_result`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import duckdb
import pandas as pd

from tiltyard.lake import identifier, put
from tiltyard.rails import Rails
from tiltyard.suites.expectations import Severity
from tiltyard.tables import CHECK_RESULT


@dataclass(frozen=True)
class RowsAt:
    """Where the rows are that break a check. They are read when a page shows them, and nowhere else."""

    sql: str
    """SQL of all of them, with all their columns."""
    columns: tuple[str, ...] = ()
    """The columns that they break it in; empty where it is the row as a whole."""


@dataclass(frozen=True)
class CheckResult:
    """One expectation on one batch."""

    table: str
    """Name of the table."""
    name: str
    """Name of the expectation, without `expect_`."""
    column: str | None
    """Column that it is about; None where it is about the table."""
    severity: Severity
    """critical holds the table, warning alerts."""
    success: bool
    """Whether the batch meets it."""
    observed: str
    """What was seen, in words."""
    detail: str
    """Why the check is there, and the first offending values."""
    limit: str = ""
    """What it allows, in words; empty where its name says it all."""
    rows: tuple[RowsAt, ...] = ()
    """Where the rows are that break it; empty where it is about the table as a whole."""
    place: str = ""
    """File and line of the suite that says so."""

    @property
    def said(self) -> str:
        """What was seen, and what is allowed."""
        return f"{self.observed}, {self.limit}" if self.limit else self.observed

    def __str__(self) -> str:
        where = f"{self.table}.{self.column}" if self.column else self.table
        return f"{where}: {self.name}: {self.said}. {self.detail}"


@dataclass(frozen=True)
class CheckReport:
    """What a suite found on one night."""

    suite: str
    """Name of the suite."""
    night: date
    """Date that names the night."""
    model: str
    """The model judged; '' where the batch belongs to the portfolio."""
    results: tuple[CheckResult, ...]
    """One per expectation and table."""
    report_path: str | None = None
    """Its own page, relative to settings.reports; None where none was drawn, or where it is on one with others."""
    unjudged: Mapping[str, str] = field(default_factory=dict)
    """Table → why it could not be judged, where that was asked not to stop the others."""

    @property
    def critical_failures(self) -> tuple[CheckResult, ...]:
        """Those that hold their table."""
        return tuple(result for result in self.results if not result.success and result.severity == "critical")

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        """Those that alert."""
        return tuple(result for result in self.results if not result.success and result.severity == "warning")

    @property
    def success(self) -> bool:
        """No critical failure."""
        return not self.critical_failures


def record(rails: Rails, reports: Sequence[CheckReport], as_of: datetime) -> None:
    """Keep the results in ops.check_result: those of the same suites, models, night and tables are replaced.

    All of them in one commit: a night has several reports, and a commit of the lake costs what a small suite does.
    """
    rails.lake.ensure(CHECK_RESULT)
    # a view that models of two sources read is in the report of either
    distinct = {(report.suite, report.model, result): report for report in reports for result in report.results}
    rows = pd.DataFrame(
        [
            {
                "suite": report.suite, "table_name": result.table, "check_name": result.name,
                "column_name": result.column, "severity": result.severity, "success": result.success,
                "observed": result.observed, "detail": result.detail,
                "night": report.night, "model": report.model, "available_at": as_of,
            }
            for (_, _, result), report in distinct.items()
        ],
        columns=list(CHECK_RESULT.columns),
    )  # fmt: skip

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        for report in reports:
            connection.execute(
                f"delete from {identifier(CHECK_RESULT)} where suite = $suite and model = $model "
                "and night = $night and list_contains($tables, table_name)",
                {
                    "suite": report.suite,
                    "model": report.model,
                    "night": report.night,
                    "tables": sorted({result.table for result in report.results}),
                },
            )
        put(connection, CHECK_RESULT, {}, rows)

    names = dict.fromkeys(name for report in reports for name in (report.suite, report.model) if name)
    rails.lake.commit(work, message=" ".join(("checks", *names, *{report.night.isoformat() for report in reports})))
