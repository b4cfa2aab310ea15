"""A night that no source can have is refused wherever a run names one; a run by hand without one does the next due."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from tests import bazaar
from tiltyard import clock
from tiltyard.edge import nights, task_run
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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run(conf, by_hand=…)`: what Airflow would tell a task of a new run."""
    monkeypatch.setattr(clock, "now", lambda: TONIGHT)

    def started(conf: dict[str, Any] | None = None, *, by_hand: bool = True, end: datetime = TONIGHT) -> None:
        dag_run = SimpleNamespace(
            conf=conf or {}, run_type="manual" if by_hand else "scheduled", logical_date=end, run_after=end,
            data_interval_end=end, start_date=TONIGHT, triggering_user_name="ann" if by_hand else None,
        )  # fmt: skip
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
