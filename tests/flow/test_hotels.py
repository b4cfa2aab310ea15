"""Hotel bookings through the rails: delivered in two parts, built, trained on; and the naive staging beside it."""

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import know_project, make_settings
from tiltyard import rails as rails_module
from tiltyard.prepare import datasets, frame, ingest, transform
from tiltyard.prepare.frame import TrainingFrame
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.train import leakage_gate, training

NAIVE = ROOT / "tests" / "naive" / "hotels"
LIES = yaml.safe_load((NAIVE / "lies.yaml").read_text(encoding="utf-8"))
SPEC = find(ROOT / "models", LIES["model"])
FIRST, LAST = date(2015, 10, 1), date(2015, 11, 30)
NIGHTS = [datetime(2015, 11, 10, tzinfo=UTC), datetime(2015, 12, 1, tzinfo=UTC)]


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory, data_mirror: Path) -> Path:
    """The deliveries of two months."""
    settings = Settings(home=tmp_path_factory.mktemp("hotels"), data_mirror=data_mirror, sources=("hotels",))
    datasets.fetch(settings, "hotels")
    for path in settings.landing.rglob("*.csv"):
        if not FIRST <= date.fromisoformat(path.stem) <= LAST:
            path.unlink()
    return settings.landing


def home(folder: Path, postgres_url: str, delivered: Path) -> Settings:
    settings = make_settings(folder, postgres_url, sources=("hotels",))
    know_project(settings, postgres_url)
    shutil.copytree(delivered, settings.landing)
    return settings


@pytest.fixture(scope="module")
def honest(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, delivered: Path
) -> Iterator[tuple[Rails, TrainingFrame]]:
    """Built in two steps, the second bringing the first up to date."""
    settings = home(tmp_path_factory.mktemp("honest"), postgres_url, delivered)
    with rails_module.opened(settings) as rails:
        for night in NIGHTS:
            assert not ingest.land_night(rails, "hotels", night).quarantined
            transform.build(rails, ("hotels",), night)
        yield rails, frame.training(rails, SPEC, NIGHTS[-1])


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, delivered: Path) -> pd.DataFrame:
    """The training frame of the same model over the naive staging, built in one go."""
    folder = tmp_path_factory.mktemp("naive")
    shutil.copytree(ROOT / "dbt", folder / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(NAIVE, folder / "dbt", dirs_exist_ok=True)
    settings = home(folder, postgres_url, delivered).model_copy(update={"dbt": folder / "dbt"})
    with rails_module.opened(settings) as rails:
        ingest.land_night(rails, "hotels", NIGHTS[-1])
        transform.build(rails, ("hotels",), NIGHTS[-1])
        return frame.training(rails, SPEC, NIGHTS[-1]).read()


def test_only_whole_cohorts_teach_and_nothing_in_them_was_known_too_late(honest: tuple[Rails, TrainingFrame]) -> None:
    rails, learned = honest
    rows = learned.read()
    assert learned.unlabelled == 0
    assert len(rows) > 3_000
    assert rows["prediction_time"].max() <= pd.Timestamp(NIGHTS[-1] - SPEC.label.horizon)
    assert 0.05 < rows["label"].mean() < 0.2
    assert not leakage_gate.check_frame(rails, SPEC, learned, NIGHTS[-1], render=False).critical_failures


def test_a_model_comes_of_it(honest: tuple[Rails, TrainingFrame]) -> None:
    rails, learned = honest
    fence = rails.ledger.claim(f"training/{SPEC.name}/test")
    outcome = training.train_on(rails, SPEC, NIGHTS[-1], learned, fence=fence, requested_by="a test", trials=1)
    assert outcome.trained
    assert outcome.metrics.auc.value > 0.6


def test_the_rules_of_the_project_hold(honest: tuple[Rails, TrainingFrame]) -> None:
    nodes = transform.invoke(honest[0].settings, "test", "--select", "source:hotels+,test_type:unit")
    assert {node.status for node in nodes} == {"pass"}
    assert {node.name for node in nodes} >= {"a_booking_says_what_it_said_when_it_was_made"}


def test_the_naive_frame_is_the_honest_one_with_the_lies_in_it(
    honest: tuple[Rails, TrainingFrame], naive: pd.DataFrame
) -> None:
    """All else is equal, so that catching up gives what one build gives."""
    told = [*LIES["lies"].values(), *LIES["doubtful"].values()]
    assert not set(told) & set(honest[1].read())
    assert all(naive[column].nunique() > 1 for column in told)
    pd.testing.assert_frame_equal(naive.drop(columns=told), honest[1].read())
