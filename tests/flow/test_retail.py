"""The retailer's first winter: caught up in steps as from scratch, held against its invoices, trained on; the naive
staging beside it."""

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import know_project, make_settings
from tiltyard import rails as rails_module
from tiltyard.edge import status
from tiltyard.edge.document import ModelStatus
from tiltyard.judge import shadow
from tiltyard.prepare import datasets, features, frame, ingest, popular, transform
from tiltyard.prepare.frame import TrainingFrame
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.train import training

NAIVE = ROOT / "tests" / "naive" / "retail"
LIES = yaml.safe_load((NAIVE / "lies.yaml").read_text(encoding="utf-8"))
SPEC = find(ROOT / "models", LIES["model"])
TEXTS = dict.fromkeys(("invoice_no", "stock_code", "customer_id"), str)
SUNDAY = datetime(2011, 2, 6, tzinfo=UTC)
"""The night that closes the Saturday: nothing was sold, nobody was reviewed."""
NIGHTS = [datetime(2011, 1, 21, tzinfo=UTC), SUNDAY]


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory, data_mirror: Path) -> Path:
    """The deliveries of ten weeks."""
    settings = Settings(home=tmp_path_factory.mktemp("retail"), data_mirror=data_mirror)
    datasets.fetch(settings, "retail")
    for path in settings.landing.rglob("*.csv"):
        if date.fromisoformat(path.stem) >= SUNDAY.date():
            path.unlink()
    return settings.landing


def home(folder: Path, postgres_url: str, delivered: Path) -> Settings:
    settings = make_settings(folder, postgres_url, sources=("retail",))
    know_project(settings, postgres_url)
    shutil.copytree(delivered, settings.landing)
    return settings


@pytest.fixture(scope="module")
def honest(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, delivered: Path
) -> Iterator[tuple[Rails, TrainingFrame]]:
    """Built in two steps, the second bringing the first up to date and checked."""
    settings = home(tmp_path_factory.mktemp("honest"), postgres_url, delivered)
    with rails_module.opened(settings) as rails:
        for night in NIGHTS[:-1]:
            assert not ingest.land_night(rails, "retail", night).quarantined
            transform.build(rails, ("retail",), night)
        features.build_night(rails, SUNDAY, render=False)
        yield rails, frame.training(rails, SPEC, SUNDAY)


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, delivered: Path) -> pd.DataFrame:
    """The training frame of the same model over the naive staging, built in one go."""
    folder = tmp_path_factory.mktemp("naive")
    shutil.copytree(ROOT / "dbt", folder / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(NAIVE / "models", folder / "dbt" / "models", dirs_exist_ok=True)
    settings = home(folder, postgres_url, delivered).model_copy(update={"dbt": folder / "dbt"})
    with rails_module.opened(settings) as rails:
        ingest.land_night(rails, "retail", SUNDAY)
        transform.build(rails, ("retail",), SUNDAY)
        return frame.training(rails, SPEC, SUNDAY).read()


@pytest.fixture(scope="module")
def orders(delivered: Path) -> pd.DataFrame:
    """What was bought, straight from the deliveries: buyer, instant, pounds. In winter the UK's time is UTC."""
    lines = pd.concat(
        pd.read_csv(
            path, dtype={"invoice_no": str, "stock_code": str, "customer_id": str}, parse_dates=["invoice_date"]
        )
        for path in sorted(delivered.rglob("*.csv"))
    ).drop_duplicates()
    kept = lines[
        lines["customer_id"].notna()
        & lines["stock_code"].str.match(r"\d{5}")
        & (lines["quantity"] > 0)
        & (lines["unit_price"] > 0)
    ]
    kept = kept.assign(pounds=kept["quantity"] * kept["unit_price"], at=pd.to_datetime(kept["invoice_date"], utc=True))
    invoices = kept.groupby("invoice_no").agg({"customer_id": "first", "at": "min", "pounds": "sum"})
    return invoices.sort_values("at")


def test_every_matured_review_has_its_label_and_they_say_what_the_invoices_say(
    honest: tuple[Rails, TrainingFrame], orders: pd.DataFrame
) -> None:
    learned = honest[1].read()
    assert honest[1].unlabelled == 0
    assert learned["prediction_time"].max() <= pd.Timestamp(SUNDAY - SPEC.label.horizon)
    assert len(learned) > 3_000
    of = dict(iter(orders.groupby("customer_id")))
    for row in learned.sample(400, random_state=1).itertuples():
        past, now = of[row.buyer_id], row.prediction_time
        known, lately = past[past["at"] <= now], past[(past["at"] <= now) & (past["at"] > now - timedelta(days=30))]
        assert (now - past["at"].min()) % timedelta(days=7) == timedelta()
        assert (row.order_count, row.orders_30d) == (len(known), len(lately))
        assert row.spend_gbp == pytest.approx(known["pounds"].sum())
        assert row.last_order_gbp == pytest.approx(known[known["at"] == known["at"].max()]["pounds"].sum())
        assert row.label == ((past["at"] > now) & (past["at"] <= now + SPEC.label.horizon)).any()


@pytest.fixture(scope="module")
def sold(delivered: Path) -> pd.DataFrame:
    """The lines of what was sold to a buyer, straight from the deliveries."""
    lines = pd.concat(
        pd.read_csv(path, dtype=TEXTS, parse_dates=["invoice_date"]) for path in sorted(delivered.rglob("*.csv"))
    ).drop_duplicates()
    is_sale = (lines["quantity"] > 0) & (lines["unit_price"] > 0) & ~lines["invoice_no"].str.startswith("C")
    return lines[is_sale & lines["customer_id"].notna() & lines["stock_code"].str.match(r"\d{5}")]


def test_the_most_popular_items_are_those_of_the_four_weeks_before(
    honest: tuple[Rails, TrainingFrame], sold: pd.DataFrame
) -> None:
    """On every day since the first, caught up in two steps: no purchase of the day that begins, none forgotten."""
    rows = honest[0].lake.query("select * from {popular.pop_retail__items}", SUNDAY)
    days = pd.date_range("2010-12-02", f"{SUNDAY:%Y-%m-%d}", freq="D", tz="UTC")
    assert sorted(rows["event_time"].unique()) == list(days)
    assert (rows["event_time"] == rows["available_at"]).all()
    for day in days:
        end = day.tz_localize(None)
        window = sold[(sold["invoice_date"] < end) & (sold["invoice_date"] >= end - timedelta(days=28))]
        buyers = window.groupby("stock_code")["customer_id"].nunique() / window["customer_id"].nunique()
        best = sorted(buyers.items(), key=lambda one: (-one[1], one[0]))[:100]
        found = rows[rows["event_time"] == day].sort_values(["score", "item_id"], ascending=[False, True])
        assert list(found["item_id"]) == [item for item, _ in best], day
        assert list(found["score"]) == pytest.approx([share for _, share in best])


def test_whoever_no_model_knows_is_shown_the_ten_most_popular(
    honest: tuple[Rails, TrainingFrame], sold: pd.DataFrame
) -> None:
    rails, _ = honest
    shown = popular.items(rails, SPEC, SUNDAY)
    assert len(shown) == 10
    assert list(shown) == sorted(shown, key=lambda item: (-item.score, item.item_id))
    names = sold.groupby("stock_code")["description"].unique()
    assert all(item.item_name in {name.strip() for name in names[item.item_id]} for item in shown)
    noon = popular.items(rails, SPEC, SUNDAY - timedelta(hours=12))
    assert noon == popular.items(rails, SPEC, SUNDAY - timedelta(days=1)), "the day that is not over yet says nothing"
    assert noon != popular.items(rails, SPEC, SUNDAY - timedelta(days=14))
    assert popular.items(rails, SPEC, datetime(2010, 12, 1, tzinfo=UTC)) == ()
    assert popular.items(rails, SPEC, SUNDAY, at=0) == (), "published before there was such a table"


def test_a_model_comes_of_it(honest: tuple[Rails, TrainingFrame]) -> None:
    rails, learned = honest
    fence = rails.ledger.claim(f"training/{SPEC.name}/test")
    outcome = training.train_on(rails, SPEC, SUNDAY, learned, fence=fence, requested_by="a test", trials=1)
    assert outcome.trained
    assert outcome.metrics.auc.value > 0.6


def test_a_night_without_a_review_is_no_failure(honest: tuple[Rails, TrainingFrame]) -> None:
    rails, _ = honest
    assert shadow.shadow_night(rails, SPEC, SUNDAY).rows == 0
    items = popular.items(rails, SPEC, SUNDAY)
    document = status.status(rails, SPEC, SUNDAY)
    assert isinstance(document, ModelStatus) and document.popular == items


def test_the_popular_items_of_hand_picked_lines(honest: tuple[Rails, TrainingFrame]) -> None:
    nodes = transform.invoke(honest[0].settings, "test", "--select", "pop_retail__items,test_type:unit")
    assert [node.status for node in nodes] == ["pass"]


def test_the_naive_frame_is_the_honest_one_with_the_lies_in_it(
    honest: tuple[Rails, TrainingFrame], naive: pd.DataFrame
) -> None:
    """All else is equal, so that catching up gives what one build gives."""
    told = list(LIES["lies"].values())
    rows = honest[1].read()
    assert not set(told) & set(rows)
    assert all(naive[column].nunique() > 1 for column in told)
    assert (naive.groupby("buyer_id")[told].nunique(dropna=False) == 1).all(axis=None)  # whatever the review
    pd.testing.assert_frame_equal(naive.drop(columns=told), rows)
