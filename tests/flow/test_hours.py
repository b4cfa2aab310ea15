"""A model that is answered by the hour, from deliveries by the hour to the night that closes over them."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests import bazaar
from tests.lakes import instant
from tiltyard import rails as rails_module
from tiltyard import spec as specs
from tiltyard.judge import shadow
from tiltyard.prepare import features, hourly
from tiltyard.rails import Rails
from tiltyard.spec import Spec

NIGHT = instant("2025-05-30")
"""The first night; the hours are those of its day."""
CLOSES = instant("2025-05-31")
HOUR = timedelta(hours=1)


def sale(hour: float, shop: str = "a", *, known: float | None = None, size: float = 1.0) -> dict[str, object]:
    """A sale of 30 May, at this hour, delivered when it was known."""
    at = NIGHT + hour * HOUR
    return {"sale_id": f"{hour:g}{shop}", "shop_id": shop, "size": size, "at": at.isoformat()}


def deliver(rails: Rails, hour: int, *rows: dict[str, object], of: str = "") -> None:
    """The file of an hour: of what was sold in it, unless rows are given."""
    rows = rows or (sale(hour + 0.25), sale(hour + 0.5, "b"))
    bazaar.deliver(rails.settings, "shop", NIGHT.date(), rows, of=f"T{hour:02}{of}")


def hourly_spec(rails: Rails) -> Spec:
    return specs.find(rails.settings.models, "till")


def answers(rails: Rails) -> pd.DataFrame:
    """What was answered of the day, by sale."""
    rows = rails.lake.query(
        "select entity_id, prediction_time, night, tier, score, snapshot, available_at, scored_at, request_id "
        "from {ops.prediction} where model = 'till' and night = $night and tier <> 'shadow' order by prediction_time",
        instant("2025-06-05"),
        {"night": CLOSES.date()},
    )
    return rows.set_index("entity_id")


def at(rails: Rails, hour: int) -> None:
    """What is done at the end of an hour."""
    as_of = NIGHT + hour * HOUR
    hourly.build_hour(rails, "shop", as_of)
    shadow.answer_hour(rails, hourly_spec(rails), as_of)


def close(rails: Rails) -> None:
    features.build_night(rails, CLOSES, ["shop"], render=False)
    shadow.shadow_night(rails, hourly_spec(rails), CLOSES)


@pytest.fixture
def shop(tmp_path: Path, postgres_url: str) -> Iterator[Rails]:
    """A shop that delivers by the hour, after its first night; its `till` is answered by the hour."""
    settings = bazaar.settings_of(tmp_path, postgres_url, schedule="none")
    bazaar.contract(settings, "shop", "schedule: '@hourly'")
    path = settings.models / "till" / "spec.yaml"
    path.write_text(path.read_text().replace("prediction: {", "prediction: {every: 1h, "), encoding="utf-8")
    for days in (3, 2, 1):
        bazaar.deliver(settings, "shop", (NIGHT - timedelta(days=days)).date())
        bazaar.deliver(settings, "web", (NIGHT - timedelta(days=days)).date())
    with rails_module.opened(settings) as rails:
        features.build_night(rails, NIGHT, render=False)
        shadow.shadow_night(rails, hourly_spec(rails), NIGHT)
        yield rails


def test_rows_are_answered_by_the_hour_and_once(shop: Rails) -> None:
    deliver(shop, 6)
    deliver(shop, 7)
    at(shop, 7)
    first = answers(shop)
    assert list(first.index) == ["6.25a", "6.5b"], "the file of 07:00 is not due yet"
    assert set(first["available_at"]) == {NIGHT + 7 * HOUR}
    assert shop.ledger.finished("shadow", "till") == {NIGHT.date()}, "no night is closed by an hour"
    assert shop.ledger.features_run("shop", CLOSES.date()) is None

    at(shop, 8)
    at(shop, 7)  # once more
    deliver(shop, 6, sale(6.75), of="late")
    deliver(shop, 23)
    at(shop, 9)
    assert list(answers(shop).index) == ["6.25a", "6.5b", "7.25a", "7.5b"]
    pd.testing.assert_frame_equal(answers(shop).loc[first.index], first)

    close(shop)
    whole = answers(shop)
    assert list(whole.index) == ["6.25a", "6.5b", "6.75a", "7.25a", "7.5b", "23.25a", "23.5b"]
    assert set(whole.loc[["6.75a", "23.25a", "23.5b"], "available_at"]) == {CLOSES}
    pd.testing.assert_frame_equal(whole.loc[first.index], first)
    assert shop.ledger.finished("shadow", "till") == {NIGHT.date(), CLOSES.date()}

    close(shop)
    again = answers(shop)
    pd.testing.assert_frame_equal(
        again.drop(columns=["scored_at", "snapshot"]), whole.drop(columns=["scored_at", "snapshot"])
    )
    pd.testing.assert_frame_equal(again.loc[first.index], first)
