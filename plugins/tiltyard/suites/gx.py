"""Great Expectations as an engine: imported late, patched, and with the lake attached to its connection.

GX 1.24 reads a cursor after handing its connection back, which DuckDB does not allow (GX #11579, an
`IndexError` in `resolve_metric_bundle`): `patch_gx` is the one place that mends it, and
tests/unit/suites/test_gx_patch.py fails when GX no longer needs it.

Its imports stand inside functions throughout: they take 3 s, and only a suite that is run needs them.
"""

import itertools
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tiltyard import lake as lakes
from tiltyard.errors import BadInput
from tiltyard.settings import Settings
from tiltyard.suites.expectations import COLUMN_ARGUMENTS, ROW_COUNTS, Suite, closest
from tiltyard.words import ended

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.expectations.expectation import Expectation as GxExpectation

_numbers = itertools.count()


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
    figures: bool = False
    """Whether it is one row of figures about the table, and no rows of it: then what was seen is the figure."""


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
    # before the import, which tells hundreds of lines about itself
    for name in ("", ".validator.validator", ".data_context.types.base"):
        logging.getLogger(f"great_expectations{name}").setLevel(logging.ERROR)
    import great_expectations

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
        hint = closest(expectation.type, names)
        raise BadInput(ended(f"{where}there is no expectation '{expectation.type}'{hint}")) from None
    try:
        kwargs: dict[str, Any] = dict(expectation.kwargs)
        return implementation(**kwargs, severity=FailureSeverity(expectation.severity), meta=dict(expectation.meta))
    except Exception as error:  # pydantic's ValidationError, and whatever else GX says of an argument
        problems: list[dict[str, Any]] = getattr(error, "errors", list)()
        reasons = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BadInput(f"{where}{expectation.type}: {reasons or first}.") from None


class Session:
    """A GX context and its connection, with the lake attached."""

    def __init__(self, settings: Settings) -> None:
        gx = load_gx()
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        self.source = self.context.data_sources.add_sql(
            "lake",
            connection_string="duckdb:///:memory:",
            create_temp_table=False,
            kwargs={"connect_args": {"config": lakes.config(settings)}},
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
        names_none = expectation.type not in ROW_COUNTS and not expectation.kwargs.keys() & set(COLUMN_ARGUMENTS)
        if "row_condition" in expectation.kwargs or names_none:
            return "*"
        columns.update(expectation.columns)
    return ", ".join(f'"{column}"' for column in sorted(columns)) or "1 as one"


_sessions: dict[tuple[object, ...], Session] = {}


def session(settings: Settings) -> Session:
    """The process's session for this lake; a fork and another thread get their own."""
    key = (os.getpid(), threading.get_ident(), settings.home, settings.database_url, settings.database_prefix)
    if key not in _sessions:
        # of another lake; a parent process's sessions stay untouched
        for outdated in [session_key for session_key in _sessions if session_key[:2] == key[:2]]:
            _sessions.pop(outdated).engine.dispose()
        _sessions[key] = Session(settings)
    return _sessions[key]


def forget() -> None:
    """Let the next suite open a session of its own: this one's connection answers nothing any more."""
    for key in [key for key in _sessions if key[:2] == (os.getpid(), threading.get_ident())]:
        _sessions.pop(key).engine.dispose()


@contextmanager
def quiet() -> Iterator[None]:
    """GX warns about its own internals; none of it is for the reader of a check."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
