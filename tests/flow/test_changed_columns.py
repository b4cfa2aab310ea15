"""Columns that come and go, of a contract, of staging, of a spine and of a label table: filled, gone, or said."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import yaml

from tests.conftest import business_home
from tests.homes import copied
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.prepare import features
from tiltyard.prepare.features import SourceNight
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings

NIGHTS = [clock.parse_as_of(day) for day in ("2025-02-10", "2025-02-11", "2025-02-12")]
SOURCE = "subscription"


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path, deliveries: Path
) -> Settings:
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copytree(ROOT / "dbt", folder / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(eager_models, folder / "models")
    settings = business_home(folder, postgres_url, folder / "models", deliveries, dbt=folder / "dbt")
    for path in (settings.landing / SOURCE).rglob("*.parquet"):
        if path.name >= f"{NIGHTS[2]:%Y-%m-%d}":
            path.unlink()
    with rails_module.opened(settings) as rails:
        assert a_night(rails, 0).transform is not None
    return settings


@pytest.fixture
def business(tmp_path: Path, prepared: Settings) -> Iterator[Rails]:
    with rails_module.opened(copied(prepared, tmp_path / "copy")) as rails:
        yield rails


def a_night(rails: Rails, number: int) -> SourceNight:
    return features.build_night(rails, NIGHTS[number], render=False).sources[SOURCE]


def rewrite(settings: Settings, name: str, old: str, new: str) -> None:
    (path,) = (settings.dbt / "models").rglob(name)
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))


def contract(settings: Settings, table: str, *, drop: str = "", add: str = "") -> None:
    """The contract without a column, or with another one."""
    (path,) = (settings.dbt / "models").rglob(f"_{SOURCE}__sources.yml")
    content = yaml.safe_load(path.read_text())
    (entry,) = [entry for entry in content["sources"][0]["tables"] if entry["name"] == table]
    entry["columns"] = [column for column in entry["columns"] if column["name"] != drop]
    entry["columns"] += [{"name": add, "data_type": "varchar"}] if add else []
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def warnings(night: SourceNight) -> str:
    assert night.checks is not None and night.transform is not None and not night.transform.failed
    return " ".join(night.checks.warnings)


def values(rails: Rails, sql: str) -> tuple[int, ...]:
    return tuple(rails.lake.connection.execute(sql).fetchone() or ())


def test_a_column_that_a_contract_adds_is_made_of_the_rows_that_have_it_and_the_others_are_counted(
    business: Rails,
) -> None:
    rails, settings = business, business.settings
    contract(settings, "login", add="place")
    for path in (settings.landing / SOURCE / "login").glob(f"{NIGHTS[0]:%Y-%m-%d}*"):
        duckdb.execute(f"copy (select *, 'home' as place from '{path}') to '{path}.part' (format parquet)")
        Path(f"{path}.part").rename(path)
    rewrite(settings, "stg_subscription__login.sql", "        device,\n", "        device,\n        place,\n")
    night = a_night(rails, 1)
    assert night.transform is not None and "stg_subscription__login" in night.transform.rebuilt
    filled, empty = values(
        rails, "select count(place), count(*) - count(place) from lake.staging.stg_subscription__login"
    )
    made = values(rails, "select count(place) from lake.staging.stg_subscription__login")
    assert (filled,) == made and filled > 0 and empty > 0
    assert f"raw.login.place is new: {empty:,} rows have none" in warnings(night)
    assert "place" not in warnings(a_night(rails, 2)), "it is said once"


def test_a_column_that_a_contract_drops_is_named_for_as_long_as_it_is_read(business: Rails) -> None:
    rails, settings = business, business.settings
    contract(settings, "login", drop="device")
    said = warnings(a_night(rails, 1))
    assert "raw.login.device is not in the contract any more" in said
    assert "stg_subscription__login still reads it" in said


@pytest.mark.parametrize(
    ("table", "old", "column"),
    [
        ("spines.spn_customer_reviewed", "        prediction_time as event_time,\n", "        7 as shown,\n"),
        ("labels.lbl_churn", "        *,\n        {{ built_at() }}", "        7 as shown,\n"),
    ],
)
def test_a_spine_and_a_label_table_are_made_anew_with_all_their_rows(
    business: Rails, table: str, old: str, column: str
) -> None:
    rails, settings, name = business, business.settings, table.split(".")[1]
    rewrite(settings, f"{name}.sql", old, f"{column}{old}")
    event_time = "      - name: event_time\n"
    rewrite(settings, f"{name}.yml", event_time, f"      - name: shown\n        data_type: integer\n{event_time}")
    night = a_night(rails, 1)
    assert night.transform is not None and name in night.transform.rebuilt, night.transform.failed
    rows, filled = values(rails, f"select count(*), count(shown) from lake.{table}")
    assert rows == filled > 0
