"""The gate: what each criterion says, what holds, and the golden cases."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltyard import gate
from tiltyard.clock import parse_duration
from tiltyard.gate import Evidence, SliceEvidence, decide
from tiltyard.spec import GatePolicy

GOLDEN = Path(__file__).parents[1] / "golden" / "gate"
POLICY = GatePolicy(min_matured=500, min_shadow="7d", slices=("priority",))
RANK = {"reject": 0, "hold": 1, "promote": 2}


def differences(rows=2000, mean=0.03, sd=0.1, seed=1):
    """Exactly this mean and spread, in a seeded order."""
    draw = np.random.default_rng(seed).normal(size=rows)
    draw = (draw - draw.mean()) / (draw.std() or 1.0) if rows > 1 else draw * 0
    return np.clip(draw * sd + mean, -1, 1)


def evidence(**changes):
    base = Evidence(
        challenger=2,
        champion=1,
        safe_default=None,
        shadow=timedelta(days=10),
        differences=differences(),
        expected=2000,
        slices=(SliceEvidence("priority=high", 400, 0.02), SliceEvidence("priority=low", 1600, 0.03)),
        immature=100,
        early=40,
    )
    return replace(base, **changes)


def from_yaml(case):
    content = yaml.safe_load(case.read_text())
    policy = GatePolicy(**content.pop("policy", {}))
    drawn = content.pop("differences")
    values = differences(**drawn) if isinstance(drawn, dict) else np.array(drawn, dtype=float)
    slices = tuple(SliceEvidence(**part) for part in content.pop("slices", ()))
    content["shadow"] = parse_duration(content["shadow"])
    content.setdefault("expected", len(values))
    content.setdefault("safe_default", None)
    return Evidence(differences=values, slices=slices, **content), policy


@pytest.mark.parametrize("case", sorted(GOLDEN.iterdir()), ids=lambda case: case.name)
def test_golden(case):
    expected = yaml.safe_load((case / "expect.yaml").read_text())
    verdict = decide(*from_yaml(case / "evidence.yaml"))
    assert verdict.verdict == expected["verdict"]
    assert {criterion.name: criterion.status for criterion in verdict.criteria} == expected["criteria"]
    assert any(expected["says"] in reason for reason in verdict.reasons), verdict.reasons


def test_every_criterion_is_listed_whatever_the_evidence():
    for changed in ({}, {"differences": np.array([]), "expected": 0, "slices": ()}, {"expected": 0}):
        names = [criterion.name for criterion in decide(evidence(**changed), POLICY).criteria]
        assert names[:5] == ["evidence", "shadow", "matured", "coverage", "better"]
        assert names[5].startswith("slice priority")


NAN = float("nan")


@pytest.mark.parametrize(
    "broken",
    [
        {"differences": np.append(differences(1999), NAN)},
        {"differences": np.append(differences(1999), np.inf)},
        {"differences": np.append(differences(1999), 1.5)},
        {"differences": differences().reshape(2, -1)},
        {"champion": None},
        {"champion": None, "safe_default": NAN},
        {"champion": 2},
        {"challengers": 0},
        {"expected": 1999},
        {"shadow": timedelta(days=-1)},
        {"early": 101},
        {"early": -1},
        {"slices": (SliceEvidence("priority=high", 400, None),)},
        {"slices": (SliceEvidence("priority=high", 400, NAN),)},
        {"slices": (SliceEvidence("priority=high", 4000, 0.1),)},
        {"slices": (SliceEvidence("priority=high", 400, 0.1), SliceEvidence("priority=high", 400, 0.1))},
    ],
)
def test_unsound_evidence_holds(broken):
    assert decide(evidence(), POLICY).verdict == "promote"
    verdict = decide(evidence(**broken), POLICY)
    assert verdict.verdict == "hold"
    assert verdict.criteria[0].status == "fail"
    assert verdict.low is None
    worse = evidence(**broken)
    assert decide(replace(worse, differences=-worse.differences), POLICY).verdict == "hold"


def test_a_declared_slice_that_nobody_has_seen_holds():
    assert decide(evidence(slices=()), POLICY).verdict == "hold"
    assert decide(evidence(slices=()), GatePolicy()).verdict == "promote"


def test_challengers_that_lose_rows_are_not_judged():
    assert decide(evidence(expected=2106), POLICY).verdict == "hold"
    assert decide(evidence(expected=2106, differences=-differences()), POLICY).verdict == "hold"


@st.composite
def judged(draw):
    rows = draw(st.integers(30, 400))
    drawn = differences(rows, draw(st.floats(-0.3, 0.3)), draw(st.floats(0.0, 0.3)), draw(st.integers(0, 9)))
    count = draw(st.integers(0, rows))
    return evidence(
        differences=drawn,
        expected=rows + draw(st.integers(0, rows // 10)),
        shadow=timedelta(days=draw(st.integers(0, 14))),
        challengers=draw(st.integers(1, 5)),
        slices=(SliceEvidence("priority=high", count, draw(st.floats(-0.1, 0.1)) if count else None),),
    )


LENIENT = GatePolicy(min_matured=50, min_shadow="7d", slices=("priority",))


@given(judged())
@settings(deadline=None)
def test_swapping_champion_and_challenger_mirrors_the_interval(found):
    one, other = decide(found, LENIENT), decide(replace(found, differences=-found.differences), LENIENT)
    assert one.low == pytest.approx(-other.high, abs=1e-12)
    assert one.high == pytest.approx(-other.low, abs=1e-12)
    assert not (one.verdict == other.verdict == "promote")


@given(judged(), st.floats(0.0, 0.2), st.sampled_from(["mean", "shadow", "slice", "challengers", "coverage"]))
@settings(max_examples=200, deadline=None)
def test_better_evidence_never_makes_the_verdict_worse(found, by, what):
    before = decide(found, LENIENT).verdict
    if what == "mean":
        better = replace(found, differences=np.clip(found.differences + by * (1 - found.differences.max()), -1, 1))
    elif what == "shadow":
        better = replace(found, shadow=found.shadow + timedelta(days=3))
    elif what == "slice":
        better = replace(found, slices=tuple(replace(p, mean=p.mean and p.mean + by) for p in found.slices))
    elif what == "challengers":
        better = replace(found, challengers=1)
        if before == "reject":  # alone it may be told apart as worse all the sooner
            return
    else:
        better = replace(found, expected=len(found.differences))
    after = decide(better, LENIENT).verdict
    if what in ("mean", "shadow", "slice") or before == "promote":
        assert RANK[after] >= RANK[before]


@given(judged())
@settings(deadline=None)
def test_promotion_needs_every_criterion_and_rejection_needs_matured_rows(found):
    verdict = decide(found, LENIENT)
    status = {criterion.name: criterion.status for criterion in verdict.criteria}
    assert (verdict.verdict == "promote") == all(value == "pass" for value in status.values())
    if verdict.verdict == "reject":
        assert status["matured"] == "pass"
        assert verdict.high < 0


def test_the_sequence_ends_in_the_interval():
    drawn = differences(700)
    mean, low, high = gate.sequence(drawn, 0.05, 500)
    last = gate.interval(drawn, 0.05, 500)
    assert (mean[-1], low[-1], high[-1]) == pytest.approx((last.mean, last.low, last.high))
