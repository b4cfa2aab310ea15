"""features → shadow → promotion, drift → governor → training: linked by assets, with no end loose."""

import inspect
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import TaskAwaitingInput

from tiltyard import spec
from tiltyard.edge import logins, orchestration
from tiltyard.edge.assets import announced_through
from tiltyard.settings import ROOT, Settings
from tiltyard.stages import IN_CHUNKS, PER_MODEL


def starts_on(dag: Any) -> set[str]:
    condition = getattr(dag.timetable, "asset_condition", None)
    return {asset.name for asset in condition.objects} if condition else set()


def announces(dag: Any, models: Iterable[str]) -> set[str]:
    """An alias stands for the assets that are picked when there is something to say."""
    through = {
        orchestration.granted_assets().name: {f"{model}/drift" for model in models},
        orchestration.unexplained_assets().name: {f"{model}/unexplained" for model in models},
        orchestration.settled_assets().name: {
            asset.name for asset in orchestration.feature_assets(spec.load_all(Settings().models))
        },
        announced_through("shadow").name: {"portfolio/evaluation"},
        announced_through("drift").name: {"portfolio/finding"},
        announced_through("promotion").name: {
            f"{model}/{what}" for model in models for what in ("champion", "proposal")
        },
    }
    own = [tag.removeprefix("model:") for tag in dag.tags if tag.startswith("model:")]
    named = {asset.name for task in dag.tasks for asset in task.outlets}
    if own:
        through[orchestration.unexplained_assets().name] = {f"{own[0]}/unexplained"}
    if orchestration.settled_assets().name in named:
        [source] = [tag.removeprefix("source:") for tag in dag.tags if tag.startswith("source:")]
        assert source in Settings().sources
    return set().union(*(through.get(name, {name}) for name in named)) if named else set()


EVERY = ("alpha", "beta", "gamma")


def test_the_chain(parse: Callable, models: Path) -> None:
    dags = parse(models, "incident")
    views = {"features/ftr_caller__history", "features/ftr_group__history", "features/ftr_group__load"}
    views |= {"features/ftr_ticket__intake"}
    links = {name: (starts_on(dag), announces(dag, EVERY)) for name, dag in dags.items()}
    evaluation, finding = {"portfolio/evaluation"}, {"portfolio/finding"}
    assert links["incident__features"] == (set(), views)
    assert links["shadow"] == (views, evaluation | finding)
    promoted = {f"{model}/{what}" for model in EVERY for what in ("champion", "proposal")}
    assert links["promotion"] == (evaluation, promoted | finding)
    assert links["drift"] == (evaluation, finding)
    assert links["governor"] == (finding, {f"{model}/drift" for model in EVERY})
    assert links["fallback_audit"] == (evaluation, {f"{model}/unexplained" for model in EVERY})
    assert links["alpha__promotion"] == ({"alpha/proposal"}, {"alpha/champion"})
    for model in EVERY:
        assert {stage: links[f"{model}__{stage}"] for stage in PER_MODEL} == {
            "training": ({f"{model}/drift"}, {f"{model}/challenger"}),
            "explanation": ({f"{model}/unexplained"}, {f"{model}/unexplained"}),
        }


def test_shadow_looks_whenever_any_view_is_published(parse: Callable, models: Path) -> None:
    assert type(parse(models, "incident")["shadow"].timetable.asset_condition).__name__ == "AssetAny"
    assert starts_on(parse(models, "elsewhere")["shadow"]) == set()


def test_the_governor_looks_every_hour_where_nights_come_by_themselves(parse: Callable, models: Path) -> None:
    for schedule, kind in (("@daily", "AssetOrTimeSchedule"), ("none", "AssetTriggeredTimetable")):
        governor = parse(models, "incident", schedule)["governor"]
        assert (type(governor.timetable).__name__, starts_on(governor)) == (kind, {"portfolio/finding"})


def test_whatever_starts_a_dag_is_announced_by_another(parse: Callable) -> None:
    dags = parse()
    models = {name.rpartition("__")[0] for name in dags} - {""}
    assert set().union(*map(starts_on, dags.values())) <= set().union(
        *(announces(dag, models) for dag in dags.values())
    )


def test_a_stage_is_announced_by_its_last_task_only(parse: Callable) -> None:
    """Of a stage in chunks, and of the audit, by whoever finds that models are done: what follows is about the others,
    or is skipped. Of an explanation by whoever asks again: what follows is red to be seen."""
    for name, dag in parse().items():
        for task in dag.tasks:
            if task.outlets and name not in (*IN_CHUNKS, "fallback_audit") and not name.endswith("__explanation"):
                assert task.downstream_task_ids == set(), f"{dag.dag_id}: what follows {task.task_id} could still fail"


def test_the_tasks_of_a_stage_in_chunks(parse: Callable) -> None:
    dags = parse()
    for stage in IN_CHUNKS:
        tasks = {task.task_id: task for task in dags[stage].tasks}
        followed = {name: task.downstream_task_ids for name, task in tasks.items()}
        assert followed == {
            "plan": {"chunk"}, "chunk": {"left"}, "left": {"alone"}, "alone": {"settle", "all_done"}, "settle": set(),
            "all_done": set(),
        }  # fmt: skip
        assert {name for name, task in tasks.items() if task.is_mapped} == {"chunk", "alone"}
        assert {name: task.trigger_rule for name, task in tasks.items() if task.trigger_rule != "all_success"} == {
            "left": "all_done",
            "settle": "all_done",
        }
        assert {name for name, task in tasks.items() if task.retries == 0} == {"chunk"}, "what killed it kills it again"


def test_only_tier_1_asks_a_person(parse: Callable, models: Path) -> None:
    dags = parse(models, "incident")
    asked = {name: [task.task_id for task in dag.tasks] for name, dag in dags.items() if name.endswith("promotion")}
    assert asked.keys() == {"promotion", "alpha__promotion"}
    assert asked["alpha__promotion"] == ["judge", "approval", "promote"]


def test_where_the_spec_says_so_two_people_are_asked(parse: Callable, models: Path) -> None:
    for name in ("alpha", "beta"):
        path = models / name / "spec.yaml"
        content = yaml.safe_load(path.read_text())
        content["gate"]["approvals"] = 2
        path.write_text(yaml.safe_dump(content))
    dags = parse(models, "incident")
    promotion = dags["alpha__promotion"]
    assert {task.task_id for task in promotion.tasks} == {"judge", "approval", "second_approval", "promote"}
    for name in ("approval", "second_approval"):
        task = promotion.get_task(name)
        assert (task.upstream_task_ids, task.downstream_task_ids) == ({"judge"}, {"promote"})
        assert (task.defaults, task.response_timeout is not None) == (None, True)
    assert "beta__promotion" not in dags, "tier 2 asks nobody"


def test_silence_is_a_no(parse: Callable, models: Path) -> None:
    approval = parse(models, "incident")["alpha__promotion"].get_task("approval")
    assert approval.options == ["Approve", "Reject"]
    assert approval.defaults is None, "else the form would press for a no"
    assert approval.response_timeout is not None
    assert approval.params.get_param("comment").schema["format"] == "multiline"


def test_a_question_says_until_when_who_may_answer_and_who_else_challenges() -> None:
    until = datetime(2025, 5, 31, 2, 14, tzinfo=UTC)
    closes = "**Closes 2025-05-31 02:14 UTC. Silence is a no**: the champion stays."
    assert logins.conditions(until, "These may answer: ann.", ("v3 (hold)", "v4 (promote)")) == (
        f"{closes}\n\nThese may answer: ann.\n\nOther challengers, which go on in shadow: v3 (hold); v4 (promote)."
    )


def test_a_form_closes_when_it_says_however_long_it_took_to_open_it(
    parse: Callable, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `judge` hands on has no end: it counts from when the form is there, to a whole minute."""
    opened = datetime(2025, 5, 31, 2, 14, 21, tzinfo=UTC)
    monkeypatch.setattr("tiltyard.clock.now", lambda: opened)
    monkeypatch.setattr("tiltyard.edge.approvals.Look.notify", lambda self, context: None)
    monkeypatch.setattr("tiltyard.edge.answers.to_earlier_attempt", lambda retries: False)
    asked: dict[str, object] = {}
    monkeypatch.setattr("airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **all: asked.update(all))
    approval = parse(models, "incident")["alpha__promotion"].get_task("approval")
    timeout = approval.response_timeout
    approval.body = "The evidence."
    proposal = {
        "subject": "Promote?",
        "body": "The evidence.",
        "who": "These may answer: ann.",
        "others": ["v3 (hold)"],
    }
    ti = SimpleNamespace(id="1", xcom_pull=lambda **which: {"proposal": proposal})
    with pytest.raises(TaskAwaitingInput):
        approval.execute({"ti": ti, "task_instance": ti})
    body = str(asked["body"])
    closes = logins.closes(body)
    assert closes is not None and closes == opened + approval.response_timeout
    assert timeout <= approval.response_timeout < timeout + timedelta(minutes=1)
    assert logins.answering(body) == "These may answer: ann."
    assert body.endswith("The evidence.")


def test_no_silence_explains_a_safe_default(parse: Callable, models: Path) -> None:
    explain = parse(models, "incident")["alpha__explanation"].get_task("explain")
    assert (explain.options, explain.defaults) == (["Explain"], None)
    assert explain.execution_timeout is None
    assert {"cause", "owner", "until"} <= set(explain.params)
    explain.params.validate()  # as the worker does before the task asks: an empty form has to pass


def test_nowhere_is_approve_a_default() -> None:
    for file in [*(ROOT / "dags").glob("*.py"), *(ROOT / "plugins" / "tiltyard").rglob("*.py")]:
        text = file.read_text().replace(" ", "")
        assert 'defaults="Approve"' not in text
        assert "defaults=self.APPROVE" not in text
        assert 'defaults=["Approve"]' not in text


def test_a_report_is_one_click_away(parse: Callable, models: Path) -> None:
    dags = parse(models, "incident")
    for name, task in (
        ("incident__features", "checks"),
        ("drift", "plan"),
        ("promotion", "plan"),
        ("alpha__promotion", "judge"),
    ):
        assert [link.name for link in dags[name].get_task(task).operator_extra_links] == ["Report"]


def test_what_is_good_is_published_though_the_checks_are_red_and_the_run_is_red_then(parse: Callable) -> None:
    features = parse()["incident__features"]
    publish, last = features.get_task("publish"), features.get_task("all_published")
    assert (publish.upstream_task_ids, publish.trigger_rule) == ({"checks"}, "all_done"), "however the others ended"
    assert (last.upstream_task_ids, last.trigger_rule) == ({"checks"}, "all_success")
    assert {task.task_id for task in features.leaves} == {"publish", "all_published"}
    assert features.get_task("checks").upstream_task_ids == {"transform"}


def test_what_a_task_of_features_is_about_is_its_source(parse: Callable) -> None:
    """`@dag` hands a DagParam to its function in place of every argument."""
    dags = parse()
    for source in ("incident", "subscription"):
        for task in dags[f"{source}__features"].tasks:
            if called := getattr(task, "python_callable", None):
                assert inspect.getclosurevars(called).nonlocals.get("source", source) == source, task.task_id
        ingest = inspect.getclosurevars(dags[f"{source}__features"].get_task("ingest").python_callable)
        assert ingest.nonlocals == {"source": source}
