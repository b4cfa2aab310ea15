"""The flights of January 2014: caught up in steps as from scratch, and trained on; the naive staging beside it."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from tests.conftest import know_project, make_settings
from tests.unit.prepare.test_transform import differences
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.prepare import datasets, features, frame, ingest, transform
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, find
from tiltyard.train import training

NIGHTS = [clock.parse_as_of(night) for night in ("2014-01-07", "2014-01-08", "2014-01-16")]
NAIVE = ROOT / "tests" / "naive" / "flights"
TABLES = (
    "staging.stg_flights__flight", "staging.stg_flights__weather", "spines.spn_flight_due",
    "features.ftr_flight__schedule", "features.ftr_airport__weather", "features.ftr_airport__load",
    "features.ftr_carrier__load", "features.ftr_aircraft__legs", "labels.lbl_flight_delay",
)  # fmt: skip


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, data_mirror: Path) -> Settings:
    """A home with the deliveries until the last night; the fifth of January came two days late."""
    settings = make_settings(
        tmp_path_factory.mktemp("flights"), postgres_url, sources=("flights",), data_mirror=data_mirror
    )
    know_project(settings, postgres_url)
    datasets.fetch(settings, "flights")
    for path in (settings.landing / "flights").rglob("*.csv"):
        if path.stem >= str(NIGHTS[-1].date()):
            path.unlink()
    late = settings.landing / "flights" / "flight" / "2014-01-05.csv"
    late.rename(late.with_name("2014-01-07-late.csv"))
    return settings


@pytest.fixture(scope="module")
def caught_up(landed: Settings) -> Iterator[Rails]:
    """The honest project, built in three steps."""
    with rails_module.opened(landed) as rails:
        for night in NIGHTS[:-1]:
            assert not ingest.land_night(rails, "flights", night).quarantined
            transform.build(rails, ["flights"], night)
        features.build_night(rails, NIGHTS[-1], render=False)
        yield rails


@pytest.fixture(scope="module")
def spec() -> Spec:
    return find(ROOT / "models", "flight_delay")


def test_catching_up_equals_building_from_scratch(caught_up: Rails) -> None:
    before = caught_up.lake.snapshot()
    transform.build(caught_up, ["flights"], NIGHTS[-1], full_refresh=True)
    after = caught_up.lake.snapshot()
    assert {table: differences(caught_up, table, before, after) for table in TABLES} == dict.fromkeys(TABLES, 0)


def test_every_flight_with_a_schedule_is_asked_about_and_answered(caught_up: Rails) -> None:
    """The published row says nothing of its end; the row of the end says when it landed wherever it did."""
    counts = caught_up.lake.query(
        """
        select count(distinct flight_id) as flights, count(landed_at) as landed,
            count(distinct flight_id) filter (scheduled_departure_at is null) as cancelled,
            count(*) filter (departure_delay_minutes is not null and available_at < scheduled_departure_at) as foreseen
        from {staging.stg_flights__flight}
        where flight_date < '2014-01-14'
        """,
        NIGHTS[-1],
    ).iloc[0]
    answered = caught_up.lake.query(
        """
        select count(*) as due, count(label) as answered
        from {spines.spn_flight_due} left join {labels.lbl_flight_delay} using (flight_id, prediction_time)
        where flight_id < '2014-01-14'
        """,
        NIGHTS[-1],
    ).iloc[0]
    assert counts["foreseen"] == 0
    assert counts["flights"] - counts["cancelled"] == answered["due"] == answered["answered"]
    assert 0 < answered["due"] - counts["landed"] < 100  # diverted


def test_the_honest_frame_trains(caught_up: Rails, spec: Spec) -> None:
    """Every view has something to say, and the model learns from it what an honest one can."""
    result = training.train(caught_up, spec, NIGHTS[-1], requested_by="test", trials=1)
    assert result.trained
    assert 0.55 < result.metrics.auc.value < 0.8
    rows = frame.training(caught_up, spec, NIGHTS[-1]).read()
    assert rows[[f"{view}__available_at" for view in spec.prediction.features]].notna().mean().min() > 0.5
    assert (rows["prediction_time"] - rows["ftr_airport__weather__available_at"]).median() < timedelta(hours=1)


def test_the_naive_staging_takes_the_columns_as_they_lie(
    landed: Settings, spec: Spec, tmp_path: Path, postgres_url: str
) -> None:
    shutil.copytree(ROOT / "dbt", tmp_path / "dbt")
    shutil.copytree(NAIVE / "models", tmp_path / "dbt" / "models", dirs_exist_ok=True)
    lies = yaml.safe_load((NAIVE / "lies.yaml").read_text())
    settings = make_settings(tmp_path, postgres_url, sources=("flights",), dbt=tmp_path / "dbt")
    know_project(settings, postgres_url)
    shutil.copytree(landed.landing / "flights", settings.landing / "flights")
    with rails_module.opened(settings) as rails:
        ingest.land_night(rails, "flights", NIGHTS[-1])
        transform.build(rails, ["flights"], NIGHTS[-1])
        made = frame.training(rails, spec, NIGHTS[-1])
        rows = made.read()
    assert lies["model"] == spec.name
    assert set(lies["lies"].values()) <= {feature.name for feature in made.features}
    assert rows[list(lies["lies"].values())].notna().mean().min() > 0.95
