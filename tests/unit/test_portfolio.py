"""Every model against the dbt project: its tables, and its exposure; and the owners whom the rules name."""

import re
import shutil
from datetime import date
from pathlib import Path

import pytest
import yaml

from tiltyard.errors import BadInput
from tiltyard.portfolio_rules import check_portfolio
from tiltyard.prepare import project
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, load_all

SPECS = load_all(ROOT / "models")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_dbt_project_has_what_the_spec_names(spec: Spec) -> None:
    project.check_spec(project.read(Settings()), Settings(), spec)


def test_every_model_is_an_exposure_of_the_tables_that_it_reads() -> None:
    exposures = yaml.safe_load((ROOT / "dbt" / "models" / "_models__exposures.yml").read_text())["exposures"]
    read = {exposure["name"]: sorted(exposure["depends_on"]) for exposure in exposures}
    named = {
        spec.name: sorted(
            f"ref('{table}')"
            for table in (
                spec.prediction.spine,
                *spec.prediction.features,
                spec.label.table,
                *([spec.fallback.popular.table] if spec.fallback.popular else []),
            )
        )
        for spec in SPECS
    }
    assert read == named


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("approvers: {subscription: {people: [ann]}}", "4: approvers: .*'subscription'; did you mean subscriptions?"),
        ("approvers: {Subscriptions: {people: [ann]}}", "4: approvers: .*did you mean subscriptions?"),
        ("routes: [{to: [env:A]}, {owners: [subscriptionz], to: [env:B]}]", "4: routes: .*did you mean subscriptions?"),
        ("approvers: {who-has-left: {people: [ann]}}", None),
        ("approvers: {subscriptions: {people: [ann]}}", None),
        ("people: {ann: [a.miller], bob: [b, A.Miller ]}", "people: 'A.Miller' is a name of ann and of bob; leave one"),
        ("people: {ann: [a.miller, ann], bob: []}", None),
    ],
)
def test_an_owner_that_is_misspelled_lets_nobody_else_answer(tmp_path: Path, rule: str, says: str | None) -> None:
    (tmp_path / "churn").mkdir()
    shutil.copy(ROOT / "models" / "churn" / "spec.yaml", tmp_path / "churn")
    (tmp_path / "portfolio.yaml").write_text(f"# rules\n\n\n{rule}\n")
    if says is None:
        check_portfolio(tmp_path)
    else:
        with pytest.raises(BadInput, match=says):
            check_portfolio(tmp_path)


@pytest.mark.parametrize(
    ("people", "is_enough"),
    [
        ("people: [ann]", False),
        ("people: [ann, Ann ]", False),
        ("people: [ann, bob]", True),
        ("people: [ann], delegates: [{from: ann, to: bob, until: 2025-06-01}]", True),
        ("people: [ann], delegates: [{from: ann, to: bob, until: 2025-05-01}]", False),
    ],
)
def test_where_fewer_may_answer_than_a_gate_asks_for_that_is_said(tmp_path: Path, people: str, is_enough: bool) -> None:
    (tmp_path / "churn").mkdir()
    text = (ROOT / "models" / "churn" / "spec.yaml").read_text()
    text = re.sub(r"(?m)^tier:.*$", "tier: 1", text)
    text = text.replace("min_matured: 500", "min_matured: 500, approvals: 2")
    (tmp_path / "churn" / "spec.yaml").write_text(text)
    (tmp_path / "portfolio.yaml").write_text(f"approvers: {{subscriptions: {{{people}}}}}\n")
    told = check_portfolio(tmp_path, date(2025, 5, 31))
    assert bool(told) is not is_enough
    assert is_enough or "churn asks for 2 approvals, and approvers of subscriptions names" in told[0]
    assert check_portfolio(tmp_path) == ()
