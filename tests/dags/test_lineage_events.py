"""Which tables OpenLineage is told of, for every task of every DAG."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.openlineage.extractors.manager import ExtractorManager

from tiltyard.edge.airflow_settings import airflow_env
from tiltyard.edge.lineage_events import StageExtractor
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.stages import split

SPEC = find(ROOT / "models", "churn")


@pytest.fixture
def dags(parse: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return parse(sources="subscription")


def told(dag: Any, task_id: str) -> tuple[set[str], set[str]]:
    """What a task of a DAG is said to read and write."""
    found = StageExtractor(dag.task_dict[task_id]).extract()
    assert found is not None
    return {entry.name for entry in found.inputs}, {entry.name for entry in found.outputs}


def test_a_source_makes_its_models_tables_of_what_it_delivers(dags: dict[str, Any]) -> None:
    read, written = told(dags["subscription__features"], "transform")
    assert {"raw.login", "raw.payment"} <= read
    assert written == set(SPEC.tables)


def test_a_model_is_trained_on_its_tables_scored_promoted_and_watched(dags: dict[str, Any]) -> None:
    assert told(dags["churn__training"], "train") == (set(SPEC.tables), {"models/churn"})
    read, written = told(dags["shadow"], "chunk")
    assert read == {*SPEC.tables, "models/churn"}
    assert written == {"ops.prediction", "ops.evaluation"}
    assert told(dags["promotion"], "plan") == ({"ops.prediction", "models/churn"}, {"models/churn"})
    assert told(dags["governor"], "decide") == (set(), set())


def test_every_task_that_does_something_is_one_of_the_extractors(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str
) -> None:
    """By the settings that Airflow is started with."""
    for name, value in airflow_env(Settings(home=tmp_path / "other", database_url=postgres_url)).items():
        if "OPENLINEAGE" in name:
            monkeypatch.setenv(name, value)
    manager = ExtractorManager()
    for dag_id, dag in dags.items():
        split(dag_id)
        for task in dag.tasks:
            if hasattr(task, "python_callable") and task.task_type.startswith(("_Python", "DecoratedSensor")):
                assert manager.get_extractor_class(task) is StageExtractor, (dag_id, task.task_id)
