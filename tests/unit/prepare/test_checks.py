"""The suites on a real lake: a good batch passes, a bad one fails for the reason that is in it.

One lake holds four weeks of nights; the last ones are bad, each in its own way.
"""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import make_settings
from tests.lakes import FEATURES, LABELS, SPINES, fill, instant, small_spec
from tiltyard import rails as rails_module
from tiltyard import suites
from tiltyard.errors import BadInput
from tiltyard.prepare import checks, contracts
from tiltyard.rails import Rails
from tiltyard.settings import ROOT
from tiltyard.spec import Spec
from tiltyard.suites import gx
from tiltyard.tables import Table

DAY = timedelta(days=1)
FIRST = instant("2024-02-05")  # a Monday
GOOD = FIRST + 28 * DAY
"""The night that closes here is like the Sundays before it, and so are the nights up to it."""
COLLAPSED, WILD, UNDATED, EMPTY = (GOOD + number * DAY for number in (1, 2, 3, 4))

SUITE = """
meta: {may_be_empty: false}
expectations:
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: {$PARAMETER: usual_rows * 0.1}}
    severity: critical
    meta: {why: "Collapsed volume."}
  - type: expect_column_values_to_be_between
    kwargs: {column: size, min_value: 0, max_value: 1000}
    severity: critical
    meta: {why: "A size."}
  - type: expect_column_values_to_be_in_set
    kwargs: {column: mood, value_set: [calm, busy]}
    severity: warning
    meta: {why: "Moods there are."}
"""
PREDICTION = {
    "request_id": "varchar", "model": "varchar", "version": "integer", "role": "varchar", "entity_id": "varchar",
    "prediction_time": "timestamptz", "score": "double", "tier": "varchar", "night": "date",
    "available_at": "timestamptz",
}  # fmt: skip


def states(day: int, count: int, **values: Any) -> list[dict[str, Any]]:
    at = FIRST + day * DAY
    return [
        {
            "shop_id": f"s{n}",
            "size": n,
            "mood": "calm",
            "is_open": True,
            "event_time": at + timedelta(minutes=n),
            **values,
        }
        for n in range(1, count + 1)
    ]


def update(day: int, count: int, **values: Any) -> pd.DataFrame:
    """Rows of raw.incident_update as ingest leaves them; only the times matter here."""
    at = [FIRST + day * DAY + timedelta(minutes=n) for n in range(1, count + 1)]
    frame = pd.DataFrame({"number": [f"INC{n}" for n in range(count)], "event_time": at, "available_at": at})
    landed = {"ingested_at": FIRST + 400 * DAY, "landed_night": (FIRST + (day + 1) * DAY).date()}
    frame = frame.assign(**{**landed, "source_file": "f", "row_number": range(count), **values})
    return frame.astype(dict.fromkeys(("event_time", "available_at", "ingested_at"), "datetime64[us, UTC]"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checks")
    shutil.copytree(ROOT / "expectations", folder / "expectations")
    (folder / "expectations" / "features" / "ftr_shop__state.yaml").write_text(SUITE)
    return folder


@pytest.fixture(scope="module")
def spec(home: Path) -> Spec:
    return small_spec(home)


@pytest.fixture(scope="module")
def rails(home: Path, postgres_url: str) -> Iterator[Rails]:
    settings = make_settings(home, postgres_url, expectations=home / "expectations")
    with rails_module.opened(settings) as opened:
        fill(opened, FEATURES, [row for day in range(28) for row in states(day, 20)])
        fill(opened, FEATURES, states(28, 1))
        fill(opened, FEATURES, states(29, 20, size=5000, mood="grim"))
        fill(opened, FEATURES, states(30, 10) + states(30, 10, available_at=None))
        contract = contracts.read(opened.settings, "incident").tables[0]
        opened.lake.ensure(Table(contract.raw, contract.raw_columns))
        nights = [update(day, 20) for day in range(28)]
        nights += [update(29, 20, ingested_at=FIRST), update(30, 20, available_at=None)]
        opened.lake.replace(contract.raw, {}, pd.concat(nights), message="updates")
        yield opened


def failures(report: checks.CheckReport) -> set[tuple[str, str | None]]:
    return {(result.name, result.column) for result in report.critical_failures}


# -- features ---------------------------------------------------------------------------------


def test_a_good_batch_passes(rails: Rails, spec: Spec) -> None:
    report = checks.check_batch(rails, "features", GOOD, spec=spec)
    assert report.success
    assert not report.warnings
    assert {result.table for result in report.results} == {"ftr_shop__state"}
    assert len(report.results) == 4


def test_values_out_of_range_stop_and_unknown_words_warn(rails: Rails, spec: Spec) -> None:
    report = checks.check_batch(rails, "features", WILD, spec=spec)
    assert failures(report) == {("column_values_to_be_between", "size")}
    [warning] = report.warnings
    assert (warning.column, warning.observed) == ("mood", "20 of 20 rows (100.0 %)")
    assert "grim" in warning.detail


def test_collapsed_volume_stops(rails: Rails, spec: Spec) -> None:
    report = checks.check_batch(rails, "features", COLLAPSED, spec=spec)
    assert failures(report) == {("table_row_count_to_be_between", None)}


def test_an_empty_batch_stops_unless_the_suite_says_it_may_be_empty(rails: Rails, spec: Spec, home: Path) -> None:
    path = home / "expectations" / "features" / "ftr_shop__state.yaml"
    failed = checks.check_batch(rails, "features", EMPTY, spec=spec).critical_failures
    way_out = "say so in features/ftr_shop__state.yaml: `meta: {may_be_empty: true}`"
    assert any(way_out in result.detail for result in failed)
    try:
        path.write_text(
            "meta: {may_be_empty: true}\n" + SUITE.split("\n", 2)[2].replace("usual_rows", "0 * usual_rows")
        )
        assert checks.check_batch(rails, "features", EMPTY, spec=spec).success
    finally:
        path.write_text(SUITE)


def test_a_weekday_on_which_nothing_ever_comes_may_be_empty_but_not_its_whole_week(rails: Rails, spec: Spec) -> None:
    """From April on, one row a week: every other weekday is one on which nothing comes."""
    fill(rails, FEATURES, [row for week in range(8, 13) for row in states(7 * week, 1)])
    end = FIRST + 12 * 7 * DAY
    assert checks.check_batch(rails, "features", end + 3 * DAY, spec=spec).success
    assert failures(checks.check_batch(rails, "features", end + 9 * DAY, spec=spec))


def test_a_view_without_a_suite_is_held_to_the_default(rails: Rails, spec: Spec, home: Path) -> None:
    path = home / "expectations" / "features" / "ftr_shop__state.yaml"
    try:
        path.unlink()
        assert checks.check_batch(rails, "features", GOOD, spec=spec).success
        assert not checks.check_batch(rails, "features", EMPTY, spec=spec).success
    finally:
        path.write_text(SUITE)


def test_nothing_is_usual_yet_in_the_first_weeks(rails: Rails, spec: Spec) -> None:
    assert checks.check_batch(rails, "features", FIRST + DAY, spec=spec).success


def test_a_snapshot_reads_what_the_lake_held(rails: Rails, spec: Spec) -> None:
    before = rails.lake.snapshot()
    fill(rails, FEATURES, states(27, 5, size=9999))
    try:
        assert not checks.check_batch(rails, "features", GOOD, spec=spec).success
        assert checks.check_batch(rails, "features", GOOD, spec=spec, snapshot=before).success
    finally:
        rails.lake.connection.execute(f"delete from lake.{FEATURES} where size = 9999")


# -- freshness --------------------------------------------------------------------------------


def test_a_fresh_source_passes(rails: Rails) -> None:
    report = checks.check_batch(rails, "freshness", GOOD, source="incident")
    assert report.success and not report.warnings
    assert report.model == ""


def test_a_night_without_deliveries_stops(rails: Rails) -> None:
    report = checks.check_batch(rails, "freshness", COLLAPSED, source="incident")
    assert failures(report) == {("column_values_to_be_between", "volume_ratio")}


def test_rows_written_after_they_were_read_stop(rails: Rails) -> None:
    report = checks.check_batch(rails, "freshness", WILD, source="incident")
    assert failures(report) == {("column_values_to_be_between", "dated_after_ingest")}


def test_rows_that_cannot_be_dated_are_never_read_and_stop(rails: Rails) -> None:
    report = checks.check_batch(rails, "freshness", UNDATED, source="incident")
    assert ("column_values_to_be_between", "undated_share") in failures(report)


# -- leakage ----------------------------------------------------------------------------------


def test_undated_feature_rows_are_counted_and_warn(rails: Rails, spec: Spec) -> None:
    fill(rails, SPINES, [{"visit_id": "v", "shop_id": "s1", "prediction_time": GOOD - DAY}])
    fill(rails, LABELS, [{"visit_id": "v", "prediction_time": GOOD - DAY, "label": True, "event_time": GOOD}])
    good = checks.check_batch(rails, "leakage", GOOD, spec=spec)
    assert good.success and not good.warnings
    report = checks.check_batch(rails, "leakage", UNDATED, spec=spec)
    assert report.success
    [warning] = report.warnings
    assert (warning.table, warning.column) == (FEATURES, "available_at")
    assert "10 of" in warning.detail


# -- predictions ------------------------------------------------------------------------------


def predictions(rails: Rails, spec: Spec, **values: Any) -> pd.DataFrame:
    night = GOOD.date()
    asked = [
        {"visit_id": f"p{n}", "shop_id": "s1", "prediction_time": GOOD - DAY + timedelta(minutes=n)} for n in range(30)
    ]
    rails.lake.connection.execute(f"delete from lake.{SPINES}")
    fill(rails, SPINES, asked)
    rows = pd.DataFrame(
        [
            {
                "request_id": f"{role}{n}", "model": spec.name, "version": version, "role": role,
                "entity_id": row["visit_id"], "prediction_time": row["prediction_time"], "score": n / 40,
                "tier": role, "night": night, "available_at": GOOD,
            }
            for role, version in (("champion", 1), ("challenger", 2))
            for n, row in enumerate(asked)
        ]
    )  # fmt: skip
    return rows.assign(**values)


def put(rails: Rails, rows: pd.DataFrame) -> None:
    rails.lake.ensure(Table("ops.prediction", PREDICTION))
    rails.lake.replace("ops.prediction", {"night": GOOD.date()}, rows, message="predictions")


def test_a_whole_night_of_predictions_passes(rails: Rails, spec: Spec) -> None:
    put(rails, predictions(rails, spec))
    report = checks.check_batch(rails, "predictions", GOOD, spec=spec)
    assert report.success and not report.warnings
    assert report.model == spec.name


@pytest.mark.parametrize(
    ("fault", "count"),
    [
        ("missing", 1), ("twice", 1), ("stale", 1), ("null", 1), ("above_one", 1), ("constant", 1),
    ],
)  # fmt: skip
def test_bad_predictions_stop(rails: Rails, spec: Spec, fault: str, count: int) -> None:
    rows = predictions(rails, spec)
    if fault == "missing":
        rows = rows[rows["request_id"] != "champion3"]
    elif fault == "twice":
        rows = pd.concat([rows, rows[rows["request_id"] == "champion3"].assign(role="safe_default", version=None)])
    elif fault == "stale":
        rows = pd.concat([rows, rows.tail(1).assign(entity_id="nobody")])
    elif fault == "null":
        rows.loc[3, "score"] = None
    elif fault == "above_one":
        rows.loc[3, "score"] = 1.5
    else:
        rows.loc[rows["role"] == "challenger", "score"] = 0.5
    put(rails, rows)
    report = checks.check_batch(rails, "predictions", GOOD, spec=spec)
    assert len(report.critical_failures) == count, [str(failure) for failure in report.critical_failures]


# -- results and pages ------------------------------------------------------------------------


def test_results_are_kept_once_however_often_the_night_is_judged(rails: Rails, spec: Spec) -> None:
    for _ in range(2):
        report = checks.check_batch(rails, "features", WILD, spec=spec)
    kept = rails.lake.query("select * from {ops.check_result} where suite = 'features'", WILD)
    kept = kept[pd.to_datetime(kept["night"]).dt.date == report.night]
    assert len(kept) == len(report.results)
    assert set(kept.loc[~kept["success"], "severity"]) == {"critical", "warning"}
    assert set(kept["model"]) == {spec.name}


def test_no_copy_of_a_batch_stays_behind(rails: Rails, spec: Spec) -> None:
    checks.check_batch(rails, "features", GOOD, spec=spec)
    with gx.session(rails.settings).engine.connect() as connection:
        left = connection.exec_driver_sql(
            "select count(*) from duckdb_tables() where database_name = 'memory'"
        ).scalar()
    assert left == 0


# -- bad input --------------------------------------------------------------------------------


def test_an_unknown_suite_is_named(rails: Rails) -> None:
    with pytest.raises(BadInput, match=r"no suite 'freshnes'; the suites are freshness, features"):
        checks.check_batch(rails, "freshnes", GOOD)


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("expect_column_values_to_be_betwen", "expect_column_values_to_be_between",
         r"ftr_shop__state.yaml:8: there is no expectation 'expect_column_values_to_be_betwen'; did you mean"),
        ("column: sise", "column: size", r"yaml:8: .*has no column 'sise'; did you mean 'size'"),
        ("usual_row *", "usual_rows *", r"yaml:4: .*\$PARAMETER: usual_row is not known here"),
        ("severity: fatal", "severity: warning", r"yaml:12: .*severity must be critical"),
        ("max_valeu: 1000", "max_value: 1000", r"yaml:8: expect_column_values_to_be_between: .*max_valeu"),
        ("expectation:", "expectations:", r"yaml:1: a suite is a mapping with a list of 'expectations'"),
        ('because: "A size."', 'why: "A size."', r"yaml:8: .*meta\.why"),
        ("[calm, busy", "[calm, busy]", r"yaml:1\d: not readable as YAML"),
        ("may_be_emty", "may_be_empty", r"yaml:\d: meta\.may_be_emty: unknown field; did you mean 'may_be_empty'"),
        ("planned", "may_be_empty", r"yaml:\d: meta\.planned: say it of the column in its \.yml"),
    ],
)  # fmt: skip
def test_a_typo_in_a_suite_is_one_sentence_with_its_line(
    rails: Rails, spec: Spec, home: Path, wrong: str, right: str, message: str
) -> None:
    path = home / "expectations" / "features" / "ftr_shop__state.yaml"
    try:
        path.write_text(SUITE.replace(right, wrong))
        with pytest.raises(BadInput, match=message):
            checks.check_batch(rails, "features", GOOD, spec=spec)
    finally:
        path.write_text(SUITE)


def test_an_expectation_that_cannot_be_judged_is_named(rails: Rails, spec: Spec, home: Path) -> None:
    path = home / "expectations" / "features" / "ftr_shop__state.yaml"
    try:
        path.write_text(SUITE.replace("column: size", "column: mood"))
        with pytest.raises(
            BadInput, match=r"yaml:8: expect_column_values_to_be_between cannot be judged on ftr_shop__state"
        ):
            checks.check_batch(rails, "features", GOOD, spec=spec)
    finally:
        path.write_text(SUITE)


def test_the_suites_in_the_checkout_are_well_formed() -> None:
    for path in sorted((ROOT / "expectations").rglob("*.yaml")):
        assert suites.load(path).expectations


def test_a_suite_that_was_accepted_before_a_word_was_retired_goes_on(tmp_path: Path) -> None:
    """It is refused when it is to be accepted anew; the tables of a home that is brought up to date are judged."""
    path = tmp_path / "leakage.yaml"
    path.write_text("meta: {planned: [due_at]}\nexpectations: []\n")
    with pytest.raises(BadInput, match=r"leakage.yaml:1: meta\.planned: say it of the column in its \.yml"):
        suites.load(path)
    assert suites.load(path, is_accepted=True).expectations == ()
