"""A stage of the portfolio goes through its models: who fails, fails alone, is done again alone, and is named."""

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped
from airflow.sdk.execution_time.context import OutletEventAccessors

from tiltyard import rails as rails_module
from tiltyard.edge import limits, task_run, work
from tiltyard.edge.assets import announced_through
from tiltyard.edge.chunks import Chunks
from tiltyard.edge.due import Lot, divided
from tiltyard.errors import BadInput, CheckFailed, OutOfTime
from tiltyard.rails import Rails, recording_its_end
from tiltyard.records import (
    Decision,
    DriftSummary,
    EvidenceRecord,
    JsonObject,
    Promotion,
    PromotionSummary,
    ShadowSummary,
    TrainingSummary,
)
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, load
from tiltyard.stages import StageName

NIGHT = date(2016, 4, 2)
BASE = load(ROOT / "models" / "sla_breach").model_copy(update={"tier": 3})
SPECS = tuple(BASE.model_copy(update={"name": name}) for name in ("ant", "bee", "cat", "dog"))
SKIPPED_BY_PLAN = ["chunk", "left", "alone", "settle", "all_done"]


class Run:
    """A run of a DAG as its tasks see it: what one hands on, the next one is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.params: dict[str, Any] = {}
        self.by: str | None = None
        self.attempt = 1
        self.handed_on: dict[str, Any] = {}
        self.events = OutletEventAccessors()
        self.context: dict[str, Any] = {}
        monkeypatch.setattr(task_run, "get_current_context", lambda: self.context)
        self.begin()

    def begin(self, attempt: int = 1) -> None:
        """Another task, or another attempt, of the run."""
        ti = SimpleNamespace(
            dag_id="d", run_id="r", task_id="t", try_number=attempt,
            xcom_push=lambda key, value: self.handed_on.__setitem__(key, value),
            xcom_pull=lambda task_ids, key: self.handed_on.get(key),
        )  # fmt: skip
        self.events = OutletEventAccessors()
        self.context = {
            "params": self.params, "ti": ti, "outlet_events": self.events,
            "dag_run": SimpleNamespace(triggering_user_name=self.by, start_date=None),
        }  # fmt: skip

    def announced(self, stage: StageName) -> dict[str, Any]:
        events = self.events[announced_through(stage)].asset_alias_events
        return {event.dest_asset_key.name: event.extra for event in events}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, rails: Rails) -> Run:
    monkeypatch.setenv("TILTYARD_HOME", str(rails.settings.home))
    monkeypatch.setenv("TILTYARD_DATABASE_URL", rails.settings.database_url or "")
    monkeypatch.setenv("TILTYARD_DATABASE_PREFIX", rails.settings.database_prefix)
    for spec in SPECS:
        rails.ledger.record_stage(spec.name, NIGHT, "done", ShadowSummary())
    return Run(monkeypatch)


@pytest.fixture(autouse=True)
def _not_this_process() -> Iterator[None]:
    """A process in which work was interrupted is ended soon afterwards. The tests' process goes on."""
    yield
    limits._interrupted.clear()
    faulthandler.cancel_dump_traceback_later()


def look(broken: Callable[[str], None] = lambda name: None) -> Callable[[Rails, Spec, Sequence[datetime]], None]:
    def work(rails: Rails, spec: Spec, when: Sequence[datetime]) -> None:
        for as_of in when:
            with recording_its_end(rails, "drift", as_of, spec.name):
                broken(spec.name)
                rails.ledger.record_stage(spec.name, as_of.date(), "done", DriftSummary(verdict="steady"))

    return work


def stage(work_of_one: Any, specs: Sequence[Spec] = SPECS) -> Chunks:
    return Chunks("drift", specs, work_of_one, work.announce_findings)


def killed_at_cat() -> None:
    """The main program of a process that does the models it is told, and is killed by one of them."""

    def kill(name: str) -> None:
        if name == "cat":
            os.kill(os.getpid(), signal.SIGKILL)

    with rails_module.opened() as opened:
        stage(look(kill))._do(opened, Lot.from_json(json.loads(sys.argv[1])))


def statuses(rails: Rails, name: StageName = "drift") -> dict[str, str | None]:
    return {spec.name: rails.ledger.stage_status(name, spec.name, NIGHT) for spec in SPECS}


def test_what_fits_into_one_chunk_is_done_and_announced_at_once(rails: Rails, run: Run) -> None:
    with pytest.raises(DownstreamTasksSkipped) as ended:
        stage(look()).plan()
    assert ended.value.tasks == SKIPPED_BY_PLAN
    assert set(statuses(rails).values()) == {"done"}
    assert run.announced("drift") == {"portfolio/finding": {"as_of": ["2016-04-02T00:00:00+00:00"]}}
    run.begin()
    with pytest.raises(DownstreamTasksSkipped) as ended:
        stage(look()).plan()
    assert ended.value.tasks == SKIPPED_BY_PLAN
    assert run.announced("drift") == {}, "an event that comes twice finds nothing to do, and says nothing"


def test_more_models_than_one_chunk_takes_are_divided_and_announced_when_all_are_done(
    rails: Rails, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTYARD_CHUNK_MODELS", "2")
    chunks = stage(look())
    parts = chunks.plan()
    assert [part["label"] for part in parts] == ["ant, bee", "cat, dog"]
    assert run.announced("drift") == {}
    for part in parts:
        run.begin()
        assert chunks.chunk(part) == {"models": 2, "failed": {}}
    run.begin()
    with pytest.raises(DownstreamTasksSkipped) as ended:
        chunks.left()
    assert ended.value.tasks == ["alone", "settle", "all_done"]
    assert set(run.announced("drift")) == {"portfolio/finding"}


def test_a_label_tells_where_a_model_is_and_who_has_failed() -> None:
    many = Lot(models={f"m{number:02}": (NIGHT,) for number in range(50)})
    parts = divided(many, 25)
    assert [part.label() for part in parts] == ["m00 … m24 (25)", "m25 … m49 (25)"]
    assert [len(part.models) for part in divided(many, 20)] == [17, 17, 16]
    assert parts[1].label(["m30", "m31"]) == "failed: m30, m31; of m25 … m49 (25)"
    assert parts[0].label({f"m{number:02}" for number in range(5)}).startswith("failed: m00, m01, m02 and 2 more; of ")
    assert many.part(["m07"]).label() == "m07"


def test_one_that_raises_fails_alone_and_is_done_again_alone(rails: Rails, run: Run) -> None:
    broken = {"bee"}

    def fail(name: str) -> None:
        if name in broken:
            raise ZeroDivisionError("nobody foresaw it")

    chunks = stage(look(fail))
    assert chunks.plan() == [], "no chunk is left to do, and `left` sees to the rest"
    assert statuses(rails) == {"ant": "done", "bee": "failed", "cat": "done", "dog": "done"}
    run.begin()
    [again] = chunks.left()
    assert again["label"] == "bee"
    assert set(run.announced("drift")) == {"portfolio/finding"}, "the others go on"
    run.begin()
    with pytest.raises(ZeroDivisionError):
        chunks.alone(again)  # Airflow retries it
    broken.clear()
    run.begin(attempt=2)
    chunks.alone(again)
    assert statuses(rails)["bee"] == "done"
    assert set(run.announced("drift")) == {"portfolio/finding"}
    run.begin()
    assert chunks.settle() == []


def test_what_a_person_has_to_mend_is_not_tried_again(rails: Rails, run: Run) -> None:
    def stop(name: str) -> None:
        if name == "cat":
            raise CheckFailed("its reference is gone.")

    chunks = stage(look(stop))
    chunks.plan()
    run.begin()
    [again] = chunks.left()
    run.begin()
    with pytest.raises(AirflowFailException, match="its reference is gone"):
        chunks.alone(again)
    assert statuses(rails)["cat"] == "stopped"


def test_a_chunk_that_is_killed_loses_nothing_that_was_done_and_only_its_killer_fails(rails: Rails, run: Run) -> None:
    """The process dies at the third of four models; what asks the ledger afterwards finds two, and one of them dies
    again, without a word."""
    chunks = stage(look())

    def in_a_process(body: JsonObject) -> int:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"}
        code = "from tests.dags.test_chunks import killed_at_cat as do; do()"
        command = [sys.executable, "-c", code, json.dumps(body)]
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=300).returncode

    planned = chunks._lot(rails)
    task_run.hand_on("planned", planned.to_json())
    assert in_a_process(planned.to_json()) == -signal.SIGKILL
    assert statuses(rails) == {"ant": "done", "bee": "done", "cat": None, "dog": None}
    run.begin()
    alone = chunks.left()
    assert [body["label"] for body in alone] == ["cat", "dog"]
    assert [in_a_process(body) for body in alone] == [-signal.SIGKILL, 0]
    run.begin()
    assert chunks.settle() == ["cat"]
    assert set(run.announced("drift")) == {"portfolio/finding"}, "the governor looks again, and does not wait for it"
    assert statuses(rails) == {"ant": "done", "bee": "done", "cat": "failed", "dog": "done"}
    [end] = rails.ledger.stage_runs(DriftSummary, "cat").values()
    assert "killed" in (end.summary.reason or "")


def test_a_second_attempt_at_the_plan_does_none_of_it_itself(rails: Rails, run: Run) -> None:
    run.begin(attempt=2)
    [part] = stage(look()).plan()
    assert part["label"] == "ant … dog (4)"
    assert set(statuses(rails).values()) == {None}


def test_one_that_hangs_is_interrupted_and_the_others_go_on(
    rails: Rails, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTYARD_STAGE_LIMITS", "drift=30s,drift/3=1s")

    def hang(name: str) -> None:
        if name == "bee":
            time.sleep(60)

    begun = time.monotonic()
    stage(look(hang)).plan()
    assert time.monotonic() - begun < 30
    assert statuses(rails) == {"ant": "done", "bee": "failed", "cat": "done", "dog": "done"}
    [end] = rails.ledger.stage_runs(DriftSummary, "bee").values()
    assert "took longer than 1s" in (end.summary.reason or "")


def test_a_query_that_hangs_is_interrupted(rails: Rails) -> None:
    limited = replace(rails, settings=rails.settings.model_copy(update={"stage_limits": ("drift=1s",)}))
    begun = time.monotonic()
    with pytest.raises(OutOfTime), limits.within(limited, "drift", SPECS[0]):
        rails.lake.connection.execute(
            "with recursive endless as (select 1 as i union all select i + 1 from endless where i > 0)"
            " select max(i) from endless"
        )
    assert rails.lake.connection.execute("select 1").fetchall() == [(1,)], "and the next model reads on"
    assert time.monotonic() - begun < 30


def test_a_training_that_hangs_gives_its_place_back(rails: Rails, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(rails), "publication", lambda self: time.sleep(60))
    limited = replace(rails, settings=rails.settings.model_copy(update={"stage_limits": ("training=1s",)}))
    begun = time.monotonic()
    with pytest.raises(OutOfTime, match="training of ant took longer than 1s"):
        work.train(limited, SPECS[0], datetime.combine(NIGHT, datetime.min.time(), UTC))
    assert time.monotonic() - begun < 30
    [end] = rails.ledger.stage_runs(TrainingSummary, "ant").values()
    assert end.status == "failed"
    assert "took longer than 1s" in (end.summary.reason or "")


@pytest.mark.parametrize("entry", ["drift", "drift=soon", "drift/4=1h", "scoring=1h", "governor=1h"])
def test_a_limit_that_is_none_is_refused(settings: Settings, entry: str) -> None:
    with pytest.raises(BadInput, match="TILTYARD_STAGE_LIMITS"):
        limits.limit(settings.model_copy(update={"stage_limits": (entry,)}), "drift", 3)


def test_the_limit_of_a_tier_goes_before_the_stages(settings: Settings) -> None:
    limited = settings.model_copy(update={"stage_limits": ("shadow=10m", "shadow/1=1h")})
    assert [limits.limit(limited, "shadow", tier) for tier in (1, 2)] == [timedelta(hours=1), timedelta(minutes=10)]
    assert limits.limit(limited, "drift", 1) is None


def test_only_the_named_models_are_done_and_a_name_that_is_none_is_told(rails: Rails, run: Run) -> None:
    run.params |= {"models": ["dog", "bee"], "as_of": str(NIGHT)}
    run.begin()
    with pytest.raises(DownstreamTasksSkipped):
        stage(look()).plan()
    assert statuses(rails) == {"ant": None, "bee": "done", "cat": None, "dog": "done"}
    run.params |= {"models": ["bea"]}
    run.begin()
    with pytest.raises(AirflowFailException, match="no active model 'bea'; the models are: ant, bee, cat, dog"):
        stage(look()).plan()


def test_a_model_that_a_hindcast_plays_is_done_afterwards(rails: Rails, run: Run) -> None:
    with rails.ledger.playing(["bee"]):
        with pytest.raises(DownstreamTasksSkipped):
            stage(look()).plan()
        assert statuses(rails) == {"ant": "done", "bee": None, "cat": "done", "dog": "done"}
        run.params |= {"models": ["bee"], "as_of": str(NIGHT)}
        run.begin()
        with pytest.raises(AirflowFailException, match="A hindcast plays bee at this moment; wait until it has ended"):
            stage(look()).plan()
    run.params.clear()
    run.begin()
    with pytest.raises(DownstreamTasksSkipped):
        stage(look()).plan()
    assert statuses(rails) == dict.fromkeys(statuses(rails), "done")


def test_a_model_that_was_deleted_in_mid_night_is_said_to_be_gone(rails: Rails, run: Run) -> None:
    chunks, without = stage(look()), stage(look(), SPECS[1:])
    planned = chunks._lot(rails)
    run.handed_on["planned"] = planned.to_json()
    assert without.chunk(planned.to_json())["failed"].keys() == {"ant"}
    run.begin()
    [again] = without.left()
    run.begin()
    with pytest.raises(AirflowFailException, match="ant is no active model any more"):
        without.alone(again)


# -- promotion ------------------------------------------------------------------------------------------


def proposed(rails: Rails, name: str, night: date = NIGHT) -> None:
    rails.ledger.add_decision(
        Decision(
            model=name, night=night, challenger=2, champion=1, verdict="promote", reasons=("it is better",),
            evidence=EvidenceRecord(model=name, night=night),
        )
    )  # fmt: skip


def test_where_a_person_is_asked_the_models_own_dag_is_started_and_told_who_asked(rails: Rails, run: Run) -> None:
    specs = (SPECS[0].model_copy(update={"tier": 1}), *SPECS[1:])

    def judge(rails: Rails, spec: Spec, when: Sequence[datetime]) -> None:
        if work._is_asked(rails, spec, when):
            return
        judged.append(spec.name)
        proposed(rails, spec.name)
        if spec.tier != 1:
            rails.ledger.record_stage(spec.name, NIGHT, "done", PromotionSummary())

    judged: list[str] = []
    run.by = "ann"
    for times in (1, 2):
        run.begin()
        with pytest.raises(DownstreamTasksSkipped):
            Chunks("promotion", specs, judge, work.announce_promotions).plan()
        asked = {"as_of": ["2016-04-02T00:00:00+00:00"], "requested_by": ["ann"]}
        assert run.announced("promotion") == {"ant/proposal": asked}, times
        assert judged == ["ant", "bee", "cat", "dog"], "while the question is open it is judged in its own DAG only"
    rails.ledger.record_stage("ant", NIGHT, "done", PromotionSummary())
    run.begin()
    with pytest.raises(DownstreamTasksSkipped):
        Chunks("promotion", specs, judge, work.announce_promotions).plan()
    assert run.announced("promotion") == {}


def test_a_champion_that_is_another_is_announced(rails: Rails, run: Run) -> None:
    def judge(rails: Rails, spec: Spec, when: Sequence[datetime]) -> None:
        if spec.name == "dog":
            rails.ledger.claim_promotion(
                Promotion(
                    model="dog", version=2, night=NIGHT, replaced=None, requested_by="tests", approved_by=None,
                    approval={"needed": False},
                )
            )  # fmt: skip
        rails.ledger.record_stage(spec.name, NIGHT, "done", PromotionSummary())

    with pytest.raises(DownstreamTasksSkipped):
        Chunks("promotion", SPECS, judge, work.announce_promotions).plan()
    assert set(run.announced("promotion")) == {"dog/champion"}


def test_what_a_chunk_has_used_is_put_down_for_each_of_its_models(rails: Rails, run: Run) -> None:
    def busy(name: str) -> None:
        if name == "dog":
            sum(number * number for number in range(3_000_000))
        if name == "cat":
            raise CheckFailed("held")

    run.context["ti"].dag_id = "drift"
    run.context["triggering_asset_events"] = {}
    run.context["params"] = {"as_of": str(NIGHT)}
    with pytest.raises(DownstreamTasksSkipped):
        stage(look(busy), [spec for spec in SPECS if spec.name != "cat"]).plan()
    stage(look(busy)).plan()
    costs = {cost.name: cost for cost in rails.ledger.accounts.costs(NIGHT, NIGHT)}
    assert costs.keys() == {"ant", "bee", "cat", "dog"}, "who has failed has cost something as well"
    assert {cost.stage for cost in costs.values()} == {"drift"}
    assert costs["dog"].usage.cpu_s > costs["ant"].usage.cpu_s
    assert all(cost.usage.memory_bytes > 1_000_000 for cost in costs.values())


def test_the_button_opens_the_page_of_the_one_model_or_of_all(rails: Rails, run: Run) -> None:
    """A night that left no page of its own, like a hold, is no reason to be shown the root of all reports."""

    def shown() -> str:
        return task_run.ReportLink().get_link(None, ti_key=task_run.key())

    task_run._reports.clear()
    assert shown() == "/tiltyard/"
    with contextlib.suppress(DownstreamTasksSkipped):
        stage(look()).plan()
    assert shown() == "/tiltyard/", "four of them"
    task_run.show_model("ant")
    assert shown() == "/tiltyard/models/ant"
    task_run.show("checks/shop/2025-03-05.html", rails.settings)
    assert shown() == "/tiltyard/reports/checks/shop/2025-03-05.html"
