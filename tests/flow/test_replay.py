"""The Cancel trigger, end to end: a column that the CRM blanks in place is found, and nothing learns from it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.conftest import know_project, make_settings
from tests.unit.cli.test_cli import tiltyard
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.errors import CheckFailed
from tiltyard.judge import scoring
from tiltyard.prepare import features
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, TrainingSummary
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, find
from tiltyard.train import replay, training

NIGHTS = [clock.parse_as_of(f"2025-01-{day:02d}") for day in (9, 16)]
"""Just after the weekly writing of the CRM: whoever cancels later in that week has this row blanked."""
MATURED = clock.parse_as_of("2025-02-12")
BLANKED = {"has_last_login", "last_login_age_days"}


@contextmanager
def business(
    folder: Path, postgres_url: str, models: Path, *, cancel_trigger: bool, customers: int = 2_500
) -> Iterator[tuple[Rails, Spec]]:
    """Two nights predicted as they came, and what the lake held when their labels had matured.

    The feature view takes the CRM's last log-in as it lies.
    """
    shutil.copytree(ROOT / "dbt", folder / "dbt")
    shutil.copytree(ROOT / "tests" / "naive" / "subscription", folder / "dbt", dirs_exist_ok=True)
    settings = make_settings(folder, postgres_url, models=models, dbt=folder / "dbt", sources=("subscription",))
    know_project(settings, postgres_url)
    Simulator(customers=customers, days=45, cancel_trigger=cancel_trigger).land(settings.landing / "subscription")
    spec = find(models, "churn")
    with rails_module.opened(settings) as rails:
        for as_of in NIGHTS:
            publish(rails, as_of)
            scoring.score_night(rails, spec, as_of)
        publish(rails, MATURED)
        yield rails, spec


def publish(rails: Rails, as_of: datetime) -> None:
    """The features stage of a night, but for its checks."""
    features.ingest(rails, as_of)
    features.transform(rails, as_of)
    rails.ledger.record_stage("", as_of.date(), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))


def environment(settings: Settings) -> dict[str, str]:
    return {"TILTYARD_DBT": str(settings.dbt), "TILTYARD_SOURCES": "subscription"}


def test_the_trigger_is_found_and_nothing_learns_from_it(tmp_path: Path, postgres_url: str, eager_models: Path) -> None:
    with business(tmp_path, postgres_url, eager_models, cancel_trigger=True) as (rails, spec):
        with pytest.raises(CheckFailed, match="last_login") as stopped:
            training.train(rails, spec, MATURED, requested_by="test")
        assert "tells the label" in str(stopped.value)
        assert "written by snapshot" in str(stopped.value)
        assert rails.ledger.versions("churn") == []
        record = rails.ledger.stage_runs(TrainingSummary, "churn")[MATURED.date()]
        assert (record.status, record.summary.replay.verdict) == ("stopped", "fail")
        checks = rails.lake.query(
            "select column_name from {ops.check_result} where suite = 'replay' and not success "
            "and severity = 'critical'",
            MATURED,
        )
        assert set(checks["column_name"].str.split(", ").explode()) == BLANKED

        asked = ["leakage", "replay", "--model", "churn", "--from", "2025-01-01", "--to", "2025-01-31"]
        page = tmp_path / "replay.html"
        told = tiltyard(*asked, "--json", "--report", str(page), settings=rails.settings, **environment(rails.settings))
        assert told.returncode == 1, told.stderr
        found = json.loads(told.stdout)
        assert {finding["feature"] for finding in found["findings"]} == BLANKED
        assert {finding["severity"] for finding in found["findings"]} == {"critical"}
        example = found["findings"][0]["examples"][0]
        assert example["label"] is True
        assert example["then"]["available_at"] < example["now"]["available_at"] < example["prediction_time"]
        assert example["commit"]["message"] == "build features.ftr_customer__profile"
        assert example["origins"][0]["table"] == "raw.customer"
        assert example["origins"][0]["commit"]["message"].startswith("ingest subscription 2025-01-")
        assert example["entity"] in page.read_text()


def test_without_the_trigger_every_value_is_the_one_that_was_there(
    tmp_path: Path, postgres_url: str, eager_models: Path
) -> None:
    with business(tmp_path, postgres_url, eager_models, cancel_trigger=False) as (rails, spec):
        found = replay.check(rails, spec, MATURED, rails.publication(), render=False)
        assert found.verdict == "pass"
        assert found.tested == found.rows == found.matured > 300
        assert [change.tally.feature for change in found.changes if change.tally.changed] == []
        assert found.untested == ()
        summary = training.train(rails, spec, MATURED, requested_by="test")
        assert summary.trained, summary
        assert summary.replay.verdict == "pass"
