"""The leakage suite: which rule stops a batch, and the rules on the tables of a night.

expectations/leakage.yaml grades the rules' results: critical stops, warning alerts. What is graded, from whatever part
of the project it comes (write times, arrivals, the replay, evidence in a frame), is a `RuleResult`.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from tiltyard import release, suites
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.lake import FIRST, literal, qualified, stored, text
from tiltyard.leak.rules import Declared, RuleResult, dated
from tiltyard.leak.suspicion import Severity
from tiltyard.rails import Rails
from tiltyard.suites import CheckReport, CheckResult
from tiltyard.words import counted

SUITE = "leakage"
RULES = {
    "later_than_available_at": "expect_no_timestamp_later_than_available_at",
    "null_available_at": "expect_no_null_available_at",
    "point_in_time": "expect_features_known_at_prediction_time",
    "used_without_available_at": "expect_available_at_of_every_feature_used",
    "repeated_prediction": "expect_one_row_per_prediction",
    "used_before_written": "expect_no_feature_before_it_was_written",
    "label_among_features": "expect_label_not_among_features",
    "immature_label": "expect_labels_to_have_matured",
    "replay": "expect_replay_to_agree",
    "rewritten_history": "expect_no_rewritten_history",
    "backfill": "expect_no_backfill_that_claims_to_be_old",
    "bulk_backfill": "expect_no_history_to_be_rewritten_in_bulk",
    "arrives_in_time": "expect_features_to_arrive_in_time",
    "evidence_of_time": "expect_no_evidence_of_leakage_in_time",
    "statistical_evidence": "expect_no_statistical_evidence_of_leakage",
}
"""Rule → the Great Expectations type that wraps it."""
EVIDENCE: Mapping[Severity, str] = {"critical": "evidence_of_time", "warning": "statistical_evidence"}
"""Severity of a suspicion that a frame's own data raises (evidence.py) → its rule."""


# -- the tables of a night --------------------------------------------------------------------


def staging_tables(rails: Rails, source: str) -> list[str]:
    """The staging tables of a source that carry an `available_at`."""
    rows = rails.lake.connection.execute(
        "select 'staging.' || table_name from information_schema.columns where table_catalog = 'lake' "
        "and table_schema = 'staging' and starts_with(table_name, ?) and column_name = 'available_at' order by 1",
        [f"stg_{source}__"],
    )
    return [name for (name,) in rows.fetchall()]


def known_or_undated(table: str, columns: Mapping[str, str], as_of: datetime, snapshot: int | None) -> str:
    """SQL of `table` at `as_of`, with the rows that cannot be dated: those are read nowhere else."""
    moment = literal(as_of)
    unread = f"(available_at is null or available_at < {FIRST})"
    if "event_time" in columns:
        unread += f" and (event_time is null or event_time <= {moment})"
    return f"(select * from {stored(table, snapshot)} where available_at between {FIRST} and {moment} or ({unread}))"


def table_results(
    rails: Rails,
    tables: Iterable[str],
    as_of: datetime,
    snapshot: int | None,
    declared: Callable[[str, Mapping[str, str]], Declared],
) -> list[RuleResult]:
    """The rules on single tables of the lake: staging, spine, feature views, label.

    `declared`: gives what is said of a table's columns, of which it is told name → DuckDB type.
    """
    results: list[RuleResult] = []
    for table in tables:
        columns = rails.lake.columns(table)
        relation = known_or_undated(table, columns, as_of, snapshot)
        said = declared(table.split(".")[-1], columns)
        results += dated(rails.lake.connection, qualified(table), relation, columns, said)
    return results


# -- grading ----------------------------------------------------------------------------------


def grade(rails: Rails, suite: suites.Suite, results: Sequence[RuleResult], subject: str) -> tuple[CheckResult, ...]:
    """Hold the rules' results to the leakage suite: one check result per rule and table, however many columns it has.

    Raises BadInput, naming file and line, for an expectation that is no leakage rule.
    """
    expectations()
    rules = {result.rule for result in results}
    rule_of = {expectation: rule for rule, expectation in RULES.items()}
    applicable = []
    for index, expectation in enumerate(suite.expectations):
        if expectation.type not in rule_of:
            raise BadInput(
                f"{suite.where(index)}: '{expectation.type}' is not a leakage rule; they are {', '.join(rule_of)}."
            )
        if rule_of[expectation.type] in rules:
            applicable.append(index)
    batch = suites.Batch(subject, _as_values(results), _BATCH_COLUMNS, empty=not results)
    suite_result = suites.run_suite(rails, suite, batch, complete=True, only=applicable)
    checks: list[CheckResult] = []
    for (index, outcome), check in zip(suite_result.outcomes, suite_result.results, strict=True):
        of_rule = [result for result in results if result.rule == rule_of[suite.expectations[index].type]]
        is_broken = any(result.violations for result in of_rule)
        assert bool(outcome.success) == (not is_broken), "the expectation and the rule must agree"
        for table in dict.fromkeys(result.table for result in of_rule):
            checks.append(_of_table(check, table, [result for result in of_rule if result.table == table]))
    return tuple(checks)


def _of_table(check: CheckResult, table: str, results: Sequence[RuleResult]) -> CheckResult:
    """The part of a rule's check that is about one table."""
    broken = [result for result in results if result.violations]
    examples = "; ".join(_in_a_line(result) for result in broken)
    is_idle = all(result.rows == 0 for result in results)
    total = f"{counted(sum(result.violations for result in results), 'violation')} in {counted(len(results), 'column')}"
    return CheckResult(
        table=table,
        name=check.name,
        column=", ".join(result.column for result in broken) or None,
        severity=check.severity,
        success=not broken,
        observed=f"not judged: {results[0].worst}" if is_idle and results[0].worst else total,
        detail=check.detail.split(" Seen: ")[0] + (f" Seen: {examples}" if examples else ""),
        rows=tuple(suites.RowsAt(result.sql, (result.column,)) for result in broken if result.sql),
        place=check.place,
    )


def _in_a_line(result: RuleResult) -> str:
    """Evidence is a sentence with numbers of its own; every other rule counts rows."""
    return f"{result.column}: {result.worst}" if result.rule in EVIDENCE.values() else str(result)


_BATCH_COLUMNS = ("rule", "table_name", "column_name", "rows", "violations", "worst")


def _as_values(results: Sequence[RuleResult]) -> str:
    """The results as SQL, for Great Expectations to look at."""
    rows = ", ".join(
        f"({text(result.rule)}, {text(result.table)}, {text(result.column)}, {result.rows}, {result.violations}, "
        f"{text(result.worst)})"
        for result in results
    )
    return f"select * from (values {rows}) as results ({', '.join(_BATCH_COLUMNS)})"


@functools.cache
def expectations() -> Mapping[str, type]:
    """The rules as Great Expectations types: no result of the rule in the batch has a violation."""
    query = "select * from {{batch}} where rule = {rule} and violations > 0 order by violations desc"
    return {
        expectation: suites.no_rows(expectation, query.format(rule=text(rule)), f"No row breaks the rule {rule}.")
        for rule, expectation in RULES.items()
    }


def report(
    rails: Rails,
    results: Sequence[RuleResult],
    as_of: datetime,
    *,
    subject: str,
    suite_name: str = SUITE,
    render: bool,
    record: bool = True,
) -> CheckReport:
    """Grade the rules' results by expectations/leakage.yaml, keep them (`record`) and render their page (`render`).

    `subject`: the model, source or portfolio that the results are about.
    """
    is_accepted = release.name(rails.settings) is not None
    suite = suites.load(rails.settings.expectations / "leakage.yaml", is_accepted=is_accepted)
    checks = grade(rails, suite, results, subject)
    path = suites.draw(rails, suite_name, subject, as_of, checks) if render else None
    check_report = CheckReport(suite_name, night_closing(as_of), subject, checks, path)
    if record:
        suites.record(rails, [check_report], as_of)
    return check_report
