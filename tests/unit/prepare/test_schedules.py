"""When a source is looked for, and until when it is waited for: its contract says it, else the settings do."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from tests import bazaar
from tests.lakes import instant
from tiltyard.errors import BadInput
from tiltyard.prepare import contracts, schedules
from tiltyard.settings import Settings

TUESDAY, WEDNESDAY = date(2025, 3, 4), date(2025, 3, 5)


@pytest.mark.parametrize(
    ("text", "nights"),
    [
        ("@daily", {TUESDAY, WEDNESDAY}),
        ("59 23 * * *", {TUESDAY, WEDNESDAY}),
        ("0 5 * * 2", {TUESDAY}),
        ("0 0 5 3 *", {WEDNESDAY}),
        ("@monthly", set()),
        ("none", set()),
        ("", set()),
    ],
)
def test_the_nights_of_a_schedule(text: str, nights: set[date]) -> None:
    expression = schedules.cron(schedules.checked(text))
    assert {night for night in (TUESDAY, WEDNESDAY) if schedules.has_run(expression, night)} == nights


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("@hourly", 1),
        ("10 * * * *", 1),
        ("0 * * * 6", 1),
        ("0 */2 * * *", 2),
        ("*/20 */4 * * *", 4),
        ("0 1,9,17 * * *", 8),
        ("30 5,17 * * *", 12),
        ("0 0-22 * * *", 2),  # an hour that none follows in time
        ("0 8,9 * * *", 24),
        ("@daily", 24),
        ("none", 24),
    ],
)
def test_how_long_the_hours_of_a_schedule_are(text: str, hours: int) -> None:
    assert schedules.step(schedules.cron(schedules.checked(text))) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["daily", "0 25 * * *", "0 0 30 2 *", "0 5 * * * *", "* * * *", "@never"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a cron expression like '0 5"):
        schedules.checked(text)


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    return bazaar.settings_of(tmp_path, "postgresql://nobody@127.0.0.1:1/none", schedule="0 1 * * 3")


def test_a_source_without_a_schedule_of_its_own_is_looked_for_as_the_settings_say(shop: Settings) -> None:
    assert contracts.schedule(shop, "shop") == "0 1 * * 3"
    assert not contracts.is_expected(shop, "shop", TUESDAY)
    assert contracts.is_expected(shop, "shop", WEDNESDAY)
    assert contracts.deadline(shop, "shop", instant("2025-03-05")) is None


def test_the_contract_says_when_and_for_how_long(shop: Settings) -> None:
    bazaar.contract(shop, "shop", 'schedule: "0 4 * * 2", due_by: 6h')
    assert contracts.is_expected(shop, "shop", TUESDAY)
    assert not contracts.is_expected(shop, "shop", WEDNESDAY)
    assert contracts.deadline(shop, "shop", instant("2025-03-04")) == instant("2025-03-04") + timedelta(hours=6)
    assert contracts.schedule(shop, "web") == "0 1 * * 3", "the other one's is its own"
    bazaar.contract(shop, "shop", "schedule: none")
    assert contracts.schedule(shop, "shop") is None


@pytest.mark.parametrize(
    ("rhythm", "sentence"),
    [
        ("schedule: sometimes", "config.meta.tiltyard.schedule: 'sometimes' is no schedule"),
        ("due_by: soon", "config.meta.tiltyard.due_by: 'soon' is not a duration"),
        ("due: 5h", "config.meta.tiltyard.due: Extra inputs"),
    ],
)
def test_what_a_contract_says_wrongly_is_named_with_its_place(shop: Settings, rhythm: str, sentence: str) -> None:
    bazaar.contract(shop, "shop", rhythm)
    with pytest.raises(BadInput, match=rf"_shop__sources.yml:\d+: source 'shop': {sentence}"):
        contracts.read(shop, "shop")
    assert contracts.schedule(shop, "shop") == "0 1 * * 3", "its run says what is wrong, and has to start for it"


def test_a_setting_that_is_no_schedule_is_named(shop: Settings) -> None:
    with pytest.raises(BadInput, match="TILTYARD_SCHEDULE: 'often' is no schedule"):
        contracts.schedule(shop.model_copy(update={"schedule": "often"}), "shop")
