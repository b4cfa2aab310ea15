"""A feature view that is written anew is built anew: all its rows, in nobody's way, and the past stays as it was."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.conftest import business_home
from tests.homes import copied
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.judge import scoring
from tiltyard.prepare import features, frame, rebuilding
from tiltyard.prepare.features import SourceNight
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find, portfolio
from tiltyard.train import replay

NIGHTS = [clock.parse_as_of(day) for day in ("2025-01-14", "2025-01-15")]
MATURED = clock.parse_as_of("2025-02-12")
"""Everything that was predicted on these nights has its truth by then."""
SOURCE, VIEW, OTHER, STAGING = (
    "subscription", "ftr_customer__activity", "ftr_customer__payments", "stg_subscription__payment"
)  # fmt: skip
AGAIN = "its last rebuild did not come to its end"
NEW = "ftr_customer__habits"
CHANGED = "its SQL changed and its columns in the .yml changed"
ANEW = {VIEW: CHANGED, NEW: f"it is made of {VIEW}"}
TRIED = {VIEW: AGAIN, NEW: AGAIN}


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path, deliveries: Path
) -> Settings:
    """Two nights that two models have scored, of which one does not read the view that will change."""
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copytree(ROOT / "dbt", folder / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    for name in ("churn", "steady"):
        shutil.copytree(eager_models / "churn", folder / "models" / name)
    spec = folder / "models" / "steady" / "spec.yaml"
    content = yaml.safe_load(spec.read_text())
    content["prediction"]["features"].remove(VIEW)
    spec.write_text(yaml.safe_dump(content))
    settings = business_home(folder, postgres_url, folder / "models", deliveries, dbt=folder / "dbt")
    with rails_module.opened(settings) as rails:
        for as_of in NIGHTS:
            assert a_night(rails, as_of).transform.rebuilt == {}
            for model in portfolio(settings):
                scoring.score_night(rails, model, as_of)
    return settings


@pytest.fixture
def business(tmp_path: Path, prepared: Settings) -> Iterator[Rails]:
    with rails_module.opened(copied(prepared, tmp_path / "copy")) as rails:
        yield rails


def a_night(rails: Rails, as_of: datetime, rebuild: tuple[str, ...] = ()) -> SourceNight:
    return features.build_night(rails, as_of, render=False, rebuild=rebuild).sources[SOURCE]


def rewrite(settings: Settings, table: str, *changes: tuple[str, str], kind: str = "sql") -> None:
    (path,) = (settings.dbt / "models").rglob(f"{table}.{kind}")
    text = path.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text)


def change(settings: Settings) -> None:
    """Of the view one column goes, one comes, and one means something else. A new view is made of the new column."""
    rewrite(
        settings,
        VIEW,
        ("count(*) filter (where device = 'phone') as phone_logins_28d", "count(distinct device) as devices_28d"),
        ("interval '7 days') as logins_7d", "interval '6 days') as logins_7d"),
    )
    rewrite(settings, VIEW, ("phone_logins_28d", "devices_28d"), kind="yml")
    place = settings.dbt / "models" / "features" / NEW
    place.with_suffix(".sql").write_text(
        "{{ config(unique_key='customer_id') }}\n\nselect customer_id, devices_28d as habits, event_time, "
        f"available_at, built_at\nfrom {{{{ ref('{VIEW}') }}}}\n"
    )
    kinds = {"customer_id": "varchar", "habits": "bigint"} | dict.fromkeys(
        ("event_time", "available_at", "built_at"), "timestamp with time zone"
    )
    described = [{"name": name, "data_type": kind} for name, kind in kinds.items()]
    place.with_suffix(".yml").write_text(yaml.safe_dump({"models": [{"name": NEW, "columns": described}]}))


def rows(rails: Rails, sql: str) -> int:
    row = rails.lake.connection.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def test_a_changed_view_is_made_anew_and_the_past_stays_as_it_was(business: Rails) -> None:
    rails, settings = business, business.settings
    before = rails.publication()
    table = f"lake.features.{VIEW}"
    old = rows(rails, f"select count(*) from {table}")
    assert old > 0
    change(settings)
    night = a_night(rails, MATURED)

    assert night.transform is not None and night.checks is not None
    assert night.transform.rebuilt == night.checks.rebuilt == ANEW
    assert night.published.unpublished == (), "all tables, those of the other model as well, are good"
    recorded = rails.ledger.stage_run(FeaturesSummary, SOURCE, night_closing(MATURED))
    assert recorded is not None and recorded.summary.rebuilt == ANEW

    assert rows(rails, f"select count(*) from lake.features.{NEW}") == rows(rails, f"select count(*) from {table}")
    columns = rails.lake.columns(VIEW)
    assert "devices_28d" in columns and "phone_logins_28d" not in columns
    assert rows(rails, f"select count(*) from {table}") > old
    assert rows(rails, f"select count(*) from {table} where devices_28d is null") == 0
    assert rows(rails, f"select count(*) from {table} where event_time <= '{NIGHTS[0]}' and devices_28d > 1") > 0
    then = f"{table} at (version => {before.of(VIEW)})"
    assert rows(rails, f"select count(phone_logins_28d) from {then}") == old, "who reads what was, reads what was"
    assert VIEW in frame.answers_kept(rails, rails.lake.snapshot())

    again = a_night(rails, MATURED + timedelta(days=1))
    assert again.transform is not None and again.transform.rebuilt == {}

    churn = replay.check(rails, find(settings.models, "churn"), MATURED, rails.publication(), render=False)
    changed = {entry.tally.feature: entry.tally.kinds for entry in churn.changes if entry.tally.changed}
    assert changed["logins_7d"].get("different_then", 0) > 0, "what means something else is different then"
    assert changed.keys() <= {"logins_7d", "phone_logins_28d", "devices_28d"}, "what is the same acquits"
    steady = replay.check(rails, find(settings.models, "steady"), MATURED, rails.publication(), render=False)
    assert steady.verdict == "pass" and steady.tested == steady.rows > 100


def test_comments_and_white_space_are_no_change(business: Rails) -> None:
    rewrite(
        business.settings, VIEW, ("with\n", "-- of everybody\nwith   \n\n"), ("\nfinal as (", "/* all */\nfinal as (")
    )
    rewrite(business.settings, VIEW, ("The customer.", "Whose log-ins."), kind="yml")
    night = a_night(business, MATURED)
    assert night.transform is not None and night.transform.rebuilt == {}


@pytest.mark.parametrize("place", ["before it is put down", "before it is judged"])
def test_whoever_is_killed_after_the_rebuild_is_in_nobodys_way(
    business: Rails, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rails, before = business, business.publication()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    change(rails.settings)
    with monkeypatch.context() as patch:
        patch.setattr(*((rebuilding, "keep") if place == "before it is put down" else (features, "check")), killed)
        with pytest.raises(KeyboardInterrupt):
            a_night(rails, MATURED)
    assert "devices_28d" in rails.lake.columns(VIEW)
    assert rails.publication() == before
    spec = find(rails.settings.models, "churn")
    served = {feature.name for feature in frame.features(rails, spec, before)}
    assert "phone_logins_28d" in served and "devices_28d" not in served

    night = a_night(rails, MATURED)
    assert night.transform is not None and night.published.unpublished == ()
    assert night.transform.rebuilt == (TRIED if place == "before it is put down" else {})
    served = {feature.name for feature in frame.features(rails, spec, rails.publication())}
    assert "devices_28d" in served and "phone_logins_28d" not in served


def test_a_table_that_cannot_be_made_anew_is_as_it_was_and_is_tried_again(business: Rails) -> None:
    rails, settings = business, business.settings
    rewrite(settings, OTHER, ("as failed_payments_90d,", "as failed_payments_90d, error('no') as wrong,"))
    rewrite(
        settings,
        OTHER,
        (
            "      - name: unpaid_payments",
            "      - name: wrong\n        data_type: integer\n      - name: unpaid_payments",
        ),
        kind="yml",
    )
    failed = a_night(rails, MATURED)
    assert failed.transform is not None
    assert failed.transform.failed.keys() == {OTHER} and failed.transform.rebuilt == {}
    assert {state.table for state in failed.published.unpublished} == {OTHER}
    assert "wrong" not in rails.lake.columns(OTHER)

    rewrite(settings, OTHER, (" error('no') as wrong,", " 1 as wrong,"))
    mended = a_night(rails, MATURED + timedelta(days=1))
    assert mended.transform is not None and mended.transform.rebuilt.keys() == {OTHER}
    assert rows(rails, f"select count(*) from lake.features.{OTHER} where wrong is null") == 0


def test_rows_that_cannot_be_made_again_do_not_go_without_a_word(business: Rails) -> None:
    rails, settings = business, business.settings
    rails.lake.connection.execute(
        f"delete from lake.raw.payment where available_at < '{NIGHTS[0] - timedelta(days=7)}'"
    )
    rewrite(settings, OTHER, ("select * from final", "select * from final where customer_id <> ''"))
    night = a_night(rails, NIGHTS[1] + timedelta(days=1))
    assert night.transform is not None and night.transform.rebuilt == {OTHER: rebuilding.SQL}, "staging has all rows"

    held = rows(rails, f"select count(*) from lake.staging.{STAGING}")
    (path,) = (settings.dbt / "models").rglob(f"{STAGING}.sql")
    path.write_text(path.read_text().rstrip().rstrip(";") + "\nlimit 1000000000\n")
    refused = a_night(rails, NIGHTS[1] + timedelta(days=2))
    assert refused.transform is not None
    assert refused.transform.rebuilt == {}
    assert "cannot be made again" in refused.transform.failed[STAGING]
    assert f"features --rebuild {STAGING}" in refused.transform.failed[STAGING]
    assert rows(rails, f"select count(*) from lake.staging.{STAGING}") == held
    lost = {state.table for state in refused.published.unpublished}
    assert {STAGING, OTHER} <= lost and VIEW not in lost

    asked = a_night(rails, NIGHTS[1] + timedelta(days=3), rebuild=(STAGING, OTHER))
    assert asked.transform is not None and asked.transform.rebuilt.keys() >= {STAGING, OTHER}
    assert rows(rails, f"select count(*) from lake.staging.{STAGING}") < held
    assert asked.published.unpublished == ()


def test_a_table_that_nobody_makes_is_named(business: Rails) -> None:
    with pytest.raises(BadInput, match=f"did you mean .*{VIEW}"):
        features.require_tables(business.settings, [VIEW[:-1]])
    features.require_tables(business.settings, [VIEW])
    night = a_night(business, NIGHTS[1], rebuild=(VIEW,))
    assert night.transform is not None and night.transform.rebuilt == {VIEW: rebuilding.ASKED}
