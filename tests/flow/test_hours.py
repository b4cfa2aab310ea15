"""A model that is answered by the hour, from deliveries by the hour to the night that closes over them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.context import OutletEventAccessors

from tests import bazaar
from tests.homes import copied
from tests.lakes import instant
from tiltyard import rails as rails_module
from tiltyard import spec as specs
from tiltyard.answered import delivery
from tiltyard.edge import due, hours, task_run, work
from tiltyard.edge.assets import settled_assets
from tiltyard.errors import BadInput
from tiltyard.judge import shadow
from tiltyard.prepare import features, hourly
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.rewind import hindcast
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio

NIGHT = instant("2025-05-30")
"""The first night; the hours are those of its day."""
CLOSES = instant("2025-05-31")
HOUR = timedelta(hours=1)
INSTANT = "timestamp with time zone"
TIMES = {"event_time": INSTANT, "available_at": INSTANT, "built_at": INSTANT}
COLUMNS = {
    "spines/spn_sale": {"sale_id": "varchar", "shop_id": "varchar", "prediction_time": INSTANT},
    "features/ftr_shop__sales": {"shop_id": "varchar", "amount": "double"},
    "labels/lbl_sale": {"sale_id": "varchar", "prediction_time": INSTANT, "label": "boolean"},
}
"""What a release asks of the tables of `till`."""


def sale(hour: float, shop: str = "a", size: float = 1.0) -> dict[str, object]:
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """A shop that delivers by the hour, after its first night; its `till` is answered by the hour."""
    settings = bazaar.settings_of(tmp_path_factory.mktemp("hours"), postgres_url, schedule="none")
    bazaar.contract(settings, "shop", "schedule: '@hourly'")
    path = settings.models / "till" / "spec.yaml"
    path.write_text(path.read_text().replace("prediction: {", "prediction: {every: 1h, "), encoding="utf-8")
    path.with_name("card.md").write_text("# Till\n", encoding="utf-8")
    for name, columns in COLUMNS.items():
        listed = [{"name": column, "data_type": kind} for column, kind in {**columns, **TIMES}.items()]
        text = yaml.safe_dump({"version": 2, "models": [{"name": name.rpartition("/")[2], "columns": listed}]})
        (settings.dbt / "models" / f"{name}.yml").write_text(text, encoding="utf-8")
    for days in (3, 2, 1):
        bazaar.deliver(settings, "shop", (NIGHT - timedelta(days=days)).date())
        bazaar.deliver(settings, "web", (NIGHT - timedelta(days=days)).date())
    with rails_module.opened(settings) as rails:
        features.build_night(rails, NIGHT, render=False)
        shadow.shadow_night(rails, hourly_spec(rails), NIGHT)
    return settings


@pytest.fixture
def shop(made: Settings, tmp_path: Path) -> Iterator[Rails]:
    """A home of its own, as the one that was made."""
    with rails_module.opened(copied(made, tmp_path)) as rails:
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


def test_what_an_hour_cannot_publish_waits_for_the_next_one_or_the_night(shop: Rails) -> None:
    spine = shop.settings.dbt / "models" / "spines" / "spn_sale.sql"
    good = spine.read_text()
    deliver(shop, 6)
    deliver(shop, 7)
    spine.write_text(good.replace("select ", "select 1/0 as nothing, nowhere, "))
    broken = hourly.build_hour(shop, "shop", NIGHT + 7 * HOUR)
    assert {state.table: state.state for state in broken.unpublished} == {"spn_sale": "failed"}
    assert "spn_sale is failed" in broken.complaint
    assert "ftr_shop__sales" in broken.published
    assert "ftr_shop__both" not in broken.published, "the web feeds it as well, and has not been judged"
    assert shadow.answer_hour(shop, hourly_spec(shop), NIGHT + 7 * HOUR).answered == 0
    spine.write_text(good)
    at(shop, 8)
    assert list(answers(shop).index) == ["7.25a", "7.5b"]
    close(shop)
    assert list(answers(shop)["available_at"] == CLOSES) == [True, True, False, False]


def test_what_the_night_has_held_no_hour_lets_go(shop: Rails) -> None:
    [held] = [state for state in shop.ledger.table_states() if state.table == "raw.sale"]
    snapshot = shop.publication().of("raw.sale")
    summary = FeaturesSummary(snapshot=snapshot)
    state = replace(held, state="held", reason="too few rows", cause="raw.sale", snapshot=snapshot, since=NIGHT.date())
    shop.ledger.publish([state], NIGHT.date(), "done", summary, "shop")
    deliver(shop, 6)
    hour = hourly.build_hour(shop, "shop", NIGHT + 7 * HOUR)
    assert {state.state for state in hour.unpublished} == {"held", "blocked"}
    assert not {"raw.sale", "spn_sale", "ftr_shop__sales"} & {*hour.published}
    assert shop.publication().of("raw.sale") == snapshot


def test_the_command_line_answers_an_hour_and_says_until_when(shop: Rails) -> None:
    spec = shop.settings.models / "till" / "spec.yaml"
    spec.write_text(spec.read_text() + "deliver: {folder: out, format: csv}\n", encoding="utf-8")
    deliver(shop, 6)
    bazaar.run(shop, "features", "--source", "shop", "--night", "2025-05-30T07:00Z")
    bazaar.run(shop, "shadow", "till", "--night", "2025-05-30T07:00Z")
    assert list(answers(shop).index) == ["6.25a", "6.5b"]
    [path] = (shop.settings.home / "out").iterdir()
    assert path.name == "till_2025-05-31.csv"
    assert len(path.read_text().splitlines()) == 3
    [status] = json.loads(bazaar.run(shop, "status", "till", "--json").stdout)
    assert status["answered_until"] == "2025-05-30T07:00:00+00:00"
    assert delivery.standing(shop, hourly_spec(shop)).owed == ()
    refused = bazaar.run(shop, "shadow", "till", "--as-of", "2025-05-30T07:30Z", code=2)
    assert "is no night and no hour" in " ".join(refused.stderr.split())
    with pytest.raises(BadInput, match=r"features has not done the hour 2025-05-30T08:00Z, .* ends at .* 07:00"):
        hours.require_published(shop, hourly_spec(shop), NIGHT + 8 * HOUR)
    with pytest.raises(BadInput, match=r"No model of web is hourly, .* name one, like 2025-05-31"):
        hourly.build_hour(shop, "web", NIGHT + 7 * HOUR)


def test_a_hindcast_plays_the_hours(shop: Rails) -> None:
    for hour in (6, 7, 23):
        deliver(shop, hour)
    deliver(shop, 8, sale(7.75), of="late")
    hindcast.hindcast(shop, [hourly_spec(shop)], CLOSES, CLOSES, jobs=1)
    played = answers(shop)["available_at"]
    assert {name: (when - NIGHT) // HOUR for name, when in played.items()} == {
        "6.25a": 7, "6.5b": 7, "7.25a": 8, "7.5b": 8, "7.75a": 8, "23.25a": 24, "23.5b": 24,
    }  # fmt: skip
    assert CLOSES.date() in shop.ledger.finished("shadow", "till")


def test_the_tasks_do_an_hour_as_they_do_a_night(shop: Rails, monkeypatch: pytest.MonkeyPatch) -> None:
    accessor, ti = OutletEventAccessors(), SimpleNamespace(try_number=1, dag_id="d", run_id="r", task_id="t")
    context = {"params": {}, "triggering_asset_events": {}, "outlet_events": accessor, "ti": ti}
    context["dag_run"] = SimpleNamespace(triggering_user_name=None)
    monkeypatch.setattr(task_run, "get_current_context", lambda: context)
    monkeypatch.setattr(work, "withdraw_questions", lambda rails: None)
    specs, as_of = portfolio(shop.settings), NIGHT + 7 * HOUR
    deliver(shop, 6)
    assert work.land(shop, "shop", as_of) is not None
    work.check(shop, "shop", as_of, features.transform(shop, as_of, ["shop"]).to_json())
    assert {"spn_sale", "ftr_shop__sales"} <= {*work.publish(shop, "shop", as_of)["published"]}
    assert [event.dest_asset_key.name for event in accessor[settled_assets()].asset_alias_events] == [
        "features/ftr_shop__sales"
    ]
    waiting = due.lot(shop, "shadow", specs).models
    assert "till" not in waiting, "its first night is done, and the one of these hours is not closed"
    assert all(CLOSES.date() not in days for days in waiting.values())
    done = work.answer_hours(shop, specs)
    assert done["till"][as_of.isoformat()] == 2
    assert sum(done["till"].values()) == 2
    with pytest.raises(AirflowSkipException):
        work.answer_hours(shop, specs)
