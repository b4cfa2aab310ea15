"""The one patch to Great Expectations: it is needed, and it is enough."""

import os

import pytest
import sqlalchemy as sa

from tiltyard import suites

gx = pytest.importorskip("great_expectations")


def validate() -> object:
    """One bundled metric through GX on DuckDB, and what came of it."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_sql("duck", connection_string="duckdb:///:memory:", create_temp_table=False)
    asset = source.add_query_asset("batch", "select unnest([1, 2, 3]) as x")
    expectation = gx.expectations.ExpectTableRowCountToEqual(value=3)
    return asset.add_batch_definition_whole_table("all").get_batch().validate(expectation)


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    from great_expectations.execution_engine import SqlAlchemyExecutionEngine as Engine

    def original(connection: sa.Connection, query: object) -> object:
        return connection.execute(query)

    monkeypatch.setattr(Engine, "_execute_query_with_recovery", staticmethod(original))


def test_the_patch_is_enough() -> None:
    suites.load_gx()
    assert validate().success


def test_the_patch_is_still_needed(unpatched: None) -> None:
    """When this fails, GX reads its results in time (#11579): delete suites.patch_gx and this file."""
    result = validate()
    assert not result.success
    assert "raised_exception" in str(result.exception_info)


def test_patching_twice_is_once() -> None:
    from great_expectations.execution_engine import SqlAlchemyExecutionEngine as Engine

    suites.patch_gx()
    once = Engine._execute_query_with_recovery
    suites.patch_gx()
    assert Engine._execute_query_with_recovery is once


def test_telemetry_is_off() -> None:
    suites.load_gx()
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
