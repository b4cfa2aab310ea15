"""Every DAG says who owns it, what it does and what to do when it fails; and parsing stays light."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import bazaar
from tiltyard import spec, stages
from tiltyard.edge import dag_page, orchestration
from tiltyard.settings import ROOT, Settings

FILES = sorted((ROOT / "dags").glob("*.py"))
HEAVY = {
    "pandas", "numpy", "duckdb", "mlflow", "dbt", "great_expectations", "evidently", "xgboost", "sklearn", "optuna",
    "shap", "matplotlib", "onnx", "onnxruntime", "boto3", "tiltyard.lake", "tiltyard.ledger", "tiltyard.rails",
}  # fmt: skip


def test_every_stage_has_its_dags(parse: Callable, models: Path) -> None:
    per_model = {f"{name}__{stage}" for name in ("alpha", "beta", "gamma") for stage in stages.PER_MODEL}
    per_source = {"incident__features", "retail__features"}
    every = {*stages.OF_PORTFOLIO, *per_source, *per_model, "alpha__promotion"}
    assert set(parse(models, "incident,retail")) == every


def test_deleting_a_model_deletes_its_dags(parse: Callable, models: Path) -> None:
    (models / "beta" / "spec.yaml").unlink()
    assert not [name for name in parse(models, "incident") if name.startswith("beta")]


def test_a_model_rests_when_its_source_is_not_active(parse: Callable, models: Path) -> None:
    assert set(parse(models, "elsewhere")) == {*stages.OF_PORTFOLIO, "elsewhere__features"}


def test_tags_come_from_a_closed_set(parse: Callable, models: Path) -> None:
    for name, dag in parse(models, "incident").items():
        model, _, stage = name.rpartition("__")
        tags = {"stage:" + stage}
        if stage == "features":
            tags |= {f"source:{model}"}
        elif model:
            tags |= {f"model:{model}", f"tier:{spec.find(models, model).tier}"}
        assert set(dag.tags) == tags
        assert stage in stages.STAGES


def test_every_task_has_an_owner(parse: Callable) -> None:
    specs = {one.name: one for one in spec.load_all(ROOT / "models")}
    for name, dag in parse().items():
        model = name.rpartition("__")[0]
        owner = specs[model].owner if model in specs else orchestration.PORTFOLIO_OWNER
        assert {task.owner for task in dag.tasks} == {owner}


def test_the_docstring_says_what_to_do_when_it_fails(parse: Callable) -> None:
    for dag in parse().values():
        for heading in ("**What it does.**", "**What to do when it fails.**", "**Manual parameters.**"):
            assert heading in dag.doc_md, dag.dag_id


def test_the_model_card_is_shown(parse: Callable, models: Path) -> None:
    (models / "alpha" / "card.md").write_text("# Alpha\n\nWhom it serves.")
    dags = parse(models, "incident")
    assert dags["alpha__training"].doc_md.endswith("Whom it serves.")
    assert "Whom it serves." not in dags["beta__training"].doc_md


def test_one_run_at_a_time_and_nothing_is_caught_up(parse: Callable) -> None:
    for dag in parse().values():
        assert (dag.max_active_runs, dag.catchup) == (16 if dag.dag_id == "operate" else 1, False), "that waits a day"
        assert {task.retries for task in dag.tasks if task.task_id != "chunk"} == {2}


def test_trainings_wait_for_the_device_that_they_need_and_high_stakes_go_first(parse: Callable, models: Path) -> None:
    path = models / "beta" / "spec.yaml"
    path.write_text(path.read_text().replace("estimator:\n", "estimator:\n  device: cuda\n"))
    dags = parse(models, "incident")
    found = {
        name: (task.pool, task.priority_weight)
        for name in ("alpha", "beta", "gamma")
        for task in dags[f"{name}__training"].tasks
    }
    tiers = {name: spec.find(models, name).tier for name in found}
    assert spec.find(models, "beta").estimator.device == "cuda"
    assert found == {name: ("gpu" if name == "beta" else "trainings", 4 - tiers[name]) for name in found}
    assert len({weight for _, weight in found.values()}) > 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_dag_file_is_short(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 80
    assert "airflow" in text
    assert "dag" in text  # else Airflow passes it over in silence


def test_parsing_imports_nothing_heavy() -> None:
    code = (
        "import json, runpy, sys\n"
        f"for file in {[str(file) for file in FILES]}: runpy.run_path(file)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(json.loads(done.stdout.splitlines()[-1]))


def test_the_plugin_imports_nothing_heavy_and_no_api_server() -> None:
    code = "import json, sys\nimport portfolio_view\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "plugins"
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert (HEAVY | {"fastapi", "airflow.api_fastapi.app", "tiltyard"}).isdisjoint(loaded)


def test_airflow_does_not_run_the_library_as_plugins() -> None:
    assert "tiltyard/" in (ROOT / "plugins" / ".airflowignore").read_text().splitlines()


def test_serialised_dags_are_the_same_from_parse_to_parse() -> None:
    """By the digest by which Airflow decides that a DAG has a new version."""
    code = (
        "import json\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        "from airflow.models.serialized_dag import SerializedDagModel\n"
        "from airflow.serialization.serialized_objects import DagSerialization\n"
        f"bag = DagBag({str(ROOT / 'dags')!r})\n"
        "hashes = {name: SerializedDagModel.hash(DagSerialization.to_dict(dag)) for name, dag in bag.dags.items()}\n"
        "print('DAGS' + json.dumps(hashes, sort_keys=True))"
    )

    def serialised(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        return re.search(r"^DAGS(.*)$", done.stdout, re.MULTILINE)[1]

    first = serialised("1")
    assert first == serialised("2")
    assert set(json.loads(first)) >= {"incident__features", "sla_breach__training"}


def test_the_page_about_the_dags_is_current() -> None:
    page = (ROOT / "docs" / "reference" / "dags.md").read_text(encoding="utf-8")
    assert page == dag_page.describe_dags(ROOT / "dags"), "run make docs"


def test_only_these_modules_of_the_library_import_airflow() -> None:
    """Operators and hooks that are named in a text are no import that `make lint` sees."""
    pattern = re.compile(r"^\s*(from|import) airflow\b", re.MULTILINE)
    files = {file.name for file in (ROOT / "plugins" / "tiltyard").rglob("*.py") if pattern.search(file.read_text())}
    assert files == {
        "approvals.py", "assets.py", "chunks.py", "dag_page.py", "explanations.py", "lineage_events.py",
        "orchestration.py", "task_run.py",
    }  # fmt: skip


def test_the_schedule_is_the_contract_s_else_a_setting(tmp_path: Path) -> None:
    assert orchestration.timetable(Settings(schedule="none"), "incident") is None
    assert orchestration.timetable(Settings(schedule="0 3 * * *"), "incident").expression == "0 3 * * *"
    settings = bazaar.settings_of(tmp_path, "postgresql://nobody@127.0.0.1:1/none")
    bazaar.contract(settings, "web", 'schedule: "0 5 * * 1"')
    bazaar.contract(settings, "shop", "schedule: rarely")
    assert orchestration.timetable(settings, "web").expression == "0 5 * * 1"
    assert orchestration.timetable(settings, "shop").expression == "0 0 * * *", "its run says what is wrong with it"
