"""One suite of expectations judges one batch: Great Expectations as an engine, and nothing about what is judged.

Suites are YAML; each expectation has a `severity` (critical stops, warning alerts) and says in `meta.why` what
goes wrong without it. Batches are SQL over the lake, judged where the data lies: through duckdb-engine on a
connection of GX's own, to which the lake is attached. One context and one connection serve a whole process.

GX 1.24 reads a cursor after handing its connection back, which DuckDB does not allow (GX #11579, an
`IndexError` in `resolve_metric_bundle`): `patch_gx` is the one place that mends it, and
tests/unit/test_gx_patch.py fails when GX no longer needs it.
"""

import difflib
import functools
import html
import itertools
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import pandas as pd
import sqlalchemy as sa
import yaml
from pydantic import JsonValue

from tiltyard import lake as lakes
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.rails import Rails
from tiltyard.settings import Settings
from tiltyard.tables import CHECK_RESULT

if TYPE_CHECKING:  # Great Expectations takes 3 s to import, and only a suite that is run needs it
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation as GxExpectation

Severity = Literal["critical", "warning"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning")
"""critical stops the batch, warning alerts."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FUNCTIONS = {"abs", "round", "trunc", "sgn", "sin", "cos", "tan", "exp"}
_ROW_COUNTS = ("expect_table_row_count_to_be_between", "expect_table_row_count_to_equal")
"""Expectations that look at no column; those that name columns look at these only."""
_COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")
"""Arguments of an expectation that name columns."""
_numbers = itertools.count()
_turn = threading.RLock()


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
    """critical stops the batch, warning alerts."""
    success: bool
    """Whether the batch meets it."""
    observed: str
    """What was seen, in words."""
    detail: str
    """Why the check is there, and the first offending values."""

    def __str__(self) -> str:
        where = f"{self.table}.{self.column}" if self.column else self.table
        return f"{where}: {self.name}: {self.observed}. {self.detail}"


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
    """Its page, relative to settings.reports; None when nothing was rendered."""

    @property
    def critical_failures(self) -> tuple[CheckResult, ...]:
        """Those that stop the batch."""
        return tuple(result for result in self.results if not result.success and result.severity == "critical")

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        """Those that alert."""
        return tuple(result for result in self.results if not result.success and result.severity == "warning")

    @property
    def success(self) -> bool:
        """No critical failure."""
        return not self.critical_failures


@dataclass(frozen=True)
class Expectation:
    """One expectation of a suite."""

    type: str
    """Great Expectations' name of it, like expect_column_values_to_not_be_null."""
    kwargs: Mapping[str, JsonValue]
    """Its arguments, in which {"$PARAMETER": name} stands for a value of the batch."""
    severity: Severity
    """critical stops the batch, warning alerts."""
    meta: Mapping[str, JsonValue]
    """What goes wrong without it, under `why`, and what else the suite says of it."""
    line: int
    """Line of the YAML file on which it begins."""

    @property
    def why(self) -> str:
        """What goes wrong without it, on one line."""
        return " ".join(str(self.meta["why"]).split())

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that its arguments name."""
        columns: list[str] = []
        for argument in _COLUMN_ARGUMENTS:
            value = self.kwargs.get(argument, [])
            columns += map(str, value if isinstance(value, list) else [value])
        return tuple(columns)


@dataclass(frozen=True)
class Suite:
    """The expectations of one YAML file, checked as far as they can be without a batch."""

    path: Path
    """The file."""
    meta: Mapping[str, Any]
    """What the file says of the suite as a whole."""
    expectations: tuple[Expectation, ...]
    """In the order of the file."""

    def where(self, index: int) -> str:
        """File and line of an expectation."""
        return f"{self.path}:{self.expectations[index].line}"


@dataclass(frozen=True)
class Batch:
    """What is judged."""

    table: str
    """Name of the table, for people."""
    sql: str
    """SQL of its rows."""
    columns: Sequence[str]
    """Names of its columns."""
    parameters: Mapping[str, str | float | None] = field(default_factory=dict)
    """Values of the suite's $PARAMETERs, by name."""
    empty: bool = False
    """Whether it has no rows: then only expectations about the table as a whole are judged; the others would be
    vacuous."""


@dataclass(frozen=True)
class SuiteResult:
    """What a suite found on one batch."""

    validation: "ExpectationSuiteValidationResult | None"
    """Great Expectations' own result; None when there was nothing to judge."""
    outcomes: "tuple[tuple[int, ExpectationValidationResult], ...]"
    """(index of the expectation in the suite, Great Expectations' result of it), in the order of the suite."""
    results: tuple[CheckResult, ...]
    """The same in our words."""


# -- suites -----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _read(path: Path, modified_ns: int) -> Suite:
    """The suite in `path`, read again when the file has changed."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BadInput(f"{where}: not readable as YAML ({getattr(error, 'problem', None) or error}).") from None
    if not isinstance(content, dict) or not isinstance(content.get("expectations"), list):
        raise BadInput(
            f"{path}:1: a suite is a mapping with a list of 'expectations', see expectations/freshness.yaml."
        )
    assert node is not None  # content is a mapping
    nodes = {key.value: value for key, value in node.value}
    for key, _ in node.value:
        if key.value not in ("name", "meta", "notes", "expectations"):
            raise BadInput(f"{path}:{key.start_mark.line + 1}: {key.value}: unknown field; is it a typo?")
    lines = [item.start_mark.line + 1 for item in nodes["expectations"].value]
    expectations = tuple(
        _expectation(path, line, entry) for line, entry in zip(lines, content["expectations"], strict=True)
    )
    return Suite(path, content.get("meta") or {}, expectations)


def load(path: Path) -> Suite:
    """The suite in `path`. Raises BadInput with file and line for what GX would answer with a traceback."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        raise BadInput(f"There is no suite at {path}; write one, see expectations/freshness.yaml.") from None


def _expectation(path: Path, line: int, entry: Any) -> Expectation:
    """One entry of the YAML. Raises BadInput, with file and line, for what is no expectation."""
    where = f"{path}:{line}"
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        raise BadInput(f"{where}: an expectation is a mapping with type, kwargs, severity and meta.")
    kind = entry["type"]
    for key in entry:
        if key not in ("type", "kwargs", "severity", "meta"):
            raise BadInput(f"{where}: {kind}: {key}: unknown field; the fields are type, kwargs, severity and meta.")
    if entry.get("severity") not in SEVERITIES:
        raise BadInput(f"{where}: {kind}: severity must be critical (stops the batch) or warning (alerts).")
    if not isinstance(entry.get("meta"), dict) or not str(entry["meta"].get("why") or "").strip():
        raise BadInput(f"{where}: {kind}: say in meta.why what goes wrong without this check.")
    if not isinstance(entry.get("kwargs", {}), dict):
        raise BadInput(f"{where}: {kind}: kwargs must be a mapping.")
    return Expectation(kind, entry.get("kwargs", {}), entry["severity"], entry["meta"], line)


def _parameters(value: JsonValue) -> Iterator[str]:
    """Names used by $PARAMETER anywhere in an expectation's kwargs; `usual_rows * 0.3` uses usual_rows."""
    if isinstance(value, dict):
        if "$PARAMETER" in value:
            yield from (name for name in _NAME.findall(str(value["$PARAMETER"])) if name not in _FUNCTIONS)
        else:
            for part in value.values():
                yield from _parameters(part)
    elif isinstance(value, list):
        for part in value:
            yield from _parameters(part)


def _check_against(suite: Suite, index: int, batch: Batch) -> None:
    """Raises BadInput for columns and parameters that the batch does not have."""
    expectation = suite.expectations[index]
    where = f"{suite.where(index)}: {expectation.type}"
    for column in expectation.columns:
        if column not in batch.columns:
            raise BadInput(f"{where}: {batch.table} has no column '{column}'{_like(column, batch.columns)}.")
    for name in _parameters(dict(expectation.kwargs)):
        if name not in batch.parameters:
            raise BadInput(
                f"{where}: $PARAMETER: {name} is not known here; there are {', '.join(sorted(batch.parameters))}."
            )


def _like(name: str, names: Sequence[str]) -> str:
    """The end of a sentence that names the closest of `names`; empty when none is close."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{close[0]}'" if close else ""


def _build(suite: Suite, index: int) -> "GxExpectation":
    """The GX expectation. Raises BadInput for an unknown type or an argument that it does not take."""
    from great_expectations.exceptions.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.metadata_types import FailureSeverity
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    expectation = suite.expectations[index]
    where = f"{suite.where(index)}: "
    try:
        implementation = get_expectation_impl(expectation.type)
    except ExpectationNotFoundError:
        names = list_registered_expectation_implementations()
        like = _like(expectation.type, names)
        raise BadInput(f"{where}there is no expectation '{expectation.type}'{like}.") from None
    try:
        kwargs: dict[str, Any] = dict(expectation.kwargs)
        return implementation(**kwargs, severity=FailureSeverity(expectation.severity), meta=dict(expectation.meta))
    except ValueError as error:  # pydantic's ValidationError is one
        problems: list[dict[str, Any]] = getattr(error, "errors", list)()
        reasons = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
        raise BadInput(f"{where}{expectation.type}: {reasons or str(error).splitlines()[0]}.") from None


# -- the engine -------------------------------------------------------------------------------


def patch_gx() -> None:
    """Let GX 1.24 read its results from DuckDB: fetch them while the connection is still its own."""
    from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine as Engine

    original = Engine._execute_query_with_recovery
    if getattr(original, "_tiltyard", False):
        return

    def fetched(connection: Any, query: Any) -> Any:
        result = original(connection, query)
        return result.freeze()() if result.returns_rows else result

    fetched._tiltyard = True  # type: ignore[attr-defined]
    Engine._execute_query_with_recovery = staticmethod(fetched)  # type: ignore[method-assign]


def load_gx() -> ModuleType:
    """Great Expectations, imported with its telemetry off; about 3 s the first time."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations

    for name in ("", ".validator.validator", ".data_context.types.base"):
        logging.getLogger(f"great_expectations{name}").setLevel(logging.ERROR)
    patch_gx()
    return great_expectations


def no_rows(kind: str, query: str, meaning: str) -> type:
    """A Great Expectations type, called `kind` in a suite: the SQL `query` over `{batch}` finds no row."""
    load_gx()
    from great_expectations.expectations.core.unexpected_rows_expectation import UnexpectedRowsExpectation

    body = {
        "__annotations__": {"unexpected_rows_query": str},
        "unexpected_rows_query": query,
        "__module__": __name__,
        "__doc__": meaning,
    }
    return type("".join(part.capitalize() for part in kind.split("_")), (UnexpectedRowsExpectation,), body)


class _Session:
    """A GX context and its connection, with the lake attached."""

    def __init__(self, settings: Settings) -> None:
        gx = load_gx()
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        self.source = self.context.data_sources.add_sql(
            "lake",
            connection_string="duckdb:///:memory:",
            create_temp_table=False,
            kwargs={"connect_args": {"config": {"threads": settings.threads}}},
        )
        self.engine = self.source.get_execution_engine().engine
        self.engine.dispose()  # GX has connected once already, before the lake could be attached
        sa.event.listen(self.engine, "connect", lambda raw, _: lakes.configure(raw, settings))

    def validate(
        self, suite: Suite, batch: Batch, indices: Sequence[int], *, complete: bool
    ) -> "ExpectationSuiteValidationResult":
        """Read the batch once, as a table in memory, and let GX put its questions to that."""
        import great_expectations as gx

        name = f"batch_{next(_numbers)}"
        expectations = gx.ExpectationSuite(
            name=suite.path.stem, expectations=[_build(suite, index) for index in indices], meta={}
        )
        with self.engine.connect() as connection:
            sql = f"select {_projection(suite, indices)} from ({batch.sql})"
            connection.exec_driver_sql(f"create table memory.main.{name} as {sql}")
            connection.commit()
        asset = self.source.add_query_asset(
            f"{batch.table} {name}", f"select * from memory.main.{name}", batch_metadata={"rows of": batch.sql}
        )
        try:
            definition = asset.add_batch_definition_whole_table("batch")
            shown = {"result_format": "COMPLETE" if complete else "SUMMARY", "partial_unexpected_count": 5}
            validation: ExpectationSuiteValidationResult = definition.get_batch().validate(
                expectations, result_format=shown, expectation_parameters=dict(batch.parameters)
            )
            return validation
        finally:
            self.source.delete_asset(asset.name)
            with self.engine.connect() as connection:
                connection.exec_driver_sql(f"drop table memory.main.{name}")
                connection.commit()


def _projection(suite: Suite, indices: Sequence[int]) -> str:
    """The columns that the expectations look at; all of them where one brings SQL of its own."""
    columns: set[str] = set()
    for index in indices:
        expectation = suite.expectations[index]
        names_none = expectation.type not in _ROW_COUNTS and not expectation.kwargs.keys() & set(_COLUMN_ARGUMENTS)
        if "row_condition" in expectation.kwargs or names_none:
            return "*"
        columns.update(expectation.columns)
    return ", ".join(f'"{column}"' for column in sorted(columns)) or "1 as one"


_sessions: dict[tuple[object, ...], _Session] = {}


def _session(settings: Settings) -> _Session:
    """The process's session for this lake; a fork and another thread get their own."""
    key = (os.getpid(), threading.get_ident(), settings.home, settings.database_url, settings.database_prefix)
    if key not in _sessions:
        # of another lake; a parent process's sessions stay untouched
        for outdated in [session_key for session_key in _sessions if session_key[:2] == key[:2]]:
            _sessions.pop(outdated).engine.dispose()
        _sessions[key] = _Session(settings)
    return _sessions[key]


def run_suite(
    rails: Rails, suite: Suite, batch: Batch, *, complete: bool = False, only: Sequence[int] = ()
) -> SuiteResult:
    """Hold `batch` to the expectations of `suite` (to those with these indices, when `only` is given).

    `complete` keeps every offending row in GX's result: for small batches. Raises BadInput, naming file and line, for
    an expectation that cannot be judged on this batch.
    """
    indices = list(only) or list(range(len(suite.expectations)))
    if batch.empty:
        indices = [index for index in indices if suite.expectations[index].type.startswith("expect_table_")]
    for index in indices:
        _check_against(suite, index, batch)
    if not indices:
        return SuiteResult(None, (), ())
    with _turn, _quiet():
        validation = _session(rails.settings).validate(suite, batch, indices, complete=complete)
    outcomes = tuple(zip(indices, _in_order(validation, suite, indices), strict=True))
    results = tuple(_result(suite, index, batch, outcome) for index, outcome in outcomes)
    return SuiteResult(validation, outcomes, results)


def _in_order(
    validation: "ExpectationSuiteValidationResult", suite: Suite, indices: Sequence[int]
) -> "list[ExpectationValidationResult]":
    """GX sorts its results by kind; put them back into the order of the YAML."""
    left = list(validation.results)
    ordered = []
    for index in indices:
        expectation = suite.expectations[index]
        match = next(outcome for outcome in left if _is_of(outcome, expectation))
        left.remove(match)
        ordered.append(match)
    return ordered


def _is_of(outcome: "ExpectationValidationResult", expectation: Expectation) -> bool:
    configured = outcome.expectation_config
    return (
        configured is not None
        and configured.type == expectation.type
        and configured.meta.get("why") == expectation.meta["why"]
        and configured.kwargs.get("column") == expectation.kwargs.get("column")
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """GX warns about its own internals; none of it is for the reader of a check."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _result(suite: Suite, index: int, batch: Batch, outcome: "ExpectationValidationResult") -> CheckResult:
    expectation = suite.expectations[index]
    trouble = _trouble(outcome.exception_info or {})
    if trouble:
        raise BadInput(f"{suite.where(index)}: {expectation.type} cannot be judged on {batch.table}: {trouble}.")
    observed, examples = _observed(outcome.result or {})
    column = expectation.kwargs.get("column")
    why = expectation.why
    return CheckResult(
        table=batch.table,
        name=expectation.type.removeprefix("expect_"),
        column=None if column is None else str(column),
        severity=expectation.severity,
        success=bool(outcome.success),
        observed=observed,
        detail=why if outcome.success or not examples else f"{why} Seen: {examples}",
    )


def _trouble(info: Mapping[str, Any]) -> str | None:
    """The first line of the exception behind a result, if there was one."""
    if info.get("raised_exception"):
        return str(info.get("exception_message") or "it failed").strip().splitlines()[0]
    nested = (value for value in info.values() if isinstance(value, dict))
    return next((text for text in map(_trouble, nested) if text), None)


def _observed(result: Mapping[str, Any]) -> tuple[str, str]:
    """What was seen, in words, and a few offending values."""
    rows = (result.get("details") or {}).get("unexpected_rows") if isinstance(result.get("details"), dict) else None
    examples = rows[:5] if isinstance(rows, list) else result.get("partial_unexpected_list") or []
    unique = list(dict.fromkeys(str(example) for example in examples))
    if "unexpected_count" in result:
        share = result.get("unexpected_percent") or 0.0
        text = f"{result['unexpected_count']} of {result.get('element_count', 0)} rows ({share:.1f} %)"
    else:
        value = result.get("observed_value")
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text, ", ".join(unique[:5])


# -- results ----------------------------------------------------------------------------------


def record(rails: Rails, reports: Sequence[CheckReport], as_of: datetime) -> None:
    """Keep the results in ops.check_result: those of the same suites, models, night and tables are replaced.

    All of them in one commit: a night has several reports, and a commit of the lake costs what a small suite does.
    """
    rails.lake.ensure(CHECK_RESULT)
    rows = pd.DataFrame(
        [
            {
                "suite": report.suite, "table_name": result.table, "check_name": result.name,
                "column_name": result.column, "severity": result.severity, "success": result.success,
                "observed": result.observed, "detail": result.detail,
                "night": report.night, "model": report.model, "available_at": as_of,
            }
            for report in reports
            for result in report.results
        ],
        columns=list(CHECK_RESULT.columns),
    )  # fmt: skip

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        for report in reports:
            connection.execute(
                f"delete from {lakes.identifier(CHECK_RESULT)} where suite = $suite and model = $model "
                "and night = $night and list_contains($tables, table_name)",
                {
                    "suite": report.suite,
                    "model": report.model,
                    "night": report.night,
                    "tables": sorted({result.table for result in report.results}),
                },
            )
        lakes.put(connection, CHECK_RESULT, {}, rows)

    names = dict.fromkeys(name for report in reports for name in (report.suite, report.model) if name)
    rails.lake.commit(work, message=" ".join(("checks", *names, *{report.night.isoformat() for report in reports})))


@contextmanager
def one_view(rails: Rails) -> Iterator[None]:
    """Several reads of the lake in one transaction: they see one state of it, and its catalogue is read once."""
    rails.lake.connection.begin()
    try:
        yield
    finally:
        rails.lake.connection.rollback()


def render(
    rails: Rails,
    suite: str,
    subject: str,
    as_of: datetime,
    pages: Mapping[str, SuiteResult],
    results: Sequence[CheckResult],
) -> str:
    """Data Docs of a suite: a page per validated batch, and an index. Returns its path under settings.reports.

    `pages` maps each table to what was found on it, `results` is what the index lists.
    """
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    folder = Path("data_docs") / night_closing(as_of).isoformat() / suite / (subject or "portfolio")
    target = rails.settings.reports / folder
    target.mkdir(parents=True, exist_ok=True)
    links = []
    for table, result in sorted(pages.items()):
        if result.validation is None:
            continue
        with _quiet():
            document = ValidationResultsPageRenderer(run_info_at_end=True).render(result.validation)
            _write(target / f"{table}.html", DefaultJinjaPageView().render(document))  # type: ignore[no-untyped-call]
        links.append(f'<a href="{html.escape(table)}.html">{html.escape(table)}</a>')
    rows = []
    for check in sorted(results, key=lambda check: (check.success, SEVERITIES.index(check.severity), check.table)):
        mark = "ok" if check.success else check.severity
        cells = (mark, check.table, check.column or "", check.name, check.observed, check.detail)
        rows.append(f'<tr class="{mark}">{"".join(f"<td>{html.escape(cell)}</td>" for cell in cells)}</tr>')
    title = f"{suite} {subject} {night_closing(as_of)}".replace("  ", " ")
    page = _INDEX.format(title=html.escape(title), pages=" · ".join(links), rows="\n".join(rows))
    _write(target / "index.html", page)
    return str(folder / "index.html")


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a reader may have the page open."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #ddd }}
td:first-child {{ font-weight: 600 }}
tr.critical td:first-child {{ color: #b00020 }} tr.warning td:first-child {{ color: #9a6700 }}
tr.ok td:first-child {{ color: #1a7f37 }}
</style></head>
<body><h1>{title}</h1>
<p>In full: {pages}</p>
<table><thead><tr><th></th><th>table</th><th>column</th><th>check</th><th>observed</th><th>why</th></tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""
