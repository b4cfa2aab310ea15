"""The governor: at most the retrains the policy allows, each for a stated reason."""

from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tiltyard.governor import Finding, Signal, govern
from tiltyard.spec import DriftPolicy

CASES = Path(__file__).resolve().parents[1] / "golden" / "governor"
START = date(2016, 4, 1)


def finding_of(values: dict[str, Any]) -> Finding:
    signals = tuple(Signal(**signal) for signal in values.pop("signals", ()))
    listed = {name: tuple(values.pop(name, ())) for name in ("challengers", "broken")}
    return Finding(champion=values.pop("champion", None), signals=signals, **listed, **values)


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_golden_case(case: str) -> None:
    given_ = yaml.safe_load((CASES / case / "input.yaml").read_text())
    expected = yaml.safe_load((CASES / case / "expect.yaml").read_text())
    action = govern(
        finding_of(given_["finding"]), given_["history"], given_["night"], DriftPolicy(**given_.get("policy", {}))
    )
    assert {"action": action.action, "drifted": action.drifted, "reasons": list(action.reasons)} == expected


def signal(kind: str, drifted: bool, tested: bool = True) -> Signal:
    value = (0.3 if drifted else 0.05) if tested else None
    return Signal(kind, "column", "wasserstein", value, 0.1, drifted and tested, "" if tested else "no values")  # type: ignore[arg-type]


signals = st.lists(
    st.builds(signal, st.sampled_from(["feature", "prediction", "performance"]), st.booleans(), st.booleans()),
    max_size=8,
).map(tuple)
findings = st.builds(
    Finding,
    champion=st.none() | st.integers(1, 5),
    challengers=st.lists(st.integers(1, 9), max_size=2).map(tuple),
    signals=signals,
    broken=st.lists(st.just("the features stage is stopped"), max_size=1).map(tuple),
    matured=st.integers(0, 1000),
    min_matured=st.just(500),
)
policies = st.builds(
    DriftPolicy,
    on_drift=st.sampled_from(["retrain", "report"]),
    cooldown=st.integers(1, 30).map(lambda days: timedelta(days=days)),
    share=st.sampled_from([0.2, 0.5, 1.0]),
)


@given(st.lists(findings, max_size=40), policies)
def test_no_two_requests_are_closer_than_the_cooldown(nightly: list[Finding], policy: DriftPolicy) -> None:
    asked: list[date] = []
    for offset, finding in enumerate(nightly):
        night = START + timedelta(days=offset)
        if govern(finding, asked, night, policy).action == "retrain":
            asked.append(night)
    assert all(later - earlier >= policy.cooldown for earlier, later in pairwise(asked))


@given(findings, st.lists(st.dates(date(2016, 3, 1), date(2016, 5, 1))), policies)
def test_a_rerun_decides_the_same_whatever_this_and_later_nights_asked(
    finding: Finding, history: list[date], policy: DriftPolicy
) -> None:
    earlier = [night for night in history if night < START]
    assert govern(finding, history, START, policy) == govern(finding, earlier, START, policy)


@given(findings, policies)
def test_every_retrain_has_a_cause_and_every_action_a_reason(finding: Finding, policy: DriftPolicy) -> None:
    action = govern(finding, (), START, policy)
    assert action.reasons and all(action.reasons)
    if action.action == "retrain":
        bootstrap = finding.champion is None and not finding.challengers
        assert bootstrap or (policy.on_drift == "retrain" and any(signal.drifted for signal in finding.signals))
        assert not finding.broken
    assert (action.action in ("steady",)) <= (not action.drifted)


@given(findings, policies)
def test_what_could_not_be_tested_never_asks(finding: Finding, policy: DriftPolicy) -> None:
    untested = tuple(signal(one.kind, False, tested=False) for one in finding.signals)
    blind = Finding(1, (), untested, finding.broken)
    assert govern(blind, (), START, policy).action in ("steady", "report")


@given(findings, policies)
def test_more_drift_never_asks_less(finding: Finding, policy: DriftPolicy) -> None:
    rank = {"steady": 0, "report": 1, "cooldown": 1, "retrain": 2}
    worse = Finding(
        finding.champion,
        finding.challengers,
        (*finding.signals, signal("prediction", True)),
        finding.broken,
        finding.matured,
        finding.min_matured,
    )
    before, after = govern(finding, (), START, policy), govern(worse, (), START, policy)
    assert rank[after.action] >= rank[before.action]


def test_drift_of_something_untested_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match="cannot have drifted"):
        Signal("feature", "hour", "wasserstein", None, None, True)
