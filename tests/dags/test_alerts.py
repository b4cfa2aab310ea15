"""The alerts DAG: when it starts, and how its task ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk import AssetOrTimeSchedule
from airflow.sdk.definitions.asset import AssetAny
from airflow.sdk.exceptions import AirflowSkipException

from tests.conftest import make_settings
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.edge import orchestration, work
from tiltyard.rails import Rails
from tiltyard.records import AcceptedRelease, RefusedText
from tiltyard.settings import ROOT

ROUTE = "\nroutes: [{to: [env:NOBODY_HAS_SET_THIS]}]\n"


@pytest.fixture
def home(tmp_path: Path, postgres_url: str) -> Iterator[Rails]:
    models = tmp_path / "models"
    models.mkdir()
    (models / "portfolio.yaml").write_text((ROOT / "models" / "portfolio.yaml").read_text())
    settings = make_settings(tmp_path, postgres_url, sources=("subscription",), models=models)
    with rails_module.opened(settings) as rails:
        yield rails


def name_a_route(rails: Rails) -> None:
    rules = rails.settings.models / "portfolio.yaml"
    rules.write_text(rules.read_text() + ROUTE)


def test_it_starts_by_itself_where_a_route_is_named_and_only_there(home: Rails) -> None:
    assert orchestration.alerts_schedule(home.settings) is None
    name_a_route(home)
    schedule = orchestration.alerts_schedule(home.settings)
    assert isinstance(schedule, AssetOrTimeSchedule)
    never = home.settings.model_copy(update={"alerts_schedule": "none"})
    assert isinstance(orchestration.alerts_schedule(never), AssetAny), "a stage that is over still starts it"
    (home.settings.models / "portfolio.yaml").write_text("routes: [")
    assert orchestration.alerts_schedule(home.settings) is None, "a text that cannot be read stops no DAG file"


def test_its_task_is_skipped_without_a_route_and_red_where_nobody_could_be_told(home: Rails) -> None:
    with pytest.raises(AirflowSkipException, match=r"No route is named in models/portfolio\.yaml"):
        work.tell(home, clock.now())
    name_a_route(home)
    assert work.tell(home, clock.now())["standing"] == 0
    refused = RefusedText(path="models/x", reason="why", stands=False)
    home.ledger.accept(
        AcceptedRelease(digest="0" * 64, checkout="0" * 64, accepted_at=clock.now(), files=0, refused=(refused,))
    )
    with pytest.raises(RuntimeError, match="NOBODY_HAS_SET_THIS is not set; put an address of Apprise there"):
        work.tell(home, clock.now())
