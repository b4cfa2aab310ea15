"""Two sources on the same nights, beside each other and at different times: what one does, or does not do, is in
nobody's way but that of what is made of it.

Ingest, dbt, suites and publication are the real ones, on a small project.
"""

import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from tests import bazaar, homes
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.edge import describe, due, status
from tiltyard.errors import BadInput, CheckFailed, TiltyardError
from tiltyard.judge import scoring, shadow
from tiltyard.prepare import features
from tiltyard.prepare.features import SourceNight
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.settings import Settings
from tiltyard.spec import find, portfolio

FIRST = clock.parse_as_of("2025-03-04")
NIGHT = timedelta(days=1)
BOTH = "ftr_shop__both"
NEVER_MET = """expectations:
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 1000000000}
    severity: critical
    meta: {why: "So many rows there are not."}
meta: {may_be_empty: true}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """A home in which the first night of both sources is published."""
    settings = bazaar.settings_of(tmp_path_factory.mktemp("made"), postgres_url)
    with rails_module.opened(settings) as opened:
        deliver(opened, 0, "shop", "web")
        assert features.build_night(opened, FIRST, render=False).unpublished == ()
    return settings


@pytest.fixture
def rails(tmp_path: Path, made: Settings) -> Iterator[Rails]:
    """A copy of that home for every test."""
    with rails_module.opened(homes.copied(made, tmp_path)) as opened:
        yield opened


def deliver(rails: Rails, number: int, *sources: str) -> None:
    for source in sources:
        bazaar.deliver(rails.settings, source, (FIRST + (number - 1) * NIGHT).date())


def a_night(rails: Rails, number: int, source: str) -> SourceNight:
    """The features of one source of a night, as its DAG does them: the last step is done however the others end."""
    as_of, landed, build, summary = FIRST + number * NIGHT, None, None, None
    with suppress(TiltyardError):  # is in the records
        landed = features.ingest(rails, as_of, [source])[source]
        build = features.transform(rails, as_of, [source])
        summary = features.check(rails, source, as_of, build, render=False)
    return SourceNight(published=features.end(rails, source, as_of), ingest=landed, transform=build, checks=summary)


def day(number: int) -> date:
    return (FIRST + number * NIGHT).date()


def ready(rails: Rails, number: int) -> set[str]:
    """The models that may start on a night."""
    specs = portfolio(rails.settings)
    return {name for name, ready in due.ready_nights(rails, specs, day(number)).items() if ready}


def states(rails: Rails, number: int) -> dict[str, str]:
    return {
        state.table: state.state for state in rails.ledger.table_states(until=day(number)) if state.night == day(number)
    }


def scored(rails: Rails, model: str, number: int) -> pd.DataFrame:
    """Score a night of a model; its rows, with how the tables stood that were not good."""
    as_of = FIRST + number * NIGHT
    scoring.score_night(rails, find(rails.settings.models, model), as_of)
    rows = rails.lake.query("select * from {ops.prediction} where model = $model", as_of, {"model": model})
    return rows[rows["night"].astype(str) == str(day(number))]


def content(rails: Rails, table: str) -> pd.DataFrame:
    """A table as it is in service."""
    end = FIRST + 300 * NIGHT
    return rails.lake.query(f"select * from {{{table}}} order by all", end, None, rails.publication())


def test_a_view_of_two_sources_waits_for_the_last_of_them_whichever_that_is(rails: Rails) -> None:
    assert ready(rails, 0) == {"till", "flow", "blend"}
    for number, (early, late) in ((1, ("shop", "web")), (2, ("web", "shop"))):
        deliver(rails, number, early, late)
        before = content(rails, "features.ftr_shop__both")
        own = {"shop": "features.ftr_shop__sales", "web": "features.ftr_shop__traffic"}
        others = content(rails, own[late])
        outcome = a_night(rails, number, early).published
        assert outcome.waiting == {BOTH: (late,)}
        assert BOTH not in outcome.settled
        assert ready(rails, number) == ({"till"} if early == "shop" else set())
        pd.testing.assert_frame_equal(content(rails, "features.ftr_shop__both"), before)
        pd.testing.assert_frame_equal(content(rails, own[late]), others)
        own_before = content(rails, own[early])

        outcome = a_night(rails, number, late).published
        assert BOTH in outcome.published
        assert not outcome.waiting
        assert ready(rails, number) == {"till", "flow", "blend"}
        assert len(content(rails, "features.ftr_shop__both")) == len(before) + 4
        pd.testing.assert_frame_equal(content(rails, own[early]), own_before)
        for model in bazaar.READS:
            rows = scored(rails, model, number)
            assert len(rows) == 2
            assert rows["request_id"].is_unique


def test_a_closed_source_is_neither_late_nor_empty_nor_old(rails: Rails) -> None:
    """Two nights without a delivery, of which the first is closed. Without it, rows are older than they may be on both,
    and the views that the shop alone feeds have none."""
    suite = rails.settings.expectations / "features" / "default.yaml"
    suite.write_text("expectations: []\n", encoding="utf-8")
    bazaar.contract(rails.settings, "shop", "due_by: 6h, closed: [2025-03-04]")
    path = rails.settings.dbt / "models" / "staging" / "shop" / "_shop__sources.yml"
    limit = "config: {freshness: {error_after: {count: 30, period: hour}}, meta:"
    path.write_text(path.read_text(encoding="utf-8").replace("config: {meta:", limit), encoding="utf-8")
    deliver(rails, 1, "web")
    a_night(rails, 1, "shop")
    a_night(rails, 1, "web")
    assert set(states(rails, 1).values()) == {"published"}
    assert ready(rails, 1) == {"till", "flow", "blend"}
    assert scored(rails, "till", 1).empty

    bazaar.contract(rails.settings, "shop", "closed: [2025-03-04]")
    path.write_text(path.read_text(encoding="utf-8").replace("config: {meta:", limit), encoding="utf-8")
    a_night(rails, 2, "shop")
    [state] = [state for state in rails.ledger.table_states(until=day(2)) if state.table == "raw.sale"]
    assert (state.night, state.state) == (day(2), "held")
    assert state.reason
    assert "age_hours" in state.reason


def test_rows_that_come_after_their_night_was_scored_are_counted_until_somebody_answers(rails: Rails) -> None:
    till = find(rails.settings.models, "till")
    deliver(rails, 1, "shop")
    a_night(rails, 1, "shop")
    assert shadow.shadow_night(rails, till, FIRST + NIGHT).unanswered == {}
    late = {"sale_id": "late", "shop_id": "a", "size": 1.0, "at": f"{day(0)}T12:00:00+00:00"}
    deliver(rails, 2, "shop")
    bazaar.deliver(rails.settings, "shop", day(1), [late], of=".late")
    a_night(rails, 2, "shop")
    assert shadow.shadow_night(rails, till, FIRST + 2 * NIGHT).unanswered == {day(1): 1}
    text = describe.model(status.status(rails, till))
    assert f"unanswered   1 row of {day(1)}: known after that night was scored" in text
    assert f"tiltyard shadow till --as-of {day(1)}" in text
    rails.ledger.begin("till", day(2))  # as if what was scored before were of another model of that name
    assert shadow.evaluate(rails, till, FIRST + 2 * NIGHT).unanswered == {}
    shadow.shadow_night(rails, till, FIRST + NIGHT)
    assert shadow.evaluate(rails, till, FIRST + 2 * NIGHT).unanswered == {}


def test_of_two_sources_that_publish_at_once_one_is_the_last(rails: Rails) -> None:
    deliver(rails, 1, "shop", "web")
    as_of = FIRST + NIGHT
    for source in ("shop", "web"):
        features.ingest(rails, as_of, [source])
    for source in ("shop", "web"):
        build = features.transform(rails, as_of, [source])
        features.check(rails, source, as_of, build, render=False)
    outcomes: dict[str, features.PublishedNight] = {}

    def publish(source: str) -> None:
        with rails_module.opened(rails.settings) as own:
            outcomes[source] = features.publish(own, source, as_of)

    threads = [threading.Thread(target=publish, args=(source,)) for source in ("shop", "web")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [BOTH in outcomes[source].published for source in ("shop", "web")].count(True) == 1
    assert set(states(rails, 1).values()) == {"published"}
    newest = max(outcome.snapshot or 0 for outcome in outcomes.values())
    assert rails.publication().of(BOTH) == newest, "judged last, it holds the rows of both"
    assert features.publish(rails, "shop", as_of) == outcomes["shop"], "twice is once"


def test_a_source_that_is_late_stops_no_model_and_is_caught_up_with(rails: Rails) -> None:
    for source in ("shop", "web"):
        bazaar.contract(rails.settings, source, "due_by: 5h")
    deliver(rails, 1, "shop")
    assert a_night(rails, 1, "shop").published.waiting == {BOTH: ("web",)}
    late = a_night(rails, 1, "web")
    assert {state.table: state.state for state in late.published.unpublished} == {
        "raw.click": "late", "stg_web__click": "late", "ftr_shop__traffic": "late", BOTH: "late",
    }  # fmt: skip
    assert late.checks is not None
    assert late.checks.reason is not None
    assert "web had until 2025-03-05 05:00 UTC and has delivered nothing for the night" in late.checks.reason
    assert "its newest delivery is that of 2025-03-03" in late.checks.reason
    assert rails.ledger.stage_status("features", "web", day(1)) == "stopped"
    assert ready(rails, 1) == {"till", "flow", "blend"}
    for model, apart in (("till", 0), ("flow", 2), ("blend", 2)):
        rows = scored(rails, model, 1)
        assert (len(rows), rows["apart"].notna().sum()) == (2, apart), "with what there is"

    deliver(rails, 1, "web")  # a day late, together with the next day's
    deliver(rails, 2, "shop", "web")
    assert not a_night(rails, 2, "web").published.unpublished
    assert not a_night(rails, 2, "shop").published.unpublished
    assert not rails.publication().unpublished([BOTH, "ftr_shop__traffic"])
    assert len(content(rails, "features.ftr_shop__both")) == 12, "no row is lost, none is there twice"
    assert scored(rails, "blend", 2)["apart"].isna().all()


def test_a_late_source_of_the_spine_is_caught_up_with_and_nothing_is_scored_twice(rails: Rails) -> None:
    bazaar.contract(rails.settings, "shop", "due_by: 5h")
    till = find(rails.settings.models, "till")
    for number in (1, 2, 3):
        deliver(rails, number, "web")
        a_night(rails, number, "web")
        with pytest.raises(CheckFailed, match="shop had until"):
            features.build_night(rails, FIRST + number * NIGHT, ["shop"], render=False)
        assert states(rails, number)["spn_sale"] == "late"
        assert scoring.waits_for(rails.publication(), till, FIRST + number * NIGHT) is not None
    for number in (1, 2, 3, 4):
        deliver(rails, number, "shop")
    deliver(rails, 4, "web")
    a_night(rails, 4, "shop")
    for number in (1, 2, 3, 4):
        assert day(number) in due.ready_nights(rails, [till])["till"]
        assert scoring.waits_for(rails.publication(), till, FIRST + number * NIGHT) is None
        for _ in range(2):
            assert len(scored(rails, "till", number)) == 2
    every = rails.lake.query("select * from {ops.prediction} where model = 'till'", FIRST + 9 * NIGHT)
    assert len(every) == 8
    assert every["request_id"].is_unique


def test_of_two_workers_whose_clocks_differ_each_reads_what_the_other_wrote(
    rails: Rails, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written as views are: what was built after its own newest row is new to a view."""
    fed = "select shop_id, size as moved, event_time, available_at, built_at from "
    rows = f"{fed} {{{{ ref('stg_shop__sale') }}}} union all {fed} {{{{ ref('stg_web__click') }}}}"
    view = f"""{{{{ config(materialized='incremental', unique_key='shop_id', contract={{'enforced': false}}) }}}}
        with rows as ({rows})
        select shop_id, moved, event_time, available_at, {{{{ built_at() }}}} as built_at from rows
        {{% if is_incremental() %}}
        where shop_id in (select shop_id from rows where built_at > {{{{ last_built() }}}})
        {{% endif %}}"""
    (rails.settings.dbt / "models" / "features" / f"{BOTH}.sql").write_text(view, encoding="utf-8")
    for source, (table, key) in bazaar.TABLES.items():
        staging = f"""{{{{ config(materialized='incremental', incremental_strategy='append',
            contract={{'enforced': false}}) }}}}
            select {key}, shop_id, size, ingested_at, {bazaar.TIMES} from {{{{ source('{source}', '{table}') }}}}
            {{% if is_incremental() %}} where ingested_at > {{{{ last_ingested() }}}} {{% endif %}}"""
        path = rails.settings.dbt / "models" / "staging" / source / f"stg_{source}__{table}.sql"
        path.write_text(staging, encoding="utf-8")
    rails.lake.connection.execute("drop table lake.staging.stg_shop__sale")
    rails.lake.connection.execute("drop table lake.staging.stg_web__click")
    rails.lake.connection.execute(f"drop table lake.features.{BOTH}")
    real = datetime
    for number in (1, 2):
        for source, shop, ahead in (("shop", "a", 120), ("web", "c", 0)):
            row = {bazaar.TABLES[source][1]: f"{number}-{shop}", "shop_id": shop, "size": 1.0}
            noon = f"{day(number - 1)}T12:00:00+00:00"
            bazaar.deliver(rails.settings, source, day(number - 1), [{**row, "at": noon}])

            class Shifted(real):
                @classmethod
                def now(cls, tz: tzinfo | None = None, ahead: int = ahead) -> datetime:  # type: ignore[override]
                    return real.now(tz) + timedelta(seconds=ahead)

            with monkeypatch.context() as trap:
                trap.setattr("dbt.tracking.datetime", Shifted)
                a_night(rails, number, source)
    moved = content(rails, f"features.{BOTH}").groupby("shop_id").size().to_dict()
    assert moved == {"a": 2 + 2, "b": 2, "c": 2}


def test_what_nobody_foresaw_of_one_source_ends_no_other(rails: Rails, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(rails, 1, "shop", "web")
    usual = features.transform

    def transform(opened: Rails, as_of: datetime, sources: Sequence[str], **more: Collection[str]) -> BuildSummary:
        if list(sources) == ["shop"]:
            raise ZeroDivisionError("nobody foresaw it")
        return usual(opened, as_of, sources, **more)

    with monkeypatch.context() as trap:
        trap.setattr(features, "transform", transform)
        night = features.build_night(rails, FIRST + NIGHT, render=False)
    assert night.sources["shop"].error == "nobody foresaw it"
    assert "ftr_shop__traffic" in night.sources["web"].published.published
    assert rails.ledger.stage_status("features", "web", day(1)) == "done"
    night = features.build_night(rails, FIRST + NIGHT, render=False)
    assert night.unpublished == (), "of a table that both feed, the verdict of the one that came last counts"
    assert set(states(rails, 1).values()) == {"published"}


def test_a_slower_attempt_takes_nothing_back_that_was_published_since(rails: Rails) -> None:
    bazaar.contract(rails.settings, "shop", "due_by: 5h")
    deliver(rails, 1, "web")
    a_night(rails, 1, "web")
    as_of = FIRST + NIGHT
    build = features.transform(rails, as_of, ["shop"])
    late = features.check(rails, "shop", as_of, build, render=False)
    assert not late.published
    deliver(rails, 1, "shop")
    assert not a_night(rails, 1, "shop").published.unpublished
    features._recorded(rails, "shop", as_of.date(), late)
    features.end(rails, "shop", as_of)
    assert rails.ledger.stage_status("features", "shop", day(1)) == "done"
    assert set(states(rails, 1).values()) == {"published"}


def test_a_source_that_is_active_no_more_stops_nobody_with_what_it_left_behind(rails: Rails) -> None:
    bazaar.contract(rails.settings, "web", "due_by: 1h")
    deliver(rails, 1, "shop")
    for source in ("shop", "web"):
        a_night(rails, 1, source)
    assert states(rails, 1)[BOTH] == "late"
    alone = Rails(rails.settings.model_copy(update={"sources": ("shop",)}), rails.lake, rails.ledger)
    deliver(rails, 2, "shop")
    assert BOTH in a_night(alone, 2, "shop").published.published


def test_a_table_that_is_held_on_moves_to_an_older_night_that_is_mended(rails: Rails) -> None:
    view = "ftr_shop__sales"
    suite = rails.settings.expectations / "features" / f"{view}.yaml"
    for number in (1, 2, 3):
        suite.write_text(NEVER_MET, encoding="utf-8")
        deliver(rails, number, "shop")
        a_night(rails, number, "shop")
    suite.unlink()
    assert view in a_night(rails, 2, "shop").published.published
    suite.write_text(NEVER_MET, encoding="utf-8")
    for number in (3, 4):
        deliver(rails, number, "shop")
        a_night(rails, number, "shop")
        [state] = [state for state in rails.ledger.table_states(until=day(number)) if state.table == view]
        assert (state.state, state.good_night, state.since) == ("held", day(2), day(3))
    assert len(content(rails, f"features.{view}")) == 6, "the rows of the nights up to the mended one"


@pytest.mark.parametrize("schedule", ["none", "0 3 1 * *"])
def test_a_source_without_a_run_for_the_night_is_not_waited_for(rails: Rails, schedule: str) -> None:
    bazaar.contract(rails.settings, "web", f'schedule: "{schedule}"')
    deliver(rails, 1, "shop")
    outcome = a_night(rails, 1, "shop").published
    assert not outcome.waiting
    assert BOTH in outcome.published, "with what there is"
    assert ready(rails, 1) == {"till", "flow", "blend"}
    for model in bazaar.READS:
        assert scored(rails, model, 1)["tier"].eq("safe_default").all()
    deliver(rails, 2, "shop", "web")
    assert a_night(rails, 2, "web").published.published, "by hand, it is done like any other"


def test_a_view_is_moved_from_one_source_to_another(rails: Rails) -> None:
    deliver(rails, 1, "shop", "web")
    a_night(rails, 1, "shop")
    a_night(rails, 1, "web")
    before = rails.publication().of("ftr_shop__sales")
    sql = bazaar.MODELS["features/ftr_shop__traffic"].replace("clicks", "amount")
    bazaar.model(rails.settings, "features/ftr_shop__sales", sql)
    deliver(rails, 2, "shop", "web")
    outcome = a_night(rails, 2, "web").published
    assert "ftr_shop__sales" in outcome.published
    assert rails.publication().of("ftr_shop__sales") == outcome.snapshot != before
    assert "ftr_shop__sales" not in a_night(rails, 2, "shop").published.settled
    assert rails.publication().of("ftr_shop__sales") == outcome.snapshot, "it is not put back"
    assert ready(rails, 2) == {"till", "flow", "blend"}
    assert len(content(rails, "features.ftr_shop__sales")) == 6
    bazaar.model(rails.settings, "features/ftr_shop__sales", bazaar.MODELS["features/ftr_shop__sales"])
    deliver(rails, 3, "shop", "web")
    assert "ftr_shop__sales" not in a_night(rails, 3, "web").published.settled
    assert "ftr_shop__sales" in a_night(rails, 3, "shop").published.published


def test_rubbish_and_a_contract_that_cannot_be_read_are_one_source_s(rails: Rails) -> None:
    deliver(rails, 1, "shop")
    bazaar.deliver(rails.settings, "web", day(0), [{"this": "is", "no": "delivery"}])
    bazaar.contract(rails.settings, "web", "due_by: 0h")
    web = a_night(rails, 1, "web")
    assert web.ingest is not None
    assert web.ingest.quarantined
    assert {state.state for state in web.published.unpublished} == {"late"}
    assert set(a_night(rails, 1, "shop").published.published) >= {"spn_sale", "ftr_shop__sales"}
    assert states(rails, 1)[BOTH] == "late"

    path = rails.settings.dbt / "models" / "staging" / "web" / "_web__sources.yml"
    sound = path.read_text(encoding="utf-8")
    path.write_text("sources: [", encoding="utf-8")
    deliver(rails, 2, "shop")
    with pytest.raises(BadInput, match="not readable as YAML"):
        features.build_night(rails, FIRST + 2 * NIGHT, ["web"], render=False)
    assert rails.ledger.stage_status("features", "web", day(2)) == "failed"
    assert states(rails, 2)["ftr_shop__traffic"] == "blocked", "nobody waits for it"
    path.write_text(sound, encoding="utf-8")
    assert set(a_night(rails, 2, "shop").published.published) >= {"spn_sale", "ftr_shop__sales"}
    assert ready(rails, 2) >= {"till"}


def test_a_night_that_ended_before_it_was_judged_is_settled_and_told(rails: Rails) -> None:
    deliver(rails, 1, "shop", "web")
    assert a_night(rails, 1, "shop").published.waiting == {BOTH: ("web",)}
    ended = features.end(rails, "web", FIRST + NIGHT)  # a task that hung, and was killed
    assert {state.state for state in ended.unpublished} == {"failed", "blocked"}
    assert "its night ended before it was judged: it was ended from outside" in str(ended.unpublished[0].reason)
    assert ready(rails, 1) == {"till", "flow", "blend"}
    assert features.end(rails, "web", FIRST + NIGHT) == ended, "twice is once"
    assert not a_night(rails, 1, "web").published.unpublished, "done again, it is published"
    assert set(states(rails, 1).values()) == {"published"}


def test_a_query_that_hangs_costs_its_source_the_limit_and_no_other_anything(rails: Rails) -> None:
    deliver(rails, 1, "shop", "web")
    usual = features.transform(rails, FIRST + NIGHT, ["web"]).seconds
    settings = rails.settings.model_copy(update={"build_timeout_s": 5.0 + 3 * usual})
    slow = "select shop_id, count(*) as clicks, max(event_time) as event_time, max(available_at) as available_at, "
    slow += "{{ built_at() }} as built_at from {{ ref('stg_web__click') }}, range(3000000000) as a(i), range(9) "
    slow += "where hash(i) % 7 = 1 group by 1"
    bazaar.model(settings, "features/ftr_shop__traffic", slow)
    limited = Rails(settings, rails.lake, rails.ledger)
    web = a_night(limited, 1, "web")
    assert web.transform is not None
    assert "it took longer than TILTYARD_BUILD_TIMEOUT_S" in web.transform.failed["ftr_shop__traffic"]
    assert states(rails, 1)["ftr_shop__traffic"] == "failed"
    shop = a_night(limited, 1, "shop")
    assert not shop.published.unpublished or {state.table for state in shop.published.unpublished} == {BOTH}
    assert ready(rails, 1) == {"till", "flow", "blend"}


def test_a_place_that_is_away_makes_its_table_late_and_is_caught_up_with(rails: Rails) -> None:
    assert rails.settings.database_url is not None
    name = f"till_{uuid.uuid4().hex[:8]}"
    url = sa.make_url(rails.settings.database_url)
    with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    there = url.set(database=name).render_as_string(hide_password=False)
    with sa.create_engine(there).begin() as connection:
        connection.execute(sa.text("create table sale (sale_id text, shop_id text, size float, at timestamptz)"))
        rows = [{"id": f"{number}-{shop}", "shop": shop, "at": f"{day(number - 1)} 12:00+00"}
                for number in (1, 2) for shop in "ab"]  # fmt: skip
        connection.execute(sa.text("insert into sale values (:id, :shop, 1, :at)"), rows)
    path = rails.settings.dbt / "models" / "staging" / "shop" / "_shop__sources.yml"
    contract = path.read_text()

    def fetched_from(address: str) -> None:
        available = "available_at: {column: at}"
        place = f"{available}\n              fetch: {{from: '{address}#sale', cursor: at}}"
        path.write_text(contract.replace(available, place))

    fetched_from("postgresql://127.0.0.1:1/till")
    deliver(rails, 1, "web")
    late = a_night(rails, 1, "shop")
    assert late.published.unpublished[0].state == "late"
    assert late.checks is not None
    assert late.checks.reason is not None
    assert "it could not be fetched for the night: postgresql://127.0.0.1:1/till does not answer" in late.checks.reason
    assert "ftr_shop__traffic" in a_night(rails, 1, "web").published.published, "the other source goes on"
    fetched_from(there)
    deliver(rails, 2, "web")
    assert not a_night(rails, 2, "shop").published.unpublished
    assert len(content(rails, "spines.spn_sale")) == 6, "both nights are there, each row once"
