"""Whose bill it is: one's own, a share of what a source's features took, or nobody's."""

from datetime import date
from pathlib import Path

import pytest

from tests.lakes import small_spec
from tiltyard.govern import bills
from tiltyard.portfolio_rules import Prices
from tiltyard.records import Cost, Stored, Usage
from tiltyard.spec import Spec

NIGHT = date(2024, 3, 2)
PRICES = Prices(cpu_hour=3.6, gb_hour=0.0, gb_month=2.0)


@pytest.fixture
def specs(tmp_path: Path) -> list[Spec]:
    base = small_spec(tmp_path)
    named = (("ant", "risk", 1, "shop"), ("bee", "risk", 2, "shop"), ("cat", "desk", 2, "bank"))
    return [base.model_copy(update={"name": name, "owner": owner, "tier": tier, "source": source})
            for name, owner, tier, source in named]  # fmt: skip


def cost(stage: str, name: str, cpu_s: float) -> Cost:
    return Cost(stage=stage, name=name, night=NIGHT, usage=Usage(cpu_s=cpu_s))  # type: ignore[arg-type]


COSTS = [
    cost("features", "shop", 8.0), cost("shadow", "ant", 2.0), cost("drift", "ant", 1.0), cost("shadow", "bee", 4.0),
    cost("governor", "", 5.0), cost("shadow", "gone", 7.0),
]  # fmt: skip
STORED = [Stored(name="ant", bytes=1_000_000_000), Stored(name="shop", bytes=500), Stored(name="", bytes=70)]


def test_each_model_bears_its_own_and_an_equal_part_of_its_sources_features(specs: list[Spec]) -> None:
    found = {bill.name: bill for bill in bills.bills(COSTS, STORED, 2, specs, "model", PRICES)}
    assert found["ant"].usage.cpu_s == 1.5
    assert found["ant"].shared_cpu_s == 2.0
    assert found["bee"].shared_cpu_s == 2.0
    assert found["cat"].usage.cpu_s == 0
    assert found["gone"].usage.cpu_s == 3.5, "what was used for somebody who left is not lost"
    assert found["shop"].stored_bytes == 500
    assert found[bills.PORTFOLIO].usage.cpu_s == 2.5
    assert found["ant"].price == pytest.approx((3.0 + 4.0) / 3600 * 3.6 / 2 * 30 + 2.0)
    whole = sum(entry.usage.cpu_s for entry in COSTS)
    assert sum(bill.usage.cpu_s + bill.shared_cpu_s for bill in found.values()) == pytest.approx(whole / 2)


@pytest.mark.parametrize(
    ("by", "own", "shared"),
    [("owner", {"risk": 7.0, "desk": 0.0, bills.PORTFOLIO: 12.0}, 8.0),
     ("tier", {"tier 1": 3.0, "tier 2": 4.0, bills.PORTFOLIO: 12.0}, 8.0),
     ("source", {"shop": 15.0, "bank": 0.0, bills.PORTFOLIO: 12.0}, 0.0),
     ("stage", {"features": 8.0, "shadow": 13.0, "drift": 1.0, "governor": 5.0, "stored": 0.0}, 0.0)],
)  # fmt: skip
def test_every_sum_is_of_the_same_whole(specs: list[Spec], by: bills.By, own: dict[str, float], shared: float) -> None:
    found = bills.bills(COSTS, STORED, 1, specs, by, None)
    assert {bill.name: bill.usage.cpu_s for bill in found} == own
    assert sum(bill.shared_cpu_s for bill in found) == shared
    assert sum(bill.stored_bytes for bill in found) == 1_000_000_570
    assert {bill.price for bill in found} == {None}
