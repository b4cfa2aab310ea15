"""Policy files: what they may change, what they may not, and how a mistake is told."""

from datetime import timedelta
from pathlib import Path

import pytest

from tiltyard import spec
from tiltyard.errors import BadInput
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.rewind import policy
from tiltyard.settings import ROOT

SPECS = spec.load_all(ROOT / "models")
WHOLE = load_portfolio(ROOT / "models")


def written(folder: Path, text: str) -> Path:
    path = folder / "cautious.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_policy_changes_what_it_names_and_makes_no_other_model(tmp_path: Path) -> None:
    text = """
        gate: {alpha: 0.01}
        drift: {hysteresis: {of: 5}}
        retrain: {every: 28d}
        portfolio: {budget: {false_retrains_per_model_year: 0.5}}
        models: {sla_breach: {gate: {max_slice_loss: 0.05}}}
    """
    found = policy.load(written(tmp_path, text), SPECS, WHOLE)
    assert found.name == "cautious"
    assert {one.gate.alpha for one in found.specs} == {0.01}
    assert {(one.drift.hysteresis.least, one.drift.hysteresis.of) for one in found.specs} == {(2, 5)}
    assert {one.retrain.every for one in found.specs} == {timedelta(days=28)}
    assert {one.name: one.gate.max_slice_loss for one in found.specs}["sla_breach"] == 0.05
    assert {one.gate.max_slice_loss for one in found.specs if one.name != "sla_breach"} == {0.02}
    assert [one.recipe for one in found.specs] == [one.recipe for one in SPECS]
    assert [one.digest for one in found.specs] != [one.digest for one in SPECS]
    assert found.portfolio.budget.false_retrains_per_model_year == 0.5
    assert found.portfolio.trainings == WHOLE.trainings


def test_the_current_policy_is_what_the_specs_say() -> None:
    found = policy.current(SPECS, WHOLE)
    assert (found.name, found.specs, found.portfolio) == (policy.CURRENT, SPECS, WHOLE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("drift: {cooldown: 7d}\ngate: {min_shado: 14d}", r"cautious.yaml:2: gate.min_shado: unknown field"),
        ("gate: {alpha: 0.9}", r"cautious.yaml:1: gate.alpha: .*less than 0.5"),
        ("estimator: {window: 10d}", r"cautious.yaml:1: estimator: unknown field"),
        ("models: {no_such: {gate: {alpha: 0.01}}}", "names 'no_such', which is not in this hindcast"),
        ("portfolio: {trainings: {per_nite: 1}}", "portfolio.trainings.per_nite: unknown field"),
        ("- gate", "a policy is a mapping like"),
        ("gate: {alpha: [", "not readable as YAML"),
        ("", "a policy is a mapping like"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        policy.load(written(tmp_path, text), SPECS, WHOLE)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot be read .*name a YAML file, or 'current'"):
        policy.load(tmp_path / "none.yaml", SPECS, WHOLE)


def test_mappings_are_merged_and_everything_else_is_replaced() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": timedelta(1)}
    assert policy.merged(base, {"a": {"c": [2]}, "e": 3}) == {"a": {"b": 1, "c": [2]}, "d": timedelta(1), "e": 3}
    assert base == {"a": {"b": 1, "c": [1]}, "d": timedelta(1)}
