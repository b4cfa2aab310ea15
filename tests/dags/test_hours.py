"""Which runs of an hourly source do an hour and which a night, and which hours wait to be answered."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests import bazaar
from tests.lakes import instant
from tiltyard import clock
from tiltyard.edge import hours, orchestration
from tiltyard.ledger_tables import stage_run
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, TableState
from tiltyard.spec import find, portfolio

NIGHT = instant("2025-05-30")
HOUR = timedelta(hours=1)


@pytest.fixture
def shop(rails: Rails, tmp_path: Path, postgres_url: str) -> Rails:
    """The rails with the bazaar's models, of which `till` is answered by the hour; nothing is built."""
    settings = bazaar.settings_of(tmp_path / "bazaar", postgres_url, schedule="none")
    path = settings.models / "till" / "spec.yaml"
    path.write_text(path.read_text().replace("prediction: {", "prediction: {every: 1h, "), encoding="utf-8")
    named = {name: getattr(settings, name) for name in ("models", "dbt", "expectations", "sources")}
    return replace(rails, settings=rails.settings.model_copy(update={**named, "schedule": "none"}))


def settle(rails: Rails, day: str, *tables: str) -> None:
    night = instant(day).date()
    states = [TableState(night=night, table=table, state="published", snapshot=1, good_night=night) for table in tables]
    rails.ledger.publish(states, night, "done", FeaturesSummary(snapshot=1), "shop")


def test_a_run_does_the_hour_that_ended_last_and_first_the_night_before_it(shop: Rails) -> None:
    began = clock.now() + HOUR
    assert hours.as_of(shop, "shop", NIGHT + 7 * HOUR, began) == NIGHT, "the night before it was not done"
    settle(shop, "2025-05-30", "raw.sale")
    for end, as_of in ((0.0, 0), (0.2, 0), (1.0, 1), (7.0, 7), (7.9, 7), (23.5, 23)):
        assert hours.as_of(shop, "shop", NIGHT + end * HOUR, began) == NIGHT + as_of * HOUR
    # what this run has closed itself it goes on with, task by task
    with shop.ledger.engine.begin() as connection:
        connection.execute(stage_run.update().values(recorded_at=began + HOUR))
    assert hours.as_of(shop, "shop", NIGHT + 7 * HOUR, began) == NIGHT
    assert hours.as_of(shop, "web", NIGHT + 7 * HOUR, began) == NIGHT, "no model of it is hourly"


def test_a_source_that_is_looked_for_more_often_than_it_is_answered_closes_its_night_once(shop: Rails) -> None:
    path = shop.settings.models / "till" / "spec.yaml"
    path.write_text(path.read_text().replace("every: 1h", "every: 6h"), encoding="utf-8")
    bazaar.contract(shop.settings, "shop", "schedule: '@hourly'")
    settle(shop, "2025-05-30", "raw.sale")
    assert hours.as_of(shop, "shop", NIGHT + HOUR, clock.now() + HOUR) == NIGHT + HOUR


def test_the_hours_that_wait(shop: Rails) -> None:
    specs = portfolio(shop.settings)

    def waiting() -> list[int]:
        found = hours.waiting(shop, specs)
        assert found.keys() <= {"till"}
        return [(hour - NIGHT) // HOUR for hour in found.get("till", ())]

    settle(shop, "2025-05-30", "spn_sale")
    assert waiting() == []
    shop.ledger.record_hour("table", ["spn_sale"], NIGHT + 3 * HOUR, 2)
    assert waiting() == [1, 2, 3], "what had no run is answered with the next one"
    shop.ledger.record_hour("model", ["till"], NIGHT + 2 * HOUR, 2)
    assert waiting() == [3]
    shop.ledger.record_hour("model", ["till"], NIGHT + HOUR, 2)
    assert waiting() == [3], "an hour that is done again is no newer"
    shop.ledger.record_hour("table", ["spn_sale"], NIGHT + 5 * HOUR, 3)
    assert waiting() == [3, 4, 5]
    settle(shop, "2025-05-31", "spn_sale")
    assert waiting() == [], "the night answers what is left"
    shop.ledger.record_hour("table", ["spn_sale"], NIGHT + 25 * HOUR, 4)
    assert waiting() == [25]
    shop.ledger.begin("till", instant("2025-06-02").date())
    assert waiting() == [], "it begins later"


def test_what_is_in_service_moves_with_the_hours_of_a_table(shop: Rails) -> None:
    settle(shop, "2025-05-30", "spn_sale", "ftr_shop__sales")
    shop.ledger.record_hour("table", ["spn_sale"], NIGHT + HOUR, 7)
    publication = shop.publication()
    assert (publication.snapshot, publication.of("spn_sale"), publication.of("ftr_shop__sales")) == (7, 7, 1)
    assert publication.unpublished(["spn_sale", "ftr_shop__sales"]) == ()
    shop.ledger.record_hour("table", ["spn_sale"], NIGHT + HOUR, 5)  # a slower attempt
    assert shop.publication().of("spn_sale") == 7


def test_shadow_answers_hours_where_a_model_is_hourly(parse: Callable, models: Path) -> None:
    assert "hours" not in {task.task_id for task in parse(models, "incident")["shadow"].tasks}
    path = models / "beta" / "spec.yaml"
    path.write_text(path.read_text().replace("every: 1d", "every: 1h"), encoding="utf-8")
    assert orchestration.hourly([find(models, "beta")])
    [task] = [task for task in parse(models, "incident")["shadow"].tasks if task.task_id == "hours"]
    assert (task.upstream_task_ids, task.downstream_task_ids) == (set(), set())
