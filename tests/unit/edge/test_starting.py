"""What `tiltyard start` decides before Airflow is asked: whose nights start by themselves, and what it says."""

import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest

from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.edge import starting
from tiltyard.errors import BadInput
from tiltyard.prepare import contracts
from tiltyard.records import FeaturesSummary
from tiltyard.settings import Settings

TODAY = clock.now().date()


def home(settings: Settings, newest: dict[str, date]) -> Settings:
    """Of a home in whose landing zone the newest delivery of each source is that of a day."""
    for source, day in newest.items():
        folder = settings.landing / source / "update"
        folder.mkdir(parents=True)
        (folder / f"{day}.csv").write_text("a\n1\n")
    return settings.model_copy(update={"sources": tuple(sorted(newest))})


def test_nights_start_by_themselves_where_a_source_still_delivers(settings: Settings) -> None:
    with rails_module.opened(home(settings, {"incident": TODAY - timedelta(days=1)})) as rails:
        unscheduled, sources, notes = starting.scheduled(rails)
    assert (unscheduled, notes) == ((), ())
    assert [(each.name, each.schedule, each.models) for each in sources] == [("incident", "0 0 * * *", ("sla_breach",))]


def test_no_night_starts_by_itself_where_all_data_is_of_the_past_and_the_way_out_is_named(settings: Settings) -> None:
    with rails_module.opened(home(settings, {"incident": date(2016, 5, 31), "retail": date(2011, 10, 1)})) as rails:
        unscheduled, sources, notes = starting.scheduled(rails)
    assert unscheduled == ("incident", "retail")
    assert {each.schedule for each in sources} == {None}
    assert "incident: its newest delivery is that of 2016-05-31" in notes[0]
    assert "tiltyard start --night 2016-06-01" in notes[0]


def test_the_night_that_is_named_is_the_one_that_is_due(settings: Settings) -> None:
    with rails_module.opened(home(settings, {"incident": date(2016, 5, 31)})) as rails:
        rails.ledger.record_stage("incident", date(2016, 4, 21), "done", FeaturesSummary())
        [note] = starting.scheduled(rails)[2]
        assert "tiltyard start --night 2016-04-22 lets the one run that is due" in note
        rails.ledger.record_bad_end("incident", date(2016, 6, 1), "stopped", FeaturesSummary())
        [note] = starting.scheduled(rails)[2]
    assert note.endswith("its newest night is that of 2016-06-01: none is due until it delivers again.")


def test_a_source_of_the_past_beside_one_that_delivers_is_named(settings: Settings) -> None:
    with rails_module.opened(home(settings, {"incident": TODAY, "retail": date(2011, 10, 1)})) as rails:
        unscheduled, sources, [note] = starting.scheduled(rails)
        settings = rails.settings.model_copy(update={"unscheduled": unscheduled})
    assert "retail: its newest delivery is that of 2011-10-01, so that no night starts by itself" in note
    assert {each.name: each.schedule for each in sources} == {"incident": "0 0 * * *", "retail": None}
    assert contracts.schedule(settings, "retail") is None and contracts.schedule(settings, "incident") is not None


def test_a_delivery_that_is_yet_to_come_is_none_that_a_source_still_brings(settings: Settings) -> None:
    """A mistyped year in one file keeps no source of the past awake."""
    made = home(settings, {"incident": date(2016, 5, 31)})
    (settings.landing / "incident" / "update" / f"{TODAY + timedelta(days=150)}.csv").write_text("a\n1\n")
    with rails_module.opened(made) as rails:
        unscheduled, [incident], [note] = starting.scheduled(rails)
    assert (unscheduled, incident.newest) == (("incident",), date(2016, 5, 31))
    assert "tiltyard start --night 2016-06-01" in note


def test_a_source_of_which_nothing_has_landed_is_named_with_its_folder(settings: Settings) -> None:
    with rails_module.opened(settings.model_copy(update={"sources": ("flights",)})) as rails:
        unscheduled, [flights], [note] = starting.scheduled(rails)
    assert (unscheduled, flights.newest, flights.schedule) == ((), None, "0 0 * * *")
    assert str(settings.landing / "flights") in note


def test_a_source_that_is_fetched_is_not_of_the_past_and_begins_with_its_first_night(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "dbt" / "models" / "staging" / "shop" / "_shop__sources.yml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "sources: [{name: shop, tables: [{name: visit, columns: [{name: at, data_type: timestamptz}], config: {meta: "
        "{tiltyard: {event_time: {column: at}, available_at: {column: at}, fetch: {from: '/exports/*.csv'}}}}}]}]\n"
    )
    own = settings.model_copy(update={"dbt": tmp_path / "dbt", "sources": ("shop",)})
    with rails_module.opened(own) as rails:
        assert starting.scheduled(rails)[2] == ("shop: nothing has landed yet; its first night fetches it.",)
        delivery = own.landing / "shop" / "visit" / "2016-05-01.csv"
        delivery.parent.mkdir(parents=True)
        delivery.write_text("at\n")
        assert starting.scheduled(rails)[2] == ()


def test_a_source_without_a_contract_is_named_with_both_ways_out(settings: Settings) -> None:
    with rails_module.opened(home(settings, {"incident": TODAY, "gone": TODAY})) as rails:
        _, _, [note] = starting.scheduled(rails)
    assert "gone: it has files in the landing zone and no contract" in note
    assert "tiltyard new source gone" in note
    assert "tiltyard remove gone" in note


def test_a_night_is_of_the_sources_that_delivered_then(settings: Settings) -> None:
    with rails_module.opened(home(settings, {"incident": date(2016, 5, 31), "retail": date(2011, 10, 1)})) as rails:
        specs, sources = starting.portfolio(rails.settings), ("incident", "retail")
        for night, source, model in (
            ("2016-06-02", "incident", "sla_breach"),
            ("2011-10-02", "retail", "customer_repurchase"),
        ):
            live = starting._live(rails, clock.parse_night(night), sources, specs)
            assert (live.sources, [spec.name for spec in live.specs]) == ((source,), [model])
        with pytest.raises(BadInput, match=r"The night of 2014-01-01 is no model.s: none of their sources "):
            starting._live(rails, clock.parse_night("2014-01-01"), sources, specs)


def test_outside_a_checkout_nothing_is_started(settings: Settings, tmp_path: Path) -> None:
    shutil.copytree(settings.models, tmp_path / "models")
    nowhere = settings.model_copy(update={"models": tmp_path / "models", "dbt": tmp_path / "no"})
    with pytest.raises(BadInput, match=r"There is no dbt folder at .*; run it in a checkout"):
        starting.start(nowhere, (), lambda *_: None, by="tests")
