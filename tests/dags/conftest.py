"""Airflow's settings for this folder: DAGs are parsed as the scheduler would, without a metadata database."""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiltyard.settings import ROOT

AIRFLOW = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    # Never connected to: parsing needs the setting, not the database.
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:1/none",
}
os.environ |= {name: value for name, value in AIRFLOW.items() if name not in os.environ}
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="tiltyard-airflow-"))


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`parse(models=folder, sources=…, schedule=…)`: every DAG of dags/, by id. Fails on an import error."""
    from airflow.dag_processing.dagbag import DagBag

    def parse(
        models: Path | None = None, sources: str = "incident,subscription", schedule: str = "@daily"
    ) -> dict[str, Any]:
        monkeypatch.setenv("TILTYARD_SOURCES", sources)
        monkeypatch.setenv("TILTYARD_SCHEDULE", schedule)
        monkeypatch.setenv("TILTYARD_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TILTYARD_MODELS", str(models or ROOT / "models"))
        bag = DagBag(ROOT / "dags")
        assert bag.import_errors == {}
        return dict(bag.dags)

    return parse


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with three models, one of each tier, which share feature views."""
    text = (ROOT / "models" / "sla_breach" / "spec.yaml").read_text()
    for tier, name in ((1, "alpha"), (2, "beta"), (3, "gamma")):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text(re.sub(r"(?m)^tier:.*$", f"tier: {tier}", text))
    return tmp_path / "models"
