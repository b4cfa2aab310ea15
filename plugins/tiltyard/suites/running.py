"""One suite judges one batch, and what came of it in our words."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiltyard.errors import BadInput
from tiltyard.rails import Rails
from tiltyard.suites import gx, offending
from tiltyard.suites.expectations import Expectation, Suite, closest, parameters
from tiltyard.suites.gx import Batch
from tiltyard.suites.results import CheckResult
from tiltyard.words import ended

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult

_turn = threading.RLock()
"""Great Expectations is not made for threads: one suite at a time."""


@dataclass(frozen=True)
class SuiteResult:
    """What a suite found on one batch."""

    outcomes: "tuple[tuple[int, ExpectationValidationResult], ...]"
    """(index of the expectation in the suite, Great Expectations' result of it), in the order of the suite."""
    results: tuple[CheckResult, ...]
    """The same in our words."""


def run_suite(
    rails: Rails, suite: Suite, batch: Batch, *, complete: bool = False, only: Sequence[int] = ()
) -> SuiteResult:
    """Hold `batch` to the expectations of `suite` (to those with these indices, when `only` is given).

    `complete` lets GX name the offending rows where an expectation is SQL of its own: for small batches. Raises
    BadInput, naming file and line, for an expectation that cannot be judged on this batch.
    """
    indices = list(only) or list(range(len(suite.expectations)))
    if batch.empty:
        indices = [index for index in indices if suite.expectations[index].type.startswith("expect_table_")]
    for index in indices:
        _check_against(suite, index, batch)
    if not indices:
        return SuiteResult((), ())
    with _turn, gx.quiet():
        validation = gx.session(rails.settings).validate(suite, batch, indices, complete=complete)
    outcomes = tuple(zip(indices, _in_order(validation, suite, indices), strict=True))
    results = tuple(_result(rails, suite, index, batch, outcome) for index, outcome in outcomes)
    return SuiteResult(outcomes, results)


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


def _check_against(suite: Suite, index: int, batch: Batch) -> None:
    """Raises BadInput for columns and parameters that the batch does not have."""
    expectation = suite.expectations[index]
    where = f"{suite.where(index)}: {expectation.type}"
    for column in expectation.columns:
        if column not in batch.columns:
            raise BadInput(ended(f"{where}: {batch.table} has no column '{column}'{closest(column, batch.columns)}"))
    for name in parameters(dict(expectation.kwargs)):
        if name not in batch.parameters:
            raise BadInput(
                f"{where}: $PARAMETER: {name} is not known here; there are {', '.join(sorted(batch.parameters))}."
            )


def _place(rails: Rails, suite: Suite, index: int) -> str:
    """File and line of an expectation, below the checkout or the release that it is of."""
    where, above = suite.where(index), f"{rails.settings.expectations.parent}/"
    return where.removeprefix(above)


def _result(
    rails: Rails, suite: Suite, index: int, batch: Batch, outcome: "ExpectationValidationResult"
) -> CheckResult:
    expectation = suite.expectations[index]
    trouble = _trouble(outcome.exception_info or {})
    if trouble:
        raise BadInput(f"{suite.where(index)}: {expectation.type} cannot be judged on {batch.table}: {trouble}.")
    found = outcome.result or {}
    observed, examples = offending.in_words(found, figures=batch.figures)
    column, why = expectation.kwargs.get("column"), expectation.why
    evaluated = dict(outcome.expectation_config.kwargs) if outcome.expectation_config else {}
    return CheckResult(
        table=batch.table,
        name=expectation.type.removeprefix("expect_"),
        column=None if column is None else str(column),
        severity=expectation.severity,
        success=bool(outcome.success),
        observed=observed,
        detail=why if outcome.success or not examples else f"{why} Seen: {examples}",
        limit=offending.limit({**expectation.kwargs, **evaluated}, figures=batch.figures),
        rows=() if outcome.success or batch.figures else offending.rows(expectation, batch, found),
        place=_place(rails, suite, index),
    )


def _trouble(info: Mapping[str, Any]) -> str | None:
    """The first line of the exception behind a result, if there was one."""
    if info.get("raised_exception"):
        return str(info.get("exception_message") or "it failed").strip().splitlines()[0]
    nested = (value for value in info.values() if isinstance(value, dict))
    return next((text for text in map(_trouble, nested) if text), None)


@contextmanager
def one_view(rails: Rails) -> Iterator[None]:
    """Several reads of the lake in one transaction: they see one state of it, and its catalogue is read once."""
    rails.lake.connection.begin()
    try:
        yield
    finally:
        rails.lake.connection.rollback()
