"""A night that no source can have is refused wherever a run names one; a run by hand without one does the next due."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRun
from airflow.sdk.exceptions import AirflowFailException

from tests import bazaar
from tiltyard import clock
from tiltyard.cli import landed
from tiltyard.edge import metering, nights, task_run
from tiltyard.errors import BadInput
from tiltyard.rails import Rails, opened
from tiltyard.records import FeaturesSummary
from tiltyard.settings import Settings
from tiltyard.spec import find

TONIGHT = datetime(2025, 3, 9, 1, tzinfo=UTC)
"""It is one o'clock of this night."""


class Task(SimpleNamespace):
    """A task instance as far as it keeps what one task hands to another."""

    def __init__(self) -> None:
        super().__init__(dag_id="shop__features", run_id="r", task_id="ingest", try_number=1, kept={})

    def xcom_push(self, key: str, value: Any) -> None:
        self.kept[self.task_id, key] = value

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        return self.kept.get((task_ids, key))


@pytest.fixture(autouse=True)
def _metered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests of this process have used is not these nights'."""
    monkeypatch.setattr(metering, "meter", metering.Meter())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run(conf, by_hand=…)`: what Airflow would tell a task of a new run."""
    monkeypatch.setattr(clock, "now", lambda: TONIGHT)

    def started(conf: dict[str, Any] | None = None, *, by_hand: bool = True, end: datetime = TONIGHT) -> None:
        dag_run = DagRun.model_validate({  # as a task gets it: what it is told by JSON, with enums of Airflow's own
            "dag_id": "shop__features", "run_id": "r", "run_type": "manual" if by_hand else "scheduled",
            "state": "running", "conf": conf or {}, "logical_date": end, "run_after": end, "start_date": TONIGHT,
            "data_interval_start": end, "data_interval_end": end, "end_date": None, "consumed_asset_events": [],
            "partition_key": None, "triggering_user_name": "ann" if by_hand else None,
        })  # fmt: skip
        dag = SimpleNamespace(params={"as_of": None})
        context = {"params": {"as_of": None, **(conf or {})}, "dag_run": dag_run, "dag": dag, "ti": Task()}
        monkeypatch.setattr(task_run, "get_current_context", lambda: context)

    return started


@pytest.fixture
def rails(tmp_path: Path, postgres_url: str) -> Iterator[Rails]:
    settings = bazaar.settings_of(tmp_path, postgres_url)
    for day in range(1, 8):
        bazaar.deliver(settings, "shop", date(2025, 3, day))
    with opened(settings) as rails:
        yield rails


def test_a_run_by_hand_does_the_next_night_that_is_due_whatever_the_button_says(rails: Rails, run: Any) -> None:
    run()
    with pytest.raises(BadInput, match=r"No night of shop was done yet, and its newest delivery is that of 2025-03-07"):
        nights.begin(rails, "shop")
    for day in (3, 4):
        rails.ledger.record_stage("shop", date(2025, 3, day), "done", FeaturesSummary())
    rails.ledger.record_bad_end("shop", date(2025, 3, 5), "failed", FeaturesSummary())
    run(end=datetime(2025, 3, 1, tzinfo=UTC))
    assert nights.begin(rails, "shop").date() == date(2025, 3, 6)
    rails.ledger.record_stage("shop", date(2025, 3, 6), "done", FeaturesSummary())
    assert nights.end_of_run(rails, "shop").date() == date(2025, 3, 6), "its tasks are of one night"
    run(by_hand=False)
    assert nights.begin(rails, "shop").date() == date(2025, 3, 9), "one that starts by itself has its own"
    rails.ledger.record_stage("shop", date(2025, 3, 9), "done", FeaturesSummary())
    run()
    with pytest.raises(BadInput, match=r"No night of shop is due: .* the next one closes at 2025-03-10 00:00 UTC"):
        nights.begin(rails, "shop")


@pytest.mark.parametrize(
    "night, why",
    [("2031-03-07", "has not closed"), ("2025-03-10", "has not closed"), ("2055-03-07", "has not closed")],
)
def test_a_night_that_is_still_to_come_is_refused_by_whoever_is_asked_for_it(
    rails: Rails, run: Any, night: str, why: str
) -> None:
    run({"as_of": night})
    spec = find(rails.settings.models, "till")
    for asked in (
        lambda: nights.begin(rails, "shop"),
        lambda: nights.end_of_run(rails, "shop"),
        lambda: nights.nights(rails, "training", spec),
        lambda: nights.governed_nights(rails, [spec]),
    ):
        with pytest.raises(BadInput, match=why):
            asked()


def test_a_night_a_month_after_all_data_is_refused(rails: Rails, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: TONIGHT + timedelta(days=4000))
    for night, refused in (("2025-04-06", False), ("2025-04-07", True), ("2026-03-07", True)):
        run({"as_of": night})
        if refused:
            with pytest.raises(BadInput, match=r"days after the newest delivery of shop, which is that of 2025-03-07"):
                nights.begin(rails, "shop")
        else:
            assert str(nights.begin(rails, "shop").date()) == night


def test_an_empty_night_of_a_source_of_the_past_is_the_next_one_that_is_due(
    rails: Rails, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the landing zone counts, and today does not, nor what the form gives for a field left empty."""
    monkeypatch.setattr(clock, "now", lambda: TONIGHT + timedelta(days=500))
    rails.ledger.record_stage("shop", date(2025, 3, 3), "done", FeaturesSummary())
    run({"as_of": None}, end=clock.now())
    assert task_run.is_by_hand()
    with task_run.working(rails.settings) as opened:
        assert nights.begin(opened, "shop").date() == date(2025, 3, 4)
    [cost] = rails.ledger.accounts.costs(date.min, date.max)
    assert (cost.night, cost.name) == (date(2025, 3, 4), "shop"), "what it has used is that night's"


def test_what_a_refused_run_has_used_makes_no_night(rails: Rails, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: TONIGHT + timedelta(days=500))
    run({"as_of": "2026-03-07"})
    with pytest.raises(AirflowFailException), task_run.working(rails.settings) as opened:
        nights.begin(opened, "shop")
    assert rails.ledger.accounts.newest() is None


def test_a_scheduled_night_of_a_silent_source_is_done_and_one_out_of_nowhere_is_refused(
    rails: Rails, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nights went on while a source was silent they go on; where none was done for a month what lies there would
    all land as if it had come today."""
    today = TONIGHT + timedelta(days=100)
    monkeypatch.setattr(clock, "now", lambda: today)
    run(by_hand=False, end=today)
    for done in (None, date(2025, 3, 8)):
        if done:
            rails.ledger.record_stage("shop", done, "done", FeaturesSummary())
        with pytest.raises(BadInput, match=r"lies 101 days after the newest delivery of shop, .*, and .* done"):
            nights.begin(rails, "shop")
    rails.ledger.record_bad_end("shop", (today - timedelta(days=2)).date(), "stopped", FeaturesSummary())
    assert nights.begin(rails, "shop").date() == today.date()


def test_a_night_is_done_of_those_sources_that_can_have_it(rails: Rails, capsys: pytest.CaptureFixture[str]) -> None:
    bazaar.deliver(rails.settings, "web", date(2025, 1, 1))
    night = clock.midnight(date(2025, 3, 8))
    assert landed.able(rails, ("shop", "web"), night) == ("shop",)
    assert "The night of 2025-03-08 is none of web" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(BadInput, match="days after the newest delivery of web, which is that of 2025-01-01"):
        landed.able(rails, ("web",), night)


def test_a_name_in_the_conf_that_means_nothing_is_refused_by_the_first_task(
    rails: Rails, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Settings = rails.settings
    run({"asof": "2025-03-07"})
    with (
        pytest.raises(AirflowFailException, match=r"names 'asof'; did you mean as_of; it takes as_of\. Start it anew"),
        task_run.working(settings),
    ):
        raise AssertionError("it began")
    run({"as_of": "2025-03-07"})
    with task_run.working(settings):
        pass


def test_the_log_of_a_failed_task_ends_with_the_page_that_shows_why_and_the_sentence(
    run: Any, rails: Rails, caplog: pytest.LogCaptureFixture
) -> None:
    run()
    context = task_run.get_current_context()
    task_run.show("checks/shop/2025-03-05.html", rails.settings)
    caplog.set_level("INFO", logger="tiltyard")
    task_run.say_why({**context, "exception": AirflowFailException("Not published of 2025-03-05:\n 3 tables.")})  # type: ignore[typeddict-item]
    group, last = caplog.messages
    assert group == "::endgroup::"
    assert last == (
        "http://127.0.0.1:8080/tiltyard/reports/checks/shop/2025-03-05.html shows it: Not published of 2025-03-05: 3 "
        "tables."
    )
    task_run.say_why({**context, "exception": ValueError("odd")})  # type: ignore[typeddict-item]
    assert caplog.messages[-1].endswith("shows it: ValueError: odd")
