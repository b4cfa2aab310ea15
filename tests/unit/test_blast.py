"""The benchmark of faults: what it takes for a difference, and whom it blames."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from tiltyard.settings import ROOT

VICTIM, BYSTANDER = "birch_habits", "birch_plain"


@pytest.fixture(scope="module")
def faults() -> Iterator[dict[str, ModuleType]]:
    """The modules of the benchmark, which is no package of the library."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from faults import business, kinds, player, rows, trial

    yield {"business": business, "kinds": kinds, "player": player, "rows": rows, "trial": trial}
    sys.path.remove(str(ROOT / "benchmarks"))


def written(faults: dict[str, ModuleType], **scores: float) -> Any:
    """A night on which every model has one row, with a score of a half unless it is given."""
    rows = faults["rows"]
    models = faults["business"].every_model()
    answer = rows.Answered(1, 0, 0, {"champion": 1}, (), None, frozenset({"7"}))
    lines = {name: {"ops.prediction": [rows._line({"score": scores.get(name, 0.5)})]} for name in models}
    return rows.Written(models=lines, answers=dict.fromkeys(models, answer))


def judged(faults: dict[str, ModuleType], night: Any, mended: Any, online: Any = None) -> Any:
    kind = faults["kinds"].KINDS["file_binary"]
    player = faults["player"].Player({}, ROOT)
    calm = written(faults)
    return faults["trial"].judged(kind, calm, night, online or {}, player, mended, player, 0.0)


def test_the_last_digit_of_a_bystander_s_score_is_collateral_and_a_victim_s_is_not(faults: Any) -> None:
    other = 0.5000000000000001
    result = judged(faults, written(faults, **{VICTIM: other, BYSTANDER: other}), written(faults))
    assert set(result.collateral) == {BYSTANDER}
    assert result.touched == 1
    assert not result.left
    result = judged(faults, written(faults), written(faults, **{VICTIM: other}))
    assert set(result.left) == {VICTIM}, "mended, it has to be the undisturbed night"


def test_a_victim_without_an_answer_is_told_unless_the_service_has_one(faults: Any) -> None:
    night = written(faults)
    night.answers[VICTIM] = replace(night.answers[VICTIM], rows=0, tiers={}, waits="held", entities=frozenset())
    assert set(judged(faults, night, written(faults)).unanswered) == {VICTIM}
    online = {VICTIM: {"safe_default (stale)": 1}}
    assert not judged(faults, night, written(faults), online).unanswered


def test_nothing_is_left_out_but_snapshots_instants_of_the_wall_clock_and_ids(faults: Any) -> None:
    rows = faults["rows"]
    row = {"score": 0.1, "version": 3, "night": "2025-02-26", "tier_reason": None, "available_at": "x", "apart": "{}"}
    left_out = dict.fromkeys(rows.LEFT_OUT, 1)
    assert rows._line(row | left_out) == rows._line(row)
    for name in row:
        assert rows._line(row | {name: "another"}) != rows._line(row)


def test_there_are_fifty_kinds_and_they_are_about_models_that_there_are(faults: Any) -> None:
    kinds, every = faults["kinds"].KINDS, set(faults["business"].every_model())
    assert len(kinds) > 50
    assert len(every) == 40
    assert all(kind.downstream <= every for kind in kinds.values())
    assert all(set(kind.sources) <= set(faults["business"].SOURCES) for kind in kinds.values())
