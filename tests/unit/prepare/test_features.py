"""The features stage: how a night ends that goes wrong before it is judged."""

from pathlib import Path

import pytest

from tests.conftest import make_settings
from tests.lakes import instant
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.prepare import features
from tiltyard.records import FeaturesSummary
from tiltyard.settings import Settings

AS_OF = instant("2025-02-03")
NIGHT = night_closing(AS_OF)


@pytest.fixture
def settings(tmp_path: Path, postgres_url: str) -> Settings:
    return make_settings(tmp_path, postgres_url, sources=("elsewhere",))


@pytest.mark.parametrize("step", [features.ingest, features.transform])
def test_a_step_that_fails_leaves_a_record_of_the_stage(rails: rails_module.Rails, step: object) -> None:
    with pytest.raises(BadInput, match="elsewhere") as refusal:
        step(rails, AS_OF)  # type: ignore[operator]  # either of the two
    run = rails.ledger.features_run("elsewhere", NIGHT)
    assert run is not None
    assert (run.status, run.summary.reason) == ("failed", str(refusal.value))
    assert rails.ledger.newest_published() is None
    assert rails.ledger.models() == set(), "a source is no model"


def test_a_night_that_was_done_stays_done_when_a_step_of_it_fails_later(rails: rails_module.Rails) -> None:
    rails.ledger.record_stage("elsewhere", NIGHT, "done", FeaturesSummary(night=NIGHT, snapshot=1))
    with pytest.raises(BadInput):
        features.ingest(rails, AS_OF)
    assert rails.ledger.published_nights() == {NIGHT}


def test_a_batch_that_was_not_judged_is_not_published(rails: rails_module.Rails) -> None:
    rails.ledger.record_stage("", NIGHT, "done", FeaturesSummary(night=NIGHT, snapshot=1))  # all sources at once
    with pytest.raises(BadInput, match="run tiltyard features --source elsewhere --as-of 2025-02-03"):
        features.publish(rails, "elsewhere", AS_OF)
