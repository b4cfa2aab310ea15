"""A person is erased: from deliveries, lake, answers, frames, pages and databases, at every snapshot; nobody else's
scores change, and nothing of them comes back."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
import yaml

from tests.conftest import know_project, make_settings
from tests.unit.cli.test_cli import tiltyard
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput
from tiltyard.judge import shadow
from tiltyard.lake import identifier
from tiltyard.online import fill
from tiltyard.online.connection import connect
from tiltyard.prepare import features, ingest
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.tables import PREDICTION
from tiltyard.train import replay, training
from tiltyard.upkeep.erasing.erase import erase

FIRST = date(2025, 1, 1)
DAYS = 40
AS_OF = clock.midnight(FIRST + timedelta(days=DAYS))
DAY = timedelta(days=1)
FAR = 7_000_000_000
"""Added to the simulator's numbers: what has ten digits is nothing else by chance."""


def deliver(folder: Path, days: int) -> None:
    """The simulated business, with numbers of ten digits."""
    near = folder.with_name(f"{folder.name}-near")
    Simulator(customers=400, start=FIRST, days=days).land(near)
    for path in sorted(near.glob("*/*.parquet")):
        place = folder / path.relative_to(near)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        duckdb.execute(
            f"copy (select * replace (customer_id + {FAR} as customer_id) from read_parquet('{path}')) "
            f"to '{place}' (format parquet)"
        )
    shutil.rmtree(near)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models about the same customers, of which one asks for a retrain."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("churn", "leaving"):
        shutil.copytree(ROOT / "models" / "churn", folder / name)
        spec = yaml.safe_load((folder / name / "spec.yaml").read_text())
        spec["estimator"] |= {"tune": {"trials": 2}, "window": "14d"}
        spec["gate"] |= {"min_matured": 50, "min_shadow": "1d"}
        if name == "leaving":
            spec["privacy"] = {"on_erasure": "retrain"}
        (folder / name / "spec.yaml").write_text(yaml.safe_dump(spec))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, models: Path) -> Settings:
    """Two nights built and scored, two versions trained, the store filled; one delivery in quarantine."""
    folder = tmp_path_factory.mktemp("erasing")
    settings = make_settings(folder, postgres_url, models=models, sources=("subscription",))
    deliver(settings.landing / "subscription", DAYS)
    know_project(settings, postgres_url)
    with rails_module.opened(settings) as rails:
        for as_of in (AS_OF - DAY, AS_OF):
            features.build_night(rails, as_of, render=False)
            for name in ("churn", "leaving"):
                shadow.shadow_night(rails, find(models, name), as_of)
        for name in ("churn", "leaving"):
            training.train(rails, find(models, name), AS_OF, requested_by="tests", reasons=("first",))
        fill.materialise(rails, AS_OF)
    return settings


@pytest.fixture
def rails(home: Settings) -> Iterator[Rails]:
    with rails_module.opened(home) as opened:
        yield opened


def someone(rails: Rails, place: int = 0) -> str:
    """A customer who was scored, is in a frame and has rows in every table."""
    rows = rails.lake.connection.execute(
        f"""
        select entity_id from {identifier(PREDICTION)} where entity_id in (
            select customer_id from {identifier("labels.lbl_churn")}
        ) group by 1 order by 1
        """
    ).fetchall()
    return str(rows[place][0])


def scores(rails: Rails, without: str, at: int | None = None) -> list[tuple[object, ...]]:
    version = f" at (version => {at})" if at is not None else ""
    return rails.lake.connection.execute(
        f"select * exclude (scored_at) from {identifier(PREDICTION)}{version} "
        f"where entity_id is not null and entity_id <> '{without}' order by all"
    ).fetchall()


def test_a_person_is_erased_everywhere(rails: Rails) -> None:
    who = someone(rails)
    before = scores(rails, who)
    snapshot = rails.lake.snapshot()
    old = scores(rails, who, snapshot - 5)
    result = erase(rails, [who], entity="customer", by="tests", reason="request 17")
    print(json.dumps(result.receipt.to_json(), indent=1))
    assert result.receipt.left == ()
    assert scores(rails, who) == before
    assert scores(rails, who, snapshot - 5) == old
