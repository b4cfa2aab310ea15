"""Which nights a task works on, and what counts as a person's answer."""

import sqlite3
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.context import OutletEventAccessors

from tests import bazaar
from tiltyard import clock
from tiltyard.edge import approvals, due, proposals, task_run, work
from tiltyard.edge import nights as run_nights
from tiltyard.edge.answers import RecordedAnswer
from tiltyard.edge.assets import granted_assets, settled_assets
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.govern import grants
from tiltyard.judge.approval import Approval, Subject
from tiltyard.prepare import features
from tiltyard.rails import Rails, opened
from tiltyard.records import (
    FeaturesSummary,
    Finding,
    GovernorAction,
    GovernorSummary,
    PortfolioNight,
    PromotionSummary,
    ShadowSummary,
    TrainingSummary,
)
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, load, portfolio
from tiltyard.stages import StageName

SPEC = load(ROOT / "models" / "sla_breach")


def april(*days: int) -> set[date]:
    return {date(2016, 4, day) for day in days}


def event(as_of: Any) -> Any:
    return SimpleNamespace(extra={"as_of": as_of} if as_of else {}, source_task_id="publish")


@pytest.mark.parametrize(
    "finished, own, missed",
    [
        (april(), april(), april()),
        (april(1, 2, 3), april(1, 2, 3), april()),
        (april(1, 2, 3), april(1, 2), april(3)),
        (april(1, 2, 3), april(1, 3), april(2)),  # an event was lost in between
        (april(1, 2, 3), april(), april(1, 2, 3)),  # a new model begins with what there is
        (april(1, 20, 21), april(20), april(21)),  # and an old gap stays a gap
    ],
)
def test_the_sweep(finished: set[date], own: set[date], missed: set[date]) -> None:
    assert run_nights.missed_nights(finished, own) == missed


def test_events_that_were_put_into_one_run_name_each_night_once() -> None:
    events = {
        "a": [event(["2016-04-02T00:00:00+00:00"]), event(["2016-04-03T00:00:00+00:00"])],
        "b": [event(["2016-04-03T00:00:00+00:00", "2016-04-01T00:00:00+00:00"]), event(None), event("2016-04-02")],
    }
    assert task_run.nights_of(events) == april(1, 2, 3)


def test_an_event_without_a_date_in_it_is_refused() -> None:
    with pytest.raises(BadInput, match="not a date"):
        task_run.nights_of({"a": [event("'; drop table")]})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run(as_of=…, events=…)`: what Airflow would tell the task about its run."""

    def set_up(
        as_of: str | None = None, events: dict[str, list[Any]] | None = None, attempt: int = 1, **more: Any
    ) -> None:
        context = {"params": {"as_of": as_of}, "triggering_asset_events": events or {}, **more}
        context.setdefault("dag_run", SimpleNamespace(triggering_user_name=None, run_type="scheduled"))
        context["ti"] = SimpleNamespace(try_number=attempt)
        monkeypatch.setattr(task_run, "get_current_context", lambda: context)

    return set_up


def nights(rails: Rails, stage: StageName) -> list[date]:
    return [as_of.date() for as_of in run_nights.nights(rails, stage, SPEC)]


def test_nights_of_a_run(rails: Rails, run: Any) -> None:
    run()
    with pytest.raises(BadInput, match="No night to do"):
        nights(rails, "promotion")

    for day in sorted(april(1, 2, 3)):
        rails.ledger.record_stage(SPEC.name, day, "done", ShadowSummary())
    rails.ledger.record_stage(SPEC.name, date(2016, 4, 4), "stopped", ShadowSummary())
    rails.ledger.record_stage(SPEC.name, date(2016, 4, 1), "done", PromotionSummary())

    run(events={"a": [event("2016-04-03")]})
    assert set(nights(rails, "promotion")) == april(2, 3), "the announced one, and the one that was missed"
    run(events={"a": [event("2016-04-01")]})
    assert set(nights(rails, "promotion")) == april(1, 2, 3), "an announced night is done again"
    run(as_of="2016-04-04", events={"a": [event("2016-04-03")]})
    assert nights(rails, "promotion") == [date(2016, 4, 4)], "the parameter alone counts"

    for day in sorted(april(2, 3)):
        rails.ledger.record_stage(SPEC.name, day, "done", PromotionSummary())
    run()
    assert nights(rails, "promotion") == [date(2016, 4, 3)], "by hand, with nothing waiting: the newest again"
    run(events={"a": [event("2016-04-04")]})
    with pytest.raises(BadInput):
        nights(rails, "promotion")  # announced, but it was stopped

    rails.ledger.request_retrain(SPEC.name, date(2016, 4, 3), ["it moved"])
    run()
    assert nights(rails, "training") == [date(2016, 4, 3)]

    rails.ledger.record_stage(SPEC.name, date(2016, 4, 3), "stopped", TrainingSummary(reason="it leaks"))
    rails.ledger.request_retrain(SPEC.name, date(2016, 4, 4), ["it moved again"])
    run(events={"a": [event("2016-04-04")]})
    assert nights(rails, "training") == [date(2016, 4, 4)], "what was stopped stands in nobody's way"


def test_a_model_that_a_hindcast_plays_is_left_to_it(rails: Rails, run: Any) -> None:
    night, other = date(2016, 4, 1), SPEC.model_copy(update={"name": "other"})
    rails.ledger.record_stage("", night, "done", FeaturesSummary())
    for spec in (SPEC, other):
        rails.ledger.record_stage(spec.name, night, "done", ShadowSummary())
        found(rails, spec.name, night)
    run()
    with rails.ledger.playing([SPEC.name]):
        with pytest.raises(AirflowSkipException, match=f"A hindcast plays {SPEC.name} at this moment"):
            nights(rails, "promotion")
        assert [as_of.date() for as_of in run_nights.governed_nights(rails, [SPEC, other])] == [night]
        assert grants.taking_part(rails, [SPEC, other], night) == [other], "and nothing is decided on it"
        run(as_of=str(night))
        with pytest.raises(BadInput, match=f"A hindcast plays {SPEC.name} at this moment; wait until it has ended"):
            nights(rails, "promotion")
    assert nights(rails, "promotion") == [night]
    assert grants.taking_part(rails, [SPEC, other], night) == [SPEC, other]


def test_a_night_that_is_stopped_keeps_no_later_one_from_its_work(rails: Rails) -> None:
    def work(rails: Rails, spec: Spec, as_of: datetime) -> ShadowSummary:
        if as_of.day in (1, 3):
            raise CheckFailed(f"it is the {as_of.day}.")
        done.append(as_of.day)
        return ShadowSummary()

    done: list[int] = []
    when = [datetime(2016, 4, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    with pytest.raises(CheckFailed, match=r"2016-04-01: it is the 1\. 2016-04-03: it is the 3\."):
        run_nights.each_night(rails, SPEC, when, work)
    assert done == [2, 4]
    with pytest.raises(CheckFailed, match=r"^it is the 3\.$"):
        run_nights.each_night(rails, SPEC, when[1:], work)


def test_nights_of_the_governor(rails: Rails, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [SPEC, SPEC.model_copy(update={"name": "other"})]

    def nights() -> list[date]:
        return [as_of.date() for as_of in run_nights.governed_nights(rails, specs)]

    run()
    with pytest.raises(AirflowSkipException, match="not decided on"):
        nights()
    first, second = date(2016, 4, 1), date(2016, 4, 2)
    rails.ledger.record_stage("", first, "done", FeaturesSummary())
    found(rails, SPEC.name, first)
    with pytest.raises(AirflowSkipException, match=r"waits for 1 of 2: other\."):
        nights()
    run(as_of="2016-04-01")
    assert nights() == [first], "by hand nobody is waited for"
    run()
    found(rails, "other", first)
    assert nights() == [first]

    steady = GovernorAction(decision="steady")
    rails.ledger.record_stage("", first, "done", GovernorSummary(actions={SPEC.name: steady, "other": steady}))
    with pytest.raises(AirflowSkipException):
        nights()
    event_of_first = {"a": [event("2016-04-01")]}
    run(events=event_of_first, attempt=2)
    assert nights() == [first], "a second attempt announces again what the first may not have"

    # the next night is published while one model has not come: the night before waits for nobody any more
    rails.ledger.record_stage("", first, "done", GovernorSummary(actions={SPEC.name: steady}))
    rails.ledger.record_stage("", second, "done", FeaturesSummary())
    run()
    assert nights() == [first], "a finding that came late is decided on as well"


def test_the_governor_waits_for_nobody_longer_than_it_was_told(
    rails: Rails, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that never comes, and of which nothing says that it will not, keeps the others for some hours."""
    specs, night = [SPEC, SPEC.model_copy(update={"name": "other"})], date(2016, 4, 1)
    rails.ledger.record_stage("", night, "done", FeaturesSummary())
    found(rails, SPEC.name, night)
    published = clock.now()
    for hours, missing in ((0.0, ["other"]), (5.9, ["other"]), (6.1, [])):
        assert grants.waiting(rails, specs, night, published + timedelta(hours=hours)) == missing
    rails.ledger.record_stage("other", night, "failed", ShadowSummary(reason="it hangs"))
    assert grants.waiting(rails, specs, night, published) == [], "what has failed is not waited for at all"


def test_sources_whose_data_are_years_apart_wait_for_none_of_each_other(rails: Rails, run: Any) -> None:
    """Each has its own newest night, and a model of the one does not keep a night of the other."""
    rails = replace(rails, settings=rails.settings.model_copy(update={"schedule": "none"}))
    other = SPEC.model_copy(update={"name": "other", "source": "retail"})
    for source, model, night in (
        ("retail", "other", date(2011, 10, 28)),
        ("incident", SPEC.name, date(2016, 4, 1)),
        ("incident", SPEC.name, date(2016, 4, 2)),
    ):
        rails.ledger.record_stage(source, night, "done", FeaturesSummary())
        found(rails, model, night)
    run()
    nights = run_nights.governed_nights(rails, [SPEC, other])
    assert [as_of.date() for as_of in nights] == [date(2011, 10, 28), date(2016, 4, 1), date(2016, 4, 2)]
    assert grants.taking_part(rails, [SPEC, other], date(2011, 10, 28)) == [other]
    assert grants.taking_part(rails, [SPEC, other], date(2016, 4, 2)) == [SPEC]


def test_whoever_started_a_run_by_hand_is_known_where_its_event_is_worked_on(run: Any) -> None:
    by_hand = SimpleNamespace(triggering_user_name="ann")
    run(dag_run=by_hand)
    extra = task_run.about([clock.midnight(date(2016, 4, 1))])
    assert extra == {"as_of": ["2016-04-01T00:00:00+00:00"], "requested_by": ["ann"]}
    by_bob = {**extra, "requested_by": ["bob"]}
    run(events={"a": [SimpleNamespace(extra=one, source_task_id="publish") for one in (extra, by_bob)]})
    assert task_run.requesters() == ("ann", "bob")
    run(events={"a": [event("2016-04-01")]})
    assert task_run.requesters() == ("airflow",)
    assert task_run.about([]) == {"as_of": []}, "a schedule is nobody"


def found(rails: Rails, model: str, night: date) -> None:
    rails.ledger.add_finding(Finding(model, night, 2, "tests", champion=1, challengers=()))


def test_only_granted_models_are_announced(rails: Rails, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [SPEC, SPEC.model_copy(update={"name": "other"})]
    granted = {date(2016, 4, 1): {SPEC.name: ("drift",)}, date(2016, 4, 2): {}}

    def decided(_: Rails, as_of: datetime, __: Any) -> PortfolioNight:
        return PortfolioNight(night=as_of.date(), granted=granted[as_of.date()])

    monkeypatch.setattr(grants, "govern_night", decided)
    accessor = OutletEventAccessors()
    run(outlet_events=accessor)
    work.grant(rails, specs, [clock.midnight(day) for day in granted])
    [announced] = accessor[granted_assets()].asset_alias_events
    assert announced.dest_asset_key.name == f"{SPEC.name}/drift"
    assert announced.extra == {"as_of": ["2016-04-01T00:00:00+00:00"]}


def test_an_answer_is_bound_to_what_was_asked() -> None:
    digest = "0a" * 32
    answer = RecordedAnswer(
        subject=proposals.question("sla_breach", 7, date(2016, 4, 20)),
        body=f"The gate says **promote**\n\nEvidence: `{digest}`",
        chosen=("Approve",),
        responded_at=datetime(2016, 4, 20, 8, tzinfo=UTC),
        responded_by="bob",
    )
    assert approvals.approval(answer, requested_by="airflow") == Approval(
        approved_by="bob",
        requested_by="airflow",
        chosen=("Approve",),
        responded_at=datetime(2016, 4, 20, 8, tzinfo=UTC),
        subject=Subject("sla_breach", 7, date(2016, 4, 20), digest),
        source="airflow",
    )


QUESTION = proposals.question("sla_breach", 7, date(2016, 4, 20))


@pytest.mark.parametrize(
    "answer",
    [
        RecordedAnswer(),
        RecordedAnswer(subject=f"{QUESTION} Really?", body=f"Evidence: `{'0a' * 32}`"),
        RecordedAnswer(subject=QUESTION, body="Evidence: `short`"),
        RecordedAnswer(subject=QUESTION),
    ],
)
def test_another_question_is_about_nothing(answer: RecordedAnswer) -> None:
    approval = approvals.approval(answer, requested_by="airflow")
    assert approval.subject is None
    assert approval.approved_by is None


def test_a_source_that_has_not_delivered_is_looked_for_until_it_is_due(
    tmp_path: Path, postgres_url: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = bazaar.settings_of(tmp_path, postgres_url)
    bazaar.contract(settings, "web", "due_by: 5h")
    as_of = datetime(2025, 3, 5, tzinfo=UTC)
    with opened(settings) as rails:

        def landed(source: str, hour: int) -> bool:
            monkeypatch.setattr(clock, "now", lambda: as_of + timedelta(hours=hour))
            outcome = task_run.looking(work.land(rails, source, as_of))
            assert (outcome.xcom_value is not None) == bool(outcome)
            return bool(outcome)

        run()
        assert landed("shop", 1), "it says nothing of when it is due"
        assert [landed("web", hour) for hour in (1, 4, 5)] == [False, False, True], "late, and gone on with"
        run(as_of="2025-03-05")
        assert landed("web", 1), "by hand, with what there is"
        run()
        bazaar.deliver(settings, "web", date(2025, 3, 3))
        assert not landed("web", 1), "that is of the night before"
        bazaar.deliver(settings, "web", date(2025, 3, 4))
        assert landed("web", 1)


def test_a_place_that_is_away_is_looked_for_until_its_source_is_due_and_read_by_a_connection_of_airflow(
    tmp_path: Path, postgres_url: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = bazaar.settings_of(tmp_path, postgres_url)
    bazaar.contract(settings, "web", "due_by: 5h")
    path = settings.dbt / "models" / "staging" / "web" / "_web__sources.yml"
    shop = tmp_path / "web.db"
    place = f"fetch: {{from: 'sqlite:///{shop}#click', cursor: at, connection: web_db}}"
    path.write_text(path.read_text().replace("available_at: {", f"{place}\n              available_at: {{"))
    as_of = datetime(2025, 3, 5, tzinfo=UTC)
    run()
    with opened(settings) as rails:
        monkeypatch.setattr(clock, "now", lambda: as_of + timedelta(hours=1))
        with pytest.raises(BadInput, match="There is no connection 'web_db'"):
            work.land(rails, "web", as_of)
        monkeypatch.setenv("AIRFLOW_CONN_WEB_DB", '{"conn_type": "sqlite"}')
        assert work.land(rails, "web", as_of) is None
        with sqlite3.connect(shop) as connection:
            connection.execute("create table click (click_id text, shop_id text, size double, at timestamp)")
            connection.execute("insert into click values ('c', 'a', 1.5, '2025-03-04 12:00:00.000000')")
        landed = work.land(rails, "web", as_of)
        assert landed is not None
        assert landed["rows"] == 1


def test_a_model_starts_when_every_source_that_it_reads_is_settled(tmp_path: Path, postgres_url: str, run: Any) -> None:
    settings = bazaar.settings_of(tmp_path, postgres_url)
    specs = {spec.name: spec for spec in portfolio(settings)}
    night = datetime(2025, 3, 5, tzinfo=UTC)

    def starts(name: str) -> list[date]:
        return list(due.lot(rails, "shadow", [specs[name]]).models.get(name, ()))

    with opened(settings) as rails:
        for source in settings.sources:
            bazaar.deliver(settings, source, date(2025, 3, 4))
        accessor = OutletEventAccessors()
        run(outlet_events=accessor)
        for source, announced in (("shop", {"ftr_shop__sales"}), ("web", {"ftr_shop__traffic", "ftr_shop__both"})):
            work.land(rails, source, night)
            work.check(rails, source, night, features.transform(rails, night, [source]).to_json())
            accessor[settled_assets()].asset_alias_events.clear()
            work.publish(rails, source, night)
            names = {item.dest_asset_key.name for item in accessor[settled_assets()].asset_alias_events}
            assert names >= {f"features/{view}" for view in announced}
            if source == "shop":
                assert starts("till") == [night.date()]
                assert [starts(name) for name in ("flow", "blend")] == [[], []], "they wait for a source"
        assert names == {"features/ftr_shop__sales", "features/ftr_shop__traffic", "features/ftr_shop__both"}
        for name in specs:
            assert starts(name) == [night.date()]
