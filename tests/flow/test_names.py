"""Delivered columns, features and slices that are called like reserved words, like aliases of ours, like nothing that
SQL takes unquoted: from the delivery to the drift page and the online store."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
import yaml

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.govern import drift
from tiltyard.govern import page as drift_page
from tiltyard.judge import promotion, shadow
from tiltyard.lake import quoted
from tiltyard.online import fill
from tiltyard.online.connection import connect
from tiltyard.prepare import features, frame, project
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.train import replay, training

FIRST = clock.parse_as_of("2025-02-03")
NIGHT = timedelta(days=1)
VIEW = "ftr_customer__payments"
DELIVERED = {
    "night": "date", "order": "varchar", "select": "bigint", "delivery": "varchar", "raw": "double", "file": "varchar",
    "is_observed": "boolean", "landed_us": "bigint", "delivered_us": "bigint", "example": "varchar", "missed": "bigint",
    "rows": "bigint", "source": "varchar", "known": "varchar", "along": "varchar", "filtered": "boolean",
}  # fmt: skip
"""Columns that are delivered beside those of a log-in. `night` is planned, so that it is looked at by its days."""
FEATURES = {
    "limit": "bigint", "order": "varchar", "select": "double", "Größe in m²": "double", "MixedCase": "bigint",
    "score": "bigint", "entity_id": "bigint", "night": "bigint", "rows": "bigint", "number": "bigint",
    "frame": "bigint",
    "then_row": "bigint", "key": "bigint", "row": "bigint", "place": "bigint", "spine": "bigint", "known": "bigint",
    "version": "varchar", "tier": "bigint", "model": "bigint", "index": "bigint", "target": "bigint",
    "it's 100 % [new] <b>": "bigint", "🚲": "boolean", "request_id": "bigint", "truth": "bigint", "missing": "bigint",
}  # fmt: skip
"""Features, instead of those that the view has."""


def delivers(settings: Settings) -> None:
    """The columns in the contract, and in the deliveries of log-ins."""
    path = settings.dbt / "models" / "staging" / "subscription" / "_subscription__sources.yml"
    content = yaml.safe_load(path.read_text())
    (login,) = [table for table in content["sources"][0]["tables"] if table["name"] == "login"]
    login["columns"] += [{"name": name, "data_type": kind} for name, kind in DELIVERED.items()]
    (night,) = [column for column in login["columns"] if column["name"] == "night"]
    night["config"] = {"meta": {"tiltyard": {"planned": True}}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    values = {
        "date": "cast(logged_in_at as date) + 1", "varchar": "'n' || login_id % 3", "bigint": "login_id % 5",
        "double": "login_id / 7", "boolean": "login_id % 2 = 0",
    }  # fmt: skip
    shown = ", ".join(f"cast({values[kind]} as {kind}) as {quoted(name)}" for name, kind in DELIVERED.items())
    for file in (settings.landing / "subscription" / "login").iterdir():
        duckdb.execute(f"copy (select *, {shown} from read_parquet('{file}')) to '{file}.part' (format parquet)")
        Path(f"{file}.part").rename(file)


def names(settings: Settings, features_of: dict[str, str]) -> None:
    """Features of the view, by these names."""
    sql = next((settings.dbt / "models").rglob(f"{VIEW}.sql"))
    text = sql.read_text()
    given = {"bigint": "cast(sum(attempts) over so_far as bigint)", "double": "amount_eur",
             "varchar": "'o' || cast(amount_eur as bigint) % 2", "boolean": "amount_eur > 20"}  # fmt: skip
    start, end = text.index("        cast(sum(attempts)"), text.index("        available_at as event_time,\n")
    own = "".join(f"        {given[kind]} as {quoted(name)},\n" for name, kind in features_of.items())
    sql.write_text(text[:start] + own + text[end:])
    yml = sql.with_suffix(".yml")
    content = yaml.safe_load(yml.read_text())
    columns = content["models"][0]["columns"]
    features_there = [{"name": name, "data_type": kind, "quote": True} for name, kind in features_of.items()]
    content["models"][0]["columns"] = [columns[0], *features_there, *columns[-3:]]
    content["models"][0]["data_tests"] = [{"one_row_per": {"arguments": {"columns": ["customer_id", "event_time"]}}}]
    yml.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture(scope="module")
def awful(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path, deliveries: Path
) -> Iterator[Rails]:
    folder = tmp_path_factory.mktemp("awful")
    shutil.copytree(ROOT / "dbt", folder / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(eager_models, folder / "models")
    spec = folder / "models" / "churn" / "spec.yaml"
    content = yaml.safe_load(spec.read_text())
    content["gate"]["slices"] = ["order", "version", "tier", "plan"]
    spec.write_text(yaml.safe_dump(content))
    settings = business_home(folder, postgres_url, folder / "models", deliveries, dbt=folder / "dbt")
    delivers(settings)
    names(settings, FEATURES)
    with rails_module.opened(settings) as rails:
        yield rails


def test_they_work_from_the_delivery_to_the_drift_page(awful: Rails) -> None:
    rails, settings = awful, awful.settings
    spec = find(settings.models, "churn")
    project.check_spec(project.read(settings), settings, spec)
    for as_of in (FIRST - 2 * NIGHT, FIRST - NIGHT, FIRST):
        night = features.build_night(rails, as_of, render=False).sources["subscription"]
        assert night.ingest is not None and not night.ingest.quarantined
        held = {state.table for state in night.published.unpublished}
        assert night.transform is not None and not night.transform.failed
        assert held <= {"ftr_customer__profile"}, "which on some nights has no row"
    profiled = rails.lake.query("select distinct column_name as name from {ops.column_profile}", FIRST)
    assert DELIVERED.keys() <= set(profiled["name"])
    assert {feature.name for feature in frame.features(rails, spec)} >= FEATURES.keys()

    trained = training.train(rails, spec, FIRST, requested_by="test")
    assert trained.version == 1, trained
    for as_of in (FIRST + NIGHT, FIRST + 2 * NIGHT):
        features.build_night(rails, as_of, render=False)
        assert shadow.shadow_night(rails, spec, as_of).rows
        promotion.judge_night(rails, spec, as_of)
        assert drift.measure_night(rails, spec, as_of).version == 1
    scored = rails.lake.query("select slices from {ops.prediction} where version = 1 limit 1", FIRST + 2 * NIGHT)
    assert yaml.safe_load(scored["slices"][0])["order"] in ("o0", "o1", "missing")
    evaluated = rails.lake.query("select distinct slice from {ops.evaluation}", FIRST + 2 * NIGHT)
    assert len(evaluated)
    page = drift_page.draw(rails, spec, (FIRST + 2 * NIGHT).date()).read_text()
    assert "it&#x27;s 100 % [new] &lt;b&gt;" in page

    replayed = replay.replay_nights(rails, spec, [(FIRST + NIGHT, FIRST + 2 * NIGHT)])
    assert replayed.verdict == "pass" and {change.tally.feature for change in replayed.changes} >= FEATURES.keys()


def test_the_online_store_has_the_newest_row_of_each(awful: Rails) -> None:
    rails, spec = awful, find(awful.settings.models, "churn")
    fill.fill_night(rails, FIRST + 2 * NIGHT)
    shown = ", ".join(map(quoted, FEATURES))
    newest = rails.lake.connection.execute(
        f"select customer_id, {shown} from lake.features.{VIEW} where available_at <= '{FIRST + 2 * NIGHT}' "
        "qualify row_number() over (partition by customer_id order by event_time desc, available_at desc) = 1 "
        "order by 1 limit 50"
    ).fetchall()
    assert spec.name == "churn" and len(newest) == 50
    with closing(connect(rails.settings)) as store:
        held = store.get([(VIEW, key) for key, *_ in newest])
    for row, (_, *values) in zip(held, newest, strict=True):
        assert row is not None and [row.values[name] for name in FEATURES] == values
