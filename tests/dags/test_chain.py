"""features → shadow → promotion, drift → governor → training: linked by assets, with no end loose."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tiltyard import spec
from tiltyard.edge import orchestration
from tiltyard.settings import ROOT, Settings
from tiltyard.stages import PER_MODEL


def starts_on(dag: Any) -> set[str]:
    condition = getattr(dag.timetable, "asset_condition", None)
    return {asset.name for asset in condition.objects} if condition else set()


def announces(dag: Any) -> set[str]:
    """An alias stands for the assets that the governor picks: those of its own portfolio."""
    named = {asset.name for task in dag.tasks for asset in task.outlets}
    if orchestration.granted_assets().name in named:
        named |= {name.replace("/finding", "/drift") for name in starts_on(dag)}
    if orchestration.settled_assets().name in named:
        [source] = [tag.removeprefix("source:") for tag in dag.tags if tag.startswith("source:")]
        named |= {asset.name for asset in orchestration.feature_assets(spec.load_all(Settings().models))}
        assert source in Settings().sources
    if orchestration.unexplained_assets().name in named:
        own = {f"{tag.removeprefix('model:')}/unexplained" for tag in dag.tags if tag.startswith("model:")}
        named |= own or {name.replace("/evaluation", "/unexplained") for name in starts_on(dag)}
    aliases = (orchestration.granted_assets, orchestration.unexplained_assets, orchestration.settled_assets)
    return named - {alias().name for alias in aliases}


def test_the_chain(parse: Callable, models: Path) -> None:
    dags = parse(models, "incident")
    views = {"features/ftr_caller__history", "features/ftr_group__history", "features/ftr_group__load"}
    views |= {"features/ftr_ticket__intake"}
    assert starts_on(dags["incident__features"]) == set()
    assert announces(dags["incident__features"]) == views
    for model in ("alpha", "beta", "gamma"):
        links = {
            stage: (starts_on(dags[f"{model}__{stage}"]), announces(dags[f"{model}__{stage}"])) for stage in PER_MODEL
        }
        assert links == {
            "shadow": (views, {f"{model}/evaluation"}),
            "promotion": ({f"{model}/evaluation"}, {f"{model}/champion"}),
            "drift": ({f"{model}/evaluation"}, {f"{model}/finding"}),
            "training": ({f"{model}/drift"}, {f"{model}/challenger"}),
            "explanation": ({f"{model}/unexplained"}, {f"{model}/unexplained"}),
        }
    every = ("alpha", "beta", "gamma")
    assert starts_on(dags["governor"]) == {f"{model}/finding" for model in every}
    assert announces(dags["governor"]) == {f"{model}/drift" for model in every}
    assert starts_on(dags["fallback_audit"]) == {f"{model}/evaluation" for model in every}
    assert announces(dags["fallback_audit"]) == {f"{model}/unexplained" for model in every}


def test_the_governor_looks_whenever_any_model_was_looked_at(parse: Callable, models: Path) -> None:
    assert type(parse(models, "incident")["governor"].timetable.asset_condition).__name__ == "AssetAny"
    assert starts_on(parse(models, "elsewhere")["governor"]) == set()


def test_whatever_starts_a_dag_is_announced_by_another(parse: Callable) -> None:
    dags = parse().values()
    assert set().union(*map(starts_on, dags)) <= set().union(*map(announces, dags))


def test_a_stage_is_announced_by_its_last_task_only(parse: Callable) -> None:
    for dag in parse().values():
        for task in dag.tasks:
            if task.outlets:
                assert task.downstream_task_ids == set(), f"{dag.dag_id}: what follows {task.task_id} could still fail"


def test_only_tier_1_asks_a_person(parse: Callable, models: Path) -> None:
    dags = parse(models, "incident")
    asked = {name: [task.task_id for task in dag.tasks] for name, dag in dags.items() if name.endswith("promotion")}
    assert asked["alpha__promotion"] == ["judge", "approval", "promote"]
    assert asked["beta__promotion"] == asked["gamma__promotion"] == ["judge", "promote"]


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
        assert (task.defaults, task.response_timeout is not None) == (["Reject"], True)
    assert {task.task_id for task in dags["beta__promotion"].tasks} == {"judge", "promote"}, "tier 2 asks nobody"


def test_silence_is_a_no(parse: Callable, models: Path) -> None:
    approval = parse(models, "incident")["alpha__promotion"].get_task("approval")
    assert approval.options == ["Approve", "Reject"]
    assert approval.defaults == ["Reject"]
    assert approval.response_timeout is not None


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


def test_a_report_is_one_click_away(parse: Callable) -> None:
    dags = parse()
    for name, task in (
        ("incident__features", "checks"),
        ("sla_breach__drift", "compare"),
        ("sla_breach__promotion", "judge"),
    ):
        assert [link.name for link in dags[name].get_task(task).operator_extra_links] == ["Report"]


def test_what_is_good_is_published_though_the_checks_are_red_and_the_run_is_red_then(parse: Callable) -> None:
    features = parse()["incident__features"]
    publish, last = features.get_task("publish"), features.get_task("all_published")
    assert (publish.upstream_task_ids, publish.trigger_rule) == ({"checks"}, "all_done"), "however the others ended"
    assert (last.upstream_task_ids, last.trigger_rule) == ({"checks"}, "all_success")
    assert {task.task_id for task in features.leaves} == {"publish", "all_published"}
    assert features.get_task("checks").upstream_task_ids == {"transform"}
