"""The one list of stages."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from tiltyard import stages
from tiltyard.settings import ROOT

FOLDERS = ("plugins", "dags", "tests", "docs", "benchmarks")
CODE = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py"))


def test_the_type_and_the_list_name_the_same_stages_in_the_same_order() -> None:
    assert tuple(stages.STAGES) == get_args(stages.StageName)
    assert set(stages.OF_PORTFOLIO) | set(stages.PER_SOURCE) | set(stages.PER_MODEL) == set(stages.STAGES)
    assert set(stages.NIGHTLY) == {*stages.IN_CHUNKS, "training"}


def test_every_stage_has_a_dag_file_of_its_name_and_there_is_no_other() -> None:
    assert {path.stem for path in (ROOT / "dags").glob("*.py")} == set(stages.STAGES)


def test_a_stage_works_on_nights_of_one_that_comes_before() -> None:
    order = list(stages.STAGES)
    for name, stage in stages.STAGES.items():
        assert stage.works_on is None or order.index(stage.works_on) < order.index(name)


def test_names_in_airflow_and_in_the_ledger() -> None:
    assert stages.dag_id("governor") == "governor"
    assert stages.dag_id("features", "incident") == "incident__features"
    assert stages.dag_id("training", "sla_breach") == "sla_breach__training"
    assert stages.dag_of("features", "churn", "subscription") == "subscription__features"
    assert stages.dag_of("shadow", "churn", "subscription") == "shadow"
    assert stages.dag_of("training", "churn", "subscription") == "churn__training"
    assert stages.recorded_as("features", "churn", "subscription") == "subscription"
    assert stages.recorded_as("governor", "churn", "subscription") == ""
    assert stages.recorded_as("shadow", "churn", "subscription") == "churn"
    assert stages.recorded_as("fallback_audit", "churn", "subscription") == "churn"
    assert stages.place("incident__features") < stages.place("a__b__promotion") < stages.place("training")
    with pytest.raises(ValueError):
        stages.place("example_dag")


def test_there_is_no_second_list() -> None:
    """A literal of names of which four or more are stages is a list of stages."""
    found = []
    for path in CODE:
        if path == Path(stages.__file__) or path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Tuple | ast.List | ast.Set):
                names = {item.value for item in node.elts if isinstance(item, ast.Constant)}
                if len(names & set(stages.STAGES)) >= 4:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_the_readers_of_the_design_are_shown_the_same_stages() -> None:
    page = (ROOT / "docs" / "reference" / "dags.md").read_text(encoding="utf-8")
    shown = [name.rpartition("__")[2] for name in re.findall(r"^## `([\w<>]+)`$", page, re.MULTILINE)]
    assert shown == list(stages.STAGES)
