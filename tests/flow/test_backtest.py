"""Policies on past nights: what the hindcast finds by night is what the backtest finds in memory; safe to repeat."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import business_home
from tiltyard import clock, spec
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import airflow_settings
from tiltyard.govern import look
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import truth
from tiltyard.rails import Rails
from tiltyard.records import GovernorSummary
from tiltyard.rewind import backtest, hindcast, past, policy
from tiltyard.rewind.play import Play
from tiltyard.rewind.trainings import PastTrainings
from tiltyard.rewind.trial import PolicyTrial
from tiltyard.settings import ROOT

FIRST = clock.parse_as_of("2025-02-03")
LAST = FIRST + timedelta(days=7)
NIGHTS = list(clock.nights(FIRST, LAST))


@pytest.fixture(scope="module")
def lived(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path, deliveries: Path
) -> Iterator[Rails]:
    """A home whose nights were hindcast: every stage has written what it found."""
    settings = business_home(tmp_path_factory.mktemp("lived"), postgres_url, eager_models, deliveries)
    with rails_module.opened(settings) as rails:
        hindcast.hindcast(rails, [spec.find(eager_models, "churn")], FIRST, LAST)
        yield rails


def tried(rails: Rails) -> list[policy.Policy]:
    """The current policy, and one that trains on every night."""
    specs = (spec.find(rails.settings.models, "churn"),)
    whole = load_portfolio(rails.settings.models)
    eager = specs[0].model_copy(update={"drift": specs[0].drift.model_copy(update={"on_drift": "retrain_always"})})
    return [policy.current(specs, whole), policy.Policy("eager", (eager,), whole)]


@pytest.fixture(scope="module")
def told(lived: Rails) -> PolicyTrial:
    return backtest.try_policies(lived, tried(lived), FIRST, LAST, jobs=2)


def test_the_current_policy_does_what_the_hindcast_did(lived: Rails, told: PolicyTrial) -> None:
    mine = told.policies["current"]["churn"]
    granted = lived.ledger.retrains("churn")
    assert [(retrain.night, retrain.reasons) for retrain in mine.retrains] == [
        (retrain.night, retrain.reasons) for retrain in granted
    ]
    assert mine.promotions == () and not lived.ledger.promotions("churn")
    decided = [row.summary.actions["churn"].decision for row in lived.ledger.stage_runs(GovernorSummary).values()]
    assert mine.actions == {name: decided.count(name) for name in sorted(set(decided))}


def test_every_night_is_found_in_memory_as_the_stages_found_it(lived: Rails, told: PolicyTrial) -> None:
    """Rows, scores, truth and maturity of the gate's evidence, the histograms, and what drift says of them."""
    one = spec.find(lived.settings.models, "churn")
    with past.Workers(lived.settings, 1) as workers:
        snapshot = lived.lake.snapshot()
        rows = workers.gather(one, FIRST, LAST, snapshot).result()
        trainings = PastTrainings(one, workers, lived, snapshot, rows)
        play = Play(one, past.read(lived, one, FIRST, LAST, rows), trainings)
        threshold = load_portfolio(lived.settings.models).budget.nights_between(1)
        found = {}
        for as_of in NIGHTS:
            past.learn(lived, play.past, as_of)
            play.decide(as_of)
            found[as_of] = play.look(as_of, threshold)
            if any(row.night == night_closing(as_of) for row in lived.ledger.retrains("churn")):
                play.add(night_closing(as_of), ["as in the hindcast"])
    for as_of in NIGHTS:
        [kept] = lived.ledger.findings(night_closing(as_of))
        mine = found[as_of]
        assert (mine.champion, mine.challengers, mine.alarm, mine.harm) == (
            kept.champion, kept.challengers, kept.alarm, kept.harm,
        )  # fmt: skip
        assert mine.evidence == pytest.approx(kept.evidence)
        assert mine.matured == kept.matured
        assert {one.column: one.value for one in mine.signals} == pytest.approx(
            {one.column: one.value for one in kept.signals}, nan_ok=True
        )
    since = night_closing(FIRST) + timedelta(days=1)
    kept = truth.side_by_side(lived, one, LAST, [1], since).reset_index(drop=True)
    kept = kept.drop(columns="is_outside")  # in memory nobody asks which labels lay beyond the bounds
    mine = play.side_by_side(LAST, [1], since).reset_index(drop=True)
    assert len(mine) > 100 and np.isfinite(mine.v1).any()
    mine["prediction_time"] = mine.prediction_time.dt.tz_localize("UTC")
    pd.testing.assert_frame_equal(
        mine[list(kept.columns)], kept, check_dtype=False, check_exact=False, check_datetimelike_compat=True
    )
    version = play.version(1)
    seen = look.profiles(lived, one, LAST, 1, date.min)
    counted = version.seen(play.trained[1], night_closing(LAST), frozenset())
    assert counted.nights.tolist() == seen.nights.tolist()
    assert counted.counts.keys() == seen.counts.keys()
    for name in seen.counts:
        assert (counted.counts[name] == seen.counts[name]).all(), name


def test_again_and_with_fewer_processes_it_says_the_same_and_writes_nothing(lived: Rails, told: PolicyTrial) -> None:
    before = lived.lake.snapshot(), len(lived.ledger.versions("churn")), len(lived.ledger.events())
    assert backtest.try_policies(lived, tried(lived), FIRST, LAST, jobs=1) == told
    assert (lived.lake.snapshot(), len(lived.ledger.versions("churn")), len(lived.ledger.events())) == before


def test_on_an_empty_home_killed_in_the_middle_it_goes_on_and_ends_the_same(
    lived: Rails, told: PolicyTrial, tmp_path: Path, postgres_url: str, eager_models: Path, deliveries: Path
) -> None:
    """What a worker has kept is found again; no role, no prediction and no decision is left in lake or ledger."""
    settings = business_home(tmp_path, postgres_url, eager_models, deliveries)
    command = [sys.executable, "-m", "tiltyard.cli", "hindcast", "--model", "churn", "--policy", "current", "--json"]
    command += ["--from", str(FIRST.date()), "--to", str(LAST.date()), "--plots", str(tmp_path / "plots")]
    environment = os.environ | airflow_settings.tiltyard_env(settings) | {"PYTHONPATH": str(ROOT / "plugins")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        kept = past.home(settings) / "versions"
        while not (kept.is_dir() and any(not entry.name.startswith(".") for entry in kept.iterdir())):
            assert killed.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        killed.kill()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    trial = PolicyTrial.from_json(result)
    assert trial.policies["current"] == told.policies["current"]
    assert trial.baselines["churn"]["never retrained"] == told.baselines["churn"]["never retrained"]
    assert (result["from"], result["to"]) == (str(FIRST.date()), str(LAST.date()))
    assert Path(trial.plots[0]).read_bytes().startswith(b"\x89PNG")
    with rails_module.opened(settings) as rails:
        assert not rails.lake.has("ops.prediction")
        assert not rails.ledger.versions("churn") and not rails.ledger.retrains("churn")
