"""The retire list on a lake: what was answered, its twin and the safe default, priced row by row."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from tests.unit.cli.test_cli import tiltyard
from tiltyard.govern import retiring
from tiltyard.prepare import truth
from tiltyard.records import Cost, ShadowSummary, Usage
from tiltyard.tables import LIGHT_SCORE

FIRST = datetime(2016, 3, 1, tzinfo=UTC)
DAYS, PER_DAY = 40, 30
AS_OF = FIRST + timedelta(days=DAYS + 3)
COST = {"false_positive": 1, "false_negative": 4}


def drawn(arena, name, noise):
    """A model that has answered for DAYS days, with a light twin whose errors are `noise` times as large."""
    spec = arena.spec(name, gate={"cost": COST}, fallback={"safe_default": 0.05})
    rng = np.random.default_rng(3)
    at = [FIRST + timedelta(days=day, minutes=row) for day in range(DAYS) for row in range(PER_DAY)]
    rate = rng.random(len(at))
    keys = pd.DataFrame({"ticket_id": [f"{name}{place:05}" for place in range(len(at))], "prediction_time": at})
    arena.label(
        spec, keys.assign(label=rng.random(len(at)) < rate, available_at=[time + timedelta(days=2) for time in at])
    )
    scores = {
        who: np.clip(rate + rng.normal(0, spread, len(at)), 0, 1) for who, spread in (("own", 0.1), ("twin", noise))
    }
    rows = keys.rename(columns={"ticket_id": "entity_id"})
    arena.predict(spec, rows.assign(version=1, role="champion", tier="champion", score=scores["own"]))
    arena.predict(spec, rows.assign(version=2, role="challenger", score=0.5))
    ends = pd.to_datetime(rows["prediction_time"]).dt.floor("D") + pd.Timedelta(days=1)
    twins = rows.assign(
        model=name, version=1, score=scores["twin"], scores=None, night=ends.dt.date, available_at=ends
    )  # fmt: skip
    arena.rails.lake.ensure(LIGHT_SCORE)
    arena.rails.lake.replace(LIGHT_SCORE, {"model": name}, twins[list(LIGHT_SCORE.columns)], message="drawn")
    arena.rails.ledger.record_stage(name, AS_OF.date(), "done", ShadowSummary())
    return spec


def by_hand(rows, column):
    """What the rows of a column cost: acted on from 0.2 on, where both errors cost the same."""
    acted = rows[column] >= 0.2
    return np.where(acted, (rows["label"] == 0) * 1.0, (rows["label"] == 1) * 4.0).mean()


def test_what_a_row_has_saved_is_what_it_is_by_hand(arena):
    spec = drawn(arena, "worthy", 0.4)
    [said] = retiring.look(arena.rails, [spec])
    rows = truth.answered(arena.rails, spec, AS_OF, FIRST.date()).assign(default=0.05)
    assert len(rows) == DAYS * PER_DAY, "challengers answer nobody"
    assert said.over_default.mean == pytest.approx(by_hand(rows, "default") - by_hand(rows, "score"))
    assert said.over_light.mean == pytest.approx(by_hand(rows, "light") - by_hand(rows, "score"))
    assert said.over_default.low < said.over_default.mean < said.over_default.high
    assert (said.advice, said.over_default.cost) == ("keep", 0)
    assert said.night == AS_OF.date()
    assert said.first == FIRST.date() + timedelta(days=1)
    assert "was not measured yet" in said.reason


def test_what_it_costs_to_run_is_taken_from_the_accounts(arena):
    spec = drawn(arena, "dear", 0.11)
    arena.version(spec, 1, AS_OF, facts={"fit_cpu_s": {"heavy": 3.6e6, "light": 1.0}})
    usage = Usage(cpu_s=9e6)
    arena.rails.ledger.accounts.add([Cost(stage="shadow", name="dear", night=AS_OF.date(), usage=usage)])
    [said] = retiring.look(arena.rails, [spec])
    assert said.over_default.cost == pytest.approx(9e6 / 3600 * 0.04 / PER_DAY)
    assert said.over_light.cost == pytest.approx(1000 * 0.04 / PER_DAY)
    assert said.advice == "retire"


def test_one_model_that_cannot_be_told_keeps_no_other_from_it(arena, monkeypatch):
    good = drawn(arena, "fine", 0.4)
    bad = arena.spec("lost", gate={"cost": COST})
    arena.rails.ledger.record_stage("lost", AS_OF.date(), "done", ShadowSummary())
    plain = arena.spec("plain")
    arena.rails.ledger.record_stage("plain", AS_OF.date(), "done", ShadowSummary())
    found = {said.model: said for said in retiring.look(arena.rails, [bad, good, plain, arena.spec("young")])}
    assert found["fine"].advice == "keep"
    assert found["lost"].advice == "open"
    assert "could not be worked out" in found["lost"].reason
    assert found["plain"].advice == "unpriced"
    assert "write gate.cost in models/plain/spec.yaml" in found["plain"].reason
    assert "no night yet" in found["young"].reason


def test_the_truth_that_counts_begins_with_a_half_year():
    assert retiring.beginning(datetime(2025, 7, 15, tzinfo=UTC).date()).isoformat() == "2025-01-01"
    assert retiring.beginning(datetime(2025, 6, 15, tzinfo=UTC).date()).isoformat() == "2024-07-01"
    assert retiring.beginning(datetime(2025, 1, 15, tzinfo=UTC).date()).isoformat() == "2024-07-01"


def test_the_command_line_shows_costs_and_worth(arena):
    usage = Usage(cpu_s=2.0, memory_bytes=300_000_000)
    arena.rails.ledger.accounts.add([Cost(stage="drift", name="churn", night=AS_OF.date(), usage=usage)])
    shown = tiltyard("costs", "--by", "stage", "--from", "2016-04-01", "--to", "2016-05-01", "--json",
                     settings=arena.rails.settings)  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    bills = {bill["name"]: bill for bill in json.loads(shown.stdout)["bills"]}
    assert bills["drift"]["usage"]["cpu_s"] == 2.0
    refused = tiltyard("costs", "--by", "colour", settings=arena.rails.settings)
    assert refused.returncode == 2
    assert "not by 'colour'" in refused.stderr
    said = tiltyard("worth", "churn", "--json", settings=arena.rails.settings)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)[0]["advice"] == "open"
