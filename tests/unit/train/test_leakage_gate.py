"""Leakage rules: a frame or a table that tells the future is caught, whatever its columns are called."""

import hashlib
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tests.lakes import FEATURES, LABELS, SPINES, fill, instant, small_spec
from tiltyard.leak import rules
from tiltyard.leak.rules import Declared, RuleResult, WrittenLater
from tiltyard.prepare import frame
from tiltyard.rails import Rails
from tiltyard.train import leakage_gate

NOON = instant("2024-02-01 12:00")
LATER = NOON + timedelta(days=35)


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    opened = duckdb.connect()
    opened.execute("set TimeZone = 'UTC'")
    return opened


def found(findings: list[RuleResult]) -> dict[tuple[str, str], int]:
    return {(finding.rule, finding.column): finding.violations for finding in findings if finding.violations}


def dated(
    connection: duckdb.DuckDBPyConnection, rows: str, planned: tuple[str, ...] = (), *written_later: WrittenLater
) -> list[RuleResult]:
    connection.execute(f"create or replace table t as {rows}")
    columns = {name: kind for name, kind, *_ in connection.execute("describe t").fetchall()}
    return rules.dated(connection, "staging.t", "t", columns, Declared(planned, written_later))


# |  row       | available_at | resolved_at |                                  |
# |  as it was | 1 Feb 12:00  | -           |                                  |
# |  back-fill | 1 Feb 12:00  | 7 Mar 12:00 | tells the end of the ticket: out |


def test_a_back_filled_time_is_caught_with_how_far_ahead_it_is(connection: duckdb.DuckDBPyConnection) -> None:
    findings = dated(
        connection,
        f"""select timestamptz '{NOON}' as available_at, timestamptz '{NOON}' as event_time,
            unnest([null, timestamptz '{LATER}']) as anything, timestamptz '{LATER}' as ingested_at""",
    )
    assert found(findings) == {("later_than_available_at", "anything"): 1}
    [finding] = [finding for finding in findings if finding.violations]
    assert (finding.rows, finding.worst) == (1, "by 35 days")


@pytest.mark.parametrize(
    ("value", "caught"),
    [
        ("timestamp '2024-02-01 12:00:00'", False),
        ("timestamp '2024-02-01 12:00:01'", True),  # without a zone: UTC
        ("timestamp_ms '2024-02-01 12:00:01'", True),
        ("date '2024-02-01'", False),
        ("date '2024-02-02'", True),
        ("'2024-02-02'", False),  # text is no instant
        ("null::timestamptz", False),
    ],
)
def test_every_kind_of_instant_is_judged(connection: duckdb.DuckDBPyConnection, value: str, caught: bool) -> None:
    findings = dated(connection, f"select timestamptz '{NOON}' as available_at, {value} as x")
    assert bool(found(findings)) is caught


def test_an_instant_known_ahead_is_declared(connection: duckdb.DuckDBPyConnection) -> None:
    rows = f"select timestamptz '{NOON}' as available_at, timestamptz '{LATER}' as due_at"
    assert found(dated(connection, rows))
    assert not found(dated(connection, rows, planned=("due_at",)))


# |  available_at | sent  | sent_at     |                                   |
# |  1 Feb 12:00  | -     | -           | as it was booked                  |
# |  7 Mar 12:00  | true  | 7 Mar 12:00 | as it was written                 |
# |  1 Feb 12:00  | true  | 7 Mar 12:00 | it was not written yet            |
# |  1 Feb 12:00  | true  | -           | nobody says when it was written   |


@pytest.mark.parametrize("is_day", [False, True])
def test_what_is_written_later_is_not_in_a_row_from_before(connection: duckdb.DuckDBPyConnection, is_day: bool) -> None:
    times = [f"(timestamptz '{NOON}', null, null)", f"(timestamptz '{LATER}', true, timestamptz '{LATER}')"]
    early = [f"(timestamptz '{NOON}', true, timestamptz '{LATER}')", f"(timestamptz '{NOON}', true, null)"]
    written = WrittenLater("sent", "sent_at::date" if is_day else "sent_at", is_day)
    for rows, violations in ((times, 0), ([*times, *early], 2)):
        values = (
            f"select available_at, sent, sent_at from (values {', '.join(rows)}) as t (available_at, sent, sent_at)"
        )
        counted = found(dated(connection, values, ("sent_at",), written))
        assert counted.get(("used_before_written", "sent"), 0) == violations


def test_rows_that_cannot_be_dated_are_counted(connection: duckdb.DuckDBPyConnection) -> None:
    findings = dated(connection, "select unnest([null, now()]) as available_at")
    assert found(findings) == {("null_available_at", "available_at"): 1}


def gate(rails: Rails, tmp_path: Path, change: str = "select * from frame") -> dict[str, list[str]]:
    """Findings of the gate on a frame of twenty visits after `change`: rule → columns. The real rule, the real lake."""
    spec = small_spec(tmp_path)
    days = [instant("2024-02-01") + timedelta(days=number) for number in range(20)]
    if not rails.lake.has(SPINES):
        fill(rails, SPINES, [{"visit_id": f"v{n}", "shop_id": "s", "prediction_time": d} for n, d in enumerate(days)])
        states = [{"shop_id": "s", "size": n % 7, "mood": "calm", "is_open": True} for n in range(20)]
        fill(rails, FEATURES, [{**row, "event_time": d} for row, d in zip(states, days, strict=True)])
        known = timedelta(days=1)
        labels = [{"visit_id": f"v{n}", "prediction_time": d, "label": n % 3 == 0} for n, d in enumerate(days)]
        fill(rails, LABELS, [{**row, "event_time": d + known} for row, d in zip(labels, days, strict=True)])
    made = frame.training(rails, spec, instant("2024-03-01"))
    path = tmp_path / "changed.parquet"
    duckdb.sql("set TimeZone = 'UTC'")
    duckdb.sql(f"copy (with frame as (from read_parquet('{made.path}')) {change}) to '{path}' (format parquet)")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    changed = frame.TrainingFrame(**{**vars(made), "path": path, "digest": digest})
    report = leakage_gate.check_frame(rails, spec, changed, render=False)
    return {result.name: (result.column or "").split(", ") for result in report.critical_failures}


CHANGES = {
    "select * replace (prediction_time + interval 1 second as ftr_shop__state__available_at) from frame":
        {"features_known_at_prediction_time": ["ftr_shop__state__available_at"]},
    "select * replace (prediction_time + interval 1 second as ftr_shop__state__event_time) from frame":
        {"features_known_at_prediction_time": ["ftr_shop__state__event_time"]},
    "select * replace (null::timestamptz as ftr_shop__state__available_at) from frame":
        {"available_at_of_every_feature_used": ["ftr_shop__state__available_at"]},
    "from frame union all from frame": {"one_row_per_prediction": ["visit_id"]},
    "select * replace (label::bigint as size) from frame": {"label_not_among_features": ["size"]},
    "select * replace (not label as is_open) from frame": {"label_not_among_features": ["is_open"]},
    "select * replace (case when visit_id <> 'v1' then label end as label) from frame":
        {"labels_to_have_matured": ["label"]},
}  # fmt: skip


def test_the_gate_before_training(rails: Rails, tmp_path: Path) -> None:
    """A good frame passes; every change to it is stopped for its own reason, and for no other."""
    assert gate(rails, tmp_path) == {}
    for change, expected in CHANGES.items():
        assert gate(rails, tmp_path, change) == expected, change


def test_repeated_keys_are_found_by_hash_and_told_by_key(connection: duckdb.DuckDBPyConnection) -> None:
    """Names that a query might use itself (n, h) are only names; a NULL equals a NULL."""
    connection.execute("create table t as select * from (values (1, 2), (1, 2), (1, 3), (null, 3), (null, 3)) t (n, h)")
    rows = connection.execute(f"from ({rules.repeats('t', ('n', 'h'))}) order by n").fetchall()
    assert rows == [(1, 2), (None, 3)]


def test_the_gate_weighs_what_the_data_itself_tells(rails: Rails, tmp_path: Path) -> None:
    """400 visits: `size` tells the label too well; the warning says how well, and training goes on."""
    spec = small_spec(tmp_path)
    days = [instant("2024-01-02") + timedelta(hours=3 * number) for number in range(400)]
    fill(rails, SPINES, [{"visit_id": f"v{n}", "shop_id": "s", "prediction_time": d} for n, d in enumerate(days)])
    told = [number % 3 == 0 for number in range(400)]
    states = [{"shop_id": "s", "size": 7 * t + n % 2, "mood": "calm", "is_open": n % 5 > 2} for n, t in enumerate(told)]
    fill(rails, FEATURES, [{**row, "event_time": d} for row, d in zip(states, days, strict=True)])
    labels = [{"visit_id": f"v{n}", "prediction_time": d, "label": told[n]} for n, d in enumerate(days)]
    fill(rails, LABELS, [{**row, "event_time": d + timedelta(days=1)} for row, d in zip(labels, days, strict=True)])
    made = frame.training(rails, spec, instant("2024-03-01"))
    report = leakage_gate.check_frame(rails, spec, made)
    assert report.success
    assert {(one.name, one.column) for one in report.warnings} == {("no_statistical_evidence_of_leakage", "size")}
    [warning] = report.warnings
    assert "size: too_good: " in warning.detail
    assert "no statistical evidence of leakage" in (rails.settings.reports / str(report.report_path)).read_text()
    few = leakage_gate.check_frame(rails, spec, frame.training(rails, spec, instant("2024-01-05")), render=False)
    assert {one.observed.split(":")[0] for one in few.results if "evidence" in one.name} == {"not judged"}


def test_the_gate_stops_cohorts_that_have_not_matured(rails: Rails, tmp_path: Path) -> None:
    gate(rails, tmp_path)
    spec = small_spec(tmp_path)
    made = frame.training(rails, spec, instant("2024-03-01"))
    report = leakage_gate.check_frame(rails, spec, made, instant("2024-02-15"))
    [failure] = report.critical_failures
    assert (failure.name, failure.column) == ("labels_to_have_matured", "prediction_time")
    assert (rails.settings.reports / str(report.report_path)).exists()
    kept = pd.DataFrame(rails.lake.query("select * from {ops.check_result}", instant("2024-03-01")))
    assert set(kept["suite"]) == {"training_frame"}
