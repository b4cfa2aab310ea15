"""The loop over several nights: hindcast against the nightly stages, resuming, stopped batches."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import airflow_settings, describe, quickstart, reports, status
from tiltyard.edge.document import ModelStatus
from tiltyard.errors import CheckFailed
from tiltyard.govern import drift, grants
from tiltyard.judge import promotion, shadow
from tiltyard.prepare import features
from tiltyard.rails import Rails
from tiltyard.records import ShadowSummary
from tiltyard.rewind import hindcast
from tiltyard.rewind.hindcast import Hindcast
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, find
from tiltyard.train import leakage_gate, training

FIRST = clock.parse_as_of("2025-02-03")
NIGHT = timedelta(days=1)
NIGHTS = 4
AUDIT = ["snapshot", "scored_at", "ingested_at", "recorded_at"]
"""Columns that say when and from which version of the lake a row was made, not what it says."""


@pytest.fixture(scope="module")
def replayed(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path, deliveries: Path
) -> Iterator[tuple[Rails, Spec, Hindcast]]:
    """A home in which the nights were hindcast."""
    settings = business_home(tmp_path_factory.mktemp("replayed"), postgres_url, eager_models, deliveries)
    spec = find(eager_models, "churn")
    with rails_module.opened(settings) as rails:
        yield rails, spec, hindcast.hindcast(rails, [spec], FIRST, FIRST + (NIGHTS - 1) * NIGHT)


def test_the_first_night_asks_for_a_model_and_the_next_ones_score_with_it(
    replayed: tuple[Rails, Spec, Hindcast],
) -> None:
    rails, _, result = replayed
    of_model = result.models["churn"]
    assert of_model.nights == NIGHTS
    assert of_model.stopped == ()
    assert [retrain.night for retrain in of_model.retrains] == [FIRST.date()]
    assert result.to_json()["from"] == str(FIRST.date())
    rows = rails.lake.query(
        "select night, role, count(*) as n from {ops.prediction} group by all order by night, role",
        FIRST + NIGHTS * NIGHT,
    )
    assert set(rows[rows["night"].dt.date == FIRST.date()]["role"]) == {"safe_default"}
    later = rows[rows["night"].dt.date > FIRST.date()]
    assert set(later["role"]) == {"safe_default", "challenger"}
    assert later.groupby("night")["n"].nunique().eq(1).all()  # the same rows for everybody


def test_the_nightly_stages_give_the_rows_that_the_hindcast_gave(
    replayed: tuple[Rails, Spec, Hindcast],
    tmp_path: Path,
    postgres_url: str,
    eager_models: Path,
    deliveries: Path,
) -> None:
    """The DAG tasks call these functions, one night after the other, with only that night's deliveries landed."""
    ahead, spec, _ = replayed
    with rails_module.opened(business_home(tmp_path, postgres_url, eager_models, deliveries)) as rails:
        for position in range(NIGHTS):
            as_of = FIRST + position * NIGHT
            features.build_night(rails, as_of, render=False)
            shadow.shadow_night(rails, spec, as_of)
            promotion.judge_night(rails, spec, as_of)
            drift.measure_night(rails, spec, as_of)
            for reasons in grants.govern_night(rails, as_of, [spec]).granted.values():
                training.train(rails, spec, as_of, requested_by="airflow", reasons=reasons)
        end = FIRST + NIGHTS * NIGHT
        for table in ("ops.prediction", "ops.evaluation", "ops.drift"):
            pd.testing.assert_frame_equal(rows(rails, table, end), rows(ahead, table, end))
        assert decisions(rails, spec) == decisions(ahead, spec)
        assert versions(rails, spec) == versions(ahead, spec)


def test_the_status_says_what_was_found_and_names_a_prediction_to_explain(
    replayed: tuple[Rails, Spec, Hindcast],
) -> None:
    rails, spec, _ = replayed
    document = status.status(rails, spec)
    assert isinstance(document, ModelStatus)
    assert ModelStatus.from_json(json.loads(json.dumps(document.to_json()))) == document
    assert document.as_of.date() == (FIRST + (NIGHTS - 1) * NIGHT).date()
    assert (document.champion, document.challengers, document.shadow_nights) == (None, (1,), {1: NIGHTS - 1})
    assert document.gate and document.gate.verdict == "hold"
    assert document.gate.reasons
    assert document.matured == 0 < document.immature
    assert document.drift and document.drift.verdict in ("steady", "alarm")
    age_hours = document.freshness["login"].age_hours
    assert age_hours is not None and age_hours < 24
    assert document.checks and document.checks.status == "done"
    assert "hold v1 against the safe default" in describe.model(document)

    explained = status.explain(rails, spec, document.served_by["safe_default"].example)
    assert (explained.tier, explained.score) == ("safe_default", spec.fallback.safe_default)
    assert explained.truth is None
    times = [
        (value.event_time, value.available_at)
        for value in explained.features
        if value.event_time and value.available_at
    ]
    assert times
    for event_time, available_at in times:
        assert max(event_time, available_at) <= explained.prediction_time
    assert explained.entity_id in describe.prediction(explained)


def test_a_drift_page_is_drawn_when_somebody_opens_it(replayed: tuple[Rails, Spec, Hindcast]) -> None:
    rails, spec, _ = replayed
    nights = [night_closing(FIRST + position * NIGHT) for position in range(NIGHTS)]
    finding = rails.ledger.finding(spec.name, nights[-1])
    assert finding is not None
    assert finding.report is not None
    assert not Path(finding.report).exists(), "no night waits for Evidently"
    page = reports.opened(rails.settings, f"drift/churn/{nights[-1]}.html")
    assert page == Path(finding.report).resolve()
    assert "as Evidently draws it" in page.read_text()
    drawn = page.stat().st_mtime_ns
    assert reports.opened(rails.settings, f"drift/churn/{nights[-1]}.html") == page
    assert page.stat().st_mtime_ns == drawn, "drawn once"
    assert reports.opened(rails.settings, f"drift/churn/{nights[0]}.html") is None, "there was no model to compare"
    assert reports.opened(rails.settings, f"drift/nobody/{nights[-1]}.html") is None
    drift.measure_night(rails, spec, FIRST + (NIGHTS - 1) * NIGHT)
    assert not page.exists(), "what it showed may be what the night said before"


def test_a_second_run_passes_over_what_is_there(replayed: tuple[Rails, Spec, Hindcast]) -> None:
    rails, spec, first = replayed
    before = rails.lake.snapshot()
    again = hindcast.hindcast(rails, [spec], FIRST, FIRST + (NIGHTS - 1) * NIGHT)
    assert again.models["churn"].resumed == first.models["churn"].nights
    assert rails.lake.snapshot() == before


def test_a_hindcast_killed_in_the_middle_goes_on_and_ends_the_same(
    replayed: tuple[Rails, Spec, Hindcast],
    tmp_path: Path,
    postgres_url: str,
    eager_models: Path,
    deliveries: Path,
) -> None:
    ahead, spec, _ = replayed
    settings = business_home(tmp_path, postgres_url, eager_models, deliveries)
    last = FIRST + (NIGHTS - 1) * NIGHT
    command = [sys.executable, "-m", "tiltyard.cli", "hindcast", "--model", "churn"]
    command += ["--from", str(FIRST.date()), "--to", str(last.date())]
    environment = os.environ | airflow_settings.tiltyard_env(settings) | {"PYTHONPATH": str(ROOT / "plugins")}
    with rails_module.opened(settings) as rails:
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as killed:
            while not rails.ledger.versions("churn"):  # the first night has trained, its record may not be written
                assert killed.poll() is None, "it ended before it could be killed"
                time.sleep(0.02)
            beside = psutil.Process(killed.pid).children(recursive=True)
            killed.kill()
        assert beside
        assert not psutil.wait_procs(beside, timeout=10)[1], "the auditor outlived its hindcast"
        assert not hindcast.complete(rails, spec, last.date())
        hindcast.hindcast(rails, [spec], FIRST, last)
        end = FIRST + NIGHTS * NIGHT
        for table in ("ops.prediction", "ops.evaluation", "ops.drift"):
            pd.testing.assert_frame_equal(rows(rails, table, end), rows(ahead, table, end))
        assert versions(rails, spec) == versions(ahead, spec)


def test_nights_again_and_out_of_order_write_the_same_rows(replayed: tuple[Rails, Spec, Hindcast]) -> None:
    rails, spec, _ = replayed
    end = FIRST + NIGHTS * NIGHT
    tables = ("ops.prediction", "ops.evaluation", "ops.drift")
    before = {table: rows(rails, table, end) for table in tables}
    for position in (2, 1):
        as_of = FIRST + position * NIGHT
        features.build_night(rails, as_of, render=False)
        shadow.shadow_night(rails, spec, as_of)
        promotion.judge_night(rails, spec, as_of)
        drift.measure_night(rails, spec, as_of)
    for table in tables:
        pd.testing.assert_frame_equal(rows(rails, table, end), before[table])


def test_a_stopped_batch_leaves_yesterdays_features_in_service(
    replayed: tuple[Rails, Spec, Hindcast],
) -> None:
    """After the last delivery nothing arrives: no table is good, and all stay where they were."""
    rails, _, _ = replayed
    before = rails.publication()
    silent = clock.midnight(date(2025, 1, 1) + timedelta(days=60))
    with pytest.raises(CheckFailed, match="They stay in service as of their last good night"):
        features.build_night(rails, silent, render=False)
    after = rails.publication()
    assert not before.tables
    assert {state.snapshot for state in after.tables.values()} == {after.snapshot} == {before.snapshot}
    assert after.state("ftr_customer__activity") is not None
    assert rails.ledger.stage_status("features", "subscription", silent.date()) == "stopped"


def test_one_leaky_model_stops_no_other_and_is_named_whenever_the_hindcast_is_resumed(
    tmp_path: Path, postgres_url: str, eager_models: Path, deliveries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    shutil.copytree(eager_models, models)
    shutil.copytree(eager_models / "churn", models / "leaky")
    tested: list[str] = []
    genuine = leakage_gate.check_frame

    def check_frame(rails: Rails, spec: Spec, *rest: Any, **named: Any) -> Any:
        tested.append(spec.name)
        report = genuine(rails, spec, *rest, **named)
        if spec.name != "leaky":
            return report
        failure = replace(report.results[0], success=False, severity="critical", name="tells_the_label")
        return replace(report, results=(*report.results, failure))

    monkeypatch.setattr(leakage_gate, "check_frame", check_frame)
    last = FIRST + NIGHT
    with rails_module.opened(business_home(tmp_path, postgres_url, models, deliveries)) as rails:
        specs = [find(models, "churn"), find(models, "leaky")]
        result = hindcast.hindcast(rails, specs, FIRST, last, jobs=1)  # in this process, where the gate is another
        assert [retrain.version for retrain in result.models["churn"].retrains] == [1]
        assert result.models["churn"].ended_early == ()
        ended, again_ended = result.models["leaky"].ended_early  # what stopped it may be over on the next night
        assert (ended.night, ended.stage, ended.status) == (FIRST.date(), "training", "stopped")
        assert (again_ended.night, again_ended.stage, again_ended.status) == (last.date(), "training", "stopped")
        unmade = [retrain.unmade for retrain in result.models["leaky"].retrains]
        assert len(unmade) == 2 and all("leakage gate" in str(reason) for reason in unmade)
        assert rails.ledger.stage_runs(ShadowSummary, "leaky").keys() == {FIRST.date(), last.date()}

        times = tested.count("leaky")
        again = hindcast.hindcast(rails, specs, FIRST, last, jobs=1)
        assert tested.count("leaky") == times, "the same frame would be stopped again"
        assert again.models["leaky"].resumed == 2
        assert again.models["leaky"].ended_early == (ended, again_ended)
        sentence = hindcast.complaint({name: of_model.ended_early for name, of_model in again.models.items()})
        assert sentence is not None
        assert sentence.startswith("1 of 2 models did not get through. leaky: training of 2025-02-03 stopped: ")
        assert "leakage gate" in sentence

        ended_of = {name: of_model.ended_early for name, of_model in again.models.items()}
        (stopped,) = hindcast.stops(ended_of)
        assert stopped.startswith("leaky: its training of 2025-02-04 (and of 1 earlier night) was stopped by a check: ")
        assert "tiltyard status leaky" in stopped
        assert hindcast.complaint(hindcast.failures(ended_of)) is None
        assert quickstart.is_outcome(rails, "leaky__training", FIRST.date())
        assert not quickstart.is_outcome(rails, "churn__training", FIRST.date())
        assert not quickstart.is_outcome(rails, "shadow", FIRST.date())


def test_models_side_by_side_write_what_they_write_one_by_one(
    replayed: tuple[Rails, Spec, Hindcast], tmp_path: Path, postgres_url: str, eager_models: Path, deliveries: Path
) -> None:
    """Killed in the middle, too: two processes of two models, resumed, beside one model in one process."""
    ahead, spec, alone = replayed
    models = tmp_path / "models"
    shutil.copytree(eager_models, models)
    shutil.copytree(eager_models / "churn", models / "twin")
    settings = business_home(tmp_path, postgres_url, models, deliveries, hindcast_jobs=2)
    last = FIRST + (NIGHTS - 1) * NIGHT
    command = [sys.executable, "-m", "tiltyard.cli", "hindcast", "--from", str(FIRST.date()), "--to", str(last.date())]
    environment = os.environ | airflow_settings.tiltyard_env(settings) | {"PYTHONPATH": str(ROOT / "plugins")}
    steps: list[tuple[str, float]] = []
    with rails_module.opened(settings) as rails:
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as killed:
            while not rails.ledger.versions("twin"):
                assert killed.poll() is None, "it ended before it could be killed"
                time.sleep(0.02)
            beside = psutil.Process(killed.pid).children(recursive=True)
            killed.kill()
        assert len(beside) >= 3, "an auditor, and a process per model"
        assert not psutil.wait_procs(beside, timeout=10)[1], "its processes outlived the hindcast"
        specs = [find(models, "churn"), find(models, "twin")]
        result = hindcast.hindcast(
            rails, specs, FIRST, last, progress=lambda label, share: steps.append((label, share))
        )
        assert [share for _, share in steps] == sorted(share for _, share in steps)
        assert steps[-1] == ("done", 1.0)
        assert result.models["churn"].ended_early == result.models["twin"].ended_early == ()
        end = FIRST + NIGHTS * NIGHT
        for table in ("ops.prediction", "ops.profile", "ops.evaluation", "ops.estimate", "ops.drift"):
            expected = digest(rows(ahead, table, end))
            assert digest(of_model(rows(rails, table, end), "churn")) == expected
        assert decisions(rails, spec) == decisions(ahead, spec)
        assert versions(rails, spec) == versions(ahead, spec)
        assert result.models["churn"].promotions == alone.models["churn"].promotions
        scores = rows(rails, "ops.prediction", end).groupby("model")["score"].sum()
        assert scores["twin"] == pytest.approx(scores["churn"], abs=1.0), "as many rows, of the same kind"


def of_model(found: pd.DataFrame, model: str) -> pd.DataFrame:
    return found[found["model"] == model].reset_index(drop=True)


def digest(found: pd.DataFrame) -> str:
    return hashlib.sha256(found.to_csv(index=False, float_format="%.17g").encode()).hexdigest()


def rows(rails: Rails, table: str, as_of: Any) -> pd.DataFrame:
    found = rails.lake.query(f"select * from {{{table}}}", as_of)
    found = found.drop(columns=[column for column in AUDIT if column in found])
    texts = found.astype({column: str for column in found if column == "counts"})  # lists have no order
    return texts.sort_values(list(texts.columns), ignore_index=True)


def decisions(rails: Rails, spec: Spec) -> list[tuple[Any, ...]]:
    return [
        (row.night, row.challenger, row.champion, row.verdict, row.reasons) for row in rails.ledger.decisions(spec.name)
    ]


def versions(rails: Rails, spec: Spec) -> list[tuple[Any, ...]]:
    return [(row.version, row.night, row.inputs) for row in rails.ledger.versions(spec.name)]
